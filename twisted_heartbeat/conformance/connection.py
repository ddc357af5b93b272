# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Connection}: the tester's end of one connection.

It is as raw as a socket: a scenario writes bytes, reads frames, and waits with a limit for what has
to come.  Two things it does by itself, once a scenario has L{greeted<Connection.greet>}: it answers
the peer's pings, and it speaks often enough for a peer that watches.  L{Connection.fallSilent} ends
both.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from errno import ECONNRESET
from socket import SO_ERROR, SOL_SOCKET
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from ..core import wire
from .observer import GOODBYE, PING, PONG, Fault, Observed, StreamObserver
from .rules import Rule
from .waits import Ending

WORD_FRACTION = 0.25
"""Of the peer's needs: the tester speaks so often that a peer that watches keeps the connection."""

SHORTEST_WAIT = 0.02
"""Seconds: no peer is spoken to more often."""

_CHUNK = 1024


def goodbyeFrame(code: int, retryAfter: float, spread: float, reason: str = "conformance") -> bytes:
    """
    Return the bytes of a GOODBYE, with any code.

    @param retryAfter: seconds.
    @param spread: seconds.
    """
    times = struct.pack("!II", round(retryAfter * 1000), round(spread * 1000))
    body = times + reason.encode("utf-8")
    return struct.pack("!BBHII", 1, GOODBYE, 0, code, len(body)) + body


@implementer(IHalfCloseableProtocol)
class Connection(Protocol):
    """
    One connection to the peer.  All times are seconds of C{time.monotonic}.

    @ivar began: when the connection was established.
    @ivar sentAt: when a byte was written last.
    @ivar heardAt: when a byte came last.
    @ivar finAt: when the peer's FIN came; L{None} before.
    @ivar endedAt: when the connection was gone, by the peer or by a reset; L{None} before.
    @ivar wasReset: whether the peer has ended it with a reset.
    @ivar ending: how the scenario has ended it; L{None} if that tells no wait.
    @ivar greeted: whether the tester has said hello.
    @ivar scenario: the scenario that is played on it.
    """

    transport: Any

    def __init__(self, reactor: Any, made: Callable[[Connection], object] | None = None) -> None:
        """
        @param made: called with this connection once it is established.
        """
        self._reactor = reactor
        self._made = made
        self._faults: list[tuple[Rule, str, str, float]] = []
        self._report: Fault | None = None
        self._attending = False
        self._speaking: Any = None
        self._listeners: list[Callable[[], object]] = []
        self.stream = StreamObserver(self._fault)
        self.began = self.sentAt = self.heardAt = time.monotonic()
        self.finAt: float | None = None
        self.endedAt: float | None = None
        self.wasReset = False
        self.ending: Ending | None = None
        self.greeted = False
        self.scenario = ""

    # What happens to it.

    def connectionMade(self) -> None:
        self.began = self.sentAt = self.heardAt = time.monotonic()
        if hasattr(self.transport, "setTcpNoDelay"):
            try:
                self.transport.setTcpNoDelay(True)
            except OSError:
                # A UNIX socket has no such option.
                pass
        if self._made is not None:
            self._made(self)

    def dataReceived(self, data: bytes) -> None:
        self.heardAt = time.monotonic()
        for frame in self.stream.receive(data, self.heardAt):
            if frame.kind == PING and self._attending:
                self.write(wire.encodePong(frame.token))
        self._tell()

    def readConnectionLost(self) -> None:
        """
        The peer's FIN has come, or a reset that the reactor takes for one.
        """
        if self.isTCP and self.transport.socket.getsockopt(SOL_SOCKET, SO_ERROR) == ECONNRESET:
            # The reactor takes an event without input for a FIN, but Linux can show the error of a
            # reset before its end (tcp_done_with_error and tcp_poll, net/ipv4/tcp.c).
            self.transport.abortConnection()
            return
        self.finAt = time.monotonic()
        self._tell()

    def writeConnectionLost(self) -> None:
        """
        Nothing to do: the tester has closed its half itself.
        """

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.endedAt = time.monotonic()
        self.wasReset = reason.check(ConnectionDone) is None
        if not self.wasReset and self.finAt is None:
            self.finAt = self.endedAt
        self._stopSpeaking()
        self._tell()

    def reportTo(self, fault: Fault) -> None:
        """
        Report the rules that the peer's bytes break, also those of before.
        """
        self._report = fault
        faults, self._faults = self._faults, []
        for each in faults:
            fault(*each)

    def _fault(self, *fault: Any) -> None:
        if self._report is None:
            self._faults.append(fault)
        else:
            self._report(*fault)

    # What it knows.

    @property
    def frames(self) -> list[Observed]:
        """
        All frames that the peer has sent.
        """
        return self.stream.frames

    @property
    def needs(self) -> float:
        """
        The peer's bound in seconds; 0 if it does not watch, or has not said hello.
        """
        return 0.0 if self.stream.hello is None else self.stream.hello.first

    @property
    def offers(self) -> float:
        """
        What the peer offers in seconds; 0 if it offers nothing, or has not said hello.
        """
        return 0.0 if self.stream.hello is None else self.stream.hello.second

    @property
    def name(self) -> str:
        """
        What the peer calls itself.
        """
        return "" if self.stream.hello is None else self.stream.hello.text

    @property
    def isOver(self) -> bool:
        """
        Whether the peer has closed, or is gone.
        """
        return self.finAt is not None or self.endedAt is not None

    @property
    def overAt(self) -> float | None:
        """
        When the peer has closed, or was gone.
        """
        return self.endedAt if self.finAt is None else self.finAt

    def pongs(self, token: int) -> list[Observed]:
        """
        Return the PONGs with a token.
        """
        return [frame for frame in self.frames if frame.kind == PONG and frame.token == token]

    # What a scenario does.

    def write(self, data: bytes) -> None:
        """
        Send bytes, of which nothing is checked.
        """
        if self.endedAt is None:
            self.sentAt = time.monotonic()
            self.transport.write(data)

    def greet(self, *, name: str = "", needs: float = 0.0, offers: float = 0.0) -> None:
        """
        Say hello, answer pings from here on, and speak within a quarter of the peer's needs.

        @param needs: seconds.
        @param offers: seconds.
        """
        self.write(wire.encode(wire.Hello(name, needs, offers)))
        self.greeted = True
        self.attend()

    def onlyAnswer(self) -> None:
        """
        Answer pings, and say nothing else from here on.
        """
        self._attending = True
        self._stopSpeaking()

    def attend(self) -> None:
        """
        Answer pings, and speak in time.
        """
        self._attending = True
        if self.frames and self.frames[-1].kind == PING:
            self.write(wire.encodePong(self.frames[-1].token))
        self._speakLater()

    def fallSilent(self) -> None:
        """
        Neither answer nor speak from here on.
        """
        self._attending = False
        self._stopSpeaking()

    def sayGoodbye(
        self,
        code: int = 0,
        retryAfter: float = 0.0,
        spread: float = 0.0,
        reason: str = "conformance",
        then: bytes = b"",
    ) -> None:
        """
        Say goodbye, and nothing after it but what the scenario wants to try.

        @param retryAfter: seconds.
        @param spread: seconds.
        @param then: bytes that follow in the same segment.
        """
        self.fallSilent()
        self.write(goodbyeFrame(code, retryAfter, spread, reason) + then)

    def close(self) -> None:
        """
        Send FIN, and read on.  Over TLS: close.
        """
        self.fallSilent()
        if self.endedAt is not None:
            return
        if self.hasTLS:
            self.transport.loseConnection()
        else:
            self.transport.loseWriteConnection()

    def reset(self) -> None:
        """
        End the connection at once, with a reset over TCP.
        """
        self.fallSilent()
        if self.endedAt is None:
            self.transport.abortConnection()

    def resetAfter(self, data: bytes) -> None:
        """
        Hand the last bytes to the kernel, and reset the connection at once.  Only over TCP.
        """
        self.fallSilent()
        self.sentAt = time.monotonic()
        self.transport.socket.send(data)
        self.transport.abortConnection()

    @property
    def hasTLS(self) -> bool:
        """
        Whether this goes over TLS, which has no half-close.
        """
        return hasattr(self.transport, "getPeerCertificate")

    @property
    def isTCP(self) -> bool:
        """
        Whether this is TCP without TLS.
        """
        return not self.hasTLS and isinstance(self.transport.getPeer(), IPv4Address | IPv6Address)

    def until(self, holds: Callable[[], object], seconds: float) -> Deferred[bool]:
        """
        Wait for what the peer does.

        @param holds: asked after each thing that the peer does.
        @param seconds: after which the wait is over.
        @return: fires with whether it holds.
        """
        waiting: Deferred[bool] = Deferred(lambda _: over())

        def over() -> None:
            self._listeners.remove(look)
            if call.active():
                call.cancel()

        def look(isLast: bool = False) -> None:
            found = bool(holds())
            if found or isLast:
                over()
                waiting.callback(found)

        call = self._reactor.callLater(max(0.0, seconds), look, True)
        self._listeners.append(look)
        look()
        return waiting

    def sleep(self, seconds: float) -> Deferred[bool]:
        """
        Let time pass, as long as the connection is up.
        """
        return self.until(lambda: self.endedAt is not None, seconds)

    async def flood(self, seconds: float) -> None:
        """
        Send what is no frame, for some time or until the connection is gone.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.endedAt is None:
            self.write(bytes(_CHUNK))
            await self.sleep(seconds / 20)

    # Its own word.

    def _speakLater(self) -> None:
        self._stopSpeaking()
        if self._attending and self.greeted and self.endedAt is None:
            # Its HELLO may still be on its way: look again soon.
            hello = self.stream.hello
            wait = 0.1 if hello is None else self.needs * WORD_FRACTION
            if wait:
                self._speaking = self._reactor.callLater(max(SHORTEST_WAIT, wait), self._speak)

    def _speak(self) -> None:
        self._speaking = None
        self.write(wire.encodePong(0))
        self._speakLater()

    def _stopSpeaking(self) -> None:
        if self._speaking is not None:
            self._speaking.cancel()
            self._speaking = None

    def _tell(self) -> None:
        for listener in tuple(self._listeners):
            if listener in self._listeners:
                listener()
