/* eval_curve.c - retention against compression: the answers of all k, sorted by what each k makes of each prompt.
 *
 *     factor = prompt tokens / k        bin 0: below 1;  bin i: [2^((i-1)/2), 2^(i/2))
 *
 * An example answered under several k counts once for each.  A bin is compared as eval_compare compares columns: its
 * lower and upper are those of the same examples, each as often, and a resample draws prompts.
 */
#include <math.h>

#include "eval/eval.h"

enum { COLUMNS = 4 }; /* of a bin: gist, lower, upper, upper */

typedef struct curve {
    const eval_curve_part *part;
    const int *tokens;
    size_t n, rows;    /* rows: parts x n */
    uint8_t *bin, *in; /* [rows], [EVAL_BINS][rows] */
    int *prompt;       /* [rows] */
    eval_row *of;      /* [COLUMNS][rows] */
    eval_column column[EVAL_BINS * COLUMNS];
    eval_cell cell[EVAL_BINS * COLUMNS];
    bool has[COLUMNS];
} curve;

static double edge(int i) {
    return i == 0 ? 0 : pow(2, (i - 1) / 2.0);
}

static int bin_of(double factor) {
    int i = 0;
    while (i + 1 < EVAL_BINS && factor >= edge(i + 1)) i++;
    return i;
}

static void spread(curve *x, int parts, const int *prompt) {
    for (int c = 0; c < COLUMNS; c++) x->has[c] = true;
    for (int p = 0; p < parts; p++) {
        const eval_curve_part *part = &x->part[p];
        const eval_row *of[COLUMNS] = { part->rows, part->lower, part->upper[0], part->upper[1] };
        size_t at = (size_t)p * x->n;
        for (int c = 0; c < COLUMNS; c++) {
            x->has[c] = x->has[c] && of[c];
            if (of[c]) memcpy(x->of + (size_t)c * x->rows + at, of[c], x->n * sizeof *of[c]);
        }
        for (size_t i = 0; i < x->n; i++) {
            int bin = bin_of((double)x->tokens[i] / part->k);
            x->prompt[at + i] = prompt[i];
            x->bin[at + i] = (uint8_t)bin;
            x->in[(size_t)bin * x->rows + at + i] = 1;
        }
    }
}

static double mean_factor(const curve *x, int bin, int *n) {
    double sum = 0;
    *n = 0;
    for (size_t i = 0; i < x->rows; i++) {
        if (x->bin[i] != bin) continue;
        sum += (double)x->tokens[i % x->n] / x->part[i / x->n].k;
        ++*n;
    }
    return *n ? sum / *n : 0;
}

/* Bins that hold something, and their columns. */
static int fill(curve *x, eval_bin *bin) {
    int bins = 0;
    for (int b = 0; b < EVAL_BINS; b++) {
        int n, at = bins * COLUMNS;
        double factor = mean_factor(x, b, &n);
        if (!n) continue;
        for (int c = 0; c < COLUMNS; c++)
            x->column[at + c] = (eval_column){ .rows = x->of + (size_t)c * x->rows,
                                               .in = x->in + (size_t)b * x->rows,
                                               .lower = -1,
                                               .upper = { -1, -1 } };
        if (x->has[1]) x->column[at].lower = at + 1;
        for (int u = 0; u < 2; u++)
            if (x->has[2 + u]) x->column[at].upper[u] = at + 2 + u;
        bin[bins++] = (eval_bin){ .from = edge(b), .to = edge(b + 1), .factor = factor };
    }
    return bins;
}

gist_status eval_curve(const eval_curve_part *part, int parts, const int *tokens, const int *prompt, int n, int prompts,
                       int resamples, uint64_t seed, const gist_allocator *alloc, eval_bin *bin, int *bins,
                       gist_error *err) {
    *bins = 0;
    if (parts < 1 || n < 1) return GIST_OK;
    curve *x = mem_calloc(alloc, 1, sizeof *x);
    if (!x) return err_memory(err, "curve");
    x->part = part;
    x->tokens = tokens;
    x->n = (size_t)n;
    bool ok = size_mul(x->n, (size_t)parts, &x->rows) && x->rows <= INT32_MAX;
    if (ok) {
        x->bin = mem_calloc(alloc, x->rows, 1);
        x->in = mem_calloc(alloc, x->rows, EVAL_BINS);
        x->prompt = mem_alloc(alloc, x->rows, sizeof *x->prompt);
        x->of = mem_calloc(alloc, x->rows, COLUMNS * sizeof *x->of);
    }
    gist_status status = ok && x->bin && x->in && x->prompt && x->of ? GIST_OK : err_memory(err, "curve");
    int found = 0;
    if (status == GIST_OK) {
        spread(x, parts, prompt);
        found = fill(x, bin);
        status = eval_compare(x->column, found * COLUMNS, x->prompt, (int)x->rows, prompts, resamples, seed, alloc,
                              x->cell, err);
    }
    if (status == GIST_OK) {
        for (int b = 0; b < found; b++) bin[b].cell = x->cell[b * COLUMNS];
        *bins = found;
    }
    mem_free(alloc, x->bin);
    mem_free(alloc, x->in);
    mem_free(alloc, x->prompt);
    mem_free(alloc, x->of);
    mem_free(alloc, x);
    return status;
}
