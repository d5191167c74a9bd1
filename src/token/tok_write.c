/* tok_write.c - a tokenizer as Hugging Face files, which transformers and tok_open read.
 *
 *   SentencePiece by score, unigram     tokenizer.model, spiece.model   (tok_write_sp.c)
 *   everything but unigram              tokenizer.json                  (hf_load backwards)
 *   always                              tokenizer_config.json           special and added tokens, BOS, chat template
 *
 * Beside a tokenizer.model, which tok_open prefers, tokenizer.json is for other libraries: left alone, transformers 5
 * makes merges of LLaMA's pieces that tokenize runs of spaces in another way.  It is left out where merges by pair
 * could not say what scores say.
 *
 * In tokenizer.json, libraries number an added token that the vocabulary lacks by counting.  So tokens that were added
 * behind all others stand in added_tokens alone, as usual, unless ids have gaps.
 */
#include <errno.h>

#include "token/token_int.h"

static gist_status write_file(const char *dir, const char *name, const gist_allocator *alloc, const json_t *root,
                              const sbuf *bytes, gist_error *err) {
    out_file out;
    char *path = path_join(alloc, dir, name);
    gist_status st = path ? out_open(&out, alloc, path, err) : err_memory(err, name);
    mem_free(alloc, path);
    TRY(st);
    if (root && json_dumpf(root, out.f, JSON_INDENT(1)) != 0 && !ferror(out.f)) {
        out_abort(&out);
        return err_memory(err, name);
    }
    if (ferror(out.f)) out.saved_errno = errno ? errno : EIO;
    out_write(&out, root ? "\n" : bytes->p, root ? 1 : bytes->len);
    return out_commit(&out, err);
}

/* Takes root over. */
static gist_status write_json(const char *dir, const char *name, const gist_allocator *alloc, json_t *root,
                              gist_error *err) {
    gist_status st = root ? write_file(dir, name, alloc, root, NULL, err) : err_memory(err, name);
    json_decref(root);
    return st;
}

/* ---- tokenizer.json: functions give NULL where memory is short ---- */

static json_t *text_json(const tokenizer *t, int32_t id) {
    size_t len;
    const char *text = tok_piece(t, id, &len);
    return text ? json_stringn(text, len) : json_null();
}

static json_t *flags_json(const tokenizer *t, const added_token *a) {
    return json_pack("{s:o, s:b, s:b, s:b, s:b, s:b}", "content", text_json(t, a->id), "single_word", a->single_word,
                     "lstrip", a->lstrip, "rstrip", a->rstrip, "normalized", a->normalized, "special", a->special);
}

/* The added tokens in order of ids: an array, or an object by id. */
static json_t *added_json(const tokenizer *t, bool by_id) {
    json_t *all = by_id ? json_object() : json_array();
    for (size_t i = 0; all && i < t->v.n; i++) {
        if (!t->v.piece[i].added) continue;
        char key[24];
        snprintf(key, sizeof key, "%zu", i);
        json_t *a = flags_json(t, &t->added.a[t->v.piece[i].added - 1]);
        int bad = a && !by_id ? json_object_set_new(a, "id", json_integer((json_int_t)i)) : !a;
        if (!bad) bad = by_id ? json_object_set(all, key, a) : json_array_append(all, a);
        json_decref(a);
        if (!bad) continue;
        json_decref(all);
        return NULL;
    }
    return all;
}

/* Must added tokens be in the vocabulary, too?  Where ids have gaps, or the model itself names one. */
static bool keep_added(const tokenizer *t) {
    if (tok_uses_unk(t) && t->v.piece[t->unk].type == PIECE_ADDED) return true;
    for (size_t i = 0; i < t->v.n; i++)
        if (t->v.piece[i].type == PIECE_NONE) return true;
    for (size_t i = 0; i < t->merges.slots; i++) {
        const merge_slot *m = &t->merges.slot[i];
        if (m->left < 0) continue;
        if (t->v.piece[m->left].type == PIECE_ADDED || t->v.piece[m->right].type == PIECE_ADDED ||
            t->v.piece[m->id].type == PIECE_ADDED)
            return true;
    }
    return false;
}

static json_t *vocab_json(const tokenizer *t) {
    json_t *all = json_object();
    bool keep = keep_added(t);
    size_t n = t->v.n;
    while (n > 0 && !keep && t->v.piece[n - 1].type == PIECE_ADDED) n--;
    for (size_t i = 0; all && i < n; i++) {
        const piece *p = &t->v.piece[i];
        if (p->type == PIECE_NONE || json_object_set_new(all, t->v.text + p->off, json_integer((json_int_t)i)) == 0)
            continue;
        json_decref(all);
        return NULL;
    }
    return all;
}

/* "a b", or ["a", "b"] where a text has a space of its own. */
static json_t *merge_json(const tokenizer *t, const merge_slot *m, sbuf *line) {
    const piece *a = &t->v.piece[m->left], *b = &t->v.piece[m->right];
    line->len = 0;
    sbuf_add(line, t->v.text + a->off, a->len);
    sbuf_add(line, " ", 1);
    sbuf_add(line, t->v.text + b->off, b->len);
    if (line->failed) return NULL;
    if (!memchr(line->p, ' ', a->len) && !memchr(line->p + a->len + 1, ' ', b->len))
        return json_stringn(line->p, line->len);
    return json_pack("[o, o]", text_json(t, m->left), text_json(t, m->right));
}

static gist_status merges_json(const tokenizer *t, json_t **out, gist_error *err) {
    merge_slot *list;
    size_t n;
    TRY(merges_list(t, &list, &n, err));
    sbuf line;
    sbuf_init(&line, t->alloc);
    json_t *all = json_array();
    for (size_t i = 0; all && i < n; i++) {
        if (json_array_append_new(all, merge_json(t, &list[i], &line)) == 0) continue;
        json_decref(all);
        all = NULL;
    }
    sbuf_free(&line);
    mem_free(t->alloc, list);
    *out = all;
    return all ? GIST_OK : err_memory(err, "tokenizer.json");
}

/* Takes merges over. */
static json_t *model_json(const tokenizer *t, json_t *merges) {
    bool sp = t->model == TOK_SENTENCEPIECE;
    int32_t unk = sp || tok_uses_unk(t) ? t->unk : -1;
    return json_pack("{s:s, s:n, s:o, s:n, s:n, s:b, s:b, s:b, s:o, s:o}", "type", "BPE", "dropout", "unk_token",
                     text_json(t, unk), "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", t->fuse_unk,
                     "byte_fallback", sp && t->byte_fallback, "ignore_merges",
                     t->ignore_merges || t->model == TOK_TIKTOKEN, "vocab", vocab_json(t), "merges", merges);
}

static json_t *byte_level(bool prefix, bool regex) {
    return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", prefix, "trim_offsets", 1,
                     "use_regex", regex);
}

static json_t *split_json(const split_stage *g) {
    const char *how = g->keep_match && g->keep_gap ? "Isolated" : "Removed";
    return json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern", g->literal ? "String" : "Regex",
                     g->pattern, "behavior", how, "invert", g->keep_match && !g->keep_gap);
}

/* Splits, then ByteLevel, which may put a space in front: before the words are made of bytes and after the splits, or
 * before GPT-2's split, which it knows. */
static gist_status byte_splits(const tokenizer *t, json_t **out, gist_error *err) {
    int n = t->stages, own = n;
    bool prefix = false, regex = false;
    for (int i = 0; i < n; i++) {
        if (t->stage[i].re) continue;
        prefix = true;
        own = i;
        regex = i + 2 == n && strcmp(t->stage[i + 1].pattern, tok_pattern_gpt2) == 0;
    }
    if (prefix && !regex && own + 1 != n)
        return err_set(err, GIST_ERR_UNSUPPORTED, "tokenizer.json cannot put a space in front of these splits");
    json_t *list = json_array();
    int bad = !list;
    for (int i = 0; i < own && !bad; i++) bad = json_array_append_new(list, split_json(&t->stage[i]));
    if (!bad) bad = json_array_append_new(list, byte_level(prefix, regex));
    if (bad) {
        json_decref(list);
        return err_memory(err, "tokenizer.json");
    }
    *out = json_pack("{s:s, s:o}", "type", "Sequence", "pretokenizers", list);
    return *out ? GIST_OK : err_memory(err, "tokenizer.json");
}

static json_t *space_normalizer(const tokenizer *t) {
    json_t *replace =
        json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern", "String", " ", "content", TOK_SPACE);
    if (t->prefix != PREFIX_ALWAYS) return replace;
    return json_pack("{s:s, s:[{s:s, s:s}, o]}", "type", "Sequence", "normalizers", "type", "Prepend", "prepend",
                     TOK_SPACE, replace);
}

static json_t *metaspace(const tokenizer *t) {
    const char *scheme = t->prefix == PREFIX_MISSING ? "always" : t->prefix == PREFIX_FIRST ? "first" : "never";
    return json_pack("{s:s, s:s, s:s, s:b}", "type", "Metaspace", "replacement", TOK_SPACE, "prepend_scheme", scheme,
                     "split", t->cut == CUT_SPACES);
}

static json_t *decoder_json(const tokenizer *t) {
    if (t->model != TOK_SENTENCEPIECE) return byte_level(true, true);
    json_t *steps = json_pack("[{s:s, s:{s:s}, s:s}, {s:s}, {s:s}]", "type", "Replace", "pattern", "String", TOK_SPACE,
                              "content", " ", "type", "ByteFallback", "type", "Fuse");
    if (steps && t->prefix != PREFIX_NEVER &&
        json_array_append_new(
            steps, json_pack("{s:s, s:s, s:i, s:i}", "type", "Strip", "content", " ", "start", 1, "stop", 0)) != 0) {
        json_decref(steps);
        return NULL;
    }
    return json_pack("{s:s, s:o}", "type", "Sequence", "decoders", steps);
}

/* BOS in front of each text. */
static json_t *post_json(const tokenizer *t) {
    const char *bos = tok_piece(t, t->bos, NULL);
    if (!bos || !t->adds_bos) return t->model == TOK_SENTENCEPIECE ? json_null() : byte_level(true, true);
    return json_pack("{s:s, s:[{s:{s:s, s:i}}, {s:{s:s, s:i}}], s:[{s:{s:s, s:i}}, {s:{s:s, s:i}}, {s:{s:s, s:i}}], "
                     "s:{s:{s:s, s:[i], s:[s]}}}",
                     "type", "TemplateProcessing", "single", "SpecialToken", "id", bos, "type_id", 0, "Sequence", "id",
                     "A", "type_id", 0, "pair", "SpecialToken", "id", bos, "type_id", 0, "Sequence", "id", "A",
                     "type_id", 0, "Sequence", "id", "B", "type_id", 1, "special_tokens", bos, "id", bos, "ids",
                     (int)t->bos, "tokens", bos);
}

static json_t *form_json(tok_form form) {
    static const char *const names[] = { "", "NFC", "NFD", "NFKC", "NFKD" };
    return form == FORM_NONE ? json_null() : json_pack("{s:s}", "type", names[form]);
}

gist_status hf_save(const tokenizer *t, json_t **out, gist_error *err) {
    json_t *norm, *merges, *pre = NULL;
    if (t->model != TOK_SENTENCEPIECE) TRY(byte_splits(t, &pre, err));
    gist_status st = merges_json(t, &merges, err);
    if (st != GIST_OK) {
        json_decref(pre);
        return st;
    }
    if (t->model == TOK_SENTENCEPIECE) {
        bool meta = t->cut == CUT_SPACES || t->prefix == PREFIX_MISSING || t->prefix == PREFIX_FIRST;
        norm = t->escape_spaces && !(meta && t->prefix != PREFIX_ALWAYS) ? space_normalizer(t) : json_null();
        pre = meta ? metaspace(t) : json_null();
    } else {
        norm = form_json(t->form);
    }
    *out = json_pack("{s:s, s:n, s:n, s:o, s:o, s:o, s:o, s:o, s:o}", "version", "1.0", "truncation", "padding",
                     "added_tokens", added_json(t, false), "normalizer", norm, "pre_tokenizer", pre, "post_processor",
                     post_json(t), "decoder", decoder_json(t), "model", model_json(t, merges));
    return *out ? GIST_OK : err_memory(err, "tokenizer.json");
}

/* Do merges by pair, and what tokenizer.json can say of spaces, give the same ids? */
static bool can_be_json(const tokenizer *t) {
    if (t->by_pair || t->model == TOK_TIKTOKEN) return true;
    if (t->is_unigram || t->map.units || t->remove_extra_spaces || t->space_is_suffix || !t->escape_spaces)
        return false;
    for (size_t i = 0; i < t->v.n; i++) {
        const piece *p = &t->v.piece[i];
        uint32_t cp, c;
        if (p->type == PIECE_USER || p->type == PIECE_UNUSED) return false;
        for (uint32_t k = 0; p->type == PIECE_NORMAL && k < p->len; k += c) { /* a pair needs both its parts */
            c = (uint32_t)utf8_decode(t->v.text + p->off + k, p->len - k, &cp);
            if (c == 0 || vocab_find_normal(&t->v, t->v.text + p->off + k, c) < 0) return false;
        }
    }
    return true;
}

/* ---- tokenizer_config.json ---- */

/* The class that reads these files as they are; a unigram model that ends no text with EOS is left to config.json's
 * model_type. */
static const char *class_of(const tokenizer *t) {
    if (t->is_unigram) return t->adds_eos ? "T5Tokenizer" : NULL;
    return can_be_json(t) ? "PreTrainedTokenizerFast" : "LlamaTokenizer";
}

static json_t *config_json(const tokenizer *t) {
    json_t *c = json_pack("{s:b, s:b, s:o, s:o, s:o, s:o, s:o, s:b}", "add_bos_token", t->adds_bos, "add_eos_token",
                          t->adds_eos, "bos_token", text_json(t, t->bos), "eos_token", text_json(t, t->eos),
                          "unk_token", text_json(t, t->unk), "pad_token", text_json(t, t->pad), "added_tokens_decoder",
                          added_json(t, true), "clean_up_tokenization_spaces", 0);
    const char *cls = class_of(t);
    int bad = !c;
    if (!bad && cls) bad = json_object_set_new(c, "tokenizer_class", json_string(cls));
    if (!bad && t->is_unigram) bad = json_object_set_new(c, "extra_ids", json_integer(0)); /* they are in the decoder */
    if (!bad && t->model == TOK_SENTENCEPIECE) bad = json_object_set_new(c, "legacy", json_true());
    if (!bad && t->prefix == PREFIX_NEVER) bad = json_object_set_new(c, "add_prefix_space", json_false());
    if (!bad && t->chat) bad = json_object_set_new(c, "chat_template", json_string(t->chat));
    if (!bad) return c;
    json_decref(c);
    return NULL;
}

gist_status tok_write_dir(const tokenizer *t, const char *dir, gist_error *err) {
    if (t->model == TOK_SENTENCEPIECE && !t->by_pair) {
        sbuf bytes;
        sbuf_init(&bytes, t->alloc);
        gist_status st = sp_save(t, &bytes, err);
        if (st == GIST_OK)
            st = write_file(dir, t->is_unigram ? "spiece.model" : "tokenizer.model", t->alloc, NULL, &bytes, err);
        sbuf_free(&bytes);
        TRY(st);
    }
    if (can_be_json(t)) {
        json_t *root;
        TRY(hf_save(t, &root, err));
        TRY(write_json(dir, "tokenizer.json", t->alloc, root, err));
    }
    return write_json(dir, "tokenizer_config.json", t->alloc, config_json(t), err);
}
