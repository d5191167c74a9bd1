/* train_curve.c - metrics.jsonl as a picture: training loss (faint, and smoothed), validation losses.
 *
 *     loss ^  .:.                              scaled to what was seen, cut at the 98th percentile from above so that
 *          |   ':._ ..                         the first steps do not flatten the rest; linear axes
 *          |       '':::....
 *          +-------------------> step          one colour per validation metric, in order of first appearance
 *
 * At most POINTS points a line (means of equal stretches), so the file stays small however long the run.
 */
#include <math.h>
#include <stdlib.h>

#include "format/format.h"
#include "train/train.h"

enum { POINTS = 600, LINES = 12, WIDTH = 860, HEIGHT = 460, LEFT = 64, RIGHT = 20, TOP = 40, BOTTOM = 48 };

typedef struct series {
    char name[80];
    double *x, *y;
    size_t n, cap;
} series;

typedef struct picture {
    const gist_allocator *alloc;
    series line[LINES + 1]; /* 0: training */
    int lines;
    double x1, y0, y1; /* steps from 0, loss from y0 */
} picture;

static gist_status put_point(picture *p, series *s, double x, double y, gist_error *err) {
    if (s->n == s->cap) {
        size_t cap = s->cap ? s->cap * 2 : 256;
        double *px = mem_resize(p->alloc, s->x, s->cap, cap, sizeof *px);
        if (px) s->x = px;
        double *py = px ? mem_resize(p->alloc, s->y, s->cap, cap, sizeof *py) : NULL;
        if (!py) return err_memory(err, "curve");
        s->y = py;
        s->cap = cap;
    }
    s->x[s->n] = x;
    s->y[s->n++] = y;
    return GIST_OK;
}

/* The series of a validation metric; NULL: there are enough.  Only losses ("split/condition") share the axis. */
static series *find_line(picture *p, const char *name) {
    for (int i = 1; i <= p->lines; i++)
        if (strcmp(p->line[i].name, name) == 0) return &p->line[i];
    if (p->lines == LINES || strncmp(name, "answers/", 8) == 0) return NULL;
    series *s = &p->line[++p->lines];
    snprintf(s->name, sizeof s->name, "%s", name);
    return s;
}

static gist_status read_record(picture *p, const json_t *row, gist_error *err) {
    double step = json_number_value(json_object_get(row, "step"));
    const json_t *loss = json_object_get(row, "loss"), *eval = json_object_get(row, "eval");
    if (json_is_number(loss)) TRY(put_point(p, &p->line[0], step, json_number_value(loss), err));
    const char *name;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)eval, name, v) {
        series *s = json_is_number(v) ? find_line(p, name) : NULL;
        if (s) TRY(put_point(p, s, step, json_number_value(v), err));
    }
    return GIST_OK;
}

static gist_status read_lines(picture *p, const char *bytes, size_t len, const char *what, gist_error *err) {
    for (size_t at = 0; at < len;) {
        const char *end = memchr(bytes + at, '\n', len - at);
        size_t n = (end ? (size_t)(end - bytes) : len) - at;
        json_t *row = NULL;
        if (n) TRY(json_parse(bytes + at, n, what, &row, err));
        gist_status status = row ? read_record(p, row, err) : GIST_OK;
        json_decref(row);
        if (status != GIST_OK) return status;
        at += n + 1;
    }
    return GIST_OK;
}

/* ---- drawing ---- */

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static gist_status find_range(picture *p, gist_error *err) {
    size_t n = 0, at = 0;
    for (int i = 0; i <= p->lines; i++) n += p->line[i].n;
    double *all = mem_alloc(p->alloc, n + 1, sizeof *all);
    if (!all) return err_memory(err, "curve");
    p->x1 = 1;
    for (int i = 0; i <= p->lines; i++)
        for (size_t j = 0; j < p->line[i].n; j++) {
            all[at++] = p->line[i].y[j];
            if (p->line[i].x[j] > p->x1) p->x1 = p->line[i].x[j];
        }
    qsort(all, n, sizeof *all, by_value);
    p->y0 = n ? all[0] : 0;
    p->y1 = n ? all[(size_t)((double)(n - 1) * 0.98)] : 1;
    double margin = 0.05 * (p->y1 - p->y0) + 1e-3;
    p->y0 = p->y0 - margin > 0 ? p->y0 - margin : 0;
    p->y1 += margin;
    mem_free(p->alloc, all);
    return GIST_OK;
}

static double px(const picture *p, double x) {
    return LEFT + x / p->x1 * (WIDTH - LEFT - RIGHT);
}

static double py(const picture *p, double y) {
    double v = (y - p->y0) / (p->y1 - p->y0);
    v = v < 0 ? 0 : v > 1 ? 1 : v;
    return HEIGHT - BOTTOM - v * (HEIGHT - TOP - BOTTOM);
}

/* 1, 2 or 5 times a power of ten, giving about `n` ticks over `span`. */
static double tick_step(double span, int n) {
    double raw = span / n, ten = pow(10, floor(log10(raw))), f = raw / ten;
    return ten * (f < 1.5 ? 1 : f < 3.5 ? 2 : f < 7.5 ? 5 : 10);
}

static void draw_axes(const picture *p, sbuf *s) {
    sbuf_fmt(s, "<g font-size=\"12\" fill=\"#555\" stroke=\"none\">\n");
    double d = tick_step(p->y1 - p->y0, 6);
    for (double y = ceil(p->y0 / d) * d; y <= p->y1 + 1e-9; y += d)
        sbuf_fmt(s,
                 "<path d=\"M%d %.1fH%d\" stroke=\"#ddd\"/><text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.4g</text>\n",
                 LEFT, py(p, y), WIDTH - RIGHT, LEFT - 8, py(p, y) + 4, y);
    d = tick_step(p->x1, 8);
    for (double x = 0; x <= p->x1 * (1 + 1e-9); x += d < 1 ? 1 : d)
        sbuf_fmt(s, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%.0f</text>\n", px(p, x), HEIGHT - BOTTOM + 18,
                 x);
    sbuf_fmt(s, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">step</text>\n", (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8);
    sbuf_fmt(s, "<text x=\"%d\" y=\"24\">loss, nats per answer token</text>\n</g>\n", LEFT);
}

/* decay 0: as it is; else an exponential mean, corrected for its start */
static void draw_line(const picture *p, const series *l, const char *colour, double width, double decay, sbuf *s) {
    size_t each = (l->n + POINTS - 1) / POINTS;
    double mean = 0, weight = 0;
    if (l->n == 0) return;
    sbuf_fmt(s, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"%.1f\" points=\"", colour, width);
    for (size_t i = 0; i < l->n; i += each) {
        double x = 0, y = 0;
        size_t n = 0;
        for (size_t j = i; j < i + each && j < l->n; j++, n++) {
            mean = decay * mean + (1 - decay) * l->y[j];
            weight = decay * weight + (1 - decay);
            x += l->x[j];
            y += mean / weight;
        }
        sbuf_fmt(s, "%.1f,%.1f ", px(p, x / (double)n), py(p, y / (double)n));
    }
    sbuf_str(s, "\"/>\n");
}

static void draw(const picture *p, sbuf *s) {
    static const char *const colours[] = { "#d95f02", "#1b9e77", "#7570b3", "#e7298a", "#66a61e", "#e6ab02" };
    sbuf_fmt(s,
             "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\">\n"
             "<rect width=\"%d\" height=\"%d\" fill=\"#fff\"/>\n",
             WIDTH, HEIGHT, WIDTH, HEIGHT);
    draw_axes(p, s);
    draw_line(p, &p->line[0], "#b9cfe8", 1, 0, s);
    draw_line(p, &p->line[0], "#2166ac", 2, p->line[0].n > 50 ? 0.95 : 0.8, s);
    sbuf_fmt(s, "<text x=\"%d\" y=\"%d\" font-size=\"12\" fill=\"#2166ac\" text-anchor=\"end\">training</text>\n",
             WIDTH - RIGHT, TOP + 4);
    for (int i = 1; i <= p->lines; i++) {
        const series *l = &p->line[i];
        const char *colour = colours[(size_t)(i - 1) % (sizeof colours / sizeof *colours)];
        draw_line(p, l, colour, 2, 0, s);
        for (size_t j = 0; j < l->n && l->n <= 100; j++)
            sbuf_fmt(s, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"2.5\" fill=\"%s\"/>\n", px(p, l->x[j]), py(p, l->y[j]),
                     colour);
        sbuf_fmt(s, "<text x=\"%d\" y=\"%d\" font-size=\"12\" fill=\"%s\" text-anchor=\"end\">", WIDTH - RIGHT,
                 TOP + 4 + 16 * i, colour);
        for (const char *c = l->name; *c; c++)
            if (*c != '<' && *c != '&') sbuf_add(s, c, 1);
        sbuf_str(s, "</text>\n");
    }
    sbuf_str(s, "</svg>\n");
}

gist_status train_curve(const char *metrics, const char *svg, const gist_allocator *alloc, gist_error *err) {
    file_map map;
    sbuf text;
    out_file out;
    picture p = { .alloc = alloc };
    sbuf_init(&text, alloc);
    TRY(map_open(metrics, &map, err));
    gist_status status = read_lines(&p, (const char *)map.data, map.size, metrics, err);
    map_close(&map);
    if (status == GIST_OK) status = find_range(&p, err);
    if (status == GIST_OK) draw(&p, &text);
    if (status == GIST_OK && text.failed) status = err_memory(err, "curve");
    if (status == GIST_OK) status = out_open(&out, alloc, svg, err);
    if (status == GIST_OK) {
        out_write(&out, text.p, text.len);
        status = out_commit(&out, err);
    }
    sbuf_free(&text);
    for (int i = 0; i <= LINES; i++) {
        mem_free(alloc, p.line[i].x);
        mem_free(alloc, p.line[i].y);
    }
    return status;
}
