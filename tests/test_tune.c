/* test_tune.c - the gist of one prompt by gradient descent: gradients of its rows, learning, and that what was learned
 * is what a gist file holds and inference reads; inputs: their loss in training, their start in generation.
 *
 * Tiny random models (tiny.h): losses are large and every row matters.
 */
#include <math.h>
#include <stdlib.h>

#include "tiny.h"
#include "train/train.h"

enum { K = 3 };
static const char prompt[] = "Answer in the tone of the author, and keep the name.";
static const char pairs[] = "{\"instruction\": \"Answer in the tone of the author, and keep the name.\", \"input\": "
                            "\"one two\", \"output\": \"three in four\"}\n"
                            "{\"instruction\": \"Answer in the tone of the author, and keep the name.\", \"input\": "
                            "\"\", \"output\": \"an end\"}\n"
                            "{\"instruction\": \"Answer in the tone of the author, and keep the name.\", \"input\": "
                            "\"the other input\", \"output\": \"out\"}\n";

typedef struct setup {
    gist_engine *e;
    gist *like;
    pool *pool;
    op_ctx ctx;
    train_base base;
    train_set set;
    train_model *tm;
    train_tune_options o;
    char dir[TEST_PATH];
} setup;

typedef struct how {
    gist_kernels level;
    int threads;
    gist_type kv;
    dtype products;
    bool distill, recompute;
    int k;
} how;

static void read_pairs(setup *s, const char *rows, train_set *set) {
    gist_error err = { 0 };
    train_data_options d = { .tp = tok_template_find("paper"), .max_length = 256, .gists = K };
    assert_ok(train_data_parse(set, rows, strlen(rows), "pairs", engine_tokenizer(s->e), &d, NULL, &err), &err);
}

static void take_rows(setup *s, const gist *g) {
    gist_error err = { 0 };
    for (int l = 0; l < 2; l++)
        assert_ok(gist_get_rows(g, l, train_memory_keys(s->tm, l), train_memory_values(s->tm, l), &err), &err);
    train_model_repack(s->tm);
}

static void open_setup(setup *s, how h) {
    tiny_model t = TINY_MODEL;
    gist_error err = { 0 };
    gist_compress_options co = GIST_COMPRESS_OPTIONS_INIT;
    *s = (setup){ 0 };
    co.k = h.k;
    co.kv = h.kv;
    s->e = tiny_open(&t, "tune", h.threads, h.level, GIST_TYPE_AUTO, "paper");
    test_tmp(s->dir, "tune");
    assert_ok(gist_compress(s->e, prompt, strlen(prompt), &co, &s->like, &err), &err);
    read_pairs(s, pairs, &s->set);
    assert_int_equal(s->set.pairs, 3);
    assert_ok(pool_create(NULL, h.threads, &s->pool, &err), &err);
    assert_ok(op_init(&s->ctx, h.level, s->pool, &err), &err);
    assert_ok(train_base_open(&s->base, s->dir, NULL, NULL, s->pool, NULL, &err), &err);
    s->o = (train_tune_options){ .k = h.k,
                                 .distill = h.distill,
                                 .batch = 2,
                                 .steps = 30,
                                 .warmup = 2,
                                 .seed = 5,
                                 .optimiser = { 0.03f, 0.9f, 0.999f, 1e-8f, 0, 1, 0 } };
    train_model_options m = { .type = h.products,
                              .recompute = h.recompute,
                              .lm = h.distill ? 0 : 1,
                              .distill = h.distill,
                              .gist_token = -1,
                              .memory_rows = h.k,
                              .memory_type = h.kv == GIST_TYPE_BF16 ? DT_BF16 : DT_F32 };
    assert_ok(train_tune_rows(&s->set, &s->set, &s->o, &m.max_rows, &err), &err);
    assert_ok(train_base_model(&s->base, &s->tm, 0, &m, &s->ctx, &err), &err);
    take_rows(s, s->like);
}

static void close_setup(setup *s) {
    train_model_free(s->tm);
    train_base_close(&s->base);
    pool_free(s->pool);
    train_data_free(&s->set);
    gist_free(s->like);
    gist_engine_close(s->e);
}

static const how PLAIN = { GIST_KERNELS_SCALAR, 1, GIST_TYPE_F32, DT_F32, false, false, K };

/* All pairs behind the memory, as rows of a batch. */
static void pack_all(setup *s, train_batch *b) {
    int index[3] = { 0, 1, 2 }, k[3] = { s->o.k, s->o.k, s->o.k };
    train_condition c[3] = { COND_NONE, COND_NONE, COND_NONE };
    train_pack_options o = { .k = { s->o.k }, .k_count = 1 };
    train_batch_init(b, NULL);
    assert_ok(train_pack_group(b, &s->set, 0, index, c, k, 3, &o, NULL), NULL);
    for (int t = 0; t < b->T; t++) {
        b->rows[t].mem = 1;
        b->rows[t].mhi = s->o.k;
    }
    train_batch_finish(b);
}

static gist *rows_to_gist(setup *s) {
    const float *rows[4];
    gist *g = NULL;
    gist_error err = { 0 };
    for (int l = 0; l < 2; l++) {
        rows[l] = train_memory_keys(s->tm, l);
        rows[2 + l] = train_memory_values(s->tm, l);
    }
    assert_ok(gist_from_rows(s->like, rows, rows + 2, NULL, &g, &err), &err);
    return g;
}

/* ---- gradients ---- */

static void check_gradients(how h) {
    setup s;
    train_batch b;
    train_loss loss;
    open_setup(&s, h);
    pack_all(&s, &b);
    train_model_zero_grad(s.tm);
    assert_ok(train_model_step(s.tm, &b, 1, &loss, NULL), NULL);
    assert_int_equal(train_model_trained(s.tm), 4);
    uint64_t seed = 9;
    for (int i = 0; i < 4; i++) {
        const train_tensor *t = train_model_tensor(s.tm, i);
        float *w = train_model_w(s.tm) + t->at;
        const float *g = train_model_g(s.tm) + t->at;
        assert_int_equal(t->shape[0], h.k);
        for (int row = 0; row < h.k; row++) { /* along a random direction in every row */
            size_t n = t->count / (size_t)h.k, at = (size_t)row * n;
            double slope = 0, dot = 0, norm = 0;
            float kept[64], d[64];
            assert_true(n <= 64);
            memcpy(kept, w + at, n * sizeof *kept);
            for (size_t j = 0; j < n; j++) {
                d[j] = test_randf(&seed);
                dot += (double)d[j] * (double)g[at + j];
                norm += (double)g[at + j] * (double)g[at + j];
            }
            for (int sign = -1; sign <= 1; sign += 2) {
                for (size_t j = 0; j < n; j++) w[at + j] = kept[j] + (float)sign * 0.01f * d[j];
                train_model_repack(s.tm);
                assert_ok(train_model_eval(s.tm, &b, &loss, NULL), NULL);
                slope += sign * loss.total / 0.02;
            }
            memcpy(w + at, kept, n * sizeof *kept);
            if (norm == 0 || fabs(slope - dot) > 0.01 * sqrt(norm) + 2e-4)
                fail_msg("%s row %d: slope %g, gradient %g of length %g", t->name, row, slope, dot, sqrt(norm));
        }
    }
    train_batch_free(&b);
    close_setup(&s);
}

static void test_gradients(void **state) {
    (void)state;
    gist_kernels level[TINY_LEVELS];
    int n = tiny_levels(level);
    for (int i = 0; i < n; i++) {
        how h = PLAIN;
        h.level = level[i];
        h.threads = 2;
        check_gradients(h);
        h.recompute = true;
        h.k = 18; /* more than a block of keys */
        check_gradients(h);
    }
}

/* The pairs behind the predicted rows, and packed behind prompt and gist tokens under the gist mask: the same loss. */
static void test_same_as_packed(void **state) {
    (void)state;
    setup s;
    train_batch b;
    train_loss memory, packed;
    gist_error err = { 0 };
    train_model *plain;
    open_setup(&s, PLAIN);
    pack_all(&s, &b);
    assert_ok(train_model_eval(s.tm, &b, &memory, NULL), NULL);
    int index[3] = { 0, 1, 2 }, k[3] = { K, K, K };
    train_condition c[3] = { COND_GIST, COND_GIST, COND_GIST };
    train_pack_options o = { .k = { K }, .k_count = 1, .gist_token = TINY_GIST };
    train_batch_reset(&b);
    assert_ok(train_pack_group(&b, &s.set, 0, index, c, k, 3, &o, NULL), NULL);
    train_batch_finish(&b);
    train_model_options m = { .max_rows = b.T, .lm = 1 };
    assert_ok(train_base_model(&s.base, &plain, 0, &m, &s.ctx, &err), &err);
    assert_ok(train_model_eval(plain, &b, &packed, NULL), NULL);
    if (fabs(memory.total - packed.total) > 1e-5 * packed.total)
        fail_msg("loss %.9g behind rows, %.9g packed", memory.total, packed.total);
    train_model_free(plain);
    train_batch_free(&b);
    close_setup(&s);
}

/* ---- learning ---- */

static train_tune_result tuned(setup *s, const train_set *held) {
    train_tune_result r = { 0 };
    gist_error err = { 0 };
    assert_ok(train_tune_run(s->tm, &s->set, held, &s->o, NULL, &r, &err), &err);
    return r;
}

static void test_learns(void **state) {
    (void)state;
    for (int i = 0; i < 8; i++) {
        how h = PLAIN, other;
        h.level = GIST_KERNELS_AUTO;
        h.distill = i & 1;
        h.kv = i & 2 ? GIST_TYPE_BF16 : GIST_TYPE_F32;
        h.products = i & 4 ? DT_BF16 : DT_F32;
        other = h;
        other.threads = 2;
        other.recompute = true;
        setup a, b;
        open_setup(&a, h);
        open_setup(&b, other);
        size_t n = train_model_count(a.tm);
        const train_tensor *base = train_model_tensor(a.tm, 4);
        float *before = malloc(base->count * sizeof *before);
        memcpy(before, train_model_w(a.tm) + base->at, base->count * sizeof *before);
        train_tune_result r = tuned(&a, &a.set), r2 = tuned(&b, &b.set);
        if (!(r.after < 0.9 * r.before)) fail_msg("case %d: loss %g -> %g", i, r.before, r.after);
        assert_int_equal(r.steps, 30);
        assert_true(isnan(r.full) == h.distill);
        assert_same_floats(train_model_w(b.tm), train_model_w(a.tm), n, "threads and recomputation");
        assert_true(r.after == r2.after);
        assert_same_floats(train_model_w(a.tm) + base->at, before, base->count, "the frozen model");
        free(before);
        close_setup(&a);
        close_setup(&b);
    }
}

/* Held-out pairs that contradict the others: what is kept is the best seen, not the last. */
static void test_keeps_best(void **state) {
    (void)state;
    static const char against[] = "{\"instruction\": \"Answer in the tone of the author, and keep the name.\", "
                                  "\"input\": \"one two\", \"output\": \"qqqqqqqq\"}\n";
    setup s;
    train_set held = { 0 };
    train_batch b;
    train_loss loss;
    open_setup(&s, PLAIN);
    read_pairs(&s, against, &held);
    s.o.eval_every = 1;
    s.o.optimiser.lr = 0.3f;
    train_tune_result r = tuned(&s, &held);
    assert_true(r.after <= r.before);
    assert_true(r.best_step < 30);
    int index = 0, k = K;
    train_condition c = COND_NONE;
    train_pack_options o = { .k = { K }, .k_count = 1 };
    train_batch_init(&b, NULL);
    assert_ok(train_pack_group(&b, &held, 0, &index, &c, &k, 1, &o, NULL), NULL);
    for (int t = 0; t < b.T; t++) {
        b.rows[t].mem = 1;
        b.rows[t].mhi = K;
    }
    train_batch_finish(&b);
    assert_ok(train_model_eval(s.tm, &b, &loss, NULL), NULL);
    assert_true(fabs(loss.total - r.after) < 1e-5 * r.after);
    train_batch_free(&b);
    train_data_free(&held);
    close_setup(&s);
}

static bool stop_at_once(void *ctx) {
    return ++*(int *)ctx == 2;
}

static void test_stop(void **state) {
    (void)state;
    setup s;
    int asked = 0;
    train_tune_events ev = { .ctx = &asked, .stop = stop_at_once };
    train_tune_result r;
    open_setup(&s, PLAIN);
    assert_ok(train_tune_run(s.tm, &s.set, NULL, &s.o, &ev, &r, NULL), NULL);
    assert_true(r.stopped);
    assert_int_equal(r.steps, 2);
    assert_true(isnan(r.after));
    close_setup(&s);
}

/* ---- what inference reads ---- */

static float *behind(gist_engine *e, const gist *g, const int32_t *ids, size_t n) {
    gist_session *s;
    gist_error err = { 0 };
    float *logits = malloc(n * 265 * sizeof *logits);
    assert_ok(gist_session_open(e, NULL, &s, &err), &err);
    assert_ok(gist_session_attach(s, g, &err), &err);
    assert_ok(gist_session_feed_all(s, ids, n, logits, &err), &err);
    gist_session_close(s);
    return logits;
}

static void check_file(gist_type kv) {
    setup s;
    how h = PLAIN;
    char path[TEST_PATH];
    gist_error err = { 0 };
    gist_info a, b, c, d;
    int32_t ids[20];
    h.kv = kv;
    open_setup(&s, h);
    gist *same = rows_to_gist(&s);
    for (int i = 0; i < 2; i++) { /* every value has its part in the identity */
        float *x = (i ? train_memory_values : train_memory_keys)(s.tm, 1), kept = x[K * 20 - 1];
        x[K * 20 - 1] += 1;
        gist *moved = rows_to_gist(&s);
        gist_get_info(same, &a);
        gist_get_info(moved, &b);
        assert_string_not_equal(a.id, b.id);
        x[K * 20 - 1] = kept;
        gist_free(moved);
    }
    tuned(&s, NULL);
    gist *live = rows_to_gist(&s), *again = rows_to_gist(&s), *loaded = NULL;
    gist_get_info(s.like, &a);
    gist_get_info(same, &b);
    gist_get_info(live, &c);
    gist_get_info(again, &d);
    assert_false(a.tuned);
    assert_true(c.tuned);
    assert_string_not_equal(a.id, b.id);
    assert_string_not_equal(b.id, c.id);
    assert_string_equal(c.id, d.id);
    assert_int_equal(c.first_position, a.first_position);
    assert_int_equal(c.prompt_tokens, a.prompt_tokens);
    assert_int_equal(c.kv, kv);
    assert_ok(gist_save(live, test_tmp(path, "tuned.gist"), &err), &err);
    assert_ok(gist_load(s.e, path, 0, &loaded, &err), &err);
    gist_get_info(loaded, &d);
    assert_string_equal(d.id, c.id);
    assert_true(d.tuned);
    tiny_ids(ids, 20, 8);
    float *x = behind(s.e, live, ids, 20), *y = behind(s.e, loaded, ids, 20), *z = behind(s.e, same, ids, 20),
          *w = behind(s.e, s.like, ids, 20);
    assert_same_floats(y, x, 20 * 265, "saved and loaded");
    assert_same_floats(w, z, 20 * 265, "rows out and in again");
    assert_true(test_max_rel(x, z, 20 * 265, NULL) > 1e-2);
    free(x);
    free(y);
    free(z);
    free(w);
    gist_free(same);
    gist_free(live);
    gist_free(again);
    gist_free(loaded);
    close_setup(&s);
}

static void test_file(void **state) {
    (void)state;
    check_file(GIST_TYPE_F32);
    check_file(GIST_TYPE_BF16);
}

/* Training's loss of a pair is what a session behind the saved rows gives its answer. */
static void test_session_agrees(void **state) {
    (void)state;
    setup s;
    open_setup(&s, PLAIN);
    tuned(&s, NULL);
    gist *g = rows_to_gist(&s);
    train_batch b;
    train_loss loss;
    pack_all(&s, &b);
    assert_ok(train_model_eval(s.tm, &b, &loss, NULL), NULL);
    double sum = 0;
    int labels = 0;
    for (int p = 0, t = 0; p < s.set.pairs; p++) {
        int n = s.set.pair[p].input_len + s.set.pair[p].answer_len - 1;
        float *logits = behind(s.e, g, b.ids + t, (size_t)n);
        for (int i = 0; i < n; i++, t++) {
            if (b.label[t] < 0) continue;
            const float *x = logits + (size_t)i * 265;
            double total = 0;
            for (int v = 0; v < 265; v++) total += exp((double)x[v]);
            sum += log(total) - (double)x[b.label[t]];
            labels++;
        }
        free(logits);
    }
    if (fabs(sum / labels - loss.total) > 1e-5 * loss.total)
        fail_msg("session %.9g, training %.9g", sum / labels, loss.total);
    gist_free(g);
    train_batch_free(&b);
    close_setup(&s);
}

/* ---- errors ---- */

static void test_errors(void **state) {
    (void)state;
    setup s;
    gist_error err = { 0 };
    train_tune_result r;
    train_set two = { 0 };
    int rows = -1;
    open_setup(&s, PLAIN);
    static const char other[] =
        "{\"instruction\": \"a\", \"output\": \"b\"}\n{\"instruction\": \"c\", \"output\": \"d\"}\n";
    read_pairs(&s, other, &two);
    assert_fails(train_tune_rows(&two, NULL, &s.o, &rows, &err), &err, GIST_ERR_USAGE, "one prompt, the pairs have 2");
    assert_int_equal(rows, -1);
    err = (gist_error){ 0 };
    assert_fails(train_tune_run(s.tm, &two, NULL, &s.o, NULL, &r, &err), &err, GIST_ERR_USAGE, "one prompt");
    train_data_free(&two);
    train_model *tm = NULL;
    train_model_options m = { .max_rows = 8, .lm = 1, .gist_token = TINY_GIST, .memory_rows = 1025 };
    err = (gist_error){ 0 };
    assert_fails(train_base_model(&s.base, &tm, 0, &m, &s.ctx, &err), &err, GIST_ERR_USAGE, "1025 rows");
    m.memory_rows = 1;
    m.only_gist = true;
    err = (gist_error){ 0 };
    assert_fails(train_base_model(&s.base, &tm, 0, &m, &s.ctx, &err), &err, GIST_ERR_USAGE, "trains alone");
    assert_null(tm);
    train_memory_keys(s.tm, 0)[0] = NAN;
    train_model_repack(s.tm);
    err = (gist_error){ 0 };
    assert_fails(train_tune_run(s.tm, &s.set, NULL, &s.o, NULL, &r, &err), &err, GIST_ERR_LIMIT,
                 "step 1: the loss is not finite");
    char path[TEST_PATH];
    gist *seen = NULL, *g = NULL;
    const float *none[4] = { 0 };
    assert_ok(gist_save(s.like, test_tmp(path, "seen.gist"), NULL), NULL);
    assert_ok(gist_inspect(path, &seen, NULL), NULL);
    err = (gist_error){ 0 };
    assert_fails(gist_from_rows(seen, none, none + 2, NULL, &g, &err), &err, GIST_ERR_USAGE, "only inspected");
    gist_free(seen);
    close_setup(&s);
}

static gist_status run_once(void *ctx, const gist_allocator *alloc) {
    setup *s = ctx;
    train_set set = s->set;
    train_tune_result r;
    gist_error err = { 0 };
    set.alloc = alloc;
    return train_tune_run(s->tm, &set, &set, &s->o, NULL, &r, &err);
}

static void test_memory(void **state) {
    (void)state;
    setup s;
    open_setup(&s, PLAIN);
    s.o.steps = 1;
    assert_true(test_each_alloc(run_once, &s) > 5);
    close_setup(&s);
}

/* ---- inputs ---- */

/* With input_loss every row of a pair but the last of its answer predicts what follows it. */
static void test_input_loss(void **state) {
    (void)state;
    setup s;
    train_batch b;
    int pair = 0, k = 1;
    train_condition c = COND_GIST;
    train_pack_options o = { .k = { 1 }, .k_count = 1, .gist_token = TINY_GIST, .teacher = true, .input_loss = 1 };
    open_setup(&s, PLAIN);
    for (int lm = 0; lm < 2; lm++) {
        const train_pair *p = &s.set.pair[0];
        int first = s.set.prompt[0].len + 1, n = p->input_len + p->answer_len - 1;
        o.teacher_lm = lm ? 0.5f : 0;
        train_batch_init(&b, NULL);
        assert_ok(train_pack_group(&b, &s.set, 0, &pair, &c, &k, 1, &o, NULL), NULL);
        train_batch_finish(&b);
        assert_int_equal(b.T, first + 2 * n);
        assert_int_equal(b.label_rows, lm ? 2 * n : n);
        double sum = 0;
        for (int i = 0; i < n; i++) {
            int t = first + i, next = i + 1 < n ? b.ids[t + 1] : s.set.ids[p->answer + (size_t)p->answer_len - 1];
            assert_int_equal(b.label[t], next);
            assert_int_equal(b.teacher[t], t + n);
            assert_int_equal(b.label[t + n], lm ? next : -1);
            sum += (double)b.weight[t] + (double)b.weight[t + n];
        }
        assert_true(fabs(sum - 1) < 1e-5);
        train_batch_free(&b);
    }
    close_setup(&s);
}

static void test_input_note(void **state) {
    (void)state;
    setup s;
    char path[TEST_PATH + 40];
    gist_error err = { 0 };
    open_setup(&s, PLAIN);
    train_model *tm;
    train_model_options m = { .max_rows = 8, .lm = 1 };
    assert_ok(train_base_model(&s.base, &tm, 0, &m, &s.ctx, &err), &err);
    for (int yes = 0; yes < 2; yes++) {
        train_origin from = train_base_origin(&s.base, tok_template_find("paper"), DT_F32);
        json_t *config;
        from.input_loss = yes;
        assert_ok(train_export_model(tm, &from, s.dir, NULL, &err), &err);
        snprintf(path, sizeof path, "%s/config.json", s.dir);
        assert_ok(json_read_file(path, &config, &err), &err);
        assert_int_equal(json_is_true(json_object_get(json_object_get(config, "gist_training"), "input_loss")), yes);
        json_decref(config);
    }
    train_model_free(tm);
    close_setup(&s);
}

/* What stands before an input is the beginning of the rest with one. */
static void test_input_start(void **state) {
    (void)state;
    setup s;
    gist_error err = { 0 };
    const char *stop = NULL;
    tok_ids start, whole;
    open_setup(&s, PLAIN);
    tok_ids_init(&start, NULL);
    tok_ids_init(&whole, NULL);
    const tok_template *tp = tok_template_find("paper");
    assert_ok(tok_template_input_start(engine_tokenizer(s.e), tp, &start, &stop, &err), &err);
    assert_string_equal(stop, "\nOutput:");
    assert_ok(tok_template_input(engine_tokenizer(s.e), tp, "x", 1, false, &whole, &err), &err);
    assert_true(start.n > 0 && start.n < whole.n);
    assert_memory_equal(start.id, whole.id, start.n * sizeof *start.id);
    assert_fails(tok_template_input_start(engine_tokenizer(s.e), tok_template_find("raw"), &start, &stop, &err), &err,
                 GIST_ERR_UNSUPPORTED, "no mark where an input ends");
    tok_ids_free(&start);
    tok_ids_free(&whole);
    close_setup(&s);
}

/* Rewound and fed again: as if never fed. */
static void test_rewind(void **state) {
    (void)state;
    setup s;
    gist_session *a;
    gist_error err = { 0 };
    int32_t ids[12];
    float *first = malloc(265 * sizeof *first), *again = malloc(265 * sizeof *again);
    open_setup(&s, PLAIN);
    tiny_ids(ids, 12, 2);
    assert_ok(gist_session_open(s.e, NULL, &a, &err), &err);
    assert_ok(gist_session_prompt(a, prompt, strlen(prompt), &err), &err);
    int length = gist_session_length(a);
    assert_ok(gist_session_feed(a, ids, 6, first, &err), &err);
    session_rewind(a, length);
    assert_int_equal(gist_session_length(a), length);
    assert_int_equal(gist_session_position(a), length);
    assert_ok(gist_session_feed(a, ids + 6, 6, again, &err), &err);
    session_rewind(a, length);
    assert_ok(gist_session_feed(a, ids, 6, again, &err), &err);
    assert_same_floats(again, first, 265, "fed again");
    session_rewind(a, length + 20);
    assert_int_equal(gist_session_length(a), length + 6);
    gist_session_close(a);
    free(first);
    free(again);
    close_setup(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients),      cmocka_unit_test(test_same_as_packed),
        cmocka_unit_test(test_learns),         cmocka_unit_test(test_keeps_best),
        cmocka_unit_test(test_stop),           cmocka_unit_test(test_file),
        cmocka_unit_test(test_session_agrees), cmocka_unit_test(test_errors),
        cmocka_unit_test(test_memory),         cmocka_unit_test(test_input_loss),
        cmocka_unit_test(test_input_note),     cmocka_unit_test(test_input_start),
        cmocka_unit_test(test_rewind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
