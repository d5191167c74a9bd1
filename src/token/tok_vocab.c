/* tok_vocab.c - ids <-> texts, and the tokens that are cut out of a text first.
 *
 *   text   "!\0" "\"\0" "#\0" ...            one pool, NUL after each piece
 *   piece  [n] {off, len, rank, type, ...}   by id; ids without a text have type NONE
 *   slot   [2^k] {tag, id + 1}               linear probing; the tag spares nearly all looks at the text
 *
 * Everything grows by doubling: a vocabulary of 128k pieces costs some twenty allocations.  Texts come from files, so
 * sizes are bounded (token_int.h) and the table's hash is XXH3.
 */
#define XXH_INLINE_ALL
#include <stdlib.h>
#include <xxhash.h>

#include "token/token_int.h"

static gist_status grow(const gist_allocator *a, void **p, size_t *cap, size_t need, size_t size, gist_error *err) {
    if (need <= *cap) return GIST_OK;
    size_t cap2 = *cap ? *cap * 2 : 64;
    if (cap2 < need) cap2 = need;
    void *p2 = mem_resize(a, *p, *cap, cap2, size);
    if (!p2) return err_memory(err, "vocabulary");
    *p = p2;
    *cap = cap2;
    return GIST_OK;
}

static void slot_put(vocab_slot *slot, size_t slots, uint64_t h, uint32_t id1) {
    size_t i = (size_t)h & (slots - 1);
    while (slot[i].id1) i = (i + 1) & (slots - 1);
    slot[i] = (vocab_slot){ (uint32_t)(h >> 32), id1 };
}

static gist_status slots_grow(tok_vocab *v, size_t need, gist_error *err) {
    size_t slots = v->slots ? v->slots : 64;
    while (slots < need * 2) slots *= 2;
    if (slots == v->slots) return GIST_OK;
    vocab_slot *slot = mem_calloc(v->alloc, slots, sizeof *slot);
    if (!slot) return err_memory(err, "vocabulary");
    size_t used = 0;
    for (size_t i = 0; i < v->n; i++) {
        const piece *p = &v->piece[i];
        if (p->type == PIECE_NONE) continue;
        slot_put(slot, slots, XXH3_64bits(v->text + p->off, p->len), (uint32_t)i + 1);
        used++;
    }
    mem_free(v->alloc, v->slot);
    v->slot = slot;
    v->slots = slots;
    v->used = used;
    return GIST_OK;
}

gist_status vocab_reserve(tok_vocab *v, size_t n, gist_error *err) {
    if (n > TOK_MAX_IDS) n = TOK_MAX_IDS; /* vocab_set refuses the rest */
    TRY(grow(v->alloc, (void **)&v->piece, &v->cap, v->n + n, sizeof *v->piece, err));
    TRY(grow(v->alloc, (void **)&v->text, &v->text_cap, v->text_len + n * 8, 1, err));
    return slots_grow(v, v->used + n, err);
}

gist_status vocab_keep(tok_vocab *v, const char *text, size_t len, uint32_t *off, gist_error *err) {
    if (v->text_len + len + 1 > UINT32_MAX) return err_set(err, GIST_ERR_LIMIT, "vocabulary texts exceed 4 GiB");
    TRY(grow(v->alloc, (void **)&v->text, &v->text_cap, v->text_len + len + 1, 1, err));
    *off = (uint32_t)v->text_len;
    memcpy(v->text + v->text_len, text, len);
    v->text[v->text_len + len] = 0;
    v->text_len += len + 1;
    return GIST_OK;
}

static gist_status piece_text(tok_vocab *v, int32_t id, const char *text, size_t len, gist_error *err) {
    TRY(slots_grow(v, v->used + 1, err));
    uint32_t off = 0;
    TRY(vocab_keep(v, text, len, &off, err));
    v->piece[id].off = off;
    v->piece[id].len = (uint32_t)len;
    if (len > v->max_len) v->max_len = (uint32_t)len;
    slot_put(v->slot, v->slots, XXH3_64bits(v->text + off, len), (uint32_t)id + 1);
    v->used++;
    return GIST_OK;
}

gist_status vocab_set(tok_vocab *v, int32_t id, const char *text, size_t len, piece_type type, const char *what,
                      gist_error *err) {
    int shown = len > 64 ? 64 : (int)len;
    if (id < 0 || id >= TOK_MAX_IDS)
        return err_set(err, GIST_ERR_LIMIT, "%s: id %d is not in [0, %d)", what, id, TOK_MAX_IDS);
    if (len == 0) return err_set(err, GIST_ERR_FORMAT, "%s: id %d has an empty text", what, id);
    if (len > TOK_MAX_PIECE)
        return err_set(err, GIST_ERR_LIMIT, "%s: id %d has a text of %zu bytes, at most %d are allowed", what, id, len,
                       TOK_MAX_PIECE);
    if ((size_t)id < v->n && v->piece[id].type != PIECE_NONE)
        return err_set(err, GIST_ERR_FORMAT, "%s: id %d is given to \"%.64s\" and to \"%.*s\"", what, id,
                       v->text + v->piece[id].off, shown, text);
    int32_t other = vocab_find(v, text, len);
    if (other >= 0)
        return err_set(err, GIST_ERR_FORMAT, "%s: \"%.*s\" has ids %d and %d", what, shown, text, other, id);
    if ((size_t)id >= v->n) {
        TRY(grow(v->alloc, (void **)&v->piece, &v->cap, (size_t)id + 1, sizeof *v->piece, err));
        memset(v->piece + v->n, 0, ((size_t)id + 1 - v->n) * sizeof *v->piece);
        v->n = (size_t)id + 1;
    }
    TRY(piece_text(v, id, text, len, err));
    v->piece[id].type = (uint8_t)type;
    return GIST_OK;
}

int32_t vocab_find(const tok_vocab *v, const char *text, size_t len) {
    if (len > v->max_len || !v->slots) return -1;
    uint64_t h = XXH3_64bits(text, len);
    uint32_t tag = (uint32_t)(h >> 32);
    for (size_t i = (size_t)h & (v->slots - 1); v->slot[i].id1; i = (i + 1) & (v->slots - 1)) {
        if (v->slot[i].tag != tag) continue;
        const piece *p = &v->piece[v->slot[i].id1 - 1];
        if (p->len == len && memcmp(v->text + p->off, text, len) == 0) return (int32_t)(v->slot[i].id1 - 1);
    }
    return -1;
}

int32_t vocab_find_normal(const tok_vocab *v, const char *text, size_t len) {
    int32_t id = vocab_find(v, text, len);
    return id >= 0 && v->piece[id].type == PIECE_NORMAL ? id : -1;
}

void vocab_free(tok_vocab *v) {
    mem_free(v->alloc, v->piece);
    mem_free(v->alloc, v->text);
    mem_free(v->alloc, v->slot);
}

/* ---- added tokens ---- */

gist_status tok_add(tokenizer *t, const char *text, size_t len, int32_t id, const added_token *flags, const char *what,
                    gist_error *err) {
    tok_vocab *v = &t->v;
    int shown = len > 64 ? 64 : (int)len;
    int32_t have = vocab_find(v, text, len);
    if (have < 0 && id < 0) return GIST_OK;
    if (have >= 0 && id >= 0 && have != id)
        return err_set(err, GIST_ERR_FORMAT, "%s: \"%.*s\" is given id %d, the vocabulary has it as %d", what, shown,
                       text, id, have);
    if (have < 0 && (size_t)id < v->n && v->piece[id].type != PIECE_NONE) {
        if (!v->piece[id].special || v->piece[id].type == PIECE_UNKNOWN || len == 0 || len > TOK_MAX_PIECE)
            return err_set(err, GIST_ERR_FORMAT, "%s: \"%.*s\" is given id %d, which is \"%.64s\"", what, shown, text,
                           id, v->text + v->piece[id].off);
        TRY(piece_text(v, id, text, len, err)); /* a reserved token gets its name; the old slot matches no text now */
    } else if (have < 0) {
        TRY(vocab_set(v, id, text, len, PIECE_ADDED, what, err));
    } else {
        id = have;
    }
    piece *p = &v->piece[id];
    added_token a = *flags;
    a.id = id;
    a.off = p->off;
    a.len = p->len;
    if (p->added) {
        t->added.a[p->added - 1] = a;
    } else {
        TRY(matcher_add(&t->added, t->alloc, &a, err));
        p->added = (uint32_t)t->added.n;
    }
    p->special = a.special || p->type == PIECE_CONTROL || p->type == PIECE_UNKNOWN;
    return GIST_OK;
}

gist_status matcher_add(matcher *m, const gist_allocator *alloc, const added_token *a, gist_error *err) {
    TRY(grow(alloc, (void **)&m->a, &m->cap, m->n + 1, sizeof *m->a, err));
    m->a[m->n++] = *a;
    return GIST_OK;
}

static int by_text(const void *a, const void *b, void *text) {
    const added_token *x = a, *y = b;
    const char *all = text;
    int c = memcmp(all + x->off, all + y->off, x->len < y->len ? x->len : y->len);
    return c ? c : (x->len > y->len) - (x->len < y->len);
}

/* Heap sort: qsort may allocate behind our back, and qsort_r is not everywhere the same. */
void matcher_sort(matcher *m, const tok_vocab *v) {
    size_t n = m->n;
    for (size_t start = n / 2, end = n; end > 1;) {
        if (start > 0) {
            start--;
        } else {
            end--;
            added_token x = m->a[0];
            m->a[0] = m->a[end];
            m->a[end] = x;
        }
        size_t i = start;
        for (size_t c; (c = 2 * i + 1) < end; i = c) {
            if (c + 1 < end && by_text(&m->a[c], &m->a[c + 1], v->text) < 0) c++;
            if (by_text(&m->a[i], &m->a[c], v->text) >= 0) break;
            added_token x = m->a[i];
            m->a[i] = m->a[c];
            m->a[c] = x;
        }
    }
    memset(m->first, 0, sizeof m->first);
    for (size_t i = 0; i < n; i++) {
        uint8_t b = (uint8_t)v->text[m->a[i].off];
        m->first[b >> 6] |= (uint64_t)1 << (b & 63);
    }
}

/* First index in [lo,hi) whose byte at `depth` is at least c; all of them are longer than depth. */
static size_t lower(const matcher *m, const tok_vocab *v, size_t lo, size_t hi, size_t depth, int c) {
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if ((uint8_t)v->text[m->a[mid].off + depth] < c)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

const added_token *matcher_longest(const matcher *m, const tok_vocab *v, const char *s, size_t len,
                                   size_t special_len) {
    const added_token *best = NULL;
    if (len == 0 || !(m->first[(uint8_t)s[0] >> 6] >> (s[0] & 63) & 1)) return NULL;
    size_t lo = 0, hi = m->n;
    for (size_t depth = 0; depth < len && lo < hi; depth++) {
        lo = lower(m, v, lo, hi, depth, (uint8_t)s[depth]);
        hi = lower(m, v, lo, hi, depth, (uint8_t)s[depth] + 1);
        if (lo < hi && m->a[lo].len == depth + 1) {
            if (!m->a[lo].special || depth < special_len) best = &m->a[lo];
            lo++;
        }
    }
    return best;
}
