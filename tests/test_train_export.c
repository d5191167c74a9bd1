/* test_train_export.c - what a run leaves: tokenizer files that know <GIST>, weights and config that are the model's.
 * */
#include "testing.h"

#include <stdlib.h>
#include <sys/stat.h>

#include "train/train.h"

/* <GIST> where a vocabulary lacked it: read back with the id the model has, and the rest unchanged. */
static void exported_tokenizers(void **state) {
    (void)state;
    static const struct {
        const char *from;
        int32_t id;
    } kinds[] = {
        { "llama/gqa-f32", 273 }, { "llama/gqa-bf16", 263 }, { "token/gpt2", -1 }, { "token/plain.model", -1 }
    };
    static const char text[] = "a man  sat on <GIST> the hat.";
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        char from[TEST_PATH], out[TEST_PATH], name[32];
        gist_error err = { 0 };
        tokenizer *a = NULL, *b = NULL;
        tok_ids x, y;
        tok_ids_init(&x, NULL);
        tok_ids_init(&y, NULL);
        test_fixture(from, kinds[i].from);
        snprintf(name, sizeof name, "tok%zu", i);
        assert_int_equal(mkdir(test_tmp(out, name), 0777), 0);
        assert_ok(tok_open(from, NULL, &a, &err), &err);
        assert_int_equal(tok_gist(a), -1);
        int32_t id = kinds[i].id >= 0 ? kinds[i].id : tok_size(a);
        train_origin o = {
            .tokenizer = from, .gist_added = id, .bos = tok_bos(a), .eos = tok_eos(a), .end = tok_eos(a)
        };
        assert_ok(train_export_tokenizer(&o, out, NULL, &err), &err);
        assert_ok(tok_open(out, NULL, &b, &err), &err);
        assert_int_equal(tok_gist(b), id);
        assert_int_equal(tok_bos(b), tok_bos(a));
        assert_ok(tok_add_gist(a, id, &err), &err);
        assert_ok(tok_encode(a, text, strlen(text), TOK_BOS | TOK_SPECIAL, &x, &err), &err);
        assert_ok(tok_encode(b, text, strlen(text), TOK_BOS | TOK_SPECIAL, &y, &err), &err);
        assert_int_equal(x.n, y.n);
        assert_memory_equal(x.id, y.id, x.n * sizeof *x.id);
        tok_ids_free(&x);
        tok_ids_free(&y);
        tok_close(a);
        tok_close(b);
    }
}

/* The old form: added_tokens.json beside tokenizer.model keeps what it has. */
static void old_form(void **state) {
    (void)state;
    char from[TEST_PATH], in[TEST_PATH], out[TEST_PATH], path[TEST_PATH + 32], text[64];
    gist_error err = { 0 };
    tokenizer *t = NULL;
    size_t len;
    assert_int_equal(mkdir(test_tmp(in, "old"), 0777), 0);
    assert_int_equal(mkdir(test_tmp(out, "old-out"), 0777), 0);
    uint8_t *model = test_read(test_fixture(from, "token/plain.model"), &len);
    snprintf(path, sizeof path, "%s/tokenizer.model", in);
    test_write(path, model, len);
    free(model);
    assert_ok(tok_open(path, NULL, &t, &err), &err);
    int size = tok_size(t);
    tok_close(t);
    int n = snprintf(text, sizeof text, "{\"<X>\": %d}", size);
    snprintf(path, sizeof path, "%s/added_tokens.json", in);
    test_write(path, text, (size_t)n);
    train_origin o = { .tokenizer = in, .gist_added = size + 1, .bos = 1, .eos = 2, .end = 2 };
    assert_ok(train_export_tokenizer(&o, out, NULL, &err), &err);
    assert_ok(tok_open(out, NULL, &t, &err), &err);
    assert_int_equal(tok_find(t, "<X>"), size);
    assert_int_equal(tok_gist(t), size + 1);
    assert_true(tok_is_special(t, size + 1));
    tok_close(t);
}

/* Weights and config as saved are those of the model, in every type, from every spelling of config.json. */
static void saved_models(void **state) {
    (void)state;
    static const char *const models[] = { "llama/mha-f32", "llama/gqa-f32", "llama/gqa-bf16" };
    for (int i = 0; i < 3; i++)
        for (int type = DT_F32; type <= DT_BF16; type++) {
            char from[TEST_PATH], out[TEST_PATH], name[32], config[TEST_PATH + 16];
            gist_error err = { 0 };
            llama_config cfg, again;
            weights w, saved;
            pool *p = NULL;
            op_ctx ctx;
            train_model *tm = NULL;
            json_t *json = NULL;
            test_fixture(from, models[i]);
            snprintf(name, sizeof name, "saved%d-%d", i, type);
            assert_int_equal(mkdir(test_tmp(out, name), 0777), 0);
            snprintf(config, sizeof config, "%s/config.json", from);
            assert_ok(json_read_file(config, &json, &err), &err);
            assert_ok(llama_config_read(&cfg, NULL, from, &err), &err);
            assert_ok(weights_open(&w, NULL, from, &err), &err);
            assert_ok(pool_create(NULL, 1, &p, &err), &err);
            assert_ok(op_init(&ctx, GIST_KERNELS_SCALAR, p, &err), &err);
            train_model_options mo = { .type = DT_F32, .max_rows = 4, .lm = 1 };
            assert_ok(train_model_create(&tm, &cfg, &w, i > 0, 0, &mo, &ctx, NULL, &err), &err);
            train_origin o = { .config = json, .tokenizer = from, .gist_added = -1, .type = (dtype)type };
            assert_ok(train_export_model(tm, &o, out, NULL, &err), &err);
            assert_ok(llama_config_read(&again, NULL, out, &err), &err);
            cfg.V += i > 0;
            assert_memory_equal(&cfg, &again, sizeof cfg);
            assert_ok(weights_open(&saved, NULL, out, &err), &err);
            assert_int_equal(weights_count(&saved), (size_t)train_model_tensors(tm));
            for (int t = 0; t < train_model_tensors(tm); t++) {
                const train_tensor *want = train_model_tensor(tm, t);
                const tensor_view *got = weights_find(&saved, want->name);
                assert_non_null(got);
                assert_int_equal(got->type, type);
                assert_int_equal(tensor_count(got), want->count);
                float *x = malloc(want->count * sizeof *x), *y = malloc(want->count * sizeof *y);
                dt_to_f32(x, got->data, got->type, want->count);
                dt_from_f32(y, (dtype)type, train_model_w(tm) + want->at, want->count);
                if (type == DT_BF16) {
                    uint16_t *half = malloc(want->count * sizeof *half);
                    memcpy(half, y, want->count * sizeof *half);
                    dt_to_f32(y, half, DT_BF16, want->count);
                    free(half);
                }
                assert_same_floats(x, y, want->count, want->name);
                free(x);
                free(y);
            }
            weights_close(&saved);
            train_model_free(tm);
            pool_free(p);
            weights_close(&w);
            json_decref(json);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exported_tokenizers),
        cmocka_unit_test(old_form),
        cmocka_unit_test(saved_models),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
