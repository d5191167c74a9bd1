/* scalar_int.h - shared by scalar.c (forward) and scalar_bwd.c (backward): loads, exp, the fold of 16 lanes.
 */
#ifndef GIST_SCALAR_INT_H
#define GIST_SCALAR_INT_H

#include "ops/ops_int.h"

float scalar_load(const void *p, dtype type, size_t i);
float scalar_key(const op_span *s, int j, int d, int D); /* element d of key j */
float scalar_value(const op_span *s, int j, int d, int D);
float scalar_fold_sum(const float lane[OP_LANES]); /* 8+8, 4+4, 2+2, 1+1 */
float scalar_exp(float x);

void scalar_rmsnorm_bwd(float *dx, float *rms, const float *dy, const float *x, const float *w, int C, float eps);
void scalar_silu_mul_bwd(float *dgate, float *dup, const float *dy, const float *gate, const float *up, int n);
void scalar_gelu_mul_bwd(float *dgate, float *dup, const float *dy, const float *gate, const float *up, int n);
void scalar_fma_rows(float *y, const float *a, const float *b, const float *r, int rows, size_t stride, int n);
void scalar_softmax_stats(const float *x, int n, float *max, double *sum);
void scalar_xent_bwd(float *d, const float *x, const float *t, int n, op_xent *c);
void scalar_adamw(float *w, float *m, float *v, const float *g, size_t n, const op_adamw *c);
void scalar_attend_bwd(const op_tile_bwd *t);

#endif
