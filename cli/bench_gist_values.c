/* bench_gist_values.c - figures of an example served one way, and means, medians and savings over a group of them. */
#include <math.h>

#include "bench_gist.h"

const bench_metric_facts bench_metrics[METRICS] = {
    { "gflops", "GFLOPs", 1 },
    { "forward_ms", "forward pass, ms", 2 },
    { "attach_ms", "attaching, ms", 3 },
    { "first_token_ms", "first token, ms", 2 },
    { "decode_ms", "decoded token, ms", 2 },
    { "roofline_ms", "roofline, ms", 2 },
    { "cache_bytes", "cache, bytes", 0 },
    { "read_bytes", "read per token, bytes", 0 },
};

bool bench_has(const bench_gist *b, bench_metric m, bench_way w) {
    if (b->is_t5 && (w == WAY_FULL || m == METRIC_READ)) return false;
    switch (m) {
    case METRIC_FLOPS:
    case METRIC_CACHE:
    case METRIC_READ: return true;
    case METRIC_DECODE: return !b->dry && b->decode > 0;
    default: return !b->dry;
    }
}

static double cache_bytes(const bench_gist *b, int rows) {
    if (!b->is_t5) return bench_kv_bytes(&b->cfg, b->kv, rows);
    double row = 2.0 * b->t5.layers * b->t5.H * b->t5.D + b->t5.C; /* and the encoder's output */
    return rows * row * (double)dt_bytes(b->kv, 32) / 32;
}

/* The least seconds a pass can take on the machine of that minute. */
static double roof(const bench_gist *b, size_t at, int rows, int cached) {
    double compute = eval_flops_done(&b->cfg, rows, cached) / b->peak[at];
    double memory = (b->weight_bytes + bench_kv_bytes(&b->cfg, b->kv, cached)) / b->read[at];
    return fmax(compute, memory);
}

double bench_value(const bench_gist *b, int item, int repeat, bench_way w, bench_metric m) {
    const bench_item *x = &b->items.item[item];
    int cached = w == WAY_NONE ? 0 : w == WAY_FULL ? x->prompt + b->k : b->k;
    int rows = w == WAY_NONE ? x->prompt + b->k + x->input : x->input;
    size_t at = (size_t)item * (size_t)b->repeats + (size_t)repeat;
    const bench_pass *p = b->dry ? NULL : b->pass + at * WAYS + w;
    eval_flops f;
    switch (m) {
    case METRIC_FLOPS:
        f = b->is_t5 ? eval_flops_t5(&b->t5, rows, cached) : eval_flops_llama(&b->cfg, rows, cached);
        return (f.products + f.pointwise) / 1e9;
    case METRIC_FORWARD: return 1e3 * p->forward;
    case METRIC_ATTACH: return 1e3 * p->attach;
    case METRIC_FIRST: return 1e3 * p->first;
    case METRIC_DECODE: return 1e3 * p->decode;
    case METRIC_ROOF: return 1e3 * roof(b, at, rows, cached);
    case METRIC_CACHE: return cache_bytes(b, cached);
    default: return bench_kv_bytes(&b->cfg, b->kv, cached + rows);
    }
}

/* ---- over a group ---- */

static int pairs_of(const bench_gist *b, const bench_group *g) {
    return g->n == 1 ? b->repeats : g->n;
}

static double pair_value(const bench_gist *b, const bench_group *g, int i, bench_way w, bench_metric m) {
    if (g->n == 1) return bench_value(b, g->first, i, w, m);
    double sum = 0;
    for (int r = 0; r < b->repeats; r++) sum += bench_value(b, g->first + i, r, w, m);
    return sum / b->repeats;
}

/* Sorts x. */
static bench_figure figure_of(double *x, int n) {
    bench_figure f = { 0, 0 };
    for (int i = 0; i < n; i++) f.mean += x[i] / n;
    f.median = median(x, n);
    return f;
}

gist_status bench_summarise(const bench_gist *b, int group, bench_summary *out, gist_error *err) {
    const bench_group *g = &b->items.group[group];
    const double none = (double)NAN;
    int n = pairs_of(b, g);
    size_t N = (size_t)n;
    double *x = mem_alloc(NULL, (WAYS + 1) * N, sizeof *x), *scratch = x + WAYS * N;
    gist_status status = x ? GIST_OK : err_memory(err, "figures");
    for (int m = 0; m < METRICS && status == GIST_OK; m++) {
        for (int w = 0; w < WAYS; w++) {
            out->of[m][w] = (bench_figure){ none, none };
            out->saving[m][w] = (eval_saving){ none, none, none };
            if (!bench_has(b, (bench_metric)m, (bench_way)w)) continue;
            for (int i = 0; i < n; i++)
                scratch[i] = x[(size_t)w * N + (size_t)i] = pair_value(b, g, i, (bench_way)w, (bench_metric)m);
            out->of[m][w] = figure_of(scratch, n);
        }
        for (int w = 0; w < WAY_GIST && status == GIST_OK; w++)
            if (out->of[m][w].mean > 0 && !(m == METRIC_ATTACH && w == WAY_NONE)) /* there nothing is attached */
                status = eval_saving_of(x + (size_t)w * N, x + WAY_GIST * N, n, b->resamples, b->seed, mem_default(),
                                        &out->saving[m][w], err);
    }
    mem_free(NULL, x);
    return status;
}
