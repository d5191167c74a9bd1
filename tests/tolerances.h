/* tolerances.h - how far two computations of the same thing may lie apart, in one place, with the reasons.
 *
 * All are bounds on max|got - ref| / max|ref| over one tensor (test_max_rel).  u = 2^-24 is half a unit in the last
 * place of f32, v = 2^-9 that of bf16.  What must be equal bit for bit has no place here: bf16 rounding, packing, rows
 * alone against rows in a batch, threads, splits, gist against mask (see the laws).
 *
 * "level" is any kernel level against the scalar definition on the same operands: both sum in the same order, but a
 * fused multiply-add rounds once where the definition rounds twice, and VDPBF16PS adds pairs and flushes subnormals.
 * "exact" is the scalar definition against plain code in double precision on the same operands.
 */
#ifndef TOLERANCES_H
#define TOLERANCES_H

/*      what                          bound      why */
#define TOL_LINEAR_F32_LEVEL          4e-6   /* K <= 1100 roundings of partial sums about sqrt(K)/3 wide: ~ sqrt(K) u */
#define TOL_LINEAR_F16_LEVEL          4e-6   /* operands widen exactly, so as f32 */
#define TOL_LINEAR_BF16_LEVEL         4e-6   /* products of two bf16 are exact in f32; only the sums round */
#define TOL_LINEAR_EXACT              4e-6   /* the same walk of roundings, one-sided */
#define TOL_LINEAR_QUANT_EXACT        1e-6   /* block types, of the sum of |products|: few roundings per run, at most 24
                                                runs; levels agree bit for bit */
#define TOL_RMSNORM_LEVEL             5e-7   /* 16 lanes of C/16 squares, then a root and two products: a few u */
#define TOL_RMSNORM_EXACT             1e-6
#define TOL_SILU_LEVEL                1e-6   /* exp's polynomial is good to 2^-22 = 4 u on either side */
#define TOL_SILU_EXACT                1e-6
#define TOL_GELU_LEVEL                1e-6   /* as silu: the argument of exp moves by some u of itself, and where it is
                                                large exp is small */
#define TOL_GELU_EXACT                1e-6
#define TOL_ROPE_LEVEL                3e-7   /* two products and a sum: at most 3 roundings of values <= sqrt(2) */
#define TOL_ROPE_EXACT                3e-7
#define TOL_ROPE_TABLE                1e-7   /* cosine and sine are rounded once from double */
#define TOL_ATTENTION_F32_LEVEL       1e-5   /* scores up to ~8 in size move by ~ sqrt(D) u, exp makes it relative */
#define TOL_ATTENTION_BF16_LEVEL      1e-5   /* keys and values are what the store holds: rounding them is not in it */
#define TOL_ATTENTION_F16_LEVEL       1e-5
#define TOL_ATTENTION_Q8_0_LEVEL      1e-5   /* scale times integer is exact in f32 */
#define TOL_ATTENTION_EXACT           1e-5

/* Backward ops.  "exact" is against central differences in double, which are good to 1e-8 here.  Gradients are added to
 * what is there, so the bound is on both together. */
#define TOL_LINEAR_BWD_LEVEL          4e-6   /* the forward's kernel: the same walk of roundings over <= 200 terms */
#define TOL_LINEAR_BWD_EXACT          4e-6
#define TOL_ROWS_BWD_EXACT            1e-6   /* a few plain additions */
#define TOL_RMSNORM_BWD_LEVEL         1e-6   /* two sums in 16 lanes, a root, its cube */
#define TOL_RMSNORM_BWD_EXACT         2e-6
#define TOL_SILU_BWD_LEVEL            1e-6   /* as forward */
#define TOL_SILU_BWD_EXACT            1e-6
#define TOL_GELU_BWD_LEVEL            2e-6   /* as silu; its slope has one more product */
#define TOL_GELU_BWD_EXACT            2e-6
#define TOL_ATTENTION_BWD_LEVEL       1e-5   /* as forward; dP - sum(dout out) cancels, relative to dP it is a few u */
#define TOL_ATTENTION_BWD_EXACT       1e-5
#define TOL_LOSS_BWD_LEVEL            1e-6   /* exp on either side */
#define TOL_LOSS_BWD_EXACT            1e-6
#define TOL_LOSS_VALUE                1e-6   /* of 1 + loss: the sum over the vocabulary is f32 in 16 lanes */
#define TOL_ADAMW_LEVEL               1e-6   /* some ten roundings; bias corrections are rounded once from double */
#define TOL_ADAMW_EXACT               1e-6
#define TOL_MUON_F32                  1e-4   /* five rounds of three products; a small singular value, and what rounding
                                                did to it, grows up to 3.4 times in each */
#define TOL_MUON_BF16                 1e-1   /* the same with v in the place of u; a step is a tenth of w here */

/* Whole models against transformers in f32 (issue: the bounds that must hold). */
#define TOL_LOGITS_F32                1e-4   /* f32 weights (or f16, bf16 widened exactly), KV cache in f32 */
#define TOL_LOGITS_BF16               2e-2   /* a bf16 model: v per operand and cached row, averaged over C inputs */
#define TOL_LOGITS_ROUNDED            4e-2   /* f32 and f16 models rounded to bf16 at load: the weights' own v comes on
                                                top, and 12 to 20 inputs average little */
#define TOL_LOGITS_INT8               5e-2   /* tiny models in blocks: activations of 8 bits against f32 */
#define TOL_LOGITS_Q8_0               5e-2   /* and their weights, of 8 bits */
#define TOL_LOGITS_Q4                 6e-1   /* 4 bits, of random weights: every layer loses half a step of a block */
#define TOL_ROWS_F32                  1e-4   /* keys and values of a gist, as logits */
#define TOL_ROWS_BF16                 2e-2
#define TOL_GRADIENT                  2e-5   /* both sides are f32: a few u over sums of some dozens of terms */
#define TOL_ROTATE                    1e-5   /* a key turned to p and back: two rotations whose angles are f32 */

/* Rebased gists: keys are turned back and, in a narrow KV type, rounded a second time. */
#define TOL_REBASE_F32                1e-4
#define TOL_REBASE_F16                1e-2   /* f16: 2^-11 per key component */
#define TOL_REBASE_BF16               5e-2   /* bf16: v per key component, in every layer */
#define TOL_REBASE_Q8_0               1e-1   /* q8_0: 1/254 of the largest of 32 components */

/* Sums over all weights of a tiny model, in f64, in another order: 10,620 terms of up to 16,000 in all, u = 2^-53. */
#define TOL_SUM_F64                   2e-8

/* Counts and shares (test_flops.c), relative. */
#define TOL_POINTWISE_FLOPS           8e-2   /* element-wise operations differ between versions of the implementation */
#define TOL_SAVING                    1e-12  /* double, 40 terms */

#endif
