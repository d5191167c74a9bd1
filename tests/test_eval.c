/* test_eval.c - gist eval's parts: TF-IDF and retention against values by hand, CSV there and back, batched answers
 * against one answer at a time, bit for bit. */
#include "testing.h"

#include <math.h>
#include <stdlib.h>

#include "eval/eval.h"
#include "tiny.h"

static eval_text text(const char *s) {
    return (eval_text){ s, strlen(s) };
}

/* ---- TF-IDF ---- */

static void kept(const eval_tfidf *t, const char *from, int words, const char *want) {
    sbuf out;
    gist_error err = { 0 };
    sbuf_init(&out, NULL);
    assert_ok(eval_tfidf_keep(t, text(from), words, &out, &err), &err);
    assert_string_equal(out.p, want);
    sbuf_free(&out);
}

static void tfidf_by_hand(void **state) {
    (void)state;
    static const char *const documents[] = { "the red fox", "The fox, the fox!", "the end of \xC3\x89t\xC3\xA9" };
    gist_error err = { 0 };
    eval_tfidf *t = NULL;
    assert_ok(eval_tfidf_create(mem_default(), &t, &err), &err);
    for (int i = 0; i < 3; i++) assert_ok(eval_tfidf_add(t, text(documents[i]), &err), &err);
    assert_float_equal(eval_tfidf_idf(t, text("the")), 1.0, 1e-12); /* ln(4/4) + 1 */
    assert_float_equal(eval_tfidf_idf(t, text("FOX")), log(4.0 / 3) + 1, 1e-12);
    assert_float_equal(eval_tfidf_idf(t, text("red")), log(4.0 / 2) + 1, 1e-12);
    assert_float_equal(eval_tfidf_idf(t, text("\xC3\xA9t\xC3\xA9")), log(4.0 / 2) + 1, 1e-12);
    assert_float_equal(eval_tfidf_idf(t, text("new")), log(4.0 / 1) + 1, 1e-12);
    kept(t, "the fox, THE Red", 1, "the");     /* 2 x 1, 1.29, 1.69 */
    kept(t, "the fox, THE Red", 2, "the Red"); /* in the text's order, as written */
    kept(t, "fox-new", 1, "new");
    kept(t, "zebra yak", 1, "zebra"); /* a tie */
    kept(t, "one two", 9, "one two");
    kept(t, "?!", 1, "?!");
    eval_tfidf_free(t);
}

/* In the tiny tokenizer a byte is a token, but for merges: " a", " the", " o", " w", " s", " b" begin words. */
static void kept_tokens(const eval_tfidf *t, const tokenizer *tok, const char *from, int tokens, const char *want) {
    sbuf out;
    gist_error err = { 0 };
    sbuf_init(&out, NULL);
    sbuf_str(&out, "|");
    assert_ok(eval_tfidf_keep_tokens(t, text(from), tok, tokens, &out, &err), &err);
    assert_string_equal(out.p + 1, want);
    sbuf_free(&out);
}

static void tfidf_of_tokens(void **state) {
    (void)state;
    static const char *const documents[] = { "ab", "ab cd", "ab cd xyz", "ab cd xyz" };
    tiny_model m = TINY_MODEL;
    gist_engine *e = tiny_open(&m, "eval", 1, GIST_KERNELS_AUTO, GIST_TYPE_AUTO, NULL);
    const tokenizer *tok = engine_tokenizer(e);
    gist_error err = { 0 };
    eval_tfidf *t = NULL;
    assert_ok(eval_tfidf_create(mem_default(), &t, &err), &err);
    for (int i = 0; i < 4; i++) assert_ok(eval_tfidf_add(t, text(documents[i]), &err), &err);
    tok_ids ids;
    tok_ids_init(&ids, NULL);
    assert_ok(tok_encode(tok, "a xyz", 5, 0, &ids, &err), &err);
    int xyz = (int)ids.n;
    ids.n = 0;
    assert_ok(tok_encode(tok, "a cd", 4, 0, &ids, &err), &err);
    int one = (int)ids.n;
    ids.n = 0;
    assert_ok(tok_encode(tok, "a", 1, 0, &ids, &err), &err);
    xyz -= (int)ids.n;
    int cd = one - (int)ids.n;
    tok_ids_free(&ids);
    assert_true(cd < xyz);
    static const char whole[] = "xyz, ab cd"; /* xyz first, then cd, then ab */
    kept_tokens(t, tok, whole, xyz, "xyz");
    kept_tokens(t, tok, whole, 1, "xyz"); /* the best word stays, whatever it takes */
    kept_tokens(t, tok, whole, xyz + cd, "xyz cd");
    kept_tokens(t, tok, whole, xyz + cd - 1, "xyz");
    kept_tokens(t, tok, whole, 100, "xyz ab cd");
    kept_tokens(t, tok, "cd ab xyz", xyz + cd, "cd xyz"); /* in the text's order */
    kept_tokens(t, tok, "?!", 1, "?!");
    eval_tfidf_free(t);
    gist_engine_close(e);
}

static void tfidf_many_words(void **state) {
    (void)state;
    gist_error err = { 0 };
    eval_tfidf *t = NULL;
    assert_ok(eval_tfidf_create(mem_default(), &t, &err), &err);
    for (int i = 0; i < 3000; i++) {
        char word[32];
        snprintf(word, sizeof word, "w%d all", i);
        assert_ok(eval_tfidf_add(t, text(word), &err), &err);
    }
    assert_float_equal(eval_tfidf_idf(t, text("w17")), log(3001.0 / 2) + 1, 1e-12);
    assert_float_equal(eval_tfidf_idf(t, text("all")), 1.0, 1e-12);
    eval_tfidf_free(t);
}

static gist_status tfidf_once(void *ctx, const gist_allocator *alloc) {
    (void)ctx;
    gist_error err = { 0 };
    eval_tfidf *t = NULL;
    sbuf out;
    sbuf_init(&out, alloc);
    gist_status status = eval_tfidf_create(alloc, &t, &err);
    if (status == GIST_OK) status = eval_tfidf_add(t, text("a b c"), &err);
    if (status == GIST_OK) status = eval_tfidf_keep(t, text("c d"), 1, &out, &err);
    sbuf_free(&out);
    eval_tfidf_free(t);
    return status;
}

/* ---- retention ---- */

enum { N = 6 };
static const int prompt_of[N] = { 0, 0, 0, 1, 2, 2 };

static void fill(eval_row rows[N], const double exact[N]) {
    for (int i = 0; i < N; i++) {
        rows[i] = (eval_row){ .predicted = 1, .expected = 1 };
        rows[i].score[EVAL_EXACT] = exact[i];
        rows[i].score[EVAL_ROUGE_L] = exact[i] / 2;
    }
}

static gist_status compare_once(void *ctx, const gist_allocator *alloc) {
    eval_row none[N], full[N], pos[N], gists[N];
    static const uint8_t first_and_last[N] = { 1, 1, 1, 0, 1, 1 };
    fill(none, (const double[N]){ 0, 0, 0, 0, 0, 1 });
    fill(full, (const double[N]){ 1, 0, 1, 0, 1, 1 });
    fill(pos, (const double[N]){ 1, 1, 1, 0, 1, 1 });
    fill(gists, (const double[N]){ 1, 0, 1, 1, 0, 1 });
    const eval_column column[] = { { none, NULL, 0, { 1, 2 } },  { full, NULL, 0, { 1, -1 } },
                                   { pos, NULL, -1, { 1, 2 } },  { gists, NULL, 0, { 1, 2 } },
                                   { gists, first_and_last, 0, { 1, 2 } } };
    gist_error err = { 0 };
    return eval_compare(column, 5, prompt_of, N, 3, 200, 7, alloc, ctx, &err);
}

static void retention_by_hand(void **state) {
    (void)state;
    eval_cell cell[5], again[5];
    assert_int_equal(compare_once(cell, mem_default()), GIST_OK);
    assert_int_equal(compare_once(again, mem_default()), GIST_OK);
    for (int m = 0; m < EVAL_BYS; m++) {
        double unit = m == EVAL_BY_EXACT ? 1 : 0.5;
        assert_float_equal(cell[0].score[m].mean, unit * 1 / 6, 1e-12);
        assert_float_equal(cell[3].score[m].mean, unit * 4 / 6, 1e-12);
        assert_float_equal(cell[4].score[m].mean, unit * 3 / 5, 1e-12);
        assert_float_equal(cell[0].retention[m].mean, 0, 1e-12);
        assert_float_equal(cell[1].retention[m].mean, 1, 1e-12);
        assert_true(isnan(cell[2].retention[m].mean));
        assert_float_equal(cell[3].retention[m].mean, (4.0 - 1) / (5 - 1), 1e-12); /* pos is the better upper */
        assert_float_equal(cell[4].retention[m].mean, (3.0 - 1) / (5 - 1), 1e-12); /* of the same five examples */
        assert_true(cell[3].score[m].low < cell[3].score[m].mean && cell[3].score[m].mean < cell[3].score[m].high);
        assert_true(cell[3].score[m].low == again[3].score[m].low);
    }
    assert_int_equal(cell[3].n, N);
    assert_int_equal(cell[4].n, 5);
    assert_int_equal(cell[4].prompts, 2);
    assert_true(isnan(cell[3].retention[0].low)); /* some resample draws prompt 1 alone, where upper = lower */
}

/* Columns that differ by a constant have a ratio without spread, whatever is drawn. */
static void resamples_are_paired(void **state) {
    (void)state;
    eval_row none[N], full[N], gists[N];
    eval_cell cell[3];
    gist_error err = { 0 };
    fill(none, (const double[N]){ 0, 0.25, 0, 0.5, 0.125, 0 });
    for (int i = 0; i < N; i++) {
        full[i] = gists[i] = none[i];
        for (int m = 0; m < EVAL_METRICS; m++) {
            full[i].score[m] += 0.5;
            gists[i].score[m] += 0.25;
        }
    }
    const eval_column column[] = { { none, NULL, 0, { 1, -1 } }, { full, NULL, 0, { 1, -1 } },
                                   { gists, NULL, 0, { 1, -1 } } };
    assert_ok(eval_compare(column, 3, prompt_of, N, 3, 500, 1, mem_default(), cell, &err), &err);
    assert_true(cell[2].score[EVAL_BY_EXACT].high - cell[2].score[EVAL_BY_EXACT].low > 0.05);
    assert_float_equal(cell[2].retention[EVAL_BY_EXACT].low, 0.5, 1e-9);
    assert_float_equal(cell[2].retention[EVAL_BY_EXACT].high, 0.5, 1e-9);
}

/* ---- the curve ---- */

static gist_status curve_once(void *ctx, const gist_allocator *alloc) {
    eval_row none[N], full[N], one[N], four[N];
    static const int tokens[N] = { 8, 8, 8, 32, 9, 9 };
    fill(none, (const double[N]){ 0, 0, 0, 0, 0, 1 });
    fill(full, (const double[N]){ 1, 1, 1, 1, 1, 1 });
    fill(one, (const double[N]){ 1, 0, 0, 0, 1, 1 });
    fill(four, (const double[N]){ 1, 1, 1, 1, 0, 0 });
    const eval_curve_part part[] = { { 1, one, none, { full, NULL } }, { 4, four, none, { full, NULL } } };
    gist_error err = { 0 };
    int bins = -1;
    eval_bin *bin = ctx;
    memset(bin, 0, EVAL_BINS * sizeof *bin);
    gist_status status = eval_curve(part, 2, tokens, prompt_of, N, 3, 100, 5, alloc, bin, &bins, &err);
    assert_int_equal(bins, status == GIST_OK ? 3 : 0);
    return status;
}

static void near(double x, double want) {
    assert_true(fabs(x - want) < 1e-12);
}

static void curve_by_hand(void **state) {
    (void)state;
    eval_bin bin[EVAL_BINS];
    assert_int_equal(curve_once(bin, mem_default()), GIST_OK);
    /* 8/4 and 9/4; 8/1, 32/4 and 9/1; 32/1 */
    near(bin[0].from, 2);
    near(bin[0].to, sqrt(8));
    near(bin[1].from, 8);
    near(bin[2].from, 32);
    assert_int_equal(bin[0].cell.n, 5);
    assert_int_equal(bin[0].cell.prompts, 2);
    assert_int_equal(bin[1].cell.n, 6);
    assert_int_equal(bin[1].cell.prompts, 3);
    assert_int_equal(bin[2].cell.n, 1);
    near(bin[0].factor, (3 * 2 + 2 * 2.25) / 5);
    near(bin[1].factor, (3 * 8 + 8 + 2 * 9) / 6.0);
    int by = EVAL_BY_EXACT;
    near(bin[0].cell.score[by].mean, 3.0 / 5);
    near(bin[0].cell.retention[by].mean, (3.0 - 1) / (5 - 1));
    near(bin[1].cell.score[by].mean, (1 + 1 + 2) / 6.0);
    near(bin[1].cell.retention[by].mean, (4.0 - 1) / (6 - 1));
    near(bin[2].cell.retention[by].mean, 0);
    assert_true(bin[1].cell.retention[by].low < bin[1].cell.retention[by].mean);
    /* An example of several k in one bin counts once for each, in its lower and upper too. */
    eval_row none[N], full[N], three[N];
    static const int tokens[N] = { 12, 12, 12, 12, 13, 13 };
    fill(none, (const double[N]){ 0, 0, 0, 0, 0, 1 });
    fill(full, (const double[N]){ 1, 1, 1, 0, 1, 1 });
    fill(three, (const double[N]){ 1, 1, 0, 0, 1, 1 });
    const eval_curve_part part[] = { { 3, three, none, { full, NULL } }, { 4, full, none, { full, NULL } } };
    int bins;
    gist_error err = { 0 };
    assert_ok(eval_curve(part, 2, tokens, prompt_of, N, 3, 0, 5, mem_default(), bin, &bins, &err), &err);
    assert_int_equal(bins, 2); /* 12/4, 13/4 and 12/3, 13/3 */
    near(bin[1].cell.retention[by].mean, (4.0 - 1) / (5 - 1));
    const eval_curve_part alone = { 3, three, NULL, { full, NULL } };
    assert_ok(eval_curve(&alone, 1, tokens, prompt_of, N, 3, 0, 5, mem_default(), bin, &bins, &err), &err);
    assert_int_equal(bins, 1);
    assert_true(isnan(bin[0].cell.retention[by].mean));
    near(bin[0].cell.score[by].mean, 4.0 / 6);
}

static void out_of_memory(void **state) {
    (void)state;
    eval_cell cell[5];
    eval_bin bin[EVAL_BINS];
    assert_true(test_each_alloc(curve_once, bin) >= 8);
    assert_true(test_each_alloc(tfidf_once, NULL) >= 4);
    assert_true(test_each_alloc(compare_once, cell) >= 4);
}

static void tenfold(void **state) {
    (void)state;
    static const int k[] = { 1, 2, 4 };
    assert_int_equal(eval_largest_k(k, 3, 9, 10), 0);
    assert_int_equal(eval_largest_k(k, 3, 10, 10), 1);
    assert_int_equal(eval_largest_k(k, 3, 39, 10), 2);
    assert_int_equal(eval_largest_k(k, 3, 40, 10), 4);
}

/* ---- CSV ---- */

static void csv_there_and_back(void **state) {
    (void)state;
    static const char *const fields[] = { "plain", "", "a, b", "say \"hi\"", "two\nlines", "\"", "cr\rlf\r\nx", "," };
    enum { FIELDS = sizeof fields / sizeof *fields };
    sbuf s;
    gist_error err = { 0 };
    eval_pairs pairs;
    sbuf_init(&s, NULL);
    sbuf_str(&s, "y_pred,y_true\n");
    for (int i = 0; i < FIELDS; i++) {
        eval_csv_field(&s, text(fields[i]));
        sbuf_str(&s, ",");
        eval_csv_field(&s, text(fields[FIELDS - 1 - i]));
        sbuf_str(&s, "\n");
    }
    assert_ok(eval_pairs_parse(&pairs, mem_default(), s.p, s.len, "csv", &err), &err);
    assert_int_equal(pairs.n, FIELDS);
    for (int i = 0; i < FIELDS; i++) {
        assert_int_equal(pairs.pair[i].prediction.len, strlen(fields[i]));
        assert_memory_equal(pairs.pair[i].prediction.p, fields[i], strlen(fields[i]));
        assert_int_equal(pairs.pair[i].reference.len, strlen(fields[FIELDS - 1 - i]));
    }
    eval_pairs_free(&pairs);
    sbuf_free(&s);
}

/* ---- splits ---- */

static const char rows[] =
    "{\"instruction\": \"say one\", \"input\": \"a\", \"output\": \"1\", \"kind\": \"x\"}\n"
    "{\"instruction\": \"say two, or three\", \"input\": \"b\", \"output\": \"2\"}\n"
    "\n"
    "{\"instruction\": \"say one\", \"input\": \"longer input\", \"output\": \"abcdefghijklmnopqrstuvwxyz\"}\n"
    "{\"instruction\": \"nothing\", \"output\": \" \"}\n"
    "{\"instruction\": \"say one\", \"output\": \"1\"}\n"
    "{\"instruction\": \"and four\", \"input\": \"d\", \"output\": \"4\"}\n";

static void open_rows(eval_split *s, const char *bytes, int limit) {
    static char path[TEST_PATH];
    gist_error err = { 0 };
    test_write(test_tmp(path, "rows.jsonl"), bytes, strlen(bytes));
    assert_ok(eval_split_open(s, "dev", path, limit, mem_default(), &err), &err);
}

static void refuses(const char *bytes, const char *message) {
    char path[TEST_PATH];
    eval_split s = { 0 };
    gist_error err = { 0 };
    test_write(test_tmp(path, "bad.jsonl"), bytes, strlen(bytes));
    assert_fails(eval_split_open(&s, "dev", path, 0, mem_default(), &err), &err, GIST_ERR_FORMAT, message);
    assert_null(s.rows);
}

static void splits(void **state) {
    (void)state;
    eval_split s;
    open_rows(&s, rows, 0);
    static const int prompt[] = { 0, 1, 0, 0, 2 }, order[] = { 0, 2, 3, 1, 4 }, line[] = { 1, 2, 4, 6, 7 };
    assert_int_equal(s.n, 5);
    assert_int_equal(s.prompts, 3);
    assert_int_equal(s.empty, 1);
    for (int i = 0; i < s.n; i++) {
        assert_int_equal(s.example[i].prompt, prompt[i]);
        assert_int_equal(s.order[i], order[i]);
        assert_int_equal(s.example[i].line, line[i]);
    }
    eval_split_close(&s);
    open_rows(&s, rows, 2);
    assert_int_equal(s.n, 2);
    eval_split_close(&s);
    open_rows(&s, " [{\"instruction\": \"p\", \"output\": \"q\"}]", 0);
    assert_int_equal(s.n, 1);
    eval_split_close(&s);
    refuses("{\"instruction\": \"p\", \"output\": \"q\"}\n{\"instruction\": \"p\"}\n",
            "bad.jsonl:2: \"output\" is missing");
    refuses("\n{\"instruction\": 1, \"output\": \"q\"}\n", "bad.jsonl:2: \"instruction\" is not a string");
    refuses("{\"instruction\": \"p\", \"output\": \"q\"}\n{\"instr\n", "bad.jsonl:2: not JSON: ");
    refuses("{\"instruction\": \"p\", \"output\": \"\"}\n", "nothing to answer in 1 rows");
    refuses("", "nothing to answer");
}

/* ---- answers ---- */

enum { MAX_LENGTH = 70, K = 3 };

static void put_in_front(gist_engine *e, gist_session *s, const eval_example *x, const eval_view *v, gist **g,
                         const char *words) {
    gist_error err = { 0 };
    gist_engine_info info;
    gist_engine_get_info(e, &info);
    if (v->c == COND_GIST) {
        gist_compress_options o = GIST_COMPRESS_OPTIONS_INIT;
        o.k = v->k;
        assert_ok(gist_compress(e, x->instruction.p, x->instruction.len, &o, g, &err), &err);
        assert_ok(gist_session_attach(s, *g, &err), &err);
    } else if (v->c == COND_NONE || v->c == COND_NEG_CONTROL) {
        assert_ok(gist_session_set_position(s, x->prompt_tokens + (v->k ? v->k : K), &err), &err);
    } else {
        eval_text t = v->words ? text(words) : x->instruction;
        assert_ok(gist_session_prompt(s, t.p, t.len, &err), &err);
        for (int i = 0; i < v->k; i++) assert_ok(gist_session_feed(s, &info.gist_token, 1, NULL, &err), &err);
    }
}

/* One session, one answer: what the batch must equal. */
static void check_answer(gist_engine *e, const eval_example *x, const eval_view *v, const eval_given *given,
                         const char *words) {
    gist_error err = { 0 };
    gist_session *s = NULL;
    gist *g = NULL;
    gist_answer a;
    gist_generate_options o = GIST_GENERATE_OPTIONS_INIT;
    o.max_tokens = MAX_LENGTH - x->prompt_tokens - K - x->input_tokens;
    assert_ok(gist_session_open(e, NULL, &s, &err), &err);
    put_in_front(e, s, x, v, &g, words);
    assert_ok(gist_generate(s, x->input.p, x->input.len, &o, &a, &err), &err);
    assert_int_equal(given->tokens, a.n);
    assert_string_equal(given->finish, a.finish);
    assert_int_equal(given->len, a.text_len);
    assert_memory_equal(given->text, a.text, a.text_len);
    gist_answer_free(s, &a);
    gist_session_close(s);
    gist_free(g);
}

static void batches_equal_single_answers(void **state) {
    (void)state;
    static const eval_view view[] = { { .c = COND_GIST, .k = 1, .name = "gist.k1" },
                                      { .c = COND_GIST, .k = K, .name = "gist.k3" },
                                      { .c = COND_FULL, .name = "full" },
                                      { .c = COND_NONE, .name = "none" },
                                      { .c = COND_POS_CONTROL, .k = 2, .name = "pos.k2" },
                                      { .c = COND_NEG_CONTROL, .k = 2, .name = "neg.k2" },
                                      { .c = COND_FULL, .words = 1, .name = "tfidf" } };
    static const char *const best[] = { "one", "two", "and" }; /* word of each prompt; ties go to the first */
    tiny_model m = TINY_MODEL;
    gist_engine *e = tiny_open(&m, "eval", 1, GIST_KERNELS_AUTO, GIST_TYPE_AUTO, NULL);
    gist_engine_info info;
    gist_error err = { 0 };
    eval_tfidf *t = NULL;
    eval_split s;
    gist_engine_get_info(e, &info);
    open_rows(&s, rows, 0);
    assert_ok(eval_tfidf_create(mem_default(), &t, &err), &err);
    for (int i = 0; i < 6; i++) assert_ok(eval_tfidf_add(t, text(i ? "say" : "two or three"), &err), &err);
    assert_ok(eval_split_fit(&s, engine_tokenizer(e), tok_template_find(info.template_name), K, MAX_LENGTH, &err),
              &err);
    assert_int_equal(s.n, 5);
    assert_true(s.example[2].reference.len < 26); /* cut */
    assert_memory_equal(s.example[2].reference.p, "abc", 3);
    for (size_t v = 0; v < sizeof view / sizeof *view; v++)
        for (int batch = 1; batch <= 6; batch += 2) {
            eval_run_options o = { .gists = K, .max_length = MAX_LENGTH, .batch = batch, .tfidf = t };
            eval_given *given = mem_calloc(NULL, (size_t)s.n, sizeof *given);
            for (int live = 0; live <= (view[v].c == COND_GIST); live++) {
                o.live = live;
                assert_ok(eval_run(e, &s, &view[v], &o, given, &err), &err);
                for (int i = 0; i < s.n; i++) {
                    check_answer(e, &s.example[i], &view[v], &given[i], best[s.example[i].prompt]);
                    mem_free(NULL, given[i].text);
                    given[i].text = NULL;
                }
            }
            eval_given_free(given, s.n, NULL);
        }
    eval_tfidf_free(t);
    eval_split_close(&s);
    gist_engine_close(e);
}

/* Each prompt gets another one's gist, and its answers are those of that gist. */
static void other_prompts(void **state) {
    (void)state;
    enum { MANY = 40 };
    tiny_model m = TINY_MODEL;
    gist_engine *e = tiny_open(&m, "eval", 1, GIST_KERNELS_AUTO, GIST_TYPE_AUTO, NULL);
    gist_error err = { 0 };
    sbuf bytes;
    eval_split s;
    int other[MANY], again[MANY], seen[MANY] = { 0 };
    sbuf_init(&bytes, NULL);
    for (int i = 0; i < MANY; i++)
        for (int j = 0; j < 2; j++)
            sbuf_fmt(&bytes, "{\"instruction\": \"say %d\", \"input\": \"%d\", \"output\": \"1\"}\n", i, j);
    open_rows(&s, bytes.p, 0);
    sbuf_free(&bytes);
    assert_ok(eval_split_fit(&s, engine_tokenizer(e), tok_template_find("paper"), K, MAX_LENGTH, &err), &err);
    assert_int_equal(s.prompts, MANY);
    assert_ok(eval_other_prompts(&s, K, MAX_LENGTH, 3, other, &err), &err);
    assert_ok(eval_other_prompts(&s, K, MAX_LENGTH, 3, again, &err), &err);
    assert_memory_equal(other, again, sizeof other);
    for (int i = 0; i < MANY; i++) {
        int p = s.example[other[i]].prompt;
        assert_int_not_equal(p, i);
        assert_int_equal(seen[p]++, 0);
    }
    assert_ok(eval_other_prompts(&s, K, MAX_LENGTH, 4, again, &err), &err);
    assert_memory_not_equal(other, again, sizeof other);
    eval_view v = { .c = COND_GIST, .k = 2, .other = true, .name = "other_gist.k2" };
    eval_run_options o = { .gists = K, .max_length = MAX_LENGTH, .max_tokens = 4, .batch = 3, .seed = 3 };
    for (int live = 0; live < 2; live++) {
        eval_given *given = mem_calloc(NULL, (size_t)s.n, sizeof *given);
        o.live = live;
        assert_ok(eval_run(e, &s, &v, &o, given, &err), &err);
        for (int i = 0; i < 6; i++) { /* the answer behind that gist, alone */
            gist_session *alone = NULL;
            gist *g = NULL;
            gist_answer a;
            gist_generate_options go = GIST_GENERATE_OPTIONS_INIT;
            go.max_tokens = 4;
            assert_ok(gist_session_open(e, NULL, &alone, &err), &err);
            put_in_front(e, alone, &s.example[other[s.example[i].prompt]], &v, &g, NULL);
            assert_ok(gist_generate(alone, s.example[i].input.p, s.example[i].input.len, &go, &a, &err), &err);
            assert_int_equal(given[i].len, a.text_len);
            assert_memory_equal(given[i].text, a.text, a.text_len);
            gist_answer_free(alone, &a);
            gist_session_close(alone);
            gist_free(g);
        }
        eval_given_free(given, s.n, NULL);
    }
    eval_split_close(&s);
    gist_engine_close(e);
}

static void other_prompts_that_fit(void **state) {
    (void)state;
    tiny_model m = TINY_MODEL;
    gist_engine *e = tiny_open(&m, "eval", 1, GIST_KERNELS_AUTO, GIST_TYPE_AUTO, NULL);
    gist_error err = { 0 };
    eval_split s;
    int other[3];
    open_rows(&s,
              "{\"instruction\": \"0123456789012345678901\", \"output\": \"1\"}\n"
              "{\"instruction\": \"b\", \"input\": \"012345678901234567890\", \"output\": \"1\"}\n"
              "{\"instruction\": \"c\", \"output\": \"1\"}\n",
              0);
    assert_ok(eval_split_fit(&s, engine_tokenizer(e), tok_template_find("paper"), K, MAX_LENGTH, &err), &err);
    assert_int_equal(s.n, 3);
    assert_true(s.example[0].prompt_tokens + K + s.example[1].input_tokens >= MAX_LENGTH);
    for (uint64_t seed = 0; seed < 8; seed++) {
        assert_ok(eval_other_prompts(&s, K, MAX_LENGTH, seed, other, &err), &err);
        assert_int_equal(other[1], 2); /* the long prompt leaves no room for the long input */
        assert_int_not_equal(other[0], 0);
        assert_int_not_equal(other[2], 2);
    }
    eval_split_close(&s);
    open_rows(&s, "{\"instruction\": \"b\", \"output\": \"1\"}\n", 0);
    assert_ok(eval_split_fit(&s, engine_tokenizer(e), tok_template_find("paper"), K, MAX_LENGTH, &err), &err);
    assert_fails(eval_other_prompts(&s, K, MAX_LENGTH, 0, other, &err), &err, GIST_ERR_USAGE, "needs two prompts");
    eval_split_close(&s);
    gist_engine_close(e);
}

/* References may be cut later than answers; which examples there are does not depend on it. */
static void labels_of_their_own_length(void **state) {
    (void)state;
    tiny_model m = TINY_MODEL;
    gist_engine *e = tiny_open(&m, "eval", 1, GIST_KERNELS_AUTO, GIST_TYPE_AUTO, NULL);
    gist_error err = { 0 };
    size_t len[3];
    for (int i = 0; i < 3; i++) {
        static const int label[] = { 0, MAX_LENGTH + 5, 1 };
        eval_split s;
        open_rows(&s, rows, 0);
        s.label_length = label[i];
        assert_ok(eval_split_fit(&s, engine_tokenizer(e), tok_template_find("paper"), K, MAX_LENGTH, &err), &err);
        assert_int_equal(s.n, 5);
        len[i] = s.example[2].reference.len;
        eval_split_close(&s);
    }
    assert_true(len[0] < 21);
    assert_int_equal(len[1], len[0] + 5); /* letters that no merge joins */
    assert_true(len[2] <= 1);             /* a token, maybe the space before the answer */
    gist_engine_close(e);
}

static bool stop_at_once(void *ctx, int done, int all) {
    *(int *)ctx = done;
    return done < all;
}

static void stopping_keeps_answers(void **state) {
    (void)state;
    tiny_model m = TINY_MODEL;
    gist_engine *e = tiny_open(&m, "eval", 1, GIST_KERNELS_AUTO, GIST_TYPE_AUTO, NULL);
    gist_error err = { 0 };
    eval_split s;
    int done = 0;
    eval_view v = { .c = COND_FULL, .name = "full" };
    eval_run_options o = { .max_length = MAX_LENGTH, .max_tokens = 2, .batch = 2, .ctx = &done, .stop = stop_at_once };
    open_rows(&s, rows, 0);
    assert_ok(eval_split_fit(&s, engine_tokenizer(e), tok_template_find("paper"), 0, MAX_LENGTH, &err), &err);
    eval_given *given = mem_calloc(NULL, (size_t)s.n, sizeof *given);
    assert_fails(eval_run(e, &s, &v, &o, given, &err), &err, GIST_ERR_CANCELLED, NULL);
    assert_int_equal(done, 2);
    assert_non_null(given[s.order[1]].text);
    assert_null(given[s.order[2]].text);
    err = (gist_error){ 0 };
    o.batch = 0;
    assert_fails(eval_run(e, &s, &v, &o, given, &err), &err, GIST_ERR_USAGE, "batch");
    eval_given_free(given, s.n, NULL);
    err = (gist_error){ 0 };
    assert_fails(eval_split_fit(&s, engine_tokenizer(e), tok_template_find("paper"), 0, 8, &err), &err,
                 GIST_ERR_FORMAT, "with no room for an answer");
    eval_split_close(&s);
    gist_engine_close(e);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tfidf_by_hand),        cmocka_unit_test(tfidf_many_words),
        cmocka_unit_test(retention_by_hand),    cmocka_unit_test(resamples_are_paired),
        cmocka_unit_test(out_of_memory),        cmocka_unit_test(tenfold),
        cmocka_unit_test(csv_there_and_back),   cmocka_unit_test(splits),
        cmocka_unit_test(labels_of_their_own_length), cmocka_unit_test(tfidf_of_tokens),
        cmocka_unit_test(curve_by_hand), cmocka_unit_test(other_prompts), cmocka_unit_test(other_prompts_that_fit),
        cmocka_unit_test(batches_equal_single_answers), cmocka_unit_test(stopping_keeps_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
