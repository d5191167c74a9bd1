/* simd_kernels_bwd.h - the vector kernels of the backward pass, over the same 16 lanes as simd_kernels.h.
 *
 * Included after it by each level's file; scalar_bwd.c defines what each kernel computes.  Attention reuses the
 * forward's two kernels on the stores with keys and values exchanged, and adds one: sums of outer products.
 */

/* ---- pointwise ---- */

static void rmsnorm_bwd(float *dx, float *rms, const float *dy, const float *x, const float *w, int C, float eps) {
    vf sum = vf_zero(), dot = vf_zero();
    for (int i = 0; i < C; i += OP_LANES) {
        vf v = vf_load_n(x + i, C - i), g = vf_mul(vf_load_n(dy + i, C - i), vf_load_n(w + i, C - i));
        sum = vf_fma(v, v, sum);
        dot = vf_fma(g, v, dot);
    }
    float r = 1.0f / sqrtf(vf_fold_sum(sum) / (float)C + eps);
    vf a = vf_set(r), b = vf_set(-r * r * r / (float)C * vf_fold_sum(dot));
    for (int i = 0; i < C; i += OP_LANES) {
        vf g = vf_mul(vf_load_n(dy + i, C - i), vf_load_n(w + i, C - i));
        vf d = vf_fma(b, vf_load_n(x + i, C - i), vf_load_n(dx + i, C - i));
        vf_store_n(dx + i, vf_fma(a, g, d), C - i);
    }
    *rms = r;
}

static void silu_mul_bwd(float *dgate, float *dup, const float *dy, const float *gate, const float *up, int n) {
    vf one = vf_set(1.0f);
    for (int i = 0; i < n; i += OP_LANES) {
        vf g = vf_load_n(gate + i, n - i), u = vf_load_n(up + i, n - i), d = vf_load_n(dy + i, n - i);
        vf s = vf_div(one, vf_add(one, vf_exp(vf_sub(vf_zero(), g))));
        vf slope = vf_mul(s, vf_fma(g, vf_sub(one, s), one));
        vf_store_n(dup + i, vf_mul(d, vf_mul(g, s)), n - i);
        vf_store_n(dgate + i, vf_mul(vf_mul(d, u), slope), n - i);
    }
}

static void gelu_mul_bwd(float *dgate, float *dup, const float *dy, const float *gate, const float *up, int n) {
    vf one = vf_set(1.0f);
    for (int i = 0; i < n; i += OP_LANES) {
        vf g = vf_load_n(gate + i, n - i), u = vf_load_n(up + i, n - i), d = vf_load_n(dy + i, n - i), square;
        vf s = vf_div(one, gelu_below(g, &square));
        vf slope = vf_mul(vf_mul(vf_set(GELU_ROOT), g), vf_fma(vf_set(3.0f), square, one));
        vf_store_n(dup + i, vf_mul(d, vf_mul(g, s)), n - i);
        vf_store_n(dgate + i, vf_mul(vf_mul(d, u), vf_mul(s, vf_fma(slope, vf_sub(one, s), one))), n - i);
    }
}

static void fma_rows(float *y, const float *a, const float *b, const float *r, int rows, size_t stride, int n) {
    for (int i = 0; i < n; i += OP_LANES) {
        vf sum = vf_load_n(y + i, n - i);
        for (int t = 0; t < rows; t++) {
            size_t at = (size_t)t * stride + (size_t)i;
            sum = vf_fma(vf_mul(vf_load_n(a + at, n - i), vf_load_n(b + at, n - i)), vf_set(r[t]), sum);
        }
        vf_store_n(y + i, sum, n - i);
    }
}

/* ---- loss ---- */

INLINE vf exp_lanes(const float *x, vf max, int n) {
    vf e = vf_exp(vf_sub(vf_load_n(x, n), max));
    if (n >= OP_LANES) return e;
    float lane[OP_LANES];
    vf_store(lane, e);
    return vf_load_part(lane, n); /* missing lanes read as zero */
}

static void softmax_stats(const float *x, int n, float *max, double *sum) {
    float top = x[0];
    vf m = vf_set(top), s = vf_zero();
    int i = 0;
    for (; i + OP_LANES <= n; i += OP_LANES) m = vf_max(m, vf_load(x + i));
    top = vf_fold_max(m);
    for (; i < n; i++) top = x[i] > top ? x[i] : top;
    for (i = 0; i < n; i += OP_LANES) s = vf_add(s, exp_lanes(x + i, vf_set(top), n - i));
    *max = top;
    *sum = (double)vf_fold_sum(s);
}

static void xent_bwd(float *d, const float *x, const float *t, int n, op_xent *c) {
    vf max = vf_set(c->max), inv = vf_set((c->lm + c->kl) / c->sum);
    if (!t) {
        for (int i = 0; d && i < n; i += OP_LANES)
            vf_store_n(d + i, vf_mul(vf_exp(vf_sub(vf_load_n(x + i, n - i), max)), inv), n - i);
        return;
    }
    vf tmax = vf_set(c->tmax), tinv = vf_set(1.0f / c->tsum), kl = vf_set(-c->kl), div = vf_zero();
    vf shift = vf_set((c->max + logf(c->sum)) - (c->tmax + logf(c->tsum))); /* ln p_t - ln p_x = t - x + shift */
    for (int i = 0; i < n; i += OP_LANES) {
        vf a = vf_load_n(x + i, n - i), b = vf_load_n(t + i, n - i);
        vf p = vf_mul(exp_lanes(t + i, tmax, n - i), tinv);
        div = vf_fma(p, vf_add(vf_sub(b, a), shift), div);
        if (d) vf_store_n(d + i, vf_fma(kl, p, vf_mul(vf_exp(vf_sub(a, max)), inv)), n - i);
    }
    c->kl_sum = (double)vf_fold_sum(div);
}

/* ---- optimiser ---- */

static void adamw(float *w, float *m, float *v, const float *g, size_t n, const op_adamw *c) {
    vf keep = vf_set(c->keep), b1 = vf_set(1.0f - c->beta1), b2 = vf_set(c->beta2), c2 = vf_set(1.0f - c->beta2);
    vf eps = vf_set(c->eps), rate = vf_set(-c->rate), root = vf_set(1.0f / c->root), scale = vf_set(c->scale);
    for (size_t i = 0; i < n; i += OP_LANES) {
        int k = n - i < OP_LANES ? (int)(n - i) : OP_LANES;
        vf grad = vf_mul(vf_load_n(g + i, k), scale), a = vf_load_n(m + i, k), b = vf_load_n(v + i, k);
        a = vf_fma(b1, vf_sub(grad, a), a);
        b = vf_fma(vf_mul(grad, grad), c2, vf_mul(b, b2));
        vf step = vf_div(a, vf_fma(vf_sqrt(b), root, eps));
        vf_store_n(m + i, a, k);
        vf_store_n(v + i, b, k);
        vf_store_n(w + i, vf_fma(rate, step, vf_mul(vf_load_n(w + i, k), keep)), k);
    }
}

/* ---- attention ---- */

/* out[j] += sum over query vectors i of p[i][j] * x[i], for n keys from j on and `vecs` vectors of D from d0 on.
 * n and vecs are constants at every call. */
INLINE void outer_block(float *out, size_t stride, const op_tile *t, const float *score, const float *x, size_t offset,
                        int j, int lo, int n, int d0, int vecs, int last) {
    vf acc[GEMM_ROWS][GEMM_VECS];
    UNROLL for (int r = 0; r < n; r++) UNROLL for (int v = 0; v < vecs; v++)
        acc[r][v] = vf_load_n(out + (size_t)(j + r) * stride + d0 + v * OP_LANES, v == vecs - 1 ? last : OP_LANES);
    for (int i = 0; i < t->rows * t->heads; i++) {
        const float *p = score + (size_t)i * t->score_stride + offset + (size_t)(j - lo);
        const float *xi = x + vector_at(t, i) + d0;
        vf val[GEMM_VECS];
        UNROLL for (int v = 0; v < vecs; v++) val[v] = vf_load_n(xi + v * OP_LANES, v == vecs - 1 ? last : OP_LANES);
        UNROLL for (int r = 0; r < n; r++) {
            vf w = vf_set(p[r]);
            UNROLL for (int v = 0; v < vecs; v++) acc[r][v] = vf_fma(w, val[v], acc[r][v]);
        }
    }
    UNROLL for (int r = 0; r < n; r++) UNROLL for (int v = 0; v < vecs; v++)
        vf_store_n(out + (size_t)(j + r) * stride + d0 + v * OP_LANES, acc[r][v], v == vecs - 1 ? last : OP_LANES);
}

INLINE void outer_keys(float *out, size_t stride, const op_tile *t, const float *score, const float *x, size_t offset,
                       int j, int lo, int n) {
    int d = 0, D = t->D;
    for (; d + GEMM_VECS * OP_LANES <= D; d += GEMM_VECS * OP_LANES)
        outer_block(out, stride, t, score, x, offset, j, lo, n, d, GEMM_VECS, OP_LANES);
    for (; d < D; d += OP_LANES)
        outer_block(out, stride, t, score, x, offset, j, lo, n, d, 1, D - d < OP_LANES ? D - d : OP_LANES);
}

static void outer_span(float *out, size_t stride, const op_tile *t, const op_span *s, const float *score,
                       const float *x, size_t offset) {
    int j = s->lo;
    for (; j + GEMM_ROWS <= s->hi; j += GEMM_ROWS) outer_keys(out, stride, t, score, x, offset, j, s->lo, GEMM_ROWS);
    for (; j < s->hi; j++) outer_keys(out, stride, t, score, x, offset, j, s->lo, 1);
}

/* Scores into probabilities, dP into dS, for one query vector with n visible keys of at most `longest` in the tile. */
INLINE void score_bwd(float *p, float *ds, const float *stats, float delta, float scale, int n, int longest) {
    vf max = vf_set(stats[0]), inverse = vf_set(stats[1]), shift = vf_set(delta), factor = vf_set(scale);
    for (int v = 0; v < n; v += OP_LANES) {
        vf q = vf_mul(exp_lanes(p + v, max, n - v), inverse);
        vf_store_n(p + v, q, n - v);
        vf_store_n(ds + v, vf_mul(vf_mul(q, vf_sub(vf_load_n(ds + v, n - v), shift)), factor), n - v);
    }
    for (int v = n; v < longest; v++) p[v] = ds[v] = 0; /* hidden from this row, visible to another of the tile */
}

static void attend_bwd(const op_tile_bwd *b) {
    const op_tile *t = &b->fwd;
    int memory = t->mem.hi > t->mem.lo ? t->mem.hi - t->mem.lo : 0, M = t->rows * t->heads;
    int longest = memory + (t->local.hi > t->local.lo ? t->local.hi - t->local.lo : 0);
    op_tile g = *t; /* the forward's kernels once more: dP = dout V^T, then dq += dS K */
    g.q = b->dout;
    g.out = b->dq;
    g.score = b->dscore;
    g.scale = 1;
    score_span(t, &t->mem, NULL, 0);
    score_span(t, &t->local, t->hi, (size_t)memory);
    score_span(&g, &b->mem_swapped, NULL, 0);
    score_span(&g, &b->local_swapped, t->hi, (size_t)memory);
    for (int i = 0; i < M; i++) {
        const float *out = t->out + vector_at(t, i), *dout = b->dout + vector_at(t, i);
        const float *stats = t->stats + (size_t)(i / t->heads) * t->stats_stride + (size_t)(i % t->heads) * 2;
        int end = t->hi[i / t->heads], n = memory + (end > t->local.lo ? end - t->local.lo : 0);
        vf dot = vf_zero();
        for (int d = 0; d < t->D; d += OP_LANES)
            dot = vf_fma(vf_load_n(out + d, t->D - d), vf_load_n(dout + d, t->D - d), dot);
        if (t->bias[0]) bias_scores(t, i, n);
        score_bwd(score_row(t, i), score_row(&g, i), stats, vf_fold_sum(dot), t->scale, n, longest);
        if (b->dbias[0]) {
            float *dbias = b->dbias[i / t->heads] + (size_t)(i % t->heads) * t->bias_stride;
            add(dbias, dbias, score_row(&g, i), n);
        }
    }
    value_span(&g, &b->mem_swapped, NULL, 0);
    value_span(&g, &b->local_swapped, t->hi, (size_t)memory);
    outer_span(b->mem_dv, b->grad_stride, t, &t->mem, t->score, b->dout, 0);
    outer_span(b->mem_dk, b->grad_stride, t, &t->mem, b->dscore, t->q, 0);
    outer_span(b->local_dv, b->grad_stride, t, &t->local, t->score, b->dout, (size_t)memory);
    outer_span(b->local_dk, b->grad_stride, t, &t->local, b->dscore, t->q, (size_t)memory);
}

/* What every level takes from these two headers for its table. */
#define VECTOR_KERNELS \
    .transpose = transpose, .rmsnorm = rmsnorm, .silu_mul = silu_mul, .add = add, \
    .gelu_mul = gelu_mul, .gelu_mul_bwd = gelu_mul_bwd, \
    .rope = rope, .attend = attend, .attend_bwd = attend_bwd, .rmsnorm_bwd = rmsnorm_bwd, \
    .silu_mul_bwd = silu_mul_bwd, .fma_rows = fma_rows, .softmax_stats = softmax_stats, .xent_bwd = xent_bwd, \
    .adamw = adamw
