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
/* The parts of MODEL: a Hugging Face directory, or a GGUF file.  The caller closes *tok and *w, which begin empty,
 * after a failure too. */
gist_status engine_open_files(const char *path, const gist_allocator *alloc, llama_config *cfg, tokenizer **tok,
                              weights *w, gist_error *err);
/* Which model this is: 32 hex digits over config, tokenizer and every weight byte as stored (p NULL: one thread). */
gist_status engine_fingerprint(const llama_config *cfg, const tokenizer *tok, const weights *w, pool *p,
                               const gist_allocator *alloc, char out[33], gist_error *err);
/* An engine around parts that the caller owns and keeps longer; closing it frees none of them.  The model's weights may
 * change between calls, as in training; gists and sessions from before a change then belong to what is no more.  It has
 * no fingerprint (""), so its gists cannot be saved.  tok and tp may be NULL when sessions are only fed.
 * GIST_ERR_MISMATCH: the model has no row for a piece, or <GIST>. */
gist_status engine_borrow(const llama_model *model, tokenizer *tok, const tok_template *tp, const op_ctx *ctx,
                          const gist_allocator *alloc, gist_engine **out, gist_error *err);
/* Name a borrowed model that will not change (32 hex digits in place of its fingerprint, and of the tokenizer's where
 * there is none), so that its gists can be saved.  gist_token: the id of <GIST> when there is no tokenizer, else -1. */
void engine_name(gist_engine *e, const char fingerprint[33], int32_t gist_token);
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
/* The encoder's output at the rows, [k,C] f32; NULL: the model has no encoder. */
const float *gist_get_output(const gist *g);
/* A gist of rows learned for the prompt of `like`: keys and values[l] are [k,G,D] of every layer, rounded to its KV
 * type, output [k,C] the encoder's where there is one; everything else is like's.  Its identity is a hash over like's
 * and the rows. */
gist_status gist_from_rows(const gist *like, const float *const *keys, const float *const *values, const float *output,
                           gist **out, gist_error *err);

/* Key and value [G,D] of own token `slot` in layer l, as stored. */
void session_get_row(const gist_session *s, int l, int slot, void *k, void *v);

/* ---- the whole cache in a file: session_file.c ---- */

/* A session's own tokens, which is all that it holds, into a file, and into an empty session of the same model and KV
 * type: it goes on as the first one would, bit for bit.  The file is for this program on this machine. */
gist_status session_save(const gist_session *s, const char *path, gist_error *err);
gist_status session_restore(gist_session *s, const char *path, gist_error *err);

/* ---- vocabularies in GGUF files: vocabulary.c ---- */

/* The tokenizer of a GGUF file's metadata (tokenizer.ggml.*). */
gist_status vocabulary_open(const gguf_file *g, const gist_allocator *alloc, tokenizer **out, gist_error *err);
/* Those keys for t, of a model of `rows` rows. */
gist_status vocabulary_add(gguf_writer *w, const tokenizer *t, int rows, const log_sink *log, gist_error *err);

/* ---- converting models: convert.c ---- */

/* The sum over all elements of a model made of a weight diff, and what it is compared with (weight_diff.c). */
#define DIFF_TOLERANCE 1.0
typedef struct diff_sum {
    double weights;       /* of the model's tensors, in f64 */
    double with_buffers;  /* and of the rotary inv_freq buffers, */
    int buffers;          /* of which there are so many, */
    int buffers_in_files; /* so many of them in the base's files, the others worked out */
    const char *nearest;  /* the published model whose sum is nearest; NULL: none is published of this shape */
    double published;     /* its sum, which includes the buffers */
    bool matches;         /* |with_buffers - published| <= DIFF_TOLERANCE */
} diff_sum;

typedef struct convert_options {
    const gist_allocator *alloc; /* NULL: mem_default() */
    gist_type type;              /* of matrices (a directory: of all tensors); AUTO: as stored, in a directory blocks
                                    become f32; with a base f32 */
    const char *base;            /* the directory that `in`, a weight diff, is added to; NULL: none */
    uint64_t shard;              /* at most this many bytes of tensors in a file of a directory; 0: one file */
    bool force;                  /* replace what is there */
    int threads;                 /* 0: one per core; the result does not depend on it */
    gist_log_fn log;
    void *log_ctx;
    void (*progress)(void *ctx, uint64_t done, uint64_t all); /* bytes written; NULL: none */
    void *progress_ctx;
} convert_options;

typedef struct convert_report {
    const char *family;
    dtype type; /* of most matrices */
    int tensors;
    uint64_t bytes, parameters;
    int missing_rows; /* of the base's vocabulary, which count as zero */
    diff_sum sum;     /* with a base */
} convert_report;

/* The model `in` (a Hugging Face directory or a GGUF file) as `out`: a GGUF file where the name ends in .gguf, else a
 * directory.  Everything is read and judged before the first byte is written; on
 * failure nothing is left at or beside `out`, and what was there stays. */
gist_status convert_model(const char *in, const char *out, const convert_options *opt, convert_report *report,
                          gist_error *err);

/* ---- sampling ---- */

/* May a token be drawn? */
typedef bool (*sampler_allow_fn)(void *ctx, int32_t id);

typedef struct sampler {
    const gist_allocator *alloc;
    float temperature, top_p, min_p, penalty;
    int top_k, window;
    const gist_logit_bias *bias; /* the caller's */
    size_t bias_count;
    int32_t never; /* an id that is never drawn; -1: none */
    rng random;
    int V;
    float *score;      /* [V] scratch: logits with bias, penalty and what is not allowed; NULL: the logits serve */
    int32_t *recent;   /* [window] ring of accepted ids */
    int32_t *seen;     /* [V] how often an id is in it */
    uint64_t accepted;
    int32_t *order;    /* [V] scratch */
    double *p;         /* [V] scratch */
} sampler;
/* longest: tokens that a window of the repetition penalty can hold at most.  o's biases must stay. */
gist_status sampler_init(sampler *s, const gist_allocator *alloc, int V, int longest, const gist_generate_options *o,
                         int32_t never, gist_error *err);
void sampler_reset(sampler *s); /* gives the scratch back */
/* A token of the input or answer, for the repetition penalty. */
void sampler_accept(sampler *s, int32_t id);
/* Draw a token from logits [V].  *logprob is ln softmax(logits)[id].  allow (with json_object only; NULL: all): those
 * it refuses are as if their logits were minus infinity.  -1: no token may be drawn. */
int32_t sampler_draw(sampler *s, const float *logits, sampler_allow_fn allow, void *ctx, float *logprob);

/* ---- JSON ---- */

enum { JSON_WATCH_DEPTH = 64 };
/* Where in a JSON object a text has come; copy it to try what may follow. */
typedef struct json_watch {
    uint64_t open; /* a bit for each open object (1) or array (0), the innermost lowest */
    int depth;
    uint8_t state, literal, left;
    uint8_t spaces; /* white space in a row outside strings, up to 255 */
    bool key, low, d, high; /* of strings: is it a key; of \u: a low surrogate, begins with d, was a high surrogate */
} json_watch;
void json_watch_init(json_watch *w);
/* Take in a byte.  False: no JSON object (white space around it allowed) goes on like this; *w is spent. */
bool json_watch_byte(json_watch *w, uint8_t c);
/* The same for a text: how many bytes were taken, n unless one was refused. */
size_t json_watch_text(json_watch *w, const char *p, size_t n);
bool json_watch_done(const json_watch *w); /* the object is closed */

#endif
