/* eval_int.h - shared inside the room: the middle of drawn values (eval_saving.c), and longest common subsequences of
 * sequences of small numbers (eval_lcs.c).
 *
 * row[0..rows) and col[0..cols) hold ids; mask has one word per id, all zero before and after each call; bits is
 * scratch of the number of words that the function beside it tells.
 */
#ifndef GIST_EVAL_INT_H
#define GIST_EVAL_INT_H

#include "eval/eval.h"

/* Sorts drawn[n], n > 0; the 2.5th and 97.5th percentile, linear between neighbours. */
void eval_middle(double *drawn, int n, double *low, double *high);

size_t eval_lcs_length_words(int rows);
int eval_lcs_length(uint64_t *mask, uint64_t *bits, const int32_t *row, int rows, const int32_t *col, int cols);

/* Set mark[i] to 1 for the rows of one longest common subsequence; the others stay as they are.  Of several it is the
 * one found by walking the table back from its end: matches are taken, otherwise to t[i][j-1] when that is larger than
 * t[i-1][j], else to t[i-1][j]. */
size_t eval_lcs_mark_words(int rows, int cols);
void eval_lcs_mark(uint64_t *mask, uint64_t *bits, const int32_t *row, int rows, const int32_t *col, int cols,
                   uint8_t *mark);

#endif
