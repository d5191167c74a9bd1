/* pointwise_bwd.c - derivatives of the ops on single rows, the loss over the vocabulary, and the optimiser.
 *
 * Sums over rows (a norm's weight, an embedding's row) are cut by columns, so that each runs in row order on one
 * thread.
 */
#include <math.h>

#include "ops/ops_int.h"

typedef struct bwd_job {
    op_ctx *ctx;
    float *dx, *dw, *rms;
    const float *dy, *x, *w;
    const int32_t *ids;
    int T, C;
    float eps;
} bwd_job;

enum { COLUMNS = 64 }; /* of one task of a sum over rows */

/* ---- embedding: x[t] = E[ids[t]] ---- */

static void embed_task(void *arg, int task, int worker) {
    (void)worker;
    const bwd_job *j = arg;
    int c0 = task * COLUMNS, n = j->C - c0 < COLUMNS ? j->C - c0 : COLUMNS;
    for (int t = 0; t < j->T; t++) {
        float *row = j->dw + (size_t)j->ids[t] * (size_t)j->C + c0;
        j->ctx->k->add(row, row, j->dy + (size_t)t * (size_t)j->C + c0, n);
    }
}

void op_embed_bwd(op_ctx *ctx, float *dE, const float *dx, const int32_t *ids, int T, int C) {
    bwd_job j = { .ctx = ctx, .dw = dE, .dy = dx, .ids = ids, .T = T, .C = C };
    op_run(ctx, embed_task, &j, (C + COLUMNS - 1) / COLUMNS, (size_t)T * (size_t)C);
}

/* ---- RMS norm: y = x r w ---- */

static void rmsnorm_dx(void *arg, int first, int last) {
    const bwd_job *j = arg;
    for (int t = first; t < last; t++) {
        size_t at = (size_t)t * (size_t)j->C;
        j->ctx->k->rmsnorm_bwd(j->dx + at, &j->rms[t], j->dy + at, j->x + at, j->w, j->C, j->eps);
    }
}

static void rmsnorm_dw(void *arg, int task, int worker) {
    (void)worker;
    const bwd_job *j = arg;
    int c0 = task * COLUMNS, n = j->C - c0 < COLUMNS ? j->C - c0 : COLUMNS;
    j->ctx->k->fma_rows(j->dw + c0, j->dy + c0, j->x + c0, j->rms, j->T, (size_t)j->C, n);
}

void op_rmsnorm_bwd(op_ctx *ctx, float *dx, float *dw, const float *dy, const float *x, const float *w, float *rms,
                    int T, int C, float eps) {
    bwd_job j = { ctx, dx, dw, rms, dy, x, w, NULL, T, C, eps };
    op_for_rows(ctx, rmsnorm_dx, &j, T, (size_t)C * 2);
    if (dw) op_run(ctx, rmsnorm_dw, &j, (C + COLUMNS - 1) / COLUMNS, (size_t)T * (size_t)C);
}

/* ---- bias: y[t] = x[t] + b ---- */

static void bias_task(void *arg, int task, int worker) {
    (void)worker;
    const bwd_job *j = arg;
    int c0 = task * COLUMNS, n = j->C - c0 < COLUMNS ? j->C - c0 : COLUMNS;
    float *db = j->dw + c0;
    for (int t = 0; t < j->T; t++) j->ctx->k->add(db, db, j->dy + (size_t)t * (size_t)j->C + c0, n);
}

void op_bias_bwd(op_ctx *ctx, float *db, const float *dy, int T, int N) {
    bwd_job j = { .ctx = ctx, .dw = db, .dy = dy, .T = T, .C = N };
    op_run(ctx, bias_task, &j, (N + COLUMNS - 1) / COLUMNS, (size_t)T * (size_t)N);
}

/* ---- activations: y = silu(gate) up, gelu(gate) up, max(x, 0) ---- */

typedef struct gate_job {
    void (*gated)(float *dgate, float *dup, const float *dy, const float *gate, const float *up, int n);
    float *dgate, *dup;
    const float *dy, *gate, *up;
    int F;
} gate_job;

static void gate_rows(void *arg, int first, int last) {
    const gate_job *j = arg;
    size_t at = (size_t)first * (size_t)j->F;
    for (int t = first; t < last; t++, at += (size_t)j->F)
        j->gated(j->dgate + at, j->dup + at, j->dy + at, j->gate + at, j->up + at, j->F);
}

void op_silu_mul_bwd(op_ctx *ctx, float *dgate, float *dup, const float *dy, const float *gate, const float *up, int T,
                     int F) {
    gate_job j = { ctx->k->silu_mul_bwd, dgate, dup, dy, gate, up, F };
    op_for_rows(ctx, gate_rows, &j, T, (size_t)F * 6);
}

void op_gelu_mul_bwd(op_ctx *ctx, float *dgate, float *dup, const float *dy, const float *gate, const float *up, int T,
                     int F) {
    gate_job j = { ctx->k->gelu_mul_bwd, dgate, dup, dy, gate, up, F };
    op_for_rows(ctx, gate_rows, &j, T, (size_t)F * 6);
}

static void relu_rows(void *arg, int first, int last) {
    const gate_job *j = arg;
    size_t at = (size_t)first * (size_t)j->F, end = (size_t)last * (size_t)j->F;
    for (; at < end; at++) j->dgate[at] = j->gate[at] > 0 ? j->dy[at] : 0;
}

void op_relu_bwd(op_ctx *ctx, float *dx, const float *dy, const float *x, int T, int F) {
    gate_job j = { .dgate = dx, .dy = dy, .gate = x, .F = F };
    op_for_rows(ctx, relu_rows, &j, T, (size_t)F / 2);
}

/* ---- loss ---- */

typedef struct loss_job {
    op_ctx *ctx;
    float *d;
    const float *x, *teacher;
    op_loss_row *rows;
    int V;
} loss_job;

static void loss_rows(void *arg, int first, int last) {
    const loss_job *j = arg;
    for (int t = first; t < last; t++) {
        op_loss_row *r = &j->rows[t];
        size_t at = (size_t)t * (size_t)j->V;
        const float *x = j->x + at, *teacher = r->kl != 0 && j->teacher ? j->teacher + at : NULL;
        op_xent c = { .lm = r->label >= 0 ? r->lm : 0, .kl = teacher ? r->kl : 0 };
        double sum, tsum = 1;
        j->ctx->k->softmax_stats(x, j->V, &c.max, &sum);
        if (teacher) j->ctx->k->softmax_stats(teacher, j->V, &c.tmax, &tsum);
        c.sum = (float)sum;
        c.tsum = (float)tsum;
        r->xent = r->label >= 0 ? log(sum) + (double)c.max - (double)x[r->label] : 0;
        j->ctx->k->xent_bwd(j->d ? j->d + at : NULL, x, teacher, j->V, &c);
        r->div = teacher ? c.kl_sum : 0;
        if (j->d && r->label >= 0) j->d[at + (size_t)r->label] -= c.lm;
    }
}

void op_loss(op_ctx *ctx, float *d, const float *x, const float *teacher, op_loss_row *rows, int T, int V) {
    loss_job j = { ctx, d, x, teacher, rows, V };
    op_for_rows(ctx, loss_rows, &j, T, (size_t)V * 8);
}

/* ---- optimiser ---- */

enum { CHUNK = 1 << 16 }; /* elements of one task */

typedef struct flat_job {
    op_ctx *ctx;
    float *w, *m, *v;
    const float *g;
    size_t n;
    op_adamw c;
    double *sums;
} flat_job;

static size_t chunk_of(const flat_job *j, int task, size_t *at) {
    *at = (size_t)task * CHUNK;
    return j->n - *at < CHUNK ? j->n - *at : CHUNK;
}

static void adamw_task(void *arg, int task, int worker) {
    (void)worker;
    const flat_job *j = arg;
    size_t at, n = chunk_of(j, task, &at);
    j->ctx->k->adamw(j->w + at, j->m + at, j->v + at, j->g + at, n, &j->c);
}

void op_adamw_update(op_ctx *ctx, float *w, float *m, float *v, const float *g, size_t n, const op_adamw_step *s) {
    double b1 = 1 - pow((double)s->beta1, (double)s->t), b2 = 1 - pow((double)s->beta2, (double)s->t);
    flat_job j = { ctx,
                   w,
                   m,
                   v,
                   g,
                   n,
                   { .keep = 1.0f - s->lr * s->decay,
                     .beta1 = s->beta1,
                     .beta2 = s->beta2,
                     .eps = s->eps,
                     .rate = (float)((double)s->lr / b1),
                     .root = (float)sqrt(b2),
                     .scale = s->scale },
                   NULL };
    pool_run(ctx->pool, adamw_task, &j, (int)((n + CHUNK - 1) / CHUNK));
}

enum { PARTS = 64 };

/* One part of the array, in 16 lanes by index within it. */
static void squares_task(void *arg, int task, int worker) {
    (void)worker;
    const flat_job *j = arg;
    size_t size = (j->n / PARTS / OP_LANES + 1) * OP_LANES, i = (size_t)task * size;
    size_t end = j->n - (i < j->n ? i : j->n) < size ? j->n : i + size;
    double lane[OP_LANES] = { 0 };
    for (; i + OP_LANES <= end; i += OP_LANES)
        for (int l = 0; l < OP_LANES; l++) lane[l] += (double)j->g[i + (size_t)l] * (double)j->g[i + (size_t)l];
    for (int l = 0; i < end; i++, l++) lane[l] += (double)j->g[i] * (double)j->g[i];
    for (int l = 0; l < OP_LANES; l++) j->sums[task] += lane[l];
}

double op_sum_squares(op_ctx *ctx, const float *x, size_t n) {
    double part[PARTS] = { 0 }, sum = 0;
    flat_job j = { .ctx = ctx, .g = x, .n = n, .sums = part };
    if (n < CHUNK)
        for (int i = 0; i < PARTS; i++) squares_task(&j, i, 0);
    else
        pool_run(ctx->pool, squares_task, &j, PARTS);
    for (int i = 0; i < PARTS; i++) sum += part[i];
    return sum;
}
