/* token_testing.h - what the tests of tokenizers share: the small tokenizers of tests/data/token, and ids as text. */
#ifndef TOKEN_TESTING_H
#define TOKEN_TESTING_H

#include "testing.h"

#include <stdlib.h>

#include "token/token_int.h"

static inline tokenizer *open_fixture(const char *name) {
    char path[TEST_PATH], sub[128];
    gist_error err = { 0 };
    tokenizer *t = NULL;
    snprintf(sub, sizeof sub, "token/%s", name);
    assert_ok(tok_open(test_fixture(path, sub), NULL, &t, &err), &err);
    return t;
}

static inline char *read_fixture(const char *name, size_t *len) {
    char path[TEST_PATH], sub[128];
    snprintf(sub, sizeof sub, "token/%s", name);
    return (char *)test_read(test_fixture(path, sub), len);
}

static inline size_t unescape(char *s) {
    char *to = s;
    for (const char *p = s; *p; p++)
        *to++ = *p != '\\' ? *p : *++p == 'n' ? '\n' : *p == 'r' ? '\r' : *p == 't' ? '\t' : *p;
    *to = 0;
    return (size_t)(to - s);
}

static inline void assert_ids(const tokenizer *t, const char *text, size_t len, unsigned flags, const char *want) {
    tok_ids ids;
    gist_error err = { 0 };
    sbuf got;
    sbuf_init(&got, NULL);
    tok_ids_init(&ids, NULL);
    assert_ok(tok_encode(t, text, len, flags, &ids, &err), &err);
    sbuf_str(&got, "");
    for (size_t i = 0; i < ids.n; i++) sbuf_fmt(&got, i ? " %d" : "%d", ids.id[i]);
    if (strcmp(got.p, want) != 0) fail_msg("\"%.*s\":\n  got  %s\n  want %s", (int)len, text, got.p, want);
    sbuf_free(&got);
    tok_ids_free(&ids);
}

#endif
