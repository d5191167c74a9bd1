/* tok_save.c - the arrays of a tokenizer, as a GGUF file holds them: tok_open_parts backwards.
 *
 *   SentencePiece by score     scores as they were
 *   SentencePiece by merges    a piece's score says where its merges stand, when they stand together
 *   byte-level BPE             merges in order of rank
 *   tiktoken                   every split of a piece into two pieces is a merge, in the order of the pieces' ranks
 *
 * Arrays that would give other ids when they are read again are not made: the error names what they cannot hold.
 */
#include "token/token_int.h"

enum { TYPE_NORMAL = 1, TYPE_UNKNOWN = 2, TYPE_CONTROL = 3, TYPE_USER = 4, TYPE_UNUSED = 5, TYPE_BYTE = 6 };

typedef struct maker { /* the arrays in the making; made by mem_alloc, what is NULL is not there */
    const tokenizer *t;
    size_t n, merges;
    tok_text *token, *merge;
    float *score;
    int32_t *type, *end;
    size_t ends;
    sbuf text;               /* texts that t does not have: "[PADi]", merges; behind them the map of characters */
    size_t merge_texts, map; /* where they begin there */
} maker;

void tok_parts_free(tok_parts *p) {
    if (p->alloc) {
        mem_free(p->alloc, (void *)(uintptr_t)p->token);
        mem_free(p->alloc, (void *)(uintptr_t)p->merge);
        mem_free(p->alloc, (void *)(uintptr_t)p->score);
        mem_free(p->alloc, (void *)(uintptr_t)p->type);
        mem_free(p->alloc, (void *)(uintptr_t)p->end);
        mem_free(p->alloc, p->own);
    }
    *p = tok_parts_none();
}

static gist_status refuse(gist_error *err, const char *why) {
    return err_set(err, GIST_ERR_UNSUPPORTED, "a GGUF vocabulary cannot hold this tokenizer: %s", why);
}

/* ---- what cannot be held ---- */

static gist_status check_added(const tokenizer *t, gist_error *err) {
    for (size_t i = 0; i < t->added.n; i++) {
        const added_token *a = &t->added.a[i];
        bool spaced = t->model == TOK_SENTENCEPIECE && tok_is_normalised(t, a);
        if (a->id == t->gist || !(a->lstrip | a->rstrip | a->single_word | spaced)) continue;
        return err_set(err, GIST_ERR_UNSUPPORTED,
                       "a GGUF vocabulary cannot hold this tokenizer: added token %d, \"%.64s\", strips white space, "
                       "wants to stand alone or is normalized",
                       a->id, t->v.text + a->off);
    }
    return GIST_OK;
}

static gist_status check_sentencepiece(const tokenizer *t, gist_error *err) {
    bool bytes = false;
    for (int b = 0; b < 256; b++) bytes |= t->byte_id[b] >= 0;
    if (t->space_is_suffix) return refuse(err, "spaces are suffixes of words");
    if (!t->escape_spaces) return refuse(err, "spaces are not escaped");
    if (t->prefix != PREFIX_ALWAYS && t->prefix != PREFIX_NEVER)
        return refuse(err,
                      "a space is put in front of some texts only (tokenizer.json; a tokenizer.model puts it always)");
    if (t->cut == CUT_SPACES && !sp_spaces_lead(&t->v)) return refuse(err, "no merge crosses a space (tokenizer.json)");
    if (t->unk < 0) return refuse(err, "it has no unknown token");
    if (bytes != t->byte_fallback) return refuse(err, "it has byte pieces and does not fall back to them");
    if (!t->byte_fallback && !t->fuse_unk) return refuse(err, "unknown tokens stand one by one");
    return GIST_OK;
}

static gist_status check_bytes(const tokenizer *t, gist_error *err) {
    if (!split_name(t) && !split_pattern(t).p)
        return refuse(err, "the way it splits or normalises text has no name there");
    return GIST_OK;
}

/* ---- tokens ---- */

static int32_t gguf_type(const tokenizer *t, const piece *p) {
    if (p->type == PIECE_UNKNOWN && t->model == TOK_SENTENCEPIECE) return TYPE_UNKNOWN;
    if (p->special) return TYPE_CONTROL;
    if (p->added) return TYPE_USER;
    return p->type;
}

static gist_status put_tokens(maker *m, gist_error *err) {
    const tokenizer *t = m->t;
    for (size_t i = 0; i < m->n; i++) {
        const piece *p = i < t->v.n && t->v.piece[i].type != PIECE_NONE ? &t->v.piece[i] : NULL;
        if (!p) sbuf_fmt(&m->text, "[PAD%zu]", i);
        m->type[i] = p ? gguf_type(t, p) : TYPE_UNUSED;
        if (!m->score) continue;
        m->score[i] = !p ? -10000.0f : p->added && m->type[i] != TYPE_UNKNOWN ? -1000.0f : p->score;
        if (m->type[i] == TYPE_USER && !p->added && m->score[i] == -1000.0f) m->score[i] = 0; /* that means added */
    }
    return m->text.failed ? err_memory(err, "vocabulary") : GIST_OK;
}

/* Texts, once the buffer stands still. */
static void point(maker *m) {
    const tokenizer *t = m->t;
    const char *s = m->text.p;
    for (size_t i = 0; i < m->n; i++) {
        size_t len;
        const char *text = tok_piece(t, (int32_t)i, &len);
        if (text) {
            m->token[i] = (tok_text){ text, len };
        } else {
            len = (size_t)(strchr(s, ']') + 1 - s);
            m->token[i] = (tok_text){ s, len };
            s += len;
        }
    }
    s = m->text.p + m->merge_texts;
    for (size_t i = 0; i < m->merges; i++) { /* their lengths are known already */
        m->merge[i].p = s;
        s += m->merge[i].len;
    }
}

/* ---- merges ---- */

static gist_status put_merge(maker *m, size_t i, int32_t left, int32_t right, gist_error *err) {
    const tokenizer *t = m->t;
    const piece *a = &t->v.piece[left], *b = &t->v.piece[right];
    sbuf_add(&m->text, t->v.text + a->off, a->len);
    sbuf_add(&m->text, " ", 1);
    sbuf_add(&m->text, t->v.text + b->off, b->len);
    m->merge[i].len = (size_t)a->len + b->len + 1;
    return m->text.failed ? err_memory(err, "merges") : GIST_OK;
}

static gist_status put_merges(maker *m, gist_error *err) {
    merge_slot *list;
    TRY(merges_list(m->t, &list, &m->merges, err));
    gist_status st = GIST_OK;
    m->merge = mem_alloc(m->t->alloc, m->merges, sizeof *m->merge);
    if (!m->merge) st = err_memory(err, "merges");
    for (size_t i = 0; st == GIST_OK && i < m->merges; i++) st = put_merge(m, i, list[i].left, list[i].right, err);
    mem_free(m->t->alloc, list);
    return st;
}

static bool is_scored(const piece *p) {
    return p->type == PIECE_NORMAL && !p->added;
}

/* Scores of pieces whose merges have ranks: the place of a piece's merges among those of all pieces.  They must stand
 * together, every split of a piece into two pieces must be one of them, and every character of a longer piece must be a
 * piece: that is what scores mean. */
static gist_status score_by_merges(maker *m, gist_error *err) {
    const tokenizer *t = m->t;
    static const char why[] = "its merges are not those that scores of pieces give";
    merge_slot *list;
    size_t n, splits = 0;
    int32_t place = 0;
    TRY(merges_list(t, &list, &n, err));
    for (size_t i = 0; i < t->v.n; i++) m->score[i] = is_scored(&t->v.piece[i]) ? 1.0f : m->score[i];
    bool together = true;
    for (size_t i = 0; i < n && together; i++) {
        if (i > 0 && list[i].id == list[i - 1].id) continue;
        together = m->score[list[i].id] > 0.0f; /* not placed before */
        m->score[list[i].id] = -(float)++place;
    }
    mem_free(t->alloc, list);
    for (size_t i = 0; i < t->v.n; i++) {
        const piece *p = &t->v.piece[i];
        if (!is_scored(p)) continue;
        if (m->score[i] > 0.0f) m->score[i] = -(float)++place; /* no merge makes it: a character */
        const char *s = t->v.text + p->off;
        for (uint32_t k = 0, c; k < p->len; k += c) {
            uint32_t cp;
            c = (uint32_t)utf8_decode(s + k, p->len - k, &cp);
            if (c == 0 || vocab_find_normal(&t->v, s + k, c) < 0) return refuse(err, why);
            splits += k > 0 && vocab_find_normal(&t->v, s, k) >= 0 && vocab_find_normal(&t->v, s + k, p->len - k) >= 0;
        }
    }
    return together && splits == n ? GIST_OK : refuse(err, why);
}

/* ---- all of it ---- */

static gist_status make(maker *m, gist_error *err) {
    const gist_allocator *alloc = m->t->alloc;
    TRY(m->t->model == TOK_SENTENCEPIECE ? check_sentencepiece(m->t, err) : check_bytes(m->t, err));
    TRY(check_added(m->t, err));
    m->token = mem_alloc(alloc, m->n, sizeof *m->token);
    m->type = mem_alloc(alloc, m->n, sizeof *m->type);
    m->end = mem_alloc(alloc, (size_t)m->t->ends, sizeof *m->end);
    bool scored = m->t->model == TOK_SENTENCEPIECE;
    if (scored) m->score = mem_alloc(alloc, m->n, sizeof *m->score);
    if (!m->token || !m->type || !m->end || (scored && !m->score)) return err_memory(err, "vocabulary");
    for (int i = 0; i < m->t->ends; i++)
        if (m->t->end[i] != m->t->eos) m->end[m->ends++] = m->t->end[i];
    sbuf_str(&m->text, "");
    TRY(put_tokens(m, err));
    m->merge_texts = m->text.len;
    if (m->t->model != TOK_SENTENCEPIECE)
        TRY(put_merges(m, err));
    else if (m->t->by_pair)
        TRY(score_by_merges(m, err));
    m->map = m->text.len;
    charsmap_save(&m->t->map, &m->text);
    if (m->text.failed) return err_memory(err, "vocabulary");
    point(m);
    return GIST_OK;
}

static tok_text text_of(const char *s) {
    return (tok_text){ s, s ? strlen(s) : 0 };
}

static void describe(const tokenizer *t, tok_parts *p) {
    bool sp = t->model == TOK_SENTENCEPIECE;
    p->model = text_of(!sp ? "gpt2" : t->is_unigram ? "t5" : "llama");
    const char *name = sp ? "default" : split_name(t);
    p->pre = text_of(name ? name : "default");
    if (!name) p->pattern = split_pattern(t);
    p->bos = t->bos;
    p->eos = t->eos;
    p->unk = t->unk;
    p->pad = t->pad;
    p->add_bos = t->adds_bos;
    p->add_eos = t->adds_eos;
    p->add_space_prefix = sp && t->prefix != PREFIX_NEVER;
    p->remove_extra_whitespaces = sp ? t->remove_extra_spaces : -1;
    p->chat_template = text_of(t->chat);
}

gist_status tok_parts_of(const tokenizer *t, int rows, tok_parts *out, gist_error *err) {
    if (rows && (size_t)rows < t->v.n)
        return err_set(err, GIST_ERR_MISMATCH, "the tokenizer has %zu tokens, the model has rows for %d", t->v.n, rows);
    maker m = { .t = t, .n = rows ? (size_t)rows : t->v.n };
    sbuf_init(&m.text, t->alloc);
    gist_status st = make(&m, err);
    tok_parts p = tok_parts_none();
    p.alloc = t->alloc;
    p.token = m.token;
    p.tokens = m.n;
    p.merge = m.merge;
    p.merges = m.merges;
    p.score = m.score;
    p.type = m.type;
    p.end = m.end;
    p.ends = m.ends;
    p.own = m.text.p;
    if (st == GIST_OK && t->map.units) {
        p.charsmap = m.text.p + m.map;
        p.charsmap_len = m.text.len - m.map;
    }
    if (st == GIST_OK) {
        describe(t, &p);
        *out = p;
    } else {
        tok_parts_free(&p);
    }
    return st;
}
