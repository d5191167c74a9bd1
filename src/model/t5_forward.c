/* t5_forward.c - the forward pass of T5: encoder, decoder, and what joins them.
 *
 *   (1)  x = E[ids]                                      embedding, the same in both stacks
 *   (2)  n = rmsnorm(x, w_attn)                          for every layer of either stack:
 *   (3)  q = n Wq^T, k = n Wk^T, v = n Wv^T              k, v -> KV store, rounded to its type
 *   (4)  x = x + softmax(q k^T + B) v Wo^T               B: bias by distance; scores are not scaled
 *   (5)  x = x + softmax(q' k'^T) v' Wo'^T               decoder only: n' = rmsnorm(x, w_cross), q' = n' Wq'^T;
 *                                                        k' = e Wk'^T, v' = e Wv'^T of encoder output rows e, once
 *   (6)  n = rmsnorm(x, w_ffn)
 *   (7)  f = gelu(n Wgate^T) * (n Wup^T), or relu(n Wup^T)
 *   (8)  x = x + f Wdown^T
 *   (9)  e = rmsnorm(x, w_encoder)                       the encoder's output
 *
 * Logits are llama_logits.  Masks are intervals here too: gisting.md's table says which rows of the source a row sees.
 */
#include <math.h>

#include "model/model.h"

/* y = x + attention of q, through wo */
static void attend(op_ctx *ctx, llama_acts *a, float *y, const float *x, const float *q, float *att, float *stats,
                   const llama_config *c, const op_kv *kv, const op_row *rows, const llama_batch *b,
                   const op_weight *wo, const llama_lora *r, const op_distance *near) {
    int T = b->T;
    op_attention_near_fwd(ctx, att, stats, q, kv, rows, T, c->H, c->G, c->D, 1.0f, near, a->scratch);
    op_linear_fwd(ctx, a->o, op_operand(ctx, a->operand, att, wo, T), wo, T);
    if (r) llama_lora_fwd(ctx, &a->lora, a->o, att, r, b);
    op_add_fwd(ctx, y, x, a->o, T, c->C);
}

/* Returns the batch that goes on: b, or its wanted rows. */
static const llama_batch *self_attention(op_ctx *ctx, llama_acts *a, const llama_config *c, const llama_layer *w,
                                         const op_kv *kv, const llama_batch *b, const op_distance *near,
                                         llama_batch *wanted) {
    const llama_layer_lora *r = w->lora; /* with an adapter, y = x W^T below goes on with + s (x A^T) B^T */
    llama_acts kept;
    int T = b->T;
    op_rmsnorm_fwd(ctx, a->n1, a->x, w->attn_norm, T, c->C, c->eps); /* (2) */
    op_input n = { .x = a->n1, .buf = a->operand, .T = T };
    op_linear(ctx, a->k, &n, &w->wk); /* (3) */
    op_linear(ctx, a->v, &n, &w->wv);
    if (r) llama_lora_fwd(ctx, &a->lora, a->k, a->n1, &r->wk, b);
    if (r) llama_lora_fwd(ctx, &a->lora, a->v, a->n1, &r->wv, b);
    op_kv_write(ctx, kv, b->rows, a->k, a->v, T, c->G, c->D);
    if (llama_keep_wanted(ctx, &kept, wanted, a, c, b)) {
        a = &kept;
        b = wanted;
        n = (op_input){ .x = a->n1, .buf = a->operand, .T = b->T };
        if (b->T == 0) return b;
    }
    op_linear(ctx, a->q, &n, &w->wq); /* (3) */
    if (r) llama_lora_fwd(ctx, &a->lora, a->q, a->n1, &r->wq, b);
    attend(ctx, a, a->xm, a->x, a->q, a->att, a->stats, c, kv, b->rows, b, &w->wo, r ? &r->wo : NULL, near); /* (4) */
    return b;
}

static void cross_attention(op_ctx *ctx, llama_acts *a, const llama_config *c, const llama_layer *w, const op_kv *kv,
                            const llama_batch *b) {
    const llama_layer_lora *r = w->lora;
    int T = b->T;
    op_rmsnorm_fwd(ctx, a->n1, a->xm, w->cross_norm, T, c->C, c->eps); /* (5) */
    op_linear_fwd(ctx, a->cq, op_operand(ctx, a->operand, a->n1, &w->cq, T), &w->cq, T);
    if (r) llama_lora_fwd(ctx, &a->lora, a->cq, a->n1, &r->cq, b);
    attend(ctx, a, a->xc, a->xm, a->cq, a->catt, a->cstats, c, kv, b->cross, b, &w->co, r ? &r->co : NULL, NULL);
}

/* a->y = x and what the feed-forward network adds */
static void feed_forward(op_ctx *ctx, llama_acts *a, const llama_config *c, const llama_layer *w, const float *x,
                         const llama_batch *b) {
    const llama_layer_lora *r = w->lora;
    int T = b->T;
    op_rmsnorm_fwd(ctx, a->n2, x, w->ffn_norm, T, c->C, c->eps); /* (6) */
    op_input n = { .x = a->n2, .buf = a->operand, .T = T };
    op_linear(ctx, a->up, &n, &w->up); /* (7) */
    if (c->gated) op_linear(ctx, a->gate, &n, &w->gate);
    if (r) llama_lora_fwd(ctx, &a->lora, a->up, a->n2, &r->up, b);
    if (c->gated) {
        if (r) llama_lora_fwd(ctx, &a->lora, a->gate, a->n2, &r->gate, b);
        op_gelu_mul_fwd(ctx, a->act, a->gate, a->up, T, c->F);
    } else {
        op_relu_fwd(ctx, a->act, a->up, T, c->F);
    }
    op_linear_fwd(ctx, a->down, op_operand(ctx, a->operand, a->act, &w->down, T), &w->down, T); /* (8) */
    if (r) llama_lora_fwd(ctx, &a->lora, a->down, a->act, &r->down, b);
    op_add_fwd(ctx, a->y, x, a->down, T, c->C);
}

void t5_encoder_block_fwd(const llama_model *m, op_ctx *ctx, llama_acts *a, const llama_layer *w, const op_kv *kv,
                          const llama_batch *b) {
    llama_batch wanted;
    b = self_attention(ctx, a, &m->cfg, w, kv, b, &m->encoder_near, &wanted);
    if (b->T > 0) feed_forward(ctx, a, &m->cfg, w, a->xm, b);
}

void t5_decoder_block_fwd(const llama_model *m, op_ctx *ctx, llama_acts *a, const llama_layer *w, const op_kv *kv,
                          const op_kv *cross, const llama_batch *b) {
    llama_batch wanted;
    b = self_attention(ctx, a, &m->cfg, w, kv, b, &m->near, &wanted);
    if (b->T == 0) return;
    cross_attention(ctx, a, &m->cfg, w, cross, b);
    feed_forward(ctx, a, &m->cfg, w, a->xc, b);
}

void t5_encode(const llama_model *m, op_ctx *ctx, llama_acts *a, const llama_batch *b) {
    const llama_config *c = &m->cfg;
    llama_batch all = llama_all(b);
    llama_embed_fwd(m, ctx, a->x, b); /* (1) */
    for (int l = 0; l < c->encoder; l++)
        t5_encoder_block_fwd(m, ctx, a, &m->encoder[l], b->kv + (size_t)l * (size_t)b->stores,
                             l < c->encoder - 1 ? &all : b);
    op_rmsnorm_fwd(ctx, a->x, a->x, m->encoder_norm, b->wanted ? b->n_wanted : b->T, c->C, c->eps); /* (9) */
}

void t5_cross_rows(op_ctx *ctx, float *k, float *v, op_input *x, const llama_layer *w, const llama_acts *a) {
    const llama_layer_lora *r = w->lora;
    llama_batch rows = { .T = x->T };
    op_linear(ctx, k, x, &w->ck);
    op_linear(ctx, v, x, &w->cv);
    if (r) llama_lora_fwd(ctx, &a->lora, k, x->x, &r->ck, &rows);
    if (r) llama_lora_fwd(ctx, &a->lora, v, x->x, &r->cv, &rows);
}

void t5_cross_keys(const llama_model *m, op_ctx *ctx, llama_acts *a, const float *x, const op_row *rows,
                   const op_kv *kv, int stores, int T) {
    const llama_config *c = &m->cfg;
    op_input e = { .x = x, .buf = a->operand, .T = T };
    for (int l = 0; l < c->L; l++) {
        t5_cross_rows(ctx, a->k, a->v, &e, &m->layers[l], a);
        op_kv_write(ctx, kv + (size_t)l * (size_t)stores, rows, a->k, a->v, T, c->G, c->D);
    }
}

void t5_decode(const llama_model *m, op_ctx *ctx, llama_acts *a, const llama_batch *b) {
    llama_batch all = llama_all(b);
    llama_embed_fwd(m, ctx, a->x, b); /* (1) */
    for (int l = 0; l < m->cfg.L; l++) {
        size_t at = (size_t)l * (size_t)b->stores;
        t5_decoder_block_fwd(m, ctx, a, &m->layers[l], b->kv + at, b->cross_kv + at, l < m->cfg.L - 1 ? &all : b);
    }
}
