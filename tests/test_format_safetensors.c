/* test_format_safetensors.c - one safetensors file: files of the safetensors package, round trips, every kind of
 * corruption, truncation at every byte, failing allocations, a full disk.
 *
 * Fixtures: tools/make_format_fixtures.py (torch 2.15.0, safetensors 0.8.0).
 */
#include "testing.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "format/format_int.h"

/* Element i of tensor n in the fixtures. */
static float value_of(size_t n, size_t i) {
    return ((float)((i * 37 + n) % 101) - 50.0f) / 16.0f;
}

static void check_values(const tensor_view *t, size_t n) {
    float f[64];
    size_t count = tensor_count(t);
    assert_in_range(count, 0, 64);
    dt_to_f32(f, t->data, t->type, count);
    for (size_t i = 0; i < count; i++) assert_true(f[i] == value_of(n, i));
}

/* A file of this header, unpadded, and `data` zero bytes.  Free it. */
static uint8_t *blob(const char *header, size_t data, size_t *len) {
    uint64_t n = strlen(header);
    *len = 8 + (size_t)n + data;
    uint8_t *p = calloc(1, *len);
    assert_non_null(p);
    memcpy(p, &n, 8);
    memcpy(p + 8, header, (size_t)n);
    return p;
}

static void refuse_bytes(const void *bytes, size_t len, gist_status code, const char *message) {
    st_file st, before;
    memset(&st, 0x5a, sizeof st);
    before = st;
    gist_error err = { 0 };
    assert_fails(st_parse(&st, NULL, bytes, len, "t", &err), &err, code, message);
    assert_memory_equal(&st, &before, sizeof st);
}

static void refuse(const char *header, size_t data, gist_status code, const char *message) {
    size_t len;
    uint8_t *p = blob(header, data, &len);
    refuse_bytes(p, len, code, message);
    free(p);
}

static st_file accept(const char *header, size_t data, uint8_t **bytes) {
    size_t len;
    st_file st;
    gist_error err = { 0 };
    *bytes = blob(header, data, &len);
    assert_ok(st_parse(&st, NULL, *bytes, len, "t", &err), &err);
    return st;
}

/* ---- reading ---- */

static void python_file(void **state) {
    (void)state;
    char path[TEST_PATH];
    st_file st;
    gist_error err = { 0 };
    assert_ok(st_open(&st, NULL, test_fixture(path, "format/single/model.safetensors"), &err), &err);
    assert_int_equal(st.count, 6); /* of 8: inv_freq in F64 and position_ids in I64 are buffers */
    for (size_t i = 1; i < st.count; i++) assert_true(strcmp(st.tensors[i - 1].name, st.tensors[i].name) < 0);
    assert_string_equal(st_meta_get(&st, "format"), "pt");
    assert_null(st_meta_get(&st, "other"));
    assert_null(st_find(&st, "absent"));
    assert_null(st_find(&st, "f.rotary_emb.inv_freq"));
    static const struct {
        const char *name;
        dtype type;
        int dims;
        int64_t shape[4];
        size_t n;
    } expected[] = {
        { "a.weight", DT_F32, 2, { 2, 3, 1, 1 }, 1 },
        { "b.weight", DT_BF16, 1, { 5, 1, 1, 1 }, 2 },
        { "c.weight", DT_F16, 4, { 2, 1, 2, 3 }, 3 },
        { "d.scale", DT_F32, 0, { 1, 1, 1, 1 }, 4 },
        { "e.empty", DT_BF16, 2, { 0, 4, 1, 1 }, 5 },
        { "model.layers.0.self_attn.q_proj.weight", DT_BF16, 2, { 3, 3, 1, 1 }, 7 },
    };
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        const tensor_view *t = st_find(&st, expected[i].name);
        assert_non_null(t);
        assert_int_equal(t->type, expected[i].type);
        assert_int_equal(t->dims, expected[i].dims);
        assert_memory_equal(t->shape, expected[i].shape, sizeof t->shape);
        assert_int_equal(t->bytes, dt_bytes(t->type, tensor_count(t)));
        check_values(t, expected[i].n);
    }
    st_close(&st);
    assert_null(st.tensors);
}

static void smallest_files(void **state) {
    (void)state;
    uint8_t *p;
    st_file st = accept("{}", 0, &p);
    assert_int_equal(st.count, 0);
    assert_null(st_find(&st, "x"));
    assert_null(st_meta_get(&st, "x"));
    st_close(&st);
    free(p);
    st = accept("{\"__metadata__\":{}}   ", 0, &p);
    st_close(&st);
    free(p);
    /* out of order in the header, in order in the file; unknown members are nobody's business */
    st = accept("{ \"b\": {\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[4,6],\"x\":1},"
                "\n\"a\": {\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}",
                6, &p);
    assert_int_equal(st.count, 2);
    assert_string_equal(st.tensors[0].name, "a");
    assert_ptr_equal((const uint8_t *)st.tensors[0].data + 4, st.tensors[1].data);
    st_close(&st);
    free(p);
}

#define T(dtype, shape, offsets) "{\"a\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}}"

static void bad_headers(void **state) {
    (void)state;
    uint8_t raw[16] = { 0 };
    refuse_bytes(NULL, 0, GIST_ERR_FORMAT, "too few");
    refuse_bytes(raw, 7, GIST_ERR_FORMAT, "t: 7 bytes are too few");
    refuse_bytes(raw, 8, GIST_ERR_FORMAT, "no JSON object");
    raw[0] = 9;
    refuse_bytes(raw, 16, GIST_ERR_FORMAT, "cut off: a header of 9 bytes in a file of 16");
    memset(raw, 0xff, 8);
    refuse_bytes(raw, 16, GIST_ERR_FORMAT, "header of 18446744073709551615 bytes");
    refuse("", 0, GIST_ERR_FORMAT, "no JSON object");
    refuse(" {}", 0, GIST_ERR_FORMAT, "no JSON object");
    refuse("[]", 0, GIST_ERR_FORMAT, "no JSON object");
    refuse("{}\n", 0, GIST_ERR_FORMAT, "no JSON object");
    refuse("{\"a\"}", 0, GIST_ERR_FORMAT, "line 1");
    refuse("{\"\xff\":1}", 0, GIST_ERR_FORMAT, "UTF-8");
    refuse("{\"__metadata__\":1}", 0, GIST_ERR_FORMAT, "__metadata__ is not an object");
    refuse("{\"__metadata__\":{\"k\":1}}", 0, GIST_ERR_FORMAT, "\"k\" is not a string");
    refuse("{\"__metadata__\":{\"k\":\"1\",\"k\":\"1\"}}", 0, GIST_ERR_FORMAT, "duplicate");
}

static void bad_tensors(void **state) {
    (void)state;
    static const struct {
        const char *header;
        size_t data;
        gist_status code;
        const char *message;
    } bad[] = {
        { "{\"a\":1}", 0, GIST_ERR_FORMAT, "\"a\" lacks a dtype" },
        { "{\"a\":{}}", 0, GIST_ERR_FORMAT, "lacks a dtype" },
        { "{\"a\":{\"dtype\":3}}", 0, GIST_ERR_FORMAT, "lacks a dtype" },
        { "{\"a\":{\"dtype\":\"F32\"}}", 0, GIST_ERR_FORMAT, "lacks shape" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[]}}", 4, GIST_ERR_FORMAT, "lacks shape or two" },
        { T("F32", "{}", "[0,4]"), 4, GIST_ERR_FORMAT, "lacks shape" },
        { T("F32", "[1]", "[0]"), 4, GIST_ERR_FORMAT, "two data_offsets" },
        { T("F32", "[1]", "[0,4,4]"), 4, GIST_ERR_FORMAT, "two data_offsets" },
        { T("F32", "[1]", "[0,4.0]"), 4, GIST_ERR_FORMAT, "two data_offsets" },
        { T("F32", "[1]", "[-4,0]"), 4, GIST_ERR_FORMAT, "two data_offsets" },
        { T("F32", "[1]", "[4,0]"), 4, GIST_ERR_FORMAT, "spans bytes 4 to 0" },
        { T("F32", "[1]", "[0,4]"), 3, GIST_ERR_FORMAT, "spans bytes 0 to 4 of 3" },
        { T("F32", "[1]", "[4,8]"), 8, GIST_ERR_FORMAT, "begins at byte 4, expected 0 (hole)" },
        { T("F32", "[1]", "[0,4]"), 5, GIST_ERR_FORMAT, "end at byte 4 of 5" },
        { T("F32", "[2]", "[0,4]"), 4, GIST_ERR_FORMAT, "takes 8 bytes by its shape, 4 by its offsets" },
        { T("F32", "[]", "[0,0]"), 0, GIST_ERR_FORMAT, "takes 4 bytes" },
        { T("F32", "[-1]", "[0,4]"), 4, GIST_ERR_FORMAT, "no natural number" },
        { T("F32", "[1.0]", "[0,4]"), 4, GIST_ERR_FORMAT, "no natural number" },
        { T("F32", "[\"1\"]", "[0,4]"), 4, GIST_ERR_FORMAT, "no natural number" },
        { T("F32", "[4611686018427387904]", "[0,0]"), 0, GIST_ERR_FORMAT, "overflows" },
        { T("F32", "[4294967296,4294967296]", "[0,0]"), 0, GIST_ERR_FORMAT, "overflows" },
        { T("F32", "[9223372036854775807,0]", "[0,0]"), 0, GIST_ERR_FORMAT, "overflows" },
        { T("F32", "[1,1,1,1,1]", "[0,4]"), 4, GIST_ERR_UNSUPPORTED, "5 dimensions, at most 4" },
        { T("F64", "[1]", "[0,8]"), 8, GIST_ERR_UNSUPPORTED, "\"a\" is F64" },
        { T("F8_E4M3", "[1]", "[0,1]"), 1, GIST_ERR_UNSUPPORTED, "F8_E4M3" },
        { T("Q9\\u001b", "[1]", "[0,1]"), 1, GIST_ERR_UNSUPPORTED, "is Q9?;" },
        { T("I64", "[1]", "[0,4]"), 4, GIST_ERR_FORMAT, "takes 8 bytes" }, /* skipped, yet sound */
        { "{\"\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", 4, GIST_ERR_FORMAT, "has 0 bytes" },
        { "{\"a\\nb\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", 4, GIST_ERR_FORMAT,
          "\"a?b\" has a control" },
        { "{\"l.qweight\":{\"dtype\":\"I32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, GIST_ERR_UNSUPPORTED,
          "is I32" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
          "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
          4, GIST_ERR_FORMAT, "expected 4 (overlap)" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
          "\"b\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[2,4]}}",
          4, GIST_ERR_FORMAT, "overlap" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},"
          "\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}",
          4, GIST_ERR_FORMAT, "duplicate" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        refuse(bad[i].header, bad[i].data, bad[i].code, bad[i].message);
}

static void long_names(void **state) {
    (void)state;
    char header[800], name[514];
    memset(name, 'n', sizeof name);
    for (int len = 512; len <= 513; len++) {
        snprintf(header, sizeof header, "{\"%.*s\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", len,
                 name);
        uint8_t *p;
        if (len == 513) {
            refuse(header, 4, GIST_ERR_FORMAT, "has 513 bytes");
        } else {
            st_file st = accept(header, 4, &p);
            st_close(&st);
            free(p);
        }
    }
}

static void buffers_are_skipped(void **state) {
    (void)state;
    static const char *const headers[] = {
        T("I64", "[1]", "[0,8]"),
        T("BOOL", "[1,1,2,2,2]", "[0,8]"),
        "{\"m.rotary_emb.inv_freq\":{\"dtype\":\"F64\",\"shape\":[],\"data_offsets\":[0,8]}}",
    };
    for (size_t i = 0; i < 3; i++) {
        uint8_t *p;
        st_file st = accept(headers[i], 8, &p);
        assert_int_equal(st.count, 0);
        st_close(&st);
        free(p);
    }
}

static void truncation(void **state) {
    (void)state;
    char path[TEST_PATH];
    size_t len;
    uint8_t *p = test_read(test_fixture(path, "format/single/model.safetensors"), &len);
    for (size_t n = 0; n < len; n++) {
        uint8_t *cut = malloc(n ? n : 1); /* a block of its own, so that ASan sees a read past the end */
        assert_non_null(cut);
        memcpy(cut, p, n);
        refuse_bytes(cut, n, GIST_ERR_FORMAT, NULL);
        free(cut);
    }
    free(p);
}

static void files_that_are_none(void **state) {
    (void)state;
    char path[TEST_PATH];
    st_file st;
    gist_error err = { 0 };
    assert_fails(st_open(&st, NULL, test_tmp(path, "none"), &err), &err, GIST_ERR_IO, "none");
    err = (gist_error){ 0 };
    assert_fails(st_open(&st, NULL, "/", &err), &err, GIST_ERR_IO, NULL);
    err = (gist_error){ 0 };
    test_write(test_tmp(path, "empty.safetensors"), "", 0);
    assert_fails(st_open(&st, NULL, path, &err), &err, GIST_ERR_FORMAT, "empty.safetensors: 0 bytes");
}

/* ---- writing ---- */

static const float f32_data[6] = { 1, -2, 3.5f, 0, -0.0f, 1e30f };
static const uint16_t half_data[4] = { 0x3f80, 0x0001, 0xffff, 0x8000 };

static const tensor_view some[] = {
    { "z", DT_F32, 2, { 2, 3, 1, 1 }, f32_data, 24 },
    { "bf", DT_BF16, 1, { 3, 1, 1, 1 }, half_data, 6 },
    { "quo\"te\\\xc3\xa4", DT_F16, 4, { 1, 2, 1, 2 }, half_data, 8 },
    { "nothing", DT_F32, 2, { 5, 0, 1, 1 }, NULL, 0 },
    { "scalar", DT_F32, 0, { 1, 1, 1, 1 }, f32_data + 2, 4 },
};
static const st_meta some_meta[] = { { "z", "last\nline\t\x01" }, { "a", "" }, { "\"\\", "\\\"" } };
enum { SOME = 5, SOME_META = 3 };

static void round_trip(void **state) {
    (void)state;
    char path[TEST_PATH], again[TEST_PATH];
    st_file st;
    gist_error err = { 0 };
    assert_ok(st_save(NULL, test_tmp(path, "a.safetensors"), some, SOME, some_meta, SOME_META, &err), &err);
    assert_ok(st_open(&st, NULL, path, &err), &err);
    assert_int_equal(st.count, SOME);
    for (size_t i = 0; i < SOME; i++) {
        const tensor_view *t = st_find(&st, some[i].name);
        assert_non_null(t);
        assert_int_equal(t->type, some[i].type);
        assert_int_equal(t->dims, some[i].dims);
        assert_memory_equal(t->shape, some[i].shape, sizeof t->shape);
        assert_int_equal(t->bytes, some[i].bytes);
        if (t->bytes) assert_memory_equal(t->data, some[i].data, t->bytes);
    }
    assert_int_equal(st.meta_count, SOME_META);
    for (size_t i = 0; i < SOME_META; i++) assert_string_equal(st_meta_get(&st, some_meta[i].key), some_meta[i].value);
    assert_int_equal((uintptr_t)st.tensors[4].data % 8, 0); /* "z", the first in the file */
    st_close(&st);
    assert_ok(st_save(NULL, test_tmp(again, "b.safetensors"), some, SOME, some_meta, SOME_META, &err), &err);
    assert_true(test_same_file(path, again));
    assert_ok(st_save(NULL, path, NULL, 0, NULL, 0, &err), &err);
    assert_ok(st_open(&st, NULL, path, &err), &err);
    assert_int_equal(st.count, 0);
    st_close(&st);
}

static void exact_bytes(void **state) {
    (void)state;
    char path[TEST_PATH];
    size_t len;
    gist_error err = { 0 };
    st_meta m = { "k", "v" };
    assert_ok(st_save(NULL, test_tmp(path, "x.safetensors"), &some[1], 1, &m, 1, &err), &err);
    uint8_t *p = test_read(path, &len);
    static const char expected[] = "\x58\0\0\0\0\0\0\0{\"__metadata__\":{\"k\":\"v\"},\"bf\":{\"dtype\":\"BF16\","
                                   "\"shape\":[3],\"data_offsets\":[0,6]}}       \x80\x3f\x01\0\xff\xff";
    assert_int_equal(len, sizeof expected - 1);
    assert_memory_equal(p, expected, len);
    free(p);
}

static void not_written(void **state) {
    (void)state;
    char path[TEST_PATH];
    test_tmp(path, "refused.safetensors");
    char longest[514];
    memset(longest, 'x', 513);
    longest[513] = '\0';
    const tensor_view bad[] = {
        { "short", DT_F32, 1, { 2, 1, 1, 1 }, f32_data, 4 },
        { "", DT_F32, 1, { 1, 1, 1, 1 }, f32_data, 4 },
        { NULL, DT_F32, 1, { 1, 1, 1, 1 }, f32_data, 4 },
        { "__metadata__", DT_F32, 1, { 1, 1, 1, 1 }, f32_data, 4 },
        { "neg", DT_F32, 1, { -1, 1, 1, 1 }, f32_data, 4 },
        { "dims", DT_F32, 5, { 1, 1, 1, 1 }, f32_data, 4 },
        { "type", DT_COUNT, 1, { 1, 1, 1, 1 }, f32_data, 4 },
        { "null", DT_F32, 1, { 1, 1, 1, 1 }, NULL, 4 },
        { "\xff", DT_F32, 1, { 1, 1, 1, 1 }, f32_data, 4 },
        { "a\nb", DT_F32, 1, { 1, 1, 1, 1 }, f32_data, 4 },
        { longest, DT_F32, 1, { 1, 1, 1, 1 }, f32_data, 4 },
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        gist_error err = { 0 };
        assert_fails(st_save(NULL, path, &bad[i], 1, NULL, 0, &err), &err, GIST_ERR_USAGE, "cannot be written");
        assert_false(path_exists(path));
    }
    gist_error err = { 0 };
    tensor_view twice[2] = { some[0], some[0] };
    assert_fails(st_save(NULL, path, twice, 2, NULL, 0, &err), &err, GIST_ERR_USAGE, "duplicate");
    err = (gist_error){ 0 };
    st_meta meta[2] = { { "k", "1" }, { "k", "2" } };
    assert_fails(st_save(NULL, path, some, SOME, meta, 2, &err), &err, GIST_ERR_USAGE, "duplicate");
    err = (gist_error){ 0 };
    assert_fails(st_save(NULL, test_tmp(path, "no/such/dir/x"), some, SOME, NULL, 0, &err), &err, GIST_ERR_IO, "dir/x");
}

/* A disk that takes no more than 4096 bytes of a file. */
static void full_disk(void **state) {
    (void)state;
    char path[TEST_PATH];
    gist_error err = { 0 };
    test_write(test_tmp(path, "old.safetensors"), "old", 3);
    float *big = calloc(4096, sizeof(float));
    assert_non_null(big);
    tensor_view t = { "big", DT_F32, 1, { 4096, 1, 1, 1 }, big, 4096 * sizeof(float) };
    struct rlimit before, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 4096;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    gist_status status = st_save(NULL, path, &t, 1, NULL, 0, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, handler);
    assert_fails(status, &err, GIST_ERR_IO, "old.safetensors");
    size_t len;
    uint8_t *p = test_read(path, &len);
    assert_int_equal(len, 3);
    assert_memory_equal(p, "old", 3);
    free(p);
    char tmp[TEST_PATH + 64];
    snprintf(tmp, sizeof tmp, "ls %s.* >/dev/null 2>&1", path);
    assert_int_not_equal(system(tmp), 0); /* no temporary is left */
    err = (gist_error){ 0 };
    assert_ok(st_save(NULL, path, &t, 1, NULL, 0, &err), &err);
    free(big);
}

/* ---- memory ---- */

static gist_status open_one(void *ctx, const gist_allocator *alloc) {
    st_file st;
    gist_error err = { 0 };
    gist_status status = st_open(&st, alloc, ctx, &err);
    if (status == GIST_OK) st_close(&st);
    return status;
}

static void failing_allocations(void **state) {
    (void)state;
    char path[TEST_PATH];
    assert_in_range(test_each_alloc(open_one, test_fixture(path, "format/single/model.safetensors")), 3, 20);
}

/* A save that lost an allocation left the old file as it was, or could do without (the sync of the directory). */
static void failing_allocations_of_save(void **state) {
    (void)state;
    char path[TEST_PATH], good[TEST_PATH], old[TEST_PATH];
    gist_error err = { 0 };
    assert_ok(st_save(NULL, test_tmp(good, "good.safetensors"), some, SOME, some_meta, SOME_META, &err), &err);
    test_write(test_tmp(old, "before.safetensors"), "old", 3);
    test_tmp(path, "memory.safetensors");
    test_alloc t = { .failed = true };
    long n = 0, refused = 0;
    while (t.failed) {
        test_write(path, "old", 3);
        test_alloc_init(&t);
        t.fail_at = ++n;
        err = (gist_error){ 0 };
        gist_status status = st_save(&t.a, path, some, SOME, some_meta, SOME_META, &err);
        assert_int_equal(t.blocks, 0);
        if (status != GIST_OK) {
            assert_fails(status, &err, GIST_ERR_MEMORY, "out of memory");
            refused++;
        }
        assert_true(test_same_file(path, status == GIST_OK ? good : old));
    }
    assert_in_range(refused, 3, 50);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(python_file),         cmocka_unit_test(smallest_files),
        cmocka_unit_test(bad_headers),         cmocka_unit_test(bad_tensors),
        cmocka_unit_test(long_names),          cmocka_unit_test(buffers_are_skipped),
        cmocka_unit_test(truncation),          cmocka_unit_test(files_that_are_none),
        cmocka_unit_test(round_trip),          cmocka_unit_test(exact_bytes),
        cmocka_unit_test(not_written),         cmocka_unit_test(full_disk),
        cmocka_unit_test(failing_allocations), cmocka_unit_test(failing_allocations_of_save),
    };
    return cmocka_run_group_tests_name("format_safetensors", tests, NULL, NULL);
}
