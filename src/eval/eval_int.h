/* eval_int.h - shared inside the room: longest common subsequences of sequences of small numbers (eval_lcs.c), ends of
 * intervals (eval_interval.c), conversations (eval_turns.c).
 *
 * row[0..rows) and col[0..cols) hold ids; mask has one word per id, all zero before and after each call; bits is
 * scratch of the number of words that the function beside it tells.
 */
#ifndef GIST_EVAL_INT_H
#define GIST_EVAL_INT_H

#include "eval/eval.h"

size_t eval_lcs_length_words(int rows);
int eval_lcs_length(uint64_t *mask, uint64_t *bits, const int32_t *row, int rows, const int32_t *col, int cols);

/* Set mark[i] to 1 for the rows of one longest common subsequence; the others stay as they are.  Of several it is the
 * one found by walking the table back from its end: matches are taken, otherwise to t[i][j-1] when that is larger than
 * t[i-1][j], else to t[i-1][j]. */
size_t eval_lcs_mark_words(int rows, int cols);
void eval_lcs_mark(uint64_t *mask, uint64_t *bits, const int32_t *row, int rows, const int32_t *col, int cols,
                   uint8_t *mark);

/* The 2.5th and 97.5th percentile of drawn[n], n > 0, linear between neighbours; it is sorted. */
void eval_interval(double *drawn, int n, double *low, double *high);

/* ---- conversations: eval_turns.c ---- */

enum { EVAL_WHY = 96 };
/* Exchanges of a row's messages; -1: why[] says what is wrong with them.  Of sound messages alone: the prompt, "" where
 * there is none; and exchange i. */
int eval_turns(const json_t *messages, char why[EVAL_WHY]);
eval_text eval_turns_system(const json_t *messages);
/* Append the ids of what stands between e's prompt (or gist) and its input.  GIST_ERR_TEXT: a law does not hold. */
gist_status eval_history(const eval_example *e, const tokenizer *t, const tok_template *tp, tok_ids *out,
                         gist_error *err);

#endif
