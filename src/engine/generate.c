/* generate.c - answering an input behind whatever a session holds: prefill, then a token at a time.
 *
 *   input --template--> ids --feed--> logits --sample--> id --feed--> logits ...
 *                                        |
 *                                        +--> bytes --> whole characters --> held while they may begin a stop --> out
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

static bool show(answer_text *a, const gist_generate_options *o, int32_t id, float logprob, size_t until) {
    if (!o->on_token) return true;
    gist_token_event ev = { id, logprob, a->text.p ? a->text.p + a->sent : "", until > a->sent ? until - a->sent : 0 };
    if (until > a->sent) a->sent = until;
    return o->on_token(o->on_token_ctx, &ev);
}

/* Room for one more generated token in *out. */
static gist_status keep_token(const gist_allocator *alloc, gist_answer *out, int *cap, int32_t id, float logprob,
                              gist_error *err) {
    if (out->n == *cap) {
        int more = *cap ? *cap * 2 : 64;
        int32_t *ids = mem_resize(alloc, out->ids, (size_t)*cap, (size_t)more, sizeof *ids);
        if (ids) out->ids = ids;
        float *lp = ids ? mem_resize(alloc, out->logprobs, (size_t)*cap, (size_t)more, sizeof *lp) : NULL;
        if (!lp) return err_memory(err, "answer");
        out->logprobs = lp;
        *cap = more;
    }
    out->ids[out->n] = id;
    out->logprobs[out->n++] = logprob;
    return GIST_OK;
}

/* The model's own ends, and the template's, which the model may not know of. */
static bool is_end(const gist_engine *e, int32_t id) {
    return tok_is_end(e->tok, id) || id == tok_template_end(e->tok, e->tp);
}

static gist_status answer(gist_session *s, sampler *draw, answer_text *a, const gist_generate_options *o, double start,
                          gist_answer *out, gist_error *err) {
    int cap = 0;
    out->finish = NULL;
    while (!out->finish) {
        float logprob;
        int32_t id = sampler_draw(draw, s->logits, &logprob);
        if (out->n == 0) out->first_token_ms = (time_now() - start) * 1e3;
        if (!o->ignore_eos && is_end(s->e, id)) {
            out->finish = "eos";
            break;
        }
        TRY(keep_token(s->alloc, out, &cap, id, logprob, err));
        bool open = take_token(a, id);
        if (a->text.failed) return err_memory(err, "answer");
        if (!show(a, o, id, logprob, open ? a->text.len - held_back(a) : a->text.len))
            out->finish = "callback";
        else if (!open)
            out->finish = "stop";
        else if (out->n == o->max_tokens)
            out->finish = "length";
        else if (s->length >= s->context || s->position >= s->e->model.cfg.context)
            out->finish = "context";
        else
            TRY(gist_session_feed(s, &id, 1, s->logits, err));
    }
    if (strcmp(out->finish, "stop") != 0 && !take_token(a, -1)) out->finish = "stop"; /* completed by the last bytes */
    if (a->text.failed) return err_memory(err, "answer");
    if (strcmp(out->finish, "callback") != 0 && a->text.len > a->sent) (void)show(a, o, -1, 0, a->text.len);
    return GIST_OK;
}

static gist_status feed_input(gist_session *s, const int32_t *ids, size_t count, int max_tokens, gist_answer *out,
                              gist_error *err) {
    if (count == 0) return err_set(err, GIST_ERR_TEXT, "there is nothing to answer: no prompt, gist or input");
    if (count > (size_t)s->context)
        return err_set(err, GIST_ERR_LIMIT, "an input of %zu tokens does not fit a context of %d", count, s->context);
    /* room for the whole answer where it fits, so that decoding allocates nothing */
    int n = (int)count, room = s->context - s->length - n, left = s->e->model.cfg.context - s->position - n;
    room = room < left ? room : left;
    int more = max_tokens > 0 && max_tokens < room ? max_tokens : room < 256 ? room : 256;
    TRY(session_reserve(s, n + (more > 0 ? more : 0), err));
    TRY(gist_session_feed(s, ids, count, s->logits, err));
    out->input_tokens = n;
    return GIST_OK;
}

/* tp: the template whose input the ids are and whose answer comes; NULL: any text. */
static gist_status generate(gist_session *s, const int32_t *ids, size_t n, const tok_template *tp,
                            const gist_generate_options *opt, double start, gist_answer *out, gist_error *err) {
    gist_generate_options o = GIST_GENERATE_OPTIONS_INIT;
    if (opt) memcpy(&o, opt, opt->size < sizeof o ? opt->size : sizeof o);
    if (o.max_tokens < 0) return err_set(err, GIST_ERR_USAGE, "max_tokens %d is negative", o.max_tokens);
    sampler draw;
    TRY(sampler_init(&draw, s->alloc, s->e->model.vocab, o.temperature, o.top_k, o.top_p, o.seed, s->e->gist_token,
                     err));
    answer_text a = { .stop = o.stop };
    gist_answer made = { 0 };
    sbuf_init(&a.text, s->alloc);
    if (tp)
        tok_template_answer_stream(&a.stream, s->e->tok, tp);
    else
        tok_stream_init(&a.stream, s->e->tok, true);
    gist_status status = feed_input(s, ids, n, o.max_tokens, &made, err);
    if (status == GIST_OK) status = answer(s, &draw, &a, &o, start, &made, err);
    made.text_len = a.text.len;
    if (status == GIST_OK && !(made.text = sbuf_take(&a.text))) status = err_memory(err, "answer");
    sbuf_free(&a.text);
    sampler_reset(&draw);
    made.total_ms = (time_now() - start) * 1e3;
    if (status == GIST_OK)
        *out = made;
    else
        gist_answer_free(s, &made);
    return status;
}

gist_status session_generate(gist_session *s, const int32_t *ids, size_t n, const gist_generate_options *opt,
                             gist_answer *out, gist_error *err) {
    return generate(s, ids, n, NULL, opt, time_now(), out, err);
}

gist_status gist_generate(gist_session *s, const char *input, size_t len, const gist_generate_options *opt,
                          gist_answer *out, gist_error *err) {
    double start = time_now();
    tok_ids ids;
    tok_ids_init(&ids, s->alloc);
    bool first = s->position == 0 && !s->attached; /* behind the place of a prompt that is not there no text begins */
    gist_status status = tok_template_input(s->e->tok, s->e->tp, input, len, first, &ids, err);
    if (status == GIST_OK) status = generate(s, ids.id, ids.n, s->e->tp, opt, start, out, err);
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
