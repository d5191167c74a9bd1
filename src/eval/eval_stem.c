/* eval_stem.c - Porter's stemmer in the variant that ROUGE is computed with.
 *
 *   plural -> -ed, -ing -> y to i -> long suffixes (2, 3) -> last suffixes (4) -> final e, double l (5)
 *
 * A word is [C](VC)^m[V]: runs of consonants C and vowels V; m, its measure, says whether what a suffix leaves is still
 * a stem.  y is a consonant at the beginning and behind a vowel; digits are consonants.
 *
 * Source: M. F. Porter, "An algorithm for suffix stripping", Program 14(3), 1980.  differs: as the Natural Language
 * Toolkit does by default (its NLTK_EXTENSIONS mode): a list of irregular words, -ies and -ied of words of four
 * letters, y to i behind any consonant but the first letter, -alli before the other suffixes of step 2 and then step 2
 * again, -bli instead of -abli, -fulli, -logi, and a stem of vowel and consonant takes an e like consonant, vowel,
 * consonant.
 */
#include "eval/eval.h"

typedef struct word {
    char *p;
    size_t len;
} word;

/* ---- vowels, consonants, measure ---- */

static bool is_vowel_letter(char c) {
    return c == 'a' || c == 'e' || c == 'i' || c == 'o' || c == 'u';
}

static bool is_consonant(const char *p, size_t i) {
    bool flip = false;
    for (; i > 0 && p[i] == 'y'; i--) flip = !flip;
    return is_vowel_letter(p[i]) == flip;
}

/* How often a vowel is followed by a consonant in p[0..len). */
static size_t measure(const char *p, size_t len) {
    size_t m = 0;
    bool vowel = false;
    for (size_t i = 0; i < len; i++) {
        bool now = is_vowel_letter(p[i]) || (p[i] == 'y' && i > 0 && !vowel);
        m += vowel && !now;
        vowel = now;
    }
    return m;
}

static bool has_vowel(const char *p, size_t len) {
    for (size_t i = 0; i < len; i++)
        if (!is_consonant(p, i)) return true; /* a run of y ends here at its second letter */
    return false;
}

static bool ends_twice(const word *w) {
    return w->len >= 2 && w->p[w->len - 1] == w->p[w->len - 2] && is_consonant(w->p, w->len - 1);
}

/* consonant, vowel, consonant other than w, x, y; or the whole word is vowel, consonant */
static bool is_short(const char *p, size_t n) {
    if (n == 2) return !is_consonant(p, 0) && is_consonant(p, 1);
    return n >= 3 && is_consonant(p, n - 3) && !is_consonant(p, n - 2) && is_consonant(p, n - 1) && p[n - 1] != 'w' &&
           p[n - 1] != 'x' && p[n - 1] != 'y';
}

/* ---- suffixes ---- */

/* suffix -> with, when the stem has the step's measure; `kept` letters of the suffix count as the stem's */
typedef struct rule {
    const char *suffix, *with;
    size_t kept;
} rule;

static bool ends(const word *w, const char *suffix) {
    size_t n = strlen(suffix);
    return w->len >= n && memcmp(w->p + w->len - n, suffix, n) == 0;
}

/* The last n letters become `with`, which is never longer than what is gone from the word so far. */
static void put(word *w, size_t n, const char *with) {
    size_t more = strlen(with);
    w->len -= n;
    memcpy(w->p + w->len, with, more);
    w->len += more;
}

/* The first rule whose suffix fits decides, whether or not its stem has the measure. */
static void apply(word *w, const rule *rules, size_t count, size_t least) {
    for (size_t i = 0; i < count; i++) {
        size_t n = strlen(rules[i].suffix);
        if (!ends(w, rules[i].suffix)) continue;
        if (measure(w->p, w->len - n + rules[i].kept) >= least) put(w, n, rules[i].with);
        return;
    }
}
#define APPLY(w, rules, least) apply(w, rules, sizeof(rules) / sizeof *(rules), least)

static void plural(word *w) {
    static const rule rules[] = { { "sses", "ss", 0 }, { "ies", "i", 0 }, { "ss", "ss", 0 }, { "s", "", 0 } };
    if (w->len == 4 && ends(w, "ies"))
        put(w, 1, "");
    else
        APPLY(w, rules, 0);
}

static void past_and_ing(word *w) {
    if (ends(w, "ied")) {
        put(w, w->len == 4 ? 1 : 2, "");
        return;
    }
    if (ends(w, "eed")) {
        if (measure(w->p, w->len - 3) > 0) put(w, 1, "");
        return;
    }
    size_t n = ends(w, "ed") ? 2 : ends(w, "ing") ? 3 : 0;
    if (n == 0 || !has_vowel(w->p, w->len - n)) return;
    w->len -= n;
    char last = w->p[w->len - 1];
    if (ends(w, "at") || ends(w, "bl") || ends(w, "iz")) {
        put(w, 0, "e");
    } else if (ends_twice(w)) {
        if (last != 'l' && last != 's' && last != 'z') w->len--;
    } else if (measure(w->p, w->len) == 1 && is_short(w->p, w->len)) {
        put(w, 0, "e");
    }
}

static void y_to_i(word *w) {
    if (w->len > 2 && ends(w, "y") && is_consonant(w->p, w->len - 2)) w->p[w->len - 1] = 'i';
}

static void long_suffixes(word *w) {
    static const rule second[] = {
        { "ational", "ate", 0 }, { "tional", "tion", 0 }, { "enci", "ence", 0 },   { "anci", "ance", 0 },
        { "izer", "ize", 0 },    { "bli", "ble", 0 },     { "alli", "al", 0 },     { "entli", "ent", 0 },
        { "eli", "e", 0 },       { "ousli", "ous", 0 },   { "ization", "ize", 0 }, { "ation", "ate", 0 },
        { "ator", "ate", 0 },    { "alism", "al", 0 },    { "iveness", "ive", 0 }, { "fulness", "ful", 0 },
        { "ousness", "ous", 0 }, { "aliti", "al", 0 },    { "iviti", "ive", 0 },   { "biliti", "ble", 0 },
        { "fulli", "ful", 0 },   { "logi", "log", 1 },
    };
    static const rule third[] = {
        { "icate", "ic", 0 }, { "ative", "", 0 }, { "alize", "al", 0 }, { "iciti", "ic", 0 },
        { "ical", "ic", 0 },  { "ful", "", 0 },   { "ness", "", 0 },
    };
    if (ends(w, "alli") && measure(w->p, w->len - 4) > 0) w->len -= 2;
    APPLY(w, second, 1);
    APPLY(w, third, 1);
}

static void last_suffixes(word *w) {
    static const rule fourth[] = {
        { "al", "", 0 },   { "ance", "", 0 },  { "ence", "", 0 },  { "er", "", 0 },    { "ic", "", 0 },
        { "able", "", 0 }, { "ible", "", 0 },  { "ant", "", 0 },   { "ement", "", 0 }, { "ment", "", 0 },
        { "ent", "", 0 },  { "sion", "s", 1 }, { "tion", "t", 1 }, { "ou", "", 0 },    { "ism", "", 0 },
        { "ate", "", 0 },  { "iti", "", 0 },   { "ous", "", 0 },   { "ive", "", 0 },   { "ize", "", 0 },
    };
    static const rule double_l[] = { { "ll", "l", 1 } };
    APPLY(w, fourth, 2);
    if (ends(w, "e")) {
        size_t m = measure(w->p, w->len - 1);
        if (m > 1 || (m == 1 && !is_short(w->p, w->len - 1))) w->len--;
    }
    APPLY(w, double_l, 2);
}

static bool irregular(word *w) {
    static const char *const forms[][2] = {
        { "sky", "sky" },        { "skies", "sky" },       { "dying", "die" },        { "lying", "lie" },
        { "tying", "tie" },      { "news", "news" },       { "innings", "inning" },   { "inning", "inning" },
        { "outings", "outing" }, { "outing", "outing" },   { "cannings", "canning" }, { "canning", "canning" },
        { "howe", "howe" },      { "proceed", "proceed" }, { "exceed", "exceed" },    { "succeed", "succeed" },
    };
    for (size_t i = 0; w->len <= 8 && i < sizeof forms / sizeof *forms; i++)
        if (w->len == strlen(forms[i][0]) && memcmp(w->p, forms[i][0], w->len) == 0) {
            put(w, w->len, forms[i][1]);
            return true;
        }
    return false;
}

size_t eval_stem(char *p, size_t len) {
    word w = { p, len };
    if (irregular(&w) || len <= 2) return w.len;
    plural(&w);
    past_and_ing(&w);
    y_to_i(&w);
    long_suffixes(&w);
    last_suffixes(&w);
    return w.len;
}
