/* eval_journal.c - what long work has finished so far: a file that only grows, a JSON object a line.
 *
 *     {"key": "32 hex digits over all that decides the entry", "text": "nine", ...}
 *
 * A line is on its way to the disk before the next piece of work begins, so whoever is killed loses that piece alone.
 * A line that was being written then has no end: it is cut off at the next opening.  Other damage is an error.
 */
#include <errno.h>
#include <sys/file.h>
#include <unistd.h>

#include "eval/eval.h"
#include "format/format.h"

struct eval_journal {
    const gist_allocator *alloc;
    char *path;
    FILE *f;
    json_t *entries; /* by key */
};

static gist_status bad(const eval_journal *j, int line, const char *what, gist_error *err) {
    return err_set(err, GIST_ERR_FORMAT, "%.160s:%d: %.200s", j->path, line, what);
}

static bool is_key(const json_t *v) {
    return json_is_string(v) && json_string_length(v) == 32 &&
           strspn(json_string_value(v), "0123456789abcdef") == 32;
}

static gist_status read_entry(eval_journal *j, const char *p, size_t len, int line, gist_error *err) {
    json_t *entry = NULL;
    gist_error why = { 0 };
    gist_status status = json_parse(p, len, "JSON", &entry, &why);
    if (status == GIST_ERR_MEMORY) return err_memory(err, j->path);
    if (status != GIST_OK) return bad(j, line, why.msg, err);
    const json_t *key = json_object_get(entry, "key");
    if (!is_key(key))
        status = bad(j, line, "no \"key\" of 32 hex digits: not a journal of this program", err);
    else if (json_object_set(j->entries, json_string_value(key), entry) != 0)
        status = err_memory(err, j->path);
    json_decref(entry);
    return status;
}

/* *whole: bytes up to the end of the last line that has one. */
static gist_status read_entries(eval_journal *j, size_t *whole, gist_error *err) {
    file_map map;
    *whole = 0;
    TRY(map_open(j->path, &map, err));
    gist_status status = GIST_OK;
    const char *p = map.data ? (const char *)map.data : "";
    for (int line = 1; status == GIST_OK && *whole < map.size; line++) {
        const char *stop = memchr(p + *whole, '\n', map.size - *whole);
        if (!stop) break;
        size_t len = (size_t)(stop - p) - *whole;
        status = read_entry(j, p + *whole, len, line, err);
        *whole += len + 1;
    }
    map_close(&map);
    return status;
}

static gist_status failed(const eval_journal *j, gist_error *err) {
    return err_set(err, GIST_ERR_IO, "%.200s: %s", j->path, strerror(errno));
}

static gist_status open_file(eval_journal *j, gist_error *err) {
    size_t whole;
    j->f = fopen(j->path, "ab");
    if (!j->f) return failed(j, err);
    if (flock(fileno(j->f), LOCK_EX | LOCK_NB) != 0)
        return err_set(err, GIST_ERR_IO, "%.200s: another process is writing it", j->path);
    TRY(read_entries(j, &whole, err));
    return ftruncate(fileno(j->f), (off_t)whole) == 0 ? GIST_OK : failed(j, err);
}

gist_status eval_journal_open(const char *path, const gist_allocator *alloc, eval_journal **out, gist_error *err) {
    eval_journal *j = mem_calloc(alloc, 1, sizeof *j);
    if (!j) return err_memory(err, path);
    j->alloc = alloc;
    j->path = mem_strndup(alloc, path, strlen(path));
    j->entries = json_object();
    gist_status status = j->path && j->entries ? open_file(j, err) : err_memory(err, path);
    if (status == GIST_OK)
        *out = j;
    else
        eval_journal_close(j);
    return status;
}

void eval_journal_close(eval_journal *j) {
    if (!j) return;
    if (j->f) fclose(j->f);
    json_decref(j->entries);
    mem_free(j->alloc, j->path);
    mem_free(j->alloc, j);
}

int eval_journal_count(const eval_journal *j) {
    return (int)json_object_size(j->entries);
}

const json_t *eval_journal_find(const eval_journal *j, hash128 key) {
    char hex[33];
    hash_hex(key, hex);
    return json_object_get(j->entries, hex);
}

static int add_bytes(const char *bytes, size_t len, void *out) {
    sbuf_add(out, bytes, len);
    return ((sbuf *)out)->failed ? -1 : 0;
}

gist_status eval_journal_add(eval_journal *j, hash128 key, json_t *entry, gist_error *err) {
    char hex[33];
    hash_hex(key, hex);
    if (!entry) return err_memory(err, j->path);
    bool ok = json_object_set_new(entry, "key", json_string(hex)) == 0 && json_object_set(j->entries, hex, entry) == 0;
    sbuf line;
    sbuf_init(&line, j->alloc);
    ok = ok && json_dump_callback(entry, add_bytes, &line, JSON_COMPACT | JSON_REAL_PRECISION(9)) == 0;
    sbuf_str(&line, "\n");
    json_decref(entry);
    gist_status status = ok && !line.failed ? GIST_OK : err_memory(err, j->path);
    errno = 0;
    if (status == GIST_OK && (fwrite(line.p, 1, line.len, j->f) != line.len || fflush(j->f) != 0))
        status = failed(j, err);
    sbuf_free(&line);
    return status;
}
