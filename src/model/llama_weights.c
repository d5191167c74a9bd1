/* llama_weights.c - the weight table of the LLaMA family, and loading by it.
 *
 *   file map --view--> shape check --pack (parallel)--> one block of panels
 *            --forget the pages just read: resident memory stays near the size of the weights
 *
 * Vectors become f32.  The embedding stays in the file's map: a few rows are read per call.  GGUF files of some
 * families hold the rows of wq and wk in another order (llama_unpair_rows): they are put right on their way.
 */
#include <inttypes.h>
#include <math.h>

#include "model/model.h"

static bool has_bias(const llama_config *c) {
    return llama_families[c->family].bias;
}

static bool has_head_norm(const llama_config *c) {
    return llama_families[c->family].head_norm;
}

#define IN_LAYER(kind, field, gguf, hf, shape, pairs, when) \
    { kind, true, false, pairs, offsetof(llama_layer, field), offsetof(llama_layer_bwd, field), \
      "blk.%d." gguf, "model.layers.%d." hf, shape, when }
#define LAYER(kind, field, gguf, hf, shape) IN_LAYER(kind, field, gguf, hf, shape, false, NULL)
#define PAIRS(field, gguf, hf, shape) IN_LAYER(WEIGHT_MATRIX, field, gguf, hf, shape, true, NULL)
#define SOME(when, field, gguf, hf, shape) IN_LAYER(WEIGHT_VECTOR, field, gguf, hf, shape, false, when)
#define MODEL(kind, field, gguf, hf, shape) \
    { kind, false, false, false, offsetof(llama_model, field), offsetof(llama_bwd, field), gguf, hf, shape, NULL }

const weight_row llama_weights[] = {
    MODEL(WEIGHT_EMBED, embed, "token_embd.weight", "model.embed_tokens.weight", "VC"),
    LAYER(WEIGHT_VECTOR, attn_norm, "attn_norm.weight", "input_layernorm.weight", "C"),
    PAIRS(wq, "attn_q.weight", "self_attn.q_proj.weight", "qC"),
    SOME(has_bias, bq, "attn_q.bias", "self_attn.q_proj.bias", "q"),
    SOME(has_head_norm, q_norm, "attn_q_norm.weight", "self_attn.q_norm.weight", "D"),
    PAIRS(wk, "attn_k.weight", "self_attn.k_proj.weight", "kC"),
    SOME(has_bias, bk, "attn_k.bias", "self_attn.k_proj.bias", "k"),
    SOME(has_head_norm, k_norm, "attn_k_norm.weight", "self_attn.k_norm.weight", "D"),
    LAYER(WEIGHT_MATRIX, wv, "attn_v.weight", "self_attn.v_proj.weight", "kC"),
    SOME(has_bias, bv, "attn_v.bias", "self_attn.v_proj.bias", "k"),
    LAYER(WEIGHT_MATRIX, wo, "attn_output.weight", "self_attn.o_proj.weight", "Cq"),
    LAYER(WEIGHT_VECTOR, ffn_norm, "ffn_norm.weight", "post_attention_layernorm.weight", "C"),
    LAYER(WEIGHT_MATRIX, gate, "ffn_gate.weight", "mlp.gate_proj.weight", "FC"),
    LAYER(WEIGHT_MATRIX, up, "ffn_up.weight", "mlp.up_proj.weight", "FC"),
    LAYER(WEIGHT_MATRIX, down, "ffn_down.weight", "mlp.down_proj.weight", "CF"),
    MODEL(WEIGHT_VECTOR, final_norm, "output_norm.weight", "model.norm.weight", "C"),
    MODEL(WEIGHT_MATRIX, head, "output.weight", "lm_head.weight", "VC"),
};
const int llama_weight_rows = sizeof llama_weights / sizeof *llama_weights;

const weight_row *llama_table(const llama_config *c, int *n) {
    bool t5 = llama_families[c->family].encoder;
    *n = t5 ? t5_weight_rows : llama_weight_rows;
    return t5 ? t5_weights : llama_weights;
}

int llama_row_layers(const llama_config *c, const weight_row *r) {
    return !r->per_layer ? 1 : r->encoder ? c->encoder : c->L;
}

void *llama_row_field(llama_model *m, const weight_row *r, int layer) {
    llama_layer *layers = r->encoder ? m->encoder : m->layers;
    return (r->per_layer ? (uint8_t *)&layers[layer] : (uint8_t *)m) + r->offset;
}

int llama_dim(const llama_config *c, char letter) {
    switch (letter) {
    case 'V': return c->V;
    case 'C': return c->C;
    case 'F': return c->F;
    case 'q': return c->H * c->D;
    case 'k': return c->G * c->D;
    case 'D': return c->D;
    case 'H': return c->H;
    case 'b': return c->near.buckets;
    default: return 1;
    }
}

static bool is_head(const weight_row *r) {
    return !r->per_layer && r->kind == WEIGHT_MATRIX;
}

bool llama_uses_row(const llama_config *c, const weight_row *r) {
    return !r->when || r->when(c);
}

bool llama_has_row(const llama_config *c, const weight_row *r) {
    return llama_uses_row(c, r) && !(c->tied && is_head(r));
}

void llama_row_name(char out[128], const weight_row *r, int layer, bool gguf) {
    snprintf(out, 128, gguf ? r->gguf : r->hf, layer);
}

uint64_t llama_parameters(const llama_config *c) {
    uint64_t n = 0;
    int rows;
    const weight_row *table = llama_table(c, &rows);
    for (int i = 0; i < rows; i++) {
        const weight_row *r = &table[i];
        uint64_t one = (uint64_t)llama_dim(c, r->shape[0]) * (uint64_t)llama_dim(c, r->shape[1]);
        if (llama_has_row(c, r)) n += one * (uint64_t)llama_row_layers(c, r);
    }
    return n;
}

/* ---- finding tensors ---- */

gist_status llama_find_tensor(const weights *w, const llama_config *c, const weight_row *r, int layer,
                              const tensor_view **out, gist_error *err) {
    char name[128], want[64], got[64];
    int n;
    llama_row_name(name, llama_has_row(c, r) ? r : llama_table(c, &n), layer, w->gguf); /* tied: the embedding */
    const tensor_view *t = weights_find(w, name);
    if (!t) return err_set(err, GIST_ERR_FORMAT, "tensor %s is missing", name);
    tensor_view need = { .dims = r->shape[1] ? 2 : 1,
                         .shape = { llama_dim(c, r->shape[0]), llama_dim(c, r->shape[1]), 1, 1 } };
    bool same = t->dims == need.dims;
    for (int d = 0; d < need.dims; d++) same = same && t->shape[d] == need.shape[d];
    if (!same)
        return err_set(err, GIST_ERR_FORMAT, "%s is %s, this model needs %s", name, tensor_shape_text(t, got),
                       tensor_shape_text(&need, want));
    *out = t;
    return GIST_OK;
}

/* The layer in a tensor's name; -1: it is none of this row's. */
static int layer_in(const char *name, const weight_row *r, bool gguf) {
    const char *pattern = gguf ? r->gguf : r->hf, *at = strstr(pattern, "%d");
    int layer = -1;
    if (!at) return 0;
    bool same = strncmp(name, pattern, (size_t)(at - pattern)) == 0;
    return same && sscanf(name + (at - pattern), "%5d", &layer) == 1 ? layer : -1;
}

/* Buffers that are computed again, and T5's other names of the one embedding. */
static bool is_spare(const llama_config *c, const char *name, bool gguf) {
    static const char *const t5[] = { "encoder.embed_tokens.weight", "decoder.embed_tokens.weight",
                                      "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight" };
    size_t len = strlen(name);
    if (gguf) return strcmp(name, c->encoder ? "dec.blk.0.cross_attn_rel_b.weight" : "rope_freqs.weight") == 0;
    for (size_t i = 0; c->encoder && i < sizeof t5 / sizeof *t5; i++)
        if (strcmp(name, t5[i]) == 0) return true;
    return !c->encoder && len > 9 && strcmp(name + len - 9, ".inv_freq") == 0;
}

bool llama_known_tensor(const llama_config *c, const char *name, bool gguf) {
    int rows;
    const weight_row *table = llama_table(c, &rows);
    for (int i = 0; i < rows; i++) {
        char full[128];
        int layer = layer_in(name, &table[i], gguf);
        if (!llama_uses_row(c, &table[i]) || layer < 0 || layer >= llama_row_layers(c, &table[i])) continue;
        llama_row_name(full, &table[i], layer, gguf);
        if (strcmp(name, full) == 0) return true;
    }
    return is_spare(c, name, gguf);
}

/* ---- loading ---- */

typedef struct loader {
    llama_model *m;
    const weights *w;
    gist_type type;
    bool mixed; /* some matrices are bf16 and some are not */
    op_ctx *ctx;
    arena ar; /* counts first, then hands out the block */
} loader;

/* Matrices that share an input must multiply the same operand: where bf16 and wider ones meet, bf16 widens (exactly).
 * */
static dtype packed_type(const loader *ld, dtype stored) {
    for (int t = 0; t < DT_COUNT; t++)
        if (dt_public((dtype)t) == ld->type) return (dtype)t;
    return ld->mixed && stored == DT_BF16 ? DT_F32 : stored;
}

/* The rows of wq or wk in their order: *out is t's data, or *block, a copy. */
static gist_status rows_in_order(const loader *ld, const weight_row *r, const tensor_view *t, const void **out,
                                 void **block, gist_error *err) {
    const llama_config *c = &ld->m->cfg;
    *block = NULL;
    *out = t->data;
    if (!ld->w->gguf || !r->pairs || !llama_families[c->family].gguf_pairs) return GIST_OK;
    *out = *block = mem_alloc(ld->m->alloc, t->bytes, 1);
    if (!*block) return err_memory(err, t->name);
    llama_unpair_rows(*block, t->data, dt_bytes(t->type, (size_t)t->shape[1]), (int)t->shape[0] / c->D, c->D);
    return GIST_OK;
}

static gist_status load_matrix(loader *ld, op_weight *W, const weight_row *r, const tensor_view *t, int N,
                               gist_error *err) {
    dtype type = packed_type(ld, t->type);
    const void *rows;
    void *block;
    if ((size_t)t->shape[1] % dt_block(type))
        return err_set(err, GIST_ERR_UNSUPPORTED, "%s has rows of %d, which are not whole blocks of %s (%zu)", t->name,
                       (int)t->shape[1], dt_name(type), dt_block(type));
    *W = (op_weight){ type, N, (int)t->shape[1], NULL };
    W->panels = arena_take(&ld->ar, op_weight_bytes(type, N, W->K), 1);
    if (!W->panels) return GIST_OK; /* the dry run */
    TRY(rows_in_order(ld, r, t, &rows, &block, err));
    op_weight_pack(ld->ctx, W, rows, t->type, (int)t->shape[0]);
    map_forget(weights_map(ld->w, t), t->data, t->bytes);
    mem_free(ld->m->alloc, block);
    return GIST_OK;
}

static void load_vector(loader *ld, float **field, const tensor_view *t) {
    *field = arena_take(&ld->ar, tensor_count(t), sizeof(float));
    if (*field) dt_to_f32(*field, t->data, t->type, tensor_count(t));
}

static gist_status load_rows(loader *ld, gist_error *err) {
    llama_model *m = ld->m;
    int rows;
    const weight_row *table = llama_table(&m->cfg, &rows);
    for (int i = 0; i < rows; i++) {
        const weight_row *r = &table[i];
        for (int layer = 0; llama_uses_row(&m->cfg, r) && layer < llama_row_layers(&m->cfg, r); layer++) {
            const tensor_view *t;
            TRY(llama_find_tensor(ld->w, &m->cfg, r, layer, &t, err));
            void *field = llama_row_field(m, r, layer);
            if (r->kind == WEIGHT_VECTOR) {
                load_vector(ld, field, t);
            } else if (r->kind == WEIGHT_MATRIX) {
                TRY(load_matrix(ld, field, r, t, is_head(r) ? m->vocab : (int)t->shape[0], err));
            } else {
                m->embed = t->data;
                m->embed_type = t->type;
            }
        }
    }
    if (m->cfg.encoder)
        t5_take_near(m, &ld->ar);
    else
        m->freq = arena_take(&ld->ar, (size_t)m->cfg.D / 2, sizeof(float));
    if (m->vocab > m->cfg.V) m->gist_row = arena_take(&ld->ar, (size_t)m->cfg.C, sizeof(float));
    return GIST_OK;
}

/* mean [C] of the V rows of a table: what a new token starts as (gisting.md, "Vocabulary") */
static gist_status mean_row(float *mean, const void *table, dtype type, int V, int C, const gist_allocator *alloc,
                            gist_error *err) {
    double *sum = mem_calloc(alloc, (size_t)C, sizeof *sum);
    float *row = mem_alloc(alloc, (size_t)C, sizeof *row);
    for (int v = 0; sum && row && v < V; v++) {
        dt_to_f32(row, (const uint8_t *)table + dt_bytes(type, (size_t)v * (size_t)C), type, (size_t)C);
        for (int i = 0; i < C; i++) sum[i] += row[i];
    }
    gist_status status = sum && row ? GIST_OK : err_memory(err, "mean embedding");
    for (int i = 0; status == GIST_OK && i < C; i++) mean[i] = (float)(sum[i] / V);
    mem_free(alloc, row);
    mem_free(alloc, sum);
    return status;
}

static gist_status add_gist_row(llama_model *m, const weights *w, gist_error *err) {
    const tensor_view *head;
    int rows;
    const weight_row *table = llama_table(&m->cfg, &rows);
    TRY(mean_row(m->gist_row, m->embed, m->embed_type, m->cfg.V, m->cfg.C, m->alloc, err));
    TRY(llama_find_tensor(w, &m->cfg, &table[rows - 1], 0, &head, err));
    float *row = mem_alloc(m->alloc, (size_t)m->cfg.C, sizeof *row);
    if (!row) return err_memory(err, "mean head row");
    gist_status status = mean_row(row, head->data, head->type, m->cfg.V, m->cfg.C, m->alloc, err);
    if (status == GIST_OK) op_weight_set_row(&m->head, m->cfg.V, row);
    mem_free(m->alloc, row);
    return status;
}

gist_status llama_take_layers(llama_model *m, gist_error *err) {
    m->layers = mem_calloc(m->alloc, (size_t)m->cfg.L, sizeof *m->layers);
    if (m->cfg.encoder) m->encoder = mem_calloc(m->alloc, (size_t)m->cfg.encoder, sizeof *m->encoder);
    return m->layers && (m->encoder || !m->cfg.encoder) ? GIST_OK : err_memory(err, "layers");
}

/* Are some matrices bf16 and some not? */
static bool is_mixed(const loader *ld) {
    const llama_config *c = &ld->m->cfg;
    int rows, bf16 = 0, wider = 0;
    const weight_row *table = llama_table(c, &rows);
    for (int i = 0; i < rows; i++)
        for (int layer = 0; table[i].kind != WEIGHT_VECTOR && layer < llama_row_layers(c, &table[i]); layer++) {
            char name[128];
            llama_row_name(name, &table[i], layer, ld->w->gguf);
            const tensor_view *t = weights_find(ld->w, name);
            bf16 += t && t->type == DT_BF16;
            wider += t && (t->type == DT_F32 || t->type == DT_F16);
        }
    return bf16 && wider;
}

static gist_status load_all(loader *ld, bool add_gist, gist_error *err) {
    llama_model *m = ld->m;
    for (size_t i = 0; i < weights_count(ld->w); i++) {
        const tensor_view *t = weights_at(ld->w, i);
        if (!llama_known_tensor(&m->cfg, t->name, ld->w->gguf))
            return err_set(err, GIST_ERR_UNSUPPORTED, "tensor %.200s is not part of a %s model with %d layers", t->name,
                           llama_families[m->cfg.family].name, m->cfg.L);
    }
    ld->mixed = is_mixed(ld);
    TRY(llama_take_layers(m, err));
    arena_init(&ld->ar, NULL, 0);
    TRY(load_rows(ld, err));
    m->block_bytes = ld->ar.peak;
    m->block = mem_alloc(m->alloc, m->block_bytes, 1);
    if (!m->block)
        return err_set(err, GIST_ERR_MEMORY, "out of memory: %" PRIu64 " MiB of weights",
                       (uint64_t)m->block_bytes >> 20);
    arena_init(&ld->ar, m->block, m->block_bytes);
    TRY(load_rows(ld, err));
    if (m->cfg.encoder)
        t5_fill_near(m);
    else
        llama_frequencies(&m->cfg, m->freq);
    return add_gist ? add_gist_row(m, ld->w, err) : GIST_OK;
}

gist_status llama_load(llama_model *m, const llama_config *cfg, const weights *w, gist_type type, bool add_gist,
                       op_ctx *ctx, const gist_allocator *alloc, gist_error *err) {
    llama_model loaded = { .alloc = alloc, .cfg = *cfg, .vocab = cfg->V + add_gist };
    loader ld = { .m = &loaded, .w = w, .type = type, .ctx = ctx };
    gist_status status = load_all(&ld, add_gist, err);
    if (status == GIST_OK)
        *m = loaded;
    else
        llama_free(&loaded);
    return status;
}

void llama_free(llama_model *m) {
    mem_free(m->alloc, m->layers);
    mem_free(m->alloc, m->encoder);
    mem_free(m->alloc, m->block);
    *m = (llama_model){ .alloc = m->alloc };
}
