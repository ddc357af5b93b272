# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
A device that speaks the protocol of docs/datagram-protocol.md, version 1, in MicroPython and in
Python: it sends heartbeats with readings, answers challenges, and listens to acknowledgements.

On a board, once the network is up::

    import device_udp
    device_udp.run("192.0.2.1", 8471, "pump", bytes.fromhex("..."))

On a computer, C{python3 device_udp.py HOST PORT NAME KEY}, with the key in hexadecimal digits.
"""

import hashlib
import os
import random
import select
import socket
import struct
import sys
import time

SECOND = 1000
"""Of its own pace, in milliseconds."""

PERIOD, BOUND = 3, 18
"""Seconds: between two heartbeats, and of silence after which the device is taken for dead."""

LOOKUP = 60
"""Seconds after which the name is looked up again, unless nothing is acknowledged before."""

BUSY = 20
"""Challenges that are answered in a second."""

HEARTBEAT, ANSWER, GOODBYE, CHALLENGE, ACKNOWLEDGEMENT = 1, 2, 3, 129, 130

HEADER = "!BBBB8sIIII8sB"
FIXED, MAC, MOST = 37, 16, 694

NO_COOKIE = bytes(8)

if hasattr(time, "ticks_ms"):
    ticks, between, add = time.ticks_ms, time.ticks_diff, time.ticks_add
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

    def add(then, milliseconds):
        """
        So long after then.
        """
        return then + milliseconds


def reading():
    """
    What is measured.  Yours goes here.
    """
    return str(20 + random.getrandbits(5) / 10).encode()


def sign(key, data):
    """
    HMAC-SHA-256, cut to 16 bytes.  Most boards have no C{hmac}.
    """
    if len(key) > 64:
        key = hashlib.sha256(key).digest()
    key = key + bytes(64 - len(key))
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in key) + data).digest()
    return hashlib.sha256(bytes(byte ^ 0x5C for byte in key) + inner).digest()[:MAC]


def isSame(one, other):
    """
    Compare two MACs in constant time.
    """
    different = len(one) ^ len(other)
    for left, right in zip(one, other):  # noqa: B905 - MicroPython has no "strict"
        different |= left ^ right
    return different == 0


class Device:
    """
    One sender, in one session.
    """

    def __init__(self, host, port, name, key):
        self.place = host, port
        self.name = name.encode()
        self.key = key
        self.session = os.urandom(8)
        self.sequence = self.acknowledged = 0
        self.payload = b""
        self.socket = self.poll = self.address = None
        self.lookedUp = None
        self.second = self.answers = 0
        # The next heartbeat leaves within this interval, in milliseconds, since then.
        self.since, self.interval = ticks(), 0

    def lookUp(self):
        """
        Find the monitor.  The address before is used as long as there is no other.
        """
        self.lookedUp = ticks()
        try:
            # By IPv4, because many boards have no other.
            found = socket.getaddrinfo(*self.place, socket.AF_INET, socket.SOCK_DGRAM)[0]
        except OSError:
            return
        if self.socket is None:
            self.socket = socket.socket(found[0], socket.SOCK_DGRAM)
            self.socket.setblocking(False)
            self.poll = select.poll()
            self.poll.register(self.socket, select.POLLIN)
        self.address = found[-1]

    def send(self, kind, address, cookie=NO_COOKIE, payload=b""):
        """
        Send a datagram.  A network that is not there now may be there later.
        """
        flags = 0 if kind == GOODBYE else 1
        now = ticks()
        interval = max(0, self.interval - between(now, self.since))
        head = 1, kind, flags, 1, self.session, self.sequence, now & 0xFFFFFFFF, interval
        data = struct.pack(HEADER, *head, BOUND * SECOND, cookie, len(self.name))
        data += self.name + payload
        try:
            if address is not None:
                self.socket.sendto(data + sign(self.key, data), address)
        except OSError as error:
            print("not sent:", error)

    def beat(self, interval):
        """
        Send a heartbeat.

        @param interval: milliseconds until the next one leaves at the latest.
        """
        unheard = self.sequence - self.acknowledged >= 2
        if self.lookedUp is None or unheard or between(ticks(), self.lookedUp) >= LOOKUP * SECOND:
            self.lookUp()
        self.sequence += 1
        self.payload = reading()
        self.since, self.interval = ticks(), interval
        self.send(HEARTBEAT, self.address, payload=self.payload)

    def wait(self, milliseconds):
        """
        Read for so long.
        """
        began = ticks()
        while True:
            left = milliseconds - between(ticks(), began)
            if left <= 0:
                return
            if self.socket is None:
                time.sleep(left / 1000)
            elif self.poll.poll(left):
                self.receive()

    def receive(self):
        """
        Read a datagram, and heed it if it is the monitor's.
        """
        try:
            data, address = self.socket.recvfrom(MOST)
        except OSError:
            return
        size = FIXED + len(self.name) + MAC
        if len(data) != size or data[FIXED:-MAC] != self.name:
            return
        fields = struct.unpack(HEADER, data[:FIXED])
        version, kind, _, keyId, session, sequence = fields[:6]
        if (version, keyId, session) != (1, 1, self.session) or fields[10] != len(self.name):
            return
        if not isSame(sign(self.key, data[:-MAC]), data[-MAC:]):
            return
        behind = self.sequence - sequence
        if kind == CHALLENGE and 0 <= behind <= 1 and self.mayAnswer():
            self.send(ANSWER, address, fields[9], self.payload)
            print("challenged")
        elif kind == ACKNOWLEDGEMENT and 0 <= behind < 16 and sequence > self.acknowledged:
            self.acknowledged = sequence
            print("acknowledged", sequence)

    def mayAnswer(self):
        second = ticks() // 1000
        if second != self.second:
            self.second, self.answers = second, 0
        self.answers += 1
        return self.answers <= BUSY

    def leave(self):
        """
        Say goodbye, twice.
        """
        self.sequence += 1
        self.interval = 0
        for _ in range(2):
            self.send(GOODBYE, self.address)
        print("goodbye")


def early():
    """
    The random part by which a heartbeat leaves early, in milliseconds.
    """
    return PERIOD * SECOND // 4 * random.getrandbits(16) >> 16


def run(host, port, name, key):
    """
    For ever.
    """
    device = Device(host, port, name, key)
    random.seed(struct.unpack("!I", device.session[:4])[0])
    period = PERIOD * SECOND
    # The place in the grid: so long after the last one that was passed.
    place, passed = period // 4, ticks()
    try:
        while True:
            device.wait(place - early() - between(ticks(), passed))
            # The places that it has slept through are left out.
            place += period
            while place <= between(ticks(), passed):
                place += period
            device.beat(place - between(ticks(), passed))
            # A board's ticks run over, so that only short differences of them mean anything.
            passed, place = add(passed, place - period), period
    except KeyboardInterrupt:
        device.leave()


if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]), sys.argv[3], bytes.fromhex(sys.argv[4]))
