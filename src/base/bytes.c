/* bytes.c - the bounded little-endian reader of untrusted bytes, and UTF-8.
 *
 * A read past the end returns zero and marks the reader as failed; nothing outside [p, p+len) is ever touched.
 */
#include "base/base.h"

void rd_init(rd *r, const void *p, size_t len) {
    *r = (rd){ p, len, 0, false };
}

size_t rd_left(const rd *r) {
    return r->failed ? 0 : r->len - r->pos;
}

const uint8_t *rd_bytes(rd *r, size_t n) {
    if (n > rd_left(r)) {
        r->failed = true;
        return NULL;
    }
    const uint8_t *at = r->p + r->pos;
    r->pos += n;
    return at;
}

uint8_t rd_u8(rd *r) {
    const uint8_t *b = rd_bytes(r, 1);
    return b ? b[0] : 0;
}

/* n <= 8 bytes, least significant first */
static uint64_t little_endian(const uint8_t *b, int n) {
    uint64_t v = 0;
    for (int i = 0; i < n; i++) v |= (uint64_t)b[i] << (8 * i);
    return v;
}

uint16_t rd_u16(rd *r) {
    const uint8_t *b = rd_bytes(r, 2);
    return b ? (uint16_t)little_endian(b, 2) : 0;
}

uint32_t rd_u32(rd *r) {
    const uint8_t *b = rd_bytes(r, 4);
    return b ? (uint32_t)little_endian(b, 4) : 0;
}

uint64_t rd_u64(rd *r) {
    const uint8_t *b = rd_bytes(r, 8);
    return b ? little_endian(b, 8) : 0;
}

uint64_t rd_varint(rd *r) {
    uint64_t v = 0;
    for (int shift = 0; shift < 70; shift += 7) {
        uint8_t b = rd_u8(r);
        if (r->failed) return 0;
        if (shift == 63 && b > 1) break; /* more than 64 bits */
        v |= (uint64_t)(b & 0x7f) << shift;
        if (!(b & 0x80)) return v;
    }
    r->failed = true;
    return 0;
}

/* ---- UTF-8 (RFC 3629) ---- */

/* Length announced by a lead byte, 0 when it cannot begin a character. */
static int utf8_announced(uint8_t lead) {
    if (lead < 0x80) return 1;
    if (lead >= 0xc2 && lead <= 0xdf) return 2;
    if (lead >= 0xe0 && lead <= 0xef) return 3;
    if (lead >= 0xf0 && lead <= 0xf4) return 4;
    return 0;
}

/* May `b` be the second byte after `lead`?  Excludes overlong forms, surrogates and what lies beyond U+10FFFF. */
static bool utf8_second(uint8_t lead, uint8_t b) {
    uint8_t lo = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    uint8_t hi = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    return b >= lo && b <= hi;
}

int utf8_decode(const char *s, size_t len, uint32_t *cp) {
    static const uint8_t lead_mask[5] = { 0, 0x7f, 0x1f, 0x0f, 0x07 };
    const uint8_t *b = (const uint8_t *)s;
    int n = utf8_announced(b[0]);
    if (n == 0 || (size_t)n > len) return 0;
    uint32_t v = b[0] & lead_mask[n];
    for (int i = 1; i < n; i++) {
        if (i == 1 ? !utf8_second(b[0], b[1]) : (b[i] & 0xc0) != 0x80) return 0;
        v = v << 6 | (b[i] & 0x3f);
    }
    *cp = v;
    return n;
}

int utf8_encode(uint32_t cp, char out[4]) {
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    int n = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    static const uint8_t lead[5] = { 0, 0, 0xc0, 0xe0, 0xf0 };
    for (int i = n - 1; i > 0; i--, cp >>= 6) out[i] = (char)(0x80 | (cp & 0x3f));
    out[0] = (char)(lead[n] | cp);
    return n;
}

bool utf8_valid(const char *s, size_t len, size_t *bad) {
    for (size_t i = 0; i < len;) {
        uint32_t cp;
        int n = utf8_decode(s + i, len - i, &cp);
        if (n == 0) {
            if (bad) *bad = i;
            return false;
        }
        i += (size_t)n;
    }
    return true;
}

size_t utf8_complete(const char *s, size_t len) {
    const uint8_t *b = (const uint8_t *)s;
    for (size_t back = 1; back <= 3 && back <= len; back++) {
        uint8_t c = b[len - back];
        if ((c & 0xc0) == 0x80) continue; /* continuation: look further back for its lead */
        size_t announced = (size_t)utf8_announced(c);
        bool may_complete = announced > back && (back == 1 || utf8_second(c, b[len - back + 1]));
        return may_complete ? len - back : len;
    }
    return len;
}
