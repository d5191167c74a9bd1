/* zip.c - the directory of a zip archive from bytes that are not trusted: names and where their bytes lie.
 *
 *   | local header | name | extra | bytes of entry 0 | ... | central directory | [zip64 end, its locator] | end |
 *                                                        ^ offset, size and count stand in the end records
 *
 *   end (22)       "PK\5\6" disk u16, disk of directory u16, entries here u16, entries u16, size u32, offset u32,
 *                  comment length u16
 *   locator (20)   "PK\6\7" disk u32, offset of the zip64 end u64, disks u32               directly before the end
 *   zip64 end (56) "PK\6\6" size u64, made by u16, needs u16, disk u32, disk u32, entries u64, entries u64, size u64,
 *                  offset u64
 *   entry (46)     "PK\1\2" made by u16, needs u16, flags u16, method u16, time u32, crc u32, packed u32, size u32,
 *                  name u16, extra u16, comment u16, disk u16, attributes u16 u32, header offset u32; name, extra,
 *                  comment.  Numbers of all ones are in the extra field of kind 1, as u64 in the order size, packed,
 *                  offset
 *   local (30)     "PK\3\4" needs u16, flags u16, method u16, time u32, crc u32, packed u32, size u32, name u16, extra
 *                  u16; name, extra; the bytes.  Its sizes may be missing (flag 8) and are not looked at
 *
 * Only what PyTorch writes: one disk, entries stored as they are (method 0), no encryption, no comment at the end.
 * Names are unique, entries do not overlap each other or the directory.  Checksums are not verified.
 * Source: APPNOTE.TXT - .ZIP File Format Specification, PKWARE.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "format/format_int.h"

enum { SHOWN = 72, END = 22, LOCATOR = 20, END64 = 56, ENTRY = 46, LOCAL = 30 };
enum {
    SIG_LOCAL = 0x04034b50,
    SIG_ENTRY = 0x02014b50,
    SIG_END = 0x06054b50,
    SIG_END64 = 0x06064b50,
    SIG_LOCATOR = 0x07064b50
};

static int by_name(const void *a, const void *b) {
    const zip_entry *x = a, *y = b;
    size_t n = x->name_len < y->name_len ? x->name_len : y->name_len;
    int c = memcmp(x->name, y->name, n);
    return c ? c : (x->name_len > y->name_len) - (x->name_len < y->name_len);
}

static int by_place(const void *a, const void *b) {
    const zip_entry *x = a, *y = b;
    return (x->header > y->header) - (x->header < y->header);
}

static const char *show(char shown[SHOWN], const zip_entry *e) {
    return json_show(shown, SHOWN, e->name, e->name_len);
}

/* ---- the end records ---- */

typedef struct directory {
    uint64_t offset, size, count;
} directory;

static gist_status broken_end(const char *what, gist_error *err) {
    return err_set(err, GIST_ERR_FORMAT, "%s: a zip archive whose end records contradict each other", what);
}

/* A number of the old end record is that of the zip64 one, or all ones. */
static bool agrees(uint64_t old, uint64_t ones, uint64_t wide) {
    return old == ones || old == wide;
}

/* The zip64 end record, where a locator stands before the end: *d, which holds the old record's numbers, becomes its,
 * and *stop, where the directory must end, its place. */
static gist_status read_end64(const uint8_t *p, uint64_t end, directory *d, uint64_t *stop, const char *what,
                              gist_error *err) {
    rd r;
    if (end < LOCATOR) return GIST_OK;
    rd_init(&r, p + end - LOCATOR, LOCATOR);
    if (rd_u32(&r) != SIG_LOCATOR) return GIST_OK;
    uint32_t disk = rd_u32(&r);
    uint64_t at = rd_u64(&r);
    if (disk != 0 || rd_u32(&r) > 1 || end < LOCATOR + END64 || at > end - LOCATOR - END64)
        return broken_end(what, err);
    rd_init(&r, p + at, END64);
    uint32_t sig = rd_u32(&r);
    uint64_t size = rd_u64(&r);
    rd_bytes(&r, 4);
    uint32_t disks = rd_u32(&r) | rd_u32(&r);
    directory w = { .count = rd_u64(&r) };
    uint64_t all = rd_u64(&r);
    w.size = rd_u64(&r);
    w.offset = rd_u64(&r);
    if (sig != SIG_END64 || size < END64 - 12 || size != end - LOCATOR - at - 12 || disks || w.count != all ||
        !agrees(d->count, 0xffff, w.count) || !agrees(d->size, UINT32_MAX, w.size) ||
        !agrees(d->offset, UINT32_MAX, w.offset))
        return broken_end(what, err);
    *d = w;
    *stop = at;
    return GIST_OK;
}

static gist_status read_end(const uint8_t *p, size_t len, directory *d, const char *what, gist_error *err) {
    rd r;
    if (len >= END) rd_init(&r, p + len - END, END);
    if (len < END || rd_u32(&r) != SIG_END)
        return err_set(err, GIST_ERR_FORMAT, "%s: cut off, or not a zip archive (no end record in its last %d bytes)",
                       what, END);
    int disks = rd_u16(&r) | rd_u16(&r);
    uint16_t here = rd_u16(&r);
    d->count = rd_u16(&r);
    d->size = rd_u32(&r);
    d->offset = rd_u32(&r);
    if (disks || here != d->count || rd_u16(&r) != 0) return broken_end(what, err);
    uint64_t stop = len - END;
    TRY(read_end64(p, stop, d, &stop, what, err));
    if (d->offset > stop || d->size > stop - d->offset) return broken_end(what, err);
    if (d->count > d->size / ENTRY)
        return err_set(err, GIST_ERR_FORMAT, "%s: a zip directory of %" PRIu64 " bytes cannot hold %" PRIu64 " entries",
                       what, d->size, d->count);
    return GIST_OK;
}

/* ---- entries ---- */

/* Sizes and offset that are all ones stand in the extra field. */
static bool read_wide(const uint8_t *extra, size_t len, uint64_t *size, uint64_t *packed, uint64_t *header) {
    if (*size != UINT32_MAX && *packed != UINT32_MAX && *header != UINT32_MAX) return true;
    rd r;
    rd_init(&r, extra, len);
    while (rd_left(&r) >= 4) {
        uint16_t kind = rd_u16(&r), n = rd_u16(&r);
        const uint8_t *field = rd_bytes(&r, n);
        if (!field || kind != 1) continue;
        rd f;
        rd_init(&f, field, n);
        if (*size == UINT32_MAX) *size = rd_u64(&f);
        if (*packed == UINT32_MAX) *packed = rd_u64(&f);
        if (*header == UINT32_MAX) *header = rd_u64(&f);
        return !f.failed;
    }
    return false;
}

/* The bytes behind the local header, which must be that of the entry and end before `stop`. */
static gist_status find_bytes(zip_entry *e, const uint8_t *p, uint64_t stop, const char *what, gist_error *err) {
    char shown[SHOWN];
    rd r;
    rd_init(&r, p, (size_t)stop);
    bool ok = e->header <= stop && rd_bytes(&r, (size_t)e->header) && rd_u32(&r) == SIG_LOCAL;
    if (ok) {
        rd_bytes(&r, 2);
        bool hidden = rd_u16(&r) & 1;
        uint16_t method = rd_u16(&r);
        rd_bytes(&r, 16);
        uint16_t name_len = rd_u16(&r), extra = rd_u16(&r);
        const uint8_t *name = rd_bytes(&r, name_len);
        rd_bytes(&r, extra);
        ok = !hidden && method == 0 && name && name_len == e->name_len && memcmp(name, e->name, name_len) == 0;
    }
    if (!ok || r.failed)
        return err_set(err, GIST_ERR_FORMAT, "%s: zip entry \"%s\" is not at byte %" PRIu64, what, show(shown, e),
                       e->header);
    e->offset = r.pos;
    if (e->size > rd_left(&r))
        return err_set(err, GIST_ERR_FORMAT, "%s: zip entry \"%s\" takes %" PRIu64 " bytes at %" PRIu64 " of %" PRIu64,
                       what, show(shown, e), e->size, e->offset, stop);
    return GIST_OK;
}

static gist_status read_entry(zip_entry *e, rd *r, const char *what, gist_error *err) {
    char shown[SHOWN];
    uint32_t sig = rd_u32(r);
    rd_bytes(r, 4);
    uint16_t flags = rd_u16(r), method = rd_u16(r);
    rd_bytes(r, 8);
    uint64_t packed = rd_u32(r);
    e->size = rd_u32(r);
    e->name_len = rd_u16(r);
    uint16_t extra_len = rd_u16(r), comment = rd_u16(r), disk = rd_u16(r);
    rd_bytes(r, 6);
    e->header = rd_u32(r);
    e->name = (const char *)rd_bytes(r, e->name_len);
    const uint8_t *extra = rd_bytes(r, extra_len);
    rd_bytes(r, comment);
    if (r->failed || sig != SIG_ENTRY || e->name_len == 0)
        return err_set(err, GIST_ERR_FORMAT, "%s: the zip directory is broken", what);
    if (flags & 1) return err_set(err, GIST_ERR_UNSUPPORTED, "%s: zip entry \"%s\" is encrypted", what, show(shown, e));
    if (method != 0)
        return err_set(err, GIST_ERR_UNSUPPORTED,
                       "%s: zip entry \"%s\" is compressed (method %d%s); PyTorch stores entries as they are", what,
                       show(shown, e), method, method == 8 ? ", deflate" : "");
    bool wide = read_wide(extra, extra_len, &e->size, &packed, &e->header);
    if (!wide || packed != e->size || disk != 0)
        return err_set(err, GIST_ERR_FORMAT, "%s: zip entry \"%s\" has sizes that contradict each other", what,
                       show(shown, e));
    return GIST_OK;
}

/* In the order of the file, each ends before the next begins. */
static gist_status check_places(zip_archive *z, const char *what, gist_error *err) {
    char shown[SHOWN], other[SHOWN];
    qsort(z->entries, z->count, sizeof *z->entries, by_place);
    for (size_t i = 1; i < z->count; i++) {
        const zip_entry *a = &z->entries[i - 1], *b = &z->entries[i];
        if (a->offset + a->size > b->header)
            return err_set(err, GIST_ERR_FORMAT, "%s: zip entries \"%s\" and \"%s\" overlap", what, show(shown, a),
                           show(other, b));
    }
    return GIST_OK;
}

static gist_status check_names(zip_archive *z, const char *what, gist_error *err) {
    char shown[SHOWN];
    qsort(z->entries, z->count, sizeof *z->entries, by_name);
    for (size_t i = 1; i < z->count; i++)
        if (by_name(&z->entries[i - 1], &z->entries[i]) == 0)
            return err_set(err, GIST_ERR_FORMAT, "%s: zip entry \"%s\" is there twice", what,
                           show(shown, &z->entries[i]));
    return GIST_OK;
}

static gist_status read_all(zip_archive *z, const uint8_t *p, const directory *d, const char *what, gist_error *err) {
    rd r;
    rd_init(&r, p + d->offset, (size_t)d->size);
    z->entries = mem_alloc(z->alloc, (size_t)d->count, sizeof *z->entries);
    if (!z->entries) return err_memory(err, "zip directory");
    for (; z->count < d->count; z->count++) {
        zip_entry *e = &z->entries[z->count];
        *e = (zip_entry){ 0 };
        TRY(read_entry(e, &r, what, err));
        TRY(find_bytes(e, p, d->offset, what, err));
        if (z->count == 0) z->first = e->name, z->first_len = e->name_len;
    }
    if (rd_left(&r)) return err_set(err, GIST_ERR_FORMAT, "%s: the zip directory is longer than its entries", what);
    TRY(check_places(z, what, err));
    return check_names(z, what, err);
}

gist_status zip_parse(zip_archive *out, const gist_allocator *alloc, const void *bytes, size_t len, const char *what,
                      gist_error *err) {
    zip_archive z = { .alloc = alloc ? alloc : mem_default() };
    directory d;
    what = json_what(what);
    gist_status status = read_end(bytes, len, &d, what, err);
    if (status == GIST_OK) status = read_all(&z, bytes, &d, what, err);
    if (status == GIST_OK)
        *out = z;
    else
        zip_free(&z);
    return status;
}

void zip_free(zip_archive *z) {
    mem_free(z->alloc, z->entries);
    *z = (zip_archive){ 0 };
}

const zip_entry *zip_find(const zip_archive *z, const char *name, size_t len) {
    zip_entry key = { .name = name, .name_len = len };
    return z->count ? bsearch(&key, z->entries, z->count, sizeof key, by_name) : NULL;
}
