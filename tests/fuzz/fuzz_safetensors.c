/* fuzz_safetensors.c - a safetensors file of any bytes: accepted views lie inside it and can be found by name.
 *
 * Each input is judged twice: as a file, and as a byte n followed by a header, which gets the length that fits and n
 * zero bytes of data, so that the mutations reach the checks behind the length.
 */
#include <stdlib.h>

#include "format/format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void judge(const uint8_t *data, size_t size) {
    st_file st;
    gist_error err = { 0 };
    gist_status status = st_parse(&st, NULL, data, size, "fuzz", &err);
    if (status != err.code) abort();
    if (status != GIST_OK) return;
    volatile uint8_t sum = 0;
    for (size_t i = 0; i < st.count; i++) {
        const tensor_view *t = &st.tensors[i];
        const uint8_t *p = t->data;
        if (st_find(&st, t->name) != t || t->bytes != dt_bytes(t->type, tensor_count(t))) abort();
        for (size_t j = 0; j < t->bytes; j++) sum = (uint8_t)(sum ^ p[j]);
    }
    for (size_t i = 0; i < st.meta_count; i++)
        if (st_meta_get(&st, st.meta[i].key) != st.meta[i].value) abort();
    st_close(&st);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    judge(data, size);
    if (size == 0) return 0;
    uint64_t header = size - 1;
    size_t whole = 8 + (size - 1) + data[0];
    uint8_t *file = calloc(1, whole);
    if (!file) abort();
    memcpy(file, &header, 8);
    memcpy(file + 8, data + 1, size - 1);
    judge(file, whole);
    free(file);
    return 0;
}
