/* train_model.c - a model being trained: flat f32 masters, gradients and moments; packed copies for the kernels.
 *
 *   w            [count] f32, tensors in the weight table's order, each starting at a multiple of 16 elements
 *   g, m, v      [trained] of those that train, which come first: all of them, or an adapter's before a frozen base
 *   model        panels of W for y = x W^T        (f32, or bf16: rounded copies of the masters)
 *   bwd          panels of W^T for dx = dy W, and where each dW lies in g
 *
 *   step:  forward through all blocks, keeping what their derivatives read  ->  loss over label rows, in chunks
 *          ->  backward through head, blocks, embedding  ->  g
 */
#include "train/train_model_int.h"

#include <assert.h>
#include <math.h>

enum { ALIGN = 16 };

/* ---- tensors: the weight table laid out flat ---- */

train_tensor *train_add_tensor(train_model *tm, int rows, int cols) {
    train_tensor *t = &tm->tensors[tm->tensor_count++];
    t->dims = cols ? 2 : 1;
    t->shape[0] = rows;
    t->shape[1] = cols ? cols : 1;
    t->count = (size_t)t->shape[0] * (size_t)t->shape[1];
    t->size = 1;
    t->at = tm->count;
    tm->count += (t->count + ALIGN - 1) / ALIGN * ALIGN;
    return t;
}

/* T5's scores are q k, not q k / sqrt(D). */
static bool unscaled_query(const char *name) {
    return strstr(name, "SelfAttention.q.weight") || strstr(name, "EncDecAttention.q.weight");
}

static void lay_out_base(train_model *tm, bool frozen) {
    const llama_config *c = &tm->model.cfg;
    int n;
    const weight_row *table = llama_table(c, &n);
    for (int i = 0; i < n; i++) {
        const weight_row *r = &table[i];
        if (!llama_has_row(c, r)) continue;
        for (int layer = 0; layer < llama_row_layers(c, r); layer++) {
            int rows = llama_dim(c, r->shape[0]), cols = r->shape[1] ? llama_dim(c, r->shape[1]) : 0;
            train_tensor *t = train_add_tensor(tm, rows, cols);
            snprintf(t->name, sizeof t->name, r->hf, layer);
            t->decay = r->kind != WEIGHT_VECTOR;
            t->hidden = r->kind == WEIGHT_MATRIX && r->per_layer;
            if (unscaled_query(t->name)) t->size = 1 / sqrtf((float)c->D);
            t->frozen = frozen;
        }
    }
}

static gist_status lay_out(train_model *tm, gist_error *err) {
    const llama_config *c = &tm->model.cfg;
    bool frozen = train_model_frozen(tm);
    int n = train_adapter_tensors(tm) + train_memory_tensors(tm), rows;
    const weight_row *table = llama_table(c, &rows);
    for (int i = 0; i < rows; i++)
        if (llama_has_row(c, &table[i])) n += llama_row_layers(c, &table[i]);
    tm->tensors = mem_calloc(tm->alloc, (size_t)n, sizeof *tm->tensors);
    if (!tm->tensors) return err_memory(err, "tensors");
    train_adapter_lay_out(tm);
    train_memory_lay_out(tm);
    tm->trained_tensors = tm->tensor_count;
    tm->trained = tm->count;
    lay_out_base(tm, frozen);
    if (!frozen) {
        tm->trained_tensors = tm->tensor_count;
        tm->trained = tm->count;
    }
    tm->w = mem_calloc(tm->alloc, tm->count, sizeof *tm->w);
    tm->g = mem_calloc(tm->alloc, tm->trained, sizeof *tm->g);
    tm->m = mem_calloc(tm->alloc, tm->trained, sizeof *tm->m);
    tm->v = mem_calloc(tm->alloc, tm->trained, sizeof *tm->v);
    return tm->w && tm->g && tm->m && tm->v ? GIST_OK : err_memory(err, "weights, gradients and moments");
}

train_tensor *train_find_tensor(const train_model *tm, const char *name) {
    for (int i = 0; i < tm->tensor_count; i++)
        if (strcmp(tm->tensors[i].name, name) == 0) return &tm->tensors[i];
    return NULL;
}

static train_tensor *tensor_of(const train_model *tm, const weight_row *r, int layer) {
    char name[96];
    snprintf(name, sizeof name, r->hf, layer);
    train_tensor *t = train_find_tensor(tm, name);
    int n;
    return t ? t : train_find_tensor(tm, llama_table(&tm->model.cfg, &n)->hf); /* the tied head is the embedding */
}

/* The place of a row's gradient, as llama_row_field. */
static void *gradient_field(train_model *tm, const weight_row *r, int layer) {
    llama_layer_bwd *layers = r->encoder ? tm->bwd.encoder : tm->bwd.layers;
    return (r->per_layer ? (uint8_t *)&layers[layer] : (uint8_t *)&tm->bwd) + r->grad_offset;
}

/* ---- initial values ---- */

static gist_status init_from(train_model *tm, const weights *w, bool gist_row, gist_error *err) {
    for (int i = train_model_frozen(tm) ? tm->trained_tensors : 0; i < tm->tensor_count; i++) {
        train_tensor *t = &tm->tensors[i];
        const tensor_view *from = weights_find(w, t->name);
        char got[64];
        if (!from) return err_set(err, GIST_ERR_FORMAT, "tensor %s is missing", t->name);
        bool vocab = gist_row && t->dims == 2 && t->shape[0] == tm->model.cfg.V;
        int64_t rows = t->shape[0] - vocab;
        if (from->dims != t->dims || from->shape[0] != rows || (t->dims == 2 && from->shape[1] != t->shape[1]))
            return err_set(err, GIST_ERR_FORMAT, "%s is %s, this model needs [%lld,%lld]", t->name,
                           tensor_shape_text(from, got), (long long)rows, (long long)t->shape[1]);
        float *x = tm->w + t->at;
        dt_to_f32(x, from->data, from->type, tensor_count(from));
        for (int64_t c = 0; vocab && c < t->shape[1]; c++) {
            double sum = 0;
            for (int64_t r = 0; r < rows; r++) sum += (double)x[r * t->shape[1] + c];
            x[rows * t->shape[1] + c] = (float)(sum / (double)rows);
        }
    }
    return GIST_OK;
}

/* ---- packed copies ---- */

typedef void (*matrix_fn)(train_model *tm, op_weight *W, llama_matrix_bwd *b, train_tensor *t, int N, int K);

static void each_matrix(train_model *tm, matrix_fn fn) {
    const llama_config *c = &tm->model.cfg;
    int n;
    const weight_row *table = llama_table(c, &n);
    for (int i = 0; i < n; i++) {
        const weight_row *r = &table[i];
        if (r->kind != WEIGHT_MATRIX || !llama_uses_row(c, r)) continue;
        for (int layer = 0; layer < llama_row_layers(c, r); layer++)
            fn(tm, llama_row_field(&tm->model, r, layer), gradient_field(tm, r, layer), tensor_of(tm, r, layer),
               llama_dim(c, r->shape[0]), llama_dim(c, r->shape[1]));
    }
}

static void place_matrix(train_model *tm, op_weight *W, llama_matrix_bwd *b, train_tensor *t, int N, int K) {
    dtype type = tm->opt.type;
    *W = (op_weight){ type, N, K, arena_take(&tm->packed, op_weight_bytes(type, N, K), 1) };
    b->Wt = (op_weight){ type, K, N, arena_take(&tm->packed, op_weight_bytes(type, K, N), 1) };
    b->dW = t->frozen ? NULL : tm->g + t->at;
}

static void pack_matrix(train_model *tm, op_weight *W, llama_matrix_bwd *b, train_tensor *t, int N, int K) {
    (void)N, (void)K;
    op_weight_pack(&tm->ctx, W, tm->w + t->at, DT_F32, W->N);
    op_weight_pack_t(&tm->ctx, &b->Wt, tm->w + t->at);
}

static void repack_matrix(train_model *tm, op_weight *W, llama_matrix_bwd *b, train_tensor *t, int N, int K) {
    if (!t->frozen) pack_matrix(tm, W, b, t, N, K);
}

void train_model_repack(train_model *tm) {
    each_matrix(tm, repack_matrix);
    if (tm->model.cfg.encoder) t5_fill_near(&tm->model);
    train_adapter_repack(tm);
    train_memory_repack(tm);
}

/* Vectors are used as they are: model and gradients point into w and g. */
static void place_vectors(train_model *tm) {
    const llama_config *c = &tm->model.cfg;
    int n;
    const weight_row *table = llama_table(c, &n);
    for (int i = 0; i < n; i++) {
        const weight_row *r = &table[i];
        if (r->kind != WEIGHT_VECTOR || !llama_uses_row(c, r)) continue;
        for (int layer = 0; layer < llama_row_layers(c, r); layer++) {
            train_tensor *t = tensor_of(tm, r, layer);
            *(float **)llama_row_field(&tm->model, r, layer) = tm->w + t->at;
            *(float **)gradient_field(tm, r, layer) = t->frozen ? NULL : tm->g + t->at;
        }
    }
    train_tensor *embed = tensor_of(tm, table, 0);
    tm->model.embed = tm->w + embed->at;
    tm->model.embed_type = DT_F32;
    tm->bwd.embed = embed->frozen ? NULL : tm->g + embed->at;
}

/* Angles of the positions that batches use again and again. */
static gist_status rope_table(train_model *tm, gist_error *err) {
    const llama_config *c = &tm->model.cfg;
    int n = c->context < 4096 ? c->context : 4096;
    if (c->encoder) return GIST_OK; /* positions are biases by distance */
    int32_t *pos = mem_alloc(tm->alloc, (size_t)n, sizeof *pos);
    tm->rope = mem_alloc(tm->alloc, (size_t)n * (size_t)c->D, sizeof *tm->rope);
    for (int i = 0; pos && i < n; i++) pos[i] = i;
    if (pos && tm->rope) op_rope_table(&tm->ctx, tm->rope, pos, tm->model.freq, n, c->D);
    tm->rope_positions = n;
    bool made = pos && tm->rope;
    mem_free(tm->alloc, pos);
    return made ? GIST_OK : err_memory(err, "rotary table");
}

static gist_status make_layers(train_model *tm, gist_error *err) {
    const llama_config *c = &tm->model.cfg;
    size_t L = (size_t)c->L, encoder = (size_t)c->encoder;
    tm->model.layers = mem_calloc(tm->alloc, L, sizeof *tm->model.layers);
    tm->bwd.layers = mem_calloc(tm->alloc, L, sizeof *tm->bwd.layers);
    tm->model.freq = mem_alloc(tm->alloc, (size_t)c->D / 2, sizeof(float));
    if (!tm->model.layers || !tm->bwd.layers || !tm->model.freq) return err_memory(err, "layers");
    llama_frequencies(c, tm->model.freq);
    if (!c->encoder) return GIST_OK;
    tm->model.encoder = mem_calloc(tm->alloc, encoder, sizeof *tm->model.encoder);
    tm->bwd.encoder = mem_calloc(tm->alloc, encoder, sizeof *tm->bwd.encoder);
    return tm->model.encoder && tm->bwd.encoder ? GIST_OK : err_memory(err, "layers");
}

static gist_status place_packed(train_model *tm, gist_error *err) {
    each_matrix(tm, place_matrix);
    if (tm->model.cfg.encoder) t5_take_near(&tm->model, &tm->packed);
    return train_adapter_place(tm, err);
}

static gist_status pack_model(train_model *tm, gist_error *err) {
    TRY(make_layers(tm, err));
    arena_init(&tm->packed, NULL, 0);
    TRY(place_packed(tm, err));
    size_t bytes = tm->packed.peak;
    tm->packed_block = mem_alloc(tm->alloc, bytes, 1);
    if (!tm->packed_block)
        return err_set(err, GIST_ERR_MEMORY, "out of memory: %zu MiB of packed weights", bytes >> 20);
    arena_init(&tm->packed, tm->packed_block, bytes);
    TRY(place_packed(tm, err));
    place_vectors(tm);
    each_matrix(tm, pack_matrix);
    if (tm->model.cfg.encoder) t5_fill_near(&tm->model);
    train_adapter_repack(tm);
    return rope_table(tm, err);
}

/* ---- activations ---- */

void train_take_kept(llama_acts *a, arena *ar, const llama_config *c, size_t rows) {
    size_t C = (size_t)c->C, F = (size_t)c->F, HD = (size_t)c->H * (size_t)c->D, GD = (size_t)c->G * (size_t)c->D;
    bool norms = llama_families[c->family].head_norm; /* what they read is kept, too */
    a->q = arena_take(ar, rows * HD, sizeof(float));
    a->k = arena_take(ar, rows * GD, sizeof(float));
    a->q0 = norms ? arena_take(ar, rows * HD, sizeof(float)) : a->q;
    a->k0 = norms ? arena_take(ar, rows * GD, sizeof(float)) : a->k;
    a->v = arena_take(ar, rows * GD, sizeof(float));
    a->att = arena_take(ar, rows * HD, sizeof(float));
    a->xm = arena_take(ar, rows * C, sizeof(float));
    a->gate = arena_take(ar, rows * F, sizeof(float));
    a->up = arena_take(ar, rows * F, sizeof(float));
    a->stats = arena_take(ar, rows * 2 * (size_t)c->H, sizeof(float));
}

static int most_layers(const llama_config *c) {
    return c->L > c->encoder ? c->L : c->encoder;
}

static void take_acts(train_model *tm, arena *ar) {
    const llama_config *c = &tm->model.cfg;
    size_t rows = (size_t)tm->opt.max_rows, C = (size_t)c->C, R = TRAIN_HEAD_ROWS, V = (size_t)c->V;
    int T = tm->opt.max_rows;
    llama_acts_bwd_take(&tm->s, ar, c, &tm->ctx, tm->opt.type, T, T + tm->opt.memory_rows);
    size_t rows_bytes = R * op_operand_bytes(c->V),
           columns_bytes = op_operand_t_bytes(tm->opt.type, TRAIN_HEAD_ROWS, c->V);
    tm->s.operand_head = arena_take(ar, rows_bytes > columns_bytes ? rows_bytes : columns_bytes, 1);
    llama_acts shared = { .n1 = tm->s.n,
                          .n2 = tm->s.n,
                          .o = tm->s.dn,
                          .down = tm->s.dn,
                          .act = tm->s.act,
                          .operand = tm->s.operand,
                          .scratch = tm->s.scratch };
    shared.cs = arena_take(ar, rows * (size_t)c->D, sizeof(float));
    shared.kept_cs = arena_take(ar, rows * (size_t)c->D, sizeof(float));
    shared.wanted_row = arena_take(ar, rows, sizeof *shared.wanted_row);
    shared.wanted_gist = arena_take(ar, rows, sizeof(int));
    if (tm->opt.lora.rank) llama_lora_take(&shared.lora, ar, c, &tm->opt.lora, T);
    if (tm->opt.recompute) train_take_kept(&shared, ar, c, rows);
    for (int l = 0; l < c->L; l++) {
        tm->acts[l] = shared;
        if (!tm->opt.recompute) train_take_kept(&tm->acts[l], ar, c, rows);
        tm->acts[l].x = arena_take(ar, rows * C, sizeof(float));
        if (l > 0) tm->acts[l - 1].y = tm->acts[l].x;
    }
    if (c->encoder) train_t5_take(tm, ar, &shared);
    tm->last = tm->acts[c->L - 1].y = arena_take(ar, rows * C, sizeof(float));
    tm->dx = arena_take(ar, rows * C, sizeof(float));
    tm->wanted = arena_take(ar, rows, sizeof(int));
    tm->place = arena_take(ar, rows, sizeof(int));
    tm->head_row = arena_take(ar, rows, sizeof(int));
    tm->gist_row = arena_take(ar, rows, sizeof(int));
    tm->loss_row = arena_take(ar, R, sizeof *tm->loss_row);
    tm->xh = arena_take(ar, R * C, sizeof(float));
    tm->nh = arena_take(ar, R * C, sizeof(float));
    tm->dxh = arena_take(ar, R * C, sizeof(float));
    tm->logits = arena_take(ar, R * V, sizeof(float));
    tm->teacher = tm->opt.distill > 0 ? arena_take(ar, R * V, sizeof(float)) : NULL;
    for (int l = 0; l < most_layers(c); l++)
        tm->kv[l * tm->stores] = tm->s.kv[0]; /* one store serves every block in turn */
}

/* Bytes for Muon's update of the largest matrix. */
static size_t muon_scratch(const train_model *tm) {
    size_t most = 0;
    for (int i = 0; tm->opt.muon && i < tm->trained_tensors; i++) {
        const train_tensor *t = &tm->tensors[i];
        size_t n = t->hidden ? op_muon_scratch(tm->opt.type, (int)t->shape[0], (int)t->shape[1]) : 0;
        if (n > most) most = n;
    }
    return (most + 63) / 64 * 64;
}

static gist_status make_acts(train_model *tm, gist_error *err) {
    size_t L = (size_t)tm->model.cfg.L;
    tm->stores = tm->opt.memory_rows ? 2 : 1;
    tm->acts = mem_calloc(tm->alloc, L, sizeof *tm->acts);
    tm->kv = mem_calloc(tm->alloc, (size_t)most_layers(&tm->model.cfg) * (size_t)tm->stores, sizeof *tm->kv);
    if (!tm->acts || !tm->kv) return err_memory(err, "activations");
    if (tm->model.cfg.encoder) {
        tm->encoder = mem_calloc(tm->alloc, (size_t)tm->model.cfg.encoder, sizeof *tm->encoder);
        if (!tm->encoder) return err_memory(err, "activations");
    }
    arena ar;
    arena_init(&ar, NULL, 0);
    take_acts(tm, &ar);
    tm->act_bytes = ar.peak;
    size_t muon = muon_scratch(tm) * (size_t)pool_size(tm->ctx.pool); /* what updates borrow */
    if (muon > tm->act_bytes) tm->act_bytes = muon;
    tm->act_block = mem_alloc(tm->alloc, tm->act_bytes, 1);
    if (!tm->act_block)
        return err_set(err, GIST_ERR_MEMORY,
                       "out of memory: %zu MiB of activations for %d rows (smaller batches or --recompute need less)",
                       tm->act_bytes >> 20, tm->opt.max_rows);
    arena_init(&ar, tm->act_block, tm->act_bytes);
    take_acts(tm, &ar);
    return GIST_OK;
}

/* ---- life ---- */

static gist_status build(train_model *tm, const weights *w, bool gist_row, uint64_t seed, gist_error *err) {
    TRY(train_adapter_check(tm, err));
    TRY(train_memory_check(tm, err));
    TRY(lay_out(tm, err));
    if (w)
        TRY(init_from(tm, w, gist_row, err));
    else
        TRY(train_init(tm, seed, err));
    train_adapter_init(tm, seed);
    TRY(pack_model(tm, err));
    TRY(make_acts(tm, err));
    return train_memory_place(tm, err);
}

gist_status train_model_create(train_model **out, const llama_config *cfg, const weights *w, bool gist_row,
                               uint64_t seed, const train_model_options *opt, op_ctx *ctx, const gist_allocator *alloc,
                               gist_error *err) {
    if (opt->type != DT_F32 && opt->type != DT_BF16)
        return err_set(err, GIST_ERR_USAGE, "training computes in f32 or bf16, not %s", dt_name(opt->type));
    if (opt->max_rows < 1) return err_set(err, GIST_ERR_USAGE, "a batch needs rows");
    train_model *tm = mem_calloc(alloc, 1, sizeof *tm);
    if (!tm) return err_memory(err, "model");
    tm->alloc = alloc;
    tm->ctx = *ctx;
    tm->opt = *opt;
    tm->model.alloc = alloc;
    tm->model.cfg = *cfg;
    tm->model.cfg.V += gist_row;
    tm->model.vocab = tm->model.cfg.V;
    gist_status status = build(tm, w, gist_row, seed, err);
    if (status == GIST_OK)
        *out = tm;
    else
        train_model_free(tm);
    return status;
}

void train_model_free(train_model *tm) {
    if (!tm) return;
    train_adapter_free(tm);
    train_memory_free(tm);
    mem_free(tm->alloc, tm->tensors);
    mem_free(tm->alloc, tm->w);
    mem_free(tm->alloc, tm->g);
    mem_free(tm->alloc, tm->m);
    mem_free(tm->alloc, tm->v);
    mem_free(tm->alloc, tm->model.layers);
    mem_free(tm->alloc, tm->model.encoder);
    mem_free(tm->alloc, tm->bwd.encoder);
    mem_free(tm->alloc, tm->encoder);
    mem_free(tm->alloc, tm->model.freq);
    mem_free(tm->alloc, tm->rope);
    mem_free(tm->alloc, tm->bwd.layers);
    mem_free(tm->alloc, tm->packed_block);
    mem_free(tm->alloc, tm->acts);
    mem_free(tm->alloc, tm->kv);
    mem_free(tm->alloc, tm->act_block);
    mem_free(tm->alloc, tm);
}

/* ---- the optimiser ---- */

void train_model_zero_grad(train_model *tm) {
    memset(tm->g, 0, tm->trained * sizeof *tm->g);
}

double train_model_grad_norm(const train_model *tm) {
    op_ctx ctx = tm->ctx;
    double sum = 0;
    for (int i = 0; i < tm->trained_tensors; i++)
        sum += op_sum_squares(&ctx, tm->g + tm->tensors[i].at, tm->tensors[i].count);
    return sqrt(sum);
}

/* Matrices are tasks, each on one thread: what they are made of is too small to share.  Scratch is taken from the
 * activations, which an update needs no more. */
typedef struct muon_job {
    train_model *tm;
    const op_muon_step *step;
} muon_job;

static void muon_task(void *arg, int task, int worker) {
    const muon_job *j = arg;
    train_model *tm = j->tm;
    const train_tensor *x = &tm->tensors[task];
    op_ctx alone = { tm->ctx.k, NULL };
    op_muon_step step = *j->step;
    step.lr *= x->size;
    if (x->hidden)
        op_muon_update(&alone, tm->w + x->at, tm->m + x->at, tm->g + x->at, (int)x->shape[0], (int)x->shape[1],
                       tm->opt.type, &step, (uint8_t *)tm->act_block + (size_t)worker * muon_scratch(tm));
}

void train_model_update(train_model *tm, const optimiser *o, int64_t t) {
    float scale = 1;
    if (o->clip > 0) { /* PyTorch's clip_grad_norm_ */
        double norm = train_model_grad_norm(tm);
        if (norm + 1e-6 > (double)o->clip) scale = (float)((double)o->clip / (norm + 1e-6));
    }
    for (int i = 0; i < tm->trained_tensors; i++) {
        const train_tensor *x = &tm->tensors[i];
        op_adamw_step s = { o->lr, o->beta1, o->beta2, o->eps, x->decay ? o->decay : 0, scale, t };
        if (!(o->muon > 0 && x->hidden))
            op_adamw_update(&tm->ctx, tm->w + x->at, tm->m + x->at, tm->v + x->at, tm->g + x->at, x->count, &s);
    }
    muon_job j = { tm, &(op_muon_step){ o->lr, o->muon, o->decay, scale } };
    assert(o->muon <= 0 || tm->opt.muon);
    if (o->muon > 0) pool_run(tm->ctx.pool, muon_task, &j, tm->trained_tensors);
    train_model_repack(tm);
}

/* ---- access ---- */

int train_model_tensors(const train_model *tm) {
    return tm->tensor_count;
}
const train_tensor *train_model_tensor(const train_model *tm, int i) {
    return &tm->tensors[i];
}
bool train_model_frozen(const train_model *tm) {
    return train_has_adapter(tm) || tm->opt.memory_rows > 0;
}
int train_model_trained(const train_model *tm) {
    return tm->trained_tensors;
}
size_t train_model_count(const train_model *tm) {
    return tm->trained;
}
float *train_model_w(train_model *tm) {
    return tm->w;
}
float *train_model_g(train_model *tm) {
    return tm->g;
}
float *train_model_m(train_model *tm) {
    return tm->m;
}
float *train_model_v(train_model *tm) {
    return tm->v;
}
const llama_model *train_model_llama(const train_model *tm) {
    return &tm->model;
}
size_t train_model_bytes(const train_model *tm) {
    return (tm->count + 3 * tm->trained) * sizeof(float) + tm->packed.size + tm->act_bytes;
}
