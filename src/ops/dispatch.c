/* dispatch.c - picks the kernels for this CPU once, and cuts rows into tasks.
 *
 * A level is available when both the processor and the operating system (XSAVE state) support it; gcc's and clang's
 * __builtin_cpu_supports asks both.
 */
#include "ops/ops_int.h"

#if defined(__x86_64__) && !defined(GIST_NO_X86)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

const char *gist_kernels_name(gist_kernels level) {
    static const char *const name[] = { "auto", "scalar", "avx2", "avx512", "avx512bf16", "amx" };
    return (unsigned)level < sizeof name / sizeof *name ? name[level] : "unknown";
}

#if defined(__x86_64__) && !defined(GIST_NO_X86)
/* Not a level of its own: products of block types give the same bits without. */
static bool vnni(void) {
    return __builtin_cpu_supports("avx512vnni");
}

/* Tiles of bf16.  Their state is large, so Linux gives it to a process that asks, once for all of its threads. */
static bool amx(void) {
#if defined(__linux__) && defined(SYS_arch_prctl)
    enum { LEAF = 7, AMX_BF16 = 1 << 22, AMX_TILE = 1 << 24, REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    unsigned a, b, c, d;
    return __get_cpuid_count(LEAF, 0, &a, &b, &c, &d) && (d & AMX_BF16) && (d & AMX_TILE) &&
           syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
    return false;
#endif
}
#endif

bool gist_kernels_available(gist_kernels level) {
    if (level == GIST_KERNELS_AUTO || level == GIST_KERNELS_SCALAR) return true;
#if defined(__x86_64__) && !defined(GIST_NO_X86)
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    if (level == GIST_KERNELS_AVX2) return avx2; /* every FMA processor has F16C */
    if (level == GIST_KERNELS_AVX512) return avx512;
    bool bf16 = avx512 && vnni() && __builtin_cpu_supports("avx512bf16");
    if (level == GIST_KERNELS_AVX512BF16) return bf16;
    if (level == GIST_KERNELS_AMX) return bf16 && amx();
#endif
    return false;
}

static const op_kernels *table(gist_kernels level) {
    switch (level) {
#if defined(__x86_64__) && !defined(GIST_NO_X86)
    case GIST_KERNELS_AVX2: return &op_kernels_avx2;
    case GIST_KERNELS_AVX512: return vnni() ? &op_kernels_avx512vnni : &op_kernels_avx512;
    case GIST_KERNELS_AVX512BF16: return &op_kernels_avx512bf16;
    case GIST_KERNELS_AMX: return &op_kernels_amx;
#endif
    default: return &op_kernels_scalar;
    }
}

gist_status op_init(op_ctx *ctx, gist_kernels level, pool *p, gist_error *err) {
    if (level == GIST_KERNELS_AUTO) {
        level = GIST_KERNELS_AMX;
        while (!gist_kernels_available(level)) level = (gist_kernels)(level - 1);
    }
    if (!gist_kernels_available(level))
        return err_set(err, GIST_ERR_UNSUPPORTED, "this processor cannot run the %s kernels", gist_kernels_name(level));
    *ctx = (op_ctx){ table(level), p };
    return GIST_OK;
}

gist_kernels op_level(const op_ctx *ctx) {
    return ctx->k->level;
}

typedef struct rows_job {
    op_rows_fn fn;
    void *arg;
    int T, step;
} rows_job;

static void rows_task(void *ctx, int task, int worker) {
    (void)worker;
    const rows_job *j = ctx;
    int first = task * j->step, last = first + j->step < j->T ? first + j->step : j->T;
    j->fn(j->arg, first, last);
}

enum { TASK_COST = 32768 /* below some microseconds of work another thread does not help */ };

void op_run(op_ctx *ctx, pool_fn fn, void *arg, int n, size_t cost) {
    if (cost >= TASK_COST) {
        pool_run(ctx->pool, fn, arg, n);
        return;
    }
    for (int task = 0; task < n; task++) fn(arg, task, 0);
}

void op_for_rows(op_ctx *ctx, op_rows_fn fn, void *arg, int T, size_t cost) {
    size_t step = cost < TASK_COST ? TASK_COST / (cost ? cost : 1) : 1;
    if (step >= (size_t)T || pool_size(ctx->pool) == 1) {
        fn(arg, 0, T);
        return;
    }
    rows_job j = { fn, arg, T, (int)step };
    pool_run(ctx->pool, rows_task, &j, (T + j.step - 1) / j.step);
}
