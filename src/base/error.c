/* error.c - statuses, error records and the log sink.
 *
 * A gist_error keeps the first cause: a function that fails fills it once, and callers that add nothing pass it on.
 */
#include "base/base.h"

const char *gist_version(void) {
    return "0.1.0";
}

const char *gist_status_text(gist_status status) {
    static const char *const text[GIST_STATUS_COUNT] = {
        [GIST_OK] = "ok",
        [GIST_ERR_USAGE] = "wrong usage",
        [GIST_ERR_MEMORY] = "out of memory",
        [GIST_ERR_IO] = "input/output error",
        [GIST_ERR_FORMAT] = "format error",
        [GIST_ERR_UNSUPPORTED] = "not supported",
        [GIST_ERR_MISMATCH] = "mismatch",
        [GIST_ERR_LIMIT] = "limit exceeded",
        [GIST_ERR_TEXT] = "unusable text",
        [GIST_ERR_CANCELLED] = "cancelled",
    };
    return (unsigned)status < GIST_STATUS_COUNT ? text[status] : "unknown status";
}

static gist_status set_v(gist_error *err, gist_status code, uint64_t pos, const char *fmt, va_list ap)
    __attribute__((format(printf, 4, 0)));
static gist_status set_v(gist_error *err, gist_status code, uint64_t pos, const char *fmt, va_list ap) {
    if (err && err->code == GIST_OK) {
        err->code = code;
        err->pos = pos;
        vsnprintf(err->msg, sizeof err->msg, fmt, ap);
        err->msg[utf8_complete(err->msg, strlen(err->msg))] = '\0'; /* a cut message ends on a whole character */
    }
    return code;
}

gist_status err_set(gist_error *err, gist_status code, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    set_v(err, code, 0, fmt, ap);
    va_end(ap);
    return code;
}

gist_status err_at(gist_error *err, gist_status code, uint64_t pos, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    set_v(err, code, pos, fmt, ap);
    va_end(ap);
    return code;
}

gist_status err_memory(gist_error *err, const char *what) {
    return err_set(err, GIST_ERR_MEMORY, "out of memory: %s", what);
}

void log_msg(const log_sink *log, gist_log_level level, const char *fmt, ...) {
    if (!log || !log->fn) return;
    char msg[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    log->fn(log->ctx, level, msg);
}
