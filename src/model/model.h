/* model.h - the models: config, weight table, block, forward pass.  The LLaMA family, and T5 in the same structs.
 *
 * One block for all of them: RMS norm, rotary positions, grouped-query attention, SwiGLU.  The config says what a
 * member adds: biases of q, k and v (Qwen2), norms of each head of q and k (Qwen3), a sliding window (Mistral), scaled
 * rotary frequencies (LLaMA 3.1).
 *
 *   config.json, GGUF metadata --llama_config_*--> llama_config
 *   weights                    --llama_load------> llama_model      through the weight table, packed for the kernels
 *   ids + rows  --llama_forward------> logits           one function for prefill, decode, batches and training
 *
 * T5 (t5_*.c) is two stacks of blocks.  `layers` are the decoder's, with cross-attention to what the encoder's left;
 * positions are a bias by distance, scores are not scaled.  What only one kind has is NULL or 0 in the other.
 *
 * A row of a batch says where its key and value go and which keys it sees (op_row), so the masks of gisting.md, a gist
 * in front of a session, and many sessions in one call are all the same code.
 */
#ifndef GIST_MODEL_H
#define GIST_MODEL_H

#include "format/format.h"
#include "ops/ops.h"

/* ---- config ---- */

typedef enum llama_family {
    FAMILY_LLAMA,
    FAMILY_MISTRAL,
    FAMILY_QWEN2,
    FAMILY_QWEN3,
    FAMILY_T5,
    FAMILIES
} llama_family;

/* What sets a family apart. */
typedef struct llama_family_facts {
    const char *name;         /* model_type of config.json */
    const char *architecture; /* its class there */
    const char *gguf;         /* general.architecture: Mistral's files say llama */
    bool bias;                /* q, k, v have biases */
    bool head_norm;           /* RMS norms of each head of q and k */
    bool encoder;             /* reads a source with an encoder, answers with a decoder: T5 */
    bool gguf_pairs;          /* GGUF files hold the rows of wq and wk with rotary pairs side by side */
} llama_family_facts;
extern const llama_family_facts llama_families[FAMILIES];

/* Rotary frequencies are those of theta, divided: LINEAR all by factor; LLAMA3 those that turn less than `low` times in
 * `original` positions by factor, those that turn more than `high` times by 1, and between by what joins the two. */
typedef enum llama_rope_kind { ROPE_PLAIN, ROPE_LINEAR, ROPE_LLAMA3, ROPE_KINDS } llama_rope_kind;
typedef struct llama_rope {
    llama_rope_kind kind;
    float factor, low, high;
    int original;
} llama_rope;
const char *llama_rope_name(llama_rope_kind kind); /* "default", "linear", "llama3" */

typedef struct llama_config {
    llama_family family;
    int L, C, F, H, G, D, V;
    int context; /* max_position_embeddings */
    int window;  /* a row sees the last `window` positions, its own included; 0: all */
    float eps, theta;
    llama_rope rope;
    bool tied; /* the head is the embedding */
    int encoder;           /* T5: layers of the encoder (L: of the decoder); 0: there is none */
    op_buckets near;       /* T5: of the bias by distance; `both` is for the encoder */
    bool gated;            /* T5: the feed-forward is gelu(gate) * up, otherwise relu(up) */
    bool scaled_head;      /* T5: rows are multiplied by C^-0.5 before the head */
    int32_t start;         /* T5: the token that the decoder begins with */
    bool gist_spread; /* positions of gist tokens: spread over the prompt; otherwise behind it */
} llama_config;

enum { LLAMA_MAX_LAYERS = 1024, LLAMA_MAX_WIDTH = 1 << 17, LLAMA_MAX_VOCAB = 1 << 20, LLAMA_MAX_CONTEXT = 1 << 20 };
/* Read dir/config.json; parsed JSON; a GGUF file's metadata and what its tensors say.  What this code does not do is
 * refused by name (GIST_ERR_UNSUPPORTED). */
gist_status llama_config_read(llama_config *c, const gist_allocator *alloc, const char *dir, gist_error *err);
gist_status llama_config_parse(llama_config *c, const json_t *json, const char *what, gist_error *err);
gist_status llama_config_gguf(llama_config *c, const gguf_file *g, gist_error *err); /* llama_gguf.c */
/* What must hold between sizes, wherever they come from. */
gist_status llama_config_check(const llama_config *c, const char *what, gist_error *err);
/* T5's part of both: t5_config.c. */
gist_status t5_config_parse(llama_config *c, const json_t *json, const char *what, gist_error *err);
gist_status t5_config_gguf(llama_config *c, const gguf_file *g, gist_error *err);
void t5_add_keys(gguf_writer *w, const llama_config *c);
int t5_set_shape(json_t *j, const llama_config *c); /* keys of config.json; not 0: out of memory */
/* Checkpoints say by their tensors whether T5's head is its own. */
void t5_settle_head(llama_config *c, const weights *w);
uint64_t llama_parameters(const llama_config *c);
void llama_config_hash(const llama_config *c, hasher *h);
/* Position of gist token j behind a prompt at positions [0,p); what follows k of them is at p+k in either case.
 *     behind it            p, p+1, p+2, ...
 *     spread               p, p/2, p/4, 3p/4, p/8, ...   van der Corput's sequence: the first k of them cover the
 *                          prompt evenly for every k, so that nested gists stay nested */
int llama_gist_position(bool spread, int p, int j);

/* ---- weights ---- */

typedef struct llama_layer_lora llama_layer_lora;

typedef struct llama_layer {
    float *attn_norm; /* [C] */
    op_weight wq, wk, wv, wo; /* [H*D,C] [G*D,C] [G*D,C] [C,H*D] */
    float *bq, *bk, *bv;      /* [H*D] [G*D] [G*D]; NULL: none */
    float *q_norm, *k_norm;   /* [D], of each head; NULL: none */
    float *ffn_norm; /* [C] */
    op_weight gate, up, down; /* [F,C] [F,C] [C,F] */
    float *cross_norm; /* [C], T5's decoder: attention to the encoder's output */
    op_weight cq, ck, cv, co; /* [H*D,C] [G*D,C] [G*D,C] [C,H*D] */
    const llama_layer_lora *lora; /* an adapter's part; NULL: none */
} llama_layer;

typedef struct llama_model {
    const gist_allocator *alloc;
    llama_config cfg;
    int vocab; /* cfg.V, or cfg.V + 1 with an added <GIST> row */
    const void *embed; /* [V,C] in the file's map */
    dtype embed_type;
    float *gist_row;   /* [C], the added row; NULL: none */
    const struct llama_adapter *adapter; /* NULL: none */
    llama_layer *layers; /* [L] */
    float *final_norm; /* [C] */
    op_weight head; /* [vocab,C] */
    llama_layer *encoder;                     /* [cfg.encoder] */
    float *encoder_norm;                      /* [C] */
    float *near_table, *encoder_near_table;   /* [buckets,H] of the decoder's and the encoder's own attention */
    op_distance near, encoder_near;           /* the same by distance, as far as the context reaches */
    float *freq; /* [D/2] rotary frequencies */
    void *block; /* one allocation behind all packed weights */
    size_t block_bytes;
} llama_model;

/* Load every tensor of the weight table from w (which must stay open: the embedding is a view of it) and pack it as
 * `type`: AUTO keeps each matrix's stored type (a mixture of bf16 and wider ones widens), BF16, Q8_0, Q4_0, Q4_K round,
 * F32 widens.
 * add_gist: append a row for <GIST>, the mean of the existing rows, to the embedding and the head.  Missing tensors,
 * unknown ones and wrong shapes are named. */
gist_status llama_load(llama_model *m, const llama_config *cfg, const weights *w, gist_type type, bool add_gist,
                       op_ctx *ctx, const gist_allocator *alloc, gist_error *err);
/* A model of any shape with random weights of `type`, without a file: for benchmarks.  The same seed gives the same
 * model.  Every width must be even (GIST_ERR_USAGE). */
gist_status llama_random(llama_model *m, const llama_config *cfg, dtype type, uint64_t seed, op_ctx *ctx,
                         const gist_allocator *alloc, gist_error *err);
void llama_free(llama_model *m);

/* The weight table: one row per tensor, executed for loading, saving, checking, counting and training.  A row names the
 * field of the family's structs, the tensor's name in GGUF and in Hugging Face files ("%d" is the layer), and its shape
 * in the letters of tensor.h's alphabet, with q = H*D and k = G*D. */
typedef enum weight_kind { WEIGHT_MATRIX, WEIGHT_VECTOR, WEIGHT_EMBED } weight_kind;

typedef struct weight_row {
    weight_kind kind;
    bool per_layer;
    bool encoder;           /* of the encoder's layers */
    bool pairs;             /* rows of heads that are rotated: see gguf_pairs */
    size_t offset;          /* of the field in llama_layer or llama_model: op_weight (matrix), float * (vector) */
    size_t grad_offset;     /* of its gradient: llama_matrix_bwd or float *, in llama_layer_bwd or llama_bwd */
    const char *gguf, *hf;
    char shape[3];          /* "VC", "qC", "C" */
    bool (*when)(const llama_config *c); /* which models have the field; NULL: all */
} weight_row;

extern const weight_row llama_weights[], t5_weights[];
extern const int llama_weight_rows, t5_weight_rows;
/* The table of a config's family: *n rows, the embedding first, the head last. */
const weight_row *llama_table(const llama_config *c, int *n);
/* In how many layers a row is (1: beside the layers), and its field in one of them. */
int llama_row_layers(const llama_config *c, const weight_row *r);
void *llama_row_field(llama_model *m, const weight_row *r, int layer);
/* Layers for the model's stacks, and the tables by distance behind what `ar` has handed out. */
gist_status llama_take_layers(llama_model *m, gist_error *err);
void t5_take_near(llama_model *m, arena *ar);
void t5_fill_near(llama_model *m);

/* Size behind a shape letter. */
int llama_dim(const llama_config *c, char letter);
/* Do models of this config have the field? */
bool llama_uses_row(const llama_config *c, const weight_row *r);
/* Does it have a tensor of its own?  The tied head has none. */
bool llama_has_row(const llama_config *c, const weight_row *r);
/* The name of its tensor in a layer: in GGUF files, or Hugging Face's. */
void llama_row_name(char out[128], const weight_row *r, int layer, bool gguf);
/* The tensor of a row in a layer; a tied head's is the embedding.  Missing, or of another shape: GIST_ERR_FORMAT. */
gist_status llama_find_tensor(const weights *w, const llama_config *c, const weight_row *r, int layer,
                              const tensor_view **out, gist_error *err);
/* Does some row of the table stand for this tensor?  A tied head may be there twice. */
bool llama_known_tensor(const llama_config *c, const char *name, bool gguf);
/* dst = the matrix src [heads*D,K] of a GGUF file whose rows are rotary pairs (gguf_pairs) in Hugging Face's order:
 *     row (h,2j+s) of src = row (h,s*D/2+j) of dst       h head, j < D/2, s 0 or 1       row_bytes: of K elements */
void llama_unpair_rows(void *dst, const void *src, size_t row_bytes, int heads, int D);

/* ---- adapters: llama_lora.c ---- */

/* Low-rank adaptation of one matrix W [N,K] (Hu et al. 2021, equation 3):  y = x W^T + scale (x A^T) B^T */
typedef struct llama_lora {
    op_weight A, B; /* [r,K] [N,r]; A.N 0: this matrix has none */
    float scale;    /* alpha / r */
    bool gist_only; /* acts on rows of gist tokens alone: all others are not touched, bit for bit */
} llama_lora;

struct llama_layer_lora {
    llama_lora wq, wk, wv, wo, gate, up, down;
    llama_lora cq, ck, cv, co;
};

/* What an adapter is made of.  targets: bit i for name i of llama_lora_names. */
typedef struct llama_lora_config {
    int rank; /* 0: no matrices */
    float alpha;
    unsigned targets;
    bool gist_only;
} llama_lora_config;

enum { LLAMA_LORA_TARGETS = 7, LLAMA_LORA_PARTS = 11 /* cross-attention's, too */, LLAMA_LORA_NAME = 96 };
extern const char *const llama_lora_names[LLAMA_LORA_TARGETS]; /* "q", "k", "v", "o", "gate", "up", "down" */
/* "q,v" or "all"; an unknown name is GIST_ERR_USAGE. */
gist_status llama_lora_targets(const char *text, unsigned *out, gist_error *err);
/* GIST_ERR_USAGE for a rank or alpha that cannot be with this model. */
gist_status llama_lora_check(const llama_lora_config *lora, const llama_config *c, gist_error *err);
/* Blocks are counted through both stacks, the encoder's first.  One at gist positions only adapts none of a decoder
 * behind an encoder, which has no row of a gist token. */
int llama_lora_blocks(const llama_config *c, bool gist_only);
/* The weight a part adapts in a block, and the block's layer in its stack; NULL: that block has no such matrix. */
const weight_row *llama_lora_row(const llama_config *c, int block, int part, int *layer);
/* Is the part among the targets?  Cross-attention's go with those of the same name. */
bool llama_lora_adapts(const llama_lora_config *lora, int part);
unsigned llama_lora_target(int part); /* its bit */
/* PEFT's names of its factors ('A', 'B'), and of the embedding of <GIST>. */
void llama_lora_name(char out[LLAMA_LORA_NAME], const llama_config *c, int block, int part, char factor);
const char *llama_lora_embed(const llama_config *c);
llama_lora *llama_lora_of(llama_layer_lora *layer, int part);

/* Scratch of one adapted product, for T rows. */
typedef struct llama_lora_acts {
    float *x, *y, *dx; /* [T,widest] the adapted rows side by side; NULL where all rows are adapted */
    float *u, *du;     /* [T,r] */
    void *operand;
} llama_lora_acts;
void llama_lora_take(llama_lora_acts *s, arena *ar, const llama_config *c, const llama_lora_config *lora, int T);

/* An adapter packed for the kernels. */
typedef struct llama_adapter {
    const gist_allocator *alloc;
    llama_lora_config cfg;
    llama_layer_lora *layers; /* [llama_lora_blocks] */
    float *gist_embed;        /* [C]; NULL: it has none */
    int32_t gist_token;       /* the id gist_embed is for */
    void *block;
    char hash[33]; /* of all that it computes */
} llama_adapter;
/* Read DIR/adapter_config.json and adapter_model.safetensors in PEFT's layout for a model of shape c.  The factors take
 * `type` (bf16, else f32).  What PEFT can ask for and this code does not do is GIST_ERR_UNSUPPORTED by name; tensors of
 * another shape, missing and unknown ones are named. */
gist_status llama_adapter_open(llama_adapter *ad, const char *dir, const llama_config *c, dtype type, op_ctx *ctx,
                               const gist_allocator *alloc, gist_error *err);
void llama_adapter_close(llama_adapter *ad);
/* From now on m computes with ad (NULL: without), which must outlive it. */
void llama_adapter_attach(llama_model *m, const llama_adapter *ad);

/* ---- forward ---- */

/* Activations of one block for at most T rows; buffers may alias where inference needs no memory of them. */
typedef struct llama_acts {
    float *x;              /* [T,C] input of the block, its output too in inference */
    float *n1, *q, *k, *v; /* [T,C] [T,H,D] [T,G,D] [T,G,D] */
    float *q0, *k0;        /* q and k before the norms of heads; q and k themselves where there are none */
    float *att, *o, *xm;   /* [T,H,D] [T,C] [T,C]  xm = x + o */
    float *n2, *gate, *up, *act, *down, *y; /* [T,C] [T,F] [T,F] [T,F] [T,C] [T,C]  y = xm + down */
    float *cs, *kept_cs;   /* [T,D] rotary table of the batch; of the rows that go on in the last block */
    void *operand;         /* [T, op_operand_bytes(widest input)] */
    void *scratch;         /* op_attention_scratch */
    llama_lora_acts lora;  /* with an adapter: llama_lora_take */
    op_row *wanted_row, *wanted_cross; /* [T] rows that go on in the last block; T5's decoder: cross, too */
    int *wanted_gist;      /* [T] which of them are gist tokens */
    float *stats;          /* [T,H,2] of attention, kept for the backward pass; NULL in inference */
    float *cq, *catt, *xc; /* T5's decoder: [T,H,D] [T,H,D] [T,C] of cross-attention; xc = xm + its output */
    float *cstats;         /* as stats */
    float *ck, *cv;        /* [source rows,G,D] keys and values of the encoder's output, kept for the backward pass */
} llama_acts;

/* Take the buffers of inference from an arena: for T rows that see at most `visible` keys (dry run: arena base NULL).
 * */
void llama_acts_take(llama_acts *a, arena *ar, const llama_config *cfg, const op_ctx *ctx, int T, int visible);

typedef struct llama_batch {
    int T;
    const int32_t *ids, *pos; /* [T]; pos repeats rows[t].pos */
    const op_row *rows;       /* [T] */
    const op_kv *kv;          /* [L][stores]: rows name a store by its index */
    int stores;
    const int *gist;          /* [gists] which rows are gist tokens, ascending: where an adapter may act alone */
    int gists;
    const op_row *cross;      /* T5's decoder: [T] what each row sees of the encoder's output */
    const op_kv *cross_kv;    /* [L][stores] its keys and values */
    const int *wanted;        /* [n_wanted] rows whose output is read, ascending; NULL: all rows are */
    int n_wanted;
} llama_batch;

/* x [T,C] = the batch's embeddings */
void llama_embed_fwd(const llama_model *m, op_ctx *ctx, float *x, const llama_batch *b);

/* One transformer block (docs/MODEL.md, equations 2 to 9); rows that are not wanted end at their keys and values. */
void llama_block_fwd(const llama_model *m, op_ctx *ctx, llama_acts *a, const llama_layer *w, const op_kv *kv,
                     const llama_batch *b);
/* b as all blocks but the last see it: all rows wanted. */
llama_batch llama_all(const llama_batch *b);
/* The wanted rows of b as a batch of their own, and the activations it goes on with: a's buffers, where its rows lie
 * side by side.  Its x is a->xm: the sum of (6) is made in place.  False: all are wanted. */
bool llama_see_wanted(llama_acts *kept, llama_batch *wanted, const llama_acts *a, const llama_batch *b);
/* The same between equations, with the rows of x, cs and n1 (in place) moved there. */
bool llama_keep_wanted(op_ctx *ctx, llama_acts *kept, llama_batch *wanted, const llama_acts *a, const llama_config *c,
                       const llama_batch *b);
/* Narrow what a row sees to the model's window.  memory_at, own_at: positions of row 0 of its memory's store and of its
 * own (rows of a store lie at consecutive positions). */
void llama_see_window(const llama_config *c, op_row *r, int memory_at, int own_at);
/* Embeds the batch, writes its keys and values, leaves the last block's output of the wanted rows in a->x [n,C]. */
void llama_forward(const llama_model *m, op_ctx *ctx, llama_acts *a, const llama_batch *b);
/* logits [T,vocab] of the first T rows of a->x; overwrites a->n1. */
void llama_logits(const llama_model *m, op_ctx *ctx, llama_acts *a, int T, float *logits);

/* ---- T5: t5_forward.c ---- */

/* The encoder: embeds the batch, whose kv are [encoder][stores], and leaves its output of the wanted rows in a->x
 * [n,C]. */
void t5_encode(const llama_model *m, op_ctx *ctx, llama_acts *a, const llama_batch *b);
/* One block of either stack: from a->x to a->y (which may be one). */
void t5_encoder_block_fwd(const llama_model *m, op_ctx *ctx, llama_acts *a, const llama_layer *w, const op_kv *kv,
                          const llama_batch *b);
void t5_decoder_block_fwd(const llama_model *m, op_ctx *ctx, llama_acts *a, const llama_layer *w, const op_kv *kv,
                          const op_kv *cross, const llama_batch *b);
/* Keys k and values v [T,G,D] for one layer of the decoder, of output rows x [T,C]; a: scratch. */
void t5_cross_rows(op_ctx *ctx, float *k, float *v, op_input *x, const llama_layer *w, const llama_acts *a);
/* Keys and values for the decoder of output rows x [T,C] (a->x serves), to the slots of `rows` in kv [L][stores]. */
void t5_cross_keys(const llama_model *m, op_ctx *ctx, llama_acts *a, const float *x, const op_row *rows,
                   const op_kv *kv, int stores, int T);
/* The decoder, as llama_forward. */
void t5_decode(const llama_model *m, op_ctx *ctx, llama_acts *a, const llama_batch *b);

/* y += scale (x A^T) B^T on the rows that l acts on. */
void llama_lora_fwd(op_ctx *ctx, const llama_lora_acts *s, float *y, const float *x, const llama_lora *l,
                    const llama_batch *b);

/* ---- backward ---- */

/* The backward side of a matrix W [N,K]: its transpose packed for dx = dy W, and where its gradient goes. */
typedef struct llama_matrix_bwd {
    op_weight Wt; /* [K,N] */
    float *dW;    /* [N,K]; NULL: frozen, not computed */
} llama_matrix_bwd;

typedef struct llama_lora_bwd {
    llama_matrix_bwd A, B;
} llama_lora_bwd;

typedef struct llama_layer_lora_bwd {
    llama_lora_bwd wq, wk, wv, wo, gate, up, down;
    llama_lora_bwd cq, ck, cv, co;
} llama_layer_lora_bwd;
llama_lora_bwd *llama_lora_bwd_of(llama_layer_lora_bwd *layer, int part);

typedef struct llama_layer_bwd {
    float *attn_norm;
    llama_matrix_bwd wq, wk, wv, wo;
    float *bq, *bk, *bv, *q_norm, *k_norm;
    float *ffn_norm;
    llama_matrix_bwd gate, up, down;
    float *cross_norm;
    llama_matrix_bwd cq, ck, cv, co;
    const llama_layer_lora_bwd *lora;
} llama_layer_bwd;

typedef struct llama_bwd {
    llama_layer_bwd *layers; /* [L] */
    float *embed;            /* [V,C]; the tied head adds here too */
    float *gist_embed;       /* [C] */
    float *final_norm;
    llama_matrix_bwd head;
    llama_layer_bwd *encoder; /* [cfg.encoder] */
    float *encoder_norm;
    float *near_table, *encoder_near_table;
} llama_bwd;

/* Buffers of one block's backward pass, shared by all blocks.  Rows have one timeline, store 0; they may see a memory,
 * store 1, whose rows (k > 0) come from elsewhere: the caller sets kv[1], swapped[1] and memory for each block. */
typedef struct llama_acts_bwd {
    float *n;                /* [T,C] a norm's output, computed again */
    float *act, *dact;       /* [T,F] */
    float *dgate, *dup;      /* [T,F] */
    float *dn, *datt, *dq;   /* [T,C] [T,H,D] [T,H,D] */
    float *dkept;            /* [T,C] dn of the wanted rows' queries */
    float *dk, *dv;          /* [T,G,D] */
    float *dq0, *dk0;        /* as q0, k0: dq and dk themselves where heads have no norms */
    float *rms;              /* [T], or [T,H] for norms of heads */
    void *operand, *operand_t; /* gradient rows, and columns, as operands */
    void *operand_head;      /* the same for a chunk of logits; taken by the trainer */
    op_weight xt;            /* inputs packed for dW = dy^T x */
    op_kv kv[2], swapped[2]; /* the block's keys and values, and exchanged */
    op_kv_grad memory;       /* where the gradients of store 1 are added */
    float *dck, *dcv;        /* T5: [T,G,D] of the source's rows */
    op_kv cross[2], cross_swapped[2]; /* of the source's rows and, where gist rows come from elsewhere, of those */
    op_kv_grad cross_memory;
    float *dnear, *dencoder_near; /* [H, 2 reach + 1] of the biases by distance, summed over a stack's layers */
    void *scratch;           /* op_attention_bwd_scratch */
} llama_acts_bwd;

/* dx [T,C] holds the gradient of the block's output, the wanted rows side by side, and is turned into that of its
 * input, all rows; weight gradients are added to.  `a` holds what the forward pass left: x, q0, k0, q, k, v, att, xm,
 * gate, up, stats, cs, kept_cs. */
void llama_block_bwd(const llama_model *m, op_ctx *ctx, float *dx, const llama_layer_bwd *d, llama_acts_bwd *s,
                     const llama_acts *a, const llama_layer *w, const llama_batch *b);
/* Its last step: from s->dq0, dk0 and dv, through wq (the wanted rows; `wanted` may be b), wk, wv and the norm; dx, the
 * gradient of (6)'s sum, becomes that of the block's input. */
void llama_attention_input_bwd(op_ctx *ctx, float *dx, const llama_layer_bwd *d, llama_acts_bwd *s, const llama_acts *a,
                               const llama_config *c, const llama_layer *w, const llama_batch *b,
                               const llama_batch *wanted);
/* llama_block_bwd for T5's blocks; a->xc, cq, catt, cstats, ck and cv too.  The decoder's adds what reaches e
 * [source rows,C], the rows of the encoder's output that answers see, to de; source's rows name e's slots. */
void t5_encoder_block_bwd(const llama_model *m, op_ctx *ctx, float *dx, const llama_layer_bwd *d, llama_acts_bwd *s,
                          const llama_acts *a, const llama_layer *w, const llama_batch *b);
void t5_decoder_block_bwd(const llama_model *m, op_ctx *ctx, float *dx, float *de, const llama_layer_bwd *d,
                          llama_acts_bwd *s, const llama_acts *a, const llama_layer *w, const llama_batch *b,
                          const float *e, const llama_batch *source);
/* dx [T,K] (+)= dy W and dW += dy^T x for one matrix; x packed in s->xt beforehand (llama_pack_input: nothing to do for
 * a frozen matrix).  dx NULL: not wanted.  add: dx is added to. */
void llama_matrix_grad(op_ctx *ctx, float *dx, bool add, const llama_matrix_bwd *d, llama_acts_bwd *s, const float *dy,
                       int T);
void llama_pack_input(op_ctx *ctx, llama_acts_bwd *s, const llama_matrix_bwd *d, const float *x, int T);
/* The derivative of llama_lora_fwd: dx [T,K] and the gradients of A and B are added to. */
void llama_lora_bwd_add(op_ctx *ctx, const llama_lora_acts *t, float *dx, const llama_lora_bwd *d, llama_acts_bwd *s,
                        const float *dy, const float *x, const llama_lora *l, const llama_batch *b);
/* Keys and values of `rows` rows of `width` f32 each, from the arena. */
op_kv llama_store_take(arena *ar, int rows, size_t width);
void llama_acts_bwd_take(llama_acts_bwd *s, arena *ar, const llama_config *cfg, const op_ctx *ctx, dtype type, int T,
                         int visible);

/* factor [D/2]: what scaling divides theta^(-2i/D) by, in f32 as GGUF files carry it (rope_freqs.weight). */
void llama_rope_factors(const llama_config *c, float *factor);
/* freq [D/2] = theta^(-2i/D) / factor[i] */
void llama_frequencies(const llama_config *c, float *freq);
/* Rotate the keys k [G,D] (f32) of one row by `shift` positions more (negative: back). */
void llama_rotate_key(const llama_model *m, float *k, int shift);

/* ---- saving: llama_save.c ---- */

/* DIR/name, indented. */
gist_status llama_save_json(const json_t *j, const char *dir, const char *name, const gist_allocator *alloc,
                            gist_error *err);
/* DIR/config.json: `from` (the config the model came from; NULL: none) with the keys that c and `type` decide
 * rewritten. */
gist_status llama_save_config(const llama_config *c, const json_t *from, dtype type, const char *dir,
                              const gist_allocator *alloc, gist_error *err);
/* DIR/model.safetensors, every tensor of the weight table.  values gives a tensor's f32 values by its Hugging Face
 * name, NULL: it has none (GIST_ERR_USAGE). */
typedef const float *(*llama_values_fn)(void *ctx, const char *name);
gist_status llama_save_weights(const llama_config *c, dtype type, llama_values_fn values, void *ctx, const char *dir,
                               const gist_allocator *alloc, gist_error *err);

/* DIR/adapter_config.json and adapter_model.safetensors in PEFT's layout, f32.  base: the model's name or path for
 * readers; gist_token: the id of <GIST> when the adapter has an embedding for it, else -1.  values as above. */
gist_status llama_adapter_save(const llama_lora_config *lora, const llama_config *c, int32_t gist_token,
                               const char *base, llama_values_fn values, void *ctx, const char *dir,
                               const gist_allocator *alloc, gist_error *err);

/* ---- converting: llama_convert.c ---- */

/* Weights on their way into a file of another kind or type, a few rows at a time. */
typedef struct llama_copy {
    const gist_allocator *alloc;
    const llama_config *cfg;
    const weights *from;
    dtype type; /* of matrices in GGUF (vectors: f32), of everything in safetensors (f32, bf16 or f16) */
    bool keep;  /* GGUF: matrices keep the type they have, whatever `type` says */
    pool *pool; /* NULL: one thread */
    const log_sink *log;
    void (*progress)(void *ctx, uint64_t done, uint64_t all); /* bytes; NULL: none */
    void *ctx;
    /* A weight diff (from) and what it is added to, both with Hugging Face's names; NULL: none.  Two elements are
     * added as f32 numbers.  base_cfg may have fewer rows in the vocabulary: those that are missing count as zero. */
    const weights *base;
    const llama_config *base_cfg;
    int tensors;    /* out: how many, */
    uint64_t bytes; /* of how many bytes, */
    dtype most;     /* the type that most elements of matrices have, */
    double sum;     /* and with a base the sum over all elements, before they are rounded to their type */
} llama_copy;
/* The tensors of the model into one safetensors file; into a directory's model.safetensors, or into shards of at most
 * `most` bytes with an index where they take more (0: no limit; a larger tensor is a shard of its own); added to w,
 * which has its metadata, and saved as a GGUF file.
 * Names, shapes and types are judged before anything is written.  Rows that are no multiple of the block become q8_0 or
 * f16, with a warning.  A value that the new type cannot hold is GIST_ERR_UNSUPPORTED and names the tensor. */
gist_status llama_copy_st(llama_copy *c, const char *path, gist_error *err);
gist_status llama_copy_dir(llama_copy *c, const char *dir, uint64_t most, gist_error *err);
gist_status llama_copy_gguf(llama_copy *c, gguf_writer *w, const char *path, gist_error *err);
/* The keys of a GGUF file that llama_config_gguf reads.  general.file_type is llama_copy_gguf's, unless a GGUF file's
 * types are kept. */
void llama_add_keys(gguf_writer *w, const llama_config *c);
/* Would llama_config_gguf find the config's rotary scaling again, to the bit?  UNSUPPORTED: no. */
gist_status llama_gguf_check_rope(const llama_config *c, gist_error *err);

#endif
