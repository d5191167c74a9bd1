/* test_base.c - errors, memory, arena, growing strings, bounded reader, random numbers, hashes.
 * (Files: test_file.c; threads: test_pool.c; UTF-8: test_utf8.c.)
 *
 * Known answers: splitmix64 and xoshiro256++ were computed from the authors' definitions in a few lines of Python,
 * whose integers do not overflow; the hash of nothing is the one printed in the XXH3 documentation.
 */
#include "testing.h"

#include <math.h>

#include "base/base.h"

/* ---- errors ---- */

static void the_first_error_stays(void **state) {
    (void)state;
    gist_error err = { 0 };
    assert_int_equal(err_at(&err, GIST_ERR_FORMAT, 77, "row %d of %s", 3, "x"), GIST_ERR_FORMAT);
    assert_int_equal(err_set(&err, GIST_ERR_IO, "later"), GIST_ERR_IO); /* the caller still gets its own code */
    assert_int_equal(err_memory(&err, "later"), GIST_ERR_MEMORY);
    assert_int_equal(err.code, GIST_ERR_FORMAT);
    assert_int_equal(err.pos, 77);
    assert_string_equal(err.msg, "row 3 of x");
}

static void errors_need_no_record(void **state) {
    (void)state;
    assert_int_equal(err_set(NULL, GIST_ERR_TEXT, "%d", 1), GIST_ERR_TEXT);
    assert_int_equal(err_at(NULL, GIST_ERR_LIMIT, 1, "%d", 1), GIST_ERR_LIMIT);
    assert_int_equal(err_memory(NULL, "x"), GIST_ERR_MEMORY);
}

static void memory_errors_name_their_object(void **state) {
    (void)state;
    gist_error err = { 0 };
    err_memory(&err, "weights");
    assert_int_equal(err.code, GIST_ERR_MEMORY);
    assert_string_equal(err.msg, "out of memory: weights");
}

static void long_messages_end_on_a_whole_character(void **state) {
    (void)state;
    enum { N = 600 };
    char text[3 * N + 1];
    for (size_t i = 0; i < N; i++) memcpy(text + 3 * i, "\xe2\x82\xac", 3);
    text[3 * N] = 0;
    for (int shift = 0; shift < 3; shift++) {
        gist_error err = { 0 };
        err_set(&err, GIST_ERR_TEXT, "%.*s%s", shift, "xx", text);
        size_t n = strlen(err.msg);
        assert_true(n > sizeof err.msg - 5 && n < sizeof err.msg);
        assert_true(utf8_valid(err.msg, n, NULL));
    }
}

static void every_status_has_its_own_text(void **state) {
    (void)state;
    for (int a = 0; a < GIST_STATUS_COUNT; a++) {
        const char *text = gist_status_text((gist_status)a);
        assert_non_null(text);
        assert_true(strlen(text) > 0);
        for (int b = 0; b < a; b++) assert_string_not_equal(text, gist_status_text((gist_status)b));
    }
    assert_non_null(gist_status_text(GIST_STATUS_COUNT));
    assert_non_null(gist_status_text((gist_status)-1));
}

static void version_matches_the_header(void **state) {
    (void)state;
    char want[32];
    snprintf(want, sizeof want, "%d.%d.%d", GIST_VERSION_MAJOR, GIST_VERSION_MINOR, GIST_VERSION_PATCH);
    assert_string_equal(gist_version(), want);
}

typedef struct heard {
    int count;
    gist_log_level level;
    char msg[1024];
} heard;

static void hear(void *ctx, gist_log_level level, const char *msg) {
    heard *h = ctx;
    h->count++;
    h->level = level;
    snprintf(h->msg, sizeof h->msg, "%s", msg);
}

static void log_goes_to_its_sink(void **state) {
    (void)state;
    heard h = { 0 };
    log_sink sink = { hear, &h }, silent = { NULL, &h };
    log_msg(&sink, GIST_LOG_WARN, "%s %d", "layer", 4);
    assert_int_equal(h.count, 1);
    assert_int_equal(h.level, GIST_LOG_WARN);
    assert_string_equal(h.msg, "layer 4");
    log_msg(&silent, GIST_LOG_WARN, "x");
    log_msg(NULL, GIST_LOG_WARN, "x");
    assert_int_equal(h.count, 1);
    log_msg(&sink, GIST_LOG_INFO, "%2000d", 1); /* longer than any buffer: cut, not overrun */
    assert_int_equal(h.count, 2);
}

/* ---- memory ---- */

static void sizes_are_checked(void **state) {
    (void)state;
    size_t out = 5;
    assert_true(size_mul(6, 7, &out));
    assert_int_equal(out, 42);
    assert_true(size_mul(SIZE_MAX, 0, &out));
    assert_int_equal(out, 0);
    assert_true(size_mul(SIZE_MAX, 1, &out));
    assert_false(size_mul(SIZE_MAX, 2, &out));
    assert_false(size_mul((size_t)1 << 32, (size_t)1 << 32, &out));
    assert_true(size_add(SIZE_MAX, 0, &out));
    assert_true(out == SIZE_MAX);
    assert_false(size_add(SIZE_MAX, 1, &out));
}

static void blocks_are_aligned_and_usable(void **state) {
    (void)state;
    static const size_t sizes[] = { 0, 1, 63, 64, 65, 4096, (4u << 20) - 1, 4u << 20, (9u << 20) + 1 };
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        uint8_t *p = mem_alloc(NULL, sizes[i], 1);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 64, 0);
        if (sizes[i] >= 4u << 20) assert_int_equal((uintptr_t)p % (2u << 20), 0);
        memset(p, 1, sizes[i]);
        mem_free(NULL, p);
    }
    mem_free(NULL, NULL);
}

static void impossible_sizes_give_null(void **state) {
    (void)state;
    test_alloc t;
    test_alloc_init(&t);
    char one = 1;
    assert_null(mem_alloc(&t.a, SIZE_MAX, 2));
    assert_null(mem_calloc(&t.a, SIZE_MAX / 2, 3));
    assert_null(mem_resize(&t.a, &one, 1, SIZE_MAX, 16)); /* &one must not be freed */
    assert_null(mem_strndup(&t.a, &one, SIZE_MAX));
    assert_int_equal(t.calls, 0);              /* refused before the host is asked */
    assert_null(mem_alloc(NULL, SIZE_MAX, 1)); /* rounding up would overflow */
    assert_null(mem_alloc(NULL, SIZE_MAX - 100, 1));
}

static void calloc_zeroes_and_resize_keeps(void **state) {
    (void)state;
    test_alloc t;
    test_alloc_init(&t); /* fills with garbage */
    uint32_t *p = mem_calloc(&t.a, 100, sizeof *p);
    for (size_t i = 0; i < 100; i++) {
        assert_int_equal(p[i], 0);
        p[i] = (uint32_t)i;
    }
    p = mem_resize(&t.a, p, 100, 300, sizeof *p);
    for (size_t i = 0; i < 100; i++) assert_int_equal(p[i], i);
    p = mem_resize(&t.a, p, 300, 10, sizeof *p);
    for (size_t i = 0; i < 10; i++) assert_int_equal(p[i], i);
    t.fail_at = t.calls + 1;
    assert_null(mem_resize(&t.a, p, 10, 20, sizeof *p));
    for (size_t i = 0; i < 10; i++) assert_int_equal(p[i], i); /* untouched */
    mem_free(&t.a, p);
    p = mem_resize(&t.a, NULL, 0, 4, sizeof *p);
    assert_non_null(p);
    mem_free(&t.a, p);
    assert_int_equal(t.blocks, 0);
}

static void strndup_copies_and_terminates(void **state) {
    (void)state;
    char *s = mem_strndup(NULL, "gist tokens", 4);
    assert_string_equal(s, "gist");
    mem_free(NULL, s);
    s = mem_strndup(NULL, "", 0);
    assert_string_equal(s, "");
    mem_free(NULL, s);
}

/* ---- arena ---- */

static void take_some(arena *ar, void *at[4]) {
    at[0] = arena_take(ar, 3, 1);
    size_t mark = ar->used;
    at[1] = arena_take(ar, 1000, 4);
    ar->used = mark;
    at[2] = arena_take(ar, 0, 8);
    at[3] = arena_take(ar, 65, 1);
}

static void arena_dry_run_tells_the_size(void **state) {
    (void)state;
    arena dry, wet;
    void *at[4];
    arena_init(&dry, NULL, 0);
    take_some(&dry, at);
    for (int i = 0; i < 4; i++) assert_null(at[i]);
    assert_int_equal(dry.peak, 64 + 4032);

    uint8_t *block = mem_alloc(NULL, dry.peak, 1);
    arena_init(&wet, block, dry.peak);
    take_some(&wet, at);
    assert_int_equal(wet.used, dry.used);
    assert_int_equal(wet.peak, dry.peak);
    assert_ptr_equal(at[0], block);
    assert_ptr_equal(at[1], block + 64);
    assert_ptr_equal(at[2], block + 64); /* taken again after the reset */
    assert_ptr_equal(at[3], block + 64);
    mem_free(NULL, block);
}

/* ---- growing string ---- */

static void sbuf_builds_text(void **state) {
    (void)state;
    test_alloc t;
    test_alloc_init(&t);
    sbuf s;
    sbuf_init(&s, &t.a);
    sbuf_str(&s, "a");
    sbuf_add(&s, "\0b", 2);
    sbuf_add(&s, NULL, 0);
    sbuf_fmt(&s, "-%05d", 42);
    assert_int_equal(s.len, 9);
    assert_memory_equal(s.p, "a\0b-00042", 10);
    for (int i = 0; i < 5000; i++) sbuf_fmt(&s, "%d", i % 10);
    assert_int_equal(s.len, 5009);
    assert_int_equal(s.p[s.len], 0);
    assert_int_equal(s.p[5008], '9');
    char *p = sbuf_take(&s);
    assert_memory_equal(p, "a\0b-0004201234", 14);
    assert_true(s.p == NULL && s.len == 0);
    mem_free(&t.a, p);
    assert_int_equal(t.blocks, 0);
}

static void sbuf_take_of_nothing_is_an_empty_string(void **state) {
    (void)state;
    sbuf s;
    sbuf_init(&s, NULL);
    char *p = sbuf_take(&s);
    assert_non_null(p);
    assert_string_equal(p, "");
    mem_free(NULL, p);
    sbuf_free(&s);
}

static gist_status build_string(void *ctx, const gist_allocator *alloc) {
    (void)ctx;
    sbuf s;
    sbuf_init(&s, alloc);
    for (int i = 0; i < 40; i++) {
        sbuf_str(&s, "twelve bytes");
        sbuf_fmt(&s, "%d", i);
        if (s.failed) {
            size_t len = s.len;
            sbuf_str(&s, "x"); /* nothing more is added after a failure */
            assert_int_equal(s.len, len);
        }
    }
    char *p = sbuf_take(&s);
    if (!p) return GIST_ERR_MEMORY;
    size_t len = strlen(p);
    mem_free(alloc, p);
    assert_int_equal(len, 40 * 12 + 10 + 60);
    return GIST_OK;
}

static void sbuf_survives_every_failed_allocation(void **state) {
    (void)state;
    assert_true(test_each_alloc(build_string, NULL) >= 4);
}

/* ---- bounded reader ---- */

static void reader_reads_little_endian(void **state) {
    (void)state;
    static const uint8_t b[] = {
        0x01, 0xef, 0xbe, 0xad, 0xde, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0xf1, 'x', 'y'
    };
    rd r;
    rd_init(&r, b, sizeof b);
    assert_int_equal(rd_u8(&r), 1);
    assert_int_equal(rd_u32(&r), 0xdeadbeef);
    assert_true(rd_u64(&r) == 0xf122334455667788u);
    assert_int_equal(rd_left(&r), 2);
    assert_ptr_equal(rd_bytes(&r, 2), b + 13);
    assert_non_null(rd_bytes(&r, 0));
    assert_int_equal(rd_left(&r), 0);
    assert_false(r.failed);
}

static void reader_stops_at_the_end(void **state) {
    (void)state;
    uint8_t *b = mem_alloc(NULL, 7, 1); /* on the heap: a sanitizer sees one byte too far */
    memset(b, 0xff, 7);
    for (size_t n = 0; n < 7; n++) {
        rd r;
        rd_init(&r, b, n);
        assert_true(rd_u64(&r) == 0);
        assert_true(r.failed);
        assert_int_equal(rd_u8(&r), 0); /* stays failed although a byte is left */
        assert_null(rd_bytes(&r, 1));
        assert_int_equal(rd_left(&r), 0);
        rd_init(&r, b, n);
        assert_null(rd_bytes(&r, n + 1));
        rd_init(&r, b, n);
        assert_null(rd_bytes(&r, SIZE_MAX));
        assert_true(r.failed);
        if (n < 4) {
            rd_init(&r, b, n);
            assert_int_equal(rd_u32(&r), 0);
            assert_true(r.failed);
        }
    }
    mem_free(NULL, b);
}

static void reader_reads_varints(void **state) {
    (void)state;
    uint64_t seed = 1;
    for (int i = 0; i < 2000; i++) {
        uint64_t v = test_rand(&seed) >> (i % 64), rest = v;
        uint8_t b[10];
        size_t n = 0;
        do {
            b[n] = (uint8_t)((rest & 0x7f) | (rest > 0x7f ? 0x80 : 0));
            rest >>= 7;
            n++;
        } while (rest > 0);
        rd r;
        rd_init(&r, b, n);
        assert_true(rd_varint(&r) == v);
        assert_true(!r.failed && rd_left(&r) == 0);
        rd_init(&r, b, n - 1); /* cut off */
        assert_true(rd_varint(&r) == 0);
        assert_true(r.failed);
    }
}

static void reader_refuses_long_varints(void **state) {
    (void)state;
    static const uint8_t most[] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01 };
    static const uint8_t above[] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02 };
    static const uint8_t eleven[] = { 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00 };
    rd r;
    rd_init(&r, most, sizeof most);
    assert_true(rd_varint(&r) == UINT64_MAX && !r.failed);
    rd_init(&r, above, sizeof above);
    assert_true(rd_varint(&r) == 0 && r.failed);
    rd_init(&r, eleven, sizeof eleven);
    assert_true(rd_varint(&r) == 0 && r.failed);
}

/* ---- random numbers ---- */

static void rng_known_answers(void **state) {
    (void)state;
    static const uint64_t plain[] = { 41943041u,
                                      58720359u,
                                      3588806011781223u,
                                      3591011842654386u,
                                      9228616714210784205u,
                                      9973669472204895162u,
                                      14011001112246962877u,
                                      12406186145184390807u };
    rng r = { { 1, 2, 3, 4 } };
    for (size_t i = 0; i < 8; i++) assert_true(rng_next(&r) == plain[i]);

    static const uint64_t words[] = { 0xe220a8397b1dcdaf, 0x6e789e6aa1b965f4, 0x06c45d188009454f, 0xf88bb8a8724c81ec };
    rng_seed(&r, 0);
    assert_memory_equal(r.s, words, sizeof words);
    static const uint64_t seed42[] = { 0xd0764d4f4476689f, 0x519e4174576f3791, 0xfbe07cfb0c24ed8c, 0xb37d9f600cd835b8 };
    rng_seed(&r, 42);
    for (size_t i = 0; i < 4; i++) assert_true(rng_next(&r) == seed42[i]);
}

static void rng_unit_is_the_upper_53_bits(void **state) {
    (void)state;
    rng r;
    static const uint64_t words[] = { 0x53175d61490b23df, 0x61da6f3dc380d507, 0x5c0fdf91ec9a7bfc, 0x02eebf8c3bbe5e1a };
    rng_seed(&r, 0);
    for (size_t i = 0; i < 4; i++) assert_true(rng_unit(&r) == (double)(words[i] >> 11) / 9007199254740992.0);
    double sum = 0;
    for (int i = 0; i < 100000; i++) {
        double u = rng_unit(&r);
        assert_true(u >= 0 && u < 1);
        sum += u;
    }
    assert_true(fabs(sum / 100000 - 0.5) < 0.005); /* 5.5 standard deviations */
}

static void rng_below_is_in_range_and_even(void **state) {
    (void)state;
    rng r;
    rng_seed(&r, 5);
    int seen[6] = { 0 };
    for (int i = 0; i < 60000; i++) {
        uint64_t v = rng_below(&r, 6);
        assert_true(v < 6);
        seen[v]++;
    }
    for (int i = 0; i < 6; i++) assert_in_range(seen[i], 9500, 10500); /* 5.5 standard deviations */
    for (int i = 0; i < 100; i++) assert_true(rng_below(&r, 1) == 0);
    /* A quarter of all words is rejected here; without that, values of the lower third would come twice as often. */
    uint64_t n = (uint64_t)3 << 62, low = 0;
    for (int i = 0; i < 10000; i++) {
        uint64_t v = rng_below(&r, n);
        assert_true(v < n);
        low += v < n / 3;
    }
    assert_in_range(low, 3080, 3590); /* 5.5 standard deviations */
}

static void rng_normal_has_its_moments(void **state) {
    (void)state;
    enum { N = 200000 };
    rng r;
    rng_seed(&r, 9);
    double m1 = 0, m2 = 0, m3 = 0, m4 = 0;
    for (int i = 0; i < N; i++) {
        double x = rng_normal(&r);
        assert_true(isfinite(x));
        m1 += x;
        m2 += x * x;
        m3 += x * x * x;
        m4 += x * x * x * x;
    }
    assert_true(fabs(m1 / N) < 0.012);
    assert_true(fabs(m2 / N - 1) < 0.02);
    assert_true(fabs(m3 / N) < 0.05);
    assert_true(fabs(m4 / N - 3) < 0.15);
}

/* ---- hashes ---- */

static void assert_hex(hash128 h, const char *want) {
    char hex[33];
    hash_hex(h, hex);
    assert_string_equal(hex, want);
}

static bool same_hash(hash128 a, hash128 b) {
    return memcmp(a.b, b.b, sizeof a.b) == 0;
}

static void hash_known_answers(void **state) {
    (void)state;
    assert_hex(hash_bytes("", 0), "99aa06d3014798d86001c324468d497f");
    assert_hex(hash_bytes("a", 1), "a96faf705af16834e6c632b61e964e1f");
}

static void hash_fields_are_length_prefixed(void **state) {
    (void)state;
    static const uint8_t flat[] = { 3,    0,    0,    0,    0,    0,    0,    0,    'a', 'b', 'c', /* hash_add("abc") */
                                    0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,                /* hash_u64 */
                                    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,                /* hash_str(NULL) */
                                    0,    0,    0,    0,    0,    0,    0,    0 };                 /* hash_str("") */
    hasher *h = hash_begin(NULL);
    hash_add(h, "abc", 3);
    hash_u64(h, 0x1122334455667788u);
    hash_str(h, NULL);
    hash_str(h, "");
    assert_true(same_hash(hash_end(h), hash_bytes(flat, sizeof flat)));
}

static hash128 hash_two(const char *a, const char *b) {
    hasher *h = hash_begin(NULL);
    hash_str(h, a);
    hash_str(h, b);
    return hash_end(h);
}

static void hash_fields_do_not_run_together(void **state) {
    (void)state;
    assert_true(same_hash(hash_two("ab", "c"), hash_two("ab", "c")));
    assert_false(same_hash(hash_two("ab", "c"), hash_two("a", "bc")));
    assert_false(same_hash(hash_two("abc", ""), hash_two("", "abc")));
    assert_false(same_hash(hash_two(NULL, "x"), hash_two("", "x")));
    hash_abort(NULL);
    hash_abort(hash_begin(NULL));
}

static gist_status hash_something(void *ctx, const gist_allocator *alloc) {
    (void)ctx;
    hasher *h = hash_begin(alloc);
    if (!h) return GIST_ERR_MEMORY;
    hash_str(h, "x");
    hash_end(h);
    return GIST_OK;
}

static void hash_survives_every_failed_allocation(void **state) {
    (void)state;
    assert_true(test_each_alloc(hash_something, NULL) >= 1);
}

static void time_goes_forward(void **state) {
    (void)state;
    double a = time_now(), b = time_now();
    assert_true(a > 0 && b >= a && b - a < 60);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_error_stays),
        cmocka_unit_test(errors_need_no_record),
        cmocka_unit_test(memory_errors_name_their_object),
        cmocka_unit_test(long_messages_end_on_a_whole_character),
        cmocka_unit_test(every_status_has_its_own_text),
        cmocka_unit_test(version_matches_the_header),
        cmocka_unit_test(log_goes_to_its_sink),
        cmocka_unit_test(sizes_are_checked),
        cmocka_unit_test(blocks_are_aligned_and_usable),
        cmocka_unit_test(impossible_sizes_give_null),
        cmocka_unit_test(calloc_zeroes_and_resize_keeps),
        cmocka_unit_test(strndup_copies_and_terminates),
        cmocka_unit_test(arena_dry_run_tells_the_size),
        cmocka_unit_test(sbuf_builds_text),
        cmocka_unit_test(sbuf_take_of_nothing_is_an_empty_string),
        cmocka_unit_test(sbuf_survives_every_failed_allocation),
        cmocka_unit_test(reader_reads_little_endian),
        cmocka_unit_test(reader_stops_at_the_end),
        cmocka_unit_test(reader_reads_varints),
        cmocka_unit_test(reader_refuses_long_varints),
        cmocka_unit_test(rng_known_answers),
        cmocka_unit_test(rng_unit_is_the_upper_53_bits),
        cmocka_unit_test(rng_below_is_in_range_and_even),
        cmocka_unit_test(rng_normal_has_its_moments),
        cmocka_unit_test(hash_known_answers),
        cmocka_unit_test(hash_fields_are_length_prefixed),
        cmocka_unit_test(hash_fields_do_not_run_together),
        cmocka_unit_test(hash_survives_every_failed_allocation),
        cmocka_unit_test(time_goes_forward),
    };
    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
