/* tok_hf.c - tokenizer.json of Hugging Face's tokenizers, and GPT-2's pair of vocab.json and merges.txt.
 *
 *   added_tokens     texts that are cut out first, with lstrip, rstrip, single_word, normalized, special
 *   normalizer       NFC ... (byte-level); Prepend and Replace of a space (SentencePiece written as JSON)
 *   pre_tokenizer    Split, Digits, ByteLevel, a Sequence of them; Metaspace
 *   model            BPE: vocab {text: id}, merges ["a b"] or [["a", "b"]], in order of rank
 *   post_processor   TemplateProcessing: what stands before the text is BOS
 *
 * Two families come out: byte-level BPE, and SentencePiece models whose merges go by pair.  Everything this file asks
 * for and we do not do is an error that names it: ids that differ a little are worse than none.
 * A normalizer changes the texts of added tokens, too, that say "normalized": behind Prepend, "<tool>" is found as
 * "▁<tool>" only, at the start of a stretch or after a space, and what follows it is no new word.
 * Source: the serialisation of github.com/huggingface/tokenizers.
 */
#include <stdlib.h>

#include "token/token_int.h"

#define FILE_NAME "tokenizer.json"

const char *json_text(const json_t *obj, const char *key, const char *other) {
    const json_t *v = json_object_get(obj, key);
    return json_is_string(v) ? json_string_value(v) : other;
}

bool json_flag(const json_t *obj, const char *key, bool other) {
    const json_t *v = json_object_get(obj, key);
    return json_is_boolean(v) ? json_is_true(v) : other;
}

static bool is_type(const json_t *obj, const char *type) {
    return strcmp(json_text(obj, "type", ""), type) == 0;
}

static gist_status unsupported(const char *part, const json_t *obj, gist_error *err) {
    return err_set(err, GIST_ERR_UNSUPPORTED, FILE_NAME ": %s of type \"%.64s\" is not supported (here)", part,
                   json_text(obj, "type", "?"));
}

/* ---- vocabulary and merges ---- */

static gist_status load_vocab(tokenizer *t, const json_t *vocab, const char *what, gist_error *err) {
    if (!json_is_object(vocab) || json_object_size(vocab) == 0)
        return err_set(err, GIST_ERR_FORMAT, "%s: the vocabulary is not an object of texts and ids", what);
    TRY(vocab_reserve(&t->v, json_object_size(vocab), err));
    const char *text;
    json_t *id;
    json_object_foreach((json_t *)(uintptr_t)vocab, text, id) {
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= TOK_MAX_IDS)
            return err_set(err, GIST_ERR_FORMAT, "%s: the id of \"%.64s\" is not an integer in [0, %d)", what, text,
                           TOK_MAX_IDS);
        TRY(vocab_set(&t->v, (int32_t)json_integer_value(id), text, strlen(text), PIECE_NORMAL, what, err));
    }
    return GIST_OK;
}

static gist_status load_merges(tokenizer *t, const json_t *merges, gist_error *err) {
    size_t n = json_array_size(merges);
    if (!json_is_array(merges) || n > TOK_MAX_MERGES)
        return err_set(err, GIST_ERR_FORMAT, FILE_NAME ": merges is not an array of at most %d", TOK_MAX_MERGES);
    t->by_pair = true;
    TRY(merges_reserve(&t->merges, t->alloc, n, err));
    for (size_t i = 0; i < n; i++) {
        const json_t *m = json_array_get(merges, i), *a = json_array_get(m, 0), *b = json_array_get(m, 1);
        if (json_is_string(m)) {
            TRY(merges_put_line(t, json_string_value(m), json_string_length(m), i, FILE_NAME, err));
        } else if (json_array_size(m) == 2 && json_is_string(a) && json_is_string(b)) {
            TRY(merges_put_pair(t, json_string_value(a), json_string_length(a), json_string_value(b),
                                json_string_length(b), i, FILE_NAME, err));
        } else {
            return err_set(err, GIST_ERR_FORMAT, FILE_NAME ": merge %zu is neither a string nor a pair of strings", i);
        }
    }
    return GIST_OK;
}

/* ---- vocab.json and merges.txt ---- */

static size_t line_end(const char *s, size_t len) {
    const char *nl = memchr(s, '\n', len);
    return nl ? (size_t)(nl - s) : len;
}

gist_status gpt2_load(tokenizer *t, const json_t *vocab, const char *merges, size_t len, bool qwen2, bool prefix_space,
                      gist_error *err) {
    static const added_token special = { .special = true };
    size_t lines = 0, rank = 0;
    TRY(load_vocab(t, vocab, "vocab.json", err));
    for (size_t pos = 0; pos < len; pos += line_end(merges + pos, len - pos) + 1) lines++;
    if (lines > TOK_MAX_MERGES) return err_set(err, GIST_ERR_LIMIT, "merges.txt: more than %d lines", TOK_MAX_MERGES);
    t->model = TOK_BYTE_BPE;
    t->by_pair = true;
    TRY(merges_reserve(&t->merges, t->alloc, lines, err));
    for (size_t pos = 0, n; pos < len; pos += n + 1) {
        const char *s = merges + pos;
        n = line_end(s, len - pos);
        size_t text = n > 0 && s[n - 1] == '\r' ? n - 1 : n; /* no piece has a carriage return: it is a letter there */
        if (text == 0 || (pos == 0 && text >= 8 && memcmp(s, "#version", 8) == 0)) continue;
        TRY(merges_put_line(t, s, text, rank, "merges.txt", err));
        rank++;
    }
    bytes_find(t);
    TRY(tok_add(t, "<|endoftext|>", 13, -1, &special, "vocab.json", err));
    t->bos = t->eos = vocab_find(&t->v, "<|endoftext|>", 13);
    t->form = qwen2 ? FORM_NFC : FORM_NONE;
    if (prefix_space) TRY(split_add_prefix(t, err));
    const char *pattern = qwen2 ? tok_pattern_qwen2 : tok_pattern_gpt2;
    return split_add(t, pattern, strlen(pattern), false, true, true, err);
}

/* ---- tokenizer.json: normaliser ---- */

static gist_status byte_normalizer(tokenizer *t, const json_t *n, int depth, gist_error *err) {
    static const char *const names[] = { "", "NFC", "NFD", "NFKC", "NFKD" };
    if (!n || json_is_null(n)) return GIST_OK;
    if (is_type(n, "Sequence") && depth < 4) {
        const json_t *list = json_object_get(n, "normalizers");
        for (size_t i = 0; i < json_array_size(list); i++)
            TRY(byte_normalizer(t, json_array_get(list, i), depth + 1, err));
        return GIST_OK;
    }
    for (int f = FORM_NFC; f <= FORM_NFKD; f++) {
        if (!is_type(n, names[f]) || t->form != FORM_NONE) continue;
        t->form = (tok_form)f;
        return GIST_OK;
    }
    return unsupported("normalizer", n, err);
}

/* Prepend "▁" and Replace " " -> "▁" */
static gist_status space_normalizer(tokenizer *t, const json_t *n, int depth, gist_error *err) {
    if (!n || json_is_null(n)) return GIST_OK;
    if (is_type(n, "Sequence") && depth < 4) {
        const json_t *list = json_object_get(n, "normalizers");
        for (size_t i = 0; i < json_array_size(list); i++)
            TRY(space_normalizer(t, json_array_get(list, i), depth + 1, err));
        return GIST_OK;
    }
    if (is_type(n, "Prepend") && strcmp(json_text(n, "prepend", ""), TOK_SPACE) == 0) {
        t->prefix = PREFIX_ALWAYS;
        return GIST_OK;
    }
    if (is_type(n, "Replace") && strcmp(json_text(json_object_get(n, "pattern"), "String", ""), " ") == 0 &&
        strcmp(json_text(n, "content", ""), TOK_SPACE) == 0) {
        t->escape_spaces = true;
        return GIST_OK;
    }
    return unsupported("normalizer", n, err);
}

/* ---- tokenizer.json: pre-tokenizer ---- */

static gist_status add_split(tokenizer *t, const json_t *p, gist_error *err) {
    const json_t *pattern = json_object_get(p, "pattern");
    const char *regex = json_text(pattern, "Regex", NULL), *text = json_text(pattern, "String", NULL);
    const char *how = json_text(p, "behavior", "");
    bool invert = json_flag(p, "invert", false), isolated = strcmp(how, "Isolated") == 0;
    if (!regex && !text) return err_set(err, GIST_ERR_FORMAT, FILE_NAME ": Split without a pattern");
    if (!isolated && strcmp(how, "Removed") != 0)
        return err_set(err, GIST_ERR_UNSUPPORTED, FILE_NAME ": Split with behavior \"%.32s\" is not supported", how);
    return split_add(t, regex ? regex : text, strlen(regex ? regex : text), !regex, isolated || invert,
                     isolated || !invert, err);
}

static gist_status add_stage(tokenizer *t, const json_t *p, int depth, gist_error *err) {
    if (is_type(p, "Sequence") && depth < 4) {
        const json_t *list = json_object_get(p, "pretokenizers");
        for (size_t i = 0; i < json_array_size(list); i++) TRY(add_stage(t, json_array_get(list, i), depth + 1, err));
        return GIST_OK;
    }
    if (is_type(p, "Split")) return add_split(t, p, err);
    if (is_type(p, "Digits")) {
        const char *digits = json_flag(p, "individual_digits", false) ? "\\p{N}" : "\\p{N}+";
        return split_add(t, digits, strlen(digits), false, true, true, err);
    }
    if (is_type(p, "ByteLevel")) {
        if (json_flag(p, "add_prefix_space", true)) TRY(split_add_prefix(t, err));
        if (!json_flag(p, "use_regex", true)) return GIST_OK;
        return split_add(t, tok_pattern_gpt2, strlen(tok_pattern_gpt2), false, true, true, err);
    }
    return unsupported("pre_tokenizer", p, err);
}

static gist_status add_metaspace(tokenizer *t, const json_t *p, gist_error *err) {
    if (!p || json_is_null(p)) return GIST_OK;
    if (is_type(p, "Sequence") && json_array_size(json_object_get(p, "pretokenizers")) == 1)
        p = json_array_get(json_object_get(p, "pretokenizers"), 0);
    if (!is_type(p, "Metaspace")) return unsupported("pre_tokenizer", p, err);
    const char *old = json_flag(p, "add_prefix_space", true) ? "always" : "never";
    const char *scheme = json_text(p, "prepend_scheme", old);
    if (strcmp(json_text(p, "replacement", TOK_SPACE), TOK_SPACE) != 0)
        return err_set(err, GIST_ERR_UNSUPPORTED, FILE_NAME ": Metaspace with another replacement than U+2581");
    if (strcmp(scheme, "always") == 0)
        t->prefix = PREFIX_MISSING;
    else if (strcmp(scheme, "first") == 0)
        t->prefix = PREFIX_FIRST;
    else if (strcmp(scheme, "never") != 0)
        return err_set(err, GIST_ERR_UNSUPPORTED, FILE_NAME ": Metaspace with prepend_scheme \"%.32s\"", scheme);
    t->escape_spaces = true;
    if (json_flag(p, "split", true)) t->cut = CUT_SPACES;
    return GIST_OK;
}

static bool has_byte_level(const json_t *p, int depth) {
    if (is_type(p, "ByteLevel")) return true;
    const json_t *list = json_object_get(p, "pretokenizers");
    for (size_t i = 0; depth < 4 && i < json_array_size(list); i++)
        if (has_byte_level(json_array_get(list, i), depth + 1)) return true;
    return false;
}

bool hf_is_bpe(const json_t *root, bool *byte_level) {
    const json_t *m = json_object_get(root, "model");
    *byte_level = has_byte_level(json_object_get(root, "pre_tokenizer"), 0);
    return strcmp(json_text(m, "type", "BPE"), "BPE") == 0 && json_object_get(m, "merges");
}

/* ---- tokenizer.json: the rest ---- */

/* "<0x0A>" ... and the unknown token */
static gist_status mark_pieces(tokenizer *t, const json_t *model, gist_error *err) {
    const char *unk = json_text(model, "unk_token", NULL);
    if (unk) {
        t->unk = vocab_find(&t->v, unk, strlen(unk));
        if (t->unk < 0)
            return err_set(err, GIST_ERR_FORMAT, FILE_NAME ": unk_token \"%.64s\" is not in the vocabulary", unk);
        t->v.piece[t->unk].type = PIECE_UNKNOWN;
        t->v.piece[t->unk].special = true;
    }
    for (int b = 0; t->byte_fallback && b < 256; b++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", (unsigned)b);
        int32_t id = t->byte_id[b] = vocab_find(&t->v, text, 6);
        if (id >= 0) t->v.piece[id].type = PIECE_BYTE;
    }
    return GIST_OK;
}

static gist_status load_model(tokenizer *t, const json_t *model, bool byte_level, gist_error *err) {
    const char *prefix = json_text(model, "continuing_subword_prefix", ""),
               *suffix = json_text(model, "end_of_word_suffix", "");
    const json_t *dropout = json_object_get(model, "dropout");
    if (*prefix || *suffix)
        return err_set(err, GIST_ERR_UNSUPPORTED, FILE_NAME ": subword prefix \"%.16s\" or word suffix \"%.16s\"",
                       prefix, suffix);
    if (json_is_number(dropout) && json_number_value(dropout) != 0)
        return err_set(err, GIST_ERR_UNSUPPORTED, FILE_NAME ": dropout %g", json_number_value(dropout));
    TRY(load_vocab(t, json_object_get(model, "vocab"), FILE_NAME, err));
    TRY(load_merges(t, json_object_get(model, "merges"), err));
    t->byte_fallback = !byte_level && json_flag(model, "byte_fallback", false);
    t->fuse_unk = json_flag(model, "fuse_unk", false);
    t->ignore_merges = json_flag(model, "ignore_merges", false);
    if (byte_level) bytes_find(t);
    return mark_pieces(t, model, err);
}

static gist_status load_added(tokenizer *t, const json_t *list, gist_error *err) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *a = json_array_get(list, i), *id = json_object_get(a, "id");
        const char *text = json_text(a, "content", NULL);
        if (!text || !json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= TOK_MAX_IDS)
            return err_set(err, GIST_ERR_FORMAT, FILE_NAME ": added token %zu has no content or no id in [0, %d)", i,
                           TOK_MAX_IDS);
        added_token flags = { .special = json_flag(a, "special", false),
                              .lstrip = json_flag(a, "lstrip", false),
                              .rstrip = json_flag(a, "rstrip", false),
                              .single_word = json_flag(a, "single_word", false),
                              .normalized = json_flag(a, "normalized", false) };
        TRY(tok_add(t, text, strlen(text), (int32_t)json_integer_value(id), &flags, FILE_NAME, err));
    }
    return GIST_OK;
}

/* Which token does the post-processor put in front of a text? */
static gist_status load_post(tokenizer *t, const json_t *p, int depth, gist_error *err) {
    if (!p || json_is_null(p) || is_type(p, "ByteLevel")) return GIST_OK;
    if (is_type(p, "Sequence") && depth < 4) {
        const json_t *list = json_object_get(p, "processors");
        for (size_t i = 0; i < json_array_size(list); i++) TRY(load_post(t, json_array_get(list, i), depth + 1, err));
        return GIST_OK;
    }
    if (!is_type(p, "TemplateProcessing")) return unsupported("post_processor", p, err);
    const json_t *single = json_object_get(p, "single");
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *token = json_object_get(json_array_get(single, i), "SpecialToken");
        if (!token) break; /* the text; what follows it (EOS) ends training examples, not prompts */
        const char *name = json_text(token, "id", "");
        int32_t id = vocab_find(&t->v, name, strlen(name));
        if (id < 0 || t->adds_bos)
            return err_set(err, GIST_ERR_UNSUPPORTED, FILE_NAME ": the template puts \"%.64s\" before the text, %s",
                           name, id < 0 ? "which is no token" : "and another token");
        t->bos = id;
        t->adds_bos = true;
    }
    return GIST_OK;
}

gist_status hf_load(tokenizer *t, const json_t *root, gist_error *err) {
    bool byte_level;
    const json_t *model = json_object_get(root, "model"), *pre = json_object_get(root, "pre_tokenizer");
    if (!hf_is_bpe(root, &byte_level)) return unsupported("model", model, err);
    t->model = byte_level ? TOK_BYTE_BPE : TOK_SENTENCEPIECE;
    TRY(load_model(t, model, byte_level, err));
    TRY(load_added(t, json_object_get(root, "added_tokens"), err));
    TRY(load_post(t, json_object_get(root, "post_processor"), 0, err));
    const json_t *norm = json_object_get(root, "normalizer");
    if (byte_level) {
        TRY(byte_normalizer(t, norm, 0, err));
        return add_stage(t, pre, 0, err);
    }
    TRY(space_normalizer(t, norm, 0, err));
    TRY(add_metaspace(t, pre, err));
    return sp_finish(t, err);
}
