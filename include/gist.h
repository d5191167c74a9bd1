/* gist.h - compress language-model prompts into gist tokens, and generate from them.
 *
 * The only header a user of libgist needs.  Three opaque objects:
 *
 *   gist_engine    a loaded model and its tokenizer; immutable, may be shared by threads
 *   gist_session   one mutable timeline of tokens with its KV cache; one thread at a time
 *   gist           a compressed prompt: the keys and values of k gist tokens in every layer;
 *                  immutable, may be attached to many sessions at once
 *
 *      prompt --gist_compress--> gist --gist_save--> shop.gist --gist_load--> gist
 *                                  |                                            |
 *                                  +--gist_session_attach--> session --gist_generate--> text
 *
 * Conventions: a function that can fail returns gist_status and fills an optional gist_error; on failure its
 * outputs are untouched.  Option structs begin with `size`: use the GIST_..._INIT macros.  Strings are UTF-8.
 * A NULL object may be freed.  Source of the method: Mu, Li, Goodman, "Learning to Compress Prompts with Gist
 * Tokens", NeurIPS 2023, arXiv:2304.08467.
 */
#ifndef GIST_H
#define GIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(GIST_STATIC) || !defined(__GNUC__)
#define GIST_API
#else
#define GIST_API __attribute__((visibility("default")))
#endif

#define GIST_VERSION_MAJOR 0
#define GIST_VERSION_MINOR 1
#define GIST_VERSION_PATCH 0

/* "0.1.0" */
GIST_API const char *gist_version(void);

/* ---- status -------------------------------------------------------------------------------------------------- */

typedef enum gist_status {
    GIST_OK = 0,
    GIST_ERR_USAGE,       /* an argument that cannot be right */
    GIST_ERR_MEMORY,      /* an allocation failed */
    GIST_ERR_IO,          /* the operating system refused to open, read, write or rename */
    GIST_ERR_FORMAT,      /* bytes that are not what they claim to be: truncated, corrupt, hostile */
    GIST_ERR_UNSUPPORTED, /* well-formed, but not something this library does; the message names it */
    GIST_ERR_MISMATCH,    /* a gist, tokenizer or checkpoint that belongs to something else */
    GIST_ERR_LIMIT,       /* longer than the context, larger than a bound */
    GIST_ERR_TEXT,        /* text that cannot be used: invalid UTF-8, empty prompt, tokenization law broken */
    GIST_ERR_CANCELLED,   /* a callback asked to stop with an error */
    GIST_STATUS_COUNT
} gist_status;

/* Detail of the first failure.  Initialise with {0}.  pos: byte offset in the input where one is known. */
typedef struct gist_error {
    gist_status code;
    uint64_t pos;
    char msg[480];
} gist_error;

/* A short constant English name of a status, e.g. "format error". */
GIST_API const char *gist_status_text(gist_status status);

/* ---- what the library takes from its host -------------------------------------------------------------------- */

/* alloc returns 64-byte aligned memory of at least `bytes` > 0 bytes, or NULL; free takes what alloc gave, or NULL.
 * Both are called from several threads. */
typedef struct gist_allocator {
    void *ctx;
    void *(*alloc)(void *ctx, size_t bytes);
    void (*free)(void *ctx, void *p);
} gist_allocator;

typedef enum gist_log_level { GIST_LOG_DEBUG, GIST_LOG_INFO, GIST_LOG_WARN } gist_log_level;
typedef void (*gist_log_fn)(void *ctx, gist_log_level level, const char *msg);

/* Number types, of weights and of KV caches.  KV caches and gists: F32, BF16, F16, Q8_0. */
typedef enum gist_type {
    GIST_TYPE_AUTO,
    GIST_TYPE_F32,
    GIST_TYPE_BF16,
    GIST_TYPE_F16,
    GIST_TYPE_Q8_0, /* blocks of 32: 8 bits each and a scale */
    GIST_TYPE_Q4_0, /* blocks of 32: 4 bits each and a scale */
    GIST_TYPE_Q4_K, /* blocks of 256: 4, 5 or 6 bits each, scales and minima of 16 or 32 */
    GIST_TYPE_Q5_K,
    GIST_TYPE_Q6_K
} gist_type;
GIST_API const char *gist_type_name(gist_type type); /* "f32", ... ; "auto" */

/* Kernel levels.  The results of one level do not depend on threads, batch or split; levels differ in rounding. */
typedef enum gist_kernels {
    GIST_KERNELS_AUTO,
    GIST_KERNELS_SCALAR,
    GIST_KERNELS_AVX2,
    GIST_KERNELS_AVX512,
    GIST_KERNELS_AVX512BF16,
    GIST_KERNELS_AMX
} gist_kernels;
/* "scalar", "avx2", "avx512", "avx512bf16", "amx"; "auto" */
GIST_API const char *gist_kernels_name(gist_kernels level);
GIST_API bool gist_kernels_available(gist_kernels level); /* can this CPU run them? */

/* ---- engine -------------------------------------------------------------------------------------------------- */

typedef struct gist_engine gist_engine;
typedef struct gist_session gist_session;
typedef struct gist gist;

typedef struct gist_engine_options {
    size_t size;
    int threads;                 /* 0: one per core of this process */
    gist_kernels kernels;        /* AUTO: the best the CPU has */
    gist_type weights;           /* AUTO: as stored; F32, BF16, Q8_0, Q4_0, Q4_K: matrices are converted at load */
    const char *template_name;   /* NULL: "paper"; see gist_template_names */
    const gist_allocator *alloc; /* NULL: malloc; must outlive the engine */
    gist_log_fn log;             /* NULL: silent */
    void *log_ctx;
    const char *adapter;         /* directory of a LoRA adapter in PEFT's layout; NULL: none.  One that acts at gist
                                    positions only changes what gist_compress makes and nothing else */
} gist_engine_options;
#define GIST_ENGINE_OPTIONS_INIT \
    { sizeof(gist_engine_options), 0, GIST_KERNELS_AUTO, GIST_TYPE_AUTO, NULL, NULL, NULL, NULL, NULL }

/* Open a model: a Hugging Face directory (config.json, *.safetensors, tokenizer files) or a GGUF file.
 * *out is owned by the caller: gist_engine_close, after every session and gist of it is closed. */
GIST_API gist_status gist_engine_open(const char *model, const gist_engine_options *opt, gist_engine **out,
                                      gist_error *err);
GIST_API void gist_engine_close(gist_engine *engine);

/* Facts about a loaded model.  Strings are borrowed from the engine. */
typedef struct gist_engine_info {
    const char *family;        /* "llama", "mistral", "qwen2", "qwen3" */
    const char *template_name; /* "paper" */
    const char *fingerprint;   /* 32 hex digits over config, tokenizer and all weight bytes as stored */
    const char *tokenizer_fingerprint;
    const char *tokenizer_kind; /* "sentencepiece-bpe", "sentencepiece-unigram", "byte-bpe", "tiktoken" */
    gist_kernels kernels;
    gist_type weights;
    int threads;
    int layers, width, ffn, heads, kv_heads, head_dim, vocab, context; /* L C F H G D V, longest context */
    int32_t bos, eos, gist_token;                                     /* -1: none */
    bool gist_token_added; /* the vocabulary lacked <GIST>: the model was not trained to gist */
    bool tied_head;
    uint64_t parameters;   /* of the checkpoint */
    uint64_t weight_bytes; /* in memory, packed */
    const char *adapter;   /* 32 hex digits; "": none */
} gist_engine_info;
GIST_API void gist_engine_get_info(const gist_engine *engine, gist_engine_info *out);

/* "paper\npaper-t5\nraw\nchatml\nllama3": the names template_name accepts, one per line.  Encoder-decoder models take
 * paper as paper-t5: no "Output:", and in front of the gist tokens the lone word mark that its checkpoints had. */
GIST_API const char *gist_template_names(void);

/* ---- text ---------------------------------------------------------------------------------------------------- */

enum {
    GIST_TOKENIZE_BOS = 1,    /* begin with the model's BOS, if it has one */
    GIST_TOKENIZE_SPECIAL = 2 /* recognise special tokens written in the text, <GIST> included */
};
/* Token ids of text[0..len).  Writes at most cap ids; *n is the full count, also when it exceeds cap (then
 * GIST_ERR_LIMIT and ids untouched; call with cap 0 to measure, which is not an error). */
GIST_API gist_status gist_tokenize(const gist_engine *engine, const char *text, size_t len, unsigned flags,
                                   int32_t *ids, size_t cap, size_t *n, gist_error *err);
/* UTF-8 text of ids, NUL-terminated; bytes that are no valid UTF-8 become U+FFFD.  Free with gist_string_free. */
GIST_API gist_status gist_detokenize(const gist_engine *engine, const int32_t *ids, size_t n, char **text,
                                     gist_error *err);
GIST_API void gist_string_free(const gist_engine *engine, char *text);

/* ---- sessions ------------------------------------------------------------------------------------------------ */

typedef struct gist_session_options {
    size_t size;
    int context;  /* most tokens the session will hold of its own, memory rows of a gist excluded; 0: the model's */
    gist_type kv; /* AUTO: bf16, or the type of the gist attached */
} gist_session_options;
#define GIST_SESSION_OPTIONS_INIT { sizeof(gist_session_options), 0, GIST_TYPE_AUTO }

GIST_API gist_status gist_session_open(gist_engine *engine, const gist_session_options *opt, gist_session **out,
                                       gist_error *err);
GIST_API void gist_session_close(gist_session *session);
/* Forget all tokens and any gist; the memory is kept. */
GIST_API void gist_session_reset(gist_session *session);
/* Put a gist in front of an empty session as shared read-only memory.  The gist must outlive the session's use of it.
 * Errors: MISMATCH when it was made by another model or tokenizer, or when the session's explicit KV type differs. */
GIST_API gist_status gist_session_attach(gist_session *session, const gist *g, gist_error *err);
/* Encoder-decoder models (T5): a session reads a source, then answers.  Tokens fed before gist_session_encode are the
 * source's (their logits are nobody's: GIST_ERR_USAGE), those after it the decoder's, which begins with the token that
 * the config names.  With a gist attached only what follows it is fed and encoded.  gist_generate ends the source with
 * the input and the end token, encodes it and answers; each call answers anew, behind what stood before the input.
 * Decoder-only models: GIST_ERR_USAGE. */
GIST_API gist_status gist_session_encode(gist_session *session, gist_error *err);
/* Run tokens ids[0..n); logits, when not NULL, receives [V] of the last one, or [n,V] of all with
 * gist_session_feed_all. */
GIST_API gist_status gist_session_feed(gist_session *session, const int32_t *ids, size_t n, float *logits,
                                       gist_error *err);
GIST_API gist_status gist_session_feed_all(gist_session *session, const int32_t *ids, size_t n, float *logits,
                                           gist_error *err);
/* Run tokens of n sessions of one engine in as few passes as they fit: session i takes the next counts[i] > 0 of ids,
 * and row i of logits [n,V], when not NULL, is its last one's.  Each session gets, bit for bit, what it would get by
 * itself; gists, KV types, lengths and positions may differ.  All or nothing: on failure no session has changed.  The
 * activations are the first session's; the others hold a KV cache and nothing else. */
GIST_API gist_status gist_session_feed_batch(gist_session *const *sessions, size_t n, const int32_t *ids,
                                             const size_t *counts, float *logits, gist_error *err);
/* Another session that goes on from where this one is: same gist, tokens, positions.  What both have behind them is
 * shared, counted and never copied again, whoever of them is closed first; each keeps its own tokens from here on.
 * Cost: nothing when no gist is attached (the KV cache is handed over); else one copy of the gist's and the session's
 * rows at the first fork from a place, which every fork from there shares.  Not while another thread uses `session`. */
GIST_API gist_status gist_session_fork(gist_session *session, gist_session **out, gist_error *err);
/* Uncompressed prompt by the engine's template, before gist_generate: the prompt's own token pieces, no gist tokens. */
GIST_API gist_status gist_session_prompt(gist_session *session, const char *prompt, size_t len, gist_error *err);
GIST_API int gist_session_length(const gist_session *session);   /* tokens of its own so far */
GIST_API int gist_session_position(const gist_session *session); /* position the next token will get */
/* Put the next token at `position` (an empty session only): what a prompt that is not there would have taken up.
 * UNSUPPORTED: before the end of an attached gist, in a model with a sliding window. */
GIST_API gist_status gist_session_set_position(gist_session *session, int position, gist_error *err);

/* ---- gists --------------------------------------------------------------------------------------------------- */

typedef struct gist_compress_options {
    size_t size;
    int k;        /* gist tokens, 1 .. 1024 */
    gist_type kv; /* AUTO: bf16 */
    bool rebase;  /* re-rotate the keys to position 0, so that a session continues at k */
} gist_compress_options;
#define GIST_COMPRESS_OPTIONS_INIT { sizeof(gist_compress_options), 1, GIST_TYPE_AUTO, false }

/* Compress prompt[0..len) in one forward pass.  Errors: TEXT for an empty prompt, invalid UTF-8 or a broken
 * tokenization law; LIMIT when prompt + k exceeds the model's context. */
GIST_API gist_status gist_compress(gist_engine *engine, const char *prompt, size_t len,
                                   const gist_compress_options *opt, gist **out, gist_error *err);

/* What a gist is and for which model.  Strings are borrowed from the gist. */
typedef struct gist_info {
    const char *id; /* 32 hex digits: hash of what it was made from */
    const char *model_fingerprint;
    const char *tokenizer_fingerprint;
    const char *family;
    const char *template_name;
    const char *condition; /* "gist" */
    const char *kernels;   /* level that computed it */
    gist_type kv;
    int k, first_position, prompt_tokens; /* rows; position of row 0; tokens it replaces */
    int layers, kv_heads, head_dim;
    bool rebased;
    uint64_t bytes; /* of keys and values */
    const char *adapter; /* fingerprint of the adapter that computed it; "": none */
    bool tuned;          /* rows learned by gradient descent for this prompt */
    int output_width;    /* encoder-decoder models: of the encoder's output that it also holds, [k,width]; else 0 */
} gist_info;
GIST_API void gist_get_info(const gist *g, gist_info *out);

/* Written to a temporary file beside `path`, synced, renamed: on failure an old file stays as it was. */
GIST_API gist_status gist_save(const gist *g, const char *path, gist_error *err);

/* Accept another model of the same tokenizer when every shape fits; never a bad checksum. */
enum { GIST_LOAD_FORCE = 1 };
GIST_API gist_status gist_load(gist_engine *engine, const char *path, unsigned flags, gist **out, gist_error *err);
/* The same without a model, to describe a file: such a gist cannot be attached. */
GIST_API gist_status gist_inspect(const char *path, gist **out, gist_error *err);
/* One gist of several, as if they stood one after another: rows in order, the keys of each part re-rotated as a whole
 * to positions from 0 on (of one gist: what `rebase` would have made of it).  The parts were computed without seeing
 * each other; what a model makes of that is for you to measure.  Errors: MISMATCH for parts of different models,
 * adapters, templates or KV types; LIMIT for more than 1024 rows.  The parts are not needed afterwards. */
GIST_API gist_status gist_compose(gist_engine *engine, const gist *const *parts, size_t n, gist **out,
                                  gist_error *err);
GIST_API void gist_free(gist *g);

/* ---- generation ---------------------------------------------------------------------------------------------- */

/* One generated token.  text[0..text_len) is the whole UTF-8 characters it completes (may be empty); text that may
 * begin a stop string is held back.  What is still held at the end comes in a last event with id -1 and logprob 0.
 * Texts joined are the answer's text.  Return false to stop (finish "callback"). */
typedef struct gist_token_event {
    int32_t id;
    float logprob; /* natural logarithm, of the model's distribution before temperature */
    const char *text;
    size_t text_len;
    int index; /* which request of a batch, or which of several samples; else 0 */
} gist_token_event;
typedef bool (*gist_token_fn)(void *ctx, const gist_token_event *event);

/* Added to a token's logit; -INFINITY: never that token. */
typedef struct gist_logit_bias {
    int32_t id;
    float bias;
} gist_logit_bias;

/* How a token is drawn, in this order: biases are added; tokens of the window are penalised (a positive logit divided
 * by repeat_penalty, another multiplied); top-k, top-p, min-p, each of what the one before it left, at temperature 1;
 * then the temperature, and a draw. */
typedef struct gist_generate_options {
    size_t size;
    int max_tokens;    /* 0: until end of text or the context is full */
    float temperature; /* 0: greedy */
    int top_k;         /* 0: off; the k most probable */
    float top_p;       /* 1: off; the fewest that together have this probability */
    uint64_t seed;
    const char *const *stop; /* NULL-terminated strings; the text before the first of them is the answer */
    bool ignore_eos;
    gist_token_fn on_token;
    void *on_token_ctx;
    float min_p;                 /* 0: off; those at least this share as probable as the most probable one */
    float repeat_penalty;        /* 1: off */
    int repeat_last;             /* its window: this many tokens of the input and answer; -1: all, 0: none */
    const gist_logit_bias *bias; /* [bias_count] */
    size_t bias_count;
    bool json_object; /* the answer is one JSON object: tokens that would make it another thing are never drawn, and the
                         answer ends with its closing brace.  At most 64 levels deep */
} gist_generate_options;
#define GIST_GENERATE_OPTIONS_INIT \
    { sizeof(gist_generate_options), 256, 0.0f, 0, 1.0f, 0, NULL, false, NULL, NULL, 0.0f, 1.0f, 64, NULL, 0, false }

typedef struct gist_answer {
    char *text; /* NUL-terminated; free with gist_answer_free */
    size_t text_len;
    int32_t *ids;    /* [n] generated, the end-of-text token excluded */
    float *logprobs; /* [n] */
    int n;
    int input_tokens;      /* fed by this call before the first generated one */
    const char *finish;    /* "eos", "length", "stop", "context", "callback"; with json_object "json" when the object is
                              closed, "invalid-json" when no token can go on with it (constant) */
    double first_token_ms; /* from the call to the first token's logits */
    double total_ms;
} gist_answer;

/* Answer `input` (NULL or "": none) behind whatever the session holds, by the engine's template.  Afterwards the
 * session holds the input and the answer's ids, but for the last of them unless the end is "eos": what has just been
 * drawn is fed only when another token is wanted.
 * Call gist_answer_free on *out, with the same engine's session still open. */
GIST_API gist_status gist_generate(gist_session *session, const char *input, size_t len,
                                   const gist_generate_options *opt, gist_answer *out, gist_error *err);
GIST_API void gist_answer_free(gist_session *session, gist_answer *answer);
/* After an answer, for templates of conversations: feed what the session still lacks of it, the token that ends it,
 * and what stands before the next turn; gist_generate then takes the next input.  UNSUPPORTED: the template has one
 * turn. */
GIST_API gist_status gist_session_end_turn(gist_session *session, const gist_answer *answer, gist_error *err);

/* One of many inputs to be answered at once.  The first four are given, the others are made. */
typedef struct gist_request {
    gist_session *session;
    const char *input;
    size_t len;
    const gist_generate_options *options; /* NULL: defaults */
    gist_status status;
    gist_error error;
    gist_answer answer; /* with status GIST_OK; gist_answer_free */
} gist_request;
/* Answer n requests (at most 1024; sessions of one engine, each once) together, one pass of the model for every token
 * of all of them.  Each answer is, bit for bit, gist_generate's.  A request that fails or ends leaves the others alone:
 * GIST_OK means that all were tried, and each has a status of its own. */
GIST_API gist_status gist_generate_batch(gist_request *requests, size_t n, gist_error *err);
/* n answers (at most 1024) to one input, with seeds seed, seed + 1, ...; the input is run once, its sessions are forks.
 * Each answer is, bit for bit, gist_generate's with that seed.  The session ends as it began. */
GIST_API gist_status gist_generate_samples(gist_session *session, const char *input, size_t len,
                                           const gist_generate_options *opt, gist_answer *out, size_t n,
                                           gist_error *err);

#ifdef __cplusplus
}
#endif
#endif
