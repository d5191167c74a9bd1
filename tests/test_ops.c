/* test_ops.c - linear maps and pointwise ops: every kernel level of this CPU against the scalar definition, the scalar
 * definition against plain double precision, and the laws that hold bit for bit.
 *
 *   linear    packing is exact; levels agree; a row alone = the row in a batch; 1 thread = 2, 3, 4; odd K, ragged N
 *   bf16      rounding to nearest even, every exponent, NaN and infinity, bit for bit on every level
 *   rows      rmsnorm, silu_mul, add, bias, rope: the same
 */
#include <math.h>
#include <stdlib.h>

#include "ops/ops.h"
#include "tiny.h"
#include "tolerances.h"

static gist_kernels level[TINY_LEVELS];
static int levels;

typedef struct machine {
    pool *pool;
    op_ctx ctx;
} machine;

static machine machine_on(gist_kernels k, int threads) {
    machine m = { 0 };
    gist_error err = { 0 };
    assert_ok(pool_create(mem_default(), threads, &m.pool, &err), &err);
    assert_ok(op_init(&m.ctx, k, m.pool, &err), &err);
    assert_int_equal(op_level(&m.ctx), k);
    return m;
}

static void machine_off(machine *m) {
    pool_free(m->pool);
}

/* Exact sizes, so that AddressSanitizer sees any step outside. */
static float *random_floats(size_t n, float scale, uint64_t seed) {
    float *p = floats(n);
    test_fill(p, n, scale, seed);
    return p;
}

/* ---- dispatch ---- */

static void test_levels(void **state) {
    (void)state;
    op_ctx ctx = { 0 };
    gist_error err = { 0 };
    machine m = machine_on(GIST_KERNELS_SCALAR, 1);
    assert_ok(op_init(&ctx, GIST_KERNELS_AUTO, m.pool, &err), &err);
    assert_int_equal(op_level(&ctx), level[levels - 1]);
    for (int i = 0; i < levels; i++) print_message("level %s\n", gist_kernels_name(level[i]));
    op_ctx before = ctx;
    assert_fails(op_init(&ctx, (gist_kernels)99, m.pool, &err), &err, GIST_ERR_UNSUPPORTED, NULL);
    assert_memory_equal(&ctx, &before, sizeof ctx);
    assert_string_equal(gist_kernels_name((gist_kernels)99), "unknown");
    machine_off(&m);
}

/* ---- linear maps ---- */

typedef struct linear_case {
    int N, K, T;
    dtype type;
    op_weight W;
    float *w, *x; /* [N,K] the weight's values exactly, [T,K] */
} linear_case;

static void linear_make(linear_case *c, machine *m, int N, int K, int T, dtype type, uint64_t seed) {
    *c = (linear_case){ .N = N, .K = K, .T = T, .type = type };
    size_t count = (size_t)N * (size_t)K;
    c->w = random_floats(count, 1, seed);
    c->x = random_floats((size_t)T * (size_t)K, 1, seed + 1);
    void *stored = malloc(dt_bytes(type, count));
    dt_from_f32(stored, type, c->w, count);
    dt_to_f32(c->w, stored, type, count);
    c->W = (op_weight){ type, N, K, aligned_alloc(64, op_weight_bytes(type, N, K)) };
    memset(c->W.panels, 0xff, op_weight_bytes(type, N, K)); /* NaN where packing forgets something */
    op_weight_pack(&m->ctx, &c->W, stored, type, N);
    free(stored);
}

static void linear_free(linear_case *c) {
    free(c->W.panels);
    free(c->w);
    free(c->x);
}

static void linear_run(const linear_case *c, machine *m, float *y, int first, int rows) {
    const float *x = c->x + (size_t)first * (size_t)c->K;
    void *buf = malloc(op_operand_bytes(c->K) * (size_t)rows);
    const void *operand = op_operand(&m->ctx, buf, x, &c->W, rows);
    if (c->type == DT_BF16)
        assert_ptr_equal(operand, buf);
    else
        assert_ptr_equal(operand, x);
    op_linear_fwd(&m->ctx, y, operand, &c->W, rows);
    free(buf);
}

static void linear_exact(const linear_case *c, float *y) {
    for (int t = 0; t < c->T; t++)
        for (int n = 0; n < c->N; n++) {
            double sum = 0;
            for (int k = 0; k < c->K; k++) {
                float x = c->x[(size_t)t * (size_t)c->K + (size_t)k];
                if (c->type == DT_BF16) x = bf16_to_f32(f32_to_bf16(x));
                sum += (double)x * (double)c->w[(size_t)n * (size_t)c->K + (size_t)k];
            }
            y[(size_t)t * (size_t)c->N + (size_t)n] = (float)sum;
        }
}

static double linear_tolerance(dtype type) {
    static const double tol[] = { [DT_F32] = TOL_LINEAR_F32_LEVEL, [DT_BF16] = TOL_LINEAR_BF16_LEVEL,
                                  [DT_F16] = TOL_LINEAR_F16_LEVEL };
    return tol[type];
}

static void check_linear(machine on[TINY_LEVELS][4], int N, int K, int T, dtype type, uint64_t seed) {
    linear_case c;
    linear_make(&c, &on[0][seed % 4], N, K, T, type, seed);
    size_t count = (size_t)T * (size_t)N;
    float *exact = floats(count), *scalar = floats(count), *y = floats(count), *row = floats((size_t)N);
    char what[96];
    linear_exact(&c, exact);
    linear_run(&c, &on[0][0], scalar, 0, T);
    snprintf(what, sizeof what, "linear %s N %d K %d T %d", dt_name(type), N, K, T);
    assert_close(scalar, exact, count, TOL_LINEAR_EXACT, what);
    for (int l = 0; l < levels; l++) {
        snprintf(what, sizeof what, "linear %s N %d K %d T %d, %s", dt_name(type), N, K, T,
                 gist_kernels_name(level[l]));
        float *one = floats(count);
        linear_run(&c, &on[l][0], one, 0, T);
        assert_close(one, scalar, count, linear_tolerance(type), what);
        for (int threads = 1; threads < 4; threads++) {
            linear_run(&c, &on[l][threads], y, 0, T);
            assert_same_floats(y, one, count, what);
        }
        for (int i = 0; i < 6; i++) { /* rows alone, and runs of rows */
            int first = (int)(test_rand(&seed) % (uint64_t)T), most = T - first,
                rows = i < 3 ? 1 : 1 + (int)(test_rand(&seed) % (uint64_t)most);
            linear_run(&c, &on[l][0], y, first, rows);
            assert_same_floats(y, one + (size_t)first * (size_t)N, (size_t)rows * (size_t)N, what);
        }
        free(one);
    }
    free(exact);
    free(scalar);
    free(y);
    free(row);
    linear_free(&c);
}

static void test_linear(void **state) {
    (void)state;
    static const int Ns[] = { 1, 7, 63, 64, 65, 127, 128, 130, 200 },
                     Ts[] = { 1, 2, 3, 4, 5, 6, 7, 11, 13, 31, 33, 70 };
    static const int Ks[] = {
        1, 2, 3, 15, 16, 17, 31, 64, 127, 255, 256, 257, 300, 511, 512, 513, 514, 700, 1025, 1100
    };
    machine on[TINY_LEVELS][4];
    for (int l = 0; l < levels; l++)
        for (int t = 0; t < 4; t++) on[l][t] = machine_on(level[l], t + 1);
    uint64_t seed = 7;
    for (int type = 0; type <= DT_F16; type++) {
        for (size_t i = 0; i < sizeof Ks / sizeof *Ks; i++) {
            int N = Ns[test_rand(&seed) % (sizeof Ns / sizeof *Ns)],
                T = Ts[test_rand(&seed) % (sizeof Ts / sizeof *Ts)];
            check_linear(on, N, Ks[i], T, (dtype)type, test_rand(&seed));
        }
        for (size_t i = 0; i < sizeof Ns / sizeof *Ns; i++)
            check_linear(on, Ns[i], 37, Ts[i], (dtype)type, test_rand(&seed));
        check_linear(on, 66, 35, 400, (dtype)type, test_rand(&seed)); /* several blocks of rows */
        check_linear(on, 64, 520, 194, (dtype)type, test_rand(&seed));
    }
    for (int l = 0; l < levels; l++)
        for (int t = 0; t < 4; t++) machine_off(&on[l][t]);
}

/* Packing moves values, whatever types: rows come back exactly, rows beyond the source are zero until they are set. */
static void test_pack(void **state) {
    (void)state;
    machine m = machine_on(level[levels - 1], 2);
    static const int shapes[][2] = { { 1, 1 }, { 3, 7 }, { 64, 33 }, { 65, 300 }, { 130, 64 } };
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int from = 0; from <= DT_F16; from++)
            for (int to = 0; to <= DT_F16; to++) {
                int N = shapes[s][0], K = shapes[s][1];
                size_t count = (size_t)N * (size_t)K;
                float *x = random_floats(count, 3, s + 1), *row = floats((size_t)K), *want = floats((size_t)K);
                uint8_t *raw = malloc(dt_bytes((dtype)from, count) + 1), *src = raw + 1; /* files are not aligned */
                dt_from_f32(want, DT_F32, x, (size_t)K);
                void *stored = malloc(dt_bytes((dtype)from, count));
                dt_from_f32(stored, (dtype)from, x, count);
                memcpy(src, stored, dt_bytes((dtype)from, count));
                op_weight W = { (dtype)to, N + 1, K, aligned_alloc(64, op_weight_bytes((dtype)to, N + 1, K)) };
                memset(W.panels, 0xff, op_weight_bytes((dtype)to, N + 1, K));
                op_weight_pack(&m.ctx, &W, src, (dtype)from, N);
                for (int n = 0; n < N; n++) {
                    uint8_t narrow[4 * 300];
                    dt_to_f32(want, (uint8_t *)stored + dt_bytes((dtype)from, (size_t)n * (size_t)K), (dtype)from,
                              (size_t)K);
                    dt_from_f32(narrow, (dtype)to, want, (size_t)K);
                    dt_to_f32(want, narrow, (dtype)to, (size_t)K);
                    op_weight_get_row(&W, n, row);
                    assert_same_floats(row, want, (size_t)K, "packed row");
                }
                op_weight_get_row(&W, N, row);
                for (int k = 0; k < K; k++) assert_true(row[k] == 0);
                for (int k = 0; k < K; k++) want[k] = (float)(k % 5 - 2);
                op_weight_set_row(&W, N, want);
                op_weight_get_row(&W, N, row);
                assert_same_floats(row, want, (size_t)K, "set row");
                free(W.panels);
                free(stored);
                free(raw);
                free(want);
                free(row);
                free(x);
            }
    machine_off(&m);
}

/* ---- bf16 rounding ---- */

static void test_round_bf16(void **state) {
    (void)state;
    static const uint32_t low[] = { 0, 1, 0x7fff, 0x8000, 0x8001, 0xffff, 0x4321 };
    enum { LOW = sizeof low / sizeof *low, K = 65536 / 8 + 3 };
    op_weight W = { DT_BF16, 1, K, NULL };
    float *x = floats(K);
    uint16_t *y = malloc(op_operand_bytes(K));
    for (int l = 0; l < levels; l++) {
        machine m = machine_on(level[l], 1);
        for (uint32_t high = 0; high < 65536; high += K)
            for (int i = 0; i < LOW; i++) {
                for (uint32_t j = 0; j < K; j++) {
                    uint32_t bits = ((high + j) & 0xffff) << 16 | low[i];
                    memcpy(&x[j], &bits, 4);
                }
                const uint16_t *got = op_operand(&m.ctx, y, x, &W, 1);
                for (int j = 0; j < K; j++)
                    if (got[j] != f32_to_bf16(x[j]))
                        fail_msg("%s: %a becomes %04x, not %04x", gist_kernels_name(level[l]), (double)x[j], got[j],
                                 f32_to_bf16(x[j]));
                assert_int_equal(got[K], 0); /* K is odd: the last partner is zero */
            }
        machine_off(&m);
    }
    free(x);
    free(y);
}

/* ---- rows ---- */

static const int widths[] = { 1, 2, 7, 15, 16, 17, 20, 31, 32, 33, 64, 100, 127, 255, 2048 };
enum { WIDTHS = sizeof widths / sizeof *widths };

static void test_rmsnorm(void **state) {
    (void)state;
    for (int i = 0; i < WIDTHS; i++) {
        int C = widths[i], T = 9;
        size_t n = (size_t)T * (size_t)C;
        float *x = random_floats(n, 3, (uint64_t)i), *w = random_floats((size_t)C, 2, 99), *exact = floats(n);
        float *scalar = floats(n), *y = floats(n), *alone = floats((size_t)C);
        for (int t = 0; t < T; t++) {
            double sum = 0;
            for (int c = 0; c < C; c++) sum += (double)x[t * C + c] * (double)x[t * C + c];
            for (int c = 0; c < C; c++)
                exact[t * C + c] = (float)((double)x[t * C + c] / sqrt(sum / C + (double)1e-5f) * (double)w[c]);
        }
        for (int l = 0; l < levels; l++) {
            machine m = machine_on(level[l], 1 + l % 2);
            op_rmsnorm_fwd(&m.ctx, l ? y : scalar, x, w, T, C, 1e-5f);
            if (l == 0) assert_close(scalar, exact, n, TOL_RMSNORM_EXACT, "rmsnorm against double");
            if (l > 0) assert_close(y, scalar, n, TOL_RMSNORM_LEVEL, gist_kernels_name(level[l]));
            for (int t = 0; t < T; t++) {
                op_rmsnorm_fwd(&m.ctx, alone, x + t * C, w, 1, C, 1e-5f);
                assert_same_floats(alone, (l ? y : scalar) + t * C, (size_t)C, "rmsnorm of a row alone");
            }
            machine_off(&m);
        }
        free(x); free(w); free(exact); free(scalar); free(y); free(alone);
    }
}

static void test_silu_mul(void **state) {
    (void)state;
    for (int i = 0; i < WIDTHS; i++) {
        int F = widths[i], T = 5;
        size_t n = (size_t)T * (size_t)F;
        float *gate = random_floats(n, 12, (uint64_t)i + 50), *up = random_floats(n, 2, (uint64_t)i),
              *exact = floats(n);
        float *scalar = floats(n), *y = floats(n);
        for (size_t j = 0; j < n; j++)
            exact[j] = (float)((double)gate[j] / (1 + exp(-(double)gate[j])) * (double)up[j]);
        for (int l = 0; l < levels; l++) {
            machine m = machine_on(level[l], 2);
            op_silu_mul_fwd(&m.ctx, l ? y : scalar, gate, up, T, F);
            if (l == 0) assert_close(scalar, exact, n, TOL_SILU_EXACT, "silu against double");
            if (l > 0) assert_close(y, scalar, n, TOL_SILU_LEVEL, gist_kernels_name(level[l]));
            float *place = floats(n); /* in place, either operand */
            memcpy(place, gate, n * sizeof *place);
            op_silu_mul_fwd(&m.ctx, place, place, up, T, F);
            assert_same_floats(place, l ? y : scalar, n, "silu over its gate");
            memcpy(place, up, n * sizeof *place);
            op_silu_mul_fwd(&m.ctx, place, gate, place, T, F);
            assert_same_floats(place, l ? y : scalar, n, "silu over its other operand");
            free(place);
            machine_off(&m);
        }
        free(gate); free(up); free(exact); free(scalar); free(y);
    }
}

/* Far out the activation is 0 or its argument, and NaN stays NaN, on every level; nothing overflows on the way. */
static void test_silu_edges(void **state) {
    (void)state;
    float gate[] = { 0,      -0.0f, 87.2f,  88.6f, 88.8f,    200,    1e30f,   -87.2f, -88.6f,
                     -88.8f, -200,  -1e30f, NAN,   INFINITY, 1e-40f, -1e-40f, 3 };
    enum { n = sizeof gate / sizeof *gate };
    float up[n], y[n];
    for (int i = 0; i < n; i++) up[i] = 1;
    for (int l = 0; l < levels; l++) {
        machine m = machine_on(level[l], 1);
        op_silu_mul_fwd(&m.ctx, y, gate, up, 1, n);
        for (int i = 0; i < n; i++) {
            double g = (double)gate[i], want = g / (1 + exp(-g)), d = fabs((double)y[i] - want);
            if (isnan(want) ? !isnan(y[i]) : isinf(want) ? (double)y[i] != want : d > 1e-6 * fabs(want) + 1e-36)
                fail_msg("%s: silu(%g) = %g, expected %g", gist_kernels_name(level[l]), g, (double)y[i], want);
        }
        machine_off(&m);
    }
}

static void test_add(void **state) {
    (void)state;
    for (int i = 0; i < WIDTHS; i++) {
        int C = widths[i], T = 7;
        size_t n = (size_t)T * (size_t)C;
        float *a = random_floats(n, 1, 3), *b = random_floats(n, 1e-3f, 4), *y = floats(n), *want = floats(n);
        for (size_t j = 0; j < n; j++) want[j] = a[j] + b[j];
        for (int l = 0; l < levels; l++) {
            machine m = machine_on(level[l], 2);
            op_add_fwd(&m.ctx, y, a, b, T, C);
            assert_same_floats(y, want, n, gist_kernels_name(level[l]));
            memcpy(y, a, n * sizeof *y);
            op_add_fwd(&m.ctx, y, y, b, T, C);
            assert_same_floats(y, want, n, "add in place");
            machine_off(&m);
        }
        free(a); free(b); free(y); free(want);
    }
}

static void test_rope(void **state) {
    (void)state;
    static const int Ds[] = { 2, 4, 8, 10, 12, 16, 32, 34, 40, 64, 80, 128 };
    for (size_t i = 0; i < sizeof Ds / sizeof *Ds; i++) {
        int D = Ds[i], H = 3, T = 70;
        size_t n = (size_t)T * (size_t)H * (size_t)D;
        float *x = random_floats(n, 2, i), *cs = floats((size_t)T * (size_t)D), freq[64], *exact = floats(n);
        float *scalar = floats(n), *y = floats(n), *alone = floats((size_t)H * (size_t)D), *table = floats((size_t)D);
        int32_t pos[70];
        for (int j = 0; j < D / 2; j++) freq[j] = (float)(1 / pow(10000, 2.0 * j / D));
        for (int t = 0; t < T; t++) pos[t] = t * 29 % 2048;
        machine one = machine_on(GIST_KERNELS_SCALAR, 1), two = machine_on(GIST_KERNELS_SCALAR, 2);
        op_rope_table(&two.ctx, cs, pos, freq, T, D);
        for (int t = 0; t < T; t++) {
            op_rope_table(&one.ctx, table, pos + t, freq, 1, D);
            assert_same_floats(table, cs + t * D, (size_t)D, "rotary table of a row alone");
            for (int j = 0; j < D / 2; j++) {
                double angle = (double)((float)pos[t] * freq[j]), c = cos(angle), s = sin(angle);
                assert_true(fabs((double)table[j] - c) <= TOL_ROPE_TABLE &&
                            fabs((double)table[j + D / 2] - s) <= TOL_ROPE_TABLE);
                for (int h = 0; h < H; h++) {
                    size_t at = ((size_t)t * (size_t)H + (size_t)h) * (size_t)D + (size_t)j, far = at + (size_t)D / 2;
                    exact[at] = (float)((double)x[at] * c - (double)x[far] * s);
                    exact[far] = (float)((double)x[far] * c + (double)x[at] * s);
                }
            }
        }
        for (int l = 0; l < levels; l++) {
            machine m = machine_on(level[l], 2);
            float *got = l ? y : scalar;
            memcpy(got, x, n * sizeof *got);
            op_rope_fwd(&m.ctx, got, cs, T, H, D);
            if (l == 0) assert_close(got, exact, n, TOL_ROPE_EXACT, "rope against double");
            if (l > 0) assert_close(got, scalar, n, TOL_ROPE_LEVEL, gist_kernels_name(level[l]));
            for (int t = 0; t < T; t += 11) {
                size_t at = (size_t)t * (size_t)H * (size_t)D;
                memcpy(alone, x + at, (size_t)H * (size_t)D * sizeof *alone);
                op_rope_fwd(&m.ctx, alone, cs + t * D, 1, H, D);
                assert_same_floats(alone, got + at, (size_t)H * (size_t)D, "rope of a row alone");
            }
            machine_off(&m);
        }
        machine_off(&one);
        machine_off(&two);
        free(x); free(cs); free(exact); free(scalar); free(y); free(alone); free(table);
    }
}

static void test_embed(void **state) {
    (void)state;
    enum { V = 5, C = 7 };
    float table[V * C], extra[C], x[4 * C], want[C];
    uint8_t raw[V * C * 4 + 1];
    test_fill(table, V * C, 1, 1);
    test_fill(extra, C, 1, 2);
    static const int32_t ids[] = { 4, 5, 0, 4 };
    machine m = machine_on(GIST_KERNELS_SCALAR, 1);
    for (int type = 0; type <= DT_F16; type++) {
        uint8_t stored[V * C * 4];
        dt_from_f32(stored, (dtype)type, table, V * C);
        memcpy(raw + 1, stored, sizeof stored);
        op_embed_fwd(&m.ctx, x, raw + 1, (dtype)type, extra, ids, 4, V, C);
        for (int t = 0; t < 4; t++) {
            if (ids[t] < V)
                dt_to_f32(want, stored + dt_bytes((dtype)type, (size_t)ids[t] * C), (dtype)type, C);
            else
                memcpy(want, extra, sizeof want);
            assert_same_floats(x + t * C, want, C, "embedding");
        }
    }
    machine_off(&m);
}

/* Biases are added in one rounding, and their gradient is summed in row order, on every level. */
static void test_bias(void **state) {
    (void)state;
    enum { T = 37, N = 131 };
    float x[T * N], b[N], y[T * N], db[N], want[N];
    test_fill(x, T * N, 2, 1);
    test_fill(b, N, 2, 2);
    for (int n = 0; n < N; n++) {
        want[n] = b[n];
        for (int t = 0; t < T; t++) want[n] += x[t * N + n];
    }
    for (int l = 0; l < levels; l++) {
        machine m = machine_on(level[l], 1 + l % 2);
        memcpy(y, x, sizeof y);
        op_bias_fwd(&m.ctx, y, b, T, N);
        for (int i = 0; i < T * N; i++) assert_true(y[i] == x[i] + b[i % N]);
        memcpy(db, b, sizeof db);
        op_bias_bwd(&m.ctx, db, x, T, N);
        assert_same_floats(db, want, N, "gradient of a bias");
        machine_off(&m);
    }
}

int main(void) {
    levels = tiny_levels(level);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_levels),     cmocka_unit_test(test_pack),     cmocka_unit_test(test_linear),
        cmocka_unit_test(test_round_bf16), cmocka_unit_test(test_rmsnorm),  cmocka_unit_test(test_silu_mul),
        cmocka_unit_test(test_silu_edges), cmocka_unit_test(test_add),      cmocka_unit_test(test_rope),
        cmocka_unit_test(test_embed),      cmocka_unit_test(test_bias),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
