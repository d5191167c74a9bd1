/* test_ops_attention_bwd.c - the derivative of attention over two intervals, on every kernel level: bwd.h says how.
 *
 *   rows in runs with one view, memory in another store or earlier in the same one, groups of 1 to 17 query heads,
 *   head widths of every kind, f32 and bf16 stores; the same with a bias by distance, and its gradient
 *   hidden    NaN in keys and values that a row does not see reaches neither its dq nor the dk, dv of what it sees
 */
#include "bwd.h"

enum { STORES = 3 /* 0, 1: timelines; 2: a memory */, MOST_ROWS = 40 };

typedef struct attention {
    int T, H, G, D, cap;
    dtype type;
    double scale;
    double *q, *k[STORES], *v[STORES]; /* [T,H,D]  [cap,G,D] */
    float *dout;
    op_row row[MOST_ROWS];
    int reach;    /* of a bias by distance */
    double *bias; /* [H, 2 reach + 1]; NULL: none */
    bool seen[STORES][256];
    int poison_store, poison_slot; /* a slot with NaN though rows see it; store -1: none */
} attention;

static int keys_of(const op_row *r, int *memory) {
    *memory = r->mem >= 0 && r->mhi > r->mlo ? r->mhi - r->mlo : 0;
    return *memory + (r->hi > r->lo ? r->hi - r->lo : 0);
}

/* Store and slot of visible key j of a row. */
static int key_of(const op_row *r, int memory, int j, int *slot) {
    *slot = j < memory ? r->mlo + j : r->lo + j - memory;
    return j < memory ? r->mem : r->kv;
}

/* sum of dout * out over one query vector */
static double attend_one(const attention *c, int t, int h) {
    const op_row *r = &c->row[t];
    int memory, n = keys_of(r, &memory), slot;
    size_t D = (size_t)c->D, at = ((size_t)t * (size_t)c->H + (size_t)h) * D;
    double p[512], top = -INFINITY, sum = 0, value = 0;
    for (int j = 0; j < n; j++) {
        int s = key_of(r, memory, j, &slot);
        const double *k = c->k[s] + ((size_t)slot * (size_t)c->G + (size_t)(h / (c->H / c->G))) * D;
        p[j] = 0;
        for (size_t d = 0; d < D; d++) p[j] += c->q[at + d] * k[d];
        p[j] *= c->scale;
        if (c->bias) p[j] += c->bias[h * (2 * c->reach + 1) + c->reach + r->at + j - r->pos];
        top = fmax(top, p[j]);
    }
    for (int j = 0; j < n; j++) sum += p[j] = exp(p[j] - top);
    for (int j = 0; j < n; j++) {
        int s = key_of(r, memory, j, &slot);
        const double *v = c->v[s] + ((size_t)slot * (size_t)c->G + (size_t)(h / (c->H / c->G))) * D;
        double dot = 0;
        for (size_t d = 0; d < D; d++) dot += v[d] * (double)c->dout[at + d];
        value += p[j] / sum * dot;
    }
    return value;
}

static double attention_value(const void *arg) {
    const attention *c = arg;
    double sum = 0;
    for (int t = 0; t < c->T; t++)
        for (int h = 0; h < c->H; h++) sum += attend_one(c, t, h);
    return sum;
}

/* The stores as the op reads them; NaN, and infinities, in every slot that no row sees. */
static void make_stores(const attention *c, op_kv kv[STORES], op_kv swapped[STORES]) {
    size_t n = (size_t)c->G * (size_t)c->D;
    for (int s = 0; s < STORES; s++) {
        size_t all = dt_bytes(c->type, (size_t)c->cap * n);
        kv[s] = (op_kv){ c->type, c->cap, block(all, 1), block(all, 1) };
        swapped[s] = (op_kv){ c->type, c->cap, block(all, 1), block(all, 1) };
        for (int slot = 0; slot < c->cap; slot++) {
            float *k = floats_of(c->k[s] + (size_t)slot * n, n), *v = floats_of(c->v[s] + (size_t)slot * n, n);
            bool poison = !c->seen[s][slot] || (s == c->poison_store && slot == c->poison_slot);
            for (size_t i = 0; poison && i < n; i++) k[i] = v[i] = (i + (size_t)slot) % 3 ? NAN : INFINITY;
            void *k_stored = block(n, 4), *v_stored = block(n, 4);
            dt_from_f32(k_stored, c->type, k, n);
            dt_from_f32(v_stored, c->type, v, n);
            op_kv_set(&kv[s], slot, k_stored, v_stored, c->G, c->D);
            op_kv_set(&swapped[s], slot, v_stored, k_stored, c->G, c->D);
            free(k);
            free(v);
            free(k_stored);
            free(v_stored);
        }
    }
}

/* out: dq, then dk and dv of every store */
static void attention_run(op_ctx *ctx, const void *arg, float *const *out) {
    const attention *c = arg;
    op_kv kv[STORES], swapped[STORES];
    op_kv_grad grad[STORES];
    int visible = 0, memory;
    size_t n = (size_t)c->T * (size_t)c->H * (size_t)c->D;
    for (int t = 0; t < c->T; t++) {
        int keys = keys_of(&c->row[t], &memory);
        visible = keys > visible ? keys : visible;
    }
    make_stores(c, kv, swapped);
    for (int s = 0; s < STORES; s++) grad[s] = (op_kv_grad){ out[1 + 2 * s], out[2 + 2 * s] };
    float *q = floats_of(c->q, n), *att = block(n, sizeof *att);
    float *stats = block((size_t)(c->T * c->H * 2), sizeof *stats);
    size_t size = op_attention_bwd_scratch(ctx, c->T, visible);
    void *scratch = aligned_alloc(64, (size + 63) / 64 * 64);
    memset(scratch, 0xff, size);
    op_distance near = { c->reach, c->bias ? floats_of(c->bias, (size_t)(c->H * (2 * c->reach + 1))) : NULL };
    const op_distance *bias = c->bias ? &near : NULL;
    op_attention_near_fwd(ctx, att, stats, q, kv, c->row, c->T, c->H, c->G, c->D, (float)c->scale, bias, scratch);
    memset(scratch, 0xff, size);
    op_attention_near_bwd(ctx, out[0], c->bias ? out[1 + 2 * STORES] : NULL, grad, c->dout, att, stats, q, kv, swapped,
                          c->row, c->T, c->H, c->G, c->D, (float)c->scale, bias, scratch);
    free(near.bias);
    for (int s = 0; s < STORES; s++) {
        free(kv[s].k);
        free(kv[s].v);
        free(swapped[s].k);
        free(swapped[s].v);
    }
    free(q);
    free(att);
    free(stats);
    free(scratch);
}

/* Runs of rows with one view each, as packing makes them; memory in another store, or earlier in the timeline. */
static void random_rows(attention *c, uint64_t *seed) {
    op_row view = { 0 };
    int end = 0;
    for (int t = 0; t < c->T; t++) {
        if (t == 0 || below(seed, 7) == 0) {
            int mem = below(seed, 4), half = c->cap / 2;
            view = (op_row){ .kv = below(seed, 2), .mem = mem == 0 ? -1 : mem == 1 ? 2 : 0 };
            view.mlo = view.mem < 0 ? 0 : below(seed, half);
            view.mhi = view.mem < 0 ? 0 : view.mlo + below(seed, half - view.mlo + 1);
            view.lo = half + below(seed, half);
            end = view.lo + below(seed, 3);
        }
        c->row[t] = view;
        c->row[t].pos = t;
        c->row[t].at = t + 3 - below(seed, c->cap); /* with a bias: keys before the query and behind it */
        end = end < c->cap ? end + 1 : c->cap;
        c->row[t].hi = below(seed, 15) ? end : view.lo; /* now and then no local key at all */
    }
}

static void mark_seen(attention *c) {
    memset(c->seen, 0, sizeof c->seen);
    for (int t = 0; t < c->T; t++) {
        int memory, slot, n = keys_of(&c->row[t], &memory);
        for (int j = 0; j < n; j++) {
            int s = key_of(&c->row[t], memory, j, &slot);
            c->seen[s][slot] = true;
        }
    }
}

static double *random_inputs(size_t n, float scale, dtype type, uint64_t *seed) {
    float *x = random_floats(n, scale, test_rand(seed));
    if (type == DT_BF16) round_to_bf16(x, n);
    double *p = doubles_of(x, n);
    free(x);
    return p;
}

static void attention_make(attention *c, int T, int H, int G, int D, int cap, dtype type, bool near, uint64_t *seed) {
    *c = (attention){ .T = T, .H = H, .G = G, .D = D, .cap = cap, .type = type, .poison_store = -1 };
    c->scale = near ? 1 : (double)(1 / sqrtf((float)D));
    size_t n = (size_t)T * (size_t)H * (size_t)D, m = (size_t)cap * (size_t)G * (size_t)D;
    assert_true(T <= MOST_ROWS && cap <= 256);
    c->q = random_inputs(n, near ? 3 / sqrtf((float)D) : 3, DT_F32, seed);
    c->reach = 2 * cap;
    if (near) c->bias = random_inputs((size_t)H * (size_t)(2 * c->reach + 1), 2, DT_F32, seed);
    c->dout = random_floats(n, 1, test_rand(seed));
    for (int s = 0; s < STORES; s++) {
        c->k[s] = random_inputs(m, 3, type, seed);
        c->v[s] = random_inputs(m, 1, type, seed);
    }
    random_rows(c, seed);
    mark_seen(c);
}

static void attention_problem(problem *p, attention *c, const char *what) {
    static const char *const names[] = { "dk 0", "dv 0", "dk 1", "dv 1", "dk 2", "dv 2" };
    size_t m = (size_t)c->cap * (size_t)c->G * (size_t)c->D;
    *p = (problem){ .what = what,
                    .value = attention_value,
                    .run = attention_run,
                    .c = c,
                    .exact = TOL_ATTENTION_BWD_EXACT,
                    .level = TOL_ATTENTION_BWD_LEVEL };
    add_output(p, "dq", c->q, (size_t)c->T * (size_t)c->H * (size_t)c->D, true, 1);
    for (int s = 0; s < STORES; s++) {
        add_output(p, names[2 * s], c->k[s], m, true, 2);
        add_output(p, names[2 * s + 1], c->v[s], m, true, 3);
    }
    if (c->bias) add_output(p, "dbias", c->bias, (size_t)(c->H * (2 * c->reach + 1)), true, 4);
}

/* Key gradients of slots that no row sees stay what they were, bit for bit, though the slots hold NaN. */
static void check_unseen(const problem *p, const attention *c, float *const *out) {
    size_t n = (size_t)c->G * (size_t)c->D;
    for (int s = 0; s < STORES; s++)
        for (int slot = 0; slot < c->cap; slot++)
            for (int kv = 1; !c->seen[s][slot] && kv <= 2; kv++)
                assert_same_floats(out[2 * s + kv] + (size_t)slot * n, p->out[2 * s + kv].begin + (size_t)slot * n, n,
                                   "gradient of an unseen key");
}

/* NaN in a key that some rows see: what is not theirs keeps its bits. */
static void check_poisoned(const problem *p, attention *c, int l, float *const *clean, float *const *out,
                           uint64_t *seed) {
    int t = below(seed, c->T), memory, slot, n = keys_of(&c->row[t], &memory);
    size_t row = (size_t)c->H * (size_t)c->D, one = (size_t)c->G * (size_t)c->D;
    bool hit[MOST_ROWS] = { false }, touched[STORES][256] = { { false } };
    if (n == 0) return;
    c->poison_store = key_of(&c->row[t], memory, below(seed, n), &slot);
    c->poison_slot = slot;
    for (int r = 0; r < c->T; r++) {
        n = keys_of(&c->row[r], &memory);
        for (int j = 0; j < n; j++) {
            int s = key_of(&c->row[r], memory, j, &slot);
            hit[r] = hit[r] || (s == c->poison_store && slot == c->poison_slot);
        }
        for (int j = 0; hit[r] && j < n; j++) {
            int s = key_of(&c->row[r], memory, j, &slot);
            touched[s][slot] = true;
        }
    }
    run_problem(p, l, 2, out);
    for (int r = 0; r < c->T; r++) {
        if (hit[r])
            assert_true(isnan(out[0][(size_t)r * row]));
        else
            assert_same_floats(out[0] + (size_t)r * row, clean[0] + (size_t)r * row, row, "dq of a row without it");
    }
    for (int s = 0; s < STORES; s++)
        for (int i = 0; i < c->cap; i++)
            for (int kv = 1; !touched[s][i] && kv <= 2; kv++)
                assert_same_floats(out[2 * s + kv] + (size_t)i * one, clean[2 * s + kv] + (size_t)i * one, one,
                                   "gradient of a key that no poisoned row sees");
    c->poison_store = -1;
}

static void check_hidden(const problem *p, attention *c, uint64_t *seed) {
    float *clean[MOST_OUTS], *out[MOST_OUTS];
    for (int i = 0; i < p->outs; i++) {
        clean[i] = block(p->out[i].n, sizeof(float));
        out[i] = block(p->out[i].n, sizeof(float));
    }
    for (int l = 0; l < levels; l++) {
        run_problem(p, l, 1, clean);
        check_unseen(p, c, clean);
        for (int i = 0; i < 4; i++) check_poisoned(p, c, l, clean, out, seed);
    }
    for (int i = 0; i < p->outs; i++) {
        free(clean[i]);
        free(out[i]);
    }
}

static void check_shapes(bool near) {
    /* query heads, key/value heads, head width, rows, cap */
    static const int shapes[][5] = {
        { 1, 1, 4, 9, 16 },   { 2, 1, 12, 20, 32 }, { 3, 1, 16, 17, 48 }, { 8, 1, 40, 6, 32 },   { 17, 1, 8, 4, 16 },
        { 4, 4, 10, 40, 48 }, { 6, 2, 2, 33, 64 },  { 4, 2, 64, 12, 32 }, { 3, 3, 34, 12, 64 },  { 2, 2, 128, 9, 32 },
        { 8, 1, 128, 4, 32 }, { 34, 2, 12, 3, 16 }, { 5, 1, 72, 7, 96 },  { 1, 1, 40, 40, 208 }, { 16, 2, 18, 5, 48 },
    };
    uint64_t seed = 4;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int type = 0; type < (i % 3 ? 1 : 2); type++) {
            const int *s = shapes[i];
            attention c;
            problem p;
            char what[96];
            attention_make(&c, s[3], s[0], s[1], s[2], s[4], type ? DT_BF16 : DT_F32, near, &seed);
            snprintf(what, sizeof what, "attention H %d G %d D %d T %d cap %d %s%s", s[0], s[1], s[2], s[3], s[4],
                     dt_name(c.type), near ? " near" : "");
            attention_problem(&p, &c, what);
            check_hidden(&p, &c, &seed);
            check(&p);
            free(c.dout);
        }
}

static void test_attention(void **state) {
    (void)state;
    check_shapes(false);
}

static void test_near(void **state) {
    (void)state;
    check_shapes(true);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_attention), cmocka_unit_test(test_near) };
    return cmocka_run_group_tests(tests, open_pools, close_pools);
}
