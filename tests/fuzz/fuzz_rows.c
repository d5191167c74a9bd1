/* fuzz_rows.c - rows to be answered on any bytes: first byte the template, second the length, then the file; and the
 * file as a judge's reply.
 */
#include <stdlib.h>

#include "eval/eval.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* One tokenizer for all inputs: opening it costs more than most of them. */
static const tokenizer *shared(void) {
    static tokenizer *t;
    if (!t && tok_open("tests/data/token/qwen2", NULL, &t, NULL) != GIST_OK) abort();
    return t;
}

static void check(const eval_split *s, int gists, int max_length) {
    bool seen[256] = { false };
    if (s->n < 1 || s->prompts < 1 || s->prompts > s->n) abort();
    if (s->read != s->n + s->empty + s->law + s->no_room) abort(); /* every example is accounted for */
    for (int i = 0; i < s->n; i++) {
        const eval_example *e = &s->example[s->order[i]];
        if (e->prompt < 0 || e->prompt >= s->prompts || e->turn < 0 || e->prompt_tokens < 1) abort();
        if (e->prompt_tokens + gists + e->input_tokens >= max_length) abort();
        if (e->history + (size_t)e->history_tokens > s->history.n || e->history_tokens > e->input_tokens) abort();
        if (s->n <= 256 && seen[s->order[i]]) abort();
        if (s->n <= 256) seen[s->order[i]] = true;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const names[] = { "paper", "raw", "chatml", "paper" };
    if (size < 2) return 0;
    int gists = data[0] >> 2 & 3, max_length = 8 + data[1];
    const char *bytes = (const char *)data + 2;
    eval_split s = { .alloc = NULL };
    gist_error err = { 0 };
    eval_verdict v = eval_judge_verdict((eval_text){ bytes, size - 2 });
    if (v < EVAL_FIRST || v > EVAL_UNCLEAR) abort();
    gist_status status = eval_split_parse(&s, "fuzz", "fuzz", bytes, size - 2, 0, mem_default(), &err);
    if (status != err.code) abort();
    if (status != GIST_OK) return 0;
    status = eval_split_fit(&s, shared(), tok_template_find(names[data[0] & 3]), gists, max_length, &err);
    if (status != err.code) abort();
    if (status == GIST_OK) check(&s, gists, max_length);
    eval_split_close(&s);
    return 0;
}
