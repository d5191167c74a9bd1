/* compose.c - several gists as one: their rows one after another, each turned to the position where it now stands.
 *
 *   A  [p, p+k)      B  [q, q+m)         made by themselves, at positions of their own
 *   A B              [0, k) [k, k+m)     keys rotated by -p and k-q; values as they are
 *
 * Rows are computed in ignorance of each other: B's never saw A's prompt.  How well a model uses that is a question for
 * the model, not for this file.  The identity is a hash over the parts', in order.
 */
#include "engine/engine_int.h"

static gist_status same_text(const char *what, const char *a, const char *b, size_t i, gist_error *err) {
    if (strcmp(a, b) == 0) return GIST_OK;
    return err_set(err, GIST_ERR_MISMATCH, "gist %zu has %s \"%s\", the first one \"%s\"", i, what, b, a);
}

/* i counts from 1, as users do. */
static gist_status check_part(const gist_engine *e, const gist *first, const gist *g, size_t i, gist_error *err) {
    const gfile *a = &first->head, *b = &g->head;
    if (b->width)
        return err_set(err, GIST_ERR_UNSUPPORTED, "gists of a %s model cannot be composed: its rows see one another",
                       b->family);
    if (!g->e) return err_set(err, GIST_ERR_USAGE, "gist %zu was only inspected; load it with an engine", i);
    if (g->e != e) return err_set(err, GIST_ERR_MISMATCH, "gist %zu was loaded for another engine", i);
    TRY(same_text("model", a->model, b->model, i, err));
    TRY(same_text("adapter", a->adapter, b->adapter, i, err));
    TRY(same_text("template", a->template_name, b->template_name, i, err));
    TRY(same_text("condition", a->condition, b->condition, i, err));
    return same_text("rows of type", dt_name(a->type), dt_name(b->type), i, err);
}

/* The header of all parts together, and their identity. */
static gist_status describe(gist *g, const gist *const *parts, size_t n, gist_error *err) {
    hasher *h = hash_begin(g->alloc);
    if (!h) return err_memory(err, "identity");
    int64_t k = 0, prompt = 0;
    gfile *f = &g->head;
    *f = parts[0]->head; /* a gist of an engine holds no file */
    hash_str(h, "gist-composed-1");
    hash_u64(h, n);
    for (size_t i = 0; i < n; i++) {
        const gfile *p = &parts[i]->head;
        k += p->k;
        prompt += p->prompt_tokens;
        f->tuned = f->tuned || p->tuned;
        if (strcmp(f->kernels, p->kernels) != 0) snprintf(f->kernels, sizeof f->kernels, "mixed");
        hash_str(h, p->id);
    }
    hash_hex(hash_end(h), f->id);
    if (k > GFILE_MAX_K || k >= g->e->model.cfg.context || prompt > GFILE_MAX_POSITION)
        return err_set(err, GIST_ERR_LIMIT, "%lld gist tokens together, more than %d or the model's context of %d",
                       (long long)k, GFILE_MAX_K, g->e->model.cfg.context);
    f->k = (int)k;
    f->prompt_tokens = (int)prompt;
    f->first_position = 0;
    f->rebased = true;
    return GIST_OK;
}

static gist_status join_rows(gist *g, const gist *const *parts, size_t n, gist_error *err) {
    const llama_config *c = &g->e->model.cfg;
    size_t row = (size_t)c->G * (size_t)c->D;
    float *buf = mem_alloc(g->alloc, 3 * row, sizeof *buf);
    if (!buf) return err_memory(err, "gist rows");
    void *key = buf, *value = buf + row;
    for (int l = 0; l < c->L; l++)
        for (size_t i = 0, at = 0; i < n; i++) {
            int shift = (int)at - parts[i]->head.first_position;
            for (int r = 0; r < parts[i]->head.k; r++, at++) {
                op_kv_get(&parts[i]->stores[l], r, key, value, c->G, c->D);
                if (shift) gist_turn_key(g, key, shift, buf + 2 * row);
                op_kv_set(&g->stores[l], (int)at, key, value, c->G, c->D);
            }
        }
    mem_free(g->alloc, buf);
    return GIST_OK;
}

gist_status gist_compose(gist_engine *e, const gist *const *parts, size_t n, gist **out, gist_error *err) {
    if (n == 0) return err_set(err, GIST_ERR_USAGE, "no gists to compose");
    for (size_t i = 0; i < n; i++) TRY(check_part(e, parts[0], parts[i], i + 1, err));
    gist *g = gist_new(e->alloc, e);
    if (!g) return err_memory(err, "gist");
    gist_status status = describe(g, parts, n, err);
    if (status == GIST_OK) status = gist_make_room(g, err);
    if (status == GIST_OK) status = join_rows(g, parts, n, err);
    if (status == GIST_OK)
        *out = g;
    else
        gist_free(g);
    return status;
}
