/* file.c - read-only maps and atomic output files.
 *
 *   out_open  path + ".tmp-<pid>-<n>"  ->  out_write ...  ->  out_commit: fflush, fsync, rename, fsync of the directory
 *
 * A reader of `path` sees the old file or the whole new one, also after a crash.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/base.h"

gist_status map_open(const char *path, file_map *out, gist_error *err) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not block; it is refused below */
    if (fd < 0) return err_set(err, GIST_ERR_IO, "%s: %s", path, strerror(errno));
    struct stat st;
    gist_status status = GIST_OK;
    file_map m = { NULL, 0 };
    if (fstat(fd, &st) != 0)
        status = err_set(err, GIST_ERR_IO, "%s: %s", path, strerror(errno));
    else if (!S_ISREG(st.st_mode))
        status = err_set(err, GIST_ERR_IO, "%s: not a regular file", path);
    else if ((uint64_t)st.st_size > SIZE_MAX)
        status = err_set(err, GIST_ERR_LIMIT, "%s: %lld bytes do not fit this machine's address space", path,
                         (long long)st.st_size);
    else if (st.st_size > 0) {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED)
            status = err_set(err, GIST_ERR_IO, "%s: cannot map: %s", path, strerror(errno));
        else
            m = (file_map){ p, (size_t)st.st_size };
    }
    close(fd);
    if (status == GIST_OK) *out = m;
    return status;
}

void map_close(file_map *m) {
    if (m->data) munmap((void *)(uintptr_t)m->data, m->size);
    *m = (file_map){ NULL, 0 };
}

void map_forget(const file_map *m, const void *p, size_t len) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = (uintptr_t)p & ~(page - 1), base = (uintptr_t)m->data;
    bool inside = (uintptr_t)p >= base && (uintptr_t)p - base <= m->size && len <= m->size - ((uintptr_t)p - base);
    if (m->data && len && inside) (void)madvise((void *)from, (uintptr_t)p + len - from, MADV_DONTNEED);
}

bool path_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0;
}

bool path_is_dir(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

char *path_join(const gist_allocator *alloc, const char *dir, const char *name) {
    sbuf s;
    sbuf_init(&s, alloc);
    sbuf_str(&s, dir);
    if (s.len && s.p[s.len - 1] != '/') sbuf_str(&s, "/");
    sbuf_str(&s, name);
    return sbuf_take(&s);
}

/* ---- atomic output ---- */

static void out_release(out_file *o) {
    if (o->f) fclose(o->f);
    mem_free(o->alloc, o->tmp);
    mem_free(o->alloc, o->path);
    *o = (out_file){ 0 };
}

gist_status out_open(out_file *o, const gist_allocator *alloc, const char *path, gist_error *err) {
    *o = (out_file){ .alloc = alloc };
    o->path = mem_strndup(alloc, path, strlen(path));
    sbuf name;
    sbuf_init(&name, alloc);
    int fd = -1;
    for (unsigned n = 0; o->path && fd < 0 && n < 100; n++) {
        name.len = 0;
        sbuf_fmt(&name, "%s.tmp-%ld-%u", path, (long)getpid(), n);
        if (name.failed) break;
        fd = open(name.p, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd < 0 && errno != EEXIST) break;
    }
    int e = errno;
    if (!o->path || name.failed) {
        sbuf_free(&name);
        out_release(o);
        return err_memory(err, "output file");
    }
    o->tmp = sbuf_take(&name);
    if (fd >= 0 && !(o->f = fdopen(fd, "wb"))) {
        e = errno;
        close(fd);
        unlink(o->tmp);
    }
    if (o->f) return GIST_OK;
    out_release(o);
    return err_set(err, GIST_ERR_IO, "%s: cannot create: %s", path, strerror(e));
}

void out_write(out_file *o, const void *bytes, size_t len) {
    if (o->saved_errno || len == 0) return;
    if (fwrite(bytes, 1, len, o->f) != len) o->saved_errno = errno ? errno : EIO;
}

/* The rename itself must survive a crash: sync the directory that holds the name.  `path` is cut at its last slash. */
static void sync_parent(char *path) {
    char *slash = strrchr(path, '/');
    if (slash && slash != path) *slash = '\0';
    int fd = open(!slash ? "." : slash == path ? "/" : path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return;
    (void)fsync(fd); /* some file systems refuse this on directories */
    close(fd);
}

gist_status out_commit(out_file *o, gist_error *err) {
    int e = o->saved_errno;
    if (!e && fflush(o->f) != 0) e = errno;
    if (!e && fsync(fileno(o->f)) != 0 && errno != EINVAL) e = errno;
    if (fclose(o->f) != 0 && !e) e = errno;
    o->f = NULL;
    if (!e && rename(o->tmp, o->path) != 0) e = errno;
    gist_status status = GIST_OK;
    if (e) {
        unlink(o->tmp);
        status = err_set(err, GIST_ERR_IO, "%s: cannot write: %s", o->path, strerror(e));
    } else {
        sync_parent(o->path);
    }
    out_release(o);
    return status;
}

void out_abort(out_file *o) {
    if (!o->tmp) return;
    if (o->f) fclose(o->f);
    o->f = NULL;
    unlink(o->tmp);
    out_release(o);
}

/* Does a name end in ".tmp-<number>-<number>"? */
static bool is_temporary(const char *name) {
    const char *at = NULL;
    for (const char *p = name; (p = strstr(p, ".tmp-")) != NULL; p++) at = p;
    if (!at) return false;
    size_t pid = strspn(at + 5, "0123456789");
    const char *n = at + 5 + pid;
    return pid > 0 && n[0] == '-' && n[1] && strspn(n + 1, "0123456789") == strlen(n + 1);
}

void out_sweep(const char *dir, const gist_allocator *alloc) {
    DIR *d = opendir(dir);
    if (!d) return;
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        char *path = is_temporary(e->d_name) ? path_join(alloc, dir, e->d_name) : NULL;
        if (path) unlink(path);
        mem_free(alloc, path);
    }
    closedir(d);
}
