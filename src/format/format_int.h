/* format_int.h - what the files of this room share; other rooms include format.h. */
#ifndef GIST_FORMAT_INT_H
#define GIST_FORMAT_INT_H

#include "format/format.h"

/* ---- text of untrusted origin in messages ---- */

/* s[0..len) as printable ASCII into out[0..cap), cap >= 4: other bytes become '?', a long text ends in "...".
 * Returns out. */
const char *json_show(char *out, size_t cap, const char *s, size_t len);
/* The last 160 bytes of a path, so that a long one leaves room for the rest of a message. */
const char *json_what(const char *what);

/* ---- safetensors ---- */

enum {
    ST_MAX_HEADER = 100000000, /* bytes; the limit of the safetensors package */
    ST_MAX_NAME = 512          /* bytes of a tensor's name */
};
/* st_parse in two steps, for a caller who must judge the metadata before the tensors.  st_begin reads header and
 * metadata and tells where the tensors' bytes begin; st_finish reads the tensors.  `st` is zeroed by the first; after
 * a failure of either it is in the hands of the caller, for st_close. */
gist_status st_begin(st_file *st, const gist_allocator *alloc, const void *bytes, size_t len, const char *what,
                     size_t *data_start, gist_error *err);
gist_status st_finish(st_file *st, const void *bytes, size_t len, size_t data_start, const char *what, gist_error *err);

/* A buffer that old checkpoints carry and no model needs: rotary frequencies, position ids, causal masks.  Integers
 * whose last name part speaks of weights are quantized matrices, and those must not vanish in silence. */
bool st_is_buffer(const char *name, bool integer);
/* 1 to ST_MAX_NAME bytes without control characters */
gist_status st_check_name(const char *name, const char *what, gist_error *err);

/* ---- GGUF ---- */

size_t gguf_kind_bytes(gguf_kind kind); /* of one value; 0: strings and arrays */
int gguf_type_number(dtype t);          /* of a tensor type in the file; all of ours have one */
/* Reads header and directory of a file of file_len bytes; where only the first len bytes are given, the views get no
 * data.  The writer checks with this what it is about to write. */
gist_status gguf_parse_header(gguf_file *out, const gist_allocator *alloc, const void *bytes, size_t len,
                              uint64_t file_len, const char *what, gist_error *err);

/* A tensor of dtype I8, which st_find does not give (to everyone else it is a buffer to skip).  Its view, here and in
 * st_save, has type DT_Q8_0 and stands for the integers of such blocks alone, one byte each. */
bool st_find_i8(const st_file *st, const char *name, tensor_view *out);

/* ---- files of torch.save: an archive, and a pickle in it ---- */

typedef struct zip_entry {
    const char *name; /* [name_len] in the archive's bytes, any bytes */
    size_t name_len;
    uint64_t header, offset, size; /* of the local header, of the entry's bytes, their number */
} zip_entry;

typedef struct zip_archive {
    const gist_allocator *alloc;
    zip_entry *entries; /* [count], sorted by name */
    size_t count;
    const char *first; /* [first_len] name of the entry that the directory names first; NULL: no entries */
    size_t first_len;
} zip_archive;
/* The directory of an archive, zip64 or not.  Entries that are compressed or encrypted are UNSUPPORTED by name; counts,
 * sizes, places, names given twice, overlaps and headers that say something else are FORMAT.  `bytes` must stay. */
gist_status zip_parse(zip_archive *z, const gist_allocator *alloc, const void *bytes, size_t len, const char *what,
                      gist_error *err);
void zip_free(zip_archive *z);
const zip_entry *zip_find(const zip_archive *z, const char *name, size_t len); /* NULL: absent */

enum { PICKLE_MAX = 16 << 20 }; /* bytes of a pickle; that of LLaMA-7B has 50,000 */

/* What the elements of a storage are. */
typedef struct pickle_type {
    const char *name; /* PyTorch's: "float32", ... */
    uint8_t bytes;    /* of an element */
    bool view, integer; /* view: it is of `type` */
    dtype type;
} pickle_type;

typedef struct pickle_storage {
    const char *key; /* [key_len] in the pickle's bytes, any bytes */
    size_t key_len;
    const pickle_type *type;
    uint64_t elements;
} pickle_storage;

typedef struct pickle_tensor {
    size_t storage;
    uint64_t offset; /* in elements, as are the strides */
    int dims;
    int64_t shape[TENSOR_MAX_DIMS], stride[TENSOR_MAX_DIMS]; /* no negative ones */
} pickle_tensor;

typedef struct pickle_item {
    const char *name; /* [name_len] in the pickle's bytes, any bytes */
    size_t name_len;
    pickle_tensor tensor;
    pickle_storage storage;
} pickle_item;

typedef struct pickle_dict {
    const gist_allocator *alloc;
    pickle_item *items; /* [count] in the order of the pickle; a name may come twice */
    size_t count;
} pickle_dict;
/* The state dict of a pickle that torch.save made.  Nothing is executed: opcodes and imports that such a dict does not
 * need are UNSUPPORTED, by name.  Whether tensors lie in their storages is not judged.  `bytes` must stay. */
gist_status pickle_parse(pickle_dict *d, const gist_allocator *alloc, const void *bytes, size_t len, const char *what,
                         gist_error *err);
void pickle_free(pickle_dict *d);

/* ---- model.safetensors.index.json, pytorch_model.bin.index.json ---- */

enum { INDEX_MAX_SHARDS = 4096 };

typedef struct shard_index {
    const gist_allocator *alloc;
    json_t *root;        /* owns every string */
    json_t *weight_map;  /* tensor name -> shard name; borrowed from root */
    const char **shards; /* [count], each once, sorted */
    size_t count;
} shard_index;
/* Every value is a plain file name: no separator, no "..", no control character. */
gist_status index_parse(shard_index *out, const gist_allocator *alloc, const char *text, size_t len, const char *what,
                        gist_error *err);
void index_close(shard_index *ix);

#endif
