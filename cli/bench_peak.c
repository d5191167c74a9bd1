/* bench_peak.c - multiply-adds from registers: one kernel per instruction set, picked at run time.
 *
 * 20 independent sums hide the latency of the units; sums and factors stay in registers; the compiler cannot fold the
 * chain, because it may not reassociate floating point.  The functions carry their instruction set as an attribute, so
 * the rest of the program still starts on any CPU.
 */
#include "bench.h"

#if defined(__x86_64__) && !defined(GIST_NO_X86)
#include <immintrin.h>
#define HAVE_X86 1
#endif

enum { SUMS = 20, STEPS = 20000 /* of SUMS instructions in one task: a fraction of a millisecond */ };

#define EACH(X)                                                                                                        \
    X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15) X(16) X(17) X(18) X(19)

static float peak_plain(float x) {
    float s[SUMS];
    for (int i = 0; i < SUMS; i++) s[i] = x + (float)i;
    for (int n = 0; n < STEPS; n++)
        for (int i = 0; i < SUMS; i++) s[i] = s[i] * 0.999f + x;
    for (int i = 1; i < SUMS; i++) s[0] += s[i];
    return s[0];
}

#ifdef HAVE_X86
#define SUM8(i) __m256 s##i = _mm256_set1_ps(x + (float)i);
#define FMA8(i) s##i = _mm256_fmadd_ps(a, b, s##i);
#define ADD8(i) all = _mm256_add_ps(all, s##i);
/* 12 sums: there are 16 registers */
#define EACH12(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
__attribute__((target("avx2,fma"))) static float peak_avx2(float x) {
    __m256 a = _mm256_set1_ps(x), b = _mm256_set1_ps(0.5f * x), all = a;
    EACH12(SUM8)
    for (int n = 0; n < STEPS; n++) {
        EACH12(FMA8)
    }
    EACH12(ADD8)
    return _mm256_cvtss_f32(all);
}

#define SUM16(i) __m512 s##i = _mm512_set1_ps(x + (float)i);
#define FMA16(i) s##i = _mm512_fmadd_ps(a, b, s##i);
#define ADD16(i) all = _mm512_add_ps(all, s##i);
__attribute__((target("avx512f"))) static float peak_avx512(float x) {
    __m512 a = _mm512_set1_ps(x), b = _mm512_set1_ps(0.5f * x), all = a;
    EACH(SUM16)
    for (int n = 0; n < STEPS; n++) {
        EACH(FMA16)
    }
    EACH(ADD16)
    return _mm512_cvtss_f32(all);
}

#define DOT16(i) s##i = _mm512_dpbf16_ps(s##i, a, b);
__attribute__((target("avx512f,avx512bf16"))) static float peak_bf16(float x) {
    __m512bh a = _mm512_cvtne2ps_pbh(_mm512_set1_ps(x), _mm512_set1_ps(x)), b = a;
    __m512 all = _mm512_set1_ps(x);
    EACH(SUM16)
    for (int n = 0; n < STEPS; n++) {
        EACH(DOT16)
    }
    EACH(ADD16)
    return _mm512_cvtss_f32(all);
}

/* Four tiles of sums, two of rows, two of columns: 16 x 16 sums of 32 products each. */
enum { TILES = 4, TILE_STEPS = STEPS / 4, TILE_PRODUCTS = 16 * 16 * 32 };
__attribute__((target("avx512f,amx-tile,amx-bf16"))) static float peak_amx(float x) {
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config = { .palette = 1 };
    float tile[16][16];
    for (int i = 0; i < 8; i++) config.row_bytes[i] = 64, config.rows[i] = 16;
    for (int i = 0; i < 256; i++) tile[i / 16][i % 16] = x;
    _tile_loadconfig(&config);
    _tile_loadd(0, tile, 64);
    _tile_loadd(1, tile, 64);
    _tile_loadd(2, tile, 64);
    _tile_loadd(3, tile, 64);
    _tile_loadd(4, tile, 64);
    _tile_loadd(5, tile, 64);
    _tile_loadd(6, tile, 64);
    _tile_loadd(7, tile, 64);
    for (int n = 0; n < TILE_STEPS; n++) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, tile, 64);
    x = tile[3][3];
    _tile_stored(1, tile, 64);
    x += tile[3][3];
    _tile_stored(2, tile, 64);
    x += tile[3][3];
    _tile_stored(3, tile, 64);
    _tile_release();
    return x + tile[3][3];
}

/* Bytes: products in pairs, pairs in 32 bits, and their sum; or all at once. */
#define ISUM8(i) __m256i s##i = _mm256_set1_epi32(i);
#define IDOT8(i) s##i = _mm256_add_epi32(s##i, _mm256_madd_epi16(_mm256_maddubs_epi16(a, s##i), b));
#define IADD8(i) all = _mm256_add_epi32(all, s##i);
__attribute__((target("avx2"))) static float peak_int8_avx2(float x) {
    __m256i a = _mm256_set1_epi32((int)(x * 0x1000000)), b = _mm256_set1_epi16(1), all = b;
    EACH12(ISUM8)
    for (int n = 0; n < STEPS; n++) {
        EACH12(IDOT8)
    }
    EACH12(IADD8)
    return (float)_mm256_extract_epi32(all, 0);
}

#define ISUM16(i) __m512i s##i = _mm512_set1_epi32(i);
#define IDOT16(i) s##i = _mm512_add_epi32(s##i, _mm512_madd_epi16(_mm512_maddubs_epi16(a, s##i), b));
#define IADD16(i) all = _mm512_add_epi32(all, s##i);
__attribute__((target("avx512f,avx512bw"))) static float peak_int8_avx512(float x) {
    __m512i a = _mm512_set1_epi32((int)(x * 0x1000000)), b = _mm512_set1_epi16(1), all = b;
    EACH(ISUM16)
    for (int n = 0; n < STEPS; n++) {
        EACH(IDOT16)
    }
    EACH(IADD16)
    return (float)_mm_cvtsi128_si32(_mm512_castsi512_si128(all));
}

/* gcc 12 copies the sums of the intrinsic through other registers and spills them. */
#define VDOT16(i) __asm__("vpdpbusd %2, %1, %0" : "+v"(s##i) : "v"(a), "v"(b));
__attribute__((target("avx512f,avx512vnni"))) static float peak_vnni(float x) {
    __m512i a = _mm512_set1_epi32((int)(x * 0x1000000)), b = a, all = a;
    EACH(ISUM16)
    for (int n = 0; n < STEPS; n++) {
        EACH(VDOT16)
    }
    EACH(IADD16)
    return (float)_mm_cvtsi128_si32(_mm512_castsi512_si128(all));
}
#endif

/* ---- the best unit of this CPU ---- */

typedef struct unit {
    const char *name;
    float (*run)(float x);
    double flops; /* of one call */
} unit;

#ifdef HAVE_X86
static unit int8_unit(void) {
    if (gist_kernels_available(GIST_KERNELS_AVX512) && __builtin_cpu_supports("avx512vnni"))
        return (unit){ "dot products of bytes, 512 bits", peak_vnni, 2.0 * 64 * SUMS * STEPS };
    if (gist_kernels_available(GIST_KERNELS_AVX512))
        return (unit){ "products of bytes, pairs, sum, 512 bits", peak_int8_avx512, 2.0 * 64 * SUMS * STEPS };
    if (gist_kernels_available(GIST_KERNELS_AVX2))
        return (unit){ "products of bytes, pairs, sum, 256 bits", peak_int8_avx2, 2.0 * 32 * 12 * STEPS };
    return (unit){ 0 };
}
#endif

static unit find_unit(bench_unit u) {
    unit none = { 0 };
#ifdef HAVE_X86
    if (u == BENCH_BF16 && gist_kernels_available(GIST_KERNELS_AMX))
        return (unit){ "bf16 tiles", peak_amx, 2.0 * TILE_PRODUCTS * TILES * TILE_STEPS };
    if (u == BENCH_BF16)
        return gist_kernels_available(GIST_KERNELS_AVX512BF16)
                   ? (unit){ "bf16 dot products, 512 bits", peak_bf16, 2.0 * 32 * SUMS * STEPS }
                   : none;
    if (u == BENCH_INT8) return int8_unit();
    if (gist_kernels_available(GIST_KERNELS_AVX512))
        return (unit){ "fused multiply-add, 512 bits", peak_avx512, 2.0 * 16 * SUMS * STEPS };
    if (gist_kernels_available(GIST_KERNELS_AVX2))
        return (unit){ "fused multiply-add, 256 bits", peak_avx2, 2.0 * 8 * 12 * STEPS };
#endif
    return u == BENCH_F32 ? (unit){ "multiply and add, as compiled", peak_plain, 2.0 * SUMS * STEPS } : none;
}

const char *bench_unit_name(bench_unit u) {
    return find_unit(u).name;
}

typedef struct peak_job {
    unit u;
    float x;
    float *sink; /* [workers], 64 bytes apart */
} peak_job;

static void peak_task(void *ctx, int task, int worker) {
    const peak_job *j = ctx;
    (void)task;
    j->sink[worker * 16] = j->u.run(j->x);
}

double bench_gflops(pool *p, bench_unit u) {
    enum { TASKS_PER_THREAD = 200 };
    float sink[256 * 16];
    int tasks = TASKS_PER_THREAD * pool_size(p);
    peak_job j = { find_unit(u), 1.0f / 1024, sink };
    if (!j.u.name) return 0;
    pool_run(p, peak_task, &j, tasks / 8); /* wake threads and clocks */
    double start = time_now();
    pool_run(p, peak_task, &j, tasks);
    return j.u.flops * tasks / (time_now() - start) / 1e9;
}
