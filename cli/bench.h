/* bench.h - measuring the machine: what `bench machine` prints and `bench model` compares itself with.
 *
 *   bench_read_gbs   bytes read per second from a buffer that no cache holds, with every thread of the pool
 *   bench_gflops     multiply-adds per second from registers: no memory, so the most any kernel can reach; of bytes
 *                    too (int8), where an operation is one of integers
 *
 * Each call is one measurement of a fraction of a second; callers interleave several and take medians.
 */
#ifndef GIST_CLI_BENCH_H
#define GIST_CLI_BENCH_H

#include "cli.h"

typedef enum bench_unit { BENCH_F32, BENCH_BF16, BENCH_INT8, BENCH_UNITS } bench_unit;

/* "fma, 512 bits" of the best unit of this CPU; NULL: it has none for this type. */
const char *bench_unit_name(bench_unit u);
/* GFLOP/s or GOP/s (2 per multiply-add) of all threads; 0 when bench_unit_name is NULL. */
double bench_gflops(pool *p, bench_unit u);
/* GB/s (1e9 bytes) of one pass over the buffer. */
double bench_read_gbs(pool *p, const void *buffer, size_t bytes);
/* A touched buffer of `bytes`, mem_free(NULL, .); NULL when it cannot be had. */
void *bench_buffer(pool *p, size_t bytes);

enum { BENCH_MAX_REPEAT = 1000 };
double median(double *x, int n); /* sorts x */

#endif
