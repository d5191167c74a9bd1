/* fuzz_gistfile.c - a .gist file of any bytes: what is accepted has all the rows it claims. */
#include <stdlib.h>

#include "format/format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    gfile g;
    gist_error err = { 0 };
    gist_status status = gfile_parse(&g, NULL, data, size, &err);
    if (status != err.code) abort();
    if (status != GIST_OK) return 0;
    volatile uint8_t sum = 0;
    size_t row = gfile_bytes(&g) / (2 * (size_t)g.layers);
    uint8_t *key = malloc(row), *value = malloc(row);
    for (int i = 0; key && value && i < g.layers; i++) {
        gfile_rows(&g, i, key, value);
        for (size_t j = 0; j < row; j++) sum = (uint8_t)(sum ^ key[j] ^ value[j]);
    }
    free(key);
    free(value);
    gfile_close(&g);
    return 0;
}
