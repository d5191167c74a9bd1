/* chat.h - a conversation in one session: what stands in front, then turns.
 *
 *   | gist or prompt | input answer end | input answer end | input ...
 *        front              turn 0             turn 1
 *
 * The ids of every turn are kept, so that the oldest can be dropped when the context is full: the session is rewound to
 * its front and fed what is left.  With a template of one turn every input is by itself behind the front.
 */
#ifndef GIST_CLI_CHAT_H
#define GIST_CLI_CHAT_H

#include "cli.h"

typedef struct chat_turn {
    tok_ids ids; /* input, answer, the token that ends it and what joins it to the next */
    char *input, *answer;
} chat_turn;

typedef struct chat {
    gist_engine *e;
    gist_session *s; /* the caller's */
    const tok_template *tp;
    int front;       /* tokens of the session that belong to no turn */
    int limit;       /* most tokens it can hold */
    chat_turn *turn; /* [n] */
    int n, cap;
    int dropped;     /* by the last chat_ask */
} chat;

/* What s holds now is the front; context: as the session was opened with. */
gist_status chat_open(chat *c, gist_engine *e, gist_session *s, int context, gist_error *err);
void chat_close(chat *c);
void chat_reset(chat *c); /* forget the turns */
bool chat_has_turns(const chat *c);
/* Answer an input behind the turns so far, dropping the oldest of them where there is no room.  On failure the turns
 * that are left are as they were.  gist_answer_free. */
gist_status chat_ask(chat *c, const char *input, size_t len, const gist_generate_options *o, gist_answer *out,
                     gist_error *err);
/* {"messages": [{"role": "user", "content": ...}, ...]} of the turns; NULL: out of memory */
json_t *chat_json(const chat *c);

#endif
