/* memory.c - allocation through the host's gist_allocator, overflow-checked sizes, arenas, growing strings.
 *
 * Three lifetimes (docs/ARCHITECTURE.md): weights are packed once, session state is one block, activations live in an
 * arena whose size a dry run tells.
 */
#include <assert.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/base.h"

enum { ALIGN = 64, HUGE_FROM = 4 << 20, HUGE_PAGE = 2 << 20 };

bool size_mul(size_t a, size_t b, size_t *out) {
    return !__builtin_mul_overflow(a, b, out);
}

bool size_add(size_t a, size_t b, size_t *out) {
    return !__builtin_add_overflow(a, b, out);
}

static void *default_alloc(void *ctx, size_t bytes) {
    (void)ctx;
    size_t align = bytes >= HUGE_FROM ? HUGE_PAGE : ALIGN, rounded;
    if (!size_add(bytes, align - 1, &rounded)) return NULL;
    void *p = aligned_alloc(align, rounded & ~(align - 1));
#ifdef MADV_HUGEPAGE
    if (p && align == HUGE_PAGE) (void)madvise(p, rounded & ~(align - 1), MADV_HUGEPAGE); /* only advice */
#endif
    return p;
}

static void default_free(void *ctx, void *p) {
    (void)ctx;
    free(p);
}

const gist_allocator *mem_default(void) {
    static const gist_allocator a = { NULL, default_alloc, default_free };
    return &a;
}

void *mem_alloc(const gist_allocator *a, size_t count, size_t size) {
    if (!a) a = mem_default();
    size_t bytes;
    if (!size_mul(count, size, &bytes)) return NULL;
    return a->alloc(a->ctx, bytes ? bytes : 1);
}

void *mem_calloc(const gist_allocator *a, size_t count, size_t size) {
    void *p = mem_alloc(a, count, size);
    if (p) memset(p, 0, count * size);
    return p;
}

void *mem_resize(const gist_allocator *a, void *p, size_t old_count, size_t new_count, size_t size) {
    void *q = mem_alloc(a, new_count, size);
    if (!q) return NULL;
    size_t keep = old_count < new_count ? old_count : new_count;
    if (p && keep) memcpy(q, p, keep * size);
    mem_free(a, p);
    return q;
}

char *mem_strndup(const gist_allocator *a, const char *s, size_t len) {
    char *p = len < SIZE_MAX ? mem_alloc(a, len + 1, 1) : NULL;
    if (!p) return NULL;
    memcpy(p, s, len);
    p[len] = '\0';
    return p;
}

void mem_free(const gist_allocator *a, void *p) {
    if (!a) a = mem_default();
    if (p) a->free(a->ctx, p);
}

/* ---- arena ---- */

void arena_init(arena *ar, void *base, size_t size) {
    *ar = (arena){ base, size, 0, 0 };
}

void *arena_take(arena *ar, size_t count, size_t size) {
    size_t bytes = 0;
    bool fits = size_mul(count, size, &bytes) && bytes <= SIZE_MAX - ar->used - ALIGN;
    assert(fits); /* sizes were checked when the model was loaded */
    (void)fits;
    size_t at = ar->used;
    ar->used = (at + bytes + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    if (ar->used > ar->peak) ar->peak = ar->used;
    if (!ar->base) return NULL;
    assert(ar->used <= ar->size);
    return ar->base + at;
}

/* ---- growing byte string ---- */

void sbuf_init(sbuf *s, const gist_allocator *alloc) {
    *s = (sbuf){ .alloc = alloc };
}

void sbuf_free(sbuf *s) {
    mem_free(s->alloc, s->p);
    sbuf_init(s, s->alloc);
}

/* Room for `more` bytes and a NUL. */
static bool sbuf_reserve(sbuf *s, size_t more) {
    size_t need;
    if (s->failed || !size_add(s->len, more, &need) || !size_add(need, 1, &need)) {
        s->failed = true;
        return false;
    }
    if (need <= s->cap) return true;
    size_t cap = s->cap ? s->cap : 32;
    while (cap < need) cap = cap > SIZE_MAX / 2 ? need : cap * 2;
    char *p = mem_resize(s->alloc, s->p, s->len, cap, 1);
    if (!p) {
        s->failed = true;
        return false;
    }
    s->p = p;
    s->cap = cap;
    return true;
}

void sbuf_add(sbuf *s, const void *bytes, size_t len) {
    if (!sbuf_reserve(s, len)) return;
    if (len) memcpy(s->p + s->len, bytes, len);
    s->len += len;
    s->p[s->len] = '\0';
}

void sbuf_str(sbuf *s, const char *text) {
    sbuf_add(s, text, strlen(text));
}

void sbuf_fmt(sbuf *s, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0 || !sbuf_reserve(s, (size_t)n)) {
        s->failed = true;
        return;
    }
    va_start(ap, fmt);
    vsnprintf(s->p + s->len, (size_t)n + 1, fmt, ap);
    va_end(ap);
    s->len += (size_t)n;
}

char *sbuf_take(sbuf *s) {
    char *p = NULL;
    if (!s->failed && (s->p || sbuf_reserve(s, 0))) {
        p = s->p;
        p[s->len] = '\0';
        s->p = NULL;
    }
    sbuf_free(s);
    return p;
}
