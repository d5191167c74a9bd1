/* linear.c - weights packed in panels of 64 outputs, and products with them.
 *
 *   W [N,K] row-major  ->  panel p holds outputs 64p .. 64p+63:
 *     f32, f16   for k: 64 values               bf16   for each pair k,k+1: 64 x (value k, value k+1)
 *     q8_0, ...  quant_int.h
 *
 * A panel is read once from front to back whether one row or a thousand are multiplied, so one row runs at memory
 * speed and many at the speed of the multipliers.  Work is cut by panels and, for many rows, by blocks of rows; each
 * output has one accumulator that runs through K in order, whatever the cut.
 */
#include "ops/quant_int.h"

static int panels(int N) {
    return (N + OP_PANEL - 1) / OP_PANEL;
}

static bool quantized(dtype type) {
    return dt_block(type) > 1;
}

static size_t panel_bytes(dtype type, int K) {
    if (quantized(type)) return (size_t)K / dt_block(type) * quant_panel_step(type);
    return dt_bytes(type, (size_t)(type == DT_BF16 ? K + (K & 1) : K) * OP_PANEL);
}

size_t op_weight_bytes(dtype type, int N, int K) {
    return (size_t)panels(N) * panel_bytes(type, K);
}

static void *panel_of(const op_weight *W, int p) {
    return (uint8_t *)W->panels + (size_t)p * panel_bytes(W->type, W->K);
}

/* Element (k, column j) of a panel, in elements. */
static size_t panel_at(dtype type, int k, int j) {
    if (type == DT_BF16) return ((size_t)(k / 2) * OP_PANEL + (size_t)j) * 2 + (size_t)(k % 2);
    return (size_t)k * OP_PANEL + (size_t)j;
}

/* ---- packing ---- */

enum { K_TILE = 32 /* inputs packed at a time: whole cache lines of 64 source rows */, K_TILE_MAX = 256 };

/* Blocks are converted whole. */
static int k_tile(dtype src_type) {
    return dt_block(src_type) > K_TILE ? (int)dt_block(src_type) : K_TILE;
}

typedef struct pack_job {
    op_ctx *ctx;
    op_weight *W;
    const uint8_t *src;
    dtype src_type;
    int rows;
} pack_job;

/* A panel is a matrix transposed: for f32 of its elements, for bf16 of its pairs, 32 bits each.  `src` holds cols rows
 * of `words` such elements, src_ld apart; they become columns of the panel from row `row` on. */
static void pack_words(op_ctx *ctx, uint32_t *panel, int row, const uint8_t *src, size_t src_ld, int cols, int words) {
    for (int j = 0; j < cols; j += 16)
        for (int k = 0; k < words; k += 16) {
            const uint8_t *from = src + 4 * ((size_t)j * src_ld + (size_t)k);
            uint32_t *to = panel + (size_t)(row + k) * OP_PANEL + (size_t)j;
            if (cols - j >= 16 && words - k >= 16) {
                ctx->k->transpose(to, OP_PANEL, from, src_ld);
                continue;
            }
            for (int jj = 0; jj < 16 && j + jj < cols; jj++)
                for (int kk = 0; kk < 16 && k + kk < words; kk++)
                    memcpy(to + (size_t)kk * OP_PANEL + jj, from + 4 * ((size_t)jj * src_ld + (size_t)kk), 4);
        }
}

/* Any types, element by element: f16, odd widths, conversions that training does not need. */
static void pack_converted(void *panel, const op_weight *W, const uint8_t *src, dtype src_type, int cols, int k0,
                           int k1) {
    float x[K_TILE_MAX];
    for (int j = 0; j < cols; j++) {
        dt_to_f32(x, src + dt_bytes(src_type, (size_t)j * (size_t)W->K + (size_t)k0), src_type, (size_t)(k1 - k0));
        for (int k = k0; k < k1; k++)
            dt_from_f32((uint8_t *)panel + dt_bytes(W->type, panel_at(W->type, k, j)), W->type, &x[k - k0], 1);
    }
}

/* f32 rounded to bf16 pairs: K_TILE values of each row first, then their transpose. */
static void pack_rounded(op_ctx *ctx, uint32_t *panel, const op_weight *W, const uint8_t *src, int cols, int k0,
                         int k1) {
    uint16_t rounded[OP_PANEL][K_TILE];
    float x[K_TILE];
    for (int j = 0; j < cols; j++) {
        memcpy(x, src + 4 * ((size_t)j * (size_t)W->K + (size_t)k0), (size_t)(k1 - k0) * sizeof *x); /* any alignment */
        ctx->k->round_bf16(rounded[j], x, k1 - k0);
        if ((k1 - k0) % 2) rounded[j][k1 - k0] = 0;
    }
    pack_words(ctx, panel, k0 / 2, (const uint8_t *)rounded, K_TILE / 2, cols, (k1 - k0 + 1) / 2);
}

static void pack_tile(op_ctx *ctx, void *panel, const op_weight *W, const uint8_t *src, dtype src_type, int cols,
                      int k0, int k1) {
    size_t K = (size_t)W->K;
    if (W->type == DT_F32 && src_type == DT_F32)
        pack_words(ctx, panel, k0, src + 4 * (size_t)k0, K, cols, k1 - k0);
    else if (W->type == DT_BF16 && src_type == DT_BF16 && K % 2 == 0)
        pack_words(ctx, panel, k0 / 2, src + 2 * (size_t)k0, K / 2, cols, (k1 - k0) / 2);
    else if (W->type == DT_BF16 && src_type == DT_F32)
        pack_rounded(ctx, panel, W, src, cols, k0, k1);
    else
        pack_converted(panel, W, src, src_type, cols, k0, k1);
}

static void pack_task(void *arg, int p, int worker) {
    (void)worker;
    const pack_job *job = arg;
    const op_weight *W = job->W;
    void *panel = panel_of(W, p);
    int cols = job->rows - p * OP_PANEL;
    cols = cols < 0 ? 0 : cols > OP_PANEL ? OP_PANEL : cols;
    const uint8_t *src = job->src + dt_bytes(job->src_type, (size_t)p * OP_PANEL * (size_t)W->K);
    if (quantized(W->type)) {
        quant_pack(W, panel, src, job->src_type, cols);
        return;
    }
    if (cols < OP_PANEL || W->K % 2) memset(panel, 0, panel_bytes(W->type, W->K));
    if (cols == 0) return;
    for (int k = 0, step = k_tile(job->src_type); k < W->K; k += step)
        pack_tile(job->ctx, panel, W, src, job->src_type, cols, k, W->K - k < step ? W->K : k + step);
}

void op_weight_pack(op_ctx *ctx, op_weight *W, const void *src, dtype src_type, int rows) {
    pack_job job = { ctx, W, src, src_type, rows };
    op_run(ctx, pack_task, &job, panels(W->N), (size_t)W->N * (size_t)W->K);
}

void op_weight_set_row(op_weight *W, int n, const float *x) {
    uint8_t *panel = panel_of(W, n / OP_PANEL);
    if (quantized(W->type)) {
        quant_set_row(W, panel, n % OP_PANEL, x);
        return;
    }
    for (int k = 0; k < W->K; k++)
        dt_from_f32(panel + dt_bytes(W->type, panel_at(W->type, k, n % OP_PANEL)), W->type, &x[k], 1);
}

void op_weight_get_row(const op_weight *W, int n, float *x) {
    const uint8_t *panel = panel_of(W, n / OP_PANEL);
    if (quantized(W->type)) {
        quant_get_row(W, panel, n % OP_PANEL, x);
        return;
    }
    for (int k = 0; k < W->K; k++)
        dt_to_f32(&x[k], panel + dt_bytes(W->type, panel_at(W->type, k, n % OP_PANEL)), W->type, 1);
}

/* ---- operands: rows in the type that the kernel multiplies ---- */

typedef enum operand_kind { ROWS_F32, ROWS_BF16, ROWS_QUANTIZED } operand_kind;

static operand_kind operand_of(dtype weight) {
    return quantized(weight) ? ROWS_QUANTIZED : weight == DT_BF16 ? ROWS_BF16 : ROWS_F32;
}

/* Elements of a row, and bytes of an element. */
static size_t operand_stride(operand_kind kind, int K) {
    return (size_t)(kind == ROWS_QUANTIZED ? K / QUANT_RUN : kind == ROWS_BF16 ? K + (K & 1) : K);
}

static size_t operand_size(operand_kind kind) {
    return kind == ROWS_QUANTIZED ? sizeof(op_qrun) : kind == ROWS_BF16 ? sizeof(uint16_t) : sizeof(float);
}

size_t op_operand_bytes(int K) {
    _Static_assert(sizeof(op_qrun) <= QUANT_RUN * sizeof(uint16_t), "bf16 rows are the widest");
    return ((size_t)K + 1) * sizeof(uint16_t);
}

typedef struct round_job {
    op_ctx *ctx;
    void *y;
    const float *x;
    int K;
} round_job;

static void quantize_rows(void *arg, int first, int last) {
    const round_job *j = arg;
    size_t runs = operand_stride(ROWS_QUANTIZED, j->K);
    for (int t = first; t < last; t++)
        j->ctx->k->quantize((op_qrun *)j->y + (size_t)t * runs, j->x + (size_t)t * (size_t)j->K, (int)runs);
}

static void round_rows(void *arg, int first, int last) {
    const round_job *j = arg;
    size_t stride = operand_stride(ROWS_BF16, j->K);
    for (int t = first; t < last; t++) {
        uint16_t *y = (uint16_t *)j->y + (size_t)t * stride;
        j->ctx->k->round_bf16(y, j->x + (size_t)t * (size_t)j->K, j->K);
        if (j->K % 2) y[j->K] = 0;
    }
}

const void *op_operand(op_ctx *ctx, void *buf, const float *x, const op_weight *W, int T) {
    operand_kind kind = operand_of(W->type);
    if (kind == ROWS_F32) return x;
    round_job job = { ctx, buf, x, W->K };
    op_for_rows(ctx, kind == ROWS_BF16 ? round_rows : quantize_rows, &job, T, (size_t)W->K / 4);
    return buf;
}

/* ---- products ---- */

typedef struct linear_job {
    op_ctx *ctx;
    float *y;
    const void *x;
    const op_weight *W;
    int T, row_block, row_blocks;
    bool rows_outer; /* the smaller operand passes again and again, from cache */
    bool add;
} linear_job;

static void linear_task(void *arg, int task, int worker) {
    (void)worker;
    const linear_job *j = arg;
    const op_weight *W = j->W;
    int p = j->rows_outer ? task % panels(W->N) : task / j->row_blocks;
    int t = (j->rows_outer ? task / panels(W->N) : task % j->row_blocks) * j->row_block;
    int rows = j->T - t < j->row_block ? j->T - t : j->row_block;
    int cols = W->N - p * OP_PANEL < OP_PANEL ? W->N - p * OP_PANEL : OP_PANEL;
    operand_kind kind = operand_of(W->type);
    size_t ldx = operand_stride(kind, W->K);
    const uint8_t *x = (const uint8_t *)j->x + (size_t)t * ldx * operand_size(kind);
    float *y = j->y + (size_t)t * (size_t)W->N + (size_t)(p * OP_PANEL);
    j->ctx->k->gemm[W->type](y, (size_t)W->N, x, ldx, panel_of(W, p), rows, W->K, cols, j->add);
}

static void product(op_ctx *ctx, float *y, const void *x, const op_weight *W, int T, bool add) {
    if (T <= 0) return;
    int blocks = (T + OP_ROW_BLOCK - 1) / OP_ROW_BLOCK;
    operand_kind kind = operand_of(W->type);
    size_t rows_bytes = (size_t)T * operand_stride(kind, W->K) * operand_size(kind);
    bool rows_outer = rows_bytes > op_weight_bytes(W->type, W->N, W->K);
    linear_job job = { ctx, y, x, W, T, OP_ROW_BLOCK, blocks, rows_outer, add };
    op_run(ctx, linear_task, &job, panels(W->N) * blocks, (size_t)T * (size_t)W->N * (size_t)W->K / 8);
}

void op_linear_fwd(op_ctx *ctx, float *y, const void *x, const op_weight *W, int T) {
    product(ctx, y, x, W, T, false);
}

void op_linear_add(op_ctx *ctx, float *y, const void *x, const op_weight *W, int T) {
    product(ctx, y, x, W, T, true);
}

void op_linear(op_ctx *ctx, float *y, op_input *in, const op_weight *W) {
    if (!in->rows || operand_of(in->type) != operand_of(W->type)) in->rows = op_operand(ctx, in->buf, in->x, W, in->T);
    in->type = W->type;
    product(ctx, y, in->rows, W, in->T, false);
}
