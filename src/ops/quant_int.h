/* quant_int.h - weights of block types in panels, and the rows they multiply.
 *
 * A weight is an unsigned integer u of its block, an activation a signed one; runs are 32 inputs long:
 *
 *     w = s (u - offset)      q8_0: offset 128, q4_0: 8, q6_K: 32 and an s for each half of the run
 *     w = s u - m             q4_K, q5_K
 *     x = a q                 q in -127 .. 127, a = max|x| / 127
 *
 *     y = sum over runs, in order, of (sum u q - offset sum q) * (s a)  [- m * (a sum q)]
 *
 * Sums of integers are exact, whatever the instructions; s, m and the rest are rounded as written, and each run (each
 * half in q6_K) is added by one fused multiply-add, then the minimum by another.  So every kernel level computes the
 * same bits.
 *
 * A panel is ceil(N/64) times K/32 or K/256 of the structs below.  Groups of 4 consecutive inputs lie side by side for
 * each of 64 outputs, as dot products of bytes eat them.  Nibbles: group g in the low half, g + 4 in the high half.
 * All sizes are multiples of 64.  Bytes per weight are the file's; q4_K and q5_K spend 4 bytes in 144 and 176 more,
 * because scales of 6 bits get a byte.
 */
#ifndef GIST_QUANT_INT_H
#define GIST_QUANT_INT_H

#include "ops/ops_int.h"

#define QUANT_LEAST 0x1p-100f /* a run whose largest |x| is below has scale 0: 127 / |x| would overflow */
enum { QUANT_RUN = 32, QUANT_RUNS = 8 /* in a block of 256 */, QUANT_GROUPS = 8 /* of 4 inputs in a run */ };

typedef struct panel_q8_0 {
    uint16_t s[OP_PANEL];               /* f16 */
    uint8_t u[QUANT_GROUPS][OP_PANEL][4]; /* the file's int8 + 128 */
} panel_q8_0;

typedef uint8_t panel_nibbles[QUANT_GROUPS / 2][OP_PANEL][4];

typedef struct panel_q4_0 {
    uint16_t s[OP_PANEL];
    panel_nibbles u;
} panel_q4_0;

typedef struct panel_q4_K {
    uint16_t d[OP_PANEL], m[OP_PANEL];
    struct {
        uint8_t s[OP_PANEL], m[OP_PANEL]; /* of d and m */
        panel_nibbles u;
    } run[QUANT_RUNS];
} panel_q4_K;

typedef struct panel_q5_K {
    uint16_t d[OP_PANEL], m[OP_PANEL];
    struct {
        uint8_t s[OP_PANEL], m[OP_PANEL];
        panel_nibbles u;
        uint8_t high[OP_PANEL][4]; /* bit g: bit 4 of group g */
    } run[QUANT_RUNS];
} panel_q5_K;

typedef struct panel_q6_K {
    uint16_t d[OP_PANEL];
    struct {
        int8_t s[2][OP_PANEL];
        panel_nibbles u;
        uint8_t high[2][OP_PANEL][4]; /* bits 2i, 2i+1 of high[h]: bits 4, 5 of group 4h + i */
    } run[QUANT_RUNS];
} panel_q6_K;

/* The run's scale from the bits of its largest |x|, and everything else zero; returns 127 / |x|, or 0 when that is all
 * there is to do. */
static inline float quant_begin(op_qrun *y, int32_t bits) {
    float most;
    memcpy(&most, &bits, sizeof most);
    memset(y, 0, sizeof *y);
    if (bits >= 0x7f800000) y->scale = y->sum = __builtin_nanf("");
    if (bits >= 0x7f800000 || most < QUANT_LEAST) return 0;
    y->scale = most / 127.0f;
    return 127.0f / most;
}

/* ---- linear_quant.c: packing, without loss ---- */

/* Bytes of one panel struct; 0: not a block type. */
size_t quant_panel_step(dtype type);

/* Columns 0 .. cols-1 of W's panel from rows of src, row-major with W->K inputs, converted where the types differ. */
void quant_pack(const op_weight *W, void *panel, const uint8_t *src, dtype src_type, int cols);
void quant_set_row(const op_weight *W, void *panel, int j, const float *x);
void quant_get_row(const op_weight *W, const void *panel, int j, float *x);

#endif
