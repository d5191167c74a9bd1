/* batch.c - many questions to one gist at once: one pass of the model for every token of all answers together.
 *
 *     cc batch.c $(pkg-config --cflags --libs gist) -o batch
 *     ./batch MODEL PROMPT QUESTION...
 *
 * Every session stands behind the same rows, which are not copied.  The answers are those that each question would get
 * by itself, bit for bit.  Also valid C++.
 */
#include <gist.h>

#include <stdio.h>
#include <string.h>

enum { MOST = 64 };

static gist_status answer_all(gist_engine *engine, const gist *g, char **questions, size_t n, gist_error *err) {
    gist_generate_options opt = GIST_GENERATE_OPTIONS_INIT;
    gist_request requests[MOST];
    gist_status status = GIST_OK;
    opt.max_tokens = 64;
    opt.repeat_penalty = 1.1f;
    memset(requests, 0, sizeof requests);
    for (size_t i = 0; i < n && status == GIST_OK; i++) {
        requests[i].input = questions[i];
        requests[i].len = strlen(questions[i]);
        requests[i].options = &opt;
        status = gist_session_open(engine, NULL, &requests[i].session, err);
        if (status == GIST_OK) status = gist_session_attach(requests[i].session, g, err);
    }
    if (status == GIST_OK) status = gist_generate_batch(requests, n, err);
    for (size_t i = 0; i < n; i++) {
        gist_request *r = &requests[i];
        if (status == GIST_OK && r->status == GIST_OK)
            printf("%s\n  %s  [%d tokens, ended by \"%s\"]\n", r->input, r->answer.text, r->answer.n, r->answer.finish);
        else if (status == GIST_OK)
            printf("%s\n  no answer: %s\n", r->input, r->error.msg); /* its own affair: the others have theirs */
        if (r->session) gist_answer_free(r->session, &r->answer);
        gist_session_close(r->session);
    }
    return status;
}

int main(int argc, char **argv) {
    if (argc < 4 || argc - 3 > MOST) {
        fprintf(stderr, "usage: %s MODEL PROMPT QUESTION...\n", argc > 0 ? argv[0] : "batch");
        return 2;
    }
    gist_compress_options compress_opt = GIST_COMPRESS_OPTIONS_INIT;
    gist_engine *engine = NULL;
    gist *g = NULL;
    gist_error err;
    memset(&err, 0, sizeof err);
    compress_opt.k = 4;

    gist_status status = gist_engine_open(argv[1], NULL, &engine, &err);
    if (status == GIST_OK) status = gist_compress(engine, argv[2], strlen(argv[2]), &compress_opt, &g, &err);
    if (status == GIST_OK) status = answer_all(engine, g, argv + 3, (size_t)(argc - 3), &err);
    if (status != GIST_OK) fprintf(stderr, "%s: %s\n", gist_status_text(status), err.msg);
    gist_free(g);
    gist_engine_close(engine);
    return status == GIST_OK ? 0 : 1;
}
