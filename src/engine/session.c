/* session.c - one timeline of tokens with its KV cache.
 *
 *   stores   own tokens, behind the rows of an attached gist or those that it shares with its forks (fork.c)
 *   row i    sees   gist rows [0,k)   then   own tokens [first_visible, i]
 *
 * Stores grow by doubling (rows are copied bit for bit); session_reserve makes the room beforehand.
 */
#include <assert.h>

#include "engine/engine_int.h"

/* ---- stores ---- */

size_t store_bytes(const gist_engine *e, dtype type, int cap) {
    const llama_config *c = &e->model.cfg;
    return dt_bytes(type, (size_t)c->G * (size_t)c->D * (size_t)cap);
}

gist_status stores_create(const gist_engine *e, dtype type, int layers, int cap, op_kv *stores, int stride,
                          void **block, gist_error *err) {
    size_t one = store_bytes(e, type, cap), L = (size_t)layers;
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
    op_kv *fresh = mem_calloc(s->alloc, (size_t)c->L, sizeof *fresh);
    uint8_t *kv = mem_alloc(s->alloc, 2, row);
    void *block = NULL;
    gist_status status =
        fresh && kv ? stores_create(s->e, s->kv, c->L, cap, fresh, 1, &block, err) : err_memory(err, "KV cache");
    for (int l = 0; status == GIST_OK && s->stores && l < c->L; l++)
        for (int i = 0; i < s->length - s->base; i++) {
            op_kv_get(&s->stores[l], i, kv, kv + row, c->G, c->D);
            op_kv_set(&fresh[l], i, kv, kv + row, c->G, c->D);
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

gist_status session_room(gist_session *s, int more, gist_error *err) {
    if (more > s->context - s->length)
        return err_set(err, GIST_ERR_LIMIT, "%d tokens behind %d do not fit a context of %d", more, s->length,
                       s->context);
    if (more > s->e->model.cfg.context - s->position)
        return err_set(err, GIST_ERR_LIMIT, "%d tokens from position %d do not fit the model's context of %d", more,
                       s->position, s->e->model.cfg.context);
    int need = s->length - s->base + more;
    return need > s->cap ? grow_stores(s, need, err) : GIST_OK;
}

/* ---- life ---- */

static gist_status check_kv_type(const gist_engine *e, gist_type kv, gist_error *err) {
    if ((unsigned)kv > GIST_TYPE_Q6_K) return err_set(err, GIST_ERR_USAGE, "KV type %d is unknown", (int)kv);
    if (kv > GIST_TYPE_Q8_0)
        return err_set(err, GIST_ERR_USAGE, "a KV cache is f32, bf16, f16 or q8_0, not %s", gist_type_name(kv));
    if (op_kv_fits(type_or(kv, DT_BF16), e->model.cfg.D)) return GIST_OK;
    return err_set(err, GIST_ERR_UNSUPPORTED,
                   "a KV cache in %s needs heads as wide as a multiple of 32; this model's are %d wide",
                   gist_type_name(kv), e->model.cfg.D);
}

gist_status gist_session_open(gist_engine *e, const gist_session_options *opt, gist_session **out, gist_error *err) {
    gist_session_options o = GIST_SESSION_OPTIONS_INIT;
    if (opt) memcpy(&o, opt, opt->size < sizeof o ? opt->size : sizeof o);
    int longest = e->model.cfg.context;
    TRY(check_kv_type(e, o.kv, err));
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
    tok_ids_init(&s->source_ids, s->alloc);
    *out = s;
    return GIST_OK;
}

void gist_session_close(gist_session *s) {
    if (!s) return;
    front_leave(s);
    source_leave(s);
    tok_ids_free(&s->source_ids);
    workspace_free(&s->work, s->alloc);
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
    front_leave(s);
    source_leave(s);
    s->source_ids.n = 0;
    s->cut = s->prefix = 0;
    s->length = s->position = s->gists = s->first_visible = s->base = 0;
    s->attached = NULL;
    set_kv_type(s, type_or(s->asked, DT_BF16));
}

int gist_session_length(const gist_session *s) {
    return s->length + (int)s->source_ids.n;
}

int gist_session_position(const gist_session *s) {
    return s->position;
}

gist_status gist_session_set_position(gist_session *s, int position, gist_error *err) {
    if (session_has_encoder(s))
        return err_set(err, GIST_ERR_UNSUPPORTED, "positions of a %s model are relative: there is none to set",
                       llama_families[s->e->model.cfg.family].name);
    if (s->length > 0) return err_set(err, GIST_ERR_USAGE, "the position can only be set before the first token");
    if (position < 0 || position >= s->e->model.cfg.context)
        return err_set(err, GIST_ERR_LIMIT, "position %d is not below the model's context of %d", position,
                       s->e->model.cfg.context);
    int end = s->attached ? s->attached->head.first_position + s->attached->head.k : 0;
    if (s->e->model.cfg.window && position < end) /* what a window shows would be no interval */
        return err_set(err, GIST_ERR_UNSUPPORTED,
                       "position %d lies before the gist's end at %d, and this model has a sliding window", position,
                       end);
    s->position = position;
    return GIST_OK;
}

gist_status gist_session_attach(gist_session *s, const gist *g, gist_error *err) {
    if (!g->e) return err_set(err, GIST_ERR_USAGE, "this gist was only inspected; load it with an engine to attach it");
    if (g->e != s->e) return err_set(err, GIST_ERR_MISMATCH, "this gist was loaded for another engine");
    if (gist_session_length(s) > 0 || s->attached)
        return err_set(err, GIST_ERR_USAGE, "a gist can only be attached to an empty session");
    if (s->asked != GIST_TYPE_AUTO && s->kv != g->head.type)
        return err_set(err, GIST_ERR_MISMATCH,
                       "the gist's rows are %s, the session was asked for %s: leave the KV type open or compress again",
                       dt_name(g->head.type), dt_name(s->kv));
    int next = g->head.first_position + g->head.k;
    if (next >= s->e->model.cfg.context)
        return err_set(err, GIST_ERR_LIMIT, "the gist ends at position %d, the model's context is %d", next,
                       s->e->model.cfg.context);
    front_leave(s);
    set_kv_type(s, g->head.type);
    s->attached = g;
    s->position = session_has_encoder(s) ? 0 : next;
    return GIST_OK;
}

void session_hide_before(gist_session *s, int first) {
    assert(!s->front || first <= s->front->first || first >= s->base);
    s->first_visible = first;
    s->cut = (int)s->source_ids.n;
}

void session_rewind(gist_session *s, int length) {
    int sources = (int)s->source_ids.n;
    if (sources && length <= sources) {
        source_leave(s);
        s->source_ids.n = (size_t)length;
        if (s->cut > length) s->cut = length;
        if (s->first_visible > length) s->first_visible = length;
        return;
    }
    length -= sources;
    if (length >= s->length) return;
    int dropped = s->length - length;
    s->position -= dropped;
    s->length = length;
    s->gists = s->gists > dropped ? s->gists - dropped : 0;
    if (s->first_visible > length) s->first_visible = length;
    if (s->base > length) s->base = length;
}

void session_get_row(const gist_session *s, int l, int slot, void *k, void *v) {
    const llama_config *c = &s->e->model.cfg;
    const front *f = s->front;
    if (slot < s->base)
        op_kv_get(&f->stores[l], f->gists + slot - f->first, k, v, c->G, c->D);
    else
        op_kv_get(&s->stores[l], slot - s->base, k, v, c->G, c->D);
}

gist_status gist_session_prompt(gist_session *s, const char *prompt, size_t len, gist_error *err) {
    tok_ids v;
    if (gist_session_length(s) > 0 || s->attached)
        return err_set(err, GIST_ERR_USAGE, "a prompt comes first in a session");
    tok_ids_init(&v, s->alloc);
    gist_status status = tok_template_prompt(s->e->tok, s->e->tp, prompt, len, &v, err);
    if (status == GIST_OK) status = gist_session_feed(s, v.id, v.n, NULL, err);
    tok_ids_free(&v);
    return status;
}
