/* fork.c - another session that goes on from where this one is, without copying what both have behind them.
 *
 *   before    | gist |  a b c d e                     session
 *   after     | gist    a b c d e |  x y              session        one read-only front, counted;
 *                                 |  z                fork           each writes to stores of its own
 *
 * Attention sees two intervals of keys, and a result does not depend on where the boundary between them lies: so the
 * front is a session's first interval, its own tokens the second.  Without a gist the front is the session's own
 * stores, handed over; with one, a copy of the gist's rows and the session's, made at the first fork from a place and
 * shared by all others from there.
 */
#include "engine/engine_int.h"

static void front_free(front *f, const gist_allocator *alloc) {
    mem_free(alloc, f->stores);
    mem_free(alloc, f->block);
    mem_free(alloc, f);
}

void front_leave(gist_session *s) {
    front *f = s->front;
    s->front = NULL;
    if (f && atomic_fetch_sub(&f->users, 1) == 1) front_free(f, s->alloc);
}

/* Gist rows and visible own tokens, copied. */
static gist_status copy_rows(front *f, const gist_session *s, gist_error *err) {
    const llama_config *c = &s->e->model.cfg;
    size_t row = (size_t)c->G * (size_t)c->D * sizeof(float);
    uint8_t *kv = mem_alloc(s->alloc, 2, row);
    f->stores = mem_calloc(s->alloc, (size_t)c->L, sizeof *f->stores);
    gist_status status = kv && f->stores ? stores_create(s->e, s->kv, c->L, op_kv_round(f->gists + f->base - f->first),
                                                         f->stores, 1, &f->block, err)
                                         : err_memory(err, "fork");
    for (int l = 0; status == GIST_OK && l < c->L; l++) {
        for (int i = 0; i < f->gists; i++) {
            op_kv_get(&s->attached->stores[l], i, kv, kv + row, c->G, c->D);
            op_kv_set(&f->stores[l], i, kv, kv + row, c->G, c->D);
        }
        for (int i = f->first; i < f->base; i++) {
            session_get_row(s, l, i, kv, kv + row);
            op_kv_set(&f->stores[l], f->gists + i - f->first, kv, kv + row, c->G, c->D);
        }
    }
    mem_free(s->alloc, kv);
    return status;
}

/* The session's own tokens go to its front. */
static gist_status make_front(gist_session *s, gist_error *err) {
    int hidden = s->source ? 0 : s->first_visible; /* T5 hides rows of the source */
    int first = s->front && s->front->first > hidden ? s->front->first : hidden;
    front *f = mem_calloc(s->alloc, 1, sizeof *f);
    if (!f) return err_memory(err, "fork");
    atomic_init(&f->users, 1);
    f->gists = s->attached && !s->source ? s->attached->head.k : 0; /* T5's stands before the source */
    f->first = first < s->length ? first : s->length;
    f->base = s->length;
    if (f->gists == 0 && f->first == 0 && !s->front) {
        f->stores = s->stores;
        f->block = s->kv_block;
        s->stores = NULL;
        s->kv_block = NULL;
        s->cap = 0;
    } else {
        gist_status status = copy_rows(f, s, err);
        if (status != GIST_OK) {
            front_free(f, s->alloc);
            return status;
        }
    }
    front_leave(s);
    s->front = f;
    s->base = s->length;
    return GIST_OK;
}

gist_status gist_session_fork(gist_session *s, gist_session **out, gist_error *err) {
    gist_session *child = mem_calloc(s->alloc, 1, sizeof *child);
    if (!child) return err_memory(err, "session");
    gist_status status = s->length > s->base ? make_front(s, err) : GIST_OK;
    if (status != GIST_OK) {
        mem_free(s->alloc, child);
        return status;
    }
    *child = (gist_session){ .e = s->e,
                             .alloc = s->alloc,
                             .context = s->context,
                             .asked = s->asked,
                             .kv = s->kv,
                             .attached = s->attached,
                             .length = s->length,
                             .position = s->position,
                             .gists = s->gists,
                             .first_visible = s->first_visible,
                             .front = s->front,
                             .base = s->base,
                             .cut = s->cut,
                             .prefix = s->prefix,
                             .source = s->source };
    tok_ids_init(&child->source_ids, s->alloc);
    if (s->source) atomic_fetch_add(&s->source->users, 1);
    if (s->front) atomic_fetch_add(&s->front->users, 1);
    for (size_t i = 0; status == GIST_OK && i < s->source_ids.n; i++)
        status = tok_ids_push(&child->source_ids, s->source_ids.id[i], err);
    if (status == GIST_OK)
        *out = child;
    else
        gist_session_close(child);
    return status;
}
