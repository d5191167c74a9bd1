/* tok_merge.c - the merge loop of every byte-pair encoding, in O(n log n).
 *
 *   word   h  u  g  s        symbols, doubly linked; a merge grows the left one and empties the right one
 *   heap   (rank, left) ...  every neighbouring pair that may merge; lowest rank first, then leftmost
 *
 * A candidate is stale when its two symbols are not as long together as when it was proposed: symbols only grow.
 * By pair (tokenizer.json, merges.txt) the rank is the line of (left, right); by piece (SentencePiece, tiktoken) it
 * is that of the text of both together.  Each merge takes one candidate and proposes at most two, so 2 n are room
 * enough.  Sources: Sennrich et al. 2016, arXiv:1508.07909; Kudo and Richardson 2018, arXiv:1808.06226.
 */
#include "token/token_int.h"

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
