/* train_log.c - metrics.jsonl: one JSON object a line, a step or a validation.
 *
 *   {"step":12,"epoch":0.31,"loss":2.41,"lr":2e-05,"grad_norm":1.3,"rows":812,...,"lm":{"gist":2.5,"full":2.3}}
 *   {"step":100,"best":true,"eval":{"unseen/gist":2.2,"unseen/full":2.0},"scores":{"unseen/exact.gist":12.5}}
 *
 * Every line begins with its step, so that a resumed run can cut what lies past its checkpoint without parsing.  A line
 * reaches the system with each write, the disk before each checkpoint.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

#include "train/train.h"

/* Bytes of whole lines up to the step, without its validation when that is still to come. */
static size_t keep_length(const char *bytes, size_t len, int64_t step, bool evaluated) {
    static const char start[] = "{\"step\":";
    size_t at = 0, head = sizeof start - 1;
    while (at < len) {
        const char *line = bytes + at, *end = memchr(line, '\n', len - at);
        char number[24] = "";
        if (!end || (size_t)(end - line) <= head || memcmp(line, start, head) != 0) break;
        size_t n = (size_t)(end - line) - head;
        memcpy(number, line + head, n < sizeof number - 1 ? n : sizeof number - 1);
        char *stop;
        long long value = strtoll(number, &stop, 10);
        if (stop == number || value > step) break;
        if (value == step && !evaluated && strncmp(stop, ",\"best\":", 8) == 0) break;
        at = (size_t)(end - bytes) + 1;
    }
    return at;
}

/* Nobody else writes here; what lies past the step goes. */
static gist_status claim(const train_log *log, int64_t step, bool evaluated, gist_error *err) {
    file_map map;
    if (flock(fileno(log->f), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        return err_set(err, GIST_ERR_IO, "%s: another process is training there", log->path);
    TRY(map_open(log->path, &map, err));
    size_t keep = keep_length((const char *)map.data, map.size, step, evaluated);
    map_close(&map);
    if (ftruncate(fileno(log->f), (off_t)keep) != 0)
        return err_set(err, GIST_ERR_IO, "%s: cannot cut: %s", log->path, strerror(errno));
    return GIST_OK;
}

gist_status train_log_open(train_log *log, const char *path, int64_t step, bool evaluated, const gist_allocator *alloc,
                           gist_error *err) {
    train_log made = { .alloc = alloc, .path = mem_strndup(alloc, path, strlen(path)) };
    if (!made.path) return err_memory(err, "metrics");
    made.f = fopen(path, "ae");
    gist_status status = made.f ? claim(&made, step, evaluated, err)
                                : err_set(err, GIST_ERR_IO, "%s: cannot write: %s", path, strerror(errno));
    if (status == GIST_OK)
        *log = made;
    else
        train_log_close(&made);
    return status;
}

void train_log_close(train_log *log) {
    if (log->f) fclose(log->f);
    mem_free(log->alloc, log->path);
    *log = (train_log){ 0 };
}

/* Takes the line over. */
static gist_status put_line(train_log *log, sbuf *line, gist_error *err) {
    gist_status status = GIST_OK;
    sbuf_str(line, "\n");
    if (line->failed)
        status = err_memory(err, "metrics");
    else if (fwrite(line->p, 1, line->len, log->f) != line->len || fflush(log->f) != 0)
        status = err_set(err, GIST_ERR_IO, "%s: cannot write: %s", log->path, strerror(errno));
    sbuf_free(line);
    return status;
}

static void put_number(sbuf *s, const char *key, double v) {
    if (isfinite(v))
        sbuf_fmt(s, ",\"%s\":%.9g", key, v);
    else
        sbuf_fmt(s, ",\"%s\":null", key); /* JSON has no other word for it */
}

gist_status train_log_step(train_log *log, const train_report *r, gist_error *err) {
    sbuf s;
    sbuf_init(&s, log->alloc);
    sbuf_fmt(&s, "{\"step\":%" PRId64, r->step);
    put_number(&s, "epoch", r->epoch);
    put_number(&s, "loss", r->loss);
    put_number(&s, "lr", (double)r->lr);
    put_number(&s, "grad_norm", r->grad_norm);
    sbuf_fmt(&s, ",\"rows\":%d,\"labels\":%d,\"pairs\":%d,\"batches\":%d", r->rows, r->labels, r->pairs, r->batches);
    put_number(&s, "seconds", r->seconds);
    put_number(&s, "tokens_per_second", r->tokens_per_second);
    put_number(&s, "gflops", r->gflops);
    if (isfinite(r->distill)) put_number(&s, "distill", r->distill);
    if (isfinite(r->text)) put_number(&s, "text", r->text);
    const char *lead = ",\"lm\":{";
    for (int c = 0; c < COND_COUNT; c++) {
        if (!isfinite(r->lm[c])) continue;
        sbuf_fmt(&s, "%s\"%s\":%.9g", lead, train_condition_name((train_condition)c), r->lm[c]);
        lead = ",";
    }
    sbuf_str(&s, *lead == ',' && lead[1] ? "}" : "}}");
    return put_line(log, &s, err);
}

/* Losses, or scores; nothing where there are none of them. */
static void put_metrics(sbuf *s, const char *key, const train_metric *metrics, int n, bool scores) {
    int put = 0;
    for (int i = 0; i < n; i++) {
        if (metrics[i].higher != scores) continue;
        if (put++ == 0) sbuf_fmt(s, ",\"%s\":", key);
        sbuf_fmt(s, "%s\"%s\":", put == 1 ? "{" : ",", metrics[i].name);
        if (isfinite(metrics[i].value))
            sbuf_fmt(s, "%.9g", metrics[i].value);
        else
            sbuf_str(s, "null");
    }
    if (put) sbuf_str(s, "}");
}

gist_status train_log_metrics(train_log *log, int64_t step, const train_metric *metrics, int n, bool best,
                              gist_error *err) {
    sbuf s;
    sbuf_init(&s, log->alloc);
    sbuf_fmt(&s, "{\"step\":%" PRId64 ",\"best\":%s", step, best ? "true" : "false");
    put_metrics(&s, "eval", metrics, n, false);
    put_metrics(&s, "scores", metrics, n, true);
    sbuf_str(&s, "}");
    return put_line(log, &s, err);
}

gist_status train_log_sync(train_log *log, gist_error *err) {
    if (fflush(log->f) != 0 || (fsync(fileno(log->f)) != 0 && errno != EINVAL))
        return err_set(err, GIST_ERR_IO, "%s: cannot write: %s", log->path, strerror(errno));
    return GIST_OK;
}
