/* train_stream.c - the order of training: groups, shuffled by epoch, closed into batches.
 *
 *     epoch e:   pairs of each prompt, shuffled --cut--> groups of at most pairs_per_prompt --shuffled--> g0 g1 g2 ...
 *     batch:     g0 g1 g2 | g3 g4 | g5 ...            closed by batch_pairs, batch_tokens or the end of the epoch
 *     group g:   conditions and k drawn from (seed, e, g)
 *
 * The place (epoch, index of the next group) is all the state there is: nothing is remembered from batch to batch, so a
 * resumed run draws what the uninterrupted one did.
 */
#include <limits.h>
#include <math.h>

#include "train/train.h"

enum { GROUP_MAX = 256 };

/* Independent random numbers for each (seed, epoch, index); splitmix64's finaliser between the words. */
static void seed_for(rng *r, uint64_t seed, uint64_t epoch, uint64_t index) {
    uint64_t word[] = { epoch, index }, z = seed;
    for (int i = 0; i < 2; i++) {
        z += word[i] + 0x9e3779b97f4a7c15u;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        z ^= z >> 31;
    }
    rng_seed(r, z);
}

/* ---- options ---- */

static gist_status check_options(const train_pack_options *o, gist_error *err) {
    double sum = 0;
    for (int i = 0; i < COND_COUNT; i++) {
        if (!(o->mix[i] >= 0))
            return err_set(err, GIST_ERR_USAGE, "the share of %s is negative",
                           train_condition_name((train_condition)i));
        sum += o->mix[i];
    }
    if (!(fabs(sum - 1) < 1e-6)) return err_set(err, GIST_ERR_USAGE, "shares of conditions sum to %g, not to 1", sum);
    if (o->k_count < 1 || o->k_count > 16) return err_set(err, GIST_ERR_USAGE, "1 to 16 gist counts are needed");
    for (int i = 0; i < o->k_count; i++)
        if (o->k[i] < 1 || o->k[i] > 1024)
            return err_set(err, GIST_ERR_USAGE, "%d gist tokens, 1 to 1024 are allowed", o->k[i]);
    if (o->batch_pairs < 1 || o->pairs_per_prompt < 1)
        return err_set(err, GIST_ERR_USAGE, "a batch has at least one pair and a prompt one");
    if (o->encoder && o->k_count != 1)
        return err_set(err, GIST_ERR_USAGE,
                       "an encoder's gist tokens see each other: a model is trained for one number of them");
    if (o->encoder && (o->gist_spread || o->input_loss > 0 || o->prompt_loss > 0))
        return err_set(err, GIST_ERR_USAGE,
                       "an encoder predicts no tokens and has no positions to spread gists over: neither input nor "
                       "prompt loss, gists behind the prompt");
    if (o->teacher && !(o->mix[COND_GIST] > 0))
        return err_set(err, GIST_ERR_USAGE, "distillation needs pairs under the gist condition");
    return GIST_OK;
}

/* Most rows that pairs behind a prompt can take, whatever is drawn for them: under gist; an encoder reads the prompt
 * again for each pair under full or pos_control, beside the one that gists share. */
static int64_t most_rows(const train_set *set, const int *pairs, int n, const train_pack_options *o) {
    train_condition shared[GROUP_MAX], whole[GROUP_MAX];
    int k[GROUP_MAX], K = train_pack_largest_k(o), prompt = set->pair[pairs[0]].prompt;
    for (int i = 0; i < n; i++) {
        shared[i] = COND_GIST;
        whole[i] = COND_POS_CONTROL;
        k[i] = K;
    }
    int64_t rows = train_pack_rows(set, prompt, pairs, shared, k, n, o);
    if (!o->encoder || !(o->mix[COND_FULL] + o->mix[COND_POS_CONTROL] > 0)) return rows;
    if (o->teacher) return rows + (int64_t)n * K;
    return train_pack_rows(set, prompt, pairs, whole, k, n, o) + set->prompt[prompt].len + K;
}

/* Pairs that go behind the prompt of pair i at most, from i on in `order`, whatever is drawn for them. */
static int group_size(const train_stream *st, const int *order, int left) {
    const train_pack_options *o = &st->opt;
    int n = 0, most = o->pairs_per_prompt < o->batch_pairs ? o->pairs_per_prompt : o->batch_pairs;
    if (most > GROUP_MAX) most = GROUP_MAX;
    if (most > left) most = left;
    for (; n < most; n++)
        if (n > 0 && o->batch_tokens && most_rows(st->set, order, n + 1, o) > o->batch_tokens) break;
    return n;
}

/* ---- an epoch ---- */

static void shuffle(rng *r, int *a, int n) {
    for (int i = n - 1; i > 0; i--) {
        int j = (int)rng_below(r, (uint64_t)i + 1), held = a[i];
        a[i] = a[j];
        a[j] = held;
    }
}

static void begin_epoch(train_stream *st) {
    rng r;
    seed_for(&r, st->seed, st->epoch, UINT64_MAX);
    st->groups = 0;
    for (int i = 0; i < st->set->pairs; i++) st->order[i] = i;
    for (int p = 0; p < st->set->prompts; p++) {
        const train_prompt *pr = &st->set->prompt[p];
        shuffle(&r, st->order + pr->first_pair, pr->pairs);
        for (int i = 0; i < pr->pairs;) {
            int at = pr->first_pair + i, n = group_size(st, st->order + at, pr->pairs - i);
            st->group_first[st->groups] = at;
            st->group_pairs[st->groups++] = n;
            i += n;
        }
    }
    for (int i = st->groups - 1; i > 0; i--) {
        int j = (int)rng_below(&r, (uint64_t)i + 1), first = st->group_first[i], n = st->group_pairs[i];
        st->group_first[i] = st->group_first[j];
        st->group_pairs[i] = st->group_pairs[j];
        st->group_first[j] = first;
        st->group_pairs[j] = n;
    }
}

gist_status train_stream_init(train_stream *st, const train_set *set, const train_pack_options *opt, uint64_t seed,
                              gist_error *err) {
    TRY(check_options(opt, err));
    for (int i = 0; opt->batch_tokens && i < set->pairs; i++)
        if (most_rows(set, &i, 1, opt) > opt->batch_tokens)
            return err_set(err, GIST_ERR_LIMIT, "row %d takes up to %lld tokens, a batch holds %d", set->pair[i].row,
                           (long long)most_rows(set, &i, 1, opt), opt->batch_tokens);
    train_stream s = { .set = set, .opt = *opt, .seed = seed };
    size_t n = (size_t)set->pairs;
    s.order = mem_alloc(set->alloc, n, sizeof *s.order);
    s.group_first = mem_alloc(set->alloc, n, sizeof *s.group_first);
    s.group_pairs = mem_alloc(set->alloc, n, sizeof *s.group_pairs);
    if (!s.order || !s.group_first || !s.group_pairs) {
        train_stream_free(&s);
        return err_memory(err, "training order");
    }
    begin_epoch(&s);
    *st = s;
    return GIST_OK;
}

void train_stream_free(train_stream *st) {
    if (!st->set) return;
    mem_free(st->set->alloc, st->order);
    mem_free(st->set->alloc, st->group_first);
    mem_free(st->set->alloc, st->group_pairs);
    *st = (train_stream){ 0 };
}

gist_status train_stream_seek(train_stream *st, uint64_t epoch, uint64_t at, gist_error *err) {
    uint64_t before = st->epoch;
    st->epoch = epoch;
    begin_epoch(st);
    if (at <= (uint64_t)st->groups) {
        st->at = at;
        return GIST_OK;
    }
    err_set(err, GIST_ERR_MISMATCH, "epoch %llu has %d groups of pairs, not %llu", (unsigned long long)epoch,
            st->groups, (unsigned long long)at);
    st->epoch = before;
    begin_epoch(st);
    return GIST_ERR_MISMATCH;
}

/* ---- batches ---- */

typedef struct group {
    const int *pairs;
    int prompt, n;
    train_condition c[GROUP_MAX];
    int k[GROUP_MAX];
    int64_t rows;
} group;

static train_condition draw_condition(const train_pack_options *o, double u) {
    int last = 0;
    for (int i = 0; i < COND_COUNT; i++) {
        if (!(o->mix[i] > 0)) continue;
        if (u < o->mix[i]) return (train_condition)i;
        u -= o->mix[i];
        last = i;
    }
    return (train_condition)last; /* rounding of the sum */
}

static void draw(const train_stream *st, group *g) {
    const train_pack_options *o = &st->opt;
    rng r;
    seed_for(&r, st->seed, st->epoch, st->at);
    g->pairs = st->order + st->group_first[st->at];
    g->n = st->group_pairs[st->at];
    g->prompt = st->set->pair[g->pairs[0]].prompt;
    for (int i = 0; i < g->n; i++) {
        g->c[i] = draw_condition(o, rng_unit(&r));
        g->k[i] = o->k[rng_below(&r, (uint64_t)o->k_count)];
    }
    g->rows = train_pack_rows(st->set, g->prompt, g->pairs, g->c, g->k, g->n, o);
}

static bool closed(const train_pack_options *o, int64_t T, int pairs, const group *g) {
    return pairs > 0 && (pairs + g->n > o->batch_pairs || (o->batch_tokens && T + g->rows > o->batch_tokens));
}

static void next_epoch(train_stream *st) {
    if (st->at < (uint64_t)st->groups) return;
    st->epoch++;
    st->at = 0;
    begin_epoch(st);
}

gist_status train_stream_next(train_stream *st, train_batch *b, gist_error *err) {
    group g;
    uint64_t epoch = st->epoch, at = st->at;
    gist_status status = GIST_OK;
    next_epoch(st);
    train_batch_reset(b);
    for (; st->at < (uint64_t)st->groups; st->at++) {
        draw(st, &g);
        if (closed(&st->opt, train_batch_rows(b), b->pairs, &g)) break;
        status = train_pack_group(b, st->set, g.prompt, g.pairs, g.c, g.k, g.n, &st->opt, err);
        if (status != GIST_OK) break;
    }
    if (status == GIST_OK)
        train_batch_finish(b);
    else
        TRY(train_stream_seek(st, epoch, at, NULL));
    return status;
}

gist_status train_stream_plan(train_stream *st, int64_t batches, uint64_t epochs, train_plan *out, gist_error *err) {
    train_plan plan = { 0, 0 };
    TRY(train_stream_seek(st, 0, 0, err));
    for (;;) {
        group g;
        int64_t rows = 0;
        int pairs = 0;
        if (batches ? plan.batches == batches : st->epoch + (st->at == (uint64_t)st->groups) >= epochs) break;
        next_epoch(st);
        for (; st->at < (uint64_t)st->groups; st->at++) {
            draw(st, &g);
            if (closed(&st->opt, rows, pairs, &g)) break;
            rows += g.rows;
            pairs += g.n;
        }
        if (rows > INT_MAX / 2) return err_set(err, GIST_ERR_LIMIT, "a batch of %lld rows", (long long)rows);
        if (rows > plan.max_rows) plan.max_rows = (int)rows;
        plan.batches++;
    }
    *out = plan;
    return train_stream_seek(st, 0, 0, err);
}
