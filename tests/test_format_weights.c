/* test_format_weights.c - Hugging Face directories: single, sharded, broken; the hash over all weights.
 *
 * Fixtures: tools/make_format_fixtures.py (torch 2.15.0, safetensors 0.8.0); single/ and sharded/ hold equal tensors.
 */
#include "testing.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "format/format_int.h"

/* A fresh directory of this test. */
static char *new_dir(char out[TEST_PATH]) {
    static int n;
    char name[16];
    snprintf(name, sizeof name, "dir%d", n++);
    assert_int_equal(mkdir(test_tmp(out, name), 0777), 0);
    return out;
}

static void put(const char *dir, const char *name, const char *text) {
    char path[2 * TEST_PATH];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    test_write(path, text, strlen(text));
}

static void put_tensors(const char *dir, const char *name, const tensor_view *t, size_t n) {
    char path[2 * TEST_PATH];
    gist_error err = { 0 };
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_ok(st_save(NULL, path, t, n, NULL, 0, &err), &err);
}

static void refuse(const char *dir, gist_status code, const char *message) {
    weights w, before;
    memset(&w, 0x5a, sizeof w);
    before = w;
    gist_error err = { 0 };
    assert_fails(weights_open(&w, NULL, dir, &err), &err, code, message);
    assert_memory_equal(&w, &before, sizeof w);
}

static weights open_dir(const char *dir) {
    weights w;
    gist_error err = { 0 };
    assert_ok(weights_open(&w, NULL, dir, &err), &err);
    return w;
}

static void hash_text(const weights *w, pool *p, char out[33]) {
    hash128 h;
    gist_error err = { 0 };
    assert_ok(weights_hash(w, p, &h, &err), &err);
    hash_hex(h, out);
}

/* ---- opening ---- */

static void single_and_sharded(void **state) {
    (void)state;
    char path[TEST_PATH], a[33], b[33];
    weights one = open_dir(test_fixture(path, "format/single"));
    weights two = open_dir(test_fixture(path, "format/sharded"));
    assert_int_equal(one.file_count, 1);
    assert_int_equal(two.file_count, 2);
    assert_int_equal(weights_count(&one), 6);
    assert_int_equal(weights_count(&two), 6);
    for (size_t i = 0; i < 6; i++) {
        const tensor_view *x = weights_at(&one, i), *y = weights_at(&two, i);
        assert_string_equal(x->name, y->name);
        assert_ptr_equal(weights_find(&two, x->name), y);
        assert_int_equal(x->bytes, y->bytes);
        assert_memory_equal(x->data, y->data, x->bytes);
        const file_map *m = weights_map(&two, y);
        assert_non_null(m);
        assert_true((const uint8_t *)y->data >= m->data && (const uint8_t *)y->data + y->bytes <= m->data + m->size);
        assert_null(weights_map(&one, y));
    }
    assert_null(weights_find(&one, "absent"));
    hash_text(&one, NULL, a);
    hash_text(&two, NULL, b);
    assert_string_equal(a, b);
    weights_close(&one);
    weights_close(&two);
}

static void no_directory(void **state) {
    (void)state;
    char dir[TEST_PATH], path[TEST_PATH];
    refuse(test_tmp(path, "absent"), GIST_ERR_IO, "is not a directory");
    test_write(path, "x", 1);
    refuse(path, GIST_ERR_IO, "is not a directory");
    refuse(new_dir(dir), GIST_ERR_IO, "holds neither model.safetensors nor pytorch_model.bin");
    put(dir, "pytorch_model.bin.index.json", "{}");
    refuse(dir, GIST_ERR_FORMAT, "no object \"weight_map\"");
    put(dir, "pytorch_model.bin", "x");
    refuse(dir, GIST_ERR_FORMAT, "no file of torch.save");
    put(dir, "model.safetensors", "x");
    refuse(dir, GIST_ERR_FORMAT, "model.safetensors: 1 bytes");
}

static const float one_float[1] = { 1.5f };
static const tensor_view a_view = { "a", DT_F32, 1, { 1, 1, 1, 1 }, one_float, 4 };
static const tensor_view b_view = { "b", DT_F32, 0, { 1, 1, 1, 1 }, one_float, 4 };

static void bad_indices(void **state) {
    (void)state;
    char dir[TEST_PATH];
    new_dir(dir);
    static const struct {
        const char *text;
        const char *message;
    } bad[] = {
        { "", "index.json: empty" },
        { "{", "line 1" },
        { "[]", "no object \"weight_map\"" },
        { "{}", "no object \"weight_map\"" },
        { "{\"weight_map\":[]}", "no object \"weight_map\"" },
        { "{\"weight_map\":{}}", "weight_map is empty" },
        { "{\"weight_map\":{\"a\":1}}", "\"a\" is not mapped to a file name" },
        { "{\"weight_map\":{\"a\":\"x\",\"a\":\"x\"}}", "duplicate" },
        { "{\"weight_map\":{\"a\":\"\"}}", "plain file name" },
        { "{\"weight_map\":{\"a\":\"..\"}}", "plain file name" },
        { "{\"weight_map\":{\"a\":\"../x.safetensors\"}}", "\"a\" is in \"../x.safetensors\"" },
        { "{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "plain file name" },
        { "{\"weight_map\":{\"a\":\"sub\\\\x\"}}", "plain file name" },
        { "{\"weight_map\":{\"a\":\"x\\u0007\"}}", "\"x?\", expected a plain" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        put(dir, "model.safetensors.index.json", bad[i].text);
        refuse(dir, GIST_ERR_FORMAT, bad[i].message);
    }
    put(dir, "model.safetensors.index.json", "{\"weight_map\":{\"a\":\"1.st\",\"b\":\"2.st\"}}");
    refuse(dir, GIST_ERR_IO, "1.st");
    put_tensors(dir, "1.st", &a_view, 1);
    refuse(dir, GIST_ERR_IO, "2.st");
    put_tensors(dir, "2.st", &a_view, 1);
    refuse(dir, GIST_ERR_FORMAT, "\"b\" should be in 2.st, which does not hold it");
    tensor_view both[2] = { a_view, b_view };
    put_tensors(dir, "2.st", both, 2);
    refuse(dir, GIST_ERR_FORMAT, "tensor \"a\" is in two shards");
    put(dir, "2.st", "not a shard at all");
    refuse(dir, GIST_ERR_FORMAT, "2.st");
    put_tensors(dir, "2.st", &b_view, 1);
    weights w = open_dir(dir);
    assert_int_equal(weights_count(&w), 2);
    weights_close(&w);
}

static void too_many_shards(void **state) {
    (void)state;
    sbuf s;
    sbuf_init(&s, NULL);
    sbuf_str(&s, "{\"weight_map\":{");
    for (int i = 0; i < 4097; i++) sbuf_fmt(&s, "%s\"t%d\":\"s%d\"", i ? "," : "", i, i);
    sbuf_str(&s, "}}");
    shard_index ix;
    gist_error err = { 0 };
    assert_fails(index_parse(&ix, NULL, s.p, s.len, "i", &err), &err, GIST_ERR_LIMIT, "4097 shards, at most 4096");
    sbuf_free(&s);
}

static void truncated_index(void **state) {
    (void)state;
    char path[TEST_PATH];
    size_t len;
    char *text = (char *)test_read(test_fixture(path, "format/sharded/model.safetensors.index.json"), &len);
    while (len > 0 && text[len - 1] != '}') len--;
    for (size_t n = 0; n < len; n++) {
        shard_index ix;
        gist_error err = { 0 };
        assert_fails(index_parse(&ix, NULL, text, n, "i", &err), &err, GIST_ERR_FORMAT, NULL);
    }
    free(text);
}

/* ---- hash ---- */

enum { BIG = 1300000 }; /* floats: five leaves */

static void hash_is_of_contents(void **state) {
    (void)state;
    char dir[TEST_PATH], shards[TEST_PATH], first[33], other[33];
    float *big = malloc(BIG * sizeof(float));
    assert_non_null(big);
    test_fill(big, BIG, 1, 7);
    tensor_view t[2] = { { "big", DT_F32, 2, { 100, 13000, 1, 1 }, big, BIG * sizeof(float) }, a_view };
    put_tensors(new_dir(dir), "model.safetensors", t, 2);
    weights w = open_dir(dir);
    hash_text(&w, NULL, first);
    for (int threads = 1; threads <= 3; threads++) {
        pool *p;
        gist_error err = { 0 };
        assert_ok(pool_create(NULL, threads, &p, &err), &err);
        hash_text(&w, p, other);
        assert_string_equal(first, other);
        pool_free(p);
    }
    weights_close(&w);

    new_dir(shards); /* cut and ordered another way */
    put_tensors(shards, "x", &t[0], 1);
    put_tensors(shards, "y", &t[1], 1);
    put(shards, "model.safetensors.index.json", "{\"weight_map\":{\"big\":\"x\",\"a\":\"y\"}}");
    w = open_dir(shards);
    hash_text(&w, NULL, other);
    assert_string_equal(first, other);
    weights_close(&w);

    /* one bit of the last element, a name, a shape, a type, a missing tensor */
    for (int change = 0; change < 5; change++) {
        tensor_view u[2] = { t[0], t[1] };
        float *edited = malloc(BIG * sizeof(float));
        assert_non_null(edited);
        memcpy(edited, big, BIG * sizeof(float));
        if (change == 0) ((uint8_t *)edited)[BIG * sizeof(float) - 4] ^= 1;
        if (change == 1) u[1].name = "b";
        if (change == 2) u[0].shape[0] = 13000, u[0].shape[1] = 100;
        if (change == 3) u[0].type = DT_BF16, u[0].shape[0] = 200;
        u[0].data = edited;
        put_tensors(new_dir(dir), "model.safetensors", u, change == 4 ? 1 : 2);
        w = open_dir(dir);
        hash_text(&w, NULL, other);
        assert_string_not_equal(first, other);
        weights_close(&w);
        free(edited);
    }
    free(big);
}

/* The value itself is kept in caches and gist files: it must not change by accident. */
static void hash_is_stable(void **state) {
    (void)state;
    char path[TEST_PATH], h[33];
    weights w = open_dir(test_fixture(path, "format/single"));
    hash_text(&w, NULL, h);
    assert_string_equal(h, "7167dcfaa18b0a70cf02237e9c20af08");
    weights_close(&w);
}

static void hash_of_nothing(void **state) {
    (void)state;
    char dir[TEST_PATH], h[33];
    put_tensors(new_dir(dir), "model.safetensors", NULL, 0);
    weights w = open_dir(dir);
    assert_int_equal(weights_count(&w), 0);
    assert_null(weights_find(&w, "a"));
    hash_text(&w, NULL, h);
    weights_close(&w);
}

/* ---- memory ---- */

static gist_status open_and_hash(void *ctx, const gist_allocator *alloc) {
    weights w;
    hash128 h;
    gist_error err = { 0 };
    gist_status status = weights_open(&w, alloc, ctx, &err);
    if (status == GIST_OK) {
        status = weights_hash(&w, NULL, &h, &err);
        weights_close(&w);
    }
    return status;
}

static void failing_allocations(void **state) {
    (void)state;
    char path[TEST_PATH];
    assert_in_range(test_each_alloc(open_and_hash, test_fixture(path, "format/single")), 5, 40);
    assert_in_range(test_each_alloc(open_and_hash, test_fixture(path, "format/sharded")), 5, 60);
    weights w;
    test_alloc t;
    test_alloc_init(&t);
    assert_int_equal(weights_open(&w, &t.a, "/", NULL), GIST_ERR_IO);
    assert_int_equal(t.blocks, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(single_and_sharded), cmocka_unit_test(no_directory),    cmocka_unit_test(bad_indices),
        cmocka_unit_test(too_many_shards),    cmocka_unit_test(truncated_index), cmocka_unit_test(hash_is_of_contents),
        cmocka_unit_test(hash_is_stable),     cmocka_unit_test(hash_of_nothing), cmocka_unit_test(failing_allocations),
    };
    return cmocka_run_group_tests_name("format_weights", tests, NULL, NULL);
}
