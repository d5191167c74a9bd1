/* engine_int.h - what the public objects are inside.
 *
 *   engine   model + tokenizer + template + kernels + threads; immutable once open
 *   session  KV stores of every layer, the arena of one forward pass, the timeline's length and position
 *   gist     KV stores of k rows of every layer, and the header that a .gist file carries
 *
 *            T5: the source's tokens until it is encoded, then the decoder's stores and timeline beside the source
 *   gist     T5: of the encoder's layers; also the encoder's output at those rows, and what the decoder reads of it
 *
 *   feed     tokens of one or many sessions through one forward pass (workspace, feed_part)
 *   answers  a generation per session, all advanced together (generation)
 */
#ifndef GIST_ENGINE_INT_H
#define GIST_ENGINE_INT_H

#include <stdatomic.h>

#include "engine/engine.h"

struct gist_engine {
    const gist_allocator *alloc;
    log_sink log;
    pool *pool;
    op_ctx ctx;
    weights w;
    llama_model model;
    llama_adapter adapter; /* hash "": none */
    tokenizer *tok;
    const tok_template *tp;
    int32_t gist_token;
    bool gist_added;
    char fingerprint[33], tok_fingerprint[33]; /* of the model: "" when it is borrowed */
    bool borrowed; /* pool, model and tokenizer are the caller's */
};

enum { CHUNK = 512 /* rows of one forward pass: any split gives the same bits, this one bounds the activations */ };

/* What one forward pass needs beside the model and the stores: for `rows` rows of `parts` sessions.  A session has one,
 * empty until it is fed by itself; feeding many at once uses that of the first.  Part i of a pass names its stores
 * 2i (its own tokens) and 2i + 1 (what stands in front of them). */
typedef struct workspace {
    void *block;
    size_t bytes;
    int rows, visible, parts; /* what block was sized for */
    llama_acts acts;
    op_row *row;   /* [rows] */
    int32_t *ids;  /* [rows] */
    int32_t *pos;  /* [rows] */
    int *gist_row; /* [rows] rows of gist tokens, when an adapter must know them */
    int *wanted;   /* [rows] rows whose logits are asked for */
    op_kv *stores; /* [L][2 parts] */
    op_row *cross; /* T5: [rows] what each sees of its source, and the stores [L][2 parts] of that */
    op_kv *cross_stores;
} workspace;
void workspace_free(workspace *w, const gist_allocator *alloc);
gist_status workspace_grow(workspace *w, const gist_engine *e, int rows, int visible, int parts, gist_error *err);

/* Rows that a session and its forks share, read-only, in front of their own stores: the k rows of an attached gist,
 * then own tokens [first, base). */
typedef struct front {
    atomic_int users;
    int gists, first, base;
    op_kv *stores; /* [L] */
    void *block;
} front;

/* T5: an encoded source as the decoder sees it, read-only, shared with forks. */
typedef struct source_kv {
    atomic_int users;
    int lo, n;     /* rows [lo,n) are seen */
    op_kv *stores; /* [L] keys and values of cross-attention */
    void *block;
} source_kv;

struct gist_session {
    gist_engine *e;
    const gist_allocator *alloc;
    int context;          /* most tokens of its own */
    gist_type asked;      /* KV type asked for; AUTO: not yet decided */
    dtype kv;
    const gist *attached;
    int length, position; /* own tokens so far; position of the next */
    int gists;            /* gist tokens at the end of the own ones, side by side */
    int first_visible;    /* rows fed from now on see own tokens from here on */
    front *front;         /* of a fork; NULL: none */
    int base;             /* own tokens [0,base) are in front, [base,length) in stores, from slot 0 on */
    int cap;              /* tokens the stores have room for */
    op_kv *stores;        /* [L] */
    void *kv_block;
    tok_ids source_ids;   /* T5: the source's tokens; first_visible is one of their indices */
    int cut;              /* T5: source rows before it see [0,cut), the others [first_visible, all) */
    int prefix;           /* T5: source tokens in front of the last input */
    source_kv *source;      /* T5: NULL until it is encoded */
    workspace work;
    bool listed;          /* seen in the list of sessions being checked */
};

struct gist {
    const gist_allocator *alloc;
    const gist_engine *e; /* NULL: only inspected */
    gfile head;           /* header fields; its safetensors part is closed once the rows are copied */
    op_kv *stores;        /* [L]; T5: [encoder] */
    void *block;
    float *output;        /* T5: [k,C] the encoder's output */
    op_kv *cross;         /* T5: [L] its keys and values for the decoder */
    void *cross_block;
};

/* Layers that a gist holds rows of. */
int gist_layers(const gist_engine *e);
/* Bytes of one layer's store of keys or values. */
size_t store_bytes(const gist_engine *e, dtype type, int cap);
/* Stores for `cap` tokens in each of `layers`, `stride` op_kv apart, over one fresh block. */
gist_status stores_create(const gist_engine *e, dtype type, int layers, int cap, op_kv *stores, int stride,
                          void **block, gist_error *err);

/* Room in the session's own stores for `more` tokens beyond the present length, within its context. */
gist_status session_room(gist_session *s, int more, gist_error *err);
/* What stands in front of the session's own stores is let go of. */
void front_leave(gist_session *s);

/* ---- T5's sources: encode.c ---- */

bool session_has_encoder(const gist_session *s);
/* More tokens for a source that is not encoded yet. */
gist_status source_add(gist_session *s, const int32_t *ids, size_t n, gist_error *err);
/* Encode the sources of n sessions; the workspace is the first one's.  On failure none is. */
gist_status sources_encode(gist_session *const *sessions, size_t n, gist_error *err);
/* Forget the encoded source and what was decoded behind it. */
void source_leave(gist_session *s);
/* Compress: encode the session's source and keep its rows [p, p+k) in g. */
gist_status source_compress(gist_session *s, gist *g, int p, gist_error *err);
/* The decoder's keys and values of g->output. */
gist_status gist_make_cross(gist *g, gist_error *err);

enum { BATCH_MAX = 1024 };
/* Are these sessions of one engine, each of them once? */
gist_status sessions_check(gist_session *const *sessions, size_t n, gist_error *err);

dtype type_or(gist_type type, dtype otherwise);

/* An empty gist; its stores of g->head.k rows; a row's key turned by `shift` positions and rounded again (scratch [G,D]
 * f32). */
gist *gist_new(const gist_allocator *alloc, const gist_engine *e);
gist_status gist_make_room(gist *g, gist_error *err);
void gist_turn_key(const gist *g, void *key, int shift, float *scratch);

/* ---- feeding ---- */

typedef struct feed_part {
    gist_session *s; /* each session once */
    const int32_t *ids;
    int n;    /* > 0 */
    int done; /* how many were run; 0 before */
} feed_part;
/* Run every part's ids.  logits, when not NULL: [count,vocab] of each part's last row; all: [n,vocab] of every row of
 * one part.  Room is made beforehand: on failure no session has changed. */
gist_status feed_parts(workspace *w, feed_part *part, size_t count, float *logits, bool all, gist_error *err);

/* ---- weight diffs: weight_diff.c ---- */

/* Config and weights of the directory that a diff of config cfg is added to; another shape is GIST_ERR_MISMATCH. */
gist_status diff_open_base(const char *dir, const llama_config *cfg, const gist_allocator *alloc, llama_config *base,
                           weights *w, gist_error *err);
/* The diff's tokenizer, or the base's where it has none.  Where neither names <GIST> and the diff has a row for it, it
 * gets the id of that row. */
gist_status diff_open_tokenizer(const char *diff, const char *base, const llama_config *cfg,
                                const llama_config *base_cfg, const gist_allocator *alloc, const log_sink *log,
                                tokenizer **out, gist_error *err);
/* s->with_buffers := the sum over the rotary buffers alone; their number, and how many are in the base's files. */
gist_status diff_sum_buffers(diff_sum *s, const llama_config *cfg, const weights *diff, const weights *base,
                             const gist_allocator *alloc, gist_error *err);
/* The weights' sum is known now: finish s and compare it. */
void diff_compare(diff_sum *s, double sum, const llama_config *cfg);

#endif
