/* eval_run.c - greedy answers to a split under one view, many sessions at a time.
 *
 *   prompt --once--> gist, or a session that holds it ("front") --attach | fork--> a session per example
 *                                                                    --gist_generate_batch--> answers
 *
 * Examples of a prompt lie side by side (eval_split.order), so a front serves all of them that fall into a batch and is
 * carried into the next one.  What stands in front and where the input begins is eval_answers.c's table; `live` puts
 * prompt and gist tokens into one timeline under the mask instead, which must give the same answers.
 */
#include "eval/eval.h"

typedef struct front {
    gist *g;
    gist_session *s;
    int prompt; /* -1: none */
} front;

typedef struct runner {
    gist_engine *e;
    const eval_split *split;
    const eval_view *v;
    const eval_run_options *o;
    const gist_allocator *alloc;
    int32_t gist_token;
    front *fronts;                  /* [batch + 1] */
    int n;                          /* of them in use */
    gist_session **session;         /* [batch] */
    gist_request *request;          /* [batch] */
    gist_generate_options *options; /* [batch] */
    sbuf text;
    gist_error *err;
} runner;

static gist_status failed(const runner *r, const eval_example *e, const gist_error *why) {
    return err_set(r->err, why->code, "%s:%d: %.300s", r->split->path, e->line, why->msg);
}

/* ---- what stands in front ---- */

static gist_status feed_prompt(runner *r, front *f, const eval_example *e, gist_error *err) {
    eval_text t = e->instruction;
    if (r->v->words > 0) {
        r->text.len = 0;
        TRY(eval_tfidf_keep(r->o->tfidf, t, r->v->words, &r->text, err));
        t = (eval_text){ r->text.p, r->text.len };
    }
    TRY(gist_session_open(r->e, NULL, &f->s, err));
    TRY(gist_session_prompt(f->s, t.p, t.len, err));
    for (int i = 0; i < (r->v->c == COND_FULL ? 0 : r->v->k); i++)
        TRY(gist_session_feed(f->s, &r->gist_token, 1, NULL, err));
    if (r->v->c == COND_GIST) session_hide_before(f->s, e->prompt_tokens);
    return GIST_OK;
}

static gist_status make_front(runner *r, front *f, const eval_example *e, gist_error *err) {
    *f = (front){ .prompt = e->prompt };
    if (r->v->c == COND_NONE || r->v->c == COND_NEG_CONTROL) return GIST_OK;
    if (r->v->c != COND_GIST || r->o->live) return feed_prompt(r, f, e, err);
    gist_compress_options o = GIST_COMPRESS_OPTIONS_INIT;
    o.k = r->v->k;
    return gist_compress(r->e, e->instruction.p, e->instruction.len, &o, &f->g, err);
}

static void free_front(front *f) {
    gist_session_close(f->s);
    gist_free(f->g);
    *f = (front){ .prompt = -1 };
}

static gist_status open_session(runner *r, const front *f, const eval_example *e, gist_session **s, gist_error *err) {
    if (f->s) return gist_session_fork(f->s, s, err);
    TRY(gist_session_open(r->e, NULL, s, err));
    if (f->g) return gist_session_attach(*s, f->g, err);
    if (engine_model(r->e)->cfg.encoder) return GIST_OK; /* positions are relative: nothing in front leaves no trace */
    return gist_session_set_position(*s, e->prompt_tokens + (r->v->c == COND_NONE ? r->o->gists : r->v->k), err);
}

/* ---- a batch ---- */

static gist_status begin(runner *r, int i, const eval_example *e) {
    gist_error why = { 0 };
    gist_status status = GIST_OK;
    if (r->n == 0 || r->fronts[r->n - 1].prompt != e->prompt) status = make_front(r, &r->fronts[r->n++], e, &why);
    if (status == GIST_OK) status = open_session(r, &r->fronts[r->n - 1], e, &r->session[i], &why);
    if (status != GIST_OK) return failed(r, e, &why);
    int room = r->o->max_length - e->prompt_tokens - r->o->gists - e->input_tokens;
    r->options[i] = (gist_generate_options)GIST_GENERATE_OPTIONS_INIT;
    r->options[i].max_tokens = r->o->max_tokens > 0 && r->o->max_tokens < room ? r->o->max_tokens : room;
    r->request[i] = (gist_request){
        .session = r->session[i], .input = e->input.p, .len = e->input.len, .options = &r->options[i]
    };
    return GIST_OK;
}

static gist_status keep(runner *r, const gist_answer *a, eval_given *g) {
    g->text = mem_strndup(r->alloc, a->text, a->text_len);
    g->len = a->text_len;
    g->tokens = a->n;
    g->finish = a->finish;
    return g->text ? GIST_OK : err_memory(r->err, "answers");
}

/* order[0..n): the examples. */
static gist_status answer(runner *r, const int *order, int n, eval_given *given) {
    gist_status status = GIST_OK;
    for (int i = 0; i < n && status == GIST_OK; i++) status = begin(r, i, &r->split->example[order[i]]);
    if (status == GIST_OK) {
        status = gist_generate_batch(r->request, (size_t)n, r->err);
        for (int i = 0; i < n && r->request[i].session; i++) {
            gist_request *q = &r->request[i];
            if (status == GIST_OK)
                status = q->status == GIST_OK ? keep(r, &q->answer, &given[order[i]])
                                              : failed(r, &r->split->example[order[i]], &q->error);
            gist_answer_free(q->session, &q->answer);
        }
    }
    for (int i = 0; i < n; i++) {
        gist_session_close(r->session[i]);
        r->session[i] = NULL;
    }
    return status;
}

/* Keep the last front when example e needs it too (NULL: nothing comes). */
static void next_fronts(runner *r, const eval_example *e) {
    front last = { .prompt = -1 };
    if (r->n > 0 && e && r->fronts[r->n - 1].prompt == e->prompt) last = r->fronts[--r->n];
    while (r->n > 0) free_front(&r->fronts[--r->n]);
    if (last.prompt >= 0) r->fronts[r->n++] = last;
}

/* ---- a split ---- */

static gist_status run(runner *r, eval_given *given) {
    const eval_split *s = r->split;
    for (int at = 0; at < s->n;) {
        int n = s->n - at < r->o->batch ? s->n - at : r->o->batch;
        TRY(answer(r, s->order + at, n, given));
        at += n;
        next_fronts(r, at < s->n ? &s->example[s->order[at]] : NULL);
        if (r->o->stop && r->o->stop(r->o->ctx, at, s->n)) return err_set(r->err, GIST_ERR_CANCELLED, "stopped");
    }
    return GIST_OK;
}

gist_status eval_run(gist_engine *e, const eval_split *s, const eval_view *v, const eval_run_options *o,
                     eval_given *given, gist_error *err) {
    gist_engine_info info;
    size_t B = (size_t)o->batch;
    if (o->batch < 1 || o->batch > 1024) return err_set(err, GIST_ERR_USAGE, "a batch of %d, not 1 to 1024", o->batch);
    gist_engine_get_info(e, &info);
    if ((v->c == COND_GIST || v->c == COND_POS_CONTROL) && info.gist_token < 0)
        return err_set(err, GIST_ERR_UNSUPPORTED, "%s: the model has no gist token", v->name);
    runner r = { .e = e, .split = s, .v = v, .o = o, .alloc = s->alloc, .gist_token = info.gist_token, .err = err };
    sbuf_init(&r.text, s->alloc);
    r.fronts = mem_calloc(s->alloc, B + 1, sizeof *r.fronts); /* one may be carried over */
    r.session = mem_calloc(s->alloc, B, sizeof *r.session);
    r.request = mem_calloc(s->alloc, B, sizeof *r.request);
    r.options = mem_calloc(s->alloc, B, sizeof *r.options);
    gist_status status =
        r.fronts && r.session && r.request && r.options ? run(&r, given) : err_memory(err, "evaluation");
    if (r.fronts) next_fronts(&r, NULL);
    sbuf_free(&r.text);
    mem_free(s->alloc, r.fronts);
    mem_free(s->alloc, r.session);
    mem_free(s->alloc, r.request);
    mem_free(s->alloc, r.options);
    return status;
}

void eval_given_free(eval_given *given, int n, const gist_allocator *alloc) {
    for (int i = 0; given && i < n; i++) mem_free(alloc, given[i].text);
    mem_free(alloc, given);
}
