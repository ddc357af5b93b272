/* A device that speaks the protocol of docs/wire-protocol.md, version 1, over POSIX sockets.
 *     cc -std=c99 -Wall -Wextra -pedantic -O2 -o device device.c
 *     ./device HOST PORT NAME
 * It sends readings, answers pings, and watches the server by the word that this gives in its hello
 * and its pings. It keeps nothing that a server could fill, and allocates nothing by itself.
 */
#define _POSIX_C_SOURCE 200112L
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#ifndef SECOND
#define SECOND 1000   /* of its own pace, in ms; times that the server says are real ones */
#endif
#ifndef LIMIT
#define LIMIT 1048576 /* the longest DATA that it takes */
#endif
enum {
    EVERY = 10 * SECOND,    /* between two readings */
    PATIENCE = 30 * SECOND, /* for a connection, for room to write, and for the server's hello */
    CLOSING = 5 * SECOND,   /* for the server to close after its goodbye */
    FIRST = SECOND, WIDEST = 60 * SECOND, /* how wide a wait is drawn; each failure doubles it */
    SPREAD = 12 * SECOND,   /* so wide at first if all devices have lost the server together */
    STABLE = 10 * SECOND,   /* after that a goodbye or a violation is no failure of the link */
    SHORTEST = 200, HOUR = 3600000 }; /* the shortest bound, and the longest wait, in ms */
enum { HELLO = 1, PING, PONG, DATA, GOODBYE, END };
enum outcome { UP, UNREACHED, SILENT, LOST, VIOLATION, TOLD };
static const unsigned char none[4]; /* no token */
static const char *const words[] = { "", "not connected", "the server was silent",
    "the link was lost", "the server broke the protocol", "the server said goodbye" };
struct link {
    int fd, greeted, ended, refused, slow, mute; /* slow: wrong for long; mute: a write has failed */
    int64_t began, heard, offers, hold; /* when a byte came last; the server's word, in ms, or 0 */
    unsigned char head[12], body[8], low, high;
    uint32_t got, left, more;    /* bytes of this frame; those its body, and its last letter, lack */
};
static int64_t part(int64_t most) { return (int64_t)(rand() / (RAND_MAX + 1.0) * (double)most); }
static int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
static uint32_t number(const void *b) { uint32_t n; memcpy(&n, b, 4); return ntohl(n); }
static int64_t now(void)
{
    struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int isText(struct link *l, unsigned char c) /* whether UTF-8 can go on with this byte */
{
    int good = l->more ? c >= l->low && c <= l->high : c < 0x80 || (c >= 0xc2 && c <= 0xf4);
    l->more = l->more ? l->more - 1 : c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : c >= 0x80;
    l->low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
    l->high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
    return good;
}

static enum outcome say(struct link *l, int type, const void *token, const void *body, size_t size)
{
    unsigned char frame[12 + 8 + 255] = { 1, (unsigned char)type }, *next = frame;
    struct pollfd room = { l->fd, POLLOUT, 0 };
    uint32_t length = htonl((uint32_t)size);
    memcpy(frame + 4, token, 4), memcpy(frame + 8, &length, 4), memcpy(frame + 12, body, size);
    for (size += 12; size > 0 && !l->mute;) {
        ssize_t n = send(l->fd, next, size, 0);
        if (n > 0) next += n, size -= (size_t)n;
        else if (errno == EAGAIN && poll(&room, 1, PATIENCE) == 0) return LOST;
        else l->mute = errno != EINTR && errno != EAGAIN;
    }
    return UP;
}

static int isAllowed(const struct link *l)
{
    switch (l->head[1]) {
    case HELLO: return !l->greeted && l->left >= 8 && l->left <= 263;
    case PING: case PONG: return l->left == 0;
    case DATA: return l->greeted && !l->ended && l->left <= LIMIT;
    case GOODBYE: return l->left >= 8 && l->left <= 1032;
    case END: return l->greeted && !l->ended && l->left == 0;
    default: return l->head[1] >= 128 && l->left <= LIMIT;
    }
}

static enum outcome finish(struct link *l) /* a whole frame has come */
{
    int type = l->head[1];
    l->got = 0;
    if (type == HELLO) l->offers = number(l->body + 4), l->greeted = 1, puts("the server said hello");
    if (type == PING) l->hold = (l->head[2] << 8 | l->head[3]) * 100;
    if (type == END) l->ended = 1;
    if (type == GOODBYE) l->slow = number(l->head + 4) == 1 || number(l->head + 4) == 2;
    if (type == PING) return say(l, PONG, l->head + 4, "", 0);
    return type == GOODBYE ? TOLD : UP;
}

static enum outcome take(struct link *l, unsigned char c)
{
    if (l->got < 12) {
        l->head[l->got++] = c;
        if (l->got < 12) return l->head[0] == 1 ? UP : VIOLATION;
        l->left = number(l->head + 8);
        if (!isAllowed(l)) return VIOLATION;
    } else {
        if (l->got < 20) l->body[l->got - 12] = c;
        else if (l->head[1] != DATA && l->head[1] < 128 && !isText(l, c)) return VIOLATION;
        l->got++, l->left--;
    }
    return l->left ? UP : l->more ? VIOLATION : finish(l);
}

static enum outcome live(struct link *l, const char *name)
{
    struct pollfd input = { l->fd, POLLIN, 0 };
    char body[8 + 255] = { 0 }; /* needs 0, offers 0: it is told its bound, and speaks when asked */
    unsigned char bytes[512];
    enum outcome so;
    int64_t due = l->heard = l->began = now();
    memcpy(body + 8, name, strlen(name));
    for (so = say(l, HELLO, none, body, 8 + strlen(name)); so == UP;) {
        int64_t i, bound = l->hold ? l->hold : l->offers, least = bound < SHORTEST ? SHORTEST : bound;
        int64_t at = now(), over = bound ? l->heard + least : INT64_MAX;
        if (at >= due) {
            due = at + EVERY;
            snprintf(body, sizeof body, "%.1f", 20 + (double)part(30) / 10);
            so = say(l, DATA, none, body, strlen(body));
        } else if (poll(&input, 1, (int)(at < over ? min(min(over, due) - at, HOUR) : 0)) > 0) {
            ssize_t n = recv(l->fd, bytes, sizeof bytes, 0);
            if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) return LOST;
            if (n > 0) l->heard = now();
            for (i = 0; i < n && so == UP; i++) so = take(l, bytes[i]);
        } else if (at >= over) so = SILENT; /* it has looked again since the bound was over */
    }
    if (so == TOLD) shutdown(l->fd, SHUT_WR), due = now() + CLOSING; /* and read to the end: what */
    while (so == TOLD && now() < due && poll(&input, 1, CLOSING) > 0) /* is left provokes a reset */
        if (recv(l->fd, bytes, sizeof bytes, 0) <= 0) break;
    return so;
}

static int dial(struct link *l, const char *host, const char *port)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *all, *a;
    int fd = -1, one = 1, error; socklen_t size = sizeof error;
    if (getaddrinfo(host, port, &hints, &all) != 0) return l->slow = 1, -1;
    for (a = all; a && fd < 0; a = a->ai_next) {
        struct pollfd room = { fd = socket(a->ai_family, a->ai_socktype, 0), POLLOUT, 0 };
        fcntl(fd, F_SETFL, O_NONBLOCK), setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        error = connect(fd, a->ai_addr, a->ai_addrlen) == 0 ? 0 : errno;
        if (error == EINPROGRESS && (poll(&room, 1, PATIENCE) != 1 ||
            getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0)) error = ETIMEDOUT;
        l->refused = error == ECONNREFUSED, l->slow = error == EHOSTUNREACH || error == EHOSTDOWN ||
            error == ENETUNREACH || error == ENETDOWN;
        if (error != 0) close(fd), fd = -1;
    }
    return freeaddrinfo(all), fd;
}

static int64_t waitAfter(const struct link *l, enum outcome so, int64_t width)
{
    int64_t after = min(number(l->body), HOUR), spread = min(number(l->body + 4), HOUR);
    int64_t hint = so == TOLD && after + spread >= 1000 ? after + part(spread) : 0;
    int slow = l->slow || so == VIOLATION, together = l->refused || so == LOST || so == TOLD;
    int64_t most = slow || together ? min(SPREAD / FIRST * width, WIDEST) : width;
    int64_t least = width == FIRST && !slow ? FIRST / 10 : slow ? most / 2 : min(SPREAD, most / 2);
    int64_t wait = slow || together ? least + part(most - least) : part(most);
    return hint && (!slow || hint > wait) ? hint : wait;
}

int main(int argc, char **argv)
{
    unsigned i, seed = (unsigned)getpid() ^ (unsigned)time(NULL) ^ (unsigned)now() << 16;
    int64_t until, wait, width = FIRST / 2, isProven;
    if (argc != 4 || strlen(argv[3]) > 255) return puts("usage: device HOST PORT NAME"), 64;
    for (i = 0; argv[3][i]; i++) seed = seed * 31 + (unsigned char)argv[3][i];
    srand(seed); /* by the name too: a fleet that boots at once must not draw the same numbers */
    signal(SIGPIPE, SIG_IGN), setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
    for (;;) {
        struct link l = { .offers = PATIENCE };
        enum outcome so = UNREACHED;
        if ((l.fd = dial(&l, argv[1], argv[2])) >= 0) {
            struct linger atOnce = { 1, 0 };
            puts("connected"), so = live(&l, argv[3]);
            if (so != TOLD) setsockopt(l.fd, SOL_SOCKET, SO_LINGER, &atOnce, sizeof atOnce);
            close(l.fd);
        }
        isProven = l.greeted && !l.slow && (so < VIOLATION || l.heard - l.began >= STABLE);
        width = isProven ? FIRST : min(2 * width, WIDEST);
        wait = waitAfter(&l, so, width);
        printf("%s, next attempt in %.1f s\n", words[so], (double)wait / 1000);
        for (until = now() + wait; (wait = until - now()) > 0;) poll(NULL, 0, (int)wait);
    }
}
