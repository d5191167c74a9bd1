/* http_post.c - JSON to an HTTP endpoint and its response back, through libcurl.
 *
 * http and https alone, no redirections (they would take the key elsewhere), a proxy where the environment names one
 * but never to this machine itself, bounded in time and size.
 */
#include "http_post.h"

#include <curl/curl.h>

struct http_client {
    CURL *curl;
    struct curl_slist *headers;
    char *url;
    char why[CURL_ERROR_SIZE];
    sbuf *response;
    bool too_long;
};

static size_t receive(char *bytes, size_t size, size_t n, void *ctx) {
    http_client *c = ctx;
    c->too_long = c->response->len + size * n > HTTP_MAX_RESPONSE;
    if (c->too_long) return 0;
    sbuf_add(c->response, bytes, size * n);
    return c->response->failed ? 0 : size * n;
}

/* ---- opening ---- */

static bool begins(const char *text, const char *with) {
    return strncmp(text, with, strlen(with)) == 0;
}

/* Is the host of an http URL this machine? */
static bool is_local(const char *url) {
    static const char *const hosts[] = { "localhost", "127.0.0.1", "[::1]" };
    if (!begins(url, "http://")) return false;
    const char *host = url + strlen("http://");
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
        size_t n = strlen(hosts[i]);
        if (strncmp(host, hosts[i], n) == 0 && (!host[n] || host[n] == ':' || host[n] == '/')) return true;
    }
    return false;
}

static gist_status check(const char *url, const char *bearer, gist_error *err) {
    bool plain = begins(url, "http://");
    if (!plain && !begins(url, "https://"))
        return err_set(err, GIST_ERR_USAGE, "%.200s: an http:// or https:// address is needed", url);
    if (!bearer) return GIST_OK;
    for (const char *p = bearer; *p; p++)
        if ((unsigned char)*p <= ' ' || (unsigned char)*p > '~')
            return err_set(err, GIST_ERR_USAGE, "the key for %.200s holds white space or other than ASCII", url);
    if (plain && !is_local(url))
        return err_set(err, GIST_ERR_USAGE, "%.200s: the key would be sent in the clear; https:// is needed", url);
    return GIST_OK;
}

static bool add_header(http_client *c, const char *text) {
    struct curl_slist *more = curl_slist_append(c->headers, text);
    if (more) c->headers = more;
    return more != NULL;
}

static bool set_headers(http_client *c, const char *bearer) {
    bool ok = add_header(c, "Content-Type: application/json") && add_header(c, "Expect:");
    if (!bearer) return ok;
    sbuf s;
    sbuf_init(&s, NULL);
    sbuf_fmt(&s, "Authorization: Bearer %s", bearer);
    ok = ok && !s.failed && add_header(c, s.p);
    if (s.p) explicit_bzero(s.p, s.len);
    sbuf_free(&s);
    return ok;
}

gist_status http_open(const char *url, const char *bearer, int seconds, http_client **out, gist_error *err) {
    TRY(check(url, bearer, err));
    http_client *c = mem_calloc(NULL, 1, sizeof *c);
    if (!c) return err_memory(err, "HTTP");
    curl_global_init(CURL_GLOBAL_DEFAULT);
    c->url = mem_strndup(NULL, url, strlen(url));
    c->curl = curl_easy_init();
    if (!c->url || !c->curl || !set_headers(c, bearer)) {
        http_close(c);
        return err_memory(err, "HTTP");
    }
    curl_easy_setopt(c->curl, CURLOPT_URL, c->url);
    curl_easy_setopt(c->curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(c->curl, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(c->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c->curl, CURLOPT_CONNECTTIMEOUT, seconds < 10 ? (long)seconds : 10L);
    curl_easy_setopt(c->curl, CURLOPT_TIMEOUT, (long)seconds);
    curl_easy_setopt(c->curl, CURLOPT_HTTPHEADER, c->headers);
    curl_easy_setopt(c->curl, CURLOPT_ERRORBUFFER, c->why);
    curl_easy_setopt(c->curl, CURLOPT_WRITEFUNCTION, receive);
    curl_easy_setopt(c->curl, CURLOPT_WRITEDATA, c);
    if (is_local(url)) curl_easy_setopt(c->curl, CURLOPT_PROXY, "");
    *out = c;
    return GIST_OK;
}

void http_close(http_client *c) {
    if (!c) return;
    curl_easy_cleanup(c->curl);
    curl_slist_free_all(c->headers);
    mem_free(NULL, c->url);
    mem_free(NULL, c);
    curl_global_cleanup();
}

/* ---- one request ---- */

/* The beginning of a response on one line, for a message. */
static void beginning(const sbuf *response, char out[161]) {
    size_t n = response->len < 160 ? response->len : utf8_complete(response->p, 160);
    for (size_t i = 0; i < n; i++) out[i] = response->p[i];
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)out[i] < ' ' || out[i] == 127) out[i] = ' ';
    out[n] = 0;
}

gist_status http_post(http_client *c, const char *body, size_t len, sbuf *response, bool *again, gist_error *err) {
    long code = 0;
    char start[161];
    response->len = 0;
    c->response = response;
    c->too_long = false;
    c->why[0] = 0;
    curl_easy_setopt(c->curl, CURLOPT_POSTFIELDS, body);
    curl_easy_setopt(c->curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)len);
    CURLcode result = curl_easy_perform(c->curl);
    *again = false;
    if (response->failed) return err_memory(err, "response");
    if (c->too_long)
        return err_set(err, GIST_ERR_LIMIT, "%.200s: a response of more than %d bytes", c->url, HTTP_MAX_RESPONSE);
    if (result != CURLE_OK) {
        *again = true;
        return err_set(err, GIST_ERR_IO, "%.200s: %.200s", c->url, c->why[0] ? c->why : curl_easy_strerror(result));
    }
    curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &code);
    if (code == 200) return GIST_OK;
    *again = code == 429 || code >= 500;
    beginning(response, start);
    return err_set(err, GIST_ERR_IO, "%.200s: HTTP status %ld: %s", c->url, code, start);
}
