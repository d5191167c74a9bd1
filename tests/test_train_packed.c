/* test_train_packed.c - packed = separate = generated: what training computes does not depend on packing, and is what
 * the engine answers from.
 *
 *   separate   each pair as a sequence of its own, one interval per row, made here by gisting.md's table
 *   packed     all pairs of a prompt behind one encoding of it, several prompts in a batch (train_pack_group)
 *              losses: the same numbers, row by row; gradients by name: sums in another order, 1e-5
 *   taught     a pair with its copy under the full prompt alone, and many in one batch
 *   unread     rows that end at their keys and values in the last block, or that go on and count for nothing
 *   engine     compress, attach, feed; the whole prompt and feed; nothing and feed: the logits of the training forward
 *              bit for bit (KV cache in f32, on the same kernel level)
 */
#include <math.h>
#include <stdlib.h>

#include "engine/engine_int.h"
#include "tiny.h"
#include "train/train.h"
#include "train/train_model_int.h"

static const double TOL_PACKED = 1e-5;
enum { GIST_ID = 63, PROMPTS = 3, MOST_PAIRS = 8, LARGEST_K = 4, MOST_ROWS = 1024 };

static gist_kernels level[TINY_LEVELS];
static int levels;

/* ---- a model with weights large enough that every visible token matters ---- */

typedef struct model {
    pool *pool;
    op_ctx ctx;
    train_model *tm;
} model;

static void model_open_as(model *m, gist_kernels k, const train_model_options *o, llama_family family) {
    const llama_config cfg = {
        .L = 2, .C = 24, .F = 36, .H = 4, .G = 2, .D = 6, .V = 64, .context = 256, .eps = 1e-5f, .theta = 10000.0f,
        .family = family
    };
    gist_error err = { 0 };
    assert_ok(pool_create(mem_default(), 2, &m->pool, &err), &err);
    assert_ok(op_init(&m->ctx, k, m->pool, &err), &err);
    assert_ok(train_model_create(&m->tm, &cfg, NULL, false, 1, o, &m->ctx, mem_default(), &err), &err);
    for (int i = 0; i < train_model_tensors(m->tm); i++) {
        const train_tensor *t = train_model_tensor(m->tm, i);
        float *w = train_model_w(m->tm) + t->at;
        if (t->dims == 2) test_fill(w, t->count, i ? 2.5f / sqrtf((float)t->shape[1]) : 1.0f, (uint64_t)i);
    }
    train_model_repack(m->tm);
}

static void model_open(model *m, gist_kernels k, dtype type, float distill) {
    train_model_options o = { .type = type, .max_rows = MOST_ROWS, .lm = 1, .distill = distill };
    model_open_as(m, k, &o, FAMILY_LLAMA);
}

static void model_close(model *m) {
    train_model_free(m->tm);
    pool_free(m->pool);
}

static float *grads_copy(const model *m) {
    size_t n = train_model_count(m->tm);
    float *g = malloc(n * sizeof *g);
    assert_non_null(g);
    memcpy(g, train_model_g(m->tm), n * sizeof *g);
    return g;
}

static void compare_grads(const model *m, const float *got, const float *want, double tolerance) {
    for (int i = 0; i < train_model_trained(m->tm); i++) {
        const train_tensor *t = train_model_tensor(m->tm, i);
        assert_close(got + t->at, want + t->at, t->count, tolerance, t->name);
    }
}

/* ---- a set: prompts with pairs, each under a condition with a k ---- */

typedef struct made {
    train_set set;
    int32_t ids[4096];
    train_prompt prompt[PROMPTS];
    train_pair pair[PROMPTS * MOST_PAIRS];
    train_condition c[PROMPTS * MOST_PAIRS];
    int k[PROMPTS * MOST_PAIRS];
} made;

static int below(uint64_t *seed, int n) {
    return (int)(test_rand(seed) % (uint64_t)n);
}

static size_t some_ids(made *m, int n, uint64_t *seed) {
    size_t at = m->set.id_count;
    assert_true(at + (size_t)n <= sizeof m->ids / sizeof *m->ids);
    for (int i = 0; i < n; i++) m->ids[m->set.id_count++] = below(seed, GIST_ID);
    return at;
}

/* every condition occurs, k among 1, 2, LARGEST_K; taught: gist pairs only */
static void make_set(made *m, bool taught, uint64_t seed) {
    static const int ks[] = { 1, 2, LARGEST_K };
    memset(m, 0, sizeof *m);
    m->set = (train_set){ .ids = m->ids, .prompt = m->prompt, .pair = m->pair, .prompts = PROMPTS };
    for (int i = 0; i < PROMPTS; i++) {
        train_prompt *p = &m->prompt[i];
        *p = (train_prompt){ .len = 3 + below(&seed, 20), .first_pair = m->set.pairs, .pairs = MOST_PAIRS - i };
        p->ids = some_ids(m, p->len, &seed);
        for (int j = 0; j < p->pairs; j++) {
            int n = m->set.pairs++;
            train_pair *q = &m->pair[n];
            *q = (train_pair){ .input_len = 1 + below(&seed, 6), .answer_len = 1 + below(&seed, 9), .prompt = i };
            q->input = some_ids(m, q->input_len, &seed);
            q->answer = some_ids(m, q->answer_len, &seed);
            m->c[n] = taught ? COND_GIST : (train_condition)(j % COND_COUNT);
            m->k[n] = ks[below(&seed, 3)];
        }
    }
}

static train_pack_options options(bool taught) {
    train_pack_options o = {
        .k = { 1, 2, LARGEST_K }, .k_count = 3, .gist_token = GIST_ID, .teacher = taught, .teacher_lm = 0.5f
    };
    return o;
}

static void pack_pairs(train_batch *b, const made *m, int prompt, int first, int n, bool taught) {
    train_pack_options o = options(taught);
    gist_error err = { 0 };
    int index[MOST_PAIRS];
    for (int i = 0; i < n; i++) index[i] = first + i;
    assert_ok(train_pack_group(b, &m->set, prompt, index, m->c + first, m->k + first, n, &o, &err), &err);
}

static void pack_set(train_batch *b, const made *m, bool taught) {
    for (int i = 0; i < PROMPTS; i++) pack_pairs(b, m, i, m->prompt[i].first_pair, m->prompt[i].pairs, taught);
}

/* ---- one pair as a sequence of its own ---- */

typedef struct sequence {
    train_batch b;
    int32_t ids[128], pos[128], label[128];
    op_row rows[128];
    float weight[128];
    int teacher[128];
    uint8_t condition[128], is_gist[128];
} sequence;

static void put(sequence *s, int32_t id, int pos, int lo, train_condition c) {
    int t = s->b.T++;
    assert_true(t < 128);
    s->ids[t] = id;
    s->pos[t] = pos;
    s->rows[t] = (op_row){ .pos = pos, .slot = t, .mem = -1, .lo = lo, .hi = t + 1 };
    s->label[t] = s->teacher[t] = -1;
    s->condition[t] = (uint8_t)c;
}

/* | prompt | k gists | rest | answer |, all of it there, hidden by where the rest's intervals begin. */
static void make_sequence(sequence *s, const made *m, int n) {
    const train_pair *q = &m->pair[n];
    const train_prompt *p = &m->prompt[q->prompt];
    int k = m->c[n] == COND_FULL ? 0 : m->k[n], from = p->len + k, lo = 0, at = from;
    if (m->c[n] == COND_GIST) lo = p->len;
    if (m->c[n] == COND_NONE || m->c[n] == COND_NEG_CONTROL) lo = from;
    if (m->c[n] == COND_NONE) at = p->len + LARGEST_K;
    memset(s, 0, sizeof *s);
    s->b = (train_batch){ .ids = s->ids,
                          .pos = s->pos,
                          .label = s->label,
                          .rows = s->rows,
                          .weight = s->weight,
                          .teacher = s->teacher,
                          .condition = s->condition,
                          .is_gist = s->is_gist,
                          .cap = 128 };
    for (int i = 0; i < from; i++) put(s, i < p->len ? m->ids[p->ids + (size_t)i] : GIST_ID, i, 0, COND_COUNT);
    for (int i = 0; i < q->input_len + q->answer_len - 1; i++) {
        int j = i - q->input_len;
        put(s, m->ids[j < 0 ? q->input + (size_t)i : q->answer + (size_t)j], at + i, lo, m->c[n]);
        if (j < -1) continue;
        s->label[s->b.T - 1] = m->ids[q->answer + (size_t)(j + 1)];
        s->weight[s->b.T - 1] = 1;
        s->b.label_rows++;
    }
}

/* ---- packed = separate ---- */

static void check_packed(const model *m, uint64_t seed, double tolerance) {
    gist_error err = { 0 };
    train_batch packed;
    train_loss all, one, sum = { 0 };
    sequence *s = malloc(sizeof *s);
    made *set = malloc(sizeof *set);
    assert_true(s && set);
    make_set(set, false, seed);
    train_batch_init(&packed, mem_default());
    pack_set(&packed, set, false);

    train_model_zero_grad(m->tm);
    int rows = 0;
    for (int n = 0; n < set->set.pairs; n++) {
        make_sequence(s, set, n);
        rows += s->b.T;
        assert_ok(train_model_step(m->tm, &s->b, 1.0f / (float)packed.label_rows, &one, &err), &err);
        for (int c = 0; c < COND_COUNT; c++) {
            sum.lm[c] += one.lm[c];
            sum.rows[c] += one.rows[c];
        }
    }
    assert_true(packed.T < rows);
    float *separate = grads_copy(m);
    train_model_zero_grad(m->tm);
    assert_ok(train_model_step(m->tm, &packed, 1.0f / (float)packed.label_rows, &all, &err), &err);
    for (int c = 0; c < COND_COUNT; c++) {
        assert_int_equal(all.rows[c], sum.rows[c]);
        assert_true(all.rows[c] > 0);
        if (fabs(all.lm[c] - sum.lm[c]) > 1e-13 * sum.lm[c]) /* the same numbers, added in another order */
            fail_msg("%s: loss %.17g, apart %.17g", train_condition_name((train_condition)c), all.lm[c], sum.lm[c]);
    }
    compare_grads(m, train_model_g(m->tm), separate, tolerance);
    free(separate);
    train_batch_free(&packed);
    free(set);
    free(s);
}

static void test_packed(void **state) {
    (void)state;
    for (int l = 0; l < levels; l++) {
        model m;
        model_open(&m, level[l], DT_F32, 0);
        for (uint64_t seed = 1; seed <= 4; seed++) check_packed(&m, seed, TOL_PACKED);
        model_close(&m);
    }
}

/* bf16 rounds the gradient that arrives at the shared prompt: its sum when packed, every summand when separate.  Losses
 * stay the same numbers. */
static void test_packed_bf16(void **state) {
    (void)state;
    for (int l = 0; l < levels; l++) {
        model m;
        model_open(&m, level[l], DT_BF16, 0);
        check_packed(&m, 5, 0.02);
        model_close(&m);
    }
}

static void test_taught(void **state) {
    (void)state;
    for (int l = 0; l < levels; l++) {
        model m;
        gist_error err = { 0 };
        made *set = malloc(sizeof *set);
        train_batch all, one;
        train_loss loss, part;
        double lm = 0, distill = 0, total = 0;
        assert_non_null(set);
        make_set(set, true, 9);
        model_open(&m, level[l], DT_F32, 0.75f);
        train_batch_init(&all, mem_default());
        train_batch_init(&one, mem_default());
        pack_set(&all, set, true);
        float scale = 1.0f / (float)all.label_rows;
        for (int n = 0; n < set->set.pairs; n++) {
            train_batch_reset(&one);
            pack_pairs(&one, set, set->pair[n].prompt, n, 1, true);
            assert_ok(train_model_step(m.tm, &one, scale, &part, &err), &err);
            lm += part.lm[COND_GIST] + part.lm[COND_FULL];
            distill += part.distill;
            total += part.total;
        }
        float *separate = grads_copy(&m);
        train_model_zero_grad(m.tm);
        assert_ok(train_model_step(m.tm, &all, scale, &loss, &err), &err);
        assert_true(loss.distilled > 0 && loss.distill > 0);
        assert_true(fabs(loss.lm[COND_GIST] + loss.lm[COND_FULL] - lm) <= 1e-13 * lm);
        assert_true(fabs(loss.distill - distill) <= 1e-13 * distill);
        assert_true(fabs(loss.total - total) <= 1e-13 * total);
        compare_grads(&m, train_model_g(m.tm), separate, TOL_PACKED);
        free(separate);
        train_batch_free(&all);
        train_batch_free(&one);
        free(set);
        model_close(&m);
    }
}

/* ---- rows whose last output nobody reads ---- */

/* A label of weight 0 asks for a row's output and changes nothing: the same loss, and gradients but for the order of
 * sums. */
static void check_unread(gist_kernels k, const train_model_options *o, llama_family family) {
    gist_error err = { 0 };
    model m;
    train_batch b;
    train_loss some, all;
    int unread = 0;
    made *set = malloc(sizeof *set);
    assert_non_null(set);
    make_set(set, false, 3);
    model_open_as(&m, k, o, family);
    train_batch_init(&b, mem_default());
    pack_set(&b, set, false);
    train_batch_finish(&b);
    assert_ok(train_model_step(m.tm, &b, 1, &some, &err), &err);
    float *want = grads_copy(&m);
    double operations = train_model_flops(m.tm, &b);
    for (int t = 0; t < b.T; t++) {
        if (b.label[t] >= 0) continue;
        b.label[t] = 0;
        if (b.condition[t] == COND_COUNT) b.condition[t] = COND_FULL; /* a loss is counted under one */
        unread++;
    }
    assert_true(unread > b.T / 4);
    train_model_zero_grad(m.tm);
    assert_ok(train_model_step(m.tm, &b, 1, &all, &err), &err);
    assert_true(some.total == all.total);
    assert_true(operations < train_model_flops(m.tm, &b));
    compare_grads(&m, train_model_g(m.tm), want, o->type == DT_F32 ? TOL_PACKED : 0.02);
    free(want);
    train_batch_free(&b);
    model_close(&m);
    free(set);
}

static void test_unread(void **state) {
    static const llama_family families[] = { FAMILY_LLAMA, FAMILY_QWEN2, FAMILY_QWEN3 };
    train_model_options o = { .max_rows = MOST_ROWS, .lm = 1 };
    (void)state;
    for (int l = 0; l < levels; l++)
        for (int i = 0; i < 12; i++) {
            bool adapter = i / 3 % 2, gist_only = i / 6;
            o.type = i / 6 ? DT_BF16 : DT_F32;
            o.lora = (llama_lora_config){ .rank = adapter ? 2 : 0, .alpha = 2, .targets = 127, .gist_only = gist_only };
            o.recompute = i % 2;
            check_unread(level[l], &o, families[i % 3]);
        }
}

/* ---- the engine answers from what was trained ---- */

static const char PROMPT[] = "Translate what follows into French, politely.", INPUT[] = "good morning";
enum { ANSWER = 9 };

/* The text's pieces as the engine has them; the answer is made up. */
static void text_set(made *m, const gist_engine *e) {
    gist_error err = { 0 };
    tok_ids prompt, rest;
    memset(m, 0, sizeof *m);
    m->set = (train_set){ .ids = m->ids, .prompt = m->prompt, .pair = m->pair, .prompts = 1, .pairs = 1 };
    tok_ids_init(&prompt, mem_default());
    tok_ids_init(&rest, mem_default());
    assert_ok(tok_template_prompt(e->tok, e->tp, PROMPT, sizeof PROMPT - 1, &prompt, &err), &err);
    assert_ok(tok_template_input(e->tok, e->tp, INPUT, sizeof INPUT - 1, false, &rest, &err), &err);
    memcpy(m->ids, prompt.id, prompt.n * sizeof *m->ids);
    memcpy(m->ids + prompt.n, rest.id, rest.n * sizeof *m->ids);
    tiny_ids(m->ids + prompt.n + rest.n, ANSWER, 4);
    m->prompt[0] = (train_prompt){ .len = (int)prompt.n, .pairs = 1 };
    m->pair[0] =
        (train_pair){ .input = prompt.n, .answer = prompt.n + rest.n, .input_len = (int)rest.n, .answer_len = ANSWER };
    tok_ids_free(&prompt);
    tok_ids_free(&rest);
}

/* Logits of the answer's rows as training computes them: [ANSWER,V], of the trained model's forward over a packed batch
 * in which the same pair stands under every condition. */
static void trained_logits(float *out, train_model *tm, const made *m, train_condition c, int k) {
    static const train_condition all[] = { COND_FULL, COND_GIST, COND_NONE };
    train_pack_options o = { .k = { 1, LARGEST_K }, .k_count = 2, .gist_token = TINY_GIST };
    gist_error err = { 0 };
    train_batch b;
    train_loss loss;
    o.gist_spread = train_model_llama(tm)->cfg.gist_spread;
    int V = train_model_llama(tm)->cfg.V, ks[3] = { k, k, k }, pairs[3] = { 0, 0, 0 }, row = 0;
    train_batch_init(&b, mem_default());
    assert_ok(train_pack_group(&b, &m->set, 0, pairs, all, ks, 3, &o, &err), &err);
    train_batch_finish(&b);
    assert_ok(train_model_eval(tm, &b, &loss, &err), &err);
    for (int t = 0, n = 0; t < b.T; t++) {
        if (b.label[t] < 0) continue;
        if (b.condition[t] == c) memcpy(out + row++ * V, tm->logits + n * V, (size_t)V * sizeof *out);
        n++;
    }
    assert_int_equal(row, ANSWER);
    train_batch_free(&b);
}

/* A session with that in front which the condition lets an answer see, by the calls that `gist generate` makes. */
static gist_session *open_behind(gist_engine *e, const made *m, train_condition c, int k, gist **g) {
    gist_error err = { 0 };
    gist_session_options so = GIST_SESSION_OPTIONS_INIT;
    gist_compress_options co = GIST_COMPRESS_OPTIONS_INIT;
    gist_session *s = NULL;
    so.kv = co.kv = GIST_TYPE_F32;
    co.k = k;
    assert_ok(gist_session_open(e, &so, &s, &err), &err);
    if (c == COND_GIST) {
        assert_ok(gist_compress(e, PROMPT, sizeof PROMPT - 1, &co, g, &err), &err);
        assert_ok(gist_session_attach(s, *g, &err), &err);
    } else if (c == COND_FULL) {
        assert_ok(gist_session_prompt(s, PROMPT, sizeof PROMPT - 1, &err), &err);
    } else {
        assert_ok(gist_session_set_position(s, m->prompt[0].len + LARGEST_K, &err), &err);
    }
    return s;
}

/* trained: [ANSWER,V] as trained_logits gives them */
static void check_fed(gist_engine *e, const made *m, train_condition c, int k, const float *trained) {
    const train_pair *q = &m->pair[0];
    gist_error err = { 0 };
    gist *g = NULL;
    gist_session *s = open_behind(e, m, c, k, &g);
    int n = q->input_len + ANSWER - 1, V = e->model.vocab;
    float *logits = malloc((size_t)(n * V) * sizeof *logits);
    assert_non_null(logits);
    assert_ok(gist_session_feed_all(s, m->ids + q->input, (size_t)n, logits, &err), &err);
    assert_same_floats(logits + (q->input_len - 1) * V, trained, (size_t)(ANSWER * V), train_condition_name(c));
    free(logits);
    gist_session_close(s);
    gist_free(g);
}

/* The first generated token is the likeliest of the answer's first row, with its probability. */
static void check_generated(gist_engine *e, const made *m, train_condition c, int k, const float *trained) {
    gist_error err = { 0 };
    gist *g = NULL;
    gist_answer answer = { 0 };
    gist_generate_options o = GIST_GENERATE_OPTIONS_INIT;
    gist_session *s = open_behind(e, m, c, k, &g);
    int best = 0;
    double sum = 0;
    for (int i = 1; i < e->model.vocab; i++) best = trained[i] > trained[best] ? i : best;
    for (int i = 0; i < e->model.vocab; i++) sum += exp((double)trained[i] - (double)trained[best]);
    o.max_tokens = 1;
    o.ignore_eos = true;
    assert_ok(gist_generate(s, INPUT, sizeof INPUT - 1, &o, &answer, &err), &err);
    assert_int_equal(answer.n, 1);
    if (answer.ids[0] != best || fabs((double)answer.logprobs[0] + log(sum)) > 1e-6)
        fail_msg("%s, k %d: generated %d (%.7g), trained %d (%.7g)", train_condition_name(c), k, answer.ids[0],
                 (double)answer.logprobs[0], best, -log(sum));
    gist_answer_free(s, &answer);
    gist_session_close(s);
    gist_free(g);
}

static void check_engine(gist_kernels kernels, gist_type type, bool spread) {
    static const train_condition all[] = { COND_FULL, COND_GIST, COND_NONE };
    tiny_model t = TINY_MODEL;
    t.spread = spread;
    char dir[TEST_PATH];
    gist_error err = { 0 };
    model m = { 0 };
    llama_config cfg;
    weights w;
    made *set = malloc(sizeof *set);
    int V = tiny_vocab(&t);
    float *trained = malloc((size_t)(ANSWER * V) * sizeof *trained);
    assert_true(set && trained);
    gist_engine *e = tiny_open(&t, "packed", 2, kernels, type, "paper");
    tiny_save(&t, "packed", dir);
    text_set(set, e);
    assert_ok(llama_config_read(&cfg, mem_default(), dir, &err), &err);
    assert_ok(weights_open(&w, mem_default(), dir, &err), &err);
    assert_ok(pool_create(mem_default(), 1, &m.pool, &err), &err);
    assert_ok(op_init(&m.ctx, kernels, m.pool, &err), &err);
    train_model_options o = { .type = type == GIST_TYPE_BF16 ? DT_BF16 : DT_F32, .max_rows = 512, .lm = 1 };
    assert_ok(train_model_create(&m.tm, &cfg, &w, false, 0, &o, &m.ctx, mem_default(), &err), &err);
    for (int k = 1; k <= LARGEST_K; k += LARGEST_K - 1)
        for (int c = 0; c < 3; c++) {
            trained_logits(trained, m.tm, set, all[c], k);
            check_fed(e, set, all[c], k, trained);
            check_generated(e, set, all[c], k, trained);
        }
    model_close(&m);
    weights_close(&w);
    gist_engine_close(e);
    free(set);
    free(trained);
}

static void test_engine(void **state) {
    (void)state;
    for (int l = 0; l < levels; l++) {
        check_engine(level[l], GIST_TYPE_F32, false);
        check_engine(level[l], GIST_TYPE_F32, true);
        check_engine(level[l], GIST_TYPE_BF16, false);
    }
}

static int find_levels(void **state) {
    (void)state;
    levels = tiny_levels(level);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_packed),
        cmocka_unit_test(test_packed_bf16),
        cmocka_unit_test(test_taught),
        cmocka_unit_test(test_unread),
        cmocka_unit_test(test_engine),
    };
    return cmocka_run_group_tests(tests, find_levels, NULL);
}
