/* fuzz_parts.c - vocabularies as arrays, built from any bytes: what is accepted encodes, its ids are its own, and
 * arrays and files made of it give the same tokenizer again.
 *
 *   byte 0      model (3), "all 256 bytes first" (1 bit), split (4)        byte 1    flags, present arrays
 *   bytes 2..7  bos, eos, unk, pad, an end, how many tokens at most
 *   tokens      type, score, length, that many bytes
 *   merges      what is left: pairs of tokens' numbers
 */
#include <stdlib.h>

#include "token/token_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MOST = 600, MOST_MERGES = 64 };

typedef struct arrays {
    tok_text token[MOST], merge[MOST_MERGES];
    float score[MOST];
    int32_t type[MOST], end[1];
    char bytes[256][8], lines[MOST_MERGES][520];
    size_t n, merges;
} arrays;

static int32_t id_of(uint8_t b) {
    return b == 0xFF ? -1 : b == 0xFE ? INT32_MAX : b == 0xFD ? -7 : b;
}

static void add(arrays *a, const char *text, size_t len, int32_t type, float score) {
    if (a->n == MOST) return;
    a->token[a->n] = (tok_text){ text, len };
    a->type[a->n] = type;
    a->score[a->n++] = score;
}

static void add_bytes(arrays *a, bool letters) {
    for (int b = 0; b < 256; b++) {
        int n = letters ? utf8_encode(byte_letter((uint8_t)b), a->bytes[b])
                        : snprintf(a->bytes[b], sizeof a->bytes[b], "<0x%02X>", (unsigned)b);
        add(a, a->bytes[b], (size_t)n, letters ? 1 : 6, 0);
    }
}

static void add_tokens(arrays *a, rd *r, unsigned most) {
    for (unsigned i = 0; i < most && rd_left(r) > 3; i++) {
        int32_t type = (int8_t)rd_u8(r);
        int score = (int8_t)rd_u8(r);
        size_t len = rd_u8(r);
        if (len > rd_left(r)) len = rd_left(r);
        const char *text = (const char *)rd_bytes(r, len);
        float scores[] = { -1000.0f, 0.0f / 0.0f, 3e38f };
        add(a, text, len, type, score >= 125 ? scores[score - 125] : (float)score);
    }
}

static void add_merges(arrays *a, rd *r) {
    while (a->n && rd_left(r) >= 4 && a->merges < MOST_MERGES) {
        size_t i = (rd_u8(r) | (size_t)rd_u8(r) << 8) % a->n, j = (rd_u8(r) | (size_t)rd_u8(r) << 8) % a->n;
        char *line = a->lines[a->merges];
        int n = snprintf(line, sizeof a->lines[0], "%.*s %.*s", (int)a->token[i].len, a->token[i].p,
                         (int)a->token[j].len, a->token[j].p);
        a->merge[a->merges++] = (tok_text){ line, (size_t)n < sizeof a->lines[0] ? (size_t)n : 0 };
    }
}

static tok_text word(const char *s) {
    return (tok_text){ s, s ? strlen(s) : 0 };
}

static void use(const tokenizer *t, tok_ids *ids) {
    static const char text[] = "  the ab \xE2\x96\x81 abc 12\n<tool> caf\xC3\xA9 aaaab<s></s> e\xCC\x81<GIST> [PAD3]";
    gist_error err = { 0 };
    tok_ids_init(ids, NULL);
    gist_status st = tok_encode(t, text, sizeof text - 1, TOK_BOS | TOK_SPECIAL | TOK_EOS, ids, &err);
    if (st != err.code || (st != GIST_OK && st != GIST_ERR_TEXT)) abort();
    for (size_t i = 0; i < ids->n; i++)
        if (!tok_piece(t, ids->id[i], NULL)) abort();
}

static void again(const tokenizer *t, const tok_ids *ids, int rows) {
    tok_parts p;
    tokenizer *back = NULL;
    tok_ids same;
    gist_error err = { 0 };
    gist_status st = tok_parts_of(t, rows, &p, &err);
    if (st == GIST_ERR_UNSUPPORTED) return;
    if (st != GIST_OK || tok_open_parts(&p, NULL, &back, &err) != GIST_OK) abort();
    hash128 x = tok_fingerprint(t), y = tok_fingerprint(back);
    use(back, &same);
    if (memcmp(&x, &y, sizeof x) != 0 || same.n != ids->n) abort();
    if (same.n && memcmp(same.id, ids->id, same.n * sizeof *same.id) != 0) abort();
    tok_ids_free(&same);
    tok_close(back);
    tok_parts_free(&p);
}

/* As tokenizer.model or tokenizer.json. */
static void as_file(const tokenizer *t) {
    sbuf bytes;
    json_t *root = NULL;
    tokenizer *back = NULL;
    gist_error err = { 0 };
    sbuf_init(&bytes, NULL);
    bool sp = t->model == TOK_SENTENCEPIECE;
    gist_status st = sp ? sp_save(t, &bytes, &err) : hf_save(t, &root, &err);
    char *text = root ? json_dumps(root, 0) : NULL;
    if (st != GIST_OK && st != GIST_ERR_UNSUPPORTED) abort();
    if (st == GIST_OK && tok_parse(sp ? bytes.p : text, sp ? bytes.len : strlen(text), NULL, &back, &err) != GIST_OK)
        abort();
    tok_close(back);
    free(text);
    json_decref(root);
    sbuf_free(&bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const kinds[] = { "llama", "gpt2", "t5", "bert" };
    static const char *const splits[] = { "gpt-2", "llama-bpe", "qwen2", "smollm", "default", NULL, "tekken", "" };
    rd r;
    rd_init(&r, data, size);
    unsigned kind = rd_u8(&r), flags = rd_u8(&r);
    int32_t ids[5];
    for (int i = 0; i < 5; i++) ids[i] = id_of(rd_u8(&r));
    unsigned most = rd_u8(&r);
    arrays *a = calloc(1, sizeof *a);
    if (!a) return 0;
    tok_parts p = tok_parts_none();
    p.model = word(kinds[kind & 3]);
    p.pre = word(splits[kind >> 3 & 7]);
    if (kind & 4) add_bytes(a, (kind & 3) == 1);
    add_tokens(a, &r, most);
    if (flags & 1) add_merges(a, &r);
    p.token = a->token;
    p.tokens = a->n;
    p.score = flags & 2 ? NULL : a->score;
    p.type = flags & 4 ? NULL : a->type;
    p.merge = a->merge;
    p.merges = a->merges;
    p.bos = ids[0];
    p.eos = ids[1];
    p.unk = ids[2];
    p.pad = ids[3];
    a->end[0] = ids[4];
    p.end = a->end;
    p.ends = 1;
    p.add_bos = (int)(flags >> 3 & 1) - (int)(flags >> 4 & 1);
    p.add_space_prefix = (int)(flags >> 5 & 1) - 1;
    p.remove_extra_whitespaces = (int)(flags >> 6 & 1);
    if (flags & 128) {
        p.charsmap_len = rd_left(&r);
        p.charsmap = rd_bytes(&r, p.charsmap_len);
    }
    tokenizer *t = NULL;
    gist_error err = { 0 };
    gist_status st = tok_open_parts(&p, NULL, &t, &err);
    if (st != err.code || (st == GIST_OK) != (t != NULL)) abort();
    if (st == GIST_OK) {
        tok_ids seen;
        use(t, &seen);
        again(t, &seen, 0);
        again(t, &seen, tok_size(t) + 2);
        as_file(t);
        tok_ids_free(&seen);
        tok_close(t);
    }
    free(a);
    return 0;
}
