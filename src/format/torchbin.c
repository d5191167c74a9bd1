/* torchbin.c - the tensors of a file that torch.save wrote (pytorch_model*.bin), from bytes that are not trusted.
 *
 *   NAME/data.pkl     a pickle of the state dict: names, and for each tensor its storage, offset, shape and strides
 *   NAME/data/KEY     the bytes of storage KEY
 *   NAME/byteorder    "little" (PyTorch 2 and later)
 *   NAME/version, ... not looked at
 *
 *   zip.c --entries--> unpickle.c --names, storages--> here: views into the map
 *
 * A storage must be as long as its entry, a tensor must lie in its storage.  Storages may be shared: a tied head is the
 * embedding under another name.  Tensors whose elements do not lie in order (a transposed matrix) are copied; one must
 * not have more elements than its storage, and all copies together not more bytes than the file.
 * Of the layout before PyTorch 1.6 (no zip archive), and of compressed archives, we say so and stop.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "format/format_int.h"

enum { SHOWN = 72 };

typedef struct reader {
    pt_file *f;
    const uint8_t *p;
    size_t len, copied;
    const char *what;
    zip_archive zip;
    pickle_dict dict;
    sbuf path;   /* of an entry */
    size_t root; /* bytes of "NAME/" in it */
} reader;

static int by_name(const void *a, const void *b) {
    return strcmp(((const tensor_view *)a)->name, ((const tensor_view *)b)->name);
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The entry NAME/part/key; NULL in *out: there is none. */
static gist_status find(reader *r, const char *part, const char *key, size_t key_len, const zip_entry **out,
                        gist_error *err) {
    r->path.len = r->root;
    sbuf_str(&r->path, part);
    sbuf_add(&r->path, key, key_len);
    if (r->path.failed) return err_memory(err, "path in an archive");
    *out = zip_find(&r->zip, r->path.p, r->path.len);
    return GIST_OK;
}

/* ---- the archive ---- */

/* What was written before PyTorch 1.6: a pickle of a number that says so. */
static bool is_old_layout(const uint8_t *p, size_t len) {
    static const uint8_t magic[] = { 0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19 };
    return len >= sizeof magic && memcmp(p, magic, sizeof magic) == 0;
}

static gist_status open_archive(reader *r, gist_error *err) {
    if (is_old_layout(r->p, r->len))
        return err_set(err, GIST_ERR_UNSUPPORTED,
                       "%s: written in PyTorch's layout before version 1.6, which is no zip archive and is not read "
                       "(torch.load and torch.save once with a newer one)",
                       r->what);
    if (r->len < 4 || memcmp(r->p, "PK\3\4", 4) != 0)
        return err_set(err, GIST_ERR_FORMAT, "%s: no file of torch.save (it is not a zip archive)", r->what);
    TRY(zip_parse(&r->zip, r->f->alloc, r->p, r->len, r->what, err));
    const char *slash = r->zip.count ? memchr(r->zip.first, '/', r->zip.first_len) : NULL;
    if (!slash)
        return err_set(err, GIST_ERR_FORMAT, "%s: a zip archive without the folder that torch.save makes", r->what);
    r->root = (size_t)(slash - r->zip.first) + 1;
    sbuf_add(&r->path, r->zip.first, r->root);
    const zip_entry *e;
    TRY(find(r, "byteorder", "", 0, &e, err));
    if (e && !(e->size == 6 && memcmp(r->p + e->offset, "little", 6) == 0))
        return err_set(err, GIST_ERR_UNSUPPORTED, "%s: numbers are not little-endian (byteorder)", r->what);
    TRY(find(r, "data.pkl", "", 0, &e, err));
    if (!e)
        return err_set(err, GIST_ERR_FORMAT, "%s: a zip archive without %s, so not of torch.save", r->what,
                       "NAME/data.pkl");
    return pickle_parse(&r->dict, r->f->alloc, r->p + e->offset, (size_t)e->size, r->what, err);
}

/* ---- tensors ---- */

static gist_status find_storage(reader *r, const pickle_item *it, const char *shown, const zip_entry **out,
                                gist_error *err) {
    const pickle_storage *s = &it->storage;
    char key[SHOWN];
    TRY(find(r, "data/", s->key, s->key_len, out, err));
    json_show(key, SHOWN, s->key, s->key_len);
    if (!*out) return err_set(err, GIST_ERR_FORMAT, "%s: tensor \"%s\": no entry data/%s", r->what, shown, key);
    if (s->elements > SIZE_MAX / s->type->bytes || s->elements * s->type->bytes != (*out)->size)
        return err_set(err, GIST_ERR_FORMAT,
                       "%s: tensor \"%s\": data/%s has %" PRIu64 " bytes, %" PRIu64 " of %s take "
                       "another number",
                       r->what, shown, key, (*out)->size, s->elements, s->type->name);
    return GIST_OK;
}

/* Number of elements, and whether they lie in order; all of them are in the storage. */
static gist_status measure(const reader *r, const pickle_item *it, const char *shown, size_t *count, bool *in_order,
                           gist_error *err) {
    const pickle_tensor *t = &it->tensor;
    uint64_t elements = it->storage.elements;
    size_t n = 1, wide;
    bool fits = true;
    *in_order = true;
    for (int d = t->dims - 1; d >= 0; d--) {
        *in_order = *in_order && (t->shape[d] == 1 || (uint64_t)t->stride[d] == n);
        fits = fits && (uint64_t)t->shape[d] <= SIZE_MAX && size_mul(n, (size_t)t->shape[d], &n);
    }
    /* other rooms count in elements and in f32 bytes */
    if (!fits || !size_mul(n, sizeof(float), &wide))
        return err_set(err, GIST_ERR_FORMAT, "%s: tensor \"%s\" has a shape that overflows", r->what, shown);
    *count = n;
    if (n == 0) {
        *in_order = true;
        return GIST_OK;
    }
    uint64_t last = t->offset; /* of all elements, the one farthest back */
    bool inside = last < elements;
    for (int d = 0; d < t->dims && inside; d++) {
        uint64_t steps = (uint64_t)t->shape[d] - 1, stride = (uint64_t)t->stride[d];
        inside = steps == 0 || stride <= (elements - 1 - last) / steps;
        if (inside) last += steps * stride;
    }
    if (!inside)
        return err_set(err, GIST_ERR_FORMAT, "%s: tensor \"%s\" reaches beyond its storage of %" PRIu64 " elements",
                       r->what, shown, elements);
    if (n > elements)
        return err_set(err, GIST_ERR_UNSUPPORTED,
                       "%s: tensor \"%s\" has more elements than its storage (%zu, %" PRIu64 "); it is expanded, which "
                       "is not read",
                       r->what, shown, n, elements);
    return GIST_OK;
}

/* The elements of a tensor, in order, in memory of their own. */
static gist_status copy(reader *r, const pickle_tensor *t, const uint8_t *storage, size_t bytes, size_t size,
                        void **out, gist_error *err) {
    if (bytes > r->len - r->copied)
        return err_set(err, GIST_ERR_LIMIT, "%s: tensors that do not lie in order take more bytes than the file",
                       r->what);
    uint8_t *to = mem_alloc(r->f->alloc, bytes, 1);
    if (!to) return err_memory(err, "a tensor that does not lie in order");
    r->f->copies[r->f->copy_count++] = to;
    r->copied += bytes;
    *out = to;
    uint64_t shape[4] = { 1, 1, 1, 1 }, stride[4] = { 0, 0, 0, 0 };
    for (int d = 0; d < t->dims; d++) {
        shape[4 - t->dims + d] = (uint64_t)t->shape[d];
        stride[4 - t->dims + d] = (uint64_t)t->stride[d];
    }
    for (uint64_t a = 0; a < shape[0]; a++)
        for (uint64_t b = 0; b < shape[1]; b++)
            for (uint64_t c = 0; c < shape[2]; c++)
                for (uint64_t d = 0; d < shape[3]; d++, to += size)
                    memcpy(to, storage + (a * stride[0] + b * stride[1] + c * stride[2] + d * stride[3]) * size, size);
    return GIST_OK;
}

/* A name of the pickle as a string of our own. */
static gist_status keep_name(const reader *r, const pickle_item *it, char **out, gist_error *err) {
    char shown[SHOWN];
    size_t bad;
    if (memchr(it->name, 0, it->name_len) || !utf8_valid(it->name, it->name_len, &bad))
        return err_set(err, GIST_ERR_FORMAT, "%s: tensor name \"%s\" is not UTF-8, or has a NUL", r->what,
                       json_show(shown, SHOWN, it->name, it->name_len));
    *out = mem_strndup(r->f->alloc, it->name, it->name_len);
    return *out ? GIST_OK : err_memory(err, "name of a tensor");
}

static gist_status read_tensor(reader *r, const pickle_item *it, gist_error *err) {
    pt_file *f = r->f;
    const pickle_tensor *t = &it->tensor;
    const pickle_type *type = it->storage.type;
    const zip_entry *entry;
    char shown[SHOWN], *name;
    size_t count;
    bool in_order;
    TRY(keep_name(r, it, &name, err));
    f->names[f->name_count++] = name;
    json_show(shown, SHOWN, name, it->name_len);
    TRY(st_check_name(name, r->what, err));
    if (!type->view && !st_is_buffer(name, type->integer))
        return err_set(err, GIST_ERR_UNSUPPORTED,
                       "%s: tensor \"%s\" is %s; this program reads float32, bfloat16 and float16", r->what, shown,
                       type->name);
    TRY(find_storage(r, it, shown, &entry, err));
    TRY(measure(r, it, shown, &count, &in_order, err));
    if (!type->view) return GIST_OK;
    const uint8_t *data = r->p + entry->offset + (count ? (size_t)t->offset * type->bytes : 0);
    tensor_view *v = &f->tensors[f->count++];
    *v = (tensor_view){ .name = name, .type = type->type, .dims = t->dims, .shape = { 1, 1, 1, 1 }, .data = data };
    for (int d = 0; d < t->dims; d++) v->shape[d] = t->shape[d];
    v->bytes = count * type->bytes;
    void *made = NULL;
    if (in_order) return GIST_OK;
    TRY(copy(r, t, data, v->bytes, type->bytes, &made, err));
    v->data = made;
    return GIST_OK;
}

static gist_status check_names(const reader *r, gist_error *err) {
    pt_file *f = r->f;
    char shown[SHOWN];
    qsort(f->names, f->name_count, sizeof *f->names, by_text);
    for (size_t i = 1; i < f->name_count; i++)
        if (strcmp(f->names[i - 1], f->names[i]) == 0)
            return err_set(err, GIST_ERR_FORMAT, "%s: tensor \"%s\" is there twice", r->what,
                           json_show(shown, SHOWN, f->names[i], strlen(f->names[i])));
    return GIST_OK;
}

static gist_status read_all(reader *r, gist_error *err) {
    pt_file *f = r->f;
    TRY(open_archive(r, err));
    size_t n = r->dict.count;
    f->names = mem_alloc(f->alloc, n, sizeof *f->names);
    f->tensors = mem_alloc(f->alloc, n, sizeof *f->tensors);
    f->copies = mem_alloc(f->alloc, n, sizeof *f->copies);
    if (!f->names || !f->tensors || !f->copies) return err_memory(err, "table of tensors");
    for (size_t i = 0; i < n; i++) TRY(read_tensor(r, &r->dict.items[i], err));
    TRY(check_names(r, err));
    qsort(f->tensors, f->count, sizeof *f->tensors, by_name);
    return GIST_OK;
}

/* ---- the whole ---- */

gist_status pt_parse(pt_file *out, const gist_allocator *alloc, const void *bytes, size_t len, const char *what,
                     gist_error *err) {
    pt_file f = { .alloc = alloc ? alloc : mem_default() };
    reader r = { .f = &f, .p = bytes, .len = len, .what = json_what(what) };
    sbuf_init(&r.path, f.alloc);
    gist_status status = read_all(&r, err);
    sbuf_free(&r.path);
    pickle_free(&r.dict);
    zip_free(&r.zip);
    if (status == GIST_OK)
        *out = f;
    else
        pt_close(&f);
    return status;
}

gist_status pt_open(pt_file *out, const gist_allocator *alloc, const char *path, gist_error *err) {
    file_map map;
    TRY(map_open(path, &map, err));
    gist_status status = pt_parse(out, alloc, map.data, map.size, path, err);
    if (status == GIST_OK)
        out->map = map;
    else
        map_close(&map);
    return status;
}

void pt_close(pt_file *f) {
    if (!f) return;
    for (size_t i = 0; i < f->name_count; i++) mem_free(f->alloc, (void *)(uintptr_t)f->names[i]);
    for (size_t i = 0; i < f->copy_count; i++) mem_free(f->alloc, f->copies[i]);
    mem_free(f->alloc, f->names);
    mem_free(f->alloc, f->tensors);
    mem_free(f->alloc, f->copies);
    map_close(&f->map);
    *f = (pt_file){ 0 };
}

const tensor_view *pt_find(const pt_file *f, const char *name) {
    tensor_view key = { .name = name };
    return f->count ? bsearch(&key, f->tensors, f->count, sizeof key, by_name) : NULL;
}

bool pt_holds(const pt_file *f, const char *name) {
    return f->name_count && bsearch(&name, f->names, f->name_count, sizeof *f->names, by_text);
}
