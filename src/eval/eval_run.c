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
    front *fronts;                  /* [batch + 1] */
    int n;                          /* of them in use */
    gist_session **session;         /* [batch] */
    gist_request *request;          /* [batch] */
    gist_generate_options *options; /* [batch] */
    int *waiting;                   /* [batch] examples of the next batch */
    hash128 *key;                   /* [batch] theirs in the journal */
    eval_journal *journal;
    gist_engine_info info;
    int *other;                     /* [prompts] of v->other: an example of the prompt that stands in front */
    sbuf text;
    gist_error *err;
} runner;

static gist_status failed(const runner *r, const eval_example *e, const gist_error *why) {
    return err_set(r->err, why->code, "%s:%d: %.300s", r->split->path, e->line, why->msg);
}

/* ---- what stands in front ---- */

static gist_status new_session(const runner *r, gist_session **s, gist_error *err) {
    gist_session_options o = GIST_SESSION_OPTIONS_INIT;
    o.kv = r->o->kv;
    return gist_session_open(r->e, &o, s, err);
}

static gist_status feed_prompt(runner *r, front *f, const eval_example *e, gist_error *err) {
    eval_text t = e->instruction;
    if (r->v->words > 0 || r->v->budget > 0) {
        r->text.len = 0;
        if (r->v->words > 0)
            TRY(eval_tfidf_keep(r->o->tfidf, t, r->v->words, &r->text, err));
        else
            TRY(eval_tfidf_keep_tokens(r->o->tfidf, t, engine_tokenizer(r->e), r->v->budget, &r->text, err));
        t = (eval_text){ r->text.p, r->text.len };
    }
    TRY(new_session(r, &f->s, err));
    TRY(gist_session_prompt(f->s, t.p, t.len, err));
    for (int i = 0; i < (r->v->c == COND_FULL ? 0 : r->v->k); i++)
        TRY(gist_session_feed(f->s, &r->info.gist_token, 1, NULL, err));
    if (r->v->c == COND_GIST) session_hide_before(f->s, e->prompt_tokens);
    return GIST_OK;
}

/* The example whose prompt stands in front of e's input. */
static const eval_example *in_front(const runner *r, const eval_example *e) {
    return r->other ? &r->split->example[r->other[e->prompt]] : e;
}

static gist_status make_front(runner *r, front *f, const eval_example *e, gist_error *err) {
    *f = (front){ .prompt = e->prompt };
    e = in_front(r, e);
    if (r->v->c == COND_NONE || r->v->c == COND_NEG_CONTROL) return GIST_OK;
    if (r->v->c != COND_GIST || r->o->live) return feed_prompt(r, f, e, err);
    gist_compress_options o = GIST_COMPRESS_OPTIONS_INIT;
    o.k = r->v->k;
    o.kv = r->o->kv;
    return gist_compress(r->e, e->instruction.p, e->instruction.len, &o, &f->g, err);
}

static void free_front(front *f) {
    gist_session_close(f->s);
    gist_free(f->g);
    *f = (front){ .prompt = -1 };
}

static gist_status open_session(runner *r, const front *f, const eval_example *e, gist_session **s, gist_error *err) {
    if (f->s) return gist_session_fork(f->s, s, err);
    TRY(new_session(r, s, err));
    if (f->g) return gist_session_attach(*s, f->g, err);
    if (engine_model(r->e)->cfg.encoder) return GIST_OK; /* positions are relative: nothing in front leaves no trace */
    return gist_session_set_position(*s, e->prompt_tokens + (r->v->c == COND_NONE ? r->o->gists : r->v->k), err);
}

static int room_of(const runner *r, const eval_example *e) {
    int other = in_front(r, e)->prompt_tokens, longer = other > e->prompt_tokens ? other : e->prompt_tokens;
    int room = r->o->max_length - longer - r->o->gists - e->input_tokens;
    return r->o->max_tokens > 0 && r->o->max_tokens < room ? r->o->max_tokens : room;
}

/* ---- the journal ---- */

static const char *const finishes[] = { "eos", "length", "stop", "context" };

/* Everything that decides the answer to e. */
static gist_status key_of(const runner *r, const eval_example *e, hash128 *key) {
    const eval_example *source = in_front(r, e);
    const eval_view *v = r->v;
    hash128 words = v->words || v->budget ? eval_tfidf_print(r->o->tfidf) : (hash128){ { 0 } };
    hasher *h = hash_begin(r->alloc);
    if (!h) return err_memory(r->err, "journal");
    hash_str(h, r->info.fingerprint);
    hash_str(h, r->info.adapter);
    hash_str(h, r->info.template_name);
    const int numbers[] = { (int)r->info.kernels, (int)r->info.weights, (int)r->o->kv, (int)v->c, v->k, v->words,
                            v->budget, v->other, v->c == COND_NONE ? r->o->gists : 0, room_of(r, e) };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) hash_u64(h, (uint64_t)numbers[i]);
    hash_add(h, words.b, sizeof words.b);
    hash_add(h, source->instruction.p, source->instruction.len);
    if (e->history_tokens)
        hash_add(h, r->split->history.id + e->history, (size_t)e->history_tokens * sizeof *r->split->history.id);
    hash_add(h, e->input.p, e->input.len);
    *key = hash_end(h);
    return GIST_OK;
}

/* *found: the answer stands in the journal and is in *g. */
static gist_status look_up(const runner *r, hash128 key, eval_given *g, bool *found) {
    const json_t *entry = eval_journal_find(r->journal, key), *text = json_object_get(entry, "text"),
                 *tokens = json_object_get(entry, "tokens");
    const char *finish = json_string_value(json_object_get(entry, "finish"));
    *found = false;
    if (!json_is_string(text) || !json_is_integer(tokens) || !finish) return GIST_OK;
    for (size_t i = 0; i < sizeof finishes / sizeof *finishes; i++) {
        if (strcmp(finish, finishes[i]) != 0) continue;
        g->text = mem_strndup(r->alloc, json_string_value(text), json_string_length(text));
        g->len = json_string_length(text);
        g->tokens = (int)json_integer_value(tokens);
        g->finish = finishes[i];
        *found = g->text != NULL;
        return g->text ? GIST_OK : err_memory(r->err, "answers");
    }
    return GIST_OK;
}

/* What JSON cannot hold is answered again next time. */
static gist_status note(const runner *r, hash128 key, const eval_given *g) {
    json_t *text = memchr(g->text, 0, g->len) ? NULL : json_stringn(g->text, g->len);
    if (!text) return GIST_OK;
    return eval_journal_add(r->journal, key,
                            json_pack("{s:o, s:i, s:s}", "text", text, "tokens", g->tokens, "finish", g->finish),
                            r->err);
}

/* ---- a batch ---- */

static gist_status begin(runner *r, int i, const eval_example *e) {
    gist_error why = { 0 };
    gist_status status = GIST_OK;
    if (r->n == 0 || r->fronts[r->n - 1].prompt != e->prompt) status = make_front(r, &r->fronts[r->n++], e, &why);
    if (status == GIST_OK) status = open_session(r, &r->fronts[r->n - 1], e, &r->session[i], &why);
    if (status == GIST_OK && e->history_tokens)
        status = gist_session_feed(r->session[i], r->split->history.id + e->history, (size_t)e->history_tokens, NULL,
                                   &why);
    if (status != GIST_OK) return failed(r, e, &why);
    r->options[i] = (gist_generate_options)GIST_GENERATE_OPTIONS_INIT;
    r->options[i].max_tokens = room_of(r, e);
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

/* waiting[0..n) */
static gist_status answer(runner *r, int n, eval_given *given) {
    const int *order = r->waiting;
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
    for (int i = 0; i < n && status == GIST_OK && r->journal; i++) status = note(r, r->key[i], &given[order[i]]);
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
    for (int at = 0, n = 0; at < s->n;) {
        int i = s->order[at++];
        bool found = false;
        if (r->journal) {
            TRY(key_of(r, &s->example[i], &r->key[n]));
            TRY(look_up(r, r->key[n], &given[i], &found));
        }
        if (!found) r->waiting[n++] = i;
        if (n == 0 || (n < r->o->batch && at < s->n)) continue;
        TRY(answer(r, n, given));
        n = 0;
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
    runner r = { .e = e, .split = s, .v = v, .o = o, .alloc = s->alloc, .info = info, .err = err };
    r.journal = o->live ? NULL : o->journal;
    sbuf_init(&r.text, s->alloc);
    r.fronts = mem_calloc(s->alloc, B + 1, sizeof *r.fronts); /* one may be carried over */
    r.session = mem_calloc(s->alloc, B, sizeof *r.session);
    r.request = mem_calloc(s->alloc, B, sizeof *r.request);
    r.options = mem_calloc(s->alloc, B, sizeof *r.options);
    r.waiting = mem_calloc(s->alloc, B, sizeof *r.waiting);
    r.key = mem_calloc(s->alloc, B, sizeof *r.key);
    bool ok = r.fronts && r.session && r.request && r.options && r.waiting && r.key;
    if (v->other) ok = (r.other = mem_alloc(s->alloc, (size_t)s->prompts, sizeof *r.other)) && ok;
    gist_status status = ok ? GIST_OK : err_memory(err, "evaluation");
    if (status == GIST_OK && v->other) status = eval_other_prompts(s, o->gists, o->max_length, o->seed, r.other, err);
    if (status == GIST_OK) status = run(&r, given);
    if (r.fronts) next_fronts(&r, NULL);
    sbuf_free(&r.text);
    mem_free(s->alloc, r.fronts);
    mem_free(s->alloc, r.session);
    mem_free(s->alloc, r.request);
    mem_free(s->alloc, r.options);
    mem_free(s->alloc, r.waiting);
    mem_free(s->alloc, r.key);
    mem_free(s->alloc, r.other);
    return status;
}

void eval_given_free(eval_given *given, int n, const gist_allocator *alloc) {
    for (int i = 0; given && i < n; i++) mem_free(alloc, given[i].text);
    mem_free(alloc, given);
}
