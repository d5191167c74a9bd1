/* generate.c - answering inputs behind whatever sessions hold: prefill, then a token at a time, one session or many.
 *
 *   input --template--> ids --feed--> logits --sample--> id --feed--> logits ...
 *                                        |
 *                                        +--> bytes --> whole characters --> held while they may begin a stop --> out
 *
 * Every session of a batch has a generation, and each step feeds what each of them has to say next in one pass: its
 * input, or the token it has just drawn.  Those that end leave the batch; the others do not notice.
 */
#include "engine/engine_int.h"

/* The answer so far: text[0..sent) has been shown. */
typedef struct answer_text {
    sbuf text;
    size_t sent;
    tok_stream stream;
    const char *const *stop;
} answer_text;

/* Offset of the first stop string at or behind `from`; SIZE_MAX: none. */
static size_t find_stop(const answer_text *a, size_t from) {
    size_t first = SIZE_MAX;
    for (int i = 0; a->stop && a->stop[i]; i++) {
        size_t len = strlen(a->stop[i]);
        for (size_t at = from; len > 0 && at + len <= a->text.len && at < first; at++)
            if (memcmp(a->text.p + at, a->stop[i], len) == 0) first = at;
    }
    return first;
}

/* How many bytes at the end of the text could still become a stop string. */
static size_t held_back(const answer_text *a) {
    size_t most = 0;
    for (int i = 0; a->stop && a->stop[i]; i++) {
        size_t len = strlen(a->stop[i]);
        for (size_t n = len > 0 ? len - 1 : 0; n > most; n--)
            if (n <= a->text.len && memcmp(a->text.p + a->text.len - n, a->stop[i], n) == 0) most = n;
    }
    return most;
}

/* Take in one token (id < 0: the end).  Returns false when a stop string was found; the text then ends before it. */
static bool take_token(answer_text *a, int32_t id) {
    size_t longest = 0, before = a->text.len;
    for (int i = 0; a->stop && a->stop[i]; i++) longest = strlen(a->stop[i]) > longest ? strlen(a->stop[i]) : longest;
    if (id >= 0)
        tok_stream_push(&a->stream, id, &a->text);
    else
        tok_stream_end(&a->stream, &a->text);
    size_t at = find_stop(a, before > longest ? before - longest : 0);
    if (at == SIZE_MAX) return true;
    a->text.len = at;
    a->text.p[at] = '\0';
    return false;
}

static bool show(answer_text *a, const gist_generate_options *o, int index, int32_t id, float logprob, size_t until) {
    if (!o->on_token) return true;
    gist_token_event ev = { id, logprob, a->text.p ? a->text.p + a->sent : "", until > a->sent ? until - a->sent : 0,
                            index };
    if (until > a->sent) a->sent = until;
    return o->on_token(o->on_token_ctx, &ev);
}

/* ---- one answer ---- */

typedef struct generation {
    gist_session *s;
    gist_generate_options o;
    int index; /* in the batch */
    sampler draw;
    answer_text text;
    json_watch json;
    size_t watched; /* text[0..watched) went into json */
    sbuf scratch;
    const float *logits;
    const int32_t *ids; /* what the session is fed next */
    int n;
    int32_t id; /* the token just drawn; -1: none may be */
    float logprob;
    gist_answer made;
    int cap; /* of made.ids and made.logprobs */
    bool running;
    gist_status status;
    gist_error err;
} generation;

/* The most tokens that can still be drawn: the last one is not fed. */
static int most_tokens(const gist_session *s, int input, int max_tokens) {
    int room = s->context - s->length - input, left = s->e->model.cfg.context - s->position - input;
    room = (room < left ? room : left) + 1;
    if (room < 0) room = 0;
    return max_tokens > 0 && max_tokens < room ? max_tokens : room;
}

/* Room for what max_tokens asks for, so that decoding allocates nothing; without it for a part, which then grows. */
static gist_status reserve(generation *g, gist_error *err) {
    enum { OPEN_END = 256, TEXT_PER_TOKEN = 8 };
    gist_session *s = g->s;
    int most = most_tokens(s, g->n, g->o.max_tokens);
    if (g->o.max_tokens == 0 && most > OPEN_END) most = OPEN_END;
    TRY(session_room(s, most > 0 ? g->n + most - 1 : g->n, err));
    g->cap = most > 0 ? most : 1;
    g->made.ids = mem_alloc(s->alloc, (size_t)g->cap, sizeof *g->made.ids);
    g->made.logprobs = mem_alloc(s->alloc, (size_t)g->cap, sizeof *g->made.logprobs);
    g->text.text.cap = (size_t)g->cap * TEXT_PER_TOKEN;
    g->text.text.p = mem_calloc(s->alloc, g->text.text.cap, 1);
    return g->made.ids && g->made.logprobs && g->text.text.p ? GIST_OK : err_memory(err, "answer");
}

static gist_status check_input(const generation *g, gist_error *err) {
    if (g->n == 0) return err_set(err, GIST_ERR_TEXT, "there is nothing to answer: no prompt, gist or input");
    for (int i = 0; i < g->n; i++)
        if (g->ids[i] < 0 || g->ids[i] >= g->s->e->model.vocab)
            return err_set(err, GIST_ERR_USAGE, "token %d is %d, the vocabulary has %d", i, g->ids[i],
                           g->s->e->model.vocab);
    return GIST_OK;
}

/* ids[0..fed) of the input went through the session before.  tp: the template whose input it is and whose answer comes;
 * NULL: any text.  Always followed by generation_end. */
static void generation_begin(generation *g, gist_session *s, int index, const int32_t *ids, size_t n, size_t fed,
                             const tok_template *tp, const gist_generate_options *opt) {
    *g = (generation){ .s = s, .o = GIST_GENERATE_OPTIONS_INIT, .index = index };
    if (opt) memcpy(&g->o, opt, opt->size < sizeof g->o ? opt->size : sizeof g->o);
    const gist_generate_options *o = &g->o;
    g->draw.alloc = s->alloc;
    g->text.stop = o->stop;
    sbuf_init(&g->text.text, s->alloc);
    sbuf_init(&g->scratch, s->alloc);
    json_watch_init(&g->json);
    if (tp)
        tok_template_answer_stream(&g->text.stream, s->e->tok, tp);
    else
        tok_stream_init(&g->text.stream, s->e->tok, true);
    g->ids = ids + fed;
    if (n > (size_t)s->context)
        g->status =
            err_set(&g->err, GIST_ERR_LIMIT, "an input of %zu tokens does not fit a context of %d", n, s->context);
    else if (o->max_tokens < 0)
        g->status = err_set(&g->err, GIST_ERR_USAGE, "max_tokens %d is negative", o->max_tokens);
    else
        g->n = (int)(n - fed);
    if (g->status == GIST_OK) g->status = check_input(g, &g->err);
    if (g->status == GIST_OK)
        g->status =
            sampler_init(&g->draw, s->alloc, s->e->model.vocab, s->e->model.cfg.context, o, s->e->gist_token, &g->err);
    if (g->status == GIST_OK) g->status = reserve(g, &g->err);
    for (size_t i = 0; g->status == GIST_OK && i < n; i++) sampler_accept(&g->draw, ids[i]);
    g->made.input_tokens = (int)n;
    g->running = g->status == GIST_OK;
}

/* Gives everything back but the answer, which goes to *out when there is one. */
static gist_status generation_end(generation *g, double start, gist_answer *out, gist_error *err) {
    g->made.text_len = g->text.text.len;
    if (g->status == GIST_OK && !(g->made.text = sbuf_take(&g->text.text))) g->status = err_memory(&g->err, "answer");
    sbuf_free(&g->text.text);
    sbuf_free(&g->scratch);
    sampler_reset(&g->draw);
    g->made.total_ms = (time_now() - start) * 1e3;
    if (g->status == GIST_OK)
        *out = g->made;
    else
        gist_answer_free(g->s, &g->made);
    if (g->status != GIST_OK) err_set(err, g->status, "%s", g->err.msg);
    return g->status;
}

/* Room for one more generated token. */
static gist_status keep_token(generation *g, gist_error *err) {
    gist_answer *out = &g->made;
    if (out->n == g->cap) {
        int more = g->cap * 2;
        int32_t *ids = mem_resize(g->s->alloc, out->ids, (size_t)g->cap, (size_t)more, sizeof *ids);
        if (ids) out->ids = ids;
        float *lp = ids ? mem_resize(g->s->alloc, out->logprobs, (size_t)g->cap, (size_t)more, sizeof *lp) : NULL;
        if (!lp) return err_memory(err, "answer");
        out->logprobs = lp;
        g->cap = more;
    }
    out->ids[out->n] = g->id;
    out->logprobs[out->n++] = g->logprob;
    return GIST_OK;
}

/* The model's own ends, and the template's, which the model may not know of. */
static bool is_end(const gist_engine *e, int32_t id) {
    return tok_is_end(e->tok, id) || id == tok_template_end(e->tok, e->tp);
}

/* May the answer, which is to be a JSON object, go on with this token?  One that writes nothing leads nowhere. */
static bool keeps_json(void *ctx, int32_t id) {
    enum { MOST_SPACES = 32 }; /* in a row outside strings: a model may never tire of them */
    generation *g = ctx;
    if (is_end(g->s->e, id)) return false; /* an object ends by its brace */
    json_watch w = g->json;
    tok_stream stream = g->text.stream;
    g->scratch.len = 0;
    tok_stream_push(&stream, id, &g->scratch);
    bool says = g->scratch.len > 0 || stream.held_len > g->text.stream.held_len;
    for (size_t i = 0; i < g->scratch.len; i++) {
        if (!json_watch_byte(&w, (uint8_t)g->scratch.p[i])) return false;
        if (json_watch_done(&w)) return true; /* what stands behind the brace is cut off */
    }
    return says && w.spaces <= MOST_SPACES && (stream.held_len == 0 || json_watch_byte(&w, 0x80));
}

static void draw_one(void *ctx, int i, int worker) {
    generation *g = ((generation **)ctx)[i];
    (void)worker;
    g->id = sampler_draw(&g->draw, g->logits, g->o.json_object ? keeps_json : NULL, g, &g->logprob);
}

/* Take the new text into the object; true: it is closed, and the text ends there. */
static bool json_closed(generation *g) {
    sbuf *t = &g->text.text;
    for (; g->watched < t->len; g->watched++)
        if (json_watch_byte(&g->json, (uint8_t)t->p[g->watched]) && json_watch_done(&g->json)) {
            t->len = g->watched + 1;
            t->p[t->len] = '\0';
            return true;
        }
    return false;
}

/* The token just drawn: text, callback, and whether the answer ends with it. */
static gist_status take_drawn(generation *g, double start, gist_error *err) {
    const gist_generate_options *o = &g->o;
    answer_text *a = &g->text;
    gist_answer *out = &g->made;
    if (out->n == 0) out->first_token_ms = (time_now() - start) * 1e3;
    if (g->scratch.failed) return err_memory(err, "answer");
    if (g->id < 0 && !o->json_object) return err_set(err, GIST_ERR_USAGE, "the biases forbid every token");
    if (g->id < 0) {
        out->finish = "invalid-json";
        return GIST_OK;
    }
    if (!o->ignore_eos && is_end(g->s->e, g->id)) {
        out->finish = "eos";
        return GIST_OK;
    }
    TRY(keep_token(g, err));
    sampler_accept(&g->draw, g->id);
    bool open = take_token(a, g->id), closed = o->json_object && open && json_closed(g);
    if (a->text.failed) return err_memory(err, "answer");
    size_t until = open && !closed ? a->text.len - held_back(a) : a->text.len;
    if (!show(a, o, g->index, g->id, g->logprob, until))
        out->finish = "callback";
    else if (closed)
        out->finish = "json";
    else if (!open)
        out->finish = "stop";
    else if (out->n == o->max_tokens)
        out->finish = "length";
    else if (g->s->length >= g->s->context || g->s->position >= g->s->e->model.cfg.context)
        out->finish = "context";
    g->ids = &g->id;
    g->n = 1;
    return GIST_OK;
}

/* What the last token left unsaid. */
static gist_status finish(generation *g, gist_error *err) {
    answer_text *a = &g->text;
    gist_answer *out = &g->made;
    bool ended = strcmp(out->finish, "stop") == 0 || strcmp(out->finish, "json") == 0;
    if (!ended && !take_token(a, -1)) out->finish = "stop"; /* completed by the last bytes */
    if (a->text.failed) return err_memory(err, "answer");
    if (strcmp(out->finish, "callback") != 0 && a->text.len > a->sent)
        (void)show(a, &g->o, g->index, -1, 0, a->text.len);
    return GIST_OK;
}

static void advance(generation *g, double start) {
    g->status = take_drawn(g, start, &g->err);
    if (g->status == GIST_OK && g->made.finish) g->status = finish(g, &g->err);
    g->running = g->status == GIST_OK && !g->made.finish;
}

/* ---- many at once ---- */

typedef struct batch {
    const gist_allocator *alloc;
    generation *all; /* [n] */
    size_t n;
    generation **live; /* [n] those that still run */
    feed_part *part;   /* [n] */
    float *logits;     /* [n,vocab] */
} batch;

static gist_status batch_begin(batch *b, const gist_engine *e, size_t n, gist_error *err) {
    size_t rows;
    *b = (batch){ .alloc = e->alloc, .n = n };
    bool good = size_mul(n, (size_t)e->model.vocab, &rows);
    if (good) {
        b->all = mem_calloc(e->alloc, n, sizeof *b->all);
        b->live = mem_alloc(e->alloc, n, sizeof(generation *));
        b->part = mem_alloc(e->alloc, n, sizeof *b->part);
        b->logits = mem_alloc(e->alloc, rows, sizeof *b->logits);
    }
    return good && b->all && b->live && b->part && b->logits ? GIST_OK : err_memory(err, "batch");
}

static void batch_end(batch *b) {
    mem_free(b->alloc, b->all);
    mem_free(b->alloc, b->live);
    mem_free(b->alloc, b->part);
    mem_free(b->alloc, b->logits);
}

/* One session's lack of room is its own; the pass's is everybody's. */
static size_t gather(batch *b) {
    size_t live = 0;
    for (size_t i = 0; i < b->n; i++) {
        generation *g = &b->all[i];
        if (!g->running) continue;
        g->status = session_room(g->s, g->n, &g->err);
        g->running = g->status == GIST_OK;
        if (!g->running) continue;
        b->part[live] = (feed_part){ g->s, g->ids, g->n, 0 };
        b->live[live++] = g;
    }
    return live;
}

static void run_batch(batch *b, double start) {
    gist_session *first = b->all[0].s;
    for (size_t live; (live = gather(b)) > 0;) {
        gist_error err = { 0 };
        gist_status status = feed_parts(&first->work, b->part, live, b->logits, false, &err);
        for (size_t i = 0; i < live; i++) {
            b->live[i]->logits = b->logits + i * (size_t)first->e->model.vocab;
            if (status == GIST_OK) continue;
            b->live[i]->running = false;
            b->live[i]->status = err_set(&b->live[i]->err, status, "%s", err.msg);
        }
        if (status != GIST_OK) return;
        pool_run(first->e->pool, draw_one, b->live, (int)live);
        for (size_t i = 0; i < live; i++) advance(b->live[i], start);
    }
}

/* T5: the input ends the source, which is encoded; *ids becomes what the decoder begins with.  Each input is answered
 * anew: an earlier one goes. */
static gist_status take_source(gist_session *s, const int32_t *ids, size_t n, gist_error *err) {
    if (s->source) session_rewind(s, s->prefix);
    s->prefix = (int)s->source_ids.n;
    gist_status status = source_add(s, ids, n, err);
    if (status != GIST_OK) session_rewind(s, s->prefix);
    return status;
}

static gist_status read_source(gist_session *s, const int32_t **ids, size_t *n, gist_error *err) {
    if (!session_has_encoder(s)) return GIST_OK;
    TRY(take_source(s, *ids, *n, err));
    TRY(sources_encode(&s, 1, err));
    *ids = &s->e->model.cfg.start;
    *n = 1;
    return GIST_OK;
}

static gist_status generate(gist_session *s, const int32_t *ids, size_t n, const tok_template *tp,
                            const gist_generate_options *opt, double start, gist_answer *out, gist_error *err) {
    batch b;
    int input = (int)n;
    gist_status status = batch_begin(&b, s->e, 1, err);
    if (status == GIST_OK) status = read_source(s, &ids, &n, err);
    if (status == GIST_OK) {
        generation_begin(b.all, s, 0, ids, n, 0, tp, opt);
        b.all->made.input_tokens = input;
        run_batch(&b, start);
        status = generation_end(b.all, start, out, err);
    }
    batch_end(&b);
    return status;
}

gist_status session_generate(gist_session *s, const int32_t *ids, size_t n, const gist_generate_options *opt,
                             gist_answer *out, gist_error *err) {
    return generate(s, ids, n, NULL, opt, time_now(), out, err);
}

/* Token ids of the input as it stands behind the session. */
static gist_status input_ids(const gist_session *s, const char *input, size_t len, tok_ids *ids, gist_error *err) {
    bool first = s->position == 0 && !s->attached; /* behind the place of a prompt that is not there no text begins */
    if (session_has_encoder(s)) first = !s->attached && (s->source ? s->prefix : (int)s->source_ids.n) == 0;
    TRY(tok_template_input(s->e->tok, s->e->tp, input, len, first, ids, err));
    return session_has_encoder(s) ? tok_ids_push(ids, tok_eos(s->e->tok), err) : GIST_OK;
}

gist_status gist_generate(gist_session *s, const char *input, size_t len, const gist_generate_options *opt,
                          gist_answer *out, gist_error *err) {
    double start = time_now();
    tok_ids ids;
    tok_ids_init(&ids, s->alloc);
    gist_status status = input_ids(s, input, len, &ids, err);
    if (status == GIST_OK) status = generate(s, ids.id, ids.n, s->e->tp, opt, start, out, err);
    tok_ids_free(&ids);
    return status;
}

/* ---- requests ---- */

/* A request that cannot be: its own fault. */
static void refuse(generation *g, gist_status status, const gist_error *err) {
    g->running = false;
    g->status = status;
    g->err = *err;
}

/* T5: the sources of all requests that are sound so far, encoded together. */
static void begin_sources(batch *b, gist_request *r, const tok_ids *ids) {
    gist_session **s = mem_alloc(b->alloc, b->n, sizeof(gist_session *));
    gist_error err = { 0 };
    gist_status status = s ? GIST_OK : err_memory(&err, "batch");
    size_t n = 0;
    for (size_t i = 0; i < b->n; i++) {
        gist_error own = { 0 };
        if (b->all[i].status != GIST_OK) continue;
        gist_status one = status == GIST_OK ? take_source(r[i].session, ids[i].id, ids[i].n, &own) : status;
        if (one != GIST_OK)
            refuse(&b->all[i], one, status == GIST_OK ? &own : &err);
        else
            s[n++] = r[i].session;
    }
    if (status == GIST_OK && n > 0) status = sources_encode(s, n, &err);
    for (size_t i = 0; status != GIST_OK && i < b->n; i++)
        if (b->all[i].status == GIST_OK) refuse(&b->all[i], status, &err);
    mem_free(b->alloc, s);
}

/* ids [n]: the inputs' tokens. */
static void begin_requests(batch *b, gist_request *r, tok_ids *ids) {
    const gist_engine *e = r[0].session->e;
    bool sources = session_has_encoder(r[0].session);
    for (size_t i = 0; i < b->n; i++) {
        gist_error err = { 0 };
        gist_status status = input_ids(r[i].session, r[i].input, r[i].len, &ids[i], &err);
        if (status != GIST_OK) refuse(&b->all[i], status, &err);
    }
    if (sources) begin_sources(b, r, ids);
    for (size_t i = 0; i < b->n; i++) {
        generation refused = b->all[i];
        const int32_t *first = sources ? &e->model.cfg.start : ids[i].id;
        generation_begin(&b->all[i], r[i].session, (int)i, first, sources ? 1 : ids[i].n, 0, e->tp, r[i].options);
        b->all[i].made.input_tokens = (int)ids[i].n;
        if (refused.status != GIST_OK) refuse(&b->all[i], refused.status, &refused.err);
    }
}

static gist_status check_requests(gist_request *r, size_t n, const gist_allocator *alloc, gist_error *err) {
    gist_session **sessions = mem_alloc(alloc, n, sizeof *sessions);
    if (!sessions) return err_memory(err, "batch");
    for (size_t i = 0; i < n; i++) sessions[i] = r[i].session;
    gist_status status = sessions_check(sessions, n, err);
    mem_free(alloc, sessions);
    return status;
}

gist_status gist_generate_batch(gist_request *r, size_t n, gist_error *err) {
    double start = time_now();
    batch b;
    if (n == 0 || n > BATCH_MAX)
        return err_set(err, GIST_ERR_USAGE, "a batch of %zu requests, not 1 to %d", n, BATCH_MAX);
    const gist_allocator *alloc = r[0].session->alloc;
    TRY(check_requests(r, n, alloc, err));
    tok_ids *ids = mem_calloc(alloc, n, sizeof *ids);
    gist_status status = batch_begin(&b, r[0].session->e, n, err);
    if (status == GIST_OK && !ids) status = err_memory(err, "batch");
    if (status == GIST_OK) {
        for (size_t i = 0; i < n; i++) tok_ids_init(&ids[i], alloc);
        begin_requests(&b, r, ids);
        run_batch(&b, start);
        for (size_t i = 0; i < n; i++) {
            r[i].answer = (gist_answer){ 0 };
            r[i].error = (gist_error){ 0 };
            r[i].status = generation_end(&b.all[i], start, &r[i].answer, &r[i].error);
            tok_ids_free(&ids[i]);
        }
    }
    batch_end(&b);
    mem_free(alloc, ids);
    return status;
}

/* ---- many answers to one input ---- */

/* The input but its last token goes through the session once; that token through every fork. */
static gist_status run_samples(gist_session *s, gist_session **fork, batch *b, const tok_ids *ids,
                               const gist_generate_options *opt, double start, gist_answer *out, gist_error *err) {
    gist_generate_options o = GIST_GENERATE_OPTIONS_INIT;
    if (opt) memcpy(&o, opt, opt->size < sizeof o ? opt->size : sizeof o);
    o.size = sizeof o;
    const int32_t *id = ids->id;
    size_t n = ids->n;
    TRY(read_source(s, &id, &n, err));
    if (n > 1) TRY(gist_session_feed(s, id, n - 1, NULL, err));
    for (size_t i = 0; i < b->n; i++) TRY(gist_session_fork(s, &fork[i], err));
    for (size_t i = 0; i < b->n; i++, o.seed++) {
        generation_begin(&b->all[i], fork[i], (int)i, id, n, n > 0 ? n - 1 : 0, s->e->tp, &o);
        b->all[i].made.input_tokens = (int)ids->n;
    }
    run_batch(b, start);
    gist_status status = GIST_OK;
    for (size_t i = 0; i < b->n; i++) {
        gist_status one = generation_end(&b->all[i], start, &out[i], status == GIST_OK ? err : NULL);
        if (status == GIST_OK) status = one;
    }
    for (size_t i = 0; status != GIST_OK && i < b->n; i++) gist_answer_free(s, &out[i]);
    return status;
}

gist_status gist_generate_samples(gist_session *s, const char *input, size_t len, const gist_generate_options *opt,
                                  gist_answer *out, size_t n, gist_error *err) {
    double start = time_now();
    int before = s->source ? s->prefix : gist_session_length(s);
    batch b;
    tok_ids ids;
    if (n == 0 || n > BATCH_MAX) return err_set(err, GIST_ERR_USAGE, "%zu answers, not 1 to %d", n, BATCH_MAX);
    tok_ids_init(&ids, s->alloc);
    gist_session **fork = mem_calloc(s->alloc, n, sizeof *fork);
    gist_answer *made = mem_calloc(s->alloc, n, sizeof *made);
    gist_status status = batch_begin(&b, s->e, n, err);
    if (status == GIST_OK && !(fork && made)) status = err_memory(err, "answers");
    if (status == GIST_OK) status = input_ids(s, input, len, &ids, err);
    if (status == GIST_OK) status = run_samples(s, fork, &b, &ids, opt, start, made, err);
    if (status == GIST_OK) memcpy(out, made, n * sizeof *out);
    for (size_t i = 0; fork && i < n; i++) gist_session_close(fork[i]);
    session_rewind(s, before);
    batch_end(&b);
    mem_free(s->alloc, made);
    mem_free(s->alloc, fork);
    tok_ids_free(&ids);
    return status;
}

void gist_answer_free(gist_session *s, gist_answer *a) {
    if (!a) return;
    mem_free(s->alloc, a->text);
    mem_free(s->alloc, a->ids);
    mem_free(s->alloc, a->logprobs);
    *a = (gist_answer){ 0 };
}

gist_status gist_session_end_turn(gist_session *s, const gist_answer *a, gist_error *err) {
    tok_ids ids;
    tok_ids_init(&ids, s->alloc);
    gist_status status = GIST_OK;
    if (a->n > 0 && strcmp(a->finish, "eos") != 0) status = tok_ids_push(&ids, a->ids[a->n - 1], err);
    if (status == GIST_OK) status = tok_template_turn(s->e->tok, s->e->tp, &ids, err);
    if (status == GIST_OK) status = gist_session_feed(s, ids.id, ids.n, NULL, err);
    tok_ids_free(&ids);
    return status;
}
