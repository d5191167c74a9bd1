/* engine_int.h - what the public objects are inside.
 *
 *   engine   model + tokenizer + template + kernels + threads; immutable once open
 *   session  KV stores of every layer, the arena of one forward pass, the timeline's length and position
 *   gist     KV stores of k rows of every layer, and the header that a .gist file carries
 *
 * A forward pass of a session names its stores by index: STORE_OWN for its timeline, STORE_GIST for an attached gist.
 */
#ifndef GIST_ENGINE_INT_H
#define GIST_ENGINE_INT_H

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

enum { STORE_OWN, STORE_GIST, STORES };
enum { CHUNK = 512 /* rows of one forward pass: any split gives the same bits, this one bounds the activations */ };

struct gist_session {
    gist_engine *e;
    const gist_allocator *alloc;
    int context;          /* most tokens of its own */
    gist_type asked;      /* KV type asked for; AUTO: not yet decided */
    dtype kv;
    const gist *attached;
    int length, position; /* own tokens so far; position of the next */
    int first_visible;    /* rows fed from now on see own tokens from here on */
    int cap;              /* tokens the stores have room for */
    op_kv *stores;        /* [L][STORES] */
    void *kv_block;
    void *act_block;
    size_t act_bytes;
    int act_rows, act_visible; /* what act_block was sized for */
    llama_acts acts;
    op_row *rows;         /* [act_rows] */
    int32_t *pos;         /* [act_rows] */
    int *gist_row;        /* [act_rows] rows of gist tokens, when an adapter must know them */
    float *logits;        /* [vocab], of gist_generate */
};

struct gist {
    const gist_allocator *alloc;
    const gist_engine *e; /* NULL: only inspected */
    gfile head;           /* header fields; its safetensors part is closed once the rows are copied */
    op_kv *stores;        /* [L] */
    void *block;
};

/* Bytes of one layer's store of keys or values. */
size_t store_bytes(const gist_engine *e, dtype type, int cap);
/* Stores for `cap` tokens in every layer, `stride` op_kv apart, over one fresh block. */
gist_status stores_create(const gist_engine *e, dtype type, int cap, op_kv *stores, int stride, void **block,
                          gist_error *err);

dtype type_or(gist_type type, dtype otherwise);

#endif
