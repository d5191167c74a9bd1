/* eval_charts.c - gist eval's pictures: retention against compression factor, and scores by condition.
 *
 *   in a page      colours of the reader's scheme come from the page's style
 *   alone          a file of its own, black on white
 */
#include <math.h>

#include "eval_report.h"

enum { WIDTH = 640, HEIGHT = 320, LEFT = 60, RIGHT = 20, TOP = 20, BOTTOM = 50, ROW = 22, LABEL = 150 };

static const char *const colour[EVAL_BYS] = { "#2a78b5", "#c8641e" };
static const char *const by_name[EVAL_BYS] = { "ROUGE-L", "exact match" };

void report_escaped(sbuf *out, const char *p, size_t len) {
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

static bool is_point(const eval_bin *b, int m) {
    return !isnan(b->cell.retention[m].mean);
}

/* Points beyond `least` and `most` are drawn at the edge: a score far from both ends says no more. */
static int find_axes(const report_split *s, axes *a) {
    static const double least = -0.5, most = 1.5;
    int n = 0;
    *a = (axes){ 2, 0, 1 };
    for (int b = 0; b < s->bins; b++)
        for (int m = 0; m < EVAL_BYS; m++) {
            if (!is_point(&s->bin[b], m)) continue;
            double y = fmin(fmax(s->bin[b].cell.retention[m].mean, least), most);
            if (s->bin[b].factor * 1.1 > a->most_x) a->most_x = s->bin[b].factor * 1.1;
            if (y < a->low_y) a->low_y = floor(y * 4) / 4;
            if (y > a->high_y) a->high_y = ceil(y * 4) / 4;
            n++;
        }
    return n;
}

static void grid(const axes *a, int ratio, sbuf *out) {
    for (double y = a->low_y; y <= a->high_y + 1e-9; y += 0.25)
        sbuf_fmt(out,
                 "<line stroke=\"#8888\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/><text x=\"%d\" y=\"%.1f\" "
                 "text-anchor=\"end\">%.0f%%</text>\n",
                 LEFT, WIDTH - RIGHT, py(a, y), py(a, y), LEFT - 6, py(a, y) + 4, 100 * y);
    for (double x = 1; x <= a->most_x; x *= 2)
        sbuf_fmt(out, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%.0fx</text>\n", px(a, x),
                 HEIGHT - BOTTOM + 18, x);
    if (ratio > 1 && ratio < a->most_x)
        sbuf_fmt(out,
                 "<line stroke=\"#888\" stroke-dasharray=\"4 4\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/>"
                 "<text x=\"%.1f\" y=\"%d\">%dx</text>\n",
                 px(a, ratio), px(a, ratio), TOP, HEIGHT - BOTTOM, px(a, ratio) + 4, TOP - 6, ratio);
}

static double inside(const axes *a, double y) {
    return py(a, fmin(fmax(y, a->low_y), a->high_y));
}

static void point(const axes *a, const eval_bin *b, int m, sbuf *out) {
    const eval_figure *f = &b->cell.retention[m];
    double x = px(a, b->factor);
    if (!isnan(f->low))
        sbuf_fmt(out, "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"%s\"/>", x, x,
                 inside(a, f->low), inside(a, f->high), colour[m]);
    sbuf_fmt(out,
             "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" fill=\"%s\"><title>%.1fx to %.1fx: %.1f%%, %d answers of %d "
             "prompts</title></circle>\n",
             x, inside(a, f->mean), colour[m], b->from, b->to, 100 * f->mean, b->cell.n, b->cell.prompts);
}

static void line(const axes *a, const report_split *s, int m, sbuf *out) {
    sbuf_fmt(out, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2\" points=\"", colour[m]);
    for (int b = 0; b < s->bins; b++)
        if (is_point(&s->bin[b], m))
            sbuf_fmt(out, "%.1f,%.1f ", px(a, s->bin[b].factor), inside(a, s->bin[b].cell.retention[m].mean));
    sbuf_str(out, "\"/>\n");
    for (int b = 0; b < s->bins; b++)
        if (is_point(&s->bin[b], m)) point(a, &s->bin[b], m, out);
}

bool report_retention_chart(const report_split *s, int ratio, bool alone, sbuf *out) {
    axes a;
    if (find_axes(s, &a) == 0) return false;
    sbuf_fmt(out, "<svg viewBox=\"0 0 %d %d\" role=\"img\"", WIDTH, HEIGHT);
    if (alone)
        sbuf_fmt(out,
                 " xmlns=\"http://www.w3.org/2000/svg\" font-family=\"sans-serif\" font-size=\"12\">\n"
                 "<rect width=\"%d\" height=\"%d\" fill=\"#fff\"/>\n",
                 WIDTH, HEIGHT);
    else
        sbuf_str(out, ">\n");
    grid(&a, ratio, out);
    for (int m = 0; m < EVAL_BYS; m++) line(&a, s, m, out);
    sbuf_fmt(out, "<text x=\"%d\" y=\"%d\">prompt tokens per gist token</text>\n", LEFT, HEIGHT - 10);
    legend(out, WIDTH - 200, HEIGHT - 10);
    sbuf_str(out, "</svg>\n");
    return true;
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

void report_score_chart(const report_split *s, sbuf *out) {
    int height = s->columns * ROW + 30;
    sbuf_fmt(out, "<svg viewBox=\"0 0 %d %d\" role=\"img\">\n", WIDTH, height);
    for (int c = 0; c < s->columns; c++) {
        sbuf_fmt(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>\n", LABEL - 8, c * ROW + 14,
                 s->column[c].view.name);
        for (int m = 0; m < EVAL_BYS; m++) bar(&s->column[c].cell.score[m], m, c * ROW + 1 + 9 * m, out);
    }
    legend(out, LABEL, height - 6);
    sbuf_str(out, "</svg>\n");
}
