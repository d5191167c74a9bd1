/* test_tensor.c - number types: every 16-bit value, every rounding case, names and shapes.
 *
 * Conversions are compared with arithmetic in double, where each bf16 and f16 value and each midpoint between two
 * neighbours is exact.
 */
#include "testing.h"

#include <math.h>

#include "tensor/tensor.h"

static uint32_t bits(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}

static float from_bits(uint32_t u) {
    float f;
    memcpy(&f, &u, 4);
    return f;
}

/* The value of a finite f16 by its definition: (-1)^s 2^(e-15) (1+m/1024), subnormals (-1)^s 2^-14 m/1024. */
static double f16_value(uint16_t v) {
    int e = v >> 10 & 31, m = v & 1023;
    double a = e == 0 ? ldexp(m, -24) : ldexp(1024 + m, e - 25);
    return v & 0x8000 ? -a : a;
}

static void bf16_widens_every_value(void **state) {
    (void)state;
    for (uint32_t v = 0; v <= 0xffff; v++) assert_int_equal(bits(bf16_to_f32((uint16_t)v)), v << 16);
}

static void bf16_returns_every_value(void **state) {
    (void)state;
    for (uint32_t v = 0; v <= 0xffff; v++) {
        uint16_t back = f32_to_bf16(bf16_to_f32((uint16_t)v));
        if ((v & 0x7fff) > 0x7f80)
            assert_int_equal(back, v | 0x40); /* NaN: made quiet, sign and payload kept */
        else
            assert_int_equal(back, v);
    }
}

static void bf16_rounds_to_nearest_even(void **state) {
    (void)state;
    for (uint32_t v = 0; v < 0xff80; v++) { /* v and its neighbour away from zero */
        if ((v & 0x7fff) >= 0x7f80) continue;
        uint32_t lo = v << 16, even = v & 1 ? v + 1 : v;
        assert_int_equal(f32_to_bf16(from_bits(lo + 0x0001)), v);
        assert_int_equal(f32_to_bf16(from_bits(lo + 0x7fff)), v);
        assert_int_equal(f32_to_bf16(from_bits(lo + 0x8000)), even);
        assert_int_equal(f32_to_bf16(from_bits(lo + 0x8001)), v + 1);
        assert_int_equal(f32_to_bf16(from_bits(lo + 0xffff)), v + 1);
    }
}

static void bf16_keeps_special_values(void **state) {
    (void)state;
    assert_int_equal(f32_to_bf16(INFINITY), 0x7f80);
    assert_int_equal(f32_to_bf16(-INFINITY), 0xff80);
    assert_int_equal(f32_to_bf16(-0.0f), 0x8000);
    assert_int_equal(f32_to_bf16(from_bits(0x7f7fffff)), 0x7f80);        /* the largest f32 rounds to infinity */
    assert_true(isnan(bf16_to_f32(f32_to_bf16(from_bits(0x7f800001))))); /* payload only in the lost bits */
    assert_true(isnan(bf16_to_f32(f32_to_bf16(from_bits(0xffffffff)))));
}

static void f16_widens_every_value(void **state) {
    (void)state;
    for (uint32_t v = 0; v <= 0xffff; v++) {
        float f = f16_to_f32((uint16_t)v);
        assert_int_equal(bits(f) >> 31, v >> 15);
        if ((v & 0x7c00) != 0x7c00)
            assert_true((double)f == f16_value((uint16_t)v));
        else if ((v & 0x3ff) == 0)
            assert_true(isinf(f));
        else
            assert_true(isnan(f));
    }
}

static void f16_returns_every_value(void **state) {
    (void)state;
    for (uint32_t v = 0; v <= 0xffff; v++) {
        uint16_t back = f32_to_f16(f16_to_f32((uint16_t)v));
        if ((v & 0x7fff) > 0x7c00)
            assert_int_equal(back, v | 0x200);
        else
            assert_int_equal(back, v);
    }
}

/* Between neighbours a < b of each sign: just above a, the midpoint, just below b. */
static void f16_rounds_to_nearest_even(void **state) {
    (void)state;
    for (uint32_t v = 0; v < 0x7bff; v++) {
        float mid = (float)((f16_value((uint16_t)v) + f16_value((uint16_t)(v + 1))) / 2); /* exact in f32 */
        uint32_t even = v & 1 ? v + 1 : v;
        for (uint32_t sign = 0; sign <= 0x8000; sign += 0x8000) {
            float s = sign ? -1.0f : 1.0f;
            assert_int_equal(f32_to_f16(s * mid), even | sign);
            assert_int_equal(f32_to_f16(s * nextafterf(mid, 0.0f)), v | sign);
            assert_int_equal(f32_to_f16(s * nextafterf(mid, INFINITY)), (v + 1) | sign);
        }
    }
}

static void f16_keeps_special_values(void **state) {
    (void)state;
    assert_int_equal(f32_to_f16(65504.0f), 0x7bff);
    assert_int_equal(f32_to_f16(nextafterf(65520.0f, 0.0f)), 0x7bff);
    assert_int_equal(f32_to_f16(65520.0f), 0x7c00); /* halfway to 65536: even is infinity */
    assert_int_equal(f32_to_f16(-65520.0f), 0xfc00);
    assert_int_equal(f32_to_f16(INFINITY), 0x7c00);
    assert_int_equal(f32_to_f16(-INFINITY), 0xfc00);
    assert_int_equal(f32_to_f16(-0.0f), 0x8000);
    assert_int_equal(f32_to_f16(0x1p-25f), 0x0000); /* halfway to the smallest subnormal: even is zero */
    assert_int_equal(f32_to_f16(nextafterf(0x1p-25f, 1.0f)), 0x0001);
    assert_int_equal(f32_to_f16(-0x1p-149f), 0x8000);
    assert_true(isnan(f16_to_f32(f32_to_f16(from_bits(0x7f800001)))));
    assert_true(isnan(f16_to_f32(f32_to_f16(from_bits(0xffffffff)))));
}

static void random_floats_round_to_the_nearer_neighbour(void **state) {
    (void)state;
    uint64_t seed = 7;
    for (int i = 0; i < 200000; i++) {
        float f = from_bits((uint32_t)test_rand(&seed));
        if (!isfinite(f)) continue;
        float b = bf16_to_f32(f32_to_bf16(f));
        if (isfinite(b)) {
            float ulp = fmaxf(ldexpf(1.0f, ilogbf(f) - 7), 0x1p-133f);
            assert_true(fabs((double)b - (double)f) <= 0.5 * (double)ulp);
        }
        float g = ldexpf(f, -ilogbf(f) + (int)(test_rand(&seed) % 44) - 28); /* into the range of f16 */
        float h = f16_to_f32(f32_to_f16(g));
        if (isfinite(h)) {
            float ulp = fmaxf(ldexpf(1.0f, ilogbf(g) - 10), 0x1p-24f);
            assert_true(fabs((double)h - (double)g) <= 0.5 * (double)ulp);
        }
    }
}

static void arrays_convert_like_single_values(void **state) {
    (void)state;
    enum { N = 1027 };
    float src[N], back[N];
    uint8_t raw[4 * N + 1];
    test_fill(src, N, 100.0f, 3);
    src[5] = INFINITY;
    src[6] = -0.0f;
    for (int t = 0; t <= DT_F16; t++) { /* block types: test_blocks.c */
        dtype type = (dtype)t;
        uint16_t half[N];
        memset(half, 0, sizeof half);
        void *dst = type == DT_F32 ? (void *)back : (void *)half;
        dt_from_f32(dst, type, src, N);
        memcpy(raw + 1, dst, dt_bytes(type, N)); /* odd address: file data is not aligned */
        dt_to_f32(back, raw + 1, type, N);
        for (size_t i = 0; i < N; i++) {
            float want = type == DT_F32    ? src[i]
                         : type == DT_BF16 ? bf16_to_f32(f32_to_bf16(src[i]))
                                           : f16_to_f32(f32_to_f16(src[i]));
            assert_int_equal(bits(back[i]), bits(want));
        }
    }
}

static void conversions_stop_at_n(void **state) {
    (void)state;
    float src[4] = { 1, 2, 3, 4 }, out[4] = { -1, -1, -1, -1 };
    uint16_t half[4] = { 0xaaaa, 0xaaaa, 0xaaaa, 0xaaaa };
    dt_from_f32(half, DT_BF16, src, 2);
    assert_int_equal(half[1], 0x4000);
    assert_int_equal(half[2], 0xaaaa);
    dt_to_f32(out, half, DT_BF16, 1);
    assert_true(out[0] == 1.0f && out[1] == -1.0f);
    dt_to_f32(out, half, DT_F16, 0);
    assert_true(out[0] == 1.0f);
}

static void types_have_names_and_sizes(void **state) {
    (void)state;
    static const struct {
        dtype t;
        gist_type pub;
        const char *name;
        size_t block, bytes;
        bool writable;
    } want[] = { { DT_F32, GIST_TYPE_F32, "f32", 1, 4, true },
                 { DT_BF16, GIST_TYPE_BF16, "bf16", 1, 2, true },
                 { DT_F16, GIST_TYPE_F16, "f16", 1, 2, true },
                 { DT_Q8_0, GIST_TYPE_Q8_0, "q8_0", 32, 34, true },
                 { DT_Q4_0, GIST_TYPE_Q4_0, "q4_0", 32, 18, true },
                 { DT_Q4_K, GIST_TYPE_Q4_K, "q4_K", 256, 144, true },
                 { DT_Q5_K, GIST_TYPE_Q5_K, "q5_K", 256, 176, false },
                 { DT_Q6_K, GIST_TYPE_Q6_K, "q6_K", 256, 210, false } };
    assert_int_equal(sizeof want / sizeof want[0], DT_COUNT);
    for (size_t i = 0; i < DT_COUNT; i++) {
        dtype t = DT_COUNT;
        assert_string_equal(dt_name(want[i].t), want[i].name);
        assert_true(dt_from_name(want[i].name, &t));
        assert_int_equal(t, want[i].t);
        assert_int_equal(dt_public(want[i].t), want[i].pub);
        assert_string_equal(gist_type_name(want[i].pub), want[i].name);
        assert_int_equal(dt_block(want[i].t), want[i].block);
        assert_int_equal(dt_bytes(want[i].t, 10 * want[i].block), 10 * want[i].bytes);
        assert_int_equal(dt_writable(want[i].t), want[i].writable);
        assert_int_equal(dt_bytes(want[i].t, 0), 0);
    }
    assert_string_equal(gist_type_name(GIST_TYPE_AUTO), "auto");
}

static void unknown_names_leave_the_output_alone(void **state) {
    (void)state;
    static const char *const names[] = { "", "F32", "f32 ", "f3", "float32", "bf16x", "auto" };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        dtype t = DT_F16;
        assert_false(dt_from_name(names[i], &t));
        assert_int_equal(t, DT_F16);
    }
}

static void shapes_print_and_count(void **state) {
    (void)state;
    char text[64];
    tensor_view v = { .dims = 2, .shape = { 4096, 11008, 1, 1 } };
    assert_string_equal(tensor_shape_text(&v, text), "[4096,11008]");
    assert_int_equal(tensor_count(&v), 4096 * 11008);
    v = (tensor_view){ .dims = 0, .shape = { 1, 1, 1, 1 } };
    assert_string_equal(tensor_shape_text(&v, text), "[]");
    assert_int_equal(tensor_count(&v), 1);
    v = (tensor_view){ .dims = 3, .shape = { 7, 0, 2, 1 } };
    assert_string_equal(tensor_shape_text(&v, text), "[7,0,2]");
    assert_int_equal(tensor_count(&v), 0);
    v = (tensor_view){ .dims = 4, .shape = { 2, 3, 5, 7 } };
    assert_string_equal(tensor_shape_text(&v, text), "[2,3,5,7]");
    assert_int_equal(tensor_count(&v), 210);
}

/* Four of the longest numbers do not fit 64 bytes: the text is cut, closed and terminated inside its buffer. */
static void hostile_shapes_stay_in_the_buffer(void **state) {
    (void)state;
    struct {
        char text[64];
        char guard[16];
    } b;
    memset(&b, 0x5a, sizeof b);
    tensor_view v = { .dims = 4, .shape = { INT64_MIN, INT64_MIN, INT64_MIN, INT64_MIN } };
    tensor_shape_text(&v, b.text);
    size_t n = strnlen(b.text, sizeof b.text);
    assert_true(n > 0 && n < sizeof b.text);
    assert_int_equal(b.text[0], '[');
    assert_int_equal(b.text[n - 1], ']');
    for (size_t i = 0; i < sizeof b.guard; i++) assert_int_equal(b.guard[i], 0x5a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bf16_widens_every_value),
        cmocka_unit_test(bf16_returns_every_value),
        cmocka_unit_test(bf16_rounds_to_nearest_even),
        cmocka_unit_test(bf16_keeps_special_values),
        cmocka_unit_test(f16_widens_every_value),
        cmocka_unit_test(f16_returns_every_value),
        cmocka_unit_test(f16_rounds_to_nearest_even),
        cmocka_unit_test(f16_keeps_special_values),
        cmocka_unit_test(random_floats_round_to_the_nearer_neighbour),
        cmocka_unit_test(arrays_convert_like_single_values),
        cmocka_unit_test(conversions_stop_at_n),
        cmocka_unit_test(types_have_names_and_sizes),
        cmocka_unit_test(unknown_names_leave_the_output_alone),
        cmocka_unit_test(shapes_print_and_count),
        cmocka_unit_test(hostile_shapes_stay_in_the_buffer),
    };
    return cmocka_run_group_tests_name("tensor", tests, NULL, NULL);
}
