/* test_train_eval.c - validation: mean losses of a split, and scores of answers generated with the model in training.
 *
 * The model is tiny and random; training has nothing to do with it.  What an answer should be is asked of an engine
 * that opened the same weights as a user would, by the texts.
 */
#include <math.h>
#include <stdlib.h>

#include "eval/eval.h"
#include "tiny.h"

static const char *const prompts[] = { "double it", "say no", "cut the end" };
static const char *const inputs[] = { "one", "there", "" };

typedef struct bed {
    char dir[TEST_PATH];
    tokenizer *t;
    pool *p;
    op_ctx ctx;
    llama_config cfg;
    weights w;
    const tok_template *tp;
    train_pack_options pack;
} bed;

static bed open_bed(const char *name) {
    static const tiny_model tiny = TINY_MODEL;
    bed b = { .tp = tok_template_find("paper") };
    gist_error err = { 0 };
    tiny_save(&tiny, name, b.dir);
    assert_ok(tok_open(b.dir, NULL, &b.t, &err), &err);
    assert_ok(pool_create(NULL, 1, &b.p, &err), &err);
    assert_ok(op_init(&b.ctx, GIST_KERNELS_AUTO, b.p, &err), &err);
    assert_ok(llama_config_read(&b.cfg, NULL, b.dir, &err), &err);
    assert_ok(weights_open(&b.w, NULL, b.dir, &err), &err);
    b.pack = (train_pack_options){ .mix = { [COND_GIST] = 0.5, [COND_FULL] = 0.25, [COND_NONE] = 0.25 },
                                   .k = { 1, 3 },
                                   .k_count = 2,
                                   .gist_token = TINY_GIST,
                                   .pairs_per_prompt = 2,
                                   .batch_pairs = 4 };
    return b;
}

static void close_bed(bed *b) {
    weights_close(&b->w);
    pool_free(b->p);
    tok_close(b->t);
}

static train_model *make_model(bed *b, dtype type, int rows) {
    train_model *tm = NULL;
    gist_error err = { 0 };
    train_model_options o = { .type = type, .max_rows = rows, .lm = 1 };
    assert_ok(train_model_create(&tm, &b->cfg, &b->w, false, 0, &o, &b->ctx, NULL, &err), &err);
    return tm;
}

static gist_engine *borrow(bed *b, train_model *tm) {
    gist_engine *e = NULL;
    gist_error err = { 0 };
    assert_ok(engine_borrow(train_model_llama(tm), b->t, b->tp, &b->ctx, NULL, &e, &err), &err);
    return e;
}

static void put_row(sbuf *rows, const char *prompt, const char *input, const char *output) {
    json_t *row = json_pack("{s:s, s:s, s:s}", "instruction", prompt, "input", input, "output", output);
    char *line = row ? json_dumps(row, JSON_COMPACT) : NULL;
    void (*release)(void *) = NULL;
    assert_non_null(line);
    sbuf_str(rows, line);
    sbuf_str(rows, "\n");
    json_get_alloc_funcs(NULL, &release);
    release(line);
    json_decref(row);
}

static train_set read_rows(bed *b, const sbuf *rows) {
    train_set set;
    gist_error err = { 0 };
    train_data_options d = { .tp = b->tp, .max_length = 96, .gists = 3 };
    assert_ok(train_data_parse(&set, rows->p, rows->len, "rows", b->t, &d, NULL, &err), &err);
    return set;
}

/* ---- losses ---- */

/* Validation is the mean over the split's label tokens, however it is cut into batches. */
static void losses(void **state) {
    (void)state;
    bed b = open_bed("losses");
    sbuf rows;
    sbuf_init(&rows, NULL);
    for (int i = 0; i < 9; i++) put_row(&rows, prompts[i / 3], inputs[i % 3], i % 2 ? "eight" : "no");
    train_set set = read_rows(&b, &rows);
    train_split split = { "val", &set };
    double first[4] = { 0 };
    for (int max_rows = 64; max_rows <= 1024; max_rows *= 2) {
        train_model *tm = make_model(&b, DT_F32, max_rows);
        train_metric m[TRAIN_MAX_METRICS];
        int n;
        bool stopped;
        gist_error err = { 0 };
        train_run_options o = { .pack = b.pack, .split = &split, .splits = 1, .max_rows = max_rows };
        assert_ok(train_evaluate(tm, &o, NULL, m, &n, &stopped, &err), &err);
        assert_int_equal(n, 4);
        for (int i = 0; i < n; i++) {
            if (max_rows == 64) first[i] = m[i].value;
            assert_true(m[i].value > 0.1 && fabs(m[i].value - first[i]) < 1e-5 * first[i]);
            assert_false(m[i].higher);
        }
        train_model_free(tm);
    }
    for (int i = 0; i < 3; i++) assert_true(fabs(first[i] - first[i + 1]) > 1e-4);
    sbuf_free(&rows);
    train_data_free(&set);
    close_bed(&b);
}

/* ---- the borrowed engine ---- */

static gist_engine *open_engine(const bed *b, gist_type type) {
    gist_engine *e = NULL;
    gist_error err = { 0 };
    gist_engine_options o = GIST_ENGINE_OPTIONS_INIT;
    o.threads = 1;
    o.weights = type;
    assert_ok(gist_engine_open(b->dir, &o, &e, &err), &err);
    return e;
}

static void same_rows(const gist *a, const gist *b, int layers) {
    float ka[3 * 20], va[3 * 20], kb[3 * 20], vb[3 * 20]; /* [k,G,D] */
    for (int l = 0; l < layers; l++) {
        assert_ok(gist_get_rows(a, l, ka, va, NULL), NULL);
        assert_ok(gist_get_rows(b, l, kb, vb, NULL), NULL);
        assert_same_floats(ka, kb, 60, "keys");
        assert_same_floats(va, vb, 60, "values");
    }
}

/* The model in training answers what an engine that opened its weights answers, bit for bit. */
static void borrowed(void **state) {
    (void)state;
    bed b = open_bed("borrowed");
    for (int bf16 = 0; bf16 < 2; bf16++) {
        train_model *tm = make_model(&b, bf16 ? DT_BF16 : DT_F32, 16);
        gist_engine *e = borrow(&b, tm), *opened = open_engine(&b, bf16 ? GIST_TYPE_BF16 : GIST_TYPE_F32);
        gist *g = gist_of(e, prompts[0], 3, GIST_TYPE_AUTO), *h = gist_of(opened, prompts[0], 3, GIST_TYPE_AUTO);
        gist *from_ids = NULL;
        gist_session *s = NULL, *r = NULL;
        gist_generate_options o = GIST_GENERATE_OPTIONS_INIT;
        gist_answer x, y;
        gist_error err = { 0 };
        tok_ids ids;
        o.max_tokens = 20;
        tok_ids_init(&ids, NULL);
        assert_ok(tok_template_prompt(b.t, b.tp, prompts[0], strlen(prompts[0]), &ids, &err), &err);
        gist_compress_options co = GIST_COMPRESS_OPTIONS_INIT;
        co.k = 3;
        assert_ok(gist_compress_ids(e, ids.id, ids.n, &co, &from_ids, &err), &err);
        same_rows(g, h, b.cfg.L);
        same_rows(g, from_ids, b.cfg.L);
        assert_fails(gist_save(g, "nowhere.gist", &err), &err, GIST_ERR_USAGE, "model in training");
        assert_ok(gist_session_open(e, NULL, &s, NULL), NULL);
        assert_ok(gist_session_open(opened, NULL, &r, NULL), NULL);
        assert_ok(gist_session_attach(s, g, NULL), NULL);
        assert_ok(gist_session_attach(r, h, NULL), NULL);
        assert_ok(gist_generate(s, "one", 3, &o, &x, NULL), NULL);
        assert_ok(gist_generate(r, "one", 3, &o, &y, NULL), NULL);
        assert_int_equal(x.n, y.n);
        assert_memory_equal(x.ids, y.ids, (size_t)x.n * sizeof *x.ids);
        assert_same_floats(x.logprobs, y.logprobs, (size_t)x.n, "log-probabilities");
        gist_answer_free(s, &x);
        gist_answer_free(r, &y);
        gist_session_close(s);
        gist_session_close(r);
        gist_free(g);
        gist_free(h);
        gist_free(from_ids);
        tok_ids_free(&ids);
        gist_engine_close(opened);
        gist_engine_close(e); /* frees nothing of b or tm */
        train_model_free(tm);
    }
    close_bed(&b);
}

/* A model without a row for <GIST>. */
static void not_borrowed(void **state) {
    (void)state;
    bed b = open_bed("refused");
    train_model *tm = make_model(&b, DT_F32, 16);
    llama_model small = *train_model_llama(tm);
    gist_engine *e = NULL;
    gist_error err = { 0 };
    small.vocab = TINY_GIST;
    assert_fails(engine_borrow(&small, b.t, b.tp, &b.ctx, NULL, &e, &err), &err, GIST_ERR_MISMATCH, "<GIST> is 264");
    assert_null(e);
    train_model_free(tm);
    close_bed(&b);
}

/* ---- scores ---- */

enum { MAX_TOKENS = 6 };

/* What a user gets: under the full prompt (k 0), or behind its gist. */
static void ask(gist_engine *e, const char *prompt, int k, const char *input, char out[128]) {
    gist_session *s = NULL;
    gist *g = k ? gist_of(e, prompt, k, GIST_TYPE_AUTO) : NULL;
    gist_generate_options o = GIST_GENERATE_OPTIONS_INIT;
    gist_answer a;
    gist_error err = { 0 };
    o.max_tokens = MAX_TOKENS;
    assert_ok(gist_session_open(e, NULL, &s, &err), &err);
    if (g)
        assert_ok(gist_session_attach(s, g, &err), &err);
    else
        assert_ok(gist_session_prompt(s, prompt, strlen(prompt), &err), &err);
    assert_ok(gist_generate(s, input, strlen(input), &o, &a, &err), &err);
    snprintf(out, 128, "%s", a.text);
    gist_answer_free(s, &a);
    gist_session_close(s);
    gist_free(g);
}

static bool same_text(const char *a, const char *b) {
    eval_text x = eval_strip(a, strlen(a)), y = eval_strip(b, strlen(b));
    return x.len == y.len && memcmp(x.p, y.p, x.len) == 0;
}

/* Rows 0, 3, 6 have the full prompt's own answer, rows 1, 4, 7 the answer behind three gists, the others none. */
static void write_rows(gist_engine *e, sbuf *rows, char outputs[9][128]) {
    sbuf_init(rows, NULL);
    for (int i = 0; i < 9; i++) {
        snprintf(outputs[i], 128, "wrong");
        if (i % 3 < 2) ask(e, prompts[i / 3], i % 3 ? 3 : 0, inputs[i % 3], outputs[i]);
        put_row(rows, prompts[i / 3], inputs[i % 3], outputs[i]);
    }
}

typedef struct asked {
    int count, all, stop_at;
} asked;

static bool on_answer(void *ctx, int done, int all) {
    asked *a = ctx;
    assert_int_equal(done, a->count);
    a->all = all;
    return a->count++ == a->stop_at;
}

static void scores(void **state) {
    (void)state;
    bed b = open_bed("scores");
    train_model *tm = make_model(&b, DT_F32, 16);
    gist_engine *e = borrow(&b, tm), *opened = open_engine(&b, GIST_TYPE_F32);
    char outputs[9][128], given[128];
    sbuf rows;
    gist_error err = { 0 };
    write_rows(opened, &rows, outputs);
    train_set set = read_rows(&b, &rows);
    train_split split = { "dev", &set };
    assert_int_equal(set.pairs, 9);
    static const int ks[] = { 1, 3, 0 };
    static const char *const names[] = { "dev/exact.gist.k1", "dev/exact.gist.k3", "dev/exact.full", "dev/exact.none" };
    for (int pairs = 4; pairs <= 100; pairs += 96) { /* 4: the prompts of the first 4 pairs, which have 6 */
        asked how = { .stop_at = -1 };
        eval_answers_options o = { pairs, MAX_TOKENS, 96, &how, on_answer, 0 };
        train_metric m[8];
        int n = 1, count = pairs == 4 ? 6 : 9;
        assert_ok(eval_answers(e, &split, &b.pack, &o, m, 8, &n, &err), &err);
        assert_int_equal(n, 5);
        assert_int_equal(how.count, 4 * count);
        assert_int_equal(how.all, 4 * count);
        for (int v = 0; v < 4; v++) {
            int hits = 0;
            assert_string_equal(m[1 + v].name, names[v]);
            assert_true(m[1 + v].higher);
            for (int i = 0; i < count && v < 3; i++) {
                ask(opened, prompts[i / 3], ks[v], inputs[i % 3], given);
                hits += same_text(given, outputs[i]);
            }
            if (v < 3) assert_true(fabs(m[1 + v].value - 100.0 * hits / count) < 1e-9);
            if (v == 1 || v == 2) assert_true(hits >= count / 3 && hits < count);
        }
    }
    sbuf_free(&rows);
    train_data_free(&set);
    gist_engine_close(opened);
    gist_engine_close(e);
    train_model_free(tm);
    close_bed(&b);
}

typedef struct job {
    bed *b;
    train_model *tm;
    train_split split;
} job;

static gist_status score_with(void *ctx, const gist_allocator *alloc) {
    job *j = ctx;
    gist_engine *e = NULL;
    eval_answers_options o = { 1, MAX_TOKENS, 96, NULL, NULL, 0 };
    train_metric m[8];
    int n = 0;
    train_set set = *j->split.set;
    train_split split = { "dev", &set };
    set.alloc = alloc;
    TRY(engine_borrow(train_model_llama(j->tm), j->b->t, j->b->tp, &j->b->ctx, alloc, &e, NULL));
    gist_status status = eval_answers(e, &split, &j->b->pack, &o, m, 8, &n, NULL);
    gist_engine_close(e);
    return status;
}

static void scores_refused(void **state) {
    (void)state;
    bed b = open_bed("edges");
    train_model *tm = make_model(&b, DT_F32, 16);
    gist_engine *e = borrow(&b, tm);
    sbuf rows;
    sbuf_init(&rows, NULL);
    for (int i = 0; i < 9; i++) put_row(&rows, prompts[i / 3], inputs[i % 3], "no");
    train_set set = read_rows(&b, &rows);
    train_split split = { "dev", &set };
    train_metric m[8];
    gist_error err = { 0 };
    int n = 5;
    asked how = { .stop_at = 7 };
    eval_answers_options o = { 3, MAX_TOKENS, 96, &how, on_answer, 0 };
    assert_fails(eval_answers(e, &split, &b.pack, &o, m, 8, &n, &err), &err, GIST_ERR_LIMIT, "there is room for 3");
    n = 4;
    assert_ok(eval_answers(e, &split, &b.pack, &o, m, 8, &n, NULL), NULL); /* stopped: nothing, and no error */
    assert_int_equal(n, 4);
    assert_int_equal(how.count, 8);
    o.stop = NULL;
    o.max_length = 20;
    err = (gist_error){ 0 };
    assert_fails(eval_answers(e, &split, &b.pack, &o, m, 8, &n, &err), &err, GIST_ERR_USAGE, "row 1: no room");
    o.max_length = 96;
    o.pairs = 0;
    err = (gist_error){ 0 };
    assert_fails(eval_answers(e, &split, &b.pack, &o, m, 8, &n, &err), &err, GIST_ERR_USAGE, "no answers");
    assert_int_equal(n, 4);
    job j = { &b, tm, split };
    assert_true(test_each_alloc(score_with, &j) > 20);
    sbuf_free(&rows);
    train_data_free(&set);
    gist_engine_close(e);
    train_model_free(tm);
    close_bed(&b);
}

static double exact(const char *answer, const char *reference) {
    double percent = -1;
    eval_text a = eval_strip(answer, strlen(answer)), r = eval_strip(reference, strlen(reference));
    assert_string_equal(eval_scores[0].name, "exact");
    assert_ok(eval_scores[0].of(&percent, a, r, NULL, NULL), NULL);
    return percent;
}

static void exact_match(void **state) {
    (void)state;
    assert_true(exact("yes", "yes") == 100);
    assert_true(exact(" yes\n", "\tyes ") == 100);
    assert_true(exact("yes, no", "yes,  no") == 0);
    assert_true(exact("yes", "Yes") == 0);
    assert_true(exact("yes", "yes.") == 0);
    assert_true(exact("", "yes") == 0);
    assert_true(exact(" \n", "") == 100);
}

/* ---- the picture ---- */

static char *curve_of(const char *metrics) {
    char from[TEST_PATH], to[TEST_PATH];
    gist_error err = { 0 };
    size_t len;
    test_write(test_tmp(from, "metrics.jsonl"), metrics, strlen(metrics));
    assert_ok(train_curve(from, test_tmp(to, "curve.svg"), NULL, &err), &err);
    char *svg = (char *)test_read(to, &len);
    assert_non_null(strstr(svg, "</svg>"));
    return svg;
}

static int count(const char *text, const char *what) {
    int n = 0;
    for (const char *at = text; (at = strstr(at, what)); at++) n++;
    return n;
}

static void curves(void **state) {
    (void)state;
    char *svg = curve_of("{\"step\":0,\"best\":false,\"eval\":{\"a/gist\":2.5,\"a/full\":2}}\n"
                         "{\"step\":1,\"loss\":2.4}\n{\"step\":2,\"loss\":null}\n{\"step\":3,\"loss\":1.5}\n");
    assert_int_equal(count(svg, "<polyline"), 4); /* training twice, two validations */
    assert_null(strstr(svg, "logarithmic"));
    assert_null(strstr(svg, "percent"));
    free(svg);
    svg = curve_of(
        "{\"step\":0,\"best\":false,\"eval\":{\"a/gist\":9,\"b/gist\":8},\"scores\":{\"a/exact.gist\":0}}\n"
        "{\"step\":9,\"best\":true,\"eval\":{\"a/gist\":0.01,\"b/gist\":null},\"scores\":{\"a/exact.gist\":50}}\n");
    assert_int_equal(count(svg, "<polyline"), 3);
    assert_int_equal(count(svg, "stroke=\"#d95f02\" stroke-width=\"2.0\""), 3); /* one view, one colour */
    assert_int_equal(count(svg, "stroke-dasharray=\"6 3\" points"), 1);         /* the other split */
    assert_non_null(strstr(svg, "(logarithmic)"));
    assert_non_null(strstr(svg, "percent"));
    assert_non_null(strstr(svg, ">a/exact.gist<"));
    free(svg);
    free(curve_of(""));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(losses), cmocka_unit_test(borrowed),       cmocka_unit_test(not_borrowed),
        cmocka_unit_test(scores), cmocka_unit_test(scores_refused), cmocka_unit_test(exact_match),
        cmocka_unit_test(curves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
