/* test_engine_bad.c - bad input, lost files and lost memory: a status and a message that name things, outputs
 * untouched, nothing written, nothing leaked, and the objects still good afterwards.
 *
 *   calls      tokens, prompts, sizes and types that cannot be right
 *   gists      another model's, another tokenizer's, damaged at any byte, inspected ones
 *   disk       a full disk keeps the old file
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

static const tiny_model model = { 1, 12, 20, 2, 1, 6, 64, DT_F32, false, true, 5, FAMILY_LLAMA, false };
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

static char *file_in(char out[TEST_PATH + 64], const char *dir, const char *name) {
    snprintf(out, TEST_PATH + 64, "%s/%s", dir, name);
    return out;
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
    const struct {
        int32_t id;
        size_t at, n;
        gist_status status;
    } bad[] = { { 0, 0, 0, GIST_ERR_USAGE },          { -1, 3, 5, GIST_ERR_USAGE },
                { (int32_t)V, 4, 5, GIST_ERR_USAGE }, { INT32_MAX, 0, 1, GIST_ERR_USAGE },
                { INT32_MIN, 0, 1, GIST_ERR_USAGE },  { 5, 0, 55, GIST_ERR_LIMIT },
                { 5, 0, 80, GIST_ERR_LIMIT } };
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
    const struct {
        const char *prompt;
        size_t len;
        int k, kv;
        gist_status status;
        const char *said;
    } bad[] = { { prompt, 5, 0, 0, GIST_ERR_USAGE, "0" },
                { prompt, 5, -3, 0, GIST_ERR_USAGE, "-3" },
                { prompt, 5, 1025, 0, GIST_ERR_USAGE, "1025" },
                { prompt, 5, 1, 77, GIST_ERR_USAGE, "77" },
                { "", 0, 1, 0, GIST_ERR_TEXT, "empty" },
                { NULL, 0, 1, 0, GIST_ERR_TEXT, "empty" },
                { " \n\t ", 4, 1, 0, GIST_ERR_TEXT, "empty" },
                { "ab\xc3(", 4, 1, 0, GIST_ERR_TEXT, "UTF-8" },
                { text, 64, 1, 0, GIST_ERR_LIMIT, "context of 64" },
                { text, 63, 1, 0, GIST_ERR_LIMIT, "context of 64" },
                { text, 500, 1, 0, GIST_ERR_LIMIT, "context of 64" },
                { prompt, 5, 64, 0, GIST_ERR_LIMIT, "context of 64" } };
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

    const struct {
        tiny_model t;
        gist_status status;
        const char *said;
    } shapes[] = { { { 2, 12, 20, 2, 1, 6, 64, DT_F32, false, true, 5, FAMILY_LLAMA, false },
                     GIST_ERR_MISMATCH, "1 layers" },
                   { { 1, 12, 20, 2, 2, 6, 64, DT_F32, false, true, 5, FAMILY_LLAMA, false },
                     GIST_ERR_MISMATCH, "heads" },
                   { { 1, 12, 20, 2, 1, 8, 64, DT_F32, false, true, 5, FAMILY_LLAMA, false },
                     GIST_ERR_MISMATCH, "x 6" },
                   { { 1, 12, 20, 2, 1, 6, 8, DT_F32, false, true, 5, FAMILY_LLAMA, false },
                     GIST_ERR_LIMIT, "context is 8" },
                   { { 1, 12, 20, 2, 1, 6, 64, DT_F32, false, true, 5, FAMILY_QWEN2, false },
                     GIST_ERR_MISMATCH,
                     "made by a llama model, this one is qwen2" } };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
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
        cmocka_unit_test(test_sessions),
        cmocka_unit_test(test_feeds),
        cmocka_unit_test(test_compress_arguments),
        cmocka_unit_test(test_attach),
        cmocka_unit_test(test_generate_arguments),
        cmocka_unit_test(test_other_models),
        cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_full_disk),
    };
    return cmocka_run_group_tests(tests, open_engine, close_engine);
}
