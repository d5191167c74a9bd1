/* eval_figures.c - what gist eval finds in the scores of a split's columns.
 *
 *   every column      mean, interval, retention between none and the whole prompt; how often an answer is the stale one
 *   gist.10x          the largest k for each prompt that compresses it so: a column put together of others
 *   groups            the same cells over the rows that have one value of a --by member
 *   curve             retention against each prompt's own compression factor, over all k
 */
#include <math.h>
#include <stdlib.h>

#include "eval_job.h"

static int find_column(const report_split *s, train_condition c, int k) {
    for (int i = 0; i < s->columns; i++) {
        const eval_view *v = &s->column[i].view;
        if (v->c == c && v->k == k && !v->words && !v->budget && !v->other) return i;
    }
    return -1;
}

/* The control for a column of k gist tokens: with as many, else with the most. */
static int control(const job *j, const report_split *s, train_condition c, int k) {
    int at = find_column(s, c, k);
    return at >= 0 ? at : find_column(s, c, j->K);
}

static int lower_of(const job *j, const report_split *s, int k) {
    int none = find_column(s, COND_NONE, 0);
    return none >= 0 ? none : control(j, s, COND_NEG_CONTROL, k);
}

/* ---- columns ---- */

void eval_release_column(report_column *c, int n) {
    if (c->in)
        mem_free(NULL, c->given); /* the texts are others' */
    else
        eval_given_free(c->given, n, NULL);
    mem_free(NULL, c->rows);
    mem_free(NULL, c->in);
    *c = (report_column){ .rows = NULL };
}

/* A column of the largest k for each prompt that compresses it `ratio` times. */
static gist_status add_ratio(const job *j, report_split *s, int ratio) {
    report_column *c = &s->column[s->columns];
    size_t n = (size_t)s->rows.n;
    if (find_column(s, COND_GIST, j->k[0]) < 0) return GIST_OK;
    *c = (report_column){ .view = { .c = COND_GIST } };
    snprintf(c->view.name, sizeof c->view.name, "gist.%dx", ratio);
    c->given = mem_calloc(NULL, n, sizeof *c->given);
    c->rows = mem_calloc(NULL, n, sizeof *c->rows);
    c->in = mem_calloc(NULL, n, 1);
    s->columns++; /* released with the others */
    if (!c->given || !c->rows || !c->in) return err_memory(j->err, "scores");
    int found = 0;
    for (size_t i = 0; i < n; i++) {
        int tokens = s->rows.example[i].prompt_tokens;
        int k = eval_largest_k(j->k, j->k_count, tokens, ratio);
        if (k == 0) continue;
        const report_column *of = &s->column[find_column(s, COND_GIST, k)];
        c->given[i] = of->given[i];
        c->rows[i] = of->rows[i];
        c->in[i] = 1;
        c->tokens += of->given[i].tokens;
        c->factor += (double)tokens / k;
        found++;
    }
    if (found) {
        c->tokens /= found;
        c->factor /= found;
        return GIST_OK;
    }
    s->columns--; /* no prompt is long enough */
    eval_release_column(c, 0);
    return GIST_OK;
}

/* ---- comparing ---- */

/* Compare all columns over the rows of `in` (NULL: all); masks[columns][n] is scratch. */
static gist_status compare(const job *j, const report_split *s, const int *prompt, const uint8_t *in, uint8_t *masks,
                           eval_cell *cell) {
    eval_column column[REPORT_COLUMNS];
    size_t n = (size_t)s->rows.n;
    for (int c = 0; c < s->columns; c++) {
        int k = s->column[c].view.k;
        const uint8_t *own = s->column[c].in;
        column[c] = (eval_column){ .rows = s->column[c].rows, .in = in ? in : own, .lower = lower_of(j, s, k),
                                   .upper = { find_column(s, COND_FULL, 0), control(j, s, COND_POS_CONTROL, k) } };
        if (!in || !own) continue;
        uint8_t *both = masks + (size_t)c * n;
        for (size_t i = 0; i < n; i++) both[i] = in[i] && own[i];
        column[c].in = both;
    }
    return eval_compare(column, s->columns, prompt, s->rows.n, s->rows.prompts, j->a->resamples, j->a->seed,
                        mem_default(), cell, j->err);
}

/* ---- stale answers ---- */

static const json_t *string_of(const eval_example *e, const char *key) {
    const json_t *v = json_object_get(e->row, key);
    return json_is_string(v) ? v : NULL;
}

static bool is_stale(const eval_example *e, const eval_given *g) {
    const json_t *was = string_of(e, "was");
    if (!was || !g->text) return false;
    eval_text a = eval_strip(g->text, g->len), b = eval_strip(json_string_value(was), json_string_length(was));
    return a.len == b.len && memcmp(a.p, b.p, a.len) == 0;
}

/* How often an answer is what a row's "was" says was right before its prompt was edited. */
static gist_status find_stale(const job *j, report_split *s, const int *prompt, uint8_t *masks) {
    size_t n = (size_t)s->rows.n;
    eval_cell cell;
    eval_row *row = mem_calloc(NULL, n, sizeof *row);
    gist_status status = row ? GIST_OK : err_memory(j->err, "scores");
    for (int c = 0; c < s->columns; c++) s->column[c].stale = (eval_figure){ (double)NAN, (double)NAN, (double)NAN };
    for (int c = 0; status == GIST_OK && c < s->columns; c++) {
        const report_column *col = &s->column[c];
        int with = 0;
        for (size_t i = 0; i < n; i++) {
            masks[i] = (!col->in || col->in[i]) && string_of(&s->rows.example[i], "was");
            row[i].score[EVAL_EXACT] = masks[i] && is_stale(&s->rows.example[i], &col->given[i]);
            with += masks[i];
        }
        if (with == 0) continue;
        s->edited = true;
        eval_column column = { .rows = row, .in = masks, .lower = -1, .upper = { -1, -1 } };
        status = eval_compare(&column, 1, prompt, s->rows.n, s->rows.prompts, j->a->resamples, j->a->seed,
                              mem_default(), &cell, j->err);
        s->column[c].stale = cell.score[EVAL_BY_EXACT];
    }
    mem_free(NULL, row);
    return status;
}

/* ---- groups ---- */

typedef struct valued {
    eval_text value;
    int i;
} valued;

static int by_value(const void *a, const void *b) {
    const valued *x = a, *y = b;
    size_t n = x->value.len < y->value.len ? x->value.len : y->value.len;
    int c = memcmp(x->value.p, y->value.p, n);
    if (c == 0) c = (x->value.len > y->value.len) - (x->value.len < y->value.len);
    return c ? c : (x->i > y->i) - (x->i < y->i);
}

static bool same_value(const valued *a, const valued *b) {
    return a->value.len == b->value.len && memcmp(a->value.p, b->value.p, a->value.len) == 0;
}

/* list[n], sorted: the rows of a value lie side by side. */
static gist_status find_groups(const job *j, const report_split *s, const valued *list, const int *prompt,
                               uint8_t *in, uint8_t *masks, report_by *by) {
    size_t n = (size_t)s->rows.n;
    int groups = 1;
    for (size_t i = 1; i < n; i++) groups += !same_value(&list[i], &list[i - 1]);
    if (groups > REPORT_GROUPS)
        return err_set(j->err, GIST_ERR_USAGE, "%s: --by %.60s: %d different values, at most %d can be told apart",
                       s->rows.path, by->key, groups, REPORT_GROUPS);
    by->group = mem_calloc(NULL, (size_t)groups, sizeof *by->group);
    if (!by->group) return err_memory(j->err, "groups");
    for (size_t at = 0; at < n;) {
        report_group *g = &by->group[by->groups++];
        g->value = list[at].value;
        memset(in, 0, n);
        size_t first = at;
        for (; at < n && same_value(&list[at], &list[first]); at++) in[list[at].i] = 1;
        TRY(compare(j, s, prompt, in, masks, g->cell));
    }
    return GIST_OK;
}

static gist_status group_by(const job *j, report_split *s, const char *key, const int *prompt, uint8_t *masks) {
    size_t n = (size_t)s->rows.n;
    int with = 0;
    report_by *by = &s->by[s->keys++];
    *by = (report_by){ .key = key };
    valued *list = mem_alloc(NULL, n, sizeof *list);
    uint8_t *in = mem_alloc(NULL, n, 1);
    gist_status status = list && in ? GIST_OK : err_memory(j->err, "groups");
    for (size_t i = 0; status == GIST_OK && i < n; i++) {
        const json_t *v = string_of(&s->rows.example[i], key);
        list[i] = (valued){ { v ? json_string_value(v) : "", v ? json_string_length(v) : 0 }, (int)i };
        with += v != NULL;
    }
    if (status == GIST_OK && with == 0)
        status = err_set(j->err, GIST_ERR_USAGE, "%s: --by %.60s: no row has a string of this name", s->rows.path, key);
    if (status == GIST_OK) {
        qsort(list, n, sizeof *list, by_value);
        status = find_groups(j, s, list, prompt, in, masks, by);
    }
    mem_free(NULL, list);
    mem_free(NULL, in);
    return status;
}

void eval_release_groups(report_split *s) {
    for (int i = 0; i < s->keys; i++) mem_free(NULL, s->by[i].group);
    s->keys = 0;
}

/* ---- the curve ---- */

static gist_status find_curve(const job *j, report_split *s, const int *prompt, const int *tokens) {
    eval_curve_part part[MOST_K];
    int parts = 0;
    for (int i = 0; i < j->k_count; i++) {
        int k = j->k[i], at = find_column(s, COND_GIST, k);
        int of[3] = { lower_of(j, s, k), find_column(s, COND_FULL, 0), control(j, s, COND_POS_CONTROL, k) };
        const eval_row *rows[3];
        if (at < 0) continue;
        for (int r = 0; r < 3; r++) rows[r] = of[r] >= 0 ? s->column[of[r]].rows : NULL;
        part[parts++] = (eval_curve_part){ k, s->column[at].rows, rows[0], { rows[1], rows[2] } };
    }
    return eval_curve(part, parts, tokens, prompt, s->rows.n, s->rows.prompts, j->a->resamples, j->a->seed,
                      mem_default(), s->bin, &s->bins, j->err);
}

gist_status eval_find_figures(job *j, report_split *s) {
    size_t n = (size_t)s->rows.n;
    eval_cell cell[REPORT_COLUMNS];
    for (int i = 0; i < j->ratios; i++) TRY(add_ratio(j, s, j->ratio[i]));
    int *prompt = mem_alloc(NULL, n, 2 * sizeof *prompt), *tokens = prompt ? prompt + n : NULL;
    uint8_t *masks = mem_alloc(NULL, n, REPORT_COLUMNS);
    gist_status status = prompt && masks ? GIST_OK : err_memory(j->err, "scores");
    for (size_t i = 0; status == GIST_OK && i < n; i++) {
        prompt[i] = s->rows.example[i].prompt;
        tokens[i] = s->rows.example[i].prompt_tokens;
    }
    if (status == GIST_OK) status = compare(j, s, prompt, NULL, NULL, cell);
    for (int c = 0; status == GIST_OK && c < s->columns; c++) s->column[c].cell = cell[c];
    if (status == GIST_OK) status = find_stale(j, s, prompt, masks);
    if (status == GIST_OK && j->model == 0) {
        status = find_curve(j, s, prompt, tokens);
        for (int i = 0; status == GIST_OK && i < j->a->by.n; i++)
            status = group_by(j, s, j->a->by.item[i], prompt, masks);
    }
    mem_free(NULL, prompt);
    mem_free(NULL, masks);
    return status;
}
