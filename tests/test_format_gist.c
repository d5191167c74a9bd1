/* test_format_gist.c - .gist files: a file by another writer, equal bytes, every field, every flipped byte, every
 * truncation, damage that the checksum alone can see.
 *
 * Fixtures: python.gist (bf16) and q8_0.gist, by tools/make_format_fixtures.py (safetensors 0.8.0, xxhash 4.1.0) from
 * docs/formats/gist.md, not by our library.
 */
#include "testing.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "format/format_int.h"

enum { K = 3, G = 2, D = 4, L = 2, ROW = K * G * D };
enum { Q8_K = 2, Q8_D = 64, Q8_BLOCKS = Q8_K * Q8_D / 32 /* q8_0.gist: one layer, one head */ };
static const char *const fixtures[] = { "format/python.gist", "format/q8_0.gist" };

/* Element i of tensor n in the fixture. */
static float value_of(size_t n, size_t i) {
    return ((float)((i * 37 + n) % 101) - 50.0f) / 16.0f;
}

typedef struct sample {
    gfile g;
    uint16_t data[2 * L][ROW];
    const void *keys[L], *values[L];
} sample;

/* What python.gist holds. */
static void sample_init(sample *s) {
    *s = (sample){ .g = { .type = DT_BF16,
                          .k = K,
                          .layers = L,
                          .kv_heads = G,
                          .head_dim = D,
                          .first_position = 17,
                          .prompt_tokens = 17,
                          .tuned = true } };
    strcpy(s->g.id, "0123456789abcdef0123456789abcdef");
    memset(s->g.model, 'a', 32);
    memset(s->g.tokenizer, 'b', 32);
    strcpy(s->g.family, "llama");
    strcpy(s->g.template_name, "quo\"te\\d");
    strcpy(s->g.condition, "gist");
    strcpy(s->g.kernels, "scalar");
    for (size_t n = 0; n < 2 * L; n++)
        for (size_t i = 0; i < ROW; i++) s->data[n][i] = f32_to_bf16(value_of(n, i));
    for (int i = 0; i < L; i++) {
        s->keys[i] = s->data[2 * i];
        s->values[i] = s->data[2 * i + 1];
    }
}

static void save(const sample *s, const char *path) {
    gist_error err = { 0 };
    assert_ok(gfile_save(&s->g, path, s->keys, s->values, NULL, &err), &err);
}

static uint8_t *fixture(int which, size_t *len) {
    char path[TEST_PATH];
    return test_read(test_fixture(path, fixtures[which]), len);
}

static void same_rows(const gfile *g, int layer, const void *key, const void *value, size_t bytes) {
    uint8_t *k = malloc(bytes), *v = malloc(bytes);
    assert_non_null(k);
    assert_non_null(v);
    gfile_rows(g, layer, k, v);
    assert_memory_equal(k, key, bytes);
    assert_memory_equal(v, value, bytes);
    free(k);
    free(v);
}

static void refuse(const void *bytes, size_t len, gist_status code, const char *message) {
    gfile g, before;
    memset(&g, 0x5a, sizeof g);
    before = g;
    gist_error err = { 0 };
    assert_fails(gfile_parse(&g, NULL, bytes, len, &err), &err, code, message);
    assert_memory_equal(&g, &before, sizeof g);
}

/* ---- round trips ---- */

static void python_file(void **state) {
    (void)state;
    char path[TEST_PATH];
    gfile g;
    gist_error err = { 0 };
    sample s;
    sample_init(&s);
    assert_ok(gfile_open(&g, NULL, test_fixture(path, "format/python.gist"), &err), &err);
    assert_string_equal(g.id, s.g.id);
    assert_string_equal(g.model, s.g.model);
    assert_string_equal(g.tokenizer, s.g.tokenizer);
    assert_string_equal(g.family, "llama");
    assert_string_equal(g.template_name, "quo\"te\\d");
    assert_string_equal(g.condition, "gist");
    assert_string_equal(g.kernels, "scalar");
    assert_string_equal(g.adapter, "");
    assert_int_equal(g.type, DT_BF16);
    assert_int_equal(g.k, K);
    assert_int_equal(g.layers, L);
    assert_int_equal(g.kv_heads, G);
    assert_int_equal(g.head_dim, D);
    assert_int_equal(g.first_position, 17);
    assert_int_equal(g.prompt_tokens, 17);
    assert_false(g.rebased);
    assert_true(g.tuned);
    assert_int_equal(gfile_bytes(&g), 2 * L * ROW * 2);
    for (int i = 0; i < L; i++) same_rows(&g, i, s.keys[i], s.values[i], ROW * 2);
    gfile_close(&g);
}

/* Blocks of q8_0 as q8_0.gist has them in tensor n (integers) and n + 1 (scales). */
static void q8_blocks(uint8_t blocks[Q8_BLOCKS * 34], size_t n) {
    for (size_t b = 0; b < Q8_BLOCKS; b++) {
        uint16_t scale = f32_to_f16(value_of(n + 1, b));
        memcpy(blocks + 34 * b, &scale, 2);
        for (size_t i = 0; i < 32; i++) blocks[34 * b + 2 + i] = (uint8_t)((37 * (32 * b + i) + n) % 256 - 128);
    }
}

static void python_q8_file(void **state) {
    (void)state;
    char path[TEST_PATH], ours[TEST_PATH];
    gfile g;
    gist_error err = { 0 };
    uint8_t key[Q8_BLOCKS * 34], value[Q8_BLOCKS * 34];
    q8_blocks(key, 0);
    q8_blocks(value, 2);
    assert_ok(gfile_open(&g, NULL, test_fixture(path, "format/q8_0.gist"), &err), &err);
    assert_int_equal(g.type, DT_Q8_0);
    assert_int_equal(gfile_bytes(&g), 2 * sizeof key);
    same_rows(&g, 0, key, value, sizeof key);
    const void *keys[] = { key }, *values[] = { value };
    assert_ok(gfile_save(&g, test_tmp(ours, "ours_q8.gist"), keys, values, NULL, &err), &err);
    assert_true(test_same_file(ours, path));
    gfile_close(&g);
}

static void equal_bytes(void **state) {
    (void)state;
    char ours[TEST_PATH], python[TEST_PATH];
    sample s;
    sample_init(&s);
    save(&s, test_tmp(ours, "ours.gist"));
    assert_true(test_same_file(ours, test_fixture(python, "format/python.gist")));
}

static void every_type(void **state) {
    (void)state;
    enum { WIDE = K * G * 32 };
    static const dtype types[] = { DT_F32, DT_BF16, DT_F16, DT_Q8_0 };
    char path[TEST_PATH];
    float keys[L][WIDE], values[L][WIDE];
    test_fill(keys[0], L * WIDE, 3, 1);
    test_fill(values[0], L * WIDE, 3, 2);
    for (size_t n = 0; n < sizeof types / sizeof *types; n++) {
        dtype t = types[n];
        sample s;
        sample_init(&s);
        s.g.type = t;
        s.g.head_dim = 32;
        s.g.rebased = true;
        s.g.first_position = 0;
        memset(s.g.adapter, '9', 32);
        uint8_t row[2 * L][WIDE * 4];
        for (int i = 0; i < L; i++) {
            dt_from_f32(row[2 * i], t, keys[i], WIDE);
            dt_from_f32(row[2 * i + 1], t, values[i], WIDE);
            s.keys[i] = row[2 * i];
            s.values[i] = row[2 * i + 1];
        }
        save(&s, test_tmp(path, "type.gist"));
        gfile g;
        gist_error err = { 0 };
        assert_ok(gfile_open(&g, NULL, path, &err), &err);
        assert_int_equal(g.type, t);
        assert_true(g.rebased);
        assert_string_equal(g.adapter, s.g.adapter);
        for (int i = 0; i < L; i++) same_rows(&g, i, s.keys[i], s.values[i], dt_bytes(t, WIDE));
        gfile_close(&g);
    }
}

/* Ten layers and more: "layers.10" sorts before "layers.2" among names, not in the checksum. */
static void many_layers(void **state) {
    (void)state;
    char path[TEST_PATH];
    enum { MANY = 1024 };
    static uint16_t row[2 * MANY][1];
    static const void *keys[MANY], *values[MANY];
    sample s;
    sample_init(&s);
    s.g.k = s.g.kv_heads = s.g.head_dim = 1;
    s.g.layers = MANY;
    for (int i = 0; i < MANY; i++) {
        row[2 * i][0] = (uint16_t)i;
        row[2 * i + 1][0] = (uint16_t)(i + MANY);
        keys[i] = row[2 * i];
        values[i] = row[2 * i + 1];
    }
    gist_error err = { 0 };
    gfile g;
    assert_ok(gfile_save(&s.g, test_tmp(path, "many.gist"), keys, values, NULL, &err), &err);
    assert_ok(gfile_open(&g, NULL, path, &err), &err);
    for (int i = 0; i < MANY; i++) same_rows(&g, i, row[2 * i], row[2 * i + 1], 2);
    gfile_close(&g);
}

/* ---- damage ---- */

static void flip_all(int which) {
    size_t len;
    uint8_t *p = fixture(which, &len);
    for (size_t i = 0; i < len; i++) {
        for (unsigned x = 1; x < 256; x++) {
            p[i] ^= (uint8_t)x;
            gfile g;
            gist_error err = { 0 };
            gist_status status = gfile_parse(&g, NULL, p, len, &err);
            if (status != GIST_ERR_FORMAT && status != GIST_ERR_UNSUPPORTED && status != GIST_ERR_LIMIT)
                fail_msg("byte %zu xor %02x: status %d (%s)", i, x, (int)status, err.msg);
            p[i] ^= (uint8_t)x;
        }
    }
    free(p);
}

static void every_flip(void **state) {
    (void)state;
    flip_all(0);
    flip_all(1);
}

static void cut_all(int which) {
    size_t len;
    uint8_t *p = fixture(which, &len);
    for (size_t n = 0; n < len; n++) {
        uint8_t *cut = malloc(n ? n : 1);
        assert_non_null(cut);
        memcpy(cut, p, n);
        refuse(cut, n, GIST_ERR_FORMAT, NULL);
        free(cut);
    }
    uint8_t *longer = calloc(1, len + 1);
    assert_non_null(longer);
    memcpy(longer, p, len);
    refuse(longer, len + 1, GIST_ERR_FORMAT, "the tensors end at");
    free(longer);
    free(p);
}

static void truncation(void **state) {
    (void)state;
    cut_all(0);
    cut_all(1);
}

static void damage_in_rows_is_named(void **state) {
    (void)state;
    size_t len;
    uint8_t *p = fixture(0, &len);
    p[len - 1] ^= 0x80;
    refuse(p, len, GIST_ERR_FORMAT, "gist: damaged: its checksum is");
    char path[TEST_PATH];
    gfile g;
    gist_error err = { 0 };
    test_write(test_tmp(path, "damaged.gist"), p, len);
    assert_fails(gfile_open(&g, NULL, path, &err), &err, GIST_ERR_FORMAT, "damaged.gist: damaged");
    free(p);
}

/* The fixture with the text `from` of its header replaced by `to`, length and padding made to fit. */
static void edited_in(int which, const char *from, const char *to, gist_status code, const char *message) {
    size_t len;
    uint8_t *p = fixture(which, &len);
    uint64_t n;
    memcpy(&n, p, 8);
    char header[4096];
    snprintf(header, sizeof header, "%.*s", (int)n, (const char *)p + 8);
    char *at = strstr(header, from);
    assert_non_null(at);
    sbuf s;
    sbuf_init(&s, NULL);
    sbuf_add(&s, "\0\0\0\0\0\0\0", 8);
    sbuf_add(&s, header, (size_t)(at - header));
    sbuf_str(&s, to);
    sbuf_str(&s, at + strlen(from));
    assert_false(s.failed);
    uint64_t m = s.len - 8;
    memcpy(s.p, &m, 8);
    sbuf_add(&s, p + 8 + n, len - 8 - (size_t)n);
    refuse(s.p, s.len, code, message);
    sbuf_free(&s);
    free(p);
}

static void edited(const char *from, const char *to, gist_status code, const char *message) {
    edited_in(0, from, to, code, message);
}

static void bad_fields(void **state) {
    (void)state;
    static const struct {
        const char *from, *to, *message;
    } bad[] = {
        { "\"format\":\"gist\"", "\"format\":\"pt\"", "not a .gist file" },
        { "\"format\":\"gist\",", "", "not a .gist file" },
        { ",\"version\":\"1\"", "", "not a .gist file" },
        { "\"tuned\":\"true\",", "", "\"tuned\" is missing" },
        { "\"tuned\":\"true\"", "\"tuned\":\"yes\"", "\"tuned\" must be \"true\" or \"false\", found \"yes\"" },
        { "\"tuned\":\"true\"", "\"tuned\":true", "\"tuned\" is not a string" },
        { "\"tuned\":\"true\"", "\"tuned\":\"true\",\"tuned2\":\"x\"", "unknown metadata \"tuned2\"" },
        { "\"version\":\"1\"", "\"version\":\"1\",\"zz\":\"\"", "unknown metadata \"zz\"" },
        { "{\"adapter\"", "{\"aa\":\"\",\"adapter\"", "unknown metadata \"aa\"" },
        { "\"adapter\":\"\"", "\"adapter\":\"0\"", "\"adapter\" must be 32 lower-case hex digits" },
        { "\"id\":\"0123456789abcdef", "\"id\":\"0123456789ABCDEF", "\"id\" must be 32 lower-case hex digits" },
        { "\"id\":\"01", "\"id\":\"1", "\"id\" must be" },
        { "\"id\":\"01", "\"id\":\"001", "\"id\" must be" },
        { "\"model\":\"aa", "\"model\":\"ag", "\"model\" must be" },
        { "\"checksum\":\"", "\"checksum\":\"0", "\"checksum\" must be" },
        { "\"k\":\"3\"", "\"k\":\"0\"", "\"k\" must be an integer in [1,1024], found \"0\"" },
        { "\"k\":\"3\"", "\"k\":\"1025\"", "found \"1025\"" },
        { "\"k\":\"3\"", "\"k\":\"03\"", "\"k\" must be" },
        { "\"k\":\"3\"", "\"k\":\"+3\"", "\"k\" must be" },
        { "\"k\":\"3\"", "\"k\":\" 3\"", "\"k\" must be" },
        { "\"k\":\"3\"", "\"k\":\"\"", "\"k\" must be" },
        { "\"k\":\"3\"", "\"k\":\"18446744073709551619\"", "\"k\" must be" },
        { "\"k\":\"3\"", "\"k\":\"4\"", "layers.0.key is bf16 [3,2,4], expected bf16 [4,2,4]" },
        { "\"layers\":\"2\"", "\"layers\":\"3\"", "layers.2.key is missing" },
        { "\"layers\":\"2\"", "\"layers\":\"1\"", "4 tensors, expected 2" },
        { "\"layers\":\"2\"", "\"layers\":\"1025\"", "\"layers\" must be an integer in [1,1024]" },
        { "\"kv_heads\":\"2\"", "\"kv_heads\":\"1\"", "expected bf16 [3,1,4]" },
        { "\"head_dim\":\"4\"", "\"head_dim\":\"2000\"", "\"head_dim\" must be" },
        { "\"dtype\":\"bf16\"", "\"dtype\":\"f16\"", "expected f16" },
        { "\"dtype\":\"bf16\"", "\"dtype\":\"BF16\"", "\"dtype\" must be f32, bf16, f16 or q8_0" },
        { "\"dtype\":\"bf16\"", "\"dtype\":\"q4_0\"", "\"dtype\" must be f32, bf16, f16 or q8_0" },
        { "\"dtype\":\"bf16\"", "\"dtype\":\"q8_0\"", "need a head_dim that is a multiple of 32, found 4" },
        { "\"first_position\":\"17\"", "\"first_position\":\"-1\"", "\"first_position\" must be" },
        { "\"first_position\":\"17\"", "\"first_position\":\"1073741825\"", "\"first_position\" must be" },
        { "\"rebased\":\"false\"", "\"rebased\":\"true\"", "first_position 0, found 17" },
        { "\"family\":\"llama\"", "\"family\":\"\"", "\"family\" must be 1 to 15 printable" },
        { "\"family\":\"llama\"", "\"family\":\"0123456789abcdef\"", "\"family\" must be 1 to 15" },
        { "\"family\":\"llama\"", "\"family\":\"ll\\u00e4ma\"", "found \"ll??ma\"" },
        { "\"family\":\"llama\"", "\"family\":\"l\\u001b[1m\"", "found \"l?[1m\"" },
        { "\"shape\":[3,2,4]", "\"shape\":[3,4,2]", "is bf16 [3,4,2], expected" },
        { "\"shape\":[3,2,4]", "\"shape\":[3,8]", "is bf16 [3,8], expected" },
        { "\"shape\":[3,2,4]", "\"shape\":[1,3,2,4]", "expected bf16 [3,2,4]" },
        { "{\"dtype\":\"BF16\"", "{\"dtype\":\"F16\"", "is f16 [3,2,4], expected bf16" },
        { "\"layers.1.value\"", "\"layers.01.value\"", "layers.1.value is missing" },
        { "\"layers.0.key\"", "\"x\":{\"dtype\":\"I64\",\"shape\":[0],\"data_offsets\":[0,0]},\"layers.0.key\"",
          "5 tensors" },
        { "\"family\":\"llama\"", "\"family\":\"llamb\"", "damaged" },
        { "\"prompt_tokens\":\"17\"", "\"prompt_tokens\":\"18\"", "damaged" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        edited(bad[i].from, bad[i].to, GIST_ERR_FORMAT, bad[i].message);
}

/* Integers and scales must both be there, of their types and shapes. */
static void bad_blocks(void **state) {
    (void)state;
    static const struct {
        const char *from, *to, *message;
    } bad[] = {
        { "\"dtype\":\"q8_0\"", "\"dtype\":\"f16\"", "layers.0.key is missing" },
        { "\"dtype\":\"I8\"", "\"dtype\":\"U8\"", "layers.0.key is missing" },
        { "\"dtype\":\"I8\",\"shape\":[2,1,64]", "\"dtype\":\"F16\",\"shape\":[2,1,32]",
          "layers.0.key is f16 [2,1,32], expected q8_0 [2,1,64]" },
        { "[2,1,64]", "[1,2,64]", "layers.0.key is q8_0 [1,2,64], expected q8_0 [2,1,64]" },
        { "[2,1,64]", "[2,1,8,4,2]", "layers.0.key is missing" },
        { "[2,1,2]", "[2,2,1]", "layers.0.key_scale is f16 [2,2,1], expected f16 [2,1,2]" },
        { "\"dtype\":\"F16\"", "\"dtype\":\"BF16\"", "layers.0.key_scale is bf16" },
        { "\"dtype\":\"F16\",\"shape\":[2,1,2]", "\"dtype\":\"I8\",\"shape\":[2,1,4]",
          "layers.0.key_scale is q8_0 [2,1,4], expected f16" },
        { "layers.0.key_scale", "layers.0.key_scales", "layers.0.key_scale is missing" },
        { "\"head_dim\":\"64\"", "\"head_dim\":\"48\"", "multiple of 32, found 48" },
        { "\"head_dim\":\"64\"", "\"head_dim\":\"32\"", "expected q8_0 [2,1,32]" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        edited_in(1, bad[i].from, bad[i].to, GIST_ERR_FORMAT, bad[i].message);
}

static void other_versions(void **state) {
    (void)state;
    edited("\"version\":\"1\"", "\"version\":\"3\"", GIST_ERR_UNSUPPORTED,
           ".gist version \"3\", this program reads 1 and 2");
    edited("\"version\":\"1\"", "\"version\":\"2\"", GIST_ERR_FORMAT, "encoder_output is missing");
    edited("\"version\":\"1\"", "\"version\":\"\\u001bx\"", GIST_ERR_UNSUPPORTED, "version \"?x\"");
    /* the version is judged before metadata and tensors that this version does not know */
    edited("\"tuned\":\"true\",\"version\":\"1\"", "\"version\":\"3\"", GIST_ERR_UNSUPPORTED, "version \"3\"");
    size_t len;
    uint8_t *p = fixture(0, &len);
    char *v = memmem(p, len, "\"version\":\"1\"", 13), *t = memmem(p, len, "\"BF16\"", 6);
    assert_non_null(v);
    assert_non_null(t);
    v[11] = '3';
    memcpy(t, "\"Q8_0\"", 6);
    refuse(p, len, GIST_ERR_UNSUPPORTED, ".gist version \"3\"");
    free(p);
}

static void no_gist(void **state) {
    (void)state;
    char path[TEST_PATH];
    gfile g;
    gist_error err = { 0 };
    assert_fails(gfile_open(&g, NULL, test_fixture(path, "format/single/model.safetensors"), &err), &err,
                 GIST_ERR_FORMAT, "model.safetensors: not a .gist file");
    err = (gist_error){ 0 };
    assert_fails(gfile_open(&g, NULL, test_tmp(path, "none.gist"), &err), &err, GIST_ERR_IO, "none.gist");
}

/* ---- writing ---- */

static void bad_headers_are_not_written(void **state) {
    (void)state;
    char path[TEST_PATH];
    test_tmp(path, "refused.gist");
    for (int i = 0; i < 16; i++) {
        sample s;
        sample_init(&s);
        const char *field = "?";
        switch (i) {
        case 0: s.g.k = 0, field = "\"k\" must be"; break;
        case 1: s.g.k = 1025, field = "\"k\" must be"; break;
        case 2: s.g.layers = 0, field = "\"layers\" must be"; break;
        case 3: s.g.kv_heads = -1, field = "\"kv_heads\" must be"; break;
        case 4: s.g.head_dim = 1 << 20, field = "\"head_dim\" must be"; break;
        case 5: s.g.id[0] = '\0', field = "\"id\" must be"; break;
        case 6: s.g.model[3] = 'X', field = "\"model\" must be"; break;
        case 7: memset(s.g.tokenizer, 'b', sizeof s.g.tokenizer), field = "\"tokenizer\" must be"; break;
        case 8: memset(s.g.template_name, 't', sizeof s.g.template_name), field = "\"template\" must be"; break;
        case 9: s.g.family[0] = '\0', field = "\"family\" must be"; break;
        case 10: s.g.type = DT_COUNT, field = "\"dtype\" must be"; break;
        case 11: s.g.rebased = true, field = "first_position 0, found 17"; break;
        case 12: s.g.first_position = -3, field = "\"first_position\" must be"; break;
        case 13: strcpy(s.g.adapter, "lora"), field = "\"adapter\" must be"; break;
        case 14: s.g.type = DT_Q8_0, field = "multiple of 32, found 4"; break;
        case 15: s.g.type = DT_Q4_K, field = "\"dtype\" must be"; break;
        }
        gist_error err = { 0 };
        assert_fails(gfile_save(&s.g, path, s.keys, s.values, NULL, &err), &err, GIST_ERR_USAGE, field);
        assert_false(path_exists(path));
    }
}

static void full_disk(void **state) {
    (void)state;
    char path[TEST_PATH], copy[TEST_PATH];
    sample s;
    sample_init(&s);
    save(&s, test_tmp(path, "kept.gist"));
    save(&s, test_tmp(copy, "copy.gist"));
    struct rlimit before, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    for (rlim_t room = 0; room < 952; room += 119) {
        gist_error err = { 0 };
        small = before;
        small.rlim_cur = room;
        s.g.prompt_tokens = 99;
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
        gist_status status = gfile_save(&s.g, path, s.keys, s.values, NULL, &err);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
        assert_fails(status, &err, GIST_ERR_IO, "kept.gist");
        assert_true(test_same_file(path, copy));
    }
    signal(SIGXFSZ, handler);
}

/* ---- memory ---- */

static gist_status open_one(void *ctx, const gist_allocator *alloc) {
    gfile g;
    gist_error err = { 0 };
    gist_status status = gfile_open(&g, alloc, ctx, &err);
    if (status == GIST_OK) gfile_close(&g);
    return status;
}

static void failing_allocations(void **state) {
    (void)state;
    char path[TEST_PATH];
    assert_in_range(test_each_alloc(open_one, test_fixture(path, "format/python.gist")), 4, 20);
}

/* A save that lost an allocation left the old file as it was, or could do without (the sync of the directory). */
static void failing_allocations_of_save(void **state) {
    (void)state;
    char path[TEST_PATH], good[TEST_PATH], old[TEST_PATH];
    sample s;
    sample_init(&s);
    save(&s, test_tmp(good, "good.gist"));
    test_write(test_tmp(old, "before.gist"), "old", 3);
    test_tmp(path, "memory.gist");
    test_alloc t = { .failed = true };
    long n = 0, refused = 0;
    while (t.failed) {
        test_write(path, "old", 3);
        test_alloc_init(&t);
        t.fail_at = ++n;
        s.g.alloc = &t.a;
        gist_error err = { 0 };
        gist_status status = gfile_save(&s.g, path, s.keys, s.values, NULL, &err);
        assert_int_equal(t.blocks, 0);
        if (status != GIST_OK) {
            assert_fails(status, &err, GIST_ERR_MEMORY, "out of memory");
            refused++;
        }
        assert_true(test_same_file(path, status == GIST_OK ? good : old));
    }
    assert_in_range(refused, 5, 50);
}

/* Version 2: the encoder's output behind the rows. */
static void encoder_output(void **state) {
    (void)state;
    enum { WIDTH = 6 };
    char path[TEST_PATH], one[TEST_PATH];
    float output[K * WIDTH], got[K * WIDTH];
    gfile g;
    gist_error err = { 0 };
    sample s;
    sample_init(&s);
    save(&s, test_tmp(one, "without.gist"));
    for (int i = 0; i < K * WIDTH; i++) output[i] = (float)i * 0.3f - 1;
    s.g.width = WIDTH;
    assert_ok(gfile_save(&s.g, test_tmp(path, "output.gist"), s.keys, s.values, output, &err), &err);
    assert_ok(gfile_open(&g, NULL, path, &err), &err);
    assert_int_equal(g.width, WIDTH);
    gfile_output(&g, got);
    assert_same_floats(got, output, K * WIDTH, "encoder output");
    for (int l = 0; l < L; l++) same_rows(&g, l, s.keys[l], s.values[l], sizeof s.data[0]);
    gfile_close(&g);
    assert_ok(gfile_open(&g, NULL, one, &err), &err);
    assert_int_equal(g.width, 0);
    gfile_close(&g);

    size_t len;
    uint8_t *p = test_read(path, &len);
    uint8_t *last = memmem(p, len, output, sizeof output), *v = memmem(p, len, "\"version\":\"2\"", 13);
    uint8_t *name = memmem(p, len, "encoder_output", 14), *shape = memmem(p, len, "[3,6]", 5);
    assert_true(last && v && name);
    for (size_t cut = 1; cut < len; cut += 7) refuse(p, len - cut, GIST_ERR_FORMAT, "");
    last[3] ^= 1;
    refuse(p, len, GIST_ERR_FORMAT, "damaged");
    last[3] ^= 1;
    v[11] = '1';
    refuse(p, len, GIST_ERR_FORMAT, "tensors, expected");
    v[11] = '2';
    name[0] = 'E';
    refuse(p, len, GIST_ERR_FORMAT, "encoder_output is missing");
    name[0] = 'e';
    if (shape) {
        memcpy(shape, "[6,3]", 5);
        refuse(p, len, GIST_ERR_FORMAT, "encoder_output is f32 [6,3]");
    }
    free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(python_file),
        cmocka_unit_test(python_q8_file),
        cmocka_unit_test(equal_bytes),
        cmocka_unit_test(every_type),
        cmocka_unit_test(many_layers),
        cmocka_unit_test(every_flip),
        cmocka_unit_test(truncation),
        cmocka_unit_test(damage_in_rows_is_named),
        cmocka_unit_test(bad_fields),
        cmocka_unit_test(bad_blocks),
        cmocka_unit_test(other_versions),
        cmocka_unit_test(encoder_output),
        cmocka_unit_test(no_gist),
        cmocka_unit_test(bad_headers_are_not_written),
        cmocka_unit_test(full_disk),
        cmocka_unit_test(failing_allocations),
        cmocka_unit_test(failing_allocations_of_save),
    };
    return cmocka_run_group_tests_name("format_gist", tests, NULL, NULL);
}
