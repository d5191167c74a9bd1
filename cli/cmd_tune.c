/* cmd_tune.c - gist tune: the gist of one prompt by gradient descent (prefix-tuning), from the predicted gist.
 *
 *      engine   predicted gist, the model's own answers         train   rows as tensors, the model frozen
 *         |  initial rows, pairs                                   ^
 *         +--------------------------------------------------------+
 *         ^  learned rows -> an ordinary .gist                     |
 *         +--------------------------------------------------------+
 *
 * Engine and training do not know each other; this file carries rows and text between them.
 */
#include <math.h>
#include <signal.h>

#include "train/train.h"
#include "tune.h"

enum { INIT_GIST, INIT_ROWS, INIT_RANDOM };
enum { OBJECTIVE_AUTO, OBJECTIVE_LM, OBJECTIVE_DISTILL };

typedef struct tune_args {
    model_args model;
    const char *prompt, *file, *out, *pairs, *inputs, *save_pairs;
    int k, kv, init, sample, objective, answers, max_tokens, hold_out;
    int steps, batch, schedule, eval_every, products;
    float temperature, lr, warmup, clip, decay;
    uint64_t seed;
    bool recompute, json, quiet;
} tune_args;

static const option table[] = {
    OPT_HEADING("Prompt"),
    OPT_TEXT(tune_args, prompt, 'p', "prompt", "TEXT", NULL, "the prompt itself"),
    OPT_TEXT(tune_args, file, 'f', "file", "FILE", NULL,
             "the prompt from a file (- standard input); one final newline is dropped"),
    OPT_HEADING("Gist"),
    OPT_MODEL(tune_args, model),
    OPT_INT(tune_args, k, 'k', "gists", "N", 1, 1024, "1", "rows to learn"),
    OPT_NEED_TEXT(tune_args, out, 'o', "output", "FILE", "the gist file; written whole or not at all"),
    OPT_CHOICE(tune_args, init, 0, "init", "gist|rows|random", "gist",
               "begin with the predicted gist, with rows of the prompt drawn at random, or with noise of their size"),
    OPT_KV(tune_args, kv, "number type of the stored rows; auto: bf16"),
    OPT_TEMPLATE(tune_args, model),
    OPT_HEADING("What to learn from: one of these"),
    OPT_TEXT(tune_args, pairs, 0, "pairs", "FILE", NULL, "JSON Lines of {input, output}"),
    OPT_TEXT(tune_args, inputs, 0, "inputs", "FILE", NULL,
             "JSON Lines of {input}, or plain lines; the model answers them under the full prompt"),
    OPT_INT(tune_args, sample, 0, "sample", "N", 0, 1 << 20, "0",
            "N inputs drawn from the model itself (it must have been trained with --input-loss), then answered by it"),
    OPT_CHOICE(tune_args, objective, 0, "objective", "auto|lm|distill", "auto",
               "the answers; or the model's own distribution under the full prompt; auto: lm for --pairs"),
    OPT_INT(tune_args, answers, 0, "answers", "N", 1, 1 << 16, "1", "answers to each input"),
    OPT_INT(tune_args, max_tokens, 'n', "max-tokens", "N", 1, 1 << 20, "64", "most tokens of what the model writes"),
    OPT_FLOAT(tune_args, temperature, 0, "temp", "X", 0, 1e6, "0.7", "temperature of what the model writes"),
    OPT_TEXT(tune_args, save_pairs, 0, "save-pairs", "FILE", NULL,
             "write what is learned from, as rows {instruction, input, output}; the held-out ones come last"),
    OPT_INT(tune_args, hold_out, 0, "hold-out", "PERCENT", 0, 50, "10",
            "pairs to judge by: the rows that are best on them are kept; 0: the last ones are"),
    OPT_HEADING("Optimiser (AdamW)"),
    OPT_INT(tune_args, steps, 0, "steps", "N", 1, 1 << 30, "200", "steps"),
    OPT_INT(tune_args, batch, 0, "batch", "N", 1, 1 << 16, "8", "pairs per step"),
    OPT_FLOAT(tune_args, lr, 0, "lr", "X", 0, 10, "0.01", "peak learning rate"),
    OPT_CHOICE(tune_args, schedule, 0, "schedule", "constant|linear|cosine", "cosine", "after the warm-up"),
    OPT_FLOAT(tune_args, warmup, 0, "warmup", "X", 0, 1e9, "0.03", "below 1: share of the steps; else steps"),
    OPT_FLOAT(tune_args, clip, 0, "clip", "X", 0, 1e9, "1", "largest norm of the gradient; 0: any"),
    OPT_FLOAT(tune_args, decay, 0, "decay", "X", 0, 10, "0", "weight decay of the rows"),
    OPT_INT(tune_args, eval_every, 0, "eval-every", "N", 0, 1 << 30, "20", "steps between looks at the held-out pairs"),
    OPT_SEED(tune_args, seed, 0, "seed", "0", "of order, drawn texts and initial rows: one seed, one result"),
    OPT_HEADING("Output"),
    OPT_JSON(tune_args, json),
    OPT_QUIET(tune_args, quiet),
    OPT_MACHINE(tune_args, model),
    OPT_CHOICE(tune_args, products, 0, "products", "auto|f32|bf16", "auto",
               "operands of matrix products in training; auto: as the weights"),
    OPT_FLAG(tune_args, recompute, 0, "recompute", "less memory for activations, about a third more time"),
};

typedef struct job {
    const tune_args *a;
    text prompt;
    gist_engine *e;
    gist_engine_info info;
    gist *like; /* predicted: header, and rows to begin with */
    tune_pairs pairs;
    train_set set, held;
    pool *pool;
    op_ctx ctx;
    train_base base;
    train_model *tm;
    train_tune_options o;
    train_tune_result r;
    double seconds;
} job;

/* ---- stopping and showing ---- */

static volatile sig_atomic_t interrupted;

static void on_signal(int sig) {
    if (interrupted) signal(sig, SIG_DFL); /* the next one ends the program */
    interrupted = 1;
}

static bool asked_to_stop(void *ctx) {
    (void)ctx;
    return interrupted;
}

static void show_step(void *ctx, const train_tune_report *r) {
    const tune_args *a = ctx;
    if (!a->quiet)
        progress("step %lld/%lld  loss %.4f  lr %.2g  %.0f tokens/s  %.0f s left", (long long)r->step,
                 (long long)r->steps, r->loss, (double)r->lr, r->tokens_per_second, r->seconds_left);
}

static void show_held(void *ctx, int64_t step, double loss, bool best) {
    const tune_args *a = ctx;
    if (a->quiet) return;
    progress_end();
    fprintf(stderr, "gist: step %lld: held-out loss %.4f%s\n", (long long)step, loss, best && step ? "  (best)" : "");
}

/* ---- data ---- */

static bool has_encoder(const job *j) {
    return engine_model(j->e)->cfg.encoder > 0;
}

/* Layers with rows: those of a gist. */
static int row_layers(const job *j) {
    gist_info info;
    gist_get_info(j->like, &info);
    return info.layers;
}

static gist_status write_pairs(job *j, gist_error *err) {
    const tune_args *a = j->a;
    tune_writing w = { a->answers, a->max_tokens, a->temperature, a->seed, a->quiet };
    TRY(tune_pairs_init(&j->pairs, &j->prompt, a->hold_out, err));
    if (a->pairs) return tune_read_pairs(&j->pairs, a->pairs, err);
    if (a->inputs) return tune_answer_inputs(&j->pairs, j->e, &j->prompt, a->inputs, &w, err);
    return tune_draw_inputs(&j->pairs, j->e, a->model.path, &j->prompt, a->sample, &w, err);
}

static gist_status read_set(job *j, train_set *set, const sbuf *rows, const char *what, gist_error *err) {
    train_data_options d = { .tp = tok_template_find(j->info.template_name),
                             .max_length = j->info.context,
                             .gists = j->a->k,
                             .encoder = has_encoder(j) };
    TRY(train_data_parse(set, rows->p, rows->len, what, engine_tokenizer(j->e), &d, mem_default(), err));
    if (j->a->quiet) return GIST_OK;
    sbuf about;
    sbuf_init(&about, NULL);
    train_data_describe(set, &about);
    fprintf(stderr, "gist: %s: %s\n", what, about.p ? about.p : "");
    sbuf_free(&about);
    return GIST_OK;
}

static gist_status save_pairs(const tune_pairs *p, const char *path, gist_error *err) {
    out_file o;
    TRY(out_open(&o, NULL, path, err));
    out_write(&o, p->rows.p, p->rows.len);
    out_write(&o, p->held.p, p->held.len);
    return out_commit(&o, err);
}

static gist_status read_sets(job *j, gist_error *err) {
    TRY(write_pairs(j, err));
    if (j->a->save_pairs) TRY(save_pairs(&j->pairs, j->a->save_pairs, err));
    if (j->pairs.n == 0) return err_set(err, GIST_ERR_USAGE, "every pair was held out: give more, or --hold-out 0");
    TRY(read_set(j, &j->set, &j->pairs.rows, "training pairs", err));
    return j->pairs.n_held ? read_set(j, &j->held, &j->pairs.held, "held-out pairs", err) : GIST_OK;
}

/* ---- rows ---- */

/* k of the prompt's p rows, ascending, each as likely as any other. */
static gist_status prompt_rows(job *j, gist_error *err) {
    int k = j->a->k, length;
    size_t n = (size_t)j->info.kv_heads * (size_t)j->info.head_dim;
    gist_session *s = NULL;
    gist_session_options so = GIST_SESSION_OPTIONS_INIT;
    rng r;
    so.kv = GIST_TYPE_F32;
    rng_seed(&r, j->a->seed);
    gist_status status = gist_session_open(j->e, &so, &s, err);
    if (status == GIST_OK) status = gist_session_prompt(s, j->prompt.p, j->prompt.len, err);
    length = status == GIST_OK ? gist_session_length(s) : 0;
    if (status == GIST_OK && length < k)
        status = err_set(err, GIST_ERR_USAGE, "--init rows: the prompt has %d tokens, fewer than %d rows", length, k);
    for (int slot = 0, i = 0; status == GIST_OK && i < k; slot++) {
        if (rng_below(&r, (uint64_t)(length - slot)) >= (uint64_t)(k - i)) continue;
        for (int l = 0; l < j->info.layers; l++)
            session_get_row(s, l, slot, train_memory_keys(j->tm, l) + (size_t)i * n,
                            train_memory_values(j->tm, l) + (size_t)i * n);
        i++;
    }
    gist_session_close(s);
    return status;
}

/* Noise with the root mean square of what is there. */
static void make_noise(float *x, size_t n, rng *r) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
    double size = sqrt(sum / (double)n);
    for (size_t i = 0; i < n; i++) x[i] = (float)(size * rng_normal(r));
}

static gist_status initial_rows(job *j, gist_error *err) {
    size_t n = (size_t)j->a->k * (size_t)j->info.kv_heads * (size_t)j->info.head_dim;
    size_t all = (size_t)j->a->k * (size_t)engine_model(j->e)->cfg.C;
    rng r;
    if (j->a->init == INIT_ROWS && has_encoder(j))
        return err_set(err, GIST_ERR_UNSUPPORTED,
                       "--init rows: an encoder keeps no cache of a prompt; gist and random do");
    rng_seed(&r, j->a->seed);
    if (has_encoder(j)) {
        memcpy(train_memory_output(j->tm), gist_get_output(j->like), all * sizeof(float));
        if (j->a->init == INIT_RANDOM) make_noise(train_memory_output(j->tm), all, &r);
    }
    for (int l = 0; l < row_layers(j); l++) {
        float *k = train_memory_keys(j->tm, l), *v = train_memory_values(j->tm, l);
        TRY(gist_get_rows(j->like, l, k, v, err));
        if (j->a->init != INIT_RANDOM) continue;
        make_noise(k, n, &r);
        make_noise(v, n, &r);
    }
    if (j->a->init == INIT_ROWS) TRY(prompt_rows(j, err));
    train_model_repack(j->tm);
    return GIST_OK;
}

static gist_status save(job *j, gist_info *info, gist **g, gist_error *err) {
    int layers = row_layers(j);
    const float **rows = mem_alloc(NULL, 2 * (size_t)layers, sizeof *rows);
    if (!rows) return err_memory(err, "rows");
    for (int l = 0; l < layers; l++) {
        rows[l] = train_memory_keys(j->tm, l);
        rows[layers + l] = train_memory_values(j->tm, l);
    }
    gist_status status = gist_from_rows(j->like, rows, rows + layers, train_memory_output(j->tm), g, err);
    mem_free(NULL, rows);
    TRY(status);
    gist_get_info(*g, info);
    return gist_save(*g, j->a->out, err);
}

/* ---- the command ---- */

static gist_status open_all(job *j, gist_error *err) {
    out_file probe;
    TRY(train_base_check(j->a->model.path, err));
    TRY(out_open(&probe, NULL, j->a->out, err)); /* can it be written?  Better known before the training */
    out_abort(&probe);
    const tune_args *a = j->a;
    TRY(text_read(&j->prompt, a->prompt, a->file, true, err));
    TRY(open_engine(&a->model, a->quiet, &j->e, NULL, err));
    gist_engine_get_info(j->e, &j->info);
    gist_compress_options o = GIST_COMPRESS_OPTIONS_INIT;
    o.k = a->k;
    o.kv = (gist_type)a->kv;
    TRY(gist_compress(j->e, j->prompt.p, j->prompt.len, &o, &j->like, err));
    return read_sets(j, err);
}

static gist_status make_model(job *j, gist_error *err) {
    const tune_args *a = j->a;
    bool distill = a->objective == OBJECTIVE_DISTILL || (a->objective == OBJECTIVE_AUTO && !a->pairs);
    bool bf16 = a->products ? a->products == 2 : j->info.weights == GIST_TYPE_BF16;
    gist_info info;
    gist_get_info(j->like, &info);
    j->o = (train_tune_options){ .k = a->k,
                                 .encoder = has_encoder(j),
                                 .start = engine_model(j->e)->cfg.start,
                                 .distill = distill,
                                 .batch = a->batch,
                                 .steps = a->steps,
                                 .eval_every = a->eval_every,
                                 .optimiser = { a->lr, 0.9f, 0.999f, 1e-8f, a->decay, a->clip, 0 },
                                 .schedule = (train_schedule_kind)a->schedule,
                                 .seed = a->seed };
    double warmup = (double)a->warmup < 1 ? ceil((double)a->warmup * a->steps) : floor((double)a->warmup);
    j->o.warmup = warmup < a->steps ? (int64_t)warmup : a->steps;
    train_model_options m = { .type = bf16 ? DT_BF16 : DT_F32,
                              .recompute = a->recompute,
                              .lm = distill ? 0 : 1,
                              .distill = distill ? 1 : 0,
                              .gist_token = -1,
                              .memory_rows = a->k,
                              .memory_type = kv_dtype(info.kv) };
    TRY(train_tune_rows(&j->set, j->held.pairs ? &j->held : NULL, &j->o, &m.max_rows, err));
    TRY(pool_create(mem_default(), a->model.threads, &j->pool, err));
    TRY(op_init(&j->ctx, (gist_kernels)a->model.kernels, j->pool, err));
    TRY(train_base_open(&j->base, a->model.path, NULL, NULL, j->pool, mem_default(), err));
    return train_base_model(&j->base, &j->tm, a->seed, &m, &j->ctx, err);
}

static int set_number(json_t *root, const char *key, double v) {
    return json_object_set_new(root, key, isfinite(v) ? json_real(v) : json_null());
}

static gist_status report(const job *j, const gist_info *info, gist_error *err) {
    const train_tune_result *r = &j->r;
    const char *kind = j->o.distill ? "KL to the full prompt" : "cross-entropy";
    if (j->a->json) {
        json_t *root = json_pack("{s:s, s:s, s:i, s:i, s:s, s:I, s:I, s:b, s:i, s:i, s:I, s:f}", "file", j->a->out,
                                 "id", info->id, "gist_tokens", info->k, "prompt_tokens", info->prompt_tokens,
                                 "objective", j->o.distill ? "distill" : "lm", "steps", (json_int_t)r->steps,
                                 "best_step", (json_int_t)r->best_step, "stopped", (int)r->stopped, "pairs",
                                 j->set.pairs, "held_out", j->held.pairs, "tokens", (json_int_t)r->tokens, "seconds",
                                 j->seconds);
        if (root && (set_number(root, "loss_first", r->first) | set_number(root, "loss_last", r->last) |
                     set_number(root, "held_out_before", r->before) | set_number(root, "held_out_after", r->after) |
                     set_number(root, "held_out_full_prompt", r->full))) {
            json_decref(root);
            root = NULL;
        }
        return json_print(root, err);
    }
    printf("loss           %.4f -> %.4f  (%s, training pairs)\n", r->first, r->last, kind);
    if (isfinite(r->after))
        printf("held out       %.4f -> %.4f  after step %lld\n", r->before, r->after, (long long)r->best_step);
    if (isfinite(r->full)) printf("full prompt    %.4f\n", r->full);
    printf("steps          %lld in %.1f s%s\n", (long long)r->steps, j->seconds, r->stopped ? ", stopped" : "");
    printf("file           %s\n", j->a->out);
    printf("id             %s\n", info->id);
    return GIST_OK;
}

static gist_status tune(job *j, gist **g, gist_error *err) {
    train_tune_events ev = { (void *)(uintptr_t)j->a, show_step, show_held, asked_to_stop };
    gist_info info;
    TRY(open_all(j, err));
    TRY(make_model(j, err));
    TRY(initial_rows(j, err));
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    double start = time_now();
    gist_status status = train_tune_run(j->tm, &j->set, j->held.pairs ? &j->held : NULL, &j->o, &ev, &j->r, err);
    j->seconds = time_now() - start;
    progress_end();
    TRY(status);
    TRY(save(j, &info, g, err));
    return j->a->quiet && !j->a->json ? GIST_OK : report(j, &info, err);
}

static int check(const command *self, const tune_args *a) {
    if (!a->prompt == !a->file) return usage_error(self, "tune: give the prompt with either -p or -f");
    if (!!a->pairs + !!a->inputs + !!a->sample != 1)
        return usage_error(self, "tune: give one of --pairs, --inputs and --sample");
    return OPTIONS_GO;
}

static int run(const command *self, int argc, char **argv) {
    tune_args a = { 0 };
    int done = options_parse(self, &a, argc, argv);
    if (done == OPTIONS_GO) done = check(self, &a);
    if (done != OPTIONS_GO) return done;
    gist_error err = { 0 };
    job j = { .a = &a };
    gist *g = NULL;
    gist_status status = tune(&j, &g, &err);
    progress_end();
    gist_free(g);
    train_model_free(j.tm);
    train_base_close(&j.base);
    pool_free(j.pool);
    train_data_free(&j.set);
    train_data_free(&j.held);
    tune_pairs_free(&j.pairs);
    gist_free(j.like);
    gist_engine_close(j.e);
    text_free(&j.prompt);
    return status == GIST_OK ? EXIT_DONE : fail(&err);
}

const command cmd_tune = {
    .group = "Train",
    .name = "tune",
    .summary = "the gist of one prompt by gradient descent, the model frozen",
    .usage = "-m MODEL (-p TEXT | -f FILE) [-k N] (--pairs FILE | --inputs FILE | --sample N) -o OUT.gist",
    .details = "Learns the keys and values of N rows in every layer (prefix-tuning), from the predicted gist on.  The "
               "result is\n"
               "an ordinary gist file.  Ctrl-C ends the run and saves what has been learned.",
    .example = "gist tune -m models/shop -f system_prompt.txt -k 8 --inputs questions.txt -o shop.gist",
    .options = table,
    .count = sizeof table / sizeof *table,
    .run = run,
};
