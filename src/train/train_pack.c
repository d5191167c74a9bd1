/* train_pack.c - pairs of one prompt behind a single encoding of it: the rows, what they see, what they predict.
 *
 *      rows     0 ... p-1    p ... p+K-1   |  rest a    answer a  |  rest b    answer b  | ...
 *      ids      the prompt   <GIST>...     |  x x x x   y y y     |  x x       y y       |
 *      labels   -            -             |  - - - y   y y end   |  - y       y end     |
 *
 *      memory [mlo,mhi)                      gist [p,p+k)  full [0,p)  pos_control [0,p+k)  none, neg_control: empty
 *      local  [lo,hi)                        from the pair's own first row up to the row itself
 *      positions from                        p+k           p           p+k                  p+K         p+k
 *
 * The first k of K gist rows are what a prompt with k gist tokens would have (they see only what is before them), so
 * pairs of different k share them.  A teacher copy is the pair again under the full prompt; the student's label rows
 * name its rows.  Source: gisting.md's table (Mu et al. 2023, section 3.3); packing is ours.
 */
#include <limits.h>

#include "train/train_pack_int.h"

static const char *const names[] = { "gist", "full", "none", "pos_control", "neg_control" };

const char *train_condition_name(train_condition c) {
    return c >= 0 && c < COND_COUNT ? names[c] : "prompt";
}

bool train_condition_find(const char *name, size_t len, train_condition *out) {
    for (int i = 0; i < COND_COUNT; i++) {
        if (strlen(names[i]) != len || memcmp(names[i], name, len) != 0) continue;
        *out = (train_condition)i;
        return true;
    }
    return false;
}

int train_pack_largest_k(const train_pack_options *opt) {
    int K = 0;
    for (int i = 0; i < opt->k_count; i++) K = opt->k[i] > K ? opt->k[i] : K;
    return K;
}

/* ---- the batch's arrays ---- */

void train_batch_init(train_batch *b, const gist_allocator *alloc) {
    *b = (train_batch){ .alloc = alloc };
}

void train_batch_free(train_batch *b) {
    void *const arrays[] = { b->ids,       b->pos,     b->label, b->rows,  b->weight,     b->teacher,     b->condition,
                             b->is_gist,   b->text,    b->cross, b->source.ids, b->source.pos, b->source.rows };
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) mem_free(b->alloc, arrays[i]);
    train_batch_init(b, b->alloc);
}

void train_batch_reset(train_batch *b) {
    b->T = b->source.T = b->label_rows = b->pairs = b->grad_rows = 0;
    b->weight_sum = 0;
}

int train_batch_rows(const train_batch *b) {
    return b->T + b->source.T;
}

/* On failure some arrays may be larger than cap says: harmless, they are resized again. */
gist_status train_batch_reserve(train_batch *b, int64_t rows, gist_error *err) {
    int64_t need = b->T + rows, cap = b->cap ? b->cap : 256;
    if (need > INT_MAX / 2) return err_set(err, GIST_ERR_LIMIT, "a batch of %lld rows", (long long)need);
    if (need <= b->cap) return GIST_OK;
    while (cap < need) cap *= 2;
    size_t old = (size_t)b->T, n = (size_t)cap;
#define GROW(field)                                                                                                    \
    do {                                                                                                               \
        void *grown_ = mem_resize(b->alloc, b->field, old, n, sizeof *b->field);                                       \
        if (!grown_) return err_memory(err, "training batch");                                                         \
        b->field = grown_;                                                                                             \
    } while (0)
    GROW(ids);
    GROW(pos);
    GROW(label);
    GROW(rows);
    GROW(cross);
    GROW(weight);
    GROW(teacher);
    GROW(condition);
    GROW(is_gist);
    GROW(text);
#undef GROW
    b->cap = (int)cap;
    return GIST_OK;
}

/* ---- one group ---- */

/* What of the prompt its pairs see: gists = rows of gist tokens, whole = the prompt's rows. */
typedef struct need {
    int gists;
    bool whole;
} need;

static need needs(const train_condition *c, const int *k, int n, const train_pack_options *opt) {
    need d = { 0, false };
    for (int i = 0; i < n; i++) {
        bool gists = c[i] == COND_GIST || c[i] == COND_POS_CONTROL;
        if (gists && k[i] > d.gists) d.gists = k[i];
        if (gists || c[i] == COND_FULL) d.whole = true;
        if (c[i] == COND_GIST && opt->teacher) d.whole = true;
    }
    return d;
}

static int pair_rows(const train_pair *p) {
    return p->input_len + p->answer_len - 1;
}

int64_t train_pack_rows(const train_set *set, int prompt, const int *pairs, const train_condition *c, const int *k,
                        int n, const train_pack_options *opt) {
    if (opt->encoder) return train_t5_rows(set, prompt, pairs, c, k, n, opt);
    need d = needs(c, k, n, opt);
    int64_t rows = d.whole ? set->prompt[prompt].len + d.gists : 0;
    for (int i = 0; i < n; i++)
        rows += (int64_t)pair_rows(&set->pair[pairs[i]]) * (opt->teacher && c[i] == COND_GIST ? 2 : 1);
    return rows;
}

void train_put_row(train_batch *b, int32_t id, op_row row, train_condition c) {
    int t = b->T++;
    row.kv = 0;
    row.slot = t;
    row.hi = t + 1;
    b->ids[t] = id;
    b->pos[t] = row.pos;
    b->rows[t] = row;
    b->label[t] = -1;
    b->weight[t] = 0;
    b->teacher[t] = -1;
    b->condition[t] = (uint8_t)c;
    b->is_gist[t] = b->text[t] = 0;
}

void train_put_label(train_batch *b, int t, int32_t id, float weight, bool text) {
    if (weight <= 0) return;
    b->label[t] = id;
    b->weight[t] = weight;
    b->weight_sum += (double)weight;
    b->label_rows++;
    b->text[t] = text;
}

static void put_prompt(train_batch *b, const train_set *set, int prompt, int gists, const train_pack_options *opt) {
    const train_prompt *p = &set->prompt[prompt];
    int base = b->T;
    for (int i = 0; i < p->len + gists; i++) {
        bool is_gist = i >= p->len;
        int32_t id = is_gist ? opt->gist_token : set->ids[p->ids + (size_t)i];
        int pos = is_gist ? llama_gist_position(opt->gist_spread, p->len, i - p->len) : i;
        train_put_row(b, id, (op_row){ .pos = pos, .mem = -1, .lo = base },
                COND_COUNT);
        b->is_gist[b->T - 1] = is_gist;
        if (i + 1 < p->len)
            train_put_label(b, b->T - 1, set->ids[p->ids + (size_t)i + 1], opt->prompt_loss, true);
    }
}

/* The interval of the prompt at row `base`, p long, that a condition lets a pair see, and where its positions begin. */
static op_row view(train_condition c, int base, int p, int k, int K) {
    switch (c) {
    case COND_GIST: return (op_row){ .pos = p + k, .mem = 0, .mlo = base + p, .mhi = base + p + k };
    case COND_FULL: return (op_row){ .pos = p, .mem = 0, .mlo = base, .mhi = base + p };
    case COND_POS_CONTROL: return (op_row){ .pos = p + k, .mem = 0, .mlo = base, .mhi = base + p + k };
    case COND_NONE: return (op_row){ .pos = p + K, .mem = -1 };
    default: return (op_row){ .pos = p + k, .mem = -1 };
    }
}

/* weight: of the answer's label rows; input_loss: of the input's, as a share of that.  Returns the pair's first row. */
static int put_pair(train_batch *b, const train_set *set, const train_pair *p, op_row seen, train_condition c,
                    float weight, float input_loss) {
    int first = b->T, rows = pair_rows(p);
    for (int i = 0; i < rows; i++) {
        int j = i - p->input_len; /* of the answer, from here on */
        op_row row = seen;
        row.pos = seen.pos + i;
        row.lo = first;
        train_put_row(b, set->ids[j < 0 ? p->input + (size_t)i : p->answer + (size_t)j], row, c);
        if (j >= -1)
            train_put_label(b, b->T - 1, set->ids[p->answer + (size_t)(j + 1)], weight, false);
        else
            train_put_label(b, b->T - 1, set->ids[p->input + (size_t)(i + 1)], weight * input_loss, true);
    }
    return first;
}

/* The pair once more under the full prompt. */
static void put_teacher(train_batch *b, const train_set *set, const train_pair *p, int base, int student,
                        int prompt_len, const train_pack_options *opt) {
    int first = put_pair(b, set, p, view(COND_FULL, base, prompt_len, 0, 0), COND_FULL, opt->teacher_lm,
                         opt->input_loss);
    for (int i = opt->input_loss > 0 ? 0 : p->input_len - 1; i < pair_rows(p); i++) b->teacher[student + i] = first + i;
}

gist_status train_pack_group(train_batch *b, const train_set *set, int prompt, const int *pairs,
                             const train_condition *c, const int *k, int n, const train_pack_options *opt,
                             gist_error *err) {
    if (opt->encoder) return train_t5_group(b, set, prompt, pairs, c, k, n, opt, err);
    TRY(train_batch_reserve(b, train_pack_rows(set, prompt, pairs, c, k, n, opt), err));
    need d = needs(c, k, n, opt);
    int base = b->T, p = set->prompt[prompt].len, K = train_pack_largest_k(opt);
    if (d.whole) put_prompt(b, set, prompt, d.gists, opt);
    for (int i = 0; i < n; i++) {
        const train_pair *pair = &set->pair[pairs[i]];
        int first = put_pair(b, set, pair, view(c[i], base, p, k[i], K), c[i], 1, opt->input_loss);
        if (opt->teacher && c[i] == COND_GIST) put_teacher(b, set, pair, base, first, p, opt);
    }
    b->pairs += n;
    return GIST_OK;
}

void train_batch_finish(train_batch *b) {
    if (b->weight_sum <= 0) return;
    for (int t = 0; t < b->T; t++) b->weight[t] = (float)((double)b->weight[t] / b->weight_sum);
}
