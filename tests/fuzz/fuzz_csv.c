/* fuzz_csv.c - files of predictions on any bytes: what is read lies in the file's block, and its scores are scores. */
#include <stdlib.h>

#include "eval/eval.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_text(eval_text t) {
    eval_text again = eval_strip(t.p, t.len);
    if (t.len > EVAL_MAX_TEXT || !utf8_valid(t.p, t.len, NULL) || again.len != t.len) abort();
}

static void check_scores(eval_rouge *r, const eval_pair *p) {
    eval_rouge_scores s, back;
    if (eval_rouge_score(r, p->prediction, p->reference, &s, NULL) != GIST_OK) abort();
    if (eval_rouge_score(r, p->reference, p->prediction, &back, NULL) != GIST_OK) abort();
    for (int k = 0; k < EVAL_ROUGES; k++)
        if (!(s.f1[k] >= 0 && s.f1[k] <= 1)) abort();
    if (s.f1[EVAL_ROUGE_L] > s.f1[EVAL_ROUGE_1]) abort(); /* a subsequence is a set of words in common */
    if (s.predicted != back.expected || s.f1[EVAL_ROUGE_L] != back.f1[EVAL_ROUGE_L]) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    eval_pairs p = { .alloc = NULL };
    eval_rouge *r = NULL;
    gist_error err = { 0 };
    gist_status status = eval_pairs_parse(&p, NULL, (const char *)data, size, "fuzz", &err);
    if (status != err.code) abort();
    if (status != GIST_OK) return 0;
    if (p.n < 1 || eval_rouge_create(NULL, &r, NULL) != GIST_OK) abort();
    for (int i = 0; i < p.n; i++) {
        check_text(p.pair[i].prediction);
        check_text(p.pair[i].reference);
        if (p.pair[i].asked.p && !utf8_valid(p.pair[i].asked.p, p.pair[i].asked.len, NULL)) abort();
        if (p.pair[i].line < 1 || (i > 0 && p.pair[i].line <= p.pair[i - 1].line)) abort();
        check_scores(r, &p.pair[i]);
    }
    bool asked = p.pair[0].asked.p != NULL;
    status = eval_judge_match(&p, "a", &p, "b", NULL);
    if (!asked && status == GIST_OK) abort(); /* nothing tells what was asked */
    eval_rouge_free(r);
    eval_pairs_free(&p);
    return 0;
}
