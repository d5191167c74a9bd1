/* bench_run.h - one timeline over a model's forward pass, without tokenizer and sampler: what `bench model` times. */
#ifndef GIST_CLI_BENCH_RUN_H
#define GIST_CLI_BENCH_RUN_H

#include "bench.h"

typedef struct bench_run {
    const llama_model *m;
    op_ctx ctx;
    int cap, rows; /* tokens the KV cache holds; rows of one pass */
    op_kv *kv;     /* [L]; T5: then the encoder's [encoder], then cross-attention's [L] */
    void *kv_block, *act_block;
    size_t kv_bytes, act_bytes;
    llama_acts acts;
    op_row *row, *cross;
    int32_t *pos, *ids; /* ids [cap]: what is fed */
    float *logits;
    int length, source; /* T5: tokens of the source among them */
} bench_run;

/* Room for `tokens` tokens, at most `rows` in one pass (T5: those of the source, which is one pass); ids are drawn from
 * the vocabulary with a fixed seed. */
gist_status bench_run_open(bench_run *r, const llama_model *m, op_ctx ctx, dtype kv, int tokens, int rows,
                           gist_error *err);
void bench_run_close(bench_run *r);
/* Feed the next n tokens, logits of the last; seconds.  T5: the first call encodes a source, the others decode. */
double bench_run_feed(bench_run *r, int n);

/* Multiply-adds times 2 of every product for n tokens behind `length`, with one row of logits. */
double bench_flops(const llama_config *c, int length, int n);
/* Bytes of packed matrices that a pass reads (head included; T5: the encoder's for `first`, else the decoder's), and of
 * a decoded token's keys and values behind `length`. */
double bench_weight_bytes(const llama_model *m, bool first);
double bench_kv_bytes(const llama_config *c, dtype kv, int length);

/* "tinyllama-1.1b", "llama-7b", "flan-t5-xxl" or layers,width,ffn,heads,kv_heads,vocabulary. */
gist_status bench_shape(const char *s, int context, llama_config *out, gist_error *err);

#endif
