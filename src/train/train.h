/* train.h - training models to gist: examples, packed batches, loss, optimiser, checkpoints, the loop.
 *
 *   rows of JSON --data--> prompts with (input, answer) pairs, as token ids
 *                --pack--> one batch of rows: each prompt once, its pairs behind it, every row with its interval
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
    size_t input, answer; /* offsets into train_set.ids: what follows the gist up to the answer; the answer */
    int input_len, answer_len; /* both > 0; the answer ends with the end-of-text token unless it was cut */
    int prompt;                /* index of its prompt */
    int row;                   /* line of the source file (.jsonl) or element of its array, from 1 */
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
    train_prompt *prompt; /* [prompts] in order of first appearance, each sequence of ids once */
    train_pair *pair;     /* [pairs] */
    int prompts, pairs;
    int read;           /* rows; a conversation counts once per answer */
    int no_prompt;      /* left out: nothing to compress */
    int no_answer;      /* left out: empty answer */
    int law;            /* left out: tokens of the parts are not tokens of the whole (gisting.md) */
    int all_cut;        /* left out: max_length leaves no token of the answer, or no input */
    int cut;            /* kept, with an answer or an encoder's source cut */
} train_set;

typedef struct train_data_options {
    const tok_template *tp;
    int max_length; /* p + K + rest + answer: longer ones are cut on the right, or left out (no token of the answer) */
    int gists;      /* K counted into max_length */
    bool encoder;   /* the rest ends with the end token, as an encoder's source does */
    int max_answer; /* an encoder's answer is cut here by itself, and p + K + rest at max_length; 0: together */
    int limit;      /* most rows; 0: all */
} train_data_options;
/* Read a .json array or .jsonl file of {instruction, input, output} (input may be absent) or {messages}: the system
 * message is the prompt, each assistant turn a pair whose input is the conversation up to it.  Rows with equal prompts
 * are grouped.  Errors name file, line and what is missing; an empty file, or one of which nothing is left, is one. */
gist_status train_data_read(train_set *set, const char *path, const tokenizer *t, const train_data_options *opt,
                            const gist_allocator *alloc, gist_error *err);
/* The same from bytes that have been read; `what` names them in messages. */
gist_status train_data_parse(train_set *set, const char *bytes, size_t len, const char *what, const tokenizer *t,
                             const train_data_options *opt, const gist_allocator *alloc, gist_error *err);
void train_data_free(train_set *set);
/* "51002 rows: 50950 pairs of 50800 prompts, 3 cut; left out: 25 without an answer, ..." */
void train_data_describe(const train_set *set, sbuf *out);
/* Identity of what training sees: all ids, in order. */
gist_status train_data_hash(const train_set *set, hash128 *out, gist_error *err);

/* ---- packed batches: train_pack.c, train_stream.c ---- */

typedef enum train_condition {
    COND_GIST,        /* sees [p,p+k), positions from p+k */
    COND_FULL,        /* sees [0,p), positions from p: the whole prompt, no gist tokens */
    COND_NONE,        /* sees nothing before it, positions from p+K: no prompt */
    COND_POS_CONTROL, /* sees [0,p+k), positions from p+k */
    COND_NEG_CONTROL, /* sees nothing before it, positions from p+k */
    COND_COUNT
} train_condition;
const char *train_condition_name(train_condition c); /* "gist", "full", "none", "pos_control", "neg_control" */
bool train_condition_find(const char *name, size_t len, train_condition *out);

/* One packed batch.  T rows, one store (index 0); row t's key and value are slot t.
 *
 *     | prompt 1 | K gists | pair a | pair b | ... | prompt 2 | K gists | pair c | ...
 *
 * Prompt and gist rows see their prompt causally; a pair's rows see what their condition says (memory interval) and,
 * causally, themselves (local interval).  label[t] is the id that row t should predict, -1 none: the last row of the
 * rest predicts the answer's first token, and the answer's last token, which predicts nothing, has no row.  With
 * input_loss the rest's rows predict their next tokens as well, with prompt_loss the prompt's rows theirs: labels of
 * text.  weight[t] is its share of the loss (the shares of a batch's label rows sum to 1, "mean over label tokens");
 * teacher[t] the row whose distribution row t should match, -1 none. */
typedef struct train_source { /* what an encoder reads: rows of prompts, gists and rests (train_pack_t5.c) */
    int T, cap;
    int32_t *ids, *pos;
    op_row *rows;
} train_source;

typedef struct train_batch {
    int T;
    int32_t *ids, *pos, *label;
    op_row *rows;
    op_row *cross;       /* encoder-decoder models: what each row sees of the encoder's output; T counts answer rows */
    train_source source; /* rows; everything but `source` is of them */
    float *weight;
    int *teacher;
    uint8_t *condition; /* train_condition of a pair's row, COND_COUNT of prompt and gist rows */
    uint8_t *is_gist;   /* 1 for gist tokens */
    uint8_t *text;      /* 1: the label is a token of prompt or input, not of an answer; NULL: all are of answers */
    int grad_rows; /* gradients reach the first rows only, which nothing behind them needs; 0: all */
    int label_rows, pairs; /* rows with a label; pairs, teacher copies not counted */
    double weight_sum;  /* of the weights before train_batch_finish: label tokens, as counted by the loss */
    int cap;
    const gist_allocator *alloc;
} train_batch;

typedef struct train_pack_options {
    double mix[COND_COUNT]; /* probability of each condition; they sum to 1 */
    int k[16], k_count;     /* gist counts to draw from (nested: the first k of K, the largest) */
    int32_t gist_token;
    bool encoder;           /* sources and answers of an encoder-decoder model; k_count is 1 */
    int32_t start;          /* its decoder's first token */
    bool gist_spread;       /* llama_gist_position */
    bool teacher;           /* pack each gist pair once more under the full prompt as its teacher */
    float teacher_lm;       /* weight of the LM loss on teacher copies, relative to other pairs (0: none) */
    int pairs_per_prompt;   /* most pairs behind one encoding of a prompt */
    int batch_pairs;        /* pairs of one step; a batch is closed before it would exceed batch_tokens */
    int batch_tokens;       /* most rows; 0: no bound */
    float input_loss;       /* weight of predicting the input's tokens, from the second on (answers have 1) */
    float prompt_loss;      /* the same for the prompt's */
} train_pack_options;
int train_pack_largest_k(const train_pack_options *opt);

void train_batch_init(train_batch *b, const gist_allocator *alloc);
void train_batch_free(train_batch *b);
void train_batch_reset(train_batch *b); /* no rows; the memory is kept */
int train_batch_rows(const train_batch *b); /* all rows that pass through the model */
/* Pack given pairs of one prompt under given conditions and k: what the stream, validation and tests build on.
 * Appends to *b (on failure *b is as before).  What no pair needs is not encoded: gist rows up to the largest k that is
 * seen, the prompt only when it is seen.  loss weights are set to 1 per label row; train_batch_finish scales them. */
gist_status train_pack_group(train_batch *b, const train_set *set, int prompt, const int *pairs,
                             const train_condition *c, const int *k, int n, const train_pack_options *opt,
                             gist_error *err);
/* Rows that train_pack_group would append. */
int64_t train_pack_rows(const train_set *set, int prompt, const int *pairs, const train_condition *c, const int *k,
                        int n, const train_pack_options *opt);
void train_batch_finish(train_batch *b);

/* Deterministic order: epoch e of seed s is a permutation of the groups (a prompt and up to pairs_per_prompt of its
 * pairs, themselves shuffled).  A batch never spans two epochs. */
typedef struct train_stream {
    const train_set *set;
    train_pack_options opt;
    uint64_t seed;
    uint64_t epoch, at;  /* epoch and group index within it: all the state there is, what a checkpoint stores */
    int *group_first, *group_pairs; /* [groups] of this epoch, into `order` */
    int *order;                     /* [pairs] permuted pair indices */
    int groups;
} train_stream;
/* Errors: options that cannot be, a prompt and one pair that do not fit batch_tokens (names its row). */
gist_status train_stream_init(train_stream *st, const train_set *set, const train_pack_options *opt, uint64_t seed,
                              gist_error *err);
void train_stream_free(train_stream *st);
/* Continue at (epoch, at) as stored. */
gist_status train_stream_seek(train_stream *st, uint64_t epoch, uint64_t at, gist_error *err);
/* The next batch; conditions and k are drawn from (seed, epoch, group), so the batch depends on position alone. */
gist_status train_stream_next(train_stream *st, train_batch *b, gist_error *err);
/* Walk the first `batches` batches (0: all of `epochs` epochs) without making them, then return to the start: how many
 * there are and the rows of the largest. */
typedef struct train_plan {
    int64_t batches;
    int max_rows;
} train_plan;
gist_status train_stream_plan(train_stream *st, int64_t batches, uint64_t epochs, train_plan *out, gist_error *err);

/* ---- the model being trained: train_model.c ---- */

/* One trained tensor: a slice of the flat arrays w, g, m, v. */
typedef struct train_tensor {
    char name[96]; /* Hugging Face name */
    int dims;
    int64_t shape[2];
    size_t at, count;
    bool decay;  /* weight decay applies: matrices, not norms */
    bool hidden; /* a matrix of a block, which Muon may train; not embedding, head, adapter or memory */
    float size;  /* 1; of T5's queries 1/sqrt(D), by which its scores are not divided: they begin as much smaller, and
                  * Muon moves them as much less */
    bool frozen;
} train_tensor;

typedef struct train_model train_model;

typedef struct train_model_options {
    dtype type;          /* DT_F32 or DT_BF16: operands of matrix products; masters, sums and gradients are f32 */
    bool recompute;      /* keep only each block's input, run the block again before its backward */
    int max_rows;        /* T of the largest batch */
    float lm, distill;   /* weights of the two objectives */
    llama_lora_config lora; /* rank > 0: A and B of its targets train, and <GIST>'s embedding; the base is frozen */
    bool only_gist;      /* <GIST>'s embedding trains, and lora when it acts at gist positions only; nothing else */
    int32_t gist_token;  /* its id, where one of these is set; -1 otherwise */
    int memory_rows;     /* k > 0: the keys and values of a memory of k rows train, the model is frozen (train_tune) */
    bool muon;           /* updates may use it: scratch is set aside */
    bool local_heads;    /* from scratch, heads of the first block begin by looking 1, 2, ... tokens back */
    dtype memory_type;   /* what they are rounded to in the forward pass; their gradients pass straight through */
} train_model_options;

/* From a checkpoint's weights (w), or from scratch with normal weights scaled as docs/TRAINING.md says (w NULL, seed).
 * gist_row: add a vocabulary row (mean) when the checkpoint lacks <GIST>. */
gist_status train_model_create(train_model **out, const llama_config *cfg, const weights *w, bool gist_row,
                               uint64_t seed, const train_model_options *opt, op_ctx *ctx, const gist_allocator *alloc,
                               gist_error *err);
void train_model_free(train_model *tm);

typedef struct train_loss {
    double lm[COND_COUNT];      /* summed cross-entropy of answer tokens by condition, nats */
    double distill;             /* summed KL(teacher || student) over rows with a teacher, nats */
    double text;                /* the same over rows whose label is text */
    int rows[COND_COUNT], distilled, text_rows;
    double total;               /* the weighted loss whose gradient was taken */
    bool finite;
} train_loss;
/* Forward and backward; gradients are added.  train_model_zero_grad first.  scale: factor on loss (accumulation). */
gist_status train_model_step(train_model *tm, const train_batch *b, float scale, train_loss *loss, gist_error *err);
/* Forward only. */
gist_status train_model_eval(train_model *tm, const train_batch *b, train_loss *loss, gist_error *err);
void train_model_zero_grad(train_model *tm);
double train_model_grad_norm(const train_model *tm); /* over trained tensors; fixed order */

typedef struct optimiser {
    float lr, beta1, beta2, eps, decay, clip; /* AdamW; clip 0: none */
    float muon; /* > 0: matrices of blocks are trained by Muon with this momentum, the rest by AdamW */
} optimiser;
/* One update with step t >= 1, then repack: AdamW (Loshchilov, Hutter 2019; bias correction as in PyTorch), or Muon
 * beside it (op_muon_update). */
void train_model_update(train_model *tm, const optimiser *o, int64_t t);

int train_model_tensors(const train_model *tm);
const train_tensor *train_model_tensor(const train_model *tm, int i);
bool train_model_frozen(const train_model *tm); /* something else trains beside it: an adapter, a memory */
/* The first of them train, the others are frozen: they have values, but no gradients and no moments. */
int train_model_trained(const train_model *tm);
/* Flat f32 arrays: weights of all tensors; gradients, first and second moments of those that train,
 * [train_model_count]. */
size_t train_model_count(const train_model *tm);
float *train_model_w(train_model *tm);
float *train_model_g(train_model *tm);
float *train_model_m(train_model *tm);
float *train_model_v(train_model *tm);
void train_model_repack(train_model *tm);  /* after w was written from outside */
/* What trains is an adapter, not the model: its config, else NULL. */
const llama_lora_config *train_model_lora(const train_model *tm);
int32_t train_model_gist_token(const train_model *tm); /* as the options said */
/* A copy of all weights with the adapter in them: W + s B A, and the trained embedding in its table (where the head is
 * tied to that, the logit of <GIST> moves with it).  GIST_ERR_USAGE for an adapter of gist positions only. */
typedef struct train_merged {
    train_model *tm;
    float *w;
} train_merged;
gist_status train_model_merge(train_model *tm, train_merged *out, gist_error *err);
void train_merged_free(train_merged *merged);
const float *train_merged_values(void *merged, const char *name); /* a llama_values_fn */
/* The same weights as inference sees them (masters packed as `type`), for validation by generation. */
const llama_model *train_model_llama(const train_model *tm);
size_t train_model_bytes(const train_model *tm);
/* Floating-point operations of one step on this batch, which fits max_rows: 6*parameters*rows (head: label rows) +
 * attention over visible keys, rows whose output nobody reads left out.  Not beside a step of the same tm. */
double train_model_flops(const train_model *tm, const train_batch *b);

/* ---- schedule: train_schedule.c ---- */

typedef enum train_schedule_kind { SCHEDULE_CONSTANT, SCHEDULE_LINEAR, SCHEDULE_COSINE } train_schedule_kind;
/* Learning rate of step t in [1, steps]: linear warm-up over `warmup` steps, then the schedule down to floor*lr; step t
 * uses what transformers' schedules give at their step t-1. */
float train_schedule(train_schedule_kind kind, float lr, int64_t t, int64_t steps, int64_t warmup, float floor);

/* ---- the gist of one prompt by gradient descent: train_memory.c, train_tune.c ---- */

/* Masters of the memory's rows in a layer: [k,G,D] keys, rotated to their positions, and values.  After writing them:
 * train_model_repack.  Batches see them as store 1 (op_row.mem). */
float *train_memory_keys(train_model *tm, int layer);
float *train_memory_values(train_model *tm, int layer);
float *train_memory_output(train_model *tm); /* [k,C] the encoder's output at the rows; NULL: no encoder */

typedef struct train_tune_options {
    int k;
    bool encoder;          /* of an encoder-decoder model, whose decoder begins with `start` */
    int32_t start;
    bool distill;          /* match the model's own distribution under the full prompt; otherwise the answers given */
    int batch;             /* pairs per step */
    int64_t steps, warmup, eval_every; /* eval_every 0: only first and last */
    optimiser optimiser;       /* lr: the peak */
    train_schedule_kind schedule;
    float floor;
    uint64_t seed;
} train_tune_options;

typedef struct train_tune_report {
    int64_t step, steps;
    double loss; /* mean over label rows: cross-entropy, or KL with distill; nats */
    float lr;
    double grad_norm, seconds_left, tokens_per_second;
} train_tune_report;

typedef struct train_tune_events { /* all may be NULL */
    void *ctx;
    void (*step)(void *ctx, const train_tune_report *r);
    void (*evaluated)(void *ctx, int64_t step, double loss, bool best);
    bool (*stop)(void *ctx); /* asked after every step: true ends the run, the rows stay as good as they are */
} train_tune_events;

typedef struct train_tune_result {
    int64_t steps, best_step; /* done; whose rows are kept */
    int64_t tokens;           /* through the model, forward and backward, in all steps; teachers' copies counted */
    double first, last;       /* training loss of the first and of the last step */
    double before, after;     /* held-out loss of the rows at the start and of those kept; NaN: nothing was held out */
    double full;              /* held-out cross-entropy under the full prompt; NaN with distill */
    bool stopped;
} train_tune_result;

/* Rows of the largest batch: what train_model_create needs.  held may be NULL. */
gist_status train_tune_rows(const train_set *set, const train_set *held, const train_tune_options *opt, int *rows,
                            gist_error *err);
/* Tune tm's memory on the pairs of set, which has one prompt, as held has (NULL: nothing is held out).  With held-out
 * pairs the rows that were best on them are kept, otherwise the last ones.  A loss that is not finite is
 * GIST_ERR_LIMIT and names the step. */
gist_status train_tune_run(train_model *tm, const train_set *set, const train_set *held, const train_tune_options *opt,
                           const train_tune_events *events, train_tune_result *result, gist_error *err);

/* ---- checkpoints: train_checkpoint.c ---- */

/* What a run is, as names and values in the order they were set: a checkpoint of another run is told by the first value
 * that differs. */
typedef struct train_fact {
    char key[32], value[96];
} train_fact;
typedef struct train_facts {
    train_fact fact[64];
    int n;
} train_facts;
void train_facts_set(train_facts *f, const char *key, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Where a run is: all that a resumed one needs beside weights and moments. */
typedef struct train_place {
    int64_t step;        /* updates done */
    int64_t evaluated;   /* step of the last validation; -1: none */
    uint64_t epoch, at;  /* of the stream */
    uint64_t rows, labels; /* trained on so far */
    int64_t best_step;   /* -1: none */
    double best;         /* value of the chosen metric there */
    double seconds;      /* spent in steps */
} train_place;

/* One safetensors file with weights and both moments of every tensor ("w.NAME", "m.NAME", "v.NAME", f32); facts, place
 * and a checksum are metadata.  Written atomically: an old file stays until the new one is complete and on disk. */
gist_status train_checkpoint_save(const char *path, train_model *tm, const train_facts *run, const train_place *at,
                                  const gist_allocator *alloc, gist_error *err);
/* Into tm and *at, both untouched on failure.  GIST_ERR_MISMATCH for another run or shape, naming what differs. */
gist_status train_checkpoint_load(const char *path, train_model *tm, const train_facts *run, train_place *at,
                                  const gist_allocator *alloc, gist_error *err);

/* ---- what comes out: train_export.c ---- */

/* Where the model's small files are from. */
typedef struct train_origin {
    const json_t *config;    /* config.json it began with */
    const char *tokenizer;   /* directory, or one file */
    const char *bos_piece, *eos_piece; /* for tokenizer_config.json where there is none; NULL: none */
    bool sentencepiece;
    int32_t gist_added;      /* id that <GIST> was given because the vocabulary lacked it; -1: it has it */
    int32_t bos, eos, end;   /* end: the token that ends the template's answers; -1: none */
    dtype type;              /* of the weights as saved */
    bool input_loss;         /* noted in config.json: this model can draw inputs, too */
    bool merge;              /* an adapter goes into the weights; otherwise it is saved beside them, in PEFT's layout */
    const char *base;        /* with an adapter: the model it is for, as its readers shall find it; NULL: not said */
} train_origin;
/* The tokenizer's files copied to dir, with <GIST> added where it is new, and generation_config.json. */
gist_status train_export_tokenizer(const train_origin *from, const char *dir, const gist_allocator *alloc,
                                   gist_error *err);
/* config.json and model.safetensors of the present weights; an adapter that is not merged: adapter_config.json and
 * adapter_model.safetensors. */
gist_status train_export_model(train_model *tm, const train_origin *from, const char *dir, const gist_allocator *alloc,
                               gist_error *err);

/* ---- where a run begins: train_base.c ---- */

/* A checkpoint, or a config and a tokenizer, opened and agreed on <GIST>. */
typedef struct train_base {
    const gist_allocator *alloc;
    tokenizer *tok;
    llama_config cfg;   /* as stored: without an added row */
    json_t *config;     /* config.json */
    weights w;
    bool scratch;       /* no weights: they are drawn */
    int32_t gist_token;
    bool gist_added;    /* the vocabulary lacked it */
    bool gist_row;      /* the tables have no row for it: one is appended; else it takes the first unused one */
    char model[33], tokenizer[33]; /* fingerprints: of config and weights, of the tokenizer */
    char *tokenizer_path;
} train_base;
/* init: a Hugging Face directory; NULL: from scratch, config (a config.json) and tok (a tokenizer
 * directory or file; with init: instead of its own). */
gist_status train_base_open(train_base *b, const char *init, const char *config, const char *tok, pool *p,
                            const gist_allocator *alloc, gist_error *err);
void train_base_close(train_base *b);
/* Can a run begin from this model?  UNSUPPORTED: it is a GGUF file.  train_base_open asks too. */
gist_status train_base_check(const char *init, gist_error *err);
/* The model, with the new row of <GIST> the mean of the others (from scratch: drawn like them). */
gist_status train_base_model(train_base *b, train_model **out, uint64_t seed, const train_model_options *opt,
                             op_ctx *ctx, gist_error *err);
/* What the run's output is made from; borrows from b. */
train_origin train_base_origin(const train_base *b, const tok_template *tp, dtype type);

/* ---- the loop: train_loop.c, train_eval.c, train_log.c, train_curve.c ---- */

typedef struct train_split {
    const char *name; /* letters, digits, - and _ */
    const train_set *set;
} train_split;

typedef struct train_metric {
    char name[80];      /* loss: "unseen/gist", with several k "unseen/gist.k4"; score: "unseen/exact.gist.k4" */
    double value;       /* loss: mean over label tokens, nats; score: of generated answers, percent */
    bool higher;        /* is better: a score */
} train_metric;
enum { TRAIN_MAX_METRICS = 1024 };

/* What a split is looked at under: each condition of the mixture, gist with each k, the others with the largest. */
typedef struct train_view {
    train_condition c;
    int k;
    char name[32]; /* "gist" or, with several k, "gist.k4"; "full", ... */
} train_view;
enum { TRAIN_MAX_VIEWS = 16 + COND_COUNT };
int train_views(const train_pack_options *o, train_view view[TRAIN_MAX_VIEWS]);

/* One step, as shown. */
typedef struct train_report {
    int64_t step, steps;
    double epoch;       /* with the part done of it */
    double loss;        /* total, as differentiated */
    float lr;
    double grad_norm;   /* before clipping */
    int rows, labels, pairs, batches;
    double lm[COND_COUNT], distill, text; /* means; NaN: none */
    double seconds;     /* of this step */
    double tokens_per_second, gflops, seconds_left;
    uint64_t bytes;     /* resident, at most so far */
} train_report;

/* All may be NULL. */
typedef struct train_events {
    void *ctx;
    void (*step)(void *ctx, const train_report *r);
    void (*evaluated)(void *ctx, int64_t step, const train_metric *metrics, int n, bool best);
    /* Append scores of a split's generated answers at metrics[*n], at most cap in all; called with the model as it is
     * after `step`.  Asked to stop, it may return at once. */
    gist_status (*answers)(void *ctx, train_model *tm, const train_split *split, int64_t step, train_metric *metrics,
                           int cap, int *n, gist_error *err);
    bool (*stop)(void *ctx); /* asked after every step and evaluated batch: true ends the run with a checkpoint */
    log_sink log;
} train_events;

typedef struct train_run_options {
    const char *out;          /* directory; made when absent (its parent must be there) */
    bool resume;
    train_pack_options pack;
    int accumulate;           /* batches per step */
    int64_t steps;
    optimiser optimiser;          /* lr: the peak */
    train_schedule_kind schedule;
    int64_t warmup;
    float floor;
    uint64_t seed;
    int64_t save_every, eval_every; /* steps; 0: only at the end */
    int64_t stop_after;             /* the run stops behind this step as if it were asked to; 0: it does not */
    int max_rows;             /* the model's: bound of a validation batch */
    const train_split *split; /* [splits] for validation */
    int splits;
    const char *best;         /* metric that chooses OUT/best; NULL: the first one */
    train_facts facts;        /* what else the run depends on: initial weights, template, kernels, ... */
    train_origin origin;
} train_run_options;

typedef struct train_result {
    train_place at;
    bool stopped;
    double loss; /* of the last step */
} train_result;

/* Steps of `epochs` epochs (or `steps` of them) with these options, and the rows of the largest batch, validation
 * included: what train_model_create needs. */
gist_status train_run_plan(const train_set *set, const train_run_options *opt, uint64_t epochs, int64_t *steps,
                           int *max_rows, gist_error *err);

/*   OUT/config.json, model.safetensors, tokenizer files, generation_config.json   when done
 *   OUT/best/                       the same, of the best validation
 *   OUT/checkpoint.safetensors      to go on from
 *   OUT/metrics.jsonl, curve.svg    every step and validation
 * Before the first step: OUT can be written, the disk has room for all of this, a run that is there is not overwritten
 * (without resume), the checkpoint belongs to this run (with it; none yet: the run starts over).  A loss that is not
 * finite ends the run with GIST_ERR_LIMIT naming step, batch and rows; files stay as they were. */
gist_status train_run(train_model *tm, const train_set *set, const train_run_options *opt, const train_events *events,
                      train_result *result, gist_error *err);

/* Mean losses of every split under each of its views, in their order.  *stopped: it was asked to. */
gist_status train_evaluate(train_model *tm, const train_run_options *opt, const train_events *events,
                           train_metric *metrics, int *n, bool *stopped, gist_error *err);

/* metrics.jsonl: an open, locked file behind the lines of steps up to `step` (-1: none).  Later ones are dropped, and
 * so are a line cut short and, unless evaluated, the validation of that step. */
typedef struct train_log {
    FILE *f;
    char *path;
    const gist_allocator *alloc;
} train_log;
gist_status train_log_open(train_log *log, const char *path, int64_t step, bool evaluated, const gist_allocator *alloc,
                           gist_error *err);
gist_status train_log_step(train_log *log, const train_report *r, gist_error *err);
gist_status train_log_metrics(train_log *log, int64_t step, const train_metric *metrics, int n, bool best,
                              gist_error *err);
gist_status train_log_sync(train_log *log, gist_error *err); /* on disk */
void train_log_close(train_log *log);

/* Draw the curves of a metrics.jsonl: training loss (faint, and smoothed), validation losses. */
gist_status train_curve(const char *metrics, const char *svg, const gist_allocator *alloc, gist_error *err);

#endif
