/* scalar.c - every kernel in plain C: the definition that the vector kernels are tested against.
 *
 * Written for reading.  Sums that the vector kernels run in 16 lanes run in 16 lanes here too, and are folded by the
 * same tree, so that the levels differ only where a fused multiply-add rounds once instead of twice.
 */
#include <math.h>

#include "ops/scalar_int.h"

float scalar_load(const void *p, dtype type, size_t i) {
    if (type == DT_F32) return ((const float *)p)[i];
    uint16_t v = ((const uint16_t *)p)[i];
    return type == DT_BF16 ? bf16_to_f32(v) : f16_to_f32(v);
}

/* Fold 16 lanes: 8+8, 4+4, 2+2, 1+1. */
float scalar_fold_sum(const float lane[OP_LANES]) {
    float s[OP_LANES];
    memcpy(s, lane, sizeof s);
    for (int half = OP_LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) s[i] += s[i + half];
    return s[0];
}

float scalar_exp(float x) {
    if (x < EXP_MIN) return 0.0f;
    if (!(x <= EXP_MAX)) return x + INFINITY; /* NaN stays NaN */
    float n = rintf(x * EXP_LOG2E), r = x - n * EXP_LN2_HI - n * EXP_LN2_LO;
    float p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return ldexpf(p, (int)n);
}

/* y[t][j] (+)= sum_k x[t][k] panel[k][j]; f32 operands, weights f32 or f16 */
static void gemm_wide(float *y, size_t ldy, const float *x, size_t ldx, const void *panel, dtype type, int T, int K,
                      int cols, bool add) {
    for (int t = 0; t < T; t++)
        for (int j = 0; j < cols; j++) {
            float acc = add ? y[(size_t)t * ldy + (size_t)j] : 0;
            for (int k = 0; k < K; k++)
                acc += x[(size_t)t * ldx + (size_t)k] * scalar_load(panel, type, (size_t)k * OP_PANEL + (size_t)j);
            y[(size_t)t * ldy + (size_t)j] = acc;
        }
}

static void gemm_f32(float *y, size_t ldy, const void *x, size_t ldx, const void *panel, int T, int K, int cols,
                     bool add) {
    gemm_wide(y, ldy, x, ldx, panel, DT_F32, T, K, cols, add);
}

static void gemm_f16(float *y, size_t ldy, const void *x, size_t ldx, const void *panel, int T, int K, int cols,
                     bool add) {
    gemm_wide(y, ldy, x, ldx, panel, DT_F16, T, K, cols, add);
}

/* bf16 operands; the panel holds pairs of consecutive inputs: [K/2][64][2] */
static void gemm_bf16(float *y, size_t ldy, const void *x, size_t ldx, const void *panel, int T, int K, int cols,
                      bool add) {
    const uint16_t *xb = x, *w = panel;
    for (int t = 0; t < T; t++)
        for (int j = 0; j < cols; j++) {
            float acc = add ? y[(size_t)t * ldy + (size_t)j] : 0;
            for (int k = 0; k < K; k++) {
                size_t at = ((size_t)(k / 2) * OP_PANEL + (size_t)j) * 2 + (size_t)(k % 2);
                acc += bf16_to_f32(xb[(size_t)t * ldx + (size_t)k]) * bf16_to_f32(w[at]);
            }
            y[(size_t)t * ldy + (size_t)j] = acc;
        }
}

static void round_bf16(uint16_t *y, const float *x, int n) {
    for (int i = 0; i < n; i++) y[i] = f32_to_bf16(x[i]);
}

static void transpose(void *dst, size_t ldd, const void *src, size_t lds) {
    for (size_t i = 0; i < 16; i++)
        for (size_t j = 0; j < 16; j++)
            memcpy((uint8_t *)dst + 4 * (i * ldd + j), (const uint8_t *)src + 4 * (j * lds + i), 4);
}

static void rmsnorm(float *y, const float *x, const float *w, int C, float eps) {
    float lane[OP_LANES] = { 0 };
    for (int i = 0; i < C; i++) lane[i % OP_LANES] += x[i] * x[i];
    float r = 1.0f / sqrtf(scalar_fold_sum(lane) / (float)C + eps);
    for (int i = 0; i < C; i++) y[i] = x[i] * r * w[i];
}

static void silu_mul(float *y, const float *gate, const float *up, int n) {
    for (int i = 0; i < n; i++) y[i] = gate[i] / (1.0f + scalar_exp(-gate[i])) * up[i];
}

static void gelu_mul(float *y, const float *gate, const float *up, int n) {
    for (int i = 0; i < n; i++) {
        float x = gate[i], u2 = GELU_ROOT * x * (1.0f + GELU_CUBE * x * x);
        y[i] = x / (1.0f + scalar_exp(-u2)) * up[i];
    }
}

static void add(float *y, const float *a, const float *b, int n) {
    for (int i = 0; i < n; i++) y[i] = a[i] + b[i];
}

static void rope(float *x, const float *cs, int H, int D, float sign) {
    int half = D / 2;
    for (int h = 0; h < H; h++, x += D)
        for (int i = 0; i < half; i++) {
            float a = x[i], b = x[i + half], c = cs[i], s = sign * cs[i + half];
            x[i] = a * c - b * s;
            x[i + half] = b * c + a * s;
        }
}

/* ---- attention of one query vector over its visible keys ---- */

static float q8_element(const void *scale, const void *q) {
    uint16_t h;
    int8_t i;
    memcpy(&h, scale, sizeof h);
    memcpy(&i, q, sizeof i);
    return (float)i * f16_to_f32(h); /* 8 bits times 11: exact */
}

float scalar_key(const op_span *s, int j, int d, int D) {
    size_t lane = (size_t)(j % OP_KV_BLOCK), at = (size_t)(j / OP_KV_BLOCK) * (size_t)D + (size_t)d;
    if (s->type != DT_Q8_0) return scalar_load(s->k, s->type, at * OP_KV_BLOCK + lane);
    const uint8_t *run = (const uint8_t *)s->k + at / OP_Q8 * OP_Q8_BYTES * OP_KV_BLOCK;
    return q8_element(run + 2 * lane, run + (2 + at % OP_Q8) * OP_KV_BLOCK + lane);
}

float scalar_value(const op_span *s, int j, int d, int D) {
    size_t at = (size_t)j * (size_t)D + (size_t)d;
    if (s->type != DT_Q8_0) return scalar_load(s->v, s->type, at);
    const uint8_t *block = (const uint8_t *)s->v + at / OP_Q8 * OP_Q8_BYTES;
    return q8_element(block, block + 2 + at % OP_Q8);
}

static int scores(float *score, const float *q, const op_span *s, int hi, int D, float scale) {
    for (int j = s->lo; j < hi; j++) {
        float acc = 0;
        for (int d = 0; d < D; d++) acc += q[d] * scalar_key(s, j, d, D);
        score[j - s->lo] = acc * scale;
    }
    return hi > s->lo ? hi - s->lo : 0;
}

static void weigh_values(float *out, const float *p, const op_span *s, int hi, int D) {
    for (int j = s->lo; j < hi; j++)
        for (int d = 0; d < D; d++) out[d] += p[j - s->lo] * scalar_value(s, j, d, D);
}

static void attend_one(float *out, const float *q, const op_tile *t, int hi, const float *bias, float *score,
                       float *stats) {
    int m = scores(score, q, &t->mem, t->mem.hi, t->D, t->scale);
    int n = m + scores(score + m, q, &t->local, hi, t->D, t->scale);
    float top = -INFINITY, lane[OP_LANES] = { 0 };
    for (int v = 0; bias && v < n; v++) score[v] += bias[v];
    for (int v = 0; v < n; v++) top = score[v] > top ? score[v] : top;
    for (int v = 0; v < n; v++) {
        score[v] = scalar_exp(score[v] - top);
        lane[v % OP_LANES] += score[v];
    }
    for (int d = 0; d < t->D; d++) out[d] = 0;
    if (n == 0) return;
    weigh_values(out, score, &t->mem, t->mem.hi, t->D);
    weigh_values(out, score + m, &t->local, hi, t->D);
    float r = 1.0f / scalar_fold_sum(lane);
    for (int d = 0; d < t->D; d++) out[d] *= r;
    if (stats) {
        stats[0] = top;
        stats[1] = r;
    }
}

static void attend(const op_tile *t) {
    for (int r = 0; r < t->rows; r++)
        for (int h = 0; h < t->heads; h++) {
            size_t at = (size_t)r * t->stride + (size_t)h * (size_t)t->D;
            float *stats = t->stats ? t->stats + (size_t)r * t->stats_stride + 2 * (size_t)h : NULL;
            const float *bias = t->bias[0] ? t->bias[r] + (size_t)h * t->bias_stride : NULL;
            attend_one(t->out + at, t->q + at, t, t->hi[r], bias, t->score, stats);
        }
}

const op_kernels op_kernels_scalar = {
    .level = GIST_KERNELS_SCALAR,
    .gemm = { [DT_F32] = gemm_f32, [DT_BF16] = gemm_bf16, [DT_F16] = gemm_f16, OP_QUANT_GEMM(scalar) },
    .quantize = op_quantize_scalar,
    .round_bf16 = round_bf16,
    .transpose = transpose,
    .rmsnorm = rmsnorm,
    .silu_mul = silu_mul,
    .gelu_mul = gelu_mul,
    .add = add,
    .rope = rope,
    .attend = attend,
    .attend_bwd = scalar_attend_bwd,
    .rmsnorm_bwd = scalar_rmsnorm_bwd,
    .silu_mul_bwd = scalar_silu_mul_bwd,
    .gelu_mul_bwd = scalar_gelu_mul_bwd,
    .fma_rows = scalar_fma_rows,
    .softmax_stats = scalar_softmax_stats,
    .xent_bwd = scalar_xent_bwd,
    .adamw = scalar_adamw,
};
