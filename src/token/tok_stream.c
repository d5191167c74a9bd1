/* tok_stream.c - ids -> text, one id at a time, in whole UTF-8 characters.
 *
 *   id --piece--> bytes --held: 0..3 bytes that begin a character--> text
 *
 * What can no longer become a character comes out as one U+FFFD for each longest beginning of a character in it, as
 * the Unicode Standard recommends (chapter 3, "maximal subpart").
 */
#include "token/token_int.h"

void tok_stream_init(tok_stream *s, const tokenizer *t, bool at_start_of_text) {
    bool joins = t->model == TOK_SENTENCEPIECE && (t->prefix != PREFIX_NEVER || t->remove_extra_spaces);
    *s = (tok_stream){ .t = t, .first = at_start_of_text && joins };
}

/* May n < 4 bytes, whose first n - 1 may, begin a character? */
static bool may_begin(const uint8_t *b, int n) {
    if (n == 1) return b[0] >= 0xC2 && b[0] <= 0xF4;
    if ((b[n - 1] & 0xC0) != 0x80) return false;
    if (n == 3) return b[0] >= 0xF0;
    if (b[0] == 0xE0) return b[1] >= 0xA0;
    if (b[0] == 0xED) return b[1] <= 0x9F;
    if (b[0] == 0xF0) return b[1] >= 0x90;
    if (b[0] == 0xF4) return b[1] <= 0x8F;
    return b[0] >= 0xE0;
}

static void give_up(tok_stream *s, sbuf *out) {
    if (s->held_len > 0) sbuf_str(out, "\xEF\xBF\xBD");
    s->held_len = 0;
}

static void feed(tok_stream *s, uint8_t b, sbuf *out) {
    uint32_t cp;
    s->held[s->held_len++] = (char)b;
    if (utf8_decode(s->held, (size_t)s->held_len, &cp) == s->held_len) {
        sbuf_add(out, s->held, (size_t)s->held_len);
        s->held_len = 0;
    } else if (s->held_len == 4 || !may_begin((const uint8_t *)s->held, s->held_len)) {
        bool alone = s->held_len == 1;
        s->held_len -= !alone;
        give_up(s, out);
        if (!alone) feed(s, b, out); /* once: held is empty now */
    }
}

static void feed_all(tok_stream *s, const char *p, size_t len, sbuf *out) {
    for (size_t i = 0; i < len; i++) feed(s, (uint8_t)p[i], out);
    s->first = false;
}

/* U+2581 is a space again; the one at the start of the text was the tokenizer's, and where it removes spaces, those of
 * the pieces behind it, too, until there is text. */
static void feed_sentencepiece(tok_stream *s, const char *p, size_t len, sbuf *out) {
    for (size_t i = 0; i < len;) {
        bool space = len - i >= 3 && memcmp(p + i, TOK_SPACE, 3) == 0;
        bool drop = s->first && (space || p[i] == ' ');
        if (!drop) feed(s, space ? ' ' : (uint8_t)p[i], out);
        i += space ? 3 : 1;
        s->first = drop && i == len && s->t->remove_extra_spaces;
    }
}

/* Every character a letter of the byte alphabet: bytes; otherwise the text as it is. */
static void feed_letters(tok_stream *s, const char *p, size_t len, sbuf *out) {
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < len;) {
            uint32_t cp;
            int n = utf8_decode(p + i, len - i, &cp), b = n > 0 ? letter_byte(cp) : -1;
            if (b < 0) {
                feed_all(s, p, len, out);
                return;
            }
            if (pass == 1 && !(s->first && b == ' ')) feed(s, (uint8_t)b, out);
            if (pass == 1) s->first = false;
            i += (size_t)n;
        }
    }
}

void tok_stream_push(tok_stream *s, int32_t id, sbuf *out) {
    const tokenizer *t = s->t;
    size_t len;
    const char *text = tok_piece(t, id, &len);
    if (!text || t->v.piece[id].special) return;
    const piece *p = &t->v.piece[id];
    if (p->type == PIECE_BYTE) {
        for (int b = 0; b < 256; b++)
            if (t->byte_id[b] == id) feed(s, (uint8_t)b, out);
        s->first = false;
    } else if (p->type == PIECE_ADDED || (p->added && t->model != TOK_SENTENCEPIECE)) {
        feed_all(s, text, len, out);
    } else if (t->model == TOK_SENTENCEPIECE) {
        feed_sentencepiece(s, text, len, out);
    } else {
        feed_letters(s, text, len, out);
    }
}

void tok_stream_end(tok_stream *s, sbuf *out) {
    give_up(s, out);
}
