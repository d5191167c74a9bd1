/* test_family_config.c - what config.json and GGUF metadata say about a family: read, refused by name, written back.
 *
 *   json      families, windows, rotary scaling; every bad value is named
 *   rope      frequencies against transformers' (tests/data/llama/rope.safetensors)
 *   save      config.json of any config reads back as the same config
 *   gguf      the keys of each fixture's model.gguf, and one after another spoiled in place
 *   memory    an engine on a GGUF file with each allocation failing
 */
#include "testing.h"

#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "engine/engine.h"

static const char *const models[] = { "llama31", "mistral", "qwen2", "qwen3" };
enum { MODELS = sizeof models / sizeof *models };

/* ---- config.json ---- */

static gist_status parse(llama_config *c, const char *family, const char *more, gist_error *err) {
    char text[1024];
    json_t *json = NULL;
    int n = snprintf(text, sizeof text,
                     "{\"model_type\": \"%s\", \"num_hidden_layers\": 2, \"hidden_size\": 16, \"vocab_size\": 99,"
                     " \"intermediate_size\": 24, \"num_attention_heads\": 4, \"num_key_value_heads\": 2,"
                     " \"max_position_embeddings\": 128%s%s}",
                     family, *more ? ", " : "", more);
    *err = (gist_error){ 0 };
    assert_ok(json_parse(text, (size_t)n, "text", &json, err), err);
    gist_status status = llama_config_parse(c, json, "config.json", err);
    json_decref(json);
    return status;
}

static void test_families(void **state) {
    (void)state;
    static const struct {
        const char *family, *more;
        llama_family is;
        int D, window;
        llama_rope_kind rope;
        float theta;
    } good[] = {
        { "llama", "\"sliding_window\": 5", FAMILY_LLAMA, 4, 0, ROPE_PLAIN, 1e4f }, /* not LlamaConfig's */
        { "llama", "\"rope_theta\": 5e5, \"rope_scaling\": {\"type\": \"linear\", \"factor\": 2}", FAMILY_LLAMA, 4, 0,
          ROPE_LINEAR, 5e5f },
        { "llama",
          "\"rope_parameters\": {\"rope_type\": \"llama3\", \"rope_theta\": 7e5, \"factor\": 8, \"low_freq_factor\": 1,"
          " \"high_freq_factor\": 4, \"original_max_position_embeddings\": 64}",
          FAMILY_LLAMA, 4, 0, ROPE_LLAMA3, 7e5f },
        { "mistral", "", FAMILY_MISTRAL, 4, 4096, ROPE_PLAIN, 1e4f }, /* MistralConfig's default */
        { "mistral", "\"sliding_window\": null", FAMILY_MISTRAL, 4, 0, ROPE_PLAIN, 1e4f },
        { "mistral", "\"sliding_window\": 7, \"head_dim\": 6", FAMILY_MISTRAL, 6, 7, ROPE_PLAIN, 1e4f },
        { "qwen2", "\"sliding_window\": 7, \"max_window_layers\": 0", FAMILY_QWEN2, 4, 0, ROPE_PLAIN, 1e4f },
        { "qwen2", "\"sliding_window\": 7, \"use_sliding_window\": true", FAMILY_QWEN2, 4, 0, ROPE_PLAIN, 1e4f },
        { "qwen2", "\"sliding_window\": 7, \"use_sliding_window\": true, \"max_window_layers\": 0", FAMILY_QWEN2, 4, 7,
          ROPE_PLAIN, 1e4f },
        { "qwen2",
          "\"sliding_window\": 7, \"use_sliding_window\": true, \"max_window_layers\": 1,"
          " \"layer_types\": [\"full_attention\", \"full_attention\"]",
          FAMILY_QWEN2, 4, 0, ROPE_PLAIN, 1e4f },
        { "qwen3", "", FAMILY_QWEN3, 128, 0, ROPE_PLAIN, 1e4f }, /* Qwen3Config's default */
        { "qwen3",
          "\"head_dim\": 8, \"sliding_window\": 9, \"use_sliding_window\": true,"
          " \"layer_types\": [\"sliding_attention\", \"sliding_attention\"]",
          FAMILY_QWEN3, 8, 9, ROPE_PLAIN, 1e4f },
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        llama_config c = { 0 };
        gist_error err;
        assert_ok(parse(&c, good[i].family, good[i].more, &err), &err);
        assert_int_equal(c.family, good[i].is);
        assert_int_equal(c.D, good[i].D);
        assert_int_equal(c.window, good[i].window);
        assert_int_equal(c.rope.kind, good[i].rope);
        assert_true(c.theta == good[i].theta);
    }
}

static void test_refused(void **state) {
    (void)state;
#define LLAMA3(low, high, original)                                                                                    \
    "\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": " low                           \
    ", \"high_freq_factor\": " high ", \"original_max_position_embeddings\": " original "}"
    static const struct {
        const char *family, *more, *said;
        gist_status status;
    } bad[] = {
        { "gemma", "", "gemma", GIST_ERR_UNSUPPORTED },
        { "qwen2_moe", "", "supported: llama, mistral, qwen2, qwen3, t5", GIST_ERR_UNSUPPORTED },
        { "qwen2", "\"architectures\": [\"LlamaForCausalLM\"]", "supported: Qwen2ForCausalLM", GIST_ERR_UNSUPPORTED },
        { "mistral", "\"sliding_window\": -3", "sliding_window", GIST_ERR_FORMAT },
        { "mistral", "\"sliding_window\": 0", "sliding_window", GIST_ERR_FORMAT },
        { "mistral", "\"sliding_window\": 1.5", "sliding_window", GIST_ERR_FORMAT },
        { "qwen2", "\"sliding_window\": \"all\"", "sliding_window", GIST_ERR_FORMAT },
        { "qwen2", "\"use_sliding_window\": 1", "use_sliding_window", GIST_ERR_FORMAT },
        { "qwen2", "\"use_sliding_window\": true, \"max_window_layers\": 1", "in some layers", GIST_ERR_UNSUPPORTED },
        { "qwen2", "\"use_sliding_window\": true, \"max_window_layers\": -1", "max_window_layers", GIST_ERR_FORMAT },
        { "qwen3", "\"use_sliding_window\": true, \"layer_types\": [\"sliding_attention\", \"full_attention\"]",
          "in some layers", GIST_ERR_UNSUPPORTED },
        { "qwen3", "\"use_sliding_window\": true, \"layer_types\": [\"full_attention\"]", "2 layers", GIST_ERR_FORMAT },
        { "qwen3", "\"use_sliding_window\": true, \"layer_types\": [\"full_attention\", \"linear_attention\"]",
          "linear_attention", GIST_ERR_UNSUPPORTED },
        { "qwen3", "\"use_sliding_window\": true, \"layer_types\": [\"full_attention\", 3]", "layer_types",
          GIST_ERR_UNSUPPORTED },
        { "qwen3", "\"attention_bias\": true", "attention_bias", GIST_ERR_UNSUPPORTED },
        { "qwen3", "\"head_dim\": 7", "even", GIST_ERR_UNSUPPORTED },
        { "qwen2", "\"hidden_act\": \"gelu\"", "gelu", GIST_ERR_UNSUPPORTED },
        { "llama", "\"rope_scaling\": {\"type\": \"linear\"}", "factor", GIST_ERR_FORMAT },
        { "llama", "\"rope_scaling\": {\"type\": \"linear\", \"factor\": 0}", "factor", GIST_ERR_FORMAT },
        { "llama", "\"rope_scaling\": {\"type\": \"linear\", \"factor\": -2}", "factor", GIST_ERR_FORMAT },
        { "llama", "\"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 2}", "dynamic", GIST_ERR_UNSUPPORTED },
        { "llama", "\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 2}", "yarn", GIST_ERR_UNSUPPORTED },
        { "llama", "\"rope_scaling\": {\"rope_type\": 3}", "rope_type", GIST_ERR_FORMAT },
        { "llama", LLAMA3("4", "1", "64"), "low_freq_factor 4 is not below high_freq_factor 1", GIST_ERR_FORMAT },
        { "llama", LLAMA3("1", "1", "64"), "not below", GIST_ERR_FORMAT },
        { "llama", LLAMA3("0", "4", "64"), "low_freq_factor", GIST_ERR_FORMAT },
        { "llama", LLAMA3("1", "null", "64"), "high_freq_factor", GIST_ERR_FORMAT },
        { "llama", LLAMA3("1", "4", "0"), "original_max_position_embeddings", GIST_ERR_FORMAT },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        llama_config c = { .L = 77 };
        gist_error err;
        gist_status status = parse(&c, bad[i].family, bad[i].more, &err);
        assert_fails(status, &err, bad[i].status, bad[i].said);
        assert_int_equal(c.L, 77);
    }
}

/* ---- frequencies ---- */

static void test_rope(void **state) {
    (void)state;
    char path[TEST_PATH];
    st_file st;
    gist_error err = { 0 };
    assert_ok(st_open(&st, mem_default(), test_fixture(path, "llama/rope.safetensors"), &err), &err);
    const struct { const char *name; llama_rope rope; } kinds[] = {
        { "inv_freq.default", { .kind = ROPE_PLAIN } },
        { "inv_freq.linear", { .kind = ROPE_LINEAR, .factor = 4 } },
        { "inv_freq.llama3", { ROPE_LLAMA3, 8, 1, 4, 8192 } },
    };
    for (int i = 0; i < 3; i++) {
        llama_config c = { .D = 64, .theta = 500000, .rope = kinds[i].rope };
        const tensor_view *t = st_find(&st, kinds[i].name);
        float want[32], got[32];
        assert_non_null(t);
        assert_int_equal(tensor_count(t), 32);
        dt_to_f32(want, t->data, t->type, 32);
        llama_frequencies(&c, got);
        for (int d = 0; d < 32; d++)
            if (fabsf(got[d] - want[d]) > 5e-7f * want[d])
                fail_msg("%s[%d] is %.9g, expected %.9g", kinds[i].name, d, (double)got[d], (double)want[d]);
    }
    st_close(&st);
}

/* ---- saving ---- */

static void same_config(const llama_config *a, const llama_config *b) {
    uint8_t x[2][16];
    const llama_config *c[2] = { a, b };
    for (int i = 0; i < 2; i++) { /* every field but the family's name enters the hash */
        hasher *h = hash_begin(mem_default());
        assert_non_null(h);
        llama_config_hash(c[i], h);
        hash128 sum = hash_end(h);
        memcpy(x[i], sum.b, sizeof sum.b);
    }
    assert_int_equal(a->family, b->family);
    assert_memory_equal(x[0], x[1], sizeof x[0]);
}

static void saved_again(const llama_config *c, const json_t *from, const char *dir) {
    llama_config again = { 0 };
    gist_error err = { 0 };
    assert_ok(llama_save_config(c, from, DT_BF16, dir, mem_default(), &err), &err);
    assert_ok(llama_config_read(&again, mem_default(), dir, &err), &err);
    same_config(c, &again);
}

static void test_save(void **state) {
    (void)state;
    char dir[TEST_PATH], path[TEST_PATH], name[64];
    gist_error err = { 0 };
    assert_int_equal(mkdir(test_tmp(dir, "saved"), 0777), 0);
    llama_config all[MODELS], plain;
    json_t *json[MODELS];
    for (int m = 0; m < MODELS; m++) {
        snprintf(name, sizeof name, "families/%s/config.json", models[m]);
        assert_ok(json_read_file(test_fixture(path, name), &json[m], &err), &err);
        assert_ok(llama_config_parse(&all[m], json[m], name, &err), &err);
    }
    assert_int_equal(all[0].rope.kind, ROPE_LLAMA3);
    assert_int_equal(all[1].window, 6);
    for (int m = 0; m < MODELS; m++) {
        saved_again(&all[m], NULL, dir);
        saved_again(&all[m], json[m], dir);
        plain = all[m]; /* without scaling and window, over a config that has them, and the reverse */
        plain.rope = (llama_rope){ .kind = ROPE_PLAIN };
        plain.window = 0;
        plain.theta = 12345;
        saved_again(&plain, json[m], dir);
        plain.rope = (llama_rope){ .kind = ROPE_LINEAR, .factor = 2.5f };
        if (m > 0) plain.window = 33;
        saved_again(&plain, json[m], dir);
        saved_again(&plain, NULL, dir);
    }
    for (int m = 0; m < MODELS; m++) json_decref(json[m]);
}

/* ---- GGUF ---- */

static uint8_t *read_gguf(const char *model, size_t *len) {
    char path[TEST_PATH], name[64];
    snprintf(name, sizeof name, "families/%s/model.gguf", model);
    return test_read(test_fixture(path, name), len);
}

static gist_status config_of(llama_config *c, const uint8_t *bytes, size_t len, gist_error *err) {
    gguf_file g;
    *err = (gist_error){ 0 };
    TRY(gguf_parse(&g, mem_default(), bytes, len, "test", err));
    gist_status status = llama_config_gguf(c, &g, err);
    gguf_close(&g);
    return status;
}

static void test_gguf_config(void **state) {
    (void)state;
    for (int m = 0; m < MODELS; m++) {
        char path[TEST_PATH], name[64];
        size_t len;
        llama_config hf = { 0 }, c = { 0 };
        gist_error err = { 0 };
        uint8_t *bytes = read_gguf(models[m], &len);
        snprintf(name, sizeof name, "families/%s", models[m]);
        assert_ok(llama_config_read(&hf, mem_default(), test_fixture(path, name), &err), &err);
        assert_ok(config_of(&c, bytes, len, &err), &err);
        same_config(&hf, &c);
        free(bytes);
    }
}

static uint8_t *find_text(uint8_t *bytes, size_t len, const char *text) {
    size_t n = strlen(text);
    for (size_t i = 0; i + n <= len; i++)
        if (memcmp(bytes + i, text, n) == 0) return bytes + i;
    fail_msg("the file has no %s", text);
    return NULL;
}

/* One thing of the file changed: a value of 32 bits behind its key, or (as NULL) some text. */
static void test_gguf_refused(void **state) {
    (void)state;
    static const uint32_t nan_bits = 0x7fc00000;
    static const struct {
        const char *model, *key, *as;
        uint32_t value;
        gist_status status;
        const char *said;
    } bad[] = {
        { "llama31", "general.architecture", "general.architexture", 0, GIST_ERR_FORMAT, "general.architecture" },
        { "llama31", "llama.block_count", NULL, 0, GIST_ERR_FORMAT, "llama.block_count" },
        { "llama31", "llama.block_count", NULL, 5000, GIST_ERR_FORMAT, "llama.block_count" },
        { "llama31", "llama.block_count", "llama.block_xount", 0, GIST_ERR_FORMAT, "llama.block_count" },
        { "llama31", "llama.embedding_length", NULL, 0xffffffff, GIST_ERR_FORMAT, "llama.embedding_length" },
        { "llama31", "llama.attention.head_count", NULL, 3, GIST_ERR_FORMAT, "3 query heads" },
        { "llama31", "llama.attention.head_count_kv", NULL, 0, GIST_ERR_FORMAT, "head_count_kv" },
        { "llama31", "llama.attention.key_length", NULL, 7, GIST_ERR_UNSUPPORTED, "even" },
        { "llama31", "llama.attention.value_length", NULL, 6, GIST_ERR_UNSUPPORTED, "value_length" },
        { "llama31", "llama.rope.dimension_count", NULL, 4, GIST_ERR_UNSUPPORTED, "dimension_count" },
        { "llama31", "llama.rope.freq_base", NULL, 0, GIST_ERR_FORMAT, "freq_base" },
        { "llama31", "llama.attention.layer_norm_rms_epsilon", NULL, nan_bits, GIST_ERR_FORMAT, "epsilon" },
        { "llama31", "rope_freqs.weight", "rope_freqs.wxight", 0, GIST_OK, "" },
        { "llama31", "token_embd.weight", "token_embx.weight", 0, GIST_ERR_FORMAT, "token_embd.weight is missing" },
        { "mistral", "llama.attention.sliding_window", NULL, 0xffffffff, GIST_ERR_FORMAT, "sliding_window" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        size_t len, n = strlen(bad[i].key);
        uint8_t *bytes = read_gguf(bad[i].model, &len);
        uint8_t *at = find_text(bytes, len, bad[i].key);
        if (bad[i].as)
            memcpy(at, bad[i].as, n);
        else
            memcpy(at + n + 4, &bad[i].value, 4);
        llama_config c = { .L = 77 };
        gist_error err;
        gist_status status = config_of(&c, bytes, len, &err);
        if (bad[i].status == GIST_OK)
            assert_ok(status, &err);
        else
            assert_fails(status, &err, bad[i].status, bad[i].said);
        if (status != GIST_OK) assert_int_equal(c.L, 77);
        free(bytes);
    }
}

static void test_gguf_architecture(void **state) {
    (void)state;
    size_t len;
    uint8_t *bytes = read_gguf("qwen2", &len), *name = find_text(bytes, len, "general.architecture") + 20 + 4 + 8;
    llama_config c;
    gist_error err;
    assert_memory_equal(name, "qwen2", 5);
    name[4] = '9';
    assert_fails(config_of(&c, bytes, len, &err), &err, GIST_ERR_UNSUPPORTED, "\"qwen9\" is not supported");
    free(bytes);
}

/* Factors that are nobody's: refused, not approximated. */
static void test_gguf_factors(void **state) {
    (void)state;
    size_t len;
    uint8_t *bytes = read_gguf("llama31", &len);
    gguf_file g;
    gist_error err = { 0 };
    llama_config c = { 0 };
    assert_ok(gguf_parse(&g, mem_default(), bytes, len, "test", &err), &err);
    const tensor_view *t = gguf_find(&g, "rope_freqs.weight");
    assert_non_null(t);
    float *factor = (float *)(uintptr_t)t->data, was = factor[1];
    assert_true(was > 1 && was < 8);
    for (int i = 0; i < 4; i++) {
        static const float wrong[] = { 7.9f, 0, -1, NAN };
        memcpy(factor + 1, &wrong[i], sizeof *factor);
        err = (gist_error){ 0 };
        assert_fails(llama_config_gguf(&c, &g, &err), &err, GIST_ERR_UNSUPPORTED, "rope_freqs.weight");
    }
    gguf_close(&g);
    free(bytes);
}

static void test_unpair(void **state) {
    (void)state;
    static const uint16_t pairs[] = { 0, 3, 1, 4, 2, 5, 10, 13, 11, 14, 12, 15 }, /* two heads of 6, rows of one */
        want[] = { 0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15 };
    uint16_t got[12];
    llama_unpair_rows(got, pairs, sizeof *pairs, 2, 6);
    assert_memory_equal(got, want, sizeof want);
}

/* ---- memory ---- */

static gist_status open_one(void *ctx, const gist_allocator *alloc) {
    gist_engine_options o = GIST_ENGINE_OPTIONS_INIT;
    gist_engine *e = NULL;
    gist_error err = { 0 };
    o.alloc = alloc;
    o.threads = 1;
    gist_status status = gist_engine_open(ctx, &o, &e, &err);
    gist_engine_close(e);
    return status;
}

static void test_memory(void **state) {
    (void)state;
    for (int m = 0; m < MODELS; m++) {
        char path[TEST_PATH], name[64];
        snprintf(name, sizeof name, "families/%s/model.gguf", models[m]);
        assert_true(test_each_alloc(open_one, test_fixture(path, name)) > 10);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_families),     cmocka_unit_test(test_refused),
        cmocka_unit_test(test_rope),         cmocka_unit_test(test_save),
        cmocka_unit_test(test_gguf_config),  cmocka_unit_test(test_gguf_refused),
        cmocka_unit_test(test_gguf_architecture), cmocka_unit_test(test_gguf_factors),
        cmocka_unit_test(test_unpair),       cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
