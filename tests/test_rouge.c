/* test_rouge.c - stems, subsequences, ROUGE against the Python package, prediction files, summaries.
 *
 * tests/data/rouge holds texts with the package's scores and words with their stems (tools/make_rouge_fixtures.py).
 */
#include "testing.h"

#include <math.h>
#include <stdlib.h>

#include "eval/eval_int.h"
#include "format/format.h"

static const double TOLERANCE = 1e-6; /* of the issue; what is measured is the fixture's rounding, 5e-9 */

/* ---- stems ---- */

static void stems_equal_the_references(void **state) {
    (void)state;
    char path[TEST_PATH], *save_line = NULL, *save_word = NULL;
    char *text = (char *)test_read(test_fixture(path, "rouge/stems.txt"), NULL);
    int words = 0;
    for (char *line = strtok_r(text, "\n", &save_line); line; line = strtok_r(NULL, "\n", &save_line)) {
        const char *want = strtok_r(line, " ", &save_word);
        for (char *w; (w = strtok_r(NULL, " ", &save_word)) != NULL; words++) {
            char got[64];
            snprintf(got, sizeof got, "%s", w);
            got[eval_stem(got, strlen(got))] = '\0';
            if (strcmp(got, want) != 0) fail_msg("stem of %s: %s, expected %s", w, got, want);
        }
    }
    assert_true(words > 2000);
    free(text);
}

static void stems_of_runs_of_y(void **state) {
    (void)state;
    enum { LONG = 300000 };
    char *w = malloc(LONG);
    assert_non_null(w);
    memset(w, 'y', LONG); /* consonant and vowel in turns; time must not be quadratic */
    assert_int_equal(eval_stem(w, LONG), LONG);
    free(w);
}

/* ---- subsequences ---- */

enum { MOST = 200 };

/* The table and the walk as they are defined. */
static int plain_lcs(const int32_t *row, int rows, const int32_t *col, int cols, uint8_t *mark) {
    static int t[MOST + 1][MOST + 1];
    for (int i = 1; i <= rows; i++)
        for (int j = 1; j <= cols; j++)
            t[i][j] = row[i - 1] == col[j - 1]    ? t[i - 1][j - 1] + 1
                      : t[i - 1][j] > t[i][j - 1] ? t[i - 1][j]
                                                  : t[i][j - 1];
    for (int i = rows, j = cols; i > 0 && j > 0;) {
        if (row[i - 1] == col[j - 1]) {
            mark[--i] = 1;
            j--;
        } else if (t[i][j - 1] > t[i - 1][j]) {
            j--;
        } else {
            i--;
        }
    }
    return t[rows][cols];
}

static void subsequences_equal_the_definition(void **state) {
    (void)state;
    uint64_t random = 1, mask[MOST] = { 0 };
    for (int round = 0; round < 600; round++) {
        int32_t row[MOST], col[MOST];
        uint8_t want[MOST] = { 0 }, got[MOST] = { 0 };
        int letters = 1 + (int)(test_rand(&random) % 12), most = round % 3 ? MOST : 20;
        int rows = (int)(test_rand(&random) % (uint64_t)(most + 1)),
            cols = (int)(test_rand(&random) % (uint64_t)(most + 1));
        if (round < 16) rows = 62 + round % 4, cols = 62 + round / 4; /* around one strip and one word of rows */
        for (int i = 0; i < rows; i++) row[i] = (int32_t)(test_rand(&random) % (uint64_t)letters);
        for (int i = 0; i < cols; i++) col[i] = (int32_t)(test_rand(&random) % (uint64_t)letters);
        int length = plain_lcs(row, rows, col, cols, want);
        uint64_t *bits = malloc((eval_lcs_mark_words(rows, cols) + 1) * sizeof *bits);
        assert_non_null(bits);
        eval_lcs_mark(mask, bits, row, rows, col, cols, got);
        if (memcmp(got, want, sizeof got) != 0) fail_msg("round %d: %d x %d: another path", round, rows, cols);
        free(bits);
        bits = malloc((eval_lcs_length_words(rows) + 1) * sizeof *bits);
        assert_non_null(bits);
        assert_int_equal(eval_lcs_length(mask, bits, row, rows, col, cols), length);
        free(bits);
        for (int i = 0; i < MOST; i++) assert_true(mask[i] == 0);
    }
}

/* ---- scores ---- */

static eval_text text_of(const char *s) {
    return (eval_text){ s, strlen(s) };
}

static void scores_equal_the_references(void **state) {
    (void)state;
    char path[TEST_PATH];
    gist_error err = { 0 };
    eval_pairs pairs;
    eval_rouge *r = NULL;
    assert_ok(eval_pairs_open(&pairs, NULL, test_fixture(path, "rouge/pairs.jsonl"), &err), &err);
    assert_ok(eval_rouge_create(NULL, &r, &err), &err);
    char *text = (char *)test_read(path, NULL), *line = text;
    double worst = 0;
    for (int i = 0; i < pairs.n; i++) {
        char *end = strchr(line, '\n');
        json_t *row = NULL;
        eval_rouge_scores s;
        assert_ok(json_parse(line, (size_t)(end - line), "pairs.jsonl", &row, &err), &err);
        assert_ok(eval_rouge_score(r, pairs.pair[i].prediction, pairs.pair[i].reference, &s, &err), &err);
        for (int k = 0; k < EVAL_ROUGES; k++) {
            double want = json_number_value(json_array_get(json_object_get(row, "f1"), (size_t)k));
            worst = fmax(worst, fabs(s.f1[k] - want));
            if (!(fabs(s.f1[k] - want) <= TOLERANCE))
                fail_msg("line %d: %s %.9f, expected %.9f", i + 1, eval_metric_names[k], s.f1[k], want);
        }
        json_decref(row);
        line = end + 1;
    }
    assert_true(pairs.n >= 300 && *line == '\0');
    print_message("# %d pairs, largest difference %.2g\n", pairs.n, worst);
    free(text);
    eval_rouge_free(r);
    eval_pairs_free(&pairs);
}

static void score(eval_rouge *r, const char *prediction, const char *reference, const double want[EVAL_ROUGES]) {
    eval_rouge_scores s;
    assert_ok(eval_rouge_score(r, text_of(prediction), text_of(reference), &s, NULL), NULL);
    for (int k = 0; k < EVAL_ROUGES; k++)
        if (fabs(s.f1[k] - want[k]) > 1e-12)
            fail_msg("\"%s\" | \"%s\": %s %.9f, expected %.9f", prediction, reference, eval_metric_names[k], s.f1[k],
                     want[k]);
}

static void scores_by_hand(void **state) {
    (void)state;
    eval_rouge *r = NULL;
    assert_ok(eval_rouge_create(NULL, &r, NULL), NULL);
    score(r, "", "", (double[]){ 0, 0, 0, 0 });
    score(r, "", "the shop", (double[]){ 0, 0, 0, 0 });
    score(r, "the shop", "...", (double[]){ 0, 0, 0, 0 });
    score(r, "shop", "Shop!", (double[]){ 1, 0, 1, 1 });
    score(r, "running shops", "run SHOP", (double[]){ 1, 1, 1, 1 });
    score(r, "b a", "a b", (double[]){ 1, 0, 0.5, 0.5 });
    score(r, "b\na", "a\nb", (double[]){ 1, 0, 0.5, 1 });              /* lines find each other in any order */
    score(r, "a", "a\na", (double[]){ 2.0 / 3, 0, 2.0 / 3, 2.0 / 3 }); /* and a word counts once */
    score(r, "\xE2\x84\xAA x", "k x", (double[]){ 1, 1, 1, 1 });
    score(r, "\xC4\xB0x", "i x", (double[]){ 1, 1, 1, 1 });
    score(r, "caf\xC3\xA9", "caf", (double[]){ 1, 0, 1, 1 });
    score(r, "\xC4\xB0", "\xC4", (double[]){ 0, 0, 0, 0 });
    eval_rouge_free(r);
}

static void texts_too_long(void **state) {
    (void)state;
    char *big = malloc(EVAL_MAX_TEXT + 1);
    assert_non_null(big);
    for (size_t i = 0; i <= EVAL_MAX_TEXT; i++) big[i] = "a b "[i % 4];
    eval_rouge *r = NULL;
    eval_rouge_scores s = { .predicted = -1 };
    gist_error err = { 0 };
    assert_ok(eval_rouge_create(NULL, &r, NULL), NULL);
    eval_text over = { big, EVAL_MAX_TEXT + 1 }, most = { big, EVAL_MAX_TEXT };
    assert_fails(eval_rouge_score(r, text_of("a"), over, &s, &err), &err, GIST_ERR_LIMIT, "1048577 bytes");
    assert_int_equal(s.predicted, -1);
    assert_ok(eval_rouge_score(r, text_of("a b"), most, &s, NULL), NULL);
    assert_int_equal(s.expected, EVAL_MAX_TEXT / 2);
    for (size_t i = 1; i < 40000; i += 2) big[i] = '\n';
    err = (gist_error){ 0 };
    eval_text lines = { big, 40000 };
    assert_fails(eval_rouge_score(r, lines, lines, &s, &err), &err, GIST_ERR_LIMIT, "20000 lines against 20000");
    assert_int_equal(s.expected, EVAL_MAX_TEXT / 2);
    eval_rouge_free(r);
    free(big);
}

/* ---- files ---- */

static gist_status parse(eval_pairs *p, const char *text, gist_error *err) {
    return eval_pairs_parse(p, NULL, text, strlen(text), "p", err);
}

static void expect_pair(const eval_pairs *p, int i, int line, const char *prediction, const char *reference) {
    assert_true(i < p->n);
    const eval_pair *q = &p->pair[i];
    assert_int_equal(q->line, line);
    assert_int_equal(q->prediction.len, strlen(prediction));
    assert_memory_equal(q->prediction.p, prediction, q->prediction.len);
    assert_int_equal(q->reference.len, strlen(reference));
    assert_memory_equal(q->reference.p, reference, q->reference.len);
}

static void csv_files(void **state) {
    (void)state;
    eval_pairs p;
    gist_error err = { 0 };
    assert_ok(parse(&p, "x,y_pred,y_true\nq,one,two\n\"a,\"\"b\"\"\n\",\"t\nh\",\" f\"\n,,\n", &err), &err);
    assert_int_equal(p.n, 3);
    expect_pair(&p, 0, 2, "one", "two");
    expect_pair(&p, 1, 3, "t\nh", "f");
    expect_pair(&p, 2, 6, "", "");
    eval_pairs_free(&p);
    assert_ok(parse(&p, "\xEF\xBB\xBF\"y_true\",z,y_pred\r\nr,1,\"p\"\"\"\r\n\r\n\"a\r\nb\",2,c\"d\r", &err), &err);
    assert_int_equal(p.n, 2);
    expect_pair(&p, 0, 2, "p\"", "r");
    expect_pair(&p, 1, 4, "c\"d", "a\r\nb");
    eval_pairs_free(&p);
    assert_ok(parse(&p,
                    "\n\nprediction,reference\na\rb,\xC2\xA0"
                    "c\xE3\x80\x80",
                    &err),
              &err);
    expect_pair(&p, 0, 4, "a\rb", "c");
    eval_pairs_free(&p);
}

static void json_files(void **state) {
    (void)state;
    eval_pairs p;
    gist_error err = { 0 };
    assert_ok(parse(&p,
                    "{\"y_true\": \"\\u00e9\\n\", \"y_pred\": \"b\", \"z\": [1]}\n \r\n"
                    "{\"prediction\":\"\\\"c\\\"\",\"reference\":\"\"}",
                    &err),
              &err);
    assert_int_equal(p.n, 2);
    expect_pair(&p, 0, 1, "b", "\xC3\xA9");
    expect_pair(&p, 1, 3, "\"c\"", "");
    eval_pairs_free(&p);
}

static void bad_files(void **state) {
    (void)state;
    static const struct {
        const char *text, *message;
    } bad[] = {
        { "", "p:1: the header has no column y_pred" },
        { "\n \n", "p:2: the header has no column" },
        { "y_pred,y_true\n", "p: no predictions in it" },
        { "x,y_pred\n1,2\n", "p:1: the header has no column y_true" },
        { "prediction,b\n1,2\n", "p:1: the header has no column reference" },
        { "y_pred,y_true,y_pred\n1,2,3\n", "p:1: two columns y_pred" },
        { "y_pred,y_true\n1,2\n1,2,3\n", "p:3: 3 fields, the header has 2" },
        { "y_pred,y_true\n\"a\nb\",2\n1\n", "p:4: 1 fields, the header has 2" },
        { "y_pred,y_true\n1,2\n1,\"2\n3\n4\n", "p:3: this quoted field never ends" },
        { "y_pred,y_true\n\"a\nb\"c,2\n", "p:3: text behind a closing quote" },
        { "y_pred,y_true\n\"a\n\xff\",2\n", "p:3: y_pred is not valid UTF-8" },
        { "y_pred,y_true\na,\xC3\n", "p:2: y_true is not valid UTF-8" },
        { "{\"y_pred\":\"a\",\"y_true\":\"b\"}\n{\"y_pred\":\"a\"}\n", "p:2: no y_true" },
        { "{\"y_pred\":\"a\",\"y_true\":3}\n", "p:1: y_true must be a string" },
        { "{\"reference\":\"a\"}\n", "p:1: no prediction" },
        { "{}\n", "p:1: no y_pred" },
        { "{\"y_pred\":\"a\",\"y_true\":\"b\"}\n[]\n", "p:2: not a JSON object" },
        { "{\"y_pred\":\"a\",\"y_true\":\"b\"}\n\n{\"y_pred\":\n", "p:3: " },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        eval_pairs p = { .n = -1 };
        gist_error err = { 0 };
        assert_fails(parse(&p, bad[i].text, &err), &err, GIST_ERR_FORMAT, bad[i].message);
        assert_int_equal(p.n, -1);
    }
    eval_pairs p;
    gist_error err = { 0 };
    assert_fails(eval_pairs_open(&p, NULL, "none.csv", &err), &err, GIST_ERR_IO, "none.csv");
    char *big = malloc(EVAL_MAX_TEXT + 64);
    assert_non_null(big);
    int at = sprintf(big, "y_pred,y_true\na,b\nc,");
    memset(big + at, 'd', EVAL_MAX_TEXT + 1);
    err = (gist_error){ 0 };
    assert_fails(eval_pairs_parse(&p, NULL, big, (size_t)at + EVAL_MAX_TEXT + 1, "p", &err), &err, GIST_ERR_LIMIT,
                 "p:3: y_true has 1048577 bytes");
    free(big);
}

/* Every prefix of a file is a shorter file or an error, and is read from a block of exactly its size. */
static void truncated_files(void **state) {
    (void)state;
    static const char *const whole[] = {
        "\xEF\xBB\xBFx,y_pred,y_true\r\n1,\"a\"\"\n\xC3\xA9\",b\r\n2,c,\"d\"\r\n",
        "{\"y_pred\":\"\\ud83d\\ude00\",\"y_true\":\"b\"}\n{\"y_pred\":\"\",\"y_true\":\"\"}"
    };
    for (size_t w = 0; w < sizeof whole / sizeof *whole; w++)
        for (size_t n = 0; n <= strlen(whole[w]); n++) {
            char *exact = malloc(n ? n : 1);
            assert_non_null(exact);
            memcpy(exact, whole[w], n);
            eval_pairs p = { .n = 0 };
            gist_error err = { 0 };
            gist_status status = eval_pairs_parse(&p, NULL, exact, n, "p", &err);
            assert_true(status == GIST_OK || (status == GIST_ERR_FORMAT && err.msg[0]));
            if (n == strlen(whole[w])) assert_int_equal(p.n, 2);
            free(exact);
            eval_pairs_free(&p);
        }
}

static void stripping(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        { "", "" },
        { " \t\n\x0b\f\r\x1c\x1d\x1e\x1f", "" },
        { " a b ", "a b" },
        { "\xC2\x85\xC2\xA0z", "z" },
        { "\xE3\x80\x80z\xE2\x80\xA8", "z" },
        { "z\xE1\x9A\x80\xE2\x81\x9F", "z" },
        { "\xE2\x80\x8Bz", "\xE2\x80\x8Bz" },
        { "\xC3\xA0", "\xC3\xA0" },
        { "z\x08", "z\x08" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        eval_text t = eval_strip(cases[i][0], strlen(cases[i][0]));
        assert_int_equal(t.len, strlen(cases[i][1]));
        assert_memory_equal(t.p, cases[i][1], t.len);
    }
}

/* ---- many pairs ---- */

static void results_do_not_depend_on_threads(void **state) {
    (void)state;
    char path[TEST_PATH];
    eval_pairs pairs;
    eval_row *rows[3];
    eval_summary sum[3], other;
    static const int threads[3] = { 1, 2, 5 };
    assert_ok(eval_pairs_open(&pairs, NULL, test_fixture(path, "rouge/pairs.jsonl"), NULL), NULL);
    for (int i = 0; i < 3; i++) {
        pool *p = NULL;
        rows[i] = calloc((size_t)pairs.n, sizeof **rows);
        assert_non_null(rows[i]);
        memset(&sum[i], 0, sizeof sum[i]);
        assert_ok(pool_create(NULL, threads[i], &p, NULL), NULL);
        assert_ok(eval_score_pairs(&pairs, p, rows[i], NULL), NULL);
        assert_ok(eval_summarise(rows[i], pairs.n, 200, 3, p, NULL, &sum[i], NULL), NULL);
        assert_ok(eval_summarise(rows[i], pairs.n, 200, 4, p, NULL, &other, NULL), NULL);
        assert_memory_equal(rows[i], rows[0], (size_t)pairs.n * sizeof **rows);
        assert_memory_equal(&sum[i], &sum[0], sizeof *sum);
        assert_true(other.low[0] != sum[i].low[0] && other.mean[0] == sum[i].mean[0]); /* the seed does matter */
        pool_free(p);
    }
    for (int i = 0; i < 3; i++) free(rows[i]);
    eval_pairs_free(&pairs);
}

/* The first pair that cannot be scored is told, whichever thread met it. */
static void failures_name_the_first_line(void **state) {
    (void)state;
    enum { PAIRS = 300 };
    static eval_pair pair[PAIRS];
    static eval_row rows[PAIRS];
    for (int i = 0; i < PAIRS; i++) {
        bool bad = i >= 70 && i % 5 == 0;
        pair[i] = (eval_pair){ .prediction = text_of("a"),
                               .reference = { "a", bad ? EVAL_MAX_TEXT + 1 : 1 },
                               .line = i + 2 };
    }
    for (int threads = 1; threads < 6; threads++) {
        pool *p = NULL;
        gist_error err = { 0 };
        eval_pairs pairs = { .pair = pair, .n = PAIRS };
        assert_ok(pool_create(NULL, threads, &p, NULL), NULL);
        assert_fails(eval_score_pairs(&pairs, p, rows, &err), &err, GIST_ERR_LIMIT, "line 72: a text of 1048577");
        pool_free(p);
    }
}

/* Of n rows with standard deviation s the interval of the mean is about +-1.96 s / sqrt(n). */
static void interval_of_a_mean(void **state) {
    (void)state;
    enum { N = 400 };
    static eval_row rows[N];
    pool *p = NULL;
    eval_summary s;
    assert_ok(pool_create(NULL, 2, &p, NULL), NULL);
    for (int i = 0; i < N; i++) {
        rows[i] = (eval_row){ .score = { i % 2, 0.25, (double)i / (N - 1) }, .predicted = i % 3, .expected = 7 };
        rows[i].score[EVAL_EXACT] = i < 40;
    }
    assert_ok(eval_summarise(rows, N, 4000, 1, p, NULL, &s, NULL), NULL);
    assert_true(s.mean[0] == 0.5 && s.expected == 7 && fabs(s.predicted - 399 / 400.0) < 1e-12);
    assert_true(s.low[1] == 0.25 && s.mean[1] == 0.25 && s.high[1] == 0.25);
    const double deviation[] = { 0.5, 0, sqrt(1.0 / 12), 0, 0.3 };
    for (int m = 0; m < EVAL_METRICS; m++) {
        double half = 1.96 * deviation[m] / sqrt(N);
        assert_true(fabs(s.low[m] - (s.mean[m] - half)) <= 0.12 * half + 1e-12);
        assert_true(fabs(s.high[m] - (s.mean[m] + half)) <= 0.12 * half + 1e-12);
    }
    assert_ok(eval_summarise(rows, N, 0, 1, p, NULL, &s, NULL), NULL);
    assert_true(s.low[0] == s.mean[0] && s.high[0] == s.mean[0]);
    assert_ok(eval_summarise(rows + 1, 1, 10, 1, p, NULL, &s, NULL), NULL);
    assert_true(s.low[0] == 1 && s.high[0] == 1);
    pool_free(p);
}

static gist_status all_steps(void *ctx, const gist_allocator *alloc) {
    static const char text[] = "y_pred,y_true\n\"a b\nc d e\",\"c d\na b\"\nx,y\n";
    eval_pairs pairs = { .alloc = alloc };
    eval_row rows[2];
    eval_summary s;
    gist_error err = { 0 };
    gist_status status = eval_pairs_parse(&pairs, alloc, text, sizeof text - 1, "p", &err);
    if (status == GIST_OK) status = eval_score_pairs(&pairs, ctx, rows, &err);
    if (status == GIST_OK) status = eval_summarise(rows, 2, 10, 0, ctx, alloc, &s, &err);
    if (status != err.code) status = GIST_ERR_FORMAT;
    eval_pairs_free(&pairs);
    return status;
}

static void no_memory(void **state) {
    (void)state;
    pool *p = NULL;
    assert_ok(pool_create(NULL, 1, &p, NULL), NULL);
    assert_true(test_each_alloc(all_steps, p) >= 7);
    pool_free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stems_equal_the_references),
        cmocka_unit_test(stems_of_runs_of_y),
        cmocka_unit_test(subsequences_equal_the_definition),
        cmocka_unit_test(scores_equal_the_references),
        cmocka_unit_test(scores_by_hand),
        cmocka_unit_test(texts_too_long),
        cmocka_unit_test(csv_files),
        cmocka_unit_test(json_files),
        cmocka_unit_test(bad_files),
        cmocka_unit_test(truncated_files),
        cmocka_unit_test(stripping),
        cmocka_unit_test(results_do_not_depend_on_threads),
        cmocka_unit_test(failures_name_the_first_line),
        cmocka_unit_test(interval_of_a_mean),
        cmocka_unit_test(no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
