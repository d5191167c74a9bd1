/* cmd_eval.c - gist eval: a model's answers to splits of rows under several conditions, and what they score.
 *
 *   splits --fit--> examples --each condition, greedy, in batches--> predictions (a CSV as soon as a condition is done)
 *                   --exact match, ROUGE-L--> table, results.json, results.md, results.html
 *
 * full, pos_control and TF-IDF words show what the prompt is worth uncompressed or cut, none and neg_control what an
 * answer is worth without it; retention places gists between them.  The controls may be models of their own.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "eval_report.h"

enum { MODEL_GIST, MODEL_POS, MODEL_NEG, MODELS, MOST_K = 16 };

typedef struct eval_args {
    model_args model;
    const char *pos, *neg, *conditions, *k, *corpus, *out;
    option_list data, also;
    int limit, batch, max_length, answer_tokens, words, resamples;
    uint64_t seed;
    bool json, quiet, check;
} eval_args;

static const option table[] = {
    OPT_HEADING("Models"),
    OPT_MODEL(eval_args, model),
    OPT_ADAPTER(eval_args, model),
    OPT_LIST(eval_args, also, 0, "also", "MODEL",
             "another seed or checkpoint of the model, under the same conditions: means over all of them are told too"),
    OPT_TEXT(eval_args, pos, 0, "pos", "MODEL", NULL,
             "a pos_control model, for pos_control and TF-IDF; default: the model under that condition"),
    OPT_TEXT(eval_args, neg, 0, "neg", "MODEL", NULL, "a neg_control model, the same"),
    OPT_TEMPLATE(eval_args, model),
    OPT_HEADING("Data"),
    OPT_LIST(eval_args, data, 0, "data", "NAME=FILE", "a split: .json or .jsonl of {instruction, input, output}"),
    OPT_INT(eval_args, limit, 0, "limit", "N", 0, 1 << 30, "0", "most rows of a split; 0: all"),
    OPT_INT(eval_args, max_length, 0, "max-tokens", "N", 0, 1 << 20, "0",
            "tokens of prompt, gists, input and answer in all; 0: 512, or the model's context"),
    OPT_INT(eval_args, answer_tokens, 'n', "answer-tokens", "N", 0, 1 << 20, "0",
            "most tokens of an answer; 0: what --max-tokens leaves"),
    OPT_HEADING("Conditions"),
    OPT_TEXT(eval_args, conditions, 0, "conditions", "C,C...", "full,gist,none",
             "full, gist, none, tfidf, pos_control, neg_control"),
    OPT_TEXT(eval_args, k, 'k', "gists", "N,N...", "1", "gist tokens, of gist, pos_control and neg_control"),
    OPT_TEXT(eval_args, corpus, 0, "tfidf-corpus", "FILE", NULL,
             "rows whose instructions are the documents (the training data); default: each split's own"),
    OPT_INT(eval_args, words, 0, "tfidf-words", "K", 0, 1024, "0",
            "tfidf once more with this many words instead of one; 0: not"),
    OPT_FLAG(eval_args, check, 0, "cached-check",
             "answer every gist condition again from prompt and gist tokens under the mask; a difference is a failure"),
    OPT_HEADING("Output"),
    OPT_TEXT(eval_args, out, 'o', "out", "DIR", NULL,
             "predictions as SPLIT.CONDITION.csv, results.json, results.md and results.html"),
    OPT_INT(eval_args, resamples, 0, "bootstrap", "N", 0, 100000, "1000", "resamples for the 95 % intervals; 0: none"),
    OPT_SEED(eval_args, seed, 0, "seed", "0", "of the resamples"),
    OPT_JSON(eval_args, json),
    OPT_QUIET(eval_args, quiet),
    OPT_INT(eval_args, batch, 0, "batch", "N", 1, 1024, "16", "answers at a time; results do not depend on it"),
    OPT_MACHINE(eval_args, model),
};

typedef struct job {
    const eval_args *a;
    report r;
    eval_view view[REPORT_COLUMNS];
    int views, k[MOST_K], k_count, K;
    char tokenizer[64]; /* fingerprint of the first model's */
    pool *pool;
    const eval_tfidf *tfidf; /* of the split at hand */
    int model;               /* which of the seeds is at work; 0: the first */
    double shown;
    char label[128];
    gist_error *err;
} job;

/* ---- arguments with a syntax of their own ---- */

static gist_status parse_counts(job *j) {
    for (const char *p = j->a->k;; p++) {
        char *end;
        long v = strtol(p, &end, 10);
        if (end == p || v < 1 || v > 1024 || (*end && *end != ',') || j->k_count == MOST_K)
            return err_set(j->err, GIST_ERR_USAGE,
                           "--gists: \"%.60s\" is not a list of at most %d counts from 1 to 1024", j->a->k, MOST_K);
        j->k[j->k_count++] = (int)v;
        if (v > j->K) j->K = (int)v;
        if (!*end) return GIST_OK;
        p = end;
    }
}

static gist_status add_view(job *j, train_condition c, int k, int words, const char *name) {
    eval_view v = { .c = c, .k = k, .words = words };
    bool counted = k > 0 && words == 0;
    snprintf(v.name, sizeof v.name, counted ? "%s.k%d" : "%s", name, k);
    for (int i = 0; i < j->views; i++)
        if (strcmp(j->view[i].name, v.name) == 0)
            return err_set(j->err, GIST_ERR_USAGE, "condition %s is asked for twice", v.name);
    if (j->views == REPORT_COLUMNS - 1) /* one is left for gist.10x */
        return err_set(j->err, GIST_ERR_USAGE, "more than %d conditions", REPORT_COLUMNS - 1);
    j->view[j->views++] = v;
    return GIST_OK;
}

/* The control's own form where there is a pos_control model, else the form without gist tokens. */
static gist_status add_tfidf(job *j) {
    char name[32];
    train_condition c = j->a->pos ? COND_POS_CONTROL : COND_FULL;
    int k = j->a->pos ? j->k[0] : 0;
    TRY(add_view(j, c, k, 1, "tfidf"));
    snprintf(name, sizeof name, "tfidf.%dwords", j->a->words);
    return j->a->words ? add_view(j, c, k, j->a->words, name) : GIST_OK;
}

static gist_status parse_conditions(job *j) {
    for (const char *p = j->a->conditions;; p++) {
        size_t len = strcspn(p, ",");
        train_condition c = COND_COUNT;
        if (len == 5 && memcmp(p, "tfidf", len) == 0) {
            TRY(add_tfidf(j));
        } else if (!train_condition_find(p, len, &c)) {
            return err_set(j->err, GIST_ERR_USAGE,
                           "--conditions: \"%.*s\" is none of full, gist, none, tfidf, pos_control, neg_control",
                           (int)(len < 60 ? len : 60), p);
        } else if (c == COND_FULL || c == COND_NONE) {
            TRY(add_view(j, c, 0, 0, train_condition_name(c)));
        } else {
            for (int i = 0; i < j->k_count; i++) TRY(add_view(j, c, j->k[i], 0, train_condition_name(c)));
        }
        p += len;
        if (!*p) return GIST_OK;
    }
}

/* NAME=FILE; the name becomes part of file names. */
static gist_status open_split(job *j, const char *given, eval_split *out) {
    const char *eq = strchr(given, '=');
    size_t len = eq ? (size_t)(eq - given) : 0;
    if (!eq || len == 0 || len > 64 || given[0] == '.' ||
        strspn(given, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") != len)
        return err_set(j->err, GIST_ERR_USAGE, "--data %.100s: expected NAME=FILE with a name of letters and digits",
                       given);
    char *name = mem_strndup(NULL, given, len);
    if (!name) return err_memory(j->err, "split");
    for (int i = 0; i < j->r.splits; i++)
        if (strcmp(j->r.split[i].rows.name, name) == 0) {
            mem_free(NULL, name);
            return err_set(j->err, GIST_ERR_USAGE, "--data %.100s: there is a split of this name already", given);
        }
    gist_status status = eval_split_open(out, name, eq + 1, j->a->limit, mem_default(), j->err);
    if (status != GIST_OK) mem_free(NULL, name);
    return status;
}

static gist_status read_arguments(job *j) {
    TRY(parse_counts(j));
    TRY(parse_conditions(j));
    if (j->a->data.n == 0) return err_set(j->err, GIST_ERR_USAGE, "--data NAME=FILE is needed");
    if (j->a->also.n && (j->a->pos || j->a->neg))
        return err_set(j->err, GIST_ERR_USAGE, "--also repeats every condition; --pos and --neg cannot be with it");
    for (int i = 0; i < j->a->data.n; i++) {
        TRY(open_split(j, j->a->data.item[i], &j->r.split[i].rows));
        j->r.splits++;
    }
    if (j->a->out && mkdir(j->a->out, 0777) != 0 && errno != EEXIST)
        return err_set(j->err, GIST_ERR_IO, "%s: %s", j->a->out, strerror(errno));
    return GIST_OK;
}

/* ---- files ---- */

static gist_status write_file(const job *j, const char *name, const sbuf *bytes) {
    out_file out;
    char *path = bytes->failed ? NULL : path_join(NULL, j->a->out, name);
    if (!path) return err_memory(j->err, name);
    gist_status status = out_open(&out, mem_default(), path, j->err);
    if (status == GIST_OK) {
        out_write(&out, bytes->p, bytes->len);
        status = out_commit(&out, j->err);
    }
    mem_free(NULL, path);
    return status;
}

static gist_status write_predictions(const job *j, const report_split *s, const report_column *c) {
    char name[160];
    sbuf bytes;
    if (!j->a->out) return GIST_OK;
    sbuf_init(&bytes, NULL);
    report_csv(s, c, &bytes);
    char model[24] = "";
    if (j->model) snprintf(model, sizeof model, ".model%d", j->model + 1);
    snprintf(name, sizeof name, "%s.%s%s.csv", s->rows.name, c->view.name, model);
    gist_status status = write_file(j, name, &bytes);
    sbuf_free(&bytes);
    return status;
}

static gist_status write_results(const job *j) {
    sbuf bytes;
    if (!j->a->out) return GIST_OK;
    sbuf_init(&bytes, NULL);
    json_t *root = report_json(&j->r);
    char *dumped = root ? json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(root);
    if (!dumped) return err_memory(j->err, "results.json");
    sbuf_str(&bytes, dumped);
    sbuf_str(&bytes, "\n");
    free(dumped);
    gist_status status = write_file(j, "results.json", &bytes);
    bytes.len = 0;
    report_markdown(&j->r, &bytes);
    if (status == GIST_OK) status = write_file(j, "results.md", &bytes);
    bytes.len = 0;
    report_page(&j->r, &bytes);
    if (status == GIST_OK) status = write_file(j, "results.html", &bytes);
    sbuf_free(&bytes);
    return status;
}

/* ---- one condition ---- */

static bool show(void *ctx, int done, int all) {
    job *j = ctx;
    if (!j->a->quiet && isatty(STDERR_FILENO) && time_now() - j->shown > 0.1) {
        j->shown = time_now();
        progress("%s: %d of %d", j->label, done, all);
    }
    return false;
}

static gist_status score_column(const job *j, const eval_split *s, report_column *c) {
    gist_error why = { 0 };
    eval_pair *pair = mem_alloc(NULL, (size_t)s->n, sizeof *pair);
    c->rows = mem_alloc(NULL, (size_t)s->n, sizeof *c->rows);
    gist_status status = pair && c->rows ? GIST_OK : err_memory(j->err, "scores");
    for (int i = 0; status == GIST_OK && i < s->n; i++) {
        const eval_example *e = &s->example[i];
        pair[i] = (eval_pair){ eval_strip(c->given[i].text, c->given[i].len),
                               eval_strip(e->reference.p, e->reference.len), e->line };
        c->tokens += (double)c->given[i].tokens / s->n;
        c->factor += c->view.c == COND_GIST ? (double)e->prompt_tokens / c->view.k / s->n : 0;
    }
    eval_pairs pairs = { .alloc = mem_default(), .pair = pair, .n = s->n };
    if (status == GIST_OK && eval_score_pairs(&pairs, j->pool, c->rows, &why) != GIST_OK)
        status = err_set(j->err, why.code, "%s: %s", s->path, why.msg);
    mem_free(NULL, pair);
    return status;
}

static gist_status differ(const job *j, const eval_split *s, const report_column *c, const eval_given *live) {
    for (int i = 0; i < s->n; i++) {
        const eval_given *a = &c->given[i], *b = &live[i];
        if (a->len == b->len && a->tokens == b->tokens && memcmp(a->text, b->text, a->len) == 0) continue;
        return err_set(j->err, GIST_ERR_MISMATCH,
                       "%s:%d: %s: the gist answers \"%.80s\", prompt and gist tokens under the mask \"%.80s\"",
                       s->path, s->example[i].line, c->view.name, a->text, b->text);
    }
    return GIST_OK;
}

static gist_status cached_check(job *j, gist_engine *e, const eval_split *s, const report_column *c,
                                eval_run_options o) {
    eval_given *live = mem_calloc(NULL, (size_t)s->n, sizeof *live);
    if (!live) return err_memory(j->err, "answers");
    o.live = true;
    snprintf(j->label, sizeof j->label, "%.40s, %s uncached", s->name, c->view.name);
    gist_status status = eval_run(e, s, &c->view, &o, live, j->err);
    if (status == GIST_OK) status = differ(j, s, c, live);
    eval_given_free(live, s->n, NULL);
    return status;
}

static gist_status run_view(job *j, gist_engine *e, report_split *s, report_column *c) {
    const eval_args *a = j->a;
    eval_run_options o = { .gists = j->K, .max_length = j->r.max_length, .max_tokens = a->answer_tokens,
                           .batch = a->batch, .tfidf = j->tfidf, .ctx = j, .stop = show };
    c->given = mem_calloc(NULL, (size_t)s->rows.n, sizeof *c->given);
    if (!c->given) return err_memory(j->err, "answers");
    snprintf(j->label, sizeof j->label, "%.40s, %s", s->rows.name, c->view.name);
    TRY(eval_run(e, &s->rows, &c->view, &o, c->given, j->err));
    TRY(write_predictions(j, s, c));
    if (a->check && c->view.c == COND_GIST) TRY(cached_check(j, e, &s->rows, c, o));
    return score_column(j, &s->rows, c);
}

/* ---- TF-IDF: each different instruction is one document ---- */

static gist_status count_words(const eval_split *s, eval_tfidf *t, gist_error *err) {
    for (int i = 0; i < s->n; i++) {
        const eval_example *e = &s->example[s->order[i]];
        if (i == 0 || s->example[s->order[i - 1]].prompt != e->prompt) TRY(eval_tfidf_add(t, e->instruction, err));
    }
    return GIST_OK;
}

static gist_status read_documents(const job *j, const eval_split *s, eval_tfidf **out) {
    eval_split corpus = { .alloc = mem_default() };
    TRY(eval_tfidf_create(mem_default(), out, j->err));
    if (!j->a->corpus) return count_words(s, *out, j->err);
    gist_status status = eval_split_open(&corpus, "corpus", j->a->corpus, 0, mem_default(), j->err);
    if (status == GIST_OK) status = count_words(&corpus, *out, j->err);
    eval_split_close(&corpus);
    return status;
}

/* ---- models ---- */

static int model_of(const job *j, const eval_view *v) {
    if (j->a->pos && (v->c == COND_POS_CONTROL || v->words)) return MODEL_POS;
    return j->a->neg && v->c == COND_NEG_CONTROL ? MODEL_NEG : MODEL_GIST;
}

/* The first model fits the splits; the others must read them alike. */
static gist_status check_model(job *j, gist_engine *e, const char *path, bool first) {
    gist_engine_info info;
    gist_engine_get_info(e, &info);
    int most = j->a->max_length ? j->a->max_length : info.context < 512 ? info.context : 512;
    if (!first) {
        if (strcmp(j->tokenizer, info.tokenizer_fingerprint) != 0)
            return err_set(j->err, GIST_ERR_MISMATCH, "%s: its tokenizer is not that of %s", path, j->a->model.path);
        if (info.context >= j->r.max_length) return GIST_OK;
        most = j->r.max_length;
    }
    if (most > info.context)
        return err_set(j->err, GIST_ERR_USAGE, "%s: its context is %d tokens, --max-tokens %d", path, info.context,
                       most);
    snprintf(j->tokenizer, sizeof j->tokenizer, "%s", info.tokenizer_fingerprint);
    j->r.max_length = most;
    j->r.kernels = gist_kernels_name(info.kernels);
    for (int i = 0; i < j->r.splits; i++)
        TRY(eval_split_fit(&j->r.split[i].rows, engine_tokenizer(e), tok_template_find(info.template_name), j->K, most,
                           j->err));
    return GIST_OK;
}

static gist_status run_split(job *j, gist_engine *e, int model, report_split *s) {
    eval_tfidf *words = NULL;
    gist_status status = GIST_OK;
    for (int v = 0; v < j->views && status == GIST_OK; v++) {
        if (model_of(j, &j->view[v]) != model) continue;
        s->column[v].view = j->view[v];
        if (j->view[v].words && !words) status = read_documents(j, &s->rows, &words);
        j->tfidf = words;
        if (status == GIST_OK) status = run_view(j, e, s, &s->column[v]);
    }
    eval_tfidf_free(words);
    return status;
}

static gist_status run_model(job *j, int model) {
    model_args m = j->a->model;
    gist_engine *e = NULL;
    bool needed = model == MODEL_GIST;
    for (int v = 0; v < j->views; v++) needed = needed || model_of(j, &j->view[v]) == model;
    if (!needed) return GIST_OK;
    if (j->model) m.path = j->a->also.item[j->model - 1];
    if (model != MODEL_GIST) m.path = model == MODEL_POS ? j->a->pos : j->a->neg;
    if (j->model || model != MODEL_GIST) m.adapter = NULL;
    TRY(open_engine(&m, j->a->quiet, &e, NULL, j->err));
    gist_status status = check_model(j, e, m.path, model == MODEL_GIST && !j->model);
    for (int i = 0; i < j->r.splits && status == GIST_OK; i++) status = run_split(j, e, model, &j->r.split[i]);
    gist_engine_close(e);
    return status;
}

/* ---- comparing ---- */

static int find_column(const report_split *s, train_condition c, int k) {
    for (int i = 0; i < s->columns; i++)
        if (s->column[i].view.c == c && s->column[i].view.k == k && !s->column[i].view.words) return i;
    return -1;
}

/* The control for a column of k gist tokens: with as many, else with the most. */
static int control(const job *j, const report_split *s, train_condition c, int k) {
    int at = find_column(s, c, k);
    return at >= 0 ? at : find_column(s, c, j->K);
}

static void release_column(report_column *c, int n) {
    if (c->in)
        mem_free(NULL, c->given); /* the texts are others' */
    else
        eval_given_free(c->given, n, NULL);
    mem_free(NULL, c->rows);
    mem_free(NULL, c->in);
    *c = (report_column){ .rows = NULL };
}

/* A column of the largest k for each prompt that compresses it tenfold. */
static gist_status add_tenfold(const job *j, report_split *s) {
    report_column *c = &s->column[s->columns];
    size_t n = (size_t)s->rows.n;
    if (find_column(s, COND_GIST, j->k[0]) < 0) return GIST_OK;
    *c = (report_column){ .view = { .c = COND_GIST } };
    snprintf(c->view.name, sizeof c->view.name, "gist.%dx", REPORT_FACTOR);
    c->given = mem_calloc(NULL, n, sizeof *c->given);
    c->rows = mem_calloc(NULL, n, sizeof *c->rows);
    c->in = mem_calloc(NULL, n, 1);
    s->columns++; /* released with the others */
    if (!c->given || !c->rows || !c->in) return err_memory(j->err, "scores");
    int found = 0;
    for (size_t i = 0; i < n; i++) {
        int tokens = s->rows.example[i].prompt_tokens;
        int k = eval_largest_k(j->k, j->k_count, tokens, REPORT_FACTOR);
        if (k == 0) continue;
        const report_column *of = &s->column[find_column(s, COND_GIST, k)];
        c->given[i] = of->given[i];
        c->rows[i] = of->rows[i];
        c->in[i] = 1;
        c->tokens += of->given[i].tokens;
        c->factor += (double)tokens / k;
        found++;
    }
    if (found) {
        c->tokens /= found;
        c->factor /= found;
        return GIST_OK;
    }
    s->columns--; /* no prompt is long enough */
    release_column(c, 0);
    return GIST_OK;
}

static gist_status compare(const job *j, report_split *s) {
    eval_column column[REPORT_COLUMNS];
    eval_cell cell[REPORT_COLUMNS];
    int *prompt = mem_alloc(NULL, (size_t)s->rows.n, sizeof *prompt);
    if (!prompt) return err_memory(j->err, "scores");
    for (int i = 0; i < s->rows.n; i++) prompt[i] = s->rows.example[i].prompt;
    for (int c = 0; c < s->columns; c++) {
        int k = s->column[c].view.k, none = find_column(s, COND_NONE, 0);
        column[c] = (eval_column){ .rows = s->column[c].rows, .in = s->column[c].in,
                                   .lower = none >= 0 ? none : control(j, s, COND_NEG_CONTROL, k),
                                   .upper = { find_column(s, COND_FULL, 0), control(j, s, COND_POS_CONTROL, k) } };
    }
    gist_status status = eval_compare(column, s->columns, prompt, s->rows.n, s->rows.prompts, j->a->resamples,
                                      j->a->seed, mem_default(), cell, j->err);
    for (int c = 0; status == GIST_OK && c < s->columns; c++) s->column[c].cell = cell[c];
    mem_free(NULL, prompt);
    return status;
}

/* ---- the command ---- */

static gist_status run_and_compare(job *j) {
    for (int m = 0; m < MODELS; m++) TRY(run_model(j, m));
    progress_end();
    for (int i = 0; i < j->r.splits; i++) {
        j->r.split[i].columns = j->views;
        TRY(add_tenfold(j, &j->r.split[i]));
        TRY(compare(j, &j->r.split[i]));
    }
    return GIST_OK;
}

/* Figures of the model at work go from *from to its place in *to. */
static void keep_figures(const job *j, const report_column *from, report_column *to) {
    for (int by = 0; by < EVAL_BYS; by++) {
        to->score[j->model][by] = from->cell.score[by].mean;
        to->retention[j->model][by] = from->cell.retention[by].mean;
    }
}

/* The next seed: its predictions are written, its figures kept beside the first one's, its answers let go. */
static gist_status run_also(job *j, int model) {
    report_column *first = mem_alloc(NULL, (size_t)j->r.splits * REPORT_COLUMNS, sizeof *first);
    if (!first) return err_memory(j->err, "scores");
    for (int i = 0; i < j->r.splits; i++) {
        memcpy(first + i * REPORT_COLUMNS, j->r.split[i].column, sizeof j->r.split[i].column);
        memset(j->r.split[i].column, 0, sizeof j->r.split[i].column);
    }
    j->model = model;
    gist_status status = run_and_compare(j);
    for (int i = 0; i < j->r.splits; i++)
        for (int c = 0; c < REPORT_COLUMNS; c++) {
            report_column *col = &j->r.split[i].column[c];
            if (status == GIST_OK) keep_figures(j, col, &first[i * REPORT_COLUMNS + c]);
            release_column(col, j->r.split[i].rows.n);
            *col = first[i * REPORT_COLUMNS + c];
        }
    mem_free(NULL, first);
    return status;
}

static gist_status evaluate(job *j) {
    TRY(read_arguments(j));
    TRY(pool_create(mem_default(), j->a->model.threads, &j->pool, j->err));
    TRY(run_and_compare(j));
    for (int i = 0; i < j->r.splits; i++)
        for (int c = 0; c < j->r.split[i].columns; c++)
            keep_figures(j, &j->r.split[i].column[c], &j->r.split[i].column[c]);
    TRY(write_results(j)); /* the first one's stand even if a later one fails */
    for (int m = 1; m <= j->a->also.n; m++) {
        TRY(run_also(j, m));
        j->r.models++;
    }
    if (j->a->also.n) TRY(write_results(j));
    if (j->a->json) return json_print(report_json(&j->r), j->err);
    report_table(&j->r, stdout);
    if (j->a->check) printf("cached-check: every gist's answers are those of prompt and gist tokens under the mask\n");
    return GIST_OK;
}

static void release(job *j) {
    for (int i = 0; i < OPTION_LIST_MAX; i++) {
        report_split *s = &j->r.split[i];
        for (int c = 0; c < REPORT_COLUMNS; c++) release_column(&s->column[c], s->rows.n);
        char *name = (char *)(uintptr_t)s->rows.name;
        if (name) eval_split_close(&s->rows);
        mem_free(NULL, name);
    }
    pool_free(j->pool);
}

static int run(const command *self, int argc, char **argv) {
    eval_args a = { 0 };
    int done = options_parse(self, &a, argc, argv);
    if (done != OPTIONS_GO) return done;
    gist_error err = { 0 };
    job *j = mem_calloc(NULL, 1, sizeof *j);
    if (!j) {
        err_memory(&err, "evaluation");
        return fail(&err);
    }
    j->a = &a;
    j->err = &err;
    j->r.model = a.model.path;
    j->r.pos = a.pos;
    j->r.neg = a.neg;
    j->r.also = a.also.item;
    j->r.models = 1;
    j->r.resamples = a.resamples;
    j->r.seed = a.seed;
    gist_status status = evaluate(j);
    progress_end();
    release(j);
    mem_free(NULL, j);
    return status == GIST_OK ? EXIT_DONE : fail(&err);
}

const command cmd_eval = {
    .group = "Measure",
    .name = "eval",
    .summary = "answers under each condition, their scores, and what gists retain",
    .usage = "-m MODEL --data NAME=FILE... [--conditions C,C...] [-k N,N...] [-o DIR]",
    .details =
        "Answers are greedy.  Brackets are 95 % intervals over prompts, drawn with all their examples, the same ones\n"
        "for every condition.  Retention is (score - none) / (upper - none): none, or else neg_control; upper is the\n"
        "better of full and pos_control.  gist.10x takes for each prompt the largest k given that compresses it\n"
        "tenfold, and leaves out prompts that are too short.  TF-IDF words: lower-cased runs of letters and digits,\n"
        "idf = ln((1+N)/(1+df)) + 1 over the different instructions, ties to the first.",
    .example = "gist eval -m MODEL --data unseen=dev.jsonl --conditions full,gist,none,tfidf -k 1,2,4,8 -o results\n"
               "gist eval -m MODEL --pos POS --neg NEG --data human=human.jsonl \\\n"
               "    --conditions gist,pos_control,neg_control,tfidf --tfidf-corpus train.jsonl",
    .options = table,
    .count = sizeof table / sizeof *table,
    .run = run,
};
