/* feed.c - tokens of one or many sessions through one forward pass.
 *
 *   sessions   A: a a a a   B: b   C: c c c          what each is fed
 *   rows       a a a a b c c c                       of one pass, at most CHUNK of them; then the rest
 *   row        sees what stands in front of its session, then its session's own tokens up to itself
 *
 * A row's result depends on what it sees alone, so a batch gives each session the bits it would get by itself, and
 * where the passes are cut does not matter.  Sessions may differ in gist, KV type, length and position.
 */
#include "engine/engine_int.h"

/* ---- the workspace ---- */

static void take(workspace *w, arena *ar, const gist_engine *e) {
    const llama_config *c = &e->model.cfg;
    const llama_adapter *ad = e->model.adapter;
    size_t rows = (size_t)w->rows;
    llama_acts_take(&w->acts, ar, c, &e->ctx, w->rows, w->visible);
    w->row = arena_take(ar, rows, sizeof *w->row);
    w->ids = arena_take(ar, rows, sizeof *w->ids);
    w->pos = arena_take(ar, rows, sizeof *w->pos);
    w->gist_row = arena_take(ar, rows, sizeof *w->gist_row);
    w->wanted = arena_take(ar, rows, sizeof *w->wanted);
    size_t layers = (size_t)(c->L > c->encoder ? c->L : c->encoder);
    w->stores = arena_take(ar, layers * 2 * (size_t)w->parts, sizeof *w->stores);
    if (c->encoder) w->cross = arena_take(ar, rows, sizeof *w->cross);
    if (c->encoder) w->cross_stores = arena_take(ar, (size_t)c->L * 2 * (size_t)w->parts, sizeof *w->stores);
    if (ad && ad->cfg.rank) llama_lora_take(&w->acts.lora, ar, c, &ad->cfg, w->rows);
}

static int larger(int a, int b) {
    return a > b ? a : b;
}

gist_status workspace_grow(workspace *w, const gist_engine *e, int rows, int visible, int parts, gist_error *err) {
    if (rows <= w->rows && visible <= w->visible && parts <= w->parts) return GIST_OK;
    workspace fresh = { .rows = larger(rows, w->rows),
                        .visible = larger(visible, w->visible),
                        .parts = larger(parts, w->parts) };
    arena ar;
    arena_init(&ar, NULL, 0);
    take(&fresh, &ar, e);
    fresh.bytes = ar.peak;
    fresh.block = mem_alloc(e->alloc, fresh.bytes, 1);
    if (!fresh.block) return err_set(err, GIST_ERR_MEMORY, "out of memory: activations (%zu MiB)", fresh.bytes >> 20);
    arena_init(&ar, fresh.block, fresh.bytes);
    take(&fresh, &ar, e);
    workspace_free(w, e->alloc);
    *w = fresh;
    return GIST_OK;
}

void workspace_free(workspace *w, const gist_allocator *alloc) {
    mem_free(alloc, w->block);
    *w = (workspace){ 0 };
}

/* ---- one pass ---- */

/* Rows in front of a session's own that its next row sees: *lo up to the value returned. */
static int seen_in_front(const gist_session *s, int *lo) {
    const front *f = s->front;
    *lo = 0;
    if (!f) return s->attached && !s->source ? s->attached->head.k : 0;
    int own = s->base > f->first ? s->base - f->first : 0;
    if (!s->source && s->first_visible >= s->base) own = 0; /* hidden */
    return f->gists + own;
}

/* Narrow a row to the model's sliding window.  In front lie gist rows, at consecutive positions, and own tokens behind
 * them, at others. */
static void see_window(const gist_session *s, op_row *r) {
    const front *f = s->front;
    const gfile *g = s->attached ? &s->attached->head : NULL;
    int window = s->e->model.cfg.window, own_at = s->position - s->length; /* of own token 0 */
    int front_at = g ? g->first_position : f ? own_at + f->first : 0;
    if (window && g && f && r->pos - window >= g->first_position + g->k - 1) { /* no gist row any more */
        r->mlo = larger(r->mlo, f->gists < r->mhi ? f->gists : r->mhi);
        front_at = own_at + f->first - f->gists;
    }
    llama_see_window(&s->e->model.cfg, r, front_at, own_at + s->base);
}

/* Position of the i-th token to come; *gists counts the gist tokens right before it, and it. */
static int position_of(const gist_session *s, int i, int32_t id, int *gists) {
    int own_at = s->position - s->length, prompt = s->length + i - *gists;
    if (id != s->e->gist_token) {
        *gists = 0;
        return s->position + i;
    }
    return own_at + llama_gist_position(s->e->model.cfg.gist_spread, prompt, (*gists)++);
}

/* What a decoder's row sees of the source: the gist in front of it, then its own rows. */
static op_row see_source(const gist_session *s, int part) {
    int k = s->attached ? s->attached->head.k : 0;
    return (op_row){ .kv = 2 * part, .mem = k ? 2 * part + 1 : -1, .mhi = k, .lo = s->source->lo, .hi = s->source->n };
}

/* The next n tokens of a part become rows `at` and on. */
static void add_rows(workspace *w, const feed_part *p, int part, int at, int n) {
    gist_session *s = p->s;
    int mlo, mhi = seen_in_front(s, &mlo), gists = s->gists;
    for (int i = 0; i < n; i++) {
        int slot = s->length - s->base + i, lo = s->source ? 0 : larger(s->first_visible - s->base, 0);
        w->ids[at + i] = p->ids[p->done + i];
        w->pos[at + i] = position_of(s, i, w->ids[at + i], &gists);
        w->row[at + i] = (op_row){ .pos = w->pos[at + i],
                                   .kv = 2 * part,
                                   .slot = slot,
                                   .mem = mhi > mlo ? 2 * part + 1 : -1,
                                   .mlo = mlo,
                                   .mhi = mhi,
                                   .lo = lo < slot ? lo : slot,
                                   .hi = slot + 1 };
        see_window(s, &w->row[at + i]);
        if (s->source) w->cross[at + i] = see_source(s, part);
    }
    s->gists = gists;
}

static void name_stores(workspace *w, const gist_session *s, int part, int parts) {
    const op_kv *before = s->front ? s->front->stores : s->attached && !s->source ? s->attached->stores : NULL;
    for (int l = 0; l < s->e->model.cfg.L; l++) {
        op_kv *kv = &w->stores[((size_t)l * (size_t)parts + (size_t)part) * 2];
        kv[0] = s->stores[l];
        kv[1] = before ? before[l] : (op_kv){ 0 };
        if (!s->source) continue;
        kv = &w->cross_stores[((size_t)l * (size_t)parts + (size_t)part) * 2];
        kv[0] = s->source->stores[l];
        kv[1] = s->attached ? s->attached->cross[l] : (op_kv){ 0 };
    }
}

/* A pass over the rows; logits [wanted,vocab] of those in w->wanted. */
static void forward(const gist_engine *e, workspace *w, int rows, int parts, int wanted, float *logits) {
    int gists = 0;
    for (int i = 0; i < rows; i++)
        if (w->ids[i] == e->gist_token) w->gist_row[gists++] = i;
    llama_batch b = { .T = rows,
                      .ids = w->ids,
                      .pos = w->pos,
                      .rows = w->row,
                      .kv = w->stores,
                      .stores = 2 * parts,
                      .gist = w->gist_row,
                      .gists = gists,
                      .cross = w->cross,
                      .cross_kv = w->cross_stores,
                      .wanted = w->wanted,
                      .n_wanted = wanted };
    op_ctx ctx = e->ctx;
    llama_forward(&e->model, &ctx, &w->acts, &b);
    if (wanted > 0) llama_logits(&e->model, &ctx, &w->acts, wanted, logits);
}

/* Rows of one pass from parts `*at` and on, which moves to the first that is not done; returns how many rows' logits
 * it wrote: none if logits is NULL. */
static int run_pass(workspace *w, feed_part *part, size_t count, size_t *at, bool all, float *logits) {
    size_t first = *at, i = first;
    int rows = 0, wanted = 0, parts = 0;
    for (; i < count && rows < CHUNK; i++) parts++, rows += part[i].n - part[i].done;
    rows = 0;
    for (i = first; i < first + (size_t)parts; i++) {
        feed_part *p = &part[i];
        int n = p->n - p->done < CHUNK - rows ? p->n - p->done : CHUNK - rows;
        name_stores(w, p->s, (int)(i - first), parts);
        add_rows(w, p, (int)(i - first), rows, n);
        p->done += n;
        p->s->length += n;
        p->s->position += n;
        rows += n;
        int r = !logits ? rows : all ? rows - n : p->done == p->n ? rows - 1 : rows;
        while (r < rows) w->wanted[wanted++] = r++;
        if (p->done == p->n) *at = i + 1;
    }
    forward(part->s->e, w, rows, parts, wanted, logits);
    return wanted;
}

/* ---- many sessions ---- */

static gist_status check_part(const feed_part *p, gist_error *err) {
    const llama_model *m = &p->s->e->model;
    if (m->cfg.encoder && !p->s->source)
        return err_set(err, GIST_ERR_USAGE, "the decoder of a %s model comes behind an encoded source",
                       llama_families[m->cfg.family].name);
    for (int i = 0; i < p->n; i++)
        if (p->ids[i] < 0 || p->ids[i] >= m->vocab)
            return err_set(err, GIST_ERR_USAGE, "token %d is %d, the vocabulary has %d", i, p->ids[i], m->vocab);
    return GIST_OK;
}

/* Keys that a row of the session sees at most. */
static int most_visible(const gist_session *s) {
    int k = s->attached ? s->attached->head.k : 0, before = s->front ? s->front->gists + s->base : k;
    return larger(before + s->cap, s->source ? k + s->source->n : 0);
}

gist_status feed_parts(workspace *w, feed_part *part, size_t count, float *logits, bool all, gist_error *err) {
    int visible = 0, rows = 0;
    for (size_t i = 0; i < count; i++) {
        gist_session *s = part[i].s;
        TRY(check_part(&part[i], err));
        TRY(session_room(s, part[i].n, err));
        visible = larger(visible, most_visible(s));
        rows = part[i].n < CHUNK - rows ? rows + part[i].n : CHUNK;
    }
    TRY(workspace_grow(w, part[0].s->e, rows, visible, count < CHUNK ? (int)count : CHUNK, err));
    for (size_t at = 0; at < count;) {
        int wrote = run_pass(w, part, count, &at, all, logits);
        if (logits) logits += (size_t)wrote * (size_t)part[0].s->e->model.vocab;
    }
    return GIST_OK;
}

/* ---- gist.h ---- */

gist_status session_reserve(gist_session *s, int more, gist_error *err) {
    if (session_has_encoder(s) && !s->source) return GIST_OK; /* a source is encoded as a whole */
    TRY(session_room(s, more, err));
    return workspace_grow(&s->work, s->e, more < CHUNK ? more : CHUNK, most_visible(s), 1, err);
}

static gist_status feed(gist_session *s, const int32_t *ids, size_t n, float *logits, bool all, gist_error *err) {
    if (n == 0) return err_set(err, GIST_ERR_USAGE, "no tokens to feed");
    if (n > (size_t)s->context)
        return err_set(err, GIST_ERR_LIMIT, "%zu tokens do not fit a context of %d", n, s->context);
    if (session_has_encoder(s) && !s->source) {
        if (!logits) return source_add(s, ids, n, err);
        return err_set(err, GIST_ERR_USAGE, "logits come from the decoder: encode the source first");
    }
    feed_part part = { s, ids, (int)n, 0 };
    return feed_parts(&s->work, &part, 1, logits, all, err);
}

gist_status gist_session_feed(gist_session *s, const int32_t *ids, size_t n, float *logits, gist_error *err) {
    return feed(s, ids, n, logits, false, err);
}

gist_status gist_session_feed_all(gist_session *s, const int32_t *ids, size_t n, float *logits, gist_error *err) {
    return feed(s, ids, n, logits, true, err);
}

/* Sessions of one engine, each of them once. */
gist_status sessions_check(gist_session *const *sessions, size_t n, gist_error *err) {
    gist_status status = n ? GIST_OK : err_set(err, GIST_ERR_USAGE, "no sessions to feed");
    size_t seen = 0;
    for (; status == GIST_OK && seen < n; seen++) {
        gist_session *s = sessions[seen];
        if (s->e != sessions[0]->e)
            status = err_set(err, GIST_ERR_USAGE, "session %zu belongs to another engine than the first", seen);
        else if (s->listed)
            status = err_set(err, GIST_ERR_USAGE, "session %zu is in the batch twice", seen);
        if (status != GIST_OK) break;
        s->listed = true;
    }
    while (seen > 0) sessions[--seen]->listed = false;
    return status;
}

static gist_status make_parts(feed_part *part, gist_session *const *sessions, size_t n, const int32_t *ids,
                              const size_t *counts, gist_error *err) {
    for (size_t i = 0; i < n; i++) {
        const gist_session *s = sessions[i];
        if (counts[i] == 0) return err_set(err, GIST_ERR_USAGE, "session %zu: no tokens to feed", i);
        int room = s->context - s->length, left = s->e->model.cfg.context - s->position;
        if (counts[i] > (size_t)(room < left ? room : left))
            return err_set(err, GIST_ERR_LIMIT, "session %zu: %zu tokens behind %d do not fit a context of %d", i,
                           counts[i], s->length, s->length + (room < left ? room : left));
        part[i] = (feed_part){ sessions[i], ids, (int)counts[i], 0 };
        ids += counts[i];
    }
    return GIST_OK;
}

gist_status gist_session_feed_batch(gist_session *const *sessions, size_t n, const int32_t *ids, const size_t *counts,
                                    float *logits, gist_error *err) {
    TRY(sessions_check(sessions, n, err));
    const gist_allocator *alloc = sessions[0]->alloc;
    feed_part *part = mem_alloc(alloc, n, sizeof *part);
    if (!part) return err_memory(err, "batch");
    gist_status status = make_parts(part, sessions, n, ids, counts, err);
    if (status == GIST_OK) status = feed_parts(&sessions[0]->work, part, n, logits, false, err);
    mem_free(alloc, part);
    return status;
}
