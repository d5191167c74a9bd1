/* tok_encode.c - text -> ids: added tokens are cut out, what lies between them goes through the model.
 *
 *   "Hi <GIST> you" --raw--> "Hi" | <GIST> | "you" --normalise--> ... --norm--> ... --> stages or SentencePiece
 *      lstrip/rstrip: the white space beside <GIST> belongs to it
 *
 * Two passes, as in tokenizer.json: tokens that are matched in the raw text, then, in each normalised stretch, those
 * that are matched there (differs: special tokens are all matched in the raw text, where their places are known).
 * Special tokens are seen only where the caller allows it (its own template, never a user's text); other added tokens
 * always, as Hugging Face and llama.cpp do.
 */
#include <utf8proc.h>

#include "token/token_int.h"

void tok_ids_init(tok_ids *v, const gist_allocator *alloc) {
    *v = (tok_ids){ .alloc = alloc };
}

void tok_ids_free(tok_ids *v) {
    mem_free(v->alloc, v->id);
    *v = (tok_ids){ .alloc = v->alloc };
}

gist_status tok_ids_push(tok_ids *v, int32_t id, gist_error *err) {
    if (v->n == v->cap) {
        size_t cap = v->cap ? v->cap * 2 : 64;
        int32_t *p = mem_resize(v->alloc, v->id, v->cap, cap, sizeof *p);
        if (!p) return err_memory(err, "token ids");
        v->id = p;
        v->cap = cap;
    }
    v->id[v->n++] = id;
    return GIST_OK;
}

/* ---- ids of merged symbols ---- */

gist_status encode_unknown(encoder *e, const char *s, size_t len) {
    const tokenizer *t = e->t;
    if (t->byte_fallback) {
        for (size_t i = 0; i < len; i++) TRY(tok_ids_push(e->out, t->byte_id[(uint8_t)s[i]], e->err));
        return GIST_OK;
    }
    if (t->unk < 0) {
        return err_set(e->err, GIST_ERR_TEXT, "the vocabulary has no token for \"%.*s\" and no unknown token",
                       len > 16 ? 16 : (int)len, s);
    }
    if (e->after_unk && t->fuse_unk) return GIST_OK;
    e->after_unk = true;
    return tok_ids_push(e->out, t->unk, e->err);
}

/* An unused piece is never put out: back to the two parts it was merged from. */
static gist_status push_piece(encoder *e, const char *s, size_t len, int32_t id) {
    const tokenizer *t = e->t;
    if (id < 0) {
        id = vocab_find(&t->v, s, len);
        uint8_t type = id < 0 ? PIECE_NONE : t->v.piece[id].type;
        if (type != PIECE_NORMAL && type != PIECE_USER && type != PIECE_UNUSED) return encode_unknown(e, s, len);
    }
    if (id == t->unk) return encode_unknown(e, s, len);
    size_t left = t->v.piece[id].type == PIECE_UNUSED && e->work.unused_left ? (size_t)e->work.unused_left[id] : 0;
    if (left > 0 && left < len) {
        TRY(push_piece(e, s, left, -1));
        return push_piece(e, s + left, len - left, -1);
    }
    e->after_unk = false;
    return tok_ids_push(e->out, id, e->err);
}

gist_status encode_symbols(encoder *e, const char *text) {
    for (int32_t i = e->work.n ? 0 : -1; i >= 0; i = e->work.sym[i].next) {
        const symbol *s = &e->work.sym[i];
        TRY(push_piece(e, text + s->start, s->len, s->id));
    }
    return GIST_OK;
}

/* ---- cutting added tokens out ---- */

/* \w: letters, marks, decimal digits, connectors, joiners, and what else counts as alphabetic. */
static bool is_word_char(uint32_t cp) {
    switch (utf8proc_category((int32_t)cp)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC: return true;
    case UTF8PROC_CATEGORY_SO: /* circled and squared letters */
        return (cp >= 0x24B6 && cp <= 0x24E9) || (cp >= 0x1F130 && cp <= 0x1F149) || (cp >= 0x1F150 && cp <= 0x1F169) ||
               (cp >= 0x1F170 && cp <= 0x1F189);
    default: return cp == 0x200C || cp == 0x200D;
    }
}

static bool stands_alone(const char *s, size_t len, tok_span m) {
    uint32_t cp;
    size_t b = m.begin;
    while (b > 0 && ((uint8_t)s[--b] & 0xC0) == 0x80) {
    }
    if (m.begin > 0 && utf8_decode(s + b, len - b, &cp) && is_word_char(cp)) return false;
    return m.end == len || !utf8_decode(s + m.end, len - m.end, &cp) || !is_word_char(cp);
}

typedef struct cutter { /* where special tokens may be seen: spans, sorted, in the raw text */
    const tok_span *own;
    size_t n_own;
    bool all, none;
} cutter;

/* How long may a special token at pos be? */
static size_t special_room(cutter *c, size_t pos) {
    if (c->all) return SIZE_MAX;
    if (c->none) return 0;
    while (c->n_own > 0 && c->own[0].end <= pos) {
        c->own++;
        c->n_own--;
    }
    return c->n_own > 0 && c->own[0].begin <= pos ? c->own[0].end - pos : 0;
}

typedef gist_status (*stretch_fn)(encoder *e, const char *s, size_t len, bool first, unsigned flags);

/* Put out the tokens of m that s contains, and give each stretch between them to fn. */
static gist_status cut(encoder *e, const matcher *m, cutter c, const char *s, size_t len, unsigned flags,
                       stretch_fn fn) {
    const tokenizer *t = e->t;
    bool continued = flags & TOK_CONTINUED;
    size_t done = 0;
    for (size_t pos = 0; m->n && pos < len;) {
        const added_token *a = matcher_longest(m, &t->v, s + pos, len - pos, special_room(&c, pos));
        if (!a) {
            pos++;
            continue;
        }
        tok_span at = { pos, pos + a->len };
        pos = at.end;
        if (a->single_word && !stands_alone(s, len, at)) continue;
        if (a->lstrip && at.begin > done) at.begin -= space_tail(s + done, at.begin - done);
        if (a->rstrip) at.end += space_len(s + at.end, len - at.end);
        if (at.begin > done) TRY(fn(e, s + done, at.begin - done, done == 0 && !continued, flags));
        TRY(tok_ids_push(e->out, a->id, e->err));
        done = at.end;
        if (pos < done) pos = done;
    }
    return done < len ? fn(e, s + done, len - done, done == 0 && !continued, flags) : GIST_OK;
}

static gist_status split_stretch(encoder *e, const char *s, size_t len, bool first, unsigned flags) {
    (void)first;
    (void)flags;
    return split_encode(e, s, len, 0);
}

static gist_status raw_stretch(encoder *e, const char *s, size_t len, bool first, unsigned flags) {
    const tokenizer *t = e->t;
    if (t->model == TOK_SENTENCEPIECE) return sp_encode(e, s, len, first);
    const char *n;
    size_t n_len;
    TRY(norm_form(t->form, s, len, &e->norm, &n, &n_len, e->err));
    return cut(e, &t->norm, (cutter){ .none = true }, n, n_len, flags, split_stretch); /* no special one is in norm */
}

gist_status encode_within(const tokenizer *t, const char *text, size_t len, unsigned flags, const tok_span *own,
                          size_t n_own, tok_ids *out, gist_error *err) {
    size_t bad = 0, before = out->n;
    if (len > TOK_MAX_TEXT)
        return err_set(err, GIST_ERR_LIMIT, "text has %zu bytes, at most %zu are allowed", len, TOK_MAX_TEXT);
    if (!utf8_valid(text, len, &bad))
        return err_at(err, GIST_ERR_TEXT, bad, "text is not valid UTF-8 at byte %zu", bad);
    encoder e = { .t = t, .out = out, .err = err, .work = { .alloc = t->alloc } };
    sbuf_init(&e.norm, t->alloc);
    sbuf_init(&e.prefixed, t->alloc);
    sbuf_init(&e.mapped, t->alloc);
    cutter c = { .own = own, .n_own = n_own, .all = (flags & TOK_SPECIAL) && !own, .none = !(flags & TOK_SPECIAL) };
    gist_status st = GIST_OK;
    if ((flags & TOK_BOS) && t->bos >= 0) st = tok_ids_push(out, t->bos, err);
    if (st == GIST_OK) st = cut(&e, &t->raw, c, text, len, flags, raw_stretch);
    if (st == GIST_OK && (flags & TOK_EOS) && t->eos >= 0) st = tok_ids_push(out, t->eos, err);
    if (st != GIST_OK) out->n = before;
    sbuf_free(&e.norm);
    sbuf_free(&e.prefixed);
    sbuf_free(&e.mapped);
    merge_work_free(&e.work);
    path_work_free(&e.path, t->alloc);
    if (e.match) pcre2_match_data_free(e.match);
    return st;
}

gist_status tok_encode(const tokenizer *t, const char *text, size_t len, unsigned flags, tok_ids *out,
                       gist_error *err) {
    return encode_within(t, text, len, flags & (TOK_BOS | TOK_SPECIAL | TOK_EOS), NULL, 0, out, err);
}
