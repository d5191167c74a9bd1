/* compress.c - prompts into gists, and gists to and from files.
 *
 *   prompt tokens [0,p)   gist tokens [p,p+k)
 *   +-------------------+----------+
 *   | t t t t t t t t t | g  g  g  |   one forward pass; the last k rows of every layer's cache are kept
 *   +-------------------+----------+
 *
 * A gist is rows of a KV cache (docs/ARCHITECTURE.md): what is kept is exactly what attention reads later.
 */
#include "engine/engine_int.h"

enum { K_MAX = 1024 };

/* ---- identity: a hash over what a gist was made from ---- */

static gist_status identify(gist *g, const tok_ids *ids, gist_error *err) {
    hasher *h = hash_begin(g->alloc);
    if (!h) return err_memory(err, "identity");
    gfile *f = &g->head;
    hash_str(h, "gist-identity-1");
    hash_str(h, f->model);
    hash_str(h, f->tokenizer);
    hash_str(h, f->template_name);
    hash_str(h, f->condition);
    hash_str(h, f->adapter);
    hash_str(h, dt_name(f->type));
    hash_str(h, f->kernels);
    hash_u64(h, (uint64_t)f->k);
    hash_u64(h, (uint64_t)f->first_position);
    hash_u64(h, f->rebased);
    hash_u64(h, ids->n);
    for (size_t i = 0; i < ids->n; i++) hash_u64(h, (uint64_t)ids->id[i]);
    hash_hex(hash_end(h), f->id);
    return GIST_OK;
}

/* ---- compressing ---- */

gist *gist_new(const gist_allocator *alloc, const gist_engine *e) {
    gist *g = mem_calloc(alloc, 1, sizeof *g);
    if (g) {
        g->alloc = alloc;
        g->e = e;
        g->head.alloc = alloc;
    }
    return g;
}

int gist_layers(const gist_engine *e) {
    return e->model.cfg.encoder ? e->model.cfg.encoder : e->model.cfg.L;
}

gist_status gist_make_room(gist *g, gist_error *err) {
    int layers = gist_layers(g->e);
    g->stores = mem_calloc(g->alloc, (size_t)layers, sizeof *g->stores);
    if (!g->stores) return err_memory(err, "gist");
    if (g->head.width) {
        g->output = mem_alloc(g->alloc, (size_t)g->head.k * (size_t)g->head.width, sizeof *g->output);
        if (!g->output) return err_memory(err, "gist");
    }
    return stores_create(g->e, g->head.type, layers, op_kv_round(g->head.k), g->stores, 1, &g->block, err);
}

static void describe(gist *g, int k, int p, dtype type, bool rebase) {
    const gist_engine *e = g->e;
    const llama_config *c = &e->model.cfg;
    gfile *f = &g->head;
    memcpy(f->model, e->fingerprint, sizeof f->model);
    memcpy(f->tokenizer, e->tok_fingerprint, sizeof f->tokenizer);
    memcpy(f->adapter, e->adapter.hash, sizeof f->adapter);
    snprintf(f->family, sizeof f->family, "%s", llama_families[c->family].name);
    snprintf(f->template_name, sizeof f->template_name, "%s", tok_template_name(e->tp));
    snprintf(f->condition, sizeof f->condition, "gist");
    snprintf(f->kernels, sizeof f->kernels, "%s", gist_kernels_name(op_level(&e->ctx)));
    f->type = type;
    f->k = k;
    f->layers = gist_layers(e);
    f->width = c->encoder ? c->C : 0;
    f->kv_heads = c->G;
    f->head_dim = c->D;
    f->prompt_tokens = p;
    f->first_position = rebase ? 0 : p;
    f->rebased = rebase;
}

void gist_turn_key(const gist *g, void *key, int shift, float *scratch) {
    size_t n = (size_t)g->head.kv_heads * (size_t)g->head.head_dim;
    dt_to_f32(scratch, key, g->head.type, n);
    llama_rotate_key(&g->e->model, scratch, shift);
    dt_from_f32(key, g->head.type, scratch, n);
}

/* Rows [p,p+k) of the session become the gist's; rebased: keys turned back by p positions and rounded again. */
static gist_status keep_rows(gist *g, const gist_session *s, int p, bool rebase, gist_error *err) {
    const llama_config *c = &g->e->model.cfg;
    size_t n = (size_t)c->G * (size_t)c->D;
    float *buf = mem_alloc(g->alloc, 3 * n, sizeof *buf);
    if (!buf) return err_memory(err, "gist rows");
    void *k = buf, *v = buf + n;
    float *wide = buf + 2 * n;
    for (int l = 0; l < c->L; l++)
        for (int i = 0; i < g->head.k; i++) {
            session_get_row(s, l, p + i, k, v);
            if (rebase) gist_turn_key(g, k, -p, wide);
            op_kv_set(&g->stores[l], i, k, v, c->G, c->D);
        }
    mem_free(g->alloc, buf);
    return GIST_OK;
}

/* ids: the prompt's p tokens; the k gist tokens are appended here. */
static gist_status compress_ids(gist *g, gist_session *s, tok_ids *ids, const gist_compress_options *o,
                                gist_error *err) {
    int p = (int)ids->n;
    for (int i = 0; i < o->k; i++) TRY(tok_ids_push(ids, g->e->gist_token, err));
    if (ids->n > (size_t)g->e->model.cfg.context)
        return err_set(err, GIST_ERR_LIMIT,
                       "the prompt's %d tokens and %d gist tokens do not fit the model's context of %d", p, o->k,
                       g->e->model.cfg.context);
    TRY(gist_session_feed(s, ids->id, ids->n, NULL, err));
    describe(g, o->k, p, s->kv, o->rebase);
    TRY(gist_make_room(g, err));
    TRY(g->head.width ? source_compress(s, g, p, err) : keep_rows(g, s, p, o->rebase, err));
    return identify(g, ids, err);
}

/* ids: the prompt's; the gist tokens are appended. */
static gist_status compress(gist_engine *e, tok_ids *ids, const gist_compress_options *o, gist **out, gist_error *err) {
    gist_session_options so = GIST_SESSION_OPTIONS_INIT;
    gist_session *s = NULL;
    so.kv = o->kv;
    if (ids->n > LLAMA_MAX_CONTEXT)
        return err_set(err, GIST_ERR_LIMIT, "the prompt's %zu tokens do not fit the model's context of %d", ids->n,
                       e->model.cfg.context);
    gist *g = gist_new(e->alloc, e);
    gist_status status = g ? gist_session_open(e, &so, &s, err) : err_memory(err, "gist");
    if (status == GIST_OK) status = compress_ids(g, s, ids, o, err);
    gist_session_close(s);
    if (status == GIST_OK)
        *out = g;
    else
        gist_free(g);
    return status;
}

static gist_status read_options(gist_compress_options *o, const gist_compress_options *opt, gist_error *err) {
    *o = (gist_compress_options)GIST_COMPRESS_OPTIONS_INIT;
    if (opt) memcpy(o, opt, opt->size < sizeof *o ? opt->size : sizeof *o);
    if (o->k >= 1 && o->k <= K_MAX) return GIST_OK;
    return err_set(err, GIST_ERR_USAGE, "k is %d, not between 1 and %d gist tokens", o->k, K_MAX);
}

gist_status gist_compress(gist_engine *e, const char *prompt, size_t len, const gist_compress_options *opt, gist **out,
                          gist_error *err) {
    gist_compress_options o;
    tok_ids ids;
    TRY(read_options(&o, opt, err));
    tok_ids_init(&ids, e->alloc);
    gist_status status = tok_template_law(e->tok, e->tp, prompt, len, o.k, NULL, 0, err);
    if (status == GIST_OK) status = tok_template_prompt(e->tok, e->tp, prompt, len, &ids, err);
    if (status == GIST_OK) status = compress(e, &ids, &o, out, err);
    tok_ids_free(&ids);
    return status;
}

gist_status gist_compress_ids(gist_engine *e, const int32_t *prompt, size_t n, const gist_compress_options *opt,
                              gist **out, gist_error *err) {
    gist_compress_options o;
    tok_ids ids;
    TRY(read_options(&o, opt, err));
    tok_ids_init(&ids, e->alloc);
    gist_status status = GIST_OK;
    for (size_t i = 0; status == GIST_OK && i < n; i++) status = tok_ids_push(&ids, prompt[i], err);
    if (status == GIST_OK) status = compress(e, &ids, &o, out, err);
    tok_ids_free(&ids);
    return status;
}

/* ---- rows from outside, for one prompt ---- */

gist_status gist_get_rows(const gist *g, int l, float *keys, float *values, gist_error *err) {
    const gfile *f = &g->head;
    size_t n = (size_t)f->kv_heads * (size_t)f->head_dim;
    float *row = mem_alloc(g->alloc, 2 * n, sizeof *row);
    if (!row) return err_memory(err, "gist rows");
    for (int i = 0; i < f->k; i++) {
        op_kv_get(&g->stores[l], i, row, row + n, f->kv_heads, f->head_dim);
        dt_to_f32(keys + (size_t)i * n, row, f->type, n);
        dt_to_f32(values + (size_t)i * n, row + n, f->type, n);
    }
    mem_free(g->alloc, row);
    return GIST_OK;
}

/* As stored, in the order of layers and rows. */
static gist_status set_rows(gist *g, const float *const *keys, const float *const *values, hasher *h, gist_error *err) {
    const gfile *f = &g->head;
    size_t n = (size_t)f->kv_heads * (size_t)f->head_dim;
    float *row = mem_alloc(g->alloc, 2 * n, sizeof *row);
    if (!row) return err_memory(err, "gist rows");
    for (int l = 0; l < f->layers; l++)
        for (int i = 0; i < f->k; i++) {
            dt_from_f32(row, f->type, keys[l] + (size_t)i * n, n);
            dt_from_f32(row + n, f->type, values[l] + (size_t)i * n, n);
            hash_add(h, row, dt_bytes(f->type, n));
            hash_add(h, row + n, dt_bytes(f->type, n));
            op_kv_set(&g->stores[l], i, row, row + n, f->kv_heads, f->head_dim);
        }
    mem_free(g->alloc, row);
    return GIST_OK;
}

const float *gist_get_output(const gist *g) {
    return g->head.width ? g->output : NULL;
}

/* The encoder's output at the rows, and what the decoder makes of it. */
static gist_status set_output(gist *g, const float *output, hasher *h, gist_error *err) {
    size_t n = (size_t)g->head.k * (size_t)g->head.width;
    if (n == 0) return GIST_OK;
    memcpy(g->output, output, n * sizeof *output);
    hash_add(h, output, n * sizeof *output);
    return gist_make_cross(g, err);
}

gist_status gist_from_rows(const gist *like, const float *const *keys, const float *const *values, const float *output,
                           gist **out, gist_error *err) {
    if (!like->e) return err_set(err, GIST_ERR_USAGE, "this gist was only inspected; load it with an engine");
    gist *g = gist_new(like->alloc, like->e);
    hasher *h = hash_begin(like->alloc);
    gist_status status = g && h ? GIST_OK : err_memory(err, "gist");
    if (status == GIST_OK) {
        g->head = like->head; /* a gist of an engine holds no file */
        g->head.tuned = true;
        hash_str(h, "gist-tuned-1");
        hash_str(h, like->head.id);
        status = gist_make_room(g, err);
    }
    if (status == GIST_OK) status = set_rows(g, keys, values, h, err);
    if (status == GIST_OK) status = set_output(g, output, h, err);
    if (status == GIST_OK) {
        hash_hex(hash_end(h), g->head.id);
        *out = g;
        return GIST_OK;
    }
    if (h) hash_abort(h);
    gist_free(g);
    return status;
}

void gist_free(gist *g) {
    if (!g) return;
    gfile_close(&g->head);
    mem_free(g->alloc, g->stores);
    mem_free(g->alloc, g->block);
    mem_free(g->alloc, g->output);
    mem_free(g->alloc, g->cross);
    mem_free(g->alloc, g->cross_block);
    mem_free(g->alloc, g);
}

void gist_get_info(const gist *g, gist_info *out) {
    const gfile *f = &g->head;
    *out = (gist_info){ .id = f->id,
                        .model_fingerprint = f->model,
                        .tokenizer_fingerprint = f->tokenizer,
                        .family = f->family,
                        .template_name = f->template_name,
                        .condition = f->condition,
                        .kernels = f->kernels,
                        .kv = dt_public(f->type),
                        .k = f->k,
                        .first_position = f->first_position,
                        .prompt_tokens = f->prompt_tokens,
                        .layers = f->layers,
                        .kv_heads = f->kv_heads,
                        .head_dim = f->head_dim,
                        .rebased = f->rebased,
                        .adapter = f->adapter,
                        .tuned = f->tuned };
    out->output_width = f->width;
    out->bytes = 2 * (uint64_t)f->layers * dt_bytes(f->type, (size_t)f->k * (size_t)f->kv_heads * (size_t)f->head_dim);
}

/* ---- files ---- */

gist_status gist_save(const gist *g, const char *path, gist_error *err) {
    if (!g->e) return err_set(err, GIST_ERR_USAGE, "this gist was only inspected; load it with an engine to save it");
    if (!g->head.model[0])
        return err_set(err, GIST_ERR_USAGE, "this gist is of a model in training: what computed it will be gone");
    const gfile *f = &g->head;
    size_t L = (size_t)f->layers, row = dt_bytes(f->type, (size_t)f->kv_heads * (size_t)f->head_dim);
    size_t layer = row * (size_t)f->k;
    uint8_t *bytes = mem_alloc(g->alloc, 2 * L, layer);
    const void **at = mem_alloc(g->alloc, 2 * L, sizeof *at);
    gist_status status = bytes && at ? GIST_OK : err_memory(err, "gist rows");
    for (size_t l = 0; status == GIST_OK && l < L; l++) {
        uint8_t *k = bytes + 2 * l * layer, *v = k + layer;
        for (int i = 0; i < f->k; i++)
            op_kv_get(&g->stores[l], i, k + (size_t)i * row, v + (size_t)i * row, f->kv_heads, f->head_dim);
        at[l] = k;
        at[L + l] = v;
    }
    if (status == GIST_OK) status = gfile_save(f, path, at, at + L, g->output, err);
    mem_free(g->alloc, at);
    mem_free(g->alloc, bytes);
    return status;
}

static gist_status check_shapes(const gist_engine *e, const gfile *f, const char *path, gist_error *err) {
    const llama_config *c = &e->model.cfg;
    const char *family = llama_families[c->family].name;
    if (strcmp(f->family, family) != 0)
        return err_set(err, GIST_ERR_MISMATCH, "%s: made by a %s model, this one is %s", path, f->family, family);
    if (f->layers != gist_layers(e) || f->kv_heads != c->G || f->head_dim != c->D)
        return err_set(err, GIST_ERR_MISMATCH, "%s: rows of %d layers x %d heads x %d, this model has %d x %d x %d",
                       path, f->layers, f->kv_heads, f->head_dim, gist_layers(e), c->G, c->D);
    if (f->width != (c->encoder ? c->C : 0))
        return err_set(err, GIST_ERR_MISMATCH, "%s: an encoder's output of width %d, this model's is %d wide", path,
                       f->width, c->encoder ? c->C : 0);
    if (f->first_position > c->context - f->k)
        return err_set(err, GIST_ERR_LIMIT, "%s: ends at position %d, the model's context is %d", path,
                       f->first_position + f->k, c->context);
    return GIST_OK;
}

/* force: rows of another model with the same tokenizer may still mean something to this one; nothing else may. */
static gist_status check_origin(const gist_engine *e, const gfile *f, const char *path, bool force, gist_error *err) {
    if (strcmp(f->tokenizer, e->tok_fingerprint) != 0)
        return err_set(err, GIST_ERR_MISMATCH, "%s: made with another tokenizer (%s, this one is %s)", path,
                       f->tokenizer, e->tok_fingerprint);
    if (force) return GIST_OK;
    if (strcmp(f->model, e->fingerprint) != 0)
        return err_set(err, GIST_ERR_MISMATCH,
                       "%s: made by another model (%s, this one is %s): compress the prompt again with this model",
                       path, f->model, e->fingerprint);
    if (strcmp(f->adapter, e->adapter.hash) != 0)
        return err_set(err, GIST_ERR_MISMATCH, "%s: made with %s%s, this engine has %s%s", path,
                       f->adapter[0] ? "adapter " : "no adapter", f->adapter, e->adapter.hash[0] ? "adapter " : "none",
                       e->adapter.hash);
    return GIST_OK;
}

static gist_status load_rows(gist *g, gist_error *err) {
    const gfile *f = &g->head;
    size_t row = dt_bytes(f->type, (size_t)f->kv_heads * (size_t)f->head_dim);
    TRY(gist_make_room(g, err));
    uint8_t *keys = mem_alloc(g->alloc, 2 * (size_t)f->k, row);
    if (!keys) return err_memory(err, "gist rows");
    uint8_t *values = keys + (size_t)f->k * row;
    for (int l = 0; l < f->layers; l++) {
        gfile_rows(f, l, keys, values);
        for (size_t i = 0; i < (size_t)f->k; i++)
            op_kv_set(&g->stores[l], (int)i, keys + i * row, values + i * row, f->kv_heads, f->head_dim);
    }
    mem_free(g->alloc, keys);
    if (!f->width) return GIST_OK;
    gfile_output(f, g->output);
    return gist_make_cross(g, err);
}

static gist_status load(gist_engine *e, const char *path, unsigned flags, gist **out, gist_error *err) {
    const gist_allocator *alloc = e ? e->alloc : mem_default();
    gist *g = gist_new(alloc, e);
    if (!g) return err_memory(err, "gist");
    gist_status status = gfile_open(&g->head, alloc, path, err);
    if (status == GIST_OK && e) {
        status = check_shapes(e, &g->head, path, err);
        if (status == GIST_OK) status = check_origin(e, &g->head, path, flags & GIST_LOAD_FORCE, err);
        if (status == GIST_OK) status = load_rows(g, err);
    }
    if (status == GIST_OK) {
        st_close(&g->head.st);
        *out = g;
    } else {
        gist_free(g);
    }
    return status;
}

gist_status gist_load(gist_engine *e, const char *path, unsigned flags, gist **out, gist_error *err) {
    return load(e, path, flags, out, err);
}

gist_status gist_inspect(const char *path, gist **out, gist_error *err) {
    return load(NULL, path, 0, out, err);
}
