/* test_convert.c - a model's way into a GGUF file and back: names, order of rows, keys, types, what does not fit.
 *
 * The models are random, made here; other programs' view of the files is tools/check_gguf.py's business.
 */
#include "testing.h"

#include <stdlib.h>
#include <sys/stat.h>

#include "engine/engine.h"

static const llama_config tiny = { .L = 2, .C = 64, .F = 96, .H = 4, .G = 2, .D = 16, .V = 10, .context = 32,
                                   .eps = 1e-5f, .theta = 10000.0f };

enum { WIDEST = 96 * 64, MOST_TENSORS = 64 };

/* The values of a tensor, by its name. */
static void fill(float x[WIDEST], const char *name) {
    uint64_t seed = strlen(name);
    for (const char *p = name; *p; p++) seed = seed * 31 + (uint8_t)*p;
    test_fill(x, WIDEST, 2, seed);
}

typedef struct made {
    float x[MOST_TENSORS][WIDEST]; /* f32 values are written from where they lie */
    int n;
    float spike; /* an element of the head; 0: none */
} made;

static const float *value_of(void *ctx, const char *name) {
    made *m = ctx;
    assert_true(m->n < MOST_TENSORS);
    float *x = m->x[m->n++];
    fill(x, name);
    if (m->spike != 0 && strcmp(name, "lm_head.weight") == 0) x[70] = m->spike;
    return x;
}

/* model.safetensors of c in a directory of this name. */
static void make_model(const llama_config *c, char dir[TEST_PATH], const char *name, float spike) {
    made *m = calloc(1, sizeof *m);
    char path[TEST_PATH];
    gist_error err = { 0 };
    assert_non_null(m);
    m->spike = spike;
    snprintf(path, sizeof path, "%s-model", name);
    assert_int_equal(mkdir(test_tmp(dir, path), 0777), 0);
    assert_ok(llama_save_weights(c, DT_F32, value_of, m, dir, mem_default(), &err), &err);
    free(m);
}

static void copy_to_gguf(const llama_config *c, const char *from, const char *to, dtype type, bool keep) {
    weights w;
    gguf_writer g;
    gist_error err = { 0 };
    log_sink quiet = { 0 };
    assert_ok(weights_open(&w, NULL, from, &err), &err);
    gguf_writer_init(&g, NULL);
    llama_copy copy = { .alloc = mem_default(), .cfg = c, .from = &w, .type = type, .keep = keep, .log = &quiet };
    llama_add_keys(&g, c);
    assert_ok(llama_copy_gguf(&copy, &g, to, &err), &err);
    gguf_writer_free(&g);
    weights_close(&w);
}

static void check_family(const llama_config *c, const char *name) {
    char dir[TEST_PATH], file[TEST_PATH], back[TEST_PATH], base[64];
    gist_error err = { 0 };
    make_model(c, dir, name, 0);
    snprintf(base, sizeof base, "%s.gguf", name);
    copy_to_gguf(c, dir, test_tmp(file, base), DT_F32, true);

    weights w;
    llama_config read;
    assert_ok(weights_open(&w, NULL, file, &err), &err);
    assert_ok(llama_config_gguf(&read, w.gguf, &err), &err);
    assert_true(read.family == c->family && read.L == c->L && read.C == c->C && read.F == c->F && read.H == c->H &&
                read.G == c->G && read.D == c->D && read.V == c->V && read.context == c->context &&
                read.window == c->window && read.tied == c->tied && read.eps == c->eps && read.theta == c->theta &&
                read.rope.kind == c->rope.kind && read.rope.factor == c->rope.factor);
    /* wq's rows as the definition in model.h has them */
    static float want[WIDEST];
    fill(want, "model.layers.1.self_attn.q_proj.weight");
    const tensor_view *q = weights_find(&w, "blk.1.attn_q.weight");
    bool pairs = llama_families[c->family].gguf_pairs;
    assert_int_equal(q->shape[0], c->H * c->D);
    for (int n = 0; n < c->H * c->D; n++) {
        int h = n / c->D, i = n % c->D, from = pairs ? h * c->D + i % 2 * (c->D / 2) + i / 2 : n;
        assert_memory_equal((const float *)q->data + n * c->C, want + from * c->C, (size_t)c->C * sizeof(float));
    }
    /* and back */
    log_sink quiet = { 0 };
    llama_copy copy = { .alloc = mem_default(), .cfg = &read, .from = &w, .type = DT_F32, .log = &quiet };
    snprintf(base, sizeof base, "%s.safetensors", name);
    assert_ok(llama_copy_st(&copy, test_tmp(back, base), &err), &err);
    weights_close(&w);
    char original[TEST_PATH + 32];
    snprintf(original, sizeof original, "%s/model.safetensors", dir);
    assert_true(test_same_file(back, original));
}

static void families_go_and_return(void **state) {
    (void)state;
    llama_config c = tiny;
    check_family(&c, "llama");
    c.family = FAMILY_MISTRAL;
    c.window = 8;
    check_family(&c, "mistral");
    c = tiny;
    c.family = FAMILY_QWEN2;
    c.tied = true;
    check_family(&c, "qwen2");
    c = tiny;
    c.family = FAMILY_QWEN3;
    check_family(&c, "qwen3");
    c = tiny;
    c.rope = (llama_rope){ ROPE_LINEAR, 4, 0, 0, 0 };
    check_family(&c, "linear");
    c.theta = 500000.0f;
    c.rope = (llama_rope){ ROPE_LLAMA3, 8, 1, 4, 16 };
    check_family(&c, "llama3");
}

static void types_and_fallbacks(void **state) {
    (void)state;
    char dir[TEST_PATH], file[TEST_PATH];
    gist_error err = { 0 };
    make_model(&tiny, dir, "types", 0);
    for (int type = 0; type < DT_COUNT; type++) {
        if (!dt_writable((dtype)type)) continue;
        copy_to_gguf(&tiny, dir, test_tmp(file, "types.gguf"), (dtype)type, false);
        gguf_file g;
        assert_ok(gguf_open(&g, NULL, file, &err), &err);
        dtype want = type == DT_Q4_K ? DT_Q8_0 : (dtype)type; /* rows of 64 and 96 */
        for (size_t i = 0; i < g.count; i++)
            assert_int_equal(g.tensors[i].type, g.tensors[i].dims == 1 ? DT_F32 : want);
        gguf_close(&g);
    }
    llama_config odd = tiny;
    odd.F = 80;
    make_model(&odd, dir, "odd", 0);
    copy_to_gguf(&odd, dir, file, DT_Q4_0, false);
    gguf_file g;
    assert_ok(gguf_open(&g, NULL, file, &err), &err);
    assert_int_equal(gguf_find(&g, "blk.0.ffn_down.weight")->type, DT_F16);
    assert_int_equal(gguf_find(&g, "blk.0.ffn_up.weight")->type, DT_Q4_0);
    gguf_close(&g);
}

/* A type that cannot hold a value, a tensor of another shape, one too many, rotary scaling that no reader could find
 * again: refused by name, nothing written. */
static void models_that_do_not_fit(void **state) {
    (void)state;
    char dir[TEST_PATH], out[TEST_PATH];
    weights w;
    make_model(&tiny, dir, "misfit", 1e5f);
    gist_error err = { 0 };
    assert_ok(weights_open(&w, NULL, dir, &err), &err);
    log_sink quiet = { 0 };
    test_tmp(out, "misfit.gguf");
    for (int c = 0; c < 5; c++) {
        llama_config cfg = tiny;
        if (c == 0) cfg.F = 128;
        if (c == 1) cfg.L = 1;
        if (c > 2) cfg.rope = (llama_rope){ ROPE_LLAMA3, 8, c == 3 ? 2.0f : 1.0f, 4, c == 3 ? 16 : 24 };
        llama_copy copy = { .alloc = mem_default(), .cfg = &cfg, .from = &w, .type = DT_F16, .log = &quiet };
        gguf_writer g;
        gguf_writer_init(&g, NULL);
        err = (gist_error){ 0 };
        assert_fails(llama_copy_gguf(&copy, &g, out, &err), &err, c == 0 ? GIST_ERR_FORMAT : GIST_ERR_UNSUPPORTED,
                     c == 0   ? "this model needs [128,64]"
                     : c == 1 ? "is not part of a llama model with 1 layers"
                     : c > 2  ? "could not be found again"
                              : "lm_head.weight holds a value that f16 cannot");
        gguf_writer_free(&g);
        assert_false(path_exists(out));
    }
    weights_close(&w);
}

/* The tensors of a GGUF file, its norms as blocks. */
typedef struct blocked {
    const gguf_file *from;
    uint8_t norm[2 * 34]; /* of the tensor at hand: 64 values in q8_0 */
} blocked;

static bool is_norm(const tensor_view *t) {
    return t->dims == 1 && t->shape[0] == 64;
}

static gist_status write_blocked(void *ctx, size_t i, gguf_writer *g, gist_error *err) {
    blocked *b = ctx;
    const tensor_view *t = &b->from->tensors[i];
    (void)err;
    if (is_norm(t)) dt_from_f32(b->norm, DT_Q8_0, (const float *)t->data, 64);
    gguf_write(g, is_norm(t) ? b->norm : t->data, is_norm(t) ? sizeof b->norm : t->bytes);
    return GIST_OK;
}

/* No writer does it, but a file may hold its norms in blocks: they are decoded like any other tensor. */
static void vectors_in_blocks(void **state) {
    (void)state;
    char dir[TEST_PATH], file[TEST_PATH], odd[TEST_PATH], back[TEST_PATH];
    gist_error err = { 0 };
    make_model(&tiny, dir, "blocks", 0);
    copy_to_gguf(&tiny, dir, test_tmp(file, "plain.gguf"), DT_F32, true);
    gguf_file plain;
    assert_ok(gguf_open(&plain, NULL, file, &err), &err);
    blocked b = { .from = &plain };
    gguf_writer g;
    gguf_writer_init(&g, NULL);
    llama_add_keys(&g, &tiny);
    for (size_t i = 0; i < plain.count; i++) {
        tensor_view t = plain.tensors[i];
        if (is_norm(&t)) t.type = DT_Q8_0;
        gguf_add_tensor(&g, &t);
    }
    assert_ok(gguf_save(&g, test_tmp(odd, "blocks.gguf"), write_blocked, &b, &err), &err);
    gguf_writer_free(&g);
    gguf_close(&plain);

    weights w, st;
    log_sink quiet = { 0 };
    assert_ok(weights_open(&w, NULL, odd, &err), &err);
    llama_copy copy = { .alloc = mem_default(), .cfg = &tiny, .from = &w, .type = DT_F32, .log = &quiet };
    assert_int_equal(mkdir(test_tmp(back, "blocks-back"), 0777), 0);
    assert_ok(llama_copy_st(&copy, test_tmp(back, "blocks-back/model.safetensors"), &err), &err);
    assert_ok(weights_open(&st, NULL, test_tmp(back, "blocks-back"), &err), &err);
    float want[64];
    const tensor_view *from = weights_find(&w, "blk.1.ffn_norm.weight");
    const tensor_view *to = weights_find(&st, "model.layers.1.post_attention_layernorm.weight");
    assert_int_equal(from->type, DT_Q8_0);
    dt_to_f32(want, from->data, DT_Q8_0, 64);
    assert_same_floats((const float *)to->data, want, 64, "a norm in blocks");
    weights_close(&st);
    weights_close(&w);
}

/* Any number of threads writes the same bytes. */
static void threads_do_not_show(void **state) {
    (void)state;
    char dir[TEST_PATH], path[2][TEST_PATH];
    make_model(&tiny, dir, "threads", 0);
    for (int i = 0; i < 2; i++) {
        weights w;
        gguf_writer g;
        pool *p = NULL;
        gist_error err = { 0 };
        log_sink quiet = { 0 };
        if (i) assert_ok(pool_create(mem_default(), 3, &p, &err), &err);
        assert_ok(weights_open(&w, NULL, dir, &err), &err);
        gguf_writer_init(&g, NULL);
        llama_copy copy = { .alloc = mem_default(), .cfg = &tiny, .from = &w, .type = DT_Q4_0 };
        copy.pool = p;
        copy.log = &quiet;
        assert_ok(llama_copy_gguf(&copy, &g, test_tmp(path[i], i ? "many.gguf" : "one.gguf"), &err), &err);
        gguf_writer_free(&g);
        weights_close(&w);
        pool_free(p);
    }
    assert_true(test_same_file(path[0], path[1]));
}

/* ---- whole models, vocabulary included: convert.c, vocabulary.c ---- */

static gist_status convert_with(void *ctx, const gist_allocator *alloc) {
    const char *const *paths = ctx; /* from, to */
    convert_options opt = { .alloc = alloc, .force = true, .threads = 1 };
    convert_report report;
    gist_error err = { 0 };
    return convert_model(paths[0], paths[1], &opt, &report, &err);
}

static void lost_allocations_are_reported(void **state) {
    (void)state;
    char in[TEST_PATH], dir[TEST_PATH], file[TEST_PATH], copy[TEST_PATH];
    const char *back[2] = { test_fixture(in, "families/llama31/model.gguf"), test_tmp(dir, "out-of-memory") };
    const char *there[2] = { dir, test_tmp(file, "out-of-memory.gguf") };
    const char *on[2] = { file, test_tmp(copy, "copy-of-it.gguf") };
    assert_true(test_each_alloc(convert_with, back) > 50);
    assert_true(test_each_alloc(convert_with, there) > 50);
    assert_true(test_each_alloc(convert_with, on) > 20);
    assert_true(test_same_file(file, copy));
}

/* A vocabulary goes from file to directory to file without a change. */
static void vocabularies_return(void **state) {
    (void)state;
    static const char *const models[] = { "llama31", "mistral", "qwen2", "qwen3" };
    for (int i = 0; i < 4; i++) {
        char name[64], in[TEST_PATH], dir[TEST_PATH], file[TEST_PATH];
        snprintf(name, sizeof name, "families/%s/model.gguf", models[i]);
        test_fixture(in, name);
        test_tmp(dir, models[i]);
        snprintf(name, sizeof name, "%s-again.gguf", models[i]);
        test_tmp(file, name);
        const char *back[2] = { in, dir }, *there[2] = { dir, file };
        assert_int_equal(convert_with(back, NULL), GIST_OK);
        assert_int_equal(convert_with(there, NULL), GIST_OK);
        gguf_file a, b;
        tokenizer *t, *u;
        gist_error err = { 0 };
        assert_ok(gguf_open(&a, NULL, in, &err), &err);
        assert_ok(gguf_open(&b, NULL, file, &err), &err);
        assert_ok(vocabulary_open(&a, mem_default(), &t, &err), &err);
        assert_ok(vocabulary_open(&b, mem_default(), &u, &err), &err);
        hash128 x = tok_fingerprint(t), y = tok_fingerprint(u);
        assert_memory_equal(x.b, y.b, sizeof x.b);
        tok_close(t);
        tok_close(u);
        gguf_close(&a);
        gguf_close(&b);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(families_go_and_return),
        cmocka_unit_test(types_and_fallbacks),
        cmocka_unit_test(models_that_do_not_fit),
        cmocka_unit_test(vectors_in_blocks),
        cmocka_unit_test(threads_do_not_show),
        cmocka_unit_test(lost_allocations_are_reported),
        cmocka_unit_test(vocabularies_return),
    };
    return cmocka_run_group_tests_name("convert", tests, NULL, NULL);
}
