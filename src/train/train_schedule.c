/* train_schedule.c - the learning rate of each step.
 *
 *     lr |   /‾‾‾‾‾‾‾‾ constant          steps are counted from 1; step t uses what transformers' schedules give the
 *        |  /\                           optimiser at its (t-1)-th call of step():
 *        | /   \ linear, cosine             t-1 < warmup:  lr * (t-1) / warmup          so the first step moves nothing
 *        |/______\____ floor * lr           then:          x = (t-1 - warmup) / (steps - warmup)
 *         warmup   steps                     constant: 1    linear: 1 - x    cosine: (1 + cos(pi x)) / 2
 *
 * The last step (t = steps) is one short of the end of the curve, as there.  With a floor the curve f becomes
 * f * (1 - floor) + floor (cosine_with_min_lr); the warm-up stays.  Computed in double, returned rounded.
 */
#include <math.h>

#include "train/train.h"

float train_schedule(train_schedule_kind kind, float lr, int64_t t, int64_t steps, int64_t warmup, float floor) {
    double f = 1, s = (double)(t - 1), w = (double)warmup;
    if (t - 1 < warmup) return (float)((double)lr * (s / (w > 1 ? w : 1)));
    double span = (double)(steps - warmup), x = (s - w) / (span > 1 ? span : 1);
    if (kind == SCHEDULE_LINEAR) f = x < 1 ? 1 - x : 0;
    if (kind == SCHEDULE_COSINE) f = x < 1 ? 0.5 * (1 + cos(3.141592653589793 * x)) : 0;
    if (kind != SCHEDULE_CONSTANT) f = f * (1 - (double)floor) + (double)floor;
    return (float)((double)lr * f);
}
