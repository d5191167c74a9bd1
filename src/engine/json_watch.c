/* json_watch.c - can these bytes still become one JSON object?  Answered byte by byte, in a few words of state.
 *
 *   START --{--> FIRST_KEY --"--> STRING --"--> COLON --:--> VALUE --...--> AFTER --,--> KEY
 *                    |                                                        |
 *                    +------------------------------}-------------------------+--> AFTER, or DONE for the outermost
 *
 * Open objects and arrays are bits of a word, so nesting is bounded by its size.  A byte is refused as soon as no
 * object can follow, so what was accepted can always be completed; escaped surrogates must come in pairs too.
 * Bytes from 0x80 on are taken inside strings as they are: the text that comes here is UTF-8.  Source: RFC 8259.
 */
#include "engine/engine.h"

enum {
    START,
    FIRST_KEY, /* or } */
    KEY,
    COLON,
    FIRST_VALUE, /* or ] */
    VALUE,
    AFTER, /* , or the end of what is open */
    STRING,
    ESCAPE,
    HEX,       /* `left` digits to come */
    LOW_SLASH, /* behind a high surrogate */
    LOW_U,
    MINUS,
    ZERO,
    INTEGER,
    POINT,
    FRACTION,
    EXPONENT,
    EXPONENT_SIGN,
    EXPONENT_DIGITS,
    LITERAL,
    DONE
};

static const char *const literals[] = { "true", "false", "null" };

void json_watch_init(json_watch *w) {
    *w = (json_watch){ .state = START };
}

bool json_watch_done(const json_watch *w) {
    return w->state == DONE;
}

static bool is_digit(uint8_t c) {
    return c >= '0' && c <= '9';
}

static bool in_object(const json_watch *w) {
    return w->open & 1;
}

static bool go(json_watch *w, int state) {
    w->state = (uint8_t)state;
    return true;
}

static bool open_one(json_watch *w, bool object) {
    if (w->depth == JSON_WATCH_DEPTH) return false;
    w->depth++;
    w->open = w->open << 1 | (object ? 1u : 0u);
    return go(w, object ? FIRST_KEY : FIRST_VALUE);
}

static bool close_one(json_watch *w) {
    w->depth--;
    w->open >>= 1;
    return go(w, w->depth ? AFTER : DONE);
}

static bool open_string(json_watch *w, bool key) {
    w->key = key;
    return go(w, STRING);
}

static bool after(json_watch *w, uint8_t c) {
    if (c == ',') return go(w, in_object(w) ? KEY : VALUE);
    return c == (in_object(w) ? '}' : ']') && close_one(w);
}

static bool value(json_watch *w, uint8_t c) {
    if (c == '{' || c == '[') return open_one(w, c == '{');
    if (c == '"') return open_string(w, false);
    if (c == '-') return go(w, MINUS);
    if (c == '0') return go(w, ZERO);
    if (is_digit(c)) return go(w, INTEGER);
    for (uint8_t i = 0; i < 3; i++)
        if (c == (uint8_t)literals[i][0]) {
            w->literal = i;
            w->left = 1;
            return go(w, LITERAL);
        }
    return false;
}

static bool string(json_watch *w, uint8_t c) {
    if (c == '"') return go(w, w->key ? COLON : AFTER);
    if (c == '\\') return go(w, ESCAPE);
    return c >= 0x20;
}

static bool hex_digits(json_watch *w, bool low) {
    w->low = low;
    w->left = 4;
    return go(w, HEX);
}

static bool escape(json_watch *w, uint8_t c) {
    if (c == 'u') return hex_digits(w, false);
    return c && strchr("\"\\/bfnrt", c) && go(w, STRING);
}

/* Surrogates are D800-DBFF and, only behind one of those, DC00-DFFF: the first two digits tell. */
static bool hex(json_watch *w, uint8_t c) {
    int digit = is_digit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    if (digit < 0) return false;
    w->left--;
    if (w->left == 3) {
        w->d = digit == 0xd;
        w->high = false;
        return w->d || !w->low;
    }
    if (w->left == 2 && w->d) {
        if (w->low ? digit < 0xc : digit >= 0xc) return false;
        w->high = !w->low && digit >= 8;
    }
    return w->left > 0 || go(w, w->high ? LOW_SLASH : STRING);
}

/* A number ends where something else stands, which belongs to what the number is in. */
static bool number(json_watch *w, uint8_t c) {
    bool digit = is_digit(c), e = c == 'e' || c == 'E';
    switch (w->state) {
    case MINUS: return digit && go(w, c == '0' ? ZERO : INTEGER);
    case POINT: return digit && go(w, FRACTION);
    case EXPONENT:
        if (c == '+' || c == '-') return go(w, EXPONENT_SIGN);
        return digit && go(w, EXPONENT_DIGITS);
    case EXPONENT_SIGN: return digit && go(w, EXPONENT_DIGITS);
    case EXPONENT_DIGITS:
        if (digit) return true;
        break;
    case FRACTION:
        if (digit) return true;
        if (e) return go(w, EXPONENT);
        break;
    default: /* ZERO, INTEGER */
        if (digit) return w->state == INTEGER;
        if (c == '.') return go(w, POINT);
        if (e) return go(w, EXPONENT);
    }
    go(w, AFTER);
    return json_watch_byte(w, c);
}

static bool literal(json_watch *w, uint8_t c) {
    const char *text = literals[w->literal];
    if (c != (uint8_t)text[w->left]) return false;
    w->left++;
    return text[w->left] || go(w, AFTER);
}

bool json_watch_byte(json_watch *w, uint8_t c) {
    bool space = c == ' ' || c == '\n' || c == '\t' || c == '\r';
    if (!space) w->spaces = 0;
    switch (w->state) {
    case STRING: return string(w, c);
    case ESCAPE: return escape(w, c);
    case HEX: return hex(w, c);
    case LOW_SLASH: return c == '\\' && go(w, LOW_U);
    case LOW_U: return c == 'u' && hex_digits(w, true);
    case LITERAL: return literal(w, c);
    default: break;
    }
    if (w->state >= MINUS && w->state <= EXPONENT_DIGITS) return number(w, c);
    if (space) {
        if (w->spaces < UINT8_MAX) w->spaces++;
        return true;
    }
    switch (w->state) {
    case START: return c == '{' && open_one(w, true);
    case FIRST_KEY:
        if (c == '}') return close_one(w);
        return c == '"' && open_string(w, true);
    case KEY: return c == '"' && open_string(w, true);
    case COLON: return c == ':' && go(w, VALUE);
    case FIRST_VALUE: return c == ']' ? close_one(w) : value(w, c);
    case VALUE: return value(w, c);
    case AFTER: return after(w, c);
    default: return false; /* DONE */
    }
}

size_t json_watch_text(json_watch *w, const char *p, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!json_watch_byte(w, (uint8_t)p[i])) return i;
    return n;
}
