/* llama_forward.c - the forward pass of the LLaMA family.
 *
 *   (1)  x = E[ids]                                        embedding
 *   (2)  n = rmsnorm(x, w_attn)                            for every layer:
 *   (3)  q = R(n Wq^T), k = R(n Wk^T), v = n Wv^T          R: rotary positions;  + b where there are biases;
 *                                                          q and k through a norm of each head before R (Qwen3)
 *   (4)  k, v -> KV store, rounded to its type
 *   (5)  a = softmax(q k^T / sqrt(D)) v                    over the row's visible keys: memory, then local
 *   (6)  x = x + a Wo^T
 *   (7)  n = rmsnorm(x, w_ffn)
 *   (8)  f = silu(n Wgate^T) * (n Wup^T)
 *   (9)  x = x + f Wdown^T
 *  (10)  logits = rmsnorm(x, w_final) Whead^T
 *
 * docs/MODEL.md pairs each equation with its tensors.  One function serves prefill, decode, batches and training.
 * In the last block only rows whose output is wanted go on behind (4), since nobody sees more of the others; that is
 * why q comes after k and v.
 */
#include <math.h>

#include "model/model.h"

void llama_block_fwd(const llama_model *m, op_ctx *ctx, llama_acts *a, const llama_layer *w, const op_kv *kv,
                     const llama_batch *b) {
    const llama_config *c = &m->cfg;
    const llama_layer_lora *r = w->lora; /* with an adapter, y = x W^T below goes on with + s (x A^T) B^T */
    llama_acts kept;
    llama_batch wanted;
    int T = b->T;

    op_rmsnorm_fwd(ctx, a->n1, a->x, w->attn_norm, T, c->C, c->eps);                     /* (2) */
    op_input n1 = { .x = a->n1, .buf = a->operand, .T = T };
    op_linear(ctx, a->k0, &n1, &w->wk);                                                  /* (3) */
    op_linear(ctx, a->v, &n1, &w->wv);
    if (w->bk) op_bias_fwd(ctx, a->k0, w->bk, T, c->G * c->D);
    if (w->bv) op_bias_fwd(ctx, a->v, w->bv, T, c->G * c->D);
    if (r) llama_lora_fwd(ctx, &a->lora, a->k0, a->n1, &r->wk, b);
    if (r) llama_lora_fwd(ctx, &a->lora, a->v, a->n1, &r->wv, b);
    if (w->k_norm) op_rmsnorm_fwd(ctx, a->k, a->k0, w->k_norm, T * c->G, c->D, c->eps);
    op_rope_fwd(ctx, a->k, a->cs, T, c->G, c->D);
    op_kv_write(ctx, kv, b->rows, a->k, a->v, T, c->G, c->D);                            /* (4) */

    if (llama_keep_wanted(ctx, &kept, &wanted, a, c, b)) {
        a = &kept;
        b = &wanted;
        T = b->T;
        n1 = (op_input){ .x = a->n1, .buf = a->operand, .T = T };
        if (T == 0) return;
    }
    op_linear(ctx, a->q0, &n1, &w->wq);                                                  /* (3) */
    if (w->bq) op_bias_fwd(ctx, a->q0, w->bq, T, c->H * c->D);
    if (r) llama_lora_fwd(ctx, &a->lora, a->q0, a->n1, &r->wq, b);
    if (w->q_norm) op_rmsnorm_fwd(ctx, a->q, a->q0, w->q_norm, T * c->H, c->D, c->eps);
    op_rope_fwd(ctx, a->q, a->cs, T, c->H, c->D);
    op_attention_fwd(ctx, a->att, a->stats, a->q, kv, b->rows, T, c->H, c->G, c->D,                /* (5) */
                     1.0f / sqrtf((float)c->D), a->scratch);
    op_linear_fwd(ctx, a->o, op_operand(ctx, a->operand, a->att, &w->wo, T), &w->wo, T); /* (6) */
    if (r) llama_lora_fwd(ctx, &a->lora, a->o, a->att, &r->wo, b);
    op_add_fwd(ctx, a->xm, a->x, a->o, T, c->C);

    op_rmsnorm_fwd(ctx, a->n2, a->xm, w->ffn_norm, T, c->C, c->eps);                     /* (7) */
    op_input n2 = { .x = a->n2, .buf = a->operand, .T = T };
    op_linear(ctx, a->gate, &n2, &w->gate);                                              /* (8) */
    op_linear(ctx, a->up, &n2, &w->up);
    if (r) llama_lora_fwd(ctx, &a->lora, a->gate, a->n2, &r->gate, b);
    if (r) llama_lora_fwd(ctx, &a->lora, a->up, a->n2, &r->up, b);
    op_silu_mul_fwd(ctx, a->act, a->gate, a->up, T, c->F);
    op_linear_fwd(ctx, a->down, op_operand(ctx, a->operand, a->act, &w->down, T), &w->down, T); /* (9) */
    if (r) llama_lora_fwd(ctx, &a->lora, a->down, a->act, &r->down, b);
    op_add_fwd(ctx, a->y, a->xm, a->down, T, c->C);
}

llama_batch llama_all(const llama_batch *b) {
    llama_batch all = *b;
    all.wanted = NULL;
    return all;
}

bool llama_see_wanted(llama_acts *kept, llama_batch *wanted, const llama_acts *a, const llama_batch *b) {
    int n = b->n_wanted, gists = 0;
    if (!b->wanted || n == b->T) return false;
    for (int i = 0, g = 0; i < n; i++) {
        a->wanted_row[i] = b->rows[b->wanted[i]];
        if (a->wanted_cross && b->cross) a->wanted_cross[i] = b->cross[b->wanted[i]];
        while (g < b->gists && b->gist[g] < b->wanted[i]) g++;
        if (g < b->gists && b->gist[g] == b->wanted[i]) a->wanted_gist[gists++] = i;
    }
    *wanted = (llama_batch){
        .T = n, .rows = a->wanted_row, .cross = a->wanted_cross, .gist = a->wanted_gist, .gists = gists
    };
    *kept = *a;
    kept->x = a->xm;
    kept->cs = a->kept_cs;
    return true;
}

bool llama_keep_wanted(op_ctx *ctx, llama_acts *kept, llama_batch *wanted, const llama_acts *a, const llama_config *c,
                       const llama_batch *b) {
    if (!llama_see_wanted(kept, wanted, a, b)) return false;
    op_rows_keep(ctx, kept->x, a->x, b->wanted, b->n_wanted, c->C);
    op_rows_keep(ctx, kept->n1, a->n1, b->wanted, b->n_wanted, c->C);
    if (!c->encoder) op_rows_keep(ctx, kept->cs, a->cs, b->wanted, b->n_wanted, c->D);
    return true;
}

void llama_embed_fwd(const llama_model *m, op_ctx *ctx, float *x, const llama_batch *b) {
    op_embed_fwd(ctx, x, m->embed, m->embed_type, m->gist_row, b->ids, b->T, m->cfg.V, m->cfg.C);
    if (m->adapter && m->adapter->gist_embed) op_rows_fill(ctx, x, m->adapter->gist_embed, b->gist, b->gists, m->cfg.C);
}

void llama_forward(const llama_model *m, op_ctx *ctx, llama_acts *a, const llama_batch *b) {
    const llama_config *c = &m->cfg;
    if (c->encoder) {
        t5_decode(m, ctx, a, b);
        return;
    }
    llama_embed_fwd(m, ctx, a->x, b);                                                    /* (1) */
    op_rope_table(ctx, a->cs, b->pos, m->freq, b->T, c->D);
    llama_batch all = llama_all(b);
    for (int l = 0; l < c->L; l++)
        llama_block_fwd(m, ctx, a, &m->layers[l], b->kv + (size_t)l * (size_t)b->stores, l < c->L - 1 ? &all : b);
}

void llama_logits(const llama_model *m, op_ctx *ctx, llama_acts *a, int T, float *logits) {
    const llama_config *c = &m->cfg;
    op_rmsnorm_fwd(ctx, a->n1, a->x, m->final_norm, T, c->C, c->eps);                       /* (10) */
    if (c->scaled_head) op_scale(ctx, a->n1, 1.0f / sqrtf((float)c->C), T, c->C);
    op_linear_fwd(ctx, logits, op_operand(ctx, a->operand, a->n1, &m->head, T), &m->head, T);
}

void llama_acts_take(llama_acts *a, arena *ar, const llama_config *c, const op_ctx *ctx, int T, int visible) {
    size_t rows = (size_t)T, C = (size_t)c->C, F = (size_t)c->F, HD = (size_t)c->H * (size_t)c->D;
    size_t GD = (size_t)c->G * (size_t)c->D;
    int widest = c->F > c->C ? c->F : c->C;
    widest = c->H * c->D > widest ? c->H * c->D : widest;
    a->x = a->xm = a->y = arena_take(ar, rows * C, sizeof(float));
    a->n1 = a->n2 = arena_take(ar, rows * C, sizeof(float));
    a->o = a->down = arena_take(ar, rows * C, sizeof(float));
    a->q = a->q0 = arena_take(ar, rows * HD, sizeof(float));
    a->k = a->k0 = arena_take(ar, rows * GD, sizeof(float));
    a->v = arena_take(ar, rows * GD, sizeof(float));
    a->att = arena_take(ar, rows * HD, sizeof(float));
    a->xc = a->x;
    a->cq = a->q;
    a->catt = a->att;
    a->gate = a->act = arena_take(ar, rows * F, sizeof(float));
    a->up = arena_take(ar, rows * F, sizeof(float));
    a->cs = a->kept_cs = arena_take(ar, rows * (size_t)c->D, sizeof(float));
    a->operand = arena_take(ar, rows * op_operand_bytes(widest), 1);
    a->stats = a->cstats = NULL;
    a->wanted_row = arena_take(ar, rows, sizeof *a->wanted_row);
    a->wanted_cross = c->encoder ? arena_take(ar, rows, sizeof *a->wanted_cross) : NULL;
    a->wanted_gist = arena_take(ar, rows, sizeof *a->wanted_gist);
    a->scratch = arena_take(ar, op_attention_scratch(ctx, T, visible), 1);
}

static int later(int row, int64_t than) {
    return row > than ? row : (int)than;
}

/* A row at position i sees positions i - window + 1 to i. */
void llama_see_window(const llama_config *c, op_row *r, int memory_at, int own_at) {
    if (!c->window) return;
    int64_t first = (int64_t)r->pos - c->window + 1;
    r->mlo = later(r->mlo, first - memory_at);
    r->lo = later(r->lo, first - own_at);
    if (r->mlo > r->mhi) r->mlo = r->mhi;
}

void llama_rotate_key(const llama_model *m, float *k, int shift) {
    int D = m->cfg.D, half = D / 2;
    for (int i = 0; i < half; i++) {
        double angle = (double)shift * (double)m->freq[i], c = cos(angle), s = sin(angle);
        for (int g = 0; g < m->cfg.G; g++) {
            float *x = k + (size_t)g * (size_t)D, a = x[i], b = x[i + half];
            x[i] = (float)(a * c - b * s);
            x[i + half] = (float)(b * c + a * s);
        }
    }
}
