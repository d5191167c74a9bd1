/* llama_random.c - a model of any shape with random weights in memory: for benchmarks, which need bytes, not sense.
 *
 * Weights are +-2^-6 .. 2^-5 with random sign and mantissa: no zeros, no subnormals, activations of moderate size.
 * Block types have random integers and scales that make weights as large as that; a matrix is made in the file's layout
 * in a buffer and packed, so that beside the panels there is never more than one matrix.  Pieces of about 1 MiB are
 * filled in parallel, each from its own stream of splitmix64, so a seed names one model whatever the number of threads.
 */
#include <inttypes.h>

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

static uint64_t next_word(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static void put_half(uint8_t *p, float x) {
    uint16_t h = f32_to_f16(x);
    p[0] = (uint8_t)h;
    p[1] = (uint8_t)(h >> 8);
}

/* The scales of one block: the largest weight about 2^-5. */
static void set_scales(uint8_t *block, dtype t) {
    const float most = 0x1p-5f;
    switch (t) {
    case DT_Q8_0: put_half(block, most / 128); return;
    case DT_Q4_0: put_half(block, most / 8); return;
    case DT_Q6_K: put_half(block + 208, most / 32 / 128); return;
    default: /* q4_K, q5_K: steps times their factors of 6 bits, and minima about the middle of the steps */
        put_half(block, most / 63 / (t == DT_Q4_K ? 8 : 16));
        put_half(block + 2, most / 63);
    }
}

static size_t piece_bytes(dtype t) {
    size_t one = dt_bytes(t, dt_block(t));
    return dt_block(t) > 1 ? PIECE / one * one : PIECE;
}

static void fill_blocks(uint8_t *p, size_t bytes, dtype t, uint64_t state) {
    size_t one = dt_bytes(t, dt_block(t));
    for (size_t at = 0; at < bytes; at += 8) {
        uint64_t z = next_word(&state);
        memcpy(p + at, &z, bytes - at < 8 ? bytes - at : 8);
    }
    for (size_t at = 0; at < bytes; at += one) set_scales(p + at, t);
}

static void fill_piece(void *ctx, int task, int worker) {
    (void)worker;
    const fill_job *j = ctx;
    size_t piece = piece_bytes(j->type), at = (size_t)task * piece, end = j->bytes - at < piece ? j->bytes : at + piece;
    uint64_t keep, set, state = j->seed + (uint64_t)at * 0x9e3779b97f4a7c15u;
    if (dt_block(j->type) > 1) {
        fill_blocks(j->p + at, end - at, j->type, state);
        return;
    }
    patterns(j->type, &keep, &set);
    for (; at < end; at += 8) {
        uint64_t z = (next_word(&state) & keep) | set;
        memcpy(j->p + at, &z, end - at < 8 ? end - at : 8);
    }
}

static void fill(void *p, size_t bytes, dtype type, uint64_t seed, op_ctx *ctx) {
    fill_job j = { p, bytes, type, seed };
    size_t piece = piece_bytes(type);
    pool_run(ctx->pool, fill_piece, &j, (int)((bytes + piece - 1) / piece));
}

typedef struct maker {
    llama_model *m;
    dtype type;
    uint64_t seed;
    op_ctx *ctx;
    const float *zeros; /* [widest input] */
    void *blocks;       /* block types: the largest matrix as a file would hold it */
    arena ar;           /* counts first, then hands out the block */
} maker;

static void make_matrix(maker *k, op_weight *W, int rows, int cols) {
    *W = (op_weight){ k->type, rows, cols, NULL };
    size_t bytes = op_weight_bytes(k->type, rows, cols);
    W->panels = arena_take(&k->ar, bytes, 1);
    if (!W->panels) return; /* the dry run */
    if (k->blocks) {
        fill(k->blocks, dt_bytes(k->type, (size_t)rows * (size_t)cols), k->type, ++k->seed << 40, k->ctx);
        op_weight_pack(k->ctx, W, k->blocks, k->type, rows);
        return;
    }
    fill(W->panels, bytes, k->type, ++k->seed << 40, k->ctx);
    int padded = (rows + OP_PANEL - 1) / OP_PANEL * OP_PANEL;
    for (int n = rows; n < padded; n++) op_weight_set_row(W, n, k->zeros); /* as a packed weight promises */
}

static void make_vector(maker *k, float **field, int n) {
    *field = arena_take(&k->ar, (size_t)n, sizeof(float));
    for (int i = 0; *field && i < n; i++) (*field)[i] = 1; /* norms and biases */
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
    int count;
    const weight_row *table = llama_table(&m->cfg, &count);
    for (int i = 0; i < count; i++) {
        const weight_row *r = &table[i];
        int rows = llama_dim(&m->cfg, r->shape[0]), cols = llama_dim(&m->cfg, r->shape[1]);
        for (int layer = 0; llama_uses_row(&m->cfg, r) && layer < llama_row_layers(&m->cfg, r); layer++) {
            void *field = llama_row_field(m, r, layer);
            if (r->kind == WEIGHT_MATRIX)
                make_matrix(k, field, rows, cols);
            else if (r->kind == WEIGHT_VECTOR)
                make_vector(k, field, rows * cols);
            else
                make_embedding(k, m);
        }
    }
    if (m->cfg.encoder)
        t5_take_near(m, &k->ar);
    else
        m->freq = arena_take(&k->ar, (size_t)m->cfg.D / 2, sizeof(float));
}

/* Bytes of the largest matrix in a block type; 0 for others, which are made in place. */
static size_t largest_matrix(const llama_config *c, dtype type) {
    size_t most = 0;
    int count;
    const weight_row *table = llama_table(c, &count);
    for (int i = 0; i < count && dt_block(type) > 1; i++) {
        const weight_row *r = &table[i];
        size_t n = dt_bytes(type, (size_t)llama_dim(c, r->shape[0]) * (size_t)llama_dim(c, r->shape[1]));
        most = r->kind == WEIGHT_MATRIX && n > most ? n : most;
    }
    return most;
}

/* An odd input's last partner would have to be zero too: shapes here must not have any; nor parts of blocks. */
static gist_status check_shape(const llama_config *c, dtype type, int *widest, gist_error *err) {
    int block = (int)dt_block(type);
    bool whole = c->L > 0 && c->H > 0 && c->G > 0 && c->H % c->G == 0 && c->D > 0 && c->D % 2 == 0 && c->context > 0;
    *widest = 0;
    int count;
    const weight_row *table = llama_table(c, &count);
    for (int i = 0; i < count; i++) {
        int rows = llama_dim(c, table[i].shape[0]), cols = llama_dim(c, table[i].shape[1]);
        whole = whole && rows > 0 && (cols % 2 == 0 || table[i].kind != WEIGHT_MATRIX);
        if (table[i].kind != WEIGHT_VECTOR && cols % block)
            return err_set(err, GIST_ERR_USAGE, "a random model in %s: a width of %d is not a multiple of %d",
                           dt_name(type), cols, block);
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
    TRY(check_shape(cfg, type, &widest, err));
    llama_model made = { .alloc = alloc, .cfg = *cfg, .vocab = cfg->V };
    gist_status status = llama_take_layers(&made, err);
    float *zeros = mem_calloc(alloc, (size_t)widest, sizeof *zeros);
    size_t blocks = largest_matrix(cfg, type);
    maker k = { .m = &made, .type = type, .seed = seed << 16, .ctx = ctx, .zeros = zeros };
    k.blocks = blocks ? mem_alloc(alloc, blocks, 1) : NULL;
    if (status == GIST_OK && !(zeros && (k.blocks || !blocks))) status = err_memory(err, "layers");
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
        if (cfg->encoder)
            t5_fill_near(&made);
        else
            llama_frequencies(cfg, made.freq);
        *m = made;
    } else {
        llama_free(&made);
    }
    mem_free(alloc, k.blocks);
    mem_free(alloc, zeros);
    return status;
}
