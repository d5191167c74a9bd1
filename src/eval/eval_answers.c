/* eval_answers.c - greedy answers to the pairs of a set, under each view the model is trained for.
 *
 *     view           in front, once for all pairs of a prompt     the pairs' inputs begin at
 *     gist           the k rows of prompt [0,p) and k gists       p+k
 *     full           prompt [0,p)                                 p
 *     none           nothing                                      p+K
 *     pos_control    prompt and k gists [0,p+k)                   p+k
 *     neg_control    nothing                                      p+k
 *
 * The ids are the set's own, so the model sees what it was trained on (docs/TRAINING.md, "One step").
 */
#include "eval/eval.h"

typedef struct answers {
    gist_engine *e;
    const train_set *set;
    const eval_answers_options *opt;
    gist_session *s;
    gist *g;   /* attached to s; NULL: none */
    int front; /* own tokens of s before an input */
    int K;
    sbuf reference;
    double sum[TRAIN_MAX_VIEWS][EVAL_SCORES];
    int done, all; /* answers */
    bool stopped;
    gist_error *err;
} answers;

/* ---- what stands in front ---- */

static gist_status attach(answers *a, const train_prompt *p, int k) {
    gist_compress_options o = GIST_COMPRESS_OPTIONS_INIT;
    o.k = k;
    TRY(gist_compress_ids(a->e, a->set->ids + p->ids, (size_t)p->len, &o, &a->g, a->err));
    return gist_session_attach(a->s, a->g, a->err);
}

static gist_status feed_gists(answers *a, int k) {
    gist_engine_info info;
    gist_engine_get_info(a->e, &info);
    for (int i = 0; i < k; i++) TRY(gist_session_feed(a->s, &info.gist_token, 1, NULL, a->err));
    return GIST_OK;
}

static gist_status put_in_front(answers *a, const train_prompt *p, const train_view *v) {
    gist_session_reset(a->s);
    gist_free(a->g);
    a->g = NULL;
    if (v->c == COND_GIST) TRY(attach(a, p, v->k));
    if (v->c == COND_FULL || v->c == COND_POS_CONTROL)
        TRY(gist_session_feed(a->s, a->set->ids + p->ids, (size_t)p->len, NULL, a->err));
    if (v->c == COND_POS_CONTROL) TRY(feed_gists(a, v->k));
    int gone = v->c == COND_NONE ? a->K : v->c == COND_NEG_CONTROL ? v->k : 0; /* positions of what is not there */
    if (gone && !engine_model(a->e)->cfg.encoder) TRY(gist_session_set_position(a->s, p->len + gone, a->err));
    a->front = gist_session_length(a->s);
    return GIST_OK;
}

/* ---- one answer ---- */

/* The pair's answer as text, read as the generated one is; its end token prints nothing. */
static gist_status read_reference(answers *a, const train_pair *q) {
    tok_stream stream;
    a->reference.len = 0;
    tok_stream_init(&stream, engine_tokenizer(a->e), true);
    for (int i = 0; i < q->answer_len; i++) tok_stream_push(&stream, a->set->ids[q->answer + (size_t)i], &a->reference);
    tok_stream_end(&stream, &a->reference);
    return a->reference.failed ? err_memory(a->err, "answer") : GIST_OK;
}

static gist_status add_scores(answers *a, const gist_answer *given, double sum[EVAL_SCORES]) {
    eval_text answer = eval_strip(given->text, given->text_len),
              reference = eval_strip(a->reference.p, a->reference.len);
    for (int i = 0; i < EVAL_SCORES; i++) {
        double percent;
        TRY(eval_scores[i].of(&percent, answer, reference, a->set->alloc, a->err));
        sum[i] += percent;
    }
    return GIST_OK;
}

static gist_status answer_pair(answers *a, const train_prompt *p, const train_pair *q, double sum[EVAL_SCORES]) {
    gist_generate_options o = GIST_GENERATE_OPTIONS_INIT;
    gist_answer given;
    int room = a->opt->max_answer ? a->opt->max_answer : a->opt->max_length - p->len - a->K - q->input_len;
    if (room < 1)
        return err_set(a->err, GIST_ERR_USAGE, "row %d: no room for an answer in %d tokens", q->row,
                       a->opt->max_length);
    o.max_tokens = room < a->opt->max_tokens ? room : a->opt->max_tokens;
    TRY(read_reference(a, q));
    session_rewind(a->s, a->front);
    TRY(session_generate(a->s, a->set->ids + q->input, (size_t)q->input_len, &o, &given, a->err));
    gist_status status = add_scores(a, &given, sum);
    gist_answer_free(a->s, &given);
    return status;
}

static gist_status answer_prompt(answers *a, const train_prompt *p, const train_view *v, double sum[EVAL_SCORES]) {
    TRY(put_in_front(a, p, v));
    for (int i = 0; i < p->pairs && !a->stopped; i++) {
        a->stopped = a->opt->stop && a->opt->stop(a->opt->ctx, a->done, a->all);
        if (!a->stopped) TRY(answer_pair(a, p, &a->set->pair[p->first_pair + i], sum));
        a->done++;
    }
    return GIST_OK;
}

/* ---- a split ---- */

static gist_status run(answers *a, const train_view *view, int views, int prompts) {
    TRY(gist_session_open(a->e, NULL, &a->s, a->err));
    for (int p = 0; p < prompts; p++)
        for (int v = 0; v < views && !a->stopped; v++) TRY(answer_prompt(a, &a->set->prompt[p], &view[v], a->sum[v]));
    return GIST_OK;
}

gist_status eval_answers(gist_engine *e, const train_split *split, const train_pack_options *pack,
                         const eval_answers_options *opt, train_metric *metrics, int cap, int *n, gist_error *err) {
    const train_set *set = split->set;
    train_view view[TRAIN_MAX_VIEWS];
    int views = train_views(pack, view), prompts = 0, pairs = 0, at = *n;
    while (prompts < set->prompts && pairs < opt->pairs) pairs += set->prompt[prompts++].pairs;
    if (opt->max_tokens < 1 || pairs == 0) return err_set(err, GIST_ERR_USAGE, "%s: no answers to score", split->name);
    if (cap - at < views * EVAL_SCORES)
        return err_set(err, GIST_ERR_LIMIT, "%s: %d scores, there is room for %d", split->name, views * EVAL_SCORES,
                       cap - at);
    answers a = { .e = e, .set = set, .opt = opt, .K = train_pack_largest_k(pack), .all = pairs * views, .err = err };
    sbuf_init(&a.reference, set->alloc);
    gist_status status = run(&a, view, views, prompts);
    for (int v = 0; v < views && status == GIST_OK && !a.stopped; v++)
        for (int i = 0; i < EVAL_SCORES; i++) {
            train_metric *m = &metrics[at++];
            *m = (train_metric){ .value = a.sum[v][i] / pairs, .higher = true };
            snprintf(m->name, sizeof m->name, "%.40s/%s.%s", split->name, eval_scores[i].name, view[v].name);
        }
    if (status == GIST_OK) *n = at;
    gist_session_close(a.s);
    gist_free(a.g);
    sbuf_free(&a.reference);
    return status;
}
