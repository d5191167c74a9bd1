/* tok_charsmap.c - SentencePiece's precompiled map of characters: the longest rule at a place replaces what it matches.
 *
 *   u32 n | n bytes: a double array of u32 units | replacements, each with a NUL behind it
 *
 *   unit       31 value?   10..30 offset   9 offset counts 256s   8 does a key end here?   0..7 label
 *   base       of the unit at i: i ^ its offset.  The root is unit 0.
 *   child      for byte c: the unit at base ^ c, when its label is c (and it is no value)
 *   value      of a key that ends there: bits 0..30 of the unit at base, a place in the replacements
 *
 * The trie is walked once when it is read, so that afterwards every value is a place where UTF-8 begins and every key
 * has at most MAX_RULE bytes; a byte that leads out of the array matches nothing.
 * Source: the double arrays of github.com/s-yata/darts-clone.
 */
#include "token/token_int.h"

enum { MAX_RULE = 256, MAX_CHARSMAP = 1 << 24 };

static const uint32_t is_value = 1u << 31;

static uint32_t label_of(uint32_t unit) {
    return unit & (is_value | 0xFF);
}

static uint32_t offset_of(uint32_t unit) {
    return (unit >> 10 & 0x1FFFFF) << (unit & 1 << 9 ? 8 : 0);
}

static bool ends_key(uint32_t unit) {
    return unit >> 8 & 1;
}

/* height[i] := units on the longest way down from unit i, which is `depth` below the root; 0 was: not walked yet. */
static gist_status measure(const charsmap *m, uint16_t *height, uint32_t i, int depth, gist_error *err) {
    uint32_t base = i ^ offset_of(m->unit[i]);
    int most = 1;
    if (depth > MAX_RULE)
        return err_set(err, GIST_ERR_LIMIT, "charsmap: a rule of more than %d bytes, or rules in a circle", MAX_RULE);
    if (ends_key(m->unit[i])) {
        uint32_t at = base < m->units ? m->unit[base] & ~is_value : 0;
        if (base >= m->units || at >= m->text_len || (m->text[at] & 0xC0) == 0x80)
            return err_set(err, GIST_ERR_FORMAT, "charsmap: unit %u has no replacement in the %zu bytes of them", i,
                           m->text_len);
        if (strnlen(m->text + at, TOK_MAX_PIECE + 1) > TOK_MAX_PIECE)
            return err_set(err, GIST_ERR_LIMIT, "charsmap: a replacement of more than %d bytes", TOK_MAX_PIECE);
    }
    for (uint32_t c = 0; c < 256; c++) {
        uint32_t j = base ^ c;
        if (j >= m->units || label_of(m->unit[j]) != c) continue;
        if (!height[j]) TRY(measure(m, height, j, depth + 1, err));
        if (height[j] >= most) most = height[j] + 1;
    }
    if (depth + most - 1 > MAX_RULE)
        return err_set(err, GIST_ERR_LIMIT, "charsmap: a rule of more than %d bytes", MAX_RULE);
    height[i] = (uint16_t)most;
    return GIST_OK;
}

static gist_status check_rules(const charsmap *m, const gist_allocator *alloc, gist_error *err) {
    size_t bad = 0;
    if (m->text[m->text_len - 1] != 0 || !utf8_valid(m->text, m->text_len, &bad))
        return err_set(err, GIST_ERR_FORMAT, "charsmap: its replacements are cut off or not UTF-8 (byte %zu)", bad);
    uint16_t *height = mem_calloc(alloc, m->units, sizeof *height);
    if (!height) return err_memory(err, "charsmap");
    gist_status st = measure(m, height, 0, 0, err);
    mem_free(alloc, height);
    return st;
}

gist_status charsmap_load(charsmap *m, const gist_allocator *alloc, const void *bytes, size_t len, gist_error *err) {
    rd r;
    rd_init(&r, bytes, len);
    size_t n = rd_u32(&r);
    if (len > MAX_CHARSMAP)
        return err_set(err, GIST_ERR_LIMIT, "charsmap: %zu bytes, at most %d are allowed", len, MAX_CHARSMAP);
    if (r.failed || n == 0 || n % 4 || n >= rd_left(&r))
        return err_set(err, GIST_ERR_FORMAT, "charsmap: %zu bytes cannot hold a trie of %zu and replacements", len, n);
    charsmap c = { .units = n / 4, .text_len = rd_left(&r) - n };
    c.unit = mem_alloc(alloc, c.units, sizeof *c.unit);
    for (size_t i = 0; c.unit && i < c.units; i++) c.unit[i] = rd_u32(&r);
    if (c.unit) c.text = mem_strndup(alloc, (const char *)rd_bytes(&r, c.text_len), c.text_len);
    gist_status st = c.text ? check_rules(&c, alloc, err) : err_memory(err, "charsmap");
    if (st == GIST_OK)
        *m = c;
    else
        charsmap_free(&c, alloc);
    return st;
}

static void put_u32(sbuf *out, uint32_t x) {
    sbuf_add(out, (uint8_t[4]){ (uint8_t)x, (uint8_t)(x >> 8), (uint8_t)(x >> 16), (uint8_t)(x >> 24) }, 4);
}

void charsmap_save(const charsmap *m, sbuf *out) {
    if (m->units == 0) return;
    put_u32(out, (uint32_t)(m->units * 4));
    for (size_t i = 0; i < m->units; i++) put_u32(out, m->unit[i]);
    sbuf_add(out, m->text, m->text_len);
}

void charsmap_free(charsmap *m, const gist_allocator *alloc) {
    mem_free(alloc, m->unit);
    mem_free(alloc, m->text);
}

size_t charsmap_longest(const charsmap *m, const char *s, size_t len, const char **text) {
    size_t best = 0;
    uint32_t at = m->units ? offset_of(m->unit[0]) : 0;
    for (size_t n = 0; n < len;) {
        uint8_t c = (uint8_t)s[n++];
        at ^= c;
        if (at >= m->units || label_of(m->unit[at]) != c) break;
        uint32_t unit = m->unit[at];
        at ^= offset_of(unit);
        if (!ends_key(unit)) continue;
        best = n;
        *text = m->text + (m->unit[at] & ~is_value);
    }
    return best;
}
