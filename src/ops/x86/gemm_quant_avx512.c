/* gemm_quant_avx512.c - block types on AVX-512 without dot products of bytes, and the quantizer of activations.
 *
 * VPMADDUBSW adds two products of bytes in 16 bits and saturates: harmless for weights of up to 6 bits (2 * 63 * 127),
 * wrong for bytes (2 * 255 * 127).  Those are split into even and odd ones and multiplied as 16-bit integers.
 */
#include "ops/x86/quant_avx512.h"

enum { SIGNED_BYTES = 0 };
VF vi vi_dot(vi acc, vb u, vi q, bool wide) {
    if (!wide) return _mm512_add_epi32(acc, _mm512_madd_epi16(_mm512_maddubs_epi16(u, q), _mm512_set1_epi16(1)));
    vi even = _mm512_madd_epi16(_mm512_and_si512(u, _mm512_set1_epi16(255)),
                                _mm512_srai_epi16(_mm512_slli_epi16(q, 8), 8));
    vi odd = _mm512_madd_epi16(_mm512_srli_epi16(u, 8), _mm512_srai_epi16(q, 8));
    return _mm512_add_epi32(acc, _mm512_add_epi32(even, odd));
}

#include "ops/x86/quant_kernels.h"

QUANT_KERNELS(avx512)

void op_quantize_avx512(op_qrun *y, const float *x, int runs) {
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    for (int b = 0; b < runs; b++, y++, x += QUANT_RUN) {
        __m512 part[2] = { _mm512_loadu_ps(x), _mm512_loadu_ps(x + 16) };
        /* Magnitudes order like their bits; infinity and NaN come last. */
        int bits = _mm512_reduce_max_epi32(_mm512_max_epi32(_mm512_and_si512(_mm512_castps_si512(part[0]), magnitude),
                                                            _mm512_and_si512(_mm512_castps_si512(part[1]), magnitude)));
        float inverse = quant_begin(y, bits);
        if (inverse == 0) continue;
        for (int h = 0; h < 2; h++) {
            __m512i q = _mm512_cvtps_epi32(_mm512_mul_ps(part[h], _mm512_set1_ps(inverse)));
            _mm_storeu_si128((__m128i *)(void *)(y->q + 16 * h), _mm512_cvtepi32_epi8(q));
            y->half[h] = (int16_t)_mm512_reduce_add_epi32(q);
        }
        y->sum = y->scale * (float)(y->half[0] + y->half[1]);
    }
}
