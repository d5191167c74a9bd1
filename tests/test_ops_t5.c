/* test_ops_t5.c - what T5 needs beyond LLaMA's ops, on every kernel level of this CPU.
 *
 *   activations   gelu (tanh form) and relu, forward and backward, against double; levels; in place
 *   buckets       distances into a small table: written out by hand for the published shape, both directions
 *   distances     a table spread out for each head, and its derivative
 *   near          attention with a bias by distance: against double; a bias of zero = none, bit for bit; where memory
 *                 ends and local begins does not matter; rows alone = rows in a batch
 * The derivative of the last is in test_ops_attention_bwd.c.
 */
#include "bwd.h"

/* ---- activations ---- */

static double gelu(double x) {
    return 0.5 * x * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
}

typedef struct gated {
    int T, F;
    double *gate, *up; /* up NULL: relu */
    float *dy;
} gated;

static double gated_value(const void *arg) {
    const gated *c = arg;
    double sum = 0;
    for (int i = 0; i < c->T * c->F; i++) {
        double y = c->up ? gelu(c->gate[i]) * c->up[i] : fmax(c->gate[i], 0);
        sum += y * (double)c->dy[i];
    }
    return sum;
}

static void gated_run(op_ctx *ctx, const void *arg, float *const *out) {
    const gated *c = arg;
    size_t n = (size_t)(c->T * c->F);
    float *gate = floats_of(c->gate, n), *up = c->up ? floats_of(c->up, n) : NULL;
    if (up) {
        op_gelu_mul_bwd(ctx, out[0], out[1], c->dy, gate, up, c->T, c->F);
        op_gelu_mul_bwd(ctx, gate, up, c->dy, gate, up, c->T, c->F); /* over its own arguments */
        assert_same_floats(up, out[1], n, "dup in place of up");
    } else {
        op_relu_bwd(ctx, out[0], c->dy, gate, c->T, c->F);
        op_relu_bwd(ctx, gate, c->dy, gate, c->T, c->F);
    }
    assert_same_floats(gate, out[0], n, "dgate in place of gate");
    free(gate);
    free(up);
}

static const int widths[] = { 1, 2, 15, 16, 17, 31, 33, 64, 100, 1031 };
enum { WIDTHS = sizeof widths / sizeof *widths };

static void check_forward(int T, int F, const float *gate, const float *up) {
    size_t n = (size_t)(T * F);
    float *exact = block(n, sizeof *exact), *scalar = block(n, sizeof *scalar), *y = block(n, sizeof *y);
    for (size_t i = 0; i < n; i++) exact[i] = (float)(gelu((double)gate[i]) * (double)up[i]);
    for (int l = 0; l < levels; l++) {
        op_ctx ctx = ctx_of(l, 2);
        op_gelu_mul_fwd(&ctx, l ? y : scalar, gate, up, T, F);
        if (l == 0) assert_close(scalar, exact, n, TOL_GELU_EXACT, "gelu against double");
        if (l > 0) assert_close(y, scalar, n, TOL_GELU_LEVEL, gist_kernels_name(level[l]));
        float *place = block(n, sizeof *place);
        memcpy(place, gate, n * sizeof *place);
        op_gelu_mul_fwd(&ctx, place, place, up, T, F);
        assert_same_floats(place, l ? y : scalar, n, "gelu over its gate");
        op_relu_fwd(&ctx, place, gate, T, F);
        for (size_t i = 0; i < n; i++) assert_true(place[i] == (gate[i] > 0 ? gate[i] : 0));
        free(place);
    }
    free(exact);
    free(scalar);
    free(y);
}

static void test_activations(void **state) {
    (void)state;
    for (int i = 0; i < WIDTHS; i++) {
        int T = 3, F = widths[i];
        size_t n = (size_t)(T * F);
        float *gate = random_floats(n, 4, (uint64_t)i + 20), *up = random_floats(n, 2, 2), *dy = random_floats(n, 1, 3);
        for (size_t j = 0; j < n; j++) /* differences must not meet relu's corner */
            if (fabsf(gate[j]) < 0.05f) gate[j] += 0.2f;
        check_forward(T, F, gate, up);
        for (int relu = 0; relu < 2; relu++) {
            gated c = { T, F, doubles_of(gate, n), relu ? NULL : doubles_of(up, n), dy };
            problem p = { .what = relu ? "relu" : "gelu_mul",
                          .value = gated_value,
                          .run = gated_run,
                          .c = &c,
                          .exact = TOL_GELU_BWD_EXACT,
                          .level = TOL_GELU_BWD_LEVEL };
            add_output(&p, "dgate", c.gate, n, false, 0);
            if (!relu) add_output(&p, "dup", c.up, n, false, 0);
            check(&p);
        }
        free(gate);
        free(up);
        free(dy);
    }
}

/* Far out gelu is 0 or its argument, and NaN stays NaN. */
static void test_edges(void **state) {
    (void)state;
    float gate[] = { 0, -0.0f, 9, -9, 30, -30, 1e10f, -1e10f, 1e30f, -1e30f, NAN, INFINITY, 3, 1e-40f, -2, 1, 5 };
    enum { n = sizeof gate / sizeof *gate };
    float up[n], y[n];
    for (int i = 0; i < n; i++) up[i] = 1;
    for (int l = 0; l < levels; l++) {
        op_ctx ctx = ctx_of(l, 1);
        op_gelu_mul_fwd(&ctx, y, gate, up, 1, n);
        for (int i = 0; i < n; i++) {
            double g = (double)gate[i], want = gelu(g), d = fabs((double)y[i] - want);
            if (isnan(want) ? !isnan(y[i]) : isinf(want) ? (double)y[i] != want : d > 1e-6 * fabs(want) + 1e-6)
                fail_msg("%s: gelu(%g) = %g, expected %g", gist_kernels_name(level[l]), g, (double)y[i], want);
        }
        op_relu_fwd(&ctx, y, gate, 1, n);
        for (int i = 0; i < n; i++) assert_true(isnan(gate[i]) ? isnan(y[i]) : y[i] == fmaxf(gate[i], 0));
    }
}

/* ---- buckets ---- */

static void test_buckets(void **state) {
    (void)state;
    /* 32 buckets up to 128, both directions: 8 of their own on each side, then by logarithm */
    static const int both[][2] = { { 0, 0 },    { -1, 1 },   { -7, 7 },   { -8, 8 },   { -11, 8 },   { -12, 9 },
                                   { -16, 10 }, { -23, 11 }, { -32, 12 }, { -64, 14 }, { -127, 15 }, { -5000, 15 },
                                   { 1, 17 },   { 7, 23 },   { 8, 24 },   { 91, 31 },  { 90, 30 },   { 128, 31 } };
    /* keys before the query only: 16 of their own; what stands behind is as distance 0 */
    static const int past[][2] = { { 0, 0 },    { 1, 0 },    { 400, 0 },  { -1, 1 },   { -15, 15 },  { -16, 16 },
                                   { -18, 16 }, { -19, 17 }, { -32, 21 }, { -64, 26 }, { -113, 31 }, { -100000, 31 } };
    op_buckets b = { 32, 128, true }, p = { 32, 128, false };
    for (size_t i = 0; i < sizeof both / sizeof *both; i++) assert_int_equal(op_bucket(&b, both[i][0]), both[i][1]);
    for (size_t i = 0; i < sizeof past / sizeof *past; i++) assert_int_equal(op_bucket(&p, past[i][0]), past[i][1]);
}

static void test_distances(void **state) {
    (void)state;
    enum { H = 3, REACH = 40, ALL = 2 * REACH + 1, BUCKETS = 8 };
    for (int both = 0; both < 2; both++) {
        op_buckets b = { BUCKETS, 20, both };
        float *table = random_floats((size_t)(BUCKETS * H), 1, 5), bias[H * ALL], dtable[BUCKETS * H];
        float *dbias = random_floats((size_t)(H * ALL), 1, 6);
        op_distance near = { REACH, bias };
        op_distance_fwd(&near, table, &b, H);
        for (int h = 0; h < H; h++)
            for (int d = -REACH; d <= REACH; d++)
                assert_true(bias[h * ALL + REACH + d] == table[op_bucket(&b, d) * H + h]);
        for (int i = 0; i < BUCKETS * H; i++) dtable[i] = 1; /* added to */
        op_distance_bwd(dtable, dbias, REACH, &b, H);
        for (int i = 0; i < BUCKETS; i++)
            for (int h = 0; h < H; h++) {
                double want = 1;
                for (int d = -REACH; d <= REACH; d++)
                    if (op_bucket(&b, d) == i) want += (double)dbias[h * ALL + REACH + d];
                assert_true(fabs(want - (double)dtable[i * H + h]) < 1e-5);
            }
        free(table);
        free(dbias);
    }
}

/* ---- attention with a bias ---- */

enum { NT = 21, NH = 6, NG = 3, ND = 20, NS = 64, NREACH = 100, NALL = 2 * NREACH + 1, NROW = NH * ND };

typedef struct near_case {
    float *q, *k, *v;
    float bias[NH * NALL];
    op_kv kv[2];
    op_row row[NT];
} near_case;

/* Rows at random places that see keys [0,n) at positions 0..n-1; the first `memory` of them in store 1. */
static void near_make(near_case *c, uint64_t *seed) {
    c->q = random_floats(NT * NROW, 1, 1);
    c->k = random_floats(NS * NG * ND, 1, 2);
    c->v = random_floats(NS * NG * ND, 1, 3);
    test_fill(c->bias, NH * NALL, 3, 4);
    size_t n = (size_t)NS * NG * ND * sizeof(float);
    for (int s = 0; s < 2; s++) c->kv[s] = (op_kv){ DT_F32, NS, block(n, 1), block(n, 1) };
    int seen = 0;
    for (int t = 0; t < NT; t++) {
        if (t % 4 == 0) seen = below(seed, NS + 1);
        c->row[t] = (op_row){ .pos = below(seed, 30), .mem = -1, .hi = seen };
    }
}

/* Positions [0,memory) in store 1 from slot 5 on, the rest in store 0 from slot 0 on. */
static void near_run(near_case *c, op_ctx ctx, int memory, const float *bias, int first, int T, float *out) {
    op_row row[NT];
    for (int j = 0; j < NS; j++) {
        const op_kv *kv = &c->kv[j < memory];
        op_kv_set(kv, j < memory ? (j + 5) % NS : j - memory, c->k + j * NG * ND, c->v + j * NG * ND, NG, ND);
    }
    for (int t = 0; t < T; t++) {
        const op_row *r = &c->row[first + t];
        int before = r->hi < memory ? r->hi : memory;
        row[t] = *r;
        if (memory) row[t].mem = 1, row[t].mlo = 5, row[t].mhi = 5 + before;
        row[t].hi = r->hi - before;
    }
    op_distance near = { NREACH, NULL };
    float *copy = bias ? block(NH * NALL, sizeof *copy) : NULL;
    if (bias) memcpy(copy, bias, NH * NALL * sizeof *copy);
    near.bias = copy;
    size_t size = (op_attention_scratch(&ctx, T, NS) + 63) / 64 * 64;
    void *scratch = aligned_alloc(64, size);
    op_attention_near_fwd(&ctx, out, NULL, c->q + first * NROW, c->kv, row, T, NH, NG, ND, 0.5f, bias ? &near : NULL,
                          scratch);
    free(scratch);
    free(copy);
}

static void near_exact(const near_case *c, float *out) {
    for (int t = 0; t < NT; t++)
        for (int h = 0; h < NH; h++) {
            double p[NS], sum = 0;
            const float *q = c->q + t * NROW + h * ND;
            for (int j = 0; j < c->row[t].hi; j++) {
                const float *k = c->k + (j * NG + h / (NH / NG)) * ND;
                double dot = 0;
                for (int d = 0; d < ND; d++) dot += (double)q[d] * (double)k[d];
                p[j] = exp(0.5 * dot + (double)c->bias[h * NALL + NREACH + j - c->row[t].pos]);
                sum += p[j];
            }
            for (int d = 0; d < ND; d++) {
                double x = 0;
                for (int j = 0; j < c->row[t].hi; j++)
                    x += p[j] / sum * (double)c->v[(j * NG + h / (NH / NG)) * ND + d];
                out[t * NROW + h * ND + d] = (float)x;
            }
        }
}

static void test_near(void **state) {
    (void)state;
    static const int memories[] = { 1, 7, 16, 33, 59 };
    near_case c;
    uint64_t seed = 8;
    near_make(&c, &seed);
    size_t n = NT * NROW;
    float *exact = block(n, sizeof *exact), *scalar = block(n, sizeof *scalar), *y = block(n, sizeof *y);
    float *zeros = block(NH * NALL, sizeof *zeros), *z = block(n, sizeof *z);
    near_exact(&c, exact);
    for (int l = 0; l < levels; l++) {
        near_run(&c, ctx_of(l, 1), 0, c.bias, 0, NT, y);
        if (l == 0) memcpy(scalar, y, n * sizeof *y);
        if (l == 0) assert_close(y, exact, n, TOL_ATTENTION_EXACT, "near against double");
        if (l > 0) assert_close(y, scalar, n, TOL_ATTENTION_F32_LEVEL, gist_kernels_name(level[l]));
        for (size_t i = 0; i < sizeof memories / sizeof *memories; i++) {
            near_run(&c, ctx_of(l, 2), memories[i], c.bias, 0, NT, z);
            assert_same_floats(z, y, n, "boundary between memory and local");
        }
        for (int t = 0; t < NT; t++) {
            near_run(&c, ctx_of(l, 1), 0, c.bias, t, 1, z);
            assert_same_floats(z, y + t * NROW, NROW, "a row alone");
        }
        near_run(&c, ctx_of(l, 1), 0, zeros, 0, NT, z);
        near_run(&c, ctx_of(l, 1), 0, NULL, 0, NT, y);
        assert_same_floats(z, y, n, "a bias of zero and none");
    }
    for (int s = 0; s < 2; s++) {
        free(c.kv[s].k);
        free(c.kv[s].v);
    }
    free(c.q), free(c.k), free(c.v);
    free(exact), free(scalar), free(y), free(zeros), free(z);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_activations), cmocka_unit_test(test_edges),
                                        cmocka_unit_test(test_buckets), cmocka_unit_test(test_distances),
                                        cmocka_unit_test(test_near) };
    return cmocka_run_group_tests(tests, open_pools, close_pools);
}
