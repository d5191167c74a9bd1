/* test_train_init.c - initial weights from scratch: a head of its own is the embedding; local heads look back; T5's
 * queries begin, and are moved by Muon, as much smaller as their scores are not divided.
 *
 * The scores of the first block are computed here from the weights alone, in double, for random tokens: of the
 * distances 0 .. 15, head h must score distance h+1 highest for nearly every row (what is drawn at random adds to the
 * scores).
 */
#include "testing.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>

#include "train/train.h"

enum { ROWS = 64, MOST_C = 128, FAR = 16 };

static pool *one_thread(op_ctx *ctx) {
    pool *p = NULL;
    gist_error err = { 0 };
    assert_ok(pool_create(NULL, 1, &p, &err), &err);
    assert_ok(op_init(ctx, GIST_KERNELS_AUTO, p, &err), &err);
    return p;
}

static train_model *make(const llama_config *c, bool local, op_ctx *ctx) {
    train_model_options o = {
        .type = DT_F32, .max_rows = 16, .lm = 1, .gist_token = -1, .local_heads = local, .muon = true
    };
    gist_error err = { 0 };
    train_model *tm = NULL;
    assert_ok(train_model_create(&tm, c, NULL, false, 7, &o, ctx, NULL, &err), &err);
    return tm;
}

static llama_config parse(const char *text) {
    llama_config c;
    gist_error err = { 0 };
    json_t *json = json_loads(text, 0, NULL);
    assert_non_null(json);
    assert_ok(llama_config_parse(&c, json, "config", &err), &err);
    json_decref(json);
    return c;
}

static llama_config config(int heads, int kv_heads, int head_dim, bool tied) {
    static const char format[] =
        "{\"model_type\": \"llama\", \"hidden_size\": %d, \"intermediate_size\": 64, \"num_hidden_layers\": 2, "
        "\"num_attention_heads\": %d, \"num_key_value_heads\": %d, \"head_dim\": %d, \"vocab_size\": 96, "
        "\"max_position_embeddings\": 128, \"rms_norm_eps\": 1e-5, \"rope_theta\": 10000.0, "
        "\"tie_word_embeddings\": %s}";
    char text[1024];
    snprintf(text, sizeof text, format, MOST_C, heads, kv_heads, head_dim, tied ? "true" : "false");
    return parse(text);
}

enum { T5_HEADS = 8, T5_D = 16, T5_BUCKETS = 32, T5_MOST = 128 };

static llama_config t5_config(void) {
    return parse("{\"model_type\": \"t5\", \"d_model\": 64, \"d_ff\": 96, \"d_kv\": 16, \"num_heads\": 8, "
                 "\"num_layers\": 2, \"num_decoder_layers\": 3, \"vocab_size\": 96, \"feed_forward_proj\": "
                 "\"gated-gelu\", \"relative_attention_num_buckets\": 32, \"relative_attention_max_distance\": 128, "
                 "\"tie_word_embeddings\": false, \"is_encoder_decoder\": true}");
}

static const train_tensor *tensor(train_model *tm, const char *name) {
    for (int i = 0; i < train_model_tensors(tm); i++)
        if (strcmp(train_model_tensor(tm, i)->name, name) == 0) return train_model_tensor(tm, i);
    fail_msg("no %s", name);
    return NULL;
}

static const float *weight(train_model *tm, const char *name) {
    return train_model_w(tm) + tensor(tm, name)->at;
}

static double size(const float *x, size_t n) {
    double square = 0;
    for (size_t i = 0; i < n; i++) square += (double)x[i] * (double)x[i];
    return sqrt(square / (double)n);
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
    op_ctx ctx;
    pool *p = one_thread(&ctx);
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

/* Of each stack's first half of heads, head h adds most at distance h+1 back, and by far; the others nowhere much. */
static void check_near(train_model *tm, const char *stack, bool both) {
    enum { REACH = 20, ALL = 2 * REACH + 1 };
    char name[128];
    float bias[T5_HEADS * ALL];
    snprintf(name, sizeof name, "%s.block.0.layer.0.SelfAttention.relative_attention_bias.weight", stack);
    op_distance_fwd(&(op_distance){ REACH, bias }, weight(tm, name), &(op_buckets){ T5_BUCKETS, T5_MOST, both },
                    T5_HEADS);
    for (int h = 0; h < T5_HEADS; h++)
        for (int d = -REACH; d <= REACH; d++) {
            bool looks = h < T5_HEADS / 2 && d == -(h + 1);
            float b = bias[h * ALL + REACH + d];
            assert_true(looks ? b == 8 : fabsf(b) < 2);
        }
}

static void test_t5(void **state) {
    (void)state;
    op_ctx ctx;
    pool *p = one_thread(&ctx);
    llama_config c = t5_config();
    train_model *tm = make(&c, true, &ctx);
    check_near(tm, "encoder", true);
    check_near(tm, "decoder", false);

    static const char *const name[] = { "encoder.block.1.layer.0.SelfAttention.%c.weight",
                                        "decoder.block.2.layer.1.EncDecAttention.%c.weight" };
    for (int i = 0; i < 2; i++) {
        char q[128], k[128];
        snprintf(q, sizeof q, name[i], 'q');
        snprintf(k, sizeof k, name[i], 'k');
        const train_tensor *tq = tensor(tm, q), *tk = tensor(tm, k);
        size_t n = tq->count;
        assert_true(fabs(size(weight(tm, q), n) / size(weight(tm, k), n) * sqrt(T5_D) - 1) < 0.1);
        float *before = malloc(2 * n * sizeof *before);
        memcpy(before, weight(tm, q), n * sizeof *before);
        memcpy(before + n, weight(tm, k), n * sizeof *before);
        train_model_zero_grad(tm);
        memcpy(train_model_g(tm) + tq->at, before + n, n * sizeof *before); /* the same gradient, some matrix */
        memcpy(train_model_g(tm) + tk->at, before + n, n * sizeof *before);
        train_model_update(tm, &(optimiser){ 0.01f, 0.9f, 0.999f, 1e-8f, 0, 0, 0.95f }, 1);
        for (size_t j = 0; j < n; j++) {
            before[j] -= weight(tm, q)[j];
            before[n + j] -= weight(tm, k)[j];
        }
        assert_true(size(before + n, n) > 0);
        assert_true(fabs(size(before, n) / size(before + n, n) * sqrt(T5_D) - 1) < 1e-4);
        free(before);
    }
    train_model_free(tm);
    pool_free(p);
}

static void test_head(void **state) {
    (void)state;
    op_ctx ctx;
    pool *p = one_thread(&ctx);
    llama_config c = config(4, 4, 32, false);
    train_model *tm = make(&c, true, &ctx);
    const float *E = weight(tm, "model.embed_tokens.weight"), *head = weight(tm, "lm_head.weight");
    float shrink = 1 / sqrtf((float)c.C);
    for (int i = 0; i < c.V * c.C; i++) assert_true(head[i] == shrink * E[i]);
    train_model_free(tm);
    pool_free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_local_heads), cmocka_unit_test(test_t5),
                                        cmocka_unit_test(test_head) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
