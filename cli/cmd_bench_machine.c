/* cmd_bench_machine.c - gist bench machine: what this machine can do at most. */
#include "bench.h"

typedef struct machine_args {
    int threads, buffer, repeat;
    bool json;
} machine_args;

static const option table[] = {
    OPT_HEADING("Options"),
    OPT_INT(machine_args, threads, 't', "threads", "N", 0, 256, "0", "threads; 0: one per core"),
    OPT_INT(machine_args, buffer, 0, "buffer", "MIB", 64, 1 << 20, "1024",
            "memory to read; far more than the caches hold"),
    OPT_INT(machine_args, repeat, 'r', "repeat", "N", 1, BENCH_MAX_REPEAT, "7", "rounds; medians are printed"),
    OPT_JSON(machine_args, json),
};

static gist_status print_json(const machine_args *a, int threads, double gbs, const double *gflops, gist_error *err) {
    json_t *peaks = json_pack("{s:f}", "f32", gflops[BENCH_F32]);
    if (peaks && bench_unit_name(BENCH_BF16)) json_object_set_new(peaks, "bf16", json_real(gflops[BENCH_BF16]));
    if (peaks && bench_unit_name(BENCH_INT8)) json_object_set_new(peaks, "int8", json_real(gflops[BENCH_INT8]));
    return json_print(json_pack("{s:i, s:i, s:i, s:f, s:o}", "threads", threads, "rounds", a->repeat, "buffer_mib",
                                a->buffer, "read_gbs", gbs, "gflops", peaks),
                      err);
}

static void print_text(const machine_args *a, int threads, double gbs, const double *gflops) {
    printf("threads        %d\n", threads);
    printf("reading        %.1f GB/s  (%d MiB, median of %d)\n", gbs, a->buffer, a->repeat);
    printf("f32            %.0f GFLOP/s  (%s)\n", gflops[BENCH_F32], bench_unit_name(BENCH_F32));
    if (bench_unit_name(BENCH_BF16))
        printf("bf16           %.0f GFLOP/s  (%s)\n", gflops[BENCH_BF16], bench_unit_name(BENCH_BF16));
    else
        printf("bf16           no unit of its own on this CPU: bf16 runs through f32\n");
    if (bench_unit_name(BENCH_INT8))
        printf("int8           %.0f GOP/s  (%s)\n", gflops[BENCH_INT8], bench_unit_name(BENCH_INT8));
}

static gist_status measure(const machine_args *a, pool *p, gist_error *err) {
    double read[BENCH_MAX_REPEAT], peak[BENCH_UNITS][BENCH_MAX_REPEAT], gflops[BENCH_UNITS];
    size_t bytes = (size_t)a->buffer << 20;
    void *buffer = bench_buffer(p, bytes);
    if (!buffer) return err_set(err, GIST_ERR_MEMORY, "out of memory: %d MiB to read", a->buffer);
    for (int i = 0; i < a->repeat; i++) {
        progress("round %d of %d", i + 1, a->repeat);
        read[i] = bench_read_gbs(p, buffer, bytes);
        for (int u = 0; u < BENCH_UNITS; u++) peak[u][i] = bench_gflops(p, (bench_unit)u);
    }
    progress_end();
    mem_free(NULL, buffer);
    double gbs = median(read, a->repeat);
    for (int u = 0; u < BENCH_UNITS; u++) gflops[u] = median(peak[u], a->repeat);
    if (a->json) return print_json(a, pool_size(p), gbs, gflops, err);
    print_text(a, pool_size(p), gbs, gflops);
    return GIST_OK;
}

static int run(const command *self, int argc, char **argv) {
    machine_args a = { 0 };
    int done = options_parse(self, &a, argc, argv);
    if (done != OPTIONS_GO) return done;
    gist_error err = { 0 };
    pool *p = NULL;
    gist_status status = pool_create(mem_default(), a.threads, &p, &err);
    if (status == GIST_OK) status = measure(&a, p, &err);
    pool_free(p);
    return status == GIST_OK ? EXIT_DONE : fail(&err);
}

const command cmd_bench_machine = {
    .group = "Measure",
    .name = "bench machine",
    .summary = "read bandwidth, and peaks of f32, bf16 and int8",
    .usage = "[--threads N] [--buffer MIB] [--repeat N] [--json]",
    .details = "1 GB is 10^9 bytes; a multiply-add counts as 2 operations.",
    .example = "gist bench machine",
    .options = table,
    .count = sizeof table / sizeof *table,
    .run = run,
};
