/* chat.c - a conversation in one session: keeping its turns, making room, taking it up again. */
#include "chat.h"

static void turn_free(chat_turn *t) {
    tok_ids_free(&t->ids);
    mem_free(NULL, t->input);
    mem_free(NULL, t->answer);
}

gist_status chat_open(chat *c, gist_engine *e, gist_session *s, int context, gist_error *err) {
    gist_engine_info info;
    gist_engine_get_info(e, &info);
    *c = (chat){ .e = e, .s = s, .tp = tok_template_find(info.template_name) };
    bool empty = gist_session_position(s) == 0;
    tok_ids probe; /* does the vocabulary have what the template needs? */
    tok_ids_init(&probe, NULL);
    gist_status status = tok_template_input(engine_tokenizer(e), c->tp, NULL, 0, empty, &probe, err);
    tok_ids_free(&probe);
    TRY(status);
    if (empty && chat_has_turns(c) && tok_adds_bos(engine_tokenizer(e)))
        TRY(gist_session_feed(s, &info.bos, 1, NULL, err)); /* stays when the first turn is dropped */
    c->front = gist_session_length(s);
    c->limit = info.context - (gist_session_position(s) - c->front);
    if (context && context < c->limit) c->limit = context;
    return GIST_OK;
}

void chat_reset(chat *c) {
    session_rewind(c->s, c->front);
    while (c->n > 0) turn_free(&c->turn[--c->n]);
}

void chat_close(chat *c) {
    while (c->n > 0) turn_free(&c->turn[--c->n]);
    mem_free(NULL, c->turn);
    *c = (chat){ 0 };
}

bool chat_has_turns(const chat *c) {
    return tok_template_has_turns(c->tp);
}

/* Forget the oldest turns until `need` more tokens fit, or none is left. */
static void make_room(chat *c, size_t need) {
    size_t held = 0;
    int drop = 0;
    for (int i = 0; i < c->n; i++) held += c->turn[i].ids.n;
    while (drop < c->n && (size_t)c->front + held + need > (size_t)c->limit) held -= c->turn[drop++].ids.n;
    c->dropped = drop;
    if (!drop) return;
    session_rewind(c->s, c->front);
    for (int i = 0; i < drop; i++) turn_free(&c->turn[i]);
    c->n -= drop;
    memmove(c->turn, c->turn + drop, (size_t)c->n * sizeof *c->turn);
}

/* Feed what the session lacks of the turns: their ends, or all of them after a rewind. */
static gist_status catch_up(chat *c, gist_error *err) {
    size_t have = (size_t)(gist_session_length(c->s) - c->front);
    for (int i = 0; i < c->n; i++) {
        const tok_ids *ids = &c->turn[i].ids;
        size_t skip = have < ids->n ? have : ids->n;
        if (skip < ids->n) TRY(gist_session_feed(c->s, ids->id + skip, ids->n - skip, NULL, err));
        have -= skip;
    }
    return GIST_OK;
}

static gist_status keep(chat *c, chat_turn *t, const char *input, size_t len, const gist_answer *a, gist_error *err) {
    if (c->n == c->cap) {
        int more = c->cap ? 2 * c->cap : 16;
        chat_turn *grown = mem_resize(NULL, c->turn, (size_t)c->cap, (size_t)more, sizeof *grown);
        if (!grown) return err_memory(err, "turns");
        c->turn = grown;
        c->cap = more;
    }
    for (int i = 0; i < a->n; i++) TRY(tok_ids_push(&t->ids, a->ids[i], err));
    if (chat_has_turns(c)) TRY(tok_template_turn(engine_tokenizer(c->e), c->tp, &t->ids, err));
    t->input = mem_strndup(NULL, input, len);
    t->answer = mem_strndup(NULL, a->text, a->text_len);
    if (!t->input || !t->answer) return err_memory(err, "turns");
    c->turn[c->n++] = *t;
    return GIST_OK;
}

gist_status chat_ask(chat *c, const char *input, size_t len, const gist_generate_options *o, gist_answer *out,
                     gist_error *err) {
    chat_turn t = { .input = NULL };
    gist_answer a;
    tok_ids_init(&t.ids, NULL);
    if (!chat_has_turns(c)) chat_reset(c);
    bool first = gist_session_position(c->s) == 0;
    gist_status status = tok_template_input(engine_tokenizer(c->e), c->tp, input, len, first, &t.ids, err);
    int quarter = (c->limit - c->front) / 4; /* room for an answer */
    if (status == GIST_OK)
        make_room(c, t.ids.n + (size_t)(o->max_tokens > 0 && o->max_tokens < quarter ? o->max_tokens : quarter));
    if (status == GIST_OK) status = catch_up(c, err);
    int before = gist_session_length(c->s);
    if (status == GIST_OK) status = gist_generate(c->s, input, len, o, &a, err);
    if (status == GIST_OK) {
        status = keep(c, &t, input, len, &a, err);
        if (status == GIST_OK)
            *out = a;
        else
            gist_answer_free(c->s, &a);
    }
    if (status == GIST_OK) return status;
    session_rewind(c->s, before);
    turn_free(&t);
    return status;
}

static json_t *message(const char *role, const char *said) {
    return json_pack("{s:s, s:o}", "role", role, "content", json_text_of(said, strlen(said)));
}

json_t *chat_json(const chat *c) {
    json_t *list = json_array();
    int bad = !list;
    for (int i = 0; i < c->n && !bad; i++)
        bad = json_array_append_new(list, message("user", c->turn[i].input)) ||
              json_array_append_new(list, message("assistant", c->turn[i].answer));
    if (!bad) return json_pack("{s:o}", "messages", list);
    json_decref(list);
    return NULL;
}
