/* fuzz_gguf.c - a GGUF file of any bytes: accepted views lie inside it, every value can be read, the model's config and
 * vocabulary are accepted or refused.
 */
#include <stdlib.h>

#include "engine/engine.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void touch(const void *bytes, size_t n) {
    volatile uint8_t sum = 0;
    for (size_t i = 0; i < n; i++) sum = (uint8_t)(sum ^ ((const uint8_t *)bytes)[i]);
}

static void read_value(const gguf_file *g, const gguf_value *v) {
    gist_error err = { 0 };
    int n;
    float x;
    bool b;
    const char *s;
    size_t len;
    const gguf_value *array;
    if (gguf_value_find(g, v->key) != v) abort();
    touch(v->data, v->bytes);
    for (size_t i = 0; i < v->count; i++) {
        if (v->kind == GGUF_STRING) {
            s = gguf_string_at(v, i, &len);
            touch(s, len);
        } else if (v->kind == GGUF_F32 || v->kind == GGUF_F64) {
            (void)gguf_float_at(v, i);
        } else {
            (void)gguf_int_at(v, i);
        }
    }
    (void)gguf_get_int(g, v->key, true, -5, 5, &n, &err);
    (void)gguf_get_float(g, v->key, true, -5, 5, &x, &err);
    (void)gguf_get_bool(g, v->key, true, &b, &err);
    (void)gguf_get_string(g, v->key, true, &s, &len, &err);
    (void)gguf_get_array(g, v->key, true, v->kind, &array, &err);
}

static void read_model(const gguf_file *g) {
    gist_error err = { 0 };
    llama_config c;
    tokenizer *t = NULL;
    if (llama_config_gguf(&c, g, &err) != err.code) abort();
    err = (gist_error){ 0 };
    if (vocabulary_open(g, mem_default(), &t, &err) != err.code) abort();
    tok_close(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    gguf_file g;
    gist_error err = { 0 };
    gist_status status = gguf_parse(&g, NULL, data, size, "fuzz", &err);
    if (status != err.code) abort();
    if (status != GIST_OK) return 0;
    for (size_t i = 0; i < g.count; i++) {
        const tensor_view *t = &g.tensors[i];
        if (gguf_find(&g, t->name) != t || t->bytes != dt_bytes(t->type, tensor_count(t))) abort();
        touch(t->data, t->bytes);
        if (tensor_count(t) > 4096) continue;
        float *x = malloc(tensor_count(t) * sizeof *x);
        if (!x) abort();
        dt_to_f32(x, t->data, t->type, tensor_count(t));
        free(x);
    }
    for (size_t i = 0; i < g.value_count; i++) read_value(&g, &g.values[i]);
    read_model(&g);
    gguf_close(&g);
    return 0;
}
