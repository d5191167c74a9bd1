/* train_adapter.c - training beside a frozen base: LoRA's A and B (Hu et al. 2021) and the embedding of <GIST>.
 *
 *      w   | A B of layer 0 | A B of layer 1 | ... | <GIST> | the base's tensors, frozen ...... |
 *      g   |                                       |
 *
 * They are tensors like any other, named as PEFT names them, so the optimiser, clipping and checkpoints need to know
 * nothing of them.  <GIST>'s embedding is a tensor of its own, used in place of its row in the table: the table, and a
 * head tied to it, stay the base's bit for bit.
 */
#include "train/train_model_int.h"

#include <math.h>

bool train_has_adapter(const train_model *tm) {
    return tm->opt.lora.rank > 0 || tm->opt.only_gist;
}

gist_status train_adapter_check(const train_model *tm, gist_error *err) {
    const train_model_options *o = &tm->opt;
    if (!train_has_adapter(tm)) return GIST_OK;
    TRY(llama_lora_check(&o->lora, &tm->model.cfg, err));
    if (o->only_gist && o->lora.rank > 0 && !o->lora.gist_only)
        return err_set(err, GIST_ERR_USAGE, "to train the gist tokens only, LoRA must act at gist positions only");
    if (o->gist_token < 0 || o->gist_token >= tm->model.cfg.V)
        return err_set(err, GIST_ERR_USAGE, "an adapter trains the embedding of <GIST>: %d is no row of %d",
                       o->gist_token, tm->model.cfg.V);
    return GIST_OK;
}

const llama_lora_config *train_model_lora(const train_model *tm) {
    return train_has_adapter(tm) ? &tm->opt.lora : NULL;
}

int32_t train_model_gist_token(const train_model *tm) {
    return tm->opt.gist_token;
}

/* ---- every adapted matrix, in the order of its tensors ---- */

typedef struct lora_part {
    train_tensor *A, *B;
    int block, part, N, K;
} lora_part;

/* The first part from (block, part) on that is adapted. */
static bool find_part(const train_model *tm, lora_part *p) {
    const llama_config *c = &tm->model.cfg;
    for (; p->block < llama_lora_blocks(c, tm->opt.lora.gist_only); p->block++, p->part = 0)
        for (; p->part < LLAMA_LORA_PARTS; p->part++) {
            int layer;
            const weight_row *r = llama_lora_row(c, p->block, p->part, &layer);
            if (!r || !llama_lora_adapts(&tm->opt.lora, p->part)) continue;
            p->N = llama_dim(c, r->shape[0]);
            p->K = llama_dim(c, r->shape[1]);
            return true;
        }
    return false;
}

/* Matrix i of them, after matrix i - 1; false: there are no more. */
static bool part_at(const train_model *tm, int i, lora_part *p) {
    if (i == 0)
        *p = (lora_part){ .block = 0 };
    else
        p->part++;
    if (!find_part(tm, p)) return false;
    if (tm->tensors) { /* laid out or being so */
        p->A = &tm->tensors[2 * i];
        p->B = &tm->tensors[2 * i + 1];
    }
    return true;
}

int train_adapter_tensors(const train_model *tm) {
    lora_part p;
    int n = 0;
    while (part_at(tm, n, &p)) n++;
    return train_has_adapter(tm) ? 2 * n + 1 : 0;
}

static train_tensor *gist_tensor(const train_model *tm) {
    return &tm->tensors[train_adapter_tensors(tm) - 1];
}

void train_adapter_lay_out(train_model *tm) {
    lora_part p;
    for (int i = 0; part_at(tm, i, &p); i++) {
        train_tensor *a = train_add_tensor(tm, tm->opt.lora.rank, p.K),
                     *b = train_add_tensor(tm, p.N, tm->opt.lora.rank);
        a->decay = b->decay = true;
        llama_lora_name(a->name, &tm->model.cfg, p.block, p.part, 'A');
        llama_lora_name(b->name, &tm->model.cfg, p.block, p.part, 'B');
    }
    if (train_has_adapter(tm))
        snprintf(train_add_tensor(tm, 1, tm->model.cfg.C)->name, sizeof p.A->name, "%s",
                 llama_lora_embed(&tm->model.cfg));
}

static const float *table_row(const train_model *tm) {
    int n;
    const train_tensor *table = train_find_tensor(tm, llama_table(&tm->model.cfg, &n)->hf);
    return tm->w + table->at + (size_t)tm->opt.gist_token * (size_t)tm->model.cfg.C;
}

void train_adapter_init(train_model *tm, uint64_t seed) {
    lora_part p;
    for (int i = 0; part_at(tm, i, &p); i++) {
        double bound = 1 / sqrt((double)p.K);
        rng r;
        rng_seed(&r, seed + 0xbf58476d1ce4e5b9u * (uint64_t)(i + 1));
        for (size_t j = 0; j < p.A->count; j++) tm->w[p.A->at + j] = (float)(bound * (2 * rng_unit(&r) - 1));
    }
    if (train_has_adapter(tm))
        memcpy(tm->w + gist_tensor(tm)->at, table_row(tm), (size_t)tm->model.cfg.C * sizeof(float));
}

/* ---- the model's view of them ---- */

static void place(train_model *tm, op_weight *W, llama_matrix_bwd *b, const train_tensor *t) {
    int N = (int)t->shape[0], K = (int)t->shape[1];
    dtype type = tm->opt.type;
    *W = (op_weight){ type, N, K, arena_take(&tm->packed, op_weight_bytes(type, N, K), 1) };
    b->Wt = (op_weight){ type, K, N, arena_take(&tm->packed, op_weight_bytes(type, K, N), 1) };
    b->dW = tm->g + t->at;
}

gist_status train_adapter_place(train_model *tm, gist_error *err) {
    size_t blocks = (size_t)llama_lora_blocks(&tm->model.cfg, false), encoder = (size_t)tm->model.cfg.encoder;
    lora_part p;
    if (!train_has_adapter(tm)) return GIST_OK;
    if (!tm->adapter.layers) tm->adapter.layers = mem_calloc(tm->alloc, blocks, sizeof *tm->adapter.layers);
    if (!tm->lora_bwd) tm->lora_bwd = mem_calloc(tm->alloc, blocks, sizeof *tm->lora_bwd);
    if (!tm->adapter.layers || !tm->lora_bwd) return err_memory(err, "adapter");
    for (int i = 0; part_at(tm, i, &p); i++) {
        llama_lora *l = llama_lora_of(&tm->adapter.layers[p.block], p.part);
        llama_lora_bwd *d = llama_lora_bwd_of(&tm->lora_bwd[p.block], p.part);
        l->scale = tm->opt.lora.alpha / (float)tm->opt.lora.rank;
        l->gist_only = tm->opt.lora.gist_only;
        place(tm, &l->A, &d->A, p.A);
        place(tm, &l->B, &d->B, p.B);
    }
    tm->adapter.cfg = tm->opt.lora;
    tm->adapter.gist_token = tm->opt.gist_token;
    tm->adapter.gist_embed = tm->w + gist_tensor(tm)->at;
    tm->bwd.gist_embed = tm->g + gist_tensor(tm)->at;
    for (size_t l = 0; l < blocks; l++)
        *(l < encoder ? &tm->bwd.encoder[l].lora : &tm->bwd.layers[l - encoder].lora) = &tm->lora_bwd[l];
    llama_adapter_attach(&tm->model, &tm->adapter);
    return GIST_OK;
}

static void repack(train_model *tm, op_weight *W, llama_matrix_bwd *b, const train_tensor *t) {
    op_weight_pack(&tm->ctx, W, tm->w + t->at, DT_F32, W->N);
    op_weight_pack_t(&tm->ctx, &b->Wt, tm->w + t->at);
}

void train_adapter_repack(train_model *tm) {
    lora_part p;
    for (int i = 0; part_at(tm, i, &p); i++) {
        llama_lora *l = llama_lora_of(&tm->adapter.layers[p.block], p.part);
        llama_lora_bwd *d = llama_lora_bwd_of(&tm->lora_bwd[p.block], p.part);
        repack(tm, &l->A, &d->A, p.A);
        repack(tm, &l->B, &d->B, p.B);
    }
}

void train_adapter_free(train_model *tm) {
    mem_free(tm->alloc, tm->adapter.layers);
    mem_free(tm->alloc, tm->lora_bwd);
}

/* ---- merging ---- */

/* W [N,K] += s B A, by the kernel: rows s B [N,r], weight A^T [K,r].  scratch holds both. */
static void merge_part(train_model *tm, float *W, const lora_part *p, float *scratch) {
    int r = tm->opt.lora.rank;
    op_weight At = { DT_F32, p->K, r, scratch };
    float *B = scratch + op_weight_bytes(DT_F32, p->K, r) / sizeof *B;
    op_weight_pack_t(&tm->ctx, &At, tm->w + p->A->at);
    memcpy(B, tm->w + p->B->at, p->B->count * sizeof *B);
    op_scale(&tm->ctx, B, tm->opt.lora.alpha / (float)r, p->N, r);
    op_linear_add(&tm->ctx, W, B, &At, p->N);
}

gist_status train_model_merge(train_model *tm, train_merged *out, gist_error *err) {
    size_t most = 0;
    lora_part p;
    if (tm->opt.lora.gist_only || tm->opt.only_gist)
        return err_set(err, GIST_ERR_USAGE,
                       "an adapter that acts at gist positions only cannot be merged into the weights");
    for (int i = 0; part_at(tm, i, &p); i++) {
        size_t n = op_weight_bytes(DT_F32, p.K, tm->opt.lora.rank) / sizeof(float) + p.B->count;
        most = n > most ? n : most;
    }
    float *w = mem_alloc(tm->alloc, tm->count, sizeof *w), *scratch = mem_alloc(tm->alloc, most, sizeof *scratch);
    if (!w || !scratch) {
        mem_free(tm->alloc, w);
        mem_free(tm->alloc, scratch);
        return err_memory(err, "merged weights");
    }
    memcpy(w, tm->w, tm->count * sizeof *w);
    for (int i = 0; part_at(tm, i, &p); i++) {
        char name[128];
        int layer;
        const weight_row *r = llama_lora_row(&tm->model.cfg, p.block, p.part, &layer);
        llama_row_name(name, r, layer, false);
        merge_part(tm, w + train_find_tensor(tm, name)->at, &p, scratch);
    }
    if (train_has_adapter(tm))
        memcpy(w + (table_row(tm) - tm->w), tm->adapter.gist_embed, (size_t)tm->model.cfg.C * sizeof *w);
    mem_free(tm->alloc, scratch);
    *out = (train_merged){ tm, w };
    return GIST_OK;
}

const float *train_merged_values(void *merged, const char *name) {
    const train_merged *m = merged;
    const train_tensor *t = train_find_tensor(m->tm, name);
    return t ? m->w + t->at : NULL;
}

void train_merged_free(train_merged *merged) {
    if (merged->w) mem_free(merged->tm->alloc, merged->w);
    merged->w = NULL;
}
