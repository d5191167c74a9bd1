/* llama_lora.c - low-rank adaptation of a block's matrices (Hu et al. 2021), forward and backward.
 *
 *   y = x W^T + s (x A^T) B^T        A [r,K]  B [N,r]  s = alpha / r
 *
 *      x [T,K] --A--> u [T,r] --B--> added to y [T,N]                     everywhere, or
 *      x [T,K] --gather--> [n,K] --A--> [n,r] --B--> y's rows --scatter   on the n rows of gist tokens
 *
 * The second kind neither reads nor writes any other row, so the base model answers unchanged everywhere else.
 */
#include "model/model.h"

/* ---- the parts ---- */

typedef struct lora_part {
    size_t weight, lora, grad; /* offsets in llama_layer, llama_layer_lora, llama_layer_lora_bwd */
} lora_part;

#define PART(field)                                                                                                    \
    { offsetof(llama_layer, field), offsetof(llama_layer_lora, field), offsetof(llama_layer_lora_bwd, field) }

static const lora_part parts[LLAMA_LORA_PARTS] = { PART(wq), PART(wk),   PART(wv), PART(wo), PART(gate), PART(up),
                                                   PART(down), PART(cq), PART(ck), PART(cv), PART(co) };
const char *const llama_lora_names[LLAMA_LORA_TARGETS] = { "q", "k", "v", "o", "gate", "up", "down" };

int llama_lora_blocks(const llama_config *c, bool gist_only) {
    return gist_only && c->encoder ? c->encoder : c->encoder + c->L;
}

const weight_row *llama_lora_row(const llama_config *c, int block, int part, int *layer) {
    bool encoder = block < c->encoder;
    int n;
    const weight_row *table = llama_table(c, &n);
    *layer = encoder ? block : block - c->encoder;
    for (int i = 0; i < n; i++) {
        const weight_row *r = &table[i];
        if (r->per_layer && r->kind == WEIGHT_MATRIX && r->offset == parts[part].weight && r->encoder == encoder &&
            llama_uses_row(c, r))
            return r;
    }
    return NULL;
}

unsigned llama_lora_target(int part) {
    return 1u << (part < LLAMA_LORA_TARGETS ? part : part - LLAMA_LORA_TARGETS);
}

bool llama_lora_adapts(const llama_lora_config *lora, int part) {
    return lora->rank > 0 && lora->targets & llama_lora_target(part);
}

const char *llama_lora_embed(const llama_config *c) {
    return c->encoder ? "base_model.model.shared.token_adapter.trainable_tokens_delta"
                      : "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta";
}

void llama_lora_name(char out[LLAMA_LORA_NAME], const llama_config *c, int block, int part, char factor) {
    char weight[128];
    int layer;
    const weight_row *row = llama_lora_row(c, block, part, &layer);
    llama_row_name(weight, row, layer, false);
    int stem = (int)(strlen(weight) - strlen(".weight"));
    snprintf(out, LLAMA_LORA_NAME, "base_model.model.%.*s.lora_%c.weight", stem, weight, factor);
}

llama_lora *llama_lora_of(llama_layer_lora *layer, int part) {
    return (llama_lora *)(void *)((uint8_t *)layer + parts[part].lora);
}

llama_lora_bwd *llama_lora_bwd_of(llama_layer_lora_bwd *layer, int part) {
    return (llama_lora_bwd *)(void *)((uint8_t *)layer + parts[part].grad);
}

static int part_named(const char *s, size_t len) {
    int i = 0;
    while (i < LLAMA_LORA_TARGETS && (strlen(llama_lora_names[i]) != len || memcmp(llama_lora_names[i], s, len) != 0))
        i++;
    return i;
}

gist_status llama_lora_targets(const char *text, unsigned *out, gist_error *err) {
    unsigned bits = 0;
    if (strcmp(text, "all") == 0) {
        *out = (1u << LLAMA_LORA_TARGETS) - 1;
        return GIST_OK;
    }
    for (const char *s = text;; s++) {
        size_t len = strcspn(s, ",");
        int part = part_named(s, len);
        if (part == LLAMA_LORA_TARGETS)
            return err_set(err, GIST_ERR_USAGE, "\"%.*s\" is no matrix of a block (q, k, v, o, gate, up, down; all)",
                           (int)(len < 20 ? len : 20), s);
        bits |= 1u << part;
        s += len;
        if (!*s) break;
    }
    *out = bits;
    return GIST_OK;
}

gist_status llama_lora_check(const llama_lora_config *lora, const llama_config *c, gist_error *err) {
    if (lora->rank < 0 || lora->rank > c->C)
        return err_set(err, GIST_ERR_USAGE, "a rank of %d is not between 1 and the model's width of %d", lora->rank,
                       c->C);
    if (lora->rank > 0 && !(lora->alpha > 0 && lora->alpha <= 1e6f))
        return err_set(err, GIST_ERR_USAGE, "an alpha of %g is not in (0,1e6]", (double)lora->alpha);
    if (lora->rank > 0 && lora->targets == 0) return err_set(err, GIST_ERR_USAGE, "an adapter needs a matrix to adapt");
    return GIST_OK;
}

/* ---- rows that an adapter acts on ---- */

static int rows_of(const llama_lora *l, const llama_batch *b) {
    return l->A.N == 0 ? 0 : l->gist_only ? b->gists : b->T;
}

/* The adapted rows of x [T,C]: x itself, or gathered into buf. */
static float *rows_in(op_ctx *ctx, float *buf, const float *x, const llama_lora *l, const llama_batch *b, int C) {
    if (!l->gist_only) return (float *)(uintptr_t)x;
    op_rows_gather(ctx, buf, x, b->gist, b->gists, C);
    return buf;
}

static void rows_out(op_ctx *ctx, float *x, const float *rows, const llama_lora *l, const llama_batch *b, int C) {
    if (l->gist_only) op_rows_scatter(ctx, x, rows, b->gist, b->gists, C);
}

/* ---- y += s (x A^T) B^T ---- */

/* u [n,r] = s x A^T */
static void down_rank(op_ctx *ctx, const llama_lora_acts *s, const float *x, const llama_lora *l, int n) {
    op_linear_fwd(ctx, s->u, op_operand(ctx, s->operand, x, &l->A, n), &l->A, n);
    op_scale(ctx, s->u, l->scale, n, l->A.N);
}

void llama_lora_fwd(op_ctx *ctx, const llama_lora_acts *s, float *y, const float *x, const llama_lora *l,
                    const llama_batch *b) {
    int n = rows_of(l, b);
    if (n == 0) return;
    down_rank(ctx, s, rows_in(ctx, s->x, x, l, b, l->A.K), l, n);
    float *rows = rows_in(ctx, s->y, y, l, b, l->B.N);
    op_linear_add(ctx, rows, op_operand(ctx, s->operand, s->u, &l->B, n), &l->B, n);
    rows_out(ctx, y, rows, l, b, l->B.N);
}

/*   u = s x A^T,  y += u B^T        du = dy B,  dB += dy^T u,  dx += s du A,  dA += s du^T x */
void llama_lora_bwd_add(op_ctx *ctx, const llama_lora_acts *t, float *dx, const llama_lora_bwd *d, llama_acts_bwd *s,
                        const float *dy, const float *x, const llama_lora *l, const llama_batch *b) {
    int n = rows_of(l, b);
    if (n == 0) return;
    const float *xs = rows_in(ctx, t->x, x, l, b, l->A.K), *dys = rows_in(ctx, t->y, dy, l, b, l->B.N);
    down_rank(ctx, t, xs, l, n);
    llama_pack_input(ctx, s, &d->B, t->u, n);
    llama_matrix_grad(ctx, t->du, false, &d->B, s, dys, n);
    op_scale(ctx, t->du, l->scale, n, l->A.N);
    float *dxs = rows_in(ctx, t->dx, dx, l, b, l->A.K);
    llama_pack_input(ctx, s, &d->A, xs, n);
    llama_matrix_grad(ctx, dxs, true, &d->A, s, t->du, n);
    rows_out(ctx, dx, dxs, l, b, l->A.K);
}

void llama_lora_take(llama_lora_acts *s, arena *ar, const llama_config *c, const llama_lora_config *lora, int T) {
    int widest = c->F > c->C ? c->F : c->C;
    widest = c->H * c->D > widest ? c->H * c->D : widest;
    size_t rows = (size_t)T, n = lora->gist_only ? rows * (size_t)widest : 0, ranks = rows * (size_t)lora->rank;
    s->x = n ? arena_take(ar, n, sizeof(float)) : NULL;
    s->y = n ? arena_take(ar, n, sizeof(float)) : NULL;
    s->dx = n ? arena_take(ar, n, sizeof(float)) : NULL;
    s->u = arena_take(ar, ranks, sizeof(float));
    s->du = arena_take(ar, ranks, sizeof(float));
    s->operand = arena_take(ar, rows * op_operand_bytes(widest), 1);
}
