/* flops_llama.c - floating-point operations of a pass of the LLaMA family.
 *
 * Two ways of counting.  "Profiled" is what the PyTorch profiler says of the usual implementation, and what papers
 * report: 2 MNK for every matrix product, one per element of every product and sum of tensors.  There scores are dense
 * (every row meets every key, hidden ones too) and every row gets logits.  "Done" is what this library computes: keys
 * that a row sees, and of the last block the keys and values of all rows, the rest of it and logits for the last row;
 * products alone.
 *
 * The matrices are those of the weight table.
 */
#include "eval/eval.h"

/* `rows` go through all blocks but the last, where `last` go beyond their keys and values, and get logits. */
static double pass_matrices(const llama_config *c, double rows, double last) {
    double flops = 0;
    for (int i = 0; i < llama_weight_rows; i++) {
        const weight_row *w = &llama_weights[i];
        if (w->kind != WEIGHT_MATRIX || !llama_uses_row(c, w)) continue;
        bool keys = w->offset == offsetof(llama_layer, wk) || w->offset == offsetof(llama_layer, wv);
        double one = 2.0 * llama_dim(c, w->shape[0]) * llama_dim(c, w->shape[1]);
        flops += w->per_layer ? ((c->L - 1) * rows + (keys ? rows : last)) * one : last * one;
    }
    return flops;
}

/* A norm: x * rsqrt(mean(x^2) + eps) * weight. */
static double norm(double rows, double width) {
    return rows * (2 * width + 1);
}

eval_flops eval_flops_llama(const llama_config *c, int rows, int cached) {
    double T = rows, S = (double)cached + rows, q = (double)c->H * c->D, k = (double)c->G * c->D;
    double layer = 2 * norm(T, c->C) /* before attention and feed-forward */
                   + 3 * T * (q + k) /* rotary: x cos + turned(x) sin */
                   + c->H * T * S    /* scores + mask */
                   + T * c->F        /* silu(gate) * up */
                   + 2 * T * c->C;   /* residual sums */
    if (llama_families[c->family].head_norm) layer += norm(T * c->H, c->D) + norm(T * c->G, c->D);
    return (eval_flops){ .products = pass_matrices(c, T, T) + 4.0 * c->L * q * T * S, /* scores and values */
                         .pointwise = c->L * layer + norm(T, c->C) };
}

double eval_flops_done(const llama_config *c, int rows, int cached) {
    double T = rows, keys = T * cached + 0.5 * T * (T + 1), q = (double)c->H * c->D;
    return pass_matrices(c, T, 1) + 4.0 * q * ((c->L - 1) * keys + cached + T);
}
