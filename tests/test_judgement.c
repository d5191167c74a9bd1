/* test_judgement.c - what a judge is asked, how its replies are read, and files that do not belong together. */
#include "testing.h"

#include "eval/eval.h"

static eval_text text(const char *s) {
    return (eval_text){ s, strlen(s) };
}

static void verdicts(void **state) {
    (void)state;
    static const struct {
        const char *reply;
        eval_verdict v;
    } of[] = { { "[[1]]", EVAL_FIRST },
               { "Reasons.\n[[2]]\n", EVAL_SECOND },
               { "[[Tie]]", EVAL_TIE },
               { "[[ 1 ]].", EVAL_FIRST },
               { "If it were right I would say [[1]], but: [[2]]", EVAL_SECOND }, /* the last one counts */
               { "[[1]] [[3]]", EVAL_FIRST },
               { "[[12]]", EVAL_UNCLEAR },
               { "[1]", EVAL_UNCLEAR },
               { "[[1]", EVAL_UNCLEAR },
               { "[[1", EVAL_UNCLEAR },
               { "[[[[1]]]]", EVAL_FIRST },
               { "[[]]", EVAL_UNCLEAR },
               { "[[", EVAL_UNCLEAR },
               { "", EVAL_UNCLEAR },
               { "Answer 1 is better.", EVAL_UNCLEAR } };
    for (size_t i = 0; i < sizeof of / sizeof *of; i++)
        assert_int_equal(eval_judge_verdict(text(of[i].reply)), of[i].v);
}

static void requests(void **state) {
    (void)state;
    json_t *r = eval_judge_request("m", text("ask \"this\"\n"), text("ref"), text("one"), text("two"));
    assert_string_equal(json_string_value(json_object_get(r, "model")), "m");
    const json_t *messages = json_object_get(r, "messages");
    assert_int_equal(json_array_size(messages), 2);
    assert_string_equal(json_string_value(json_object_get(json_array_get(messages, 1), "content")),
                        "### Request\nask \"this\"\n\n\n### Reference answer\nref\n\n### Answer 1\none\n\n"
                        "### Answer 2\ntwo");
    json_decref(r);
    json_t *response = json_loads("{\"choices\": [{\"message\": {\"content\": \"hi\"}}]}", 0, NULL);
    assert_string_equal(json_string_value(eval_judge_reply(response)), "hi");
    json_decref(response);
    static const char *const without[] = { "{}", "[]", "{\"choices\": {}}", "{\"choices\": [1]}",
                                           "{\"choices\": [{\"message\": {\"content\": null}}]}" };
    for (size_t i = 0; i < sizeof without / sizeof *without; i++) {
        response = json_loads(without[i], 0, NULL);
        assert_non_null(response);
        assert_null(eval_judge_reply(response));
        json_decref(response);
    }
}

static void matches(const char *a, const char *b, const char *message) {
    eval_pairs x = { .alloc = mem_default() }, y = x;
    gist_error err = { 0 };
    assert_ok(eval_pairs_parse(&x, mem_default(), a, strlen(a), "A", &err), &err);
    assert_ok(eval_pairs_parse(&y, mem_default(), b, strlen(b), "B", &err), &err);
    gist_status status = eval_judge_match(&x, "A", &y, "B", &err);
    if (message)
        assert_fails(status, &err, status, message);
    else
        assert_ok(status, &err);
    assert_true((status == GIST_OK) == (message == NULL));
    eval_pairs_free(&x);
    eval_pairs_free(&y);
}

static void files(void **state) {
    (void)state;
    matches("x,y_pred,y_true\nq,a,r\n", "y_true,y_pred,x,k\nr,b,q,1\n", NULL);
    matches("x,y_pred,y_true\nq,a,r\n", "{\"x\": \"q\", \"y_pred\": \"b\", \"y_true\": \"r\"}\n", NULL);
    matches("x,y_pred,y_true\nq,a,r\n", "x,y_pred,y_true\nq,a,r\nq,a,r\n", "B has 2 predictions, A 1");
    matches("x,y_pred,y_true\nq,a,r\n", "x,y_pred,y_true\n\nq2,a,r\n", "B:3: x is not that of A:2");
    matches("x,y_pred,y_true\nq,a,r\n", "x,y_pred,y_true\nq,a,\n", "B:2: the reference is not that of A:2");
    matches("y_pred,y_true\na,r\n", "x,y_pred,y_true\nq,a,r\n", "A:1: no column x");
    matches("x,y_pred,y_true\nq,a,r\n", "{\"y_pred\": \"b\", \"y_true\": \"r\"}\n", "B:1: no column x");
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(verdicts), cmocka_unit_test(requests),
                                        cmocka_unit_test(files) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
