/* train_init.c - the weights a model from scratch begins with.
 *
 *   matrix      normal(0, 1/sqrt(inputs)); those that write to the residual stream scaled by 1/sqrt(2L) more; T5's
 *               queries by 1/sqrt(D), because its scores are not (train_tensor.size)
 *   embedding   normal(0, 1) where the head is another matrix: a token outweighs what the first blocks add to it
 *   head        that embedding, scaled by 1/sqrt(C): a token that is carried to the end is the token told
 *   norm, bias  1, 0
 *
 * Each tensor draws from a generator of its own.  What each choice is worth: docs/TRAINING.md,
 * docs/results/demo-levers.md.
 */
#include "train/train_model_int.h"

#include <math.h>

static bool ends_with(const char *s, const char *end) {
    size_t a = strlen(s), b = strlen(end);
    return a >= b && strcmp(s + a - b, end) == 0;
}

/* The standard deviation of a matrix's entries. */
static double size_of(const train_tensor *t, const llama_config *c) {
    static const char *const writing[] = { "o_proj.weight", "down_proj.weight", "Attention.o.weight", ".wo.weight" };
    if (ends_with(t->name, "embed_tokens.weight") || ends_with(t->name, "shared.weight"))
        return c->tied && !c->scaled_head ? 1 / sqrt((double)c->C) : 1;
    if (ends_with(t->name, "relative_attention_bias.weight")) return 1 / sqrt((double)c->C);
    double more = 1;
    for (size_t i = 0; i < sizeof writing / sizeof *writing; i++)
        if (ends_with(t->name, writing[i])) more = 2.0 * c->L;
    return (double)t->size / sqrt((double)t->shape[1] * more);
}

static void draw(train_model *tm, uint64_t seed, int first) {
    const llama_config *c = &tm->model.cfg;
    for (int i = 0; i < tm->tensor_count - first; i++) {
        train_tensor *t = &tm->tensors[first + i];
        double scale = size_of(t, c);
        float start = ends_with(t->name, ".bias") ? 0.0f : 1.0f;
        rng r;
        rng_seed(&r, seed + 0x9e3779b97f4a7c15u * (uint64_t)(i + 1));
        for (size_t j = 0; j < t->count; j++) tm->w[t->at + j] = t->dims == 1 ? start : (float)(scale * rng_normal(&r));
    }
}

/* Row r of a matrix of a layer becomes x times its first input. */
static void only_first(train_model *tm, const train_tensor *t, int row, double x) {
    float *w = tm->w + t->at + (size_t)row * (size_t)t->shape[1];
    memset(w, 0, (size_t)t->shape[1] * sizeof *w);
    w[0] = (float)x;
}

/* Head h of the first block looks h+1 tokens back.  One coordinate of every embedding is a constant; read from it
 * alone, the fast pairs of a key are (a, 0) and those of query head h are a (cos d f, -sin d f) for d = h+1 and
 * frequency f, so rotation gives a score a^2 cos((distance - d) f), summed over the pairs, which is largest at distance
 * d.  The slow pairs stay as drawn.  What the block writes is not scaled down: it says which tokens stand before this
 * one, and a later block has only to compare. */
static gist_status look_back(train_model *tm, gist_error *err) {
    enum { CONSTANT = 4 }; /* times the size of a coordinate */
    const double sharp = 1.3, slowest = 0.09;
    const llama_config *c = &tm->model.cfg;
    train_tensor *e = train_find_tensor(tm, "model.embed_tokens.weight");
    train_tensor *q = train_find_tensor(tm, "model.layers.0.self_attn.q_proj.weight");
    train_tensor *k = train_find_tensor(tm, "model.layers.0.self_attn.k_proj.weight");
    train_tensor *o = train_find_tensor(tm, "model.layers.0.self_attn.o_proj.weight");
    int half = c->D / 2;
    float *f = mem_alloc(tm->alloc, (size_t)half, sizeof *f), unscaled = sqrtf(2.0f * (float)c->L);
    if (!f) return err_memory(err, "frequencies");
    llama_frequencies(c, f);
    double size = c->tied ? 1 / sqrt((double)c->C) : 1;
    for (int64_t v = 0; v < e->shape[0]; v++) tm->w[e->at + (size_t)(v * e->shape[1])] = (float)(CONSTANT * size);
    for (int i = 0; i < half && (double)f[i] > slowest; i++) {
        for (int g = 0; g < c->G; g++) {
            only_first(tm, k, g * c->D + i, sharp);
            only_first(tm, k, g * c->D + half + i, 0);
        }
        for (int h = 0; h < c->H; h++) {
            double angle = (h + 1.0) * (double)f[i];
            only_first(tm, q, h * c->D + i, sharp * cos(angle));
            only_first(tm, q, h * c->D + half + i, -sharp * sin(angle));
        }
    }
    for (size_t j = 0; j < o->count; j++) tm->w[o->at + j] *= unscaled;
    mem_free(tm->alloc, f);
    return GIST_OK;
}

/* The same of T5, by its tables of biases: in each stack the first half of the heads begin by looking 1, 2, ... tokens
 * back.  Near distances have buckets of their own: bucket d is d back. */
static void look_back_t5(train_model *tm) {
    static const char *const table[] = { "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
                                         "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight" };
    const float sharp = 8, unscaled = sqrtf(2.0f * (float)tm->model.cfg.L);
    int H = tm->model.cfg.H, near = tm->model.cfg.near.buckets / 4 - 1; /* the encoder's table has two sides */
    for (int stack = 0; stack < 2; stack++) {
        float *bias = tm->w + train_find_tensor(tm, table[stack])->at;
        for (int h = 0; h < H / 2 && h < near; h++) bias[(h + 1) * H + h] = sharp;
    }
    train_tensor *o = train_find_tensor(tm, "encoder.block.0.layer.0.SelfAttention.o.weight");
    for (size_t j = 0; j < o->count; j++) tm->w[o->at + j] *= unscaled;
}

static void begin_head(train_model *tm) {
    const llama_config *c = &tm->model.cfg;
    int rows;
    const weight_row *table = llama_table(c, &rows);
    const train_tensor *embedding = train_find_tensor(tm, table[0].hf);
    const train_tensor *head = train_find_tensor(tm, table[rows - 1].hf);
    float shrink = 1 / sqrtf((float)c->C);
    for (size_t j = 0; head && j < head->count; j++) tm->w[head->at + j] = shrink * tm->w[embedding->at + j];
}

gist_status train_init(train_model *tm, uint64_t seed, gist_error *err) {
    int first = train_model_frozen(tm) ? tm->trained_tensors : 0; /* behind an adapter's */
    draw(tm, seed, first);
    if (tm->opt.local_heads && tm->model.cfg.encoder) look_back_t5(tm);
    if (tm->opt.local_heads && !tm->model.cfg.encoder) TRY(look_back(tm, err));
    begin_head(tm);
    return GIST_OK;
}
