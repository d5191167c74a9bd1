/* train_pack_t5.c - pairs of one prompt for an encoder-decoder model: sources, answers, and what they see.
 *
 *      source   0 ... p-1    p ... p+k-1   |  rest a  |  rest b  | ...      gist: one encoding of prompt and gists
 *               the prompt   <GIST>...     |  x x </s>|  x </s>  |
 *      sees     [0, p+k)     [0, p+k)      |  [p,p+k) and its own rest
 *
 *      source   0 ... p-1    p ... p+k-1   rest c     full, pos_control: rows see one another, so each pair has its own
 *      source   rest d                                none, neg_control: the rest alone
 *
 *      answer   start  y  y                causally; across, what its pair's rest sees
 *      labels   y      y  </s>
 *
 * Positions are relative, so nothing marks a prompt that is not there.  Gist tokens see each other: k is one number.
 * A teacher copy is the pair again under the full prompt.  Source: gisting.md's table (Mu et al. 2023).
 */
#include <limits.h>

#include "train/train_pack_int.h"

static bool copies_prompt(train_condition c) {
    return c == COND_FULL || c == COND_POS_CONTROL;
}

static bool shares_prompt(const train_condition *c, int n) {
    for (int i = 0; i < n; i++)
        if (c[i] == COND_GIST) return true;
    return false;
}

int64_t train_t5_rows(const train_set *set, int prompt, const int *pairs, const train_condition *c, const int *k, int n,
                      const train_pack_options *opt) {
    int p = set->prompt[prompt].len;
    int64_t rows = shares_prompt(c, n) ? p + train_pack_largest_k(opt) : 0;
    for (int i = 0; i < n; i++) {
        const train_pair *q = &set->pair[pairs[i]];
        int64_t own = q->input_len + q->answer_len;
        rows += own + (copies_prompt(c[i]) ? p + (c[i] == COND_POS_CONTROL ? k[i] : 0) : 0);
        if (opt->teacher && c[i] == COND_GIST) rows += own + p;
    }
    return rows;
}

/* On failure some arrays may be larger than cap says: harmless, they are resized again. */
static gist_status reserve(train_batch *b, int64_t rows, gist_error *err) {
    train_source *s = &b->source;
    int64_t need = s->T + rows, cap = s->cap ? s->cap : 256;
    TRY(train_batch_reserve(b, rows, err));
    if (need > INT_MAX / 2) return err_set(err, GIST_ERR_LIMIT, "a batch of %lld rows", (long long)need);
    if (need <= s->cap) return GIST_OK;
    while (cap < need) cap *= 2;
    size_t old = (size_t)s->T, n = (size_t)cap;
    int32_t *ids = mem_resize(b->alloc, s->ids, old, n, sizeof *ids);
    if (ids) s->ids = ids;
    int32_t *pos = mem_resize(b->alloc, s->pos, old, n, sizeof *pos);
    if (pos) s->pos = pos;
    op_row *rows_ = mem_resize(b->alloc, s->rows, old, n, sizeof *rows_);
    if (rows_) s->rows = rows_;
    if (!ids || !pos || !rows_) return err_memory(err, "training batch");
    s->cap = (int)cap;
    return GIST_OK;
}

/* ---- sources ---- */

static void put_source(train_source *s, const int32_t *ids, int n, op_row seen) {
    for (int i = 0; i < n; i++) {
        int t = s->T++;
        s->ids[t] = ids[i];
        s->pos[t] = seen.pos + i;
        s->rows[t] = seen;
        s->rows[t].pos += i;
        s->rows[t].slot = t;
    }
}

static void put_gists(train_source *s, int32_t token, int k, op_row seen) {
    for (int i = 0; i < k; i++, seen.pos++) put_source(s, &token, 1, seen);
}

/* Prompt and k gist tokens, which see each other and, behind them, `rest` rows; returns what they see, with the
 * position behind them. */
static op_row put_prompt(train_source *s, const train_set *set, int prompt, int k, int rest,
                         const train_pack_options *opt) {
    const train_prompt *p = &set->prompt[prompt];
    op_row seen = { .mem = -1, .lo = s->T, .hi = s->T + p->len + k + rest };
    put_source(s, set->ids + p->ids, p->len, seen);
    seen.pos = p->len;
    put_gists(s, opt->gist_token, k, seen);
    seen.pos += k;
    return seen;
}

/* The pair's rest, and prompt rows where it does not share them (gists: at row `shared`, p + k of them).  Returns what
 * the answer sees of it. */
static op_row put_rest(train_source *s, const train_set *set, const train_pair *q, train_condition c, int k, int shared,
                       const train_pack_options *opt) {
    int p = set->prompt[q->prompt].len;
    op_row seen = { .mem = -1 };
    if (copies_prompt(c)) {
        seen = put_prompt(s, set, q->prompt, c == COND_POS_CONTROL ? k : 0, q->input_len, opt);
    } else {
        if (c == COND_GIST)
            seen = (op_row){ .pos = p + k, .mem = 0, .mlo = shared + p, .mhi = shared + p + k, .at = p };
        seen.lo = s->T;
        seen.hi = s->T + q->input_len;
    }
    put_source(s, set->ids + q->input, q->input_len, seen);
    return seen;
}

/* ---- answers ---- */

/* Returns its first row. */
static int put_answer(train_batch *b, const train_set *set, const train_pair *q, op_row seen, train_condition c,
                      float weight, const train_pack_options *opt) {
    int first = b->T;
    for (int i = 0; i < q->answer_len; i++) {
        const int32_t *answer = set->ids + q->answer;
        b->cross[b->T] = seen;
        train_put_row(b, i ? answer[i - 1] : opt->start, (op_row){ .pos = i, .mem = -1, .lo = first }, c);
        train_put_label(b, b->T - 1, answer[i], weight, false);
    }
    return first;
}

gist_status train_t5_group(train_batch *b, const train_set *set, int prompt, const int *pairs, const train_condition *c,
                           const int *k, int n, const train_pack_options *opt, gist_error *err) {
    train_source *s = &b->source;
    int shared = s->T;
    TRY(reserve(b, train_t5_rows(set, prompt, pairs, c, k, n, opt), err));
    if (shares_prompt(c, n)) put_prompt(s, set, prompt, train_pack_largest_k(opt), 0, opt);
    for (int i = 0; i < n; i++) {
        const train_pair *q = &set->pair[pairs[i]];
        int first = put_answer(b, set, q, put_rest(s, set, q, c[i], k[i], shared, opt), c[i], 1, opt);
        if (!opt->teacher || c[i] != COND_GIST) continue;
        op_row whole = put_rest(s, set, q, COND_FULL, 0, 0, opt);
        int teacher = put_answer(b, set, q, whole, COND_FULL, opt->teacher_lm, opt);
        for (int j = 0; j < q->answer_len; j++) b->teacher[first + j] = teacher + j;
    }
    b->pairs += n;
    return GIST_OK;
}
