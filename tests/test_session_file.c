/* test_session_file.c - a session kept in a file goes on bit for bit, and what is not such a file is refused. */
#include <stdlib.h>

#include "testing.h"
#include "tiny.h"

enum { TOKENS = 37, MORE = 5 };

static void goes_on(gist_engine *e, gist_type kv, const char *path) {
    int V = engine_model(e)->vocab;
    float *whole = calloc((size_t)V, sizeof *whole), *kept = calloc((size_t)V, sizeof *kept);
    int32_t ids[TOKENS + MORE];
    gist_error err = { 0 };
    tiny_ids(ids, TOKENS + MORE, 3);
    gist_session *a = open_session(e, kv, 64), *b = open_session(e, kv, 64);
    assert_ok(gist_session_feed(a, ids, TOKENS, NULL, &err), &err);
    assert_ok(session_save(a, path, &err), &err);
    assert_ok(gist_session_feed(a, ids + TOKENS, MORE, whole, &err), &err);
    for (int round = 0; round < 2; round++) { /* into stores of another size, then into used ones */
        if (round == 0) assert_ok(session_reserve(b, 60, &err), &err);
        assert_ok(session_restore(b, path, &err), &err);
        assert_int_equal(gist_session_length(b), TOKENS);
        assert_int_equal(gist_session_position(b), TOKENS);
        assert_ok(gist_session_feed(b, ids + TOKENS, MORE, kept, &err), &err);
        assert_same_floats(kept, whole, (size_t)V, "logits behind a kept cache");
        assert_fails(session_restore(b, path, &err), &err, GIST_ERR_USAGE, "comes first");
        gist_session_reset(b);
        memset(&err, 0, sizeof err);
    }
    gist_session_close(a);
    gist_session_close(b);
    free(whole);
    free(kept);
}

static void test_goes_on(void **state) {
    (void)state;
    static const gist_type types[] = { GIST_TYPE_F32, GIST_TYPE_BF16, GIST_TYPE_F16, GIST_TYPE_Q8_0 };
    char path[TEST_PATH];
    test_tmp(path, "kept.cache");
    for (int threads = 1; threads < 3; threads++) {
        tiny_model t = TINY_MODEL;
        t.C = 128;
        t.D = 32;
        gist_engine *e = tiny_open(&t, "keeps", threads, GIST_KERNELS_AUTO, GIST_TYPE_AUTO, NULL);
        for (size_t i = 0; i < sizeof types / sizeof *types; i++) goes_on(e, types[i], path);
        gist_engine_close(e);
    }
}

/* ---- what is refused ---- */

static void refuses(gist_session *s, const char *path, gist_status code, const char *message) {
    gist_error err = { 0 };
    assert_fails(session_restore(s, path, &err), &err, code, message);
    assert_int_equal(gist_session_length(s), 0);
}

static void test_bad_files(void **state) {
    (void)state;
    tiny_model t = TINY_MODEL, other = TINY_MODEL;
    char path[TEST_PATH], spoiled[TEST_PATH];
    int32_t ids[TOKENS];
    size_t len;
    gist_error err = { 0 };
    other.seed = 2;
    gist_engine *e = tiny_open(&t, "kept", 1, GIST_KERNELS_AUTO, GIST_TYPE_AUTO, NULL);
    gist_engine *o = tiny_open(&other, "other", 1, GIST_KERNELS_AUTO, GIST_TYPE_AUTO, NULL);
    gist_session *s = open_session(e, GIST_TYPE_BF16, 64), *f32 = open_session(e, GIST_TYPE_F32, 64);
    gist_session *of_other = open_session(o, GIST_TYPE_BF16, 64);
    test_tmp(path, "good.cache");
    test_tmp(spoiled, "spoiled.cache");
    tiny_ids(ids, TOKENS, 3);
    assert_fails(session_save(s, path, &err), &err, GIST_ERR_USAGE, "own visible tokens");
    memset(&err, 0, sizeof err);
    assert_ok(gist_session_feed(s, ids, TOKENS, NULL, &err), &err);
    assert_ok(session_save(s, path, &err), &err);
    gist_session_reset(s);
    refuses(f32, path, GIST_ERR_MISMATCH, "another KV type");
    refuses(of_other, path, GIST_ERR_MISMATCH, "another model");
    uint8_t *good = test_read(path, &len);
    for (size_t cut = 0; cut < len; cut += cut < 200 ? 1 : 777) {
        test_write(spoiled, good, cut);
        refuses(s, spoiled, GIST_ERR_FORMAT, NULL);
    }
    static const uint32_t lengths[] = { 0, TOKENS - 20, TOKENS + 1, 1u << 30, UINT32_MAX };
    size_t at_length = 8 + 40 + 4 * 4;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        uint32_t was;
        memcpy(&was, good + at_length, 4);
        assert_int_equal(was, TOKENS);
        memcpy(good + at_length, &lengths[i], 4);
        test_write(spoiled, good, len);
        refuses(s, spoiled, GIST_ERR_FORMAT, NULL);
        memcpy(good + at_length, &was, 4);
    }
    good[len - 1] ^= 1; /* a row's bits: nothing to tell by, as engine.h says */
    test_write(spoiled, good, len);
    assert_ok(session_restore(s, spoiled, &err), &err);
    free(good);
    gist_session_close(s);
    gist_session_close(f32);
    gist_session_close(of_other);
    gist_engine_close(e);
    gist_engine_close(o);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_goes_on), cmocka_unit_test(test_bad_files) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
