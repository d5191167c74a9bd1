/* test_token_bad.c - tokenizers against bad texts, bad files and no memory: a status and a message, outputs untouched.
 * */
#include "token_testing.h"

#include <sys/stat.h>

/* ---- encoding: what fails, and leaves the output alone ---- */

static void test_bad_text(void **state) {
    (void)state;
    tokenizer *t = open_fixture("llama");
    tok_ids ids;
    gist_error err = { 0 };
    tok_ids_init(&ids, NULL);
    assert_ok(tok_ids_push(&ids, 77, &err), &err);
    assert_fails(tok_encode(t, "abc\xC3(", 5, TOK_BOS, &ids, &err), &err, GIST_ERR_TEXT, "byte 3");
    assert_int_equal(err.pos, 3);
    err = (gist_error){ 0 };
    assert_fails(tok_encode(t, "a\xED\xA0\x80", 4, 0, &ids, &err), &err, GIST_ERR_TEXT, NULL);
    err = (gist_error){ 0 };
    char *huge = malloc(TOK_MAX_TEXT + 1);
    memset(huge, 'a', TOK_MAX_TEXT + 1);
    assert_fails(tok_encode(t, huge, TOK_MAX_TEXT + 1, 0, &ids, &err), &err, GIST_ERR_LIMIT, "bytes");
    free(huge);
    assert_int_equal(ids.n, 1);
    assert_int_equal(ids.id[0], 77);
    tok_ids_free(&ids);
    tok_close(t);
}

/* A byte that the vocabulary lacks, after ids were put out already. */
static void test_missing_byte(void **state) {
    (void)state;
    static const char vocab[] = "{\"a\":0,\"b\":1,\"ab\":2}", merges[] = "#version: 0.2\na b\n";
    tokenizer *t = NULL;
    gist_error err = { 0 };
    tok_ids ids;
    tok_ids_init(&ids, NULL);
    assert_ok(tok_parse_gpt2(vocab, sizeof vocab - 1, merges, sizeof merges - 1, NULL, NULL, &t, &err), &err);
    assert_ids(t, "abba", 4, 0, "2 1 0");
    assert_fails(tok_encode(t, "ab!", 3, 0, &ids, &err), &err, GIST_ERR_TEXT, "0x21");
    assert_int_equal(ids.n, 0);
    tok_ids_free(&ids);
    tok_close(t);
}

/* ---- bad files ---- */

static void assert_bad(const void *bytes, size_t len, gist_status code, const char *text) {
    tokenizer *t = NULL;
    gist_error err = { 0 };
    assert_fails(tok_parse(bytes, len, NULL, &t, &err), &err, code, text);
    assert_null(t);
}

/* Every proper beginning of the file is an error, but `whole_at` bytes and beyond at ends of lines. */
static void truncate(const char *name, size_t whole_at) {
    size_t len;
    char *bytes = read_fixture(name, &len);
    for (size_t n = 0; n < len; n++) {
        char *exact = malloc(n ? n : 1); /* so that a sanitizer sees reads behind the end */
        memcpy(exact, bytes, n);
        tokenizer *t = NULL;
        gist_error err = { 0 };
        gist_status st = tok_parse(exact, n, NULL, &t, &err);
        bool line_end = n >= whole_at && (bytes[n] == '\n' || bytes[n - 1] == '\n');
        if (st == GIST_OK && !line_end) fail_msg("%s cut off at %zu of %zu bytes was accepted", name, n, len);
        assert_int_equal(st, err.code);
        tok_close(t);
        free(exact);
    }
    free(bytes);
}

static void test_truncated(void **state) {
    (void)state;
    truncate("llama/tokenizer.model", SIZE_MAX);
    truncate("plain.model", SIZE_MAX);
    truncate("mapped.model", SIZE_MAX);
    truncate("unigram.model", SIZE_MAX);
    truncate("t5/spiece.model", SIZE_MAX);
    truncate("sp.json", SIZE_MAX);
    truncate("bytes/tokenizer.json", SIZE_MAX);
    truncate("tiktoken/tokenizer.model", 256 * 8); /* a shorter list of ranks is a list of ranks */
}

static void test_truncated_pair(void **state) {
    (void)state;
    size_t v_len, m_len;
    char *v = read_fixture("gpt2/vocab.json", &v_len), *m = read_fixture("gpt2/merges.txt", &m_len);
    for (size_t n = 0; n <= v_len; n += n < v_len - 64 ? 7 : 1) {
        tokenizer *t = NULL;
        gist_error err = { 0 };
        gist_status st = tok_parse_gpt2(v, n, m, m_len, NULL, NULL, &t, &err);
        assert_int_equal(st == GIST_OK, n == v_len);
        tok_close(t);
    }
    for (size_t n = 0; n < m_len; n++) {
        tokenizer *t = NULL;
        gist_error err = { 0 };
        gist_status st = tok_parse_gpt2(v, v_len, m, n, NULL, NULL, &t, &err); /* some cuts are shorter lists */
        assert_int_equal(st, err.code);
        tok_close(t);
    }
    free(v);
    free(m);
}

/* One byte after another set to others: no crash, and a failure says so. */
static void test_flipped(void **state) {
    (void)state;
    static const char *const names[] = { "plain.model", "t5/spiece.model", "llama/tokenizer.model",
                                         "bytes/tokenizer.json" };
    for (size_t f = 0; f < sizeof names / sizeof *names; f++) {
        size_t len;
        char *bytes = read_fixture(names[f], &len);
        for (size_t n = 0, step = f > 1 ? 5 : 1; n < len; n += step) {
            char old = bytes[n];
            for (int k = 0; k < 3; k++) {
                bytes[n] = (char)(k == 0 ? 0xFF : k == 1 ? 0 : old ^ 0x10);
                tokenizer *t = NULL;
                gist_error err = { 0 };
                gist_status st = tok_parse(bytes, len, NULL, &t, &err);
                assert_int_equal(st, err.code);
                tok_close(t);
            }
            bytes[n] = old;
        }
        free(bytes);
    }
}

#define BAD(text, code, message) assert_bad(text, sizeof(text) - 1, code, message)
#define SP_PIECE(n, s) "\x0A" n s
#define SP_UNK SP_PIECE("\x09", "\x0A\x05<unk>\x18\x02")
#define SP_BPE "\x12\x02\x18\x02"
#define SP_NORM "\x1A\x00"

static void test_hostile_sentencepiece(void **state) {
    (void)state;
    static const char good[] = SP_UNK SP_PIECE("\x03", "\x0A\x01"
                                                       "a") SP_BPE SP_NORM;
    tokenizer *t = NULL;
    gist_error err = { 0 };
    assert_ok(tok_parse(good, sizeof good - 1, NULL, &t, &err), &err);
    tok_close(t);
    BAD("", GIST_ERR_FORMAT, NULL);
    BAD("\x0A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01", GIST_ERR_FORMAT, "cut off");
    BAD("\x0B\x0C", GIST_ERR_FORMAT, NULL); /* a group */
    BAD(SP_UNK SP_BPE, GIST_ERR_FORMAT, "normalizer_spec");
    BAD(SP_UNK "\x12\x02\x18\x03" SP_NORM, GIST_ERR_UNSUPPORTED, "word");
    BAD(SP_UNK SP_BPE "\x1A\x03\x12\x01x", GIST_ERR_FORMAT, "charsmap");
    BAD(SP_UNK SP_BPE SP_NORM "\x2A\x03\x12\x01x", GIST_ERR_UNSUPPORTED, "denormalizer_spec");
    BAD(SP_UNK SP_UNK SP_BPE SP_NORM, GIST_ERR_FORMAT, "ids 0 and 1");
    BAD(SP_PIECE("\x03", "\x0A\x01"
                         "a") SP_BPE SP_NORM,
        GIST_ERR_FORMAT, "unknown");
    BAD(SP_UNK SP_PIECE("\x02", "\x0A\x00") SP_BPE SP_NORM, GIST_ERR_FORMAT, "empty");
    BAD(SP_UNK SP_PIECE("\x03", "\x0A\x01\xFF") SP_BPE SP_NORM, GIST_ERR_FORMAT, "UTF-8");
    BAD(SP_UNK SP_PIECE("\x05", "\x0A\x01"
                                "a\x18\x07") SP_BPE SP_NORM,
        GIST_ERR_FORMAT, "type 7");
    BAD(SP_UNK SP_PIECE("\x05", "\x0A\x01"
                                "a\x18\x06") SP_BPE SP_NORM,
        GIST_ERR_FORMAT, "<0xHH>");
    BAD(SP_UNK SP_PIECE("\x08", "\x0A\x01"
                                "a\x15\x00\x00\xC0\x7F") SP_BPE SP_NORM,
        GIST_ERR_FORMAT, "score");
    BAD(SP_UNK "\x12\x05\x18\x02\x98\x02\x01" SP_NORM, GIST_ERR_FORMAT, "<0x00> is missing");
}

#define HF(vocab, merges, more)                                                                                        \
    "{\"pre_tokenizer\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":" vocab ",\"merges\":" merges   \
    "}" more "}"

static void test_hostile_json(void **state) {
    (void)state;
    static const char good[] = HF("{\"a\":0,\"b\":1,\"ab\":2}", "[\"a b\"]", "");
    tokenizer *t = NULL;
    gist_error err = { 0 };
    assert_ok(tok_parse(good, sizeof good - 1, NULL, &t, &err), &err);
    tok_close(t);
    BAD("{", GIST_ERR_FORMAT, "tokenizer.json");
    BAD("{}", GIST_ERR_UNSUPPORTED, NULL);
    BAD("{\"model\":{\"type\":\"WordPiece\",\"merges\":[]}}", GIST_ERR_UNSUPPORTED, "WordPiece");
    BAD("{\"model\":{\"type\":\"Unigram\"}}", GIST_ERR_UNSUPPORTED, "Unigram");
    BAD(HF("{}", "[]", ""), GIST_ERR_FORMAT, "vocabulary");
    BAD(HF("{\"a\":-1}", "[]", ""), GIST_ERR_FORMAT, "\"a\"");
    BAD(HF("{\"a\":1048576}", "[]", ""), GIST_ERR_FORMAT, "\"a\"");
    BAD(HF("{\"a\":1e3}", "[]", ""), GIST_ERR_FORMAT, "\"a\"");
    BAD(HF("{\"a\":1,\"b\":1}", "[]", ""), GIST_ERR_FORMAT, "\"a\" and to \"b\"");
    BAD(HF("{\"a\":1,\"a\":1}", "[]", ""), GIST_ERR_FORMAT, NULL);
    BAD(HF("{\"a\":1,\"\":2}", "[]", ""), GIST_ERR_FORMAT, "empty");
    BAD(HF("{\"a\":0}", "{}", ""), GIST_ERR_FORMAT, "merges");
    BAD(HF("{\"a\":0}", "[\"a a\"]", ""), GIST_ERR_FORMAT, "merge 0");
    BAD(HF("{\"a\":0}", "[\"a\"]", ""), GIST_ERR_FORMAT, "merge 0");
    BAD(HF("{\"a\":0}", "[[\"a\"]]", ""), GIST_ERR_FORMAT, "merge 0");
    BAD(HF("{\"a\":0}", "[7]", ""), GIST_ERR_FORMAT, "merge 0");
    BAD(HF("{\"a\":0}", "[]", ",\"normalizer\":{\"type\":\"Lowercase\"}"), GIST_ERR_UNSUPPORTED, "Lowercase");
    BAD(HF("{\"a\":0}", "[]", ",\"post_processor\":{\"type\":\"BertProcessing\"}"), GIST_ERR_UNSUPPORTED,
        "BertProcessing");
    BAD(HF("{\"a\":0}", "[]", ",\"added_tokens\":[{\"id\":1}]"), GIST_ERR_FORMAT, "added token 0");
    BAD(HF("{\"a\":0}", "[]", ",\"added_tokens\":[{\"id\":0,\"content\":\"b\"}]"), GIST_ERR_FORMAT, "\"b\"");
    BAD(HF("{\"a\":0}", "[]", ",\"added_tokens\":[{\"id\":1,\"content\":\"a\"}]"), GIST_ERR_FORMAT, "\"a\"");
#define PRE(p)                                                                                                         \
    "{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[" p                                                  \
    ",{\"type\":\"ByteLevel\"}]},\"model\":{\"vocab\":{\"a\":0},\"merges\":[]}}"
    BAD(PRE("{\"type\":\"Split\"}"), GIST_ERR_FORMAT, "pattern");
    BAD(PRE("{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"},\"behavior\":\"Isolated\"}"), GIST_ERR_UNSUPPORTED,
        "split pattern");
    BAD(PRE("{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\C\"},\"behavior\":\"Isolated\"}"), GIST_ERR_UNSUPPORTED,
        "split pattern");
    BAD(PRE("{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\"},\"behavior\":\"Contiguous\"}"), GIST_ERR_UNSUPPORTED,
        "Contiguous");
    BAD(PRE("{\"type\":\"Whitespace\"}"), GIST_ERR_UNSUPPORTED, "Whitespace");
    BAD(PRE("{\"type\":\"ByteLevel\"}"), GIST_ERR_UNSUPPORTED, "twice");
}

static void test_hostile_tiktoken(void **state) {
    (void)state;
    BAD("IQ== 5\n", GIST_ERR_FORMAT, "ranks");
    BAD("IQ== 0\nIg== 0\n", GIST_ERR_FORMAT, "id 0");
    BAD("IQ== 0\nIQ== 1\n", GIST_ERR_FORMAT, "ids 0 and 1");
    BAD("IQ== 0\nIg= 1\n", GIST_ERR_FORMAT, "line 2");
    BAD("IQ== 0\nIg==\n", GIST_ERR_FORMAT, "line 2");
    BAD("IQ== 0\nIg== 99999999999999999999\n", GIST_ERR_FORMAT, "line 2");
    BAD("IQ== 0\n==== 1\n", GIST_ERR_FORMAT, NULL);
}

/* A pattern that backtracks without end is stopped. */
static void test_evil_pattern(void **state) {
    (void)state;
    static const char json[] = PRE("{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(a+)+$\"},\"behavior\":\"Isolated\"}");
    tokenizer *t = NULL;
    gist_error err = { 0 };
    tok_ids ids;
    tok_ids_init(&ids, NULL);
    assert_ok(tok_parse(json, sizeof json - 1, NULL, &t, &err), &err);
    assert_fails(tok_encode(t, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab", 47, 0, &ids, &err), &err,
                 GIST_ERR_LIMIT, "steps");
    assert_int_equal(ids.n, 0);
    tok_ids_free(&ids);
    tok_close(t);
}

static void test_directories(void **state) {
    (void)state;
    char dir[TEST_PATH], path[TEST_PATH + 64];
    tokenizer *t = NULL;
    gist_error err = { 0 };
    assert_fails(tok_open("no/such/place", NULL, &t, &err), &err, GIST_ERR_IO, "no/such/place");
    err = (gist_error){ 0 };
    mkdir(test_tmp(dir, "empty"), 0700);
    assert_fails(tok_open(dir, NULL, &t, &err), &err, GIST_ERR_IO, "tokenizer.json");
    size_t len, m_len;
    char *v = read_fixture("gpt2/vocab.json", &len), *m = read_fixture("gpt2/merges.txt", &m_len);
    snprintf(path, sizeof path, "%s/vocab.json", dir);
    test_write(path, v, len);
    snprintf(path, sizeof path, "%s/merges.txt", dir);
    test_write(path, m, m_len);
    snprintf(path, sizeof path, "%s/tokenizer_config.json", dir);
    static const char bert[] = "{\"tokenizer_class\":\"BertTokenizer\"}";
    test_write(path, bert, sizeof bert - 1);
    err = (gist_error){ 0 };
    assert_fails(tok_open(dir, NULL, &t, &err), &err, GIST_ERR_UNSUPPORTED, "BertTokenizer");
    static const char clash[] =
        "{\"tokenizer_class\":\"GPT2Tokenizer\",\"added_tokens_decoder\":{\"5\":{\"content\":\"<x>\"}}}";
    test_write(path, clash, sizeof clash - 1);
    err = (gist_error){ 0 };
    assert_fails(tok_open(dir, NULL, &t, &err), &err, GIST_ERR_FORMAT, "<x>");
    static const char broken[] = "{\"tokenizer_class\":";
    test_write(path, broken, sizeof broken - 1);
    err = (gist_error){ 0 };
    assert_fails(tok_open(dir, NULL, &t, &err), &err, GIST_ERR_FORMAT, "tokenizer_config.json");
    free(v);
    free(m);
}

/* ---- memory ---- */

static gist_status open_and_use(void *ctx, const gist_allocator *alloc) {
    char path[TEST_PATH];
    tokenizer *t = NULL;
    gist_error err = { 0 };
    tok_ids ids;
    tok_ids_init(&ids, alloc);
    gist_status st = tok_open(test_fixture(path, ctx), alloc, &t, &err);
    static const char text[] = "the cafe\xCC\x81 <GIST> \xE2\x82\xAC 12";
    if (st == GIST_OK) st = tok_encode(t, text, sizeof text - 1, TOK_BOS | TOK_SPECIAL, &ids, &err);
    if (st == GIST_OK && tok_gist(t) < 0) st = tok_add_gist(t, tok_size(t), &err);
    if (st == GIST_OK) st = tok_template_law(t, tok_template_find("paper"), "the order", 9, 2, "one", 3, &err);
    assert_int_equal(st, err.code);
    if (st != GIST_OK && st != GIST_ERR_MEMORY) print_message("%s: %s\n", (const char *)ctx, err.msg);
    if (st != GIST_OK && t == NULL) assert_int_equal(ids.n, 0);
    tok_ids_free(&ids);
    tok_close(t);
    return st;
}

static void test_no_memory(void **state) {
    (void)state;
    static const char *const names[] = { "token/llama",        "token/unused.model", "token/bytes",
                                         "token/qwen2",        "token/tiktoken",     "token/sp.json",
                                         "token/mapped.model", "token/t5",           "token/unigram.model" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        assert_true(test_each_alloc(open_and_use, (void *)(uintptr_t)names[i]) > 20);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_text),     cmocka_unit_test(test_missing_byte),
        cmocka_unit_test(test_truncated),    cmocka_unit_test(test_truncated_pair),
        cmocka_unit_test(test_flipped),      cmocka_unit_test(test_hostile_sentencepiece),
        cmocka_unit_test(test_hostile_json), cmocka_unit_test(test_hostile_tiktoken),
        cmocka_unit_test(test_evil_pattern), cmocka_unit_test(test_directories),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
