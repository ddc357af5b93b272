# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
A peer that was written from C{docs/wire-protocol.md} alone, as a client and as a server, and that
can be broken on purpose: each name in C{faults} takes one rule away.
"""

from __future__ import annotations

import random
import struct
import time
from typing import Any

from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

HELLO, PING, PONG, DATA, GOODBYE, END = range(1, 7)

LIMIT = 100_000
"""Bytes of a message: less than usual, so that many peers can be examined side by side."""

LENGTHS = {
    HELLO: (8, 263),
    PING: (0, 0),
    PONG: (0, 0),
    DATA: (0, LIMIT),
    GOODBYE: (8, 1032),
    END: (0, 0),
}

STAYS_OPEN = {"no fin after a goodbye", "never closes", "reads on after a goodbye"}
"""Faults of a peer that sends no FIN when it has read a GOODBYE."""


class Violation(Exception):
    """
    The other end has broken a rule.
    """


@implementer(IHalfCloseableProtocol)
class PlainPeer(Protocol):
    """
    One connection.

    @ivar role: the L{PlainServer} or the L{PlainClient}.
    """

    transport: Any

    def __init__(self, role: PlainServer | PlainClient) -> None:
        self.role = role
        self.reactor = role.reactor
        self.faults = role.faults
        self.bound = role.bound
        self.interval = role.interval
        self.buffer = b""
        self.greeted = self.ended = self.parted = self.isLost = self.refused = False
        self.name, self.offers, self.word, self.needed = b"", role.patience, 0.0, 0.0
        self.token = 0
        self.pingedAt = 0.0
        self.pings = 0
        self.end: tuple[str, float, float] = ("spread", 0.0, 0.0)
        self.tick: Any = None
        self.partedAt = 0.0
        self.looked = False
        self.claims = False

    def has(self, fault: str) -> bool:
        return fault in self.faults

    def connectionMade(self) -> None:
        self.began = self.heard = self.spoke = time.monotonic()
        self.transport.setTcpNoDelay(True)
        self.role.links.append(self)
        if self.has("ping before hello"):
            self.say(PING, token=1)
        if not self.has("hello waits"):
            self.sayHello()
        self.look()

    def sayHello(self) -> None:
        name = b"\xff" if self.has("name in latin-1") else self.role.name.encode()
        offers = 0.0 if self.has("no offers") else self.bound
        self.say(HELLO, struct.pack("!II", round(self.bound * 1000), round(offers * 1000)) + name)

    def say(self, kind: int, body: bytes = b"", token: int = 0, hold: float = 0.0) -> None:
        if self.parted or self.isLost:
            return
        tenths = round(hold * 10)
        if kind == PONG and not self.has("pong with a hold"):
            tenths = 0
        if kind == PONG and self.has("pong with a body"):
            body = b"!"
        self.spoke = time.monotonic()
        self.transport.write(struct.pack("!BBHII", 1, kind, tenths, token, len(body)) + body)

    # The clock.

    def look(self) -> None:
        if self.isLost:
            return
        self.tick = self.reactor.callLater(0.01, self.look)
        now = time.monotonic()
        if self.parted:
            waits = self.partedAt and now - self.partedAt > self.role.closing
            if waits and not self.has("never closes by itself"):
                self.transport.abortConnection()
            return
        words = not self.has("no words of its own")
        shortest = 0.0 if self.has("any haste") else 0.2
        promise = min(self.bound or 1e9, max(shortest, self.needed) if self.needed else 1e9)
        if words and now - self.spoke >= 0.75 * promise:
            self.say(PONG)
        bound = self.bound or self.word or (self.offers and max(shortest, self.offers))
        if self.has("ignores hold"):
            bound = self.bound or self.offers
        if self.has("ignores offers") and self.greeted:
            bound = self.bound or self.word
        silence = now - self.heard
        if self.bound:
            self.watch(now, silence)
        early = 0.7 if self.has("verdict too early") else 1.0
        if bound and silence >= early * bound and not self.faults & {"no verdict", "ignores fin"}:
            if not self.looked:
                # What has come in the meantime is read before the next look.
                self.looked = True
                return
            self.end = ("usual", 0.0, 0.0)
            if self.has("goodbye at the verdict"):
                self.say(GOODBYE, bytes(8))
                self.transport.loseConnection()
            else:
                self.transport.abortConnection()

    def watch(self, now: float, silence: float) -> None:
        due = now - self.pingedAt >= self.interval / 2 and silence >= self.interval
        if self.has("never pings"):
            return
        if self.has("pings all the time"):
            due = now - self.pingedAt >= self.interval
        if due:
            self.pingedAt = now
            self.token = 0 if self.has("token 0") else self.token + 1
            self.say(PING, token=self.token, hold=0.0 if self.has("no hold") else self.bound)

    # Reading.

    def dataReceived(self, data: bytes) -> None:
        if self.parted and not self.has("reads on after a goodbye"):
            if self.has("remembers names"):
                self.heard = time.monotonic()
            return
        if not self.has("only answers are life") and not self.has("only frames are life"):
            self.heard = time.monotonic()
            self.looked = False
        self.buffer += data
        try:
            while self.buffer:
                if self.buffer[0] != 1 and not self.has("waits for the whole header"):
                    raise Violation
                if len(self.buffer) < 12 or not self.frame():
                    break
                if self.has("one frame a segment"):
                    self.buffer = b""
            if self.has("no half frames"):
                self.buffer = b""
        except Violation:
            self.broken()

    def frame(self) -> bool:
        """
        Read one frame, if it is complete.
        """
        version, kind, hold, token, length = struct.unpack_from("!BBHII", self.buffer)
        if version != 1:
            raise Violation
        self.judge(kind, hold, length)
        if len(self.buffer) < 12 + length:
            return False
        body, self.buffer = self.buffer[12 : 12 + length], self.buffer[12 + length :]
        answer = kind == PONG and token and token == self.token
        if self.has("only frames are life") or (self.has("only answers are life") and answer):
            self.heard = time.monotonic()
        if not self.parted or self.has("reads on after a goodbye"):
            self.take(kind, hold, token, body)
        return True

    def judge(self, kind: int, hold: int, length: int) -> None:
        if kind >= 128:
            if self.has("no optional types"):
                raise Violation
        elif kind not in LENGTHS:
            if not self.has("takes unknown types"):
                raise Violation
            return
        least, most = LENGTHS.get(kind, (0, LIMIT))
        if (kind == DATA and length > 2**16 and self.has("short messages only")) or (
            kind == GOODBYE and length > 264 and self.has("short reasons only")
        ):
            raise Violation
        isLimit = kind == DATA or kind >= 128
        fault = "no limit" if isLimit else "any length"
        if not least <= length <= most and not self.has(fault):
            raise Violation
        if kind != PING and hold and self.has("minds the hold"):
            raise Violation
        if kind == GOODBYE and not self.greeted and self.has("hello before goodbye"):
            raise Violation
        misplaced = (kind == HELLO and self.greeted) or (
            kind in (DATA, END) and (not self.greeted or self.ended)
        )
        if misplaced and not self.has("any order"):
            raise Violation

    def take(self, kind: int, hold: int, token: int, body: bytes) -> None:
        if kind == HELLO:
            if self.has("short names only") and len(body) > 72:
                raise Violation
            needed, offers = struct.unpack_from("!II", body)
            self.greeted, self.offers, self.needed = True, offers / 1000, needed / 1000
            if self.has("serves no needs"):
                self.needed = 0.0
            self.name = body[8:]
            if self.has("hello waits"):
                self.sayHello()
            self.role.greeted(self)
        elif kind == PING:
            self.pinged(token, hold)
        elif kind == PONG:
            if self.has("minds foreign pongs") and token != self.token:
                raise Violation
        elif kind == END:
            self.ended = True
        elif kind == GOODBYE:
            after, spread = struct.unpack_from("!II", body)
            self.told(token, after / 1000, spread / 1000)

    def pinged(self, token: int, hold: int) -> None:
        self.word = hold / 10 or (self.word if self.has("keeps an old hold") else 0.0)
        self.pings += 1
        if self.claims and self.has("newcomers wait in silence"):
            return
        if self.has("pings need a hello") and not self.greeted:
            raise Violation
        if self.has("dead after an end") and self.ended:
            return
        if self.has("ten pings are enough") and self.pings > 10:
            self.part(3)
            return
        if self.has("answers late"):
            self.reactor.callLater(2.5 * self.role.tolerance, self.say, PONG, b"", token)
            return
        answer = 0 if self.has("token forgotten") else token
        if self.parted:
            self.transport.write(struct.pack("!BBHII", 1, PONG, 0, answer, 0))
        self.say(PONG, token=answer, hold=hold / 10)
        if self.has("answers twice"):
            self.say(PONG, token=answer)
        if self.has("two hellos"):
            self.sayHello()
        if self.has("data after end"):
            self.say(END)
            self.say(DATA, b"21.5")

    # The end.

    def broken(self) -> None:
        if self.parted:
            return
        if self.has("ends all others"):
            for link in tuple(self.role.links):
                link.transport.abortConnection()
        self.end = ("slow", 0.0, 0.0)
        if self.has("no abort") or self.has("goodbye for a violation"):
            if self.has("goodbye for a violation"):
                self.say(GOODBYE, bytes(8) + b"bad")
            self.parted = True
            self.transport.loseConnection()
        else:
            self.transport.abortConnection()

    def told(self, code: int, retryAfter: float, spread: float) -> None:
        """
        The other end has said goodbye.
        """
        self.refused = code in (1, 2)
        self.end = ("slow" if self.refused else "spread", retryAfter, spread)
        if code == 3 and not self.has("ignores too many pings"):
            self.role.lengthen()
        if self.has("closes at once after a goodbye"):
            self.transport.abortConnection()
            return
        if self.has("answers a goodbye"):
            self.say(GOODBYE, bytes(8))
        self.parted = True
        if self.has("writes on after a goodbye"):
            self.writeOn()
        elif not self.faults & STAYS_OPEN:
            self.transport.loseWriteConnection()
            if not self.has("waits for the other fin for ever"):
                self.partedAt = time.monotonic()

    def writeOn(self) -> None:
        if not self.isLost:
            self.transport.write(struct.pack("!BBHII", 1, PONG, 0, 0, 0))
            self.reactor.callLater(0.1, self.writeOn)

    def part(self, code: int) -> None:
        """
        Say goodbye.
        """
        self.say(GOODBYE, bytes(8), token=code)
        self.parted = True
        self.partedAt = time.monotonic()
        if self.has("writes after its goodbye"):
            self.transport.write(struct.pack("!BBHII", 1, PONG, 0, 0, 0))
        if self.has("resets after its goodbye"):
            self.reactor.callLater(0.05, self.transport.abortConnection)
        elif not self.has("no fin after its goodbye"):
            self.transport.loseWriteConnection()

    def readConnectionLost(self) -> None:
        if not self.has("ignores fin") and not self.has("never closes"):
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.isLost = True
        if self.has("forgets what came") and self.pings > 5:
            self.end = ("spread", 0.0, 0.0)
        if self.tick is not None and self.tick.active():
            self.tick.cancel()
        self.role.links.remove(self)
        self.role.lost(self)


class _Role(Factory):
    """
    What client and server have in common.
    """

    noisy = False

    def __init__(
        self, reactor: Any, faults: frozenset[str], *, bound: float, tolerance: float
    ) -> None:
        self.reactor = reactor
        self.faults = faults
        self.bound = bound
        self.tolerance = tolerance
        self.interval = bound * 4 / 7
        self.patience = 0.0
        self.closing = 0.5
        self.links: list[PlainPeer] = []
        self.name = ""

    def lengthen(self) -> None:
        """
        Ping half as often, from the next link on.
        """
        self.bound += self.interval
        self.interval *= 2

    def greeted(self, link: PlainPeer) -> None:
        """
        A HELLO has come.
        """

    def lost(self, link: PlainPeer) -> None:
        """
        A connection is gone.
        """

    def stop(self) -> None:
        """
        Leave no connection.
        """
        for link in tuple(self.links):
            link.transport.abortConnection()

    def buildProtocol(self, addr: Any) -> PlainPeer:
        return PlainPeer(self)  # type: ignore[arg-type]


class PlainServer(_Role):
    """
    Listens, and keeps names apart.
    """

    def greeted(self, link: PlainPeer) -> None:
        if "names in capitals" in self.faults:
            link.name = link.name.upper()
        same = [
            each
            for each in self.links
            if each.name == link.name
            and each is not link
            and ("remembers names" in self.faults or not each.parted)
        ]
        if not link.name or not same:
            return
        holder = same[0]
        link.claims = True
        if "forgets the holder" in self.faults:
            holder.name = b""
        if "newcomer wins" in self.faults:
            holder.transport.abortConnection()
        elif "holder wins" in self.faults:
            link.part(2)
        else:
            if "asks no holder" not in self.faults:
                holder.say(PING, token=0x7E57)
            asked = time.monotonic()
            whole = "asks for a whole bound" in self.faults
            timeout = self.bound * (1 if whole else 3 / 7)
            self.reactor.callLater(timeout, self.decide, holder, link, asked)

    def decide(self, holder: PlainPeer, link: PlainPeer, asked: float) -> None:
        link.claims = False
        if holder.isLost or link.isLost:
            return
        if holder.heard > asked:
            link.part(2)
        else:
            holder.transport.abortConnection()


class PlainClient(_Role):
    """
    Connects, and comes back by the table.
    """

    def __init__(
        self,
        reactor: Any,
        faults: frozenset[str],
        *,
        bound: float,
        tolerance: float,
        scale: float,
    ) -> None:
        """
        @param scale: seconds that it takes for one in its waits.
        """
        super().__init__(reactor, faults, bound=bound, tolerance=tolerance)
        self.scale = scale
        self.patience = 0.0 if "waits for ever" in faults else 30 * scale
        self.failures = 0
        self.call: Any = None
        self.port = 0
        self.isStopped = False

    def start(self, port: int) -> None:
        """
        Connect to a port of 127.0.0.1.
        """
        self.port = port
        if not self.isStopped:
            connecting = TCP4ClientEndpoint(self.reactor, "127.0.0.1", port).connect(self)
            connecting.addErrback(lambda _: None)

    def stop(self) -> None:
        self.isStopped = True
        if self.call is not None and self.call.active():
            self.call.cancel()
        super().stop()

    def lost(self, link: PlainPeer) -> None:
        if self.isStopped or "stays away" in self.faults:
            return
        pace, after, spread = link.end
        stable = time.monotonic() - link.began >= 10 * self.scale
        if link.refused and "refusals prove" not in self.faults:
            stable = False
        proven = link.greeted and (pace == "usual" or stable or not link.parted)
        self.failures = 1 if proven and not (pace == "slow" and not stable) else self.failures + 1
        self.call = self.reactor.callLater(
            self.waitAfter(pace, after, spread), self.start, self.port
        )

    def waitAfter(self, pace: str, after: float, spread: float) -> float:
        """
        Seconds until the next attempt.
        """
        if "no hints" in self.faults:
            after = spread = 0.0
        width = min(60.0, 2.0 ** (self.failures - 1))
        wide = min(60.0, 12 * width)
        draw = random.random()
        if pace == "usual":
            wait = draw * width
        elif pace == "slow":
            wait = wide / 2 + draw * wide / 2
        else:
            least = 0.1 if self.failures == 1 else min(12.0, wide / 2)
            wait = least + draw * (wide - least)
        wait *= self.scale
        if f"hasty after {pace}" in self.faults:
            wait = 0.0
        if f"lazy after {pace}" in self.faults:
            wait = 1.2
        if after + spread < 1:
            return wait
        hint = after + draw * spread
        return max(wait, hint) if pace == "slow" else hint
