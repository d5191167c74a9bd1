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
} report_column;

typedef struct report_split {
    eval_split rows;
    report_column column[REPORT_COLUMNS];
    int columns;
} report_split;

typedef struct report {
    const char *model, *pos, *neg; /* paths; pos, neg NULL: the model itself */
    const char *kernels;
    report_split split[OPTION_LIST_MAX];
    int splits, resamples, max_length;
    uint64_t seed;
} report;

void report_table(const report *r, FILE *out);
void report_markdown(const report *r, sbuf *out);
json_t *report_json(const report *r); /* NULL: out of memory */
/* x, y_pred, y_true, prompt_tokens, k, tokens, finish, then every other string that a row of the split has. */
void report_csv(const report_split *s, const report_column *c, sbuf *out);
/* A page by itself: no script, no other file. */
void report_page(const report *r, sbuf *out);

#endif
