/* testing.h - what the test programs share; include it first, it brings cmocka.
 *
 *   memory     test_alloc        counts blocks, fails the n-th allocation; test_each_alloc loops n over all of them
 *   files      test_tmp          a directory of this process, removed at exit
 *              test_fixture      a file in the tree under tests/data
 *              test_data, NEED_DATA   a file of the shared data (GIST_TEST_DATA, default ../shared/data), or a skip
 *   numbers    floats, test_rand, test_fill, test_max_rel, assert_close, assert_same_floats
 *   errors     assert_ok, assert_fails
 *   skipping   SKIP("reason %s", ...)   says why; tests/run repeats it
 *
 * Programs run from the repository's root.  They are linked with every object of the library, so that internal
 * functions can be tested.  A test that cannot fail is a bug.
 */
#ifndef TESTING_H
#define TESTING_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "gist.h"

/* ---- skipping ---- */

/* End the running test as skipped, with a reason in printf style. */
#define SKIP(...)                                                                                                      \
    do {                                                                                                               \
        test_skip_reason(__func__, __VA_ARGS__);                                                                       \
        skip();                                                                                                        \
    } while (0)
void test_skip_reason(const char *test, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- memory ---- */

/* An allocator over the C library that counts, fills fresh blocks with garbage and can be told to fail.  Give &t.a to
 * the code under test.  Several threads may use it. */
typedef struct test_alloc {
    gist_allocator a;
    long calls;   /* allocations asked for so far */
    long blocks;  /* handed out and not yet freed: 0 at the end, or something leaked */
    long fail_at; /* the call (counted from 1) that fails; 0: none */
    bool sticky;  /* every later call fails too */
    bool failed;  /* one has failed */
} test_alloc;
void test_alloc_init(test_alloc *t);

/* Run fn with its first allocation failing, then its second, and so on until a run in which nothing failed.  Each run
 * must leave no block behind; a run that lost an allocation must return GIST_ERR_MEMORY, the last one GIST_OK.  Every
 * n is tried twice: only call n fails, and all calls from n on fail.  fn releases all that it made, whatever happened.
 * Fails the test otherwise.  Returns the number of allocations of an undisturbed run. */
typedef gist_status (*test_alloc_fn)(void *ctx, const gist_allocator *alloc);
long test_each_alloc(test_alloc_fn fn, void *ctx);

/* ---- files ---- */

enum { TEST_PATH = 1024 };
/* Path of `name` in this process's temporary directory (created at first use).  Returns out. */
char *test_tmp(char out[TEST_PATH], const char *name);
/* "tests/data/<name>", from GIST_TEST_ROOT (default: the current directory).  Returns out. */
char *test_fixture(char out[TEST_PATH], const char *name);
/* Path of `name` in the shared data; false when it is not there. */
bool test_data(char out[TEST_PATH], const char *name);
#define NEED_DATA(out, name)                                                                                           \
    do {                                                                                                               \
        if (!test_data(out, name)) SKIP("no %s (set GIST_TEST_DATA)", out);                                            \
    } while (0)
/* Whole file with a NUL behind it; free with free().  Fails the test when it cannot be read. */
uint8_t *test_read(const char *path, size_t *len);
void test_write(const char *path, const void *bytes, size_t len);
/* Same bytes in both files? */
bool test_same_file(const char *a, const char *b);

/* ---- numbers ---- */

float *floats(size_t n); /* not set; free with free() */
uint64_t test_rand(uint64_t *state);                            /* splitmix64; any state is a seed */
float test_randf(uint64_t *state);                              /* uniform in [-1,1) */
void test_fill(float *p, size_t n, float scale, uint64_t seed); /* uniform in [-scale,scale) */

/* max|got-ref| / max|ref| (the plain maximum when ref is all zero).  NaN matches only NaN, infinity only itself;
 * otherwise the result is infinite.  *worst (may be NULL) is the index of the largest difference. */
double test_max_rel(const float *got, const float *ref, size_t n, size_t *worst);

/* test_max_rel <= tol, or a failure that names what, the worst index and both values. */
#define assert_close(got, ref, n, tol, what) test_close(got, ref, n, tol, what, __FILE__, __LINE__)
void test_close(const float *got, const float *ref, size_t n, double tol, const char *what, const char *file, int line);

/* Bit for bit equal, or a failure that names what and the first differing index. */
#define assert_same_floats(got, ref, n, what) test_same_floats(got, ref, n, what, __FILE__, __LINE__)
void test_same_floats(const float *got, const float *ref, size_t n, const char *what, const char *file, int line);

/* ---- errors ---- */

/* The call's status is GIST_OK, or a failure that shows err's message.  err: gist_error *, may be NULL. */
#define assert_ok(call, err) test_status(call, err, GIST_OK, NULL, #call, __FILE__, __LINE__)
/* The call fails with `code`, err holds the same code, and its message contains `text` (NULL: any message). */
#define assert_fails(call, err, code, text) test_status(call, err, code, text, #call, __FILE__, __LINE__)
void test_status(gist_status got, const gist_error *err, gist_status want, const char *text, const char *call,
                 const char *file, int line);

#endif
