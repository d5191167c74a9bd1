/* tok_parts.c - a tokenizer of the arrays that a GGUF file holds.
 *
 *   "llama", "t5"   pieces with scores and types           -> SentencePiece, as tokenizer.model would give it
 *   "gpt2"          pieces, merges "a b", a named pattern  -> byte-level BPE, as tokenizer.json would give it
 *
 * What the arrays leave out has the value that llama.cpp takes, and byte fallback is there when byte pieces are.
 * Converters write three things that no Hugging Face file has, which are undone here:
 *
 *   "[PAD7]", unused         a row without a text, as tables may be longer than their vocabulary
 *   score -1000              a token added behind the pieces, so it is cut out of the text and not a piece of it
 *   the unknown as control   when its row was listed among the added tokens; unknown_token_id still names it
 *
 * Source: the specification of GGUF; the behaviour of llama.cpp's converter and tokenizer.
 */
#include "token/token_int.h"

static const char what[] = "vocabulary";

tok_parts tok_parts_none(void) {
    return (tok_parts){ .bos = -1,
                        .eos = -1,
                        .unk = -1,
                        .pad = -1,
                        .add_bos = -1,
                        .add_eos = -1,
                        .add_space_prefix = -1,
                        .remove_extra_whitespaces = -1 };
}

static bool is(tok_text s, const char *word) {
    return s.p && s.len == strlen(word) && memcmp(s.p, word, s.len) == 0;
}

/* ---- checks ---- */

static gist_status check_id(const tok_parts *p, const char *name, int32_t id, gist_error *err) {
    if (id >= -1 && (id < 0 || (size_t)id < p->tokens)) return GIST_OK;
    return err_set(err, GIST_ERR_FORMAT, "%s: %s is %d, there are %zu tokens", what, name, id, p->tokens);
}

static gist_status check(const tok_parts *p, gist_error *err) {
    if (p->tokens == 0 || !p->token) return err_set(err, GIST_ERR_FORMAT, "%s: no tokens", what);
    if (p->tokens > TOK_MAX_IDS)
        return err_set(err, GIST_ERR_LIMIT, "%s: %zu tokens, at most %d are allowed", what, p->tokens, TOK_MAX_IDS);
    if (p->merges > TOK_MAX_MERGES)
        return err_set(err, GIST_ERR_LIMIT, "%s: %zu merges, at most %d are allowed", what, p->merges, TOK_MAX_MERGES);
    TRY(check_id(p, "bos_token_id", p->bos, err));
    TRY(check_id(p, "eos_token_id", p->eos, err));
    TRY(check_id(p, "unknown_token_id", p->unk, err));
    TRY(check_id(p, "padding_token_id", p->pad, err));
    for (size_t i = 0; i < p->ends; i++) TRY(check_id(p, "an id that ends answers", p->end[i], err));
    for (size_t i = 0; i < p->tokens; i++) {
        tok_text s = p->token[i];
        if (!s.p || memchr(s.p, 0, s.len) || !utf8_valid(s.p, s.len, NULL))
            return err_set(err, GIST_ERR_FORMAT, "%s: the text of token %zu is not UTF-8, or has a NUL", what, i);
        if (p->type && (p->type[i] < PIECE_NORMAL || p->type[i] > PIECE_BYTE))
            return err_set(err, GIST_ERR_FORMAT, "%s: token %zu has type %d, types 1 to 6 are known", what, i,
                           p->type[i]);
    }
    return GIST_OK;
}

/* A row without a text of its own? */
static bool is_padding(const tok_parts *p, size_t i) {
    tok_text s = p->token[i];
    if (!p->type || p->type[i] != PIECE_UNUSED || s.len < 6 || memcmp(s.p, "[PAD", 4) != 0 || s.p[s.len - 1] != ']')
        return false;
    for (size_t k = 4; k + 1 < s.len; k++)
        if (s.p[k] < '0' || s.p[k] > '9') return false;
    return true;
}

static gist_status add(tokenizer *t, const tok_parts *p, size_t i, bool special, gist_error *err) {
    added_token flags = { .special = special };
    return tok_add(t, p->token[i].p, p->token[i].len, (int32_t)i, &flags, what, err);
}

/* What stands around a text is special, whatever its type says. */
static gist_status name_special(tokenizer *t, int32_t id, const char *name, int32_t *out, gist_error *err) {
    static const added_token special = { .special = true };
    char copy[TOK_MAX_PIECE]; /* the pool may move */
    size_t len;
    const char *text = tok_piece(t, id, &len);
    if (id < 0) return GIST_OK;
    if (!text) return err_set(err, GIST_ERR_FORMAT, "%s: %s is %d, which has no text", what, name, id);
    memcpy(copy, text, len);
    *out = id;
    return tok_is_special(t, id) ? GIST_OK : tok_add(t, copy, len, id, &special, what, err);
}

static gist_status name_specials(tokenizer *t, const tok_parts *p, gist_error *err) {
    TRY(name_special(t, p->bos, "bos_token_id", &t->bos, err));
    TRY(name_special(t, p->eos, "eos_token_id", &t->eos, err));
    if (tok_piece(t, p->pad, NULL)) TRY(name_special(t, p->pad, "padding_token_id", &t->pad, err));
    return GIST_OK;
}

/* ---- SentencePiece ---- */

static int32_t control(const tokenizer *t, const char *text) {
    int32_t id = tok_find(t, text);
    return id >= 0 && t->v.piece[id].type == PIECE_CONTROL ? id : -1;
}

/* A token that is special, whatever its type says. */
static bool is_named(const tok_parts *p, int32_t id) {
    return id == p->bos || id == p->eos || id == p->pad || is(p->token[id], TOK_GIST_TEXT);
}

static gist_status put_pieces(tokenizer *t, const tok_parts *p, gist_error *err) {
    static const float added = -1000.0f;
    for (size_t i = 0; i < p->tokens; i++) {
        int type = p->type[i];
        if (is_padding(p, i)) continue;
        if (type == PIECE_CONTROL && (int32_t)i == p->unk) type = PIECE_UNKNOWN;
        if (type != PIECE_UNKNOWN && is_named(p, (int32_t)i)) type = PIECE_CONTROL;
        if (type == PIECE_USER && p->score[i] == added)
            TRY(add(t, p, i, false, err));
        else
            TRY(sp_put_piece(t, (int32_t)i, p->token[i].p, p->token[i].len, (uint64_t)type, p->score[i], what, err));
    }
    if (t->unk < 0) return err_set(err, GIST_ERR_FORMAT, "%s: no piece is the unknown", what);
    if (p->unk >= 0 && p->unk != t->unk)
        return err_set(err, GIST_ERR_FORMAT, "%s: unknown_token_id is %d, but piece %d is the unknown", what, p->unk,
                       t->unk);
    return GIST_OK;
}

static gist_status open_sentencepiece(tokenizer *t, const tok_parts *p, gist_error *err) {
    if (!p->score || !p->type)
        return err_set(err, GIST_ERR_FORMAT, "%s: a SentencePiece model needs scores and token types, it has no %s",
                       what, p->score ? "types" : "scores");
    if (p->merges)
        return err_set(err, GIST_ERR_UNSUPPORTED, "%s: a SentencePiece model with %zu merges", what, p->merges);
    t->model = TOK_SENTENCEPIECE;
    TRY(put_pieces(t, p, err));
    if (p->charsmap_len) TRY(charsmap_load(&t->map, t->alloc, p->charsmap, p->charsmap_len, err));
    for (int b = 0; b < 256; b++) t->byte_fallback |= t->byte_id[b] >= 0;
    t->fuse_unk = true;
    t->escape_spaces = true;
    t->prefix = p->add_space_prefix == 0 ? PREFIX_NEVER : PREFIX_ALWAYS;
    t->remove_extra_spaces = p->remove_extra_whitespaces < 0 ? t->is_unigram : p->remove_extra_whitespaces;
    t->bos = control(t, "<s>");
    t->eos = control(t, "</s>");
    TRY(name_specials(t, p, err));
    t->adds_bos = !t->is_unigram;
    t->adds_eos = t->is_unigram && t->bos < 0;
    return sp_finish(t, err);
}

/* ---- byte-level BPE ---- */

static gist_status put_tokens(tokenizer *t, const tok_parts *p, gist_error *err) {
    for (size_t i = 0; i < p->tokens; i++) {
        int type = p->type ? p->type[i] : PIECE_NORMAL;
        if (is_padding(p, i)) continue;
        if (type == PIECE_BYTE)
            return err_set(err, GIST_ERR_UNSUPPORTED, "%s: token %zu is a byte piece, in byte-level BPE", what, i);
        if (type == PIECE_NORMAL || type == PIECE_UNUSED)
            TRY(vocab_set(&t->v, (int32_t)i, p->token[i].p, p->token[i].len, (piece_type)type, what, err));
        else
            TRY(add(t, p, i, type != PIECE_USER, err));
    }
    return GIST_OK;
}

/* GGUF names one or two tokens that end an answer; of these, every chat model means all that it has. */
static void add_known_ends(tokenizer *t) {
    static const char *const known[] = { "<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end_of_text|>", "<|endoftext|>" };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        int32_t id = tok_find(t, known[i]);
        if (tok_is_special(t, id)) tok_add_end(t, id);
    }
}

static gist_status open_byte_level(tokenizer *t, const tok_parts *p, gist_error *err) {
    if (!p->merge || !p->merges) return err_set(err, GIST_ERR_FORMAT, "%s: byte-level BPE without merges", what);
    if (p->charsmap_len) return err_set(err, GIST_ERR_UNSUPPORTED, "%s: byte-level BPE with a map of characters", what);
    t->model = TOK_BYTE_BPE;
    t->by_pair = true;
    TRY(put_tokens(t, p, err));
    TRY(merges_reserve(&t->merges, t->alloc, p->merges, err));
    for (size_t i = 0; i < p->merges; i++) {
        if (!p->merge[i].p) return err_set(err, GIST_ERR_FORMAT, "%s: merge %zu is missing", what, i);
        TRY(merges_put_line(t, p->merge[i].p, p->merge[i].len, i, what, err));
    }
    bytes_find(t);
    t->unk = tok_piece(t, p->unk, NULL) ? p->unk : -1;
    if (p->add_space_prefix == 1) TRY(split_add_prefix(t, err));
    if (p->pattern.p)
        TRY(split_add(t, p->pattern.p, p->pattern.len, false, true, true, err));
    else
        TRY(split_add_named(t, p->pre, err));
    TRY(name_specials(t, p, err));
    add_known_ends(t);
    return GIST_OK;
}

/* ---- opening ---- */

static gist_status open_any(tokenizer *t, const tok_parts *p, gist_error *err) {
    TRY(check(p, err));
    TRY(vocab_reserve(&t->v, p->tokens, err));
    t->is_unigram = is(p->model, "t5");
    if (t->is_unigram || is(p->model, "llama"))
        TRY(open_sentencepiece(t, p, err));
    else if (is(p->model, "gpt2"))
        TRY(open_byte_level(t, p, err));
    else
        return err_set(err, GIST_ERR_UNSUPPORTED,
                       "%s: a model of the kind \"%.*s\" (tokenizer.ggml.model); llama, t5 and gpt2 are known", what,
                       p->model.len > 32 ? 32 : (int)p->model.len, p->model.p ? p->model.p : "");
    if (p->add_bos >= 0) t->adds_bos = p->add_bos;
    if (p->add_eos >= 0) t->adds_eos = p->add_eos;
    for (size_t i = 0; i < p->ends; i++)
        if (p->end[i] >= 0) tok_add_end(t, p->end[i]);
    if (p->chat_template.p) TRY(tok_keep_chat(t, p->chat_template.p, p->chat_template.len, err));
    return tok_finish(t, err);
}

gist_status tok_open_parts(const tok_parts *p, const gist_allocator *alloc, tokenizer **out, gist_error *err) {
    tokenizer *t;
    TRY(tok_create(alloc, &t, err));
    gist_status st = open_any(t, p, err);
    if (st == GIST_OK)
        *out = t;
    else
        tok_close(t);
    return st;
}
