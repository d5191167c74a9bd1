/* flops_t5.c - floating-point operations of an encoder-decoder pass (T5, FLAN-T5), as the PyTorch profiler counts them.
 *
 *   encoder   the source's rows, behind `cached` rows of a gist
 *   decoder   one token, which attends to all of them: cross-attention makes a key and a value of every visible row
 *
 * What counts is said in flops_llama.c.  Nothing here needs weights or a model: a config's numbers are enough.
 */
#include "eval/eval.h"

/* One table per stack: a matrix [out,in] by letters (C width, F feed-forward, q heads times their width), and how many
 * rows it multiplies. */
typedef enum t5_rows { ENCODER, DECODER, SOURCE } t5_rows;
typedef struct t5_matrix {
    t5_rows rows;
    char shape[3];
    bool gated; /* only in models with a gate */
} t5_matrix;

static const t5_matrix matrices[] = {
    /* encoder: q, k, v, o; wi_0, wi_1, wo */
    { ENCODER, "qC", false },
    { ENCODER, "qC", false },
    { ENCODER, "qC", false },
    { ENCODER, "Cq", false },
    { ENCODER, "FC", false },
    { ENCODER, "FC", true },
    { ENCODER, "CF", false },
    /* decoder's self-attention, then cross-attention, then feed-forward */
    { DECODER, "qC", false },
    { DECODER, "qC", false },
    { DECODER, "qC", false },
    { DECODER, "Cq", false },
    { DECODER, "qC", false },
    { SOURCE, "qC", false },
    { SOURCE, "qC", false },
    { DECODER, "Cq", false },
    { DECODER, "FC", false },
    { DECODER, "FC", true },
    { DECODER, "CF", false },
};

static double size_of(const eval_t5_shape *c, char letter) {
    return letter == 'C' ? c->C : letter == 'F' ? c->F : (double)c->H * c->D;
}

static double norm(double rows, double width) {
    return rows * (2 * width + 1);
}

/* What follows the first product of a feed-forward block: the new GELU, x/2 (1 + tanh(a (x + b x^3))), is four products
 * and two sums; the gate is one product more. */
static double activation(const eval_t5_shape *c, double rows) {
    return c->gated ? 7 * rows * c->F : 0;
}

eval_flops eval_flops_t5(const eval_t5_shape *c, int rows, int cached) {
    double T = rows, S = (double)cached + rows, q = (double)c->H * c->D;
    double many[] = { T, 1, S }, layers[] = { c->layers, c->decoder_layers, c->decoder_layers };
    eval_flops f = { 0, 0 };
    for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++) {
        const t5_matrix *m = &matrices[i];
        if (m->gated && !c->gated) continue;
        f.products += 2 * layers[m->rows] * many[m->rows] * size_of(c, m->shape[0]) * size_of(c, m->shape[1]);
    }
    f.products += 4 * q * (c->layers * T * S + c->decoder_layers * (1 + S)); /* scores and values */
    f.products += 2.0 * c->V * c->C;                                         /* the head */
    f.pointwise = c->layers * (2 * norm(T, c->C) + 2 * T * c->C + activation(c, T)) +
                  c->decoder_layers * (3 * norm(1, c->C) + 3.0 * c->C + activation(c, 1)) + norm(T, c->C) +
                  norm(1, c->C) + c->H * (T * S + 1); /* position bias + mask, once per stack */
    return f;
}

eval_t5_shape eval_t5_xxl(void) {
    return (eval_t5_shape){ 24, 24, 4096, 10240, 64, 64, 32101, true };
}

gist_status eval_t5_parse(eval_t5_shape *out, const json_t *json, const char *what, gist_error *err) {
    enum { MOST = 1 << 20 };
    const char *type = NULL, *ff = "relu";
    eval_t5_shape c = { 0 };
    TRY(json_get_string(json, "model_type", true, &type, what, err));
    if (strcmp(type, "t5") != 0)
        return err_set(err, GIST_ERR_UNSUPPORTED, "%s: model_type is \"%.40s\", expected \"t5\"", what, type);
    TRY(json_get_int(json, "num_layers", true, 1, LLAMA_MAX_LAYERS, &c.layers, what, err));
    c.decoder_layers = c.layers;
    TRY(json_get_int(json, "num_decoder_layers", false, 1, LLAMA_MAX_LAYERS, &c.decoder_layers, what, err));
    TRY(json_get_int(json, "d_model", true, 1, LLAMA_MAX_WIDTH, &c.C, what, err));
    TRY(json_get_int(json, "d_ff", true, 1, MOST, &c.F, what, err));
    TRY(json_get_int(json, "num_heads", true, 1, MOST, &c.H, what, err));
    TRY(json_get_int(json, "d_kv", true, 1, MOST, &c.D, what, err));
    TRY(json_get_int(json, "vocab_size", true, 1, LLAMA_MAX_VOCAB, &c.V, what, err));
    TRY(json_get_string(json, "feed_forward_proj", false, &ff, what, err));
    c.gated = strncmp(ff, "gated-", 6) == 0;
    *out = c;
    return GIST_OK;
}
