/* scalar_quant.c - products with weights of block types in plain C: the definition (quant_int.h has the formulas).
 *
 * The vector kernels give the same bits, not almost the same: sums are of integers, and each rounding is spelled out.
 */
#include <math.h>

#include "ops/quant_int.h"

/* One run of one output, taken out of its panel. */
typedef struct run {
    int u[QUANT_RUN];
    int offset;
    float s[2], m; /* s of each half */
} run;

static void get_nibbles(int *u, const panel_nibbles p, int j) {
    for (int g = 0; g < QUANT_GROUPS / 2; g++)
        for (int i = 0; i < 4; i++) {
            u[4 * g + i] = p[g][j][i] & 15;
            u[4 * (g + QUANT_GROUPS / 2) + i] = p[g][j][i] >> 4;
        }
}

static void get_q8_0(run *r, const panel_q8_0 *p, int j) {
    for (int i = 0; i < QUANT_RUN; i++) r->u[i] = p->u[i / 4][j][i % 4];
    r->s[0] = r->s[1] = f16_to_f32(p->s[j]);
    r->offset = 128;
}

static void get_q4_0(run *r, const panel_q4_0 *p, int j) {
    get_nibbles(r->u, p->u, j);
    r->s[0] = r->s[1] = f16_to_f32(p->s[j]);
    r->offset = 8;
}

static void get_q4_K(run *r, const panel_q4_K *p, int b, int j) {
    get_nibbles(r->u, p->run[b].u, j);
    r->s[0] = r->s[1] = f16_to_f32(p->d[j]) * (float)p->run[b].s[j];
    r->m = f16_to_f32(p->m[j]) * (float)p->run[b].m[j];
}

static void get_q5_K(run *r, const panel_q5_K *p, int b, int j) {
    get_nibbles(r->u, p->run[b].u, j);
    for (int i = 0; i < QUANT_RUN; i++) r->u[i] |= (p->run[b].high[j][i % 4] >> i / 4 & 1) << 4;
    r->s[0] = r->s[1] = f16_to_f32(p->d[j]) * (float)p->run[b].s[j];
    r->m = f16_to_f32(p->m[j]) * (float)p->run[b].m[j];
}

static void get_q6_K(run *r, const panel_q6_K *p, int b, int j) {
    get_nibbles(r->u, p->run[b].u, j);
    for (int i = 0; i < QUANT_RUN; i++) r->u[i] |= (p->run[b].high[i / 16][j][i % 4] >> i / 4 % 4 * 2 & 3) << 4;
    for (int h = 0; h < 2; h++) r->s[h] = f16_to_f32(p->d[j]) * (float)p->run[b].s[h][j];
    r->offset = 32;
}

/* Run b of output j. */
static run get_run(const void *panel, dtype type, int b, int j) {
    run r = { .offset = 0 };
    switch (type) {
    case DT_Q8_0: get_q8_0(&r, (const panel_q8_0 *)panel + b, j); break;
    case DT_Q4_0: get_q4_0(&r, (const panel_q4_0 *)panel + b, j); break;
    case DT_Q4_K: get_q4_K(&r, (const panel_q4_K *)panel + b / QUANT_RUNS, b % QUANT_RUNS, j); break;
    case DT_Q5_K: get_q5_K(&r, (const panel_q5_K *)panel + b / QUANT_RUNS, b % QUANT_RUNS, j); break;
    default: get_q6_K(&r, (const panel_q6_K *)panel + b / QUANT_RUNS, b % QUANT_RUNS, j); break;
    }
    return r;
}

/* y plus the products of inputs [from,to) */
static float add_products(float y, const run *w, const op_qrun *x, int from, int to) {
    int sum = 0;
    for (int i = from; i < to; i++) sum += (w->u[i] - w->offset) * x->q[i];
    return fmaf((float)sum, w->s[from / 16] * x->scale, y);
}

static void gemm(float *y, size_t ldy, const op_qrun *x, size_t ldx, const void *panel, dtype type, int T, int K,
                 int cols, bool add) {
    for (int t = 0; t < T && !add; t++) memset(y + (size_t)t * ldy, 0, (size_t)cols * sizeof *y);
    for (int j = 0; j < cols; j++)
        for (int b = 0; b < K / QUANT_RUN; b++) {
            run w = get_run(panel, type, b, j);
            for (int t = 0; t < T; t++) {
                const op_qrun *xr = x + (size_t)t * ldx + b;
                float *out = y + (size_t)t * ldy + j;
                if (type == DT_Q6_K) {
                    *out = add_products(*out, &w, xr, 0, 16);
                    *out = add_products(*out, &w, xr, 16, 32);
                } else {
                    *out = add_products(*out, &w, xr, 0, 32);
                }
                if (type == DT_Q4_K || type == DT_Q5_K) *out = fmaf(-w.m, xr->sum, *out);
            }
        }
}

#define GEMM(name, type)                                                                                               \
    void op_gemm_##name##_scalar(float *y, size_t ldy, const void *x, size_t ldx, const void *panel, int T, int K,     \
                                 int cols, bool add) {                                                                 \
        gemm(y, ldy, x, ldx, panel, type, T, K, cols, add);                                                            \
    }
GEMM(q8_0, DT_Q8_0)
GEMM(q4_0, DT_Q4_0)
GEMM(q4_K, DT_Q4_K)
GEMM(q5_K, DT_Q5_K)
GEMM(q6_K, DT_Q6_K)

void op_quantize_scalar(op_qrun *y, const float *x, int runs) {
    for (int b = 0; b < runs; b++, y++, x += QUANT_RUN) {
        int32_t most = 0;
        for (int i = 0; i < QUANT_RUN; i++) { /* magnitudes order like their bits; infinity and NaN come last */
            int32_t bits;
            memcpy(&bits, &x[i], sizeof bits);
            bits &= 0x7fffffff;
            most = bits > most ? bits : most;
        }
        float inverse = quant_begin(y, most);
        if (inverse == 0) continue;
        for (int i = 0; i < QUANT_RUN; i++) {
            y->q[i] = (int8_t)rintf(x[i] * inverse);
            y->half[i / 16] = (int16_t)(y->half[i / 16] + y->q[i]);
        }
        y->sum = y->scale * (float)(y->half[0] + y->half[1]);
    }
}
