/* test_engine_memory.c - the n-th allocation fails, for every n: open, compress, save, load, compose, feed, fork,
 * batch, generate.  GIST_ERR_MEMORY, nothing leaked, outputs untouched.
 */
#include <stdlib.h>

#include "engine/engine_int.h"
#include "tiny.h"

static const tiny_model model = { 1, 12, 20, 2, 1, 6, 64, DT_F32, false, true, 5, FAMILY_LLAMA, false };
static const char prompt[] = "a short prompt";

static gist *compress(gist_engine *e, gist_type kv) {
    gist_compress_options o = GIST_COMPRESS_OPTIONS_INIT;
    gist *g = NULL;
    gist_error err = { 0 };
    o.k = 2;
    o.kv = kv;
    assert_ok(gist_compress(e, prompt, strlen(prompt), &o, &g, &err), &err);
    return g;
}

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

static gist_status use_compose(use *u, gist_error *err) {
    const gist *parts[] = { u->g, u->g };
    gist *g = NULL;
    gist_status status = gist_compose(u->e, parts, 2, &g, err);
    assert_true(status == GIST_OK || !g);
    gist_free(g);
    return status;
}

/* A parent behind a gist, two forks, all three fed at once. */
static gist_status use_fork(use *u, gist_error *err) {
    gist_session *s[3] = { NULL };
    int32_t ids[12];
    size_t counts[3] = { 3, 4, 5 };
    tiny_ids(ids, 12, 2);
    gist_status status = gist_session_open(u->e, NULL, &s[0], err);
    if (status == GIST_OK) status = gist_session_attach(s[0], u->g, err);
    if (status == GIST_OK) status = gist_session_feed(s[0], ids, 7, NULL, err);
    for (int i = 1; i < 3 && status == GIST_OK; i++) {
        status = gist_session_fork(s[0], &s[i], err);
        assert_true(status == GIST_OK || !s[i]);
    }
    if (status == GIST_OK) {
        status = gist_session_feed_batch(s, 3, ids, counts, NULL, err);
        if (status != GIST_OK)
            for (int i = 0; i < 3; i++) assert_int_equal(gist_session_length(s[i]), 7);
    }
    for (int i = 0; i < 3; i++) gist_session_close(s[i]);
    return status;
}

static void set_options(gist_generate_options *o, const gist_logit_bias *bias) {
    o->max_tokens = 6;
    o->ignore_eos = true;
    o->temperature = 1;
    o->top_k = 5;
    o->repeat_penalty = 1.2f;
    o->bias = bias;
    o->bias_count = 1;
}

/* What runs out is one request's own, or everybody's; either way every request says so. */
static gist_status use_batch(use *u, gist_error *err) {
    enum { N = 3 };
    gist_request r[N] = { { .input = "and then", .len = 8 }, { .input = "x", .len = 1 }, { .input = "two", .len = 3 } };
    gist_generate_options o = GIST_GENERATE_OPTIONS_INIT;
    gist_logit_bias bias = { 9, -1 };
    gist_status status = GIST_OK;
    set_options(&o, &bias);
    for (int i = 0; i < N && status == GIST_OK; i++) {
        r[i].options = &o;
        status = gist_session_open(u->e, NULL, &r[i].session, err);
        if (i == 1 && status == GIST_OK) status = gist_session_attach(r[i].session, u->g, err);
    }
    if (status == GIST_OK) {
        status = gist_generate_batch(r, N, err);
        for (int i = 0; status == GIST_OK && i < N; i++) {
            assert_int_equal(r[i].status, r[i].error.code);
            assert_true(r[i].status == GIST_OK ? r[i].answer.n == 6 : !r[i].answer.text);
        }
        for (int i = 0; i < N; i++)
            if (status == GIST_OK && r[i].status != GIST_OK) {
                status = r[i].status;
                *err = r[i].error;
            }
        for (int i = 0; i < N; i++) gist_answer_free(r[i].session, &r[i].answer);
    }
    for (int i = 0; i < N; i++) gist_session_close(r[i].session);
    return status;
}

static gist_status use_samples(use *u, gist_error *err) {
    gist_session *s = NULL;
    gist_answer a[3] = { { 0 } };
    gist_generate_options o = GIST_GENERATE_OPTIONS_INIT;
    gist_logit_bias bias = { 9, -1 };
    set_options(&o, &bias);
    o.json_object = true;
    gist_status status = gist_session_open(u->e, NULL, &s, err);
    if (status == GIST_OK) status = gist_session_attach(s, u->g, err);
    if (status == GIST_OK) {
        status = gist_generate_samples(s, "and then", 8, &o, a, 3, err);
        assert_int_equal(gist_session_length(s), 0);
        for (int i = 0; i < 3; i++) {
            assert_true(status == GIST_OK || !a[i].text);
            gist_answer_free(s, &a[i]);
        }
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
    each_alloc_of(&u, use_compose, "compose");
    each_alloc_of(&u, use_fork, "fork");
    each_alloc_of(&u, use_batch, "batch");
    each_alloc_of(&u, use_samples, "samples");
    each_alloc_of(&u, use_text, "text");
    gist_free(u.g);
    gist_engine_close(u.e);
    assert_int_equal(u.t.blocks, 0);
}

/* Between the first and the last token of an answer nothing is allocated. */
typedef struct steady {
    test_alloc *t;
    long calls;
    int tokens;
} steady;

static bool no_more(void *ctx, const gist_token_event *ev) {
    steady *st = ctx;
    (void)ev;
    if (st->tokens++ == 0) st->calls = st->t->calls;
    assert_int_equal(st->calls, st->t->calls);
    return true;
}

static void test_no_growth(void **state) {
    (void)state;
    char dir[TEST_PATH];
    test_alloc t;
    gist_engine_options o = GIST_ENGINE_OPTIONS_INIT;
    gist_generate_options g = GIST_GENERATE_OPTIONS_INIT;
    gist_logit_bias bias = { 9, -1 };
    gist_engine *e = NULL;
    gist_session *s = NULL;
    gist_answer a[3];
    gist_error err = { 0 };
    test_alloc_init(&t);
    o.alloc = &t.a;
    o.threads = 1;
    assert_ok(gist_engine_open(tiny_save(&model, "steady", dir), &o, &e, &err), &err);
    assert_ok(gist_session_open(e, NULL, &s, &err), &err);
    steady st = { &t, 0, 0 };
    set_options(&g, &bias);
    g.max_tokens = 40;
    g.on_token = no_more;
    g.on_token_ctx = &st;
    assert_ok(gist_generate(s, "and", 3, &g, &a[0], &err), &err);
    assert_true(st.tokens >= 40);
    gist_answer_free(s, &a[0]);
    gist_session_reset(s);
    st.tokens = 0;
    assert_ok(gist_generate_samples(s, "and", 3, &g, a, 3, &err), &err);
    assert_true(st.tokens >= 3 * 40);
    for (int i = 0; i < 3; i++) gist_answer_free(s, &a[i]);
    gist_session_close(s);
    gist_engine_close(e);
    assert_int_equal(t.blocks, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_open),
        cmocka_unit_test(test_memory_use),
        cmocka_unit_test(test_no_growth),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
