/* bench_gist.h - one prompt served three ways: what `bench gist` counts and measures.
 *
 *   none   prompt, gist tokens and input in one pass
 *   full   the keys and values of prompt and gist tokens come from a file; the input is run behind them
 *   gist   those of the k gist tokens alone do
 *
 *   items --bench_measure--> passes --bench_values--> means, medians, savings --> table, JSON, CSV, chart
 */
#ifndef GIST_CLI_BENCH_GIST_H
#define GIST_CLI_BENCH_GIST_H

#include "bench_run.h"
#include "eval/eval.h"

typedef enum bench_way { WAY_NONE, WAY_FULL, WAY_GIST, WAYS } bench_way;
extern const char *const bench_way_names[WAYS]; /* "none", "full", "gist" */

/* ---- what is served: bench_gist_items.c ---- */

enum { BENCH_GROUPS = 16, BENCH_NAME = 48 };

typedef struct bench_item {
    int group, line;   /* line: of the data file; of drawn prompts their number */
    int prompt, input; /* tokens, gist tokens excluded */
    size_t at;         /* in ids: the prompt's, then the input's */
} bench_item;

typedef struct bench_group {
    char name[BENCH_NAME];
    int first, n; /* items [first, first+n) */
} bench_group;

typedef struct bench_items {
    bench_item *item;
    int n, cap;
    bench_group group[BENCH_GROUPS];
    int groups;
    tok_ids ids;
    int left_out; /* rows of the data that the law or max_length excludes */
} bench_items;

typedef struct bench_text {
    const tokenizer *tok;
    const tok_template *tp;
    bool t5;           /* sources of an encoder-decoder */
    int k, max_length; /* prompt + k + input: inputs are cut there */
} bench_text;

void bench_items_init(bench_items *x);
void bench_items_free(bench_items *x);
/* "NAME=FILE" or FILE; at most `limit` rows (0: all) as one group. */
gist_status bench_items_read(bench_items *x, const char *data, int limit, const bench_text *t, gist_error *err);
/* One group of one item: random ids below vocab. */
gist_status bench_items_draw(bench_items *x, int prompt, int input, int vocab, uint64_t seed, gist_error *err);

/* ---- the measurement ---- */

typedef struct bench_pass {
    int order;                             /* which of its example's passes it was, from 0 */
    double attach, forward, first, decode; /* seconds; first: attach, forward and choosing a token; decode: per token */
} bench_pass;

typedef struct bench_gist {
    /* given */
    bench_items items;
    const char *model; /* its name */
    llama_config cfg;
    eval_t5_shape t5;
    bool is_t5, dry, random_weights, quiet;
    int k, repeats, decode, buffer_mib, resamples;
    uint64_t seed;
    dtype kv, weights;
    bench_unit unit;
    double weight_bytes; /* of the packed matrices that a pass reads */
    const char *kernels;
    int threads;
    /* made */
    bench_pass *pass;    /* [items][repeats][WAYS] */
    double *peak, *read; /* [items][repeats] of the same minute: operations and bytes per second */
} bench_gist;

/* pass, peak and read of every item, examples in random order, the ways of each in random order.  work: a directory for
 * the caches.  SIGINT and SIGTERM stop it: what was measured becomes all that there is (nothing: CANCELLED).
 * That full prefix and no cache give the same logits is checked on the way. */
gist_status bench_measure(bench_gist *b, gist_engine *e, const op_ctx *ctx, int32_t gist_token, const char *work,
                          gist_error *err);

/* ---- figures: bench_gist_values.c ---- */

typedef enum bench_metric {
    METRIC_FLOPS,   /* GFLOPs as the profiler counts */
    METRIC_FORWARD, /* ms */
    METRIC_ATTACH,  /* ms */
    METRIC_FIRST,   /* ms */
    METRIC_DECODE,  /* ms per token */
    METRIC_ROOF,    /* ms: max(operations / peak, bytes / bandwidth) */
    METRIC_CACHE,   /* bytes of keys and values kept */
    METRIC_READ,    /* bytes of them read for the next token */
    METRICS
} bench_metric;
typedef struct bench_metric_facts {
    const char *key, *title;
    int digits;
} bench_metric_facts;
extern const bench_metric_facts bench_metrics[METRICS];

/* Is there such a figure? */
bool bench_has(const bench_gist *b, bench_metric m, bench_way w);
double bench_value(const bench_gist *b, int item, int repeat, bench_way w, bench_metric m);

typedef struct bench_figure {
    double mean, median; /* NaN: there is none */
} bench_figure;
typedef struct bench_summary {
    bench_figure of[METRICS][WAYS];
    eval_saving saving[METRICS][WAYS]; /* of the gist over this way; NaN: none */
} bench_summary;
/* Of a group; pairs are its examples (means of their repeats), or the repeats of a single one. */
gist_status bench_summarise(const bench_gist *b, int group, bench_summary *out, gist_error *err);

/* ---- output: bench_gist_report.c, bench_gist_chart.c ---- */

void bench_gist_table(const bench_gist *b, const bench_summary *s, FILE *out); /* s [groups] */
json_t *bench_gist_json(const bench_gist *b, const bench_summary *s);          /* NULL: out of memory */
void bench_gist_csv(const bench_gist *b, sbuf *out);
void bench_gist_chart(const bench_gist *b, const bench_summary *s, sbuf *out);

#endif
