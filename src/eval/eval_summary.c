/* eval_summary.c - scores of many pairs, their means and bootstrap intervals.
 *
 *   pairs --threads, 64 at a time--> rows --threads, one resample each--> means of resamples --sorted--> percentiles
 *
 * A resample's random numbers come from its own number and the seed, and its sums run in the order of its draws, so
 * nothing depends on which thread did what.
 */
#include "eval/eval_int.h"

const char *const eval_metric_names[EVAL_METRICS] = { "rouge1", "rouge2", "rougeL", "rougeLsum", "exact" };

/* ---- rows ---- */

enum { PAIRS_PER_TASK = 64 };

typedef struct scorer {
    eval_rouge *rouge;
    gist_error why; /* first failure of this thread, of the pair at `line` */
    int line;
} scorer;

typedef struct scoring {
    const eval_pairs *pairs;
    eval_row *rows;
    scorer *scorer; /* [threads] */
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
    scorer *w = &s->scorer[worker];
    int from = task * PAIRS_PER_TASK, left = s->pairs->n - from, n = left < PAIRS_PER_TASK ? left : PAIRS_PER_TASK;
    for (int i = from; i < from + n && w->why.code == GIST_OK; i++)
        if (score_row(w->rouge, &s->pairs->pair[i], &s->rows[i], &w->why) != GIST_OK) w->line = s->pairs->pair[i].line;
}

/* Tasks are taken in order, so the first pair that fails is some thread's first failure. */
static gist_status first_failure(const scorer *w, int threads, gist_error *err) {
    const scorer *first = NULL;
    for (int i = 0; i < threads; i++)
        if (w[i].why.code != GIST_OK && (!first || w[i].line < first->line)) first = &w[i];
    return first ? err_set(err, first->why.code, "line %d: %s", first->line, first->why.msg) : GIST_OK;
}

gist_status eval_score_pairs(const eval_pairs *pairs, pool *p, eval_row *rows, gist_error *err) {
    int threads = pool_size(p);
    scoring s = { pairs, rows, mem_calloc(pairs->alloc, (size_t)threads, sizeof(scorer)) };
    if (!s.scorer) return err_memory(err, "scores");
    gist_status status = GIST_OK;
    for (int i = 0; i < threads && status == GIST_OK; i++)
        status = eval_rouge_create(pairs->alloc, &s.scorer[i].rouge, err);
    if (status == GIST_OK) {
        pool_run(p, score_task, &s, (pairs->n - 1) / PAIRS_PER_TASK + 1);
        status = first_failure(s.scorer, threads, err);
    }
    for (int i = 0; i < threads; i++) eval_rouge_free(s.scorer[i].rouge);
    mem_free(pairs->alloc, s.scorer);
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
        s.low[m] = s.high[m] = s.mean[m];
        if (resamples > 0) eval_middle(mean, resamples, &s.low[m], &s.high[m]);
    }
    mem_free(alloc, b.mean);
    *out = s;
    return GIST_OK;
}
