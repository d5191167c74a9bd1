/* eval_report.h - what gist eval has found, and the forms in which it is told: a table, JSON, Markdown, CSV, a page. */
#ifndef GIST_CLI_EVAL_REPORT_H
#define GIST_CLI_EVAL_REPORT_H

#include "cli.h"
#include "eval/eval.h"

enum { REPORT_COLUMNS = 64, REPORT_FACTOR = 10, REPORT_KEYS = 8, REPORT_GROUPS = 256 };

typedef struct report_column {
    eval_view view;
    eval_given *given; /* [n]; borrowed from other columns where `in` is not NULL */
    eval_row *rows;    /* [n] */
    uint8_t *in;       /* [n] NULL: all */
    double tokens;     /* mean length of the answers */
    double factor;     /* mean of prompt tokens / gist tokens; 0: nothing is compressed */
    eval_cell cell;
    eval_figure stale; /* share of answers that are a row's "was"; NaN: no row has it */
    eval_cell of[1 + OPTION_LIST_MAX]; /* what `cell` is for each model */
} report_column;

/* Rows that have one value of a member; those without it have the value "". */
typedef struct report_group {
    eval_text value;
    eval_cell cell[REPORT_COLUMNS];
} report_group;
typedef struct report_by {
    const char *key;
    report_group *group; /* [groups] by value */
    int groups;
} report_by;

typedef struct report_split {
    eval_split rows;
    report_column column[REPORT_COLUMNS];
    int columns;
    bool edited; /* some row has a "was" */
    report_by by[REPORT_KEYS];
    int keys;
    eval_bin bin[EVAL_BINS]; /* the curve of retention against compression */
    int bins;
} report_split;

typedef struct report {
    const char *model; /* paths */
    const char *const *also; /* [models - 1] further seeds or checkpoints; everything else is of `model` */
    const char *const *pos, *const *neg; /* [models] controls of each; [0] NULL: the models themselves */
    int models;
    const char *kernels, *kv;
    report_split split[OPTION_LIST_MAX];
    int splits, resamples, max_length;
    int ratio; /* the first of --ratio, marked in the chart */
    uint64_t seed;
} report;

typedef struct report_spread {
    double mean, deviation, low, high; /* of the models: sample standard deviation, smallest, largest; NaN: none */
} report_spread;
/* The figure of a table's column of the same number. */
enum { REPORT_EXACT, REPORT_ROUGE_L, REPORT_RETENTION_EXACT, REPORT_RETENTION_ROUGE_L, REPORT_FIGURES };
const eval_figure *report_figure_of(const eval_cell *cell, int figure);
extern const char *const report_figure_name[REPORT_FIGURES]; /* "exact" and so on, as files have it */
/* Of the means of the first `models` models. */
report_spread report_spread_of(const report_column *c, int figure, int models);

/* "93.4 [91.0, 95.2]", or "-". */
void report_percent(sbuf *out, const eval_figure *f, bool interval);
json_t *report_figure(const eval_figure *f); /* in percent; NULL: out of memory */
/* The object with the cell's figures by name.  NULL, and the object is freed: out of memory; takes NULL. */
json_t *report_add_figures(json_t *o, const eval_cell *cell);
void report_escaped(sbuf *out, const char *p, size_t len); /* as HTML's and SVG's text */

void report_table(const report *r, FILE *out);
void report_markdown(const report *r, sbuf *out);
json_t *report_json(const report *r); /* NULL: out of memory */
/* x, y_pred, y_true, prompt_tokens, k, tokens, finish, then every other string that a row of the split has. */
void report_csv(const report_split *s, const report_column *c, sbuf *out);

/* ---- groups and the curve: eval_details.c ---- */

void report_groups_text(const report *r, sbuf *out);
void report_details_markdown(const report *r, const report_split *s, sbuf *out);
void report_details_page(const report *r, const report_split *s, sbuf *out);
json_t *report_groups_json(const report_split *s); /* NULL: out of memory */
json_t *report_curve_json(const report_split *s);
/* A line per bin of the split's curve, in percent. */
void report_curve_csv(const report_split *s, sbuf *out);

/* ---- charts: eval_charts.c; the page: eval_page.c ---- */

/* SVG for a page, or (alone) a file of its own.  False: there is nothing to draw. */
bool report_retention_chart(const report_split *s, int ratio, bool alone, sbuf *out);
void report_score_chart(const report_split *s, sbuf *out);
/* A page by itself: no script, no other file. */
void report_page(const report *r, sbuf *out);

#endif
