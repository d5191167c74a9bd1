/* test_demo_model.c - the shipped model's answers from gists: the same texts on every kernel level of this CPU.
 *
 * tests/data/demo/answers.jsonl was written by `gist-demo replay`, which keeps only answers whose every token leaves
 * 1.5 or more between the two best logits.  Kernel levels differ in the rounding of bf16 products: by far less.
 */
#include "testing.h"

#include <jansson.h>
#include <stdlib.h>

static gist_engine *open_demo(gist_kernels level) {
    gist_engine_options o = GIST_ENGINE_OPTIONS_INIT;
    gist_engine *e = NULL;
    gist_error err = { 0 };
    o.kernels = level;
    assert_ok(gist_engine_open("models/demo", &o, &e, &err), &err);
    return e;
}

static const char *text_of(const json_t *row, const char *key) {
    const char *s = json_string_value(json_object_get(row, key));
    assert_non_null(s);
    return s;
}

static void check_row(gist_engine *e, const json_t *row, gist_kernels level) {
    gist_session_options so = GIST_SESSION_OPTIONS_INIT;
    gist_compress_options co = GIST_COMPRESS_OPTIONS_INIT;
    gist_generate_options go = GIST_GENERATE_OPTIONS_INIT;
    const char *prompt = text_of(row, "instruction"), *input = text_of(row, "input");
    gist_session *s = NULL;
    gist *g = NULL;
    gist_answer a;
    gist_error err = { 0 };
    co.k = (int)json_integer_value(json_object_get(row, "k"));
    go.max_tokens = 32;
    assert_ok(gist_compress(e, prompt, strlen(prompt), &co, &g, &err), &err);
    assert_ok(gist_session_open(e, &so, &s, &err), &err);
    assert_ok(gist_session_attach(s, g, &err), &err);
    assert_ok(gist_generate(s, input, strlen(input), &go, &a, &err), &err);
    if (strcmp(a.text, text_of(row, "answer")) != 0)
        fail_msg("%s kernels: \"%s\" is answered \"%s\", not \"%s\"", gist_kernels_name(level), input, a.text,
                 text_of(row, "answer"));
    gist_answer_free(s, &a);
    gist_session_close(s);
    gist_free(g);
}

static void test_answers(void **state) {
    (void)state;
    FILE *model = fopen("models/demo/config.json", "r");
    if (!model) SKIP("models/demo: not trained in full yet");
    fclose(model);
    enum { LEAST_ROWS = 30, SLOW_ROWS = 5 /* of a level without vectors */ };
    char path[TEST_PATH];
    size_t len;
    char *text = (char *)test_read(test_fixture(path, "demo/answers.jsonl"), &len);
    for (gist_kernels level = GIST_KERNELS_SCALAR; level <= GIST_KERNELS_AMX; level = (gist_kernels)(level + 1)) {
        if (!gist_kernels_available(level)) continue;
        gist_engine *e = open_demo(level);
        int rows = 0;
        for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1) {
            json_t *row = json_loadb(line, (size_t)(end - line), 0, NULL);
            assert_non_null(row);
            if (level != GIST_KERNELS_SCALAR || rows < SLOW_ROWS) check_row(e, row, level);
            json_decref(row);
            rows++;
        }
        assert_true(rows >= LEAST_ROWS);
        gist_engine_close(e);
    }
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_answers) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
