/* eval_tfidf.c - the TF-IDF baseline: a prompt replaced by its words of highest term frequency x inverse document
 * frequency.
 *
 *     words      lower-cased runs of letters and digits (Unicode categories L and N)
 *     idf(w)     ln((1 + N) / (1 + df(w))) + 1, N documents, df(w) of them have w
 *     score(w)   (times w stands in the prompt) x idf(w); ties go to the word that comes first
 *
 * A word is known by the 128-bit hash of its lower-cased text.  Source: gisting's baseline (Mu et al. 2023, section 4),
 * whose weighting the paper leaves open.
 */
#include <math.h>
#include <utf8proc.h>

#include "eval/eval.h"

typedef struct entry {
    hash128 word;
    int df;   /* 0: free */
    int last; /* document that was counted last, from 1 */
} entry;

struct eval_tfidf {
    const gist_allocator *alloc;
    entry *entry; /* open addressing */
    size_t slots, used;
    int documents;
    hash128 print[2]; /* of the documents before the last one, of the last one */
    sbuf word; /* scratch of eval_tfidf_add */
};

typedef struct found {
    hash128 word;
    size_t at, len; /* where it first stands */
    int tf;
    double score;
    bool kept, tried;
} found;

/* ---- words ---- */

static bool in_word(uint32_t c) {
    utf8proc_category_t g = utf8proc_category((utf8proc_int32_t)c);
    return (g >= UTF8PROC_CATEGORY_LU && g <= UTF8PROC_CATEGORY_LO) ||
           (g >= UTF8PROC_CATEGORY_ND && g <= UTF8PROC_CATEGORY_NO);
}

/* The next word at or behind *at: text.p[begin .. *at), its lower-cased form hashed.  False: there is none. */
static bool next_word(eval_text text, size_t *at, size_t *begin, sbuf *lower, hash128 *word) {
    bool inside = false;
    lower->len = 0;
    while (*at < text.len) {
        uint32_t c;
        char bytes[4];
        int n = utf8_decode(text.p + *at, text.len - *at, &c);
        bool letter = n > 0 && in_word(c);
        if (inside && !letter) break;
        if (letter && !inside) *begin = *at;
        inside = inside || letter;
        if (letter) sbuf_add(lower, bytes, (size_t)utf8_encode((uint32_t)utf8proc_tolower((utf8proc_int32_t)c), bytes));
        *at += n > 0 ? (size_t)n : 1;
    }
    if (inside && !lower->failed) *word = hash_bytes(lower->p, lower->len);
    return inside && !lower->failed;
}

static entry *slot_of(const eval_tfidf *t, hash128 word) {
    uint64_t h;
    memcpy(&h, word.b, sizeof h);
    size_t at = (size_t)h & (t->slots - 1);
    while (t->entry[at].df && memcmp(t->entry[at].word.b, word.b, sizeof word.b) != 0) at = (at + 1) & (t->slots - 1);
    return &t->entry[at];
}

/* ---- documents ---- */

gist_status eval_tfidf_create(const gist_allocator *alloc, eval_tfidf **out, gist_error *err) {
    enum { FIRST = 1024 };
    eval_tfidf *t = mem_calloc(alloc, 1, sizeof *t);
    if (!t) return err_memory(err, "document frequencies");
    t->alloc = alloc;
    t->slots = FIRST;
    t->entry = mem_calloc(alloc, t->slots, sizeof *t->entry);
    sbuf_init(&t->word, alloc);
    if (!t->entry) {
        mem_free(alloc, t);
        return err_memory(err, "document frequencies");
    }
    *out = t;
    return GIST_OK;
}

void eval_tfidf_free(eval_tfidf *t) {
    if (!t) return;
    sbuf_free(&t->word);
    mem_free(t->alloc, t->entry);
    mem_free(t->alloc, t);
}

static gist_status grow(eval_tfidf *t, gist_error *err) {
    if (t->used * 2 < t->slots) return GIST_OK;
    eval_tfidf more = *t;
    more.slots = t->slots * 2;
    more.entry = mem_calloc(t->alloc, more.slots, sizeof *more.entry);
    if (!more.entry) return err_memory(err, "document frequencies");
    for (size_t i = 0; i < t->slots; i++)
        if (t->entry[i].df) *slot_of(&more, t->entry[i].word) = t->entry[i];
    mem_free(t->alloc, t->entry);
    *t = more;
    return GIST_OK;
}

gist_status eval_tfidf_add(eval_tfidf *t, eval_text document, gist_error *err) {
    hash128 word;
    size_t begin;
    int number = ++t->documents;
    t->print[0] = hash_bytes(t->print, sizeof t->print);
    t->print[1] = hash_bytes(document.p, document.len);
    for (size_t at = 0; next_word(document, &at, &begin, &t->word, &word);) {
        TRY(grow(t, err));
        entry *e = slot_of(t, word);
        if (e->last == number) continue;
        t->used += e->df == 0;
        *e = (entry){ word, e->df + 1, number };
    }
    return t->word.failed ? err_memory(err, "document frequencies") : GIST_OK;
}

hash128 eval_tfidf_print(const eval_tfidf *t) {
    return hash_bytes(t->print, sizeof t->print);
}

static double idf(const eval_tfidf *t, hash128 word) {
    return log((1.0 + t->documents) / (1.0 + slot_of(t, word)->df)) + 1;
}

double eval_tfidf_idf(const eval_tfidf *t, eval_text word) {
    hash128 h;
    size_t at = 0, begin;
    sbuf lower;
    sbuf_init(&lower, t->alloc);
    double got = next_word(word, &at, &begin, &lower, &h) ? idf(t, h) : 0;
    sbuf_free(&lower);
    return got;
}

/* ---- a prompt's words ---- */

/* Different words of text in order of first appearance; *list is the caller's to free, of `cap` elements. */
static gist_status find_words(const eval_tfidf *t, eval_text text, found **list, int *n, gist_error *err) {
    size_t cap = 0, at = 0, begin;
    hash128 word;
    sbuf lower;
    sbuf_init(&lower, t->alloc);
    gist_status status = GIST_OK;
    while (status == GIST_OK && next_word(text, &at, &begin, &lower, &word)) {
        int i = 0;
        while (i < *n && memcmp((*list)[i].word.b, word.b, sizeof word.b) != 0) i++;
        if ((size_t)i == cap) {
            size_t more = cap ? cap * 2 : 64;
            found *grown = mem_resize(t->alloc, *list, cap, more, sizeof *grown);
            if (!grown) {
                status = err_memory(err, "words");
                break;
            }
            *list = grown;
            cap = more;
        }
        if (i == *n) (*list)[(*n)++] = (found){ .word = word, .at = begin, .len = at - begin };
        (*list)[i].tf++;
    }
    if (status == GIST_OK && lower.failed) status = err_memory(err, "words");
    sbuf_free(&lower);
    return status;
}

/* The next word to keep, best first; -1: all have been tried. */
static int next_best(found *list, int n) {
    int best = -1;
    for (int i = 0; i < n; i++)
        if (!list[i].tried && (best < 0 || list[i].score > list[best].score)) best = i;
    if (best >= 0) list[best].tried = true;
    return best;
}

static void write_kept(const found *list, int n, eval_text text, sbuf *out) {
    bool first = true;
    for (int i = 0; i < n; i++) {
        if (!list[i].kept) continue;
        if (!first) sbuf_str(out, " ");
        sbuf_add(out, text.p + list[i].at, list[i].len);
        first = false;
    }
    if (n == 0) sbuf_add(out, text.p, text.len);
}

/* Tokens that kept words take behind another word, as in a template's sentence. */
static gist_status count_tokens(const tokenizer *t, const sbuf *kept, size_t from, tok_ids *ids, int *n,
                                gist_error *err) {
    sbuf s;
    sbuf_init(&s, kept->alloc);
    ids->n = 0;
    gist_status status = tok_encode(t, "a", 1, 0, ids, err);
    int before = (int)ids->n;
    ids->n = 0;
    sbuf_str(&s, "a ");
    sbuf_add(&s, kept->p + from, kept->len - from);
    if (s.failed) status = err_memory(err, "words");
    if (status == GIST_OK) status = tok_encode(t, s.p, s.len, 0, ids, err);
    sbuf_free(&s);
    *n = (int)ids->n - before;
    return status;
}

static void keep_words(found *list, int n, int words) {
    for (int i; words > 0 && (i = next_best(list, n)) >= 0; words--) list[i].kept = true;
}

static gist_status keep_tokens(found *list, int n, eval_text text, const tokenizer *t, int tokens, sbuf *scratch,
                               gist_error *err) {
    tok_ids ids;
    gist_status status = GIST_OK;
    tok_ids_init(&ids, scratch->alloc);
    size_t from = scratch->len;
    int used = 0, kept = 0;
    for (int i; status == GIST_OK && used < tokens && (i = next_best(list, n)) >= 0;) {
        int now;
        list[i].kept = true;
        scratch->len = from;
        write_kept(list, n, text, scratch);
        status = scratch->failed ? err_memory(err, "words") : count_tokens(t, scratch, from, &ids, &now, err);
        if (status != GIST_OK) break;
        list[i].kept = kept == 0 || now <= tokens;
        if (!list[i].kept) continue;
        kept++;
        used = now;
    }
    scratch->len = from;
    tok_ids_free(&ids);
    return status;
}

/* tok NULL: at most `most` words, else words of at most that many tokens. */
static gist_status keep(const eval_tfidf *t, eval_text text, const tokenizer *tok, int most, sbuf *out,
                        gist_error *err) {
    found *list = NULL;
    int n = 0;
    gist_status status = find_words(t, text, &list, &n, err);
    for (int i = 0; i < n; i++) list[i].score = list[i].tf * idf(t, list[i].word);
    if (!tok) keep_words(list, n, most);
    if (status == GIST_OK && tok) status = keep_tokens(list, n, text, tok, most, out, err);
    if (status == GIST_OK) {
        write_kept(list, n, text, out);
        if (out->failed) status = err_memory(err, "words");
    }
    mem_free(t->alloc, list);
    return status;
}

gist_status eval_tfidf_keep(const eval_tfidf *t, eval_text text, int words, sbuf *out, gist_error *err) {
    return keep(t, text, NULL, words, out, err);
}

gist_status eval_tfidf_keep_tokens(const eval_tfidf *t, eval_text text, const tokenizer *tok, int tokens, sbuf *out,
                                   gist_error *err) {
    return keep(t, text, tok, tokens, out, err);
}
