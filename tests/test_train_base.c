/* test_train_base.c - where a run begins: who gets which <GIST>, its first values, what is refused. */
#include "testing.h"

#include <math.h>
#include <stdlib.h>

#include "tiny.h"
#include "train/train.h"

typedef struct bed {
    pool *p;
    op_ctx ctx;
    train_base base;
    train_model *tm;
} bed;

static void begin(bed *b, const char *init, const char *config, const char *tok) {
    gist_error err = { 0 };
    *b = (bed){ 0 };
    assert_ok(pool_create(NULL, 1, &b->p, &err), &err);
    assert_ok(op_init(&b->ctx, GIST_KERNELS_AUTO, b->p, &err), &err);
    assert_ok(train_base_open(&b->base, init, config, tok, b->p, NULL, &err), &err);
    train_model_options o = { .type = DT_F32, .max_rows = 8, .lm = 1 };
    assert_ok(train_base_model(&b->base, &b->tm, 1, &o, &b->ctx, &err), &err);
}

static void end(bed *b) {
    train_model_free(b->tm);
    train_base_close(&b->base);
    pool_free(b->p);
}

static const float *row(const bed *b, const char *name, int64_t r, int64_t *width) {
    for (int i = 0; i < train_model_tensors(b->tm); i++) {
        const train_tensor *t = train_model_tensor(b->tm, i);
        if (strcmp(t->name, name) != 0) continue;
        *width = t->shape[1];
        return train_model_w(b->tm) + t->at + r * t->shape[1];
    }
    fail_msg("no tensor %s", name);
    return NULL;
}

/* Row id of both tables is the mean of the rows before it. */
static void check_mean(const bed *b, int32_t id) {
    static const char *const tables[] = { "model.embed_tokens.weight", "lm_head.weight" };
    for (int i = 0; i < 2; i++) {
        int64_t C;
        const float *got = row(b, tables[i], id, &C);
        for (int64_t c = 0; c < C; c++) {
            double sum = 0;
            for (int64_t r = 0; r < id; r++) sum += (double)row(b, tables[i], r, &C)[c];
            assert_true(fabs((double)got[c] - sum / id) < 1e-6);
        }
    }
}

static void the_gist_token(void **state) {
    (void)state;
    char dir[TEST_PATH];
    tiny_model with = TINY_MODEL, without = TINY_MODEL;
    bed b;
    without.gist = false;

    begin(&b, tiny_save(&with, "with", dir), NULL, NULL); /* it is there: nothing changes */
    assert_int_equal(b.base.gist_token, TINY_GIST);
    assert_false(b.base.gist_added || b.base.gist_row);
    assert_int_equal(train_model_llama(b.tm)->cfg.V, tiny_vocab(&with));
    end(&b);

    begin(&b, tiny_save(&without, "without", dir), NULL, NULL); /* a new row */
    assert_int_equal(b.base.gist_token, tiny_vocab(&without));
    assert_true(b.base.gist_added && b.base.gist_row);
    assert_int_equal(train_model_llama(b.tm)->cfg.V, tiny_vocab(&without) + 1);
    check_mean(&b, b.base.gist_token);
    assert_int_equal(train_base_origin(&b.base, tok_template_find("paper"), DT_F32).gist_added, b.base.gist_token);
    end(&b);

    tiny_save(&with, "spare", dir); /* more rows than tokens: the first unused one */
    tiny_save_tokenizer(&without, dir);
    begin(&b, dir, NULL, NULL);
    assert_int_equal(b.base.gist_token, TINY_GIST);
    assert_true(b.base.gist_added && !b.base.gist_row);
    check_mean(&b, TINY_GIST);
    end(&b);
}

/* Mean 0 and this deviation, for as many numbers as a tensor of the tiny model has. */
static void check_normal(const bed *b, const char *name, int64_t rows, double deviation) {
    double sum = 0, squares = 0;
    int64_t cols;
    const float *x = row(b, name, 0, &cols);
    int64_t n = cols * rows;
    for (int64_t i = 0; i < n; i++) {
        sum += (double)x[i];
        squares += (double)x[i] * (double)x[i];
    }
    assert_true(fabs(sum / (double)n) < 0.1 * deviation);
    assert_true(fabs(sqrt(squares / (double)n) - deviation) < 0.1 * deviation);
}

static void from_scratch(void **state) {
    (void)state;
    char dir[TEST_PATH], config[TEST_PATH + 16];
    tiny_model t = TINY_MODEL;
    bed a, b;
    tiny_save(&t, "scratch", dir);
    snprintf(config, sizeof config, "%s/config.json", dir);
    begin(&a, NULL, config, dir);
    begin(&b, NULL, config, dir);
    assert_true(a.base.scratch);
    assert_memory_equal(train_model_w(a.tm), train_model_w(b.tm), train_model_count(a.tm) * sizeof(float));
    assert_string_equal(a.base.model, b.base.model);
    const llama_config *c = &a.base.cfg; /* docs/TRAINING.md, "Learning rate", its last paragraph */
    check_normal(&a, "model.embed_tokens.weight", c->V, c->tied ? 1 / sqrt(c->C) : 1);
    check_normal(&a, "model.layers.0.mlp.gate_proj.weight", c->F, 1 / sqrt(c->C));
    check_normal(&a, "model.layers.0.mlp.down_proj.weight", c->C, 1 / sqrt(2.0 * c->F * c->L));
    char drawn[33];
    memcpy(drawn, a.base.model, sizeof drawn);
    end(&a);
    end(&b);

    begin(&b, dir, NULL, NULL); /* the weights are part of the identity */
    assert_int_equal(strlen(drawn), 32);
    assert_string_not_equal(drawn, b.base.model);
    end(&b);
}

static void refused(void **state) {
    (void)state;
    char dir[TEST_PATH], big[TEST_PATH];
    tiny_model small = TINY_MODEL;
    train_base b;
    gist_error err = { 0 };
    small.gist = false;
    assert_fails(train_base_open(&b, NULL, "config.json", NULL, NULL, NULL, &err), &err, GIST_ERR_USAGE,
                 "a config and a tokenizer");
    err = (gist_error){ 0 };
    assert_fails(train_base_open(&b, "/nowhere", NULL, NULL, NULL, NULL, &err), &err, GIST_ERR_IO, "/nowhere");
    err = (gist_error){ 0 };
    tiny_save(&small, "short", dir); /* and a tokenizer with more pieces than it has rows */
    test_fixture(big, "llama/mha-f32/tokenizer.model");
    assert_fails(train_base_open(&b, dir, NULL, big, NULL, NULL, &err), &err, GIST_ERR_MISMATCH, "the tokenizer has");
}

static gist_status open_with(void *ctx, const gist_allocator *alloc) {
    train_base b;
    gist_status st = train_base_open(&b, ctx, NULL, NULL, NULL, alloc, NULL);
    if (st == GIST_OK) train_base_close(&b);
    return st;
}

static void every_allocation(void **state) {
    (void)state;
    char dir[TEST_PATH];
    tiny_model t = TINY_MODEL;
    t.gist = false;
    assert_true(test_each_alloc(open_with, tiny_save(&t, "memory", dir)) > 10);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_gist_token),
        cmocka_unit_test(from_scratch),
        cmocka_unit_test(refused),
        cmocka_unit_test(every_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
