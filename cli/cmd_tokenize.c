/* cmd_tokenize.c - gist tokenize: text into token ids and back, exactly as the models get them. */
#include "cli.h"

typedef struct tokenize_args {
    const char *path, *words, *file;
    bool special, bos, pieces, decode, json;
} tokenize_args;

static const option table[] = {
    OPT_HEADING("Text"),
    OPT_NEED_TEXT(tokenize_args, path, 'm', "model", "MODEL",
                  "a Hugging Face directory, a .gguf file, or a tokenizer file: tokenizer.model, tokenizer.json"),
    OPT_TEXT(tokenize_args, words, 0, NULL, "TEXT", NULL,
             "the text; without it and -f, standard input, to the last byte"),
    OPT_TEXT(tokenize_args, file, 'f', "file", "FILE", NULL, "the text from a file (- standard input)"),
    OPT_FLAG(tokenize_args, special, 's', "special", "recognise special tokens written in the text, <GIST> included"),
    OPT_FLAG(tokenize_args, bos, 'b', "bos", "begin with the model's BOS, if it has one"),
    OPT_FLAG(tokenize_args, decode, 'd', "decode", "the text is ids; print what they say"),
    OPT_HEADING("Output"),
    OPT_FLAG(tokenize_args, pieces, 0, "pieces", "each id with its piece"),
    OPT_JSON(tokenize_args, json),
};

static gist_status decode(const tokenize_args *a, const tokenizer *t, const text *in, gist_error *err) {
    tok_ids ids;
    sbuf out;
    tok_stream stream;
    tok_ids_init(&ids, NULL);
    sbuf_init(&out, NULL);
    gist_status status = parse_ids(in->p, in->len, tok_size(t), &ids, err);
    tok_stream_init(&stream, t, true);
    for (size_t i = 0; status == GIST_OK && i < ids.n; i++) tok_stream_push(&stream, ids.id[i], &out);
    tok_stream_end(&stream, &out);
    if (out.failed) status = err_memory(err, "text");
    if (status == GIST_OK && a->json)
        status = json_print(json_pack("{s:o}", "text", json_text_of(out.p ? out.p : "", out.len)), err);
    else if (status == GIST_OK && out.len)
        fwrite(out.p, 1, out.len, stdout);
    sbuf_free(&out);
    tok_ids_free(&ids);
    return status;
}

static gist_status print_json(const tokenize_args *a, const tokenizer *t, const tok_ids *ids, gist_error *err) {
    json_t *root = json_pack("{s:i, s:o}", "count", (int)ids->n, "ids", json_ids_of(ids->id, ids->n));
    int bad = !root;
    if (a->pieces && !bad) {
        json_t *list = json_array();
        for (size_t i = 0; i < ids->n && !bad; i++) bad = json_array_append_new(list, json_piece_of(t, ids->id[i]));
        bad = json_object_set_new(root, "pieces", list) || bad;
    }
    if (bad) {
        json_decref(root);
        root = NULL;
    }
    return json_print(root, err);
}

static gist_status encode(const tokenize_args *a, const tokenizer *t, const text *in, gist_error *err) {
    tok_ids ids;
    tok_ids_init(&ids, NULL);
    gist_status status =
        tok_encode(t, in->p, in->len, (a->bos ? TOK_BOS : 0u) | (a->special ? TOK_SPECIAL : 0u), &ids, err);
    if (status == GIST_OK && a->json) {
        status = print_json(a, t, &ids, err);
    } else if (status == GIST_OK) {
        for (size_t i = 0; i < ids.n; i++) {
            printf("%d", ids.id[i]);
            if (a->pieces) putchar('\t');
            if (a->pieces) print_piece(t, ids.id[i], stdout);
            putchar('\n');
        }
    }
    tok_ids_free(&ids);
    return status;
}

static gist_status open_gguf(const char *path, tokenizer **t, gist_error *err) {
    gguf_file g;
    llama_config c = { 0 };
    gist_error none = { 0 }; /* a vocabulary without a model is fine */
    TRY(gguf_open(&g, mem_default(), path, err));
    gist_status status = vocabulary_open(&g, mem_default(), t, err);
    bool model = llama_config_gguf(&c, &g, &none) == GIST_OK;
    if (status == GIST_OK && model && tok_gist(*t) < 0 && tok_size(*t) <= c.V) status = tok_add_gist(*t, c.V, err);
    gguf_close(&g);
    return status;
}

/* A model's tokenizer gets <GIST> behind the model's rows when it has none, as it does in an engine. */
static gist_status open_tokenizer(const char *path, tokenizer **t, gist_error *err) {
    if (gguf_is_file(path)) return open_gguf(path, t, err);
    TRY(tok_open(path, mem_default(), t, err));
    if (tok_gist(*t) >= 0 || !path_is_dir(path)) return GIST_OK;
    llama_config c;
    gist_error none = { 0 }; /* a directory without a model is fine */
    if (llama_config_read(&c, mem_default(), path, &none) != GIST_OK || tok_size(*t) > c.V) return GIST_OK;
    return tok_add_gist(*t, c.V, err);
}

static int run(const command *self, int argc, char **argv) {
    tokenize_args a = { 0 };
    int done = options_parse(self, &a, argc, argv);
    if (done != OPTIONS_GO) return done;
    if (a.words && a.file) return usage_error(self, "tokenize: give TEXT or -f, not both");
    if (a.decode && (a.special || a.bos || a.pieces))
        return usage_error(self, "tokenize: --decode takes ids and prints text");
    gist_error err = { 0 };
    tokenizer *t = NULL;
    text in = { 0 };
    gist_status status = open_tokenizer(a.path, &t, &err);
    if (status == GIST_OK) status = text_read(&in, a.words, a.file ? a.file : "-", false, &err);
    if (status == GIST_OK) status = a.decode ? decode(&a, t, &in, &err) : encode(&a, t, &in, &err);
    text_free(&in);
    tok_close(t);
    return status == GIST_OK ? EXIT_DONE : fail(&err);
}

const command cmd_tokenize = {
    .group = "Look inside",
    .name = "tokenize",
    .summary = "text into token ids, one per line; --decode: back",
    .usage = "-m MODEL|TOKENIZER [TEXT | -f FILE]",
    .details = NULL,
    .example = "gist tokenize -m models/shop --pieces \"When do you open?\"\n"
               "gist tokenize -m models/shop \"Guten Tag\" | gist tokenize -m models/shop --decode",
    .options = table,
    .count = sizeof table / sizeof *table,
    .run = run,
};
