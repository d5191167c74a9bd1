/* engine.c - opening a model: weights, tokenizer, template, kernels, threads, fingerprint; and plain tokenization.
 *
 * The fingerprint says which model a gist belongs to: a hash over the config's fields, the tokenizer's and every weight
 * byte as stored.  All of them are read at load anyway, so it is computed every time (docs/SPEED.md has the cost).
 */
#include "engine/engine_int.h"

dtype type_or(gist_type type, dtype otherwise) {
    for (int t = 0; t < DT_COUNT; t++)
        if (dt_public((dtype)t) == type) return (dtype)t;
    return otherwise;
}

gist_status engine_open_files(const char *path, const gist_allocator *alloc, llama_config *cfg, tokenizer **tok,
                              weights *w, gist_error *err) {
    if (!path_exists(path)) return err_set(err, GIST_ERR_IO, "%s: no such file or directory", path);
    if (gguf_is_file(path)) {
        TRY(weights_open(w, alloc, path, err));
        TRY(llama_config_gguf(cfg, w->gguf, err));
        return vocabulary_open(w->gguf, alloc, tok, err);
    }
    if (!path_is_dir(path))
        return err_set(err, GIST_ERR_UNSUPPORTED,
                       "%s: not a model directory (config.json, *.safetensors, tokenizer files), nor a GGUF file",
                       path);
    TRY(llama_config_read(cfg, alloc, path, err));
    TRY(tok_open(path, alloc, tok, err));
    TRY(weights_open(w, alloc, path, err));
    t5_settle_head(cfg, w);
    return GIST_OK;
}

gist_status engine_fingerprint(const llama_config *cfg, const tokenizer *tok, const weights *w, pool *p,
                               const gist_allocator *alloc, char out[33], gist_error *err) {
    hash128 bytes;
    TRY(weights_hash(w, p, &bytes, err));
    hasher *h = hash_begin(alloc);
    if (!h) return err_memory(err, "fingerprint");
    hash128 t = tok_fingerprint(tok);
    llama_config_hash(cfg, h);
    hash_add(h, t.b, sizeof t.b);
    hash_add(h, bytes.b, sizeof bytes.b);
    hash_hex(hash_end(h), out);
    return GIST_OK;
}

/* <GIST>: the tokenizer's own id when the model has a row for it, else a fresh row behind the last. */
static gist_status find_gist_token(gist_engine *e, const llama_config *cfg, bool warn, gist_error *err) {
    int32_t id = tok_gist(e->tok);
    if (tok_size(e->tok) > cfg->V + (id == cfg->V))
        return err_set(err, GIST_ERR_MISMATCH, "the tokenizer has %d pieces, the model has rows for %d",
                       tok_size(e->tok), cfg->V);
    if (id >= 0 && id < cfg->V) {
        e->gist_token = id;
        return GIST_OK;
    }
    e->gist_token = cfg->V;
    e->gist_added = true;
    if (warn)
        log_msg(
            &e->log, GIST_LOG_WARN,
            "the vocabulary has no <GIST> token: added with the mean embedding. This model was not trained to gist; "
            "what it answers from a gist will be poor");
    return id < 0 ? tok_add_gist(e->tok, cfg->V, err) : GIST_OK;
}

/* T5's sources and answers end with </s>; the paper's words around a source have no "Output:". */
static gist_status check_encoder_text(gist_engine *e, gist_error *err) {
    if (tok_eos(e->tok) < 0)
        return err_set(err, GIST_ERR_UNSUPPORTED, "the tokenizer has no token that ends a text, as a t5 model needs");
    if (strcmp(tok_template_name(e->tp), "paper") == 0) e->tp = tok_template_find("paper-t5");
    return GIST_OK;
}

static gist_status open_adapter(gist_engine *e, const char *dir, gist_error *err) {
    TRY(llama_adapter_open(&e->adapter, dir, &e->model.cfg, e->model.layers[0].wq.type, &e->ctx, e->alloc, err));
    int32_t id = e->adapter.gist_token;
    bool is_free =
        e->gist_added && id < e->gist_token && !tok_piece(e->tok, id, NULL); /* as good as the one given here */
    if (e->adapter.gist_embed && id != e->gist_token && !is_free)
        return err_set(err, GIST_ERR_MISMATCH, "%s: its <GIST> is token %d, this model's is %d", dir, id,
                       e->gist_token);
    llama_adapter_attach(&e->model, &e->adapter);
    return GIST_OK;
}

static gist_status open_parts(gist_engine *e, const char *path, const gist_engine_options *o, gist_error *err) {
    llama_config cfg;
    if (!path_exists(path)) return err_set(err, GIST_ERR_IO, "%s: no such file or directory", path);
    const char *name = o->template_name ? o->template_name : "paper";
    e->tp = tok_template_find(name);
    if (!e->tp) return err_set(err, GIST_ERR_USAGE, "template \"%.40s\" is unknown", name);
    TRY(pool_create(e->alloc, o->threads, &e->pool, err));
    TRY(op_init(&e->ctx, o->kernels, e->pool, err));
    TRY(engine_open_files(path, e->alloc, &cfg, &e->tok, &e->w, err));
    TRY(engine_fingerprint(&cfg, e->tok, &e->w, e->pool, e->alloc, e->fingerprint, err));
    hash_hex(tok_fingerprint(e->tok), e->tok_fingerprint);
    if (cfg.encoder) TRY(check_encoder_text(e, err));
    TRY(find_gist_token(e, &cfg, !o->adapter, err));
    TRY(llama_load(&e->model, &cfg, &e->w, o->weights, e->gist_added, &e->ctx, e->alloc, err));
    return o->adapter ? open_adapter(e, o->adapter, err) : GIST_OK;
}

gist_status gist_engine_open(const char *model, const gist_engine_options *opt, gist_engine **out, gist_error *err) {
    gist_engine_options o = GIST_ENGINE_OPTIONS_INIT;
    if (opt) memcpy(&o, opt, opt->size < sizeof o ? opt->size : sizeof o);
    if (!model || !out) return err_set(err, GIST_ERR_USAGE, "a model and a place for the engine are needed");
    if ((unsigned)o.weights > GIST_TYPE_Q6_K)
        return err_set(err, GIST_ERR_USAGE, "weight type %d is unknown", (int)o.weights);
    if (o.weights == GIST_TYPE_F16 || o.weights > GIST_TYPE_Q4_K)
        return err_set(err, GIST_ERR_USAGE,
                       "weights cannot be converted to %s at load; to f32, bf16, q8_0, q4_0 and q4_K they can",
                       gist_type_name(o.weights));
    const gist_allocator *alloc = o.alloc ? o.alloc : mem_default();
    gist_engine *e = mem_calloc(alloc, 1, sizeof *e);
    if (!e) return err_memory(err, "engine");
    e->alloc = alloc;
    e->model.alloc = alloc;
    e->w.alloc = alloc;
    e->adapter.alloc = alloc;
    e->log = (log_sink){ o.log, o.log_ctx };
    gist_status status = open_parts(e, model, &o, err);
    if (status != GIST_OK) {
        gist_engine_close(e);
        return status;
    }
    *out = e;
    return GIST_OK;
}

gist_status engine_borrow(const llama_model *model, tokenizer *tok, const tok_template *tp, const op_ctx *ctx,
                          const gist_allocator *alloc, gist_engine **out, gist_error *err) {
    int32_t id = tok ? tok_gist(tok) : -1;
    if (tok && (id < 0 || id >= model->vocab || tok_size(tok) > model->vocab))
        return err_set(err, GIST_ERR_MISMATCH, "the tokenizer has %d pieces, <GIST> is %d; the model has rows for %d",
                       tok_size(tok), id, model->vocab);
    gist_engine *e = mem_calloc(alloc, 1, sizeof *e);
    if (!e) return err_memory(err, "engine");
    *e = (gist_engine){ .alloc = alloc,
                        .pool = ctx->pool,
                        .ctx = *ctx,
                        .model = *model,
                        .tok = tok,
                        .tp = tp,
                        .gist_token = id,
                        .borrowed = true };
    if (tok) hash_hex(tok_fingerprint(tok), e->tok_fingerprint);
    *out = e;
    return GIST_OK;
}

void engine_name(gist_engine *e, const char fingerprint[33], int32_t gist_token) {
    memcpy(e->fingerprint, fingerprint, sizeof e->fingerprint);
    if (!e->tok_fingerprint[0]) memcpy(e->tok_fingerprint, fingerprint, sizeof e->tok_fingerprint);
    if (!e->tok) e->gist_token = gist_token;
}

void gist_engine_close(gist_engine *e) {
    if (!e) return;
    if (!e->borrowed) {
        llama_free(&e->model);
        llama_adapter_close(&e->adapter);
        weights_close(&e->w);
        tok_close(e->tok);
        pool_free(e->pool);
    }
    mem_free(e->alloc, e);
}

void gist_engine_get_info(const gist_engine *e, gist_engine_info *out) {
    const llama_config *c = &e->model.cfg;
    *out = (gist_engine_info){ .family = llama_families[c->family].name,
                               .template_name = tok_template_name(e->tp),
                               .fingerprint = e->fingerprint,
                               .tokenizer_fingerprint = e->tok_fingerprint,
                               .tokenizer_kind = tok_kind(e->tok),
                               .kernels = op_level(&e->ctx),
                               .weights = dt_public(e->model.layers[0].wq.type),
                               .threads = pool_size(e->pool),
                               .layers = c->L,
                               .width = c->C,
                               .ffn = c->F,
                               .heads = c->H,
                               .kv_heads = c->G,
                               .head_dim = c->D,
                               .vocab = e->model.vocab,
                               .context = c->context,
                               .bos = tok_bos(e->tok),
                               .eos = tok_eos(e->tok),
                               .gist_token = e->gist_token,
                               .gist_token_added = e->gist_added,
                               .tied_head = c->tied,
                               .parameters = llama_parameters(c),
                               .weight_bytes = e->model.block_bytes,
                               .adapter = e->adapter.hash };
}

const char *gist_template_names(void) {
    return tok_template_names();
}

const llama_model *engine_model(const gist_engine *e) {
    return &e->model;
}

const tokenizer *engine_tokenizer(const gist_engine *e) {
    return e->tok;
}

/* ---- text ---- */

gist_status gist_tokenize(const gist_engine *e, const char *text, size_t len, unsigned flags, int32_t *ids, size_t cap,
                          size_t *n, gist_error *err) {
    tok_ids v;
    tok_ids_init(&v, e->alloc);
    unsigned f = (flags & GIST_TOKENIZE_BOS ? TOK_BOS : 0u) | (flags & GIST_TOKENIZE_SPECIAL ? TOK_SPECIAL : 0u);
    gist_status status = tok_encode(e->tok, text, len, f, &v, err);
    if (status == GIST_OK) {
        *n = v.n;
        if (cap > 0 && v.n > cap)
            status = err_set(err, GIST_ERR_LIMIT, "%zu tokens do not fit a buffer of %zu", v.n, cap);
        else if (cap > 0)
            memcpy(ids, v.id, v.n * sizeof *ids);
    }
    tok_ids_free(&v);
    return status;
}

gist_status gist_detokenize(const gist_engine *e, const int32_t *ids, size_t n, char **text, gist_error *err) {
    sbuf out;
    tok_stream stream;
    sbuf_init(&out, e->alloc);
    tok_stream_init(&stream, e->tok, true);
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= e->model.vocab) {
            sbuf_free(&out);
            return err_set(err, GIST_ERR_USAGE, "token %zu is %d, the vocabulary has %d", i, ids[i], e->model.vocab);
        }
        tok_stream_push(&stream, ids[i], &out);
    }
    tok_stream_end(&stream, &out);
    char *p = sbuf_take(&out);
    if (!p) return err_memory(err, "text");
    *text = p;
    return GIST_OK;
}

void gist_string_free(const gist_engine *e, char *text) {
    mem_free(e->alloc, text);
}
