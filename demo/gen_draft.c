/* gen_draft.c - texts, blocks and inputs of a prompt being drawn. */
#include "gen_draft.h"

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

void draft_say(draft *d, sbuf *out, const char *tpl, const bind *more) {
    bind b[OWN_BINDS];
    bind_all(d, b, more);
    text_expand(&d->g, out, tpl, b);
}

void draft_say_into(draft *d, char out[TEXT_MAX], const char *tpl, const bind *more) {
    bind b[OWN_BINDS];
    bind_all(d, b, more);
    text_into(&d->g, out, tpl, b);
}

void copy_text(char out[TEXT_MAX], const char *s) {
    snprintf(out, TEXT_MAX, "%s", s);
}

/* ---- blocks ---- */

sbuf *draft_open(draft *d) {
    sbuf *b = &d->block[d->blocks];
    b->len = 0;
    return b;
}

int draft_size(const sbuf *b) {
    return text_tokens(b->p ? b->p : "", b->len);
}

void draft_keep(draft *d) {
    if (d->blocks == MAX_BLOCKS - 1) {
        d->g.failed = true;
        return;
    }
    d->tokens += draft_size(&d->block[d->blocks]) + d->lines; /* a line break after it */
    d->blocks++;
}

/* ---- asks ---- */

void draft_ask(draft *d, const char *kind, const char *sub, const char *input, const char *answer, fact_brief cut) {
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

void draft_rests_on(draft *d, const char *entity, const char *attribute, const char *value) {
    pair *p = &d->ask[d->asks - 1];
    copy_text(p->entity, entity);
    copy_text(p->attribute, attribute);
    copy_text(p->value, value);
}
