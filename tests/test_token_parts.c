/* test_token_parts.c - vocabularies as arrays, as GGUF files have them, and written Hugging Face files: the tokenizer
 * that comes back is the one that was there.
 *
 *   tests/data/token    every small tokenizer -> arrays -> tokenizer, and -> files -> tokenizer
 *   shared data         llama.cpp's vocabulary-only GGUF files, against the same vocabularies' other files
 */
#include "token_testing.h"

#include <sys/stat.h>

#include "engine/engine.h"

static const char *const texts[] = {
    "",
    " ",
    "  the shop  opens at nine ",
    "it's WE'VE 12345 3.14 \r\n\r\nend\r\n",
    "B\303\244ckerei e\xCC\x81te\xCC\x81 \xE2\x84\xAB \xEF\xAC\x81ve",
    "\xE6\x97\xA5\xE6\x9C\xAC\xE8\xAA\x9E \xF0\x9F\x9A\x80 x\xE3\x80\x80y",
    "the shop \n<GIST> <GIST>\n\n the <s>order</s> <tool>word<|im_end|> <|eot_id|>x",
    "\xE2\x96\x81the\xE2\x96\x81 <0x0A> <unk> then there, inner order shop",
    "aaaaaaaaaaaaaaaannnnnnnnnnn",
};
enum { TEXTS = sizeof texts / sizeof *texts };

/* Do both give the same ids, of texts, with and without special tokens, BOS and EOS? */
static void assert_same_ids(const tokenizer *a, const tokenizer *b, const char *what) {
    static const unsigned flags[] = { 0, TOK_SPECIAL | TOK_BOS | TOK_EOS };
    for (int i = 0; i < 2 * TEXTS; i++) {
        const char *text = texts[i / 2];
        tok_ids x, y;
        gist_error err = { 0 }, err2 = { 0 };
        tok_ids_init(&x, NULL);
        tok_ids_init(&y, NULL);
        gist_status st = tok_encode(a, text, strlen(text), flags[i % 2], &x, &err);
        assert_int_equal(tok_encode(b, text, strlen(text), flags[i % 2], &y, &err2), st);
        if (x.n != y.n || (x.n && memcmp(x.id, y.id, x.n * sizeof *x.id) != 0))
            fail_msg("%s: other ids for \"%s\"", what, text);
        tok_ids_free(&x);
        tok_ids_free(&y);
    }
}

static void assert_same(const tokenizer *a, const tokenizer *b, bool same_print, const char *what) {
    hash128 x = tok_fingerprint(a), y = tok_fingerprint(b);
    int32_t ends[2][64];
    assert_same_ids(a, b, what);
    if ((memcmp(&x, &y, sizeof x) == 0) != same_print)
        fail_msg("%s: fingerprints are %s", what, same_print ? "different" : "the same");
    assert_int_equal(tok_size(a), tok_size(b));
    assert_int_equal(tok_bos(a), tok_bos(b));
    assert_int_equal(tok_eos(a), tok_eos(b));
    assert_int_equal(tok_gist(a), tok_gist(b));
    assert_int_equal(tok_adds_bos(a), tok_adds_bos(b));
    assert_int_equal(tok_adds_eos(a), tok_adds_eos(b));
    for (int32_t id = -1; id <= tok_size(a); id++) {
        const char *s = tok_piece(a, id, NULL), *other = tok_piece(b, id, NULL);
        if ((s == NULL) != (other == NULL) || (s && strcmp(s, other) != 0))
            fail_msg("%s: token %d is \"%s\" and \"%s\"", what, id, s ? s : "", other ? other : "");
        assert_int_equal(tok_is_special(a, id), tok_is_special(b, id));
    }
    int n = tok_ends(a, ends[0], 64);
    for (int i = 0; i < n; i++) assert_true(tok_is_end(a, ends[0][i]));
}

static tokenizer *through_parts(const tokenizer *t, int rows, const char *what) {
    tok_parts p;
    tokenizer *back = NULL;
    gist_error err = { 0 };
    gist_status st = tok_parts_of(t, rows, &p, &err);
    if (st == GIST_OK) st = tok_open_parts(&p, NULL, &back, &err);
    if (st != GIST_OK) fail_msg("%s: %s", what, err.msg);
    assert_int_equal(p.tokens, rows ? rows : tok_size(t));
    tok_parts_free(&p);
    return back;
}

static tokenizer *through_files(const tokenizer *t, const char *what) {
    char dir[TEST_PATH], name[160];
    tokenizer *back = NULL;
    gist_error err = { 0 };
    snprintf(name, sizeof name, "out-%s", what);
    for (char *s = name; *s; s++)
        if (*s == '/') *s = '-';
    mkdir(test_tmp(dir, name), 0700);
    assert_ok(tok_write_dir(t, dir, &err), &err);
    gist_status st = tok_open(dir, NULL, &back, &err);
    if (st != GIST_OK) fail_msg("%s: %s", what, err.msg);
    return back;
}

/* ---- there and back ---- */

static const char *const models[] = { "llama",           "plain.model",
                                      "unused.model",    "mapped.model",
                                      "unigram.model",   "t5",
                                      "gpt2/vocab.json", "qwen2",
                                      "tiktoken",        "sp.json",
                                      "suffix.model",    "bytes",
                                      "meta-first.json", "meta-always.json",
                                      "meta-split.json", "meta-never.json",
                                      "normalized.json" };
enum { MODELS = sizeof models / sizeof *models, IN_ARRAYS = 10 };

/* Arrays cannot say that "<s>" is not BOS, so sp.json is read with the file beside it that such models have. */
static tokenizer *open_with_bos(const char *name) {
    static const char config[] = "{\"bos_token\":\"<s>\",\"eos_token\":\"</s>\",\"add_bos_token\":true}";
    char dir[TEST_PATH], path[TEST_PATH + 64];
    tokenizer *t = NULL;
    gist_error err = { 0 };
    if (strcmp(name, "sp.json") != 0) return open_fixture(name);
    size_t len;
    char *json = read_fixture(name, &len);
    mkdir(test_tmp(dir, "sp"), 0700);
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    test_write(path, json, len);
    snprintf(path, sizeof path, "%s/tokenizer_config.json", dir);
    test_write(path, config, sizeof config - 1);
    free(json);
    assert_ok(tok_open(dir, NULL, &t, &err), &err);
    return t;
}

static void test_arrays(void **state) {
    (void)state;
    for (int i = 0; i < IN_ARRAYS; i++) {
        tokenizer *t = open_with_bos(models[i]);
        bool other_kind = strcmp(models[i], "tiktoken") == 0 || strcmp(models[i], "sp.json") == 0;
        tokenizer *back = through_parts(t, 0, models[i]), *twice = through_parts(back, tok_size(t) + 3, models[i]);
        assert_same(t, back, !other_kind, models[i]);
        assert_same(back, twice, true, models[i]);
        tok_close(twice);
        tok_close(back);
        tok_close(t);
    }
}

static void test_not_in_arrays(void **state) {
    (void)state;
    static const char *const why[] = {
        "suffixes",           "no name",   "in front of some texts", "in front of some texts", "in front of some texts",
        "strips white space", "normalized"
    };
    for (int i = IN_ARRAYS; i < MODELS; i++) {
        tok_parts p = tok_parts_none();
        gist_error err = { 0 };
        tokenizer *t = open_fixture(models[i]);
        assert_fails(tok_parts_of(t, 0, &p, &err), &err, GIST_ERR_UNSUPPORTED, why[i - IN_ARRAYS]);
        assert_null(p.token);
        tok_close(t);
    }
    tok_parts p;
    gist_error err = { 0 };
    tokenizer *t = open_fixture("llama");
    assert_fails(tok_parts_of(t, tok_size(t) - 1, &p, &err), &err, GIST_ERR_MISMATCH, "rows for 420");
    tok_close(t);
}

static void test_files(void **state) {
    (void)state;
    for (int i = 0; i < MODELS; i++) {
        tokenizer *t = open_fixture(models[i]), *back = through_files(t, models[i]);
        assert_same(t, back, strcmp(models[i], "tiktoken") != 0, models[i]);
        tok_close(back);
        tok_close(t);
    }
}

/* <GIST> behind the last piece, and behind a gap. */
static void test_with_gist(void **state) {
    (void)state;
    static const char *const names[] = { "plain.model", "gpt2/vocab.json", "tiktoken", "t5" };
    for (int i = 0; i < 8; i++) {
        tokenizer *t = open_fixture(names[i / 2]);
        gist_error err = { 0 };
        assert_ok(tok_add_gist(t, tok_size(t) + (i % 2 ? 4 : 0), &err), &err);
        tokenizer *parts = through_parts(t, 0, names[i / 2]), *files = through_files(t, names[i / 2]);
        assert_int_equal(tok_gist(parts), tok_gist(t));
        assert_int_equal(tok_gist(files), tok_gist(t));
        assert_same_ids(t, parts, names[i / 2]);
        assert_same_ids(t, files, names[i / 2]);
        tok_close(files);
        tok_close(parts);
        tok_close(t);
    }
}

/* ---- GGUF files ---- */

static tokenizer *open_gguf(const char *path) {
    gguf_file g;
    tokenizer *t = NULL;
    gist_error err = { 0 };
    assert_ok(gguf_open(&g, NULL, path, &err), &err);
    assert_ok(vocabulary_open(&g, NULL, &t, &err), &err);
    gguf_close(&g);
    return t;
}

static void test_llama_gguf(void **state) {
    (void)state;
    char gguf[TEST_PATH], model[TEST_PATH];
    tokenizer *t = NULL;
    gist_error err = { 0 };
    NEED_DATA(gguf, "tokenizers/vectors/ggml-vocab-llama-spm.gguf");
    NEED_DATA(model, "tokenizers/llama/tokenizer.model");
    assert_ok(tok_open(model, NULL, &t, &err), &err);
    tokenizer *of = open_gguf(gguf);
    assert_same(t, of, true, "llama-spm");
    assert_true(tok_is_end(of, 2) && tok_adds_bos(of));
    tok_close(of);
    tok_close(t);
}

static void test_gpt2_gguf(void **state) {
    (void)state;
    char gguf[TEST_PATH], dir[TEST_PATH];
    tokenizer *t = NULL;
    gist_error err = { 0 };
    NEED_DATA(gguf, "tokenizers/vectors/ggml-vocab-gpt-2.gguf");
    NEED_DATA(dir, "tokenizers/gpt2");
    assert_ok(tok_open(dir, NULL, &t, &err), &err);
    tokenizer *of = open_gguf(gguf);
    assert_same(t, of, true, "gpt-2");
    tok_close(of);
    tok_close(t);
}

/* The large vocabularies of which there is no GGUF file. */
static void test_large(void **state) {
    (void)state;
    static const char *const names[] = { "tokenizers/qwen2", "tokenizers/llama3/tokenizer.model", "tokenizers/t5" };
    for (int i = 0; i < 3; i++) {
        char path[TEST_PATH];
        tokenizer *t = NULL;
        gist_error err = { 0 };
        NEED_DATA(path, names[i]);
        assert_ok(tok_open(path, NULL, &t, &err), &err);
        tokenizer *back = through_parts(t, tok_size(t) + 100, names[i]);
        assert_same(t, back, i != 1, names[i]);
        tok_close(back);
        tok_close(t);
    }
}

/* ---- what converters write ---- */

#define T(s)                                                                                                           \
    { s, sizeof(s) - 1 }
enum { WORDS = 14 };

/* A small SentencePiece vocabulary, for each test to bend. */
typedef struct small {
    tok_text token[WORDS];
    float score[WORDS];
    int32_t type[WORDS];
    tok_parts p;
} small;

static void make_small(small *s) {
    static const tok_text words[WORDS] = { T("<unk>"),
                                           T("<s>"),
                                           T("</s>"),
                                           T("\xE2\x96\x81"),
                                           T("a"),
                                           T("b"),
                                           T("ab"),
                                           T("\xE2\x96\x81"
                                             "ab"),
                                           T("c"),
                                           T("<tool>"),
                                           T("<GIST>"),
                                           T("[PAD11]"),
                                           T("[PAD12]"),
                                           T("abc") };
    static const float scores[WORDS] = { 0, 0, 0, -4, -5, -6, -1, -2, -7, 0, 0, 0, 0, -3 };
    static const int32_t types[WORDS] = { 2, 3, 3, 1, 1, 1, 1, 1, 1, 4, 3, 5, 5, 1 };
    memcpy(s->token, words, sizeof words);
    memcpy(s->score, scores, sizeof scores);
    memcpy(s->type, types, sizeof types);
    s->p = tok_parts_none();
    s->p.model = (tok_text)T("llama");
    s->p.token = s->token;
    s->p.score = s->score;
    s->p.type = s->type;
    s->p.tokens = WORDS;
}

static tokenizer *open_small(const small *s) {
    tokenizer *t = NULL;
    gist_error err = { 0 };
    assert_ok(tok_open_parts(&s->p, NULL, &t, &err), &err);
    return t;
}

static void test_small(void **state) {
    (void)state;
    small s;
    make_small(&s);
    tokenizer *t = open_small(&s);
    assert_ids(t, "abc", 3, TOK_BOS, "1 7 8");
    assert_ids(t, "c<tool>ab", 9, 0, "3 8 9 6"); /* a piece of the model: what follows is no new word */
    assert_ids(t, "c <GIST> <s>ab", 14, TOK_SPECIAL, "3 8 10 1 7");
    assert_ids(t, "xc", 2, TOK_EOS, "3 0 8 2");
    assert_null(tok_piece(t, 11, NULL)); /* padding */
    assert_true(tok_gist(t) == 10 && tok_bos(t) == 1 && tok_eos(t) == 2 && tok_adds_bos(t) && tok_size(t) == WORDS);
    hash128 plain = tok_fingerprint(t);
    tok_close(t);
    /* as a converter writes it that took the specials from a list of added tokens */
    for (int i = 0; i < 3; i++) s.score[i] = -1000.0f;
    s.type[0] = 3;
    s.p.unk = 0;
    s.p.bos = 1;
    s.p.eos = 2;
    t = open_small(&s);
    hash128 same = tok_fingerprint(t);
    assert_memory_equal(&plain, &same, sizeof same);
    assert_ids(t, "xc", 2, TOK_EOS, "3 0 8 2");
    tok_close(t);
    s.score[9] = -1000.0f; /* an added token: what follows starts like a new word */
    s.p.add_bos = 0;
    t = open_small(&s);
    assert_ids(t, "c<tool>ab", 9, 0, "3 8 9 7");
    assert_false(tok_adds_bos(t) || tok_is_special(t, 9));
    tok_close(t);
    s.p.add_space_prefix = 0;
    s.p.remove_extra_whitespaces = 1;
    t = open_small(&s);
    assert_ids(t, "ab  ab ", 7, 0, "6 7");
    tok_close(t);
}

static void test_ends(void **state) {
    (void)state;
    const int32_t ends[] = { 4, 5, -1 };
    small s;
    make_small(&s);
    s.p.eos = 10;
    s.p.pad = 9;
    s.p.end = ends;
    s.p.ends = 3;
    tokenizer *t = open_small(&s);
    int32_t got[4];
    assert_int_equal(tok_ends(t, got, 4), 3);
    assert_true(got[0] == 10 && got[1] == 4 && got[2] == 5);
    assert_int_equal(tok_ends(t, got, 1), 3);
    assert_true(tok_is_special(t, 9)); /* the padding token, whatever its type says */
    tok_close(t);
}

/* ---- byte-level: names of splits, special tokens by type, chat templates ---- */

typedef struct letters { /* the 256 bytes, then `more` */
    char text[256][4];
    tok_text token[272], merge[1];
    int32_t type[272];
    tok_parts p;
} letters;

static void make_letters(letters *l, const char *pre, const char *const *more, int32_t more_type) {
    for (int b = 0; b < 256; b++) {
        l->token[b] = (tok_text){ l->text[b], (size_t)utf8_encode(byte_letter((uint8_t)b), l->text[b]) };
        l->type[b] = 1;
    }
    size_t n = 256;
    l->token[n] = (tok_text)T("ab");
    l->type[n++] = 1;
    for (; more && *more; more++) {
        l->token[n] = (tok_text){ *more, strlen(*more) };
        l->type[n++] = more_type;
    }
    l->merge[0] = (tok_text)T("a b");
    l->p = tok_parts_none();
    l->p.model = (tok_text)T("gpt2");
    l->p.pre = (tok_text){ pre, pre ? strlen(pre) : 0 };
    l->p.token = l->token;
    l->p.type = l->type;
    l->p.tokens = n;
    l->p.merge = l->merge;
    l->p.merges = 1;
}

static void test_splits(void **state) {
    (void)state;
    static const struct {
        const char *name, *written;
        bool bos;
    } known[] = {
        { "gpt-2", "gpt-2", false },     { "default", "gpt-2", false },     { "llama-bpe", "llama-bpe", true },
        { "llama3", "llama-bpe", true }, { "llama-v3", "llama-bpe", true }, { "qwen2", "qwen2", false },
        { "smollm", "smollm", false },
    };
    static const char *const bos[] = { "<|bos|>", NULL };
    letters l;
    gist_error err = { 0 };
    tokenizer *t = NULL;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        make_letters(&l, known[i].name, bos, 3);
        l.p.bos = 257;
        assert_ok(tok_open_parts(&l.p, NULL, &t, &err), &err);
        assert_ids(t, "12ab", 4, 0, "49 50 256");
        assert_int_equal(tok_adds_bos(t), known[i].bos);
        tok_parts p;
        assert_ok(tok_parts_of(t, 0, &p, &err), &err);
        assert_int_equal(p.pre.len, strlen(known[i].written));
        assert_memory_equal(p.pre.p, known[i].written, p.pre.len);
        tok_parts_free(&p);
        tok_close(t);
    }
    static const char *const unknown[] = { "tekken", "", "gpt-22", "deepseek-llm" };
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        make_letters(&l, unknown[i], bos, 3);
        err = (gist_error){ 0 };
        assert_fails(tok_open_parts(&l.p, NULL, &t, &err), &err, GIST_ERR_UNSUPPORTED, unknown[i]);
    }
    make_letters(&l, NULL, bos, 3);
    err = (gist_error){ 0 };
    assert_fails(tok_open_parts(&l.p, NULL, &t, &err), &err, GIST_ERR_UNSUPPORTED, "tokenizer.ggml.pre");
}

/* A split that has no name is kept as its expression: here each letter is a word, so "ab" does not merge. */
static void test_pattern(void **state) {
    (void)state;
    static const char *const bos[] = { "<|bos|>", NULL };
    letters l;
    gist_error err = { 0 };
    tokenizer *t = NULL, *again = NULL;
    tok_parts p;
    make_letters(&l, "default", bos, 3);
    l.p.pattern = (tok_text)T("[a-z]|[^a-z]+");
    assert_ok(tok_open_parts(&l.p, NULL, &t, &err), &err);
    assert_ids(t, "12ab", 4, 0, "49 50 97 98");
    assert_ok(tok_parts_of(t, 0, &p, &err), &err);
    assert_memory_equal(p.pre.p, "default", p.pre.len);
    assert_int_equal(p.pattern.len, l.p.pattern.len);
    assert_memory_equal(p.pattern.p, l.p.pattern.p, p.pattern.len);
    assert_ok(tok_open_parts(&p, NULL, &again, &err), &err);
    assert_same(t, again, true, "a pattern");
    tok_parts_free(&p);
    tok_close(again);
    tok_close(t);
    static const char *const bad[] = { "(", "[a", "" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        l.p.pattern = (tok_text){ bad[i], strlen(bad[i]) };
        err = (gist_error){ 0 };
        assert_true(tok_open_parts(&l.p, NULL, &t, &err) != GIST_OK);
    }
}

static void test_chat(void **state) {
    (void)state;
    static const char *const chatml[] = { "<|im_start|>", "<|im_end|>", "<|endoftext|>", NULL };
    static const char *const llama3[] = { "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
                                          NULL };
    letters l;
    for (int32_t type = 3; type <= 4; type++) { /* control; user defined is no special token */
        for (int k = 0; k < 2; k++) {
            tokenizer *t = NULL;
            gist_error err = { 0 };
            tok_ids v;
            make_letters(&l, k ? "llama-bpe" : "qwen2", k ? llama3 : chatml, type);
            l.p.chat_template = (tok_text)T("{{ messages }}");
            assert_ok(tok_open_parts(&l.p, NULL, &t, &err), &err);
            assert_string_equal(tok_chat_template(t), "{{ messages }}");
            const tok_template *tp = tok_template_find(k ? "llama3" : "chatml");
            tok_ids_init(&v, NULL);
            gist_status st = tok_template_input(t, tp, "ab", 2, true, &v, &err);
            assert_int_equal(st, type == 3 ? GIST_OK : GIST_ERR_UNSUPPORTED);
            assert_int_equal(tok_is_end(t, tok_template_end(t, tp)), type == 3);
            if (type == 3) assert_int_equal(v.id[0], tok_find(t, k ? "<|start_header_id|>" : "<|im_start|>"));
            tok_ids_free(&v);
            tok_close(t);
        }
    }
}

/* ---- hostile arrays ---- */

static void assert_bad(const tok_parts *p, gist_status code, const char *text) {
    tokenizer *t = NULL;
    gist_error err = { 0 };
    assert_fails(tok_open_parts(p, NULL, &t, &err), &err, code, text);
    assert_null(t);
}

#define BEND(change, code, text)                                                                                       \
    do {                                                                                                               \
        make_small(&s);                                                                                                \
        change;                                                                                                        \
        assert_bad(&s.p, code, text);                                                                                  \
    } while (0)

static void test_hostile(void **state) {
    (void)state;
    static const uint8_t map[] = { 8, 0, 0, 0, 1, 2 };
    static char big[TOK_MAX_PIECE + 1];
    const int32_t bad_end = WORDS;
    small s;
    memset(big, 'x', sizeof big);
    tok_parts none = tok_parts_none();
    assert_bad(&none, GIST_ERR_FORMAT, "no tokens");
    BEND(s.p.tokens = 0, GIST_ERR_FORMAT, "no tokens");
    BEND(s.p.tokens = TOK_MAX_IDS + 1, GIST_ERR_LIMIT, "tokens");
    BEND(s.p.merges = TOK_MAX_MERGES + 1, GIST_ERR_LIMIT, "merges");
    BEND(s.p.merges = 1, GIST_ERR_UNSUPPORTED, "1 merges");
    BEND(s.p.model = (tok_text)T("bert"), GIST_ERR_UNSUPPORTED, "\"bert\"");
    BEND(s.p.model = (tok_text){ 0 }, GIST_ERR_UNSUPPORTED, "kind");
    BEND(s.p.score = NULL, GIST_ERR_FORMAT, "no scores");
    BEND(s.p.type = NULL, GIST_ERR_FORMAT, "no types");
    BEND(s.p.bos = WORDS, GIST_ERR_FORMAT, "bos_token_id");
    BEND(s.p.eos = -2, GIST_ERR_FORMAT, "eos_token_id");
    BEND(s.p.unk = INT32_MAX, GIST_ERR_FORMAT, "unknown_token_id");
    BEND(s.p.pad = INT32_MIN, GIST_ERR_FORMAT, "padding_token_id");
    BEND((s.p.end = &bad_end, s.p.ends = 1), GIST_ERR_FORMAT, "ends answers is 14");
    BEND(s.p.bos = 11, GIST_ERR_FORMAT, "no text");
    BEND(s.p.unk = 4, GIST_ERR_FORMAT, "piece 0 is the unknown");
    BEND(s.type[0] = 1, GIST_ERR_FORMAT, "unknown");
    BEND(s.type[4] = 2, GIST_ERR_FORMAT, "both the unknown");
    BEND(s.type[4] = 0, GIST_ERR_FORMAT, "type 0");
    BEND(s.type[4] = 7, GIST_ERR_FORMAT, "type 7");
    BEND(s.type[4] = -1, GIST_ERR_FORMAT, "type -1");
    BEND(s.type[4] = 6, GIST_ERR_FORMAT, "<0xHH>");
    BEND((s.type[4] = 6, s.token[4] = (tok_text)T("<0x41>")), GIST_ERR_FORMAT, "<0x00> is missing");
    BEND(s.score[5] = 1.0f / 0.0f, GIST_ERR_FORMAT, "score");
    BEND(s.score[5] = 0.0f / 0.0f, GIST_ERR_FORMAT, "score");
    BEND(s.token[5].p = NULL, GIST_ERR_FORMAT, "token 5");
    BEND(s.token[5].len = 0, GIST_ERR_FORMAT, "empty");
    BEND(s.token[5] = (tok_text)T("\xFF"), GIST_ERR_FORMAT, "UTF-8");
    BEND(s.token[5] = (tok_text)T("b\0b"), GIST_ERR_FORMAT, "NUL");
    BEND(s.token[5] = (tok_text)T("a"), GIST_ERR_FORMAT, "ids 4 and 5");
    BEND((s.token[5] = (tok_text){ big, sizeof big }), GIST_ERR_LIMIT, "bytes");
    BEND((s.p.charsmap = map, s.p.charsmap_len = sizeof map), GIST_ERR_FORMAT, "charsmap");
    BEND(s.p.chat_template = (tok_text)T("a\0"), GIST_ERR_FORMAT, "chat template");
    BEND((s.p.chat_template = (tok_text){ big, TOK_MAX_CHAT + 1 }), GIST_ERR_LIMIT, "chat template");
}

static void test_hostile_letters(void **state) {
    (void)state;
    static const char *const more[] = { "<x>", NULL };
    static const tok_text merges[] = { T("a c"), T("ab"), T("a b c"), T(""), T("a  b"), T("abc d"), { NULL, 0 } };
    letters l;
    for (size_t i = 0; i < sizeof merges / sizeof *merges; i++) {
        make_letters(&l, "gpt-2", more, 3);
        l.merge[0] = merges[i];
        assert_bad(&l.p, GIST_ERR_FORMAT, "merge 0");
    }
    make_letters(&l, "gpt-2", more, 3);
    l.p.merges = 0;
    assert_bad(&l.p, GIST_ERR_FORMAT, "without merges");
    make_letters(&l, "gpt-2", more, 6);
    assert_bad(&l.p, GIST_ERR_UNSUPPORTED, "byte piece");
    make_letters(&l, "gpt-2", more, 3);
    l.p.charsmap = "x";
    l.p.charsmap_len = 1;
    assert_bad(&l.p, GIST_ERR_UNSUPPORTED, "map of characters");
    make_letters(&l, "gpt-2", more, 3);
    l.token[257] = (tok_text)T("ab");
    assert_bad(&l.p, GIST_ERR_FORMAT, "\"ab\"");
}

/* ---- memory, disk ---- */

static gist_status there_and_back(void *ctx, const gist_allocator *alloc) {
    char path[TEST_PATH], dir[TEST_PATH];
    tokenizer *t = NULL, *back = NULL, *again = NULL;
    tok_parts p = tok_parts_none();
    gist_error err = { 0 };
    gist_status st = tok_open(test_fixture(path, ctx), alloc, &t, &err);
    if (st == GIST_OK) st = tok_parts_of(t, tok_size(t) + 2, &p, &err);
    if (st == GIST_OK) st = tok_open_parts(&p, alloc, &back, &err);
    if (st == GIST_OK) st = tok_write_dir(back, test_tmp(dir, "memory"), &err);
    if (st == GIST_OK) st = tok_open(dir, alloc, &again, &err);
    assert_int_equal(st, err.code);
    if (st != GIST_OK && st != GIST_ERR_MEMORY) print_message("%s: %s\n", (const char *)ctx, err.msg);
    tok_close(again);
    tok_close(back);
    tok_close(t);
    tok_parts_free(&p);
    return st;
}

static void test_no_memory(void **state) {
    (void)state;
    static const char *const names[] = { "token/llama", "token/qwen2", "token/tiktoken", "token/t5" };
    char dir[TEST_PATH], path[TEST_PATH + 64];
    mkdir(test_tmp(dir, "memory"), 0700);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        static const char *const files[] = { "tokenizer.json", "tokenizer.model", "spiece.model",
                                             "tokenizer_config.json" };
        for (int k = 0; k < 4; k++) {
            snprintf(path, sizeof path, "%s/%s", dir, files[k]);
            remove(path);
        }
        assert_true(test_each_alloc(there_and_back, (void *)(uintptr_t)names[i]) > 40);
    }
}

static void test_no_directory(void **state) {
    (void)state;
    static const char *const names[] = { "plain.model", "qwen2" };
    for (int i = 0; i < 2; i++) {
        char dir[TEST_PATH];
        gist_error err = { 0 };
        tokenizer *t = open_fixture(names[i]);
        assert_fails(tok_write_dir(t, test_tmp(dir, "no/such/place"), &err), &err, GIST_ERR_IO, "no/such/place");
        tok_close(t);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arrays),
        cmocka_unit_test(test_not_in_arrays),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_with_gist),
        cmocka_unit_test(test_llama_gguf),
        cmocka_unit_test(test_gpt2_gguf),
        cmocka_unit_test(test_large),
        cmocka_unit_test(test_small),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_splits), cmocka_unit_test(test_pattern),
        cmocka_unit_test(test_chat),
        cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_hostile_letters),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_no_directory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
