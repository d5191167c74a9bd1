/* format.h - files: bytes <-> directories of named tensor views.  Knows no model.
 *
 *   json_*      bounded JSON reading (jansson) with errors that name key, expectation and finding
 *   st_*        one safetensors file, read through a map or written
 *   weights_*   the tensors of a Hugging Face directory: model.safetensors, or shards with an index
 *   gfile_*     a .gist file: a safetensors file with the metadata of docs/formats/gist.md
 */
#ifndef GIST_FORMAT_H
#define GIST_FORMAT_H

#include <jansson.h>

#include "tensor/tensor.h"

/* ---- JSON ---- */

/* Parse a whole file or text; duplicate keys, trailing bytes and invalid UTF-8 are errors.  `what` names the object
 * in messages ("config.json").  *out is released with json_decref. */
gist_status json_parse(const char *text, size_t len, const char *what, json_t **out, gist_error *err);
gist_status json_read_file(const char *path, json_t **out, gist_error *err);

/* Typed members of an object.  With `required` false an absent or null member leaves *out as it is (the default set
 * by the caller).  A value of the wrong type or outside [lo,hi] is GIST_ERR_FORMAT and names key, bound and value. */
gist_status json_get_int(const json_t *obj, const char *key, bool required, int64_t lo, int64_t hi, int *out,
                         const char *what, gist_error *err);
gist_status json_get_float(const json_t *obj, const char *key, bool required, double lo, double hi, float *out,
                           const char *what, gist_error *err);
gist_status json_get_bool(const json_t *obj, const char *key, bool required, bool *out, const char *what,
                          gist_error *err);
/* *out is borrowed from obj. */
gist_status json_get_string(const json_t *obj, const char *key, bool required, const char **out, const char *what,
                            gist_error *err);

/* ---- safetensors ---- */

typedef struct st_meta {
    const char *key, *value;
} st_meta;

typedef struct st_file {
    const gist_allocator *alloc;
    file_map map;
    json_t *header;       /* owns every name */
    tensor_view *tensors; /* sorted by name */
    size_t count;
    st_meta *meta; /* __metadata__, sorted by key */
    size_t meta_count;
} st_file;
/* Every length, offset, shape product, dtype and overlap is checked; the data must be covered without holes or overlap
 * (as the safetensors package demands).  F32, BF16, F16 become views; a tensor of another dtype is an error that
 * names it, unless its name ends in ".inv_freq" or is an integer buffer, which are skipped. */
gist_status st_open(st_file *st, const gist_allocator *alloc, const char *path, gist_error *err);
gist_status st_parse(st_file *st, const gist_allocator *alloc, const void *bytes, size_t len, const char *what,
                     gist_error *err); /* the same from memory that outlives st; map stays empty */
void st_close(st_file *st);
const tensor_view *st_find(const st_file *st, const char *name); /* NULL: absent */
const char *st_meta_get(const st_file *st, const char *key);     /* NULL: absent */

/* Write tensors (views of native memory, written in the order given) and metadata atomically to path. */
gist_status st_save(const gist_allocator *alloc, const char *path, const tensor_view *tensors, size_t count,
                    const st_meta *meta, size_t meta_count, gist_error *err);

/* ---- weights of a Hugging Face directory ---- */

typedef struct weights {
    const gist_allocator *alloc;
    st_file *files;
    size_t file_count;
    const tensor_view **all; /* [count] views of all files, sorted by name */
    size_t count;
} weights;
/* model.safetensors, or model.safetensors.index.json and its shards (each name once; a weight listed in the index must
 * be in the shard it names; no path separators in shard names).  pytorch_model.bin alone: UNSUPPORTED, says so. */
gist_status weights_open(weights *w, const gist_allocator *alloc, const char *dir, gist_error *err);
void weights_close(weights *w);
const tensor_view *weights_find(const weights *w, const char *name);
size_t weights_count(const weights *w);
const tensor_view *weights_at(const weights *w, size_t i); /* all tensors, sorted by name over all files */
/* The map that holds the bytes of a view got from these weights, for map_forget. */
const file_map *weights_map(const weights *w, const tensor_view *t);
/* Hash over every tensor's name, dtype, shape and bytes, in name order: chunks of 1 MiB are hashed in parallel (pool
 * may be NULL), then their hashes.  Independent of sharding and of threads. */
gist_status weights_hash(const weights *w, pool *p, hash128 *out, gist_error *err);

/* ---- .gist files (docs/formats/gist.md) ---- */

enum {
    GFILE_MAX_K = 1024,
    GFILE_MAX_LAYERS = 1024,
    GFILE_MAX_HEADS = 1024,
    GFILE_MAX_WIDTH = 1024,
    GFILE_MAX_POSITION = 1 << 30
};

/* What the file says; strings are owned by the gfile, printable ASCII.  Rows: key and value of layer i are [k,G,D] of
 * `type`.  model, tokenizer and id are 32 lower-case hex digits; family, template_name, condition and kernels are not
 * empty; a rebased gist has first_position 0. */
typedef struct gfile {
    const gist_allocator *alloc;
    st_file st;  /* after gfile_open; empty when built for writing */
    char id[33]; /* identity: hash over what it was made from */
    char model[33], tokenizer[33];
    char family[16], template_name[32], condition[16], kernels[16];
    char adapter[33]; /* "" : none; otherwise 32 hex digits */
    dtype type;
    int k, layers, kv_heads, head_dim, first_position, prompt_tokens;
    bool rebased, tuned;
} gfile;
/* Opens, checks version, every shape and dtype against the metadata, and the checksum over all rows and metadata.
 * GIST_ERR_FORMAT for anything else than a sound file, GIST_ERR_UNSUPPORTED for another version. */
gist_status gfile_open(gfile *g, const gist_allocator *alloc, const char *path, gist_error *err);
gist_status gfile_parse(gfile *g, const gist_allocator *alloc, const void *bytes, size_t len, gist_error *err);
void gfile_close(gfile *g);
const void *gfile_key(const gfile *g, int layer); /* [k,G,D] rows in the file; may be unaligned */
const void *gfile_value(const gfile *g, int layer);
/* Bytes of keys and values of all layers. */
size_t gfile_bytes(const gfile *g);
/* Write: header fields of *g and the rows keys[layer], values[layer], each [k,G,D] of g->type.  Equal arguments give
 * equal files.  GIST_ERR_USAGE, naming the field, for a header that gfile_open would refuse. */
gist_status gfile_save(const gfile *g, const char *path, const void *const *keys, const void *const *values,
                       gist_error *err);

#endif
