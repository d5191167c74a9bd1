/* eval_pairs.c - files of predictions and references: CSV and JSON Lines.
 *
 *     x,y_pred,y_true                                  {"y_pred": "nine", "y_true": "at nine"}
 *     When?,nine,"at nine, ""sharp"""                  {"prediction": "ten", "reference": "ten"}
 *
 * Texts are unescaped into one block as large as the file: no escape of either format is shorter than what it means.
 * A CSV row has as many fields as the header.  A quote inside a field that does not begin with one, and a carriage
 * return that no line feed follows, are text: Python's csv module writes the latter without quotes.
 *
 * Source: RFC 4180; jsonlines.org.
 */
#include "eval/eval.h"
#include "format/format.h"

typedef struct reader {
    eval_pairs *out;
    const char *p, *end;
    int line;    /* of *p, from 1 */
    size_t used; /* of out->text */
    const char *what;
    gist_error *err;
} reader;

static const char *const names[][2] = { { "y_pred", "y_true" }, { "prediction", "reference" } };
static const char asked_name[] = "x";
enum { SPELLINGS = sizeof names / sizeof *names, ASKED = 2, TEXTS };

static gist_status bad(reader *r, int line, const char *message) {
    return err_set(r->err, GIST_ERR_FORMAT, "%s:%d: %s", r->what, line, message);
}

/* ---- white space ---- */

static bool is_space(uint32_t c) {
    return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

eval_text eval_strip(const char *p, size_t len) {
    const char *end = p + len;
    uint32_t c;
    for (int n; p < end && (n = utf8_decode(p, (size_t)(end - p), &c)) > 0 && is_space(c);) p += n;
    while (p < end) {
        const char *last = end - 1;
        while (last > p && ((unsigned char)*last & 0xc0) == 0x80) last--;
        if (utf8_decode(last, (size_t)(end - last), &c) != end - last || !is_space(c)) break;
        end = last;
    }
    return (eval_text){ p, (size_t)(end - p) };
}

/* ---- one pair ---- */

static gist_status check_text(reader *r, int line, const char *p, size_t len, const char *name) {
    size_t at = 0;
    if (len > EVAL_MAX_TEXT)
        return err_set(r->err, GIST_ERR_LIMIT, "%s:%d: %s has %zu bytes, at most %d are scored", r->what, line, name,
                       len, EVAL_MAX_TEXT);
    if (utf8_valid(p, len, &at)) return GIST_OK;
    for (size_t i = 0; i < at; i++) line += p[i] == '\n';
    return err_set(r->err, GIST_ERR_FORMAT, "%s:%d: %s is not valid UTF-8", r->what, line, name);
}

/* text: prediction, reference, x. */
static gist_status add_pair(reader *r, int line, const eval_text text[TEXTS], const char *const name[2]) {
    eval_pairs *o = r->out;
    for (int i = 0; i < TEXTS; i++)
        if (text[i].p) TRY(check_text(r, line, text[i].p, text[i].len, i < ASKED ? name[i] : asked_name));
    if (o->n == EVAL_MAX_PAIRS)
        return err_set(r->err, GIST_ERR_LIMIT, "%s:%d: more than %d pairs", r->what, line, EVAL_MAX_PAIRS);
    if (o->n == o->cap) {
        int cap = o->cap ? o->cap * 2 : 64;
        eval_pair *more = mem_resize(o->alloc, o->pair, (size_t)o->cap, (size_t)cap, sizeof *more);
        if (!more) return err_memory(r->err, "pairs");
        o->pair = more;
        o->cap = cap;
    }
    o->pair[o->n++] = (eval_pair){ .prediction = eval_strip(text[0].p, text[0].len),
                                   .reference = eval_strip(text[1].p, text[1].len),
                                   .line = line,
                                   .asked = text[ASKED] };
    return GIST_OK;
}

/* ---- CSV ---- */

/* Does a row end here: the file's end, \n or \r\n?  *n: the bytes that takes. */
static bool at_row_end(const reader *r, size_t *n) {
    size_t left = (size_t)(r->end - r->p);
    *n = left == 0 ? 0 : *r->p == '\n' ? 1 : 2;
    return left == 0 || *r->p == '\n' || (*r->p == '\r' && left > 1 && r->p[1] == '\n');
}

/* A quoted field, *p at its opening quote, ends up behind the closing one. */
static gist_status read_quoted(reader *r, char *out, size_t *len) {
    int opened = r->line;
    for (r->p++; r->p < r->end; r->p++) {
        if (*r->p == '"') {
            if (r->p + 1 == r->end || r->p[1] != '"') {
                size_t n;
                r->p++;
                if (at_row_end(r, &n) || *r->p == ',') return GIST_OK;
                return bad(r, r->line, "text behind a closing quote; quotes inside a quoted field are doubled");
            }
            r->p++;
        }
        r->line += *r->p == '\n';
        out[(*len)++] = *r->p;
    }
    return bad(r, opened, "this quoted field never ends");
}

/* One field into the block, without taking it up: *len bytes at the block's first unused. */
static gist_status read_field(reader *r, size_t *len) {
    char *out = r->out->text + r->used;
    size_t n;
    *len = 0;
    if (r->p < r->end && *r->p == '"') return read_quoted(r, out, len);
    for (; !at_row_end(r, &n) && *r->p != ','; r->p++) out[(*len)++] = *r->p;
    return GIST_OK;
}

/* Step over a comma (true), or over the end of a row. */
static bool next_field(reader *r) {
    size_t n;
    if (!at_row_end(r, &n)) {
        r->p++;
        return true;
    }
    r->line += n > 0;
    r->p += n;
    return false;
}

static void skip_blank_lines(reader *r) {
    size_t n;
    while (r->p < r->end && at_row_end(r, &n)) next_field(r);
}

static bool is_name(const reader *r, size_t len, const char *name) {
    return len == strlen(name) && memcmp(r->out->text + r->used, name, len) == 0;
}

/* Which columns are the texts, in which spelling, 0: no x; *columns: how many there are. */
static gist_status read_header(reader *r, int column[TEXTS], int *columns, const char *const **name) {
    int at[SPELLINGS][2] = { { 0 } }, line = r->line, n = 0; /* places from 1; 0: absent */
    bool more = true;
    for (; more; more = next_field(r)) {
        size_t len;
        TRY(read_field(r, &len));
        if (++n > EVAL_MAX_COLUMNS) return bad(r, line, "too many columns");
        if (is_name(r, len, asked_name) && column[ASKED] == 0) column[ASKED] = n;
        for (int i = 0; i < 2 * SPELLINGS; i++) {
            if (!is_name(r, len, names[i / 2][i % 2])) continue;
            if (at[i / 2][i % 2])
                return err_set(r->err, GIST_ERR_FORMAT, "%s:%d: two columns %s", r->what, line, names[i / 2][i % 2]);
            at[i / 2][i % 2] = n;
        }
    }
    *columns = n;
    for (int i = 0; i < SPELLINGS; i++) {
        if (!at[i][0] || !at[i][1]) continue;
        column[0] = at[i][0];
        column[1] = at[i][1];
        *name = names[i];
        return GIST_OK;
    }
    int i = at[1][0] || at[1][1];
    return err_set(r->err, GIST_ERR_FORMAT,
                   "%s:%d: the header has no column %s (y_pred and y_true are needed, or "
                   "prediction and reference)",
                   r->what, line, names[i][at[i][0] ? 1 : 0]);
}

static gist_status read_row(reader *r, const int column[TEXTS], int columns, const char *const name[2]) {
    int line = r->line, n = 0;
    eval_text text[TEXTS] = { { 0 } };
    bool more = true;
    for (; more; more = next_field(r)) {
        size_t len;
        TRY(read_field(r, &len));
        n++;
        for (int i = 0; i < TEXTS; i++) {
            if (n != column[i]) continue;
            text[i] = (eval_text){ r->out->text + r->used, len };
            r->used += len;
        }
    }
    if (n != columns)
        return err_set(r->err, GIST_ERR_FORMAT, "%s:%d: %d fields, the header has %d", r->what, line, n, columns);
    return add_pair(r, line, text, name);
}

static gist_status read_csv(reader *r) {
    int column[TEXTS] = { 0 }, columns;
    const char *const *name;
    skip_blank_lines(r);
    TRY(read_header(r, column, &columns, &name));
    for (skip_blank_lines(r); r->p < r->end; skip_blank_lines(r)) TRY(read_row(r, column, columns, name));
    return GIST_OK;
}

/* ---- JSON Lines ---- */

static gist_status text_of(reader *r, const json_t *object, const char *name, eval_text *out) {
    const json_t *v = json_object_get(object, name);
    if (!json_is_string(v))
        return err_set(r->err, GIST_ERR_FORMAT, v ? "%s:%d: %s must be a string" : "%s:%d: no %s", r->what, r->line,
                       name);
    size_t len = json_string_length(v);
    memcpy(r->out->text + r->used, json_string_value(v), len);
    *out = (eval_text){ r->out->text + r->used, len };
    r->used += len;
    return GIST_OK;
}

static gist_status read_object(reader *r, const json_t *object) {
    const char *const *name = names[0];
    eval_text text[TEXTS] = { { 0 } };
    if (!json_is_object(object)) return bad(r, r->line, "not a JSON object");
    if (!json_object_get(object, names[0][0]) && !json_object_get(object, names[0][1]) &&
        (json_object_get(object, names[1][0]) || json_object_get(object, names[1][1])))
        name = names[1];
    for (int i = 0; i < 2; i++) TRY(text_of(r, object, name[i], &text[i]));
    if (json_is_string(json_object_get(object, asked_name))) TRY(text_of(r, object, asked_name, &text[ASKED]));
    return add_pair(r, r->line, text, name);
}

/* The parser counts lines of what it is given, which is one. */
static gist_status read_line(reader *r, size_t len) {
    gist_error why = { 0 };
    json_t *root = NULL;
    gist_status status = json_parse(r->p, len, "JSON", &root, &why);
    if (status != GIST_OK) {
        const char *told = strstr(why.msg, "line 1: ");
        if (status == GIST_ERR_MEMORY) return err_memory(r->err, "a line of JSON");
        return err_set(r->err, status, "%s:%d: %s", r->what, r->line, told ? told + 8 : why.msg);
    }
    status = read_object(r, root);
    json_decref(root);
    return status;
}

static gist_status read_jsonl(reader *r) {
    for (; r->p < r->end; r->line++) {
        const char *stop = memchr(r->p, '\n', (size_t)(r->end - r->p));
        size_t len = (size_t)((stop ? stop : r->end) - r->p), blank = 0;
        while (blank < len && strchr(" \t\r", r->p[blank]) && r->p[blank]) blank++;
        if (blank < len) TRY(read_line(r, len));
        r->p += len + (stop != NULL);
    }
    return GIST_OK;
}

/* ---- files ---- */

static bool begins_object(const reader *r) {
    const char *p = r->p;
    while (p < r->end && (*p == ' ' || (*p >= '\t' && *p <= '\r'))) p++;
    return p < r->end && *p == '{';
}

gist_status eval_pairs_parse(eval_pairs *p, const gist_allocator *alloc, const char *text, size_t len, const char *what,
                             gist_error *err) {
    size_t name = strlen(what);
    if (name > 160) what += name - 160; /* messages have room for what is wrong */
    if (len > EVAL_MAX_FILE)
        return err_set(err, GIST_ERR_LIMIT, "%s: %zu bytes, at most %d are read", what, len, EVAL_MAX_FILE);
    eval_pairs got = { .alloc = alloc, .text = mem_alloc(alloc, len, 1) };
    if (!got.text) return err_memory(err, what);
    reader r = { .out = &got, .p = text, .end = text + len, .line = 1, .what = what, .err = err };
    if (len >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0) r.p += 3;
    gist_status status = begins_object(&r) ? read_jsonl(&r) : read_csv(&r);
    if (status == GIST_OK && got.n == 0) status = err_set(err, GIST_ERR_FORMAT, "%s: no predictions in it", what);
    if (status == GIST_OK)
        *p = got;
    else
        eval_pairs_free(&got);
    return status;
}

gist_status eval_pairs_open(eval_pairs *p, const gist_allocator *alloc, const char *path, gist_error *err) {
    file_map map;
    TRY(map_open(path, &map, err));
    gist_status status = eval_pairs_parse(p, alloc, map.data ? (const char *)map.data : "", map.size, path, err);
    map_close(&map);
    return status;
}

void eval_pairs_free(eval_pairs *p) {
    mem_free(p->alloc, p->pair);
    mem_free(p->alloc, p->text);
    *p = (eval_pairs){ .alloc = p->alloc };
}
