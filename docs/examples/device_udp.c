/* Copyright (c) twisted_heartbeat contributors.
 * See LICENSE for details.
 *
 * A device that speaks the protocol of docs/datagram-protocol.md, version 1: it sends heartbeats with
 * readings, answers challenges, listens to acknowledgements, and says goodbye when it is terminated.
 * C99 and POSIX, nothing from the heap, with its own SHA-256.
 *
 *   cc -std=c99 -O2 -o device_udp device_udp.c
 *   ./device_udp HOST PORT NAME KEY      the key in hexadecimal digits, 32 or more of them
 */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
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
#define SECOND 1000 /* of its own pace, in milliseconds: the tests are faster */
#endif

enum { HEARTBEAT = 1, ANSWER = 2, GOODBYE = 3, CHALLENGE = 129, ACKNOWLEDGEMENT = 130 };
enum {
    PERIOD = 3 * SECOND, BOUND = 18 * SECOND,
    LOOKUP = 60 * SECOND, /* a name is looked up again after so long, or when nothing is acknowledged */
    BUSY = 20,            /* challenges that are answered in a second */
    FIXED = 37, NAME = 128, PAYLOAD = 512, MAC = 16, MOST = FIXED + NAME + PAYLOAD + MAC,
};

/* SHA-256: FIPS 180-4. */

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

struct sha { uint32_t h[8]; uint64_t size; unsigned char block[64]; };

static uint32_t turn(uint32_t x, int n) { return x >> n | x << (32 - n); }

static void put(unsigned char *at, uint64_t n, int size) { while (size--) at[size] = n & 255, n >>= 8; }

static uint32_t get(const unsigned char *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static void mix(struct sha *s)
{
    uint32_t w[64], v[8], a, b;
    int i;
    for (i = 0; i < 16; i++) w[i] = get(s->block + 4 * i);
    for (; i < 64; i++) {
        a = turn(w[i - 15], 7) ^ turn(w[i - 15], 18) ^ w[i - 15] >> 3;
        b = turn(w[i - 2], 17) ^ turn(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + a + w[i - 7] + b;
    }
    memcpy(v, s->h, sizeof v);
    for (i = 0; i < 64; i++) {
        a = v[7] + (turn(v[4], 6) ^ turn(v[4], 11) ^ turn(v[4], 25)) + ((v[4] & v[5]) ^ (~v[4] & v[6]))
            + K[i] + w[i];
        b = (turn(v[0], 2) ^ turn(v[0], 13) ^ turn(v[0], 22))
            + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
        memmove(v + 1, v, 7 * sizeof *v);
        v[4] += a, v[0] = a + b;
    }
    for (i = 0; i < 8; i++) s->h[i] += v[i];
}

static void begin(struct sha *s)
{
    static const uint32_t h[8] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                   0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 };
    memcpy(s->h, h, sizeof h), s->size = 0;
}

static void feed(struct sha *s, const unsigned char *data, size_t size)
{
    for (; size--; data++) {
        s->block[s->size++ % 64] = *data;
        if (s->size % 64 == 0) mix(s);
    }
}

static void finish(struct sha *s, unsigned char digest[32])
{
    uint64_t bits = s->size * 8;
    unsigned char length[8];
    int i;
    feed(s, (const unsigned char *)"\x80", 1);
    while (s->size % 64 != 56) feed(s, (const unsigned char *)"", 1);
    put(length, bits, 8), feed(s, length, 8);
    for (i = 0; i < 8; i++) put(digest + 4 * i, s->h[i], 4);
}

/* HMAC: RFC 2104.  The key has been made as long as a block. */

static void sign(const unsigned char key[64], const unsigned char *data, size_t size, unsigned char *mac)
{
    unsigned char inner[64], outer[64];
    struct sha s;
    int i;
    for (i = 0; i < 64; i++) inner[i] = key[i] ^ 0x36, outer[i] = key[i] ^ 0x5c;
    begin(&s), feed(&s, inner, 64), feed(&s, data, size), finish(&s, inner);
    begin(&s), feed(&s, outer, 64), feed(&s, inner, 32), finish(&s, inner);
    memcpy(mac, inner, MAC);
}

/* The device. */

struct device {
    int fd;
    unsigned char key[64], session[8], latest[MOST]; /* the latest heartbeat */
    const char *name;
    size_t size;
    uint32_t sequence, acknowledged;
    int64_t next; /* when the following heartbeat leaves at the latest */
    struct sockaddr_storage to;
    socklen_t toSize;
};

static volatile sig_atomic_t stopped;

static void stop(int number) { (void)number, stopped = 1; }

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void transmit(struct device *d, unsigned char *p, size_t size, const void *to, socklen_t toSize)
{
    int64_t at = now();
    put(p + 16, (uint64_t)at, 4), put(p + 20, (uint64_t)(d->next > at ? d->next - at : 0), 4);
    sign(d->key, p, size - MAC, p + size - MAC);
    if (toSize && sendto(d->fd, p, size, 0, to, toSize) < 0) perror("not sent"); /* it will be, later */
}

static void heartbeat(struct device *d, int type)
{
    unsigned char *p = d->latest;
    size_t length = strlen(d->name);
    memset(p, 0, FIXED);
    p[0] = 1, p[1] = type, p[2] = type == HEARTBEAT, p[3] = 1;
    memcpy(p + 4, d->session, 8), put(p + 12, ++d->sequence, 4), put(p + 24, BOUND, 4);
    p[36] = length, memcpy(p + FIXED, d->name, length);
    d->size = FIXED + length + MAC;
    if (type == HEARTBEAT) /* your measurement goes here */
        d->size += snprintf((char *)p + FIXED + length, PAYLOAD, "%.1f", 20 + (double)(rand() % 30) / 10);
    transmit(d, p, d->size, &d->to, d->toSize);
}

static int isMine(const struct device *d, const unsigned char *p, size_t size)
{
    unsigned char mac[MAC], wrong = 0;
    size_t length = strlen(d->name), i;
    if (size != FIXED + length + MAC || p[0] != 1 || p[3] != 1 || p[36] != length) return 0;
    if (memcmp(p + 4, d->session, 8) != 0 || memcmp(p + FIXED, d->name, length) != 0) return 0;
    sign(d->key, p, size - MAC, mac);
    for (i = 0; i < MAC; i++) wrong |= mac[i] ^ p[size - MAC + i];
    return !wrong;
}

static void receive(struct device *d)
{
    static int64_t second;
    static int answers;
    unsigned char p[MOST + 1], answer[MOST];
    struct sockaddr_storage from;
    socklen_t fromSize = sizeof from;
    ssize_t size = recvfrom(d->fd, p, sizeof p, 0, (struct sockaddr *)&from, &fromSize);
    uint32_t behind;
    if (size < FIXED || !isMine(d, p, (size_t)size)) return;
    behind = d->sequence - get(p + 12);
    if (p[1] == CHALLENGE && behind <= 1) {
        if (second != now() / 1000) second = now() / 1000, answers = 0;
        if (++answers > BUSY) return;
        memcpy(answer, d->latest, d->size), answer[1] = ANSWER, memcpy(answer + 28, p + 28, 8);
        transmit(d, answer, d->size, &from, fromSize), puts("challenged");
    } else if (p[1] == ACKNOWLEDGEMENT && behind < 16 && get(p + 12) > d->acknowledged) {
        d->acknowledged = get(p + 12), printf("acknowledged %u\n", (unsigned)d->acknowledged);
    }
}

static void lookUp(struct device *d, const char *host, const char *port)
{
    struct addrinfo hints = { .ai_socktype = SOCK_DGRAM }, *found;
    if (getaddrinfo(host, port, &hints, &found) != 0) return; /* the address before is still used */
    if (d->fd < 0 || d->to.ss_family != found->ai_family) {
        if (d->fd >= 0) close(d->fd);
        d->fd = socket(found->ai_family, SOCK_DGRAM, 0);
    }
    memcpy(&d->to, found->ai_addr, found->ai_addrlen), d->toSize = found->ai_addrlen;
    freeaddrinfo(found);
}

int main(int argc, char **argv)
{
    struct device d = { .fd = -1 };
    struct sigaction action = { .sa_handler = stop };
    int64_t origin, index = 0, due, looked = -LOOKUP;
    unsigned byte;
    size_t i;
    int source = open("/dev/urandom", O_RDONLY);
    if (argc != 5 || !*argv[3] || strlen(argv[3]) > NAME || strlen(argv[4]) < 32 || strlen(argv[4]) > 128)
        return puts("usage: device_udp HOST PORT NAME KEY"), 64;
    for (i = 0; i < strlen(argv[4]) / 2; i++) {
        if (sscanf(argv[4] + 2 * i, "%2x", &byte) != 1) return puts("the KEY is not hexadecimal"), 64;
        d.key[i] = byte;
    }
    if (source < 0 || read(source, d.session, 8) != 8) return perror("/dev/urandom"), 71;
    close(source), srand(get(d.session)), d.name = argv[3];
    sigaction(SIGTERM, &action, NULL), sigaction(SIGINT, &action, NULL), setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
    due = now(), origin = due + PERIOD / 4, due = origin - rand() % (PERIOD / 4);
    while (!stopped) {
        struct pollfd input = { d.fd, POLLIN, 0 };
        int64_t at = now();
        if (at < due) {
            if (poll(&input, d.fd >= 0, (int)(due - at)) > 0) receive(&d);
            continue;
        }
        if (at - looked >= LOOKUP || d.sequence - d.acknowledged >= 2)
            looked = at, lookUp(&d, argv[1], argv[2]);
        do d.next = origin + ++index * PERIOD; while (d.next <= at); /* those slept through are left out */
        heartbeat(&d, HEARTBEAT), due = d.next - rand() % (PERIOD / 4);
    }
    d.next = 0, heartbeat(&d, GOODBYE), transmit(&d, d.latest, d.size, &d.to, d.toSize);
    return puts("goodbye"), 0;
}
