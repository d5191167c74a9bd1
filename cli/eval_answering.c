/* eval_answering.c - gist eval's models at work: each answers every split under the conditions that are its.
 *
 *   model --fit--> splits --each condition--> answers --> predictions on disk --> scores
 */
#include "eval_job.h"

/* ---- one condition ---- */

static bool show(void *ctx, int done, int all) {
    const job *j = ctx;
    if (!j->a->quiet) progress("%s: %d of %d", j->label, done, all);
    return false;
}

static gist_status score_column(const job *j, const eval_split *s, report_column *c) {
    gist_error why = { 0 };
    eval_pair *pair = mem_alloc(NULL, (size_t)s->n, sizeof *pair);
    c->rows = mem_alloc(NULL, (size_t)s->n, sizeof *c->rows);
    gist_status status = pair && c->rows ? GIST_OK : err_memory(j->err, "scores");
    for (int i = 0; status == GIST_OK && i < s->n; i++) {
        const eval_example *e = &s->example[i];
        pair[i] = (eval_pair){ .prediction = eval_strip(c->given[i].text, c->given[i].len),
                               .reference = eval_strip(e->reference.p, e->reference.len),
                               .line = e->line };
        c->tokens += (double)c->given[i].tokens / s->n;
        if (c->view.c == COND_GIST && !c->view.other) c->factor += (double)e->prompt_tokens / c->view.k / s->n;
    }
    eval_pairs pairs = { .alloc = mem_default(), .pair = pair, .n = s->n };
    if (status == GIST_OK && eval_score_pairs(&pairs, j->pool, c->rows, &why) != GIST_OK)
        status = err_set(j->err, why.code, "%s: %s", s->path, why.msg);
    mem_free(NULL, pair);
    return status;
}

static gist_status differ(const job *j, const eval_split *s, const report_column *c, const eval_given *live) {
    for (int i = 0; i < s->n; i++) {
        const eval_given *a = &c->given[i], *b = &live[i];
        if (a->len == b->len && a->tokens == b->tokens && memcmp(a->text, b->text, a->len) == 0) continue;
        return err_set(j->err, GIST_ERR_MISMATCH,
                       "%s:%d: %s: the gist answers \"%.80s\", prompt and gist tokens under the mask \"%.80s\"",
                       s->path, s->example[i].line, c->view.name, a->text, b->text);
    }
    return GIST_OK;
}

static gist_status cached_check(job *j, gist_engine *e, const eval_split *s, const report_column *c,
                                eval_run_options o) {
    eval_given *live = mem_calloc(NULL, (size_t)s->n, sizeof *live);
    if (!live) return err_memory(j->err, "answers");
    o.live = true;
    snprintf(j->label, sizeof j->label, "%.40s, %s uncached", s->name, c->view.name);
    gist_status status = eval_run(e, s, &c->view, &o, live, j->err);
    if (status == GIST_OK) status = differ(j, s, c, live);
    eval_given_free(live, s->n, NULL);
    return status;
}

static gist_status run_view(job *j, gist_engine *e, report_split *s, report_column *c) {
    const eval_args *a = j->a;
    eval_run_options o = { .gists = j->K, .max_length = j->r.max_length, .max_tokens = a->answer_tokens,
                           .batch = a->batch, .tfidf = j->tfidf, .journal = j->journal, .seed = a->seed,
                           .kv = (gist_type)a->kv, .ctx = j, .stop = show };
    c->given = mem_calloc(NULL, (size_t)s->rows.n, sizeof *c->given);
    if (!c->given) return err_memory(j->err, "answers");
    snprintf(j->label, sizeof j->label, "%.40s, %s", s->rows.name, c->view.name);
    TRY(eval_run(e, &s->rows, &c->view, &o, c->given, j->err));
    TRY(eval_write_predictions(j, s, c));
    if (a->check && c->view.c == COND_GIST) TRY(cached_check(j, e, &s->rows, c, o));
    return score_column(j, &s->rows, c);
}

/* ---- TF-IDF: each different instruction is one document ---- */

static gist_status count_words(const eval_split *s, eval_tfidf *t, gist_error *err) {
    for (int i = 0; i < s->n; i++) {
        const eval_example *e = &s->example[s->order[i]];
        if (i == 0 || s->example[s->order[i - 1]].prompt != e->prompt) TRY(eval_tfidf_add(t, e->instruction, err));
    }
    return GIST_OK;
}

static gist_status read_documents(const job *j, const eval_split *s, eval_tfidf **out) {
    eval_split corpus = { .alloc = mem_default() };
    TRY(eval_tfidf_create(mem_default(), out, j->err));
    if (!j->a->corpus) return count_words(s, *out, j->err);
    gist_status status = eval_split_open(&corpus, "corpus", j->a->corpus, 0, mem_default(), j->err);
    if (status == GIST_OK) status = count_words(&corpus, *out, j->err);
    eval_split_close(&corpus);
    return status;
}

static bool is_reduced(const eval_view *v) {
    return v->words || v->budget;
}

/* ---- models ---- */

static int model_of(const job *j, const eval_view *v) {
    if (j->a->pos.n && (v->c == COND_POS_CONTROL || is_reduced(v))) return MODEL_POS;
    return j->a->neg.n && v->c == COND_NEG_CONTROL ? MODEL_NEG : MODEL_GIST;
}

/* The first model fits the splits; the others must read them alike. */
static gist_status check_model(job *j, gist_engine *e, const char *path, bool first) {
    gist_engine_info info;
    gist_engine_get_info(e, &info);
    int most = j->a->max_length ? j->a->max_length : info.context < 512 ? info.context : 512;
    if (!first) {
        if (strcmp(j->family, info.family) != 0)
            return err_set(j->err, GIST_ERR_MISMATCH, "%s: a model of the family %s, but %s is of %s", path,
                           info.family, j->a->model.path, j->family);
        if (strcmp(j->tokenizer, info.tokenizer_fingerprint) != 0)
            return err_set(j->err, GIST_ERR_MISMATCH, "%s: its tokenizer is not that of %s", path, j->a->model.path);
        if (info.context >= j->r.max_length) return GIST_OK;
        most = j->r.max_length;
    }
    if (most > info.context)
        return err_set(j->err, GIST_ERR_USAGE, "%s: its context is %d tokens, --max-tokens %d", path, info.context,
                       most);
    snprintf(j->family, sizeof j->family, "%s", info.family);
    snprintf(j->tokenizer, sizeof j->tokenizer, "%s", info.tokenizer_fingerprint);
    j->r.max_length = most;
    j->r.kernels = gist_kernels_name(info.kernels);
    j->r.kv = gist_type_name(j->a->kv ? (gist_type)j->a->kv : GIST_TYPE_BF16);
    for (int i = 0; i < j->r.splits; i++)
        TRY(eval_split_fit(&j->r.split[i].rows, engine_tokenizer(e), tok_template_find(info.template_name), j->K, most,
                           j->err));
    return GIST_OK;
}

static gist_status run_split(job *j, gist_engine *e, int model, report_split *s) {
    eval_tfidf *words = NULL;
    gist_status status = GIST_OK;
    for (int v = 0; v < j->views && status == GIST_OK; v++) {
        if (model_of(j, &j->view[v]) != model) continue;
        s->column[v].view = j->view[v];
        if (is_reduced(&j->view[v]) && !words) status = read_documents(j, &s->rows, &words);
        j->tfidf = words;
        if (status == GIST_OK) status = run_view(j, e, s, &s->column[v]);
    }
    eval_tfidf_free(words);
    return status;
}

static const char *control_of(const option_list *controls, int seed) {
    return controls->item[controls->n > 1 ? seed : 0];
}

gist_status eval_answer_model(job *j, int model) {
    model_args m = j->a->model;
    gist_engine *e = NULL;
    bool needed = model == MODEL_GIST;
    for (int v = 0; v < j->views; v++) needed = needed || model_of(j, &j->view[v]) == model;
    if (!needed) return GIST_OK;
    if (j->model) m.path = j->a->also.item[j->model - 1];
    if (model != MODEL_GIST) m.path = control_of(model == MODEL_POS ? &j->a->pos : &j->a->neg, j->model);
    if (j->model || model != MODEL_GIST) m.adapter = NULL;
    TRY(open_engine(&m, j->a->quiet, &e, NULL, j->err));
    gist_status status = check_model(j, e, m.path, model == MODEL_GIST && !j->model);
    for (int i = 0; i < j->r.splits && status == GIST_OK; i++) status = run_split(j, e, model, &j->r.split[i]);
    gist_engine_close(e);
    return status;
}
