/* answer.h - what `generate` and `chat` share: how an answer is drawn, and the gists that stand in front of it. */
#ifndef GIST_CLI_ANSWER_H
#define GIST_CLI_ANSWER_H

#include "cli.h"

typedef struct answer_args {
    int max_tokens, top_k, repeat_last;
    float temperature, top_p, min_p, repeat_penalty;
    uint64_t seed;
    option_list stop, bias;
    bool ignore_eos, json_object;
} answer_args;

#define OPT_ANSWER(type, field)                                                                                        \
    OPT_HEADING("Answer"),                                                                                             \
        OPT_INT(type, field.max_tokens, 'n', "max-tokens", "N", 0, 1 << 20, "256",                                     \
                "most tokens; 0: until the model ends or the context is full"),                                       \
        OPT_FLOAT(type, field.temperature, 0, "temp", "X", 0, 1e6, "0",                                                \
                  "temperature; 0: always the most probable token"),                                                   \
        OPT_INT(type, field.top_k, 0, "top-k", "N", 0, 1 << 20, "0",                                                   \
                "draw from the N most probable tokens; 0: all"),                                                       \
        OPT_FLOAT(type, field.top_p, 0, "top-p", "X", 0, 1, "1",                                                       \
                  "draw from the fewest tokens that together have this probability"),                                  \
        OPT_FLOAT(type, field.min_p, 0, "min-p", "X", 0, 1, "0",                                                       \
                  "draw from tokens at least X times as probable as the most probable one"),                           \
        OPT_FLOAT(type, field.repeat_penalty, 0, "repeat-penalty", "X", 1e-3, 1e6, "1",                                \
                  "make tokens of the input and answer less probable when they would come again; 1: off"),             \
        OPT_INT(type, field.repeat_last, 0, "repeat-last", "N", -1, 1 << 20, "64",                                     \
                "tokens back that the penalty looks; -1: all"),                                                        \
        OPT_LIST(type, field.bias, 0, "logit-bias", "ID=X",                                                            \
                 "add X to this token's logit (-inf: never draw it); ID may be a text that is one token"),             \
        OPT_SEED(type, field.seed, 0, "seed", "0", "of the random numbers: one seed, one answer"),                     \
        OPT_LIST(type, field.stop, 0, "stop", "TEXT", "end before this text"),                                         \
        OPT_FLAG(type, field.json_object, 0, "json-object",                                                            \
                 "answer with one JSON object: tokens that would break it are not drawn, and its end is the end"),     \
        OPT_FLAG(type, field.ignore_eos, 0, "ignore-eos", "do not end at the end-of-text token")

/* Options of the library's from those of the user; bias holds what --logit-bias says. */
gist_status answer_options(const answer_args *a, const gist_engine *e, gist_generate_options *o,
                           gist_logit_bias bias[OPTION_LIST_MAX], gist_error *err);

/* Load gist files, several as one behind another.  flags: of gist_load.  Warns, unless quiet, of what does not fit. */
gist_status load_gists(const option_list *files, gist_engine *e, unsigned flags, bool quiet, gist **out,
                       gist_error *err);

#endif
