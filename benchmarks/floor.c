/* Copyright (c) twisted_heartbeat contributors.
   See LICENSE for details.

   The floor of C{heartbeat.py} in C: pings whoever connects, once a second, and hears the answers.
   Prints the port that it listens on. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PER_SECOND 64
#define MOST 65536

static const unsigned char ping[12] = {1, 2, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0};
static int *slots[PER_SECOND];
static int filled[PER_SECOND], room[PER_SECOND];

static long ticks(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * PER_SECOND + now.tv_nsec / (1000000000L / PER_SECOND);
}

static void add(int slot, int link) {
    if (filled[slot] == room[slot]) {
        room[slot] = room[slot] ? 2 * room[slot] : 64;
        slots[slot] = realloc(slots[slot], room[slot] * sizeof(int));
        if (!slots[slot]) exit(1);
    }
    slots[slot][filled[slot]++] = link;
}

int main(void) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    static struct epoll_event events[4096];
    static char buffer[MOST];
    int port = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), poller = epoll_create1(0);
    struct epoll_event wanted = {.events = EPOLLIN, .data.fd = port};
    long at = ticks();

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(port, (void *)&address, size) || listen(port, 4096)) return 1;
    if (getsockname(port, (void *)&address, &size)) return 1;
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    epoll_ctl(poller, EPOLL_CTL_ADD, port, &wanted);
    for (;;) {
        int count = epoll_wait(poller, events, 4096, 1000 / PER_SECOND + 1);
        for (int i = 0; i < count; i++) {
            int link = events[i].data.fd;
            if (link != port) {
                if (recv(link, buffer, sizeof buffer, 0) == 0) epoll_ctl(poller, EPOLL_CTL_DEL, link, 0);
                continue;
            }
            link = accept4(port, 0, 0, SOCK_NONBLOCK);
            if (link < 0) continue;
            wanted.data.fd = link;
            epoll_ctl(poller, EPOLL_CTL_ADD, link, &wanted);
            add(at % PER_SECOND, link);
        }
        for (long now = ticks(); at < now; at++)
            for (int i = 0; i < filled[at % PER_SECOND]; i++)
                send(slots[at % PER_SECOND][i], ping, sizeof ping, MSG_NOSIGNAL);
    }
}
