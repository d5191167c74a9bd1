/* train_memory.c - k rows of keys and values in every layer that train while the model is frozen: prefix-tuning (Li and
 * Liang 2021) of what attention reads, which is what a .gist file holds.
 *
 *      w            memory.0.key [k,G*D]  memory.0.value  memory.1.key ...      masters, f32; keys already rotated
 *      store 1      the same rounded to the KV type: the forward pass reads what inference will read
 *      g            gradients of the rounded rows, taken for the masters' (straight-through)
 *
 * T5's are of the encoder's layers; beside them stands the encoder's output at the rows, memory.output [k,C], of which
 * every layer of the decoder makes keys and values.
 *
 * They are tensors like any other, so optimiser and clipping need to know nothing of them.
 */
#include "train/train_model_int.h"

/* Layers with rows of keys and values. */
static int layers(const train_model *tm) {
    const llama_config *c = &tm->model.cfg;
    return !tm->opt.memory_rows ? 0 : c->encoder ? c->encoder : c->L;
}

static bool has_output(const train_model *tm) {
    return tm->opt.memory_rows && tm->model.cfg.encoder;
}

int train_memory_tensors(const train_model *tm) {
    return 2 * layers(tm) + has_output(tm);
}

gist_status train_memory_check(const train_model *tm, gist_error *err) {
    int k = tm->opt.memory_rows;
    if (k == 0) return GIST_OK;
    if (k < 0 || k > GFILE_MAX_K)
        return err_set(err, GIST_ERR_USAGE, "a memory of %d rows, 1 to %d are allowed", k, GFILE_MAX_K);
    if (train_has_adapter(tm)) return err_set(err, GIST_ERR_USAGE, "a memory trains alone, without an adapter");
    return GIST_OK;
}

static int width(const train_model *tm) {
    return tm->model.cfg.G * tm->model.cfg.D;
}

void train_memory_lay_out(train_model *tm) {
    static const char *const kinds[] = { "key", "value" };
    for (int i = 0; i < 2 * layers(tm); i++) {
        train_tensor *t = train_add_tensor(tm, tm->opt.memory_rows, width(tm));
        snprintf(t->name, sizeof t->name, "memory.%d.%s", i / 2, kinds[i % 2]);
    }
    if (!has_output(tm)) return;
    train_tensor *t = train_add_tensor(tm, tm->opt.memory_rows, tm->model.cfg.C);
    snprintf(t->name, sizeof t->name, "memory.output");
}

float *train_memory_keys(train_model *tm, int layer) {
    return tm->w + tm->tensors[2 * layer].at;
}

float *train_memory_values(train_model *tm, int layer) {
    return tm->w + tm->tensors[2 * layer + 1].at;
}

float *train_memory_output(train_model *tm) {
    return has_output(tm) ? tm->w + tm->tensors[2 * layers(tm)].at : NULL;
}

/* Stores for the decoder's keys and values of the output rows, and room for those and their gradients. */
static gist_status place_cross(train_model *tm, float *at, size_t one, int cap, gist_error *err) {
    tm->cross[1] = tm->s.cross[1] = (op_kv){ DT_F32, cap, at, at + one };
    tm->s.cross_swapped[1] = (op_kv){ DT_F32, cap, at + 2 * one, at + 3 * one };
    size_t rows = (size_t)tm->opt.memory_rows * (size_t)width(tm);
    tm->memory_cross = mem_calloc(tm->alloc, 4 * rows, sizeof(float));
    if (!tm->memory_cross) return err_memory(err, "memory rows");
    tm->s.cross_memory = (op_kv_grad){ tm->memory_cross + 2 * rows, tm->memory_cross + 3 * rows };
    return GIST_OK;
}

gist_status train_memory_place(train_model *tm, gist_error *err) {
    int L = layers(tm), cap = op_kv_round(tm->opt.memory_rows);
    size_t one = (size_t)cap * (size_t)width(tm);
    if (!train_memory_tensors(tm)) return GIST_OK;
    tm->memory_swapped = mem_calloc(tm->alloc, (size_t)L, sizeof *tm->memory_swapped);
    float *at = tm->memory_block =
        mem_calloc(tm->alloc, 4 * (size_t)L + 5, one * sizeof *at); /* and a row of scratch, and cross-attention's */
    if (!tm->memory_swapped || !at) return err_memory(err, "memory rows");
    for (int l = 0; l < L; l++, at += 4 * one) {
        tm->kv[l * tm->stores + 1] = (op_kv){ DT_F32, cap, at, at + one };
        tm->memory_swapped[l] = (op_kv){ DT_F32, cap, at + 2 * one, at + 3 * one };
    }
    if (has_output(tm)) TRY(place_cross(tm, at + one, one, cap, err));
    train_memory_repack(tm);
    return GIST_OK;
}

/* Round n values to the KV type; they stay f32.  out may be x. */
static void rounded(float *out, const float *x, dtype type, size_t n) {
    uint16_t narrow[64];
    for (size_t i = 0; i < n; i += 64) {
        size_t part = n - i < 64 ? n - i : 64;
        if (type == DT_F32) {
            if (out != x) memcpy(out + i, x + i, part * sizeof *out);
        } else {
            dt_from_f32(narrow, type, x + i, part);
            dt_to_f32(out + i, narrow, type, part);
        }
    }
}

void train_memory_repack(train_model *tm) {
    const llama_config *c = &tm->model.cfg;
    size_t n = (size_t)width(tm), one = (size_t)op_kv_round(tm->opt.memory_rows) * n;
    for (int l = 0; l < layers(tm); l++)
        for (int i = 0; i < tm->opt.memory_rows; i++) {
            float *k = (float *)tm->memory_block + 4 * (size_t)layers(tm) * one,
                  *v = k + n; /* a store has room for two rows */
            rounded(k, train_memory_keys(tm, l) + (size_t)i * n, tm->opt.memory_type, n);
            rounded(v, train_memory_values(tm, l) + (size_t)i * n, tm->opt.memory_type, n);
            op_kv_set(&tm->kv[l * tm->stores + 1], i, k, v, c->G, c->D);
            op_kv_set(&tm->memory_swapped[l], i, v, k, c->G, c->D);
        }
}

void train_memory_select(train_model *tm, int layer) {
    if (!train_memory_tensors(tm)) return;
    tm->s.kv[1] = tm->kv[layer * tm->stores + 1];
    tm->s.swapped[1] = tm->memory_swapped[layer];
    tm->s.memory = (op_kv_grad){ tm->g + tm->tensors[2 * layer].at, tm->g + tm->tensors[2 * layer + 1].at };
}

void train_memory_cross(train_model *tm, int layer) {
    if (!has_output(tm)) return;
    const llama_config *c = &tm->model.cfg;
    int k = tm->opt.memory_rows;
    size_t n = (size_t)width(tm), rows = (size_t)k * n;
    float *keys = tm->memory_cross, *values = keys + rows;
    op_input e = { .x = train_memory_output(tm), .buf = tm->acts[layer].operand, .T = k };
    t5_cross_rows(&tm->ctx, keys, values, &e, &tm->model.layers[layer], &tm->acts[layer]);
    rounded(keys, keys, tm->opt.memory_type, 2 * rows);
    for (int i = 0; i < k; i++) {
        op_kv_set(&tm->cross[1], i, keys + (size_t)i * n, values + (size_t)i * n, c->G, c->D);
        op_kv_set(&tm->s.cross_swapped[1], i, values + (size_t)i * n, keys + (size_t)i * n, c->G, c->D);
    }
    memset(tm->s.cross_memory.dk, 0, 2 * rows * sizeof(float));
}

void train_memory_cross_bwd(train_model *tm, int layer) {
    if (!has_output(tm)) return;
    const llama_layer_bwd *d = &tm->bwd.layers[layer];
    float *dx = tm->g + tm->tensors[2 * layers(tm)].at;
    llama_matrix_grad(&tm->ctx, dx, true, &d->ck, &tm->s, tm->s.cross_memory.dk, tm->opt.memory_rows);
    llama_matrix_grad(&tm->ctx, dx, true, &d->cv, &tm->s, tm->s.cross_memory.dv, tm->opt.memory_rows);
}

void train_memory_free(train_model *tm) {
    mem_free(tm->alloc, tm->memory_cross);
    mem_free(tm->alloc, tm->memory_swapped);
    mem_free(tm->alloc, tm->memory_block);
}
