/* gen_prompt.c - draws one prompt: who the assistant is, sections of facts, tools, format rules, words around them; and
 * inputs whose answers follow from it.
 *
 *   draft:  identity | style | section ... section | refusal | greeting | filler ...   -> shuffled, joined
 *   asks:   each fact one way, another way, from its value back to its key; name, echo, off topic
 *           -> shuffled, inputs distinct; answers put into the form that the styles demand
 *
 * The length is drawn first (62 to 216 word-like tokens) and the number of facts follows it, one fact per 20 tokens, so
 * that prompts of every length are about equally dense.  Within one section no key and no value occurs twice: a
 * question has one answer.
 */
#include <ctype.h>
#include <stdlib.h>

#include "gen.h"

enum {
    MAX_FACTS = 6,
    MAX_BLOCKS = 64,
    MAX_ASKS = 96,
    MIN_TOKENS = 62,
    MAX_TOKENS = 216,
    TOKENS_PER_FACT = 20,
    MAX_STYLES = 2
};

typedef struct fact {
    char key[TEXT_MAX], value[TEXT_MAX];
} fact;

typedef struct draft {
    gen g;
    const domain *domain;
    char name[TEXT_MAX], place[TEXT_MAX], helper[TEXT_MAX], money[TEXT_MAX], spot[TEXT_MAX], door[TEXT_MAX],
        street[TEXT_MAX];
    const style *style[MAX_STYLES];
    char style_value[MAX_STYLES][TEXT_MAX];
    int styles;
    bool brief;
    sbuf block[MAX_BLOCKS];
    int blocks, tokens, facts;
    bool lines; /* blocks stand on lines of their own, so lists may too */
    pair ask[MAX_ASKS];
    fact_brief cut[MAX_ASKS];
    int asks;
    int edit, drawn; /* fact number `edit` of those drawn gets another value; -1: none */
} draft;

enum { OWN_BINDS = 16 };

/* The draft's own bindings and one to four more. */
static void bind_all(const draft *d, bind out[OWN_BINDS], const bind *more) {
    const bind own[] = { { "name", d->name }, { "place", d->place }, { "helper", d->helper }, { "money", d->money },
                         { "spot", d->spot }, { "door", d->door },   { "street", d->street } };
    size_t n = sizeof own / sizeof *own;
    memcpy(out, own, sizeof own);
    for (; more && more->key && n < OWN_BINDS - 1; more++) out[n++] = *more;
    out[n] = (bind){ NULL, NULL };
}

static void say(draft *d, sbuf *out, const char *tpl, const bind *more) {
    bind b[OWN_BINDS];
    bind_all(d, b, more);
    text_expand(&d->g, out, tpl, b);
}

static void say_into(draft *d, char out[TEXT_MAX], const char *tpl, const bind *more) {
    bind b[OWN_BINDS];
    bind_all(d, b, more);
    text_into(&d->g, out, tpl, b);
}

static void copy_text(char out[TEXT_MAX], const char *s) {
    snprintf(out, TEXT_MAX, "%s", s);
}

/* ---- blocks ---- */

static sbuf *block_open(draft *d) {
    sbuf *b = &d->block[d->blocks];
    b->len = 0;
    return b;
}

static int block_size(const sbuf *b) {
    return text_tokens(b->p ? b->p : "", b->len);
}

static void block_keep(draft *d) {
    if (d->blocks == MAX_BLOCKS - 1) {
        d->g.failed = true;
        return;
    }
    d->tokens += block_size(&d->block[d->blocks]) + d->lines; /* a line break after it */
    d->blocks++;
}

/* ---- asks ---- */

/* One more input.  The draft keeps at most MAX_ASKS; of later ones nothing is lost but variety. */
static void ask(draft *d, const char *kind, const char *sub, const char *input, const char *answer, fact_brief cut) {
    static const char around[] =
        "[{q}|{q}|{q}|{q}|{q}|{q}|{q}|{q}|{q}|{q}|Hi! {q}|Hello. {q}|Question: {q}|Please help. {q}|{q} "
        "Thanks!|Excuse me. {q}|One more thing. {q}]";
    if (d->asks == MAX_ASKS) return;
    pair *p = &d->ask[d->asks];
    memset(p, 0, sizeof *p);
    p->kind = kind;
    snprintf(p->sub, sizeof p->sub, "%s", sub);
    if (strcmp(kind, "format") == 0)
        copy_text(p->input, input);
    else
        text_into(&d->g, p->input, around, (const bind[]){ { "q", input }, { NULL, NULL } });
    copy_text(p->output, answer);
    d->cut[d->asks++] = cut;
}

/* What the last ask rests on. */
static void rests_on(draft *d, const char *entity, const char *attribute, const char *value) {
    pair *p = &d->ask[d->asks - 1];
    copy_text(p->entity, entity);
    copy_text(p->attribute, attribute);
    copy_text(p->value, value);
}

static void rests_on_fact(draft *d, const fact_kind *kind, const fact *f) {
    char attribute[TEXT_MAX];
    snprintf(attribute, sizeof attribute, "%s%s%.120s", kind->sub, kind->own_key ? "" : " ",
             kind->own_key ? "" : f->key);
    rests_on(d, kind->own_key ? f->key : d->place, attribute, f->value);
}

/* ---- sections ---- */

static const char *const day_groups[][3] = {
    { "Monday to Friday", "Saturday", "Sunday" },
    { "Monday to Thursday", "Friday", "Saturday and Sunday" },
    { "Monday and Tuesday", "Wednesday to Saturday", "Sunday" },
    { "Tuesday to Friday", "Saturday and Sunday", "Monday" },
    { "Monday to Saturday", "Sunday", NULL },
    { "Monday to Friday", "Saturday and Sunday", NULL },
    { "Monday, Tuesday and Friday", "Wednesday and Thursday", "Saturday" },
};
enum { DAY_GROUPS = sizeof day_groups / sizeof *day_groups };
static const char *const day_names[7] = {
    "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"
};

/* A day of a group: one it names, or one inside "A to B". */
static const char *day_of(draft *d, const char *group) {
    bool in[7] = { false };
    int first = -1, last = -1, n = 0;
    for (int i = 0; i < 7; i++) {
        const char *at = strstr(group, day_names[i]);
        in[i] = at;
        if (at && first < 0) first = i;
        if (at) last = i;
    }
    for (int i = first; i <= last && strstr(group, " to "); i++) in[i] = true;
    for (int i = 0; i < 7; i++) n += in[i];
    int pick = text_below(&d->g, n);
    for (int i = 0; i < 7; i++)
        if (in[i] && pick-- == 0) return day_names[i];
    return day_names[0];
}

/* Another value for fact i, without moving the draft's own dice: everything else stays as it was. */
static void edit_value(draft *d, const fact_kind *kind, fact *f, int i) {
    rng dice = d->g.r;
    double bits = d->g.bits;
    char value[TEXT_MAX];
    bool fresh = false;
    for (int tries = 0; !fresh && tries < 50; tries++) {
        say_into(d, value, kind->value, NULL);
        fresh = true;
        for (int j = 0; j <= i; j++) fresh = fresh && strcmp(value, f[j].value) != 0;
    }
    if (fresh) copy_text(f[i].value, value);
    d->g.r = dice;
    d->g.bits = bits;
}

/* Draw n facts with distinct keys and values; false when the lists do not give them. */
static bool draw_facts(draft *d, const fact_kind *kind, fact *f, int n) {
    int group = kind->how == HOW_HOURS ? text_value(&d->g, DAY_GROUPS) : 0;
    for (int i = 0, tries = 0; i < n; tries++) {
        if (tries > 50 || (kind->how == HOW_HOURS && !day_groups[group][i])) return false;
        double before = d->g.bits;
        if (kind->how == HOW_HOURS)
            copy_text(f[i].key, day_groups[group][i]);
        else
            say_into(d, f[i].key,
                     kind->how == HOW_LIMIT  ? i ? "above" : "below"
                     : kind->how == HOW_RATE ? "<small>"
                                             : kind->key,
                     NULL);
        say_into(d, f[i].value, kind->value, NULL);
        if (kind->how == HOW_HOURS && i == 2 && text_chance(&d->g, 0.3)) copy_text(f[i].value, "closed");
        bool fresh = true;
        for (int j = 0; j < i; j++)
            fresh = fresh && strcmp(f[i].key, f[j].key) != 0 && strcmp(f[i].value, f[j].value) != 0;
        if (!fresh) {
            d->g.bits = before;
            continue;
        }
        if (d->drawn++ == d->edit) edit_value(d, kind, f, i);
        i++;
    }
    return true;
}

/* "Prices: plum tart - 4 euros; oat bun - 7 euros." or the same with a line for each */
static void write_list(draft *d, sbuf *b, const fact_kind *kind, const fact *f, int n) {
    static const char *const joins[] = { ": ", " - ", " = ", ", " };
    static const char *const bullets[] = { "- ", "* ", "" };
    bool lines = d->lines && text_chance(&d->g, 0.7);
    const char *join = joins[text_below(&d->g, lines ? 4 : 3)], *bullet = lines ? bullets[text_below(&d->g, 3)] : "";
    say(d, b, kind->head, NULL);
    sbuf_str(b, ":");
    for (int i = 0; i < n; i++) {
        sbuf_fmt(b, "%s%s%s%s%s", lines ? "\n" : " ", bullet, f[i].key, join, f[i].value);
        if (!lines) sbuf_str(b, i + 1 < n ? ";" : ".");
    }
}

/* The words of a section beyond key and value: containers, measures, thresholds. */
typedef struct extra {
    char big[MAX_FACTS][TEXT_MAX], cargo[TEXT_MAX], unit[TEXT_MAX], n[TEXT_MAX];
} extra;

static void write_section(draft *d, sbuf *b, const fact_kind *kind, const fact *f, int n, const extra *x) {
    if (kind->how == HOW_LIMIT) {
        say(d, b, kind->say,
            (const bind[]){ { "cargo", x->cargo },
                            { "unit", x->unit },
                            { "n", x->n },
                            { "v", f[0].value },
                            { "w", f[1].value },
                            { NULL, NULL } });
        return;
    }
    if (kind->head && n > 1 && text_chance(&d->g, 0.5)) {
        write_list(d, b, kind, f, n);
        return;
    }
    if (kind->head && text_chance(&d->g, 0.2)) {
        say(d, b, kind->head, NULL);
        sbuf_str(b, ": ");
    }
    for (int i = 0; i < n; i++) {
        if (i) sbuf_str(b, " ");
        if (strcmp(f[i].value, "closed") == 0)
            say(d, b, "[On {k} we are closed.|We are closed on {k}.]",
                (const bind[]){ { "k", f[i].key }, { NULL, NULL } });
        else
            say(d, b, kind->say,
                (const bind[]){ { "k", f[i].key },
                                { "v", f[i].value },
                                { "small", f[i].key },
                                { "big", x->big[i] },
                                { NULL, NULL } });
    }
}

/* Two questions about fact i, and one back from its value. */
static void ask_fact(draft *d, const fact_kind *kind, const fact *f, int i, const extra *x) {
    char q[TEXT_MAX], m[TEXT_MAX], answer[TEXT_MAX], sub[TEXT_MAX];
    for (int way = 0; way < 2; way++) {
        const char *message = "", *day = "";
        copy_text(m, "");
        copy_text(answer, f[i].value);
        if (kind->how == HOW_HOURS) day = day_of(d, f[i].key);
        if (kind->how == HOW_MESSAGE) {
            const word_list *list = words_find(d->g.w, f[i].key, strlen(f[i].key));
            message = list->word[d->g.s][text_below(&d->g, list->count[d->g.s])];
        }
        if (kind->how == HOW_RATE) {
            int count = 2 + text_below(&d->g, 5);
            snprintf(m, sizeof m, "%d", count);
            snprintf(answer, sizeof answer, "%d", count * atoi(f[i].value));
        }
        if (kind->how == HOW_LIMIT) {
            int n = atoi(x->n);
            snprintf(m, sizeof m, "%d", i == 0 ? 1 + text_below(&d->g, n) : n + 1 + text_below(&d->g, 99 - n));
        }
        say_into(d, q, kind->ask,
                 (const bind[]){ { "k", f[i].key },
                                 { "day", day },
                                 { "message", message },
                                 { "small", f[i].key },
                                 { "big", x->big[i] },
                                 { "m", m },
                                 { "cargo", x->cargo },
                                 { "unit", x->unit },
                                 { NULL, NULL } });
        ask(d, kind->kind, kind->sub, q, answer, kind->brief);
        rests_on_fact(d, kind, &f[i]);
    }
    if (!kind->invert || !text_chance(&d->g, 0.5)) return;
    say_into(d, q, kind->invert, (const bind[]){ { "v", f[i].value }, { NULL, NULL } });
    snprintf(sub, sizeof sub, "%s.inverse", kind->sub);
    ask(d, kind->kind, sub, q, f[i].key, BRIEF_NONE);
    rests_on_fact(d, kind, &f[i]);
}

/* Add one section of at most `most` facts; false, and nothing changed, when it does not fit. */
static bool add_section(draft *d, const fact_kind *kind, int most, int room) {
    fact f[MAX_FACTS];
    extra x;
    double bits = d->g.bits;
    memset(&x, 0, sizeof x);
    if (most > kind->most) most = kind->most;
    if (most < kind->least) return false;
    int n = kind->least + text_below(&d->g, most - kind->least + 1);
    if (draw_facts(d, kind, f, n)) {
        for (int i = 0; i < n && kind->how == HOW_RATE; i++) say_into(d, x.big[i], "<big>", NULL);
        if (kind->how == HOW_LIMIT) {
            bool crowd = text_chance(&d->g, 0.5);
            say_into(d, x.cargo, crowd ? "<crowd>" : "<cargo>", NULL);
            say_into(d, x.unit, crowd ? "<heads>" : "<weight>", NULL);
            snprintf(x.n, sizeof x.n, "%d", 10 * (1 + text_value(&d->g, 5)));
        }
        sbuf *b = block_open(d);
        write_section(d, b, kind, f, n, &x);
        if (block_size(b) <= room) {
            for (int i = 0; i < n; i++) ask_fact(d, kind, f, i, &x);
            block_keep(d);
            d->facts += n;
            return true;
        }
    }
    d->g.bits = bits;
    return false;
}

static bool belongs(const draft *d, const fact_kind *kind) {
    return !kind->groups || strchr(kind->groups, d->domain->group);
}

/* Sections until the facts that the length allows are there, or nothing fits any more. */
static void add_sections(draft *d, int target) {
    bool used[64] = { false };
    int want = target / TOKENS_PER_FACT, tools = text_below(&d->g, 2) + (target > 150 ? text_below(&d->g, 2) : 0);
    for (int tries = 0; d->facts < want && tries < 60; tries++) {
        int i = text_below(&d->g, fact_kind_count);
        const fact_kind *kind = &fact_kinds[i];
        bool tool = strcmp(kind->kind, "tool") == 0;
        if (used[i] || !belongs(d, kind) || (tools > 0 && !tool) || (tools == 0 && tool)) {
            tries -= !used[i] && tries > 0; /* the dice's fault */
            continue;
        }
        if (d->brief && d->facts == 0 && tools == 0 && kind->brief == BRIEF_NONE) continue;
        if (!add_section(d, kind, want - d->facts, target + 6 - d->tokens)) continue;
        used[i] = true;
        tools -= tool;
    }
}

/* ---- styles ---- */

static const style *draw_style(draft *d) {
    int sum = 0;
    for (int i = 0; i < style_count; i++) sum += styles[i].weight;
    int at = text_value(&d->g, sum);
    for (int i = 0;; i++)
        if ((at -= styles[i].weight) < 0) return &styles[i];
}

/* Letter case goes with what stands around an answer without letters; what comes before with what comes after; a terse
 * answer with everything. */
static bool fit(const style *a, const style *b) {
    char x = a->fits, y = b->fits;
    return x == 't' ? y != 't'
                    : y == 't' || (x == 'c' && y == 'a') || (x == 'a' && y == 'c') || (x == 'b' && y == 'e') ||
                          (x == 'e' && y == 'b');
}

static void add_styles(draft *d) {
    double how = rng_unit(&d->g.r);
    int want = how < 0.35 ? 0 : how < 0.85 ? 1 : 2;
    while (d->styles < want) {
        double bits = d->g.bits;
        const style *s = draw_style(d);
        if (d->styles && !fit(d->style[0], s)) {
            d->g.bits = bits;
            continue;
        }
        copy_text(d->style_value[d->styles], "");
        if (s->value) say_into(d, d->style_value[d->styles], s->value, NULL);
        say(d, block_open(d), s->say, (const bind[]){ { "v", d->style_value[d->styles] }, { NULL, NULL } });
        block_keep(d);
        d->style[d->styles++] = s;
        d->brief = d->brief || s->brief;
    }
}

static void put_affix(sbuf *out, const char *affix, const char *value, const char *name) {
    for (; *affix; affix++) {
        if (*affix == '%')
            sbuf_str(out, value);
        else if (*affix == '~')
            sbuf_str(out, name);
        else
            sbuf_add(out, affix, 1);
    }
}

static void apply_style(const style *s, const char *value, const char *name, char text[TEXT_MAX]) {
    sbuf out;
    sbuf_init(&out, NULL);
    for (char *c = text; *c; c++)
        *c = (char)(s->letters == CASE_UPPER   ? toupper((unsigned char)*c)
                    : s->letters == CASE_LOWER ? tolower((unsigned char)*c)
                                               : *c);
    put_affix(&out, s->pre, value, name);
    sbuf_str(&out, text);
    put_affix(&out, s->post, value, name);
    if (out.p) copy_text(text, out.p);
    sbuf_free(&out);
}

/* The answer as this prompt wants it. */
static void apply_styles(const draft *d, char text[TEXT_MAX], fact_brief cut) {
    char *space = cut == BRIEF_FIRST ? strchr(text, ' ') : strrchr(text, ' ');
    if (d->brief && space && cut == BRIEF_FIRST) *space = 0;
    if (d->brief && space && cut == BRIEF_LAST) memmove(text, space + 1, strlen(space));
    for (int pass = 0; pass < 2; pass++) /* letters first, what stands around them after */
        for (int i = 0; i < d->styles; i++)
            if ((d->style[i]->letters == CASE_KEEP) == (pass == 1))
                apply_style(d->style[i], d->style_value[i], d->name, text);
}

/* ---- the rest ---- */

/* Greeting, refusal and echoes: their content is in the prompt once, or in the input; the form is the format's. */
static void add_speech(draft *d) {
    bool speech = true;
    for (int i = 0; i < d->styles; i++) speech = speech && d->style[i]->speech;
    char v[TEXT_MAX], q[TEXT_MAX];
    if (speech && text_chance(&d->g, 0.3)) {
        say_into(d, v, "<pardon>", NULL);
        sbuf *b = block_open(d);
        say(d, b, text_refusal, (const bind[]){ { "v", v }, { NULL, NULL } });
        block_keep(d);
        const word_list *list = words_find(d->g.w, "offtopic", 8);
        for (int i = 0; i < 2; i++) {
            ask(d, "format", "refusal", list->word[d->g.s][text_below(&d->g, list->count[d->g.s])], v, BRIEF_NONE);
            rests_on(d, d->place, "refusal", v);
        }
    }
    if (speech && text_chance(&d->g, 0.12)) {
        say_into(d, v, text_hello, NULL);
        sbuf *b = block_open(d);
        say(d, b, text_greeting, (const bind[]){ { "v", v }, { NULL, NULL } });
        block_keep(d);
        const word_list *list = words_find(d->g.w, "hello", 5);
        ask(d, "format", "greeting", list->word[d->g.s][text_below(&d->g, list->count[d->g.s])], v, BRIEF_NONE);
        rests_on(d, d->place, "greeting", v);
    }
    double bits = d->g.bits; /* what an input says is not in the prompt */
    for (int i = 0; i < 2 && d->styles > 0 && !(d->styles == 1 && d->brief); i++) {
        say_into(d, v, "[<noun>|<item>|<event>|<label>|<first>]", NULL);
        say_into(d, q, text_echo, (const bind[]){ { "v", v }, { NULL, NULL } });
        ask(d, "format", d->style[0]->brief ? d->style[1]->sub : d->style[0]->sub, q, v, BRIEF_NONE);
    }
    d->g.bits = bits;
}

/* always: a short prompt needs them to have enough inputs */
static void ask_identity(draft *d, bool always) {
    char q[TEXT_MAX];
    if (always || text_chance(&d->g, 0.5)) {
        say_into(d, q,
                 "[What is your name?|Who are you?|Who am I talking to?|Your name, please?|What do people call you?]",
                 NULL);
        ask(d, "fact", "name", q, d->name, BRIEF_NONE);
        rests_on(d, d->place, "assistant", d->name);
    }
    if (always || text_chance(&d->g, 0.4)) {
        say_into(d, q, "[Who do you work for?|Where do you work?|What is this place called?|Which place is this?]",
                 NULL);
        ask(d, "fact", "workplace", q, d->place, BRIEF_NONE);
        rests_on(d, d->place, "workplace", d->place);
    }
}

/* Sentences without facts, up to the length drawn. */
static void add_fillers(draft *d, int target) {
    bool used[64] = { false };
    for (int tries = 0; tries < 60 && (d->tokens < MIN_TOKENS || d->tokens < target - 6); tries++) {
        int i = text_below(&d->g, text_filler_count);
        if (used[i]) continue;
        sbuf *b = block_open(d);
        text_expand(&d->g, b, text_fillers[i], NULL);
        if (d->tokens >= MIN_TOKENS && d->tokens + block_size(b) > target + 8) continue;
        block_keep(d);
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
        apply_styles(d, p->pair[total].output, d->cut[order[i]]);
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
    say_into(d, d->name, "<first>", NULL);
    say_into(d, d->place, d->domain->place, NULL);
    say_into(d, d->helper, d->domain->helper, NULL);
    say_into(d, d->money, "<money>", NULL);
    say_into(d, d->spot, "<spot>", NULL);
    say_into(d, d->door, "<door>", NULL);
    say_into(d, d->street, "<street>", NULL);
    say(d, block_open(d), text_identity, NULL);
    block_keep(d);
    add_styles(d);
    ask_identity(d, false);
    add_speech(d);
    add_sections(d, target);
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
