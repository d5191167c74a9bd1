/* gen_list.c - lists of unrelated words: what a model from scratch reads first.
 *
 *     plum Hartley 42 sorvel            After Hartley? 42      Before 42? Hartley      Repeat. plum Hartley 42 sorvel
 *     plum: Hartley; 42: sorvel         plum? Hartley          Who has sorvel? 42
 *     Ask Hartley about plum 42         And plum 42? Hartley   Which is Hartley? plum 42              phrases
 *
 * Nothing here can be guessed, so all there is to learn is to find a word and to copy what stands beside it.  A model
 * learns that within a few million tokens of short lists; in prompts of 150 tokens, where most words can be guessed
 * from their neighbours, it takes many times as long (docs/results/demo-levers.md).  Words are those of the training
 * split.
 */
#include "gen.h"

enum { MOST_WORDS = 30, MOST_REPEATED = 12 };

typedef struct list {
    gen g;
    char word[MOST_WORDS][TEXT_MAX];
    int n;
} list;

static const char *const a_word =
    "[<word>|<first>|<last>|<color>|<noun>|<adjective>|<10-99>|<baked>|<tools>|<clothes>|<exhibits>|<event>]";

/* n different words, without spaces: of a name of two words the second stays. */
static void draw_words(list *l, int n) {
    for (l->n = 0; l->n < n && !l->g.failed;) {
        char *w = l->word[l->n];
        text_into(&l->g, w, a_word, NULL);
        char *space = strrchr(w, ' ');
        if (space) memmove(w, space + 1, strlen(space));
        bool fresh = true;
        for (int i = 0; i < l->n; i++) fresh = fresh && strcmp(w, l->word[i]) != 0;
        l->n += fresh;
    }
}

static void add_pair(list *l, prompt *p, const char *sub, const char *input, const char *word, const char *output) {
    if (p->pairs == PROMPT_MAX_PAIRS) return;
    pair *a = &p->pair[p->pairs++];
    memset(a, 0, sizeof *a);
    a->kind = "list";
    snprintf(a->sub, sizeof a->sub, "%s", sub);
    text_into(&l->g, a->input, input, (const bind[]){ { "w", word }, { NULL, NULL } });
    snprintf(a->output, sizeof a->output, "%s", output);
}

/* word word word */
static void write_chain(list *l, prompt *p) {
    for (int i = 0; i < l->n; i++) sbuf_fmt(&p->text, "%s%s", i ? " " : "", l->word[i]);
    for (int tries = 0; tries < 6; tries++) {
        int i = text_below(&l->g, l->n - 1);
        add_pair(l, p, "after", "After {w}?", l->word[i], l->word[i + 1]);
        if (tries % 3 == 0) add_pair(l, p, "before", "Before {w}?", l->word[i + 1], l->word[i]);
    }
}

/* key: value; key: value */
static void write_table(list *l, prompt *p) {
    static const char *const joins[] = { ": ", " - ", " = ", " is ", " costs ", " has " };
    static const char *const ends[] = { "; ", ". ", "\n", ", " };
    const char *join = joins[text_below(&l->g, 6)], *end = ends[text_below(&l->g, 4)];
    int rows = l->n / 2;
    for (int i = 0; i < rows; i++)
        sbuf_fmt(&p->text, "%s%s%s%s", i ? end : "", l->word[2 * i], join, l->word[2 * i + 1]);
    for (int tries = 0; tries < 6; tries++) {
        int i = text_below(&l->g, rows);
        add_pair(l, p, "value", "[{w}?|What is {w}?|Tell me about {w}.]", l->word[2 * i], l->word[2 * i + 1]);
        if (tries % 3 == 0) add_pair(l, p, "key", "[Who has {w}?|Which is {w}?]", l->word[2 * i + 1], l->word[2 * i]);
    }
}

/* ---- phrases: keys and values of several words, with more between them, like the facts of a prompt ---- */

enum { MOST_ROWS = MOST_WORDS / 2 };
typedef struct phrases {
    char key[MOST_ROWS][TEXT_MAX], value[MOST_ROWS][TEXT_MAX];
    int rows;
} phrases;

/* The list's next words, spaces between. */
static void take_words(const list *l, int *at, int count, char out[TEXT_MAX]) {
    int n = 0;
    for (int i = 0; i < count; i++)
        n += snprintf(out + n, (size_t)(TEXT_MAX - n), "%s%s", i ? " " : "", l->word[(*at)++]);
}

/* A key of one or two words, the first of two perhaps that of the key before ("plum tart", "plum roll"), and a value of
 * one to three. */
static void draw_row(list *l, phrases *t, int *at) {
    char *key = t->key[t->rows], first[TEXT_MAX], word[TEXT_MAX];
    int of_key = l->n - *at > 2 && text_chance(&l->g, 0.5) ? 2 : 1;
    if (t->rows && of_key == 2 && text_chance(&l->g, 0.4)) {
        const char *before = t->key[t->rows - 1];
        take_words(l, at, 1, word);
        snprintf(first, sizeof first, "%.*s", (int)strcspn(before, " "), before);
        text_into(&l->g, key, "{first} {word}", (const bind[]){ { "first", first }, { "word", word }, { NULL, NULL } });
    } else {
        take_words(l, at, of_key, key);
    }
    int left = l->n - *at;
    take_words(l, at, 1 + text_below(&l->g, left < 3 ? left : 3), t->value[t->rows]);
}

static void write_phrases(list *l, prompt *p) {
    static const char *const forms[] = { "{k}: {v}",
                                         "{k} - {v}",
                                         "{k} = {v}",
                                         "{k} ({v})",
                                         "{k} is {v}",
                                         "{k} costs {v}",
                                         "{k} has {v}",
                                         "The {k} is in {v}",
                                         "{k} goes with {v}",
                                         "For {k} ask {v}",
                                         "{k} starts on {v}",
                                         "The {k} can be found at {v}",
                                         "When you see {k}, say {v}",
                                         "A {k} takes {v}",
                                         "{k} will be at {v}",
                                         "If anyone wants {k}, it is {v}",
                                         "{v} is the place of {k}",
                                         "{v} for {k}",
                                         "Ask {v} about {k}",
                                         "{v} looks after the {k}",
                                         "{v} means {k}" };
    enum { FORMS = sizeof forms / sizeof *forms };
    static const char *const ends[] = { "; ", ". ", "\n", ", " };
    static const char of_key[] = "[{w}?|What is {w}?|Tell me about {w}.|What goes with {w}?|And {w}?|I need {w}.]";
    static const char of_value[] = "[Who has {w}?|Which is {w}?|What is it that has {w}?|{w} is what?]";
    const char *form = forms[text_below(&l->g, FORMS)], *end = ends[text_below(&l->g, 4)];
    bool mixed = text_chance(&l->g, 0.3);
    phrases t = { .rows = 0 };
    for (int at = 0; l->n - at >= 2; t.rows++) {
        char row[TEXT_MAX];
        draw_row(l, &t, &at);
        if (mixed) form = forms[text_below(&l->g, FORMS)];
        text_into(&l->g, row, form, (const bind[]){ { "k", t.key[t.rows] }, { "v", t.value[t.rows] }, { NULL, NULL } });
        sbuf_fmt(&p->text, "%s%s", t.rows ? end : "", row);
    }
    for (int tries = 0; tries < 8; tries++) {
        int i = text_below(&l->g, t.rows);
        if (tries % 2)
            add_pair(l, p, "key", of_value, t.value[i], t.key[i]);
        else
            add_pair(l, p, "value", of_key, t.key[i], t.value[i]);
    }
}

gist_status list_draw(prompt *p, const words *w, bool of_phrases, uint64_t seed, uint64_t index, gist_error *err) {
    static const char lengths[] = { 2, 3, 4, 4, 5, 6, 6, 8, 10 };
    char at[64];
    int n = snprintf(at, sizeof at, "list %llu %llu", (unsigned long long)seed, (unsigned long long)index);
    hash128 h = hash_bytes(at, (size_t)n);
    rd r;
    rd_init(&r, h.b, sizeof h.b);
    list *l = mem_calloc(NULL, 1, sizeof *l);
    if (!l) return err_memory(err, "list");
    l->g.w = w;
    l->g.s = SPLIT_TRAIN;
    rng_seed(&l->g.r, rd_u64(&r));
    p->text.len = 0;
    p->pairs = p->seen = 0;
    snprintf(p->style, sizeof p->style, "none");
    bool is_long = text_chance(&l->g, of_phrases ? 0.6 : 0.3);
    draw_words(l, is_long ? 6 + text_below(&l->g, MOST_WORDS - 5) : lengths[text_below(&l->g, sizeof lengths)]);
    if (of_phrases && text_chance(&l->g, 0.75))
        write_phrases(l, p);
    else if (text_chance(&l->g, 0.5))
        write_chain(l, p);
    else
        write_table(l, p);
    if (l->n <= MOST_REPEATED && p->text.len < TEXT_MAX) add_pair(l, p, "repeat", "Repeat.", "", p->text.p);
    p->text.len = text_unmark(p->text.p, p->text.len);
    for (int i = 0; i < p->pairs; i++) {
        text_unmark(p->pair[i].input, strlen(p->pair[i].input));
        text_unmark(p->pair[i].output, strlen(p->pair[i].output));
    }
    p->bits = l->g.bits;
    gist_status st = l->g.failed || p->text.failed ? err_set(err, GIST_ERR_USAGE, "%s: %s", at, l->g.why) : GIST_OK;
    mem_free(NULL, l);
    return st;
}
