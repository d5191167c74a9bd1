/* eval_interval.c - percentiles of resampled means: the ends of every interval that this room gives. */
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

void eval_interval(double *drawn, int n, double *low, double *high) {
    qsort(drawn, (size_t)n, sizeof *drawn, ascending);
    *low = percentile(drawn, n, 0.025);
    *high = percentile(drawn, n, 0.975);
}
