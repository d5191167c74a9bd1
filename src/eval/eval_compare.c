/* eval_compare.c - the scores of several conditions on one split, and how much of the prompt's worth each retains.
 *
 *     retention = (score - lower) / (upper - lower)      over the prompts that the condition has
 *
 * Examples of a prompt are not independent, so a resample draws prompts and all their examples with them; it draws the
 * same ones for every column, so a ratio of columns is resampled as a pair.  Which column is `upper` is decided once,
 * on the whole sample.  A ratio whose denominator is not positive does not exist, nor then does an interval in whose
 * resamples that happens.
 */
#include <math.h>

#include "eval/eval_int.h"

static const int metric[EVAL_BYS] = { EVAL_ROUGE_L, EVAL_EXACT };

/* Of one column and prompt. */
typedef struct part {
    double sum[EVAL_BYS];
    int n;
} part;

typedef struct comparison {
    const eval_column *column;
    int columns, prompts, resamples;
    part *part;    /* [columns][prompts] */
    int *weight;   /* [prompts] times drawn */
    double *drawn; /* [columns][2 * EVAL_BYS][resamples] */
    int (*upper)[EVAL_BYS]; /* [columns] which column serves; -1: none */
} comparison;

/* Mean of column c over the prompts that column `of` has. */
static double mean(const comparison *x, int c, int of, int m) {
    double sum = 0, n = 0;
    const part *p = x->part + (size_t)c * (size_t)x->prompts, *mask = x->part + (size_t)of * (size_t)x->prompts;
    for (int i = 0; i < x->prompts; i++) {
        if (!mask[i].n) continue;
        sum += x->weight[i] * p[i].sum[m];
        n += (double)x->weight[i] * p[i].n;
    }
    return n > 0 ? sum / n : (double)NAN;
}

static double retention(const comparison *x, int c, int m) {
    int lower = x->column[c].lower, upper = x->upper[c][m];
    if (lower < 0 || upper < 0) return (double)NAN;
    double low = mean(x, lower, c, m), high = mean(x, upper, c, m);
    return high > low ? (mean(x, c, c, m) - low) / (high - low) : (double)NAN;
}

static void choose_upper(comparison *x, int c) {
    for (int m = 0; m < EVAL_BYS; m++) {
        int a = x->column[c].upper[0], b = x->column[c].upper[1];
        x->upper[c][m] = a < 0 ? b : b < 0 ? a : mean(x, b, c, m) > mean(x, a, c, m) ? b : a;
    }
}

static void collect(comparison *x, const int *prompt, int n) {
    for (int c = 0; c < x->columns; c++)
        for (int i = 0; i < n; i++) {
            part *p = &x->part[(size_t)c * (size_t)x->prompts + (size_t)prompt[i]];
            if (x->column[c].in && !x->column[c].in[i]) continue;
            for (int m = 0; m < EVAL_BYS; m++) p->sum[m] += x->column[c].rows[i].score[metric[m]];
            p->n++;
        }
}

static double *drawn(const comparison *x, int c, int which) {
    return x->drawn + ((size_t)c * 2 * EVAL_BYS + (size_t)which) * (size_t)x->resamples;
}

static void resample(comparison *x, uint64_t seed) {
    rng r;
    rng_seed(&r, seed);
    for (int i = 0; i < x->resamples; i++) {
        memset(x->weight, 0, (size_t)x->prompts * sizeof *x->weight);
        for (int p = 0; p < x->prompts; p++) x->weight[rng_below(&r, (uint64_t)x->prompts)]++;
        for (int c = 0; c < x->columns; c++)
            for (int m = 0; m < EVAL_BYS; m++) {
                drawn(x, c, m)[i] = mean(x, c, c, m);
                drawn(x, c, EVAL_BYS + m)[i] = retention(x, c, m);
            }
    }
}

static eval_figure figure(double value, double *of, int n) {
    eval_figure f = { value, value, value };
    for (int i = 0; i < n; i++)
        if (isnan(of[i])) return (eval_figure){ value, (double)NAN, (double)NAN };
    if (n == 0 || isnan(value)) return f;
    eval_middle(of, n, &f.low, &f.high);
    return f;
}

static void fill(comparison *x, uint64_t seed, eval_cell *cells) {
    for (int p = 0; p < x->prompts; p++) x->weight[p] = 1;
    for (int c = 0; c < x->columns; c++) {
        eval_cell *cell = &cells[c];
        *cell = (eval_cell){ .n = 0 };
        choose_upper(x, c);
        for (int m = 0; m < EVAL_BYS; m++) {
            cell->score[m].mean = mean(x, c, c, m);
            cell->retention[m].mean = retention(x, c, m);
        }
        for (int p = 0; p < x->prompts; p++) {
            int n = x->part[(size_t)c * (size_t)x->prompts + (size_t)p].n;
            cell->n += n;
            cell->prompts += n > 0;
        }
    }
    resample(x, seed);
    for (int c = 0; c < x->columns; c++)
        for (int m = 0; m < EVAL_BYS; m++) {
            cells[c].score[m] = figure(cells[c].score[m].mean, drawn(x, c, m), x->resamples);
            cells[c].retention[m] = figure(cells[c].retention[m].mean, drawn(x, c, EVAL_BYS + m), x->resamples);
        }
}

gist_status eval_compare(const eval_column *column, int columns, const int *prompt, int n, int prompts, int resamples,
                         uint64_t seed, const gist_allocator *alloc, eval_cell *cells, gist_error *err) {
    size_t C = (size_t)columns, P = (size_t)prompts, all;
    comparison x = { .column = column, .columns = columns, .prompts = prompts, .resamples = resamples };
    if (!size_mul(C, P, &all)) return err_memory(err, "scores");
    x.part = mem_calloc(alloc, all, sizeof *x.part);
    x.weight = mem_calloc(alloc, P, sizeof *x.weight);
    x.drawn = mem_alloc(alloc, C * 2 * EVAL_BYS, (size_t)resamples * sizeof *x.drawn);
    x.upper = mem_alloc(alloc, C, sizeof *x.upper);
    bool ok = x.part && x.weight && x.drawn && x.upper;
    if (ok) {
        collect(&x, prompt, n);
        fill(&x, seed, cells);
    }
    mem_free(alloc, x.part);
    mem_free(alloc, x.weight);
    mem_free(alloc, x.drawn);
    mem_free(alloc, x.upper);
    return ok ? GIST_OK : err_memory(err, "scores");
}

int eval_largest_k(const int *k, int count, int tokens, int factor) {
    int best = 0;
    for (int i = 0; i < count; i++)
        if (k[i] > best && tokens >= (int64_t)factor * k[i]) best = k[i];
    return best;
}

void eval_csv_field(sbuf *out, eval_text text) {
    bool quoted = text.len == 0;
    for (size_t i = 0; i < text.len && !quoted; i++) quoted = strchr(",\"\r\n", text.p[i]) && text.p[i];
    if (!quoted) {
        sbuf_add(out, text.p, text.len);
        return;
    }
    sbuf_str(out, "\"");
    for (size_t i = 0; i < text.len; i++) {
        if (text.p[i] == '"') sbuf_str(out, "\"");
        sbuf_add(out, text.p + i, 1);
    }
    sbuf_str(out, "\"");
}
