/* options.c - parsing by table, and the help that the same table prints.
 *
 *   --name VALUE   --name=VALUE   -n VALUE   -nVALUE   -ab (flags)   --  ends options   a lone - is a value
 *
 * Every message names the option and says what was expected.  Options and positional arguments may be mixed.
 */
#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "options.h"

/* ---- messages ---- */

int usage_error(const command *c, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fputs("gist: ", stderr);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, "\ngist: 'gist help %s' shows what it takes\n", c->name);
    return EXIT_WRONG_USAGE;
}

int edit_distance(const char *a, const char *b) {
    enum { LONGEST = 32 };
    int row[LONGEST + 1], n = (int)strlen(b);
    if (strlen(a) > LONGEST || n > LONGEST) return LONGEST;
    for (int j = 0; j <= n; j++) row[j] = j;
    for (int i = 1; a[i - 1]; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= n; j++) {
            int change = diagonal + (a[i - 1] != b[j - 1]), best = row[j] < row[j - 1] ? row[j] + 1 : row[j - 1] + 1;
            diagonal = row[j];
            row[j] = change < best ? change : best;
        }
    }
    return row[n];
}

static int unknown(const command *c, const char *given, size_t len) {
    char name[32] = "";
    const char *best = NULL;
    int nearest = 3;
    if (len < sizeof name) memcpy(name, given, len);
    for (int i = 0; i < c->count && *name; i++) {
        const char *other = c->options[i].name;
        if (!other) continue;
        int d = strncmp(other, name, len) == 0 ? 1 : edit_distance(name, other);
        if (d < nearest) {
            nearest = d;
            best = other;
        }
    }
    if (best) return usage_error(c, "%s: unknown option --%.*s; did you mean --%s?", c->name, (int)len, given, best);
    return usage_error(c, "%s: unknown option --%.*s", c->name, (int)len, given);
}

/* "--kv" or "-k", as the user may write it; the value's name of a positional argument. */
static const char *spelled(const option *o, char out[48]) {
    if (o->name)
        snprintf(out, 48, "--%s", o->name);
    else
        snprintf(out, 48, "%s", o->value);
    return out;
}

/* ---- values ---- */

static void *field_of(const option *o, void *args) {
    return (char *)args + o->offset;
}

/* Index of text in "a|b|c", or -1. */
static int choice_of(const char *choices, const char *text) {
    size_t len = strlen(text);
    int i = 0;
    for (const char *p = choices; p; i++) {
        const char *end = strchr(p, '|');
        size_t n = end ? (size_t)(end - p) : strlen(p);
        if (n == len && memcmp(p, text, n) == 0) return i;
        p = end ? end + 1 : NULL;
    }
    return -1;
}

static int set_number(const command *c, const option *o, void *field, const char *text) {
    char name[48], *end = NULL;
    errno = 0;
    if (o->kind == OPTION_SEED) {
        unsigned long long v = strtoull(text, &end, 0);
        if (end == text || *end || errno || strchr(text, '-'))
            return usage_error(c, "%s: %s is not a whole number below 2^64", spelled(o, name), text);
        *(uint64_t *)field = v;
    } else if (o->kind == OPTION_INT) {
        long v = strtol(text, &end, 10);
        if (end == text || *end || errno || (double)v < o->lo || (double)v > o->hi)
            return usage_error(c, "%s: %s is not a whole number from %.0f to %.0f", spelled(o, name), text, o->lo,
                               o->hi);
        *(int *)field = (int)v;
    } else {
        double v = strtod(text, &end);
        if (end == text || *end || isnan(v) || v < o->lo || v > o->hi)
            return usage_error(c, "%s: %s is not a number from %g to %g", spelled(o, name), text, o->lo, o->hi);
        *(float *)field = (float)v;
    }
    return OPTIONS_GO;
}

static int set_value(const command *c, const option *o, void *args, const char *text) {
    char name[48];
    void *field = field_of(o, args);
    if (o->kind == OPTION_TEXT) {
        *(const char **)field = text;
    } else if (o->kind == OPTION_CHOICE) {
        int i = choice_of(o->value, text);
        if (i < 0) return usage_error(c, "%s: \"%s\" is not one of %s", spelled(o, name), text, o->value);
        *(int *)field = i;
    } else if (o->kind == OPTION_LIST) {
        option_list *list = field;
        if (list->n == OPTION_LIST_MAX)
            return usage_error(c, "%s: at most %d times", spelled(o, name), OPTION_LIST_MAX);
        list->item[list->n++] = text;
    } else {
        return set_number(c, o, field, text);
    }
    return OPTIONS_GO;
}

/* ---- parsing ---- */

static const option *find_name(const command *c, const char *name, size_t len) {
    for (int i = 0; i < c->count; i++) {
        const char *other = c->options[i].name;
        if (other && strlen(other) == len && memcmp(other, name, len) == 0) return &c->options[i];
    }
    return NULL;
}

static const option *find_letter(const command *c, char letter) {
    for (int i = 0; i < c->count; i++)
        if (c->options[i].letter == letter && letter) return &c->options[i];
    return NULL;
}

enum { MOST_ROWS = 128 };

typedef struct parse {
    const command *c;
    void *args;
    int argc, at;
    char **argv;
    bool given[MOST_ROWS];
} parse;

static int take(parse *p, const option *o, const char *text) {
    p->given[o - p->c->options] = true;
    return set_value(p->c, o, p->args, text);
}

static int take_long(parse *p, const char *name) {
    const char *equals = strchr(name, '=');
    size_t len = equals ? (size_t)(equals - name) : strlen(name);
    const option *o = find_name(p->c, name, len);
    if (!o) return unknown(p->c, name, len);
    if (o->kind == OPTION_FLAG) {
        if (equals) return usage_error(p->c, "--%s takes no value", o->name);
        *(bool *)field_of(o, p->args) = true;
        return OPTIONS_GO;
    }
    if (equals) return take(p, o, equals + 1);
    if (p->at == p->argc) return usage_error(p->c, "--%s needs a value: %s", o->name, o->value);
    return take(p, o, p->argv[p->at++]);
}

/* -ab flags; -k4 or -k 4 */
static int take_letters(parse *p, const char *letters) {
    for (; *letters; letters++) {
        const option *o = find_letter(p->c, *letters);
        if (!o) return usage_error(p->c, "%s: unknown option -%c", p->c->name, *letters);
        if (o->kind != OPTION_FLAG) {
            if (letters[1]) return take(p, o, letters + 1);
            if (p->at == p->argc) return usage_error(p->c, "-%c needs a value: %s", o->letter, o->value);
            return take(p, o, p->argv[p->at++]);
        }
        *(bool *)field_of(o, p->args) = true;
    }
    return OPTIONS_GO;
}

static int take_positional(parse *p, const char *text) {
    for (int i = 0; i < p->c->count; i++) {
        const option *o = &p->c->options[i];
        if (!o->name && o->kind != OPTION_HEADING && !p->given[i]) return take(p, o, text);
    }
    return usage_error(p->c, "%s: unexpected argument \"%s\"", p->c->name, text);
}

static int finish(const parse *p) {
    for (int i = 0; i < p->c->count; i++) {
        const option *o = &p->c->options[i];
        if (!o->required || p->given[i]) continue;
        if (!o->name) return usage_error(p->c, "%s: %s is missing", p->c->name, o->value);
        if (o->letter) return usage_error(p->c, "%s: -%c %s is missing", p->c->name, o->letter, o->value);
        return usage_error(p->c, "%s: --%s %s is missing", p->c->name, o->name, o->value);
    }
    return OPTIONS_GO;
}

int options_parse(const command *c, void *args, int argc, char **argv) {
    parse p = { .c = c, .args = args, .argc = argc, .argv = argv };
    int status = OPTIONS_GO;
    assert(c->count <= MOST_ROWS);
    for (int i = 0; i < c->count && status == OPTIONS_GO; i++)
        if (c->options[i].fallback) status = set_value(c, &c->options[i], args, c->options[i].fallback);
    bool options = true;
    while (status == OPTIONS_GO && p.at < argc) {
        const char *word = argv[p.at++];
        if (options && (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)) {
            options_help(c, stdout);
            return EXIT_DONE;
        }
        if (options && strcmp(word, "--") == 0)
            options = false;
        else if (options && word[0] == '-' && word[1] == '-')
            status = take_long(&p, word + 2);
        else if (options && word[0] == '-' && word[1])
            status = take_letters(&p, word + 1);
        else
            status = take_positional(&p, word);
    }
    return status == OPTIONS_GO ? finish(&p) : status;
}

/* ---- help ---- */

/* Text from column `at` on, broken between words before column 100, continued at column 28. */
static void wrap(FILE *out, int at, const char *text) {
    enum { INDENT = 28, WIDTH = 100 };
    for (fprintf(out, "%*s", at < INDENT ? INDENT - at : 0, ""), at = INDENT; *text;) {
        size_t len = strcspn(text, " ");
        if (at > INDENT && at + 1 + (int)len > WIDTH) {
            fprintf(out, "\n%*s", INDENT, "");
            at = INDENT;
        }
        at += fprintf(out, "%s%.*s", at > INDENT ? " " : "", (int)len, text);
        text += len;
        text += strspn(text, " ");
    }
    fputc('\n', out);
}

static void help_row(const option *o, FILE *out) {
    char left[64], right[512];
    char letter[] = { '-', o->letter, ',', '\0' };
    if (o->kind == OPTION_HEADING) {
        fprintf(out, "\n%s\n", o->value);
        return;
    }
    snprintf(left, sizeof left, "  %-3s %s%s%s%s", o->letter ? letter : "", o->name ? "--" : "", o->name ? o->name : "",
             o->value && o->name ? " " : "", o->value ? o->value : "");
    snprintf(right, sizeof right, "%s%s%s%s%s", o->help, o->kind == OPTION_LIST ? "; may be repeated" : "",
             o->fallback ? " [" : "", o->fallback ? o->fallback : "", o->fallback ? "]" : "");
    int at = fprintf(out, "%s", left);
    if (at >= 27) {
        fputc('\n', out);
        at = 0;
    }
    wrap(out, at, right);
}

/* Every line of text behind two spaces. */
static void help_lines(const char *text, FILE *out) {
    for (; *text; text += strcspn(text, "\n"), text += *text == '\n')
        fprintf(out, "  %.*s\n", (int)strcspn(text, "\n"), text);
}

void options_help(const command *c, FILE *out) {
    fprintf(out, "gist %s - %s\n\nusage: gist %s %s\n", c->name, c->summary, c->name, c->usage);
    for (int i = 0; i < c->count; i++) help_row(&c->options[i], out);
    if (c->details) {
        fputc('\n', out);
        help_lines(c->details, out);
    }
    fputs("\nExample\n", out);
    help_lines(c->example, out);
}
