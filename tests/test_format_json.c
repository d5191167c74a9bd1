/* test_format_json.c - bounded JSON: what parses, what does not and how it is told, typed members. */
#include "testing.h"

#include <limits.h>
#include <stdlib.h>

#include "format/format_int.h"

static json_t *parse(const char *text) {
    json_t *root = NULL;
    gist_error err = { 0 };
    assert_ok(json_parse(text, strlen(text), "t.json", &root, &err), &err);
    return root;
}

static void refuse(const char *text, size_t len, gist_status code, const char *message) {
    json_t *root = NULL;
    gist_error err = { 0 };
    assert_fails(json_parse(text, len, "t.json", &root, &err), &err, code, message);
    assert_null(root);
}

static void malformed_text(void **state) {
    (void)state;
    static const struct {
        const char *text, *message;
    } bad[] = {
        { "", "empty" },
        { "{", "line 1" },
        { "{} x", "t.json" },
        { "{}{}", "end of file expected" },
        { "{\"a\":1,\"a\":2}", "duplicate" },
        { "{\"a\":{\"b\":1,\"b\":1}}", "duplicate" },
        { "{\"a\":\"\xff\"}", "UTF-8" },
        { "{\"a\":\"\xed\xa0\x80\"}", "UTF-8" },
        { "{\"a\":\"\\u0000\"}", "t.json" },
        { "{\"a\":1e999}", "t.json" },
        { "{\"a\":99999999999999999999}", "t.json" },
        { "[1,]", "line 1" },
        { "{\"a\n\":1}", "t.json" },
        { "17", "t.json" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        refuse(bad[i].text, strlen(bad[i].text), GIST_ERR_FORMAT, bad[i].message);
    refuse("{}\0", 3, GIST_ERR_FORMAT, NULL);
}

static void messages_are_printable(void **state) {
    (void)state;
    json_t *root = NULL;
    gist_error err = { 0 };
    const char text[] = "{\"a\": \x1b[31mboo}";
    assert_fails(json_parse(text, strlen(text), "t.json", &root, &err), &err, GIST_ERR_FORMAT, NULL);
    for (const char *p = err.msg; *p; p++) assert_in_range(*p, 0x20, 0x7e);
}

static void bounds(void **state) {
    (void)state;
    char deep[132] = { 0 };
    memset(deep, '[', 64);
    memset(deep + 64, ']', 64);
    json_decref(parse(deep));
    memset(deep, '[', 65);
    memset(deep + 65, ']', 65);
    refuse(deep, 130, GIST_ERR_FORMAT, "deeper than 64");
    json_decref(parse("{\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\\\"[\":1}"));

    size_t many = 16000010;
    char *wide = malloc(many);
    assert_non_null(wide);
    wide[0] = '[';
    for (size_t i = 1; i < many; i++) wide[i] = i % 2 ? '1' : ',';
    wide[many - 1] = ']';
    refuse(wide, many, GIST_ERR_LIMIT, "more than 8000000");
    refuse(wide, 100000001, GIST_ERR_LIMIT, "at most 100000000"); /* judged before a byte is read */
    free(wide);
}

static void long_names_leave_room(void **state) {
    (void)state;
    char what[2000];
    memset(what, 'd', sizeof what);
    memcpy(what + sizeof what - 8, "/t.json", 8);
    json_t *root = NULL;
    gist_error err = { 0 };
    assert_fails(json_parse("", 0, what, &root, &err), &err, GIST_ERR_FORMAT, "/t.json: empty, expected JSON");
}

static void files(void **state) {
    (void)state;
    char path[TEST_PATH];
    json_t *root = NULL;
    gist_error err = { 0 };
    test_tmp(path, "a.json");
    test_write(path, "{\"x\": [1, 2]}", 13);
    assert_ok(json_read_file(path, &root, &err), &err);
    assert_int_equal(json_array_size(json_object_get(root, "x")), 2);
    json_decref(root);
    root = NULL;
    test_write(path, "", 0);
    assert_fails(json_read_file(path, &root, &err), &err, GIST_ERR_FORMAT, "a.json: empty");
    err = (gist_error){ 0 };
    assert_fails(json_read_file(test_tmp(path, "none.json"), &root, &err), &err, GIST_ERR_IO, "none.json");
    assert_null(root);
}

static void ints(void **state) {
    (void)state;
    json_t *o =
        parse("{\"a\":7,\"lo\":-5,\"r\":7.0,\"s\":\"7\",\"n\":null,\"big\":4294967303,\"e\":[],\"o\":{},\"t\":true}");
    gist_error err = { 0 };
    int v = 42;
    assert_ok(json_get_int(o, "a", true, 0, 10, &v, "c", &err), &err);
    assert_int_equal(v, 7);
    assert_ok(json_get_int(o, "lo", true, INT_MIN, INT_MAX, &v, "c", &err), &err);
    assert_int_equal(v, -5);
    assert_ok(json_get_int(o, "a", true, 7, 7, &v, "c", &err), &err);
    v = 42;
    assert_ok(json_get_int(o, "absent", false, 0, 10, &v, "c", &err), &err);
    assert_ok(json_get_int(o, "n", false, 0, 10, &v, "c", &err), &err);
    assert_int_equal(v, 42);
    static const struct {
        const char *key, *message;
    } bad[] = {
        { "absent", "c: \"absent\" is missing" },
        { "n", "\"n\" is missing" },
        { "lo", "\"lo\" must be an integer in [0,10], found -5" },
        { "big", "found 4294967303" },
        { "r", "found 7" },
        { "s", "found \"7\"" },
        { "e", "found an array" },
        { "o", "found an object" },
        { "t", "found true" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        gist_error e = { 0 };
        assert_fails(json_get_int(o, bad[i].key, true, 0, 10, &v, "c", &e), &e, GIST_ERR_FORMAT, bad[i].message);
        assert_int_equal(v, 42);
    }
    gist_error e = { 0 };
    assert_fails(json_get_int(o, "a", true, 8, 10, &v, "c", &e), &e, GIST_ERR_FORMAT, "[8,10], found 7");
    json_decref(o);
}

static void reals(void **state) {
    (void)state;
    json_t *o = parse("{\"eps\":1e-5,\"theta\":10000,\"big\":1e300,\"s\":\"x\",\"neg\":-0.5}");
    gist_error err = { 0 };
    float v = 42;
    assert_ok(json_get_float(o, "eps", true, 0, 1, &v, "c", &err), &err);
    assert_true(v == 1e-5f);
    assert_ok(json_get_float(o, "theta", true, 1, 1e9, &v, "c", &err), &err);
    assert_true(v == 10000.0f);
    v = 42;
    assert_fails(json_get_float(o, "neg", true, 0, 1, &v, "c", &err), &err, GIST_ERR_FORMAT, "[0,1], found -0.5");
    err = (gist_error){ 0 };
    assert_fails(json_get_float(o, "big", true, 0, 1e308, &v, "c", &err), &err, GIST_ERR_FORMAT, "1e+300");
    err = (gist_error){ 0 };
    assert_fails(json_get_float(o, "s", true, 0, 1, &v, "c", &err), &err, GIST_ERR_FORMAT, "found \"x\"");
    err = (gist_error){ 0 };
    assert_fails(json_get_float(o, "none", true, 0, 1, &v, "c", &err), &err, GIST_ERR_FORMAT, "missing");
    err = (gist_error){ 0 };
    assert_ok(json_get_float(o, "none", false, 0, 1, &v, "c", &err), &err);
    assert_true(v == 42);
    json_decref(o);
}

static void bools_and_strings(void **state) {
    (void)state;
    json_t *o = parse("{\"t\":true,\"f\":false,\"i\":1,\"s\":\"text\",\"esc\":\"\\u001b[1m\"}");
    gist_error err = { 0 };
    bool b = false;
    const char *s = "default";
    assert_ok(json_get_bool(o, "t", true, &b, "c", &err), &err);
    assert_true(b);
    assert_ok(json_get_bool(o, "f", true, &b, "c", &err), &err);
    assert_false(b);
    assert_fails(json_get_bool(o, "i", true, &b, "c", &err), &err, GIST_ERR_FORMAT, "true or false, found 1");
    err = (gist_error){ 0 };
    assert_fails(json_get_bool(o, "esc", true, &b, "c", &err), &err, GIST_ERR_FORMAT, "found \"?[1m\"");
    err = (gist_error){ 0 };
    assert_ok(json_get_string(o, "x", false, &s, "c", &err), &err);
    assert_string_equal(s, "default");
    assert_fails(json_get_string(o, "i", false, &s, "c", &err), &err, GIST_ERR_FORMAT, "a string, found 1");
    assert_string_equal(s, "default");
    err = (gist_error){ 0 };
    assert_ok(json_get_string(o, "s", true, &s, "c", &err), &err);
    assert_string_equal(s, "text");
    json_decref(o);
}

static void not_an_object(void **state) {
    (void)state;
    json_t *o = parse("[1]");
    gist_error err = { 0 };
    int v = 3;
    assert_fails(json_get_int(o, "a", true, 0, 9, &v, "c", &err), &err, GIST_ERR_FORMAT, "missing");
    json_decref(o);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(malformed_text), cmocka_unit_test(messages_are_printable),
        cmocka_unit_test(bounds),         cmocka_unit_test(long_names_leave_room),
        cmocka_unit_test(files),          cmocka_unit_test(ints),
        cmocka_unit_test(reals),          cmocka_unit_test(bools_and_strings),
        cmocka_unit_test(not_an_object),
    };
    return cmocka_run_group_tests_name("format_json", tests, NULL, NULL);
}
