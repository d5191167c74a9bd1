/* bench_gist_measure.c - passes of a model, timed three ways.
 *
 *   for each example, in random order
 *       prepare   prompt and gist tokens in one pass, cache into a file; the prompt compressed into a .gist file
 *       repeat    peak of the weights' type and read bandwidth; then the three ways in random order:
 *
 *       empty session --attach: file into memory--> --forward: the input's pass--> --choose--> first token --decode-->
 *
 * Files were just written, so they are read from the page cache.  All ways use one session, whose memory is there.  The
 * full cache lies in its file as attention reads it and is copied by all threads, with no checksum to verify: the
 * fastest restoring that we know, so that the comparison is not in the gist's favour.
 */
#include <signal.h>
#include <unistd.h>

#include "bench_gist.h"

static volatile sig_atomic_t interrupted;

static void on_signal(int sig) {
    if (interrupted) signal(sig, SIG_DFL); /* the next one ends the program */
    interrupted = 1;
}

typedef struct measuring {
    bench_gist *b;
    gist_engine *e;
    const op_ctx *ctx;
    int32_t gist_token;
    gist_session *s;
    char full[512], gist[512]; /* paths */
    int32_t *ids;              /* [longest] */
    float *logits, *uncached;  /* [V] */
    void *buffer;
    rng order;
    bool *done; /* [items] */
} measuring;

static void shuffle(rng *r, int *x, int n) {
    for (int i = n - 1; i > 0; i--) {
        int j = (int)rng_below(r, (uint64_t)i + 1), t = x[i];
        x[i] = x[j];
        x[j] = t;
    }
}

/* Prompt, gist tokens, input: into m->ids. */
static int lay_out(measuring *m, const bench_item *x) {
    const int32_t *ids = m->b->items.ids.id + x->at;
    int n = 0;
    for (int i = 0; i < x->prompt; i++) m->ids[n++] = ids[i];
    for (int i = 0; i < m->b->k; i++) m->ids[n++] = m->gist_token;
    for (int i = 0; i < x->input; i++) m->ids[n++] = ids[x->prompt + i];
    return n;
}

static gist_status prepare(measuring *m, const bench_item *x, gist_error *err) {
    gist_compress_options o = GIST_COMPRESS_OPTIONS_INIT;
    gist *g = NULL;
    o.k = m->b->k;
    o.kv = dt_public(m->b->kv);
    lay_out(m, x);
    gist_session_reset(m->s);
    TRY(gist_session_feed(m->s, m->ids, (size_t)(x->prompt + m->b->k), NULL, err));
    TRY(session_save(m->s, m->full, err));
    TRY(gist_compress_ids(m->e, m->ids, (size_t)x->prompt, &o, &g, err));
    gist_status status = gist_save(g, m->gist, err);
    gist_free(g);
    return status;
}

static int32_t choose(const float *logits, int n) {
    int best = 0;
    for (int i = 1; i < n; i++)
        if (logits[i] > logits[best]) best = i;
    return best;
}

static gist_status serve(measuring *m, const bench_item *x, bench_way w, bench_pass *p, gist_error *err) {
    int skip = w == WAY_NONE ? 0 : x->prompt + m->b->k, n = x->prompt + m->b->k + x->input - skip;
    int V = engine_model(m->e)->vocab;
    gist *g = NULL;
    gist_session_reset(m->s);
    double start = time_now();
    gist_status status = GIST_OK;
    if (w == WAY_FULL) status = session_restore(m->s, m->full, err);
    if (w == WAY_GIST) status = gist_load(m->e, m->gist, 0, &g, err);
    if (g) status = gist_session_attach(m->s, g, err);
    double attached = time_now();
    if (status == GIST_OK) status = gist_session_feed(m->s, m->ids + skip, (size_t)n, m->logits, err);
    double fed = time_now();
    int32_t next = status == GIST_OK ? choose(m->logits, V) : 0;
    double chosen = time_now();
    if (w == WAY_NONE && status == GIST_OK) memcpy(m->uncached, m->logits, (size_t)V * sizeof(float));
    for (int i = 0; i < m->b->decode && status == GIST_OK; i++) {
        status = gist_session_feed(m->s, &next, 1, m->logits, err);
        next = choose(m->logits, V);
    }
    double decoded = time_now();
    p->attach = attached - start;
    p->forward = fed - attached;
    p->first = chosen - start;
    p->decode = m->b->decode ? (decoded - chosen) / m->b->decode : 0;
    gist_session_reset(m->s);
    gist_free(g);
    return status;
}

/* Behind the full cache, the logits must be those of the whole pass. */
static gist_status check_cached(measuring *m, const bench_item *x, gist_error *err) {
    int skip = x->prompt + m->b->k, V = engine_model(m->e)->vocab;
    gist_session_reset(m->s);
    TRY(session_restore(m->s, m->full, err));
    TRY(gist_session_feed(m->s, m->ids + skip, (size_t)x->input, m->logits, err));
    if (memcmp(m->logits, m->uncached, (size_t)V * sizeof(float)) == 0) return GIST_OK;
    return err_set(err, GIST_ERR_MISMATCH, "example %d: logits behind the full cache are not those without it",
                   x->line);
}

static gist_status one_item(measuring *m, int i, gist_error *err) {
    bench_gist *b = m->b;
    const bench_item *x = &b->items.item[i];
    TRY(prepare(m, x, err));
    for (int r = 0, order = 0; r < b->repeats; r++) {
        int way[WAYS] = { WAY_NONE, WAY_FULL, WAY_GIST };
        size_t at = (size_t)i * (size_t)b->repeats + (size_t)r;
        bench_pass *p = b->pass + at * WAYS;
        b->peak[at] = 1e9 * bench_gflops(m->ctx->pool, b->unit);
        b->read[at] = 1e9 * bench_read_gbs(m->ctx->pool, m->buffer, (size_t)b->buffer_mib << 20);
        shuffle(&m->order, way, WAYS);
        for (int w = 0; w < WAYS; w++) {
            if (interrupted) return err_set(err, GIST_ERR_CANCELLED, "interrupted before an example was measured");
            p[way[w]].order = order++;
            TRY(serve(m, x, (bench_way)way[w], &p[way[w]], err));
        }
    }
    return check_cached(m, x, err);
}

static const bench_item *shortest(const bench_items *x) {
    const bench_item *least = x->item;
    for (int i = 1; i < x->n; i++)
        if (x->item[i].prompt + x->item[i].input < least->prompt + least->input) least = &x->item[i];
    return least;
}

static gist_status all_items(measuring *m, gist_error *err) {
    bench_gist *b = m->b;
    int n = b->items.n, *order = mem_alloc(NULL, (size_t)n, sizeof *order);
    bench_pass unused;
    if (!order) return err_memory(err, "order");
    for (int i = 0; i < n; i++) order[i] = i;
    rng_seed(&m->order, b->seed);
    shuffle(&m->order, order, n);
    double start = time_now();
    const bench_item *least = shortest(&b->items);
    lay_out(m, least);
    gist_status status = serve(m, least, WAY_NONE, &unused, err); /* warms up */
    for (int i = 0; i < n && status == GIST_OK; i++) {
        double spent = time_now() - start;
        if (!b->quiet && i > 0)
            progress("example %d of %d, %.0f s, about %.0f s left", i + 1, n, spent, spent / i * (n - i));
        status = one_item(m, order[i], err);
        m->done[order[i]] = status == GIST_OK;
    }
    progress_end();
    mem_free(NULL, order);
    return status;
}

static gist_status make_room(measuring *m, gist_error *err) {
    bench_gist *b = m->b;
    gist_session_options o = GIST_SESSION_OPTIONS_INIT;
    int longest = 0;
    size_t V = (size_t)engine_model(m->e)->vocab, rounds = (size_t)b->items.n * (size_t)b->repeats;
    for (int i = 0; i < b->items.n; i++) {
        int all = b->items.item[i].prompt + b->k + b->items.item[i].input;
        longest = all > longest ? all : longest;
    }
    o.kv = dt_public(b->kv);
    o.context = longest + b->decode;
    TRY(gist_session_open(m->e, &o, &m->s, err));
    TRY(session_reserve(m->s, longest + b->decode, err));
    m->ids = mem_alloc(NULL, (size_t)longest, sizeof *m->ids);
    m->logits = mem_alloc(NULL, V, sizeof *m->logits);
    m->uncached = mem_alloc(NULL, V, sizeof *m->uncached);
    m->done = mem_calloc(NULL, (size_t)b->items.n, sizeof *m->done);
    m->buffer = bench_buffer(m->ctx->pool, (size_t)b->buffer_mib << 20);
    b->pass = mem_calloc(NULL, rounds, WAYS * sizeof *b->pass);
    b->peak = mem_calloc(NULL, rounds, sizeof *b->peak);
    b->read = mem_calloc(NULL, rounds, sizeof *b->read);
    bool ok = m->ids && m->logits && m->uncached && m->done && m->buffer && b->pass && b->peak && b->read;
    return ok ? GIST_OK : err_memory(err, "measurements");
}

/* After an interruption: what was measured, as if it had been all. */
static void keep_done(bench_gist *b, const bool *done) {
    bench_items *x = &b->items;
    size_t R = (size_t)b->repeats;
    int n = 0, all = x->n, groups = 0;
    for (int g = 0; g < x->groups; g++) {
        bench_group kept = x->group[g];
        int first = n;
        for (int i = kept.first; i < kept.first + kept.n; i++) {
            if (!done[i]) continue;
            size_t from = (size_t)i * R, to = (size_t)n * R;
            memmove(b->pass + to * WAYS, b->pass + from * WAYS, R * WAYS * sizeof *b->pass);
            memmove(b->peak + to, b->peak + from, R * sizeof *b->peak);
            memmove(b->read + to, b->read + from, R * sizeof *b->read);
            x->item[n] = x->item[i];
            x->item[n++].group = groups;
        }
        kept.first = first;
        kept.n = n - first;
        if (kept.n > 0) x->group[groups++] = kept;
    }
    x->n = n;
    x->groups = groups;
    if (n > 0) warn("interrupted: %d of %d examples were measured", n, all);
}

static void catch_signals(bool on) {
    struct sigaction act = { .sa_handler = on ? on_signal : SIG_DFL, .sa_flags = SA_RESTART };
    interrupted = 0;
    sigemptyset(&act.sa_mask);
    sigaction(SIGINT, &act, NULL);
    sigaction(SIGTERM, &act, NULL);
}

gist_status bench_measure(bench_gist *b, gist_engine *e, const op_ctx *ctx, int32_t gist_token, const char *work,
                          gist_error *err) {
    measuring m = { .b = b, .e = e, .ctx = ctx, .gist_token = gist_token };
    snprintf(m.full, sizeof m.full, "%.480s/full.cache", work);
    snprintf(m.gist, sizeof m.gist, "%.480s/one.gist", work);
    catch_signals(true);
    gist_status status = make_room(&m, err);
    if (status == GIST_OK) status = all_items(&m, err);
    if (status == GIST_ERR_CANCELLED) keep_done(b, m.done);
    if (status == GIST_ERR_CANCELLED && b->items.n > 0) status = GIST_OK;
    catch_signals(false);
    unlink(m.full);
    unlink(m.gist);
    mem_free(NULL, m.done);
    gist_session_close(m.s);
    mem_free(NULL, m.ids);
    mem_free(NULL, m.logits);
    mem_free(NULL, m.uncached);
    mem_free(NULL, m.buffer);
    return status;
}
