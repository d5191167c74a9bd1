/* test_file.c - read-only maps, and output files that replace the old one whole or not at all. */
#include "testing.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/base.h"

/* A fresh directory for one test. */
static void fresh_dir(char out[TEST_PATH], const char *name) {
    test_tmp(out, name);
    if (mkdir(out, 0755) != 0) fail_msg("mkdir %s: %s", out, strerror(errno));
}

static void in_dir(char out[TEST_PATH], const char *dir, const char *name) {
    int n = snprintf(out, TEST_PATH, "%s/%s", dir, name);
    assert_in_range(n, 1, TEST_PATH - 1);
}

static int entries(const char *dir) {
    DIR *d = opendir(dir);
    assert_non_null(d);
    int n = 0;
    for (struct dirent *e; (e = readdir(d)) != NULL;) n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    closedir(d);
    return n;
}

static void assert_content(const char *path, const char *want) {
    size_t n;
    uint8_t *p = test_read(path, &n);
    assert_int_equal(n, strlen(want));
    assert_memory_equal(p, want, n);
    free(p);
}

/* ---- maps ---- */

static void a_map_shows_the_file(void **state) {
    (void)state;
    char path[TEST_PATH];
    enum { N = 10000 };
    uint8_t bytes[N];
    for (size_t i = 0; i < N; i++) bytes[i] = (uint8_t)(i * 31);
    test_write(test_tmp(path, "map"), bytes, N);
    file_map m = { NULL, 0 };
    gist_error err = { 0 };
    assert_ok(map_open(path, &m, &err), &err);
    assert_int_equal(m.size, N);
    assert_memory_equal(m.data, bytes, N);
    map_forget(&m, m.data + 5000, 4000);
    map_forget(&m, m.data, 0);
    assert_memory_equal(m.data, bytes, N); /* forgotten pages are read again */
    map_close(&m);
    assert_null(m.data);
    assert_int_equal(m.size, 0);
    map_close(&m);
}

static void an_empty_file_maps_to_nothing(void **state) {
    (void)state;
    char path[TEST_PATH];
    test_write(test_tmp(path, "empty"), "", 0);
    file_map m = { (const uint8_t *)"x", 1 };
    gist_error err = { 0 };
    assert_ok(map_open(path, &m, &err), &err);
    assert_null(m.data);
    assert_int_equal(m.size, 0);
    map_forget(&m, NULL, 0);
    map_close(&m);
}

static void what_cannot_be_mapped_is_named(void **state) {
    (void)state;
    char path[TEST_PATH];
    file_map m = { (const uint8_t *)"x", 1 };
    gist_error err = { 0 };
    assert_fails(map_open(test_tmp(path, "absent"), &m, &err), &err, GIST_ERR_IO, "absent");
    err = (gist_error){ 0 };
    assert_fails(map_open("/", &m, &err), &err, GIST_ERR_IO, "/");
    err = (gist_error){ 0 };
    assert_fails(map_open("/dev/null", &m, &err), &err, GIST_ERR_IO, "not a regular file");
    err = (gist_error){ 0 };
    assert_fails(map_open("", &m, &err), &err, GIST_ERR_IO, NULL);
    assert_int_equal(m.size, 1); /* outputs untouched */
}

static void paths_are_told_apart_and_joined(void **state) {
    (void)state;
    char dir[TEST_PATH], file[TEST_PATH];
    fresh_dir(dir, "paths");
    in_dir(file, dir, "f");
    assert_false(path_exists(file));
    test_write(file, "x", 1);
    assert_true(path_exists(file) && path_exists(dir));
    assert_true(path_is_dir(dir));
    assert_false(path_is_dir(file));
    static const char *const joined[][3] = {
        { "a", "b", "a/b" }, { "a/", "b", "a/b" }, { "/", "b", "/b" }, { "", "b", "b" }
    };
    for (size_t i = 0; i < sizeof joined / sizeof joined[0]; i++) {
        char *p = path_join(NULL, joined[i][0], joined[i][1]);
        assert_string_equal(p, joined[i][2]);
        mem_free(NULL, p);
    }
}

static gist_status join(void *ctx, const gist_allocator *alloc) {
    (void)ctx;
    char *p =
        path_join(alloc, "a directory of some length, to make it grow", "and a file in it, also with a long name");
    if (!p) return GIST_ERR_MEMORY;
    mem_free(alloc, p);
    return GIST_OK;
}

static void join_survives_every_failed_allocation(void **state) {
    (void)state;
    assert_true(test_each_alloc(join, NULL) >= 1);
}

/* ---- output files ---- */

static gist_status write_text(const gist_allocator *alloc, const char *path, const char *text, gist_error *err) {
    out_file o;
    TRY(out_open(&o, alloc, path, err));
    for (const char *p = text; *p; p++) out_write(&o, p, 1);
    return out_commit(&o, err);
}

static void a_commit_creates_and_replaces(void **state) {
    (void)state;
    char dir[TEST_PATH], path[TEST_PATH];
    fresh_dir(dir, "commit");
    in_dir(path, dir, "out");
    gist_error err = { 0 };
    assert_ok(write_text(NULL, path, "first", &err), &err);
    assert_content(path, "first");
    assert_ok(write_text(NULL, path, "", &err), &err);
    assert_content(path, "");
    assert_ok(write_text(NULL, path, "second, longer", &err), &err);
    assert_content(path, "second, longer");
    assert_int_equal(entries(dir), 1);
}

static void a_reader_sees_the_old_file_until_the_commit(void **state) {
    (void)state;
    char dir[TEST_PATH], path[TEST_PATH];
    fresh_dir(dir, "reader");
    in_dir(path, dir, "out");
    test_write(path, "old", 3);
    file_map m;
    gist_error err = { 0 };
    assert_ok(map_open(path, &m, &err), &err);
    out_file o;
    assert_ok(out_open(&o, NULL, path, &err), &err);
    out_write(&o, "new", 3);
    fflush(o.f);
    assert_content(path, "old");
    assert_int_equal(entries(dir), 2);
    assert_ok(out_commit(&o, &err), &err);
    assert_content(path, "new");
    assert_memory_equal(m.data, "old", 3); /* a map keeps the file it was made of */
    map_close(&m);
    assert_int_equal(entries(dir), 1);
}

static void an_abort_leaves_no_trace(void **state) {
    (void)state;
    char dir[TEST_PATH], path[TEST_PATH];
    fresh_dir(dir, "abort");
    in_dir(path, dir, "out");
    test_write(path, "old", 3);
    out_file o;
    gist_error err = { 0 };
    assert_ok(out_open(&o, NULL, path, &err), &err);
    out_write(&o, "new", 3);
    out_abort(&o);
    out_abort(&o); /* once more is fine */
    assert_content(path, "old");
    assert_int_equal(entries(dir), 1);
}

static void two_writers_do_not_mix(void **state) {
    (void)state;
    char dir[TEST_PATH], path[TEST_PATH];
    fresh_dir(dir, "two");
    in_dir(path, dir, "out");
    out_file a, b;
    gist_error err = { 0 };
    assert_ok(out_open(&a, NULL, path, &err), &err);
    assert_ok(out_open(&b, NULL, path, &err), &err);
    out_write(&a, "from a", 6);
    out_write(&b, "from b", 6);
    assert_ok(out_commit(&a, &err), &err);
    assert_content(path, "from a");
    assert_ok(out_commit(&b, &err), &err);
    assert_content(path, "from b");
    assert_int_equal(entries(dir), 1);
}

/* A file size limit stands in for a full disk: the write fails in the middle. */
static void a_full_disk_keeps_the_old_file(void **state) {
    (void)state;
    enum { LIMIT = 4096 };
    char dir[TEST_PATH], path[TEST_PATH];
    fresh_dir(dir, "full");
    in_dir(path, dir, "out");
    test_write(path, "old", 3);
    static const uint8_t block[LIMIT / 2 + 1];
    struct rlimit was, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
    small = (struct rlimit){ LIMIT, was.rlim_max };
    for (int blocks = 2; blocks <= 40; blocks += 19) {
        gist_error err = { 0 };
        out_file o;
        assert_ok(out_open(&o, NULL, path, &err), &err);
        void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &small);
        for (int i = 0; i < blocks; i++) out_write(&o, block, sizeof block);
        gist_status s = out_commit(&o, &err);
        setrlimit(RLIMIT_FSIZE, &was);
        signal(SIGXFSZ, handler);
        assert_fails(s, &err, GIST_ERR_IO, path);
        assert_content(path, "old");
        assert_int_equal(entries(dir), 1);
    }
}

static void what_cannot_be_created_is_named(void **state) {
    (void)state;
    char dir[TEST_PATH], path[TEST_PATH];
    test_tmp(dir, "no-such-directory");
    in_dir(path, dir, "out");
    out_file o;
    gist_error err = { 0 };
    assert_fails(out_open(&o, NULL, path, &err), &err, GIST_ERR_IO, "no-such-directory/out");
}

static void what_cannot_be_replaced_is_named(void **state) {
    (void)state;
    char dir[TEST_PATH], path[TEST_PATH];
    fresh_dir(dir, "replace");
    in_dir(path, dir, "taken");
    assert_int_equal(mkdir(path, 0755), 0); /* a directory stands where the file shall go */
    gist_error err = { 0 };
    assert_fails(write_text(NULL, path, "x", &err), &err, GIST_ERR_IO, "taken");
    assert_int_equal(entries(dir), 1);
    assert_true(path_is_dir(path));
}

static void new_files_get_the_umask(void **state) {
    (void)state;
    char path[TEST_PATH];
    test_tmp(path, "mode");
    gist_error err = { 0 };
    mode_t was = umask(027);
    gist_status s = write_text(NULL, path, "x", &err);
    umask(was);
    assert_ok(s, &err);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
}

static void a_bare_name_goes_to_the_current_directory(void **state) {
    (void)state;
    char dir[TEST_PATH], was[TEST_PATH];
    fresh_dir(dir, "bare");
    assert_non_null(getcwd(was, sizeof was));
    assert_int_equal(chdir(dir), 0);
    gist_error err = { 0 };
    gist_status s = write_text(NULL, "out", "here", &err);
    assert_int_equal(chdir(was), 0);
    assert_ok(s, &err);
    assert_int_equal(entries(dir), 1);
}

static gist_status write_once(void *ctx, const gist_allocator *alloc) {
    return write_text(alloc, ctx, "new", NULL);
}

static void writing_survives_every_failed_allocation(void **state) {
    (void)state;
    char dir[TEST_PATH], path[TEST_PATH];
    fresh_dir(dir, "memory");
    in_dir(path, dir, "out");
    assert_true(test_each_alloc(write_once, path) >= 2);
    assert_content(path, "new");
    assert_int_equal(entries(dir), 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_map_shows_the_file),
        cmocka_unit_test(an_empty_file_maps_to_nothing),
        cmocka_unit_test(what_cannot_be_mapped_is_named),
        cmocka_unit_test(paths_are_told_apart_and_joined),
        cmocka_unit_test(join_survives_every_failed_allocation),
        cmocka_unit_test(a_commit_creates_and_replaces),
        cmocka_unit_test(a_reader_sees_the_old_file_until_the_commit),
        cmocka_unit_test(an_abort_leaves_no_trace),
        cmocka_unit_test(two_writers_do_not_mix),
        cmocka_unit_test(a_full_disk_keeps_the_old_file),
        cmocka_unit_test(what_cannot_be_created_is_named),
        cmocka_unit_test(what_cannot_be_replaced_is_named),
        cmocka_unit_test(new_files_get_the_umask),
        cmocka_unit_test(a_bare_name_goes_to_the_current_directory),
        cmocka_unit_test(writing_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests_name("file", tests, NULL, NULL);
}
