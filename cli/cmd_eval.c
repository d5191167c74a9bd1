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

#include "eval_job.h"

static const option table[] = {
    OPT_HEADING("Models"),
    OPT_TEXT(eval_args, model.path, 'm', "model", "MODEL", NULL, "a Hugging Face directory or a .gguf file"),
    OPT_ADAPTER(eval_args, model),
    OPT_LIST(eval_args, also, 0, "also", "MODEL",
             "another seed or checkpoint of the model, under the same conditions: means over all of them are told too"),
    OPT_LIST(eval_args, pos, 0, "pos", "MODEL",
             "a pos_control model, for pos_control and TF-IDF; for all seeds, or one for each; default: the model so "
             "conditioned"),
    OPT_LIST(eval_args, neg, 0, "neg", "MODEL", "a neg_control model, the same"),
    OPT_TEMPLATE(eval_args, model),
    OPT_HEADING("Data"),
    OPT_LIST(eval_args, data, 0, "data", "NAME=FILE",
             "a split: .json or .jsonl of {instruction, input, output} or {messages}"),
    OPT_INT(eval_args, limit, 0, "limit", "N", 0, 1 << 30, "0", "most rows of a split; 0: all"),
    OPT_INT(eval_args, max_length, 0, "max-tokens", "N", 0, 1 << 20, "0",
            "tokens of prompt, gists, input and answer in all; 0: 512, or the model's context"),
    OPT_LIST(eval_args, labels, 0, "label-tokens", "NAME=N",
             "where this split's references are cut, prompt and input counted; default: --max-tokens"),
    OPT_INT(eval_args, answer_tokens, 'n', "answer-tokens", "N", 0, 1 << 20, "0",
            "most tokens of an answer; 0: what --max-tokens leaves"),
    OPT_HEADING("Conditions"),
    OPT_TEXT(eval_args, conditions, 0, "conditions", "C,C...", "full,gist,none",
             "full, gist, none, tfidf (a word), tfidf_k (words of as many tokens as each k), pos_control, neg_control"),
    OPT_FLAG(eval_args, other, 0, "other-gist", "answer behind another prompt's gist too, which --seed draws"),
    OPT_TEXT(eval_args, k, 'k', "gists", "N,N...", "1", "gist tokens, of gist, pos_control and neg_control"),
    OPT_TEXT(eval_args, corpus, 0, "tfidf-corpus", "FILE", NULL,
             "rows whose instructions are the documents (the training data); default: each split's own"),
    OPT_INT(eval_args, words, 0, "tfidf-words", "K", 0, 1024, "0",
            "tfidf once more with this many words instead of one; 0: not"),
    OPT_FLAG(eval_args, check, 0, "cached-check",
             "answer every gist condition again from prompt and gist tokens under the mask; a difference is a failure"),
    OPT_HEADING("Judge"),
    OPT_TEXT(eval_args, judge.url, 0, "judge", "URL", NULL,
             "compare predictions A and B instead: an OpenAI-compatible endpoint, as http://127.0.0.1:8080/v1"),
    OPT_TEXT(eval_args, judge.a, 0, NULL, "A", NULL, "predictions (CSV with x, y_pred, y_true), for --judge"),
    OPT_TEXT(eval_args, judge.b, 0, NULL, "B", NULL, "others for the same rows"),
    OPT_TEXT(eval_args, judge.model, 0, "judge-model", "NAME", NULL, "the judge, as the endpoint calls it"),
    OPT_TEXT(eval_args, judge.key, 0, "judge-key-env", "NAME", "GIST_JUDGE_KEY",
             "environment variable with the endpoint's key; the key is sent, never printed or kept"),
    OPT_INT(eval_args, judge.seconds, 0, "judge-timeout", "S", 1, 3600, "120", "most seconds of one request"),
    OPT_INT(eval_args, judge.tries, 0, "judge-tries", "N", 1, 100, "4",
            "tries of a request that met no answer, status 429 or 5xx; 1, 2, 4, ... seconds apart"),
    OPT_HEADING("Output"),
    OPT_TEXT(eval_args, out, 'o', "out", "DIR", NULL,
             "predictions as SPLIT.CONDITION.csv, results.json, .md and .html, SPLIT.retention.csv and .svg"),
    OPT_FLAG(eval_args, resume, 0, "resume", "go on with the answers that an interrupted run left in --out"),
    OPT_LIST(eval_args, by, 0, "by", "KEY", "scores by each value of this member of the rows too (\"kind\")"),
    OPT_LIST(eval_args, ratio, 0, "ratio", "N,N...",
             "a row gist.Nx: for each prompt the largest k that compresses it so; default: 10"),
    OPT_INT(eval_args, resamples, 0, "bootstrap", "N", 0, 100000, "1000", "resamples for the 95 % intervals; 0: none"),
    OPT_SEED(eval_args, seed, 0, "seed", "0", "of the resamples, of --other-gist, of the judge's order"),
    OPT_JSON(eval_args, json),
    OPT_QUIET(eval_args, quiet),
    OPT_INT(eval_args, batch, 0, "batch", "N", 1, 1024, "16", "answers at a time; results do not depend on it"),
    OPT_KV(eval_args, kv, "number type of keys and values, gists' too; auto: bf16"),
    OPT_MACHINE(eval_args, model),
};

/* ---- arguments with a syntax of their own ---- */

/* A list of counts "N,N..." appended to out[*n]. */
static gist_status parse_counts(const job *j, const char *name, const char *given, int *out, int *n, int most) {
    for (const char *p = given;; p++) {
        char *end;
        long v = strtol(p, &end, 10);
        if (end == p || v < 1 || v > 1024 || (*end && *end != ',') || *n == most)
            return err_set(j->err, GIST_ERR_USAGE, "--%s: \"%.60s\" is not a list of at most %d counts from 1 to 1024",
                           name, given, most);
        for (int i = 0; i < *n; i++)
            if (out[i] == v) return err_set(j->err, GIST_ERR_USAGE, "--%s: %ld is given twice", name, v);
        out[(*n)++] = (int)v;
        if (!*end) return GIST_OK;
        p = end;
    }
}

static gist_status parse_lists(job *j) {
    TRY(parse_counts(j, "gists", j->a->k, j->k, &j->k_count, MOST_K));
    for (int i = 0; i < j->k_count; i++)
        if (j->k[i] > j->K) j->K = j->k[i];
    for (int i = 0; i < j->a->ratio.n; i++)
        TRY(parse_counts(j, "ratio", j->a->ratio.item[i], j->ratio, &j->ratios, MOST_RATIOS));
    if (j->ratios == 0) j->ratio[j->ratios++] = REPORT_FACTOR;
    j->r.ratio = j->ratio[0];
    if (j->a->by.n > REPORT_KEYS)
        return err_set(j->err, GIST_ERR_USAGE, "--by: at most %d members", REPORT_KEYS);
    return GIST_OK;
}

static gist_status add_view(job *j, eval_view v, const char *name) {
    snprintf(v.name, sizeof v.name, "%s", name);
    for (int i = 0; i < j->views; i++)
        if (strcmp(j->view[i].name, v.name) == 0)
            return err_set(j->err, GIST_ERR_USAGE, "condition %s is asked for twice", v.name);
    if (j->views == REPORT_COLUMNS - MOST_RATIOS)
        return err_set(j->err, GIST_ERR_USAGE, "more than %d conditions", REPORT_COLUMNS - MOST_RATIOS);
    j->view[j->views++] = v;
    return GIST_OK;
}

/* `v` once for each k: its gist tokens, or the budget of a TF-IDF condition. */
static gist_status add_counted(job *j, eval_view v, const char *name, bool budget) {
    char full[48];
    for (int i = 0; i < j->k_count; i++) {
        snprintf(full, sizeof full, "%s.k%d", name, j->k[i]);
        *(budget ? &v.budget : &v.k) = j->k[i];
        TRY(add_view(j, v, full));
    }
    return GIST_OK;
}

/* The control's own form where there is a pos_control model, else the form without gist tokens. */
static gist_status add_tfidf(job *j, bool counted) {
    char name[32];
    eval_view v = { .c = j->a->pos.n ? COND_POS_CONTROL : COND_FULL, .k = j->a->pos.n ? j->k[0] : 0 };
    if (counted) return add_counted(j, v, "tfidf", true);
    v.words = 1;
    TRY(add_view(j, v, "tfidf"));
    v.words = j->a->words;
    snprintf(name, sizeof name, "tfidf.%dwords", v.words);
    return v.words ? add_view(j, v, name) : GIST_OK;
}

static bool is(const char *p, size_t len, const char *name) {
    return len == strlen(name) && memcmp(p, name, len) == 0;
}

static gist_status parse_conditions(job *j) {
    for (const char *p = j->a->conditions;; p++) {
        size_t len = strcspn(p, ",");
        eval_view v = { .c = COND_COUNT };
        if (is(p, len, "tfidf") || is(p, len, "tfidf_k")) {
            TRY(add_tfidf(j, is(p, len, "tfidf_k")));
        } else if (!train_condition_find(p, len, &v.c)) {
            return err_set(j->err, GIST_ERR_USAGE,
                           "--conditions: \"%.*s\" is none of full, gist, none, tfidf, tfidf_k, pos_control, "
                           "neg_control",
                           (int)(len < 60 ? len : 60), p);
        } else if (v.c == COND_FULL || v.c == COND_NONE) {
            TRY(add_view(j, v, train_condition_name(v.c)));
        } else {
            TRY(add_counted(j, v, train_condition_name(v.c), false));
        }
        p += len;
        if (!*p) break;
    }
    return j->a->other ? add_counted(j, (eval_view){ .c = COND_GIST, .other = true }, "other_gist", false) : GIST_OK;
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

/* NAME=N of a split that is open. */
static gist_status set_label(job *j, const char *given) {
    const char *eq = strchr(given, '=');
    char *end = NULL;
    long n = eq ? strtol(eq + 1, &end, 10) : 0;
    for (int i = 0; eq && i < j->r.splits; i++) {
        eval_split *s = &j->r.split[i].rows;
        if (!is(given, (size_t)(eq - given), s->name) || *end || end == eq + 1 || n < 1 || n > 1 << 20) continue;
        s->label_length = (int)n;
        return GIST_OK;
    }
    return err_set(j->err, GIST_ERR_USAGE, "--label-tokens %.100s: expected NAME=N, NAME one of --data, N from 1 to %d",
                   given, 1 << 20);
}

static gist_status make_out(const eval_args *a, gist_error *err) {
    if (!a->out || mkdir(a->out, 0777) == 0 || errno == EEXIST) return GIST_OK;
    return err_set(err, GIST_ERR_IO, "%s: %s", a->out, strerror(errno));
}

static gist_status check_controls(const job *j, const char *name, const option_list *given) {
    int models = 1 + j->a->also.n;
    if (given->n <= 1 || given->n == models) return GIST_OK;
    return err_set(j->err, GIST_ERR_USAGE, "--%s is given %d times for %d models: once for all, or once for each", name,
                   given->n, models);
}

static gist_status read_arguments(job *j) {
    TRY(parse_lists(j));
    TRY(parse_conditions(j));
    if (j->a->data.n == 0) return err_set(j->err, GIST_ERR_USAGE, "--data NAME=FILE is needed");
    TRY(check_controls(j, "pos", &j->a->pos));
    TRY(check_controls(j, "neg", &j->a->neg));
    if (j->a->resume && !j->a->out)
        return err_set(j->err, GIST_ERR_USAGE, "--resume goes on with what is in --out DIR");
    for (int i = 0; i < j->a->data.n; i++) {
        TRY(open_split(j, j->a->data.item[i], &j->r.split[i].rows));
        j->r.splits++;
    }
    for (int i = 0; i < j->a->labels.n; i++) TRY(set_label(j, j->a->labels.item[i]));
    TRY(make_out(j->a, j->err));
    return eval_open_journal(j);
}

/* ---- the command ---- */

static gist_status run_and_compare(job *j) {
    for (int m = 0; m < MODELS; m++) TRY(eval_answer_model(j, m));
    progress_end();
    for (int i = 0; i < j->r.splits; i++) {
        j->r.split[i].columns = j->views;
        TRY(eval_find_figures(j, &j->r.split[i]));
    }
    return GIST_OK;
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
            first[i * REPORT_COLUMNS + c].of[model] = col->cell;
            eval_release_column(col, j->r.split[i].rows.n);
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
            j->r.split[i].column[c].of[0] = j->r.split[i].column[c].cell;
    TRY(eval_write_results(j)); /* the first one's stand even if a later one fails */
    for (int m = 1; m <= j->a->also.n; m++) {
        TRY(run_also(j, m));
        j->r.models++;
    }
    if (j->a->also.n) TRY(eval_write_results(j));
    eval_drop_journal(j);
    if (j->a->json) return json_print(report_json(&j->r), j->err);
    report_table(&j->r, stdout);
    if (j->a->check) printf("cached-check: every gist's answers are those of prompt and gist tokens under the mask\n");
    return GIST_OK;
}

static void release(job *j) {
    for (int i = 0; i < OPTION_LIST_MAX; i++) {
        report_split *s = &j->r.split[i];
        for (int c = 0; c < REPORT_COLUMNS; c++) eval_release_column(&s->column[c], s->rows.n);
        eval_release_groups(s);
        char *name = (char *)(uintptr_t)s->rows.name;
        if (name) eval_split_close(&s->rows);
        mem_free(NULL, name);
    }
    eval_journal_close(j->journal);
    pool_free(j->pool);
}

static gist_status judge(eval_args *a, gist_error *err) {
    judge_args *g = &a->judge;
    if (!g->url) return err_set(err, GIST_ERR_USAGE, "%.200s: predictions are compared with --judge URL", g->a);
    if (a->model.path || a->data.n)
        return err_set(err, GIST_ERR_USAGE, "--judge compares predictions that are there; --model and --data answer");
    g->out = a->out;
    g->limit = a->limit;
    g->resamples = a->resamples;
    g->seed = a->seed;
    g->json = a->json;
    g->quiet = a->quiet;
    g->resume = a->resume;
    TRY(make_out(a, err));
    return eval_judge(g, err);
}

static int run(const command *self, int argc, char **argv) {
    eval_args a = { 0 };
    int done = options_parse(self, &a, argc, argv);
    if (done != OPTIONS_GO) return done;
    gist_error err = { 0 };
    if (a.judge.url || a.judge.a) {
        gist_status judged = judge(&a, &err);
        return judged == GIST_OK ? EXIT_DONE : fail(&err);
    }
    if (!a.model.path) return usage_error(self, "eval: --model is missing");
    job *j = mem_calloc(NULL, 1, sizeof *j);
    if (!j) {
        err_memory(&err, "evaluation");
        return fail(&err);
    }
    j->a = &a;
    j->err = &err;
    j->r.model = a.model.path;
    j->r.pos = a.pos.item;
    j->r.neg = a.neg.item;
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
    .usage = "-m MODEL --data NAME=FILE... [--conditions C,C...] [-k N,N...] [-o DIR] | --judge URL A B",
    .details =
        "Answers are greedy.  Brackets are 95 % intervals over prompts, drawn with all their examples, the same ones\n"
        "for every condition.  Retention is (score - none) / (upper - none): none, or else neg_control; upper is the\n"
        "better of full and pos_control.  gist.10x takes for each prompt the largest k given that compresses it\n"
        "tenfold, and leaves out prompts that are too short.  TF-IDF words: lower-cased runs of letters and digits,\n"
        "idf = ln((1+N)/(1+df)) + 1 over the different instructions, ties to the first.  A row's member \"was\" is an\n"
        "answer that was right before its prompt was edited; how often it is given is told as stale.",
    .example = "gist eval -m MODEL --data unseen=dev.jsonl --conditions full,gist,none,tfidf -k 1,2,4,8 -o results\n"
               "gist eval -m MODEL --pos POS --neg NEG --data human=human.jsonl \\\n"
               "    --conditions gist,pos_control,neg_control,tfidf --tfidf-corpus train.jsonl\n"
               "gist eval --judge http://127.0.0.1:8080/v1 --judge-model NAME human.gist.k1.csv \\\n"
               "    human.pos_control.k1.csv",
    .options = table,
    .count = sizeof table / sizeof *table,
    .run = run,
};
