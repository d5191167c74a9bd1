/* cmd_compress.c - gist compress: a prompt into a gist file, or onto standard output. */
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"

typedef struct compress_args {
    model_args model;
    const char *prompt, *file, *out;
    int k, kv;
    bool rebase, json, quiet;
} compress_args;

static const option table[] = {
    OPT_HEADING("Prompt"),
    OPT_TEXT(compress_args, prompt, 'p', "prompt", "TEXT", NULL, "the prompt itself"),
    OPT_TEXT(compress_args, file, 'f', "file", "FILE", NULL,
             "the prompt from a file (- standard input); one final newline is dropped"),
    OPT_HEADING("Gist"),
    OPT_MODEL(compress_args, model),
    OPT_ADAPTER(compress_args, model),
    OPT_INT(compress_args, k, 'k', "gists", "N", 1, 1024, "1", "gist tokens to compress into"),
    OPT_NEED_TEXT(compress_args, out, 'o', "output", "FILE",
                  "the gist file, written whole or not at all; -: standard output, which must not be a terminal"),
    OPT_KV(compress_args, kv, "number type of the stored rows; auto: bf16"),
    OPT_FLAG(compress_args, rebase, 0, "rebase", "turn the keys back to position 0: what follows starts at position k"),
    OPT_TEMPLATE(compress_args, model),
    OPT_HEADING("Output"),
    OPT_JSON(compress_args, json),
    OPT_FLAG(compress_args, quiet, 'q', "quiet", "print nothing but errors"),
    OPT_MACHINE(compress_args, model),
};

typedef struct result {
    gist_info info;
    uint64_t per_token, before, file;
    double loading, compressing;
} result;

static bool to_stdout(const compress_args *a) {
    return strcmp(a->out, "-") == 0;
}

static gist_status print_json(const compress_args *a, const result *r, gist_error *err) {
    const gist_info *i = &r->info;
    return json_print(json_pack("{s:s, s:s, s:i, s:i, s:f, s:s, s:i, s:b, s:s, s:s, s:I, s:I, s:I, s:I, s:f, s:f}",
                                "file", a->out, "id", i->id, "prompt_tokens", i->prompt_tokens, "gist_tokens", i->k,
                                "factor", (double)i->prompt_tokens / i->k, "kv", gist_type_name(i->kv),
                                "first_position", i->first_position, "rebased", (int)i->rebased, "template",
                                i->template_name, "kernels", i->kernels, "kv_bytes_per_token", (json_int_t)r->per_token,
                                "kv_bytes_before", (json_int_t)r->before, "kv_bytes_after", (json_int_t)i->bytes,
                                "file_bytes", (json_int_t)r->file, "load_seconds", r->loading, "compress_seconds",
                                r->compressing),
                      err);
}

static void print_text(const compress_args *a, const result *r) {
    const gist_info *i = &r->info;
    char one[32], before[32], after[32], file[32];
    FILE *to = to_stdout(a) ? stderr : stdout;
    fprintf(to, "prompt tokens  %d\n", i->prompt_tokens);
    fprintf(to, "gist tokens    %d\n", i->k);
    fprintf(to, "factor         %.1f\n", (double)i->prompt_tokens / i->k);
    fprintf(to, "KV before      %s  (%s per token, %s)\n", size_text(r->before, before), size_text(r->per_token, one),
            gist_type_name(i->kv));
    fprintf(to, "KV after       %s\n", size_text(i->bytes, after));
    if (!to_stdout(a)) fprintf(to, "file           %s, %s\n", a->out, size_text(r->file, file));
    fprintf(to, "id             %s\n", i->id);
    fprintf(to, "seconds        %.3f  (and %.3f to load the model)\n", r->compressing, r->loading);
}

static gist_status copy_to_stdout(const char *path, gist_error *err) {
    file_map m;
    TRY(map_open(path, &m, err));
    bool good = fwrite(m.data, 1, m.size, stdout) == m.size && fflush(stdout) == 0;
    map_close(&m);
    return good ? GIST_OK : err_set(err, GIST_ERR_IO, "cannot write the gist: %s", strerror(errno));
}

/* A gist file is made whole before any of it is passed on. */
static gist_status write_out(const gist *g, gist_error *err) {
    const char *tmp = getenv("TMPDIR");
    char *path = path_join(NULL, tmp && *tmp ? tmp : "/tmp", "gist-XXXXXX");
    if (!path) return err_memory(err, "path");
    int fd = mkstemp(path);
    gist_status status = fd >= 0 ? GIST_OK : err_set(err, GIST_ERR_IO, "%s: %s", path, strerror(errno));
    if (fd >= 0) {
        close(fd);
        status = gist_save(g, path, err);
        if (status == GIST_OK) status = copy_to_stdout(path, err);
        unlink(path);
    }
    mem_free(NULL, path);
    return status;
}

static gist_status compress(const compress_args *a, gist_engine *e, const text *prompt, result *r, gist **g,
                            gist_error *err) {
    gist_compress_options o = GIST_COMPRESS_OPTIONS_INIT;
    o.k = a->k;
    o.kv = (gist_type)a->kv;
    o.rebase = a->rebase;
    if (!a->quiet) progress("compressing ...");
    double start = time_now();
    gist_status status = gist_compress(e, prompt->p, prompt->len, &o, g, err);
    r->compressing = time_now() - start;
    if (!a->quiet) progress_end();
    if (status != GIST_OK) return status;
    TRY(to_stdout(a) ? write_out(*g, err) : gist_save(*g, a->out, err));
    gist_get_info(*g, &r->info);
    r->per_token = r->info.bytes / (uint64_t)r->info.k;
    r->before = r->per_token * (uint64_t)r->info.prompt_tokens;
    struct stat st;
    if (stat(a->out, &st) == 0) r->file = (uint64_t)st.st_size;
    if (a->json) return print_json(a, r, err);
    if (!a->quiet) print_text(a, r);
    return GIST_OK;
}

static int run(const command *self, int argc, char **argv) {
    compress_args a = { 0 };
    int done = options_parse(self, &a, argc, argv);
    if (done != OPTIONS_GO) return done;
    if (!a.prompt == !a.file) return usage_error(self, "compress: give the prompt with either -p or -f");
    if (to_stdout(&a) && isatty(STDOUT_FILENO))
        return usage_error(self, "compress: -o - would write a gist's bytes to this terminal; redirect it");
    if (to_stdout(&a) && a.json) return usage_error(self, "compress: -o - and --json both write to standard output");
    gist_error err = { 0 };
    gist_engine *e = NULL;
    gist *g = NULL;
    text prompt = { 0 };
    result r = { 0 };
    gist_status status = text_read(&prompt, a.prompt, a.file, true, &err);
    if (status == GIST_OK) status = open_engine(&a.model, a.quiet, &e, &r.loading, &err);
    if (status == GIST_OK) status = compress(&a, e, &prompt, &r, &g, &err);
    gist_free(g);
    gist_engine_close(e);
    text_free(&prompt);
    return status == GIST_OK ? EXIT_DONE : fail(&err);
}

const command cmd_compress = {
    .group = "Compress and answer",
    .name = "compress",
    .summary = "a prompt into a gist file",
    .usage = "-m MODEL (-p TEXT | -f FILE) [-k N] -o OUT.gist",
    .details = "One forward pass over the prompt and N gist tokens; the keys and values of the gist tokens are kept.\n"
               "'KV before' is what a cache of the whole prompt would take, in the same number type.",
    .example = "gist compress -m models/shop -f system_prompt.txt -k 4 -o shop.gist",
    .options = table,
    .count = sizeof table / sizeof *table,
    .run = run,
};
