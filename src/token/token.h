/* token.h - text <-> token ids, and the templates around a prompt.  Knows no model.
 *
 *   SentencePiece BPE     tokenizer.model (protobuf): merges by score, byte fallback, normaliser flags, character map
 *   SentencePiece unigram spiece.model (the same format; T5): the segmentation of the greatest score
 *   byte-level BPE        tokenizer.json, or vocab.json + merges.txt: split pattern (PCRE2), merges by rank
 *   tiktoken              LLaMA-3's tokenizer.model (base64, rank): byte-level BPE whose merges are implied by ranks
 *   arrays                what a GGUF file holds of one of these (tok_parts)
 */
#ifndef GIST_TOKEN_H
#define GIST_TOKEN_H

#include "base/base.h"

typedef struct tokenizer tokenizer; /* immutable after load and tok_add_gist; may be shared by threads */

/* A growing array of token ids. */
typedef struct tok_ids {
    const gist_allocator *alloc;
    int32_t *id;
    size_t n, cap;
} tok_ids;
void tok_ids_init(tok_ids *v, const gist_allocator *alloc);
void tok_ids_free(tok_ids *v);
gist_status tok_ids_push(tok_ids *v, int32_t id, gist_error *err);

/* Load from a model directory, or from one file of these kinds and the side files in its directory.  Order of trust:
 * tokenizer.json with byte-level BPE, tokenizer.model, tokenizer.json that writes a SentencePiece model as JSON,
 * vocab.json + merges.txt.  Side files: tokenizer_config.json, special_tokens_map.json, added_tokens.json,
 * generation_config.json, config.json.  What a file asks for and we do not do is GIST_ERR_UNSUPPORTED and named. */
gist_status tok_open(const char *path, const gist_allocator *alloc, tokenizer **out, gist_error *err);
void tok_close(tokenizer *t);

enum { TOK_BOS = 1, TOK_SPECIAL = 2, TOK_EOS = 4 }; /* the first two as GIST_TOKENIZE_* */
/* Append the ids of text (at most 64 MiB) to *out; on failure *out is as before.  Invalid UTF-8: GIST_ERR_TEXT with its
 * offset.  TOK_BOS: begin with BOS when there is one, whatever tok_adds_bos says; TOK_EOS: the same at the end.
 * Special tokens in the text are recognised with TOK_SPECIAL only, other added tokens always.  White space on both
 * sides of the gist token is stripped then (lstrip and rstrip of any added token are honoured in general).  In
 * SentencePiece each stretch between added tokens starts like a new word when the model says add_dummy_prefix. */
gist_status tok_encode(const tokenizer *t, const char *text, size_t len, unsigned flags, tok_ids *out, gist_error *err);

int tok_size(const tokenizer *t);    /* ids are [0, tok_size) */
int32_t tok_bos(const tokenizer *t); /* -1: none */
int32_t tok_eos(const tokenizer *t);
bool tok_is_end(const tokenizer *t, int32_t id); /* eos, or one of generation_config's eos_token_id list */
/* All of them into id[0..cap), eos first; how many there are. */
int tok_ends(const tokenizer *t, int32_t *id, int cap);
int32_t tok_gist(const tokenizer *t);     /* id of "<GIST>", -1: the vocabulary has none */
bool tok_adds_bos(const tokenizer *t);    /* does this model's text begin with BOS? */
bool tok_adds_eos(const tokenizer *t);    /* does this model's text end with EOS, as T5's does? */
const char *tok_kind(const tokenizer *t); /* "sentencepiece-bpe", "sentencepiece-unigram", "byte-bpe", "tiktoken" */
/* Of all that decides the ids of a text: pieces, merges, added tokens, flags, patterns, BOS.  Not of the files' form,
 * nor of what ends an answer.  Taken before tok_add_gist.  A SentencePiece model as JSON and one by score, or tiktoken
 * and byte-level merges, are different tokenizers. */
hash128 tok_fingerprint(const tokenizer *t);
/* Give "<GIST>" the id `id` (normally the model's row count).  An error when the text is taken by another id. */
gist_status tok_add_gist(tokenizer *t, int32_t id, gist_error *err);
int32_t tok_find(const tokenizer *t, const char *piece); /* id of an exact piece or special token, -1 */
/* Vocabulary entry as stored ("▁the", "<0x0A>", "Ġthe"), NUL-terminated; NULL: no such id.  tiktoken's bytes are
 * shown in the byte alphabet of GPT-2, too.  *len may be NULL. */
const char *tok_piece(const tokenizer *t, int32_t id, size_t *len);
bool tok_is_special(const tokenizer *t, int32_t id);
const char *tok_chat_template(const tokenizer *t); /* Jinja text of its files, NULL: none */

/* Streaming detokenization: feed ids one by one, get bytes that are whole UTF-8 characters; bytes that can no longer
 * become a character come out as U+FFFD.  Special tokens print nothing.  Fixed size, no allocation of its own. */
typedef struct tok_stream {
    const tokenizer *t;
    char held[8];
    int held_len;
    bool first; /* one leading space is still to be dropped: it joins the text to what stands before it */
} tok_stream;
void tok_stream_init(tok_stream *s, const tokenizer *t, bool at_start_of_text);
void tok_stream_push(tok_stream *s, int32_t id, sbuf *out);
void tok_stream_end(tok_stream *s, sbuf *out); /* what is still held becomes U+FFFD */

/* ---- vocabularies as arrays ---- */

typedef struct tok_text {
    const char *p; /* NULL: absent.  Not NUL-terminated */
    size_t len;
} tok_text;

/* What a GGUF file says of its vocabulary; the keys' common beginning is "tokenizer.ggml.".  A yes-or-no is 1, 0, or
 * -1 where the file does not say; an id is -1 where it does not. */
typedef struct tok_parts {
    tok_text model;        /* model: "llama" SentencePiece BPE, "t5" SentencePiece unigram, "gpt2" byte-level BPE */
    tok_text pre;          /* pre: how "gpt2" splits text: "gpt-2", "llama-bpe", "qwen2", "smollm", "default" */
    tok_text pattern;      /* gist.split_pattern: the expression that matches the words of a "gpt2" whose split has no
                              name; pre is "default" then, for other programs, which split a little differently */
    const tok_text *token; /* [tokens] tokens */
    size_t tokens;
    const float *score;    /* [tokens] scores; NULL: absent ("gpt2" needs none) */
    const int32_t *type;   /* [tokens] token_type: 1 normal 2 unknown 3 control 4 user defined 5 unused 6 byte;
                              NULL: absent ("gpt2": all normal) */
    const tok_text *merge; /* [merges] merges, "a b", in order of rank; "gpt2" only */
    size_t merges;
    int32_t bos, eos, unk, pad; /* bos_token_id, eos_token_id, unknown_token_id, padding_token_id */
    const int32_t *end;         /* [ends] what ends an answer beside eos: eot_token_id, eom_token_id */
    size_t ends;
    int add_bos, add_eos; /* add_bos_token, add_eos_token */
    int add_space_prefix, remove_extra_whitespaces;
    const void *charsmap; /* precompiled_charsmap; NULL: absent */
    size_t charsmap_len;
    tok_text chat_template; /* "tokenizer.chat_template": Jinja, kept and handed on, never run */
    void *own;              /* what tok_parts_of has made, else NULL */
    const gist_allocator *alloc;
} tok_parts;

/* A parts with nothing in it: every number -1, every pointer NULL. */
tok_parts tok_parts_none(void);
/* A tokenizer of these parts; nothing of p is kept.  Same ids, and the same fingerprint, as from the Hugging Face
 * files they were made from, so far as arrays can say it: they know no lstrip, rstrip, single_word and normalized.
 * Ids out of bounds, texts given twice, merges of no pieces and the like are GIST_ERR_FORMAT; a model, a `pre` or a
 * kind of normalisation that is not known is GIST_ERR_UNSUPPORTED and named. */
gist_status tok_open_parts(const tok_parts *p, const gist_allocator *alloc, tokenizer **out, gist_error *err);
/* The parts of t for a model of `rows` rows (0: tok_size), to be written as GGUF; ids without a text become "[PADi]",
 * unused.  Texts are borrowed from t; tok_parts_free releases the arrays.  What the arrays cannot hold is
 * GIST_ERR_UNSUPPORTED and named. */
gist_status tok_parts_of(const tokenizer *t, int rows, tok_parts *out, gist_error *err);
void tok_parts_free(tok_parts *p);
/* Write Hugging Face tokenizer files into the directory dir: tokenizer.model (SentencePiece), tokenizer.json (all but
 * unigram, where merges can say the same), tokenizer_config.json (special and added tokens, add_bos_token, chat
 * template), as transformers and tok_open read them.  generation_config.json is the caller's (tok_ends). */
gist_status tok_write_dir(const tokenizer *t, const char *dir, gist_error *err);

/* ---- templates ---- */

/* The text around a prompt t, k gist tokens and an input x.
 *     prompt part                gist        rest
 *   | before_prompt t after |   <GIST>*k   | before_input x after_input answer |
 * gisting.md: white space next to gist tokens is stripped, each side is tokenized by itself. */
typedef struct tok_template tok_template;
const tok_template *tok_template_find(const char *name); /* NULL: unknown */
const char *tok_template_names(void);                    /* "paper\npaper-t5\nraw\nchatml\nllama3" */
const char *tok_template_name(const tok_template *tp);

/* Token ids of the prompt part (BOS first where the model has one), without gist tokens.  Empty prompt (only white
 * space): GIST_ERR_TEXT.  A special token that the template needs and the vocabulary lacks is GIST_ERR_UNSUPPORTED.
 * Special tokens written inside t or x are plain text. */
gist_status tok_template_prompt(const tokenizer *t, const tok_template *tp, const char *prompt, size_t len,
                                tok_ids *out, gist_error *err);
/* Token ids of what follows the gist: the input (NULL or empty: the form without input) up to where the answer begins.
 * first: nothing stands before it (no prompt, no gist), so it begins with BOS where the model has one. */
gist_status tok_template_input(const tokenizer *t, const tok_template *tp, const char *input, size_t len, bool first,
                               tok_ids *out, gist_error *err);
/* The law: tokens(prompt part) ++ gist*k ++ tokens(rest) = tokens(whole text with <GIST> written k times).
 * GIST_ERR_TEXT with the first differing index when it does not hold.  Only meaningful when tok_gist(t) >= 0. */
gist_status tok_template_law(const tokenizer *t, const tok_template *tp, const char *prompt, size_t plen, int k,
                             const char *input, size_t ilen, gist_error *err);

/* Token ids of what stands before an input's own text (behind a prompt or gist), to have a model go on with an input;
 * *stop is the text that ends it, "" where a special token does.  GIST_ERR_UNSUPPORTED: nothing marks where it ends. */
gist_status tok_template_input_start(const tokenizer *t, const tok_template *tp, tok_ids *out, const char **stop,
                                     gist_error *err);

/* Token ids of an answer as it continues the rest, without the end token.  Paper and raw templates: a space stands
 * before it (SentencePiece: it starts like a new word).  Chat templates: it follows their last newline; GIST_ERR_TEXT
 * when that newline and the answer's beginning are one token. */
gist_status tok_template_answer(const tokenizer *t, const tok_template *tp, const char *text, size_t len, tok_ids *out,
                                gist_error *err);
/* A stream of an answer's ids as they continue the rest: its text comes without what joins it to that. */
void tok_template_answer_stream(tok_stream *s, const tokenizer *t, const tok_template *tp);
/* The law of answers: tokens(rest) ++ tokens(answer) = tokens(rest and answer in one text), else GIST_ERR_TEXT. */
gist_status tok_template_answer_law(const tokenizer *t, const tok_template *tp, const char *input, size_t ilen,
                                    const char *text, size_t len, gist_error *err);
/* The token that ends an answer: <|im_end|>, <|eot_id|>, else the model's EOS.  -1: there is none. */
int32_t tok_template_end(const tokenizer *t, const tok_template *tp);
/* Conversations: a chat template can go on after an answer, with its end token and what stands before the next turn. */
bool tok_template_has_turns(const tok_template *tp);
gist_status tok_template_turn(const tokenizer *t, const tok_template *tp, tok_ids *out, gist_error *err);

#endif
