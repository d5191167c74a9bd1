/* eval_turns.c - conversations as rows to be answered: every assistant's message is one example.
 *
 *     {"messages": [system t, user x1, assistant y1, user x2, assistant y2, ...]}
 *
 *     example 0    t | x1               -> y1
 *     example 1    t | x1 y1 <turn> x2  -> y2        what stands before x2 is its history, with the answers given there
 *
 * The rules are those of training (train_data.c, read_messages): roles take turns behind an optional system message, a
 * last question without an answer is passed over, and behind an exchange that is empty or breaks a tokenization law
 * nothing is asked.
 */
#include "eval/eval_int.h"

static eval_text content_of(const json_t *messages, size_t i) {
    const json_t *v = json_object_get(json_array_get(messages, i), "content");
    return (eval_text){ json_string_value(v), json_string_length(v) };
}

static bool has_role(const json_t *message, const char *role) {
    const char *v = json_string_value(json_object_get(message, "role"));
    return v && strcmp(v, role) == 0;
}

static size_t first_user(const json_t *messages) {
    return has_role(json_array_get(messages, 0), "system") ? 1 : 0;
}

int eval_turns(const json_t *messages, char why[EVAL_WHY]) {
    size_t n = json_array_size(messages), from = first_user(messages);
    if (!json_is_array(messages)) {
        snprintf(why, EVAL_WHY, "\"messages\" is not an array");
        return -1;
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *m = json_array_get(messages, i);
        const char *role = i < from ? "system" : (i - from) % 2 ? "assistant" : "user";
        if (has_role(m, role) && json_is_string(json_object_get(m, "content"))) continue;
        snprintf(why, EVAL_WHY, "message %zu: expected {\"role\": \"%s\", \"content\": text}", i + 1, role);
        return -1;
    }
    return (int)((n - from) / 2);
}

eval_text eval_turns_system(const json_t *messages) {
    return first_user(messages) ? content_of(messages, 0) : (eval_text){ "", 0 };
}

void eval_turn(const json_t *messages, int i, eval_text *input, eval_text *answer) {
    size_t at = first_user(messages) + 2 * (size_t)i;
    *input = content_of(messages, at);
    *answer = content_of(messages, at + 1);
}

/* One exchange behind *out, up to where the next question begins. */
static gist_status add_exchange(const eval_example *e, const tokenizer *t, const tok_template *tp, eval_text input,
                                eval_text answer, tok_ids *out, gist_error *err) {
    if (eval_strip(answer.p, answer.len).len == 0) return err_set(err, GIST_ERR_TEXT, "an answer is empty");
    if (tok_gist(t) >= 0)
        TRY(tok_template_law(t, tp, e->instruction.p, e->instruction.len, 1, input.p, input.len, err));
    TRY(tok_template_answer_law(t, tp, input.p, input.len, answer.p, answer.len, err));
    TRY(tok_template_input(t, tp, input.p, input.len, false, out, err));
    TRY(tok_template_answer(t, tp, answer.p, answer.len, out, err));
    return tok_template_turn(t, tp, out, err);
}

gist_status eval_history(const eval_example *e, const tokenizer *t, const tok_template *tp, tok_ids *out,
                         gist_error *err) {
    const json_t *messages = json_object_get(e->row, "messages");
    if (e->turn > 0 && !tok_template_has_turns(tp))
        return err_set(err, GIST_ERR_FORMAT, "the template has one turn only; chatml and llama3 have conversations");
    for (int i = 0; i < e->turn; i++) {
        eval_text input, answer;
        eval_turn(messages, i, &input, &answer);
        TRY(add_exchange(e, t, tp, input, answer, out, err));
    }
    return GIST_OK;
}
