/* test_utf8.c - UTF-8 decoding, encoding and cutting, against definitions of their own and over all short inputs. */
#include "testing.h"

#include <stdlib.h>

#include "base/base.h"

/* Encode by the table of RFC 3629; 0 for surrogates and what lies beyond U+10FFFF. */
static int encode(uint32_t cp, uint8_t out[4]) {
    if (cp > 0x10ffff || (cp >= 0xd800 && cp <= 0xdfff)) return 0;
    if (cp <= 0x7f) {
        out[0] = (uint8_t)cp;
        return 1;
    }
    if (cp <= 0x7ff) {
        out[0] = (uint8_t)(0xc0 + cp / 64);
        out[1] = (uint8_t)(0x80 + cp % 64);
        return 2;
    }
    if (cp <= 0xffff) {
        out[0] = (uint8_t)(0xe0 + cp / 4096);
        out[1] = (uint8_t)(0x80 + cp / 64 % 64);
        out[2] = (uint8_t)(0x80 + cp % 64);
        return 3;
    }
    out[0] = (uint8_t)(0xf0 + cp / 262144);
    out[1] = (uint8_t)(0x80 + cp / 4096 % 64);
    out[2] = (uint8_t)(0x80 + cp / 64 % 64);
    out[3] = (uint8_t)(0x80 + cp % 64);
    return 4;
}

/* Decode by trying: the code point whose encoding begins the bytes.  Lengths are told by the lead byte's high bits. */
static int decode(const uint8_t *b, uint32_t *cp) {
    int n = b[0] < 0x80 ? 1 : b[0] < 0xc0 ? 0 : b[0] < 0xe0 ? 2 : b[0] < 0xf0 ? 3 : b[0] < 0xf8 ? 4 : 0;
    uint32_t v = n == 1 ? b[0] : n == 2 ? b[0] & 31u : n == 3 ? b[0] & 15u : b[0] & 7u;
    for (int i = 1; i < n; i++) v = v * 64 + (b[i] & 63u);
    uint8_t again[4];
    if (n == 0 || encode(v, again) != n || memcmp(again, b, (size_t)n) != 0) return 0;
    *cp = v;
    return n;
}

static void every_code_point_goes_round(void **state) {
    (void)state;
    for (uint32_t cp = 0; cp <= 0x10ffff; cp++) {
        uint8_t want[4];
        char got[4];
        int n = encode(cp, want);
        if (n == 0) continue;
        uint32_t back = 0xffffffff;
        if (utf8_encode(cp, got) != n || memcmp(got, want, (size_t)n) != 0 || utf8_decode(got, 4, &back) != n ||
            back != cp)
            fail_msg("U+%04X", cp);
        if (utf8_decode(got, (size_t)n, &back) != n) fail_msg("U+%04X at the end of the text", cp);
        for (int cut = 1; cut < n; cut++)
            if (utf8_decode(got, (size_t)cut, &back) != 0) fail_msg("U+%04X cut after %d bytes", cp, cut);
    }
}

static void every_kind_of_bytes_decodes_by_the_standard(void **state) {
    (void)state;
    static const uint8_t edge[] = { 0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xed, 0xff };
    enum { N = sizeof edge };
    for (unsigned a = 0; a < 256; a++)
        for (unsigned b = 0; b < 256; b++)
            for (int i = 0; i < N * N; i++) {
                uint8_t s[4] = { (uint8_t)a, (uint8_t)b, edge[i / N], edge[i % N] };
                uint32_t got = 7, want = 7;
                int n = utf8_decode((const char *)s, 4, &got), m = decode(s, &want);
                if (n != m || got != want)
                    fail_msg("%02x %02x %02x %02x: length %d U+%04X, expected %d U+%04X", s[0], s[1], s[2], s[3], n,
                             got, m, want);
            }
}

static void validity_tells_the_first_bad_byte(void **state) {
    (void)state;
    static const struct {
        const char *s;
        size_t len;
        long bad; /* -1: valid */
    } cases[] = {
        { "", 0, -1 },
        { "plain", 5, -1 },
        { "a\0b", 3, -1 },
        { "na\xc3\xafve \xf0\x9f\x98\x80", 11, -1 },
        { "\xc3", 1, 0 },
        { "ab\x80", 3, 2 },
        { "ab\xc0\xaf", 4, 2 }, /* overlong '/' */
        { "ab\xe0\x80\xaf", 5, 2 },
        { "x\xed\xa0\x80", 4, 1 },        /* surrogate */
        { "x\xf4\x90\x80\x80", 5, 1 },    /* U+110000 */
        { "\xe2\x82\xac\xe2\x82", 5, 3 }, /* cut off */
        { "\xf8\x88\x80\x80\x80", 5, 0 },
        { "\xe2\x28\xa1", 3, 0 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        size_t bad = 99;
        assert_int_equal(utf8_valid(cases[i].s, cases[i].len, &bad), cases[i].bad < 0);
        assert_int_equal(utf8_valid(cases[i].s, cases[i].len, NULL), cases[i].bad < 0);
        if (cases[i].bad >= 0) assert_int_equal(bad, cases[i].bad);
    }
}

static size_t slot(const uint8_t *b, size_t n) {
    size_t v = n;
    for (size_t i = 0; i < n; i++) v = v << 8 | b[i];
    return v; /* n in front keeps the lengths apart: below 2^26 */
}

/* The set of all proper beginnings of characters; then every end of a text of three bytes is judged by it. */
static void texts_are_cut_before_a_character_that_may_be_completed(void **state) {
    (void)state;
    uint8_t *begins = calloc((size_t)1 << 23, 1); /* bit set over slot() */
    assert_non_null(begins);
    for (uint32_t cp = 0x80; cp <= 0x10ffff; cp++) {
        uint8_t b[4];
        int n = encode(cp, b);
        for (size_t i = 1; i < (size_t)n; i++) begins[slot(b, i) >> 3] |= (uint8_t)(1u << (slot(b, i) & 7));
    }
    for (unsigned v = 0; v < 1u << 24; v++) {
        uint8_t s[3] = { (uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v };
        size_t want = 3;
        for (size_t n = 1; n <= 3; n++) {
            size_t i = slot(s + 3 - n, n);
            if (begins[i >> 3] >> (i & 7) & 1) want = 3 - n;
        }
        size_t got = utf8_complete((const char *)s, 3);
        if (got != want) fail_msg("%02x %02x %02x: %zu, expected %zu", s[0], s[1], s[2], got, want);
    }
    free(begins);
    assert_int_equal(utf8_complete("", 0), 0);
    assert_int_equal(utf8_complete("\xf0\x9f", 2), 0);
    assert_int_equal(utf8_complete("\xf0\x9f\x98\x80", 4), 4);
    assert_int_equal(utf8_complete("ab\xf0\x9f\x98", 5), 2);
    assert_int_equal(utf8_complete("\x80\x80\x80\x80", 4), 4); /* can never become a character */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_point_goes_round),
        cmocka_unit_test(every_kind_of_bytes_decodes_by_the_standard),
        cmocka_unit_test(validity_tells_the_first_bad_byte),
        cmocka_unit_test(texts_are_cut_before_a_character_that_may_be_completed),
    };
    return cmocka_run_group_tests_name("utf8", tests, NULL, NULL);
}
