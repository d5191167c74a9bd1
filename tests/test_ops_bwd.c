/* test_ops_bwd.c - backward ops but for attention's, on every kernel level of this CPU: bwd.h says how.
 *
 *   linear maps (dx over transposed panels, dW over packed inputs), embedding, RMS norm, gated activation, rotary
 *   positions, the loss with and without a teacher; AdamW against its rule in double; sums of squares
 */
#include "bwd.h"

/* ---- linear maps ---- */

typedef struct linear {
    int T, N, K;
    dtype type;
    double *x, *w;
    float *dy;
} linear;

/* y = x W^T */
static double linear_value(const void *arg) {
    const linear *c = arg;
    double sum = 0;
    for (int t = 0; t < c->T; t++)
        for (int n = 0; n < c->N; n++) {
            double y = 0;
            for (int k = 0; k < c->K; k++) y += c->x[t * c->K + k] * c->w[n * c->K + k];
            sum += y * (double)c->dy[t * c->N + n];
        }
    return sum;
}

static op_weight panels(op_ctx *ctx, dtype type, int N, int K, const float *src) {
    size_t n = op_weight_bytes(type, N, K);
    op_weight W = { type, N, K, aligned_alloc(64, n) };
    memset(W.panels, 0xff, n); /* NaN where packing forgets something */
    op_weight_pack_t(ctx, &W, src);
    return W;
}

static void linear_run(op_ctx *ctx, const void *arg, float *const *out) {
    const linear *c = arg;
    float *x = floats_of(c->x, (size_t)c->T * (size_t)c->K), *w = floats_of(c->w, (size_t)c->N * (size_t)c->K);
    op_weight Wt = panels(ctx, c->type, c->K, c->N, w), xt = panels(ctx, c->type, c->K, c->T, x);
    void *rows = block((size_t)c->T, op_operand_bytes(c->N)), *cols = block(1, op_operand_t_bytes(c->type, c->T, c->N));
    memset(cols, 0xff, op_operand_t_bytes(c->type, c->T, c->N));
    op_linear_add(ctx, out[0], op_operand(ctx, rows, c->dy, &Wt, c->T), &Wt, c->T);
    op_operand_t(ctx, cols, c->dy, c->type, c->T, c->N);
    op_linear_add(ctx, out[1], cols, &xt, c->N);
    free(Wt.panels);
    free(xt.panels);
    free(rows);
    free(cols);
    free(x);
    free(w);
}

static void check_linear(int T, int N, int K, dtype type, uint64_t seed) {
    size_t nx = (size_t)T * (size_t)K, nw = (size_t)N * (size_t)K, ny = (size_t)T * (size_t)N;
    float *x = random_floats(nx, 1, seed), *w = random_floats(nw, 1, seed + 1), *dy = random_floats(ny, 1, seed + 2);
    if (type == DT_BF16) { /* the op rounds its operands: what is exact here is not rounded twice */
        round_to_bf16(x, nx);
        round_to_bf16(w, nw);
        round_to_bf16(dy, ny);
    }
    linear c = { T, N, K, type, doubles_of(x, nx), doubles_of(w, nw), dy };
    char what[96];
    snprintf(what, sizeof what, "linear %s T %d N %d K %d", dt_name(type), T, N, K);
    problem p = { .what = what,
                  .value = linear_value,
                  .run = linear_run,
                  .c = &c,
                  .exact = TOL_LINEAR_BWD_EXACT,
                  .level = TOL_LINEAR_BWD_LEVEL };
    add_output(&p, "dx", c.x, nx, true, seed + 3);
    add_output(&p, "dW", c.w, nw, true, seed + 4);
    check(&p);
    free(x);
    free(w);
    free(dy);
}

static void test_linear(void **state) {
    (void)state;
    static const int shapes[][3] = { { 1, 1, 1 },   { 2, 3, 2 },     { 5, 17, 9 },    { 7, 64, 33 },   { 16, 65, 64 },
                                     { 33, 7, 66 }, { 64, 20, 130 }, { 65, 130, 16 }, { 129, 12, 40 }, { 200, 31, 5 } };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int type = 0; type < 2; type++)
            check_linear(shapes[i][0], shapes[i][1], shapes[i][2], type ? DT_BF16 : DT_F32, 10 * i + 3);
}

/* Operands rounded by the op itself: bf16 of what is not bf16, every level the same bits. */
static void test_operand_t(void **state) {
    (void)state;
    static const int shapes[][2] = { { 1, 1 }, { 2, 5 }, { 15, 16 }, { 16, 17 }, { 33, 64 }, { 64, 65 }, { 131, 100 } };
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int type = 0; type < 2; type++)
            for (int l = 0; l < levels; l++) {
                int T = shapes[s][0], N = shapes[s][1];
                dtype kind = type ? DT_BF16 : DT_F32;
                int stride = type ? T + T % 2 : T;
                size_t one = dt_bytes(kind, 1), n = op_operand_t_bytes(kind, T, N);
                float *y = random_floats((size_t)T * (size_t)N, 3, s + 1);
                uint8_t *got = block(n, 1);
                memset(got, 0xff, n);
                op_ctx ctx = ctx_of(l, 2);
                op_operand_t(&ctx, got, y, kind, T, N);
                for (int a = 0; a < N; a++)
                    for (int t = 0; t < stride; t++) {
                        uint8_t want[4] = { 0 };
                        if (t < T) dt_from_f32(want, kind, &y[t * N + a], 1);
                        assert_memory_equal(got + (size_t)(a * stride + t) * one, want, one);
                    }
                free(got);
                free(y);
            }
}

/* ---- embedding ---- */

typedef struct embed {
    int T, V, C;
    int32_t *ids;
    double *table;
    float *dy;
} embed;

static double embed_value(const void *arg) {
    const embed *c = arg;
    double sum = 0;
    for (int t = 0; t < c->T; t++)
        for (int i = 0; i < c->C; i++) sum += c->table[c->ids[t] * c->C + i] * (double)c->dy[t * c->C + i];
    return sum;
}

static void embed_run(op_ctx *ctx, const void *arg, float *const *out) {
    const embed *c = arg;
    op_embed_bwd(ctx, out[0], c->dy, c->ids, c->T, c->C);
}

static void test_embed(void **state) {
    (void)state;
    static const int widths[] = { 1, 16, 40, 64, 65, 200 };
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        int T = 23, V = 11, C = widths[i];
        int32_t ids[23];
        uint64_t seed = i;
        for (int t = 0; t < T; t++) ids[t] = below(&seed, V); /* some come again, some never */
        embed c = { T, V, C, ids, block((size_t)(V * C), sizeof(double)), random_floats((size_t)(T * C), 1, i + 1) };
        problem p = {
            .what = "embed", .value = embed_value, .run = embed_run, .c = &c, .exact = TOL_ROWS_BWD_EXACT, .level = 0
        };
        add_output(&p, "dE", c.table, (size_t)(V * C), true, i + 2);
        check(&p);
        free(c.dy);
    }
}

/* ---- rms norm ---- */

typedef struct norm {
    int T, C;
    double *x, *w;
    float *dy;
} norm;

static double norm_value(const void *arg) {
    const norm *c = arg;
    double sum = 0;
    for (int t = 0; t < c->T; t++) {
        const double *x = c->x + t * c->C;
        double squares = 0, dot = 0;
        for (int i = 0; i < c->C; i++) {
            squares += x[i] * x[i];
            dot += x[i] * c->w[i] * (double)c->dy[t * c->C + i];
        }
        sum += dot / sqrt(squares / c->C + (double)1e-5f);
    }
    return sum;
}

static void norm_run(op_ctx *ctx, const void *arg, float *const *out) {
    const norm *c = arg;
    float *x = floats_of(c->x, (size_t)(c->T * c->C)), *w = floats_of(c->w, (size_t)c->C);
    float *rms = block((size_t)c->T, sizeof *rms);
    op_rmsnorm_bwd(ctx, out[0], out[1], c->dy, x, w, rms, c->T, c->C, 1e-5f);
    if (out[1]) { /* a frozen weight changes nothing else */
        float *dx = block((size_t)(c->T * c->C), sizeof *dx), *twice = block((size_t)(c->T * c->C), sizeof *twice);
        op_rmsnorm_bwd(ctx, dx, NULL, c->dy, x, w, rms, c->T, c->C, 1e-5f);
        op_rmsnorm_bwd(ctx, twice, out[1], c->dy, x, w, rms, 0, c->C, 1e-5f); /* no rows: nothing added */
        for (int i = 0; i < c->T * c->C; i++) assert_true(twice[i] == 0);
        free(dx);
        free(twice);
    }
    free(x);
    free(w);
    free(rms);
}

static const int widths[] = { 1, 2, 7, 15, 16, 17, 20, 33, 64, 100, 127, 130, 255 };
enum { WIDTHS = sizeof widths / sizeof *widths };

static void test_rmsnorm(void **state) {
    (void)state;
    for (int i = 0; i < WIDTHS; i++) {
        int T = i % 3 ? 5 : 70, C = widths[i];
        size_t n = (size_t)(T * C);
        float *x = random_floats(n, 3, (uint64_t)i), *w = random_floats((size_t)C, 2, 9), *dy = random_floats(n, 1, 5);
        for (int c = 0; c < C; c++) w[c] += 2.5f;
        norm c = { T, C, doubles_of(x, n), doubles_of(w, (size_t)C), dy };
        problem p = { .what = "rmsnorm",
                      .value = norm_value,
                      .run = norm_run,
                      .c = &c,
                      .exact = TOL_RMSNORM_BWD_EXACT,
                      .level = TOL_RMSNORM_BWD_LEVEL };
        add_output(&p, "dx", c.x, n, true, 6);
        add_output(&p, "dw", c.w, (size_t)C, true, 7);
        check(&p);
        free(x);
        free(w);
        free(dy);
    }
}

/* ---- gated activation ---- */

typedef struct gated {
    int T, F;
    double *gate, *up;
    float *dy;
} gated;

static double gated_value(const void *arg) {
    const gated *c = arg;
    double sum = 0;
    for (int i = 0; i < c->T * c->F; i++) sum += c->gate[i] / (1 + exp(-c->gate[i])) * c->up[i] * (double)c->dy[i];
    return sum;
}

static void gated_run(op_ctx *ctx, const void *arg, float *const *out) {
    const gated *c = arg;
    size_t n = (size_t)(c->T * c->F);
    float *gate = floats_of(c->gate, n), *up = floats_of(c->up, n);
    op_silu_mul_bwd(ctx, out[0], out[1], c->dy, gate, up, c->T, c->F);
    op_silu_mul_bwd(ctx, gate, up, c->dy, gate, up, c->T, c->F); /* over its own arguments */
    assert_same_floats(gate, out[0], n, "dgate in place of gate");
    assert_same_floats(up, out[1], n, "dup in place of up");
    free(gate);
    free(up);
}

static void test_silu_mul(void **state) {
    (void)state;
    for (int i = 0; i < WIDTHS; i++) {
        int T = 3, F = widths[i];
        size_t n = (size_t)(T * F);
        float *gate = random_floats(n, 9, (uint64_t)i + 20), *up = random_floats(n, 2, 2), *dy = random_floats(n, 1, 3);
        gated c = { T, F, doubles_of(gate, n), doubles_of(up, n), dy };
        problem p = { .what = "silu_mul",
                      .value = gated_value,
                      .run = gated_run,
                      .c = &c,
                      .exact = TOL_SILU_BWD_EXACT,
                      .level = TOL_SILU_BWD_LEVEL };
        add_output(&p, "dgate", c.gate, n, false, 0);
        add_output(&p, "dup", c.up, n, false, 0);
        check(&p);
        free(gate);
        free(up);
        free(dy);
    }
}

/* ---- rotary positions ---- */

typedef struct rotary {
    int T, H, D;
    double *x;
    float *cs, *dy;
} rotary;

static double rotary_value(const void *arg) {
    const rotary *c = arg;
    double sum = 0;
    int half = c->D / 2;
    for (int t = 0; t < c->T; t++)
        for (int h = 0; h < c->H; h++)
            for (int i = 0; i < half; i++) {
                size_t at = (size_t)((t * c->H + h) * c->D + i), other = at + (size_t)half;
                double cos_ = (double)c->cs[t * c->D + i], sin_ = (double)c->cs[t * c->D + half + i];
                sum += (c->x[at] * cos_ - c->x[other] * sin_) * (double)c->dy[at];
                sum += (c->x[other] * cos_ + c->x[at] * sin_) * (double)c->dy[other];
            }
    return sum;
}

static void rotary_run(op_ctx *ctx, const void *arg, float *const *out) {
    const rotary *c = arg;
    op_rope_bwd(ctx, out[0], c->cs, c->T, c->H, c->D);
}

static void test_rope(void **state) {
    (void)state;
    static const int Ds[] = { 2, 4, 8, 10, 12, 16, 32, 34, 40, 64, 80, 128 };
    for (size_t i = 0; i < sizeof Ds / sizeof *Ds; i++) {
        int T = 5, H = 3, D = Ds[i];
        size_t n = (size_t)(T * H * D);
        int32_t pos[5] = { 0, 1, 7, 100, 4095 };
        float freq[64];
        for (int d = 0; d < D / 2; d++) freq[d] = powf(10000, -2.0f * (float)d / (float)D);
        float *cs = block((size_t)(T * D), sizeof *cs);
        rotary c = { T, H, D, block(n, sizeof(double)), cs, random_floats(n, 1, i) };
        op_ctx ctx = ctx_of(0, 1);
        op_rope_table(&ctx, c.cs, pos, freq, T, D);
        problem p = { .what = "rope",
                      .value = rotary_value,
                      .run = rotary_run,
                      .c = &c,
                      .exact = TOL_ROPE_EXACT,
                      .level = TOL_ROPE_LEVEL };
        add_output(&p, "dx", c.x, n, false, 0);
        p.out[0].begin = random_floats(n, 1, i); /* dy again, turned back in place */
        p.out[0].replaced = true;
        check(&p);
        free(c.cs);
        free(c.dy);
    }
}

/* ---- loss ---- */

typedef struct losses {
    int T, V;
    double *x;
    float *teacher;
    op_loss_row *rows;
} losses;

static void softmax_logs(double *lnp, const double *x, int V) {
    double top = -INFINITY, sum = 0;
    for (int i = 0; i < V; i++) top = fmax(top, x[i]);
    for (int i = 0; i < V; i++) sum += exp(x[i] - top);
    for (int i = 0; i < V; i++) lnp[i] = x[i] - top - log(sum);
}

/* -ln p(label), and KL(teacher || row), of one row */
static void row_losses(const losses *c, int t, double *xent, double *div) {
    double lnp[1100], lnq[1100];
    const op_loss_row *r = &c->rows[t];
    softmax_logs(lnp, c->x + t * c->V, c->V);
    *xent = r->label >= 0 ? -lnp[r->label] : 0;
    *div = 0;
    if (r->kl == 0 || !c->teacher) return;
    double *q = doubles_of(c->teacher + t * c->V, (size_t)c->V);
    softmax_logs(lnq, q, c->V);
    for (int i = 0; i < c->V; i++) *div += exp(lnq[i]) * (lnq[i] - lnp[i]);
    free(q);
}

static double losses_value(const void *arg) {
    const losses *c = arg;
    double sum = 0, xent, div;
    for (int t = 0; t < c->T; t++) {
        row_losses(c, t, &xent, &div);
        sum += (double)c->rows[t].lm * xent + (double)c->rows[t].kl * div;
    }
    return sum;
}

static void losses_run(op_ctx *ctx, const void *arg, float *const *out) {
    const losses *c = arg;
    size_t n = (size_t)(c->T * c->V);
    float *x = floats_of(c->x, n);
    op_loss_row rows[16], again[16], only[16];
    for (int t = 0; t < c->T; t++) {
        double xent, div;
        rows[t] = again[t] = only[t] = c->rows[t];
        rows[t].xent = rows[t].div = NAN;
        row_losses(c, t, &xent, &div);
        only[t].xent = xent;
        only[t].div = div;
    }
    op_loss(ctx, out[0], x, c->teacher, rows, c->T, c->V);
    for (int t = 0; t < c->T; t++) {
        double scale = 1 + fabs(only[t].xent) + fabs(only[t].div);
        if (!(fabs(rows[t].xent - only[t].xent) <= TOL_LOSS_VALUE * scale) ||
            !(fabs(rows[t].div - only[t].div) <= TOL_LOSS_VALUE * scale))
            fail_msg("loss of row %d, V %d: %.9g and %.9g, expected %.9g and %.9g", t, c->V, rows[t].xent, rows[t].div,
                     only[t].xent, only[t].div);
    }
    op_loss(ctx, NULL, x, c->teacher, again, c->T, c->V); /* without gradients: the same losses */
    for (int t = 0; t < c->T; t++) assert_true(again[t].xent == rows[t].xent && again[t].div == rows[t].div);
    op_loss(ctx, x, x, c->teacher, again, c->T, c->V); /* over the logits */
    assert_same_floats(x, out[0], n, "loss over its logits");
    free(x);
}

static void test_loss(void **state) {
    (void)state;
    static const int Vs[] = { 1, 2, 15, 16, 17, 40, 100, 1000, 1037 };
    for (size_t i = 0; i < sizeof Vs / sizeof *Vs; i++) {
        int V = Vs[i], T = 8;
        size_t n = (size_t)(T * V);
        uint64_t seed = i;
        float *x = random_floats(n, 6, i + 1), *teacher = random_floats(n, 4, i + 2);
        op_loss_row rows[8] = { { .label = 0, .lm = 0.5f },
                                { .label = V - 1, .lm = 0.25f },
                                { .label = -1, .kl = 0.75f },
                                { .label = below(&seed, V), .lm = 1, .kl = 0.5f },
                                { .label = -1 },
                                { .label = below(&seed, V) },
                                { .label = -1, .lm = 1 },
                                { .label = below(&seed, V), .lm = 0, .kl = 1 } };
        for (int t = 0; t < T; t++)
            for (int v = 0; rows[t].kl == 0 && v < V; v++) teacher[t * V + v] = NAN; /* not read */
        losses c = { T, V, doubles_of(x, n), teacher, rows };
        char what[64];
        snprintf(what, sizeof what, "loss V %d", V);
        for (int t = 0; t < T; t++)
            if (rows[t].label < 0 && rows[t].kl == 0) rows[t].lm = 0; /* no label: its weight does not count */
        problem p = { .what = what,
                      .value = losses_value,
                      .run = losses_run,
                      .c = &c,
                      .exact = TOL_LOSS_BWD_EXACT,
                      .level = TOL_LOSS_BWD_LEVEL };
        add_output(&p, "dlogits", c.x, n, false, 0);
        check(&p);
        free(x);
        free(teacher);
    }
}

/* Logits far apart: probabilities underflow, the loss does not. */
static void test_loss_far(void **state) {
    (void)state;
    enum { V = 20 };
    for (int l = 0; l < levels; l++) {
        op_ctx ctx = ctx_of(l, 1);
        float x[V] = { 0 }, d[V];
        x[3] = 500;
        op_loss_row row = { .label = 7, .lm = 1 };
        op_loss(&ctx, d, x, NULL, &row, 1, V);
        assert_true(row.xent == 500);
        assert_true(d[3] == 1 && d[7] == -1 && d[0] == 0);
        x[5] = NAN;
        op_loss(&ctx, d, x, NULL, &row, 1, V);
        assert_true(isnan(row.xent)); /* never hidden: training stops on it */
    }
}

/* ---- optimiser ---- */

/* One step of the rule in ops.h, in double. */
static void adamw_exact(double *w, double *m, double *v, const float *g, size_t n, const op_adamw_step *s) {
    double b1 = (double)s->beta1, b2 = (double)s->beta2, t = (double)s->t;
    for (size_t i = 0; i < n; i++) {
        double grad = (double)g[i] * (double)s->scale;
        w[i] *= 1 - (double)s->lr * (double)s->decay;
        m[i] += (1 - b1) * (grad - m[i]);
        v[i] = b2 * v[i] + (1 - b2) * grad * grad;
        double root = sqrt(v[i]) / sqrt(1 - pow(b2, t)) + (double)s->eps;
        w[i] -= (double)s->lr / (1 - pow(b1, t)) * m[i] / root;
    }
}

enum { W, M, V, MOMENTS };

/* Four steps on level l; x [MOMENTS][n] ends as the op left it. */
static void run_adamw(int l, size_t n, float *const x[MOMENTS]) {
    static const char *const names[] = { "adamw w", "adamw m", "adamw v" };
    double *exact[MOMENTS];
    float *one[MOMENTS], *want;
    for (int i = 0; i < MOMENTS; i++) {
        for (size_t j = 0; i > W && j < n; j++) x[i][j] = 0;
        exact[i] = doubles_of(x[i], n);
        one[i] = floats_of(exact[i], n);
    }
    for (int t = 1; t <= 4; t++) {
        op_adamw_step s = { .lr = 1e-2f,
                            .beta1 = 0.9f,
                            .beta2 = 0.999f,
                            .eps = 1e-8f,
                            .decay = t % 2 ? 0.1f : 0.0f,
                            .scale = t == 3 ? 0.25f : 1.0f,
                            .t = t };
        float *g = random_floats(n, 3, (uint64_t)t + 5);
        op_ctx ctx = ctx_of(l, 4), alone = ctx_of(l, 1);
        op_adamw_update(&ctx, x[W], x[M], x[V], g, n, &s);
        op_adamw_update(&alone, one[W], one[M], one[V], g, n, &s);
        adamw_exact(exact[W], exact[M], exact[V], g, n, &s);
        free(g);
    }
    for (int i = 0; i < MOMENTS; i++) {
        assert_same_floats(one[i], x[i], n, names[i]);
        assert_close(x[i], want = floats_of(exact[i], n), n, TOL_ADAMW_EXACT, names[i]);
        free(want);
        free(exact[i]);
        free(one[i]);
    }
}

static void test_adamw(void **state) {
    (void)state;
    static const size_t sizes[] = { 1, 15, 16, 17, 1000, (1 << 16) + 5, 3 << 16 };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t n = sizes[i];
        float *scalar[MOMENTS];
        for (int l = 0; l < levels; l++) {
            float *x[MOMENTS] = { random_floats(n, 1, 1), block(n, sizeof(float)), block(n, sizeof(float)) };
            run_adamw(l, n, x);
            for (int j = 0; j < MOMENTS; j++) {
                if (l == 0) {
                    scalar[j] = x[j];
                    continue;
                }
                assert_close(x[j], scalar[j], n, TOL_ADAMW_LEVEL, gist_kernels_name(level[l]));
                free(x[j]);
            }
        }
        for (int j = 0; j < MOMENTS; j++) free(scalar[j]);
    }
}

static void test_sum_squares(void **state) {
    (void)state;
    static const size_t sizes[] = { 0, 1, 15, 16, 17, 1023, 1024, 1025, (1 << 16) - 1, 1 << 16, (1 << 16) + 1, 200003 };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t n = sizes[i];
        float *x = random_floats(n, 2, i + 1);
        double want = 0, got;
        for (size_t j = 0; j < n; j++) want += (double)x[j] * (double)x[j];
        op_ctx scalar = ctx_of(0, 1);
        got = op_sum_squares(&scalar, x, n);
        if (!(fabs(got - want) <= 1e-12 * want)) fail_msg("sum of %zu squares %.17g, expected %.17g", n, got, want);
        for (int l = 0; l < levels; l++)
            for (int threads = 1; threads <= 4; threads *= 2) {
                op_ctx ctx = ctx_of(l, threads);
                assert_true(op_sum_squares(&ctx, x, n) == got);
            }
        free(x);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear),      cmocka_unit_test(test_operand_t), cmocka_unit_test(test_embed),
        cmocka_unit_test(test_rmsnorm),     cmocka_unit_test(test_silu_mul),  cmocka_unit_test(test_rope),
        cmocka_unit_test(test_loss),        cmocka_unit_test(test_loss_far),  cmocka_unit_test(test_adamw),
        cmocka_unit_test(test_sum_squares),
    };
    return cmocka_run_group_tests(tests, open_pools, close_pools);
}
