/* test_json_watch.c - what may become a JSON object: by hand, and against the JSON library over mutated texts; every
 * prefix of what is accepted is accepted, and every accepted prefix can be completed.
 */
#include <jansson.h>
#include <stdlib.h>

#include "engine/engine.h"
#include "testing.h"

typedef enum verdict { REFUSED, OPEN, CLOSED } verdict;

static verdict judge(const char *p, size_t n) {
    json_watch w;
    json_watch_init(&w);
    if (json_watch_text(&w, p, n) < n) return REFUSED;
    return json_watch_done(&w) ? CLOSED : OPEN;
}

static void test_by_hand(void **state) {
    (void)state;
    static const struct {
        const char *text;
        verdict want;
    } cases[] = {
        { "", OPEN },
        { " \n\t\r", OPEN },
        { "{", OPEN },
        { "{}", CLOSED },
        { " {} \n", CLOSED },
        { "{}}", REFUSED },
        { "{},", REFUSED },
        { "[", REFUSED },
        { "x", REFUSED },
        { "\"a\"", REFUSED },
        { "1", REFUSED },
        { "{,", REFUSED },
        { "{1", REFUSED },
        { "{\"a\"}", REFUSED },
        { "{\"a\":", OPEN },
        { "{\"a\":}", REFUSED },
        { "{\"a\":1}", CLOSED },
        { "{\"a\":1,}", REFUSED },
        { "{\"a\":1,\"", OPEN },
        { "{\"a\" : 1 , \"b\" : [ ] }", CLOSED },
        { "{\"a\":[1,2,[],{}]}", CLOSED },
        { "{\"a\":[1,]}", REFUSED },
        { "{\"a\":[1}", REFUSED },
        { "{\"a\":{\"b\":1]", REFUSED },
        { "{\"a\":[,", REFUSED },
        { "{\"a\":-", OPEN },
        { "{\"a\":-}", REFUSED },
        { "{\"a\":01", REFUSED },
        { "{\"a\":-0.5e+10}", CLOSED },
        { "{\"a\":1.}", REFUSED },
        { "{\"a\":1.e", REFUSED },
        { "{\"a\":1e}", REFUSED },
        { "{\"a\":1e-}", REFUSED },
        { "{\"a\":1E5 }", CLOSED },
        { "{\"a\":.5", REFUSED },
        { "{\"a\":+1", REFUSED },
        { "{\"a\":true,\"b\":false,\"c\":null}", CLOSED },
        { "{\"a\":tru}", REFUSED },
        { "{\"a\":nul", OPEN },
        { "{\"a\":truex", REFUSED },
        { "{\"a\":True", REFUSED },
        { "{\"a\":\"\n", REFUSED },
        { "{\"a\":\"\\", OPEN },
        { "{\"a\":\"\\x", REFUSED },
        { "{\"a\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\"}", CLOSED },
        { "{\"a\":\"\\u00g", REFUSED },
        { "{\"a\":\"\\ud83d\\ude00\"}", CLOSED },
        { "{\"a\":\"\\uD83D\\uDE00\"}", CLOSED },
        { "{\"a\":\"\\ud83d\"", REFUSED },
        { "{\"a\":\"\\ud83d\\n", REFUSED },
        { "{\"a\":\"\\ud83d\\u0", REFUSED },
        { "{\"a\":\"\\ud83d\\ud8", REFUSED },
        { "{\"a\":\"\\udc", REFUSED },
        { "{\"a\":\"\\ud7ff\\ue000\"}", CLOSED },
        { "{\"\xc3\xa9\":\"\xf0\x9f\x98\x80\"}", CLOSED },
        { "\xc3", REFUSED },
        { "{\"a\":\xc3", REFUSED },
        { "{\"a\"\xc2\xa0", REFUSED },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        verdict got = judge(cases[i].text, strlen(cases[i].text));
        if (got != cases[i].want) fail_msg("%s: %d, expected %d", cases[i].text, (int)got, (int)cases[i].want);
    }
    assert_int_equal(judge("{\"a\0\":1}", 8), REFUSED);
}

static void test_depth(void **state) {
    (void)state;
    char text[4 * JSON_WATCH_DEPTH + 8] = "";
    size_t n = 0;
    for (int d = 1; d < JSON_WATCH_DEPTH; d += 2) n += (size_t)sprintf(text + n, "{\"\":[");
    assert_int_equal(judge(text, n), OPEN);
    text[n] = '{';
    assert_int_equal(judge(text, n + 1), REFUSED);
    text[n] = '1';
    for (size_t i = n++, d = 0; d < JSON_WATCH_DEPTH; d++, i++) text[++n - 1] = d % 2 ? '}' : ']';
    assert_int_equal(judge(text, n), CLOSED);
}

/* What the library says of a whole text; numbers that it cannot hold, a NUL character and invalid UTF-8 are not our
 * business. */
static bool library_says(const char *p, size_t n, bool *skip) {
    json_error_t e;
    json_t *v = json_loadb(p, n, JSON_ALLOW_NUL, &e);
    bool good = json_is_object(v);
    size_t bad;
    *skip = !utf8_valid(p, n, &bad) || (!v && json_error_code(&e) == json_error_numeric_overflow);
    json_decref(v);
    return good;
}

static const char *const seeds[] = {
    "{\"name\": \"a\\u00e9\\ud83d\\ude00\\n\", \"list\": [1, -2.5e3, 0, [], [{}], true], \"o\": {\"x\": null}}",
    "{\"\":{\"\":[false,0.0,1E+2,{\"k\":\"v\"}]}}",
    " { \"a\" : [ \"b\" , { } ] , \"c\" : 10 } ",
};

static void test_against_library(void **state) {
    (void)state;
    static const char alphabet[] = "{}[]\",:\\u0123456789eE+-.truefalsn dDcC\n";
    uint64_t seed = 5;
    int closed = 0, refused = 0;
    for (int i = 0; i < 60000; i++) {
        char text[128];
        const char *from = seeds[test_rand(&seed) % 3];
        size_t n = strlen(from);
        memcpy(text, from, n);
        for (uint64_t edits = test_rand(&seed) % 4; edits > 0 && n > 1; edits--) {
            size_t at = test_rand(&seed) % n;
            char c = alphabet[test_rand(&seed) % (sizeof alphabet - 1)];
            switch (test_rand(&seed) % 3) {
            case 0: text[at] = c; break;
            case 1: memmove(text + at, text + at + 1, --n - at); break;
            default:
                if (n == sizeof text) break;
                memmove(text + at + 1, text + at, n++ - at);
                text[at] = c;
            }
        }
        bool skipped, want = library_says(text, n, &skipped);
        verdict got = judge(text, n);
        if (skipped) continue;
        if (want != (got == CLOSED)) fail_msg("%.*s: %d, the library says %d", (int)n, text, (int)got, (int)want);
        for (size_t cut = 0; want && cut < n; cut++) assert_int_not_equal(judge(text, cut), REFUSED);
        closed += want;
        refused += got == REFUSED;
    }
    assert_true(closed > 5000 && refused > 5000);
}

/* Random bytes, those refused left out, then the shortest way to the end: no dead ends. */
static void test_completed(void **state) {
    (void)state;
    static const char bytes[] = "{}[]\",:\\u0123456789eE+-.truefalsn dDcC\"\"{[,:";
    static const char close[] = "\"}]0:eulrsadc\\"; /* in this order */
    uint64_t seed = 8;
    for (int i = 0; i < 2000; i++) {
        char text[600];
        size_t n = 0;
        json_watch w;
        json_watch_init(&w);
        for (int tries = 0; tries < 400 && !json_watch_done(&w); tries++) {
            json_watch next = w;
            text[n] = bytes[test_rand(&seed) % (sizeof bytes - 1)];
            if (!json_watch_byte(&next, (uint8_t)text[n])) continue;
            w = next;
            n++;
        }
        while (!json_watch_done(&w)) {
            size_t c = 0;
            json_watch next = w;
            for (; c < sizeof close - 1; c++) {
                next = w;
                if (json_watch_byte(&next, (uint8_t)close[c])) break;
            }
            if (c == sizeof close - 1 || n == sizeof text) fail_msg("no way on behind %.*s", (int)n, text);
            text[n++] = close[c];
            w = next;
        }
        bool skipped, good = library_says(text, n, &skipped);
        if (!skipped && !good) fail_msg("%.*s", (int)n, text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_hand),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_against_library),
        cmocka_unit_test(test_completed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
