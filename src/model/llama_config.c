/* llama_config.c - config.json of the LLaMA family: LLaMA, Mistral, Qwen2, Qwen3.
 *
 * Every key that changes what the model computes is read or refused by name; keys that only describe (dtype, versions,
 * dropout, token ids) are left to others.  An absent key has transformers' default; where that is not what published
 * models have, the key must be there.  Source: transformers' LlamaConfig, MistralConfig, Qwen2Config,
 * Qwen3Config; LLaMA (Touvron et al. 2023) and LLaMA 3 (2024) for the meaning of keys.
 */
#include "model/model.h"

#define WHAT what, err

const llama_family_facts llama_families[FAMILIES] = {
    [FAMILY_LLAMA] = { "llama", "LlamaForCausalLM", "llama", .gguf_pairs = true },
    [FAMILY_MISTRAL] = { "mistral", "MistralForCausalLM", "llama", .gguf_pairs = true },
    [FAMILY_QWEN2] = { "qwen2", "Qwen2ForCausalLM", "qwen2", .bias = true },
    [FAMILY_QWEN3] = { "qwen3", "Qwen3ForCausalLM", "qwen3", .head_norm = true },
    [FAMILY_T5] = { "t5", "T5ForConditionalGeneration", "t5", .encoder = true },
};

static gist_status unsupported(gist_error *err, const char *what, const char *key, const char *why) {
    return err_set(err, GIST_ERR_UNSUPPORTED, "%s: %s: %s", what, key, why);
}

static gist_status refuse_true(const json_t *json, const char *key, const char *what, gist_error *err) {
    bool on = false;
    TRY(json_get_bool(json, key, false, &on, WHAT));
    return on ? unsupported(err, what, key, "biases other than Qwen2's of q, k and v are not supported") : GIST_OK;
}

/* ---- rotary positions ---- */

static gist_status refuse_partial(const json_t *json, const char *what, gist_error *err) {
    float partial = 1;
    TRY(json_get_float(json, "partial_rotary_factor", false, 0, 1, &partial, WHAT));
    return partial < 1 ? unsupported(err, what, "partial_rotary_factor", "only whole heads are rotated") : GIST_OK;
}

static gist_status read_scaling(llama_rope *out, const json_t *rope, const char *what, gist_error *err) {
    llama_rope r = { .kind = ROPE_PLAIN };
    const char *type = llama_rope_name(ROPE_PLAIN), *old = NULL;
    TRY(json_get_string(rope, "type", false, &old, WHAT));
    if (old) type = old;
    TRY(json_get_string(rope, "rope_type", false, &type, WHAT));
    while (r.kind < ROPE_KINDS && strcmp(type, llama_rope_name(r.kind)) != 0) r.kind++;
    if (r.kind == ROPE_KINDS)
        return err_set(err, GIST_ERR_UNSUPPORTED,
                       "%s: rotary scaling of type \"%.40s\" is not supported (supported: linear, llama3)", what, type);
    if (r.kind != ROPE_PLAIN) TRY(json_get_float(rope, "factor", true, 1, 1e6, &r.factor, WHAT));
    if (r.kind == ROPE_LLAMA3) {
        TRY(json_get_float(rope, "low_freq_factor", true, 1e-6, 1e6, &r.low, WHAT));
        TRY(json_get_float(rope, "high_freq_factor", true, 1e-6, 1e6, &r.high, WHAT));
        TRY(json_get_int(rope, "original_max_position_embeddings", true, 1, LLAMA_MAX_CONTEXT, &r.original, WHAT));
        if (r.low >= r.high)
            return err_set(err, GIST_ERR_FORMAT, "%s: low_freq_factor %g is not below high_freq_factor %g", what,
                           (double)r.low, (double)r.high);
    }
    *out = r;
    return GIST_OK;
}

/* rope_theta at the top and rope_scaling (transformers 4), or both inside rope_parameters (5). */
static gist_status read_rope(llama_config *c, const json_t *json, const char *what, gist_error *err) {
    TRY(json_get_float(json, "rope_theta", false, 1, 1e12, &c->theta, WHAT));
    TRY(refuse_partial(json, WHAT));
    static const char *const holders[] = { "rope_parameters", "rope_scaling" };
    for (int i = 0; i < 2; i++) {
        const json_t *rope = json_object_get(json, holders[i]);
        if (!rope || json_is_null(rope)) continue;
        if (!json_is_object(rope)) return err_set(err, GIST_ERR_FORMAT, "%s: %s is not an object", what, holders[i]);
        TRY(read_scaling(&c->rope, rope, WHAT));
        TRY(json_get_float(rope, "rope_theta", false, 1, 1e12, &c->theta, WHAT));
        TRY(refuse_partial(rope, WHAT));
    }
    return GIST_OK;
}

/* ---- sliding windows ---- */

/* Qwen: how many of the layers slide, by layer_types, or from max_window_layers on. */
static gist_status sliding_layers(const llama_config *c, const json_t *json, int *n, const char *what,
                                  gist_error *err) {
    const json_t *types = json_object_get(json, "layer_types");
    int full = 28;
    TRY(json_get_int(json, "max_window_layers", false, 0, INT32_MAX, &full, WHAT));
    *n = full < c->L ? c->L - full : 0;
    if (!types || json_is_null(types)) return GIST_OK;
    if (!json_is_array(types) || json_array_size(types) != (size_t)c->L)
        return err_set(err, GIST_ERR_FORMAT, "%s: layer_types is not an array of %d layers", what, c->L);
    *n = 0;
    for (size_t i = 0; i < json_array_size(types); i++) {
        const char *type = json_string_value(json_array_get(types, i));
        bool slides = type && strcmp(type, "sliding_attention") == 0;
        if (!slides && !(type && strcmp(type, "full_attention") == 0))
            return err_set(err, GIST_ERR_UNSUPPORTED, "%s: layer_types: \"%.40s\" is not supported", what,
                           type ? type : "");
        *n += slides;
    }
    return GIST_OK;
}

static gist_status read_window(llama_config *c, const json_t *json, const char *what, gist_error *err) {
    bool uses = c->family == FAMILY_MISTRAL, qwen = c->family == FAMILY_QWEN2 || c->family == FAMILY_QWEN3;
    int window = 4096, sliding = c->L;
    if (!uses && !qwen) return GIST_OK;
    if (json_is_null(json_object_get(json, "sliding_window"))) window = 0;
    TRY(json_get_int(json, "sliding_window", false, 1, INT32_MAX, &window, WHAT));
    if (qwen) TRY(json_get_bool(json, "use_sliding_window", false, &uses, WHAT));
    if (qwen && uses) TRY(sliding_layers(c, json, &sliding, WHAT));
    if (!uses || window == 0 || sliding == 0) return GIST_OK;
    if (sliding < c->L)
        return unsupported(err, what, "use_sliding_window", "a window in some layers and not in others");
    c->window = window;
    return GIST_OK;
}

/* ---- the family ---- */

static gist_status find_family(llama_config *c, const json_t *json, const char *what, gist_error *err) {
    const char *type = NULL, *arch = NULL;
    TRY(json_get_string(json, "model_type", false, &type, WHAT));
    const json_t *list = json_object_get(json, "architectures");
    if (json_is_array(list) && json_array_size(list) > 0) arch = json_string_value(json_array_get(list, 0));
    if (arch && strncmp(arch, "Gist", 4) == 0) arch += 4; /* the paper's class around the same model */
    if (!type && !arch) return err_set(err, GIST_ERR_FORMAT, "%s: neither model_type nor architectures is given", what);
    int f = 0;
    while (f < FAMILIES && strcmp(type ? type : arch, type ? llama_families[f].name : llama_families[f].architecture))
        f++;
    if (f == FAMILIES)
        return err_set(err, GIST_ERR_UNSUPPORTED,
                       "%s: %s \"%.60s\" is not supported (supported: llama, mistral, qwen2, qwen3, t5)", what,
                       type ? "model_type" : "architecture", type ? type : arch);
    if (arch && strcmp(arch, llama_families[f].architecture) != 0)
        return err_set(err, GIST_ERR_UNSUPPORTED, "%s: architecture %.60s is not supported (supported: %s)", what,
                       arch, llama_families[f].architecture);
    c->family = (llama_family)f;
    return GIST_OK;
}

static gist_status check_architecture(const json_t *json, const char *what, gist_error *err) {
    const char *act = "silu";
    TRY(json_get_string(json, "hidden_act", false, &act, WHAT));
    if (strcmp(act, "silu") != 0)
        return err_set(err, GIST_ERR_UNSUPPORTED, "%s: hidden_act \"%.40s\" is not supported (supported: silu)", what,
                       act);
    const json_t *quantized = json_object_get(json, "quantization_config");
    if (quantized && !json_is_null(quantized))
        return unsupported(err, what, "quantization_config", "quantized safetensors are not supported");
    TRY(refuse_true(json, "attention_bias", WHAT));
    return refuse_true(json, "mlp_bias", WHAT);
}

gist_status llama_config_check(const llama_config *c, const char *what, gist_error *err) {
    if (c->H % c->G != 0)
        return err_set(err, GIST_ERR_FORMAT, "%s: %d query heads cannot share %d key/value heads", what, c->H, c->G);
    if (c->D < 2 || c->D % 2 != 0)
        return err_set(err, GIST_ERR_UNSUPPORTED, "%s: head_dim %d: rotary positions need an even width", what, c->D);
    if (c->D > GFILE_MAX_WIDTH || c->G > GFILE_MAX_HEADS)
        return err_set(err, GIST_ERR_LIMIT,
                       "%s: %d key/value heads of %d are more than the %d of %d that a gist may hold", what, c->G, c->D,
                       GFILE_MAX_HEADS, GFILE_MAX_WIDTH);
    if ((int64_t)c->H * c->D > LLAMA_MAX_WIDTH)
        return err_set(err, GIST_ERR_LIMIT, "%s: %d heads of %d are more than %d wide", what, c->H, c->D,
                       LLAMA_MAX_WIDTH);
    if (c->window && c->gist_spread)
        return err_set(err, GIST_ERR_UNSUPPORTED, "%s: gist tokens spread over the prompt and a sliding window", what);
    return GIST_OK;
}

/* Our own key; models without it put gist tokens behind the prompt. */
static gist_status read_gist_positions(llama_config *c, const json_t *json, const char *what, gist_error *err) {
    const char *name = "end";
    TRY(json_get_string(json, "gist_positions", false, &name, WHAT));
    c->gist_spread = strcmp(name, "spread") == 0;
    if (c->gist_spread || strcmp(name, "end") == 0) return GIST_OK;
    return unsupported(err, what, "gist_positions", "positions other than \"end\" and \"spread\"");
}

int llama_gist_position(bool spread, int p, int j) {
    if (!spread) return p + j;
    if (j == 0) return p;
    int64_t at = 0, step = (int64_t)1 << 31; /* of 2^32 */
    for (int bits = j; bits; bits >>= 1, step >>= 1)
        if (bits & 1) at += step;
    return (int)((int64_t)p * at >> 32);
}

gist_status llama_config_parse(llama_config *out, const json_t *json, const char *what, gist_error *err) {
    llama_config c = { .context = 2048, .eps = 1e-6f, .theta = 10000.0f };
    if (!json_is_object(json)) return err_set(err, GIST_ERR_FORMAT, "%s: not a JSON object", what);
    TRY(find_family(&c, json, WHAT));
    if (llama_families[c.family].encoder) {
        TRY(t5_config_parse(&c, json, WHAT));
        *out = c;
        return GIST_OK;
    }
    TRY(check_architecture(json, WHAT));
    bool llama = c.family == FAMILY_LLAMA; /* whose early files leave out what they have by default */
    TRY(json_get_int(json, "num_hidden_layers", true, 1, LLAMA_MAX_LAYERS, &c.L, WHAT));
    TRY(json_get_int(json, "hidden_size", true, 1, LLAMA_MAX_WIDTH, &c.C, WHAT));
    TRY(json_get_int(json, "intermediate_size", true, 1, 1 << 20, &c.F, WHAT));
    TRY(json_get_int(json, "num_attention_heads", true, 1, 4096, &c.H, WHAT));
    c.G = c.H;
    TRY(json_get_int(json, "num_key_value_heads", !llama, 1, GFILE_MAX_HEADS, &c.G, WHAT));
    c.D = c.family == FAMILY_QWEN3 ? 128 : c.C / c.H;
    TRY(json_get_int(json, "head_dim", false, 2, GFILE_MAX_WIDTH, &c.D, WHAT));
    TRY(json_get_int(json, "vocab_size", true, 1, LLAMA_MAX_VOCAB, &c.V, WHAT));
    TRY(json_get_int(json, "max_position_embeddings", !llama, 1, LLAMA_MAX_CONTEXT, &c.context, WHAT));
    TRY(json_get_float(json, "rms_norm_eps", false, 0, 1, &c.eps, WHAT));
    TRY(json_get_bool(json, "tie_word_embeddings", false, &c.tied, WHAT));
    TRY(read_rope(&c, json, WHAT));
    TRY(read_window(&c, json, WHAT));
    TRY(read_gist_positions(&c, json, WHAT));
    TRY(llama_config_check(&c, WHAT));
    *out = c;
    return GIST_OK;
}

gist_status llama_config_read(llama_config *c, const gist_allocator *alloc, const char *dir, gist_error *err) {
    char *path = path_join(alloc, dir, "config.json");
    if (!path) return err_memory(err, "path");
    json_t *json = NULL;
    gist_status status = json_read_file(path, &json, err);
    if (status == GIST_OK) status = llama_config_parse(c, json, path, err);
    json_decref(json);
    mem_free(alloc, path);
    return status;
}

void llama_config_hash(const llama_config *c, hasher *h) {
    uint32_t eps, theta;
    memcpy(&eps, &c->eps, 4);
    memcpy(&theta, &c->theta, 4);
    const uint64_t field[] = { (uint64_t)c->L,
                               (uint64_t)c->C,
                               (uint64_t)c->F,
                               (uint64_t)c->H,
                               (uint64_t)c->G,
                               (uint64_t)c->D,
                               (uint64_t)c->V,
                               (uint64_t)c->context,
                               eps,
                               theta,
                               c->tied };
    hash_str(h, llama_families[c->family].name);
    for (size_t i = 0; i < sizeof field / sizeof *field; i++) hash_u64(h, field[i]);
    if (c->window) {
        hash_str(h, "window");
        hash_u64(h, (uint64_t)c->window);
    }
    if (c->encoder) {
        hash_u64(h, (uint64_t)c->encoder);
        hash_u64(h, (uint64_t)c->near.buckets);
        hash_u64(h, (uint64_t)c->near.most);
        hash_u64(h, c->gated);
        hash_u64(h, c->scaled_head);
        hash_u64(h, (uint64_t)c->start);
    }
    if (c->gist_spread) hash_str(h, "gist positions spread");
    if (c->rope.kind != ROPE_PLAIN) { /* a model without keeps the fingerprint it had before there was scaling */
        hash_str(h, llama_rope_name(c->rope.kind));
        hash_add(h, &c->rope.factor, sizeof c->rope.factor);
        hash_add(h, &c->rope.low, sizeof c->rope.low);
        hash_add(h, &c->rope.high, sizeof c->rope.high);
        hash_u64(h, (uint64_t)c->rope.original);
    }
}
