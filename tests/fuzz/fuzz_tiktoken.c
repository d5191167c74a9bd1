/* fuzz_tiktoken.c - lines of base64 and rank, from any bytes; and merges.txt for a small vocabulary. */
#include <stdlib.h>

#include "token/token_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(tokenizer *t) {
    static const char text[] = "  the order  number 12\n cafe\xCC\x81 aaaaab<|eot_id|> word's ";
    gist_error err = { 0 };
    tok_ids ids;
    tok_ids_init(&ids, NULL);
    if (tok_encode(t, text, sizeof text - 1, TOK_BOS | TOK_SPECIAL, &ids, &err) != err.code) abort();
    for (size_t i = 0; i < ids.n; i++)
        if (!tok_piece(t, ids.id[i], NULL)) abort();
    tok_ids_free(&ids);
    tok_close(t);
}

/* The 256 bytes as lines, so that what the fuzzer writes behind them can be a whole vocabulary. */
static void with_bytes(const uint8_t *data, size_t size) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    sbuf s;
    tokenizer *t = NULL;
    gist_error err = { 0 };
    sbuf_init(&s, NULL);
    for (int b = 0; b < 256; b++) sbuf_fmt(&s, "%c%c== %d\n", digits[b >> 2], digits[(b & 3) << 4], b);
    sbuf_add(&s, data, size);
    gist_status st = tok_parse(s.p, s.len, NULL, &t, &err);
    if (st != err.code) abort();
    if (st == GIST_OK) use(t);
    sbuf_free(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char vocab[] = "{\"a\":0,\"b\":1,\"c\":2,\"ab\":3,\"abc\":4,\"bc\":5,\"\xC4\xA0\":6,\"\xC4\xA0"
                                "a\":7}";
    tokenizer *t = NULL;
    gist_error err = { 0 };
    if (size == 0) return 0;
    if (data[0] == '#') {
        gist_status st = tok_parse_gpt2(vocab, sizeof vocab - 1, (const char *)data, size, NULL, NULL, &t, &err);
        if (st != err.code) abort();
        if (st == GIST_OK) use(t);
    } else {
        with_bytes(data, size);
    }
    return 0;
}
