/* fuzz_spm.c - tokenizer.model as SentencePiece, from any bytes: what is accepted encodes, and its ids are its own. */
#include <stdlib.h>

#include "token/token_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char text[] =
        "  the order  \xE2\x96\x81number 12\n<tool> caf\xC3\xA9 aaaaab<s></s> e\xCC\x81\xCC\xA3\xC2\xA8 "
        "\xE2\x84\xAB\xC2\xAD\xF0\x9F\x9A\x80 \xE6\x97\xA5\xE6\x9C\xAC";
    tokenizer *t = NULL;
    gist_error err = { 0 };
    if (size && data[0] == '{') return 0; /* fuzz_tokjson's */
    gist_status st = tok_parse(data, size, NULL, &t, &err);
    if (st != err.code || (st == GIST_OK) != (t != NULL)) abort();
    if (st != GIST_OK) return 0;
    tok_ids ids;
    sbuf out;
    tok_stream s;
    tok_ids_init(&ids, NULL);
    sbuf_init(&out, NULL);
    tok_stream_init(&s, t, true);
    if (tok_encode(t, text, sizeof text - 1, TOK_BOS | TOK_SPECIAL | TOK_EOS, &ids, &err) != GIST_OK &&
        err.code != GIST_ERR_TEXT)
        abort();
    for (size_t i = 0; i < ids.n; i++) {
        if (!tok_piece(t, ids.id[i], NULL)) abort();
        tok_stream_push(&s, ids.id[i], &out);
    }
    tok_stream_end(&s, &out);
    if (out.len && !utf8_valid(out.p, out.len, NULL)) abort();
    sbuf_free(&out);
    tok_ids_free(&ids);
    tok_close(t);
    return 0;
}
