/* minimal.c - the whole of libgist in one page: compress a prompt once, answer from the gist alone.
 *
 *     cc minimal.c $(pkg-config --cflags --libs gist) -o minimal
 *     ./minimal MODEL "You are a shop assistant. We open at nine, on Sundays at noon." "When do you open on Sunday?"
 *
 * MODEL is a Hugging Face directory or a .gguf file.  Also valid C++.
 */
#include <gist.h>

#include <stdio.h>
#include <string.h>

/* Called for every token: its text is made of whole characters, so it can be printed as it comes. */
static bool print_token(void *ctx, const gist_token_event *event) {
    (void)ctx;
    fwrite(event->text, 1, event->text_len, stdout);
    fflush(stdout);
    return true;
}

/* The gist stands in front of the session as read-only memory; the prompt's own tokens are gone. */
static gist_status answer(gist_engine *engine, const gist *g, const char *input, gist_error *err) {
    gist_session_options session_opt = GIST_SESSION_OPTIONS_INIT;
    gist_generate_options opt = GIST_GENERATE_OPTIONS_INIT;
    gist_session *session = NULL;
    gist_answer out;
    opt.max_tokens = 64;
    opt.on_token = print_token;

    gist_status status = gist_session_open(engine, &session_opt, &session, err);
    if (status == GIST_OK) status = gist_session_attach(session, g, err);
    if (status == GIST_OK) status = gist_generate(session, input, strlen(input), &opt, &out, err);
    if (status == GIST_OK) {
        printf("\n[%d tokens, first after %.0f ms, ended by \"%s\"]\n", out.n, out.first_token_ms, out.finish);
        gist_answer_free(session, &out);
    }
    gist_session_close(session);
    return status;
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: %s MODEL PROMPT INPUT\n", argc > 0 ? argv[0] : "minimal");
        return 2;
    }
    gist_engine_options engine_opt = GIST_ENGINE_OPTIONS_INIT;
    gist_compress_options compress_opt = GIST_COMPRESS_OPTIONS_INIT;
    gist_engine *engine = NULL;
    gist *g = NULL;
    gist_info info;
    gist_error err;
    memset(&err, 0, sizeof err);
    compress_opt.k = 4;

    gist_status status = gist_engine_open(argv[1], &engine_opt, &engine, &err);
    if (status == GIST_OK) status = gist_compress(engine, argv[2], strlen(argv[2]), &compress_opt, &g, &err);
    if (status == GIST_OK) {
        gist_get_info(g, &info);
        printf("[%d prompt tokens -> %d gist tokens, %llu bytes]\n", info.prompt_tokens, info.k,
               (unsigned long long)info.bytes);
        status = answer(engine, g, argv[3], &err);
    }
    if (status != GIST_OK) fprintf(stderr, "%s: %s\n", gist_status_text(status), err.msg);
    gist_free(g);
    gist_engine_close(engine);
    return status == GIST_OK ? 0 : 1;
}
