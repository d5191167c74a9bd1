/* tok_split.c - pre-tokenizer stages: a segment of text is cut by a pattern, its parts go to the next stage.
 *
 *   "Hello  world" --' ?\p{L}+|\s+...'--> "Hello" | " " | " world" --> the next stage, or byte-level BPE
 *
 * Patterns are compiled by PCRE2 with Unicode properties and run by its JIT where there is one.  They come from files:
 * length, nesting, backtracking and memory of a match are bounded, and a pattern that hits a bound is an error.
 * differs: \s and \S are rewritten as \p{WSpace} and \P{WSpace}, because PCRE2 counts U+180E as a space and the
 * engines these patterns were written for follow Unicode.
 */
#include "token/token_int.h"

/* Patterns of tokenizers whose files do not carry them (gpt-2's encoder.py, qwen2, llama-3: facts of the models). */
const char tok_pattern_gpt2[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
const char tok_pattern_qwen2[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|"
                                 " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const char tok_pattern_llama3[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|"
                                  " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

enum {
    MAX_PATTERN = 1 << 14,
    MAX_CODE = 1 << 18,  /* bytes of a compiled pattern */
    MAX_STEPS = 1 << 27, /* of one match: twice the longest text */
    MAX_MATCH_KIB = 1 << 16
};

static void *match_alloc(size_t n, void *alloc) {
    return mem_alloc(alloc, n, 1);
}

static void match_free(void *p, void *alloc) {
    mem_free(alloc, p);
}

static void *compile_alloc(size_t n, void *heap) {
    pcre_heap *h = heap;
    void *p = mem_alloc(h->alloc, n, 1);
    if (!p) h->failed = true;
    return p;
}

static void compile_free(void *p, void *heap) {
    mem_free(((pcre_heap *)heap)->alloc, p);
}

static gist_status contexts(tokenizer *t, gist_error *err) {
    if (t->limits) return GIST_OK;
    t->heap = (pcre_heap){ t->alloc, false };
    t->compiling = pcre2_general_context_create(compile_alloc, compile_free, &t->heap);
    t->pcre = pcre2_general_context_create(match_alloc, match_free, (void *)(uintptr_t)t->alloc);
    if (t->pcre) t->limits = pcre2_match_context_create(t->pcre);
    if (!t->limits || !t->compiling) return err_memory(err, "split pattern");
    pcre2_set_match_limit(t->limits, MAX_STEPS);
    pcre2_set_heap_limit(t->limits, MAX_MATCH_KIB);
    return GIST_OK;
}

static gist_status new_stage(tokenizer *t, split_stage **out, gist_error *err) {
    if (t->stages == TOK_MAX_STAGES)
        return err_set(err, GIST_ERR_LIMIT, "pre-tokenizer: more than %d stages", TOK_MAX_STAGES);
    *out = &t->stage[t->stages];
    **out = (split_stage){ 0 };
    return GIST_OK;
}

/* \s -> \p{WSpace}, \S -> \P{WSpace} */
static void rewrite(sbuf *o, const char *p, size_t len) {
    for (size_t i = 0; i < len; i++) {
        if (p[i] != '\\' || i + 1 == len) {
            sbuf_add(o, p + i, 1);
            continue;
        }
        i++;
        if (p[i] == 's')
            sbuf_str(o, "\\p{WSpace}");
        else if (p[i] == 'S')
            sbuf_str(o, "\\P{WSpace}");
        else
            sbuf_add(o, p + i - 1, 2);
    }
}

static gist_status compile(tokenizer *t, split_stage *g, const char *p, size_t len, bool literal, gist_error *err) {
    t->heap.failed = false;
    pcre2_compile_context *ctx = pcre2_compile_context_create(t->compiling);
    if (!ctx) return err_memory(err, "split pattern");
    pcre2_set_parens_nest_limit(ctx, 64);
    uint32_t how = PCRE2_UTF | (literal ? PCRE2_LITERAL : PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C);
    int code = 0;
    PCRE2_SIZE at = 0, size = 0;
    g->re = pcre2_compile((PCRE2_SPTR)p, len, how, &code, &at, ctx);
    pcre2_compile_context_free(ctx);
    if (!g->re && t->heap.failed) return err_memory(err, "split pattern");
    if (!g->re) {
        PCRE2_UCHAR why[128] = "";
        pcre2_get_error_message(code, why, sizeof why);
        return err_set(err, GIST_ERR_UNSUPPORTED, "split pattern \"%.*s\": %s", len > 120 ? 120 : (int)len, p,
                       (const char *)why);
    }
    pcre2_pattern_info(g->re, PCRE2_INFO_SIZE, &size);
    g->jit = size <= MAX_CODE && pcre2_jit_compile(g->re, PCRE2_JIT_COMPLETE) == 0; /* no JIT here: interpreted */
    if (size <= MAX_CODE && !t->heap.failed) return GIST_OK;
    pcre2_code_free(g->re);
    g->re = NULL;
    if (t->heap.failed) return err_memory(err, "split pattern");
    return err_set(err, GIST_ERR_LIMIT, "split pattern compiles to %zu bytes, at most %d are allowed", size, MAX_CODE);
}

gist_status split_add(tokenizer *t, const char *pattern, size_t len, bool literal, bool keep_match, bool keep_gap,
                      gist_error *err) {
    if (len == 0 || len > MAX_PATTERN)
        return err_set(err, GIST_ERR_LIMIT, "split pattern has %zu bytes, 1 to %d are allowed", len, MAX_PATTERN);
    split_stage *g = NULL;
    TRY(contexts(t, err));
    TRY(new_stage(t, &g, err));
    g->pattern = mem_strndup(t->alloc, pattern, len);
    if (!g->pattern) return err_memory(err, "split pattern");
    sbuf p;
    sbuf_init(&p, t->alloc);
    if (literal)
        sbuf_add(&p, pattern, len);
    else
        rewrite(&p, pattern, len);
    gist_status st = p.failed ? err_memory(err, "split pattern") : compile(t, g, p.p, p.len, literal, err);
    sbuf_free(&p);
    if (st != GIST_OK) {
        mem_free(t->alloc, g->pattern);
        return st;
    }
    g->pattern_len = len;
    g->literal = literal;
    g->keep_match = keep_match;
    g->keep_gap = keep_gap;
    t->stages++;
    return GIST_OK;
}

gist_status split_add_prefix(tokenizer *t, gist_error *err) {
    split_stage *g = NULL;
    for (int i = 0; i < t->stages; i++)
        if (!t->stage[i].re) return err_set(err, GIST_ERR_UNSUPPORTED, "pre-tokenizer: add_prefix_space twice");
    TRY(new_stage(t, &g, err));
    t->stages++;
    return GIST_OK;
}

/* ---- by name ---- */

/* What GGUF calls a way of splitting text stands for more than patterns.  The first name of a row is the one we write.
 * */
typedef struct named_split {
    const char *name[3];
    const char *pattern[2];
    tok_form form;
    bool ignore_merges, adds_bos;
} named_split;

static const named_split named[] = {
    { { "gpt-2", "default" }, { tok_pattern_gpt2 }, FORM_NONE, false, false },
    { { "llama-bpe", "llama3", "llama-v3" }, { tok_pattern_llama3 }, FORM_NONE, true, true },
    { { "qwen2" }, { tok_pattern_qwen2 }, FORM_NFC, false, false },
    { { "smollm" }, { "\\p{N}", tok_pattern_gpt2 }, FORM_NONE, false, false },
};

static bool is_named(const named_split *s, tok_text name) {
    for (int i = 0; i < 3 && s->name[i]; i++)
        if (strlen(s->name[i]) == name.len && memcmp(s->name[i], name.p, name.len) == 0) return true;
    return false;
}

gist_status split_add_named(tokenizer *t, tok_text name, gist_error *err) {
    if (!name.p)
        return err_set(
            err, GIST_ERR_UNSUPPORTED,
            "vocabulary: it does not say how text is split (tokenizer.ggml.pre); newer converters write that");
    for (size_t k = 0; k < sizeof named / sizeof *named; k++) {
        const named_split *s = &named[k];
        if (!is_named(s, name)) continue;
        t->form = s->form;
        t->ignore_merges = s->ignore_merges;
        t->adds_bos = s->adds_bos;
        for (int i = 0; i < 2 && s->pattern[i]; i++)
            TRY(split_add(t, s->pattern[i], strlen(s->pattern[i]), false, true, true, err));
        return GIST_OK;
    }
    return err_set(err, GIST_ERR_UNSUPPORTED,
                   "vocabulary: text is split as \"%.*s\" (tokenizer.ggml.pre); gpt-2, default, llama-bpe, qwen2 and "
                   "smollm are known",
                   name.len > 32 ? 32 : (int)name.len, name.p);
}

static bool is_stage(const split_stage *g, const char *pattern) {
    return g->re && !g->literal && g->keep_match && g->keep_gap && g->pattern_len == strlen(pattern) &&
           memcmp(g->pattern, pattern, g->pattern_len) == 0;
}

const char *split_name(const tokenizer *t) {
    bool whole = t->ignore_merges || t->model == TOK_TIKTOKEN; /* a word that is a piece is that piece */
    for (size_t k = 0; k < sizeof named / sizeof *named; k++) {
        const named_split *s = &named[k];
        int n = s->pattern[1] ? 2 : 1, same = 0;
        if (t->stages != n || t->form != s->form || whole != s->ignore_merges) continue;
        while (same < n && is_stage(&t->stage[same], s->pattern[same])) same++;
        if (same == n) return s->name[0];
    }
    return NULL;
}

tok_text split_pattern(const tokenizer *t) {
    const split_stage *g = &t->stage[0];
    bool plain = t->stages == 1 && t->form == FORM_NONE && !t->ignore_merges && t->model == TOK_BYTE_BPE && g->re &&
                 !g->literal && g->keep_match && g->keep_gap;
    return plain ? (tok_text){ g->pattern, g->pattern_len } : (tok_text){ NULL, 0 };
}

void split_free(tokenizer *t) {
    for (int i = 0; i < t->stages; i++) {
        pcre2_code_free(t->stage[i].re);
        mem_free(t->alloc, t->stage[i].pattern);
    }
    pcre2_match_context_free(t->limits);
    pcre2_general_context_free(t->pcre);
    pcre2_general_context_free(t->compiling);
}

/* Where does g match first in s[from..len)?  *found false: nowhere. */
static gist_status find(encoder *e, const split_stage *g, const char *s, size_t len, size_t from, tok_span *m,
                        bool *found) {
    PCRE2_SPTR p = (PCRE2_SPTR)s;
    int rc = PCRE2_ERROR_JIT_STACKLIMIT;
    if (g->jit) rc = pcre2_jit_match(g->re, p, len, from, PCRE2_NO_UTF_CHECK, e->match, e->t->limits);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(g->re, p, len, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, e->match, e->t->limits);
    *found = rc >= 0;
    if (rc == PCRE2_ERROR_NOMATCH) return GIST_OK;
    if (rc == PCRE2_ERROR_NOMEMORY) return err_memory(e->err, "split pattern");
    if (rc == PCRE2_ERROR_MATCHLIMIT || rc == PCRE2_ERROR_HEAPLIMIT || rc == PCRE2_ERROR_DEPTHLIMIT)
        return err_set(e->err, GIST_ERR_LIMIT, "the split pattern takes too many steps on this text");
    if (rc < 0)
        return err_set(e->err, GIST_ERR_UNSUPPORTED, "the split pattern fails on this text (PCRE2 error %d)", rc);
    const PCRE2_SIZE *o = pcre2_get_ovector_pointer(e->match);
    *m = (tok_span){ o[0], o[1] };
    if (m->begin < from || m->end < m->begin || m->end > len) /* \K in a lookaround can do that */
        return err_set(e->err, GIST_ERR_UNSUPPORTED, "the split pattern matches outside of where it looks");
    return GIST_OK;
}

static gist_status split_by(encoder *e, const split_stage *g, const char *s, size_t len, int next) {
    size_t done = 0, from = 0;
    while (from <= len) {
        tok_span m;
        bool found;
        TRY(find(e, g, s, len, from, &m, &found));
        if (!found) break;
        if (g->keep_gap && m.begin > done) TRY(split_encode(e, s + done, m.begin - done, next));
        if (g->keep_match && m.end > m.begin) TRY(split_encode(e, s + m.begin, m.end - m.begin, next));
        done = from = m.end;
        if (m.end == m.begin) { /* an empty match: look on behind the next character */
            uint32_t cp;
            int n = from < len ? utf8_decode(s + from, len - from, &cp) : 1;
            from += n > 0 ? (size_t)n : 1;
        }
    }
    if (g->keep_gap && done < len) return split_encode(e, s + done, len - done, next);
    return GIST_OK;
}

gist_status split_encode(encoder *e, const char *s, size_t len, int stage) {
    const tokenizer *t = e->t;
    if (stage == t->stages) return bytes_encode(e, s, len);
    const split_stage *g = &t->stage[stage];
    if (g->re) {
        if (!e->match) e->match = pcre2_match_data_create(1, t->pcre);
        if (!e->match) return err_memory(e->err, "tokenizing");
        return split_by(e, g, s, len, stage + 1);
    }
    if (len == 0 || s[0] == ' ') return split_encode(e, s, len, stage + 1);
    e->prefixed.len = 0;
    sbuf_add(&e->prefixed, " ", 1);
    sbuf_add(&e->prefixed, s, len);
    if (e->prefixed.failed) return err_memory(e->err, "tokenizing");
    return split_encode(e, e->prefixed.p, e->prefixed.len, stage + 1);
}
