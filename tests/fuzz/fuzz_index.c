/* fuzz_index.c - model.safetensors.index.json on any bytes: what is accepted names plain files, each once. */
#include <stdlib.h>

#include "format/format_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    shard_index ix;
    gist_error err = { 0 };
    gist_status status = index_parse(&ix, NULL, (const char *)data, size, "fuzz", &err);
    if (status != err.code) abort();
    if (status != GIST_OK) return 0;
    if (ix.count == 0 || ix.count > INDEX_MAX_SHARDS) abort();
    for (size_t i = 0; i < ix.count; i++) {
        if (strpbrk(ix.shards[i], "/\\") || ix.shards[i][0] == '.' || ix.shards[i][0] == '\0') abort();
        if (i && strcmp(ix.shards[i - 1], ix.shards[i]) >= 0) abort();
    }
    index_close(&ix);
    return 0;
}
