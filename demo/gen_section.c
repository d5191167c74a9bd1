/* gen_section.c - sections: what a kind of fact is drawn from, how its facts are written down, what is asked of them.
 *
 *   facts  -> list ("Prices: plum tart - 4 euros; oat bun - 7 euros.") or sentences
 *          -> asks: each fact one way, another way, from its value back to its key
 *
 * Within one section no key and no value occurs twice: a question has one answer.
 */
#include <stdlib.h>

#include "gen_draft.h"

enum { MAX_FACTS = 6, TOKENS_PER_FACT = 20 };

typedef struct fact {
    char key[TEXT_MAX], value[TEXT_MAX];
} fact;

static void rests_on_fact(draft *d, const fact_kind *kind, const fact *f) {
    char attribute[TEXT_MAX];
    snprintf(attribute, sizeof attribute, "%s%s%.120s", kind->sub, kind->own_key ? "" : " ",
             kind->own_key ? "" : f->key);
    draft_rests_on(d, kind->own_key ? f->key : d->place, attribute, f->value);
}

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
        draft_say_into(d, value, kind->value, NULL);
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
            draft_say_into(d, f[i].key,
                           kind->how == HOW_LIMIT  ? i ? "above" : "below"
                           : kind->how == HOW_RATE ? "<small>"
                                                   : kind->key,
                           NULL);
        draft_say_into(d, f[i].value, kind->value, NULL);
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
    draft_say(d, b, kind->head, NULL);
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
        draft_say(d, b, kind->say,
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
        draft_say(d, b, kind->head, NULL);
        sbuf_str(b, ": ");
    }
    for (int i = 0; i < n; i++) {
        if (i) sbuf_str(b, " ");
        if (strcmp(f[i].value, "closed") == 0)
            draft_say(d, b, "[On {k} we are closed.|We are closed on {k}.]",
                      (const bind[]){ { "k", f[i].key }, { NULL, NULL } });
        else
            draft_say(d, b, kind->say,
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
        draft_say_into(d, q, kind->ask,
                       (const bind[]){ { "k", f[i].key },
                                       { "day", day },
                                       { "message", message },
                                       { "small", f[i].key },
                                       { "big", x->big[i] },
                                       { "m", m },
                                       { "cargo", x->cargo },
                                       { "unit", x->unit },
                                       { NULL, NULL } });
        draft_ask(d, kind->kind, kind->sub, q, answer, kind->brief);
        rests_on_fact(d, kind, &f[i]);
    }
    if (!kind->invert || !text_chance(&d->g, 0.5)) return;
    draft_say_into(d, q, kind->invert, (const bind[]){ { "v", f[i].value }, { NULL, NULL } });
    snprintf(sub, sizeof sub, "%s.inverse", kind->sub);
    draft_ask(d, kind->kind, sub, q, f[i].key, BRIEF_NONE);
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
        for (int i = 0; i < n && kind->how == HOW_RATE; i++) draft_say_into(d, x.big[i], "<big>", NULL);
        if (kind->how == HOW_LIMIT) {
            bool crowd = text_chance(&d->g, 0.5);
            draft_say_into(d, x.cargo, crowd ? "<crowd>" : "<cargo>", NULL);
            draft_say_into(d, x.unit, crowd ? "<heads>" : "<weight>", NULL);
            snprintf(x.n, sizeof x.n, "%d", 10 * (1 + text_value(&d->g, 5)));
        }
        sbuf *b = draft_open(d);
        write_section(d, b, kind, f, n, &x);
        if (draft_size(b) <= room) {
            for (int i = 0; i < n; i++) ask_fact(d, kind, f, i, &x);
            draft_keep(d);
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

void draft_sections(draft *d, int target) {
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
