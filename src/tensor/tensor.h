/* tensor.h - number types and views of tensors.
 *
 * The project's alphabet of sizes, used as parameter names and in comments everywhere:
 *   B batch   T query rows   S keys   V vocabulary   C width   F feed-forward width   H query heads
 *   G key/value heads   D head width   L layers   K gist tokens
 * [T,H,D] is outermost first; weights are [out,in] = [N,K].
 */
#ifndef GIST_TENSOR_H
#define GIST_TENSOR_H

#include "base/base.h"

/* Plain types, then block types: runs of 32 or 256 elements that share scales (blocks.c; the layouts are GGUF's). */
typedef enum dtype { DT_F32, DT_BF16, DT_F16, DT_Q8_0, DT_Q4_0, DT_Q4_K, DT_Q5_K, DT_Q6_K, DT_COUNT } dtype;

const char *dt_name(dtype t);                       /* "f32", "bf16", "f16", "q8_0", ... */
bool dt_from_name(const char *name, dtype *out);
size_t dt_block(dtype t);                           /* elements that are stored together: 1, 32 or 256 */
size_t dt_bytes(dtype t, size_t n);                 /* of n consecutive elements (n a multiple of the block size) */
gist_type dt_public(dtype t);
/* Conversions of n elements (n a multiple of the block).  To bf16 and f16 round to nearest even; NaN stays NaN, f16
 * overflows to infinity.  To q8_0, q4_0 and q4_K (dt_writable) round as blocks.c says; a block that holds a value that
 * is not finite becomes NaN throughout. */
bool dt_writable(dtype t); /* can dt_from_f32 make it?  Not q5_K and q6_K. */
void dt_to_f32(float *dst, const void *src, dtype t, size_t n);
void dt_from_f32(void *dst, dtype t, const float *src, size_t n);

static inline float bf16_to_f32(uint16_t v) {
    uint32_t u = (uint32_t)v << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}
static inline uint16_t f32_to_bf16(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((u >> 16) | 0x40u); /* quiet NaN */
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}
float f16_to_f32(uint16_t v);
uint16_t f32_to_f16(float f);

enum { TENSOR_MAX_DIMS = 4 };
/* A named view of bytes that something else owns (a file map, usually).  data need not be aligned. */
typedef struct tensor_view {
    const char *name;
    dtype type;
    int dims;
    int64_t shape[TENSOR_MAX_DIMS]; /* outermost first; unused ones are 1 */
    const void *data;
    size_t bytes;
} tensor_view;
size_t tensor_count(const tensor_view *t); /* elements */
/* "[4096,4096]" into out; returns out */
char *tensor_shape_text(const tensor_view *t, char out[64]);

#endif
