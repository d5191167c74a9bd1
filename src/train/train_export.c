/* train_export.c - the trained model as a Hugging Face directory that transformers and gist load.
 *
 *   config.json, model.safetensors     llama_save, from the f32 masters
 *   tokenizer files                    copied; where <GIST> is new it is added to
 *        tokenizer.json                  added_tokens
 *        tokenizer_config.json           added_tokens_decoder, unless tokenizer.json says it; the file is made where
 *                                        it is missing, since transformers asks it for the tokenizer's class
 *        added_tokens.json               instead, with special_tokens_map.json, where the source has that old form
 *   generation_config.json             the source's, with the tokens that end an answer
 *
 * <GIST> strips white space on both sides (docs/TRAINING.md, "Templates").  JSON of others is kept, key for key.
 */
#include <errno.h>

#include "train/train.h"

#define GIST_TEXT "<GIST>"

static gist_status write_bytes(const char *path, const void *bytes, size_t len, const gist_allocator *alloc,
                               gist_error *err) {
    out_file out;
    TRY(out_open(&out, alloc, path, err));
    out_write(&out, bytes, len);
    return out_commit(&out, err);
}

static gist_status copy_file(const char *from, const char *to, const gist_allocator *alloc, gist_error *err) {
    file_map map;
    TRY(map_open(from, &map, err));
    gist_status status = write_bytes(to, map.data, map.size, alloc, err);
    map_close(&map);
    return status;
}

/* Takes *j over. */
static gist_status write_json(json_t *j, const char *path, const gist_allocator *alloc, gist_error *err) {
    out_file out;
    if (!j) return err_memory(err, path);
    gist_status status = out_open(&out, alloc, path, err);
    if (status == GIST_OK && json_dumpf(j, out.f, JSON_INDENT(2)) != 0 && !ferror(out.f)) {
        out_abort(&out);
        status = err_memory(err, path);
    }
    if (status == GIST_OK) {
        if (ferror(out.f)) out.saved_errno = errno ? errno : EIO;
        out_write(&out, "\n", 1);
        status = out_commit(&out, err);
    }
    json_decref(j);
    return status;
}

/* ---- <GIST> into JSON ---- */

static json_t *gist_token(int32_t id, bool with_id) {
    json_t *t = json_pack("{s:s, s:b, s:b, s:b, s:b, s:b}", "content", GIST_TEXT, "single_word", 0, "lstrip", 1,
                          "rstrip", 1, "normalized", 0, "special", 1);
    if (t && with_id && json_object_set_new(t, "id", json_integer(id)) != 0) {
        json_decref(t);
        return NULL;
    }
    return t;
}

static int add_to_tokenizer_json(json_t *root, int32_t id) {
    json_t *list = json_object_get(root, "added_tokens");
    if (!json_is_array(list)) {
        if (json_object_set_new(root, "added_tokens", json_array()) != 0) return -1;
        list = json_object_get(root, "added_tokens");
    }
    json_t *t = gist_token(id, true);
    return t ? json_array_append_new(list, t) : -1;
}

static int add_to_decoder(json_t *root, int32_t id) {
    char key[16];
    snprintf(key, sizeof key, "%d", id);
    json_t *decoder = json_object_get(root, "added_tokens_decoder"), *t = gist_token(id, false);
    if (!t) return -1;
    if (json_is_object(decoder)) return json_object_set_new(decoder, key, t);
    return json_object_set_new(root, "added_tokens_decoder", json_pack("{s:o}", key, t));
}

static int add_to_added_tokens(json_t *root, int32_t id) {
    return json_object_set_new(root, GIST_TEXT, json_integer(id));
}

static int add_to_special_map(json_t *root, int32_t id) {
    (void)id;
    json_t *list = json_object_get(root, "additional_special_tokens");
    if (!json_is_array(list)) {
        if (json_object_set_new(root, "additional_special_tokens", json_array()) != 0) return -1;
        list = json_object_get(root, "additional_special_tokens");
    }
    return json_array_append_new(list, json_string(GIST_TEXT));
}

/* The file `from` (absent: an empty object) with <GIST> added by `add`, as `to`. */
static gist_status with_gist(const char *from, const char *to, int (*add)(json_t *, int32_t), int32_t id,
                             const gist_allocator *alloc, gist_error *err) {
    json_t *root = NULL;
    if (path_exists(from))
        TRY(json_read_file(from, &root, err));
    else
        root = json_object();
    if (root && !json_is_object(root)) {
        json_decref(root);
        return err_set(err, GIST_ERR_FORMAT, "%s: not a JSON object", from);
    }
    if (!root || add(root, id) != 0) {
        json_decref(root);
        return err_memory(err, to);
    }
    return write_json(root, to, alloc, err);
}

/* ---- tokenizer files ---- */

typedef struct exporter {
    const train_origin *o;
    const char *dir;
    const gist_allocator *alloc;
    gist_error *err;
} exporter;

/* *has: the source's file is there, and holds an object under the key. */
static gist_status has_object(const exporter *e, const char *name, const char *key, bool *has) {
    char *path = path_join(e->alloc, e->o->tokenizer, name);
    json_t *root = NULL;
    gist_status status = path ? GIST_OK : err_memory(e->err, name);
    if (status == GIST_OK && path_exists(path)) status = json_read_file(path, &root, e->err);
    *has = json_is_object(json_object_get(root, key));
    json_decref(root);
    mem_free(e->alloc, path);
    return status;
}

/* Copy one file of the source, when it is there, through `add` (NULL: as it is; `make`: also when it is not there). */
static gist_status carry(const exporter *e, const char *name, int (*add)(json_t *, int32_t), bool make) {
    char *from = path_join(e->alloc, e->o->tokenizer, name), *to = path_join(e->alloc, e->dir, name);
    gist_status status = from && to ? GIST_OK : err_memory(e->err, name);
    if (status == GIST_OK && (make || path_exists(from)))
        status =
            add ? with_gist(from, to, add, e->o->gist_added, e->alloc, e->err) : copy_file(from, to, e->alloc, e->err);
    mem_free(e->alloc, from);
    mem_free(e->alloc, to);
    return status;
}

/* tokenizer_config.json for a source without one. */
static gist_status make_config(const exporter *e) {
    const train_origin *o = e->o;
    const char *name = o->sentencepiece ? "LlamaTokenizer" : "PreTrainedTokenizerFast";
    char *to = path_join(e->alloc, e->dir, "tokenizer_config.json"), id[16];
    json_t *root = json_pack("{s:s, s:b, s:b}", "tokenizer_class", name, "add_bos_token", o->bos >= 0, "legacy", 1);
    snprintf(id, sizeof id, "%d", o->gist_added);
    bool bad = !root || !to;
    if (!bad && o->bos_piece) bad = json_object_set_new(root, "bos_token", json_string(o->bos_piece)) != 0;
    if (!bad && o->eos_piece) bad = json_object_set_new(root, "eos_token", json_string(o->eos_piece)) != 0;
    if (!bad && o->gist_added >= 0)
        bad = json_object_set_new(root, "added_tokens_decoder",
                                  json_pack("{s:o}", id, gist_token(o->gist_added, false))) != 0;
    gist_status status = bad ? err_memory(e->err, "tokenizer_config.json") : write_json(root, to, e->alloc, e->err);
    if (bad) json_decref(root);
    mem_free(e->alloc, to);
    return status;
}

static gist_status is_there(const exporter *e, const char *name, bool *there) {
    char *path = path_join(e->alloc, e->o->tokenizer, name);
    if (!path) return err_memory(e->err, name);
    *there = path_exists(path);
    mem_free(e->alloc, path);
    return GIST_OK;
}

static gist_status carry_directory(const exporter *e) {
    static const char *const plain[] = { "tokenizer.model", "spiece.model", "vocab.json", "merges.txt",
                                         "chat_template.jinja" };
    bool add = e->o->gist_added >= 0, json, config, old, decoder;
    TRY(is_there(e, "tokenizer.json", &json));
    TRY(is_there(e, "tokenizer_config.json", &config));
    TRY(is_there(e, "added_tokens.json", &old));
    TRY(has_object(e, "tokenizer_config.json", "added_tokens_decoder", &decoder));
    bool apart = add && old && !json && !decoder, inside = add && (decoder || (!json && !apart));
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) TRY(carry(e, plain[i], NULL, false));
    TRY(carry(e, "tokenizer.json", add ? add_to_tokenizer_json : NULL, false));
    if (!config && (e->o->bos_piece || e->o->eos_piece))
        TRY(make_config(e));
    else
        TRY(carry(e, "tokenizer_config.json", inside ? add_to_decoder : NULL, inside));
    TRY(carry(e, "added_tokens.json", apart ? add_to_added_tokens : NULL, apart));
    return carry(e, "special_tokens_map.json", apart ? add_to_special_map : NULL, apart);
}

/* One file: under the name that says what it is. */
static gist_status carry_file(const exporter *e) {
    const char *from = e->o->tokenizer, *slash = strrchr(from, '/'), *name = slash ? slash + 1 : from;
    size_t n = strlen(name);
    bool json = n > 5 && strcmp(name + n - 5, ".json") == 0, add = e->o->gist_added >= 0;
    char *to = path_join(e->alloc, e->dir, json ? "tokenizer.json" : "tokenizer.model");
    gist_status status = to ? GIST_OK : err_memory(e->err, from);
    if (status == GIST_OK)
        status = json && add ? with_gist(from, to, add_to_tokenizer_json, e->o->gist_added, e->alloc, e->err)
                             : copy_file(from, to, e->alloc, e->err);
    mem_free(e->alloc, to);
    return status == GIST_OK ? make_config(e) : status;
}

/* ---- generation_config.json ---- */

/* What ends an answer: the template's token, then EOS, then what the source lists. */
static json_t *end_ids(const train_origin *o, const json_t *was) {
    json_t *list = json_array();
    int32_t ours[] = { o->end, o->eos };
    int bad = !list;
    for (int i = 0; i < 2 && !bad; i++)
        if (ours[i] >= 0 && !(i == 1 && ours[0] == ours[1])) bad = json_array_append_new(list, json_integer(ours[i]));
    for (size_t i = 0; !bad && i < (json_is_array(was) ? json_array_size(was) : (size_t)json_is_integer(was)); i++) {
        json_int_t id = json_integer_value(json_is_array(was) ? json_array_get(was, i) : was);
        if (id != o->end && id != o->eos) bad = json_array_append_new(list, json_integer(id));
    }
    if (bad) {
        json_decref(list);
        return NULL;
    }
    return list;
}

static gist_status write_generation(const exporter *e) {
    char *from = path_join(e->alloc, e->o->tokenizer, "generation_config.json");
    char *to = path_join(e->alloc, e->dir, "generation_config.json");
    json_t *root = NULL;
    gist_status status = from && to ? GIST_OK : err_memory(e->err, "generation_config.json");
    if (status == GIST_OK && path_is_dir(e->o->tokenizer) && path_exists(from))
        status = json_read_file(from, &root, e->err);
    if (status == GIST_OK && !root) root = json_object();
    if (status == GIST_OK) {
        json_t *ends = end_ids(e->o, json_object_get(root, "eos_token_id"));
        int bad = !ends || json_object_set_new(root, "eos_token_id", ends) != 0;
        if (!bad && e->o->bos >= 0) bad = json_object_set_new(root, "bos_token_id", json_integer(e->o->bos));
        if (bad) {
            status = err_memory(e->err, to);
            json_decref(root);
        } else {
            status = write_json(root, to, e->alloc, e->err);
        }
    }
    mem_free(e->alloc, from);
    mem_free(e->alloc, to);
    return status;
}

gist_status train_export_tokenizer(const train_origin *from, const char *dir, const gist_allocator *alloc,
                                   gist_error *err) {
    exporter e = { from, dir, alloc, err };
    if (path_is_dir(from->tokenizer))
        TRY(carry_directory(&e));
    else
        TRY(carry_file(&e));
    return write_generation(&e);
}

/* ---- weights ---- */

static const float *values_of(void *ctx, const char *name) {
    train_model *tm = ctx;
    for (int i = 0; i < train_model_tensors(tm); i++) {
        const train_tensor *t = train_model_tensor(tm, i);
        if (strcmp(t->name, name) == 0) return train_model_w(tm) + t->at;
    }
    return NULL;
}

/* With a note of what the model learned beside answers. */
static gist_status save_config(const llama_config *c, const train_origin *from, const char *dir,
                               const gist_allocator *alloc, gist_error *err) {
    json_t *j = from->config ? json_deep_copy(from->config) : json_object();
    json_t *note = json_pack("{s:b}", "input_loss", (int)from->input_loss);
    gist_status status = j && json_object_set_new(j, "gist_training", note) == 0
                             ? llama_save_config(c, j, from->type, dir, alloc, err)
                             : err_memory(err, "config.json");
    json_decref(j);
    return status;
}

gist_status train_export_model(train_model *tm, const train_origin *from, const char *dir, const gist_allocator *alloc,
                               gist_error *err) {
    const llama_config *c = &train_model_llama(tm)->cfg;
    const llama_lora_config *lora = train_model_lora(tm);
    if (lora && !from->merge)
        return llama_adapter_save(lora, c, train_model_gist_token(tm), from->base, values_of, tm, dir, alloc, err);
    train_merged merged = { tm, NULL };
    if (lora) TRY(train_model_merge(tm, &merged, err));
    gist_status status = save_config(c, from, dir, alloc, err);
    if (status == GIST_OK)
        status = llama_save_weights(c, from->type, lora ? train_merged_values : values_of, lora ? (void *)&merged : tm,
                                    dir, alloc, err);
    train_merged_free(&merged);
    return status;
}
