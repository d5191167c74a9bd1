/* tour.c - what `make demo` prints: one unseen prompt in full, totals over many, what was lost, what tuning mends. */
#include <stdlib.h>

#include "tour.h"

enum { SHOWN_PAIRS = 6, SHOWN_FAILURES = 8, COLUMN = 20, INPUT = 40 };

static const char *const way_names[WAY_COUNT] = { "no prompt", "full prompt", "gist" };

static gist_status open_model(const char *model, gist_engine **e, gist_error *err) {
    gist_engine_options o = GIST_ENGINE_OPTIONS_INIT;
    return gist_engine_open(model, &o, e, err);
}

static gist_status write_file(const char *dir, const char *name, const char *text, size_t len, gist_error *err) {
    char path[1024];
    out_file o;
    if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path)
        return err_set(err, GIST_ERR_USAGE, "%s: too long a name", dir);
    TRY(out_open(&o, NULL, path, err));
    out_write(&o, text, len);
    return out_commit(&o, err);
}

/* At most `width` characters of ASCII or UTF-8, with "..." where something is left out. */
static void print_cell(const char *s, int width) {
    int n = 0;
    size_t at = 0, cut = 0;
    for (; s[at]; n++) {
        if (n == width - 3) cut = at;
        at++;
        while (((unsigned char)s[at] & 0xc0) == 0x80) at++;
    }
    if (n <= width)
        printf("%s%*s", s, width - n, "");
    else
        printf("%.*s...", (int)cut, s);
}

static void print_answer(const asked *a, int way, int i) {
    putchar(ask_right(a, way, i) ? '+' : '-');
    putchar(' ');
    print_cell(a->said[way][i][0] ? a->said[way][i] : "(nothing)", COLUMN);
}

static void print_table(const asked *a, int pairs) {
    print_cell("input", INPUT);
    printf("  %-*s", COLUMN, "right answer");
    for (int way = 0; way < WAY_COUNT; way++) printf("  %-*s", COLUMN, way_names[way]);
    putchar('\n');
    for (int i = 0; i < pairs; i++) {
        print_cell(a->p->pair[i].input, INPUT);
        printf("  ");
        print_cell(a->p->pair[i].output, COLUMN);
        for (int way = 0; way < WAY_COUNT; way++) print_answer(a, way, i);
        putchar('\n');
    }
}

static void print_quoted(const char *text) {
    for (const char *line = text; *line;) {
        const char *end = strchr(line, '\n');
        size_t n = end ? (size_t)(end - line) : strlen(line);
        while (n > 110) { /* break at a space */
            size_t cut = 110;
            while (cut && line[cut] != ' ') cut--;
            if (!cut) cut = 110;
            printf("  | %.*s\n", (int)cut, line);
            line += cut + (line[cut] == ' ');
            n = end ? (size_t)(end - line) : strlen(line);
        }
        printf("  | %.*s\n", (int)n, line);
        line += n + (end != NULL);
    }
}

/* Bytes of keys and values of one token, in bf16. */
static uint64_t token_bytes(const gist_info *g) {
    return g->bytes / (uint64_t)g->k;
}

static gist_status show_one(const words *w, gist_engine *e, const tour_options *o, gist_error *err) {
    prompt p;
    asked a;
    gist_info info;
    ask_times t = { 0, 0, 0 };
    char path[1024];
    prompt_init(&p);
    gist_status st = prompt_draw(&p, w, SPLIT_UNSEEN, o->seed, 0, false, err);
    if (st == GIST_OK) {
        snprintf(path, sizeof path, "%s/prompt.gist", o->dir);
        st = ask_open(&a, e, &p, 0, err);
        if (st == GIST_OK) st = write_file(o->dir, "prompt.txt", p.text.p, p.text.len, err);
        if (st == GIST_OK) st = gist_save(a.g, path, err);
        if (st == GIST_OK) st = ask_all(&a, p.pairs, err);
        if (st == GIST_OK) st = ask_time(&a, p.pairs, path, &t, err);
        if (st == GIST_OK) {
            gist_get_info(a.g, &info);
            printf("1. A system prompt that the model has never seen (--seed %llu; none of its names, items and\n"
                   "   addresses occurs in the training data)\n\n",
                   (unsigned long long)o->seed);
            print_quoted(p.text.p);
            printf("\n2. Compressed: %d tokens become %d gist tokens, %.1f times fewer\n\n", a.tokens, a.k,
                   (double)a.tokens / a.k);
            printf("   text %zu bytes; its cache %.0f KiB (%d layers, keys and values, bf16); the gist %.0f KiB\n",
                   p.text.len, (double)(token_bytes(&info) * (uint64_t)a.tokens) / 1024, info.layers,
                   (double)info.bytes / 1024);
            printf("   written to %s\n\n", path);
            printf("3. Answers (+ right, - wrong); behind the gist the prompt's text is gone\n\n");
            print_table(&a, p.pairs < SHOWN_PAIRS ? p.pairs : SHOWN_PAIRS);
            printf(
                "\n   time to the first token, median of %d inputs: %.2f ms without any cache, %.2f ms from the whole\n"
                "   prompt's cache in memory, %.2f ms from the gist file (read, verified, attached)\n",
                p.pairs, t.uncached, t.cached, t.from_gist);
        }
        ask_close(&a);
    }
    prompt_free(&p);
    return st;
}

/* ---- totals ---- */

typedef struct loss {
    int index, k, lost; /* the prompt where the gist lost most */
} loss;

typedef struct totals {
    int inputs, right[WAY_COUNT], failures;
    double tokens, gists;
    loss worst;
} totals;

static void print_failures(totals *t, const asked *a, int index) {
    for (int i = 0; i < a->p->pairs; i++) {
        if (ask_right(a, WAY_GIST, i) || t->failures++ >= SHOWN_FAILURES) continue;
        printf("   prompt %-3d ", index);
        print_cell(a->p->pair[i].input, INPUT);
        printf("  ");
        print_cell(a->p->pair[i].output, COLUMN);
        print_answer(a, WAY_GIST, i);
        printf("%s\n", ask_right(a, WAY_FULL, i) ? "" : "  (so is the full prompt's)");
    }
}

static gist_status count_one(totals *t, const words *w, gist_engine *e, uint64_t seed, int index, gist_error *err) {
    prompt p;
    asked a;
    prompt_init(&p);
    gist_status st = prompt_draw(&p, w, SPLIT_UNSEEN, seed, (uint64_t)index, false, err);
    if (st == GIST_OK) {
        st = ask_open(&a, e, &p, 0, err);
        if (st == GIST_OK) st = ask_all(&a, p.all, err);
        int lost = 0;
        for (int i = 0; i < p.all && st == GIST_OK; i++) {
            lost += ask_right(&a, WAY_FULL, i) && !ask_right(&a, WAY_GIST, i);
            for (int way = 0; way < WAY_COUNT && i < p.pairs; way++) t->right[way] += ask_right(&a, way, i);
        }
        if (st == GIST_OK) {
            t->inputs += p.pairs;
            t->tokens += a.tokens;
            t->gists += a.k;
            if (lost > t->worst.lost) t->worst = (loss){ index, a.k, lost };
            print_failures(t, &a, index);
        }
        ask_close(&a);
    }
    prompt_free(&p);
    return st;
}

/* Every other input is for scoring, the rest is for tuning: counted by answer, so that of two questions with one answer
 * tuning sees one, in other words. */
static bool held_out(const prompt *p, int i) {
    int before = 0;
    for (int j = 0; j < p->all; j++) {
        int order = strcmp(p->pair[j].output, p->pair[i].output);
        before += order < 0 || (order == 0 && j < i);
    }
    return before % 2;
}

static gist_status write_lost(const words *w, const tour_options *o, const loss *l, gist_error *err) {
    prompt p;
    sbuf inputs, args;
    prompt_init(&p);
    sbuf_init(&inputs, NULL);
    sbuf_init(&args, NULL);
    gist_status st = prompt_draw(&p, w, SPLIT_UNSEEN, o->seed, (uint64_t)l->index, false, err);
    for (int i = 0; i < p.all && st == GIST_OK; i++)
        if (!held_out(&p, i)) sbuf_fmt(&inputs, "%s\n", p.pair[i].input);
    sbuf_fmt(&args, "--seed %llu --index %d -k %d\n", (unsigned long long)o->seed, l->index, l->k);
    if (st == GIST_OK && (inputs.failed || args.failed)) st = err_memory(err, "inputs");
    if (st == GIST_OK) st = write_file(o->dir, "lost.prompt.txt", p.text.p, p.text.len, err);
    if (st == GIST_OK) st = write_file(o->dir, "lost.inputs.txt", inputs.p, inputs.len, err);
    if (st == GIST_OK) st = write_file(o->dir, "lost.args", args.p, args.len, err);
    sbuf_free(&inputs);
    sbuf_free(&args);
    prompt_free(&p);
    return st;
}

static gist_status show_totals(const words *w, gist_engine *e, const tour_options *o, gist_error *err) {
    totals t = { 0 };
    printf("\n4. The same for %d unseen prompts, each compressed at least tenfold where it can be; the first wrong "
           "answers\n"
           "   from gists:\n\n",
           o->prompts);
    for (int i = 0; i < o->prompts; i++) TRY(count_one(&t, w, e, o->seed, i, err));
    if (t.failures > SHOWN_FAILURES) printf("   ... and %d more\n", t.failures - SHOWN_FAILURES);
    printf("\n   %d inputs, %.1f prompt tokens per gist token; right answers:", t.inputs, t.tokens / t.gists);
    for (int way = 0; way < WAY_COUNT; way++)
        printf("%s %s %.1f %%", way ? "," : "", way_names[way], 100.0 * t.right[way] / t.inputs);
    putchar('\n');
    if (t.worst.lost == 0) return GIST_OK;
    printf("\n   Most was lost in prompt %d: %d inputs that the full prompt answers and its %d gist tokens do not.\n",
           t.worst.index, t.worst.lost, t.worst.k);
    return write_lost(w, o, &t.worst, err);
}

gist_status tour_show(const words *w, const tour_options *o, gist_error *err) {
    gist_engine *e;
    TRY(open_model(o->model, &e, err));
    gist_status st = show_one(w, e, o, err);
    if (st == GIST_OK && o->prompts > 0) st = show_totals(w, e, o, err);
    gist_engine_close(e);
    return st;
}

/* ---- tuning ---- */

gist_status tour_tuned(const words *w, const tour_options *o, int index, int k, const char *tuned, gist_error *err) {
    gist_engine *e;
    gist *g;
    prompt p;
    asked a = { 0 };
    char before[PROMPT_MAX_PAIRS + PROMPT_MAX_SEEN][TEXT_MAX];
    int right[2] = { 0, 0 }, n = 0;
    TRY(open_model(o->model, &e, err));
    prompt_init(&p);
    gist_status st = prompt_draw(&p, w, SPLIT_UNSEEN, o->seed, (uint64_t)index, false, err);
    if (st == GIST_OK) st = ask_open(&a, e, &p, k, err);
    if (st == GIST_OK) st = ask_all(&a, p.all, err);
    if (st == GIST_OK) {
        for (int i = 0; i < p.all; i++) {
            if (!held_out(&p, i)) continue;
            n++;
            right[0] += ask_right(&a, WAY_GIST, i);
            memcpy(before[i], a.said[WAY_GIST][i], TEXT_MAX);
        }
        st = gist_load(e, tuned, 0, &g, err);
    }
    if (st == GIST_OK) {
        ask_use(&a, g);
        st = ask_all(&a, p.all, err);
    }
    if (st == GIST_OK) {
        print_cell("input that tuning did not see", INPUT);
        printf("  %-*s  %-*s  %s\n", COLUMN, "right answer", COLUMN, "predicted gist", "tuned gist");
        for (int i = 0; i < p.all; i++) {
            if (!held_out(&p, i)) continue;
            right[1] += ask_right(&a, WAY_GIST, i);
            print_cell(p.pair[i].input, INPUT);
            printf("  ");
            print_cell(p.pair[i].output, COLUMN);
            printf("%s ", strcmp(before[i], p.pair[i].output) == 0 ? "+" : "-");
            print_cell(before[i], COLUMN);
            print_answer(&a, WAY_GIST, i);
            putchar('\n');
        }
        printf("\n   right: %d of %d before, %d after\n", right[0], n, right[1]);
    }
    ask_close(&a);
    prompt_free(&p);
    gist_engine_close(e);
    return st;
}
