/* eval_scores.c - scores of an answer's text against its reference, in percent.
 *
 * A new score is a function here and a row in the table; whoever shows metrics takes name and value from there.
 */
#include "eval/eval.h"

static bool is_space(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

eval_text eval_trim(const char *p, size_t len) {
    while (len > 0 && is_space(p[len - 1])) len--;
    while (len > 0 && is_space(*p)) {
        p++;
        len--;
    }
    return (eval_text){ p, len };
}

static gist_status exact(double *percent, eval_text answer, eval_text reference, const gist_allocator *alloc,
                         gist_error *err) {
    (void)alloc, (void)err;
    bool same = answer.len == reference.len && (answer.len == 0 || memcmp(answer.p, reference.p, answer.len) == 0);
    *percent = same ? 100 : 0;
    return GIST_OK;
}

const eval_score eval_scores[EVAL_SCORES] = { { "exact", exact } };
