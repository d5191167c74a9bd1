/* convert.c - a model from one kind of file into another: weights, config, vocabulary.
 *
 *   directory -> GGUF    config and vocabulary become metadata
 *   GGUF -> GGUF         metadata is copied but for what the new type changes
 *   any -> directory     config.json, model.safetensors (or shards), tokenizer files, generation_config.json
 *   base + diff -> any   both directories (weight_diff.c)
 *
 * A new file is written beside its place and renamed.  A new directory is filled beside its place and renamed whole;
 * where one stands already (force), its files are replaced one by one, config.json last.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/engine_int.h"

enum { MAX_ENDS = 64 };

typedef struct job {
    const gist_allocator *alloc;
    const char *in, *out;
    const convert_options *opt;
    weights w, base; /* base: that w is a difference from */
    llama_config cfg, base_cfg;
    tokenizer *tok; /* NULL: GGUF to GGUF */
    pool *pool;
    llama_copy copy;
    diff_sum sum;
} job;

/* ---- a GGUF file ---- */

/* The type most of the weights have: that of the first matrix of the first layer. */
static dtype stored_type(const job *j) {
    char name[128];
    int i = 0, rows;
    const weight_row *table = llama_table(&j->cfg, &rows);
    while (table[i].kind != WEIGHT_MATRIX) i++;
    llama_row_name(name, &table[i], 0, j->w.gguf);
    const tensor_view *t = weights_find(&j->w, name);
    return t ? t->type : DT_F32;
}

/* The model's name: the last part of its path. */
static void add_name(const job *j, gguf_writer *w) {
    const char *end = j->in + strlen(j->in), *from;
    size_t bad;
    while (end > j->in && end[-1] == '/') end--;
    for (from = end; from > j->in && from[-1] != '/'; from--) {
    }
    size_t len = (size_t)(end - from);
    if (len && *from != '.' && utf8_valid(from, len, &bad)) gguf_add_string(w, "general.name", from, len);
}

/* Keys that llama_copy_gguf writes anew, and the alignment, which is always the default. */
static bool rewritten(const char *key, bool keep) {
    return strcmp(key, "general.alignment") == 0 ||
           (!keep && (strcmp(key, "general.file_type") == 0 || strcmp(key, "general.quantization_version") == 0));
}

static int by_place(const void *a, const void *b) {
    const gguf_value *x = *(const gguf_value *const *)a, *y = *(const gguf_value *const *)b;
    return x->data < y->data ? -1 : x->data > y->data;
}

/* The values of g in the order of the file. */
static gist_status copy_metadata(const job *j, gguf_writer *w, const gguf_file *g, gist_error *err) {
    const gguf_value **v = mem_alloc(j->alloc, g->value_count, sizeof *v);
    if (!v) return err_memory(err, "metadata");
    for (size_t i = 0; i < g->value_count; i++) v[i] = &g->values[i];
    qsort(v, g->value_count, sizeof *v, by_place);
    for (size_t i = 0; i < g->value_count; i++)
        if (!rewritten(v[i]->key, j->copy.keep)) gguf_add_value(w, v[i]);
    mem_free(j->alloc, v);
    return GIST_OK;
}

static gist_status add_metadata(job *j, gguf_writer *w, const log_sink *log, gist_error *err) {
    if (j->w.gguf) return copy_metadata(j, w, j->w.gguf, err);
    llama_add_keys(w, &j->cfg);
    add_name(j, w);
    return vocabulary_add(w, j->tok, j->cfg.V, log, err);
}

static gist_status write_gguf(job *j, gist_error *err) {
    gguf_writer w;
    gguf_writer_init(&w, j->alloc);
    gist_status status = add_metadata(j, &w, j->copy.log, err);
    if (status == GIST_OK) status = llama_copy_gguf(&j->copy, &w, j->out, err);
    gguf_writer_free(&w);
    return status;
}

/* ---- a directory ---- */

/* {"bos_token_id": ..., "eos_token_id": ...}: one id, or a list where several tokens end an answer. */
static json_t *token_ids(const tokenizer *t) {
    int32_t id[MAX_ENDS];
    int n = tok_ends(t, id, MAX_ENDS), bad = 0;
    if (n > MAX_ENDS) n = MAX_ENDS;
    json_t *root = json_object(), *list = json_array();
    for (int i = 0; i < n; i++) bad |= json_array_append_new(list, json_integer(id[i]));
    if (tok_bos(t) >= 0) bad |= json_object_set_new(root, "bos_token_id", json_integer(tok_bos(t)));
    if (n == 1) bad |= json_object_set_new(root, "eos_token_id", json_integer(id[0]));
    if (n > 1) bad |= json_object_set(root, "eos_token_id", list);
    json_decref(list);
    if (!bad) return root;
    json_decref(root);
    return NULL;
}

/* What `gist train` noted in the source's config.json, which the weights do not say: kept in *config. */
static gist_status keep_note(const job *j, json_t *config, gist_error *err) {
    json_t *from = NULL;
    char *path = path_join(j->alloc, j->in, "config.json");
    gist_status status = path ? GIST_OK : err_memory(err, "path");
    if (status == GIST_OK && path_exists(path)) status = json_read_file(path, &from, err);
    json_t *note = json_object_get(from, "gist_training");
    if (status == GIST_OK && note && json_object_set(config, "gist_training", note) != 0)
        status = err_memory(err, "config.json");
    json_decref(from);
    mem_free(j->alloc, path);
    return status;
}

static gist_status fill(job *j, const char *dir, gist_error *err) {
    json_t *ids = token_ids(j->tok), *config = ids ? json_copy(ids) : NULL;
    gist_status status = config ? keep_note(j, config, err) : err_memory(err, "ids of tokens");
    if (status == GIST_OK) status = llama_copy_dir(&j->copy, dir, j->opt->shard, err);
    if (status == GIST_OK) status = tok_write_dir(j->tok, dir, err);
    if (status == GIST_OK) status = llama_save_json(ids, dir, "generation_config.json", j->alloc, err);
    if (status == GIST_OK) status = llama_save_config(&j->cfg, config, j->copy.type, dir, j->alloc, err);
    json_decref(config);
    json_decref(ids);
    return status;
}

/* Weights that a directory's new ones take the place of: read together, they would contradict each other. */
static bool is_weights_file(const char *name) {
    static const char prefix[] = "model-", suffix[] = ".safetensors";
    size_t len = strlen(name);
    if (strcmp(name, "model.safetensors") == 0 || strcmp(name, "model.safetensors.index.json") == 0) return true;
    return len > sizeof prefix + sizeof suffix && strncmp(name, prefix, sizeof prefix - 1) == 0 &&
           strstr(name, "-of-") && strcmp(name + len - (sizeof suffix - 1), suffix) == 0;
}

static int drop_old_weights(const char *dir, int at) {
    DIR *d = opendir(dir);
    int e = d ? 0 : errno;
    for (struct dirent *f; d && (f = readdir(d)) != NULL;)
        if (is_weights_file(f->d_name) && unlinkat(at, f->d_name, 0) != 0 && !e) e = errno;
    if (d) closedir(d);
    return e;
}

/* Every file of `from` into the directory `to` (-1: away), config.json last; then `from` itself is removed.  It needs
 * no memory of ours.  errno, or 0. */
static int empty_dir(const char *from, int to) {
    int e = 0;
    for (int last = 0; last < 2; last++) {
        DIR *d = opendir(from);
        if (!d) return errno;
        for (struct dirent *f; (f = readdir(d)) != NULL;) {
            if (f->d_name[0] == '.' || (strcmp(f->d_name, "config.json") == 0) != last) continue;
            int bad = to >= 0 ? renameat(dirfd(d), f->d_name, to, f->d_name) : unlinkat(dirfd(d), f->d_name, 0);
            if (bad && !e) e = errno;
        }
        closedir(d);
    }
    if (rmdir(from) != 0 && !e) e = errno;
    return e;
}

/* tmp takes dir's place. */
static int replace_dir(const char *tmp, const char *dir) {
    if (rename(tmp, dir) == 0) return 0; /* dir was absent or empty */
    if (errno != ENOTEMPTY && errno != EEXIST) return errno;
    int to = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (to < 0) return errno;
    int e = drop_old_weights(dir, to);
    if (!e) e = empty_dir(tmp, to);
    close(to);
    return e;
}

static gist_status write_dir(job *j, gist_error *err) {
    sbuf s;
    sbuf_init(&s, j->alloc);
    size_t len = strlen(j->out);
    while (len > 1 && j->out[len - 1] == '/') len--;
    sbuf_add(&s, j->out, len);
    char *dir = sbuf_take(&s);
    sbuf_init(&s, j->alloc);
    sbuf_fmt(&s, "%s.tmp-%ld-0", dir ? dir : "", (long)getpid());
    char *tmp = sbuf_take(&s);
    gist_status status = dir && tmp ? GIST_OK : err_memory(err, "name of a directory");
    if (status == GIST_OK && mkdir(tmp, 0777) != 0)
        status = err_set(err, GIST_ERR_IO, "%s: cannot create: %s", tmp, strerror(errno));
    if (status == GIST_OK) {
        status = fill(j, tmp, err);
        int e = status == GIST_OK ? replace_dir(tmp, dir) : 0;
        if (e) status = err_set(err, GIST_ERR_IO, "%s: cannot write: %s", dir, strerror(e));
        if (status != GIST_OK) (void)empty_dir(tmp, -1);
    }
    mem_free(j->alloc, tmp);
    mem_free(j->alloc, dir);
    return status;
}

/* ---- the whole ---- */

static bool is_empty(const char *dir) {
    DIR *d = opendir(dir);
    bool empty = d;
    for (struct dirent *f; d && (f = readdir(d)) != NULL;)
        if (strcmp(f->d_name, ".") != 0 && strcmp(f->d_name, "..") != 0) empty = false;
    if (d) closedir(d);
    return empty;
}

static gist_status check_paths(const job *j, bool to_gguf, gist_error *err) {
    if (!path_exists(j->in)) return err_set(err, GIST_ERR_IO, "%s: no such file or directory", j->in);
    if (!path_is_dir(j->in) && !gguf_is_file(j->in))
        return err_set(err, GIST_ERR_UNSUPPORTED, "%s: neither a model directory nor a GGUF file", j->in);
    if (j->opt->base && !path_is_dir(j->in))
        return err_set(err, GIST_ERR_UNSUPPORTED, "%s: a weight diff is a Hugging Face directory", j->in);
    if (!path_exists(j->out)) return GIST_OK;
    if (path_is_dir(j->out) == to_gguf)
        return err_set(err, GIST_ERR_IO, to_gguf ? "%s is a directory" : "%s is not a directory", j->out);
    if (j->opt->force || (!to_gguf && is_empty(j->out))) return GIST_OK;
    return err_set(err, GIST_ERR_IO, "%s exists already (--force replaces it)", j->out);
}

static gist_status choose_type(job *j, bool to_gguf, gist_error *err) {
    dtype t = stored_type(j);
    j->copy.keep = j->opt->type == GIST_TYPE_AUTO;
    if (j->copy.keep && j->opt->base) {
        j->copy.keep = false;
        t = DT_F32; /* the sum's */
    } else if (!j->copy.keep)
        for (t = 0; t < DT_COUNT && dt_public(t) != j->opt->type; t++) {
        }
    else if (!to_gguf && dt_block(t) > 1)
        t = DT_F32; /* exact */
    if (t == DT_COUNT || (!j->copy.keep && !dt_writable(t)))
        return err_set(err, GIST_ERR_USAGE, "type %s cannot be written", gist_type_name(j->opt->type));
    if (!to_gguf && dt_block(t) > 1)
        return err_set(err, GIST_ERR_USAGE, "a directory's weights are f32, bf16 or f16, not %s", dt_name(t));
    j->copy.type = t;
    return GIST_OK;
}

static gist_status open_diff(job *j, const log_sink *log, gist_error *err) {
    TRY(llama_config_read(&j->cfg, j->alloc, j->in, err));
    TRY(diff_open_base(j->opt->base, &j->cfg, j->alloc, &j->base_cfg, &j->base, err));
    TRY(diff_open_tokenizer(j->in, j->opt->base, &j->cfg, &j->base_cfg, j->alloc, log, &j->tok, err));
    j->copy.base = &j->base;
    j->copy.base_cfg = &j->base_cfg;
    return weights_open(&j->w, j->alloc, j->in, err);
}

static gist_status open_input(job *j, bool to_gguf, const log_sink *log, gist_error *err) {
    if (j->opt->base) return open_diff(j, log, err);
    if (!to_gguf || path_is_dir(j->in)) return engine_open_files(j->in, j->alloc, &j->cfg, &j->tok, &j->w, err);
    TRY(weights_open(&j->w, j->alloc, j->in, err)); /* the vocabulary is copied as it is */
    return llama_config_gguf(&j->cfg, j->w.gguf, err);
}

static gist_status convert(job *j, gist_error *err) {
    size_t len = strlen(j->out);
    bool to_gguf = len > 5 && strcmp(j->out + len - 5, ".gguf") == 0;
    log_sink log = { j->opt->log, j->opt->log_ctx };
    TRY(check_paths(j, to_gguf, err));
    TRY(pool_create(j->alloc, j->opt->threads, &j->pool, err));
    TRY(open_input(j, to_gguf, &log, err));
    TRY(choose_type(j, to_gguf, err));
    j->copy.alloc = j->alloc;
    j->copy.cfg = &j->cfg;
    j->copy.from = &j->w;
    j->copy.pool = j->pool;
    j->copy.log = &log;
    j->copy.progress = j->opt->progress;
    j->copy.ctx = j->opt->progress_ctx;
    if (j->opt->base) TRY(diff_sum_buffers(&j->sum, &j->cfg, &j->w, &j->base, j->alloc, err));
    TRY(to_gguf ? write_gguf(j, err) : write_dir(j, err));
    if (j->opt->base) diff_compare(&j->sum, j->copy.sum, &j->cfg);
    return GIST_OK;
}

gist_status convert_model(const char *in, const char *out, const convert_options *opt, convert_report *report,
                          gist_error *err) {
    const gist_allocator *alloc = opt->alloc ? opt->alloc : mem_default();
    job j = { .alloc = alloc, .in = in, .out = out, .opt = opt, .w = { .alloc = alloc }, .base = { .alloc = alloc } };
    gist_status status = convert(&j, err);
    if (status == GIST_OK)
        *report = (convert_report){ .family = llama_families[j.cfg.family].name,
                                    .type = j.copy.most,
                                    .tensors = j.copy.tensors,
                                    .bytes = j.copy.bytes,
                                    .parameters = llama_parameters(&j.cfg),
                                    .missing_rows = opt->base ? j.cfg.V - j.base_cfg.V : 0,
                                    .sum = j.sum };
    tok_close(j.tok);
    weights_close(&j.w);
    weights_close(&j.base);
    pool_free(j.pool);
    return status;
}
