/* test_open_bad.c - model directories that cannot be opened: missing and spoilt parts, files truncated at every byte,
 * options that cannot be right; a status and a message that name things, and nothing made.
 */
#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/engine_int.h"
#include "tiny.h"

static const tiny_model model = { 1, 12, 20, 2, 1, 6, 64, DT_F32, false, true, 5, FAMILY_LLAMA, false };

static void refuses_with(const char *dir, const gist_engine_options *o, gist_status status, const char *text) {
    gist_engine *e = (gist_engine *)(uintptr_t)1;
    gist_error err = { 0 };
    assert_fails(gist_engine_open(dir, o, &e, &err), &err, status, text);
    assert_ptr_equal(e, (void *)1);
    assert_int_equal(gist_engine_open(dir, o, &e, NULL), status); /* without an error to fill */
}

static void refuses(const char *dir, gist_status status, const char *text) {
    refuses_with(dir, NULL, status, text);
}

static char *file_in(char out[TEST_PATH + 64], const char *dir, const char *name) {
    snprintf(out, TEST_PATH + 64, "%s/%s", dir, name);
    return out;
}

static void test_missing_parts(void **state) {
    (void)state;
    char dir[TEST_PATH], path[TEST_PATH + 64];
    refuses("/nonexistent/model", GIST_ERR_IO, "/nonexistent/model");
    tiny_save(&model, "parts", dir);
    refuses(file_in(path, dir, "config.json"), GIST_ERR_UNSUPPORTED, "config.json");
    refuses(NULL, GIST_ERR_USAGE, NULL);
    gist_error err = { 0 };
    assert_fails(gist_engine_open(dir, NULL, NULL, &err), &err, GIST_ERR_USAGE, NULL);
    static const char *const names[] = { "config.json", "model.safetensors", "tokenizer.json" };
    for (int i = 0; i < 3; i++) {
        assert_int_equal(unlink(file_in(path, dir, names[i])), 0);
        refuses(dir, GIST_ERR_IO, names[i]);
        tiny_save(&model, "parts", dir);
    }
}

static void test_options(void **state) {
    (void)state;
    char dir[TEST_PATH];
    tiny_save(&model, "options", dir);
    gist_engine_options o = GIST_ENGINE_OPTIONS_INIT;
    o.threads = -1;
    refuses_with(dir, &o, GIST_ERR_USAGE, "threads");
    o.threads = 100000;
    refuses_with(dir, &o, GIST_ERR_USAGE, "threads");
    o.threads = 1;
    o.template_name = "no such template";
    refuses_with(dir, &o, GIST_ERR_USAGE, "no such template");
    o.template_name = NULL;
    o.kernels = (gist_kernels)77;
    refuses_with(dir, &o, GIST_ERR_UNSUPPORTED, "unknown");
    o.kernels = GIST_KERNELS_SCALAR;
    o.weights = GIST_TYPE_F16;
    refuses_with(dir, &o, GIST_ERR_USAGE, "f16");
    o.weights = (gist_type)9;
    refuses_with(dir, &o, GIST_ERR_USAGE, "9");
    o.weights = GIST_TYPE_AUTO;
    o.size = offsetof(gist_engine_options, kernels); /* an older caller: what it does not know keeps its default */
    o.kernels = (gist_kernels)77;
    gist_engine *e = NULL;
    gist_error err = { 0 };
    assert_ok(gist_engine_open(dir, &o, &e, &err), &err);
    gist_engine_close(e);
}

static void test_unsupported(void **state) {
    (void)state;
    char dir[TEST_PATH], path[TEST_PATH + 64];
    tiny_save(&model, "other", dir);
    static const struct {
        const char *text, *said;
        gist_status status;
    } wrong[] = {
        { "{\"model_type\": \"mamba\"}", "mamba", GIST_ERR_UNSUPPORTED },
        { "{\"model_type\": \"llama\", \"architectures\": [\"LlamaForSequenceClassification\"]}",
          "LlamaForSequenceClassification", GIST_ERR_UNSUPPORTED },
        { "{}", "model_type", GIST_ERR_FORMAT },
        { "[]", "object", GIST_ERR_FORMAT },
        { "", "config.json", GIST_ERR_FORMAT },
        { "{\"model_type\": \"llama\"", "config.json", GIST_ERR_FORMAT },
        { "{\"model_type\": \"llama\"}", "num_hidden_layers", GIST_ERR_FORMAT },
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        test_write(file_in(path, dir, "config.json"), wrong[i].text, strlen(wrong[i].text));
        refuses(dir, wrong[i].status, wrong[i].said);
    }
}

/* Keys of config.json that change what a model computes are refused by name, and nonsense is. */
static void test_config_keys(void **state) {
    (void)state;
    static const struct {
        const char *more, *said;
        gist_status status;
    } wrong[] = {
        { "\"hidden_act\": \"gelu\"", "gelu", GIST_ERR_UNSUPPORTED },
        { "\"attention_bias\": true", "attention_bias", GIST_ERR_UNSUPPORTED },
        { "\"mlp_bias\": true", "mlp_bias", GIST_ERR_UNSUPPORTED },
        { "\"quantization_config\": {}", "quantization_config", GIST_ERR_UNSUPPORTED },
        { "\"rope_scaling\": {\"rope_type\": \"yarn\"}", "yarn", GIST_ERR_UNSUPPORTED },
        { "\"rope_parameters\": {\"rope_type\": \"longrope\", \"factor\": 2}", "longrope", GIST_ERR_UNSUPPORTED },
        { "\"rope_scaling\": {\"type\": \"dynamic\"}", "dynamic", GIST_ERR_UNSUPPORTED },
        { "\"rope_scaling\": 3", "rope_scaling", GIST_ERR_FORMAT },
        { "\"partial_rotary_factor\": 0.5", "partial_rotary_factor", GIST_ERR_UNSUPPORTED },
        { "\"rope_parameters\": {\"partial_rotary_factor\": 0.25}", "partial_rotary_factor", GIST_ERR_UNSUPPORTED },
        { "\"hidden_act\": 7", "hidden_act", GIST_ERR_FORMAT },
        { "\"model_type\": \"llama\"", "config.json", GIST_ERR_FORMAT }, /* twice */
    };
    char dir[TEST_PATH], more[256];
    tiny_save(&model, "keys", dir);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        snprintf(more, sizeof more, ", %s", wrong[i].more);
        tiny_save_config(&model, dir, more);
        refuses(dir, wrong[i].status, wrong[i].said);
    }
    static const struct {
        const char *key, *value;
    } number[] = {
        { "num_hidden_layers", "0" },
        { "num_hidden_layers", "-1" },
        { "num_hidden_layers", "1e3" },
        { "num_hidden_layers", "99999999999999999999" },
        { "num_hidden_layers", "\"2\"" },
        { "num_hidden_layers", "null" },
        { "hidden_size", "2147483648" },
        { "hidden_size", "0" },
        { "intermediate_size", "99999999" },
        { "num_attention_heads", "0" },
        { "num_key_value_heads", "0" },
        { "num_key_value_heads", "3" },
        { "num_key_value_heads", "4096" },
        { "head_dim", "7" },
        { "head_dim", "0" },
        { "head_dim", "4096" },
        { "vocab_size", "0" },
        { "vocab_size", "1048577" },
        { "max_position_embeddings", "0" },
        { "max_position_embeddings", "1e9" },
        { "rms_norm_eps", "-1" },
        { "rms_norm_eps", "1e999" },
        { "rope_theta", "0" },
        { "rope_theta", "true" },
        { "tie_word_embeddings", "1" },
    };
    for (size_t i = 0; i < sizeof number / sizeof *number; i++) {
        char path[TEST_PATH + 64], text[1024];
        int n = snprintf(text, sizeof text, "{\"model_type\": \"llama\"");
        static const char *const keys[] = {
            "num_hidden_layers",   "hidden_size", "intermediate_size",  "num_attention_heads",
            "num_key_value_heads", "head_dim",    "vocab_size",         "max_position_embeddings",
            "rms_norm_eps",        "rope_theta",  "tie_word_embeddings"
        };
        static const char *const values[] = { "1", "12", "20", "2", "1", "6", "265", "64", "1e-5", "1e4", "false" };
        for (int k = 0; k < 11; k++) {
            const char *value = strcmp(keys[k], number[i].key) == 0 ? number[i].value : values[k];
            n += snprintf(text + n, sizeof text - (size_t)n, ", \"%s\": %s", keys[k], value);
        }
        n += snprintf(text + n, sizeof text - (size_t)n, "}");
        test_write(file_in(path, dir, "config.json"), text, (size_t)n);
        gist_engine *e = NULL;
        gist_error err = { 0 };
        gist_status status = gist_engine_open(dir, NULL, &e, &err);
        bool named = strstr(err.msg, number[i].key) || strstr(err.msg, "heads") || strstr(err.msg, "config.json");
        if (status == GIST_OK || !named || e)
            fail_msg("%s %s: status %d, message \"%s\"", number[i].key, number[i].value, (int)status, err.msg);
    }
}

/* A vocabulary larger than the model's tables cannot belong to it. */
static void test_wrong_tokenizer(void **state) {
    (void)state;
    char dir[TEST_PATH], path[TEST_PATH + 64];
    tiny_save(&model, "vocab", dir);
    size_t len;
    char *text = (char *)test_read(file_in(path, dir, "tokenizer.json"), &len);
    char *merged = strstr(text, "\"an\": 263");
    assert_non_null(merged);
    memcpy(merged, "\"an\": 999", 9);
    test_write(path, text, len);
    refuses(dir, GIST_ERR_MISMATCH, "rows for 265");
    free(text);
}

static void test_truncated_files(void **state) {
    (void)state;
    static const char *const names[] = { "config.json", "tokenizer.json", "model.safetensors" };
    char dir[TEST_PATH], path[TEST_PATH + 64];
    for (int f = 0; f < 3; f++) {
        tiny_save(&model, "cut", dir);
        size_t len, step = f == 0 ? 1 : 37;
        uint8_t *bytes = test_read(file_in(path, dir, names[f]), &len);
        while (len > 0 && bytes[len - 1] == '\n') len--; /* the last line's end is nobody's loss */
        for (size_t cut = 0; cut < len; cut += cut + 600 < len || f == 0 ? step : 7) {
            test_write(path, bytes, cut);
            gist_engine *e = NULL;
            gist_error err = { 0 };
            gist_status status = gist_engine_open(dir, NULL, &e, &err);
            if (status != GIST_ERR_FORMAT || e || !err.msg[0])
                fail_msg("%s cut at %zu of %zu: status %d, message \"%s\"", names[f], cut, len, (int)status, err.msg);
        }
        free(bytes);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_missing_parts),   cmocka_unit_test(test_options),
        cmocka_unit_test(test_unsupported),     cmocka_unit_test(test_config_keys),
        cmocka_unit_test(test_wrong_tokenizer), cmocka_unit_test(test_truncated_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
