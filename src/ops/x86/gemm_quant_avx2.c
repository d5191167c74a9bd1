/* gemm_quant_avx2.c - block types on AVX2, and the quantizer of activations.
 *
 * VPMADDUBSW multiplies bytes without a sign by signed ones, adds two products in 16 bits and saturates: harmless for
 * weights of up to 6 bits (2 * 63 * 127), wrong for bytes (2 * 255 * 127).  Those give their sign to the activation.
 *
 * Tile: 4 rows x 2 vectors = 8 of 16 registers; the rest for the panel's group, the broadcast and what they become.
 */
#include <immintrin.h>

#include "ops/quant_int.h"

#define VF static inline __attribute__((always_inline))
enum { OUTS = 8, QUANT_VECS = 2 };
typedef __m256i vb, vi;
typedef __m256 vf;

VF vb vb_set(int byte) { return _mm256_set1_epi8((char)byte); }
VF vb vb_load(const uint8_t *p) { return _mm256_loadu_si256((const __m256i *)(const void *)p); }
VF void vb_store(uint8_t *p, vb x) { _mm256_storeu_si256((__m256i *)(void *)p, x); }
VF vb vb_and(vb a, vb b) { return _mm256_and_si256(a, b); }
VF vb vb_or(vb a, vb b) { return _mm256_or_si256(a, b); }
VF vb vb_left(vb a, int n) { return _mm256_slli_epi16(a, n); }
VF vb vb_right(vb a, int n) { return _mm256_srli_epi16(a, n); }
VF vi vi_set(int x) { return _mm256_set1_epi32(x); }
VF vi vi_pairs(vi a, vi b) { return _mm256_madd_epi16(a, b); }
VF vf vf_set(float x) { return _mm256_set1_ps(x); }
VF vf vf_load(const float *p) { return _mm256_loadu_ps(p); }
VF void vf_store(float *p, vf x) { _mm256_storeu_ps(p, x); }
VF vf vf_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
VF vf vf_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
VF vf vf_less(vf a, vf b, vf c) { return _mm256_fnmadd_ps(a, b, c); } /* c - a b */
VF vf vf_of(vi x) { return _mm256_cvtepi32_ps(x); }
VF vf vf_from_f16(const uint16_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p)); }
VF vf vf_from_u8(const uint8_t *p) {
    return vf_of(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p)));
}
VF vf vf_from_i8(const int8_t *p) {
    return vf_of(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p)));
}

/* wide: |w| q', where w = u - 128 and q' = q with the sign of w: at most 2 * 128 * 127, which fits. */
enum { SIGNED_BYTES = 1 };
VF vi vi_dot(vi acc, vb u, vi q, bool wide) {
    if (wide) {
        vb w = _mm256_xor_si256(u, _mm256_set1_epi8((char)128));
        u = _mm256_abs_epi8(w);
        q = _mm256_sign_epi8(q, w);
    }
    vi pair = _mm256_maddubs_epi16(u, q);
    return _mm256_add_epi32(acc, _mm256_madd_epi16(pair, _mm256_set1_epi16(1)));
}

#include "ops/x86/quant_kernels.h"

QUANT_KERNELS(avx2)

/* 8 lanes to 1 */
VF int fold_max(__m256i v) {
    __m128i a = _mm_max_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    a = _mm_max_epi32(a, _mm_shuffle_epi32(a, 0x4e));
    return _mm_cvtsi128_si32(_mm_max_epi32(a, _mm_shuffle_epi32(a, 0xb1)));
}
VF int fold_sum(__m256i v) {
    __m128i a = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    a = _mm_add_epi32(a, _mm_shuffle_epi32(a, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(a, _mm_shuffle_epi32(a, 0xb1)));
}

void op_quantize_avx2(op_qrun *y, const float *x, int runs) {
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    for (int b = 0; b < runs; b++, y++, x += QUANT_RUN) {
        __m256i most = _mm256_setzero_si256();
        for (int i = 0; i < QUANT_RUN; i += 8) /* magnitudes order like their bits; infinity and NaN come last */
            most = _mm256_max_epi32(most, _mm256_and_si256(_mm256_castps_si256(_mm256_loadu_ps(x + i)), magnitude));
        float inverse = quant_begin(y, fold_max(most));
        if (inverse == 0) continue;
        for (int h = 0; h < 2; h++) {
            __m256i lo = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 16 * h), _mm256_set1_ps(inverse)));
            __m256i hi = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 16 * h + 8), _mm256_set1_ps(inverse)));
            __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(lo, hi), 0xd8); /* halves were interleaved */
            _mm_storeu_si128((__m128i *)(void *)(y->q + 16 * h),
                             _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
            y->half[h] = (int16_t)fold_sum(_mm256_add_epi32(lo, hi));
        }
        y->sum = y->scale * (float)(y->half[0] + y->half[1]);
    }
}
