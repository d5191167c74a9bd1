/* linear_bwd.c - derivatives of y = x W^T, as products with panels again.
 *
 *   dx [T,K] = dy [T,N] W        rows dy,    panels of W transposed
 *   dW [N,K] = dy^T [N,T] x      rows dy^T,  panels of x: outputs K, inputs T
 *
 * Only packing differs from the forward pass: sources are read along the other axis.
 */
#include "ops/ops_int.h"

/* ---- panels from a transposed source: element (n,k) = src[k][n] ---- */

typedef struct pack_t_job {
    op_ctx *ctx;
    op_weight *W;
    const float *src;
    int blocks; /* of PACK_ROWS inputs per panel */
} pack_t_job;

enum { PACK_ROWS = 128, AHEAD = 16 /* rows; strides defeat the processor's own prefetching */ };

static void prefetch_row(const float *row, int cols) {
    for (int j = 0; j < cols; j += 16) __builtin_prefetch(row + j);
}

static void pack_t_f32(float *panel, const float *src, size_t stride, int k0, int k1, int cols) {
    for (int k = k0; k < k1; k++) {
        float *row = panel + (size_t)k * OP_PANEL;
        memcpy(row, src + (size_t)k * stride, (size_t)cols * sizeof *row);
        if (cols < OP_PANEL) memset(row + cols, 0, (size_t)(OP_PANEL - cols) * sizeof *row);
    }
}

/* Pairs of source rows, rounded, then interleaved: (row k, row k+1) for each of 64 columns. */
static void pack_t_bf16(op_ctx *ctx, uint16_t *panel, const float *src, size_t stride, int K, int k0, int k1,
                        int cols) {
    uint16_t pair[2][OP_PANEL] = { { 0 }, { 0 } };
    for (int k = k0; k < k1; k += 2) {
        uint16_t *row = panel + (size_t)k * OP_PANEL;
        for (int r = k + AHEAD; r < k + AHEAD + 2 && r < K; r++) prefetch_row(src + (size_t)r * stride, cols);
        ctx->k->round_bf16(pair[0], src + (size_t)k * stride, cols);
        if (k + 1 < K)
            ctx->k->round_bf16(pair[1], src + (size_t)(k + 1) * stride, cols);
        else
            memset(pair[1], 0, sizeof pair[1]);
        for (int j = 0; j < OP_PANEL; j++) {
            row[2 * j] = pair[0][j];
            row[2 * j + 1] = pair[1][j];
        }
    }
}

static void pack_t_task(void *arg, int task, int worker) {
    (void)worker;
    const pack_t_job *j = arg;
    const op_weight *W = j->W;
    int p = task / j->blocks, k0 = task % j->blocks * PACK_ROWS, k1 = k0 + PACK_ROWS < W->K ? k0 + PACK_ROWS : W->K;
    int cols = W->N - p * OP_PANEL < OP_PANEL ? W->N - p * OP_PANEL : OP_PANEL;
    uint8_t *panel = (uint8_t *)W->panels + (size_t)p * (op_weight_bytes(W->type, OP_PANEL, W->K));
    const float *src = j->src + p * OP_PANEL;
    if (W->type == DT_BF16)
        pack_t_bf16(j->ctx, (uint16_t *)panel, src, (size_t)W->N, W->K, k0, k1, cols);
    else
        pack_t_f32((float *)panel, src, (size_t)W->N, k0, k1, cols);
}

void op_weight_pack_t(op_ctx *ctx, op_weight *W, const float *src) {
    pack_t_job j = { ctx, W, src, (W->K + PACK_ROWS - 1) / PACK_ROWS };
    op_run(ctx, pack_t_task, &j, (W->N + OP_PANEL - 1) / OP_PANEL * j.blocks, (size_t)W->N * (size_t)W->K);
}

/* ---- operand rows from columns ---- */

typedef struct operand_t_job {
    op_ctx *ctx;
    void *buf;
    const float *y;
    dtype type;
    int T, N;
} operand_t_job;

enum { TILE = 64 };

/* dst[n][t] = src[t][n] for up to TILE x TILE elements */
static void transpose_tile(op_ctx *ctx, float *dst, const float *src, size_t stride, int rows, int cols) {
    for (int t = 0; t < rows; t += 16)
        for (int n = 0; n < cols; n += 16) {
            const float *from = src + (size_t)t * stride + n;
            float *to = dst + (size_t)n * TILE + t;
            if (rows - t >= 16 && cols - n >= 16) {
                ctx->k->transpose(to, TILE, from, stride);
                continue;
            }
            for (int a = 0; a < 16 && t + a < rows; a++)
                for (int b = 0; b < 16 && n + b < cols; b++)
                    to[(size_t)b * TILE + (size_t)a] = from[(size_t)a * stride + (size_t)b];
        }
}

static void operand_t_task(void *arg, int task, int worker) {
    (void)worker;
    const operand_t_job *j = arg;
    int n0 = task * TILE, n1 = n0 + TILE < j->N ? n0 + TILE : j->N;
    size_t stride = (size_t)(j->type == DT_BF16 ? j->T + (j->T & 1) : j->T);
    float column[TILE][TILE];
    for (int t = 0; t < j->T; t += TILE) {
        int rows = j->T - t < TILE ? j->T - t : TILE;
        for (int r = t + TILE; r < t + 2 * TILE && r < j->T; r++)
            prefetch_row(j->y + (size_t)r * (size_t)j->N + n0, n1 - n0);
        transpose_tile(j->ctx, &column[0][0], j->y + (size_t)t * (size_t)j->N + n0, (size_t)j->N, rows, n1 - n0);
        for (int n = n0; n < n1; n++) {
            size_t at = (size_t)n * stride + (size_t)t;
            if (j->type == DT_BF16)
                j->ctx->k->round_bf16((uint16_t *)j->buf + at, column[n - n0], rows);
            else
                memcpy((float *)j->buf + at, column[n - n0], (size_t)rows * sizeof(float));
        }
    }
    for (int n = n0; j->type == DT_BF16 && j->T % 2 && n < n1; n++)
        ((uint16_t *)j->buf)[(size_t)n * stride + (size_t)j->T] = 0;
}

size_t op_operand_t_bytes(dtype type, int T, int N) {
    return dt_bytes(type, (size_t)(T + (T & 1)) * (size_t)N);
}

void op_operand_t(op_ctx *ctx, void *buf, const float *y, dtype type, int T, int N) {
    operand_t_job j = { ctx, buf, y, type, T, N };
    op_run(ctx, operand_t_task, &j, (N + TILE - 1) / TILE, (size_t)T * (size_t)N);
}
