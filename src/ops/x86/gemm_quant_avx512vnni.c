/* gemm_quant_avx512vnni.c - block types with VPDPBUSD: 64 products of bytes per instruction, summed in int32 without
 * saturation.
 */
#include "ops/x86/quant_avx512.h"

enum { SIGNED_BYTES = 0 };
VF vi vi_dot(vi acc, vb u, vi q, bool wide) {
    (void)wide;
    return _mm512_dpbusd_epi32(acc, u, q);
}

#include "ops/x86/quant_kernels.h"

QUANT_KERNELS(avx512vnni)
