/* eval_saving.c - what one way saves over another, from paired values, with a bootstrap interval; and the middle 95 %
 * of drawn values, for every interval of this room.
 */
#include <stdlib.h>

#include "eval/eval_int.h"

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double percentile(const double *sorted, int n, double q) {
    double at = q * (n - 1);
    int i = (int)at;
    return i + 1 < n ? sorted[i] + (at - i) * (sorted[i + 1] - sorted[i]) : sorted[n - 1];
}

void eval_middle(double *drawn, int n, double *low, double *high) {
    qsort(drawn, (size_t)n, sizeof *drawn, ascending);
    *low = percentile(drawn, n, 0.025);
    *high = percentile(drawn, n, 0.975);
}

gist_status eval_saving_of(const double *a, const double *b, int n, int resamples, uint64_t seed,
                           const gist_allocator *alloc, eval_saving *out, gist_error *err) {
    double of_a = 0, of_b = 0;
    rng r;
    for (int i = 0; i < n; i++) {
        of_a += a[i];
        of_b += b[i];
    }
    double mean = 1 - of_b / of_a;
    *out = (eval_saving){ mean, mean, mean };
    if (n < 2 || resamples < 1) return GIST_OK;
    double *drawn = mem_alloc(alloc, (size_t)resamples, sizeof *drawn);
    if (!drawn) return err_memory(err, "resamples");
    rng_seed(&r, seed);
    for (int k = 0; k < resamples; k++) {
        of_a = of_b = 0;
        for (int i = 0; i < n; i++) {
            size_t at = (size_t)rng_below(&r, (uint64_t)n);
            of_a += a[at];
            of_b += b[at];
        }
        drawn[k] = 1 - of_b / of_a;
    }
    eval_middle(drawn, resamples, &out->low, &out->high);
    mem_free(alloc, drawn);
    return GIST_OK;
}
