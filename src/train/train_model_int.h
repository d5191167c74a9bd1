/* train_model_int.h - inside a train_model, for train_model.c (life, optimiser) and train_step.c (forward, backward).
 */
#ifndef GIST_TRAIN_MODEL_INT_H
#define GIST_TRAIN_MODEL_INT_H

#include "train/train.h"

enum { TRAIN_HEAD_ROWS = 512 /* label rows that go through the head at a time */ };

/* Rows of the encoder's output that an answer sees, side by side: no other is computed. */
typedef struct train_read {
    int n, *row;    /* [n] ascending */
    int *before;    /* [source rows + 1] how many of them lie before a row */
    op_row *slot;   /* [n] where each one's keys and values go: slot i */
    op_row *cross;  /* [answer rows] what each answer row sees of them */
} train_read;

struct train_model {
    const gist_allocator *alloc;
    op_ctx ctx;
    train_model_options opt;
    llama_model model;
    llama_bwd bwd;
    train_tensor *tensors;
    int tensor_count, trained_tensors; /* those that train come first */
    size_t count, trained;
    float *w;         /* [count] */
    float *g, *m, *v; /* [trained] */
    llama_adapter adapter;          /* being trained; views into w, and packed */
    llama_layer_lora_bwd *lora_bwd; /* [llama_lora_blocks] */
    void *memory_block;             /* behind the memory's stores */
    float *memory_cross;            /* T5: [4,k,G*D] keys and values of its output rows; their gradients */
    arena packed;
    void *packed_block;
    /* one batch */
    llama_acts *acts;     /* [L]; acts[l].y is acts[l+1].x */
    op_kv *kv;            /* [L][stores] store 0: the same for every block; store 1: a memory's rows */
    op_kv *memory_swapped; /* [L] the memory with keys and values exchanged, for the backward pass */
    int stores;
    int *gist_row;        /* [T] rows of gist tokens */
    llama_acts_bwd s;
    float *rope;          /* [rope_positions,D] rotary angles of the first positions; computed once */
    int rope_positions;
    float *last, *dx;     /* [T,C] the last block's output, LLaMA: of the wanted rows; the gradient travelling down */
    llama_acts *encoder;  /* T5: [cfg.encoder] */
    op_kv cross[2];       /* T5: keys and values of the encoder's output, for every block in turn; a memory's */
    train_read read;      /* T5: which rows of the encoder's output are read */
    float *source_last;   /* T5: [read.n,C] the last encoder block's output */
    float *source, *dsource; /* the same behind the norm: the encoder's output; its gradient */
    int *wanted, wanted_rows; /* [T] rows whose last output is read: those with a label or a teacher, and teachers */
    int *place;           /* [T] where a row's lies in last and dx */
    int *head_row;        /* [T] rows with a label or a teacher */
    op_loss_row *loss_row;     /* [TRAIN_HEAD_ROWS] */
    float *xh, *nh, *dxh;      /* [TRAIN_HEAD_ROWS,C] */
    float *logits, *teacher;   /* [TRAIN_HEAD_ROWS,V] */
    void *act_block;
    size_t act_bytes;
};

/* Append a tensor of the given shape (cols 0: a vector); its name is for the caller to set. */
train_tensor *train_add_tensor(train_model *tm, int rows, int cols);
train_tensor *train_find_tensor(const train_model *tm, const char *name); /* NULL: none */

/* ---- train_t5.c: an encoder-decoder model's activations, passes and operations ---- */

/* Activations that blocks keep, with `shared` ones; a dry run counts. */
void train_take_kept(llama_acts *a, arena *ar, const llama_config *c, size_t rows);
void train_t5_take(train_model *tm, arena *ar, const llama_acts *shared);
void train_t5_forward(train_model *tm, const train_batch *b);
void train_t5_backward(train_model *tm, const train_batch *b); /* from tm->dx on */
double train_t5_flops(const train_model *tm, const train_batch *b); /* but for the head */

/* ---- train_init.c ---- */

gist_status train_init(train_model *tm, uint64_t seed, gist_error *err); /* the weights of a model from scratch */

/* ---- train_adapter.c: what trains beside a frozen base ---- */

bool train_has_adapter(const train_model *tm);
int train_adapter_tensors(const train_model *tm); /* how many */
gist_status train_adapter_check(const train_model *tm, gist_error *err);
void train_adapter_lay_out(train_model *tm);
/* A uniform in +-1/sqrt(K) as PEFT (Kaiming, a = sqrt 5), B zero; <GIST> starts as its row of the table. */
void train_adapter_init(train_model *tm, uint64_t seed);
/* Views into w and g; panels from tm->packed (a dry run counts). */
gist_status train_adapter_place(train_model *tm, gist_error *err);
void train_adapter_repack(train_model *tm);
void train_adapter_free(train_model *tm);

/* ---- train_memory.c: rows of keys and values that train beside a frozen base ---- */

int train_memory_tensors(const train_model *tm);
gist_status train_memory_check(const train_model *tm, gist_error *err);
void train_memory_lay_out(train_model *tm);
gist_status train_memory_place(train_model *tm, gist_error *err); /* stores, in tm->kv */
void train_memory_repack(train_model *tm);
void train_memory_select(train_model *tm, int layer); /* tm->s: before this block's backward pass */
/* T5: the decoder's keys and values of the memory's output rows in a layer, into tm->cross[1] and, for the backward
 * pass, tm->s; then their gradients into those of the rows. */
void train_memory_cross(train_model *tm, int layer);
void train_memory_cross_bwd(train_model *tm, int layer);
void train_memory_free(train_model *tm);

#endif
