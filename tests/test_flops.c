/* test_flops.c - counted operations against the PyTorch profiler, and savings with their intervals.
 *
 * The profiler's numbers were printed by tools/profile_flops.py (torch 2.15.0, transformers 5.24.0).
 */
#include <math.h>

#include "testing.h"
#include "tolerances.h"

#include "eval/eval.h"

static llama_config small_llama(void) {
    return (llama_config){ .family = FAMILY_LLAMA, .L = 3, .C = 64, .F = 96, .H = 4, .G = 4, .D = 16, .V = 101 };
}

static void assert_near(double got, double want, double tol, const char *what) {
    if (!(fabs(got / want - 1) <= tol)) fail_msg("%s: %.9g, expected %.9g within %g", what, got, want, tol);
}

static void test_llama_profiled(void **state) {
    (void)state;
    llama_config c = small_llama();
    eval_flops none = eval_flops_llama(&c, 28, 0), full = eval_flops_llama(&c, 9, 19);
    assert_true(none.products == 6813184);
    assert_true(full.products == 2189952);
    assert_near(none.pointwise, 84084, TOL_POINTWISE_FLOPS, "pointwise, no cache");
    assert_near(full.pointwise, 27350, TOL_POINTWISE_FLOPS, "pointwise, behind a cache");
}

static void test_t5_profiled(void **state) {
    (void)state;
    eval_t5_shape c = { 3, 2, 64, 96, 4, 16, 101, true };
    eval_flops none = eval_flops_t5(&c, 28, 0);
    assert_true(none.products == 7568512);
    assert_near(none.pointwise, 105477, TOL_POINTWISE_FLOPS, "pointwise");
    /* behind 2 gist rows: 19 rows less in the encoder, 17 less in cross-attention's keys and values */
    double encoder_row = 2.0 * 3 * (4 * 64 * 64 + 3 * 64 * 96), cross_row = 2.0 * 2 * 2 * 64 * 64;
    double scores = 4.0 * 64 * (3 * (28 * 28 - 9 * 11) + 2 * 17);
    assert_true(eval_flops_t5(&c, 9, 2).products == none.products - 19 * encoder_row - 17 * cross_row - scores);
    c.gated = false;
    assert_true(eval_flops_t5(&c, 28, 0).products == none.products - 2.0 * 64 * 96 * (3 * 28 + 2));
}

/* Grouped keys, and what is really computed: visible keys; in the last block keys and values, the rest for one row. */
static void test_done(void **state) {
    (void)state;
    llama_config c = small_llama();
    double head = 2.0 * 101 * 64, row = 2.0 * 3 * (4 * 64 * 64 + 3 * 64 * 96);
    assert_true(eval_flops_done(&c, 1, 0) == row + head + 4 * 3 * 64);
    double last = 2.0 * (2 * 64 * 64 + 3 * 64 * 96); /* of a row in the last block, its keys and values aside */
    double five = 5 * row - 4 * last + head + 4 * 64 * (2 * (5 * 10 + 15) + 15);
    assert_true(eval_flops_done(&c, 5, 10) == five);
    double split = eval_flops_done(&c, 3, 0) + eval_flops_done(&c, 4, 3) - head - last - 4 * 64 * 3;
    assert_true(eval_flops_done(&c, 7, 0) == split);
    c.G = 2;
    assert_true(eval_flops_done(&c, 1, 0) == row + head + 4 * 3 * 64 - 2.0 * 3 * 2 * 32 * 64);
}

static void assert_same_shape(const eval_t5_shape *a, const eval_t5_shape *b) {
    assert_memory_equal(a, b, offsetof(eval_t5_shape, gated));
    assert_int_equal(a->gated, b->gated);
}

static void test_t5_config(void **state) {
    (void)state;
    static const char good[] = "{\"model_type\": \"t5\", \"num_layers\": 24, \"d_model\": 4096, \"d_ff\": 10240, "
                               "\"num_heads\": 64, \"d_kv\": 64, \"vocab_size\": 32101, "
                               "\"feed_forward_proj\": \"gated-gelu\"}";
    static const struct {
        const char *text, *message;
        gist_status code;
    } bad[] = {
        { "{\"model_type\": \"bart\"}", "model_type is \"bart\"", GIST_ERR_UNSUPPORTED },
        { "{}", "model_type", GIST_ERR_FORMAT },
        { "{\"model_type\": \"t5\", \"num_layers\": 0}", "num_layers", GIST_ERR_FORMAT },
        { "{\"model_type\": \"t5\", \"num_layers\": 1, \"d_model\": 99999999999}", "d_model", GIST_ERR_FORMAT },
        { "{\"model_type\": \"t5\", \"num_layers\": 1, \"d_model\": 8}", "d_ff", GIST_ERR_FORMAT },
    };
    eval_t5_shape c = { 0 }, xxl = eval_t5_xxl();
    gist_error err = { 0 };
    json_t *json = NULL;
    assert_ok(json_parse(good, strlen(good), "config", &json, &err), &err);
    assert_ok(eval_t5_parse(&c, json, "config", &err), &err);
    json_decref(json);
    assert_same_shape(&c, &xxl);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        memset(&err, 0, sizeof err);
        assert_ok(json_parse(bad[i].text, strlen(bad[i].text), "config", &json, &err), &err);
        assert_fails(eval_t5_parse(&c, json, "config", &err), &err, bad[i].code, bad[i].message);
        assert_same_shape(&c, &xxl);
        json_decref(json);
    }
}

/* ---- savings ---- */

static void test_saving(void **state) {
    (void)state;
    double a[40], b[40], c[40];
    uint64_t seed = 7;
    eval_saving s, again;
    gist_error err = { 0 };
    for (int i = 0; i < 40; i++) {
        a[i] = 2.0 + (double)test_randf(&seed);
        b[i] = 0.25 * a[i];
        c[i] = 0.25 * a[i] + 0.2 * (double)test_randf(&seed);
    }
    assert_ok(eval_saving_of(a, b, 40, 500, 1, NULL, &s, &err), &err);
    assert_near(s.mean, 0.75, TOL_SAVING, "the same share of each");
    assert_near(s.low, 0.75, TOL_SAVING, "however it is drawn");
    assert_near(s.high, 0.75, TOL_SAVING, "however it is drawn");
    assert_ok(eval_saving_of(a, c, 40, 500, 1, NULL, &s, &err), &err);
    assert_true(s.low < s.mean && s.mean < s.high && s.low > 0.70 && s.high < 0.80);
    assert_ok(eval_saving_of(a, c, 40, 500, 1, NULL, &again, &err), &err);
    assert_memory_equal(&s, &again, sizeof s);
    assert_ok(eval_saving_of(a, c, 40, 500, 2, NULL, &again, &err), &err);
    assert_true(s.low != again.low);
    assert_ok(eval_saving_of(a, c, 1, 500, 1, NULL, &s, &err), &err);
    assert_true(s.low == s.mean && s.high == s.mean && s.mean == 1 - c[0] / a[0]);
    assert_ok(eval_saving_of(a, c, 40, 0, 1, NULL, &s, &err), &err);
    assert_true(s.low == s.mean && s.high == s.mean);
}

static gist_status saving_with(void *ctx, const gist_allocator *alloc) {
    double a[2] = { 1, 2 }, b[2] = { 1, 1 };
    eval_saving s;
    (void)ctx;
    return eval_saving_of(a, b, 2, 10, 1, alloc, &s, NULL);
}

static void test_saving_memory(void **state) {
    (void)state;
    assert_int_equal(test_each_alloc(saving_with, NULL), 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_llama_profiled), cmocka_unit_test(test_t5_profiled), cmocka_unit_test(test_done),
        cmocka_unit_test(test_t5_config),      cmocka_unit_test(test_saving),      cmocka_unit_test(test_saving_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
