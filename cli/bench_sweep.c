/* bench_sweep.c - step time against prompt length: what is hidden costs nothing.
 *
 *      | prompt, 1 .. 1024 tokens | 4 gists | answer | answer | ...       the same answers at every length
 *
 *   visible   answers see prompt and gists (pos_control): their attention grows with the prompt
 *   hidden    answers see the gists (gist): it does not
 *   alone     no answers: what encoding the prompt costs either way
 *
 * The chart shows whole steps, and what is left of them without the encoding: the answers' own cost.
 */
#include "bench_train.h"

typedef enum sweep_case { HIDDEN, VISIBLE, ALONE, CASES } sweep_case;

/* ---- batches ---- */

gist_status bench_tokens(int32_t **ids, size_t n, int vocab, gist_error *err) {
    rng random;
    *ids = mem_alloc(NULL, n, sizeof **ids);
    if (!*ids) return err_memory(err, "tokens");
    rng_seed(&random, 1);
    for (size_t i = 0; i < n; i++) (*ids)[i] = (int32_t)rng_below(&random, (uint64_t)vocab);
    return GIST_OK;
}

static gist_status pack(train_batch *b, int32_t *ids, int prompt, int k, int pairs, int length, train_condition c,
                        gist_error *err) {
    size_t n = (size_t)pairs;
    train_prompt p = { .ids = 0, .len = prompt, .pairs = pairs };
    train_set set = { .ids = ids, .prompt = &p, .prompts = 1, .pairs = pairs };
    train_pack_options opt = { .k = { k }, .k_count = 1, .gist_token = ids[0] };
    set.pair = mem_calloc(NULL, n, sizeof *set.pair);
    int *index = mem_calloc(NULL, n, sizeof *index), *ks = mem_calloc(NULL, n, sizeof *ks);
    train_condition *conditions = mem_calloc(NULL, n, sizeof *conditions);
    gist_status status = set.pair && index && ks && conditions ? GIST_OK : err_memory(err, "batch");
    for (int i = 0; status == GIST_OK && i < pairs; i++) {
        size_t at = (size_t)(prompt + i * (length + 1));
        set.pair[i] = (train_pair){ .input = at, .answer = at + 1, .input_len = 1, .answer_len = length };
        index[i] = i;
        ks[i] = k;
        conditions[i] = c;
    }
    if (status == GIST_OK) status = train_pack_group(b, &set, 0, index, conditions, ks, pairs, &opt, err);
    if (status == GIST_OK) train_batch_finish(b);
    mem_free(NULL, set.pair);
    mem_free(NULL, index);
    mem_free(NULL, ks);
    mem_free(NULL, conditions);
    return status;
}

gist_status bench_rows(train_batch *b, int32_t *ids, int sequences, int length, gist_error *err) {
    return pack(b, ids, 0, 0, sequences, length, COND_NONE, err);
}

gist_status bench_prompt(train_batch *b, int32_t *ids, int prompt, int k, int pairs, int length, train_condition c,
                         gist_error *err) {
    return pack(b, ids, prompt, k, pairs, length, c, err);
}

gist_status bench_step(train_model *tm, const train_batch *b, int64_t step, double *seconds, gist_error *err) {
    optimiser o = { .lr = 1e-4f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .decay = 0.01f };
    train_loss loss;
    double start = time_now();
    train_model_zero_grad(tm);
    TRY(train_model_step(tm, b, 1, &loss, err));
    train_model_update(tm, &o, step);
    *seconds = time_now() - start;
    return GIST_OK;
}

/* ---- measuring ---- */

static int prompt_of(int point) {
    int step = SWEEP_MOST / (SWEEP_POINTS - 1);
    return point ? point * step : 1;
}

int sweep_rows(int answers) {
    return SWEEP_MOST + SWEEP_GISTS + answers;
}

static gist_status make_batches(train_batch (*b)[CASES], int32_t *ids, int answers, int length, gist_error *err) {
    for (int i = 0; i < SWEEP_POINTS; i++) {
        int p = prompt_of(i), k = SWEEP_GISTS, n = answers / length;
        TRY(bench_prompt(&b[i][HIDDEN], ids, p, k, n, length, COND_GIST, err));
        TRY(bench_prompt(&b[i][VISIBLE], ids, p, k, n, length, COND_POS_CONTROL, err));
        TRY(bench_prompt(&b[i][ALONE], ids, p, k, 1, 0, COND_GIST, err));
    }
    return GIST_OK;
}

typedef struct sweep {
    train_batch batch[SWEEP_POINTS][CASES];
    double ms[SWEEP_POINTS][CASES][BENCH_MAX_REPEAT];
} sweep;

static gist_status run_rounds(sweep *s, train_model *tm, int rounds, gist_error *err) {
    int64_t step = 1;
    double seconds;
    for (int r = -1; r < rounds; r++) /* the first one warms up */
        for (int i = 0; i < SWEEP_POINTS; i++)
            for (int c = 0; c < CASES; c++) {
                if (r >= 0) progress("round %d of %d, prompt of %d", r + 1, rounds, prompt_of(i));
                TRY(bench_step(tm, &s->batch[i][c], step++, &seconds, err));
                if (r >= 0) s->ms[i][c][r] = 1e3 * seconds;
            }
    progress_end();
    return GIST_OK;
}

/* What others do on the machine only ever adds, and differences of steps are wanted here: no medians. */
static double fastest(const double *ms, int n) {
    double least = ms[0];
    for (int i = 1; i < n; i++) least = ms[i] < least ? ms[i] : least;
    return least;
}

gist_status sweep_measure(train_model *tm, int answers, int length, int rounds, sweep_point out[SWEEP_POINTS],
                          gist_error *err) {
    int32_t *ids = NULL;
    sweep *s = mem_calloc(NULL, 1, sizeof *s);
    if (!s) return err_memory(err, "measurements");
    for (int i = 0; i < SWEEP_POINTS * CASES; i++) train_batch_init(&s->batch[i / CASES][i % CASES], NULL);
    int vocab = train_model_llama(tm)->cfg.V;
    gist_status status = bench_tokens(&ids, (size_t)(2 * sweep_rows(answers)), vocab, err);
    if (status == GIST_OK) status = make_batches(s->batch, ids, answers, length, err);
    if (status == GIST_OK) status = run_rounds(s, tm, rounds, err);
    for (int i = 0; status == GIST_OK && i < SWEEP_POINTS; i++)
        out[i] = (sweep_point){ prompt_of(i), fastest(s->ms[i][HIDDEN], rounds), fastest(s->ms[i][VISIBLE], rounds),
                                fastest(s->ms[i][ALONE], rounds) };
    for (int i = 0; i < SWEEP_POINTS * CASES; i++) train_batch_free(&s->batch[i / CASES][i % CASES]);
    mem_free(NULL, ids);
    mem_free(NULL, s);
    return status;
}

/* ---- the chart ---- */

enum { WIDTH = 800, HEIGHT = 480, LEFT = 70, RIGHT = 190, TOP = 50, BOTTOM = 50 };

static double px(double x) {
    return LEFT + x / SWEEP_MOST * (WIDTH - LEFT - RIGHT);
}

static double py(double y, double most) {
    return HEIGHT - BOTTOM - y / most * (HEIGHT - TOP - BOTTOM);
}

static void draw_axes(sbuf *s, const char *title, double most, double tick) {
    sbuf_fmt(s, "<g font-size=\"12\" fill=\"#555\">\n");
    for (double y = 0; y <= most; y += tick)
        sbuf_fmt(s,
                 "<path d=\"M%d %.1fH%d\" stroke=\"#ddd\"/>"
                 "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.0f</text>\n",
                 LEFT, py(y, most), WIDTH - RIGHT, LEFT - 8, py(y, most) + 4, y);
    for (int x = 0; x <= SWEEP_MOST; x += SWEEP_MOST / 8)
        sbuf_fmt(s, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%d</text>\n", px(x), HEIGHT - BOTTOM + 18, x);
    sbuf_fmt(s, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">prompt, tokens</text>\n", (LEFT + WIDTH - RIGHT) / 2,
             HEIGHT - 10);
    sbuf_fmt(s, "<text x=\"%d\" y=\"38\">milliseconds</text>\n", LEFT - 40);
    sbuf_fmt(s, "<text x=\"%d\" y=\"20\" font-size=\"14\" fill=\"#222\">%s</text>\n</g>\n", LEFT - 40, title);
}

/* sign 0: whole steps; -1: without what the prompt alone costs. */
static double value_of(const sweep_point *p, sweep_case c, int sign) {
    double whole = c == HIDDEN ? p->hidden : c == VISIBLE ? p->visible : p->alone;
    return sign ? whole - p->alone : whole;
}

static void draw_line(sbuf *s, const sweep_point *p, sweep_case c, int sign, const char *colour, const char *name,
                      double most) {
    sbuf_fmt(s, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2\"%s points=\"", colour,
             sign ? "" : " stroke-dasharray=\"5 4\"");
    for (int i = 0; i < SWEEP_POINTS; i++)
        sbuf_fmt(s, "%.1f,%.1f ", px(p[i].prompt), py(value_of(&p[i], c, sign), most));
    sbuf_str(s, "\"/>\n");
    for (int i = 0; i < SWEEP_POINTS; i++)
        sbuf_fmt(s, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"2.5\" fill=\"%s\"/>\n", px(p[i].prompt),
                 py(value_of(&p[i], c, sign), most), colour);
    sbuf_fmt(s, "<text x=\"%d\" y=\"%.1f\" font-size=\"12\" fill=\"%s\">%s</text>\n", WIDTH - RIGHT + 8,
             py(value_of(&p[SWEEP_POINTS - 1], c, sign), most) + 4, colour, name);
}

gist_status sweep_chart(const sweep_point p[SWEEP_POINTS], const char *title, const char *svg, gist_error *err) {
    static const char hidden[] = "#1b9e77", visible[] = "#d95f02", alone[] = "#777";
    sbuf s;
    out_file out;
    double most = 0, tick = 1;
    for (int i = 0; i < SWEEP_POINTS; i++) most = p[i].visible > most ? p[i].visible : most;
    for (int i = 0; most / tick > 8; i++) tick *= i % 3 == 1 ? 2.5 : 2;
    most *= 1.05;
    sbuf_init(&s, NULL);
    sbuf_fmt(&s,
             "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\">\n"
             "<rect width=\"%d\" height=\"%d\" fill=\"#fff\"/>\n",
             WIDTH, HEIGHT, WIDTH, HEIGHT);
    draw_axes(&s, title, most, tick);
    draw_line(&s, p, VISIBLE, 0, visible, "step, prompt visible", most);
    draw_line(&s, p, HIDDEN, 0, hidden, "step, prompt hidden", most);
    draw_line(&s, p, ALONE, 0, alone, "prompt alone", most);
    draw_line(&s, p, VISIBLE, -1, visible, "answers, prompt visible", most);
    draw_line(&s, p, HIDDEN, -1, hidden, "answers, prompt hidden", most);
    sbuf_str(&s, "</svg>\n");
    gist_status status = s.failed ? err_memory(err, "chart") : out_open(&out, NULL, svg, err);
    if (status == GIST_OK) {
        out_write(&out, s.p, s.len);
        status = out_commit(&out, err);
    }
    sbuf_free(&s);
    return status;
}
