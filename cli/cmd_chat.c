/* cmd_chat.c - gist chat: a conversation behind a gist, a prompt, or nothing.
 *
 * On a terminal lines are edited (libedit, where the build found it), answers stream, and Ctrl-C stops an answer.
 * Otherwise no prompt is shown and every answer is one line of standard output, its line ends written as \n.  What the
 * program itself has to say goes to standard error.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>
#ifdef GIST_LIBEDIT
#include <editline/readline.h>
#endif

#include "answer.h"
#include "chat.h"

typedef struct chat_args {
    model_args model;
    option_list gists;
    const char *prompt, *file;
    int kv, context;
    answer_args answer;
    bool force, stats, quiet;
} chat_args;

static const option table[] = {
    OPT_HEADING("What stands in front"),
    OPT_MODEL(chat_args, model),
    OPT_ADAPTER(chat_args, model),
    OPT_LIST(chat_args, gists, 'g', "gist", "FILE",
             "a gist file made with this model; several stand one behind another, from position 0"),
    OPT_FLAG(chat_args, force, 0, "force", "accept a gist of another model when every shape fits"),
    OPT_TEXT(chat_args, prompt, 'p', "prompt", "TEXT", NULL, "a prompt, uncompressed"),
    OPT_TEXT(chat_args, file, 'f', "file", "FILE", NULL, "the prompt from a file; one final newline is dropped"),
    OPT_TEMPLATE(chat_args, model),
    OPT_ANSWER(chat_args, answer),
    OPT_HEADING("Output"),
    OPT_FLAG(chat_args, stats, 0, "stats", "time to the first token and tokens per second behind every answer"),
    OPT_QUIET(chat_args, quiet),
    OPT_HEADING("Memory"),
    OPT_INT(chat_args, context, 0, "ctx", "N", 0, 1 << 20, "0", "most tokens beside the gist; 0: the model's context"),
    OPT_KV(chat_args, kv, "number type of keys and values; auto: the gist's, else bf16"),
    OPT_MACHINE(chat_args, model),
};

/* ---- interrupts ---- */

/* What a signal handler can reach: the one thing here that no object holds. */
static volatile sig_atomic_t interrupted;

static void on_interrupt(int sig) {
    (void)sig;
    interrupted = 1;
}

/* Ctrl-C stops answers; between them it ends the program, as ever. */
static void catch_interrupts(bool on) {
    struct sigaction act = { .sa_handler = on ? on_interrupt : SIG_DFL };
    sigemptyset(&act.sa_mask);
    interrupted = 0;
    sigaction(SIGINT, &act, NULL);
}

/* ---- lines ---- */

typedef struct talk {
    const chat_args *a;
    const text *prompt; /* in front while no gist is */
    gist_engine *e;
    gist_session *s;
    gist *g; /* NULL: none */
    chat c;
    gist_generate_options o;
    gist_logit_bias bias[OPTION_LIST_MAX];
    bool tty, failed;
    char *line; /* of read_line: free() */
    size_t cap;
    gist_answer last; /* facts of the last answer; its texts are gone */
    int answers;
} talk;

static void say(const talk *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(const talk *t, const char *fmt, ...) {
    va_list ap;
    if (t->a->quiet) return;
    va_start(ap, fmt);
    fputs("gist: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
}

/* The next line without its end; NULL: there is none. */
static const char *read_line(talk *t) {
#ifdef GIST_LIBEDIT
    if (t->tty) {
        free(t->line);
        t->line = readline("> ");
        if (t->line && *t->line) add_history(t->line);
        return t->line;
    }
#endif
    if (t->tty) {
        fputs("> ", stdout);
        fflush(stdout);
    }
    ssize_t n = getline(&t->line, &t->cap, stdin);
    if (n < 0) return NULL;
    while (n > 0 && (t->line[n - 1] == '\n' || t->line[n - 1] == '\r')) t->line[--n] = '\0';
    return t->line;
}

/* ---- answers ---- */

static void announce_dropped(talk *t) {
    if (t->c.dropped)
        say(t, "the context is full: the oldest %d turn%s forgotten", t->c.dropped,
            t->c.dropped == 1 ? " is" : "s are");
    t->c.dropped = 0;
}

static bool on_token(void *ctx, const gist_token_event *ev) {
    talk *t = ctx;
    announce_dropped(t);
    for (size_t i = 0; i < ev->text_len; i++)
        if (ev->text[i] == '\n' && !t->tty)
            fputs("\\n", stdout);
        else
            putchar(ev->text[i]);
    return fflush(stdout) == 0 && !interrupted;
}

static void print_stats(const talk *t) {
    const gist_answer *r = &t->last;
    double decoding = r->total_ms - r->first_token_ms;
    say(t, "%d input tokens, first token after %.1f ms; %d tokens, %.1f tokens/s; ended by %s; %d of %d tokens held",
        r->input_tokens, r->first_token_ms, r->n, r->n > 1 && decoding > 0 ? (r->n - 1) / decoding * 1e3 : 0.0,
        r->finish, gist_session_length(t->s), t->c.limit);
}

static void ask(talk *t, const char *input) {
    gist_error err = { 0 };
    gist_answer r;
    gist_generate_options o = t->o;
    o.seed += (uint64_t)t->answers++;
    o.on_token = on_token;
    o.on_token_ctx = t;
    catch_interrupts(true);
    gist_status status = chat_ask(&t->c, input, strlen(input), &o, &r, &err);
    catch_interrupts(false);
    announce_dropped(t);
    putchar('\n');
    fflush(stdout);
    if (status != GIST_OK) {
        t->failed = true;
        fail(&err);
        return;
    }
    if (strcmp(r.finish, "context") == 0) say(t, "the answer ends here: the context is full");
    if (strcmp(r.finish, "invalid-json") == 0) say(t, "the answer ends here: no token goes on with a JSON object");
    t->last = r;
    t->last.text = NULL;
    t->last.ids = NULL;
    t->last.logprobs = NULL;
    gist_answer_free(t->s, &r);
    if (t->a->stats) print_stats(t);
}

/* ---- what stands in front ---- */

/* Gist files (none: the present gist) or the prompt, in front of an empty session; the turns begin anew.  After a
 * failure what was in front is there again. */
static gist_status begin(talk *t, const option_list *files, gist_error *err) {
    gist *g = t->g;
    if (files->n) TRY(load_gists(files, t->e, t->a->force ? GIST_LOAD_FORCE : 0u, t->a->quiet, &g, err));
    gist_session_reset(t->s);
    chat_close(&t->c);
    gist_status status = g ? gist_session_attach(t->s, g, err) : GIST_OK;
    if (status != GIST_OK && g != t->g) { /* as before */
        gist_free(g);
        g = t->g;
        if (g) gist_session_attach(t->s, g, NULL);
    }
    if (g != t->g) {
        gist_free(t->g);
        t->g = g;
    }
    if (t->prompt->p && !g) TRY(gist_session_prompt(t->s, t->prompt->p, t->prompt->len, err));
    TRY(chat_open(&t->c, t->e, t->s, t->a->context, err));
    return status;
}

/* ---- /commands ---- */

static const char help_text[] = "/help             this list\n"
                                "/reset            forget the conversation, keep what stands in front of it\n"
                                "/gist FILE...     another gist in front, or several; the conversation begins anew\n"
                                "/set              how answers are drawn; /set NAME VALUE changes it\n"
                                "/stats            the last answer, and how full the context is\n"
                                "/save FILE        the conversation as JSON\n"
                                "/quit             end (Ctrl-D too); Ctrl-C stops an answer\n"
                                "//text            an input that begins with /\n";

typedef struct setting {
    const char *name;
    size_t at;
    bool whole;
    double lo, hi;
} setting;
#define AT(field) offsetof(gist_generate_options, field)
static const setting settings[] = {
    { "temperature", AT(temperature), false, 0, 1e6 },
    { "top-k", AT(top_k), true, 0, 1 << 20 },
    { "top-p", AT(top_p), false, 1e-9, 1 },
    { "min-p", AT(min_p), false, 0, 1 },
    { "repeat-penalty", AT(repeat_penalty), false, 1e-3, 1e6 },
    { "repeat-last", AT(repeat_last), true, -1, 1 << 20 },
    { "max-tokens", AT(max_tokens), true, 0, 1 << 20 },
};
enum { SETTINGS = sizeof settings / sizeof *settings };

static void command_set(talk *t, const char *name, const char *value) {
    char *base = (char *)&t->o, *end = NULL;
    for (int i = 0; i < SETTINGS; i++) {
        const setting *s = &settings[i];
        void *at = base + s->at;
        if (!name) say(t, "%s %g", s->name, s->whole ? *(int *)at : (double)*(float *)at);
        if (!name || strcmp(name, s->name) != 0) continue;
        double x = value ? strtod(value, &end) : 0;
        if (!value || end == value || *end || !(x >= s->lo && x <= s->hi) || (s->whole && x != (double)(int)x)) {
            say(t, "%s takes a %snumber from %.7g to %.7g", name, s->whole ? "whole " : "", s->lo, s->hi);
            return;
        }
        if (s->whole)
            *(int *)at = (int)x;
        else
            *(float *)at = (float)x;
        return;
    }
    if (name) say(t, "there is no setting \"%s\"; /set lists them", name);
}

static void command_save(const talk *t, const char *path) {
    json_t *root = chat_json(&t->c);
    char *said = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    gist_error err = { 0 };
    out_file out;
    gist_status status = said ? out_open(&out, NULL, path, &err) : err_memory(&err, "conversation");
    if (status == GIST_OK) {
        out_write(&out, said, strlen(said));
        out_write(&out, "\n", 1);
        status = out_commit(&out, &err);
    }
    free(said);
    json_decref(root);
    if (status == GIST_OK)
        say(t, "%d turn%s saved in %s", t->c.n, t->c.n == 1 ? "" : "s", path);
    else
        fail(&err);
}

static void command_gist(talk *t, char *names) {
    option_list files = { .n = 0 };
    gist_error err = { 0 };
    for (char *name; (name = strsep(&names, " \t")) && files.n < OPTION_LIST_MAX;)
        if (*name) files.item[files.n++] = name;
    if (begin(t, &files, &err) != GIST_OK) {
        t->failed = true;
        fail(&err);
        return;
    }
    gist_info info;
    gist_get_info(t->g, &info);
    say(t, "%d gist token%s in front, for %d of the prompt; the conversation begins anew", info.k,
        info.k == 1 ? "" : "s", info.prompt_tokens);
}

/* line: behind the slash.  False: /quit. */
static bool obey(talk *t, char *line) {
    char *word = strsep(&line, " \t"), *rest = line ? line + strspn(line, " \t") : NULL;
    if (rest && !*rest) rest = NULL;
    if (strcmp(word, "quit") == 0 || strcmp(word, "exit") == 0) return false;
    if (strcmp(word, "help") == 0) {
        fputs(help_text, stderr);
    } else if (strcmp(word, "reset") == 0) {
        chat_reset(&t->c);
        t->answers = 0;
        say(t, "the conversation is forgotten");
    } else if (strcmp(word, "stats") == 0) {
        if (t->last.finish)
            print_stats(t);
        else
            say(t, "no answer yet; %d of %d tokens held", gist_session_length(t->s), t->c.limit);
    } else if (strcmp(word, "set") == 0) {
        char *name = rest ? strsep(&rest, " \t=") : NULL;
        command_set(t, name, rest ? rest + strspn(rest, " \t") : NULL);
    } else if (strcmp(word, "save") == 0 && rest) {
        command_save(t, rest);
    } else if (strcmp(word, "gist") == 0 && rest) {
        command_gist(t, rest);
    } else {
        bool known = strcmp(word, "save") == 0 || strcmp(word, "gist") == 0;
        say(t, known ? "/%s needs a file" : "there is no /%s; /help lists the commands", word);
    }
    return true;
}

/* ---- the conversation ---- */

static void converse(talk *t) {
    if (!chat_has_turns(&t->c)) {
        gist_engine_info info;
        gist_engine_get_info(t->e, &info);
        say(t, "template %s has one turn: every line is a request by itself", info.template_name);
    }
    if (t->tty) say(t, "/help lists the commands, /quit or Ctrl-D ends");
    for (const char *line; (line = read_line(t));) {
        if (!*line) continue;
        if (line[0] == '/' && line[1] != '/') {
            if (!obey(t, t->line + 1)) return;
        } else {
            ask(t, line + (line[0] == '/'));
        }
    }
    if (t->tty) putchar('\n');
}

static gist_status run_chat(const chat_args *a, const text *prompt, bool *failed, gist_error *err) {
    talk t = { .a = a, .prompt = prompt, .tty = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) };
    gist_session_options o = GIST_SESSION_OPTIONS_INIT;
    o.context = a->context;
    o.kv = (gist_type)a->kv;
    gist_status status = open_engine(&a->model, a->quiet, &t.e, NULL, err);
    if (status == GIST_OK) status = answer_options(&a->answer, t.e, &t.o, t.bias, err);
    if (status == GIST_OK) status = gist_session_open(t.e, &o, &t.s, err);
    if (status == GIST_OK) status = begin(&t, &a->gists, err);
    if (status == GIST_OK) converse(&t);
    *failed = t.failed;
    chat_close(&t.c);
    gist_session_close(t.s);
    gist_free(t.g);
    gist_engine_close(t.e);
    free(t.line);
    return status;
}

static int run(const command *self, int argc, char **argv) {
    chat_args a = { 0 };
    int done = options_parse(self, &a, argc, argv);
    if (done != OPTIONS_GO) return done;
    if (a.prompt && a.file) return usage_error(self, "chat: give the prompt with either -p or -f");
    if (a.gists.n && (a.prompt || a.file))
        return usage_error(self, "chat: a gist replaces the prompt; give -g or a prompt");
    if (a.file && strcmp(a.file, "-") == 0)
        return usage_error(self, "chat: standard input is the conversation; the prompt cannot come from it");
    if (a.force && !a.gists.n) return usage_error(self, "chat: --force is about a gist; -g is missing");
    gist_error err = { 0 };
    text prompt = { 0 };
    bool failed = false;
    gist_status status = text_read(&prompt, a.prompt, a.file, true, &err);
    if (status == GIST_OK) status = run_chat(&a, &prompt, &failed, &err);
    text_free(&prompt);
    if (status != GIST_OK) return fail(&err);
    return failed ? EXIT_FAILED : EXIT_DONE;
}

const command cmd_chat = {
    .group = "Compress and answer",
    .name = "chat",
    .summary = "a conversation behind a gist or a prompt",
    .usage = "-m MODEL [-g IN.gist]... [-p PROMPT | -f FILE]",
    .details = "Lines that begin with / are commands; /help lists them.  Conversations need a template of turns\n"
               "(chatml, llama3); with another one every line is a request by itself.  When the context is full the\n"
               "oldest turns are forgotten, and that is said.  Without a terminal: no prompts, an answer a line, its\n"
               "line ends as \\n.",
    .example = "gist chat -m models/shop -g shop.gist --template chatml",
    .options = table,
    .count = sizeof table / sizeof *table,
    .run = run,
};
