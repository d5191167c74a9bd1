/* train_eval.c - validation: the mean loss of label tokens of a split, under each condition the model is trained for.
 *
 *   views   gist with each k (named gist, or gist.k1, gist.k4, ... of several); the others with the largest k: what
 *           generated answers are looked at under, too
 *   batch   prompts in order, each with as many of its pairs as fit, until the model's rows are full
 *
 * Sums are taken batch by batch in double, so the result depends on max_rows only through rounding.
 */
#include "train/train.h"

enum { MOST_PAIRS = 64 };

int train_views(const train_pack_options *o, train_view view[TRAIN_MAX_VIEWS]) {
    int n = 0;
    for (int c = 0; c < COND_COUNT; c++) {
        if (!(o->mix[c] > 0)) continue;
        const char *name = train_condition_name((train_condition)c);
        int ks = c == COND_GIST ? o->k_count : 1;
        for (int i = 0; i < ks; i++) {
            bool again = false; /* a k given twice is only drawn more often */
            for (int j = 0; j < i; j++) again = again || o->k[j] == o->k[i];
            if (again) continue;
            train_view *v = &view[n++];
            *v = (train_view){ .c = (train_condition)c, .k = c == COND_GIST ? o->k[i] : train_pack_largest_k(o) };
            if (ks > 1)
                snprintf(v->name, sizeof v->name, "%s.k%d", name, v->k);
            else
                snprintf(v->name, sizeof v->name, "%s", name);
        }
    }
    return n;
}

typedef struct eval_sum {
    double loss;
    int64_t rows;
} eval_sum;

typedef struct eval_run {
    train_model *tm;
    const train_run_options *opt;
    const train_events *events;
    const train_set *set;
    train_pack_options pack;
    train_batch b;
    const train_view *view;
    eval_sum sum;
    bool stopped;
    gist_error *err;
} eval_run;

static gist_status run_batch(eval_run *e) {
    train_loss loss;
    if (e->b.T == 0) return GIST_OK;
    train_batch_finish(&e->b);
    TRY(train_model_eval(e->tm, &e->b, &loss, e->err));
    e->sum.loss += loss.lm[e->view->c];
    e->sum.rows += loss.rows[e->view->c];
    train_batch_reset(&e->b);
    e->stopped = e->events->stop && e->events->stop(e->events->ctx);
    return GIST_OK;
}

/* Pairs [first, first+n) of a prompt, in a batch of their own when the present one has no room for them. */
static gist_status add_pairs(eval_run *e, int prompt, int first, int n) {
    int pairs[MOST_PAIRS], k[MOST_PAIRS];
    train_condition c[MOST_PAIRS];
    for (int i = 0; i < n; i++) {
        pairs[i] = first + i;
        k[i] = e->view->k;
        c[i] = e->view->c;
    }
    int64_t rows = train_pack_rows(e->set, prompt, pairs, c, k, n, &e->pack);
    if (rows > e->opt->max_rows && n > 1) {
        TRY(add_pairs(e, prompt, first, n / 2));
        return add_pairs(e, prompt, first + n / 2, n - n / 2);
    }
    if (train_batch_rows(&e->b) + rows > e->opt->max_rows) TRY(run_batch(e));
    return train_pack_group(&e->b, e->set, prompt, pairs, c, k, n, &e->pack, e->err);
}

static gist_status run_split(eval_run *e) {
    for (int p = 0; p < e->set->prompts && !e->stopped; p++) {
        const train_prompt *pr = &e->set->prompt[p];
        for (int i = 0; i < pr->pairs && !e->stopped; i += MOST_PAIRS)
            TRY(add_pairs(e, p, pr->first_pair + i, pr->pairs - i < MOST_PAIRS ? pr->pairs - i : MOST_PAIRS));
    }
    return e->stopped ? GIST_OK : run_batch(e);
}

gist_status train_evaluate(train_model *tm, const train_run_options *opt, const train_events *events,
                           train_metric *metrics, int *n, bool *stopped, gist_error *err) {
    static const train_events silent = { 0 };
    train_view view[TRAIN_MAX_VIEWS];
    eval_run e = { .tm = tm, .opt = opt, .events = events ? events : &silent, .pack = opt->pack, .err = err };
    int views = train_views(&opt->pack, view), made = 0;
    gist_status status = GIST_OK;
    e.pack.teacher = false;
    e.pack.input_loss = e.pack.prompt_loss = 0;
    if (views * opt->splits > TRAIN_MAX_METRICS)
        return err_set(err, GIST_ERR_LIMIT, "%d splits under %d conditions and k: more than %d metrics", opt->splits,
                       views, TRAIN_MAX_METRICS);
    for (int s = 0; s < opt->splits && status == GIST_OK && !e.stopped; s++) {
        e.set = opt->split[s].set;
        train_batch_init(&e.b, e.set->alloc);
        for (int v = 0; v < views && status == GIST_OK && !e.stopped; v++) {
            e.view = &view[v];
            e.sum = (eval_sum){ 0 };
            status = run_split(&e);
            train_metric *m = &metrics[made++];
            *m = (train_metric){ .value = e.sum.rows ? e.sum.loss / (double)e.sum.rows : 0 };
            snprintf(m->name, sizeof m->name, "%.40s/%s", opt->split[s].name, view[v].name);
        }
        train_batch_free(&e.b);
    }
    *n = made;
    *stopped = e.stopped;
    return status;
}
