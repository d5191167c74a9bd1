/* train_pack_int.h - rows of a batch, for train_pack.c (one timeline) and train_pack_t5.c (source and answer). */
#ifndef GIST_TRAIN_PACK_INT_H
#define GIST_TRAIN_PACK_INT_H

#include "train/train.h"

gist_status train_batch_reserve(train_batch *b, int64_t rows, gist_error *err); /* room for more of them */
/* A row that sees up to itself and predicts nothing yet. */
void train_put_row(train_batch *b, int32_t id, op_row row, train_condition c);
/* Row t predicts `id`; weight 0: it does not.  text: the label is no token of an answer. */
void train_put_label(train_batch *b, int t, int32_t id, float weight, bool text);

/* ---- train_pack_t5.c: train_pack_rows and train_pack_group of an encoder-decoder model ---- */

int64_t train_t5_rows(const train_set *set, int prompt, const int *pairs, const train_condition *c, const int *k, int n,
                      const train_pack_options *opt);
gist_status train_t5_group(train_batch *b, const train_set *set, int prompt, const int *pairs, const train_condition *c,
                           const int *k, int n, const train_pack_options *opt, gist_error *err);

#endif
