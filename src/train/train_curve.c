/* train_curve.c - metrics.jsonl as a picture: losses of training and validation, and scores where there are any.
 *
 *     loss  ^ .:.                    training: every step (faint), and smoothed
 *           |   ':._ ..              validation: a colour per view (gist.k4, full), a dash per split
 *           |       '':::....        linear, cut at the 98th percentile so that the first steps do not flatten the
 *           +-----------------> step rest; logarithmic when the losses fall by more than LOG_FROM
 *     score ^            ..---
 *           |     ...---'            percent of generated answers, on an axis of its own
 *           +-----------------> step
 *
 * At most POINTS points a line (means of equal stretches), so the file stays small however long the run.
 */
#include <math.h>
#include <stdlib.h>

#include "format/format.h"
#include "train/train.h"

enum { POINTS = 600, LINES = 40, LOG_FROM = 20 };
enum { LEFT = 64, RIGHT = 750, TOP = 40, BOTTOM = 48, PLOT = 380, LEGEND = 16 }; /* pixels */

enum { LOSSES, SCORES, PANELS };

typedef struct series {
    char name[80];
    int panel;
    int colour, dash;
    double *x, *y;
    size_t n, cap;
} series;

typedef struct panel {
    const char *title;
    bool log;
    double y0, y1;
    int top;   /* of its plot, in pixels */
    int lines; /* in its legend */
} panel;

typedef struct picture {
    const gist_allocator *alloc;
    series line[LINES + 1]; /* 0: training */
    int lines;
    bool more; /* metrics that no line was left for */
    double x1; /* steps from 0 */
    panel panel[PANELS];
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

/* Where the view begins in "unseen/gist.k4" and "unseen/exact.gist.k4"; before it: split, and score. */
static size_t view_of(const char *name, int in) {
    const char *slash = strchr(name, '/'), *from = slash ? slash + 1 : name;
    const char *dot = in == SCORES ? strchr(from, '.') : NULL;
    return (size_t)((dot ? dot + 1 : from) - name);
}

/* Lines of one view share a colour, in both panels; lines of one split (and score) a dash. */
static void choose_style(picture *p, series *s) {
    size_t at = view_of(s->name, s->panel);
    int colours = 0, dashes = 0;
    s->colour = s->dash = -1;
    for (const series *o = &p->line[1]; o < s; o++) {
        size_t other = view_of(o->name, o->panel);
        if (strcmp(o->name + other, s->name + at) == 0) s->colour = o->colour;
        if (o->panel == s->panel && other == at && memcmp(o->name, s->name, at) == 0) s->dash = o->dash;
        if (o->colour >= colours) colours = o->colour + 1;
        if (o->panel == s->panel && o->dash >= dashes) dashes = o->dash + 1;
    }
    if (s->colour < 0) s->colour = colours;
    if (s->dash < 0) s->dash = dashes;
}

/* The series of a validation metric; NULL: there are enough. */
static series *find_line(picture *p, const char *name, int in) {
    for (int i = 1; i <= p->lines; i++)
        if (p->line[i].panel == in && strcmp(p->line[i].name, name) == 0) return &p->line[i];
    if (p->lines == LINES || p->panel[in].lines * LEGEND > PLOT - 2 * LEGEND) {
        p->more = true;
        return NULL;
    }
    series *s = &p->line[++p->lines];
    s->panel = in;
    snprintf(s->name, sizeof s->name, "%s", name);
    choose_style(p, s);
    p->panel[in].lines++;
    return s;
}

static gist_status read_record(picture *p, const json_t *row, gist_error *err) {
    static const char *const keys[PANELS] = { "eval", "scores" };
    double step = json_number_value(json_object_get(row, "step"));
    const json_t *loss = json_object_get(row, "loss");
    if (json_is_number(loss)) TRY(put_point(p, &p->line[0], step, json_number_value(loss), err));
    for (int in = 0; in < PANELS; in++) {
        const char *name;
        json_t *v;
        json_object_foreach(json_object_get(row, keys[in]), name, v) {
            series *s = json_is_number(v) ? find_line(p, name, in) : NULL;
            if (s) TRY(put_point(p, s, step, json_number_value(v), err));
        }
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

/* ---- axes ---- */

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* v sorted */
static void choose_axis(panel *a, const double *v, size_t n) {
    double low = v[(size_t)((double)(n - 1) * 0.02)], high = v[n - 1];
    a->log = low > 0 && high / low > LOG_FROM;
    if (a->log) {
        a->y0 = low / 1.2;
        a->y1 = high * 1.2;
        return;
    }
    a->y0 = v[0];
    a->y1 = v[(size_t)((double)(n - 1) * 0.98)];
    double margin = 0.05 * (a->y1 - a->y0) + 0.01 * a->y1 + 1e-3;
    a->y0 = a->y0 - margin > 0 ? a->y0 - margin : 0;
    a->y1 += margin;
}

static gist_status find_range(picture *p, gist_error *err) {
    size_t n = 0, at = 0;
    for (int i = 0; i <= p->lines; i++) n += p->line[i].n;
    double *all = mem_alloc(p->alloc, n + 1, sizeof *all);
    if (!all) return err_memory(err, "curve");
    p->x1 = 1;
    for (int i = 0; i <= p->lines; i++)
        for (size_t j = 0; j < p->line[i].n; j++) {
            if (p->line[i].panel == LOSSES) all[at++] = p->line[i].y[j];
            if (p->line[i].x[j] > p->x1) p->x1 = p->line[i].x[j];
        }
    qsort(all, at, sizeof *all, by_value);
    p->panel[LOSSES] = (panel){ "loss, nats per answer token", .y1 = 1, .top = TOP, .lines = p->panel[LOSSES].lines };
    if (at > 0) choose_axis(&p->panel[LOSSES], all, at);
    p->panel[SCORES] = (panel){
        "score of generated answers, percent", false, 0, 100, TOP + PLOT + BOTTOM + TOP, p->panel[SCORES].lines
    };
    mem_free(p->alloc, all);
    return GIST_OK;
}

static double px(const picture *p, double x) {
    return LEFT + x / p->x1 * (RIGHT - LEFT);
}

static double py(const panel *a, double y) {
    double v;
    if (a->log)
        v = log(y > a->y0 ? y / a->y0 : 1) / log(a->y1 / a->y0);
    else
        v = (y - a->y0) / (a->y1 - a->y0);
    v = v < 0 ? 0 : v > 1 ? 1 : v;
    return a->top + PLOT - v * PLOT;
}

/* 1, 2 or 5 times a power of ten, giving about `n` ticks over `span`. */
static double tick_step(double span, int n) {
    double raw = span / n, ten = pow(10, floor(log10(raw))), f = raw / ten;
    return ten * (f < 1.5 ? 1 : f < 3.5 ? 2 : f < 7.5 ? 5 : 10);
}

static void draw_level(const panel *a, double y, sbuf *s) {
    sbuf_fmt(s, "<path d=\"M%d %.1fH%d\" stroke=\"#ddd\"/><text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.4g</text>\n",
             LEFT, py(a, y), RIGHT, LEFT - 8, py(a, y) + 4, y);
}

static void draw_axes(const picture *p, const panel *a, sbuf *s) {
    int bottom = a->top + PLOT;
    sbuf_fmt(s, "<g font-size=\"12\" fill=\"#555\" stroke=\"none\">\n");
    if (a->log) { /* 1, 2, 5 of each power of ten; of many powers only these */
        static const double parts[] = { 1, 2, 5 };
        double first = floor(log10(a->y0)), last = log10(a->y1);
        int each = last - first > 3 ? 1 : 3;
        for (double ten = first; ten <= last; ten++)
            for (int i = 0; i < each; i++) {
                double y = parts[i] * pow(10, ten);
                if (y >= a->y0 && y <= a->y1) draw_level(a, y, s);
            }
    } else {
        double d = tick_step(a->y1 - a->y0, 6);
        for (double y = ceil(a->y0 / d) * d; y <= a->y1 + 1e-9; y += d) draw_level(a, y, s);
    }
    double d = tick_step(p->x1, 8);
    for (double x = 0; x <= p->x1 * (1 + 1e-9); x += d < 1 ? 1 : d)
        sbuf_fmt(s,
                 "<path d=\"M%.1f %dv4\" stroke=\"#888\"/><text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%.0f"
                 "</text>\n",
                 px(p, x), bottom, px(p, x), bottom + 18, x);
    sbuf_fmt(s, "<path d=\"M%d %dH%d\" stroke=\"#888\"/>\n", LEFT, bottom, RIGHT);
    sbuf_fmt(s, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">step</text>\n", (LEFT + RIGHT) / 2, bottom + 36);
    sbuf_fmt(s, "<text x=\"%d\" y=\"%d\">%s%s</text>\n</g>\n", LEFT, a->top - 16, a->title,
             a->log ? " (logarithmic)" : "");
}

/* ---- lines ---- */

typedef struct line_style {
    const char *colour, *dash;
    double width, decay; /* decay 0: as it is; else an exponential mean, corrected for its start */
} line_style;

static void draw_line(const picture *p, const series *l, const line_style *pen, sbuf *s) {
    const panel *a = &p->panel[l->panel];
    size_t each = (l->n + POINTS - 1) / POINTS;
    double mean = 0, weight = 0;
    if (l->n == 0) return;
    if (l->n == 1) /* a line of one point is not seen */
        sbuf_fmt(s, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"2.5\" fill=\"%s\"/>\n", px(p, l->x[0]), py(a, l->y[0]),
                 pen->colour);
    sbuf_fmt(s, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"%.1f\" stroke-dasharray=\"%s\" points=\"",
             pen->colour, pen->width, pen->dash);
    for (size_t i = 0; i < l->n; i += each) {
        double x = 0, y = 0;
        size_t n = 0;
        for (size_t j = i; j < i + each && j < l->n; j++, n++) {
            mean = pen->decay * mean + (1 - pen->decay) * l->y[j];
            weight = pen->decay * weight + (1 - pen->decay);
            x += l->x[j];
            y += mean / weight;
        }
        sbuf_fmt(s, "%.1f,%.1f ", px(p, x / (double)n), py(a, y / (double)n));
    }
    sbuf_str(s, "\"/>\n");
}

/* A row of the legend, right of the plot. */
static void draw_name(const panel *a, int row, const line_style *pen, const char *name, sbuf *s) {
    int x = RIGHT + 16, y = a->top + LEGEND / 2 + row * LEGEND;
    sbuf_fmt(s,
             "<path d=\"M%d %dh26\" stroke=\"%s\" stroke-width=\"2\" stroke-dasharray=\"%s\"/>"
             "<text x=\"%d\" y=\"%d\" font-size=\"12\" fill=\"#333\">",
             x, y, pen->colour, pen->dash, x + 34, y + 4);
    for (const char *c = name; *c; c++)
        if (*c != '<' && *c != '&') sbuf_add(s, c, 1);
    sbuf_str(s, "</text>\n");
}

static void draw_training(const picture *p, sbuf *s) {
    const series *l = &p->line[0];
    double window = (double)l->n / 50;
    line_style faint = { "#b9cfe8", "none", 1, 0 },
               smooth = { "#2166ac", "none", 2, 1 - 1 / fmin(fmax(window, 4), 100) };
    draw_line(p, l, &faint, s);
    draw_line(p, l, &smooth, s);
    draw_name(&p->panel[LOSSES], 0, &smooth, "training", s);
}

static void draw_validation(const picture *p, int in, sbuf *s) {
    static const char *const colours[] = { "#d95f02", "#1b9e77", "#7570b3", "#e7298a",
                                           "#66a61e", "#e6ab02", "#a6761d", "#666666" };
    static const char *const dashes[] = { "none", "6 3", "2 3", "9 3 2 3" };
    int row = in == LOSSES; /* training's is the first */
    for (int i = 1; i <= p->lines; i++) {
        const series *l = &p->line[i];
        if (l->panel != in) continue;
        line_style pen = { colours[(size_t)l->colour % (sizeof colours / sizeof *colours)],
                           dashes[(size_t)l->dash % (sizeof dashes / sizeof *dashes)], 2, 0 };
        draw_line(p, l, &pen, s);
        for (size_t j = 0; j < l->n && l->n <= 100; j++)
            sbuf_fmt(s, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"2.5\" fill=\"%s\"/>\n", px(p, l->x[j]),
                     py(&p->panel[in], l->y[j]), pen.colour);
        draw_name(&p->panel[in], row++, &pen, l->name, s);
    }
}

static void draw(const picture *p, sbuf *s) {
    int panels = p->panel[SCORES].lines ? PANELS : 1, height = panels * (TOP + PLOT + BOTTOM);
    size_t longest = 20;
    for (int i = 1; i <= p->lines; i++) longest = strlen(p->line[i].name) > longest ? strlen(p->line[i].name) : longest;
    int width = RIGHT + 60 + 7 * (int)longest;
    sbuf_fmt(s,
             "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\">\n"
             "<rect width=\"%d\" height=\"%d\" fill=\"#fff\"/>\n",
             width, height, width, height);
    for (int in = 0; in < panels; in++) {
        draw_axes(p, &p->panel[in], s);
        if (in == LOSSES) draw_training(p, s);
        draw_validation(p, in, s);
    }
    if (p->more)
        sbuf_fmt(s, "<text x=\"%d\" y=\"%d\" font-size=\"12\" fill=\"#555\">more in metrics.jsonl</text>\n", RIGHT + 16,
                 TOP + PLOT + 18);
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
