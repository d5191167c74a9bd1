/* fuzz_tokjson.c - tokenizer.json and the side files from any bytes: what is accepted encodes, its ids are its own.
 * Bytes up to the first 0xFF are the tokenizer.json, the rest a tokenizer_config.json. */
#include <stdlib.h>

#include "token/token_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const tokenizer *t) {
    static const char text[] = "  the order  number 12\n<tool> cafe\xCC\x81 aaaaab<GIST> word's <s> ";
    gist_error err = { 0 };
    tok_ids ids;
    tok_ids_init(&ids, NULL);
    gist_status st = tok_encode(t, text, sizeof text - 1, TOK_BOS | TOK_SPECIAL, &ids, &err);
    if (st != err.code) abort();
    for (size_t i = 0; i < ids.n; i++)
        if (!tok_piece(t, ids.id[i], NULL)) abort();
    tok_ids_free(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tokenizer *t = NULL;
    gist_error err = { 0 };
    const uint8_t *cut = size ? memchr(data, 0xFF, size) : NULL;
    size_t n = cut ? (size_t)(cut - data) : size;
    if (n == 0 || data[0] != '{') return 0;
    gist_status st = tok_parse(data, n, NULL, &t, &err);
    if (st != err.code || (st == GIST_OK) != (t != NULL)) abort();
    if (st != GIST_OK) return 0;
    use(t);
    side_files side = { 0 };
    if (cut && json_bytes(cut + 1, size - n - 1, "tokenizer_config.json", &side.tokenizer_config, &err) == GIST_OK)
        st = side_apply(t, &side, &err);
    if (st != GIST_OK && st != err.code) abort();
    side_free(&side);
    tok_close(t);
    return 0;
}
