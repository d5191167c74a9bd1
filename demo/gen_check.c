/* gen_check.c - reads files of rows: are they sound, are they apart, what do they hold.
 *
 *   sound    JSON, texts, lengths, labels; a prompt's rows stand together, its inputs differ; the answer follows from
 *            the prompt (the fact's value stands in it) or from the input (an echo)
 *   apart    no prompt, entity, triple in common, and no name: every word and pair of words of every text is looked up
 *            in the lists of names, so what rows say about themselves need not be believed
 *   stats    lengths, bits, kinds; for each kind of question the share of its commonest answer
 */
#include <ctype.h>
#include <jansson.h>
#include <stdlib.h>

#include "gen.h"
#include "token/token.h"

/* ---- a table of counted texts ---- */

typedef struct entry {
    uint64_t hash; /* 0: free */
    char *text;    /* kept only when asked for */
    int group, count;
} entry;

typedef struct table {
    entry *e;
    size_t n, cap;
    bool failed;
} table;

static void table_free(table *t) {
    for (size_t i = 0; i < t->cap; i++) mem_free(NULL, t->e[i].text);
    mem_free(NULL, t->e);
    *t = (table){ 0 };
}

static uint64_t text_hash(int group, const char *s, size_t len) {
    rd r;
    hash128 h = hash_bytes(s, len);
    rd_init(&r, h.b, sizeof h.b);
    uint64_t v = rd_u64(&r) + (uint64_t)group * 0x9e3779b97f4a7c15u;
    return v ? v : 1;
}

static entry *probe(const table *t, uint64_t hash) {
    size_t at = (size_t)(hash % t->cap);
    while (t->e[at].hash && t->e[at].hash != hash) at = at + 1 == t->cap ? 0 : at + 1;
    return &t->e[at];
}

static bool table_has(const table *t, int group, const char *s, size_t len) {
    return t->cap && probe(t, text_hash(group, s, len))->hash;
}

/* Count s once more; its entry, or NULL on no memory (failed stays set).  A text is known by 64 bits of its hash. */
static entry *table_add(table *t, int group, const char *s, size_t len, bool keep) {
    if (2 * (t->n + 1) > t->cap) {
        table more = { .cap = t->cap ? 2 * t->cap : 1024, .n = t->n };
        more.e = mem_calloc(NULL, more.cap, sizeof *more.e);
        if (!more.e) {
            t->failed = true;
            return NULL;
        }
        for (size_t i = 0; i < t->cap; i++)
            if (t->e[i].hash) *probe(&more, t->e[i].hash) = t->e[i];
        mem_free(NULL, t->e);
        *t = more;
    }
    uint64_t hash = text_hash(group, s, len);
    entry *e = probe(t, hash);
    if (!e->hash) {
        *e = (entry){ .hash = hash, .group = group, .text = keep ? mem_strndup(NULL, s, len) : NULL };
        t->n++;
    }
    e->count++;
    return e;
}

/* ---- rows ---- */

typedef struct row {
    const char *path;
    int line;
    const char *instruction, *input, *output, *kind, *sub, *style, *id, *fact[3]; /* fact: NULL without one */
    double bits;
} row;

static gist_status fault(const row *r, gist_error *err, const char *what, const char *found) {
    return err_set(err, GIST_ERR_FORMAT, "%s:%d: %s: \"%.120s\"", r->path, r->line, what, found);
}

static const char *text_of(const json_t *obj, const char *key) {
    return json_string_value(json_object_get(obj, key));
}

typedef gist_status (*row_fn)(void *ctx, const row *r, gist_error *err);

static gist_status one_row(const char *s, size_t len, row *r, row_fn fn, void *ctx, gist_error *err) {
    json_error_t why;
    json_t *obj = json_loadb(s, len, JSON_REJECT_DUPLICATES, &why);
    if (!obj) return fault(r, err, "no JSON", why.text);
    r->instruction = text_of(obj, "instruction");
    r->input = text_of(obj, "input");
    r->output = text_of(obj, "output");
    r->kind = text_of(obj, "kind");
    r->sub = text_of(obj, "sub");
    r->style = text_of(obj, "style");
    r->id = text_of(obj, "prompt_id");
    r->bits = json_number_value(json_object_get(obj, "bits"));
    const json_t *fact = json_object_get(obj, "fact");
    for (size_t i = 0; i < 3; i++) r->fact[i] = json_string_value(json_array_get(fact, i));
    gist_status st = GIST_OK;
    if (!r->instruction || !r->input || !r->output || !r->kind || !r->sub || !r->id)
        st = fault(r, err, "instruction, input, output, kind, sub or prompt_id is missing", "");
    else if (fact && (!r->fact[2] || json_array_size(fact) != 3))
        st = fault(r, err, "fact is not three texts", r->id);
    else
        st = fn(ctx, r, err);
    json_decref(obj);
    return st;
}

static gist_status each_row(const char *path, row_fn fn, void *ctx, gist_error *err) {
    file_map m;
    row r = { .path = path };
    gist_status st = GIST_OK;
    TRY(map_open(path, &m, err));
    for (size_t at = 0; at < m.size && st == GIST_OK;) {
        const uint8_t *end = memchr(m.data + at, '\n', m.size - at);
        size_t len = end ? (size_t)(end - (m.data + at)) : m.size - at;
        r.line++;
        st = one_row((const char *)m.data + at, len, &r, fn, ctx, err);
        at += len + 1;
    }
    if (st == GIST_OK && r.line == 0) st = err_set(err, GIST_ERR_FORMAT, "%s: no rows", path);
    map_close(&m);
    return st;
}

/* ---- sound ---- */

typedef struct sound {
    rows_kind kind;
    table prompts, inputs; /* inputs: of the current prompt */
    char id[80];
    uint64_t instruction;
    int pairs;
} sound;

static bool printable(const char *s, bool lines) {
    for (const char *c = s; *c; c++)
        if ((*c < 32 && !(lines && *c == '\n')) || *c == 127) return false;
    size_t n = strlen(s);
    return n > 0 && !isspace((unsigned char)s[0]) && !isspace((unsigned char)s[n - 1]);
}

static bool within(const char *s, size_t len, const char *text) { /* in any letter case */
    for (; *text; text++)
        if (strncasecmp(text, s, len) == 0) return true;
    return len == 0;
}

/* Does the answer follow?  From the value of the fact, which stands in the prompt; or from the input's own words. */
static bool follows(const row *r) {
    if (!r->fact[0]) {
        const char *colon = strstr(r->input, ": ");
        return strcmp(r->kind, "format") == 0 && colon && within(colon + 2, strlen(colon + 2), r->output);
    }
    const char *value = r->fact[2], *space = strchr(value, ' '), *last = strrchr(value, ' ');
    size_t n = strlen(value), first = space ? (size_t)(space - value) : n;
    if (!within(value, n, r->instruction)) return false;
    if (strcmp(r->sub, "rate") == 0) {
        const char *digit = strpbrk(r->output, "0123456789");
        return digit && atoi(value) > 0 && atoi(digit) % atoi(value) == 0;
    }
    const char *dot = strrchr(r->sub, '.');
    if (dot && strcmp(dot, ".inverse") == 0) {
        const char *key = strchr(r->fact[1], ' ') ? strchr(r->fact[1], ' ') + 1 : r->fact[0];
        return within(key, strlen(key), r->output) && within(key, strlen(key), r->instruction);
    }
    if (within(value, n, r->output)) return true;
    bool brief = r->style && strstr(r->style, "brief");
    return brief && (within(value, first, r->output) || (last && within(last + 1, strlen(last + 1), r->output)));
}

static gist_status prompt_done(const sound *s, const row *r, gist_error *err) {
    static const int bounds[][2] = { { 4, PROMPT_MAX_PAIRS }, { 1, PROMPT_MAX_SEEN }, { 4, 6 } };
    if (s->pairs && (s->pairs < bounds[s->kind][0] || s->pairs > bounds[s->kind][1]))
        return err_set(err, GIST_ERR_FORMAT, "%s: prompt %s has %d pairs, not %d to %d", r->path, s->id, s->pairs,
                       bounds[s->kind][0], bounds[s->kind][1]);
    return GIST_OK;
}

static gist_status sound_row(void *ctx, const row *r, gist_error *err) {
    sound *s = ctx;
    size_t len = strlen(r->instruction);
    bool hand = s->kind == ROWS_HAND;
    int tokens = text_tokens(r->instruction, len), in = text_tokens(r->input, strlen(r->input)),
        out = text_tokens(r->output, strlen(r->output));
    if (!printable(r->instruction, true) || !printable(r->input, false) || !printable(r->output, false))
        return fault(r, err, "a text is empty, has control characters or blanks at an end", r->id);
    if (tokens < (hand ? 40 : 50) || tokens > 250)
        return fault(r, err, "a prompt of fewer than 50 or more than 250 words", r->id);
    if (in > 40 || out > 24) return fault(r, err, "an input over 40 words or an answer over 24", r->output);
    if (strcmp(r->kind, "fact") != 0 && strcmp(r->kind, "format") != 0 && strcmp(r->kind, "tool") != 0)
        return fault(r, err, "kind is none of fact, format, tool", r->kind);
    if (!hand && !(r->bits > 10)) return fault(r, err, "bits are missing", r->id);
    if (!hand && !follows(r)) return fault(r, err, "the answer does not follow from the prompt", r->output);
    uint64_t instruction = text_hash(0, r->instruction, len);
    if (strcmp(s->id, r->id) != 0) {
        TRY(prompt_done(s, r, err));
        if (table_has(&s->prompts, 0, r->instruction, len))
            return fault(r, err, "this prompt stood before, under another id", r->id);
        if (table_has(&s->prompts, 1, r->id, strlen(r->id)))
            return fault(r, err, "rows of this prompt are not together", r->id);
        table_add(&s->prompts, 0, r->instruction, len, false);
        table_add(&s->prompts, 1, r->id, strlen(r->id), false);
        table_free(&s->inputs);
        snprintf(s->id, sizeof s->id, "%s", r->id);
        s->pairs = 0;
        s->instruction = instruction;
    }
    if (instruction != s->instruction) return fault(r, err, "two texts for one prompt", r->id);
    if (table_has(&s->inputs, 0, r->input, strlen(r->input))) return fault(r, err, "an input twice", r->input);
    table_add(&s->inputs, 0, r->input, strlen(r->input), false);
    s->pairs++;
    return s->prompts.failed || s->inputs.failed ? err_memory(err, "check") : GIST_OK;
}

gist_status rows_sound(const char *path, rows_kind kind, gist_error *err) {
    sound s = { .kind = kind };
    const row end = { .path = path };
    gist_status st = each_row(path, sound_row, &s, err);
    if (st == GIST_OK) st = prompt_done(&s, &end, err);
    table_free(&s.prompts);
    table_free(&s.inputs);
    return st;
}

/* ---- apart ---- */

enum { OF_PROMPT, OF_ENTITY, OF_TRIPLE, OF_NAME, OF_COUNT };
static const char *const what_of[OF_COUNT] = { "prompt", "entity", "triple", "name" };

typedef struct apart {
    const words *w;
    table all;   /* of file a */
    bool second; /* reading file b: look up instead of adding */
    int found[OF_COUNT];
    char last[80]; /* prompt id */
} apart;

static gist_status meet(apart *a, int of, const char *s, size_t len, const row *r, gist_error *err) {
    a->found[of]++;
    if (!a->second) return table_add(&a->all, of, s, len, false) ? GIST_OK : err_memory(err, "check");
    if (!table_has(&a->all, of, s, len)) return GIST_OK;
    return err_set(err, GIST_ERR_MISMATCH, "%s:%d: the %s \"%.*s\" is in the other file too", r->path, r->line,
                   what_of[of], len > 80 ? 80 : (int)len, s);
}

static size_t word_len(const char *s) {
    size_t n = 0;
    while (isalpha((unsigned char)s[n])) n++;
    return n;
}

static gist_status meet_names(apart *a, const char *s, const row *r, gist_error *err) {
    while (*s) {
        size_t n = word_len(s), two = s[n] == ' ' && word_len(s + n + 1) ? n + 1 + word_len(s + n + 1) : 0;
        const size_t lens[2] = { n, two };
        for (int i = 0; i < 2; i++) {
            char low[TEXT_MAX];
            size_t len = lens[i];
            if (len == 0 || words_owner(a->w, s, len) == SPLIT_COUNT) continue;
            for (size_t j = 0; j < len; j++)
                low[j] = (char)tolower((unsigned char)s[j]); /* owned: shorter than TEXT_MAX */
            TRY(meet(a, OF_NAME, low, len, r, err));
        }
        s += n ? n : 1;
    }
    return GIST_OK;
}

static gist_status apart_row(void *ctx, const row *r, gist_error *err) {
    apart *a = ctx;
    if (strcmp(a->last, r->id) != 0) {
        snprintf(a->last, sizeof a->last, "%s", r->id);
        TRY(meet(a, OF_PROMPT, r->instruction, strlen(r->instruction), r, err));
        TRY(meet_names(a, r->instruction, r, err));
    }
    TRY(meet_names(a, r->input, r, err));
    TRY(meet_names(a, r->output, r, err));
    if (!r->fact[0]) return GIST_OK;
    char triple[3 * TEXT_MAX];
    int n = snprintf(triple, sizeof triple, "%s | %s | %s", r->fact[0], r->fact[1], r->fact[2]);
    TRY(meet(a, OF_ENTITY, r->fact[0], strlen(r->fact[0]), r, err));
    return meet(a, OF_TRIPLE, triple, n < (int)sizeof triple ? (size_t)n : sizeof triple - 1, r, err);
}

gist_status rows_apart(const words *w, const char *a, const char *b, gist_error *err) {
    apart ctx = { .w = w };
    gist_status st = each_row(a, apart_row, &ctx, err);
    ctx.second = true;
    ctx.last[0] = 0;
    memset(ctx.found, 0, sizeof ctx.found);
    if (st == GIST_OK) st = each_row(b, apart_row, &ctx, err);
    if (st == GIST_OK)
        printf("%s and %s are apart: %d prompts, %d entities, %d triples and %d names of the second looked up in the "
               "first\n",
               a, b, ctx.found[OF_PROMPT], ctx.found[OF_ENTITY], ctx.found[OF_TRIPLE], ctx.found[OF_NAME]);
    table_free(&ctx.all);
    return st;
}

/* ---- seen ---- */

static gist_status seen_row(void *ctx, const row *r, gist_error *err) {
    apart *a = ctx;
    char id[80];
    uint64_t h = text_hash(0, r->instruction, strlen(r->instruction));
    int n = snprintf(id, sizeof id, "%016llx", (unsigned long long)h);
    if (!a->second) {
        table_add(&a->all, 0, id, (size_t)n, false);
    } else if (!table_has(&a->all, 0, id, (size_t)n)) {
        return fault(r, err, "this prompt is not in training", r->id);
    }
    sbuf both;
    sbuf_init(&both, NULL);
    sbuf_fmt(&both, "%s %s", id, r->input);
    gist_status st = both.failed ? err_memory(err, "check") : GIST_OK;
    if (st == GIST_OK && a->second && table_has(&a->all, 1, both.p, both.len))
        st = fault(r, err, "this input is in training", r->input);
    if (st == GIST_OK && !a->second) table_add(&a->all, 1, both.p, both.len, false);
    sbuf_free(&both);
    return st == GIST_OK && a->all.failed ? err_memory(err, "check") : st;
}

gist_status rows_seen(const char *train, const char *seen, gist_error *err) {
    apart ctx = { 0 };
    gist_status st = each_row(train, seen_row, &ctx, err);
    ctx.second = true;
    if (st == GIST_OK) st = each_row(seen, seen_row, &ctx, err);
    if (st == GIST_OK) printf("%s asks prompts of %s other inputs\n", seen, train);
    table_free(&ctx.all);
    return st;
}

/* ---- stats ---- */

typedef struct spread {
    double sum, least, most;
    int n;
} spread;

static void spread_add(spread *s, double v) {
    if (s->n == 0 || v < s->least) s->least = v;
    if (s->n == 0 || v > s->most) s->most = v;
    s->sum += v;
    s->n++;
}

static void spread_print(const char *name, const spread *s) {
    if (s->n) printf("  %-34s %7.1f mean, %7.1f to %.1f\n", name, s->sum / s->n, s->least, s->most);
}

enum { MAX_SUBS = 128 };

typedef struct stats {
    tokenizer *t;
    tok_ids ids;
    spread words, tokens, input, answer, bits, pairs, density;
    int at_k[5]; /* prompts whose largest k with tokens / k >= 10 is 1, 2, 4, 8, 16 */
    char last[80];
    int rows, of_prompt;
    struct {
        char name[64];
        int rows, distinct, top;
        char answer[64];
    } sub[MAX_SUBS];
    int subs;
    table answers, styles; /* group: index of the sub */
} stats;

static gist_status count_tokens(stats *s, const char *text, spread *to, bool whole, gist_error *err) {
    const tok_template *tp = tok_template_find("paper");
    s->ids.n = 0;
    if (whole)
        TRY(tok_template_prompt(s->t, tp, text, strlen(text), &s->ids, err));
    else
        TRY(tok_encode(s->t, text, strlen(text), 0, &s->ids, err));
    spread_add(to, (double)s->ids.n);
    return GIST_OK;
}

static int sub_index(stats *s, const row *r) {
    char name[64];
    int i = 0;
    /* What a form does to an echoed word is counted by form, below. */
    snprintf(name, sizeof name, "%.12s %.40s", r->kind, r->fact[0] || strcmp(r->kind, "format") != 0 ? r->sub : "echo");
    while (i < s->subs && strcmp(s->sub[i].name, name) != 0) i++;
    if (i == s->subs && s->subs < MAX_SUBS - 1) snprintf(s->sub[s->subs++].name, sizeof name, "%s", name);
    return i;
}

/* The answer as a guesser sees it: of an echo, the form around the echoed words. */
static void form_of(const row *r, char out[TEXT_MAX]) {
    const char *colon = r->fact[0] ? NULL : strstr(r->input, ": "), *at = NULL;
    size_t len = colon ? strlen(colon + 2) : 0;
    for (const char *c = r->output; colon && *c && !at; c++)
        if (strncasecmp(c, colon + 2, len) == 0) at = c;
    if (!at) {
        snprintf(out, TEXT_MAX, "%s", r->output);
        return;
    }
    const char *letters = strncmp(at, colon + 2, len) == 0 ? "..."
                          : isupper((unsigned char)*at)    ? "(UPPER)"
                                                           : "(lower)";
    snprintf(out, TEXT_MAX, "%.*s%s%s", (int)(at - r->output), r->output, letters, at + len);
}

static gist_status stats_row(void *ctx, const row *r, gist_error *err) {
    stats *s = ctx;
    if (strcmp(s->last, r->id) != 0) {
        if (s->of_prompt) spread_add(&s->pairs, s->of_prompt);
        s->of_prompt = 0;
        snprintf(s->last, sizeof s->last, "%s", r->id);
        spread_add(&s->words, text_tokens(r->instruction, strlen(r->instruction)));
        if (r->bits > 0) spread_add(&s->bits, r->bits);
        if (s->t) {
            TRY(count_tokens(s, r->instruction, &s->tokens, true, err));
            if (r->bits > 0) spread_add(&s->density, r->bits / (double)s->ids.n);
            int k = 0;
            while (k < 4 && s->ids.n >= (size_t)10 << (k + 1)) k++;
            s->at_k[k]++;
        }
        if (r->style) table_add(&s->styles, 0, r->style, strlen(r->style), true);
    }
    s->rows++;
    s->of_prompt++;
    if (s->t) {
        char spaced[4 * TEXT_MAX];
        snprintf(spaced, sizeof spaced, " %s", r->output);
        TRY(count_tokens(s, r->input, &s->input, false, err));
        TRY(count_tokens(s, spaced, &s->answer, false, err));
    }
    char form[TEXT_MAX];
    int i = sub_index(s, r);
    form_of(r, form);
    entry *e = table_add(&s->answers, i, form, strlen(form), true);
    if (!e) return err_memory(err, "stats");
    s->sub[i].rows++;
    s->sub[i].distinct += e->count == 1;
    if (e->count > s->sub[i].top) {
        s->sub[i].top = e->count;
        snprintf(s->sub[i].answer, sizeof s->sub[i].answer, "%.*s", (int)sizeof s->sub[i].answer - 1, form);
    }
    return GIST_OK;
}

static int more_rows(const void *a, const void *b) {
    const entry *x = a, *y = b;
    return x->count != y->count ? (y->count > x->count) - (y->count < x->count)
                                : strcmp(x->text ? x->text : "", y->text ? y->text : "");
}

static void print_stats(stats *s, const char *path) {
    printf("%s: %d prompts, %d pairs\n", path, s->words.n, s->rows);
    spread_print("word-like tokens of a prompt", &s->words);
    spread_print("tokens of its part in the template", &s->tokens);
    spread_print("tokens of an input", &s->input);
    spread_print("tokens of an answer", &s->answer);
    spread_print("bits drawn for a prompt", &s->bits);
    spread_print("bits per token", &s->density);
    spread_print("pairs of a prompt", &s->pairs);
    if (s->t)
        printf("  largest k of 1 2 4 8 16 with tokens / k >= 10:  %d %d %d %d %d prompts\n", s->at_k[0], s->at_k[1],
               s->at_k[2], s->at_k[3], s->at_k[4]);
    printf("\n  %-26s %6s %8s %8s  %s\n", "question", "pairs", "answers", "top", "commonest answer");
    int top = 0;
    for (int i = 0; i < s->subs; i++) {
        printf("  %-26s %6d %8d %6.1f %%  %s\n", s->sub[i].name, s->sub[i].rows, s->sub[i].distinct,
               100.0 * s->sub[i].top / s->sub[i].rows, s->sub[i].answer);
        top += s->sub[i].top;
    }
    printf("  %-26s %6d %8s %6.1f %%  (the commonest answer to every question)\n", "all", s->rows, "",
           100.0 * top / s->rows);
    printf("\n  styles:");
    qsort(s->styles.e, s->styles.cap, sizeof *s->styles.e, more_rows);
    for (size_t i = 0; i < s->styles.n && i < 40; i++)
        printf(" %s %d%s", s->styles.e[i].text, s->styles.e[i].count, i + 1 < s->styles.n ? "," : "\n");
    printf("\n");
}

gist_status rows_stats(const char *path, const char *tokenizer_path, gist_error *err) {
    stats *s = mem_calloc(NULL, 1, sizeof *s);
    if (!s) return err_memory(err, "stats");
    tok_ids_init(&s->ids, NULL);
    gist_status st = tokenizer_path ? tok_open(tokenizer_path, NULL, &s->t, err) : GIST_OK;
    if (st == GIST_OK) st = each_row(path, stats_row, s, err);
    if (st == GIST_OK) {
        spread_add(&s->pairs, s->of_prompt);
        print_stats(s, path);
    }
    if (s->t) tok_close(s->t);
    tok_ids_free(&s->ids);
    table_free(&s->answers);
    table_free(&s->styles);
    mem_free(NULL, s);
    return st;
}
