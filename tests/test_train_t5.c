/* test_train_t5.c - training of encoder-decoder models: loss and every gradient by name against PyTorch, and the laws.
 *
 *   gradients   tests/data/t5, made by tools/make_t5_fixtures.py, under gist, pos_control and neg_control, on every
 *               kernel level; tolerances as for LLaMA (test_train_model.c)
 *   packing     several pairs of a prompt in one batch are the same pairs in batches of their own
 *   laws        any number of threads, activations kept or computed again: the same gradients, bit for bit; what a
 *               condition hides has none
 *   unread      source rows that no answer sees are left out, and nothing changes
 *   teacher     a teacher copy is the pair under the full prompt
 *   lora        gradients of A and B are those of the merged weights, carried through W + s B A; all parts, both stacks
 *               at gist positions only: against PyTorch (tests/data/lora/t5-gist); <GIST>'s embedding alone
 *   tuning      a memory that holds the predicted gist gives the loss under gist; its gradients by differences
 *   bad         what T5 training does not do is refused by name
 */
#include "testing.h"

#include <math.h>
#include <stdlib.h>

#include "engine/engine_int.h"
#include "train/train.h"

static const double TOL_LOSS = 1e-6, TOL_GRAD = 2e-5;
static const double TOL_GRAD_AT_GIST = 5e-5; /* sums over three rows alone, which cancel to a tenth of their terms */
enum { N_LEVELS = 5, P = 7, K = 3, REST = 10, ANSWER = 9, MOST = 64 };
static const gist_kernels levels[N_LEVELS] = { GIST_KERNELS_SCALAR, GIST_KERNELS_AVX2, GIST_KERNELS_AVX512,
                                               GIST_KERNELS_AVX512BF16, GIST_KERNELS_AMX };

typedef struct setup {
    pool *pool;
    op_ctx ctx;
    llama_config cfg;
    weights w;
    st_file expected;
    train_model *tm;
    /* prompt | rest a | answer a | rest b | answer b */
    int32_t ids[MOST];
    train_prompt prompt;
    train_pair pair[2];
    train_set set;
    train_pack_options pack;
} setup;

static float at(const tensor_view *t, size_t i) {
    float x;
    memcpy(&x, (const uint8_t *)t->data + 4 * i, 4);
    return x;
}

static const tensor_view *want(const setup *s, const char *fmt, ...) {
    char name[160];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    const tensor_view *t = st_find(&s->expected, name);
    if (!t) fail_msg("fixture has no %s", name);
    return t;
}

/* The fixture's source and target as pair a; b has a shorter rest and answer. */
static void make_set(setup *s) {
    const tensor_view *source = want(s, "source"), *target = want(s, "target");
    int n = 0;
    for (int i = 0; i < P; i++) s->ids[n++] = (int32_t)at(source, (size_t)i);
    for (int i = 0; i < REST; i++) s->ids[n++] = (int32_t)at(source, (size_t)(P + K + i));
    for (int i = 1; i < ANSWER; i++) s->ids[n++] = (int32_t)at(target, (size_t)i);
    s->ids[n++] = 1;
    static const int32_t other[] = { 9, 4, 1, 7, 7, 12, 1 };
    memcpy(s->ids + n, other, sizeof other);
    s->prompt = (train_prompt){ 0, P, 0, 2 };
    s->pair[0] = (train_pair){ P, P + REST, REST, ANSWER, 0, 1 };
    s->pair[1] = (train_pair){ (size_t)n, (size_t)n + 3, 3, 4, 0, 2 };
    s->set =
        (train_set){ .ids = s->ids, .id_count = MOST, .prompt = &s->prompt, .pair = s->pair, .prompts = 1, .pairs = 2 };
    s->pack =
        (train_pack_options){ .k = { K }, .k_count = 1, .encoder = true, .pairs_per_prompt = 2, .batch_pairs = 8 };
    s->pack.gist_token = (int32_t)at(source, P);
}

static void open_model(setup *s, const char *dir, gist_kernels level, int threads, dtype type, float distill) {
    gist_error err = { 0 };
    char path[512], full[TEST_PATH];
    *s = (setup){ 0 };
    assert_ok(pool_create(NULL, threads, &s->pool, &err), &err);
    assert_ok(op_init(&s->ctx, level, s->pool, &err), &err);
    snprintf(path, sizeof path, "t5/%s/expected.safetensors", dir);
    assert_ok(st_open(&s->expected, NULL, test_fixture(full, path), &err), &err);
    snprintf(path, sizeof path, "t5/%s", dir);
    const char *model = test_fixture(full, path);
    assert_ok(llama_config_read(&s->cfg, NULL, model, &err), &err);
    assert_ok(weights_open(&s->w, NULL, model, &err), &err);
    make_set(s);
    t5_settle_head(&s->cfg, &s->w);
    train_model_options o = { .type = type, .max_rows = 128, .lm = 1, .distill = distill };
    bool added = s->pack.gist_token == s->cfg.V;
    assert_ok(train_model_create(&s->tm, &s->cfg, &s->w, added, 0, &o, &s->ctx, NULL, &err), &err);
}

static void close_model(setup *s) {
    train_model_free(s->tm);
    st_close(&s->expected);
    weights_close(&s->w);
    pool_free(s->pool);
}

static void add(const setup *s, train_batch *b, int n, const int *pairs, const train_condition *c) {
    static const int k[] = { K, K, K, K };
    gist_error err = { 0 };
    int before = train_batch_rows(b);
    assert_ok(train_pack_group(b, &s->set, 0, pairs, c, k, n, &s->pack, &err), &err);
    assert_int_equal(train_batch_rows(b) - before, train_pack_rows(&s->set, 0, pairs, c, k, n, &s->pack));
}

static train_loss step(const setup *s, train_batch *b) {
    train_loss loss;
    gist_error err = { 0 };
    train_batch_finish(b);
    train_model_zero_grad(s->tm);
    assert_ok(train_model_step(s->tm, b, 1, &loss, &err), &err);
    assert_true(loss.finite);
    return loss;
}

/* ---- against PyTorch ---- */

static void compare_grads(const setup *s, const char *condition) {
    for (int i = 0; i < train_model_tensors(s->tm); i++) {
        const train_tensor *t = train_model_tensor(s->tm, i);
        const tensor_view *ref = want(s, "%s.grad.%s", condition, t->name);
        assert_int_equal(tensor_count(ref), t->count);
        double worst = 0, largest = 0;
        for (size_t j = 0; j < t->count; j++) {
            double r = (double)at(ref, j), d = fabs((double)train_model_g(s->tm)[t->at + j] - r);
            worst = d > worst || isnan(d) ? d : worst;
            largest = fabs(r) > largest ? fabs(r) : largest;
        }
        if (!(worst <= TOL_GRAD * largest))
            fail_msg("%s: gradient of %s is off by %.3g, largest %.3g (%s)", condition, t->name, worst, largest,
                     gist_kernels_name(op_level(&s->ctx)));
    }
}

static void check_gradients(const char *dir, gist_kernels level) {
    static const train_condition conditions[] = { COND_GIST, COND_POS_CONTROL, COND_NEG_CONTROL };
    setup s;
    open_model(&s, dir, level, 2, DT_F32, 0);
    for (size_t i = 0; i < sizeof conditions / sizeof *conditions; i++) {
        const char *name = train_condition_name(conditions[i]);
        train_batch b;
        train_batch_init(&b, NULL);
        add(&s, &b, 1, (int[]){ 0 }, &conditions[i]);
        train_loss loss = step(&s, &b);
        double expected = (double)at(want(&s, "%s.loss", name), 0);
        if (fabs(loss.total - expected) > TOL_LOSS * expected)
            fail_msg("%s: loss %.9g, expected %.9g", name, loss.total, expected);
        compare_grads(&s, name);
        train_batch_free(&b);
    }
    close_model(&s);
}

static void test_gradients(void **state) {
    (void)state;
    for (int l = 0; l < N_LEVELS; l++) {
        if (!gist_kernels_available(levels[l])) continue;
        check_gradients("v10-f32", levels[l]);
        check_gradients("v11-f32", levels[l]);
    }
}

/* ---- packing ---- */

static const int mixed_pairs[] = { 0, 1, 1, 0 };
static const train_condition mixed[] = { COND_GIST, COND_GIST, COND_FULL, COND_NONE };

/* Losses of a batch and, weighed by their label tokens, those of its pairs alone; gradients too. */
static void test_packing(void **state) {
    (void)state;
    setup s;
    train_batch b;
    open_model(&s, "v11-f32", GIST_KERNELS_AUTO, 2, DT_F32, 0);
    train_batch_init(&b, NULL);
    add(&s, &b, 4, mixed_pairs, mixed);
    double labels = b.weight_sum, total = 0;
    train_loss all = step(&s, &b);
    size_t n = train_model_count(s.tm);
    float *together = malloc(n * sizeof *together);
    double *alone = calloc(n, sizeof *alone), worst = 0, largest = 0;
    assert_non_null(together);
    assert_non_null(alone);
    memcpy(together, train_model_g(s.tm), n * sizeof *together);
    for (int i = 0; i < 4; i++) {
        train_batch_reset(&b);
        add(&s, &b, 1, &mixed_pairs[i], &mixed[i]);
        double share = b.weight_sum / labels;
        total += share * step(&s, &b).total;
        for (size_t j = 0; j < n; j++) alone[j] += share * (double)train_model_g(s.tm)[j];
    }
    assert_true(fabs(total - all.total) < 1e-6 * total);
    for (size_t j = 0; j < n; j++) {
        worst = fmax(worst, fabs((double)together[j] - alone[j]));
        largest = fmax(largest, fabs(alone[j]));
    }
    assert_true(worst < 1e-6 * largest);
    free(together);
    free(alone);
    train_batch_free(&b);
    close_model(&s);
}

/* ---- laws ---- */

static void test_threads(void **state) {
    (void)state;
    uint8_t *first = NULL;
    size_t bytes = 0;
    for (int threads = 1; threads <= 5; threads += 2) {
        setup s;
        train_batch b;
        open_model(&s, "v11-f32", GIST_KERNELS_AUTO, threads, DT_BF16, 0);
        train_batch_init(&b, NULL);
        add(&s, &b, 4, mixed_pairs, mixed);
        step(&s, &b);
        bytes = train_model_count(s.tm) * sizeof(float);
        if (!first) {
            first = malloc(bytes);
            assert_non_null(first);
            memcpy(first, train_model_g(s.tm), bytes);
        }
        assert_memory_equal(first, train_model_g(s.tm), bytes);
        train_batch_free(&b);
        close_model(&s);
    }
    free(first);
}

/* Activations computed again are the same ones. */
static void test_recompute(void **state) {
    (void)state;
    setup s;
    train_batch b;
    train_loss loss;
    train_model *again = NULL;
    gist_error err = { 0 };
    open_model(&s, "v11-f32", GIST_KERNELS_AUTO, 2, DT_F32, 0);
    train_model_options o = { .type = DT_F32, .max_rows = 128, .lm = 1, .recompute = true };
    assert_ok(train_model_create(&again, &s.cfg, &s.w, false, 0, &o, &s.ctx, NULL, &err), &err);
    train_batch_init(&b, NULL);
    add(&s, &b, 4, mixed_pairs, mixed);
    train_loss kept = step(&s, &b);
    train_model_zero_grad(again);
    assert_ok(train_model_step(again, &b, 1, &loss, &err), &err);
    assert_true(loss.total == kept.total);
    assert_memory_equal(train_model_g(again), train_model_g(s.tm), train_model_count(s.tm) * sizeof(float));
    assert_true(train_model_bytes(again) < train_model_bytes(s.tm));
    train_batch_free(&b);
    train_model_free(again);
    close_model(&s);
}

/* Without the prompt in sight its embeddings get no gradient; from gists they do. */
static void test_hidden(void **state) {
    (void)state;
    static const train_condition conditions[] = { COND_NEG_CONTROL, COND_GIST };
    setup s;
    open_model(&s, "v11-f32", GIST_KERNELS_AUTO, 2, DT_F32, 0);
    enum { SENTINEL = 48 }; /* in no other text */
    for (int i = 0; i < P; i++) s.ids[i] = SENTINEL;
    for (int c = 0; c < 2; c++) {
        train_batch b;
        double sum = 0;
        train_batch_init(&b, NULL);
        add(&s, &b, 1, (int[]){ 0 }, &conditions[c]);
        if (c == 0) { /* the prompt is not even encoded: put it there */
            assert_int_equal(b.source.T, REST);
            train_batch_reset(&b);
            add(&s, &b, 2, (int[]){ 0, 1 }, (train_condition[]){ COND_NEG_CONTROL, COND_GIST });
            for (int t = 0; t < b.T; t++)
                if (b.condition[t] == COND_GIST) b.label[t] = -1;
        }
        step(&s, &b);
        for (int j = 0; j < s.cfg.C; j++) sum += fabs((double)train_model_g(s.tm)[SENTINEL * s.cfg.C + j]);
        assert_true(c == 0 ? sum == 0 : sum > 0);
        train_batch_free(&b);
    }
    close_model(&s);
}

static void test_teacher(void **state) {
    (void)state;
    setup s;
    train_batch b;
    train_condition c = COND_GIST;
    open_model(&s, "v11-f32", GIST_KERNELS_AUTO, 2, DT_F32, 1);
    s.pack.teacher = true;
    train_batch_init(&b, NULL);
    add(&s, &b, 1, (int[]){ 0 }, &c);
    assert_int_equal(b.T, 2 * ANSWER);
    assert_int_equal(b.source.T, P + K + REST + P + REST);
    train_loss loss = step(&s, &b);
    assert_int_equal(loss.distilled, ANSWER);
    assert_true(loss.distill > 0);
    for (int t = 0; t < ANSWER; t++) assert_int_equal(b.teacher[t], ANSWER + t);
    train_batch_free(&b);
    close_model(&s);
}

/* ---- source rows that no answer sees ---- */

/* What two shared prompts cost that no answer sees, in the encoder's last block and as keys and values of the
 * decoder's, and what it costs the last answer row to see all of the source. */
static double unread_flops(const llama_config *c, const train_batch *b, bool frozen) {
    const op_row *last = &b->cross[b->T - 1];
    double one = (double)c->C * c->H * c->D, ffn = (c->gated ? 3.0 : 2.0) * c->C * c->F;
    double saw = last->hi - last->lo + (last->mem >= 0 ? last->mhi - last->mlo : 0);
    double visible = 2 * P * (P + K) + c->L * (b->source.T - saw);
    return (frozen ? 4 : 6) * 2 * P * (2 * one * c->L + 2 * one + ffn) + 12.0 * c->H * c->D * visible;
}

/* The last answer row, which no row sees, weighs nothing and is made to see all of the source: the same loss, and
 * gradients but for the order of sums. */
static void check_unread(gist_kernels level, const train_model_options *o) {
    gist_error err = { 0 };
    setup s;
    train_batch b;
    train_loss some, all;
    train_model *tm = NULL;
    open_model(&s, "v11-f32", level, 2, DT_F32, 0);
    train_model_options with = *o;
    with.gist_token = s.pack.gist_token;
    assert_ok(train_model_create(&tm, &s.cfg, &s.w, false, 3, &with, &s.ctx, NULL, &err), &err);
    train_batch_init(&b, NULL);
    add(&s, &b, 2, mixed_pairs, mixed); /* gists of one prompt */
    add(&s, &b, 4, mixed_pairs, mixed);
    train_batch_finish(&b);
    b.weight[b.T - 1] = 0;
    assert_ok(train_model_step(tm, &b, 1, &some, &err), &err);
    size_t n = (size_t)train_model_trained(tm), bytes = 0;
    for (size_t i = 0; i < n; i++) bytes += train_model_tensor(tm, (int)i)->count * sizeof(float);
    float *want_ = malloc(bytes), *got = train_model_g(tm);
    assert_non_null(want_);
    memcpy(want_, got, bytes);
    double operations = train_model_flops(tm, &b), more = unread_flops(&s.cfg, &b, o->lora.rank > 0);
    b.cross[b.T - 1] = (op_row){ .mem = -1, .hi = b.source.T };
    train_model_zero_grad(tm);
    assert_ok(train_model_step(tm, &b, 1, &all, &err), &err);
    assert_true(some.finite && fabs(some.total - all.total) <= (o->type == DT_F32 ? 1e-6 : 1e-3) * all.total);
    assert_true(fabs(operations + more - train_model_flops(tm, &b)) <= 1e-9 * operations);
    for (size_t i = 0; i < n; i++) {
        const train_tensor *t = train_model_tensor(tm, (int)i);
        double worst = 0, largest = 0;
        for (size_t j = t->at; j < t->at + t->count; j++) {
            worst = fmax(worst, fabs((double)got[j] - (double)want_[j]));
            largest = fmax(largest, fabs((double)want_[j]));
        }
        if (!(worst <= (o->type == DT_F32 ? TOL_GRAD : 0.02) * largest))
            fail_msg("gradient of %s is off by %.3g, largest %.3g", t->name, worst, largest);
    }
    free(want_);
    train_batch_free(&b);
    train_model_free(tm);
    close_model(&s);
}

static void test_unread(void **state) {
    (void)state;
    for (int l = 0; l < N_LEVELS; l++)
        for (int i = 0; i < 12 && gist_kernels_available(levels[l]); i++) {
            train_model_options o = { .type = i < 6 ? DT_F32 : DT_BF16, .max_rows = 128, .lm = 1, .recompute = i % 2 };
            if (i / 2 % 3) o.lora = (llama_lora_config){ 2, 3, (1u << LLAMA_LORA_TARGETS) - 1, i / 2 % 3 == 2 };
            check_unread(levels[l], &o);
        }
}

/* ---- adapters ---- */

enum { RANK = 2 };
static const float ALPHA = 3;

static train_model *adapted(const setup *s, const llama_lora_config *lora) {
    train_model_options o = { .type = DT_F32, .max_rows = 128, .lm = 1, .gist_token = s->pack.gist_token };
    train_model *tm = NULL;
    gist_error err = { 0 };
    op_ctx ctx = s->ctx;
    if (lora) o.lora = *lora;
    assert_ok(train_model_create(&tm, &s->cfg, &s->w, false, 5, &o, &ctx, NULL, &err), &err);
    return tm;
}

static const train_tensor *tensor_named(const train_model *tm, const char *name) {
    for (int i = 0; i < train_model_tensors(tm); i++)
        if (strcmp(train_model_tensor(tm, i)->name, name) == 0) return train_model_tensor(tm, i);
    fail_msg("no tensor %s", name);
    return NULL;
}

/* dA = s B^T dW and dB = s dW A^T, for A [r,K], B [N,r], dW [N,K]. */
static void check_factors(train_model *tm, train_model *full, const llama_config *c, int block, int part) {
    char name[LLAMA_LORA_NAME], weight[128];
    int layer, at = 0;
    const weight_row *row = llama_lora_row(c, block, part, &layer);
    llama_row_name(weight, row, layer, false);
    llama_lora_name(name, c, block, part, 'A');
    const train_tensor *A = tensor_named(tm, name);
    llama_lora_name(name, c, block, part, 'B');
    const train_tensor *B = tensor_named(tm, name), *W = tensor_named(full, weight);
    const float *a = train_model_w(tm) + A->at, *b = train_model_w(tm) + B->at, *dW = train_model_g(full) + W->at;
    int N = (int)W->shape[0], inputs = (int)W->shape[1];
    double s = (double)ALPHA / RANK, worst = 0, largest = 0;
    for (int r = 0; r < RANK; r++)
        for (int k = 0; k < inputs; k++, at++) {
            double want_ = 0;
            for (int n = 0; n < N; n++) want_ += s * (double)b[n * RANK + r] * (double)dW[n * inputs + k];
            worst = fmax(worst, fabs(want_ - (double)train_model_g(tm)[A->at + (size_t)at]));
            largest = fmax(largest, fabs(want_));
        }
    if (!(worst <= TOL_GRAD * largest)) fail_msg("dA of %s is off by %.3g, largest %.3g", weight, worst, largest);
    worst = largest = 0;
    for (int n = 0; n < N; n++)
        for (int r = 0; r < RANK; r++) {
            double want_ = 0;
            for (int k = 0; k < inputs; k++) want_ += s * (double)dW[n * inputs + k] * (double)a[r * inputs + k];
            worst = fmax(worst, fabs(want_ - (double)train_model_g(tm)[B->at + (size_t)(n * RANK + r)]));
            largest = fmax(largest, fabs(want_));
        }
    if (!(worst <= TOL_GRAD * largest)) fail_msg("dB of %s is off by %.3g, largest %.3g", weight, worst, largest);
}

static void check_adapter(const char *dir) {
    setup s;
    train_batch b;
    train_loss loss, merged_loss;
    train_merged merged;
    gist_error err = { 0 };
    rng r;
    open_model(&s, dir, GIST_KERNELS_AUTO, 2, DT_F32, 0);
    llama_lora_config lora = { RANK, ALPHA, (1u << LLAMA_LORA_TARGETS) - 1, false };
    train_model *tm = adapted(&s, &lora), *full = adapted(&s, NULL);
    train_batch_init(&b, NULL);
    add(&s, &b, 4, mixed_pairs, mixed);
    train_batch_finish(&b);
    rng_seed(&r, 7);
    for (int i = 0; i < train_model_trained(tm); i++) { /* B begins at zero: no gradient would reach A */
        const train_tensor *t = train_model_tensor(tm, i);
        for (size_t j = 0; strstr(t->name, "lora_B") && j < t->count; j++)
            train_model_w(tm)[t->at + j] = 0.2f * (float)rng_normal(&r);
    }
    train_model_repack(tm);
    assert_ok(train_model_merge(tm, &merged, &err), &err);
    for (int i = 0; i < train_model_tensors(full); i++) {
        const train_tensor *t = train_model_tensor(full, i);
        memcpy(train_model_w(full) + t->at, train_merged_values(&merged, t->name), t->count * sizeof(float));
    }
    train_merged_free(&merged);
    train_model_repack(full);
    train_model_zero_grad(tm);
    train_model_zero_grad(full);
    assert_ok(train_model_step(tm, &b, 1, &loss, &err), &err);
    assert_ok(train_model_step(full, &b, 1, &merged_loss, &err), &err);
    assert_true(fabs(loss.total - merged_loss.total) < 1e-5 * merged_loss.total);
    int parts = 0, layer;
    for (int block = 0; block < llama_lora_blocks(&s.cfg, false); block++)
        for (int part = 0; part < LLAMA_LORA_PARTS; part++) {
            if (!llama_lora_row(&s.cfg, block, part, &layer)) continue;
            check_factors(tm, full, &s.cfg, block, part);
            parts++;
        }
    assert_int_equal(parts, s.cfg.encoder * (4 + 2 + s.cfg.gated) + s.cfg.L * (8 + 2 + s.cfg.gated));
    assert_int_equal(train_model_trained(tm), 2 * parts + 1);
    train_batch_free(&b);
    train_model_free(tm);
    train_model_free(full);
    close_model(&s);
}

static void test_lora(void **state) {
    (void)state;
    check_adapter("v11-f32");
}

/* At gist positions only: the encoder's blocks alone have a part; loss and gradients are PyTorch's. */
static void check_at_gist(gist_kernels level, bool recompute) {
    setup s;
    st_file values, ref;
    train_batch b;
    train_loss loss;
    train_model *tm = NULL;
    gist_error err = { 0 };
    char path[TEST_PATH];
    open_model(&s, "v11-f32", level, 2, DT_F32, 0);
    assert_ok(st_open(&values, NULL, test_fixture(path, "lora/t5-gist/adapter_model.safetensors"), &err), &err);
    assert_ok(st_open(&ref, NULL, test_fixture(path, "lora/t5-gist/expected.safetensors"), &err), &err);
    train_model_options o = {
        .type = DT_F32, .max_rows = 128, .lm = 1, .recompute = recompute, .gist_token = s.pack.gist_token
    };
    o.lora = (llama_lora_config){ RANK, 8, (1u << LLAMA_LORA_TARGETS) - 1, true };
    assert_ok(train_model_create(&tm, &s.cfg, &s.w, false, 5, &o, &s.ctx, NULL, &err), &err);
    assert_int_equal(train_model_trained(tm), values.count);
    for (int i = 0; i < train_model_trained(tm); i++) {
        const train_tensor *t = train_model_tensor(tm, i);
        const tensor_view *v = st_find(&values, t->name);
        if (!v || tensor_count(v) != t->count) fail_msg("the adapter has no %s", t->name);
        memcpy(train_model_w(tm) + t->at, v->data, v->bytes);
    }
    train_model_repack(tm);
    train_batch_init(&b, NULL);
    add(&s, &b, 1, (int[]){ 0 }, (train_condition[]){ COND_GIST });
    train_batch_finish(&b);
    train_model_zero_grad(tm);
    assert_ok(train_model_step(tm, &b, 1, &loss, &err), &err);
    double expected = (double)at(st_find(&ref, "loss"), 0);
    if (fabs(loss.total - expected) > TOL_LOSS * expected)
        fail_msg("at gist positions: loss %.9g, expected %.9g", loss.total, expected);
    for (int i = 0; i < train_model_trained(tm); i++) {
        const train_tensor *t = train_model_tensor(tm, i);
        char name[200];
        snprintf(name, sizeof name, "grad.%s", t->name);
        const tensor_view *g = st_find(&ref, name);
        if (!g) fail_msg("expected.safetensors has no %s", name);
        float *want_ = malloc(g->bytes);
        assert_non_null(want_);
        memcpy(want_, g->data, g->bytes);
        assert_close(train_model_g(tm) + t->at, want_, t->count, TOL_GRAD_AT_GIST, t->name);
        free(want_);
    }
    train_batch_free(&b);
    train_model_free(tm);
    st_close(&values);
    st_close(&ref);
    close_model(&s);
}

static void test_lora_at_gist(void **state) {
    (void)state;
    for (int l = 0; l < N_LEVELS; l++) {
        if (!gist_kernels_available(levels[l])) continue;
        check_at_gist(levels[l], false);
        check_at_gist(levels[l], true);
    }
}

/* --train-only gist: the row of <GIST> learns, and nothing else moves. */
static void test_only_gist(void **state) {
    (void)state;
    setup s;
    train_batch b;
    train_loss loss;
    train_model *tm = NULL;
    gist_error err = { 0 };
    double first = 0;
    open_model(&s, "v11-f32", GIST_KERNELS_AUTO, 2, DT_F32, 0);
    train_model_options o = {
        .type = DT_F32, .max_rows = 128, .lm = 1, .only_gist = true, .gist_token = s.pack.gist_token
    };
    assert_ok(train_model_create(&tm, &s.cfg, &s.w, false, 5, &o, &s.ctx, NULL, &err), &err);
    assert_int_equal(train_model_trained(tm), 1);
    assert_int_equal(train_model_count(tm), s.cfg.C);
    train_batch_init(&b, NULL);
    add(&s, &b, 2, (int[]){ 0, 1 }, (train_condition[]){ COND_GIST, COND_GIST });
    train_batch_finish(&b);
    for (int i = 0; i < 20; i++) {
        optimiser how = { 0.05f, 0.9f, 0.999f, 1e-8f, 0, 1, 0 };
        train_model_zero_grad(tm);
        assert_ok(train_model_step(tm, &b, 1, &loss, &err), &err);
        if (i == 0) first = loss.total;
        train_model_update(tm, &how, i + 1);
    }
    if (!(loss.total < first - 0.05)) fail_msg("loss %g -> %g", first, loss.total);
    train_batch_free(&b);
    train_model_free(tm);
    close_model(&s);
}

/* ---- tuning: the rows of a gist ---- */

/* Both pairs behind the memory, as train_tune.c packs them. */
static void add_behind(const setup *s, train_batch *b) {
    add(s, b, 2, (int[]){ 0, 1 }, (train_condition[]){ COND_NONE, COND_NONE });
    for (int t = 0; t < b->T; t++) {
        b->cross[t].mem = 1;
        b->cross[t].mhi = K;
    }
    for (int t = 0; t < b->source.T; t++) {
        b->source.rows[t].mem = 1;
        b->source.rows[t].mhi = K;
        b->source.rows[t].pos += K;
        b->source.pos[t] += K;
    }
    train_batch_finish(b);
}

static double loss_of(train_model *tm, const train_batch *b) {
    train_loss loss;
    gist_error err = { 0 };
    train_model_repack(tm);
    assert_ok(train_model_eval(tm, b, &loss, &err), &err);
    return loss.total;
}

/* The gist that the engine predicts, in f32, into the memory. */
static void fill_memory(const setup *s, train_model *tm, const char *dir) {
    char path[512], full[TEST_PATH];
    gist_engine_options o = GIST_ENGINE_OPTIONS_INIT;
    gist_compress_options c = GIST_COMPRESS_OPTIONS_INIT;
    gist_engine *e = NULL;
    gist *g = NULL;
    gist_error err = { 0 };
    snprintf(path, sizeof path, "t5/%s", dir);
    assert_ok(gist_engine_open(test_fixture(full, path), &o, &e, &err), &err);
    c.k = K;
    c.kv = GIST_TYPE_F32;
    assert_ok(gist_compress_ids(e, s->ids, P, &c, &g, &err), &err);
    for (int l = 0; l < s->cfg.encoder; l++)
        assert_ok(gist_get_rows(g, l, train_memory_keys(tm, l), train_memory_values(tm, l), &err), &err);
    memcpy(train_memory_output(tm), gist_get_output(g), (size_t)K * (size_t)s->cfg.C * sizeof(float));
    gist_free(g);
    gist_engine_close(e);
}

/* Along a random direction of every tensor: the gradient against central differences of f32 losses. */
static void check_differences(train_model *tm, const train_batch *b) {
    const float step_ = 0.02f;
    rng r;
    rng_seed(&r, 3);
    for (int i = 0; i < train_model_trained(tm); i++) {
        const train_tensor *t = train_model_tensor(tm, i);
        float *w = train_model_w(tm) + t->at;
        float *was = malloc(t->count * sizeof *was), *way = malloc(t->count * sizeof *way);
        double slope = 0, up, down;
        assert_non_null(was);
        assert_non_null(way);
        memcpy(was, w, t->count * sizeof *was);
        for (size_t j = 0; j < t->count; j++) {
            way[j] = (float)rng_normal(&r);
            slope += (double)way[j] * (double)train_model_g(tm)[t->at + j];
        }
        for (size_t j = 0; j < t->count; j++) w[j] = was[j] + step_ * way[j];
        up = loss_of(tm, b);
        for (size_t j = 0; j < t->count; j++) w[j] = was[j] - step_ * way[j];
        down = loss_of(tm, b);
        memcpy(w, was, t->count * sizeof *was);
        double difference = (up - down) / (2 * (double)step_);
        /* losses near 4 in f32 are good to some 1e-6, over twice the step: 1e-4 */
        if (!(fabs(difference - slope) < 2e-4 + 0.01 * fabs(slope)))
            fail_msg("%s: the loss rises by %.6g, its gradient says %.6g", t->name, difference, slope);
        free(was);
        free(way);
    }
    loss_of(tm, b);
}

static void test_tuning(void **state) {
    (void)state;
    setup s;
    train_batch b;
    train_loss loss, under_gist;
    train_model *tm = NULL;
    gist_error err = { 0 };
    open_model(&s, "v11-f32", GIST_KERNELS_AUTO, 2, DT_F32, 0);
    train_model_options o = { .type = DT_F32, .max_rows = 128, .lm = 1, .memory_rows = K, .memory_type = DT_F32 };
    assert_ok(train_model_create(&tm, &s.cfg, &s.w, false, 0, &o, &s.ctx, NULL, &err), &err);
    fill_memory(&s, tm, "v11-f32");
    train_model_repack(tm);
    train_batch_init(&b, NULL);
    add(&s, &b, 2, (int[]){ 0, 1 }, mixed);
    under_gist = step(&s, &b);
    train_batch_reset(&b);
    add_behind(&s, &b);
    train_model_zero_grad(tm);
    assert_ok(train_model_step(tm, &b, 1, &loss, &err), &err);
    assert_true(fabs(loss.total - under_gist.total) < 1e-5 * under_gist.total);
    check_differences(tm, &b);
    train_batch_free(&b);
    train_model_free(tm);
    close_model(&s);
}

/* ---- the wrong way ---- */

static void test_refused(void **state) {
    (void)state;
    setup s;
    gist_error err = { 0 };
    train_stream stream;
    open_model(&s, "v11-f32", GIST_KERNELS_AUTO, 1, DT_F32, 0);
    train_pack_options bad = s.pack;
    bad.mix[COND_GIST] = 1;
    bad.k[1] = 2;
    bad.k_count = 2;
    assert_fails(train_stream_init(&stream, &s.set, &bad, 0, &err), &err, GIST_ERR_USAGE, "one number of them");
    bad = s.pack;
    bad.mix[COND_GIST] = 1;
    bad.input_loss = 1;
    err = (gist_error){ 0 };
    assert_fails(train_stream_init(&stream, &s.set, &bad, 0, &err), &err, GIST_ERR_USAGE, "neither input nor");
    close_model(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients), cmocka_unit_test(test_packing),      cmocka_unit_test(test_threads),
        cmocka_unit_test(test_recompute), cmocka_unit_test(test_hidden),       cmocka_unit_test(test_teacher),
        cmocka_unit_test(test_unread),    cmocka_unit_test(test_lora),         cmocka_unit_test(test_lora_at_gist),
        cmocka_unit_test(test_only_gist), cmocka_unit_test(test_tuning),       cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
