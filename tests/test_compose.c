/* test_compose.c - several gists as one: one alone = rebased; rows where they belong, keys turned, values untouched;
 * order, positions, identity, saving; what does not go together is refused.
 */
#include <stdlib.h>

#include "engine/engine_int.h"
#include "tiny.h"

enum { REST = 20 };
static const tiny_model model = TINY_MODEL;
static const char *const prompts[] = { "Translate it.", "Sum the numbers of the other one.", "Be short" };
static gist_engine *engine;

static gist *compress(gist_engine *e, int prompt, int k, gist_type kv, bool rebase) {
    gist_compress_options o = GIST_COMPRESS_OPTIONS_INIT;
    gist *g = NULL;
    gist_error err = { 0 };
    o.k = k;
    o.kv = kv;
    o.rebase = rebase;
    assert_ok(gist_compress(e, prompts[prompt], strlen(prompts[prompt]), &o, &g, &err), &err);
    return g;
}

static gist *compose(const gist *const *parts, size_t n) {
    gist *g = NULL;
    gist_error err = { 0 };
    assert_ok(gist_compose(engine, parts, n, &g, &err), &err);
    return g;
}

static void behind(const gist *g, float *logits) {
    int32_t ids[REST];
    gist_session *s = NULL;
    gist_error err = { 0 };
    tiny_ids(ids, REST, 4);
    assert_ok(gist_session_open(engine, NULL, &s, &err), &err);
    assert_ok(gist_session_attach(s, g, &err), &err);
    assert_int_equal(gist_session_position(s), g->head.first_position + g->head.k);
    assert_ok(gist_session_feed_all(s, ids, REST, logits, &err), &err);
    gist_session_close(s);
}

/* Row i of a = row j of b; where keys are turned alike. */
static void same_row(const gist *a, int i, const gist *b, int j, bool keys) {
    uint8_t k1[256], v1[256], k2[256], v2[256];
    size_t row = dt_bytes(a->head.type, (size_t)model.G * (size_t)model.D);
    for (int l = 0; l < model.L; l++) {
        op_kv_get(&a->stores[l], i, k1, v1, model.G, model.D);
        op_kv_get(&b->stores[l], j, k2, v2, model.G, model.D);
        assert_memory_equal(v1, v2, row);
        if (keys) assert_memory_equal(k1, k2, row);
    }
}

static const gist_type kv_types[] = { GIST_TYPE_F32, GIST_TYPE_BF16, GIST_TYPE_F16 };

static void test_one(void **state) {
    (void)state;
    size_t n = REST * (size_t)engine_model(engine)->vocab;
    float *got = malloc(n * sizeof *got), *want = malloc(n * sizeof *want);
    for (int i = 0; i < 3; i++)
        for (int based = 0; based < 2; based++) { /* composing what is rebased already changes no bit */
            gist *part = compress(engine, i, 3, kv_types[i], based);
            gist *rebased = compress(engine, i, 3, kv_types[i], true);
            gist *g = compose((const gist *const[]){ part }, 1);
            gist_info a, b;
            gist_get_info(g, &a);
            gist_get_info(rebased, &b);
            for (int r = 0; r < 3; r++) same_row(g, r, rebased, r, true);
            assert_true(a.rebased);
            assert_int_equal(a.first_position, 0);
            assert_int_equal(a.k, 3);
            assert_int_equal(a.prompt_tokens, b.prompt_tokens);
            assert_string_equal(a.condition, "gist");
            assert_string_equal(a.kernels, b.kernels);
            assert_string_not_equal(a.id, b.id);
            behind(g, got);
            behind(rebased, want);
            assert_same_floats(got, want, n, "one part = rebased");
            gist_free(g);
            gist_free(part);
            gist_free(rebased);
        }
    free(got);
    free(want);
}

static void test_many(void **state) {
    (void)state;
    size_t n = REST * (size_t)engine_model(engine)->vocab;
    float *ab = malloc(n * sizeof *ab), *ba = malloc(n * sizeof *ba);
    gist *a = compress(engine, 0, 2, GIST_TYPE_F32, false), *b = compress(engine, 1, 3, GIST_TYPE_F32, false);
    gist *g = compose((const gist *const[]){ a, b }, 2), *again = compose((const gist *const[]){ a, b }, 2);
    gist *other = compose((const gist *const[]){ b, a }, 2), *twice = compose((const gist *const[]){ a, a }, 2);
    gist_info ia, ib, i, j;
    gist_get_info(a, &ia);
    gist_get_info(b, &ib);
    gist_get_info(g, &i);
    assert_int_equal(i.k, 5);
    assert_int_equal(i.prompt_tokens, ia.prompt_tokens + ib.prompt_tokens);
    assert_int_equal(i.first_position, 0);
    for (int r = 0; r < 5; r++) same_row(g, r, r < 2 ? a : b, r < 2 ? r : r - 2, false);
    /* the second part's keys: turned to 2, 3, 4 */
    for (int l = 0; l < model.L; l++)
        for (int r = 0; r < 3; r++) {
            float k1[64], k2[64], v[64];
            op_kv_get(&g->stores[l], 2 + r, k1, v, model.G, model.D);
            op_kv_get(&b->stores[l], r, k2, v, model.G, model.D);
            llama_rotate_key(engine_model(engine), k2, 2 - ib.first_position);
            assert_same_floats(k1, k2, (size_t)(model.G * model.D), "turned keys");
        }
    gist_get_info(again, &j);
    assert_string_equal(i.id, j.id);
    gist_get_info(other, &j);
    assert_string_not_equal(i.id, j.id);
    gist_get_info(twice, &j);
    assert_string_not_equal(i.id, j.id);
    behind(g, ab);
    behind(again, ba);
    assert_same_floats(ab, ba, n, "the same parts");
    behind(other, ba);
    assert_true(test_max_rel(ab, ba, n, NULL) > 1e-4); /* order matters */
    behind(twice, ba);
    assert_true(test_max_rel(ab, ba, n, NULL) > 1e-4);
    gist *nested = compose((const gist *const[]){ g, a }, 2), *flat = compose((const gist *const[]){ a, b, a }, 3);
    assert_int_equal(nested->head.k, 7);
    for (int r = 0; r < 5; r++) same_row(nested, r, flat, r, true);
    for (int r = 5; r < 7; r++) same_row(nested, r, flat, r, true);
    gist_free(nested);
    gist_free(flat);
    gist_free(a); /* parts are not needed any more */
    gist_free(b);
    behind(g, ba);
    assert_same_floats(ab, ba, n, "without its parts");
    char path[TEST_PATH];
    gist *loaded = NULL;
    gist_error err = { 0 };
    assert_ok(gist_save(g, test_tmp(path, "composed.gist"), &err), &err);
    assert_ok(gist_load(engine, path, 0, &loaded, &err), &err);
    behind(loaded, ba);
    assert_same_floats(ab, ba, n, "save -> load");
    gist_free(loaded);
    gist_free(g);
    gist_free(again);
    gist_free(other);
    gist_free(twice);
    free(ab);
    free(ba);
}

static void refuses(const gist *const *parts, size_t n, gist_status status, const char *said) {
    gist *g = (gist *)(uintptr_t)1;
    gist_error err = { 0 };
    assert_fails(gist_compose(engine, parts, n, &g, &err), &err, status, said);
    assert_ptr_equal(g, (void *)1);
}

static void test_refused(void **state) {
    (void)state;
    tiny_model t = model;
    char path[TEST_PATH], dir[TEST_PATH];
    gist_error err = { 0 };
    t.seed = 9;
    gist *a = compress(engine, 0, 2, GIST_TYPE_F32, false), *half = compress(engine, 1, 2, GIST_TYPE_BF16, false);
    gist *seen = NULL, *forced = NULL;
    gist_engine *e = tiny_open(&t, "other", 1, GIST_KERNELS_AUTO, GIST_TYPE_AUTO, "raw");
    gist *foreign = compress(e, 1, 2, GIST_TYPE_F32, false);
    gist_engine *paper = tiny_open(&model, "paper", 1, GIST_KERNELS_AUTO, GIST_TYPE_AUTO, "paper");
    gist *styled = compress(paper, 1, 2, GIST_TYPE_F32, false), *styled_here = NULL;
    assert_ok(gist_save(a, test_tmp(path, "seen.gist"), &err), &err);
    assert_ok(gist_inspect(path, &seen, &err), &err);
    assert_ok(gist_save(foreign, test_tmp(dir, "foreign.gist"), &err), &err);
    assert_ok(gist_load(engine, dir, GIST_LOAD_FORCE, &forced, &err), &err);
    assert_ok(gist_save(styled, test_tmp(dir, "styled.gist"), &err), &err);
    assert_ok(gist_load(engine, dir, 0, &styled_here, &err), &err);
    refuses(NULL, 0, GIST_ERR_USAGE, "no gists");
    refuses((const gist *const[]){ a, half }, 2, GIST_ERR_MISMATCH, "type");
    refuses((const gist *const[]){ a, foreign }, 2, GIST_ERR_MISMATCH, "another engine");
    refuses((const gist *const[]){ a, forced }, 2, GIST_ERR_MISMATCH, "model");
    refuses((const gist *const[]){ a, styled_here }, 2, GIST_ERR_MISMATCH, "template");
    refuses((const gist *const[]){ a, seen }, 2, GIST_ERR_USAGE, "inspected");
    gist *large = compress(engine, 0, 150, GIST_TYPE_F32, false);
    refuses((const gist *const[]){ large, a, large }, 3, GIST_ERR_LIMIT, "302 gist tokens");
    gist_free(large);
    gist_free(styled_here);
    gist_free(forced);
    gist_free(seen);
    gist_free(styled);
    gist_free(foreign);
    gist_free(half);
    gist_free(a);
    gist_engine_close(paper);
    gist_engine_close(e);
}

static int open_engine(void **state) {
    (void)state;
    engine = tiny_open(&model, "compose", 1, GIST_KERNELS_AUTO, GIST_TYPE_AUTO, "raw");
    return 0;
}

static int close_engine(void **state) {
    (void)state;
    gist_engine_close(engine);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, open_engine, close_engine);
}
