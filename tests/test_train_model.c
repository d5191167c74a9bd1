/* test_train_model.c - loss and every gradient by name against PyTorch, then AdamW steps, then the laws of training.
 *
 * Expected values: tests/data/llama/grad-f32 and grad-tied-f32, made by tools/make_llama_fixtures.py (torch 2.15.0).
 * Gradients are compared as max|difference| / max|reference| per tensor: the reference is f32 too, so a few units of
 * f32 rounding over sums of some dozens of terms; 2e-5 is far below any real mistake.
 */
#include "testing.h"

#include <math.h>
#include <stdlib.h>

#include "train/train.h"

enum { N_LEVELS = 5 };
static const gist_kernels levels[N_LEVELS] = { GIST_KERNELS_SCALAR, GIST_KERNELS_AVX2, GIST_KERNELS_AVX512,
                                               GIST_KERNELS_AVX512BF16, GIST_KERNELS_AMX };
static const double TOL_LOSS = 1e-6, TOL_GRAD = 2e-5;

typedef struct setup {
    pool *pool;
    op_ctx ctx;
    llama_config cfg;
    weights w;
    st_file expected;
    train_model *tm;
} setup;

static void open_model(setup *s, const char *dir, gist_kernels level, int threads, dtype type, bool recompute,
                       float distill) {
    gist_error err = { 0 };
    char path[512];
    *s = (setup){ 0 };
    assert_int_equal(pool_create(NULL, threads, &s->pool, &err), GIST_OK);
    assert_int_equal(op_init(&s->ctx, level, s->pool, &err), GIST_OK);
    snprintf(path, sizeof path, "llama/%s", dir);
    char full[TEST_PATH];
    const char *model = test_fixture(full, path);
    if (llama_config_read(&s->cfg, NULL, model, &err) || weights_open(&s->w, NULL, model, &err))
        fail_msg("%s", err.msg);
    snprintf(path, sizeof path, "llama/%s/expected.safetensors", dir);
    if (st_open(&s->expected, NULL, test_fixture(full, path), &err)) fail_msg("%s", err.msg);
    train_model_options o = {
        .type = type, .recompute = recompute, .max_rows = 128, .lm = distill > 0 ? 0.0f : 1.0f, .distill = distill
    };
    if (train_model_create(&s->tm, &s->cfg, &s->w, false, 0, &o, &s->ctx, NULL, &err)) fail_msg("%s", err.msg);
}

static void close_model(setup *s) {
    train_model_free(s->tm);
    st_close(&s->expected);
    weights_close(&s->w);
    pool_free(s->pool);
}

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

/* ---- batches ---- */

typedef struct flat_batch {
    train_batch b;
    int32_t ids[256], pos[256], label[256];
    op_row rows[256];
    float weight[256];
    int teacher[256];
    uint8_t condition[256], is_gist[256];
} flat_batch;

static void batch_start(flat_batch *f) {
    memset(f, 0, sizeof *f);
    f->b = (train_batch){ .ids = f->ids,
                          .pos = f->pos,
                          .label = f->label,
                          .rows = f->rows,
                          .weight = f->weight,
                          .teacher = f->teacher,
                          .condition = f->condition,
                          .is_gist = f->is_gist,
                          .cap = 256 };
}

/* One example behind those already there: condition 0 gist, 1 pos_control, 2 neg_control. */
static void batch_example(flat_batch *f, const tensor_view *ids, const tensor_view *targets, int p, int k, int cond) {
    int base = f->b.T, n = (int)tensor_count(ids);
    for (int i = 0; i < n; i++) {
        int t = base + i, lo = i < p + k || cond == 1 ? 0 : cond == 0 ? p : p + k;
        f->ids[t] = (int32_t)at(ids, (size_t)i);
        f->pos[t] = i;
        f->label[t] = (int32_t)at(targets, (size_t)i);
        f->rows[t] = (op_row){ .pos = i, .kv = 0, .slot = t, .mem = -1, .lo = base + lo, .hi = t + 1 };
        f->teacher[t] = -1;
        f->condition[t] = COND_GIST;
        f->b.label_rows += f->label[t] >= 0;
    }
    f->b.T += n;
}

static void batch_weights(flat_batch *f) {
    for (int t = 0; t < f->b.T; t++) f->weight[t] = f->label[t] >= 0 ? 1.0f / (float)f->b.label_rows : 0.0f;
}

/* ---- gradients by name ---- */

static void compare_grads(const setup *s, const char *prefix, double tolerance) {
    for (int i = 0; i < train_model_tensors(s->tm); i++) {
        const train_tensor *t = train_model_tensor(s->tm, i);
        const tensor_view *ref = want(&s->expected, "%s.grad.%s", prefix, t->name);
        assert_int_equal(tensor_count(ref), t->count);
        double worst = 0, largest = 0;
        for (size_t j = 0; j < t->count; j++) {
            double r = (double)at(ref, j), d = fabs((double)train_model_g(s->tm)[t->at + j] - r);
            worst = d > worst || isnan(d) ? d : worst;
            largest = fabs(r) > largest ? fabs(r) : largest;
        }
        if (!(worst <= tolerance * largest))
            fail_msg("%s: gradient of %s is off by %.3g, largest %.3g (%s)", prefix, t->name, worst, largest,
                     gist_kernels_name(op_level(&s->ctx)));
    }
}

static void check_case(setup *s, int k, int cond) {
    static const char *const names[] = { "gist", "pos_control", "neg_control" };
    char prefix[64];
    flat_batch f;
    train_loss loss;
    snprintf(prefix, sizeof prefix, "k%d", k);
    batch_start(&f);
    batch_example(&f, want(&s->expected, "%s.ids", prefix), want(&s->expected, "%s.targets", prefix),
                  (int)at(want(&s->expected, "%s.p", prefix), 0), k, cond);
    batch_weights(&f);
    snprintf(prefix, sizeof prefix, "k%d.%s", k, names[cond]);
    train_model_zero_grad(s->tm);
    assert_int_equal(train_model_step(s->tm, &f.b, 1, &loss, NULL), GIST_OK);
    assert_true(loss.finite);
    double ref = (double)at(want(&s->expected, "%s.loss", prefix), 0);
    if (fabs(loss.total - ref) > TOL_LOSS * ref) fail_msg("%s: loss %.9g, expected %.9g", prefix, loss.total, ref);
    compare_grads(s, prefix, TOL_GRAD);
}

static void test_gradients(void **state) {
    (void)state;
    for (int l = 0; l < N_LEVELS; l++)
        for (int recompute = 0; gist_kernels_available(levels[l]) && recompute < 2; recompute++) {
            setup s;
            open_model(&s, "grad-f32", levels[l], 2, DT_F32, recompute, 0);
            for (int cond = 0; cond < 3; cond++)
                for (int k = 1; k <= 3; k += 2) check_case(&s, k, cond);
            close_model(&s);
            open_model(&s, "grad-tied-f32", levels[l], 2, DT_F32, recompute, 0);
            check_case(&s, 3, 0);
            close_model(&s);
        }
}

/* Rows with two intervals, as the fixture lists them. */
static void batch_packed(flat_batch *f, const setup *s, const char *prefix) {
    const tensor_view *ids = want(&s->expected, "%s.ids", prefix), *targets = want(&s->expected, "%s.targets", prefix);
    const tensor_view *mem = want(&s->expected, "%s.memory", prefix), *local = want(&s->expected, "%s.local", prefix);
    const tensor_view *pos = want(&s->expected, "%s.positions", prefix);
    batch_start(f);
    f->b.T = (int)tensor_count(ids);
    for (int t = 0; t < f->b.T; t++) {
        size_t i = (size_t)t;
        f->ids[t] = (int32_t)at(ids, i);
        f->pos[t] = (int32_t)at(pos, i);
        f->label[t] = (int32_t)at(targets, i);
        f->teacher[t] = -1;
        f->rows[t] = (op_row){ .pos = f->pos[t],
                               .kv = 0,
                               .slot = t,
                               .mem = 0,
                               .mlo = (int)at(mem, 2 * i),
                               .mhi = (int)at(mem, 2 * i + 1),
                               .lo = (int)at(local, 2 * i),
                               .hi = (int)at(local, 2 * i + 1) };
        f->b.label_rows += f->label[t] >= 0;
    }
    batch_weights(f);
}

static void test_packed(void **state) {
    (void)state;
    for (int l = 0; l < N_LEVELS; l++) {
        setup s;
        flat_batch f;
        train_loss loss;
        if (!gist_kernels_available(levels[l])) continue;
        open_model(&s, "grad-f32", levels[l], 2, DT_F32, false, 0);
        batch_packed(&f, &s, "packed");
        assert_int_equal(train_model_step(s.tm, &f.b, 1, &loss, NULL), GIST_OK);
        assert_true(fabs(loss.total - (double)at(want(&s.expected, "packed.loss"), 0)) <= 1e-5);
        compare_grads(&s, "packed", TOL_GRAD);
        close_model(&s);
    }
}

static void test_distill(void **state) {
    (void)state;
    for (int l = 0; l < N_LEVELS; l++) {
        setup s;
        flat_batch f;
        train_loss loss;
        if (!gist_kernels_available(levels[l])) continue;
        open_model(&s, "grad-f32", levels[l], 2, DT_F32, false, 1);
        batch_packed(&f, &s, "distill");
        const tensor_view *teacher = want(&s.expected, "distill.teacher");
        int rows = 0;
        for (int t = 0; t < f.b.T; t++) {
            f.teacher[t] = (int)at(teacher, (size_t)t);
            rows += f.teacher[t] >= 0;
            if (f.teacher[t] < 0) f.label[t] = -1; /* the fixture's loss has no cross-entropy */
        }
        for (int t = 0; t < f.b.T; t++) f.weight[t] = 1.0f / (float)rows;
        assert_int_equal(train_model_step(s.tm, &f.b, 1, &loss, NULL), GIST_OK);
        assert_int_equal(loss.distilled, rows);
        assert_true(fabs(loss.total - (double)at(want(&s.expected, "distill.loss"), 0)) <= 1e-5);
        compare_grads(&s, "distill", 5e-5); /* differences of probabilities that are close: more cancellation */
        close_model(&s);
    }
}

/* ---- AdamW ---- */

static void run_adamw(const char *run, gist_kernels level, float clip) {
    setup s;
    st_file ref;
    gist_error err = { 0 };
    char path[TEST_PATH];
    open_model(&s, "grad-f32", level, 2, DT_F32, false, 0);
    if (st_open(&ref, NULL, test_fixture(path, "llama/grad-f32/adamw.safetensors"), &err)) fail_msg("%s", err.msg);
    const tensor_view *lr = want(&ref, "lr"), *losses = want(&ref, "%s.losses", run);
    for (int step = 0; step < 20; step++) {
        flat_batch f;
        train_loss loss;
        batch_start(&f);
        for (int e = 0; e < 2; e++) {
            const tensor_view *layout = want(&ref, "batch.%d.%d.layout", step % 4, e);
            batch_example(&f, want(&ref, "batch.%d.%d.ids", step % 4, e),
                          want(&ref, "batch.%d.%d.targets", step % 4, e), (int)at(layout, 0), (int)at(layout, 1),
                          (int)at(layout, 2));
        }
        batch_weights(&f);
        train_model_zero_grad(s.tm);
        assert_int_equal(train_model_step(s.tm, &f.b, 1, &loss, NULL), GIST_OK);
        double expected = (double)at(losses, (size_t)step);
        if (fabs(loss.total - expected) > 1e-4 * expected)
            fail_msg("%s step %d: loss %.7g, expected %.7g", run, step, loss.total, expected);
        optimiser o = { at(lr, (size_t)step), 0.9f, 0.999f, 1e-8f, 0.1f, clip, 0 };
        train_model_update(s.tm, &o, step + 1);
    }
    for (int i = 0; i < train_model_tensors(s.tm); i++) {
        const train_tensor *t = train_model_tensor(s.tm, i);
        const tensor_view *w = want(&ref, "%s.weight.%s", run, t->name);
        double worst = 0, largest = 0;
        for (size_t j = 0; j < t->count; j++) {
            worst = fmax(worst, fabs((double)train_model_w(s.tm)[t->at + j] - (double)at(w, j)));
            largest = fmax(largest, fabs((double)at(w, j)));
        }
        if (!(worst <= 1e-3 * largest)) fail_msg("%s: %s is off by %.3g of %.3g", run, t->name, worst, largest);
    }
    st_close(&ref);
    close_model(&s);
}

static void test_adamw(void **state) {
    (void)state;
    for (int l = 0; l < N_LEVELS; l++)
        if (gist_kernels_available(levels[l])) {
            run_adamw("clip", levels[l], 1);
            run_adamw("noclip", levels[l], 0);
        }
}

/* ---- laws ---- */

/* Gradients after one step on the packed batch; caller frees. */
static float *grads_of(gist_kernels level, int threads, dtype type, bool recompute, size_t *n) {
    setup s;
    flat_batch f;
    train_loss loss;
    open_model(&s, "grad-f32", level, threads, type, recompute, 0);
    batch_packed(&f, &s, "packed");
    assert_int_equal(train_model_step(s.tm, &f.b, 1, &loss, NULL), GIST_OK);
    *n = train_model_count(s.tm);
    float *g = malloc(*n * sizeof *g);
    memcpy(g, train_model_g(s.tm), *n * sizeof *g);
    close_model(&s);
    return g;
}

static void test_threads_and_recompute(void **state) {
    (void)state;
    for (int l = 0; l < N_LEVELS; l++)
        for (int type = DT_F32; gist_kernels_available(levels[l]) && type <= DT_BF16; type++) {
            size_t n;
            float *one = grads_of(levels[l], 1, (dtype)type, false, &n);
            float *two = grads_of(levels[l], 2, (dtype)type, false, &n),
                  *again = grads_of(levels[l], 2, (dtype)type, true, &n);
            assert_memory_equal(one, two, n * sizeof *one);
            assert_memory_equal(one, again, n * sizeof *one);
            free(one);
            free(two);
            free(again);
        }
}

/* bf16 products: operands keep 8 bits, so gradients agree with f32 to some per cent of each tensor's largest. */
static void test_bf16_close(void **state) {
    (void)state;
    size_t n;
    float *wide = grads_of(GIST_KERNELS_SCALAR, 1, DT_F32, false, &n);
    for (int l = 0; l < N_LEVELS; l++) {
        if (!gist_kernels_available(levels[l])) continue;
        float *half = grads_of(levels[l], 1, DT_BF16, false, &n);
        double num = 0, den = 0;
        for (size_t i = 0; i < n; i++) {
            num += ((double)half[i] - (double)wide[i]) * ((double)half[i] - (double)wide[i]);
            den += (double)wide[i] * (double)wide[i];
        }
        if (!(sqrt(num / den) < 0.02))
            fail_msg("bf16 gradients differ by %.3g (%s)", sqrt(num / den), gist_kernels_name(levels[l]));
        free(half);
    }
    free(wide);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_packed),
        cmocka_unit_test(test_distill),
        cmocka_unit_test(test_adamw),
        cmocka_unit_test(test_threads_and_recompute),
        cmocka_unit_test(test_bf16_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
