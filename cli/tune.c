/* tune.c - the pairs that `gist tune` learns from; contracts in tune.h.
 *
 *      whole prompt | input start  ~~> an input          (drawn, --sample)
 *      whole prompt | input        ~~> an answer         one session: the prompt is encoded once, the rest rewound
 */
#include <ctype.h>

#include "tune.h"

gist_status tune_pairs_init(tune_pairs *p, const text *prompt, int hold_out, gist_error *err) {
    *p = (tune_pairs){ .hold_out = hold_out };
    sbuf_init(&p->rows, NULL);
    sbuf_init(&p->held, NULL);
    size_t bad;
    if (!utf8_valid(prompt->p, prompt->len, &bad))
        return err_at(err, GIST_ERR_TEXT, bad, "the prompt is not valid UTF-8 at byte %zu", bad);
    p->prompt = json_stringn(prompt->p, prompt->len);
    return p->prompt ? GIST_OK : err_memory(err, "prompt");
}

void tune_pairs_free(tune_pairs *p) {
    json_decref(p->prompt);
    sbuf_free(&p->rows);
    sbuf_free(&p->held);
}

/* Row i is held out when the share's whole part grows with it. */
static gist_status add_pair(tune_pairs *p, json_t *input, json_t *output, gist_error *err) {
    int i = p->n + p->n_held;
    bool held = (int64_t)(i + 1) * p->hold_out / 100 > (int64_t)i * p->hold_out / 100;
    json_t *row = json_pack("{s:O, s:O, s:O}", "instruction", p->prompt, "input", input, "output", output);
    char *line = row ? json_dumps(row, JSON_COMPACT) : NULL;
    sbuf *to = held ? &p->held : &p->rows;
    if (line) {
        sbuf_str(to, line);
        sbuf_str(to, "\n");
    }
    void (*release)(void *) = NULL;
    json_get_alloc_funcs(NULL, &release);
    if (line) release(line);
    json_decref(row);
    if (!line || to->failed) return err_memory(err, "pairs");
    *(held ? &p->n_held : &p->n) += 1;
    return GIST_OK;
}

/* ---- files ---- */

typedef struct line_reader {
    const char *path;
    text all;
    size_t at;
    int line;
} line_reader;

/* The next line that is not blank; false: there is none. */
static bool next_line(line_reader *r, const char **line, size_t *len) {
    while (r->at < r->all.len) {
        *line = r->all.p + r->at;
        const char *end = memchr(*line, '\n', r->all.len - r->at);
        *len = end ? (size_t)(end - *line) : r->all.len - r->at;
        r->at += *len + (end ? 1 : 0);
        r->line++;
        if (*len && (*line)[*len - 1] == '\r') --*len;
        for (size_t i = 0; i < *len; i++)
            if (!isspace((unsigned char)(*line)[i])) return true;
    }
    return false;
}

/* The row's texts; output NULL: it is not asked for.  *row is released by the caller. */
static gist_status parse_row(const line_reader *r, const char *line, size_t len, json_t **row, json_t **input,
                             json_t **output, gist_error *err) {
    char what[300];
    snprintf(what, sizeof what, "%.250s, line %d", r->path, r->line);
    TRY(json_parse(line, len, what, row, err));
    *input = json_object_get(*row, "input");
    if (output) *output = json_object_get(*row, "output");
    if (!json_is_object(*row)) return err_set(err, GIST_ERR_FORMAT, "%s: not a JSON object", what);
    if (!json_is_string(*input)) return err_set(err, GIST_ERR_FORMAT, "%s: \"input\" is missing or not a text", what);
    if (output && !json_is_string(*output))
        return err_set(err, GIST_ERR_FORMAT, "%s: \"output\" is missing or not a text", what);
    return GIST_OK;
}

gist_status tune_read_pairs(tune_pairs *p, const char *path, gist_error *err) {
    line_reader r = { .path = path };
    const char *line;
    size_t len;
    gist_status status = text_read(&r.all, NULL, path, false, err);
    while (status == GIST_OK && next_line(&r, &line, &len)) {
        json_t *row = NULL, *input, *output;
        status = parse_row(&r, line, len, &row, &input, &output, err);
        if (status == GIST_OK) status = add_pair(p, input, output, err);
        json_decref(row);
    }
    text_free(&r.all);
    if (status == GIST_OK && p->n + p->n_held == 0) status = err_set(err, GIST_ERR_FORMAT, "%s: has no pairs", path);
    return status;
}

/* ---- what the model writes ---- */

/* A session that holds the whole prompt; length: its tokens. */
static gist_status open_behind(gist_engine *e, const text *prompt, gist_session **s, int *length, gist_error *err) {
    TRY(gist_session_open(e, NULL, s, err));
    TRY(gist_session_prompt(*s, prompt->p, prompt->len, err));
    *length = gist_session_length(*s);
    return GIST_OK;
}

static gist_generate_options writing(const tune_writing *w, int draw) {
    gist_generate_options o = GIST_GENERATE_OPTIONS_INIT;
    o.max_tokens = w->max_tokens;
    o.temperature = w->temperature;
    o.seed = w->seed * 1000003u + (uint64_t)draw;
    return o;
}

/* Answers to one input: pairs. */
static gist_status answer(tune_pairs *p, gist_session *s, int length, json_t *input, const tune_writing *w, int *drawn,
                          gist_error *err) {
    gist_status status = GIST_OK;
    for (int i = 0; status == GIST_OK && i < w->answers; i++) {
        gist_generate_options o = writing(w, (*drawn)++);
        gist_answer a;
        session_rewind(s, length);
        TRY(gist_generate(s, json_string_value(input), json_string_length(input), &o, &a, err));
        size_t len = strlen(a.text); /* a NUL ends the answer: rows of data hold none */
        json_t *output = json_text_of(a.text, len);
        if (!output) status = err_memory(err, "answer");
        if (status == GIST_OK && len) status = add_pair(p, input, output, err);
        json_decref(output);
        gist_answer_free(s, &a);
        if (!w->quiet) progress("the model answers under the full prompt: %d", *drawn);
    }
    return status;
}

gist_status tune_answer_inputs(tune_pairs *p, gist_engine *e, const text *prompt, const char *path,
                               const tune_writing *w, gist_error *err) {
    line_reader r = { .path = path };
    gist_session *s = NULL;
    int length = 0, drawn = 0;
    const char *line;
    size_t len;
    gist_status status = text_read(&r.all, NULL, path, false, err);
    if (status == GIST_OK) status = open_behind(e, prompt, &s, &length, err);
    while (status == GIST_OK && next_line(&r, &line, &len)) {
        json_t *row = NULL, *input = NULL;
        if (*line == '{') {
            status = parse_row(&r, line, len, &row, &input, NULL, err);
        } else {
            row = input = json_stringn(line, len);
            if (!row) status = err_set(err, GIST_ERR_TEXT, "%s, line %d: not valid UTF-8", path, r.line);
        }
        if (status == GIST_OK) status = answer(p, s, length, input, w, &drawn, err);
        json_decref(row);
    }
    if (!w->quiet) progress_end();
    gist_session_close(s);
    text_free(&r.all);
    if (status == GIST_OK && p->n + p->n_held == 0)
        status = err_set(err, GIST_ERR_FORMAT, "%s: %s", path, drawn ? "no input got an answer" : "has no inputs");
    return status;
}

static gist_status check_draws(const char *model, gist_error *err) {
    char *path = path_join(NULL, model, "config.json");
    json_t *config = NULL;
    gist_status status = path ? json_read_file(path, &config, err) : err_memory(err, "path");
    if (status == GIST_OK && !json_is_true(json_object_get(json_object_get(config, "gist_training"), "input_loss")))
        status = err_set(
            err, GIST_ERR_UNSUPPORTED,
            "%s was not trained with --input-loss: it cannot draw inputs; give some with --inputs or --pairs", model);
    json_decref(config);
    mem_free(NULL, path);
    return status;
}

/* One input; NULL with GIST_OK: what was drawn is none (empty, or cut). */
static gist_status draw_input(gist_session *s, int length, const tok_ids *start, const char *stop,
                              const tune_writing *w, int draw, json_t **out, gist_error *err) {
    const char *const stops[] = { stop, NULL };
    gist_generate_options o = writing(w, draw);
    gist_answer a;
    if (*stop) o.stop = stops;
    session_rewind(s, length);
    TRY(session_generate(s, start->id, start->n, &o, &a, err));
    const char *begin = a.text, *end = a.text + strlen(a.text);
    while (begin < end && isspace((unsigned char)*begin)) begin++;
    while (end > begin && isspace((unsigned char)end[-1])) end--;
    bool whole = strcmp(a.finish, *stop ? "stop" : "eos") == 0;
    *out = whole && end > begin ? json_text_of(begin, (size_t)(end - begin)) : NULL;
    bool failed = whole && end > begin && !*out;
    gist_answer_free(s, &a);
    return failed ? err_memory(err, "input") : GIST_OK;
}

gist_status tune_draw_inputs(tune_pairs *p, gist_engine *e, const char *model, const text *prompt, int n,
                             const tune_writing *w, gist_error *err) {
    TRY(check_draws(model, err));
    gist_session *s = NULL;
    gist_engine_info info;
    const char *stop = "";
    tok_ids start;
    int length = 0, drawn = 0, made = 0, tries = 0;
    gist_engine_get_info(e, &info);
    tok_ids_init(&start, NULL);
    gist_status status =
        tok_template_input_start(engine_tokenizer(e), tok_template_find(info.template_name), &start, &stop, err);
    if (status == GIST_OK) status = open_behind(e, prompt, &s, &length, err);
    for (; status == GIST_OK && made < n && tries < 4 * n; tries++) {
        json_t *input = NULL;
        status = draw_input(s, length, &start, stop, w, drawn++, &input, err);
        if (status != GIST_OK || !input) continue;
        status = answer(p, s, length, input, w, &drawn, err);
        json_decref(input);
        made++;
    }
    if (!w->quiet) progress_end();
    if (status == GIST_OK && made < n && !w->quiet)
        warn("%d of %d inputs were drawn whole; the others had no end", made, tries);
    if (status == GIST_OK && p->n + p->n_held == 0)
        status = err_set(err, GIST_ERR_TEXT, "the model drew no whole input in %d attempts", tries);
    gist_session_close(s);
    tok_ids_free(&start);
    return status;
}
