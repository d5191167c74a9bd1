/* tiny.h - tiny random models of the LLaMA family on disk, for tests that need a model and no particular one.
 *
 *   tiny_save   DIR/config.json, DIR/model.safetensors (through st_save), DIR/tokenizer.json: byte-level BPE of
 *               <bos> <eos>, 256 bytes, a few merges, and <GIST> last when asked for
 *   tiny_open   the same in this process's temporary directory, opened as an engine
 *   open_session, feed, gist_of   steps that nearly every test of an engine takes
 *
 * Weights are uniform, seeded, large enough that every layer and every visible token matters to the logits.
 */
#ifndef TINY_H
#define TINY_H

#include "engine/engine.h"
#include "testing.h"

typedef struct tiny_model {
    int L, C, F, H, G, D;
    int context;
    dtype type; /* of every tensor */
    bool tied;
    bool gist; /* the vocabulary has <GIST> and the model a row for it */
    uint64_t seed;
    llama_family family;
    bool spread; /* gist tokens stand at positions spread over the prompt */
} tiny_model;
/* 2 layers, grouped queries, widths that are multiples of nothing */
#define TINY_MODEL { 2, 20, 28, 4, 2, 10, 256, DT_F32, false, true, 1, FAMILY_LLAMA, false }

enum {
    TINY_BOS = 0,
    TINY_EOS = 1,
    TINY_BYTE = 2 /* id of byte b is TINY_BYTE + b */,
    TINY_MERGED = 258,
    TINY_GIST = 264
};
int tiny_vocab(const tiny_model *t); /* rows of the embedding */

/* Write the model into the directory `name` below the temporary directory; its path into dir. */
char *tiny_save(const tiny_model *t, const char *name, char dir[TEST_PATH]);
/* Other parts of the same directory, for tests that spoil one. */
void tiny_save_config(const tiny_model *t, const char *dir, const char *more); /* more: ", \"key\": value" */
void tiny_save_tokenizer(const tiny_model *t, const char *dir);

/* tiny_save and gist_engine_open with `threads`, kernels and weights; the caller closes. */
gist_engine *tiny_open(const tiny_model *t, const char *name, int threads, gist_kernels level, gist_type type,
                       const char *template_name);

/* The same with the template chatml, on one thread; the vocabulary's <bos> and <eos> stand for the turns' ends. */
gist_engine *tiny_open_chat(const tiny_model *t, const char *name);

/* A session (context 0: as long as the model's), the logits of all rows fed, and log p of a token by them. */
gist_session *open_session(gist_engine *e, gist_type kv, int context);
void feed(gist_session *s, const int32_t *ids, int n, float *logits); /* logits [n,V] may be NULL */
double logprob(const float *logits, int V, int32_t id);
/* A gist of text with k tokens. */
gist *gist_of(gist_engine *e, const char *prompt, int k, gist_type kv);

/* Random ids of bytes and merges: no special tokens. */
void tiny_ids(int32_t *ids, size_t n, uint64_t seed);

/* The kernel levels of this CPU, GIST_KERNELS_SCALAR first; returns how many. */
enum { TINY_LEVELS = 5 };
int tiny_levels(gist_kernels out[TINY_LEVELS]);

#endif
