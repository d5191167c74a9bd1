/* test_turns.c - conversations under gist eval: each answer is that of prompt, history and question fed at once. */
#include "testing.h"

#include "eval/eval.h"
#include "tiny.h"

enum { MAX_LENGTH = 200, K = 3, ANSWER = 6 };
static const char rows[] =
    "{\"messages\": [{\"role\": \"system\", \"content\": \"be short\"}, {\"role\": \"user\", \"content\": \"one\"},"
    " {\"role\": \"assistant\", \"content\": \"1\"}, {\"role\": \"user\", \"content\": \"two\"},"
    " {\"role\": \"assistant\", \"content\": \"2 and\"}, {\"role\": \"user\", \"content\": \"three\"},"
    " {\"role\": \"assistant\", \"content\": \"3\"}, {\"role\": \"user\", \"content\": \"and?\"}], \"kind\": \"x\"}\n"
    "{\"instruction\": \"be short\", \"input\": \"one\", \"output\": \"1\"}\n"
    "{\"messages\": [{\"role\": \"user\", \"content\": \"one\"}, {\"role\": \"assistant\", \"content\": \"1\"}]}\n"
    "{\"messages\": [{\"role\": \"system\", \"content\": \"other\"}, {\"role\": \"user\", \"content\": \"one\"},"
    " {\"role\": \"assistant\", \"content\": \" \"}, {\"role\": \"user\", \"content\": \"two\"},"
    " {\"role\": \"assistant\", \"content\": \"2\"}]}\n";

static void open_rows(eval_split *s, const char *bytes) {
    static char path[TEST_PATH];
    gist_error err = { 0 };
    test_write(test_tmp(path, "rows.jsonl"), bytes, strlen(bytes));
    assert_ok(eval_split_open(s, "dev", path, 0, mem_default(), &err), &err);
}

/* What stands behind the prompt up to where answer `turn` begins, by the templates' own functions. */
static void rest_of(const tokenizer *t, int turn, tok_ids *out) {
    static const char *const user[] = { "one", "two", "three" }, *const assistant[] = { "1", "2 and" };
    const tok_template *tp = tok_template_find("chatml");
    gist_error err = { 0 };
    for (int i = 0; i <= turn; i++) {
        assert_ok(tok_template_input(t, tp, user[i], strlen(user[i]), false, out, &err), &err);
        if (i == turn) break;
        assert_ok(tok_template_answer(t, tp, assistant[i], strlen(assistant[i]), out, &err), &err);
        assert_ok(tok_template_turn(t, tp, out, &err), &err);
    }
}

static void check_answer(gist_engine *e, const eval_example *x, const eval_view *v, const eval_given *given) {
    gist_error err = { 0 };
    gist_session *s = NULL;
    gist *g = NULL;
    gist_answer a;
    gist_generate_options o = GIST_GENERATE_OPTIONS_INIT;
    tok_ids rest;
    tok_ids_init(&rest, NULL);
    rest_of(engine_tokenizer(e), x->turn, &rest);
    assert_int_equal(x->input_tokens, rest.n);
    o.max_tokens = ANSWER;
    assert_ok(gist_session_open(e, NULL, &s, &err), &err);
    if (v->c == COND_GIST) {
        gist_compress_options c = GIST_COMPRESS_OPTIONS_INIT;
        c.k = v->k;
        assert_ok(gist_compress(e, x->instruction.p, x->instruction.len, &c, &g, &err), &err);
        assert_ok(gist_session_attach(s, g, &err), &err);
    } else if (v->c == COND_FULL) {
        assert_ok(gist_session_prompt(s, x->instruction.p, x->instruction.len, &err), &err);
    } else {
        assert_ok(gist_session_set_position(s, x->prompt_tokens + K, &err), &err);
    }
    assert_ok(session_generate(s, rest.id, rest.n, &o, &a, &err), &err);
    assert_int_equal(given->tokens, a.n);
    assert_int_equal(given->len, a.text_len);
    assert_memory_equal(given->text, a.text, a.text_len);
    gist_answer_free(s, &a);
    tok_ids_free(&rest);
    gist_session_close(s);
    gist_free(g);
}

static void conversations(void **state) {
    (void)state;
    static const eval_view view[] = { { .c = COND_GIST, .k = 2, .name = "gist.k2" },
                                      { .c = COND_FULL, .name = "full" },
                                      { .c = COND_NONE, .name = "none" } };
    static const int turn[] = { 0, 1, 2, 0 }, line[] = { 1, 1, 1, 2 };
    tiny_model m = TINY_MODEL;
    gist_engine *e = tiny_open_chat(&m, "turns");
    gist_error err = { 0 };
    eval_split s;
    open_rows(&s, rows);
    assert_int_equal(s.read, 7);
    assert_int_equal(s.empty, 2); /* no prompt; an empty answer */
    assert_ok(eval_split_fit(&s, engine_tokenizer(e), tok_template_find("chatml"), K, MAX_LENGTH, &err), &err);
    assert_int_equal(s.law, 1); /* behind the empty answer */
    assert_int_equal(s.n, 4);
    assert_int_equal(s.prompts, 1);
    for (int i = 0; i < s.n; i++) {
        assert_int_equal(s.example[i].turn, turn[i]);
        assert_int_equal(s.example[i].line, line[i]);
    }
    for (size_t v = 0; v < sizeof view / sizeof *view; v++)
        for (int batch = 1; batch <= 4; batch += 3)
            for (int live = 0; live <= (view[v].c == COND_GIST); live++) {
                eval_run_options o = { .gists = K, .max_length = MAX_LENGTH, .max_tokens = ANSWER, .batch = batch,
                                       .live = live };
                eval_given *given = mem_calloc(NULL, (size_t)s.n, sizeof *given);
                assert_ok(eval_run(e, &s, &view[v], &o, given, &err), &err);
                for (int i = 0; i < s.n; i++) check_answer(e, &s.example[i], &view[v], &given[i]);
                assert_memory_not_equal(given[0].text, given[1].text, given[0].len); /* the history matters */
                eval_given_free(given, s.n, NULL);
            }
    eval_split_close(&s);
    gist_engine_close(e);
}

static void refusals(void **state) {
    (void)state;
    static const char *const bad[][2] = {
        { "{\"messages\": 1}", "rows.jsonl:1: \"messages\" is not an array" },
        { "{\"messages\": [{\"role\": \"assistant\", \"content\": \"a\"}]}",
          "rows.jsonl:1: message 1: expected {\"role\": \"user\"" },
        { "{\"messages\": [{\"role\": \"system\", \"content\": \"a\"}, {\"role\": \"user\", \"content\": 1}]}",
          "rows.jsonl:1: message 2: expected {\"role\": \"user\"" },
        { "{\"messages\": [{\"role\": \"system\"}]}", "rows.jsonl:1: message 1: expected {\"role\": \"system\"" },
        { "{\"messages\": [5]}", "rows.jsonl:1: message 1: " },
        { "{\"messages\": []}", "nothing to answer" }
    };
    char path[TEST_PATH];
    tiny_model m = TINY_MODEL;
    gist_error err = { 0 };
    eval_split s;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        test_write(test_tmp(path, "rows.jsonl"), bad[i][0], strlen(bad[i][0]));
        assert_fails(eval_split_open(&s, "dev", path, 0, mem_default(), &err), &err, GIST_ERR_FORMAT, bad[i][1]);
        err = (gist_error){ 0 };
    }
    gist_engine *e = tiny_open(&m, "paper", 1, GIST_KERNELS_AUTO, GIST_TYPE_AUTO, NULL);
    open_rows(&s, rows);
    assert_fails(eval_split_fit(&s, engine_tokenizer(e), tok_template_find("paper"), K, MAX_LENGTH, &err), &err,
                 GIST_ERR_FORMAT, "rows.jsonl:1: the template has one turn only");
    eval_split_close(&s);
    gist_engine_close(e);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(conversations), cmocka_unit_test(refusals) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
