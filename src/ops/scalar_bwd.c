/* scalar_bwd.c - the kernels of the backward pass in plain C: their definition.
 *
 * Above each stands the forward line that it differentiates.
 */
#include <math.h>

#include "ops/scalar_int.h"

/* y = x r w, r = 1/sqrt(mean(x^2) + eps) */
void scalar_rmsnorm_bwd(float *dx, float *rms, const float *dy, const float *x, const float *w, int C, float eps) {
    float square[OP_LANES] = { 0 }, dot[OP_LANES] = { 0 };
    for (int i = 0; i < C; i++) {
        square[i % OP_LANES] += x[i] * x[i];
        dot[i % OP_LANES] += dy[i] * w[i] * x[i];
    }
    float r = 1.0f / sqrtf(scalar_fold_sum(square) / (float)C + eps);
    float b = -r * r * r / (float)C * scalar_fold_sum(dot);
    for (int i = 0; i < C; i++) dx[i] += r * dy[i] * w[i] + b * x[i];
    *rms = r;
}

/* y = gate sigmoid(gate) up */
void scalar_silu_mul_bwd(float *dgate, float *dup, const float *dy, const float *gate, const float *up, int n) {
    for (int i = 0; i < n; i++) {
        float g = gate[i], u = up[i], s = 1.0f / (1.0f + scalar_exp(-g));
        dup[i] = dy[i] * (g * s);
        dgate[i] = dy[i] * u * (s * (1.0f + g * (1.0f - s)));
    }
}

/* y = gate s up, s = sigmoid(2u), 2u = GELU_ROOT gate (1 + GELU_CUBE gate^2) */
void scalar_gelu_mul_bwd(float *dgate, float *dup, const float *dy, const float *gate, const float *up, int n) {
    for (int i = 0; i < n; i++) {
        float g = gate[i], u = up[i], square = GELU_CUBE * g * g;
        float s = 1.0f / (1.0f + scalar_exp(-(GELU_ROOT * g * (1.0f + square))));
        float slope = GELU_ROOT * g * (1.0f + 3.0f * square);
        dup[i] = dy[i] * (g * s);
        dgate[i] = dy[i] * u * (s * (1.0f + slope * (1.0f - s)));
    }
}

/* y[i] += sum_t a[t][i] b[t][i] r[t]: the gradient of a norm's weight */
void scalar_fma_rows(float *y, const float *a, const float *b, const float *r, int rows, size_t stride, int n) {
    for (int i = 0; i < n; i++)
        for (int t = 0; t < rows; t++)
            y[i] += a[(size_t)t * stride + (size_t)i] * b[(size_t)t * stride + (size_t)i] * r[t];
}

void scalar_softmax_stats(const float *x, int n, float *max, double *sum) {
    float top = x[0], lane[OP_LANES] = { 0 };
    for (int i = 1; i < n; i++) top = x[i] > top ? x[i] : top;
    for (int i = 0; i < n; i++) lane[i % OP_LANES] += scalar_exp(x[i] - top);
    *max = top;
    *sum = (double)scalar_fold_sum(lane);
}

/* loss = lm * -ln p(label) + kl * KL(p_t || p), p = softmax(x); the caller subtracts lm at the label */
void scalar_xent_bwd(float *d, const float *x, const float *t, int n, op_xent *c) {
    float lane[OP_LANES] = { 0 }, shift = (c->max + logf(c->sum)) - (t ? c->tmax + logf(c->tsum) : 0);
    for (int i = 0; i < n; i++) {
        float xi = x[i], p = scalar_exp(xi - c->max) * ((c->lm + c->kl) / c->sum);
        if (t) {
            float q = scalar_exp(t[i] - c->tmax) / c->tsum;
            lane[i % OP_LANES] += q * (t[i] - xi + shift);
            p -= c->kl * q;
        }
        if (d) d[i] = p;
    }
    c->kl_sum = (double)scalar_fold_sum(lane);
}

void scalar_adamw(float *w, float *m, float *v, const float *g, size_t n, const op_adamw *c) {
    for (size_t i = 0; i < n; i++) {
        float grad = g[i] * c->scale;
        m[i] += (1.0f - c->beta1) * (grad - m[i]);
        v[i] = v[i] * c->beta2 + grad * grad * (1.0f - c->beta2);
        w[i] = w[i] * c->keep - c->rate * (m[i] / (sqrtf(v[i]) / c->root + c->eps));
    }
}

/* ---- attention: P = exp(scale q k^T - max)/sum, out = P v ---- */

/* One query vector: its element 0 is at `at` of q. */
typedef struct query_bwd {
    size_t at;
    const float *stats, *bias;
    float *dbias;
    float delta;
} query_bwd;

/* dq, dk, dv of one query vector over one span, whose first key is its visible key `first`; p and dp come from the
 * stored statistics */
static void span_bwd(const op_tile_bwd *b, const op_span *s, float *dk, float *dv, const query_bwd *q, int first,
                     int hi) {
    const op_tile *t = &b->fwd;
    const float *stats = q->stats;
    size_t at = q->at;
    for (int j = s->lo; j < hi; j++) {
        int v = first + j - s->lo;
        float score = 0, dp = 0;
        for (int d = 0; d < t->D; d++) {
            score += t->q[at + (size_t)d] * scalar_key(s, j, d, t->D);
            dp += b->dout[at + (size_t)d] * scalar_value(s, j, d, t->D);
        }
        score = score * t->scale + (q->bias ? q->bias[v] : 0.0f);
        float p = scalar_exp(score - stats[0]) * stats[1], ds = p * (dp - q->delta) * t->scale;
        if (q->dbias) q->dbias[v] += ds;
        for (int d = 0; d < t->D; d++) {
            size_t grad = (size_t)j * b->grad_stride + (size_t)d;
            b->dq[at + (size_t)d] += ds * scalar_key(s, j, d, t->D);
            dk[grad] += ds * t->q[at + (size_t)d];
            dv[grad] += p * b->dout[at + (size_t)d];
        }
    }
}

void scalar_attend_bwd(const op_tile_bwd *b) {
    const op_tile *t = &b->fwd;
    for (int i = 0; i < t->rows * t->heads; i++) {
        int r = i / t->heads, h = i % t->heads;
        size_t at = (size_t)r * t->stride + (size_t)h * (size_t)t->D;
        int memory = t->mem.hi > t->mem.lo ? t->mem.hi - t->mem.lo : 0;
        query_bwd q = { .at = at, .stats = t->stats + (size_t)r * t->stats_stride + 2 * (size_t)h };
        if (t->bias[0]) q.bias = t->bias[r] + (size_t)h * t->bias_stride;
        if (b->dbias[0]) q.dbias = b->dbias[r] + (size_t)h * t->bias_stride;
        float lane[OP_LANES] = { 0 };
        for (int d = 0; d < t->D; d++) lane[d % OP_LANES] += t->out[at + (size_t)d] * b->dout[at + (size_t)d];
        q.delta = scalar_fold_sum(lane);
        span_bwd(b, &t->mem, b->mem_dk, b->mem_dv, &q, 0, t->mem.hi);
        span_bwd(b, &t->local, b->local_dk, b->local_dv, &q, memory, t->hi[r]);
    }
}
