/* sample.c - drawing a token from logits.
 *
 *   logits --bias--> --repetition penalty--> --allowed?--> scores
 *   scores --top-k--> --top-p--> --min-p--> candidates --temperature--> draw
 *
 * The order is fixed, and llama.cpp's.  Each filter sees what the one before it left, at temperature 1; equal scores go
 * by id.  Temperature 0 takes the first of the best scores.  Sums run in double in a fixed order and the generator is
 * seeded, so that a seed names one answer.
 */
#include <math.h>
#include <stdlib.h>

#include "engine/engine.h"

static gist_status check(const gist_generate_options *o, int V, gist_error *err) {
    if (!(o->temperature >= 0) || o->temperature > 1e6f)
        return err_set(err, GIST_ERR_USAGE, "temperature %g is not between 0 and 1e6", (double)o->temperature);
    if (!(o->top_p > 0) || o->top_p > 1)
        return err_set(err, GIST_ERR_USAGE, "top-p %g is not in (0,1]", (double)o->top_p);
    if (o->top_k < 0) return err_set(err, GIST_ERR_USAGE, "top-k %d is negative", o->top_k);
    if (!(o->min_p >= 0) || o->min_p > 1)
        return err_set(err, GIST_ERR_USAGE, "min-p %g is not in [0,1]", (double)o->min_p);
    if (!(o->repeat_penalty > 0) || o->repeat_penalty > 1e6f)
        return err_set(err, GIST_ERR_USAGE, "repetition penalty %g is not in (0,1e6]", (double)o->repeat_penalty);
    if (o->repeat_last < -1) return err_set(err, GIST_ERR_USAGE, "a window of %d tokens", o->repeat_last);
    if (o->bias_count && !o->bias) return err_set(err, GIST_ERR_USAGE, "%zu biases, but no list", o->bias_count);
    for (size_t i = 0; i < o->bias_count; i++) {
        const gist_logit_bias *b = &o->bias[i];
        if (b->id < 0 || b->id >= V)
            return err_set(err, GIST_ERR_USAGE, "a bias on token %d, the vocabulary has %d", b->id, V);
        if (isnan(b->bias) || b->bias > 1e30f)
            return err_set(err, GIST_ERR_USAGE, "a bias of %g on token %d", (double)b->bias, b->id);
    }
    return GIST_OK;
}

gist_status sampler_init(sampler *s, const gist_allocator *alloc, int V, int longest, const gist_generate_options *o,
                         int32_t never, gist_error *err) {
    TRY(check(o, V, err));
    int window = o->repeat_last < 0 || o->repeat_last > longest ? longest : o->repeat_last;
    if (!(o->repeat_penalty < 1 || o->repeat_penalty > 1)) window = 0;
    sampler made = { .alloc = alloc,
                     .temperature = o->temperature,
                     .top_p = o->top_p,
                     .min_p = o->min_p,
                     .penalty = o->repeat_penalty,
                     .top_k = o->top_k,
                     .window = window,
                     .bias = o->bias,
                     .bias_count = o->bias_count,
                     .never = never,
                     .V = V };
    rng_seed(&made.random, o->seed);
    bool scores = made.window > 0 || made.bias_count > 0 || o->json_object;
    bool good = true;
    if (scores) good = (made.score = mem_alloc(alloc, (size_t)V, sizeof *made.score)) != NULL;
    if (good && made.window > 0) {
        made.recent = mem_alloc(alloc, (size_t)made.window, sizeof *made.recent);
        made.seen = mem_calloc(alloc, (size_t)V, sizeof *made.seen);
        good = made.recent && made.seen;
    }
    if (good && o->temperature > 0) {
        made.order = mem_alloc(alloc, (size_t)V, sizeof *made.order);
        made.p = mem_alloc(alloc, (size_t)V, sizeof *made.p);
        good = made.order && made.p;
    }
    if (!good) {
        sampler_reset(&made);
        return err_memory(err, "sampler");
    }
    *s = made;
    return GIST_OK;
}

void sampler_reset(sampler *s) {
    mem_free(s->alloc, s->order);
    mem_free(s->alloc, s->p);
    mem_free(s->alloc, s->score);
    mem_free(s->alloc, s->recent);
    mem_free(s->alloc, s->seen);
    *s = (sampler){ .alloc = s->alloc };
}

void sampler_accept(sampler *s, int32_t id) {
    if (s->window == 0) return;
    int32_t *slot = &s->recent[s->accepted % (uint64_t)s->window];
    if (s->accepted >= (uint64_t)s->window) s->seen[*slot]--;
    s->accepted++;
    *slot = id;
    s->seen[id]++;
}

static float logprob_of(const float *logits, int V, int32_t id) {
    double sum = 0;
    float top = logits[0];
    for (int v = 1; v < V; v++) top = logits[v] > top ? logits[v] : top;
    for (int v = 0; v < V; v++) sum += (double)expf(logits[v] - top);
    return (float)((double)(logits[id] - top) - log(sum));
}

/* Bias and penalty; without either the logits themselves. */
static const float *scores_of(sampler *s, const float *logits) {
    if (!s->score) return logits;
    memcpy(s->score, logits, (size_t)s->V * sizeof *logits);
    for (size_t i = 0; i < s->bias_count; i++) s->score[s->bias[i].id] += s->bias[i].bias;
    for (int v = 0; s->window > 0 && v < s->V; v++)
        if (s->seen[v]) s->score[v] = s->score[v] > 0 ? s->score[v] / s->penalty : s->score[v] * s->penalty;
    return s->score;
}

/* The first of the best; -1: all are forbidden. */
static int32_t best_of(const sampler *s, const float *x) {
    int32_t best = -1;
    for (int32_t v = 0; v < s->V; v++)
        if (v != s->never && x[v] > (best < 0 ? -INFINITY : x[best])) best = v;
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

/* Candidates by the filters, most probable first: candidate i is order[V - 1 - i].  Returns how many, at least 1. */
static int filter(sampler *s) {
    int n = s->V, limit = s->top_k > 0 && s->top_k < n ? s->top_k : n, taken = 0;
    double total = 0, kept = 0, least = (double)s->min_p; /* the best one's p is 1 */
    for (int v = 0; v < n; v++) {
        s->order[v] = v;
        total += s->p[v];
    }
    for (int i = n / 2 - 1; i >= 0; i--) sift_down(s, s->order, n, i);
    bool narrow = limit < n && s->top_p < 1; /* top-p of what top-k leaves: the sum of those comes first */
    double enough = narrow ? INFINITY : (double)s->top_p * total;
    while (taken < limit && (taken == 0 || kept < enough)) {
        int32_t id = s->order[0];
        if (taken > 0 && (!(s->p[id] > 0) || (!narrow && s->p[id] < least))) break;
        kept += s->p[id];
        s->order[0] = s->order[n - 1 - taken];
        s->order[n - 1 - taken] = id;
        taken++;
        sift_down(s, s->order, n - taken, 0);
    }
    if (!narrow) return taken;
    int most = taken;
    enough = (double)s->top_p * kept;
    for (taken = 0, kept = 0; taken < most && (taken == 0 || kept < enough); taken++) {
        double p = s->p[s->order[n - 1 - taken]];
        if (taken > 0 && p < least) break;
        kept += p;
    }
    return taken;
}

static int32_t draw(sampler *s, const float *x, int32_t best) {
    int n = s->V;
    double top = (double)x[best], t = (double)s->temperature, u = rng_unit(&s->random), total = 0;
    bool filters = (s->top_k > 0 && s->top_k < n) || s->top_p < 1 || s->min_p > 0;
    double scale = filters ? 1 : t;
    for (int v = 0; v < n; v++) {
        s->p[v] = v == s->never ? 0 : exp(((double)x[v] - top) / scale);
        total += s->p[v];
    }
    if (!filters) {
        double at = u * total;
        for (int v = 0; v < n; v++)
            if ((at -= s->p[v]) < 0) return v;
        return best; /* rounding left a crumb */
    }
    int taken = filter(s);
    total = 0;
    for (int i = 0; i < taken; i++) {
        int32_t id = s->order[n - 1 - i];
        total += s->p[id] = exp(((double)x[id] - top) / t);
    }
    double at = u * total;
    for (int i = 0; i < taken; i++) {
        int32_t id = s->order[n - 1 - i];
        if ((at -= s->p[id]) < 0) return id;
    }
    return best;
}

static int32_t pick(sampler *s, const float *x) {
    int32_t best = best_of(s, x);
    return best < 0 || !(s->temperature > 0) ? best : draw(s, x, best);
}

int32_t sampler_draw(sampler *s, const float *logits, sampler_allow_fn allow, void *ctx, float *logprob) {
    const float *x = scores_of(s, logits);
    int32_t id = pick(s, x);
    if (allow && id >= 0 && !allow(ctx, id)) { /* seldom: then look at all of them */
        for (int32_t v = 0; v < s->V; v++)
            if (x[v] > -INFINITY && (v == id || !allow(ctx, v))) s->score[v] = -INFINITY;
        id = pick(s, x);
    }
    if (id >= 0 && logprob) *logprob = logprob_of(logits, s->V, id);
    return id;
}
