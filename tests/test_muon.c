/* test_muon.c - the Muon update on every kernel level: against its rule in double, wide and tall matrices, threads; and
 * what it is for: the singular values of a step are all near 1.
 */
#include "bwd.h"

static const double quintic[3] = { 3.4445, -4.7750, 2.0315 };

/* y [T,n] = x [T,k] W for W [k,n] */
static void product(double *y, const double *x, const double *W, int T, int n, int k) {
    for (int t = 0; t < T; t++)
        for (int i = 0; i < n; i++) {
            double sum = 0;
            for (int j = 0; j < k; j++) sum += x[t * k + j] * W[j * n + i];
            y[t * n + i] = sum;
        }
}

static void transpose(double *y, const double *x, int N, int K) {
    for (int i = 0; i < N; i++)
        for (int j = 0; j < K; j++) y[j * N + i] = x[i * K + j];
}

/* X = X (a I + b X^T X + c (X^T X)^2): from the right whatever the shape; it is the same from the left. */
static void orthogonalise(double *X, int N, int K, int rounds) {
    double *Xt = block((size_t)(N * K), sizeof *Xt), *Y = block((size_t)(N * K), sizeof *Y);
    double *A = block((size_t)(K * K), sizeof *A), *A2 = block((size_t)(K * K), sizeof *A2);
    for (int r = 0; r < rounds; r++) {
        transpose(Xt, X, N, K);
        product(A, Xt, X, K, K, N);
        product(A2, A, A, K, K, K);
        for (int i = 0; i < K * K; i++) A[i] = quintic[1] * A[i] + quintic[2] * A2[i] + (i % (K + 1) ? 0 : quintic[0]);
        product(Y, X, A, N, K, K);
        memcpy(X, Y, (size_t)(N * K) * sizeof *X);
    }
    free(Xt);
    free(Y);
    free(A);
    free(A2);
}

static double norm_of(const double *x, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += x[i] * x[i];
    return sqrt(sum);
}

static void muon_exact(double *w, double *m, const float *g, int N, int K, const op_muon_step *s) {
    size_t n = (size_t)N * (size_t)K;
    double *X = block(n, sizeof *X), b = (double)s->momentum;
    for (size_t i = 0; i < n; i++) {
        double grad = (double)g[i] * (double)s->scale;
        m[i] = b * m[i] + (1 - b) * grad;
        X[i] = (1 - b) * grad + b * m[i];
    }
    double norm = norm_of(X, n), rate = (double)s->lr * 0.2 * sqrt(N > K ? N : K);
    for (size_t i = 0; i < n; i++) X[i] /= norm > 1e-7 ? norm : 1e-7;
    orthogonalise(X, N, K, 5);
    for (size_t i = 0; i < n; i++) w[i] = (1 - (double)s->lr * (double)s->decay) * w[i] - rate * X[i];
    free(X);
}

/* Three steps; w and m end as the op left them. */
static void steps(op_ctx ctx, float *w, float *m, int N, int K, dtype type, double *exact_w, double *exact_m) {
    size_t n = (size_t)N * (size_t)K, bytes = op_muon_scratch(type, N, K);
    void *scratch = aligned_alloc(64, (bytes + 63) / 64 * 64);
    memset(scratch, 0xff, bytes);
    for (int t = 1; t <= 3; t++) {
        op_muon_step s = { .lr = 0.1f, .momentum = 0.95f, .decay = t % 2 ? 0.1f : 0, .scale = t == 2 ? 0.25f : 1 };
        float *g = random_floats(n, 3, (uint64_t)t + 9);
        op_muon_update(&ctx, w, m, g, N, K, type, &s, scratch);
        if (exact_w) muon_exact(exact_w, exact_m, g, N, K, &s);
        free(g);
    }
    free(scratch);
}

static const struct {
    int N, K;
} shape[] = { { 1, 1 }, { 1, 40 }, { 40, 1 }, { 16, 16 }, { 65, 33 }, { 33, 65 }, { 24, 130 }, { 130, 24 } };
enum { SHAPES = sizeof shape / sizeof *shape };

static void run(int l, dtype type, int N, int K, double bound) {
    size_t n = (size_t)N * (size_t)K;
    float *w = random_floats(n, 1, 1), *m = block(n, sizeof *m), *one = random_floats(n, 1, 1),
          *m1 = block(n, sizeof *m);
    double *exact = doubles_of(w, n), *exact_m = block(n, sizeof *exact_m);
    steps(ctx_of(l, 4), w, m, N, K, type, exact, exact_m);
    steps(ctx_of(l, 1), one, m1, N, K, type, NULL, NULL);
    assert_same_floats(one, w, n, "w");
    assert_same_floats(m1, m, n, "m");
    float *want = floats_of(exact, n), *want_m = floats_of(exact_m, n);
    assert_close(w, want, n, bound, gist_kernels_name(level[l]));
    assert_close(m, want_m, n, TOL_ADAMW_EXACT, gist_kernels_name(level[l]));
    free(w);
    free(m);
    free(one);
    free(m1);
    free(exact);
    free(exact_m);
    free(want);
    free(want_m);
}

static void test_rule(void **state) {
    (void)state;
    for (int l = 0; l < levels; l++)
        for (int i = 0; i < SHAPES; i++) {
            run(l, DT_F32, shape[i].N, shape[i].K, TOL_MUON_F32);
            run(l, DT_BF16, shape[i].N, shape[i].K, TOL_MUON_BF16);
        }
}

/* The step is w's change over its rate.  From a gradient whose singular values are 1, 1/2, 1/4, ... it makes one whose
 * singular values lie between 0.6 and 1.3, where the quintic leaves them: |X v| for the right singular vectors v, which
 * are unit vectors here. */
static void test_singular_values(void **state) {
    (void)state;
    enum { N = 8, K = 20 };
    float w[N * K] = { 0 }, m[N * K] = { 0 }, g[N * K] = { 0 };
    for (int i = 0; i < N; i++) g[i * K + (i * 7) % K] = ldexpf(1, -i);
    op_muon_step s = { .lr = 1, .momentum = 0.95f, .scale = 1 };
    void *scratch = aligned_alloc(64, (op_muon_scratch(DT_F32, N, K) + 63) / 64 * 64);
    op_ctx ctx = ctx_of(0, 1);
    op_muon_update(&ctx, w, m, g, N, K, DT_F32, &s, scratch);
    for (int i = 0; i < N; i++)
        for (int k = 0; k < K; k++) {
            float x = -w[i * K + k] / (0.2f * sqrtf(K));
            if (k == (i * 7) % K ? x < 0.6f || x > 1.3f : x != 0) fail_msg("step [%d,%d] is %g", i, k, (double)x);
        }
    memset(g, 0, sizeof g); /* nothing to normalise: only the momentum's part is left, and it is finite */
    memset(m, 0, sizeof m);
    memset(w, 0, sizeof w);
    op_muon_update(&ctx, w, m, g, N, K, DT_F32, &s, scratch);
    for (int i = 0; i < N * K; i++) assert_true(w[i] == 0);
    free(scratch);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rule),
        cmocka_unit_test(test_singular_values),
    };
    return cmocka_run_group_tests(tests, open_pools, close_pools);
}
