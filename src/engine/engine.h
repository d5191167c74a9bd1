/* engine.h - sessions, compression, generation, sampling: the implementation of gist.h, and the few doors behind it
 * that tests, evaluation and diagnostics use.
 */
#ifndef GIST_ENGINE_H
#define GIST_ENGINE_H

#include "model/model.h"
#include "token/token.h"

/* Make room for `more` tokens beyond the present length, so that feeding them allocates nothing. */
gist_status session_reserve(gist_session *s, int more, gist_error *err);
/* Rows fed from now on see this session's own tokens only from index `first` on (a gist stays visible): the masks of
 * gisting.md in one timeline.  first = p: condition gist behind p prompt tokens; p + k: neg_control; 0: none. */
void session_hide_before(gist_session *s, int first);
/* The model behind an engine, and its tokenizer. */
const llama_model *engine_model(const gist_engine *e);
const tokenizer *engine_tokenizer(const gist_engine *e);
/* Which model this is: 32 hex digits over config, tokenizer and every weight byte as stored (p NULL: one thread). */
gist_status engine_fingerprint(const llama_config *cfg, const tokenizer *tok, const weights *w, pool *p,
                               const gist_allocator *alloc, char out[33], gist_error *err);
/* An engine around parts that the caller owns and keeps longer; closing it frees none of them.  The model's weights may
 * change between calls, as in training; gists and sessions from before a change then belong to what is no more.  It has
 * no fingerprint (""), so its gists cannot be saved.  GIST_ERR_MISMATCH: the model has no row for a piece, or <GIST>.
 * */
gist_status engine_borrow(const llama_model *model, tokenizer *tok, const tok_template *tp, const op_ctx *ctx,
                          const gist_allocator *alloc, gist_engine **out, gist_error *err);
/* Forget own tokens from index `length` on. */
void session_rewind(gist_session *s, int length);
/* Feed ids[0..n) and generate behind them: gist_generate without a template. */
gist_status session_generate(gist_session *s, const int32_t *ids, size_t n, const gist_generate_options *opt,
                             gist_answer *out, gist_error *err);

/* gist_compress of a prompt's token ids, as tok_template_prompt gives them. */
gist_status gist_compress_ids(gist_engine *e, const int32_t *prompt, size_t n, const gist_compress_options *opt,
                              gist **out, gist_error *err);
/* Rows of a gist in layer l as f32: keys and values [k,G,D]. */
gist_status gist_get_rows(const gist *g, int l, float *keys, float *values, gist_error *err);
/* A gist of rows learned for the prompt of `like`: keys and values[l] are [k,G,D] of every layer, rounded to its KV
 * type; everything else is like's.  Its identity is a hash over like's and the rows. */
gist_status gist_from_rows(const gist *like, const float *const *keys, const float *const *values, gist **out,
                           gist_error *err);

/* Key and value [G,D] of own token `slot` in layer l, as stored. */
void session_get_row(const gist_session *s, int l, int slot, void *k, void *v);

/* ---- sampling ---- */

typedef struct sampler {
    const gist_allocator *alloc;
    float temperature, top_p;
    int top_k;
    int32_t never; /* an id that is never drawn; -1: none */
    rng random;
    int V;
    int32_t *order; /* [V] scratch */
    double *p;      /* [V] scratch */
} sampler;
gist_status sampler_init(sampler *s, const gist_allocator *alloc, int V, float temperature, int top_k, float top_p,
                         uint64_t seed, int32_t never, gist_error *err);
void sampler_reset(sampler *s); /* gives the scratch back */
/* Draw a token from logits [V]; greedy (first of the largest) at temperature 0.  *logprob is ln softmax(logits)[id]. */
int32_t sampler_draw(sampler *s, const float *logits, float *logprob);

#endif
