/* llama_random.c - a model of any shape with random weights in memory: for benchmarks, which need bytes, not sense.
 *
 * Weights are +-2^-6 .. 2^-5 with random sign and mantissa: no zeros, no subnormals, activations of moderate size.
 * Pieces of 1 MiB are filled in parallel, each from its own stream of splitmix64, so a seed names one model whatever
 * the number of threads.
 */
#include <inttypes.h>
#include <math.h>

#include "model/model.h"

enum { PIECE = 1 << 20 };

typedef struct fill_job {
    uint8_t *p;
    size_t bytes;
    dtype type;
    uint64_t seed;
} fill_job;

/* Sign and mantissa bits to keep, and the exponent of 2^-6, in every element of a 64-bit word. */
static void patterns(dtype t, uint64_t *keep, uint64_t *set) {
    switch (t) {
    case DT_F32: *keep = 0x807fffff807fffffu, *set = 0x3c8000003c800000u; return;
    case DT_BF16: *keep = 0x807f807f807f807fu, *set = 0x3c803c803c803c80u; return;
    default: *keep = 0x83ff83ff83ff83ffu, *set = 0x2400240024002400u; return; /* f16 */
    }
}

static void fill_piece(void *ctx, int task, int worker) {
    (void)worker;
    const fill_job *j = ctx;
    size_t at = (size_t)task * PIECE, end = j->bytes - at < PIECE ? j->bytes : at + PIECE;
    uint64_t keep, set, state = j->seed + (uint64_t)at * 0x9e3779b97f4a7c15u;
    patterns(j->type, &keep, &set);
    for (; at < end; at += 8) {
        uint64_t z = state += 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        z = ((z ^ (z >> 31)) & keep) | set;
        memcpy(j->p + at, &z, end - at < 8 ? end - at : 8);
    }
}

static void fill(void *p, size_t bytes, dtype type, uint64_t seed, op_ctx *ctx) {
    fill_job j = { p, bytes, type, seed };
    pool_run(ctx->pool, fill_piece, &j, (int)((bytes + PIECE - 1) / PIECE));
}

typedef struct maker {
    llama_model *m;
    dtype type;
    uint64_t seed;
    op_ctx *ctx;
    const float *zeros; /* [widest input] */
    arena ar;           /* counts first, then hands out the block */
} maker;

static void make_matrix(maker *k, op_weight *W, int rows, int cols) {
    *W = (op_weight){ k->type, rows, cols, NULL };
    size_t bytes = op_weight_bytes(k->type, rows, cols);
    W->panels = arena_take(&k->ar, bytes, 1);
    if (!W->panels) return; /* the dry run */
    fill(W->panels, bytes, k->type, ++k->seed << 40, k->ctx);
    int padded = (rows + OP_PANEL - 1) / OP_PANEL * OP_PANEL;
    for (int n = rows; n < padded; n++) op_weight_set_row(W, n, k->zeros); /* as a packed weight promises */
}

static void make_vector(maker *k, float **field, int n) {
    *field = arena_take(&k->ar, (size_t)n, sizeof(float));
    for (int i = 0; *field && i < n; i++) (*field)[i] = 1;
}

static void make_embedding(maker *k, llama_model *m) {
    size_t bytes = dt_bytes(k->type, (size_t)m->cfg.V * (size_t)m->cfg.C);
    void *table = arena_take(&k->ar, bytes, 1);
    m->embed = table;
    m->embed_type = k->type;
    if (table) fill(table, bytes, k->type, ++k->seed << 40, k->ctx);
}

/* One pass over the weight table: counting, or making. */
static void make_all(maker *k) {
    llama_model *m = k->m;
    for (int i = 0; i < llama_weight_rows; i++) {
        const weight_row *r = &llama_weights[i];
        int rows = llama_dim(&m->cfg, r->shape[0]), cols = llama_dim(&m->cfg, r->shape[1]);
        for (int layer = 0; layer < (r->per_layer ? m->cfg.L : 1); layer++) {
            void *field = (r->per_layer ? (uint8_t *)&m->layers[layer] : (uint8_t *)m) + r->offset;
            if (r->kind == WEIGHT_MATRIX)
                make_matrix(k, field, rows, cols);
            else if (r->kind == WEIGHT_VECTOR)
                make_vector(k, field, rows);
            else
                make_embedding(k, m);
        }
    }
    m->freq = arena_take(&k->ar, (size_t)m->cfg.D / 2, sizeof(float));
}

/* An odd input's last partner would have to be zero too: shapes here must not have any. */
static gist_status check_shape(const llama_config *c, int *widest, gist_error *err) {
    bool whole = c->L > 0 && c->H > 0 && c->G > 0 && c->H % c->G == 0 && c->D > 0 && c->D % 2 == 0 && c->context > 0;
    *widest = 0;
    for (int i = 0; i < llama_weight_rows; i++) {
        int rows = llama_dim(c, llama_weights[i].shape[0]), cols = llama_dim(c, llama_weights[i].shape[1]);
        whole = whole && rows > 0 && (cols % 2 == 0 || llama_weights[i].kind != WEIGHT_MATRIX);
        *widest = cols > *widest ? cols : *widest;
    }
    if (whole) return GIST_OK;
    return err_set(
        err, GIST_ERR_USAGE,
        "a random model of width %d, feed-forward %d, %d heads of %d, %d key/value heads: widths must be even, "
        "and key/value heads divide heads",
        c->C, c->F, c->H, c->D, c->G);
}

gist_status llama_random(llama_model *m, const llama_config *cfg, dtype type, uint64_t seed, op_ctx *ctx,
                         const gist_allocator *alloc, gist_error *err) {
    int widest;
    TRY(check_shape(cfg, &widest, err));
    llama_model made = { .alloc = alloc, .cfg = *cfg, .vocab = cfg->V };
    made.layers = mem_calloc(alloc, (size_t)cfg->L, sizeof *made.layers);
    float *zeros = mem_calloc(alloc, (size_t)widest, sizeof *zeros);
    maker k = { .m = &made, .type = type, .seed = seed << 16, .ctx = ctx, .zeros = zeros };
    gist_status status = made.layers && zeros ? GIST_OK : err_memory(err, "layers");
    if (status == GIST_OK) {
        arena_init(&k.ar, NULL, 0);
        make_all(&k);
        made.block_bytes = k.ar.peak;
        made.block = mem_alloc(alloc, made.block_bytes, 1);
        if (!made.block)
            status =
                err_set(err, GIST_ERR_MEMORY, "out of memory: %" PRIu64 " MiB of weights", (uint64_t)k.ar.peak >> 20);
    }
    if (status == GIST_OK) {
        k.seed = seed << 16;
        arena_init(&k.ar, made.block, made.block_bytes);
        make_all(&k);
        for (int i = 0; i < cfg->D / 2; i++) made.freq[i] = (float)(1.0 / pow((double)cfg->theta, 2.0 * i / cfg->D));
        *m = made;
    } else {
        llama_free(&made);
    }
    mem_free(alloc, zeros);
    return status;
}
