/* test_laws.c - what must hold bit for bit, on every kernel level of this CPU, for weights and KV caches in f32, bf16
 * and f16, for weights in q8_0, q4_0 and q4_K, and for KV caches in q8_0.
 *
 *   gist        gist rows alone = the full cache under the gist mask        (compress + attach | one session, hidden)
 *   split       prefill = token by token = any cut into calls, over chunks of 512 and growing caches
 *   threads     1 = 2
 *   file        save -> load = live
 *   reach       NaN in the prompt's keys and values, or another prompt with the same gist rows: nothing moves
 *   sharing     one gist in two sessions at once; two sessions of one engine at once
 *   rebase      the same answer from position 0, within rounding (tolerances.h)
 */
#include <math.h>
#include <pthread.h>
#include <stdlib.h>

#include "engine/engine_int.h"
#include "tiny.h"
#include "tolerances.h"

enum { REST = 70, LONG = 1300 };
static const char prompt[] = "Translate the sentence into another language, and keep the tone of the author.";

static gist_kernels level[TINY_LEVELS];
static int levels;

static const gist_type kv_types[] = { GIST_TYPE_F32, GIST_TYPE_BF16, GIST_TYPE_F16, GIST_TYPE_Q8_0 };
enum { KV_TYPES = sizeof kv_types / sizeof *kv_types };
static const tiny_model models[] = {
    /* nothing is a multiple of anything; several panels, tied head, <GIST> added at load; odd widths, a key/value head
     * for each query head */
    { 2, 20, 28, 4, 2, 10, 2048, DT_F32, false, true, 1, FAMILY_LLAMA, false },
    { 3, 72, 136, 8, 2, 16, 2048, DT_F32, true, false, 2, FAMILY_QWEN2, true },
    { 2, 33, 65, 3, 3, 6, 2048, DT_F32, false, true, 3, FAMILY_QWEN3, false },
    { 2, 40, 56, 3, 1, 64, 2048, DT_F32, false, true, 4, FAMILY_LLAMA, true }, /* heads that q8_0 fits */
};
/* for weights in block types: every input is a whole number of blocks */
static const tiny_model blocks_of_32 = { 2, 64, 96, 4, 2, 32, 2048, DT_F32, false, true, 5, FAMILY_LLAMA, false };
static const tiny_model blocks_of_256 = { 1, 256, 256, 8, 2, 32, 2048, DT_F32, false, false, 6, FAMILY_LLAMA, false };
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { MODELS = 1 }; /* under gcc's sanitizers, which are slow and after other faults */
#else
enum { MODELS = sizeof models / sizeof *models };
#endif

/* ---- what the laws run on ---- */

typedef struct bench {
    gist_engine *e, *e2; /* the same model with 1 and 2 threads */
    gist_type kv;
    int V, k, p;
    int32_t head[512];   /* prompt and gist tokens */
    int32_t rest[REST];
    gist *g;
    float *want;         /* [REST,V] behind the gist */
    const char *name;
} bench;

static gist *compress(gist_engine *e, int k, gist_type kv, bool rebase) {
    gist_compress_options o = GIST_COMPRESS_OPTIONS_INIT;
    gist *g = NULL;
    gist_error err = { 0 };
    o.k = k;
    o.kv = kv;
    o.rebase = rebase;
    assert_ok(gist_compress(e, prompt, strlen(prompt), &o, &g, &err), &err);
    return g;
}

static gist_session *attached(gist_engine *e, const gist *g) {
    gist_session *s = open_session(e, GIST_TYPE_AUTO, 0);
    gist_error err = { 0 };
    assert_ok(gist_session_attach(s, g, &err), &err);
    return s;
}

static void behind_gist(gist_engine *e, const gist *g, const int32_t *ids, int n, float *logits) {
    gist_session *s = attached(e, g);
    feed(s, ids, n, logits);
    gist_session_close(s);
}

static void same_logits(const bench *b, const float *got, const char *law) {
    char what[256];
    snprintf(what, sizeof what, "%s: %s", law, b->name);
    assert_same_floats(got, b->want, (size_t)REST * (size_t)b->V, what);
}

/* Call fn for every KV type and k, with one model on one kernel level. */
static void each_cache(void (*fn)(bench *b), bool every_k, const tiny_model *t, gist_type type, gist_kernels l) {
    bench b = { 0 };
    char name[96];
    b.e = tiny_open(t, "law", 1, l, type, "paper");
    b.e2 = tiny_open(t, "law", 2, l, type, "paper");
    b.V = engine_model(b.e)->vocab;
    for (int i = 0; i < (t->D % 32 ? KV_TYPES - 1 : KV_TYPES); i++)
        for (int k = 1; k <= (every_k ? 5 : 1); k += 2) {
            b.kv = kv_types[i];
            b.k = every_k ? k : 3;
            snprintf(name, sizeof name, "model %d, weights %s, kv %s, k %d, %s", (int)t->seed,
                     dt_name(engine_model(b.e)->layers[0].wq.type), gist_type_name(b.kv), b.k, gist_kernels_name(l));
            b.name = name;
            tok_ids ids;
            tok_ids_init(&ids, mem_default());
            assert_ok(tok_template_prompt(engine_tokenizer(b.e), tok_template_find("paper"), prompt, strlen(prompt),
                                          &ids, NULL), NULL);
            b.p = (int)ids.n;
            for (int j = 0; j < b.p + b.k; j++) b.head[j] = j < b.p ? ids.id[j] : b.e->gist_token;
            tok_ids_free(&ids);
            tiny_ids(b.rest, REST, 77);
            b.g = compress(b.e, b.k, b.kv, false);
            b.want = floats((size_t)REST * (size_t)b.V);
            behind_gist(b.e, b.g, b.rest, REST, b.want);
            fn(&b);
            free(b.want);
            gist_free(b.g);
        }
    gist_engine_close(b.e);
    gist_engine_close(b.e2);
}

/* For every model, weight type, kernel level, KV type and k. */
static void each_bench(void (*fn)(bench *b), bool every_k) {
    for (int l = 0; l < levels; l++) {
        for (int m = 0; m < MODELS; m++)
            for (int w = 0; w <= DT_F16; w++) {
                tiny_model t = models[m];
                t.type = (dtype)w;
                each_cache(fn, every_k, &t, GIST_TYPE_AUTO, level[l]);
            }
        each_cache(fn, every_k, &blocks_of_32, GIST_TYPE_Q8_0, level[l]);
        each_cache(fn, every_k, &blocks_of_32, GIST_TYPE_Q4_0, level[l]);
        each_cache(fn, every_k, &blocks_of_256, GIST_TYPE_Q4_K, level[l]);
    }
}

/* ---- gist rows alone = full cache under the mask ---- */

static void law_gist(bench *b) {
    float *got = floats((size_t)REST * (size_t)b->V);
    gist_session *s = open_session(b->e, b->kv, 0);
    const llama_config *c = &engine_model(b->e)->cfg;
    feed(s, b->head, b->p + b->k, NULL);
    uint8_t k1[1024], v1[1024], k2[1024], v2[1024];
    size_t row = dt_bytes(b->g->head.type, (size_t)c->G * (size_t)c->D);
    for (int l = 0; l < c->L; l++)
        for (int i = 0; i < b->k; i++) {
            session_get_row(s, l, b->p + i, k1, v1);
            op_kv_get(&b->g->stores[l], i, k2, v2, c->G, c->D);
            assert_memory_equal(k1, k2, row);
            assert_memory_equal(v1, v2, row);
        }
    session_hide_before(s, b->p);
    feed(s, b->rest, REST, got);
    same_logits(b, got, "gist rows alone = full cache under the gist mask");
    assert_int_equal(gist_session_position(s), b->p + b->k + REST);
    gist_session_reset(s); /* without the mask, and without the gist, it is something else: the law is not empty */
    feed(s, b->head, b->p + b->k, NULL);
    feed(s, b->rest, REST, got);
    assert_true(test_max_rel(got, b->want, (size_t)REST * (size_t)b->V, NULL) > 1e-3);
    gist_session_reset(s);
    assert_ok(gist_session_set_position(s, b->p + b->k, NULL), NULL);
    feed(s, b->rest, REST, got);
    assert_true(test_max_rel(got, b->want, (size_t)REST * (size_t)b->V, NULL) > 1e-3);
    gist_session_close(s);
    free(got);
}

static void test_gist(void **state) {
    (void)state;
    each_bench(law_gist, true);
}

/* ---- threads, files ---- */

static void law_threads(bench *b) {
    float *got = floats((size_t)REST * (size_t)b->V);
    gist *g = compress(b->e2, b->k, b->kv, false);
    gist_info one, two;
    gist_get_info(b->g, &one);
    gist_get_info(g, &two);
    assert_string_equal(one.id, two.id);
    behind_gist(b->e2, g, b->rest, REST, got);
    same_logits(b, got, "1 thread = 2 threads");
    gist_free(g);
    free(got);
}

static void law_file(bench *b) {
    char path[TEST_PATH], again[TEST_PATH];
    float *got = floats((size_t)REST * (size_t)b->V);
    gist *g = NULL;
    gist_error err = { 0 };
    test_tmp(path, "law.gist");
    assert_ok(gist_save(b->g, path, &err), &err);
    assert_ok(gist_load(b->e, path, 0, &g, &err), &err);
    behind_gist(b->e, g, b->rest, REST, got);
    same_logits(b, got, "save -> load = live");
    assert_ok(gist_save(g, test_tmp(again, "again.gist"), &err), &err);
    assert_true(test_same_file(path, again));
    gist_free(g);
    free(got);
}

static void test_threads(void **state) {
    (void)state;
    each_bench(law_threads, false);
}

static void test_file(void **state) {
    (void)state;
    each_bench(law_file, false);
}

/* ---- what lies behind the gist is out of reach ---- */

static void overwrite(gist_session *s, int slot, const void *k, const void *v) {
    const llama_config *c = &engine_model(s->e)->cfg;
    for (int l = 0; l < c->L; l++) op_kv_set(&s->stores[l], slot, k, v, c->G, c->D);
}

static void law_reach(bench *b) {
    const llama_config *c = &engine_model(b->e)->cfg;
    float *got = floats((size_t)REST * (size_t)b->V), nan[64];
    uint8_t poison[256];
    gist_session *s = open_session(b->e, b->kv, 0);
    for (int i = 0; i < 64; i++) nan[i] = i % 3 ? NAN : INFINITY;
    assert_true(c->G * c->D <= 64);
    dt_from_f32(poison, b->g->head.type, nan, 64);
    feed(s, b->head, b->p + b->k, NULL);
    for (int i = 0; i < b->p; i++) overwrite(s, i, poison, poison);
    session_hide_before(s, b->p);
    feed(s, b->rest, REST, got);
    same_logits(b, got, "NaN in the prompt's rows changes nothing");

    int32_t other[512]; /* another prompt as long, this gist's rows */
    gist_session_reset(s);
    tiny_ids(other, (size_t)b->p, 5);
    feed(s, other, b->p, NULL);
    feed(s, b->head + b->p, b->k, NULL);
    for (int l = 0; l < c->L; l++)
        for (int i = 0; i < b->k; i++) {
            uint8_t k[256], v[256];
            op_kv_get(&b->g->stores[l], i, k, v, c->G, c->D);
            op_kv_set(&s->stores[l], b->p + i, k, v, c->G, c->D);
        }
    session_hide_before(s, b->p);
    feed(s, b->rest, REST, got);
    same_logits(b, got, "another prompt with the same gist rows changes nothing");
    gist_session_close(s);
    free(got);
}

static void test_reach(void **state) {
    (void)state;
    each_bench(law_reach, false);
}

/* ---- splits ---- */

static void law_split(bench *b) {
    float *got = floats((size_t)REST * (size_t)b->V);
    size_t V = (size_t)b->V;
    uint64_t seed = 3;
    gist *g2 = compress(b->e2, b->k, b->kv, false);
    for (int run = 0; run < 4; run++) { /* 0: token by token */
        gist_session *s = run % 2 ? attached(b->e2, g2) : attached(b->e, b->g);
        for (int at = 0, n; at < REST; at += n) {
            n = run == 0 ? 1 : 1 + (int)(test_rand(&seed) % (uint64_t)(REST - at));
            if (run == 0) { /* logits of the last row alone, too */
                gist_error err = { 0 };
                assert_ok(gist_session_feed(s, b->rest + at, 1, got + (size_t)at * V, &err), &err);
            } else {
                feed(s, b->rest + at, n, got + (size_t)at * V);
            }
        }
        same_logits(b, got, run ? "any split = any other" : "prefill = token by token");
        gist_session_close(s);
    }
    /* the prompt too: rows of the gist from a prompt fed in pieces */
    gist_session *s = open_session(b->e, b->kv, 0);
    for (int at = 0, n; at < b->p + b->k; at += n) {
        n = 1 + (int)(test_rand(&seed) % 9);
        if (at + n > b->p + b->k) n = b->p + b->k - at;
        feed(s, b->head + at, n, NULL);
    }
    session_hide_before(s, b->p);
    feed(s, b->rest, REST, got);
    same_logits(b, got, "a prompt in pieces");
    gist_session_close(s);
    gist_free(g2);
    free(got);
}

static void test_split(void **state) {
    (void)state;
    each_bench(law_split, false);
}

/* Beyond a chunk of 512 rows, and through every growth of the cache: last row and a few others of a long prefill. */
static void test_long(void **state) {
    (void)state;
    int32_t *ids = malloc(LONG * sizeof *ids);
    tiny_ids(ids, LONG, 12);
    for (int l = 0; l < levels; l++)
        for (int w = 0; w < KV_TYPES; w++) {
            tiny_model t = models[w == KV_TYPES - 1 ? 3 : l % 2 ? 0 : 2];
            t.type = (dtype)(w % 3);
            gist_engine *e = tiny_open(&t, "long", 2, level[l], GIST_TYPE_AUTO, NULL);
            size_t V = (size_t)engine_model(e)->vocab;
            float *want = floats(LONG * V), *got = floats(LONG * V);
            gist_session *s = open_session(e, kv_types[w], 0);
            feed(s, ids, LONG, want);
            gist_session_close(s);
            uint64_t seed = 40 + (uint64_t)l;
            for (int run = 0; run < 3; run++) {
                s = open_session(e, kv_types[w], 0);
                for (int at = 0, n; at < LONG; at += n) {
                    n = run == 2 ? 1 + (int)(test_rand(&seed) % 900) : 1 + (int)(test_rand(&seed) % 64);
                    if (run == 1 && at == 0) n = 513;
                    if (at + n > LONG) n = LONG - at;
                    feed(s, ids + at, n, got + (size_t)at * V);
                }
                assert_same_floats(got, want, LONG * V, "a long prefill, cut otherwise");
                gist_session_close(s);
            }
            s = open_session(e, kv_types[w], 0); /* reserve beforehand: another cap of the stores */
            assert_ok(session_reserve(s, LONG, NULL), NULL);
            feed(s, ids, LONG / 2, got);
            feed(s, ids + LONG / 2, LONG - LONG / 2, got + LONG / 2 * V);
            assert_same_floats(got, want, LONG * V, "reserved");
            gist_session_close(s);
            free(want);
            free(got);
            gist_engine_close(e);
        }
    free(ids);
}

/* ---- sharing ---- */

typedef struct runner {
    gist_engine *e;
    const gist *g;
    const int32_t *ids;
    float *logits;
    int first; /* which half it begins with: the two never do the same thing at the same time */
} runner;

static void *run_one(void *arg) {
    runner *r = arg;
    gist_session *s = NULL;
    for (int round = 0; round < 3; round++) {
        if (gist_session_open(r->e, NULL, &s, NULL) != GIST_OK) return NULL;
        if (r->g && gist_session_attach(s, r->g, NULL) != GIST_OK) return NULL;
        size_t V = (size_t)engine_model(r->e)->vocab, cut = r->first ? 7 : 40;
        if (gist_session_feed_all(s, r->ids, cut, r->logits, NULL) != GIST_OK) return NULL;
        if (gist_session_feed_all(s, r->ids + cut, REST - cut, r->logits + cut * V, NULL) != GIST_OK) return NULL;
        gist_session_close(s);
    }
    return r;
}

static void test_sharing(void **state) {
    (void)state;
    for (int threads = 1; threads <= 2; threads++) {
        bench b = { .kv = GIST_TYPE_BF16, .k = 4, .name = "sharing" };
        tiny_model t = models[0];
        int32_t other[REST];
        b.e = tiny_open(&t, "share", threads, level[levels - 1], GIST_TYPE_BF16, NULL);
        b.V = engine_model(b.e)->vocab;
        tiny_ids(b.rest, REST, 77);
        tiny_ids(other, REST, 78);
        b.g = compress(b.e, b.k, b.kv, false);
        size_t n = (size_t)REST * (size_t)b.V;
        float *want[2] = { floats(n), floats(n) }, *plain = floats(n), *got[2] = { floats(n), floats(n) };
        behind_gist(b.e, b.g, b.rest, REST, want[0]);
        behind_gist(b.e, b.g, other, REST, want[1]);
        gist_session *s = open_session(b.e, GIST_TYPE_AUTO, 0);
        feed(s, other, REST, plain);
        gist_session_close(s);
        for (int with = 0; with < 2; with++) { /* both behind the gist; or one of them without */
            runner r[2] = { { b.e, b.g, b.rest, got[0], 0 }, { b.e, with ? b.g : NULL, other, got[1], 1 } };
            pthread_t id[2];
            for (int i = 0; i < 2; i++) assert_int_equal(pthread_create(&id[i], NULL, run_one, &r[i]), 0);
            for (int i = 0; i < 2; i++) {
                void *ran = NULL;
                assert_int_equal(pthread_join(id[i], &ran), 0);
                assert_non_null(ran);
            }
            assert_same_floats(got[0], want[0], n, "one gist, two sessions at once");
            assert_same_floats(got[1], with ? want[1] : plain, n, "two sessions at once");
        }
        for (int i = 0; i < 2; i++) {
            free(want[i]);
            free(got[i]);
        }
        free(plain);
        gist_free(b.g);
        gist_engine_close(b.e);
    }
}

/* ---- rebased gists ---- */

static void law_rebase(bench *b) {
    static const double tol[] = { [DT_F32] = TOL_REBASE_F32, [DT_BF16] = TOL_REBASE_BF16, [DT_F16] = TOL_REBASE_F16,
                                  [DT_Q8_0] = TOL_REBASE_Q8_0 };
    float *got = floats((size_t)REST * (size_t)b->V);
    gist *g = compress(b->e, b->k, b->kv, true);
    gist_info plain, info;
    gist_get_info(b->g, &plain);
    gist_get_info(g, &info);
    assert_true(info.rebased && !plain.rebased);
    assert_int_equal(info.first_position, 0);
    assert_int_equal(plain.first_position, b->p);
    assert_int_equal(info.prompt_tokens, b->p);
    assert_string_not_equal(info.id, plain.id);
    gist_session *s = attached(b->e, g);
    assert_int_equal(gist_session_position(s), b->k);
    feed(s, b->rest, REST, got);
    assert_int_equal(gist_session_position(s), b->k + REST);
    assert_int_equal(gist_session_length(s), REST);
    /* Activations rounded to bf16 or int8 (in the kernels of such weights) may round the other way after the least
     * change. */
    double most = tol[g->head.type];
    dtype stored = engine_model(b->e)->layers[0].wq.type;
    if ((stored == DT_BF16 || dt_block(stored) > 1) && most < TOL_REBASE_BF16) most = TOL_REBASE_BF16;
    assert_close(got, b->want, (size_t)REST * (size_t)b->V, most, b->name);
    gist_session_close(s);
    gist_free(g);
    free(got);
}

static void test_rebase(void **state) {
    (void)state;
    each_bench(law_rebase, false);
}

/* ---- which types a cache can have ---- */

static void test_kv_types(void **state) {
    (void)state;
    gist_session_options so = GIST_SESSION_OPTIONS_INIT;
    gist_compress_options co = GIST_COMPRESS_OPTIONS_INIT;
    gist_session *s = NULL;
    gist *g = NULL;
    for (int wide = 0; wide < 2; wide++) {
        gist_engine *e = tiny_open(&models[wide ? 3 : 0], "kvtypes", 1, GIST_KERNELS_AUTO, GIST_TYPE_AUTO, NULL);
        for (int kv = 0; kv <= GIST_TYPE_Q6_K + 1; kv++) {
            gist_error err = { 0 };
            so.kv = co.kv = (gist_type)kv;
            gist_status want = kv > GIST_TYPE_Q8_0                ? GIST_ERR_USAGE
                               : kv == GIST_TYPE_Q8_0 && !wide ? GIST_ERR_UNSUPPORTED
                                                               : GIST_OK;
            if (want == GIST_OK) {
                assert_ok(gist_session_open(e, &so, &s, &err), &err);
                gist_session_close(s);
                continue;
            }
            const char *message = want == GIST_ERR_UNSUPPORTED ? "a multiple of 32; this model's are 10 wide"
                                  : kv <= GIST_TYPE_Q6_K       ? "f32, bf16, f16 or q8_0, not q"
                                                               : "is unknown";
            assert_fails(gist_session_open(e, &so, &s, &err), &err, want, message);
            err = (gist_error){ 0 };
            assert_fails(gist_compress(e, prompt, strlen(prompt), &co, &g, &err), &err, want, message);
        }
        gist_engine_close(e);
    }
}

int main(void) {
    levels = tiny_levels(level);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gist),  cmocka_unit_test(test_threads), cmocka_unit_test(test_file),
        cmocka_unit_test(test_reach), cmocka_unit_test(test_split),   cmocka_unit_test(test_long),
        cmocka_unit_test(test_sharing), cmocka_unit_test(test_rebase), cmocka_unit_test(test_kv_types),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
