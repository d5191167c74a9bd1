/* tok_template.c - the text around a prompt, its gist tokens and an input; the law that cutting it there is harmless.
 *
 *   paper    Instruction: {t}\n                      <GIST>*k  \nInput: {x}\nOutput:
 *   paper-t5 the same without Output: for encoder-decoder models, where the source ends; the line end in front of the
 *            gist tokens is a token of its own, a lone word mark, as the paper's checkpoints were given it
 *   raw      {t}                                     <GIST>*k  {x}
 *   chatml   <|im_start|>system\n{t}<|im_end|>\n     <GIST>*k  <|im_start|>user\n{x}<|im_end|>\n<|im_start|>assistant\n
 *   llama3   <|start_header_id|>system<|end_header_id|>\n\n{t}<|eot_id|>  <GIST>*k  the same for user, then assistant
 *
 * White space beside the gist tokens belongs to them, so each side is tokenized without it.  Special tokens are
 * recognised in the template's words only (spans), never in t or x.  Without x its turn is left out.
 * Sources: Mu et al. 2023, section 4; the chat formats of Qwen2 and LLaMA-3 (which trims its messages).
 */
#include "token/token_int.h"

struct tok_template {
    const char *name;
    const char *before_prompt, *after_prompt;
    const char *before_input, *after_input, *no_input;
    const char *needs[3]; /* special tokens */
    bool trims;
    const char *before_answer; /* joins the answer to the rest: a space or nothing */
    const char *end;           /* token that ends an answer; NULL: the model's EOS */
    const char *between;       /* behind that token, before the next turn; NULL: one turn is all there is */
    const char *mark;          /* piece that ends the prompt, where the vocabulary has it; NULL: none */
};

#define LLAMA3_ROLE(role) "<|start_header_id|>" role "<|end_header_id|>\n\n"

static const tok_template templates[] = {
    { "paper", "Instruction: ", "\n", "\nInput: ", "\nOutput:", "\nOutput:", { NULL }, false, " ", NULL, NULL, NULL },
    { "paper-t5", "Instruction: ", "\n", "\nInput: ", "", "", { NULL }, false, " ", NULL, NULL, TOK_SPACE },
    { "raw", "", "", "", "", "", { NULL }, false, " ", NULL, NULL, NULL },
    { "chatml",
      "<|im_start|>system\n",
      "<|im_end|>\n",
      "<|im_start|>user\n",
      "<|im_end|>\n<|im_start|>assistant\n",
      "<|im_start|>assistant\n",
      { "<|im_start|>", "<|im_end|>" },
      false,
      "",
      "<|im_end|>",
      "\n",
      NULL },
    { "llama3",
      LLAMA3_ROLE("system"),
      "<|eot_id|>",
      LLAMA3_ROLE("user"),
      "<|eot_id|>" LLAMA3_ROLE("assistant"),
      LLAMA3_ROLE("assistant"),
      { "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>" },
      true,
      "",
      "<|eot_id|>",
      "",
      NULL },
};

const tok_template *tok_template_find(const char *name) {
    for (size_t i = 0; i < sizeof templates / sizeof *templates; i++)
        if (strcmp(templates[i].name, name) == 0) return &templates[i];
    return NULL;
}

const char *tok_template_names(void) {
    return "paper\npaper-t5\nraw\nchatml\nllama3";
}

const char *tok_template_name(const tok_template *tp) {
    return tp->name;
}

typedef struct draft { /* a text, and where it is the template's own */
    sbuf text;
    tok_span own[8];
    size_t n;
} draft;

static void add_own(draft *d, const char *words) {
    size_t begin = d->text.len;
    sbuf_str(&d->text, words);
    if (d->text.len > begin) d->own[d->n++] = (tok_span){ begin, d->text.len };
}

static void add_user(draft *d, const tok_template *tp, const char *s, size_t len) {
    size_t skip = tp->trims ? space_len(s, len) : 0;
    if (skip < len) sbuf_add(&d->text, s + skip, len - skip - (tp->trims ? space_tail(s + skip, len - skip) : 0));
}

static void draft_prompt(draft *d, const tok_template *tp, const char *prompt, size_t len) {
    add_own(d, tp->before_prompt);
    add_user(d, tp, prompt, len);
    add_own(d, tp->after_prompt);
}

static void draft_input(draft *d, const tok_template *tp, const char *input, size_t len) {
    if (!input || len == 0) {
        add_own(d, tp->no_input);
        return;
    }
    add_own(d, tp->before_input);
    add_user(d, tp, input, len);
    add_own(d, tp->after_input);
}

static gist_status check(const tokenizer *t, const tok_template *tp, const char *what, const char *s, size_t len,
                         gist_error *err) {
    size_t bad = 0;
    for (int i = 0; i < 3 && tp->needs[i]; i++) {
        int32_t id = tok_find(t, tp->needs[i]);
        if (!tok_is_special(t, id))
            return err_set(err, GIST_ERR_UNSUPPORTED,
                           "template \"%s\" needs the special token %s, which this vocabulary %s", tp->name,
                           tp->needs[i], id < 0 ? "lacks" : "has as ordinary text");
    }
    if (len > TOK_MAX_TEXT)
        return err_set(err, GIST_ERR_LIMIT, "the %s has %zu bytes, at most %zu are allowed", what, len, TOK_MAX_TEXT);
    if (len && !utf8_valid(s, len, &bad))
        return err_at(err, GIST_ERR_TEXT, bad, "the %s is not valid UTF-8 at byte %zu", what, bad);
    return GIST_OK;
}

static gist_status check_prompt(const tokenizer *t, const tok_template *tp, const char *prompt, size_t len,
                                gist_error *err) {
    TRY(check(t, tp, "prompt", prompt, len, err));
    if (space_len(prompt, len) == len) return err_set(err, GIST_ERR_TEXT, "the prompt is empty");
    return GIST_OK;
}

/* Encode the draft from byte `skip` on, and free it. */
static gist_status encode_draft(const tokenizer *t, draft *d, size_t skip, unsigned flags, tok_ids *out,
                                gist_error *err) {
    for (size_t i = 0; i < d->n; i++) {
        d->own[i].begin = d->own[i].begin > skip ? d->own[i].begin - skip : 0;
        d->own[i].end = d->own[i].end > skip ? d->own[i].end - skip : 0;
    }
    gist_status st = d->text.failed ? err_memory(err, "template")
                     : d->text.len ? encode_within(t, d->text.p + skip, d->text.len - skip, flags | TOK_SPECIAL, d->own,
                                                   d->n, out, err)
                                   : encode_within(t, "", 0, flags, d->own, 0, out, err);
    sbuf_free(&d->text);
    return st;
}

static unsigned begin_flags(const tokenizer *t) {
    return t->adds_bos ? TOK_BOS : 0;
}

static gist_status prompt_text(const tokenizer *t, const tok_template *tp, const char *prompt, size_t len, tok_ids *out,
                               gist_error *err) {
    draft d = { .n = 0 };
    TRY(check_prompt(t, tp, prompt, len, err));
    sbuf_init(&d.text, t->alloc);
    draft_prompt(&d, tp, prompt, len);
    if (!d.text.failed) d.text.len -= space_tail(d.text.p, d.text.len);
    return encode_draft(t, &d, 0, begin_flags(t), out, err);
}

gist_status tok_template_prompt(const tokenizer *t, const tok_template *tp, const char *prompt, size_t len,
                                tok_ids *out, gist_error *err) {
    TRY(prompt_text(t, tp, prompt, len, out, err));
    int32_t mark = tp->mark ? tok_find(t, tp->mark) : -1;
    return mark < 0 ? GIST_OK : tok_ids_push(out, mark, err);
}

gist_status tok_template_input(const tokenizer *t, const tok_template *tp, const char *input, size_t len, bool first,
                               tok_ids *out, gist_error *err) {
    draft d = { .n = 0 };
    TRY(check(t, tp, "input", input, len, err));
    sbuf_init(&d.text, t->alloc);
    draft_input(&d, tp, input, len);
    size_t skip = d.text.failed || !d.text.len ? 0 : space_len(d.text.p, d.text.len);
    if (first) { /* no gist beside it: only the template's own white space goes */
        size_t own = d.n > 0 && d.own[0].begin == 0 ? d.own[0].end : 0;
        if (skip > own) skip = own;
    }
    return encode_draft(t, &d, skip, first ? begin_flags(t) : TOK_CONTINUED, out, err);
}

gist_status tok_template_input_start(const tokenizer *t, const tok_template *tp, tok_ids *out, const char **stop,
                                     gist_error *err) {
    draft d = { .n = 0 };
    TRY(check(t, tp, "input", "", 0, err));
    if (!*tp->after_input)
        return err_set(err, GIST_ERR_UNSUPPORTED, "template \"%s\" has no mark where an input ends", tp->name);
    sbuf_init(&d.text, t->alloc);
    add_own(&d, tp->before_input);
    size_t skip = d.text.failed ? 0 : space_len(d.text.p, d.text.len);
    /* no final space: a word brings its own */
    while (!d.text.failed && d.text.len > skip && d.text.p[d.text.len - 1] == ' ') d.text.len--;
    d.own[0].end = d.text.len;
    TRY(encode_draft(t, &d, skip, TOK_CONTINUED, out, err));
    *stop = tp->end ? "" : tp->after_input;
    return GIST_OK;
}

/* All three texts for the law: the parts into *parts, the whole into *whole; a mark is not text. */
static gist_status both_ways(const tokenizer *t, const tok_template *tp, const char *prompt, size_t plen, int k,
                             const char *input, size_t ilen, tok_ids *parts, tok_ids *whole, gist_error *err) {
    draft d = { .n = 0 };
    TRY(prompt_text(t, tp, prompt, plen, parts, err));
    for (int i = 0; i < k; i++) TRY(tok_ids_push(parts, t->gist, err));
    TRY(tok_template_input(t, tp, input, ilen, false, parts, err));
    sbuf_init(&d.text, t->alloc);
    draft_prompt(&d, tp, prompt, plen);
    size_t gists = d.text.len;
    for (int i = 0; i < k; i++) sbuf_str(&d.text, TOK_GIST_TEXT);
    d.own[d.n++] = (tok_span){ gists, d.text.len };
    draft_input(&d, tp, input, ilen);
    return encode_draft(t, &d, 0, begin_flags(t), whole, err);
}

gist_status tok_template_law(const tokenizer *t, const tok_template *tp, const char *prompt, size_t plen, int k,
                             const char *input, size_t ilen, gist_error *err) {
    if (t->gist < 0) return err_set(err, GIST_ERR_USAGE, "the vocabulary has no %s", TOK_GIST_TEXT);
    if (k < 1 || k > 1 << 16) return err_set(err, GIST_ERR_USAGE, "%d gist tokens, 1 to %d are allowed", k, 1 << 16);
    tok_ids parts, whole;
    tok_ids_init(&parts, t->alloc);
    tok_ids_init(&whole, t->alloc);
    gist_status st = both_ways(t, tp, prompt, plen, k, input, ilen, &parts, &whole, err);
    size_t n = parts.n < whole.n ? parts.n : whole.n, i = 0;
    while (st == GIST_OK && i < n && parts.id[i] == whole.id[i]) i++;
    if (st == GIST_OK && (i < n || parts.n != whole.n))
        st = err_at(err, GIST_ERR_TEXT, i,
                    "tokenization law: prompt, gist and input give %zu tokens, the whole text %zu; "
                    "the first difference is at token %zu (%d, %d)",
                    parts.n, whole.n, i, i < parts.n ? parts.id[i] : -1, i < whole.n ? whole.id[i] : -1);
    tok_ids_free(&parts);
    tok_ids_free(&whole);
    return st;
}

/* ---- answers ---- */

int32_t tok_template_end(const tokenizer *t, const tok_template *tp) {
    return tp->end ? tok_find(t, tp->end) : tok_eos(t);
}

bool tok_template_has_turns(const tok_template *tp) {
    return tp->between != NULL;
}

gist_status tok_template_turn(const tokenizer *t, const tok_template *tp, tok_ids *out, gist_error *err) {
    size_t before = out->n;
    if (!tp->between) return err_set(err, GIST_ERR_UNSUPPORTED, "template \"%s\" has one turn only", tp->name);
    gist_status st = tok_ids_push(out, tok_template_end(t, tp), err);
    if (st == GIST_OK) st = encode_within(t, tp->between, strlen(tp->between), TOK_CONTINUED, NULL, 0, out, err);
    if (st != GIST_OK) out->n = before;
    return st;
}

static void add_answer(draft *d, const tok_template *tp, const char *text, size_t len) {
    sbuf_str(&d->text, tp->before_answer);
    add_user(d, tp, text, len);
}

/* Does every stretch of text begin like a word by itself? */
static bool starts_words(const tokenizer *t) {
    return t->model == TOK_SENTENCEPIECE && (t->prefix == PREFIX_ALWAYS || t->prefix == PREFIX_MISSING);
}

/* The chat templates' last words end in a newline: the answer is what its ids are behind one. */
static gist_status encode_behind(const tokenizer *t, const char *before, draft *d, tok_ids *out, gist_error *err) {
    tok_ids alone, both;
    draft whole = { .n = 0 };
    tok_ids_init(&alone, t->alloc);
    tok_ids_init(&both, t->alloc);
    sbuf_init(&whole.text, t->alloc);
    sbuf_str(&whole.text, before);
    if (d->text.len) sbuf_add(&whole.text, d->text.p, d->text.len);
    whole.text.failed = whole.text.failed || d->text.failed;
    gist_status st = encode_within(t, before, strlen(before), TOK_CONTINUED, NULL, 0, &alone, err);
    if (st == GIST_OK)
        st = encode_draft(t, &whole, 0, TOK_CONTINUED, &both, err);
    else
        sbuf_free(&whole.text);
    if (st == GIST_OK && (both.n < alone.n || memcmp(both.id, alone.id, alone.n * sizeof *both.id) != 0))
        st = err_set(err, GIST_ERR_TEXT, "the answer's first token joins the text before it");
    for (size_t i = alone.n; st == GIST_OK && i < both.n; i++) st = tok_ids_push(out, both.id[i], err);
    tok_ids_free(&alone);
    tok_ids_free(&both);
    return st;
}

gist_status tok_template_answer(const tokenizer *t, const tok_template *tp, const char *text, size_t len, tok_ids *out,
                                gist_error *err) {
    draft d = { .n = 0 };
    size_t before = out->n;
    TRY(check(t, tp, "answer", text, len, err));
    sbuf_init(&d.text, t->alloc);
    if (!starts_words(t)) sbuf_str(&d.text, tp->before_answer);
    add_user(&d, tp, text, len);
    gist_status st =
        *tp->before_answer ? encode_draft(t, &d, 0, TOK_CONTINUED, out, err) : encode_behind(t, "\n", &d, out, err);
    sbuf_free(&d.text);
    if (st != GIST_OK) out->n = before;
    return st;
}

void tok_template_answer_stream(tok_stream *s, const tokenizer *t, const tok_template *tp) {
    tok_stream_init(s, t, true);
    if (*tp->before_answer) s->first = true; /* a space, or how a SentencePiece word begins */
}

gist_status tok_template_answer_law(const tokenizer *t, const tok_template *tp, const char *input, size_t ilen,
                                    const char *text, size_t len, gist_error *err) {
    draft d = { .n = 0 };
    tok_ids parts, whole;
    tok_ids_init(&parts, t->alloc);
    tok_ids_init(&whole, t->alloc);
    gist_status st = tok_template_input(t, tp, input, ilen, false, &parts, err);
    if (st == GIST_OK && parts.n > 0) { /* nothing before the answer: it is its own whole */
        st = tok_template_answer(t, tp, text, len, &parts, err);
        sbuf_init(&d.text, t->alloc);
        draft_input(&d, tp, input, ilen);
        add_answer(&d, tp, text, len);
        size_t skip = d.text.failed || !d.text.len ? 0 : space_len(d.text.p, d.text.len);
        gist_status made = encode_draft(t, &d, skip, TOK_CONTINUED, &whole, err);
        if (st == GIST_OK) st = made;
        if (st == GIST_OK && (parts.n != whole.n || memcmp(parts.id, whole.id, whole.n * sizeof *whole.id) != 0))
            st = err_set(err, GIST_ERR_TEXT, "tokenization law: input and answer give %zu tokens, the whole text %zu",
                         parts.n, whole.n);
    }
    tok_ids_free(&parts);
    tok_ids_free(&whole);
    return st;
}
