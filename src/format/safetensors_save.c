/* safetensors_save.c - writing one safetensors file (layout: safetensors.c).
 *
 * The bytes depend on the arguments alone: metadata and tensors stand in the order given, JSON without white space,
 * the header padded with spaces so that the tensors begin at a multiple of 8.  The numbers of the format are
 * little-endian, as every machine is that this library supports; tensor bytes are written as they lie in memory.
 */
#include "format/format_int.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "tensor bytes are written as they are: little-endian machines only"
#endif

static const char *const dtype_names[DT_COUNT] = { [DT_F32] = "F32", [DT_BF16] = "BF16", [DT_F16] = "F16",
                                                   [DT_Q8_0] = "I8" /* st_find_i8 in format_int.h */ };

static void add_string(sbuf *s, const char *text) {
    sbuf_add(s, "\"", 1);
    for (const char *p = text; *p; p++) {
        if (*p == '"' || *p == '\\') sbuf_add(s, "\\", 1);
        if ((uint8_t)*p < 0x20)
            sbuf_fmt(s, "\\u%04x", (unsigned)(uint8_t)*p);
        else
            sbuf_add(s, p, 1);
    }
    sbuf_add(s, "\"", 1);
}

static void add_tensor(sbuf *s, const tensor_view *t, size_t begin) {
    add_string(s, t->name);
    sbuf_fmt(s, ":{\"dtype\":\"%s\",\"shape\":[", dtype_names[t->type]);
    for (int i = 0; i < t->dims; i++) sbuf_fmt(s, "%s%lld", i ? "," : "", (long long)t->shape[i]);
    sbuf_fmt(s, "],\"data_offsets\":[%zu,%zu]}", begin, begin + t->bytes);
}

/* What the reader would refuse is not written. */
static gist_status check_view(const tensor_view *t, const char *path, gist_error *err) {
    size_t len = t->name ? strlen(t->name) : 0;
    if (len && (unsigned)t->type < DT_COUNT && !dtype_names[t->type])
        return err_set(err, GIST_ERR_USAGE, "%s: tensor \"%.80s\" is %s; safetensors holds f32, bf16 and f16",
                       json_what(path), t->name, dt_name(t->type));
    bool sound = len > 0 && len <= ST_MAX_NAME && strcmp(t->name, "__metadata__") != 0 &&
                 (unsigned)t->type < DT_COUNT && t->dims >= 0 && t->dims <= TENSOR_MAX_DIMS;
    for (size_t i = 0; sound && i < len; i++) sound = (uint8_t)t->name[i] >= 0x20 && t->name[i] != 0x7f;
    size_t bytes = !sound ? 0 : t->type == DT_Q8_0 ? 1 : dt_bytes(t->type, 1);
    for (int i = 0; sound && i < t->dims; i++) sound = t->shape[i] >= 0 && size_mul(bytes, (size_t)t->shape[i], &bytes);
    if (sound && bytes == t->bytes) return GIST_OK;
    return err_set(err, GIST_ERR_USAGE, "%s: tensor \"%.80s\" cannot be written: bad name, type, shape or size",
                   json_what(path), t->name ? t->name : "(null)");
}

/* Header JSON, padded.  The reader's parser sees it first: it finds a name used twice and bad UTF-8. */
static gist_status build_header(sbuf *s, const tensor_view *tensors, size_t count, const st_meta *meta,
                                size_t meta_count, const char *path, gist_error *err) {
    sbuf_str(s, "{");
    if (meta_count) sbuf_str(s, "\"__metadata__\":{");
    for (size_t i = 0; i < meta_count; i++) {
        if (i) sbuf_str(s, ",");
        add_string(s, meta[i].key);
        sbuf_str(s, ":");
        add_string(s, meta[i].value);
    }
    if (meta_count) sbuf_str(s, "}");
    size_t pos = 0;
    for (size_t i = 0; i < count; i++) {
        TRY(check_view(&tensors[i], path, err));
        if (i || meta_count) sbuf_str(s, ",");
        add_tensor(s, &tensors[i], pos);
        if (!size_add(pos, tensors[i].bytes, &pos))
            return err_set(err, GIST_ERR_USAGE, "%s: more bytes than a file can hold", json_what(path));
    }
    sbuf_str(s, "}");
    while (s->len % 8 && !s->failed) sbuf_str(s, " ");
    if (s->failed) return err_memory(err, "safetensors header");

    json_t *root = NULL;
    gist_error cause = { 0 };
    gist_status status = json_parse(s->p, s->len, path, &root, &cause);
    json_decref(root);
    if (status == GIST_ERR_FORMAT) status = GIST_ERR_USAGE;
    return status == GIST_OK ? GIST_OK : err_set(err, status, "cannot be written: %s", cause.msg);
}

gist_status st_save_from(const gist_allocator *alloc, const char *path, const tensor_view *tensors, size_t count,
                         const st_meta *meta, size_t meta_count, st_tensor_fn fn, void *ctx, gist_error *err) {
    sbuf header;
    sbuf_init(&header, alloc);
    out_file out;
    gist_status status = build_header(&header, tensors, count, meta, meta_count, path, err);
    if (status == GIST_OK) status = out_open(&out, alloc, path, err);
    if (status == GIST_OK) {
        uint64_t n = header.len;
        out_write(&out, &n, sizeof(n));
        out_write(&out, header.p, header.len);
        for (size_t i = 0; i < count && status == GIST_OK; i++) status = fn(ctx, i, &out, err);
        if (status == GIST_OK)
            status = out_commit(&out, err);
        else
            out_abort(&out);
    }
    sbuf_free(&header);
    return status;
}

static gist_status write_view(void *ctx, size_t i, out_file *out, gist_error *err) {
    const tensor_view *t = (const tensor_view *)ctx + i;
    (void)err;
    out_write(out, t->data, t->bytes);
    return GIST_OK;
}

gist_status st_save(const gist_allocator *alloc, const char *path, const tensor_view *tensors, size_t count,
                    const st_meta *meta, size_t meta_count, gist_error *err) {
    for (size_t i = 0; i < count; i++)
        if (!tensors[i].data && tensors[i].bytes)
            return err_set(err, GIST_ERR_USAGE, "%s: tensor \"%.80s\" cannot be written: no data", json_what(path),
                           tensors[i].name ? tensors[i].name : "(null)");
    return st_save_from(alloc, path, tensors, count, meta, meta_count, write_view, (void *)(uintptr_t)tensors, err);
}
