/* train_memory.c - k rows of keys and values in every layer that train while the model is frozen: prefix-tuning (Li and
 * Liang 2021) of what attention reads, which is what a .gist file holds.
 *
 *      w            memory.0.key [k,G*D]  memory.0.value  memory.1.key ...      masters, f32; keys already rotated
 *      store 1      the same rounded to the KV type: the forward pass reads what inference will read
 *      g            gradients of the rounded rows, taken for the masters' (straight-through)
 *
 * They are tensors like any other, so optimiser and clipping need to know nothing of them.
 */
#include "train/train_model_int.h"

int train_memory_tensors(const train_model *tm) {
    return tm->opt.memory_rows ? 2 * tm->model.cfg.L : 0;
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
    for (int i = 0; i < train_memory_tensors(tm); i++) {
        train_tensor *t = train_add_tensor(tm, tm->opt.memory_rows, width(tm));
        snprintf(t->name, sizeof t->name, "memory.%d.%s", i / 2, kinds[i % 2]);
    }
}

float *train_memory_keys(train_model *tm, int layer) {
    return tm->w + tm->tensors[2 * layer].at;
}

float *train_memory_values(train_model *tm, int layer) {
    return tm->w + tm->tensors[2 * layer + 1].at;
}

gist_status train_memory_place(train_model *tm, gist_error *err) {
    int L = tm->model.cfg.L, cap = op_kv_round(tm->opt.memory_rows);
    size_t one = (size_t)cap * (size_t)width(tm);
    if (!train_memory_tensors(tm)) return GIST_OK;
    tm->memory_swapped = mem_calloc(tm->alloc, (size_t)L, sizeof *tm->memory_swapped);
    float *at = tm->memory_block =
        mem_calloc(tm->alloc, 4 * (size_t)L + 1, one * sizeof *at); /* and a row of scratch */
    if (!tm->memory_swapped || !at) return err_memory(err, "memory rows");
    for (int l = 0; l < L; l++, at += 4 * one) {
        tm->kv[l * tm->stores + 1] = (op_kv){ DT_F32, cap, at, at + one };
        tm->memory_swapped[l] = (op_kv){ DT_F32, cap, at + 2 * one, at + 3 * one };
    }
    train_memory_repack(tm);
    return GIST_OK;
}

/* Round n values to the KV type; they stay f32. */
static void rounded(float *out, const float *x, dtype type, size_t n) {
    uint16_t narrow[64];
    for (size_t i = 0; i < n; i += 64) {
        size_t part = n - i < 64 ? n - i : 64;
        if (type == DT_F32) {
            memcpy(out + i, x + i, part * sizeof *out);
        } else {
            dt_from_f32(narrow, type, x + i, part);
            dt_to_f32(out + i, narrow, type, part);
        }
    }
}

void train_memory_repack(train_model *tm) {
    const llama_config *c = &tm->model.cfg;
    size_t n = (size_t)width(tm), one = (size_t)op_kv_round(tm->opt.memory_rows) * n;
    for (int l = 0; l < (train_memory_tensors(tm) ? c->L : 0); l++)
        for (int i = 0; i < tm->opt.memory_rows; i++) {
            float *k = (float *)tm->memory_block + 4 * (size_t)c->L * one,
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

void train_memory_free(train_model *tm) {
    mem_free(tm->alloc, tm->memory_swapped);
    mem_free(tm->alloc, tm->memory_block);
}
