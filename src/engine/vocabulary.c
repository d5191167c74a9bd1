/* vocabulary.c - a tokenizer out of a GGUF file's metadata, and into one.
 *
 *   tokenizer.ggml.*  --vocabulary_open-->  tok_parts  --tok_open_parts-->  tokenizer
 *                     <--vocabulary_add---  tok_parts  <--tok_parts_of----
 *
 * What the keys mean is the token room's business (tok_parts); here they only change their form.
 */
#include "engine/engine.h"

#define KEY "tokenizer.ggml."
#define PATTERN "gist.split_pattern"

/* What the parts point to while they are read. */
typedef struct arrays {
    const gist_allocator *alloc;
    tok_text *token, *merge;
    float *score;
    int32_t *type, end[2];
} arrays;

static void arrays_free(arrays *a) {
    mem_free(a->alloc, a->token);
    mem_free(a->alloc, a->merge);
    mem_free(a->alloc, a->score);
    mem_free(a->alloc, a->type);
}

/* ---- reading ---- */

static gist_status get_text(const gguf_file *g, const char *key, bool required, tok_text *out, gist_error *err) {
    return gguf_get_string(g, key, required, &out->p, &out->len, err);
}

static gist_status get_texts(const gguf_file *g, const char *key, bool required, tok_text **out, size_t *count,
                             const gist_allocator *alloc, gist_error *err) {
    const gguf_value *v;
    TRY(gguf_get_array(g, key, required, GGUF_STRING, &v, err));
    if (!v) return GIST_OK;
    *out = mem_alloc(alloc, v->count, sizeof **out);
    if (!*out) return err_memory(err, "vocabulary");
    for (size_t i = 0; i < v->count; i++) (*out)[i].p = gguf_string_at(v, i, &(*out)[i].len);
    *count = v->count;
    return GIST_OK;
}

static gist_status check_count(const gguf_file *g, const char *key, const gguf_value *v, size_t tokens,
                               gist_error *err) {
    if (v->count == tokens) return GIST_OK;
    return err_set(err, GIST_ERR_FORMAT, "%s: %s has %zu elements, expected one for each of %zu tokens", g->what, key,
                   v->count, tokens);
}

static gist_status get_scores(const gguf_file *g, const tok_parts *p, arrays *a, gist_error *err) {
    const gguf_value *v;
    TRY(gguf_get_array(g, KEY "scores", false, GGUF_F32, &v, err));
    if (!v) return GIST_OK;
    TRY(check_count(g, KEY "scores", v, p->tokens, err));
    a->score = mem_alloc(a->alloc, v->count, sizeof *a->score);
    if (!a->score) return err_memory(err, "vocabulary");
    for (size_t i = 0; i < v->count; i++) a->score[i] = (float)gguf_float_at(v, i);
    return GIST_OK;
}

static gist_status get_types(const gguf_file *g, const tok_parts *p, arrays *a, gist_error *err) {
    const gguf_value *v;
    TRY(gguf_get_array(g, KEY "token_type", false, GGUF_I64, &v, err));
    if (!v) return GIST_OK;
    TRY(check_count(g, KEY "token_type", v, p->tokens, err));
    a->type = mem_alloc(a->alloc, v->count, sizeof *a->type);
    if (!a->type) return err_memory(err, "vocabulary");
    for (size_t i = 0; i < v->count; i++) {
        int64_t type = gguf_int_at(v, i);
        a->type[i] = type >= 0 && type <= INT8_MAX ? (int32_t)type : -1; /* judged with the parts */
    }
    return GIST_OK;
}

static gist_status get_flag(const gguf_file *g, const char *key, int *out, gist_error *err) {
    bool on = false;
    if (!gguf_value_find(g, key)) return GIST_OK;
    TRY(gguf_get_bool(g, key, false, &on, err));
    *out = on;
    return GIST_OK;
}

static gist_status get_id(const gguf_file *g, const char *key, int32_t *out, gist_error *err) {
    int64_t none = UINT32_MAX; /* how some writers say that there is none */
    const gguf_value *v = gguf_value_find(g, key);
    if (v && !v->array && (v->kind == GGUF_U32 || v->kind == GGUF_I64) && gguf_int_at(v, 0) == none) return GIST_OK;
    return gguf_get_int(g, key, false, -1, INT32_MAX, out, err);
}

static gist_status get_special(const gguf_file *g, tok_parts *p, arrays *a, gist_error *err) {
    static const char *const ends[] = { KEY "eot_token_id", KEY "eom_token_id" };
    TRY(get_id(g, KEY "bos_token_id", &p->bos, err));
    TRY(get_id(g, KEY "eos_token_id", &p->eos, err));
    TRY(get_id(g, KEY "unknown_token_id", &p->unk, err));
    TRY(get_id(g, KEY "padding_token_id", &p->pad, err));
    for (int i = 0; i < 2; i++) {
        int32_t id = -1;
        TRY(get_id(g, ends[i], &id, err));
        if (id >= 0) a->end[p->ends++] = id;
    }
    p->end = a->end;
    TRY(get_flag(g, KEY "add_bos_token", &p->add_bos, err));
    TRY(get_flag(g, KEY "add_eos_token", &p->add_eos, err));
    TRY(get_flag(g, KEY "add_space_prefix", &p->add_space_prefix, err));
    return get_flag(g, KEY "remove_extra_whitespaces", &p->remove_extra_whitespaces, err);
}

static gist_status get_charsmap(const gguf_file *g, tok_parts *p, gist_error *err) {
    const gguf_value *v;
    TRY(gguf_get_array(g, KEY "precompiled_charsmap", false, GGUF_I64, &v, err));
    if (!v) return GIST_OK;
    if (v->bytes != v->count)
        return err_set(err, GIST_ERR_FORMAT, "%s: " KEY "precompiled_charsmap: expected bytes, found %s", g->what,
                       gguf_kind_name(v->kind));
    p->charsmap = v->data;
    p->charsmap_len = v->count;
    return GIST_OK;
}

static gist_status get_parts(const gguf_file *g, tok_parts *p, arrays *a, gist_error *err) {
    TRY(get_text(g, KEY "model", true, &p->model, err));
    TRY(get_text(g, KEY "pre", false, &p->pre, err));
    TRY(get_text(g, PATTERN, false, &p->pattern, err));
    TRY(get_text(g, "tokenizer.chat_template", false, &p->chat_template, err));
    TRY(get_texts(g, KEY "tokens", true, &a->token, &p->tokens, a->alloc, err));
    TRY(get_texts(g, KEY "merges", false, &a->merge, &p->merges, a->alloc, err));
    TRY(get_scores(g, p, a, err));
    TRY(get_types(g, p, a, err));
    p->token = a->token;
    p->merge = a->merge;
    p->score = a->score;
    p->type = a->type;
    TRY(get_special(g, p, a, err));
    return get_charsmap(g, p, err);
}

gist_status vocabulary_open(const gguf_file *g, const gist_allocator *alloc, tokenizer **out, gist_error *err) {
    arrays a = { .alloc = alloc };
    tok_parts p = tok_parts_none();
    gist_status status = get_parts(g, &p, &a, err);
    if (status == GIST_OK) status = tok_open_parts(&p, alloc, out, err);
    arrays_free(&a);
    return status;
}

/* ---- writing ---- */

static void add_text(gguf_writer *w, const char *key, tok_text t) {
    if (t.p) gguf_add_string(w, key, t.p, t.len);
}

static void add_texts(gguf_writer *w, const char *key, const tok_text *t, size_t count) {
    gguf_add_array(w, key, GGUF_STRING, count);
    for (size_t i = 0; i < count; i++) gguf_put_string(w, t[i].p, t[i].len);
}

static void add_id(gguf_writer *w, const char *key, int32_t id) {
    if (id >= 0) gguf_add_int(w, key, GGUF_U32, id);
}

static void add_flag(gguf_writer *w, const char *key, int on) {
    if (on >= 0) gguf_add_bool(w, key, on != 0);
}

static void add_parts(gguf_writer *w, const tok_parts *p) {
    add_text(w, KEY "model", p->model);
    add_text(w, KEY "pre", p->pre);
    add_text(w, PATTERN, p->pattern);
    add_texts(w, KEY "tokens", p->token, p->tokens);
    if (p->score) {
        gguf_add_array(w, KEY "scores", GGUF_F32, p->tokens);
        for (size_t i = 0; i < p->tokens; i++) gguf_put_float(w, p->score[i]);
    }
    if (p->type) {
        gguf_add_array(w, KEY "token_type", GGUF_I32, p->tokens);
        for (size_t i = 0; i < p->tokens; i++) gguf_put_int(w, GGUF_I32, p->type[i]);
    }
    if (p->merge) add_texts(w, KEY "merges", p->merge, p->merges);
    add_id(w, KEY "bos_token_id", p->bos);
    add_id(w, KEY "eos_token_id", p->eos);
    add_id(w, KEY "unknown_token_id", p->unk);
    add_id(w, KEY "padding_token_id", p->pad);
    if (p->ends > 0) add_id(w, KEY "eot_token_id", p->end[0]);
    if (p->ends > 1) add_id(w, KEY "eom_token_id", p->end[1]);
    add_flag(w, KEY "add_bos_token", p->add_bos);
    add_flag(w, KEY "add_eos_token", p->add_eos);
    add_flag(w, KEY "add_space_prefix", p->add_space_prefix);
    add_flag(w, KEY "remove_extra_whitespaces", p->remove_extra_whitespaces);
    if (p->charsmap) {
        gguf_add_array(w, KEY "precompiled_charsmap", GGUF_U8, p->charsmap_len);
        for (size_t i = 0; i < p->charsmap_len; i++)
            gguf_put_int(w, GGUF_U8, ((const uint8_t *)p->charsmap)[i]);
    }
    add_text(w, "tokenizer.chat_template", p->chat_template);
}

gist_status vocabulary_add(gguf_writer *w, const tokenizer *t, int rows, const log_sink *log, gist_error *err) {
    tok_parts p;
    TRY(tok_parts_of(t, rows, &p, err));
    if (p.ends > 2)
        log_msg(log, GIST_LOG_WARN, "%zu tokens end an answer; a GGUF file has keys for three, the others are left out",
                p.ends + 1);
    if (p.pattern.p)
        log_msg(log, GIST_LOG_WARN,
                "the way the tokenizer splits text has no name in GGUF: it is kept as " PATTERN ", which others do "
                "not read; there some texts become other tokens");
    add_parts(w, &p);
    tok_parts_free(&p);
    return GIST_OK;
}
