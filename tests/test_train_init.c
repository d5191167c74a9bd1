/* test_train_init.c - initial weights from scratch: a head of its own is the embedding; local heads look back.
 *
 * The scores of the first block are computed here from the weights alone, in double, for random tokens: of the
 * distances 0 .. 15, head h must score distance h+1 highest for nearly every row (what is drawn at random adds to the
 * scores).
 */
#include "testing.h"

#include <jansson.h>
#include <math.h>

#include "train/train.h"

enum { ROWS = 64, MOST_C = 128, FAR = 16 };

static train_model *make(const llama_config *c, bool local, op_ctx *ctx) {
    train_model_options o = { .type = DT_F32, .max_rows = 16, .lm = 1, .gist_token = -1, .local_heads = local };
    gist_error err = { 0 };
    train_model *tm = NULL;
    assert_ok(train_model_create(&tm, c, NULL, false, 7, &o, ctx, NULL, &err), &err);
    return tm;
}

static llama_config config(int heads, int kv_heads, int head_dim, bool tied) {
    static const char format[] =
        "{\"model_type\": \"llama\", \"hidden_size\": %d, \"intermediate_size\": 64, \"num_hidden_layers\": 2, "
        "\"num_attention_heads\": %d, \"num_key_value_heads\": %d, \"head_dim\": %d, \"vocab_size\": 96, "
        "\"max_position_embeddings\": 128, \"rms_norm_eps\": 1e-5, \"rope_theta\": 10000.0, "
        "\"tie_word_embeddings\": %s}";
    char text[1024];
    llama_config c;
    gist_error err = { 0 };
    snprintf(text, sizeof text, format, MOST_C, heads, kv_heads, head_dim, tied ? "true" : "false");
    json_t *json = json_loads(text, 0, NULL);
    assert_non_null(json);
    assert_ok(llama_config_parse(&c, json, "config", &err), &err);
    json_decref(json);
    return c;
}

static const float *weight(train_model *tm, const char *name) {
    for (int i = 0; i < train_model_tensors(tm); i++) {
        const train_tensor *t = train_model_tensor(tm, i);
        if (strcmp(t->name, name) == 0) return train_model_w(tm) + t->at;
    }
    fail_msg("no %s", name);
    return NULL;
}

/* One head's query or key of a normalised token at a position. */
static void project(double *y, const float *W, const float *token, int C, int D, const float *f, int position) {
    double x[MOST_C], square = 0;
    for (int i = 0; i < C; i++) square += (double)token[i] * (double)token[i];
    for (int i = 0; i < C; i++) x[i] = (double)token[i] / sqrt(square / C);
    for (int d = 0; d < D; d++) {
        y[d] = 0;
        for (int i = 0; i < C; i++) y[d] += (double)W[d * C + i] * x[i];
    }
    for (int i = 0; i < D / 2; i++) {
        double a = y[i], b = y[i + D / 2], turn = position * (double)f[i];
        y[i] = a * cos(turn) - b * sin(turn);
        y[i + D / 2] = a * sin(turn) + b * cos(turn);
    }
}

/* Share of rows at which this head's highest score is h+1 back. */
static double looks_back(train_model *tm, const llama_config *c, int h) {
    const float *E = weight(tm, "model.embed_tokens.weight"), *f = train_model_llama(tm)->freq;
    const float *Q = weight(tm, "model.layers.0.self_attn.q_proj.weight") + h * c->D * c->C;
    const float *K = weight(tm, "model.layers.0.self_attn.k_proj.weight") + h / (c->H / c->G) * c->D * c->C;
    double q[MOST_C], k[MOST_C];
    int right = 0;
    uint64_t seed = 5;
    int token[ROWS];
    for (int t = 0; t < ROWS; t++) token[t] = (int)(test_rand(&seed) % (uint64_t)c->V);
    for (int t = FAR; t < ROWS; t++) {
        double best = -INFINITY;
        int at = -1;
        project(q, Q, E + token[t] * c->C, c->C, c->D, f, t);
        for (int back = 0; back < FAR; back++) {
            double score = 0;
            project(k, K, E + token[t - back] * c->C, c->C, c->D, f, t - back);
            for (int d = 0; d < c->D; d++) score += q[d] * k[d];
            if (score > best) {
                best = score;
                at = back;
            }
        }
        right += at == h + 1;
    }
    return (double)right / (ROWS - FAR);
}

static void check_local(int heads, int kv_heads, int head_dim, bool tied) {
    pool *p = NULL;
    op_ctx ctx;
    gist_error err = { 0 };
    assert_ok(pool_create(NULL, 1, &p, &err), &err);
    assert_ok(op_init(&ctx, GIST_KERNELS_AUTO, p, &err), &err);
    llama_config c = config(heads, kv_heads, head_dim, tied);
    train_model *local = make(&c, true, &ctx), *plain = make(&c, false, &ctx);
    double drawn = 0;
    for (int h = 0; h < heads; h++) {
        assert_true(looks_back(local, &c, h) > 0.8);
        drawn += looks_back(plain, &c, h) / heads;
    }
    assert_true(drawn < 0.3);
    train_model_free(local);
    train_model_free(plain);
    pool_free(p);
}

static void test_local_heads(void **state) {
    (void)state;
    check_local(4, 4, 32, false);
    check_local(4, 2, 64, false);
    check_local(2, 2, 64, true);
}

static void test_head(void **state) {
    (void)state;
    pool *p = NULL;
    op_ctx ctx;
    gist_error err = { 0 };
    assert_ok(pool_create(NULL, 1, &p, &err), &err);
    assert_ok(op_init(&ctx, GIST_KERNELS_AUTO, p, &err), &err);
    llama_config c = config(4, 4, 32, false);
    train_model *tm = make(&c, true, &ctx);
    const float *E = weight(tm, "model.embed_tokens.weight"), *head = weight(tm, "lm_head.weight");
    float shrink = 1 / sqrtf((float)c.C);
    for (int i = 0; i < c.V * c.C; i++) assert_true(head[i] == shrink * E[i]);
    train_model_free(tm);
    pool_free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_local_heads), cmocka_unit_test(test_head) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
