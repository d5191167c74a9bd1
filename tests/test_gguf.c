/* test_gguf.c - GGUF files: reading what another hand wrote, hostile bytes, writing.
 *
 * Fixtures: tools/make_gguf_fixtures.py (gguf 0.19.0).
 */
#include "testing.h"

#include <stdlib.h>

#include "format/format_int.h"

static gguf_file open_fixture(const char *name) {
    gguf_file g;
    gist_error err = { 0 };
    char path[TEST_PATH];
    assert_ok(gguf_open(&g, NULL, test_fixture(path, name), &err), &err);
    return g;
}

/* ---- what is read ---- */

static int64_t whole(const gguf_file *g, const char *key) {
    const gguf_value *v = gguf_value_find(g, key);
    assert_non_null(v);
    assert_false(v->array);
    return gguf_int_at(v, 0);
}

static void check_string(const gguf_file *g, const char *key, const char *want) {
    const char *s;
    size_t len;
    gist_error err = { 0 };
    assert_ok(gguf_get_string(g, key, true, &s, &len, &err), &err);
    assert_int_equal(len, strlen(want));
    assert_memory_equal(s, want, len);
}

static void check_arrays(const gguf_file *g) {
    static const int ints[] = { 3, -1, 4, -1, 5 };
    static const char *const strings[] = { "one", "", "\xe4\xb8\x89" };
    const gguf_value *v;
    gist_error err = { 0 };
    assert_ok(gguf_get_array(g, "a.ints", true, GGUF_I64, &v, &err), &err);
    assert_int_equal(v->count, 5);
    for (size_t i = 0; i < 5; i++) assert_int_equal(gguf_int_at(v, i), ints[i]);
    assert_ok(gguf_get_array(g, "a.floats", true, GGUF_F32, &v, &err), &err);
    assert_true(v->count == 2 && gguf_float_at(v, 0) == 0.5 && gguf_float_at(v, 1) == -2.25);
    assert_ok(gguf_get_array(g, "a.bools", true, GGUF_BOOL, &v, &err), &err);
    assert_true(v->count == 3 && gguf_bool_at(v, 0) && !gguf_bool_at(v, 1) && gguf_bool_at(v, 2));
    assert_ok(gguf_get_array(g, "a.strings", true, GGUF_STRING, &v, &err), &err);
    assert_int_equal(v->count, 3);
    for (size_t i = 0; i < 3; i++) {
        size_t len;
        const char *s = gguf_string_at(v, i, &len);
        assert_int_equal(len, strlen(strings[i]));
        assert_memory_equal(s, strings[i], len);
    }
    assert_ok(gguf_get_array(g, "a.none", false, GGUF_I64, &v, &err), &err);
    assert_null(v);
}

static void check_kinds(const char *name, unsigned version) {
    gguf_file g = open_fixture(name);
    float x = 0;
    bool yes = false;
    int n = 0;
    gist_error err = { 0 };
    assert_int_equal(g.version, version);
    assert_int_equal(g.alignment, 32);
    assert_int_equal(whole(&g, "k.u8"), 200);
    assert_int_equal(whole(&g, "k.i8"), -100);
    assert_int_equal(whole(&g, "k.u16"), 60000);
    assert_int_equal(whole(&g, "k.i16"), -30000);
    assert_int_equal(whole(&g, "k.u32"), 4000000000);
    assert_int_equal(whole(&g, "k.i32"), -2000000000);
    assert_int_equal(whole(&g, "k.i64"), -((int64_t)1 << 62));
    assert_int_equal(whole(&g, "k.u64"), INT64_MAX); /* 2^63 does not fit */
    assert_ok(gguf_get_int(&g, "k.u16", true, 0, 65535, &n, &err), &err);
    assert_int_equal(n, 60000);
    assert_ok(gguf_get_float(&g, "k.f32", true, 0, 1, &x, &err), &err);
    assert_true(x == 0.1f);
    assert_true(gguf_float_at(gguf_value_find(&g, "k.f64"), 0) == 0.1);
    assert_ok(gguf_get_bool(&g, "k.yes", true, &yes, &err), &err);
    assert_true(yes);
    assert_ok(gguf_get_bool(&g, "k.no", true, &yes, &err), &err);
    assert_false(yes);
    check_string(&g, "k.string", "gr\xc3\xbc\xc3\x9f" "e");
    check_arrays(&g);

    char shape[64];
    float cube[24];
    assert_int_equal(g.count, 3);
    const tensor_view *t = gguf_find(&g, "m.weight");
    assert_string_equal(tensor_shape_text(t, shape), "[2,3]");
    assert_int_equal(gguf_find(&g, "b.vector")->type, DT_F16);
    t = gguf_find(&g, "z.cube");
    assert_string_equal(tensor_shape_text(t, shape), "[2,3,4]");
    dt_to_f32(cube, t->data, t->type, 24);
    for (int i = 0; i < 24; i++) assert_true(cube[i] == (float)i);
    assert_null(gguf_find(&g, "absent"));
    gguf_close(&g);
}

static void reads_version_3(void **state) {
    (void)state;
    check_kinds("gguf/kinds.gguf", 3);
}

static void reads_version_2(void **state) {
    (void)state;
    check_kinds("gguf/v2.gguf", 2);
}

static void big_endian_is_refused(void **state) {
    (void)state;
    char path[TEST_PATH];
    gguf_file g;
    gist_error err = { 0 };
    test_fixture(path, "gguf/big.gguf");
    assert_fails(gguf_open(&g, NULL, path, &err), &err, GIST_ERR_UNSUPPORTED, "big-endian");
}

static void wrong_values_are_named(void **state) {
    (void)state;
    gguf_file g = open_fixture("gguf/kinds.gguf");
    int n = 7;
    float x = 7;
    bool b = true;
    const char *s = NULL;
    size_t len = 7;
    const gguf_value *v = NULL;
    gist_error e = { 0 };
#define REFUSED(call, text)                                 \
    do {                                                    \
        e = (gist_error){ 0 };                              \
        assert_fails(call, &e, GIST_ERR_FORMAT, text);      \
    } while (0)
    REFUSED(gguf_get_int(&g, "k.u8", true, 1, 100, &n, &e), "k.u8: expected an integer from 1 to 100, found 200");
    REFUSED(gguf_get_int(&g, "k.u64", true, 0, 100, &n, &e), "found 9223372036854775807");
    REFUSED(gguf_get_int(&g, "k.f32", true, 0, 100, &n, &e), "found the number 0.1");
    REFUSED(gguf_get_int(&g, "k.yes", true, 0, 100, &n, &e), "found true");
    REFUSED(gguf_get_int(&g, "a.ints", true, 0, 100, &n, &e), "found an array of 5 i32");
    REFUSED(gguf_get_int(&g, "k.gone", true, 0, 100, &n, &e), "kinds.gguf: key k.gone is missing");
    REFUSED(gguf_get_float(&g, "k.f32", true, 1, 2, &x, &e), "expected a float from 1 to 2, found the number 0.1");
    REFUSED(gguf_get_float(&g, "k.u8", true, 0, 300, &x, &e), "found 200");
    REFUSED(gguf_get_bool(&g, "k.string", true, &b, &e), "expected a bool, found the string \"gr");
    REFUSED(gguf_get_string(&g, "k.no", true, &s, &len, &e), "expected a string, found false");
    REFUSED(gguf_get_array(&g, "a.strings", true, GGUF_F32, &v, &e), "array of floats, found an array of 3 string");
    REFUSED(gguf_get_array(&g, "k.u8", true, GGUF_I64, &v, &e), "expected an array of integers, found 200");
    assert_true(n == 7 && x == 7 && b && !s && len == 7 && !v);
    e = (gist_error){ 0 };
    assert_ok(gguf_get_int(&g, "k.gone", false, 0, 1, &n, &e), &e);
    assert_int_equal(n, 7);
    gguf_close(&g);
}

/* ---- hostile bytes ---- */

/* Accepted views lie in the bytes. */
static gist_status judge(const uint8_t *bytes, size_t len) {
    gguf_file g;
    gist_error err = { 0 };
    gist_status status = gguf_parse(&g, NULL, bytes, len, "hostile", &err);
    assert_int_equal(status, err.code);
    if (status != GIST_OK) return status;
    for (size_t i = 0; i < g.count; i++) {
        const tensor_view *t = &g.tensors[i];
        const uint8_t *p = t->data;
        assert_true(p >= bytes && t->bytes <= (size_t)(bytes + len - p));
        assert_int_equal(t->bytes, dt_bytes(t->type, tensor_count(t)));
    }
    gguf_close(&g);
    return status;
}

static void every_truncation_is_refused(void **state) {
    (void)state;
    char path[TEST_PATH];
    size_t len;
    uint8_t *all = test_read(test_fixture(path, "gguf/kinds.gguf"), &len);
    assert_int_equal(judge(all, len), GIST_OK);
    for (size_t n = 0; n < len; n++) {
        uint8_t *cut = malloc(n ? n : 1); /* so that a sanitizer sees the end */
        assert_non_null(cut);
        memcpy(cut, all, n);
        gist_status status = judge(cut, n);
        if (n < len - 32) assert_int_not_equal(status, GIST_OK); /* the last padding may be missing */
        free(cut);
    }
    free(all);
}

static void no_bit_flip_leads_outside(void **state) {
    (void)state;
    char path[TEST_PATH];
    size_t len;
    uint8_t *all = test_read(test_fixture(path, "gguf/kinds.gguf"), &len);
    for (size_t i = 0; i < len; i++)
        for (int bit = 0; bit < 8; bit++) {
            all[i] = (uint8_t)(all[i] ^ 1u << bit);
            judge(all, len);
            all[i] = (uint8_t)(all[i] ^ 1u << bit);
        }
    free(all);
}

static void put(sbuf *s, uint64_t v, size_t bytes) {
    sbuf_add(s, &v, bytes);
}

static void put_text(sbuf *s, const char *text) {
    put(s, strlen(text), 8);
    sbuf_str(s, text);
}

static void begin(sbuf *s, unsigned version, uint64_t tensors, uint64_t keys) {
    sbuf_init(s, NULL);
    sbuf_str(s, "GGUF");
    put(s, version, 4);
    put(s, tensors, 8);
    put(s, keys, 8);
}

static void put_info(sbuf *s, const char *name, int dims, const uint64_t *extent, unsigned type, uint64_t offset) {
    put_text(s, name);
    put(s, (uint64_t)dims, 4);
    for (int i = 0; i < dims; i++) put(s, extent[i % 4], 8);
    put(s, type, 4);
    put(s, offset, 8);
}

static void refuse(sbuf *s, gist_status code, const char *text) {
    gguf_file g, before;
    memset(&g, 0x5a, sizeof g);
    before = g;
    gist_error err = { 0 };
    assert_fails(gguf_parse(&g, NULL, s->p, s->len, "bad.gguf", &err), &err, code, text);
    assert_memory_equal(&g, &before, sizeof g);
    sbuf_free(s);
}

static void bad_heads(void **state) {
    (void)state;
    sbuf s;
    sbuf_init(&s, NULL);
    sbuf_str(&s, "GGML and more");
    refuse(&s, GIST_ERR_FORMAT, "not a GGUF file");
    begin(&s, 1, 0, 0);
    refuse(&s, GIST_ERR_UNSUPPORTED, "version 1; this program reads 2 and 3");
    begin(&s, 4, 0, 0);
    refuse(&s, GIST_ERR_UNSUPPORTED, "version 4");
    begin(&s, 3, 0, UINT64_MAX);
    refuse(&s, GIST_ERR_FORMAT, "18446744073709551615 keys");
    begin(&s, 3, (uint64_t)1 << 40, 0);
    refuse(&s, GIST_ERR_FORMAT, "1099511627776 tensors");
}

static void put_key(sbuf *s, const char *key, unsigned kind, uint64_t v, size_t bytes) {
    put_text(s, key);
    put(s, kind, 4);
    put(s, v, bytes);
}

static void put_array(sbuf *s, unsigned kind, uint64_t count) {
    begin(s, 3, 0, 1);
    put_key(s, "array", GGUF_ARRAY, kind, 4);
    put(s, count, 8);
    put(s, 0, 8);
}

static void bad_keys(void **state) {
    (void)state;
    sbuf s;
    begin(&s, 3, 0, 2);
    put_key(&s, "twice", GGUF_U32, 1, 4);
    put_key(&s, "twice", GGUF_U32, 2, 4);
    refuse(&s, GIST_ERR_FORMAT, "key twice is there twice");
    begin(&s, 3, 0, 1);
    put_key(&s, "odd", 13, 1, 8);
    refuse(&s, GIST_ERR_FORMAT, "odd has kind 13, expected 0 to 12");
    begin(&s, 3, 0, 1);
    put_key(&s, "truth", GGUF_BOOL, 2, 8);
    refuse(&s, GIST_ERR_FORMAT, "truth: expected bool, found 2");
    begin(&s, 3, 0, 1);
    put_key(&s, "", GGUF_U32, 2, 8);
    refuse(&s, GIST_ERR_FORMAT, "a key of 0 bytes");
    begin(&s, 3, 0, 1);
    put_key(&s, "a\nb", GGUF_U32, 2, 8);
    refuse(&s, GIST_ERR_FORMAT, "\"a?b\" has a control character");
    begin(&s, 3, 0, 1);
    put_key(&s, "a\xff", GGUF_U32, 2, 8);
    refuse(&s, GIST_ERR_FORMAT, "not UTF-8");
    begin(&s, 3, 0, 1);
    put_key(&s, "text", GGUF_STRING, UINT64_MAX, 8);
    refuse(&s, GIST_ERR_FORMAT, "cut off");
    put_array(&s, GGUF_ARRAY, 1);
    refuse(&s, GIST_ERR_UNSUPPORTED, "array is an array of arrays");
    put_array(&s, GGUF_U64, (uint64_t)1 << 61);
    refuse(&s, GIST_ERR_FORMAT, "cut off");
    put_array(&s, GGUF_STRING, (uint64_t)1 << 60);
    refuse(&s, GIST_ERR_FORMAT, "cut off");
    put_array(&s, GGUF_STRING, 2);
    refuse(&s, GIST_ERR_FORMAT, "cut off");
    static const int alignments[] = { 0, 3, 48, 1 << 21 };
    for (int i = 0; i < 4; i++) {
        begin(&s, 3, 0, 1);
        put_key(&s, "general.alignment", GGUF_U32, (uint64_t)alignments[i], 4);
        refuse(&s, GIST_ERR_FORMAT, "general.alignment");
    }
}

/* One tensor whose data begin right behind the header's padding. */
static void one(sbuf *s, const char *name, int dims, const uint64_t *extent, unsigned type, uint64_t offset,
                size_t data) {
    begin(s, 3, 1, 0);
    put_info(s, name, dims, extent, type, offset);
    while (s->len % 32) put(s, 0, 1);
    for (size_t i = 0; i < data; i++) put(s, 0, 1);
}

static void bad_tensors(void **state) {
    (void)state;
    static const uint64_t small[4] = { 32, 2, 1, 1 }, zero[4] = { 32, 0, 1, 1 }, odd[4] = { 48, 2, 1, 1 };
    static const uint64_t huge[4] = { (uint64_t)1 << 40, (uint64_t)1 << 40, 1, 1 }, above[4] = { 32, UINT64_MAX, 1, 1 };
    sbuf s;
    one(&s, "t", 0, small, 0, 0, 256);
    refuse(&s, GIST_ERR_FORMAT, "\"t\" has 0 dimensions, expected 1 to 4");
    one(&s, "t", 5, small, 0, 0, 256);
    refuse(&s, GIST_ERR_FORMAT, "has 5 dimensions");
    one(&s, "t", 2, zero, 0, 0, 256);
    refuse(&s, GIST_ERR_FORMAT, "has an extent of 0");
    one(&s, "t", 2, above, 0, 0, 256);
    refuse(&s, GIST_ERR_FORMAT, "has an extent of 18446744073709551615");
    one(&s, "t", 2, huge, 0, 0, 256);
    refuse(&s, GIST_ERR_FORMAT, "overflows");
    one(&s, "t", 2, odd, 8, 0, 256);
    refuse(&s, GIST_ERR_FORMAT, "rows of 48, expected a multiple of 32 (q8_0)");
    one(&s, "t", 2, small, 12, 0, 256);
    refuse(&s, GIST_ERR_FORMAT, "rows of 32, expected a multiple of 256 (q4_K)");
    one(&s, "t", 2, small, 7, 0, 256);
    refuse(&s, GIST_ERR_UNSUPPORTED, "\"t\" is of type Q5_1 (7)");
    one(&s, "t", 2, small, 4, 0, 256);
    refuse(&s, GIST_ERR_UNSUPPORTED, "\"t\" is of type 4;");
    one(&s, "t", 2, small, 4000000000, 0, 256);
    refuse(&s, GIST_ERR_UNSUPPORTED, "is of type 4000000000;");
    one(&s, "t", 2, small, 0, 32, 288);
    refuse(&s, GIST_ERR_FORMAT, "at offset 32, expected 0 (hole)");
    one(&s, "t", 2, small, 0, 5, 288);
    refuse(&s, GIST_ERR_FORMAT, "(alignment)");
    one(&s, "t", 2, small, 0, 0, 255);
    refuse(&s, GIST_ERR_FORMAT, "takes 256 bytes at offset 0 of 255");
    one(&s, "t", 2, small, 0, 0, 257);
    refuse(&s, GIST_ERR_FORMAT, "the tensors end at byte 256 of 257");
    begin(&s, 3, 2, 0);
    put_info(&s, "same", 2, small, 0, 0);
    put_info(&s, "same", 2, small, 0, 256);
    for (int i = 0; i < 800; i++) put(&s, 0, 1);
    s.len = (s.len - 800 + 31) / 32 * 32 + 512;
    refuse(&s, GIST_ERR_FORMAT, "tensor \"same\" is there twice");
    begin(&s, 3, 2, 0);
    put_info(&s, "a", 2, small, 0, 0);
    put_info(&s, "b", 2, small, 0, 224);
    for (int i = 0; i < 800; i++) put(&s, 0, 1);
    refuse(&s, GIST_ERR_FORMAT, "\"b\" is at offset 224, expected 256 (overlap)");
}

/* ---- writing ---- */

typedef struct saved {
    const tensor_view *t;
    gist_status fail; /* of the second tensor */
    size_t more;      /* bytes too many */
} saved;

static gist_status write_one(void *ctx, size_t i, gguf_writer *w, gist_error *err) {
    const saved *s = ctx;
    if (i == 1 && s->fail) return err_set(err, s->fail, "no more");
    size_t half = s->t[i].bytes / 2; /* in pieces */
    gguf_write(w, s->t[i].data, half);
    gguf_write(w, (const uint8_t *)s->t[i].data + half, s->t[i].bytes - half + s->more);
    return GIST_OK;
}

static const float numbers[80];

static void some_tensors(tensor_view t[3]) {
    t[0] = (tensor_view){ "second", DT_F32, 2, { 2, 3, 1, 1 }, numbers, 24 };
    t[1] = (tensor_view){ "first", DT_Q8_0, 2, { 3, 64, 1, 1 }, numbers, 204 };
    t[2] = (tensor_view){ "vector", DT_F16, 1, { 7, 1, 1, 1 }, numbers, 14 };
}

static void add_all(gguf_writer *w, const tensor_view *t) {
    gguf_add_string(w, "general.architecture", "llama", 5);
    gguf_add_int(w, "n.u8", GGUF_U8, 255);
    gguf_add_int(w, "n.i64", GGUF_I64, -5);
    gguf_add_float(w, "x", 0.25f);
    gguf_add_bool(w, "yes", true);
    gguf_add_array(w, "texts", GGUF_STRING, 2);
    gguf_put_string(w, "a", 1);
    gguf_put_string(w, "", 0);
    gguf_add_array(w, "none", GGUF_I32, 0);
    gguf_add_array(w, "scores", GGUF_F32, 1);
    gguf_put_float(w, -1.5f);
    for (int i = 0; i < 3; i++) gguf_add_tensor(w, &t[i]);
}

static void check_written(const gguf_file *g, const tensor_view *t) {
    const gguf_value *v;
    gist_error err = { 0 };
    assert_int_equal(g->version, 3);
    check_string(g, "general.architecture", "llama");
    assert_int_equal(whole(g, "n.u8"), 255);
    assert_int_equal(whole(g, "n.i64"), -5);
    assert_ok(gguf_get_array(g, "texts", true, GGUF_STRING, &v, &err), &err);
    assert_int_equal(v->count, 2);
    assert_ok(gguf_get_array(g, "none", true, GGUF_I64, &v, &err), &err);
    assert_int_equal(v->count, 0);
    for (int i = 0; i < 3; i++) {
        const tensor_view *got = gguf_find(g, t[i].name);
        assert_non_null(got);
        assert_true(got->type == t[i].type && got->dims == t[i].dims && got->bytes == t[i].bytes);
        assert_memory_equal(got->shape, t[i].shape, sizeof t[i].shape);
        assert_memory_equal(got->data, t[i].data, got->bytes);
        assert_int_equal(((uintptr_t)got->data - (uintptr_t)g->map.data) % 32, 0);
    }
}

static void written_files_are_read(void **state) {
    (void)state;
    char path[TEST_PATH], copy_path[TEST_PATH];
    tensor_view t[3];
    some_tensors(t);
    saved s = { .t = t };
    gguf_writer w;
    gguf_file g;
    gist_error err = { 0 };
    gguf_writer_init(&w, NULL);
    add_all(&w, t);
    assert_ok(gguf_save(&w, test_tmp(path, "written.gguf"), write_one, &s, &err), &err);
    gguf_writer_free(&w);
    assert_ok(gguf_open(&g, NULL, path, &err), &err);
    check_written(&g, t);
    /* a copy of every value makes the same metadata */
    gguf_writer_init(&w, NULL);
    for (size_t i = 0; i < g.value_count; i++) gguf_add_value(&w, &g.values[i]);
    for (int i = 0; i < 3; i++) gguf_add_tensor(&w, &t[i]);
    assert_ok(gguf_save(&w, test_tmp(copy_path, "copy.gguf"), write_one, &s, &err), &err);
    gguf_writer_free(&w);
    gguf_close(&g);
    assert_ok(gguf_open(&g, NULL, copy_path, &err), &err);
    check_written(&g, t);
    gguf_close(&g);
}

static void misuse_writes_nothing(void **state) {
    (void)state;
    char path[TEST_PATH];
    tensor_view t[3], bad;
    some_tensors(t);
    gguf_writer w;
    test_write(test_tmp(path, "old.gguf"), "old", 3);
    for (int c = 0; c < 9; c++) {
        saved s = { .t = t };
        gist_error err = { 0 };
        gguf_writer_init(&w, NULL);
        if (c == 0) gguf_add_array(&w, "short", GGUF_I32, 2), gguf_put_int(&w, GGUF_I32, 1);
        if (c == 1) gguf_put_int(&w, GGUF_I32, 1);
        if (c == 2) gguf_add_array(&w, "a", GGUF_I32, 1), gguf_put_float(&w, 1);
        add_all(&w, t);
        if (c == 3) gguf_add_bool(&w, "yes", true);
        if (c == 4) gguf_add_tensor(&w, &t[0]);
        bad = t[0];
        bad.name = "";
        if (c == 5) gguf_add_tensor(&w, &bad);
        if (c == 6) gguf_add_bool(&w, "\xff", true);
        if (c == 7) s.more = 1;
        if (c == 8) s.fail = GIST_ERR_CANCELLED;
        assert_fails(gguf_save(&w, path, write_one, &s, &err), &err, c == 8 ? GIST_ERR_CANCELLED : GIST_ERR_USAGE,
                     c == 8 ? "no more" : "cannot be written");
        gguf_writer_free(&w);
        size_t len;
        uint8_t *old = test_read(path, &len);
        assert_true(len == 3 && memcmp(old, "old", 3) == 0);
        free(old);
    }
}

static gist_status read_with(void *ctx, const gist_allocator *alloc) {
    gguf_file g;
    gist_error err = { 0 };
    gist_status status = gguf_open(&g, alloc, ctx, &err);
    if (status == GIST_OK) gguf_close(&g);
    return status;
}

static gist_status write_with(void *ctx, const gist_allocator *alloc) {
    tensor_view t[3];
    some_tensors(t);
    saved s = { .t = t };
    gguf_writer w;
    gist_error err = { 0 };
    gguf_writer_init(&w, alloc);
    add_all(&w, t);
    gist_status status = gguf_save(&w, ctx, write_one, &s, &err);
    gguf_writer_free(&w);
    return status;
}

static void lost_allocations_are_reported(void **state) {
    (void)state;
    char path[TEST_PATH], out[TEST_PATH];
    assert_true(test_each_alloc(read_with, test_fixture(path, "gguf/kinds.gguf")) > 20);
    assert_true(test_each_alloc(write_with, test_tmp(out, "alloc.gguf")) > 10);
}

/* ---- weights ---- */

static void weights_of_a_file(void **state) {
    (void)state;
    char path[TEST_PATH];
    weights w;
    gist_error err = { 0 };
    hash128 a, b;
    assert_ok(weights_open(&w, NULL, test_fixture(path, "gguf/kinds.gguf"), &err), &err);
    assert_non_null(w.gguf);
    assert_int_equal(weights_count(&w), 3);
    assert_string_equal(weights_at(&w, 0)->name, "b.vector");
    const tensor_view *t = weights_find(&w, "m.weight");
    assert_ptr_equal(weights_map(&w, t)->data, w.gguf->map.data);
    assert_ok(weights_hash(&w, NULL, &a, &err), &err);
    weights_close(&w);
    assert_ok(weights_open(&w, NULL, test_fixture(path, "gguf/v2.gguf"), &err), &err);
    assert_ok(weights_hash(&w, NULL, &b, &err), &err);
    weights_close(&w);
    assert_memory_equal(a.b, b.b, sizeof a.b);
    /* known by its first bytes too */
    size_t len;
    uint8_t *bytes = test_read(path, &len);
    test_write(test_tmp(path, "no-suffix"), bytes, len);
    free(bytes);
    assert_ok(weights_open(&w, NULL, path, &err), &err);
    weights_close(&w);
    assert_false(gguf_is_file("."));
    assert_false(gguf_is_file("/no/such/file"));
}

static gist_status nothing(void *ctx, size_t i, gguf_writer *w, gist_error *err) {
    (void)ctx, (void)i, (void)w, (void)err;
    return GIST_OK;
}

static void split_files_are_refused(void **state) {
    (void)state;
    char path[TEST_PATH];
    weights w;
    gguf_writer g;
    gist_error err = { 0 };
    gguf_writer_init(&g, NULL);
    gguf_add_int(&g, "split.count", GGUF_U16, 3);
    assert_ok(gguf_save(&g, test_tmp(path, "split.gguf"), nothing, NULL, &err), &err);
    gguf_writer_free(&g);
    assert_fails(weights_open(&w, NULL, path, &err), &err, GIST_ERR_UNSUPPORTED, "is one of 3 parts (split.count)");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_version_3),
        cmocka_unit_test(reads_version_2),
        cmocka_unit_test(big_endian_is_refused),
        cmocka_unit_test(wrong_values_are_named),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(no_bit_flip_leads_outside),
        cmocka_unit_test(bad_heads),
        cmocka_unit_test(bad_keys),
        cmocka_unit_test(bad_tensors),
        cmocka_unit_test(written_files_are_read),
        cmocka_unit_test(misuse_writes_nothing),
        cmocka_unit_test(lost_allocations_are_reported),
        cmocka_unit_test(weights_of_a_file),
        cmocka_unit_test(split_files_are_refused),
    };
    return cmocka_run_group_tests_name("gguf", tests, NULL, NULL);
}
