/* gguf_values.c - typed values of a GGUF file's metadata (layout: gguf.c).
 *
 * Integers are asked for by range, not by width: writers differ in the type they choose.  A wrong type or value is an
 * error that names file, key, what was expected and what was found.
 */
#include <assert.h>
#include <math.h>

#include "format/format_int.h"

enum { FOUND = 96 };

/* ---- elements ---- */

static uint64_t bits_at(const gguf_value *v, size_t i) {
    size_t bytes = gguf_kind_bytes(v->kind);
    uint64_t u = 0;
    assert(i < v->count);
    for (size_t b = 0; b < bytes; b++) u |= (uint64_t)v->data[i * bytes + b] << 8 * b;
    return u;
}

int64_t gguf_int_at(const gguf_value *v, size_t i) {
    uint64_t u = bits_at(v, i);
    switch (v->kind) {
    case GGUF_I8: return (int8_t)u;
    case GGUF_I16: return (int16_t)u;
    case GGUF_I32: return (int32_t)u;
    case GGUF_I64: return (int64_t)u;
    default: return u > INT64_MAX ? INT64_MAX : (int64_t)u;
    }
}

double gguf_float_at(const gguf_value *v, size_t i) {
    uint64_t u = bits_at(v, i);
    uint32_t half = (uint32_t)u;
    double d;
    float f;
    memcpy(&d, &u, 8);
    memcpy(&f, &half, 4);
    return v->kind == GGUF_F64 ? d : (double)f;
}

bool gguf_bool_at(const gguf_value *v, size_t i) {
    return bits_at(v, i) != 0;
}

const char *gguf_string_at(const gguf_value *v, size_t i, size_t *len) {
    assert(i < v->count);
    rd r; /* checked when the file was read */
    rd_init(&r, v->strings ? v->strings[i] : v->data, SIZE_MAX);
    *len = (size_t)rd_u64(&r);
    return (const char *)r.p + r.pos;
}

/* ---- values by key ---- */

static bool is_integer(gguf_kind k) {
    return k != GGUF_F32 && k != GGUF_F64 && k != GGUF_BOOL && k != GGUF_STRING && k != GGUF_ARRAY;
}

/* What a value is, for messages: "-3", "0.5", "true", "a string \"x\"", "an array of 3 i32". */
static const char *found(char out[FOUND], const gguf_value *v) {
    char shown[56];
    size_t len;
    if (v->array)
        snprintf(out, FOUND, "an array of %zu %s", v->count, gguf_kind_name(v->kind));
    else if (v->kind == GGUF_STRING) {
        const char *s = gguf_string_at(v, 0, &len);
        snprintf(out, FOUND, "the string \"%s\"", json_show(shown, sizeof shown, s, len));
    } else if (v->kind == GGUF_BOOL)
        snprintf(out, FOUND, "%s", gguf_bool_at(v, 0) ? "true" : "false");
    else if (is_integer(v->kind))
        snprintf(out, FOUND, "%lld", (long long)gguf_int_at(v, 0));
    else
        snprintf(out, FOUND, "the number %g", gguf_float_at(v, 0));
    return out;
}

static gist_status missing(const gguf_file *g, const char *key, bool required, gist_error *err) {
    return required ? err_set(err, GIST_ERR_FORMAT, "%s: key %s is missing", g->what, key) : GIST_OK;
}

gist_status gguf_get_int(const gguf_file *g, const char *key, bool required, int64_t lo, int64_t hi, int *out,
                         gist_error *err) {
    char got[FOUND];
    const gguf_value *v = gguf_value_find(g, key);
    if (!v) return missing(g, key, required, err);
    int64_t x = !v->array && is_integer(v->kind) ? gguf_int_at(v, 0) : 0;
    if (v->array || !is_integer(v->kind) || x < lo || x > hi)
        return err_set(err, GIST_ERR_FORMAT, "%s: %s: expected an integer from %lld to %lld, found %s", g->what, key,
                       (long long)lo, (long long)hi, found(got, v));
    *out = (int)x;
    return GIST_OK;
}

gist_status gguf_get_float(const gguf_file *g, const char *key, bool required, double lo, double hi, float *out,
                           gist_error *err) {
    char got[FOUND];
    const gguf_value *v = gguf_value_find(g, key);
    if (!v) return missing(g, key, required, err);
    bool is_float = !v->array && (v->kind == GGUF_F32 || v->kind == GGUF_F64);
    double x = is_float ? gguf_float_at(v, 0) : NAN;
    if (!(x >= lo && x <= hi))
        return err_set(err, GIST_ERR_FORMAT, "%s: %s: expected a float from %g to %g, found %s", g->what, key, lo, hi,
                       found(got, v));
    *out = (float)x;
    return GIST_OK;
}

gist_status gguf_get_bool(const gguf_file *g, const char *key, bool required, bool *out, gist_error *err) {
    char got[FOUND];
    const gguf_value *v = gguf_value_find(g, key);
    if (!v) return missing(g, key, required, err);
    if (v->array || v->kind != GGUF_BOOL)
        return err_set(err, GIST_ERR_FORMAT, "%s: %s: expected a bool, found %s", g->what, key, found(got, v));
    *out = gguf_bool_at(v, 0);
    return GIST_OK;
}

gist_status gguf_get_string(const gguf_file *g, const char *key, bool required, const char **out, size_t *len,
                            gist_error *err) {
    char got[FOUND];
    const gguf_value *v = gguf_value_find(g, key);
    if (!v) return missing(g, key, required, err);
    if (v->array || v->kind != GGUF_STRING)
        return err_set(err, GIST_ERR_FORMAT, "%s: %s: expected a string, found %s", g->what, key, found(got, v));
    *out = gguf_string_at(v, 0, len);
    return GIST_OK;
}

static const char *array_text(gguf_kind kind) {
    switch (kind) {
    case GGUF_I64: return "integers";
    case GGUF_F32: return "floats";
    case GGUF_BOOL: return "bools";
    default: return "strings";
    }
}

gist_status gguf_get_array(const gguf_file *g, const char *key, bool required, gguf_kind kind, const gguf_value **out,
                           gist_error *err) {
    char got[FOUND];
    const gguf_value *v = gguf_value_find(g, key);
    if (!v) {
        TRY(missing(g, key, required, err));
        *out = NULL;
        return GIST_OK;
    }
    bool same = kind == GGUF_I64   ? is_integer(v->kind)
                : kind == GGUF_F32 ? v->kind == GGUF_F32 || v->kind == GGUF_F64
                                   : v->kind == kind;
    if (!v->array || !same)
        return err_set(err, GIST_ERR_FORMAT, "%s: %s: expected an array of %s, found %s", g->what, key,
                       array_text(kind), found(got, v));
    *out = v;
    return GIST_OK;
}
