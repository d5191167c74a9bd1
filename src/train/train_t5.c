/* train_t5.c - one forward and backward pass of an encoder-decoder model over a packed batch.
 *
 *   e = norm(encoder blocks over the source rows): the last one computes the rows that an answer sees, no others
 *   block l of the decoder:  k', v' = e Wk'^T, e Wv'^T  ->  one store  ->  the block over the answer rows
 *   backward:  decoder L-1 .. 0, each adding to de  ->  norm  ->  encoder .. 0  ->  dE of both, tables by distance
 *
 * The loss between them is train_step.c's.  Every block keeps what its derivative reads.
 */
#include "train/train_model_int.h"

/* ---- activations ---- */

/* What cross-attention's derivative reads. */
static void take_cross(llama_acts *a, arena *ar, const llama_config *c, size_t rows) {
    size_t C = (size_t)c->C, HD = (size_t)c->H * (size_t)c->D, GD = (size_t)c->G * (size_t)c->D;
    a->cq = arena_take(ar, rows * HD, sizeof(float));
    a->catt = arena_take(ar, rows * HD, sizeof(float));
    a->xc = arena_take(ar, rows * C, sizeof(float));
    a->cstats = arena_take(ar, rows * 2 * (size_t)c->H, sizeof(float));
    a->ck = arena_take(ar, rows * GD, sizeof(float));
    a->cv = arena_take(ar, rows * GD, sizeof(float));
}

void train_t5_take(train_model *tm, arena *ar, const llama_acts *shared) {
    const llama_config *c = &tm->model.cfg;
    size_t rows = (size_t)tm->opt.max_rows, C = (size_t)c->C, GD = (size_t)c->G * (size_t)c->D;
    llama_acts once = *shared;
    for (int l = 0; l < c->encoder; l++) {
        llama_acts *a = &tm->encoder[l];
        *a = *shared;
        if (!tm->opt.recompute) train_take_kept(a, ar, c, rows);
        a->x = arena_take(ar, rows * C, sizeof(float));
        if (l > 0) a[-1].y = a->x;
    }
    tm->source_last = tm->encoder[c->encoder - 1].y = arena_take(ar, rows * C, sizeof(float));
    tm->source = arena_take(ar, rows * C, sizeof(float));
    tm->dsource = arena_take(ar, rows * C, sizeof(float));
    if (tm->opt.recompute) take_cross(&once, ar, c, rows);
    for (int l = 0; l < c->L; l++) {
        llama_acts *a = &tm->acts[l];
        if (!tm->opt.recompute) {
            take_cross(a, ar, c, rows);
            continue;
        }
        a->cq = once.cq;
        a->catt = once.catt;
        a->xc = once.xc;
        a->cstats = once.cstats;
        a->ck = once.ck;
        a->cv = once.cv;
    }
    tm->cross[0] = llama_store_take(ar, tm->opt.max_rows, GD);
    tm->read.row = arena_take(ar, rows, sizeof(int));
    tm->read.before = arena_take(ar, rows + 1, sizeof(int));
    tm->read.slot = arena_take(ar, rows, sizeof(op_row));
    tm->read.cross = arena_take(ar, rows, sizeof(op_row));
}

/* ---- what is read ---- */

/* A prompt that answers see through gists alone is no row of `read`. */
static void see_read(train_read *r, const train_batch *b) {
    int S = b->source.T;
    int *marked = r->before + 1;
    memset(r->before, 0, ((size_t)S + 1) * sizeof *r->before);
    for (int t = 0; t < b->T; t++) {
        const op_row *x = &b->cross[t];
        for (int i = x->lo; i < x->hi; i++) marked[i] = 1;
        for (int i = x->mlo; x->mem == 0 && i < x->mhi; i++) marked[i] = 1;
    }
    r->n = 0;
    for (int i = 0; i < S; i++) {
        if (marked[i]) r->row[r->n++] = i;
        r->before[i + 1] = r->n;
    }
    for (int i = 0; i < r->n; i++) {
        r->slot[i] = b->source.rows[r->row[i]];
        r->slot[i].slot = i;
    }
    for (int t = 0; t < b->T; t++) {
        op_row x = b->cross[t];
        x.lo = r->before[x.lo];
        x.hi = r->before[x.hi];
        if (x.mem == 0) {
            x.mlo = r->before[x.mlo];
            x.mhi = r->before[x.mhi];
        }
        r->cross[t] = x;
    }
}

/* ---- passes ---- */

static llama_batch source_of(train_model *tm, const train_batch *b) {
    const train_source *s = &b->source;
    int n = 0;
    for (int t = 0; t < s->T; t++)
        if (s->ids[t] == tm->opt.gist_token) tm->gist_row[n++] = t;
    return (llama_batch){ .T = s->T,
                          .ids = s->ids,
                          .pos = s->pos,
                          .rows = s->rows,
                          .kv = tm->kv,
                          .stores = 1,
                          .gist = tm->gist_row,
                          .gists = n,
                          .wanted = tm->read.row,
                          .n_wanted = tm->read.n };
}

/* The encoder's output as the decoder sees it. */
static llama_batch read_of(const train_model *tm) {
    return (llama_batch){ .T = tm->read.n, .rows = tm->read.slot };
}

static llama_batch answers_of(const train_model *tm, const train_batch *b) {
    return (llama_batch){ .T = b->T,
                          .ids = b->ids,
                          .pos = b->pos,
                          .rows = b->rows,
                          .kv = tm->kv,
                          .stores = 1,
                          .cross = tm->read.cross,
                          .cross_kv = tm->cross };
}

static void encoder_block(train_model *tm, llama_acts *a, int l, const llama_batch *source) {
    const llama_model *m = &tm->model;
    llama_batch all = llama_all(source);
    t5_encoder_block_fwd(m, &tm->ctx, a, &m->encoder[l], &tm->kv[l * tm->stores],
                         l < m->cfg.encoder - 1 ? &all : source);
}

/* A block of the decoder, and what it sees of the source. */
static void decoder_block(train_model *tm, llama_acts *a, int l, const llama_batch *read, const llama_batch *answers) {
    const llama_model *m = &tm->model;
    op_ctx *ctx = &tm->ctx;
    op_input e = { .x = tm->source, .buf = a->operand, .T = read->T };
    t5_cross_rows(ctx, a->ck, a->cv, &e, &m->layers[l], a);
    op_kv_write(ctx, tm->cross, read->rows, a->ck, a->cv, read->T, m->cfg.G, m->cfg.D);
    train_memory_cross(tm, l);
    t5_decoder_block_fwd(m, ctx, a, &m->layers[l], tm->kv, tm->cross, answers);
}

void train_t5_forward(train_model *tm, const train_batch *b) {
    const llama_model *m = &tm->model;
    const llama_config *c = &m->cfg;
    op_ctx *ctx = &tm->ctx;
    see_read(&tm->read, b);
    llama_batch source = source_of(tm, b), read = read_of(tm), answers = answers_of(tm, b);
    llama_embed_fwd(m, ctx, tm->encoder[0].x, &source);
    for (int l = 0; l < c->encoder; l++) encoder_block(tm, &tm->encoder[l], l, &source);
    op_rmsnorm_fwd(ctx, tm->source, tm->source_last, m->encoder_norm, read.T, c->C, c->eps);
    llama_embed_fwd(m, ctx, tm->acts[0].x, &answers);
    for (int l = 0; l < c->L; l++) decoder_block(tm, &tm->acts[l], l, &read, &answers);
}

void train_t5_backward(train_model *tm, const train_batch *b) {
    const llama_model *m = &tm->model;
    const llama_config *c = &m->cfg;
    op_ctx *ctx = &tm->ctx;
    llama_acts_bwd *s = &tm->s;
    llama_batch source = source_of(tm, b), all = llama_all(&source), read = read_of(tm), answers = answers_of(tm, b);
    size_t rows = (size_t)read.T * (size_t)c->C, distances = (size_t)c->H * (2 * (size_t)c->context + 1);
    op_buckets past = c->near, both = c->near;
    past.both = false;
    memset(tm->dsource, 0, rows * sizeof *tm->dsource);
    memset(s->dnear, 0, distances * sizeof *s->dnear);
    memset(s->dencoder_near, 0, distances * sizeof *s->dencoder_near);
    if (b->grad_rows) answers.T = b->grad_rows;
    for (int l = c->L - 1; l >= 0; l--) {
        llama_acts a = tm->acts[l];
        if (tm->opt.recompute) {
            a.y = s->dn; /* the output is known already; it must not land on a kept input */
            decoder_block(tm, &a, l, &read, &answers);
        }
        train_memory_cross(tm, l);
        t5_decoder_block_bwd(m, ctx, tm->dx, tm->dsource, &tm->bwd.layers[l], s, &a, &m->layers[l], &answers,
                             tm->source, &read);
        train_memory_cross_bwd(tm, l);
    }
    if (tm->bwd.embed) op_embed_bwd(ctx, tm->bwd.embed, tm->dx, b->ids, answers.T, c->C);
    if (tm->bwd.near_table) op_distance_bwd(tm->bwd.near_table, s->dnear, c->context, &past, c->H);

    float *dx = tm->source; /* the encoder's output is needed no more */
    memset(dx, 0, rows * sizeof *dx);
    op_rmsnorm_bwd(ctx, dx, tm->bwd.encoder_norm, tm->dsource, tm->source_last, m->encoder_norm, s->rms, read.T, c->C,
                   c->eps);
    for (int l = c->encoder - 1; l >= 0; l--) {
        llama_acts a = tm->encoder[l];
        train_memory_select(tm, l);
        if (tm->opt.recompute) {
            a.y = s->dn;
            encoder_block(tm, &a, l, &source);
        }
        t5_encoder_block_bwd(m, ctx, dx, &tm->bwd.encoder[l], s, &a, &m->encoder[l],
                             l < c->encoder - 1 ? &all : &source);
    }
    if (tm->bwd.embed) op_embed_bwd(ctx, tm->bwd.embed, dx, source.ids, source.T, c->C);
    if (tm->bwd.gist_embed) op_rows_sum(ctx, tm->bwd.gist_embed, dx, source.gist, source.gists, c->C);
    if (tm->bwd.encoder_near_table)
        op_distance_bwd(tm->bwd.encoder_near_table, s->dencoder_near, c->context, &both, c->H);
}

/* ---- operations ---- */

static double seen(const op_row *rows, int T) {
    double n = 0;
    for (int t = 0; t < T; t++) n += (rows[t].hi - rows[t].lo) + (rows[t].mem >= 0 ? rows[t].mhi - rows[t].mlo : 0);
    return n;
}

double train_t5_flops(const train_model *tm, const train_batch *b) {
    const llama_config *c = &tm->model.cfg;
    train_read read = tm->read;
    see_read(&read, b);
    double S = b->source.T, T = b->T, n = read.n, one = (double)c->C * c->H * c->D;
    double ffn = (c->gated ? 3.0 : 2.0) * c->C * c->F, encoder = c->encoder - 1;
    double products = 2 * one * (c->encoder * S + c->L * n) /* keys and values */
                      + (2 * one + ffn) * (encoder * S + n) + (6 * one + ffn) * c->L * T;
    double visible = encoder * seen(b->source.rows, b->source.T) + seen(read.slot, read.n) +
                     c->L * (seen(b->rows, b->T) + seen(b->cross, b->T));
    return (train_model_frozen(tm) ? 4 : 6) * products + 12.0 * c->H * c->D * visible;
}
