/* test_engine_bad.c - bad input, lost files and lost memory: a status and a message that name things, outputs
 * untouched, nothing written, nothing leaked, and the objects still good afterwards.
 *
 *   open       missing and spoilt parts of a model directory, truncated at every byte; options that cannot be right
 *   calls      tokens, prompts, sizes and types that cannot be right
 *   gists      another model's, another tokenizer's, damaged at any byte, inspected ones
 *   disk       a full disk keeps the old file
 *   memory     the n-th allocation fails, for every n: open, compress, save, load, feed, generate
 */
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/engine_int.h"
#include "tiny.h"

static const tiny_model model = { 1, 12, 20, 2, 1, 6, 64, DT_F32, false, true, 5 };
static const char prompt[] = "a short prompt";

static gist_engine *engine;

static gist_session *session(void) {
    gist_session *s = NULL;
    gist_error err = { 0 };
    assert_ok(gist_session_open(engine, NULL, &s, &err), &err);
    return s;
}

static gist *compress(gist_engine *e, gist_type kv) {
    gist_compress_options o = GIST_COMPRESS_OPTIONS_INIT;
    gist *g = NULL;
    gist_error err = { 0 };
    o.k = 2;
    o.kv = kv;
    assert_ok(gist_compress(e, prompt, strlen(prompt), &o, &g, &err), &err);
    return g;
}

/* ---- opening ---- */

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
    static const struct { const char *text, *said; gist_status status;
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
    static const struct { const char *more, *said; gist_status status; } wrong[] = {
        { "\"hidden_act\": \"gelu\"", "gelu", GIST_ERR_UNSUPPORTED },
        { "\"attention_bias\": true", "attention_bias", GIST_ERR_UNSUPPORTED },
        { "\"mlp_bias\": true", "mlp_bias", GIST_ERR_UNSUPPORTED },
        { "\"quantization_config\": {}", "quantization_config", GIST_ERR_UNSUPPORTED },
        { "\"rope_scaling\": {\"rope_type\": \"yarn\"}", "yarn", GIST_ERR_UNSUPPORTED },
        { "\"rope_parameters\": {\"rope_type\": \"linear\", \"factor\": 2}", "linear", GIST_ERR_UNSUPPORTED },
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
    static const struct { const char *key, *value;
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

/* ---- calls ---- */

static void test_sessions(void **state) {
    (void)state;
    gist_session *s = (gist_session *)(uintptr_t)1;
    gist_session_options o = GIST_SESSION_OPTIONS_INIT;
    gist_error err = { 0 };
    o.context = -1;
    assert_fails(gist_session_open(engine, &o, &s, &err), &err, GIST_ERR_USAGE, "-1");
    o.context = model.context + 1;
    err = (gist_error){ 0 };
    assert_fails(gist_session_open(engine, &o, &s, &err), &err, GIST_ERR_LIMIT, "65");
    o.context = 0;
    o.kv = (gist_type)8;
    err = (gist_error){ 0 };
    assert_fails(gist_session_open(engine, &o, &s, &err), &err, GIST_ERR_USAGE, "8");
    assert_ptr_equal(s, (void *)1);
    gist_session_close(NULL);
}

/* A refused feed leaves the session and the logits as they were. */
static void test_feeds(void **state) {
    (void)state;
    int32_t ids[80];
    float want[512], got[512], before[512];
    size_t V = (size_t)engine_model(engine)->vocab;
    gist_session *s = session(), *plain = session();
    tiny_ids(ids, 80, 1);
    assert_ok(gist_session_feed(s, ids, 10, NULL, NULL), NULL);
    assert_ok(gist_session_feed(plain, ids, 10, NULL, NULL), NULL);
    memset(got, 0x77, sizeof got);
    memcpy(before, got, sizeof got);
    const struct { int32_t id; size_t at, n; gist_status status; } bad[] = {
        { 0, 0, 0, GIST_ERR_USAGE }, { -1, 3, 5, GIST_ERR_USAGE }, { (int32_t)V, 4, 5, GIST_ERR_USAGE },
        { INT32_MAX, 0, 1, GIST_ERR_USAGE }, { INT32_MIN, 0, 1, GIST_ERR_USAGE },
        { 5, 0, 55, GIST_ERR_LIMIT }, { 5, 0, 80, GIST_ERR_LIMIT } };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int32_t tried[80];
        memcpy(tried, ids, sizeof ids);
        tried[bad[i].at] = bad[i].id;
        gist_error err = { 0 };
        assert_fails(gist_session_feed(s, tried, bad[i].n, got, &err), &err, bad[i].status, NULL);
        assert_memory_equal(got, before, sizeof got);
        assert_int_equal(gist_session_length(s), 10);
    }
    gist_error err = { 0 };
    assert_fails(gist_session_feed(s, NULL, (size_t)1 << 40, got, &err), &err, GIST_ERR_LIMIT, NULL);
    assert_ok(gist_session_feed(s, ids + 10, 54, got, NULL), NULL); /* exactly full */
    assert_ok(gist_session_feed(plain, ids + 10, 54, want, NULL), NULL);
    assert_same_floats(got, want, V, "after refused feeds");
    gist_session_close(s);
    gist_session_close(plain);
}

static void test_compress_arguments(void **state) {
    (void)state;
    char text[512];
    memset(text, 'x', sizeof text);
    const struct { const char *prompt; size_t len; int k, kv; gist_status status; const char *said; } bad[] = {
        { prompt, 5, 0, 0, GIST_ERR_USAGE, "0" }, { prompt, 5, -3, 0, GIST_ERR_USAGE, "-3" },
        { prompt, 5, 1025, 0, GIST_ERR_USAGE, "1025" }, { prompt, 5, 1, 7, GIST_ERR_USAGE, "7" },
        { "", 0, 1, 0, GIST_ERR_TEXT, "empty" }, { NULL, 0, 1, 0, GIST_ERR_TEXT, "empty" },
        { " \n\t ", 4, 1, 0, GIST_ERR_TEXT, "empty" }, { "ab\xc3(", 4, 1, 0, GIST_ERR_TEXT, "UTF-8" },
        { text, 64, 1, 0, GIST_ERR_LIMIT, "context of 64" }, { text, 63, 1, 0, GIST_ERR_LIMIT, "context of 64" },
        { text, 500, 1, 0, GIST_ERR_LIMIT, "context of 64" }, { prompt, 5, 64, 0, GIST_ERR_LIMIT, "context of 64" } };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        gist *g = (gist *)(uintptr_t)1;
        gist_error err = { 0 };
        gist_compress_options o = GIST_COMPRESS_OPTIONS_INIT;
        o.k = bad[i].k;
        o.kv = (gist_type)bad[i].kv;
        assert_fails(gist_compress(engine, bad[i].prompt, bad[i].len, &o, &g, &err), &err, bad[i].status, bad[i].said);
        assert_ptr_equal(g, (void *)1);
    }
    gist *g = NULL; /* BOS, 62 tokens and the gist token just fit; but nothing could follow them */
    gist_session *s = session();
    gist_error err = { 0 };
    assert_ok(gist_compress(engine, text, 62, NULL, &g, &err), &err);
    assert_fails(gist_session_attach(s, g, &err), &err, GIST_ERR_LIMIT, "64");
    assert_int_equal(gist_session_position(s), 0);
    gist_session_close(s);
    gist_free(g);
}

static void test_attach(void **state) {
    (void)state;
    char path[TEST_PATH];
    gist *g = compress(engine, GIST_TYPE_BF16), *seen = NULL;
    gist_engine *other = tiny_open(&model, "twin", 1, GIST_KERNELS_AUTO, GIST_TYPE_AUTO, "raw");
    gist_session *s = session(), *narrow = NULL, *elsewhere = NULL;
    int32_t id = TINY_BYTE;
    gist_error err = { 0 };
    assert_ok(gist_session_attach(s, g, &err), &err);
    assert_fails(gist_session_attach(s, g, &err), &err, GIST_ERR_USAGE, "empty session");
    gist_session_reset(s);
    assert_ok(gist_session_feed(s, &id, 1, NULL, NULL), NULL);
    err = (gist_error){ 0 };
    assert_fails(gist_session_attach(s, g, &err), &err, GIST_ERR_USAGE, "empty session");
    gist_session_options o = GIST_SESSION_OPTIONS_INIT;
    o.kv = GIST_TYPE_F32;
    assert_ok(gist_session_open(engine, &o, &narrow, NULL), NULL);
    err = (gist_error){ 0 };
    assert_fails(gist_session_attach(narrow, g, &err), &err, GIST_ERR_MISMATCH, "bf16");
    assert_int_equal(gist_session_position(narrow), 0);
    assert_ok(gist_session_open(other, NULL, &elsewhere, NULL), NULL);
    err = (gist_error){ 0 };
    assert_fails(gist_session_attach(elsewhere, g, &err), &err, GIST_ERR_MISMATCH, "another engine");
    assert_ok(gist_save(g, test_tmp(path, "seen.gist"), NULL), NULL);
    assert_ok(gist_inspect(path, &seen, NULL), NULL);
    err = (gist_error){ 0 };
    assert_fails(gist_session_attach(narrow, seen, &err), &err, GIST_ERR_USAGE, "inspected");
    err = (gist_error){ 0 };
    assert_fails(gist_save(seen, test_tmp(path, "never.gist"), &err), &err, GIST_ERR_USAGE, "inspected");
    assert_int_equal(access(path, F_OK), -1);
    gist_free(seen);
    gist_session_close(narrow);
    gist_session_close(elsewhere);
    gist_session_close(s);
    gist_engine_close(other);
    gist_free(g);
}

static void test_generate_arguments(void **state) {
    (void)state;
    gist *g = compress(engine, GIST_TYPE_BF16);
    const struct {
        float temperature, top_p;
        int top_k, max_tokens;
        const char *input;
        size_t len;
        gist_status status;
        const char *said;
    } bad[] = { { -1, 1, 0, 5, "x", 1, GIST_ERR_USAGE, "temperature" },
                { NAN, 1, 0, 5, "x", 1, GIST_ERR_USAGE, "temperature" },
                { INFINITY, 1, 0, 5, "x", 1, GIST_ERR_USAGE, "temperature" },
                { 1, 0, 0, 5, "x", 1, GIST_ERR_USAGE, "top-p" },
                { 1, 1.5f, 0, 5, "x", 1, GIST_ERR_USAGE, "top-p" },
                { 1, NAN, 0, 5, "x", 1, GIST_ERR_USAGE, "top-p" },
                { 1, 1, -1, 5, "x", 1, GIST_ERR_USAGE, "top-k" },
                { 0, 1, 0, -1, "x", 1, GIST_ERR_USAGE, "max_tokens" },
                { 0, 1, 0, 5, "\xff", 1, GIST_ERR_TEXT, "UTF-8" },
                { 0, 1, 0, 5, "", 0, GIST_ERR_TEXT, "nothing to answer" },
                { 0, 1, 0, 5, NULL, 0, GIST_ERR_TEXT, "nothing to answer" } };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        gist_session *s = session();
        gist_generate_options o = GIST_GENERATE_OPTIONS_INIT;
        gist_answer a, before;
        gist_error err = { 0 };
        memset(&a, 0x3c, sizeof a);
        memcpy(&before, &a, sizeof a);
        o.temperature = bad[i].temperature;
        o.top_p = bad[i].top_p;
        o.top_k = bad[i].top_k;
        o.max_tokens = bad[i].max_tokens;
        assert_ok(gist_session_attach(s, g, NULL), NULL);
        assert_fails(gist_generate(s, bad[i].input, bad[i].len, &o, &a, &err), &err, bad[i].status, bad[i].said);
        assert_memory_equal(&a, &before, sizeof a);
        assert_int_equal(gist_session_length(s), 0);
        gist_session_close(s);
    }
    char text[200];
    memset(text, 'y', sizeof text);
    gist_session *s = session();
    gist_answer a;
    gist_error err = { 0 };
    assert_fails(gist_generate(s, text, sizeof text, NULL, &a, &err), &err, GIST_ERR_LIMIT, "64");
    assert_fails(gist_session_prompt(s, "", 0, &err), NULL, GIST_ERR_TEXT, NULL);
    err = (gist_error){ 0 };
    assert_fails(gist_session_prompt(s, text, sizeof text, &err), &err, GIST_ERR_LIMIT, NULL);
    assert_int_equal(gist_session_length(s), 0);
    gist_session_close(s);
    gist_free(g);
}

/* ---- gists of others, damaged gists ---- */

static void load_refuses(gist_engine *e, const char *path, unsigned flags, gist_status status, const char *said) {
    gist *g = (gist *)(uintptr_t)1;
    gist_error err = { 0 };
    assert_fails(gist_load(e, path, flags, &g, &err), &err, status, said);
    assert_ptr_equal(g, (void *)1);
}

static void test_other_models(void **state) {
    (void)state;
    char path[TEST_PATH], dir[TEST_PATH], file[TEST_PATH + 64];
    gist *g = compress(engine, GIST_TYPE_F16);
    assert_ok(gist_save(g, test_tmp(path, "mine.gist"), NULL), NULL);
    gist_free(g);
    tiny_model t = model;
    t.seed = 6; /* other weights, same shapes */
    gist_engine *e = tiny_open(&t, "others", 1, GIST_KERNELS_AUTO, GIST_TYPE_AUTO, "raw");
    load_refuses(e, path, 0, GIST_ERR_MISMATCH, "another model");
    g = NULL;
    gist_error err = { 0 };
    assert_ok(gist_load(e, path, GIST_LOAD_FORCE, &g, &err), &err);
    gist_session *s = NULL;
    int32_t id = TINY_BYTE;
    assert_ok(gist_session_open(e, NULL, &s, NULL), NULL);
    assert_ok(gist_session_attach(s, g, &err), &err); /* accepted is accepted */
    assert_ok(gist_session_feed(s, &id, 1, NULL, NULL), NULL);
    gist_session_close(s);
    gist_free(g);
    gist_engine_close(e);

    const struct { tiny_model t; gist_status status; const char *said; } shapes[] = {
        { { 2, 12, 20, 2, 1, 6, 64, DT_F32, false, true, 5 }, GIST_ERR_MISMATCH, "1 layers" },
        { { 1, 12, 20, 2, 2, 6, 64, DT_F32, false, true, 5 }, GIST_ERR_MISMATCH, "heads" },
        { { 1, 12, 20, 2, 1, 8, 64, DT_F32, false, true, 5 }, GIST_ERR_MISMATCH, "x 6" },
        { { 1, 12, 20, 2, 1, 6, 8, DT_F32, false, true, 5 }, GIST_ERR_LIMIT, "context is 8" } };
    for (size_t i = 0; i < 4; i++) {
        e = tiny_open(&shapes[i].t, "others", 1, GIST_KERNELS_AUTO, GIST_TYPE_AUTO, "raw");
        load_refuses(e, path, 0, shapes[i].status, shapes[i].said);
        load_refuses(e, path, GIST_LOAD_FORCE, shapes[i].status, shapes[i].said);
        gist_engine_close(e);
    }
    tiny_save(&model, "others", dir); /* the same weights, another tokenizer */
    size_t len;
    char *text = (char *)test_read(file_in(file, dir, "tokenizer.json"), &len), *merge = strstr(text, "\"i n\"");
    assert_non_null(merge);
    memcpy(merge, "\"n i\"", 5);
    char *piece = strstr(text, "\"in\": ");
    assert_non_null(piece);
    memcpy(piece, "\"ni\": ", 6);
    test_write(file, text, len);
    free(text);
    e = NULL;
    assert_ok(gist_engine_open(dir, NULL, &e, &err), &err);
    load_refuses(e, path, 0, GIST_ERR_MISMATCH, "another tokenizer");
    gist_engine_close(e);
}

static void test_damaged(void **state) {
    (void)state;
    char path[TEST_PATH], bad[TEST_PATH];
    size_t len;
    gist *g = compress(engine, GIST_TYPE_BF16);
    assert_ok(gist_save(g, test_tmp(path, "whole.gist"), NULL), NULL);
    gist_free(g);
    uint8_t *bytes = test_read(path, &len);
    test_tmp(bad, "bad.gist");
    for (size_t cut = 0; cut < len; cut++) {
        test_write(bad, bytes, cut);
        load_refuses(engine, bad, GIST_LOAD_FORCE, GIST_ERR_FORMAT, NULL);
    }
    for (size_t at = 0; at < len;
         at++) { /* one bit anywhere; in the header most give another error, none is accepted */
        bytes[at] ^= (uint8_t)(1 << at % 8);
        test_write(bad, bytes, len);
        g = NULL;
        gist_error err = { 0 };
        gist_status status = gist_load(engine, bad, GIST_LOAD_FORCE, &g, &err);
        if (status != GIST_ERR_FORMAT && status != GIST_ERR_UNSUPPORTED)
            fail_msg("bit of byte %zu: status %d, \"%s\"", at, (int)status, err.msg);
        assert_null(g);
        status = gist_inspect(bad, &g, NULL);
        assert_true(status == GIST_ERR_FORMAT || status == GIST_ERR_UNSUPPORTED);
        assert_null(g);
        bytes[at] ^= (uint8_t)(1 << at % 8);
    }
    free(bytes);
    load_refuses(engine, "/nonexistent/x.gist", 0, GIST_ERR_IO, "/nonexistent/x.gist");
}

/* ---- files that cannot be written ---- */

static int files_in(const char *dir) {
    int n = 0;
    DIR *d = opendir(dir);
    assert_non_null(d);
    while (readdir(d)) n++;
    closedir(d);
    return n;
}

static void test_full_disk(void **state) {
    (void)state;
    char dir[TEST_PATH], path[TEST_PATH + 64], copy[TEST_PATH], whole[TEST_PATH];
    size_t size;
    gist *g = compress(engine, GIST_TYPE_BF16), *other = compress(engine, GIST_TYPE_F32);
    gist_error err = { 0 };
    test_tmp(dir, "disk");
    assert_int_equal(mkdir(dir, 0777), 0);
    file_in(path, dir, "a.gist");
    assert_ok(gist_save(g, path, &err), &err);
    assert_ok(gist_save(g, test_tmp(copy, "copy.gist"), &err), &err);
    assert_ok(gist_save(other, test_tmp(whole, "whole.gist"), &err), &err);
    free(test_read(whole, &size));
    int before = files_in(dir);
    struct rlimit old, small;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    for (size_t bytes = 0; bytes < size; bytes += 100) { /* nothing may be written beyond this many bytes */
        small = old;
        small.rlim_cur = (rlim_t)bytes;
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
        err = (gist_error){ 0 };
        gist_status status = gist_save(other, path, &err);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
        assert_fails(status, &err, GIST_ERR_IO, "a.gist");
        assert_true(test_same_file(path, copy));
        assert_int_equal(files_in(dir), before);
    }
    signal(SIGXFSZ, handler);
    err = (gist_error){ 0 };
    assert_fails(gist_save(g, "/nonexistent/dir/x.gist", &err), &err, GIST_ERR_IO, "/nonexistent/dir/x.gist");
    err = (gist_error){ 0 };
    assert_fails(gist_save(g, dir, &err), &err, GIST_ERR_IO, dir); /* a directory is in the way */
    assert_ok(gist_save(other, path, NULL), NULL);
    assert_false(test_same_file(path, copy));
    gist_free(g);
    gist_free(other);
}

/* ---- the n-th allocation fails ---- */

static gist_status open_and_close(void *ctx, const gist_allocator *alloc) {
    gist_engine_options o = GIST_ENGINE_OPTIONS_INIT;
    gist_engine *e = NULL;
    gist_error err = { 0 };
    o.alloc = alloc;
    o.threads = 2;
    gist_status status = gist_engine_open(ctx, &o, &e, &err);
    assert_int_equal(err.code, status);
    assert_true(status == GIST_OK ? e != NULL : e == NULL);
    gist_engine_close(e);
    return status;
}

static void test_memory_open(void **state) {
    (void)state;
    char dir[TEST_PATH];
    tiny_model t = model;
    t.gist = false; /* with the row that is added */
    tiny_save(&t, "memory", dir);
    assert_true(test_each_alloc(open_and_close, dir) > 10);
}

/* The same for calls on an open engine: its allocator fails from the moment of the call on. */
typedef struct use {
    test_alloc t;
    gist_engine *e;
    gist *g;
    char path[TEST_PATH];
} use;

static gist_status use_compress(use *u, gist_error *err) {
    gist_compress_options o = GIST_COMPRESS_OPTIONS_INIT;
    gist *g = NULL;
    o.rebase = true;
    gist_status status = gist_compress(u->e, prompt, strlen(prompt), &o, &g, err);
    assert_true(status == GIST_OK || !g);
    gist_free(g);
    return status;
}

static gist_status use_save(use *u, gist_error *err) {
    return gist_save(u->g, u->path, err);
}

static gist_status use_load(use *u, gist_error *err) {
    gist *g = NULL;
    gist_status status = gist_load(u->e, u->path, 0, &g, err);
    assert_true(status == GIST_OK || !g);
    gist_free(g);
    return status;
}

static gist_status use_feed(use *u, gist_error *err) {
    gist_session *s = NULL;
    int32_t ids[64];
    tiny_ids(ids, 64, 2);
    gist_status status = gist_session_open(u->e, NULL, &s, err);
    for (int at = 0; status == GIST_OK && at < 64; at += 16) status = gist_session_feed(s, ids + at, 16, NULL, err);
    gist_session_close(s);
    return status;
}

static gist_status use_generate(use *u, gist_error *err) {
    gist_session *s = NULL;
    gist_answer a = { 0 };
    gist_generate_options o = GIST_GENERATE_OPTIONS_INIT;
    o.max_tokens = 0;
    o.ignore_eos = true;
    o.temperature = 1;
    o.top_k = 5;
    gist_status status = gist_session_open(u->e, NULL, &s, err);
    if (status == GIST_OK) status = gist_session_attach(s, u->g, err);
    if (status == GIST_OK) {
        status = gist_generate(s, "and then", 8, &o, &a, err);
        assert_true(status == GIST_OK || !a.text);
        gist_answer_free(s, &a);
    }
    gist_session_close(s);
    return status;
}

static gist_status use_text(use *u, gist_error *err) {
    int32_t ids[64];
    size_t n = 0;
    char *text = NULL;
    gist_status status = gist_tokenize(u->e, prompt, strlen(prompt), GIST_TOKENIZE_BOS, ids, 64, &n, err);
    if (status == GIST_OK) status = gist_detokenize(u->e, ids, n, &text, err);
    assert_true(status == GIST_OK || !text);
    gist_string_free(u->e, text);
    return status;
}

static void each_alloc_of(use *u, gist_status (*fn)(use *u, gist_error *err), const char *what) {
    for (long n = 1;; n++)
        for (int sticky = 0; sticky < 2; sticky++) {
            long blocks = u->t.blocks;
            gist_error err = { 0 };
            u->t.calls = 0;
            u->t.fail_at = n;
            u->t.sticky = sticky;
            u->t.failed = false;
            gist_status status = fn(u, &err);
            bool failed = u->t.failed;
            u->t.fail_at = 0;
            if (status != (failed ? GIST_ERR_MEMORY : GIST_OK) || err.code != status)
                fail_msg("%s, allocation %ld: status %d, \"%s\"", what, n, (int)status, err.msg);
            if (u->t.blocks != blocks) fail_msg("%s, allocation %ld: %ld blocks leaked", what, n, u->t.blocks - blocks);
            if (!failed) {
                assert_true(n > 1);
                return;
            }
        }
}

static void test_memory_use(void **state) {
    (void)state;
    char dir[TEST_PATH], old[TEST_PATH];
    use u = { .e = NULL };
    gist_engine_options o = GIST_ENGINE_OPTIONS_INIT;
    gist_error err = { 0 };
    test_alloc_init(&u.t);
    o.alloc = &u.t.a;
    o.threads = 1;
    assert_ok(gist_engine_open(tiny_save(&model, "use", dir), &o, &u.e, &err), &err);
    u.g = compress(u.e, GIST_TYPE_BF16);
    test_tmp(u.path, "use.gist");
    each_alloc_of(&u, use_save, "save");
    assert_ok(gist_save(u.g, test_tmp(old, "old.gist"), &err), &err);
    assert_true(test_same_file(u.path, old));
    each_alloc_of(&u, use_load, "load");
    each_alloc_of(&u, use_compress, "compress");
    each_alloc_of(&u, use_feed, "feed");
    each_alloc_of(&u, use_generate, "generate");
    each_alloc_of(&u, use_text, "text");
    gist_free(u.g);
    gist_engine_close(u.e);
    assert_int_equal(u.t.blocks, 0);
}

/* ---- */

static int open_engine(void **state) {
    (void)state;
    engine = tiny_open(&model, "engine", 1, GIST_KERNELS_AUTO, GIST_TYPE_AUTO, "raw");
    return 0;
}

static int close_engine(void **state) {
    (void)state;
    gist_engine_close(engine);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_missing_parts),      cmocka_unit_test(test_options),
        cmocka_unit_test(test_unsupported),        cmocka_unit_test(test_config_keys),
        cmocka_unit_test(test_wrong_tokenizer),    cmocka_unit_test(test_truncated_files),
        cmocka_unit_test(test_sessions),           cmocka_unit_test(test_feeds),
        cmocka_unit_test(test_compress_arguments), cmocka_unit_test(test_attach),
        cmocka_unit_test(test_generate_arguments), cmocka_unit_test(test_other_models),
        cmocka_unit_test(test_damaged),            cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_memory_open),        cmocka_unit_test(test_memory_use),
    };
    return cmocka_run_group_tests(tests, open_engine, close_engine);
}
