/* cmd_convert.c - gist convert: a model between Hugging Face directories and GGUF files, and other number types. */
#include "cli.h"

typedef struct convert_args {
    const char *in, *out;
    int type, threads;
    bool force, json, quiet;
} convert_args;

#define CONVERT_CHOICES "auto|f32|bf16|f16|q8_0|q4_0|q4_K" /* in the order of gist_type */

static const option table[] = {
    OPT_NEED_TEXT(convert_args, in, 0, NULL, "IN", "a Hugging Face directory or a GGUF file"),
    OPT_NEED_TEXT(convert_args, out, 0, NULL, "OUT", "FILE.gguf, or a directory to be made of a GGUF file"),
    OPT_CHOICE(convert_args, type, 0, "type", CONVERT_CHOICES, "auto",
               "of the weights; auto: as stored (in a directory, blocks become f32)"),
    OPT_FLAG(convert_args, force, 0, "force", "replace OUT when it exists"),
    OPT_INT(convert_args, threads, 't', "threads", "N", 0, 256, "0",
            "threads; 0: one per core; the result does not depend on it"),
    OPT_JSON(convert_args, json),
    OPT_QUIET(convert_args, quiet),
};

static void log_line(void *ctx, gist_log_level level, const char *msg) {
    (void)ctx;
    if (level != GIST_LOG_WARN) return;
    progress_end();
    warn("%s", msg);
}

static void show(void *ctx, uint64_t done, uint64_t all) {
    const double *start = ctx;
    char a[32], b[32];
    double seconds = time_now() - *start, rate = seconds > 0 ? (double)done / seconds : 0;
    double left = rate > 0 ? (double)(all - done) / rate : 0;
    progress("writing %s of %s, %.0f MB/s, %.0f s left", size_text(done, a), size_text(all, b), rate / 1e6, left);
}

static gist_status print(const convert_args *a, const convert_report *r, double seconds, gist_error *err) {
    char size[32];
    if (a->json)
        return json_print(json_pack("{s:o, s:o, s:s, s:s, s:i, s:I, s:I, s:f}", "in",
                                    json_text_of(a->in, strlen(a->in)), "out",
                                    json_text_of(a->out, strlen(a->out)), "family", r->family, "type",
                                    dt_name(r->type), "tensors", r->tensors, "parameters", (json_int_t)r->parameters,
                                    "bytes", (json_int_t)r->bytes, "seconds", seconds),
                          err);
    printf("%s: %s, %d tensors, %.4g million parameters, weights %s (%s, %.2f bits each), %.1f s\n", a->out, r->family,
           r->tensors, (double)r->parameters / 1e6, size_text(r->bytes, size), dt_name(r->type),
           8 * (double)r->bytes / (double)r->parameters, seconds);
    return GIST_OK;
}

static int run(const command *self, int argc, char **argv) {
    convert_args a = { 0 };
    int done = options_parse(self, &a, argc, argv);
    if (done != OPTIONS_GO) return done;
    gist_error err = { 0 };
    convert_report report;
    double start = time_now();
    convert_options opt = { .type = (gist_type)a.type,
                            .force = a.force,
                            .threads = a.threads,
                            .log = a.quiet ? NULL : log_line,
                            .progress = a.quiet ? NULL : show,
                            .progress_ctx = &start };
    gist_status status = convert_model(a.in, a.out, &opt, &report, &err);
    if (!a.quiet) progress_end();
    if (status == GIST_OK) status = print(&a, &report, time_now() - start, &err);
    return status == GIST_OK ? EXIT_DONE : fail(&err);
}

const command cmd_convert = {
    .group = "Models",
    .name = "convert",
    .summary = "a model between Hugging Face and GGUF, and into other number types",
    .usage = "IN OUT [--type T]",
    .details =
        "OUT ending in .gguf becomes a GGUF file, anything else a Hugging Face directory.  In GGUF, --type is that of\n"
        "the matrices; norms and biases are f32, and rows that are no multiple of a type's block become q8_0 or f16.\n"
        "Memory does not grow with the model.",
    .example = "gist convert models/shop shop.gguf --type q8_0\n"
               "gist convert shop.gguf models/shop-again\n"
               "gist convert shop.gguf small.gguf --type q4_K",
    .options = table,
    .count = sizeof table / sizeof *table,
    .run = run,
};
