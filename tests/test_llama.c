/* test_llama.c - the four tiny checkpoints of tests/data/llama against transformers (README.md there names versions and
 * seeds), on every kernel level of this CPU.
 *
 *   logits     plain causal text, and the three conditions gist, pos_control, neg_control in one session
 *   gist       keys and values that gist_compress keeps; logits and greedy text behind them
 *   bf16       the same within the wider bound: bf16 weights and kernels, bf16 caches
 *   text       the ids that the tokenizers gave
 *   load       what is wrong with a checkpoint is named: missing, unknown, misshapen tensors; tied and untied heads
 *
 * Tolerances and their reasons: tolerances.h.
 */
#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/engine_int.h"
#include "tiny.h"
#include "tolerances.h"

static gist_kernels level[TINY_LEVELS];
static int levels;

static const char *const models[] = { "mha-f32", "gqa-f32", "gqa-bf16", "mha-f16" };
enum { MODELS = sizeof models / sizeof *models, MOST = 256, GREEDY = 12 };

/* ---- fixtures ---- */

typedef struct fixture {
    gist_engine *e;
    st_file expected;
    int V;
} fixture;

static fixture fixture_open(const char *model, gist_kernels k, gist_type weight_type, const char *template_name) {
    char dir[TEST_PATH], name[64];
    fixture f = { 0 };
    gist_engine_options o = GIST_ENGINE_OPTIONS_INIT;
    gist_error err = { 0 };
    o.threads = 2;
    o.kernels = k;
    o.weights = weight_type;
    o.template_name = template_name;
    snprintf(name, sizeof name, "llama/%s", model);
    assert_ok(gist_engine_open(test_fixture(dir, name), &o, &f.e, &err), &err);
    snprintf(name, sizeof name, "llama/%s/expected.safetensors", model);
    assert_ok(st_open(&f.expected, mem_default(), test_fixture(dir, name), &err), &err);
    f.V = engine_model(f.e)->vocab;
    return f;
}

static void fixture_close(fixture *f) {
    st_close(&f->expected);
    gist_engine_close(f->e);
}

/* Values of the expected tensor "a.b"; free() them. */
static float *expected(const fixture *f, size_t *n, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static float *expected(const fixture *f, size_t *n, const char *fmt, ...) {
    char name[96];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    const tensor_view *t = st_find(&f->expected, name);
    if (!t) fail_msg("expected.safetensors has no %s", name);
    assert_int_equal(t->type, DT_F32);
    *n = tensor_count(t);
    float *x = malloc((*n + 1) * sizeof *x);
    assert_non_null(x);
    memcpy(x, t->data, *n * sizeof *x);
    return x;
}

static int expected_ids(const fixture *f, int32_t *ids, const char *prefix, const char *what) {
    size_t n;
    float *x = expected(f, &n, "%s.%s", prefix, what);
    assert_true(n <= MOST);
    for (size_t i = 0; i < n; i++) ids[i] = (int32_t)x[i];
    free(x);
    return (int)n;
}

static const char *text_of(const fixture *f, const char *prefix, const char *what) {
    char key[96];
    snprintf(key, sizeof key, "%s.%s", prefix, what);
    const char *text = st_meta_get(&f->expected, key);
    if (!text) fail_msg("expected.safetensors has no metadata %s", key);
    return text;
}

/* Every tenth column of logits [n,V], as the fixtures keep them. */
static float *tenth(const float *logits, int n, int V) {
    int W = (V + 9) / 10;
    float *x = floats((size_t)n * (size_t)W);
    for (int t = 0; t < n; t++)
        for (int w = 0; w < W; w++) x[t * W + w] = logits[(size_t)t * (size_t)V + (size_t)w * 10];
    return x;
}

static void check_tenth(const fixture *f, const float *logits, int n, const char *prefix, double tol,
                        const char *what) {
    size_t count;
    float *want = expected(f, &count, "%s", prefix), *got = tenth(logits, n, f->V);
    assert_int_equal(count, (size_t)n * (size_t)((f->V + 9) / 10));
    assert_close(got, want, count, tol, what);
    free(want);
    free(got);
}

static int32_t largest(const float *x, int n) {
    int best = 0;
    for (int i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

/* The greedy ids of the fixture, from the session as it stands: last are the logits of its last token. */
static void check_greedy(const fixture *f, gist_session *s, const float *last, const char *prefix, const char *what) {
    int32_t want[MOST], id = largest(last, f->V);
    float *logits = floats((size_t)f->V);
    int n = expected_ids(f, want, prefix, "greedy");
    assert_int_equal(n, GREEDY);
    for (int i = 0; i < n; i++) {
        if (id != want[i]) fail_msg("%s: greedy token %d is %d, expected %d", what, i, id, want[i]);
        feed(s, &id, 1, logits);
        id = largest(logits, f->V);
    }
    free(logits);
}

/* ---- plain causal text ---- */

static void check_full(const fixture *f, gist_type kv, double tol, bool greedy, const char *what) {
    int32_t ids[MOST];
    for (int t = 0; t < 2; t++) {
        char prefix[32], name[64];
        size_t count;
        snprintf(prefix, sizeof prefix, "full.%d", t);
        int n = expected_ids(f, ids, prefix, "ids");
        float *logits = floats((size_t)n * (size_t)f->V);
        gist_session *s = open_session(f->e, kv, 0);
        feed(s, ids, n, logits);
        if (t == 0) {
            float *want = expected(f, &count, "full.0.logits");
            assert_int_equal(count, (size_t)n * (size_t)f->V);
            assert_close(logits, want, count, tol, what);
            free(want);
            if (greedy) check_greedy(f, s, logits + (size_t)(n - 1) * (size_t)f->V, prefix, what);
        } else {
            snprintf(name, sizeof name, "%s.logits10", prefix);
            check_tenth(f, logits, n, name, tol, what);
        }
        gist_session_close(s);
        free(logits);
    }
}

/* ---- the three conditions ---- */

static void check_conditions(const fixture *f, gist_type kv, int k, double tol, bool greedy, const char *model) {
    static const char *const condition[] = { "gist", "pos_control", "neg_control" };
    int32_t ids[MOST];
    char prefix[32], name[64], what[256];
    size_t one;
    snprintf(prefix, sizeof prefix, "k%d", k);
    int n = expected_ids(f, ids, prefix, "ids");
    float *pf = expected(f, &one, "k%d.p", k), *logits = floats((size_t)n * (size_t)f->V);
    int p = (int)pf[0];
    free(pf);
    for (int i = 0; i < k; i++) assert_int_equal(ids[p + i], f->e->gist_token);
    const int hide[] = { p, 0, p + k };
    for (int c = 0; c < 3; c++) {
        gist_session *s = open_session(f->e, kv, 0);
        feed(s, ids, p + k, logits);
        session_hide_before(s, hide[c]);
        feed(s, ids + p + k, n - p - k, logits + (size_t)(p + k) * (size_t)f->V);
        snprintf(name, sizeof name, "%s.%s.logits10", prefix, condition[c]);
        snprintf(what, sizeof what, "%s, %s", model, name);
        check_tenth(f, logits, n, name, tol, what);
        snprintf(name, sizeof name, "%s.gist", prefix);
        if (greedy && c == 0) check_greedy(f, s, logits + (size_t)(n - 1) * (size_t)f->V, name, what);
        gist_session_close(s);
    }
    free(logits);
}

/* Keys and values of the gist that the engine makes from the text, and what follows it. */
static void check_gist(const fixture *f, gist_type kv, int k, double tol_rows, double tol, bool greedy,
                       const char *model) {
    int32_t ids[MOST];
    char prefix[32], name[64], what[256];
    snprintf(prefix, sizeof prefix, "k%d", k);
    const char *prompt = text_of(f, prefix, "prompt");
    const llama_config *c = &engine_model(f->e)->cfg;
    int n = expected_ids(f, ids, prefix, "ids");
    gist_compress_options o = GIST_COMPRESS_OPTIONS_INIT;
    gist *g = NULL;
    gist_error err = { 0 };
    o.k = k;
    o.kv = kv;
    assert_ok(gist_compress(f->e, prompt, strlen(prompt), &o, &g, &err), &err);
    size_t row = (size_t)c->G * (size_t)c->D, count;
    float *pf = expected(f, &count, "k%d.p", k), *key = floats((size_t)k * row), *value = floats((size_t)k * row);
    int p = (int)pf[0];
    free(pf);
    assert_int_equal(g->head.first_position, p);
    for (int l = 0; l < c->L; l++) {
        for (int i = 0; i < k; i++) {
            uint8_t kr[1024], vr[1024];
            op_kv_get(&g->stores[l], i, kr, vr, c->G, c->D);
            dt_to_f32(key + (size_t)i * row, kr, g->head.type, row);
            dt_to_f32(value + (size_t)i * row, vr, g->head.type, row);
        }
        float *want_key = expected(f, &count, "k%d.key.%d", k, l);
        assert_int_equal(count, (size_t)k * row);
        float *want_value = expected(f, &count, "k%d.value.%d", k, l);
        assert_close(key, want_key, count, tol_rows, model);
        assert_close(value, want_value, count, tol_rows, model);
        free(want_key);
        free(want_value);
    }
    gist_session *s = open_session(f->e, GIST_TYPE_AUTO, 0);
    assert_ok(gist_session_attach(s, g, &err), &err);
    assert_int_equal(gist_session_position(s), p + k);
    float *logits = floats((size_t)n * (size_t)f->V);
    feed(s, ids + p + k, n - p - k, logits + (size_t)(p + k) * (size_t)f->V);
    snprintf(name, sizeof name, "%s.gist.logits10", prefix);
    snprintf(what, sizeof what, "%s, %s behind the gist", model, name);
    int W = (f->V + 9) / 10;
    float *got = tenth(logits + (size_t)(p + k) * (size_t)f->V, n - p - k, f->V),
          *want = expected(f, &count, "%s", name);
    assert_close(got, want + (size_t)(p + k) * (size_t)W, (size_t)(n - p - k) * (size_t)W, tol, what);
    snprintf(name, sizeof name, "%s.gist", prefix);
    if (greedy) check_greedy(f, s, logits + (size_t)(n - 1) * (size_t)f->V, name, what);
    free(got);
    free(want);
    free(logits);
    free(key);
    free(value);
    gist_session_close(s);
    gist_free(g);
}

static void check_model(const char *model, gist_type weight_type, gist_type kv, double tol, double tol_rows,
                        bool greedy) {
    for (int l = 0; l < levels; l++) {
        char what[128];
        fixture f = fixture_open(model, level[l], weight_type, "raw");
        snprintf(what, sizeof what, "%s, weights %s, kv %s, %s", model, gist_type_name(weight_type), gist_type_name(kv),
                 gist_kernels_name(level[l]));
        check_full(&f, kv, tol, greedy, what);
        for (int k = 1; k <= 3; k += 2) {
            check_conditions(&f, kv, k, tol, greedy, what);
            check_gist(&f, kv, k, tol_rows, tol, greedy, what);
        }
        fixture_close(&f);
    }
}

static void test_f32(void **state) {
    (void)state;
    check_model("mha-f32", GIST_TYPE_AUTO, GIST_TYPE_F32, TOL_LOGITS_F32, TOL_ROWS_F32, true);
    check_model("gqa-f32", GIST_TYPE_AUTO, GIST_TYPE_F32, TOL_LOGITS_F32, TOL_ROWS_F32, true);
    check_model("mha-f16", GIST_TYPE_AUTO, GIST_TYPE_F32, TOL_LOGITS_F32, TOL_ROWS_F32, true);
    check_model("mha-f16", GIST_TYPE_F32, GIST_TYPE_F32, TOL_LOGITS_F32, TOL_ROWS_F32, true);
    check_model("gqa-bf16", GIST_TYPE_F32, GIST_TYPE_F32, TOL_LOGITS_F32, TOL_ROWS_F32, true);
}

static void test_bf16(void **state) {
    (void)state;
    for (int m = 0; m < MODELS; m++) {
        gist_type as = m == 2 ? GIST_TYPE_AUTO : GIST_TYPE_BF16;
        double tol = m == 2 ? TOL_LOGITS_BF16 : TOL_LOGITS_ROUNDED;
        check_model(models[m], as, GIST_TYPE_F32, tol, TOL_ROWS_BF16, false);
        check_model(models[m], as, GIST_TYPE_BF16, tol, TOL_ROWS_BF16, false);
        check_model(models[m], as, GIST_TYPE_F16, tol, TOL_ROWS_BF16, false);
    }
}

/* ---- text ---- */

static void same_ids(const fixture *f, const char *text, unsigned flags, const int32_t *want, int n) {
    int32_t ids[MOST];
    size_t got = 0;
    gist_error err = { 0 };
    assert_ok(gist_tokenize(f->e, text, strlen(text), flags, ids, MOST, &got, &err), &err);
    assert_int_equal(got, n);
    for (int i = 0; i < n; i++) assert_int_equal(ids[i], want[i]);
}

static void test_text(void **state) {
    (void)state;
    for (int m = 0; m < MODELS; m++) {
        fixture f = fixture_open(models[m], GIST_KERNELS_AUTO, GIST_TYPE_AUTO, "raw");
        unsigned bos = m == 2 ? 0 : GIST_TOKENIZE_BOS; /* gqa-bf16 text begins without */
        int32_t ids[MOST];
        char prefix[32];
        size_t one;
        for (int t = 0; t < 2; t++) {
            snprintf(prefix, sizeof prefix, "full.%d", t);
            int n = expected_ids(&f, ids, prefix, "ids");
            same_ids(&f, text_of(&f, prefix, "text"), bos, ids, n);
        }
        for (int k = 1; k <= 3; k += 2) {
            snprintf(prefix, sizeof prefix, "k%d", k);
            int n = expected_ids(&f, ids, prefix, "ids");
            float *pf = expected(&f, &one, "k%d.p", k);
            int p = (int)pf[0];
            free(pf);
            same_ids(&f, text_of(&f, prefix, "prompt"), bos, ids, p);
            same_ids(&f, text_of(&f, prefix, "rest"), 0, ids + p + k, n - p - k);
        }
        fixture_close(&f);
    }
}

/* gist_generate, from text to text: the greedy ids of the fixture, by the engine's own template "raw". */
static void test_generate(void **state) {
    (void)state;
    for (int m = 0; m < MODELS; m++) {
        fixture f = fixture_open(models[m], GIST_KERNELS_AUTO, GIST_TYPE_F32, "raw");
        gist_error err = { 0 };
        const char *prompt = text_of(&f, "k1", "prompt"), *rest = text_of(&f, "k1", "rest");
        int32_t want[MOST];
        int n = expected_ids(&f, want, "k1.gist", "greedy");
        gist_compress_options o = GIST_COMPRESS_OPTIONS_INIT;
        gist_generate_options go = GIST_GENERATE_OPTIONS_INIT;
        gist *g = NULL;
        gist_answer a;
        o.kv = GIST_TYPE_F32;
        go.max_tokens = n;
        assert_ok(gist_compress(f.e, prompt, strlen(prompt), &o, &g, &err), &err);
        gist_session *s = open_session(f.e, GIST_TYPE_AUTO, 0);
        assert_ok(gist_session_attach(s, g, &err), &err);
        assert_ok(gist_generate(s, rest, strlen(rest), &go, &a, &err), &err);
        assert_int_equal(a.n, n);
        assert_string_equal(a.finish, "length");
        for (int i = 0; i < n; i++) assert_int_equal(a.ids[i], want[i]);
        gist_answer_free(s, &a);
        gist_session_close(s);
        gist_free(g);
        fixture_close(&f);
    }
}

/* ---- facts and rotations ---- */

static void test_facts(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int V, C, F, L, H, G, D, gist;
        bool tied, added;
        gist_type weights;
    } want[] = {
        { "mha-f32", 296, 12, 32, 2, 3, 3, 4, 295, false, false, GIST_TYPE_F32 },
        { "gqa-f32", 273, 16, 24, 3, 4, 2, 8, 273, true, true, GIST_TYPE_F32 },
        { "gqa-bf16", 263, 20, 28, 2, 4, 2, 16, 263, false, true, GIST_TYPE_BF16 },
        { "mha-f16", 80, 20, 24, 2, 2, 2, 10, 3, false, false, GIST_TYPE_F16 },
    };
    for (int m = 0; m < MODELS; m++) {
        fixture f = fixture_open(want[m].name, GIST_KERNELS_AUTO, GIST_TYPE_AUTO, NULL);
        gist_engine_info i;
        gist_engine_get_info(f.e, &i);
        uint64_t C = (uint64_t)want[m].C, q = (uint64_t)(want[m].H * want[m].D), k = (uint64_t)(want[m].G * want[m].D);
        uint64_t layer = 2 * C + 2 * q * C + 2 * k * C + 3 * C * (uint64_t)want[m].F;
        uint64_t all = (uint64_t)want[m].V * C * (want[m].tied ? 1 : 2) + C + layer * (uint64_t)want[m].L;
        assert_int_equal(i.parameters, all);
        assert_int_equal(i.vocab, want[m].V + want[m].added);
        assert_int_equal(i.gist_token, want[m].gist);
        assert_int_equal(i.gist_token_added, want[m].added);
        assert_int_equal(i.tied_head, want[m].tied);
        assert_int_equal(i.weights, want[m].weights);
        assert_int_equal(i.layers, want[m].L);
        assert_int_equal(i.width, want[m].C);
        assert_int_equal(i.ffn, want[m].F);
        assert_int_equal(i.heads, want[m].H);
        assert_int_equal(i.kv_heads, want[m].G);
        assert_int_equal(i.head_dim, want[m].D);
        assert_int_equal(i.threads, 2);
        assert_string_equal(i.template_name, "paper");
        assert_int_equal(strlen(i.fingerprint), 32);
        assert_string_not_equal(i.fingerprint, i.tokenizer_fingerprint);
        fixture_close(&f);
    }
}

/* Turning a key by p and by -p gives it back; turning by p = rotating with the table at p. */
static void test_rotate(void **state) {
    (void)state;
    fixture f = fixture_open("gqa-f32", GIST_KERNELS_SCALAR, GIST_TYPE_AUTO, NULL);
    const llama_model *m = engine_model(f.e);
    size_t n = (size_t)m->cfg.G * (size_t)m->cfg.D;
    float k[64], turned[64], table[64], by_table[64];
    assert_true(n <= 64);
    test_fill(k, n, 1, 4);
    for (int32_t p = 0; p < 250; p += 31) {
        memcpy(turned, k, sizeof k);
        llama_rotate_key(m, turned, p);
        memcpy(by_table, k, sizeof k);
        op_rope_table(&f.e->ctx, table, &p, m->freq, 1, m->cfg.D);
        op_rope_fwd(&f.e->ctx, by_table, table, 1, m->cfg.G, m->cfg.D);
        assert_close(turned, by_table, n, TOL_ROTATE, "turned by the table");
        if (p > 0) assert_true(test_max_rel(turned, k, n, NULL) > 0.1);
        llama_rotate_key(m, turned, -p);
        assert_close(turned, k, n, TOL_ROTATE, "turned there and back");
    }
    fixture_close(&f);
}

/* ---- loading ---- */

/* A copy of a model with one tensor renamed, dropped (to NULL) or reshaped (rows taken away). */
static void save_changed(const char *dir, const char *from, const char *name, const char *new_name, int rows) {
    char path[TEST_PATH + 32];
    gist_error err = { 0 };
    st_file st;
    snprintf(path, sizeof path, "%s/model.safetensors", from);
    assert_ok(st_open(&st, mem_default(), path, &err), &err);
    tensor_view *t = malloc(st.count * sizeof *t);
    size_t n = 0;
    for (size_t i = 0; i < st.count; i++) {
        t[n] = st.tensors[i];
        if (strcmp(t[n].name, name) == 0) {
            if (!new_name) continue;
            t[n].name = new_name;
            t[n].bytes -= (size_t)rows * t[n].bytes / (size_t)t[n].shape[0];
            t[n].shape[0] -= rows;
        }
        n++;
    }
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    assert_ok(st_save(mem_default(), path, t, n, NULL, 0, &err), &err);
    free(t);
    st_close(&st);
}

static void refuses(const char *dir, gist_status status, const char *text) {
    gist_engine *e = (gist_engine *)(uintptr_t)1;
    gist_error err = { 0 };
    assert_fails(gist_engine_open(dir, NULL, &e, &err), &err, status, text);
    assert_ptr_equal(e, (void *)1);
}

static void test_wrong_tensors(void **state) {
    (void)state;
    tiny_model t = TINY_MODEL;
    char good[TEST_PATH], bad[TEST_PATH];
    tiny_save(&t, "good", good);
    tiny_save(&t, "bad", bad);
    static const char *const names[] = { "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight",
                                         "model.layers.1.self_attn.k_proj.weight",
                                         "model.layers.0.input_layernorm.weight" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char said[128];
        snprintf(said, sizeof said, "tensor %s is missing", names[i]);
        save_changed(bad, good, names[i], NULL, 0);
        refuses(bad, GIST_ERR_FORMAT, said);
        save_changed(bad, good, names[i], names[i], 1);
        refuses(bad, GIST_ERR_FORMAT, names[i]);
    }
    save_changed(bad, good, "model.layers.1.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight", 1);
    refuses(bad, GIST_ERR_FORMAT, "model.layers.1.mlp.up_proj.weight is [27,20], this model needs [28,20]");
    static const char *const unknown[] = { "model.layers.1.mlp.extra.weight",
                                           "model.layers.2.mlp.up_proj.weight",
                                           "model.layers.01.mlp.up_proj.weight",
                                           "model.layers.99999999999999999999.mlp.up_proj.weight",
                                           "model.layers.-1.mlp.up_proj.weight",
                                           "model.layers.1.mlp.up_proj.bias",
                                           "x" };
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        save_changed(bad, good, "model.layers.1.mlp.up_proj.weight", unknown[i], 0);
        refuses(bad, GIST_ERR_UNSUPPORTED, unknown[i]);
    }
    save_changed(bad, good, "", NULL, 0); /* nothing changed: it opens */
    gist_engine *e = NULL;
    gist_error err = { 0 };
    assert_ok(gist_engine_open(bad, NULL, &e, &err), &err);
    gist_engine_close(e);
}

/* A tied head is the embedding, also when the file has another matrix under the head's name. */
static void test_tied_head(void **state) {
    (void)state;
    tiny_model t = TINY_MODEL;
    char dir[TEST_PATH], tied_dir[TEST_PATH];
    tiny_save(&t, "both", dir);
    t.tied = true;
    tiny_save_config(&t, dir, NULL); /* says tied, has lm_head.weight */
    tiny_save(&t, "tied", tied_dir);
    gist_error err = { 0 };
    gist_engine *a = NULL, *b = NULL;
    gist_engine_options o = GIST_ENGINE_OPTIONS_INIT;
    o.threads = 1;
    assert_ok(gist_engine_open(dir, &o, &a, &err), &err);
    assert_ok(gist_engine_open(tied_dir, &o, &b, &err), &err);
    float x[64], y[64];
    for (int v = 0; v < tiny_vocab(&t); v++) {
        op_weight_get_row(&engine_model(a)->head, v, x);
        op_weight_get_row(&engine_model(b)->head, v, y);
        assert_same_floats(x, y, (size_t)t.C, "row of a tied head");
        dt_to_f32(y, (const uint8_t *)engine_model(a)->embed + (size_t)v * (size_t)t.C * 4, DT_F32, (size_t)t.C);
        assert_same_floats(x, y, (size_t)t.C, "row of a tied head and of the embedding");
    }
    gist_engine_close(a);
    gist_engine_close(b);
}

/* bf16 matrices beside wider ones widen exactly: the same bits as with --weights f32. */
static void test_mixed_types(void **state) {
    (void)state;
    tiny_model t = TINY_MODEL;
    char dir[TEST_PATH], path[TEST_PATH + 32];
    t.type = DT_BF16;
    tiny_save(&t, "mixed", dir);
    st_file st;
    gist_error err = { 0 };
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    assert_ok(st_open(&st, mem_default(), path, &err), &err);
    tensor_view *all = malloc(st.count * sizeof *all);
    float *wide = NULL;
    for (size_t i = 0; i < st.count; i++) {
        all[i] = st.tensors[i];
        if (strcmp(all[i].name, "model.layers.0.self_attn.k_proj.weight") != 0) continue;
        size_t n = tensor_count(&all[i]);
        wide = floats(n);
        dt_to_f32(wide, all[i].data, DT_BF16, n);
        all[i].type = DT_F32;
        all[i].data = wide;
        all[i].bytes = n * 4;
    }
    assert_non_null(wide);
    char mixed_path[TEST_PATH + 32], mixed[TEST_PATH];
    tiny_save(&t, "mixed2", mixed);
    snprintf(mixed_path, sizeof mixed_path, "%s/model.safetensors", mixed);
    assert_ok(st_save(mem_default(), mixed_path, all, st.count, NULL, 0, &err), &err);
    int32_t ids[20];
    float logits[2][512];
    tiny_ids(ids, 20, 3);
    for (int i = 0; i < 2; i++) {
        gist_engine_options o = GIST_ENGINE_OPTIONS_INIT;
        gist_engine *e = NULL;
        gist_session *s = NULL;
        o.weights = i ? GIST_TYPE_F32 : GIST_TYPE_AUTO;
        assert_ok(gist_engine_open(i ? dir : mixed, &o, &e, &err), &err);
        assert_ok(gist_session_open(e, NULL, &s, &err), &err);
        assert_ok(gist_session_feed(s, ids, 20, logits[i], &err), &err);
        gist_session_close(s);
        gist_engine_close(e);
    }
    assert_same_floats(logits[0], logits[1], (size_t)tiny_vocab(&t), "mixed types");
    free(wide);
    free(all);
    st_close(&st);
}

int main(void) {
    levels = tiny_levels(level);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f32),      cmocka_unit_test(test_bf16),   cmocka_unit_test(test_text),
        cmocka_unit_test(test_generate), cmocka_unit_test(test_facts),  cmocka_unit_test(test_rotate),
        cmocka_unit_test(test_wrong_tensors), cmocka_unit_test(test_tied_head), cmocka_unit_test(test_mixed_types),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
