/* tok_unigram.c - the unigram model: the segmentation whose pieces' scores have the greatest sum.
 *
 *   text    _ t h e _ s h o p         best[i]: the greatest sum of scores of pieces that make text[0..i)
 *           |------|--------|         back[i]: the last of these pieces
 *
 * Pieces lie in a trie of (node, byte) -> node, kept in one open-addressing table.  From each character's start one
 * walk down the trie finds every piece that begins there; a character that is no piece itself may be the unknown, ten
 * below the lowest score.  A user defined piece of n bytes scores (n - 1) / 10, so that it wins over any others.
 * Many segmentations have the same sum up to rounding, so the sums are made as SentencePiece 0.2.3 makes them: floats,
 * of equals the one that begins earlier, and beyond 100,000 all that are still in play are counted from there on.
 * Source: Kudo 2018, arXiv:1804.10959; the behaviour of github.com/google/sentencepiece.
 */
#include <float.h>

#include "token/token_int.h"

enum { LEN_SHIFT = 20, MAX_LEN = 4095, MAX_NODES = 1 << 24 };
static const float farthest = 100000.0f; /* from zero */
_Static_assert(TOK_MAX_IDS <= 1 << LEN_SHIFT, "a piece in `back` is its length and its id");

/* ---- trie ---- */

static size_t key_hash(uint32_t key) {
    uint32_t x = key * 0x9E3779B1u;
    return x ^ x >> 15;
}

/* The slot of `byte` below `parent`: taken by it, or free for it. */
static trie_slot *find_slot(const unigram *u, uint32_t parent, uint8_t byte) {
    uint32_t key = parent << 8 | byte;
    size_t i = key_hash(key) & (u->slots - 1);
    while (u->slot[i].child && u->slot[i].key != key) i = (i + 1) & (u->slots - 1);
    return &u->slot[i];
}

static gist_status grow_trie(unigram *u, const gist_allocator *alloc, gist_error *err) {
    size_t cap = u->cap ? u->cap * 2 : 1024;
    unigram old = *u;
    trie_node *node = mem_resize(alloc, u->node, u->cap, cap, sizeof *node);
    if (!node) return err_memory(err, "unigram pieces");
    u->node = node;
    trie_slot *slot = mem_calloc(alloc, cap * 2, sizeof *slot); /* at most half full */
    if (!slot) return err_memory(err, "unigram pieces");
    u->slot = slot;
    u->slots = cap * 2;
    u->cap = cap;
    for (size_t i = 0; i < old.slots; i++)
        if (old.slot[i].child) *find_slot(u, old.slot[i].key >> 8, old.slot[i].key & 0xFF) = old.slot[i];
    mem_free(alloc, old.slot);
    return GIST_OK;
}

static gist_status add_node(unigram *u, const gist_allocator *alloc, uint32_t *out, gist_error *err) {
    if (u->n == MAX_NODES) return err_set(err, GIST_ERR_LIMIT, "unigram pieces: more than %d nodes", MAX_NODES);
    if (u->n == u->cap) TRY(grow_trie(u, alloc, err));
    u->node[u->n] = (trie_node){ .id = -1 };
    *out = (uint32_t)u->n++;
    return GIST_OK;
}

static gist_status add_piece(tokenizer *t, int32_t id, float score, gist_error *err) {
    unigram *u = &t->uni;
    const piece *p = &t->v.piece[id];
    uint32_t at = 0;
    if (p->len > MAX_LEN)
        return err_set(err, GIST_ERR_LIMIT, "piece %d has %u bytes, at most %d are allowed in a unigram model", id,
                       p->len, MAX_LEN);
    for (uint32_t i = 0; i < p->len; i++) {
        uint8_t c = (uint8_t)t->v.text[p->off + i];
        trie_slot *s = find_slot(u, at, c);
        if (!s->child) {
            uint32_t child;
            TRY(add_node(u, t->alloc, &child, err));
            s = find_slot(u, at, c); /* the table may have grown */
            *s = (trie_slot){ at << 8 | c, child };
        }
        at = s->child;
    }
    u->node[at] = (trie_node){ score, id };
    return GIST_OK;
}

gist_status unigram_build(tokenizer *t, gist_error *err) {
    uint32_t root;
    float min = FLT_MAX;
    for (size_t i = 0; i < t->v.n; i++) {
        const piece *p = &t->v.piece[i];
        if (p->type == PIECE_NORMAL && p->score < min) min = p->score;
    }
    t->uni.unk_score = min - 10.0f;
    TRY(add_node(&t->uni, t->alloc, &root, err));
    for (size_t i = 0; i < t->v.n; i++) {
        const piece *p = &t->v.piece[i];
        if (p->type == PIECE_NORMAL) TRY(add_piece(t, (int32_t)i, p->score, err));
        if (p->type == PIECE_USER) TRY(add_piece(t, (int32_t)i, (float)((p->len - 1) * 0.1), err));
    }
    return GIST_OK;
}

void unigram_free(unigram *u, const gist_allocator *alloc) {
    mem_free(alloc, u->node);
    mem_free(alloc, u->slot);
}

/* ---- encoder ---- */

static gist_status reserve(path_work *w, const gist_allocator *alloc, size_t n, gist_error *err) {
    if (n <= w->cap) return GIST_OK;
    path_work fresh = { .cap = n };
    fresh.best = mem_alloc(alloc, n, sizeof *fresh.best);
    fresh.back = fresh.best ? mem_alloc(alloc, n, sizeof *fresh.back) : NULL;
    if (!fresh.back) {
        mem_free(alloc, fresh.best);
        return err_memory(err, "tokenizing");
    }
    path_work_free(w, alloc);
    *w = fresh;
    return GIST_OK;
}

void path_work_free(path_work *w, const gist_allocator *alloc) {
    mem_free(alloc, w->best);
    mem_free(alloc, w->back);
}

static void offer(path_work *w, size_t end, float sum, size_t len, int32_t id) {
    if (w->back[end] && !(sum > w->best[end])) return;
    w->best[end] = sum;
    w->back[end] = (uint32_t)len << LEN_SHIFT | (uint32_t)id;
}

/* Count the sums at [begin, last] from best[begin]. */
static void rebase(path_work *w, size_t begin, size_t last) {
    float base = w->best[begin];
    for (size_t i = begin; i <= last; i++)
        if (i == begin || w->back[i]) w->best[i] -= base;
}

/* Fill best and back; s is valid UTF-8. */
static void find_paths(const tokenizer *t, path_work *w, const char *s, size_t len) {
    const unigram *u = &t->uni;
    uint32_t cp;
    memset(w->back, 0, (len + 1) * sizeof *w->back);
    w->best[0] = 0;
    for (size_t begin = 0, last = 0, n; begin < len; begin += n) {
        if (w->best[begin] < -farthest || w->best[begin] > farthest) rebase(w, begin, last);
        float here = w->best[begin];
        bool single = false;
        uint32_t at = 0;
        n = (size_t)utf8_decode(s + begin, len - begin, &cp);
        for (size_t end = begin; end < len && (at = find_slot(u, at, (uint8_t)s[end])->child) != 0;) {
            const trie_node *p = &u->node[at];
            end++;
            if (p->id < 0) continue;
            offer(w, end, p->score + here, end - begin, p->id);
            if (end > last) last = end;
            single |= end - begin == n;
        }
        if (single) continue;
        offer(w, begin + n, u->unk_score + here, n, t->unk);
        if (begin + n > last) last = begin + n;
    }
}

gist_status unigram_encode(encoder *e, const char *s, size_t len) {
    path_work *w = &e->path;
    if (len == 0) return GIST_OK;
    TRY(reserve(w, e->t->alloc, len + 1, e->err));
    find_paths(e->t, w, s, len);
    /* turn the chain around: back[i] becomes the piece that begins at i */
    uint32_t p = w->back[len];
    for (size_t at = len; at > 0;) {
        at -= p >> LEN_SHIFT;
        uint32_t before = w->back[at];
        w->back[at] = p;
        p = before;
    }
    for (size_t at = 0; at < len; at += w->back[at] >> LEN_SHIFT) {
        int32_t id = (int32_t)(w->back[at] & ((1u << LEN_SHIFT) - 1));
        if (id == e->t->unk) {
            TRY(encode_unknown(e, s + at, w->back[at] >> LEN_SHIFT));
            continue;
        }
        e->after_unk = false;
        TRY(tok_ids_push(e->out, id, e->err));
    }
    return GIST_OK;
}
