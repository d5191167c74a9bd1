/* distance.c - the table behind attention's bias by distance: buckets of distances, spread out for each head.
 *
 *   distance (key - query)   ... -9 -8 .. -1  0 | 1 .. 8 9 ...
 *   bucket                        by log | own  | the second half of the table, where keys may stand behind
 *
 *   small   n < exact = buckets/2      n
 *   large                              exact + log(n / exact) / log(most / exact) * (buckets - exact), at most the last
 *
 * Source: Raffel et al. 2020, section 2.1; the formula in f32, as the models were trained with it.
 */
#include <math.h>

#include "ops/ops.h"

int op_bucket(const op_buckets *b, int distance) {
    int buckets = b->both ? b->buckets / 2 : b->buckets, first = b->both && distance > 0 ? buckets : 0;
    int n = distance < 0 ? -distance : b->both ? distance : 0, exact = buckets / 2;
    if (n < exact) return first + n;
    float part = logf((float)n / (float)exact) / (float)log((double)b->most / exact) * (float)(buckets - exact);
    int large = part < (float)buckets ? exact + (int)part : buckets - 1;
    return first + (large < buckets ? large : buckets - 1);
}

void op_distance_fwd(const op_distance *near, const float *table, const op_buckets *b, int H) {
    size_t all = 2 * (size_t)near->reach + 1;
    for (int d = -near->reach; d <= near->reach; d++) {
        const float *row = table + (size_t)op_bucket(b, d) * (size_t)H;
        for (size_t h = 0; h < (size_t)H; h++) near->bias[h * all + (size_t)(near->reach + d)] = row[h];
    }
}

void op_distance_bwd(float *dtable, const float *dbias, int reach, const op_buckets *b, int H) {
    size_t all = 2 * (size_t)reach + 1;
    for (int d = -reach; d <= reach; d++) {
        float *row = dtable + (size_t)op_bucket(b, d) * (size_t)H;
        for (size_t h = 0; h < (size_t)H; h++) row[h] += dbias[h * all + (size_t)(reach + d)];
    }
}
