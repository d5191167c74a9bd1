/* test_train_pack.c - packed batches against gisting.md's table, row by row; the order of training; schedules.
 *
 *   separate   each pair alone as prompt, k gists, rest: the list of (id, position) that each row sees, by the table
 *   packed     the same list read through the intervals of the packed row
 */
#include "testing.h"

#include <math.h>
#include <stdlib.h>

#include "train/train.h"

enum { GIST_ID = 999, MOST = 64 };

/* ---- sets made by hand: prompt i has ids 100*i.., every pair ids of its own ---- */

typedef struct made_set {
    train_set set;
    int32_t ids[4096];
    train_prompt prompt[MOST];
    train_pair pair[MOST];
} made_set;

static void make_set(made_set *m, int prompts, int most_pairs, uint64_t seed) {
    memset(m, 0, sizeof *m);
    size_t n = 0;
    for (int i = 0; i < prompts; i++) {
        train_prompt *p = &m->prompt[i];
        *p = (train_prompt){ .ids = n, .len = 1 + (int)(test_rand(&seed) % 6), .first_pair = m->set.pairs };
        for (int j = 0; j < p->len; j++) m->ids[n++] = 1000 * (i + 1) + j;
        p->pairs = 1 + (int)(test_rand(&seed) % (uint64_t)most_pairs);
        for (int j = 0; j < p->pairs; j++) {
            train_pair *q = &m->pair[m->set.pairs++];
            *q = (train_pair){
                .input = n, .input_len = 1 + (int)(test_rand(&seed) % 4), .prompt = i, .row = m->set.pairs
            };
            for (int k = 0; k < q->input_len; k++) m->ids[n++] = 100000 * m->set.pairs + k;
            q->answer = n;
            q->answer_len = 1 + (int)(test_rand(&seed) % 4);
            for (int k = 0; k < q->answer_len; k++) m->ids[n++] = 100000 * m->set.pairs + 500 + k;
        }
    }
    m->set.ids = m->ids;
    m->set.id_count = n;
    m->set.prompt = m->prompt;
    m->set.pair = m->pair;
    m->set.prompts = prompts;
}

static train_pack_options options(void) {
    train_pack_options o = {
        .k = { 2, 3, 1 }, .k_count = 3, .gist_token = GIST_ID, .pairs_per_prompt = 4, .batch_pairs = 6
    };
    o.mix[COND_GIST] = 1;
    return o;
}

/* ---- what a row sees ---- */

typedef struct seen {
    int n;
    int32_t id[256], pos[256];
} seen;

static void see(seen *s, int32_t id, int32_t pos) {
    assert_true(s->n < 256);
    s->id[s->n] = id;
    s->pos[s->n++] = pos;
}

static void see_rows(seen *s, const train_batch *b, int t) {
    const op_row *r = &b->rows[t];
    assert_int_equal(r->kv, 0);
    assert_int_equal(r->slot, t);
    assert_int_equal(r->pos, b->pos[t]);
    assert_true(r->mem == 0 || r->mem == -1);
    if (r->mem < 0) assert_true(r->mlo == r->mhi);
    for (int i = r->mlo; i < r->mhi; i++) see(s, b->ids[i], b->pos[i]);
    for (int i = r->lo; i < r->hi; i++) see(s, b->ids[i], b->pos[i]);
    for (int i = r->mlo; i < r->mhi; i++) assert_true(i < r->lo); /* nothing twice, nothing ahead */
    assert_int_equal(r->hi, t + 1);
}

/* The separate sequence of one pair and what its row i of the rest sees. */
static void see_separately(seen *s, const train_set *set, const train_pair *q, train_condition c, int k, int K,
                           bool spread, int i) {
    const train_prompt *p = &set->prompt[q->prompt];
    int gists = c == COND_FULL ? 0 : k, from = p->len + gists; /* where the rest begins */
    int lo = c == COND_GIST ? p->len : c == COND_NEG_CONTROL || c == COND_NONE ? from : 0;
    int at = c == COND_NONE ? p->len + K : from; /* and its first position */
    for (int j = lo; j <= from + i; j++) {
        if (j < p->len)
            see(s, set->ids[p->ids + (size_t)j], j);
        else if (j < from)
            see(s, GIST_ID, llama_gist_position(spread, p->len, j - p->len));
        else {
            int r = j - from;
            see(s, set->ids[r < q->input_len ? q->input + (size_t)r : q->answer + (size_t)(r - q->input_len)], at + r);
        }
    }
}

static void same_view(const seen *a, const seen *b) {
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->id, b->id, (size_t)a->n * sizeof *a->id);
    assert_memory_equal(a->pos, b->pos, (size_t)a->n * sizeof *a->pos);
}

/* Row t predicts id (-1: nothing) with this weight. */
static void check_label(const train_batch *b, int t, int32_t id, float weight, bool text) {
    assert_int_equal(b->label[t], weight > 0 ? id : -1);
    assert_true(b->weight[t] == weight);
    assert_int_equal(b->text[t], text && weight > 0);
}

/* Rows [t, ...) of the batch are this pair under c, with these labels; returns the row behind them. */
static int check_pair(const train_batch *b, int t, const train_set *set, int pair, train_condition c, int k, int K,
                      bool spread, float answer, float input) {
    const train_pair *q = &set->pair[pair];
    for (int i = 0; i < q->input_len + q->answer_len - 1; i++, t++) {
        seen packed = { 0 }, apart = { 0 };
        see_rows(&packed, b, t);
        see_separately(&apart, set, q, c, k, K, spread, i);
        same_view(&packed, &apart);
        int j = i - q->input_len + 1; /* of the answer */
        if (j >= 0)
            check_label(b, t, set->ids[q->answer + (size_t)j], answer, false);
        else
            check_label(b, t, set->ids[q->input + (size_t)(i + 1)], answer * input, true);
        assert_int_equal(b->condition[t], c);
        assert_int_equal(b->is_gist[t], 0);
    }
    return t;
}

static int check_prompt(const train_batch *b, int t, const train_set *set, int prompt, int gists, bool spread,
                        float loss) {
    const train_prompt *p = &set->prompt[prompt];
    for (int i = 0; i < p->len + gists; i++, t++) {
        seen packed = { 0 }, apart = { 0 };
        see_rows(&packed, b, t);
        for (int j = 0; j <= i; j++)
            if (j < p->len)
                see(&apart, set->ids[p->ids + (size_t)j], j);
            else
                see(&apart, GIST_ID, llama_gist_position(spread, p->len, j - p->len));
        same_view(&packed, &apart);
        assert_int_equal(b->is_gist[t], i >= p->len);
        assert_int_equal(b->condition[t], COND_COUNT);
        check_label(b, t, i + 1 < p->len ? set->ids[p->ids + (size_t)(i + 1)] : 0, i + 1 < p->len ? loss : 0, true);
        assert_int_equal(b->teacher[t], -1);
    }
    return t;
}

static void gist_positions(void **state) {
    (void)state;
    static const int spread[] = { 16, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15, 0 };
    for (int j = 0; j < (int)(sizeof spread / sizeof *spread); j++) {
        assert_int_equal(llama_gist_position(true, 16, j), spread[j]);
        assert_int_equal(llama_gist_position(false, 16, j), 16 + j);
    }
    for (int j = 0; j < 1024; j++) assert_in_range(llama_gist_position(true, 1 << 30, j), 0, 1 << 30);
}

static void every_row_sees_what_the_table_says(void **state) {
    (void)state;
    made_set *m = malloc(sizeof *m);
    train_batch b;
    gist_error err = { 0 };
    uint64_t seed = 7;
    train_batch_init(&b, NULL);
    for (int round = 0; round < 300; round++) {
        make_set(m, 3, 5, (uint64_t)round);
        train_pack_options o = options();
        o.teacher = round % 2;
        o.teacher_lm = round % 4 == 1 ? 0.5f : 0;
        o.input_loss = round % 3 == 1 ? 0.25f : 0;
        o.gist_spread = round % 7 < 3;
        o.prompt_loss = round % 5 == 1 ? 0.125f : 0;
        train_batch_reset(&b);
        int t = 0, labels = 0;
        int64_t expected = 0;
        for (int p = 0; p < 3; p++) {
            int n = m->prompt[p].pairs, pairs[8], k[8], gists = 0;
            train_condition c[8];
            bool whole = false;
            for (int i = 0; i < n; i++) {
                pairs[i] = m->prompt[p].first_pair + (i + 1) % n;
                c[i] = (train_condition)(test_rand(&seed) % COND_COUNT);
                k[i] = 1 + (int)(test_rand(&seed) % 3);
                bool uses = c[i] == COND_GIST || c[i] == COND_POS_CONTROL;
                whole = whole || uses || c[i] == COND_FULL;
                if (uses && k[i] > gists) gists = k[i];
            }
            expected += train_pack_rows(&m->set, p, pairs, c, k, n, &o);
            assert_ok(train_pack_group(&b, &m->set, p, pairs, c, k, n, &o, &err), &err);
            assert_int_equal(b.T, expected);
            if (whole) {
                t = check_prompt(&b, t, &m->set, p, gists, o.gist_spread, o.prompt_loss);
                if (o.prompt_loss > 0) labels += m->prompt[p].len - 1;
            }
            for (int i = 0; i < n; i++) {
                const train_pair *q = &m->pair[pairs[i]];
                int first = t;
                t = check_pair(&b, t, &m->set, pairs[i], c[i], k[i], 3, o.gist_spread, 1, o.input_loss);
                int each = q->answer_len + (o.input_loss > 0 ? q->input_len - 1 : 0);
                labels += each;
                if (!o.teacher || c[i] != COND_GIST) continue;
                int copy = t;
                t = check_pair(&b, t, &m->set, pairs[i], COND_FULL, 0, 3, o.gist_spread, o.teacher_lm, o.input_loss);
                if (o.teacher_lm > 0) labels += each;
                for (int j = 0; j < copy - first; j++)
                    assert_int_equal(b.teacher[first + j], j < q->input_len - 1 && o.input_loss == 0 ? -1 : copy + j);
            }
        }
        assert_int_equal(t, b.T); /* and no row more */
        assert_int_equal(labels, b.label_rows);
        train_batch_finish(&b);
        double sum = 0;
        for (int i = 0; i < b.T; i++) sum += (double)b.weight[i];
        assert_true(fabs(sum - 1) < 1e-5);
    }
    train_batch_free(&b);
    free(m);
}

/* ---- the stream ---- */

static bool same_batch(const train_batch *a, const train_batch *b) {
    size_t n = (size_t)a->T;
    return a->T == b->T && a->pairs == b->pairs && memcmp(a->ids, b->ids, n * sizeof *a->ids) == 0 &&
           memcmp(a->rows, b->rows, n * sizeof *a->rows) == 0 &&
           memcmp(a->weight, b->weight, n * sizeof *a->weight) == 0 && memcmp(a->condition, b->condition, n) == 0 &&
           memcmp(a->teacher, b->teacher, n * sizeof *a->teacher) == 0;
}

/* Answers end in the id 100000*row + 500 + ...: which pairs are in the batch? */
static void count_pairs(const train_batch *b, int *count) {
    for (int t = 0; t < b->T; t++)
        if (b->label[t] >= 100000 && b->label[t] % 100000 == 500) count[b->label[t] / 100000 - 1]++;
}

static void an_epoch_has_every_pair_once(void **state) {
    (void)state;
    made_set *m = malloc(sizeof *m);
    train_stream st;
    train_batch b;
    gist_error err = { 0 };
    train_batch_init(&b, NULL);
    make_set(m, 12, 5, 3);
    for (int tokens = 0; tokens < 60; tokens += 45) {
        train_pack_options o = options();
        o.batch_tokens = tokens;
        assert_ok(train_stream_init(&st, &m->set, &o, 5, &err), &err);
        int first_order[MOST], at = 0, moved = 0;
        for (int epoch = 0; epoch < 3; epoch++) {
            int count[MOST] = { 0 };
            at = 0;
            do {
                assert_ok(train_stream_next(&st, &b, &err), &err);
                assert_int_equal(st.epoch, epoch);
                assert_in_range(b.pairs, 1, 6);
                if (tokens) assert_in_range(b.T, 1, tokens);
                count_pairs(&b, count);
                for (int t = 0; t < b.T; t++)
                    if (b.label[t] >= 0 && b.label[t] % 100000 == 500) {
                        if (epoch == 0)
                            first_order[at] = b.label[t];
                        else
                            moved += first_order[at] != b.label[t];
                        at++;
                    }
            } while (st.at < (uint64_t)st.groups);
            for (int i = 0; i < m->set.pairs; i++) assert_int_equal(count[i], 1);
        }
        assert_true(moved > m->set.pairs); /* epochs differ */
        train_stream_free(&st);
    }
    train_batch_free(&b);
    free(m);
}

static void a_place_is_all_the_state(void **state) {
    (void)state;
    enum { BATCHES = 40 };
    made_set *m = malloc(sizeof *m);
    train_stream st, other;
    train_batch run, again;
    gist_error err = { 0 };
    uint64_t epoch[BATCHES], at[BATCHES];
    train_batch_init(&run, NULL);
    train_batch_init(&again, NULL);
    make_set(m, 9, 4, 8);
    train_pack_options o = options();
    o.mix[COND_GIST] = 0.5;
    o.mix[COND_FULL] = o.mix[COND_NONE] = 0.25;
    o.teacher = true;
    assert_ok(train_stream_init(&st, &m->set, &o, 11, &err), &err);
    assert_ok(train_stream_init(&other, &m->set, &o, 11, &err), &err);
    for (int i = 0; i < BATCHES; i++) {
        epoch[i] = st.epoch;
        at[i] = st.at;
        assert_ok(train_stream_next(&st, &run, &err), &err);
    }
    assert_true(st.epoch >= 2);
    for (int i = BATCHES - 1; i >= 0; i -= 3) { /* backwards, so that nothing can be remembered */
        assert_ok(train_stream_seek(&other, epoch[i], at[i], &err), &err);
        assert_ok(train_stream_next(&other, &again, &err), &err);
        assert_ok(train_stream_seek(&st, 0, 0, &err), &err);
        for (int j = 0; j <= i; j++) assert_ok(train_stream_next(&st, &run, &err), &err);
        assert_true(same_batch(&run, &again));
    }
    uint64_t where = other.epoch;
    assert_fails(train_stream_seek(&other, 1, 1000, &err), &err, GIST_ERR_MISMATCH, "epoch 1");
    assert_int_equal(other.epoch, where);
    train_stream_free(&st);
    train_stream_free(&other);

    /* another seed, another order */
    err = (gist_error){ 0 };
    assert_ok(train_stream_init(&st, &m->set, &o, 12, &err), &err);
    assert_ok(train_stream_next(&st, &again, &err), &err);
    assert_ok(train_stream_init(&other, &m->set, &o, 11, &err), &err);
    assert_ok(train_stream_next(&other, &run, &err), &err);
    assert_false(same_batch(&run, &again));
    train_stream_free(&st);
    train_stream_free(&other);
    train_batch_free(&run);
    train_batch_free(&again);
    free(m);
}

static void the_plan_is_what_happens(void **state) {
    (void)state;
    made_set *m = malloc(sizeof *m);
    train_stream st;
    train_batch b;
    train_plan plan;
    gist_error err = { 0 };
    train_batch_init(&b, NULL);
    make_set(m, 10, 4, 21);
    train_pack_options o = options();
    o.mix[COND_GIST] = o.mix[COND_NONE] = 0.5;
    o.batch_tokens = 50;
    assert_ok(train_stream_init(&st, &m->set, &o, 1, &err), &err);
    assert_ok(train_stream_plan(&st, 0, 2, &plan, &err), &err);
    int64_t n = 0;
    int most = 0;
    for (; st.epoch < 1 || st.at < (uint64_t)st.groups; n++) {
        assert_ok(train_stream_next(&st, &b, &err), &err);
        if (b.T > most) most = b.T;
    }
    assert_int_equal(plan.batches, n);
    assert_int_equal(plan.max_rows, most);
    assert_ok(train_stream_plan(&st, n, 0, &plan, &err), &err);
    assert_int_equal(plan.batches, n);
    assert_int_equal(plan.max_rows, most);
    train_stream_free(&st);
    train_batch_free(&b);
    free(m);
}

static void shares_and_counts_are_drawn(void **state) {
    (void)state;
    made_set *m = malloc(sizeof *m);
    train_stream st;
    train_batch b;
    gist_error err = { 0 };
    int rows[COND_COUNT] = { 0 }, total = 0;
    train_batch_init(&b, NULL);
    make_set(m, 12, 5, 4);
    for (int i = 0; i < m->set.pairs; i++) m->pair[i].answer_len = 1;
    train_pack_options o = options();
    o.mix[COND_GIST] = 0.5;
    o.mix[COND_FULL] = 0.3;
    o.mix[COND_NEG_CONTROL] = 0.2;
    assert_ok(train_stream_init(&st, &m->set, &o, 99, &err), &err);
    while (st.epoch < 200) {
        assert_ok(train_stream_next(&st, &b, &err), &err);
        for (int t = 0; t < b.T; t++) {
            if (b.label[t] < 0) continue;
            rows[b.condition[t]]++;
            total++;
        }
    }
    for (int c = 0; c < COND_COUNT; c++) assert_true(fabs((double)rows[c] / total - o.mix[c]) < 0.02);
    train_stream_free(&st);
    train_batch_free(&b);
    free(m);
}

static void options_that_cannot_be(void **state) {
    (void)state;
    made_set *m = malloc(sizeof *m);
    train_stream st = { 0 };
    make_set(m, 3, 2, 4);
    train_pack_options o;
    gist_error err;
#define REFUSED(change, code, text)                                                                                    \
    o = options();                                                                                                     \
    err = (gist_error){ 0 };                                                                                           \
    change;                                                                                                            \
    assert_fails(train_stream_init(&st, &m->set, &o, 0, &err), &err, code, text)
    REFUSED(o.mix[COND_FULL] = 0.5, GIST_ERR_USAGE, "sum to 1.5");
    REFUSED((o.mix[COND_FULL] = -0.5, o.mix[COND_GIST] = 1.5), GIST_ERR_USAGE, "full is negative");
    REFUSED(o.mix[COND_GIST] = NAN, GIST_ERR_USAGE, "gist");
    REFUSED(o.k[1] = 0, GIST_ERR_USAGE, "0 gist tokens");
    REFUSED(o.k_count = 0, GIST_ERR_USAGE, "gist counts");
    REFUSED(o.batch_pairs = 0, GIST_ERR_USAGE, "at least one pair");
    REFUSED((o.teacher = true, o.mix[COND_GIST] = 0, o.mix[COND_FULL] = 1), GIST_ERR_USAGE, "distillation");
    REFUSED(o.batch_tokens = 5, GIST_ERR_LIMIT, "tokens, a batch holds 5");
    train_condition c;
    for (int i = 0; i < COND_COUNT; i++) {
        const char *name = train_condition_name((train_condition)i);
        assert_true(train_condition_find(name, strlen(name), &c));
        assert_int_equal(c, i);
    }
    assert_false(train_condition_find("gis", 3, &c));
    free(m);
}

static gist_status batches_with(void *ctx, const gist_allocator *alloc) {
    made_set *m = ctx;
    train_stream st = { 0 };
    train_batch b;
    m->set.alloc = alloc;
    train_pack_options o = options();
    train_batch_init(&b, alloc);
    gist_status status = train_stream_init(&st, &m->set, &o, 3, NULL);
    for (int i = 0; status == GIST_OK && i < 4; i++) status = train_stream_next(&st, &b, NULL);
    train_stream_free(&st);
    train_batch_free(&b);
    return status;
}

static void every_allocation(void **state) {
    (void)state;
    made_set *m = malloc(sizeof *m);
    make_set(m, 12, 5, 4);
    assert_true(test_each_alloc(batches_with, m) >= 11);
    free(m);
}

/* ---- learning rates: transformers 5.23.0's get_*_schedule_with_warmup, lr 0.01, 20 steps, 4 of warm-up ---- */

static void schedules(void **state) {
    (void)state;
    static const struct {
        int t;
        double cosine, linear, constant;
    } lr[] = { { 1, 0, 0, 0 },
               { 2, 0.0025, 0.0025, 0.0025 },
               { 4, 0.0075, 0.0075, 0.0075 },
               { 5, 0.01, 0.01, 0.01 },
               { 6, 0.009903926402016153, 0.009375, 0.01 },
               { 13, 0.005, 0.005, 0.01 },
               { 20, 9.607359798384785e-05, 0.000625, 0.01 } };
    for (size_t i = 0; i < sizeof lr / sizeof *lr; i++) {
        assert_float_equal(train_schedule(SCHEDULE_COSINE, 0.01f, lr[i].t, 20, 4, 0), lr[i].cosine, 1e-9);
        assert_float_equal(train_schedule(SCHEDULE_LINEAR, 0.01f, lr[i].t, 20, 4, 0), lr[i].linear, 1e-9);
        assert_float_equal(train_schedule(SCHEDULE_CONSTANT, 0.01f, lr[i].t, 20, 4, 0), lr[i].constant, 1e-9);
    }
    assert_true(train_schedule(SCHEDULE_CONSTANT, 3e-4f, 1, 10, 0, 0) == 3e-4f);
    assert_true(train_schedule(SCHEDULE_COSINE, 3e-4f, 1, 10, 0, 0) == 3e-4f);
    assert_float_equal(train_schedule(SCHEDULE_COSINE, 1, 11, 20, 0, 0.1f), 0.55, 1e-6);
    assert_float_equal(train_schedule(SCHEDULE_LINEAR, 1, 30, 20, 0, 0.1f), 0.1, 1e-6); /* past the end */
    assert_float_equal(train_schedule(SCHEDULE_LINEAR, 1, 10, 10, 10, 0), 0.9, 1e-6);   /* all warm-up */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gist_positions),
        cmocka_unit_test(every_row_sees_what_the_table_says),
        cmocka_unit_test(an_epoch_has_every_pair_once),
        cmocka_unit_test(a_place_is_all_the_state),
        cmocka_unit_test(the_plan_is_what_happens),
        cmocka_unit_test(shares_and_counts_are_drawn),
        cmocka_unit_test(options_that_cannot_be),
        cmocka_unit_test(every_allocation),
        cmocka_unit_test(schedules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
