/* token_int.h - what the files of the token room share.
 *
 *   tok_vocab.c    ids <-> texts, one pool of bytes, one open-addressing table; added tokens and their matcher
 *   tok_merge.c    the merge loop of every kind of BPE: a heap of neighbouring pairs, lowest rank first, then leftmost
 *   tok_sp.c       SentencePiece: protobuf reader, normaliser, encoder
 *   tok_charsmap.c its replacement rules for characters
 *   tok_unigram.c  its unigram models: a trie of pieces, Viterbi
 *   tok_bytes.c    byte-level BPE: GPT-2's byte alphabet, words -> ids; the tiktoken reader
 *   tok_split.c    pre-tokenizer stages (PCRE2)
 *   tok_norm.c     Unicode normalisation forms (utf8proc)
 *   tok_hf.c       tokenizer.json, vocab.json + merges.txt
 *   tok_parts.c    vocabularies as arrays, as GGUF has them: a tokenizer of them
 *   tok_save.c     and back: the arrays of a tokenizer
 *   tok_write.c    tokenizer.json and tokenizer_config.json of a tokenizer; tok_write_sp.c: tokenizer.model
 *   tok_side.c     the small JSON files beside a tokenizer: special and added tokens, BOS, end tokens
 *   tok_encode.c   text -> stretches between added tokens -> ids
 *   tok_stream.c   ids -> text
 *   tok_open.c     opening, closing, accessors, fingerprint
 *   tok_template.c templates and the law
 *
 *   text --added tokens--> stretch --normalise--> --added tokens--> stretch --stages--> word --merge--> ids
 */
#ifndef TOKEN_INT_H
#define TOKEN_INT_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include <jansson.h>
#include <pcre2.h>

#include "token/token.h"

#define TOK_MAX_TEXT ((size_t)64 << 20)  /* bytes of one text to encode */
#define TOK_MAX_NORM (4 * TOK_MAX_TEXT)  /* bytes of it normalised */
#define TOK_MAX_FILE ((size_t)512 << 20) /* bytes of one tokenizer file */
#define TOK_MAX_IDS (1 << 20)
#define TOK_MAX_MERGES (1 << 22)
#define TOK_MAX_PIECE 4096 /* bytes of one piece */
#define TOK_MAX_STAGES 16
#define TOK_MAX_CHAT ((size_t)1 << 20)
#define TOK_SPACE "\xE2\x96\x81" /* U+2581, a SentencePiece space */
#define TOK_GIST_TEXT "<GIST>"
#define TOK_CONTINUED 0x100 /* flag of encode: something stands before the text */

/* ---- vocabulary ---- */

/* The numbers of SentencePiece's file format, and two of ours: an id without a piece, and a token added later. */
typedef enum piece_type {
    PIECE_NONE = 0,
    PIECE_NORMAL = 1,
    PIECE_UNKNOWN = 2,
    PIECE_CONTROL = 3,
    PIECE_USER = 4,
    PIECE_UNUSED = 5,
    PIECE_BYTE = 6,
    PIECE_ADDED = 7
} piece_type;

typedef struct piece {
    uint32_t off, len; /* in vocab.text, NUL-terminated there */
    int32_t rank;      /* of the merge that makes it, lower first (SentencePiece BPE, tiktoken) */
    float score;       /* SentencePiece: as its file has it */
    uint32_t added;    /* 1 + index in tokenizer.added, 0: not an added token */
    uint8_t type;
    bool special;
} piece;

typedef struct vocab_slot {
    uint32_t tag; /* upper half of the hash */
    uint32_t id1; /* id + 1, 0: free */
} vocab_slot;

typedef struct tok_vocab {
    const gist_allocator *alloc;
    piece *piece;
    size_t n, cap; /* ids are [0, n) */
    char *text;
    size_t text_len, text_cap;
    vocab_slot *slot;
    size_t slots, used; /* a power of two, at most half full */
    uint32_t max_len;
} tok_vocab;

gist_status vocab_reserve(tok_vocab *v, size_t n, gist_error *err); /* room for n more pieces without rehashing */
/* Give `id` the text.  Errors (naming `what`): id out of bounds or taken, text empty, too long or given already. */
gist_status vocab_set(tok_vocab *v, int32_t id, const char *text, size_t len, piece_type type, const char *what,
                      gist_error *err);
/* Put bytes that are no piece behind the pool; *off is where. */
gist_status vocab_keep(tok_vocab *v, const char *text, size_t len, uint32_t *off, gist_error *err);
int32_t vocab_find(const tok_vocab *v, const char *text, size_t len);        /* -1: absent */
int32_t vocab_find_normal(const tok_vocab *v, const char *text, size_t len); /* -1: absent, or of another type */
void vocab_free(tok_vocab *v);

/* Tokens that are cut out of the text before anything else looks at it. */
typedef struct added_token {
    int32_t id;
    uint32_t off, len; /* the text to look for, in vocab.text */
    bool special, lstrip, rstrip, single_word, normalized;
} added_token;

/* Sorted by text; longest match by narrowing a range byte by byte. */
typedef struct matcher {
    added_token *a;
    size_t n, cap;
    uint64_t first[4]; /* which first bytes occur */
} matcher;

gist_status matcher_add(matcher *m, const gist_allocator *alloc, const added_token *a, gist_error *err);
void matcher_sort(matcher *m, const tok_vocab *v);
/* The longest token that s[0..len) begins with, where special ones must be no longer than special_len.  NULL: none. */
const added_token *matcher_longest(const matcher *m, const tok_vocab *v, const char *s, size_t len, size_t special_len);

/* ---- merges ---- */

typedef struct merge_slot {
    int32_t left, right; /* left -1: free */
    int32_t rank, id;
} merge_slot;

typedef struct merge_map { /* (left id, right id) -> rank and id of the whole */
    merge_slot *slot;
    size_t slots, used;
} merge_map;

gist_status merges_reserve(merge_map *m, const gist_allocator *alloc, size_t n, gist_error *err);
void merges_put(merge_map *m, merge_slot s); /* within what was reserved; a pair given again takes the later rank */
/* Put the merge of rank `rank` that a file writes as two texts, or as "a b": pieces of t's vocabulary, like both
 * together. Errors name `what`. */
gist_status merges_put_pair(struct tokenizer *t, const char *a, size_t a_len, const char *b, size_t b_len, size_t rank,
                            const char *what, gist_error *err);
gist_status merges_put_line(struct tokenizer *t, const char *s, size_t len, size_t rank, const char *what,
                            gist_error *err);
/* All merges in order of rank, in a fresh array.  Where pieces have the ranks, these are every split of a piece into
 * two pieces, in the order of the ranks of the piece and then of the ids of its parts. */
gist_status merges_list(const struct tokenizer *t, merge_slot **list, size_t *n, gist_error *err);
const merge_slot *merges_find(const merge_map *m, int32_t left, int32_t right);

typedef struct symbol {
    uint32_t start, len; /* bytes in the word; len 0: merged away */
    int32_t prev, next;  /* -1: none */
    int32_t id;          /* -1: not looked up yet */
} symbol;

typedef struct candidate {
    uint64_t key; /* rank << 32 | index of the left symbol */
    uint32_t len; /* of both together, when it was proposed */
    int32_t id;
} candidate;

typedef struct merge_work {
    const gist_allocator *alloc;
    symbol *sym;
    size_t n, cap;
    candidate *heap;
    size_t heap_n, heap_cap;
    int32_t *unused_left; /* [vocab.n] bytes of the left part of a merge into an unused piece; NULL: there are none */
} merge_work;

struct tokenizer;
gist_status merge_push(merge_work *w, uint32_t start, uint32_t len, int32_t id, gist_error *err);
/* Merge the symbols of w, whose bytes are in text.  What is left is the chain 0, sym[0].next, ... */
gist_status merge_run(const struct tokenizer *t, merge_work *w, const char *text, gist_error *err);
void merge_work_free(merge_work *w);

/* ---- unigram models and character maps ---- */

typedef struct trie_slot {
    uint32_t key;   /* parent << 8 | byte */
    uint32_t child; /* 0: free */
} trie_slot;

typedef struct trie_node {
    float score;
    int32_t id; /* -1: no piece ends here */
} trie_node;

typedef struct unigram { /* a trie of the pieces; node 0 is the root */
    trie_node *node;
    size_t n, cap;
    trie_slot *slot;
    size_t slots;
    float unk_score;
} unigram;

/* From the pieces and scores of t->v, into t->uni (which is freed with t, after a failure too). */
gist_status unigram_build(struct tokenizer *t, gist_error *err);
void unigram_free(unigram *u, const gist_allocator *alloc);

typedef struct path_work { /* best segmentations of a text's beginnings */
    float *best;
    uint32_t *back; /* length << 20 | id of the last piece; 0: none yet */
    size_t cap;
} path_work;
void path_work_free(path_work *w, const gist_allocator *alloc);

typedef struct charsmap { /* units 0: the identity */
    uint32_t *unit;
    size_t units;
    char *text;
    size_t text_len;
} charsmap;

/* GIST_ERR_FORMAT or GIST_ERR_LIMIT, and *m as before, when the bytes are no map that can be walked safely. */
gist_status charsmap_load(charsmap *m, const gist_allocator *alloc, const void *bytes, size_t len, gist_error *err);
void charsmap_save(const charsmap *m, sbuf *out); /* the bytes that charsmap_load reads; nothing of no map */
void charsmap_free(charsmap *m, const gist_allocator *alloc);
/* Bytes of the longest rule that s[0..len) begins with, 0: none; *text (NUL-terminated UTF-8) replaces them. */
size_t charsmap_longest(const charsmap *m, const char *s, size_t len, const char **text);

/* ---- the tokenizer ---- */

typedef enum tok_model { TOK_SENTENCEPIECE, TOK_BYTE_BPE, TOK_TIKTOKEN } tok_model;
typedef enum tok_form { FORM_NONE, FORM_NFC, FORM_NFD, FORM_NFKC, FORM_NFKD } tok_form;
/* When does a SentencePiece stretch get a space in front?  MISSING: when it does not begin with one; FIRST: the same,
 * but only at the start of the text. */
typedef enum tok_prefix { PREFIX_NEVER, PREFIX_ALWAYS, PREFIX_MISSING, PREFIX_FIRST } tok_prefix;
/* Where no merge may cross a SentencePiece space: nowhere; before a space that follows something else (no piece has one
 * there, so only the time changes); before every space, as the file asks. */
typedef enum tok_cut { CUT_NOWHERE, CUT_WORDS, CUT_SPACES } tok_cut;

typedef struct split_stage {
    pcre2_code *re; /* NULL: put a space in front of a segment that does not begin with one */
    bool jit, literal, keep_match, keep_gap;
    char *pattern; /* as given, for the fingerprint */
    size_t pattern_len;
} split_stage;

typedef struct pcre_heap { /* what PCRE2 compiles into */
    const gist_allocator *alloc;
    bool failed; /* an allocation did, since this was last cleared */
} pcre_heap;

struct tokenizer {
    const gist_allocator *alloc;
    tok_model model;
    tok_vocab v;
    matcher added;           /* in the order of loading; then shared out to: */
    matcher raw, norm, user; /* found before normalisation; after it; SentencePiece's user defined pieces */
    bool by_pair;            /* merges come from `merges`, else from the pieces' ranks */
    merge_map merges;
    int32_t byte_id[256]; /* -1: none */
    int32_t unk;
    bool byte_fallback, fuse_unk, has_unused, ignore_merges;
    /* SentencePiece */
    tok_prefix prefix;
    tok_cut cut;
    bool remove_extra_spaces, escape_spaces, space_is_suffix;
    charsmap map;
    bool is_unigram;
    unigram uni;
    /* byte-level */
    tok_form form;
    split_stage stage[TOK_MAX_STAGES];
    int stages;
    pcre_heap heap;
    pcre2_general_context *pcre, *compiling;
    pcre2_match_context *limits;
    /* what stands around a text */
    int32_t bos, eos, pad, gist;
    bool adds_bos, adds_eos;
    int32_t end[64];
    int ends;
    char *chat; /* template as its files have it; NULL: none */
    hash128 fingerprint;
};

gist_status tok_create(const gist_allocator *alloc, tokenizer **out, gist_error *err);
/* Can anything become the unknown?  Not where every byte is a piece. */
bool tok_uses_unk(const tokenizer *t);
/* Is the token looked for in normalised text? */
bool tok_is_normalised(const tokenizer *t, const added_token *a);
/* What every way of opening ends with: <GIST>, the matchers, the fingerprint. */
gist_status tok_finish(tokenizer *t, gist_error *err);
/* Make `text` an added token.  id -1: only if the vocabulary has the text.  A reserved id may be renamed; every other
 * disagreement with what is there is an error that names `what`. */
gist_status tok_add(tokenizer *t, const char *text, size_t len, int32_t id, const added_token *flags, const char *what,
                    gist_error *err);
/* The chat template: at most TOK_MAX_CHAT bytes of UTF-8 without a NUL. */
gist_status tok_keep_chat(tokenizer *t, const char *text, size_t len, gist_error *err);
void tok_add_end(tokenizer *t, int32_t id); /* one more id that ends an answer */

/* ---- readers: fill a fresh tokenizer ---- */

gist_status sp_load(tokenizer *t, const void *bytes, size_t len, gist_error *err);
/* One piece of a SentencePiece vocabulary, checked; errors name `what`. */
gist_status sp_put_piece(tokenizer *t, int32_t id, const char *text, size_t len, uint64_t type, float score,
                         const char *what, gist_error *err);
/* No piece has a space behind something else: then no merge crosses the start of a word. */
bool sp_spaces_lead(const tok_vocab *v);
/* Last step of sp_load, and of others that fill t with SentencePiece pieces. */
gist_status sp_finish(tokenizer *t, gist_error *err);
bool tiktoken_is(const void *bytes, size_t len);
gist_status tiktoken_load(tokenizer *t, const void *bytes, size_t len, gist_error *err);
/* Can hf_load take it, and is it SentencePiece in disguise?  Only looks at the kind. */
bool hf_is_bpe(const json_t *root, bool *byte_level);
gist_status hf_load(tokenizer *t, const json_t *root, gist_error *err);
/* qwen2: its split pattern and NFC; else GPT-2's. */
gist_status gpt2_load(tokenizer *t, const json_t *vocab, const char *merges, size_t len, bool qwen2, bool prefix_space,
                      gist_error *err);

/* ---- writers ---- */

gist_status sp_save(const tokenizer *t, sbuf *out, gist_error *err);    /* tokenizer.model; not by pair */
gist_status hf_save(const tokenizer *t, json_t **out, gist_error *err); /* tokenizer.json; not unigram */

/* ---- JSON beside them ---- */

typedef struct side_files { /* parsed or NULL */
    json_t *tokenizer_config, *special_map, *added, *generation, *config;
    file_map chat; /* chat_template.jinja */
} side_files;
gist_status side_load(side_files *s, const gist_allocator *alloc, const char *dir, gist_error *err);
void side_free(side_files *s);
gist_status side_apply(tokenizer *t, const side_files *s, gist_error *err);
const char *json_text(const json_t *obj, const char *key, const char *other); /* a string member, or `other` */
bool json_flag(const json_t *obj, const char *key, bool other);
gist_status json_bytes(const void *bytes, size_t len, const char *what, json_t **out, gist_error *err);
gist_status json_file(const char *path, const char *what, json_t **out, gist_error *err);

/* A tokenizer from the bytes of one file alone: tokenizer.json when they begin with a brace, else tokenizer.model. */
gist_status tok_parse(const void *bytes, size_t len, const gist_allocator *alloc, tokenizer **out, gist_error *err);
/* vocab.json and merges.txt from memory; cls as tokenizer_config.json's tokenizer_class, or NULL. */
gist_status tok_parse_gpt2(const void *vocab, size_t vocab_len, const char *merges, size_t merges_len, const char *cls,
                           const gist_allocator *alloc, tokenizer **out, gist_error *err);

/* ---- splitting and normalising ---- */

extern const char tok_pattern_gpt2[], tok_pattern_qwen2[], tok_pattern_llama3[];
/* literal: the pattern is plain text.  keep_*: which of matches and what lies between them become segments. */
gist_status split_add(tokenizer *t, const char *pattern, size_t len, bool literal, bool keep_match, bool keep_gap,
                      gist_error *err);
gist_status split_add_prefix(tokenizer *t, gist_error *err);
/* The stages of the pre-tokenizer that GGUF calls `name`: GIST_ERR_UNSUPPORTED when it is none of the known. */
gist_status split_add_named(tokenizer *t, tok_text name, gist_error *err);
/* The name of t's stages there; NULL: they have none. */
const char *split_name(const tokenizer *t);
/* The expression of a split in one stage, without normalisation; p NULL: it is more than that. */
tok_text split_pattern(const tokenizer *t);
void split_free(tokenizer *t);
/* s[0..len), valid UTF-8, in normal form `form`; *out borrows s when nothing changes, else buf. */
gist_status norm_form(tok_form form, const char *s, size_t len, sbuf *buf, const char **out, size_t *out_len,
                      gist_error *err);
size_t space_len(const char *s, size_t len);  /* bytes of white space at the start */
size_t space_tail(const char *s, size_t len); /* bytes of white space at the end */

/* ---- encoding ---- */

typedef struct encoder {
    const tokenizer *t;
    tok_ids *out;
    gist_error *err;
    merge_work work;
    sbuf norm, prefixed, mapped;
    pcre2_match_data *match;
    path_work path;
    bool after_unk; /* the last id was an unknown that the next one joins */
} encoder;

typedef struct tok_span {
    size_t begin, end;
} tok_span;

/* tok_encode, recognising special tokens only where they lie inside one of the spans (own NULL: anywhere). */
gist_status encode_within(const tokenizer *t, const char *text, size_t len, unsigned flags, const tok_span *own,
                          size_t n_own, tok_ids *out, gist_error *err);
gist_status sp_encode(encoder *e, const char *s, size_t len, bool first);
gist_status unigram_encode(encoder *e, const char *s, size_t len); /* s normalised, valid UTF-8 */
gist_status split_encode(encoder *e, const char *s, size_t len, int stage);
gist_status bytes_encode(encoder *e, const char *word, size_t len);
/* Put out what a text that is no piece becomes: its bytes, or the unknown, which joins one just before it. */
gist_status encode_unknown(encoder *e, const char *s, size_t len);
/* Put the id of every symbol of the merged chain out; text as for merge_run. */
gist_status encode_symbols(encoder *e, const char *text);

/* GPT-2's alphabet: every byte is a printable character. */
uint32_t byte_letter(uint8_t b);
int letter_byte(uint32_t cp);  /* -1: no letter of the alphabet */
void bytes_find(tokenizer *t); /* which pieces are the single bytes? */

#endif
