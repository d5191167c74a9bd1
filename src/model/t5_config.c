/* t5_config.c - config.json and GGUF metadata of T5: v1.0 (relu, tied head) and v1.1, which FLAN-T5 is (gated gelu).
 *
 *   layers       num_layers of the encoder, num_decoder_layers (absent: as many) of the decoder
 *   positions    a bias by distance in every layer of a stack, one table per stack; n_positions bounds the context
 *   head         its own matrix where the checkpoint has lm_head.weight; a config that ties it scales rows by C^-0.5
 *
 * Source: Raffel et al. 2020; transformers' T5Config; the keys that llama.cpp's converter writes for `t5`.
 */
#include "model/model.h"

enum { MAX_CONTEXT = 1 << 14, MAX_BUCKETS = 1024 };

static gist_status check(const llama_config *c, const char *what, gist_error *err) {
    if (c->near.buckets % 2 || c->near.most <= c->near.buckets / 2)
        return err_set(err, GIST_ERR_FORMAT, "%s: %d buckets for distances up to %d", what, c->near.buckets,
                       c->near.most);
    return llama_config_check(c, what, err);
}

static gist_status read_activation(llama_config *c, const json_t *json, const char *what, gist_error *err) {
    const char *name = "relu";
    TRY(json_get_string(json, "feed_forward_proj", false, &name, what, err));
    c->gated = strcmp(name, "gated-gelu") == 0;
    if (c->gated || strcmp(name, "relu") == 0) return GIST_OK;
    return err_set(err, GIST_ERR_UNSUPPORTED,
                   "%s: feed_forward_proj \"%.40s\" is not supported (supported: relu, gated-gelu)", what, name);
}

gist_status t5_config_parse(llama_config *out, const json_t *json, const char *what, gist_error *err) {
    llama_config c = { .family = out->family, .context = 512, .eps = 1e-6f, .near = { 32, 128, true }, .tied = true };
    const json_t *quantized = json_object_get(json, "quantization_config");
    int start = 0;
    if (quantized && !json_is_null(quantized))
        return err_set(err, GIST_ERR_UNSUPPORTED, "%s: quantization_config: quantized safetensors are not supported",
                       what);
    TRY(read_activation(&c, json, what, err));
    TRY(json_get_int(json, "num_layers", true, 1, LLAMA_MAX_LAYERS, &c.encoder, what, err));
    c.L = c.encoder;
    if (!json_is_null(json_object_get(json, "num_decoder_layers")))
        TRY(json_get_int(json, "num_decoder_layers", false, 1, LLAMA_MAX_LAYERS, &c.L, what, err));
    TRY(json_get_int(json, "d_model", true, 1, LLAMA_MAX_WIDTH, &c.C, what, err));
    TRY(json_get_int(json, "d_ff", true, 1, 1 << 20, &c.F, what, err));
    TRY(json_get_int(json, "num_heads", true, 1, GFILE_MAX_HEADS, &c.H, what, err));
    TRY(json_get_int(json, "d_kv", true, 2, GFILE_MAX_WIDTH, &c.D, what, err));
    TRY(json_get_int(json, "vocab_size", true, 1, LLAMA_MAX_VOCAB, &c.V, what, err));
    TRY(json_get_int(json, "n_positions", false, 1, MAX_CONTEXT, &c.context, what, err));
    TRY(json_get_float(json, "layer_norm_epsilon", false, 0, 1, &c.eps, what, err));
    TRY(json_get_int(json, "relative_attention_num_buckets", false, 4, MAX_BUCKETS, &c.near.buckets, what, err));
    TRY(json_get_int(json, "relative_attention_max_distance", false, 2, 1 << 20, &c.near.most, what, err));
    TRY(json_get_bool(json, "tie_word_embeddings", false, &c.tied, what, err));
    c.scaled_head = c.tied;
    TRY(json_get_bool(json, "scale_decoder_outputs", false, &c.scaled_head, what, err));
    TRY(json_get_int(json, "pad_token_id", false, 0, c.V - 1, &start, what, err));
    TRY(json_get_int(json, "decoder_start_token_id", false, 0, c.V - 1, &start, what, err));
    c.start = start;
    c.G = c.H;
    TRY(check(&c, what, err));
    *out = c;
    return GIST_OK;
}

int t5_set_shape(json_t *j, const llama_config *c) {
    char eps[32];
    snprintf(eps, sizeof eps, "%.9g", (double)c->eps);
    json_t *part = json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:i, s:i, s:s, s:b, s:i, s:b}", "num_layers",
                             c->encoder, "num_decoder_layers", c->L, "d_model", c->C, "d_ff", c->F, "num_heads", c->H,
                             "d_kv", c->D, "n_positions", c->context, "layer_norm_epsilon", strtod(eps, NULL),
                             "relative_attention_num_buckets", c->near.buckets, "relative_attention_max_distance",
                             c->near.most, "feed_forward_proj", c->gated ? "gated-gelu" : "relu", "is_encoder_decoder",
                             1, "decoder_start_token_id", (int)c->start, "scale_decoder_outputs", (int)c->scaled_head);
    int bad = part ? json_object_update(j, part) : -1;
    json_decref(part);
    return bad;
}

void t5_settle_head(llama_config *c, const weights *w) {
    if (c->encoder && !w->gguf) c->tied = !weights_find(w, "lm_head.weight");
}

/* ---- GGUF ---- */

#define T5_ENCODER_GATE "enc.blk.0.ffn_gate.weight"

gist_status t5_config_gguf(llama_config *out, const gguf_file *g, gist_error *err) {
    llama_config c = { .family = out->family, .near = { 32, 128, true } };
    int start = 0, value;
    TRY(gguf_get_int(g, "t5.block_count", true, 1, LLAMA_MAX_LAYERS, &c.encoder, err));
    c.L = c.encoder;
    TRY(gguf_get_int(g, "t5.decoder_block_count", false, 1, LLAMA_MAX_LAYERS, &c.L, err));
    TRY(gguf_get_int(g, "t5.embedding_length", true, 1, LLAMA_MAX_WIDTH, &c.C, err));
    TRY(gguf_get_int(g, "t5.feed_forward_length", true, 1, 1 << 20, &c.F, err));
    TRY(gguf_get_int(g, "t5.attention.head_count", true, 1, GFILE_MAX_HEADS, &c.H, err));
    TRY(gguf_get_int(g, "t5.attention.key_length", true, 2, GFILE_MAX_WIDTH, &c.D, err));
    value = c.D;
    TRY(gguf_get_int(g, "t5.attention.value_length", false, 2, GFILE_MAX_WIDTH, &value, err));
    if (value != c.D)
        return err_set(err, GIST_ERR_UNSUPPORTED,
                       "t5.attention.value_length is %d: values are as wide as keys, here %d", value, c.D);
    TRY(gguf_get_int(g, "t5.context_length", true, 1, MAX_CONTEXT, &c.context, err));
    TRY(gguf_get_float(g, "t5.attention.layer_norm_rms_epsilon", true, 0, 1, &c.eps, err));
    TRY(gguf_get_int(g, "t5.attention.relative_buckets_count", true, 4, MAX_BUCKETS, &c.near.buckets, err));
    TRY(gguf_get_int(g, "gist.relative_max_distance", false, 2, 1 << 20, &c.near.most, err));
    TRY(gguf_get_int(g, "t5.decoder_start_token_id", false, 0, LLAMA_MAX_VOCAB - 1, &start, err));
    c.gated = gguf_find(g, T5_ENCODER_GATE);
    c.scaled_head = !gguf_find(g, t5_weights[t5_weight_rows - 1].gguf);
    TRY(gguf_get_bool(g, "gist.scaled_head", false, &c.scaled_head, err));
    c.start = start;
    c.G = c.H;
    TRY(check(&c, "GGUF metadata", err));
    *out = c;
    return GIST_OK;
}

void t5_add_keys(gguf_writer *w, const llama_config *c) {
    const struct {
        const char *key;
        int value;
    } sizes[] = { { "t5.context_length", c->context },      { "t5.embedding_length", c->C },
                  { "t5.feed_forward_length", c->F },       { "t5.block_count", c->encoder },
                  { "t5.decoder_block_count", c->L },       { "t5.vocab_size", c->V },
                  { "t5.attention.head_count", c->H },      { "t5.attention.key_length", c->D },
                  { "t5.attention.value_length", c->D },    { "t5.attention.relative_buckets_count", c->near.buckets },
                  { "t5.decoder_start_token_id", c->start } };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) gguf_add_int(w, sizes[i].key, GGUF_U32, sizes[i].value);
    gguf_add_float(w, "t5.attention.layer_norm_epsilon", c->eps);
    gguf_add_float(w, "t5.attention.layer_norm_rms_epsilon", c->eps);
    if (c->near.most != 128) gguf_add_int(w, "gist.relative_max_distance", GGUF_U32, c->near.most);
    if (c->scaled_head != c->tied) gguf_add_bool(w, "gist.scaled_head", c->scaled_head);
}
