/* main.c - the table of commands, and finding the one that was asked for.
 *
 *   gist COMMAND ...      gist help COMMAND      gist --help      gist --version
 *
 * A command's name may have two words ("bench model").
 */
#include <signal.h>

#include "cli.h"

static const command *const commands[] = {
    &cmd_compress, &cmd_generate, &cmd_chat, &cmd_show, &cmd_tokenize, &cmd_logits, &cmd_bench_machine,
    &cmd_bench_model, &cmd_bench_batch, &cmd_bench_gist, &cmd_bench_train, &cmd_score, &cmd_eval, &cmd_train, &cmd_tune,
    &cmd_convert,
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static void help(FILE *out) {
    fprintf(out,
            "gist %s - compress prompts into gist tokens, and answer from those alone\n\n"
            "usage: gist COMMAND [options]\n",
            gist_version());
    for (int i = 0; i < COMMANDS; i++) {
        const command *c = commands[i];
        if (i == 0 || strcmp(c->group, commands[i - 1]->group) != 0) fprintf(out, "\n%s\n", c->group);
        fprintf(out, "  %-14s %s\n", c->name, c->summary);
    }
    fputs("\n'gist help COMMAND' shows a command's options with their defaults, and an example.\n"
          "MODEL is a Hugging Face directory (config.json, *.safetensors or pytorch_model*.bin, tokenizer files) or a\n"
          ".gguf file.\n"
          "Results go to standard output, messages to standard error.  Exit: 0 done, 1 failed, 2 wrong usage.\n\n"
          "Example\n"
          "  gist compress -m MODEL -f system_prompt.txt -k 4 -o shop.gist\n"
          "  gist generate -m MODEL -g shop.gist -i \"When do you open on Sunday?\"\n",
          out);
}

/* The command whose name argv[0], or argv[0] and argv[1], spell; *words: how many were used. */
static const command *find(int argc, char **argv, int *words) {
    for (int i = 0; i < COMMANDS; i++) {
        const char *name = commands[i]->name, *space = strchr(name, ' ');
        size_t first = space ? (size_t)(space - name) : strlen(name);
        if (argc < 1 || strlen(argv[0]) != first || memcmp(argv[0], name, first) != 0) continue;
        if (space && (argc < 2 || strcmp(argv[1], space + 1) != 0)) continue;
        *words = space ? 2 : 1;
        return commands[i];
    }
    return NULL;
}

/* Is word the first of a command's two? */
static bool is_family(const char *word) {
    size_t len = strlen(word);
    for (int i = 0; i < COMMANDS; i++)
        if (len && strncmp(commands[i]->name, word, len) == 0 && commands[i]->name[len] == ' ') return true;
    return false;
}

static void list_family(const char *word, FILE *out) {
    size_t len = strlen(word);
    for (int i = 0; i < COMMANDS; i++)
        if (strncmp(commands[i]->name, word, len) == 0)
            fprintf(out, "  gist %-14s %s\n", commands[i]->name, commands[i]->summary);
}

static int unknown(int argc, char **argv) {
    if (is_family(argv[0])) {
        if (argc > 1)
            fprintf(stderr, "gist: there is no '%s %s'; there are\n", argv[0], argv[1]);
        else
            fprintf(stderr, "gist: %s what?\n", argv[0]);
        list_family(argv[0], stderr);
        return EXIT_WRONG_USAGE;
    }
    const command *best = NULL;
    int nearest = 3;
    for (int i = 0; i < COMMANDS; i++) {
        int d = edit_distance(argv[0], commands[i]->name);
        if (d < nearest) {
            nearest = d;
            best = commands[i];
        }
    }
    fprintf(stderr, "gist: unknown %s \"%s\"", argv[0][0] == '-' ? "option" : "command", argv[0]);
    if (best) fprintf(stderr, "; did you mean %s?", best->name);
    fputs("\ngist: 'gist --help' lists the commands\n", stderr);
    return EXIT_WRONG_USAGE;
}

static bool is_help(const char *word) {
    return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0;
}

static int dispatch(int argc, char **argv) {
    int words = 0;
    const command *c = find(argc, argv, &words);
    if (c) return c->run(c, argc - words, argv + words);
    if (is_help(argv[0])) {
        if (argc == 1) {
            help(stdout);
        } else if ((c = find(argc - 1, argv + 1, &words))) {
            options_help(c, stdout);
        } else if (argc == 2 && is_family(argv[1])) {
            list_family(argv[1], stdout);
        } else {
            return unknown(argc - 1, argv + 1);
        }
        return EXIT_DONE;
    }
    if (argc == 2 && is_family(argv[0]) && is_help(argv[1])) {
        list_family(argv[0], stdout);
        return EXIT_DONE;
    }
    if (strcmp(argv[0], "--version") == 0 || strcmp(argv[0], "version") == 0) {
        printf("gist %s\n", gist_version());
        return EXIT_DONE;
    }
    return unknown(argc, argv);
}

int main(int argc, char **argv) {
    signal(SIGPIPE, SIG_DFL); /* a reader that has seen enough ends us, silently, whoever started us */
#ifdef SIGXFSZ
    signal(SIGXFSZ, SIG_IGN); /* a file-size limit is a write error like a full disk */
#endif
    if (argc < 2) {
        help(stderr);
        return EXIT_WRONG_USAGE;
    }
    int status = dispatch(argc - 1, argv + 1);
    int output = finish_output();
    return status == EXIT_DONE ? output : status;
}
