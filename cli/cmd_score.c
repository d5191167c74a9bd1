/* cmd_score.c - gist score: ROUGE and exact match of a file of predictions, with bootstrap intervals. */
#include "cli.h"
#include "eval/eval.h"

typedef struct score_args {
    const char *path, *per_example;
    int resamples, threads;
    uint64_t seed;
    bool json;
} score_args;

static const option table[] = {
    OPT_HEADING("Predictions"),
    OPT_NEED_TEXT(score_args, path, 0, NULL, "PREDICTIONS",
                  "CSV with columns y_pred and y_true, or JSON Lines with these keys (or: prediction, reference); "
                  "- standard input"),
    OPT_HEADING("Interval"),
    OPT_INT(score_args, resamples, 0, "bootstrap", "N", 0, 1000000, "1000",
            "resamples for the 95 % interval of each mean; 0: none"),
    OPT_SEED(score_args, seed, 0, "seed", "0", "of the resamples: one seed, one interval"),
    OPT_HEADING("Output"),
    OPT_TEXT(score_args, per_example, 0, "per-example", "FILE", NULL, "each example's scores, 0 to 1, as CSV"),
    OPT_JSON(score_args, json),
    OPT_HEADING("Machine"),
    OPT_INT(score_args, threads, 't', "threads", "N", 0, 256, "0",
            "threads; 0: one per core; results do not depend on it"),
};

static gist_status read_pairs(eval_pairs *pairs, const char *path, gist_error *err) {
    if (strcmp(path, "-") != 0) return eval_pairs_open(pairs, mem_default(), path, err);
    text in = { 0 };
    gist_status status = text_read(&in, NULL, "-", false, err);
    if (status == GIST_OK) status = eval_pairs_parse(pairs, mem_default(), in.p, in.len, "standard input", err);
    text_free(&in);
    return status;
}

static void add_row(sbuf *s, const eval_pair *pair, const eval_row *row) {
    sbuf_fmt(s, "%d", pair->line);
    for (int m = 0; m < EVAL_METRICS; m++) sbuf_fmt(s, ",%.9g", row->score[m]);
    sbuf_fmt(s, ",%d,%d\n", row->predicted, row->expected);
}

static gist_status write_rows(const char *path, const eval_pairs *pairs, const eval_row *rows, gist_error *err) {
    out_file out;
    sbuf line;
    TRY(out_open(&out, mem_default(), path, err));
    sbuf_init(&line, NULL);
    sbuf_str(&line, "line");
    for (int m = 0; m < EVAL_METRICS; m++) sbuf_fmt(&line, ",%s", eval_metric_names[m]);
    sbuf_str(&line, ",words_pred,words_true\n");
    for (int i = 0; i < pairs->n && !line.failed; i++) {
        add_row(&line, &pairs->pair[i], &rows[i]);
        if (line.len < 4096) continue;
        out_write(&out, line.p, line.len);
        line.len = 0;
    }
    bool failed = line.failed;
    if (!failed) out_write(&out, line.p, line.len);
    sbuf_free(&line);
    if (!failed) return out_commit(&out, err);
    out_abort(&out);
    return err_memory(err, path);
}

static gist_status print_json(const score_args *a, int n, const eval_summary *s, gist_error *err) {
    char digits[24]; /* a seed that JSON integers of 64 bits do not reach is told as text */
    snprintf(digits, sizeof digits, "%llu", (unsigned long long)a->seed);
    json_t *seed = a->seed > INT64_MAX ? json_string(digits) : json_integer((json_int_t)a->seed);
    json_t *root = json_pack("{s:o, s:i, s:i, s:o}", "predictions", json_text_of(a->path, strlen(a->path)), "pairs", n,
                             "bootstrap", a->resamples, "seed", seed);
    int bad = !root;
    for (int m = 0; m < EVAL_METRICS && !bad; m++) {
        json_t *score = json_pack("{s:f}", "mean", 100 * s->mean[m]);
        if (a->resamples) bad = json_object_set_new(score, "low", json_real(100 * s->low[m]));
        if (a->resamples) bad = json_object_set_new(score, "high", json_real(100 * s->high[m])) || bad;
        bad = json_object_set_new(root, eval_metric_names[m], score) || bad;
    }
    bad = bad || json_object_set_new(root, "words",
                                     json_pack("{s:f, s:f}", "prediction", s->predicted, "reference", s->expected));
    if (bad) {
        json_decref(root);
        root = NULL;
    }
    return json_print(root, err);
}

static void print_text(const score_args *a, int n, const eval_summary *s) {
    printf("predictions    %s, %d pairs\n", a->path, n);
    for (int m = 0; m < EVAL_METRICS; m++) {
        printf("%-14s %6.2f", eval_metric_names[m], 100 * s->mean[m]);
        if (a->resamples) printf("  [%.2f, %.2f]", 100 * s->low[m], 100 * s->high[m]);
        putchar('\n');
    }
    printf("words          prediction %.1f, reference %.1f\n", s->predicted, s->expected);
    if (a->resamples)
        printf("interval       95 %%, %d resamples, seed %llu\n", a->resamples, (unsigned long long)a->seed);
}

static gist_status score(const score_args *a, const eval_pairs *pairs, pool *p, eval_row *rows, gist_error *err) {
    eval_summary s;
    gist_error why = { 0 };
    if (eval_score_pairs(pairs, p, rows, &why) != GIST_OK) return err_set(err, why.code, "%s: %s", a->path, why.msg);
    TRY(eval_summarise(rows, pairs->n, a->resamples, a->seed, p, mem_default(), &s, err));
    if (a->per_example) TRY(write_rows(a->per_example, pairs, rows, err));
    if (a->json) return print_json(a, pairs->n, &s, err);
    print_text(a, pairs->n, &s);
    return GIST_OK;
}

static int run(const command *self, int argc, char **argv) {
    score_args a = { 0 };
    int done = options_parse(self, &a, argc, argv);
    if (done != OPTIONS_GO) return done;
    gist_error err = { 0 };
    eval_pairs pairs = { .alloc = mem_default() };
    eval_row *rows = NULL;
    pool *p = NULL;
    gist_status status = read_pairs(&pairs, a.path, &err);
    if (status == GIST_OK) status = pool_create(mem_default(), a.threads, &p, &err);
    if (status == GIST_OK && !(rows = mem_alloc(NULL, (size_t)pairs.n, sizeof *rows)))
        status = err_memory(&err, "scores");
    if (status == GIST_OK) status = score(&a, &pairs, p, rows, &err);
    mem_free(NULL, rows);
    pool_free(p);
    eval_pairs_free(&pairs);
    return status == GIST_OK ? EXIT_DONE : fail(&err);
}

const command cmd_score = {
    .group = "Measure",
    .name = "score",
    .summary = "ROUGE and exact match of a file of predictions",
    .usage = "PREDICTIONS [--bootstrap N] [--per-example FILE]",
    .details =
        "Words are lower-cased runs of a-z and 0-9, stemmed when longer than 3 letters.  Scores are F1, mean x 100,\n"
        "equal to those of the Python package rouge_score with use_stemmer=True; rougeLsum goes line by line.",
    .example = "gist score predictions.csv --per-example scores.csv\n"
               "gist score predictions.jsonl --json --bootstrap 10000 --seed 1",
    .options = table,
    .count = sizeof table / sizeof *table,
    .run = run,
};
