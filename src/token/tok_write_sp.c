/* tok_write_sp.c - the bytes of a tokenizer.model, from SentencePiece pieces with scores: sp_load backwards.
 *
 *   ModelProto   1 pieces*         { 1 text, 2 score, 3 type }
 *                2 trainer_spec    { 3 model_type, 4 size, 24 space is suffix, 35 byte_fallback, 40..43 ids of unknown,
 *                                    BOS, EOS and padding, 45..48 their texts }
 *                3 normalizer_spec { 1 name, 2 charsmap, 3 dummy prefix, 4 remove extra spaces, 5 escape spaces }
 *
 * Pieces are numbered by their order.  Tokens that were added behind the last one are tokenizer_config.json's; an added
 * token between pieces stands among them, and a row without a text becomes an unused "[PADi]".
 */
#include "token/token_int.h"

enum { VARINT = 0, BYTES = 2, FIXED32 = 5, UNIGRAM = 1, BPE = 2 };

static void put_varint(sbuf *o, uint64_t x) {
    for (; x >= 0x80; x >>= 7) sbuf_add(o, (uint8_t[1]){ (uint8_t)(x | 0x80) }, 1);
    sbuf_add(o, (uint8_t[1]){ (uint8_t)x }, 1);
}

static void put_number(sbuf *o, unsigned field, uint64_t x) {
    put_varint(o, field << 3 | VARINT);
    put_varint(o, x);
}

static void put_bytes(sbuf *o, unsigned field, const void *p, size_t len) {
    put_varint(o, field << 3 | BYTES);
    put_varint(o, len);
    sbuf_add(o, p, len);
}

static void put_float(sbuf *o, unsigned field, float x) {
    uint32_t b;
    memcpy(&b, &x, sizeof b);
    put_varint(o, field << 3 | FIXED32);
    sbuf_add(o, (uint8_t[4]){ (uint8_t)b, (uint8_t)(b >> 8), (uint8_t)(b >> 16), (uint8_t)(b >> 24) }, 4);
}

/* Put the message in `part` into o, and empty it. */
static void put_message(sbuf *o, unsigned field, sbuf *part) {
    put_bytes(o, field, part->len ? part->p : "", part->len);
    o->failed = o->failed || part->failed;
    part->len = 0;
}

static int32_t sp_type(const piece *p) {
    if (p->type != PIECE_ADDED) return p->type;
    return p->special ? PIECE_CONTROL : PIECE_USER;
}

static gist_status put_piece(const tokenizer *t, size_t i, sbuf *part, gist_error *err) {
    const piece *p = &t->v.piece[i];
    if (p->type == PIECE_NONE) {
        char text[32];
        int n = snprintf(text, sizeof text, "[PAD%zu]", i);
        if (tok_find(t, text) >= 0)
            return err_set(err, GIST_ERR_UNSUPPORTED,
                           "tokenizer.model: token %zu has no text, and %s is the text of another", i, text);
        put_bytes(part, 1, text, (size_t)n);
        put_float(part, 2, -1e9f);
        put_number(part, 3, PIECE_UNUSED);
        return GIST_OK;
    }
    put_bytes(part, 1, t->v.text + p->off, p->len);
    put_float(part, 2, p->score);
    if (sp_type(p) != PIECE_NORMAL) put_number(part, 3, (uint64_t)sp_type(p));
    return GIST_OK;
}

/* The specials of trainer_spec; -1 is written as int32 is, in ten bytes. */
static void put_specials(const tokenizer *t, size_t n, sbuf *part) {
    const int32_t ids[] = { t->unk, t->bos, t->eos, t->pad };
    for (unsigned k = 0; k < 4; k++) put_number(part, 40 + k, (size_t)ids[k] < n ? (uint64_t)ids[k] : UINT64_MAX);
    for (unsigned k = 0; k < 4; k++) {
        size_t len;
        const char *text = tok_piece(t, ids[k], &len);
        if (text && (size_t)ids[k] < n) put_bytes(part, 45 + k, text, len);
    }
}

gist_status sp_save(const tokenizer *t, sbuf *out, gist_error *err) {
    sbuf part, map;
    size_t n = t->v.n;
    while (n > 0 && (t->v.piece[n - 1].type == PIECE_ADDED || t->v.piece[n - 1].type == PIECE_NONE)) n--;
    sbuf_init(&part, t->alloc);
    sbuf_init(&map, t->alloc);
    gist_status st = GIST_OK;
    for (size_t i = 0; i < n && st == GIST_OK; i++) {
        st = put_piece(t, i, &part, err);
        put_message(out, 1, &part);
    }
    put_number(&part, 3, t->is_unigram ? UNIGRAM : BPE);
    put_number(&part, 4, n);
    if (t->space_is_suffix) put_number(&part, 24, 1);
    put_number(&part, 35, t->byte_fallback);
    put_specials(t, n, &part);
    put_message(out, 2, &part);
    charsmap_save(&t->map, &map);
    put_bytes(&part, 1, map.len ? "own" : "identity", map.len ? 3 : 8);
    if (map.len) put_bytes(&part, 2, map.p, map.len);
    put_number(&part, 3, t->prefix != PREFIX_NEVER);
    put_number(&part, 4, t->remove_extra_spaces);
    put_number(&part, 5, t->escape_spaces);
    put_message(out, 3, &part);
    bool failed = out->failed || part.failed || map.failed;
    sbuf_free(&part);
    sbuf_free(&map);
    if (st != GIST_OK) return st;
    return failed ? err_memory(err, "tokenizer.model") : GIST_OK;
}
