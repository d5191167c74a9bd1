/* gguf.c - reading one GGUF file, versions 2 and 3, from bytes that are not trusted.
 *
 *   "GGUF"  version: u32  tensors: u64  keys: u64
 *   keys x      key: string   kind: u32   value                        string: length: u64, bytes
 *   tensors x   name: string  dims: u32   extent: u64 x dims  type: u32  offset: u64
 *   padding to the alignment, then the tensors, each at its offset from here, padded to the alignment
 *
 * An array's value is kind: u32, count: u64, elements.  Extents stand innermost first; views have them outermost first.
 * The alignment is 32 or general.alignment.  Numbers are little-endian.  Tensors lie one after another without holes,
 * so that nothing can hide between them.  Source: the format description of the ggml project.
 *
 * differs: arrays of arrays, files of big-endian machines and version 1 are refused; so are tensors with an extent of 0
 * or more than four dimensions.
 */
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>

#include "format/format_int.h"

enum { SHOWN = 72, KEY_MAX = 65535, KEY_LEAST = 8 + 1 + 4 + 1, INFO_LEAST = 8 + 1 + 4 + 8 + 4 + 8 };

/* ---- kinds of values ---- */

static const struct {
    const char *name;
    uint8_t bytes; /* 0: of its own length */
    bool integer;
} kinds[GGUF_KINDS] = {
    [GGUF_U8] = { "u8", 1, true },       [GGUF_I8] = { "i8", 1, true },       [GGUF_U16] = { "u16", 2, true },
    [GGUF_I16] = { "i16", 2, true },     [GGUF_U32] = { "u32", 4, true },     [GGUF_I32] = { "i32", 4, true },
    [GGUF_F32] = { "f32", 4, false },    [GGUF_BOOL] = { "bool", 1, false },  [GGUF_STRING] = { "string", 0, false },
    [GGUF_ARRAY] = { "array", 0, false }, [GGUF_U64] = { "u64", 8, true },     [GGUF_I64] = { "i64", 8, true },
    [GGUF_F64] = { "f64", 8, false },
};

const char *gguf_kind_name(gguf_kind kind) {
    return kinds[kind].name;
}

size_t gguf_kind_bytes(gguf_kind kind) {
    return kinds[kind].bytes;
}

/* ---- types of tensors ---- */

/* By their numbers in the file; "" is a number that is no longer used. */
static const struct ggml_type {
    const char *name;
    bool read;
    dtype type;
} ggml_types[] = {
    { "F32", true, DT_F32 },   { "F16", true, DT_F16 },   { "Q4_0", true, DT_Q4_0 }, { "Q4_1", false, 0 },
    { "", false, 0 },          { "", false, 0 },          { "Q5_0", false, 0 },      { "Q5_1", false, 0 },
    { "Q8_0", true, DT_Q8_0 }, { "Q8_1", false, 0 },      { "Q2_K", false, 0 },      { "Q3_K", false, 0 },
    { "Q4_K", true, DT_Q4_K }, { "Q5_K", true, DT_Q5_K }, { "Q6_K", true, DT_Q6_K }, { "Q8_K", false, 0 },
    { "IQ2_XXS", false, 0 },   { "IQ2_XS", false, 0 },    { "IQ3_XXS", false, 0 },   { "IQ1_S", false, 0 },
    { "IQ4_NL", false, 0 },    { "IQ3_S", false, 0 },     { "IQ2_S", false, 0 },     { "IQ4_XS", false, 0 },
    { "I8", false, 0 },        { "I16", false, 0 },       { "I32", false, 0 },       { "I64", false, 0 },
    { "F64", false, 0 },       { "IQ1_M", false, 0 },     { "BF16", true, DT_BF16 },
};
enum { GGML_TYPES = sizeof ggml_types / sizeof *ggml_types };

int gguf_type_number(dtype t) {
    for (int i = 0; i < GGML_TYPES; i++)
        if (ggml_types[i].read && ggml_types[i].type == t) return i;
    return -1;
}

/* ---- reading ---- */

/* The state of one parse. */
typedef struct gguf_reader {
    gguf_file *g;
    rd r;
    const char *what;
    uint64_t *offsets; /* [count] of the tensors, from the beginning of the data */
} gguf_reader;

static gist_status cut_off(const gguf_reader *p, gist_error *err) {
    return err_at(err, GIST_ERR_FORMAT, p->r.pos, "%s: cut off at byte %zu", p->what, p->r.len);
}

/* A string of the file: *s is NULL when it does not fit. */
static size_t read_string(rd *r, const char **s) {
    uint64_t len = rd_u64(r);
    *s = len <= rd_left(r) ? (const char *)rd_bytes(r, (size_t)len) : NULL;
    if (!*s) r->failed = true;
    return *s ? (size_t)len : 0;
}

/* A key or name as a string of its own; `kind` is for messages. */
static gist_status read_name(gguf_reader *p, const char *kind, size_t most, char **out, gist_error *err) {
    const char *s;
    size_t at = p->r.pos, len = read_string(&p->r, &s), bad = 0;
    char shown[SHOWN];
    if (!s) return cut_off(p, err);
    if (len == 0 || len > most)
        return err_at(err, GIST_ERR_FORMAT, at, "%s: a %s of %zu bytes, expected 1 to %zu", p->what, kind, len, most);
    bool sound = utf8_valid(s, len, &bad);
    for (size_t i = 0; i < len; i++) sound = sound && (uint8_t)s[i] >= 0x20 && s[i] != 0x7f;
    if (!sound)
        return err_at(err, GIST_ERR_FORMAT, at, "%s: %s \"%s\" has a control character or is not UTF-8", p->what, kind,
                      json_show(shown, sizeof shown, s, len));
    *out = mem_strndup(p->g->alloc, s, len);
    return *out ? GIST_OK : err_memory(err, "GGUF directory");
}

static gist_status read_elements(gguf_reader *p, gguf_value *v, const char *shown, gist_error *err) {
    v->data = p->r.p + p->r.pos;
    size_t bytes = kinds[v->kind].bytes, all;
    if (v->kind == GGUF_STRING) {
        if (v->count > rd_left(&p->r) / 8) return cut_off(p, err);
        if (v->array) v->strings = mem_alloc(p->g->alloc, v->count, sizeof *v->strings);
        if (v->array && !v->strings) return err_memory(err, "GGUF strings");
        for (size_t i = 0; i < v->count; i++) {
            const char *s;
            if (v->array) v->strings[i] = p->r.p + p->r.pos;
            read_string(&p->r, &s);
            if (!s) return cut_off(p, err);
        }
        v->bytes = (size_t)(p->r.p + p->r.pos - v->data);
        return GIST_OK;
    }
    if (!size_mul(v->count, bytes, &all) || !rd_bytes(&p->r, all)) return cut_off(p, err);
    v->bytes = all;
    for (size_t i = 0; v->kind == GGUF_BOOL && i < v->count; i++)
        if (v->data[i] > 1)
            return err_set(err, GIST_ERR_FORMAT, "%s: %s: expected bool, found %d", p->what, shown, v->data[i]);
    return GIST_OK;
}

static gist_status read_value(gguf_reader *p, gguf_value *v, gist_error *err) {
    char *key, shown[SHOWN];
    TRY(read_name(p, "key", KEY_MAX, &key, err));
    *v = (gguf_value){ .key = key, .count = 1 };
    p->g->value_count++;
    json_show(shown, sizeof shown, key, strlen(key));
    uint32_t kind = rd_u32(&p->r);
    v->array = kind == GGUF_ARRAY;
    uint64_t count = 1;
    if (v->array) {
        kind = rd_u32(&p->r);
        count = rd_u64(&p->r);
    }
    if (p->r.failed || count > SIZE_MAX) return cut_off(p, err);
    if (kind >= GGUF_KINDS)
        return err_set(err, GIST_ERR_FORMAT, "%s: %s has kind %" PRIu32 ", expected 0 to %d", p->what, shown, kind,
                       GGUF_KINDS - 1);
    if (kind == GGUF_ARRAY)
        return err_set(err, GIST_ERR_UNSUPPORTED, "%s: %s is an array of arrays, which is not read", p->what, shown);
    v->kind = (gguf_kind)kind;
    v->count = (size_t)count;
    return read_elements(p, v, shown, err);
}

static gist_status read_type(const gguf_reader *p, tensor_view *t, uint32_t type, gist_error *err) {
    char shown[SHOWN];
    json_show(shown, sizeof shown, t->name, strlen(t->name));
    const char *name = type < GGML_TYPES ? ggml_types[type].name : "";
    if (*name && ggml_types[type].read) {
        t->type = ggml_types[type].type;
        return GIST_OK;
    }
    return err_set(err, GIST_ERR_UNSUPPORTED,
                   "%s: tensor \"%s\" is of type %s%s%" PRIu32 "%s; this program reads F32, F16, BF16, Q8_0, Q4_0, "
                   "Q4_K, Q5_K and Q6_K",
                   p->what, shown, name, *name ? " (" : "", type, *name ? ")" : "");
}

static gist_status read_info(gguf_reader *p, tensor_view *t, gist_error *err) {
    char *name, shown[SHOWN];
    TRY(read_name(p, "tensor name", ST_MAX_NAME, &name, err));
    *t = (tensor_view){ .name = name, .shape = { 1, 1, 1, 1 } };
    uint64_t *offset = &p->offsets[p->g->count++], extent[TENSOR_MAX_DIMS] = { 1, 1, 1, 1 };
    json_show(shown, sizeof shown, name, strlen(name));
    uint32_t dims = rd_u32(&p->r);
    if (!p->r.failed && (dims < 1 || dims > TENSOR_MAX_DIMS))
        return err_set(err, GIST_ERR_FORMAT, "%s: tensor \"%s\" has %" PRIu32 " dimensions, expected 1 to %d", p->what,
                       shown, dims, TENSOR_MAX_DIMS);
    t->dims = (int)dims;
    for (int i = 0; i < t->dims; i++) extent[i] = rd_u64(&p->r);
    uint32_t type = rd_u32(&p->r);
    *offset = rd_u64(&p->r);
    if (p->r.failed) return cut_off(p, err);
    TRY(read_type(p, t, type, err));
    size_t block = dt_block(t->type), blocks = (size_t)(extent[0] / block);
    bool fits = true;
    for (int i = 0; i < t->dims; i++) {
        if (extent[i] == 0 || extent[i] > INT64_MAX)
            return err_set(err, GIST_ERR_FORMAT, "%s: tensor \"%s\" has an extent of %" PRIu64, p->what, shown,
                           extent[i]);
        if (i > 0) fits = fits && size_mul(blocks, (size_t)extent[i], &blocks);
        t->shape[t->dims - 1 - i] = (int64_t)extent[i];
    }
    if (extent[0] % block != 0)
        return err_set(err, GIST_ERR_FORMAT,
                       "%s: tensor \"%s\" has rows of %" PRIu64 ", expected a multiple of %zu (%s)", p->what, shown,
                       extent[0], block, dt_name(t->type));
    size_t elements; /* other rooms count in elements and in f32 bytes */
    fits = fits && size_mul(blocks, block * sizeof(float), &elements);
    if (!fits) return err_set(err, GIST_ERR_FORMAT, "%s: tensor \"%s\" has a shape that overflows", p->what, shown);
    t->bytes = dt_bytes(t->type, blocks * block);
    return GIST_OK;
}

/* In the order of the file: each tensor begins where the padding of the one before ends. */
static gist_status place(gguf_reader *p, const uint8_t *data, uint64_t data_len, gist_error *err) {
    gguf_file *g = p->g;
    uint64_t align = g->alignment, next = 0, end = 0;
    char shown[SHOWN];
    for (size_t i = 0; i < g->count; i++) {
        tensor_view *t = &g->tensors[i];
        json_show(shown, sizeof shown, t->name, strlen(t->name));
        if (p->offsets[i] != next)
            return err_set(err, GIST_ERR_FORMAT,
                           "%s: tensor \"%s\" is at offset %" PRIu64 ", expected %" PRIu64 " (%s)", p->what, shown,
                           p->offsets[i], next,
                           p->offsets[i] % align ? "alignment" : p->offsets[i] < next ? "overlap" : "hole");
        if (next > data_len || t->bytes > data_len - next)
            return err_set(err, GIST_ERR_FORMAT, "%s: tensor \"%s\" takes %zu bytes at offset %" PRIu64 " of %" PRIu64,
                           p->what, shown, t->bytes, next, data_len);
        if (data) t->data = data + next;
        end = next + t->bytes;
        next = end + (align - end % align) % align;
    }
    if (data_len > next)
        return err_set(err, GIST_ERR_FORMAT, "%s: the tensors end at byte %" PRIu64 " of %" PRIu64, p->what, end,
                       data_len);
    return GIST_OK;
}

/* ---- order ---- */

static int by_key(const void *a, const void *b) {
    return strcmp(((const gguf_value *)a)->key, ((const gguf_value *)b)->key);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const tensor_view *)a)->name, ((const tensor_view *)b)->name);
}

static gist_status sort_values(gguf_reader *p, gist_error *err) {
    gguf_file *g = p->g;
    char shown[SHOWN];
    qsort(g->values, g->value_count, sizeof *g->values, by_key);
    for (size_t i = 1; i < g->value_count; i++)
        if (by_key(&g->values[i - 1], &g->values[i]) == 0)
            return err_set(err, GIST_ERR_FORMAT, "%s: key %s is there twice", p->what,
                           json_show(shown, sizeof shown, g->values[i].key, strlen(g->values[i].key)));
    return GIST_OK;
}

static gist_status sort_tensors(gguf_reader *p, gist_error *err) {
    gguf_file *g = p->g;
    char shown[SHOWN];
    qsort(g->tensors, g->count, sizeof *g->tensors, by_name);
    for (size_t i = 1; i < g->count; i++)
        if (by_name(&g->tensors[i - 1], &g->tensors[i]) == 0)
            return err_set(err, GIST_ERR_FORMAT, "%s: tensor \"%s\" is there twice", p->what,
                           json_show(shown, sizeof shown, g->tensors[i].name, strlen(g->tensors[i].name)));
    return GIST_OK;
}

/* ---- the whole ---- */

static gist_status read_head(gguf_reader *p, uint64_t *tensors, uint64_t *keys, gist_error *err) {
    rd *r = &p->r;
    const uint8_t *magic = rd_bytes(r, 4);
    if (!magic || memcmp(magic, "GGUF", 4) != 0)
        return err_set(err, GIST_ERR_FORMAT, "%s: not a GGUF file (it does not begin with \"GGUF\")", p->what);
    uint32_t version = rd_u32(r);
    *tensors = rd_u64(r);
    *keys = rd_u64(r);
    if (r->failed) return cut_off(p, err);
    if (version && (version & 0xffffu) == 0)
        return err_set(err, GIST_ERR_UNSUPPORTED, "%s: a GGUF file of big-endian numbers is not read", p->what);
    if (version != 2 && version != 3)
        return err_set(err, GIST_ERR_UNSUPPORTED, "%s: GGUF version %" PRIu32 "; this program reads 2 and 3", p->what,
                       version);
    p->g->version = version;
    if (*keys > rd_left(r) / KEY_LEAST || *tensors > rd_left(r) / INFO_LEAST)
        return err_set(err, GIST_ERR_FORMAT, "%s: %" PRIu64 " keys and %" PRIu64 " tensors in a file of %zu bytes",
                       p->what, *keys, *tensors, r->len);
    return GIST_OK;
}

static gist_status read_alignment(gguf_reader *p, gist_error *err) {
    int align = 32;
    TRY(gguf_get_int(p->g, "general.alignment", false, 1, 1 << 20, &align, err));
    if (align & (align - 1))
        return err_set(err, GIST_ERR_FORMAT, "%s: general.alignment is %d, expected a power of two", p->what, align);
    p->g->alignment = (size_t)align;
    return GIST_OK;
}

static gist_status read_all(gguf_reader *p, uint64_t file_len, bool header_only, gist_error *err) {
    gguf_file *g = p->g;
    uint64_t tensors, keys;
    TRY(read_head(p, &tensors, &keys, err));
    g->values = mem_alloc(g->alloc, (size_t)keys, sizeof *g->values);
    g->tensors = mem_alloc(g->alloc, (size_t)tensors, sizeof *g->tensors);
    p->offsets = mem_alloc(g->alloc, (size_t)tensors, sizeof *p->offsets);
    if (!g->values || !g->tensors || !p->offsets) return err_memory(err, "GGUF directory");
    for (uint64_t i = 0; i < keys; i++) TRY(read_value(p, &g->values[i], err));
    TRY(sort_values(p, err));
    TRY(read_alignment(p, err));
    for (uint64_t i = 0; i < tensors; i++) TRY(read_info(p, &g->tensors[i], err));
    uint64_t start = p->r.pos + (g->alignment - p->r.pos % g->alignment) % g->alignment;
    if (start > file_len) start = file_len; /* no tensors: the padding may be missing */
    TRY(place(p, header_only ? NULL : p->r.p + start, file_len - start, err));
    return sort_tensors(p, err);
}

gist_status gguf_parse_header(gguf_file *out, const gist_allocator *alloc, const void *bytes, size_t len,
                              uint64_t file_len, const char *what, gist_error *err) {
    gguf_file g = { .alloc = alloc ? alloc : mem_default() };
    what = json_what(what);
    g.what = mem_strndup(g.alloc, what, strlen(what));
    gguf_reader p = { .g = &g, .what = what };
    rd_init(&p.r, bytes, len);
    gist_status status = g.what ? read_all(&p, file_len, len != file_len, err) : err_memory(err, "GGUF directory");
    mem_free(g.alloc, p.offsets);
    if (status == GIST_OK)
        *out = g;
    else
        gguf_close(&g);
    return status;
}

gist_status gguf_parse(gguf_file *g, const gist_allocator *alloc, const void *bytes, size_t len, const char *what,
                       gist_error *err) {
    return gguf_parse_header(g, alloc, bytes, len, len, what, err);
}

gist_status gguf_open(gguf_file *g, const gist_allocator *alloc, const char *path, gist_error *err) {
    file_map map;
    TRY(map_open(path, &map, err));
    gist_status status = gguf_parse(g, alloc, map.data, map.size, path, err);
    if (status == GIST_OK)
        g->map = map;
    else
        map_close(&map);
    return status;
}

void gguf_close(gguf_file *g) {
    if (!g) return;
    for (size_t i = 0; i < g->value_count; i++) {
        mem_free(g->alloc, (void *)(uintptr_t)g->values[i].key);
        mem_free(g->alloc, g->values[i].strings);
    }
    for (size_t i = 0; i < g->count; i++) mem_free(g->alloc, (void *)(uintptr_t)g->tensors[i].name);
    mem_free(g->alloc, g->values);
    mem_free(g->alloc, g->tensors);
    mem_free(g->alloc, g->what);
    map_close(&g->map);
    *g = (gguf_file){ 0 };
}

const tensor_view *gguf_find(const gguf_file *g, const char *name) {
    tensor_view key = { .name = name };
    return g->count ? bsearch(&key, g->tensors, g->count, sizeof key, by_name) : NULL;
}

const gguf_value *gguf_value_find(const gguf_file *g, const char *key) {
    gguf_value probe = { .key = key };
    return g->value_count ? bsearch(&probe, g->values, g->value_count, sizeof probe, by_key) : NULL;
}
