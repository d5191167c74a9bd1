/* quant_avx512.h - the vectors of quant_kernels.h in AVX-512, but for the dot product of bytes.
 *
 * Tile: 4 rows x 4 vectors = 16 of 32 registers, 4 more for the panel's group, 1 for the broadcast.  Six rows would
 * fit, and are slower: while the sums of one run are scaled, the processor already multiplies the next, if it is near.
 */
#include <immintrin.h>

#include "ops/quant_int.h"

#define VF static inline __attribute__((always_inline))
enum { OUTS = 16, QUANT_VECS = 4 };
typedef __m512i vb, vi;
typedef __m512 vf;

VF vb vb_set(int byte) { return _mm512_set1_epi8((char)byte); }
VF vb vb_load(const uint8_t *p) { return _mm512_loadu_si512(p); }
VF void vb_store(uint8_t *p, vb x) { _mm512_storeu_si512(p, x); }
VF vb vb_and(vb a, vb b) { return _mm512_and_si512(a, b); }
VF vb vb_or(vb a, vb b) { return _mm512_or_si512(a, b); }
VF vb vb_left(vb a, int n) { return _mm512_sllv_epi16(a, _mm512_set1_epi16((short)n)); }
VF vb vb_right(vb a, int n) { return _mm512_srlv_epi16(a, _mm512_set1_epi16((short)n)); }
VF vi vi_set(int x) { return _mm512_set1_epi32(x); }
VF vi vi_pairs(vi a, vi b) { return _mm512_madd_epi16(a, b); }
VF vf vf_set(float x) { return _mm512_set1_ps(x); }
VF vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
VF void vf_store(float *p, vf x) { _mm512_storeu_ps(p, x); }
VF vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
VF vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
VF vf vf_less(vf a, vf b, vf c) { return _mm512_fnmadd_ps(a, b, c); } /* c - a b */
VF vf vf_of(vi x) { return _mm512_cvtepi32_ps(x); }
VF vf vf_from_f16(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p)); }
VF vf vf_from_u8(const uint8_t *p) {
    return vf_of(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)));
}
VF vf vf_from_i8(const int8_t *p) {
    return vf_of(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)));
}
