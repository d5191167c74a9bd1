/* eval_lcs.c - longest common subsequences, 64 columns of the table at a time.
 *
 *     t[i][j] = length for row[0,i) and col[0,j)
 *
 *              strip 0          strip 1                 a column j grows in row i when t[i][j] = t[i][j-1] + 1, and
 *     row 1  [ 64 columns ] -> [ 64 columns ] ->        rises there when t[i][j] = t[i-1][j] + 1; V has a zero bit
 *     row 2  [            ] -> [            ] ->        for each column that grows.  Within a run of ones of V that
 *      ...    V goes down,      carries go right        begins behind a growing column, the first match takes the
 *                                                       growth over: V + (V & match) carries from there to the end
 *
 * The carry out of a column is exactly "rises".  A strip's V lives in a register while the rows go by; only one bit per
 * row crosses to the next strip, so a length needs rows/8 bytes.  For the path, each strip's incoming bits are kept and
 * its rises are computed again when the walk back reaches it.
 *
 * Source: Crochemore, Iliopoulos, Pinzon, Reid, "A fast and practical bit-vector algorithm for the longest common
 * subsequence problem", IPL 80(6), 2001; the order of the strips and the walk are ours.
 */
#include "eval/eval_int.h"

static size_t row_words(int rows) {
    return ((size_t)rows + 63) / 64;
}

static int strips_of(int cols) {
    return (cols + 63) / 64;
}

static void set_masks(uint64_t *mask, const int32_t *col, int cols, int strip) {
    for (int j = strip * 64; j < cols && j < strip * 64 + 64; j++) mask[col[j]] |= (uint64_t)1 << (j & 63);
}

static void clear_masks(uint64_t *mask, const int32_t *col, int cols, int strip) {
    for (int j = strip * 64; j < cols && j < strip * 64 + 64; j++) mask[col[j]] = 0;
}

/* All rows of one strip.  in (NULL: no bits) and out may be the same.  rises (may be NULL): [rows] words.  Returns the
 * columns that grow in the last row; columns beyond the last one never match, so they never do. */
static uint64_t run_strip(const uint64_t *mask, const int32_t *row, int rows, const uint64_t *in, uint64_t *out,
                          uint64_t *rises) {
    uint64_t v = ~(uint64_t)0;
    for (int base = 0; base < rows; base += 64) {
        int n = rows - base < 64 ? rows - base : 64;
        uint64_t carry = in ? in[base / 64] : 0, next = 0;
        for (int i = 0; i < n; i++) {
            uint64_t m = mask[row[base + i]], u = v & m, sum = v + u + (carry >> i & 1);
            uint64_t rise = u | (v & ~sum);
            if (rises) rises[base + i] = rise;
            next |= rise >> 63 << i;
            v = sum | (v & ~m);
        }
        out[base / 64] = next;
    }
    return ~v;
}

size_t eval_lcs_length_words(int rows) {
    return row_words(rows);
}

int eval_lcs_length(uint64_t *mask, uint64_t *bits, const int32_t *row, int rows, const int32_t *col, int cols) {
    int length = 0;
    for (int s = 0; s < strips_of(cols); s++) {
        set_masks(mask, col, cols, s);
        length += __builtin_popcountll(run_strip(mask, row, rows, s ? bits : NULL, bits, NULL));
        clear_masks(mask, col, cols, s);
    }
    return length;
}

size_t eval_lcs_mark_words(int rows, int cols) {
    return (size_t)rows + (size_t)strips_of(cols) * row_words(rows);
}

/* bits: rises [rows], then the bits that leave each strip [strips][row_words] */
void eval_lcs_mark(uint64_t *mask, uint64_t *bits, const int32_t *row, int rows, const int32_t *col, int cols,
                   uint8_t *mark) {
    size_t words = row_words(rows);
    uint64_t *rises = bits, *leave = bits + rows;
    int last = strips_of(cols) - 1, i = rows, j = cols;
    for (int s = 0; s < last; s++) {
        set_masks(mask, col, cols, s);
        run_strip(mask, row, rows, s ? leave + (size_t)(s - 1) * words : NULL, leave + (size_t)s * words, NULL);
        clear_masks(mask, col, cols, s);
    }
    for (int s = last; s >= 0 && i > 0; s--) {
        set_masks(mask, col, cols, s);
        run_strip(mask, row, i, s ? leave + (size_t)(s - 1) * words : NULL, leave + (size_t)s * words, rises);
        clear_masks(mask, col, cols, s);
        while (i > 0 && j > s * 64) {
            if (row[i - 1] == col[j - 1]) {
                mark[--i] = 1;
                j--;
            } else if (rises[i - 1] >> ((j - 1) & 63) & 1) {
                j--; /* t[i][j-1] > t[i-1][j] */
            } else {
                i--;
            }
        }
    }
}
