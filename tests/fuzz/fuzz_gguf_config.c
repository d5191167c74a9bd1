/* fuzz_gguf_config.c - llama_config_gguf on any GGUF file: an error with a message and the output untouched, or a
 * configuration within every bound that the loader and the kernels rely on, with finite frequencies. */
#include <math.h>
#include <stdlib.h>

#include "model/model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool sound(const llama_config *c) {
    bool positions = c->encoder ? c->encoder <= LLAMA_MAX_LAYERS && c->near.buckets >= 4 && c->start < c->V &&
                                      c->near.most > c->near.buckets / 2
                                : c->theta >= 1 && c->theta <= 1e12f;
    bool sizes = c->L >= 1 && c->L <= LLAMA_MAX_LAYERS && c->C >= 1 && c->C <= LLAMA_MAX_WIDTH && c->F >= 1 &&
                 c->F <= 1 << 20 && c->V >= 1 && c->V <= LLAMA_MAX_VOCAB && c->context >= 1 &&
                 c->context <= LLAMA_MAX_CONTEXT && c->window >= 0;
    bool heads = c->H >= 1 && c->G >= 1 && c->G <= GFILE_MAX_HEADS && c->H % c->G == 0 && c->D >= 2 && c->D % 2 == 0 &&
                 c->D <= GFILE_MAX_WIDTH && (int64_t)c->H * c->D <= LLAMA_MAX_WIDTH;
    return sizes && heads && c->family < FAMILIES && c->eps >= 0 && c->eps <= 1 && positions;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    gguf_file g;
    gist_error err = { 0 };
    if (gguf_parse(&g, mem_default(), data, size, "fuzz.gguf", &err) != GIST_OK) return 0;
    llama_config c, before;
    memset(&c, 0x5a, sizeof c);
    before = c;
    gist_status status = llama_config_gguf(&c, &g, &err);
    if (status != err.code) abort();
    if (status == GIST_OK ? !sound(&c) : memcmp(&c, &before, sizeof c) != 0 || !err.msg[0]) abort();
    if (status == GIST_OK) {
        float freq[GFILE_MAX_WIDTH / 2];
        llama_frequencies(&c, freq);
        for (int i = 0; i < c.D / 2; i++)
            if (!(freq[i] > 0 && freq[i] <= 1)) abort();
    }
    gguf_close(&g);
    return 0;
}
