/* t5_weights.c - the weight table of T5, and its tables by distance.
 *
 * Loaded, checked, counted, saved and converted by the code that walks every family's table (llama_weights.c).  The
 * bias by distance stands in the first layer of a stack in files and serves them all; v1.0 has no gate, and its `up` is
 * called wi.
 */
#include "model/model.h"

static bool is_gated(const llama_config *c) {
    return c->gated;
}

static bool is_plain(const llama_config *c) {
    return !c->gated;
}

#define STACK(encoder, kind, field, gguf, hf, shape, when)                                                             \
    { kind, true, encoder, false, offsetof(llama_layer, field), offsetof(llama_layer_bwd, field), gguf, hf, shape,     \
      when }
#define ENC(kind, field, gguf, hf, shape)                                                                              \
    STACK(true, kind, field, "enc.blk.%d." gguf, "encoder.block.%d.layer." hf, shape, NULL)
#define DEC(kind, field, gguf, hf, shape)                                                                              \
    STACK(false, kind, field, "dec.blk.%d." gguf, "decoder.block.%d.layer." hf, shape, NULL)
#define ENC_IF(when, field, gguf, hf, shape)                                                                           \
    STACK(true, WEIGHT_MATRIX, field, "enc.blk.%d." gguf, "encoder.block.%d.layer." hf, shape, when)
#define DEC_IF(when, field, gguf, hf, shape)                                                                           \
    STACK(false, WEIGHT_MATRIX, field, "dec.blk.%d." gguf, "decoder.block.%d.layer." hf, shape, when)
#define MODEL(kind, field, gguf, hf, shape)                                                                            \
    { kind, false, false, false, offsetof(llama_model, field), offsetof(llama_bwd, field), gguf, hf, shape, NULL }

const weight_row t5_weights[] = {
    MODEL(WEIGHT_EMBED, embed, "token_embd.weight", "shared.weight", "VC"),
    ENC(WEIGHT_VECTOR, attn_norm, "attn_norm.weight", "0.layer_norm.weight", "C"),
    ENC(WEIGHT_MATRIX, wq, "attn_q.weight", "0.SelfAttention.q.weight", "qC"),
    ENC(WEIGHT_MATRIX, wk, "attn_k.weight", "0.SelfAttention.k.weight", "kC"),
    ENC(WEIGHT_MATRIX, wv, "attn_v.weight", "0.SelfAttention.v.weight", "kC"),
    ENC(WEIGHT_MATRIX, wo, "attn_o.weight", "0.SelfAttention.o.weight", "Cq"),
    MODEL(WEIGHT_VECTOR, encoder_near_table, "enc.blk.0.attn_rel_b.weight",
          "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", "bH"),
    ENC(WEIGHT_VECTOR, ffn_norm, "ffn_norm.weight", "1.layer_norm.weight", "C"),
    ENC_IF(is_gated, gate, "ffn_gate.weight", "1.DenseReluDense.wi_0.weight", "FC"),
    ENC_IF(is_gated, up, "ffn_up.weight", "1.DenseReluDense.wi_1.weight", "FC"),
    ENC_IF(is_plain, up, "ffn_up.weight", "1.DenseReluDense.wi.weight", "FC"),
    ENC(WEIGHT_MATRIX, down, "ffn_down.weight", "1.DenseReluDense.wo.weight", "CF"),
    MODEL(WEIGHT_VECTOR, encoder_norm, "enc.output_norm.weight", "encoder.final_layer_norm.weight", "C"),
    DEC(WEIGHT_VECTOR, attn_norm, "attn_norm.weight", "0.layer_norm.weight", "C"),
    DEC(WEIGHT_MATRIX, wq, "attn_q.weight", "0.SelfAttention.q.weight", "qC"),
    DEC(WEIGHT_MATRIX, wk, "attn_k.weight", "0.SelfAttention.k.weight", "kC"),
    DEC(WEIGHT_MATRIX, wv, "attn_v.weight", "0.SelfAttention.v.weight", "kC"),
    DEC(WEIGHT_MATRIX, wo, "attn_o.weight", "0.SelfAttention.o.weight", "Cq"),
    MODEL(WEIGHT_VECTOR, near_table, "dec.blk.0.attn_rel_b.weight",
          "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", "bH"),
    DEC(WEIGHT_VECTOR, cross_norm, "cross_attn_norm.weight", "1.layer_norm.weight", "C"),
    DEC(WEIGHT_MATRIX, cq, "cross_attn_q.weight", "1.EncDecAttention.q.weight", "qC"),
    DEC(WEIGHT_MATRIX, ck, "cross_attn_k.weight", "1.EncDecAttention.k.weight", "kC"),
    DEC(WEIGHT_MATRIX, cv, "cross_attn_v.weight", "1.EncDecAttention.v.weight", "kC"),
    DEC(WEIGHT_MATRIX, co, "cross_attn_o.weight", "1.EncDecAttention.o.weight", "Cq"),
    DEC(WEIGHT_VECTOR, ffn_norm, "ffn_norm.weight", "2.layer_norm.weight", "C"),
    DEC_IF(is_gated, gate, "ffn_gate.weight", "2.DenseReluDense.wi_0.weight", "FC"),
    DEC_IF(is_gated, up, "ffn_up.weight", "2.DenseReluDense.wi_1.weight", "FC"),
    DEC_IF(is_plain, up, "ffn_up.weight", "2.DenseReluDense.wi.weight", "FC"),
    DEC(WEIGHT_MATRIX, down, "ffn_down.weight", "2.DenseReluDense.wo.weight", "CF"),
    MODEL(WEIGHT_VECTOR, final_norm, "dec.output_norm.weight", "decoder.final_layer_norm.weight", "C"),
    MODEL(WEIGHT_MATRIX, head, "output.weight", "lm_head.weight", "VC"),
};
const int t5_weight_rows = sizeof t5_weights / sizeof *t5_weights;

void t5_take_near(llama_model *m, arena *ar) {
    size_t all = (size_t)m->cfg.H * (2 * (size_t)m->cfg.context + 1);
    m->near = (op_distance){ m->cfg.context, arena_take(ar, all, sizeof(float)) };
    m->encoder_near = (op_distance){ m->cfg.context, arena_take(ar, all, sizeof(float)) };
}

void t5_fill_near(llama_model *m) {
    op_buckets past = m->cfg.near, both = m->cfg.near;
    past.both = false; /* a decoder's row sees no later one */
    op_distance_fwd(&m->near, m->near_table, &past, m->cfg.H);
    op_distance_fwd(&m->encoder_near, m->encoder_near_table, &both, m->cfg.H);
}
