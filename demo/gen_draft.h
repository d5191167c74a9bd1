/* gen_draft.h - a prompt being drawn, for the files that write its parts.
 *
 *   gen_draft.c     what all of them use: texts with the draft's own names in them, blocks, inputs
 *   gen_section.c   sections of facts and tools
 *   gen_style.c     format rules, and answers in the form they demand
 *   gen_prompt.c    the whole of it
 */
#ifndef DEMO_GEN_DRAFT_H
#define DEMO_GEN_DRAFT_H

#include "gen.h"

enum { MAX_BLOCKS = 64, MAX_ASKS = 96, MAX_STYLES = 2 };

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

/* Expand tpl onto out, with the draft's own bindings and one to four more (NULL: none). */
void draft_say(draft *d, sbuf *out, const char *tpl, const bind *more);
void draft_say_into(draft *d, char out[TEXT_MAX], const char *tpl, const bind *more);
void copy_text(char out[TEXT_MAX], const char *s);

/* A block is written into what draft_open gives and is not there before it is kept. */
sbuf *draft_open(draft *d);
int draft_size(const sbuf *b); /* word-like tokens */
void draft_keep(draft *d);

/* One more input.  The draft keeps at most MAX_ASKS; of later ones nothing is lost but variety. */
void draft_ask(draft *d, const char *kind, const char *sub, const char *input, const char *answer, fact_brief cut);
/* What the last one rests on. */
void draft_rests_on(draft *d, const char *entity, const char *attribute, const char *value);

/* ---- gen_section.c ---- */

/* Sections until the facts that a length of `target` allows are there, or nothing fits any more. */
void draft_sections(draft *d, int target);

/* ---- gen_style.c ---- */

void draft_styles(draft *d);
/* The answer as this prompt wants it. */
void draft_in_form(const draft *d, char text[TEXT_MAX], fact_brief cut);

#endif
