/* tok_bytes.c - byte-level BPE of one word, and the tiktoken reader.
 *
 *   byte    33..126 161..172 174..255   the character of that number
 *           0..32 127..160 173          U+0100..U+0143, in this order        (GPT-2's alphabet: 0x20 is U+0120)
 *
 * Pieces of every byte-level vocabulary are kept in this alphabet.  tokenizer.json's merges go by pair.  A tiktoken
 * file has no merges: a pair may merge when the text of both is a piece, and its rank is that piece's id, so it goes by
 * piece.  There, and where tokenizer.json says ignore_merges, a word that is a piece is that piece.
 *
 *   tiktoken line:  base64 of the bytes, a space, the rank in decimal
 */
#include "token/token_int.h"

uint32_t byte_letter(uint8_t b) {
    if (b < 33) return 0x100u + b;
    if (b >= 127 && b <= 160) return 0x100u + 33 + (b - 127u);
    if (b == 173) return 0x100u + 67;
    return b;
}

int letter_byte(uint32_t cp) {
    if (cp < 0x100) return byte_letter((uint8_t)cp) == cp ? (int)cp : -1;
    uint32_t n = cp - 0x100;
    if (n < 33) return (int)n;
    if (n < 67) return (int)(n - 33 + 127);
    return n == 67 ? 173 : -1;
}

void bytes_find(tokenizer *t) {
    for (int b = 0; b < 256; b++) {
        char u[4];
        t->byte_id[b] = vocab_find(&t->v, u, (size_t)utf8_encode(byte_letter((uint8_t)b), u));
    }
}

gist_status bytes_encode(encoder *e, const char *word, size_t len) {
    const tokenizer *t = e->t;
    e->work.n = 0;
    if (!t->by_pair || t->ignore_merges) {
        e->mapped.len = 0;
        for (size_t i = 0; i < len; i++) {
            char u[4];
            sbuf_add(&e->mapped, u, (size_t)utf8_encode(byte_letter((uint8_t)word[i]), u));
        }
        if (e->mapped.failed) return err_memory(e->err, "tokenizing");
        int32_t id = vocab_find(&t->v, e->mapped.p, e->mapped.len);
        if (id >= 0 && t->v.piece[id].type == PIECE_NORMAL) return tok_ids_push(e->out, id, e->err);
    }
    for (size_t i = 0, at = 0; i < len; i++) {
        uint8_t b = (uint8_t)word[i];
        uint32_t n = t->by_pair || byte_letter(b) < 0x80 ? 1 : 2;
        int32_t id = t->byte_id[b] >= 0 ? t->byte_id[b] : t->unk;
        if (id < 0) return err_set(e->err, GIST_ERR_TEXT, "the vocabulary has no token for the byte 0x%02X", b);
        TRY(merge_push(&e->work, (uint32_t)at, n, id, e->err));
        at += n;
    }
    TRY(merge_run(t, &e->work, t->by_pair ? word : e->mapped.p, e->err));
    e->after_unk = false;
    return encode_symbols(e, t->by_pair ? word : e->mapped.p);
}

/* ---- tiktoken ---- */

static int base64_digit(uint8_t c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* One line at r into bytes[0..*n) and *rank; false when it is none. */
static bool read_line(rd *r, uint8_t *bytes, size_t cap, size_t *n, int32_t *rank) {
    uint32_t bits = 0, have = 0;
    uint8_t c;
    size_t chars = 0;
    *n = 0;
    for (int d; (d = base64_digit(c = rd_u8(r))) >= 0; chars++) {
        bits = bits << 6 | (uint32_t)d;
        have += 6;
        if (have < 8) continue;
        have -= 8;
        if (*n == cap) return false;
        bytes[(*n)++] = (uint8_t)(bits >> have);
        bits &= (1u << have) - 1;
    }
    for (; c == '='; chars++) c = rd_u8(r);
    if (chars == 0 || chars % 4 || bits || c != ' ') return false;
    *rank = 0;
    size_t digits = 0;
    for (c = rd_u8(r); c >= '0' && c <= '9'; c = rd_left(r) ? rd_u8(r) : '\n', digits++) {
        *rank = *rank * 10 + (c - '0');
        if (*rank >= TOK_MAX_IDS) return false;
    }
    if (c == '\r') c = rd_u8(r);
    return digits > 0 && c == '\n' && !r->failed;
}

bool tiktoken_is(const void *bytes, size_t len) {
    rd r;
    uint8_t b[TOK_MAX_PIECE];
    size_t n;
    int32_t rank;
    rd_init(&r, bytes, len);
    return read_line(&r, b, sizeof b, &n, &rank);
}

/* LLaMA-3's 256 reserved tokens, behind the n ordinary ones. */
static gist_status add_reserved(tokenizer *t, int32_t n, gist_error *err) {
    static const char *const first[] = { "<|begin_of_text|>",   "<|end_of_text|>",   NULL, NULL,        NULL, NULL,
                                         "<|start_header_id|>", "<|end_header_id|>", NULL, "<|eot_id|>" };
    static const added_token special = { .special = true };
    for (int i = 0, reserved = 0; i < 256; i++) {
        char name[48];
        if (i < 10 && first[i])
            snprintf(name, sizeof name, "%s", first[i]);
        else
            snprintf(name, sizeof name, "<|reserved_special_token_%d|>", reserved++);
        TRY(tok_add(t, name, strlen(name), n + i, &special, "tokenizer.model", err));
    }
    t->bos = n;
    t->eos = n + 1;
    t->adds_bos = true;
    tok_add_end(t, n + 9);
    return GIST_OK;
}

gist_status tiktoken_load(tokenizer *t, const void *bytes, size_t len, gist_error *err) {
    rd r;
    int32_t count = 0;
    TRY(vocab_reserve(&t->v, len / 16 + 512, err));
    rd_init(&r, bytes, len);
    while (rd_left(&r) > 0) {
        uint8_t b[TOK_MAX_PIECE / 2];
        char text[TOK_MAX_PIECE];
        size_t n, at = r.pos, text_len = 0;
        int32_t rank;
        if (!read_line(&r, b, sizeof b, &n, &rank))
            return err_at(err, GIST_ERR_FORMAT, at, "tokenizer.model: line %d (byte %zu) is not \"base64 rank\"",
                          count + 1, at);
        for (size_t i = 0; i < n; i++) text_len += (size_t)utf8_encode(byte_letter(b[i]), text + text_len);
        TRY(vocab_set(&t->v, rank, text, text_len, PIECE_NORMAL, "tokenizer.model", err));
        t->v.piece[rank].rank = rank;
        if (n == 1) t->byte_id[b[0]] = rank;
        count++;
    }
    if ((size_t)count != t->v.n)
        return err_set(err, GIST_ERR_FORMAT, "tokenizer.model: %d lines, but ranks up to %zu", count, t->v.n - 1);
    for (int b = 0; b < 256; b++)
        if (t->byte_id[b] < 0) return err_set(err, GIST_ERR_FORMAT, "tokenizer.model: no token for the byte 0x%02X", b);
    t->model = TOK_TIKTOKEN;
    TRY(add_reserved(t, count, err));
    return split_add(t, tok_pattern_llama3, strlen(tok_pattern_llama3), false, true, true, err);
}
