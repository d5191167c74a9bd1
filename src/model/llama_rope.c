/* llama_rope.c - rotary frequencies, plain and scaled.
 *
 *   freq[i] = theta^(-2i/D) / factor[i]
 *
 *   linear    factor                                 every position counts for less (Chen et al. 2023)
 *   llama3    turns = original * theta^(-2i/D) / 2pi, of a frequency over the context it was trained for
 *
 *      turns <= low    |  low < turns < high, s = (turns - low) / (high - low)   |  high <= turns
 *      factor          |  1 / ((1 - s) / factor + s)                             |  1
 *
 * Source: LLaMA 3.1's reference code.  The factors are rounded to f32, as GGUF files store them, before they divide: a
 * model has the same frequencies from either format.
 */
#include <math.h>

#include "model/model.h"

#define TWO_PI 6.283185307179586

const char *llama_rope_name(llama_rope_kind kind) {
    static const char *const names[ROPE_KINDS] = { "default", "linear", "llama3" };
    return names[kind];
}

static double llama3_factor(const llama_rope *r, double freq) {
    double turns = r->original * freq / TWO_PI, low = (double)r->low, high = (double)r->high;
    if (turns <= low) return (double)r->factor;
    if (turns >= high) return 1;
    double s = (turns - low) / (high - low);
    return 1 / ((1 - s) / (double)r->factor + s);
}

void llama_rope_factors(const llama_config *c, float *factor) {
    for (int i = 0; i < c->D / 2; i++) {
        double freq = 1.0 / pow((double)c->theta, 2.0 * i / c->D);
        factor[i] = c->rope.kind == ROPE_LLAMA3 ? (float)llama3_factor(&c->rope, freq)
                    : c->rope.kind == ROPE_LINEAR ? c->rope.factor
                                                  : 1.0f;
    }
}

void llama_frequencies(const llama_config *c, float *freq) {
    llama_rope_factors(c, freq);
    for (int i = 0; i < c->D / 2; i++)
        freq[i] = (float)(1.0 / pow((double)c->theta, 2.0 * i / c->D) / (double)freq[i]);
}
