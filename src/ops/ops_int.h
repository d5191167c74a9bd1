/* ops_int.h - between the ops and their kernels: one table per kernel level.
 *
 * A kernel does one task's worth of work on one thread.  scalar.c is the definition; x86/ has the others, with the same
 * signatures.  Vector kernels think in 16 lanes whatever the registers' width, so that sums run in the same lanes.
 */
#ifndef GIST_OPS_INT_H
#define GIST_OPS_INT_H

#include "ops/ops.h"

enum { OP_LANES = 16, OP_TILE = 16 /* query vectors in one attention tile */ };
enum { OP_Q8 = 32, OP_Q8_BYTES = 34 /* a block of q8_0: scale (f16) and integers */ };

/* One tile of attention: `rows` rows x `heads` heads that share one key/value head and see the same keys, but for
 * the end hi[r] of the local interval.  Query vector (r,h) is q + r*stride + h*D, its output likewise. */
typedef struct op_span {
    dtype type;
    const void *k, *v; /* of this head: k [cap/16][D][16], v [cap][D]; q8_0 as op_kv says */
    int lo, hi;        /* for the local span: hi is the largest hi[r] */
} op_span;
typedef struct op_tile {
    float *out;
    const float *q;
    size_t stride;
    int rows, heads, D;
    float scale;
    op_span mem, local;
    const int *hi;              /* [rows] */
    float *score;               /* [rows*heads][score_stride] */
    size_t score_stride;        /* multiple of 16, >= visible keys of any row */
    const float *bias[OP_TILE]; /* row r, head h: visible key v has bias[r][h*bias_stride + v] added; [0] NULL: none */
    size_t bias_stride;
    float *stats; /* query vector (r,h) at r*stats_stride + 2h: maximum and 1/sum of its scores; NULL: not kept */
    size_t stats_stride;
} op_tile;

/* The same tile backwards.  `swapped` views the stores with keys and values exchanged (values in key blocks, keys in
 * rows), so that the forward's two kernels compute dP = dout V^T and dq = dS K. */
typedef struct op_tile_bwd {
    op_tile fwd; /* out: the forward's output; stats: as it left them; score: P */
    op_span mem_swapped, local_swapped;
    const float *dout;      /* as out */
    float *dq;              /* as q, added to */
    float *dscore;          /* [rows*heads][score_stride] */
    float *mem_dk, *mem_dv; /* of this head; token j at j*grad_stride; added to */
    float *local_dk, *local_dv;
    size_t grad_stride;
    float *dbias[OP_TILE]; /* as fwd.bias, added to; [0] NULL: not wanted */
} op_tile_bwd;

/* Constants of one row of the loss: d = lm * (softmax(x) - onehot) + kl * (softmax(x) - softmax(t)); t NULL: no
 * teacher */
typedef struct op_xent {
    float max, sum, tmax, tsum; /* of x and of the teacher's logits t */
    float lm, kl;
    double kl_sum; /* out: sum p_t (ln p_t - ln p_x) */
} op_xent;

typedef struct op_adamw {
    float keep; /* 1 - lr * decay */
    float beta1, beta2, eps;
    float rate;  /* lr / (1 - beta1^t) */
    float root;  /* sqrt(1 - beta2^t) */
    float scale; /* of the gradient (clipping) */
} op_adamw;

/* 32 activations that weights of block types multiply: x = scale * q. */
typedef struct op_qrun {
    int8_t q[32];
    float scale, sum; /* max|x| / 127; scale * (half[0] + half[1]) */
    int16_t half[2];  /* sums of q[0..15] and q[16..31] */
} op_qrun;

enum { OP_ROW_BLOCK = 192 /* rows whose operands stay in the second-level cache while a panel passes */ };
/* y [T rows at ldy] = x [T rows at ldx elements of the operand type] times one panel of `cols` <= 64 outputs;
 * add: the accumulators begin with y instead of zero */
typedef void op_gemm_fn(float *y, size_t ldy, const void *x, size_t ldx, const void *panel, int T, int K, int cols,
                        bool add);

struct op_kernels {
    gist_kernels level;
    op_gemm_fn *gemm[DT_COUNT];
    /* Runs of 32 rounded to nearest even; one whose largest |x| is below 2^-100 is all zeros; one that holds NaN or
     * infinity has scale and sum NaN, so that every output of the row is NaN. */
    void (*quantize)(op_qrun *y, const float *x, int runs);
    void (*round_bf16)(uint16_t *y, const float *x, int n);
    /* dst[i][j] = src[j][i] for 16 x 16 elements of 32 bits; row strides in elements, any alignment */
    void (*transpose)(void *dst, size_t ldd, const void *src, size_t lds);
    void (*rmsnorm)(float *y, const float *x, const float *w, int C, float eps);
    void (*silu_mul)(float *y, const float *gate, const float *up, int n);
    void (*gelu_mul)(float *y, const float *gate, const float *up, int n);
    void (*add)(float *y, const float *a, const float *b, int n);
    void (*rope)(float *x, const float *cs, int H, int D, float sign); /* sign -1 turns back */
    void (*attend)(const op_tile *t);
    /* backward (training) */
    void (*attend_bwd)(const op_tile_bwd *t);
    void (*rmsnorm_bwd)(float *dx, float *r, const float *dy, const float *x, const float *w, int C, float eps);
    void (*silu_mul_bwd)(float *dgate, float *dup, const float *dy, const float *gate, const float *up, int n);
    void (*gelu_mul_bwd)(float *dgate, float *dup, const float *dy, const float *gate, const float *up, int n);
    void (*fma_rows)(float *y, const float *a, const float *b, const float *r, int rows, size_t stride, int n);
    void (*softmax_stats)(const float *x, int n, float *max, double *sum);
    void (*xent_bwd)(float *d, const float *x, const float *t, int n, op_xent *c);
    void (*adamw)(float *w, float *m, float *v, const float *g, size_t n, const op_adamw *c);
};

/* Products of block types: the same bits on every level (quant_int.h). */
#define OP_QUANT_DECLARE(level)                                                                                        \
    op_gemm_fn op_gemm_q8_0_##level, op_gemm_q4_0_##level, op_gemm_q4_K_##level, op_gemm_q5_K_##level,                 \
        op_gemm_q6_K_##level;
#define OP_QUANT_GEMM(level)                                                                                           \
    [DT_Q8_0] = op_gemm_q8_0_##level, [DT_Q4_0] = op_gemm_q4_0_##level, [DT_Q4_K] = op_gemm_q4_K_##level,              \
    [DT_Q5_K] = op_gemm_q5_K_##level, [DT_Q6_K] = op_gemm_q6_K_##level

extern const op_kernels op_kernels_scalar;
OP_QUANT_DECLARE(scalar)
void op_quantize_scalar(op_qrun *y, const float *x, int runs);
#if defined(__x86_64__) && !defined(GIST_NO_X86)
extern const op_kernels op_kernels_avx2, op_kernels_avx512;
OP_QUANT_DECLARE(avx2)
OP_QUANT_DECLARE(avx512)
void op_quantize_avx2(op_qrun *y, const float *x, int runs);
void op_quantize_avx512(op_qrun *y, const float *x, int runs);
/* Dot products of bytes in one instruction; everything else is op_kernels_avx512's. */
OP_QUANT_DECLARE(avx512vnni)
extern const op_kernels op_kernels_avx512vnni;
/* Products of bf16 pairs in one instruction, and of bytes: every processor with the one has the other. */
op_gemm_fn op_gemm_bf16_avx512bf16;
void op_round_bf16_avx512bf16(uint16_t *y, const float *x, int n);
extern const op_kernels op_kernels_avx512bf16;
/* Products of bf16 tiles; the rest is op_kernels_avx512bf16's. */
op_gemm_fn op_gemm_bf16_amx;
extern const op_kernels op_kernels_amx;
#endif

/* exp(x) = 2^n * p(r), n = round(x log2 e), r = x - n ln 2: the constants every level uses.  Coefficients 1/k!,
 * |r| <= ln2/2: relative error below 2^-22.  Below -87.3 the result is 0 (no subnormals), above 88.7 infinity. */
#define EXP_LOG2E 1.44269504088896341f
#define EXP_LN2_HI 0.693145751953125f
#define EXP_LN2_LO 1.42860677e-6f
#define EXP_MIN (-87.3f)
#define EXP_MAX 88.7f

/* gelu(x) = x s(x), s = 1 / (1 + exp(-2u)), 2u = GELU_ROOT x (1 + GELU_CUBE x^2): the tanh approximation, as
 * (1 + tanh u)/2 = s.  GELU_ROOT = 2 sqrt(2/pi). */
#define GELU_ROOT 1.59576912160573071f
#define GELU_CUBE 0.044715f

/* Run fn for every task in [0,n): on the pool, or on the caller alone when the whole is too small to share (cost: rough
 * f32 operations of all tasks together).  Tasks must not care. */
void op_run(op_ctx *ctx, pool_fn fn, void *arg, int n, size_t cost);

/* Kernels on a row-independent range [first, last) of rows. */
typedef void (*op_rows_fn)(void *ctx, int first, int last);
/* Cut T rows into tasks for the pool; small work stays on the caller.  cost: rough f32 operations per row. */
void op_for_rows(op_ctx *ctx, op_rows_fn fn, void *arg, int T, size_t cost);

#endif
