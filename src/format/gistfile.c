/* gistfile.c - .gist files: a safetensors file that holds the rows of one gist (docs/formats/gist.md).
 *
 *   metadata   the 20 strings of `fields` below, all of them and no others
 *   tensors    layers.0.key, layers.0.value, layers.1.key, ...   each [k,G,D] of one dtype, and no others
 *              encoder_output [k,width] f32 behind them, of encoder-decoder models alone
 *   q8_0       layers.0.key as I8 [k,G,D], layers.0.key_scale as F16 [k,G,D/32], then the values likewise: safetensors
 *              has no block types, so the blocks of a row are taken apart here and put together again
 *   checksum   XXH3-128 over the fields (hash_*): key and text of every metadata string but the checksum, in byte order
 *              of the keys; then the bytes of the tensors in the order above
 *
 * One table describes the metadata; the writer, the reader and the checksum walk it.  The reader judges the version
 * before anything else, then the texts, the tensors, and last the checksum.
 */
#include "format/format_int.h"

/* ---- metadata ---- */

typedef enum text_kind { CONSTANT, VERSION, CHECKSUM, HEX, HEX_OR_EMPTY, WORDS, INTEGER, BOOLEAN, DTYPE } text_kind;

typedef struct field {
    const char *key;
    text_kind kind;
    size_t at;            /* offset in gfile */
    int lo, hi;           /* INTEGER: bounds; WORDS: hi is the size of the array */
    const char *constant; /* CONSTANT */
} field;

#define TEXT_FIELD(member) offsetof(gfile, member), 0, (int)sizeof(((gfile *)0)->member), NULL
#define INT_FIELD(member, lo, hi) offsetof(gfile, member), lo, hi, NULL
#define NO_FIELD 0, 0, 0, NULL

/* In byte order of the keys: the order of the checksum. */
static const field fields[] = {
    { "adapter", HEX_OR_EMPTY, TEXT_FIELD(adapter) },
    { "checksum", CHECKSUM, NO_FIELD },
    { "condition", WORDS, TEXT_FIELD(condition) },
    { "dtype", DTYPE, INT_FIELD(type, 0, 0) },
    { "family", WORDS, TEXT_FIELD(family) },
    { "first_position", INTEGER, INT_FIELD(first_position, 0, GFILE_MAX_POSITION) },
    { "format", CONSTANT, 0, 0, 0, "gist" },
    { "head_dim", INTEGER, INT_FIELD(head_dim, 1, GFILE_MAX_WIDTH) },
    { "id", HEX, TEXT_FIELD(id) },
    { "k", INTEGER, INT_FIELD(k, 1, GFILE_MAX_K) },
    { "kernels", WORDS, TEXT_FIELD(kernels) },
    { "kv_heads", INTEGER, INT_FIELD(kv_heads, 1, GFILE_MAX_HEADS) },
    { "layers", INTEGER, INT_FIELD(layers, 1, GFILE_MAX_LAYERS) },
    { "model", HEX, TEXT_FIELD(model) },
    { "prompt_tokens", INTEGER, INT_FIELD(prompt_tokens, 0, GFILE_MAX_POSITION) },
    { "rebased", BOOLEAN, INT_FIELD(rebased, 0, 0) },
    { "template", WORDS, TEXT_FIELD(template_name) },
    { "tokenizer", HEX, TEXT_FIELD(tokenizer) },
    { "tuned", BOOLEAN, INT_FIELD(tuned, 0, 0) },
    { "version", VERSION, NO_FIELD },
};
enum { FIELDS = sizeof(fields) / sizeof(fields[0]), TEXT_MAX = 40, HEX_DIGITS = 32, MAX_OUTPUT = 1 << 17 };

/* What rows can be stored in. */
static bool is_row_type(dtype t) {
    return t == DT_F32 || t == DT_BF16 || t == DT_F16 || t == DT_Q8_0;
}

/* The text of a field of g; longer than the field's own bound when g is not sound. */
static void field_text(const field *f, const gfile *g, char out[TEXT_MAX]) {
    const char *at = (const char *)g + f->at;
    switch (f->kind) {
    case CONSTANT: snprintf(out, TEXT_MAX, "%s", f->constant); break;
    case VERSION: snprintf(out, TEXT_MAX, "%s", g->width ? "2" : "1"); break;
    case CHECKSUM: out[0] = '\0'; break;
    case HEX:
    case HEX_OR_EMPTY:
    case WORDS: snprintf(out, TEXT_MAX, "%.*s", f->hi, at); break;
    case INTEGER: snprintf(out, TEXT_MAX, "%d", *(const int *)(const void *)at); break;
    case BOOLEAN: snprintf(out, TEXT_MAX, "%s", *(const bool *)at ? "true" : "false"); break;
    case DTYPE: snprintf(out, TEXT_MAX, "%s", (unsigned)g->type < DT_COUNT ? dt_name(g->type) : "?"); break;
    }
}

static bool is_hex(const char *s) {
    size_t n = strspn(s, "0123456789abcdef");
    return n == HEX_DIGITS && s[n] == '\0';
}

static bool is_words(const char *s, size_t cap) {
    size_t n = strlen(s);
    for (size_t i = 0; i < n; i++)
        if (s[i] < 0x20 || s[i] > 0x7e) return false;
    return n > 0 && n < cap;
}

/* Decimal digits without sign or leading zero. */
static bool parse_int(const char *s, int lo, int hi, int *out) {
    size_t n = strspn(s, "0123456789");
    if (n == 0 || n > 10 || s[n] != '\0' || (n > 1 && s[0] == '0')) return false;
    int64_t v = 0;
    for (size_t i = 0; i < n; i++) v = v * 10 + (s[i] - '0');
    if (v < lo || v > hi) return false;
    *out = (int)v;
    return true;
}

/* text into the member of g that f describes; what was expected into `expected` when it is something else. */
static bool field_read(const field *f, const char *text, gfile *g, char expected[TEXT_MAX]) {
    char *at = (char *)g + f->at;
    switch (f->kind) {
    case CONSTANT: snprintf(expected, TEXT_MAX, "\"%s\"", f->constant); return strcmp(text, f->constant) == 0;
    case VERSION: snprintf(expected, TEXT_MAX, "1 or 2"); return strcmp(text, "1") == 0 || strcmp(text, "2") == 0;
    case CHECKSUM: snprintf(expected, TEXT_MAX, "%d lower-case hex digits", HEX_DIGITS); return is_hex(text);
    case HEX:
    case HEX_OR_EMPTY:
        snprintf(expected, TEXT_MAX, "%d lower-case hex digits", HEX_DIGITS);
        if (!is_hex(text) && (f->kind == HEX || text[0])) return false;
        memcpy(at, text, strlen(text) + 1);
        return true;
    case WORDS:
        snprintf(expected, TEXT_MAX, "1 to %d printable characters", f->hi - 1);
        if (!is_words(text, (size_t)f->hi)) return false;
        memcpy(at, text, strlen(text) + 1);
        return true;
    case INTEGER:
        snprintf(expected, TEXT_MAX, "an integer in [%d,%d]", f->lo, f->hi);
        return parse_int(text, f->lo, f->hi, (int *)(void *)at);
    case BOOLEAN:
        snprintf(expected, TEXT_MAX, "\"true\" or \"false\"");
        *(bool *)at = strcmp(text, "true") == 0;
        return *(bool *)at || strcmp(text, "false") == 0;
    case DTYPE:
        snprintf(expected, TEXT_MAX, "f32, bf16, f16 or q8_0");
        return dt_from_name(text, &g->type) && is_row_type(g->type);
    }
    return false;
}

/* texts[i] belongs to fields[i]; fills the members of g.  `code` is what a bad text is called. */
static gist_status read_fields(gfile *g, const char *const texts[FIELDS], const char *what, gist_status code,
                               gist_error *err) {
    for (size_t i = 0; i < FIELDS; i++) {
        char expected[TEXT_MAX], shown[TEXT_MAX];
        if (!field_read(&fields[i], texts[i], g, expected))
            return err_set(err, code, "%s: \"%s\" must be %s, found \"%s\"", what, fields[i].key, expected,
                           json_show(shown, sizeof(shown), texts[i], strlen(texts[i])));
    }
    if (g->rebased && g->first_position != 0)
        return err_set(err, code, "%s: a rebased gist has first_position 0, found %d", what, g->first_position);
    if ((size_t)g->head_dim % dt_block(g->type) != 0)
        return err_set(err, code, "%s: rows in %s need a head_dim that is a multiple of %zu, found %d", what,
                       dt_name(g->type), dt_block(g->type), g->head_dim);
    return GIST_OK;
}

/* ---- rows ---- */

#define OUTPUT "encoder_output"

/* Tensors of the file, and of a layer. */
static size_t parts_of_layer(const gfile *g) {
    return g->type == DT_Q8_0 ? 4 : 2;
}

static size_t parts_of(const gfile *g) {
    return parts_of_layer(g) * (size_t)g->layers + (g->width > 0);
}

/* Tensor i of the file as the metadata promise it, without its data. */
static tensor_view part_view(const gfile *g, size_t i, char name[32]) {
    size_t n = parts_of_layer(g);
    if (i == n * (size_t)g->layers) {
        snprintf(name, 32, OUTPUT);
        size_t bytes = (size_t)g->k * (size_t)g->width * sizeof(float);
        return (tensor_view){ name, DT_F32, 2, { g->k, g->width, 1, 1 }, NULL, bytes };
    }
    size_t which = i % n, rows = (size_t)g->k * (size_t)g->kv_heads;
    bool scale = n == 4 && which % 2 == 1;
    snprintf(name, 32, "layers.%d.%s%s", (int)(i / n), which < n / 2 ? "key" : "value", scale ? "_scale" : "");
    tensor_view t = { name, g->type, 3, { g->k, g->kv_heads, g->head_dim, 1 }, NULL, 0 };
    if (scale) {
        t.type = DT_F16;
        t.shape[2] = g->head_dim / (int)dt_block(g->type);
    }
    size_t elements = rows * (size_t)t.shape[2];
    t.bytes = t.type == DT_Q8_0 ? elements : dt_bytes(t.type, elements); /* of q8_0 the integers alone */
    return t;
}

/* Bytes of the keys, or values, of one layer; the bounds of the fields keep it below 2^32. */
static size_t row_bytes(const gfile *g) {
    return dt_bytes(g->type, (size_t)g->k * (size_t)g->kv_heads * (size_t)g->head_dim);
}

size_t gfile_bytes(const gfile *g) {
    return 2 * (size_t)g->layers * row_bytes(g);
}

/* Blocks of q8_0 { scale, 32 integers } apart, and together again. */
static void split_blocks(uint8_t *q, uint8_t *scale, const uint8_t *blocks, size_t n) {
    for (size_t i = 0; i < n; i++) {
        memcpy(scale + 2 * i, blocks + 34 * i, 2);
        memcpy(q + 32 * i, blocks + 34 * i + 2, 32);
    }
}

static void join_blocks(uint8_t *blocks, const uint8_t *q, const uint8_t *scale, size_t n) {
    for (size_t i = 0; i < n; i++) {
        memcpy(blocks + 34 * i, scale + 2 * i, 2);
        memcpy(blocks + 34 * i + 2, q + 32 * i, 32);
    }
}

/* A tensor of the file, in *t. */
static bool find_part(const gfile *g, const char *name, tensor_view *t) {
    const tensor_view *view = st_find(&g->st, name);
    if (view) *t = *view;
    return view || (g->type == DT_Q8_0 && st_find_i8(&g->st, name, t));
}

static void read_rows(const gfile *g, size_t part, uint8_t *rows) {
    char name[32];
    tensor_view q, scale;
    part_view(g, part, name);
    if (!find_part(g, name, &q)) return; /* gfile_open made sure */
    if (g->type != DT_Q8_0) {
        memcpy(rows, q.data, q.bytes);
        return;
    }
    part_view(g, part + 1, name);
    if (find_part(g, name, &scale)) join_blocks(rows, q.data, scale.data, q.bytes / 32);
}

void gfile_rows(const gfile *g, int layer, void *keys, void *values) {
    size_t n = parts_of_layer(g), first = (size_t)layer * n;
    read_rows(g, first, keys);
    read_rows(g, first + n / 2, values);
}

void gfile_output(const gfile *g, float *output) {
    const tensor_view *t = st_find(&g->st, OUTPUT);
    if (t && g->width) memcpy(output, t->data, t->bytes);
}

/* ---- checksum ---- */

static gist_status checksum(const gfile *g, const char *const texts[FIELDS], const tensor_view *parts, char out[33],
                            gist_error *err) {
    hasher *h = hash_begin(g->alloc);
    if (!h) return err_memory(err, "checksum");
    for (size_t i = 0; i < FIELDS; i++) {
        if (fields[i].kind == CHECKSUM) continue;
        hash_str(h, fields[i].key);
        hash_str(h, texts[i]);
    }
    for (size_t i = 0; i < parts_of(g); i++) hash_add(h, parts[i].data, parts[i].bytes);
    hash_hex(hash_end(h), out);
    return GIST_OK;
}

/* ---- reading ---- */

/* texts[i] for fields[i]: every field is there and nothing else.  Both lists are sorted by key. */
static gist_status match_fields(const st_file *st, const char *texts[FIELDS], const char *what, gist_error *err) {
    for (size_t i = 0; i < FIELDS; i++) {
        texts[i] = st_meta_get(st, fields[i].key);
        if (!texts[i]) return err_set(err, GIST_ERR_FORMAT, "%s: metadata \"%s\" is missing", what, fields[i].key);
    }
    for (size_t i = 0; i < st->meta_count; i++) {
        char shown[TEXT_MAX];
        if (i >= FIELDS || strcmp(st->meta[i].key, fields[i].key) != 0)
            return err_set(err, GIST_ERR_FORMAT, "%s: unknown metadata \"%s\"", what,
                           json_show(shown, sizeof(shown), st->meta[i].key, strlen(st->meta[i].key)));
    }
    return GIST_OK;
}

static gist_status check_version(const st_file *st, const char *what, gist_error *err) {
    const char *format = st_meta_get(st, "format"), *version = st_meta_get(st, "version");
    if (!format || strcmp(format, "gist") != 0 || !version)
        return err_set(err, GIST_ERR_FORMAT, "%s: not a .gist file (metadata \"format\" and \"version\")", what);
    char shown[TEXT_MAX];
    if (strcmp(version, "1") != 0 && strcmp(version, "2") != 0)
        return err_set(err, GIST_ERR_UNSUPPORTED, "%s: .gist version \"%s\", this program reads 1 and 2", what,
                       json_show(shown, sizeof(shown), version, strlen(version)));
    return GIST_OK;
}

/* Every tensor that the metadata promise, of that shape, into parts. */
static gist_status check_tensors(const gfile *g, tensor_view *parts, const char *what, gist_error *err) {
    size_t expected = parts_of(g);
    for (size_t i = 0; i < expected; i++) {
        char name[32], shape[64], promised[64];
        tensor_view want = part_view(g, i, name), *t = &parts[i];
        if (!find_part(g, name, t)) return err_set(err, GIST_ERR_FORMAT, "%s: tensor %s is missing", what, name);
        if (t->type != want.type || t->dims != want.dims || memcmp(t->shape, want.shape, sizeof want.shape) != 0)
            return err_set(err, GIST_ERR_FORMAT, "%s: %s is %s %s, expected %s %s", what, name, dt_name(t->type),
                           tensor_shape_text(t, shape), dt_name(want.type), tensor_shape_text(&want, promised));
    }
    size_t found = json_object_size(g->st.header) - 1; /* all but __metadata__, skipped buffers too */
    if (found != expected) return err_set(err, GIST_ERR_FORMAT, "%s: %zu tensors, expected %zu", what, found, expected);
    return GIST_OK;
}

static gist_status check_sum(const gfile *g, const char *const texts[FIELDS], const tensor_view *parts,
                             const char *what, gist_error *err) {
    char sum[33];
    TRY(checksum(g, texts, parts, sum, err));
    const char *said = st_meta_get(&g->st, "checksum");
    if (strcmp(sum, said) != 0)
        return err_set(err, GIST_ERR_FORMAT, "%s: damaged: its checksum is %s, its contents give %s", what, said, sum);
    return GIST_OK;
}

static gist_status read_file(gfile *g, const void *bytes, size_t len, const char *what, gist_error *err) {
    size_t data_start = 0;
    const char *texts[FIELDS];
    TRY(st_begin(&g->st, g->alloc, bytes, len, what, &data_start, err));
    what = json_what(what);
    TRY(check_version(&g->st, what, err));
    TRY(match_fields(&g->st, texts, what, err));
    TRY(read_fields(g, texts, what, GIST_ERR_FORMAT, err));
    TRY(st_finish(&g->st, bytes, len, data_start, what, err));
    bool second = strcmp(st_meta_get(&g->st, "version"), "2") == 0;
    const tensor_view *output = second ? st_find(&g->st, OUTPUT) : NULL;
    if (second && !output)
        return err_set(err, GIST_ERR_FORMAT, "%s: version 2, but tensor " OUTPUT " is missing", what);
    if (output && (output->dims != 2 || output->shape[1] < 1 || output->shape[1] > MAX_OUTPUT))
        return err_set(err, GIST_ERR_FORMAT, "%s: " OUTPUT " is not [k, width] with a width up to %d", what,
                       MAX_OUTPUT);
    g->width = output ? (int)output->shape[1] : 0;
    tensor_view *parts = mem_alloc(g->alloc, parts_of(g), sizeof(*parts));
    if (!parts) return err_memory(err, "rows of a gist");
    gist_status status = check_tensors(g, parts, what, err);
    if (status == GIST_OK) status = check_sum(g, texts, parts, what, err);
    mem_free(g->alloc, parts);
    return status;
}

static gist_status parse_named(gfile *out, const gist_allocator *alloc, const void *bytes, size_t len, const char *what,
                               gist_error *err) {
    gfile g = { .alloc = alloc ? alloc : mem_default() };
    gist_status status = read_file(&g, bytes, len, what, err);
    if (status == GIST_OK)
        *out = g;
    else
        st_close(&g.st);
    return status;
}

gist_status gfile_parse(gfile *g, const gist_allocator *alloc, const void *bytes, size_t len, gist_error *err) {
    return parse_named(g, alloc, bytes, len, "gist", err);
}

gist_status gfile_open(gfile *out, const gist_allocator *alloc, const char *path, gist_error *err) {
    file_map map;
    TRY(map_open(path, &map, err));
    gfile g;
    gist_status status = parse_named(&g, alloc, map.data, map.size, path, err);
    if (status != GIST_OK) {
        map_close(&map);
        return status;
    }
    g.st.map = map;
    *out = g;
    return GIST_OK;
}

void gfile_close(gfile *g) {
    if (g) st_close(&g->st);
}

/* ---- writing ---- */

/* What a file needs while it is written. */
typedef struct draft {
    tensor_view *parts; /* [parts_of(g)] */
    char (*names)[32];
    uint8_t *split; /* q8_0: all rows, integers and scales apart */
} draft;

/* The tensors of one layer's keys or values, from number i on. */
static void add_rows(const gfile *g, draft *f, size_t i, const void *rows) {
    f->parts[i] = part_view(g, i, f->names[i]);
    f->parts[i].data = rows;
    if (g->type != DT_Q8_0) return;
    uint8_t *q = f->split + i / 2 * row_bytes(g), *scale = q + f->parts[i].bytes;
    split_blocks(q, scale, rows, f->parts[i].bytes / 32);
    f->parts[i].data = q;
    f->parts[i + 1] = part_view(g, i + 1, f->names[i + 1]);
    f->parts[i + 1].data = scale;
}

static gist_status write_file(const gfile *g, const char *path, const char *texts[FIELDS], draft *f,
                              const void *const *keys, const void *const *values, const float *output,
                              gist_error *err) {
    size_t n = parts_of_layer(g), last = n * (size_t)g->layers;
    if (g->width) {
        f->parts[last] = part_view(g, last, f->names[last]);
        f->parts[last].data = output;
    }
    for (size_t l = 0; l < (size_t)g->layers; l++) {
        add_rows(g, f, l * n, keys[l]);
        add_rows(g, f, l * n + n / 2, values[l]);
    }
    char sum[33];
    TRY(checksum(g, texts, f->parts, sum, err));
    st_meta meta[FIELDS];
    for (size_t i = 0; i < FIELDS; i++)
        meta[i] = (st_meta){ fields[i].key, fields[i].kind == CHECKSUM ? sum : texts[i] };
    return st_save(g->alloc, path, f->parts, parts_of(g), meta, FIELDS, err);
}

gist_status gfile_save(const gfile *g, const char *path, const void *const *keys, const void *const *values,
                       const float *output, gist_error *err) {
    static const char blank_sum[] = "00000000000000000000000000000000";
    char text[FIELDS][TEXT_MAX];
    const char *texts[FIELDS];
    gfile judged = { 0 }; /* what a reader would make of the texts */
    for (size_t i = 0; i < FIELDS; i++) {
        field_text(&fields[i], g, text[i]);
        texts[i] = fields[i].kind == CHECKSUM ? blank_sum : text[i];
    }
    TRY(read_fields(&judged, texts, json_what(path), GIST_ERR_USAGE, err));

    size_t n = parts_of(g), split = g->type == DT_Q8_0 ? gfile_bytes(g) : 0;
    draft f = { mem_alloc(g->alloc, n, sizeof(*f.parts)), mem_alloc(g->alloc, n, sizeof(*f.names)),
                split ? mem_alloc(g->alloc, split, 1) : NULL };
    gist_status status = f.parts && f.names && (f.split || !split)
                             ? write_file(g, path, texts, &f, keys, values, output, err)
                             : err_memory(err, "gist file");
    mem_free(g->alloc, f.split);
    mem_free(g->alloc, f.names);
    mem_free(g->alloc, f.parts);
    return status;
}
