/* llama_config.c - config.json of the LLaMA family.
 *
 * Every key that changes what the model computes is read or refused by name; keys that only describe (dtype, versions,
 * dropout, token ids) are left to others.  Source: transformers' LlamaConfig; LLaMA (Touvron et al. 2023) and LLaMA 3
 * (2024) for the defaults' meaning.
 */
#include "model/model.h"

#define WHAT what, err

static gist_status unsupported(gist_error *err, const char *what, const char *key, const char *why) {
    return err_set(err, GIST_ERR_UNSUPPORTED, "%s: %s: %s", what, key, why);
}

static gist_status refuse_true(const json_t *json, const char *key, const char *what, gist_error *err) {
    bool on = false;
    TRY(json_get_bool(json, key, false, &on, WHAT));
    return on ? unsupported(err, what, key, "biases are not supported for llama models") : GIST_OK;
}

static gist_status refuse_partial(const json_t *json, const char *what, gist_error *err) {
    float partial = 1;
    TRY(json_get_float(json, "partial_rotary_factor", false, 0, 1, &partial, WHAT));
    return partial < 1 ? unsupported(err, what, "partial_rotary_factor", "only whole heads are rotated") : GIST_OK;
}

/* rope_theta at the top (transformers 4) or inside rope_parameters (5); scaled variants are refused. */
static gist_status read_rope(llama_config *c, const json_t *json, const char *what, gist_error *err) {
    TRY(json_get_float(json, "rope_theta", false, 1, 1e12, &c->theta, WHAT));
    TRY(refuse_partial(json, WHAT));
    static const char *const holders[] = { "rope_parameters", "rope_scaling" };
    for (int i = 0; i < 2; i++) {
        const json_t *rope = json_object_get(json, holders[i]);
        if (!rope || json_is_null(rope)) continue;
        if (!json_is_object(rope)) return err_set(err, GIST_ERR_FORMAT, "%s: %s is not an object", what, holders[i]);
        const char *type = "default", *old = NULL;
        TRY(json_get_string(rope, "type", false, &old, WHAT));
        if (old) type = old;
        TRY(json_get_string(rope, "rope_type", false, &type, WHAT));
        if (strcmp(type, "default") != 0)
            return err_set(err, GIST_ERR_UNSUPPORTED, "%s: rotary scaling of type \"%.40s\" is not supported", what,
                           type);
        TRY(json_get_float(rope, "rope_theta", false, 1, 1e12, &c->theta, WHAT));
        TRY(refuse_partial(rope, WHAT));
    }
    return GIST_OK;
}

static gist_status check_architecture(const json_t *json, const char *what, gist_error *err) {
    const char *type = NULL, *act = "silu", *arch = NULL;
    TRY(json_get_string(json, "model_type", false, &type, WHAT));
    const json_t *list = json_object_get(json, "architectures");
    if (json_is_array(list) && json_array_size(list) > 0) arch = json_string_value(json_array_get(list, 0));
    if (!type && !arch) return err_set(err, GIST_ERR_FORMAT, "%s: neither model_type nor architectures is given", what);
    if (type && strcmp(type, "llama") != 0)
        return err_set(err, GIST_ERR_UNSUPPORTED, "%s: model_type \"%.40s\" is not supported (supported: llama)", what,
                       type);
    if (arch && strcmp(arch, "LlamaForCausalLM") != 0)
        return err_set(err, GIST_ERR_UNSUPPORTED,
                       "%s: architecture %.60s is not supported (supported: LlamaForCausalLM)", what, arch);
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

gist_status llama_config_parse(llama_config *out, const json_t *json, const char *what, gist_error *err) {
    llama_config c = { .context = 2048, .eps = 1e-6f, .theta = 10000.0f };
    if (!json_is_object(json)) return err_set(err, GIST_ERR_FORMAT, "%s: not a JSON object", what);
    TRY(check_architecture(json, WHAT));
    TRY(json_get_int(json, "num_hidden_layers", true, 1, LLAMA_MAX_LAYERS, &c.L, WHAT));
    TRY(json_get_int(json, "hidden_size", true, 1, LLAMA_MAX_WIDTH, &c.C, WHAT));
    TRY(json_get_int(json, "intermediate_size", true, 1, 1 << 20, &c.F, WHAT));
    TRY(json_get_int(json, "num_attention_heads", true, 1, 4096, &c.H, WHAT));
    c.G = c.H;
    TRY(json_get_int(json, "num_key_value_heads", false, 1, GFILE_MAX_HEADS, &c.G, WHAT));
    c.D = c.C / c.H;
    TRY(json_get_int(json, "head_dim", false, 2, GFILE_MAX_WIDTH, &c.D, WHAT));
    TRY(json_get_int(json, "vocab_size", true, 1, LLAMA_MAX_VOCAB, &c.V, WHAT));
    TRY(json_get_int(json, "max_position_embeddings", false, 1, LLAMA_MAX_CONTEXT, &c.context, WHAT));
    TRY(json_get_float(json, "rms_norm_eps", false, 0, 1, &c.eps, WHAT));
    TRY(json_get_bool(json, "tie_word_embeddings", false, &c.tied, WHAT));
    TRY(read_rope(&c, json, WHAT));
    if (c.H % c.G != 0)
        return err_set(err, GIST_ERR_FORMAT, "%s: %d query heads cannot share %d key/value heads", what, c.H, c.G);
    if (c.D < 2 || c.D % 2 != 0)
        return err_set(err, GIST_ERR_UNSUPPORTED, "%s: head_dim %d: rotary positions need an even width", what, c.D);
    if (c.D > GFILE_MAX_WIDTH || c.G > GFILE_MAX_HEADS)
        return err_set(err, GIST_ERR_LIMIT,
                       "%s: %d key/value heads of %d are more than the %d of %d that a gist may hold", what, c.G, c.D,
                       GFILE_MAX_HEADS, GFILE_MAX_WIDTH);
    if ((int64_t)c.H * c.D > LLAMA_MAX_WIDTH)
        return err_set(err, GIST_ERR_LIMIT, "%s: %d heads of %d are more than %d wide", what, c.H, c.D,
                       LLAMA_MAX_WIDTH);
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
    hash_str(h, "llama");
    for (size_t i = 0; i < sizeof field / sizeof *field; i++) hash_u64(h, field[i]);
}
