/* pointwise.c - ops on single rows: embedding, RMS norm, gated activation, residual, rotary positions.
 *
 *   rmsnorm    y = x / sqrt(mean(x^2) + eps) * w          (Zhang, Sennrich 2019)
 *   silu_mul   y = gate * sigmoid(gate) * up              (SwiGLU: Shazeer 2020)
 *   gelu_mul   y = gelu(gate) * up                        (GEGLU, the same paper; gelu by tanh)
 *   rope       (x_i, x_{i+D/2}) rotated by pos * theta^(-2i/D)   (Su et al. 2021; halves paired, as in LLaMA's HF form)
 */
#include <math.h>

#include "ops/ops_int.h"

typedef struct row_job {
    op_ctx *ctx;
    float *y;
    const float *a, *b;
    int C, D;
    float eps, sign;
    void (*gated)(float *y, const float *gate, const float *up, int n);
} row_job;

/* ---- embedding ---- */

void op_embed_fwd(op_ctx *ctx, float *x, const void *table, dtype type, const float *extra, const int32_t *ids, int T,
                  int V, int C) {
    (void)ctx; /* a few rows: copying them is not worth a task */
    for (int t = 0; t < T; t++) {
        float *row = x + (size_t)t * (size_t)C;
        if (ids[t] < V)
            dt_to_f32(row, (const uint8_t *)table + dt_bytes(type, (size_t)ids[t] * (size_t)C), type, (size_t)C);
        else
            memcpy(row, extra + (size_t)(ids[t] - V) * (size_t)C, (size_t)C * sizeof *row);
    }
}

/* ---- RMS norm ---- */

static void rmsnorm_rows(void *arg, int first, int last) {
    const row_job *j = arg;
    for (int t = first; t < last; t++) {
        size_t at = (size_t)t * (size_t)j->C;
        j->ctx->k->rmsnorm(j->y + at, j->a + at, j->b, j->C, j->eps);
    }
}

void op_rmsnorm_fwd(op_ctx *ctx, float *y, const float *x, const float *w, int T, int C, float eps) {
    row_job j = { .ctx = ctx, .y = y, .a = x, .b = w, .C = C, .eps = eps };
    op_for_rows(ctx, rmsnorm_rows, &j, T, (size_t)C);
}

/* ---- gated activation ---- */

static void gate_rows(void *arg, int first, int last) {
    const row_job *j = arg;
    for (int t = first; t < last; t++) {
        size_t at = (size_t)t * (size_t)j->C;
        j->gated(j->y + at, j->a + at, j->b + at, j->C);
    }
}

void op_silu_mul_fwd(op_ctx *ctx, float *y, const float *gate, const float *up, int T, int F) {
    row_job j = { .gated = ctx->k->silu_mul, .y = y, .a = gate, .b = up, .C = F };
    op_for_rows(ctx, gate_rows, &j, T, (size_t)F * 4);
}

void op_gelu_mul_fwd(op_ctx *ctx, float *y, const float *gate, const float *up, int T, int F) {
    row_job j = { .gated = ctx->k->gelu_mul, .y = y, .a = gate, .b = up, .C = F };
    op_for_rows(ctx, gate_rows, &j, T, (size_t)F * 4);
}

static void relu_rows(void *arg, int first, int last) {
    const row_job *j = arg;
    size_t at = (size_t)first * (size_t)j->C, end = (size_t)last * (size_t)j->C;
    for (; at < end; at++) j->y[at] = j->a[at] < 0 ? 0 : j->a[at];
}

void op_relu_fwd(op_ctx *ctx, float *y, const float *x, int T, int F) {
    row_job j = { .y = y, .a = x, .C = F };
    op_for_rows(ctx, relu_rows, &j, T, (size_t)F / 2);
}

/* ---- sums: residual, bias ---- */

static void add_rows(void *arg, int first, int last) {
    const row_job *j = arg;
    size_t at = (size_t)first * (size_t)j->C;
    for (int t = first; t < last; t++, at += (size_t)j->C) j->ctx->k->add(j->y + at, j->a + at, j->b + at, j->C);
}

static void bias_rows(void *arg, int first, int last) {
    const row_job *j = arg;
    size_t at = (size_t)first * (size_t)j->C;
    for (int t = first; t < last; t++, at += (size_t)j->C) j->ctx->k->add(j->y + at, j->y + at, j->b, j->C);
}

void op_bias_fwd(op_ctx *ctx, float *y, const float *b, int T, int N) {
    row_job j = { .ctx = ctx, .y = y, .b = b, .C = N };
    op_for_rows(ctx, bias_rows, &j, T, (size_t)N / 2);
}

void op_add_fwd(op_ctx *ctx, float *y, const float *a, const float *b, int T, int C) {
    row_job j = { .ctx = ctx, .y = y, .a = a, .b = b, .C = C };
    op_for_rows(ctx, add_rows, &j, T, (size_t)C / 2);
}

/* ---- rotary positions ---- */

typedef struct table_job {
    float *cs;
    const int32_t *pos;
    const float *freq;
    int D;
} table_job;

static void table_rows(void *arg, int first, int last) {
    const table_job *j = arg;
    int half = j->D / 2;
    for (int t = first; t < last; t++) {
        float *cs = j->cs + (size_t)t * (size_t)j->D;
        for (int i = 0; i < half; i++) {
            double angle = (double)((float)j->pos[t] * j->freq[i]); /* the angle is an f32 in every trained model */
            cs[i] = (float)cos(angle);
            cs[i + half] = (float)sin(angle);
        }
    }
}

void op_rope_table(op_ctx *ctx, float *cs, const int32_t *pos, const float *freq, int T, int D) {
    table_job j = { cs, pos, freq, D };
    op_for_rows(ctx, table_rows, &j, T, (size_t)D * 64);
}

static void rope_rows(void *arg, int first, int last) {
    const row_job *j = arg;
    for (int t = first; t < last; t++)
        j->ctx->k->rope(j->y + (size_t)t * (size_t)j->C, j->a + (size_t)t * (size_t)j->D, j->C / j->D, j->D, j->sign);
}

void op_rope_fwd(op_ctx *ctx, float *x, const float *cs, int T, int H, int D) {
    row_job j = { .ctx = ctx, .y = x, .a = cs, .C = H * D, .D = D, .sign = 1 };
    op_for_rows(ctx, rope_rows, &j, T, (size_t)(H * D));
}

/* a rotation's derivative is the rotation back */
void op_rope_bwd(op_ctx *ctx, float *dx, const float *cs, int T, int H, int D) {
    row_job j = { .ctx = ctx, .y = dx, .a = cs, .C = H * D, .D = D, .sign = -1 };
    op_for_rows(ctx, rope_rows, &j, T, (size_t)(H * D));
}
