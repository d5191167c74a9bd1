/* tok_open.c - opening and closing a tokenizer, what one may ask it, its fingerprint.
 *
 *   directory:  tokenizer.json (byte-level BPE) > tokenizer.model > tokenizer.json (SentencePiece as JSON)
 *               > vocab.json + merges.txt;  then the side files (tok_side.c)
 *   file:       one of these, and the side files in its directory
 *
 * Which of its two kinds a tokenizer.model is, its first line tells: base64 and a rank, or no text at all.
 */
#include "token/token_int.h"

/* ---- life ---- */

gist_status tok_create(const gist_allocator *alloc, tokenizer **out, gist_error *err) {
    if (!alloc) alloc = mem_default();
    tokenizer *t = mem_calloc(alloc, 1, sizeof *t);
    if (!t) return err_memory(err, "tokenizer");
    t->alloc = t->v.alloc = alloc;
    t->unk = t->bos = t->eos = t->pad = t->gist = -1;
    memset(t->byte_id, 0xFF, sizeof t->byte_id); /* -1 */
    *out = t;
    return GIST_OK;
}

void tok_close(tokenizer *t) {
    if (!t) return;
    const gist_allocator *alloc = t->alloc;
    split_free(t);
    vocab_free(&t->v);
    mem_free(alloc, t->added.a);
    mem_free(alloc, t->raw.a);
    mem_free(alloc, t->norm.a);
    mem_free(alloc, t->user.a);
    mem_free(alloc, t->merges.slot);
    charsmap_free(&t->map, alloc);
    unigram_free(&t->uni, alloc);
    mem_free(alloc, t->chat);
    mem_free(alloc, t);
}

void tok_add_end(tokenizer *t, int32_t id) {
    for (int i = 0; i < t->ends; i++)
        if (t->end[i] == id) return;
    if (t->ends < (int)(sizeof t->end / sizeof *t->end)) t->end[t->ends++] = id;
}

gist_status tok_keep_chat(tokenizer *t, const char *text, size_t len, gist_error *err) {
    size_t bad = 0;
    if (len > TOK_MAX_CHAT)
        return err_set(err, GIST_ERR_LIMIT, "chat template: %zu bytes, at most %zu are allowed", len, TOK_MAX_CHAT);
    if (len && (memchr(text, 0, len) || !utf8_valid(text, len, &bad)))
        return err_set(err, GIST_ERR_FORMAT, "chat template: no text (byte %zu is not UTF-8, or there is a NUL)", bad);
    char *copy = mem_strndup(t->alloc, text, len);
    if (!copy) return err_memory(err, "chat template");
    mem_free(t->alloc, t->chat);
    t->chat = copy;
    return GIST_OK;
}

bool tok_is_normalised(const tokenizer *t, const added_token *a) {
    bool prepends = t->model == TOK_SENTENCEPIECE && t->by_pair && t->prefix == PREFIX_ALWAYS;
    return a->normalized && !a->special && (t->form != FORM_NONE || prepends);
}

/* A token that is found in SentencePiece's normalised text: as that has it, with a space in front. */
static gist_status add_spaced(tokenizer *t, added_token a, gist_error *err) {
    sbuf s;
    if (a.lstrip || a.rstrip || a.single_word)
        return err_set(err, GIST_ERR_UNSUPPORTED,
                       "added token %d, \"%.64s\", is normalized, and strips white space or wants to stand alone", a.id,
                       t->v.text + a.off);
    sbuf_init(&s, t->alloc);
    sbuf_str(&s, TOK_SPACE);
    for (uint32_t i = 0; i < a.len; i++) {
        char c = t->v.text[a.off + i];
        bool space = c == ' ' && t->escape_spaces;
        sbuf_add(&s, space ? TOK_SPACE : &c, space ? 3 : 1);
    }
    gist_status st = s.failed ? err_memory(err, "added token") : vocab_keep(&t->v, s.p, s.len, &a.off, err);
    a.len = (uint32_t)s.len;
    sbuf_free(&s);
    return st == GIST_OK ? matcher_add(&t->user, t->alloc, &a, err) : st;
}

/* Added tokens to the matchers.  <GIST> strips the white space beside it, whatever its file says. */
static gist_status share_out(tokenizer *t, gist_error *err) {
    for (size_t i = 0; i < t->added.n; i++) {
        added_token a = t->added.a[i];
        if (!tok_is_normalised(t, &a))
            TRY(matcher_add(&t->raw, t->alloc, &a, err));
        else if (t->model == TOK_SENTENCEPIECE)
            TRY(add_spaced(t, a, err));
        else
            TRY(matcher_add(&t->norm, t->alloc, &a, err));
    }
    matcher_sort(&t->raw, &t->v);
    matcher_sort(&t->norm, &t->v);
    matcher_sort(&t->user, &t->v);
    return GIST_OK;
}

/* ---- fingerprint ---- */

/* A piece as far as it decides ids.  That of an added token is its text, however its file came by it. */
static void hash_piece(hasher *h, const tokenizer *t, const piece *p) {
    const added_token *a = p->added ? &t->added.a[p->added - 1] : NULL;
    uint32_t order = 0;
    if (a) {
        order = (uint32_t)(a->special | a->lstrip << 1 | a->rstrip << 2 | a->single_word << 3 |
                           tok_is_normalised(t, a) << 4);
    } else if (t->is_unigram && p->type == PIECE_NORMAL) {
        memcpy(&order, &p->score, sizeof order);
    } else if (!t->by_pair) {
        order = (uint32_t)p->rank;
    }
    hash_add(h, t->v.text + p->off, p->len);
    hash_u64(h, (uint64_t)(a ? PIECE_ADDED : p->type) << 32 | order);
}

static gist_status hash_merges(hasher *h, const tokenizer *t, gist_error *err) {
    merge_slot *list;
    size_t n;
    if (!t->by_pair) return GIST_OK;
    TRY(merges_list(t, &list, &n, err));
    hash_u64(h, n);
    for (size_t i = 0; i < n; i++) {
        hash_u64(h, (uint64_t)(uint32_t)list[i].left << 32 | (uint32_t)list[i].right);
        hash_u64(h, (uint32_t)list[i].id);
    }
    mem_free(t->alloc, list);
    return GIST_OK;
}

bool tok_uses_unk(const tokenizer *t) {
    bool missing = false;
    for (int b = 0; b < 256; b++) missing |= t->byte_id[b] < 0;
    return missing && t->unk >= 0;
}

static void hash_flags(hasher *h, const tokenizer *t) {
    bool unk = tok_uses_unk(t);
    const uint64_t flags[] = { t->model,
                               t->by_pair,
                               t->is_unigram,
                               t->byte_fallback,
                               t->ignore_merges,
                               unk ? 1 + (uint64_t)t->unk : 0,
                               unk && t->fuse_unk,
                               t->prefix,
                               t->cut == CUT_SPACES, /* the others differ in time only */
                               t->remove_extra_spaces,
                               t->escape_spaces,
                               t->space_is_suffix,
                               t->form,
                               t->adds_bos ? 1 + (uint64_t)t->bos : 0,
                               t->adds_eos ? 1 + (uint64_t)t->eos : 0,
                               (uint64_t)t->stages };
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) hash_u64(h, flags[i]);
    for (int i = 0; i < t->stages; i++) {
        const split_stage *g = &t->stage[i];
        hash_add(h, g->pattern, g->pattern_len);
        hash_u64(h, (uint64_t)(g->keep_match | g->keep_gap << 1 | g->literal << 2));
    }
    hash_add(h, t->map.unit, t->map.units * sizeof *t->map.unit);
    hash_add(h, t->map.text, t->map.text_len);
}

static gist_status fingerprint(tokenizer *t, gist_error *err) {
    hasher *h = hash_begin(t->alloc);
    if (!h) return err_memory(err, "tokenizer fingerprint");
    for (size_t i = 0; i < t->v.n; i++) hash_piece(h, t, &t->v.piece[i]);
    gist_status st = hash_merges(h, t, err);
    if (st == GIST_OK) {
        hash_flags(h, t);
        t->fingerprint = hash_end(h);
    } else {
        hash_abort(h);
    }
    return st;
}

gist_status tok_finish(tokenizer *t, gist_error *err) {
    static const added_token flags = { .special = true, .lstrip = true, .rstrip = true };
    if (t->bos < 0) t->adds_bos = false;
    if (t->eos < 0) t->adds_eos = false;
    if (t->eos >= 0) tok_add_end(t, t->eos);
    TRY(tok_add(t, TOK_GIST_TEXT, strlen(TOK_GIST_TEXT), -1, &flags, "tokenizer", err));
    t->gist = vocab_find(&t->v, TOK_GIST_TEXT, strlen(TOK_GIST_TEXT));
    TRY(share_out(t, err));
    return fingerprint(t, err);
}

/* ---- opening ---- */

static gist_status load_model(tokenizer *t, const void *bytes, size_t len, gist_error *err) {
    return tiktoken_is(bytes, len) ? tiktoken_load(t, bytes, len, err) : sp_load(t, bytes, len, err);
}

static bool is_json(const void *bytes, size_t len) {
    return len > 0 && *(const char *)bytes == '{';
}

static gist_status load_class(tokenizer *t, const json_t *vocab, const char *merges, size_t len, const char *cls,
                              bool prefix_space, gist_error *err) {
    static const char *const like_gpt2[] = { "GPT2Tokenizer", "GPT2TokenizerFast", "PreTrainedTokenizerFast" };
    bool qwen2 = strncmp(cls, "Qwen2Tokenizer", 14) == 0, gpt2 = false;
    for (size_t i = 0; i < sizeof like_gpt2 / sizeof *like_gpt2; i++) gpt2 |= strcmp(cls, like_gpt2[i]) == 0;
    if (!qwen2 && !gpt2)
        return err_set(err, GIST_ERR_UNSUPPORTED,
                       "tokenizer_config.json: tokenizer_class \"%.64s\" with vocab.json: the "
                       "split patterns of GPT2Tokenizer and Qwen2Tokenizer are known",
                       cls);
    return gpt2_load(t, vocab, merges, len, qwen2, prefix_space, err);
}

gist_status tok_parse(const void *bytes, size_t len, const gist_allocator *alloc, tokenizer **out, gist_error *err) {
    tokenizer *t;
    json_t *root = NULL;
    TRY(tok_create(alloc, &t, err));
    gist_status st = is_json(bytes, len) ? json_bytes(bytes, len, "tokenizer.json", &root, err) : GIST_OK;
    if (st == GIST_OK) st = root ? hf_load(t, root, err) : load_model(t, bytes, len, err);
    if (st == GIST_OK) st = tok_finish(t, err);
    json_decref(root);
    if (st == GIST_OK)
        *out = t;
    else
        tok_close(t);
    return st;
}

gist_status tok_parse_gpt2(const void *vocab, size_t vocab_len, const char *merges, size_t merges_len, const char *cls,
                           const gist_allocator *alloc, tokenizer **out, gist_error *err) {
    tokenizer *t;
    json_t *root = NULL;
    TRY(tok_create(alloc, &t, err));
    gist_status st = json_bytes(vocab, vocab_len, "vocab.json", &root, err);
    if (st == GIST_OK) st = load_class(t, root, merges, merges_len, cls ? cls : "GPT2Tokenizer", false, err);
    if (st == GIST_OK) st = tok_finish(t, err);
    json_decref(root);
    if (st == GIST_OK)
        *out = t;
    else
        tok_close(t);
    return st;
}

typedef struct found { /* the files of a directory; NULL: not there */
    char *json, *model, *vocab, *merges;
} found;

static gist_status look(const gist_allocator *alloc, const char *dir, const char *name, char **out, gist_error *err) {
    char *path = path_join(alloc, dir, name);
    if (!path) return err_memory(err, name);
    if (path_exists(path))
        *out = path;
    else
        mem_free(alloc, path);
    return GIST_OK;
}

static gist_status look_around(const gist_allocator *alloc, const char *dir, found *f, gist_error *err) {
    TRY(look(alloc, dir, "tokenizer.json", &f->json, err));
    TRY(look(alloc, dir, "tokenizer.model", &f->model, err));
    if (!f->model) TRY(look(alloc, dir, "spiece.model", &f->model, err));
    TRY(look(alloc, dir, "vocab.json", &f->vocab, err));
    return look(alloc, dir, "merges.txt", &f->merges, err);
}

static gist_status load_model_file(tokenizer *t, const char *path, gist_error *err) {
    file_map m;
    TRY(map_open(path, &m, err));
    gist_status st = m.size > TOK_MAX_FILE ? err_set(err, GIST_ERR_LIMIT, "%s: %zu bytes, at most %zu are allowed",
                                                     path, m.size, TOK_MAX_FILE)
                                           : load_model(t, m.data, m.size, err);
    map_close(&m);
    return st;
}

static gist_status load_pair(tokenizer *t, const json_t *vocab, const char *merges, const side_files *side,
                             gist_error *err) {
    const char *cls = json_text(side->tokenizer_config, "tokenizer_class", NULL);
    if (!cls)
        cls = strncmp(json_text(side->config, "model_type", ""), "qwen2", 5) == 0 ? "Qwen2Tokenizer" : "GPT2Tokenizer";
    file_map m;
    TRY(map_open(merges, &m, err));
    gist_status st = load_class(t, vocab, (const char *)m.data, m.size, cls,
                                json_flag(side->tokenizer_config, "add_prefix_space", false), err);
    map_close(&m);
    return st;
}

static gist_status load_vocab_file(tokenizer *t, const char *vocab, const char *merges, const side_files *side,
                                   gist_error *err) {
    json_t *root = NULL;
    TRY(json_file(vocab, "vocab.json", &root, err));
    gist_status st = load_pair(t, root, merges, side, err);
    json_decref(root);
    return st;
}

static gist_status load_dir(tokenizer *t, const char *dir, const found *f, const side_files *side, gist_error *err) {
    json_t *root = NULL;
    bool byte_level = false, bpe = false;
    if (f->json) {
        TRY(json_file(f->json, "tokenizer.json", &root, err));
        bpe = hf_is_bpe(root, &byte_level);
    }
    gist_status st;
    if (root && ((bpe && (byte_level || !f->model)) || (!f->model && !(f->vocab && f->merges))))
        st = hf_load(t, root, err);
    else if (f->model)
        st = load_model_file(t, f->model, err);
    else if (f->vocab && f->merges)
        st = load_vocab_file(t, f->vocab, f->merges, side, err);
    else
        st = err_set(err, GIST_ERR_IO, "%s: no tokenizer.json, tokenizer.model, or vocab.json with merges.txt", dir);
    json_decref(root);
    return st;
}

static gist_status load_file(tokenizer *t, const char *path, const found *f, const side_files *side, gist_error *err) {
    file_map m;
    TRY(map_open(path, &m, err));
    bool json = is_json(m.data, m.size);
    map_close(&m);
    const char *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    if (!json && strncmp(name, "merges", 6) == 0 && f->vocab) return load_vocab_file(t, f->vocab, path, side, err);
    if (!json) return load_model_file(t, path, err);
    json_t *root = NULL;
    TRY(json_file(path, name, &root, err));
    gist_status st;
    if (json_is_object(json_object_get(root, "model")))
        st = hf_load(t, root, err);
    else if (f->merges)
        st = load_pair(t, root, f->merges, side, err);
    else
        st = err_set(err, GIST_ERR_FORMAT, "%s: neither a tokenizer.json nor a vocab.json beside a merges.txt", path);
    json_decref(root);
    return st;
}

static gist_status open_all(tokenizer *t, const char *path, const char *dir, gist_error *err) {
    found f = { 0 };
    side_files side = { 0 };
    gist_status st = look_around(t->alloc, dir, &f, err);
    if (st == GIST_OK) st = side_load(&side, t->alloc, dir, err);
    if (st == GIST_OK) st = path_is_dir(path) ? load_dir(t, dir, &f, &side, err) : load_file(t, path, &f, &side, err);
    if (st == GIST_OK) st = side_apply(t, &side, err);
    if (st == GIST_OK) st = tok_finish(t, err);
    side_free(&side);
    mem_free(t->alloc, f.json);
    mem_free(t->alloc, f.model);
    mem_free(t->alloc, f.vocab);
    mem_free(t->alloc, f.merges);
    return st;
}

gist_status tok_open(const char *path, const gist_allocator *alloc, tokenizer **out, gist_error *err) {
    tokenizer *t;
    if (!path_exists(path)) return err_set(err, GIST_ERR_IO, "%s: no such file or directory", path);
    TRY(tok_create(alloc, &t, err));
    const char *slash = strrchr(path, '/');
    char *dir = path_is_dir(path) ? mem_strndup(t->alloc, path, strlen(path))
                : slash           ? mem_strndup(t->alloc, path, slash == path ? 1 : (size_t)(slash - path))
                                  : mem_strndup(t->alloc, ".", 1);
    gist_status st = dir ? open_all(t, path, dir, err) : err_memory(err, "tokenizer");
    mem_free(t->alloc, dir);
    if (st == GIST_OK)
        *out = t;
    else
        tok_close(t);
    return st;
}

/* ---- questions ---- */

int tok_size(const tokenizer *t) {
    return (int)t->v.n;
}

int32_t tok_bos(const tokenizer *t) {
    return t->bos;
}

int32_t tok_eos(const tokenizer *t) {
    return t->eos;
}

int32_t tok_gist(const tokenizer *t) {
    return t->gist;
}

bool tok_adds_bos(const tokenizer *t) {
    return t->adds_bos;
}

bool tok_adds_eos(const tokenizer *t) {
    return t->adds_eos;
}

int tok_ends(const tokenizer *t, int32_t *id, int cap) {
    int n = 0;
    if (t->eos >= 0 && n++ < cap) id[0] = t->eos;
    for (int i = 0; i < t->ends; i++) {
        if (t->end[i] == t->eos) continue;
        if (n < cap) id[n] = t->end[i];
        n++;
    }
    return n;
}

bool tok_is_end(const tokenizer *t, int32_t id) {
    for (int i = 0; i < t->ends; i++)
        if (t->end[i] == id) return true;
    return false;
}

const char *tok_kind(const tokenizer *t) {
    static const char *const names[] = { "sentencepiece-bpe", "byte-bpe", "tiktoken" };
    return t->is_unigram ? "sentencepiece-unigram" : names[t->model];
}

hash128 tok_fingerprint(const tokenizer *t) {
    return t->fingerprint;
}

int32_t tok_find(const tokenizer *t, const char *text) {
    return vocab_find(&t->v, text, strlen(text));
}

static const piece *get_piece(const tokenizer *t, int32_t id) {
    return id >= 0 && (size_t)id < t->v.n && t->v.piece[id].type != PIECE_NONE ? &t->v.piece[id] : NULL;
}

const char *tok_piece(const tokenizer *t, int32_t id, size_t *len) {
    const piece *p = get_piece(t, id);
    if (len) *len = p ? p->len : 0;
    return p ? t->v.text + p->off : NULL;
}

bool tok_is_special(const tokenizer *t, int32_t id) {
    const piece *p = get_piece(t, id);
    return p && p->special;
}

const char *tok_chat_template(const tokenizer *t) {
    return t->chat;
}

gist_status tok_add_gist(tokenizer *t, int32_t id, gist_error *err) {
    added_token a = { .id = id, .special = true, .lstrip = true, .rstrip = true };
    if (t->gist >= 0 && t->gist == id) return GIST_OK;
    if (t->gist >= 0)
        return err_set(err, GIST_ERR_MISMATCH, "%s is token %d already, not %d", TOK_GIST_TEXT, t->gist, id);
    TRY(vocab_set(&t->v, id, TOK_GIST_TEXT, strlen(TOK_GIST_TEXT), PIECE_ADDED, "tokenizer", err));
    a.off = t->v.piece[id].off;
    a.len = t->v.piece[id].len;
    TRY(matcher_add(&t->added, t->alloc, &a, err));
    t->v.piece[id].added = (uint32_t)t->added.n;
    t->v.piece[id].special = true;
    TRY(matcher_add(&t->raw, t->alloc, &a, err));
    matcher_sort(&t->raw, &t->v);
    t->gist = id;
    return GIST_OK;
}
