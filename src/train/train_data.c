/* train_data.c - rows of JSON -> prompts with (input, answer) pairs, as token ids.
 *
 *   {"instruction": t, "input": x, "output": y}
 *   {"messages": [{"role": "system", "content": t}, {"role": "user", "content": x}, {"role": "assistant", ...}, ...]}
 *
 *       t --tok_template_prompt--> prompt    x --tok_template_input--> rest    y --tok_template_answer--> answer + end
 *
 * Each answer of a conversation becomes a pair of its own, whose rest is the whole conversation before it.  Rules of
 * docs/TRAINING.md ("Data"): p + K + rest + answer is cut on the right to max_length, a row whose whole answer is cut
 * is left out, so is one whose parts are not tokenized like the whole; all are counted.  Equal prompts (by ids) are
 * stored once and their pairs lie together, whatever the order in the file.
 */
#include <inttypes.h>
#include <limits.h>

#include "format/format.h"
#include "train/train.h"

enum { MAX_ROWS = 1 << 28 };

typedef struct reader {
    train_set *set;
    const tokenizer *t;
    const train_data_options *opt;
    const char *what; /* the file */
    const char *unit; /* "line" or "row" */
    int row;
    tok_ids ids;                  /* becomes set->ids */
    tok_ids prompt, rest, answer; /* of the row at hand */
    sbuf instruction;             /* what `prompt` was tokenized from; rows of one prompt mostly follow each other */
    bool lawful;                  /* it has kept the law beside some input */
    size_t prompt_cap, pair_cap;
    int *slot; /* open addressing: prompt index + 1 by hash of its ids */
    size_t slots;
    gist_error *err;
} reader;

static gist_status row_error(const reader *r, const char *msg) {
    size_t n = strlen(r->what);
    return err_set(r->err, GIST_ERR_FORMAT, "%s: %s %d: %s", n > 160 ? r->what + n - 160 : r->what, r->unit, r->row,
                   msg);
}

/* Put file and line in front of what another room said. */
static gist_status row_failed(const reader *r, const gist_error *cause) {
    size_t n = strlen(r->what);
    return err_set(r->err, cause->code, "%s: %s %d: %s", n > 160 ? r->what + n - 160 : r->what, r->unit, r->row,
                   cause->msg);
}

/* ---- prompts and pairs ---- */

static bool same_prompt(const reader *r, const train_prompt *p) {
    return (size_t)p->len == r->prompt.n &&
           memcmp(r->ids.id + p->ids, r->prompt.id, r->prompt.n * sizeof(int32_t)) == 0;
}

static size_t slot_of(const reader *r, const int32_t *ids, size_t n) {
    hash128 h = hash_bytes(ids, n * sizeof *ids);
    uint64_t v;
    memcpy(&v, h.b, sizeof v);
    return (size_t)v & (r->slots - 1);
}

static gist_status grow_slots(reader *r) {
    if ((size_t)r->set->prompts * 2 < r->slots) return GIST_OK;
    size_t slots = r->slots ? r->slots * 2 : 1024;
    int *slot = mem_calloc(r->set->alloc, slots, sizeof *slot);
    if (!slot) return err_memory(r->err, "training data");
    mem_free(r->set->alloc, r->slot);
    r->slot = slot;
    r->slots = slots;
    for (int i = 0; i < r->set->prompts; i++) {
        const train_prompt *p = &r->set->prompt[i];
        size_t at = slot_of(r, r->ids.id + p->ids, (size_t)p->len);
        while (slot[at]) at = (at + 1) & (slots - 1);
        slot[at] = i + 1;
    }
    return GIST_OK;
}

static gist_status append_ids(reader *r, const tok_ids *from, size_t n, size_t *at) {
    *at = r->ids.n;
    for (size_t i = 0; i < n; i++) TRY(tok_ids_push(&r->ids, from->id[i], r->err));
    return GIST_OK;
}

/* Room for one more element; the caller fills and counts it. */
static void *room(const reader *r, void *array, size_t count, size_t *cap, size_t size) {
    if (count < *cap) return array;
    size_t more = *cap ? *cap * 2 : 256;
    void *p = mem_resize(r->set->alloc, array, *cap, more, size);
    if (p) *cap = more;
    return p;
}

static gist_status find_prompt(reader *r, int *index) {
    TRY(grow_slots(r));
    size_t at = slot_of(r, r->prompt.id, r->prompt.n);
    for (; r->slot[at]; at = (at + 1) & (r->slots - 1)) {
        *index = r->slot[at] - 1;
        if (same_prompt(r, &r->set->prompt[*index])) return GIST_OK;
    }
    train_prompt *p = room(r, r->set->prompt, (size_t)r->set->prompts, &r->prompt_cap, sizeof *p);
    if (!p) return err_memory(r->err, "training data");
    r->set->prompt = p;
    p += r->set->prompts;
    *p = (train_prompt){ .len = (int)r->prompt.n };
    TRY(append_ids(r, &r->prompt, r->prompt.n, &p->ids));
    *index = r->set->prompts;
    r->slot[at] = ++r->set->prompts;
    return GIST_OK;
}

/* How much of r->rest and r->answer is kept; nothing: leave the pair out. */
typedef struct kept_part {
    size_t rest, answer;
} kept_part;

static size_t smaller(size_t a, size_t b) {
    return a < b ? a : b;
}

static kept_part cut(const reader *r) {
    size_t before = r->prompt.n + (size_t)r->opt->gists, max = (size_t)r->opt->max_length;
    size_t room = max > before ? max - before : 0, most = (size_t)r->opt->max_answer;
    if (most && room) return (kept_part){ smaller(r->rest.n, room), smaller(r->answer.n, most) };
    if (room <= r->rest.n) return (kept_part){ 0, 0 };
    return (kept_part){ r->rest.n, smaller(r->answer.n, room - r->rest.n) };
}

/* Keep the pair in r->prompt, r->rest, r->answer, or count why not.  A source that is cut keeps its end. */
static gist_status add_pair(reader *r) {
    train_set *set = r->set;
    kept_part n = cut(r);
    if (n.answer == 0) {
        set->all_cut++;
        return GIST_OK;
    }
    if (n.rest < r->rest.n || n.answer < r->answer.n) set->cut++;
    if (n.rest < r->rest.n) r->rest.id[n.rest - 1] = tok_eos(r->t);
    train_pair *p = room(r, set->pair, (size_t)set->pairs, &r->pair_cap, sizeof *p);
    if (!p) return err_memory(r->err, "training data");
    set->pair = p;
    train_pair made = { .input_len = (int)n.rest, .answer_len = (int)n.answer, .row = r->row };
    TRY(find_prompt(r, &made.prompt));
    TRY(append_ids(r, &r->rest, n.rest, &made.input));
    TRY(append_ids(r, &r->answer, n.answer, &made.answer));
    set->prompt[made.prompt].pairs++;
    p[set->pairs++] = made;
    return GIST_OK;
}

/* ---- one row ---- */

static bool blank(const char *s, size_t len) {
    for (size_t i = 0; i < len; i++)
        if (s[i] != ' ' && (s[i] < '\t' || s[i] > '\r')) return false;
    return true;
}

typedef struct text {
    const char *s;
    size_t len;
} text;

static gist_status get_text(const reader *r, const json_t *obj, const char *key, bool required, text *out) {
    char msg[96];
    const json_t *v = json_object_get(obj, key);
    *out = (text){ "", 0 };
    if (!required && (!v || json_is_null(v))) return GIST_OK;
    if (!json_is_string(v)) {
        snprintf(msg, sizeof msg, v ? "\"%s\" is not a string" : "\"%s\" is missing", key);
        return row_error(r, msg);
    }
    *out = (text){ json_string_value(v), json_string_length(v) };
    return GIST_OK;
}

static gist_status set_prompt(reader *r, text prompt) {
    gist_error cause = { 0 };
    sbuf *last = &r->instruction;
    if (prompt.len == last->len && memcmp(prompt.s, last->p, prompt.len) == 0) return GIST_OK; /* never empty */
    r->prompt.n = last->len = 0;
    r->lawful = false;
    gist_status st = tok_template_prompt(r->t, r->opt->tp, prompt.s, prompt.len, &r->prompt, &cause);
    if (st != GIST_OK) return row_failed(r, &cause);
    sbuf_add(last, prompt.s, prompt.len);
    return last->failed ? err_memory(r->err, "training data") : GIST_OK;
}

/* The law around the gist tokens.  They are special, so either side is tokenized for itself: a prompt that has kept the
 * law once keeps it, and an input keeps it behind any prompt if behind a short one, which is quicker to see. */
static gist_status gist_law(reader *r, text prompt, text input, gist_error *cause) {
    const tok_template *tp = r->opt->tp;
    gist_status st = GIST_ERR_TEXT;
    if (r->lawful) st = tok_template_law(r->t, tp, "a", 1, 1, input.s, input.len, cause);
    if (st == GIST_ERR_TEXT) st = tok_template_law(r->t, tp, prompt.s, prompt.len, 1, input.s, input.len, cause);
    r->lawful = r->lawful || st == GIST_OK;
    return st;
}

/* The law of gisting.md at both seams: around the gist tokens (when the vocabulary has them) and before the answer.
 * *holds is false when one does not. */
static gist_status check_laws(reader *r, text prompt, text input, text answer, bool *holds) {
    const tok_template *tp = r->opt->tp;
    gist_error cause = { 0 };
    gist_status st = r->opt->encoder /* its answer is a text of its own */
                         ? GIST_OK
                         : tok_template_answer_law(r->t, tp, input.s, input.len, answer.s, answer.len, &cause);
    if (st == GIST_OK && tok_gist(r->t) >= 0) st = gist_law(r, prompt, input, &cause);
    *holds = st == GIST_OK;
    return st == GIST_OK || st == GIST_ERR_TEXT ? GIST_OK : row_failed(r, &cause);
}

/* One more input and answer behind r->rest, which ends as the pair's rest.  *kept: its tokens can be gone on from. */
static gist_status add_exchange(reader *r, text prompt, text input, text answer, bool *kept) {
    gist_error cause = { 0 };
    *kept = false;
    r->set->read++;
    if (blank(answer.s, answer.len)) {
        r->set->no_answer++;
        return GIST_OK;
    }
    bool holds;
    TRY(check_laws(r, prompt, input, answer, &holds));
    if (!holds) {
        r->set->law++;
        return GIST_OK;
    }
    r->answer.n = 0;
    gist_status st = tok_template_input(r->t, r->opt->tp, input.s, input.len, false, &r->rest, &cause);
    if (st == GIST_OK && r->opt->encoder) st = tok_ids_push(&r->rest, tok_eos(r->t), &cause);
    if (st == GIST_OK) st = tok_template_answer(r->t, r->opt->tp, answer.s, answer.len, &r->answer, &cause);
    if (st == GIST_OK && r->rest.n == 0)
        st =
            err_set(&cause, GIST_ERR_TEXT, "without an input nothing stands between gist and answer in template \"%s\"",
                    tok_template_name(r->opt->tp));
    if (st == GIST_OK) st = tok_ids_push(&r->answer, tok_template_end(r->t, r->opt->tp), &cause);
    if (st != GIST_OK) return row_failed(r, &cause);
    *kept = true;
    return add_pair(r);
}

static gist_status read_instruction(reader *r, const json_t *row) {
    text prompt, input, answer;
    bool kept;
    TRY(get_text(r, row, "instruction", true, &prompt));
    TRY(get_text(r, row, "input", false, &input));
    TRY(get_text(r, row, "output", true, &answer));
    if (blank(prompt.s, prompt.len)) {
        r->set->read++;
        r->set->no_prompt++;
        return GIST_OK;
    }
    TRY(set_prompt(r, prompt));
    r->rest.n = 0;
    return add_exchange(r, prompt, input, answer, &kept);
}

static gist_status get_message(const reader *r, const json_t *list, size_t i, const char *role, text *out) {
    char msg[160];
    text found;
    const json_t *m = json_array_get(list, i);
    if (!json_is_object(m)) return row_error(r, "a message is not an object");
    TRY(get_text(r, m, "role", true, &found));
    if (strcmp(found.s, role) != 0) {
        snprintf(msg, sizeof msg, "message %zu: the role is \"%.40s\", expected \"%s\"", i + 1, found.s, role);
        return row_error(r, msg);
    }
    return get_text(r, m, "content", true, out);
}

static gist_status read_messages(reader *r, const json_t *list) {
    size_t n = json_array_size(list), at = 0;
    text prompt = { "", 0 }, user, answer;
    const char *first = json_string_value(json_object_get(json_array_get(list, 0), "role"));
    if (!json_is_array(list)) return row_error(r, "\"messages\" is not an array");
    if (first && strcmp(first, "system") == 0) TRY(get_message(r, list, at++, "system", &prompt));
    if (n - at > 3 && !tok_template_has_turns(r->opt->tp))
        return row_error(r, "the template has one turn only; chatml and llama3 have conversations");
    bool nothing = blank(prompt.s, prompt.len), kept = !nothing;
    if (kept) TRY(set_prompt(r, prompt));
    r->rest.n = 0;
    for (bool later = false; at + 1 < n; at += 2, later = true) {
        TRY(get_message(r, list, at, "user", &user));
        TRY(get_message(r, list, at + 1, "assistant", &answer));
        if (!kept) {
            r->set->read++;
            *(nothing ? &r->set->no_prompt : &r->set->law) += 1; /* without a prompt, or behind a turn without tokens */
            continue;
        }
        if (later) {
            r->answer.n--; /* its end comes with the turn */
            for (size_t i = 0; i < r->answer.n; i++) TRY(tok_ids_push(&r->rest, r->answer.id[i], r->err));
            TRY(tok_template_turn(r->t, r->opt->tp, &r->rest, r->err));
        }
        TRY(add_exchange(r, prompt, user, answer, &kept));
    }
    return at < n ? get_message(r, list, at, "user", &user)
                  : GIST_OK; /* a question without an answer teaches nothing */
}

static gist_status read_row(reader *r, const json_t *row) {
    if (!json_is_object(row)) return row_error(r, "not a JSON object");
    const json_t *messages = json_object_get(row, "messages");
    return messages ? read_messages(r, messages) : read_instruction(r, row);
}

/* ---- files ---- */

static bool full(const reader *r) {
    return r->opt->limit > 0 && r->set->read >= r->opt->limit;
}

static gist_status read_array(reader *r, const char *bytes, size_t len) {
    json_t *root = NULL;
    r->unit = "row";
    TRY(json_parse(bytes, len, r->what, &root, r->err));
    gist_status st = GIST_OK;
    for (size_t i = 0; st == GIST_OK && i < json_array_size(root) && !full(r); i++) {
        r->row = (int)i + 1;
        st = read_row(r, json_array_get(root, i));
    }
    json_decref(root);
    return st;
}

static gist_status read_line(reader *r, const char *line, size_t len) {
    json_t *row = NULL;
    gist_error cause = { 0 };
    gist_status st = json_parse(line, len, "", &row, &cause);
    if (st != GIST_OK) { /* ": line 1: '}' expected ..." : the number is the file's, not this text's */
        const char *msg = cause.msg + strspn(cause.msg, ": ");
        if (strncmp(msg, "line 1: ", 8) == 0) msg += 8;
        size_t n = strlen(r->what);
        return err_set(r->err, st, "%s: line %d: not JSON: %s", n > 160 ? r->what + n - 160 : r->what, r->row, msg);
    }
    st = read_row(r, row);
    json_decref(row);
    return st;
}

static gist_status read_lines(reader *r, const char *bytes, size_t len) {
    r->unit = "line";
    for (size_t at = 0; at < len && !full(r);) {
        const char *end = memchr(bytes + at, '\n', len - at);
        size_t n = end ? (size_t)(end - bytes) - at : len - at;
        if (++r->row == MAX_ROWS) return row_error(r, "too many lines");
        if (!blank(bytes + at, n)) TRY(read_line(r, bytes + at, n));
        at += n + 1;
    }
    return GIST_OK;
}

static gist_status read_bytes(reader *r, const char *bytes, size_t len) {
    const char *what = r->what;
    if (len >= 4 && (memcmp(bytes, "\x28\xb5\x2f\xfd", 4) == 0 || memcmp(bytes, "\x1f\x8b", 2) == 0))
        return err_set(r->err, GIST_ERR_UNSUPPORTED, "%s: is compressed; unpack it first", what);
    if (len >= 3 && memcmp(bytes, "\xef\xbb\xbf", 3) == 0) {
        bytes += 3;
        len -= 3;
    }
    size_t first = 0;
    while (first < len && blank(bytes + first, 1)) first++;
    if (first == len) return err_set(r->err, GIST_ERR_FORMAT, "%s: empty, expected rows of JSON", what);
    return bytes[first] == '[' ? read_array(r, bytes, len) : read_lines(r, bytes, len);
}

/* Pairs of one prompt side by side, in the order of the file. */
static gist_status group_pairs(train_set *set, gist_error *err) {
    train_pair *sorted = mem_alloc(set->alloc, (size_t)set->pairs, sizeof *sorted);
    if (!sorted) return err_memory(err, "training data");
    int at = 0;
    for (int i = 0; i < set->prompts; i++) {
        set->prompt[i].first_pair = at;
        at += set->prompt[i].pairs;
        set->prompt[i].pairs = 0;
    }
    for (int i = 0; i < set->pairs; i++) {
        train_prompt *p = &set->prompt[set->pair[i].prompt];
        sorted[p->first_pair + p->pairs++] = set->pair[i];
    }
    mem_free(set->alloc, set->pair);
    set->pair = sorted;
    return GIST_OK;
}

static gist_status check_options(const tokenizer *t, const train_data_options *opt, const gist_allocator *alloc,
                                 gist_error *err) {
    if (opt->gists < 0 || opt->max_length < opt->gists + 3)
        return err_set(err, GIST_ERR_USAGE, "a length of %d tokens leaves no room beside %d gist tokens",
                       opt->max_length, opt->gists);
    tok_ids probe; /* the template's own words */
    tok_ids_init(&probe, alloc);
    gist_status st = tok_template_prompt(t, opt->tp, "a", 1, &probe, err);
    tok_ids_free(&probe);
    if (st != GIST_OK) return st;
    if (tok_template_end(t, opt->tp) < 0)
        return err_set(err, GIST_ERR_UNSUPPORTED, "the tokenizer has no token that ends an answer of template \"%s\"",
                       tok_template_name(opt->tp));
    return GIST_OK;
}

gist_status train_data_parse(train_set *out, const char *bytes, size_t len, const char *what, const tokenizer *t,
                             const train_data_options *opt, const gist_allocator *alloc, gist_error *err) {
    TRY(check_options(t, opt, alloc, err));
    train_set set = { .alloc = alloc };
    reader r = { .set = &set, .t = t, .opt = opt, .what = what, .err = err };
    tok_ids_init(&r.ids, alloc);
    tok_ids_init(&r.prompt, alloc);
    tok_ids_init(&r.rest, alloc);
    tok_ids_init(&r.answer, alloc);
    sbuf_init(&r.instruction, alloc);
    gist_status st = read_bytes(&r, bytes, len);
    if (st == GIST_OK && set.pairs == 0) {
        sbuf why;
        sbuf_init(&why, alloc);
        train_data_describe(&set, &why);
        st = err_set(err, GIST_ERR_FORMAT, "%s: nothing to train on: %s", what, why.p ? why.p : "");
        sbuf_free(&why);
    }
    if (st == GIST_OK) st = group_pairs(&set, err);
    mem_free(alloc, r.slot);
    tok_ids_free(&r.prompt);
    tok_ids_free(&r.rest);
    tok_ids_free(&r.answer);
    sbuf_free(&r.instruction);
    set.ids = r.ids.id;
    set.id_count = r.ids.n;
    if (st == GIST_OK)
        *out = set;
    else
        train_data_free(&set);
    return st;
}

gist_status train_data_read(train_set *set, const char *path, const tokenizer *t, const train_data_options *opt,
                            const gist_allocator *alloc, gist_error *err) {
    file_map map;
    TRY(map_open(path, &map, err));
    gist_status st = train_data_parse(set, (const char *)map.data, map.size, path, t, opt, alloc, err);
    map_close(&map);
    return st;
}

void train_data_free(train_set *set) {
    mem_free(set->alloc, set->ids);
    mem_free(set->alloc, set->prompt);
    mem_free(set->alloc, set->pair);
    *set = (train_set){ .alloc = set->alloc };
}

/* ---- about a set ---- */

void train_data_describe(const train_set *set, sbuf *out) {
    const struct {
        int n;
        const char *why;
    } left_out[] = { { set->no_prompt, "without a prompt" },
                     { set->no_answer, "without an answer" },
                     { set->law, "not tokenized alike in parts and as a whole" },
                     { set->all_cut, "with no room for the answer" } };
    sbuf_fmt(out, "%d rows: %d pairs of %d prompts", set->read, set->pairs, set->prompts);
    if (set->cut) sbuf_fmt(out, ", %d answers cut", set->cut);
    const char *lead = "; left out: ";
    for (size_t i = 0; i < sizeof left_out / sizeof *left_out; i++) {
        if (!left_out[i].n) continue;
        sbuf_fmt(out, "%s%d %s", lead, left_out[i].n, left_out[i].why);
        lead = ", ";
    }
}

gist_status train_data_hash(const train_set *set, hash128 *out, gist_error *err) {
    hasher *h = hash_begin(set->alloc);
    if (!h) return err_memory(err, "training data");
    for (int i = 0; i < set->pairs; i++) {
        const train_pair *a = &set->pair[i];
        const train_prompt *p = &set->prompt[a->prompt];
        hash_u64(h, (uint64_t)a->prompt);
        hash_add(h, set->ids + p->ids, (size_t)p->len * sizeof(int32_t));
        hash_add(h, set->ids + a->input, (size_t)a->input_len * sizeof(int32_t));
        hash_add(h, set->ids + a->answer, (size_t)a->answer_len * sizeof(int32_t));
    }
    *out = hash_end(h);
    return GIST_OK;
}
