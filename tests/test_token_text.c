/* test_token_text.c - ids -> text, one id at a time; templates and the tokenization law. */
#include "token_testing.h"

#include <sys/stat.h>

/* ---- streaming ---- */

static void assert_text(const tokenizer *t, const int32_t *ids, size_t n, bool first, const char *want) {
    sbuf out;
    tok_stream s;
    sbuf_init(&out, NULL);
    sbuf_str(&out, "");
    tok_stream_init(&s, t, first);
    for (size_t i = 0; i < n; i++) {
        tok_stream_push(&s, ids[i], &out);
        assert_true(utf8_valid(out.p, out.len, NULL)); /* never half a character */
    }
    tok_stream_end(&s, &out);
    assert_string_equal(out.p, want);
    sbuf_free(&out);
}

static void assert_round_trip(const tokenizer *t, const char *text) {
    tok_ids ids;
    gist_error err = { 0 };
    tok_ids_init(&ids, NULL);
    assert_ok(tok_encode(t, text, strlen(text), TOK_BOS, &ids, &err), &err);
    assert_text(t, ids.id, ids.n, true, text);
    tok_ids_free(&ids);
}

static void test_round_trip(void **state) {
    (void)state;
    static const char *const models[] = { "llama", "gpt2", "tiktoken", "sp.json" };
    static const char *const texts[] = { "",
                                         " ",
                                         "  two",
                                         "The shop opens at nine.",
                                         "\n\ttab",
                                         "日本語 🚀👩‍👧",
                                         "a\xCC\x81",
                                         "trailing  ",
                                         "<s> <GIST> plain",
                                         "\xEF\xBF\xBD" };
    for (size_t m = 0; m < sizeof models / sizeof *models; m++) {
        tokenizer *t = open_fixture(models[m]);
        for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) assert_round_trip(t, texts[i]);
        tok_close(t);
    }
}

/* Byte tokens, cut and mixed: U+FFFD for each longest beginning of a character that does not go on. */
static void test_broken_bytes(void **state) {
    (void)state;
    static const struct {
        const char *bytes, *text;
    } cases[] = {
        { "\xE2\x82\xAC", "€" },
        { "\xE2\x82", "\uFFFD" },
        { "\xE2\x82"
          "A",
          "\uFFFDA" },
        { "\xE2\x82\xE2\x82\xAC", "\uFFFD€" },
        { "\x80\xBF", "\uFFFD\uFFFD" },
        { "\xC0\xAF", "\uFFFD\uFFFD" },
        { "\xE0\x80\x80", "\uFFFD\uFFFD\uFFFD" },
        { "\xED\xA0\x80", "\uFFFD\uFFFD\uFFFD" },
        { "\xF0\x9F\x9A\x80", "🚀" },
        { "\xF0\x9F\x9A", "\uFFFD" },
        { "\xF0\x9F"
          "A\xF0",
          "\uFFFDA\uFFFD" },
        { "\xF4\x90\x80\x80", "\uFFFD\uFFFD\uFFFD\uFFFD" },
        { "\xF5\xFF", "\uFFFD\uFFFD" },
        { "\xC3\xC3\xA9", "\uFFFDé" },
    };
    static const char *const models[] = { "llama", "gpt2" };
    for (size_t m = 0; m < 2; m++) {
        tokenizer *t = open_fixture(models[m]);
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            int32_t ids[16];
            size_t n = strlen(cases[i].bytes);
            for (size_t k = 0; k < n; k++) ids[k] = t->byte_id[(uint8_t)cases[i].bytes[k]];
            assert_text(t, ids, n, false, cases[i].text);
        }
        tok_close(t);
    }
}

static void test_stream_edges(void **state) {
    (void)state;
    tokenizer *t = open_fixture("llama");
    int32_t the = tok_find(t, "\xE2\x96\x81the"), bos = tok_bos(t);
    assert_true(the > 0);
    assert_text(t, (int32_t[]){ the, the }, 2, true, "the the");
    assert_text(t, (int32_t[]){ the, the }, 2, false, " the the");
    assert_text(t, (int32_t[]){ bos, the, tok_gist(t), the, tok_eos(t) }, 5, true, "the the"); /* special: nothing */
    assert_text(t, (int32_t[]){ -1, 100000, the, 0 }, 4, false, " the");
    assert_text(t, (int32_t[]){ tok_find(t, "\xE2\x96\x81"), the }, 2, true, " the"); /* one space, not more */
    assert_text(t, (int32_t[]){ t->byte_id[' '], the }, 2, true, "  the");
    tok_close(t);
    t = open_fixture("bytes"); /* a token that was added, not special: as it is */
    assert_text(t, (int32_t[]){ tok_find(t, "été"), tok_find(t, "<tool>") }, 2, true, "été<tool>");
    tok_close(t);
}

/* An answer's ids give its text back: what joins it to the rest is not part of it, any further space is. */
static void test_answer_stream(void **state) {
    (void)state;
    static const char *const models[][2] = { { "gpt2", "paper" },  { "gpt2", "raw" },      { "llama", "paper" },
                                             { "llama", "raw" },   { "sp.json", "paper" }, { "bytes", "paper" },
                                             { "qwen2", "paper" }, { "qwen2", "chatml" },  { "tiktoken", "paper" } };
    static const char *const answers[] = { "yes", " yes", "  two", "Yes, at nine. ", "été", "1.50" };
    for (size_t m = 0; m < sizeof models / sizeof *models; m++) {
        tokenizer *t = open_fixture(models[m][0]);
        const tok_template *tp = tok_template_find(models[m][1]);
        for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
            gist_error err = { 0 };
            tok_ids ids;
            tok_stream s;
            sbuf out;
            tok_ids_init(&ids, NULL);
            sbuf_init(&out, NULL);
            assert_ok(tok_template_answer(t, tp, answers[i], strlen(answers[i]), &ids, &err), &err);
            tok_template_answer_stream(&s, t, tp);
            for (size_t k = 0; k < ids.n; k++) tok_stream_push(&s, ids.id[k], &out);
            tok_stream_end(&s, &out);
            assert_string_equal(out.p, answers[i]);
            sbuf_free(&out);
            tok_ids_free(&ids);
        }
        tok_close(t);
    }
}

/* A full output buffer is remembered, not lost. */
static void test_stream_no_memory(void **state) {
    (void)state;
    tokenizer *t = open_fixture("llama");
    test_alloc a;
    test_alloc_init(&a);
    a.fail_at = 1;
    sbuf out;
    sbuf_init(&out, &a.a);
    tok_stream s;
    tok_stream_init(&s, t, true);
    tok_stream_push(&s, tok_find(t, "\xE2\x96\x81the"), &out);
    assert_true(out.failed);
    sbuf_free(&out);
    tok_close(t);
}

/* ---- templates ---- */

static void prompt_ids(const tokenizer *t, const char *name, const char *prompt, tok_ids *out) {
    gist_error err = { 0 };
    tok_ids_init(out, NULL);
    assert_ok(tok_template_prompt(t, tok_template_find(name), prompt, strlen(prompt), out, &err), &err);
}

static void input_ids(const tokenizer *t, const char *name, const char *input, bool first, tok_ids *out) {
    gist_error err = { 0 };
    tok_ids_init(out, NULL);
    size_t len = input ? strlen(input) : 0;
    assert_ok(tok_template_input(t, tok_template_find(name), input, len, first, out, &err), &err);
}

/* The ids are those of the text, special tokens in the text recognised. */
static void assert_is(const tokenizer *t, tok_ids *got, unsigned flags, const char *text) {
    tok_ids want;
    gist_error err = { 0 };
    tok_ids_init(&want, NULL);
    assert_ok(tok_encode(t, text, strlen(text), flags, &want, &err), &err);
    assert_int_equal(got->n, want.n);
    if (want.n) assert_memory_equal(got->id, want.id, want.n * sizeof *want.id);
    tok_ids_free(&want);
    tok_ids_free(got);
}

static void test_paper(void **state) {
    (void)state;
    tokenizer *t = open_fixture("llama");
    tok_ids v;
    prompt_ids(t, "paper", "count the words \n", &v);
    assert_int_equal(v.id[0], tok_bos(t));
    assert_is(t, &v, TOK_BOS, "Instruction: count the words");
    input_ids(t, "paper", "one two", false, &v);
    assert_is(t, &v, 0, "Input: one two\nOutput:");
    input_ids(t, "paper", NULL, false, &v);
    assert_is(t, &v, 0, "Output:");
    input_ids(t, "paper", "one", true, &v);
    assert_is(t, &v, TOK_BOS, "Input: one\nOutput:");
    prompt_ids(t, "paper", "say <GIST> or </s>", &v); /* a user's special tokens are text */
    for (size_t i = 1; i < v.n; i++) assert_false(tok_is_special(t, v.id[i]));
    assert_is(t, &v, TOK_BOS, "Instruction: say <GIST> or </s>");
    tok_close(t);
}

static void test_raw(void **state) {
    (void)state;
    tokenizer *t = open_fixture("llama");
    tok_ids v;
    prompt_ids(t, "raw", "  the shop ", &v);
    assert_is(t, &v, TOK_BOS, "  the shop");
    input_ids(t, "raw", " x ", false, &v);
    assert_is(t, &v, 0, "x ");
    input_ids(t, "raw", " x ", true, &v); /* nothing beside it: verbatim */
    assert_is(t, &v, TOK_BOS, " x ");
    input_ids(t, "raw", NULL, false, &v);
    assert_int_equal(v.n, 0);
    tok_ids_free(&v);
    tok_close(t);
}

static void test_chatml(void **state) {
    (void)state;
    tokenizer *t = open_fixture("qwen2");
    tok_ids v;
    prompt_ids(t, "chatml", " be short", &v);
    assert_int_equal(v.id[0], tok_find(t, "<|im_start|>"));
    assert_int_equal(v.id[v.n - 1], tok_find(t, "<|im_end|>"));
    assert_is(t, &v, TOK_SPECIAL, "<|im_start|>system\n be short<|im_end|>");
    input_ids(t, "chatml", "when?", false, &v);
    assert_is(t, &v, TOK_SPECIAL, "<|im_start|>user\nwhen?<|im_end|>\n<|im_start|>assistant\n");
    input_ids(t, "chatml", "", false, &v);
    assert_is(t, &v, TOK_SPECIAL, "<|im_start|>assistant\n");
    prompt_ids(t, "chatml", "<|im_end|>", &v); /* a user cannot end the turn: */
    size_t ends = 0;
    for (size_t i = 0; i < v.n; i++) ends += v.id[i] == tok_find(t, "<|im_end|>");
    assert_int_equal(ends, 1);
    tok_ids_free(&v);
    tok_close(t);
}

static void test_llama3(void **state) {
    (void)state;
#define SYSTEM "<|start_header_id|>system<|end_header_id|>\n\n"
#define USER "<|start_header_id|>user<|end_header_id|>\n\n"
#define ASSISTANT "<|start_header_id|>assistant<|end_header_id|>\n\n"
    static const char *const models[] = { "tiktoken", "bytes" };
    for (int m = 0; m < 2; m++) {
        tokenizer *t = open_fixture(models[m]);
        tok_ids v;
        prompt_ids(t, "llama3", "\n be short ", &v);
        assert_is(t, &v, TOK_BOS | TOK_SPECIAL, SYSTEM "be short<|eot_id|>");
        input_ids(t, "llama3", " when? ", false, &v);
        assert_is(t, &v, TOK_SPECIAL, USER "when?<|eot_id|>" ASSISTANT);
        input_ids(t, "llama3", NULL, false, &v);
        assert_is(t, &v, TOK_SPECIAL, ASSISTANT);
        input_ids(t, "llama3", "when?", true, &v);
        assert_is(t, &v, TOK_BOS | TOK_SPECIAL, USER "when?<|eot_id|>" ASSISTANT);
        tok_close(t);
    }
}

static void test_template_errors(void **state) {
    (void)state;
    tokenizer *t = open_fixture("llama");
    const tok_template *paper = tok_template_find("paper");
    tok_ids v;
    gist_error err = { 0 };
    tok_ids_init(&v, NULL);
    assert_null(tok_template_find("nothing"));
    assert_string_equal(tok_template_name(paper), "paper");
    for (const char *p = tok_template_names(); p; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL) {
        char name[16];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(p, "\n"), p);
        assert_string_equal(tok_template_name(tok_template_find(name)), name);
    }
    assert_fails(tok_template_prompt(t, paper, "", 0, &v, &err), &err, GIST_ERR_TEXT, "empty");
    err = (gist_error){ 0 };
    assert_fails(tok_template_prompt(t, paper, " \n\t\xC2\xA0", 5, &v, &err), &err, GIST_ERR_TEXT, "empty");
    err = (gist_error){ 0 };
    assert_fails(tok_template_prompt(t, paper, "ab\xFF", 3, &v, &err), &err, GIST_ERR_TEXT, "byte 2");
    assert_int_equal(err.pos, 2);
    err = (gist_error){ 0 };
    assert_fails(tok_template_input(t, paper, "\xC3", 1, false, &v, &err), &err, GIST_ERR_TEXT, "input");
    err = (gist_error){ 0 };
    assert_fails(tok_template_prompt(t, tok_template_find("chatml"), "x", 1, &v, &err), &err, GIST_ERR_UNSUPPORTED,
                 "<|im_start|>");
    err = (gist_error){ 0 };
    assert_fails(tok_template_input(t, tok_template_find("llama3"), "x", 1, false, &v, &err), &err,
                 GIST_ERR_UNSUPPORTED, "<|start_header_id|>");
    assert_int_equal(v.n, 0);
    tok_ids_free(&v);
    tok_close(t);
}

/* ---- the law ---- */

static void assert_law(const tokenizer *t, const char *name, const char *prompt, int k, const char *input) {
    gist_error err = { 0 };
    assert_ok(
        tok_template_law(t, tok_template_find(name), prompt, strlen(prompt), k, input, input ? strlen(input) : 0, &err),
        &err);
}

static void test_law(void **state) {
    (void)state;
    static const struct {
        const char *model, *templates[4];
    } models[] = { { "llama", { "paper", "raw" } },           { "plain.model", { "paper", "raw" } },
                   { "suffix.model", { "paper", "raw" } },    { "gpt2", { "paper", "raw" } },
                   { "sp.json", { "paper", "raw" } },         { "qwen2", { "paper", "raw", "chatml" } },
                   { "bytes", { "paper", "raw", "llama3" } }, { "tiktoken", { "paper", "raw", "llama3" } } };
    static const char *const texts[] = { "the shop",   " the \n",    "a<GIST>b", "<s></s><|im_end|><|eot_id|>",
                                         "\u0301mark", "été <tool>", "x\n\n",    "\u2581\u2581",
                                         "word",       "日本語",     "<GIS",     "T>",
                                         "1234" };
    enum { TEXTS = sizeof texts / sizeof *texts };
    for (size_t m = 0; m < sizeof models / sizeof *models; m++) {
        tokenizer *t = open_fixture(models[m].model);
        gist_error err = { 0 };
        if (tok_gist(t) < 0) assert_ok(tok_add_gist(t, tok_size(t), &err), &err);
        for (int n = 0; n < 4 && models[m].templates[n]; n++)
            for (int i = 0; i < TEXTS; i++)
                for (int j = -1; j < TEXTS; j++)
                    assert_law(t, models[m].templates[n], texts[i], 1 + (i + j + 1) % 3, j < 0 ? NULL : texts[j]);
        tok_close(t);
    }
}

/* A tokenizer that breaks the law says so: its added token "x<GIST>" takes a gist token in. */
static void test_law_broken(void **state) {
    (void)state;
    static const char json[] =
        "{\"added_tokens\":[{\"id\":1,\"content\":\"<GIST>\",\"special\":true},"
        "{\"id\":2,\"content\":\">x\",\"special\":false},{\"id\":3,\"content\":\"x<GIST>\",\"special\":false}],"
        "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
        "\"model\":{\"type\":\"BPE\",\"unk_token\":\"x\",\"vocab\":{\"x\":0},\"merges\":[]}}";
    tokenizer *t = NULL;
    gist_error err = { 0 };
    assert_ok(tok_parse(json, sizeof json - 1, NULL, &t, &err), &err);
    assert_int_equal(tok_gist(t), 1);
    assert_law(t, "raw", "y", 2, "y");
    assert_fails(tok_template_law(t, tok_template_find("raw"), "yx", 2, 1, "y", 1, &err), &err, GIST_ERR_TEXT,
                 "token 1");
    assert_int_equal(err.pos, 1);
    err = (gist_error){ 0 };
    assert_fails(tok_template_law(t, tok_template_find("raw"), "y", 1, 0, "y", 1, &err), &err, GIST_ERR_USAGE, NULL);
    tok_close(t);
}

/* gisting.md: the published mean length of the human split, counted on the shared data. */
static void test_paper_lengths(void **state) {
    (void)state;
    char path[TEST_PATH], human[TEST_PATH];
    tokenizer *t = NULL;
    gist_error err = { 0 };
    size_t len, rows = 0, tokens = 0;
    NEED_DATA(path, "tokenizers/llama/tokenizer.model");
    NEED_DATA(human, "alpaca_plus/validation_human.jsonl");
    assert_ok(tok_open(path, NULL, &t, &err), &err);
    assert_ok(tok_add_gist(t, 32000, &err), &err);
    char *all = (char *)test_read(human, &len), *save = NULL;
    for (char *line = strtok_r(all, "\n", &save); line; line = strtok_r(NULL, "\n", &save), rows++) {
        json_t *row = NULL;
        tok_ids ids;
        tok_ids_init(&ids, NULL);
        assert_ok(json_bytes(line, strlen(line), "row", &row, &err), &err);
        const char *prompt = json_text(row, "instruction", ""), *input = json_text(row, "input", "");
        assert_ok(tok_template_prompt(t, tok_template_find("paper"), prompt, strlen(prompt), &ids, &err), &err);
        assert_ok(tok_template_input(t, tok_template_find("paper"), input, strlen(input), false, &ids, &err), &err);
        assert_law(t, "paper", prompt, 1, input);
        tokens += ids.n + 1;
        tok_ids_free(&ids);
        json_decref(row);
    }
    free(all);
    tok_close(t);
    assert_int_equal(rows, 252);
    assert_int_equal((100 * tokens + rows / 2) / rows, 6883); /* mean 68.83 */
}

/* ---- chat templates of files ---- */

/* From both places that Hugging Face keeps it in, and through arrays and files that we write. */
static void test_chat_template(void **state) {
    (void)state;
    static const struct {
        const char *config, *file, *want;
    } from[] = {
        { "{\"chat_template\":\"A {{ x }}\"}", NULL, "A {{ x }}" },
        { "{\"chat_template\":[{\"name\":\"tool\",\"template\":\"T\"},{\"name\":\"default\",\"template\":\"D\"}]}",
          NULL, "D" },
        { "{\"chat_template\":\"A\"}", "of its own\n", "of its own\n" },
        { "{\"chat_template\":[]}", NULL, NULL },
    };
    for (int i = 0; i < 4; i++) {
        char dir[TEST_PATH], path[TEST_PATH + 64], name[16];
        size_t len;
        char *model = read_fixture("plain.model", &len);
        snprintf(name, sizeof name, "chat%d", i);
        mkdir(test_tmp(dir, name), 0700);
        snprintf(path, sizeof path, "%s/tokenizer.model", dir);
        test_write(path, model, len);
        snprintf(path, sizeof path, "%s/tokenizer_config.json", dir);
        test_write(path, from[i].config, strlen(from[i].config));
        snprintf(path, sizeof path, "%s/chat_template.jinja", dir);
        if (from[i].file) test_write(path, from[i].file, strlen(from[i].file));
        tokenizer *t = NULL;
        gist_error err = { 0 };
        assert_ok(tok_open(dir, NULL, &t, &err), &err);
        tokenizer *parts = NULL, *files = NULL;
        tok_parts p;
        assert_ok(tok_parts_of(t, 0, &p, &err), &err);
        assert_ok(tok_open_parts(&p, NULL, &parts, &err), &err);
        tok_parts_free(&p);
        snprintf(name, sizeof name, "out%d", i);
        mkdir(test_tmp(dir, name), 0700);
        assert_ok(tok_write_dir(t, dir, &err), &err);
        assert_ok(tok_open(dir, NULL, &files, &err), &err);
        const tokenizer *const all[] = { t, parts, files };
        for (int k = 0; k < 3; k++) {
            const char *got = tok_chat_template(all[k]);
            if (from[i].want)
                assert_string_equal(got, from[i].want);
            else
                assert_null(got);
        }
        tok_close(files);
        tok_close(parts);
        tok_close(t);
        free(model);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),    cmocka_unit_test(test_broken_bytes),
        cmocka_unit_test(test_stream_edges),  cmocka_unit_test(test_stream_no_memory),
        cmocka_unit_test(test_answer_stream), cmocka_unit_test(test_paper),
        cmocka_unit_test(test_raw),           cmocka_unit_test(test_chatml),
        cmocka_unit_test(test_llama3),        cmocka_unit_test(test_template_errors),
        cmocka_unit_test(test_law),           cmocka_unit_test(test_law_broken),
        cmocka_unit_test(test_paper_lengths), cmocka_unit_test(test_chat_template),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
