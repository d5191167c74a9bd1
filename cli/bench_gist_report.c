/* bench_gist_report.c - what bench gist found: a table, JSON, and a CSV with a line for every pass. */
#include <math.h>

#include "bench_gist.h"

static double mean_tokens(const bench_gist *b, const bench_group *g, bool input) {
    double sum = 0;
    for (int i = g->first; i < g->first + g->n; i++) sum += input ? b->items.item[i].input : b->items.item[i].prompt;
    return sum / g->n;
}

/* What is saved of one metric as a share of what is saved of another. */
static double kept(const bench_summary *s, bench_metric m, bench_metric of) {
    return s->saving[m][WAY_NONE].mean / s->saving[of][WAY_NONE].mean;
}

/* ---- the table ---- */

static void number(FILE *out, double x, int digits) {
    if (isnan(x))
        fprintf(out, "  %13s", "-");
    else
        fprintf(out, "  %13.*f", digits > 0 && x > 0 && x < 1 ? 4 : digits, x);
}

static void saving(FILE *out, const eval_saving *s) {
    char shown[64] = "-";
    if (!isnan(s->mean) && s->high > s->low)
        snprintf(shown, sizeof shown, "%.1f %% [%.1f, %.1f]", 100 * s->mean, 100 * s->low, 100 * s->high);
    else if (!isnan(s->mean))
        snprintf(shown, sizeof shown, "%.1f %%", 100 * s->mean);
    fprintf(out, "  %22s", shown);
}

static void table_row(const bench_summary *s, bench_metric m, bool medians, FILE *out) {
    char title[40];
    snprintf(title, sizeof title, "%s%s", bench_metrics[m].title, medians ? ", median" : "");
    fprintf(out, "%-24s", title);
    for (int w = 0; w < WAYS; w++)
        number(out, medians ? s->of[m][w].median : s->of[m][w].mean, bench_metrics[m].digits);
    for (int w = 0; w < WAY_GIST && !medians; w++) saving(out, &s->saving[m][w]);
    fputc('\n', out);
}

static void table_group(const bench_gist *b, int group, const bench_summary *s, FILE *out) {
    const bench_group *g = &b->items.group[group];
    fprintf(out, "\n%s: %d example%s, %d repeat%s; mean tokens: prompt %.2f, gist %d, input %.2f, in all %.2f\n",
            g->name, g->n, g->n == 1 ? "" : "s", b->repeats, b->repeats == 1 ? "" : "s", mean_tokens(b, g, false), b->k,
            mean_tokens(b, g, true), mean_tokens(b, g, false) + b->k + mean_tokens(b, g, true));
    fprintf(out, "%-24s  %13s  %13s  %13s  %22s  %22s\n", "mean of each", "no cache", "full prefix", "gist",
            "gist saves of no cache", "of full prefix");
    for (int m = 0; m < METRICS; m++) {
        if (!bench_has(b, (bench_metric)m, WAY_GIST)) continue;
        table_row(s, (bench_metric)m, false, out);
        if (m == METRIC_FORWARD || m == METRIC_ATTACH || m == METRIC_FIRST || m == METRIC_DECODE)
            table_row(s, (bench_metric)m, true, out);
    }
    if (b->dry) return;
    fprintf(out, "of the FLOPs that the gist saves of no cache, %.1f %% are saved as time to first token\n",
            100 * kept(s, METRIC_FIRST, METRIC_FLOPS));
    fprintf(out,
            "of the time that the roofline saves, %.1f %% are saved as forward time, %.1f %% as time to first token\n",
            100 * kept(s, METRIC_FORWARD, METRIC_ROOF), 100 * kept(s, METRIC_FIRST, METRIC_ROOF));
}

static double middle(const double *x, int n) { /* of a copy: x stays in order */
    double *copy = mem_alloc(NULL, (size_t)n, sizeof *copy);
    if (!copy) return (double)NAN;
    memcpy(copy, x, (size_t)n * sizeof *copy);
    double m = median(copy, n);
    mem_free(NULL, copy);
    return m;
}

void bench_gist_table(const bench_gist *b, const bench_summary *s, FILE *out) {
    fprintf(out, "model    %s%s: ", b->model, b->dry ? " (its shape)" : b->random_weights ? " (random weights)" : "");
    if (b->is_t5)
        fprintf(out, "%d + %d layers, width %d, feed-forward %d, %d heads of %d, vocabulary %d\n", b->t5.layers,
                b->t5.decoder_layers, b->t5.C, b->t5.F, b->t5.H, b->t5.D, b->t5.V);
    else
        fprintf(out, "%d layers, width %d, feed-forward %d, %d heads, %d key/value heads, vocabulary %d\n", b->cfg.L,
                b->cfg.C, b->cfg.F, b->cfg.H, b->cfg.G, b->cfg.V);
    if (b->dry)
        fprintf(out, "dry      nothing was run; caches in %s\n", dt_name(b->kv));
    else
        fprintf(out,
                "         weights %s, caches %s, %s kernels, %d thread%s\n"
                "machine  %.0f G operations/s, %.1f GB/s (medians, measured before every three passes)\n",
                dt_name(b->weights), dt_name(b->kv), b->kernels, b->threads, b->threads == 1 ? "" : "s",
                middle(b->peak, b->items.n * b->repeats) / 1e9, middle(b->read, b->items.n * b->repeats) / 1e9);
    for (int g = 0; g < b->items.groups; g++) table_group(b, g, &s[g], out);
    if (b->items.left_out > 0) fprintf(out, "\n%d rows of the data were left out\n", b->items.left_out);
    if (b->resamples > 0)
        fprintf(out, "\nin brackets: 95 %%, paired bootstrap, %d resamples, seed %llu\n", b->resamples,
                (unsigned long long)b->seed);
}

/* ---- JSON ---- */

static json_t *real_or_null(double x) {
    return isnan(x) ? json_null() : json_real(x);
}

static json_t *metric_json(const bench_summary *s, bench_metric m) {
    json_t *o = json_object();
    for (int w = 0; o && w < WAYS; w++) {
        const bench_figure *f = &s->of[m][w];
        json_object_set_new(o, bench_way_names[w],
                            isnan(f->mean) ? json_null()
                                           : json_pack("{s:f, s:f}", "mean", f->mean, "median", f->median));
    }
    for (int w = 0; o && w < WAY_GIST; w++) {
        const eval_saving *v = &s->saving[m][w];
        json_object_set_new(o, w == WAY_NONE ? "saved_of_none" : "saved_of_full",
                            isnan(v->mean)
                                ? json_null()
                                : json_pack("{s:f, s:f, s:f}", "mean", v->mean, "low", v->low, "high", v->high));
    }
    return o;
}

static json_t *group_json(const bench_gist *b, int group, const bench_summary *s) {
    const bench_group *g = &b->items.group[group];
    json_t *o = json_pack("{s:s, s:i, s:f, s:f}", "name", g->name, "examples", g->n, "prompt_tokens",
                          mean_tokens(b, g, false), "input_tokens", mean_tokens(b, g, true));
    for (int m = 0; o && m < METRICS; m++)
        if (bench_has(b, (bench_metric)m, WAY_GIST))
            json_object_set_new(o, bench_metrics[m].key, metric_json(s, (bench_metric)m));
    if (o && !b->dry) {
        json_object_set_new(o, "first_token_of_flops", real_or_null(kept(s, METRIC_FIRST, METRIC_FLOPS)));
        json_object_set_new(o, "first_token_of_roofline", real_or_null(kept(s, METRIC_FIRST, METRIC_ROOF)));
        json_object_set_new(o, "forward_of_roofline", real_or_null(kept(s, METRIC_FORWARD, METRIC_ROOF)));
    }
    return o;
}

json_t *bench_gist_json(const bench_gist *b, const bench_summary *s) {
    json_t *groups = json_array();
    for (int g = 0; groups && g < b->items.groups; g++) json_array_append_new(groups, group_json(b, g, &s[g]));
    json_t *o = json_pack("{s:s, s:b, s:i, s:i, s:i, s:I, s:i, s:s, s:i, s:o}", "model", b->model, "dry", b->dry, "k",
                          b->k, "repeats", b->repeats, "decode", b->decode, "seed", (json_int_t)b->seed, "resamples",
                          b->resamples, "kv", dt_name(b->kv), "left_out", b->items.left_out, "groups", groups);
    if (o && !b->dry) {
        json_object_set_new(o, "weights", json_string(dt_name(b->weights)));
        json_object_set_new(o, "kernels", json_string(b->kernels));
        json_object_set_new(o, "threads", json_integer(b->threads));
        json_object_set_new(o, "peak_gflops", real_or_null(middle(b->peak, b->items.n * b->repeats) / 1e9));
        json_object_set_new(o, "read_gbs", real_or_null(middle(b->read, b->items.n * b->repeats) / 1e9));
    }
    return o;
}

/* ---- CSV ---- */

static void csv_pass(const bench_gist *b, int item, int repeat, bench_way w, sbuf *out) {
    const bench_item *x = &b->items.item[item];
    const char *group = b->items.group[x->group].name;
    eval_csv_field(out, (eval_text){ group, strlen(group) });
    sbuf_fmt(out, ",%d,%d,%s,%d,%d,%d", x->line, repeat + 1, bench_way_names[w], x->prompt, b->k, x->input);
    if (b->dry)
        sbuf_str(out, ",");
    else
        sbuf_fmt(out, ",%d", b->pass[((size_t)item * (size_t)b->repeats + (size_t)repeat) * WAYS + w].order + 1);
    for (int m = 0; m < METRICS; m++) {
        sbuf_str(out, ",");
        if (bench_has(b, (bench_metric)m, w)) sbuf_fmt(out, "%.9g", bench_value(b, item, repeat, w, (bench_metric)m));
    }
    size_t at = (size_t)item * (size_t)b->repeats + (size_t)repeat;
    if (b->dry)
        sbuf_str(out, ",,\n");
    else
        sbuf_fmt(out, ",%.6g,%.6g\n", b->peak[at] / 1e9, b->read[at] / 1e9);
}

void bench_gist_csv(const bench_gist *b, sbuf *out) {
    sbuf_str(out, "group,line,repeat,way,prompt_tokens,k,input_tokens,order");
    for (int m = 0; m < METRICS; m++) sbuf_fmt(out, ",%s", bench_metrics[m].key);
    sbuf_str(out, ",peak_gflops,read_gbs\n");
    for (int i = 0; i < b->items.n; i++)
        for (int r = 0; r < b->repeats; r++)
            for (int w = 0; w < WAYS; w++)
                if (bench_has(b, METRIC_FLOPS, (bench_way)w)) csv_pass(b, i, r, (bench_way)w, out);
}
