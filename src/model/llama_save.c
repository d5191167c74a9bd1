/* llama_save.c - a model of the LLaMA family as a Hugging Face directory: config.json, and model.safetensors by the
 * weight table.
 *
 *   f32 tensors --convert--> one block of `type` --st_save--> DIR/model.safetensors     (a tied head has no tensor)
 *   the config the model came from, or a fresh one --the keys below rewritten--> DIR/config.json
 *
 * Both files are written beside their final names and renamed, config.json first: a reader never sees half a file, and
 * a directory that had a model of the same shape stays readable throughout.
 */
#include <stdlib.h>

#include "model/model.h"

/* ---- config.json ---- */

/* The float with as many digits as it takes to read it back: 1e-05, not 9.99999975e-06. */
static json_t *short_real(float x) {
    char text[32];
    for (int digits = 1; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)x);
        if (strtof(text, NULL) == x) break;
    }
    return json_real(strtod(text, NULL));
}

static int set_new(json_t *obj, const char *key, json_t *value) {
    return value ? json_object_set_new(obj, key, value) : -1;
}

/* Scaling of rotary frequencies, as members of `rope`; those of another kind go. */
static int set_scaling(json_t *rope, const llama_rope *r) {
    static const char *const keys[] = { "factor", "low_freq_factor", "high_freq_factor",
                                        "original_max_position_embeddings", "type" };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) json_object_del(rope, keys[i]);
    int bad = set_new(rope, "rope_type", json_string(llama_rope_name(r->kind)));
    if (r->kind != ROPE_PLAIN) bad |= set_new(rope, "factor", short_real(r->factor));
    if (r->kind != ROPE_LLAMA3) return bad;
    bad |= set_new(rope, "low_freq_factor", short_real(r->low));
    bad |= set_new(rope, "high_freq_factor", short_real(r->high));
    return bad | set_new(rope, "original_max_position_embeddings", json_integer(r->original));
}

/* In the spelling of transformers 5 where the object has it, else in the older one, which all versions read. */
static int set_rope(json_t *j, const llama_config *c) {
    json_t *rope = json_object_get(j, "rope_parameters");
    if (json_is_object(rope)) return set_scaling(rope, &c->rope) | set_new(rope, "rope_theta", short_real(c->theta));
    int bad = set_new(j, "rope_theta", short_real(c->theta));
    json_object_del(j, "rope_scaling");
    if (c->rope.kind == ROPE_PLAIN) return bad;
    rope = json_object();
    bad |= rope ? set_scaling(rope, &c->rope) : -1;
    return bad | set_new(j, "rope_scaling", rope);
}

/* All layers slide, or none. */
static int set_window(json_t *j, const llama_config *c) {
    if (c->family == FAMILY_LLAMA) return 0;
    int bad = set_new(j, "sliding_window", c->window ? json_integer(c->window) : json_null());
    if (c->family == FAMILY_MISTRAL) return bad;
    json_object_del(j, "layer_types"); /* which transformers works out from the two */
    bad |= set_new(j, "use_sliding_window", json_boolean(c->window > 0));
    return bad | set_new(j, "max_window_layers", json_integer(c->window ? 0 : c->L));
}

/* Keys that say what this model computes, and how it is stored now. */
static int set_shape(json_t *j, const llama_config *c, dtype type) {
    static const char *const type_names[] = { [DT_F32] = "float32", [DT_BF16] = "bfloat16", [DT_F16] = "float16" };
    int bad = set_new(j, "model_type", json_string(llama_families[c->family].name));
    bad |= set_new(j, "architectures", json_pack("[s]", llama_families[c->family].architecture));
    bad |= set_new(j, "vocab_size", json_integer(c->V));
    bad |= set_new(j, "tie_word_embeddings", json_boolean(c->tied));
    const char *key = json_object_get(j, "dtype") ? "dtype" : "torch_dtype";
    bad |= set_new(j, key, json_string(type_names[type]));
    if (c->encoder) return bad | t5_set_shape(j, c);
    bad |= set_new(j, "num_hidden_layers", json_integer(c->L));
    bad |= set_new(j, "hidden_size", json_integer(c->C));
    bad |= set_new(j, "intermediate_size", json_integer(c->F));
    bad |= set_new(j, "num_attention_heads", json_integer(c->H));
    bad |= set_new(j, "num_key_value_heads", json_integer(c->G));
    bad |= set_new(j, "head_dim", json_integer(c->D));
    bad |= set_new(j, "max_position_embeddings", json_integer(c->context));
    bad |= set_new(j, "rms_norm_eps", short_real(c->eps));
    bad |= set_new(j, "hidden_act", json_string("silu"));
    bad |= set_rope(j, c);
    bad |= set_window(j, c);
    if (c->gist_spread)
        bad |= set_new(j, "gist_positions", json_string("spread"));
    else
        json_object_del(j, "gist_positions");
    return bad;
}

gist_status llama_save_json(const json_t *j, const char *dir, const char *name, const gist_allocator *alloc,
                            gist_error *err) {
    char *path = path_join(alloc, dir, name);
    char *text = json_dumps(j, JSON_INDENT(2));
    out_file out;
    gist_status status = path && text ? out_open(&out, alloc, path, err) : err_memory(err, name);
    if (status == GIST_OK) {
        out_write(&out, text, strlen(text));
        out_write(&out, "\n", 1);
        status = out_commit(&out, err);
    }
    if (text) {
        void (*release)(void *) = NULL;
        json_get_alloc_funcs(NULL, &release);
        release(text);
    }
    mem_free(alloc, path);
    return status;
}

gist_status llama_save_config(const llama_config *c, const json_t *from, dtype type, const char *dir,
                              const gist_allocator *alloc, gist_error *err) {
    json_t *j = from ? json_deep_copy(from) : json_object();
    int bad = j ? set_shape(j, c, type) : -1;
    gist_status status = bad ? err_memory(err, "config.json") : llama_save_json(j, dir, "config.json", alloc, err);
    json_decref(j);
    return status;
}

/* ---- model.safetensors ---- */

typedef struct saver {
    const llama_config *c;
    dtype type;
    llama_values_fn values;
    void *ctx;
    tensor_view *view;
    char (*name)[128];
    int n;
    arena ar; /* counts, then holds the converted values */
} saver;

static gist_status add_row(saver *s, const weight_row *r, int layer, gist_error *err) {
    tensor_view *v = &s->view[s->n];
    char *name = s->name[s->n++];
    snprintf(name, sizeof s->name[0], r->hf, layer);
    *v = (tensor_view){ .name = name,
                        .type = s->type,
                        .dims = r->shape[1] ? 2 : 1,
                        .shape = { llama_dim(s->c, r->shape[0]), llama_dim(s->c, r->shape[1]), 1, 1 } };
    size_t n = tensor_count(v);
    v->bytes = dt_bytes(s->type, n);
    const float *x = s->values(s->ctx, name);
    if (!x) return err_set(err, GIST_ERR_USAGE, "tensor %s is missing", name);
    v->data = x;
    if (s->type == DT_F32) return GIST_OK; /* as it is */
    void *data = arena_take(&s->ar, v->bytes, 1);
    if (data) dt_from_f32(data, s->type, x, n);
    v->data = data;
    return GIST_OK;
}

static gist_status add_rows(saver *s, gist_error *err) {
    s->n = 0;
    int rows;
    const weight_row *table = llama_table(s->c, &rows);
    for (int i = 0; i < rows; i++) {
        const weight_row *r = &table[i];
        if (!llama_has_row(s->c, r)) continue;
        for (int layer = 0; layer < llama_row_layers(s->c, r); layer++) TRY(add_row(s, r, layer, err));
    }
    return GIST_OK;
}

gist_status llama_save_weights(const llama_config *c, dtype type, llama_values_fn values, void *ctx, const char *dir,
                               const gist_allocator *alloc, gist_error *err) {
    static const st_meta meta = { "format", "pt" }; /* what transformers looks for */
    int rows;
    (void)llama_table(c, &rows);
    size_t most = (size_t)rows * (size_t)(c->L > c->encoder ? c->L : c->encoder);
    saver s = { .c = c, .type = type, .values = values, .ctx = ctx };
    s.view = mem_alloc(alloc, most, sizeof *s.view);
    s.name = mem_alloc(alloc, most, sizeof *s.name);
    char *path = path_join(alloc, dir, "model.safetensors");
    void *block = NULL;
    gist_status status = s.view && s.name && path ? GIST_OK : err_memory(err, "model.safetensors");
    arena_init(&s.ar, NULL, 0);
    if (status == GIST_OK) status = add_rows(&s, err);
    if (status == GIST_OK && s.ar.peak) {
        block = mem_alloc(alloc, s.ar.peak, 1);
        arena_init(&s.ar, block, s.ar.peak);
        status = block ? add_rows(&s, err) : err_memory(err, "converted weights");
    }
    if (status == GIST_OK) status = st_save(alloc, path, s.view, (size_t)s.n, &meta, 1, err);
    mem_free(alloc, block);
    mem_free(alloc, path);
    mem_free(alloc, s.name);
    mem_free(alloc, s.view);
    return status;
}
