/* train_checkpoint.c - a run in one file: weights, moments, place, and what run it is.
 *
 *   __metadata__   format "gist-train 1"    run.KEY: the run's facts    at.KEY: its place    checksum
 *   w.NAME m.NAME v.NAME                    [shape of NAME] f32, in the order of the model's tensors
 *
 * st_save writes a temporary file, syncs it and renames it: killed at any moment, there is the old file or the new one.
 * The checksum (XXH3-128 over names, values and place) tells a damaged file from a sound one.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "train/train.h"

#define FORMAT "gist-train 1"

void train_facts_set(train_facts *f, const char *key, const char *fmt, ...) {
    int i = 0;
    while (i < f->n && strcmp(f->fact[i].key, key) != 0) i++;
    if (i == (int)(sizeof f->fact / sizeof *f->fact)) return; /* a fixed list of ours: there is room */
    if (i == f->n) f->n++;
    va_list ap;
    va_start(ap, fmt);
    snprintf(f->fact[i].key, sizeof f->fact[i].key, "%s", key);
    vsnprintf(f->fact[i].value, sizeof f->fact[i].value, fmt, ap);
    va_end(ap);
    for (char *c = f->fact[i].value; *c; c++)
        if (*c < 0x20 || *c > 0x7e) *c = '?'; /* file names */
}

static void place_facts(const train_place *p, train_facts *f) {
    f->n = 0;
    train_facts_set(f, "at.step", "%" PRId64, p->step);
    train_facts_set(f, "at.evaluated", "%" PRId64, p->evaluated);
    train_facts_set(f, "at.epoch", "%" PRIu64, p->epoch);
    train_facts_set(f, "at.group", "%" PRIu64, p->at);
    train_facts_set(f, "at.rows", "%" PRIu64, p->rows);
    train_facts_set(f, "at.labels", "%" PRIu64, p->labels);
    train_facts_set(f, "at.best_step", "%" PRId64, p->best_step);
    train_facts_set(f, "at.best", "%.17g", p->best);
    train_facts_set(f, "at.seconds", "%.17g", p->seconds);
}

static gist_status read_int(const st_file *st, const char *key, int64_t *out, const char *path, gist_error *err) {
    const char *text = st_meta_get(st, key);
    char *end = NULL;
    errno = 0;
    long long v = text ? strtoll(text, &end, 10) : 0;
    if (!text || end == text || *end || errno || v < -1)
        return err_set(err, GIST_ERR_FORMAT, "%s: %s is \"%.40s\", expected a count", path, key,
                       text ? text : "missing");
    *out = v;
    return GIST_OK;
}

static gist_status read_real(const st_file *st, const char *key, double *out, const char *path, gist_error *err) {
    const char *text = st_meta_get(st, key);
    char *end = NULL;
    double v = text ? strtod(text, &end) : 0;
    if (!text || end == text || *end)
        return err_set(err, GIST_ERR_FORMAT, "%s: %s is \"%.40s\", expected a number", path, key,
                       text ? text : "missing");
    *out = v;
    return GIST_OK;
}

static gist_status read_place(const st_file *st, train_place *p, const char *path, gist_error *err) {
    int64_t epoch, group, rows, labels;
    TRY(read_int(st, "at.step", &p->step, path, err));
    TRY(read_int(st, "at.evaluated", &p->evaluated, path, err));
    TRY(read_int(st, "at.epoch", &epoch, path, err));
    TRY(read_int(st, "at.group", &group, path, err));
    TRY(read_int(st, "at.rows", &rows, path, err));
    TRY(read_int(st, "at.labels", &labels, path, err));
    TRY(read_int(st, "at.best_step", &p->best_step, path, err));
    TRY(read_real(st, "at.best", &p->best, path, err));
    TRY(read_real(st, "at.seconds", &p->seconds, path, err));
    if (p->step < 0 || epoch < 0 || group < 0 || rows < 0 || labels < 0)
        return err_set(err, GIST_ERR_FORMAT, "%s: the run's place is negative", path);
    p->epoch = (uint64_t)epoch;
    p->at = (uint64_t)group;
    p->rows = (uint64_t)rows;
    p->labels = (uint64_t)labels;
    return GIST_OK;
}

/* ---- tensors ---- */

enum { KINDS = 3 };
static const char kinds[KINDS] = { 'w', 'm', 'v' };

static float *array_of(train_model *tm, int kind) {
    return kind == 0 ? train_model_w(tm) : kind == 1 ? train_model_m(tm) : train_model_v(tm);
}

typedef struct named {
    char text[104];
} named;

static tensor_view view_of(train_model *tm, int i, int kind, named *name) {
    const train_tensor *t = train_model_tensor(tm, i);
    snprintf(name->text, sizeof name->text, "%c.%s", kinds[kind], t->name);
    return (tensor_view){ .name = name->text,
                          .type = DT_F32,
                          .dims = t->dims,
                          .shape = { t->shape[0], t->dims == 2 ? t->shape[1] : 1, 1, 1 },
                          .data = array_of(tm, kind) + t->at,
                          .bytes = t->count * sizeof(float) };
}

/* Over every tensor and the place, so that neither can be swapped for another's. */
static gist_status checksum(const tensor_view *view, size_t n, const train_facts *place, char out[33],
                            const gist_allocator *alloc, gist_error *err) {
    hasher *h = hash_begin(alloc);
    if (!h) return err_memory(err, "checkpoint");
    for (size_t i = 0; i < n; i++) {
        hash_str(h, view[i].name);
        hash_add(h, view[i].data, view[i].bytes);
    }
    for (int i = 0; i < place->n; i++) hash_str(h, place->fact[i].value);
    hash_hex(hash_end(h), out);
    return GIST_OK;
}

gist_status train_checkpoint_save(const char *path, train_model *tm, const train_facts *run, const train_place *at,
                                  const gist_allocator *alloc, gist_error *err) {
    size_t n = (size_t)train_model_trained(tm) * KINDS;
    tensor_view *view = mem_alloc(alloc, n, sizeof *view);
    named *name = mem_alloc(alloc, n, sizeof *name);
    named *key = mem_alloc(alloc, (size_t)run->n + 1, sizeof *key);
    st_meta *meta = mem_alloc(alloc, (size_t)run->n + 64, sizeof *meta);
    train_facts place;
    char sum[33];
    place_facts(at, &place);
    gist_status status = view && name && key && meta ? GIST_OK : err_memory(err, "checkpoint");
    for (size_t i = 0; status == GIST_OK && i < n; i++)
        view[i] = view_of(tm, (int)(i / KINDS), (int)(i % KINDS), &name[i]);
    if (status == GIST_OK) status = checksum(view, n, &place, sum, alloc, err);
    if (status == GIST_OK) {
        size_t m = 0;
        meta[m++] = (st_meta){ "format", FORMAT };
        meta[m++] = (st_meta){ "checksum", sum };
        for (int i = 0; i < place.n; i++) meta[m++] = (st_meta){ place.fact[i].key, place.fact[i].value };
        for (int i = 0; i < run->n; i++) {
            snprintf(key[i].text, sizeof key[i].text, "run.%s", run->fact[i].key);
            meta[m++] = (st_meta){ key[i].text, run->fact[i].value };
        }
        status = st_save(alloc, path, view, n, meta, m, err);
    }
    mem_free(alloc, meta);
    mem_free(alloc, key);
    mem_free(alloc, name);
    mem_free(alloc, view);
    return status;
}

/* ---- loading ---- */

static gist_status check_run(const st_file *st, const train_facts *run, const char *path, gist_error *err) {
    const char *format = st_meta_get(st, "format");
    if (!format || strncmp(format, "gist-train ", 11) != 0)
        return err_set(err, GIST_ERR_FORMAT, "%s: not a training checkpoint", path);
    if (strcmp(format, FORMAT) != 0)
        return err_set(err, GIST_ERR_UNSUPPORTED, "%s: is of format \"%.40s\", this program has \"%s\"", path, format,
                       FORMAT);
    for (int i = 0; i < run->n; i++) {
        named key;
        snprintf(key.text, sizeof key.text, "run.%s", run->fact[i].key);
        const char *was = st_meta_get(st, key.text);
        if (!was || strcmp(was, run->fact[i].value) != 0)
            return err_set(err, GIST_ERR_MISMATCH, "%s: belongs to another run: %s was %.96s, now it is %s", path,
                           run->fact[i].key, was ? was : "not set", run->fact[i].value);
    }
    return GIST_OK;
}

static gist_status check_tensor(const st_file *st, const tensor_view *want, const tensor_view **found, const char *path,
                                gist_error *err) {
    char a[64], b[64];
    const tensor_view *t = st_find(st, want->name);
    if (!t) return err_set(err, GIST_ERR_MISMATCH, "%s: has no tensor %s", path, want->name);
    bool same = t->type == DT_F32 && t->dims == want->dims && t->bytes == want->bytes;
    for (int d = 0; d < want->dims; d++) same = same && t->shape[d] == want->shape[d];
    if (!same)
        return err_set(err, GIST_ERR_MISMATCH, "%s: %s is %s %s, this model needs f32 %s", path, want->name,
                       dt_name(t->type), tensor_shape_text(t, a), tensor_shape_text(want, b));
    *found = t;
    return GIST_OK;
}

/* Every check, before anything of the model is touched; then the copies. */
static gist_status load_from(const st_file *st, train_model *tm, tensor_view *view, named *name, size_t n,
                             train_place *at, const char *path, const gist_allocator *alloc, gist_error *err) {
    train_facts place;
    train_place p = { 0 };
    char sum[33];
    if (st->count != n)
        return err_set(err, GIST_ERR_MISMATCH, "%s: has %zu tensors, this model needs %zu", path, st->count, n);
    for (size_t i = 0; i < n; i++) {
        const tensor_view *found = NULL;
        tensor_view want = view_of(tm, (int)(i / KINDS), (int)(i % KINDS), &name[i]);
        TRY(check_tensor(st, &want, &found, path, err));
        view[i] = *found;
    }
    TRY(read_place(st, &p, path, err));
    place_facts(&p, &place);
    TRY(checksum(view, n, &place, sum, alloc, err));
    const char *stored = st_meta_get(st, "checksum");
    if (!stored || strcmp(stored, sum) != 0)
        return err_set(err, GIST_ERR_FORMAT, "%s: is damaged: its checksum is %.32s, its contents have %s", path,
                       stored ? stored : "missing", sum);
    for (size_t i = 0; i < n; i++) {
        const train_tensor *t = train_model_tensor(tm, (int)(i / KINDS));
        memcpy(array_of(tm, (int)(i % KINDS)) + t->at, view[i].data, view[i].bytes);
    }
    train_model_repack(tm);
    *at = p;
    return GIST_OK;
}

gist_status train_checkpoint_load(const char *path, train_model *tm, const train_facts *run, train_place *at,
                                  const gist_allocator *alloc, gist_error *err) {
    st_file st;
    TRY(st_open(&st, alloc, path, err));
    size_t n = (size_t)train_model_trained(tm) * KINDS;
    tensor_view *view = mem_alloc(alloc, n, sizeof *view);
    named *name = mem_alloc(alloc, n, sizeof *name);
    gist_status status = view && name ? check_run(&st, run, path, err) : err_memory(err, "checkpoint");
    if (status == GIST_OK) status = load_from(&st, tm, view, name, n, at, path, alloc, err);
    mem_free(alloc, name);
    mem_free(alloc, view);
    st_close(&st);
    return status;
}
