/* tok_sp.c - SentencePiece: reader of tokenizer.model, normaliser, encoder.
 *
 *   ModelProto       1 pieces*          { 1 text, 2 score (float), 3 type }
 *                    2 trainer_spec     { 3 model_type, 24 space is suffix, 35 byte_fallback, 46 bos, 47 eos }
 *                    3 normalizer_spec  { 2 charsmap, 3 dummy prefix, 4 remove extra spaces, 5 escape spaces }
 *                    5 denormalizer_spec
 *
 * BPE and unigram models.  They differ in the segmentation of normalised text only: by merges here, or tok_unigram.c.
 * Source: the file format (sentencepiece_model.proto) and the behaviour of github.com/google/sentencepiece.
 */
#include "token/token_int.h"

/* ---- reader ---- */

enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };
enum { MODEL_UNIGRAM = 1, MODEL_BPE = 2, MODEL_WORD = 3, MODEL_CHAR = 4 };

typedef struct field {
    uint64_t number;
    uint64_t value; /* varint, fixed32, fixed64 */
    rd bytes;       /* length-delimited */
    int wire;
} field;

/* Next field of a message; false at its end or when the bytes are no field (r->failed). */
static bool field_next(rd *r, field *f) {
    if (rd_left(r) == 0 || r->failed) return false;
    uint64_t key = rd_varint(r);
    *f = (field){ .number = key >> 3, .wire = (int)(key & 7) };
    switch (f->wire) {
    case WIRE_VARINT: f->value = rd_varint(r); break;
    case WIRE_64: f->value = rd_u64(r); break;
    case WIRE_32: f->value = rd_u32(r); break;
    case WIRE_BYTES: {
        uint64_t n = rd_varint(r);
        if (n > rd_left(r))
            r->failed = true;
        else
            rd_init(&f->bytes, rd_bytes(r, (size_t)n), (size_t)n);
        break;
    }
    default: r->failed = true;
    }
    if (f->number == 0) r->failed = true;
    return !r->failed;
}

typedef struct sp_spec { /* what the file says, with the format's defaults */
    uint64_t model_type;
    bool byte_fallback, space_is_suffix, dummy_prefix, remove_extra_spaces, escape_spaces;
    bool has_normalizer;
    rd charsmap, bos, eos; /* the last two: texts of the special pieces */
} sp_spec;

static bool is_wire(const field *f, int wire, rd *r) {
    if (f->wire != wire) r->failed = true;
    return f->wire == wire;
}

static void get_number(const field *f, rd *r, uint64_t *out) {
    if (is_wire(f, WIRE_VARINT, r)) *out = f->value;
}

static void get_flag(const field *f, rd *r, bool *out) {
    if (is_wire(f, WIRE_VARINT, r)) *out = f->value != 0;
}

static void get_bytes(const field *f, rd *r, rd *out) {
    if (is_wire(f, WIRE_BYTES, r)) *out = f->bytes;
}

static bool read_trainer(rd *r, sp_spec *s) {
    for (field f; field_next(r, &f);) {
        switch (f.number) {
        case 3: get_number(&f, r, &s->model_type); break;
        case 24: get_flag(&f, r, &s->space_is_suffix); break;
        case 35: get_flag(&f, r, &s->byte_fallback); break;
        case 46: get_bytes(&f, r, &s->bos); break;
        case 47: get_bytes(&f, r, &s->eos); break;
        default: break;
        }
    }
    return !r->failed;
}

static bool read_normalizer(rd *r, sp_spec *s) {
    s->has_normalizer = true;
    for (field f; field_next(r, &f);) {
        switch (f.number) {
        case 2: get_bytes(&f, r, &s->charsmap); break;
        case 3: get_flag(&f, r, &s->dummy_prefix); break;
        case 4: get_flag(&f, r, &s->remove_extra_spaces); break;
        case 5: get_flag(&f, r, &s->escape_spaces); break;
        default: break;
        }
    }
    return !r->failed;
}

/* "<0x0A>" -> 10; -1 for any other text */
static int byte_piece(const char *s, size_t len) {
    static const char digits[] = "0123456789ABCDEF";
    if (len != 6 || memcmp(s, "<0x", 3) != 0 || s[5] != '>' || !s[3] || !s[4]) return -1;
    const char *hi = strchr(digits, s[3]), *lo = strchr(digits, s[4]);
    return hi && lo ? (int)((hi - digits) * 16 + (lo - digits)) : -1;
}

static gist_status read_piece(tokenizer *t, rd *r, int32_t id, gist_error *err) {
    rd text = { 0 };
    uint64_t type = PIECE_NORMAL;
    uint32_t bits = 0;
    for (field f; field_next(r, &f);) {
        switch (f.number) {
        case 1: get_bytes(&f, r, &text); break;
        case 2: bits = is_wire(&f, WIRE_32, r) ? (uint32_t)f.value : 0; break;
        case 3: get_number(&f, r, &type); break;
        default: break;
        }
    }
    if (r->failed) return err_set(err, GIST_ERR_FORMAT, "tokenizer.model: piece %d is cut off or malformed", id);
    float score;
    memcpy(&score, &bits, sizeof score);
    return sp_put_piece(t, id, (const char *)text.p, text.len, type, score, "tokenizer.model", err);
}

/* ---- pieces, whatever file they came from ---- */

gist_status sp_put_piece(tokenizer *t, int32_t id, const char *text, size_t len, uint64_t type, float score,
                         const char *what, gist_error *err) {
    if (type < PIECE_NORMAL || type > PIECE_BYTE)
        return err_set(err, GIST_ERR_FORMAT, "%s: piece %d has type %llu, types 1 to 6 are known", what, id,
                       (unsigned long long)type);
    if (!(score - score == 0.0f)) /* not finite */
        return err_set(err, GIST_ERR_FORMAT, "%s: piece %d has a score that is not a number", what, id);
    if (len && !utf8_valid(text, len, NULL))
        return err_set(err, GIST_ERR_FORMAT, "%s: the text of piece %d is not UTF-8", what, id);
    TRY(vocab_set(&t->v, id, text, len, (piece_type)type, what, err));
    t->v.piece[id].score = score;
    if (type == PIECE_BYTE) {
        int b = byte_piece(text, len);
        if (b < 0 || t->byte_id[b] >= 0)
            return err_set(err, GIST_ERR_FORMAT, "%s: byte piece %d is \"%.*s\", not a new <0xHH>", what, id,
                           len > 64 ? 64 : (int)len, text);
        t->byte_id[b] = id;
    } else if (type == PIECE_UNKNOWN) {
        if (t->unk >= 0)
            return err_set(err, GIST_ERR_FORMAT, "%s: pieces %d and %d are both the unknown", what, t->unk, id);
        t->unk = id;
    }
    t->has_unused |= type == PIECE_UNUSED;
    return GIST_OK;
}

static bool is_mergeable(const piece *p) {
    return p->type == PIECE_NORMAL || p->type == PIECE_USER || p->type == PIECE_UNUSED;
}

typedef struct scored {
    float score;
    int32_t id;
} scored;

/* Ranks from scores: the highest is 0, equal scores share a rank; pieces that no merge makes have none.  Bottom-up
 * merge sort. */
static gist_status rank_pieces(tokenizer *t, gist_error *err) {
    size_t n = 0;
    scored *x = mem_alloc(t->alloc, t->v.n * 2, sizeof *x);
    if (!x) return err_memory(err, "vocabulary");
    for (size_t i = 0; i < t->v.n; i++)
        if (is_mergeable(&t->v.piece[i])) x[n++] = (scored){ t->v.piece[i].score, (int32_t)i };
    scored *from = x, *to = x + n;
    for (size_t run = 1; run < n; run *= 2) {
        for (size_t i = 0; i < n; i += 2 * run) {
            size_t mid = i + run < n ? i + run : n, end = i + 2 * run < n ? i + 2 * run : n;
            for (size_t a = i, b = mid, k = i; k < end; k++)
                to[k] = b >= end || (a < mid && from[a].score >= from[b].score) ? from[a++] : from[b++];
        }
        scored *swap = from;
        from = to;
        to = swap;
    }
    for (size_t i = 0, rank = 0; i < n; i++) {
        if (i > 0 && from[i].score < from[i - 1].score) rank = i;
        t->v.piece[from[i].id].rank = (int32_t)rank;
    }
    mem_free(t->alloc, x);
    return GIST_OK;
}

/* First pass: the specs, and how many pieces there are. */
static gist_status read_specs(const void *bytes, size_t len, sp_spec *s, size_t *pieces, gist_error *err) {
    rd r;
    rd_init(&r, bytes, len);
    for (field f; field_next(&r, &f);) {
        bool ok = true;
        if (f.number == 1 || f.number == 2 || f.number == 3 || f.number == 5) ok = is_wire(&f, WIRE_BYTES, &r);
        if (!ok) break;
        if (f.number == 1) ++*pieces;
        if (f.number == 2 && !read_trainer(&f.bytes, s))
            return err_set(err, GIST_ERR_FORMAT, "tokenizer.model: trainer_spec is cut off or malformed");
        if (f.number == 3 && !read_normalizer(&f.bytes, s))
            return err_set(err, GIST_ERR_FORMAT, "tokenizer.model: normalizer_spec is cut off or malformed");
        sp_spec back = { 0 };
        if (f.number == 5 && (!read_normalizer(&f.bytes, &back) || back.charsmap.len))
            return err_set(err, GIST_ERR_UNSUPPORTED, "tokenizer.model: denormalizer_spec is not supported");
    }
    if (r.failed)
        return err_at(err, GIST_ERR_FORMAT, r.pos, "tokenizer.model: cut off or no SentencePiece file (byte %zu)",
                      r.pos);
    return GIST_OK;
}

static gist_status check_specs(const sp_spec *s, size_t pieces, gist_error *err) {
    static const char *const names[] = { "of unknown kind", "unigram", "BPE", "word", "char" };
    if (pieces == 0) return err_set(err, GIST_ERR_FORMAT, "tokenizer.model: no pieces");
    if (pieces > TOK_MAX_IDS)
        return err_set(err, GIST_ERR_LIMIT, "tokenizer.model: %zu pieces, at most %d are allowed", pieces, TOK_MAX_IDS);
    if (s->model_type != MODEL_BPE && s->model_type != MODEL_UNIGRAM)
        return err_set(
            err, GIST_ERR_UNSUPPORTED,
            "tokenizer.model: a SentencePiece model %s (model_type %llu), only BPE and unigram are supported",
            names[s->model_type <= MODEL_CHAR ? s->model_type : 0], (unsigned long long)s->model_type);
    if (!s->has_normalizer) /* the last part of a file: a cut at the end of another part would go unnoticed */
        return err_set(err, GIST_ERR_FORMAT, "tokenizer.model: no normalizer_spec, the file is cut off");
    return GIST_OK;
}

static int32_t control_piece(const tokenizer *t, const rd *text, const char *usual) {
    const char *s = text->p ? (const char *)text->p : usual;
    int32_t id = vocab_find(&t->v, s, text->p ? text->len : strlen(usual));
    return id >= 0 && t->v.piece[id].type == PIECE_CONTROL ? id : -1;
}

bool sp_spaces_lead(const tok_vocab *v) {
    for (size_t i = 0; i < v->n; i++) {
        const piece *p = &v->piece[i];
        if (!is_mergeable(p)) continue;
        const char *s = v->text + p->off;
        size_t k = 0;
        while (k + 3 <= p->len && memcmp(s + k, TOK_SPACE, 3) == 0) k += 3;
        for (; k + 3 <= p->len; k++)
            if (memcmp(s + k, TOK_SPACE, 3) == 0) return false;
    }
    return true;
}

static gist_status mark_specials(tokenizer *t, gist_error *err) {
    static const added_token special = { .special = true };
    for (size_t i = 0; i < t->v.n; i++) {
        piece p = t->v.piece[i];
        char text[TOK_MAX_PIECE]; /* the pool may move */
        if ((p.type != PIECE_CONTROL && p.type != PIECE_UNKNOWN) || p.added) continue;
        memcpy(text, t->v.text + p.off, p.len);
        TRY(tok_add(t, text, p.len, (int32_t)i, &special, "vocabulary", err));
    }
    return GIST_OK;
}

/* What the encoder needs of pieces. */
gist_status sp_finish(tokenizer *t, gist_error *err) {
    if (!t->by_pair) {
        TRY(mark_specials(t, err));
        TRY(t->is_unigram ? unigram_build(t, err) : rank_pieces(t, err));
    }
    for (size_t i = 0; i < t->v.n; i++) {
        const piece *p = &t->v.piece[i];
        added_token a = { .id = (int32_t)i, .off = p->off, .len = p->len };
        if (p->type == PIECE_USER) TRY(matcher_add(&t->user, t->alloc, &a, err));
    }
    matcher_sort(&t->user, &t->v);
    if (t->cut == CUT_NOWHERE && sp_spaces_lead(&t->v)) t->cut = CUT_WORDS;
    for (int b = 0; t->byte_fallback && b < 256; b++)
        if (t->byte_id[b] < 0)
            return err_set(err, GIST_ERR_FORMAT, "tokenizer: byte_fallback is set, but <0x%02X> is missing", b);
    return GIST_OK;
}

static gist_status read_pieces(tokenizer *t, const void *bytes, size_t len, gist_error *err) {
    rd r;
    rd_init(&r, bytes, len);
    int32_t id = 0;
    for (field f; field_next(&r, &f);) {
        if (f.number != 1) continue;
        TRY(read_piece(t, &f.bytes, id, err));
        id++;
    }
    return GIST_OK;
}

gist_status sp_load(tokenizer *t, const void *bytes, size_t len, gist_error *err) {
    sp_spec s = {
        .model_type = MODEL_UNIGRAM, .dummy_prefix = true, .remove_extra_spaces = true, .escape_spaces = true
    };
    size_t pieces = 0;
    TRY(read_specs(bytes, len, &s, &pieces, err));
    TRY(check_specs(&s, pieces, err));
    TRY(vocab_reserve(&t->v, pieces, err));
    t->is_unigram = s.model_type == MODEL_UNIGRAM;
    TRY(read_pieces(t, bytes, len, err));
    if (s.charsmap.len) TRY(charsmap_load(&t->map, t->alloc, s.charsmap.p, s.charsmap.len, err));
    if (t->unk < 0) return err_set(err, GIST_ERR_FORMAT, "tokenizer.model: no piece is the unknown");
    t->model = TOK_SENTENCEPIECE;
    t->byte_fallback = s.byte_fallback;
    t->fuse_unk = true;
    t->prefix = s.dummy_prefix ? PREFIX_ALWAYS : PREFIX_NEVER;
    t->remove_extra_spaces = s.remove_extra_spaces;
    t->escape_spaces = s.escape_spaces;
    t->space_is_suffix = s.space_is_suffix;
    t->bos = control_piece(t, &s.bos, "<s>");
    t->eos = control_piece(t, &s.eos, "</s>");
    t->adds_bos = t->bos >= 0 && !t->is_unigram;
    t->adds_eos = t->bos < 0 && t->is_unigram; /* T5's have no BOS */
    return sp_finish(t, err);
}

/* ---- normaliser ---- */

static const char *space_text(const tokenizer *t) {
    return t->escape_spaces ? TOK_SPACE : " ";
}

/* Append s with its spaces escaped. */
static void add_escaped(const tokenizer *t, sbuf *o, const char *s, size_t len) {
    while (t->escape_spaces && len > 0) {
        const char *space = memchr(s, ' ', len);
        if (!space) break;
        sbuf_add(o, s, (size_t)(space - s));
        sbuf_add(o, TOK_SPACE, 3);
        len -= (size_t)(space + 1 - s);
        s = space + 1;
    }
    sbuf_add(o, s, len);
}

static const added_token *user_piece(const tokenizer *t, const char *s, size_t len) {
    return matcher_longest(&t->user, &t->v, s, len, 0);
}

/* What s begins with: a user defined piece, which is taken as it is, the longest rule of the map, or else a space, or
 * other characters as far as nothing of that is.  Its length is returned, and what becomes of it is p[0..*n). */
static size_t next_part(const tokenizer *t, const char *s, size_t len, const char **p, size_t *n) {
    const added_token *u = user_piece(t, s, len);
    size_t used = u ? u->len : charsmap_longest(&t->map, s, len, p);
    if (used && !u) {
        *n = strlen(*p);
        return used;
    }
    *p = s;
    const char *rule;
    uint32_t cp;
    if (!used && s[0] != ' ') {
        do {
            int k = utf8_decode(s + used, len - used, &cp);
            if (k == 0) break; /* a rule has ended inside a character */
            used += (size_t)k;
        } while (used < len && s[used] != ' ' && !user_piece(t, s + used, len - used) &&
                 !charsmap_longest(&t->map, s + used, len - used, &rule));
        if (used == 0) {
            *p = "\xEF\xBF\xBD";
            *n = 3;
            return 1;
        }
    } else if (!used) {
        used = 1;
    }
    *n = used;
    return used;
}

static bool wants_prefix(const tokenizer *t, const char *s, size_t len, bool first) {
    bool has = len > 0 && (s[0] == ' ' || (len >= 3 && memcmp(s, TOK_SPACE, 3) == 0));
    switch (t->prefix) {
    case PREFIX_ALWAYS: return true;
    case PREFIX_MISSING: return !has;
    case PREFIX_FIRST: return first && !has;
    default: return false;
    }
}

static gist_status normalise(encoder *e, const char *s, size_t len, bool first) {
    const tokenizer *t = e->t;
    const char *p, *space = space_text(t);
    sbuf *o = &e->norm;
    size_t n, used;
    o->len = 0;
    for (; t->remove_extra_spaces && len > 0; s += used, len -= used) {
        used = next_part(t, s, len, &p, &n);
        if (n != 1 || p[0] != ' ') break;
    }
    if (len == 0) return GIST_OK;
    bool prefix = wants_prefix(t, s, len, first), after_space = t->remove_extra_spaces;
    if (prefix && !t->space_is_suffix) sbuf_str(o, space);
    for (; len > 0; s += used, len -= used) {
        size_t k = 0;
        used = next_part(t, s, len, &p, &n);
        while (after_space && k < n && p[k] == ' ') k++;
        add_escaped(t, o, p + k, n - k);
        if (k < n) after_space = t->remove_extra_spaces && p[n - 1] == ' ';
        if (o->len > TOK_MAX_NORM)
            return err_set(e->err, GIST_ERR_LIMIT, "the normalised text has more than %zu bytes", TOK_MAX_NORM);
    }
    size_t m = strlen(space);
    while (t->remove_extra_spaces && o->len >= m && memcmp(o->p + o->len - m, space, m) == 0) o->len -= m;
    if (prefix && t->space_is_suffix) sbuf_str(o, space);
    return o->failed ? err_memory(e->err, "tokenizing") : GIST_OK;
}

/* ---- encoder ---- */

/* Symbols of one character; where pairs merge, ids are needed at once and missing characters become their bytes. */
static gist_status push_char(encoder *e, const char *text, size_t pos, size_t n) {
    const tokenizer *t = e->t;
    int32_t id = -1;
    if (t->by_pair) {
        id = vocab_find(&t->v, text + pos, n);
        if (id >= 0 && t->v.piece[id].type == PIECE_ADDED) id = -1;
        for (size_t i = 0; id < 0 && t->byte_fallback && i < n; i++)
            TRY(merge_push(&e->work, (uint32_t)(pos + i), 1, t->byte_id[(uint8_t)text[pos + i]], e->err));
        if (id < 0 && t->byte_fallback) return GIST_OK;
        if (id < 0) id = t->unk;
    }
    return merge_push(&e->work, (uint32_t)pos, (uint32_t)n, id, e->err);
}

/* Segment the symbols collected so far and put their ids out. */
static gist_status flush(encoder *e) {
    if (e->work.n == 0) return GIST_OK;
    TRY(merge_run(e->t, &e->work, e->norm.p, e->err));
    TRY(encode_symbols(e, e->norm.p));
    e->work.n = 0;
    return GIST_OK;
}

gist_status sp_encode(encoder *e, const char *s, size_t len, bool first) {
    const tokenizer *t = e->t;
    TRY(normalise(e, s, len, first));
    e->after_unk = false;
    e->work.n = 0;
    const char *text = e->norm.p;
    if (t->is_unigram) return unigram_encode(e, text, e->norm.len);
    bool after_space = false;
    for (size_t pos = 0, n; pos < e->norm.len; pos += n) {
        const added_token *u = matcher_longest(&t->user, &t->v, text + pos, e->norm.len - pos, 0);
        if (u) {
            TRY(flush(e));
            TRY(tok_ids_push(e->out, u->id, e->err));
            e->after_unk = after_space = false;
            n = u->len;
            continue;
        }
        uint32_t cp;
        n = (size_t)utf8_decode(text + pos, e->norm.len - pos, &cp);
        bool space = cp == 0x2581;
        if (space && (t->cut == CUT_SPACES || (t->cut == CUT_WORDS && !after_space))) TRY(flush(e));
        TRY(push_char(e, text, pos, n));
        after_space = space;
    }
    return flush(e);
}
