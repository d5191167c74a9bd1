/* test_engine.c - what the public functions of gist.h do when all goes well: tokenization, sessions, gists.
 *
 *   sessions   reset, positions, prompts, growing, KV types
 *   gists      facts, identity, inspection
 */
#include <math.h>
#include <stdlib.h>

#include "engine/engine_int.h"
#include "tiny.h"

static gist_engine *engine; /* template raw: text and nothing else */
static const tiny_model model = TINY_MODEL;
static const char question[] = "Is there another in the outer?";

static gist_session *session(void) {
    return open_session(engine, GIST_TYPE_F32, 0);
}

/* ---- text ---- */

static void test_tokenize(void **state) {
    (void)state;
    int32_t ids[16], untouched[16];
    size_t n = 99;
    gist_error err = { 0 };
    memset(ids, 0x5a, sizeof ids);
    memcpy(untouched, ids, sizeof ids);
    assert_ok(gist_tokenize(engine, "the other", 9, 0, NULL, 0, &n, &err), &err); /* to measure */
    size_t full = n;
    assert_true(full >= 3 && full <= 9);
    assert_fails(gist_tokenize(engine, "the other", 9, 0, ids, full - 1, &n, &err), &err, GIST_ERR_LIMIT, "tokens");
    assert_int_equal(n, full);
    assert_memory_equal(ids, untouched, sizeof ids);
    err = (gist_error){ 0 };
    assert_ok(gist_tokenize(engine, "the other", 9, 0, ids, full, &n, &err), &err);
    assert_int_equal(ids[0], TINY_MERGED + 1); /* "the" */
    assert_int_equal(ids[full], untouched[0]);
    char *text = NULL;
    assert_ok(gist_detokenize(engine, ids, full, &text, &err), &err);
    assert_string_equal(text, "the other");
    gist_string_free(engine, text);
    assert_ok(gist_tokenize(engine, "", 0, GIST_TOKENIZE_BOS, ids, 16, &n, &err), &err);
    assert_int_equal(n, 1);
    assert_int_equal(ids[0], TINY_BOS);
    assert_ok(gist_tokenize(engine, "a<GIST><eos>", 12, GIST_TOKENIZE_SPECIAL, ids, 16, &n, &err), &err);
    assert_int_equal(n, 3);
    assert_int_equal(ids[1], TINY_GIST);
    assert_int_equal(ids[2], TINY_EOS);
    assert_ok(gist_tokenize(engine, "a<GIST><eos>", 12, 0, ids, 16, &n, &err), &err);
    assert_int_equal(n, 12); /* plain text */
    assert_fails(gist_tokenize(engine, "ab\xff", 3, 0, ids, 16, &n, &err), &err, GIST_ERR_TEXT, NULL);
    err = (gist_error){ 0 };
    int32_t half[] = { TINY_BYTE + 0xc3, TINY_BYTE + 0xa9, TINY_BYTE + 0xc3,
                       TINY_BOS }; /* é, and the start of another */
    assert_ok(gist_detokenize(engine, half, 4, &text, &err), &err);
    assert_string_equal(text, "\xc3\xa9\xef\xbf\xbd");
    gist_string_free(engine, text);
    assert_ok(gist_detokenize(engine, NULL, 0, &text, &err), &err);
    assert_string_equal(text, "");
    gist_string_free(engine, text);
    text = (char *)(uintptr_t)1;
    half[1] = engine_model(engine)->vocab;
    assert_fails(gist_detokenize(engine, half, 2, &text, &err), &err, GIST_ERR_USAGE, "token 1 is");
    assert_ptr_equal(text, (void *)1);
    gist_string_free(engine, NULL);
}

/* ---- sessions ---- */

static void test_reset(void **state) {
    (void)state;
    int32_t ids[90];
    float want[512], got[512];
    size_t V = (size_t)engine_model(engine)->vocab;
    tiny_ids(ids, 90, 4);
    gist *g = gist_of(engine, question, 2, GIST_TYPE_F16);
    gist_session *s = open_session(engine, GIST_TYPE_AUTO, 0), *fresh = open_session(engine, GIST_TYPE_BF16, 0);
    assert_ok(gist_session_feed(fresh, ids, 90, want, NULL), NULL);
    for (int round = 0; round < 3; round++) {
        assert_int_equal(gist_session_length(s), 0);
        assert_int_equal(gist_session_position(s), 0);
        assert_ok(gist_session_feed(s, ids, 90, got, NULL), NULL);
        assert_int_equal(gist_session_length(s), 90);
        assert_int_equal(gist_session_position(s), 90);
        assert_same_floats(got, want, V, "after a reset");
        gist_session_reset(s);
        if (round == 1) { /* a gist of another KV type in between, and a mask */
            assert_ok(gist_session_attach(s, g, NULL), NULL);
            assert_ok(gist_session_feed(s, ids, 5, NULL, NULL), NULL);
            session_hide_before(s, 3);
            gist_session_reset(s);
        }
    }
    gist_session_close(s);
    gist_session_close(fresh);
    gist_free(g);
}

/* Only relative positions matter, up to rounding; an absolute one is what it is told. */
static void test_position(void **state) {
    (void)state;
    int32_t ids[30];
    float *a = malloc(30 * 512 * sizeof *a), *b = malloc(30 * 512 * sizeof *b);
    size_t V = (size_t)engine_model(engine)->vocab;
    tiny_ids(ids, 30, 6);
    gist_session *s = session(), *t = session();
    assert_ok(gist_session_set_position(t, 100, NULL), NULL);
    assert_int_equal(gist_session_position(t), 100);
    assert_ok(gist_session_feed_all(s, ids, 30, a, NULL), NULL);
    assert_ok(gist_session_feed_all(t, ids, 30, b, NULL), NULL);
    assert_int_equal(gist_session_position(t), 130);
    assert_int_equal(gist_session_length(t), 30);
    assert_close(b, a, 30 * V, 1e-4, "shifted by 100 positions");
    gist_error err = { 0 };
    assert_fails(gist_session_set_position(t, 5, &err), &err, GIST_ERR_USAGE, "before the first token");
    assert_int_equal(gist_session_position(t), 130);
    gist_session_reset(t);
    err = (gist_error){ 0 };
    assert_fails(gist_session_set_position(t, model.context, &err), &err, GIST_ERR_LIMIT, NULL);
    err = (gist_error){ 0 };
    assert_fails(gist_session_set_position(t, -1, &err), &err, GIST_ERR_LIMIT, NULL);
    assert_ok(gist_session_set_position(t, model.context - 2, NULL), NULL);
    err = (gist_error){ 0 };
    assert_fails(gist_session_feed(t, ids, 3, b, &err), &err, GIST_ERR_LIMIT, NULL);
    assert_ok(gist_session_feed(t, ids, 2, b, NULL), NULL);
    gist_session_close(s);
    gist_session_close(t);
    free(a);
    free(b);
}

/* gist_session_prompt and gist_generate put the template's text around prompt and input. */
static void test_templates(void **state) {
    (void)state;
    gist_engine *e = tiny_open(&model, "paper", 1, GIST_KERNELS_AUTO, GIST_TYPE_AUTO, "paper");
    static const char before[] = "Instruction: Sum the numbers.", behind[] = "Input: 1 2\nOutput:";
    int32_t ids[128];
    size_t p, n;
    float logits[512];
    assert_ok(gist_tokenize(e, before, strlen(before), GIST_TOKENIZE_BOS, ids, 128, &p, NULL), NULL);
    assert_ok(gist_tokenize(e, behind, strlen(behind), 0, ids + p, 128 - p, &n, NULL), NULL);
    gist_session *s = open_session(e, GIST_TYPE_F32, 0), *t = open_session(e, GIST_TYPE_F32, 0);
    assert_ok(gist_session_prompt(s, "Sum the numbers.", 16, NULL), NULL);
    assert_int_equal(gist_session_length(s), p);
    gist_generate_options o = GIST_GENERATE_OPTIONS_INIT;
    gist_answer a;
    o.max_tokens = 1;
    o.ignore_eos = true;
    assert_ok(gist_generate(s, "1 2", 3, &o, &a, NULL), NULL);
    assert_int_equal(a.input_tokens, n);
    assert_ok(gist_session_feed(t, ids, p + n, logits, NULL), NULL);
    assert_true(fabs((double)a.logprobs[0] - logprob(logits, engine_model(e)->vocab, a.ids[0])) < 1e-5);
    gist_answer_free(s, &a);
    gist_error err = { 0 };
    assert_fails(gist_session_prompt(s, "Again", 5, &err), &err, GIST_ERR_USAGE, "first");
    gist_session_close(s);
    gist_session_close(t);
    gist_engine_close(e);
    assert_non_null(strstr(gist_template_names(), "paper"));
}

/* ---- gists ---- */

static void test_gist_facts(void **state) {
    (void)state;
    gist *g = gist_of(engine, question, 4, GIST_TYPE_BF16), *same = gist_of(engine, question, 4, GIST_TYPE_BF16);
    gist *others[3] = { gist_of(engine, question, 3, GIST_TYPE_BF16), gist_of(engine, question, 4, GIST_TYPE_F32),
                        gist_of(engine, "Another one", 4, GIST_TYPE_BF16) };
    gist_info i, j;
    gist_engine_info e;
    size_t n;
    gist_engine_get_info(engine, &e);
    assert_ok(gist_tokenize(engine, question, strlen(question), GIST_TOKENIZE_BOS, NULL, 0, &n, NULL), NULL);
    gist_get_info(g, &i);
    assert_int_equal(i.k, 4);
    assert_int_equal(i.kv, GIST_TYPE_BF16);
    assert_int_equal(i.prompt_tokens, n);
    assert_int_equal(i.first_position, n);
    assert_int_equal(i.layers, model.L);
    assert_int_equal(i.kv_heads, model.G);
    assert_int_equal(i.head_dim, model.D);
    assert_int_equal(i.bytes, 2 * model.L * 4 * model.G * model.D * 2);
    assert_string_equal(i.model_fingerprint, e.fingerprint);
    assert_string_equal(i.tokenizer_fingerprint, e.tokenizer_fingerprint);
    assert_string_equal(i.family, "llama");
    assert_string_equal(i.template_name, "raw");
    assert_string_equal(i.condition, "gist");
    assert_string_equal(i.kernels, gist_kernels_name(e.kernels));
    gist_get_info(same, &j);
    assert_string_equal(i.id, j.id); /* what it was made from, not when */
    for (int o = 0; o < 3; o++) {
        gist_get_info(others[o], &j);
        assert_string_not_equal(i.id, j.id);
        gist_free(others[o]);
    }
    char path[TEST_PATH], id[40];
    gist *seen = NULL;
    snprintf(id, sizeof id, "%s", i.id);
    assert_ok(gist_save(g, test_tmp(path, "facts.gist"), NULL), NULL);
    gist_free(g);
    assert_ok(gist_inspect(path, &seen, NULL), NULL);
    gist_get_info(seen, &j);
    assert_string_equal(j.id, id);
    assert_string_equal(j.model_fingerprint, e.fingerprint);
    assert_int_equal(j.bytes, 2 * model.L * 4 * model.G * model.D * 2);
    gist_free(seen);
    gist_free(same);
    gist_free(NULL);
}

/* A longest possible prompt still makes a gist; a prompt's KV type is the session's when the session leaves it open. */
static void test_edges(void **state) {
    (void)state;
    char text[300];
    memset(text, 'x', sizeof text);
    text[model.context - 1 - 3] = 0; /* with BOS and 2 gist tokens one position is left */
    gist *g = gist_of(engine, text, 2, GIST_TYPE_F16);
    gist_session *s = open_session(engine, GIST_TYPE_AUTO, 0);
    gist_error err = { 0 };
    assert_ok(gist_session_attach(s, g, &err), &err);
    assert_int_equal(gist_session_position(s), model.context - 1);
    assert_int_equal(s->kv, DT_F16);
    int32_t id = TINY_BYTE;
    assert_fails(gist_session_feed(s, (int32_t[]){ id, id }, 2, NULL, &err), &err, GIST_ERR_LIMIT, NULL);
    assert_ok(gist_session_feed(s, &id, 1, NULL, NULL), NULL);
    err = (gist_error){ 0 };
    assert_fails(gist_session_feed(s, &id, 1, NULL, &err), &err, GIST_ERR_LIMIT, NULL);
    gist_session_close(s);
    gist_free(g);
}

static void count_warnings(void *ctx, gist_log_level lvl, const char *msg) {
    if (lvl == GIST_LOG_WARN && strstr(msg, "<GIST>")) ++*(int *)ctx;
}

static void test_added_gist(void **state) {
    (void)state;
    char dir[TEST_PATH];
    for (int has = 0; has < 2; has++) {
        tiny_model t = model;
        t.gist = has;
        int warnings = 0;
        gist_engine_options o = GIST_ENGINE_OPTIONS_INIT;
        o.log = count_warnings;
        o.log_ctx = &warnings;
        o.threads = 1;
        gist_engine *e = NULL;
        assert_ok(gist_engine_open(tiny_save(&t, has ? "with" : "without", dir), &o, &e, NULL), NULL);
        gist_engine_info i;
        gist_engine_get_info(e, &i);
        assert_int_equal(warnings, !has);
        assert_int_equal(i.gist_token_added, !has);
        assert_int_equal(i.gist_token, TINY_GIST);
        assert_int_equal(i.vocab, TINY_GIST + 1);
        if (!has) { /* the mean of the other rows */
            const llama_model *m = engine_model(e);
            for (int c = 0; c < t.C; c++) {
                double sum = 0;
                for (int v = 0; v < TINY_GIST; v++) {
                    float x[64];
                    dt_to_f32(x, (const uint8_t *)m->embed + dt_bytes(m->embed_type, (size_t)v * (size_t)t.C),
                              m->embed_type, (size_t)t.C);
                    sum += (double)x[c];
                }
                assert_true(fabs(sum / TINY_GIST - (double)m->gist_row[c]) < 1e-6);
            }
        }
        gist_engine_close(e);
    }
    gist_engine_close(NULL);
}

static int open_engine(void **state) {
    (void)state;
    engine = tiny_open(&model, "engine", 1, GIST_KERNELS_AUTO, GIST_TYPE_AUTO, "raw");
    return 0;
}

static int close_engine(void **state) {
    (void)state;
    gist_engine_close(engine);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokenize),   cmocka_unit_test(test_reset),      cmocka_unit_test(test_position),
        cmocka_unit_test(test_templates),  cmocka_unit_test(test_gist_facts), cmocka_unit_test(test_edges),
        cmocka_unit_test(test_added_gist),
    };
    return cmocka_run_group_tests(tests, open_engine, close_engine);
}
