/* train.h - training models to gist: examples, packed batches, loss, optimiser, checkpoints, the loop.
 *
 *   rows of JSON --data--> prompts with (input, answer) pairs, as token ids
 *                --pack--> one batch of rows: each prompt encoded once, its pairs behind it, every row with its interval
 *                --model-> loss and gradients        (block code shared with inference; derivatives beside it)
 *                --adamw-> new weights               --checkpoint-> files
 *
 * Everything is deterministic: a step depends on seed, step number and data, never on threads or on interruptions.
 */
#ifndef GIST_TRAIN_H
#define GIST_TRAIN_H

#include "model/model.h"
#include "token/token.h"

/* ---- data: train_data.c ---- */

typedef struct train_pair {
    size_t input, answer; /* offsets into train_set.ids: what follows the gist up to where the answer begins; the answer */
    int input_len, answer_len; /* the answer ends with the end-of-text token unless it was cut */
    int prompt;                /* index of its prompt */
    int row;                   /* index in the source file */
} train_pair;

typedef struct train_prompt {
    size_t ids; /* offset into train_set.ids: the prompt part, BOS first, without gist tokens */
    int len;
    int first_pair, pairs; /* its pairs are consecutive in train_set.pair */
} train_prompt;

typedef struct train_set {
    const gist_allocator *alloc;
    int32_t *ids;
    size_t id_count;
    train_prompt *prompt;
    train_pair *pair;
    int prompts, pairs;
    /* why rows were left out */
    int read, skipped_empty, skipped_law, skipped_cut, cut;
} train_set;

typedef struct train_data_options {
    const tok_template *tp;
    int max_length; /* p + K + rest + answer: longer ones are cut on the right; one whose whole answer is cut is skipped */
    int gists;      /* K counted into max_length */
    int limit;      /* most rows; 0: all */
} train_data_options;
/* Read a .json array or .jsonl file of {instruction, input, output} or {messages}; rows with equal prompts are grouped.
 * Errors name file, line and what is missing. */
gist_status train_data_read(train_set *set, const char *path, const tokenizer *t, const train_data_options *opt,
                            const gist_allocator *alloc, gist_error *err);
void train_data_free(train_set *set);

/* ---- packed batches: train_pack.c ---- */

typedef enum train_condition {
    COND_GIST,        /* sees [p,p+k), positions from p+k */
    COND_FULL,        /* sees [0,p), positions from p: the whole prompt, no gist tokens */
    COND_NONE,        /* sees nothing before it, positions from p+K: no prompt */
    COND_POS_CONTROL, /* sees [0,p+k), positions from p+k */
    COND_NEG_CONTROL, /* sees nothing before it, positions from p+k */
    COND_COUNT
} train_condition;
const char *train_condition_name(train_condition c); /* "gist", "full", "none", "pos_control", "neg_control" */

/* One packed batch.  T rows, one store (index 0); row t's key and value are slot t.
 *
 *     | prompt 1 | K gists | pair a | pair b | ... | prompt 2 | K gists | pair c | ...
 *
 * Prompt and gist rows see their prompt causally; a pair's rows see what their condition says and, causally, themselves.
 * label[t] is the id that row t should predict, -1 none; weight[t] its share of the loss (the shares of a batch's
 * label rows sum to 1, "mean over label tokens"); teacher[t] the row whose distribution row t should match, -1 none. */
typedef struct train_batch {
    int T;
    int32_t *ids, *pos, *label;
    op_row *rows;
    float *weight;
    int *teacher;
    uint8_t *condition; /* train_condition of a pair's row, COND_COUNT of prompt and gist rows */
    uint8_t *is_gist;   /* 1 for gist tokens */
    int label_rows, pairs;
    int cap;
    const gist_allocator *alloc;
} train_batch;

typedef struct train_pack_options {
    double mix[COND_COUNT]; /* probability of each condition; they sum to 1 */
    int k[16], k_count;     /* gist counts to draw from (nested: the first k of K, the largest) */
    int32_t gist_token;
    bool teacher;           /* pack each gist pair once more under the full prompt as its teacher */
    float teacher_lm;       /* weight of the LM loss on teacher copies, relative to other pairs (0: none) */
    int pairs_per_prompt;   /* most pairs behind one encoding of a prompt */
    int batch_pairs;        /* pairs of one step; a batch is closed before it would exceed batch_tokens */
    int batch_tokens;       /* most rows; 0: no bound */
} train_pack_options;

/* Deterministic order: epoch e of seed s is a permutation of the groups (a prompt and up to pairs_per_prompt of its pairs,
 * themselves shuffled). */
typedef struct train_stream {
    const train_set *set;
    train_pack_options opt;
    uint64_t seed;
    uint64_t epoch, at;  /* epoch and group index within it: all the state there is, what a checkpoint stores */
    int *group_first, *group_pairs; /* [groups] of this epoch, into `order` */
    int *order;                     /* [pairs] permuted pair indices */
    int groups;
} train_stream;
gist_status train_stream_init(train_stream *st, const train_set *set, const train_pack_options *opt, uint64_t seed,
                              gist_error *err);
void train_stream_free(train_stream *st);
/* Continue at (epoch, at) as stored. */
gist_status train_stream_seek(train_stream *st, uint64_t epoch, uint64_t at, gist_error *err);
/* The next batch; conditions and k are drawn from (seed, epoch, group), so the batch depends on position alone. */
gist_status train_stream_next(train_stream *st, train_batch *b, gist_error *err);
void train_batch_init(train_batch *b, const gist_allocator *alloc);
void train_batch_free(train_batch *b);
/* Pack given pairs of one prompt under given conditions and k: what the stream, validation and tests build on.
 * Appends to *b.  loss weights are set to 1 per label row; train_batch_finish scales them. */
gist_status train_pack_group(train_batch *b, const train_set *set, int prompt, const int *pairs, const train_condition *c,
                             const int *k, int n, const train_pack_options *opt, gist_error *err);
void train_batch_finish(train_batch *b);

/* ---- the model being trained: train_model.c ---- */

/* One trained tensor: a slice of the flat arrays w, g, m, v. */
typedef struct train_tensor {
    char name[96]; /* Hugging Face name */
    int dims;
    int64_t shape[2];
    size_t at, count;
    bool decay;  /* weight decay applies: matrices, not norms */
    bool frozen;
} train_tensor;

typedef struct train_model train_model;

typedef struct train_model_options {
    dtype type;          /* DT_F32 or DT_BF16: operands of matrix products; masters, sums and gradients are f32 */
    bool recompute;      /* keep only each block's input, run the block again before its backward */
    int max_rows;        /* T of the largest batch */
    float lm, distill;   /* weights of the two objectives */
} train_model_options;

/* From a checkpoint's weights (w), or from scratch with normal(0, 0.02) scaled as docs/TRAINING.md says (w NULL, seed).
 * gist_row: add a vocabulary row (mean) when the checkpoint lacks <GIST>. */
gist_status train_model_create(train_model **out, const llama_config *cfg, const weights *w, bool gist_row, uint64_t seed,
                               const train_model_options *opt, op_ctx *ctx, const gist_allocator *alloc, gist_error *err);
void train_model_free(train_model *tm);

typedef struct train_loss {
    double lm[COND_COUNT];      /* summed cross-entropy of label rows by condition, nats */
    double distill;             /* summed KL(teacher || student) over rows with a teacher, nats */
    int rows[COND_COUNT], distilled;
    double total;               /* the weighted loss whose gradient was taken */
    bool finite;
} train_loss;
/* Forward and backward; gradients are added.  train_model_zero_grad first.  scale: factor on loss (accumulation). */
gist_status train_model_step(train_model *tm, const train_batch *b, float scale, train_loss *loss, gist_error *err);
/* Forward only. */
gist_status train_model_eval(train_model *tm, const train_batch *b, train_loss *loss, gist_error *err);
void train_model_zero_grad(train_model *tm);
double train_model_grad_norm(const train_model *tm); /* over trained tensors; fixed order */

typedef struct adamw {
    float lr, beta1, beta2, eps, decay, clip; /* clip 0: none */
} adamw;
/* One AdamW update (Loshchilov, Hutter 2019; bias correction as in PyTorch) with step t >= 1, then repack. */
void train_model_adamw(train_model *tm, const adamw *o, int64_t t);

int train_model_tensors(const train_model *tm);
const train_tensor *train_model_tensor(const train_model *tm, int i);
/* Flat f32 arrays of all tensors, [train_model_count]: weights, gradients, first and second moments. */
size_t train_model_count(const train_model *tm);
float *train_model_w(train_model *tm);
float *train_model_g(train_model *tm);
float *train_model_m(train_model *tm);
float *train_model_v(train_model *tm);
void train_model_repack(train_model *tm);  /* after w was written from outside */
/* The same weights as inference sees them (masters packed as `type`), for validation by generation. */
const llama_model *train_model_llama(const train_model *tm);
size_t train_model_bytes(const train_model *tm);
/* Floating-point operations of one step on this batch: 6*parameters*rows (head: label rows) + attention over visible keys. */
double train_model_flops(const train_model *tm, const train_batch *b);

/* ---- schedule: train_schedule.c ---- */

typedef enum train_schedule_kind { SCHEDULE_CONSTANT, SCHEDULE_LINEAR, SCHEDULE_COSINE } train_schedule_kind;
/* Learning rate of step t in [1, steps]: linear warm-up over `warmup` steps, then the schedule down to floor*lr. */
float train_schedule(train_schedule_kind kind, float lr, int64_t t, int64_t steps, int64_t warmup, float floor);

#endif
