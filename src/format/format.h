/* format.h - files: bytes <-> directories of named tensor views.  Knows no model.
 *
 *   json_*      bounded JSON reading (jansson) with errors that name key, expectation and finding
 *   st_*        one safetensors file, read through a map or written
 *   pt_*        one file of torch.save (pytorch_model.bin), read through a map; nothing in it is executed
 *   gguf_*      one GGUF file: typed metadata and tensors, read through a map or written one tensor after another
 *   weights_*   the tensors of a Hugging Face directory (one file, or shards with an index) or a GGUF file
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
    const uint8_t *data;  /* of the tensors */
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

/* The same from a callback, tensor by tensor in the order given, so that no more than a piece of one is in memory:
 * fn(ctx, i, out) writes all bytes of tensors[i] with out_write.  `data` of the views is not looked at. */
typedef gist_status (*st_tensor_fn)(void *ctx, size_t i, out_file *out, gist_error *err);
gist_status st_save_from(const gist_allocator *alloc, const char *path, const tensor_view *tensors, size_t count,
                         const st_meta *meta, size_t meta_count, st_tensor_fn fn, void *ctx, gist_error *err);

/* ---- files of torch.save (docs/formats/torch.md) ---- */

typedef struct pt_file {
    const gist_allocator *alloc;
    file_map map;
    tensor_view *tensors; /* sorted by name */
    size_t count;
    const char **names; /* [name_count] of all tensors, those of skipped buffers too, sorted */
    size_t name_count;
    void **copies; /* [copy_count] of tensors whose elements do not lie in order */
    size_t copy_count;
} pt_file;
/* The state dict (dict of tensors) in a zip archive of torch.save, PyTorch 1.6 and later, pickle protocol 2.  The
 * pickle is read by a machine that executes nothing; every opcode and every import that a state dict does not need is
 * refused by name, as are compressed entries and the layout before 1.6 (UNSUPPORTED).  float32, bfloat16 and float16
 * become views, other types are skipped or refused as by st_open. */
gist_status pt_open(pt_file *f, const gist_allocator *alloc, const char *path, gist_error *err);
gist_status pt_parse(pt_file *f, const gist_allocator *alloc, const void *bytes, size_t len, const char *what,
                     gist_error *err); /* the same from memory that outlives f; map stays empty */
void pt_close(pt_file *f);
const tensor_view *pt_find(const pt_file *f, const char *name); /* NULL: absent */
bool pt_holds(const pt_file *f, const char *name);              /* as a view or a skipped buffer */

/* ---- GGUF (docs/formats/gguf.md) ---- */

/* Value types, by their numbers in the file. */
typedef enum gguf_kind {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_KINDS
} gguf_kind;

/* One key of the metadata.  Read it with the functions below: its bytes lie unaligned in the file. */
typedef struct gguf_value {
    const char *key;
    gguf_kind kind;          /* of the value, or of an array's elements; never GGUF_ARRAY */
    bool array;
    size_t count;            /* elements of an array; else 1 */
    const uint8_t *data;     /* first element; a string's length field */
    size_t bytes;            /* of all elements as stored */
    const uint8_t **strings; /* [count] length field of each element of an array of strings; else NULL */
} gguf_value;

typedef struct gguf_file {
    const gist_allocator *alloc;
    file_map map;
    char *what;         /* the file's name in messages */
    unsigned version;   /* 2 or 3 */
    size_t alignment;   /* of tensors */
    gguf_value *values; /* sorted by key */
    size_t value_count;
    tensor_view *tensors; /* sorted by name; shapes outermost first: [out,in], the reverse of the order in the file */
    size_t count;
} gguf_file;
/* Every key, count, offset, alignment, type, size and overlap is checked, duplicate keys and names are refused, and so
 * are files of big-endian machines (UNSUPPORTED).  F32, F16, BF16, Q8_0, Q4_0, Q4_K, Q5_K, Q6_K become views; a tensor
 * of another type is UNSUPPORTED, by name and type. */
gist_status gguf_open(gguf_file *g, const gist_allocator *alloc, const char *path, gist_error *err);
gist_status gguf_parse(gguf_file *g, const gist_allocator *alloc, const void *bytes, size_t len, const char *what,
                       gist_error *err); /* the same from memory that outlives g; map stays empty */
void gguf_close(gguf_file *g);
const tensor_view *gguf_find(const gguf_file *g, const char *name);    /* NULL: absent */
const gguf_value *gguf_value_find(const gguf_file *g, const char *key); /* NULL: absent */
const char *gguf_kind_name(gguf_kind kind);                             /* "u32", "string", ... */

/* Typed values.  With `required` false an absent key leaves *out as it is (the default set by the caller).  A value of
 * another type or outside [lo,hi] is GIST_ERR_FORMAT and names key, expected and found.  An integer may be stored in
 * any integer type, a float as f32 or f64. */
gist_status gguf_get_int(const gguf_file *g, const char *key, bool required, int64_t lo, int64_t hi, int *out,
                         gist_error *err);
gist_status gguf_get_float(const gguf_file *g, const char *key, bool required, double lo, double hi, float *out,
                           gist_error *err);
gist_status gguf_get_bool(const gguf_file *g, const char *key, bool required, bool *out, gist_error *err);
/* *out [*len] is borrowed from the file and not NUL-terminated; any bytes may be in it. */
gist_status gguf_get_string(const gguf_file *g, const char *key, bool required, const char **out, size_t *len,
                            gist_error *err);
/* An array whose elements are integers (GGUF_I64: of any integer type), floats (GGUF_F32: f32 or f64), bools
 * (GGUF_BOOL) or strings (GGUF_STRING).  Absent and not required: *out is NULL. */
gist_status gguf_get_array(const gguf_file *g, const char *key, bool required, gguf_kind kind, const gguf_value **out,
                           gist_error *err);
/* Element i < count of an array of that kind (or the value itself, i = 0).  A u64 beyond int64_t is INT64_MAX. */
int64_t gguf_int_at(const gguf_value *v, size_t i);
double gguf_float_at(const gguf_value *v, size_t i);
bool gguf_bool_at(const gguf_value *v, size_t i);
const char *gguf_string_at(const gguf_value *v, size_t i, size_t *len); /* borrowed, not NUL-terminated */

/* Writing, version 3: say all metadata and all tensors, then gguf_save.  What fails on the way there (memory, an array
 * with another number of elements than announced, a key or name that the reader would refuse) is reported by it. */
typedef struct gguf_writer {
    const gist_allocator *alloc;
    sbuf meta, infos; /* the two parts of the header */
    uint64_t value_count, array_left;
    uint64_t offset; /* where the next tensor begins */
    size_t *sizes;   /* [count] bytes of the tensors */
    size_t count, cap, left; /* left: bytes of the tensor being written */
    gguf_kind array_kind;
    const char *misuse; /* what the caller did wrong; NULL: nothing */
    out_file *out;
} gguf_writer;
void gguf_writer_init(gguf_writer *w, const gist_allocator *alloc);
void gguf_writer_free(gguf_writer *w);
void gguf_add_int(gguf_writer *w, const char *key, gguf_kind kind, int64_t v); /* kind: any integer type */
void gguf_add_float(gguf_writer *w, const char *key, float v);
void gguf_add_bool(gguf_writer *w, const char *key, bool v);
void gguf_add_string(gguf_writer *w, const char *key, const char *s, size_t len);
void gguf_add_value(gguf_writer *w, const gguf_value *v); /* a copy of what was read */
/* An array of `count` elements; gguf_put_... for each of them follows. */
void gguf_add_array(gguf_writer *w, const char *key, gguf_kind kind, size_t count);
void gguf_put_int(gguf_writer *w, gguf_kind kind, int64_t v);
void gguf_put_float(gguf_writer *w, float v);
void gguf_put_string(gguf_writer *w, const char *s, size_t len);
/* Name, type and shape (outermost first) of the next tensor; data and bytes of *t are not looked at. */
void gguf_add_tensor(gguf_writer *w, const tensor_view *t);
/* Calls fn(ctx, i, w) for tensor i = 0, 1, ... in the order added; it writes the tensor's bytes with gguf_write, in as
 * many pieces as it likes.  The file appears, whole, at the end. */
typedef gist_status (*gguf_tensor_fn)(void *ctx, size_t i, gguf_writer *w, gist_error *err);
gist_status gguf_save(gguf_writer *w, const char *path, gguf_tensor_fn fn, void *ctx, gist_error *err);
void gguf_write(gguf_writer *w, const void *bytes, size_t len);

/* ---- weights of a Hugging Face directory or a GGUF file ---- */

/* A file (not a directory) whose name ends in .gguf or that begins with GGUF's magic. */
bool gguf_is_file(const char *path);

typedef struct weights {
    const gist_allocator *alloc;
    gguf_file *gguf; /* of a GGUF file, whose views keep their GGUF names; NULL: a directory */
    st_file *files;
    size_t file_count;
    pt_file *bins; /* where there is no safetensors file */
    size_t bin_count;
    const tensor_view **all; /* [count] views of all files, sorted by name */
    size_t count;
} weights;
/* A directory's model.safetensors, or model.safetensors.index.json and its shards (each name once; a weight listed in
 * the index must be in the shard it names; no path separators in shard names); where neither is there,
 * pytorch_model.bin or pytorch_model.bin.index.json and its shards.  A file whose name ends in .gguf or that begins
 * with GGUF's magic: its tensors and metadata. */
gist_status weights_open(weights *w, const gist_allocator *alloc, const char *path, gist_error *err);
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
 * `type`: f32, bf16, f16, or q8_0 with a D that is a multiple of 32.  model, tokenizer and id are 32 lower-case hex
 * digits; family, template_name, condition and kernels are not
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
    int width; /* of encoder_output [k,width] f32, which gists of encoder-decoder models have; 0: none */
    bool rebased, tuned;
} gfile;
/* Opens, checks version, every shape and dtype against the metadata, and the checksum over all rows and metadata.
 * GIST_ERR_FORMAT for anything else than a sound file, GIST_ERR_UNSUPPORTED for another version. */
gist_status gfile_open(gfile *g, const gist_allocator *alloc, const char *path, gist_error *err);
gist_status gfile_parse(gfile *g, const gist_allocator *alloc, const void *bytes, size_t len, gist_error *err);
void gfile_close(gfile *g);
/* Copies the rows of an open file's layer, each [k,G,D] of g->type as dt_from_f32 lays it out. */
void gfile_rows(const gfile *g, int layer, void *keys, void *values);
/* Copies an open file's encoder output, [k,width]. */
void gfile_output(const gfile *g, float *output);
/* Bytes of keys and values of all layers. */
size_t gfile_bytes(const gfile *g);
/* Write: header fields of *g and the rows keys[layer], values[layer], each [k,G,D] of g->type; output as above (NULL
 * where width is 0).  Equal arguments give
 * equal files.  GIST_ERR_USAGE, naming the field, for a header that gfile_open would refuse. */
gist_status gfile_save(const gfile *g, const char *path, const void *const *keys, const void *const *values,
                       const float *output, gist_error *err);

#endif
