/* eval_split.c - rows to be answered: texts with their lines, grouped by prompt, fitted to a length.
 *
 *   {"instruction": t, "input": x, "output": y, "kind": ...}  --open-->  examples  --fit-->  token counts, references
 *   {"messages": [...], "kind": ...}: an example for each answer (eval_turns.c)
 *
 * The rules are those of training (train_data.c): a row without an instruction or an output, one that breaks the
 * tokenization law, and one with no room for an answer are left out and counted; a reference is the label as
 * max_length - p - K - input cuts it; the paper cuts labels of its human split later than answers (label_length).
 * Prompts are equal when their texts are.
 */
#include <stdlib.h>

#include "eval/eval_int.h"
#include "format/format.h"

typedef struct keyed {
    hash128 h;
    int i;
} keyed;

static gist_status bad(const eval_split *s, int line, const char *fmt, const char *what, gist_error *err) {
    char msg[200];
    size_t n = strlen(s->path);
    snprintf(msg, sizeof msg, fmt, what);
    return err_set(err, GIST_ERR_FORMAT, "%s:%d: %s", n > 160 ? s->path + n - 160 : s->path, line, msg);
}

/* ---- reading ---- */

static gist_status text_of(const eval_split *s, const json_t *row, const char *key, bool required, int line,
                           eval_text *out, gist_error *err) {
    const json_t *v = json_object_get(row, key);
    *out = (eval_text){ "", 0 };
    if (!required && (!v || json_is_null(v))) return GIST_OK;
    if (!json_is_string(v)) {
        char msg[96];
        snprintf(msg, sizeof msg, v ? "\"%s\" is not a string" : "\"%s\" is missing", key);
        return bad(s, line, "%s", msg, err);
    }
    *out = (eval_text){ json_string_value(v), json_string_length(v) };
    return GIST_OK;
}

/* Takes an example up, or leaves it out where it has nothing to answer. */
static gist_status add_example(eval_split *s, const eval_example *e, int *cap, gist_error *err) {
    s->read++;
    bool unasked = eval_strip(e->instruction.p, e->instruction.len).len == 0;
    if (unasked || eval_strip(e->reference.p, e->reference.len).len == 0) {
        s->empty++;
        return GIST_OK;
    }
    if (s->n == *cap) {
        int more = *cap ? *cap * 2 : 256;
        eval_example *grown = mem_resize(s->alloc, s->example, (size_t)*cap, (size_t)more, sizeof *grown);
        if (!grown) return err_memory(err, s->path);
        s->example = grown;
        *cap = more;
    }
    s->example[s->n++] = *e;
    return GIST_OK;
}

static gist_status add_messages(eval_split *s, eval_example e, const json_t *messages, int *cap, gist_error *err) {
    char why[EVAL_WHY];
    int turns = eval_turns(messages, why);
    if (turns < 0) return bad(s, e.line, "%s", why, err);
    e.instruction = eval_turns_system(messages);
    for (e.turn = 0; e.turn < turns; e.turn++) {
        eval_turn(messages, e.turn, &e.input, &e.reference);
        TRY(add_example(s, &e, cap, err));
    }
    return GIST_OK;
}

/* s->rows owns `row` already. */
static gist_status add_row(eval_split *s, const json_t *row, int line, int *cap, gist_error *err) {
    eval_example e = { .row = row, .line = line };
    if (!json_is_object(row)) return bad(s, line, "%s", "not a JSON object", err);
    const json_t *messages = json_object_get(row, "messages");
    if (messages) return add_messages(s, e, messages, cap, err);
    TRY(text_of(s, row, "instruction", true, line, &e.instruction, err));
    TRY(text_of(s, row, "input", false, line, &e.input, err));
    TRY(text_of(s, row, "output", true, line, &e.reference, err));
    return add_example(s, &e, cap, err);
}

static gist_status read_line(eval_split *s, const char *p, size_t len, int line, int *cap, gist_error *err) {
    gist_error why = { 0 };
    json_t *row = NULL;
    gist_status status = json_parse(p, len, "JSON", &row, &why);
    if (status == GIST_ERR_MEMORY) return err_memory(err, s->path);
    if (status != GIST_OK) {
        const char *told = strstr(why.msg, "line 1: ");
        return bad(s, line, "not JSON: %.150s", told ? told + 8 : why.msg, err);
    }
    if (json_array_append_new(s->rows, row) != 0) return err_memory(err, s->path);
    return add_row(s, row, line, cap, err);
}

static gist_status read_rows(eval_split *s, const char *p, size_t len, int limit, gist_error *err) {
    int cap = 0, line = 0;
    size_t first = 0;
    if (len >= 3 && memcmp(p, "\xEF\xBB\xBF", 3) == 0) {
        p += 3;
        len -= 3;
    }
    while (first < len && eval_strip(p + first, 1).len == 0) first++;
    if (first < len && p[first] == '[') {
        json_t *all = NULL;
        TRY(json_parse(p, len, s->path, &all, err));
        json_decref(s->rows);
        s->rows = all;
        for (size_t i = 0; i < json_array_size(all) && (limit == 0 || s->read < limit); i++)
            TRY(add_row(s, json_array_get(all, i), (int)i + 1, &cap, err));
        return GIST_OK;
    }
    for (size_t at = 0; at < len && (limit == 0 || s->read < limit);) {
        const char *stop = memchr(p + at, '\n', len - at);
        size_t n = stop ? (size_t)(stop - p) - at : len - at;
        line++;
        if (eval_strip(p + at, n).len > 0) TRY(read_line(s, p + at, n, line, &cap, err));
        at += n + 1;
    }
    return GIST_OK;
}

/* ---- prompts ---- */

static int by_hash(const void *a, const void *b) {
    const keyed *x = a, *y = b;
    int c = memcmp(x->h.b, y->h.b, sizeof x->h.b);
    return c ? c : (x->i > y->i) - (x->i < y->i);
}

/* Number the prompts in order of appearance, and list the examples prompt by prompt. */
static gist_status group(eval_split *s, gist_error *err) {
    keyed *key = mem_alloc(s->alloc, (size_t)s->n, sizeof *key);
    int *order = mem_alloc(s->alloc, (size_t)s->n, sizeof *order);
    int *next = mem_calloc(s->alloc, (size_t)s->n + 1, sizeof *next);
    gist_status status = key && order && next ? GIST_OK : err_memory(err, s->path);
    if (status == GIST_OK) {
        for (int i = 0; i < s->n; i++)
            key[i] = (keyed){ hash_bytes(s->example[i].instruction.p, s->example[i].instruction.len), i };
        qsort(key, (size_t)s->n, sizeof *key, by_hash);
        for (int i = 0, first = 0; i < s->n; i++) {
            if (i == 0 || memcmp(key[i].h.b, key[i - 1].h.b, sizeof key[i].h.b) != 0) first = key[i].i;
            s->example[key[i].i].prompt = first;
        }
        s->prompts = 0;
        for (int i = 0; i < s->n; i++) { /* an earlier example has its number already */
            int first = s->example[i].prompt;
            s->example[i].prompt = first == i ? s->prompts++ : s->example[first].prompt;
            next[s->example[i].prompt + 1]++;
        }
        for (int i = 0; i < s->prompts; i++) next[i + 1] += next[i];
        for (int i = 0; i < s->n; i++) order[next[s->example[i].prompt]++] = i;
        mem_free(s->alloc, s->order);
        s->order = order;
        order = NULL;
    }
    mem_free(s->alloc, order);
    mem_free(s->alloc, next);
    mem_free(s->alloc, key);
    return status;
}

static gist_status check_any(const eval_split *s, gist_error *err) {
    if (s->n > 0) return GIST_OK;
    return err_set(err, GIST_ERR_FORMAT,
                   "%s: nothing to answer in %d rows; left out: %d without instruction or output, %d not tokenized "
                   "alike in parts and as a whole, %d with no room for an answer",
                   s->path, s->read, s->empty, s->law, s->no_room);
}

gist_status eval_split_parse(eval_split *out, const char *name, const char *path, const char *bytes, size_t len,
                             int limit, const gist_allocator *alloc, gist_error *err) {
    eval_split s = { .alloc = alloc, .name = name, .path = path };
    sbuf_init(&s.cut, alloc);
    tok_ids_init(&s.history, alloc);
    s.rows = json_array();
    gist_status status = s.rows ? read_rows(&s, bytes, len, limit, err) : err_memory(err, path);
    if (status == GIST_OK) status = check_any(&s, err);
    if (status == GIST_OK) status = group(&s, err);
    if (status == GIST_OK)
        *out = s;
    else
        eval_split_close(&s);
    return status;
}

gist_status eval_split_open(eval_split *out, const char *name, const char *path, int limit, const gist_allocator *alloc,
                            gist_error *err) {
    file_map map;
    TRY(map_open(path, &map, err));
    gist_status status = eval_split_parse(out, name, path, map.data ? (const char *)map.data : "", map.size, limit,
                                          alloc, err);
    map_close(&map);
    return status;
}

void eval_split_close(eval_split *s) {
    if (s->rows) json_decref(s->rows);
    sbuf_free(&s->cut);
    tok_ids_free(&s->history);
    mem_free(s->alloc, s->example);
    mem_free(s->alloc, s->order);
    *s = (eval_split){ .alloc = s->alloc };
}

/* ---- fitting ---- */

typedef struct fitting {
    eval_split *s;
    const tokenizer *t;
    const tok_template *tp;
    int gists, max_length;
    tok_ids ids;
    gist_error *err;
} fitting;

static gist_status failed(const fitting *f, const eval_example *e, const gist_error *why) {
    return err_set(f->err, why->code, "%s:%d: %.300s", f->s->path, e->line, why->msg);
}

/* The answer's first `room` tokens as text, at s->cut.p + *offset; reference.p is NULL until that buffer is whole. */
static void cut_reference(fitting *f, eval_example *e, int room, size_t *offset) {
    tok_stream stream;
    *offset = f->s->cut.len;
    tok_template_answer_stream(&stream, f->t, f->tp);
    for (int i = 0; i < room; i++) tok_stream_push(&stream, f->ids.id[i], &f->s->cut);
    tok_stream_end(&stream, &f->s->cut);
    e->reference = (eval_text){ NULL, f->s->cut.len - *offset };
}

/* *fits: the example stays. */
static gist_status fit(fitting *f, eval_example *e, bool *fits, size_t *offset) {
    gist_error why = { 0 };
    *fits = false;
    gist_status status = GIST_OK;
    if (tok_gist(f->t) >= 0)
        status = tok_template_law(f->t, f->tp, e->instruction.p, e->instruction.len, 1, e->input.p, e->input.len, &why);
    e->history = f->s->history.n;
    if (status == GIST_OK) status = eval_history(e, f->t, f->tp, &f->s->history, &why);
    e->history_tokens = (int)(f->s->history.n - e->history);
    if (status == GIST_ERR_TEXT) {
        f->s->law++;
        return GIST_OK;
    }
    f->ids.n = 0;
    if (status == GIST_OK)
        status = tok_template_prompt(f->t, f->tp, e->instruction.p, e->instruction.len, &f->ids, &why);
    e->prompt_tokens = (int)f->ids.n;
    f->ids.n = 0;
    if (status == GIST_OK)
        status = tok_template_input(f->t, f->tp, e->input.p, e->input.len, false, &f->ids, &why);
    e->input_tokens = e->history_tokens + (int)f->ids.n + tok_adds_eos(f->t); /* T5: </s> ends the source */
    f->ids.n = 0;
    if (status == GIST_OK)
        status = tok_template_answer(f->t, f->tp, e->reference.p, e->reference.len, &f->ids, &why);
    if (status != GIST_OK) return failed(f, e, &why);
    int room = f->max_length - e->prompt_tokens - f->gists - e->input_tokens;
    *fits = room > 0 && e->input_tokens > 0;
    f->s->no_room += !*fits;
    int label = f->s->label_length ? room + f->s->label_length - f->max_length : room;
    if (label < 1) label = 1;
    if (*fits && f->ids.n > (size_t)label) cut_reference(f, e, label, offset);
    return f->s->cut.failed ? err_memory(f->err, f->s->path) : GIST_OK;
}

gist_status eval_split_fit(eval_split *s, const tokenizer *t, const tok_template *tp, int gists, int max_length,
                           gist_error *err) {
    fitting f = { s, t, tp, gists, max_length, { 0 }, err };
    size_t *offset = mem_alloc(s->alloc, (size_t)s->n, sizeof *offset);
    if (!offset) return err_memory(err, s->path);
    tok_ids_init(&f.ids, s->alloc);
    gist_status status = GIST_OK;
    int kept = 0, n = s->n;
    for (int i = 0; i < n && status == GIST_OK; i++) {
        bool fits;
        status = fit(&f, &s->example[i], &fits, &offset[kept]);
        if (status == GIST_OK && fits) s->example[kept++] = s->example[i];
    }
    tok_ids_free(&f.ids);
    if (status == GIST_OK) {
        s->n = kept;
        for (int i = 0; i < kept; i++)
            if (!s->example[i].reference.p) s->example[i].reference.p = s->cut.p ? s->cut.p + offset[i] : "";
        status = check_any(s, err);
    }
    mem_free(s->alloc, offset);
    return status == GIST_OK ? group(s, err) : status;
}

/* ---- another prompt for each ---- */

gist_status eval_other_prompts(const eval_split *s, int gists, int max_length, uint64_t seed, int *other,
                               gist_error *err) {
    int P = s->prompts;
    if (P < 2) return err_set(err, GIST_ERR_USAGE, "%s: another prompt's gist needs two prompts", s->path);
    int *scratch = mem_calloc(s->alloc, (size_t)P, 3 * sizeof *scratch);
    if (!scratch) return err_memory(err, s->path);
    int *first = scratch, *longest = scratch + P, *cycle = scratch + 2 * P;
    for (int i = s->n - 1; i >= 0; i--) {
        const eval_example *e = &s->example[i];
        first[e->prompt] = i;
        if (e->input_tokens > longest[e->prompt]) longest[e->prompt] = e->input_tokens;
    }
    rng r;
    rng_seed(&r, seed);
    for (int i = 0; i < P; i++) cycle[i] = i;
    for (int i = P - 1; i > 0; i--) {
        int at = (int)rng_below(&r, (uint64_t)i + 1), swap = cycle[i];
        cycle[i] = cycle[at];
        cycle[at] = swap;
    }
    gist_status status = GIST_OK;
    for (int i = 0; i < P && status == GIST_OK; i++) {
        int step = 1, prompt = cycle[i];
        while (step < P &&
               s->example[first[cycle[(i + step) % P]]].prompt_tokens + gists + longest[prompt] >= max_length)
            step++;
        other[prompt] = first[cycle[(i + step) % P]];
        if (step == P)
            status = err_set(err, GIST_ERR_USAGE, "%s:%d: beside no other prompt has this one's longest input room",
                             s->path, s->example[first[prompt]].line);
    }
    mem_free(s->alloc, scratch);
    return status;
}
