/* fuzz_encode.c - any text through three small tokenizers.
 * Checked: ids are in range; without a normal form the ids give the text back; special tokens appear only on request;
 * the tokenization law holds.  First byte: tokenizer and flags; second: where the text is cut into prompt and input. */
#include <stdlib.h>

#include "token/token_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void add_bytes(sbuf *s, bool sentencepiece) {
    for (int b = 0; b < 256; b++) {
        char u[5] = { 0 };
        u[utf8_encode(byte_letter((uint8_t)b), u)] = 0;
        if (sentencepiece)
            sbuf_fmt(s, "%s\"<0x%02X>\":%d", b ? "," : "", (unsigned)b, b);
        else
            sbuf_fmt(s, "%s\"%s%s\":%d", b ? "," : "", *u == '"' || *u == '\\' ? "\\" : "", u, b);
    }
}

static tokenizer *make(int kind) {
    static const char *const normal[] = { "null", "{\"type\":\"NFC\"}",
                                          "{\"type\":\"Prepend\",\"prepend\":\"\xE2\x96\x81\"}" };
    tokenizer *t = NULL;
    gist_error err = { 0 };
    sbuf s;
    sbuf_init(&s, NULL);
    sbuf_fmt(&s,
             "{\"added_tokens\":[{\"id\":400,\"content\":\"<GIST>\",\"special\":true},"
             "{\"id\":401,\"content\":\"<s>\",\"special\":true,\"lstrip\":true}],\"normalizer\":%s,",
             normal[kind]);
    if (kind < 2) sbuf_str(&s, "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},");
    sbuf_fmt(&s, "\"model\":{\"type\":\"BPE\",\"byte_fallback\":%s,\"vocab\":{", kind == 2 ? "true" : "false");
    add_bytes(&s, kind == 2);
    if (kind == 2)
        sbuf_str(&s,
                 ",\"\xE2\x96\x81\":300,\"t\":301,\"h\":302,\"e\":303,\"th\":304,\"the\":305,"
                 "\"\xE2\x96\x81the\":306,\"he\":307},\"merges\":[\"t h\",\"th e\",\"\xE2\x96\x81 the\",\"h e\"]}}");
    else
        sbuf_str(&s, ",\"th\":300,\"the\":301,\"he\":302,\"aa\":303,\"aaa\":304},"
                     "\"merges\":[\"t h\",\"th e\",\"h e\",\"a a\",\"aa a\"]}}");
    if (tok_parse(s.p, s.len, NULL, &t, &err) != GIST_OK) abort();
    sbuf_free(&s);
    return t;
}

static void check(const tokenizer *t, int kind, const char *text, size_t len, unsigned flags) {
    gist_error err = { 0 };
    tok_ids ids;
    sbuf out;
    tok_stream s;
    tok_ids_init(&ids, NULL);
    sbuf_init(&out, NULL);
    sbuf_str(&out, "");
    tok_stream_init(&s, t, true);
    gist_status st = tok_encode(t, text, len, flags, &ids, &err);
    if (st != err.code || (st != GIST_OK && st != GIST_ERR_TEXT) || utf8_valid(text, len, NULL) != (st == GIST_OK))
        abort();
    for (size_t i = 0; i < ids.n; i++) {
        if (!tok_piece(t, ids.id[i], NULL)) abort();
        if (tok_is_special(t, ids.id[i]) && !(flags & TOK_SPECIAL)) abort();
        tok_stream_push(&s, ids.id[i], &out);
    }
    tok_stream_end(&s, &out);
    bool plain = !(flags & TOK_SPECIAL) && kind == 0;
    if (st == GIST_OK && plain && (out.len != len || memcmp(out.p, text, len) != 0)) abort();
    sbuf_free(&out);
    tok_ids_free(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2) return 0;
    int kind = data[0] % 3;
    tokenizer *t = make(kind);
    const char *text = (const char *)data + 2;
    size_t len = size - 2, cut = data[1] < len ? data[1] : len;
    check(t, kind, text, len, data[0] & 4 ? TOK_SPECIAL : 0);
    gist_error err = { 0 };
    const tok_template *tp = tok_template_find(data[0] & 8 ? "paper" : "raw");
    gist_status st = tok_template_law(t, tp, text, cut, 1 + (data[0] >> 4) % 4, text + cut, len - cut, &err);
    if (st != err.code) abort();
    if (st != GIST_OK && utf8_valid(text, cut, NULL) && utf8_valid(text + cut, len - cut, NULL) &&
        !strstr(err.msg, "empty"))
        abort();
    tok_close(t);
    return 0;
}
