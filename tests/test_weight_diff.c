/* test_weight_diff.c - a weight diff and its base into a model: bit for bit, its sum, its tokenizer, what does not fit.
 *
 * Fixtures: tools/make_torchbin_fixtures.py; base + diff is tests/data/llama/mha-f32 exactly.
 */
#include "testing.h"

#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "engine/engine_int.h"
#include "tolerances.h"
#include "train/train.h"

static gist_status convert(const char *base, const char *diff, const char *out, uint64_t shard, convert_report *r,
                           gist_error *err) {
    char b[TEST_PATH], d[TEST_PATH], o[TEST_PATH];
    convert_options opt = { .base = test_fixture(b, base), .threads = 2, .shard = shard };
    *err = (gist_error){ 0 };
    return convert_model(test_fixture(d, diff), test_tmp(o, out), &opt, r, err);
}

static void open_model(const char *path, llama_config *c, tokenizer **t, weights *w, char fingerprint[33]) {
    gist_error err = { 0 };
    assert_ok(engine_open_files(path, mem_default(), c, t, w, &err), &err);
    assert_ok(engine_fingerprint(c, *t, w, NULL, mem_default(), fingerprint, &err), &err);
}

static void close_model(tokenizer *t, weights *w) {
    tok_close(t);
    weights_close(w);
}

/* Config, tokenizer and every bit of every weight: the fingerprint covers them. */
static void assert_same_model(const char *a, const char *b) {
    llama_config c;
    tokenizer *t;
    weights w;
    char x[33], y[33];
    open_model(a, &c, &t, &w, x);
    assert_int_equal(tok_gist(t), 295);
    close_model(t, &w);
    open_model(b, &c, &t, &w, y);
    close_model(t, &w);
    assert_string_equal(x, y);
}

static double member(const char *name) {
    char path[TEST_PATH];
    json_t *j;
    gist_error err = { 0 };
    assert_ok(json_read_file(test_fixture(path, "torchbin/sums.json"), &j, &err), &err);
    double x = json_number_value(json_object_get(j, name));
    json_decref(j);
    return x;
}

static void recovered_bit_for_bit(void **state) {
    (void)state;
    char out[TEST_PATH], want[TEST_PATH];
    convert_report r;
    gist_error err;
    assert_ok(convert("torchbin/base", "torchbin/diff", "model", 0, &r, &err), &err);
    assert_same_model(test_tmp(out, "model"), test_fixture(want, "llama/mha-f32"));
    assert_int_equal(r.missing_rows, 1);
    assert_int_equal(r.type, DT_F32);
    assert_int_equal(r.sum.buffers, 2);
    assert_int_equal(r.sum.buffers_in_files, 2);
    assert_null(r.sum.nearest);
    assert_true(fabs(r.sum.weights - member("weights")) <= TOL_SUM_F64);
    assert_true(fabs(r.sum.with_buffers - member("with_inv_freq")) <= TOL_SUM_F64);
    assert_true(fabs(r.sum.with_buffers - member("accumulated_in_f32")) <= DIFF_TOLERANCE);
    assert_true(fabs(r.sum.with_buffers - r.sum.weights - 2.02) < 1e-6); /* θ^0 + θ^-½ = 1.01, twice */
}

static void in_shards(void **state) {
    (void)state;
    char out[TEST_PATH], want[TEST_PATH], path[2 * TEST_PATH];
    convert_report r;
    weights w;
    gist_error err;
    assert_ok(convert("torchbin/base", "torchbin/diff", "shards", 16000, &r, &err), &err);
    assert_same_model(test_tmp(out, "shards"), test_fixture(want, "llama/mha-f32"));
    assert_ok(weights_open(&w, NULL, out, &err), &err);
    assert_int_equal(w.file_count, 3);
    size_t most = 0;
    for (size_t i = 0; i < w.file_count; i++) {
        size_t bytes = 0;
        for (size_t k = 0; k < w.files[i].count; k++) bytes += w.files[i].tensors[k].bytes;
        if (bytes > most) most = bytes;
    }
    assert_true(most <= 16000);
    weights_close(&w);
    snprintf(path, sizeof path, "%s/model.safetensors", out);
    assert_false(path_exists(path));
    /* fewer files take their place */
    char base[TEST_PATH], diff[TEST_PATH];
    convert_options opt = { .base = test_fixture(base, "torchbin/base"), .force = true };
    assert_ok(convert_model(test_fixture(diff, "torchbin/diff"), out, &opt, &r, &err), &err);
    assert_ok(weights_open(&w, NULL, out, &err), &err);
    assert_int_equal(w.file_count, 1);
    weights_close(&w);
    snprintf(path, sizeof path, "%s/model-00001-of-00003.safetensors", out);
    assert_false(path_exists(path));
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", out);
    assert_false(path_exists(path));
}

typedef struct made {
    float *x[64]; /* values are written from where they lie */
    int n;
} made;

static const float *value_of(void *ctx, const char *name) {
    enum { WIDEST = 296 * 12 };
    made *m = ctx;
    assert_true(m->n < 64);
    float *x = m->x[m->n++] = malloc(WIDEST * sizeof *x);
    assert_non_null(x);
    test_fill(x, WIDEST, 3, strlen(name) + (uint8_t)name[strlen(name) / 2]);
    return x;
}

/* A model of the diff's shape with random weights. */
static void make_base(char dir[TEST_PATH]) {
    char path[TEST_PATH];
    llama_config c;
    made m = { .n = 0 };
    gist_error err = { 0 };
    assert_int_equal(mkdir(test_tmp(dir, "random"), 0777), 0);
    assert_ok(llama_config_read(&c, mem_default(), test_fixture(path, "torchbin/diff"), &err), &err);
    assert_ok(llama_save_config(&c, NULL, DT_F32, dir, mem_default(), &err), &err);
    assert_ok(llama_save_weights(&c, DT_F32, value_of, &m, dir, mem_default(), &err), &err);
    while (m.n) free(m.x[--m.n]);
}

/* Where base and diff have little in common, the sum of two elements is the f32 nearest to it. */
static void added_in_f32(void **state) {
    (void)state;
    char a[TEST_PATH], b[TEST_PATH], o[TEST_PATH];
    convert_report r;
    weights x, y, z;
    gist_error err;
    make_base(a);
    convert_options opt = { .base = a };
    err = (gist_error){ 0 };
    assert_ok(convert_model(test_fixture(b, "torchbin/diff"), test_tmp(o, "rounded"), &opt, &r, &err), &err);
    assert_int_equal(r.missing_rows, 0);
    assert_int_equal(r.sum.buffers_in_files, 0); /* the diff's are zero, the base has none */
    assert_ok(weights_open(&x, NULL, a, &err), &err);
    assert_ok(weights_open(&y, NULL, b, &err), &err);
    assert_ok(weights_open(&z, NULL, o, &err), &err);
    double sum = 0;
    size_t rounded = 0;
    for (size_t i = 0; i < weights_count(&z); i++) {
        const tensor_view *t = weights_at(&z, i);
        const uint8_t *p = weights_find(&x, t->name)->data, *q = weights_find(&y, t->name)->data, *got = t->data;
        for (size_t k = 0; k < tensor_count(t); k++) {
            float u, v, w;
            memcpy(&u, p + 4 * k, 4);
            memcpy(&v, q + 4 * k, 4);
            memcpy(&w, got + 4 * k, 4);
            float want = u + v;
            assert_memory_equal(&w, &want, 4);
            rounded += (double)u + (double)v != (double)want;
            sum += (double)want;
        }
    }
    assert_true(rounded > 1000);
    assert_true(fabs(sum - r.sum.weights) <= TOL_SUM_F64);
    weights_close(&x);
    weights_close(&y);
    weights_close(&z);
}

/* The paper's directories load as they are. */
static void loads_and_trains(void **state) {
    (void)state;
    char path[TEST_PATH];
    gist_error err = { 0 };
    gist_engine *e;
    gist_engine_info info;
    assert_ok(gist_engine_open(test_fixture(path, "torchbin/diff"), NULL, &e, &err), &err);
    gist_engine_get_info(e, &info);
    assert_int_equal(info.gist_token, 295);
    assert_false(info.gist_token_added);
    gist_engine_close(e);
    train_base b;
    assert_ok(train_base_open(&b, test_fixture(path, "torchbin/base"), NULL, NULL, NULL, mem_default(), &err), &err);
    assert_int_equal(b.gist_token, 295);
    assert_int_equal(tok_bos(b.tok), 1); /* tokenizer_config.json says "" */
    train_base_close(&b);
}

/* Copies of a fixture's files but for `without`. */
static void copy_dir(const char *from, const char *to, const char *without) { /* " name name " */
    static const char *const names[] = { "pytorch_model-00001-of-00003.bin",
                                         "pytorch_model-00002-of-00003.bin",
                                         "pytorch_model-00003-of-00003.bin",
                                         "pytorch_model.bin.index.json",
                                         "pytorch_model.bin",
                                         "config.json",
                                         "tokenizer.model",
                                         "added_tokens.json",
                                         "special_tokens_map.json",
                                         "tokenizer_config.json" };
    char a[2 * TEST_PATH], b[2 * TEST_PATH], word[64];
    assert_int_equal(mkdir(to, 0777), 0);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        size_t len;
        snprintf(a, sizeof a, "%s/%s", from, names[i]);
        snprintf(b, sizeof b, "%s/%s", to, names[i]);
        snprintf(word, sizeof word, " %s ", names[i]);
        if (strstr(without, word) || !path_exists(a)) continue;
        uint8_t *p = test_read(a, &len);
        test_write(b, p, len);
        free(p);
    }
}

static void tokenizers(void **state) {
    (void)state;
    char base[TEST_PATH], diff[TEST_PATH], copy[TEST_PATH], out[TEST_PATH];
    static const char *const without[] = { " added_tokens.json special_tokens_map.json ",
                                           " tokenizer.model added_tokens.json tokenizer_config.json " };
    for (int i = 0; i < 2; i++) { /* one that names no <GIST>; none: the base's */
        char name[32];
        llama_config c;
        tokenizer *t;
        weights w;
        convert_report r;
        gist_error err = { 0 };
        snprintf(name, sizeof name, "bare%d", i);
        copy_dir(test_fixture(diff, "torchbin/diff"), test_tmp(copy, name), without[i]);
        convert_options opt = { .base = test_fixture(base, "torchbin/base") };
        snprintf(name, sizeof name, "named%d", i);
        assert_ok(convert_model(copy, test_tmp(out, name), &opt, &r, &err), &err);
        assert_ok(engine_open_files(out, mem_default(), &c, &t, &w, &err), &err);
        assert_int_equal(tok_gist(t), 295);
        assert_int_equal(tok_bos(t), 1);
        close_model(t, &w);
    }
}

static void other_models(void **state) {
    (void)state;
    static const struct {
        const char *base, *diff;
        gist_status code;
        const char *message;
    } bad[] = {
        { "llama/mha-f16", "torchbin/diff", GIST_ERR_MISMATCH, "the base has hidden_size 20, the diff 12" },
        { "torchbin/diff", "torchbin/base", GIST_ERR_MISMATCH,
          "the base has 296 rows in its vocabulary, the diff 295" },
        { "torchbin/single/pytorch_model.bin", "torchbin/diff", GIST_ERR_UNSUPPORTED, "is a Hugging Face directory" },
        { "torchbin/absent", "torchbin/diff", GIST_ERR_UNSUPPORTED, "is a Hugging Face directory" },
        { "torchbin/t5", "torchbin/diff", GIST_ERR_IO, "config.json" },
        { "torchbin/base", "gguf/kinds.gguf", GIST_ERR_UNSUPPORTED, "a weight diff is a Hugging Face directory" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char out[TEST_PATH];
        convert_report r;
        gist_error err;
        assert_fails(convert(bad[i].base, bad[i].diff, "never", 0, &r, &err), &err, bad[i].code, bad[i].message);
        assert_false(path_exists(test_tmp(out, "never")));
    }
}

static void published_sums(void **state) {
    (void)state;
    llama_config c = { .L = 32, .C = 4096, .F = 11008, .H = 32, .G = 32, .D = 128, .V = 32001, .theta = 10000 };
    static const struct {
        double sum;
        const char *nearest;
        bool matches;
    } t[] = { { 50547.9570, "LLaMA-7B gist", true },
              { 50597.9, "LLaMA-7B pos_control", true },
              { 50502.9, "LLaMA-7B neg_control", true },
              { 50549.0, "LLaMA-7B gist", false },
              { 50547.957 - 238.7, "LLaMA-7B neg_control", false },
              { NAN, "LLaMA-7B gist", false } };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        diff_sum s = { .with_buffers = 238.7 };
        diff_compare(&s, t[i].sum - 238.7, &c);
        if (!isnan(t[i].sum)) assert_string_equal(s.nearest, t[i].nearest);
        assert_int_equal(s.matches, t[i].matches);
    }
    c.V = 32000;
    diff_sum s = { .with_buffers = 0 };
    diff_compare(&s, 50547.9570, &c);
    assert_null(s.nearest);
    /* the buffers where no file has them */
    c.V = 32001;
    gist_error err = { 0 };
    weights none = { 0 };
    assert_ok(diff_sum_buffers(&s, &c, &none, &none, mem_default(), &err), &err);
    assert_int_equal(s.buffers, 32);
    assert_int_equal(s.buffers_in_files, 0);
    double geometric = 32 * (1 - 1e-4) / (1 - pow(10000, -1.0 / 64)); /* Σ θ^(-2i/128), i < 64 */
    assert_true(fabs(s.with_buffers - geometric) < 1e-3);
}

static gist_status convert_again(void *ctx, const gist_allocator *alloc) {
    char base[TEST_PATH], diff[TEST_PATH];
    convert_options opt = {
        .alloc = alloc, .base = test_fixture(base, "torchbin/base"), .shard = 16000, .threads = 1, .force = true
    };
    convert_report r;
    gist_error err = { 0 };
    return convert_model(test_fixture(diff, "torchbin/diff"), ctx, &opt, &r, &err);
}

static void no_memory(void **state) {
    (void)state;
    char out[TEST_PATH];
    assert_true(test_each_alloc(convert_again, test_tmp(out, "often")) > 50);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recovered_bit_for_bit), cmocka_unit_test(in_shards),  cmocka_unit_test(added_in_f32),
        cmocka_unit_test(loads_and_trains),      cmocka_unit_test(tokenizers), cmocka_unit_test(other_models),
        cmocka_unit_test(published_sums),        cmocka_unit_test(no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
