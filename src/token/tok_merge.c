/* tok_merge.c - the merge loop of every byte-pair encoding, in O(n log n).
 *
 *   word   h  u  g  s        symbols, doubly linked; a merge grows the left one and empties the right one
 *   heap   (rank, left) ...  every neighbouring pair that may merge; lowest rank first, then leftmost
 *
 * A candidate is stale when its two symbols are not as long together as when it was proposed: symbols only grow.
 * By pair (tokenizer.json, merges.txt) the rank is the line of (left, right); by piece (SentencePiece, tiktoken) it
 * is that of the text of both together.  Each merge takes one candidate and proposes at most two, so 2 n are room
 * enough.  What one file writes as ranks another writes as merges: merges_list turns one into the other.
 * Sources: Sennrich et al. 2016, arXiv:1508.07909; Kudo and Richardson 2018, arXiv:1808.06226.
 */
#include "token/token_int.h"

/* ---- the map ---- */

static size_t pair_hash(int32_t left, int32_t right) {
    uint64_t x = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    x *= 0x9E3779B97F4A7C15u;
    x ^= x >> 32;
    x *= 0xD6E8FEB86659FD93u;
    return (size_t)(x ^ x >> 29);
}

gist_status merges_reserve(merge_map *m, const gist_allocator *alloc, size_t n, gist_error *err) {
    size_t slots = 64;
    while (slots < n * 2) slots *= 2;
    merge_slot *slot = mem_alloc(alloc, slots, sizeof *slot);
    if (!slot) return err_memory(err, "merges");
    for (size_t i = 0; i < slots; i++) slot[i] = (merge_slot){ -1, -1, 0, 0 };
    *m = (merge_map){ slot, slots, 0 };
    return GIST_OK;
}

void merges_put(merge_map *m, merge_slot s) {
    size_t i = pair_hash(s.left, s.right) & (m->slots - 1);
    while (m->slot[i].left >= 0 && (m->slot[i].left != s.left || m->slot[i].right != s.right))
        i = (i + 1) & (m->slots - 1);
    m->used += m->slot[i].left < 0;
    m->slot[i] = s;
}

const merge_slot *merges_find(const merge_map *m, int32_t left, int32_t right) {
    if (m->used == 0) return NULL;
    for (size_t i = pair_hash(left, right) & (m->slots - 1); m->slot[i].left >= 0; i = (i + 1) & (m->slots - 1))
        if (m->slot[i].left == left && m->slot[i].right == right) return &m->slot[i];
    return NULL;
}

gist_status merges_put_pair(tokenizer *t, const char *a, size_t a_len, const char *b, size_t b_len, size_t rank,
                            const char *what, gist_error *err) {
    char both[2 * TOK_MAX_PIECE];
    merge_slot m = { vocab_find(&t->v, a, a_len), vocab_find(&t->v, b, b_len), (int32_t)rank, -1 };
    if (m.left >= 0 && m.right >= 0) { /* then each is at most TOK_MAX_PIECE long */
        memcpy(both, a, a_len);
        memcpy(both + a_len, b, b_len);
        m.id = vocab_find(&t->v, both, a_len + b_len);
    }
    if (m.id < 0)
        return err_set(err, GIST_ERR_FORMAT,
                       "%s: merge %zu, \"%.*s\" + \"%.*s\", is not of three pieces of the vocabulary", what, rank,
                       a_len > 64 ? 64 : (int)a_len, a, b_len > 64 ? 64 : (int)b_len, b);
    merges_put(&t->merges, m);
    return GIST_OK;
}

/* One space between two texts that have none. */
gist_status merges_put_line(tokenizer *t, const char *s, size_t len, size_t rank, const char *what, gist_error *err) {
    const char *space = memchr(s, ' ', len);
    if (!space || memchr(space + 1, ' ', len - (size_t)(space + 1 - s)))
        return err_set(err, GIST_ERR_FORMAT, "%s: merge %zu is \"%.*s\", not two texts with a space between", what,
                       rank, len > 64 ? 64 : (int)len, s);
    size_t a = (size_t)(space - s);
    return merges_put_pair(t, s, a, space + 1, len - a - 1, rank, what, err);
}

/* Those in the map.  A rank that a later line gave again stays free. */
static gist_status list_pairs(const tokenizer *t, merge_slot **list, size_t *n, gist_error *err) {
    const merge_map *m = &t->merges;
    size_t ranks = 0;
    for (size_t i = 0; i < m->slots; i++)
        if (m->slot[i].left >= 0 && (size_t)m->slot[i].rank >= ranks) ranks = (size_t)m->slot[i].rank + 1;
    merge_slot *all = mem_alloc(t->alloc, ranks, sizeof *all);
    if (!all) return err_memory(err, "merges");
    for (size_t i = 0; i < ranks; i++) all[i].left = -1;
    for (size_t i = 0; i < m->slots; i++)
        if (m->slot[i].left >= 0) all[m->slot[i].rank] = m->slot[i];
    *n = 0;
    for (size_t i = 0; i < ranks; i++)
        if (all[i].left >= 0) all[(*n)++] = all[i];
    *list = all;
    return GIST_OK;
}

/* The splits of piece `id` into two pieces, to `to` unless it is NULL; how many. */
static size_t splits(const tok_vocab *v, int32_t id, merge_slot *to) {
    const piece *p = &v->piece[id];
    const char *s = v->text + p->off;
    size_t n = 0;
    for (uint32_t k = 1; p->type == PIECE_NORMAL && k < p->len; k++) {
        int32_t left = vocab_find_normal(v, s, k), right = left < 0 ? -1 : vocab_find_normal(v, s + k, p->len - k);
        if (right < 0) continue;
        size_t i = n++;
        if (!to) continue;
        for (; i > 0 && to[i - 1].left > left; i--) to[i] = to[i - 1]; /* no two have the same left */
        to[i] = (merge_slot){ left, right, 0, id };
    }
    return n;
}

/* Ids of ordinary pieces in order of rank, equal ranks in order of id; -1 where there is none. */
static gist_status order_pieces(const tokenizer *t, int32_t **out, gist_error *err) {
    size_t n = t->v.n;
    int32_t *order = mem_alloc(t->alloc, n, sizeof *order);
    uint32_t *same = order ? mem_calloc(t->alloc, n, sizeof *same) : NULL; /* so many of that rank are placed */
    if (!same) {
        mem_free(t->alloc, order);
        return err_memory(err, "merges");
    }
    for (size_t i = 0; i < n; i++) order[i] = -1;
    for (size_t i = 0; i < n; i++) {
        const piece *p = &t->v.piece[i];
        if (p->type == PIECE_NORMAL) order[(uint32_t)p->rank + same[p->rank]++] = (int32_t)i;
    }
    mem_free(t->alloc, same);
    *out = order;
    return GIST_OK;
}

static gist_status list_splits(const tokenizer *t, merge_slot **list, size_t *n, gist_error *err) {
    size_t count = 0;
    int32_t *order;
    for (size_t i = 0; i < t->v.n; i++) count += splits(&t->v, (int32_t)i, NULL);
    if (count > TOK_MAX_MERGES)
        return err_set(err, GIST_ERR_LIMIT, "vocabulary: %zu merges, at most %d are allowed", count, TOK_MAX_MERGES);
    TRY(order_pieces(t, &order, err));
    merge_slot *all = mem_alloc(t->alloc, count, sizeof *all);
    *n = 0;
    for (size_t i = 0; all && i < t->v.n; i++)
        if (order[i] >= 0) *n += splits(&t->v, order[i], all + *n);
    mem_free(t->alloc, order);
    if (!all) return err_memory(err, "merges");
    *list = all;
    return GIST_OK;
}

gist_status merges_list(const tokenizer *t, merge_slot **list, size_t *n, gist_error *err) {
    return t->by_pair ? list_pairs(t, list, n, err) : list_splits(t, list, n, err);
}

/* ---- the loop ---- */

gist_status merge_push(merge_work *w, uint32_t start, uint32_t len, int32_t id, gist_error *err) {
    if (w->n == w->cap) {
        size_t cap = w->cap ? w->cap * 2 : 256;
        symbol *sym = mem_resize(w->alloc, w->sym, w->cap, cap, sizeof *sym);
        if (!sym) return err_memory(err, "tokenizing");
        w->sym = sym;
        w->cap = cap;
    }
    int32_t i = (int32_t)w->n++;
    w->sym[i] = (symbol){ start, len, i - 1, -1, id };
    if (i > 0) w->sym[i - 1].next = i;
    return GIST_OK;
}

static void heap_up(candidate *h, size_t i) {
    candidate x = h[i];
    for (size_t up; i > 0 && h[up = (i - 1) / 2].key > x.key; i = up) h[i] = h[up];
    h[i] = x;
}

static candidate heap_pop(merge_work *w) {
    candidate *h = w->heap, top = h[0], x = h[--w->heap_n];
    size_t i = 0;
    for (size_t c; (c = 2 * i + 1) < w->heap_n; i = c) {
        if (c + 1 < w->heap_n && h[c + 1].key < h[c].key) c++;
        if (h[c].key >= x.key) break;
        h[i] = h[c];
    }
    h[i] = x;
    return top;
}

/* If symbol l and the one behind it may merge, put them on the heap. */
static void propose(const tokenizer *t, merge_work *w, const char *text, int32_t l) {
    if (l < 0 || w->sym[l].next < 0) return;
    const symbol *a = &w->sym[l], *b = &w->sym[a->next];
    int32_t id, rank;
    if (t->by_pair) {
        const merge_slot *m = merges_find(&t->merges, a->id, b->id);
        if (!m) return;
        id = m->id;
        rank = m->rank;
    } else {
        id = vocab_find(&t->v, text + a->start, (size_t)a->len + b->len);
        if (id < 0) return;
        uint8_t type = t->v.piece[id].type;
        if (type != PIECE_NORMAL && type != PIECE_USER && type != PIECE_UNUSED) return;
        rank = t->v.piece[id].rank;
        if (type == PIECE_UNUSED) w->unused_left[id] = (int32_t)a->len;
    }
    w->heap[w->heap_n++] = (candidate){ (uint64_t)(uint32_t)rank << 32 | (uint32_t)l, a->len + b->len, id };
    heap_up(w->heap, w->heap_n - 1);
}

gist_status merge_run(const tokenizer *t, merge_work *w, const char *text, gist_error *err) {
    if (w->heap_cap < 2 * w->n) {
        mem_free(w->alloc, w->heap);
        w->heap_cap = 0;
        w->heap = mem_alloc(w->alloc, 2 * w->cap, sizeof *w->heap);
        if (!w->heap) return err_memory(err, "tokenizing");
        w->heap_cap = 2 * w->cap;
    }
    if (t->has_unused && !w->unused_left) {
        w->unused_left = mem_calloc(w->alloc, t->v.n, sizeof *w->unused_left);
        if (!w->unused_left) return err_memory(err, "tokenizing");
    }
    w->heap_n = 0;
    for (size_t i = 0; i + 1 < w->n; i++) propose(t, w, text, (int32_t)i);
    while (w->heap_n > 0) {
        candidate c = heap_pop(w);
        int32_t l = (int32_t)(uint32_t)c.key;
        symbol *a = &w->sym[l];
        if (a->len == 0 || a->next < 0) continue;
        symbol *b = &w->sym[a->next];
        if (a->len + b->len != c.len) continue;
        a->len = c.len;
        a->id = c.id;
        a->next = b->next;
        b->len = 0;
        if (a->next >= 0) w->sym[a->next].prev = l;
        propose(t, w, text, a->prev);
        propose(t, w, text, l);
    }
    return GIST_OK;
}

void merge_work_free(merge_work *w) {
    mem_free(w->alloc, w->sym);
    mem_free(w->alloc, w->heap);
    mem_free(w->alloc, w->unused_left);
}
