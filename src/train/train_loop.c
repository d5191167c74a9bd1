/* train_loop.c - steps until they are done, or asked to stop; what is written on the way.
 *
 *      step t:   accumulate batches packed -> forward, backward of each, scaled by its share of the label tokens
 *                -> norm, schedule, AdamW -> a line of metrics
 *      then:     validation when due -> OUT/best when better -> checkpoint when due
 *
 * A checkpoint holds the model after step t and the place in the data behind it; nothing else carries over from step to
 * step, so going on from it is going on (docs/TRAINING.md, "Stopping and resuming").  Metrics reach the disk before the
 * checkpoint that they lead up to.
 */
#include "train/train.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

typedef struct loop {
    train_model *tm;
    const train_set *set;
    const train_run_options *opt;
    const train_events *ev;
    const gist_allocator *alloc;
    train_stream stream;
    train_batch *batch;     /* [accumulate] of the step at hand */
    uint64_t *epoch, *from; /* [accumulate] where each begins */
    train_facts facts;
    train_place at;
    train_log log;
    char *checkpoint, *metrics, *curve, *best;
    int64_t steps_here; /* of this process, for the time left */
    double seconds_here;
    double loss;
    bool stopped;
} loop;

/* ---- plan ---- */

gist_status train_run_plan(const train_set *set, const train_run_options *opt, uint64_t epochs, int64_t *steps,
                           int *max_rows, gist_error *err) {
    train_stream st;
    train_plan plan;
    int64_t per_step = opt->accumulate;
    if (per_step < 1 || (epochs == 0 && opt->steps < 1))
        return err_set(err, GIST_ERR_USAGE, "a run has at least one step of one batch");
    TRY(train_stream_init(&st, set, &opt->pack, opt->seed, err));
    gist_status status = train_stream_plan(&st, epochs ? 0 : opt->steps * per_step, epochs, &plan, err);
    train_stream_free(&st);
    if (status != GIST_OK) return status;
    int most = plan.max_rows, K = train_pack_largest_k(&opt->pack);
    for (int s = 0; s < opt->splits; s++)
        for (int i = 0; i < opt->split[s].set->pairs; i++) {
            const train_set *v = opt->split[s].set;
            int rows = v->prompt[v->pair[i].prompt].len + K + v->pair[i].input_len + v->pair[i].answer_len;
            if (rows > most) most = rows;
        }
    *steps = epochs ? (plan.batches + per_step - 1) / per_step : opt->steps;
    *max_rows = most;
    return GIST_OK;
}

typedef struct short_text {
    char s[24];
} short_text;

/* With as many digits as it takes to read it back: 2e-05 */
static short_text shortest(float x) {
    short_text t;
    for (int digits = 1; digits <= 9; digits++) {
        snprintf(t.s, sizeof t.s, "%.*g", digits, (double)x);
        if (strtof(t.s, NULL) == x) break;
    }
    return t;
}

static gist_status list_facts(const loop *l, train_facts *f, gist_error *err) {
    static const char *const schedules[] = { "constant", "linear", "cosine" };
    const train_run_options *o = l->opt;
    const train_pack_options *p = &o->pack;
    char text[96] = "", hex[33];
    hash128 data;
    *f = o->facts;
    TRY(train_data_hash(l->set, &data, err));
    hash_hex(data, hex);
    train_facts_set(f, "data", "%s", hex);
    train_facts_set(f, "seed", "%" PRIu64, o->seed);
    for (int i = 0, n = 0; i < COND_COUNT && n < (int)sizeof text; i++)
        if (p->mix[i] > 0)
            n += snprintf(text + n, sizeof text - (size_t)n, "%s%s=%.9g", n ? "," : "",
                          train_condition_name((train_condition)i), p->mix[i]);
    train_facts_set(f, "condition", "%s", text);
    for (int i = 0, n = 0; i < p->k_count && n < (int)sizeof text; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, "%s%d", n ? "," : "", p->k[i]);
    train_facts_set(f, "k", "%s", text);
    train_facts_set(f, "gist token", "%d", p->gist_token);
    train_facts_set(f, "teacher", "%d, lm %s", p->teacher, shortest(p->teacher_lm).s);
    train_facts_set(f, "input loss", "%.9g", (double)p->input_loss);
    train_facts_set(f, "gist positions", "%s", p->gist_spread ? "spread" : "end");
    train_facts_set(f, "prompt loss", "%.9g", (double)p->prompt_loss);
    train_facts_set(f, "pairs per prompt", "%d", p->pairs_per_prompt);
    train_facts_set(f, "batch", "%d pairs, %d tokens", p->batch_pairs, p->batch_tokens);
    train_facts_set(f, "accumulate", "%d", o->accumulate);
    train_facts_set(f, "steps", "%" PRId64, o->steps);
    train_facts_set(f, "lr", "%s", shortest(o->optimiser.lr).s);
    train_facts_set(f, "schedule", "%s, warm-up %" PRId64 ", floor %s", schedules[o->schedule], o->warmup,
                    shortest(o->floor).s);
    train_facts_set(f, "adamw", "%s %s %s", shortest(o->optimiser.beta1).s, shortest(o->optimiser.beta2).s,
                    shortest(o->optimiser.eps).s);
    if (o->optimiser.muon > 0) train_facts_set(f, "muon", "%s", shortest(o->optimiser.muon).s);
    train_facts_set(f, "decay", "%s", shortest(o->optimiser.decay).s);
    train_facts_set(f, "clip", "%s", shortest(o->optimiser.clip).s);
    train_facts_set(f, "best by", "%s", o->best ? o->best : "the first metric");
    return GIST_OK;
}

/* ---- before hours are spent ---- */

static gist_status make_directory(const char *path, gist_error *err) {
    if (mkdir(path, 0777) == 0 || (errno == EEXIST && path_is_dir(path))) return GIST_OK;
    return err_set(err, GIST_ERR_IO, "%s: cannot make a directory: %s", path, strerror(errno));
}

/* Checkpoint and models, each once more while it is replaced. */
static gist_status check_room(const loop *l, gist_error *err) {
    struct statvfs fs;
    double n = 0, trained = 0, copies = path_exists(l->checkpoint) ? 1 : 2;
    bool adapter = train_model_lora(l->tm) && !l->opt->origin.merge;
    for (int i = 0; i < train_model_tensors(l->tm); i++) {
        n += (double)train_model_tensor(l->tm, i)->count;
        if (i < train_model_trained(l->tm)) trained += (double)train_model_tensor(l->tm, i)->count;
    }
    double model = adapter ? 4 * trained : n * (double)dt_bytes(l->opt->origin.type, 1);
    double need = copies * 12 * trained + (l->opt->splits ? 3 : 1) * model;
    if (statvfs(l->opt->out, &fs) != 0) return err_set(err, GIST_ERR_IO, "%s: %s", l->opt->out, strerror(errno));
    double have = (double)fs.f_bavail * (double)fs.f_frsize;
    if (have < need)
        return err_set(err, GIST_ERR_IO, "%s: a run of this model writes %.0f MiB, the disk has %.0f MiB left",
                       l->opt->out, need / 1048576, have / 1048576);
    return GIST_OK;
}

static gist_status check_out(const loop *l, gist_error *err) {
    const char *out = l->opt->out;
    TRY(make_directory(out, err));
    out_file probe;
    TRY(out_open(&probe, l->alloc, l->checkpoint, err)); /* can it be written? */
    out_abort(&probe);
    TRY(check_room(l, err));
    char *model = path_join(l->alloc, out, "model.safetensors");
    if (!model) return err_memory(err, "path");
    bool there = path_exists(model);
    mem_free(l->alloc, model);
    bool run = path_exists(l->checkpoint);
    if (l->opt->resume && (run || !there)) return GIST_OK; /* a model without a checkpoint is not a run of ours */
    if (run)
        return err_set(err, GIST_ERR_USAGE, "%s: holds a run already; resume it, or choose another directory", out);
    if (there) return err_set(err, GIST_ERR_USAGE, "%s: holds a model already; choose another directory", out);
    return GIST_OK;
}

/* What was exported has the gist token where the model has it. */
static gist_status check_tokenizer(const loop *l, gist_error *err) {
    tokenizer *t = NULL;
    TRY(tok_open(l->opt->out, l->alloc, &t, err));
    int32_t id = tok_gist(t);
    tok_close(t);
    if (id == l->opt->pack.gist_token) return GIST_OK;
    return err_set(err, GIST_ERR_MISMATCH, "%s: the tokenizer written there has <GIST> as token %d, the model as %d",
                   l->opt->out, id, l->opt->pack.gist_token);
}

static gist_status begin(loop *l, gist_error *err) {
    const train_run_options *o = l->opt;
    l->checkpoint = path_join(l->alloc, o->out, "checkpoint.safetensors");
    l->metrics = path_join(l->alloc, o->out, "metrics.jsonl");
    l->curve = path_join(l->alloc, o->out, "curve.svg");
    l->best = path_join(l->alloc, o->out, "best");
    l->batch = mem_calloc(l->alloc, (size_t)o->accumulate, sizeof *l->batch);
    l->epoch = mem_calloc(l->alloc, (size_t)o->accumulate, sizeof *l->epoch);
    l->from = mem_calloc(l->alloc, (size_t)o->accumulate, sizeof *l->from);
    if (!l->checkpoint || !l->metrics || !l->curve || !l->best || !l->batch || !l->epoch || !l->from)
        return err_memory(err, "training loop");
    for (int i = 0; i < o->accumulate; i++) train_batch_init(&l->batch[i], l->alloc);
    TRY(train_stream_init(&l->stream, l->set, &o->pack, o->seed, err));
    TRY(list_facts(l, &l->facts, err));
    TRY(check_out(l, err));
    train_place fresh = { .evaluated = -1, .best_step = -1 };
    bool there = path_exists(l->checkpoint);
    l->at = fresh;
    if (o->resume && there) TRY(train_checkpoint_load(l->checkpoint, l->tm, &l->facts, &l->at, l->alloc, err));
    if (o->resume && !there)
        log_msg(&l->ev->log, GIST_LOG_WARN, "%s has no checkpoint yet: the run starts from the beginning", o->out);
    int64_t keep = o->resume && there ? l->at.step : -1;
    TRY(train_log_open(&l->log, l->metrics, keep, l->at.evaluated == l->at.step, l->alloc, err));
    out_sweep(o->out, l->alloc); /* the log is locked: temporaries here are a killed run's */
    out_sweep(l->best, l->alloc);
    TRY(train_export_tokenizer(&o->origin, o->out, l->alloc, err));
    TRY(check_tokenizer(l, err));
    return train_stream_seek(&l->stream, l->at.epoch, l->at.at, err);
}

static void end(loop *l) {
    train_log_close(&l->log);
    train_stream_free(&l->stream);
    for (int i = 0; l->batch && i < l->opt->accumulate; i++)
        if (l->batch[i].alloc == l->alloc) train_batch_free(&l->batch[i]);
    mem_free(l->alloc, l->batch);
    mem_free(l->alloc, l->epoch);
    mem_free(l->alloc, l->from);
    mem_free(l->alloc, l->checkpoint);
    mem_free(l->alloc, l->metrics);
    mem_free(l->alloc, l->curve);
    mem_free(l->alloc, l->best);
}

/* ---- a step ---- */

/* "epoch 0, groups 96 to 103: rows 17, 4, 933" : which examples batch i is made of */
static void name_batch(loop *l, int i, sbuf *s) {
    uint64_t epoch = l->epoch[i], from = l->from[i], last, shown = 0;
    if (train_stream_seek(&l->stream, epoch, from, NULL) != GIST_OK) return;
    if (train_stream_next(&l->stream, &l->batch[i], NULL) != GIST_OK) return;
    from = l->stream.epoch == epoch ? from : 0; /* it began where the epoch ended */
    last = l->stream.at;
    sbuf_fmt(s, "batch %d of %d (epoch %" PRIu64 ", groups %" PRIu64 " to %" PRIu64 ": rows", i + 1, l->opt->accumulate,
             l->stream.epoch, from, last - 1);
    for (uint64_t g = from; g < last; g++)
        for (int j = 0; j < l->stream.group_pairs[g] && shown < 12; j++, shown++)
            sbuf_fmt(s, "%s %d", shown ? "," : "", l->set->pair[l->stream.order[l->stream.group_first[g] + j]].row);
    sbuf_str(s, shown == 12 ? ", ...)" : ")");
}

/* batch -1: all of the step's. */
static gist_status not_finite(loop *l, const char *what, int batch, gist_error *err) {
    sbuf s;
    sbuf_init(&s, l->alloc);
    name_batch(l, batch < 0 ? 0 : batch, &s);
    err_set(err, GIST_ERR_LIMIT,
            "step %" PRId64 ": the %s is not finite, %s%s; nothing was saved over the last checkpoint", l->at.step + 1,
            what, batch < 0 && l->opt->accumulate > 1 ? "first " : "", s.p ? s.p : "");
    sbuf_free(&s);
    return GIST_ERR_LIMIT;
}

/* The next batches; their label tokens together. */
static gist_status pack(loop *l, double *labels, gist_error *err) {
    *labels = 0;
    for (int i = 0; i < l->opt->accumulate; i++) {
        l->epoch[i] = l->stream.epoch;
        l->from[i] = l->stream.at;
        TRY(train_stream_next(&l->stream, &l->batch[i], err));
        *labels += l->batch[i].weight_sum;
    }
    return GIST_OK;
}

static gist_status add_gradients(loop *l, double labels, train_report *r, double *flops, gist_error *err) {
    int rows[COND_COUNT] = { 0 }, distilled = 0, text_rows = 0;
    double lm[COND_COUNT] = { 0 }, distill = 0, text = 0;
    train_model_zero_grad(l->tm);
    for (int i = 0; i < l->opt->accumulate; i++) {
        const train_batch *b = &l->batch[i];
        double share = b->weight_sum / labels;
        train_loss loss;
        TRY(train_model_step(l->tm, b, (float)share, &loss, err));
        if (!loss.finite) return not_finite(l, "loss", i, err);
        r->loss += share * loss.total;
        r->rows += train_batch_rows(b);
        r->labels += b->label_rows;
        r->pairs += b->pairs;
        *flops += train_model_flops(l->tm, b);
        distill += loss.distill;
        distilled += loss.distilled;
        text += loss.text;
        text_rows += loss.text_rows;
        for (int c = 0; c < COND_COUNT; c++) {
            lm[c] += loss.lm[c];
            rows[c] += loss.rows[c];
        }
    }
    for (int c = 0; c < COND_COUNT; c++) r->lm[c] = rows[c] ? lm[c] / rows[c] : NAN;
    r->distill = distilled ? distill / distilled : NAN;
    r->text = text_rows ? text / text_rows : NAN;
    return GIST_OK;
}

static uint64_t resident(void) {
    struct rusage u;
    return getrusage(RUSAGE_SELF, &u) == 0 ? (uint64_t)u.ru_maxrss * 1024 : 0;
}

static gist_status one_step(loop *l, gist_error *err) {
    const train_run_options *o = l->opt;
    double start = time_now(), labels, flops = 0;
    int64_t t = l->at.step + 1;
    train_report r = { .step = t, .steps = o->steps, .batches = o->accumulate };
    TRY(pack(l, &labels, err));
    TRY(add_gradients(l, labels, &r, &flops, err));
    r.grad_norm = train_model_grad_norm(l->tm);
    if (!isfinite(r.grad_norm)) return not_finite(l, "gradient", -1, err);
    optimiser update = o->optimiser;
    update.lr = r.lr = train_schedule(o->schedule, o->optimiser.lr, t, o->steps, o->warmup, o->floor);
    train_model_update(l->tm, &update, t);

    r.seconds = time_now() - start;
    l->seconds_here += r.seconds;
    l->steps_here++;
    l->at = (train_place){ .step = t,
                           .evaluated = l->at.evaluated,
                           .epoch = l->stream.epoch,
                           .at = l->stream.at,
                           .rows = l->at.rows + (uint64_t)r.rows,
                           .labels = l->at.labels + (uint64_t)r.labels,
                           .best_step = l->at.best_step,
                           .best = l->at.best,
                           .seconds = l->at.seconds + r.seconds };
    l->loss = r.loss;
    r.epoch = (double)l->stream.epoch + (double)l->stream.at / l->stream.groups;
    r.tokens_per_second = r.rows / r.seconds;
    r.gflops = flops / r.seconds * 1e-9;
    r.seconds_left = (double)(o->steps - t) * l->seconds_here / (double)l->steps_here;
    r.bytes = resident();
    if (l->ev->step) l->ev->step(l->ev->ctx, &r);
    return train_log_step(&l->log, &r, err);
}

/* ---- validation, saving ---- */

static bool due(const loop *l, int64_t every) {
    return l->at.step == l->opt->steps || (every > 0 && l->at.step % every == 0);
}

static gist_status choose(const loop *l, const train_metric *m, int n, int *chosen, gist_error *err) {
    *chosen = 0;
    if (!l->opt->best) return GIST_OK;
    for (int i = 0; i < n; i++) {
        *chosen = i;
        if (strcmp(m[i].name, l->opt->best) == 0) return GIST_OK;
    }
    sbuf s;
    sbuf_init(&s, l->alloc);
    for (int i = 0; i < n; i++) sbuf_fmt(&s, "%s%s", i ? ", " : "", m[i].name);
    err_set(err, GIST_ERR_USAGE, "there is no metric %s to choose the best model by; there are: %s", l->opt->best,
            s.p ? s.p : "");
    sbuf_free(&s);
    return GIST_ERR_USAGE;
}

static gist_status keep_best(loop *l, const train_metric *m, gist_error *err) {
    TRY(make_directory(l->best, err));
    TRY(train_export_tokenizer(&l->opt->origin, l->best, l->alloc, err));
    TRY(train_export_model(l->tm, &l->opt->origin, l->best, l->alloc, err));
    l->at.best = m->value;
    l->at.best_step = l->at.step;
    return GIST_OK;
}

static gist_status validate(loop *l, gist_error *err) {
    const train_run_options *o = l->opt;
    train_metric m[TRAIN_MAX_METRICS];
    int n = 0, chosen;
    bool stopped = false;
    if (o->splits == 0) return GIST_OK;
    TRY(train_evaluate(l->tm, o, l->ev, m, &n, &stopped, err));
    for (int s = 0; s < o->splits && l->ev->answers && !stopped; s++) {
        TRY(l->ev->answers(l->ev->ctx, l->tm, &o->split[s], l->at.step, m, TRAIN_MAX_METRICS, &n, err));
        stopped = l->ev->stop && l->ev->stop(l->ev->ctx);
    }
    if (stopped) { /* done again, whole, by the run that goes on */
        l->stopped = true;
        return GIST_OK;
    }
    TRY(choose(l, m, n, &chosen, err));
    double v = m[chosen].value;
    bool better =
        l->at.step > 0 && isfinite(v) && (l->at.best_step < 0 || (m[chosen].higher ? v > l->at.best : v < l->at.best));
    if (better) TRY(keep_best(l, &m[chosen], err));
    l->at.evaluated = l->at.step;
    if (l->ev->evaluated) l->ev->evaluated(l->ev->ctx, l->at.step, m, n, better);
    return train_log_metrics(&l->log, l->at.step, m, n, better, err);
}

static gist_status save(loop *l, gist_error *err) {
    TRY(train_log_sync(&l->log, err));
    TRY(train_checkpoint_save(l->checkpoint, l->tm, &l->facts, &l->at, l->alloc, err));
    return train_curve(l->metrics, l->curve, l->alloc, err);
}

static gist_status run(loop *l, gist_error *err) {
    const train_run_options *o = l->opt;
    if (o->splits && l->at.evaluated < l->at.step && (l->at.step == 0 || due(l, o->eval_every))) {
        TRY(validate(l, err)); /* the first, or one that was interrupted */
        if (l->at.step > 0) TRY(save(l, err));
    }
    int64_t end = o->stop_after > 0 && o->stop_after < o->steps ? o->stop_after : o->steps;
    while (l->at.step < end && !l->stopped) {
        TRY(one_step(l, err));
        if (l->ev->stop && l->ev->stop(l->ev->ctx)) l->stopped = true;
        if (!l->stopped && due(l, o->eval_every)) TRY(validate(l, err));
        if (l->stopped || l->at.step == end || due(l, o->save_every)) TRY(save(l, err));
    }
    if (l->at.step < o->steps) {
        l->stopped = true;
        return GIST_OK;
    }
    if (o->splits && l->at.evaluated < l->at.step) return GIST_OK; /* stopped during the last validation */
    l->stopped = false;
    return train_export_model(l->tm, &o->origin, o->out, l->alloc, err);
}

gist_status train_run(train_model *tm, const train_set *set, const train_run_options *opt, const train_events *events,
                      train_result *result, gist_error *err) {
    static const train_events silent = { 0 };
    if (opt->accumulate < 1 || opt->steps < 1)
        return err_set(err, GIST_ERR_USAGE, "a run has at least one step of one batch");
    loop l = { .tm = tm, .set = set, .opt = opt, .ev = events ? events : &silent, .alloc = set->alloc };
    gist_status status = begin(&l, err);
    if (status == GIST_OK) status = run(&l, err);
    if (status == GIST_OK) *result = (train_result){ l.at, l.stopped, l.loss };
    end(&l);
    return status;
}
