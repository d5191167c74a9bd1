/* test_t5.c - the tiny T5 checkpoints of tests/data/t5 against transformers (README.md there), on every kernel level.
 *
 *   logits     the decoder's rows under gist, pos_control and neg_control; greedy ids behind a gist
 *   gist       keys, values and encoder output that compressing keeps; a file of them, and what is refused
 *   laws       cached = uncached, batch = alone, any threads, from a file: bit for bit
 *   hidden     tokens of the prompt behind the gist rows move nothing
 *   gguf       the same weights as a GGUF file of another writer and of ours: the same bits; blocks of 8 bits
 *   adapter    at gist positions only: logits of tests/data/lora/t5-gist; with no gist, the base model's answers
 *   text       a source ends with </s>, sentinels are tokens, the template has no "Output:"
 *   memory     every allocation of a life failing once: nothing is leaked, the failure is told
 *   bad        configs, weights and sessions that cannot be
 */
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/engine_int.h"
#include "tiny.h"
#include "tolerances.h"

static gist_kernels level[TINY_LEVELS];
static int levels;

static const char *const models[] = { "v10-f32", "v11-f32", "v11-bf16" };
enum { MODELS = sizeof models / sizeof *models, MOST = 64, K = 3, GREEDY = 10 };

typedef struct fixture {
    gist_engine *e;
    st_file expected;
    int V, C, n, T, p;
    int32_t source[MOST], target[MOST];
} fixture;

static float *expected(const fixture *f, size_t *n, const char *name) {
    const tensor_view *t = st_find(&f->expected, name);
    if (!t) fail_msg("expected.safetensors has no %s", name);
    *n = tensor_count(t);
    float *x = malloc((*n + 1) * sizeof *x);
    assert_non_null(x);
    dt_to_f32(x, t->data, t->type, *n);
    return x;
}

static int expected_ids(const fixture *f, int32_t *ids, const char *name) {
    size_t n;
    float *x = expected(f, &n, name);
    assert_true(n <= MOST);
    for (size_t i = 0; i < n; i++) ids[i] = (int32_t)x[i];
    free(x);
    return (int)n;
}

static gist_engine *engine_at(const char *path, gist_kernels k, gist_type weight_type, int threads) {
    gist_engine_options o = GIST_ENGINE_OPTIONS_INIT;
    gist_engine *e = NULL;
    gist_error err = { 0 };
    o.threads = threads;
    o.kernels = k;
    o.weights = weight_type;
    assert_ok(gist_engine_open(path, &o, &e, &err), &err);
    return e;
}

static fixture fixture_open(const char *model, const char *file, gist_kernels k, gist_type type, int threads) {
    char path[TEST_PATH], name[96];
    fixture f = { 0 };
    int32_t p;
    gist_error err = { 0 };
    snprintf(name, sizeof name, "t5/%s%s%s", model, *file ? "/" : "", file);
    f.e = engine_at(test_fixture(path, name), k, type, threads);
    snprintf(name, sizeof name, "t5/%s/expected.safetensors", model);
    assert_ok(st_open(&f.expected, mem_default(), test_fixture(path, name), &err), &err);
    f.V = engine_model(f.e)->vocab;
    f.C = engine_model(f.e)->cfg.C;
    f.n = expected_ids(&f, f.source, "source");
    f.T = expected_ids(&f, f.target, "target");
    expected_ids(&f, &p, "p");
    f.p = p;
    return f;
}

static void fixture_close(fixture *f) {
    st_close(&f->expected);
    gist_engine_close(f->e);
}

static void feed_source(gist_session *s, const int32_t *ids, int n) {
    gist_error err = { 0 };
    assert_ok(gist_session_feed(s, ids, (size_t)n, NULL, &err), &err);
}

/* Logits [T,V] of the target behind a source that is fed. */
static float *answer(const fixture *f, gist_session *s) {
    gist_error err = { 0 };
    float *logits = floats((size_t)f->T * (size_t)f->V);
    assert_ok(gist_session_encode(s, &err), &err);
    assert_ok(gist_session_feed_all(s, f->target, (size_t)f->T, logits, &err), &err);
    return logits;
}

enum { GIST, POS, NEG };

/* The whole source in one timeline, under a condition. */
static float *uncached(const fixture *f, const int32_t *ids, int condition, gist_type kv) {
    gist_session *s = open_session(f->e, kv, 0);
    feed_source(s, ids, f->p + K);
    if (condition != POS) session_hide_before(s, condition == GIST ? f->p : f->p + K);
    feed_source(s, ids + f->p + K, f->n - f->p - K);
    float *logits = answer(f, s);
    gist_session_close(s);
    return logits;
}

static gist *compress(const fixture *f, gist_type kv) {
    gist_compress_options o = GIST_COMPRESS_OPTIONS_INIT;
    gist *g = NULL;
    gist_error err = { 0 };
    o.k = K;
    o.kv = kv;
    assert_ok(gist_compress_ids(f->e, f->source, (size_t)f->p, &o, &g, &err), &err);
    return g;
}

static float *cached(const fixture *f, const gist *g) {
    gist_error err = { 0 };
    gist_session *s = open_session(f->e, GIST_TYPE_AUTO, 0);
    assert_ok(gist_session_attach(s, g, &err), &err);
    feed_source(s, f->source + f->p + K, f->n - f->p - K);
    float *logits = answer(f, s);
    gist_session_close(s);
    return logits;
}

static size_t size_of(const fixture *f) {
    return (size_t)f->T * (size_t)f->V;
}

/* ---- against transformers ---- */

static void check_conditions(const fixture *f, gist_type kv, double tol, const char *what) {
    static const char *const names[] = { "gist.logits", "pos_control.logits", "neg_control.logits" };
    for (int c = 0; c < 3; c++) {
        size_t n;
        float *want = expected(f, &n, names[c]), *got = uncached(f, f->source, c, kv), *some = floats(n);
        size_t V = n / (size_t)f->T; /* the added <GIST> has its logit here, and its row in the fixture */
        for (int t = 0; t < f->T; t++) memcpy(some + (size_t)t * V, got + (size_t)(t * f->V), V * sizeof *got);
        assert_int_equal(V, f->V);
        assert_close(some, want, n, tol, what);
        free(want);
        free(got);
        free(some);
    }
}

static void check_rows(const fixture *f, gist_type kv, double tol) {
    const llama_config *c = &engine_model(f->e)->cfg;
    gist *g = compress(f, kv);
    size_t n, rows = (size_t)K * (size_t)c->G * (size_t)c->D;
    float *key = floats(rows), *value = floats(rows);
    gist_error err = { 0 };
    for (int l = 0; l < c->encoder; l++) {
        char name[32];
        assert_ok(gist_get_rows(g, l, key, value, &err), &err);
        snprintf(name, sizeof name, "gist.key.%d", l);
        float *want = expected(f, &n, name);
        assert_int_equal(n, rows);
        assert_close(key, want, n, tol, name);
        free(want);
        snprintf(name, sizeof name, "gist.value.%d", l);
        want = expected(f, &n, name);
        assert_close(value, want, n, tol, name);
        free(want);
    }
    float *want = expected(f, &n, "gist.rows");
    assert_int_equal(n, (size_t)K * (size_t)f->C);
    assert_close(g->output, want, n, tol, "encoder output at the gist rows");
    free(want);
    free(key);
    free(value);
    gist_free(g);
}

static void check_greedy(const fixture *f) {
    int32_t want[MOST];
    gist_generate_options o = GIST_GENERATE_OPTIONS_INIT;
    gist_answer a = { 0 };
    gist_error err = { 0 };
    gist *g = compress(f, GIST_TYPE_F32);
    gist_session *s = open_session(f->e, GIST_TYPE_AUTO, 0);
    assert_int_equal(expected_ids(f, want, "gist.greedy"), GREEDY);
    o.max_tokens = GREEDY;
    assert_ok(gist_session_attach(s, g, &err), &err);
    for (int again = 0; again < 2; again++) { /* each call answers anew */
        assert_ok(session_generate(s, f->source + f->p + K, (size_t)(f->n - f->p - K), &o, &a, &err), &err);
        assert_int_equal(a.n, GREEDY);
        for (int i = 0; i < GREEDY; i++) assert_int_equal(a.ids[i], want[i]);
        gist_answer_free(s, &a);
    }
    gist_session_close(s);
    gist_free(g);
}

static void test_transformers(void **state) {
    (void)state;
    for (int m = 0; m < MODELS; m++)
        for (int l = 0; l < levels; l++) {
            fixture f = fixture_open(models[m], "", level[l], GIST_TYPE_F32, 2);
            check_conditions(&f, GIST_TYPE_F32, TOL_LOGITS_F32, models[m]);
            check_rows(&f, GIST_TYPE_F32, TOL_ROWS_F32);
            check_greedy(&f);
            fixture_close(&f);
            f = fixture_open(models[m], "", level[l], GIST_TYPE_AUTO, 2);
            bool bf16 = engine_model(f.e)->head.type == DT_BF16;
            check_conditions(&f, GIST_TYPE_BF16, TOL_LOGITS_ROUNDED, "bf16 cache");
            check_rows(&f, GIST_TYPE_BF16, bf16 ? 2 * TOL_ROWS_BF16 : TOL_ROWS_BF16);
            fixture_close(&f);
        }
}

/* ---- laws ---- */

static void check_cached(const fixture *f, gist_type kv) {
    gist *g = compress(f, kv), *loaded = NULL;
    char path[TEST_PATH];
    gist_error err = { 0 };
    float *a = uncached(f, f->source, GIST, kv), *b = cached(f, g);
    assert_same_floats(b, a, size_of(f), "cached and uncached");
    free(b);
    assert_ok(gist_save(g, test_tmp(path, "t5.gist"), &err), &err);
    assert_ok(gist_load(f->e, path, 0, &loaded, &err), &err);
    b = cached(f, loaded);
    assert_same_floats(b, a, size_of(f), "from a file");
    free(b);
    int32_t other[MOST];
    memcpy(other, f->source, sizeof other);
    for (int i = 0; i < f->p; i++) other[i] = 3 + (other[i] + 5) % 30;
    b = uncached(f, other, NEG, kv);
    float *c = uncached(f, f->source, NEG, kv);
    assert_same_floats(b, c, size_of(f), "another prompt under neg_control");
    free(a), free(b), free(c);
    gist_free(loaded);
    gist_free(g);
}

static void test_cached(void **state) {
    (void)state;
    static const gist_type types[] = { GIST_TYPE_F32, GIST_TYPE_BF16, GIST_TYPE_F16 };
    for (int m = 0; m < MODELS; m++)
        for (int l = 0; l < levels; l++)
            for (int t = 0; t < 3; t++) {
                fixture f = fixture_open(models[m], "", level[l], GIST_TYPE_AUTO, 1 + t);
                check_cached(&f, types[t]);
                fixture_close(&f);
            }
}

/* Requests behind different gists, a prompt, and nothing: as each alone, whatever the threads. */
static void test_batch(void **state) {
    (void)state;
    static const char *const inputs[] = { "the hat", "is it", "", "a man sat on the mat", "the tea" };
    enum { N = 5 };
    for (int m = 0; m < MODELS; m++) {
        fixture f = fixture_open(models[m], "", level[levels - 1], GIST_TYPE_AUTO, 2);
        gist_error err = { 0 };
        gist *g[2];
        gist_generate_options o = GIST_GENERATE_OPTIONS_INIT;
        gist_session *s[N];
        gist_request r[N];
        o.max_tokens = 9;
        assert_ok(gist_compress(f.e, "the sun is late", 15, NULL, &g[0], &err), &err);
        assert_ok(gist_compress(f.e, "list the seas at the inn", 24, NULL, &g[1], &err), &err);
        for (int alone = 0; alone < 2; alone++) {
            gist_answer kept[N];
            for (int i = 0; i < N; i++) {
                s[i] = open_session(f.e, GIST_TYPE_AUTO, 0);
                if (i < 3) assert_ok(gist_session_attach(s[i], g[i % 2], &err), &err);
                if (i == 3) assert_ok(gist_session_prompt(s[i], "the sun", 7, &err), &err);
                r[i] = (gist_request){ .session = s[i], .input = inputs[i], .len = strlen(inputs[i]), .options = &o };
            }
            if (alone) {
                for (int i = 0; i < N; i++)
                    assert_ok(gist_generate(s[i], inputs[i], strlen(inputs[i]), &o, &kept[i], &err), &err);
            } else {
                assert_ok(gist_generate_batch(r, N, &err), &err);
            }
            static gist_answer batch[N];
            for (int i = 0; i < N; i++) {
                if (!alone) {
                    assert_ok(r[i].status, &r[i].error);
                    batch[i] = r[i].answer;
                    batch[i].logprobs = memcpy(floats(16), r[i].answer.logprobs, (size_t)batch[i].n * sizeof(float));
                    gist_answer_free(s[i], &r[i].answer);
                } else {
                    assert_int_equal(kept[i].n, batch[i].n);
                    assert_int_equal(kept[i].input_tokens, batch[i].input_tokens);
                    assert_same_floats(kept[i].logprobs, batch[i].logprobs, (size_t)batch[i].n, "batch and alone");
                    free(batch[i].logprobs);
                    gist_answer_free(s[i], &kept[i]);
                }
                gist_session_close(s[i]);
            }
        }
        gist_free(g[0]);
        gist_free(g[1]);
        fixture_close(&f);
    }
}

/* Samples share an encoded source through forks: greedy ones are the answer itself. */
static void test_samples(void **state) {
    (void)state;
    fixture f = fixture_open("v11-f32", "", level[levels - 1], GIST_TYPE_AUTO, 2);
    gist_error err = { 0 };
    gist_generate_options o = GIST_GENERATE_OPTIONS_INIT;
    gist_answer one, many[3];
    gist *g;
    o.max_tokens = 7;
    assert_ok(gist_compress(f.e, "the sun is late", 15, NULL, &g, &err), &err);
    gist_session *s = open_session(f.e, GIST_TYPE_AUTO, 0), *child = NULL;
    assert_ok(gist_session_attach(s, g, &err), &err);
    assert_ok(gist_generate(s, "the hat", 7, &o, &one, &err), &err);
    assert_ok(gist_generate_samples(s, "the hat", 7, &o, many, 3, &err), &err);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(many[i].n, one.n);
        assert_same_floats(many[i].logprobs, one.logprobs, (size_t)one.n, "a sample and the answer");
        gist_answer_free(s, &many[i]);
    }
    assert_int_equal(gist_session_length(s), 0);
    feed_source(s, f.source, 4); /* a fork in the middle of a source */
    assert_ok(gist_session_fork(s, &child, &err), &err);
    gist_session_close(s);
    assert_int_equal(gist_session_length(child), 4);
    gist_session_close(child);
    s = open_session(f.e, GIST_TYPE_AUTO, 0);
    gist_answer_free(s, &one);
    gist_session_close(s);
    gist_free(g);
    fixture_close(&f);
}

/* ---- files ---- */

static void test_gguf(void **state) {
    (void)state;
    char path[TEST_PATH], dir[TEST_PATH], in[TEST_PATH], name[64];
    gist_error err = { 0 };
    convert_report report;
    for (int m = 0; m < MODELS; m++) {
        fixture a = fixture_open(models[m], "", level[levels - 1], GIST_TYPE_AUTO, 2);
        float *want = uncached(&a, a.source, GIST, GIST_TYPE_BF16);
        convert_options o = { .force = true };
        snprintf(name, sizeof name, "t5/%s", models[m]);
        test_fixture(in, name);
        assert_ok(convert_model(in, test_tmp(path, "t5.gguf"), &o, &report, &err), &err);
        assert_string_equal(report.family, "t5");
        assert_ok(convert_model(path, test_tmp(dir, "t5-again"), &o, &report, &err), &err);
        const char *const files[] = { path, dir };
        for (int i = 0; i < 2; i++) {
            fixture b = a;
            b.e = engine_at(files[i], level[levels - 1], GIST_TYPE_AUTO, 2);
            assert_int_equal(engine_model(b.e)->vocab, a.V);
            float *got = uncached(&b, a.source, GIST, GIST_TYPE_BF16);
            assert_same_floats(got, want, size_of(&a), files[i]);
            gist_engine_close(b.e);
            free(got);
        }
        free(want);
        fixture_close(&a);
    }
    fixture a = fixture_open("v11-f32", "", level[0], GIST_TYPE_AUTO, 1);
    fixture b = fixture_open("v11-f32", "model.gguf", level[0], GIST_TYPE_AUTO, 1);
    float *x = uncached(&a, a.source, GIST, GIST_TYPE_F32), *y = uncached(&b, b.source, GIST, GIST_TYPE_F32);
    assert_same_floats(y, x, size_of(&a), "a GGUF file of the gguf package");
    assert_string_equal(a.e->tok_fingerprint, b.e->tok_fingerprint);
    free(x), free(y);
    fixture_close(&a);
    fixture_close(&b);
}

/* A model of whole blocks: 8 bits are near the model, and the same on every level. */
static void test_blocks(void **state) {
    (void)state;
    static const gist_type types[] = { GIST_TYPE_Q8_0, GIST_TYPE_Q4_0 };
    llama_config c = { .family = FAMILY_T5,
                       .encoder = 2,
                       .L = 2,
                       .C = 64,
                       .F = 96,
                       .H = 2,
                       .G = 2,
                       .D = 32,
                       .V = 90,
                       .context = 64,
                       .eps = 1e-6f,
                       .near = { 32, 128, true },
                       .gated = true };
    for (int t = 0; t < 2; t++) {
        float *first = NULL;
        for (int l = 0; l < levels; l++) {
            pool *p = NULL;
            op_ctx ctx;
            llama_model m;
            gist_engine *e = NULL;
            gist_error err = { 0 };
            assert_ok(pool_create(mem_default(), 2, &p, &err), &err);
            assert_ok(op_init(&ctx, level[l], p, &err), &err);
            assert_ok(llama_random(&m, &c, type_or(types[t], DT_F32), 3, &ctx, mem_default(), &err), &err);
            assert_ok(engine_borrow(&m, NULL, NULL, &ctx, mem_default(), &e, &err), &err);
            fixture f = { .e = e, .V = m.vocab, .C = c.C, .n = 20, .T = 6, .p = 9 };
            for (int i = 0; i < f.n; i++) f.source[i] = 3 + i * 7 % 80;
            for (int i = 0; i < f.T; i++) f.target[i] = i * 5;
            float *got = uncached(&f, f.source, GIST, GIST_TYPE_F32);
            for (size_t i = 0; i < size_of(&f); i++) assert_true(isfinite(got[i]));
            if (first)
                assert_close(got, first, size_of(&f), TOL_LOGITS_F32, gist_kernels_name(level[l]));
            else
                first = got;
            if (got != first) free(got);
            gist_engine_close(e);
            llama_free(&m);
            pool_free(p);
        }
        free(first);
    }
}

/* ---- text ---- */

/* ---- an adapter at gist positions ---- */

static fixture with_adapter(gist_kernels k) {
    char path[TEST_PATH], adapter[TEST_PATH];
    gist_engine_options o = GIST_ENGINE_OPTIONS_INIT;
    gist_error err = { 0 };
    fixture f = fixture_open("v11-f32", "", k, GIST_TYPE_F32, 2);
    gist_engine_close(f.e);
    o.threads = 2;
    o.kernels = k;
    o.weights = GIST_TYPE_F32;
    o.adapter = test_fixture(adapter, "lora/t5-gist");
    assert_ok(gist_engine_open(test_fixture(path, "t5/v11-f32"), &o, &f.e, &err), &err);
    return f;
}

static void test_adapter_at_gist(void **state) {
    (void)state;
    for (int l = 0; l < levels; l++) {
        char path[TEST_PATH];
        gist_error err = { 0 };
        st_file adapted;
        fixture f = with_adapter(level[l]), base = fixture_open("v11-f32", "", level[l], GIST_TYPE_F32, 2);
        assert_ok(st_open(&adapted, NULL, test_fixture(path, "lora/t5-gist/expected.safetensors"), &err), &err);
        const tensor_view *t = st_find(&adapted, "logits");
        assert_non_null(t);
        assert_int_equal(tensor_count(t), size_of(&f));
        float *want = floats(size_of(&f)), *got = uncached(&f, f.source, GIST, GIST_TYPE_F32);
        dt_to_f32(want, t->data, t->type, size_of(&f));
        assert_close(got, want, size_of(&f), TOL_LOGITS_F32, "logits behind adapted gist rows");
        gist *g = compress(&f, GIST_TYPE_F32);
        float *again = cached(&f, g);
        assert_same_floats(again, got, size_of(&f), "cached = uncached");
        float *hidden = uncached(&f, f.source, NEG, GIST_TYPE_F32),
              *plain = uncached(&base, f.source, NEG, GIST_TYPE_F32);
        assert_same_floats(hidden, plain, size_of(&f), "rows that see no gist");
        free(want);
        free(got);
        free(again);
        free(hidden);
        free(plain);
        gist_free(g);
        st_close(&adapted);
        fixture_close(&f);
        fixture_close(&base);
    }
}

static void test_text(void **state) {
    (void)state;
    fixture f = fixture_open("v11-f32", "", level[0], GIST_TYPE_AUTO, 1);
    const tokenizer *t = engine_tokenizer(f.e);
    gist_engine_info info;
    gist_error err = { 0 };
    gist_engine_get_info(f.e, &info);
    assert_string_equal(info.family, "t5");
    assert_string_equal(info.template_name, "paper-t5");
    assert_int_equal(tok_find(t, "<extra_id_0>"), 51);
    assert_int_equal(tok_find(t, "<extra_id_3>"), 48);
    assert_int_equal(tok_eos(t), 1);
    assert_true(tok_adds_eos(t));
    assert_int_equal(info.gist_token, 52);
    assert_false(info.gist_token_added);
    gist_session *s = open_session(f.e, GIST_TYPE_AUTO, 0);
    gist_generate_options o = GIST_GENERATE_OPTIONS_INIT;
    gist_answer a;
    o.max_tokens = 1;
    gist *g;
    assert_ok(gist_compress(f.e, "the sun", 7, NULL, &g, &err), &err);
    assert_ok(gist_session_attach(s, g, &err), &err);
    assert_ok(gist_generate(s, "", 0, &o, &a, &err), &err);
    assert_int_equal(a.input_tokens, 1); /* </s> alone */
    gist_answer_free(s, &a);
    gist_session_close(s);
    gist_free(g);
    fixture_close(&f);
}

/* ---- memory ---- */

/* A whole life: model, gist, file, sessions in a batch, samples. */
static gist_status live(void *ctx, const gist_allocator *alloc) {
    const char *dir = ctx;
    char path[TEST_PATH];
    gist_engine_options o = GIST_ENGINE_OPTIONS_INIT;
    gist_generate_options go = GIST_GENERATE_OPTIONS_INIT;
    gist_engine *e = NULL;
    gist *g = NULL, *loaded = NULL;
    gist_session *s[2] = { NULL, NULL };
    gist_answer many[2] = { { 0 }, { 0 } };
    gist_error err = { 0 };
    o.alloc = alloc;
    o.threads = 1;
    go.max_tokens = 3;
    gist_status status = gist_engine_open(dir, &o, &e, &err);
    if (status == GIST_OK) status = gist_compress(e, "the sun", 7, NULL, &g, &err);
    if (status == GIST_OK) status = gist_save(g, test_tmp(path, "live.gist"), &err);
    if (status == GIST_OK) status = gist_load(e, path, 0, &loaded, &err);
    for (int i = 0; i < 2 && status == GIST_OK; i++) status = gist_session_open(e, NULL, &s[i], &err);
    if (status == GIST_OK) status = gist_session_attach(s[0], loaded, &err);
    if (status == GIST_OK) status = gist_session_prompt(s[1], "the sun", 7, &err);
    if (status == GIST_OK) {
        gist_request r[2] = { { .session = s[0], .input = "is it", .len = 5, .options = &go },
                              { .session = s[1], .input = "the tea", .len = 7, .options = &go } };
        status = gist_generate_batch(r, 2, &err);
        for (int i = 0; status == GIST_OK && i < 2; i++) gist_answer_free(s[i], &r[i].answer);
        for (int i = 0; status == GIST_OK && i < 2; i++) status = r[i].status;
    }
    if (status == GIST_OK) status = gist_generate_samples(s[0], "is it", 5, &go, many, 2, &err);
    for (int i = 0; status == GIST_OK && i < 2; i++) gist_answer_free(s[0], &many[i]);
    for (int i = 0; i < 2; i++) gist_session_close(s[i]);
    gist_free(loaded);
    gist_free(g);
    gist_engine_close(e);
    return status;
}

static void test_memory(void **state) {
    (void)state;
    char dir[TEST_PATH];
    assert_true(test_each_alloc(live, test_fixture(dir, "t5/v11-f32")) > 50);
}

/* ---- what cannot be ---- */

/* A sound config with the last word on some of its keys. */
static void check_config(const char *more, gist_status want, const char *says) {
    static const char base[] = "{\"model_type\": \"t5\", \"num_layers\": 2, \"d_model\": 16, \"d_ff\": 20, "
                               "\"num_heads\": 2, \"d_kv\": 8, \"vocab_size\": 40}";
    char text[128];
    json_t *j = NULL, *k = NULL;
    llama_config c;
    gist_error err = { 0 };
    snprintf(text, sizeof text, "{%s}", more);
    assert_ok(json_parse(text, strlen(text), "config", &k, &err), &err);
    assert_ok(json_parse(base, strlen(base), "config", &j, &err), &err);
    json_object_update(j, k);
    json_decref(k);
    gist_status status = llama_config_parse(&c, j, "config", &err);
    json_decref(j);
    if (want == GIST_OK)
        assert_ok(status, &err);
    else
        assert_fails(status, &err, want, says);
}

static void test_bad_config(void **state) {
    (void)state;
    check_config("", GIST_OK, "");
    check_config("\"feed_forward_proj\": \"gated-silu\"", GIST_ERR_UNSUPPORTED, "gated-silu");
    check_config("\"feed_forward_proj\": \"gelu\"", GIST_ERR_UNSUPPORTED, "gelu");
    check_config("\"relative_attention_num_buckets\": 7", GIST_ERR_FORMAT, "buckets");
    check_config("\"relative_attention_num_buckets\": 2", GIST_ERR_FORMAT, "relative_attention_num_buckets");
    check_config("\"relative_attention_max_distance\": 16", GIST_ERR_FORMAT, "distances");
    check_config("\"decoder_start_token_id\": 40", GIST_ERR_FORMAT, "decoder_start_token_id");
    check_config("\"num_decoder_layers\": 0", GIST_ERR_FORMAT, "num_decoder_layers");
    check_config("\"n_positions\": 100000000", GIST_ERR_FORMAT, "n_positions");
    check_config("\"d_kv\": 7", GIST_ERR_UNSUPPORTED, "head_dim 7");
    check_config("\"quantization_config\": {}", GIST_ERR_UNSUPPORTED, "quantization_config");
}

/* The first cause of a gist_error wins: a fresh one for each. */
#define refused(call, code, text)                                                                                      \
    do {                                                                                                               \
        err = (gist_error){ 0 };                                                                                       \
        assert_fails(call, &err, code, text);                                                                          \
        err = (gist_error){ 0 };                                                                                       \
    } while (0)

static void test_refused(void **state) {
    (void)state;
    fixture f = fixture_open("v11-f32", "", level[0], GIST_TYPE_AUTO, 1);
    fixture other = fixture_open("v10-f32", "", level[0], GIST_TYPE_AUTO, 1);
    tiny_model spec = TINY_MODEL;
    gist_engine *llama = tiny_open(&spec, "llama", 1, GIST_KERNELS_SCALAR, GIST_TYPE_AUTO, NULL);
    gist *g = compress(&f, GIST_TYPE_F32), *loaded = NULL, *composed = NULL;
    const gist *two[] = { g, g };
    char path[TEST_PATH];
    float logits[64];
    gist_error err = { 0 };
    assert_ok(gist_save(g, test_tmp(path, "refused.gist"), &err), &err);
    refused(gist_load(llama, path, 0, &loaded, &err), GIST_ERR_MISMATCH, "made by a t5 model");
    refused(gist_load(other.e, path, 0, &loaded, &err), GIST_ERR_MISMATCH, "rows of 2 layers");
    refused(gist_compose(f.e, two, 2, &composed, &err), GIST_ERR_UNSUPPORTED, "composed");
    gist *mine = NULL;
    assert_ok(gist_compress(llama, "the sun", 7, NULL, &mine, &err), &err);
    assert_ok(gist_save(mine, test_tmp(path, "llama.gist"), &err), &err);
    refused(gist_load(f.e, path, 0, &loaded, &err), GIST_ERR_MISMATCH, "made by a llama model");

    gist_session *s = open_session(f.e, GIST_TYPE_AUTO, 0), *l = open_session(llama, GIST_TYPE_AUTO, 0);
    refused(gist_session_encode(l, &err), GIST_ERR_USAGE, "no encoder");
    refused(gist_session_encode(s, &err), GIST_ERR_USAGE, "empty");
    refused(gist_session_feed(s, f.source, 3, logits, &err), GIST_ERR_USAGE, "encode the source");
    refused(gist_session_set_position(s, 3, &err), GIST_ERR_UNSUPPORTED, "relative");
    int32_t far = 1000, *many = calloc(200, sizeof *many);
    refused(gist_session_feed(s, &far, 1, NULL, &err), GIST_ERR_USAGE, "1000");
    refused(gist_session_feed(s, many, 129, NULL, &err), GIST_ERR_LIMIT, "128");
    feed_source(s, f.source, 3);
    refused(gist_session_attach(s, g, &err), GIST_ERR_USAGE, "empty session");
    size_t one = 1;
    refused(gist_session_feed_batch(&s, 1, f.target, &one, logits, &err), GIST_ERR_USAGE, "source");
    assert_ok(gist_session_encode(s, &err), &err);
    refused(gist_session_encode(s, &err), GIST_ERR_USAGE, "already");
    gist_session_reset(s);
    assert_ok(gist_session_attach(s, g, &err), &err);
    refused(gist_session_feed(s, many, 126, NULL, &err), GIST_ERR_LIMIT, "behind a gist");
    free(many);
    gist_session_close(s);
    gist_session_close(l);
    gist_free(g);
    gist_free(mine);
    gist_engine_close(llama);
    fixture_close(&f);
    fixture_close(&other);
}

static int setup(void **state) {
    (void)state;
    levels = tiny_levels(level);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_transformers),    cmocka_unit_test(test_cached), cmocka_unit_test(test_batch),
        cmocka_unit_test(test_samples),         cmocka_unit_test(test_gguf),   cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_adapter_at_gist), cmocka_unit_test(test_text),   cmocka_unit_test(test_bad_config),
        cmocka_unit_test(test_refused),         cmocka_unit_test(test_memory)
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
