/* http_post.h - JSON to an HTTP endpoint and its response back, through libcurl. */
#ifndef GIST_CLI_HTTP_POST_H
#define GIST_CLI_HTTP_POST_H

#include "base/base.h"

enum { HTTP_MAX_RESPONSE = 4 << 20 };

typedef struct http_client http_client;
/* bearer: sent as "Authorization: Bearer ..."; NULL: none.  It is refused over plain http to another machine, and told
 * nowhere.  seconds: most time of one request. */
gist_status http_open(const char *url, const char *bearer, int seconds, http_client **out, gist_error *err);
void http_close(http_client *c);
/* body[len) is sent, *response (initialised by the caller) filled.  GIST_ERR_IO with the reason: no connection, no
 * response in time, a response of more than HTTP_MAX_RESPONSE bytes, a status other than 200 (with the beginning of the
 * response).  *again: another try may help (network, time, 429, 5xx).  Redirections are not followed. */
gist_status http_post(http_client *c, const char *body, size_t len, sbuf *response, bool *again, gist_error *err);

#endif
