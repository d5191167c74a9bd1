/* bench_run.c - one timeline over a model's forward pass: rows, KV cache and activations of its own. */
#include "bench_run.h"
#include "eval/eval.h"

static void take_acts(bench_run *r, arena *ar) {
    llama_acts_take(&r->acts, ar, &r->m->cfg, &r->ctx, r->rows, r->cap);
    r->row = arena_take(ar, (size_t)r->rows, sizeof *r->row);
    r->cross = arena_take(ar, (size_t)r->rows, sizeof *r->cross);
    r->pos = arena_take(ar, (size_t)r->rows, sizeof *r->pos);
    r->ids = arena_take(ar, (size_t)r->cap, sizeof *r->ids);
    r->logits = arena_take(ar, (size_t)r->m->vocab, sizeof *r->logits);
}

gist_status bench_run_open(bench_run *r, const llama_model *m, op_ctx ctx, dtype kv, int tokens, int rows,
                           gist_error *err) {
    const llama_config *c = &m->cfg;
    *r = (bench_run){ .m = m, .ctx = ctx, .cap = op_kv_round(tokens), .rows = rows };
    if (!op_kv_fits(kv, c->D))
        return err_set(err, GIST_ERR_UNSUPPORTED,
                       "keys and values in %s need heads as wide as a multiple of 32; these are %d wide", dt_name(kv),
                       c->D);
    size_t one = dt_bytes(kv, (size_t)c->G * (size_t)c->D * (size_t)r->cap);
    size_t stores = (size_t)(c->encoder ? 2 * c->L + c->encoder : c->L);
    arena dry, ar;
    rng random;
    arena_init(&dry, NULL, 0);
    take_acts(r, &dry);
    r->kv_bytes = 2 * stores * one;
    r->act_bytes = dry.peak;
    r->kv = mem_calloc(NULL, stores, sizeof *r->kv);
    r->kv_block = mem_calloc(NULL, r->kv_bytes, 1);
    r->act_block = mem_calloc(NULL, r->act_bytes, 1);
    if (!r->kv || !r->kv_block || !r->act_block) {
        bench_run_close(r);
        return err_memory(err, "KV cache and activations");
    }
    for (size_t l = 0; l < stores; l++) {
        uint8_t *p = (uint8_t *)r->kv_block + 2 * l * one;
        r->kv[l] = (op_kv){ kv, r->cap, p, p + one };
    }
    arena_init(&ar, r->act_block, r->act_bytes);
    take_acts(r, &ar);
    rng_seed(&random, 1);
    for (int i = 0; i < r->cap; i++) r->ids[i] = (int32_t)rng_below(&random, (uint64_t)m->vocab);
    return GIST_OK;
}

void bench_run_close(bench_run *r) {
    mem_free(NULL, r->kv);
    mem_free(NULL, r->kv_block);
    mem_free(NULL, r->act_block);
    *r = (bench_run){ 0 };
}

/* A source of n tokens, and what the decoder sees of it. */
static void encode(bench_run *r, int n) {
    const llama_config *c = &r->m->cfg;
    for (int i = 0; i < n; i++) {
        r->pos[i] = i;
        r->row[i] = (op_row){ .pos = i, .slot = i, .mem = -1, .hi = n };
    }
    llama_batch b = { .T = n, .ids = r->ids, .pos = r->pos, .rows = r->row, .kv = r->kv + c->L, .stores = 1 };
    t5_encode(r->m, &r->ctx, &r->acts, &b);
    t5_cross_keys(r->m, &r->ctx, &r->acts, r->acts.x, r->row, r->kv + c->L + c->encoder, 1, n);
    r->length = r->source = n;
}

double bench_run_feed(bench_run *r, int n) {
    const llama_config *c = &r->m->cfg;
    double start = time_now();
    if (c->encoder && r->length == 0) {
        encode(r, n);
        return time_now() - start;
    }
    for (int end = r->length + n, rows; r->length < end; r->length += rows) {
        rows = end - r->length < r->rows ? end - r->length : r->rows;
        for (int i = 0; i < rows; i++) {
            int slot = r->length - r->source + i;
            r->cross[i] = (op_row){ .mem = -1, .hi = r->source };
            r->pos[i] = slot;
            r->row[i] = (op_row){ .pos = slot, .kv = 0, .slot = slot, .mem = -1, .lo = 0, .hi = slot + 1 };
        }
        int last = rows - 1;
        bool end_here = r->length + rows == end;
        llama_batch b = { .T = rows,
                          .ids = r->ids + r->length,
                          .pos = r->pos,
                          .rows = r->row,
                          .kv = r->kv,
                          .stores = 1,
                          .cross = r->cross,
                          .cross_kv = r->kv + c->L + c->encoder,
                          .wanted = &last,
                          .n_wanted = end_here };
        llama_forward(r->m, &r->ctx, &r->acts, &b);
        if (end_here) llama_logits(r->m, &r->ctx, &r->acts, 1, r->logits);
    }
    return time_now() - start;
}

/* Outputs times inputs of a layer's matrices. */
static double layer_products(const llama_config *c) {
    double C = c->C, F = c->F, q = (double)c->H * c->D, k = (double)c->G * c->D;
    return C * q + 2 * C * k + q * C + (c->gated ? 3 : 2) * C * F;
}

/* A source of n rows: every row sees all, then becomes keys and values for the decoder. */
static double source_flops(const llama_config *c, double n) {
    double row = layer_products(c), keys = 2.0 * c->C * c->G * c->D;
    return 2 * (c->encoder * (n * row + 2 * n * n * c->H * c->D) + n * c->L * keys);
}

double bench_flops(const llama_config *c, int length, int n) {
    if (!c->encoder) return eval_flops_done(c, n, length);
    if (length == 0) return source_flops(c, n);
    double keys = (double)n * length + 0.5 * n * (n + 1.0); /* seen by n rows */
    double attention = 2 * keys * c->H * c->D;              /* scores and values */
    double cross = 2.0 * c->C * c->H * c->D;                /* queries and outputs of cross-attention */
    return 2 * (c->L * (n * (layer_products(c) + cross) + attention) + (double)c->V * c->C);
}

static double weight_bytes(const op_weight *w) {
    return w->N ? (double)op_weight_bytes(w->type, w->N, w->K) : 0;
}

double bench_weight_bytes(const llama_model *m, bool first) {
    bool encoder = first && m->cfg.encoder;
    double bytes = encoder ? 0 : weight_bytes(&m->head);
    for (int l = 0; l < (encoder ? m->cfg.encoder : m->cfg.L); l++) {
        const llama_layer *w = encoder ? &m->encoder[l] : &m->layers[l];
        const op_weight *const all[] = { &w->wq, &w->wk, &w->wv, &w->wo, &w->gate, &w->up, &w->down, &w->cq, &w->co };
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) bytes += weight_bytes(all[i]);
    }
    for (int l = 0; encoder && l < m->cfg.L; l++)
        bytes += weight_bytes(&m->layers[l].ck) + weight_bytes(&m->layers[l].cv);
    return bytes;
}

double bench_kv_bytes(const llama_config *c, dtype kv, int length) {
    return 2.0 * c->L * (double)dt_bytes(kv, (size_t)c->G * (size_t)c->D * (size_t)length);
}

gist_status bench_shape(const char *s, int context, llama_config *out, gist_error *err) {
    llama_config c = { .context = context, .eps = 1e-5f, .theta = 10000.0f };
    char end;
    if (strcmp(s, "tinyllama-1.1b") == 0) s = "22,2048,5632,32,4,32000";
    if (strcmp(s, "llama-7b") == 0) s = "32,4096,11008,32,32,32000";
    if (strcmp(s, "flan-t5-xxl") == 0) {
        *out = (llama_config){ .family = FAMILY_T5,
                               .encoder = 24,
                               .L = 24,
                               .C = 4096,
                               .F = 10240,
                               .H = 64,
                               .G = 64,
                               .D = 64,
                               .V = 32128,
                               .context = context,
                               .eps = 1e-6f,
                               .near = { 32, 128, true },
                               .gated = true };
        return GIST_OK;
    }
    if (sscanf(s, "%7d,%7d,%7d,%7d,%7d,%7d%c", &c.L, &c.C, &c.F, &c.H, &c.G, &c.V, &end) != 6 || c.H < 1 || c.C % c.H)
        return err_set(err, GIST_ERR_USAGE,
                       "shape \"%.60s\" is neither tinyllama-1.1b, llama-7b, flan-t5-xxl nor "
                       "layers,width,ffn,heads,kv_heads,vocabulary",
                       s);
    c.D = c.C / c.H;
    if (c.L < 1 || c.L > LLAMA_MAX_LAYERS || c.C > LLAMA_MAX_WIDTH || c.F > 1 << 20 || c.V > LLAMA_MAX_VOCAB || c.G < 1)
        return err_set(err, GIST_ERR_LIMIT, "shape \"%.60s\" is out of bounds", s);
    *out = c;
    return GIST_OK;
}
