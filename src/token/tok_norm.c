/* tok_norm.c - Unicode normalisation forms and white space.
 *
 *   text --decompose each character--> code points --order the marks--> --compose--> text
 *
 * utf8proc knows the characters; the ordering of combining marks is ours, because a library's exchange sort takes
 * quadratic time on a text that is nothing but marks.  Source: Unicode Standard Annex 15.
 */
#include <utf8proc.h>

#include "token/token_int.h"

/* U+0009..D, 20, 85, A0 and the separators: Unicode's White_Space. */
static bool is_space(uint32_t cp) {
    return (cp >= 9 && cp <= 13) || cp == 0x20 || cp == 0x85 || cp == 0xA0 || cp == 0x1680 ||
           (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 || cp == 0x2029 || cp == 0x202F || cp == 0x205F ||
           cp == 0x3000;
}

size_t space_len(const char *s, size_t len) {
    size_t pos = 0;
    while (pos < len) {
        uint32_t cp;
        int n = utf8_decode(s + pos, len - pos, &cp);
        if (n == 0 || !is_space(cp)) break;
        pos += (size_t)n;
    }
    return pos;
}

size_t space_tail(const char *s, size_t len) {
    size_t end = len;
    while (end > 0) {
        size_t i = end - 1;
        while (i > 0 && end - i < 4 && ((uint8_t)s[i] & 0xC0) == 0x80) i--;
        uint32_t cp;
        int n = utf8_decode(s + i, end - i, &cp);
        if (n == 0 || i + (size_t)n != end || !is_space(cp)) break;
        end = i;
    }
    return len - end;
}

/* Below these, every character is in the form already: no byte reaches the first lead byte that could change. */
static bool is_plain(tok_form form, const char *s, size_t len) {
    unsigned limit = form == FORM_NFC ? 0xCC : form == FORM_NFD ? 0xC3 : 0xC2; /* U+0300, U+00C0, U+0080 */
    for (size_t i = 0; i < len; i++)
        if ((uint8_t)s[i] >= limit) return false;
    return true;
}

static int combining(int32_t cp) {
    return utf8proc_get_property(cp)->combining_class;
}

/* Stable sort of a run of marks by combining class: bottom-up merges through tmp. */
static void order_run(int32_t *x, size_t n, int32_t *tmp) {
    bool sorted = true;
    for (size_t i = 1; i < n && sorted; i++) sorted = combining(x[i - 1]) <= combining(x[i]);
    if (sorted) return;
    for (size_t run = 1; run < n; run *= 2) {
        for (size_t i = 0; i < n; i += 2 * run) {
            size_t mid = i + run < n ? i + run : n, end = i + 2 * run < n ? i + 2 * run : n;
            for (size_t a = i, b = mid, k = i; k < end; k++)
                tmp[k] = b >= end || (a < mid && combining(x[a]) <= combining(x[b])) ? x[a++] : x[b++];
        }
        memcpy(x, tmp, n * sizeof *x);
    }
}

static void order_marks(int32_t *x, size_t n, int32_t *tmp) {
    for (size_t i = 0, end; i < n; i = end) {
        end = i + 1;
        if (combining(x[i]) == 0) continue;
        while (end < n && combining(x[end]) != 0) end++;
        order_run(x + i, end - i, tmp);
    }
}

enum { MOST_PARTS = 32 }; /* of one character: 18 in Unicode */

gist_status norm_form(tok_form form, const char *s, size_t len, sbuf *buf, const char **out, size_t *out_len,
                      gist_error *err) {
    *out = s;
    *out_len = len;
    if (form == FORM_NONE || is_plain(form, s, len)) return GIST_OK;
    bool compose = form == FORM_NFC || form == FORM_NFKC, compat = form == FORM_NFKC || form == FORM_NFKD;
    int how = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | (compat ? UTF8PROC_COMPAT : 0);
    size_t cap = len + MOST_PARTS, n = 0;
    gist_status st = GIST_OK;
    int32_t *tmp = NULL, *cps = mem_alloc(buf->alloc, cap, sizeof *cps);
    if (!cps) return err_memory(err, "normalising");
    for (size_t pos = 0; pos < len;) {
        uint32_t cp = 0;
        int k = utf8_decode(s + pos, len - pos, &cp), boundary = 0;
        if (cap - n < MOST_PARTS) {
            int32_t *more = mem_resize(buf->alloc, cps, cap, cap * 2, sizeof *cps);
            if (!more) goto no_memory;
            cps = more;
            cap *= 2;
        }
        utf8proc_ssize_t parts =
            utf8proc_decompose_char((int32_t)cp, cps + n, MOST_PARTS, (utf8proc_option_t)how, &boundary);
        if (k == 0 || parts < 0 || parts > MOST_PARTS) {
            st = err_at(err, GIST_ERR_TEXT, pos, "cannot normalise the character at byte %zu", pos);
            goto done;
        }
        n += (size_t)parts;
        pos += (size_t)k;
    }
    tmp = mem_alloc(buf->alloc, n, sizeof *tmp);
    if (!tmp) goto no_memory;
    order_marks(cps, n, tmp);
    if (compose)
        n = (size_t)utf8proc_normalize_utf32(cps, (utf8proc_ssize_t)n,
                                             (utf8proc_option_t)(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    buf->len = 0;
    sbuf_add(buf, "", 0);
    for (size_t i = 0; i < n; i++) {
        char u[4];
        sbuf_add(buf, u, (size_t)utf8_encode((uint32_t)cps[i], u));
    }
    if (buf->failed) goto no_memory;
    *out = buf->p;
    *out_len = buf->len;
    goto done;
no_memory:
    st = err_memory(err, "normalising");
done:
    mem_free(buf->alloc, tmp);
    mem_free(buf->alloc, cps);
    return st;
}
