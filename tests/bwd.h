/* bwd.h - checking backward ops, for the tests of ops.
 *
 *   slopes    against central differences of the forward, which the tests write once more, plainly, in double: every
 *             input of a small problem, a random choice of a large one
 *   levels    every kernel level against the scalar definition, within tests/tolerances.h
 *   laws      1 = 2 = 4 threads bit for bit; what adds adds to random numbers, what writes finds NaN
 *
 * A problem is a set of inputs in double (whose values are f32), a scalar function of them, and the op that should give
 * its gradient.  check() does all of the above with it.
 */
#ifndef BWD_H
#define BWD_H

#include <math.h>
#include <stdlib.h>

#include "ops/ops.h"
#include "tiny.h"
#include "tolerances.h"

static gist_kernels level[TINY_LEVELS];
static int levels;
static pool *pools[5]; /* by threads: 1, 2, 4 */

static inline op_ctx ctx_of(int l, int threads) {
    op_ctx ctx;
    gist_error err = { 0 };
    assert_ok(op_init(&ctx, level[l], pools[threads], &err), &err);
    return ctx;
}

static inline int below(uint64_t *seed, int n) {
    return (int)(test_rand(seed) % (uint64_t)n);
}

/* Exact sizes, so that AddressSanitizer sees any step outside. */
static inline void *block(size_t n, size_t size) {
    void *p = calloc(n ? n : 1, size);
    assert_non_null(p);
    return p;
}

static inline float *random_floats(size_t n, float scale, uint64_t seed) {
    float *p = block(n, sizeof *p);
    test_fill(p, n, scale, seed);
    return p;
}

static inline double *doubles_of(const float *x, size_t n) {
    double *p = block(n, sizeof *p);
    for (size_t i = 0; i < n; i++) p[i] = (double)x[i];
    return p;
}

static inline float *floats_of(const double *x, size_t n) {
    float *p = block(n, sizeof *p);
    for (size_t i = 0; i < n; i++) p[i] = (float)x[i];
    return p;
}

static inline void round_to_bf16(float *x, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] = bf16_to_f32(f32_to_bf16(x[i]));
}

/* ---- the checker ---- */

enum { MOST_OUTS = 8, MOST_SLOPES = 240 };

typedef struct output {
    const char *name;
    size_t n;
    double *x;     /* the input whose gradient this is */
    float *begin;  /* what is in the output before; NULL: the op writes, and finds NaN there */
    bool replaced; /* begin is an argument, not a summand */
} output;

typedef struct problem {
    const char *what;
    int outs;
    output out[MOST_OUTS];
    double (*value)(const void *c);
    void (*run)(op_ctx *ctx, const void *c, float *const *out);
    const void *c;
    double exact, level; /* tolerances */
} problem;

static inline void add_output(problem *p, const char *name, double *x, size_t n, bool adds, uint64_t seed) {
    assert_true(p->outs < MOST_OUTS);
    p->out[p->outs++] = (output){ .name = name, .n = n, .x = x, .begin = adds ? random_floats(n, 1, seed) : NULL };
}

static inline double slope(const problem *p, double *x) {
    const double h = 1e-4, at = *x;
    *x = at + h;
    double up = p->value(p->c);
    *x = at - h;
    double down = p->value(p->c);
    *x = at;
    return (up - down) / (2 * h);
}

static inline void check_slopes(const problem *p, const output *o, const float *got, uint64_t *seed) {
    size_t n = o->n < MOST_SLOPES ? o->n : MOST_SLOPES;
    float some[MOST_SLOPES], want[MOST_SLOPES];
    char what[160];
    for (size_t i = 0; i < n; i++) {
        size_t at = n == o->n ? i : (size_t)(test_rand(seed) % o->n);
        some[i] = got[at];
        want[i] = (float)((o->begin && !o->replaced ? (double)o->begin[at] : 0) + slope(p, &o->x[at]));
    }
    snprintf(what, sizeof what, "%s: %s against differences", p->what, o->name);
    assert_close(some, want, n, p->exact, what);
}

static inline void run_problem(const problem *p, int l, int threads, float *const *out) {
    op_ctx ctx = ctx_of(l, threads);
    for (int i = 0; i < p->outs; i++) {
        if (p->out[i].begin)
            memcpy(out[i], p->out[i].begin, p->out[i].n * sizeof **out);
        else
            memset(out[i], 0xff, p->out[i].n * sizeof **out);
    }
    p->run(&ctx, p->c, out);
}

static inline void check(problem *p) {
    float *scalar[MOST_OUTS], *one[MOST_OUTS], *more[MOST_OUTS];
    uint64_t seed = 77;
    char what[200];
    for (int i = 0; i < p->outs; i++) {
        scalar[i] = block(p->out[i].n, sizeof(float));
        one[i] = block(p->out[i].n, sizeof(float));
        more[i] = block(p->out[i].n, sizeof(float));
    }
    run_problem(p, 0, 1, scalar);
    for (int l = 0; l < levels; l++) {
        run_problem(p, l, 1, one);
        for (int i = 0; i < p->outs; i++) {
            snprintf(what, sizeof what, "%s: %s, %s", p->what, p->out[i].name, gist_kernels_name(level[l]));
            check_slopes(p, &p->out[i], one[i], &seed);
            assert_close(one[i], scalar[i], p->out[i].n, p->level, what);
        }
        for (int threads = 2; threads <= 4; threads += 2) {
            run_problem(p, l, threads, more);
            for (int i = 0; i < p->outs; i++) assert_same_floats(more[i], one[i], p->out[i].n, what);
        }
    }
    for (int i = 0; i < p->outs; i++) {
        free(scalar[i]);
        free(one[i]);
        free(more[i]);
        free(p->out[i].begin);
        free(p->out[i].x);
    }
}

static inline int open_pools(void **state) {
    (void)state;
    levels = tiny_levels(level);
    for (int t = 1; t <= 4; t *= 2)
        if (pool_create(mem_default(), t, &pools[t], NULL) != GIST_OK) return -1;
    return 0;
}

static inline int close_pools(void **state) {
    (void)state;
    for (int t = 1; t <= 4; t *= 2) pool_free(pools[t]);
    return 0;
}

#endif
