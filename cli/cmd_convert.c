/* cmd_convert.c - gist convert: a model between Hugging Face directories and GGUF files, and other number types; a
 * weight diff and its base into a model.
 */
#include <math.h>

#include "cli.h"

typedef struct convert_args {
    const char *in, *out, *base;
    int type, threads, shard;
    bool force, json, quiet;
} convert_args;

#define CONVERT_CHOICES "auto|f32|bf16|f16|q8_0|q4_0|q4_K" /* in the order of gist_type */

static const option table[] = {
    OPT_NEED_TEXT(convert_args, in, 0, NULL, "IN", "a Hugging Face directory or a GGUF file"),
    OPT_NEED_TEXT(convert_args, out, 0, NULL, "OUT", "FILE.gguf, or a directory to be made"),
    OPT_TEXT(convert_args, base, 0, "base", "DIR", NULL,
             "IN is a published weight diff: add it to the weights of this directory"),
    OPT_CHOICE(convert_args, type, 0, "type", CONVERT_CHOICES, "auto",
               "of the weights; auto: as stored (in a directory, blocks become f32), f32 with --base"),
    OPT_INT(convert_args, shard, 0, "shard", "MB", 0, 1 << 30, "5000",
            "a directory's weights in files of at most so many million bytes; 0: one file"),
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

/* A number, or null where JSON has none. */
static json_t *json_finite(double x) {
    return isfinite(x) ? json_real(x) : json_null();
}

static json_t *sum_json(const convert_report *r) {
    const diff_sum *s = &r->sum;
    json_t *j = json_pack("{s:i, s:o, s:o, s:i, s:i}", "missing_rows", r->missing_rows, "sum", json_finite(s->weights),
                          "sum_with_inv_freq", json_finite(s->with_buffers), "inv_freq", s->buffers,
                          "inv_freq_in_base", s->buffers_in_files);
    if (j && s->nearest)
        json_object_update_new(j, json_pack("{s:s, s:f, s:f, s:b}", "nearest", s->nearest, "published", s->published,
                                            "tolerance", DIFF_TOLERANCE, "matches", s->matches));
    return j;
}

static void print_sum(const convert_report *r) {
    const diff_sum *s = &r->sum;
    printf("base           %d rows of the vocabulary are not in the base and count as zero there\n", r->missing_rows);
    printf("sum            %.4f over all weights, in f64\n", s->weights);
    printf("               %.4f with the %d rotary inv_freq buffers (%d in the base, %d worked out)\n",
           s->with_buffers, s->buffers, s->buffers_in_files, s->buffers - s->buffers_in_files);
    if (!s->nearest)
        printf("               its authors publish sums of LLaMA-7B models only: nothing to compare with\n");
    else if (s->matches)
        printf("               it is %s: published are %.4f with the buffers, %.4f away; up to %g is rounding of the\n"
               "               published sum, which was accumulated in f32\n",
               s->nearest, s->published, fabs(s->with_buffers - s->published), DIFF_TOLERANCE);
    else
        printf("               NONE of the published sums: the nearest, %.4f with the buffers (%s), is %.4f away,\n"
               "               expected at most %g.  Another base, another diff, or a damaged file\n",
               s->published, s->nearest, fabs(s->with_buffers - s->published), DIFF_TOLERANCE);
}

static gist_status print(const convert_args *a, const convert_report *r, double seconds, gist_error *err) {
    char size[32];
    if (a->json) {
        json_t *root = json_pack("{s:o, s:o, s:s, s:s, s:i, s:I, s:I, s:f}", "in", json_text_of(a->in, strlen(a->in)),
                                 "out", json_text_of(a->out, strlen(a->out)), "family", r->family, "type",
                                 dt_name(r->type), "tensors", r->tensors, "parameters", (json_int_t)r->parameters,
                                 "bytes", (json_int_t)r->bytes, "seconds", seconds);
        if (root && a->base) json_object_update_new(root, sum_json(r));
        return json_print(root, err);
    }
    printf("%s: %s, %d tensors, %.4g million parameters, weights %s (%s, %.2f bits each), %.1f s\n", a->out, r->family,
           r->tensors, (double)r->parameters / 1e6, size_text(r->bytes, size), dt_name(r->type),
           8 * (double)r->bytes / (double)r->parameters, seconds);
    if (a->base) print_sum(r);
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
                            .base = a.base,
                            .shard = (uint64_t)a.shard * 1000000,
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
    .summary = "a model between Hugging Face and GGUF, into other number types; a weight diff into a model",
    .usage = "[--base DIR] IN OUT [--type T]",
    .details =
        "OUT ending in .gguf becomes a GGUF file, anything else a Hugging Face directory.  In GGUF, --type is that of\n"
        "the matrices; norms and biases are f32, and rows that are no multiple of a type's block become q8_0 or f16.\n"
        "Memory does not grow with the model.\n"
        "\n"
        "A directory may hold model.safetensors or pytorch_model.bin, in one file or in shards; safetensors are\n"
        "written.  With --base IN is a weight diff, as the paper's LLaMA checkpoints are published: its weights and\n"
        "the base's are added in f32, rows that the base's vocabulary lacks (<GIST>) count as zero there, and the sum\n"
        "over all weights is printed, with and without the rotary inv_freq buffers, beside the one that the authors\n"
        "publish.",
    .example = "gist convert models/shop shop.gguf --type q8_0\n"
               "gist convert shop.gguf models/shop-again\n"
               "gist convert shop.gguf small.gguf --type q4_K\n"
               "gist convert --base llama-7b llama-7b-gist-diff llama-7b-gist",
    .options = table,
    .count = sizeof table / sizeof *table,
    .run = run,
};
