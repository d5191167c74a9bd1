/* llama_gguf.c - the config of a GGUF model, and what its files hold in another order.
 *
 *   general.architecture   llama | qwen2 | qwen3 | t5 (t5_config.c)    the family (Mistral's files say llama)
 *   ARCH.block_count, ARCH.embedding_length, ...                       sizes: the table below
 *   ARCH.rope.scaling.type, .factor                                    linear scaling
 *   rope_freqs.weight [D/2]                                            LLaMA 3's scaling, worked out: no key names its
 *                                                                      parameters, so they are found again
 *   output.weight                                                      absent: the head is the embedding
 *
 * Source: the GGUF specification and the keys that llama.cpp's converters write.
 */
#include <math.h>

#include "model/model.h"

typedef struct source {
    const gguf_file *g;
    const char *arch;
    char key[96];
} source;

static const char *key_of(source *s, const char *name) {
    snprintf(s->key, sizeof s->key, "%s.%s", s->arch, name);
    return s->key;
}

static gist_status get_int(source *s, const char *name, bool required, int lo, int hi, int *out, gist_error *err) {
    return gguf_get_int(s->g, key_of(s, name), required, lo, hi, out, err);
}

static gist_status get_float(source *s, const char *name, bool required, double lo, double hi, float *out,
                             gist_error *err) {
    return gguf_get_float(s->g, key_of(s, name), required, lo, hi, out, err);
}

static gist_status find_family(source *s, llama_config *c, gist_error *err) {
    const char *arch = NULL;
    size_t len = 0;
    TRY(gguf_get_string(s->g, "general.architecture", true, &arch, &len, err));
    int f = 0;
    while (f < FAMILIES && (strlen(llama_families[f].gguf) != len || memcmp(llama_families[f].gguf, arch, len) != 0))
        f++;
    if (f == FAMILIES)
        return err_set(err, GIST_ERR_UNSUPPORTED,
                       "general.architecture \"%.*s\" is not supported (supported: llama, qwen2, qwen3, t5)",
                       (int)(len < 40 ? len : 40), arch);
    c->family = (llama_family)f;
    s->arch = llama_families[f].gguf;
    return GIST_OK;
}

/* Keys that change the computation in a way that is not done here. */
static gist_status refuse_others(source *s, const llama_config *c, gist_error *err) {
    int experts = 0, rotated = c->D, value = c->D;
    TRY(get_int(s, "expert_count", false, 0, INT32_MAX, &experts, err));
    if (experts) return err_set(err, GIST_ERR_UNSUPPORTED, "%s is %d: experts are not supported", s->key, experts);
    TRY(get_int(s, "rope.dimension_count", false, 0, INT32_MAX, &rotated, err));
    if (rotated != c->D)
        return err_set(err, GIST_ERR_UNSUPPORTED, "%s is %d: only whole heads, here of %d, are rotated", s->key,
                       rotated, c->D);
    TRY(get_int(s, "attention.value_length", false, 0, INT32_MAX, &value, err));
    if (value != c->D)
        return err_set(err, GIST_ERR_UNSUPPORTED, "%s is %d: values are as wide as keys, here %d", s->key, value, c->D);
    return GIST_OK;
}

/* ---- rotary scaling ---- */

static gist_status read_scaling(source *s, llama_config *c, gist_error *err) {
    const char *type = "none";
    size_t len = strlen(type);
    TRY(get_float(s, "rope.freq_base", false, 1, 1e12, &c->theta, err));
    TRY(gguf_get_string(s->g, key_of(s, "rope.scaling.type"), false, &type, &len, err));
    if (len == 4 && memcmp(type, "none", 4) == 0) return GIST_OK;
    if (len != 6 || memcmp(type, "linear", 6) != 0)
        return err_set(err, GIST_ERR_UNSUPPORTED, "%s \"%.*s\" is not supported (supported: linear)", s->key,
                       (int)(len < 40 ? len : 40), type);
    c->rope.kind = ROPE_LINEAR;
    return get_float(s, "rope.scaling.factor", true, 1, 1e6, &c->rope.factor, err);
}

static bool close_factors(const llama_config *c, const float *found, float *mine) {
    llama_rope_factors(c, mine);
    for (int i = 0; i < c->D / 2; i++)
        if (!(fabsf(mine[i] - found[i]) <= 1e-5f * found[i])) return false;
    return true;
}

/* LLaMA 3's parameters from its factors [D/2]: the largest one, frequency factors of 1 and 4 as in every published
 * model, and the original context, a power of two. */
static bool recover(llama_config *c, const float *found, float *mine) {
    c->rope = (llama_rope){ .kind = ROPE_LLAMA3, .factor = 1, .low = 1, .high = 4 };
    for (int i = 0; i < c->D / 2; i++)
        if (found[i] > c->rope.factor) c->rope.factor = found[i];
    for (c->rope.original = LLAMA_MAX_CONTEXT; c->rope.original > 1; c->rope.original /= 2)
        if (close_factors(c, found, mine)) return true;
    return false;
}

gist_status llama_gguf_check_rope(const llama_config *c, gist_error *err) {
    float factor[GFILE_MAX_WIDTH / 2], mine[GFILE_MAX_WIDTH / 2];
    llama_config again = *c;
    llama_rope_factors(c, factor);
    if (c->rope.kind != ROPE_LLAMA3 ||
        (recover(&again, factor, mine) && memcmp(mine, factor, (size_t)c->D / 2 * sizeof *mine) == 0))
        return GIST_OK;
    return err_set(err, GIST_ERR_UNSUPPORTED,
                   "a GGUF file holds the factors of llama3's rotary scaling alone: factor %g, frequency factors %g "
                   "and %g, original context %d could not be found again",
                   (double)c->rope.factor, (double)c->rope.low, (double)c->rope.high, c->rope.original);
}

static gist_status read_factors(llama_config *c, const gguf_file *g, gist_error *err) {
    float found[GFILE_MAX_WIDTH / 2], mine[GFILE_MAX_WIDTH / 2];
    char shape[64];
    const tensor_view *t = gguf_find(g, "rope_freqs.weight");
    if (!t) return GIST_OK;
    if (t->type != DT_F32 || t->dims != 1 || t->shape[0] != c->D / 2)
        return err_set(err, GIST_ERR_FORMAT, "rope_freqs.weight is %s %s, this model needs f32 [%d]", dt_name(t->type),
                       tensor_shape_text(t, shape), c->D / 2);
    dt_to_f32(found, t->data, DT_F32, (size_t)c->D / 2);
    if (c->rope.kind == ROPE_PLAIN && recover(c, found, mine)) return GIST_OK;
    return err_set(err, GIST_ERR_UNSUPPORTED, "rope_freqs.weight: its rotary scaling is not LLaMA 3's");
}

/* ---- the config ---- */

/* Our own key: config.json's gist_positions. */
static gist_status read_gist_positions(const source *s, llama_config *c, gist_error *err) {
    const char *name = "end";
    size_t len = 3;
    TRY(gguf_get_string(s->g, "gist.positions", false, &name, &len, err));
    c->gist_spread = len == 6 && memcmp(name, "spread", len) == 0;
    if (c->gist_spread || (len == 3 && memcmp(name, "end", len) == 0)) return GIST_OK;
    return err_set(err, GIST_ERR_UNSUPPORTED, "gist.positions: positions other than \"end\" and \"spread\"");
}

static gist_status read_sizes(source *s, llama_config *c, gist_error *err) {
    TRY(get_int(s, "block_count", true, 1, LLAMA_MAX_LAYERS, &c->L, err));
    TRY(get_int(s, "embedding_length", true, 1, LLAMA_MAX_WIDTH, &c->C, err));
    TRY(get_int(s, "feed_forward_length", true, 1, 1 << 20, &c->F, err));
    TRY(get_int(s, "attention.head_count", true, 1, 4096, &c->H, err));
    c->G = c->H;
    TRY(get_int(s, "attention.head_count_kv", false, 1, GFILE_MAX_HEADS, &c->G, err));
    c->D = c->C / c->H;
    TRY(get_int(s, "attention.key_length", false, 2, GFILE_MAX_WIDTH, &c->D, err));
    TRY(get_int(s, "context_length", true, 1, LLAMA_MAX_CONTEXT, &c->context, err));
    TRY(get_int(s, "attention.sliding_window", false, 0, INT32_MAX, &c->window, err));
    TRY(get_float(s, "attention.layer_norm_rms_epsilon", true, 0, 1, &c->eps, err));
    if (c->family == FAMILY_LLAMA && c->window) c->family = FAMILY_MISTRAL;
    return read_gist_positions(s, c, err);
}

gist_status llama_config_gguf(llama_config *out, const gguf_file *g, gist_error *err) {
    llama_config c = { .theta = 10000.0f };
    source s = { .g = g };
    char shape[64];
    TRY(find_family(&s, &c, err));
    if (llama_families[c.family].encoder) {
        TRY(t5_config_gguf(&c, g, err));
    } else {
        TRY(read_sizes(&s, &c, err));
        TRY(llama_config_check(&c, "GGUF metadata", err));
        TRY(refuse_others(&s, &c, err));
        TRY(read_scaling(&s, &c, err));
        TRY(read_factors(&c, g, err));
    }
    const tensor_view *embed = gguf_find(g, llama_weights[0].gguf);
    if (!embed) return err_set(err, GIST_ERR_FORMAT, "tensor %s is missing", llama_weights[0].gguf);
    if (embed->dims != 2 || embed->shape[0] > LLAMA_MAX_VOCAB)
        return err_set(err, GIST_ERR_FORMAT, "%s is %s, expected at most %d rows of %d", embed->name,
                       tensor_shape_text(embed, shape), LLAMA_MAX_VOCAB, c.C);
    c.V = (int)embed->shape[0];
    if (c.start >= c.V)
        return err_set(err, GIST_ERR_FORMAT, "t5.decoder_start_token_id is %d, the vocabulary has %d", c.start, c.V);
    c.tied = !gguf_find(g, llama_weights[llama_weight_rows - 1].gguf);
    *out = c;
    return GIST_OK;
}

/* ---- rows ---- */

void llama_unpair_rows(void *dst, const void *src, size_t row_bytes, int heads, int D) {
    for (int h = 0; h < heads; h++)
        for (int i = 0; i < D; i++) {
            size_t head = (size_t)h * (size_t)D, to = head + (size_t)(i % 2 * (D / 2) + i / 2);
            memcpy((uint8_t *)dst + to * row_bytes, (const uint8_t *)src + (head + (size_t)i) * row_bytes, row_bytes);
        }
}
