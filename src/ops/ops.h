/* ops.h - the operations that models are made of, on buffers of a backend.
 *
 * This table of functions is the backend seam: model code calls it and never dereferences an activation.  The CPU
 * implementation cuts the work into tasks for a thread pool and runs kernels picked once for this machine (scalar: the
 * definition; AVX2; AVX-512; AVX-512 BF16).
 *
 * Every output element is reduced in one fixed order that depends on the row alone: not on the number of threads, the
 * rows beside it, or how a sequence was cut into calls.  docs/ARCHITECTURE.md, "Results do not depend on how the work
 * was cut", says how each op does that.
 *
 * Shapes: T rows, C width, N/K outputs/inputs of a linear map, H query heads, G key/value heads, D head width.
 * Activations are f32, row-major.  Each X_fwd has its derivative X_bwd under it in the source, adding into its outputs.
 */
#ifndef GIST_OPS_H
#define GIST_OPS_H

#include "tensor/tensor.h"

/* ---- the machine: kernels and threads ---- */

typedef struct op_kernels op_kernels;
typedef struct op_ctx {
    const op_kernels *k;
    pool *pool;
} op_ctx;

/* Kernels of a level, or the best of this CPU for AUTO.  GIST_ERR_UNSUPPORTED names what the CPU lacks. */
gist_status op_init(op_ctx *ctx, gist_kernels level, pool *p, gist_error *err);
gist_kernels op_level(const op_ctx *ctx);

/* ---- linear maps ---- */

/* A weight matrix [N,K] packed for the kernels that read it, in panels of 64 outputs:
 *     f32, f16   [ceil(N/64)][K][64]
 *     bf16       [ceil(N/64)][ceil(K/2)][64][2]       pairs of consecutive inputs side by side
 *     q8_0, ...  the file's integers and scales, fours of consecutive inputs side by side; K a multiple of the block
 * Outputs beyond N and an odd K's last partner are zero.  One layout serves one row (decode) and many (prefill). */
typedef struct op_weight {
    dtype type;
    int N, K;
    void *panels; /* 64-byte aligned */
} op_weight;
enum { OP_PANEL = 64 };
size_t op_weight_bytes(dtype type, int N, int K);
/* W->panels points to op_weight_bytes(W) bytes, contents undefined.  Packs src [rows,K] of type src_type (rows <= N) as
 * W's first rows and zeroes the rest; converts where the types differ.  src need not be aligned. */
void op_weight_pack(op_ctx *ctx, op_weight *W, const void *src, dtype src_type, int rows);
/* Overwrite row n with x [K], rounded to the type. */
void op_weight_set_row(op_weight *W, int n, const float *x);
/* x [K] = row n, exact: for block types the values that dt_to_f32 gives for the file's blocks. */
void op_weight_get_row(const op_weight *W, int n, float *x);

/* Rows as the weight's kernel multiplies them: f32 for f32 and f16 weights (x itself is returned); written to
 * buf [T, op_operand_bytes(K)]: bf16 rounded to nearest even for bf16; for all block types int8 in runs of 32 with an
 * f32 scale, the largest |x| being 127 (a run with NaN or infinity makes every output of its row NaN). */
size_t op_operand_bytes(int K); /* per row, for any type */
const void *op_operand(op_ctx *ctx, void *buf, const float *x, const op_weight *W, int T);
/* y [T,N] = x [T,K] W^T; x from op_operand of a weight of the same kind and K.  One accumulator per output, in order of
 * K (bf16: pairs; block types: runs, whose sums are exact integers, so that every kernel level gives the same bits),
 * f32. */
void op_linear_fwd(op_ctx *ctx, float *y, const void *x, const op_weight *W, int T);

/* Rows x [T,K] that several weights multiply, of whatever types: begin with { x, buf, T }.  The operand is made at the
 * first product and again only where the next weight needs another. */
typedef struct op_input {
    const float *x;
    void *buf; /* as op_operand's */
    int T;
    const void *rows; /* the operand made for a weight of `type` */
    dtype type;
} op_input;
void op_linear(op_ctx *ctx, float *y, op_input *in, const op_weight *W);

/* ---- embedding ---- */

/* x [T,C] = rows ids[t] of table [V,C] (type; need not be aligned); ids from V on take row id-V of extra [*,C] f32. */
void op_embed_fwd(op_ctx *ctx, float *x, const void *table, dtype type, const float *extra, const int32_t *ids, int T,
                  int V, int C);

/* ---- normalisation, activation, residual ---- */

/* y = x / sqrt(mean(x^2) + eps) * w, per row [C]; y may be x */
void op_rmsnorm_fwd(op_ctx *ctx, float *y, const float *x, const float *w, int T, int C, float eps);
/* y = silu(gate) * up = gate / (1 + exp(-gate)) * up, [T,F]; y may be gate or up */
void op_silu_mul_fwd(op_ctx *ctx, float *y, const float *gate, const float *up, int T, int F);
/* y = gelu(gate) * up, gelu by its tanh approximation; y may be gate or up */
void op_gelu_mul_fwd(op_ctx *ctx, float *y, const float *gate, const float *up, int T, int F);
/* y = max(x, 0), [T,F] (NaN stays); y may be x */
void op_relu_fwd(op_ctx *ctx, float *y, const float *x, int T, int F);
/* y [T,N] += b [N] */
void op_bias_fwd(op_ctx *ctx, float *y, const float *b, int T, int N);
/* y = a + b, [T,C]; y may be a or b */
void op_add_fwd(op_ctx *ctx, float *y, const float *a, const float *b, int T, int C);

/* ---- some rows among many: what an adapter or a new token touches ---- */

/* dst [n,C] = rows row[i] of src */
void op_rows_gather(op_ctx *ctx, float *dst, const float *src, const int *row, int n, int C);
/* dst [n,C] = rows row[i] of src, ascending; dst may be src: they become its first n */
void op_rows_keep(op_ctx *ctx, float *dst, const float *src, const int *row, int n, int C);
/* The way back: the first n rows of x [T,C] become its rows row[i], ascending; all others are zero. */
void op_rows_spread(op_ctx *ctx, float *x, const int *row, int n, int T, int C);
/* rows row[i] of dst = src [n,C]; no other row is written */
void op_rows_scatter(op_ctx *ctx, float *dst, const float *src, const int *row, int n, int C);
/* rows row[i] of dst = x [C] */
void op_rows_fill(op_ctx *ctx, float *dst, const float *x, const int *row, int n, int C);
/* sum [C] += rows row[i] of x, in order */
void op_rows_sum(op_ctx *ctx, float *sum, const float *x, const int *row, int n, int C);
/* x [T,C] *= s */
void op_scale(op_ctx *ctx, float *x, float s, int T, int C);

/* ---- rotary positions (RoPE; halves of a head paired: i with i + D/2) ---- */

/* cs [T,D] = cos (first half) and sin (second half) of pos[t] * freq[i], i < D/2; angle in f32, as the models trained
 * */
void op_rope_table(op_ctx *ctx, float *cs, const int32_t *pos, const float *freq, int T, int D);
/* x [T,H,D] rotated in place by the angles of its row */
void op_rope_fwd(op_ctx *ctx, float *x, const float *cs, int T, int H, int D);

/* ---- attention over intervals ---- */

/* Keys and values of one layer.  Keys lie in blocks of 16 tokens, so that a kernel computes 16 scores at once:
 *     k  [G][cap/16][D][16]        v  [G][cap][D]        cap a multiple of 16
 * q8_0 (blocks of 32 along D): the scales of 32 elements of 16 keys stand together before their integers,
 *     k  [G][cap/16][D/32] { f16 scale[16]; int8 q[32][16] }        v  [G][cap][D/32] { f16 scale; int8 q[32] }
 * An element is scale * q, which f32 holds exactly: attention over a q8_0 store equals, bit for bit, attention over the
 * same numbers in an f32 store.  As much holds for bf16 and f16. */
typedef struct op_kv {
    dtype type;
    int cap;
    void *k, *v;
} op_kv;
enum { OP_KV_BLOCK = 16 };
static inline int op_kv_round(int tokens) {
    return (tokens + OP_KV_BLOCK - 1) / OP_KV_BLOCK * OP_KV_BLOCK;
}
/* The types of stores: f32, bf16, f16, and q8_0 for a D that is a multiple of 32. */
static inline bool op_kv_fits(dtype type, int D) {
    return type <= DT_F16 || (type == DT_Q8_0 && D % 32 == 0);
}

/* One row of the batch: where its own key and value go, and which keys it sees.
 *
 *     memory rows [mlo,mhi) of store mem          local rows [lo,hi) of store kv
 *     +----------------------------+              +---------------------------------+
 *     | a gist, shared, read-only  |   then       | the timeline up to the row      |    = the visible keys 0,1,2,...
 *     +----------------------------+              +---------------------------------+
 */
typedef struct op_row {
    int32_t pos;       /* rotary position; with distances: the query's */
    int kv, slot;      /* its key and value are row `slot` of store kv */
    int mem, mlo, mhi; /* mem < 0 or mlo == mhi: none */
    int lo, hi;
    int at; /* with distances: position of its first visible key; the others follow one by one */
} op_row;

/* Round k, v [T,G,D] to the stores' types and write them to each row's slot. */
void op_kv_write(op_ctx *ctx, const op_kv *kv, const op_row *rows, const float *k, const float *v, int T, int G, int D);
/* Row `slot`, as stored, from / to k, v [G,D] of the store's type, in the layout of dt_from_f32: nothing is rounded. */
void op_kv_get(const op_kv *kv, int slot, void *k, void *v, int G, int D);
void op_kv_set(const op_kv *kv, int slot, const void *k, const void *v, int G, int D);

/* out [T,H,D] = softmax(scale * q k^T over the visible keys) v.  Head h reads key/value head h / (H/G).  Scores: one
 * accumulator over D each; exact maximum; normaliser in 16 lanes by visible index; outputs accumulated key by key in
 * visible order.  scratch: op_attention_scratch(ctx, T, most visible keys of any row) bytes.  A row that sees no key
 * yields zeros.  stats [T,H,2], NULL in inference: each score row's maximum and 1/sum, for the backward pass. */
size_t op_attention_scratch(const op_ctx *ctx, int T, int visible);
void op_attention_fwd(op_ctx *ctx, float *out, float *stats, const float *q, const op_kv *kv, const op_row *rows, int T,
                      int H, int G, int D, float scale, void *scratch);

/* A bias of scores by head and distance, the key's position minus the query's (Raffel et al. 2020, section 2.1):
 *     score = scale * q k + bias[h][reach + distance],    -reach <= distance <= reach */
typedef struct op_distance {
    int reach;
    float *bias; /* [H, 2 reach + 1] */
} op_distance;
/* op_attention_fwd with one added to the scores; near NULL: without. */
void op_attention_near_fwd(op_ctx *ctx, float *out, float *stats, const float *q, const op_kv *kv, const op_row *rows,
                           int T, int H, int G, int D, float scale, const op_distance *near, void *scratch);

/* Distances that share an entry of a table of `buckets`: small ones have their own, larger ones share by logarithm,
 * those from `most` on the last.  both: keys behind the query have the second half of the table, else they are as
 * distance 0.
 * buckets >= 4 (both: even), most > buckets / 2. */
typedef struct op_buckets {
    int buckets, most;
    bool both;
} op_buckets;
int op_bucket(const op_buckets *b, int distance);
/* near->bias from table [buckets,H]; and the derivative: dtable += sums of dbias [H, 2 reach + 1], by distance. */
void op_distance_fwd(const op_distance *near, const float *table, const op_buckets *b, int H);
void op_distance_bwd(float *dtable, const float *dbias, int reach, const op_buckets *b, int H);

/* ================================================================================================================
 * Backward.  A `d` in front is the gradient of the loss.  Functions add into their outputs unless they say "writes".
 * Sums over rows run in row order whatever the threads.
 * ============================================================================================================= */

/* ---- linear maps: y = x W^T ---- */

/* W [N,K] packed from its transpose src [K,N], f32 row-major: the same panels, so that the forward's kernel serves
 *     dx [T,K] = dy [T,N] W      (src = W itself: out K, in N)
 *     dW [N,K] = dy^T [N,T] x    (src = x: out K, in T) */
void op_weight_pack_t(op_ctx *ctx, op_weight *W, const float *src);
/* Columns of y [T,N] as operand rows of a weight with T inputs: [N, T] f32, or bf16 with T rounded up to even. */
size_t op_operand_t_bytes(dtype type, int T, int N);
void op_operand_t(op_ctx *ctx, void *buf, const float *y, dtype type, int T, int N);
/* y [T,N] += x W^T; as op_linear_fwd, but the accumulators begin with y. */
void op_linear_add(op_ctx *ctx, float *y, const void *x, const op_weight *W, int T);

/* ---- rows ---- */

/* table gradient dE [V,C]: dE[ids[t]] += dx[t] */
void op_embed_bwd(op_ctx *ctx, float *dE, const float *dx, const int32_t *ids, int T, int C);
/* dx += r (dy w) - x r^3/C sum(dy w x),  dw += sum_t dy x r,  r = 1/sqrt(mean(x^2)+eps); rms [T] is scratch */
void op_rmsnorm_bwd(op_ctx *ctx, float *dx, float *dw, const float *dy, const float *x, const float *w, float *rms,
                    int T, int C, float eps);
/* db [N] += dy [T,N] summed over rows */
void op_bias_bwd(op_ctx *ctx, float *db, const float *dy, int T, int N);
/* Writes dgate = dy up s (1 + gate (1 - s)) and dup = dy gate s, s = sigmoid(gate); they may be gate and up. */
void op_silu_mul_bwd(op_ctx *ctx, float *dgate, float *dup, const float *dy, const float *gate, const float *up, int T,
                     int F);
/* Writes the derivative of op_gelu_mul_fwd, s and u as in ops_int.h: dgate = dy up (s + gate s (1-s) 2u'),
 * dup = dy gate s; they may be gate and up. */
void op_gelu_mul_bwd(op_ctx *ctx, float *dgate, float *dup, const float *dy, const float *gate, const float *up, int T,
                     int F);
/* Writes dx = dy where x > 0, else 0; it may be dy or x. */
void op_relu_bwd(op_ctx *ctx, float *dx, const float *dy, const float *x, int T, int F);
/* dx [T,H,D] turned back in place */
void op_rope_bwd(op_ctx *ctx, float *dx, const float *cs, int T, int H, int D);

/* ---- attention ---- */

/* Gradients of one store's keys and values, [cap,G,D], f32. */
typedef struct op_kv_grad {
    float *dk, *dv;
} op_kv_grad;
/* dq [T,H,D] and, for every store that rows name, dk and dv.  out and stats are the forward's.  swapped: the stores
 * with keys and values exchanged (op_kv_write with k and v exchanged). */
size_t op_attention_bwd_scratch(const op_ctx *ctx, int T, int visible);
void op_attention_bwd(op_ctx *ctx, float *dq, const op_kv_grad *grad, const float *dout, const float *out,
                      const float *stats, const float *q, const op_kv *kv, const op_kv *swapped, const op_row *rows,
                      int T, int H, int G, int D, float scale, void *scratch);
/* That of op_attention_near_fwd; scale is 1.  dbias [H, 2 reach + 1] is added to, row by row; NULL: not wanted. */
void op_attention_near_bwd(op_ctx *ctx, float *dq, float *dbias, const op_kv_grad *grad, const float *dout,
                           const float *out, const float *stats, const float *q, const op_kv *kv, const op_kv *swapped,
                           const op_row *rows, int T, int H, int G, int D, float scale, const op_distance *near,
                           void *scratch);

/* ---- loss ---- */

/* One row of the loss over V classes. */
typedef struct op_loss_row {
    int32_t label;    /* -1: no label */
    float lm, kl;     /* weights in the gradient */
    double xent, div; /* out: -ln p(label), KL(teacher || row); 0 without */
} op_loss_row;
/* Writes d [T,V] = lm * (p - onehot(label)) + kl * (p - p_teacher), p = softmax(x); d may be x.  teacher [T,V] or NULL;
 * rows with kl 0 do not read it.  d NULL: losses only. */
void op_loss(op_ctx *ctx, float *d, const float *x, const float *teacher, op_loss_row *rows, int T, int V);

/* ---- optimiser ---- */

/* AdamW (Loshchilov, Hutter 2019), as PyTorch orders it, t >= 1; g is multiplied by scale first (clipping):
 *   w *= 1 - lr decay;  m += (1-b1)(g-m);  v = b2 v + (1-b2) g^2;  w -= lr/(1-b1^t) m / (sqrt(v)/sqrt(1-b2^t) + eps) */
typedef struct op_adamw_step {
    float lr, beta1, beta2, eps, decay, scale;
    int64_t t;
} op_adamw_step;
void op_adamw_update(op_ctx *ctx, float *w, float *m, float *v, const float *g, size_t n, const op_adamw_step *s);
/* Muon (muon.c) for a matrix w [N,K] with momentum m [N,K]; g is multiplied by scale first.  type: f32 or bf16, of the
 * products that orthogonalise.  scratch: op_muon_scratch bytes. */
typedef struct op_muon_step {
    float lr, momentum, decay, scale;
} op_muon_step;
size_t op_muon_scratch(dtype type, int N, int K);
void op_muon_update(op_ctx *ctx, float *w, float *m, const float *g, int N, int K, dtype type, const op_muon_step *s,
                    void *scratch);
/* sum of squares in double, in 64 parts of 16 lanes by index: the same for any number of threads */
double op_sum_squares(op_ctx *ctx, const float *x, size_t n);

#endif
