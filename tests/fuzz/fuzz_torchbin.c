/* fuzz_torchbin.c - a file of torch.save of any bytes: accepted views lie inside it or in copies of their own, can be
 * found by name, and their copies take no more than the file.
 */
#include <stdlib.h>

#include "format/format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    pt_file f;
    gist_error err = { 0 };
    gist_status status = pt_parse(&f, NULL, data, size, "fuzz", &err);
    if (status != err.code) abort();
    if (status != GIST_OK) return 0;
    volatile uint8_t sum = 0;
    size_t outside = 0;
    for (size_t i = 0; i < f.count; i++) {
        const tensor_view *t = &f.tensors[i];
        const uint8_t *p = t->data;
        if (pt_find(&f, t->name) != t || !pt_holds(&f, t->name)) abort();
        if (t->bytes != dt_bytes(t->type, tensor_count(t))) abort();
        if (p < data || p + t->bytes > data + size) outside += t->bytes;
        for (size_t j = 0; j < t->bytes; j++) sum = (uint8_t)(sum ^ p[j]);
    }
    if (outside > size || f.count > f.name_count) abort();
    pt_close(&f);
    return 0;
}
