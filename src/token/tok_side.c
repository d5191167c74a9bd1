/* tok_side.c - the small JSON files beside a tokenizer.
 *
 *   added_tokens.json          {text: id}
 *   tokenizer_config.json      added_tokens_decoder {id: token}; bos_token, eos_token, ...; add_bos_token
 *   special_tokens_map.json    bos_token, eos_token, ..., additional_special_tokens
 *   generation_config.json     eos_token_id: one id or a list; each ends an answer
 *   config.json                bos_token_id, eos_token_id, model_type
 *   chat_template.jinja        the chat template, else tokenizer_config.json's: kept, never run
 *
 * Later lines of this table speak only where earlier ones are silent; tokens' flags are those of the decoder.  A token
 * that is named without an id and is not in the vocabulary is left out: we add no rows (but <GIST>, tok_add_gist).
 * T5's sentinels are the exception: its code puts them behind the pieces, the last one first, as many as extra_ids
 * says.
 */
#include "token/token_int.h"

gist_status json_bytes(const void *bytes, size_t len, const char *what, json_t **out, gist_error *err) {
    json_error_t why;
    if (len > TOK_MAX_FILE)
        return err_set(err, GIST_ERR_LIMIT, "%s: %zu bytes, at most %zu are allowed", what, len, TOK_MAX_FILE);
    json_t *root = len ? json_loadb(bytes, len, JSON_REJECT_DUPLICATES, &why) : NULL;
    if (!len) return err_set(err, GIST_ERR_FORMAT, "%s: the file is empty", what);
    if (!root && json_error_code(&why) == json_error_out_of_memory) return err_memory(err, what);
    if (!root)
        return err_at(err, GIST_ERR_FORMAT, (uint64_t)(why.position > 0 ? why.position : 0), "%s: line %d: %.200s",
                      what, why.line, why.text);
    if (!json_is_object(root)) {
        json_decref(root);
        return err_set(err, GIST_ERR_FORMAT, "%s: the file is not a JSON object", what);
    }
    *out = root;
    return GIST_OK;
}

gist_status json_file(const char *path, const char *what, json_t **out, gist_error *err) {
    file_map m;
    TRY(map_open(path, &m, err));
    gist_status st = json_bytes(m.data, m.size, what, out, err);
    map_close(&m);
    return st;
}

static gist_status load_one(const gist_allocator *alloc, const char *dir, const char *name, json_t **out,
                            gist_error *err) {
    char *path = path_join(alloc, dir, name);
    if (!path) return err_memory(err, name);
    gist_status st = path_exists(path) ? json_file(path, name, out, err) : GIST_OK;
    mem_free(alloc, path);
    return st;
}

static gist_status load_chat(const gist_allocator *alloc, const char *dir, file_map *out, gist_error *err) {
    char *path = path_join(alloc, dir, "chat_template.jinja");
    if (!path) return err_memory(err, "chat_template.jinja");
    gist_status st = path_exists(path) ? map_open(path, out, err) : GIST_OK;
    mem_free(alloc, path);
    return st;
}

gist_status side_load(side_files *s, const gist_allocator *alloc, const char *dir, gist_error *err) {
    TRY(load_chat(alloc, dir, &s->chat, err));
    TRY(load_one(alloc, dir, "tokenizer_config.json", &s->tokenizer_config, err));
    TRY(load_one(alloc, dir, "special_tokens_map.json", &s->special_map, err));
    TRY(load_one(alloc, dir, "added_tokens.json", &s->added, err));
    TRY(load_one(alloc, dir, "generation_config.json", &s->generation, err));
    return load_one(alloc, dir, "config.json", &s->config, err);
}

void side_free(side_files *s) {
    json_decref(s->tokenizer_config);
    json_decref(s->special_map);
    json_decref(s->added);
    json_decref(s->generation);
    json_decref(s->config);
    if (s->chat.data) map_close(&s->chat);
}

static gist_status apply_added(tokenizer *t, const json_t *added, gist_error *err) {
    static const added_token plain = { .special = false };
    const char *text;
    json_t *id;
    json_object_foreach((json_t *)(uintptr_t)added, text, id) {
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= TOK_MAX_IDS)
            return err_set(err, GIST_ERR_FORMAT, "added_tokens.json: the id of \"%.64s\" is not in [0, %d)", text,
                           TOK_MAX_IDS);
        int32_t have = vocab_find(&t->v, text, strlen(text));
        if (have >= 0 && t->v.piece[have].added && have == json_integer_value(id)) continue; /* its flags are known */
        TRY(tok_add(t, text, strlen(text), (int32_t)json_integer_value(id), &plain, "added_tokens.json", err));
    }
    return GIST_OK;
}

static added_token token_flags(const json_t *a) {
    return (added_token){ .special = json_flag(a, "special", true),
                          .lstrip = json_flag(a, "lstrip", false),
                          .rstrip = json_flag(a, "rstrip", false),
                          .single_word = json_flag(a, "single_word", false),
                          .normalized = json_flag(a, "normalized", false) };
}

/* added_tokens_decoder: {"32000": {"content": ...}} */
static gist_status apply_decoder(tokenizer *t, const json_t *decoder, gist_error *err) {
    static const char what[] = "tokenizer_config.json";
    const char *key;
    json_t *a;
    json_object_foreach((json_t *)(uintptr_t)decoder, key, a) {
        int32_t id = 0;
        const char *k = key, *text = json_text(a, "content", NULL);
        for (; *k >= '0' && *k <= '9' && id < TOK_MAX_IDS; k++) id = id * 10 + (*k - '0');
        if (*k || k == key || id >= TOK_MAX_IDS || !text)
            return err_set(err, GIST_ERR_FORMAT,
                           "%s: added_tokens_decoder has \"%.32s\" without content or no id in [0, %d)", what, key,
                           TOK_MAX_IDS);
        added_token flags = token_flags(a);
        flags.special = json_flag(a, "special", false);
        TRY(tok_add(t, text, strlen(text), id, &flags, what, err));
    }
    return GIST_OK;
}

/* A special token as a text or as an object with content; NULL: none */
static const char *token_text(const json_t *v) {
    return json_is_string(v) ? json_string_value(v) : json_text(v, "content", NULL);
}

static gist_status mark_special(tokenizer *t, const json_t *v, const char *what, gist_error *err) {
    const char *text = token_text(v);
    int32_t id = text ? vocab_find(&t->v, text, strlen(text)) : -1;
    if (id < 0) return GIST_OK;
    uint32_t at = t->v.piece[id].added;
    added_token flags = at ? t->added.a[at - 1] : token_flags(v);
    flags.special = true;
    return tok_add(t, text, strlen(text), id, &flags, what, err);
}

static gist_status mark_all_special(tokenizer *t, const json_t *obj, const char *what, gist_error *err) {
    static const char *const keys[] = { "bos_token", "eos_token", "unk_token", "pad_token",
                                        "sep_token", "cls_token", "mask_token" };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        TRY(mark_special(t, json_object_get(obj, keys[i]), what, err));
    static const char *const lists[] = { "additional_special_tokens", "extra_special_tokens" };
    for (size_t k = 0; k < sizeof lists / sizeof *lists; k++) {
        json_t *more = json_object_get(obj, lists[k]), *v;
        const char *name;
        for (size_t i = 0; i < json_array_size(more); i++) TRY(mark_special(t, json_array_get(more, i), what, err));
        json_object_foreach(more, name, v) TRY(mark_special(t, v, what, err));
    }
    return GIST_OK;
}

/* *id := the token that obj names under key; null is a clear "none".  False: obj does not say; an empty text, which the
 * first conversions of LLaMA have, says nothing either. */
static bool named_token(const tokenizer *t, const json_t *obj, const char *key, int32_t *id) {
    const json_t *v = json_object_get(obj, key);
    const char *text = token_text(v);
    if (!v || (text && !*text)) return false;
    *id = text ? vocab_find(&t->v, text, strlen(text)) : -1;
    return true;
}

static void add_ends(tokenizer *t, const json_t *v) {
    for (size_t i = 0; i < json_array_size(v); i++) add_ends(t, json_array_get(v, i));
    if (json_is_integer(v) && json_integer_value(v) >= 0 && json_integer_value(v) < TOK_MAX_IDS)
        tok_add_end(t, (int32_t)json_integer_value(v));
}

static int32_t first_id(const tokenizer *t, const json_t *v) {
    if (json_is_array(v)) v = json_array_get(v, 0);
    bool ok = json_is_integer(v) && json_integer_value(v) >= 0 && json_integer_value(v) < (json_int_t)t->v.n;
    return ok ? (int32_t)json_integer_value(v) : -1;
}

static bool is_t5(const tokenizer *t, const side_files *s) {
    const char *cls = json_text(s->tokenizer_config, "tokenizer_class", NULL);
    bool t5 = cls ? strncmp(cls, "T5Tokenizer", 11) == 0 : strcmp(json_text(s->config, "model_type", ""), "t5") == 0;
    return t5 && t->is_unigram;
}

/* <extra_id_n-1> ... <extra_id_0> as ids first, first + 1, ...; n = 100 unless the file says otherwise. */
static gist_status apply_sentinels(tokenizer *t, const side_files *s, size_t first, gist_error *err) {
    static const added_token flags = { .special = true };
    const json_t *count = json_object_get(s->tokenizer_config, "extra_ids");
    json_int_t n = count ? json_integer_value(count) : 100;
    if (tok_find(t, "<extra_id_0>") >= 0) return GIST_OK; /* a file named them */
    if (n < 0 || n > TOK_MAX_IDS || (count && !json_is_integer(count)))
        return err_set(err, GIST_ERR_FORMAT, "tokenizer_config.json: extra_ids is not an integer in [0, %d]",
                       TOK_MAX_IDS);
    for (json_int_t i = 0; i < n; i++) {
        char name[48];
        snprintf(name, sizeof name, "<extra_id_%lld>", (long long)(n - 1 - i));
        TRY(tok_add(t, name, strlen(name), (int32_t)first + (int32_t)i, &flags, "extra_ids", err));
    }
    return GIST_OK;
}

/* One template, or several with names: then the one of the name "default". */
static const char *config_chat(const json_t *v) {
    if (json_is_string(v)) return json_string_value(v);
    for (size_t i = 0; i < json_array_size(v); i++) {
        const json_t *named = json_array_get(v, i);
        if (strcmp(json_text(named, "name", ""), "default") == 0) return json_text(named, "template", NULL);
    }
    return NULL;
}

static gist_status apply_chat(tokenizer *t, const side_files *s, gist_error *err) {
    const char *text = (const char *)s->chat.data;
    size_t len = s->chat.size;
    if (!text) text = config_chat(json_object_get(s->tokenizer_config, "chat_template"));
    if (text && !s->chat.data) len = strlen(text);
    return text ? tok_keep_chat(t, text, len, err) : GIST_OK;
}

gist_status side_apply(tokenizer *t, const side_files *s, gist_error *err) {
    size_t pieces = t->v.n;
    bool t5 = is_t5(t, s);
    TRY(apply_added(t, s->added, err));
    TRY(apply_decoder(t, json_object_get(s->tokenizer_config, "added_tokens_decoder"), err));
    if (t5) TRY(apply_sentinels(t, s, pieces, err));
    TRY(mark_all_special(t, s->special_map, "special_tokens_map.json", err));
    TRY(mark_all_special(t, s->tokenizer_config, "tokenizer_config.json", err));
    if (!named_token(t, s->tokenizer_config, "bos_token", &t->bos) &&
        !named_token(t, s->special_map, "bos_token", &t->bos) && t->bos < 0)
        t->bos = first_id(t, json_object_get(s->config, "bos_token_id"));
    bool named = named_token(t, s->tokenizer_config, "eos_token", &t->eos) ||
                 named_token(t, s->special_map, "eos_token", &t->eos);
    if (!named && t->eos < 0) t->eos = first_id(t, json_object_get(s->config, "eos_token_id"));
    named_token(t, s->special_map, "pad_token", &t->pad);
    named_token(t, s->tokenizer_config, "pad_token", &t->pad);
    add_ends(t, json_object_get(s->generation, "eos_token_id"));
    add_ends(t, json_object_get(s->config, "eos_token_id"));
    t->adds_bos = json_flag(s->tokenizer_config, "add_bos_token", t->adds_bos);
    t->adds_eos |= t5;
    return apply_chat(t, s, err);
}
