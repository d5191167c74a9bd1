/* test_ops_attention.c - the KV store, and attention over two intervals per row.
 *
 *   store      what is written is what is read, in every KV type; q8_0 within its bound, NaN for what is not finite
 *   widened    a store of any type = an f32 store of the same numbers, bit for bit
 *   levels     every kernel level against the scalar definition, and that against plain double precision, over random
 *              batches: head widths and groups of every kind, several stores of different KV types, memory intervals
 *              that begin inside a block, tiles broken by rows with other views, rows that see nothing
 *   alone      a row alone, with NaN and infinities in every key and value it does not see = the row in its batch
 *   boundary   memory + local = the same keys in one store, wherever they begin
 *   threads    1 = 2, 3, 4
 */
#include <math.h>
#include <stdlib.h>

#include "ops/ops.h"
#include "tiny.h"
#include "tolerances.h"

enum { KV_STORES = 4 /* 0, 1: timelines; 2, 3: memories */, MOST_ROWS = 70 };

static gist_kernels level[TINY_LEVELS];
static int levels;
static pool *pools[5]; /* by threads */

typedef struct batch {
    int T, H, G, D, cap;
    float scale;
    float *q; /* [T,H,D] */
    op_kv kv[KV_STORES];
    op_row row[MOST_ROWS];
} batch;

/* The i-th KV type that heads of D can have. */
static dtype kv_type(int i, int D) {
    static const dtype types[] = { DT_F32, DT_BF16, DT_F16, DT_Q8_0 };
    return types[i % (op_kv_fits(DT_Q8_0, D) ? 4 : 3)];
}

static int below(uint64_t *seed, int n) {
    return (int)(test_rand(seed) % (uint64_t)n);
}

static void *bytes(size_t n) {
    void *p = malloc(n ? n : 1);
    assert_non_null(p);
    return p;
}

static op_ctx ctx_of(int l, int threads) {
    op_ctx ctx;
    gist_error err = { 0 };
    assert_ok(op_init(&ctx, level[l], pools[threads], &err), &err);
    return ctx;
}

/* ---- stores ---- */

static op_kv kv_make(dtype type, int cap, int G, int D, int fill) {
    size_t n = dt_bytes(type, (size_t)cap * (size_t)G * (size_t)D);
    op_kv kv = { type, cap, bytes(n), bytes(n) };
    memset(kv.k, fill, n);
    memset(kv.v, fill, n);
    return kv;
}

static void kv_free(op_kv *kv) {
    free(kv->k);
    free(kv->v);
}

static void kv_random(const op_kv *kv, int slot, int G, int D, float scale, uint64_t *seed) {
    size_t n = (size_t)G * (size_t)D;
    float *x = bytes(n * sizeof *x);
    void *k = bytes(n * 4), *v = bytes(n * 4);
    for (size_t i = 0; i < n; i++) x[i] = scale * test_randf(seed);
    dt_from_f32(k, kv->type, x, n);
    for (size_t i = 0; i < n; i++) x[i] = test_randf(seed);
    dt_from_f32(v, kv->type, x, n);
    op_kv_set(kv, slot, k, v, G, D);
    free(x);
    free(k);
    free(v);
}

static void kv_move(const op_kv *to, int slot, const op_kv *from, int at, int G, int D) {
    size_t n = (size_t)G * (size_t)D;
    void *k = bytes(n * 4), *v = bytes(n * 4);
    op_kv_get(from, at, k, v, G, D);
    op_kv_set(to, slot, k, v, G, D);
    free(k);
    free(v);
}

/* NaN, infinities and huge numbers in turn. */
static void kv_poison(const op_kv *kv, int slot, int G, int D) {
    static const float poison[] = { NAN, INFINITY, -INFINITY, 6e4f };
    size_t n = (size_t)G * (size_t)D;
    float *x = bytes(n * sizeof *x);
    void *k = bytes(n * 4);
    for (size_t i = 0; i < n; i++) x[i] = poison[(i + (size_t)slot) % 4];
    dt_from_f32(k, kv->type, x, n);
    op_kv_set(kv, slot, k, k, G, D);
    free(x);
    free(k);
}

/* ---- batches ---- */

/* A view: which rows of which stores; the rows of a run share it but for their end. */
static op_row random_view(const batch *b, uint64_t *seed) {
    op_row r = { .kv = below(seed, 2), .mem = -1 };
    if (below(seed, 3)) {
        r.mem = 2 + below(seed, 2);
        r.mlo = below(seed, b->cap);
        r.mhi = r.mlo + below(seed, b->cap - r.mlo + 1);
        if (below(seed, 2)) r.mhi = r.mlo + below(seed, b->cap - r.mlo < 5 ? b->cap - r.mlo + 1 : 5);
    }
    r.lo = below(seed, b->cap);
    if (below(seed, 4) == 0) r.lo = 0;
    return r;
}

static void batch_make(batch *b, int T, int H, int G, int D, int cap, dtype type, bool same_type, uint64_t *seed) {
    *b = (batch){ .T = T, .H = H, .G = G, .D = D, .cap = cap, .scale = 1 / sqrtf((float)D) };
    size_t n = (size_t)T * (size_t)H * (size_t)D;
    b->q = bytes(n * sizeof *b->q);
    for (size_t i = 0; i < n; i++) b->q[i] = 3 * test_randf(seed);
    for (int s = 0; s < KV_STORES; s++) {
        b->kv[s] = kv_make(same_type ? type : kv_type((int)type + s, D), cap, G, D, 0xff);
        for (int slot = 0; slot < cap; slot++) kv_random(&b->kv[s], slot, G, D, 3, seed);
    }
    op_row view = random_view(b, seed);
    int end = view.lo + below(seed, cap - view.lo + 1);
    for (int t = 0; t < T; t++) {
        if (below(seed, 9) == 0) {
            view = random_view(b, seed);
            end = view.lo + below(seed, cap - view.lo + 1);
        }
        b->row[t] = view;
        b->row[t].pos = t;
        b->row[t].slot = 0;
        b->row[t].hi = below(seed, 12) ? end : below(seed, cap + 1); /* now and then no order, or before lo */
        if (end < cap) end++;
    }
}

static void batch_free(batch *b) {
    for (int s = 0; s < KV_STORES; s++) kv_free(&b->kv[s]);
    free(b->q);
}

static int memory_keys(const op_row *r) {
    return r->mem >= 0 && r->mhi > r->mlo ? r->mhi - r->mlo : 0;
}

static int local_keys(const op_row *r) {
    return r->hi > r->lo ? r->hi - r->lo : 0;
}

/* Attention of rows [first, first+T) with scratch of exactly the size asked for. */
static void attend(const batch *b, op_ctx ctx, const op_kv *kv, const op_row *row, int first, int T, float *out) {
    int visible = 0;
    for (int t = 0; t < T; t++) {
        int n = memory_keys(&row[t]) + local_keys(&row[t]);
        visible = n > visible ? n : visible;
    }
    size_t size = op_attention_scratch(&ctx, T, visible);
    void *scratch = aligned_alloc(64, (size + 63) / 64 * 64);
    memset(scratch, 0xff, size);
    size_t at = (size_t)first * (size_t)b->H * (size_t)b->D;
    op_attention_fwd(&ctx, out, NULL, b->q + at, kv, row, T, b->H, b->G, b->D, b->scale, scratch);
    free(scratch);
}

/* ---- plain double precision ---- */

static void exact_keys(const batch *b, const op_row *r, float *k, float *v) {
    size_t n = (size_t)b->G * (size_t)b->D, at = 0;
    void *kr = bytes(n * 4), *vr = bytes(n * 4);
    for (int part = 0; part < 2; part++) {
        const op_kv *kv = part ? &b->kv[r->kv] : &b->kv[r->mem >= 0 ? r->mem : 0];
        int lo = part ? r->lo : r->mlo, count = part ? local_keys(r) : memory_keys(r);
        for (int j = 0; j < count; j++, at += n) {
            op_kv_get(kv, lo + j, kr, vr, b->G, b->D);
            dt_to_f32(k + at, kr, kv->type, n);
            dt_to_f32(v + at, vr, kv->type, n);
        }
    }
    free(kr);
    free(vr);
}

static void exact_row(const batch *b, int t, float *out) {
    const op_row *r = &b->row[t];
    size_t n = (size_t)b->G * (size_t)b->D, S = (size_t)(memory_keys(r) + local_keys(r)), D = (size_t)b->D;
    float *k = bytes(S * n * sizeof *k), *v = bytes(S * n * sizeof *v);
    double *p = bytes(S * sizeof *p);
    exact_keys(b, r, k, v);
    for (int h = 0; h < b->H; h++) {
        const float *q = b->q + ((size_t)t * (size_t)b->H + (size_t)h) * D;
        size_t g = (size_t)(h / (b->H / b->G)) * D;
        double top = -INFINITY, sum = 0;
        for (size_t s = 0; s < S; s++) {
            p[s] = 0;
            for (size_t d = 0; d < D; d++) p[s] += (double)q[d] * (double)k[s * n + g + d];
            p[s] *= (double)b->scale;
            top = fmax(top, p[s]);
        }
        for (size_t s = 0; s < S; s++) sum += p[s] = exp(p[s] - top);
        for (size_t d = 0; d < D; d++) {
            double o = 0;
            for (size_t s = 0; s < S; s++) o += p[s] / sum * (double)v[s * n + g + d];
            out[(size_t)h * D + d] = (float)o;
        }
    }
    free(k);
    free(v);
    free(p);
}

/* ---- the checks on one batch ---- */

/* Row t alone, in stores where everything it does not see is poison. */
static void check_alone(const batch *b, op_ctx ctx, int t, const float *want) {
    const op_row *r = &b->row[t];
    size_t n = (size_t)b->H * (size_t)b->D;
    op_kv kv[KV_STORES];
    float *out = bytes(n * sizeof *out);
    for (int s = 0; s < KV_STORES; s++) {
        kv[s] = kv_make(b->kv[s].type, b->cap, b->G, b->D, 0xff);
        for (int j = 0; j < b->cap; j++) {
            bool seen = (s == r->kv && j >= r->lo && j < r->hi) || (s == r->mem && j >= r->mlo && j < r->mhi);
            if (seen)
                kv_move(&kv[s], j, &b->kv[s], j, b->G, b->D);
            else
                kv_poison(&kv[s], j, b->G, b->D);
        }
    }
    attend(b, ctx, kv, r, t, 1, out);
    assert_same_floats(out, want, n, "a row alone, hidden keys poisoned");
    for (int s = 0; s < KV_STORES; s++) kv_free(&kv[s]);
    free(out);
}

/* The visible keys of row t one after the other in one store, from slot `begin` on. */
static void check_contiguous(const batch *b, op_ctx ctx, int t, int begin, const float *want) {
    op_row r = b->row[t];
    if (r.mem >= 0 && b->kv[r.mem].type != b->kv[r.kv].type) return;
    size_t n = (size_t)b->H * (size_t)b->D;
    int m = memory_keys(&r), l = local_keys(&r);
    op_kv kv = kv_make(b->kv[r.kv].type, op_kv_round(begin + m + l + 1), b->G, b->D, 0xff);
    float *out = bytes(n * sizeof *out);
    for (int j = 0; j < m; j++) kv_move(&kv, begin + j, &b->kv[r.mem], r.mlo + j, b->G, b->D);
    for (int j = 0; j < l; j++) kv_move(&kv, begin + m + j, &b->kv[r.kv], r.lo + j, b->G, b->D);
    r = (op_row){ .mem = -1, .lo = begin, .hi = begin + m + l };
    attend(b, ctx, &kv, &r, t, 1, out);
    assert_same_floats(out, want, n, "memory and local in one store");
    r = (op_row){ .mem = 0, .mlo = begin, .mhi = begin + m + l, .lo = 3, .hi = 3 };
    attend(b, ctx, &kv, &r, t, 1, out);
    assert_same_floats(out, want, n, "all of it memory");
    kv_free(&kv);
    free(out);
}

static double tolerance(dtype type) {
    static const double tol[] = { [DT_F32] = TOL_ATTENTION_F32_LEVEL, [DT_BF16] = TOL_ATTENTION_BF16_LEVEL,
                                  [DT_F16] = TOL_ATTENTION_F16_LEVEL, [DT_Q8_0] = TOL_ATTENTION_Q8_0_LEVEL };
    return tol[type];
}

static void check_batch(const batch *b, uint64_t *seed) {
    size_t row = (size_t)b->H * (size_t)b->D, n = (size_t)b->T * row;
    float *exact = bytes(n * sizeof *exact), *scalar = bytes(n * sizeof *scalar), *one = bytes(n * sizeof *one);
    float *y = bytes(n * sizeof *y);
    char what[128];
    snprintf(what, sizeof what, "attention H %d G %d D %d T %d cap %d %s", b->H, b->G, b->D, b->T, b->cap,
             dt_name(b->kv[0].type));
    for (int t = 0; t < b->T; t++) exact_row(b, t, exact + (size_t)t * row);
    attend(b, ctx_of(0, 1), b->kv, b->row, 0, b->T, scalar);
    assert_close(scalar, exact, n, TOL_ATTENTION_EXACT, what);
    for (int l = 0; l < levels; l++) {
        snprintf(what, sizeof what, "attention H %d G %d D %d T %d cap %d %s, %s", b->H, b->G, b->D, b->T, b->cap,
                 dt_name(b->kv[0].type), gist_kernels_name(level[l]));
        attend(b, ctx_of(l, 1), b->kv, b->row, 0, b->T, one);
        assert_close(one, scalar, n, tolerance(b->kv[0].type), what);
        for (int threads = 2; threads <= 4; threads++) {
            attend(b, ctx_of(l, threads), b->kv, b->row, 0, b->T, y);
            assert_same_floats(y, one, n, what);
        }
        int first = below(seed, b->T), T = 1 + below(seed, b->T - first); /* another cut into tiles */
        attend(b, ctx_of(l, 2), b->kv, b->row + first, first, T, y);
        assert_same_floats(y, one + (size_t)first * row, (size_t)T * row, what);
        for (int i = 0; i < 3; i++) {
            int t = below(seed, b->T);
            check_alone(b, ctx_of(l, 1), t, one + (size_t)t * row);
            check_contiguous(b, ctx_of(l, 1), t, below(seed, 40), one + (size_t)t * row);
        }
    }
    free(exact);
    free(scalar);
    free(one);
    free(y);
}

static void test_random_batches(void **state) {
    (void)state;
    static const int Ds[] = { 2, 4, 8, 10, 32, 16, 18, 40, 64, 72, 96, 128 };
    static const int heads[][2] = { { 1, 1 }, { 2, 1 }, { 3, 3 }, { 4, 2 }, { 5, 1 }, { 6, 2 }, { 7, 7 }, { 8, 1 },
                                    { 12, 4 }, { 16, 1 }, { 17, 1 }, { 20, 1 }, { 32, 1 }, { 32, 8 }, { 34, 2 } };
    uint64_t seed = 11;
    for (int i = 0; i < 160; i++) {
        int D = Ds[i % 12], H = heads[i % 15][0], G = heads[i % 15][1];
        int T = i % 5 == 0 ? 1 : 1 + below(&seed, MOST_ROWS), cap = i % 4 == 0 ? 304 : 16 * (1 + below(&seed, 6));
        while ((double)T * H * D * cap > 2e6 && T > 1) T /= 2;
        batch b;
        batch_make(&b, T, H, G, D, cap, kv_type(i / 2, D), i % 2 == 0, &seed);
        check_batch(&b, &seed);
        batch_free(&b);
    }
}

/* The plain causal batch that every prefill is: long runs of one view. */
static void test_causal(void **state) {
    (void)state;
    uint64_t seed = 5;
    for (int i = 0; i < 12; i++) {
        batch b;
        int D = i % 3 ? i % 3 * 16 : 40;
        batch_make(&b, 33 + i, 4, i % 2 ? 4 : 2, D, 608, kv_type(i, D), true, &seed);
        for (int t = 0; t < b.T; t++)
            b.row[t] = (op_row){
                .kv = 0, .mem = i % 4 ? 2 : -1, .mlo = i, .mhi = i + (i % 4) * 5, .lo = i * 3, .hi = i * 40 + t + 1
            };
        check_batch(&b, &seed);
        batch_free(&b);
    }
}

/* A row that sees no key yields zeros, whatever is beside it. */
static void test_nothing_visible(void **state) {
    (void)state;
    uint64_t seed = 8;
    batch b;
    batch_make(&b, 6, 4, 2, 12, 32, DT_BF16, true, &seed);
    for (int t = 0; t < b.T; t++)
        b.row[t] = (op_row){ .kv = 1, .mem = t % 2 ? -1 : 2, .mlo = 4, .mhi = 4, .lo = 9, .hi = t < 5 ? 9 - t : 20 };
    for (int l = 0; l < levels; l++) {
        float out[6 * 4 * 12];
        memset(out, 0xff, sizeof out);
        attend(&b, ctx_of(l, 2), b.kv, b.row, 0, b.T, out);
        for (int i = 0; i < 5 * 4 * 12; i++) assert_true(out[i] == 0);
        assert_true(out[5 * 4 * 12] != 0);
    }
    batch_free(&b);
}

/* ---- the store ---- */

/* What is written is what is read, in every type, and no other slot moves. */
static void test_store(void **state) {
    (void)state;
    enum { G = 3, WIDEST = 64, T = 40, CAP = 48, MOST = G * WIDEST };
    static float k[T * MOST], v[T * MOST];
    test_fill(k, T * MOST, 2, 1);
    test_fill(v, T * MOST, 2, 2);
    for (int i = 0; i < 4; i++)
        for (int threads = 1; threads <= 4; threads++) {
            int D = i < 3 ? 10 : WIDEST, N = G * D;
            dtype type = kv_type(i, D);
            op_kv kv[2] = { kv_make(type, CAP, G, D, 0x11), kv_make(type, CAP, G, D, 0x11) };
            op_row row[T];
            uint8_t got_k[MOST * 4], got_v[MOST * 4], want_k[MOST * 4], want_v[MOST * 4];
            size_t bytes_of_row = dt_bytes(type, (size_t)N);
            for (int t = 0; t < T; t++) row[t] = (op_row){ .kv = t % 2, .slot = (t * 7 + 3) % T };
            op_ctx ctx = ctx_of(levels - 1, threads);
            op_kv_write(&ctx, kv, row, k, v, T, G, D);
            bool written[2][CAP] = { { false } };
            for (int t = 0; t < T; t++) {
                written[row[t].kv][row[t].slot] = true;
                dt_from_f32(want_k, type, k + t * N, (size_t)N);
                dt_from_f32(want_v, type, v + t * N, (size_t)N);
                op_kv_get(&kv[row[t].kv], row[t].slot, got_k, got_v, G, D);
                assert_memory_equal(got_k, want_k, bytes_of_row);
                assert_memory_equal(got_v, want_v, bytes_of_row);
                op_kv_set(&kv[row[t].kv], row[t].slot, want_v, want_k, G, D); /* and back */
                op_kv_get(&kv[row[t].kv], row[t].slot, got_k, got_v, G, D);
                assert_memory_equal(got_k, want_v, bytes_of_row);
                assert_memory_equal(got_v, want_k, bytes_of_row);
            }
            memset(want_k, 0x11, sizeof want_k);
            for (int s = 0; s < 2; s++)
                for (int slot = 0; slot < CAP; slot++) {
                    if (written[s][slot]) continue;
                    op_kv_get(&kv[s], slot, got_k, got_v, G, D);
                    assert_memory_equal(got_k, want_k, bytes_of_row);
                    assert_memory_equal(got_v, want_k, bytes_of_row);
                }
            kv_free(&kv[0]);
            kv_free(&kv[1]);
        }
}

/* A row's numbers in q8_0 are at most half a step away, and what rounding the scale to f16 adds: 2^-11 of it (2^-25
 * below f16's normal numbers), 127 times.  A block with a value that is not finite is NaN, and it alone. */
static void test_q8_rounding(void **state) {
    (void)state;
    enum { D = 64, T = 24 };
    static const float sizes[] = { 1, 1e-3f, 1e-6f, 1e-9f, 1000, 1e6f, 0 }, odd[] = { NAN, INFINITY, -INFINITY };
    op_ctx ctx = ctx_of(levels - 1, 1);
    for (int i = 0; i < 7; i++) {
        float x[T * D], got[D];
        uint8_t k[D * 4], v[D * 4];
        op_kv kv = kv_make(DT_Q8_0, 32, 1, D, 0);
        test_fill(x, T * D, sizes[i], (uint64_t)i);
        for (int t = 0; t < T; t++) {
            op_row row = { .slot = t };
            float *mine = x + t * D;
            if (t >= 20) mine[7] = odd[t % 3];
            op_kv_write(&ctx, &kv, &row, mine, mine, 1, 1, D);
            op_kv_get(&kv, t, k, v, 1, D);
            assert_memory_equal(k, v, dt_bytes(DT_Q8_0, D));
            dt_to_f32(got, k, DT_Q8_0, D);
            for (int d = 0; d < D; d++) {
                if (t >= 20 && d < 32) {
                    assert_true(isnan(got[d]));
                    continue;
                }
                double most = 0;
                for (int e = d / 32 * 32; e < d / 32 * 32 + 32; e++) most = fmax(most, fabs((double)mine[e]));
                double step = most / 127, bound = step / 2 + 127 * fmax(step * 0x1p-11, 0x1p-25);
                assert_true(fabs((double)got[d] - (double)mine[d]) <= bound * (1 + 1e-6));
            }
        }
        kv_free(&kv);
    }
}

/* Widening is exact, so only the numbers in a store count, not their type. */
static void test_widened(void **state) {
    (void)state;
    uint64_t seed = 21;
    for (int i = 0; i < 24; i++) {
        batch b;
        int D = i % 2 ? 64 : 32;
        size_t n = 2 * (size_t)D;
        batch_make(&b, 1 + 2 * i, i % 3 ? 8 : 2, 2, D, 96, kv_type(1 + i % 3, D), i % 4 < 2, &seed);
        op_kv wide[KV_STORES];
        for (int s = 0; s < KV_STORES; s++) {
            wide[s] = kv_make(DT_F32, b.cap, 2, D, 0xff);
            for (int slot = 0; slot < b.cap; slot++) {
                uint8_t k[2 * 64 * 4], v[2 * 64 * 4];
                float kf[2 * 64], vf[2 * 64];
                op_kv_get(&b.kv[s], slot, k, v, 2, D);
                dt_to_f32(kf, k, b.kv[s].type, n);
                dt_to_f32(vf, v, b.kv[s].type, n);
                op_kv_set(&wide[s], slot, kf, vf, 2, D);
            }
        }
        size_t all = (size_t)b.T * (size_t)b.H * (size_t)D;
        float *got = bytes(all * sizeof *got), *want = bytes(all * sizeof *want);
        for (int l = 0; l < levels; l++) {
            attend(&b, ctx_of(l, 1), b.kv, b.row, 0, b.T, got);
            attend(&b, ctx_of(l, 1), wide, b.row, 0, b.T, want);
            assert_same_floats(got, want, all, "a store and the same numbers in f32");
        }
        free(got);
        free(want);
        for (int s = 0; s < KV_STORES; s++) kv_free(&wide[s]);
        batch_free(&b);
    }
}

static int open_pools(void **state) {
    (void)state;
    levels = tiny_levels(level);
    for (int t = 1; t <= 4; t++)
        if (pool_create(mem_default(), t, &pools[t], NULL) != GIST_OK) return -1;
    return 0;
}

static int close_pools(void **state) {
    (void)state;
    for (int t = 1; t <= 4; t++) pool_free(pools[t]);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_store),
        cmocka_unit_test(test_q8_rounding),
        cmocka_unit_test(test_widened),
        cmocka_unit_test(test_random_batches),
        cmocka_unit_test(test_causal),
        cmocka_unit_test(test_nothing_visible),
    };
    return cmocka_run_group_tests(tests, open_pools, close_pools);
}
