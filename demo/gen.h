/* gen.h - the demonstration's data: system prompts drawn from a grammar, questions with one right answer each.
 *
 *   gen_words.c    word lists and names; every name belongs to one split           words_*
 *   gen_text.c     the template notation                                            text_*
 *   gen_grammar.c  the grammar, as tables: domains, facts, tools, styles, fillers
 *   gen_prompt.c   draws one prompt and its pairs (gen_draft.h: its parts)          prompt_*
 *   gen_list.c     draws one list of unrelated words and its pairs                  list_draw
 *   gen_vocab.c    a byte-level BPE vocabulary trained on the prompts               vocab_write
 *   gen_check.c    files of rows: what they hold, whether they are apart            rows_*
 *   gist_demo.c    the program
 *
 * Notation of templates:  [a|b]   wording, one of these, drawn and not counted; may nest
 *                         <list>  value, one of a word list or of a range like <2-40>, drawn and counted in bits
 *                         {k}     text bound by the caller
 * A name made of two parts carries NAME_MARK between them until it is printed; the vocabulary is trained on parts.
 */
#ifndef DEMO_GEN_H
#define DEMO_GEN_H

#include "base/base.h"

#define NAME_MARK '\x1f'

/* Whose names a prompt may use.  The seen split is the training prompts with the inputs that training leaves out. */
typedef enum split { SPLIT_TRAIN, SPLIT_DEV, SPLIT_UNSEEN, SPLIT_COUNT } split;
extern const char *const split_names[SPLIT_COUNT];

/* ---- words: gen_words.c ---- */

typedef struct word_list {
    const char *name;
    const char **word[SPLIT_COUNT]; /* of a list that all splits share, the three are the same */
    int count[SPLIT_COUNT];
} word_list;

typedef struct words words;
gist_status words_create(words **out, gist_error *err);
void words_free(words *w);
const word_list *words_find(const words *w, const char *name, size_t len); /* NULL: none of this name */
/* Is s[0..len), in any letter case and without marks, a name that belongs to one split?  Returns it, or SPLIT_COUNT. */
split words_owner(const words *w, const char *s, size_t len);

/* ---- templates: gen_text.c ---- */

typedef struct bind {
    const char *key, *text;
} bind;

typedef struct gen {
    const words *w;
    split s;
    rng r;
    double bits; /* of the values drawn so far */
    bool failed; /* a template named a list or binding that is not there, or a text outgrew its place */
    char why[120];
    const char *items, *roles; /* what <item> and <role> draw from */
} gen;

enum { TEXT_MAX = 200 };

/* Expand tpl onto out; binds end with a NULL key. */
void text_expand(gen *g, sbuf *out, const char *tpl, const bind *binds);
/* The same into a small text; a longer one sets g->failed. */
void text_into(gen *g, char out[TEXT_MAX], const char *tpl, const bind *binds);
int text_below(gen *g, int n); /* a choice of wording */
int text_value(gen *g, int n); /* a choice of value: counted */
bool text_chance(gen *g, double p);
size_t text_unmark(char *s, size_t len);    /* remove NAME_MARK in place; the new length */
int text_tokens(const char *s, size_t len); /* word-like tokens: words, marks of names, punctuation, pairs of digits */

void row_string(sbuf *b, const char *s, size_t len); /* as a JSON string */

/* ---- the grammar: gen_grammar.c ---- */

typedef struct domain {
    char group;         /* f food, s shop, c culture, h guests, t technical, m medical, v travel, g games and classes */
    const char *helper; /* template: the assistant's job */
    const char *place;  /* template: "<last> Bakery" */
    const char *items, *roles;
} domain;
extern const domain domains[];
extern const int domain_count;

typedef enum fact_how { HOW_PLAIN, HOW_MESSAGE, HOW_HOURS, HOW_RATE, HOW_LIMIT } fact_how;
typedef enum fact_brief { BRIEF_NONE, BRIEF_FIRST, BRIEF_LAST } fact_brief; /* what a terse answer keeps: one word */

/* One kind of section: 'least' to 'most' facts, each a key with a value. */
typedef struct fact_kind {
    const char *kind, *sub; /* labels: "fact" or "tool"; "price" */
    const char *groups;     /* domains it belongs to; NULL: all */
    fact_how how;
    fact_brief brief;
    int least, most;
    bool own_key; /* the key is a name or an item of the split; otherwise the fact is about the place */
    const char *key, *value;
    const char *head;   /* of a list; NULL: sentences only */
    const char *say;    /* one fact as a sentence; NULL: lists only */
    const char *ask;    /* input whose answer is the value */
    const char *invert; /* input whose answer is the key; NULL: none */
} fact_kind;
extern const fact_kind fact_kinds[];
extern const int fact_kind_count;

/* One format rule.  In pre and post, % stands for the value drawn and ~ for the assistant's name. */
typedef enum style_case { CASE_KEEP, CASE_UPPER, CASE_LOWER } style_case;
typedef struct style {
    const char *sub, *value, *say;
    const char *pre, *post;
    style_case letters;
    bool brief;
    char fits;   /* two styles go together when the letters differ: a around, c case, b before, e end, x alone */
    bool speech; /* whole sentences (greeting, refusal) fit into it */
    int weight;
} style;
extern const style styles[];
extern const int style_count;

extern const char *const text_identity, *const text_hello, *const text_echo, *const text_refusal, *const text_greeting;
extern const char *const text_fillers[];
extern const int text_filler_count;

/* ---- prompts: gen_prompt.c ---- */

enum { PROMPT_MAX_PAIRS = 12, PROMPT_MAX_SEEN = 4 };

typedef struct pair {
    char input[TEXT_MAX], output[TEXT_MAX];
    const char *kind;                                            /* "fact", "format", "tool" */
    char sub[32];                                                /* "price", "price.inverse", "json", ... */
    char entity[TEXT_MAX], attribute[TEXT_MAX], value[TEXT_MAX]; /* what it rests on */
} pair;

typedef struct prompt {
    sbuf text;
    pair pair[PROMPT_MAX_PAIRS + PROMPT_MAX_SEEN];
    int pairs, seen; /* pair[0..pairs) are for training, pair[pairs..pairs+seen) for the seen split */
    int all;         /* pair[0..all) are sound; a split's files leave out those behind pairs + seen */
    char style[64];  /* the format rules' labels, "none" or "json" or "upper+stars" */
    double bits;
} prompt;
void prompt_init(prompt *p);
void prompt_free(prompt *p);
/* Prompt number `index` of (split, seed): depends on nothing else.  marked: leave NAME_MARK in. */
gist_status prompt_draw(prompt *p, const words *w, split s, uint64_t seed, uint64_t index, bool marked,
                        gist_error *err);

/* The same prompt with another value for one of its facts, and only those pairs whose answer that changes: was[i] is
 * what pair i's answer was.  No pairs: no fact could be changed alone. */
gist_status prompt_edit(prompt *p, char was[PROMPT_MAX_PAIRS][TEXT_MAX], const words *w, split s, uint64_t seed,
                        uint64_t index, gist_error *err);

/* ---- lists: gen_list.c ---- */

/* List number `index` of `seed`, in training's words; kind "list".  of_phrases: most are tables of phrases. */
gist_status list_draw(prompt *p, const words *w, bool of_phrases, uint64_t seed, uint64_t index, gist_error *err);

/* ---- vocabulary: gen_vocab.c ---- */

/* Train on `prompts` training prompts of `seed`; write tokenizer.json and tokenizer_config.json into dir. */
gist_status vocab_write(const words *w, const char *dir, int size, uint64_t seed, int prompts, gist_error *err);

/* ---- files of rows: gen_check.c ---- */

/* Print what a file holds; tokenizer may be NULL. */
gist_status rows_stats(const char *path, const char *tokenizer, gist_error *err);
/* Every row is sound: texts, lengths, labels; a prompt's rows stand together and are as many as the kind of file has;
 * and (not by hand) the answer follows from the prompt. */
typedef enum rows_kind { ROWS_DRAWN, ROWS_SEEN, ROWS_HAND } rows_kind;
gist_status rows_sound(const char *path, rows_kind kind, gist_error *err);
/* No name, entity, triple or prompt in common. */
gist_status rows_apart(const words *w, const char *a, const char *b, gist_error *err);
/* Every prompt of `seen` is one of `train`, and no (prompt, input) pair is in both. */
gist_status rows_seen(const char *train, const char *seen, gist_error *err);

#endif
