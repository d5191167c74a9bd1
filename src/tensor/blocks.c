/* blocks.c - block types: runs of elements that share scales.  Bytes of one block, fp16 as "d" and "m":
 *
 *   q8_0   32   d  q[32]: i8                             x = d q
 *   q4_0   32   d  q[16]: i, i+16 in a byte              x = d (q - 8)
 *   q4_K  256   d  m  scales[12]  q[128]                 x = (d s) q - (m t)        s, t: 6 bits per 32 elements
 *   q5_K  256   d  m  scales[12]  high[32]  q[128]       the same with 5 bits: bit k of high[i] is of element 32 k + i
 *   q6_K  256   low[128]  high[64]  s[16]: i8  d         x = (d s) (q - 32)         s: per 16 elements
 *
 *   q of the K types: 64 elements in 32 bytes, element i in the low, i + 32 in the high half of byte i.
 *   low, high of q6_K: 128 elements in 64 + 32 bytes; elements i, 32+i, 64+i, 96+i take the low halves of low[i] and
 *   low[32+i], then their high halves, and bits 0-1, 2-3, 4-5, 6-7 of high[i].
 *   scales[12]: s 0-3 and t 0-3 in the low 6 bits of bytes 0-3 and 4-7; s 4-7 and t 4-7 in the halves of bytes 8-11,
 *   with their upper two bits on top of bytes 0-3 and 4-7.
 *
 * Products are taken in f32 in the order written, so that every reader of these files gets the same bits.  The layouts
 * are those of GGUF files (ggml).  q5_K and q6_K are read only.
 */
#include <assert.h>
#include <float.h>
#include <math.h>

#include "tensor/tensor_int.h"

enum { RUN = 32, SUPER = 256, SUBS = SUPER / RUN };

static float half_at(const uint8_t *p) {
    return f16_to_f32((uint16_t)(p[0] | p[1] << 8));
}

static void put_half(uint8_t *p, uint16_t h) {
    p[0] = (uint8_t)h;
    p[1] = (uint8_t)(h >> 8);
}

/* ---- reading ---- */

static void q8_0_to_f32(float *x, const uint8_t *b) {
    float d = half_at(b);
    for (int i = 0; i < RUN; i++) x[i] = (float)(int8_t)b[2 + i] * d;
}

static void q4_0_to_f32(float *x, const uint8_t *b) {
    float d = half_at(b);
    for (int i = 0; i < 16; i++) {
        x[i] = d * (float)((b[2 + i] & 15) - 8);
        x[i + 16] = d * (float)((b[2 + i] >> 4) - 8);
    }
}

/* Scale s and minimum t of run j. */
static void get_scale(const uint8_t *p, int j, int *s, int *t) {
    if (j < 4) {
        *s = p[j] & 63;
        *t = p[j + 4] & 63;
    } else {
        *s = (p[j + 4] & 15) | (p[j - 4] >> 6) << 4;
        *t = p[j + 4] >> 4 | (p[j] >> 6) << 4;
    }
}

/* high NULL: q4_K */
static void q45_to_f32(float *x, const uint8_t *b, const uint8_t *high, const uint8_t *q) {
    float d = half_at(b), m = half_at(b + 2);
    for (int j = 0; j < SUBS; j++) {
        int s, t;
        get_scale(b + 4, j, &s, &t);
        float scale = d * (float)s, min = m * (float)t;
        const uint8_t *run = q + j / 2 * RUN;
        for (int i = 0; i < RUN; i++) {
            int v = j % 2 ? run[i] >> 4 : run[i] & 15;
            if (high) v |= (high[i] >> j & 1) << 4;
            x[j * RUN + i] = scale * (float)v - min;
        }
    }
}

static void q4_K_to_f32(float *x, const uint8_t *b) {
    q45_to_f32(x, b, NULL, b + 16);
}

static void q5_K_to_f32(float *x, const uint8_t *b) {
    q45_to_f32(x, b, b + 16, b + 48);
}

static void q6_K_to_f32(float *x, const uint8_t *b) {
    const uint8_t *scales = b + 192;
    float d = half_at(b + 208);
    for (int j = 0; j < SUBS; j++) {
        const uint8_t *low = b + j / 4 * 64 + j % 2 * RUN, *high = b + 128 + j / 4 * RUN;
        for (int i = 0; i < RUN; i++) {
            int v = j % 4 < 2 ? low[i] & 15 : low[i] >> 4;
            v |= (high[i] >> 2 * (j % 4) & 3) << 4;
            float scale = d * (float)(int8_t)scales[2 * j + i / 16];
            x[j * RUN + i] = scale * (float)(v - 32);
        }
    }
}

void block_to_f32(float *dst, const void *src, dtype t, size_t n) {
    static void (*const read[DT_COUNT])(float *, const uint8_t *) = { [DT_Q8_0] = q8_0_to_f32,
                                                                      [DT_Q4_0] = q4_0_to_f32,
                                                                      [DT_Q4_K] = q4_K_to_f32,
                                                                      [DT_Q5_K] = q5_K_to_f32,
                                                                      [DT_Q6_K] = q6_K_to_f32 };
    size_t block = dt_block(t), bytes = dt_bytes(t, block);
    const uint8_t *b = src;
    assert(read[t] && n % block == 0);
    for (size_t i = 0; i < n; i += block, b += bytes) read[t](dst + i, b);
}

/* ---- writing: one scale ---- */

/* 1/d, 0 where a scale is too small to have one */
static float inverse(float d) {
    float inv = d != 0 ? 1 / d : 0;
    return fabsf(inv) <= FLT_MAX ? inv : 0;
}

/* The first element of the largest magnitude; NaN when one is not finite. */
static float extreme(const float *x, int n) {
    float most = 0, at = 0;
    for (int i = 0; i < n; i++) {
        if (!(fabsf(x[i]) <= FLT_MAX)) return NAN;
        if (fabsf(x[i]) > most) most = fabsf(x[i]), at = x[i];
    }
    return at;
}

static void q8_0_from_f32(uint8_t *b, const float *x) {
    float d = fabsf(extreme(x, RUN)) / 127, inv = isnan(d) ? 0 : inverse(d);
    put_half(b, f32_to_f16(d));
    for (int i = 0; i < RUN; i++) b[2 + i] = (uint8_t)(int8_t)(inv == 0 ? 0 : roundf(x[i] * inv));
}

/* 4 bits reach from -8 to 7: the extreme takes -8 of a scale of the other sign. */
static void q4_0_from_f32(uint8_t *b, const float *x) {
    float d = extreme(x, RUN) / -8, inv = isnan(d) ? 0 : inverse(d);
    put_half(b, f32_to_f16(d));
    uint8_t q[RUN];
    for (int i = 0; i < RUN; i++) {
        int v = inv == 0 ? 8 : (int)(x[i] * inv + 8.5f);
        q[i] = (uint8_t)(v > 15 ? 15 : v);
    }
    for (int i = 0; i < 16; i++) b[2 + i] = (uint8_t)(q[i] | q[i + 16] << 4);
}

/* ---- writing: scale and minimum ----
 *
 * A run of 32 is fitted as x ~ s q - t with q in 0..15, s, t >= 0, so that  E = sum w (s q - t - x)^2  is small, with
 * w = mean |x| + |x|: large weights matter most.  For given q the best s and t solve a 2x2 system, for given s and t
 * the best q is the nearest; the search starts from ranges a little narrower and wider than the run's own.  Then the
 * eight s share d and the eight t share m with 6-bit factors, searched around the nearest ones in the same measure.
 */

typedef struct fit {
    float s, t, error;
} fit;

static float nearest(float v) {
    v = v < 0 ? 0 : v > 15 ? 15 : v;
    return (v + 0x1p23f) - 0x1p23f;
}

/* Sums in eight lanes: the order is fixed, and compilers can keep a lane per vector element. */
typedef struct lanes {
    float v[8];
} lanes;

static float lanes_sum(const lanes *a) {
    const float *v = a->v;
    return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

static float run_error(const float *x, const float *w, const float *q, float s, float t) {
    lanes e = { { 0 } };
    for (int i = 0; i < RUN; i += 8)
        for (int l = 0; l < 8; l++) {
            float d = s * q[i + l] - t - x[i + l];
            e.v[l] += w[i + l] * d * d;
        }
    return lanes_sum(&e);
}

static void run_round(float *q, const float *x, float inv, float t) {
    for (int i = 0; i < RUN; i++) q[i] = nearest((x[i] + t) * inv);
}

/* The best s and t >= 0 for these q. */
static fit solve(const float *x, const float *w, const float *q) {
    lanes sw = { { 0 } }, sq = sw, sqq = sw, sx = sw, sxq = sw;
    for (int i = 0; i < RUN; i += 8)
        for (int l = 0; l < 8; l++) {
            float wq = w[i + l] * q[i + l];
            sw.v[l] += w[i + l];
            sq.v[l] += wq;
            sqq.v[l] += wq * q[i + l];
            sx.v[l] += w[i + l] * x[i + l];
            sxq.v[l] += wq * x[i + l];
        }
    float W = lanes_sum(&sw), Q = lanes_sum(&sq), QQ = lanes_sum(&sqq), X = lanes_sum(&sx), XQ = lanes_sum(&sxq);
    float det = W * QQ - Q * Q;
    fit f = { 0, X < 0 && W > 0 ? -X / W : 0, 0 }; /* all q equal: one level at the mean */
    if (det > 0) {
        f.s = (W * XQ - X * Q) / det;
        f.t = (Q * XQ - QQ * X) / det;
    }
    if (det > 0 && f.t < 0) f = (fit){ XQ / QQ, 0, 0 };
    if (!(f.s >= 0)) f.s = 0;
    f.error = run_error(x, w, q, f.s, f.t);
    return f;
}

static fit fit_run(const float *x, const float *w) {
    float lo = 0, hi = x[0], q[RUN];
    for (int i = 0; i < RUN; i++) {
        if (x[i] < lo) lo = x[i];
        if (x[i] > hi) hi = x[i];
    }
    fit best = { 0, -lo, FLT_MAX };
    if (!(hi - lo > FLT_MIN)) return best;
    for (int step = -4; step <= 4; step++) {
        run_round(q, x, (15 + 0.25f * (float)step) / (hi - lo), -lo);
        fit f = solve(x, w, q);
        if (f.error < best.error) best = f;
    }
    for (int again = 0; again < 2 && best.s > 0; again++) {
        run_round(q, x, inverse(best.s), best.t);
        fit f = solve(x, w, q);
        if (!(f.error < best.error)) break;
        best = f;
    }
    return best;
}

/* A block in the making. */
typedef struct super {
    float x[SUPER], w[SUPER], q[SUPER];
    uint16_t d, m; /* f16 */
    int s[SUBS], t[SUBS];
    float error;
} super;

static int code(float v, float unit) {
    float c = unit > 0 ? roundf(v / unit) : 0;
    return c < 0 ? 0 : c > 63 ? 63 : (int)c;
}

/* The 6-bit factors of run j with the least error for the block's d and m, and its q. */
static float search_codes(super *b, int j, const fit *f) {
    float d = f16_to_f32(b->d), m = f16_to_f32(b->m), best = FLT_MAX, q[RUN];
    const float *x = b->x + j * RUN, *w = b->w + j * RUN;
    int s0 = code(f->s, d), t0 = code(f->t, m);
    for (int s = s0 > 0 ? s0 - 1 : 0; s <= s0 + 1 && s <= 63; s++)
        for (int t = t0 > 0 ? t0 - 1 : 0; t <= t0 + 1 && t <= 63; t++) {
            float scale = d * (float)s, min = m * (float)t;
            run_round(q, x, inverse(scale), min);
            float error = run_error(x, w, q, scale, min);
            if (!(error < best)) continue;
            best = error;
            b->s[j] = s;
            b->t[j] = t;
            memcpy(b->q + j * RUN, q, sizeof q);
        }
    return best;
}

/* d and m that fit all runs best as they are coded now. */
static void refit(super *b) {
    double AA = 0, AB = 0, BB = 0, AX = 0, BX = 0; /* x ~ d A - m B with A = s q, B = t */
    for (int i = 0; i < SUPER; i++) {
        double A = (double)b->s[i / RUN] * (double)b->q[i], B = (double)b->t[i / RUN], w = (double)b->w[i];
        AA += w * A * A;
        AB += w * A * B;
        BB += w * B * B;
        AX += w * A * (double)b->x[i];
        BX += w * B * (double)b->x[i];
    }
    double det = AA * BB - AB * AB, d = AA > 0 ? AX / AA : 0, m = 0;
    if (det > 1e-9 * AA * BB) {
        d = (BB * AX - AB * BX) / det;
        m = (AB * AX - AA * BX) / det;
    }
    if (d > 0 && m >= 0 && d < 65504 && m < 65504) b->d = f32_to_f16((float)d), b->m = f32_to_f16((float)m);
}

static void search_block(super *b, const fit *runs) {
    b->error = 0;
    for (int j = 0; j < SUBS; j++) b->error += search_codes(b, j, &runs[j]);
}

static void pack_q4_K(uint8_t *out, const super *b) {
    put_half(out, b->d);
    put_half(out + 2, b->m);
    uint8_t *p = out + 4, *q = out + 16;
    for (int j = 0; j < 4; j++) {
        p[j] = (uint8_t)(b->s[j] | b->s[j + 4] >> 4 << 6);
        p[j + 4] = (uint8_t)(b->t[j] | b->t[j + 4] >> 4 << 6);
        p[j + 8] = (uint8_t)((b->s[j + 4] & 15) | (b->t[j + 4] & 15) << 4);
    }
    for (int i = 0; i < SUPER / 2; i++) {
        const float *x = b->q + i / RUN * 2 * RUN + i % RUN;
        q[i] = (uint8_t)((int)x[0] | (int)x[RUN] << 4);
    }
}

static void q4_K_from_f32(uint8_t *out, const float *x) {
    super b, again;
    fit runs[SUBS];
    float d = 0, m = 0, most = extreme(x, SUPER);
    memset(&b, 0, sizeof b);
    b.d = b.m = f32_to_f16(most); /* NaN stays */
    if (isnan(most) || most == 0) {
        pack_q4_K(out, &b);
        return;
    }
    memcpy(b.x, x, sizeof b.x);
    for (int j = 0; j < SUBS; j++) {
        float mean = 0, *w = b.w + j * RUN;
        for (int i = 0; i < RUN; i++) mean += fabsf(x[j * RUN + i]) / RUN;
        for (int i = 0; i < RUN; i++) w[i] = mean + fabsf(x[j * RUN + i]);
        runs[j] = fit_run(x + j * RUN, w);
        if (runs[j].s > d) d = runs[j].s;
        if (runs[j].t > m) m = runs[j].t;
    }
    b.d = f32_to_f16(d / 63);
    b.m = f32_to_f16(m / 63);
    search_block(&b, runs);
    again = b;
    refit(&again);
    search_block(&again, runs);
    pack_q4_K(out, again.error < b.error ? &again : &b);
}

void block_from_f32(void *dst, dtype t, const float *src, size_t n) {
    static void (*const write[DT_COUNT])(uint8_t *, const float *) = { [DT_Q8_0] = q8_0_from_f32,
                                                                       [DT_Q4_0] = q4_0_from_f32,
                                                                       [DT_Q4_K] = q4_K_from_f32 };
    size_t block = dt_block(t), bytes = dt_bytes(t, block);
    uint8_t *b = dst;
    assert(write[t] && n % block == 0);
    for (size_t i = 0; i < n; i += block, b += bytes) write[t](b, src + i);
}
