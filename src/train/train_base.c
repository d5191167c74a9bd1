/* train_base.c - where a run begins: a checkpoint's config, tokenizer and weights, or a config and a tokenizer alone.
 *
 *   <GIST> in the vocabulary          used as it is
 *   lacking, tables as long           a row is appended, the mean of the others     (docs/TRAINING.md, "<GIST>")
 *   lacking, tables longer            takes the first row that no token uses, set to the mean of the rows in use:
 *                                     tokenizers number their tokens without gaps
 */
#include "train/train.h"

static gist_status agree_on_gist(train_base *b, gist_error *err) {
    int32_t id = tok_gist(b->tok);
    int size = tok_size(b->tok), V = b->cfg.V;
    if (id >= 0 && id < V) {
        b->gist_token = id;
        return GIST_OK;
    }
    bool named = id == V && size == V + 1; /* the tokenizer knows it, the model has no row yet */
    if (id >= 0 ? !named : size > V)
        return err_set(err, GIST_ERR_MISMATCH, "the tokenizer has %d pieces, the model has rows for %d", size, V);
    b->gist_added = !named;
    b->gist_token = named ? id : size;
    b->gist_row = b->gist_token == V;
    return named ? GIST_OK : tok_add_gist(b->tok, b->gist_token, err);
}

static gist_status fingerprint(train_base *b, pool *p, gist_error *err) {
    hash128 bytes = { { 0 } };
    if (!b->scratch) TRY(weights_hash(&b->w, p, &bytes, err));
    hasher *h = hash_begin(b->alloc);
    if (!h) return err_memory(err, "fingerprint");
    llama_config_hash(&b->cfg, h);
    hash_add(h, bytes.b, sizeof bytes.b);
    hash_hex(hash_end(h), b->model);
    hash_hex(tok_fingerprint(b->tok), b->tokenizer);
    return GIST_OK;
}

gist_status train_base_check(const char *init, gist_error *err) {
    if (!gguf_is_file(init)) return GIST_OK;
    return err_set(err, GIST_ERR_UNSUPPORTED,
                   "%s: training begins from a Hugging Face directory; gist convert makes one of a GGUF file", init);
}

static gist_status open_all(train_base *b, const char *init, const char *config, const char *tok, pool *p,
                            gist_error *err) {
    if (init) TRY(train_base_check(init, err));
    char *path = init ? path_join(b->alloc, init, "config.json") : mem_strndup(b->alloc, config, strlen(config));
    gist_status status = path ? json_read_file(path, &b->config, err) : err_memory(err, "path");
    if (status == GIST_OK) status = llama_config_parse(&b->cfg, b->config, path, err);
    mem_free(b->alloc, path);
    TRY(status);
    const char *from = tok ? tok : init;
    b->tokenizer_path = mem_strndup(b->alloc, from, strlen(from));
    if (!b->tokenizer_path) return err_memory(err, "path");
    TRY(tok_open(from, b->alloc, &b->tok, err));
    if (init) TRY(weights_open(&b->w, b->alloc, init, err));
    TRY(fingerprint(b, p, err)); /* of what is stored: before <GIST> is added */
    return agree_on_gist(b, err);
}

gist_status train_base_open(train_base *b, const char *init, const char *config, const char *tok, pool *p,
                            const gist_allocator *alloc, gist_error *err) {
    if (!init && (!config || !tok))
        return err_set(err, GIST_ERR_USAGE, "a run begins with a model, or with a config and a tokenizer");
    train_base made = { .alloc = alloc, .scratch = !init, .w = { .alloc = alloc } };
    gist_status status = open_all(&made, init, config, tok, p, err);
    if (status == GIST_OK)
        *b = made;
    else
        train_base_close(&made);
    return status;
}

void train_base_close(train_base *b) {
    tok_close(b->tok);
    json_decref(b->config);
    weights_close(&b->w);
    mem_free(b->alloc, b->tokenizer_path);
    *b = (train_base){ .alloc = b->alloc, .w = { .alloc = b->alloc } };
}

static float *values_of(train_model *tm, const char *name, int64_t *cols) {
    for (int i = 0; i < train_model_tensors(tm); i++) {
        const train_tensor *t = train_model_tensor(tm, i);
        if (strcmp(t->name, name) != 0) continue;
        *cols = t->shape[1];
        return train_model_w(tm) + t->at;
    }
    return NULL;
}

/* Row `row` of tensor `to` := mean of the first n rows of `table`. */
static void set_mean_row(train_model *tm, const char *to, int64_t row, const char *table, int32_t n) {
    int64_t cols = 0;
    float *out = values_of(tm, to, &cols);
    const float *x = values_of(tm, table, &cols);
    for (int64_t c = 0; out && x && c < cols; c++) {
        double sum = 0;
        for (int64_t r = 0; r < n; r++) sum += (double)x[r * cols + c];
        out[row * cols + c] = (float)(sum / n);
    }
}

gist_status train_base_model(train_base *b, train_model **out, uint64_t seed, const train_model_options *opt,
                             op_ctx *ctx, gist_error *err) {
    TRY(train_model_create(out, &b->cfg, b->scratch ? NULL : &b->w, b->gist_row, seed, opt, ctx, b->alloc, err));
    if (b->gist_added && !b->gist_row && !b->scratch) {
        int rows;
        const char *embed = llama_table(&b->cfg, &rows)->hf, *head = llama_table(&b->cfg, &rows)[rows - 1].hf;
        if (train_model_frozen(*out)) { /* the base stays as it is */
            set_mean_row(*out, llama_lora_embed(&b->cfg), 0, embed, b->gist_token);
            return GIST_OK;
        }
        set_mean_row(*out, embed, b->gist_token, embed, b->gist_token);
        if (!b->cfg.encoder) set_mean_row(*out, head, b->gist_token, head, b->gist_token); /* T5's never says it */
        train_model_repack(*out);
    }
    return GIST_OK;
}

train_origin train_base_origin(const train_base *b, const tok_template *tp, dtype type) {
    int32_t bos = tok_bos(b->tok), eos = tok_eos(b->tok);
    return (train_origin){ .config = b->config,
                           .tokenizer = b->tokenizer_path,
                           .bos_piece = bos >= 0 ? tok_piece(b->tok, bos, NULL) : NULL,
                           .eos_piece = eos >= 0 ? tok_piece(b->tok, eos, NULL) : NULL,
                           .sentencepiece = strcmp(tok_kind(b->tok), "sentencepiece-bpe") == 0,
                           .gist_added = b->gist_added ? b->gist_token : -1,
                           .bos = bos,
                           .eos = eos,
                           .end = tok_template_end(b->tok, tp),
                           .type = type };
}
