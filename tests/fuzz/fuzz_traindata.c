/* fuzz_traindata.c - rows of training data on any bytes: first byte the template, second the length, then the file. */
#include <stdlib.h>

#include "train/train.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* One tokenizer for all inputs: opening it costs more than most of them. */
static const tokenizer *shared(void) {
    static tokenizer *t;
    if (!t && tok_open("tests/data/token/qwen2", NULL, &t, NULL) != GIST_OK) abort();
    return t;
}

static void check(const train_set *s) {
    int pairs = 0;
    for (int i = 0; i < s->prompts; i++) {
        const train_prompt *p = &s->prompt[i];
        if (p->first_pair != pairs || p->pairs < 1 || p->len < 1 || p->ids + (size_t)p->len > s->id_count) abort();
        pairs += p->pairs;
    }
    if (pairs != s->pairs || pairs < 1) abort();
    for (int i = 0; i < s->pairs; i++) {
        const train_pair *p = &s->pair[i];
        if (p->input_len < 1 || p->answer_len < 1 || p->input + (size_t)p->input_len > s->id_count ||
            p->answer + (size_t)p->answer_len > s->id_count)
            abort();
    }
    if (s->read != s->pairs + s->no_prompt + s->no_answer + s->law + s->all_cut)
        abort(); /* every row is accounted for */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const names[] = { "paper", "raw", "chatml", "paper" };
    if (size < 2) return 0;
    train_data_options opt = { .tp = tok_template_find(names[data[0] & 3]),
                               .max_length = 8 + data[1],
                               .gists = data[0] >> 2 & 3,
                               .encoder = data[0] & 16,
                               .max_answer = data[0] & 32 ? data[1] / 8 : 0 };
    train_set set = { .alloc = NULL };
    gist_error err = { 0 };
    gist_status status = train_data_parse(&set, (const char *)data + 2, size - 2, "fuzz", shared(), &opt, NULL, &err);
    if (status != err.code) abort();
    if (status == GIST_OK) check(&set);
    train_data_free(&set);
    return 0;
}
