/* gen_vocab.c - a byte-level BPE vocabulary trained on training prompts, written as Hugging Face's tokenizer.json.
 *
 *   prompts --split pattern--> words and counts --merge the commonest pair, again and again--> pieces
 *
 *   id  0 <s>   1 </s>   2 <GIST>   3..258 the 256 bytes   259.. one per merge
 *
 * Names are counted in their parts (NAME_MARK): "Hartley" gives "Hart" and "ley", never a piece of its own, so a name
 * of another split is spelled with the same kind of pieces as the names of training.  Only training prompts are read.
 * The alphabet of bytes and the format are those of GPT-2 and of the tokenizers package; numbers are cut in pairs of
 * digits.  Equal arguments give equal files: of equally common pairs the one with the lower ids is merged.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "gen.h"

enum { SPECIALS = 3, FIRST_MERGE = SPECIALS + 256, MAX_SIZE = 8192, MIN_COUNT = 2 };

static const char pattern[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}{1,2}| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* A distinct word and where its symbols are. */
typedef struct type {
    size_t at;
    int len, count;
} type;

typedef struct trainer {
    pcre2_code *re;
    pcre2_match_data *match;
    sbuf bytes; /* of all types, end to end */
    type *types;
    int count, cap;
    int *slot; /* hash table of type indices + 1 */
    int slots;
    int32_t *symbol; /* ids, in place of bytes; a type of n symbols uses its first n */
    int32_t (*merge)[2];
    int merges;
    bool failed;
} trainer;

static int32_t hash_slot(const trainer *t, const char *s, size_t len) {
    hash128 h = hash_bytes(s, len);
    return (int32_t)(((uint32_t)h.b[0] | (uint32_t)h.b[1] << 8 | (uint32_t)h.b[2] << 16) % (uint32_t)t->slots);
}

static bool grow(trainer *t) {
    int cap = t->cap ? 2 * t->cap : 1 << 14;
    type *types = mem_resize(NULL, t->types, (size_t)t->count, (size_t)cap, sizeof *types);
    if (!types) return false;
    t->types = types;
    int *slot = mem_calloc(NULL, 4 * (size_t)cap, sizeof *slot);
    if (!slot) return false;
    mem_free(NULL, t->slot);
    t->slot = slot;
    t->slots = 4 * cap;
    t->cap = cap;
    for (int i = 0; i < t->count; i++) {
        int at = hash_slot(t, t->bytes.p + t->types[i].at, (size_t)t->types[i].len);
        while (t->slot[at]) at = (at + 1) % t->slots;
        t->slot[at] = i + 1;
    }
    return true;
}

static void count_word(trainer *t, const char *s, size_t len) {
    if (t->count == t->cap && !grow(t)) {
        t->failed = true;
        return;
    }
    int at = hash_slot(t, s, len);
    for (; t->slot[at]; at = (at + 1) % t->slots) {
        type *w = &t->types[t->slot[at] - 1];
        if ((size_t)w->len == len && memcmp(t->bytes.p + w->at, s, len) == 0) {
            w->count++;
            return;
        }
    }
    t->types[t->count++] = (type){ t->bytes.len, (int)len, 1 };
    t->slot[at] = t->count;
    sbuf_add(&t->bytes, s, len);
}

/* Count the words of a marked text: cut by the pattern, and at marks. */
static void count_text(trainer *t, const char *marked, size_t len) {
    char *text = mem_alloc(NULL, len + 1, 1);
    bool *cut = mem_calloc(NULL, len + 1, sizeof *cut);
    size_t n = 0;
    if (!text || !cut) t->failed = true;
    for (size_t i = 0; i < len && !t->failed; i++) {
        if (marked[i] == NAME_MARK)
            cut[n] = true;
        else
            text[n++] = marked[i];
    }
    for (size_t at = 0; at < n && !t->failed;) {
        if (pcre2_match(t->re, (PCRE2_SPTR)text, n, at, 0, t->match, NULL) < 1) break;
        const PCRE2_SIZE *o = pcre2_get_ovector_pointer(t->match);
        for (size_t from = o[0], to = from + 1; from < o[1]; from = to++) {
            while (to < o[1] && !cut[to]) to++;
            count_word(t, text + from, to - from);
        }
        at = o[1];
    }
    mem_free(NULL, text);
    mem_free(NULL, cut);
}

/* The texts that training shows the model, each side of the gist tokens by itself. */
static gist_status count_prompts(trainer *t, const words *w, uint64_t seed, int prompts, gist_error *err) {
    prompt p;
    sbuf b;
    gist_status st = GIST_OK;
    prompt_init(&p);
    sbuf_init(&b, NULL);
    for (int i = 0; i < prompts && st == GIST_OK; i++) {
        st = prompt_draw(&p, w, SPLIT_TRAIN, seed, (uint64_t)i, true, err);
        if (st != GIST_OK) break;
        b.len = 0;
        sbuf_fmt(&b, "Instruction: %s", p.text.p);
        count_text(t, b.p, b.len);
        for (int j = 0; j < p.pairs; j++) {
            b.len = 0;
            sbuf_fmt(&b, "Input: %s\nOutput:", p.pair[j].input);
            count_text(t, b.p, b.len);
            b.len = 0;
            sbuf_fmt(&b, " %s", p.pair[j].output);
            count_text(t, b.p, b.len);
        }
        if (t->failed || b.failed || t->bytes.failed) st = err_memory(err, "vocabulary");
    }
    prompt_free(&p);
    sbuf_free(&b);
    return st;
}

typedef struct pairs {
    uint32_t *count; /* [size, size] */
    uint32_t *seen;  /* pairs with a count, as left * size + right */
    size_t n, size;
} pairs;

static uint32_t best_pair(const trainer *t, pairs *p) {
    for (size_t i = 0; i < p->n; i++) p->count[p->seen[i]] = 0;
    p->n = 0;
    for (int i = 0; i < t->count; i++) {
        const type *w = &t->types[i];
        for (int j = 0; j + 1 < w->len; j++) {
            uint32_t at =
                (uint32_t)((size_t)t->symbol[w->at + (size_t)j] * p->size + (size_t)t->symbol[w->at + (size_t)j + 1]);
            if (p->count[at] == 0) p->seen[p->n++] = at;
            p->count[at] += (uint32_t)w->count;
        }
    }
    uint32_t best = 0;
    for (size_t i = 0; i < p->n; i++) {
        uint32_t c = p->count[p->seen[i]], top = p->count[best];
        if (c > top || (c == top && p->seen[i] < best)) best = p->seen[i];
    }
    return best;
}

static void merge_pair(trainer *t, int32_t left, int32_t right, int32_t id) {
    for (int i = 0; i < t->count; i++) {
        type *w = &t->types[i];
        int32_t *s = t->symbol + w->at;
        int n = 0;
        for (int j = 0; j < w->len; j++) {
            bool here = j + 1 < w->len && s[j] == left && s[j + 1] == right;
            s[n++] = here ? id : s[j];
            j += here;
        }
        w->len = n;
    }
}

static gist_status train(trainer *t, int size, gist_error *err) {
    pairs p = { .size = (size_t)size };
    gist_status st = GIST_OK;
    p.count = mem_calloc(NULL, p.size * p.size, sizeof *p.count);
    p.seen = mem_alloc(NULL, t->bytes.len + 1, sizeof *p.seen);
    t->symbol = mem_alloc(NULL, t->bytes.len, sizeof *t->symbol);
    t->merge = mem_alloc(NULL, p.size, sizeof *t->merge);
    if (!p.count || !p.seen || !t->symbol || !t->merge) st = err_memory(err, "vocabulary");
    for (size_t i = 0; i < t->bytes.len && st == GIST_OK; i++) t->symbol[i] = SPECIALS + (uint8_t)t->bytes.p[i];
    for (int id = FIRST_MERGE; id < size && st == GIST_OK; id++) {
        uint32_t best = best_pair(t, &p);
        if (p.n == 0 || p.count[best] < MIN_COUNT) break;
        t->merge[t->merges][0] = (int32_t)(best / p.size);
        t->merge[t->merges][1] = (int32_t)(best % p.size);
        merge_pair(t, t->merge[t->merges][0], t->merge[t->merges][1], id);
        t->merges++;
    }
    mem_free(NULL, p.count);
    mem_free(NULL, p.seen);
    return st;
}

/* ---- writing ---- */

/* GPT-2's alphabet: the printable characters of Latin-1 stand for themselves, the other bytes for U+0100 and on. */
static uint32_t letter(int b) {
    return (uint32_t)(b < 33 ? 0x100 + b : b >= 127 && b <= 160 ? 0x100 + 33 + b - 127 : b == 173 ? 0x100 + 67 : b);
}

static void put_piece(const trainer *t, sbuf *b, int32_t id) {
    if (id >= FIRST_MERGE) {
        put_piece(t, b, t->merge[id - FIRST_MERGE][0]);
        put_piece(t, b, t->merge[id - FIRST_MERGE][1]);
        return;
    }
    char u[4];
    int byte = id - SPECIALS, n = utf8_encode(letter(byte), u);
    if (byte == '"' || byte == '\\') sbuf_str(b, "\\");
    sbuf_add(b, u, (size_t)n);
}

static const char *const specials[SPECIALS] = { "<s>", "</s>", "<GIST>" };

static void put_tokenizer(const trainer *t, sbuf *b) {
    sbuf_str(b, "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n  \"added_tokens\": [");
    for (int i = 0; i < SPECIALS; i++) { /* white space beside the gist token belongs to it */
        const char *strip = strcmp(specials[i], "<GIST>") == 0 ? "true" : "false";
        sbuf_fmt(b,
                 "%s\n    {\"id\": %d, \"content\": \"%s\", \"single_word\": false, \"lstrip\": %s, \"rstrip\": %s, "
                 "\"normalized\": false, \"special\": true}",
                 i ? "," : "", i, specials[i], strip, strip);
    }
    sbuf_str(b, "\n  ],\n  \"normalizer\": null,\n  \"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [\n"
                "    {\"type\": \"Split\", \"pattern\": {\"Regex\": \"");
    for (const char *c = pattern; *c; c++) sbuf_fmt(b, "%s%c", *c == '\\' ? "\\" : "", *c);
    sbuf_str(
        b,
        "\"}, \"behavior\": \"Isolated\", \"invert\": false},\n"
        "    {\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": false}\n  "
        "]},\n"
        "  \"post_processor\": {\"type\": \"TemplateProcessing\",\n"
        "    \"single\": [{\"SpecialToken\": {\"id\": \"<s>\", \"type_id\": 0}}, {\"Sequence\": {\"id\": \"A\", "
        "\"type_id\": 0}}],\n"
        "    \"pair\": [{\"SpecialToken\": {\"id\": \"<s>\", \"type_id\": 0}}, {\"Sequence\": {\"id\": \"A\", "
        "\"type_id\": "
        "0}}, {\"Sequence\": {\"id\": \"B\", \"type_id\": 1}}],\n"
        "    \"special_tokens\": {\"<s>\": {\"id\": \"<s>\", \"ids\": [0], \"tokens\": [\"<s>\"]}}},\n"
        "  \"decoder\": {\"type\": \"ByteLevel\", \"add_prefix_space\": true, \"trim_offsets\": true, \"use_regex\": "
        "true},\n"
        "  \"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": null, \"continuing_subword_prefix\": "
        "null,\n"
        "    \"end_of_word_suffix\": null, \"fuse_unk\": false, \"byte_fallback\": false, \"ignore_merges\": false,\n"
        "    \"vocab\": {");
    for (int i = 0; i < SPECIALS; i++) sbuf_fmt(b, "%s\n      \"%s\": %d", i ? "," : "", specials[i], i);
    for (int32_t id = SPECIALS; id < FIRST_MERGE + t->merges; id++) {
        sbuf_str(b, ",\n      \"");
        put_piece(t, b, id);
        sbuf_fmt(b, "\": %d", id);
    }
    sbuf_str(b, "\n    },\n    \"merges\": [");
    for (int i = 0; i < t->merges; i++) {
        sbuf_str(b, i ? ",\n      \"" : "\n      \"");
        put_piece(t, b, t->merge[i][0]);
        sbuf_str(b, " ");
        put_piece(t, b, t->merge[i][1]);
        sbuf_str(b, "\"");
    }
    sbuf_str(b, "\n    ]\n  }\n}\n");
}

static gist_status write_text(const char *dir, const char *name, const sbuf *b, gist_error *err) {
    out_file o;
    char *path = path_join(NULL, dir, name);
    if (!path || b->failed) {
        mem_free(NULL, path);
        return err_memory(err, name);
    }
    gist_status st = out_open(&o, NULL, path, err);
    if (st == GIST_OK) {
        out_write(&o, b->p, b->len);
        st = out_commit(&o, err);
    }
    mem_free(NULL, path);
    return st;
}

static gist_status write_files(const trainer *t, const char *dir, gist_error *err) {
    static const char config[] = "{\n  \"tokenizer_class\": \"PreTrainedTokenizerFast\",\n  \"bos_token\": \"<s>\",\n"
                                 "  \"eos_token\": \"</s>\",\n  \"clean_up_tokenization_spaces\": false\n}\n";
    sbuf b;
    sbuf_init(&b, NULL);
    mkdir(dir, 0777); /* when it cannot be made, opening a file in it says so */
    put_tokenizer(t, &b);
    gist_status st = write_text(dir, "tokenizer.json", &b, err);
    b.len = 0;
    sbuf_str(&b, config);
    if (st == GIST_OK) st = write_text(dir, "tokenizer_config.json", &b, err);
    sbuf_free(&b);
    return st;
}

gist_status vocab_write(const words *w, const char *dir, int size, uint64_t seed, int prompts, gist_error *err) {
    if (size < FIRST_MERGE || size > MAX_SIZE)
        return err_set(err, GIST_ERR_USAGE, "a vocabulary of %d entries; %d to %d can be had", size, FIRST_MERGE,
                       MAX_SIZE);
    trainer t = { 0 };
    int code;
    PCRE2_SIZE at;
    gist_status st = GIST_OK;
    sbuf_init(&t.bytes, NULL);
    t.re = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &code, &at, NULL);
    if (t.re) pcre2_jit_compile(t.re, PCRE2_JIT_COMPLETE); /* optional */
    t.match = t.re ? pcre2_match_data_create_from_pattern(t.re, NULL) : NULL;
    if (!t.match) st = err_memory(err, "split pattern");
    if (st == GIST_OK) st = count_prompts(&t, w, seed, prompts, err);
    if (st == GIST_OK) st = train(&t, size, err);
    if (st == GIST_OK) st = write_files(&t, dir, err);
    if (st == GIST_OK)
        printf("%d entries from %d distinct words of %d prompts\n", FIRST_MERGE + t.merges, t.count, prompts);
    pcre2_match_data_free(t.match);
    pcre2_code_free(t.re);
    sbuf_free(&t.bytes);
    mem_free(NULL, t.types);
    mem_free(NULL, t.slot);
    mem_free(NULL, t.symbol);
    mem_free(NULL, t.merge);
    return st;
}
