/* fuzz_config.c - llama_config_parse on any bytes: an error with a message and the output untouched, or a configuration
 * within every bound that the loader and the kernels rely on. */
#include <stdlib.h>

#include "model/model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool sound(const llama_config *c) {
    bool positions = c->encoder ? c->encoder <= LLAMA_MAX_LAYERS && c->near.buckets >= 4 && c->start < c->V &&
                                      c->near.most > c->near.buckets / 2
                                : c->theta >= 1 && c->theta <= 1e12f;
    bool sizes = c->L >= 1 && c->L <= LLAMA_MAX_LAYERS && c->C >= 1 && c->C <= LLAMA_MAX_WIDTH && c->F >= 1 &&
                 c->V >= 1 && c->V <= LLAMA_MAX_VOCAB && c->context >= 1 && c->context <= LLAMA_MAX_CONTEXT;
    bool heads = c->H >= 1 && c->G >= 1 && c->G <= GFILE_MAX_HEADS && c->H % c->G == 0 && c->D >= 2 && c->D % 2 == 0 &&
                 c->D <= GFILE_MAX_WIDTH && (int64_t)c->H * c->D <= LLAMA_MAX_WIDTH;
    const llama_rope *r = &c->rope;
    bool rope = r->kind == ROPE_PLAIN || (r->kind < ROPE_KINDS && r->factor >= 1 && r->factor <= 1e6f);
    if (r->kind == ROPE_LLAMA3) rope = rope && r->low > 0 && r->low < r->high && r->original >= 1;
    if (c->family >= FAMILIES || c->window < 0 || !rope) return false;
    return sizes && heads && c->F <= 1 << 20 && c->eps >= 0 && c->eps <= 1 && positions;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    json_t *json = NULL;
    gist_error err = { 0 };
    if (json_parse((const char *)data, size, "config.json", &json, &err) != GIST_OK) return 0;
    llama_config c, before;
    memset(&c, 0x5a, sizeof c);
    before = c;
    gist_status status = llama_config_parse(&c, json, "config.json", &err);
    if (status != err.code) abort();
    if (status == GIST_OK ? !sound(&c) : memcmp(&c, &before, sizeof c) != 0 || !err.msg[0]) abort();
    if (status == GIST_OK && llama_parameters(&c) == 0) abort();
    json_decref(json);
    return 0;
}
