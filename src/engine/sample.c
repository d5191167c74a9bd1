/* sample.c - drawing a token from logits: greedy, temperature, top-k, top-p.
 *
 * Sums run in double over ids in a fixed order and the generator is seeded, so that a seed names one answer.
 */
#include <math.h>
#include <stdlib.h>

#include "engine/engine.h"

gist_status sampler_init(sampler *s, const gist_allocator *alloc, int V, float temperature, int top_k, float top_p,
                         uint64_t seed, int32_t never, gist_error *err) {
    if (!(temperature >= 0) || temperature > 1e6f)
        return err_set(err, GIST_ERR_USAGE, "temperature %g is not between 0 and 1e6", (double)temperature);
    if (!(top_p > 0) || top_p > 1) return err_set(err, GIST_ERR_USAGE, "top-p %g is not in (0,1]", (double)top_p);
    if (top_k < 0) return err_set(err, GIST_ERR_USAGE, "top-k %d is negative", top_k);
    sampler made = {
        .alloc = alloc, .temperature = temperature, .top_p = top_p, .top_k = top_k, .never = never, .V = V
    };
    rng_seed(&made.random, seed);
    if (temperature > 0) {
        made.order = mem_alloc(alloc, (size_t)V, sizeof *made.order);
        made.p = mem_alloc(alloc, (size_t)V, sizeof *made.p);
        if (!made.order || !made.p) {
            sampler_reset(&made);
            return err_memory(err, "sampler");
        }
    }
    *s = made;
    return GIST_OK;
}

void sampler_reset(sampler *s) {
    mem_free(s->alloc, s->order);
    mem_free(s->alloc, s->p);
    *s = (sampler){ .alloc = s->alloc };
}

static float logprob_of(const float *logits, int V, float top, int32_t id) {
    double sum = 0;
    for (int v = 0; v < V; v++) sum += (double)expf(logits[v] - top);
    return (float)((double)(logits[id] - top) - log(sum));
}

static int32_t largest(const sampler *s, const float *logits) {
    int32_t best = s->never == 0 && s->V > 1 ? 1 : 0;
    for (int32_t v = best + 1; v < s->V; v++)
        if (logits[v] > logits[best] && v != s->never) best = v;
    return best;
}

/* Larger probability first; equal ones by id. */
static bool before(const sampler *s, int32_t a, int32_t b) {
    return s->p[a] > s->p[b] || (!(s->p[a] < s->p[b]) && a < b);
}

static void sift_down(const sampler *s, int32_t *heap, int n, int i) {
    for (;;) {
        int first = i, l = 2 * i + 1, r = l + 1;
        if (l < n && before(s, heap[l], heap[first])) first = l;
        if (r < n && before(s, heap[r], heap[first])) first = r;
        if (first == i) return;
        int32_t t = heap[i];
        heap[i] = heap[first];
        heap[first] = t;
        i = first;
    }
}

/* Take candidates from a heap, most probable first, until top-k or top-p is full; draw among them. */
static int32_t draw(sampler *s) {
    int n = s->V, limit = s->top_k > 0 && s->top_k < n ? s->top_k : n, taken = 0;
    double total = 0, kept = 0;
    for (int v = 0; v < n; v++) {
        s->order[v] = v;
        total += s->p[v];
    }
    double u = rng_unit(&s->random);
    if (limit == n && s->top_p >= 1) { /* no need to sort */
        double at = u * total;
        for (int v = 0; v < n; v++)
            if ((at -= s->p[v]) < 0) return v;
    }
    for (int i = n / 2 - 1; i >= 0; i--) sift_down(s, s->order, n, i);
    while (taken < limit && (taken == 0 || kept < (double)s->top_p * total)) {
        kept += s->p[s->order[0]];
        int32_t t = s->order[0];
        s->order[0] = s->order[n - 1 - taken];
        s->order[n - 1 - taken] = t;
        taken++;
        sift_down(s, s->order, n - taken, 0);
    }
    double at = u * kept;
    for (int i = 0; i < taken; i++) {
        int32_t id = s->order[n - 1 - i];
        if ((at -= s->p[id]) < 0) return id;
    }
    return s->order[n - 1]; /* rounding left a crumb: the most probable one */
}

int32_t sampler_draw(sampler *s, const float *logits, float *logprob) {
    int32_t best = largest(s, logits), id = best;
    float top = logits[best];
    if (s->never >= 0 && s->never < s->V && logits[s->never] > top) top = logits[s->never];
    if (s->temperature > 0) {
        for (int v = 0; v < s->V; v++)
            s->p[v] = v == s->never ? 0 : exp(((double)logits[v] - (double)logits[best]) / (double)s->temperature);
        id = draw(s);
    }
    if (logprob) *logprob = logprob_of(logits, s->V, top, id);
    return id;
}
