/* eval_report.c - the results of gist eval as a table, Markdown, JSON, and predictions as CSV.
 *
 *     split   condition   n   exact %   ROUGE-L   retention of each   answer's tokens
 *
 * Brackets are 95 % bootstrap intervals over prompts; a figure that does not exist is "-", in JSON null.
 */
#include <math.h>
#include <stdlib.h>

#include "eval_report.h"

void report_percent(sbuf *s, const eval_figure *f, bool interval) {
    if (isnan(f->mean)) {
        sbuf_str(s, "-");
        return;
    }
    sbuf_fmt(s, "%.1f", 100 * f->mean);
    if (interval && !isnan(f->low)) sbuf_fmt(s, " [%.1f, %.1f]", 100 * f->low, 100 * f->high);
}

static const char *text_or_dash(const sbuf *s) {
    return s->p && !s->failed ? s->p : "-";
}

/* ---- several models ---- */

const char *const report_figure_name[REPORT_FIGURES] = { "exact", "rougeL", "retention_exact", "retention_rougeL" };

const eval_figure *report_figure_of(const eval_cell *cell, int figure) {
    int by = figure == REPORT_EXACT || figure == REPORT_RETENTION_EXACT ? EVAL_BY_EXACT : EVAL_BY_ROUGE_L;
    return figure < REPORT_RETENTION_EXACT ? &cell->score[by] : &cell->retention[by];
}

report_spread report_spread_of(const report_column *c, int figure, int models) {
    report_spread s = { 0, 0, (double)INFINITY, -(double)INFINITY };
    for (int i = 0; i < models; i++) {
        double mean = report_figure_of(&c->of[i], figure)->mean;
        if (isnan(mean)) return (report_spread){ (double)NAN, (double)NAN, (double)NAN, (double)NAN };
        s.mean += mean / models;
        s.low = fmin(s.low, mean);
        s.high = fmax(s.high, mean);
    }
    for (int i = 0; i < models; i++) {
        double off = report_figure_of(&c->of[i], figure)->mean - s.mean;
        s.deviation += off * off;
    }
    s.deviation = models > 1 ? sqrt(s.deviation / (models - 1)) : (double)NAN;
    return s;
}

static void spread(sbuf *out, const report_column *c, int figure, int models) {
    report_spread s = report_spread_of(c, figure, models);
    if (isnan(s.mean))
        sbuf_str(out, "-");
    else
        sbuf_fmt(out, "%.1f ± %.1f [%.1f .. %.1f]", 100 * s.mean, 100 * s.deviation, 100 * s.low, 100 * s.high);
}

/* Rows "before split between condition between spread ... after" of every column. */
static void spreads(const report *r, const report_split *s, const char *before, const char *between, const char *after,
                    sbuf *out) {
    for (int c = 0; c < s->columns; c++) {
        const report_column *col = &s->column[c];
        sbuf_fmt(out, "%s%s%s%s", before, s->rows.name, between, col->view.name);
        for (int i = 0; i < REPORT_FIGURES; i++) {
            sbuf_str(out, between);
            spread(out, col, i, r->models);
        }
        sbuf_fmt(out, "%s\n", after);
    }
}

static const char spread_head[] =
    "models: mean ± sample standard deviation [smallest .. largest] of exact %, ROUGE-L, retention (exact), retention "
    "(ROUGE-L)";

/* ---- table ---- */

static void left_out(const eval_split *s, sbuf *out) {
    if (!s->empty && !s->law && !s->no_room) return;
    sbuf_fmt(out, "; left out: %d without instruction or output, %d not tokenized alike in parts and as a whole, "
                  "%d with no room for an answer",
             s->empty, s->law, s->no_room);
}

static bool any_edited(const report *r) {
    for (int i = 0; i < r->splits; i++)
        if (r->split[i].edited) return true;
    return false;
}

static void table_row(const report_split *s, const report_column *c, bool interval, bool stale, FILE *out) {
    sbuf f[5];
    for (int i = 0; i < 5; i++) sbuf_init(&f[i], NULL);
    for (int i = 0; i < REPORT_FIGURES; i++) report_percent(&f[i], report_figure_of(&c->cell, i), interval);
    char factor[24] = "-";
    if (c->factor > 0) snprintf(factor, sizeof factor, "%.1fx", c->factor);
    if (stale) report_percent(&f[4], &c->stale, interval);
    fprintf(out, "%-12s %-16s %6d %8s  %-20s %-20s %-22s %-22s %6.1f", s->rows.name, c->view.name, c->cell.n, factor,
            text_or_dash(&f[0]), text_or_dash(&f[1]), text_or_dash(&f[2]), text_or_dash(&f[3]), c->tokens);
    fprintf(out, stale ? "  %s\n" : "\n", text_or_dash(&f[4]));
    for (int i = 0; i < 5; i++) sbuf_free(&f[i]);
}

void report_table(const report *r, FILE *out) {
    bool stale = any_edited(r);
    fprintf(out, "%-12s %-16s %6s %8s  %-20s %-20s %-22s %-22s %6s%s\n", "split", "condition", "n", "factor",
            "exact %", "ROUGE-L", "retention (exact)", "retention (ROUGE-L)", "tokens", stale ? "  stale %" : "");
    for (int i = 0; i < r->splits; i++)
        for (int c = 0; c < r->split[i].columns; c++)
            table_row(&r->split[i], &r->split[i].column[c], r->resamples > 0, stale, out);
    sbuf by;
    sbuf_init(&by, NULL);
    report_groups_text(r, &by);
    if (by.len) fputs(text_or_dash(&by), out);
    sbuf_free(&by);
    for (int i = 0; i < r->splits && r->models > 1; i++) {
        sbuf s;
        sbuf_init(&s, NULL);
        spreads(r, &r->split[i], "", "  ", "", &s);
        if (i == 0) fprintf(out, "\n%d %s\n", r->models, spread_head);
        fputs(text_or_dash(&s), out);
        sbuf_free(&s);
    }
    for (int i = 0; i < r->splits; i++) {
        sbuf why;
        sbuf_init(&why, NULL);
        left_out(&r->split[i].rows, &why);
        fprintf(out, "%s: %d examples of %d prompts%s\n", r->split[i].rows.name, r->split[i].rows.n,
                r->split[i].rows.prompts, why.p ? why.p : "");
        sbuf_free(&why);
    }
}

/* ---- Markdown ---- */

/* Of the models behind the first one, whose own figures stand above. */
static void also_markdown(const report *r, const report_split *s, sbuf *out) {
    for (int m = 1; m < r->models; m++) {
        sbuf_fmt(out, "\nModel %d, `%s`, alone:\n\n| condition | exact %% | ROUGE-L | retention (exact) | "
                      "retention (ROUGE-L) |\n|---|---|---|---|---|\n",
                 m + 1, r->also[m - 1]);
        for (int c = 0; c < s->columns; c++) {
            sbuf_fmt(out, "| %s", s->column[c].view.name);
            for (int i = 0; i < REPORT_FIGURES; i++) {
                sbuf_str(out, " | ");
                report_percent(out, report_figure_of(&s->column[c].of[m], i), r->resamples > 0);
            }
            sbuf_str(out, " |\n");
        }
    }
}

void report_markdown(const report *r, sbuf *out) {
    sbuf_fmt(out, "# Evaluation\n\nModel `%s`", r->model);
    if (r->pos[0]) sbuf_fmt(out, ", pos_control and TF-IDF `%s`", r->pos[0]);
    if (r->neg[0]) sbuf_fmt(out, ", neg_control `%s`", r->neg[0]);
    sbuf_fmt(out,
             "; greedy, at most %d tokens in all, kernels %s.  Brackets: 95 %% bootstrap intervals over prompts (%d "
             "resamples, seed %llu).  Retention: (score - no prompt) / (whole prompt - no prompt), in percent.\n",
             r->max_length, r->kernels, r->resamples, (unsigned long long)r->seed);
    for (int i = 0; i < r->splits; i++) {
        const report_split *s = &r->split[i];
        sbuf_fmt(out, "\n## %s\n\n%d examples of %d prompts", s->rows.name, s->rows.n, s->rows.prompts);
        left_out(&s->rows, out);
        sbuf_fmt(out,
                 ".\n\n| condition | n | factor | exact %% | ROUGE-L | retention (exact) | retention (ROUGE-L) | "
                 "tokens |%s\n|---|---|---|---|---|---|---|---|%s\n",
                 s->edited ? " stale % |" : "", s->edited ? "---|" : "");
        for (int c = 0; c < s->columns; c++) {
            const report_column *col = &s->column[c];
            sbuf_fmt(out, "| %s | %d | ", col->view.name, col->cell.n);
            if (col->factor > 0)
                sbuf_fmt(out, "%.1f", col->factor);
            else
                sbuf_str(out, "-");
            for (int k = 0; k < REPORT_FIGURES; k++) {
                sbuf_str(out, " | ");
                report_percent(out, report_figure_of(&col->cell, k), r->resamples > 0);
            }
            sbuf_fmt(out, " | %.1f |", col->tokens);
            if (s->edited) {
                sbuf_str(out, " ");
                report_percent(out, &col->stale, r->resamples > 0);
                sbuf_str(out, " |");
            }
            sbuf_str(out, "\n");
        }
        report_details_markdown(r, s, out);
        if (r->models == 1) continue;
        sbuf_fmt(out, "\n%d %s.\n\n| split | condition | exact %% | ROUGE-L | retention (exact) | "
                      "retention (ROUGE-L) |\n|---|---|---|---|---|---|\n",
                 r->models, spread_head);
        spreads(r, s, "| ", " | ", " |", out);
        also_markdown(r, s, out);
    }
}

/* ---- JSON ---- */

static json_t *number(double x) {
    return isnan(x) ? json_null() : json_real(x);
}

json_t *report_figure(const eval_figure *f) {
    return json_pack("{s:o, s:o, s:o}", "mean", number(100 * f->mean), "low", number(100 * f->low), "high",
                     number(100 * f->high));
}

json_t *report_add_figures(json_t *o, const eval_cell *x) {
    for (int k = 0; o && k < REPORT_FIGURES; k++)
        if (json_object_set_new(o, report_figure_name[k], report_figure(report_figure_of(x, k))) != 0) {
            json_decref(o);
            o = NULL;
        }
    return o;
}

/* An object per model, the first one's first. */
static json_t *models_json(const report_column *c, int models) {
    json_t *list = json_array();
    for (int i = 0; list && i < models; i++)
        if (json_array_append_new(list, report_add_figures(json_object(), &c->of[i])) != 0) {
            json_decref(list);
            list = NULL;
        }
    return list;
}

static const char *condition_of(const report_column *c) {
    if (c->in) return "gist";
    if (c->view.words || c->view.budget) return "tfidf";
    return c->view.other ? "other_gist" : train_condition_name(c->view.c);
}

static json_t *column_json(const report_column *c, int models) {
    json_t *o = json_pack("{s:s, s:s, s:i, s:i, s:i, s:i, s:i}", "name", c->view.name, "condition", condition_of(c),
                          "k", c->view.k, "budget", c->view.budget, "words", c->view.words, "examples", c->cell.n,
                          "prompts", c->cell.prompts);
    o = report_add_figures(o, &c->cell);
    if (!o) return NULL;
    json_t *rest = json_pack("{s:f, s:o, s:o, s:o}", "tokens", c->tokens, "factor",
                             c->factor > 0 ? json_real(c->factor) : json_null(), "stale", report_figure(&c->stale),
                             "models", models_json(c, models));
    if (json_object_update_new(o, rest) == 0) return o;
    json_decref(o);
    return NULL;
}

static json_t *split_json(const report_split *s, int models) {
    json_t *list = json_array();
    for (int c = 0; list && c < s->columns; c++)
        if (json_array_append_new(list, column_json(&s->column[c], models)) != 0) {
            json_decref(list);
            list = NULL;
        }
    return json_pack("{s:o, s:o, s:i, s:i, s:{s:i, s:i, s:i}, s:o, s:o, s:o}", "name",
                     json_text_of(s->rows.name, strlen(s->rows.name)), "path",
                     json_text_of(s->rows.path, strlen(s->rows.path)), "examples", s->rows.n, "prompts",
                     s->rows.prompts, "left_out", "empty", s->rows.empty, "law", s->rows.law, "no_room",
                     s->rows.no_room, "conditions", list, "by", report_groups_json(s), "curve",
                     report_curve_json(s));
}

static json_t *paths_json(const char *const *path, int n) {
    json_t *list = json_array();
    for (int i = 0; list && i < n && path[i]; i++)
        if (json_array_append_new(list, json_text_of(path[i], strlen(path[i]))) != 0) {
            json_decref(list);
            list = NULL;
        }
    return list;
}

json_t *report_json(const report *r) {
    char seed[24]; /* may be beyond JSON's integers */
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)r->seed);
    json_t *list = json_array();
    for (int i = 0; list && i < r->splits; i++)
        if (json_array_append_new(list, split_json(&r->split[i], r->models)) != 0) {
            json_decref(list);
            list = NULL;
        }
    return json_pack("{s:o, s:o, s:o, s:o, s:s, s:s, s:i, s:i, s:s, s:o}", "model",
                     json_text_of(r->model, strlen(r->model)), "also", paths_json(r->also, r->models - 1),
                     "pos_control", paths_json(r->pos, r->models), "neg_control", paths_json(r->neg, r->models),
                     "kernels", r->kernels, "kv", r->kv, "max_length", r->max_length, "bootstrap", r->resamples, "seed",
                     seed, "splits", list);
}

/* ---- predictions ---- */

static void field(sbuf *out, const char *p, size_t len) {
    sbuf_str(out, ",");
    eval_csv_field(out, (eval_text){ p, len });
}

static bool own_key(const char *key) {
    static const char *const keys[] = { "instruction", "input",         "output", "x",      "y_pred",
                                        "y_true",      "prompt_tokens", "k",      "tokens", "finish" };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (strcmp(key, keys[i]) == 0) return true;
    return false;
}

/* {key: null} of every other string of any row, in order of appearance; NULL: out of memory. */
static json_t *other_keys(const eval_split *s) {
    enum { MOST = 64 };
    json_t *keys = json_object();
    for (int i = 0; keys && i < s->n; i++) {
        const char *key;
        json_t *v;
        json_object_foreach((json_t *)(uintptr_t)s->example[i].row, key, v) {
            if (!json_is_string(v) || own_key(key) || json_object_size(keys) >= MOST || json_object_get(keys, key))
                continue;
            if (json_object_set_new(keys, key, json_null()) == 0) continue;
            json_decref(keys);
            return NULL;
        }
    }
    return keys;
}

static void csv_row(const eval_example *e, const report_column *c, const eval_given *g, json_t *keys, sbuf *out) {
    sbuf x;
    sbuf_init(&x, NULL);
    sbuf_str(&x, "Instruction: ");
    sbuf_add(&x, e->instruction.p, e->instruction.len);
    for (int i = 0; i < e->turn; i++) {
        eval_text input, answer;
        eval_turn(json_object_get(e->row, "messages"), i, &input, &answer);
        sbuf_str(&x, "\nInput: ");
        sbuf_add(&x, input.p, input.len);
        sbuf_str(&x, "\nOutput: ");
        sbuf_add(&x, answer.p, answer.len);
    }
    if (e->input.len) {
        sbuf_str(&x, "\nInput: ");
        sbuf_add(&x, e->input.p, e->input.len);
    }
    if (x.failed)
        out->failed = true;
    else
        eval_csv_field(out, (eval_text){ x.p, x.len });
    sbuf_free(&x);
    field(out, g->text, g->len);
    field(out, e->reference.p, e->reference.len);
    sbuf_fmt(out, ",%d,%d,%d,%s", e->prompt_tokens, c->view.k, g->tokens, g->finish);
    const char *key;
    json_t *unused;
    json_object_foreach(keys, key, unused) {
        const json_t *v = json_object_get(e->row, key);
        field(out, json_is_string(v) ? json_string_value(v) : "", json_is_string(v) ? json_string_length(v) : 0);
    }
    sbuf_str(out, "\n");
}

void report_csv(const report_split *s, const report_column *c, sbuf *out) {
    json_t *keys = other_keys(&s->rows), *unused;
    const char *key;
    if (!keys) {
        out->failed = true;
        return;
    }
    sbuf_str(out, "x,y_pred,y_true,prompt_tokens,k,tokens,finish");
    json_object_foreach(keys, key, unused) field(out, key, strlen(key));
    sbuf_str(out, "\n");
    for (int i = 0; i < s->rows.n; i++)
        if (c->given[i].text) csv_row(&s->rows.example[i], c, &c->given[i], keys, out);
    json_decref(keys);
}
