/* cli.c - what the commands share: opening a model, reading text, printing results and messages. */
#include <errno.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"

/* ---- messages ---- */

int fail(const gist_error *err) {
    fprintf(stderr, "gist: %s\n", err->msg[0] ? err->msg : gist_status_text(err->code));
    return err->code == GIST_ERR_USAGE ? EXIT_WRONG_USAGE : EXIT_FAILED;
}

void warn(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fputs("gist: warning: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
}

static double shown; /* when progress was; 0: not since its end, or never */

void progress(const char *fmt, ...) {
    bool terminal = isatty(STDERR_FILENO);
    double now = time_now();
    if (!terminal && shown == 0) shown = now;
    if (now - shown < (terminal ? 0.1 : 60)) return;
    shown = now;
    va_list ap;
    va_start(ap, fmt);
    fputs(terminal ? "\r\033[K" : "gist: ", stderr);
    vfprintf(stderr, fmt, ap);
    if (!terminal) fputc('\n', stderr);
    fflush(stderr);
    va_end(ap);
}

void progress_end(void) {
    if (!isatty(STDERR_FILENO)) return;
    fputs("\r\033[K", stderr);
    shown = 0;
}

int finish_output(void) {
    bool bad = fflush(stdout) != 0;
    if (!bad && !ferror(stdout)) return EXIT_DONE;
    fprintf(stderr, "gist: cannot write the results: %s\n", strerror(errno));
    return EXIT_FAILED;
}

char *size_text(uint64_t bytes, char out[32]) {
    static const char *const unit[] = { "KiB", "MiB", "GiB", "TiB" };
    double v = (double)bytes / 1024;
    int u = 0;
    while (v >= 1024 && u < 3) {
        v /= 1024;
        u++;
    }
    if (bytes < 1024)
        snprintf(out, 32, "%u bytes", (unsigned)bytes);
    else
        snprintf(out, 32, v < 10 ? "%.2f %s" : v < 100 ? "%.1f %s" : "%.0f %s", v, unit[u]);
    return out;
}

/* Field 22 of /proc/self/stat is the start in clock ticks since boot; field 2 may hold anything, so count behind it. */
double process_age(void) {
    char line[1024];
    struct timespec now;
    unsigned long long ticks = 0;
    FILE *f = fopen("/proc/self/stat", "r");
    if (!f) return 0;
    size_t n = fread(line, 1, sizeof line - 1, f);
    fclose(f);
    line[n] = '\0';
    const char *p = strrchr(line, ')');
    for (int field = 2; p && field < 22; field++) p = strchr(p + 1, ' ');
    if (!p || sscanf(p, "%llu", &ticks) != 1 || clock_gettime(CLOCK_BOOTTIME, &now) != 0) return 0;
    double age = (double)now.tv_sec + (double)now.tv_nsec / 1e9 - (double)ticks / (double)sysconf(_SC_CLK_TCK);
    return age > 0 ? age : 0;
}

/* ---- the model ---- */

static void log_line(void *ctx, gist_log_level level, const char *msg) {
    (void)ctx;
    if (level != GIST_LOG_WARN) return;
    progress_end(); /* open_engine shows one */
    warn("%s", msg);
}

dtype kv_dtype(gist_type kv) {
    for (int t = 0; t < DT_COUNT; t++)
        if (dt_public((dtype)t) == kv) return (dtype)t;
    return DT_BF16;
}

gist_status open_engine(const model_args *m, bool quiet, gist_engine **out, double *seconds, gist_error *err) {
    gist_engine_options o = GIST_ENGINE_OPTIONS_INIT;
    o.threads = m->threads;
    o.kernels = (gist_kernels)m->kernels;
    o.weights = (gist_type)m->type;
    o.template_name = m->template_name;
    o.adapter = m->adapter;
    if (!quiet) o.log = log_line;
    double start = time_now();
    if (!quiet) progress("loading %s ...", m->path);
    gist_status status = gist_engine_open(m->path, &o, out, err);
    if (!quiet) progress_end();
    if (seconds) *seconds = time_now() - start;
    return status;
}

/* ---- text ---- */

static gist_status read_stream(FILE *f, const char *name, sbuf *s, gist_error *err) {
    char buf[65536];
    size_t n;
    while ((n = fread(buf, 1, sizeof buf, f)) > 0) {
        sbuf_add(s, buf, n);
        if (s->len > TEXT_MAX)
            return err_set(err, GIST_ERR_LIMIT, "%s: more than %d MiB of text", name, TEXT_MAX >> 20);
    }
    if (ferror(f)) return err_set(err, GIST_ERR_IO, "%s: %s", name, strerror(errno));
    return s->failed ? err_memory(err, name) : GIST_OK;
}

gist_status text_read(text *out, const char *given, const char *file, bool chomp, gist_error *err) {
    gist_status status = GIST_OK;
    sbuf s;
    sbuf_init(&s, NULL);
    if (given) {
        sbuf_str(&s, given);
    } else if (file) {
        bool in = strcmp(file, "-") == 0;
        FILE *f = in ? stdin : fopen(file, "rb");
        status = f ? read_stream(f, in ? "standard input" : file, &s, err)
                   : err_set(err, GIST_ERR_IO, "%s: %s", file, strerror(errno));
        if (f && !in) fclose(f);
        if (chomp && s.len && s.p[s.len - 1] == '\n') s.len--;
        if (chomp && s.len && s.p[s.len - 1] == '\r') s.len--;
    } else {
        return GIST_OK;
    }
    text got = { NULL, s.len };
    if (status == GIST_OK && !(got.p = sbuf_take(&s))) status = err_memory(err, "text");
    sbuf_free(&s);
    if (status == GIST_OK) *out = got;
    return status;
}

void text_free(text *t) {
    mem_free(NULL, t->p);
    *t = (text){ 0 };
}

int number_list(const char *said, int most, int *out, int cap) {
    for (int count = 0; count < cap;) {
        int n = 0, used = 0;
        if (sscanf(said, "%9d%n", &n, &used) != 1 || n < 1 || n > most) return 0;
        out[count++] = n;
        said += used;
        if (!*said) return count;
        if (*said++ != ',') return 0;
    }
    return 0;
}

gist_status parse_ids(const char *p, size_t len, int vocab, tok_ids *out, gist_error *err) {
    static const char between[] = ", \t\r\n[]";
    for (size_t at = 0; at < len;) {
        if (p[at] && strchr(between, p[at])) {
            at++;
            continue;
        }
        long id = 0;
        size_t begin = at;
        for (; at < len && p[at] >= '0' && p[at] <= '9' && id < vocab; at++) id = id * 10 + (p[at] - '0');
        bool whole = at > begin && (at == len || (p[at] && strchr(between, p[at])));
        if (!whole || id >= vocab)
            return err_at(err, GIST_ERR_USAGE, begin, "ids: \"%.*s\" is not a token id below %d",
                          (int)(len - begin < 20 ? len - begin : 20), p + begin, vocab);
        TRY(tok_ids_push(out, (int32_t)id, err));
    }
    return GIST_OK;
}

/* ---- JSON ---- */

json_t *json_text_of(const char *p, size_t len) {
    sbuf s;
    sbuf_init(&s, NULL);
    for (size_t i = 0; i < len;) {
        uint32_t cp;
        int n = utf8_decode(p + i, len - i, &cp);
        if (n > 0)
            sbuf_add(&s, p + i, (size_t)n);
        else
            sbuf_str(&s, "\xEF\xBF\xBD");
        i += n > 0 ? (size_t)n : 1;
    }
    json_t *v = s.failed ? NULL : json_stringn(s.p ? s.p : "", s.len);
    sbuf_free(&s);
    return v;
}

json_t *json_ids_of(const int32_t *ids, size_t n) {
    json_t *list = json_array();
    for (size_t i = 0; list && i < n; i++)
        if (json_array_append_new(list, json_integer(ids[i])) != 0) {
            json_decref(list);
            return NULL;
        }
    return list;
}

gist_status json_print(json_t *root, gist_error *err) {
    if (!root)
        return err_set(err, GIST_ERR_MEMORY, "the result cannot be written as JSON: out of memory, or not a number");
    int bad = json_dumpf(root, stdout, JSON_REAL_PRECISION(9));
    json_decref(root);
    if (bad) return err_set(err, GIST_ERR_IO, "cannot write the results: %s", strerror(errno));
    putchar('\n');
    return GIST_OK;
}

void print_piece(const tokenizer *t, int32_t id, FILE *out) {
    size_t len = 0;
    const char *p = tok_piece(t, id, &len);
    for (size_t i = 0; p && i < len;) {
        uint32_t cp;
        int n = utf8_decode(p + i, len - i, &cp);
        if (n > 0 && cp > ' ' && cp != 0x7f)
            fwrite(p + i, 1, (size_t)n, out);
        else
            fprintf(out, "\\x%02x", (unsigned)(unsigned char)p[i]);
        i += n > 0 ? (size_t)n : 1;
    }
}

json_t *json_piece_of(const tokenizer *t, int32_t id) {
    size_t len = 0;
    const char *p = tok_piece(t, id, &len);
    return p ? json_text_of(p, len) : json_null();
}
