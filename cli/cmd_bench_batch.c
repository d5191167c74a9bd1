/* cmd_bench_batch.c - gist bench batch: tokens per second against the number of sessions that decode together.
 *
 *   one pass    n sessions, a token each, every one behind a cache of its own: the weights are read once for all
 *
 * A round goes through all counts one after the other, so that a slow minute is slow for each; what is printed is the
 * median round.  The sessions hold different tokens, and nothing is shared between them.
 */
#include "bench_run.h"

enum { COUNTS = 16, MOST = 512 };

typedef struct batch_args {
    model_args model;
    const char *shape, *sessions, *svg;
    int kv, prompt, decode, repeat, buffer;
    uint64_t seed;
    bool json;
} batch_args;

#define DEFAULT_SHAPE "tinyllama-1.1b"

static const option table[] = {
    OPT_HEADING("Model"),
    OPT_TEXT(batch_args, model.path, 'm', "model", "MODEL", NULL, "a Hugging Face directory or a .gguf file"),
    OPT_TEXT(batch_args, shape, 0, "shape", "SHAPE", DEFAULT_SHAPE,
             "random weights instead: tinyllama-1.1b, llama-7b, or layers,width,ffn,heads,kv_heads,vocabulary"),
    OPT_SEED(batch_args, seed, 0, "seed", "1", "of the random weights"),
    OPT_HEADING("Work"),
    OPT_TEXT(batch_args, sessions, 0, "sessions", "N,N,...", "1,2,4,8,16,32", "how many decode together"),
    OPT_INT(batch_args, prompt, 0, "prompt", "N", 1, 1 << 16, "128", "tokens that each holds before"),
    OPT_INT(batch_args, decode, 0, "decode", "N", 1, 1 << 16, "16", "tokens each decodes"),
    OPT_INT(batch_args, repeat, 'r', "repeat", "N", 1, BENCH_MAX_REPEAT, "5", "rounds; medians are printed"),
    OPT_INT(batch_args, buffer, 0, "buffer", "MIB", 64, 1 << 20, "512", "memory to read for the bandwidth"),
    OPT_KV(batch_args, kv, "number type of keys and values; auto: bf16"),
    OPT_HEADING("Output"),
    OPT_TEXT(batch_args, svg, 0, "svg", "FILE", NULL, "a chart too"),
    OPT_JSON(batch_args, json),
    OPT_MACHINE(batch_args, model),
};

typedef struct bench {
    const batch_args *a;
    gist_engine *e;
    op_ctx ctx;
    int count[COUNTS], counts, most;
    gist_session *session[MOST];
    int32_t *ids;  /* [most,prompt], then [most] the next token of each */
    float *logits; /* [most,V] */
    double seconds[COUNTS][BENCH_MAX_REPEAT], of_reading[COUNTS][BENCH_MAX_REPEAT];
    double rate[COUNTS], share[COUNTS], gbs[COUNTS]; /* medians: tokens/s of all, share of the bandwidth, GB/s */
} bench;

/* ---- measuring ---- */

/* All of them in one call: the activations are the first one's. */
static gist_status open_sessions(bench *b, gist_error *err) {
    const batch_args *a = b->a;
    gist_session_options o = GIST_SESSION_OPTIONS_INIT;
    size_t V = (size_t)engine_model(b->e)->vocab, n = (size_t)b->most, tokens = n * (size_t)a->prompt, counts[MOST];
    rng random;
    rng_seed(&random, 1);
    o.context = a->prompt + a->decode;
    o.kv = (gist_type)a->kv;
    b->ids = mem_alloc(NULL, tokens, sizeof *b->ids);
    b->logits = mem_alloc(NULL, n * V, sizeof *b->logits);
    if (!b->ids || !b->logits) return err_memory(err, "batch");
    for (size_t i = 0; i < tokens; i++) b->ids[i] = (int32_t)rng_below(&random, V);
    for (size_t i = 0; i < n; i++) {
        TRY(gist_session_open(b->e, &o, &b->session[i], err));
        counts[i] = (size_t)a->prompt;
    }
    progress("filling %zu sessions", n);
    return gist_session_feed_batch(b->session, n, b->ids, counts, NULL, err);
}

/* Decode with the first n sessions; seconds. */
static gist_status decode(bench *b, int n, double *seconds, gist_error *err) {
    size_t one[MOST];
    int V = engine_model(b->e)->vocab;
    rng random;
    rng_seed(&random, 2);
    for (int i = 0; i < n; i++) one[i] = 1;
    *seconds = 0;
    for (int t = 0; t < b->a->decode; t++) {
        for (int i = 0; i < n; i++) b->ids[i] = (int32_t)rng_below(&random, (uint64_t)V);
        double start = time_now();
        TRY(gist_session_feed_batch(b->session, (size_t)n, b->ids, one, b->logits, err));
        *seconds += time_now() - start;
    }
    for (int i = 0; i < n; i++) session_rewind(b->session[i], b->a->prompt);
    return GIST_OK;
}

/* Bytes that decoding with n sessions reads: the weights once a step, each session's own keys and values. */
static double bytes_read(const bench *b, int n) {
    const llama_model *m = engine_model(b->e);
    double bytes = 0;
    for (int t = 0; t < b->a->decode; t++)
        bytes +=
            bench_weight_bytes(m, false) + n * bench_kv_bytes(&m->cfg, kv_dtype((gist_type)b->a->kv), b->a->prompt + t);
    return bytes;
}

static gist_status measure(bench *b, gist_error *err) {
    double seconds;
    size_t bytes = (size_t)b->a->buffer << 20;
    TRY(open_sessions(b, err));
    void *buffer = bench_buffer(b->ctx.pool, bytes);
    if (!buffer) return err_set(err, GIST_ERR_MEMORY, "out of memory: %d MiB to read", b->a->buffer);
    gist_status status = decode(b, b->most, &seconds, err); /* warms up, and every cache has its room */
    for (int r = 0; status == GIST_OK && r < b->a->repeat; r++)
        for (int i = 0; status == GIST_OK && i < b->counts; i++) {
            progress("round %d of %d, %d sessions", r + 1, b->a->repeat, b->count[i]);
            double gbs = bench_read_gbs(b->ctx.pool, buffer, bytes);
            status = decode(b, b->count[i], &seconds, err);
            b->seconds[i][r] = seconds;
            b->of_reading[i][r] = bytes_read(b, b->count[i]) / seconds / 1e9 / gbs;
        }
    progress_end();
    mem_free(NULL, buffer);
    for (int i = 0; i < b->counts; i++) {
        double s = median(b->seconds[i], b->a->repeat);
        b->rate[i] = b->count[i] * b->a->decode / s;
        b->gbs[i] = bytes_read(b, b->count[i]) / s / 1e9;
        b->share[i] = median(b->of_reading[i], b->a->repeat);
    }
    return status;
}

/* ---- the chart ---- */

enum { WIDTH = 720, HEIGHT = 440, LEFT = 80, RIGHT = 130, TOP = 50, BOTTOM = 50 };

static double px(const bench *b, int i) {
    return b->counts > 1 ? LEFT + (double)i / (b->counts - 1) * (WIDTH - LEFT - RIGHT) : LEFT;
}

static double py(double y, double most) {
    return HEIGHT - BOTTOM - (y < most ? y : most) / most * (HEIGHT - TOP - BOTTOM);
}

static void draw_line(sbuf *s, const bench *b, const double *y, double most, const char *colour, const char *name,
                      bool dashed) {
    sbuf_fmt(s, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2\"%s points=\"", colour,
             dashed ? " stroke-dasharray=\"5 4\"" : "");
    for (int i = 0; i < b->counts; i++) sbuf_fmt(s, "%.1f,%.1f ", px(b, i), py(y[i], most));
    sbuf_str(s, "\"/>\n");
    for (int i = 0; i < b->counts; i++)
        sbuf_fmt(s, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"2.5\" fill=\"%s\"/>\n", px(b, i), py(y[i], most), colour);
    sbuf_fmt(s, "<text x=\"%d\" y=\"%.1f\" font-size=\"12\" fill=\"%s\">%s</text>\n", WIDTH - RIGHT + 8,
             py(y[b->counts - 1], most) + 4, colour, name);
}

static gist_status draw_chart(const bench *b, gist_error *err) {
    double most = 0, tick = 1, each[COUNTS];
    sbuf s;
    out_file out;
    for (int i = 0; i < b->counts; i++) {
        most = b->rate[i] > most ? b->rate[i] : most;
        each[i] = b->rate[i] / b->count[i];
    }
    for (int i = 0; most / tick > 8; i++) tick *= i % 3 == 1 ? 2.5 : 2;
    most *= 1.05;
    sbuf_init(&s, NULL);
    sbuf_fmt(&s,
             "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\">\n"
             "<rect width=\"%d\" height=\"%d\" fill=\"#fff\"/>\n<g font-size=\"12\" fill=\"#555\">\n",
             WIDTH, HEIGHT, WIDTH, HEIGHT);
    for (double y = 0; y <= most; y += tick)
        sbuf_fmt(&s,
                 "<path d=\"M%d %.1fH%d\" stroke=\"#ddd\"/>"
                 "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%g</text>\n",
                 LEFT, py(y, most), WIDTH - RIGHT, LEFT - 8, py(y, most) + 4, y);
    for (int i = 0; i < b->counts; i++)
        sbuf_fmt(&s, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%d</text>\n", px(b, i), HEIGHT - BOTTOM + 18,
                 b->count[i]);
    sbuf_fmt(&s,
             "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">sessions</text>\n"
             "<text x=\"%d\" y=\"38\">tokens/s</text>\n"
             "<text x=\"%d\" y=\"20\" font-size=\"14\" fill=\"#222\">Batched decode, %d to %d tokens held</text>\n"
             "</g>\n",
             (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, LEFT - 40, LEFT - 40, b->a->prompt, b->a->prompt + b->a->decode);
    draw_line(&s, b, b->rate, most, "#1b9e77", "all sessions", false);
    draw_line(&s, b, each, most, "#d95f02", "each session", true);
    sbuf_str(&s, "</svg>\n");
    gist_status status = s.failed ? err_memory(err, "chart") : out_open(&out, NULL, b->a->svg, err);
    if (status == GIST_OK) {
        out_write(&out, s.p, s.len);
        status = out_commit(&out, err);
    }
    sbuf_free(&s);
    return status;
}

/* ---- printing ---- */

static gist_status print_json(const bench *b, gist_error *err) {
    json_t *list = json_array();
    int bad = !list;
    for (int i = 0; i < b->counts && !bad; i++)
        bad = json_array_append_new(list, json_pack("{s:i, s:f, s:f, s:f, s:f}", "sessions", b->count[i],
                                                    "tokens_per_second", b->rate[i], "each", b->rate[i] / b->count[i],
                                                    "gbs", b->gbs[i], "share_of_bandwidth", b->share[i]));
    if (bad) {
        json_decref(list);
        list = NULL;
    }
    return json_print(list ? json_pack("{s:s, s:s, s:s, s:s, s:i, s:i, s:i, s:o}", "model",
                                       b->a->model.path ? b->a->model.path : b->a->shape, "type",
                                       dt_name(engine_model(b->e)->layers[0].wq.type), "kv",
                                       dt_name(kv_dtype((gist_type)b->a->kv)), "kernels",
                                       gist_kernels_name(op_level(&b->ctx)), "threads", pool_size(b->ctx.pool),
                                       "prompt", b->a->prompt, "decode", b->a->decode, "batches", list)
                           : NULL,
                      err);
}

static void print_text(const bench *b) {
    printf("model    %s%s, weights %s, KV %s, %s kernels, %d thread%s; %d to %d tokens held by each session\n\n",
           b->a->model.path ? b->a->model.path : b->a->shape, b->a->model.path ? "" : " (random weights)",
           dt_name(engine_model(b->e)->layers[0].wq.type), dt_name(kv_dtype((gist_type)b->a->kv)),
           gist_kernels_name(op_level(&b->ctx)), pool_size(b->ctx.pool), pool_size(b->ctx.pool) == 1 ? "" : "s",
           b->a->prompt, b->a->prompt + b->a->decode);
    printf("sessions     tokens/s         each   ms/step   times the first      GB/s  of reading   (medians of %d)\n",
           b->a->repeat);
    for (int i = 0; i < b->counts; i++)
        printf("%8d  %11.1f  %11.1f  %8.2f  %16.2f  %8.2f  %7.1f %%\n", b->count[i], b->rate[i],
               b->rate[i] / b->count[i], 1e3 * b->count[i] / b->rate[i], b->rate[i] / b->rate[0], b->gbs[i],
               100 * b->share[i]);
}

/* ---- the model ---- */

static gist_status run_bench(bench *b, gist_error *err) {
    gist_status status = measure(b, err);
    progress_end();
    if (status == GIST_OK && b->a->svg) status = draw_chart(b, err);
    if (status == GIST_OK && b->a->json) status = print_json(b, err);
    if (status == GIST_OK && !b->a->json) print_text(b);
    for (int i = 0; i < MOST; i++) gist_session_close(b->session[i]);
    mem_free(NULL, b->ids);
    mem_free(NULL, b->logits);
    return status;
}

static gist_status random_model(bench *b, gist_error *err) {
    const batch_args *a = b->a;
    llama_config c;
    llama_model m;
    int need = a->prompt + a->decode;
    TRY(bench_shape(a->shape, need > 2048 ? need : 2048, &c, err));
    if (c.encoder) return err_set(err, GIST_ERR_UNSUPPORTED, "batches of %s are not measured here", a->shape);
    progress("making random weights ...");
    gist_status status =
        llama_random(&m, &c, a->model.type == GIST_TYPE_F32 ? DT_F32 : DT_BF16, a->seed, &b->ctx, mem_default(), err);
    progress_end();
    TRY(status);
    status = engine_borrow(&m, NULL, NULL, &b->ctx, mem_default(), &b->e, err);
    if (status == GIST_OK) status = run_bench(b, err);
    gist_engine_close(b->e);
    llama_free(&m);
    return status;
}

static gist_status real_model(bench *b, gist_error *err) {
    TRY(open_engine(&b->a->model, false, &b->e, NULL, err));
    gist_status status = run_bench(b, err);
    gist_engine_close(b->e);
    return status;
}

static gist_status bench_batch(bench *b, gist_error *err) {
    pool *p = NULL;
    TRY(pool_create(mem_default(), b->a->model.threads, &p, err));
    gist_status status = op_init(&b->ctx, (gist_kernels)b->a->model.kernels, p, err);
    if (status == GIST_OK) status = b->a->model.path ? real_model(b, err) : random_model(b, err);
    pool_free(p);
    return status;
}

static bool read_counts(bench *b, const char *said) {
    b->counts = number_list(said, MOST, b->count, COUNTS);
    for (int i = 0; i < b->counts; i++) b->most = b->count[i] > b->most ? b->count[i] : b->most;
    return b->counts > 0;
}

static int run(const command *self, int argc, char **argv) {
    batch_args a = { 0 };
    int done = options_parse(self, &a, argc, argv);
    if (done != OPTIONS_GO) return done;
    if (a.model.path && strcmp(a.shape, DEFAULT_SHAPE) != 0)
        return usage_error(self, "bench batch: give either -m or --shape");
    gist_error err = { 0 };
    bench *b = mem_calloc(NULL, 1, sizeof *b);
    if (!b) {
        err_memory(&err, "measurements");
        return fail(&err);
    }
    b->a = &a;
    a.model.template_name = "paper";
    int status;
    if (!read_counts(b, a.sessions))
        status = usage_error(self, "bench batch: --sessions: %.60s is not a list of up to %d numbers from 1 to %d",
                             a.sessions, COUNTS, MOST);
    else
        status = bench_batch(b, &err) == GIST_OK ? EXIT_DONE : fail(&err);
    mem_free(NULL, b);
    return status;
}

const command cmd_bench_batch = {
    .group = "Measure",
    .name = "bench batch",
    .summary = "decoding with many sessions at once: tokens/s against their number",
    .usage = "[-m MODEL | --shape SHAPE] [--sessions N,N,...] [--svg FILE]",
    .details = "GB/s count the packed matrices once per step, and every session's own keys and values.",
    .example = "gist bench batch --shape tinyllama-1.1b --sessions 1,2,4,8,16,32 --svg batch.svg",
    .options = table,
    .count = sizeof table / sizeof *table,
    .run = run,
};
