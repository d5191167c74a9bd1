/* simd_kernels.h - the vector kernels, written once over a vector of 16 floats.
 *
 * Included by one file per kernel level, which first defines the type `vf` (16 f32 lanes: one AVX-512 register, or two
 * AVX2 registers), its primitives vf_*, and the shape of the matrix tile: GEMM_ROWS x GEMM_VECS vectors of
 * accumulators that stay in registers.  scalar.c defines what each kernel computes; here is only how it is tiled:
 *
 *   gemm     panel [K][64]: for each block of K, for each GEMM_ROWS rows, for each GEMM_VECS*16 columns of the panel:
 *            accumulators are loaded from y, carried over the block in order of K, stored back (f32: exact)
 *   attend   scores: 8 query vectors x 16 keys; values: GEMM_ROWS query vectors x GEMM_VECS*16 of D
 *
 * Partial tiles run the same code with fewer rows, so a row's result never depends on its neighbours.
 */
#include <math.h>

#include "ops/ops_int.h"

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

/* ---- elementary functions ---- */

INLINE vf vf_exp(vf x) {
    vf c = vf_min(vf_max(x, vf_set(EXP_MIN)), vf_set(EXP_MAX));
    vf n = vf_round(vf_mul(c, vf_set(EXP_LOG2E)));
    vf r = vf_fma(n, vf_set(-EXP_LN2_LO), vf_fma(n, vf_set(-EXP_LN2_HI), c));
    vf p = vf_set(1.0f / 5040);
    p = vf_fma(p, r, vf_set(1.0f / 720));
    p = vf_fma(p, r, vf_set(1.0f / 120));
    p = vf_fma(p, r, vf_set(1.0f / 24));
    p = vf_fma(p, r, vf_set(1.0f / 6));
    p = vf_fma(p, r, vf_set(0.5f));
    p = vf_fma(p, r, vf_set(1.0f));
    p = vf_fma(p, r, vf_set(1.0f));
    return vf_exp_fix(vf_scale2(p, n), x); /* 0 below EXP_MIN, infinity above EXP_MAX, NaN for NaN */
}

/* Load / store n lanes, 0 < n <= 16; missing lanes read as zero. */
INLINE vf vf_load_n(const float *p, int n) { return n >= OP_LANES ? vf_load(p) : vf_load_part(p, n); }
INLINE void vf_store_n(float *p, vf v, int n) {
    if (n >= OP_LANES)
        vf_store(p, v);
    else
        vf_store_part(p, v, n);
}

/* 16 stored elements of a KV type or weight type, at element i. */
INLINE vf vf_load_typed(const void *p, dtype type, size_t i) {
    if (type == DT_F32) return vf_load((const float *)p + i);
    if (type == DT_BF16) return vf_from_bf16((const uint16_t *)p + i);
    return vf_from_f16((const uint16_t *)p + i);
}
INLINE vf vf_load_typed_n(const void *p, dtype type, size_t i, int n) {
    if (n >= OP_LANES) return vf_load_typed(p, type, i);
    float part[OP_LANES] = { 0 };
    dt_to_f32(part, (const uint8_t *)p + i * (type == DT_F32 ? 4 : 2), type, (size_t)n);
    return vf_load(part);
}

/* ---- linear maps ---- */

/* One accumulator tile over k in [k0,k1).  rows is a constant at every call, so the tile lives in registers. */
INLINE void gemm_tile(float *y, size_t ldy, const float *x, size_t ldx, const void *panel, dtype type, int k0, int k1,
                      bool add, int rows, int col0) {
    vf acc[GEMM_ROWS][GEMM_VECS];
    UNROLL for (int r = 0; r < rows; r++) UNROLL for (int v = 0; v < GEMM_VECS; v++)
        acc[r][v] = add ? vf_load(y + (size_t)r * ldy + (size_t)(v * OP_LANES)) : vf_zero();
    const float *upper = x + k0, *lower = upper + 3 * ldx; /* rows 0..2 and 3..: two pointers reach all */
    for (int k = k0; k < k1; k++, upper++, lower++) {
        size_t at = (size_t)k * OP_PANEL + (size_t)col0;
        vf w[GEMM_VECS];
        UNROLL for (int v = 0; v < GEMM_VECS; v++) w[v] = vf_load_typed(panel, type, at + (size_t)(v * OP_LANES));
        UNROLL for (int r = 0; r < rows; r++) {
            vf b = vf_set(r < 3 ? upper[(size_t)r * ldx] : lower[(size_t)(r - 3) * ldx]);
            UNROLL for (int v = 0; v < GEMM_VECS; v++) acc[r][v] = vf_fma(b, w[v], acc[r][v]);
        }
    }
    UNROLL for (int r = 0; r < rows; r++) UNROLL for (int v = 0; v < GEMM_VECS; v++)
        vf_store(y + (size_t)r * ldy + (size_t)(v * OP_LANES), acc[r][v]);
}

INLINE void gemm_tile_rows(float *y, size_t ldy, const float *x, size_t ldx, const void *panel, dtype type, int k0,
                           int k1, bool add, int rows, int col0) {
    switch (rows) {
    case 1: gemm_tile(y, ldy, x, ldx, panel, type, k0, k1, add, 1, col0); break;
    case 2: gemm_tile(y, ldy, x, ldx, panel, type, k0, k1, add, 2, col0); break;
    case 3: gemm_tile(y, ldy, x, ldx, panel, type, k0, k1, add, 3, col0); break;
    case 4: gemm_tile(y, ldy, x, ldx, panel, type, k0, k1, add, 4, col0); break;
    case 5: gemm_tile(y, ldy, x, ldx, panel, type, k0, k1, add, 5 < GEMM_ROWS ? 5 : GEMM_ROWS, col0); break;
    default: gemm_tile(y, ldy, x, ldx, panel, type, k0, k1, add, GEMM_ROWS, col0); break;
    }
}

/* A whole panel of 64 columns. */
INLINE void gemm_panel(float *y, size_t ldy, const float *x, size_t ldx, const void *panel, dtype type, int T, int K,
                       bool add) {
    int k0 = 0;
    do {
        int k1 = K - k0 > GEMM_KBLOCK ? k0 + GEMM_KBLOCK : K;
        for (int t = 0; t < T; t += GEMM_ROWS) {
            int rows = T - t < GEMM_ROWS ? T - t : GEMM_ROWS;
            for (int c = 0; c < OP_PANEL; c += GEMM_VECS * OP_LANES)
                gemm_tile_rows(y + (size_t)t * ldy + (size_t)c, ldy, x + (size_t)t * ldx, ldx, panel, type, k0, k1,
                               add || k0 > 0, rows, c);
        }
        k0 = k1;
    } while (k0 < K);
}

enum { EDGE_ROWS = 32 };
INLINE void edge_load(float *edge, const float *y, size_t ldy, int rows, int cols) {
    memset(edge, 0, (size_t)rows * OP_PANEL * sizeof *edge);
    for (int r = 0; r < rows; r++) memcpy(edge + r * OP_PANEL, y + (size_t)r * ldy, (size_t)cols * sizeof *y);
}
INLINE void edge_store(float *y, size_t ldy, const float *edge, int rows, int cols) {
    for (int r = 0; r < rows; r++) memcpy(y + (size_t)r * ldy, edge + r * OP_PANEL, (size_t)cols * sizeof *y);
}
/* A panel with fewer columns goes through a padded buffer, EDGE_ROWS rows at a time. */
INLINE void gemm_cols(float *y, size_t ldy, const float *x, size_t ldx, const void *panel, dtype type, int T, int K,
                      int cols, bool add) {
    if (cols == OP_PANEL) {
        gemm_panel(y, ldy, x, ldx, panel, type, T, K, add);
        return;
    }
    float edge[EDGE_ROWS * OP_PANEL];
    for (int t = 0; t < T; t += EDGE_ROWS) {
        int rows = T - t < EDGE_ROWS ? T - t : EDGE_ROWS;
        if (add) edge_load(edge, y + (size_t)t * ldy, ldy, rows, cols);
        gemm_panel(edge, OP_PANEL, x + (size_t)t * ldx, ldx, panel, type, rows, K, add);
        edge_store(y + (size_t)t * ldy, ldy, edge, rows, cols);
    }
}

static void gemm_f32(float *y, size_t ldy, const void *x, size_t ldx, const void *panel, int T, int K, int cols,
                     bool add) {
    gemm_cols(y, ldy, x, ldx, panel, DT_F32, T, K, cols, add);
}

static void gemm_f16(float *y, size_t ldy, const void *x, size_t ldx, const void *panel, int T, int K, int cols,
                     bool add) {
    gemm_cols(y, ldy, x, ldx, panel, DT_F16, T, K, cols, add);
}

/* bf16 pairs without the bf16 instruction: each half widens exactly to f32 by a shift. */
INLINE void gemm_bf16_tile(float *y, size_t ldy, const uint16_t *x, size_t ldx, const uint16_t *panel, int K, bool add,
                           int rows, int col0) {
    vf acc[GEMM_ROWS][GEMM_VECS];
    UNROLL for (int r = 0; r < rows; r++) UNROLL for (int v = 0; v < GEMM_VECS; v++)
        acc[r][v] = add ? vf_load(y + (size_t)r * ldy + (size_t)(v * OP_LANES)) : vf_zero();
    for (int k = 0; k < K; k += 2) {
        const uint16_t *w = panel + ((size_t)(k / 2) * OP_PANEL + (size_t)col0) * 2;
        vf even[GEMM_VECS], odd[GEMM_VECS];
        UNROLL for (int v = 0; v < GEMM_VECS; v++) vf_split_bf16(w + v * 2 * OP_LANES, &even[v], &odd[v]);
        UNROLL for (int r = 0; r < rows; r++) {
            const uint16_t *xr = x + (size_t)r * ldx + (size_t)k;
            vf a = vf_set(bf16_to_f32(xr[0])), b = vf_set(bf16_to_f32(xr[1]));
            UNROLL for (int v = 0; v < GEMM_VECS; v++) acc[r][v] = vf_fma(b, odd[v], vf_fma(a, even[v], acc[r][v]));
        }
    }
    UNROLL for (int r = 0; r < rows; r++) UNROLL for (int v = 0; v < GEMM_VECS; v++)
        vf_store(y + (size_t)r * ldy + (size_t)(v * OP_LANES), acc[r][v]);
}

/* Rows of bf16 operands are padded to an even number with zeros (op_operand). */
INLINE void gemm_bf16_panel(float *y, size_t ldy, const uint16_t *x, size_t ldx, const uint16_t *panel, int T, int K,
                            bool add) {
    int t = 0;
    for (; t + GEMM_ROWS <= T; t += GEMM_ROWS)
        for (int c = 0; c < OP_PANEL; c += GEMM_VECS * OP_LANES)
            gemm_bf16_tile(y + (size_t)t * ldy + (size_t)c, ldy, x + (size_t)t * ldx, ldx, panel, K, add, GEMM_ROWS, c);
    for (; t < T; t++)
        for (int c = 0; c < OP_PANEL; c += GEMM_VECS * OP_LANES)
            gemm_bf16_tile(y + (size_t)t * ldy + (size_t)c, ldy, x + (size_t)t * ldx, ldx, panel, K, add, 1, c);
}

static void gemm_bf16(float *y, size_t ldy, const void *x, size_t ldx, const void *panel, int T, int K, int cols,
                      bool add) {
    if (cols == OP_PANEL) {
        gemm_bf16_panel(y, ldy, x, ldx, panel, T, K, add);
        return;
    }
    float edge[EDGE_ROWS * OP_PANEL];
    for (int t = 0; t < T; t += EDGE_ROWS) {
        int rows = T - t < EDGE_ROWS ? T - t : EDGE_ROWS;
        if (add) edge_load(edge, y + (size_t)t * ldy, ldy, rows, cols);
        gemm_bf16_panel(edge, OP_PANEL, (const uint16_t *)x + (size_t)t * ldx, ldx, panel, rows, K, add);
        edge_store(y + (size_t)t * ldy, ldy, edge, rows, cols);
    }
}

static void round_bf16(uint16_t *y, const float *x, int n) {
    int i = 0;
    for (; i + OP_LANES <= n; i += OP_LANES) vf_to_bf16(y + i, vf_load(x + i));
    for (; i < n; i++) y[i] = f32_to_bf16(x[i]);
}

/* ---- pointwise ---- */

static void rmsnorm(float *y, const float *x, const float *w, int C, float eps) {
    vf sum = vf_zero();
    for (int i = 0; i < C; i += OP_LANES) {
        vf v = vf_load_n(x + i, C - i);
        sum = vf_fma(v, v, sum);
    }
    vf r = vf_set(1.0f / sqrtf(vf_fold_sum(sum) / (float)C + eps));
    for (int i = 0; i < C; i += OP_LANES)
        vf_store_n(y + i, vf_mul(vf_mul(vf_load_n(x + i, C - i), r), vf_load_n(w + i, C - i)), C - i);
}

static void silu_mul(float *y, const float *gate, const float *up, int n) {
    for (int i = 0; i < n; i += OP_LANES) {
        vf g = vf_load_n(gate + i, n - i), e = vf_exp(vf_sub(vf_zero(), g));
        vf s = vf_div(g, vf_add(vf_set(1.0f), e));
        vf_store_n(y + i, vf_mul(s, vf_load_n(up + i, n - i)), n - i);
    }
}

/* 1 + exp(-2u), and GELU_CUBE x^2 */
INLINE vf gelu_below(vf x, vf *square) {
    *square = vf_mul(vf_mul(vf_set(GELU_CUBE), x), x);
    vf u2 = vf_mul(vf_mul(vf_set(GELU_ROOT), x), vf_add(vf_set(1.0f), *square));
    return vf_add(vf_set(1.0f), vf_exp(vf_sub(vf_zero(), u2)));
}

static void gelu_mul(float *y, const float *gate, const float *up, int n) {
    for (int i = 0; i < n; i += OP_LANES) {
        vf x = vf_load_n(gate + i, n - i), square, s = vf_div(x, gelu_below(x, &square));
        vf_store_n(y + i, vf_mul(s, vf_load_n(up + i, n - i)), n - i);
    }
}

static void add(float *y, const float *a, const float *b, int n) {
    for (int i = 0; i < n; i += OP_LANES)
        vf_store_n(y + i, vf_add(vf_load_n(a + i, n - i), vf_load_n(b + i, n - i)), n - i);
}

static void rope(float *x, const float *cs, int H, int D, float sign) {
    int half = D / 2;
    for (int h = 0; h < H; h++, x += D)
        for (int i = 0; i < half; i += OP_LANES) {
            int n = half - i;
            vf a = vf_load_n(x + i, n), b = vf_load_n(x + half + i, n);
            vf c = vf_load_n(cs + i, n), s = vf_mul(vf_load_n(cs + half + i, n), vf_set(sign));
            vf_store_n(x + i, vf_fma(a, c, vf_sub(vf_zero(), vf_mul(b, s))), n);
            vf_store_n(x + half + i, vf_fma(b, c, vf_mul(a, s)), n);
        }
}

/* ---- attention ---- */

enum { SCORE_ROWS = 8 };

/* Query vector `i` of a tile: where it lies, its row of scores, and where its view of a span ends. */
INLINE size_t vector_at(const op_tile *t, int i) {
    return (size_t)(i / t->heads) * t->stride + (size_t)(i % t->heads) * (size_t)t->D;
}
INLINE float *score_row(const op_tile *t, int i) { return t->score + (size_t)i * t->score_stride; }
INLINE int span_end(const op_tile *t, const op_span *s, const int *hi, int i) { return hi ? hi[i / t->heads] : s->hi; }
INLINE const void *typed_at(const void *p, dtype type, size_t i) {
    if (type == DT_Q8_0) return (const uint8_t *)p + i / OP_Q8 * OP_Q8_BYTES;
    return (const uint8_t *)p + i * (type == DT_F32 ? 4 : 2);
}

/* score_block over 16 keys in q8_0: each element widens exactly to f32 before it is multiplied. */
INLINE void score_block_q8(vf acc[SCORE_ROWS], const float *const q[SCORE_ROWS], int n, const uint8_t *k, int D) {
    for (int d = 0; d < D; d += OP_Q8, k += OP_Q8_BYTES * OP_KV_BLOCK) {
        vf scale = vf_from_f16((const uint16_t *)(const void *)k);
        for (int i = 0; i < OP_Q8; i++) {
            vf key = vf_mul(vf_from_i8((const int8_t *)k + (2 + i) * OP_KV_BLOCK), scale);
            UNROLL for (int r = 0; r < n; r++) acc[r] = vf_fma(vf_set(q[r][d + i]), key, acc[r]);
        }
    }
}

/* acc[r] = sum_d q[r][d] * K[block][d][0..16): one accumulator per score, in order of d */
INLINE void score_block(vf acc[SCORE_ROWS], const float *const q[SCORE_ROWS], int n, const void *k, dtype type, int D) {
    UNROLL for (int r = 0; r < n; r++) acc[r] = vf_zero();
    if (type == DT_Q8_0) {
        score_block_q8(acc, q, n, k, D);
        return;
    }
    for (int d = 0; d < D; d++) {
        vf key = vf_load_typed(k, type, (size_t)d * OP_KV_BLOCK);
        UNROLL for (int r = 0; r < n; r++) acc[r] = vf_fma(vf_set(q[r][d]), key, acc[r]);
    }
}

/* Lanes of block [b, b+16) that lie in [lo,hi) go to score[j - lo]. */
INLINE void score_store(float *score, vf v, int b, int lo, int hi) {
    if (b >= lo && b + OP_KV_BLOCK <= hi) {
        vf_store(score + (b - lo), v);
        return;
    }
    float lane[OP_KV_BLOCK];
    vf_store(lane, v);
    for (int j = b > lo ? b : lo; j < hi && j < b + OP_KV_BLOCK; j++) score[j - lo] = lane[j - b];
}

/* Scores of n query vectors, from `first` on, against one span.  n and type are constants at every call. */
INLINE void score_vectors(const op_tile *t, const op_span *s, const int *hi, size_t offset, dtype type, int first,
                          int n) {
    const float *q[SCORE_ROWS];
    vf acc[SCORE_ROWS], scale = vf_set(t->scale);
    for (int r = 0; r < n; r++) q[r] = t->q + vector_at(t, first + r);
    size_t block_elements = (size_t)t->D * OP_KV_BLOCK;
    for (int b = s->lo / OP_KV_BLOCK * OP_KV_BLOCK; b < s->hi; b += OP_KV_BLOCK) {
        score_block(acc, q, n, typed_at(s->k, type, (size_t)(b / OP_KV_BLOCK) * block_elements), type, t->D);
        for (int r = 0; r < n; r++)
            score_store(score_row(t, first + r) + offset, vf_mul(acc[r], scale), b, s->lo,
                        span_end(t, s, hi, first + r));
    }
}

INLINE void score_typed(const op_tile *t, const op_span *s, const int *hi, size_t offset, dtype type) {
    int M = t->rows * t->heads, i = 0;
    for (; M - i >= 8; i += 8) score_vectors(t, s, hi, offset, type, i, 8);
    for (; M - i >= 4; i += 4) score_vectors(t, s, hi, offset, type, i, 4);
    for (; M - i >= 2; i += 2) score_vectors(t, s, hi, offset, type, i, 2);
    for (; M - i >= 1; i += 1) score_vectors(t, s, hi, offset, type, i, 1);
}

/* Scores of the whole tile against one span, at `offset` in each score row.  hi NULL: the span ends alike for all. */
static void score_span(const op_tile *t, const op_span *s, const int *hi, size_t offset) {
    if (s->hi <= s->lo) return;
    switch (s->type) {
    case DT_BF16: score_typed(t, s, hi, offset, DT_BF16); break;
    case DT_F16: score_typed(t, s, hi, offset, DT_F16); break;
    case DT_Q8_0: score_typed(t, s, hi, offset, DT_Q8_0); break;
    default: score_typed(t, s, hi, offset, DT_F32); break;
    }
}

/* p = exp(score - *largest) over n visible keys, *largest their maximum; returns the sum.  The row is padded to whole
 * vectors with zeros. */
static float softmax_row(float *score, int n, float *largest) {
    int padded = (n + OP_LANES - 1) / OP_LANES * OP_LANES;
    for (int v = n; v < padded; v++) score[v] = -INFINITY;
    vf top = vf_set(-INFINITY), sum = vf_zero();
    for (int v = 0; v < n; v += OP_LANES) top = vf_max(top, vf_load(score + v));
    *largest = vf_fold_max(top);
    vf max = vf_set(*largest);
    for (int v = 0; v < n; v += OP_LANES) {
        vf p = vf_exp(vf_sub(vf_load(score + v), max));
        vf_store(score + v, p);
        sum = vf_add(sum, p);
    }
    return vf_fold_sum(sum);
}

/* Elements [i, i+n) of stored values, n <= 16; in q8_0 n is 16 and they lie in one block. */
INLINE vf value_load(const void *p, dtype type, size_t i, int n) {
    if (type != DT_Q8_0) return vf_load_typed_n(p, type, i, n);
    const uint8_t *block = typed_at(p, type, i);
    return vf_mul(vf_from_i8((const int8_t *)block + 2 + i % OP_Q8), vf_set_f16(block));
}

/* out[r] += sum over keys j in [from,to) of p[r][j - lo] * V[j][d0..d0+16*vecs), in order of j; last: lanes of the last
 * vector that exist.  n and vecs are constants at every call. */
INLINE void value_block(float *const out[GEMM_ROWS], const float *const p[GEMM_ROWS], const op_span *s, dtype type,
                        int from, int to, int D, int d0, int n, int vecs, int last) {
    vf acc[GEMM_ROWS][GEMM_VECS];
    UNROLL for (int r = 0; r < n; r++) UNROLL for (int v = 0; v < vecs; v++)
        acc[r][v] = vf_load_n(out[r] + d0 + v * OP_LANES, v == vecs - 1 ? last : OP_LANES);
    for (int j = from; j < to; j++) {
        size_t at = (size_t)j * (size_t)D + (size_t)d0;
        vf val[GEMM_VECS];
        UNROLL for (int v = 0; v < vecs; v++)
            val[v] = value_load(s->v, type, at + (size_t)(v * OP_LANES), v == vecs - 1 ? last : OP_LANES);
        UNROLL for (int r = 0; r < n; r++) {
            vf w = vf_set(p[r][j - s->lo]);
            UNROLL for (int v = 0; v < vecs; v++) acc[r][v] = vf_fma(w, val[v], acc[r][v]);
        }
    }
    UNROLL for (int r = 0; r < n; r++) UNROLL for (int v = 0; v < vecs; v++)
        vf_store_n(out[r] + d0 + v * OP_LANES, acc[r][v], v == vecs - 1 ? last : OP_LANES);
}

INLINE void value_rows(float *const out[GEMM_ROWS], const float *const p[GEMM_ROWS], const op_span *s, dtype type,
                       int from, int to, int D, int n) {
    int d = 0;
    for (; d + GEMM_VECS * OP_LANES <= D; d += GEMM_VECS * OP_LANES)
        value_block(out, p, s, type, from, to, D, d, n, GEMM_VECS, OP_LANES);
    for (; d < D; d += OP_LANES)
        value_block(out, p, s, type, from, to, D, d, n, 1, D - d < OP_LANES ? D - d : OP_LANES);
}

/* Values of one span for n query vectors: the keys all of them see together, then what single rows see beyond. */
INLINE void value_vectors(const op_tile *t, const op_span *s, const int *hi, size_t offset, dtype type, int first,
                          int n) {
    float *out[GEMM_ROWS];
    const float *p[GEMM_ROWS];
    int common = s->hi;
    for (int r = 0; r < n; r++) {
        out[r] = t->out + vector_at(t, first + r);
        p[r] = score_row(t, first + r) + offset;
        int end = span_end(t, s, hi, first + r);
        common = end < common ? end : common;
    }
    if (common < s->lo) common = s->lo;
    value_rows(out, p, s, type, s->lo, common, t->D, n);
    for (int r = 0; r < n; r++) {
        int end = span_end(t, s, hi, first + r);
        if (end > common) value_rows(out + r, p + r, s, type, common, end, t->D, 1);
    }
}

INLINE void value_typed(const op_tile *t, const op_span *s, const int *hi, size_t offset, dtype type) {
    int M = t->rows * t->heads, i = 0;
    for (; M - i >= GEMM_ROWS; i += GEMM_ROWS) value_vectors(t, s, hi, offset, type, i, GEMM_ROWS);
    for (; M - i >= 4; i += 4) value_vectors(t, s, hi, offset, type, i, 4);
    for (; M - i >= 2; i += 2) value_vectors(t, s, hi, offset, type, i, 2);
    for (; M - i >= 1; i += 1) value_vectors(t, s, hi, offset, type, i, 1);
}

static void value_span(const op_tile *t, const op_span *s, const int *hi, size_t offset) {
    if (s->hi <= s->lo) return;
    switch (s->type) {
    case DT_BF16: value_typed(t, s, hi, offset, DT_BF16); break;
    case DT_F16: value_typed(t, s, hi, offset, DT_F16); break;
    case DT_Q8_0: value_typed(t, s, hi, offset, DT_Q8_0); break;
    default: value_typed(t, s, hi, offset, DT_F32); break;
    }
}

/* What the backward pass needs to compute the probabilities again. */
INLINE void keep_stats(const op_tile *t, int i, float max, float inverse) {
    float *s = t->stats + (size_t)(i / t->heads) * t->stats_stride + (size_t)(i % t->heads) * 2;
    s[0] = max;
    s[1] = inverse;
}

/* Bias of query vector i added to its n visible scores. */
static void bias_scores(const op_tile *t, int i, int n) {
    const float *bias = t->bias[i / t->heads] + (size_t)(i % t->heads) * t->bias_stride;
    add(score_row(t, i), score_row(t, i), bias, n);
}

static void attend(const op_tile *t) {
    int memory = t->mem.hi > t->mem.lo ? t->mem.hi - t->mem.lo : 0, M = t->rows * t->heads;
    float sum[OP_TILE], max[OP_TILE];
    score_span(t, &t->mem, NULL, 0);
    score_span(t, &t->local, t->hi, (size_t)memory);
    for (int i = 0; i < M; i++) {
        int end = t->hi[i / t->heads], local = end > t->local.lo ? end - t->local.lo : 0;
        if (t->bias[0]) bias_scores(t, i, memory + local);
        sum[i] = softmax_row(score_row(t, i), memory + local, &max[i]);
        memset(t->out + vector_at(t, i), 0, (size_t)t->D * sizeof(float));
    }
    value_span(t, &t->mem, NULL, 0);
    value_span(t, &t->local, t->hi, (size_t)memory);
    for (int i = 0; i < M; i++) {
        float *out = t->out + vector_at(t, i);
        float inverse = sum[i] == 0 ? 0.0f : 1.0f / sum[i]; /* no visible key: zeros */
        vf r = vf_set(inverse);
        if (t->stats) keep_stats(t, i, max[i], inverse);
        for (int d = 0; d < t->D; d += OP_LANES)
            vf_store_n(out + d, vf_mul(vf_load_n(out + d, t->D - d), r), t->D - d);
    }
}
