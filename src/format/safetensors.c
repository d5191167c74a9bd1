/* safetensors.c - reading one safetensors file from bytes that are not trusted.
 *
 *      0        8                    8+n                                   len
 *      +--------+---------------------+-------------------------------------+
 *      | n: u64 | header: JSON, padded | tensors, back to back               |
 *      +--------+---------------------+-------------------------------------+
 *               { "__metadata__": {"key": "value", ...},
 *                 "name": {"dtype": "F32", "shape": [2,3], "data_offsets": [begin, end]}, ... }
 *
 * Numbers are little-endian; offsets count from 8+n.  The header begins with '{' and may be padded with spaces.  The
 * tensors cover the bytes behind the header without a hole, an overlap or a rest, so that nothing can hide between
 * them.  Source: the format description of the safetensors package (Hugging Face), version 0.8.
 *
 * differs: more than four dimensions, names over 512 bytes and names with control characters are refused; of the
 * padding only spaces are accepted.
 */
#include <stdlib.h>

#include "format/format_int.h"

enum { SHOWN = 72 }; /* bytes of a name from the file in a message, with its NUL */

/* ---- dtypes ---- */

typedef enum dtype_kind { VIEW, INTEGER, OTHER } dtype_kind;

/* Every dtype of the format whose elements are whole bytes; the others are unknown to us by size too. */
static const struct st_dtype {
    char name[12];
    uint8_t bytes;
    dtype_kind kind;
    dtype type; /* of a VIEW */
} dtypes[] = {
    { "F32", 4, VIEW, DT_F32 }, { "BF16", 2, VIEW, DT_BF16 }, { "F16", 2, VIEW, DT_F16 }, { "F64", 8, OTHER, 0 },
    { "F8_E4M3", 1, OTHER, 0 }, { "F8_E5M2", 1, OTHER, 0 },   { "F8_E8M0", 1, OTHER, 0 }, { "C64", 8, OTHER, 0 },
    { "BOOL", 1, INTEGER, 0 },  { "U8", 1, INTEGER, 0 },      { "I8", 1, INTEGER, 0 },    { "U16", 2, INTEGER, 0 },
    { "I16", 2, INTEGER, 0 },   { "U32", 4, INTEGER, 0 },     { "I32", 4, INTEGER, 0 },   { "U64", 8, INTEGER, 0 },
    { "I64", 8, INTEGER, 0 },
};

static const struct st_dtype *find_dtype(const char *name) {
    for (size_t i = 0; i < sizeof(dtypes) / sizeof(dtypes[0]); i++)
        if (strcmp(dtypes[i].name, name) == 0) return &dtypes[i];
    return NULL;
}

static bool ends_with(const char *s, const char *end) {
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

bool st_is_buffer(const char *name, bool integer) {
    if (ends_with(name, ".inv_freq")) return true;
    const char *dot = strrchr(name, '.');
    return integer && !strstr(dot ? dot : name, "weight");
}

/* ---- header and metadata ---- */

static int by_key(const void *a, const void *b) {
    return strcmp(((const st_meta *)a)->key, ((const st_meta *)b)->key);
}

static gist_status read_meta(st_file *st, const char *what, gist_error *err) {
    json_t *object = json_object_get(st->header, "__metadata__");
    if (!object) return GIST_OK;
    if (!json_is_object(object)) return err_set(err, GIST_ERR_FORMAT, "%s: __metadata__ is not an object", what);
    st->meta = mem_alloc(st->alloc, json_object_size(object), sizeof(st_meta));
    if (!st->meta) return err_memory(err, "safetensors metadata");
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value) {
        char shown[SHOWN];
        if (!json_is_string(value))
            return err_set(err, GIST_ERR_FORMAT, "%s: __metadata__ \"%s\" is not a string", what,
                           json_show(shown, sizeof(shown), key, strlen(key)));
        st->meta[st->meta_count++] = (st_meta){ key, json_string_value(value) };
    }
    qsort(st->meta, st->meta_count, sizeof(st_meta), by_key);
    return GIST_OK;
}

gist_status st_begin(st_file *st, const gist_allocator *alloc, const void *bytes, size_t len, const char *what,
                     size_t *data_start, gist_error *err) {
    what = json_what(what);
    *st = (st_file){ .alloc = alloc ? alloc : mem_default() };
    rd r;
    rd_init(&r, bytes, len);
    uint64_t n = rd_u64(&r);
    if (r.failed) return err_set(err, GIST_ERR_FORMAT, "%s: %zu bytes are too few for a safetensors file", what, len);
    if (n > ST_MAX_HEADER)
        return err_set(err, GIST_ERR_FORMAT, "%s: not a safetensors file (a header of %llu bytes, at most %d)", what,
                       (unsigned long long)n, ST_MAX_HEADER);
    const char *text = (const char *)rd_bytes(&r, (size_t)n);
    if (!text)
        return err_set(err, GIST_ERR_FORMAT, "%s: cut off: a header of %llu bytes in a file of %zu", what,
                       (unsigned long long)n, len);
    size_t end = (size_t)n;
    while (end > 0 && text[end - 1] == ' ') end--;
    if (end < 2 || text[0] != '{' || text[end - 1] != '}')
        return err_at(err, GIST_ERR_FORMAT, 8, "%s: not a safetensors file (the header is no JSON object)", what);
    TRY(json_parse(text, end, what, &st->header, err));
    *data_start = r.pos;
    return read_meta(st, what, err);
}

/* ---- tensors ---- */

/* Where a tensor says its bytes are; a buffer that becomes no view has one too. */
typedef struct span {
    uint64_t begin, end;
    const char *name;
} span;

static int by_begin(const void *a, const void *b) {
    const span *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    if (x->end != y->end) return x->end < y->end ? -1 : 1;
    return strcmp(x->name, y->name);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const tensor_view *)a)->name, ((const tensor_view *)b)->name);
}

gist_status st_check_name(const char *name, const char *what, gist_error *err) {
    size_t len = strlen(name);
    char shown[SHOWN];
    if (len == 0 || len > ST_MAX_NAME)
        return err_set(err, GIST_ERR_FORMAT, "%s: tensor name \"%s\" has %zu bytes, expected 1 to %d", what,
                       json_show(shown, sizeof(shown), name, len), len, ST_MAX_NAME);
    for (size_t i = 0; i < len; i++)
        if ((uint8_t)name[i] < 0x20 || name[i] == 0x7f)
            return err_set(err, GIST_ERR_FORMAT, "%s: tensor name \"%s\" has a control character", what,
                           json_show(shown, sizeof(shown), name, len));
    return GIST_OK;
}

/* A non-negative integer of an array. */
static bool natural(const json_t *array, size_t i, uint64_t *out) {
    const json_t *v = json_array_get(array, i);
    if (!json_is_integer(v) || json_integer_value(v) < 0) return false;
    *out = (uint64_t)json_integer_value(v);
    return true;
}

/* Offsets into *s; they lie in the data and are as long as shape times element size. */
static gist_status read_span(span *s, const json_t *tensor, size_t element, size_t data_len, const char *what,
                             const char *shown, gist_error *err) {
    const json_t *shape = json_object_get(tensor, "shape");
    const json_t *offsets = json_object_get(tensor, "data_offsets");
    if (!json_is_array(shape) || !json_is_array(offsets) || json_array_size(offsets) != 2 ||
        !natural(offsets, 0, &s->begin) || !natural(offsets, 1, &s->end))
        return err_set(err, GIST_ERR_FORMAT, "%s: tensor \"%s\" lacks shape or two data_offsets", what, shown);
    if (s->begin > s->end || s->end > data_len)
        return err_set(err, GIST_ERR_FORMAT, "%s: tensor \"%s\" spans bytes %llu to %llu of %zu", what, shown,
                       (unsigned long long)s->begin, (unsigned long long)s->end, data_len);
    size_t bytes = element;
    for (size_t i = 0; i < json_array_size(shape); i++) {
        uint64_t dim;
        if (!natural(shape, i, &dim))
            return err_set(err, GIST_ERR_FORMAT, "%s: tensor \"%s\" has a dimension that is no natural number", what,
                           shown);
        if (dim > SIZE_MAX || !size_mul(bytes, (size_t)dim, &bytes))
            return err_set(err, GIST_ERR_FORMAT, "%s: tensor \"%s\" has a shape that overflows", what, shown);
    }
    if (bytes != s->end - s->begin)
        return err_set(err, GIST_ERR_FORMAT, "%s: tensor \"%s\" takes %zu bytes by its shape, %llu by its offsets",
                       what, shown, bytes, (unsigned long long)(s->end - s->begin));
    return GIST_OK;
}

/* One member of the header into *s and, when it is no skipped buffer, into the next view of st. */
static gist_status read_tensor(st_file *st, span *s, const char *name, const json_t *tensor, const uint8_t *data,
                               size_t data_len, const char *what, gist_error *err) {
    TRY(st_check_name(name, what, err));
    char shown[SHOWN], shown_dtype[24];
    json_show(shown, sizeof(shown), name, strlen(name));
    const char *type_name = json_string_value(json_object_get(tensor, "dtype"));
    if (!type_name) return err_set(err, GIST_ERR_FORMAT, "%s: tensor \"%s\" lacks a dtype", what, shown);
    const struct st_dtype *d = find_dtype(type_name);
    bool skip = d && d->kind != VIEW && st_is_buffer(name, d->kind == INTEGER);
    if (!d || (d->kind != VIEW && !skip))
        return err_set(err, GIST_ERR_UNSUPPORTED, "%s: tensor \"%s\" is %s; this program reads F32, BF16 and F16", what,
                       shown, json_show(shown_dtype, sizeof(shown_dtype), type_name, strlen(type_name)));
    s->name = name;
    TRY(read_span(s, tensor, d->bytes, data_len, what, shown, err));
    if (skip) return GIST_OK;

    const json_t *shape = json_object_get(tensor, "shape");
    size_t dims = json_array_size(shape);
    if (dims > TENSOR_MAX_DIMS)
        return err_set(err, GIST_ERR_UNSUPPORTED, "%s: tensor \"%s\" has %zu dimensions, at most %d are read", what,
                       shown, dims, TENSOR_MAX_DIMS);
    tensor_view *t = &st->tensors[st->count++];
    *t = (tensor_view){ .name = name, .type = d->type, .dims = (int)dims, .shape = { 1, 1, 1, 1 } };
    for (size_t i = 0; i < dims; i++) t->shape[i] = json_integer_value(json_array_get(shape, i));
    t->data = data + s->begin;
    t->bytes = (size_t)(s->end - s->begin);
    return GIST_OK;
}

/* No hole, no overlap, no rest. */
static gist_status check_cover(span *spans, size_t n, size_t data_len, const char *what, gist_error *err) {
    qsort(spans, n, sizeof(*spans), by_begin);
    uint64_t pos = 0;
    char shown[SHOWN];
    for (size_t i = 0; i < n; i++) {
        if (spans[i].begin != pos)
            return err_set(err, GIST_ERR_FORMAT, "%s: tensor \"%s\" begins at byte %llu, expected %llu (%s)", what,
                           json_show(shown, sizeof(shown), spans[i].name, strlen(spans[i].name)),
                           (unsigned long long)spans[i].begin, (unsigned long long)pos,
                           spans[i].begin < pos ? "overlap" : "hole");
        pos = spans[i].end;
    }
    if (pos != data_len)
        return err_set(err, GIST_ERR_FORMAT, "%s: the tensors end at byte %llu of %zu", what, (unsigned long long)pos,
                       data_len);
    return GIST_OK;
}

gist_status st_finish(st_file *st, const void *bytes, size_t len, size_t data_start, const char *what,
                      gist_error *err) {
    what = json_what(what);
    st->data = (const uint8_t *)bytes + data_start;
    size_t n = json_object_size(st->header), used = 0;
    span *spans = mem_alloc(st->alloc, n, sizeof(*spans));
    st->tensors = mem_alloc(st->alloc, n, sizeof(*st->tensors));
    gist_status status = spans && st->tensors ? GIST_OK : err_memory(err, "safetensors index");
    const char *name;
    json_t *value;
    json_object_foreach(st->header, name, value) {
        if (status != GIST_OK) break;
        if (strcmp(name, "__metadata__") != 0)
            status = read_tensor(st, &spans[used++], name, value, st->data, len - data_start, what, err);
    }
    if (status == GIST_OK) status = check_cover(spans, used, len - data_start, what, err);
    if (status == GIST_OK) qsort(st->tensors, st->count, sizeof(*st->tensors), by_name);
    mem_free(st->alloc, spans);
    return status;
}

/* ---- the whole ---- */

gist_status st_parse(st_file *out, const gist_allocator *alloc, const void *bytes, size_t len, const char *what,
                     gist_error *err) {
    st_file st;
    size_t data_start = 0;
    gist_status status = st_begin(&st, alloc, bytes, len, what, &data_start, err);
    if (status == GIST_OK) status = st_finish(&st, bytes, len, data_start, what, err);
    if (status == GIST_OK)
        *out = st;
    else
        st_close(&st);
    return status;
}

gist_status st_open(st_file *out, const gist_allocator *alloc, const char *path, gist_error *err) {
    file_map map;
    st_file st;
    TRY(map_open(path, &map, err));
    gist_status status = st_parse(&st, alloc, map.data, map.size, path, err);
    if (status != GIST_OK) {
        map_close(&map);
        return status;
    }
    st.map = map;
    *out = st;
    return GIST_OK;
}

void st_close(st_file *st) {
    if (!st) return;
    mem_free(st->alloc, st->tensors);
    mem_free(st->alloc, st->meta);
    json_decref(st->header);
    map_close(&st->map);
    *st = (st_file){ 0 };
}

const tensor_view *st_find(const st_file *st, const char *name) {
    tensor_view key = { .name = name };
    return st->count ? bsearch(&key, st->tensors, st->count, sizeof(key), by_name) : NULL;
}

bool st_find_i8(const st_file *st, const char *name, tensor_view *out) {
    const json_t *tensor = json_object_get(st->header, name); /* read_tensor has judged its shape and offsets */
    const char *type_name = json_string_value(json_object_get(tensor, "dtype"));
    const json_t *shape = json_object_get(tensor, "shape"), *offsets = json_object_get(tensor, "data_offsets");
    size_t dims = json_array_size(shape);
    if (!type_name || strcmp(type_name, "I8") != 0 || dims > TENSOR_MAX_DIMS) return false;
    json_int_t begin = json_integer_value(json_array_get(offsets, 0));
    json_int_t end = json_integer_value(json_array_get(offsets, 1));
    *out = (tensor_view){ .name = name, .type = DT_Q8_0, .dims = (int)dims, .shape = { 1, 1, 1, 1 } };
    for (size_t i = 0; i < dims; i++) out->shape[i] = json_integer_value(json_array_get(shape, i));
    out->data = st->data + begin;
    out->bytes = (size_t)(end - begin);
    return true;
}

const char *st_meta_get(const st_file *st, const char *key) {
    st_meta probe = { key, NULL };
    const st_meta *m = st->meta_count ? bsearch(&probe, st->meta, st->meta_count, sizeof(probe), by_key) : NULL;
    return m ? m->value : NULL;
}
