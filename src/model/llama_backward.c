/* llama_backward.c - the derivative of llama_forward.c's block, equation by equation, last to first.
 *
 *   (9)  x' = xm + f Wdown^T          df = dx' Wdown,            dWdown += dx'^T f,    dxm = dx'
 *   (8)  f = silu(g) * u              dg, du
 *   (8)  g = n Wgate^T, u = n Wup^T   dn = dg Wgate + du Wup,    dW += d^T n
 *   (7)  n = rmsnorm(xm)              dxm += ...
 *   (6)  xm = x + a Wo^T              da = dxm Wo,               dWo += dxm^T a,       dx = dxm
 *   (5)  a = attention(q, k, v)       dq, dk, dv
 *   (3)  q = R(n Wq^T) ...            rotate back, through the norms of heads;  dn = dq Wq + dk Wk + dv Wv,  db += dq
 *   (2)  n = rmsnorm(x)               dx += ...
 *
 * Norm outputs and f are computed again: cheaper than keeping them.  In the last block rows that are not wanted have
 * keys and values only: (9) to (5) and q are about the wanted rows, side by side.
 */
#include <math.h>

#include "model/model.h"

void llama_pack_input(op_ctx *ctx, llama_acts_bwd *s, const llama_matrix_bwd *d, const float *x, int T) {
    if (!d->dW) return;
    s->xt = (op_weight){ d->Wt.type, d->Wt.N, T, s->xt.panels };
    op_weight_pack_t(ctx, &s->xt, x);
}

void llama_matrix_grad(op_ctx *ctx, float *dx, bool add, const llama_matrix_bwd *d, llama_acts_bwd *s, const float *dy,
                       int T) {
    int N = d->Wt.K;
    if (dx) {
        const void *rows = op_operand(ctx, s->operand, dy, &d->Wt, T);
        if (add)
            op_linear_add(ctx, dx, rows, &d->Wt, T);
        else
            op_linear_fwd(ctx, dx, rows, &d->Wt, T);
    }
    if (d->dW) {
        op_operand_t(ctx, s->operand_t, dy, s->xt.type, T, N);
        op_linear_add(ctx, d->dW, s->operand_t, &s->xt, N);
    }
}

static void zero(float *p, size_t n) {
    memset(p, 0, n * sizeof *p);
}

/* q = rmsnorm(q0) of every head: dq0 is written, dw added to. */
static void head_norm_bwd(op_ctx *ctx, float *dq0, float *dw, const float *dq, const float *q0, const float *w,
                          float *rms, int heads, const llama_config *c) {
    zero(dq0, (size_t)heads * (size_t)c->D);
    op_rmsnorm_bwd(ctx, dq0, dw, dq, q0, w, rms, heads, c->D, c->eps);
}

void llama_attention_input_bwd(op_ctx *ctx, float *dx, const llama_layer_bwd *d, llama_acts_bwd *s, const llama_acts *a,
                               const llama_config *c, const llama_layer *w, const llama_batch *b,
                               const llama_batch *wanted) {
    const llama_layer_lora *r = w->lora;
    int T = b->T, n = wanted->T;
    bool some = n < T;
    float *dn = some ? s->dkept : s->dn;
    op_rmsnorm_fwd(ctx, s->n, a->x, w->attn_norm, T, c->C, c->eps);
    llama_pack_input(ctx, s, &d->wk, s->n, T);
    llama_matrix_grad(ctx, s->dn, false, &d->wk, s, s->dk0, T);                            /* (3) */
    llama_matrix_grad(ctx, s->dn, true, &d->wv, s, s->dv, T);
    if (r) llama_lora_bwd_add(ctx, &a->lora, s->dn, &d->lora->wk, s, s->dk0, s->n, &r->wk, b);
    if (r) llama_lora_bwd_add(ctx, &a->lora, s->dn, &d->lora->wv, s, s->dv, s->n, &r->wv, b);
    if (some) {
        op_rows_keep(ctx, s->n, s->n, b->wanted, n, c->C);
        llama_pack_input(ctx, s, &d->wq, s->n, n);
    }
    llama_matrix_grad(ctx, dn, !some, &d->wq, s, s->dq0, n);
    if (r) llama_lora_bwd_add(ctx, &a->lora, dn, &d->lora->wq, s, s->dq0, s->n, &r->wq, wanted);
    if (some) {
        op_rows_spread(ctx, dn, b->wanted, n, T, c->C);
        op_add_fwd(ctx, s->dn, s->dn, dn, T, c->C);
        op_rows_spread(ctx, dx, b->wanted, n, T, c->C);
    }
    op_rmsnorm_bwd(ctx, dx, d->attn_norm, s->dn, a->x, w->attn_norm, s->rms, T, c->C, c->eps); /* (2) */
}

void llama_block_bwd(const llama_model *m, op_ctx *ctx, float *dx, const llama_layer_bwd *d, llama_acts_bwd *s,
                     const llama_acts *a, const llama_layer *w, const llama_batch *b) {
    const llama_config *c = &m->cfg;
    const llama_layer_lora *r = w->lora;
    llama_acts kept = *a;
    llama_batch wanted = *b;
    llama_see_wanted(&kept, &wanted, a, b);
    int T = b->T, n = wanted.T, HD = c->H * c->D;
    size_t GD = (size_t)c->G * (size_t)c->D;
    float scale = 1.0f / sqrtf((float)c->D);

    op_silu_mul_fwd(ctx, s->act, a->gate, a->up, n, c->F);
    llama_pack_input(ctx, s, &d->down, s->act, n);
    llama_matrix_grad(ctx, s->dact, false, &d->down, s, dx, n);                            /* (9) */
    if (r) llama_lora_bwd_add(ctx, &a->lora, s->dact, &d->lora->down, s, dx, s->act, &r->down, &wanted);
    op_silu_mul_bwd(ctx, s->dgate, s->dup, s->dact, a->gate, a->up, n, c->F);              /* (8) */
    op_rmsnorm_fwd(ctx, s->n, a->xm, w->ffn_norm, n, c->C, c->eps);
    llama_pack_input(ctx, s, &d->gate, s->n, n);
    llama_matrix_grad(ctx, s->dn, false, &d->gate, s, s->dgate, n);
    llama_matrix_grad(ctx, s->dn, true, &d->up, s, s->dup, n);
    if (r) llama_lora_bwd_add(ctx, &a->lora, s->dn, &d->lora->gate, s, s->dgate, s->n, &r->gate, &wanted);
    if (r) llama_lora_bwd_add(ctx, &a->lora, s->dn, &d->lora->up, s, s->dup, s->n, &r->up, &wanted);
    op_rmsnorm_bwd(ctx, dx, d->ffn_norm, s->dn, a->xm, w->ffn_norm, s->rms, n, c->C, c->eps); /* (7) */

    llama_pack_input(ctx, s, &d->wo, a->att, n);
    llama_matrix_grad(ctx, s->datt, false, &d->wo, s, dx, n);                              /* (6) */
    if (r) llama_lora_bwd_add(ctx, &a->lora, s->datt, &d->lora->wo, s, dx, a->att, &r->wo, &wanted);
    op_kv_write(ctx, s->kv, b->rows, a->k, a->v, T, c->G, c->D);
    op_kv_write(ctx, s->swapped, b->rows, a->v, a->k, T, c->G, c->D);
    zero(s->dq, (size_t)n * (size_t)HD);
    zero(s->dk, (size_t)T * GD);
    zero(s->dv, (size_t)T * GD);
    op_kv_grad grad[] = { { s->dk, s->dv }, s->memory };
    op_attention_bwd(ctx, s->dq, grad, s->datt, a->att, a->stats, a->q, s->kv, s->swapped, wanted.rows, n, /* (5) */
                     c->H, c->G, c->D, scale, s->scratch);
    op_rope_bwd(ctx, s->dq, kept.cs, n, c->H, c->D);                                       /* (3) */
    op_rope_bwd(ctx, s->dk, a->cs, T, c->G, c->D);
    if (w->q_norm) head_norm_bwd(ctx, s->dq0, d->q_norm, s->dq, a->q0, w->q_norm, s->rms, n * c->H, c);
    if (w->k_norm) head_norm_bwd(ctx, s->dk0, d->k_norm, s->dk, a->k0, w->k_norm, s->rms, T * c->G, c);
    if (d->bq) op_bias_bwd(ctx, d->bq, s->dq0, n, HD);
    if (d->bk) op_bias_bwd(ctx, d->bk, s->dk0, T, (int)GD);
    if (d->bv) op_bias_bwd(ctx, d->bv, s->dv, T, (int)GD);
    llama_attention_input_bwd(ctx, dx, d, s, a, c, w, b, &wanted);
}

op_kv llama_store_take(arena *ar, int rows, size_t width) {
    op_kv kv = { DT_F32, op_kv_round(rows), NULL, NULL };
    kv.k = arena_take(ar, (size_t)kv.cap * width, sizeof(float));
    kv.v = arena_take(ar, (size_t)kv.cap * width, sizeof(float));
    return kv;
}

void llama_acts_bwd_take(llama_acts_bwd *s, arena *ar, const llama_config *c, const op_ctx *ctx, dtype type, int T,
                         int visible) {
    size_t rows = (size_t)T, C = (size_t)c->C, F = (size_t)c->F, HD = (size_t)c->H * (size_t)c->D;
    size_t GD = (size_t)c->G * (size_t)c->D;
    int widest = c->F > c->C ? c->F : c->C;
    widest = (int)HD > widest ? (int)HD : widest;
    s->n = arena_take(ar, rows * C, sizeof(float));
    s->act = arena_take(ar, rows * F, sizeof(float));
    s->dact = arena_take(ar, rows * F, sizeof(float));
    s->dgate = arena_take(ar, rows * F, sizeof(float));
    s->dup = arena_take(ar, rows * F, sizeof(float));
    s->dn = arena_take(ar, rows * C, sizeof(float));
    s->dkept = arena_take(ar, rows * C, sizeof(float));
    s->datt = arena_take(ar, rows * HD, sizeof(float));
    s->dq = arena_take(ar, rows * HD, sizeof(float));
    s->dk = arena_take(ar, rows * GD, sizeof(float));
    s->dv = arena_take(ar, rows * GD, sizeof(float));
    bool norms = llama_families[c->family].head_norm;
    s->dq0 = norms ? s->datt : s->dq; /* attention's gradient is spent by then */
    s->dk0 = norms ? arena_take(ar, rows * GD, sizeof(float)) : s->dk;
    s->rms = arena_take(ar, norms ? rows * (size_t)c->H : rows, sizeof(float));
    s->operand = arena_take(ar, rows * op_operand_bytes(widest), 1);
    s->operand_t = arena_take(ar, op_operand_t_bytes(type, T, widest), 1);
    s->xt = (op_weight){ type, widest, T, arena_take(ar, op_weight_bytes(type, widest, T), 1) };
    s->kv[0] = llama_store_take(ar, T, GD);
    s->swapped[0] = llama_store_take(ar, T, GD);
    s->scratch = arena_take(ar, op_attention_bwd_scratch(ctx, T, visible), 1);
    if (!c->encoder) return;
    size_t distances = (size_t)c->H * (2 * (size_t)c->context + 1);
    s->dck = arena_take(ar, rows * GD, sizeof(float));
    s->dcv = arena_take(ar, rows * GD, sizeof(float));
    s->cross[0] = llama_store_take(ar, T, GD);
    s->cross_swapped[0] = llama_store_take(ar, T, GD);
    s->dnear = arena_take(ar, distances, sizeof(float));
    s->dencoder_near = arena_take(ar, distances, sizeof(float));
}
