/* eval_rouge.c - ROUGE-1, ROUGE-2, ROUGE-L and ROUGE-Lsum of one text against its reference.
 *
 *   text -> lower case -> runs of a-z 0-9 -> stems of those longer than 3 -> ids -> counts, subsequences -> F1
 *
 *   ROUGE-N     n-grams in common, each as often as in the text that has it less often
 *   ROUGE-L     longest common subsequence of all words
 *   ROUGE-Lsum  by lines: for each line of the reference the union of its longest common subsequences with all lines of
 *               the prediction; a word counts at most as often as the prediction has it
 *
 * Of hits, p = hits / words predicted and r = hits / words expected: F1 = 2 p r / (p + r), 0 without a hit.
 *
 * Source: C.-Y. Lin, "ROUGE: a package for automatic evaluation of summaries", 2004; numbers equal to those of the
 * PyPI package rouge_score 0.1.2 with use_stemmer=True (tools/make_rouge_fixtures.py).  Only two characters beyond
 * ASCII become a letter in Python's lower(): U+0130 gives i and a combining dot, U+212A gives k.
 */
#include "eval/eval_int.h"

typedef struct entry {
    const void *p; /* bytes of a word, or two ids */
    size_t len, hash;
} entry;

/* One of the two texts: ids of its words, of its pairs of neighbours, and where its lines end.  Lines without a word
 * are not counted. */
typedef struct side {
    int32_t *word, *pair;
    int *end;
    int words, lines;
} side;

struct eval_rouge {
    const gist_allocator *alloc;
    void *block;
    size_t tokens, bytes; /* room in the block */
    entry *entries;       /* [tokens] */
    uint32_t *slot;       /* [slots] index of an entry + 1; 0: free */
    size_t slots;
    int32_t count;  /* entries in use */
    int *counts;    /* [tokens] by id; zero between uses */
    uint64_t *mask; /* [tokens] by id; zero between uses */
    uint64_t *length_bits;
    uint8_t *mark; /* [tokens] */
    char *text;    /* [bytes] stems, one behind the other */
    uint64_t *bits;
    size_t bit_words;
    side side[2]; /* prediction, reference */
};

/* ---- memory ---- */

static size_t slots_for(size_t tokens) {
    size_t n = 16;
    while (n < 2 * tokens) n *= 2;
    return n;
}

static void lay_out(eval_rouge *r, arena *ar, size_t tokens, size_t bytes) {
    r->entries = arena_take(ar, tokens, sizeof *r->entries);
    r->slot = arena_take(ar, slots_for(tokens), sizeof *r->slot);
    r->counts = arena_take(ar, tokens, sizeof *r->counts);
    r->mask = arena_take(ar, tokens, sizeof *r->mask);
    r->length_bits = arena_take(ar, eval_lcs_length_words((int)tokens), sizeof *r->length_bits);
    r->mark = arena_take(ar, tokens, 1);
    r->text = arena_take(ar, bytes, 1);
    for (int i = 0; i < 2; i++) {
        r->side[i].word = arena_take(ar, tokens, sizeof *r->side[i].word);
        r->side[i].pair = arena_take(ar, tokens, sizeof *r->side[i].pair);
        r->side[i].end = arena_take(ar, tokens, sizeof *r->side[i].end);
    }
}

static gist_status reserve(eval_rouge *r, size_t tokens, size_t bytes, gist_error *err) {
    if (r->block && tokens <= r->tokens && bytes <= r->bytes) return GIST_OK;
    tokens += tokens / 2 + 64;
    bytes += bytes / 2 + 64;
    mem_free(r->alloc, r->block);
    arena ar;
    arena_init(&ar, NULL, 0);
    lay_out(r, &ar, tokens, bytes);
    r->block = mem_alloc(r->alloc, ar.peak, 1);
    if (!r->block) return err_memory(err, "words of a text");
    arena_init(&ar, r->block, ar.peak);
    lay_out(r, &ar, tokens, bytes);
    memset(r->counts, 0, tokens * sizeof *r->counts);
    memset(r->mask, 0, tokens * sizeof *r->mask);
    r->tokens = tokens;
    r->bytes = bytes;
    return GIST_OK;
}

static gist_status reserve_bits(eval_rouge *r, size_t words, gist_error *err) {
    if (words <= r->bit_words) return GIST_OK;
    mem_free(r->alloc, r->bits);
    r->bit_words = 0;
    r->bits = mem_alloc(r->alloc, words, sizeof *r->bits);
    if (!r->bits) return err_memory(err, "common subsequences");
    r->bit_words = words;
    return GIST_OK;
}

gist_status eval_rouge_create(const gist_allocator *alloc, eval_rouge **out, gist_error *err) {
    eval_rouge *r = mem_calloc(alloc, 1, sizeof *r);
    if (!r) return err_memory(err, "scores");
    r->alloc = alloc;
    *out = r;
    return GIST_OK;
}

void eval_rouge_free(eval_rouge *r) {
    if (!r) return;
    mem_free(r->alloc, r->block);
    mem_free(r->alloc, r->bits);
    mem_free(r->alloc, r);
}

/* ---- words into ids ---- */

static void forget_ids(eval_rouge *r, size_t tokens) {
    r->slots = slots_for(tokens);
    r->count = 0;
    memset(r->slot, 0, r->slots * sizeof *r->slot);
}

/* The number of p[0..len) among the different ones so far; p must stay where it is when it is new (*fresh). */
static int32_t id_of(eval_rouge *r, const void *p, size_t len, bool *fresh) {
    hash128 h = hash_bytes(p, len);
    size_t hash;
    memcpy(&hash, h.b, sizeof hash);
    size_t at = hash & (r->slots - 1);
    for (; r->slot[at]; at = (at + 1) & (r->slots - 1)) {
        const entry *e = &r->entries[r->slot[at] - 1];
        if (e->hash == hash && e->len == len && memcmp(e->p, p, len) == 0) {
            *fresh = false;
            return (int32_t)(r->slot[at] - 1);
        }
    }
    *fresh = true;
    r->entries[r->count] = (entry){ p, len, hash };
    r->slot[at] = (uint32_t)++r->count;
    return r->count - 1;
}

/* The letter or digit that begins at p after lower-casing, 0: none; *n: bytes it takes. */
static char letter_at(const char *p, size_t left, size_t *n) {
    char c = *p;
    *n = 1;
    if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')) return c;
    if (c >= 'A' && c <= 'Z') return (char)(c - 'A' + 'a');
    if (left >= 3 && memcmp(p, "\xE2\x84\xAA", 3) == 0) { /* U+212A, the Kelvin sign */
        *n = 3;
        return 'k';
    }
    return 0;
}

static void end_line(side *s) {
    if (s->words > (s->lines ? s->end[s->lines - 1] : 0)) s->end[s->lines++] = s->words;
}

/* Read t's words; stems are added at `text`.  Returns the end of the stems. */
static char *read_words(eval_rouge *r, side *s, eval_text t, char *text) {
    s->words = s->lines = 0;
    for (size_t i = 0, n; i < t.len; i += n) {
        char *word = text;
        char c;
        for (; i < t.len && (c = letter_at(t.p + i, t.len - i, &n)) != 0; i += n) *text++ = c;
        n = 1;
        if (t.len - i >= 2 && t.p[i] == '\xC4' && t.p[i + 1] == '\xB0') { /* U+0130: i, and a dot that ends the word */
            *text++ = 'i';
            n = 2;
        }
        size_t len = (size_t)(text - word);
        if (len > 3) len = eval_stem(word, len);
        text = word;
        if (len > 0) {
            bool fresh;
            s->word[s->words++] = id_of(r, word, len, &fresh);
            if (fresh) text += len;
        }
        if (i < t.len && t.p[i] == '\n') end_line(s);
    }
    end_line(s);
    return text;
}

/* Pairs of neighbours get ids of their own: a pair is the bytes of two ids side by side. */
static void read_pairs(eval_rouge *r, side *s) {
    bool fresh;
    for (int i = 0; i + 1 < s->words; i++) s->pair[i] = id_of(r, &s->word[i], 2 * sizeof *s->word, &fresh);
}

/* ---- scores ---- */

static double f1(int hits, int predicted, int expected) {
    if (hits == 0) return 0;
    double p = (double)hits / predicted, r = (double)hits / expected;
    return 2 * p * r / (p + r);
}

/* How many ids a and b have in common, each as often as both have it. */
static int overlap(int *counts, const int32_t *a, int n, const int32_t *b, int m) {
    int hits = 0;
    for (int i = 0; i < n; i++) counts[a[i]]++;
    for (int i = 0; i < m; i++)
        if (counts[b[i]] > 0) {
            counts[b[i]]--;
            hits++;
        }
    for (int i = 0; i < n; i++) counts[a[i]] = 0;
    return hits;
}

static int longest_line(const side *s) {
    int most = 0;
    for (int i = 0; i < s->lines; i++) {
        int len = s->end[i] - (i ? s->end[i - 1] : 0);
        most = len > most ? len : most;
    }
    return most;
}

/* mark: the words of reference line [from,to) that are in the union of its subsequences */
static void mark_union(eval_rouge *r, const side *predicted, const side *expected, int from, int to) {
    for (int i = 0, begin = 0; i < predicted->lines; begin = predicted->end[i++])
        eval_lcs_mark(r->mask, r->bits, expected->word + from, to - from, predicted->word + begin,
                      predicted->end[i] - begin, r->mark + from);
}

static gist_status hits_by_lines(eval_rouge *r, const side *predicted, const side *expected, int *hits,
                                 gist_error *err) {
    if ((int64_t)predicted->lines * expected->lines > EVAL_MAX_LINES)
        return err_set(err, GIST_ERR_LIMIT, "%d lines against %d; at most %d pairs of lines are compared",
                       predicted->lines, expected->lines, EVAL_MAX_LINES);
    TRY(reserve_bits(r, eval_lcs_mark_words(longest_line(expected), longest_line(predicted)), err));
    memset(r->mark, 0, (size_t)expected->words);
    for (int i = 0, begin = 0; i < expected->lines; begin = expected->end[i++])
        mark_union(r, predicted, expected, begin, expected->end[i]);
    for (int i = 0; i < predicted->words; i++) r->counts[predicted->word[i]]++;
    *hits = 0;
    for (int i = 0; i < expected->words; i++)
        if (r->mark[i] && r->counts[expected->word[i]] > 0) {
            r->counts[expected->word[i]]--;
            ++*hits;
        }
    for (int i = 0; i < predicted->words; i++) r->counts[predicted->word[i]] = 0;
    return GIST_OK;
}

/* n words have n - 1 pairs of neighbours; without words that is -1, and no hit. */
gist_status eval_rouge_score(eval_rouge *r, eval_text prediction, eval_text reference, eval_rouge_scores *out,
                             gist_error *err) {
    side *p = &r->side[0], *e = &r->side[1];
    if (prediction.len > EVAL_MAX_TEXT || reference.len > EVAL_MAX_TEXT)
        return err_set(err, GIST_ERR_LIMIT, "a text of %zu bytes, at most %d are scored",
                       prediction.len > reference.len ? prediction.len : reference.len, EVAL_MAX_TEXT);
    size_t tokens = prediction.len / 2 + reference.len / 2 + 2;
    TRY(reserve(r, tokens, prediction.len + reference.len, err));
    forget_ids(r, tokens);
    read_words(r, e, reference, read_words(r, p, prediction, r->text));
    int common = overlap(r->counts, p->word, p->words, e->word, e->words);
    int longest = eval_lcs_length(r->mask, r->length_bits, e->word, e->words, p->word, p->words), by_lines = longest;
    if (p->lines > 1 || e->lines > 1) TRY(hits_by_lines(r, p, e, &by_lines, err));
    forget_ids(r, tokens);
    read_pairs(r, p);
    read_pairs(r, e);
    int pairs = overlap(r->counts, p->pair, p->words - 1, e->pair, e->words - 1);
    *out = (eval_rouge_scores){
        .f1 = { [EVAL_ROUGE_1] = f1(common, p->words, e->words),
                [EVAL_ROUGE_2] = f1(pairs, p->words - 1, e->words - 1),
                [EVAL_ROUGE_L] = f1(longest, p->words, e->words),
                [EVAL_ROUGE_LSUM] = f1(by_lines, p->words, e->words) },
        .predicted = p->words,
        .expected = e->words,
    };
    return GIST_OK;
}
