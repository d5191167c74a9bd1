/* demo_replay.c - answers that do not depend on the kernels.
 *
 * A token of probability p leaves at least ln(p / (1 - p)) between the two best logits.  Only answers are kept whose
 * every token, the one that ends it included, leaves `margin` by that bound. */
#include <math.h>

#include "tour.h"

static double bound(float logprob) {
    double p = exp((double)logprob);
    return p < 1 ? log(p / (1 - p)) : INFINITY;
}

/* An answer from a's gist; *least: its least margin. */
static gist_status answer(const asked *a, const char *input, char text[TEXT_MAX], double *least, gist_error *err) {
    gist_session_options so = GIST_SESSION_OPTIONS_INIT;
    gist_generate_options opt = GIST_GENERATE_OPTIONS_INIT;
    gist_session *s = NULL;
    gist_answer said, ended;
    *least = -INFINITY;
    TRY(gist_session_open(a->e, &so, &s, err));
    gist_status st = gist_session_attach(s, a->g, err);
    opt.max_tokens = ASK_TOKENS;
    if (st == GIST_OK) st = gist_generate(s, input, strlen(input), &opt, &said, err);
    if (st != GIST_OK) {
        gist_session_close(s);
        return st;
    }
    snprintf(text, TEXT_MAX, "%s", said.text);
    bool whole = strcmp(said.finish, "eos") == 0 && said.text_len < TEXT_MAX;
    opt.max_tokens = said.n + 1;
    opt.ignore_eos = true; /* now the end is a token with a probability, too */
    gist_answer_free(s, &said);
    gist_session_reset(s);
    st = gist_session_attach(s, a->g, err);
    if (st == GIST_OK) st = gist_generate(s, input, strlen(input), &opt, &ended, err);
    if (st == GIST_OK) {
        *least = whole ? INFINITY : -INFINITY;
        for (int i = 0; i < ended.n; i++) *least = fmin(*least, bound(ended.logprobs[i]));
        gist_answer_free(s, &ended);
    }
    gist_session_close(s);
    return st;
}

static gist_status write_prompt(out_file *o, gist_engine *e, const prompt *p, double margin, int *left,
                                gist_error *err) {
    asked a;
    sbuf row;
    gist_status st = ask_open(&a, e, p, 0, err);
    for (int i = 0, here = 0; i < p->pairs && here < 2 && *left > 0 && st == GIST_OK; i++) {
        char text[TEXT_MAX];
        double least;
        st = answer(&a, p->pair[i].input, text, &least, err);
        if (st != GIST_OK || least < margin) continue;
        sbuf_init(&row, NULL);
        sbuf_str(&row, "{\"instruction\": ");
        row_string(&row, p->text.p, p->text.len);
        sbuf_str(&row, ", \"input\": ");
        row_string(&row, p->pair[i].input, strlen(p->pair[i].input));
        sbuf_fmt(&row, ", \"k\": %d, \"answer\": ", a.k);
        row_string(&row, text, strlen(text));
        sbuf_str(&row, "}\n");
        if (row.failed)
            st = err_memory(err, "row");
        else
            out_write(o, row.p, row.len);
        sbuf_free(&row);
        here++;
        --*left;
    }
    ask_close(&a);
    return st;
}

gist_status replay_write(const words *w, const char *model, uint64_t seed, int rows, const char *path,
                         gist_error *err) {
    enum { MOST_PROMPTS = 10000 };
    const double margin = 1.5;
    gist_engine_options eo = GIST_ENGINE_OPTIONS_INIT;
    gist_engine *e;
    out_file o;
    prompt p;
    TRY(gist_engine_open(model, &eo, &e, err));
    gist_status st = out_open(&o, NULL, path, err);
    if (st != GIST_OK) {
        gist_engine_close(e);
        return st;
    }
    prompt_init(&p);
    for (uint64_t i = 0; rows > 0 && i < MOST_PROMPTS && st == GIST_OK; i++) {
        st = prompt_draw(&p, w, SPLIT_UNSEEN, seed, i, false, err);
        if (st == GIST_OK) st = write_prompt(&o, e, &p, margin, &rows, err);
    }
    prompt_free(&p);
    gist_engine_close(e);
    if (st == GIST_OK) return out_commit(&o, err);
    out_abort(&o);
    return st;
}
