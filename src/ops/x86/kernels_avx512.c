/* kernels_avx512.c - the vector kernels on AVX-512 (F, BW, VL, DQ): one register is 16 lanes.
 *
 * Tile of accumulators: 6 rows x 4 vectors = 24 of 32 registers, 4 more for the panel's row, broadcasts from memory.
 */
#include <immintrin.h>

#include "ops/ops_int.h"

typedef __m512 vf;
#define VF static inline __attribute__((always_inline))

VF vf vf_zero(void) { return _mm512_setzero_ps(); }
VF vf vf_set(float x) { return _mm512_set1_ps(x); }
VF vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
VF void vf_store(float *p, vf v) { _mm512_storeu_ps(p, v); }
VF vf vf_load_part(const float *p, int n) { return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p); }
VF void vf_store_part(float *p, vf v, int n) { _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), v); }
VF vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
VF vf vf_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
VF vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
VF vf vf_sqrt(vf a) { return _mm512_sqrt_ps(a); }
VF vf vf_div(vf a, vf b) { return _mm512_div_ps(a, b); }
VF vf vf_min(vf a, vf b) { return _mm512_min_ps(a, b); }
VF vf vf_max(vf a, vf b) { return _mm512_max_ps(a, b); }
VF vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
VF vf vf_round(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
VF vf vf_scale2(vf a, vf n) { return _mm512_scalef_ps(a, n); }

VF vf vf_exp_fix(vf e, vf x) {
    e = _mm512_mask_mov_ps(e, _mm512_cmp_ps_mask(x, vf_set(EXP_MIN), _CMP_LT_OQ), vf_zero());
    e = _mm512_mask_mov_ps(e, _mm512_cmp_ps_mask(x, vf_set(EXP_MAX), _CMP_GT_OQ), vf_set(__builtin_inff()));
    return _mm512_mask_mov_ps(e, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), x);
}

VF vf vf_from_bf16(const uint16_t *p) {
    __m512i w = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(w, 16));
}
VF vf vf_from_f16(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p)); }
VF vf vf_from_i8(const int8_t *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)));
}
VF vf vf_set_f16(const void *p) {
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return _mm512_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(h)));
}
VF void vf_split_bf16(const uint16_t *p, vf *even, vf *odd) {
    __m512i w = _mm512_loadu_si512(p);
    *even = _mm512_castsi512_ps(_mm512_slli_epi32(w, 16));
    *odd = _mm512_castsi512_ps(_mm512_and_si512(w, _mm512_set1_epi32((int)0xffff0000u)));
}
/* f32_to_bf16 in every lane: round to nearest even; NaN stays NaN, made quiet */
VF void vf_to_bf16(uint16_t *p, vf v) {
    __m512i u = _mm512_castps_si512(v), top = _mm512_srli_epi32(u, 16);
    __m512i bias = _mm512_add_epi32(_mm512_set1_epi32(0x7fff), _mm512_and_si512(top, _mm512_set1_epi32(1)));
    __m512i r = _mm512_srli_epi32(_mm512_add_epi32(u, bias), 16);
    r = _mm512_mask_or_epi32(r, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), top, _mm512_set1_epi32(0x40));
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtepi32_epi16(r));
}

/* 8+8, 4+4, 2+2, 1+1, as in scalar.c */
VF float vf_fold_sum(vf v) {
    __m256 a = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}
VF float vf_fold_max(vf v) { return _mm512_reduce_max_ps(v); }

/* Four rounds, each exchanging halves at twice the distance: 32, 64, 128, 256 bits. */
static void transpose(void *dst, size_t ldd, const void *src, size_t lds) {
    __m512 a[16], b[16];
    for (int i = 0; i < 16; i++) a[i] = _mm512_loadu_ps((const uint8_t *)src + 4 * (size_t)i * lds);
    for (int i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            __m512d x = _mm512_castps_pd(b[i + j]), y = _mm512_castps_pd(b[i + j + 2]);
            a[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(x, y));
            a[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(x, y));
        }
    for (int i = 0; i < 16; i += 8)
        for (int j = 0; j < 4; j++) {
            b[i + j] = _mm512_shuffle_f32x4(a[i + j], a[i + j + 4], 0x88);
            b[i + j + 4] = _mm512_shuffle_f32x4(a[i + j], a[i + j + 4], 0xdd);
        }
    for (int j = 0; j < 8; j++) {
        a[j] = _mm512_shuffle_f32x4(b[j], b[j + 8], 0x88);
        a[j + 8] = _mm512_shuffle_f32x4(b[j], b[j + 8], 0xdd);
    }
    for (int i = 0; i < 16; i++) _mm512_storeu_ps((uint8_t *)dst + 4 * (size_t)i * ldd, a[i]);
}

#define GEMM_ROWS 6
#define GEMM_VECS 4
#define GEMM_KBLOCK 256
#include "ops/x86/simd_kernels.h"
#include "ops/x86/simd_kernels_bwd.h"

const op_kernels op_kernels_avx512 = {
    .level = GIST_KERNELS_AVX512,
    .gemm = { [DT_F32] = gemm_f32, [DT_BF16] = gemm_bf16, [DT_F16] = gemm_f16, OP_QUANT_GEMM(avx512) },
    .quantize = op_quantize_avx512,
    .round_bf16 = round_bf16,
    VECTOR_KERNELS,
};

const op_kernels op_kernels_avx512vnni = {
    .level = GIST_KERNELS_AVX512,
    .gemm = { [DT_F32] = gemm_f32, [DT_BF16] = gemm_bf16, [DT_F16] = gemm_f16, OP_QUANT_GEMM(avx512vnni) },
    .quantize = op_quantize_avx512,
    .round_bf16 = round_bf16,
    VECTOR_KERNELS,
};

const op_kernels op_kernels_amx = {
    .level = GIST_KERNELS_AMX,
    .gemm = { [DT_F32] = gemm_f32, [DT_BF16] = op_gemm_bf16_amx, [DT_F16] = gemm_f16, OP_QUANT_GEMM(avx512vnni) },
    .quantize = op_quantize_avx512,
    .round_bf16 = op_round_bf16_avx512bf16,
    VECTOR_KERNELS,
};

const op_kernels op_kernels_avx512bf16 = {
    .level = GIST_KERNELS_AVX512BF16,
    .gemm = { [DT_F32] = gemm_f32, [DT_BF16] = op_gemm_bf16_avx512bf16, [DT_F16] = gemm_f16,
              OP_QUANT_GEMM(avx512vnni) },
    .quantize = op_quantize_avx512,
    .round_bf16 = op_round_bf16_avx512bf16,
    VECTOR_KERNELS,
};
