/* fuzz_json.c - json_parse and the typed getters on any bytes. */
#include <stdlib.h>

#include "format/format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    json_t *root = NULL;
    gist_error err = { 0 };
    gist_status status = json_parse((const char *)data, size, "fuzz", &root, &err);
    if (status != err.code) abort();
    if (status != GIST_OK) return 0;
    const char *key;
    json_t *value;
    json_object_foreach(root, key, value) {
        int i = 3;
        float f = 3;
        bool b = false;
        const char *s = "";
        gist_error e = { 0 };
        if (json_get_int(root, key, true, 0, 1000, &i, "fuzz", &e) == GIST_OK ? i < 0 || i > 1000 : i != 3) abort();
        e = (gist_error){ 0 };
        if (json_get_float(root, key, false, -1, 1, &f, "fuzz", &e) == GIST_OK && f != 3 && !(f >= -1 && f <= 1))
            abort();
        (void)json_get_bool(root, key, true, &b, "fuzz", NULL);
        e = (gist_error){ 0 };
        if (json_get_string(root, key, true, &s, "fuzz", &e) == GIST_OK && !s) abort();
    }
    json_decref(root);
    return 0;
}
