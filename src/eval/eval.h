/* eval.h - how good answers are: greedy answers of a model to the pairs of a set, and scores of their texts.
 *
 *   prompt --compress | feed, once--> what a view sees --each pair's input--> answer --score--> mean per view
 */
#ifndef GIST_EVAL_H
#define GIST_EVAL_H

#include "engine/engine.h"
#include "train/train.h"

/* ---- scores: eval_scores.c ---- */

typedef struct eval_text {
    const char *p;
    size_t len;
} eval_text;

/* One answer against its reference, in percent; both come without white space around them. */
typedef gist_status (*eval_score_fn)(double *percent, eval_text answer, eval_text reference,
                                     const gist_allocator *alloc, gist_error *err);
typedef struct eval_score {
    const char *name;
    eval_score_fn of;
} eval_score;
enum { EVAL_SCORES = 1 };
extern const eval_score eval_scores[EVAL_SCORES]; /* "exact": 100 where the texts are equal, else 0 */

eval_text eval_trim(const char *p, size_t len); /* without white space around it */

/* ---- answers: eval_answers.c ---- */

typedef struct eval_answers_options {
    int pairs;      /* how many of the set's first; the last one's prompt is finished, none is taken in parts */
    int max_tokens; /* of an answer */
    int max_length; /* of prompt, gists, input and answer together; what the set was read with */
    void *ctx;
    bool (*stop)(void *ctx, int done, int all); /* asked before each answer; NULL: never */
} eval_answers_options;

/* Answer pairs of a split under each view of `pack` and append the scores' means at metrics[*n], at most cap in all,
 * named "SPLIT/SCORE.VIEW" ("dev/exact.gist.k4").  A prompt is compressed once for each k, or fed once, whatever the
 * number of its pairs.  The same model, set and kernel level give the same numbers.  Stopped: nothing is appended. */
gist_status eval_answers(gist_engine *e, const train_split *split, const train_pack_options *pack,
                         const eval_answers_options *opt, train_metric *metrics, int cap, int *n, gist_error *err);

#endif
