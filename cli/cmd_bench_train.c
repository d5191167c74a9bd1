/* cmd_bench_train.c - gist bench train: steps of training on random tokens, as a share of what the machine can do.
 *
 * A step is forward, backward and AdamW with its packing.  Every round measures the peak of the type and then one step;
 * the share is the median of the rounds' own ratios.  --prompt-sweep instead times steps against the prompt's length.
 */
#include <sys/resource.h>

#include "bench_train.h"

typedef struct train_args {
    const char *shape, *svg;
    int type, batch, length, steps, threads, kernels;
    bool recompute, prompt_sweep, json;
} train_args;

static const option table[] = {
    OPT_HEADING("Model"),
    OPT_TEXT(train_args, shape, 0, "shape", "SHAPE", "small",
             "small, gpt2, or layers,width,ffn,heads,kv_heads,vocabulary; random weights"),
    OPT_CHOICE(train_args, type, 0, "type", "f32|bf16", "f32", "matrix products; masters and sums are f32"),
    OPT_HEADING("Work"),
    OPT_INT(train_args, batch, 'b', "batch", "N", 0, 4096, "0", "sequences; 0: the shape's own, 8, of gpt2 4"),
    OPT_INT(train_args, length, 'l', "length", "N", 1, 1 << 16, "256", "tokens of each; all are predicted"),
    OPT_INT(train_args, steps, 's', "steps", "N", 1, BENCH_MAX_REPEAT, "8",
            "rounds behind a first one; medians count, of --prompt-sweep the fastest"),
    OPT_FLAG(train_args, recompute, 0, "recompute", "keep only each block's input"),
    OPT_HEADING("Prompts"),
    OPT_FLAG(train_args, prompt_sweep, 0, "prompt-sweep",
             "steps against prompt length: prompt hidden from the answers, visible, alone"),
    OPT_TEXT(train_args, svg, 0, "svg", "FILE", NULL, "draw that"),
    OPT_JSON(train_args, json),
    OPT_HEADING("Machine"),
    OPT_INT(train_args, threads, 't', "threads", "N", 0, 256, "0", "threads; 0: one per core"),
    OPT_CHOICE(train_args, kernels, 0, "kernels", KERNELS_CHOICES, "auto", "kernel level; auto: the best this CPU has"),
};

typedef struct bench {
    const train_args *a;
    op_ctx ctx;
    dtype type;
    bench_unit unit;
    train_model *tm;
    int batch;
    double flops, ms, peak, share;
    double v_seconds[BENCH_MAX_REPEAT], v_peak[BENCH_MAX_REPEAT], v_share[BENCH_MAX_REPEAT];
    sweep_point point[SWEEP_POINTS];
} bench;

/* Answers of a sweep: in rows of ANSWER, as many as a batch has tokens, at most this. */
enum { ANSWER = 64, MOST_ANSWERS = 1024 };

static int sweep_answers(const bench *b) {
    int n = b->batch * b->a->length;
    n = n > MOST_ANSWERS ? MOST_ANSWERS : n;
    return n < ANSWER ? ANSWER : n / ANSWER * ANSWER;
}

/* ---- measuring ---- */

static gist_status measure_steps(bench *b, const train_batch *batch, gist_error *err) {
    double warm;
    b->flops = train_model_flops(b->tm, batch);
    TRY(bench_step(b->tm, batch, 1, &warm, err));
    for (int i = 0; i < b->a->steps; i++) {
        progress("step %d of %d", i + 1, b->a->steps);
        b->v_peak[i] = bench_gflops(b->ctx.pool, b->unit);
        TRY(bench_step(b->tm, batch, i + 2, &b->v_seconds[i], err));
        b->v_share[i] = b->flops / b->v_seconds[i] / 1e9 / b->v_peak[i];
    }
    progress_end();
    b->ms = 1e3 * median(b->v_seconds, b->a->steps);
    b->peak = median(b->v_peak, b->a->steps);
    b->share = median(b->v_share, b->a->steps);
    return GIST_OK;
}

static gist_status measure(bench *b, gist_error *err) {
    const train_args *a = b->a;
    int32_t *ids = NULL;
    train_batch batch;
    train_batch_init(&batch, NULL);
    int vocab = train_model_llama(b->tm)->cfg.V;
    gist_status status = bench_tokens(&ids, (size_t)b->batch * (size_t)(a->length + 1), vocab, err);
    if (status == GIST_OK) status = bench_rows(&batch, ids, b->batch, a->length, err);
    if (status == GIST_OK) status = measure_steps(b, &batch, err);
    train_batch_free(&batch);
    mem_free(NULL, ids);
    return status;
}

/* ---- printing ---- */

static uint64_t resident_peak(void) {
    struct rusage u;
    return getrusage(RUSAGE_SELF, &u) == 0 ? (uint64_t)u.ru_maxrss * 1024 : 0;
}

static json_t *common_json(const bench *b) {
    const llama_config *c = &train_model_llama(b->tm)->cfg;
    return json_pack("{s:s, s:[i,i,i,i,i,i], s:I, s:s, s:s, s:i, s:i, s:I, s:I}", "model", b->a->shape, "shape", c->L,
                     c->C, c->F, c->H, c->G, c->V, "parameters", (json_int_t)llama_parameters(c), "type",
                     dt_name(b->type), "kernels", gist_kernels_name(op_level(&b->ctx)), "threads",
                     pool_size(b->ctx.pool), "steps", b->a->steps, "model_bytes", (json_int_t)train_model_bytes(b->tm),
                     "resident_peak_bytes", (json_int_t)resident_peak());
}

static gist_status print_json(const bench *b, gist_error *err) {
    double tokens = (double)b->batch * b->a->length;
    json_t *root = common_json(b);
    json_t *more =
        json_pack("{s:i, s:i, s:f, s:f, s:f, s:s, s:f, s:f}", "batch", b->batch, "length", b->a->length, "step_ms",
                  b->ms, "tokens_per_second", tokens / b->ms * 1e3, "gflops", b->flops / b->ms / 1e6, "peak_type",
                  b->unit == BENCH_BF16 ? "bf16" : "f32", "peak_gflops", b->peak, "share_of_peak", b->share);
    if (root && more) json_object_update(root, more);
    json_decref(more);
    return json_print(root, err);
}

static gist_status print_sweep_json(const bench *b, gist_error *err) {
    json_t *root = common_json(b), *list = json_array();
    for (int i = 0; i < SWEEP_POINTS; i++)
        json_array_append_new(list, json_pack("{s:i, s:f, s:f, s:f}", "prompt", b->point[i].prompt, "hidden_ms",
                                              b->point[i].hidden, "visible_ms", b->point[i].visible, "alone_ms",
                                              b->point[i].alone));
    if (root) json_object_set_new(root, "sweep", list);
    if (root) json_object_set_new(root, "answer_rows", json_integer(sweep_answers(b)));
    return json_print(root, err);
}

static void print_model(const bench *b) {
    const llama_config *c = &train_model_llama(b->tm)->cfg;
    char model[32], most[32];
    printf("model    %s: %d layers, width %d, feed-forward %d, %d heads, %d key/value heads, vocabulary %d\n",
           b->a->shape, c->L, c->C, c->F, c->H, c->G, c->V);
    printf("         %.1f million parameters, products in %s, %s kernels, %d thread%s\n",
           (double)llama_parameters(c) / 1e6, dt_name(b->type), gist_kernels_name(op_level(&b->ctx)),
           pool_size(b->ctx.pool), pool_size(b->ctx.pool) == 1 ? "" : "s");
    printf("memory   %s with gradients, moments, packed copies and activations; most resident %s\n",
           size_text(train_model_bytes(b->tm), model), size_text(resident_peak(), most));
}

static void print_text(const bench *b) {
    double tokens = (double)b->batch * b->a->length;
    print_model(b);
    printf("machine  %.0f GFLOP/s in %s (measured between the steps)\n\n", b->peak,
           b->unit == BENCH_BF16 ? "bf16" : "f32");
    printf("          tokens    ms/step   tokens/s    GFLOP/s    of peak   (medians of %d)\n", b->a->steps);
    printf("step   %9.0f %10.1f %10.0f %10.1f  %7.1f %%\n", tokens, b->ms, tokens / b->ms * 1e3, b->flops / b->ms / 1e6,
           100 * b->share);
}

static void print_sweep(const bench *b) {
    print_model(b);
    printf("\n%d answer rows in pairs of %d behind one prompt and %d gists; ms, fastest of %d\n\n", sweep_answers(b),
           ANSWER, SWEEP_GISTS, b->a->steps);
    printf("          whole step                    without the prompt's own\n"
           " prompt     hidden    visible      alone     hidden    visible\n");
    for (int i = 0; i < SWEEP_POINTS; i++) {
        const sweep_point *p = &b->point[i];
        printf("%7d %10.1f %10.1f %10.1f %10.1f %10.1f\n", p->prompt, p->hidden, p->visible, p->alone,
               p->hidden - p->alone, p->visible - p->alone);
    }
}

/* ---- the model ---- */

static gist_status parse_shape(const char *s, llama_config *out, int *batch, gist_error *err) {
    llama_config c = { .context = 1 << 16, .eps = 1e-5f, .theta = 10000.0f };
    const char *numbers = strcmp(s, "small") == 0  ? "6,512,1376,8,8,8192"
                          : strcmp(s, "gpt2") == 0 ? "12,768,2048,12,12,50257"
                                                   : s;
    char end;
    if (sscanf(numbers, "%7d,%7d,%7d,%7d,%7d,%7d%c", &c.L, &c.C, &c.F, &c.H, &c.G, &c.V, &end) != 6 || c.L < 1 ||
        c.C < 1 || c.F < 1 || c.H < 1 || c.G < 1 || c.V < 1 || c.H % c.G || c.C % (2 * c.H))
        return err_set(err, GIST_ERR_USAGE,
                       "shape \"%.60s\" is neither small, gpt2 nor layers,width,ffn,heads,kv_heads,vocabulary with an "
                       "even head width and whole groups of heads",
                       s);
    if (c.L > LLAMA_MAX_LAYERS || c.C > LLAMA_MAX_WIDTH || c.F > 1 << 20 || c.V > LLAMA_MAX_VOCAB)
        return err_set(err, GIST_ERR_LIMIT, "shape \"%.60s\" is out of bounds", s);
    c.D = c.C / c.H;
    *out = c;
    if (*batch == 0) *batch = strcmp(s, "gpt2") == 0 ? 4 : 8;
    return GIST_OK;
}

static gist_status run_bench(bench *b, gist_error *err) {
    const train_args *a = b->a;
    llama_config c;
    TRY(parse_shape(a->shape, &c, &b->batch, err));
    if ((double)b->batch * a->length > 1 << 22)
        return err_set(err, GIST_ERR_LIMIT, "%d sequences of %d tokens are too many", b->batch, a->length);
    train_model_options opt = { .type = b->type,
                                .recompute = a->recompute,
                                .lm = 1,
                                .max_rows = a->prompt_sweep ? sweep_rows(sweep_answers(b)) : b->batch * a->length };
    progress("making random weights ...");
    gist_status status = train_model_create(&b->tm, &c, NULL, false, 1, &opt, &b->ctx, mem_default(), err);
    progress_end();
    TRY(status);
    if (!a->prompt_sweep) {
        TRY(measure(b, err));
        if (a->json) return print_json(b, err);
        print_text(b);
        return GIST_OK;
    }
    TRY(sweep_measure(b->tm, sweep_answers(b), ANSWER, a->steps, b->point, err));
    char title[160];
    snprintf(title, sizeof title,
             "%.40s, %s: %d answer rows behind one prompt and %d gists, forward, backward and AdamW",
             strpbrk(a->shape, "<&") ? "model" : a->shape, dt_name(b->type), sweep_answers(b), SWEEP_GISTS);
    if (a->svg) TRY(sweep_chart(b->point, title, a->svg, err));
    if (a->json) return print_sweep_json(b, err);
    print_sweep(b);
    return GIST_OK;
}

static gist_status bench_train(const train_args *a, gist_error *err) {
    pool *p = NULL;
    bench *b = mem_calloc(NULL, 1, sizeof *b);
    if (!b) return err_memory(err, "measurements");
    *b = (bench){ .a = a, .type = a->type ? DT_BF16 : DT_F32, .batch = a->batch };
    b->unit = a->type && bench_unit_name(BENCH_BF16) ? BENCH_BF16 : BENCH_F32;
    gist_status status = pool_create(mem_default(), a->threads, &p, err);
    if (status == GIST_OK) status = op_init(&b->ctx, (gist_kernels)a->kernels, p, err);
    if (status == GIST_OK) status = run_bench(b, err);
    train_model_free(b->tm);
    pool_free(p);
    mem_free(NULL, b);
    return status;
}

static int run(const command *self, int argc, char **argv) {
    train_args a = { 0 };
    int done = options_parse(self, &a, argc, argv);
    if (done != OPTIONS_GO) return done;
    if (a.svg && !a.prompt_sweep) return usage_error(self, "bench train: --svg draws what --prompt-sweep measures");
    gist_error err = { 0 };
    return bench_train(&a, &err) == GIST_OK ? EXIT_DONE : fail(&err);
}

const command cmd_bench_train = {
    .group = "Measure",
    .name = "bench train",
    .summary = "steps of training: tokens/s, GFLOP/s, as a share of the machine's",
    .usage = "[--shape SHAPE] [--type f32|bf16] [--batch N] [--length N] [--prompt-sweep [--svg FILE]]",
    .details =
        "small: 6 layers, 512 wide, vocabulary 8192; gpt2: 12 layers, 768 wide, vocabulary 50257.\n"
        "GFLOP/s count 6 * parameters * tokens (embedding left out) and attention over visible keys, forward 1 and\n"
        "backward 2; the step includes AdamW and packing the new weights.",
    .example = "gist bench train --shape small --type bf16\n"
               "gist bench train --prompt-sweep --svg hidden.svg",
    .options = table,
    .count = sizeof table / sizeof *table,
    .run = run,
};
