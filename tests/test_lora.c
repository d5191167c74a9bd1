/* test_lora.c - adapters: gradients and logits against PyTorch and PEFT, what stays the base's, files, identities.
 *
 * Expected values: tests/data/lora, made by tools/make_lora_fixtures.py for the model tests/data/llama/grad-f32.
 * Tolerances: as test_train_model.c (f32 sums of some dozens of terms on both sides).
 */
#include "testing.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "engine/engine.h"
#include "tiny.h"
#include "train/train.h"

enum { MOST = 64, GIST = 23 /* id of <GIST> in grad-f32 */ };
static const double TOL_LOSS = 1e-6, TOL_GRAD = 2e-5, TOL_LOGITS = 1e-5;
static const llama_lora_config EVERYWHERE = { 3, 6, 1 | 4 | 8 | 16 | 64, false }, AT_GIST = { 2, 8, 127, true };

typedef struct lora_case {
    const char *name;
    llama_lora_config lora;
} lora_case;
static const lora_case cases[2] = { { "everywhere", { 3, 6, 1 | 4 | 8 | 16 | 64, false } },
                                    { "gist", { 2, 8, 127, true } } };

/* ---- a model being trained, with a fixture's adapter ---- */

typedef struct setup {
    pool *pool;
    op_ctx ctx;
    llama_config cfg;
    weights w;
    st_file adapter, expected;
    train_model *tm;
    train_batch b;
    int32_t ids[MOST], pos[MOST], label[MOST];
    op_row rows[MOST];
    float weight[MOST];
    int teacher[MOST];
    uint8_t condition[MOST], is_gist[MOST];
    int p;
} setup;

static const tensor_view *want(const st_file *st, const char *fmt, ...) {
    char name[160];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    const tensor_view *t = st_find(st, name);
    if (!t) fail_msg("fixture has no %s", name);
    return t;
}

static float at(const tensor_view *t, size_t i) {
    float x;
    memcpy(&x, (const uint8_t *)t->data + 4 * i, 4);
    return x;
}

static const char *fixture(char out[TEST_PATH], const char *kind, const char *file) {
    char name[128];
    snprintf(name, sizeof name, "lora/%s%s%s", kind, file ? "/" : "", file ? file : "");
    return test_fixture(out, name);
}

/* The fixture's example under the gist mask. */
static void make_batch(setup *s) {
    const tensor_view *ids = want(&s->expected, "ids"), *targets = want(&s->expected, "targets");
    int n = (int)tensor_count(ids), labels = 0;
    s->p = (int)at(want(&s->expected, "p"), 0);
    s->b = (train_batch){ .T = n,
                          .ids = s->ids,
                          .pos = s->pos,
                          .label = s->label,
                          .rows = s->rows,
                          .weight = s->weight,
                          .teacher = s->teacher,
                          .condition = s->condition,
                          .is_gist = s->is_gist,
                          .cap = MOST };
    for (int t = 0; t < n; t++) {
        s->ids[t] = (int32_t)at(ids, (size_t)t);
        s->pos[t] = t;
        s->label[t] = (int32_t)at(targets, (size_t)t);
        s->is_gist[t] = s->ids[t] == GIST;
        s->rows[t] = (op_row){ .pos = t, .slot = t, .mem = -1, .lo = t < s->p + 3 ? 0 : s->p, .hi = t + 1 };
        s->teacher[t] = -1;
        labels += s->label[t] >= 0;
    }
    for (int t = 0; t < n; t++) s->weight[t] = s->label[t] >= 0 ? 1.0f / (float)labels : 0;
}

static void open_setup(setup *s, const lora_case *c, gist_kernels level, int threads, dtype type, bool recompute) {
    gist_error err = { 0 };
    char path[TEST_PATH];
    *s = (setup){ 0 };
    assert_ok(pool_create(NULL, threads, &s->pool, &err), &err);
    assert_ok(op_init(&s->ctx, level, s->pool, &err), &err);
    assert_ok(llama_config_read(&s->cfg, NULL, test_fixture(path, "llama/grad-f32"), &err), &err);
    assert_ok(weights_open(&s->w, NULL, path, &err), &err);
    assert_ok(st_open(&s->adapter, NULL, fixture(path, c->name, "adapter_model.safetensors"), &err), &err);
    assert_ok(st_open(&s->expected, NULL, fixture(path, c->name, "expected.safetensors"), &err), &err);
    train_model_options o = {
        .type = type, .recompute = recompute, .max_rows = MOST, .lm = 1, .lora = c->lora, .gist_token = GIST
    };
    assert_ok(train_model_create(&s->tm, &s->cfg, &s->w, false, 7, &o, &s->ctx, NULL, &err), &err);
    make_batch(s);
}

/* The fixture's values for the tensors that train. */
static void take_fixture(setup *s) {
    assert_int_equal(train_model_trained(s->tm), s->adapter.count);
    for (int i = 0; i < train_model_trained(s->tm); i++) {
        const train_tensor *t = train_model_tensor(s->tm, i);
        const tensor_view *v = want(&s->adapter, "%s", t->name);
        assert_int_equal(tensor_count(v), t->count);
        assert_int_equal(v->shape[0], t->shape[0]);
        memcpy(train_model_w(s->tm) + t->at, v->data, v->bytes);
    }
    train_model_repack(s->tm);
}

static void close_setup(setup *s) {
    train_model_free(s->tm);
    st_close(&s->adapter);
    st_close(&s->expected);
    weights_close(&s->w);
    pool_free(s->pool);
}

static void check_fixture(const lora_case *c, gist_kernels level, bool recompute) {
    setup s;
    train_loss loss;
    open_setup(&s, c, level, 2, DT_F32, recompute);
    take_fixture(&s);
    assert_ok(train_model_step(s.tm, &s.b, 1, &loss, NULL), NULL);
    double ref = (double)at(want(&s.expected, "loss"), 0);
    if (fabs(loss.total - ref) > TOL_LOSS * ref) fail_msg("%s: loss %.9g, expected %.9g", c->name, loss.total, ref);
    for (int i = 0; i < train_model_trained(s.tm); i++) {
        const train_tensor *t = train_model_tensor(s.tm, i);
        const tensor_view *g = want(&s.expected, "grad.%s", t->name);
        float *expected = malloc(g->bytes);
        memcpy(expected, g->data, g->bytes);
        assert_close(train_model_g(s.tm) + t->at, expected, t->count, TOL_GRAD, t->name);
        free(expected);
    }
    close_setup(&s);
}

static void test_gradients(void **state) {
    (void)state;
    gist_kernels level[TINY_LEVELS];
    int n = tiny_levels(level);
    for (int i = 0; i < 2 * 2 * n; i++) check_fixture(&cases[i % 2], level[i / 4], i / 2 % 2);
}

/* Loss after moving w[j] by +-step: its slope is the gradient. */
static void test_finite_differences(void **state) {
    (void)state;
    for (int c = 0; c < 2; c++) {
        setup s;
        train_loss loss;
        open_setup(&s, &cases[c], GIST_KERNELS_AUTO, 1, DT_F32, false);
        take_fixture(&s);
        assert_ok(train_model_step(s.tm, &s.b, 1, &loss, NULL), NULL);
        uint64_t seed = 3;
        for (int i = 0; i < train_model_trained(s.tm); i++) {
            const train_tensor *t = train_model_tensor(s.tm, i);
            float *w = train_model_w(s.tm) + t->at;
            const float *g = train_model_g(s.tm) + t->at;
            double slope = 0, dot = 0, norm = 0;
            float *kept = malloc(t->count * sizeof *kept), *d = malloc(t->count * sizeof *d);
            memcpy(kept, w, t->count * sizeof *kept);
            for (size_t j = 0; j < t->count; j++) {
                d[j] = test_randf(&seed);
                dot += (double)d[j] * (double)g[j];
                norm += (double)g[j] * (double)g[j];
            }
            for (int sign = -1; sign <= 1; sign += 2) {
                for (size_t j = 0; j < t->count; j++) w[j] = kept[j] + (float)sign * 0.005f * d[j];
                train_model_repack(s.tm);
                assert_ok(train_model_eval(s.tm, &s.b, &loss, NULL), NULL);
                slope += sign * loss.total / 0.01;
            }
            memcpy(w, kept, t->count * sizeof *kept);
            if (fabs(slope - dot) > 0.01 * sqrt(norm) + 1e-3)
                fail_msg("%s: slope %g, gradient %g", t->name, slope, dot);
            free(kept);
            free(d);
        }
        close_setup(&s);
    }
}

/* ---- inference ---- */

/* Logits [n,V] of rows wanted[i] of the setup's batch (NULL: of all T); caller frees. */
static float *some_logits_of(const setup *s, const llama_model *m, const int *wanted, int n) {
    llama_acts a = { 0 };
    arena dry, ar;
    op_ctx ctx = s->ctx;
    int T = s->b.T, cap = op_kv_round(T), gist_row[MOST], gists = 0;
    size_t one = (size_t)cap * (size_t)m->cfg.G * (size_t)m->cfg.D;
    for (int pass = 0; pass < 2; pass++) {
        arena *at_ = pass ? &ar : &dry;
        if (pass)
            arena_init(&ar, mem_alloc(NULL, dry.peak, 1), dry.peak);
        else
            arena_init(&dry, NULL, 0);
        llama_acts_take(&a, at_, &m->cfg, &ctx, T, T);
        if (m->adapter) llama_lora_take(&a.lora, at_, &m->cfg, &m->adapter->cfg, T);
    }
    float *kv = mem_alloc(NULL, 2 * one, sizeof *kv), *logits = malloc((size_t)T * (size_t)m->cfg.V * sizeof *logits);
    op_kv *stores = calloc((size_t)m->cfg.L, sizeof *stores);
    for (int l = 0; l < m->cfg.L; l++) stores[l] = (op_kv){ DT_F32, cap, kv, kv + one };
    for (int t = 0; t < T; t++)
        if (s->is_gist[t]) gist_row[gists++] = t;
    llama_batch b = { .T = T,
                      .ids = s->ids,
                      .pos = s->pos,
                      .rows = s->rows,
                      .kv = stores,
                      .stores = 1,
                      .gist = gist_row,
                      .gists = gists,
                      .wanted = wanted,
                      .n_wanted = n };
    llama_forward(m, &ctx, &a, &b);
    llama_logits(m, &ctx, &a, wanted ? n : T, logits);
    free(stores);
    mem_free(NULL, kv);
    mem_free(NULL, ar.base);
    return logits;
}

static float *logits_of(const setup *s, const llama_model *m) {
    return some_logits_of(s, m, NULL, 0);
}

/* Rows by themselves in the last block: the bits that they have among all others. */
static void check_wanted(const setup *s, const llama_model *m, const float *all, const char *what) {
    size_t V = (size_t)m->cfg.V;
    int gist_at = 0;
    while (!s->is_gist[gist_at]) gist_at++;
    const int wanted[] = { 1, gist_at, s->b.T - 1 };
    for (int n = 1; n <= 3; n++) {
        float *some = some_logits_of(s, m, wanted + 3 - n, n);
        for (int i = 0; i < n; i++)
            assert_same_floats(some + (size_t)i * V, all + (size_t)wanted[3 - n + i] * V, V, what);
        free(some);
    }
}

static void test_logits(void **state) {
    (void)state;
    gist_kernels level[TINY_LEVELS];
    int levels = tiny_levels(level);
    for (int i = 0; i < 2 * levels; i++) {
        const lora_case *c = &cases[i % 2];
        setup s;
        llama_model m;
        llama_adapter ad;
        gist_error err = { 0 };
        char path[TEST_PATH];
        open_setup(&s, c, level[i / 2], 2, DT_F32, false);
        assert_ok(llama_load(&m, &s.cfg, &s.w, GIST_TYPE_AUTO, false, &s.ctx, NULL, &err), &err);
        assert_ok(llama_adapter_open(&ad, fixture(path, c->name, NULL), &s.cfg, DT_F32, &s.ctx, NULL, &err), &err);
        assert_int_equal(ad.cfg.targets, c->lora.targets);
        assert_int_equal(ad.gist_token, GIST);
        float *plain = logits_of(&s, &m);
        llama_adapter_attach(&m, &ad);
        float *got = logits_of(&s, &m);
        const tensor_view *ref = want(&s.expected, "logits");
        float *expected = malloc(ref->bytes);
        memcpy(expected, ref->data, ref->bytes);
        assert_close(got, expected, tensor_count(ref), TOL_LOGITS, c->name);
        check_wanted(&s, &m, got, c->name);
        size_t before = (size_t)s.p * (size_t)s.cfg.V; /* rows that see no gist token */
        if (c->lora.gist_only) assert_same_floats(got, plain, before, "rows before the gist tokens");
        llama_adapter_attach(&m, NULL);
        float *again = logits_of(&s, &m);
        assert_same_floats(again, plain, tensor_count(ref), "detached");
        free(plain);
        free(got);
        free(again);
        free(expected);
        llama_adapter_close(&ad);
        llama_free(&m);
        close_setup(&s);
    }
}

/* ---- training ---- */

static char *make_dir(char dir[TEST_PATH], const char *name) {
    test_tmp(dir, name);
    if (mkdir(dir, 0777) != 0 && errno != EEXIST) fail_msg("%s: %s", dir, strerror(errno));
    return dir;
}

static double train_steps(setup *s, int steps, double *first) {
    train_loss loss = { 0 };
    for (int i = 0; i < steps; i++) {
        optimiser o = { 0.02f, 0.9f, 0.999f, 1e-8f, 0.01f, 1, 0 };
        train_model_zero_grad(s->tm);
        assert_ok(train_model_step(s->tm, &s->b, 1, &loss, NULL), NULL);
        if (i == 0) *first = loss.total;
        train_model_update(s->tm, &o, i + 1);
    }
    assert_ok(train_model_eval(s->tm, &s->b, &loss, NULL), NULL);
    return loss.total;
}

/* The base answers the same before and after, wherever no gist token is: its weights have not moved. */
static void test_training(void **state) {
    (void)state;
    for (int type = DT_F32; type <= DT_BF16; type++)
        for (int c = 0; c < 3; c++) {
            lora_case kind = cases[c % 2];
            setup s, two;
            double first, last, last2;
            if (c == 2) kind.lora.gist_only = true;
            open_setup(&s, &kind, GIST_KERNELS_AUTO, 1, (dtype)type, false);
            open_setup(&two, &kind, GIST_KERNELS_AUTO, 2, (dtype)type, true);
            int trained = train_model_trained(s.tm), all = train_model_tensors(s.tm);
            const train_tensor *base = train_model_tensor(s.tm, trained);
            size_t n = train_model_tensor(s.tm, all - 1)->at + train_model_tensor(s.tm, all - 1)->count - base->at;
            float *before = malloc(n * sizeof *before);
            memcpy(before, train_model_w(s.tm) + base->at, n * sizeof *before);
            last = train_steps(&s, 20, &first);
            last2 = train_steps(&two, 20, &first);
            if (!(last < first - 0.5)) fail_msg("%s: loss %g -> %g", kind.name, first, last);
            assert_true(last == last2); /* threads, recomputation */
            assert_same_floats(train_model_w(s.tm) + base->at, before, n, "the frozen base");
            assert_int_equal(train_model_count(s.tm), base->at);
            free(before);
            close_setup(&s);
            close_setup(&two);
        }
}

/* B = 0: the adapter begins as nothing. */
static void test_begins_as_nothing(void **state) {
    (void)state;
    setup s;
    open_setup(&s, &cases[0], GIST_KERNELS_SCALAR, 1, DT_F32, false);
    llama_model m;
    gist_error err = { 0 };
    assert_ok(llama_load(&m, &s.cfg, &s.w, GIST_TYPE_AUTO, false, &s.ctx, NULL, &err), &err);
    float *plain = logits_of(&s, &m), *fresh = logits_of(&s, train_model_llama(s.tm));
    assert_same_floats(fresh, plain, (size_t)s.b.T * (size_t)s.cfg.V, "untrained adapter");
    free(plain);
    free(fresh);
    llama_free(&m);
    close_setup(&s);
}

/* --train-only gist without LoRA: one row trains. */
static void test_only_gist(void **state) {
    (void)state;
    setup s;
    double first, last;
    gist_error err = { 0 };
    train_model *tm;
    open_setup(&s, &cases[1], GIST_KERNELS_AUTO, 1, DT_F32, false);
    train_model_options o = { .max_rows = MOST, .lm = 1, .only_gist = true, .gist_token = GIST };
    assert_ok(train_model_create(&tm, &s.cfg, &s.w, false, 7, &o, &s.ctx, NULL, &err), &err);
    assert_int_equal(train_model_trained(tm), 1);
    train_model_free(s.tm);
    s.tm = tm;
    last = train_steps(&s, 10, &first);
    assert_true(last < first);
    tm = NULL;
    o.lora = EVERYWHERE;
    assert_fails(train_model_create(&tm, &s.cfg, &s.w, false, 7, &o, &s.ctx, NULL, &err), &err, GIST_ERR_USAGE,
                 "gist positions only");
    err = (gist_error){ 0 };
    o.lora = AT_GIST;
    o.lora.rank = 9;
    assert_fails(train_model_create(&tm, &s.cfg, &s.w, false, 7, &o, &s.ctx, NULL, &err), &err, GIST_ERR_USAGE,
                 "rank of 9");
    err = (gist_error){ 0 };
    o.lora = AT_GIST;
    o.gist_token = 24;
    assert_fails(train_model_create(&tm, &s.cfg, &s.w, false, 7, &o, &s.ctx, NULL, &err), &err, GIST_ERR_USAGE,
                 "no row of 24");
    assert_null(tm);
    close_setup(&s);
}

/* ---- files ---- */

static void test_save_and_merge(void **state) {
    (void)state;
    for (int c = 0; c < 2; c++) {
        setup s;
        char dir[TEST_PATH], path[TEST_PATH + 40];
        gist_error err = { 0 };
        llama_adapter ad, back;
        llama_model m;
        double first;
        open_setup(&s, &cases[c], GIST_KERNELS_AUTO, 2, DT_F32, false);
        take_fixture(&s);
        train_steps(&s, 3, &first);
        train_origin origin = { .type = DT_F32, .base = "grad-f32" };
        make_dir(dir, cases[c].name);
        assert_ok(train_export_model(s.tm, &origin, dir, NULL, &err), &err);
        assert_ok(llama_adapter_open(&ad, dir, &s.cfg, DT_F32, &s.ctx, NULL, &err), &err);
        assert_int_equal(ad.cfg.rank, cases[c].lora.rank);
        assert_int_equal(ad.cfg.gist_only, cases[c].lora.gist_only);
        assert_ok(llama_load(&m, &s.cfg, &s.w, GIST_TYPE_AUTO, false, &s.ctx, NULL, &err), &err);
        llama_adapter_attach(&m, &ad);
        float *live = logits_of(&s, train_model_llama(s.tm)), *loaded = logits_of(&s, &m);
        size_t n = (size_t)s.b.T * (size_t)s.cfg.V;
        assert_same_floats(loaded, live, n, "saved and loaded");
        assert_ok(llama_adapter_open(&back, dir, &s.cfg, DT_F32, &s.ctx, NULL, &err), &err);
        assert_string_equal(ad.hash, back.hash);
        llama_adapter_close(&back);
        origin.merge = true;
        make_dir(dir, "merged");
        if (c == 1) {
            assert_fails(train_export_model(s.tm, &origin, dir, NULL, &err), &err, GIST_ERR_USAGE, "cannot be merged");
        } else {
            weights w;
            llama_config cfg;
            llama_model merged;
            assert_ok(train_export_model(s.tm, &origin, dir, NULL, &err), &err);
            assert_ok(llama_config_read(&cfg, NULL, dir, &err), &err);
            assert_ok(weights_open(&w, NULL, dir, &err), &err);
            assert_ok(llama_load(&merged, &cfg, &w, GIST_TYPE_AUTO, false, &s.ctx, NULL, &err), &err);
            float *got = logits_of(&s, &merged);
            assert_close(got, live, n, TOL_LOGITS, "merged");
            snprintf(path, sizeof path, "%s/adapter_config.json", dir);
            assert_false(path_exists(path));
            free(got);
            llama_free(&merged);
            weights_close(&w);
        }
        free(live);
        free(loaded);
        llama_free(&m);
        llama_adapter_close(&ad);
        close_setup(&s);
    }
}

static void test_targets(void **state) {
    (void)state;
    unsigned bits = 0;
    gist_error err = { 0 };
    assert_ok(llama_lora_targets("q,v", &bits, &err), &err);
    assert_int_equal(bits, 5);
    assert_ok(llama_lora_targets("all", &bits, &err), &err);
    assert_int_equal(bits, 127);
    assert_ok(llama_lora_targets("gate", &bits, &err), &err);
    assert_int_equal(bits, 16);
    static const char *const bad[] = { "", "x", "q,", ",q", "q,,v", "q v", "Q", "all,q" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        err = (gist_error){ 0 };
        assert_fails(llama_lora_targets(bad[i], &bits, &err), &err, GIST_ERR_USAGE, "no matrix of a block");
        assert_int_equal(bits, 16);
    }
    char name[LLAMA_LORA_NAME];
    llama_config c = { .L = 16 };
    llama_lora_name(name, &c, 12, 5, 'B');
    assert_string_equal(name, "base_model.model.model.layers.12.mlp.up_proj.lora_B.weight");
}

/* The fixture's adapter with its config edited, in a directory of its own. */
static void spoiled(const char *find, const char *replace, gist_status code, const char *text) {
    setup s;
    char dir[TEST_PATH], path[TEST_PATH + 40], from[TEST_PATH];
    size_t len;
    gist_error err = { 0 };
    llama_adapter ad;
    open_setup(&s, &cases[0], GIST_KERNELS_SCALAR, 1, DT_F32, false);
    make_dir(dir, "spoiled");
    uint8_t *bytes = test_read(fixture(from, "everywhere", "adapter_model.safetensors"), &len);
    snprintf(path, sizeof path, "%s/adapter_model.safetensors", dir);
    test_write(path, bytes, len);
    free(bytes);
    bytes = test_read(fixture(from, "everywhere", "adapter_config.json"), &len);
    char *hit = strstr((char *)bytes, find);
    if (!hit) fail_msg("the fixture's config has no %s", find);
    sbuf out;
    sbuf_init(&out, NULL);
    sbuf_add(&out, bytes, (size_t)(hit - (char *)bytes));
    sbuf_str(&out, replace);
    sbuf_str(&out, hit + strlen(find));
    snprintf(path, sizeof path, "%s/adapter_config.json", dir);
    test_write(path, out.p, out.len);
    assert_fails(llama_adapter_open(&ad, dir, &s.cfg, DT_F32, &s.ctx, NULL, &err), &err, code, text);
    sbuf_free(&out);
    free(bytes);
    close_setup(&s);
}

static void test_refused(void **state) {
    (void)state;
    spoiled("\"use_dora\": false", "\"use_dora\": true", GIST_ERR_UNSUPPORTED, "use_dora is not supported");
    spoiled("\"LORA\"", "\"IA3\"", GIST_ERR_UNSUPPORTED, "\"IA3\" is not supported");
    spoiled("\"bias\": \"none\"", "\"bias\": \"all\"", GIST_ERR_UNSUPPORTED, "bias \"all\"");
    spoiled("\"rank_pattern\": {}", "\"rank_pattern\": {\"q_proj\": 2}", GIST_ERR_UNSUPPORTED, "rank_pattern");
    spoiled("\"init_lora_weights\": true", "\"init_lora_weights\": \"pissa\"", GIST_ERR_UNSUPPORTED, "pissa");
    spoiled("\"r\": 3", "\"r\": 4", GIST_ERR_MISMATCH, "is [3,8], this model and a rank of 4 need [4,8]");
    spoiled("\"r\": 3", "\"r\": 4000", GIST_ERR_USAGE, "rank of 4000");
    spoiled("\"r\": 3", "\"R\": 3", GIST_ERR_FORMAT, "\"r\"");
    spoiled("\"lora_alpha\": 6", "\"lora_alpha\": 0", GIST_ERR_USAGE, "alpha of 0");
    spoiled("    23", "    23, 22", GIST_ERR_UNSUPPORTED, "trainable_token_indices");
    spoiled("    23", "", GIST_ERR_FORMAT, "one is missing");
}

static void test_other_shapes(void **state) {
    (void)state;
    setup s;
    char dir[TEST_PATH];
    gist_error err = { 0 };
    llama_adapter ad;
    open_setup(&s, &cases[1], GIST_KERNELS_SCALAR, 1, DT_F32, false);
    llama_config wide = s.cfg, shallow = s.cfg;
    wide.F = 12;
    shallow.L = 1;
    fixture(dir, "gist", NULL);
    assert_fails(llama_adapter_open(&ad, dir, &wide, DT_F32, &s.ctx, NULL, &err), &err, GIST_ERR_MISMATCH,
                 "gate_proj.lora_B.weight is [10,2], this model and a rank of 2 need [12,2]");
    err = (gist_error){ 0 };
    assert_fails(llama_adapter_open(&ad, dir, &shallow, DT_F32, &s.ctx, NULL, &err), &err, GIST_ERR_MISMATCH,
                 "does not fit a llama model with 1 layers");
    err = (gist_error){ 0 };
    assert_fails(llama_adapter_open(&ad, make_dir(dir, "empty"), &s.cfg, DT_F32, &s.ctx, NULL, &err), &err, GIST_ERR_IO,
                 "not an adapter directory");
    close_setup(&s);
}

static gist_status open_once(void *ctx, const gist_allocator *alloc) {
    setup *s = ctx;
    llama_adapter ad;
    char dir[TEST_PATH];
    gist_error err = { 0 };
    gist_status status = llama_adapter_open(&ad, fixture(dir, "gist", NULL), &s->cfg, DT_F32, &s->ctx, alloc, &err);
    if (status == GIST_OK) llama_adapter_close(&ad);
    return status;
}

static gist_status create_once(void *ctx, const gist_allocator *alloc) {
    setup *s = ctx;
    train_model *tm;
    gist_error err = { 0 };
    train_model_options o = { .max_rows = 8, .lm = 1, .lora = AT_GIST, .gist_token = GIST };
    gist_status status = train_model_create(&tm, &s->cfg, &s->w, false, 0, &o, &s->ctx, alloc, &err);
    if (status == GIST_OK) train_model_free(tm);
    return status;
}

static void test_memory(void **state) {
    (void)state;
    setup s;
    open_setup(&s, &cases[1], GIST_KERNELS_SCALAR, 1, DT_F32, false);
    assert_true(test_each_alloc(open_once, &s) > 4);
    assert_true(test_each_alloc(create_once, &s) > 8);
    close_setup(&s);
}

/* ---- engines ---- */

/* An adapter of random values for a tiny model, trained for nothing; its directory into dir. */
static void random_adapter(const char *model, const llama_lora_config *lora, uint64_t seed, const char *name,
                           char dir[TEST_PATH]) {
    gist_error err = { 0 };
    pool *p;
    op_ctx ctx;
    llama_config cfg;
    weights w;
    train_model *tm;
    assert_ok(pool_create(NULL, 1, &p, &err), &err);
    assert_ok(op_init(&ctx, GIST_KERNELS_SCALAR, p, &err), &err);
    assert_ok(llama_config_read(&cfg, NULL, model, &err), &err);
    assert_ok(weights_open(&w, NULL, model, &err), &err);
    train_model_options o = { .max_rows = 1, .lm = 1, .lora = *lora, .gist_token = TINY_GIST };
    assert_ok(train_model_create(&tm, &cfg, &w, cfg.V == TINY_GIST, seed, &o, &ctx, NULL, &err), &err);
    test_fill(train_model_w(tm), train_model_count(tm), 0.5f, seed);
    train_origin origin = { .type = DT_F32 };
    assert_ok(train_export_model(tm, &origin, make_dir(dir, name), NULL, &err), &err);
    train_model_free(tm);
    weights_close(&w);
    pool_free(p);
}

static gist_engine *engine_with(const char *model, const char *adapter, gist_type type) {
    gist_engine_options o = GIST_ENGINE_OPTIONS_INIT;
    gist_engine *e = NULL;
    gist_error err = { 0 };
    o.threads = 2;
    o.adapter = adapter;
    o.weights = type;
    assert_ok(gist_engine_open(model, &o, &e, &err), &err);
    return e;
}

static float *fed(gist_engine *e, const int32_t *ids, size_t n, const gist *g) {
    gist_session *s;
    gist_error err = { 0 };
    gist_engine_info info;
    gist_engine_get_info(e, &info);
    float *logits = malloc(n * (size_t)info.vocab * sizeof *logits);
    assert_ok(gist_session_open(e, NULL, &s, &err), &err);
    if (g) assert_ok(gist_session_attach(s, g, &err), &err);
    assert_ok(gist_session_feed_all(s, ids, n, logits, &err), &err);
    gist_session_close(s);
    return logits;
}

static gist *compressed(gist_engine *e) {
    gist *g = NULL;
    gist_error err = { 0 };
    gist_compress_options o = GIST_COMPRESS_OPTIONS_INIT;
    o.k = 3;
    assert_ok(gist_compress(e, "Answer in the tone of the author.", 33, &o, &g, &err), &err);
    return g;
}

/* tiny models with and without <GIST> in their vocabulary, f32 and bf16 */
static void check_engines(const tiny_model *t, const char *name, gist_type type) {
    char model[TEST_PATH], all[TEST_PATH], at_gist[TEST_PATH], path[TEST_PATH];
    enum { N = 40 };
    int32_t ids[N];
    tiny_save(t, name, model);
    random_adapter(model, &(llama_lora_config){ 4, 8, 127, false }, 5, "all", all);
    random_adapter(model, &(llama_lora_config){ 4, 8, 127, true }, 6, "at-gist", at_gist);
    gist_engine *plain = engine_with(model, NULL, type), *e = engine_with(model, at_gist, type),
                *f = engine_with(model, all, type);
    gist_engine_info pi, ei, fi;
    gist_engine_get_info(plain, &pi);
    gist_engine_get_info(e, &ei);
    gist_engine_get_info(f, &fi);
    assert_string_equal(pi.fingerprint, ei.fingerprint);
    assert_string_equal(pi.adapter, "");
    assert_int_equal(strlen(ei.adapter), 32);
    assert_string_not_equal(ei.adapter, fi.adapter);
    size_t V = (size_t)pi.vocab;

    tiny_ids(ids, N, 4);
    float *a = fed(plain, ids, N, NULL), *b = fed(e, ids, N, NULL), *c = fed(f, ids, N, NULL);
    assert_same_floats(b, a, N * V, "no gist token: the base answers");
    assert_true(test_max_rel(c, a, N * V, NULL) > 1e-2);
    free(b);
    free(c);
    ids[20] = ids[21] = pi.gist_token;
    b = fed(e, ids, N, NULL);
    assert_same_floats(b, a, 20 * V, "rows before the gist tokens");
    assert_true(test_max_rel(b + 21 * V, a + 21 * V, V, NULL) > 1e-2);
    free(b);

    gist *g0 = compressed(plain), *g1 = compressed(e), *g2 = compressed(f), *back = NULL;
    gist_info i0, i1, i2, ib;
    gist_error err = { 0 };
    gist_get_info(g0, &i0);
    gist_get_info(g1, &i1);
    gist_get_info(g2, &i2);
    assert_string_not_equal(i0.id, i1.id);
    assert_string_not_equal(i1.id, i2.id);
    assert_string_equal(i1.adapter, ei.adapter);
    assert_ok(gist_save(g1, test_tmp(path, "adapter.gist"), &err), &err);
    assert_ok(gist_load(e, path, 0, &back, &err), &err);
    gist_get_info(back, &ib);
    assert_string_equal(ib.adapter, ei.adapter);
    assert_string_equal(ib.id, i1.id);
    free(a);
    a = fed(e, ids, 10, g1);
    b = fed(e, ids, 10, back);
    assert_same_floats(b, a, 10 * V, "saved gist");
    free(b);
    gist_free(back);
    back = NULL;
    assert_fails(gist_load(plain, path, 0, &back, &err), &err, GIST_ERR_MISMATCH, "made with adapter");
    err = (gist_error){ 0 };
    assert_fails(gist_load(f, path, 0, &back, &err), &err, GIST_ERR_MISMATCH, "this engine has adapter");
    /* behind its gist an adapter of gist positions has nothing left to do */
    err = (gist_error){ 0 };
    assert_ok(gist_load(plain, path, GIST_LOAD_FORCE, &back, &err), &err);
    b = fed(plain, ids, 10, back);
    assert_same_floats(b, a, 10 * V, "the base behind an adapter's gist");
    free(a);
    free(b);
    gist_free(g0);
    gist_free(g1);
    gist_free(g2);
    gist_free(back);
    gist_engine_close(plain);
    gist_engine_close(e);
    gist_engine_close(f);
}

static void test_engines(void **state) {
    (void)state;
    tiny_model t = TINY_MODEL;
    check_engines(&t, "with-gist", GIST_TYPE_AUTO);
    check_engines(&t, "with-gist", GIST_TYPE_BF16);
    t.gist = false;
    t.tied = true;
    check_engines(&t, "without-gist", GIST_TYPE_AUTO);
}

static void test_other_gist_token(void **state) {
    (void)state;
    tiny_model t = TINY_MODEL;
    char model[TEST_PATH], dir[TEST_PATH], path[TEST_PATH + 40];
    size_t len;
    gist_error err = { 0 };
    gist_engine *e = NULL;
    gist_engine_options o = GIST_ENGINE_OPTIONS_INIT;
    tiny_save(&t, "token", model);
    random_adapter(model, &(llama_lora_config){ 2, 2, 1, true }, 6, "token-adapter", dir);
    snprintf(path, sizeof path, "%s/adapter_config.json", dir);
    char *text = (char *)test_read(path, &len), *hit = strstr(text, "264");
    assert_non_null(hit);
    hit[0] = '1';
    test_write(path, text, len);
    free(text);
    o.adapter = dir;
    assert_fails(gist_engine_open(model, &o, &e, &err), &err, GIST_ERR_MISMATCH,
                 "its <GIST> is token 164, this model's is 264");
    o.adapter = model;
    err = (gist_error){ 0 };
    assert_fails(gist_engine_open(model, &o, &e, &err), &err, GIST_ERR_IO, "not an adapter directory");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_targets),
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_finite_differences),
        cmocka_unit_test(test_logits),
        cmocka_unit_test(test_training),
        cmocka_unit_test(test_begins_as_nothing),
        cmocka_unit_test(test_only_gist),
        cmocka_unit_test(test_save_and_merge),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_other_shapes),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_engines),
        cmocka_unit_test(test_other_gist_token),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
