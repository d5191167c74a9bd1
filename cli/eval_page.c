/* eval_page.c - the results of gist eval as one page: SVG charts, tables, examples side by side; no script, no other
 * file, colours of the reader's scheme.
 *
 *     per split    retention against compression factor     score by condition     table     examples
 */
#include <math.h>

#include "eval_report.h"

enum { EXAMPLES = 8 };

/* ---- tables ---- */

static void cell(sbuf *out, const eval_figure *f) {
    if (isnan(f->mean)) {
        sbuf_str(out, "<td>-</td>");
        return;
    }
    sbuf_fmt(out, "<td>%.1f", 100 * f->mean);
    if (!isnan(f->low) && f->high > f->low) sbuf_fmt(out, " <small>[%.1f, %.1f]</small>", 100 * f->low, 100 * f->high);
    sbuf_str(out, "</td>");
}

static void scores(const report_split *s, sbuf *out) {
    sbuf_str(out, "<table><tr><th>condition</th><th>n</th><th>factor</th><th>exact %</th><th>ROUGE-L</th>"
                  "<th>retention (exact)</th><th>retention (ROUGE-L)</th><th>tokens</th>");
    sbuf_str(out, s->edited ? "<th>stale %</th></tr>\n" : "</tr>\n");
    for (int c = 0; c < s->columns; c++) {
        const report_column *col = &s->column[c];
        sbuf_fmt(out, "<tr><td>%s</td><td>%d</td>", col->view.name, col->cell.n);
        if (col->factor > 0)
            sbuf_fmt(out, "<td>%.1f</td>", col->factor);
        else
            sbuf_str(out, "<td>-</td>");
        for (int k = 0; k < REPORT_FIGURES; k++) cell(out, report_figure_of(&col->cell, k));
        sbuf_fmt(out, "<td>%.1f</td>", col->tokens);
        if (s->edited) cell(out, &col->stale);
        sbuf_str(out, "</tr>\n");
    }
    sbuf_str(out, "</table>\n");
}

static const char figures_head[] = "<table><tr><th>condition</th><th>exact %</th><th>ROUGE-L</th>"
                                   "<th>retention (exact)</th><th>retention (ROUGE-L)</th></tr>\n";

/* One of the models behind the first. */
static void also(const report *r, const report_split *s, int model, sbuf *out) {
    sbuf_fmt(out, "<p>Model %d, <code>", model + 1);
    report_escaped(out, r->also[model - 1], strlen(r->also[model - 1]));
    sbuf_fmt(out, "</code>, alone:</p>\n%s", figures_head);
    for (int c = 0; c < s->columns; c++) {
        sbuf_fmt(out, "<tr><td>%s</td>", s->column[c].view.name);
        for (int i = 0; i < REPORT_FIGURES; i++) cell(out, report_figure_of(&s->column[c].of[model], i));
        sbuf_str(out, "</tr>\n");
    }
    sbuf_str(out, "</table>\n");
}

/* All seeds of every condition. */
static void spreads(const report *r, const report_split *s, sbuf *out) {
    if (r->models == 1) return;
    sbuf_fmt(out,
             "<h3>%d models</h3>\n<p>Mean &plusmn; sample standard deviation [smallest, largest]; the figures above "
             "are the first one's.</p>\n%s",
             r->models, figures_head);
    for (int c = 0; c < s->columns; c++) {
        const report_column *col = &s->column[c];
        sbuf_fmt(out, "<tr><td>%s</td>", col->view.name);
        for (int i = 0; i < REPORT_FIGURES; i++) {
            report_spread x = report_spread_of(col, i, r->models);
            if (isnan(x.mean))
                sbuf_str(out, "<td>-</td>");
            else
                sbuf_fmt(out, "<td>%.1f &plusmn; %.1f <small>[%.1f, %.1f]</small></td>", 100 * x.mean,
                         100 * x.deviation, 100 * x.low, 100 * x.high);
        }
        sbuf_str(out, "</tr>\n");
    }
    sbuf_str(out, "</table>\n");
    for (int m = 1; m < r->models; m++) also(r, s, m, out);
}

/* Examples evenly spaced over the split, each with every condition's answer. */
static void examples(const report_split *s, sbuf *out) {
    int n = s->rows.n < EXAMPLES ? s->rows.n : EXAMPLES;
    sbuf_str(out, "<h3>Examples</h3>\n");
    for (int i = 0; i < n; i++) {
        int at = (int)((int64_t)i * s->rows.n / n);
        const eval_example *e = &s->rows.example[at];
        sbuf_fmt(out, "<details%s><summary>line %d: ", i == 0 ? " open" : "", e->line);
        report_escaped(out, e->input.p, e->input.len);
        sbuf_fmt(out, "</summary><p class=\"text\">");
        report_escaped(out, e->instruction.p, e->instruction.len);
        sbuf_str(out, "</p><table><tr><td>expected</td><td class=\"text\">");
        report_escaped(out, e->reference.p, e->reference.len);
        sbuf_str(out, "</td></tr>\n");
        for (int c = 0; c < s->columns; c++) {
            const report_column *col = &s->column[c];
            if (col->in) continue;
            bool right = col->rows[at].score[EVAL_EXACT] > 0;
            sbuf_fmt(out, "<tr><td>%s</td><td class=\"text%s\">", col->view.name, right ? " right" : "");
            report_escaped(out, col->given[at].text, col->given[at].len);
            sbuf_str(out, "</td></tr>\n");
        }
        sbuf_str(out, "</table></details>\n");
    }
}

void report_page(const report *r, sbuf *out) {
    sbuf_str(out,
             "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>gist eval</title>\n<style>\n"
             ":root { color-scheme: light dark }\n"
             "body { font: 15px/1.45 system-ui, sans-serif; max-width: 72em; margin: 2em auto; padding: 0 1em }\n"
             "table { border-collapse: collapse; margin: 1em 0 } td, th { padding: .2em .7em; text-align: left;\n"
             "  border-bottom: 1px solid #8884; vertical-align: top }\n"
             "svg { max-width: 48em; width: 100%; font-size: 12px; fill: currentColor }\n"
             ".grid { stroke: #8885 } .interval { stroke: currentColor } .small { font-size: 10px }\n"
             "small { white-space: nowrap } .text { white-space: pre-wrap } .right { color: #2a8a4a }\n"
             "</style></head><body>\n<h1>gist eval</h1>\n<p>Model <code>");
    report_escaped(out, r->model, strlen(r->model));
    sbuf_fmt(out,
             "</code>, greedy, at most %d tokens in all, kernels %s, keys and values %s. Intervals: 95 %%, "
             "bootstrap over prompts, %d resamples, seed %llu. "
             "Retention: (score &minus; no prompt) / (whole prompt &minus; no prompt).</p>\n",
             r->max_length, r->kernels, r->kv, r->resamples, (unsigned long long)r->seed);
    for (int i = 0; i < r->splits; i++) {
        const report_split *s = &r->split[i];
        sbuf_fmt(out, "<h2>%s</h2>\n<p>%d examples of %d prompts; left out: %d.</p>\n", s->rows.name, s->rows.n,
                 s->rows.prompts, s->rows.empty + s->rows.law + s->rows.no_room);
        if (s->bins) sbuf_str(out, "<h3>Retention against compression factor</h3>\n");
        report_retention_chart(s, r->ratio, false, out);
        sbuf_str(out, "<h3>Score by condition</h3>\n");
        report_score_chart(s, out);
        scores(s, out);
        spreads(r, s, out);
        report_details_page(r, s, out);
        examples(s, out);
    }
    sbuf_str(out, "</body></html>\n");
}
