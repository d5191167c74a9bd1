/* bench_memory.c - bytes read per second from a buffer that no cache holds. */
#include <stdlib.h>

#include "bench.h"

enum { PIECE = 2 << 20 };

/* 64 bytes at a time; compilers split it where registers are narrower. */
typedef uint64_t wide __attribute__((vector_size(64), aligned(64)));

typedef struct read_job {
    const uint8_t *p;
    uint8_t *w;
    size_t bytes;
    wide *sink; /* [workers] */
} read_job;

#define READ_BODY                                                                                                      \
    const wide *v = (const void *)p;                                                                                   \
    wide a = { 0 }, b = a, c = a, d = a;                                                                               \
    for (size_t i = 0; i + 4 <= bytes / sizeof *v; i += 4) {                                                           \
        a ^= v[i];                                                                                                     \
        b ^= v[i + 1];                                                                                                 \
        c ^= v[i + 2];                                                                                                 \
        d ^= v[i + 3];                                                                                                 \
    }                                                                                                                  \
    *sink ^= a ^ b ^ c ^ d;

static void read_plain(const uint8_t *p, size_t bytes, wide *sink) {
    READ_BODY
}

#if defined(__x86_64__) && !defined(GIST_NO_X86)
__attribute__((target("avx512f"))) static void read_avx512(const uint8_t *p, size_t bytes, wide *sink) {
    READ_BODY
}
__attribute__((target("avx2"))) static void read_avx2(const uint8_t *p, size_t bytes, wide *sink) {
    READ_BODY
}
#else
#define read_avx512 read_plain
#define read_avx2 read_plain
#endif

static size_t piece_of(const read_job *j, int task) {
    size_t at = (size_t)task * PIECE;
    return j->bytes - at < PIECE ? j->bytes - at : PIECE;
}

static void read_task(void *ctx, int task, int worker) {
    const read_job *j = ctx;
    const uint8_t *p = j->p + (size_t)task * PIECE;
    if (gist_kernels_available(GIST_KERNELS_AVX512))
        read_avx512(p, piece_of(j, task), &j->sink[worker]);
    else if (gist_kernels_available(GIST_KERNELS_AVX2))
        read_avx2(p, piece_of(j, task), &j->sink[worker]);
    else
        read_plain(p, piece_of(j, task), &j->sink[worker]);
}

static void touch_task(void *ctx, int task, int worker) {
    (void)worker;
    const read_job *j = ctx;
    memset(j->w + (size_t)task * PIECE, task & 255, piece_of(j, task));
}

static int pieces(size_t bytes) {
    return (int)((bytes + PIECE - 1) / PIECE);
}

void *bench_buffer(pool *p, size_t bytes) {
    uint8_t *b = mem_alloc(NULL, bytes, 1);
    read_job j = { .w = b, .bytes = bytes };
    if (b) pool_run(p, touch_task, &j, pieces(bytes));
    return b;
}

double bench_read_gbs(pool *p, const void *buffer, size_t bytes) {
    wide sink[256];
    memset(sink, 0, sizeof sink);
    read_job j = { .p = buffer, .bytes = bytes, .sink = sink };
    double start = time_now();
    pool_run(p, read_task, &j, pieces(bytes));
    return (double)bytes / (time_now() - start) / 1e9;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double median(double *x, int n) {
    qsort(x, (size_t)n, sizeof *x, ascending);
    return n % 2 ? x[n / 2] : 0.5 * (x[n / 2 - 1] + x[n / 2]);
}
