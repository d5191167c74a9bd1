/* eval.h - how good answers are: greedy answers of a model to the pairs of a set, and scores of their texts.
 *
 *   prompt --compress | feed, once--> what a view sees --each pair's input--> answer --score--> mean per view
 */
#ifndef GIST_EVAL_H
#define GIST_EVAL_H

#include "engine/engine.h"
#include "train/train.h"

/* ---- scores: eval_scores.c ---- */

typedef struct eval_text {
    const char *p;
    size_t len;
} eval_text;

/* One answer against its reference, in percent; both come without white space around them. */
typedef gist_status (*eval_score_fn)(double *percent, eval_text answer, eval_text reference,
                                     const gist_allocator *alloc, gist_error *err);
typedef struct eval_score {
    const char *name;
    eval_score_fn of;
} eval_score;
enum { EVAL_SCORES = 1 };
extern const eval_score eval_scores[EVAL_SCORES]; /* "exact": 100 where the texts are equal, else 0 */


/* ---- answers: eval_answers.c ---- */

typedef struct eval_answers_options {
    int pairs;      /* how many of the set's first; the last one's prompt is finished, none is taken in parts */
    int max_tokens; /* of an answer */
    int max_length; /* of prompt, gists, input and answer together; what the set was read with */
    void *ctx;
    bool (*stop)(void *ctx, int done, int all); /* asked before each answer; NULL: never */
    int max_answer; /* the set's, too (train_data_options); 0: what max_length leaves */
} eval_answers_options;

/* Answer pairs of a split under each view of `pack` and append the scores' means at metrics[*n], at most cap in all,
 * named "SPLIT/SCORE.VIEW" ("dev/exact.gist.k4").  A prompt is compressed once for each k, or fed once, whatever the
 * number of its pairs.  The same model, set and kernel level give the same numbers.  Stopped: nothing is appended. */
gist_status eval_answers(gist_engine *e, const train_split *split, const train_pack_options *pack,
                         const eval_answers_options *opt, train_metric *metrics, int cap, int *n, gist_error *err);

/* ---- ROUGE of one text against its reference: eval_rouge.c, eval_stem.c, eval_lcs.c ---- */

enum { EVAL_ROUGE_1, EVAL_ROUGE_2, EVAL_ROUGE_L, EVAL_ROUGE_LSUM, EVAL_ROUGES };
enum {
    EVAL_MAX_TEXT = 1 << 20,   /* bytes of one text */
    EVAL_MAX_LINES = 100000000 /* pairs of lines that hold words, one of each text */
};

typedef struct eval_rouge_scores {
    double f1[EVAL_ROUGES];  /* 0 .. 1; 0 where a text is empty */
    int predicted, expected; /* words of prediction and reference */
} eval_rouge_scores;

typedef struct eval_rouge eval_rouge; /* scratch of one thread; grows to the longest pair */
gist_status eval_rouge_create(const gist_allocator *alloc, eval_rouge **out, gist_error *err);
void eval_rouge_free(eval_rouge *r);
/* UTF-8; lines end with \n.  GIST_ERR_LIMIT beyond EVAL_MAX_TEXT or EVAL_MAX_LINES. */
gist_status eval_rouge_score(eval_rouge *r, eval_text prediction, eval_text reference, eval_rouge_scores *out,
                             gist_error *err);

/* Stem p[0..len) in place, lower-case letters and digits; the new length, never more than len. */
size_t eval_stem(char *p, size_t len);

/* ---- files of predictions: eval_pairs.c ---- */

enum { EVAL_MAX_FILE = 1 << 30, EVAL_MAX_PAIRS = 10000000, EVAL_MAX_COLUMNS = 256 };

typedef struct eval_pair {
    eval_text prediction, reference; /* without white space around them; valid UTF-8 */
    int line;                        /* where its row begins, from 1 */
    eval_text asked;                 /* x, as it stands there; p NULL: no such column */
} eval_pair;

typedef struct eval_pairs {
    const gist_allocator *alloc;
    eval_pair *pair;
    int n, cap;
    char *text; /* owns every text */
} eval_pairs;

/* A CSV with columns y_pred and y_true, or prediction and reference, and maybe x, in any place (RFC 4180: quoted fields
 * may hold commas, line ends and doubled quotes; lines end with \n or \r\n; a byte-order mark and blank lines are
 * passed over), or JSON Lines with these keys, when the first character is "{".  At least one pair.  Errors are
 * "what:LINE: ...". */
gist_status eval_pairs_parse(eval_pairs *p, const gist_allocator *alloc, const char *text, size_t len, const char *what,
                             gist_error *err);
gist_status eval_pairs_open(eval_pairs *p, const gist_allocator *alloc, const char *path, gist_error *err);
void eval_pairs_free(eval_pairs *p);

/* Without what Python's str.strip() takes away: white space of Unicode, and U+001C to U+001F. */
eval_text eval_strip(const char *p, size_t len);

/* ---- scores of many pairs: eval_summary.c ---- */

enum { EVAL_EXACT = EVAL_ROUGES, EVAL_METRICS };
extern const char *const eval_metric_names[EVAL_METRICS]; /* "rouge1" ... "exact" */

typedef struct eval_row {
    double score[EVAL_METRICS]; /* 0 .. 1 */
    int predicted, expected;    /* words */
} eval_row;

/* rows[n], one per pair.  The same for any number of threads.  Errors begin with "line N: ". */
gist_status eval_score_pairs(const eval_pairs *pairs, pool *p, eval_row *rows, gist_error *err);

typedef struct eval_summary {
    double mean[EVAL_METRICS], low[EVAL_METRICS], high[EVAL_METRICS]; /* 0 .. 1; without resamples low = high = mean */
    double predicted, expected;                                       /* mean words */
} eval_summary;
/* Means, and the 2.5th and 97.5th percentile (linear between neighbours) of the means of `resamples` draws of n rows
 * with replacement; every metric sees the same draws.  Depends on rows and seed alone. */
gist_status eval_summarise(const eval_row *rows, int n, int resamples, uint64_t seed, pool *p,
                           const gist_allocator *alloc, eval_summary *out, gist_error *err);

/* ---- one answer against another, by a judge: eval_judgement.c ---- */

typedef enum eval_verdict { EVAL_FIRST, EVAL_SECOND, EVAL_TIE, EVAL_UNCLEAR } eval_verdict;
/* The request to a chat endpoint, {"model": ..., "messages": [...], ...}: which answer of two is better?  NULL: out of
 * memory. */
json_t *eval_judge_request(const char *model, eval_text asked, eval_text expected, eval_text first, eval_text second);
/* What the judge's reply ends with: the last of [[1]], [[2]], [[tie]]. */
eval_verdict eval_judge_verdict(eval_text reply);
/* The reply in a chat endpoint's response, borrowed; NULL: there is none. */
const json_t *eval_judge_reply(const json_t *response);
/* Two files of predictions for the same rows: as many, each with the same x and the same reference, else
 * GIST_ERR_MISMATCH, "b:LINE: ...". */
gist_status eval_judge_match(const eval_pairs *a, const char *a_name, const eval_pairs *b, const char *b_name,
                             gist_error *err);

/* ---- the TF-IDF baseline: eval_tfidf.c ---- */

typedef struct eval_tfidf eval_tfidf; /* in how many documents each word stands */
gist_status eval_tfidf_create(const gist_allocator *alloc, eval_tfidf **out, gist_error *err);
void eval_tfidf_free(eval_tfidf *t);
gist_status eval_tfidf_add(eval_tfidf *t, eval_text document, gist_error *err);
/* Tells sequences of documents apart. */
hash128 eval_tfidf_print(const eval_tfidf *t);
/* ln((1+N)/(1+df)) + 1 of a word, in any case. */
double eval_tfidf_idf(const eval_tfidf *t, eval_text word);
/* Append the `words` different words of text with the highest tf x idf (ties: the first), each as it first stands
 * there, in the text's order with a space between them.  A text without words is kept as it is. */
gist_status eval_tfidf_keep(const eval_tfidf *t, eval_text text, int words, sbuf *out, gist_error *err);
/* The same, best first, of all words that still fit when those kept may take `tokens` tokens together; the best one is
 * kept even where it takes more. */
gist_status eval_tfidf_keep_tokens(const eval_tfidf *t, eval_text text, const tokenizer *tok, int tokens, sbuf *out,
                                   gist_error *err);

/* ---- splits of rows to be answered: eval_split.c ---- */

typedef struct eval_example {
    eval_text instruction, input, reference; /* reference: the output, cut where max_length cuts it */
    const json_t *row;                       /* with every other key it has */
    int line;                                /* of the file (.jsonl) or element of its array, from 1 */
    int prompt;                              /* which of the split's different instructions */
    int prompt_tokens, input_tokens; /* input: with the history */
    int turn;                        /* of a conversation, how many exchanges stand before it */
    size_t history;                  /* where their ids begin in eval_split.history */
    int history_tokens;
} eval_example;
/* Exchange i of sound messages. */
void eval_turn(const json_t *messages, int i, eval_text *input, eval_text *answer);

typedef struct eval_split {
    const gist_allocator *alloc;
    const char *name, *path; /* the caller's */
    eval_example *example;   /* [n] in the file's order */
    int *order;              /* [n] examples, those of a prompt side by side */
    int n, prompts;
    int label_length;              /* where references are cut; 0: at fit's max_length; the caller's, before fit */
    int read, empty, law, no_room; /* rows; left out: no instruction or output; tokenization law; max_length */
    json_t *rows;                  /* owns the texts */
    sbuf cut;                      /* owns the references that were cut */
    tok_ids history;               /* of conversations, of all examples */
} eval_split;

/* Read at most `limit` (0: all) rows {instruction, input, output} or {messages} of a .json array or .jsonl file.
 * Errors are "path:LINE: ...".  Nothing is tokenized yet. */
gist_status eval_split_open(eval_split *s, const char *name, const char *path, int limit, const gist_allocator *alloc,
                            gist_error *err);
/* The same of a file's bytes; path is for messages. */
gist_status eval_split_parse(eval_split *s, const char *name, const char *path, const char *bytes, size_t len,
                             int limit, const gist_allocator *alloc, gist_error *err);
/* Count tokens, cut references at max_length (label_length) - prompt - gists - input, leave out what training leaves
 * out. */
gist_status eval_split_fit(eval_split *s, const tokenizer *t, const tok_template *tp, int gists, int max_length,
                           gist_error *err);
void eval_split_close(eval_split *s);

/* ---- work that can be gone on with: eval_journal.c ---- */

typedef struct eval_journal eval_journal;
/* Open or begin the file at `path`; a last line without its end is cut off.  One process at a time. */
gist_status eval_journal_open(const char *path, const gist_allocator *alloc, eval_journal **out, gist_error *err);
void eval_journal_close(eval_journal *j);
int eval_journal_count(const eval_journal *j);
/* The entry of a key, borrowed; NULL: there is none. */
const json_t *eval_journal_find(const eval_journal *j, hash128 key);
/* Takes `entry`, an object (NULL: out of memory), over and writes it. */
gist_status eval_journal_add(eval_journal *j, hash128 key, json_t *entry, gist_error *err);

/* other[s->prompts]: for each prompt an example of another one, drawn by seed: a random cycle through all prompts,
 * passing over those beside which an input of the prompt has no room (max_length, gists).  Two prompts are needed. */
gist_status eval_other_prompts(const eval_split *s, int gists, int max_length, uint64_t seed, int *other,
                               gist_error *err);

/* ---- answers in batches: eval_run.c ---- */

typedef struct eval_view {
    train_condition c; /* what an input sees, and where it begins: eval_answers.c */
    int k;             /* gist tokens; of gist, pos_control, neg_control */
    int words;         /* > 0: the prompt is replaced by this many of its words of highest TF-IDF */
    int budget;        /* > 0: by those of its words of highest TF-IDF that so many tokens hold */
    bool other;        /* gist: of another prompt */
    char name[48];     /* "gist.k4", "full", "tfidf", "other_gist.k4" */
} eval_view;

typedef struct eval_run_options {
    int gists;      /* K, the largest k of all views: every view has the same room for an answer */
    int max_length; /* prompt + K + input + answer */
    int max_tokens; /* of an answer; 0: what max_length leaves */
    int batch;
    gist_type kv;            /* of keys and values, and of gists; AUTO: bf16 */
    bool live;               /* gist: prompt and gist tokens under the mask instead of a compressed prompt */
    const eval_tfidf *tfidf; /* for words > 0 and budget > 0 */
    eval_journal *journal;   /* answers that stand there are taken, others put there (not of `live`); NULL: none */
    uint64_t seed;           /* which prompt's gist another one gets */
    void *ctx;
    bool (*stop)(void *ctx, int done, int all); /* asked after each batch; NULL: never */
} eval_run_options;

typedef struct eval_given {
    char *text; /* NULL: not answered */
    size_t len;
    int tokens;
    const char *finish;
} eval_given;

/* Greedy answers given[s->n] (zeroed by the caller, released with eval_given_free).  A prompt of a batch is compressed,
 * or fed, once.  Each answer is gist_generate's, bit for bit.  Errors are "path:LINE: ..."; stopped: CANCELLED. */
gist_status eval_run(gist_engine *e, const eval_split *s, const eval_view *v, const eval_run_options *o,
                     eval_given *given, gist_error *err);
void eval_given_free(eval_given *given, int n, const gist_allocator *alloc);

/* ---- scores side by side: eval_compare.c ---- */

enum { EVAL_BY_ROUGE_L, EVAL_BY_EXACT, EVAL_BYS };

typedef struct eval_column {
    const eval_row *rows; /* [n] */
    const uint8_t *in;    /* [n] 0: this row does not count; NULL: all do */
    int lower;            /* the column of no prompt; -1: no retention */
    int upper[2];         /* of the whole prompt: the one with the better mean serves; -1: none */
} eval_column;

typedef struct eval_figure {
    double mean, low, high; /* NaN: there is none */
} eval_figure;
typedef struct eval_cell {
    eval_figure score[EVAL_BYS];     /* 0 .. 1 */
    eval_figure retention[EVAL_BYS]; /* (score - lower) / (upper - lower), over the prompts that this column has */
    int n, prompts;
} eval_cell;

/* Means and 95 % bootstrap intervals over prompts: a resample draws prompts with replacement, the same for every
 * column, and all examples of a prompt come with it.  prompt[n] in [0,prompts). */
gist_status eval_compare(const eval_column *column, int columns, const int *prompt, int n, int prompts, int resamples,
                         uint64_t seed, const gist_allocator *alloc, eval_cell *cells, gist_error *err);
/* The largest of k[0..count) with tokens / k >= factor; 0: none. */
int eval_largest_k(const int *k, int count, int tokens, int factor);
/* One field of a CSV row, quoted where it must be. */
void eval_csv_field(sbuf *out, eval_text text);

/* ---- retention against compression: eval_curve.c ---- */

enum { EVAL_BINS = 32 };
/* Answers of the gists of one k; rows[n] each, NULL: there are none. */
typedef struct eval_curve_part {
    int k;
    const eval_row *rows, *lower, *upper[2];
} eval_curve_part;
typedef struct eval_bin {
    double from, to; /* prompt tokens / k in [from,to), half an octave */
    double factor;   /* mean of the examples in it */
    eval_cell cell;  /* of all examples and k that fall into it */
} eval_bin;
/* Bins that hold something, in order, at most EVAL_BINS; *bins: how many.  prompt, tokens: of each example. */
gist_status eval_curve(const eval_curve_part *part, int parts, const int *tokens, const int *prompt, int n, int prompts,
                       int resamples, uint64_t seed, const gist_allocator *alloc, eval_bin *bin, int *bins,
                       gist_error *err);

/* ---- floating-point operations of a pass: flops_llama.c, flops_t5.c ---- */

/* As the PyTorch profiler counts the usual implementation: products 2 MNK, dense scores and every row's logits
 * included; pointwise: one per element of each product and sum of tensors. */
typedef struct eval_flops {
    double products, pointwise;
} eval_flops;
/* `rows` tokens behind `cached` rows of a KV cache. */
eval_flops eval_flops_llama(const llama_config *c, int rows, int cached);
/* What this library computes of it: products with the keys that rows see; logits of the last row, which alone goes
 * through all of the last block. */
double eval_flops_done(const llama_config *c, int rows, int cached);

/* An encoder-decoder of T5's kind. */
typedef struct eval_t5_shape {
    int layers, decoder_layers, C, F, H, D, V;
    bool gated; /* feed-forward with a gate (v1.1, FLAN) */
} eval_t5_shape;
/* FLAN-T5-XXL with the 32101 rows of the paper's checkpoints. */
eval_t5_shape eval_t5_xxl(void);
/* From a parsed config.json; sizes out of bounds and other models are refused by name. */
gist_status eval_t5_parse(eval_t5_shape *out, const json_t *json, const char *what, gist_error *err);
/* `rows` source tokens encoded behind `cached` gist rows, and one decoded token that sees all of them. */
eval_flops eval_flops_t5(const eval_t5_shape *c, int rows, int cached);

/* ---- savings of one way over another: eval_saving.c ---- */

typedef struct eval_saving {
    double mean, low, high; /* 1 - sum b / sum a; a share of a */
} eval_saving;
/* Of paired values a[n] > 0 and b[n], with the 2.5th and 97.5th percentile of `resamples` draws of n pairs with
 * replacement (n = 1 or none: low = high = mean).  Depends on the values and the seed alone. */
gist_status eval_saving_of(const double *a, const double *b, int n, int resamples, uint64_t seed,
                           const gist_allocator *alloc, eval_saving *out, gist_error *err);

#endif
