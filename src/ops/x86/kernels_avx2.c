/* kernels_avx2.c - the vector kernels on AVX2 + FMA + F16C: 16 lanes are two registers.
 *
 * Tile of accumulators: 5 rows x 1 vector of 16 = 10 of 16 registers, 2 for the panel's row, 1 for the broadcast.
 */
#include <immintrin.h>

#include "ops/ops_int.h"

typedef struct vf {
    __m256 a, b; /* lanes 0..7, 8..15 */
} vf;
#define VF static inline __attribute__((always_inline))
#define BOTH(f) ((vf){ f(x.a, y.a), f(x.b, y.b) })

VF vf vf_zero(void) { return (vf){ _mm256_setzero_ps(), _mm256_setzero_ps() }; }
VF vf vf_set(float v) { return (vf){ _mm256_set1_ps(v), _mm256_set1_ps(v) }; }
VF vf vf_load(const float *p) { return (vf){ _mm256_loadu_ps(p), _mm256_loadu_ps(p + 8) }; }
VF void vf_store(float *p, vf v) {
    _mm256_storeu_ps(p, v.a);
    _mm256_storeu_ps(p + 8, v.b);
}
VF vf vf_load_part(const float *p, int n) {
    float lane[16] = { 0 };
    memcpy(lane, p, (size_t)n * sizeof *p);
    return vf_load(lane);
}
VF void vf_store_part(float *p, vf v, int n) {
    float lane[16];
    vf_store(lane, v);
    memcpy(p, lane, (size_t)n * sizeof *p);
}
VF vf vf_add(vf x, vf y) { return BOTH(_mm256_add_ps); }
VF vf vf_sub(vf x, vf y) { return BOTH(_mm256_sub_ps); }
VF vf vf_mul(vf x, vf y) { return BOTH(_mm256_mul_ps); }
VF vf vf_sqrt(vf x) { return (vf){ _mm256_sqrt_ps(x.a), _mm256_sqrt_ps(x.b) }; }
VF vf vf_div(vf x, vf y) { return BOTH(_mm256_div_ps); }
VF vf vf_min(vf x, vf y) { return BOTH(_mm256_min_ps); }
VF vf vf_max(vf x, vf y) { return BOTH(_mm256_max_ps); }
VF vf vf_fma(vf x, vf y, vf z) { return (vf){ _mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b) }; }

VF vf vf_round(vf x) {
    return (vf){ _mm256_round_ps(x.a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
                 _mm256_round_ps(x.b, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC) };
}
/* a * 2^n by way of two factors, because n may reach 128 */
VF __m256 scale2(__m256 a, __m256 n) {
    __m256i i = _mm256_cvtps_epi32(n), h = _mm256_srai_epi32(i, 1), l = _mm256_sub_epi32(i, h);
    __m256i bias = _mm256_set1_epi32(127);
    a = _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(h, bias), 23)));
    return _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(l, bias), 23)));
}
VF vf vf_scale2(vf a, vf n) { return (vf){ scale2(a.a, n.a), scale2(a.b, n.b) }; }

VF __m256 exp_fix(__m256 e, __m256 x) {
    e = _mm256_andnot_ps(_mm256_cmp_ps(x, _mm256_set1_ps(EXP_MIN), _CMP_LT_OQ), e);
    e = _mm256_blendv_ps(e, _mm256_set1_ps(__builtin_inff()), _mm256_cmp_ps(x, _mm256_set1_ps(EXP_MAX), _CMP_GT_OQ));
    return _mm256_blendv_ps(e, x, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
}
VF vf vf_exp_fix(vf e, vf x) { return (vf){ exp_fix(e.a, x.a), exp_fix(e.b, x.b) }; }

VF __m256 widen_bf16(const uint16_t *p) {
    __m256i w = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(w, 16));
}
VF vf vf_from_bf16(const uint16_t *p) { return (vf){ widen_bf16(p), widen_bf16(p + 8) }; }
VF vf vf_from_f16(const uint16_t *p) {
    return (vf){ _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p)),
                 _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(p + 8))) };
}
VF __m256 widen_i8(const int8_t *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p)));
}
VF vf vf_from_i8(const int8_t *p) { return (vf){ widen_i8(p), widen_i8(p + 8) }; }
VF vf vf_set_f16(const void *p) {
    uint16_t h;
    memcpy(&h, p, sizeof h);
    __m256 x = _mm256_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(h)));
    return (vf){ x, x };
}
VF void vf_split_bf16(const uint16_t *p, vf *even, vf *odd) {
    __m256i lo = _mm256_loadu_si256((const __m256i *)(const void *)p);
    __m256i hi = _mm256_loadu_si256((const __m256i *)(const void *)(p + 16));
    __m256i mask = _mm256_set1_epi32((int)0xffff0000u);
    *even = (vf){ _mm256_castsi256_ps(_mm256_slli_epi32(lo, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(hi, 16)) };
    *odd = (vf){ _mm256_castsi256_ps(_mm256_and_si256(lo, mask)), _mm256_castsi256_ps(_mm256_and_si256(hi, mask)) };
}
/* f32_to_bf16 in 8 lanes; the results in the low half of each 32 */
VF __m256i round_half(__m256 v) {
    __m256i u = _mm256_castps_si256(v), top = _mm256_srli_epi32(u, 16);
    __m256i bias = _mm256_add_epi32(_mm256_set1_epi32(0x7fff), _mm256_and_si256(top, _mm256_set1_epi32(1)));
    __m256i r = _mm256_srli_epi32(_mm256_add_epi32(u, bias), 16);
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    return _mm256_blendv_epi8(r, _mm256_or_si256(top, _mm256_set1_epi32(0x40)), nan);
}
VF void vf_to_bf16(uint16_t *p, vf v) {
    __m256i packed = _mm256_packus_epi32(round_half(v.a), round_half(v.b)); /* interleaved by 128-bit halves */
    _mm256_storeu_si256((__m256i *)(void *)p, _mm256_permute4x64_epi64(packed, 0xd8));
}

VF float vf_fold_sum(vf v) {
    __m256 a = _mm256_add_ps(v.a, v.b);
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}
VF float vf_fold_max(vf v) {
    __m256 a = _mm256_max_ps(v.a, v.b);
    __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}

/* 8 x 8: three rounds, each exchanging halves at twice the distance. */
VF void transpose8(uint8_t *dst, size_t ldd, const uint8_t *src, size_t lds) {
    __m256 a[8], b[8];
    for (int i = 0; i < 8; i++) a[i] = _mm256_loadu_ps((const float *)(const void *)(src + 4 * (size_t)i * lds));
    for (int i = 0; i < 8; i += 2) {
        b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
        b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
    }
    for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; j++) {
            __m256d x = _mm256_castps_pd(b[i + j]), y = _mm256_castps_pd(b[i + j + 2]);
            a[i + 2 * j] = _mm256_castpd_ps(_mm256_unpacklo_pd(x, y));
            a[i + 2 * j + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(x, y));
        }
    for (int j = 0; j < 4; j++) {
        b[j] = _mm256_permute2f128_ps(a[j], a[j + 4], 0x20);
        b[j + 4] = _mm256_permute2f128_ps(a[j], a[j + 4], 0x31);
    }
    for (int i = 0; i < 8; i++) _mm256_storeu_ps((float *)(void *)(dst + 4 * (size_t)i * ldd), b[i]);
}
static void transpose(void *dst, size_t ldd, const void *src, size_t lds) {
    for (size_t i = 0; i < 16; i += 8)
        for (size_t j = 0; j < 16; j += 8)
            transpose8((uint8_t *)dst + 4 * (i * ldd + j), ldd, (const uint8_t *)src + 4 * (j * lds + i), lds);
}

#define GEMM_ROWS 5
#define GEMM_VECS 1
#define GEMM_KBLOCK 256
#include "ops/x86/simd_kernels.h"
#include "ops/x86/simd_kernels_bwd.h"

const op_kernels op_kernels_avx2 = {
    .level = GIST_KERNELS_AVX2,
    .gemm = { [DT_F32] = gemm_f32, [DT_BF16] = gemm_bf16, [DT_F16] = gemm_f16, OP_QUANT_GEMM(avx2) },
    .quantize = op_quantize_avx2,
    .round_bf16 = round_bf16,
    VECTOR_KERNELS,
};
