/* bench_train.h - batches of random tokens for a model that is being trained: what `bench train` times.
 *
 *   bench_rows     sequences of one length, every row predicts the next token: plain language modelling
 *   bench_prompt   one prompt with k gists, and answers behind it that see the gists, all of it, or are left out
 */
#ifndef GIST_CLI_BENCH_TRAIN_H
#define GIST_CLI_BENCH_TRAIN_H

#include "bench.h"
#include "train/train.h"

/* Random tokens of a vocabulary, enough for the largest batch; *ids is mem_free(NULL, .)'d by the caller. */
gist_status bench_tokens(int32_t **ids, size_t n, int vocab, gist_error *err);
/* Both append to an initialised, empty batch and finish it.  ids: from bench_tokens, at least rows + pairs + 1. */
gist_status bench_rows(train_batch *b, int32_t *ids, int sequences, int length, gist_error *err);
/* `pairs` answers of `length` rows behind a prompt of `prompt` tokens and k gists; length 0: prompt and gists alone. */
gist_status bench_prompt(train_batch *b, int32_t *ids, int prompt, int k, int pairs, int length, train_condition c,
                         gist_error *err);
/* Seconds of zeroing gradients, forward, backward and AdamW. */
gist_status bench_step(train_model *tm, const train_batch *b, int64_t step, double *seconds, gist_error *err);

/* ---- step time against prompt length: bench_sweep.c ---- */

enum { SWEEP_POINTS = 9, SWEEP_MOST = 1024 /* longest prompt */, SWEEP_GISTS = 4 };
typedef struct sweep_point {
    int prompt;
    double hidden, visible, alone; /* ms: answers see the gists; prompt and gists; there are no answers */
} sweep_point;
/* Rows of the largest batch for `answers` rows behind the prompt. */
int sweep_rows(int answers);
/* The fastest of `rounds` rounds over all points and cases, one after the other in each. */
gist_status sweep_measure(train_model *tm, int answers, int length, int rounds, sweep_point out[SWEEP_POINTS],
                          gist_error *err);
gist_status sweep_chart(const sweep_point p[SWEEP_POINTS], const char *title, const char *svg, gist_error *err);

#endif
