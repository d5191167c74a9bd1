/* t5_backward.c - the derivative of t5_forward.c's blocks, equation by equation, last to first.
 *
 *   (8)  y = x + f Wdown^T            df = dy Wdown,             dWdown += dy^T f,     dx = dy
 *   (7)  f = gelu(g) * u, or relu(u)  dg, du
 *   (7)  g = n Wgate^T, u = n Wup^T   dn = dg Wgate + du Wup,    dW += d^T n
 *   (6)  n = rmsnorm(x)               dx += ...
 *   (5)  cross-attention              dq' through Wq' to the decoder; dk', dv' through Wk', Wv' to the encoder's output
 *   (4)  a = attention(q, k, v, B)    dq, dk, dv, dB
 *   (3)  q = n Wq^T ...               dn = dq Wq + dk Wk + dv Wv
 *   (2)  n = rmsnorm(x)               dx += ...
 *
 * Norm outputs and f are computed again: cheaper than keeping them.  In the encoder's last block rows that are not
 * wanted have keys and values only: (8) to (6), (4) and q are about the wanted rows, side by side.
 */
#include "model/model.h"

static void zero(float *p, size_t n) {
    memset(p, 0, n * sizeof *p);
}

/* dx: of y, then of x, which is what the network read. */
static void feed_forward_bwd(op_ctx *ctx, float *dx, const llama_layer_bwd *d, llama_acts_bwd *s, const llama_acts *a,
                             const llama_config *c, const llama_layer *w, const float *x,
                             const llama_batch *b) {
    const llama_layer_lora *r = w->lora;
    int T = b->T;
    if (c->gated)
        op_gelu_mul_fwd(ctx, s->act, a->gate, a->up, T, c->F);
    else
        op_relu_fwd(ctx, s->act, a->up, T, c->F);
    llama_pack_input(ctx, s, &d->down, s->act, T);
    llama_matrix_grad(ctx, s->dact, false, &d->down, s, dx, T); /* (8) */
    if (r) llama_lora_bwd_add(ctx, &a->lora, s->dact, &d->lora->down, s, dx, s->act, &r->down, b);
    op_rmsnorm_fwd(ctx, s->n, x, w->ffn_norm, T, c->C, c->eps);
    llama_pack_input(ctx, s, &d->up, s->n, T);
    if (c->gated) {
        op_gelu_mul_bwd(ctx, s->dgate, s->dup, s->dact, a->gate, a->up, T, c->F); /* (7) */
        llama_matrix_grad(ctx, s->dn, false, &d->gate, s, s->dgate, T);
    } else {
        op_relu_bwd(ctx, s->dup, s->dact, a->up, T, c->F);
    }
    llama_matrix_grad(ctx, s->dn, c->gated, &d->up, s, s->dup, T);
    if (r && c->gated) llama_lora_bwd_add(ctx, &a->lora, s->dn, &d->lora->gate, s, s->dgate, s->n, &r->gate, b);
    if (r) llama_lora_bwd_add(ctx, &a->lora, s->dn, &d->lora->up, s, s->dup, s->n, &r->up, b);
    op_rmsnorm_bwd(ctx, dx, d->ffn_norm, s->dn, x, w->ffn_norm, s->rms, T, c->C, c->eps); /* (6) */
}

/* wanted: b's, or b itself */
static void self_attention_bwd(op_ctx *ctx, float *dx, const llama_layer_bwd *d, llama_acts_bwd *s, const llama_acts *a,
                               const llama_config *c, const llama_layer *w, const llama_batch *b,
                               const llama_batch *wanted, const op_distance *near, float *dnear) {
    const llama_layer_lora *r = w->lora;
    int T = b->T, n = wanted->T;
    size_t HD = (size_t)c->H * (size_t)c->D, GD = (size_t)c->G * (size_t)c->D;
    llama_pack_input(ctx, s, &d->wo, a->att, n);
    llama_matrix_grad(ctx, s->datt, false, &d->wo, s, dx, n);
    if (r) llama_lora_bwd_add(ctx, &a->lora, s->datt, &d->lora->wo, s, dx, a->att, &r->wo, wanted);
    op_kv_write(ctx, s->kv, b->rows, a->k, a->v, T, c->G, c->D);
    op_kv_write(ctx, s->swapped, b->rows, a->v, a->k, T, c->G, c->D);
    zero(s->dq, (size_t)n * HD);
    zero(s->dk, (size_t)T * GD);
    zero(s->dv, (size_t)T * GD);
    op_kv_grad grad[] = { { s->dk, s->dv }, s->memory };
    op_attention_near_bwd(ctx, s->dq, dnear, grad, s->datt, a->att, a->stats, a->q, s->kv, s->swapped, /* (4) */
                          wanted->rows, n, c->H, c->G, c->D, 1.0f, near, s->scratch);
    llama_attention_input_bwd(ctx, dx, d, s, a, c, w, b, wanted); /* (3), (2) */
}

static void cross_attention_bwd(op_ctx *ctx, float *dx, float *de, const llama_layer_bwd *d, llama_acts_bwd *s,
                                const llama_acts *a, const llama_config *c, const llama_layer *w, const llama_batch *b,
                                const float *e, const llama_batch *source) {
    const llama_layer_lora *r = w->lora;
    int T = b->T, S = source->T;
    size_t HD = (size_t)c->H * (size_t)c->D, GD = (size_t)c->G * (size_t)c->D;
    llama_pack_input(ctx, s, &d->co, a->catt, T);
    llama_matrix_grad(ctx, s->datt, false, &d->co, s, dx, T);
    if (r) llama_lora_bwd_add(ctx, &a->lora, s->datt, &d->lora->co, s, dx, a->catt, &r->co, b);
    op_kv_write(ctx, s->cross, source->rows, a->ck, a->cv, S, c->G, c->D);
    op_kv_write(ctx, s->cross_swapped, source->rows, a->cv, a->ck, S, c->G, c->D);
    zero(s->dq, (size_t)T * HD);
    zero(s->dck, (size_t)S * GD);
    zero(s->dcv, (size_t)S * GD);
    op_kv_grad grad[] = { { s->dck, s->dcv }, s->cross_memory };
    op_attention_bwd(ctx, s->dq, grad, s->datt, a->catt, a->cstats, a->cq, s->cross, s->cross_swapped, /* (5) */
                     b->cross, T, c->H, c->G, c->D, 1.0f, s->scratch);
    op_rmsnorm_fwd(ctx, s->n, a->xm, w->cross_norm, T, c->C, c->eps);
    llama_pack_input(ctx, s, &d->cq, s->n, T);
    llama_matrix_grad(ctx, s->dn, false, &d->cq, s, s->dq, T);
    if (r) llama_lora_bwd_add(ctx, &a->lora, s->dn, &d->lora->cq, s, s->dq, s->n, &r->cq, b);
    op_rmsnorm_bwd(ctx, dx, d->cross_norm, s->dn, a->xm, w->cross_norm, s->rms, T, c->C, c->eps);
    llama_pack_input(ctx, s, &d->ck, e, S);
    llama_matrix_grad(ctx, de, true, &d->ck, s, s->dck, S);
    llama_matrix_grad(ctx, de, true, &d->cv, s, s->dcv, S);
    if (r) llama_lora_bwd_add(ctx, &a->lora, de, &d->lora->ck, s, s->dck, e, &r->ck, source);
    if (r) llama_lora_bwd_add(ctx, &a->lora, de, &d->lora->cv, s, s->dcv, e, &r->cv, source);
}

void t5_encoder_block_bwd(const llama_model *m, op_ctx *ctx, float *dx, const llama_layer_bwd *d, llama_acts_bwd *s,
                          const llama_acts *a, const llama_layer *w, const llama_batch *b) {
    llama_acts kept;
    llama_batch some;
    const llama_batch *wanted = llama_see_wanted(&kept, &some, a, b) ? &some : b;
    feed_forward_bwd(ctx, dx, d, s, a, &m->cfg, w, a->xm, wanted);
    self_attention_bwd(ctx, dx, d, s, a, &m->cfg, w, b, wanted, &m->encoder_near, s->dencoder_near);
}

void t5_decoder_block_bwd(const llama_model *m, op_ctx *ctx, float *dx, float *de, const llama_layer_bwd *d,
                          llama_acts_bwd *s, const llama_acts *a, const llama_layer *w, const llama_batch *b,
                          const float *e, const llama_batch *source) {
    feed_forward_bwd(ctx, dx, d, s, a, &m->cfg, w, a->xc, b);
    cross_attention_bwd(ctx, dx, de, d, s, a, &m->cfg, w, b, e, source);
    self_attention_bwd(ctx, dx, d, s, a, &m->cfg, w, b, b, &m->near, s->dnear);
}
