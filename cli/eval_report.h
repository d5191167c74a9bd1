/* eval_report.h - what gist eval has found, and the forms in which it is told: a table, JSON, Markdown, CSV, a page. */
#ifndef GIST_CLI_EVAL_REPORT_H
#define GIST_CLI_EVAL_REPORT_H

#include "cli.h"
#include "eval/eval.h"

enum { REPORT_COLUMNS = 64, REPORT_FACTOR = 10 };

typedef struct report_column {
    eval_view view;
    eval_given *given; /* [n]; borrowed from other columns where `in` is not NULL */
    eval_row *rows;    /* [n] */
    uint8_t *in;       /* [n] NULL: all */
    double tokens;     /* mean length of the answers */
    double factor;     /* mean of prompt tokens / gist tokens; 0: nothing is compressed */
    eval_cell cell;
    double score[1 + OPTION_LIST_MAX][EVAL_BYS], retention[1 + OPTION_LIST_MAX][EVAL_BYS]; /* means of each model */
} report_column;

typedef struct report_split {
    eval_split rows;
    report_column column[REPORT_COLUMNS];
    int columns;
} report_split;

typedef struct report {
    const char *model, *pos, *neg; /* paths; pos, neg NULL: the model itself */
    const char *const *also; /* [models - 1] further seeds or checkpoints; everything else is of `model` */
    int models;
    const char *kernels;
    report_split split[OPTION_LIST_MAX];
    int splits, resamples, max_length;
    uint64_t seed;
} report;

typedef struct report_spread {
    double mean, deviation, low, high; /* of the models: sample standard deviation, smallest, largest; NaN: none */
} report_spread;
/* value[m][by] of the first `models` models. */
report_spread report_spread_of(const double (*value)[EVAL_BYS], int by, int models);

void report_table(const report *r, FILE *out);
void report_markdown(const report *r, sbuf *out);
json_t *report_json(const report *r); /* NULL: out of memory */
/* x, y_pred, y_true, prompt_tokens, k, tokens, finish, then every other string that a row of the split has. */
void report_csv(const report_split *s, const report_column *c, sbuf *out);
/* A page by itself: no script, no other file. */
void report_page(const report *r, sbuf *out);

#endif
