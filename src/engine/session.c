/* session.c - one timeline of tokens with its KV cache.
 *
 *   stores   own tokens [0,length) in store STORE_OWN of every layer, an attached gist's k rows in STORE_GIST
 *   row i    sees   gist rows [0,k)   then   own tokens [first_visible, i]
 *
 * Feeding runs the model over at most CHUNK rows at a time; a row's result does not depend on the cut.  Stores grow by
 * doubling (rows are copied bit for bit); session_reserve makes the room beforehand.
 */
#include "engine/engine_int.h"

/* ---- stores ---- */

size_t store_bytes(const gist_engine *e, dtype type, int cap) {
    const llama_config *c = &e->model.cfg;
    return dt_bytes(type, (size_t)c->G * (size_t)c->D * (size_t)cap);
}

gist_status stores_create(const gist_engine *e, dtype type, int cap, op_kv *stores, int stride, void **block,
                          gist_error *err) {
    size_t one = store_bytes(e, type, cap), L = (size_t)e->model.cfg.L;
    uint8_t *p = mem_alloc(e->alloc, 2 * L, one);
    if (!p)
        return err_set(err, GIST_ERR_MEMORY, "out of memory: KV cache of %d tokens (%zu MiB)", cap,
                       (2 * L * one) >> 20);
    for (size_t l = 0; l < L; l++)
        stores[l * (size_t)stride] = (op_kv){ type, cap, p + 2 * l * one, p + (2 * l + 1) * one };
    *block = p;
    return GIST_OK;
}

static gist_status grow_stores(gist_session *s, int need, gist_error *err) {
    const llama_config *c = &s->e->model.cfg;
    size_t row = (size_t)c->G * (size_t)c->D * sizeof(float);
    int cap = s->cap ? s->cap : 64, limit = op_kv_round(s->context);
    while (cap < need) cap = cap > limit / 2 ? limit : cap * 2;
    op_kv *fresh = mem_calloc(s->alloc, (size_t)c->L * STORES, sizeof *fresh);
    uint8_t *kv = mem_alloc(s->alloc, 2, row);
    void *block = NULL;
    gist_status status = fresh && kv ? stores_create(s->e, s->kv, cap, fresh + STORE_OWN, STORES, &block, err)
                                     : err_memory(err, "KV cache");
    for (int l = 0; status == GIST_OK && l < c->L; l++) {
        const op_kv *old = s->stores ? &s->stores[l * STORES] : NULL;
        if (old) fresh[l * STORES + STORE_GIST] = old[STORE_GIST];
        for (int i = 0; old && i < s->length; i++) {
            op_kv_get(&old[STORE_OWN], i, kv, kv + row, c->G, c->D);
            op_kv_set(&fresh[l * STORES + STORE_OWN], i, kv, kv + row, c->G, c->D);
        }
    }
    mem_free(s->alloc, kv);
    if (status != GIST_OK) {
        mem_free(s->alloc, fresh);
        return status;
    }
    mem_free(s->alloc, s->stores);
    mem_free(s->alloc, s->kv_block);
    s->stores = fresh;
    s->kv_block = block;
    s->cap = cap;
    return GIST_OK;
}

/* ---- activations ---- */

static void take_acts(gist_session *s, arena *ar, int rows, int visible) {
    llama_acts_take(&s->acts, ar, &s->e->model.cfg, &s->e->ctx, rows, visible);
    s->rows = arena_take(ar, (size_t)rows, sizeof *s->rows);
    s->pos = arena_take(ar, (size_t)rows, sizeof *s->pos);
    s->gist_row = arena_take(ar, (size_t)rows, sizeof *s->gist_row);
    const llama_adapter *ad = s->e->model.adapter;
    if (ad && ad->cfg.rank) llama_lora_take(&s->acts.lora, ar, &s->e->model.cfg, &ad->cfg, rows);
}

static gist_status grow_acts(gist_session *s, int rows, int visible, gist_error *err) {
    if (rows <= s->act_rows && visible <= s->act_visible) return GIST_OK;
    if (rows < s->act_rows) rows = s->act_rows;
    if (visible < s->act_visible) visible = s->act_visible;
    arena dry, ar;
    gist_session probe = *s;
    arena_init(&dry, NULL, 0);
    take_acts(&probe, &dry, rows, visible);
    void *block = mem_alloc(s->alloc, dry.peak, 1);
    if (!block) return err_set(err, GIST_ERR_MEMORY, "out of memory: activations (%zu MiB)", dry.peak >> 20);
    mem_free(s->alloc, s->act_block);
    arena_init(&ar, block, dry.peak);
    take_acts(s, &ar, rows, visible);
    s->act_block = block;
    s->act_bytes = dry.peak;
    s->act_rows = rows;
    s->act_visible = visible;
    return GIST_OK;
}

/* ---- life ---- */

gist_status gist_session_open(gist_engine *e, const gist_session_options *opt, gist_session **out, gist_error *err) {
    gist_session_options o = GIST_SESSION_OPTIONS_INIT;
    if (opt) memcpy(&o, opt, opt->size < sizeof o ? opt->size : sizeof o);
    int longest = e->model.cfg.context;
    if ((unsigned)o.kv > GIST_TYPE_F16) return err_set(err, GIST_ERR_USAGE, "KV type %d is unknown", (int)o.kv);
    if (o.context < 0 || o.context > longest)
        return err_set(err, o.context < 0 ? GIST_ERR_USAGE : GIST_ERR_LIMIT,
                       "a context of %d tokens is not between 1 and the model's %d", o.context, longest);
    gist_session *s = mem_calloc(e->alloc, 1, sizeof *s);
    if (!s) return err_memory(err, "session");
    s->e = e;
    s->alloc = e->alloc;
    s->context = o.context ? o.context : longest;
    s->asked = o.kv;
    s->kv = type_or(o.kv, DT_BF16);
    s->logits = mem_alloc(s->alloc, (size_t)e->model.vocab, sizeof *s->logits);
    if (!s->logits) {
        gist_session_close(s);
        return err_memory(err, "logits");
    }
    *out = s;
    return GIST_OK;
}

void gist_session_close(gist_session *s) {
    if (!s) return;
    mem_free(s->alloc, s->logits);
    mem_free(s->alloc, s->act_block);
    mem_free(s->alloc, s->kv_block);
    mem_free(s->alloc, s->stores);
    mem_free(s->alloc, s);
}

/* Stores of another type are of no use; they are made again at the next reserve. */
static void set_kv_type(gist_session *s, dtype type) {
    if (s->kv == type) return;
    mem_free(s->alloc, s->kv_block);
    mem_free(s->alloc, s->stores);
    s->kv_block = NULL;
    s->stores = NULL;
    s->cap = 0;
    s->kv = type;
}

void gist_session_reset(gist_session *s) {
    s->length = s->position = s->first_visible = 0;
    s->attached = NULL;
    set_kv_type(s, type_or(s->asked, DT_BF16));
}

int gist_session_length(const gist_session *s) {
    return s->length;
}

int gist_session_position(const gist_session *s) {
    return s->position;
}

gist_status gist_session_set_position(gist_session *s, int position, gist_error *err) {
    if (s->length > 0) return err_set(err, GIST_ERR_USAGE, "the position can only be set before the first token");
    if (position < 0 || position >= s->e->model.cfg.context)
        return err_set(err, GIST_ERR_LIMIT, "position %d is not below the model's context of %d", position,
                       s->e->model.cfg.context);
    s->position = position;
    return GIST_OK;
}

gist_status gist_session_attach(gist_session *s, const gist *g, gist_error *err) {
    if (!g->e) return err_set(err, GIST_ERR_USAGE, "this gist was only inspected; load it with an engine to attach it");
    if (g->e != s->e) return err_set(err, GIST_ERR_MISMATCH, "this gist was loaded for another engine");
    if (s->length > 0 || s->attached)
        return err_set(err, GIST_ERR_USAGE, "a gist can only be attached to an empty session");
    if (s->asked != GIST_TYPE_AUTO && s->kv != g->head.type)
        return err_set(err, GIST_ERR_MISMATCH,
                       "the gist's rows are %s, the session was asked for %s: leave the KV type open or compress again",
                       dt_name(g->head.type), dt_name(s->kv));
    int next = g->head.first_position + g->head.k;
    if (next >= s->e->model.cfg.context)
        return err_set(err, GIST_ERR_LIMIT, "the gist ends at position %d, the model's context is %d", next,
                       s->e->model.cfg.context);
    set_kv_type(s, g->head.type);
    s->attached = g;
    s->position = next;
    return GIST_OK;
}

void session_hide_before(gist_session *s, int first) {
    s->first_visible = first;
}

void session_rewind(gist_session *s, int length) {
    if (length >= s->length) return;
    s->position -= s->length - length;
    s->length = length;
    if (s->first_visible > length) s->first_visible = length;
}

void session_get_row(const gist_session *s, int l, int slot, void *k, void *v) {
    const llama_config *c = &s->e->model.cfg;
    op_kv_get(&s->stores[l * STORES + STORE_OWN], slot, k, v, c->G, c->D);
}

/* ---- feeding ---- */

gist_status session_reserve(gist_session *s, int more, gist_error *err) {
    if (more > s->context - s->length)
        return err_set(err, GIST_ERR_LIMIT, "%d tokens behind %d do not fit a context of %d", more, s->length,
                       s->context);
    if (more > s->e->model.cfg.context - s->position)
        return err_set(err, GIST_ERR_LIMIT, "%d tokens from position %d do not fit the model's context of %d", more,
                       s->position, s->e->model.cfg.context);
    if (s->length + more > s->cap) TRY(grow_stores(s, s->length + more, err));
    int memory = s->attached ? s->attached->head.k : 0;
    return grow_acts(s, more < CHUNK ? more : CHUNK, memory + s->cap, err);
}

/* One forward pass over ids[0..n), n <= CHUNK; room was made. */
static void run_rows(gist_session *s, const int32_t *ids, int n) {
    const llama_model *m = &s->e->model;
    const gist *g = s->attached;
    for (int l = 0; g && l < m->cfg.L; l++) s->stores[l * STORES + STORE_GIST] = g->stores[l];
    int gists = 0;
    for (int i = 0; i < n; i++) {
        if (ids[i] == s->e->gist_token) s->gist_row[gists++] = i;
        int slot = s->length + i, lo = s->first_visible < slot ? s->first_visible : slot;
        s->pos[i] = s->position + i;
        s->rows[i] = (op_row){ .pos = s->pos[i],
                               .kv = STORE_OWN,
                               .slot = slot,
                               .mem = g ? STORE_GIST : -1,
                               .mlo = 0,
                               .mhi = g ? g->head.k : 0,
                               .lo = lo,
                               .hi = slot + 1 };
    }
    llama_batch b = { n, ids, s->pos, s->rows, s->stores, STORES, s->gist_row, gists };
    op_ctx ctx = s->e->ctx;
    llama_forward(m, &ctx, &s->acts, &b);
    s->length += n;
    s->position += n;
}

/* all: logits [n,V] of every row; otherwise [V] of the last, or NULL. */
static gist_status feed(gist_session *s, const int32_t *ids, size_t n, float *logits, bool all, gist_error *err) {
    const llama_model *m = &s->e->model;
    op_ctx ctx = s->e->ctx;
    if (n == 0) return err_set(err, GIST_ERR_USAGE, "no tokens to feed");
    if (n > (size_t)s->context)
        return err_set(err, GIST_ERR_LIMIT, "%zu tokens do not fit a context of %d", n, s->context);
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= m->vocab)
            return err_set(err, GIST_ERR_USAGE, "token %zu is %d, the vocabulary has %d", i, ids[i], m->vocab);
    TRY(session_reserve(s, (int)n, err));
    for (size_t at = 0; at < n;) {
        int rows = n - at < CHUNK ? (int)(n - at) : CHUNK;
        run_rows(s, ids + at, rows);
        if (logits && all) llama_logits(m, &ctx, &s->acts, 0, rows, logits + at * (size_t)m->vocab);
        at += (size_t)rows;
        if (logits && !all && at == n) llama_logits(m, &ctx, &s->acts, rows - 1, 1, logits);
    }
    return GIST_OK;
}

gist_status gist_session_feed(gist_session *s, const int32_t *ids, size_t n, float *logits, gist_error *err) {
    return feed(s, ids, n, logits, false, err);
}

gist_status gist_session_feed_all(gist_session *s, const int32_t *ids, size_t n, float *logits, gist_error *err) {
    return feed(s, ids, n, logits, true, err);
}

gist_status gist_session_prompt(gist_session *s, const char *prompt, size_t len, gist_error *err) {
    tok_ids v;
    if (s->length > 0 || s->attached) return err_set(err, GIST_ERR_USAGE, "a prompt comes first in a session");
    tok_ids_init(&v, s->alloc);
    gist_status status = tok_template_prompt(s->e->tok, s->e->tp, prompt, len, &v, err);
    if (status == GIST_OK) status = feed(s, v.id, v.n, NULL, false, err);
    tok_ids_free(&v);
    return status;
}
