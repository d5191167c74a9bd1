/* llama_convert.c - weights from one kind of file into the other, by the weight table.
 *
 *   weights (safetensors or GGUF) --plan: name, shape, type of each tensor--> gguf_save | st_save_from
 *        rows --in the order of the new file--> f32 --> new type            a chunk of rows at a time, in parallel
 *
 *   GGUF          matrices of the type asked for, vectors f32; LLaMA's wq and wk with rotary pairs side by side:
 *                     row (h, 2j+s) of the file = row (h, s D/2 + j) of the model         h head, j < D/2, s 0 or 1
 *                 rope_freqs.weight [D/2] holds the factors of LLaMA 3's rotary scaling
 *   safetensors   every tensor of one plain type; in shards where they are many
 *   weight diff   rows + the base's rows, in f32, before they get their new type
 *
 * Memory: two chunks' worth, whatever the model's size.  Keys and names are those that llama.cpp reads.
 */
#include <math.h>

#include "model/model.h"

enum { CHUNK_BYTES = 8 << 20, TASK_ELEMENTS = 1 << 15, ROPE_FACTORS = -1 };

typedef struct planned {
    const tensor_view *src;  /* NULL: the rotary factors */
    const tensor_view *base; /* that src is a difference from; NULL: none */
    tensor_view dst;
    bool pair, unpair; /* rows change their order */
    char name[128];
} planned;

typedef struct plan {
    llama_copy *c;
    bool gguf; /* of the new file */
    planned *item;
    tensor_view *view; /* [n] the items' dst */
    int n, first_item; /* first_item: of the file being written */
    uint64_t done;
    uint8_t *chunk;
    float *scratch; /* [workers][2][widest] */
    bool *bad;      /* [tasks of a chunk] a value that the new type cannot hold */
    double *sum;    /* [tasks of a chunk] */
    /* the chunk at hand */
    const planned *at;
    size_t first, rows, task_rows;
} plan;

/* ---- the plan ---- */

/* The type of a matrix with rows of K: as asked for where K is a multiple of its block, else the nearest that fits. */
static dtype fitting(dtype type, int64_t K) {
    if (K % (int64_t)dt_block(type) == 0) return type;
    return K % (int64_t)dt_block(DT_Q8_0) == 0 ? DT_Q8_0 : DT_F16;
}

static void say_fallback(const plan *p, const planned *it, dtype wanted, int *said) {
    if (it->dst.type == wanted || (*said)++) return;
    log_msg(p->c->log, GIST_LOG_WARN,
            "%s has rows of %lld, no multiple of %zu: it and others like it are stored as %s, not %s", it->src->name,
            (long long)it->dst.shape[it->dst.dims - 1], dt_block(wanted), dt_name(it->dst.type), dt_name(wanted));
}

static gist_status plan_row(plan *p, const weight_row *r, int layer, int *said, gist_error *err) {
    const llama_copy *c = p->c;
    planned *it = &p->item[p->n++];
    bool moves = r->pairs && llama_families[c->cfg->family].gguf_pairs;
    *it = (planned){ .pair = moves && p->gguf && !c->from->gguf, .unpair = moves && !p->gguf && c->from->gguf };
    TRY(llama_find_tensor(c->from, c->cfg, r, layer, &it->src, err));
    if (c->base) TRY(llama_find_tensor(c->base, c->base_cfg, r, layer, &it->base, err));
    llama_row_name(it->name, r, layer, p->gguf);
    it->dst = *it->src;
    it->dst.name = it->name;
    it->dst.data = NULL;
    if (!p->gguf) {
        it->dst.type = c->type;
    } else if (r->kind == WEIGHT_VECTOR) {
        it->dst.type = DT_F32;
    } else if (!c->keep) {
        it->dst.type = fitting(c->type, it->src->shape[1]);
        say_fallback(p, it, c->type, said);
    }
    it->dst.bytes = dt_bytes(it->dst.type, tensor_count(&it->dst));
    return GIST_OK;
}

static void plan_factors(plan *p) {
    planned *it = &p->item[p->n++];
    int64_t half = p->c->cfg->D / 2;
    *it = (planned){ .name = "rope_freqs.weight" };
    it->dst = (tensor_view){ it->name, DT_F32, 1, { half, 1, 1, 1 }, NULL, (size_t)half * sizeof(float) };
}

static gist_status check_known(const weights *w, const llama_config *cfg, gist_error *err) {
    for (size_t i = 0; i < weights_count(w); i++)
        if (!llama_known_tensor(cfg, weights_at(w, i)->name, w->gguf))
            return err_set(err, GIST_ERR_UNSUPPORTED, "tensor %.200s is not part of a %s model with %d layers",
                           weights_at(w, i)->name, llama_families[cfg->family].name, cfg->L);
    return GIST_OK;
}

static gist_status plan_all(plan *p, gist_error *err) {
    const llama_copy *c = p->c;
    int said = 0;
    TRY(check_known(c->from, c->cfg, err));
    if (c->base) TRY(check_known(c->base, c->base_cfg, err));
    if (p->gguf && !c->cfg->encoder) TRY(llama_gguf_check_rope(c->cfg, err));
    int rows;
    const weight_row *table = llama_table(c->cfg, &rows);
    size_t most = (size_t)rows * (size_t)(c->cfg->L > c->cfg->encoder ? c->cfg->L : c->cfg->encoder) + 1;
    p->item = mem_alloc(c->alloc, most, sizeof *p->item);
    p->view = mem_alloc(c->alloc, most, sizeof *p->view);
    if (!p->item || !p->view) return err_memory(err, "plan of tensors");
    if (p->gguf && c->cfg->rope.kind == ROPE_LLAMA3) plan_factors(p);
    for (int i = 0; i < rows; i++) {
        const weight_row *r = &table[i];
        if (!llama_has_row(c->cfg, r)) continue;
        for (int layer = 0; layer < llama_row_layers(c->cfg, r); layer++) TRY(plan_row(p, r, layer, &said, err));
    }
    size_t elements[DT_COUNT] = { 0 };
    for (int i = 0; i < p->n; i++) {
        const tensor_view *t = &p->view[i];
        p->view[i] = p->item[i].dst;
        p->c->bytes += t->bytes;
        if (t->dims == 2) elements[t->type] += tensor_count(t);
    }
    for (int t = 0; t < DT_COUNT; t++)
        if (elements[t] > elements[p->c->most]) p->c->most = (dtype)t;
    p->c->tensors = p->n;
    return GIST_OK;
}

/* ---- rows ---- */

/* Elements that lie together: a row of a matrix; of a vector, one, or a block where it comes in blocks. */
static size_t row_width(const tensor_view *t) {
    return t->dims == 2 ? (size_t)t->shape[1] : dt_block(t->type);
}

/* Which row of the source is row n of the new tensor? */
static size_t source_row(const planned *it, size_t n, size_t D) {
    size_t head = n / D * D, i = n % D;
    if (it->pair) return head + i % 2 * (D / 2) + i / 2;
    if (it->unpair) return head + i % (D / 2) * 2 + i / (D / 2);
    return n;
}

static bool holds(dtype t, const float *x, size_t n) {
    float most = t == DT_F16 || dt_block(t) > 1 ? 65519.0f : INFINITY; /* the scales of blocks are f16 */
    bool ok = true;
    for (size_t i = 0; t != DT_F32 && t != DT_BF16 && i < n; i++) ok &= fabsf(x[i]) <= most;
    return ok;
}

/* x [K] += row n of the base, nothing where it has no such row. */
static void add_base(float *x, float *scratch, const tensor_view *base, size_t n, size_t K) {
    if (n * K >= tensor_count(base)) return;
    dt_to_f32(scratch, (const uint8_t *)base->data + dt_bytes(base->type, n * K), base->type, K);
    for (size_t i = 0; i < K; i++) x[i] += scratch[i];
}

static void convert_rows(void *ctx, int task, int worker) {
    plan *p = ctx;
    const planned *it = p->at;
    size_t K = row_width(it->src), D = (size_t)p->c->cfg->D;
    size_t from = dt_bytes(it->src->type, K), to = dt_bytes(it->dst.type, K);
    float *x = p->scratch + (size_t)worker * 2 * K;
    size_t n = p->first + (size_t)task * p->task_rows, end = p->first + p->rows;
    if (end - n > p->task_rows) end = n + p->task_rows;
    bool ok = true;
    double sum = 0;
    for (; n < end; n++) {
        size_t row = source_row(it, n, D);
        const uint8_t *src = (const uint8_t *)it->src->data + row * from;
        uint8_t *dst = p->chunk + (n - p->first) * to;
        if (it->src->type == it->dst.type && !it->base) {
            memcpy(dst, src, from);
            continue;
        }
        dt_to_f32(x, src, it->src->type, K);
        if (it->base) add_base(x, x + K, it->base, row, K);
        for (size_t i = 0; it->base && i < K; i++) sum += (double)x[i];
        ok &= holds(it->dst.type, x, K);
        dt_from_f32(dst, it->dst.type, x, K);
    }
    p->bad[task] = !ok;
    p->sum[task] = sum;
}

static gist_status convert_chunk(plan *p, gist_error *err) {
    int tasks = (int)((p->rows + p->task_rows - 1) / p->task_rows);
    if (p->c->pool)
        pool_run(p->c->pool, convert_rows, p, tasks);
    else
        for (int i = 0; i < tasks; i++) convert_rows(p, i, 0);
    for (int i = 0; i < tasks; i++)
        if (p->bad[i])
            return err_set(err, GIST_ERR_UNSUPPORTED, "tensor %s holds a value that %s cannot", p->at->src->name,
                           dt_name(p->at->dst.type));
    for (int i = 0; i < tasks; i++) p->c->sum += p->sum[i];
    return GIST_OK;
}

/* ---- tensors ---- */

typedef void (*sink_fn)(void *out, const void *bytes, size_t len);

static gist_status copy_factors(plan *p, sink_fn sink, void *out) {
    float factor[GFILE_MAX_WIDTH / 2];
    llama_rope_factors(p->c->cfg, factor);
    sink(out, factor, (size_t)p->c->cfg->D / 2 * sizeof(float));
    return GIST_OK;
}

static gist_status copy_tensor(plan *p, size_t i, sink_fn sink, void *out, gist_error *err) {
    llama_copy *c = p->c;
    const planned *it = &p->item[i];
    if (!it->src) return copy_factors(p, sink, out);
    size_t K = row_width(it->src), rows = tensor_count(it->src) / K, bytes = dt_bytes(it->dst.type, K);
    size_t chunk = CHUNK_BYTES / bytes ? CHUNK_BYTES / bytes : 1, workers = c->pool ? (size_t)pool_size(c->pool) : 1;
    if (chunk > rows) chunk = rows;
    p->at = it;
    p->task_rows = TASK_ELEMENTS / K ? TASK_ELEMENTS / K : 1;
    p->chunk = mem_alloc(c->alloc, chunk, bytes);
    size_t tasks = (chunk + p->task_rows - 1) / p->task_rows;
    p->scratch = mem_alloc(c->alloc, workers * 2 * K, sizeof *p->scratch);
    p->bad = mem_alloc(c->alloc, tasks, sizeof *p->bad);
    p->sum = mem_alloc(c->alloc, tasks, sizeof *p->sum);
    bool made = p->chunk && p->scratch && p->bad && p->sum;
    gist_status status = made ? GIST_OK : err_memory(err, "rows on their way");
    for (p->first = 0; p->first < rows && status == GIST_OK; p->first += p->rows) {
        p->rows = rows - p->first < chunk ? rows - p->first : chunk;
        status = convert_chunk(p, err);
        if (status != GIST_OK) break;
        sink(out, p->chunk, p->rows * bytes);
        p->done += p->rows * bytes;
        if (c->progress) c->progress(c->ctx, p->done, c->bytes);
    }
    map_forget(weights_map(c->from, it->src), it->src->data, it->src->bytes);
    if (it->base) map_forget(weights_map(c->base, it->base), it->base->data, it->base->bytes);
    mem_free(c->alloc, p->chunk);
    mem_free(c->alloc, p->scratch);
    mem_free(c->alloc, p->bad);
    mem_free(c->alloc, p->sum);
    return status;
}

static void plan_free(plan *p) {
    mem_free(p->c->alloc, p->item);
    mem_free(p->c->alloc, p->view);
}

/* ---- GGUF ---- */

static void add_int(gguf_writer *w, const char *arch, const char *name, int v) {
    char key[96];
    snprintf(key, sizeof key, "%s.%s", arch, name);
    gguf_add_int(w, key, GGUF_U32, v);
}

static void add_float(gguf_writer *w, const char *arch, const char *name, float v) {
    char key[96];
    snprintf(key, sizeof key, "%s.%s", arch, name);
    gguf_add_float(w, key, v);
}

void llama_add_keys(gguf_writer *w, const llama_config *c) {
    const char *arch = llama_families[c->family].gguf;
    char key[96];
    gguf_add_string(w, "general.architecture", arch, strlen(arch));
    if (c->encoder) {
        t5_add_keys(w, c);
        return;
    }
    add_int(w, arch, "block_count", c->L);
    add_int(w, arch, "context_length", c->context);
    add_int(w, arch, "embedding_length", c->C);
    add_int(w, arch, "feed_forward_length", c->F);
    add_int(w, arch, "vocab_size", c->V);
    add_int(w, arch, "attention.head_count", c->H);
    add_int(w, arch, "attention.head_count_kv", c->G);
    add_int(w, arch, "attention.key_length", c->D);
    add_int(w, arch, "attention.value_length", c->D);
    add_float(w, arch, "attention.layer_norm_rms_epsilon", c->eps);
    if (c->window) add_int(w, arch, "attention.sliding_window", c->window);
    if (c->gist_spread) gguf_add_string(w, "gist.positions", "spread", 6);
    add_int(w, arch, "rope.dimension_count", c->D);
    add_float(w, arch, "rope.freq_base", c->theta);
    if (c->rope.kind == ROPE_LINEAR) {
        snprintf(key, sizeof key, "%s.rope.scaling.type", arch);
        gguf_add_string(w, key, "linear", 6);
        add_float(w, arch, "rope.scaling.factor", c->rope.factor);
    }
}

/* general.file_type: what most of the weights are. */
static void add_type(gguf_writer *w, dtype type) {
    static const int number[DT_COUNT] = { [DT_F32] = 0,  [DT_F16] = 1,   [DT_Q4_0] = 2,  [DT_Q8_0] = 7,
                                          [DT_Q4_K] = 14, [DT_Q5_K] = 16, [DT_Q6_K] = 18, [DT_BF16] = 32 };
    gguf_add_int(w, "general.file_type", GGUF_U32, number[type]);
    if (dt_block(type) > 1) gguf_add_int(w, "general.quantization_version", GGUF_U32, 2);
}

static void sink_gguf(void *out, const void *bytes, size_t len) {
    gguf_write(out, bytes, len);
}

static gist_status next_gguf(void *ctx, size_t i, gguf_writer *w, gist_error *err) {
    return copy_tensor(ctx, i, sink_gguf, w, err);
}

gist_status llama_copy_gguf(llama_copy *c, gguf_writer *w, const char *path, gist_error *err) {
    plan p = { .c = c, .gguf = true };
    gist_status status = plan_all(&p, err);
    if (status == GIST_OK && !(c->keep && c->from->gguf)) add_type(w, c->most);
    for (int i = 0; i < p.n && status == GIST_OK; i++) gguf_add_tensor(w, &p.view[i]);
    if (status == GIST_OK) status = gguf_save(w, path, next_gguf, &p, err);
    plan_free(&p);
    return status;
}

/* ---- safetensors ---- */

static void sink_st(void *out, const void *bytes, size_t len) {
    out_write(out, bytes, len);
}

static gist_status next_st(void *ctx, size_t i, out_file *out, gist_error *err) {
    plan *p = ctx;
    return copy_tensor(p, (size_t)p->first_item + i, sink_st, out, err);
}

/* Items [first,end) as one file. */
static gist_status write_st(plan *p, const char *path, int first, int end, gist_error *err) {
    static const st_meta meta = { "format", "pt" }; /* what transformers looks for */
    p->first_item = first;
    return st_save_from(p->c->alloc, path, p->view + first, (size_t)(end - first), &meta, 1, next_st, p, err);
}

gist_status llama_copy_st(llama_copy *c, const char *path, gist_error *err) {
    plan p = { .c = c };
    gist_status status = plan_all(&p, err);
    if (status == GIST_OK) status = write_st(&p, path, 0, p.n, err);
    plan_free(&p);
    return status;
}

/* Where the shard that begins with item `first` ends. */
static int shard_end(const plan *p, int first, uint64_t most) {
    uint64_t bytes = 0;
    int i = first;
    while (i < p->n && (i == first || most == 0 || bytes + p->view[i].bytes <= most)) bytes += p->view[i++].bytes;
    return i;
}

static gist_status write_shards(plan *p, const char *dir, uint64_t most, int shards, gist_error *err) {
    char name[64];
    json_t *map = json_object();
    gist_status status = map ? GIST_OK : err_memory(err, "index of shards");
    for (int first = 0, n = 1; first < p->n && status == GIST_OK; n++) {
        int end = shard_end(p, first, most), bad = 0;
        snprintf(name, sizeof name, "model-%05d-of-%05d.safetensors", n, shards);
        char *path = path_join(p->c->alloc, dir, name);
        for (int i = first; i < end; i++) bad |= json_object_set_new(map, p->item[i].name, json_string(name));
        status = path && !bad ? write_st(p, path, first, end, err) : err_memory(err, "index of shards");
        mem_free(p->c->alloc, path);
        first = end;
    }
    json_t *index = json_pack("{s:{s:I}, s:O?}", "metadata", "total_size", (json_int_t)p->c->bytes, "weight_map", map);
    if (status == GIST_OK && !index) status = err_memory(err, "index of shards");
    if (status == GIST_OK) status = llama_save_json(index, dir, "model.safetensors.index.json", p->c->alloc, err);
    json_decref(index);
    json_decref(map);
    return status;
}

static gist_status write_single(plan *p, const char *dir, gist_error *err) {
    char *path = path_join(p->c->alloc, dir, "model.safetensors");
    gist_status status = path ? write_st(p, path, 0, p->n, err) : err_memory(err, "path of weights");
    mem_free(p->c->alloc, path);
    return status;
}

gist_status llama_copy_dir(llama_copy *c, const char *dir, uint64_t most, gist_error *err) {
    plan p = { .c = c };
    int shards = 0;
    gist_status status = plan_all(&p, err);
    for (int i = 0; status == GIST_OK && i < p.n; shards++) i = shard_end(&p, i, most);
    if (status == GIST_OK) status = shards > 1 ? write_shards(&p, dir, most, shards, err) : write_single(&p, dir, err);
    plan_free(&p);
    return status;
}
