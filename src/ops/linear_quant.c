/* linear_quant.c - blocks of q8_0, q4_0, q4_K, q5_K, q6_K into panels and back, bit by bit.
 *
 *   block (blocks.c has the layouts)  <-->  column j of a panel struct (quant_int.h)
 *
 * Both hold the same integers and scales, so reading a row back gives the file's block and its exact values.  Other
 * sources are converted to blocks first.
 */
#include <math.h>

#include "ops/quant_int.h"

enum { BLOCK_MAX = 256, BLOCK_BYTES_MAX = 210 };

size_t quant_panel_step(dtype type) {
    switch (type) {
    case DT_Q8_0: return sizeof(panel_q8_0);
    case DT_Q4_0: return sizeof(panel_q4_0);
    case DT_Q4_K: return sizeof(panel_q4_K);
    case DT_Q5_K: return sizeof(panel_q5_K);
    case DT_Q6_K: return sizeof(panel_q6_K);
    default: return 0;
    }
}

/* ---- parts of blocks ---- */

static uint16_t half_at(const uint8_t *b) {
    return (uint16_t)(b[0] | b[1] << 8);
}

static void half_to(uint8_t *b, uint16_t h) {
    b[0] = (uint8_t)h;
    b[1] = (uint8_t)(h >> 8);
}

/* The integers u [32] of one run, low 4 bits, to and from column j. */
static void put_nibbles(panel_nibbles p, int j, const uint8_t *u) {
    for (int i = 0; i < QUANT_RUN / 2; i++) p[i / 4][j][i % 4] = (uint8_t)((u[i] & 15) | (u[i + 16] & 15) << 4);
}

static void get_nibbles(uint8_t *u, const panel_nibbles p, int j) {
    for (int i = 0; i < QUANT_RUN / 2; i++) {
        u[i] = p[i / 4][j][i % 4] & 15;
        u[i + 16] = p[i / 4][j][i % 4] >> 4;
    }
}

/* Scales s and minima m [8] of 6 bits each, in 12 bytes. */
static void unpack_scales(uint8_t s[QUANT_RUNS], uint8_t m[QUANT_RUNS], const uint8_t b[12]) {
    for (int i = 0; i < 4; i++) {
        s[i] = b[i] & 63;
        m[i] = b[i + 4] & 63;
        s[i + 4] = (uint8_t)((b[i + 8] & 15) | (b[i] >> 6) << 4);
        m[i + 4] = (uint8_t)(b[i + 8] >> 4 | (b[i + 4] >> 6) << 4);
    }
}

static void pack_scales(uint8_t b[12], const uint8_t s[QUANT_RUNS], const uint8_t m[QUANT_RUNS]) {
    for (int i = 0; i < 4; i++) {
        b[i] = (uint8_t)(s[i] | (s[i + 4] >> 4) << 6);
        b[i + 4] = (uint8_t)(m[i] | (m[i + 4] >> 4) << 6);
        b[i + 8] = (uint8_t)((s[i + 4] & 15) | (m[i + 4] & 15) << 4);
    }
}

/* Run r of q4_K and q5_K: half r % 2 of the nibbles of 32 bytes. */
static void k45_get(uint8_t *u, const uint8_t *low, int r) {
    for (int i = 0; i < QUANT_RUN; i++) u[i] = low[r / 2 * 32 + i] >> r % 2 * 4 & 15;
}

static void k45_put(uint8_t *low, const uint8_t *u, int r) {
    for (int i = 0; i < QUANT_RUN; i++) low[r / 2 * 32 + i] |= (uint8_t)((u[i] & 15) << r % 2 * 4);
}

/* ---- one block: q8_0, q4_0 ---- */

static void put_q8_0(panel_q8_0 *p, int j, const uint8_t *b) {
    p->s[j] = half_at(b);
    for (int i = 0; i < QUANT_RUN; i++) p->u[i / 4][j][i % 4] = b[2 + i] ^ 128;
}

static void get_q8_0(const panel_q8_0 *p, int j, uint8_t *b) {
    half_to(b, p->s[j]);
    for (int i = 0; i < QUANT_RUN; i++) b[2 + i] = p->u[i / 4][j][i % 4] ^ 128;
}

/* The file pairs inputs i and i + 16, as the panel does. */
static void put_q4_0(panel_q4_0 *p, int j, const uint8_t *b) {
    p->s[j] = half_at(b);
    for (int g = 0; g < QUANT_GROUPS / 2; g++) memcpy(p->u[g][j], b + 2 + 4 * g, 4);
}

static void get_q4_0(const panel_q4_0 *p, int j, uint8_t *b) {
    half_to(b, p->s[j]);
    for (int g = 0; g < QUANT_GROUPS / 2; g++) memcpy(b + 2 + 4 * g, p->u[g][j], 4);
}

/* ---- one block: d, m, scales[12], q4_K: low[128], q5_K: high[32] low[128] ---- */

static void put_q4_K(panel_q4_K *p, int j, const uint8_t *b) {
    uint8_t s[QUANT_RUNS], m[QUANT_RUNS], u[QUANT_RUN];
    p->d[j] = half_at(b);
    p->m[j] = half_at(b + 2);
    unpack_scales(s, m, b + 4);
    for (int r = 0; r < QUANT_RUNS; r++) {
        p->run[r].s[j] = s[r];
        p->run[r].m[j] = m[r];
        k45_get(u, b + 16, r);
        put_nibbles(p->run[r].u, j, u);
    }
}

static void get_q4_K(const panel_q4_K *p, int j, uint8_t *b) {
    uint8_t s[QUANT_RUNS], m[QUANT_RUNS], u[QUANT_RUN];
    half_to(b, p->d[j]);
    half_to(b + 2, p->m[j]);
    memset(b + 16, 0, 128);
    for (int r = 0; r < QUANT_RUNS; r++) {
        s[r] = p->run[r].s[j];
        m[r] = p->run[r].m[j];
        get_nibbles(u, p->run[r].u, j);
        k45_put(b + 16, u, r);
    }
    pack_scales(b + 4, s, m);
}

static void put_q5_K(panel_q5_K *p, int j, const uint8_t *b) {
    uint8_t s[QUANT_RUNS], m[QUANT_RUNS], u[QUANT_RUN];
    p->d[j] = half_at(b);
    p->m[j] = half_at(b + 2);
    unpack_scales(s, m, b + 4);
    for (int r = 0; r < QUANT_RUNS; r++) {
        uint8_t *high = p->run[r].high[j];
        p->run[r].s[j] = s[r];
        p->run[r].m[j] = m[r];
        k45_get(u, b + 48, r);
        put_nibbles(p->run[r].u, j, u);
        memset(high, 0, 4);
        for (int i = 0; i < QUANT_RUN; i++) high[i % 4] |= (uint8_t)((b[16 + i] >> r & 1) << i / 4);
    }
}

static void get_q5_K(const panel_q5_K *p, int j, uint8_t *b) {
    uint8_t s[QUANT_RUNS], m[QUANT_RUNS], u[QUANT_RUN];
    half_to(b, p->d[j]);
    half_to(b + 2, p->m[j]);
    memset(b + 16, 0, 160);
    for (int r = 0; r < QUANT_RUNS; r++) {
        s[r] = p->run[r].s[j];
        m[r] = p->run[r].m[j];
        get_nibbles(u, p->run[r].u, j);
        k45_put(b + 48, u, r);
        for (int i = 0; i < QUANT_RUN; i++) b[16 + i] |= (uint8_t)((p->run[r].high[j][i % 4] >> i / 4 & 1) << r);
    }
    pack_scales(b + 4, s, m);
}

/* ---- one block: low[128] high[64] s[16] d ---- */

/* Run r lies in half r / 4: byte i of 64 (runs alternate between its 32s), low or high nibble; 2 bits of high. */
typedef struct q6_place {
    size_t low, high;
    int nibble, bits;
} q6_place;

static q6_place q6_at(int r) {
    return (q6_place){ (size_t)(r / 4 * 64 + r % 2 * 32), (size_t)(128 + r / 4 * 32), r % 4 / 2 * 4, r % 4 * 2 };
}

static void put_q6_K(panel_q6_K *p, int j, const uint8_t *b) {
    uint8_t u[QUANT_RUN];
    p->d[j] = half_at(b + 208);
    for (int r = 0; r < QUANT_RUNS; r++) {
        q6_place at = q6_at(r);
        for (int h = 0; h < 2; h++) {
            p->run[r].s[h][j] = (int8_t)b[192 + 2 * r + h];
            memset(p->run[r].high[h][j], 0, 4);
        }
        for (int i = 0; i < QUANT_RUN; i++) {
            u[i] = b[at.low + (size_t)i] >> at.nibble & 15;
            p->run[r].high[i / 16][j][i % 4] |=
                (uint8_t)((b[at.high + (size_t)i] >> at.bits & 3) << i / 4 % 4 * 2);
        }
        put_nibbles(p->run[r].u, j, u);
    }
}

static void get_q6_K(const panel_q6_K *p, int j, uint8_t *b) {
    uint8_t u[QUANT_RUN];
    memset(b, 0, 192);
    half_to(b + 208, p->d[j]);
    for (int r = 0; r < QUANT_RUNS; r++) {
        q6_place at = q6_at(r);
        for (int h = 0; h < 2; h++) b[192 + 2 * r + h] = (uint8_t)p->run[r].s[h][j];
        get_nibbles(u, p->run[r].u, j);
        for (int i = 0; i < QUANT_RUN; i++) {
            b[at.low + (size_t)i] |= (uint8_t)(u[i] << at.nibble);
            b[at.high + (size_t)i] |=
                (uint8_t)((p->run[r].high[i / 16][j][i % 4] >> i / 4 % 4 * 2 & 3) << at.bits);
        }
    }
}

/* ---- any type ---- */

static void put_block(dtype type, void *panel, int j, const uint8_t *b) {
    switch (type) {
    case DT_Q8_0: put_q8_0(panel, j, b); break;
    case DT_Q4_0: put_q4_0(panel, j, b); break;
    case DT_Q4_K: put_q4_K(panel, j, b); break;
    case DT_Q5_K: put_q5_K(panel, j, b); break;
    default: put_q6_K(panel, j, b); break;
    }
}

static void get_block(dtype type, const void *panel, int j, uint8_t *b) {
    switch (type) {
    case DT_Q8_0: get_q8_0(panel, j, b); break;
    case DT_Q4_0: get_q4_0(panel, j, b); break;
    case DT_Q4_K: get_q4_K(panel, j, b); break;
    case DT_Q5_K: get_q5_K(panel, j, b); break;
    default: get_q6_K(panel, j, b); break;
    }
}

/* Files with q5_K and q6_K are read, never written; only a row added to such a matrix is rounded to them, plainly. */
static void round_q5_K(uint8_t *b, const float *x) {
    uint8_t q4[BLOCK_BYTES_MAX];
    dt_from_f32(q4, DT_Q4_K, x, BLOCK_MAX); /* the same scales with every step halved: q5_K(2 u) at d / 2 */
    memcpy(b, q4, 16);
    half_to(b, f32_to_f16(f16_to_f32(half_at(q4)) / 2));
    memset(b + 16, 0, 160);
    for (int r = 0; r < QUANT_RUNS; r++) {
        uint8_t u[QUANT_RUN];
        k45_get(u, q4 + 16, r);
        for (int i = 0; i < QUANT_RUN; i++) {
            b[16 + i] |= (uint8_t)(u[i] >> 3 << r);
            u[i] = (uint8_t)(u[i] << 1);
        }
        k45_put(b + 48, u, r);
    }
}

static void round_q6_K(uint8_t *b, const float *x) {
    float most[16] = { 0 }, all = 0;
    for (int i = 0; i < BLOCK_MAX; i++) most[i / 16] = fmaxf(most[i / 16], fabsf(x[i]));
    for (int i = 0; i < 16; i++) all = fmaxf(all, most[i]);
    memset(b, 0, BLOCK_BYTES_MAX);
    half_to(b + 208, f32_to_f16(all / (31 * 127)));
    float d = f16_to_f32(half_at(b + 208));
    for (int i = 0; i < 16; i++) b[192 + i] = (uint8_t)(d > 0 ? (int)fminf(ceilf(most[i] / 31 / d), 127) : 0);
    for (int i = 0; i < BLOCK_MAX; i++) {
        float step = d * (float)b[192 + i / 16], v = step > 0 ? rintf(x[i] / step) : 0;
        int u = 32 + (int)fmaxf(fminf(v, 31), -32);
        q6_place at = q6_at(i / QUANT_RUN);
        b[at.low + (size_t)(i % QUANT_RUN)] |= (uint8_t)((u & 15) << at.nibble);
        b[at.high + (size_t)(i % QUANT_RUN)] |= (uint8_t)(u >> 4 << at.bits);
    }
}

static void round_block(dtype type, uint8_t *b, const float *x) {
    if (type == DT_Q5_K)
        round_q5_K(b, x);
    else if (type == DT_Q6_K)
        round_q6_K(b, x);
    else
        dt_from_f32(b, type, x, dt_block(type));
}

/* n inputs from k on of row j, given as f32, into the panel. */
static void put_rounded(const op_weight *W, void *panel, int j, size_t k, const float *x, size_t n) {
    size_t block = dt_block(W->type), step = quant_panel_step(W->type);
    uint8_t b[BLOCK_BYTES_MAX];
    for (size_t i = 0; i < n; i += block) {
        round_block(W->type, b, x + i);
        put_block(W->type, (uint8_t *)panel + (k + i) / block * step, j, b);
    }
}

void quant_pack(const op_weight *W, void *panel, const uint8_t *src, dtype src_type, int cols) {
    size_t block = dt_block(W->type), K = (size_t)W->K, step = quant_panel_step(W->type);
    size_t unit = dt_block(src_type) > block ? dt_block(src_type) : block;
    float x[BLOCK_MAX];
    if (cols < OP_PANEL) memset(panel, 0, K / block * step);
    for (size_t k = 0; k < K; k += unit)
        for (int j = 0; j < cols; j++) {
            const uint8_t *from = src + dt_bytes(src_type, (size_t)j * K + k);
            if (src_type == W->type) {
                put_block(W->type, (uint8_t *)panel + k / block * step, j, from);
            } else {
                dt_to_f32(x, from, src_type, unit);
                put_rounded(W, panel, j, k, x, unit);
            }
        }
}

void quant_set_row(const op_weight *W, void *panel, int j, const float *x) {
    put_rounded(W, panel, j, 0, x, (size_t)W->K);
}

void quant_get_row(const op_weight *W, const void *panel, int j, float *x) {
    size_t block = dt_block(W->type), step = quant_panel_step(W->type);
    uint8_t b[BLOCK_BYTES_MAX];
    for (size_t k = 0; k < (size_t)W->K; k += block) {
        get_block(W->type, (const uint8_t *)panel + k / block * step, j, b);
        dt_to_f32(x + k, b, W->type, block);
    }
}
