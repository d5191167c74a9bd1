/* eval_judge.h - gist eval --judge: two files of predictions compared by a language model behind an HTTP endpoint. */
#ifndef GIST_CLI_EVAL_JUDGE_H
#define GIST_CLI_EVAL_JUDGE_H

#include "base/base.h"

typedef struct judge_args {
    const char *url, *model, *key; /* key: the environment variable that holds it */
    const char *a, *b, *out;       /* predictions; out NULL: replies are not kept */
    int limit, seconds, tries, resamples;
    uint64_t seed;
    bool json, quiet, resume;
} judge_args;

/* Judge and print the result. */
gist_status eval_judge(const judge_args *a, gist_error *err);

#endif
