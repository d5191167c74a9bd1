/* gguf_save.c - writing one GGUF file, version 3 (layout: gguf.c).
 *
 *   gguf_add_...  -->  keys, directory in memory  --checked by the reader-->  file:  header | padding | tensors, padded
 *                                                                      gguf_write <-- callback, a tensor at a time
 *
 * Tensors lie in the order they were added, aligned to 32.  The bytes depend on the calls alone.
 */
#include "format/format_int.h"

enum { VERSION = 3, ALIGN = 32 };

void gguf_writer_init(gguf_writer *w, const gist_allocator *alloc) {
    *w = (gguf_writer){ .alloc = alloc ? alloc : mem_default() };
    sbuf_init(&w->meta, w->alloc);
    sbuf_init(&w->infos, w->alloc);
}

void gguf_writer_free(gguf_writer *w) {
    sbuf_free(&w->meta);
    sbuf_free(&w->infos);
    mem_free(w->alloc, w->sizes);
    *w = (gguf_writer){ 0 };
}

static void put(sbuf *s, uint64_t v, size_t bytes) {
    uint8_t b[8];
    for (int i = 0; i < 8; i++) b[i] = (uint8_t)(v >> 8 * i);
    sbuf_add(s, b, bytes);
}

static void put_text(sbuf *s, const char *text, size_t len) {
    put(s, len, 8);
    sbuf_add(s, text, len);
}

/* ---- metadata ---- */

static void misuse(gguf_writer *w, const char *what) {
    if (!w->misuse) w->misuse = what;
}

static void add_key(gguf_writer *w, const char *key, gguf_kind kind) {
    if (w->array_left) misuse(w, "an array has fewer elements than announced");
    put_text(&w->meta, key, strlen(key));
    put(&w->meta, kind, 4);
    w->value_count++;
}

static uint32_t float_bits(float v) {
    uint32_t u;
    memcpy(&u, &v, 4);
    return u;
}

void gguf_add_int(gguf_writer *w, const char *key, gguf_kind kind, int64_t v) {
    add_key(w, key, kind);
    put(&w->meta, (uint64_t)v, gguf_kind_bytes(kind));
}

void gguf_add_float(gguf_writer *w, const char *key, float v) {
    add_key(w, key, GGUF_F32);
    put(&w->meta, float_bits(v), 4);
}

void gguf_add_bool(gguf_writer *w, const char *key, bool v) {
    add_key(w, key, GGUF_BOOL);
    put(&w->meta, v, 1);
}

void gguf_add_string(gguf_writer *w, const char *key, const char *s, size_t len) {
    add_key(w, key, GGUF_STRING);
    put_text(&w->meta, s, len);
}

void gguf_add_value(gguf_writer *w, const gguf_value *v) {
    add_key(w, v->key, v->array ? GGUF_ARRAY : v->kind);
    if (v->array) {
        put(&w->meta, v->kind, 4);
        put(&w->meta, v->count, 8);
    }
    sbuf_add(&w->meta, v->data, v->bytes);
}

void gguf_add_array(gguf_writer *w, const char *key, gguf_kind kind, size_t count) {
    add_key(w, key, GGUF_ARRAY);
    put(&w->meta, kind, 4);
    put(&w->meta, count, 8);
    w->array_kind = kind;
    w->array_left = count;
}

static bool element(gguf_writer *w, gguf_kind kind) {
    if (w->array_left == 0 || w->array_kind != kind) {
        misuse(w, "an element that no array was announced for");
        return false;
    }
    w->array_left--;
    return true;
}

void gguf_put_int(gguf_writer *w, gguf_kind kind, int64_t v) {
    if (element(w, kind)) put(&w->meta, (uint64_t)v, gguf_kind_bytes(kind));
}

void gguf_put_float(gguf_writer *w, float v) {
    if (element(w, GGUF_F32)) put(&w->meta, float_bits(v), 4);
}

void gguf_put_string(gguf_writer *w, const char *s, size_t len) {
    if (element(w, GGUF_STRING)) put_text(&w->meta, s, len);
}

/* ---- directory ---- */

void gguf_add_tensor(gguf_writer *w, const tensor_view *t) {
    size_t cap = w->cap ? 2 * w->cap : 64;
    if (w->count == w->cap) {
        size_t *sizes = mem_resize(w->alloc, w->sizes, w->cap, cap, sizeof *sizes);
        if (!sizes) {
            w->infos.failed = true;
            return;
        }
        w->sizes = sizes;
        w->cap = cap;
    }
    put_text(&w->infos, t->name, strlen(t->name));
    put(&w->infos, (uint64_t)t->dims, 4);
    for (int i = t->dims - 1; i >= 0; i--) put(&w->infos, (uint64_t)t->shape[i], 8);
    put(&w->infos, (uint64_t)gguf_type_number(t->type), 4);
    put(&w->infos, w->offset, 8);
    size_t bytes = dt_bytes(t->type, tensor_count(t));
    w->sizes[w->count++] = bytes;
    w->offset += bytes + (ALIGN - bytes % ALIGN) % ALIGN;
}

static void pad(sbuf *s) {
    static const char zero[ALIGN];
    sbuf_add(s, zero, (ALIGN - s->len % ALIGN) % ALIGN);
}

/* Header and directory in one, as the reader accepts them. */
static gist_status build_header(const gguf_writer *w, sbuf *s, const char *path, gist_error *err) {
    if (w->misuse || w->array_left)
        return err_set(err, GIST_ERR_USAGE, "%s: cannot be written: %s", json_what(path),
                       w->misuse ? w->misuse : "an array has fewer elements than announced");
    sbuf_str(s, "GGUF");
    put(s, VERSION, 4);
    put(s, w->count, 8);
    put(s, w->value_count, 8);
    sbuf_add(s, w->meta.p, w->meta.len);
    sbuf_add(s, w->infos.p, w->infos.len);
    pad(s);
    if (w->meta.failed || w->infos.failed || s->failed) return err_memory(err, "GGUF header");
    gguf_file check;
    gist_error cause = { 0 };
    gist_status status = gguf_parse_header(&check, w->alloc, s->p, s->len, s->len + w->offset, path, &cause);
    if (status == GIST_ERR_MEMORY) return err_memory(err, "GGUF directory");
    if (status != GIST_OK) return err_set(err, GIST_ERR_USAGE, "cannot be written: %s", cause.msg);
    gguf_close(&check);
    return GIST_OK;
}

/* ---- the file ---- */

void gguf_write(gguf_writer *w, const void *bytes, size_t len) {
    if (len > w->left) {
        misuse(w, "more bytes than a tensor has");
        return;
    }
    out_write(w->out, bytes, len);
    w->left -= len;
}

static gist_status write_tensors(gguf_writer *w, const char *path, gguf_tensor_fn fn, void *ctx, gist_error *err) {
    static const char zero[ALIGN];
    for (size_t i = 0; i < w->count; i++) {
        w->left = w->sizes[i];
        TRY(fn(ctx, i, w, err));
        if (w->left) misuse(w, "fewer bytes than a tensor has");
        if (w->misuse)
            return err_set(err, GIST_ERR_USAGE, "%s: cannot be written: %s", json_what(path), w->misuse);
        if (w->out->saved_errno) return GIST_OK; /* out_commit says it */
        out_write(w->out, zero, (ALIGN - w->sizes[i] % ALIGN) % ALIGN);
    }
    return GIST_OK;
}

gist_status gguf_save(gguf_writer *w, const char *path, gguf_tensor_fn fn, void *ctx, gist_error *err) {
    sbuf header;
    sbuf_init(&header, w->alloc);
    out_file out;
    gist_status status = build_header(w, &header, path, err);
    if (status == GIST_OK) status = out_open(&out, w->alloc, path, err);
    if (status == GIST_OK) {
        w->out = &out;
        out_write(&out, header.p, header.len);
        status = write_tensors(w, path, fn, ctx, err);
        if (status == GIST_OK)
            status = out_commit(&out, err);
        else
            out_abort(&out);
        w->out = NULL;
    }
    sbuf_free(&header);
    return status;
}
