/* tensor.c - number types: names, sizes, conversions; tensor views.
 *
 *   f32   IEEE binary32          bf16  its upper half, 8 bits of mantissa        f16  IEEE binary16
 *
 * Block types (q8_0, q4_0, ...) are in blocks.c.  The conversions are the definition; kernels that convert on the fly
 * must agree bit for bit.
 */
#include "tensor/tensor_int.h"

static const struct {
    const char *name;
    size_t block, bytes; /* elements and bytes of a block */
    gist_type type;
} types[DT_COUNT] = {
    [DT_F32] = { "f32", 1, 4, GIST_TYPE_F32 },        [DT_BF16] = { "bf16", 1, 2, GIST_TYPE_BF16 },
    [DT_F16] = { "f16", 1, 2, GIST_TYPE_F16 },        [DT_Q8_0] = { "q8_0", 32, 34, GIST_TYPE_Q8_0 },
    [DT_Q4_0] = { "q4_0", 32, 18, GIST_TYPE_Q4_0 },   [DT_Q4_K] = { "q4_K", 256, 144, GIST_TYPE_Q4_K },
    [DT_Q5_K] = { "q5_K", 256, 176, GIST_TYPE_Q5_K }, [DT_Q6_K] = { "q6_K", 256, 210, GIST_TYPE_Q6_K },
};

const char *dt_name(dtype t) {
    return types[t].name;
}

bool dt_from_name(const char *name, dtype *out) {
    for (int t = 0; t < DT_COUNT; t++)
        if (strcmp(name, types[t].name) == 0) {
            *out = (dtype)t;
            return true;
        }
    return false;
}

size_t dt_block(dtype t) {
    return types[t].block;
}

size_t dt_bytes(dtype t, size_t n) {
    return n / types[t].block * types[t].bytes;
}

bool dt_writable(dtype t) {
    return t != DT_Q5_K && t != DT_Q6_K;
}

gist_type dt_public(dtype t) {
    return types[t].type;
}

const char *gist_type_name(gist_type type) {
    for (int t = 0; t < DT_COUNT; t++)
        if (types[t].type == type) return types[t].name;
    return "auto";
}

float f16_to_f32(uint16_t v) {
    uint32_t sign = (uint32_t)(v & 0x8000u) << 16, exp = v >> 10 & 0x1fu, man = v & 0x3ffu, u;
    if (exp == 0x1f) {
        u = sign | 0x7f800000u | man << 13 | (man ? 0x400000u : 0u); /* infinity, quiet NaN */
    } else if (exp != 0) {
        u = sign | (exp + 112) << 23 | man << 13;
    } else {
        float f = (float)man * 0x1p-24f; /* zero and subnormals: exact */
        memcpy(&u, &f, 4);
        u |= sign;
    }
    float f;
    memcpy(&f, &u, 4);
    return f;
}

uint16_t f32_to_f16(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    uint16_t sign = (uint16_t)(u >> 16 & 0x8000u);
    u &= 0x7fffffffu;
    if (u > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | (u >> 13 & 0x3ffu)); /* quiet NaN */
    if (u >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u);                     /* rounds to 65536 or more */
    if (u < 0x38800000u) {                                                       /* below 2^-14: subnormal */
        float a;
        memcpy(&a, &u, 4);
        a = a * 0x1p24f;                   /* in units of 2^-24, exact */
        float r = (a + 0x1p23f) - 0x1p23f; /* round to nearest even integer, at most 1024 */
        return (uint16_t)(sign | (uint16_t)r);
    }
    uint32_t r = u + 0xfffu + (u >> 13 & 1u);
    return (uint16_t)(sign | (uint16_t)((r - 0x38000000u) >> 13));
}

void dt_to_f32(float *dst, const void *src, dtype t, size_t n) {
    const uint8_t *b = src; /* file data need not be aligned */
    if (t == DT_F32) {
        memcpy(dst, src, n * 4);
        return;
    }
    if (dt_block(t) > 1) {
        block_to_f32(dst, src, t, n);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        uint16_t v;
        memcpy(&v, b + 2 * i, 2);
        dst[i] = t == DT_BF16 ? bf16_to_f32(v) : f16_to_f32(v);
    }
}

void dt_from_f32(void *dst, dtype t, const float *src, size_t n) {
    if (t == DT_F32) {
        memcpy(dst, src, n * 4);
        return;
    }
    if (dt_block(t) > 1) {
        block_from_f32(dst, t, src, n);
        return;
    }
    uint16_t *d = dst;
    for (size_t i = 0; i < n; i++) d[i] = t == DT_BF16 ? f32_to_bf16(src[i]) : f32_to_f16(src[i]);
}

size_t tensor_count(const tensor_view *t) {
    size_t n = 1;
    for (int i = 0; i < t->dims; i++) n *= (size_t)t->shape[i];
    return n;
}

char *tensor_shape_text(const tensor_view *t, char out[64]) {
    size_t at = 0;
    out[at++] = '[';
    for (int i = 0; i < t->dims && at < 60; i++) {
        int n = snprintf(out + at, 64 - at, i ? ",%lld" : "%lld", (long long)t->shape[i]);
        at += n > 0 ? (size_t)n : 0;
    }
    if (at > 62) at = 62;
    out[at++] = ']';
    out[at] = '\0';
    return out;
}
