/* base.h - what every room stands on: errors, memory, bytes, files, threads, random numbers, hashes, UTF-8.
 *
 *   errors    err_set                      the first cause wins
 *   memory    mem_*                        through the caller's gist_allocator; arena_* for activations
 *   text      sbuf_*                       a growing byte string
 *   bytes     rd_*                         bounded little-endian reader of untrusted bytes
 *   files     map_*, out_*                 read-only map; write-temporary-sync-rename
 *   threads   pool_*                       fork-join pool; results never depend on which worker ran a task
 *   random    rng_*                        xoshiro256++, seeded by splitmix64
 *   hashes    hash_*                       XXH3-128 over length-prefixed fields
 *   utf8      utf8_*
 *
 * No mutable globals.  Nothing here exits, prints or reads the environment.
 */
#ifndef GIST_BASE_H
#define GIST_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "gist.h"

/* ---- errors ---- */

/* Record code and message in *err unless an earlier failure is there already (err may be NULL).  Returns code. */
gist_status err_set(gist_error *err, gist_status code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* The same, with the byte offset in the input at which it was noticed. */
gist_status err_at(gist_error *err, gist_status code, uint64_t pos, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* "out of memory: <what>" */
gist_status err_memory(gist_error *err, const char *what);

/* Evaluate a call that returns gist_status; return it from this function when it is not GIST_OK. */
#define TRY(call)                               \
    do {                                        \
        gist_status try_status_ = (call);       \
        if (try_status_ != GIST_OK) return try_status_; \
    } while (0)

/* ---- logging: fn NULL is silent ---- */

typedef struct log_sink {
    gist_log_fn fn;
    void *ctx;
} log_sink;
void log_msg(const log_sink *log, gist_log_level level, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* ---- memory ---- */

/* malloc-backed; blocks of 4 MiB and more are aligned to 2 MiB and offered to transparent huge pages. */
const gist_allocator *mem_default(void);
/* count * size bytes, overflow-checked, 64-byte aligned, contents undefined.  NULL when it cannot be had.
 * A zero size gives a valid block.  `a` NULL: mem_default(). */
void *mem_alloc(const gist_allocator *a, size_t count, size_t size);
void *mem_calloc(const gist_allocator *a, size_t count, size_t size); /* zeroed */
/* A block of new_count*size holding the first min(old,new) elements of p; p is freed.  On NULL p is untouched. */
void *mem_resize(const gist_allocator *a, void *p, size_t old_count, size_t new_count, size_t size);
char *mem_strndup(const gist_allocator *a, const char *s, size_t len);
void mem_free(const gist_allocator *a, void *p);
/* a*b into *out; false when it overflows. */
bool size_mul(size_t a, size_t b, size_t *out);
bool size_add(size_t a, size_t b, size_t *out);

/* Activations: take in any order, give back by resetting to a mark.  With base NULL it only counts (the dry run):
 * arena_take returns NULL and `peak` tells the size to allocate. */
typedef struct arena {
    uint8_t *base;
    size_t size, used, peak;
} arena;
void arena_init(arena *ar, void *base, size_t size);
void *arena_take(arena *ar, size_t count, size_t size); /* 64-byte aligned; asserts that it fits */

/* ---- growing byte string; after a failed allocation `failed` stays set and appends do nothing ---- */

typedef struct sbuf {
    const gist_allocator *alloc;
    char *p; /* NUL-terminated when not NULL */
    size_t len, cap;
    bool failed;
} sbuf;
void sbuf_init(sbuf *s, const gist_allocator *alloc);
void sbuf_free(sbuf *s);
void sbuf_add(sbuf *s, const void *bytes, size_t len);
void sbuf_str(sbuf *s, const char *text);
void sbuf_fmt(sbuf *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
char *sbuf_take(sbuf *s); /* ownership to the caller (mem_free); NULL after a failure; never NULL for an empty string */

/* ---- bounded reader ---- */

/* Reads past the end return 0 / NULL and set `failed`, which stays set; check it once per record. */
typedef struct rd {
    const uint8_t *p;
    size_t len, pos;
    bool failed;
} rd;
void rd_init(rd *r, const void *p, size_t len);
size_t rd_left(const rd *r);
uint8_t rd_u8(rd *r);
uint16_t rd_u16(rd *r);
uint32_t rd_u32(rd *r);
uint64_t rd_u64(rd *r);
uint64_t rd_varint(rd *r);                   /* protobuf base-128, at most 10 bytes */
const uint8_t *rd_bytes(rd *r, size_t n);    /* borrowed; NULL when fewer are left */

/* ---- files ---- */

typedef struct file_map {
    const uint8_t *data; /* NULL for an empty file */
    size_t size;
} file_map;
/* Map a regular file for reading.  Truncating it while it is mapped ends the process (SIGBUS), as with any map. */
gist_status map_open(const char *path, file_map *out, gist_error *err);
void map_close(file_map *m);
/* Tell the system that these bytes will not be read again soon (resident memory goes down, nothing is lost).  Bytes
 * that are not the map's stay as they are. */
void map_forget(const file_map *m, const void *p, size_t len);

bool path_exists(const char *path); /* a file or directory is there */
bool path_is_dir(const char *path);
/* "dir/name" in a fresh string; NULL on no memory */
char *path_join(const gist_allocator *alloc, const char *dir, const char *name);

/* Writes to a temporary beside `path`; commit flushes, fsyncs and renames, abort deletes it.  The first failed write
 * is remembered and reported by commit.  Existing permissions are not copied: the file gets 0666 & ~umask. */
typedef struct out_file {
    FILE *f;
    const gist_allocator *alloc;
    char *tmp, *path;
    int saved_errno;
} out_file;
gist_status out_open(out_file *o, const gist_allocator *alloc, const char *path, gist_error *err);
void out_write(out_file *o, const void *bytes, size_t len);
gist_status out_commit(out_file *o, gist_error *err); /* also closes and frees, on failure too (old file untouched) */
void out_abort(out_file *o);
/* Delete what killed writers left in dir: names that end in .tmp-<number>-<number>.  Only while no writer can be
 * there. */
void out_sweep(const char *dir, const gist_allocator *alloc);

/* ---- thread pool ---- */

typedef struct pool pool;
/* task in [0,n), worker in [0, pool_size) */
typedef void (*pool_fn)(void *ctx, int task, int worker);
int pool_cores(void); /* cores this process may run on */
gist_status pool_create(const gist_allocator *alloc, int threads, pool **out, gist_error *err);
void pool_free(pool *p);
int pool_size(const pool *p); /* NULL: 1 */
/* Run fn for every task in [0,n) and return when all are done.  The caller works too.  One caller at a time runs;
 * others wait.  Not re-entrant: fn must not call pool_run on the same pool. */
void pool_run(pool *p, pool_fn fn, void *ctx, int n); /* p NULL: the caller alone */

/* ---- random numbers ---- */

typedef struct rng {
    uint64_t s[4];
} rng;
void rng_seed(rng *r, uint64_t seed);
uint64_t rng_next(rng *r);
double rng_unit(rng *r);                   /* [0,1), 53 bits */
uint64_t rng_below(rng *r, uint64_t n);    /* [0,n), unbiased; n > 0 */
double rng_normal(rng *r);                 /* mean 0, variance 1 (Box-Muller, one of the pair: no hidden state) */

/* ---- hashes ---- */

typedef struct hash128 {
    uint8_t b[16];
} hash128;
typedef struct hasher hasher;
/* NULL on no memory.  hash_end frees. */
hasher *hash_begin(const gist_allocator *alloc);
void hash_add(hasher *h, const void *bytes, size_t len); /* length-prefixed: fields do not run together */
void hash_str(hasher *h, const char *s);                  /* NULL is different from "" */
void hash_u64(hasher *h, uint64_t v);
hash128 hash_end(hasher *h);
void hash_abort(hasher *h);
hash128 hash_bytes(const void *bytes, size_t len);        /* one shot, no prefix */
void hash_hex(hash128 h, char out[33]);                   /* 32 hex digits and NUL */

/* ---- UTF-8 ---- */

/* Decode one code point at s[0..len), len > 0: its length 1..4, or 0 when the bytes are not valid UTF-8 (overlong,
 * surrogate, beyond U+10FFFF or cut off). */
int utf8_decode(const char *s, size_t len, uint32_t *cp);
int utf8_encode(uint32_t cp, char out[4]); /* length */
/* True when all of s is valid; otherwise *bad is the offset of the first bad byte. */
bool utf8_valid(const char *s, size_t len, size_t *bad);
/* Longest prefix of s[0..len) that does not end inside a character that could still be completed. */
size_t utf8_complete(const char *s, size_t len);

/* ---- time ---- */
double time_now(void); /* seconds, monotonic */

#endif
