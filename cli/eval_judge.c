/* eval_judge.c - gist eval --judge URL A B: which of two files' predictions a language model finds better.
 *
 *   A, B --row by row, in an order that --seed draws--> chat endpoint --> verdicts --> share of A, ties half
 *                                                          |
 *                                          --out/judgements.jsonl: every reply, as soon as it is there
 *
 * Equal predictions are ties without being asked about.  A reply without a verdict is kept and counted, in no share.
 */
#include "eval_judge.h"

#include <stdlib.h>
#include <unistd.h>

#include "cli.h"
#include "eval/eval.h"
#include "http_post.h"

enum { A_BETTER, B_BETTER, EVEN, SAME, UNCLEAR, OUTCOMES };

typedef struct judging {
    const judge_args *a;
    eval_pairs file[2];
    int n;
    http_client *http;
    eval_journal *journal;
    sbuf url, response;
    eval_row *row;       /* [judged] score[EVAL_EXACT]: 1 A is better, 1/2 a tie, 0 B is */
    int judged, count[OUTCOMES], asked;
    int shown_first;   /* verdicts for the answer shown first, which tells whether order matters to the judge */
    gist_error *err;
} judging;

/* ---- the endpoint ---- */

static gist_status open_endpoint(judging *j) {
    static const char tail[] = "/chat/completions";
    const judge_args *a = j->a;
    size_t n = strlen(a->url);
    while (n > 0 && a->url[n - 1] == '/') n--;
    sbuf_add(&j->url, a->url, n);
    if (n < sizeof tail - 1 || memcmp(a->url + n - (sizeof tail - 1), tail, sizeof tail - 1) != 0)
        sbuf_str(&j->url, tail);
    if (j->url.failed) return err_memory(j->err, "address");
    const char *key = getenv(a->key);
    return http_open(j->url.p, key && *key ? key : NULL, a->seconds, &j->http, j->err);
}

static void told_of(const judging *j, const gist_error *why, int tries) {
    if (!j->a->quiet) warn("%.300s; try %d of %d follows", why->msg, tries + 1, j->a->tries);
}

/* One request with its tries; the time between them doubles. */
static gist_status ask(judging *j, const char *body, size_t len) {
    unsigned wait = 1;
    for (int tries = 1;; tries++) {
        gist_error why = { 0 };
        bool again;
        gist_status status = http_post(j->http, body, len, &j->response, &again, &why);
        if (status == GIST_OK) return GIST_OK;
        if (!again || tries >= j->a->tries) return err_set(j->err, status, "%s", why.msg);
        told_of(j, &why, tries);
        sleep(wait);
        wait = wait < 30 ? wait * 2 : wait;
    }
}

static gist_status reply_of(judging *j, char **reply) {
    gist_error why = { 0 };
    json_t *root = NULL;
    gist_status status = json_parse(j->response.p ? j->response.p : "", j->response.len, "response", &root, &why);
    if (status != GIST_OK) return err_set(j->err, status, "%.200s: %.200s", j->url.p, why.msg);
    const json_t *said = eval_judge_reply(root);
    if (!said)
        status = err_set(j->err, GIST_ERR_FORMAT, "%.200s: the response has no choices[0].message.content", j->url.p);
    else if (!(*reply = mem_strndup(NULL, json_string_value(said), json_string_length(said))))
        status = err_memory(j->err, "reply");
    json_decref(root);
    return status;
}

/* ---- one row ---- */

static void count(judging *j, int outcome) {
    static const double share[OUTCOMES] = { [A_BETTER] = 1, [EVEN] = 0.5, [SAME] = 0.5 };
    j->count[outcome]++;
    if (outcome == UNCLEAR) return;
    j->row[j->judged] = (eval_row){ .predicted = 0 };
    j->row[j->judged++].score[EVAL_EXACT] = share[outcome];
}

static void count_verdict(judging *j, eval_verdict v, bool swapped) {
    if (v == EVAL_FIRST) j->shown_first++;
    int winner = v == EVAL_FIRST ? A_BETTER : B_BETTER;
    if (swapped) winner = winner == A_BETTER ? B_BETTER : A_BETTER;
    count(j, v == EVAL_TIE ? EVEN : v == EVAL_UNCLEAR ? UNCLEAR : winner);
}

/* The reply from the journal, or from the endpoint and into it. */
static gist_status judge_asked(judging *j, int i, const char *body, size_t len, bool swapped) {
    static const char *const verdict[] = { "first", "second", "tie", "unclear" };
    hash128 key = hash_bytes(body, len);
    const json_t *known = json_object_get(j->journal ? eval_journal_find(j->journal, key) : NULL, "reply");
    if (json_is_string(known)) {
        eval_text said = { json_string_value(known), json_string_length(known) };
        count_verdict(j, eval_judge_verdict(said), swapped);
        return GIST_OK;
    }
    char *reply = NULL;
    TRY(ask(j, body, len));
    TRY(reply_of(j, &reply));
    eval_verdict v = eval_judge_verdict((eval_text){ reply, strlen(reply) });
    gist_status status = GIST_OK;
    j->asked++;
    if (j->journal)
        status = eval_journal_add(j->journal, key,
                                  json_pack("{s:i, s:s, s:s, s:o}", "line", j->file[0].pair[i].line, "first",
                                            swapped ? "B" : "A", "verdict", verdict[v], "reply",
                                            json_text_of(reply, strlen(reply))),
                                  j->err);
    mem_free(NULL, reply);
    if (status == GIST_OK) count_verdict(j, v, swapped);
    return status;
}

static gist_status judge_row(judging *j, int i, bool swapped) {
    eval_text a = j->file[0].pair[i].prediction, b = j->file[1].pair[i].prediction;
    if (a.len == b.len && memcmp(a.p, b.p, a.len) == 0) {
        count(j, SAME);
        return GIST_OK;
    }
    const eval_pair *pair = &j->file[0].pair[i];
    json_t *request = eval_judge_request(j->a->model, pair->asked, pair->reference, swapped ? b : a, swapped ? a : b);
    char *body = request ? json_dumps(request, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    json_decref(request);
    if (!body) return err_memory(j->err, "request");
    gist_status status = judge_asked(j, i, body, strlen(body), swapped);
    free(body);
    return status;
}

static gist_status judge_rows(judging *j) {
    rng r;
    rng_seed(&r, j->a->seed);
    for (int i = 0; i < j->n; i++) {
        TRY(judge_row(j, i, rng_next(&r) >> 63));
        if (!j->a->quiet) progress("judged %d of %d", i + 1, j->n);
    }
    return GIST_OK;
}

/* ---- the result ---- */

static gist_status report(const judging *j, const eval_summary *s) {
    const int *n = j->count;
    const double mean = 100 * s->mean[EVAL_EXACT], low = 100 * s->low[EVAL_EXACT], high = 100 * s->high[EVAL_EXACT];
    int decided = n[A_BETTER] + n[B_BETTER];
    if (j->a->json) {
        json_t *share = j->judged ? json_pack("{s:f, s:f, s:f}", "mean", mean, "low", low, "high", high) : json_null();
        return json_print(json_pack("{s:o, s:o, s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:o}", "a",
                                    json_text_of(j->a->a, strlen(j->a->a)), "b",
                                    json_text_of(j->a->b, strlen(j->a->b)), "judge", j->a->model, "pairs", j->n,
                                    "a_better", n[A_BETTER], "b_better", n[B_BETTER], "ties", n[EVEN], "equal",
                                    n[SAME], "unclear", n[UNCLEAR], "asked", j->asked, "first_preferred",
                                    j->shown_first, "share_a", share),
                          j->err);
    }
    printf("A              %s\nB              %s\njudge          %s, %d pairs, %d asked now\n", j->a->a, j->a->b,
           j->a->model, j->n, j->asked);
    printf("A better       %d\nB better       %d\nties           %d judged, %d equal answers\nunclear        %d\n",
           n[A_BETTER], n[B_BETTER], n[EVEN], n[SAME], n[UNCLEAR]);
    if (j->judged)
        printf("share of A     %.1f %%  [%.1f, %.1f]  ties count half, unclear replies not at all\n", mean, low, high);
    if (decided) printf("shown first    preferred %d of %d times\n", j->shown_first, decided);
    return GIST_OK;
}

static gist_status open_journal(judging *j) {
    if (!j->a->out) return GIST_OK;
    char *path = path_join(NULL, j->a->out, "judgements.jsonl");
    if (!path) return err_memory(j->err, "judgements");
    gist_status status = eval_journal_open(path, mem_default(), &j->journal, j->err);
    int n = status == GIST_OK ? eval_journal_count(j->journal) : 0;
    if (n > 0 && !j->a->resume)
        status = err_set(j->err, GIST_ERR_USAGE, "%.200s: %d judgements are there; --resume goes on with them", path,
                         n);
    mem_free(NULL, path);
    return status;
}

static gist_status judge(judging *j) {
    const judge_args *a = j->a;
    eval_summary s = { .predicted = 0 };
    if (!a->a || !a->b) return err_set(j->err, GIST_ERR_USAGE, "--judge needs two files of predictions, A and B");
    if (!a->model) return err_set(j->err, GIST_ERR_USAGE, "--judge-model NAME is needed: what the endpoint calls it");
    TRY(eval_pairs_open(&j->file[0], mem_default(), a->a, j->err));
    TRY(eval_pairs_open(&j->file[1], mem_default(), a->b, j->err));
    TRY(eval_judge_match(&j->file[0], a->a, &j->file[1], a->b, j->err));
    j->n = a->limit && a->limit < j->file[0].n ? a->limit : j->file[0].n;
    j->row = mem_alloc(NULL, (size_t)j->n, sizeof *j->row);
    if (!j->row) return err_memory(j->err, "judgements");
    TRY(open_journal(j));
    TRY(open_endpoint(j));
    TRY(judge_rows(j));
    progress_end();
    if (j->judged) TRY(eval_summarise(j->row, j->judged, a->resamples, a->seed, NULL, mem_default(), &s, j->err));
    return report(j, &s);
}

gist_status eval_judge(const judge_args *a, gist_error *err) {
    judging j = { .a = a, .err = err };
    for (int i = 0; i < 2; i++) j.file[i].alloc = mem_default();
    sbuf_init(&j.url, NULL);
    sbuf_init(&j.response, NULL);
    gist_status status = judge(&j);
    progress_end();
    http_close(j.http);
    eval_journal_close(j.journal);
    for (int i = 0; i < 2; i++) eval_pairs_free(&j.file[i]);
    mem_free(NULL, j.row);
    sbuf_free(&j.url);
    sbuf_free(&j.response);
    return status;
}
