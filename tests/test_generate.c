/* test_generate.c - answers: greedy = arg max of the logits; log-probabilities; seeds; ends: eos, length, context,
 * stop, callback; stop strings anywhere; what is streamed = the answer; JSON objects; turns.
 */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>

#include "engine/engine_int.h"
#include "tiny.h"

static gist_engine *engine; /* template raw: text and nothing else */
static const tiny_model model = TINY_MODEL;
static const char question[] = "Is there another in the outer?";

static gist_session *session(void) {
    return open_session(engine, GIST_TYPE_F32, 0);
}

typedef struct stream {
    char text[4096];
    size_t len;
    int events, tokens, stop_after; /* stop_after: events until the callback says no; 0: never */
    int32_t ids[512];
    float logprobs[512];
} stream;

static bool on_token(void *ctx, const gist_token_event *ev) {
    stream *st = ctx;
    size_t bad;
    assert_true(utf8_valid(ev->text, ev->text_len, &bad)); /* whole characters only */
    assert_true(st->len + ev->text_len < sizeof st->text);
    memcpy(st->text + st->len, ev->text, ev->text_len);
    st->len += ev->text_len;
    if (ev->id >= 0) {
        st->ids[st->tokens] = ev->id;
        st->logprobs[st->tokens++] = ev->logprob;
    }
    return ++st->events != st->stop_after;
}

/* A fresh session's answer to the question, streamed too; the two must agree. */
static gist_answer ask(gist_session *s, gist_generate_options *o, stream *st) {
    gist_answer a;
    gist_error err = { 0 };
    int stop_after = st->stop_after;
    *st = (stream){ .stop_after = stop_after };
    o->on_token = on_token;
    o->on_token_ctx = st;
    assert_ok(gist_generate(s, question, strlen(question), o, &a, &err), &err);
    assert_int_equal(a.text[a.text_len], 0); /* a byte token may be a NUL inside */
    assert_int_equal(st->tokens, a.n);
    for (int i = 0; i < a.n; i++) {
        assert_int_equal(st->ids[i], a.ids[i]);
        assert_true(st->logprobs[i] == a.logprobs[i]);
        assert_true(a.logprobs[i] <= 0);
        assert_true(a.ids[i] != TINY_GIST);
    }
    if (strcmp(a.finish, "callback") != 0) {
        assert_int_equal(st->len, a.text_len);
        assert_memory_equal(st->text, a.text, a.text_len);
    } else {
        assert_true(st->len <= a.text_len);
        assert_memory_equal(st->text, a.text, st->len);
    }
    assert_true(a.first_token_ms >= 0 && a.first_token_ms <= a.total_ms);
    return a;
}

static gist_answer ask_fresh(gist_generate_options *o, stream *st) {
    gist_session *s = session();
    gist_answer a = ask(s, o, st);
    gist_answer copy = a; /* the engine's allocator outlives the session, so the strings do too */
    gist_session_close(s);
    return copy;
}

static void drop(gist_answer *a) {
    gist_session *s = session();
    gist_answer_free(s, a);
    assert_null(a->text);
    gist_answer_free(s, a);
    gist_answer_free(s, NULL);
    gist_session_close(s);
}

static void test_greedy(void **state) {
    (void)state;
    gist_generate_options o = GIST_GENERATE_OPTIONS_INIT;
    stream st = { 0 };
    o.max_tokens = 40;
    o.ignore_eos = true;
    gist_answer a = ask_fresh(&o, &st), again = ask_fresh(&o, &st);
    assert_int_equal(a.n, 40);
    assert_string_equal(a.finish, "length");
    assert_memory_equal(a.ids, again.ids, 40 * sizeof *a.ids);
    assert_memory_equal(a.logprobs, again.logprobs, 40 * sizeof *a.logprobs);
    int32_t ids[128];
    size_t n;
    int V = engine_model(engine)->vocab;
    float logits[512];
    assert_ok(gist_tokenize(engine, question, strlen(question), GIST_TOKENIZE_BOS, ids, 128, &n, NULL), NULL);
    assert_int_equal(a.input_tokens, n);
    assert_int_equal(ids[0], TINY_BOS);
    gist_session *s = session();
    assert_ok(gist_session_feed(s, ids, n, logits, NULL), NULL);
    for (int i = 0; i < a.n; i++) {
        int32_t best = 0;
        for (int32_t v = 1; v < V; v++)
            if (v != TINY_GIST && logits[v] > logits[best]) best = v;
        assert_int_equal(a.ids[i], best);
        assert_true(fabs((double)a.logprobs[i] - logprob(logits, V, best)) < 1e-5);
        assert_ok(gist_session_feed(s, &best, 1, logits, NULL), NULL);
    }
    gist_session_close(s);
    char *text = NULL; /* the text is the ids' text */
    assert_ok(gist_detokenize(engine, a.ids, (size_t)a.n, &text, NULL), NULL);
    assert_string_equal(text, a.text);
    gist_string_free(engine, text);
    drop(&a);
    drop(&again);
}

static void same_answer(const gist_answer *a, const gist_answer *b) {
    assert_int_equal(a->n, b->n);
    for (int i = 0; i < a->n; i++) {
        assert_int_equal(a->ids[i], b->ids[i]);
        assert_true(a->logprobs[i] == b->logprobs[i]);
    }
    assert_string_equal(a->text, b->text);
    assert_string_equal(a->finish, b->finish);
}

static void test_seeds(void **state) {
    (void)state;
    gist_generate_options o = GIST_GENERATE_OPTIONS_INIT;
    stream st = { 0 };
    int differ = 0;
    o.max_tokens = 30;
    o.ignore_eos = true;
    gist_answer greedy = ask_fresh(&o, &st);
    for (uint64_t seed = 0; seed < 6; seed++) {
        o.seed = seed;
        o.temperature = 1.3f;
        o.top_k = 0;
        o.top_p = 1;
        gist_answer a = ask_fresh(&o, &st), b = ask_fresh(&o, &st);
        same_answer(&a, &b);
        differ += a.n != greedy.n || memcmp(a.ids, greedy.ids, (size_t)a.n * sizeof *a.ids) != 0;
        drop(&a);
        drop(&b);
        o.top_k = 1;
        a = ask_fresh(&o, &st);
        same_answer(&a, &greedy);
        drop(&a);
        o.top_k = 0;
        o.top_p = 1e-6f;
        a = ask_fresh(&o, &st);
        same_answer(&a, &greedy);
        drop(&a);
        o.top_p = 1;
        o.temperature = 1e-5f;
        a = ask_fresh(&o, &st);
        same_answer(&a, &greedy);
        drop(&a);
    }
    assert_true(differ >= 5);
    drop(&greedy);
}

static void test_ends(void **state) {
    (void)state;
    gist_generate_options o = GIST_GENERATE_OPTIONS_INIT;
    stream st = { 0 };
    o.max_tokens = 1;
    o.ignore_eos = true;
    gist_answer a = ask_fresh(&o, &st);
    assert_int_equal(a.n, 1);
    assert_string_equal(a.finish, "length");
    drop(&a);
    o.max_tokens = 0; /* until the context is full: the session's own, or the model's */
    for (int context = 0; context <= 100; context += 50) {
        gist_session *s = open_session(engine, GIST_TYPE_F32, context);
        a = ask(s, &o, &st);
        int most = context ? context : model.context;
        assert_string_equal(a.finish, "context");
        assert_int_equal(gist_session_length(s), most);
        assert_int_equal(a.input_tokens + a.n, most + 1); /* the last token drawn is not fed */
        gist_answer_free(s, &a);
        gist_session_close(s);
    }
    o.max_tokens = 60;
    for (int after = 1; after <= 20; after += 19) {
        st.stop_after = after;
        a = ask_fresh(&o, &st);
        assert_string_equal(a.finish, "callback");
        assert_int_equal(a.n, after);
        drop(&a);
    }
}

/* Some seed draws the end-of-text token: the answer ends before it; told to ignore it, the same seed goes on. */
static void test_eos(void **state) {
    (void)state;
    gist_generate_options o = GIST_GENERATE_OPTIONS_INIT;
    stream st = { 0 };
    o.max_tokens = 100;
    o.temperature = 3;
    for (o.seed = 0; o.seed < 200; o.seed++) {
        o.ignore_eos = false;
        gist_answer a = ask_fresh(&o, &st);
        bool ended = strcmp(a.finish, "eos") == 0;
        if (ended) {
            o.ignore_eos = true;
            gist_answer b = ask_fresh(&o, &st);
            assert_int_equal(b.n, 100);
            assert_true(a.n < 100);
            assert_int_equal(b.ids[a.n], TINY_EOS);
            for (int i = 0; i < a.n; i++) {
                assert_int_equal(a.ids[i], b.ids[i]);
                assert_int_not_equal(a.ids[i], TINY_EOS);
            }
            drop(&b);
        }
        drop(&a);
        if (ended) return;
    }
    fail_msg("no seed ever ended its answer");
}

/* ---- stop strings ---- */

static void check_stop(const gist_answer *base, const char *const *stop, uint64_t seed) {
    gist_generate_options o = GIST_GENERATE_OPTIONS_INIT;
    stream st = { 0 };
    const char *first = NULL;
    o.max_tokens = base->n;
    o.ignore_eos = true;
    o.temperature = 1;
    o.seed = seed;
    o.stop = stop;
    for (int i = 0; stop[i]; i++) {
        const char *at = stop[i][0] ? strstr(base->text, stop[i]) : NULL;
        if (at && (!first || at < first)) first = at;
    }
    gist_answer a = ask_fresh(&o, &st);
    if (!first) {
        assert_string_equal(a.finish, "length");
        same_answer(&a, base);
    } else {
        /* Of overlapping stop strings the one complete first counts, even if another began before it. */
        size_t len = a.text_len;
        bool one = stop[0] && !stop[1];
        assert_memory_equal(a.text, base->text, len);
        if (one) assert_int_equal(len, first - base->text);
        bool stopped = false;
        for (int i = 0; stop[i]; i++)
            stopped = stopped || (stop[i][0] && strncmp(base->text + len, stop[i], strlen(stop[i])) == 0);
        assert_true(stopped);
        if (strcmp(a.finish, "stop") != 0) assert_int_equal(a.n, base->n); /* found in what the end let go of */
    }
    drop(&a);
}

/* The next character boundary at or behind i. */
static size_t boundary(const char *text, size_t i) {
    while ((text[i] & 0xc0) == 0x80) i++;
    return i;
}

static void test_stop(void **state) {
    (void)state;
    gist_generate_options o = GIST_GENERATE_OPTIONS_INIT;
    uint64_t seed = 9;
    o.max_tokens = 60;
    o.ignore_eos = true;
    o.temperature = 1;
    for (o.seed = 1; o.seed <= 3; o.seed++) {
        stream st = { 0 };
        gist_answer base = ask_fresh(&o, &st);
        for (int i = 0; i < 60; i++) {
            char one[64], two[64], none[96];
            size_t from = boundary(base.text, test_rand(&seed) % (base.text_len - 20));
            size_t len = boundary(base.text, from + 1 + test_rand(&seed) % 12) - from;
            snprintf(one, sizeof one, "%.*s", (int)len, base.text + from);
            snprintf(two, sizeof two, "%.*s", (int)(boundary(base.text, from + 3) - from), base.text + from);
            snprintf(none, sizeof none, "%s#!never!#", one); /* held back as long as it may come, then let go */
            check_stop(&base, (const char *const[]){ one, NULL }, o.seed);
            check_stop(&base, (const char *const[]){ "", none, NULL }, o.seed);
            check_stop(&base, (const char *const[]){ none, one, two, NULL }, o.seed);
        }
        char tail[64]; /* the text ends while a stop string may still be coming */
        for (size_t back = 1; back < 12; back++) {
            size_t from = boundary(base.text, base.text_len - back);
            snprintf(tail, sizeof tail, "%s#!never!#", base.text + from);
            check_stop(&base, (const char *const[]){ tail, NULL }, o.seed);
        }
        check_stop(&base, (const char *const[]){ NULL }, o.seed);
        check_stop(&base, (const char *const[]){ "", NULL }, o.seed);
        check_stop(&base, (const char *const[]){ base.text, NULL }, o.seed);
        drop(&base);
    }
}

/* ---- JSON ---- */

static const gist_logit_bias towards_an_end[] = { { TINY_BYTE + '"', 5 },
                                                  { TINY_BYTE + '}', 5 },
                                                  { TINY_BYTE + ':', 2 } };

/* Whatever the model would say, what comes is an object, or the beginning of one that max_tokens cut off. */
static void test_json(void **state) {
    (void)state;
    int whole = 0, cut = 0;
    for (uint64_t seed = 0; seed < 60; seed++) {
        gist_generate_options o = GIST_GENERATE_OPTIONS_INIT;
        stream st = { 0 };
        json_watch w;
        o.max_tokens = seed % 2 ? 10 : 150;
        o.seed = seed;
        o.temperature = seed % 3 ? 1.2f : 0;
        o.top_k = seed % 5 ? 0 : 20;
        o.ignore_eos = seed % 7 == 0;
        o.bias = towards_an_end;
        o.bias_count = seed < 30 ? 3 : 0;
        o.json_object = true;
        gist_answer a = ask_fresh(&o, &st);
        json_watch_init(&w);
        if (strcmp(a.finish, "json") == 0) {
            json_t *v = json_loadb(a.text, a.text_len, JSON_ALLOW_NUL, NULL);
            assert_true(json_is_object(v));
            assert_int_equal(a.text[a.text_len - 1], '}');
            json_decref(v);
            whole++;
        } else {
            assert_string_equal(a.finish, "length");
            cut++; /* bytes of a character that was cut off are shown as U+FFFD, inside a string */
        }
        assert_int_equal(json_watch_text(&w, a.text, a.text_len), a.text_len);
        drop(&a);
    }
    assert_true(whole > 10 && cut > 10);
}

/* No token can go on: said as such, and what there is so far is kept. */
static void test_json_dead_end(void **state) {
    (void)state;
    gist_generate_options o = GIST_GENERATE_OPTIONS_INIT;
    gist_logit_bias *only = malloc(512 * sizeof *only); /* braces that open */
    stream st = { 0 };
    size_t n = 0;
    for (int32_t v = 0; v < engine_model(engine)->vocab; v++)
        if (v != TINY_BYTE + '{') only[n++] = (gist_logit_bias){ v, -INFINITY };
    o.json_object = true;
    o.bias = only;
    o.bias_count = n;
    gist_answer a = ask_fresh(&o, &st);
    assert_string_equal(a.finish, "invalid-json");
    assert_string_equal(a.text, "{");
    assert_int_equal(a.n, 1);
    drop(&a);
    o.json_object = false; /* nothing at all may be drawn */
    only[n++] = (gist_logit_bias){ TINY_BYTE + '{', -INFINITY };
    o.bias_count = n;
    gist_session *s = session();
    gist_error err = { 0 };
    a.n = 77;
    assert_fails(gist_generate(s, "x", 1, &o, &a, &err), &err, GIST_ERR_USAGE, "forbid every token");
    assert_int_equal(a.n, 77);
    gist_session_close(s);
    free(only);
}

/* ---- what the session holds afterwards ---- */

static void test_after(void **state) {
    (void)state;
    gist_generate_options o = GIST_GENERATE_OPTIONS_INIT;
    gist_error err = { 0 };
    gist_session *s = session();
    gist_answer a;
    o.max_tokens = 9;
    o.ignore_eos = true;
    assert_ok(gist_generate(s, question, strlen(question), &o, &a, &err), &err);
    assert_int_equal(gist_session_length(s), a.input_tokens + a.n - 1); /* the last one has only been drawn */
    assert_fails(gist_session_end_turn(s, &a, &err), &err, GIST_ERR_UNSUPPORTED, "one turn");
    assert_int_equal(gist_session_length(s), a.input_tokens + a.n - 1);
    gist_answer_free(s, &a);
    gist_session_close(s);
}

/* A conversation through end_turn = the same tokens fed at once. */
static void test_turns(void **state) {
    (void)state;
    gist_engine *e = tiny_open_chat(&model, "chat");
    for (int ends = 0; ends < 2; ends++) {
        gist_generate_options o = GIST_GENERATE_OPTIONS_INIT;
        gist_logit_bias end = { TINY_EOS, 8 };
        gist_error err = { 0 };
        gist_session *s = open_session(e, GIST_TYPE_F32, 0), *t = open_session(e, GIST_TYPE_F32, 0);
        gist_answer a, b, c;
        tok_ids all;
        const tokenizer *tok = engine_tokenizer(e);
        const tok_template *tp = tok_template_find("chatml");
        o.max_tokens = 30;
        o.temperature = 1;
        o.bias = &end;
        o.bias_count = (size_t)ends;
        o.ignore_eos = !ends;
        tok_ids_init(&all, NULL);
        assert_ok(gist_generate(s, "one", 3, &o, &a, &err), &err);
        assert_string_equal(a.finish, ends ? "eos" : "length");
        assert_ok(gist_session_end_turn(s, &a, &err), &err);
        assert_ok(tok_template_input(tok, tp, "one", 3, true, &all, &err), &err);
        for (int i = 0; i < a.n; i++) assert_ok(tok_ids_push(&all, a.ids[i], NULL), NULL);
        assert_ok(tok_template_turn(tok, tp, &all, &err), &err);
        assert_int_equal(gist_session_length(s), all.n);
        assert_ok(gist_generate(s, "two", 3, &o, &b, &err), &err);
        assert_ok(tok_template_input(tok, tp, "two", 3, false, &all, &err), &err);
        assert_ok(session_generate(t, all.id, all.n, &o, &c, &err), &err);
        assert_int_equal(b.n, c.n);
        assert_memory_equal(b.ids, c.ids, (size_t)b.n * sizeof *b.ids);
        assert_memory_equal(b.logprobs, c.logprobs, (size_t)b.n * sizeof *b.logprobs);
        gist_answer_free(s, &a);
        gist_answer_free(s, &b);
        gist_answer_free(t, &c);
        tok_ids_free(&all);
        gist_session_close(s);
        gist_session_close(t);
    }
    gist_engine_close(e);
}

/* A caller built before an option existed gets its default. */
static void test_old_caller(void **state) {
    (void)state;
    gist_generate_options o = GIST_GENERATE_OPTIONS_INIT;
    stream st = { 0 };
    o.max_tokens = 20;
    o.ignore_eos = true;
    gist_answer want = ask_fresh(&o, &st);
    o.size = offsetof(gist_generate_options, min_p);
    o.min_p = 7;
    o.repeat_penalty = -3;
    o.json_object = true;
    gist_answer got = ask_fresh(&o, &st);
    same_answer(&got, &want);
    drop(&got);
    drop(&want);
}

static int open_engine(void **state) {
    (void)state;
    engine = tiny_open(&model, "engine", 1, GIST_KERNELS_AUTO, GIST_TYPE_AUTO, "raw");
    return 0;
}

static int close_engine(void **state) {
    (void)state;
    gist_engine_close(engine);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greedy),        cmocka_unit_test(test_seeds), cmocka_unit_test(test_ends),
        cmocka_unit_test(test_eos),           cmocka_unit_test(test_stop),  cmocka_unit_test(test_json),
        cmocka_unit_test(test_json_dead_end), cmocka_unit_test(test_after), cmocka_unit_test(test_turns),
        cmocka_unit_test(test_old_caller),
    };
    return cmocka_run_group_tests(tests, open_engine, close_engine);
}
