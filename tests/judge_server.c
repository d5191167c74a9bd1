/* judge_server.c - a chat endpoint that stands in for a judge in tests: one connection after another on 127.0.0.1.
 *
 *     judge_server PORT_FILE LOG MODE [N]      serves until it is killed; PORT_FILE appears when it listens
 *
 *   good       prefers the answer with "good" in it
 *   first      always prefers the first one
 *   garbage    replies without a verdict
 *   late N     status 500 N times, then good
 *   until N    good N times, then status 400
 *   nothing    valid JSON without a reply
 *   broken     no JSON
 *   huge       a response without end
 *   stall      reads, and never answers
 *
 * LOG gets a line for each request: its Authorization header or "-", a space, its body.
 */
#include <arpa/inet.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST = 1 << 20 };

typedef struct server {
    const char *mode;
    int n, served;
    FILE *log;
} server;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void send_all(int to, const char *p, size_t n) {
    while (n > 0) {
        ssize_t sent = send(to, p, n, MSG_NOSIGNAL);
        if (sent <= 0) return;
        p += sent;
        n -= (size_t)sent;
    }
}

static void respond(int to, int status, const char *body) {
    char head[256];
    int n = snprintf(head, sizeof head,
                     "HTTP/1.1 %d Status\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n"
                     "Connection: close\r\n\r\n",
                     status, strlen(body));
    send_all(to, head, (size_t)n);
    send_all(to, body, strlen(body));
}

static void reply(int to, const char *text) {
    char body[512];
    snprintf(body, sizeof body, "{\"choices\": [{\"message\": {\"role\": \"assistant\", \"content\": \"%s\"}}]}", text);
    respond(to, 200, body);
}

static void reply_good(int to, const char *body) {
    const char *first = strstr(body, "### Answer 1"), *second = strstr(body, "### Answer 2");
    const char *good = first ? strstr(first, "good") : NULL;
    bool in_second = second && strstr(second, "good"), in_first = good && good < second;
    reply(to, in_first == in_second ? "Both alike.\\n[[tie]]" : in_first ? "[[1]]" : "The second. [[ 2 ]]\\n");
}

static void send_without_end(int to) {
    static char more[1 << 16];
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n";
    memset(more, ' ', sizeof more);
    send_all(to, head, sizeof head - 1);
    for (int i = 0; i < 1000; i++) send_all(to, more, sizeof more);
}

static void answer(server *s, int to, const char *body) {
    bool known = strcmp(s->mode, "late") == 0 || strcmp(s->mode, "until") == 0;
    int i = s->served++;
    if (strcmp(s->mode, "first") == 0) reply(to, "I prefer [[1]]");
    if (strcmp(s->mode, "garbage") == 0) reply(to, "It depends.");
    if (strcmp(s->mode, "nothing") == 0) respond(to, 200, "{\"choices\": []}");
    if (strcmp(s->mode, "broken") == 0) respond(to, 200, "<html>no</html>");
    if (strcmp(s->mode, "huge") == 0) send_without_end(to);
    if (strcmp(s->mode, "stall") == 0) pause();
    if (strcmp(s->mode, "good") == 0) reply_good(to, body);
    if (!known) return;
    bool fails = (i < s->n) == (strcmp(s->mode, "late") == 0);
    if (fails)
        respond(to, strcmp(s->mode, "late") == 0 ? 500 : 400, "{\"error\": \"not\tnow\"}");
    else
        reply_good(to, body);
}

/* The body of a request, or NULL; *head is what stands before it. */
static char *receive(int from, char *buffer, char **head) {
    size_t n = 0, need = 0;
    char *body = NULL;
    while (n < MOST - 1) {
        ssize_t got = recv(from, buffer + n, MOST - 1 - n, 0);
        if (got <= 0) return NULL;
        n += (size_t)got;
        buffer[n] = 0;
        if (!body && (body = strstr(buffer, "\r\n\r\n"))) {
            const char *length = strstr(buffer, "Content-Length: ");
            *body = 0;
            body += 4;
            need = length ? (size_t)strtoul(length + 16, NULL, 10) : 0;
        }
        if (body && n - (size_t)(body - buffer) >= need) {
            *head = buffer;
            return body;
        }
    }
    return NULL;
}

static void serve(server *s, int listener) {
    static char buffer[MOST];
    int c = accept(listener, NULL, NULL);
    char *head = NULL, *body = c < 0 ? NULL : receive(c, buffer, &head);
    if (body) {
        char *key = strstr(head, "Authorization: ");
        if (key) key[15 + strcspn(key + 15, "\r\n")] = 0;
        fprintf(s->log, "%s %s\n", key ? key + 15 : "-", body);
        fflush(s->log);
        answer(s, c, body);
    }
    if (c >= 0) close(c);
}

int main(int argc, char **argv) {
    if (argc < 4) return 2;
    server s = { .mode = argv[3], .n = argc > 4 ? atoi(argv[4]) : 0, .log = fopen(argv[2], "w") };
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr = { .s_addr = htonl(INADDR_LOOPBACK) } };
    socklen_t size = sizeof at;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (!s.log || listener < 0 || bind(listener, (struct sockaddr *)&at, sizeof at) != 0 || listen(listener, 8) != 0 ||
        getsockname(listener, (struct sockaddr *)&at, &size) != 0)
        die("judge_server");
    char part[4096];
    snprintf(part, sizeof part, "%s.part", argv[1]);
    FILE *port = fopen(part, "w");
    if (!port) die(part);
    fprintf(port, "%d\n", ntohs(at.sin_port));
    fclose(port);
    if (rename(part, argv[1]) != 0) die(argv[1]);
    alarm(120); /* whoever started it may be gone */
    for (;;) serve(&s, listener);
}
