/* train_tune.c - learning the gist of one prompt by gradient descent.
 *
 *      rows    | pair a | pair b | ...        see the memory (k rows of store 1), then themselves
 *              | prompt | pair a | pair b |   with distill, behind them: the teacher's copies under the full prompt
 *
 * The loss is the answers' cross-entropy, or KL(model under the full prompt || model behind the memory) at the rows
 * that predict an answer (context distillation).  Gradients reach the first rows only: the model is frozen, so nothing
 * behind them has any.  A pair's positions go on at p + k, as behind a gist.
 */
#include "train/train.h"

#include <math.h>
#include <stdlib.h>

typedef struct tuner {
    train_model *tm;
    const train_tune_options *o;
    const gist_allocator *alloc;
    train_pack_options pack;
    train_batch b;
    train_condition *c; /* [batch] */
    int *k;             /* [batch] */
    int *order;         /* [pairs] of this epoch */
    uint64_t epoch;
    int at;      /* next of order */
    float *best; /* [train_model_count] rows to keep */
    gist_error *err;
} tuner;

static gist_status check(const train_set *set, const train_tune_options *o, gist_error *err) {
    if (set->prompts != 1)
        return err_set(err, GIST_ERR_USAGE, "a gist is tuned for one prompt, the pairs have %d", set->prompts);
    if (o->k < 1 || o->batch < 1 || o->steps < 1)
        return err_set(err, GIST_ERR_USAGE, "tuning needs rows, pairs in a batch, and steps");
    return GIST_OK;
}

/* ---- batches ---- */

static int longest_first(const void *a, const void *b) {
    int x = *(const int *)a, y = *(const int *)b;
    return (x < y) - (x > y);
}

/* Rows of the `batch` longest pairs, in all their copies. */
static gist_status most_rows(const train_set *set, const train_tune_options *o, int *rows, gist_error *err) {
    int *len = mem_alloc(set->alloc, (size_t)set->pairs, sizeof *len);
    int64_t sum = 0, most = 0;
    if (!len) return err_memory(err, "pairs");
    for (int i = 0; i < set->pairs; i++) len[i] = set->pair[i].input_len + set->pair[i].answer_len - 1;
    qsort(len, (size_t)set->pairs, sizeof *len, longest_first);
    for (int i = 0; i < set->pairs && i < o->batch; i++) sum += len[i];
    mem_free(set->alloc, len);
    most = sum * (o->distill ? 2 : 1) + set->prompt[0].len; /* without distill: the prompt's loss is measured, too */
    if (o->encoder) most += (int64_t)o->batch * (set->prompt[0].len + 1); /* each pair under the full prompt reads it */
    if (most > 1 << 24)
        return err_set(err, GIST_ERR_LIMIT, "a batch of %lld tokens: fewer pairs per step", (long long)most);
    if ((int)most > *rows) *rows = (int)most;
    return GIST_OK;
}

gist_status train_tune_rows(const train_set *set, const train_set *held, const train_tune_options *opt, int *rows,
                            gist_error *err) {
    int most = 0;
    TRY(check(set, opt, err));
    TRY(most_rows(set, opt, &most, err));
    if (held) TRY(most_rows(held, opt, &most, err));
    *rows = most;
    return GIST_OK;
}

static gist_status add_copies(tuner *u, const train_set *set, const int *pairs, int n, train_condition c) {
    for (int i = 0; i < n; i++) {
        u->c[i] = c;
        u->k[i] = u->o->k;
    }
    return train_pack_group(&u->b, set, 0, pairs, u->c, u->k, n, &u->pack, u->err);
}

static void see_memory(op_row *row, int k) {
    row->mem = 1;
    row->mlo = 0;
    row->mhi = k;
}

/* Pairs behind the memory; with distill the same behind the prompt, row for row their teachers. */
static gist_status pack(tuner *u, const train_set *set, const int *pairs, int n) {
    train_batch *b = &u->b;
    train_batch_reset(b);
    TRY(add_copies(u, set, pairs, n, COND_NONE));
    int students = b->T;
    op_row *rows = u->o->encoder ? b->cross : b->rows;
    for (int t = 0; t < students; t++) {
        see_memory(&rows[t], u->o->k);
        b->condition[t] = COND_GIST;
    }
    for (int t = 0; t < b->source.T; t++) { /* the memory's rows stand in front, at distances of their own */
        see_memory(&b->source.rows[t], u->o->k);
        b->source.rows[t].pos += u->o->k;
        b->source.pos[t] += u->o->k;
    }
    if (u->o->distill) {
        TRY(add_copies(u, set, pairs, n, COND_FULL));
        int first = b->T - students;
        for (int t = 0; t < students; t++) {
            if (b->label[t] < 0) continue;
            b->teacher[t] = first + t;
            b->weight_sum -= (double)b->weight[first + t];
            b->weight[first + t] = 0;
            b->label[first + t] = -1;
            b->label_rows--;
        }
    }
    b->grad_rows = students;
    train_batch_finish(b);
    return GIST_OK;
}

/* The order of an epoch depends on seed and epoch alone. */
static void begin_epoch(tuner *u, int n) {
    rng r;
    rng_seed(&r, u->o->seed * 0x9e3779b97f4a7c15u + u->epoch++);
    u->at = 0;
    for (int i = 0; i < n; i++) u->order[i] = i;
    for (int i = n - 1; i > 0; i--) {
        int j = (int)rng_below(&r, (uint64_t)i + 1), held = u->order[i];
        u->order[i] = u->order[j];
        u->order[j] = held;
    }
}

static gist_status next_batch(tuner *u, const train_set *set) {
    if (u->epoch == 0 || u->at == set->pairs) begin_epoch(u, set->pairs);
    int n = set->pairs - u->at < u->o->batch ? set->pairs - u->at : u->o->batch;
    u->at += n;
    return pack(u, set, u->order + u->at - n, n);
}

/* ---- held-out loss ---- */

/* Mean over all label rows; full: of the answers under the full prompt instead. */
static gist_status evaluate(tuner *u, const train_set *set, bool full, double *loss) {
    double sum = 0;
    int64_t rows = 0;
    int *pairs = mem_alloc(u->alloc, (size_t)u->o->batch, sizeof *pairs);
    gist_status status = pairs ? GIST_OK : err_memory(u->err, "pairs");
    for (int i = 0; status == GIST_OK && i < set->pairs;) {
        int n = 0;
        train_loss l;
        while (n < u->o->batch && i < set->pairs) pairs[n++] = i++;
        if (full) {
            train_batch_reset(&u->b);
            status = add_copies(u, set, pairs, n, COND_FULL);
            train_batch_finish(&u->b);
        } else {
            status = pack(u, set, pairs, n);
        }
        if (status == GIST_OK) status = train_model_eval(u->tm, &u->b, &l, u->err);
        if (status != GIST_OK) break;
        train_condition c = full ? COND_FULL : COND_GIST;
        bool distill = u->o->distill && !full;
        sum += distill ? l.distill : l.lm[c];
        rows += distill ? l.distilled : l.rows[c];
    }
    mem_free(u->alloc, pairs);
    if (status == GIST_OK) *loss = rows ? sum / (double)rows : 0;
    return status;
}

/* ---- the run ---- */

static double mean_loss(const train_loss *l, bool distill) {
    int rows = distill ? l->distilled : l->rows[COND_GIST];
    return rows ? (distill ? l->distill : l->lm[COND_GIST]) / rows : 0;
}

static gist_status one_step(tuner *u, const train_set *set, int64_t step, const train_tune_events *ev, double start,
                            train_tune_result *r) {
    const train_tune_options *o = u->o;
    train_loss loss;
    optimiser a = o->optimiser;
    double began = time_now();
    TRY(next_batch(u, set));
    train_model_zero_grad(u->tm);
    TRY(train_model_step(u->tm, &u->b, 1, &loss, u->err));
    if (!loss.finite)
        return err_set(u->err, GIST_ERR_LIMIT, "step %lld: the loss is not finite; a lower learning rate may help",
                       (long long)step);
    a.lr = train_schedule(o->schedule, a.lr, step, o->steps, o->warmup, o->floor);
    train_tune_report report = { .step = step,
                                 .steps = o->steps,
                                 .loss = mean_loss(&loss, o->distill),
                                 .lr = a.lr,
                                 .grad_norm = train_model_grad_norm(u->tm) };
    train_model_update(u->tm, &a, step);
    double now = time_now();
    report.seconds_left = (now - start) / (double)step * (double)(o->steps - step);
    report.tokens_per_second = now > began ? train_batch_rows(&u->b) / (now - began) : 0;
    if (step == 1) r->first = report.loss;
    r->last = report.loss;
    r->steps = step;
    r->tokens += train_batch_rows(&u->b);
    if (ev->step) ev->step(ev->ctx, &report);
    return GIST_OK;
}

/* Keep the rows when they are the best so far. */
static gist_status judge(tuner *u, const train_set *held, int64_t step, const train_tune_events *ev,
                         train_tune_result *r) {
    double loss;
    TRY(evaluate(u, held, false, &loss));
    bool best = step == 0 || loss < r->after;
    if (step == 0) r->before = loss;
    if (best) {
        r->after = loss;
        r->best_step = step;
        memcpy(u->best, train_model_w(u->tm), train_model_count(u->tm) * sizeof *u->best);
    }
    if (ev->evaluated) ev->evaluated(ev->ctx, step, loss, best);
    return GIST_OK;
}

static gist_status run(tuner *u, const train_set *set, const train_set *held, const train_tune_events *ev,
                       train_tune_result *r) {
    const train_tune_options *o = u->o;
    double start = time_now();
    if (held && !o->distill) TRY(evaluate(u, held, true, &r->full));
    if (held) TRY(judge(u, held, 0, ev, r));
    for (int64_t step = 1; step <= o->steps && !r->stopped; step++) {
        TRY(one_step(u, set, step, ev, start, r));
        r->stopped = ev->stop && ev->stop(ev->ctx);
        bool last = step == o->steps || r->stopped;
        if (held && (last || (o->eval_every && step % o->eval_every == 0))) TRY(judge(u, held, step, ev, r));
    }
    if (!held) {
        r->best_step = r->steps;
        return GIST_OK;
    }
    memcpy(train_model_w(u->tm), u->best, train_model_count(u->tm) * sizeof *u->best);
    train_model_repack(u->tm);
    return GIST_OK;
}

gist_status train_tune_run(train_model *tm, const train_set *set, const train_set *held, const train_tune_options *opt,
                           const train_tune_events *events, train_tune_result *result, gist_error *err) {
    static const train_tune_events silent = { 0 };
    const gist_allocator *alloc = set->alloc;
    TRY(check(set, opt, err));
    if (held) TRY(check(held, opt, err));
    tuner u = { .tm = tm,
                .o = opt,
                .alloc = alloc,
                .err = err,
                .pack = { .k = { opt->k },
                          .k_count = 1,
                          .encoder = opt->encoder,
                          .start = opt->start,
                          .pairs_per_prompt = opt->batch,
                          .batch_pairs = opt->batch } };
    train_tune_result r = { .before = NAN, .after = NAN, .full = NAN };
    train_batch_init(&u.b, alloc);
    u.c = mem_alloc(alloc, (size_t)opt->batch, sizeof *u.c);
    u.k = mem_alloc(alloc, (size_t)opt->batch, sizeof *u.k);
    u.order = mem_alloc(alloc, (size_t)set->pairs, sizeof *u.order);
    u.best = mem_alloc(alloc, train_model_count(tm), sizeof *u.best);
    gist_status status =
        u.c && u.k && u.order && u.best ? run(&u, set, held, events ? events : &silent, &r) : err_memory(err, "tuning");
    mem_free(alloc, u.c);
    mem_free(alloc, u.k);
    mem_free(alloc, u.order);
    mem_free(alloc, u.best);
    train_batch_free(&u.b);
    if (status == GIST_OK) *result = r;
    return status;
}
