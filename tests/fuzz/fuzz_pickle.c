/* fuzz_pickle.c - a pickle of any bytes: what is accepted names texts inside it and storages that it described. */
#include <stdlib.h>

#include "format/format_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void inside(const uint8_t *data, size_t size, const char *p, size_t n) {
    volatile uint8_t sum = 0;
    if ((const uint8_t *)p < data || (const uint8_t *)p + n > data + size) abort();
    for (size_t i = 0; i < n; i++) sum = (uint8_t)(sum ^ (uint8_t)p[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    pickle_dict d;
    gist_error err = { 0 };
    gist_status status = pickle_parse(&d, NULL, data, size, "fuzz", &err);
    if (status != err.code) abort();
    if (status != GIST_OK) return 0;
    for (size_t i = 0; i < d.count; i++) {
        const pickle_item *it = &d.items[i];
        inside(data, size, it->name, it->name_len);
        inside(data, size, it->storage.key, it->storage.key_len);
        if (it->tensor.dims < 0 || it->tensor.dims > TENSOR_MAX_DIMS || it->storage.type->bytes == 0) abort();
        for (int k = 0; k < it->tensor.dims; k++)
            if (it->tensor.shape[k] < 0 || it->tensor.stride[k] < 0) abort();
    }
    pickle_free(&d);
    return 0;
}
