/* eval_page.c - the results of gist eval as one page: SVG charts, tables, examples side by side; no script, no other
 * file, colours of the reader's scheme.
 *
 *     per split    retention against compression factor     score by condition     table     examples
 */
#include <math.h>

#include "eval_report.h"

enum { WIDTH = 640, HEIGHT = 300, LEFT = 60, RIGHT = 20, TOP = 20, BOTTOM = 50, ROW = 22, LABEL = 150, EXAMPLES = 8 };

static const char *const colour[EVAL_BYS] = { "#2a78b5", "#c8641e" };
static const char *const by_name[EVAL_BYS] = { "ROUGE-L", "exact match" };

static void escaped(sbuf *out, const char *p, size_t len) {
    for (size_t i = 0; i < len; i++) {
        const char *as = p[i] == '&' ? "&amp;" : p[i] == '<' ? "&lt;" : p[i] == '>' ? "&gt;" : NULL;
        if (as)
            sbuf_str(out, as);
        else
            sbuf_add(out, p + i, 1);
    }
}

static void legend(sbuf *out, int x, int y) {
    for (int m = 0; m < EVAL_BYS; m++)
        sbuf_fmt(out,
                 "<rect x=\"%d\" y=\"%d\" width=\"10\" height=\"10\" fill=\"%s\"/>"
                 "<text x=\"%d\" y=\"%d\">%s</text>\n",
                 x + 90 * m, y - 9, colour[m], x + 90 * m + 14, y, by_name[m]);
}

/* ---- retention against compression factor ---- */

typedef struct axes {
    double most_x, low_y, high_y;
} axes;

static double px(const axes *a, double factor) { /* logarithmic from 1 */
    return LEFT + log(factor < 1 ? 1 : factor) / log(a->most_x) * (WIDTH - LEFT - RIGHT);
}

static double py(const axes *a, double y) {
    return TOP + (a->high_y - y) / (a->high_y - a->low_y) * (HEIGHT - TOP - BOTTOM);
}

static bool is_point(const report_column *c, int m) {
    return c->factor > 0 && !c->in && !isnan(c->cell.retention[m].mean);
}

static int find_axes(const report_split *s, axes *a) {
    int n = 0;
    *a = (axes){ 2, 0, 1 };
    for (int c = 0; c < s->columns; c++)
        for (int m = 0; m < EVAL_BYS; m++) {
            const report_column *col = &s->column[c];
            if (!is_point(col, m)) continue;
            double y = col->cell.retention[m].mean;
            if (col->factor * 1.1 > a->most_x) a->most_x = col->factor * 1.1;
            if (y < a->low_y) a->low_y = floor(y * 4) / 4;
            if (y > a->high_y) a->high_y = ceil(y * 4) / 4;
            n++;
        }
    return n;
}

static void grid(const axes *a, sbuf *out) {
    double step = a->high_y - a->low_y > 2 ? (a->high_y - a->low_y) / 8 : 0.25;
    for (double y = a->low_y; y <= a->high_y + 1e-9; y += step)
        sbuf_fmt(out,
                 "<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/><text x=\"%d\" y=\"%.1f\" "
                 "text-anchor=\"end\">%.0f%%</text>\n",
                 LEFT, WIDTH - RIGHT, py(a, y), py(a, y), LEFT - 6, py(a, y) + 4, 100 * y);
    for (double x = 1; x <= a->most_x; x *= 2)
        sbuf_fmt(out, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%.0fx</text>\n", px(a, x),
                 HEIGHT - BOTTOM + 18, x);
}

/* An interval is drawn as far as the chart reaches. */
static void point(const axes *a, const report_column *c, int m, sbuf *out) {
    const eval_figure *f = &c->cell.retention[m];
    double x = px(a, c->factor);
    if (!isnan(f->low))
        sbuf_fmt(out, "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"%s\"/>", x, x,
                 py(a, fmax(f->low, a->low_y)), py(a, fmin(f->high, a->high_y)), colour[m]);
    sbuf_fmt(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" fill=\"%s\"><title>%s: %.1f%%</title></circle>\n", x,
             py(a, f->mean), colour[m], c->view.name, 100 * f->mean);
}

static void retention_chart(const report_split *s, sbuf *out) {
    axes a;
    if (find_axes(s, &a) == 0) return;
    sbuf_fmt(out, "<h3>Retention against compression factor</h3>\n<svg viewBox=\"0 0 %d %d\" role=\"img\">\n", WIDTH,
             HEIGHT);
    grid(&a, out);
    for (int m = 0; m < EVAL_BYS; m++)
        for (int c = 0; c < s->columns; c++)
            if (is_point(&s->column[c], m)) point(&a, &s->column[c], m, out);
    sbuf_fmt(out, "<text x=\"%d\" y=\"%d\">prompt tokens per gist token (mean)</text>\n", LEFT, HEIGHT - 10);
    legend(out, WIDTH - 200, HEIGHT - 10);
    sbuf_str(out, "</svg>\n");
}

/* ---- score by condition ---- */

static void bar(const eval_figure *f, int m, double y, sbuf *out) {
    double full = WIDTH - LABEL - 60;
    if (isnan(f->mean)) return;
    sbuf_fmt(out, "<rect x=\"%d\" y=\"%.1f\" width=\"%.1f\" height=\"8\" fill=\"%s\"/>", LABEL, y, f->mean * full,
             colour[m]);
    if (!isnan(f->low))
        sbuf_fmt(out, "<line class=\"interval\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>",
                 LABEL + f->low * full, LABEL + f->high * full, y + 4, y + 4);
    sbuf_fmt(out, "<text class=\"small\" x=\"%.1f\" y=\"%.1f\">%.1f</text>\n",
             LABEL + fmax(f->mean, isnan(f->high) ? 0 : f->high) * full + 4, y + 8, 100 * f->mean);
}

static void score_chart(const report_split *s, sbuf *out) {
    int height = s->columns * ROW + 30;
    sbuf_fmt(out, "<h3>Score by condition</h3>\n<svg viewBox=\"0 0 %d %d\" role=\"img\">\n", WIDTH, height);
    for (int c = 0; c < s->columns; c++) {
        sbuf_fmt(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>\n", LABEL - 8, c * ROW + 14,
                 s->column[c].view.name);
        for (int m = 0; m < EVAL_BYS; m++) bar(&s->column[c].cell.score[m], m, c * ROW + 1 + 9 * m, out);
    }
    legend(out, LABEL, height - 6);
    sbuf_str(out, "</svg>\n");
}

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
                  "<th>retention (exact)</th><th>retention (ROUGE-L)</th><th>tokens</th></tr>\n");
    for (int c = 0; c < s->columns; c++) {
        const report_column *col = &s->column[c];
        sbuf_fmt(out, "<tr><td>%s</td><td>%d</td>", col->view.name, col->cell.n);
        if (col->factor > 0)
            sbuf_fmt(out, "<td>%.1f</td>", col->factor);
        else
            sbuf_str(out, "<td>-</td>");
        cell(out, &col->cell.score[EVAL_BY_EXACT]);
        cell(out, &col->cell.score[EVAL_BY_ROUGE_L]);
        cell(out, &col->cell.retention[EVAL_BY_EXACT]);
        cell(out, &col->cell.retention[EVAL_BY_ROUGE_L]);
        sbuf_fmt(out, "<td>%.1f</td></tr>\n", col->tokens);
    }
    sbuf_str(out, "</table>\n");
}

/* Examples evenly spaced over the split, each with every condition's answer. */
static void examples(const report_split *s, sbuf *out) {
    int n = s->rows.n < EXAMPLES ? s->rows.n : EXAMPLES;
    sbuf_str(out, "<h3>Examples</h3>\n");
    for (int i = 0; i < n; i++) {
        int at = (int)((int64_t)i * s->rows.n / n);
        const eval_example *e = &s->rows.example[at];
        sbuf_fmt(out, "<details%s><summary>line %d: ", i == 0 ? " open" : "", e->line);
        escaped(out, e->input.p, e->input.len);
        sbuf_fmt(out, "</summary><p class=\"text\">");
        escaped(out, e->instruction.p, e->instruction.len);
        sbuf_str(out, "</p><table><tr><td>expected</td><td class=\"text\">");
        escaped(out, e->reference.p, e->reference.len);
        sbuf_str(out, "</td></tr>\n");
        for (int c = 0; c < s->columns; c++) {
            const report_column *col = &s->column[c];
            if (col->in) continue;
            bool right = col->rows[at].score[EVAL_EXACT] > 0;
            sbuf_fmt(out, "<tr><td>%s</td><td class=\"text%s\">", col->view.name, right ? " right" : "");
            escaped(out, col->given[at].text, col->given[at].len);
            sbuf_str(out, "</td></tr>\n");
        }
        sbuf_str(out, "</table></details>\n");
    }
}

void report_page(const report *r, sbuf *out) {
    sbuf_str(out,
             "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>gist eval</title>\n<style>\n"
             ":root { color-scheme: light dark }\n"
             "body { font: 15px/1.45 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em }\n"
             "table { border-collapse: collapse; margin: 1em 0 } td, th { padding: .2em .7em; text-align: left;\n"
             "  border-bottom: 1px solid #8884; vertical-align: top }\n"
             "svg { max-width: 48em; width: 100%; font-size: 12px; fill: currentColor }\n"
             ".grid { stroke: #8885 } .interval { stroke: currentColor } .small { font-size: 10px }\n"
             ".text { white-space: pre-wrap } .right { color: #2a8a4a }\n"
             "</style></head><body>\n<h1>gist eval</h1>\n<p>Model <code>");
    escaped(out, r->model, strlen(r->model));
    sbuf_fmt(out,
             "</code>, greedy, at most %d tokens in all, kernels %s. Intervals: 95 %%, bootstrap over prompts, %d "
             "resamples, seed %llu. Retention: (score &minus; no prompt) / (whole prompt &minus; no prompt).</p>\n",
             r->max_length, r->kernels, r->resamples, (unsigned long long)r->seed);
    for (int i = 0; i < r->splits; i++) {
        const report_split *s = &r->split[i];
        sbuf_fmt(out, "<h2>%s</h2>\n<p>%d examples of %d prompts; left out: %d.</p>\n", s->rows.name, s->rows.n,
                 s->rows.prompts, s->rows.empty + s->rows.law + s->rows.no_room);
        retention_chart(s, out);
        score_chart(s, out);
        scores(s, out);
        examples(s, out);
    }
    sbuf_str(out, "</body></html>\n");
}
