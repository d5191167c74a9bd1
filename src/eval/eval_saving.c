/* eval_saving.c - what one way saves over another, from paired values, with a bootstrap interval. */

#include "eval/eval_int.h"

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
    eval_interval(drawn, resamples, &out->low, &out->high);
    mem_free(alloc, drawn);
    return GIST_OK;
}
