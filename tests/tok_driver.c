/* tok_driver.c - texts in, ids out, for tools/diff_tokenizers.py; also prints timings.  It is linked like a test
 * program.
 *
 * TOKENIZER is a directory, a file of one, or a GGUF file.
 *
 *   tok_driver TOKENIZER [special] [eos] [decode] < texts
 *                                               each text as "LENGTH\n" and that many bytes; one line of ids per text,
 *                                               or "error: ..."; special: recognise special tokens; eos: end with EOS;
 *                                               decode: the ids' text instead, with "\n" and "\\" escaped
 *   tok_driver TOKENIZER vectors FILE.inp FILE.out      llama.cpp's test vectors; exit 1 when any differs
 *   tok_driver TOKENIZER time FILE              load and encode times
 *   tok_driver TOKENIZER fingerprint            in hexadecimal digits
 *   tok_driver TOKENIZER write DIR              as Hugging Face files, through arrays (tok_parts) when it can be
 */
#include <stdlib.h>

#include "engine/engine.h"

static char *read_all(FILE *f, size_t *len) {
    size_t cap = 1 << 16, n = 0;
    char *p = malloc(cap + 1);
    while (p) {
        n += fread(p + n, 1, cap - n, f);
        if (n < cap) break;
        cap *= 2;
        p = realloc(p, cap + 1);
    }
    if (!p) exit(1);
    p[n] = 0;
    *len = n;
    return p;
}

static char *read_path(const char *path, size_t *len) {
    FILE *f = fopen(path, "rb");
    if (!f) {
        perror(path);
        exit(1);
    }
    char *p = read_all(f, len);
    fclose(f);
    return p;
}

static void print_text(const tokenizer *t, const tok_ids *ids) {
    tok_stream st;
    sbuf out;
    sbuf_init(&out, NULL);
    tok_stream_init(&st, t, true);
    for (size_t i = 0; i < ids->n; i++) tok_stream_push(&st, ids->id[i], &out);
    tok_stream_end(&st, &out);
    for (size_t i = 0; i < out.len; i++) {
        if (out.p[i] == '\n' || out.p[i] == '\\') putchar('\\');
        putchar(out.p[i] == '\n' ? 'n' : out.p[i]);
    }
    putchar('\n');
    sbuf_free(&out);
}

static void print_ids(const tokenizer *t, const char *s, size_t len, unsigned flags, bool decode) {
    tok_ids ids;
    gist_error err = { 0 };
    tok_ids_init(&ids, NULL);
    if (tok_encode(t, s, len, flags, &ids, &err) != GIST_OK) printf("error: %s", err.msg);
    for (size_t i = 0; !decode && i < ids.n; i++) printf(i ? " %d" : "%d", ids.id[i]);
    if (decode)
        print_text(t, &ids);
    else
        putchar('\n');
    tok_ids_free(&ids);
}

static int vectors(const tokenizer *t, const char *inp, const char *out) {
    static const char end[] = "\n__ggml_vocab_test__\n";
    size_t len, out_len, bad = 0, n = 0;
    char *s = read_path(inp, &len), *o = read_path(out, &out_len);
    for (char *next; (next = strstr(s, end)) != NULL; s = next + sizeof end - 1, n++) {
        tok_ids ids;
        gist_error err = { 0 };
        tok_ids_init(&ids, NULL);
        if (tok_encode(t, s, (size_t)(next - s), 0, &ids, &err) != GIST_OK) fprintf(stderr, "%s\n", err.msg);
        char *line_end = strchr(o, '\n');
        bool same = true;
        for (size_t i = 0; i < ids.n; i++) {
            char *after;
            same = same && o < line_end && strtol(o, &after, 10) == ids.id[i] && after <= line_end;
            o = same ? after : o;
        }
        while (same && o < line_end) same = *o++ == ' ';
        if (!same) fprintf(stderr, "case %zu differs: \"%.*s\"\n", n, (int)(next - s), s);
        bad += !same;
        o = line_end + 1;
        tok_ids_free(&ids);
    }
    printf("%zu of %zu equal\n", n - bad, n);
    return bad || !n;
}

static void timing(const tokenizer *t, double load, const char *path) {
    size_t len;
    char *s = read_path(path, &len);
    tok_ids ids;
    gist_error err = { 0 };
    tok_ids_init(&ids, NULL);
    double begin = time_now();
    if (tok_encode(t, s, len, 0, &ids, &err) != GIST_OK) fprintf(stderr, "%s\n", err.msg);
    double s1 = time_now() - begin;
    printf("load %.1f ms, encode %.1f MB/s (%zu bytes, %zu ids)\n", load * 1e3, (double)len / s1 / 1e6, len, ids.n);
    tok_ids_free(&ids);
    free(s);
}

static gist_status open_any(const char *path, tokenizer **t, gist_error *err) {
    if (!gguf_is_file(path)) return tok_open(path, NULL, t, err);
    gguf_file g;
    TRY(gguf_open(&g, NULL, path, err));
    gist_status st = vocabulary_open(&g, NULL, t, err);
    gguf_close(&g);
    return st;
}

static int write_dir(const tokenizer *t, const char *dir) {
    tok_parts p = tok_parts_none();
    tokenizer *back = NULL;
    gist_error err = { 0 };
    gist_status st = tok_parts_of(t, 0, &p, &err);
    if (st == GIST_OK) st = tok_open_parts(&p, NULL, &back, &err);
    if (st == GIST_ERR_UNSUPPORTED) {
        printf("not through arrays: %s\n", err.msg);
        err = (gist_error){ 0 };
        st = GIST_OK;
    }
    if (st == GIST_OK) st = tok_write_dir(back ? back : t, dir, &err);
    if (st != GIST_OK) fprintf(stderr, "%s\n", err.msg);
    tok_parts_free(&p);
    tok_close(back);
    return st != GIST_OK;
}

int main(int argc, char **argv) {
    tokenizer *t;
    gist_error err = { 0 };
    double begin = time_now();
    if (argc < 2 || open_any(argv[1], &t, &err) != GIST_OK) {
        fprintf(stderr, "%s\n",
                argc < 2
                    ? "tok_driver TOKENIZER [special] [eos] [decode] | [vectors INP OUT | time FILE | fingerprint | "
                      "write DIR]"
                    : err.msg);
        return argc < 2 ? 2 : 1;
    }
    double load = time_now() - begin;
    int rc = 0;
    if (argc == 5 && strcmp(argv[2], "vectors") == 0) {
        rc = vectors(t, argv[3], argv[4]);
    } else if (argc == 4 && strcmp(argv[2], "time") == 0) {
        timing(t, load, argv[3]);
    } else if (argc == 3 && strcmp(argv[2], "fingerprint") == 0) {
        char hex[33];
        hash_hex(tok_fingerprint(t), hex);
        puts(hex);
    } else if (argc == 4 && strcmp(argv[2], "write") == 0) {
        rc = write_dir(t, argv[3]);
    } else {
        size_t len;
        char *all = read_all(stdin, &len);
        unsigned flags = 0;
        bool decode = false;
        for (int i = 2; i < argc; i++) {
            if (strcmp(argv[i], "special") == 0) flags |= TOK_SPECIAL;
            if (strcmp(argv[i], "eos") == 0) flags |= TOK_EOS;
            if (strcmp(argv[i], "decode") == 0) decode = true;
        }
        for (char *s = all; s < all + len;) {
            size_t n = strtoull(s, &s, 10);
            print_ids(t, ++s, n, flags, decode);
            s += n;
        }
        free(all);
    }
    tok_close(t);
    return rc;
}
