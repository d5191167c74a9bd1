/* encode.c - T5's sources: tokens gathered, encoded as a whole, and turned into what the decoder sees of them.
 *
 *   source   [ prompt [0,p) | gist tokens | rest ]         or, with a gist attached, the rest alone behind its rows
 *   row      before `cut`  sees [0,cut)                    prompt and gist tokens: never what follows them
 *            from there on sees [first_visible, n)         gist: p, neg_control: p + k, pos_control and plain: 0, cut 0
 *   decoder  sees rows [first_visible, n) of the output, as keys and values made once
 *
 * Rows of several sessions share a pass, as in feed.c; a source is never cut in two, since its rows see one another.
 * The encoder's own keys and values are needed for the pass alone; compressing keeps k rows of them.
 */
#include "engine/engine_int.h"

bool session_has_encoder(const gist_session *s) {
    return s->e->model.cfg.encoder > 0;
}

gist_status source_add(gist_session *s, const int32_t *ids, size_t n, gist_error *err) {
    int before = s->attached ? s->attached->head.k : 0, context = s->e->model.cfg.context;
    size_t had = s->source_ids.n;
    if (n > (size_t)context || had + n > (size_t)(context - before))
        return err_set(err, GIST_ERR_LIMIT, "a source of %zu tokens%s does not fit the model's context of %d", had + n,
                       before ? " behind a gist" : "", context);
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= s->e->model.vocab)
            return err_set(err, GIST_ERR_USAGE, "token %zu is %d, the vocabulary has %d", i, ids[i], s->e->model.vocab);
    gist_status status = GIST_OK;
    for (size_t i = 0; status == GIST_OK && i < n; i++) status = tok_ids_push(&s->source_ids, ids[i], err);
    if (status != GIST_OK) s->source_ids.n = had;
    return status;
}

static void source_free(source_kv *src, const gist_allocator *alloc) {
    if (!src) return;
    mem_free(alloc, src->stores);
    mem_free(alloc, src->block);
    mem_free(alloc, src);
}

void source_leave(gist_session *s) {
    source_kv *src = s->source;
    if (!src) return;
    s->source = NULL;
    front_leave(s);
    s->length = s->position = s->gists = s->base = 0;
    if (atomic_fetch_sub(&src->users, 1) == 1) source_free(src, s->alloc);
}

/* ---- one pass ---- */

/* The encoder's keys and values of one pass: a block per session. */
typedef struct pass {
    gist_session *const *s;
    int count, rows;
    void **block; /* [count] */
} pass;

static int source_rows(const gist_session *s) {
    return (int)s->source_ids.n;
}

/* Row j of a source. */
static op_row see_rows(const gist_session *s, int part, int j) {
    int k = s->attached ? s->attached->head.k : 0;
    op_row r = { .pos = k + j, .kv = 2 * part, .slot = j, .mem = k ? 2 * part + 1 : -1, .mhi = k };
    r.lo = j < s->cut ? 0 : s->first_visible;
    r.hi = j < s->cut ? s->cut : source_rows(s);
    r.at = k ? 0 : r.lo;
    return r;
}

static void add_rows(workspace *w, const gist_session *s, int part, int at) {
    for (int j = 0; j < source_rows(s); j++) {
        w->ids[at + j] = s->source_ids.id[j];
        w->row[at + j] = see_rows(s, part, j);
        w->pos[at + j] = w->row[at + j].pos;
    }
}

static void pass_free(pass *p, const gist_allocator *alloc) {
    for (int i = 0; p->block && i < p->count; i++) mem_free(alloc, p->block[i]);
    mem_free(alloc, p->block);
    p->block = NULL;
}

/* Encodes the sources of a pass: the output is w->acts.x, rows of one session behind those of another, or rows
 * [first, first+wanted) alone where some are wanted; the encoder's stores are w->stores [encoder][2 count]. */
static gist_status run_pass(workspace *w, pass *p, int first, int wanted, gist_error *err) {
    const gist_engine *e = p->s[0]->e;
    int visible = 0, stores = 2 * p->count, layers = e->model.cfg.encoder;
    for (int i = 0; i < p->count; i++) {
        int k = p->s[i]->attached ? p->s[i]->attached->head.k : 0, n = k + source_rows(p->s[i]);
        visible = n > visible ? n : visible;
    }
    TRY(workspace_grow(w, e, p->rows, visible, p->count, err));
    p->block = mem_calloc(e->alloc, (size_t)p->count, sizeof(void *));
    if (!p->block) return err_memory(err, "sources");
    for (int i = 0, at = 0; i < p->count; at += source_rows(p->s[i++])) {
        const gist_session *s = p->s[i];
        TRY(stores_create(e, s->kv, layers, op_kv_round(source_rows(s)), &w->stores[2 * i], stores, &p->block[i], err));
        for (int l = 0; l < layers; l++)
            w->stores[l * stores + 2 * i + 1] = s->attached ? s->attached->stores[l] : (op_kv){ 0 };
        add_rows(w, s, i, at);
    }
    int gists = 0;
    for (int i = 0; i < p->rows; i++)
        if (w->ids[i] == e->gist_token) w->gist_row[gists++] = i;
    llama_batch b = { .T = p->rows,
                      .ids = w->ids,
                      .pos = w->pos,
                      .rows = w->row,
                      .kv = w->stores,
                      .stores = stores,
                      .gist = w->gist_row,
                      .gists = gists,
                      .wanted = wanted ? w->wanted : NULL,
                      .n_wanted = wanted };
    op_ctx ctx = e->ctx;
    for (int i = 0; i < wanted; i++) w->wanted[i] = first + i;
    t5_encode(&e->model, &ctx, &w->acts, &b);
    return GIST_OK;
}

/* The decoder's stores for one session of a pass. */
static gist_status source_create(const gist_session *s, source_kv **out, gist_error *err) {
    int layers = s->e->model.cfg.L;
    source_kv *src = mem_calloc(s->alloc, 1, sizeof *src);
    if (!src) return err_memory(err, "source");
    atomic_init(&src->users, 1);
    src->lo = s->first_visible;
    src->n = source_rows(s);
    src->stores = mem_calloc(s->alloc, (size_t)layers, sizeof *src->stores);
    gist_status status = src->stores
                             ? stores_create(s->e, s->kv, layers, op_kv_round(src->n), src->stores, 1, &src->block, err)
                             : err_memory(err, "source");
    if (status == GIST_OK)
        *out = src;
    else
        source_free(src, s->alloc);
    return status;
}

/* Sources [n] for the sessions of a pass that has run. */
static gist_status make_sources(workspace *w, const pass *p, source_kv **made, gist_error *err) {
    const gist_engine *e = p->s[0]->e;
    int stores = 2 * p->count;
    for (int i = 0; i < p->count; i++) {
        TRY(source_create(p->s[i], &made[i], err));
        for (int l = 0; l < e->model.cfg.L; l++) w->cross_stores[l * stores + 2 * i] = made[i]->stores[l];
    }
    op_ctx ctx = e->ctx;
    t5_cross_keys(&e->model, &ctx, &w->acts, w->acts.x, w->row, w->cross_stores, stores, p->rows);
    return GIST_OK;
}

/* ---- sessions ---- */

static gist_status encode_all(gist_session *const *s, size_t n, source_kv **made, gist_error *err) {
    gist_status status = GIST_OK;
    for (size_t at = 0; status == GIST_OK && at < n;) {
        pass p = { .s = s + at };
        while (at < n && (p.count == 0 || p.rows + source_rows(s[at]) <= CHUNK)) {
            p.rows += source_rows(s[at++]);
            p.count++;
        }
        status = run_pass(&s[0]->work, &p, 0, 0, err);
        if (status == GIST_OK) status = make_sources(&s[0]->work, &p, made + (at - (size_t)p.count), err);
        pass_free(&p, s[0]->alloc);
    }
    return status;
}

gist_status sources_encode(gist_session *const *s, size_t n, gist_error *err) {
    for (size_t i = 0; i < n; i++) {
        if (s[i]->source) return err_set(err, GIST_ERR_USAGE, "the source is encoded already");
        if (s[i]->source_ids.n == 0) return err_set(err, GIST_ERR_USAGE, "the source is empty");
        if (s[i]->first_visible >= source_rows(s[i]) && !s[i]->attached)
            return err_set(err, GIST_ERR_USAGE, "no row of the source can be seen");
    }
    source_kv **made = mem_calloc(s[0]->alloc, n, sizeof(source_kv *));
    if (!made) return err_memory(err, "sources");
    gist_status status = encode_all(s, n, made, err);
    for (size_t i = 0; i < n; i++) {
        if (status == GIST_OK)
            s[i]->source = made[i];
        else
            source_free(made[i], s[i]->alloc);
    }
    mem_free(s[0]->alloc, made);
    return status;
}

gist_status gist_session_encode(gist_session *s, gist_error *err) {
    if (!session_has_encoder(s))
        return err_set(err, GIST_ERR_USAGE, "a %s model has no encoder", llama_families[s->e->model.cfg.family].name);
    TRY(sources_encode(&s, 1, err));
    s->prefix = source_rows(s);
    return GIST_OK;
}

/* ---- gists ---- */

gist_status source_compress(gist_session *s, gist *g, int p, gist_error *err) {
    const llama_config *c = &s->e->model.cfg;
    size_t n = (size_t)c->G * (size_t)c->D, C = (size_t)c->C;
    pass one = { .s = &s, .count = 1, .rows = source_rows(s) };
    workspace *w = &s->work;
    float *row = mem_alloc(s->alloc, 2 * n, sizeof *row);
    gist_status status = row ? run_pass(w, &one, p, g->head.k, err) : err_memory(err, "gist rows");
    for (int l = 0; status == GIST_OK && l < c->encoder; l++)
        for (int i = 0; i < g->head.k; i++) {
            op_kv_get(&w->stores[2 * l], p + i, row, row + n, c->G, c->D);
            op_kv_set(&g->stores[l], i, row, row + n, c->G, c->D);
        }
    if (status == GIST_OK) {
        memcpy(g->output, w->acts.x, (size_t)g->head.k * C * sizeof *g->output);
        status = gist_make_cross(g, err);
    }
    pass_free(&one, s->alloc);
    mem_free(s->alloc, row);
    return status;
}

gist_status gist_make_cross(gist *g, gist_error *err) {
    const gist_engine *e = g->e;
    int k = g->head.k, layers = e->model.cfg.L;
    workspace w = { 0 };
    g->cross = mem_calloc(g->alloc, (size_t)layers, sizeof *g->cross);
    gist_status status = g->cross ? workspace_grow(&w, e, k, 1, 1, err) : err_memory(err, "gist");
    if (status == GIST_OK)
        status = stores_create(e, g->head.type, layers, op_kv_round(k), g->cross, 1, &g->cross_block, err);
    if (status == GIST_OK) {
        op_ctx ctx = e->ctx;
        for (int i = 0; i < k; i++) w.row[i] = (op_row){ .slot = i, .mem = -1 };
        t5_cross_keys(&e->model, &ctx, &w.acts, g->output, w.row, g->cross, 1, k);
    }
    workspace_free(&w, e->alloc);
    return status;
}
