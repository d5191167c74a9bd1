/* eval_summary.c - scores of many pairs, their means and bootstrap intervals.
 *
 *   pairs --threads, 64 at a time--> rows --threads, one resample each--> means of resamples --sorted--> percentiles
 *
 * A resample's random numbers come from its own number and the seed, and its sums run in the order of its draws, so
 * nothing depends on which thread did what.
 */
#include <stdlib.h>

#include "eval/eval.h"

const char *const eval_metric_names[EVAL_METRICS] = { "rouge1", "rouge2", "rougeL", "rougeLsum", "exact" };

/* ---- rows ---- */

enum { PAIRS_PER_TASK = 64 };

typedef struct scoring {
    const eval_pairs *pairs;
    eval_row *rows;
    eval_rouge **rouge;   /* [threads] */
    gist_status *status;  /* [threads] first failure */
    gist_error *why;      /* [threads] */
} scoring;

static gist_status score_row(eval_rouge *rouge, const eval_pair *pair, eval_row *row, gist_error *err) {
    eval_rouge_scores s;
    TRY(eval_rouge_score(rouge, pair->prediction, pair->reference, &s, err));
    *row = (eval_row){ .predicted = s.predicted, .expected = s.expected };
    for (int i = 0; i < EVAL_ROUGES; i++) row->score[i] = s.f1[i];
    bool same = pair->prediction.len == pair->reference.len &&
                memcmp(pair->prediction.p, pair->reference.p, pair->reference.len) == 0;
    row->score[EVAL_EXACT] = same ? 1 : 0;
    return GIST_OK;
}

static void score_task(void *ctx, int task, int worker) {
    scoring *s = ctx;
    int to = s->pairs->n - task * PAIRS_PER_TASK < PAIRS_PER_TASK ? s->pairs->n : (task + 1) * PAIRS_PER_TASK;
    for (int i = task * PAIRS_PER_TASK; i < to && s->status[worker] == GIST_OK; i++)
        s->status[worker] = score_row(s->rouge[worker], &s->pairs->pair[i], &s->rows[i], &s->why[worker]);
}

static gist_status score_all(scoring *s, pool *p, const gist_allocator *alloc, gist_error *err) {
    int threads = pool_size(p);
    for (int i = 0; i < threads; i++) TRY(eval_rouge_create(alloc, &s->rouge[i], err));
    pool_run(p, score_task, s, (s->pairs->n - 1) / PAIRS_PER_TASK + 1);
    for (int i = 0; i < threads; i++)
        if (s->status[i] != GIST_OK) return err_set(err, s->status[i], "%s", s->why[i].msg);
    return GIST_OK;
}

gist_status eval_score_pairs(const eval_pairs *pairs, pool *p, eval_row *rows, gist_error *err) {
    const gist_allocator *alloc = pairs->alloc;
    size_t threads = (size_t)pool_size(p);
    scoring s = { .pairs = pairs,
                  .rows = rows,
                  .rouge = mem_calloc(alloc, threads, sizeof(eval_rouge *)),
                  .status = mem_calloc(alloc, threads, sizeof(gist_status)),
                  .why = mem_calloc(alloc, threads, sizeof(gist_error)) };
    gist_status status =
        s.rouge && s.status && s.why ? score_all(&s, p, alloc, err) : err_memory(err, "scores");
    for (size_t i = 0; s.rouge && i < threads; i++) eval_rouge_free(s.rouge[i]);
    mem_free(alloc, s.rouge);
    mem_free(alloc, s.status);
    mem_free(alloc, s.why);
    return status;
}

/* ---- bootstrap ---- */

typedef struct bootstrap {
    const eval_row *rows;
    uint32_t n;
    int resamples;
    uint64_t seed;
    double *mean; /* [EVAL_METRICS][resamples] */
} bootstrap;

/* [0,n), unbiased, from 32 random bits and rarely more (Lemire's multiplication). */
static uint32_t draw(rng *r, uint32_t n) {
    uint64_t product = (rng_next(r) >> 32) * n;
    if ((uint32_t)product < n)
        for (uint32_t least = -n % n; (uint32_t)product < least;) product = (rng_next(r) >> 32) * n;
    return (uint32_t)(product >> 32);
}

static void resample(void *ctx, int task, int worker) {
    (void)worker;
    bootstrap *b = ctx;
    uint64_t key[2] = { b->seed, (uint64_t)task }, seed;
    hash128 h = hash_bytes(key, sizeof key);
    memcpy(&seed, h.b, sizeof seed);
    rng r;
    rng_seed(&r, seed);
    double sum[EVAL_METRICS] = { 0 };
    for (uint32_t i = 0; i < b->n; i++) {
        const eval_row *row = &b->rows[draw(&r, b->n)];
        for (int m = 0; m < EVAL_METRICS; m++) sum[m] += row->score[m];
    }
    for (int m = 0; m < EVAL_METRICS; m++) b->mean[(size_t)m * (size_t)b->resamples + (size_t)task] = sum[m] / b->n;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double percentile(const double *sorted, int n, double q) {
    double at = q * (n - 1);
    int i = (int)at;
    return i + 1 < n ? sorted[i] + (at - i) * (sorted[i + 1] - sorted[i]) : sorted[n - 1];
}

static eval_summary means(const eval_row *rows, int n) {
    eval_summary s = { .predicted = 0 };
    for (int i = 0; i < n; i++) {
        for (int m = 0; m < EVAL_METRICS; m++) s.mean[m] += rows[i].score[m];
        s.predicted += rows[i].predicted;
        s.expected += rows[i].expected;
    }
    for (int m = 0; m < EVAL_METRICS; m++) s.mean[m] /= n;
    s.predicted /= n;
    s.expected /= n;
    return s;
}

gist_status eval_summarise(const eval_row *rows, int n, int resamples, uint64_t seed, pool *p,
                           const gist_allocator *alloc, eval_summary *out, gist_error *err) {
    bootstrap b = { .rows = rows, .n = (uint32_t)n, .resamples = resamples, .seed = seed };
    eval_summary s = means(rows, n);
    b.mean = mem_alloc(alloc, (size_t)resamples * EVAL_METRICS, sizeof *b.mean);
    if (!b.mean) return err_memory(err, "means of resamples");
    if (resamples > 0) pool_run(p, resample, &b, resamples);
    for (int m = 0; m < EVAL_METRICS; m++) {
        double *mean = b.mean + (size_t)m * (size_t)resamples;
        if (resamples > 0) qsort(mean, (size_t)resamples, sizeof *mean, ascending);
        s.low[m] = resamples > 0 ? percentile(mean, resamples, 0.025) : s.mean[m];
        s.high[m] = resamples > 0 ? percentile(mean, resamples, 0.975) : s.mean[m];
    }
    mem_free(alloc, b.mean);
    *out = s;
    return GIST_OK;
}
