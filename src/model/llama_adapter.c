/* llama_adapter.c - LoRA adapters on disk, in PEFT's layout.
 *
 *   DIR/adapter_config.json         r, lora_alpha, target_modules, ...; ours: "gist_positions_only": true
 *   DIR/adapter_model.safetensors   base_model.model.model.layers.{i}.self_attn.q_proj.lora_A.weight, .lora_B.weight
 *                                   ...embed_tokens.token_adapter.trainable_tokens_delta [1,C]: <GIST>'s row itself
 *
 * An adapter of gist positions only is one that PEFT would apply everywhere: the extra key says so to us.
 * Source: the files that PEFT 0.21 writes.
 */
#include <math.h>

#include "model/model.h"

#define CONFIG "adapter_config.json"
#define TENSORS "adapter_model.safetensors"

/* ---- adapter_config.json ---- */

/* What changes the computation in a way that is not done here, unless it has this neutral value. */
static bool neutral(const json_t *v) {
    return !v || json_is_null(v) || json_is_false(v) || (json_is_object(v) && json_object_size(v) == 0) ||
           (json_is_array(v) && json_array_size(v) == 0);
}

static gist_status check_config(const json_t *j, const char *what, gist_error *err) {
    static const char *const refused[] = {
        "use_dora",          "use_qalora",    "use_bdlora",      "lora_bias",         "fan_in_fan_out",
        "rank_pattern",      "alpha_pattern", "modules_to_save", "layer_replication", "alora_invocation_tokens",
        "target_parameters", "arrow_config",  "corda_config",    "kasa_config",       "velora_config",
        "monteclora_config"
    };
    const char *type = NULL, *bias = "none";
    TRY(json_get_string(j, "peft_type", true, &type, what, err));
    if (strcmp(type, "LORA") != 0)
        return err_set(err, GIST_ERR_UNSUPPORTED, "%s: peft_type \"%.40s\" is not supported (supported: LORA)", what,
                       type);
    TRY(json_get_string(j, "bias", false, &bias, what, err));
    if (strcmp(bias, "none") != 0)
        return err_set(err, GIST_ERR_UNSUPPORTED, "%s: bias \"%.40s\" is not supported (supported: none)", what, bias);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (!neutral(json_object_get(j, refused[i])))
            return err_set(err, GIST_ERR_UNSUPPORTED, "%s: %s is not supported", what, refused[i]);
    const char *init = json_string_value(json_object_get(j, "init_lora_weights"));
    if (init && strcmp(init, "gaussian") != 0) /* the others change the base model */
        return err_set(err, GIST_ERR_UNSUPPORTED, "%s: init_lora_weights \"%.40s\" is not supported", what, init);
    return GIST_OK;
}

/* One id: [32000] or {"embed_tokens": [32000]}. */
static gist_status read_token(const json_t *j, int32_t *out, const char *what, gist_error *err) {
    const json_t *list = json_object_get(j, "trainable_token_indices");
    if (neutral(list)) return GIST_OK;
    if (json_is_object(list) && json_object_size(list) == 1) list = json_object_get(list, "embed_tokens");
    json_int_t id =
        json_is_array(list) && json_array_size(list) == 1 ? json_integer_value(json_array_get(list, 0)) : -1;
    if (id < 0 || id > LLAMA_MAX_VOCAB)
        return err_set(err, GIST_ERR_UNSUPPORTED, "%s: trainable_token_indices must name one token, <GIST>", what);
    *out = (int32_t)id;
    return GIST_OK;
}

static gist_status read_config(llama_adapter *ad, const char *path, gist_error *err) {
    json_t *j;
    TRY(json_read_file(path, &j, err));
    bool rs = false;
    ad->gist_token = -1;
    gist_status status =
        json_is_object(j) ? check_config(j, path, err) : err_set(err, GIST_ERR_FORMAT, "%s: not a JSON object", path);
    if (status == GIST_OK) status = json_get_int(j, "r", true, 0, LLAMA_MAX_WIDTH, &ad->cfg.rank, path, err);
    if (status == GIST_OK) status = json_get_float(j, "lora_alpha", true, 0, 1e6, &ad->cfg.alpha, path, err);
    if (status == GIST_OK) status = json_get_bool(j, "use_rslora", false, &rs, path, err);
    if (status == GIST_OK) status = json_get_bool(j, "gist_positions_only", false, &ad->cfg.gist_only, path, err);
    if (status == GIST_OK) status = read_token(j, &ad->gist_token, path, err);
    if (rs) ad->cfg.alpha *= sqrtf((float)ad->cfg.rank); /* s = alpha / sqrt(r) */
    json_decref(j);
    return status;
}

/* ---- adapter_model.safetensors ---- */

typedef struct loader {
    llama_adapter *ad;
    const llama_config *c;
    const st_file *st;
    const char *path;
    dtype type;
    op_ctx *ctx;
    arena ar;     /* counts first, then hands out the block */
    size_t found; /* tensors that were asked for */
} loader;

static gist_status find(loader *ld, const char *name, int rows, int cols, const tensor_view **out, gist_error *err) {
    char got[64];
    const tensor_view *t = st_find(ld->st, name);
    *out = t;
    if (!t) return GIST_OK;
    ld->found++;
    if (t->dims == 2 && t->shape[0] == rows && t->shape[1] == cols) return GIST_OK;
    return err_set(err, GIST_ERR_MISMATCH, "%s: %s is %s, this model and a rank of %d need [%d,%d]", ld->path, name,
                   tensor_shape_text(t, got), ld->ad->cfg.rank, rows, cols);
}

static void load_factor(loader *ld, op_weight *W, const tensor_view *t, int N, int K) {
    *W = (op_weight){ ld->type, N, K, arena_take(&ld->ar, op_weight_bytes(ld->type, N, K), 1) };
    if (W->panels) op_weight_pack(ld->ctx, W, t->data, t->type, N);
}

static gist_status load_part(loader *ld, int block, int part, gist_error *err) {
    char a[LLAMA_LORA_NAME], b[LLAMA_LORA_NAME];
    int layer;
    const weight_row *row = llama_lora_row(ld->c, block, part, &layer);
    if (!row) return GIST_OK;
    int r = ld->ad->cfg.rank, N = llama_dim(ld->c, row->shape[0]), K = llama_dim(ld->c, row->shape[1]);
    const tensor_view *A, *B;
    llama_lora_name(a, ld->c, block, part, 'A');
    llama_lora_name(b, ld->c, block, part, 'B');
    TRY(find(ld, a, r, K, &A, err));
    TRY(find(ld, b, N, r, &B, err));
    if (!A && !B) return GIST_OK;
    if (!A || !B) return err_set(err, GIST_ERR_FORMAT, "%s: tensor %s is missing", ld->path, A ? b : a);
    llama_lora *l = llama_lora_of(&ld->ad->layers[block], part);
    load_factor(ld, &l->A, A, r, K);
    load_factor(ld, &l->B, B, N, r);
    l->scale = ld->ad->cfg.alpha / (float)r;
    l->gist_only = ld->ad->cfg.gist_only;
    ld->ad->cfg.targets |= llama_lora_target(part);
    return GIST_OK;
}

static gist_status load_tensors(loader *ld, gist_error *err) {
    const tensor_view *t;
    size_t C = (size_t)ld->c->C;
    ld->found = 0;
    for (int block = 0; block < llama_lora_blocks(ld->c, ld->ad->cfg.gist_only); block++)
        for (int part = 0; part < LLAMA_LORA_PARTS; part++) TRY(load_part(ld, block, part, err));
    TRY(find(ld, llama_lora_embed(ld->c), 1, ld->c->C, &t, err));
    if (!t != (ld->ad->gist_token < 0))
        return err_set(err, GIST_ERR_FORMAT,
                       "%s: trainable_token_indices and the tensor of their embeddings: one is missing", ld->path);
    if (t) {
        ld->ad->gist_embed = arena_take(&ld->ar, C, sizeof(float));
        if (ld->ad->gist_embed) dt_to_f32(ld->ad->gist_embed, t->data, t->type, C);
    }
    return GIST_OK;
}

static bool is_factor(const loader *ld, const char *name) {
    char want[LLAMA_LORA_NAME];
    int layer;
    int blocks = llama_lora_blocks(ld->c, ld->ad->cfg.gist_only);
    for (int i = 0; i < blocks * LLAMA_LORA_PARTS * 2; i++) {
        int block = i / 2 / LLAMA_LORA_PARTS, part = i / 2 % LLAMA_LORA_PARTS;
        if (!llama_lora_row(ld->c, block, part, &layer)) continue;
        llama_lora_name(want, ld->c, block, part, i % 2 ? 'A' : 'B');
        if (strcmp(name, want) == 0) return true;
    }
    return false;
}

/* Some tensor of the file is none that was asked for. */
static gist_status name_unknown(const loader *ld, gist_error *err) {
    for (size_t i = 0; i < ld->st->count; i++) {
        const char *name = ld->st->tensors[i].name;
        if (strcmp(name, llama_lora_embed(ld->c)) != 0 && !is_factor(ld, name))
            return err_set(err, GIST_ERR_MISMATCH, "%s: tensor %.200s does not fit a %s model with %d layers%s",
                           ld->path, name, llama_families[ld->c->family].name, llama_lora_blocks(ld->c, false),
                           ld->ad->cfg.gist_only ? ", at gist positions only" : "");
    }
    return GIST_OK;
}

/* Over all that changes a result: where it acts, its scale, every tensor. */
static gist_status take_hash(llama_adapter *ad, const st_file *st, gist_error *err) {
    hasher *h = hash_begin(ad->alloc);
    if (!h) return err_memory(err, "adapter");
    hash_str(h, "gist-adapter-1");
    hash_u64(h, ad->cfg.gist_only);
    hash_u64(h, (uint64_t)ad->cfg.rank);
    hash_add(h, &ad->cfg.alpha, sizeof ad->cfg.alpha);
    for (size_t i = 0; i < st->count; i++) {
        const tensor_view *t = &st->tensors[i];
        hash_str(h, t->name);
        hash_str(h, dt_name(t->type));
        hash_add(h, t->data, t->bytes);
    }
    hash_hex(hash_end(h), ad->hash);
    return GIST_OK;
}

static gist_status load(loader *ld, gist_error *err) {
    llama_adapter *ad = ld->ad;
    llama_lora_config asked = { ad->cfg.rank, ad->cfg.rank ? ad->cfg.alpha : 1, 1, ad->cfg.gist_only };
    TRY(llama_lora_check(&asked, ld->c, err));
    ad->layers = mem_calloc(ad->alloc, (size_t)llama_lora_blocks(ld->c, false), sizeof *ad->layers);
    if (!ad->layers) return err_memory(err, "adapter");
    arena_init(&ld->ar, NULL, 0);
    TRY(load_tensors(ld, err));
    if (ld->found < ld->st->count) TRY(name_unknown(ld, err));
    if (ld->found == 0) return err_set(err, GIST_ERR_FORMAT, "%s: has no tensors", ld->path);
    size_t bytes = ld->ar.peak;
    ad->block = mem_alloc(ad->alloc, bytes, 1);
    if (!ad->block) return err_set(err, GIST_ERR_MEMORY, "out of memory: adapter of %zu MiB", bytes >> 20);
    arena_init(&ld->ar, ad->block, bytes);
    TRY(load_tensors(ld, err));
    return take_hash(ad, ld->st, err);
}

gist_status llama_adapter_open(llama_adapter *ad, const char *dir, const llama_config *c, dtype type, op_ctx *ctx,
                               const gist_allocator *alloc, gist_error *err) {
    llama_adapter made = { .alloc = alloc };
    st_file st = { .alloc = alloc };
    char *config = path_join(alloc, dir, CONFIG), *tensors = path_join(alloc, dir, TENSORS);
    gist_status status = config && tensors ? GIST_OK : err_memory(err, "adapter");
    if (status == GIST_OK && !path_exists(config))
        status = err_set(err, GIST_ERR_IO, "%s: not an adapter directory (" CONFIG ", " TENSORS ")", dir);
    if (status == GIST_OK) status = read_config(&made, config, err);
    if (status == GIST_OK) status = st_open(&st, alloc, tensors, err);
    if (status == GIST_OK) {
        loader ld = {
            .ad = &made, .c = c, .st = &st, .path = tensors, .type = type == DT_BF16 ? DT_BF16 : DT_F32, .ctx = ctx
        };
        status = load(&ld, err);
        st_close(&st);
    }
    mem_free(alloc, tensors);
    mem_free(alloc, config);
    if (status == GIST_OK)
        *ad = made;
    else
        llama_adapter_close(&made);
    return status;
}

void llama_adapter_close(llama_adapter *ad) {
    mem_free(ad->alloc, ad->layers);
    mem_free(ad->alloc, ad->block);
    *ad = (llama_adapter){ .alloc = ad->alloc };
}

void llama_adapter_attach(llama_model *m, const llama_adapter *ad) {
    const llama_layer_lora *first = ad && ad->cfg.rank ? ad->layers : NULL;
    for (int l = 0; l < m->cfg.encoder; l++) m->encoder[l].lora = first ? &first[l] : NULL;
    for (int l = 0; l < m->cfg.L; l++) m->layers[l].lora = first ? &first[m->cfg.encoder + l] : NULL;
    m->adapter = ad;
}

/* ---- saving ---- */

/* The last part of each target's name: "up_proj" of "model.layers.%d.mlp.up_proj.weight". */
static json_t *target_modules(const llama_config *c, unsigned targets) {
    json_t *list = json_array();
    for (int part = 0; list && part < LLAMA_LORA_TARGETS; part++) {
        int layer;
        const weight_row *row = llama_lora_row(c, 0, part, &layer);
        if (!row || !(targets & llama_lora_target(part))) continue;
        const char *end = strrchr(row->hf, '.'), *name = end;
        while (name[-1] != '.') name--;
        if (json_array_append_new(list, json_stringn(name, (size_t)(end - name))) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static gist_status save_config(const llama_lora_config *lora, const llama_config *c, int32_t gist_token,
                               const char *base, const char *path, const gist_allocator *alloc, gist_error *err) {
    json_t *j = json_pack("{s:s, s:s, s:s, s:i, s:f, s:o, s:b, s:b, s:s?}", "peft_type", "LORA", "task_type",
                          c->encoder ? "SEQ_2_SEQ_LM" : "CAUSAL_LM", "bias", "none", "r", lora->rank, "lora_alpha",
                          (double)lora->alpha, "target_modules", target_modules(c, lora->targets), "inference_mode", 1,
                          "gist_positions_only", (int)lora->gist_only, "base_model_name_or_path", base);
    if (j && gist_token >= 0 && json_object_set_new(j, "trainable_token_indices", json_pack("[i]", gist_token)) != 0) {
        json_decref(j);
        j = NULL;
    }
    char *text = j ? json_dumps(j, JSON_INDENT(2)) : NULL;
    json_decref(j);
    if (!text) return err_memory(err, CONFIG);
    out_file out;
    gist_status status = out_open(&out, alloc, path, err);
    if (status == GIST_OK) {
        out_write(&out, text, strlen(text));
        out_write(&out, "\n", 1);
        status = out_commit(&out, err);
    }
    void (*release)(void *) = NULL;
    json_get_alloc_funcs(NULL, &release);
    release(text);
    return status;
}

typedef struct saver {
    tensor_view *view;
    char (*name)[LLAMA_LORA_NAME];
    size_t n;
    llama_values_fn values;
    void *ctx;
} saver;

static gist_status add_tensor(saver *s, const char *name, int rows, int cols, gist_error *err) {
    const float *x = s->values(s->ctx, name);
    if (!x) return err_set(err, GIST_ERR_USAGE, "tensor %s is missing", name);
    snprintf(s->name[s->n], sizeof *s->name, "%s", name);
    s->view[s->n] = (tensor_view){ .name = s->name[s->n],
                                   .type = DT_F32,
                                   .dims = 2,
                                   .shape = { rows, cols, 1, 1 },
                                   .data = x,
                                   .bytes = (size_t)rows * (size_t)cols * sizeof *x };
    s->n++;
    return GIST_OK;
}

static gist_status add_tensors(saver *s, const llama_lora_config *lora, const llama_config *c, bool embed,
                               gist_error *err) {
    char name[LLAMA_LORA_NAME];
    for (int block = 0; block < llama_lora_blocks(c, lora->gist_only); block++)
        for (int part = 0; part < LLAMA_LORA_PARTS; part++) {
            int layer;
            const weight_row *row = llama_lora_row(c, block, part, &layer);
            if (!row || !llama_lora_adapts(lora, part)) continue;
            llama_lora_name(name, c, block, part, 'A');
            TRY(add_tensor(s, name, lora->rank, llama_dim(c, row->shape[1]), err));
            llama_lora_name(name, c, block, part, 'B');
            TRY(add_tensor(s, name, llama_dim(c, row->shape[0]), lora->rank, err));
        }
    return embed ? add_tensor(s, llama_lora_embed(c), 1, c->C, err) : GIST_OK;
}

gist_status llama_adapter_save(const llama_lora_config *lora, const llama_config *c, int32_t gist_token,
                               const char *base, llama_values_fn values, void *ctx, const char *dir,
                               const gist_allocator *alloc, gist_error *err) {
    static const st_meta meta = { "format", "pt" };
    size_t most = (size_t)llama_lora_blocks(c, false) * LLAMA_LORA_PARTS * 2 + 1;
    saver s = { .values = values, .ctx = ctx };
    s.view = mem_alloc(alloc, most, sizeof *s.view);
    s.name = mem_alloc(alloc, most, sizeof *s.name);
    char *config = path_join(alloc, dir, CONFIG), *tensors = path_join(alloc, dir, TENSORS);
    gist_status status = s.view && s.name && config && tensors ? GIST_OK : err_memory(err, "adapter");
    if (status == GIST_OK) status = add_tensors(&s, lora, c, gist_token >= 0, err);
    if (status == GIST_OK) status = save_config(lora, c, gist_token, base, config, alloc, err);
    if (status == GIST_OK) status = st_save(alloc, tensors, s.view, s.n, &meta, 1, err);
    mem_free(alloc, tensors);
    mem_free(alloc, config);
    mem_free(alloc, s.name);
    mem_free(alloc, s.view);
    return status;
}
