/* rows.c - some rows among many: gathered, kept, put back, filled, summed; and scaling.
 *
 *      many   . . x . . x x . .   --gather-->   x x x   --work-->   y y y   --scatter-->   . . y . . y y . .
 *
 * An adapter that acts at gist positions only works on the rows between gather and scatter: the others are neither read
 * nor written.  keep and spread are the same in place, for rows that alone go on.
 */
#include "ops/ops_int.h"

typedef struct rows_job {
    float *dst;
    const float *src;
    const int *row;
    float s;
    int C;
} rows_job;

static void gather_rows(void *arg, int first, int last) {
    const rows_job *j = arg;
    size_t C = (size_t)j->C;
    for (int i = first; i < last; i++)
        memcpy(j->dst + (size_t)i * C, j->src + (size_t)j->row[i] * C, C * sizeof(float));
}

void op_rows_gather(op_ctx *ctx, float *dst, const float *src, const int *row, int n, int C) {
    rows_job j = { .dst = dst, .src = src, .row = row, .C = C };
    op_for_rows(ctx, gather_rows, &j, n, (size_t)C / 2);
}

void op_rows_keep(op_ctx *ctx, float *dst, const float *src, const int *row, int n, int C) {
    (void)ctx; /* in place and in order: one thread */
    for (int i = 0; i < n; i++)
        if (dst != src || row[i] != i)
            memcpy(dst + (size_t)i * (size_t)C, src + (size_t)row[i] * (size_t)C, (size_t)C * sizeof *dst);
}

static void zero_rows(float *x, int first, int end, int C) {
    memset(x + (size_t)first * (size_t)C, 0, (size_t)(end - first) * (size_t)C * sizeof *x);
}

void op_rows_spread(op_ctx *ctx, float *x, const int *row, int n, int T, int C) {
    (void)ctx;
    int end = T;
    for (int i = n - 1; i >= 0; i--) { /* row[i] >= i: what is still to be moved lies before it */
        if (row[i] != i) memcpy(x + (size_t)row[i] * (size_t)C, x + (size_t)i * (size_t)C, (size_t)C * sizeof *x);
        zero_rows(x, row[i] + 1, end, C);
        end = row[i];
    }
    zero_rows(x, 0, end, C);
}

static void scatter_rows(void *arg, int first, int last) {
    const rows_job *j = arg;
    size_t C = (size_t)j->C;
    for (int i = first; i < last; i++)
        memcpy(j->dst + (size_t)j->row[i] * C, j->src + (size_t)i * C, C * sizeof(float));
}

void op_rows_scatter(op_ctx *ctx, float *dst, const float *src, const int *row, int n, int C) {
    rows_job j = { .dst = dst, .src = src, .row = row, .C = C };
    op_for_rows(ctx, scatter_rows, &j, n, (size_t)C / 2);
}

void op_rows_fill(op_ctx *ctx, float *dst, const float *x, const int *row, int n, int C) {
    (void)ctx; /* gist tokens: a few rows */
    for (int i = 0; i < n; i++) memcpy(dst + (size_t)row[i] * (size_t)C, x, (size_t)C * sizeof *x);
}

void op_rows_sum(op_ctx *ctx, float *sum, const float *x, const int *row, int n, int C) {
    for (int i = 0; i < n; i++) ctx->k->add(sum, sum, x + (size_t)row[i] * (size_t)C, C);
}

static void scale_rows(void *arg, int first, int last) {
    const rows_job *j = arg;
    float *x = j->dst + (size_t)first * (size_t)j->C;
    for (size_t i = 0; i < (size_t)(last - first) * (size_t)j->C; i++) x[i] *= j->s;
}

void op_scale(op_ctx *ctx, float *x, float s, int T, int C) {
    rows_job j = { .dst = x, .s = s, .C = C };
    op_for_rows(ctx, scale_rows, &j, T, (size_t)C / 2);
}
