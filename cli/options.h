/* options.h - one table of options per command: it drives parsing, defaults, bounds, --help and the hints.
 *
 *   struct args { const char *prompt; int k; bool json; };
 *   static const option table[] = {
 *       OPT_HEADING("Prompt"),
 *       OPT_TEXT(struct args, prompt, 'p', "prompt", "TEXT", NULL, "the prompt itself"),
 *       OPT_INT(struct args, k, 'k', "gists", "N", 1, 1024, "1", "gist tokens"),
 *       OPT_FLAG(struct args, json, 0, "json", "print one JSON object"),
 *   };
 *
 * A default is a text that is parsed like a user's, so --help can show it and cannot lie.  Rows whose long name is NULL
 * are positional arguments, taken in the order of the table.  Texts are borrowed from argv; nothing is allocated.
 */
#ifndef GIST_CLI_OPTIONS_H
#define GIST_CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { EXIT_DONE, EXIT_FAILED, EXIT_WRONG_USAGE };

typedef enum option_kind {
    OPTION_HEADING, /* a line between groups of options */
    OPTION_FLAG,    /* bool */
    OPTION_TEXT,    /* const char *, NULL when absent */
    OPTION_INT,     /* int in [lo,hi] */
    OPTION_FLOAT,   /* float in [lo,hi] */
    OPTION_SEED,    /* uint64_t */
    OPTION_CHOICE,  /* int: index into "a|b|c" */
    OPTION_LIST     /* option_list, repeatable */
} option_kind;

enum { OPTION_LIST_MAX = 16 };
typedef struct option_list {
    const char *item[OPTION_LIST_MAX + 1]; /* NULL-terminated */
    int n;
} option_list;

typedef struct option {
    option_kind kind;
    char letter;       /* 0: none */
    const char *name;  /* without dashes; NULL: a positional argument */
    const char *value; /* "FILE"; of a choice "a|b|c"; of a heading its text */
    bool required;
    size_t offset;
    double lo, hi;
    const char *fallback; /* the default, as a user would write it; NULL: absent */
    const char *help;
} option;

#define OPT_HEADING(text)                                                                                              \
    { OPTION_HEADING, 0, NULL, text, false, 0, 0, 0, NULL, NULL }
#define OPT_FLAG(type, field, letter, name, help)                                                                      \
    { OPTION_FLAG, letter, name, NULL, false, offsetof(type, field), 0, 0, NULL, help }
#define OPT_TEXT(type, field, letter, name, value, fallback, help)                                                     \
    { OPTION_TEXT, letter, name, value, false, offsetof(type, field), 0, 0, fallback, help }
#define OPT_NEED_TEXT(type, field, letter, name, value, help)                                                          \
    { OPTION_TEXT, letter, name, value, true, offsetof(type, field), 0, 0, NULL, help }
#define OPT_INT(type, field, letter, name, value, lo, hi, fallback, help)                                              \
    { OPTION_INT, letter, name, value, false, offsetof(type, field), lo, hi, fallback, help }
#define OPT_FLOAT(type, field, letter, name, value, lo, hi, fallback, help)                                            \
    { OPTION_FLOAT, letter, name, value, false, offsetof(type, field), lo, hi, fallback, help }
#define OPT_SEED(type, field, letter, name, fallback, help)                                                            \
    { OPTION_SEED, letter, name, "N", false, offsetof(type, field), 0, 0, fallback, help }
#define OPT_CHOICE(type, field, letter, name, choices, fallback, help)                                                 \
    { OPTION_CHOICE, letter, name, choices, false, offsetof(type, field), 0, 0, fallback, help }
#define OPT_LIST(type, field, letter, name, value, help)                                                               \
    { OPTION_LIST, letter, name, value, false, offsetof(type, field), 0, 0, NULL, help }

typedef struct command command;
struct command {
    const char *group;   /* heading in `gist --help` */
    const char *name;    /* "compress", "bench machine" */
    const char *summary; /* one line */
    const char *usage;   /* what follows the name, options left out */
    const char *details; /* lines below the options, or NULL */
    const char *example; /* one command line per line */
    const option *options;
    int count;
    int (*run)(const command *self, int argc, char **argv); /* arguments behind the command's name */
};

enum { OPTIONS_GO = -1 };
/* Fill *args (zeroed first) from defaults and argv.  OPTIONS_GO, or the status to exit with: --help was asked for and
 * shown, or something was wrong and said. */
int options_parse(const command *c, void *args, int argc, char **argv);
void options_help(const command *c, FILE *out);
/* "gist: <message>" and where to find help; returns EXIT_WRONG_USAGE. */
int usage_error(const command *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Changes of one character that turn a into b, for "did you mean". */
int edit_distance(const char *a, const char *b);

#endif
