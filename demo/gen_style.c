/* gen_style.c - format rules: which go together, how they are said, and answers in the form they demand. */
#include <ctype.h>

#include "gen_draft.h"

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

void draft_styles(draft *d) {
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
        if (s->value) draft_say_into(d, d->style_value[d->styles], s->value, NULL);
        draft_say(d, draft_open(d), s->say, (const bind[]){ { "v", d->style_value[d->styles] }, { NULL, NULL } });
        draft_keep(d);
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

void draft_in_form(const draft *d, char text[TEXT_MAX], fact_brief cut) {
    char *space = cut == BRIEF_FIRST ? strchr(text, ' ') : strrchr(text, ' ');
    if (d->brief && space && cut == BRIEF_FIRST) *space = 0;
    if (d->brief && space && cut == BRIEF_LAST) memmove(text, space + 1, strlen(space));
    for (int pass = 0; pass < 2; pass++) /* letters first, what stands around them after */
        for (int i = 0; i < d->styles; i++)
            if ((d->style[i]->letters == CASE_KEEP) == (pass == 1))
                apply_style(d->style[i], d->style_value[i], d->name, text);
}
