/* test_train_data.c - rows of JSON to token ids: columns, conversations, grouping, cutting, leaving out, messages. */
#include "testing.h"

#include "token/token_int.h"
#include "train/train.h"

typedef struct bed {
    tokenizer *t;
    train_data_options opt;
} bed;

static bed open_bed(const char *name, const char *tp) {
    char path[TEST_PATH];
    gist_error err = { 0 };
    bed b = { .opt = { .tp = tok_template_find(tp), .max_length = 4096, .gists = 1 } };
    assert_non_null(b.opt.tp);
    assert_ok(tok_open(test_fixture(path, name), NULL, &b.t, &err), &err);
    return b;
}

static train_set read_ok(const bed *b, const char *text) {
    train_set set;
    gist_error err = { 0 };
    assert_ok(train_data_parse(&set, text, strlen(text), "t.jsonl", b->t, &b->opt, NULL, &err), &err);
    return set;
}

static void read_fails(const bed *b, const char *text, gist_status code, const char *message) {
    train_set set = { .pairs = 77 };
    gist_error err = { 0 };
    assert_fails(train_data_parse(&set, text, strlen(text), "t.jsonl", b->t, &b->opt, NULL, &err), &err, code, message);
    assert_int_equal(set.pairs, 77);
}

static bool same_ids(const train_set *s, size_t at, int len, const tok_ids *want) {
    return (size_t)len == want->n && memcmp(s->ids + at, want->id, want->n * sizeof *want->id) == 0;
}

/* ids of prompt, rest and answer are those of the template functions, the answer with its end. */
static void check_pair(const bed *b, const train_set *s, int i, const char *prompt, const char *input,
                       const char *answer) {
    gist_error err = { 0 };
    tok_ids v;
    tok_ids_init(&v, NULL);
    const train_pair *p = &s->pair[i];
    assert_ok(tok_template_prompt(b->t, b->opt.tp, prompt, strlen(prompt), &v, &err), &err);
    assert_true(same_ids(s, s->prompt[p->prompt].ids, s->prompt[p->prompt].len, &v));
    v.n = 0;
    assert_ok(tok_template_input(b->t, b->opt.tp, input, strlen(input), false, &v, &err), &err);
    assert_true(same_ids(s, p->input, p->input_len, &v));
    v.n = 0;
    assert_ok(tok_template_answer(b->t, b->opt.tp, answer, strlen(answer), &v, &err), &err);
    assert_ok(tok_ids_push(&v, tok_template_end(b->t, b->opt.tp), &err), &err);
    assert_true(same_ids(s, p->answer, p->answer_len, &v));
    tok_ids_free(&v);
}

#define ROW(t, x, y) "{\"instruction\":\"" t "\",\"input\":\"" x "\",\"output\":\"" y "\"}\n"

static void instruction_rows(void **state) {
    (void)state;
    bed b = open_bed("token/llama", "paper");
    train_set s = read_ok(&b, ROW("say it", "one", "two") "\n  \r\n"
                                                          "{\"instruction\":\"other\",\"output\":\"three\"}\r\n" ROW(
                                                              "say it", "four", "five"));
    assert_int_equal(s.read, 3);
    assert_int_equal(s.prompts, 2);
    assert_int_equal(s.pairs, 3);
    assert_int_equal(s.prompt[0].pairs, 2); /* the third row joins the first */
    check_pair(&b, &s, 0, "say it", "one", "two");
    check_pair(&b, &s, 1, "say it", "four", "five");
    check_pair(&b, &s, 2, "other", "", "three");
    assert_int_equal(s.pair[1].row, 5);
    assert_int_equal(s.pair[2].row, 4);
    train_data_free(&s);

    s = read_ok(&b, " ["
                    "{\"instruction\":\"a b\",\"input\":null,\"output\":\"c\",\"more\":[1]},"
                    "{\"instruction\":\"d\",\"input\":\"e\",\"output\":\"f\"}]");
    assert_int_equal(s.pairs, 2);
    check_pair(&b, &s, 0, "a b", "", "c");
    assert_int_equal(s.pair[1].row, 2);
    train_data_free(&s);

    b.opt.limit = 1;
    s = read_ok(&b, ROW("a", "b", "c") ROW("d", "e", "f") "not JSON");
    assert_int_equal(s.pairs, 1);
    train_data_free(&s);
    tok_close(b.t);
}

/* A prompt's ids are kept from row to row: the next one's are its own, however alike the texts are. */
static void prompts_in_a_row(void **state) {
    (void)state;
    static const char *const prompts[] = { "say it", "say it", "say It", "say it", "say it ", "say", "say", "say" };
    bed b = open_bed("token/llama", "paper");
    train_set s = read_ok(
        &b,
        ROW("say it", "x", "y") ROW("say it", "x", "y") ROW("say It", "x", "y") ROW("say it", "x", "y")
            ROW("say it ", "x", "y") ROW("say", "x", "y") ROW(" ", "x", "y") ROW(
                "say", "x",
                "y") "{\"messages\":[{\"role\":\"system\",\"content\":\"say\"},{\"role\":\"user\",\"content\":\"x\"},"
                     "{\"role\":\"assistant\",\"content\":\"y\"}]}");
    assert_int_equal(s.pairs, 8);
    for (int i = 0; i < 8; i++) {
        int row = s.pair[i].row - (s.pair[i].row > 7);
        check_pair(&b, &s, i, prompts[row - 1], "x", "y");
    }
    train_data_free(&s);
    tok_close(b.t);
}

/* Every answer is a pair whose rest is all that was said before: the ids of the text as a whole. */
static void conversations(void **state) {
    (void)state;
    static const char *const beds[][2] = { { "token/qwen2", "chatml" } };
    static const char row[] = "{\"messages\":[{\"role\":\"system\",\"content\":\"be nice\"},"
                              "{\"role\":\"user\",\"content\":\"hi\"},{\"role\":\"assistant\",\"content\":\"hello\"},"
                              "{\"role\":\"user\",\"content\":\"more\"},{\"role\":\"assistant\",\"content\":\"yes\"},"
                              "{\"role\":\"user\",\"content\":\"unanswered\"}]}";
    static const char whole[] = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nhello<|im_end|>\n"
                                "<|im_start|>user\nmore<|im_end|>\n<|im_start|>assistant\nyes<|im_end|>";
    bed b = open_bed(beds[0][0], beds[0][1]);
    train_set s = read_ok(&b, row);
    gist_error err = { 0 };
    tok_ids v;
    tok_ids_init(&v, NULL);
    assert_int_equal(s.pairs, 2);
    assert_int_equal(s.prompts, 1);
    assert_int_equal(s.read, 2);
    check_pair(&b, &s, 0, "be nice", "hi", "hello");
    assert_ok(tok_encode(b.t, whole, strlen(whole), TOK_SPECIAL, &v, &err), &err);
    const train_pair *p = &s.pair[1];
    assert_int_equal(p->input_len + p->answer_len, v.n);
    assert_memory_equal(s.ids + p->input, v.id, (size_t)p->input_len * sizeof(int32_t));
    assert_memory_equal(s.ids + p->answer, v.id + p->input_len, (size_t)p->answer_len * sizeof(int32_t));
    tok_ids_free(&v);
    train_data_free(&s);

    read_fails(&b, "{\"messages\":[]}", GIST_ERR_FORMAT, "nothing to train on");
    read_fails(&b, "{\"messages\":3}", GIST_ERR_FORMAT, "line 1: \"messages\" is not an array");
    read_fails(&b,
               "{\"messages\":[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"assistant\",\"content\":\"a\"},"
               "{\"role\":\"user\",\"content\":\"u\"}]}",
               GIST_ERR_FORMAT, "message 2: the role is \"assistant\"");
    read_fails(&b, "{\"messages\":[{\"role\":\"system\",\"content\":[1]}]}", GIST_ERR_FORMAT,
               "\"content\" is not a string");
    read_fails(&b, "{\"messages\":[{\"role\":\"user\",\"content\":\"u\"},{\"role\":\"assistant\",\"content\":\"a\"}]}",
               GIST_ERR_FORMAT, "1 without a prompt");
    read_fails(&b,
               "{\"messages\":[{\"role\":\"system\",\"content\":\" \"},{\"role\":\"user\",\"content\":\"u\"},"
               "{\"role\":\"assistant\",\"content\":\"a\"},{\"role\":\"user\",\"content\":\"u\"},"
               "{\"role\":\"assistant\",\"content\":\"a\"}]}",
               GIST_ERR_FORMAT, "2 rows: 0 pairs of 0 prompts; left out: 2 without");
    b.opt.tp = tok_template_find("raw");
    read_fails(&b, row, GIST_ERR_FORMAT, "one turn only");
    b.opt.tp = tok_template_find("llama3");
    read_fails(&b, row, GIST_ERR_UNSUPPORTED, NULL);
    tok_close(b.t);
}

static void left_out_and_cut(void **state) {
    (void)state;
    bed b = open_bed("token/llama", "paper");
    train_set s = read_ok(&b, ROW("a", "b", "") ROW("a", "b", " \\n") ROW(" ", "b", "c") ROW("a", "b", "c"));
    assert_int_equal(s.read, 4);
    assert_int_equal(s.no_answer, 2);
    assert_int_equal(s.no_prompt, 1);
    assert_int_equal(s.pairs, 1);
    sbuf text;
    sbuf_init(&text, NULL);
    train_data_describe(&s, &text);
    assert_string_equal(text.p, "4 rows: 1 pairs of 1 prompts; left out: 1 without a prompt, 2 without an answer");
    sbuf_free(&text);
    int p = s.prompt[0].len, rest = s.pair[0].input_len, answer = s.pair[0].answer_len;
    train_data_free(&s);
    assert_true(answer >= 2);

    /* exactly fitting; the end cut; one token left; nothing left */
    for (int spare = answer; spare >= 0; spare--) {
        b.opt.gists = 3;
        b.opt.max_length = p + 3 + rest + spare;
        if (spare == 0) {
            read_fails(&b, ROW("a", "b", "c"), GIST_ERR_FORMAT, "1 with no room for the answer");
            break;
        }
        s = read_ok(&b, ROW("a", "b", "c"));
        assert_int_equal(s.pair[0].answer_len, spare);
        assert_int_equal(s.cut, spare < answer);
        train_data_free(&s);
    }
    tok_close(b.t);

    /* An encoder's source and answer apart: each is cut by itself, the source in front of its end. */
    b = open_bed("token/llama", "paper");
    b.opt.encoder = true;
    b.opt.gists = 3;
    s = read_ok(&b, ROW("a", "b c d e", "f g h"));
    train_set whole = s;
    for (int less = 0; less < 3; less++) {
        b.opt.max_length = whole.prompt[0].len + 3 + whole.pair[0].input_len - less;
        b.opt.max_answer = whole.pair[0].answer_len - less;
        s = read_ok(&b, ROW("a", "b c d e", "f g h"));
        int n = s.pair[0].input_len;
        assert_int_equal(n, whole.pair[0].input_len - less);
        assert_int_equal(s.pair[0].answer_len, whole.pair[0].answer_len - less);
        assert_int_equal(s.cut, less > 0);
        assert_memory_equal(s.ids + s.pair[0].input, whole.ids + whole.pair[0].input, (size_t)(n - 1) * sizeof *s.ids);
        assert_int_equal(s.ids[s.pair[0].input + (size_t)n - 1], tok_eos(b.t));
        train_data_free(&s);
    }
    b.opt.max_length = whole.prompt[0].len + 3;
    read_fails(&b, ROW("a", "b c d e", "f g h"), GIST_ERR_FORMAT, "1 with no room for the answer");
    train_data_free(&whole);
    tok_close(b.t);

    /* Behind a chat template's newline another one would be part of the same token. */
    b = open_bed("token/qwen2", "chatml");
    s = read_ok(&b, ROW("a", "b", "\\n\\nc") ROW("a", "b", "c"));
    assert_int_equal(s.law + s.pairs, 2);
    train_data_free(&s);
    tok_close(b.t);
}

/* The law is looked at once for a prompt and once for an input: rows are judged as if each stood alone.  Tokens of this
 * vocabulary take a gist token in, from either side. */
static void law_by_sides(void **state) {
    (void)state;
    static const char json[] =
        "{\"added_tokens\":[{\"id\":1,\"content\":\"<GIST>\",\"special\":true},"
        "{\"id\":2,\"content\":\"x<GIST>\",\"special\":false},"
        "{\"id\":3,\"content\":\"<GIST>z\",\"special\":false},"
        "{\"id\":4,\"content\":\"</s>\",\"special\":true}],"
        "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
        "\"model\":{\"type\":\"BPE\",\"unk_token\":\"x\",\"vocab\":{\"x\":0},\"merges\":[]}}";
    static const char *const prompts[] = { "y", "yx", "yy" }, *const inputs[] = { "zy", "y", "yz", "zz", "x" };
    enum { PROMPTS = 3, INPUTS = 5 };
    bed b = { .opt = { .tp = tok_template_find("raw"), .max_length = 64, .gists = 1 } };
    gist_error err = { 0 };
    char rows[4096] = "";
    size_t n = 0;
    int law = 0;
    assert_ok(tok_parse(json, sizeof json - 1, NULL, &b.t, &err), &err);
    b.t->eos = 4;
    for (int i = 0; i < PROMPTS * INPUTS; i++) {
        const char *prompt = prompts[i / INPUTS], *input = inputs[i % INPUTS];
        n += (size_t)snprintf(rows + n, sizeof rows - n, ROW("%s", "%s", "y"), prompt, input);
        law += prompt[1] == 'x' || input[0] == 'z';
    }
    train_set s = read_ok(&b, rows);
    assert_int_equal(s.law, law);
    assert_int_equal(s.pairs, PROMPTS * INPUTS - law);
    for (int i = 0; i < s.pairs; i++) assert_int_equal((s.pair[i].row - 1) % INPUTS % 3 != 0, 1);
    train_data_free(&s);
    tok_close(b.t);
}

static void bad_files(void **state) {
    (void)state;
    bed b = open_bed("token/llama", "paper");
    static const struct {
        const char *text, *message;
    } bad[] = {
        { "", "empty" },
        { " \n\n", "empty" },
        { ROW("a", "b", "c") "{\"instruction\": ", "t.jsonl: line 2: not JSON" },
        { "{\"instruction\":\"a\"}", "line 1: \"output\" is missing" },
        { ROW("a", "b", "c") "\n{\"output\":\"a\"}", "line 3: \"instruction\" is missing" },
        { "{\"instruction\":1,\"output\":\"a\"}", "\"instruction\" is not a string" },
        { "17", "line 1: not JSON" },
        { "[1]", "row 1: not a JSON object" },
        { "[]", "nothing to train on" },
        { "[{\"instruction\":\"a\",\"output\":\"b\"}", "t.jsonl" },
        { ROW("\xff", "b", "c"), "UTF-8" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) read_fails(&b, bad[i].text, GIST_ERR_FORMAT, bad[i].message);
    read_fails(&b, "\x28\xb5\x2f\xfd....", GIST_ERR_UNSUPPORTED, "compressed");
    b.opt.max_length = 2;
    read_fails(&b, ROW("a", "b", "c"), GIST_ERR_USAGE, "no room");
    b.opt.max_length = 100;
    b.opt.tp = tok_template_find("raw"); /* nothing between gist and answer */
    read_fails(&b, "{\"instruction\":\"a\",\"output\":\"b\"}", GIST_ERR_TEXT, "line 1: without an input");
    gist_error err = { 0 };
    train_set s;
    assert_fails(train_data_read(&s, "/nowhere.jsonl", b.t, &b.opt, NULL, &err), &err, GIST_ERR_IO, "/nowhere.jsonl");
    tok_close(b.t);
}

static bed memory_bed;

static gist_status read_with(void *ctx, const gist_allocator *alloc) {
    const char *text = ctx;
    train_set s = { .alloc = alloc };
    hash128 h;
    gist_status st = train_data_parse(&s, text, strlen(text), "t", memory_bed.t, &memory_bed.opt, alloc, NULL);
    if (st == GIST_OK) st = train_data_hash(&s, &h, NULL);
    train_data_free(&s);
    return st;
}

static void every_allocation(void **state) {
    (void)state;
    memory_bed = open_bed("token/llama", "paper");
    assert_true(test_each_alloc(read_with, ROW("a", "b", "c") ROW("d", "e", "f") ROW("a", "g", "h")) > 4);
    tok_close(memory_bed.t);
}

static void identity(void **state) {
    (void)state;
    bed b = open_bed("token/llama", "paper");
    static const char *const texts[] = { ROW("a", "b", "c"), ROW("a", "b", "d"), ROW("a", "b b", "c"),
                                         ROW("a", "b", "c") ROW("a", "b", "c") };
    hash128 h[5];
    for (int i = 0; i < 5; i++) {
        train_set s = read_ok(&b, texts[i % 4]);
        assert_ok(train_data_hash(&s, &h[i], NULL), NULL);
        train_data_free(&s);
    }
    assert_memory_equal(&h[0], &h[4], sizeof h[0]);
    for (int i = 1; i < 4; i++) assert_memory_not_equal(&h[0], &h[i], sizeof h[0]);
    tok_close(b.t);
}

/* The published splits: nothing but the three empty-ish rows is left out, and the paper's lengths are met. */
static void published_data(void **state) {
    (void)state;
    char model[TEST_PATH], data[TEST_PATH];
    NEED_DATA(model, "tokenizers/llama/tokenizer.model");
    NEED_DATA(data, "alpaca_plus/validation_human.jsonl");
    gist_error err = { 0 };
    bed b = { .opt = { .tp = tok_template_find("paper"), .max_length = 768, .gists = 1 } };
    train_set s;
    assert_ok(tok_open(model, NULL, &b.t, &err), &err);
    assert_ok(tok_add_gist(b.t, 32000, &err), &err);
    assert_ok(train_data_read(&s, data, b.t, &b.opt, NULL, &err), &err);
    sbuf text;
    sbuf_init(&text, NULL);
    train_data_describe(&s, &text);
    print_message("human: %s\n", text.p);
    sbuf_free(&text);
    assert_int_equal(s.read, 252);
    double sum = 0;
    for (int i = 0; i < s.pairs; i++) sum += s.prompt[s.pair[i].prompt].len + 1 + s.pair[i].input_len;
    assert_int_equal(s.pairs, 252);
    assert_true(sum / s.pairs > 68.82 && sum / s.pairs < 68.84);
    train_data_free(&s);
    tok_close(b.t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(instruction_rows), cmocka_unit_test(prompts_in_a_row), cmocka_unit_test(conversations),
        cmocka_unit_test(left_out_and_cut), cmocka_unit_test(law_by_sides),     cmocka_unit_test(bad_files),
        cmocka_unit_test(every_allocation),
        cmocka_unit_test(identity),         cmocka_unit_test(published_data),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
