/* cmd_bench_model.c - gist bench model: prefill and decode of a model, as shares of what the machine can do.
 *
 * Every round measures the peak of the weights' type, read bandwidth, prefill and decode one after the other; shares
 * are medians of the rounds' own ratios, so that a machine that is slow for a minute is slow for both sides.
 * --shape makes random weights in memory (the speed of a dense model does not depend on their values); -m opens a real
 * directory and reports start-up too.
 */
#include <sys/resource.h>

#include "bench_run.h"
#include "eval/eval.h"

typedef struct bench_args {
    model_args model;
    const char *shape;
    int kv, prefill, decode, repeat, buffer;
    uint64_t seed;
    bool json;
} bench_args;

#define DEFAULT_SHAPE "tinyllama-1.1b"

static const option table[] = {
    OPT_HEADING("Model"),
    OPT_TEXT(bench_args, model.path, 'm', "model", "MODEL", NULL, "a Hugging Face directory or a .gguf file"),
    OPT_TEXT(bench_args, shape, 0, "shape", "SHAPE", DEFAULT_SHAPE,
             "random weights instead: tinyllama-1.1b, llama-7b, flan-t5-xxl, or "
             "layers,width,ffn,heads,kv_heads,vocabulary"),
    OPT_SEED(bench_args, seed, 0, "seed", "1", "of the random weights"),
    OPT_HEADING("Work"),
    OPT_INT(bench_args, prefill, 0, "prefill", "N", 1, 1 << 20, "512", "tokens of the prompt"),
    OPT_INT(bench_args, decode, 0, "decode", "N", 1, 1 << 20, "64", "tokens decoded one by one behind it"),
    OPT_INT(bench_args, repeat, 'r', "repeat", "N", 1, BENCH_MAX_REPEAT, "5", "rounds; medians are printed"),
    OPT_INT(bench_args, buffer, 0, "buffer", "MIB", 64, 1 << 20, "512", "memory to read for the bandwidth"),
    OPT_KV(bench_args, kv, "number type of keys and values; auto: bf16"),
    OPT_JSON(bench_args, json),
    OPT_MACHINE(bench_args, model),
};

enum { PREFILL, DECODE, PHASES, CHUNK = 512 };

typedef struct round_values {
    double x[BENCH_MAX_REPEAT];
} round_values;

typedef struct bench {
    const bench_args *a;
    const llama_model *m;
    op_ctx ctx;
    dtype kv, weights;
    bench_unit unit;
    double start_seconds; /* -m: from opening to ready; 0: not measured */
    size_t kv_bytes, act_bytes;
    double peak, bandwidth; /* medians */
    struct {
        double tokens, gflops, gbs, of_peak, of_bandwidth;
    } phase[PHASES];
    round_values v_peak, v_read, v_seconds[PHASES], v_of_peak[PHASES], v_of_read[PHASES];
} bench;

/* ---- measuring ---- */

static void measure_round(bench *b, bench_run *r, const void *buffer, int i) {
    const llama_config *c = &b->m->cfg;
    int T = b->a->prefill, N = b->a->decode;
    double peak = b->v_peak.x[i] = bench_gflops(b->ctx.pool, b->unit);
    double read = b->v_read.x[i] = bench_read_gbs(b->ctx.pool, buffer, (size_t)b->a->buffer << 20);
    double seconds[PHASES] = { 0 }, flops[PHASES] = { 0 }, bytes[PHASES] = { 0 };
    r->length = 0;
    seconds[PREFILL] = bench_run_feed(r, T);
    flops[PREFILL] = bench_flops(c, 0, T);
    bytes[PREFILL] = bench_weight_bytes(b->m, true) * (c->encoder ? 1 : (T + CHUNK - 1) / CHUNK);
    for (int n = 0; n < N; n++) {
        flops[DECODE] += bench_flops(c, r->length, 1);
        bytes[DECODE] += bench_weight_bytes(b->m, false) + bench_kv_bytes(c, b->kv, r->length);
        seconds[DECODE] += bench_run_feed(r, 1);
    }
    for (int p = 0; p < PHASES; p++) {
        b->v_seconds[p].x[i] = seconds[p];
        b->v_of_peak[p].x[i] = flops[p] / seconds[p] / 1e9 / peak;
        b->v_of_read[p].x[i] = bytes[p] / seconds[p] / 1e9 / read;
        b->phase[p].gflops = flops[p]; /* for one round; divided by the median time below */
        b->phase[p].gbs = bytes[p];
    }
}

static gist_status measure(bench *b, gist_error *err) {
    int n = b->a->repeat, tokens = b->a->prefill + b->a->decode, rows = b->a->prefill < CHUNK ? b->a->prefill : CHUNK;
    bench_run r;
    if (b->m->cfg.encoder) rows = b->a->prefill; /* a source is not cut */
    if (tokens > b->m->cfg.context)
        return err_set(err, GIST_ERR_LIMIT, "%d tokens do not fit the model's context of %d", tokens,
                       b->m->cfg.context);
    TRY(bench_run_open(&r, b->m, b->ctx, b->kv, tokens, rows, err));
    void *buffer = bench_buffer(b->ctx.pool, (size_t)b->a->buffer << 20);
    if (!buffer) {
        bench_run_close(&r);
        return err_set(err, GIST_ERR_MEMORY, "out of memory: %d MiB to read", b->a->buffer);
    }
    for (int i = 0; i < n; i++) {
        progress("round %d of %d", i + 1, n);
        measure_round(b, &r, buffer, i);
    }
    progress_end();
    b->kv_bytes = r.kv_bytes;
    b->act_bytes = r.act_bytes;
    mem_free(NULL, buffer);
    bench_run_close(&r);
    b->peak = median(b->v_peak.x, n);
    b->bandwidth = median(b->v_read.x, n);
    for (int p = 0; p < PHASES; p++) {
        double s = median(b->v_seconds[p].x, n);
        b->phase[p].tokens = (p == PREFILL ? b->a->prefill : b->a->decode) / s;
        b->phase[p].gflops *= 1e-9 / s;
        b->phase[p].gbs *= 1e-9 / s;
        b->phase[p].of_peak = median(b->v_of_peak[p].x, n);
        b->phase[p].of_bandwidth = median(b->v_of_read[p].x, n);
    }
    return GIST_OK;
}

/* ---- printing ---- */

static uint64_t resident_peak(void) {
    struct rusage u;
    return getrusage(RUSAGE_SELF, &u) == 0 ? (uint64_t)u.ru_maxrss * 1024 : 0;
}

static const char *unit_type(bench_unit u) {
    return u == BENCH_INT8 ? "int8" : u == BENCH_BF16 ? "bf16" : "f32";
}

static json_t *phase_json(const bench *b, int p, int tokens) {
    return json_pack("{s:i, s:f, s:f, s:f, s:f, s:f}", "tokens", tokens, "tokens_per_second", b->phase[p].tokens,
                     "gflops", b->phase[p].gflops, "share_of_peak", b->phase[p].of_peak, "gbs", b->phase[p].gbs,
                     "share_of_bandwidth", b->phase[p].of_bandwidth);
}

static gist_status print_json(const bench *b, gist_error *err) {
    const llama_config *c = &b->m->cfg;
    return json_print(
        json_pack(
            "{s:s, s:[i,i,i,i,i,i], s:I, s:s, s:s, s:s, s:i, s:i, s:s, s:f, s:f, s:o, s:o, s:I, s:I, s:I, s:I, s:o}",
            "model", b->a->model.path ? b->a->model.path : b->a->shape, "shape", c->L, c->C, c->F, c->H, c->G, c->V,
            "parameters", (json_int_t)llama_parameters(c), "type", dt_name(b->weights), "kv", dt_name(b->kv), "kernels",
            gist_kernels_name(op_level(&b->ctx)), "threads", pool_size(b->ctx.pool), "rounds", b->a->repeat,
            "peak_type", unit_type(b->unit), "peak_gflops", b->peak, "read_gbs", b->bandwidth,
            "prefill", phase_json(b, PREFILL, b->a->prefill), "decode", phase_json(b, DECODE, b->a->decode),
            "weight_bytes", (json_int_t)b->m->block_bytes, "kv_bytes", (json_int_t)b->kv_bytes, "activation_bytes",
            (json_int_t)b->act_bytes, "resident_peak_bytes", (json_int_t)resident_peak(), "start_seconds",
            b->start_seconds > 0 ? json_real(b->start_seconds) : json_null()),
        err);
}

static void print_phase(const bench *b, int p, const char *name, int tokens) {
    printf("%-8s %6d  %11.1f  %9.1f  %7.1f %%  %8.2f  %7.1f %%\n", name, tokens, b->phase[p].tokens, b->phase[p].gflops,
           100 * b->phase[p].of_peak, b->phase[p].gbs, 100 * b->phase[p].of_bandwidth);
}

static void print_text(const bench *b) {
    const llama_config *c = &b->m->cfg;
    char block[32], kv[32], acts[32], most[32];
    printf("model    %s%s: %d layers, width %d, feed-forward %d, %d heads, %d key/value heads, vocabulary %d\n",
           b->a->model.path ? b->a->model.path : b->a->shape, b->a->model.path ? "" : " (random weights)", c->L, c->C,
           c->F, c->H, c->G, c->V);
    printf("         %.1f million parameters, weights %s, KV %s, %s kernels, %d thread%s\n",
           (double)llama_parameters(c) / 1e6, dt_name(b->weights), dt_name(b->kv), gist_kernels_name(op_level(&b->ctx)),
           pool_size(b->ctx.pool), pool_size(b->ctx.pool) == 1 ? "" : "s");
    printf("memory   weights %s, KV %s, activations %s; most resident %s\n", size_text(b->m->block_bytes, block),
           size_text(b->kv_bytes, kv), size_text(b->act_bytes, acts), size_text(resident_peak(), most));
    if (b->start_seconds > 0) printf("start    %.3f s from process start to ready\n", b->start_seconds);
    printf("machine  %.0f GFLOP/s in %s, %.1f GB/s reading (measured between the rounds)\n\n", b->peak,
           unit_type(b->unit), b->bandwidth);
    printf("         tokens     tokens/s    GFLOP/s    of peak      GB/s  of reading   (medians of %d)\n",
           b->a->repeat);
    print_phase(b, PREFILL, c->encoder ? "encode" : "prefill", b->a->prefill);
    print_phase(b, DECODE, "decode", b->a->decode);
}

/* ---- the model ---- */

static gist_status run_bench(bench *b, const llama_model *m, gist_error *err) {
    b->m = m;
    b->weights = m->layers[0].wq.type;
    b->unit = dt_block(b->weights) > 1 ? BENCH_INT8 : b->weights == DT_BF16 ? BENCH_BF16 : BENCH_F32;
    if (!bench_unit_name(b->unit)) b->unit = BENCH_F32;
    TRY(measure(b, err));
    if (b->a->json) return print_json(b, err);
    print_text(b);
    return GIST_OK;
}

static gist_status random_model(bench *b, gist_error *err) {
    const bench_args *a = b->a;
    llama_config c;
    llama_model m;
    dtype type = DT_BF16;
    for (int t = 0; t < DT_COUNT; t++)
        if (a->model.type != GIST_TYPE_AUTO && dt_public((dtype)t) == (gist_type)a->model.type) type = (dtype)t;
    int need = a->prefill + a->decode;
    TRY(bench_shape(a->shape, need > 2048 ? need : 2048, &c, err));
    progress("making random weights ...");
    gist_status status = llama_random(&m, &c, type, a->seed, &b->ctx, mem_default(), err);
    progress_end();
    TRY(status);
    status = run_bench(b, &m, err);
    llama_free(&m);
    return status;
}

static gist_status real_model(bench *b, gist_error *err) {
    gist_engine *e = NULL;
    TRY(open_engine(&b->a->model, false, &e, NULL, err));
    b->start_seconds = process_age();
    gist_status status = run_bench(b, engine_model(e), err);
    gist_engine_close(e);
    return status;
}

static gist_status bench_model(const bench_args *a, gist_error *err) {
    pool *p = NULL;
    bench *b = mem_calloc(NULL, 1, sizeof *b);
    if (!b) return err_memory(err, "measurements");
    *b = (bench){ .a = a, .kv = kv_dtype((gist_type)a->kv) };
    gist_status status = pool_create(mem_default(), a->model.threads, &p, err);
    if (status == GIST_OK) status = op_init(&b->ctx, (gist_kernels)a->model.kernels, p, err);
    if (status == GIST_OK) status = a->model.path ? real_model(b, err) : random_model(b, err);
    pool_free(p);
    mem_free(NULL, b);
    return status;
}

static int run(const command *self, int argc, char **argv) {
    bench_args a = { 0 };
    int done = options_parse(self, &a, argc, argv);
    if (done != OPTIONS_GO) return done;
    if (a.model.path && strcmp(a.shape, DEFAULT_SHAPE) != 0)
        return usage_error(self, "bench model: give either -m or --shape");
    gist_error err = { 0 };
    a.model.template_name = "paper";
    return bench_model(&a, &err) == GIST_OK ? EXIT_DONE : fail(&err);
}

const command cmd_bench_model = {
    .group = "Measure",
    .name = "bench model",
    .summary = "prefill and decode: tokens/s, GFLOP/s, GB/s, as shares of the machine's",
    .usage = "[-m MODEL | --shape SHAPE] [--type TYPE] [--prefill N] [--decode N]",
    .details =
        "GFLOP/s count every product (2 per multiply-add), attention included; the prefill computes one row of "
        "logits.\n"
        "GB/s count the packed matrices once per pass, and while decoding the keys and values behind the token.\n"
        "An encoder-decoder model encodes a source of --prefill tokens and decodes behind it.\n"
        "Weights of 8 bits and less are measured against products of bytes: GFLOP/s are then GOP/s of integers.\n"
        "Random weights are bf16 unless --type names another; they are made in the layout they are computed in.",
    .example = "gist bench model --shape tinyllama-1.1b --prefill 512 --decode 64",
    .options = table,
    .count = sizeof table / sizeof *table,
    .run = run,
};
