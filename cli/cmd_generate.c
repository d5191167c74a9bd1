/* cmd_generate.c - gist generate: answer an input behind a gist, a prompt, or nothing; streaming.
 *
 *   -g FILE           the gist's rows, then the input; several: one gist behind another
 *   -p TEXT           the prompt's tokens, then the input
 *   -p TEXT -k N      prompt and N gist tokens in one timeline, under the mask of --condition (gisting.md's three):
 *                     what a gist file is checked against, and the two controls
 */
#include <unistd.h>

#include "answer.h"

enum { CONDITION_GIST, CONDITION_POS, CONDITION_NEG };

typedef struct generate_args {
    model_args model;
    option_list gists;
    const char *prompt, *file, *input, *input_file;
    int k, condition, kv, context, position, samples;
    answer_args answer;
    bool force, logprobs, json, stats, quiet;
} generate_args;

static const option table[] = {
    OPT_HEADING("What stands in front"),
    OPT_MODEL(generate_args, model),
    OPT_ADAPTER(generate_args, model),
    OPT_LIST(generate_args, gists, 'g', "gist", "FILE",
             "a gist file made with this model; several stand one behind another, from position 0"),
    OPT_FLAG(generate_args, force, 0, "force", "accept a gist of another model when every shape fits"),
    OPT_TEXT(generate_args, prompt, 'p', "prompt", "TEXT", NULL, "a prompt, uncompressed"),
    OPT_TEXT(generate_args, file, 'f', "file", "FILE", NULL,
             "the prompt from a file (- standard input); one final newline is dropped"),
    OPT_INT(generate_args, k, 'k', "gists", "N", 0, 1024, "0",
            "gist tokens behind the prompt, masked live as --condition says; 0: none"),
    OPT_CHOICE(generate_args, condition, 0, "condition", "gist|pos_control|neg_control", "gist",
               "with -k, what the input sees: the gist tokens; all; neither"),
    OPT_INT(generate_args, position, 0, "position", "N", 0, 1 << 20, "0",
            "without a prompt: position of the first token; 0: behind the gist, or at the start"),
    OPT_TEMPLATE(generate_args, model),
    OPT_HEADING("Input"),
    OPT_TEXT(generate_args, input, 'i', "input", "TEXT", NULL,
             "the input to answer; none: the template's form without one"),
    OPT_TEXT(generate_args, input_file, 0, "input-file", "FILE", NULL, "the input from a file (- standard input)"),
    OPT_ANSWER(generate_args, answer),
    OPT_INT(generate_args, samples, 0, "samples", "N", 1, 1024, "1",
            "answers to the input, with seeds from --seed on; the input is run once"),
    OPT_HEADING("Output"),
    OPT_FLAG(generate_args, logprobs, 0, "logprobs",
             "instead of the text a line per token: id, log-probability, piece; with --json a list"),
    OPT_JSON(generate_args, json),
    OPT_FLAG(generate_args, stats, 0, "stats",
             "time to the first token and tokens per second on standard error, or in --json"),
    OPT_QUIET(generate_args, quiet),
    OPT_HEADING("Memory"),
    OPT_INT(generate_args, context, 0, "ctx", "N", 0, 1 << 20, "0",
            "most tokens beside the gist; 0: the model's context"),
    OPT_KV(generate_args, kv, "number type of keys and values; auto: the gist's, else bf16"),
    OPT_MACHINE(generate_args, model),
};

/* ---- what stands in front ---- */

/* Prompt and gist tokens in one timeline; what follows is fed under the condition's mask. */
static gist_status feed_masked(const generate_args *a, gist_engine *e, gist_session *s, const text *prompt,
                               gist_error *err) {
    gist_engine_info info;
    tok_ids ids;
    gist_engine_get_info(e, &info);
    tok_ids_init(&ids, NULL);
    const tok_template *tp = tok_template_find(info.template_name);
    gist_status status = tok_template_prompt(engine_tokenizer(e), tp, prompt->p, prompt->len, &ids, err);
    int p = (int)ids.n;
    for (int i = 0; status == GIST_OK && i < a->k; i++) status = tok_ids_push(&ids, info.gist_token, err);
    if (status == GIST_OK) status = gist_session_feed(s, ids.id, ids.n, NULL, err);
    tok_ids_free(&ids);
    if (a->condition == CONDITION_GIST) session_hide_before(s, p);
    if (a->condition == CONDITION_NEG) session_hide_before(s, p + a->k);
    return status;
}

static gist_status put_in_front(const generate_args *a, gist_engine *e, gist_session *s, const text *prompt, gist **g,
                                gist_error *err) {
    if (a->gists.n) {
        TRY(load_gists(&a->gists, e, a->force ? GIST_LOAD_FORCE : 0u, a->quiet, g, err));
        TRY(gist_session_attach(s, *g, err));
    }
    if (prompt->p && a->k) return feed_masked(a, e, s, prompt, err);
    if (prompt->p) return gist_session_prompt(s, prompt->p, prompt->len, err);
    return a->position ? gist_session_set_position(s, a->position, err) : GIST_OK;
}

/* ---- output ---- */

typedef struct printer {
    const tokenizer *tok;
    bool logprobs, json;
    char last;
} printer;

static bool on_token(void *ctx, const gist_token_event *ev) {
    printer *p = ctx;
    if (p->json) return true;
    if (p->logprobs) {
        if (ev->id < 0) return true; /* text that was held back */
        printf("%d\t%.9g\t", ev->id, (double)ev->logprob);
        print_piece(p->tok, ev->id, stdout);
        putchar('\n');
    } else if (ev->text_len) {
        fwrite(ev->text, 1, ev->text_len, stdout);
        p->last = ev->text[ev->text_len - 1];
    }
    return fflush(stdout) == 0;
}

static double rate(const gist_answer *r) {
    double decoding = r->total_ms - r->first_token_ms;
    return r->n > 1 && decoding > 0 ? (r->n - 1) / decoding * 1e3 : 0;
}

static json_t *answer_json(const generate_args *a, const gist_answer *r) {
    json_t *root =
        json_pack("{s:o, s:s, s:i, s:i, s:o}", "text", json_text_of(r->text, r->text_len), "finish", r->finish,
                  "input_tokens", r->input_tokens, "output_tokens", r->n, "ids", json_ids_of(r->ids, (size_t)r->n));
    int bad = !root;
    if (a->logprobs && !bad) {
        json_t *list = json_array();
        for (int i = 0; i < r->n && !bad; i++) bad = json_array_append_new(list, json_real((double)r->logprobs[i]));
        bad = json_object_set_new(root, "logprobs", list) || bad;
    }
    if (a->stats && !bad)
        bad = json_object_set_new(root, "stats",
                                  json_pack("{s:f, s:f, s:f}", "first_token_ms", r->first_token_ms, "total_ms",
                                            r->total_ms, "tokens_per_second", rate(r)));
    if (!bad) return root;
    json_decref(root);
    return NULL;
}

/* Several answers: {"answers": [...]} */
static json_t *samples_json(const generate_args *a, const gist_answer *r) {
    json_t *list = json_array();
    for (int i = 0; list && i < a->samples; i++)
        if (json_array_append_new(list, answer_json(a, &r[i])) != 0) {
            json_decref(list);
            list = NULL;
        }
    return list ? json_pack("{s:o}", "answers", list) : NULL;
}

static void print_stats(const gist_answer *r) {
    fprintf(stderr, "gist: %d input tokens, first token after %.1f ms; %d tokens in %.1f ms", r->input_tokens,
            r->first_token_ms, r->n, r->total_ms);
    if (rate(r) > 0) fprintf(stderr, ", %.1f tokens/s", rate(r));
    fprintf(stderr, "; ended by %s\n", r->finish);
}

/* ---- the command ---- */

static gist_status one_answer(const generate_args *a, gist_session *s, const text *input, gist_generate_options *o,
                              printer *p, gist_error *err) {
    gist_answer r;
    o->on_token = on_token;
    o->on_token_ctx = p;
    TRY(gist_generate(s, input->p, input->len, o, &r, err));
    gist_status status = GIST_OK;
    if (a->json)
        status = json_print(answer_json(a, &r), err);
    else if (!a->logprobs && p->last != '\n')
        putchar('\n');
    if (status == GIST_OK && a->stats && !a->json && !a->quiet) print_stats(&r);
    gist_answer_free(s, &r);
    return status;
}

/* They advance together, so none can stream. */
static gist_status many_answers(const generate_args *a, gist_session *s, const text *input,
                                const gist_generate_options *o, gist_error *err) {
    size_t n = (size_t)a->samples;
    gist_answer *r = mem_calloc(NULL, n, sizeof *r);
    if (!r) return err_memory(err, "answers");
    gist_status status = gist_generate_samples(s, input->p, input->len, o, r, n, err);
    if (status == GIST_OK && a->json) status = json_print(samples_json(a, r), err);
    for (size_t i = 0; status == GIST_OK && !a->json && i < n; i++) {
        printf("[%zu] ", i + 1);
        fwrite(r[i].text, 1, r[i].text_len, stdout);
        if (!r[i].text_len || r[i].text[r[i].text_len - 1] != '\n') putchar('\n');
        if (a->stats && !a->quiet) print_stats(&r[i]);
    }
    for (size_t i = 0; i < n; i++) gist_answer_free(s, &r[i]);
    mem_free(NULL, r);
    return status;
}

static gist_status answer(const generate_args *a, gist_engine *e, gist_session *s, const text *input, gist_error *err) {
    gist_generate_options o;
    gist_logit_bias bias[OPTION_LIST_MAX];
    printer p = { engine_tokenizer(e), a->logprobs, a->json, '\n' };
    TRY(answer_options(&a->answer, e, &o, bias, err));
    return a->samples > 1 ? many_answers(a, s, input, &o, err) : one_answer(a, s, input, &o, &p, err);
}

static gist_status generate(const generate_args *a, const text *prompt, const text *input, gist_error *err) {
    gist_engine *e = NULL;
    gist_session *s = NULL;
    gist *g = NULL;
    gist_session_options o = GIST_SESSION_OPTIONS_INIT;
    o.context = a->context;
    o.kv = (gist_type)a->kv;
    gist_status status = open_engine(&a->model, a->quiet, &e, NULL, err);
    if (status == GIST_OK) status = gist_session_open(e, &o, &s, err);
    if (status == GIST_OK) status = put_in_front(a, e, s, prompt, &g, err);
    if (status == GIST_OK) status = answer(a, e, s, input, err);
    gist_session_close(s);
    gist_free(g);
    gist_engine_close(e);
    return status;
}

static int check(const command *self, const generate_args *a) {
    bool prompt = a->prompt || a->file;
    if (a->prompt && a->file) return usage_error(self, "generate: give the prompt with either -p or -f");
    if (a->input && a->input_file) return usage_error(self, "generate: give the input with either -i or --input-file");
    if (a->gists.n && prompt) return usage_error(self, "generate: a gist replaces the prompt; give -g or a prompt");
    if (a->file && a->input_file && !strcmp(a->file, "-") && !strcmp(a->input_file, "-"))
        return usage_error(self, "generate: standard input cannot be both prompt and input");
    if (a->k && !prompt) return usage_error(self, "generate: -k needs a prompt");
    if (a->condition != CONDITION_GIST && !a->k) return usage_error(self, "generate: --condition needs -k");
    if (a->position && prompt) return usage_error(self, "generate: --position is for an input without a prompt");
    if (a->force && !a->gists.n) return usage_error(self, "generate: --force is about a gist; -g is missing");
    if (a->samples > 1 && a->logprobs && !a->json)
        return usage_error(self, "generate: --logprobs of several --samples need --json");
    if (a->samples > 1 && !(a->answer.temperature > 0) && !a->quiet)
        warn("without --temp all samples are the same answer");
    if (!a->gists.n && !prompt && !a->input && !a->input_file)
        return usage_error(self, "generate: nothing to answer; give a gist (-g), a prompt (-p, -f) or an input (-i)");
    return OPTIONS_GO;
}

static int run(const command *self, int argc, char **argv) {
    generate_args a = { 0 };
    int done = options_parse(self, &a, argc, argv);
    if (done == OPTIONS_GO) done = check(self, &a);
    if (done != OPTIONS_GO) return done;
    gist_error err = { 0 };
    text prompt = { 0 }, input = { 0 };
    gist_status status = text_read(&prompt, a.prompt, a.file, true, &err);
    if (status == GIST_OK) status = text_read(&input, a.input, a.input_file, true, &err);
    if (status == GIST_OK) status = generate(&a, &prompt, &input, &err);
    text_free(&prompt);
    text_free(&input);
    return status == GIST_OK ? EXIT_DONE : fail(&err);
}

const command cmd_generate = {
    .group = "Compress and answer",
    .name = "generate",
    .summary = "an answer from a gist, or from a prompt; streams",
    .usage = "-m MODEL [-g IN.gist]... [-p PROMPT | -f FILE] [-i INPUT | --input-file FILE] [-n MAX]",
    .details =
        "With --json the answer comes as one object: text, finish (eos, length, stop, context, json,\n"
        "invalid-json), token counts, ids; with --samples as {\"answers\": [...]}.  A token is drawn in this order:\n"
        "bias, repetition penalty, top-k, top-p, min-p, temperature.",
    .example = "gist generate -m models/shop -g shop.gist -i \"When do you open on Sunday?\" -n 64",
    .options = table,
    .count = sizeof table / sizeof *table,
    .run = run,
};
