/* test_sample.c - drawing tokens, against a reference that sorts and sums in the plainest way: biases, repetition
 * penalty and its window, top-k, top-p, min-p, temperature, in that order; what may not be drawn never is; a seed names
 * one sequence.
 */
#include <math.h>
#include <stdlib.h>

#include "engine/engine.h"
#include "testing.h"

enum { V = 9, DRAWS = 40000, NEVER = 7 };
static const float logits[V] = { 0.5f, 2, -1, 2, 1.5f, -30, 0, 5, 1 };

static const gist_logit_bias biases[] = { { 0, 2.5f }, { 3, -INFINITY }, { 0, 0.25f }, { 8, -1 } };

typedef struct chain {
    float temperature, top_p, min_p, penalty;
    int top_k, last, biases;
} chain;

static const chain chains[] = {
    { 1, 1, 0, 1, 0, 64, 0 },         { 0.5f, 1, 0, 1, 0, 64, 0 },           { 2, 1, 0, 1, 3, 64, 0 },
    { 1, 0.7f, 0, 1, 0, 64, 0 },      { 1, 0.3f, 0, 1, 5, 64, 0 },           { 1, 1, 0, 1, 100, 64, 0 },
    { 1.5f, 0.999f, 0, 1, 0, 64, 0 }, { 1, 1, 0.1f, 1, 0, 64, 0 },           { 3, 1, 0.3f, 1, 0, 64, 0 },
    { 2, 0.8f, 0.05f, 1, 4, 64, 0 },  { 1, 0.6f, 0.5f, 1, 6, 64, 0 },        { 1, 1, 1, 1, 0, 64, 0 },
    { 1, 1, 0, 1, 0, 64, 4 },         { 1, 0.9f, 0.02f, 1, 5, 64, 4 },       { 1, 1, 0, 1.8f, 0, 64, 0 },
    { 1, 1, 0, 1.8f, 0, 3, 0 },       { 1, 1, 0, 1.8f, 0, -1, 0 },           { 1, 1, 0, 1.8f, 0, 0, 0 },
    { 1, 1, 0, 0.5f, 0, 64, 4 },      { 0.7f, 0.95f, 0.05f, 1.3f, 6, 4, 4 },
};
static const int32_t history[] = { 1, 4, 4, 8, 2, 1, 6, 4 };
enum { CHAINS = sizeof chains / sizeof *chains, HISTORY = sizeof history / sizeof *history };

static gist_generate_options options_of(const chain *c) {
    gist_generate_options o = GIST_GENERATE_OPTIONS_INIT;
    o.temperature = c->temperature;
    o.top_p = c->top_p;
    o.min_p = c->min_p;
    o.top_k = c->top_k;
    o.repeat_penalty = c->penalty;
    o.repeat_last = c->last;
    o.bias = biases;
    o.bias_count = (size_t)c->biases;
    o.seed = 3;
    return o;
}

static sampler sampler_of(const chain *c, uint64_t seed) {
    gist_generate_options o = options_of(c);
    gist_error err = { 0 };
    sampler s;
    o.seed = seed;
    assert_ok(sampler_init(&s, mem_default(), V, 1000, &o, NEVER, &err), &err);
    for (int i = 0; i < HISTORY; i++) sampler_accept(&s, history[i]);
    return s;
}

/* Drop what is not in keep[0..n) and divide by what is left. */
static void keep_only(double p[V], const int *order, int n) {
    double total = 0;
    for (int i = n; i < V; i++) p[order[i]] = 0;
    for (int v = 0; v < V; v++) total += p[v];
    for (int v = 0; v < V; v++) p[v] /= total;
}

/* The chain as gist.h describes it, step by step, on probabilities. */
static void reference(const chain *c, double p[V]) {
    double x[V], top = -INFINITY;
    int order[V], n = V;
    for (int v = 0; v < V; v++) x[v] = (double)logits[v];
    for (int i = 0; i < c->biases; i++) x[biases[i].id] += (double)biases[i].bias;
    int first = c->last < 0 || c->last > HISTORY ? 0 : HISTORY - c->last;
    for (int v = 0; v < V; v++) {
        bool seen = false;
        for (int i = first; i < HISTORY; i++) seen = seen || history[i] == v;
        if (seen) x[v] = x[v] > 0 ? x[v] / (double)c->penalty : x[v] * (double)c->penalty;
        order[v] = v;
        if (v == NEVER) x[v] = -INFINITY;
        if (x[v] > top) top = x[v];
    }
    for (int v = 0; v < V; v++) p[v] = exp(x[v] - top);
    for (int i = 1; i < V; i++) /* most probable first, equal ones by id */
        for (int j = i; j > 0 && p[order[j]] > p[order[j - 1]]; j--) {
            int t = order[j];
            order[j] = order[j - 1];
            order[j - 1] = t;
        }
    keep_only(p, order, V);
    if (c->top_k > 0 && c->top_k < n) keep_only(p, order, n = c->top_k);
    if (c->top_p < 1) {
        double kept = 0;
        int m = 0;
        while (m < n && (m == 0 || kept < (double)c->top_p)) kept += p[order[m++]];
        keep_only(p, order, n = m);
    }
    int m = 1;
    while (m < n && p[order[m]] >= (double)c->min_p * p[order[0]]) m++;
    keep_only(p, order, n = m);
    for (int v = 0; v < V; v++) p[v] = p[v] > 0 ? exp((x[v] - top) / (double)c->temperature) : 0;
    keep_only(p, order, n);
}

static void check_counts(size_t which, const double p[V], const int count[V]) {
    for (int v = 0; v < V; v++) {
        double sd = sqrt(p[v] * (1 - p[v]) / DRAWS), got = (double)count[v] / DRAWS;
        if (p[v] > 0 ? fabs(got - p[v]) > 5 * sd + 1e-9 : count[v] != 0)
            fail_msg("chain %zu: id %d drawn %g of the time, expected %g", which, v, got, p[v]);
    }
}

static void test_chains(void **state) {
    (void)state;
    double sum = 0;
    for (int v = 0; v < V; v++) sum += exp((double)logits[v]);
    for (size_t i = 0; i < CHAINS; i++) {
        double p[V];
        int count[V] = { 0 };
        sampler s = sampler_of(&chains[i], 3);
        reference(&chains[i], p);
        for (int d = 0; d < DRAWS; d++) {
            float lp = 0;
            int32_t id = sampler_draw(&s, logits, NULL, NULL, &lp);
            assert_true(id >= 0 && id < V && id != NEVER);
            count[id]++; /* the log-probability is the model's own, whatever the chain */
            assert_true(fabs((double)lp - ((double)logits[id] - log(sum))) < 1e-5);
        }
        check_counts(i, p, count);
        sampler_reset(&s);
        sampler_reset(&s);
    }
}

static void test_seeds(void **state) {
    (void)state;
    for (size_t i = 0; i < CHAINS; i++) {
        sampler a = sampler_of(&chains[i], 11), b = sampler_of(&chains[i], 11);
        for (int d = 0; d < 200; d++) {
            int32_t id = sampler_draw(&a, logits, NULL, NULL, NULL);
            assert_int_equal(id, sampler_draw(&b, logits, NULL, NULL, NULL));
            sampler_accept(&a, id);
            sampler_accept(&b, id);
        }
        sampler_reset(&a);
        sampler_reset(&b);
    }
}

static sampler greedy(const gist_logit_bias *bias, size_t n, float penalty, int last) {
    gist_generate_options o = GIST_GENERATE_OPTIONS_INIT;
    sampler s;
    o.bias = bias;
    o.bias_count = n;
    o.repeat_penalty = penalty;
    o.repeat_last = last;
    assert_ok(sampler_init(&s, mem_default(), V, 1000, &o, NEVER, NULL), NULL);
    return s;
}

static void test_greedy(void **state) {
    (void)state;
    sampler s = greedy(NULL, 0, 1, 64); /* the first of the largest, and not the one that is never drawn */
    assert_int_equal(sampler_draw(&s, logits, NULL, NULL, NULL), 1);
    sampler_reset(&s);
    s = greedy(biases, 4, 1, 64);
    assert_int_equal(sampler_draw(&s, logits, NULL, NULL, NULL), 0);
    sampler_reset(&s);
    gist_logit_bias all[V]; /* nothing is left */
    for (int v = 0; v < V; v++) all[v] = (gist_logit_bias){ v, -INFINITY };
    s = greedy(all, V, 1, 64);
    assert_int_equal(sampler_draw(&s, logits, NULL, NULL, NULL), -1);
    sampler_reset(&s);
    /* a window of two: 1 and 3 take turns until they push each other out */
    s = greedy(NULL, 0, 4, 2);
    static const int32_t want[] = { 1, 3, 4, 1, 3, 4, 1 };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        int32_t id = sampler_draw(&s, logits, NULL, NULL, NULL);
        assert_int_equal(id, want[i]);
        sampler_accept(&s, id);
    }
    sampler_reset(&s);
    static const float first[2] = { 3, 1 };
    gist_generate_options o = GIST_GENERATE_OPTIONS_INIT;
    assert_ok(sampler_init(&s, mem_default(), 2, 10, &o, 0, NULL), NULL);
    assert_int_equal(sampler_draw(&s, first, NULL, NULL, NULL), 1);
    sampler_reset(&s);
}

/* Tokens that are refused are drawn as if they had no probability; those allowed keep their shares. */
static bool allows_even(void *ctx, int32_t id) {
    ++*(int *)ctx;
    return id % 2 == 0;
}

static bool allows_none(void *ctx, int32_t id) {
    (void)ctx;
    (void)id;
    return false;
}

static void test_allowed(void **state) {
    (void)state;
    gist_generate_options o = GIST_GENERATE_OPTIONS_INIT;
    double p[V], total = 0;
    int count[V] = { 0 }, asked = 0;
    sampler s;
    o.temperature = 1;
    o.json_object = true;
    assert_ok(sampler_init(&s, mem_default(), V, 1000, &o, NEVER, NULL), NULL);
    for (int v = 0; v < V; v++) total += p[v] = v % 2 ? 0 : exp((double)logits[v]);
    for (int v = 0; v < V; v++) p[v] /= total;
    for (int d = 0; d < DRAWS; d++) {
        int32_t id = sampler_draw(&s, logits, allows_even, &asked, NULL);
        assert_true(id >= 0 && id % 2 == 0);
        count[id]++;
    }
    check_counts(CHAINS, p, count);
    assert_true(asked > DRAWS);
    assert_int_equal(sampler_draw(&s, logits, allows_none, NULL, NULL), -1);
    sampler_reset(&s);
    o.temperature = 0;
    assert_ok(sampler_init(&s, mem_default(), V, 1000, &o, NEVER, NULL), NULL);
    assert_int_equal(sampler_draw(&s, logits, allows_even, &asked, NULL), 4);
    sampler_reset(&s);
}

static void test_refused(void **state) {
    (void)state;
    static const gist_logit_bias no_id[] = { { V, 1 } }, nan_bias[] = { { 1, NAN } }, infinite[] = { { 1, INFINITY } };
    const gist_logit_bias *const bad[] = { no_id, nan_bias, infinite };
    for (int i = 0; i < 13; i++) {
        gist_generate_options o = GIST_GENERATE_OPTIONS_INIT;
        gist_error err = { 0 };
        sampler s = { .V = -5 };
        const char *said = NULL;
        switch (i) {
        case 0: o.temperature = -1, said = "temperature"; break;
        case 1: o.temperature = NAN, said = "temperature"; break;
        case 2: o.top_p = 0, said = "top-p"; break;
        case 3: o.top_p = 1.5f, said = "top-p"; break;
        case 4: o.top_k = -1, said = "top-k"; break;
        case 5: o.min_p = -0.1f, said = "min-p"; break;
        case 6: o.min_p = NAN, said = "min-p"; break;
        case 7: o.repeat_penalty = 0, said = "penalty"; break;
        case 8: o.repeat_last = -2, said = "window"; break;
        case 9: o.bias_count = 1, said = "no list"; break;
        default: o.bias = bad[i - 10], o.bias_count = 1, said = "bias"; break;
        }
        assert_fails(sampler_init(&s, mem_default(), V, 1000, &o, NEVER, &err), &err, GIST_ERR_USAGE, said);
        assert_int_equal(s.V, -5);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chains),  cmocka_unit_test(test_seeds),   cmocka_unit_test(test_greedy),
        cmocka_unit_test(test_allowed), cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
