/* cmd_bench_gist.c - gist bench gist: the same prompts served with no cache, a full-prefix cache, and a gist.
 *
 *   model   -m MODEL, or --shape with random weights; with --dry a shape alone
 *   served  --data, examples of a file; --prompt-tokens, drawn prompts of given lengths
 *
 * The parts: what is served (bench_gist_items.c), passes (bench_gist_measure.c), figures (bench_gist_values.c), output
 * (bench_gist_report.c, bench_gist_chart.c).
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "bench_gist.h"

typedef struct gist_args {
    model_args model;
    const char *shape, *tokenizer, *data, *prompts, *csv, *chart, *tmp;
    int k, input, limit, max_length, decode, repeat, buffer, kv, resamples;
    uint64_t seed;
    bool dry, json, quiet;
} gist_args;

#define DEFAULT_SHAPE "tinyllama-1.1b"
#define T5_SHAPE "flan-t5-xxl"

static const option table[] = {
    OPT_HEADING("Model"),
    OPT_TEXT(gist_args, model.path, 'm', "model", "MODEL", NULL, "a Hugging Face directory or a .gguf file"),
    OPT_TEXT(gist_args, shape, 0, "shape", "SHAPE", DEFAULT_SHAPE,
             "random weights instead: tinyllama-1.1b, llama-7b, or layers,width,ffn,heads,kv_heads,vocabulary; with "
             "--dry " T5_SHAPE " too"),
    OPT_TEXT(gist_args, tokenizer, 0, "tokenizer", "FILE|DIR", NULL, "of a shape, to read --data"),
    OPT_TEMPLATE(gist_args, model),
    OPT_HEADING("What is served"),
    OPT_TEXT(gist_args, data, 0, "data", "[NAME=]FILE", NULL, ".json or .jsonl of {instruction, input, output}"),
    OPT_INT(gist_args, limit, 0, "limit", "N", 0, 1 << 30, "0", "rows of it; 0: all"),
    OPT_INT(gist_args, max_length, 0, "max-length", "N", 0, LLAMA_MAX_CONTEXT, "0",
            "prompt, gist and input together, longer inputs are cut; 0: 768 or the model's context, of T5 384"),
    OPT_TEXT(gist_args, prompts, 0, "prompt-tokens", "N,N,...", NULL, "random prompts of these lengths"),
    OPT_INT(gist_args, input, 0, "input-tokens", "N", 1, 1 << 18, "20", "and their inputs"),
    OPT_INT(gist_args, k, 'k', "gists", "N", 1, GFILE_MAX_K, "1", "gist tokens"),
    OPT_HEADING("Work"),
    OPT_FLAG(gist_args, dry, 0, "dry", "count FLOPs and bytes, run nothing: no weights are needed"),
    OPT_INT(gist_args, repeat, 'r', "repeat", "N", 1, BENCH_MAX_REPEAT, "1", "passes of each example each way"),
    OPT_INT(gist_args, decode, 0, "decode", "N", 0, 1 << 16, "0", "tokens decoded behind the first one, timed too"),
    OPT_KV(gist_args, kv, "number type of keys and values; auto: bf16"),
    OPT_SEED(gist_args, seed, 0, "seed", "1", "of order, resamples, random prompts and random weights"),
    OPT_INT(gist_args, resamples, 0, "bootstrap", "N", 0, 1000000, "2000",
            "resamples of the paired intervals; 0: none"),
    OPT_INT(gist_args, buffer, 0, "buffer", "MIB", 64, 1 << 20, "512", "memory to read for the bandwidth"),
    OPT_TEXT(gist_args, tmp, 0, "tmp", "DIR", NULL, "where caches are written meanwhile; default $TMPDIR, or /tmp"),
    OPT_HEADING("Output"),
    OPT_TEXT(gist_args, csv, 0, "csv", "FILE", NULL, "a line for every pass"),
    OPT_TEXT(gist_args, chart, 0, "chart", "FILE", NULL, "an SVG chart"),
    OPT_JSON(gist_args, json),
    OPT_QUIET(gist_args, quiet),
    OPT_MACHINE(gist_args, model),
};

typedef struct job {
    const gist_args *a;
    bench_gist b;
    tokenizer *tok; /* of a shape or a dry run; NULL: none */
    const tok_template *tp;
    int lengths[BENCH_GROUPS], count;
    int32_t gist_token;
    gist_error *err;
} job;

/* ---- what is served ---- */

/* context: the model's; 0: any. */
static gist_status read_items(job *j, const tokenizer *tok, int vocab, int context) {
    const gist_args *a = j->a;
    bool paper = j->b.is_t5 && strcmp(tok_template_name(j->tp), "paper") == 0;
    bench_text form = { tok, paper ? tok_template_find("paper-t5") : j->tp, j->b.is_t5, a->k, a->max_length };
    if (form.max_length == 0) {
        form.max_length = j->b.is_t5 ? 384 : 768;
        if (context && context - a->decode < form.max_length) form.max_length = context - a->decode;
    }
    if (a->data) TRY(bench_items_read(&j->b.items, a->data, a->limit, &form, j->err));
    for (int i = 0; i < j->count; i++)
        TRY(bench_items_draw(&j->b.items, j->lengths[i], a->input, vocab, a->seed, j->err));
    return GIST_OK;
}

static int longest(const bench_items *x) {
    int most = 0;
    for (int i = 0; i < x->n; i++)
        if (x->item[i].prompt + x->item[i].input > most) most = x->item[i].prompt + x->item[i].input;
    return most;
}

/* ---- results ---- */

static gist_status save_text(sbuf *s, const char *path, gist_error *err) {
    out_file out;
    gist_status status = s->failed ? err_memory(err, path) : out_open(&out, NULL, path, err);
    if (status == GIST_OK) {
        out_write(&out, s->p, s->len);
        status = out_commit(&out, err);
    }
    sbuf_free(s);
    return status;
}

/* Every file is tried, whatever happens to another. */
static gist_status report(job *j) {
    bench_gist *b = &j->b;
    bench_summary *s = mem_calloc(NULL, (size_t)b->items.groups, sizeof *s);
    gist_status status = s ? GIST_OK : err_memory(j->err, "figures"), each;
    sbuf file;
    for (int g = 0; status == GIST_OK && g < b->items.groups; g++) status = bench_summarise(b, g, &s[g], j->err);
    if (status == GIST_OK && j->a->json) status = json_print(bench_gist_json(b, s), j->err);
    if (status == GIST_OK && !j->a->json) bench_gist_table(b, s, stdout);
    sbuf_init(&file, NULL);
    if (j->a->csv && b->items.n > 0) {
        bench_gist_csv(b, &file);
        each = save_text(&file, j->a->csv, j->err);
        status = status == GIST_OK ? each : status;
    }
    sbuf_init(&file, NULL);
    if (s && j->a->chart) {
        bench_gist_chart(b, s, &file);
        each = save_text(&file, j->a->chart, j->err);
        status = status == GIST_OK ? each : status;
    }
    mem_free(NULL, s);
    return status;
}

/* ---- a dry run ---- */

static gist_status read_t5(job *j, const char *dir, bool *is_t5) {
    json_t *json = NULL;
    const char *type = "";
    char *path = path_join(NULL, dir, "config.json");
    if (!path) return err_memory(j->err, "path");
    gist_status status = json_read_file(path, &json, j->err);
    if (status == GIST_OK) status = json_get_string(json, "model_type", false, &type, path, j->err);
    *is_t5 = status == GIST_OK && strcmp(type, "t5") == 0;
    if (*is_t5) status = eval_t5_parse(&j->b.t5, json, path, j->err);
    json_decref(json);
    mem_free(NULL, path);
    return status;
}

/* Of a directory config.json and the tokenizer are enough. */
static gist_status read_model(job *j) {
    const char *path = j->a->model.path;
    weights w = { 0 };
    if (path_is_dir(path)) {
        TRY(read_t5(j, path, &j->b.is_t5));
        if (!j->b.is_t5) TRY(llama_config_read(&j->b.cfg, mem_default(), path, j->err));
        return j->a->data && !j->tok ? tok_open(path, mem_default(), &j->tok, j->err) : GIST_OK;
    }
    gist_status status = engine_open_files(path, mem_default(), &j->b.cfg, &j->tok, &w, j->err);
    weights_close(&w);
    return status;
}

static gist_status read_shape(job *j) {
    j->b.is_t5 = strcmp(j->a->shape, T5_SHAPE) == 0;
    if (j->b.is_t5) {
        j->b.t5 = eval_t5_xxl();
        return GIST_OK;
    }
    return bench_shape(j->a->shape, 8192, &j->b.cfg, j->err);
}

/* The row of <GIST>: the vocabulary's, or one more.  T5's shape has it. */
static gist_status add_gist_row(job *j) {
    if (j->b.is_t5)
        return j->tok && tok_gist(j->tok) < 0 ? tok_add_gist(j->tok, (int32_t)tok_size(j->tok), j->err) : GIST_OK;
    int rows = j->b.cfg.V, have = j->tok ? tok_size(j->tok) : 0;
    j->gist_token = j->tok ? tok_gist(j->tok) : -1;
    if (j->gist_token < 0) {
        j->gist_token = rows > have ? rows : have;
        if (j->tok) TRY(tok_add_gist(j->tok, j->gist_token, j->err));
    }
    if (j->gist_token >= rows) j->b.cfg.V = j->gist_token + 1;
    if (have > j->b.cfg.V) j->b.cfg.V = have;
    return GIST_OK;
}

static gist_status dry_run(job *j) {
    TRY(j->a->model.path ? read_model(j) : read_shape(j));
    TRY(add_gist_row(j));
    j->b.repeats = 1;
    TRY(read_items(j, j->tok, j->b.is_t5 ? j->b.t5.V : j->b.cfg.V - 1, 0));
    return report(j);
}

/* ---- a model ---- */

static gist_status in_directory(job *j, gist_engine *e, const op_ctx *ctx) {
    const char *base = j->a->tmp ? j->a->tmp : getenv("TMPDIR");
    char dir[400];
    snprintf(dir, sizeof dir, "%.380s/gist-bench-XXXXXX", base ? base : "/tmp");
    if (!mkdtemp(dir)) return err_set(j->err, GIST_ERR_IO, "%s: %s", dir, strerror(errno));
    gist_status status = bench_measure(&j->b, e, ctx, j->gist_token, dir, j->err);
    rmdir(dir);
    return status;
}

static gist_status run_model(job *j, gist_engine *e, const op_ctx *ctx) {
    const llama_model *m = engine_model(e);
    bench_gist *b = &j->b;
    b->cfg = m->cfg;
    b->cfg.V = m->vocab;
    b->weights = m->layers[0].wq.type;
    b->unit = dt_block(b->weights) > 1 ? BENCH_INT8 : b->weights == DT_BF16 ? BENCH_BF16 : BENCH_F32;
    if (!bench_unit_name(b->unit)) b->unit = BENCH_F32;
    b->weight_bytes = bench_weight_bytes(m, false);
    b->kernels = gist_kernels_name(op_level(ctx));
    b->threads = pool_size(ctx->pool);
    TRY(in_directory(j, e, ctx));
    return report(j);
}

static gist_status real_model(job *j, const op_ctx *ctx) {
    gist_engine *e = NULL;
    TRY(open_engine(&j->a->model, j->a->quiet, &e, NULL, j->err));
    j->gist_token = tok_gist(engine_tokenizer(e));
    gist_status status = read_items(j, engine_tokenizer(e), engine_model(e)->cfg.V, engine_model(e)->cfg.context);
    if (status == GIST_OK) status = run_model(j, e, ctx);
    gist_engine_close(e);
    return status;
}

static gist_status random_model(job *j, op_ctx *ctx) {
    static const char nobody[33] = "00000000000000000000000000000000";
    const gist_args *a = j->a;
    gist_engine *e = NULL;
    llama_model m;
    dtype type = a->model.type == GIST_TYPE_AUTO ? DT_BF16 : kv_dtype((gist_type)a->model.type);
    TRY(read_shape(j));
    TRY(add_gist_row(j));
    TRY(read_items(j, j->tok, j->b.cfg.V - 1, 0));
    int need = longest(&j->b.items) + a->k + a->decode;
    if (need > j->b.cfg.context) j->b.cfg.context = need;
    if (!a->quiet) progress("making random weights ...");
    gist_status status = llama_random(&m, &j->b.cfg, type, a->seed, ctx, mem_default(), j->err);
    progress_end();
    TRY(status);
    j->b.random_weights = true;
    status = engine_borrow(&m, j->tok, j->tp, ctx, mem_default(), &e, j->err);
    if (status == GIST_OK) {
        engine_name(e, nobody, j->gist_token);
        status = run_model(j, e, ctx);
    }
    gist_engine_close(e);
    llama_free(&m);
    return status;
}

static gist_status bench(job *j) {
    const gist_args *a = j->a;
    pool *p = NULL;
    op_ctx ctx;
    if (a->tokenizer) TRY(tok_open(a->tokenizer, mem_default(), &j->tok, j->err));
    if (a->dry) return dry_run(j);
    TRY(pool_create(mem_default(), a->model.threads, &p, j->err));
    gist_status status = op_init(&ctx, (gist_kernels)a->model.kernels, p, j->err);
    if (status == GIST_OK) status = a->model.path ? real_model(j, &ctx) : random_model(j, &ctx);
    pool_free(p);
    return status;
}

/* ---- arguments ---- */

/* OPTIONS_GO, or the exit status of a usage that was refused. */
static int check(const command *self, job *j) {
    const gist_args *a = j->a;
    if (a->model.path && strcmp(a->shape, DEFAULT_SHAPE) != 0)
        return usage_error(self, "bench gist: give either -m or --shape");
    if (a->model.path && a->tokenizer) return usage_error(self, "bench gist: --tokenizer goes with --shape");
    if (!a->data && !a->prompts) return usage_error(self, "bench gist: --data or --prompt-tokens is needed");
    if (a->data && !a->model.path && !a->tokenizer)
        return usage_error(self, "bench gist: --data of a shape needs --tokenizer");
    if (!a->dry && strcmp(a->shape, T5_SHAPE) == 0)
        return usage_error(self, "bench gist: " T5_SHAPE " can only be counted, with --dry");
    j->tp = tok_template_find(a->model.template_name);
    if (!j->tp) return usage_error(self, "bench gist: --template %.40s is unknown", a->model.template_name);
    if (a->prompts) j->count = number_list(a->prompts, 1 << 18, j->lengths, a->data ? BENCH_GROUPS - 1 : BENCH_GROUPS);
    if (a->prompts && j->count == 0)
        return usage_error(self, "bench gist: --prompt-tokens: %.60s is not a list of up to %d numbers from 1 to %d",
                           a->prompts, a->data ? BENCH_GROUPS - 1 : BENCH_GROUPS, 1 << 18);
    return OPTIONS_GO;
}

static int run(const command *self, int argc, char **argv) {
    gist_args a = { 0 };
    int done = options_parse(self, &a, argc, argv);
    if (done != OPTIONS_GO) return done;
    gist_error err = { 0 };
    job *j = mem_calloc(NULL, 1, sizeof *j);
    if (!j) {
        err_memory(&err, "measurements");
        return fail(&err);
    }
    j->a = &a;
    j->err = &err;
    j->b = (bench_gist){ .model = a.model.path ? a.model.path : a.shape,
                         .dry = a.dry,
                         .quiet = a.quiet,
                         .k = a.k,
                         .repeats = a.repeat,
                         .decode = a.decode,
                         .buffer_mib = a.buffer,
                         .resamples = a.resamples,
                         .seed = a.seed,
                         .kv = kv_dtype((gist_type)a.kv) };
    bench_items_init(&j->b.items);
    int status = check(self, j);
    if (status == OPTIONS_GO) status = bench(j) == GIST_OK ? finish_output() : fail(&err);
    bench_items_free(&j->b.items);
    mem_free(NULL, j->b.pass);
    mem_free(NULL, j->b.peak);
    mem_free(NULL, j->b.read);
    tok_close(j->tok);
    mem_free(NULL, j);
    return status;
}

const command cmd_bench_gist = {
    .group = "Measure",
    .name = "bench gist",
    .summary = "prompts served with no cache, a full-prefix cache and a gist: FLOPs, time, bytes",
    .usage = "[-m MODEL | --shape SHAPE] [--data FILE] [--prompt-tokens N,N,...] [-k N] [--dry]",
    .details =
        "FLOPs are counted as the PyTorch profiler counts the usual implementation.  no cache: prompt, gist tokens "
        "and\n"
        "input in one pass.  Times are taken with files in the page cache; the time to the first token includes\n"
        "opening, verifying and attaching a gist's file, or restoring a full prefix from its own.  The roofline is,\n"
        "for each pass, the larger of operations / peak and bytes / bandwidth, both measured before it.\n"
        "Ctrl-C stops and reports the examples measured until then.",
    .example = "gist bench gist --shape llama-7b --type q8_0 --prompt-tokens 250,1000 -k 10 --repeat 3 --decode 4\n"
               "gist bench gist --dry --shape llama-7b --tokenizer tokenizer.model --data human.jsonl",
    .options = table,
    .count = sizeof table / sizeof *table,
    .run = run,
};
