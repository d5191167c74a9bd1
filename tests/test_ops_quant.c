/* test_ops_quant.c - weights of block types: packing without loss, int8 rows, products.
 *
 *   rows      int8 rows are the definition's, bit for bit, on every level: NaN, infinity, zero, subnormal, huge
 *   pack      any block comes back as it was; other types are rounded as dt_from_f32 rounds; rows that are set
 *   products  every type on every level, with and without VNNI: the scalar definition's bits; any threads, any rows
 *   scalar    against double precision on the same integers, and within the rounding of activations of the truth
 *   models    random ones in every type; rounding at load, and what it refuses
 *   extremes  weights of -128 and 127 against rows of +-127: where a saturating multiply-add would be wrong
 */
#include <math.h>
#include <stdlib.h>

#include "ops/quant_int.h"
#include "tiny.h"
#include "tolerances.h"

static const dtype types[] = { DT_Q8_0, DT_Q4_0, DT_Q4_K, DT_Q5_K, DT_Q6_K };
enum { TYPES = sizeof types / sizeof *types, MOST_LEVELS = 6 };

/* Every table of kernels this CPU can run, the definition first. */
static const op_kernels *kernels[MOST_LEVELS];
static const char *kernels_name[MOST_LEVELS];
static int levels;
static pool *threads[4]; /* 1, 2, 3, 4 */

static void add_kernels(const op_kernels *k, const char *name) {
    kernels[levels] = k;
    kernels_name[levels++] = name;
}

static void find_kernels(void) {
    add_kernels(&op_kernels_scalar, "scalar");
#if defined(__x86_64__) && !defined(GIST_NO_X86)
    if (gist_kernels_available(GIST_KERNELS_AVX2)) add_kernels(&op_kernels_avx2, "avx2");
    if (gist_kernels_available(GIST_KERNELS_AVX512)) add_kernels(&op_kernels_avx512, "avx512");
    if (gist_kernels_available(GIST_KERNELS_AVX512) && __builtin_cpu_supports("avx512vnni"))
        add_kernels(&op_kernels_avx512vnni, "avx512 with VNNI");
    if (gist_kernels_available(GIST_KERNELS_AVX512BF16)) add_kernels(&op_kernels_avx512bf16, "avx512bf16");
    if (gist_kernels_available(GIST_KERNELS_AMX)) add_kernels(&op_kernels_amx, "amx");
#endif
    for (int t = 0; t < 4; t++) pool_create(mem_default(), t + 1, &threads[t], NULL);
    for (int i = 0; i < levels; i++) print_message("kernels %s\n", kernels_name[i]);
}

static op_ctx on(int level, int t) {
    return (op_ctx){ kernels[level], threads[t - 1] };
}

static void *block(size_t n) {
    void *p = malloc(n ? n : 1);
    assert_non_null(p);
    return p;
}

/* ---- blocks ---- */

static void put_half(uint8_t *b, float x) {
    uint16_t h = f32_to_f16(x);
    b[0] = (uint8_t)h;
    b[1] = (uint8_t)(h >> 8);
}

/* n elements: any bits, but scales of a size that gives weights around 1. */
static uint8_t *random_blocks(dtype type, size_t n, uint64_t seed) {
    size_t bytes = dt_bytes(type, n), one = dt_bytes(type, dt_block(type));
    uint8_t *p = block(bytes);
    for (size_t i = 0; i < bytes; i++) p[i] = (uint8_t)(test_rand(&seed) >> 20);
    for (uint8_t *b = p; b < p + bytes; b += one) {
        float s = 0.5f + (float)(test_rand(&seed) % 1000) / 1000, sign = test_rand(&seed) % 4 ? 1 : -1;
        if (type == DT_Q8_0) put_half(b, sign * s / 128);
        if (type == DT_Q4_0) put_half(b, sign * s / 8);
        if (type == DT_Q4_K || type == DT_Q5_K) {
            put_half(b, s / (type == DT_Q4_K ? 500 : 1000));
            put_half(b + 2, sign * s / 64);
        }
        if (type == DT_Q6_K) put_half(b + 208, sign * s / 4000);
    }
    return p;
}

static op_weight packed(op_ctx *ctx, dtype type, int N, int K, const void *src, dtype src_type, int rows) {
    size_t bytes = op_weight_bytes(type, N, K);
    op_weight W = { type, N, K, aligned_alloc(64, bytes) };
    assert_non_null(W.panels);
    memset(W.panels, 0xff, bytes);
    op_weight_pack(ctx, &W, src, src_type, rows);
    return W;
}

static float *rows_of(const op_weight *W) {
    float *w = block((size_t)W->N * (size_t)W->K * sizeof *w);
    for (int n = 0; n < W->N; n++) op_weight_get_row(W, n, w + (size_t)n * (size_t)W->K);
    return w;
}

/* ---- packing ---- */

static void test_lossless(void **state) {
    (void)state;
    static const int Ns[] = { 1, 63, 64, 65, 130 };
    for (int i = 0; i < TYPES; i++)
        for (size_t n = 0; n < sizeof Ns / sizeof *Ns; n++) {
            dtype type = types[i];
            op_ctx ctx = on(levels - 1, 2);
            int N = Ns[n], K = (n % 2 ? 3 : 1) * (int)dt_block(type);
            size_t count = (size_t)N * (size_t)K;
            uint8_t *src = random_blocks(type, count, n + 100 * (uint64_t)i), *odd = block(dt_bytes(type, count) + 1);
            float *want = block(count * sizeof *want), *row = block((size_t)K * sizeof *row);
            memcpy(odd + 1, src, dt_bytes(type, count)); /* files are not aligned */
            dt_to_f32(want, src, type, count);
            op_weight W = packed(&ctx, type, N + 1, K, odd + 1, type, N);
            for (int r = 0; r < N; r++) {
                op_weight_get_row(&W, r, row);
                assert_same_floats(row, want + (size_t)r * (size_t)K, (size_t)K, dt_name(type));
            }
            op_weight_get_row(&W, N, row); /* beyond the source */
            for (int k = 0; k < K; k++) assert_true(row[k] == 0);
            free(W.panels);
            free(src);
            free(odd);
            free(want);
            free(row);
        }
    for (int i = 0; i < TYPES; i++) { /* close to the file's bytes */
        double bytes = (double)op_weight_bytes(types[i], 256, 1024), file = (double)dt_bytes(types[i], 256 * 1024);
        assert_true(bytes <= file * 1.03);
        assert_int_equal(op_weight_bytes(types[i], 1, 1024) % 64, 0);
    }
}

/* From every type to every type: what dt_from_f32 makes of the source's values. */
static void test_convert(void **state) {
    (void)state;
    enum { N = 67, K = 512 };
    size_t count = (size_t)N * K;
    float *x = block(count * sizeof *x), *want = block(count * sizeof *want);
    void *stored = block(count * sizeof *x), *made = block(count * sizeof *x);
    op_ctx ctx = on(levels - 1, 2);
    test_fill(x, count, 2, 5);
    for (int from = 0; from < DT_COUNT; from++)
        for (int to = 0; to < DT_COUNT; to++) {
            if (!dt_writable((dtype)from) || (!dt_writable((dtype)to) && from != to)) continue;
            dt_from_f32(stored, (dtype)from, x, count);
            dt_to_f32(want, stored, (dtype)from, count);
            if (from != to) {
                dt_from_f32(made, (dtype)to, want, count);
                dt_to_f32(want, made, (dtype)to, count);
            }
            op_weight W = packed(&ctx, (dtype)to, N, K, stored, (dtype)from, N);
            float *got = rows_of(&W);
            assert_same_floats(got, want, count, dt_name((dtype)to));
            free(got);
            free(W.panels);
        }
    free(x);
    free(want);
    free(stored);
    free(made);
}

static void test_set_row(void **state) {
    (void)state;
    enum { N = 66, K = 512 };
    static const double most[DT_COUNT] = { [DT_Q8_0] = 0.005, [DT_Q4_0] = 0.13, [DT_Q4_K] = 0.08, [DT_Q5_K] = 0.08,
                                           [DT_Q6_K] = 0.03 }; /* about a step, of the largest weight */
    float x[K], row[K], zero[K] = { 0 };
    op_ctx ctx = on(0, 1);
    test_fill(x, K, 1, 9);
    for (int i = 0; i < TYPES; i++) {
        uint8_t *src = random_blocks(types[i], (size_t)N * K, 3);
        op_weight W = packed(&ctx, types[i], N, K, src, types[i], N);
        float *before = rows_of(&W);
        op_weight_set_row(&W, 65, x);
        op_weight_get_row(&W, 65, row);
        assert_close(row, x, K, most[types[i]], dt_name(types[i]));
        op_weight_set_row(&W, 65, zero);
        op_weight_get_row(&W, 65, row);
        for (int k = 0; k < K; k++) assert_true(row[k] == 0);
        float *after = rows_of(&W);
        assert_same_floats(after, before, (size_t)65 * K, "the other rows");
        free(before);
        free(after);
        free(src);
        free(W.panels);
    }
}

/* ---- rows ---- */

static void check_rows(const float *x, int runs) {
    op_qrun *want = block((size_t)runs * sizeof *want), *got = block((size_t)runs * sizeof *got);
    op_quantize_scalar(want, x, runs);
    for (int l = 0; l < levels; l++) {
        memset(got, 0xff, (size_t)runs * sizeof *got);
        kernels[l]->quantize(got, x, runs);
        assert_memory_equal(got, want, (size_t)runs * sizeof *got);
    }
    free(got);
    free(want);
}

static void test_rows(void **state) {
    (void)state;
    enum { RUNS = 300 };
    float *x = block(RUNS * 32 * sizeof *x);
    op_qrun r;
    for (int power = -149; power < 128; power++) { /* every size that an f32 has */
        test_fill(x, RUNS * 32, 1, (uint64_t)(power + 200));
        for (int i = 0; i < RUNS * 32; i++) x[i] = ldexpf(x[i], power);
        check_rows(x, 8);
        op_quantize_scalar(&r, x, 1);
        int top = 0, sum = 0;
        for (int i = 0; i < 32; i++) {
            top = abs(r.q[i]) > top ? abs(r.q[i]) : top;
            sum += r.q[i];
            assert_true(fabs((double)r.scale * r.q[i] - (double)x[i]) <= 0.5001 * (double)r.scale + 0x1p-100);
        }
        assert_int_equal(top, power < -99 ? 0 : power > -98 ? 127 : top);
        assert_int_equal(r.half[0] + r.half[1], sum);
        assert_true(r.sum == r.scale * (float)sum);
    }
    for (int i = 0; i < RUNS * 32; i++) x[i] = (float)(i % 255 - 127) * 0.5f; /* ties */
    check_rows(x, RUNS);
    float special[] = { NAN, -NAN,      INFINITY,  -INFINITY,        0,
                        -0.0f, 0x1p-149f, 0x1p-100f, 0x1.fffffep-101f, 0x1.fffffep127f };
    for (size_t s = 0; s < sizeof special / sizeof *special; s++)
        for (int at = 0; at < 32; at++) {
            for (int i = 0; i < 32; i++) x[i] = s < 4 ? (float)i : 0;
            x[at] = special[s];
            check_rows(x, 1);
            op_quantize_scalar(&r, x, 1);
            assert_int_equal(isnan(r.scale) != 0, s < 4);
            assert_int_equal(r.q[at], s == 7 || s == 9 ? 127 : 0);
        }
    free(x);
}

/* ---- products ---- */

typedef struct product_case {
    int N, K, T;
    op_weight W;
    float *x; /* [T,K] */
} product_case;

static void run(const product_case *c, op_ctx ctx, float *y, int first, int rows) {
    void *buf = block(op_operand_bytes(c->K) * (size_t)rows);
    const void *x = op_operand(&ctx, buf, c->x + (size_t)first * (size_t)c->K, &c->W, rows);
    assert_ptr_equal(x, buf);
    op_linear_fwd(&ctx, y, x, &c->W, rows);
    free(buf);
}

/* The definition against sums in double: of the same integers, and of the activations before they were rounded. */
static void check_scalar(const product_case *c, const float *y, const char *what) {
    size_t runs = (size_t)c->K / 32;
    float *w = rows_of(&c->W);
    op_qrun *q = block(runs * sizeof *q);
    for (int t = 0; t < c->T; t++) {
        const float *x = c->x + (size_t)t * (size_t)c->K;
        op_quantize_scalar(q, x, (int)runs);
        for (int n = 0; n < c->N; n++) {
            double sum = 0, all = 0, truth = 0, bound = 0;
            for (int k = 0; k < c->K; k++) {
                double wk = (double)w[(size_t)n * (size_t)c->K + (size_t)k], a = (double)q[k / 32].scale;
                sum += wk * a * q[k / 32].q[k % 32];
                all += fabs(wk * a * q[k / 32].q[k % 32]);
                truth += wk * (double)x[k];
                bound += fabs(wk) * a / 2;
            }
            double got = (double)y[(size_t)t * (size_t)c->N + (size_t)n];
            if (!(fabs(got - sum) <= TOL_LINEAR_QUANT_EXACT * all))
                fail_msg("%s: output %d of row %d is %.9g, expected %.9g", what, n, t, got, sum);
            if (!(fabs(got - truth) <= 1.001 * bound + TOL_LINEAR_QUANT_EXACT * all))
                fail_msg("%s: output %d of row %d is %.9g, %.9g before rounding", what, n, t, got, truth);
        }
    }
    free(w);
    free(q);
}

static void check_product(dtype type, int N, int K, int T, uint64_t seed) {
    product_case c = { .N = N, .K = K, .T = T };
    op_ctx first = on(0, 1);
    char what[128];
    size_t count = (size_t)T * (size_t)N;
    uint8_t *src = random_blocks(type, (size_t)N * (size_t)K, seed);
    float *want = block(count * sizeof *want), *y = block(count * sizeof *y);
    c.W = packed(&first, type, N, K, src, type, N);
    c.x = block((size_t)T * (size_t)K * sizeof *c.x);
    test_fill(c.x, (size_t)T * (size_t)K, 3, seed + 1);
    run(&c, first, want, 0, T);
    snprintf(what, sizeof what, "%s N %d K %d T %d", dt_name(type), N, K, T);
    check_scalar(&c, want, what);
    for (int l = 0; l < levels; l++) {
        snprintf(what, sizeof what, "%s N %d K %d T %d, %s", dt_name(type), N, K, T, kernels_name[l]);
        for (int t = 1; t <= 4; t++) {
            memset(y, 0xff, count * sizeof *y);
            run(&c, on(l, t), y, 0, T);
            assert_same_floats(y, want, count, what);
        }
        for (int i = 0; i < 5; i++) { /* rows alone, and runs of rows */
            int from = (int)(test_rand(&seed) % (uint64_t)T), most = T - from;
            int rows = i < 2 ? 1 : 1 + (int)(test_rand(&seed) % (uint64_t)most);
            run(&c, on(l, 1), y, from, rows);
            assert_same_floats(y, want + (size_t)from * (size_t)N, (size_t)rows * (size_t)N, what);
        }
    }
    free(c.x);
    free(c.W.panels);
    free(src);
    free(want);
    free(y);
}

static void test_products(void **state) {
    (void)state;
    static const int Ts[] = { 1, 2, 3, 4, 5, 6, 7, 16, 17, 64 }, Ns[] = { 1, 7, 64, 65, 97, 127, 129, 131, 193, 200 };
    uint64_t seed = 17;
    for (int i = 0; i < TYPES; i++) {
        int one = (int)dt_block(types[i]);
        for (size_t n = 0; n < sizeof Ts / sizeof *Ts; n++) {
            int K = one * (one == 32 ? 1 + (int)(test_rand(&seed) % 20) : 1 + (int)(test_rand(&seed) % 3));
            check_product(types[i], Ns[n], K, Ts[n], test_rand(&seed));
            check_product(types[i], Ns[n] + 2, one * (one == 32 ? 8 : 1), Ts[sizeof Ts / sizeof *Ts - 1 - n],
                          test_rand(&seed));
        }
        check_product(types[i], 66, one, 400, test_rand(&seed)); /* several blocks of rows */
    }
}

/* Sums that begin with y. */
static void test_add(void **state) {
    (void)state;
    enum { N = 70, K = 512, T = 9 };
    float x[T * K], want[T * N], y[T * N], begin[T * N];
    _Alignas(64) char buf[T * (K + 1) * 2];
    test_fill(x, T * K, 1, 1);
    test_fill(begin, T * N, 1, 2);
    for (int i = 0; i < TYPES; i++) {
        uint8_t *src = random_blocks(types[i], (size_t)N * K, 8);
        for (int l = 0; l < levels; l++) {
            op_ctx ctx = on(l, 2);
            op_weight W = packed(&ctx, types[i], N, K, src, types[i], N);
            memcpy(y, begin, sizeof y);
            const void *rows = op_operand(&ctx, buf, x, &W, T);
            op_linear_add(&ctx, y, rows, &W, T);
            if (l == 0) {
                op_linear_fwd(&ctx, want, rows, &W, T);
                for (int j = 0; j < T * N; j++) want[j] += begin[j];
                assert_close(y, want, T * N, TOL_LINEAR_QUANT_EXACT, "added");
                memcpy(want, y, sizeof y);
            }
            assert_same_floats(y, want, T * N, "added");
            free(W.panels);
        }
        free(src);
    }
}

/* The largest products there are: +-128 * 127 in q8_0 and all the others' ends, signs alternating or not. */
static void test_extremes(void **state) {
    (void)state;
    enum { N = 64, K = 256, T = 6 };
    float x[T * K], want[T * N], y[T * N];
    for (int i = 0; i < TYPES; i++) {
        dtype type = types[i];
        size_t one = dt_bytes(type, dt_block(type));
        uint8_t *src = random_blocks(type, (size_t)N * K, 4);
        for (size_t at = 0; at < dt_bytes(type, (size_t)N * K); at++) {
            size_t b = at % one, row = at / dt_bytes(type, K);
            bool integer = type == DT_Q8_0 || type == DT_Q4_0 ? b >= 2 : type == DT_Q6_K ? b < 208 : b >= 4;
            static const uint8_t ends[] = { 0x00, 0xff, 0x80, 0x7f, 0xf0, 0x0f };
            if (integer) src[at] = row < 6 ? ends[row] : ends[(at * 7 + row) % 6];
        }
        for (int t = 0; t < T; t++)
            for (int k = 0; k < K; k++) {
                int sign = t == 0 ? 1 : t == 1 ? -1 : k >> (t - 2) & 1 ? 1 : -1;
                x[t * K + k] = (float)(127 * sign);
            }
        op_ctx ctx = on(0, 1);
        op_weight W = packed(&ctx, type, N, K, src, type, N);
        product_case c = { N, K, T, W, x };
        run(&c, ctx, want, 0, T);
        check_scalar(&c, want, "extremes");
        for (int l = 0; l < levels; l++) {
            run(&c, on(l, 1), y, 0, T);
            assert_same_floats(y, want, T * N, kernels_name[l]);
        }
        free(src);
        free(W.panels);
    }
}

/* A row with NaN or infinity is NaN everywhere; its neighbours are not touched. */
static void test_not_finite(void **state) {
    (void)state;
    enum { N = 65, K = 256, T = 3 };
    float x[T * K], want[T * N], y[T * N];
    for (int i = 0; i < TYPES; i++)
        for (int l = 0; l < levels; l++) {
            op_ctx ctx = on(l, 1);
            uint8_t *src = random_blocks(types[i], (size_t)N * K, 4);
            op_weight W = packed(&ctx, types[i], N, K, src, types[i], N);
            product_case c = { N, K, T, W, x };
            test_fill(x, T * K, 1, 1);
            run(&c, ctx, want, 0, T);
            x[K + 77] = l % 2 ? NAN : INFINITY;
            run(&c, ctx, y, 0, T);
            assert_same_floats(y, want, N, "row 0");
            assert_same_floats(y + 2 * N, want + 2 * N, N, "row 2");
            for (int n = 0; n < N; n++) assert_true(isnan(y[N + n]));
            free(src);
            free(W.panels);
        }
}

/* Weights of all types that share an input: each gets the operand it needs. */
static void test_shared_input(void **state) {
    (void)state;
    enum { N = 40, K = 256, T = 5 };
    static const dtype order[] = { DT_Q4_K, DT_Q6_K, DT_F32, DT_Q8_0, DT_BF16, DT_F16, DT_Q4_0, DT_BF16, DT_Q5_K };
    float x[T * K], want[T * N], y[T * N];
    _Alignas(64) char a[T * (K + 1) * 2], b[T * (K + 1) * 2];
    op_ctx ctx = on(levels - 1, 2);
    test_fill(x, T * K, 1, 1);
    op_input in = { .x = x, .buf = a, .T = T };
    for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
        dtype type = order[i];
        uint8_t *src = dt_block(type) > 1 ? random_blocks(type, (size_t)N * K, i) : block((size_t)N * K * 4);
        if (dt_block(type) == 1) {
            float *w = block((size_t)N * K * sizeof *w);
            test_fill(w, (size_t)N * K, 1, i);
            dt_from_f32(src, type, w, (size_t)N * K);
            free(w);
        }
        op_weight W = packed(&ctx, type, N, K, src, type, N);
        op_linear_fwd(&ctx, want, op_operand(&ctx, b, x, &W, T), &W, T);
        op_linear(&ctx, y, &in, &W);
        assert_same_floats(y, want, T * N, dt_name(type));
        free(src);
        free(W.panels);
    }
}

static void test_embed(void **state) {
    (void)state;
    enum { V = 9, C = 512, T = 4 };
    static const int32_t ids[T] = { 8, 0, 9, 3 };
    float want[C], extra[C], x[T * C];
    op_ctx ctx = on(levels - 1, 1);
    test_fill(extra, C, 1, 2);
    for (int i = 0; i < TYPES; i++) {
        uint8_t *table = random_blocks(types[i], (size_t)V * C, 6);
        op_embed_fwd(&ctx, x, table, types[i], extra, ids, T, V, C);
        for (int t = 0; t < T; t++) {
            dt_to_f32(want, ids[t] < V ? table + dt_bytes(types[i], (size_t)ids[t] * C) : table, types[i], C);
            assert_same_floats(x + t * C, ids[t] < V ? want : extra, C, dt_name(types[i]));
        }
        free(table);
    }
}

/* ---- models ---- */

/* Random models in every type: the same numbers whatever the threads, all of them finite. */
static void test_random_model(void **state) {
    (void)state;
    enum { T = 3, V = 70 };
    static const llama_config c = { .L = 2, .C = 256, .F = 256, .H = 4, .G = 2, .D = 64, .V = V, .context = 64,
                                    .eps = 1e-5f, .theta = 1e4f };
    llama_config odd = c;
    llama_model m;
    gist_error err = { 0 };
    for (int i = 0; i < TYPES; i++) {
        float *rows[2];
        for (int t = 1; t <= 2; t++) {
            op_ctx ctx = on(levels - 1, t);
            assert_ok(llama_random(&m, &c, types[i], 5, &ctx, mem_default(), &err), &err);
            assert_int_equal(m.layers[1].down.type, types[i]);
            assert_int_equal(m.embed_type, types[i]);
            rows[t - 1] = rows_of(&m.layers[1].down);
            llama_free(&m);
        }
        assert_same_floats(rows[1], rows[0], 256 * 256, dt_name(types[i]));
        double sum = 0;
        for (int k = 0; k < 256 * 256; k++) {
            assert_true(fabsf(rows[0][k]) <= 0x1p-4f);
            sum += fabs((double)rows[0][k]);
        }
        assert_true(sum / (256 * 256) > 0x1p-9);
        free(rows[0]);
        free(rows[1]);
    }
    odd.F = 96;
    op_ctx ctx = on(0, 1);
    assert_fails(llama_random(&m, &odd, DT_Q4_K, 1, &ctx, mem_default(), &err), &err, GIST_ERR_USAGE, "96");
}

/* Rounding at load: what does not divide into blocks, and types that are only read, are refused by name. */
static void test_load(void **state) {
    (void)state;
    char dir[TEST_PATH];
    gist_engine *e = NULL;
    tiny_model t = TINY_MODEL;
    gist_engine_options o = GIST_ENGINE_OPTIONS_INIT;
    gist_error err = { 0 };
    tiny_save(&t, "narrow", dir);
    o.weights = GIST_TYPE_Q8_0;
    assert_fails(gist_engine_open(dir, &o, &e, &err), &err, GIST_ERR_UNSUPPORTED, "not whole blocks of q8_0 (32)");
    err = (gist_error){ 0 };
    o.weights = GIST_TYPE_Q6_K;
    assert_fails(gist_engine_open(dir, &o, &e, &err), &err, GIST_ERR_USAGE, "q6_K");
    assert_null(e);
    t.C = 64, t.F = 96, t.H = 2, t.G = 1, t.D = 32;
    e = tiny_open(&t, "whole", 1, GIST_KERNELS_AUTO, GIST_TYPE_Q4_0, NULL);
    gist_engine_info info;
    gist_engine_get_info(e, &info);
    assert_int_equal(info.weights, GIST_TYPE_Q4_0);
    gist_engine_close(e);
}

int main(void) {
    find_kernels();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lossless),  cmocka_unit_test(test_convert),    cmocka_unit_test(test_set_row),
        cmocka_unit_test(test_rows),      cmocka_unit_test(test_products),   cmocka_unit_test(test_add),
        cmocka_unit_test(test_extremes),  cmocka_unit_test(test_not_finite), cmocka_unit_test(test_shared_input),
        cmocka_unit_test(test_embed),     cmocka_unit_test(test_random_model), cmocka_unit_test(test_load),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    for (int t = 0; t < 4; t++) pool_free(threads[t]);
    return failed;
}
