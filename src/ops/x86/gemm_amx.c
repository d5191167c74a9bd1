/* gemm_amx.c - bf16 products with AMX: one TDPBF16PS multiplies 16 rows by 16 outputs over 32 inputs.
 *
 *   x     [T][K]: 16 rows of 32 inputs are a tile as they lie
 *   panel [K/2][64][2]: 16 pairs of inputs for 16 outputs are a tile as they lie
 *   y     [T][N]: 16 x 16 outputs
 *
 * Of the eight tile registers 0..3 hold outputs, 4 and 5 rows, 6 and 7 columns of the panel: 32 rows x 32 outputs at a
 * time; for at most 16 rows all 64 outputs, so that the panel passes once from front to back.  The instruction adds 32
 * products in a fixed order and flushes subnormals; both are part of this level's definition, and so is the step of 32
 * inputs (the last one filled up with zeros).  How many rows a tile has does not matter to any of them.
 */
#include <immintrin.h>

#include "ops/ops_int.h"

#define INLINE static inline __attribute__((always_inline))
enum { ROWS = 16, VEC = 16, STEP = 32 /* inputs of a tile */, KBLOCK = 512, TILE_BYTES = 64, PANEL_STEP = STEP * OP_PANEL };
enum { PANEL_STRIDE = 2 * OP_PANEL * (int)sizeof(uint16_t) /* from one pair of inputs to the next */ };

typedef struct tile_config { /* as LDTILECFG reads it */
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

/* upper, lower: rows of tiles 0, 1, 4 and of tiles 2, 3, 5; wide: 0..3 are all `upper` rows, 5..7 panel. */
static void configure(int upper, int lower, bool wide) {
    tile_config c = { .palette = 1 };
    _Static_assert(sizeof c == 64, "the layout is the processor's");
    for (int i = 0; i < 8; i++) c.row_bytes[i] = TILE_BYTES;
    c.rows[0] = c.rows[1] = c.rows[4] = (uint8_t)upper;
    c.rows[2] = c.rows[3] = (uint8_t)(wide ? upper : lower);
    c.rows[5] = (uint8_t)(wide ? ROWS : lower);
    c.rows[6] = c.rows[7] = ROWS;
    _tile_loadconfig(&c);
}

/* Inputs of one block: whole steps in place, then perhaps a last one that was filled up with zeros. */
typedef struct inputs {
    const uint16_t *x, *panel; /* at the block's first input */
    size_t ldx;
    int steps;
    const uint16_t *x_tail, *panel_tail; /* [32][STEP], [STEP/2][64][2]; NULL: none */
} inputs;

/* 32 rows x 32 outputs (16 x 32 where lower is false) */
INLINE void block_32(float *y, size_t ldy, const inputs *in, int v, bool add, bool lower) {
    size_t y_stride = ldy * sizeof *y, x_stride = in->ldx * sizeof *in->x;
    float *y2 = y + ROWS * ldy;
    if (add) {
        _tile_loadd(0, y, y_stride);
        _tile_loadd(1, y + VEC, y_stride);
        if (lower) {
            _tile_loadd(2, y2, y_stride);
            _tile_loadd(3, y2 + VEC, y_stride);
        }
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (int s = 0; s < in->steps + (in->x_tail != NULL); s++) {
        bool tail = s == in->steps;
        const uint16_t *x = tail ? in->x_tail : in->x + s * STEP;
        const uint16_t *w = (tail ? in->panel_tail : in->panel + s * PANEL_STEP) + v * 2 * VEC;
        size_t stride = tail ? TILE_BYTES : x_stride;
        _tile_loadd(4, x, stride);
        _tile_loadd(6, w, PANEL_STRIDE);
        _tile_loadd(7, w + 2 * VEC, PANEL_STRIDE);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        if (lower) {
            _tile_loadd(5, x + ROWS * stride / sizeof *x, stride);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, y, y_stride);
    _tile_stored(1, y + VEC, y_stride);
    if (lower) {
        _tile_stored(2, y2, y_stride);
        _tile_stored(3, y2 + VEC, y_stride);
    }
}

/* up to 16 rows x 64 outputs */
static void block_64(float *y, size_t ldy, const inputs *in, bool add) {
    size_t y_stride = ldy * sizeof *y;
    if (add) {
        _tile_loadd(0, y, y_stride);
        _tile_loadd(1, y + VEC, y_stride);
        _tile_loadd(2, y + 2 * VEC, y_stride);
        _tile_loadd(3, y + 3 * VEC, y_stride);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (int s = 0; s < in->steps + (in->x_tail != NULL); s++) {
        bool tail = s == in->steps;
        const uint16_t *w = tail ? in->panel_tail : in->panel + s * PANEL_STEP;
        if (tail)
            _tile_loadd(4, in->x_tail, TILE_BYTES);
        else
            _tile_loadd(4, in->x + s * STEP, in->ldx * sizeof *in->x);
        _tile_loadd(5, w, PANEL_STRIDE);
        _tile_loadd(6, w + 2 * VEC, PANEL_STRIDE);
        _tile_loadd(7, w + 4 * VEC, PANEL_STRIDE);
        _tile_dpbf16ps(0, 4, 5);
        _tile_loadd(5, w + 6 * VEC, PANEL_STRIDE);
        _tile_dpbf16ps(1, 4, 6);
        _tile_dpbf16ps(2, 4, 7);
        _tile_dpbf16ps(3, 4, 5);
    }
    _tile_stored(0, y, y_stride);
    _tile_stored(1, y + VEC, y_stride);
    _tile_stored(2, y + 2 * VEC, y_stride);
    _tile_stored(3, y + 3 * VEC, y_stride);
}

/* The last inputs of up to 32 rows, filled up to a step. */
static void copy_tail(uint16_t (*to)[STEP], const uint16_t *x, size_t ldx, int rows, int count) {
    for (int r = 0; r < rows; r++) {
        memcpy(to[r], x + (size_t)r * ldx, (size_t)count * sizeof *x);
        memset(to[r] + count, 0, (size_t)(STEP - count) * sizeof *x);
    }
}

static void panel_64(float *y, size_t ldy, const uint16_t *x, size_t ldx, const uint16_t *panel, int T, int K,
                     bool add) {
    uint16_t x_tail[2 * ROWS][STEP], panel_tail[PANEL_STEP];
    int whole = K / STEP * STEP, rest = K - whole;
    if (rest) {
        memcpy(panel_tail, panel + (size_t)whole * OP_PANEL, (size_t)rest * OP_PANEL * sizeof *panel);
        memset(panel_tail + rest * OP_PANEL, 0, (size_t)(STEP - rest) * OP_PANEL * sizeof *panel);
    }
    int blocks = T / (2 * ROWS), left = T % (2 * ROWS);
    for (int pass = 0; pass < 2; pass++) { /* whole blocks of rows, then what is left: one configuration each */
        if (pass == 0 ? blocks == 0 : left == 0) continue;
        bool wide = pass == 1 && left <= ROWS, lower = !wide;
        configure(pass == 0 || left > ROWS ? ROWS : left, pass == 0 ? ROWS : wide ? 0 : left - ROWS, wide);
        int first = pass == 0 ? 0 : blocks * 2 * ROWS, rows = pass == 0 ? 2 * ROWS : left, last = pass == 0 ? first + blocks * rows : T;
        for (int k0 = 0; k0 < K; k0 += KBLOCK) {
            int k1 = K - k0 > KBLOCK ? k0 + KBLOCK : K;
            bool tail = k1 == K && rest, more = add || k0 > 0;
            for (int v = 0; v < (wide ? 1 : 4); v += 2)
                for (int t = first; t < last; t += rows) {
                    const uint16_t *xt = x + (size_t)t * ldx;
                    if (tail) copy_tail(x_tail, xt + whole, ldx, rows, rest);
                    inputs in = { xt + k0, panel + (size_t)k0 * OP_PANEL, ldx, (k1 - k0) / STEP,
                                  tail ? x_tail[0] : NULL, panel_tail };
                    float *yt = y + (size_t)t * ldy + v * VEC;
                    if (wide)
                        block_64(yt, ldy, &in, more);
                    else
                        block_32(yt, ldy, &in, v, more, lower);
                }
        }
    }
    _tile_release();
}

void op_gemm_bf16_amx(float *y, size_t ldy, const void *x, size_t ldx, const void *panel, int T, int K, int cols,
                      bool add) {
    K += K & 1; /* both operands end in a zero then */
    if (cols == OP_PANEL) {
        panel_64(y, ldy, x, ldx, panel, T, K, add);
        return;
    }
    enum { EDGE_ROWS = 32 };
    float edge[EDGE_ROWS * OP_PANEL];
    for (int t = 0; t < T; t += EDGE_ROWS) {
        int rows = T - t < EDGE_ROWS ? T - t : EDGE_ROWS;
        memset(edge, 0, sizeof edge);
        for (int r = 0; add && r < rows; r++)
            memcpy(edge + r * OP_PANEL, y + (size_t)(t + r) * ldy, (size_t)cols * sizeof *y);
        panel_64(edge, OP_PANEL, (const uint16_t *)x + (size_t)t * ldx, ldx, panel, rows, K, add);
        for (int r = 0; r < rows; r++)
            memcpy(y + (size_t)(t + r) * ldy, edge + r * OP_PANEL, (size_t)cols * sizeof *y);
    }
}
