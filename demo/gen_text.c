/* gen_text.c - expands templates (notation: gen.h) and counts what they draw.
 *
 *   "[We sell|You can buy] the {k} for <2-40> {money}."   ->   "You can buy the plum tart for 17 euros."
 *
 * A choice of wording costs no bits; a choice of value costs log2 of the number of values.
 */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>

#include "gen.h"

int text_below(gen *g, int n) {
    return (int)rng_below(&g->r, (uint64_t)n);
}

int text_value(gen *g, int n) {
    g->bits += log2(n);
    return text_below(g, n);
}

bool text_chance(gen *g, double p) {
    return rng_unit(&g->r) < p;
}

static void fail(gen *g, const char *why, const char *what, size_t len) {
    if (!g->failed) snprintf(g->why, sizeof g->why, "%s \"%.*s\"", why, len > 60 ? 60 : (int)len, what);
    g->failed = true;
}

/* The first '|' or ']' of s[0..len) that is not inside inner brackets; len when there is none. */
static size_t choice_end(const char *s, size_t len) {
    int depth = 0;
    for (size_t i = 0; i < len; i++) {
        if (depth == 0 && (s[i] == '|' || s[i] == ']')) return i;
        depth += (s[i] == '[') - (s[i] == ']');
    }
    return len;
}

/* "2-40" or the name of a list */
static void draw(gen *g, sbuf *out, const char *name, size_t len) {
    if (isdigit((unsigned char)*name)) {
        char *dash;
        long lo = strtol(name, &dash, 10), hi = strtol(dash + 1, NULL, 10);
        sbuf_fmt(out, "%ld", lo + text_value(g, (int)(hi - lo + 1)));
        return;
    }
    const char *alias = len == 4 && memcmp(name, "item", 4) == 0   ? g->items
                        : len == 4 && memcmp(name, "role", 4) == 0 ? g->roles
                                                                   : NULL;
    const word_list *list = alias ? words_find(g->w, alias, strlen(alias)) : words_find(g->w, name, len);
    if (list)
        sbuf_str(out, list->word[g->s][text_value(g, list->count[g->s])]);
    else
        fail(g, "no word list", name, len);
}

static void expand(gen *g, sbuf *out, const char *s, size_t len, const bind *binds) {
    for (size_t i = 0; i < len; i++) {
        const char *in = s + i + 1;
        size_t left = len - i - 1;
        if (s[i] == '[') {
            size_t n = 0, at = 0, end;
            do {
                end = at + choice_end(in + at, left - at);
                n++;
                at = end + 1;
            } while (end < left && in[end] == '|');
            if (end == left) {
                fail(g, "no ] in", s, len);
                return;
            }
            int pick = text_below(g, (int)n);
            for (at = 0; pick-- > 0;) at += choice_end(in + at, left - at) + 1;
            expand(g, out, in + at, choice_end(in + at, left - at), binds);
            i += end + 1;
        } else if (s[i] == '{' || s[i] == '<') {
            const char *end = memchr(in, s[i] == '{' ? '}' : '>', left);
            size_t n = end ? (size_t)(end - in) : left;
            const bind *b = binds;
            if (s[i] == '<') {
                draw(g, out, in, n);
            } else {
                while (b && b->key && (strncmp(b->key, in, n) != 0 || b->key[n])) b++;
                if (b && b->key)
                    sbuf_str(out, b->text);
                else
                    fail(g, "no binding", in, n);
            }
            i += n + 1;
        } else {
            sbuf_add(out, s + i, 1);
        }
    }
}

void text_expand(gen *g, sbuf *out, const char *tpl, const bind *binds) {
    expand(g, out, tpl, strlen(tpl), binds);
}

void text_into(gen *g, char out[TEXT_MAX], const char *tpl, const bind *binds) {
    sbuf s;
    sbuf_init(&s, NULL);
    text_expand(g, &s, tpl, binds);
    if (s.failed || s.len >= TEXT_MAX) fail(g, "too long:", tpl, strlen(tpl));
    snprintf(out, TEXT_MAX, "%s", s.p ? s.p : "");
    sbuf_free(&s);
}

size_t text_unmark(char *s, size_t len) {
    size_t n = 0;
    for (size_t i = 0; i < len; i++)
        if (s[i] != NAME_MARK) s[n++] = s[i];
    s[n] = 0;
    return n;
}

int text_tokens(const char *s, size_t len) {
    int n = 0;
    for (size_t i = 0; i < len;) {
        size_t start = i;
        if (isalpha((unsigned char)s[i])) {
            while (i < len && isalpha((unsigned char)s[i])) i++;
        } else if (isdigit((unsigned char)s[i])) {
            while (i < len && i < start + 2 && isdigit((unsigned char)s[i])) i++;
        } else if (s[i] == ' ' || s[i] == NAME_MARK) {
            i++;
            continue;
        } else if (s[i] == '\n') {
            while (i < len && s[i] == '\n') i++;
        } else {
            while (i < len && s[i] != ' ' && s[i] != '\n' && ispunct((unsigned char)s[i])) i++;
            i += i == start;
        }
        n++;
    }
    return n;
}

void row_string(sbuf *b, const char *s, size_t len) {
    sbuf_str(b, "\"");
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c == '\n')
            sbuf_str(b, "\\n");
        else if (c == '"' || c == '\\')
            sbuf_fmt(b, "\\%c", c);
        else if (c < 32)
            sbuf_fmt(b, "\\u%04x", c);
        else
            sbuf_add(b, s + i, 1);
    }
    sbuf_str(b, "\"");
}
