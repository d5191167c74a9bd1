/* weights.c - the tensors of a Hugging Face directory or a GGUF file, and their fingerprint.
 *
 *   FILE.gguf                              all tensors, with their GGUF names
 *   DIR/model.safetensors                  all tensors, or
 *   DIR/model.safetensors.index.json       {"weight_map": {"tensor name": "shard file", ...}, ...}
 *   DIR/model-00001-of-00002.safetensors   ... the shards it names
 *   DIR/pytorch_model.bin, pytorch_model.bin.index.json   the same as torch.save writes them, where the others are not
 *
 * The shards stay mapped while the weights are open.  One array of pointers, sorted by tensor name, spans all files.
 *
 * The fingerprint is a tree, so that threads can share the work and none of the cuts shows in the result:
 *
 *   leaf   = XXH3-128 of up to 1 MiB of one tensor's bytes
 *   root   = XXH3-128 over the fields (hash_*): for each tensor in name order
 *            name, dtype name, number of dimensions, each dimension, all its leaves one after the other
 */
#include <limits.h>
#include <stdlib.h>

#include "format/format_int.h"

enum { SHOWN = 72, SHARD_NAME_MAX = 255, LEAF = 1 << 20 };

/* ---- the index of shards ---- */

static int by_text(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* A plain file name: it cannot lead out of the directory. */
static bool plain_name(const char *s) {
    size_t len = strlen(s);
    if (len == 0 || len > SHARD_NAME_MAX || s[0] == '.') return false;
    for (size_t i = 0; i < len; i++)
        if ((uint8_t)s[i] < 0x20 || s[i] == 0x7f || s[i] == '/' || s[i] == '\\') return false;
    return true;
}

static gist_status collect_shards(shard_index *ix, const char *what, gist_error *err) {
    size_t n = json_object_size(ix->weight_map), used = 0;
    ix->shards = mem_alloc(ix->alloc, n, sizeof(*ix->shards));
    if (!ix->shards) return err_memory(err, "shard index");
    const char *name;
    json_t *value;
    json_object_foreach(ix->weight_map, name, value) {
        const char *shard = json_string_value(value);
        char shown[SHOWN], shown_shard[SHOWN];
        json_show(shown, sizeof(shown), name, strlen(name));
        if (!shard) return err_set(err, GIST_ERR_FORMAT, "%s: \"%s\" is not mapped to a file name", what, shown);
        if (!plain_name(shard))
            return err_set(err, GIST_ERR_FORMAT, "%s: \"%s\" is in \"%s\", expected a plain file name", what, shown,
                           json_show(shown_shard, sizeof(shown_shard), shard, strlen(shard)));
        ix->shards[used++] = shard;
    }
    qsort(ix->shards, used, sizeof(*ix->shards), by_text);
    for (size_t i = 0; i < used; i++)
        if (i == 0 || strcmp(ix->shards[i], ix->shards[ix->count - 1]) != 0) ix->shards[ix->count++] = ix->shards[i];
    if (ix->count == 0) return err_set(err, GIST_ERR_FORMAT, "%s: weight_map is empty", what);
    if (ix->count > INDEX_MAX_SHARDS)
        return err_set(err, GIST_ERR_LIMIT, "%s: %zu shards, at most %d", what, ix->count, INDEX_MAX_SHARDS);
    return GIST_OK;
}

gist_status index_parse(shard_index *out, const gist_allocator *alloc, const char *text, size_t len, const char *what,
                        gist_error *err) {
    what = json_what(what);
    shard_index ix = { .alloc = alloc ? alloc : mem_default() };
    TRY(json_parse(text, len, what, &ix.root, err));
    ix.weight_map = json_object_get(ix.root, "weight_map");
    gist_status status = json_is_object(ix.weight_map)
                             ? collect_shards(&ix, what, err)
                             : err_set(err, GIST_ERR_FORMAT, "%s: no object \"weight_map\"", what);
    if (status == GIST_OK)
        *out = ix;
    else
        index_close(&ix);
    return status;
}

void index_close(shard_index *ix) {
    mem_free(ix->alloc, ix->shards);
    json_decref(ix->root);
    *ix = (shard_index){ 0 };
}

/* ---- opening ---- */

/* What a directory keeps its weights in. */
typedef struct layout {
    const char *single, *index;
    bool torch;
} layout;
static const layout layouts[] = {
    { "model.safetensors", "model.safetensors.index.json", false },
    { "pytorch_model.bin", "pytorch_model.bin.index.json", true },
};

static gist_status make_room(weights *w, const layout *lay, size_t n, gist_error *err) {
    if (lay->torch)
        w->bins = mem_calloc(w->alloc, n, sizeof *w->bins);
    else
        w->files = mem_calloc(w->alloc, n, sizeof *w->files);
    return w->bins || w->files ? GIST_OK : err_memory(err, "weights");
}

static gist_status open_file(weights *w, const layout *lay, const char *dir, const char *name, gist_error *err) {
    char *path = path_join(w->alloc, dir, name);
    if (!path) return err_memory(err, "path of weights");
    gist_status status = lay->torch ? pt_open(&w->bins[w->bin_count], w->alloc, path, err)
                                    : st_open(&w->files[w->file_count], w->alloc, path, err);
    if (status == GIST_OK) ++*(lay->torch ? &w->bin_count : &w->file_count);
    mem_free(w->alloc, path);
    return status;
}

/* Every name of the index is in the shard that the index names; skipped buffers count. */
static gist_status check_listed(const weights *w, const shard_index *ix, const char *what, gist_error *err) {
    const char *name;
    json_t *value;
    json_object_foreach(ix->weight_map, name, value) {
        const char *shard = json_string_value(value);
        const char *const *at = bsearch(&shard, ix->shards, ix->count, sizeof(*ix->shards), by_text);
        size_t i = (size_t)(at - ix->shards);
        if (w->bins ? !pt_holds(&w->bins[i], name) : !json_object_get(w->files[i].header, name)) {
            char shown[SHOWN], shown_shard[SHOWN];
            return err_set(err, GIST_ERR_FORMAT, "%s: \"%s\" should be in %s, which does not hold it", what,
                           json_show(shown, sizeof(shown), name, strlen(name)),
                           json_show(shown_shard, sizeof(shown_shard), shard, strlen(shard)));
        }
    }
    return GIST_OK;
}

static gist_status open_shards(weights *w, const layout *lay, const char *dir, const char *path, gist_error *err) {
    file_map map;
    shard_index ix;
    TRY(map_open(path, &map, err));
    gist_status status = index_parse(&ix, w->alloc, (const char *)map.data, map.size, path, err);
    map_close(&map);
    if (status != GIST_OK) return status;
    status = make_room(w, lay, ix.count, err);
    for (size_t i = 0; i < ix.count && status == GIST_OK; i++) status = open_file(w, lay, dir, ix.shards[i], err);
    if (status == GIST_OK) status = check_listed(w, &ix, json_what(path), err);
    index_close(&ix);
    return status;
}

static int by_view_name(const void *a, const void *b) {
    return strcmp((*(const tensor_view *const *)a)->name, (*(const tensor_view *const *)b)->name);
}

/* All views of all files in name order, each name once. */
static gist_status merge(weights *w, const char *dir, gist_error *err) {
    size_t n = w->gguf ? w->gguf->count : 0;
    for (size_t i = 0; i < w->file_count; i++) n += w->files[i].count;
    for (size_t i = 0; i < w->bin_count; i++) n += w->bins[i].count;
    w->all = mem_alloc(w->alloc, n, sizeof(*w->all));
    if (!w->all) return err_memory(err, "table of weights");
    for (size_t i = 0; w->gguf && i < n; i++) w->all[w->count++] = &w->gguf->tensors[i];
    for (size_t i = 0; i < w->file_count; i++)
        for (size_t j = 0; j < w->files[i].count; j++) w->all[w->count++] = &w->files[i].tensors[j];
    for (size_t i = 0; i < w->bin_count; i++)
        for (size_t j = 0; j < w->bins[i].count; j++) w->all[w->count++] = &w->bins[i].tensors[j];
    qsort(w->all, n, sizeof(*w->all), by_view_name);
    for (size_t i = 1; i < n; i++)
        if (strcmp(w->all[i - 1]->name, w->all[i]->name) == 0) {
            char shown[SHOWN];
            return err_set(err, GIST_ERR_FORMAT, "%s: tensor \"%s\" is in two shards", json_what(dir),
                           json_show(shown, sizeof(shown), w->all[i]->name, strlen(w->all[i]->name)));
        }
    return GIST_OK;
}

/* The files of one layout; *found: they are there. */
static gist_status open_layout(weights *w, const layout *lay, const char *dir, bool *found, gist_error *err) {
    char *single = path_join(w->alloc, dir, lay->single), *index = path_join(w->alloc, dir, lay->index);
    gist_status status = single && index ? GIST_OK : err_memory(err, "path of weights");
    bool one = status == GIST_OK && path_exists(single), many = status == GIST_OK && !one && path_exists(index);
    if (one) status = make_room(w, lay, 1, err);
    if (one && status == GIST_OK) status = open_file(w, lay, dir, lay->single, err);
    if (many) status = open_shards(w, lay, dir, index, err);
    *found = one || many;
    mem_free(w->alloc, single);
    mem_free(w->alloc, index);
    return status;
}

bool gguf_is_file(const char *path) {
    char magic[4] = { 0 };
    size_t len = strlen(path);
    if (path_is_dir(path)) return false;
    if (len > 5 && strcmp(path + len - 5, ".gguf") == 0) return true;
    FILE *f = fopen(path, "rb");
    bool is = f && fread(magic, 1, sizeof magic, f) == sizeof magic && memcmp(magic, "GGUF", 4) == 0;
    if (f) fclose(f);
    return is;
}

static gist_status open_gguf(weights *w, const char *path, gist_error *err) {
    gguf_file *g = mem_calloc(w->alloc, 1, sizeof *g);
    if (!g) return err_memory(err, "weights");
    gist_status status = gguf_open(g, w->alloc, path, err);
    if (status != GIST_OK) {
        mem_free(w->alloc, g);
        return status;
    }
    w->gguf = g;
    int parts = 1;
    TRY(gguf_get_int(g, "split.count", false, 0, UINT16_MAX, &parts, err));
    if (parts > 1)
        return err_set(err, GIST_ERR_UNSUPPORTED, "%s is one of %d parts (split.count); merge them into one file first",
                       json_what(path), parts);
    return GIST_OK;
}

static gist_status open_any(weights *w, const char *dir, gist_error *err) {
    if (path_exists(dir) && gguf_is_file(dir)) return open_gguf(w, dir, err);
    if (!path_is_dir(dir)) return err_set(err, GIST_ERR_IO, "%s is not a directory", json_what(dir));
    bool found = false;
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts && !found; i++)
        TRY(open_layout(w, &layouts[i], dir, &found, err));
    if (found) return GIST_OK;
    return err_set(err, GIST_ERR_IO, "%s holds neither model.safetensors nor pytorch_model.bin, nor an index of either",
                   json_what(dir));
}

gist_status weights_open(weights *out, const gist_allocator *alloc, const char *path, gist_error *err) {
    weights w = { .alloc = alloc ? alloc : mem_default() };
    gist_status status = open_any(&w, path, err);
    if (status == GIST_OK) status = merge(&w, path, err);
    if (status == GIST_OK)
        *out = w;
    else
        weights_close(&w);
    return status;
}

void weights_close(weights *w) {
    if (!w) return;
    for (size_t i = 0; i < w->file_count; i++) st_close(&w->files[i]);
    for (size_t i = 0; i < w->bin_count; i++) pt_close(&w->bins[i]);
    gguf_close(w->gguf);
    mem_free(w->alloc, w->gguf);
    mem_free(w->alloc, w->files);
    mem_free(w->alloc, w->bins);
    mem_free(w->alloc, w->all);
    *w = (weights){ 0 };
}

/* ---- looking up ---- */

const tensor_view *weights_find(const weights *w, const char *name) {
    tensor_view key = { .name = name };
    const tensor_view *probe_key = &key;
    const tensor_view **hit = w->count ? bsearch(&probe_key, w->all, w->count, sizeof(*w->all), by_view_name) : NULL;
    return hit ? *hit : NULL;
}

size_t weights_count(const weights *w) {
    return w->count;
}

const tensor_view *weights_at(const weights *w, size_t i) {
    return w->all[i];
}

const file_map *weights_map(const weights *w, const tensor_view *t) {
    for (size_t i = 0; i < w->file_count; i++) {
        const st_file *f = &w->files[i];
        if (t >= f->tensors && t < f->tensors + f->count) return &f->map;
    }
    for (size_t i = 0; i < w->bin_count; i++) {
        const pt_file *f = &w->bins[i];
        if (t >= f->tensors && t < f->tensors + f->count) return &f->map;
    }
    return w->gguf ? &w->gguf->map : NULL;
}

/* ---- fingerprint ---- */

typedef struct leaf {
    const uint8_t *p;
    size_t len;
    hash128 hash;
} leaf;

static void hash_leaf(void *ctx, int task, int worker) {
    (void)worker;
    leaf *l = (leaf *)ctx + task;
    l->hash = hash_bytes(l->p, l->len);
}

static size_t leaf_count(const tensor_view *t) {
    return t->bytes / LEAF + (t->bytes % LEAF != 0);
}

static void hash_tensor(hasher *h, const tensor_view *t, const leaf *leaves, hash128 *row) {
    hash_str(h, t->name);
    hash_str(h, dt_name(t->type));
    hash_u64(h, (uint64_t)t->dims);
    for (int i = 0; i < t->dims; i++) hash_u64(h, (uint64_t)t->shape[i]);
    size_t n = leaf_count(t);
    for (size_t i = 0; i < n; i++) row[i] = leaves[i].hash;
    hash_add(h, row, n * sizeof(*row));
}

gist_status weights_hash(const weights *w, pool *p, hash128 *out, gist_error *err) {
    size_t n = 0, most = 0;
    for (size_t i = 0; i < w->count; i++) {
        size_t c = leaf_count(w->all[i]);
        n += c;
        if (c > most) most = c;
    }
    if (n > INT_MAX) return err_set(err, GIST_ERR_LIMIT, "weights of %zu MiB are too many to hash", n);
    leaf *leaves = mem_alloc(w->alloc, n, sizeof(*leaves));
    hash128 *row = mem_alloc(w->alloc, most, sizeof(*row));
    hasher *h = leaves && row ? hash_begin(w->alloc) : NULL;
    if (h) {
        leaf *l = leaves;
        for (size_t i = 0; i < w->count; i++) {
            const uint8_t *bytes = w->all[i]->data;
            size_t left = w->all[i]->bytes;
            for (; left > 0; l++) {
                *l = (leaf){ .p = bytes, .len = left < LEAF ? left : LEAF };
                bytes += l->len;
                left -= l->len;
            }
        }
        if (p)
            pool_run(p, hash_leaf, leaves, (int)n);
        else
            for (int i = 0; i < (int)n; i++) hash_leaf(leaves, i, 0);
        l = leaves;
        for (size_t i = 0; i < w->count; i++) {
            hash_tensor(h, w->all[i], l, row);
            l += leaf_count(w->all[i]);
        }
        *out = hash_end(h);
    }
    mem_free(w->alloc, row);
    mem_free(w->alloc, leaves);
    return h ? GIST_OK : err_memory(err, "hash of the weights");
}
