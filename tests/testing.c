/* testing.c - helpers of the test programs; contracts in testing.h. */
#include "testing.h"

#include <errno.h>
#include <ftw.h>
#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* Results already printed must survive a crash, so that tests/run can say which test it was. */
__attribute__((constructor)) static void line_buffered(void) {
    setvbuf(stdout, NULL, _IOLBF, 0);
}

void test_skip_reason(const char *test, const char *fmt, ...) {
    char reason[2 * TEST_PATH];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(reason, sizeof reason, fmt, ap);
    va_end(ap);
    printf("# SKIP %s: %s\n", test, reason);
}

/* ---- memory ---- */

static void *counted_alloc(void *ctx, size_t bytes) {
    test_alloc *t = ctx;
    long call = __atomic_add_fetch(&t->calls, 1, __ATOMIC_RELAXED);
    if (t->fail_at != 0 && (call == t->fail_at || (t->sticky && call > t->fail_at))) {
        __atomic_store_n(&t->failed, true, __ATOMIC_RELAXED);
        return NULL;
    }
    void *p = NULL;
    if (posix_memalign(&p, 64, bytes) != 0) return NULL;
    memset(p, 0xa5, bytes);
    __atomic_add_fetch(&t->blocks, 1, __ATOMIC_RELAXED);
    return p;
}

static void counted_free(void *ctx, void *p) {
    test_alloc *t = ctx;
    if (p != NULL) __atomic_sub_fetch(&t->blocks, 1, __ATOMIC_RELAXED);
    free(p);
}

void test_alloc_init(test_alloc *t) {
    *t = (test_alloc){ .a = { .ctx = t, .alloc = counted_alloc, .free = counted_free } };
}

long test_each_alloc(test_alloc_fn fn, void *ctx) {
    enum { MOST = 1000000 };
    for (long n = 1; n < MOST; n++) {
        for (int sticky = 0; sticky < 2; sticky++) {
            test_alloc t;
            test_alloc_init(&t);
            t.fail_at = n;
            t.sticky = sticky == 1;
            gist_status s = fn(ctx, &t.a);
            gist_status want = t.failed ? GIST_ERR_MEMORY : GIST_OK;
            if (s != want)
                fail_msg("allocation %ld fails%s: status %d (%s), expected %d", n, sticky ? ", and all later ones" : "",
                         (int)s, gist_status_text(s), (int)want);
            if (t.blocks != 0)
                fail_msg("allocation %ld fails%s: %ld blocks leaked", n, sticky ? ", and all later ones" : "",
                         t.blocks);
            if (!t.failed) return t.calls;
        }
    }
    fail_msg("still allocating after %d allocations", MOST);
    return 0;
}

/* ---- files ---- */

static char tmp_dir[TEST_PATH / 2];
static pid_t tmp_owner; /* a forked child of a test leaves the directory to its parent */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw) {
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static void remove_tmp(void) {
    if (tmp_dir[0] != 0 && getpid() == tmp_owner) nftw(tmp_dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

char *test_tmp(char out[TEST_PATH], const char *name) {
    if (tmp_dir[0] == 0) {
        const char *base = getenv("TMPDIR");
        snprintf(tmp_dir, sizeof tmp_dir, "%s/gist-test-XXXXXX", base != NULL && base[0] != 0 ? base : "/tmp");
        if (mkdtemp(tmp_dir) == NULL) fail_msg("mkdtemp %s: %s", tmp_dir, strerror(errno));
        tmp_owner = getpid();
        atexit(remove_tmp);
    }
    snprintf(out, TEST_PATH, "%s/%s", tmp_dir, name);
    return out;
}

char *test_fixture(char out[TEST_PATH], const char *name) {
    const char *root = getenv("GIST_TEST_ROOT");
    snprintf(out, TEST_PATH, "%s/tests/data/%s", root != NULL ? root : ".", name);
    return out;
}

bool test_data(char out[TEST_PATH], const char *name) {
    const char *dir = getenv("GIST_TEST_DATA");
    snprintf(out, TEST_PATH, "%s/%s", dir != NULL && dir[0] != 0 ? dir : "../shared/data", name);
    return access(out, R_OK) == 0;
}

uint8_t *test_read(const char *path, size_t *len) {
    FILE *f = fopen(path, "rb");
    if (f == NULL) fail_msg("open %s: %s", path, strerror(errno));
    struct stat st;
    assert_int_equal(fstat(fileno(f), &st), 0);
    size_t size = (size_t)st.st_size;
    uint8_t *p = malloc(size + 1);
    assert_non_null(p);
    if (fread(p, 1, size, f) != size) fail_msg("read %s: %s", path, strerror(errno));
    fclose(f);
    p[size] = 0;
    if (len != NULL) *len = size;
    return p;
}

void test_write(const char *path, const void *bytes, size_t len) {
    FILE *f = fopen(path, "wb");
    if (f == NULL) fail_msg("create %s: %s", path, strerror(errno));
    size_t n = len > 0 ? fwrite(bytes, 1, len, f) : 0;
    if (fclose(f) != 0 || n != len) fail_msg("write %s: %s", path, strerror(errno));
}

bool test_same_file(const char *a, const char *b) {
    size_t na, nb;
    uint8_t *pa = test_read(a, &na), *pb = test_read(b, &nb);
    bool same = na == nb && memcmp(pa, pb, na) == 0;
    free(pa);
    free(pb);
    return same;
}

/* ---- numbers ---- */

float *floats(size_t n) {
    float *p = malloc((n ? n : 1) * sizeof *p);
    assert_non_null(p);
    return p;
}

uint64_t test_rand(uint64_t *state) {
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

float test_randf(uint64_t *state) {
    return (float)(int32_t)(test_rand(state) >> 40) * 0x1p-23f - 1.0f;
}

void test_fill(float *p, size_t n, float scale, uint64_t seed) {
    for (size_t i = 0; i < n; i++) p[i] = scale * test_randf(&seed);
}

double test_max_rel(const float *got, const float *ref, size_t n, size_t *worst) {
    double most = 0, scale = 0;
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        double g = (double)got[i], r = (double)ref[i], d = fabs(g - r);
        if (!isfinite(g) || !isfinite(r)) {
            d = (isnan(g) && isnan(r)) || g == r ? 0 : INFINITY;
        } else if (fabs(r) > scale) {
            scale = fabs(r);
        }
        if (d > most) {
            most = d;
            at = i;
        }
    }
    if (worst != NULL) *worst = at;
    return scale > 0 ? most / scale : most;
}

void test_close(const float *got, const float *ref, size_t n, double tol, const char *what, const char *file,
                int line) {
    size_t at;
    double d = test_max_rel(got, ref, n, &at);
    if (d <= tol) return;
    print_error("%s: max|d|/max|ref| = %.3g > %.3g over %zu values; worst at [%zu]: %.9g, expected %.9g\n", what, d,
                tol, n, at, (double)got[at], (double)ref[at]);
    _fail(file, line);
}

void test_same_floats(const float *got, const float *ref, size_t n, const char *what, const char *file, int line) {
    for (size_t i = 0; i < n; i++) {
        if (memcmp(got + i, ref + i, sizeof(float)) == 0) continue;
        print_error("%s: differs at [%zu] of %zu: %a, expected %a\n", what, i, n, (double)got[i], (double)ref[i]);
        _fail(file, line);
        return;
    }
}

/* ---- errors ---- */

void test_status(gist_status got, const gist_error *err, gist_status want, const char *text, const char *call,
                 const char *file, int line) {
    const char *msg = err != NULL ? err->msg : "";
    if (got != want) {
        print_error("%s: status %d (%s), expected %d; message: %s\n", call, (int)got, gist_status_text(got), (int)want,
                    msg);
        _fail(file, line);
    }
    if (want == GIST_OK || err == NULL) return;
    if (err->code != want || msg[0] == 0) {
        print_error("%s: error holds code %d and message \"%s\", expected code %d and a message\n", call,
                    (int)err->code, msg, (int)want);
        _fail(file, line);
    }
    if (text != NULL && strstr(msg, text) == NULL) {
        print_error("%s: message \"%s\" does not say \"%s\"\n", call, msg, text);
        _fail(file, line);
    }
}
