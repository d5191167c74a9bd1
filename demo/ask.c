/* ask.c - answers of a model to a prompt's inputs: without the prompt, with all of it, from its gist. */
#include <stdlib.h>

#include "tour.h"

enum { CONTEXT = 96 /* tokens of an input and its answer */, MOST = PROMPT_MAX_PAIRS + PROMPT_MAX_SEEN };

static gist_status open_session(gist_engine *e, int context, gist_session **out, gist_error *err) {
    gist_session_options o = GIST_SESSION_OPTIONS_INIT;
    o.context = context;
    return gist_session_open(e, &o, out, err);
}

gist_status ask_open(asked *a, gist_engine *e, const prompt *p, int k, gist_error *err) {
    *a = (asked){ .e = e, .p = p, .k = k };
    TRY(open_session(e, 0, &a->full, err));
    TRY(gist_session_prompt(a->full, p->text.p, p->text.len, err));
    a->tokens = gist_session_length(a->full);
    if (k == 0) {
        a->k = 16;
        while (a->k > 1 && a->tokens / a->k < 10) a->k /= 2;
    }
    gist_compress_options c = GIST_COMPRESS_OPTIONS_INIT;
    c.k = a->k;
    return gist_compress(e, p->text.p, p->text.len, &c, &a->g, err);
}

void ask_close(asked *a) {
    gist_session_close(a->full);
    gist_free(a->g);
    *a = (asked){ 0 };
}

void ask_use(asked *a, gist *g) {
    gist_free(a->g);
    a->g = g;
}

static gist_status open_way(asked *a, int way, gist_session **out, gist_error *err) {
    if (way == WAY_FULL) return gist_session_fork(a->full, out, err);
    TRY(open_session(a->e, CONTEXT, out, err));
    if (way == WAY_GIST) return gist_session_attach(*out, a->g, err);
    return gist_session_set_position(*out, a->tokens + a->k, err);
}

static void keep(char out[TEXT_MAX], const gist_answer *answer) {
    const char *s = answer->text;
    size_t n = answer->text_len;
    while (n && (s[0] == ' ' || s[0] == '\n')) s++, n--;
    while (n && (s[n - 1] == ' ' || s[n - 1] == '\n')) n--;
    if (n >= TEXT_MAX) n = TEXT_MAX - 1;
    memcpy(out, s, n);
    out[n] = '\0';
}

gist_status ask_all(asked *a, int n, gist_error *err) {
    gist_generate_options opt = GIST_GENERATE_OPTIONS_INIT;
    gist_request request[WAY_COUNT * MOST];
    char *to[WAY_COUNT * MOST];
    size_t all = 0;
    gist_status st = GIST_OK;
    opt.max_tokens = ASK_TOKENS;
    memset(request, 0, sizeof request);
    for (int way = 0; way < WAY_COUNT; way++)
        for (int i = 0; i < n && st == GIST_OK; i++, all++) {
            const char *input = a->p->pair[i].input;
            request[all] = (gist_request){ .input = input, .len = strlen(input), .options = &opt };
            to[all] = a->said[way][i];
            st = open_way(a, way, &request[all].session, err);
        }
    if (st == GIST_OK) st = gist_generate_batch(request, all, err);
    for (size_t i = 0; i < all; i++) {
        if (st == GIST_OK && request[i].status != GIST_OK) {
            st = request[i].status;
            *err = request[i].error;
        }
        if (st == GIST_OK) keep(to[i], &request[i].answer);
        if (request[i].session) gist_answer_free(request[i].session, &request[i].answer);
        gist_session_close(request[i].session);
    }
    return st;
}

bool ask_right(const asked *a, int way, int i) {
    return strcmp(a->said[way][i], a->p->pair[i].output) == 0;
}

/* ---- time to the first token ---- */

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x, int n) {
    qsort(x, (size_t)n, sizeof *x, by_value);
    return n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

static gist_status first_token(gist_session *s, const char *input, gist_error *err) {
    gist_generate_options opt = GIST_GENERATE_OPTIONS_INIT;
    gist_answer answer;
    opt.max_tokens = 1;
    TRY(gist_generate(s, input, strlen(input), &opt, &answer, err));
    gist_answer_free(s, &answer);
    return GIST_OK;
}

/* One way, once, in milliseconds; path: the gist's file. */
static gist_status time_way(const asked *a, int way, const char *input, const char *path, double *ms, gist_error *err) {
    gist_session *s = NULL;
    gist *g = NULL;
    gist_status st = GIST_OK;
    if (way == WAY_FULL)
        st = gist_session_fork(a->full, &s, err);
    else
        st = open_session(a->e, way == WAY_GIST ? CONTEXT : 0, &s, err);
    double began = time_now();
    if (st == GIST_OK && way == WAY_GIST) {
        st = gist_load(a->e, path, 0, &g, err);
        if (st == GIST_OK) st = gist_session_attach(s, g, err);
    } else if (st == GIST_OK && way == WAY_NONE) {
        st = gist_session_prompt(s, a->p->text.p, a->p->text.len, err);
    }
    if (st == GIST_OK) st = first_token(s, input, err);
    *ms = 1e3 * (time_now() - began);
    gist_session_close(s);
    gist_free(g);
    return st;
}

gist_status ask_time(const asked *a, int n, const char *path, ask_times *out, gist_error *err) {
    double ms[WAY_COUNT][MOST];
    for (int round = 0; round < 2; round++) /* the first one warms up */
        for (int i = 0; i < n; i++)
            for (int way = 0; way < WAY_COUNT; way++)
                TRY(time_way(a, way, a->p->pair[i].input, path, &ms[way][i], err));
    *out = (ask_times){ median(ms[WAY_NONE], n), median(ms[WAY_FULL], n), median(ms[WAY_GIST], n) };
    return GIST_OK;
}
