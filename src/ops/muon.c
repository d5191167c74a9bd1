/* muon.c - Muon, an optimiser for matrices: momentum whose singular values are all brought near 1.
 *
 *   m += (1-b)(g-m)        u = g + b (m-g)                      momentum, one step ahead (Nesterov)
 *   X = u / |u|            5 times:  A = X X^T,  X = (a I + b A + c A^2) X        Newton-Schulz, a quintic
 *   w = (1 - lr decay) w - lr 0.2 sqrt(max(N,K)) X              the root mean square of an AdamW step
 *
 * A gradient of a layer has few large directions; orthogonalised, the rare ones move as far as the common ones.
 * Source: Jordan et al. 2024, "Muon"; the scale, with which AdamW's learning rate serves both: Liu et al. 2025, "Muon
 * is Scalable for LLM Training"; torch.optim.Muon is the reference.  A is made of the shorter side: where N > K it is
 * X^T X, and the product comes from the right.  The products are the linear maps' own kernels.
 */
#include <math.h>

#include "ops/ops_int.h"

enum { ROUNDS = 5 };
static const float quintic[3] = { 3.4445f, -4.7750f, 2.0315f };
static const float smallest_norm = 1e-7f;

typedef struct muon_job {
    float *w, *m, *u;
    const float *g;
    const op_muon_step *s;
    float rate;
    float *P;
    const float *A, *A2;
    int C; /* columns of what is cut by rows */
} muon_job;

typedef struct muon_buffers {
    float *X, *Y;        /* [N,K] */
    float *A, *A2, *P;   /* [n,n], n the shorter side */
    void *rows;          /* an operand, */
    void *panels;        /* a packed matrix, */
    const void *operand; /* and where the operand is: f32 rows are used as they lie */
} muon_buffers;

static int shorter(int N, int K) {
    return N < K ? N : K;
}

static size_t largest(size_t a, size_t b) {
    return a > b ? a : b;
}

static void take(muon_buffers *b, arena *ar, dtype type, int N, int K) {
    int n = shorter(N, K);
    size_t all = (size_t)N * (size_t)K, square = (size_t)n * (size_t)n;
    b->X = arena_take(ar, all, sizeof(float));
    b->Y = arena_take(ar, all, sizeof(float));
    b->A = arena_take(ar, square, sizeof(float));
    b->A2 = arena_take(ar, square, sizeof(float));
    b->P = arena_take(ar, square, sizeof(float));
    size_t rows = largest((size_t)N * op_operand_bytes(K), (size_t)n * op_operand_bytes(n));
    b->rows = arena_take(ar, largest(rows, op_operand_t_bytes(type, N, K)), 1);
    size_t panels = largest(op_weight_bytes(type, N, K), op_weight_bytes(type, K, N));
    b->panels = arena_take(ar, largest(panels, op_weight_bytes(type, n, n)), 1);
}

size_t op_muon_scratch(dtype type, int N, int K) {
    muon_buffers b;
    arena ar;
    arena_init(&ar, NULL, 0);
    take(&b, &ar, type, N, K);
    return ar.peak;
}

/* ---- element by element ---- */

static void momentum_rows(void *arg, int first, int last) {
    const muon_job *j = arg;
    float b = j->s->momentum, scale = j->s->scale;
    for (size_t i = (size_t)first * (size_t)j->C; i < (size_t)last * (size_t)j->C; i++) {
        float g = j->g[i] * scale;
        j->m[i] += (1 - b) * (g - j->m[i]);
        j->u[i] = g + b * (j->m[i] - g);
    }
}

static void quintic_rows(void *arg, int first, int last) {
    const muon_job *j = arg;
    for (int r = first; r < last; r++) {
        size_t at = (size_t)r * (size_t)j->C;
        for (int c = 0; c < j->C; c++)
            j->P[at + (size_t)c] = quintic[1] * j->A[at + (size_t)c] + quintic[2] * j->A2[at + (size_t)c];
        j->P[at + (size_t)r] += quintic[0];
    }
}

static void update_rows(void *arg, int first, int last) {
    const muon_job *j = arg;
    float keep = 1 - j->s->lr * j->s->decay;
    for (size_t i = (size_t)first * (size_t)j->C; i < (size_t)last * (size_t)j->C; i++)
        j->w[i] = keep * j->w[i] - j->rate * j->u[i];
}

/* ---- products ---- */

enum { TILE = 16 };

/* What lies left of the diagonal's panels is the mirror of what lies above them. */
static void mirror(op_ctx *ctx, float *A, int n) {
    size_t ld = (size_t)n;
    for (int r = OP_PANEL; r < n; r += TILE)
        for (int c = 0; c < r / OP_PANEL * OP_PANEL; c += TILE) {
            float *to = A + (size_t)r * ld + (size_t)c;
            const float *from = A + (size_t)c * ld + (size_t)r;
            if (n - r >= TILE) {
                ctx->k->transpose(to, ld, from, ld);
                continue;
            }
            for (int i = 0; i < n - r; i++)
                for (int j = 0; j < TILE; j++) to[(size_t)i * ld + (size_t)j] = from[(size_t)j * ld + (size_t)i];
        }
}

/* y [n,n] = W W^T of a packed matrix W [n,k], whose rows are also the operand in b->rows: only the diagonal's panels
 * and what lies above them are computed. */
static void square(op_ctx *ctx, muon_buffers *b, float *y, const op_weight *W) {
    int n = W->N;
    size_t ldx = (size_t)(W->type == DT_BF16 ? W->K + (W->K & 1) : W->K);
    size_t panel = op_weight_bytes(W->type, OP_PANEL, W->K);
    for (int p = 0; p < n; p += OP_PANEL) {
        int cols = n - p < OP_PANEL ? n - p : OP_PANEL;
        ctx->k->gemm[W->type](y + p, (size_t)n, b->operand, ldx,
                              (const uint8_t *)W->panels + (size_t)(p / OP_PANEL) * panel, p + cols, W->K, cols, false);
    }
    mirror(ctx, y, n);
}

/* A [n,n] = X X^T, or X^T X where that is smaller; then A2 = A A^T. */
static void gram(op_ctx *ctx, muon_buffers *b, dtype type, int N, int K) {
    op_weight p = { type, N <= K ? N : K, N <= K ? K : N, b->panels };
    if (N <= K) {
        op_weight_pack(ctx, &p, b->X, DT_F32, N);
        b->operand = op_operand(ctx, b->rows, b->X, &p, N);
    } else {
        op_weight_pack_t(ctx, &p, b->X);
        op_operand_t(ctx, b->rows, b->X, type, N, K);
        b->operand = b->rows;
    }
    square(ctx, b, b->A, &p);
    p.K = p.N;
    op_weight_pack(ctx, &p, b->A, DT_F32, p.N);
    b->operand = op_operand(ctx, b->rows, b->A, &p, p.N);
    square(ctx, b, b->A2, &p);
}

/* Y [N,K] = P X, or X P; P is symmetric. */
static void apply(op_ctx *ctx, muon_buffers *b, dtype type, int N, int K) {
    const float *rows = N <= K ? b->P : b->X;
    op_weight p = { type, K, N <= K ? N : K, b->panels };
    if (N <= K)
        op_weight_pack_t(ctx, &p, b->X);
    else
        op_weight_pack(ctx, &p, b->P, DT_F32, K);
    op_linear_fwd(ctx, b->Y, op_operand(ctx, b->rows, rows, &p, N), &p, N);
}

void op_muon_update(op_ctx *ctx, float *w, float *m, const float *g, int N, int K, dtype type, const op_muon_step *s,
                    void *scratch) {
    muon_buffers b;
    arena ar;
    arena_init(&ar, scratch, op_muon_scratch(type, N, K));
    take(&b, &ar, type, N, K);
    int n = shorter(N, K);
    size_t width = (size_t)K;
    muon_job j = { .w = w, .m = m, .u = b.X, .g = g, .s = s, .P = b.P, .A = b.A, .A2 = b.A2, .C = K };
    op_for_rows(ctx, momentum_rows, &j, N, width);
    float norm = (float)sqrt(op_sum_squares(ctx, b.X, (size_t)N * width));
    op_scale(ctx, b.X, 1 / (norm > smallest_norm ? norm : smallest_norm), N, K);
    for (int i = 0; i < ROUNDS; i++) {
        gram(ctx, &b, type, N, K);
        j.C = n;
        op_for_rows(ctx, quintic_rows, &j, n, (size_t)n);
        apply(ctx, &b, type, N, K);
        float *x = b.X;
        b.X = b.Y;
        b.Y = x;
    }
    j.C = K;
    j.u = b.X;
    j.rate = s->lr * 0.2f * sqrtf((float)(N > K ? N : K));
    op_for_rows(ctx, update_rows, &j, N, width);
}
