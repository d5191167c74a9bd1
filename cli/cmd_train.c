/* cmd_train.c - gist train: a checkpoint, or random weights, into a model that compresses prompts.
 *
 *   --init MODEL | --config FILE --tokenizer DIR     rows of JSON     conditions, k, objective
 *                         |                               |                    |
 *                         +-------------------------------+--------------------+--> train_run --> OUT
 *
 * Ctrl-C (SIGINT) and SIGTERM save and stop; another one, seconds later, ends the program at once.
 */
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"
#include "eval/eval.h"

enum { POSITIONS_AUTO, POSITIONS_END, POSITIONS_SPREAD };
enum { OBJECTIVE_LM, OBJECTIVE_DISTILL, OBJECTIVE_BOTH };

typedef struct train_args {
    const char *init, *config, *tokenizer, *data, *condition, *k, *template_name, *out, *best;
    option_list val;
    int limit, val_limit, max_length, max_answer, objective, batch, batch_tokens, pairs_per_prompt, accumulate;
    int steps, epochs, optimiser, gist_positions, schedule, stop_after, save_every, eval_every, answers, answer_tokens;
    int type, save_type, threads, kernels;
    float lr, warmup, floor, decay, beta1, beta2, eps, clip, momentum, distill_weight, teacher_lm, input_loss,
        prompt_loss;
    uint64_t seed;
    const char *lora_targets;
    int lora_rank, lora_at, train_only;
    float lora_alpha;
    bool resume, recompute, json, quiet, merge, local_heads;
} train_args;

static const option table[] = {
    OPT_HEADING("Where to begin"),
    OPT_TEXT(train_args, init, 0, "init", "MODEL", NULL, "a Hugging Face directory; <GIST> is added when it is new"),
    OPT_TEXT(train_args, config, 0, "config", "FILE", NULL,
             "from scratch: a config.json; weights are drawn from --seed"),
    OPT_TEXT(train_args, tokenizer, 0, "tokenizer", "DIR", NULL,
             "from scratch: tokenizer files; default: those of --init"),
    OPT_FLAG(train_args, local_heads, 0, "local-heads",
             "from scratch: head h of the first block begins by looking h+1 tokens back (T5: half of the heads, in "
             "every block); a small model learns to look up sooner"),
    OPT_HEADING("Data"),
    OPT_NEED_TEXT(train_args, data, 0, "data", "FILE", ".json or .jsonl: {instruction, input, output} or {messages}"),
    OPT_LIST(train_args, val, 0, "val", "NAME=FILE", "a validation split"),
    OPT_TEXT(train_args, template_name, 0, "template", "NAME", "paper",
             "text around prompt and input: paper, raw, chatml, llama3"),
    OPT_INT(train_args, max_length, 0, "max-length", "N", 8, 1 << 20, "512",
            "tokens of prompt, gists, input and answer; longer ones are cut"),
    OPT_INT(train_args, max_answer, 0, "max-answer", "N", 0, 1 << 20, "0",
            "of an encoder-decoder model: tokens of an answer, --max-length then being those of a source; 0: together"),
    OPT_INT(train_args, limit, 0, "limit", "N", 0, 1 << 30, "0", "most rows of the data; 0: all"),
    OPT_INT(train_args, val_limit, 0, "val-limit", "N", 0, 1 << 30, "0", "most rows of a validation split; 0: all"),
    OPT_HEADING("What is learned"),
    OPT_TEXT(train_args, condition, 0, "condition", "C", "gist",
             "gist, full, none, pos_control, neg_control, or mix:gist=0.5,full=0.25,none=0.25"),
    OPT_TEXT(train_args, k, 'k', "gists", "N,N...", "1",
             "gist tokens; several: one is drawn per pair, nested; given twice: twice as often"),
    OPT_CHOICE(train_args, objective, 0, "objective", "lm|distill|both", "lm",
               "answers; the model's own distribution under the full prompt; both"),
    OPT_FLOAT(train_args, distill_weight, 0, "distill-weight", "X", 0, 1e6, "1", "of the distillation loss"),
    OPT_FLOAT(train_args, teacher_lm, 0, "teacher-lm", "X", 0, 1e6, "0",
              "weight of the answers' loss on teacher copies"),
    OPT_FLOAT(train_args, input_loss, 0, "input-loss", "X", 0, 1e6, "0",
              "predict the input's tokens too, with this weight; 'gist tune' can then draw inputs"),
    OPT_FLOAT(train_args, prompt_loss, 0, "prompt-loss", "X", 0, 1e6, "0",
              "the same for the prompt's tokens: a model from scratch learns to read sooner"),
    OPT_CHOICE(train_args, gist_positions, 0, "gist-positions", "auto|end|spread", "auto",
               "of gist tokens: behind the prompt, or spread over it; auto: as the model's config says, else end"),
    OPT_HEADING("What trains"),
    OPT_INT(train_args, lora_rank, 0, "lora-rank", "N", 0, 1 << 16, "0",
            "freeze the model, train an adapter (LoRA) of this rank and the embedding of <GIST>; 0: the model itself"),
    OPT_FLOAT(train_args, lora_alpha, 0, "lora-alpha", "X", 0, 1e6, "16", "the adapter's scale is alpha / rank"),
    OPT_TEXT(train_args, lora_targets, 0, "lora-targets", "LIST", "all",
             "matrices to adapt, of q,k,v,o,gate,up,down; all"),
    OPT_CHOICE(train_args, lora_at, 0, "lora-at", "all|gist", "all",
               "gist: act at gist tokens only; the base model answers unchanged everywhere else"),
    OPT_CHOICE(train_args, train_only, 0, "train-only", "all|gist", "all",
               "gist: the embedding of <GIST> and, with --lora-rank, an adapter at gist tokens; nothing else"),
    OPT_FLAG(train_args, merge, 0, "merge", "put the adapter into the weights of --out, which is then a whole model"),
    OPT_HEADING("Batches"),
    OPT_INT(train_args, batch, 0, "batch", "N", 1, 1 << 20, "32", "most pairs in a batch"),
    OPT_INT(train_args, batch_tokens, 0, "batch-tokens", "N", 0, 1 << 24, "4096",
            "most tokens in a batch; 0: no bound"),
    OPT_INT(train_args, pairs_per_prompt, 0, "pairs-per-prompt", "N", 1, 256, "8",
            "most pairs that share one encoding of their prompt"),
    OPT_INT(train_args, accumulate, 0, "accumulate", "N", 1, 1 << 16, "1", "batches per step"),
    OPT_INT(train_args, steps, 0, "steps", "N", 0, 1 << 30, "0", "length of the run; 0: by --epochs"),
    OPT_INT(train_args, epochs, 0, "epochs", "N", 0, 1 << 20, "0", "length of the run; 0 without --steps: 3"),
    OPT_SEED(train_args, seed, 0, "seed", "0", "of order, conditions and initial weights: one seed, one result"),
    OPT_HEADING("Optimiser"),
    OPT_CHOICE(train_args, optimiser, 0, "optimiser", "adamw|muon", "adamw",
               "muon: for the matrices of blocks, AdamW for the rest; learns in fewer steps from scratch"),
    OPT_FLOAT(train_args, lr, 0, "lr", "X", 0, 10, "2e-5", "peak learning rate (from scratch 1e-3 is usual)"),
    OPT_CHOICE(train_args, schedule, 0, "schedule", "constant|linear|cosine", "cosine", "after the warm-up"),
    OPT_FLOAT(train_args, warmup, 0, "warmup", "X", 0, 1e9, "0.03", "below 1: share of the steps; else steps"),
    OPT_FLOAT(train_args, floor, 0, "floor", "X", 0, 1, "0", "the schedule ends at this share of --lr"),
    OPT_FLOAT(train_args, decay, 0, "decay", "X", 0, 10, "0", "weight decay of matrices"),
    OPT_FLOAT(train_args, clip, 0, "clip", "X", 0, 1e9, "1", "largest norm of the gradient; 0: any"),
    OPT_FLOAT(train_args, beta1, 0, "beta1", "X", 0, 1, "0.9", "first moment"),
    OPT_FLOAT(train_args, beta2, 0, "beta2", "X", 0, 1, "0.999", "second moment"),
    OPT_FLOAT(train_args, eps, 0, "eps", "X", 0, 1, "1e-8", "added to the root of the second moment"),
    OPT_FLOAT(train_args, momentum, 0, "momentum", "X", 0.01, 0.999, "0.95", "of Muon"),
    OPT_HEADING("Output"),
    OPT_NEED_TEXT(train_args, out, 'o', "out", "DIR",
                  "the trained model; its checkpoint, metrics.jsonl, curve.svg, best/"),
    OPT_FLAG(train_args, resume, 0, "resume", "go on from the checkpoint in --out"),
    OPT_INT(train_args, stop_after, 0, "stop-after", "N", 0, 1 << 30, "0",
            "stop behind step N as Ctrl-C would, --steps remaining what the schedule goes by; 0: go on"),
    OPT_INT(train_args, save_every, 0, "save-every", "N", 0, 1 << 30, "200",
            "steps between checkpoints; 0: only at the end"),
    OPT_INT(train_args, eval_every, 0, "eval-every", "N", 0, 1 << 30, "200",
            "steps between validations; 0: only first and last"),
    OPT_INT(train_args, answers, 0, "answers", "N", 0, 1 << 30, "0",
            "score greedy answers to the first N pairs of each split too, whole prompts; 0: none"),
    OPT_INT(train_args, answer_tokens, 0, "answer-tokens", "N", 1, 1 << 20, "128",
            "most tokens of such an answer, within --max-length"),
    OPT_TEXT(train_args, best, 0, "best", "METRIC", NULL,
             "what chooses best/, like unseen/gist or unseen/exact.gist; default: the first metric"),
    OPT_CHOICE(train_args, save_type, 0, "save-type", "f32|bf16", "f32", "of the weights in --out and best/"),
    OPT_JSON(train_args, json),
    OPT_QUIET(train_args, quiet),
    OPT_HEADING("Machine"),
    OPT_CHOICE(train_args, type, 0, "type", "f32|bf16", "f32", "operands of matrix products; weights and sums are f32"),
    OPT_FLAG(train_args, recompute, 0, "recompute", "less memory for activations, about a third more time"),
    OPT_INT(train_args, threads, 't', "threads", "N", 0, 256, "0",
            "threads; 0: one per core; results do not depend on it"),
    OPT_CHOICE(train_args, kernels, 0, "kernels", KERNELS_CHOICES, "auto", "kernel level; auto: the best this CPU has"),
};

/* ---- arguments with a syntax of their own ---- */

static gist_status parse_counts(const char *given, train_pack_options *o, gist_error *err) {
    o->k_count = 0;
    for (const char *p = given;; p++) {
        char *end;
        long v = strtol(p, &end, 10);
        if (end == p || v < 1 || v > 1024 || (*end && *end != ','))
            return err_set(err, GIST_ERR_USAGE, "--gists: \"%.60s\" is not a list of counts from 1 to 1024", given);
        if (o->k_count == 16) return err_set(err, GIST_ERR_USAGE, "--gists: at most 16 counts");
        o->k[o->k_count++] = (int)v;
        if (!*end) return GIST_OK;
        p = end;
    }
}

/* "gist", or "mix:gist=0.5,full=0.25,none=0.25" */
static gist_status parse_condition(const char *given, train_pack_options *o, gist_error *err) {
    train_condition c;
    memset(o->mix, 0, sizeof o->mix);
    if (strncmp(given, "mix:", 4) != 0) {
        if (!train_condition_find(given, strlen(given), &c))
            return err_set(err, GIST_ERR_USAGE,
                           "--condition: \"%.40s\" is not one of gist, full, none, pos_control, neg_control, mix:...",
                           given);
        o->mix[c] = 1;
        return GIST_OK;
    }
    double sum = 0;
    for (const char *p = given + 4;;) {
        size_t n = strcspn(p, "=,");
        char *end = NULL;
        double v = p[n] == '=' ? strtod(p + n + 1, &end) : NAN;
        if (!train_condition_find(p, n, &c) || !end || end == p + n + 1 || (*end && *end != ',') || !(v >= 0))
            return err_set(err, GIST_ERR_USAGE, "--condition: \"%.60s\" is not like mix:gist=0.5,full=0.25,none=0.25",
                           given);
        o->mix[c] += v;
        sum += v;
        if (!*end) break;
        p = end + 1;
    }
    if (!(fabs(sum - 1) < 1e-6)) return err_set(err, GIST_ERR_USAGE, "--condition: shares sum to %g, not to 1", sum);
    return GIST_OK;
}

/* The name in front of '='; letters, digits, - and _. */
static gist_status split_name(const char *given, char name[40], const char **file, gist_error *err) {
    size_t n = strspn(given, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-");
    if (n == 0 || n >= 40 || given[n] != '=' || !given[n + 1])
        return err_set(err, GIST_ERR_USAGE, "--val: \"%.60s\" is not like unseen=FILE", given);
    memcpy(name, given, n);
    name[n] = '\0';
    *file = given + n + 1;
    return GIST_OK;
}

/* ---- what is shown ---- */

/* By the signal handler, which has no other way.  Wrappers like timeout(1) send a signal twice: only one that comes
 * seconds later means impatience. */
static volatile sig_atomic_t interrupted;
static volatile time_t interrupted_at;

static void on_signal(int sig) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (interrupted && now.tv_sec - interrupted_at > 1) {
        signal(sig, SIG_DFL);
        raise(sig);
    }
    if (!interrupted) interrupted_at = now.tv_sec;
    interrupted = 1;
}

static void catch_signals(void) {
    struct sigaction sa = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
    sigemptyset(&sa.sa_mask);
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
}

typedef struct job {
    const train_args *a;
    const tok_template *tp;
    train_base base;
    pool *pool;
    op_ctx ctx;
    train_set set, val[OPTION_LIST_MAX];
    char val_name[OPTION_LIST_MAX][40];
    train_split split[OPTION_LIST_MAX];
    train_run_options o;
    train_model_options model;
    train_model *tm;
    double shown; /* when the last progress line was */
} job;

static char *time_text(double seconds, char out[32]) {
    int s = seconds < 1e8 ? (int)seconds : 99999999;
    if (s >= 3600)
        snprintf(out, 32, "%d h %02d min", s / 3600, s / 60 % 60);
    else
        snprintf(out, 32, "%d:%02d", s / 60, s % 60);
    return out;
}

/* As progress() does; into a file the first and the last step, too. */
static void show_step(void *ctx, const train_report *r) {
    job *j = ctx;
    char left[32], bytes[32], line[200];
    if (j->a->quiet) return;
    bool tty = isatty(STDERR_FILENO);
    double now = time_now();
    if (!tty && now - j->shown < 60 && r->step != r->steps && r->step != 1) return;
    j->shown = now;
    snprintf(line, sizeof line,
             "step %lld/%lld  epoch %.2f  loss %.4f  lr %.2g  %.0f tokens/s  %.0f GFLOP/s  %s  %s left",
             (long long)r->step, (long long)r->steps, r->epoch, r->loss, (double)r->lr, r->tokens_per_second, r->gflops,
             size_text(r->bytes, bytes), time_text(r->seconds_left, left));
    if (tty)
        progress("%s", line);
    else
        fprintf(stderr, "gist: %s\n", line);
}

static void show_metrics(void *ctx, int64_t step, const train_metric *m, int n, bool best) {
    const job *j = ctx;
    if (j->a->quiet) return;
    progress_end();
    fprintf(stderr, "gist: step %lld:", (long long)step);
    for (int i = 0; i < n; i++) fprintf(stderr, m[i].higher ? "  %s %.1f%%" : "  %s %.4f", m[i].name, m[i].value);
    fprintf(stderr, "%s\n", best ? "  (best)" : "");
}

static bool asked_to_stop(void *ctx) {
    (void)ctx;
    return interrupted;
}

static bool show_answers(void *ctx, int done, int all) {
    const job *j = ctx;
    if (!j->a->quiet) progress("answering: %d of %d", done, all);
    return interrupted;
}

static void show_log(void *ctx, gist_log_level level, const char *msg) {
    const job *j = ctx;
    if (!j->a->quiet && level >= GIST_LOG_WARN) warn("%s", msg);
}

/* ---- generated answers: training knows no engine, so it asks here ---- */

static gist_status score_answers(void *ctx, train_model *tm, const train_split *split, int64_t step,
                                 train_metric *metrics, int cap, int *n, gist_error *err) {
    job *j = ctx;
    gist_engine *e = NULL;
    eval_answers_options o = { j->a->answers, j->a->answer_tokens, j->a->max_length,
                               j,             show_answers,        j->a->max_answer };
    (void)step;
    TRY(engine_borrow(train_model_llama(tm), j->base.tok, j->tp, &j->ctx, mem_default(), &e, err));
    gist_status status = eval_answers(e, split, &j->o.pack, &o, metrics, cap, n, err);
    gist_engine_close(e);
    return status;
}

/* ---- the command ---- */

static gist_status set_options(job *j, gist_error *err) {
    const train_args *a = j->a;
    train_run_options *o = &j->o;
    TRY(parse_counts(a->k, &o->pack, err));
    TRY(parse_condition(a->condition, &o->pack, err));
    o->pack.gist_token = j->base.gist_token;
    o->pack.encoder = j->base.cfg.encoder > 0;
    o->pack.start = j->base.cfg.start;
    if (o->pack.encoder && strcmp(tok_template_name(j->tp), "paper") == 0) j->tp = tok_template_find("paper-t5");
    if (a->gist_positions) j->base.cfg.gist_spread = a->gist_positions == POSITIONS_SPREAD;
    TRY(llama_config_check(&j->base.cfg, "--gist-positions", err));
    o->pack.gist_spread = j->base.cfg.gist_spread;
    o->pack.teacher = a->objective != OBJECTIVE_LM;
    o->pack.teacher_lm = a->teacher_lm;
    o->pack.pairs_per_prompt = a->pairs_per_prompt;
    o->pack.batch_pairs = a->batch;
    o->pack.batch_tokens = a->batch_tokens;
    o->out = a->out;
    o->resume = a->resume;
    o->accumulate = a->accumulate;
    o->steps = a->steps;
    o->optimiser = (optimiser){ a->lr, a->beta1, a->beta2, a->eps, a->decay, a->clip, a->optimiser ? a->momentum : 0 };
    o->schedule = (train_schedule_kind)a->schedule;
    o->floor = a->floor;
    o->seed = a->seed;
    o->stop_after = a->stop_after;
    o->save_every = a->save_every;
    o->eval_every = a->eval_every;
    o->best = a->best;
    o->origin = train_base_origin(&j->base, j->tp, a->save_type ? DT_BF16 : DT_F32);
    o->origin.base = a->init;
    o->origin.merge = a->merge;
    o->pack.input_loss = a->input_loss;
    o->pack.prompt_loss = a->prompt_loss;
    o->origin.input_loss = a->input_loss > 0;
    j->model = (train_model_options){ .type = a->type ? DT_BF16 : DT_F32,
                                      .recompute = a->recompute,
                                      .lm = a->objective == OBJECTIVE_DISTILL ? 0 : 1,
                                      .distill = a->objective == OBJECTIVE_LM ? 0 : a->distill_weight };
    j->model.gist_token = j->base.gist_token;
    j->model.muon = a->optimiser != 0;
    j->model.local_heads = a->local_heads;
    j->model.only_gist = a->train_only != 0;
    j->model.lora = (llama_lora_config){ a->lora_rank, a->lora_alpha, 0, a->lora_at || a->train_only };
    if (a->lora_rank) TRY(llama_lora_targets(a->lora_targets, &j->model.lora.targets, err));
    bool taught = a->lora_rank || a->train_only || o->pack.mix[COND_FULL] > 0 || a->teacher_lm > 0;
    if (o->pack.teacher && !taught && !a->quiet)
        warn("nothing trains the teacher: give full a share of --condition, or --teacher-lm");
    return GIST_OK;
}

/* What else decides the result, so that --resume can tell another run. */
static void set_facts(job *j) {
    train_facts *f = &j->o.facts;
    train_facts_set(f, "initial weights", "%s%s%s", j->base.model, j->base.scratch ? " drawn" : "",
                    j->model.local_heads ? ", local heads" : "");
    train_facts_set(f, "tokenizer", "%s", j->base.tokenizer);
    train_facts_set(f, "template", "%s", tok_template_name(j->tp));
    train_facts_set(f, "max length", "%d", j->a->max_length);
    if (j->a->max_answer) train_facts_set(f, "max answer", "%d", j->a->max_answer);
    train_facts_set(f, "type", "%s", dt_name(j->model.type));
    train_facts_set(f, "kernels", "%s", gist_kernels_name(op_level(&j->ctx)));
    train_facts_set(f, "trains", "rank %d, alpha %.9g, targets %x%s%s", j->model.lora.rank, (double)j->model.lora.alpha,
                    j->model.lora.targets, j->model.lora.gist_only ? ", at gists" : "",
                    j->model.only_gist ? ", gists only" : "");
    train_facts_set(f, "objective", "lm %.9g, distill %.9g", (double)j->model.lm, (double)j->model.distill);
}

static gist_status read_set(const job *j, train_set *set, const char *name, const char *file, train_data_options *d,
                            gist_error *err) {
    sbuf about;
    TRY(train_data_read(set, file, j->base.tok, d, mem_default(), err));
    if (j->a->quiet) return GIST_OK;
    sbuf_init(&about, mem_default());
    train_data_describe(set, &about);
    progress_end();
    fprintf(stderr, "gist: %s: %s\n", name, about.p ? about.p : "");
    sbuf_free(&about);
    return GIST_OK;
}

static gist_status read_data(job *j, gist_error *err) {
    const train_args *a = j->a;
    train_data_options d = { .tp = j->tp,
                             .max_length = a->max_length,
                             .gists = train_pack_largest_k(&j->o.pack),
                             .limit = a->limit,
                             .encoder = j->o.pack.encoder,
                             .max_answer = a->max_answer };
    if (a->max_answer && !d.encoder)
        return err_set(err, GIST_ERR_USAGE,
                       "--max-answer: a model without an encoder reads prompt, input and answer as one text, which "
                       "--max-length bounds");
    if (a->max_answer > j->base.cfg.context)
        return err_set(err, GIST_ERR_LIMIT, "--max-answer %d is beyond the model's context of %d", a->max_answer,
                       j->base.cfg.context);
    if (a->max_length > j->base.cfg.context)
        return err_set(err, GIST_ERR_LIMIT, "--max-length %d is beyond the model's context of %d", a->max_length,
                       j->base.cfg.context);
    TRY(read_set(j, &j->set, "training data", a->data, &d, err));
    d.limit = a->val_limit;
    for (int i = 0; i < a->val.n; i++) {
        const char *file = NULL;
        TRY(split_name(a->val.item[i], j->val_name[i], &file, err));
        TRY(read_set(j, &j->val[i], j->val_name[i], file, &d, err));
        j->split[i] = (train_split){ j->val_name[i], &j->val[i] };
    }
    j->o.split = j->split;
    j->o.splits = a->val.n;
    return GIST_OK;
}

static gist_status report(const job *j, const train_result *r, gist_error *err) {
    const train_args *a = j->a;
    char took[32];
    progress_end();
    if (a->json) {
        json_t *root =
            json_pack("{s:s, s:I, s:I, s:b, s:f, s:f, s:I, s:I}", "out", a->out, "step", (json_int_t)r->at.step,
                      "steps", (json_int_t)j->o.steps, "stopped", r->stopped, "loss", r->loss, "seconds", r->at.seconds,
                      "tokens", (json_int_t)r->at.rows, "best_step", (json_int_t)r->at.best_step);
        return json_print(root, err);
    }
    time_text(r->at.seconds, took);
    if (r->stopped)
        printf("stopped after step %lld of %lld; go on with --resume\n", (long long)r->at.step, (long long)j->o.steps);
    else
        printf("%s: %lld steps in %s, %llu tokens", a->out, (long long)r->at.step, took,
               (unsigned long long)r->at.rows);
    if (!r->stopped && r->at.best_step >= 0)
        printf("; best after step %lld: %s/best", (long long)r->at.best_step, a->out);
    if (!r->stopped) putchar('\n');
    return GIST_OK;
}

static gist_status train(job *j, gist_error *err) {
    const train_args *a = j->a;
    j->tp = tok_template_find(a->template_name);
    if (!j->tp)
        return err_set(err, GIST_ERR_USAGE, "--template: \"%.40s\" is not one of paper, raw, chatml, llama3",
                       a->template_name);
    TRY(pool_create(mem_default(), a->threads, &j->pool, err));
    TRY(op_init(&j->ctx, (gist_kernels)a->kernels, j->pool, err));
    TRY(train_base_open(&j->base, a->init, a->config, a->tokenizer, j->pool, mem_default(), err));
    TRY(set_options(j, err));
    TRY(read_data(j, err));
    set_facts(j);
    uint64_t epochs = a->steps ? 0 : a->epochs ? (uint64_t)a->epochs : 3;
    TRY(train_run_plan(&j->set, &j->o, epochs, &j->o.steps, &j->o.max_rows, err));
    double warmup = (double)a->warmup < 1 ? ceil((double)a->warmup * (double)j->o.steps) : floor((double)a->warmup);
    j->o.warmup = warmup < (double)j->o.steps ? (int64_t)warmup : j->o.steps;
    j->model.max_rows = j->o.max_rows;
    TRY(train_base_model(&j->base, &j->tm, a->seed, &j->model, &j->ctx, err));
    if (!a->quiet) {
        char bytes[32];
        fprintf(stderr, "gist: %llu parameters, %lld steps, batches of up to %d tokens, %s of memory\n",
                (unsigned long long)llama_parameters(&train_model_llama(j->tm)->cfg), (long long)j->o.steps,
                j->o.max_rows, size_text(train_model_bytes(j->tm), bytes));
    }
    train_events ev = {
        .ctx = j, .step = show_step, .evaluated = show_metrics, .stop = asked_to_stop, .log = { show_log, j }
    };
    if (a->answers) ev.answers = score_answers;
    train_result r;
    catch_signals();
    TRY(train_run(j->tm, &j->set, &j->o, &ev, &r, err));
    return report(j, &r, err);
}

static int run(const command *self, int argc, char **argv) {
    train_args a = { 0 };
    int done = options_parse(self, &a, argc, argv);
    if (done != OPTIONS_GO) return done;
    if (!a.init == !a.config)
        return usage_error(self, "train: give --init MODEL, or --config FILE and --tokenizer DIR");
    if (a.config && !a.tokenizer) return usage_error(self, "train: --config needs --tokenizer");
    if (a.config && (a.lora_rank || a.train_only)) return usage_error(self, "train: an adapter needs a model (--init)");
    if ((a.lora_at || a.merge) && !a.lora_rank)
        return usage_error(self, "train: --lora-at and --merge need --lora-rank");
    if (a.merge && (a.lora_at || a.train_only))
        return usage_error(self, "train: an adapter that acts at gist tokens only cannot be merged");
    if (a.optimiser && (a.lora_rank || a.train_only))
        return usage_error(self, "train: --optimiser muon is for a whole model, not for an adapter");
    if (a.answers && a.val.n == 0) return usage_error(self, "train: --answers needs a --val to answer");
    if (a.steps && a.epochs) return usage_error(self, "train: give --steps or --epochs, not both");
    gist_error err = { 0 };
    job j = { .a = &a };
    gist_status status = train(&j, &err);
    train_model_free(j.tm);
    train_data_free(&j.set);
    for (int i = 0; i < OPTION_LIST_MAX; i++) train_data_free(&j.val[i]);
    train_base_close(&j.base);
    pool_free(j.pool);
    return status == GIST_OK ? EXIT_DONE : fail(&err);
}

const command cmd_train = {
    .group = "Train",
    .name = "train",
    .summary = "a model that compresses prompts, from a checkpoint or from scratch",
    .usage = "(--init MODEL | --config FILE --tokenizer DIR) --data FILE -o DIR",
    .details = "Ctrl-C saves and stops (again, seconds later: ends at once); the same command with --resume goes\n"
               "on, bit for bit as if it had never stopped.  --init takes no .gguf file: gist convert first.\n"
               "docs/TRAINING.md explains conditions, packing, objectives and files.",
    .example = "gist train --init models/llama --data alpaca.jsonl --val unseen=unseen.jsonl -k 1,2,4 \\\n"
               "    --condition mix:gist=0.5,full=0.25,none=0.25 --epochs 3 -o models/gist",
    .options = table,
    .count = sizeof table / sizeof *table,
    .run = run,
};
