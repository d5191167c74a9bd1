/* test_blocks.c - block types: decoding and encoding bit for bit against the gguf package, and what it does not say.
 *
 * Fixture: tools/make_gguf_fixtures.py (gguf 0.19.0, numpy seed 3): random blocks and what that package reads from
 * them.
 */
#include "testing.h"

#include <math.h>
#include <stdlib.h>

#include "format/format.h"

static const dtype block_types[] = { DT_Q8_0, DT_Q4_0, DT_Q4_K, DT_Q5_K, DT_Q6_K };
enum { BLOCK_TYPES = sizeof block_types / sizeof *block_types, MOST = 1024 };

static gguf_file open_fixture(void) {
    gguf_file g;
    gist_error err = { 0 };
    char path[TEST_PATH];
    assert_ok(gguf_open(&g, NULL, test_fixture(path, "gguf/blocks.gguf"), &err), &err);
    return g;
}

static const tensor_view *get(const gguf_file *g, const char *name, const char *end) {
    char full[32];
    snprintf(full, sizeof full, "%s%s", name, end);
    const tensor_view *t = gguf_find(g, full);
    assert_non_null(t);
    assert_true(tensor_count(t) <= MOST);
    return t;
}

static void decodes_as_the_reference(void **state) {
    (void)state;
    gguf_file g = open_fixture();
    for (int i = 0; i < BLOCK_TYPES; i++) {
        dtype type = block_types[i];
        const tensor_view *t = get(&g, dt_name(type), ""), *want = get(&g, dt_name(type), ".f32");
        size_t n = tensor_count(t);
        float got[MOST];
        assert_int_equal(t->type, type);
        assert_int_equal(n, tensor_count(want));
        dt_to_f32(got, t->data, type, n);
        assert_memory_equal(got, want->data, n * sizeof(float));
        /* and from the middle, at an odd address */
        size_t block = dt_block(type), bytes = dt_bytes(type, block);
        uint8_t *odd = malloc(bytes + 1);
        assert_non_null(odd);
        memcpy(odd + 1, (const uint8_t *)t->data + bytes, bytes);
        got[block] = 77;
        dt_to_f32(got, odd + 1, type, block);
        assert_memory_equal(got, (const float *)want->data + block, block * sizeof(float));
        assert_true(got[block] == 77);
        free(odd);
    }
    gguf_close(&g);
}

static void encodes_as_the_reference(void **state) {
    (void)state;
    static const dtype types[] = { DT_Q8_0, DT_Q4_0 };
    gguf_file g = open_fixture();
    const tensor_view *x = get(&g, "x", "");
    for (int i = 0; i < 2; i++) {
        char name[32];
        uint8_t got[MOST * 2];
        snprintf(name, sizeof name, "x.%s", dt_name(types[i]));
        const tensor_view *want = get(&g, name, "");
        dt_from_f32(got, types[i], x->data, tensor_count(x));
        assert_memory_equal(got, want->data, want->bytes);
    }
    gguf_close(&g);
}

static double square_error(const float *x, const float *y, size_t n) {
    double e = 0;
    for (size_t i = 0; i < n; i++) e += ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
    return e;
}

/* q4_K of random normals: at most 7.5 % relative rms error (measured 7.1; q4_0 has 8.6 on the same numbers); values on
 * a grid that it has come back nearly exactly; an offset costs nothing. */
static void q4_K_is_close(void **state) {
    (void)state;
    enum { N = 256 * 16 };
    float x[N], y[N];
    uint8_t b[N];
    rng r;
    rng_seed(&r, 5);
    double power = 0;
    for (int i = 0; i < N; i++) x[i] = (float)rng_normal(&r), power += (double)x[i] * (double)x[i];
    dt_from_f32(b, DT_Q4_K, x, N);
    dt_to_f32(y, b, DT_Q4_K, N);
    double rms = sqrt(square_error(x, y, N) / power);
    assert_true(rms < 0.075);
    dt_from_f32(b, DT_Q4_0, x, N);
    dt_to_f32(y, b, DT_Q4_0, N);
    assert_true(rms < 0.9 * sqrt(square_error(x, y, N) / power));

    for (int i = 0; i < N; i++) x[i] = 0.25f * (float)(i * 7 % 16) - 1.0f;
    dt_from_f32(b, DT_Q4_K, x, N);
    dt_to_f32(y, b, DT_Q4_K, N);
    for (int i = 0; i < N; i++) assert_true(fabsf(x[i] - y[i]) < 2e-3f);
}

/* A block is a block: its bytes do not depend on what stands beside it. */
static void blocks_are_independent(void **state) {
    (void)state;
    float x[1024];
    uint8_t all[4096], one[1024];
    test_fill(x, 1024, 2, 9);
    for (int i = 0; i < BLOCK_TYPES; i++) {
        dtype t = block_types[i];
        size_t block = dt_block(t), bytes = dt_bytes(t, block);
        if (!dt_writable(t)) continue;
        dt_from_f32(all, t, x, 1024);
        for (size_t k = 0; k < 1024 / block; k++) {
            dt_from_f32(one, t, x + k * block, block);
            assert_memory_equal(one, all + k * bytes, bytes);
        }
    }
}

/* Zeros stay zeros; a block with NaN or infinity is NaN throughout and leaves its neighbours alone; huge and tiny
 * values stay defined. */
static void special_values(void **state) {
    (void)state;
    static const float hard[] = { 0.0f, -0.0f, 1e-45f, -1e-38f, 3e38f, -3e38f, 65504.0f, 1e30f };
    float x[768], y[768];
    uint8_t b[1024];
    for (int i = 0; i < BLOCK_TYPES; i++) {
        dtype t = block_types[i];
        size_t block = dt_block(t);
        if (!dt_writable(t)) continue;
        memset(x, 0, sizeof x);
        dt_from_f32(b, t, x, 3 * block);
        dt_to_f32(y, b, t, 3 * block);
        for (size_t k = 0; k < 3 * block; k++) assert_true(y[k] == 0);
        x[block + 7] = NAN;
        x[2 * block + 3] = -INFINITY;
        dt_from_f32(b, t, x, 3 * block);
        dt_to_f32(y, b, t, 3 * block);
        for (size_t k = 0; k < 3 * block; k++) assert_true(k < block ? y[k] == 0 : isnan(y[k]));
        for (size_t k = 0; k < block; k++) x[k] = hard[k * 5 % 8];
        dt_from_f32(b, t, x, block);
        dt_to_f32(y, b, t, block);
        for (size_t h = 0; h < 8; h++) {
            for (size_t k = 0; k < block; k++) x[k] = hard[h];
            dt_from_f32(b, t, x, block);
            dt_to_f32(y, b, t, block);
        }
    }
}

/* What was decoded from q8_0 and q4_0 encodes to the same values: requantizing loses nothing. */
static void again_is_the_same(void **state) {
    (void)state;
    float x[256], y[256], z[256];
    uint8_t b[512];
    for (int i = 0; i < 2; i++)
        for (uint64_t seed = 1; seed < 20; seed++) {
            test_fill(x, 256, 3, seed);
            dt_from_f32(b, block_types[i], x, 256);
            dt_to_f32(y, b, block_types[i], 256);
            dt_from_f32(b, block_types[i], y, 256);
            dt_to_f32(z, b, block_types[i], 256);
            assert_true(square_error(y, z, 256) <= 1e-6 * square_error(y, x, 256));
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decodes_as_the_reference), cmocka_unit_test(encodes_as_the_reference),
        cmocka_unit_test(q4_K_is_close),            cmocka_unit_test(blocks_are_independent),
        cmocka_unit_test(special_values),           cmocka_unit_test(again_is_the_same),
    };
    return cmocka_run_group_tests_name("blocks", tests, NULL, NULL);
}
