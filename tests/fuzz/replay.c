/* replay.c - runs a fuzz target over its corpus without a fuzzer, as a test.
 *
 *     replay_NAME [FILE ...]        default: every file of tests/fuzz/corpus/NAME
 *
 * For each file three tests: the bytes as they are; prefixes of them (every one of a short file, evenly spread ones of
 * a longer file); and seeded mutations (bytes overwritten, bits flipped, a stretch cut out or doubled).  Every input
 * lies in a heap block of exactly its size, so that a sanitizer sees one byte read too far.  A target tells of a fault
 * by crashing; what it was fed is then in replay-NAME.bad in the directory GIST_REPLAY_SAVE, when that is set.
 * Output is TAP.
 */
#include <dirent.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MOST_FILES = 4096, MOST_PREFIXES = 400, MUTATIONS = 200, PATH_SIZE = 1024 };

typedef struct input {
    uint8_t *p;
    size_t len;
} input;

static const char *target; /* NAME */

static uint64_t next(uint64_t *s) {
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

static size_t below(uint64_t *s, size_t n) {
    return (size_t)(next(s) % n);
}

static bool read_input(const char *path, input *in) {
    FILE *f = fopen(path, "rb");
    if (f == NULL) return false;
    size_t cap = 1 << 16;
    *in = (input){ malloc(cap), 0 };
    for (size_t n; in->p != NULL && (n = fread(in->p + in->len, 1, cap - in->len, f)) > 0;) {
        in->len += n;
        if (in->len == cap) in->p = realloc(in->p, cap *= 2);
    }
    bool ok = in->p != NULL && !ferror(f);
    fclose(f);
    return ok;
}

static void save(const uint8_t *p, size_t len) {
    const char *dir = getenv("GIST_REPLAY_SAVE");
    char path[PATH_SIZE];
    if (dir == NULL) return;
    snprintf(path, sizeof path, "%s/replay-%s.bad", dir, target);
    FILE *f = fopen(path, "wb");
    if (f == NULL) return;
    fwrite(p, 1, len, f);
    fclose(f);
}

static void feed(const uint8_t *p, size_t len) {
    uint8_t *exact = malloc(len > 0 ? len : 1);
    if (exact == NULL) exit(3);
    memcpy(exact, p, len);
    save(p, len);
    LLVMFuzzerTestOneInput(exact, len);
    free(exact);
}

static void feed_prefixes(const input *in) {
    size_t step = in->len / MOST_PREFIXES + 1;
    for (size_t n = 0; n < in->len; n += step) feed(in->p, n);
    for (size_t n = in->len > 8 ? in->len - 8 : 0; n < in->len; n++) feed(in->p, n);
}

/* One mutation in place; the buffer has room for twice the length. */
static size_t mutate(uint8_t *p, size_t len, uint64_t *s) {
    static const uint8_t loud[] = { 0, 1, 0x7f, 0x80, 0xff, '"', '{', '[', '\\', '-', '9', '\n' };
    size_t a = below(s, len), n = 1 + below(s, len - a);
    if (n > 64) n = 1 + n % 64;
    switch (below(s, 5)) {
    case 0: p[a] = (uint8_t)next(s); break;
    case 1: p[a] ^= (uint8_t)(1u << below(s, 8)); break;
    case 2: p[a] = loud[below(s, sizeof loud)]; break;
    case 3: memmove(p + a, p + a + n, len - a - n); return len - n;
    default: memmove(p + a + n, p + a, len - a); return len + n;
    }
    return len;
}

static bool feed_mutations(const input *in) {
    enum { ROUNDS = 4 };
    uint8_t *p = malloc(in->len + ROUNDS * 64 + 1);
    if (p == NULL) return false;
    uint64_t s = 0x243f6a8885a308d3u ^ in->len;
    for (int i = 0; i < MUTATIONS; i++) {
        size_t len = in->len;
        memcpy(p, in->p, len);
        for (size_t rounds = 1 + below(&s, ROUNDS); rounds > 0 && len > 0; rounds--) len = mutate(p, len, &s);
        feed(p, len);
    }
    free(p);
    return true;
}

static void report(int n, bool ok, const char *what, const char *path) {
    printf("%sok %d - %s %s\n", ok ? "" : "not ", n, what, path);
    fflush(stdout);
}

static int hidden_files_out(const struct dirent *d) {
    return d->d_name[0] != '.';
}

/* Paths of the corpus, in name order; -1 when there is none. */
static int list_corpus(char *paths[MOST_FILES]) {
    char dir[PATH_SIZE / 2], path[PATH_SIZE];
    snprintf(dir, sizeof dir, "tests/fuzz/corpus/%s", target);
    struct dirent **names;
    int n = scandir(dir, &names, hidden_files_out, alphasort);
    if (n <= 0 || n > MOST_FILES) return -1;
    for (int i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]->d_name);
        paths[i] = strdup(path);
        free(names[i]);
    }
    free(names);
    return n;
}

int main(int argc, char **argv) {
    static char *paths[MOST_FILES];
    const char *name = strrchr(argv[0], '/');
    name = name != NULL ? name + 1 : argv[0];
    target = strncmp(name, "replay_", 7) == 0 ? name + 7 : name;

    bool own = argc == 1;
    int n = own ? list_corpus(paths) : argc - 1;
    if (n < 0) {
        printf("1..1\nnot ok 1 - corpus tests/fuzz/corpus/%s\n# it is missing, empty or too large\n", target);
        return 1;
    }
    printf("1..%d\n", 3 * n);
    bool all = true;
    for (int i = 0; i < n; i++) {
        const char *path = own ? paths[i] : argv[1 + i];
        input in = { NULL, 0 };
        bool ok = read_input(path, &in);
        if (ok) feed(in.p, in.len);
        report(3 * i + 1, ok, "as it is", path);
        if (ok) feed_prefixes(&in);
        report(3 * i + 2, ok, "truncated", path);
        ok = ok && feed_mutations(&in);
        report(3 * i + 3, ok, "mutated", path);
        all = all && ok;
        free(in.p);
        if (own) free(paths[i]);
    }
    return all ? 0 : 1;
}
