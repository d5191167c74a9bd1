/* bench_gist_items.c - what is served three ways: examples of a data file as token ids, or drawn ids of given numbers.
 *
 * Prompts and inputs are tokenized through the template as compressing and answering do it, T5's sources too; an
 * example that breaks the tokenization law is left out, and inputs are cut at max_length as in training.
 */
#include "bench_gist.h"

const char *const bench_way_names[WAYS] = { "none", "full", "gist" };

void bench_items_init(bench_items *x) {
    *x = (bench_items){ .n = 0 };
    tok_ids_init(&x->ids, NULL);
}

void bench_items_free(bench_items *x) {
    tok_ids_free(&x->ids);
    mem_free(NULL, x->item);
    bench_items_init(x);
}

static gist_status add_item(bench_items *x, const bench_item *item, gist_error *err) {
    if (x->n == x->cap) {
        int more = x->cap ? 2 * x->cap : 256;
        bench_item *grown = mem_resize(NULL, x->item, (size_t)x->cap, (size_t)more, sizeof *grown);
        if (!grown) return err_memory(err, "examples");
        x->item = grown;
        x->cap = more;
    }
    x->item[x->n++] = *item;
    return GIST_OK;
}

static gist_status add_group(bench_items *x, const char *name, size_t len, gist_error *err) {
    if (x->groups == BENCH_GROUPS) return err_set(err, GIST_ERR_LIMIT, "more than %d groups", BENCH_GROUPS);
    bench_group *g = &x->group[x->groups++];
    *g = (bench_group){ .first = x->n };
    snprintf(g->name, sizeof g->name, "%.*s", (int)(len < BENCH_NAME ? len : BENCH_NAME - 1), name);
    return GIST_OK;
}

/* ---- data ---- */

/* An encoder-decoder's source ends with </s>. */
static gist_status encode_request(const bench_text *t, const eval_example *e, bench_item *item, tok_ids *ids,
                                  gist_error *err) {
    TRY(tok_template_law(t->tok, t->tp, e->instruction.p, e->instruction.len, t->k, e->input.p, e->input.len, err));
    TRY(tok_template_prompt(t->tok, t->tp, e->instruction.p, e->instruction.len, ids, err));
    item->prompt = (int)(ids->n - item->at);
    TRY(tok_template_input(t->tok, t->tp, e->input.p, e->input.len, false, ids, err));
    return t->t5 ? tok_ids_push(ids, tok_eos(t->tok), err) : GIST_OK;
}

/* *fits: the example is among the items. */
static gist_status read_example(bench_items *x, const eval_split *s, const eval_example *e, const bench_text *t,
                                gist_error *err) {
    gist_error why = { 0 };
    bench_item item = { .group = x->groups - 1, .line = e->line, .at = x->ids.n };
    gist_status status = encode_request(t, e, &item, &x->ids, &why);
    if (status != GIST_OK && status != GIST_ERR_TEXT)
        return err_set(err, status, "%s:%d: %.300s", s->path, e->line, why.msg);
    int room = t->max_length - t->k - item.prompt, input = (int)(x->ids.n - item.at) - item.prompt;
    item.input = input < room ? input : room;
    if (status != GIST_OK || item.input < 1) {
        x->ids.n = item.at;
        x->left_out++;
        return GIST_OK;
    }
    x->ids.n = item.at + (size_t)(item.prompt + item.input);
    return add_item(x, &item, err);
}

gist_status bench_items_read(bench_items *x, const char *data, int limit, const bench_text *t, gist_error *err) {
    eval_split s;
    const char *eq = strchr(data, '='), *path = eq ? eq + 1 : data, *slash = strrchr(path, '/');
    const char *name = eq ? data : slash ? slash + 1 : path;
    TRY(add_group(x, name, eq ? (size_t)(eq - data) : strcspn(name, "."), err));
    TRY(eval_split_open(&s, x->group[x->groups - 1].name, path, limit, mem_default(), err));
    gist_status status = GIST_OK;
    for (int i = 0; i < s.n && status == GIST_OK; i++) status = read_example(x, &s, &s.example[i], t, err);
    x->left_out += s.empty;
    bench_group *g = &x->group[x->groups - 1];
    g->n = x->n - g->first;
    if (status == GIST_OK && g->n == 0)
        status = err_set(err, GIST_ERR_FORMAT, "%s: no example of %d fits %d tokens", path, s.read, t->max_length);
    eval_split_close(&s);
    return status;
}

/* ---- drawn prompts ---- */

gist_status bench_items_draw(bench_items *x, int prompt, int input, int vocab, uint64_t seed, gist_error *err) {
    char name[BENCH_NAME];
    bench_item item = { x->groups, x->n + 1, prompt, input, x->ids.n };
    rng r;
    snprintf(name, sizeof name, "%d tokens", prompt);
    TRY(add_group(x, name, strlen(name), err));
    rng_seed(&r, seed + (uint64_t)x->groups);
    for (int i = 0; i < prompt + input; i++) TRY(tok_ids_push(&x->ids, (int32_t)rng_below(&r, (uint64_t)vocab), err));
    x->group[item.group].n = 1;
    return add_item(x, &item, err);
}
