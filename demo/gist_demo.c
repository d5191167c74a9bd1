/* gist_demo.c - the demonstration's data program; usage below, what the data is: docs/results/demo-data.md. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "gen.h"
#include "tour.h"

static const char usage[] =
    "gist-demo - data for the demonstration: system prompts, inputs, answers, all drawn from a seed\n"
    "\n"
    "  gist-demo data --split list|phrases|train|seen|dev|unseen [--seed 1] [--prompts 1000]\n"
    "                  [--longest N] [--edited] [-o FILE]\n"
    "      rows {instruction, input, output, kind, sub, style, fact, prompt_id, bits} as JSON Lines;\n"
    "      --longest N: leave out prompts of more than N words;\n"
    "      --edited: one fact of each prompt has another value, only inputs whose answer that changes, with the\n"
    "      answer they had as \"was\"\n"
    "  gist-demo vocab -o DIR [--size 4096] [--seed 1] [--prompts 20000]\n"
    "      train a vocabulary on training prompts; writes tokenizer.json and tokenizer_config.json\n"
    "  gist-demo stats [--tokenizer DIR] FILE...\n"
    "      lengths, answers per kind, how far the commonest answer to each question would get, bits\n"
    "  gist-demo check [--train FILE] [--seen FILE] [--hand] FILE...\n"
    "      every file is sound; no two of them share a name, an entity, a triple or a prompt (--train counts);\n"
    "      --seen asks --train's prompts other inputs; --hand: files written by hand, checked for form only\n"
    "  gist-demo tour -m MODEL -o DIR [--seed 1] [--prompts 50]\n"
    "      an unseen prompt compressed, its inputs answered three ways, totals over --prompts; files into DIR\n"
    "  gist-demo tuned -m MODEL -g FILE [--seed 1] [--index 0] [-k N]\n"
    "      inputs of prompt --index before and after its gist was tuned to FILE\n"
    "  gist-demo replay -m MODEL -o FILE [--seed 1] [--prompts 40]\n"
    "      answers that do not depend on the kernels, as rows\n"
    "  gist-demo show [--split train] [--seed 1] [--index 0]\n"
    "      one prompt with its inputs and answers\n";

typedef struct options {
    const char *split, *out, *tokenizer, *train, *seen, *model, *gist;
    uint64_t seed;
    int prompts, size, index, longest, k;
    bool hand, edited;
    const char **files;
    int count;
} options;

static int wrong(const char *what, const char *arg) {
    fprintf(stderr, "gist-demo: %s \"%s\"\n\n%s", what, arg, usage);
    return 2;
}

static bool asks_help(const char *arg) {
    return strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0;
}

static bool number(const char *s, uint64_t most, uint64_t *out) {
    char *end;
    errno = 0;
    unsigned long long v = strtoull(s, &end, 10);
    if (errno || end == s || *end || *s == '-' || v > most) return false;
    *out = v;
    return true;
}

static int parse(int argc, const char **argv, options *o) {
    *o = (options){ .split = "train", .seed = 1, .prompts = -1, .size = 4096, .longest = INT_MAX };
    o->files = argv; /* in place: what is read is never ahead of what is kept */
    for (int i = 2; i < argc; i++) {
        const struct {
            const char *name, **text;
            int *value;
        } table[] = {
            { "--split", &o->split, NULL }, { "-o", &o->out, NULL },        { "--tokenizer", &o->tokenizer, NULL },
            { "--train", &o->train, NULL }, { "--seen", &o->seen, NULL },   { "--prompts", NULL, &o->prompts },
            { "--size", NULL, &o->size },   { "--index", NULL, &o->index }, { "--longest", NULL, &o->longest },
            { "-m", &o->model, NULL },      { "-g", &o->gist, NULL },       { "-k", NULL, &o->k }
        };
        const char *arg = argv[i];
        uint64_t v = 0;
        size_t t = 0;
        if (strcmp(arg, "--hand") == 0) {
            o->hand = true;
            continue;
        }
        if (strcmp(arg, "--edited") == 0) {
            o->edited = true;
            continue;
        }
        if (arg[0] != '-') {
            o->files[o->count++] = arg;
            continue;
        }
        while (t < sizeof table / sizeof *table && strcmp(arg, table[t].name) != 0) t++;
        bool is_seed = strcmp(arg, "--seed") == 0;
        if (t == sizeof table / sizeof *table && !is_seed) return wrong("no such option:", arg);
        if (i + 1 == argc) return wrong("a value is missing after", arg);
        const char *value = argv[++i];
        if (!is_seed && table[t].text) {
            *table[t].text = value;
        } else if (!number(value, is_seed ? UINT64_MAX : 1000000000, &v)) {
            return wrong("not a number that fits:", value);
        } else if (is_seed) {
            o->seed = v;
        } else {
            *table[t].value = (int)v;
        }
    }
    return 0;
}

/* ---- rows ---- */

static void put_member(sbuf *b, const char *key, const char *s) {
    sbuf_fmt(b, ", \"%s\": ", key);
    row_string(b, s, strlen(s));
}

static void put_row(sbuf *b, const prompt *p, const pair *a, const char *was, const sbuf *instruction, const char *id) {
    sbuf_str(b, "{\"instruction\": ");
    sbuf_add(b, instruction->p, instruction->len);
    put_member(b, "input", a->input);
    put_member(b, "output", a->output);
    if (was) put_member(b, "was", was);
    put_member(b, "kind", a->kind);
    put_member(b, "sub", a->sub);
    put_member(b, "style", p->style);
    if (a->entity[0]) {
        sbuf_str(b, ", \"fact\": [");
        row_string(b, a->entity, strlen(a->entity));
        sbuf_str(b, ", ");
        row_string(b, a->attribute, strlen(a->attribute));
        sbuf_str(b, ", ");
        row_string(b, a->value, strlen(a->value));
        sbuf_str(b, "]");
    }
    put_member(b, "prompt_id", id);
    sbuf_fmt(b, ", \"bits\": %.1f}\n", p->bits);
}

/* What --split names: prompts of a split, training's with the inputs left out there, or lists, of phrases perhaps;
 * edited: one fact of each prompt is another. */
typedef struct source {
    split s;
    bool seen, list, phrases, edited;
    int longest; /* words of a prompt; longer ones are left out */
} source;

static gist_status find_source(const char *name, source *out, gist_error *err) {
    *out = (source){ .s = SPLIT_TRAIN, .seen = strcmp(name, "seen") == 0, .phrases = strcmp(name, "phrases") == 0 };
    out->list = out->phrases || strcmp(name, "list") == 0;
    if (out->seen || out->list) return GIST_OK;
    for (int i = 0; i < SPLIT_COUNT; i++)
        if (strcmp(name, split_names[i]) == 0) {
            out->s = (split)i;
            return GIST_OK;
        }
    return err_set(err, GIST_ERR_USAGE, "no split \"%s\"; there are list, phrases, train, seen, dev, unseen", name);
}

static gist_status draw(prompt *p, const words *w, source from, uint64_t seed, int index, gist_error *err) {
    return from.list ? list_draw(p, w, from.phrases, seed, (uint64_t)index, err)
                     : prompt_draw(p, w, from.s, seed, (uint64_t)index, false, err);
}

static int word_count(const char *s) { /* runs of characters between white space */
    int n = 0;
    for (s += strspn(s, " \n"); *s; s += strspn(s, " \n"), n++) s += strcspn(s, " \n");
    return n;
}

static gist_status write_rows(const words *w, source from, uint64_t seed, int prompts, out_file *o, gist_error *err) {
    prompt p;
    char was[PROMPT_MAX_PAIRS][TEXT_MAX];
    sbuf b, instruction;
    gist_status st = GIST_OK;
    prompt_init(&p);
    sbuf_init(&b, NULL);
    sbuf_init(&instruction, NULL);
    for (int i = 0; i < prompts && st == GIST_OK; i++) {
        char id[64];
        st = from.edited ? prompt_edit(&p, was, w, from.s, seed, (uint64_t)i, err) : draw(&p, w, from, seed, i, err);
        if (st != GIST_OK || word_count(p.text.p) > from.longest) continue;
        snprintf(id, sizeof id, "%s-%llu-%d", from.list ? "list" : split_names[from.s], (unsigned long long)seed, i);
        b.len = instruction.len = 0;
        row_string(&instruction, p.text.p, p.text.len);
        const pair *a = from.seen ? p.pair + p.pairs : p.pair;
        for (int j = 0; j < (from.seen ? p.seen : p.pairs) && !instruction.failed; j++)
            put_row(&b, &p, &a[j], from.edited ? was[j] : NULL, &instruction, id);
        if (b.failed || instruction.failed)
            st = err_memory(err, "rows");
        else
            out_write(o, b.p, b.len);
    }
    prompt_free(&p);
    sbuf_free(&b);
    sbuf_free(&instruction);
    return st;
}

static gist_status do_data(const words *w, const options *o, gist_error *err) {
    source from;
    TRY(find_source(o->split, &from, err));
    from.edited = o->edited;
    from.longest = o->longest;
    if (from.edited && (from.list || from.seen))
        return err_set(err, GIST_ERR_USAGE, "--edited is for train, dev and unseen");
    int prompts = o->prompts < 0 ? 1000 : o->prompts;
    if (!o->out) {
        out_file to_stdout = { .f = stdout };
        TRY(write_rows(w, from, o->seed, prompts, &to_stdout, err));
        if (fflush(stdout) || ferror(stdout)) return err_set(err, GIST_ERR_IO, "standard output: write failed");
        return GIST_OK;
    }
    out_file out;
    TRY(out_open(&out, NULL, o->out, err));
    gist_status st = write_rows(w, from, o->seed, prompts, &out, err);
    if (st == GIST_OK) return out_commit(&out, err);
    out_abort(&out);
    return st;
}

static gist_status do_show(const words *w, const options *o, gist_error *err) {
    prompt p;
    source from;
    TRY(find_source(o->split, &from, err));
    prompt_init(&p);
    gist_status st = draw(&p, w, from, o->seed, o->index, err);
    if (st == GIST_OK) {
        printf("%s\n\n", p.text.p);
        printf("(%d word-like tokens, %.1f bits, style %s)\n\n", text_tokens(p.text.p, p.text.len), p.bits, p.style);
        for (int i = 0; i < p.pairs + p.seen; i++)
            printf("%-9s %-20s %s\n%30s -> %s\n", i < p.pairs ? p.pair[i].kind : "(seen)", p.pair[i].sub,
                   p.pair[i].input, "", p.pair[i].output);
    }
    prompt_free(&p);
    return st;
}

static gist_status do_check(const words *w, const options *o, gist_error *err) {
    int n = o->count;
    if (o->train) o->files[n++] = o->train;
    for (int i = 0; i < n; i++) TRY(rows_sound(o->files[i], o->hand ? ROWS_HAND : ROWS_DRAWN, err));
    if (o->seen) {
        TRY(rows_sound(o->seen, ROWS_SEEN, err));
        TRY(rows_seen(o->train, o->seen, err));
    }
    for (int i = 0; i < n && !o->hand; i++)
        for (int j = i + 1; j < n; j++) TRY(rows_apart(w, o->files[i], o->files[j], err));
    return GIST_OK;
}

static gist_status dispatch(const char *command, const words *w, const options *o, gist_error *err) {
    if (strcmp(command, "data") == 0) return do_data(w, o, err);
    if (strcmp(command, "show") == 0) return do_show(w, o, err);
    if (strcmp(command, "vocab") == 0)
        return vocab_write(w, o->out, o->size, o->seed, o->prompts < 0 ? 20000 : o->prompts, err);
    if (strcmp(command, "check") == 0) return do_check(w, o, err);
    if (strcmp(command, "replay") == 0)
        return replay_write(w, o->model, o->seed, o->prompts < 0 ? 40 : o->prompts, o->out, err);
    tour_options tour = { o->model, o->out, o->seed, o->prompts < 0 ? 50 : o->prompts };
    if (strcmp(command, "tour") == 0) return tour_show(w, &tour, err);
    if (strcmp(command, "tuned") == 0) return tour_tuned(w, &tour, o->index, o->k, o->gist, err);
    for (int i = 0; i < o->count; i++) TRY(rows_stats(o->files[i], o->tokenizer, err));
    return GIST_OK;
}

int main(int argc, char **argv) {
    static const char *const commands[] = { "data", "vocab", "stats", "check", "show", "tour", "tuned", "replay" };
    enum { VOCAB = 1, STATS, CHECK, SHOW, TOUR, TUNED, REPLAY };
    options o;
    size_t c = 0;
    if (argc < 2 || asks_help(argv[1]) || (argc > 2 && asks_help(argv[2]))) {
        fputs(usage, argc < 2 ? stderr : stdout);
        return argc < 2 ? 2 : 0;
    }
    while (c < sizeof commands / sizeof *commands && strcmp(argv[1], commands[c]) != 0) c++;
    if (c == sizeof commands / sizeof *commands) return wrong("no such command:", argv[1]);
    const char **args = malloc(sizeof *args * (size_t)(argc + 1)); /* room for one file more */
    if (!args) return 1;
    for (int i = 0; i < argc; i++) args[i] = argv[i];
    int rc = parse(argc, args, &o);
    if (rc == 0 && (c == VOCAB || c == TOUR || c == REPLAY) && !o.out) rc = wrong("-o is missing in", argv[1]);
    if (rc == 0 && (c == STATS || c == CHECK) && o.count == 0 && !o.train) rc = wrong("no file given to", argv[1]);
    if (rc == 0 && c >= TOUR && !o.model) rc = wrong("-m MODEL is missing in", argv[1]);
    if (rc == 0 && c == TUNED && !o.gist) rc = wrong("-g FILE is missing in", argv[1]);
    if (rc == 0 && o.seen && !o.train) rc = wrong("--seen needs", "--train");
    words *w = NULL;
    gist_error err = { 0 };
    if (rc == 0 && (words_create(&w, &err) != GIST_OK || dispatch(argv[1], w, &o, &err) != GIST_OK)) {
        fprintf(stderr, "gist-demo: %s\n", err.msg);
        rc = err.code == GIST_ERR_USAGE ? 2 : 1;
    }
    words_free(w);
    free(args);
    return rc;
}
