/* eval_details.c - what gist eval tells beyond a line per condition: scores by the values of a member (--by), and
 * retention by compression factor, as text, Markdown, JSON, CSV and HTML.
 */
#include <math.h>

#include "eval_report.h"

static const char *value_of(const report_group *g, sbuf *out) {
    out->len = 0;
    if (g->value.len == 0) return "-";
    for (size_t i = 0; i < g->value.len; i++) { /* one line, one cell */
        char c = g->value.p[i];
        sbuf_add(out, (unsigned char)c < ' ' || c == '|' ? " " : &c, 1);
    }
    return out->failed || !out->p ? "-" : out->p;
}

static bool has_any(const report_by *by, int c) {
    for (int g = 0; g < by->groups; g++)
        if (by->group[g].cell[c].n > 0) return true;
    return false;
}

/* ---- text ---- */

static void group_text(const report_split *s, const report_by *by, const report_group *g, bool interval, sbuf *value,
                       sbuf *out) {
    const char *name = value_of(g, value);
    for (int c = 0; c < s->columns; c++) {
        const eval_cell *x = &g->cell[c];
        sbuf f[3];
        if (x->n == 0) continue;
        for (int i = 0; i < 3; i++) sbuf_init(&f[i], NULL);
        report_percent(&f[0], &x->score[EVAL_BY_EXACT], interval);
        report_percent(&f[1], &x->score[EVAL_BY_ROUGE_L], interval);
        report_percent(&f[2], &x->retention[EVAL_BY_EXACT], interval);
        sbuf_fmt(out, "%-12s %s=%-16s %-16s %6d  %-20s %-20s %-22s\n", s->rows.name, by->key, name,
                 s->column[c].view.name, x->n, f[0].p ? f[0].p : "-", f[1].p ? f[1].p : "-", f[2].p ? f[2].p : "-");
        for (int i = 0; i < 3; i++) sbuf_free(&f[i]);
    }
}

void report_groups_text(const report *r, sbuf *out) {
    sbuf value;
    sbuf_init(&value, NULL);
    for (int i = 0; i < r->splits; i++)
        for (int k = 0; k < r->split[i].keys; k++) {
            const report_by *by = &r->split[i].by[k];
            sbuf_fmt(out, "\n%s by %s: n, exact %%, ROUGE-L, retention (exact)\n", r->split[i].rows.name, by->key);
            for (int g = 0; g < by->groups; g++)
                group_text(&r->split[i], by, &by->group[g], r->resamples > 0, &value, out);
        }
    sbuf_free(&value);
}

/* ---- tables of conditions against values, in Markdown or HTML ---- */

typedef struct marks {
    const char *open, *head, *between, *after_head, *row, *end, *close;
    bool html;
} marks;
static const marks markdown = { "\n", "| ", " | ", " |\n", "| ", " |\n", "", false };
static const marks html = { "<table>\n", "<tr><th>", "</th><th>", "</th></tr>\n", "<tr><td>", "</td></tr>\n",
                            "</table>\n", true };

static void put(const marks *m, const char *what, sbuf *out) {
    if (m->html)
        report_escaped(out, what, strlen(what));
    else
        sbuf_str(out, what);
}

static void pivot(const report *r, const report_split *s, const report_by *by, bool retention, const marks *m,
                  sbuf *out) {
    sbuf value;
    sbuf_init(&value, NULL);
    sbuf_str(out, m->open);
    sbuf_str(out, m->head);
    sbuf_str(out, retention ? "retention (exact)" : "exact %");
    for (int g = 0; g < by->groups; g++) {
        sbuf_str(out, m->between);
        put(m, value_of(&by->group[g], &value), out);
    }
    sbuf_str(out, m->after_head);
    if (!m->html) {
        sbuf_str(out, "|---|");
        for (int g = 0; g < by->groups; g++) sbuf_str(out, "---|");
        sbuf_str(out, "\n");
    }
    for (int c = 0; c < s->columns; c++) {
        if (!has_any(by, c)) continue;
        sbuf_fmt(out, "%s%s", m->row, s->column[c].view.name);
        for (int g = 0; g < by->groups; g++) {
            const eval_cell *x = &by->group[g].cell[c];
            sbuf_str(out, m->html ? "</td><td>" : m->between);
            report_percent(out, retention ? &x->retention[EVAL_BY_EXACT] : &x->score[EVAL_BY_EXACT],
                           r->resamples > 0);
        }
        sbuf_str(out, m->end);
    }
    sbuf_str(out, m->row);
    sbuf_str(out, "n");
    for (int g = 0; g < by->groups; g++) {
        int n = 0;
        for (int c = 0; c < s->columns; c++) n = by->group[g].cell[c].n > n ? by->group[g].cell[c].n : n;
        sbuf_fmt(out, "%s%d", m->html ? "</td><td>" : m->between, n);
    }
    sbuf_str(out, m->end);
    sbuf_str(out, m->close);
    sbuf_free(&value);
}

static void groups(const report *r, const report_split *s, const marks *m, sbuf *out) {
    for (int k = 0; k < s->keys; k++) {
        const report_by *by = &s->by[k];
        sbuf_str(out, m->html ? "<h3>By " : "\n### By ");
        put(m, by->key, out);
        sbuf_str(out, m->html ? "</h3>\n" : "\n");
        pivot(r, s, by, false, m, out);
        pivot(r, s, by, true, m, out);
    }
}

static void curve(const report *r, const report_split *s, const marks *m, sbuf *out) {
    static const char *const head[] = { "factor", "mean factor", "prompts", "answers", "exact %", "ROUGE-L",
                                        "retention (exact)", "retention (ROUGE-L)" };
    enum { COLUMNS = sizeof head / sizeof *head };
    const char *between = m->html ? "</td><td>" : m->between;
    if (s->bins == 0) return;
    sbuf_str(out, m->html ? "<h3>By compression factor</h3>\n" : "\n### By compression factor\n");
    sbuf_str(out, m->open);
    for (int i = 0; i < COLUMNS; i++) sbuf_fmt(out, "%s%s", i ? m->between : m->head, head[i]);
    sbuf_str(out, m->after_head);
    if (!m->html) sbuf_str(out, "|---|---|---|---|---|---|---|---|\n");
    for (int b = 0; b < s->bins; b++) {
        const eval_bin *x = &s->bin[b];
        sbuf_fmt(out, "%s%.1f to %.1f%s%.1f%s%d%s%d", m->row, x->from, x->to, between, x->factor, between,
                 x->cell.prompts, between, x->cell.n);
        for (int k = 0; k < REPORT_FIGURES; k++) {
            sbuf_str(out, between);
            report_percent(out, report_figure_of(&x->cell, k), r->resamples > 0);
        }
        sbuf_str(out, m->end);
    }
    sbuf_str(out, m->close);
}

void report_details_markdown(const report *r, const report_split *s, sbuf *out) {
    curve(r, s, &markdown, out);
    groups(r, s, &markdown, out);
}

void report_details_page(const report *r, const report_split *s, sbuf *out) {
    curve(r, s, &html, out);
    groups(r, s, &html, out);
}

/* ---- JSON ---- */

static bool append(json_t *list, json_t *item) {
    return item && json_array_append_new(list, item) == 0;
}

static json_t *cells_json(const report_split *s, const eval_cell *cell) {
    json_t *list = json_array();
    for (int c = 0; list && c < s->columns; c++) {
        json_t *o = json_pack("{s:s, s:i, s:i}", "name", s->column[c].view.name, "examples", cell[c].n, "prompts",
                              cell[c].prompts);
        if (append(list, report_add_figures(o, &cell[c]))) continue;
        json_decref(list);
        list = NULL;
    }
    return list;
}

json_t *report_groups_json(const report_split *s) {
    json_t *keys = json_object();
    for (int k = 0; keys && k < s->keys; k++) {
        json_t *list = json_array();
        bool ok = list != NULL;
        for (int g = 0; ok && g < s->by[k].groups; g++) {
            const report_group *x = &s->by[k].group[g];
            ok = append(list, json_pack("{s:o, s:o}", "value", json_text_of(x->value.p, x->value.len), "conditions",
                                        cells_json(s, x->cell)));
        }
        if (!ok) {
            json_decref(list);
            list = NULL;
        }
        if (list && json_object_set_new(keys, s->by[k].key, list) == 0) continue;
        json_decref(keys);
        keys = NULL;
    }
    return keys;
}

json_t *report_curve_json(const report_split *s) {
    json_t *list = json_array();
    for (int b = 0; list && b < s->bins; b++) {
        const eval_bin *x = &s->bin[b];
        json_t *o = json_pack("{s:f, s:f, s:f, s:i, s:i}", "from", x->from, "to", x->to, "factor", x->factor, "prompts",
                              x->cell.prompts, "answers", x->cell.n);
        if (append(list, report_add_figures(o, &x->cell))) continue;
        json_decref(list);
        list = NULL;
    }
    return list;
}

/* ---- CSV ---- */

static void csv_figure(const eval_figure *f, sbuf *out) {
    const double x[] = { f->mean, f->low, f->high };
    for (int i = 0; i < 3; i++) {
        sbuf_str(out, ",");
        if (!isnan(x[i])) sbuf_fmt(out, "%.6g", 100 * x[i]);
    }
}

void report_curve_csv(const report_split *s, sbuf *out) {
    sbuf_str(out, "from,to,factor,prompts,answers");
    for (int k = 0; k < REPORT_FIGURES; k++) {
        const char *name = report_figure_name[k];
        sbuf_fmt(out, ",%s,%s_low,%s_high", name, name, name);
    }
    sbuf_str(out, "\n");
    for (int b = 0; b < s->bins; b++) {
        const eval_bin *x = &s->bin[b];
        sbuf_fmt(out, "%.6g,%.6g,%.6g,%d,%d", x->from, x->to, x->factor, x->cell.prompts, x->cell.n);
        for (int k = 0; k < REPORT_FIGURES; k++) csv_figure(report_figure_of(&x->cell, k), out);
        sbuf_str(out, "\n");
    }
}
