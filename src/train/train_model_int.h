/* train_model_int.h - inside a train_model: shared by train_model.c (life, optimiser) and train_step.c (forward, backward).
 */
#ifndef GIST_TRAIN_MODEL_INT_H
#define GIST_TRAIN_MODEL_INT_H

#include "train/train.h"

enum { TRAIN_HEAD_ROWS = 512 /* label rows that go through the head at a time */ };

struct train_model {
    const gist_allocator *alloc;
    op_ctx ctx;
    train_model_options opt;
    llama_model model;
    llama_bwd bwd;
    train_tensor *tensors;
    int tensor_count;
    size_t count;
    float *w, *g, *m, *v; /* [count] */
    arena packed;
    void *packed_block;
    /* one batch */
    llama_acts *acts;     /* [L]; acts[l].y is acts[l+1].x */
    op_kv *kv;            /* [L] the same store for every block */
    llama_acts_bwd s;
    float *rope;          /* [rope_positions,D] rotary angles of the first positions; computed once */
    int rope_positions;
    float *last, *dx;     /* [T,C] the last block's output; the gradient travelling down */
    int *head_row;        /* [T] rows with a label or a teacher */
    op_loss_row *loss_row;     /* [TRAIN_HEAD_ROWS] */
    float *xh, *nh, *dxh;      /* [TRAIN_HEAD_ROWS,C] */
    float *logits, *teacher;   /* [TRAIN_HEAD_ROWS,V] */
    void *act_block;
    size_t act_bytes;
};

#endif
