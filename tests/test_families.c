/* test_families.c - the families beside plain LLaMA against transformers, on every kernel level of this CPU
 * (tests/data/families/README.md names versions and seeds).
 *
 *   logits     plain causal text and the three conditions; keys and values of a gist, logits and greedy ids behind it
 *   gguf       the same weights as a GGUF file, of another writer and of ours: the same tokens and the same bits
 *   blocks     quantized GGUF files of each family, against their own numbers widened
 *   window     a row at position i sees positions (i - W, i], in front of it and in a gist, however the work was cut
 *   training   every gradient by name against PyTorch; what a sliding window cannot do yet is refused
 */
#include "testing.h"

#include <math.h>
#include <stdlib.h>

#include "engine/engine_int.h"
#include "tiny.h"
#include "tolerances.h"
#include "train/train.h"

static gist_kernels level[TINY_LEVELS];
static int levels;

static const char *const models[] = { "llama31", "mistral", "qwen2", "qwen3" };
enum { MODELS = sizeof models / sizeof *models, STRIDE = 5, K = 3, MOST = 64 };

/* ---- fixtures ---- */

typedef struct fixture {
    gist_engine *e;
    st_file expected;
    int V;
} fixture;

static char *path_of(char out[TEST_PATH], const char *model, const char *file) {
    char name[128];
    snprintf(name, sizeof name, "families/%s%s%s", model, *file ? "/" : "", file);
    return test_fixture(out, name);
}

static gist_engine *engine_of(const char *model, const char *file, gist_kernels k, gist_type weight_type,
                              int threads) {
    char path[TEST_PATH];
    gist_engine *e = NULL;
    gist_engine_options o = GIST_ENGINE_OPTIONS_INIT;
    gist_error err = { 0 };
    o.threads = threads;
    o.kernels = k;
    o.weights = weight_type;
    o.template_name = "raw";
    assert_ok(gist_engine_open(path_of(path, model, file), &o, &e, &err), &err);
    return e;
}

static void open_expected(st_file *st, const char *model) {
    char path[TEST_PATH];
    gist_error err = { 0 };
    assert_ok(st_open(st, mem_default(), path_of(path, model, "expected.safetensors"), &err), &err);
}

static fixture fixture_open(const char *model, const char *file, gist_kernels k, gist_type weight_type) {
    fixture f = { .e = engine_of(model, file, k, weight_type, 2) };
    open_expected(&f.expected, model);
    f.V = engine_model(f.e)->vocab;
    return f;
}

static void fixture_close(fixture *f) {
    st_close(&f->expected);
    gist_engine_close(f->e);
}

/* Values of an expected tensor; free() them. */
static float *expected(const st_file *st, size_t *n, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static float *expected(const st_file *st, size_t *n, const char *fmt, ...) {
    char name[128];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    const tensor_view *t = st_find(st, name);
    if (!t) fail_msg("expected.safetensors has no %s", name);
    *n = tensor_count(t);
    float *x = malloc((*n + 1) * sizeof *x);
    assert_non_null(x);
    dt_to_f32(x, t->data, t->type, *n);
    return x;
}

static int expected_ids(const st_file *st, int32_t *ids, const char *name) {
    size_t n;
    float *x = expected(st, &n, "%s", name);
    assert_true(n <= MOST);
    for (size_t i = 0; i < n; i++) ids[i] = (int32_t)x[i];
    free(x);
    return (int)n;
}

/* logits [n,V] are rows `first` and on of the expected tensor, which keeps every fifth column. */
static void check_logits(const fixture *f, const float *logits, int first, int n, const char *name, double tol,
                         const char *what) {
    size_t count, W = (size_t)(f->V + STRIDE - 1) / STRIDE;
    float *want = expected(&f->expected, &count, "%s.logits", name), *got = floats((size_t)n * W);
    assert_true(count >= (size_t)(first + n) * W);
    for (int t = 0; t < n; t++)
        for (size_t w = 0; w < W; w++) got[(size_t)t * W + w] = logits[(size_t)t * (size_t)f->V + w * STRIDE];
    assert_close(got, want + (size_t)first * W, (size_t)n * W, tol, what);
    free(got);
    free(want);
}

/* ---- against transformers ---- */

static void check_conditions(const fixture *f, gist_type kv, double tol, const char *what) {
    static const char *const condition[] = { "gist", "pos_control", "neg_control" };
    int32_t ids[MOST], p;
    int n = expected_ids(&f->expected, ids, "gist.ids");
    expected_ids(&f->expected, &p, "gist.p");
    float *logits = floats((size_t)n * (size_t)f->V);
    const int hide[] = { p, 0, p + K };
    for (int c = 0; c < 3; c++) {
        gist_session *s = open_session(f->e, kv, 0);
        feed(s, ids, p + K, logits);
        session_hide_before(s, hide[c]);
        feed(s, ids + p + K, n - p - K, logits + (size_t)(p + K) * (size_t)f->V);
        check_logits(f, logits, 0, n, condition[c], tol, what);
        gist_session_close(s);
    }
    free(logits);
}

static gist *compress(gist_engine *e, const int32_t *ids, int p, gist_type kv) {
    gist_compress_options o = GIST_COMPRESS_OPTIONS_INIT;
    gist *g = NULL;
    gist_error err = { 0 };
    o.k = K;
    o.kv = kv;
    assert_ok(gist_compress_ids(e, ids, (size_t)p, &o, &g, &err), &err);
    return g;
}

static void check_rows(const fixture *f, const gist *g, double tol, const char *what) {
    const llama_config *c = &engine_model(f->e)->cfg;
    size_t n = (size_t)K * (size_t)(c->G * c->D), count;
    float *key = floats(n), *value = floats(n);
    for (int l = 0; l < c->L; l++) {
        float *want_key = expected(&f->expected, &count, "gist.key.%d", l);
        float *want_value = expected(&f->expected, &count, "gist.value.%d", l);
        assert_int_equal(count, n);
        assert_ok(gist_get_rows(g, l, key, value, NULL), NULL);
        assert_close(key, want_key, n, tol, what);
        assert_close(value, want_value, n, tol, what);
        free(want_key);
        free(want_value);
    }
    free(key);
    free(value);
}

static int32_t largest(const float *x, int n) {
    int best = 0;
    for (int i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

static void check_gist(const fixture *f, gist_type kv, double tol_rows, double tol, bool greedy, const char *what) {
    int32_t ids[MOST], want[MOST], p;
    int n = expected_ids(&f->expected, ids, "gist.ids"), steps = expected_ids(&f->expected, want, "gist.greedy");
    expected_ids(&f->expected, &p, "gist.p");
    int rest = n - p - K;
    gist *g = compress(f->e, ids, p, kv);
    check_rows(f, g, tol_rows, what);
    gist_session *s = open_session(f->e, GIST_TYPE_AUTO, 0);
    gist_error err = { 0 };
    assert_ok(gist_session_attach(s, g, &err), &err);
    float *logits = floats((size_t)rest * (size_t)f->V), *last = logits + (size_t)(rest - 1) * (size_t)f->V;
    feed(s, ids + p + K, rest, logits);
    check_logits(f, logits, p + K, rest, "gist", tol, what);
    for (int i = 0; greedy && i < steps; i++) {
        int32_t id = largest(last, f->V);
        if (id != want[i]) fail_msg("%s: greedy token %d is %d, expected %d", what, i, id, want[i]);
        feed(s, &id, 1, last);
    }
    gist_session_close(s);
    gist_free(g);
    free(logits);
}

static void check_model(const char *model, const char *file, gist_type weight_type, gist_type kv, double tol,
                        double tol_rows, bool greedy) {
    for (int l = 0; l < levels; l++) {
        char what[128];
        int32_t ids[MOST];
        fixture f = fixture_open(model, file, level[l], weight_type);
        snprintf(what, sizeof what, "%s %s, weights %s, kv %s, %s", model, file, gist_type_name(weight_type),
                 gist_type_name(kv), gist_kernels_name(level[l]));
        int n = expected_ids(&f.expected, ids, "full.ids");
        float *logits = floats((size_t)n * (size_t)f.V);
        gist_session *s = open_session(f.e, kv, 0);
        feed(s, ids, n, logits);
        check_logits(&f, logits, 0, n, "full", tol, what);
        gist_session_close(s);
        free(logits);
        check_conditions(&f, kv, tol, what);
        check_gist(&f, kv, tol_rows, tol, greedy, what);
        fixture_close(&f);
    }
}

static void test_f32(void **state) {
    (void)state;
    for (int m = 0; m < MODELS; m++) {
        check_model(models[m], "", GIST_TYPE_F32, GIST_TYPE_F32, TOL_LOGITS_F32, TOL_ROWS_F32, true);
        check_model(models[m], "model.gguf", GIST_TYPE_F32, GIST_TYPE_F32, TOL_LOGITS_F32, TOL_ROWS_F32, true);
    }
}

static void test_bf16(void **state) {
    (void)state;
    for (int m = 0; m < MODELS; m++) {
        check_model(models[m], "", GIST_TYPE_AUTO, GIST_TYPE_F32, TOL_LOGITS_BF16, TOL_ROWS_BF16, false);
        check_model(models[m], "", GIST_TYPE_AUTO, GIST_TYPE_BF16, TOL_LOGITS_BF16, TOL_ROWS_BF16, false);
    }
}

/* ---- GGUF and safetensors of the same weights ---- */

static void same_tokens(gist_engine *a, gist_engine *b, const char *text, unsigned flags) {
    int32_t x[MOST], y[MOST];
    size_t n = 0, m = 0;
    gist_error err = { 0 };
    assert_ok(gist_tokenize(a, text, strlen(text), flags, x, MOST, &n, &err), &err);
    assert_ok(gist_tokenize(b, text, strlen(text), flags, y, MOST, &m, &err), &err);
    assert_int_equal(n, m);
    assert_true(n > 2);
    assert_memory_equal(x, y, n * sizeof *x);
}

static void test_gguf(void **state) {
    (void)state;
    static const gist_type types[] = { GIST_TYPE_AUTO, GIST_TYPE_F32, GIST_TYPE_BF16 };
    for (int m = 0; m < MODELS; m++)
        for (int i = 0; i < 3 * levels; i++) {
            gist_kernels k = level[i / 3];
            fixture f = fixture_open(models[m], "", k, types[i % 3]);
            gist_engine *e = engine_of(models[m], "model.gguf", k, types[i % 3], 1);
            gist_engine_info a, b;
            gist_engine_get_info(f.e, &a);
            gist_engine_get_info(e, &b);
            assert_int_equal(a.gist_token, b.gist_token);
            assert_int_equal(a.parameters, b.parameters);
            assert_int_equal(a.weights, b.weights);
            assert_string_equal(a.family, b.family);
            assert_string_equal(a.family, llama_families[m].name);
            int32_t ids[MOST];
            int n = expected_ids(&f.expected, ids, "full.ids");
            float *x = floats((size_t)n * (size_t)f.V), *y = floats((size_t)n * (size_t)f.V);
            gist_session *s = open_session(f.e, GIST_TYPE_AUTO, 0), *t = open_session(e, GIST_TYPE_AUTO, 0);
            feed(s, ids, n, x);
            feed(t, ids, n, y);
            assert_same_floats(x, y, (size_t)n * (size_t)f.V, models[m]);
            same_tokens(f.e, e, "the hat is on the mat", GIST_TOKENIZE_BOS);
            same_tokens(f.e, e, "tell the old man, in latin", 0);
            same_tokens(f.e, e, "the</s><GIST> tea<|endoftext|>", GIST_TOKENIZE_SPECIAL);
            gist_session_close(s);
            gist_session_close(t);
            free(x);
            free(y);
            gist_engine_close(e);
            fixture_close(&f);
        }
}

/* What our own writer makes of the directory, too. */
static void test_own_gguf(void **state) {
    (void)state;
    for (int m = 0; m < MODELS; m++) {
        char dir[TEST_PATH], file[TEST_PATH], name[64];
        convert_options o = { .threads = 1 };
        convert_report report;
        gist_engine *e = NULL;
        gist_error err = { 0 };
        int32_t ids[MOST];
        snprintf(name, sizeof name, "%s.gguf", models[m]);
        assert_ok(convert_model(path_of(dir, models[m], ""), test_tmp(file, name), &o, &report, &err), &err);
        assert_ok(gist_engine_open(file, NULL, &e, &err), &err);
        fixture f = fixture_open(models[m], "", GIST_KERNELS_AUTO, GIST_TYPE_AUTO);
        int n = expected_ids(&f.expected, ids, "full.ids");
        float *x = floats((size_t)n * (size_t)f.V), *y = floats((size_t)n * (size_t)f.V);
        gist_session *s = open_session(f.e, GIST_TYPE_AUTO, 0), *t = open_session(e, GIST_TYPE_AUTO, 0);
        feed(s, ids, n, x);
        feed(t, ids, n, y);
        assert_same_floats(x, y, (size_t)n * (size_t)f.V, models[m]);
        assert_int_equal(engine_model(e)->cfg.window, engine_model(f.e)->cfg.window);
        gist_session_close(s);
        gist_session_close(t);
        free(x);
        free(y);
        gist_engine_close(e);
        fixture_close(&f);
    }
}

/* Logits of 20 tokens; the caller frees. */
static float *logits_of(const char *path, gist_type weight_type, gist_type *stored) {
    gist_engine_options o = GIST_ENGINE_OPTIONS_INIT;
    gist_engine *e = NULL;
    gist_engine_info info;
    gist_error err = { 0 };
    int32_t ids[20];
    o.weights = weight_type;
    o.threads = 1;
    assert_ok(gist_engine_open(path, &o, &e, &err), &err);
    gist_engine_get_info(e, &info);
    *stored = info.weights;
    tiny_ids(ids, 20, 8);
    float *x = floats(20 * (size_t)info.vocab);
    gist_session *s = open_session(e, GIST_TYPE_F32, 0);
    feed(s, ids, 20, x);
    gist_session_close(s);
    gist_engine_close(e);
    return x;
}

/* Matrices stay in blocks, and q and k keep their order: int8 activations are all that is lost.  A wrong order of rows
 * would leave nothing of the logits. */
static void test_blocks(void **state) {
    (void)state;
    static const gist_type types[] = { GIST_TYPE_Q8_0, GIST_TYPE_Q4_0, GIST_TYPE_Q4_K };
    for (int family = 0; family < FAMILY_T5; family++) /* test_t5.c has the last */
        for (int i = 0; i < 3; i++) {
            tiny_model t = { 2, 256, 256, 4, 2, 64, 256, DT_F32, family % 2, true, 9, (llama_family)family, false };
            char dir[TEST_PATH], file[TEST_PATH], what[64];
            convert_options o = { .threads = 1, .type = types[i], .force = true };
            convert_report report;
            gist_error err = { 0 };
            gist_type stored;
            size_t n = 20 * (size_t)tiny_vocab(&t);
            tiny_save(&t, "blocks", dir);
            assert_ok(convert_model(dir, test_tmp(file, "blocks.gguf"), &o, &report, &err), &err);
            snprintf(what, sizeof what, "%s, %s", llama_families[family].name, gist_type_name(types[i]));
            float *source = logits_of(dir, GIST_TYPE_AUTO, &stored), *wide = logits_of(file, GIST_TYPE_F32, &stored);
            float *got = logits_of(file, GIST_TYPE_AUTO, &stored);
            assert_int_equal(stored, types[i]);
            assert_close(got, wide, n, TOL_LOGITS_INT8, what);
            assert_close(wide, source, n, types[i] == GIST_TYPE_Q8_0 ? TOL_LOGITS_Q8_0 : TOL_LOGITS_Q4, what);
            free(source);
            free(wide);
            free(got);
        }
}

/* ---- the window ---- */

/* Behind a gist, in one session under the gist mask, token by token, and in a fork: the same bits, past the window. */
static void check_window(gist_engine *e, gist_type kv) {
    enum { P = 9, REST = 20 };
    int32_t ids[P + K + REST];
    size_t V = (size_t)engine_model(e)->vocab, n = REST * V;
    float *want = floats(n), *got = floats(n);
    uint64_t seed = 5;
    gist_error err = { 0 };
    for (int i = 0; i < P + K + REST; i++)
        ids[i] = i >= P && i < P + K ? e->gist_token : 4 + (int32_t)(test_rand(&seed) % 70);
    gist *g = compress(e, ids, P, kv);
    gist_session *s = open_session(e, GIST_TYPE_AUTO, 0), *fork = NULL;
    assert_ok(gist_session_attach(s, g, &err), &err);
    feed(s, ids + P + K, REST, want);
    gist_session_reset(s);
    assert_ok(gist_session_attach(s, g, &err), &err);
    for (int i = 0; i < REST; i++) {
        if (i == 2 || i == 11) { /* with gist rows in sight, and without */
            assert_ok(gist_session_fork(s, &fork, &err), &err);
            feed(fork, ids + P + K + i, REST - i, got + (size_t)i * V);
            assert_same_floats(got + (size_t)i * V, want + (size_t)i * V, (size_t)(REST - i) * V, "in a fork");
            gist_session_close(fork);
        }
        feed(s, ids + P + K + i, 1, got + (size_t)i * V);
    }
    assert_same_floats(got, want, n, "token by token");
    gist_session_close(s);
    s = open_session(e, kv, 0);
    feed(s, ids, P + K, NULL);
    session_hide_before(s, P);
    feed(s, ids + P + K, REST, got);
    assert_same_floats(got, want, n, "in one session");
    ids[P + K] ^= 1; /* out of every later row's sight once the window has passed twice, a layer each */
    gist_session_reset(s);
    feed(s, ids, P + K, NULL);
    session_hide_before(s, P);
    feed(s, ids + P + K, REST, got);
    size_t passed = (size_t)(2 * (engine_model(e)->cfg.window - 1) + 1) * V;
    assert_same_floats(got + passed, want + passed, n - passed, "behind the window");
    assert_true(memcmp(got + V, want + V, V * sizeof *got) != 0);
    gist_session_close(s);
    gist_free(g);
    free(want);
    free(got);
}

static void test_window(void **state) {
    (void)state;
    for (int l = 0; l < levels; l++) {
        gist_engine *e = engine_of("mistral", "", level[l], GIST_TYPE_AUTO, 1 + l % 2);
        assert_int_equal(engine_model(e)->cfg.window, 6);
        check_window(e, GIST_TYPE_F32);
        check_window(e, GIST_TYPE_BF16);
        gist_engine_close(e);
    }
}

/* ---- training ---- */

typedef struct trained {
    pool *pool;
    op_ctx ctx;
    weights w;
    train_model *tm;
} trained;

static void train_open(trained *s, const char *model, gist_kernels k, int threads, bool recompute) {
    char path[TEST_PATH];
    llama_config cfg;
    gist_error err = { 0 };
    train_model_options o = { .type = DT_F32, .recompute = recompute, .max_rows = MOST, .lm = 1 };
    *s = (trained){ 0 };
    path_of(path, model, "");
    assert_ok(pool_create(NULL, threads, &s->pool, &err), &err);
    assert_ok(op_init(&s->ctx, k, s->pool, &err), &err);
    assert_ok(llama_config_read(&cfg, NULL, path, &err), &err);
    assert_ok(weights_open(&s->w, NULL, path, &err), &err);
    assert_ok(train_model_create(&s->tm, &cfg, &s->w, false, 0, &o, &s->ctx, NULL, &err), &err);
}

static void train_close(trained *s) {
    train_model_free(s->tm);
    weights_close(&s->w);
    pool_free(s->pool);
}

/* One example of n tokens, its rest under condition gist or pos_control, at positions from `at`. */
static gist_status step(trained *s, const int32_t *ids, const int32_t *label, int n, int p, bool hide, int at,
                        train_loss *loss, gist_error *err) {
    int32_t pos[MOST];
    op_row rows[MOST];
    float weight[MOST];
    int teacher[MOST], labels = 0;
    uint8_t condition[MOST] = { 0 }, is_gist[MOST] = { 0 };
    for (int i = 0; i < n; i++) labels += label[i] >= 0;
    for (int i = 0; i < n; i++) {
        pos[i] = at + i;
        rows[i] = (op_row){ .pos = at + i, .slot = i, .mem = -1, .lo = hide && i >= p + K ? p : 0, .hi = i + 1 };
        weight[i] = label[i] >= 0 ? 1.0f / (float)labels : 0;
        teacher[i] = -1;
    }
    train_batch b = { .T = n, .ids = (int32_t *)(uintptr_t)ids, .pos = pos, .label = (int32_t *)(uintptr_t)label,
                      .rows = rows, .weight = weight, .teacher = teacher, .condition = condition,
                      .is_gist = is_gist, .label_rows = labels };
    train_model_zero_grad(s->tm);
    return train_model_step(s->tm, &b, 1, loss, err);
}

static void check_gradients(trained *s, const st_file *st, bool hide, const char *what) {
    int32_t ids[MOST], label[MOST], p;
    const char *condition = hide ? "gist" : "pos_control";
    train_loss loss;
    gist_error err = { 0 };
    size_t count;
    int n = expected_ids(st, ids, "ids");
    expected_ids(st, label, "targets");
    expected_ids(st, &p, "p");
    assert_ok(step(s, ids, label, n, p, hide, 0, &loss, &err), &err);
    float *want = expected(st, &count, "%s.loss", condition);
    if (fabs(loss.total - (double)want[0]) > 1e-6 * (double)want[0])
        fail_msg("%s: loss %.9g, expected %.9g", what, loss.total, (double)want[0]);
    free(want);
    for (int i = 0; i < train_model_tensors(s->tm); i++) {
        const train_tensor *t = train_model_tensor(s->tm, i);
        want = expected(st, &count, "%s.grad.%s", condition, t->name);
        assert_int_equal(count, t->count);
        assert_close(train_model_g(s->tm) + t->at, want, count, TOL_GRADIENT, t->name);
        free(want);
    }
}

static void test_gradients(void **state) {
    (void)state;
    static const char *const trains[] = { "grad-qwen2", "grad-qwen3" };
    for (int m = 0; m < 2; m++)
        for (int l = 0; l < levels; l++)
            for (int recompute = 0; recompute < 2; recompute++) {
                trained s;
                st_file st;
                open_expected(&st, trains[m]);
                train_open(&s, trains[m], level[l], 2, recompute);
                check_gradients(&s, &st, true, trains[m]);
                check_gradients(&s, &st, false, trains[m]);
                assert_int_equal(train_model_tensors(s.tm), (int)weights_count(&s.w));
                train_close(&s);
                st_close(&st);
            }
}

/* 1 thread = 2, kept activations = computed again; biases and norms of heads move with the rest. */
static void test_training(void **state) {
    (void)state;
    for (int m = 2; m < MODELS; m++) {
        trained s[2];
        int32_t ids[20];
        train_loss loss[2];
        gist_error err = { 0 };
        optimiser o = { 1e-3f, 0.9f, 0.999f, 1e-8f, 0, 1, 0 };
        uint64_t seed = 3;
        for (int i = 0; i < 20; i++) ids[i] = 4 + (int32_t)(test_rand(&seed) % 70);
        for (int i = 0; i < 2; i++) {
            train_open(&s[i], models[m], level[levels - 1], i + 1, i);
            for (int t = 1; t <= 3; t++) {
                assert_ok(step(&s[i], ids, ids + 1, 19, 5, true, 0, &loss[i], &err), &err);
                train_model_update(s[i].tm, &o, t);
            }
        }
        assert_memory_equal(train_model_w(s[0].tm), train_model_w(s[1].tm),
                            train_model_count(s[0].tm) * sizeof(float));
        int moved = 0;
        for (int i = 0; i < train_model_tensors(s[0].tm); i++) {
            const train_tensor *t = train_model_tensor(s[0].tm, i);
            const tensor_view *was = weights_find(&s[0].w, t->name);
            float *x = floats(t->count);
            dt_to_f32(x, was->data, was->type, t->count);
            moved += memcmp(x, train_model_w(s[0].tm) + t->at, t->count * sizeof *x) != 0;
            free(x);
        }
        assert_int_equal(moved, train_model_tensors(s[0].tm));
        train_close(&s[0]);
        train_close(&s[1]);
    }
}

static void test_window_training(void **state) {
    (void)state;
    trained s;
    int32_t ids[8] = { 4, 5, 6, 7, 8, 9, 10, 11 };
    train_loss loss;
    gist_error err = { 0 };
    train_open(&s, "mistral", GIST_KERNELS_AUTO, 1, false);
    assert_ok(step(&s, ids, ids + 1, 6, 2, true, 0, &loss, &err), &err);
    assert_fails(step(&s, ids, ids + 1, 6, 2, true, 1, &loss, &err), &err, GIST_ERR_UNSUPPORTED,
                 "row 5 is at position 6: training beyond the model's sliding window of 6");
    train_close(&s);
}

int main(void) {
    levels = tiny_levels(level);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f32),       cmocka_unit_test(test_bf16),     cmocka_unit_test(test_gguf),
        cmocka_unit_test(test_own_gguf),  cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_window),    cmocka_unit_test(test_gradients), cmocka_unit_test(test_training),
        cmocka_unit_test(test_window_training),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
