/* session_file.c - the KV cache of a session's own tokens in a file, for this program on this machine: what a
 * full-prefix cache costs to keep and to bring back.
 *
 *   0         128                                                           end of file
 *   +---------+-------------+---------------+-------------+----
 *   | header  | layer 0 keys | layer 0 values | layer 1 ...       each as attention reads it (op_kv), for length
 *   +---------+-------------+---------------+-------------+----   rounded up to 16 tokens
 *
 * The stores lie there as in memory, so bringing them back is copying, by all threads, whatever room the session has.
 * Unlike a .gist file it is no format to keep or to carry to another machine, and it has no checksum.
 */
#include "engine/engine_int.h"

enum { HEADER = 128 };

typedef struct cache_header {
    char magic[8], model[40]; /* fingerprint, NUL-terminated */
    uint32_t type, layers, kv_heads, head_dim, length, position;
} cache_header;

static const char magic[8] = "gistkv1";

static size_t head_bytes(const gist_session *s, int cap) {
    return dt_bytes(s->kv, (size_t)s->e->model.cfg.D * (size_t)cap);
}

/* ---- saving ---- */

/* Keys and values of layer l in stores of exactly `cap` tokens, zeros behind the last. */
static void gather(const gist_session *s, int l, const op_kv *to, uint8_t *row) {
    const llama_config *c = &s->e->model.cfg;
    size_t half = (size_t)c->G * (size_t)c->D * sizeof(float), one = store_bytes(s->e, s->kv, to->cap);
    memset(to->k, 0, one);
    memset(to->v, 0, one);
    for (int i = 0; i < s->length; i++) {
        session_get_row(s, l, i, row, row + half);
        op_kv_set(to, i, row, row + half, c->G, c->D);
    }
}

gist_status session_save(const gist_session *s, const char *path, gist_error *err) {
    const llama_config *c = &s->e->model.cfg;
    if (s->length == 0 || s->attached || s->first_visible)
        return err_set(err, GIST_ERR_USAGE, "only a session of its own visible tokens, without a gist, can be kept");
    int cap = op_kv_round(s->length);
    size_t one = store_bytes(s->e, s->kv, cap);
    uint8_t header[HEADER] = { 0 }, *block = mem_alloc(s->alloc, 2, one);
    uint8_t *row = mem_alloc(s->alloc, 2 * (size_t)c->G * (size_t)c->D, sizeof(float));
    cache_header h = { .type = s->kv,
                       .layers = (uint32_t)c->L,
                       .kv_heads = (uint32_t)c->G,
                       .head_dim = (uint32_t)c->D,
                       .length = (uint32_t)s->length,
                       .position = (uint32_t)s->position };
    memcpy(h.magic, magic, sizeof magic);
    memcpy(h.model, s->e->fingerprint, sizeof s->e->fingerprint);
    memcpy(header, &h, sizeof h);
    out_file out;
    gist_status status = block && row ? out_open(&out, s->alloc, path, err) : err_memory(err, path);
    if (status == GIST_OK) {
        op_kv to = { s->kv, cap, block, block + one };
        out_write(&out, header, HEADER);
        for (int l = 0; l < c->L; l++) {
            gather(s, l, &to, row);
            out_write(&out, block, 2 * one);
        }
        status = out_commit(&out, err);
    }
    mem_free(s->alloc, row);
    mem_free(s->alloc, block);
    return status;
}

/* ---- bringing back ---- */

static gist_status check(const gist_session *s, const file_map *map, cache_header *h, const char *path,
                         gist_error *err) {
    const llama_config *c = &s->e->model.cfg;
    if (map->size >= HEADER) memcpy(h, map->data, sizeof *h);
    if (map->size < HEADER || memcmp(h->magic, magic, sizeof magic) != 0)
        return err_set(err, GIST_ERR_FORMAT, "%s: not a kept KV cache", path);
    if (h->length < 1 || h->length > LLAMA_MAX_CONTEXT || h->position < h->length || h->position > LLAMA_MAX_CONTEXT)
        return err_set(err, GIST_ERR_FORMAT, "%s: %u tokens up to position %u are out of bounds", path, h->length,
                       h->position);
    if (h->type != (uint32_t)s->kv || h->layers != (uint32_t)c->L || h->kv_heads != (uint32_t)c->G ||
        h->head_dim != (uint32_t)c->D || strncmp(h->model, s->e->fingerprint, sizeof h->model) != 0)
        return err_set(err, GIST_ERR_MISMATCH, "%s: of another model, or in another KV type than the session's %s",
                       path, dt_name(s->kv));
    size_t want = HEADER + 2 * (size_t)c->L * store_bytes(s->e, s->kv, op_kv_round((int)h->length));
    if (map->size != want) return err_set(err, GIST_ERR_FORMAT, "%s: %zu bytes, expected %zu", path, map->size, want);
    return GIST_OK;
}

typedef struct copying {
    const gist_session *s;
    const uint8_t *from;
    int cap; /* of the stores in the file */
} copying;

/* One head's keys and values of one layer: whole blocks of 16 tokens, side by side in both. */
static void copy_head(void *ctx, int task, int worker) {
    (void)worker;
    const copying *j = ctx;
    const gist_session *s = j->s;
    size_t G = (size_t)s->e->model.cfg.G, l = (size_t)task / G, g = (size_t)task % G;
    size_t bytes = head_bytes(s, j->cap), one = store_bytes(s->e, s->kv, j->cap), to = g * head_bytes(s, s->cap);
    const uint8_t *keys = j->from + 2 * l * one + g * bytes;
    memcpy((uint8_t *)s->stores[l].k + to, keys, bytes);
    memcpy((uint8_t *)s->stores[l].v + to, keys + one, bytes);
}

gist_status session_restore(gist_session *s, const char *path, gist_error *err) {
    const llama_config *c = &s->e->model.cfg;
    file_map map;
    cache_header h = { .length = 0 };
    if (s->length > 0 || s->attached) return err_set(err, GIST_ERR_USAGE, "a kept KV cache comes first in a session");
    TRY(map_open(path, &map, err));
    gist_status status = check(s, &map, &h, path, err);
    if (status == GIST_OK) status = session_room(s, (int)h.length, err);
    if (status == GIST_OK) {
        copying j = { s, map.data + HEADER, op_kv_round((int)h.length) };
        pool_run(s->e->pool, copy_head, &j, c->L * c->G);
        s->length = (int)h.length;
        s->position = (int)h.position;
    }
    map_close(&map);
    return status;
}
