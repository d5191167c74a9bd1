/* fuzz_json_watch.c - json_watch on any bytes, against the JSON library: both accept the same objects; a text that was
 * taken can be taken in two pieces, and what is closed takes white space alone.
 *
 * differs: the library also refuses invalid UTF-8, NUL in a key and numbers out of its range, which the watch leaves to
 * others; it reads deeper objects, and passes over a NUL behind a number or a word, which the watch refuses.
 */
#include <jansson.h>
#include <stdlib.h>

#include "engine/engine.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool watched(const char *text, size_t n, size_t *taken) {
    json_watch w;
    json_watch_init(&w);
    *taken = json_watch_text(&w, text, n);
    if (*taken < n) return false;
    json_watch copy = w, space = w;
    if (json_watch_done(&w) && (json_watch_byte(&copy, '}') || !json_watch_byte(&space, ' '))) abort();
    return json_watch_done(&w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *text = (const char *)data;
    size_t taken, again, bad;
    bool closed = watched(text, size, &taken);
    (void)watched(text, taken, &again);
    if (again != taken) abort();

    json_error_t e = { 0 };
    json_t *root = json_loadb(text, size, JSON_ALLOW_NUL, &e);
    if (json_is_object(root)) {
        int depth = 0, deepest = 0; /* brackets in strings count too: then the watch may be right all the same */
        for (size_t i = 0; i < size; i++) {
            depth += (text[i] == '{' || text[i] == '[') - (text[i] == '}' || text[i] == ']');
            deepest = depth > deepest ? depth : deepest;
        }
        if (!closed && deepest <= JSON_WATCH_DEPTH && !memchr(text, 0, size)) abort();
    } else if (closed && utf8_valid(text, size, &bad)) {
        enum json_error_code code = root ? json_error_unknown : json_error_code(&e);
        if (code != json_error_numeric_overflow && code != json_error_null_byte_in_key) abort();
    }
    json_decref(root);
    return 0;
}
