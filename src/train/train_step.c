/* train_step.c - one forward and backward pass over a packed batch.
 *
 *   x = E[ids]  ->  block 0 .. L-1 (each keeps what its derivative reads)  ->  rows with labels, some at a time:
 *   logits = rmsnorm(x) Whead^T  ->  loss and dlogits  ->  dWhead, dx  ->  block L-1 .. 0 backwards  ->  dE
 *
 * Only rows with a label go through the head; LLaMA's last block computes their output and no other row's (T5's decoder
 * has labels only).  A row with a teacher also matches the teacher row's distribution; no gradient flows into the
 * teacher's logits.
 */
#include <math.h>

#include "train/train_model_int.h"

static bool through_head(const train_batch *b, int t) {
    return b->label[t] >= 0 || b->teacher[t] >= 0;
}

/* Which rows' last output is read, and where it lies; T5's decoder computes all, each at its own place. */
static void see_wanted(train_model *tm, const train_batch *b) {
    int n = 0;
    for (int t = 0; t < b->T; t++) tm->place[t] = through_head(b, t);
    for (int t = 0; t < b->T; t++)
        if (b->teacher[t] >= 0) tm->place[b->teacher[t]] = 1;
    for (int t = 0; t < b->T; t++) {
        if (tm->place[t]) tm->wanted[n++] = t;
        tm->place[t] = tm->model.cfg.encoder ? t : n - 1;
    }
    tm->wanted_rows = n;
}

static llama_batch batch_of(train_model *tm, const train_batch *b) {
    int n = 0;
    for (int t = 0; t < b->T; t++)
        if (b->is_gist[t]) tm->gist_row[n++] = t;
    see_wanted(tm, b);
    return (llama_batch){ .T = b->T,
                          .ids = b->ids,
                          .pos = b->pos,
                          .rows = b->rows,
                          .kv = tm->kv,
                          .stores = tm->stores,
                          .gist = tm->gist_row,
                          .gists = n,
                          .wanted = tm->wanted_rows ? tm->wanted : NULL,
                          .n_wanted = tm->wanted_rows };
}

static void rotary_rows(train_model *tm, const llama_batch *b) {
    size_t D = (size_t)tm->model.cfg.D;
    for (int t = 0; t < b->T; t++) {
        float *cs = tm->acts[0].cs + (size_t)t * D;
        if (b->pos[t] >= 0 && b->pos[t] < tm->rope_positions)
            memcpy(cs, tm->rope + (size_t)b->pos[t] * D, D * sizeof *cs);
        else
            op_rope_table(&tm->ctx, cs, &b->pos[t], tm->model.freq, 1, tm->model.cfg.D);
    }
}

static void forward(train_model *tm, const train_batch *packed, const llama_batch *b) {
    const llama_model *m = &tm->model;
    if (m->cfg.encoder) {
        train_t5_forward(tm, packed);
        return;
    }
    llama_embed_fwd(m, &tm->ctx, tm->acts[0].x, b);
    rotary_rows(tm, b);
    llama_batch all = llama_all(b);
    for (int l = 0; l < m->cfg.L; l++)
        llama_block_fwd(m, &tm->ctx, &tm->acts[l], &m->layers[l], &tm->kv[l * tm->stores],
                        l < m->cfg.L - 1 ? &all : b);
}

/* ---- the loss ---- */

/* The last block's output of a row. */
static const float *last_of(const train_model *tm, int row) {
    return tm->last + (size_t)tm->place[row] * (size_t)tm->model.cfg.C;
}

/* T5's tied head reads rows scaled by this. */
static float head_scale(const llama_config *c) {
    return 1.0f / sqrtf((float)c->C);
}

static void head_logits(train_model *tm, float *logits, int n) {
    const llama_model *m = &tm->model;
    op_rmsnorm_fwd(&tm->ctx, tm->nh, tm->xh, m->final_norm, n, m->cfg.C, m->cfg.eps);
    if (m->cfg.scaled_head) op_scale(&tm->ctx, tm->nh, head_scale(&m->cfg), n, m->cfg.C);
    op_linear_fwd(&tm->ctx, logits, op_operand(&tm->ctx, tm->s.operand, tm->nh, &m->head, n), &m->head, n);
}

static void add_loss(train_loss *out, const train_batch *b, const train_model *tm, const int *row, int n) {
    for (int i = 0; i < n; i++) {
        const op_loss_row *r = &tm->loss_row[i];
        int cond = b->condition[row[i]], teacher = b->teacher[row[i]];
        double weight = (double)b->weight[row[i]];
        if (r->label >= 0) {
            if (b->text && b->text[row[i]]) {
                out->text += r->xent;
                out->text_rows++;
            } else {
                out->lm[cond] += r->xent;
                out->rows[cond]++;
            }
            out->total += r->xent * weight * (teacher >= 0 ? (double)tm->opt.lm : 1.0);
        }
        if (teacher >= 0 && tm->teacher) {
            out->distill += r->div;
            out->distilled++;
            out->total += r->div * weight * (double)tm->opt.distill;
        }
    }
}

/* Rows row[0..n) through the head: losses, and with `train` the gradients of head, final norm and dx. */
static void head_chunk(train_model *tm, const train_batch *b, const int *row, int n, float scale, bool train,
                       train_loss *loss) {
    const llama_model *m = &tm->model;
    size_t C = (size_t)m->cfg.C, bytes = C * sizeof(float);
    int V = m->cfg.V;
    bool teacher = false;
    for (int i = 0; i < n; i++) {
        int t = row[i];
        bool taught = b->teacher[t] >= 0 && tm->teacher;
        float w = b->weight[t] * scale;
        teacher = teacher || taught;
        tm->loss_row[i] = (op_loss_row){ .label = b->label[t],
                                         .lm = b->teacher[t] >= 0 ? w * tm->opt.lm : w,
                                         .kl = taught ? w * tm->opt.distill : 0 };
    }
    if (teacher) {
        for (int i = 0; i < n; i++) /* rows without a teacher compute their own logits, which nothing reads */
            memcpy(tm->xh + (size_t)i * C, last_of(tm, b->teacher[row[i]] >= 0 ? b->teacher[row[i]] : row[i]), bytes);
        head_logits(tm, tm->teacher, n);
    }
    for (int i = 0; i < n; i++) memcpy(tm->xh + (size_t)i * C, last_of(tm, row[i]), bytes);
    head_logits(tm, tm->logits, n);
    op_loss(&tm->ctx, train ? tm->logits : NULL, tm->logits, teacher ? tm->teacher : NULL, tm->loss_row, n, V);
    add_loss(loss, b, tm, row, n);
    if (!train) return;

    llama_acts_bwd s = tm->s;
    s.operand_t = tm->s.operand_head;
    s.operand = tm->s.operand_head; /* dx's operand is consumed before the transposed one is made */
    llama_pack_input(&tm->ctx, &s, &tm->bwd.head, tm->nh, n);
    memset(tm->dxh, 0, (size_t)n * bytes);
    llama_matrix_grad(&tm->ctx, tm->nh, false, &tm->bwd.head, &s, tm->logits, n); /* nh becomes its own gradient */
    if (m->cfg.scaled_head) op_scale(&tm->ctx, tm->nh, head_scale(&m->cfg), n, m->cfg.C);
    op_rmsnorm_bwd(&tm->ctx, tm->dxh, tm->bwd.final_norm, tm->nh, tm->xh, m->final_norm, tm->s.rms, n, m->cfg.C,
                   m->cfg.eps);
    for (int i = 0; i < n; i++) memcpy(tm->dx + (size_t)tm->place[row[i]] * C, tm->dxh + (size_t)i * C, bytes);
}

static void head(train_model *tm, const train_batch *b, float scale, bool train, train_loss *loss) {
    int n = 0;
    for (int t = 0; t < b->T; t++)
        if (through_head(b, t)) tm->head_row[n++] = t;
    if (train) memset(tm->dx, 0, (size_t)b->T * (size_t)tm->model.cfg.C * sizeof *tm->dx);
    for (int i = 0; i < n; i += TRAIN_HEAD_ROWS)
        head_chunk(tm, b, tm->head_row + i, n - i < TRAIN_HEAD_ROWS ? n - i : TRAIN_HEAD_ROWS, scale, train, loss);
    loss->finite = loss->total - loss->total == 0;
}

/* ---- a step ---- */

static gist_status check_ids(const train_model *tm, const int32_t *ids, const int32_t *pos, int T, const char *what,
                             gist_error *err) {
    const llama_config *c = &tm->model.cfg;
    if (T > tm->opt.max_rows)
        return err_set(err, GIST_ERR_LIMIT, "the %s has %d rows, the model was made for %d", what, T, tm->opt.max_rows);
    for (int t = 0; t < T; t++) {
        if (ids[t] < 0 || ids[t] >= c->V)
            return err_set(err, GIST_ERR_USAGE, "row %d of the %s holds token %d, the vocabulary has %d", t, what,
                           ids[t], c->V);
        if (c->encoder && pos[t] >= c->context)
            return err_set(err, GIST_ERR_LIMIT, "row %d of the %s is at position %d, the model's context is %d", t,
                           what, pos[t], c->context);
    }
    return GIST_OK;
}

static gist_status check(const train_model *tm, const train_batch *b, gist_error *err) {
    if (b->T < 1) return err_set(err, GIST_ERR_USAGE, "the batch has no rows");
    TRY(check_ids(tm, b->ids, b->pos, b->T, "batch", err));
    TRY(check_ids(tm, b->source.ids, b->source.pos, b->source.T, "batch's sources", err));
    if (tm->model.cfg.encoder && b->source.T < 1)
        return err_set(err, GIST_ERR_USAGE, "the batch has no sources for the encoder");
    for (int t = 0; t < b->T; t++)
        if (b->label[t] >= tm->model.cfg.V)
            return err_set(err, GIST_ERR_USAGE, "row %d has label %d, the vocabulary has %d", t, b->label[t],
                           tm->model.cfg.V);
    int window = tm->model.cfg.window; /* packed rows see all that they may: the same as long as nothing slides out */
    for (int t = 0; window && t < b->T; t++)
        if (b->pos[t] >= window)
            return err_set(err, GIST_ERR_UNSUPPORTED,
                           "row %d is at position %d: training beyond the model's sliding window of %d is not "
                           "supported",
                           t, b->pos[t], window);
    return GIST_OK;
}

gist_status train_model_eval(train_model *tm, const train_batch *b, train_loss *loss, gist_error *err) {
    TRY(check(tm, b, err));
    llama_batch rows = batch_of(tm, b);
    *loss = (train_loss){ 0 };
    forward(tm, b, &rows);
    head(tm, b, 1, false, loss);
    return GIST_OK;
}

gist_status train_model_step(train_model *tm, const train_batch *b, float scale, train_loss *loss, gist_error *err) {
    TRY(check(tm, b, err));
    const llama_model *m = &tm->model;
    llama_batch rows = batch_of(tm, b);
    *loss = (train_loss){ 0 };
    forward(tm, b, &rows);
    head(tm, b, scale, true, loss);
    if (m->cfg.encoder) {
        train_t5_backward(tm, b);
        return GIST_OK;
    }
    if (b->grad_rows) rows.T = b->grad_rows;
    while (rows.n_wanted && rows.wanted[rows.n_wanted - 1] >= rows.T) rows.n_wanted--;
    llama_batch all = llama_all(&rows);
    for (int l = m->cfg.L - 1; l >= 0; l--) {
        llama_acts a = tm->acts[l];
        const llama_batch *seen = l < m->cfg.L - 1 ? &all : &rows;
        train_memory_select(tm, l);
        if (tm->opt.recompute) {
            a.y = tm->s.dn; /* the output is known already; it must not land on a kept input */
            llama_block_fwd(m, &tm->ctx, &a, &m->layers[l], &tm->kv[l * tm->stores], seen);
        }
        llama_block_bwd(m, &tm->ctx, tm->dx, &tm->bwd.layers[l], &tm->s, &a, &m->layers[l], seen);
    }
    if (tm->bwd.embed) op_embed_bwd(&tm->ctx, tm->bwd.embed, tm->dx, b->ids, rows.T, m->cfg.C);
    if (tm->bwd.gist_embed) op_rows_sum(&tm->ctx, tm->bwd.gist_embed, tm->dx, rows.gist, rows.gists, m->cfg.C);
    return GIST_OK;
}

static int keys_of(const op_row *r) {
    return r->hi - r->lo + (r->mem >= 0 ? r->mhi - r->mlo : 0);
}

double train_model_flops(const train_model *tm, const train_batch *b) {
    const llama_config *c = &tm->model.cfg;
    double HD = (double)c->H * c->D, keys = 2.0 * c->C * c->G * c->D, rest = c->C * (2 * HD + 3.0 * c->F);
    double products = train_model_frozen(tm) ? 4 : 6; /* a frozen matrix has no gradient of its own */
    double heads = 0, wanted = 0, visible = 0;        /* wanted, and keys visible: over all blocks' rows behind keys */
    for (int t = 0; t < b->T; t++) {
        int teacher = b->teacher[t], blocks = through_head(b, t) ? c->L : c->L - 1;
        heads += through_head(b, t);
        wanted += blocks;
        visible += (double)blocks * keys_of(&b->rows[t]);
        if (teacher < 0 || through_head(b, teacher)) continue;
        wanted++; /* the teacher's last block */
        visible += keys_of(&b->rows[teacher]);
    }
    double head = products * c->V * c->C * heads;
    if (c->encoder) return train_t5_flops(tm, b) + head;
    return products * (c->L * keys * b->T + rest * wanted) + head + 12.0 * HD * visible;
}
