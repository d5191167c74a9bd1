/* bench_run.h - one timeline over a model's forward pass, without tokenizer and sampler: what `bench model` times. */
#ifndef GIST_CLI_BENCH_RUN_H
#define GIST_CLI_BENCH_RUN_H

#include "bench.h"

typedef struct bench_run {
    const llama_model *m;
    op_ctx ctx;
    int cap, rows; /* tokens the KV cache holds; rows of one pass */
    op_kv *kv;     /* [L] */
    void *kv_block, *act_block;
    size_t kv_bytes, act_bytes;
    llama_acts acts;
    op_row *row;
    int32_t *pos, *ids; /* ids [cap]: what is fed */
    float *logits;
    int length;
} bench_run;

/* Room for `tokens` tokens, at most `rows` in one pass; ids are drawn from the vocabulary with a fixed seed. */
gist_status bench_run_open(bench_run *r, const llama_model *m, op_ctx ctx, dtype kv, int tokens, int rows,
                           gist_error *err);
void bench_run_close(bench_run *r);
/* Feed the next n tokens, logits of the last; seconds. */
double bench_run_feed(bench_run *r, int n);

/* Bytes of packed matrices that a decoded token reads (head included), and of its keys and values behind `length`. */
double bench_weight_bytes(const llama_model *m);
double bench_kv_bytes(const llama_config *c, dtype kv, int length);

/* "tinyllama-1.1b", "llama-7b" or layers,width,ffn,heads,kv_heads,vocabulary. */
gist_status bench_shape(const char *s, int context, llama_config *out, gist_error *err);

#endif
