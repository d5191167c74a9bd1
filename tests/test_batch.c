/* test_batch.c - many sessions at once, bit for bit what each would be by itself, on every kernel level.
 *
 *   feed       sessions with different gists, k, KV types, lengths and positions; one token each, or hundreds
 *   generate   a batch of requests, with sampling; they end one by one; what fails is one's own
 *   fork       a fork = a session that was fed the same; with a gist, without, behind a mask, of a fork, rewound
 *   samples    n answers to one input = n sessions with n seeds
 */
#include <stdlib.h>

#include "engine/engine_int.h"
#include "tiny.h"

enum { N = 7, V_MAX = 512, IDS = 1200 };
static const tiny_model model = { 2, 20, 28, 4, 2, 10, 2048, DT_F32, false, true, 1, FAMILY_LLAMA, false };
/* heads that q8_0 fits */
static const tiny_model wide = { 2, 40, 56, 3, 1, 64, 2048, DT_F32, false, true, 4, FAMILY_QWEN2, false };
static const tiny_model sliding = { 2, 20, 28, 4, 2, 10, 2048, DT_F32, false, true, 1, FAMILY_MISTRAL, false };
static const char *const prompts[] = { "Translate it.", "Sum the numbers of the other one, and say it.", "Be short" };
static const gist_type kv_types[] = { GIST_TYPE_F32, GIST_TYPE_BF16, GIST_TYPE_F16 };
static const gist_type with_q8_0[] = { GIST_TYPE_F32, GIST_TYPE_BF16, GIST_TYPE_Q8_0 };

static gist_kernels level[TINY_LEVELS];
static int levels, least; /* the levels tried: [least,levels) */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SLOW = 1 }; /* under gcc's sanitizers, which are after other faults: the best level, fewer cases */
#else
enum { SLOW = 0 };
#endif

static void feed_last(gist_session *s, const int32_t *ids, size_t n, float *logits) {
    gist_error err = { 0 };
    assert_ok(gist_session_feed(s, ids, n, logits, &err), &err);
}

/* Three gists of different k and KV type, and what session i of N begins with: a gist, a prompt, a place, a mask. */
typedef struct bench {
    gist_engine *e;
    const gist_type *kv;
    size_t V;
    gist *g[3];
    int32_t ids[N][IDS];
} bench;

static void fill_bench(bench *b, const gist_type *kv) {
    b->kv = kv;
    b->V = (size_t)engine_model(b->e)->vocab;
    assert_true(b->V <= V_MAX);
    for (int i = 0; i < 3; i++) b->g[i] = gist_of(b->e, prompts[i], 1 + 2 * i, kv[i]);
    for (int i = 0; i < N; i++) tiny_ids(b->ids[i], IDS, 50 + (uint64_t)i);
}

static void open_bench(bench *b, int l, dtype type, int threads) {
    tiny_model t = model;
    t.type = type;
    b->e = tiny_open(&t, "batch", threads, level[l], GIST_TYPE_AUTO, "raw");
    fill_bench(b, kv_types);
}

/* A model whose rows see the last 24 positions. */
static void open_sliding(bench *b, int l) {
    char dir[TEST_PATH];
    gist_engine_options o = GIST_ENGINE_OPTIONS_INIT;
    gist_error err = { 0 };
    tiny_save(&sliding, "sliding", dir);
    tiny_save_config(&sliding, dir, ", \"sliding_window\": 24");
    o.kernels = level[l];
    o.threads = 1;
    o.template_name = "raw";
    assert_ok(gist_engine_open(dir, &o, &b->e, &err), &err);
    assert_int_equal(engine_model(b->e)->cfg.window, 24);
    fill_bench(b, kv_types);
}

static void open_wide(bench *b, int l) {
    b->e = tiny_open(&wide, "wide", 1, level[l], GIST_TYPE_AUTO, "raw");
    fill_bench(b, with_q8_0);
}

static void close_bench(bench *b) {
    for (int i = 0; i < 3; i++) gist_free(b->g[i]);
    gist_engine_close(b->e);
}

static gist_session *begin(bench *b, int i) {
    gist_session *s = open_session(b->e, i < 3 ? GIST_TYPE_AUTO : b->kv[i % 3], 0);
    if (i < 3) {
        assert_ok(gist_session_attach(s, b->g[i], NULL), NULL);
    } else if (i == 4) {
        assert_ok(gist_session_prompt(s, prompts[1], strlen(prompts[1]), NULL), NULL);
    } else if (i == 5) {
        assert_ok(gist_session_set_position(s, 300, NULL), NULL);
    } else if (i == 6) {
        feed_last(s, b->ids[6] + 1000, 30, NULL);
        session_hide_before(s, 17);
    }
    return s;
}

/* ---- feeding ---- */

static void check_feed(bench *b, const size_t counts[N], int steps, const char *what) {
    gist_session *s[N], *alone[N];
    float *got = malloc(N * b->V * sizeof *got), want[V_MAX];
    int32_t ids[N * IDS];
    char said[96];
    for (int i = 0; i < N; i++) {
        s[i] = begin(b, i);
        alone[i] = begin(b, i);
    }
    for (int step = 0; step < steps; step++) {
        size_t n = 0;
        gist_error err = { 0 };
        for (int i = 0; i < N; n += counts[i++])
            memcpy(ids + n, b->ids[i] + (size_t)step * counts[i], counts[i] * sizeof *ids);
        assert_ok(gist_session_feed_batch(s, N, ids, counts, got, &err), &err);
        for (int i = 0; i < N; i++) {
            feed_last(alone[i], b->ids[i] + (size_t)step * counts[i], counts[i], want);
            snprintf(said, sizeof said, "%s: session %d, step %d", what, i, step);
            assert_same_floats(got + (size_t)i * b->V, want, b->V, said);
            assert_int_equal(gist_session_length(s[i]), gist_session_length(alone[i]));
            assert_int_equal(gist_session_position(s[i]), gist_session_position(alone[i]));
        }
    }
    for (int i = 0; i < N; i++) {
        gist_session_close(s[i]);
        gist_session_close(alone[i]);
    }
    free(got);
}

static void test_feed(void **state) {
    (void)state;
    static const size_t ones[N] = { 1, 1, 1, 1, 1, 1, 1 }, few[N] = { 3, 1, 17, 2, 9, 1, 5 };
    static const size_t many[N] = { 1, 130, 512, 2, 600, 1, 90 };
    for (int l = least; l < levels; l++)
        for (int w = DT_F32; w <= (SLOW ? DT_F32 : DT_F16); w++) {
            bench b;
            open_bench(&b, l, (dtype)w, 1 + l % 2);
            check_feed(&b, ones, w ? 5 : 80, "one token each");
            check_feed(&b, few, 10, "a few");
            if (w != DT_F16) check_feed(&b, many, w ? 1 : 2, "hundreds");
            close_bench(&b);
        }
    for (int l = least; l < levels; l++) {
        bench b;
        open_wide(&b, l);
        check_feed(&b, few, 10, "q8_0, a few");
        if (l == levels - 1) check_feed(&b, many, 1, "q8_0, hundreds");
        close_bench(&b);
        open_sliding(&b, l);
        check_feed(&b, few, 10, "a window, a few");
        if (l == levels - 1) check_feed(&b, many, 2, "a window, hundreds");
        close_bench(&b);
    }
}

static void test_feed_refused(void **state) {
    (void)state;
    bench b;
    float got[N * V_MAX], before[N * V_MAX];
    int32_t ids[32] = { 0 };
    open_bench(&b, levels - 1, DT_F32, 1);
    gist_session *s[3] = { begin(&b, 0), open_session(b.e, GIST_TYPE_AUTO, 8), begin(&b, 4) };
    gist_engine *other = tiny_open(&model, "batch", 1, GIST_KERNELS_AUTO, GIST_TYPE_AUTO, "raw");
    gist_session *foreign = open_session(other, GIST_TYPE_AUTO, 0);
    int lengths[3];
    for (int i = 0; i < 3; i++) lengths[i] = gist_session_length(s[i]);
    memset(got, 0x5a, sizeof got);
    memcpy(before, got, sizeof got);
    tiny_ids(ids, 32, 3);
    for (int c = 0; c < 6; c++) {
        gist_session *list[3] = { s[0], s[1], s[2] };
        size_t counts[3] = { 2, 3, 4 }, n = 3;
        gist_status status = GIST_ERR_USAGE;
        gist_error err = { 0 };
        const char *said = NULL;
        ids[4] = 5;
        switch (c) {
        case 0: counts[1] = 9, status = GIST_ERR_LIMIT, said = "session 1: 9 tokens"; break;
        case 1: counts[2] = 0, said = "session 2"; break;
        case 2: list[2] = s[0], said = "session 2 is in the batch twice"; break;
        case 3: list[1] = foreign, said = "session 1 belongs to another engine"; break;
        case 4: n = 0, said = "no sessions"; break;
        default: ids[4] = (int32_t)b.V, said = "vocabulary"; break;
        }
        assert_fails(gist_session_feed_batch(list, n, ids, counts, got, &err), &err, status, said);
        assert_memory_equal(got, before, sizeof got);
        for (int i = 0; i < 3; i++) assert_int_equal(gist_session_length(s[i]), lengths[i]);
    }
    ids[4] = 5;
    assert_ok(gist_session_feed_batch(s, 3, ids, (size_t[]){ 2, 8, 4 }, got, NULL), NULL); /* exactly full */
    for (int i = 0; i < 3; i++) gist_session_close(s[i]);
    gist_session_close(foreign);
    gist_engine_close(other);
    close_bench(&b);
}

/* ---- generating ---- */

static void same_answer(const gist_answer *a, const gist_answer *b) {
    assert_int_equal(a->n, b->n);
    for (int i = 0; i < a->n; i++) {
        assert_int_equal(a->ids[i], b->ids[i]);
        assert_true(a->logprobs[i] == b->logprobs[i]);
    }
    assert_int_equal(a->text_len, b->text_len);
    assert_memory_equal(a->text, b->text, a->text_len);
    assert_string_equal(a->finish, b->finish);
    assert_int_equal(a->input_tokens, b->input_tokens);
}

typedef struct heard {
    size_t len[N];
    int tokens[N];
} heard;

static bool on_token(void *ctx, const gist_token_event *ev) {
    heard *h = ctx;
    assert_true(ev->index >= 0 && ev->index < N);
    h->len[ev->index] += ev->text_len;
    h->tokens[ev->index] += ev->id >= 0;
    return ev->index != 5 || h->tokens[5] < 3;
}

static void set_options(gist_generate_options *o, int i, uint64_t seed) {
    static const gist_logit_bias bias[] = { { 40, 3 }, { 77, -2 } };
    static const char *const stop[] = { "a", NULL };
    *o = (gist_generate_options)GIST_GENERATE_OPTIONS_INIT;
    o->max_tokens = 12 + 9 * i;
    o->seed = seed;
    o->temperature = i == 0 ? 0 : 0.5f + 0.3f * (float)i;
    o->top_k = i == 2 ? 5 : 0;
    o->top_p = i == 3 ? 0.9f : 1;
    o->min_p = i == 4 ? 0.05f : 0;
    o->repeat_penalty = i % 2 ? 1.3f : 1;
    o->bias = bias;
    o->bias_count = i == 6 ? 2 : 0;
    o->stop = i == 3 ? stop : NULL;
    o->ignore_eos = i != 1;
    o->json_object = i == 6;
}

static void check_generate(bench *b, uint64_t seed) {
    static const char *const inputs[N] = { "one", "two and two", "q", "three, again", "x", "the other", "last" };
    gist_request r[N] = { { 0 } };
    gist_generate_options o[N];
    gist_error err = { 0 };
    heard h = { { 0 }, { 0 } };
    for (int i = 0; i < N; i++) {
        set_options(&o[i], i, seed);
        o[i].on_token = on_token;
        o[i].on_token_ctx = &h;
        r[i] = (gist_request){ .session = begin(b, i), .input = inputs[i], .len = strlen(inputs[i]), .options = &o[i] };
        if (i == 2) feed_last(r[i].session, b->ids[2], 4, NULL);
    }
    assert_ok(gist_generate_batch(r, N, &err), &err);
    for (int i = 0; i < N; i++) {
        gist_session *s = begin(b, i);
        gist_answer a;
        assert_ok(r[i].status, &r[i].error);
        if (strcmp(r[i].answer.finish, "callback") != 0) assert_int_equal(h.len[i], r[i].answer.text_len);
        assert_int_equal(h.tokens[i], r[i].answer.n);
        if (i == 2) feed_last(s, b->ids[2], 4, NULL);
        if (i == 5) o[i].max_tokens = 3; /* what the callback did */
        o[i].on_token = NULL;
        assert_ok(gist_generate(s, r[i].input, r[i].len, &o[i], &a, &err), &err);
        if (i == 5) a.finish = "callback";
        same_answer(&r[i].answer, &a);
        assert_int_equal(gist_session_length(r[i].session), gist_session_length(s));
        gist_answer_free(s, &a);
        gist_answer_free(s, &r[i].answer);
        gist_session_close(s);
        gist_session_close(r[i].session);
    }
}

static void test_generate(void **state) {
    (void)state;
    for (int l = least; l < levels; l++) {
        bench b;
        open_bench(&b, l, l % 2 ? DT_BF16 : DT_F32, 2);
        for (uint64_t seed = 1; seed < 5; seed++) check_generate(&b, seed);
        close_bench(&b);
    }
}

/* A request that cannot be, one that fills its context, one with an end: each has its own outcome. */
static void test_outcomes(void **state) {
    (void)state;
    bench b;
    gist_generate_options o = GIST_GENERATE_OPTIONS_INIT, bad = o;
    gist_error err = { 0 };
    open_bench(&b, levels - 1, DT_F32, 1);
    bad.top_p = -1;
    o.max_tokens = 20;
    o.ignore_eos = true;
    static const char longer[] = "this input is longer than its session's context";
    gist_request r[5] = {
        { .session = open_session(b.e, GIST_TYPE_F32, 16), .input = longer, .len = strlen(longer) },
        { .session = open_session(b.e, GIST_TYPE_F32, 16), .input = "short", .len = 5, .options = &o },
        { .session = begin(&b, 0), .input = "ab\xff", .len = 3, .options = &o },
        { .session = begin(&b, 1), .input = "x", .len = 1, .options = &bad },
        { .session = begin(&b, 2), .input = "fine", .len = 4, .options = &o }
    };
    assert_ok(gist_generate_batch(r, 5, &err), &err);
    assert_int_equal(r[0].status, GIST_ERR_LIMIT);
    assert_int_equal(r[0].error.code, GIST_ERR_LIMIT);
    assert_int_equal(r[1].status, GIST_OK);
    assert_string_equal(r[1].answer.finish, "context");
    assert_int_equal(r[2].status, GIST_ERR_TEXT);
    assert_int_equal(r[3].status, GIST_ERR_USAGE);
    assert_non_null(strstr(r[3].error.msg, "top-p"));
    assert_int_equal(r[4].status, GIST_OK);
    assert_int_equal(r[4].answer.n, 20);
    for (int i = 0; i < 4; i++)
        if (i != 1) {
            assert_null(r[i].answer.text);
            assert_int_equal(gist_session_length(r[i].session), 0);
        }
    gist_session *twice = r[1].session;
    gist_answer_free(r[1].session, &r[1].answer);
    gist_answer_free(r[4].session, &r[4].answer);
    gist_request again[2] = { { .session = twice, .input = "a", .len = 1 }, { .session = twice } };
    assert_fails(gist_generate_batch(again, 2, &err), &err, GIST_ERR_USAGE, "twice");
    err = (gist_error){ 0 };
    assert_fails(gist_generate_batch(again, 0, &err), &err, GIST_ERR_USAGE, "0 requests");
    for (int i = 0; i < 5; i++) gist_session_close(r[i].session);
    close_bench(&b);
}

/* ---- forks ---- */

/* Both were fed the same, and go on with the same. */
static void go_on(bench *b, gist_session *s, gist_session *like, const int32_t *ids, size_t n, const char *what) {
    float got[V_MAX], want[V_MAX];
    feed_last(s, ids, n, got);
    feed_last(like, ids, n, want);
    assert_same_floats(got, want, b->V, what);
    assert_int_equal(gist_session_length(s), gist_session_length(like));
    assert_int_equal(gist_session_position(s), gist_session_position(like));
}

static gist_session *forked(gist_session *s) {
    gist_session *f = NULL;
    gist_error err = { 0 };
    assert_ok(gist_session_fork(s, &f, &err), &err);
    return f;
}

static void check_fork(bench *b, int i, size_t before) {
    gist_session *s = begin(b, i), *f[3], *like[4];
    int32_t *ids = b->ids[i];
    for (int j = 0; j < 4; j++) like[j] = begin(b, i);
    if (before) go_on(b, s, like[0], ids, before, "before");
    for (int j = 1; j < 4 && before; j++) feed_last(like[j], ids, before, NULL);
    f[0] = forked(s);
    f[1] = forked(s);
    go_on(b, f[0], like[1], ids + 100, 5, "the first fork");
    go_on(b, s, like[0], ids + 200, 40, "the session itself");
    go_on(b, f[1], like[2], ids + 300, 90, "the second fork");
    gist_session_close(s); /* the others live on */
    f[2] = forked(f[0]);
    feed_last(like[3], ids + 100, 5, NULL);
    go_on(b, f[2], like[3], ids + 400, 3, "a fork's fork");
    go_on(b, f[0], like[1], ids + 500, 1, "a fork that was forked");
    if (i != 6) { /* back into what is shared, and on; a mask would have to be set again */
        int back = gist_session_length(f[1]) - 91;
        if (back >= 0) {
            session_rewind(f[1], back);
            session_rewind(like[2], back);
            go_on(b, f[1], like[2], ids + 600, 2, "rewound");
            gist_session *again = forked(f[1]);
            go_on(b, again, like[2], ids + 610, 2, "a fork of one rewound");
            gist_session_close(again);
        }
    }
    gist_session_reset(f[2]);
    feed_last(f[2], ids, 3, NULL);
    assert_int_equal(gist_session_length(f[2]), 3);
    go_on(b, f[0], like[1], ids + 700, 30, "beside one that was reset");
    for (int j = 0; j < 3; j++) gist_session_close(f[j]);
    for (int j = 0; j < 4; j++) gist_session_close(like[j]);
}

static void test_fork(void **state) {
    (void)state;
    for (int l = least; l < levels; l++)
        for (int which = 0; which < 3; which++) {
            bench b;
            if (which == 0) open_bench(&b, l, l % 2 ? DT_F32 : DT_BF16, 1);
            if (which == 1) open_wide(&b, l);
            if (which == 2) open_sliding(&b, l);
            for (int i = 0; i < N; i++)
                for (size_t before = 0; before <= 70; before += SLOW ? 70 : 35) check_fork(&b, i, before);
            close_bench(&b);
        }
}

/* What a window shows of a gist and the tokens behind it is an interval only when they follow it. */
static void test_window_behind_gist(void **state) {
    (void)state;
    bench b;
    gist_info info;
    gist_error err = { 0 };
    open_sliding(&b, levels - 1);
    gist_get_info(b.g[1], &info);
    gist_session *s = begin(&b, 1);
    int end = gist_session_position(s);
    assert_int_equal(end, info.first_position + info.k);
    assert_fails(gist_session_set_position(s, end - 1, &err), &err, GIST_ERR_UNSUPPORTED, "a sliding window");
    assert_int_equal(gist_session_position(s), end);
    assert_ok(gist_session_set_position(s, end + 5, NULL), NULL);
    gist_session_close(s);
    close_bench(&b);
}

/* A fork copies nothing but what a gist makes it copy, once: counted in blocks. */
static void test_fork_cost(void **state) {
    (void)state;
    test_alloc t;
    char dir[TEST_PATH];
    gist_engine_options o = GIST_ENGINE_OPTIONS_INIT;
    gist_engine *e = NULL;
    int32_t ids[40];
    test_alloc_init(&t);
    o.alloc = &t.a;
    o.threads = 1;
    assert_ok(gist_engine_open(tiny_save(&model, "cost", dir), &o, &e, NULL), NULL);
    gist *g = gist_of(e, prompts[0], 2, GIST_TYPE_BF16);
    gist_session *s[2] = { open_session(e, GIST_TYPE_AUTO, 0), open_session(e, GIST_TYPE_AUTO, 0) }, *f[2][3];
    assert_ok(gist_session_attach(s[1], g, NULL), NULL);
    tiny_ids(ids, 40, 9);
    for (int with = 0; with < 2; with++) {
        feed_last(s[with], ids, 40, NULL);
        for (int i = 0; i < 3; i++) {
            long before = t.blocks;
            f[with][i] = forked(s[with]);
            assert_int_equal(t.blocks - before, i > 0 ? 1 : with ? 4 : 2); /* session; front; its stores and block */
            assert_ptr_equal(f[with][i]->front, s[with]->front);
        }
        for (int i = 0; i < 3; i++) gist_session_close(f[with][i]);
        gist_session_close(s[with]);
    }
    gist_free(g);
    gist_engine_close(e);
    assert_int_equal(t.blocks, 0);
}

/* ---- samples ---- */

static void test_samples(void **state) {
    (void)state;
    enum { SAMPLES = 5 };
    for (int l = least; l < levels; l++) {
        bench b;
        open_bench(&b, l, DT_F32, 2);
        for (int i = 0; i < N; i++) {
            gist_session *s = begin(&b, i);
            gist_answer a[SAMPLES], one;
            gist_generate_options o;
            gist_error err = { 0 };
            set_options(&o, i ? i : 5, 30);
            o.max_tokens = 25;
            int length = gist_session_length(s);
            for (int round = 0; round < 2; round++) {
                assert_ok(gist_generate_samples(s, "say it", 6, &o, a, SAMPLES, &err), &err);
                assert_int_equal(gist_session_length(s), length);
                for (int j = 0; j < SAMPLES; j++) {
                    gist_session *alone = begin(&b, i);
                    gist_generate_options p = o;
                    p.seed += (uint64_t)j;
                    assert_ok(gist_generate(alone, "say it", 6, &p, &one, &err), &err);
                    same_answer(&a[j], &one);
                    gist_answer_free(alone, &one);
                    gist_answer_free(s, &a[j]);
                    gist_session_close(alone);
                }
            }
            gist_session_close(s);
        }
        close_bench(&b);
    }
}

static void test_samples_refused(void **state) {
    (void)state;
    bench b;
    gist_answer a[2] = { { .n = 77 }, { .n = 78 } };
    gist_generate_options o = GIST_GENERATE_OPTIONS_INIT;
    open_bench(&b, 0, DT_F32, 1);
    gist_session *s = open_session(b.e, GIST_TYPE_AUTO, 12);
    o.min_p = 7;
    gist_error err = { 0 };
    assert_fails(gist_generate_samples(s, "fine", 4, &o, a, 2, &err), &err, GIST_ERR_USAGE, "min-p");
    err = (gist_error){ 0 };
    assert_fails(gist_generate_samples(s, "much too long for it", 20, NULL, a, 2, &err), &err, GIST_ERR_LIMIT, "12");
    err = (gist_error){ 0 };
    assert_fails(gist_generate_samples(s, "x", 1, NULL, a, 0, &err), &err, GIST_ERR_USAGE, "0 answers");
    err = (gist_error){ 0 };
    feed_last(s, b.ids[0], 4, NULL);
    assert_fails(gist_generate_samples(s, NULL, 0, NULL, a, 2, &err), &err, GIST_ERR_TEXT, "nothing to answer");
    assert_int_equal(a[0].n, 77);
    assert_int_equal(a[1].n, 78);
    assert_int_equal(gist_session_length(s), 4);
    gist_session_close(s);
    close_bench(&b);
}

int main(void) {
    levels = tiny_levels(level);
    least = SLOW ? levels - 1 : 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_feed),     cmocka_unit_test(test_feed_refused),
        cmocka_unit_test(test_generate), cmocka_unit_test(test_outcomes),
        cmocka_unit_test(test_fork),     cmocka_unit_test(test_fork_cost),
        cmocka_unit_test(test_window_behind_gist),
        cmocka_unit_test(test_samples),  cmocka_unit_test(test_samples_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
