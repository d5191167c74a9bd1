/* quant_kernels.h - products with weights of block types, written once over a vector of bytes.
 *
 * Included by one file per instruction set, which first defines vectors vb (bytes), vi (int32) and vf (f32) of OUTS
 * outputs, 4 bytes each, their primitives, and the tile: QUANT_ROWS x QUANT_VECS accumulators.  SIGNED_BYTES: its
 * vi_dot takes q8_0's bytes less 128.  scalar_quant.c defines what is computed.
 *
 *   panel --load 8 runs, for once--> stage (in the first-level cache): bytes u[8][64][4], scales in f32
 *         --tile after tile of rows--> int32 sums of a run in registers, added to y by one fused multiply-add
 *
 * So nibbles and scales are unpacked once for all rows, and every type runs through one tile.  q8_0 is read where it
 * is.
 */
#include <math.h>

#include "ops/quant_int.h"

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")
/* Compilers like to carry y in registers over the runs, and then spill the sums. */
#define KEEP_IN_MEMORY(p) __asm__ volatile("" : : "r"(p) : "memory")
enum { QUANT_ROWS = 4, VEC_BYTES = 4 * OUTS, GROUP_BYTES = 4 * OP_PANEL, LINE = 64 /* of cache, bytes */, LEVEL_2 = 2 };

typedef struct stage {
    const uint8_t *u; /* [runs][8][64][4], step bytes from run to run */
    size_t step;
    const uint8_t *next; /* where the panel goes on, */
    int share;           /* and how much of a run of it each tile fetches */
    _Alignas(64) float s[QUANT_RUNS][2][OP_PANEL];
    _Alignas(64) float m[QUANT_RUNS][OP_PANEL];
    _Alignas(64) uint8_t bytes[QUANT_RUNS][QUANT_GROUPS * GROUP_BYTES];
} stage;

/* ---- unpacking ---- */

INLINE void load_nibbles(uint8_t *u, const panel_nibbles p) {
    const uint8_t *from = &p[0][0][0];
    vb low = vb_set(0x0f);
    UNROLL for (int i = 0; i < QUANT_GROUPS / 2 * GROUP_BYTES; i += VEC_BYTES) {
        vb x = vb_load(from + i);
        vb_store(u + i, vb_and(x, low));
        vb_store(u + QUANT_GROUPS / 2 * GROUP_BYTES + i, vb_and(vb_right(x, 4), low));
    }
}

/* Bit g of each byte of `high` becomes bit 4 of group g.  Shifts cross bytes; what crosses is masked away. */
INLINE void load_high5(uint8_t *u, const uint8_t *high) {
    vb bit = vb_set(0x10);
    for (int i = 0; i < GROUP_BYTES; i += VEC_BYTES) {
        vb h = vb_load(high + i);
        UNROLL for (int g = 0; g < QUANT_GROUPS; g++) {
            uint8_t *to = u + g * GROUP_BYTES + i;
            vb_store(to, vb_or(vb_load(to), vb_and(g < 4 ? vb_left(h, 4 - g) : vb_right(h, g - 4), bit)));
        }
    }
}

/* Bits 2g, 2g+1 become bits 4 and 5 of group g, g < 4. */
INLINE void load_high6(uint8_t *u, const uint8_t *high) {
    vb bits = vb_set(0x30);
    for (int i = 0; i < GROUP_BYTES; i += VEC_BYTES) {
        vb h = vb_load(high + i);
        UNROLL for (int g = 0; g < 4; g++) {
            uint8_t *to = u + g * GROUP_BYTES + i;
            vb_store(to, vb_or(vb_load(to), vb_and(g < 2 ? vb_left(h, 4 - 2 * g) : vb_right(h, 2 * g - 4), bits)));
        }
    }
}

INLINE void load_halves(float *s, const uint16_t *p) {
    UNROLL for (int j = 0; j < OP_PANEL; j += OUTS) vf_store(s + j, vf_from_f16(p + j));
}

/* s = d times bytes c */
INLINE void load_scales(float *s, const float *d, const uint8_t *c) {
    UNROLL for (int j = 0; j < OP_PANEL; j += OUTS) vf_store(s + j, vf_mul(vf_load(d + j), vf_from_u8(c + j)));
}
INLINE void load_signed_scales(float *s, const float *d, const int8_t *c) {
    UNROLL for (int j = 0; j < OP_PANEL; j += OUTS) vf_store(s + j, vf_mul(vf_load(d + j), vf_from_i8(c + j)));
}

INLINE void stage_q8_0(stage *st, const panel_q8_0 *p, int runs) {
    st->u = &p->u[0][0][0];
    st->step = sizeof *p;
    for (int b = 0; b < runs; b++) load_halves(st->s[b][0], p[b].s);
}

INLINE void stage_q4_0(stage *st, const panel_q4_0 *p, int runs) {
    for (int b = 0; b < runs; b++) {
        load_halves(st->s[b][0], p[b].s);
        load_nibbles(st->bytes[b], p[b].u);
    }
}

INLINE void stage_q4_K(stage *st, const panel_q4_K *p) {
    float d[OP_PANEL], m[OP_PANEL];
    load_halves(d, p->d);
    load_halves(m, p->m);
    for (int b = 0; b < QUANT_RUNS; b++) {
        load_scales(st->s[b][0], d, p->run[b].s);
        load_scales(st->m[b], m, p->run[b].m);
        load_nibbles(st->bytes[b], p->run[b].u);
    }
}

INLINE void stage_q5_K(stage *st, const panel_q5_K *p) {
    float d[OP_PANEL], m[OP_PANEL];
    load_halves(d, p->d);
    load_halves(m, p->m);
    for (int b = 0; b < QUANT_RUNS; b++) {
        load_scales(st->s[b][0], d, p->run[b].s);
        load_scales(st->m[b], m, p->run[b].m);
        load_nibbles(st->bytes[b], p->run[b].u);
        load_high5(st->bytes[b], &p->run[b].high[0][0]);
    }
}

INLINE void stage_q6_K(stage *st, const panel_q6_K *p) {
    float d[OP_PANEL];
    load_halves(d, p->d);
    for (int b = 0; b < QUANT_RUNS; b++) {
        load_nibbles(st->bytes[b], p->run[b].u);
        for (int h = 0; h < 2; h++) {
            load_signed_scales(st->s[b][h], d, p->run[b].s[h]);
            load_high6(st->bytes[b] + h * 4 * GROUP_BYTES, &p->run[b].high[h][0][0]);
        }
    }
}

/* Bytes of the panel per run. */
INLINE int run_bytes(dtype type) {
    switch (type) {
    case DT_Q8_0: return sizeof(panel_q8_0);
    case DT_Q4_0: return sizeof(panel_q4_0);
    case DT_Q4_K: return sizeof(panel_q4_K) / QUANT_RUNS;
    case DT_Q5_K: return sizeof(panel_q5_K) / QUANT_RUNS;
    default: return sizeof(panel_q6_K) / QUANT_RUNS;
    }
}

/* Runs [b, b+runs) of a panel; b a multiple of 8. */
INLINE void stage_load(stage *st, const void *panel, dtype type, int b, int runs) {
    st->next = (const uint8_t *)panel + (size_t)(b + QUANT_RUNS) * (size_t)run_bytes(type);
    st->u = st->bytes[0];
    st->step = sizeof st->bytes[0];
    switch (type) {
    case DT_Q8_0: stage_q8_0(st, (const panel_q8_0 *)panel + b, runs); break;
    case DT_Q4_0: stage_q4_0(st, (const panel_q4_0 *)panel + b, runs); break;
    case DT_Q4_K: stage_q4_K(st, (const panel_q4_K *)panel + b / QUANT_RUNS); break;
    case DT_Q5_K: stage_q5_K(st, (const panel_q5_K *)panel + b / QUANT_RUNS); break;
    default: stage_q6_K(st, (const panel_q6_K *)panel + b / QUANT_RUNS); break;
    }
}

/* ---- multiplying ---- */

INLINE int offset_of(dtype type) {
    return type == DT_Q8_0 ? 128 : type == DT_Q4_0 ? 8 : type == DT_Q6_K ? 32 : 0;
}

/* -offset * (half[0] + half[1]), or one of them, in every lane: one multiply-add of 16-bit pairs */
INLINE vi begin_sum(const op_qrun *x, dtype type, int half) {
    int pair, minus = type == DT_Q8_0 && SIGNED_BYTES ? 0 : -offset_of(type);
    if (minus == 0) return vi_set(0);
    memcpy(&pair, x->half, sizeof pair);
    bool first = type != DT_Q6_K || half == 0, second = type != DT_Q6_K || half == 1;
    return vi_pairs(vi_set(pair), vi_set((int)((first ? (uint32_t)minus & 0xffffu : 0u) |
                                               (second ? (uint32_t)minus << 16 : 0u))));
}

/* Few rows read the panel at the speed of memory, if memory is asked in time and evenly: at run b each tile of rows
 * fetches its share of run b of the next stage, into the second-level cache (into the first is slower, docs/SPEED.md).
 * Reading beyond the last panel is asking for nothing. */
INLINE void fetch_share(stage *st, dtype type, int tiles) {
    st->share = (run_bytes(type) / LINE + tiles) / tiles * LINE;
}
INLINE void fetch_ahead(const stage *st, dtype type, int b, int tile) {
    const int bytes = run_bytes(type);
    for (int i = tile * st->share; i < bytes && i < (tile + 1) * st->share; i += LINE)
        __builtin_prefetch((const char *)st->next + b * bytes + i, 0, LEVEL_2);
}

/* Inputs 4g .. 4g+3 in every lane. */
INLINE vi four_of(const op_qrun *x, int g) {
    int four;
    memcpy(&four, x->q + 4 * g, sizeof four);
    return vi_set(four);
}

/* rows x (QUANT_VECS*OUTS) outputs from column `col` on, over all runs of the stage.  type and rows are constants at
 * every call.  Registers hold the sums of integers; y [rows,64] is added to where it lies, close together.  The next
 * tile's rows of x are `ahead` runs from this one's; they are fetched meanwhile. */
INLINE void quant_tile(float *y, const op_qrun *x, size_t ldx, size_t ahead, const stage *st, int runs, dtype type,
                       int rows, int tile, int col) {
    const int halves = type == DT_Q6_K ? 2 : 1, groups = QUANT_GROUPS / halves;
    for (int b = 0; b < runs; b++, x++)
        for (int h = 0; h < halves; h++) {
            const uint8_t *u = st->u + (size_t)b * st->step + h * groups * GROUP_BYTES + 4 * col;
            vi acc[QUANT_ROWS][QUANT_VECS];
            UNROLL for (int r = 0; r < rows; r++) {
                vi begin = begin_sum(x + (size_t)r * ldx, type, h);
                UNROLL for (int v = 0; v < QUANT_VECS; v++) acc[r][v] = begin;
            }
            UNROLL for (int g = 0; g < groups; g++, u += GROUP_BYTES) {
                vb w[QUANT_VECS];
                UNROLL for (int v = 0; v < QUANT_VECS; v++) w[v] = vb_load(u + v * VEC_BYTES);
                UNROLL for (int r = 0; r < rows; r++) {
                    vi q = four_of(x + (size_t)r * ldx, h * groups + g);
                    UNROLL for (int v = 0; v < QUANT_VECS; v++) acc[r][v] = vi_dot(acc[r][v], w[v], q, type == DT_Q8_0);
                }
            }
            if (col == 0 && h == 0) {
                fetch_ahead(st, type, b, tile);
                UNROLL for (int r = 0; r < rows; r++) __builtin_prefetch(x + (size_t)r * ldx + ahead);
            }
            KEEP_IN_MEMORY(y);
            UNROLL for (int r = 0; r < rows; r++) {
                const op_qrun *xr = x + (size_t)r * ldx;
                vf sum[QUANT_VECS];
                UNROLL for (int v = 0; v < QUANT_VECS; v++) {
                    int at = col + v * OUTS;
                    vf s = vf_mul(vf_load(&st->s[b][h][at]), vf_set(xr->scale));
                    sum[v] = vf_fma(vf_of(acc[r][v]), s, vf_load(y + r * OP_PANEL + at));
                    if (type == DT_Q4_K || type == DT_Q5_K)
                        sum[v] = vf_less(vf_load(&st->m[b][at]), vf_set(xr->sum), sum[v]);
                }
                UNROLL for (int v = 0; v < QUANT_VECS; v++) vf_store(y + r * OP_PANEL + col + v * OUTS, sum[v]);
            }
        }
}

INLINE void quant_rows(float *y, const op_qrun *x, size_t ldx, size_t ahead, const stage *st, int runs, dtype type,
                       int rows, int tile) {
    for (int c = 0; c < OP_PANEL; c += QUANT_VECS * OUTS)
        switch (rows) {
        case 1: quant_tile(y, x, ldx, ahead, st, runs, type, 1, tile, c); break;
        case 2: quant_tile(y, x, ldx, ahead, st, runs, type, 2, tile, c); break;
        case 3: quant_tile(y, x, ldx, ahead, st, runs, type, 3, tile, c); break;
        default: quant_tile(y, x, ldx, ahead, st, runs, type, QUANT_ROWS, tile, c); break;
        }
}

/* y [T,64] += x times a panel. */
INLINE void quant_panel(float *y, const op_qrun *x, size_t ldx, const void *panel, dtype type, int T, int K) {
    stage st;
    fetch_share(&st, type, (T + QUANT_ROWS - 1) / QUANT_ROWS);
    for (int b = 0, all = K / QUANT_RUN; b < all; b += QUANT_RUNS) {
        int runs = all - b < QUANT_RUNS ? all - b : QUANT_RUNS;
        stage_load(&st, panel, type, b, runs);
        for (int t = 0; t < T; t += QUANT_ROWS) {
            bool last = T - t <= QUANT_ROWS;
            quant_rows(y + t * OP_PANEL, x + (size_t)t * ldx + b, ldx, last ? 0 : QUANT_ROWS * ldx, &st, runs, type,
                       last ? T - t : QUANT_ROWS, t / QUANT_ROWS);
        }
    }
}

/* Rows of y lie far apart, often by a power of two, and every stage of the panel comes back to them: so they are
 * summed side by side, and take their places at the end. */
INLINE void quant_gemm(float *y, size_t ldy, const op_qrun *x, size_t ldx, const void *panel, dtype type, int T, int K,
                       int cols, bool add) {
    _Alignas(LINE) float sum[OP_ROW_BLOCK * OP_PANEL];
    for (int t = 0; t < T; t += OP_ROW_BLOCK) {
        int rows = T - t < OP_ROW_BLOCK ? T - t : OP_ROW_BLOCK;
        float *yt = y + (size_t)t * ldy;
        if (!add || cols < OP_PANEL) memset(sum, 0, (size_t)rows * OP_PANEL * sizeof *sum);
        for (int r = 0; add && r < rows; r++)
            memcpy(sum + r * OP_PANEL, yt + (size_t)r * ldy, (size_t)cols * sizeof *y);
        quant_panel(sum, x + (size_t)t * ldx, ldx, panel, type, rows, K);
        for (int r = 0; r < rows; r++) memcpy(yt + (size_t)r * ldy, sum + r * OP_PANEL, (size_t)cols * sizeof *y);
    }
}

#define QUANT_KERNEL(name, type)                                                                                       \
    void name(float *y, size_t ldy, const void *x, size_t ldx, const void *panel, int T, int K, int cols, bool add) {  \
        quant_gemm(y, ldy, x, ldx, panel, type, T, K, cols, add);                                                      \
    }
#define QUANT_KERNELS(level)                                                                                           \
    QUANT_KERNEL(op_gemm_q8_0_##level, DT_Q8_0)                                                                        \
    QUANT_KERNEL(op_gemm_q4_0_##level, DT_Q4_0)                                                                        \
    QUANT_KERNEL(op_gemm_q4_K_##level, DT_Q4_K)                                                                        \
    QUANT_KERNEL(op_gemm_q5_K_##level, DT_Q5_K)                                                                        \
    QUANT_KERNEL(op_gemm_q6_K_##level, DT_Q6_K)
