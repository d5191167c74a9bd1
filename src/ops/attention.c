/* attention.c - the KV store and attention over two intervals per row.
 *
 *   store  keys in blocks of 16 tokens [G][cap/16][D][16], values [G][cap][D], both in the KV type (op_kv in ops.h)
 *   tile   consecutive rows that see the same memory interval and begin at the same local key, times the query heads of
 *          one key/value head: at most 16 query vectors, which share every key and value they load
 *
 *      keys      mlo....mhi | lo ........ hi(row)
 *      row t     xxxxxxxxxx   xxxxxx
 *      row t+1   xxxxxxxxxx   xxxxxxx            a tile; its rows differ only in where they end
 *
 * A bias by distance (T5) is one more row to add: visible keys lie at consecutive positions, so the biases of a query
 * vector's keys are a run of its head's table, wherever memory ends and local begins.
 *
 * Visible keys are counted from the row's first one across the boundary; hidden keys are neither scored into a row's
 * buffer nor weighed, so they cannot reach its result.
 */
#include "ops/ops_int.h"

/* ---- the store ---- */

static size_t key_at(const op_kv *kv, int g, int slot, int d, int D) {
    size_t block = (size_t)g * (size_t)(kv->cap / OP_KV_BLOCK) + (size_t)(slot / OP_KV_BLOCK);
    return (block * (size_t)D + (size_t)d) * OP_KV_BLOCK + (size_t)(slot % OP_KV_BLOCK);
}

static size_t value_at(const op_kv *kv, int g, int slot, int D) {
    return ((size_t)g * (size_t)kv->cap + (size_t)slot) * (size_t)D;
}

typedef struct write_job {
    const op_kv *kv;
    const op_row *rows;
    const float *k, *v;
    int G, D;
} write_job;

/* Block d/32 of a q8_0 key, as dt_from_f32 writes it, to its place among the other keys' and from there. */
static void set_q8(const op_kv *kv, int g, int slot, int d, const uint8_t *block, int D) {
    size_t lane = (size_t)(slot % OP_KV_BLOCK);
    uint8_t *run = (uint8_t *)kv->k + dt_bytes(DT_Q8_0, key_at(kv, g, slot, d, D));
    memcpy(run + 2 * lane, block, 2);
    for (size_t i = 0; i < OP_Q8; i++) run[(2 + i) * OP_KV_BLOCK + lane] = block[2 + i];
}

static void get_q8(const op_kv *kv, int g, int slot, int d, uint8_t *block, int D) {
    size_t lane = (size_t)(slot % OP_KV_BLOCK);
    const uint8_t *run = (const uint8_t *)kv->k + dt_bytes(DT_Q8_0, key_at(kv, g, slot, d, D));
    memcpy(block, run + 2 * lane, 2);
    for (size_t i = 0; i < OP_Q8; i++) block[2 + i] = run[(2 + i) * OP_KV_BLOCK + lane];
}

/* Key `slot` of head g, row [D] of the store's type: a key's elements lie OP_KV_BLOCK apart. */
static void set_key(const op_kv *kv, int g, int slot, const uint8_t *row, int D) {
    if (kv->type == DT_Q8_0) {
        for (int d = 0; d < D; d += OP_Q8, row += OP_Q8_BYTES) set_q8(kv, g, slot, d, row, D);
        return;
    }
    size_t one = dt_bytes(kv->type, 1), at = key_at(kv, g, slot, 0, D);
    for (size_t d = 0; d < (size_t)D; d++) memcpy((uint8_t *)kv->k + (at + d * OP_KV_BLOCK) * one, row + d * one, one);
}

static void get_key(const op_kv *kv, int g, int slot, uint8_t *row, int D) {
    if (kv->type == DT_Q8_0) {
        for (int d = 0; d < D; d += OP_Q8, row += OP_Q8_BYTES) get_q8(kv, g, slot, d, row, D);
        return;
    }
    size_t one = dt_bytes(kv->type, 1), at = key_at(kv, g, slot, 0, D);
    for (size_t d = 0; d < (size_t)D; d++)
        memcpy(row + d * one, (const uint8_t *)kv->k + (at + d * OP_KV_BLOCK) * one, one);
}

static void *value_row(const op_kv *kv, int g, int slot, int D) {
    return (uint8_t *)kv->v + dt_bytes(kv->type, value_at(kv, g, slot, D));
}

static void write_key(const op_kv *kv, int g, int slot, const float *x, int D) {
    size_t at = key_at(kv, g, slot, 0, D);
    if (kv->type == DT_F32)
        for (int d = 0; d < D; d++) ((float *)kv->k)[at + (size_t)d * OP_KV_BLOCK] = x[d];
    else if (kv->type == DT_BF16)
        for (int d = 0; d < D; d++) ((uint16_t *)kv->k)[at + (size_t)d * OP_KV_BLOCK] = f32_to_bf16(x[d]);
    else if (kv->type == DT_F16)
        for (int d = 0; d < D; d++) ((uint16_t *)kv->k)[at + (size_t)d * OP_KV_BLOCK] = f32_to_f16(x[d]);
    else
        for (int d = 0; d < D; d += OP_Q8) {
            uint8_t block[OP_Q8_BYTES];
            dt_from_f32(block, DT_Q8_0, x + d, OP_Q8);
            set_q8(kv, g, slot, d, block, D);
        }
}

static void write_rows(void *arg, int first, int last) {
    const write_job *j = arg;
    for (int t = first; t < last; t++) {
        const op_kv *kv = &j->kv[j->rows[t].kv];
        int slot = j->rows[t].slot, D = j->D;
        for (int g = 0; g < j->G; g++) {
            size_t src = ((size_t)t * (size_t)j->G + (size_t)g) * (size_t)D;
            write_key(kv, g, slot, j->k + src, D);
            dt_from_f32(value_row(kv, g, slot, D), kv->type, j->v + src, (size_t)D);
        }
    }
}

void op_kv_write(op_ctx *ctx, const op_kv *kv, const op_row *rows, const float *k, const float *v, int T, int G,
                 int D) {
    write_job j = { kv, rows, k, v, G, D };
    op_for_rows(ctx, write_rows, &j, T, (size_t)(G * D) * 4);
}

void op_kv_get(const op_kv *kv, int slot, void *k, void *v, int G, int D) {
    size_t row = dt_bytes(kv->type, (size_t)D);
    for (int g = 0; g < G; g++) {
        get_key(kv, g, slot, (uint8_t *)k + (size_t)g * row, D);
        memcpy((uint8_t *)v + (size_t)g * row, value_row(kv, g, slot, D), row);
    }
}

void op_kv_set(const op_kv *kv, int slot, const void *k, const void *v, int G, int D) {
    size_t row = dt_bytes(kv->type, (size_t)D);
    for (int g = 0; g < G; g++) {
        set_key(kv, g, slot, (const uint8_t *)k + (size_t)g * row, D);
        memcpy(value_row(kv, g, slot, D), (const uint8_t *)v + (size_t)g * row, row);
    }
}

/* ---- attention ---- */

static size_t padded(int n) {
    return ((size_t)n + OP_LANES - 1) / OP_LANES * OP_LANES;
}

size_t op_attention_scratch(const op_ctx *ctx, int T, int visible) {
    size_t tiles = padded(T + 1) * sizeof(int);
    return tiles + (size_t)pool_size(ctx->pool) * OP_TILE * padded(visible) * sizeof(float);
}

typedef struct attend_job {
    op_ctx *ctx;
    float *out;
    const float *q;
    const op_kv *kv;
    const op_row *rows;
    const int *tiles;   /* first row of each tile, and T */
    int H, G, D, parts; /* parts: pieces of a group of query heads that is larger than a tile */
    float scale;
    const op_distance *near; /* NULL: none */
    float *stats;
    float *score; /* [workers][OP_TILE][score_stride] */
    size_t score_stride;
} attend_job;

static op_span span_of(const op_kv *kv, int g, int D, int lo, int hi) {
    return (op_span){ kv->type, (const uint8_t *)kv->k + dt_bytes(kv->type, key_at(kv, g, 0, 0, D)),
                      (const uint8_t *)kv->v + dt_bytes(kv->type, value_at(kv, g, 0, D)), lo, hi };
}

/* Tile number `task`, without its buffer of scores; *g: its key/value head. */
static op_tile make_tile(const attend_job *j, int task, int hi[OP_TILE], int *g) {
    int part = task % j->parts, tile = task / j->parts / j->G, first = j->tiles[tile];
    int group = j->H / j->G, heads = group < OP_TILE ? group : OP_TILE;
    *g = task / j->parts % j->G;
    int head = *g * group + part * heads;
    if (head + heads > (*g + 1) * group) heads = (*g + 1) * group - head;
    const op_row *row = &j->rows[first];
    op_tile t = { .stride = (size_t)j->H * (size_t)j->D,
                  .rows = j->tiles[tile + 1] - first,
                  .heads = heads,
                  .D = j->D,
                  .scale = j->scale,
                  .hi = hi,
                  .score_stride = j->score_stride,
                  .stats_stride = 2 * (size_t)j->H };
    int top = row->lo;
    for (int r = 0; r < t.rows; r++) {
        hi[r] = row[r].hi;
        top = hi[r] > top ? hi[r] : top;
    }
    size_t at = (size_t)first * t.stride + (size_t)head * (size_t)j->D;
    t.out = j->out + at;
    t.q = j->q + at;
    if (j->stats) t.stats = j->stats + ((size_t)first * (size_t)j->H + (size_t)head) * 2;
    if (j->near) {
        t.bias_stride = 2 * (size_t)j->near->reach + 1;
        for (int r = 0; r < t.rows; r++)
            t.bias[r] = j->near->bias + (size_t)head * t.bias_stride + (j->near->reach + row[r].at - row[r].pos);
    }
    t.local = span_of(&j->kv[row->kv], *g, j->D, row->lo, top);
    if (row->mem >= 0) t.mem = span_of(&j->kv[row->mem], *g, j->D, row->mlo, row->mhi);
    return t;
}

static void attend_task(void *arg, int task, int worker) {
    const attend_job *j = arg;
    int hi[OP_TILE], g;
    op_tile t = make_tile(j, task, hi, &g);
    t.score = j->score + (size_t)worker * OP_TILE * j->score_stride;
    j->ctx->k->attend(&t);
}

static bool same_view(const op_row *a, const op_row *b) {
    bool memory = a->mem == b->mem && (a->mem < 0 || (a->mlo == b->mlo && a->mhi == b->mhi));
    return memory && a->kv == b->kv && a->lo == b->lo;
}

static int visible_keys(const op_row *r) {
    int memory = r->mem >= 0 && r->mhi > r->mlo ? r->mhi - r->mlo : 0;
    return memory + (r->hi > r->lo ? r->hi - r->lo : 0);
}

/* Cut rows into tiles (in `tiles`, T + 1 of them at most); returns their number, and the most visible keys of a row. */
static int cut_tiles(int *tiles, const op_row *rows, int T, int group, int *visible) {
    int rows_max = group < OP_TILE ? OP_TILE / group : 1, n = 0;
    *visible = 0;
    for (int t = 0; t < T; t++) {
        if (t == 0 || t - tiles[n - 1] >= rows_max || !same_view(&rows[t - 1], &rows[t])) tiles[n++] = t;
        int v = visible_keys(&rows[t]);
        *visible = v > *visible ? v : *visible;
    }
    tiles[n] = T;
    return n;
}

void op_attention_near_fwd(op_ctx *ctx, float *out, float *stats, const float *q, const op_kv *kv, const op_row *rows,
                           int T, int H, int G, int D, float scale, const op_distance *near, void *scratch) {
    int visible, group = H / G, n = cut_tiles(scratch, rows, T, group, &visible);
    attend_job j = { .ctx = ctx,
                     .out = out,
                     .q = q,
                     .kv = kv,
                     .rows = rows,
                     .tiles = scratch,
                     .H = H,
                     .G = G,
                     .D = D,
                     .parts = (group + OP_TILE - 1) / OP_TILE,
                     .scale = scale,
                     .near = near,
                     .stats = stats,
                     .score = (float *)((uint8_t *)scratch + padded(T + 1) * sizeof(int)),
                     .score_stride = padded(visible) };
    op_run(ctx, attend_task, &j, n * G * j.parts, (size_t)T * (size_t)H * (size_t)D * (size_t)visible / 8);
}

void op_attention_fwd(op_ctx *ctx, float *out, float *stats, const float *q, const op_kv *kv, const op_row *rows, int T,
                      int H, int G, int D, float scale, void *scratch) {
    op_attention_near_fwd(ctx, out, stats, q, kv, rows, T, H, G, D, scale, NULL, scratch);
}

/* ---- attention, backwards ----
 *
 *   forward    P = exp(scale q k^T - max) / sum,   out = P v
 *   backward   dP = dout v^T,   dS = P * (dP - sum_d dout*out) * scale
 *              dq += dS k,   dk += dS^T q,   dv += P^T dout
 *
 * Many rows add to one key's gradient, so one task owns a key/value head and walks the tiles in order: the sums do not
 * depend on threads.
 */

size_t op_attention_bwd_scratch(const op_ctx *ctx, int T, int visible) {
    return op_attention_scratch(ctx, T, visible) +
           (size_t)pool_size(ctx->pool) * OP_TILE * padded(visible) * sizeof(float);
}

typedef struct attend_bwd_job {
    attend_job fwd;
    const op_kv *swapped;
    const op_kv_grad *grad;
    const float *dout;
    float *dq, *dbias, *dscore;
    int tile_count;
} attend_bwd_job;

static void attend_bwd_tile(const attend_bwd_job *b, int task, int worker) {
    const attend_job *j = &b->fwd;
    int hi[OP_TILE], g;
    op_tile_bwd t = { .fwd = make_tile(j, task, hi, &g), .grad_stride = (size_t)j->G * (size_t)j->D };
    const op_row *row = &j->rows[j->tiles[task / j->parts / j->G]];
    ptrdiff_t at = t.fwd.q - j->q;
    size_t head = (size_t)g * (size_t)j->D;
    t.fwd.score = j->score + (size_t)worker * OP_TILE * j->score_stride;
    t.dscore = b->dscore + (size_t)worker * OP_TILE * j->score_stride;
    t.dout = b->dout + at;
    t.dq = b->dq + at;
    for (int r = 0; b->dbias && r < t.fwd.rows; r++) t.dbias[r] = b->dbias + (t.fwd.bias[r] - j->near->bias);
    t.local_swapped = span_of(&b->swapped[row->kv], g, j->D, t.fwd.local.lo, t.fwd.local.hi);
    t.local_dk = b->grad[row->kv].dk + head;
    t.local_dv = b->grad[row->kv].dv + head;
    if (row->mem >= 0) {
        t.mem_swapped = span_of(&b->swapped[row->mem], g, j->D, row->mlo, row->mhi);
        t.mem_dk = b->grad[row->mem].dk + head;
        t.mem_dv = b->grad[row->mem].dv + head;
    }
    j->ctx->k->attend_bwd(&t);
}

static void attend_bwd_task(void *arg, int g, int worker) {
    const attend_bwd_job *b = arg;
    for (int tile = 0; tile < b->tile_count; tile++)
        for (int part = 0; part < b->fwd.parts; part++)
            attend_bwd_tile(b, (tile * b->fwd.G + g) * b->fwd.parts + part, worker);
}

void op_attention_near_bwd(op_ctx *ctx, float *dq, float *dbias, const op_kv_grad *grad, const float *dout,
                           const float *out, const float *stats, const float *q, const op_kv *kv, const op_kv *swapped,
                           const op_row *rows, int T, int H, int G, int D, float scale, const op_distance *near,
                           void *scratch) {
    int visible, group = H / G, n = cut_tiles(scratch, rows, T, group, &visible);
    float *score = (float *)((uint8_t *)scratch + padded(T + 1) * sizeof(int));
    attend_bwd_job b = { .fwd = { .ctx = ctx,
                                  .out = (float *)(uintptr_t)out,
                                  .q = q,
                                  .kv = kv,
                                  .rows = rows,
                                  .tiles = scratch,
                                  .H = H,
                                  .G = G,
                                  .D = D,
                                  .parts = (group + OP_TILE - 1) / OP_TILE,
                                  .scale = scale,
                                  .near = near,
                                  .stats = (float *)(uintptr_t)stats,
                                  .score = score,
                                  .score_stride = padded(visible) },
                         .swapped = swapped,
                         .grad = grad,
                         .dout = dout,
                         .dq = dq,
                         .dbias = dbias,
                         .dscore = score + (size_t)pool_size(ctx->pool) * OP_TILE * padded(visible),
                         .tile_count = n };
    op_run(ctx, attend_bwd_task, &b, G, (size_t)T * (size_t)H * (size_t)D * (size_t)visible / 4);
}

void op_attention_bwd(op_ctx *ctx, float *dq, const op_kv_grad *grad, const float *dout, const float *out,
                      const float *stats, const float *q, const op_kv *kv, const op_kv *swapped, const op_row *rows,
                      int T, int H, int G, int D, float scale, void *scratch) {
    op_attention_near_bwd(ctx, dq, NULL, grad, dout, out, stats, q, kv, swapped, rows, T, H, G, D, scale, NULL,
                          scratch);
}
