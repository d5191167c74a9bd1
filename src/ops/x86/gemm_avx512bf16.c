/* gemm_avx512bf16.c - bf16 products with VDPBF16PS: 32 products of pairs per instruction, f32 accumulators.
 *
 *   panel [K/2][64][2]: one pair of inputs for 64 outputs is four registers
 *   x     [T][K]: the same pair of one row, broadcast
 *
 * Tile 6 x 64 = 24 accumulators, carried over blocks of K through y.  The instruction flushes subnormals and adds the
 * pair's products in a fixed order; both are part of this level's definition.
 */
#include <immintrin.h>

#include "ops/ops_int.h"

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")
enum { ROWS = 6, VECS = 4, KBLOCK = 512, EDGE_ROWS = 32 };

INLINE void tile(float *y, size_t ldy, const uint16_t *x, size_t ldx, const uint16_t *panel, int k0, int k1, bool add,
                 int rows) {
    __m512 acc[ROWS][VECS];
    UNROLL for (int r = 0; r < rows; r++) UNROLL for (int v = 0; v < VECS; v++) acc[r][v] =
        add ? _mm512_loadu_ps(y + (size_t)r * ldy + (size_t)(v * OP_LANES)) : _mm512_setzero_ps();
    const uint16_t *w = panel + (size_t)k0 * OP_PANEL;
    const uint16_t *upper = x + k0, *lower = upper + 3 * ldx; /* rows 0..2 and 3..5: two pointers reach all six */
    for (int k = k0; k < k1; k += 2, w += 2 * OP_PANEL, upper += 2, lower += 2) {
        __m512bh b[VECS];
        UNROLL for (int v = 0; v < VECS; v++) b[v] = (__m512bh)_mm512_loadu_si512(w + v * 2 * OP_LANES);
        UNROLL for (int r = 0; r < rows; r++) {
            int pair;
            memcpy(&pair, r < 3 ? upper + (size_t)r * ldx : lower + (size_t)(r - 3) * ldx, sizeof pair);
            __m512bh a = (__m512bh)_mm512_set1_epi32(pair);
            UNROLL for (int v = 0; v < VECS; v++) acc[r][v] = _mm512_dpbf16_ps(acc[r][v], a, b[v]);
        }
    }
    UNROLL for (int r = 0; r < rows; r++) UNROLL for (int v = 0; v < VECS; v++)
        _mm512_storeu_ps(y + (size_t)r * ldy + (size_t)(v * OP_LANES), acc[r][v]);
}

static void panel_64(float *y, size_t ldy, const uint16_t *x, size_t ldx, const uint16_t *panel, int T, int K,
                     bool add) {
    for (int k0 = 0; k0 < K; k0 += KBLOCK) {
        int k1 = K - k0 > KBLOCK ? k0 + KBLOCK : K, t = 0;
        bool more = add || k0 > 0;
        for (; t + ROWS <= T; t += ROWS)
            tile(y + (size_t)t * ldy, ldy, x + (size_t)t * ldx, ldx, panel, k0, k1, more, ROWS);
        float *yt = y + (size_t)t * ldy;
        const uint16_t *xt = x + (size_t)t * ldx;
        switch (T - t) {
        case 1: tile(yt, ldy, xt, ldx, panel, k0, k1, more, 1); break;
        case 2: tile(yt, ldy, xt, ldx, panel, k0, k1, more, 2); break;
        case 3: tile(yt, ldy, xt, ldx, panel, k0, k1, more, 3); break;
        case 4: tile(yt, ldy, xt, ldx, panel, k0, k1, more, 4); break;
        case 5: tile(yt, ldy, xt, ldx, panel, k0, k1, more, 5); break;
        default: break;
        }
    }
}

void op_gemm_bf16_avx512bf16(float *y, size_t ldy, const void *x, size_t ldx, const void *panel, int T, int K, int cols,
                             bool add) {
    if (cols == OP_PANEL) {
        panel_64(y, ldy, x, ldx, panel, T, K, add);
        return;
    }
    float edge[EDGE_ROWS * OP_PANEL];
    for (int t = 0; t < T; t += EDGE_ROWS) {
        int rows = T - t < EDGE_ROWS ? T - t : EDGE_ROWS;
        memset(edge, 0, sizeof edge);
        for (int r = 0; add && r < rows; r++)
            memcpy(edge + r * OP_PANEL, y + (size_t)(t + r) * ldy, (size_t)cols * sizeof *y);
        panel_64(edge, OP_PANEL, (const uint16_t *)x + (size_t)t * ldx, ldx, panel, rows, K, add);
        for (int r = 0; r < rows; r++) memcpy(y + (size_t)(t + r) * ldy, edge + r * OP_PANEL, (size_t)cols * sizeof *y);
    }
}

/* VCVTNE2PS2BF16 rounds as f32_to_bf16 does, but for subnormal numbers, which it flushes: runs with one go the slow
 * way. */
void op_round_bf16_avx512bf16(uint16_t *y, const float *x, int n) {
    enum { PAIR = 2 * OP_LANES, SUBNORMAL = 0x20 };
    int i = 0;
    for (; i + PAIR <= n; i += PAIR) {
        __m512 low = _mm512_loadu_ps(x + i), high = _mm512_loadu_ps(x + i + OP_LANES);
        if (!_kortestz_mask16_u8(_mm512_fpclass_ps_mask(low, SUBNORMAL), _mm512_fpclass_ps_mask(high, SUBNORMAL))) {
            for (int j = 0; j < PAIR; j++) y[i + j] = f32_to_bf16(x[i + j]);
        } else {
            _mm512_storeu_si512(y + i, (__m512i)_mm512_cvtne2ps_pbh(high, low));
        }
    }
    for (; i < n; i++) y[i] = f32_to_bf16(x[i]);
}
