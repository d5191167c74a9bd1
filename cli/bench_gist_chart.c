/* bench_gist_chart.c - three ways side by side: one panel per group, a bar for each way, as a share of the longest. */
#include <math.h>

#include "bench_gist.h"

enum { WIDTH = 760, LEFT = 190, RIGHT = 110, BAR = 12, GAP = 10, TITLE = 34, TOP = 60 };

static const bench_metric drawn[] = { METRIC_FLOPS,  METRIC_FORWARD, METRIC_FIRST,
                                      METRIC_DECODE, METRIC_CACHE,   METRIC_READ };
enum { DRAWN = sizeof drawn / sizeof *drawn };
static const char *const colour[WAYS] = { "#999999", "#d95f02", "#1b9e77" };
static const char *const long_name[WAYS] = { "no cache", "full prefix", "gist" };

static void escaped(sbuf *out, const char *p) {
    for (; *p; p++) {
        const char *as = *p == '&' ? "&amp;" : *p == '<' ? "&lt;" : *p == '>' ? "&gt;" : NULL;
        if (as)
            sbuf_str(out, as);
        else if ((unsigned char)*p >= 0x20)
            sbuf_add(out, p, 1);
    }
}

static void label(sbuf *out, bench_metric m, double x) {
    char size[32];
    if (m == METRIC_CACHE || m == METRIC_READ)
        sbuf_str(out, size_text((uint64_t)x, size));
    else
        sbuf_fmt(out, "%.*f", x < 10 ? 3 : 1, x);
}

static int metric_bars(sbuf *out, const bench_summary *s, bench_metric m, int y) {
    double most = 0;
    for (int w = 0; w < WAYS; w++)
        if (s->of[m][w].mean > most) most = s->of[m][w].mean;
    sbuf_fmt(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>\n", LEFT - 10, y + WAYS * BAR / 2 + 4,
             bench_metrics[m].title);
    for (int w = 0; w < WAYS; w++) {
        double x = s->of[m][w].mean;
        if (isnan(x)) continue;
        double length = most > 0 ? x / most * (WIDTH - LEFT - RIGHT) : 0;
        sbuf_fmt(out,
                 "<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\" fill=\"%s\"/>"
                 "<text x=\"%.1f\" y=\"%d\" font-size=\"10\">",
                 LEFT, y + w * BAR, length, BAR - 2, colour[w], LEFT + length + 5, y + w * BAR + 9);
        label(out, m, x);
        sbuf_str(out, "</text>\n");
    }
    return y + WAYS * BAR + GAP;
}

static int group_height(const bench_gist *b) {
    int rows = 0;
    for (int i = 0; i < DRAWN; i++) rows += bench_has(b, drawn[i], WAY_GIST);
    return TITLE + rows * (WAYS * BAR + GAP);
}

void bench_gist_chart(const bench_gist *b, const bench_summary *s, sbuf *out) {
    int y = TOP, height = TOP + b->items.groups * group_height(b) + 10;
    sbuf_fmt(out,
             "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\">\n"
             "<rect width=\"%d\" height=\"%d\" fill=\"#fff\"/>\n<g font-size=\"12\" fill=\"#333\">\n"
             "<text x=\"16\" y=\"24\" font-size=\"14\">One prompt served three ways: ",
             WIDTH, height, WIDTH, height);
    escaped(out, b->model);
    sbuf_fmt(out, "%s, k = %d (means)</text>\n",
             b->dry              ? ", counted"
             : b->random_weights ? ", random weights"
                                 : "",
             b->k);
    for (int w = 0; w < WAYS; w++)
        sbuf_fmt(out,
                 "<rect x=\"%d\" y=\"36\" width=\"10\" height=\"10\" fill=\"%s\"/><text x=\"%d\" y=\"45\">%s</text>\n",
                 LEFT + 100 * w, colour[w], LEFT + 100 * w + 14, long_name[w]);
    for (int g = 0; g < b->items.groups; g++) {
        sbuf_fmt(out, "<text x=\"16\" y=\"%d\" font-size=\"13\">", y + 22);
        escaped(out, b->items.group[g].name);
        sbuf_str(out, "</text>\n");
        y += TITLE;
        for (int i = 0; i < DRAWN; i++)
            if (bench_has(b, drawn[i], WAY_GIST)) y = metric_bars(out, &s[g], drawn[i], y);
    }
    sbuf_str(out, "</g>\n</svg>\n");
}
