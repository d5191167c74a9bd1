/* test_token.c - text -> ids: every kind of tokenizer against ids of the reference libraries.
 *
 *   tests/data/token/cases.txt   model TAB text TAB ids   (tools/make_token_fixtures.py)
 *   shared data                  llama.cpp's vectors, 46 texts for each of four vocabularies
 */
#include "token_testing.h"

static void test_cases(void **state) {
    (void)state;
    size_t len, cases = 0, models = 0;
    char *all = read_fixture("cases.txt", &len), *save = NULL, name[64] = "";
    tokenizer *t = NULL;
    for (char *line = strtok_r(all, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        if (line[0] == '#') continue;
        char *text = strchr(line, '\t'), *ids = text ? strchr(text + 1, '\t') : NULL;
        assert_non_null(ids);
        *text++ = *ids++ = 0;
        if (strcmp(line, name) != 0) {
            tok_close(t);
            snprintf(name, sizeof name, "%s", line);
            t = open_fixture(name);
            models++;
        }
        bool special = strcmp(name, "bytes") == 0 || strstr(name, ".json");
        assert_ids(t, text, unescape(text), special ? TOK_SPECIAL : 0, ids);
        cases++;
    }
    tok_close(t);
    free(all);
    assert_int_equal(models, 17);
    assert_true(cases > 510);
}

/* ---- llama.cpp's vectors ---- */

static void run_vectors(const char *model, const char *vectors) {
    static const char end[] = "\n__ggml_vocab_test__\n";
    char path[TEST_PATH], name[256];
    gist_error err = { 0 };
    tokenizer *t = NULL;
    size_t n = 0, len;
    snprintf(name, sizeof name, "tokenizers/%s", model);
    NEED_DATA(path, name);
    assert_ok(tok_open(path, NULL, &t, &err), &err);
    snprintf(name, sizeof name, "tokenizers/vectors/ggml-vocab-%s.gguf.inp", vectors);
    NEED_DATA(path, name);
    char *inp = (char *)test_read(path, &len);
    snprintf(name, sizeof name, "tokenizers/vectors/ggml-vocab-%s.gguf.out", vectors);
    NEED_DATA(path, name);
    char *out = (char *)test_read(path, &len), *s = inp, *o = out;
    for (char *next; (next = strstr(s, end)) != NULL; s = next + sizeof end - 1, n++) {
        char *line_end = strchr(o, '\n');
        assert_non_null(line_end);
        *line_end = 0;
        assert_ids(t, s, (size_t)(next - s), 0, o + (*o == ' '));
        o = line_end + 1;
    }
    assert_int_equal(n, 46);
    free(inp);
    free(out);
    tok_close(t);
}

static void test_vectors_llama_spm(void **state) {
    (void)state;
    run_vectors("llama/tokenizer.model", "llama-spm");
}

static void test_vectors_gpt2_json(void **state) {
    (void)state;
    run_vectors("gpt2/tokenizer.json", "gpt-2");
}

static void test_vectors_gpt2_merges(void **state) {
    (void)state;
    run_vectors("gpt2/vocab.json", "gpt-2");
}

static void test_vectors_llama_bpe(void **state) {
    (void)state;
    run_vectors("llama3/tokenizer.model", "llama-bpe");
}

static void test_vectors_qwen2(void **state) {
    (void)state;
    run_vectors("qwen2", "qwen2");
}

static void test_vectors_qwen2_lf(void **state) {
    (void)state;
    run_vectors("qwen2/merges.lf.txt", "qwen2");
}

/* ---- what a tokenizer says of itself ---- */

static void test_llama_dir(void **state) {
    (void)state;
    tokenizer *t = open_fixture("llama");
    size_t len;
    assert_string_equal(tok_kind(t), "sentencepiece-bpe");
    assert_int_equal(tok_size(t), 421);
    assert_int_equal(tok_bos(t), 1);
    assert_int_equal(tok_eos(t), 2);
    assert_true(tok_adds_bos(t));
    assert_true(tok_is_end(t, 2) && tok_is_end(t, 7) && !tok_is_end(t, 1) && !tok_is_end(t, -1));
    assert_int_equal(tok_gist(t), 420);
    assert_int_equal(tok_find(t, "<GIST>"), 420);
    assert_int_equal(tok_find(t, "<0x0A>"), 13);
    assert_int_equal(tok_find(t, "no such piece"), -1);
    assert_string_equal(tok_piece(t, 13, &len), "<0x0A>");
    assert_int_equal(len, 6);
    assert_null(tok_piece(t, 421, &len));
    assert_null(tok_piece(t, -1, NULL));
    assert_true(tok_is_special(t, 0) && tok_is_special(t, 1) && tok_is_special(t, 420));
    assert_false(tok_is_special(t, 13) || tok_is_special(t, 300) || tok_is_special(t, 9999) || tok_is_special(t, -5));
    assert_ids(t, "", 0, TOK_BOS, "1");
    tok_close(t);
}

static void test_other_dirs(void **state) {
    (void)state;
    tokenizer *t = open_fixture("bytes");
    int32_t bos = tok_find(t, "<|begin_of_text|>"), eot = tok_find(t, "<|eot_id|>");
    assert_string_equal(tok_kind(t), "byte-bpe");
    assert_true(tok_adds_bos(t) && bos > 0 && tok_bos(t) == bos);
    assert_true(tok_eos(t) == eot && tok_is_end(t, eot));
    tok_close(t);
    t = open_fixture("qwen2");
    assert_int_equal(tok_bos(t), -1);
    assert_false(tok_adds_bos(t));
    assert_int_equal(tok_eos(t), tok_find(t, "<|im_end|>"));
    assert_ids(t, "<|im_end|>", 10, TOK_SPECIAL | TOK_BOS, "402");
    tok_close(t);
    t = open_fixture("tiktoken");
    int32_t n = tok_find(t, "<|begin_of_text|>");
    assert_string_equal(tok_kind(t), "tiktoken");
    assert_true(tok_adds_bos(t) && tok_bos(t) == n && tok_eos(t) == n + 1 && tok_size(t) == n + 256);
    assert_int_equal(tok_find(t, "<|start_header_id|>"), n + 6);
    assert_int_equal(tok_find(t, "<|end_header_id|>"), n + 7);
    assert_int_equal(tok_find(t, "<|reserved_special_token_4|>"), n + 8);
    assert_int_equal(tok_find(t, "<|eot_id|>"), n + 9);
    assert_int_equal(tok_find(t, "<|reserved_special_token_5|>"), n + 10);
    assert_int_equal(tok_find(t, "<|reserved_special_token_250|>"), n + 255);
    assert_true(tok_is_end(t, n + 1) && tok_is_end(t, n + 9));
    tok_close(t);
}

static void test_fingerprint(void **state) {
    (void)state;
    static const char *const names[] = { "llama",
                                         "plain.model",
                                         "suffix.model",
                                         "unused.model",
                                         "bytes",
                                         "gpt2",
                                         "qwen2",
                                         "tiktoken",
                                         "sp.json",
                                         "mapped.model",
                                         "unigram.model",
                                         "t5",
                                         "llama/tokenizer.model" };
    enum { N = sizeof names / sizeof *names };
    hash128 h[N];
    gist_error err = { 0 };
    for (int i = 0; i < N; i++) {
        tokenizer *t = open_fixture(names[i]);
        h[i] = tok_fingerprint(t);
        if (i > 0 && tok_gist(t) < 0) {
            assert_ok(tok_add_gist(t, tok_size(t) + 3, &err), &err);
            hash128 after = tok_fingerprint(t);
            assert_memory_equal(&h[i], &after, sizeof after);
        }
        tok_close(t);
    }
    for (int i = 0; i < N - 1; i++)
        for (int j = 0; j < i; j++) assert_memory_not_equal(&h[i], &h[j], sizeof h[i]);
    assert_memory_equal(&h[0], &h[N - 1], sizeof h[0]); /* the directory and its file are the same tokenizer */
}

static void test_add_gist(void **state) {
    (void)state;
    gist_error err = { 0 };
    tokenizer *t = open_fixture("plain.model");
    int n = tok_size(t);
    assert_int_equal(tok_gist(t), -1);
    assert_fails(tok_add_gist(t, 3, &err), &err, GIST_ERR_FORMAT, "is given to");
    err = (gist_error){ 0 };
    assert_fails(tok_add_gist(t, -1, &err), &err, GIST_ERR_LIMIT, NULL);
    err = (gist_error){ 0 };
    assert_ok(tok_add_gist(t, n + 5, &err), &err);
    assert_int_equal(tok_gist(t), n + 5);
    assert_int_equal(tok_size(t), n + 6);
    assert_null(tok_piece(t, n + 2, NULL));
    assert_true(tok_is_special(t, n + 5));
    assert_ok(tok_add_gist(t, n + 5, &err), &err);
    assert_fails(tok_add_gist(t, n + 6, &err), &err, GIST_ERR_MISMATCH, "already");
    tok_ids ids;
    tok_ids_init(&ids, NULL);
    err = (gist_error){ 0 };
    assert_ok(tok_encode(t, "a \n<GIST>\t<GIST> b", 18, TOK_SPECIAL, &ids, &err), &err);
    assert_true(ids.n >= 4 && ids.id[ids.n / 2 - 1] == n + 5 && ids.id[ids.n / 2] == n + 5);
    tok_ids_free(&ids);
    tok_close(t);
}

/* Long runs: the merge loop and the splitter must not be quadratic.  Minutes if they were. */
static void test_long_runs(void **state) {
    (void)state;
    static const char *const models[] = { "llama",   "plain.model",  "bytes",         "qwen2", "tiktoken",
                                          "sp.json", "mapped.model", "unigram.model", "t5" };
    static const char *const runs[] = { "a", " ", "\n", "<", "\xCC\x80\xCC\x96", "\xE2\x96\x81", "the" };
    enum { SIZE = 1 << 18 };
    char *s = malloc(SIZE + 8);
    for (size_t m = 0; m < sizeof models / sizeof *models; m++) {
        tokenizer *t = open_fixture(models[m]);
        for (size_t r = 0; r < sizeof runs / sizeof *runs; r++) {
            size_t len = 0, n = strlen(runs[r]);
            gist_error err = { 0 };
            tok_ids ids;
            tok_ids_init(&ids, NULL);
            for (; len + n <= SIZE; len += n) memcpy(s + len, runs[r], n);
            assert_ok(tok_encode(t, s, len, TOK_SPECIAL, &ids, &err), &err);
            tok_ids_free(&ids);
        }
        tok_close(t);
    }
    free(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_vectors_llama_spm),
        cmocka_unit_test(test_vectors_gpt2_json),
        cmocka_unit_test(test_vectors_gpt2_merges),
        cmocka_unit_test(test_vectors_llama_bpe),
        cmocka_unit_test(test_vectors_qwen2),
        cmocka_unit_test(test_vectors_qwen2_lf),
        cmocka_unit_test(test_llama_dir),
        cmocka_unit_test(test_other_dirs),
        cmocka_unit_test(test_fingerprint),
        cmocka_unit_test(test_add_gist),
        cmocka_unit_test(test_long_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
