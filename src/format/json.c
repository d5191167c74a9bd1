/* json.c - bounded JSON reading on top of jansson.
 *
 * jansson (MIT) does the parsing; this file bounds what it is given and words the errors.  A scan over the bytes counts
 * nesting and values before anything is built, because a parsed value takes some twenty times the memory of its text
 * and a deep one takes stack:
 *
 *   text    at most JSON_MAX_BYTES            (the safetensors package allows a header of as much)
 *   values  at most JSON_MAX_VALUES           (a tokenizer.json of 256k pieces has some two million)
 *   depth   at most JSON_MAX_DEPTH
 *
 * Duplicate keys, bytes after the document, invalid UTF-8, "\u0000" and numbers out of range are errors.  jansson keeps
 * its own allocator.
 */
#include <assert.h>
#include <float.h>
#include <limits.h>
#include <math.h>

#include "format/format_int.h"

enum { JSON_MAX_BYTES = ST_MAX_HEADER, JSON_MAX_VALUES = 8000000, JSON_MAX_DEPTH = 64, WHAT_MAX = 160 };

const char *json_show(char *out, size_t cap, const char *s, size_t len) {
    size_t n = len < cap - 1 ? len : cap - 1;
    for (size_t i = 0; i < n; i++) out[i] = s[i] >= 0x20 && s[i] < 0x7f ? s[i] : '?';
    out[n] = '\0';
    if (n < len) memcpy(out + n - 3, "...", 3);
    return out;
}

const char *json_what(const char *what) {
    size_t n = strlen(what);
    return n > WHAT_MAX ? what + n - WHAT_MAX : what;
}

/* Nesting and an upper bound of the number of values, by a scan that knows only strings and brackets. */
static gist_status check_bounds(const char *text, size_t len, const char *what, gist_error *err) {
    size_t depth = 0, values = 1;
    bool in_string = false;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
            continue;
        }
        if (c == '"') in_string = true;
        if (c == '[' || c == '{') depth++;
        if ((c == ']' || c == '}') && depth > 0) depth--;
        if (c == '[' || c == '{' || c == ',') values++;
        if (depth > JSON_MAX_DEPTH)
            return err_at(err, GIST_ERR_FORMAT, i, "%s: JSON nested deeper than %d", what, JSON_MAX_DEPTH);
        if (values > JSON_MAX_VALUES)
            return err_at(err, GIST_ERR_LIMIT, i, "%s: more than %d JSON values", what, JSON_MAX_VALUES);
    }
    return GIST_OK;
}

gist_status json_parse(const char *text, size_t len, const char *what, json_t **out, gist_error *err) {
    what = json_what(what);
    if (len == 0) return err_set(err, GIST_ERR_FORMAT, "%s: empty, expected JSON", what);
    if (len > JSON_MAX_BYTES)
        return err_set(err, GIST_ERR_LIMIT, "%s: %zu bytes of JSON, at most %d are read", what, len, JSON_MAX_BYTES);
    TRY(check_bounds(text, len, what, err));
    json_error_t e;
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &e);
    if (!root) {
        if (json_error_code(&e) == json_error_out_of_memory) return err_memory(err, what);
        const char *cause = json_error_code(&e) == json_error_invalid_utf8 ? "invalid UTF-8" : e.text;
        char shown[JSON_ERROR_TEXT_LENGTH];
        return err_at(err, GIST_ERR_FORMAT, e.position > 0 ? (uint64_t)e.position : 0, "%s: line %d: %s", what, e.line,
                      json_show(shown, sizeof(shown), cause, strlen(cause)));
    }
    *out = root;
    return GIST_OK;
}

gist_status json_read_file(const char *path, json_t **out, gist_error *err) {
    file_map map;
    TRY(map_open(path, &map, err));
    gist_status status = json_parse((const char *)map.data, map.size, path, out, err);
    map_close(&map);
    return status;
}

/* ---- typed members ---- */

enum { FOUND_MAX = 80 };

/* What a value is, for "..., found X". */
static const char *found(const json_t *v, char out[FOUND_MAX]) {
    char text[FOUND_MAX - 8];
    switch (json_typeof(v)) {
    case JSON_INTEGER: snprintf(out, FOUND_MAX, "%lld", (long long)json_integer_value(v)); break;
    case JSON_REAL: snprintf(out, FOUND_MAX, "%g", json_real_value(v)); break;
    case JSON_STRING:
        json_show(text, sizeof(text), json_string_value(v), json_string_length(v));
        snprintf(out, FOUND_MAX, "\"%s\"", text);
        break;
    case JSON_TRUE: return "true";
    case JSON_FALSE: return "false";
    case JSON_NULL: return "null";
    case JSON_ARRAY: return "an array";
    case JSON_OBJECT: return "an object";
    }
    return out;
}

/* *out is NULL when the member is absent or null and need not be there. */
static gist_status member(const json_t *obj, const char *key, bool required, const json_t **out, const char *what,
                          gist_error *err) {
    const json_t *v = json_object_get(obj, key);
    if (json_is_null(v)) v = NULL;
    if (!v && required) return err_set(err, GIST_ERR_FORMAT, "%s: \"%s\" is missing", json_what(what), key);
    *out = v;
    return GIST_OK;
}

gist_status json_get_int(const json_t *obj, const char *key, bool required, int64_t lo, int64_t hi, int *out,
                         const char *what, gist_error *err) {
    assert(lo >= INT_MIN && hi <= INT_MAX);
    const json_t *v = NULL;
    TRY(member(obj, key, required, &v, what, err));
    if (!v) return GIST_OK;
    json_int_t x = json_integer_value(v); /* 0 for another type */
    if (!json_is_integer(v) || x < lo || x > hi) {
        char text[FOUND_MAX];
        return err_set(err, GIST_ERR_FORMAT, "%s: \"%s\" must be an integer in [%lld,%lld], found %s", json_what(what),
                       key, (long long)lo, (long long)hi, found(v, text));
    }
    *out = (int)x;
    return GIST_OK;
}

gist_status json_get_float(const json_t *obj, const char *key, bool required, double lo, double hi, float *out,
                           const char *what, gist_error *err) {
    const json_t *v = NULL;
    TRY(member(obj, key, required, &v, what, err));
    if (!v) return GIST_OK;
    double x = json_number_value(v);
    if (!json_is_number(v) || !(x >= lo && x <= hi) || fabs(x) > FLT_MAX) {
        char text[FOUND_MAX];
        return err_set(err, GIST_ERR_FORMAT, "%s: \"%s\" must be a number in [%g,%g], found %s", json_what(what), key,
                       lo, hi, found(v, text));
    }
    *out = (float)x;
    return GIST_OK;
}

gist_status json_get_bool(const json_t *obj, const char *key, bool required, bool *out, const char *what,
                          gist_error *err) {
    const json_t *v = NULL;
    TRY(member(obj, key, required, &v, what, err));
    if (!v) return GIST_OK;
    if (!json_is_boolean(v)) {
        char text[FOUND_MAX];
        return err_set(err, GIST_ERR_FORMAT, "%s: \"%s\" must be true or false, found %s", json_what(what), key,
                       found(v, text));
    }
    *out = json_is_true(v);
    return GIST_OK;
}

gist_status json_get_string(const json_t *obj, const char *key, bool required, const char **out, const char *what,
                            gist_error *err) {
    const json_t *v = NULL;
    TRY(member(obj, key, required, &v, what, err));
    if (!v) return GIST_OK;
    if (!json_is_string(v)) {
        char text[FOUND_MAX];
        return err_set(err, GIST_ERR_FORMAT, "%s: \"%s\" must be a string, found %s", json_what(what), key,
                       found(v, text));
    }
    *out = json_string_value(v);
    return GIST_OK;
}
