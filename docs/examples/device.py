# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
A device that speaks the protocol of docs/wire-protocol.md, version 1, in MicroPython and in Python.

On a board, once the network is up::

    import device
    device.run("192.0.2.1", 8470, "pump")

On a computer, C{python3 device.py HOST PORT NAME}.

It sends readings, answers pings, and watches the server by the word that this gives in its hello
and its pings.
"""

import errno
import random
import select
import socket
import struct
import sys
import time

SECOND = 1000
"""Of its own pace, in milliseconds; times that the server says are real ones."""

EVERY = 10
"""Between two readings."""

PATIENCE = 30
"""For a connection, for room to write, and for the server's hello."""

FIRST, WIDEST = 1, 60
"""How wide a wait is drawn; each failure doubles it."""

SPREAD = 12
"""So wide at first if all devices have lost the server together, or what is wrong stays so."""

STABLE = 10
"""Seconds after which a goodbye or a violation is no failure of the link."""

CLOSING = 5
"""For the server to close after its goodbye."""

SHORTEST = 200
"""The shortest bound that it is told, in milliseconds."""

HOUR = 3600000
"""The longest wait that it can be told, in milliseconds."""

LIMIT = 1048576
"""The longest DATA that it takes."""

USUAL, TOGETHER, SLOW = 0, 1, 2
"""Paces: nothing more; all devices see it at once; what is wrong will not be gone in a second."""

INTERRUPTED = getattr(errno, "EINTR", 4)
"""MicroPython knows fewer error numbers by name."""

BROKEN = "the server broke the protocol", SLOW, None, None

HELLO, PING, PONG, DATA, GOODBYE, END = 1, 2, 3, 4, 5, 6


class Ended(Exception):
    """
    Why a link has ended.

    @ivar pace: how the wait is drawn: C{USUAL}, C{TOGETHER} or C{SLOW}.
    @ivar hint: the wait in milliseconds, if the server has said one.
    @ivar proves: whether it leaves a link proven: at once, C{True}; if the link was up for
        C{STABLE} seconds, C{None}; never, C{False}.
    @ivar told: whether the server has said goodbye.
    """

    def __init__(self, why, pace=USUAL, hint=None, proves=True, told=False):
        super().__init__(why)
        self.why = why
        self.pace = pace
        self.hint = hint
        self.proves = proves
        self.told = told


if hasattr(time, "ticks_ms"):
    ticks, between = time.ticks_ms, time.ticks_diff
else:

    def ticks():
        """
        Milliseconds of a clock that is never set.
        """
        return int(time.monotonic() * 1000)

    def between(later, earlier):
        """
        Here nothing runs over.
        """
        return later - earlier


def since(then):
    """
    Milliseconds. A board's ticks run over, so that only a difference of them means anything.
    """
    return between(ticks(), then)


def isText(data):
    """
    Whether it is UTF-8, as far as this Python looks.
    """
    try:
        data.decode()
    except ValueError:
        return False
    return True


def part(most):
    """
    Some of it, at random. There are boards without C{random.random}.
    """
    return most * random.getrandbits(16) >> 16


def reading():
    """
    What is measured. Yours goes here.
    """
    return str(20 + part(30) / 10).encode()


class Link:
    """
    One connection.
    """

    def __init__(self, connection):
        self.connection = connection
        self.input = select.poll()
        self.input.register(connection, select.POLLIN)
        self.room = select.poll()
        self.room.register(connection, select.POLLOUT)
        self.connected = self.greeted = self.ended = False
        self.began = self.heard = ticks()
        # The server's word, in milliseconds, 0 for none: of its hello, and of its last ping.
        self.offers, self.word = PATIENCE * SECOND, 0
        self.mute = False
        self.head = self.body = b""
        self.kind = self.hold = self.token = self.left = 0

    def say(self, kind, body=b"", token=0):
        """
        Send a frame, the whole of it.  Once that has failed, nothing more is sent; but what has
        come is still read, because it may be a goodbye, and the end follows it.
        """
        frame = struct.pack("!BBHII", 1, kind, 0, token, len(body)) + body
        while frame and not self.mute:
            if not self.room.poll(PATIENCE * SECOND):
                raise OSError("no room")
            try:
                frame = frame[self.connection.send(frame) :]
            except OSError as error:
                if not self.connected:
                    raise
                self.mute = error.args[0] not in (errno.EAGAIN, INTERRUPTED)

    def readOut(self):
        """
        After a goodbye: read to the end.  Bytes left unread would be answered by a reset, which
        destroys what is still on its way.
        """
        began = ticks()
        try:
            # MicroPython has no shutdown on most boards.
            if hasattr(self.connection, "shutdown"):
                self.connection.shutdown(1)
            while self.input.poll(max(0, CLOSING * SECOND - since(began))):
                if not self.connection.recv(256):
                    break
        except OSError:
            # It is closed already.
            pass

    def abort(self):
        """
        Close with a reset, where this Python can: what is still on its way is for nobody.
        """
        if hasattr(socket, "SO_LINGER"):
            atOnce = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, atOnce)

    def live(self, name):
        """
        Until L{Ended} is raised, or C{OSError}.
        """
        # Needs 0, offers 0: it is told its bound, and speaks when it is asked.
        self.say(HELLO, struct.pack("!II", 0, 0) + name)
        self.connected = True
        print("connected")
        self.say(DATA, reading())
        said = ticks()
        while True:
            due = EVERY * SECOND - since(said)
            bound = self.word or self.offers
            over = max(bound, SHORTEST) - since(self.heard) if bound else HOUR
            if due <= 0:
                said = ticks()
                self.say(DATA, reading())
            elif self.input.poll(max(0, min(due, over))):
                self.hear(self.connection.recv(256))
            elif over <= 0:
                # It has looked again since the bound was over.
                raise Ended("the server was silent")

    def hear(self, data):
        """
        Take what has come, wherever the network has cut it.
        """
        if not data:
            raise OSError("closed")
        self.heard = ticks()
        while data:
            if len(self.head) < 12:
                count = 12 - len(self.head)
                self.head += data[:count]
                if self.head[0] != 1:
                    raise Ended(*BROKEN)
                if len(self.head) == 12:
                    self.begin()
            else:
                count = min(self.left, len(data))
                self.left -= count
                if self.kind in (HELLO, GOODBYE):
                    self.body += data[:count]
            data = data[count:]
            if len(self.head) == 12 and self.left == 0:
                self.finish()

    def begin(self):
        """
        A header is complete: may it be here?
        """
        _, self.kind, self.hold, self.token, self.left = struct.unpack("!BBHII", self.head)
        speaking = self.greeted and not self.ended
        if self.kind == HELLO:
            good = not self.greeted and 8 <= self.left <= 263
        elif self.kind in (PING, PONG):
            good = self.left == 0
        elif self.kind == DATA:
            good = speaking and self.left <= LIMIT
        elif self.kind == GOODBYE:
            good = 8 <= self.left <= 1032
        elif self.kind == END:
            good = speaking and self.left == 0
        else:
            good = self.kind >= 128 and self.left <= LIMIT
        if not good:
            raise Ended(*BROKEN)

    def finish(self):
        """
        A frame is complete: do what it says.
        """
        body, self.head, self.body = self.body, b"", b""
        if not isText(body[8:]):
            raise Ended(*BROKEN)
        if self.kind == HELLO:
            self.greet(body)
        elif self.kind == PING:
            self.word = self.hold * 100
            self.say(PONG, b"", self.token)
        elif self.kind == GOODBYE:
            self.leave(body)
        elif self.kind == END:
            self.ended = True

    def greet(self, body):
        print("the server said hello")
        self.greeted = True
        self.offers = struct.unpack("!I", body[4:8])[0]

    def leave(self, body):
        after, spread = struct.unpack("!II", body[:8])
        hint = None
        if after + spread >= 1000:
            hint = min(after, HOUR) + part(min(spread, HOUR))
        turnedAway = self.token in (1, 2)
        pace, proves = (SLOW, False) if turnedAway else (TOGETHER, None)
        raise Ended("the server said goodbye", pace, hint, proves, told=True)


def dial(host, port):
    """
    A connection that is being made.
    """
    # By IPv4, for many boards have no other.
    found = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)[0]
    connection = socket.socket(found[0], found[1], found[2])
    connection.setblocking(False)
    if hasattr(socket, "TCP_NODELAY"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        connection.connect(found[-1])
    except OSError:
        # It is in progress, as a rule. If it is anything else, the first write will say so.
        pass
    return connection


def unreached(error):
    """
    Why there is no connection.
    """
    number = error.args[0] if error.args else 0
    if number == errno.ECONNREFUSED:
        return Ended("not connected", TOGETHER)
    # MicroPython knows fewer of them by name.
    names = "EHOSTUNREACH", "EHOSTDOWN", "ENETUNREACH", "ENETDOWN"
    noWay = [getattr(errno, name, 0) for name in names]
    return Ended("not connected", SLOW if number in noWay else USUAL)


def attempt(host, port, name):
    """
    One link, from its beginning to its end.

    @return: whether it was proven, and the L{Ended}.
    """
    try:
        connection = dial(host, port)
    except OSError:
        # No such name, as a rule.
        return False, Ended("not connected", SLOW)
    link = Link(connection)
    try:
        link.live(name)
    except Ended as why:
        ended = why
        if ended.told:
            link.readOut()
        else:
            link.abort()
    except OSError as error:
        ended = Ended("the link was lost", TOGETHER) if link.connected else unreached(error)
    finally:
        connection.close()
    # Until its last byte: after a goodbye the wait for the end does not count.
    stable = between(link.heard, link.began) >= STABLE * SECOND
    return link.greeted and (stable if ended.proves is None else ended.proves), ended


def waitAfter(ended, width):
    """
    Milliseconds until the next attempt.

    @param width: how wide the wait is drawn, doubled with each failure.
    """
    least, most = 0, width
    if ended.pace != USUAL:
        most = min(SPREAD // FIRST * width, WIDEST * SECOND)
        least = most // 2
    if ended.pace == TOGETHER:
        first = width == FIRST * SECOND
        least = FIRST * SECOND // 10 if first else min(SPREAD * SECOND, least)
    wait = least + part(most - least)
    if ended.hint is None:
        return wait
    return max(wait, ended.hint) if ended.pace == SLOW else ended.hint


def run(host, port, name):
    """
    For ever.
    """
    name = name.encode()
    # By the name too: a fleet that boots at once must not draw the same numbers.
    seed = ticks()
    for byte in name:
        seed = (seed * 31 + byte) & 0x3FFFFFFF
    random.seed(seed)
    width = FIRST * SECOND // 2
    while True:
        proven, ended = attempt(host, port, name)
        width = FIRST * SECOND if proven else min(2 * width, WIDEST * SECOND)
        wait = waitAfter(ended, width)
        print(f"{ended.why}, next attempt in {wait / 1000:.1f} s")
        time.sleep(wait / 1000)


if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]), sys.argv[3])
