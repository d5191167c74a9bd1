/* fuzz_charsmap.c - a map of characters from any bytes: what is accepted finds rules of bounded length with
 * replacements that are bounded UTF-8, in any text.  First byte: how many bytes at the end are the text. */
#include <stdlib.h>

#include "token/token_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    charsmap m = { 0 };
    gist_error err = { 0 };
    if (size < 1 || (size_t)data[0] + 1 > size) return 0;
    size_t text_len = data[0], len = size - 1 - text_len;
    const char *text = (const char *)data + 1 + len, *to = NULL;
    gist_status st = charsmap_load(&m, mem_default(), data + 1, len, &err);
    if (st != err.code || (st == GIST_OK) != (m.unit != NULL)) abort();
    for (size_t i = 0; st == GIST_OK && i < text_len; i++) {
        size_t n = charsmap_longest(&m, text + i, text_len - i, &to);
        if (n > text_len - i || n > 256) abort();
        if (n && (strlen(to) > TOK_MAX_PIECE || !utf8_valid(to, strlen(to), NULL))) abort();
    }
    charsmap_free(&m, mem_default());
    return 0;
}
