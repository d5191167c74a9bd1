/* eval_job.h - gist eval at work: its arguments, and the steps from splits to a report.
 *
 *   cmd_eval.c        arguments, splits, the order of the steps
 *   eval_answering.c  models, conditions, answers, the scores of each
 *   eval_figures.c    comparing conditions: intervals, retention, ratios, groups, the curve
 *   eval_files.c      what --out holds
 *   eval_judge.c      --judge, another job: files of predictions against each other
 *   eval_report.c, eval_charts.c, eval_page.c   forms of the report
 */
#ifndef GIST_CLI_EVAL_JOB_H
#define GIST_CLI_EVAL_JOB_H

#include "eval_judge.h"
#include "eval_report.h"

enum { MODEL_GIST, MODEL_POS, MODEL_NEG, MODELS, MOST_K = 16, MOST_RATIOS = 8 };

typedef struct eval_args {
    model_args model;
    judge_args judge;
    const char *conditions, *k, *corpus, *out;
    option_list pos, neg, data, labels, also, ratio, by;
    int limit, batch, max_length, answer_tokens, words, resamples, kv;
    uint64_t seed;
    bool json, quiet, check, other, resume;
} eval_args;

typedef struct job {
    const eval_args *a;
    report r;
    eval_view view[REPORT_COLUMNS];
    int views, k[MOST_K], k_count, K, ratio[MOST_RATIOS], ratios;
    char tokenizer[64], family[32]; /* of the first model */
    eval_journal *journal;
    pool *pool;
    const eval_tfidf *tfidf; /* of the split at hand */
    int model;               /* which of the seeds is at work; 0: the first */
    char label[128];
    gist_error *err;
} job;

/* ---- eval_answering.c ---- */

/* Answers and scores of one kind of model, under every condition that is its: columns of every split. */
gist_status eval_answer_model(job *j, int model);

/* ---- eval_figures.c ---- */

/* Figures of the columns that have answers; of the first model groups and curve too. */
gist_status eval_find_figures(job *j, report_split *s);
void eval_release_column(report_column *c, int n);
void eval_release_groups(report_split *s);

/* ---- eval_files.c; nothing without --out ---- */

gist_status eval_write_predictions(const job *j, const report_split *s, const report_column *c);
gist_status eval_write_results(const job *j);
/* The journal of answers: begun, or with --resume gone on with; dropped when everything is written. */
gist_status eval_open_journal(job *j);
void eval_drop_journal(job *j);

#endif
