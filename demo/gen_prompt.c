/* gen_prompt.c - draws one prompt: who the assistant is, sections of facts, tools, format rules, words around them; and
 * inputs whose answers follow from it.
 *
 *   draft:  identity | style | section ... section | refusal | greeting | filler ...   -> shuffled, joined
 *   asks:   about each fact; name, echo, off topic
 *           -> shuffled, inputs distinct; answers put into the form that the styles demand
 *
 * The length is drawn first (62 to 216 word-like tokens) and the number of facts follows it, one fact per 20 tokens, so
 * that prompts of every length are about equally dense.
 */
#include "gen_draft.h"

enum { MIN_TOKENS = 62, MAX_TOKENS = 216 };

/* Greeting, refusal and echoes: their content is in the prompt once, or in the input; the form is the format's. */
static void add_speech(draft *d) {
    bool speech = true;
    for (int i = 0; i < d->styles; i++) speech = speech && d->style[i]->speech;
    char v[TEXT_MAX], q[TEXT_MAX];
    if (speech && text_chance(&d->g, 0.3)) {
        draft_say_into(d, v, "<pardon>", NULL);
        sbuf *b = draft_open(d);
        draft_say(d, b, text_refusal, (const bind[]){ { "v", v }, { NULL, NULL } });
        draft_keep(d);
        const word_list *list = words_find(d->g.w, "offtopic", 8);
        for (int i = 0; i < 2; i++) {
            draft_ask(d, "format", "refusal", list->word[d->g.s][text_below(&d->g, list->count[d->g.s])], v,
                      BRIEF_NONE);
            draft_rests_on(d, d->place, "refusal", v);
        }
    }
    if (speech && text_chance(&d->g, 0.12)) {
        draft_say_into(d, v, text_hello, NULL);
        sbuf *b = draft_open(d);
        draft_say(d, b, text_greeting, (const bind[]){ { "v", v }, { NULL, NULL } });
        draft_keep(d);
        const word_list *list = words_find(d->g.w, "hello", 5);
        draft_ask(d, "format", "greeting", list->word[d->g.s][text_below(&d->g, list->count[d->g.s])], v, BRIEF_NONE);
        draft_rests_on(d, d->place, "greeting", v);
    }
    double bits = d->g.bits; /* what an input says is not in the prompt */
    for (int i = 0; i < 2 && d->styles > 0 && !(d->styles == 1 && d->brief); i++) {
        draft_say_into(d, v, "[<noun>|<item>|<event>|<label>|<first>]", NULL);
        draft_say_into(d, q, text_echo, (const bind[]){ { "v", v }, { NULL, NULL } });
        draft_ask(d, "format", d->style[0]->brief ? d->style[1]->sub : d->style[0]->sub, q, v, BRIEF_NONE);
    }
    d->g.bits = bits;
}

/* always: a short prompt needs them to have enough inputs */
static void ask_identity(draft *d, bool always) {
    char q[TEXT_MAX];
    if (always || text_chance(&d->g, 0.5)) {
        draft_say_into(
            d, q, "[What is your name?|Who are you?|Who am I talking to?|Your name, please?|What do people call you?]",
            NULL);
        draft_ask(d, "fact", "name", q, d->name, BRIEF_NONE);
        draft_rests_on(d, d->place, "assistant", d->name);
    }
    if (always || text_chance(&d->g, 0.4)) {
        draft_say_into(
            d, q, "[Who do you work for?|Where do you work?|What is this place called?|Which place is this?]", NULL);
        draft_ask(d, "fact", "workplace", q, d->place, BRIEF_NONE);
        draft_rests_on(d, d->place, "workplace", d->place);
    }
}

/* Sentences without facts, up to the length drawn. */
static void add_fillers(draft *d, int target) {
    bool used[64] = { false };
    for (int tries = 0; tries < 60 && (d->tokens < MIN_TOKENS || d->tokens < target - 6); tries++) {
        int i = text_below(&d->g, text_filler_count);
        if (used[i]) continue;
        sbuf *b = draft_open(d);
        text_expand(&d->g, b, text_fillers[i], NULL);
        if (d->tokens >= MIN_TOKENS && d->tokens + draft_size(b) > target + 8) continue;
        draft_keep(d);
        used[i] = true;
    }
}

static void join_blocks(draft *d, sbuf *out, const char *between) {
    int order[MAX_BLOCKS];
    int fixed = text_chance(&d->g, 0.85); /* the identity stays in front */
    for (int i = 0; i < d->blocks; i++) order[i] = i;
    for (int i = d->blocks - 1; i > fixed; i--) {
        int j = fixed + text_below(&d->g, i + 1 - fixed), t = order[i];
        order[i] = order[j];
        order[j] = t;
    }
    for (int i = 0; i < d->blocks; i++) {
        if (i) sbuf_str(out, between);
        sbuf_add(out, d->block[order[i]].p, d->block[order[i]].len);
    }
}

/* Shuffle the asks, drop repeated inputs, put the first ones into the prompt's pairs. */
static void choose_pairs(draft *d, prompt *p, bool seen) {
    int order[MAX_ASKS], n = 0, total = 0;
    for (int i = 0; i < d->asks; i++) order[i] = i;
    for (int i = d->asks - 1; i > 0; i--) {
        int j = text_below(&d->g, i + 1), t = order[i];
        order[i] = order[j];
        order[j] = t;
    }
    for (int i = 0; i < d->asks && total < PROMPT_MAX_PAIRS + PROMPT_MAX_SEEN; i++) {
        const pair *a = &d->ask[order[i]];
        bool again = false;
        for (int j = 0; j < total; j++) again = again || strcmp(p->pair[j].input, a->input) == 0;
        if (again) continue;
        p->pair[total] = *a;
        draft_in_form(d, p->pair[total].output, d->cut[order[i]]);
        total++;
    }
    n = !seen ? total : total >= 12 ? total - PROMPT_MAX_SEEN : total - total / 3;
    p->all = total;
    p->pairs = n > PROMPT_MAX_PAIRS ? PROMPT_MAX_PAIRS : n;
    p->seen = seen ? total - p->pairs : 0;
    if (p->seen > PROMPT_MAX_SEEN) p->seen = PROMPT_MAX_SEEN;
}

static void unmark_all(prompt *p) {
    p->text.len = text_unmark(p->text.p, p->text.len);
    for (int i = 0; i < p->all; i++) {
        pair *a = &p->pair[i];
        char *all[] = { a->input, a->output, a->entity, a->attribute, a->value };
        for (size_t j = 0; j < sizeof all / sizeof *all; j++) text_unmark(all[j], strlen(all[j]));
    }
}

void prompt_init(prompt *p) {
    memset(p, 0, sizeof *p);
    sbuf_init(&p->text, NULL);
}

void prompt_free(prompt *p) {
    sbuf_free(&p->text);
}

static void compose(draft *d, prompt *p) {
    gen *g = &d->g;
    d->domain = &domains[text_value(g, domain_count)];
    g->items = d->domain->items;
    g->roles = d->domain->roles;
    int target = MIN_TOKENS + text_below(g, MAX_TOKENS - MIN_TOKENS + 1), layout = text_below(g, 3);
    d->lines = layout > 0;
    draft_say_into(d, d->name, "<first>", NULL);
    draft_say_into(d, d->place, d->domain->place, NULL);
    draft_say_into(d, d->helper, d->domain->helper, NULL);
    draft_say_into(d, d->money, "<money>", NULL);
    draft_say_into(d, d->spot, "<spot>", NULL);
    draft_say_into(d, d->door, "<door>", NULL);
    draft_say_into(d, d->street, "<street>", NULL);
    draft_say(d, draft_open(d), text_identity, NULL);
    draft_keep(d);
    draft_styles(d);
    ask_identity(d, false);
    add_speech(d);
    draft_sections(d, target);
    for (int i = 0; i < 3 && d->asks < 10; i++) ask_identity(d, true);
    add_fillers(d, target);
    join_blocks(d, &p->text, layout == 0 ? " " : layout == 1 ? "\n" : "\n\n");
    choose_pairs(d, p, g->s == SPLIT_TRAIN);
    p->bits = g->bits;
    snprintf(p->style, sizeof p->style, "%s%s%s", d->styles ? d->style[0]->sub : "none", d->styles > 1 ? "+" : "",
             d->styles > 1 ? d->style[1]->sub : "");
}

static gist_status draw(prompt *p, const words *w, split s, uint64_t seed, uint64_t index, int edit, bool marked,
                        gist_error *err) {
    char at[96];
    int n =
        snprintf(at, sizeof at, "%s %llu %llu", split_names[s], (unsigned long long)seed, (unsigned long long)index);
    hash128 h = hash_bytes(at, (size_t)n);
    rd r;
    rd_init(&r, h.b, sizeof h.b);
    draft *d = mem_calloc(NULL, 1, sizeof *d);
    if (!d) return err_memory(err, "prompt");
    d->g.w = w;
    d->g.s = s;
    d->edit = edit;
    rng_seed(&d->g.r, rd_u64(&r));
    for (int i = 0; i < MAX_BLOCKS; i++) sbuf_init(&d->block[i], NULL);
    p->text.len = 0;
    compose(d, p);
    bool failed = d->g.failed || p->text.failed;
    gist_status st =
        failed ? err_set(err, GIST_ERR_USAGE, "prompt %s: %s", at, d->g.why[0] ? d->g.why : "too much of something")
               : GIST_OK;
    if (!failed && !marked) unmark_all(p);
    for (int i = 0; i < MAX_BLOCKS; i++) sbuf_free(&d->block[i]);
    mem_free(NULL, d);
    return st;
}

gist_status prompt_draw(prompt *p, const words *w, split s, uint64_t seed, uint64_t index, bool marked,
                        gist_error *err) {
    return draw(p, w, s, seed, index, -1, marked, err);
}

/* Do the texts differ in one place only, no longer than a value? */
static bool one_place(const sbuf *a, const sbuf *b) {
    size_t least = a->len < b->len ? a->len : b->len, most = a->len > b->len ? a->len : b->len, front = 0, back = 0;
    while (front < least && a->p[front] == b->p[front]) front++;
    while (back < least - front && a->p[a->len - 1 - back] == b->p[b->len - 1 - back]) back++;
    return most - front - back > 0 && most - front - back < 40;
}

/* Keep of `after` the pairs whose input `before` has too, with another answer; whether there is one. */
static bool changed_pairs(const prompt *before, prompt *after, char was[][TEXT_MAX]) {
    int n = 0;
    for (int i = 0; i < after->pairs && i < before->pairs; i++) {
        const pair *a = &before->pair[i], *b = &after->pair[i];
        if (strcmp(a->input, b->input) != 0 || strcmp(a->output, b->output) == 0) continue;
        copy_text(was[n], a->output);
        after->pair[n++] = *b;
    }
    after->pairs = after->all = n;
    after->seen = 0;
    return n > 0;
}

gist_status prompt_edit(prompt *p, char was[PROMPT_MAX_PAIRS][TEXT_MAX], const words *w, split s, uint64_t seed,
                        uint64_t index, gist_error *err) {
    enum { MOST = 24 };
    prompt before;
    prompt_init(&before);
    gist_status st = prompt_draw(&before, w, s, seed, index, false, err);
    bool found = false;
    for (int e = 0; e < MOST && st == GIST_OK && !found; e++) {
        st = draw(p, w, s, seed, index, (int)((index + (uint64_t)e) % MOST), false, err);
        found = st == GIST_OK && one_place(&before.text, &p->text) && changed_pairs(&before, p, was);
    }
    if (!found) p->pairs = p->seen = p->all = 0;
    prompt_free(&before);
    return st;
}
