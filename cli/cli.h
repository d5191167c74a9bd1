/* cli.h - what the commands share: opening a model, reading text, results and messages.
 *
 *   results   stdout; one JSON object on one line with --json
 *   messages  stderr, "gist: ..."; progress there too
 *   exit      0 done, 1 failed, 2 wrong usage
 *
 * The commands own no logic: they turn arguments into calls of gist.h (diagnostics: of a room's header) and print what
 * comes back.  One file per command, each exporting one `command`; main.c has the table.
 */
#ifndef GIST_CLI_H
#define GIST_CLI_H

#include "engine/engine.h"

#include "options.h"

extern const command cmd_compress, cmd_generate, cmd_show, cmd_tokenize, cmd_logits, cmd_bench_machine, cmd_bench_model;
extern const command cmd_bench_train;
extern const command cmd_score;
extern const command cmd_train, cmd_tune;
extern const command cmd_chat, cmd_bench_batch, cmd_bench_gist;
extern const command cmd_convert;
extern const command cmd_eval;

/* ---- a model's options ---- */

typedef struct model_args {
    const char *path, *template_name, *adapter;
    int threads, kernels, type; /* kernels, type: values of gist_kernels, gist_type */
} model_args;

#define KERNELS_CHOICES "auto|scalar|avx2|avx512|avx512bf16|amx" /* in the order of gist_kernels */
#define KV_CHOICES "auto|f32|bf16|f16|q8_0"                  /* in the order of gist_type */
#define WEIGHTS_CHOICES "auto|f32|bf16|f16|q8_0|q4_0|q4_K|q5_K|q6_K" /* in the order of gist_type */

#define OPT_MODEL(type, field)                                                                                         \
    OPT_NEED_TEXT(type, field.path, 'm', "model", "MODEL",                                                             \
                  "a Hugging Face directory or a .gguf file")
#define OPT_ADAPTER(type, field)                                                                                       \
    OPT_TEXT(type, field.adapter, 0, "adapter", "DIR", NULL,                                                           \
             "a LoRA adapter for the model (PEFT's layout): adapter_config.json, adapter_model.safetensors")
#define OPT_MACHINE(args, field)                                                                                       \
    OPT_HEADING("Machine"),                                                                                            \
        OPT_CHOICE(args, field.type, 0, "type", WEIGHTS_CHOICES, "auto",                                               \
                   "weights in memory; auto: as stored; no model is converted to f16, q5_K or q6_K"),                  \
        OPT_INT(args, field.threads, 't', "threads", "N", 0, 256, "0",                                                 \
                "threads; 0: one per core; results do not depend on it"),                                              \
        OPT_CHOICE(args, field.kernels, 0, "kernels", KERNELS_CHOICES, "auto",                                         \
                   "kernel level; auto: the best this CPU has")
#define OPT_TEMPLATE(type, field)                                                                                      \
    OPT_TEXT(type, field.template_name, 0, "template", "NAME", "paper",                                                \
             "text around prompt and input: paper, raw, chatml, llama3")
#define OPT_KV(type, field, help) OPT_CHOICE(type, field, 0, "kv", KV_CHOICES, "auto", help)
#define OPT_JSON(type, field) OPT_FLAG(type, field, 0, "json", "print one JSON object")
#define OPT_QUIET(type, field) OPT_FLAG(type, field, 'q', "quiet", "no warnings and no progress")

/* The type of a KV cache by its public name; auto: bf16. */
dtype kv_dtype(gist_type kv);

/* seconds (may be NULL): what opening took.  Warnings go to stderr unless quiet. */
gist_status open_engine(const model_args *m, bool quiet, gist_engine **out, double *seconds, gist_error *err);

/* ---- messages ---- */

/* Say what failed; EXIT_FAILED, or EXIT_WRONG_USAGE where the library blames an argument. */
int fail(const gist_error *err);
void warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* On a terminal's stderr a line that the next one replaces, ten a second at most, and progress_end removes; into a file
 * a line a minute. */
void progress(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void progress_end(void);
/* Flush stdout.  EXIT_DONE, or EXIT_FAILED with a message when results could not be written. */
int finish_output(void);
char *size_text(uint64_t bytes, char out[32]); /* "9.5 KiB" */
double process_age(void);                      /* seconds since this process was started, to a clock tick; 0: unknown */

/* ---- text from an argument, a file or standard input ---- */

typedef struct text {
    char *p; /* NUL-terminated, mem_free(NULL, p) */
    size_t len;
} text;
enum { TEXT_MAX = 64 << 20 };
/* given, or the whole of file ("-": standard input); both NULL: *out stays as it is.  chomp: drop one final line end of
 * a file, as $(cat file) would. */
gist_status text_read(text *out, const char *given, const char *file, bool chomp, gist_error *err);
void text_free(text *t);
/* "1,2,4" into out: how many numbers from 1 to most, at most cap.  0: it is no such list. */
int number_list(const char *said, int most, int *out, int cap);
/* Ids from "1,2 3"; all of text must be ids in [0,vocab). */
gist_status parse_ids(const char *p, size_t len, int vocab, tok_ids *out, gist_error *err);

/* ---- JSON ---- */

/* A string of any bytes: what is not valid UTF-8 becomes U+FFFD. */
json_t *json_text_of(const char *p, size_t len);
json_t *json_ids_of(const int32_t *ids, size_t n);
/* Print *root on one line and release it; NULL (out of memory, or a number that JSON lacks) is an error. */
gist_status json_print(json_t *root, gist_error *err);

/* What stands for token id in listings: its piece, with control characters, spaces and invalid bytes made visible. */
void print_piece(const tokenizer *t, int32_t id, FILE *out);
json_t *json_piece_of(const tokenizer *t, int32_t id);

#endif
