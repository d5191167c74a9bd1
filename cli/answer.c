/* answer.c - what `generate` and `chat` share: how an answer is drawn, and the gists that stand in front of it. */
#include <math.h>
#include <stdlib.h>

#include "answer.h"

/* "ID=X" or "TEXT=X", at the last '='. */
static gist_status read_bias(const char *said, const gist_engine *e, gist_logit_bias *out, gist_error *err) {
    const char *equals = strrchr(said, '=');
    char *end = NULL;
    float x = equals ? strtof(equals + 1, &end) : 0;
    if (!equals || equals == said || end == equals + 1 || *end || isnan(x) || x > 1e30f)
        return err_set(err, GIST_ERR_USAGE, "--logit-bias: \"%.60s\" is not ID=X or TEXT=X", said);
    size_t len = (size_t)(equals - said), n = 0;
    out->bias = x;
    if (strspn(said, "0123456789") == len && len < 10) {
        out->id = (int32_t)strtol(said, NULL, 10);
        if (out->id < engine_model(e)->vocab) return GIST_OK;
        return err_set(err, GIST_ERR_USAGE, "--logit-bias: token %d, the vocabulary has %d", out->id,
                       engine_model(e)->vocab);
    }
    TRY(gist_tokenize(e, said, len, GIST_TOKENIZE_SPECIAL, NULL, 0, &n, err));
    if (n != 1)
        return err_set(err, GIST_ERR_USAGE, "--logit-bias: \"%.*s\" is %zu tokens, not one (see gist tokenize)",
                       (int)(len < 60 ? len : 60), said, n);
    return gist_tokenize(e, said, len, GIST_TOKENIZE_SPECIAL, &out->id, 1, &n, err);
}

gist_status answer_options(const answer_args *a, const gist_engine *e, gist_generate_options *o,
                           gist_logit_bias bias[OPTION_LIST_MAX], gist_error *err) {
    *o = (gist_generate_options)GIST_GENERATE_OPTIONS_INIT;
    for (int i = 0; i < a->bias.n; i++) TRY(read_bias(a->bias.item[i], e, &bias[i], err));
    o->max_tokens = a->max_tokens;
    o->temperature = a->temperature;
    o->top_k = a->top_k;
    o->top_p = a->top_p;
    o->min_p = a->min_p;
    o->repeat_penalty = a->repeat_penalty;
    o->repeat_last = a->repeat_last;
    o->bias = bias;
    o->bias_count = (size_t)a->bias.n;
    o->seed = a->seed;
    o->stop = a->stop.item;
    o->json_object = a->json_object;
    o->ignore_eos = a->ignore_eos;
    return GIST_OK;
}

static void warn_of(const char *file, const gist *g, const gist_engine *e) {
    gist_engine_info model;
    gist_info info;
    gist_engine_get_info(e, &model);
    gist_get_info(g, &info);
    if (strcmp(info.model_fingerprint, model.fingerprint) != 0)
        warn("%s was made by another model (%s, this one is %s)", file, info.model_fingerprint, model.fingerprint);
    if (strcmp(info.template_name, model.template_name) != 0)
        warn("%s was made with template %s, the input gets %s", file, info.template_name, model.template_name);
}

gist_status load_gists(const option_list *files, gist_engine *e, unsigned flags, bool quiet, gist **out,
                       gist_error *err) {
    gist *part[OPTION_LIST_MAX] = { NULL };
    gist_status status = GIST_OK;
    int n = 0;
    for (; status == GIST_OK && n < files->n; n++) {
        status = gist_load(e, files->item[n], flags, &part[n], err);
        if (status == GIST_OK && !quiet) warn_of(files->item[n], part[n], e);
    }
    if (status == GIST_OK && n == 1) {
        *out = part[0];
        return GIST_OK;
    }
    if (status == GIST_OK) status = gist_compose(e, (const gist *const *)part, (size_t)n, out, err);
    while (n > 0) gist_free(part[--n]);
    return status;
}
