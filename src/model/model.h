/* model.h - model families: config, weight table, block, forward pass.
 *
 * One family so far: LLaMA (1, 2, 3): RMS norm, rotary positions, grouped-query attention, SwiGLU.
 *
 *   config.json --llama_config_read--> llama_config
 *   weights     --llama_load---------> llama_model      through the weight table, packed for the kernels
 *   ids + rows  --llama_forward------> logits           one function for prefill, decode, batches and training
 *
 * A row of a batch says where its key and value go and which keys it sees (op_row), so the masks of gisting.md, a gist
 * in front of a session, and many sessions in one call are all the same code.
 */
#ifndef GIST_MODEL_H
#define GIST_MODEL_H

#include "format/format.h"
#include "ops/ops.h"

/* ---- config ---- */

typedef struct llama_config {
    int L, C, F, H, G, D, V;
    int context; /* max_position_embeddings */
    float eps, theta;
    bool tied; /* the head is the embedding */
} llama_config;

enum { LLAMA_MAX_LAYERS = 1024, LLAMA_MAX_WIDTH = 1 << 17, LLAMA_MAX_VOCAB = 1 << 20, LLAMA_MAX_CONTEXT = 1 << 20 };
/* Read dir/config.json.  What this code does not do is refused by name (GIST_ERR_UNSUPPORTED). */
gist_status llama_config_read(llama_config *c, const gist_allocator *alloc, const char *dir, gist_error *err);
gist_status llama_config_parse(llama_config *c, const json_t *json, const char *what, gist_error *err);
uint64_t llama_parameters(const llama_config *c);
void llama_config_hash(const llama_config *c, hasher *h);

/* ---- weights ---- */

typedef struct llama_layer {
    float *attn_norm; /* [C] */
    op_weight wq, wk, wv, wo; /* [H*D,C] [G*D,C] [G*D,C] [C,H*D] */
    float *ffn_norm; /* [C] */
    op_weight gate, up, down; /* [F,C] [F,C] [C,F] */
} llama_layer;

typedef struct llama_model {
    const gist_allocator *alloc;
    llama_config cfg;
    int vocab; /* cfg.V, or cfg.V + 1 with an added <GIST> row */
    const void *embed; /* [V,C] in the file's map */
    dtype embed_type;
    float *gist_row;   /* [C], the added row; NULL: none */
    llama_layer *layers; /* [L] */
    float *final_norm; /* [C] */
    op_weight head; /* [vocab,C] */
    float *freq; /* [D/2] rotary frequencies */
    void *block; /* one allocation behind all packed weights */
    size_t block_bytes;
} llama_model;

/* Load every tensor of the weight table from w (which must stay open: the embedding is a view of it) and pack it as
 * `type`: AUTO keeps each matrix's stored type (a mixture of bf16 and wider ones widens), BF16 rounds, F32 widens.  add_gist: append a row for <GIST>, the mean of the
 * existing rows, to the embedding and the head.  Missing tensors, unknown ones and wrong shapes are named. */
gist_status llama_load(llama_model *m, const llama_config *cfg, const weights *w, gist_type type, bool add_gist,
                       op_ctx *ctx, const gist_allocator *alloc, gist_error *err);
void llama_free(llama_model *m);

/* ---- forward ---- */

/* Activations of one block for at most T rows; buffers may alias where inference needs no memory of them. */
typedef struct llama_acts {
    float *x;              /* [T,C] input of the block, its output too in inference */
    float *n1, *q, *k, *v; /* [T,C] [T,H,D] [T,G,D] [T,G,D] */
    float *att, *o, *xm;   /* [T,H,D] [T,C] [T,C]  xm = x + o */
    float *n2, *gate, *up, *act, *down, *y; /* [T,C] [T,F] [T,F] [T,F] [T,C] [T,C]  y = xm + down */
    float *cs;             /* [T,D] rotary table of the batch */
    void *operand;         /* [T, op_operand_bytes(widest input)] */
    void *scratch;         /* op_attention_scratch */
} llama_acts;

/* Take the buffers of inference from an arena: for T rows that see at most `visible` keys (dry run: arena base NULL). */
void llama_acts_take(llama_acts *a, arena *ar, const llama_config *cfg, const op_ctx *ctx, int T, int visible);

typedef struct llama_batch {
    int T;
    const int32_t *ids, *pos; /* [T]; pos repeats rows[t].pos */
    const op_row *rows;       /* [T] */
    const op_kv *kv;          /* [L][stores]: rows name a store by its index */
    int stores;
} llama_batch;

/* One transformer block (docs/MODEL.md, equations 2 to 9). */
void llama_block_fwd(const llama_model *m, op_ctx *ctx, llama_acts *a, const llama_layer *w, const op_kv *kv,
                     const llama_batch *b);
/* Embeds the batch, writes its keys and values, leaves the last block's output in a->x [T,C]. */
void llama_forward(const llama_model *m, op_ctx *ctx, llama_acts *a, const llama_batch *b);
/* logits [T,vocab] of rows [first, first+T) of a->x; overwrites a->n1. */
void llama_logits(const llama_model *m, op_ctx *ctx, llama_acts *a, int first, int T, float *logits);

/* Rotate the keys k [G,D] (f32) of one row by `shift` positions more (negative: back). */
void llama_rotate_key(const llama_model *m, float *k, int shift);

#endif
