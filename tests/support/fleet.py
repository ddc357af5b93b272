# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Two peers of one factory in virtual time, batched or watched individually: the harness of
C{test_equivalence}.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock

from twisted_heartbeat import (
    Heartbeat,
    HeartbeatFactory,
    HeartbeatMixin,
    HeartbeatProtocol,
    HeartbeatServerFactory,
)
from twisted_heartbeat.batching.batcher import SWITCH
from twisted_heartbeat.core import wire
from twisted_heartbeat.core.quiet import checksSuspended
from twisted_heartbeat.timing.wheel import TimerWheel

from .countingsockets import Accepted, Connection, RestingScene
from .virtualnetwork import Timed

SLOT = 1 / TimerWheel.PER_SECOND
"""Seconds: by as much may a visit be late."""

SETTLED = 17.0
"""Seconds after which a peer that only answers is in a ping round, at an interval of 2 s."""


class Wrapped(Protocol):
    """
    A protocol that knows nothing of this package.

    @ivar heard: the chunks that it has received.
    @ivar replies: whether it replies to the next chunk.
    """

    def connectionMade(self) -> None:
        self.heard: list[bytes] = []
        self.replies = False
        super().connectionMade()

    def dataReceived(self, data: bytes) -> None:
        self.heard.append(data)
        if self.replies:
            self.transport.write(b"re: " + data)


class Mixed(HeartbeatMixin, Wrapped):
    """
    The same with the mix-in.
    """

    def sendPing(self) -> None:
        self.transport.write(b"?")


class BuiltIn(HeartbeatProtocol):
    """
    A protocol that has its messages framed, with the same fields.
    """

    def connectionMade(self) -> None:
        self.heard: list[bytes] = []
        self.replies = False
        super().connectionMade()

    def messageReceived(self, message: bytes) -> None:
        self.heard.append(message)
        if self.replies:
            self.sendMessage(b"re: " + message)


PROTOCOLS: dict[str, type[Any]] = {"built in": BuiltIn, "wrapped": Wrapped, "mixed in": Mixed}


@dataclass(frozen=True)
class Conditions:
    """
    How the peers of a L{Fleet} are watched.

    @ivar pinger: a key of L{PROTOCOLS}.
    @ivar phase: where in the interval their pings have their place; L{None} for no phase.
    @ivar accepted: whether a port has accepted the connections; otherwise this side has made them.
    @ivar epoll: whether the reactor uses epoll, so that connections can be parked.
    @ivar timeout: seconds, with an interval of 2 s.
    @ivar batching: whether there is any.
    """

    pinger: str
    phase: float | None
    accepted: bool
    epoll: bool
    timeout: float
    batching: bool = True

    def individual(self) -> Conditions:
        """
        The same without batching.
        """
        return replace(self, batching=False)


class FleetPeer(RestingScene):
    """
    A peer that answers each ping in the turn in which it comes, as long as it C{answers}.

    @ivar pingedAt: when it was pinged.
    @ivar isPinged: whether it has not answered the last ping.
    """

    def __init__(self, factory: Any, clock: Clock, conditions: Conditions) -> None:
        kind = Accepted if conditions.accepted else Connection
        self.answers = True
        self.isPinged = False
        self.pingedAt: list[float] = []
        self._isFramed = conditions.pinger == "built in"
        self._reader = wire.FrameReader()
        self._token = 0
        super().__init__(factory, clock, conditions.epoll, kind)
        if self._isFramed:
            self.begin()
        else:
            self.hear(b"hello")

    @property
    def own(self) -> Any:
        """
        The user's protocol.
        """
        return getattr(self.protocol, "_protocol", self.protocol)

    def turn(self) -> None:
        """
        The reactor's turn, and then the peer's.
        """
        self.flush()
        sent, self.socket.sent = self.socket.sent, b""
        pings = sent.count(b"?")
        if self._isFramed:
            tokens = [f.token for f in self._reader.receive(sent) if isinstance(f, wire.Ping)]
            self._token, pings = (tokens or [self._token])[-1], len(tokens)
        if pings:
            self.pingedAt += [self.clock.seconds()] * pings
            self.isPinged = True
        if self.isPinged and self.answers:
            self.answer()

    def hear(self, data: bytes) -> None:
        """
        This side receives bytes from the peer.
        """
        if self.connection.connected and self.connection.reading:
            self.receive(data)

    def answer(self) -> None:
        """
        The peer answers the last ping, if it has not yet.
        """
        if self.isPinged and self.connection.reading:
            self.isPinged = False
            self.hear(wire.encodePong(self._token) if self._isFramed else b"!")

    def say(self, words: bytes = b"a message") -> None:
        """
        The peer sends a message.  Without frames it is an answer as good as any.
        """
        if not self._isFramed:
            self.isPinged = False
        self.hear(wire.encode(wire.Data(words)) if self._isFramed else words)

    def happen(self, event: str) -> None:
        """
        Have an event happen to this peer.
        """
        if not self.connection.connected:
            return
        if event == "answer":
            self.answer()
        elif event == "say":
            self.say()
        elif event == "answer and say":
            self.answer()
            self.say()
        elif event == "ping" and self._isFramed:
            self.hear(wire.encodePing(7))
        elif event == "reply":
            self.own.replies = True
            self.say(b"a question")
            self.own.replies = False
        elif event == "write":
            self._write()
        elif event == "pause":
            self.link.peerWatch.pause()
        elif event == "resume":
            self.link.peerWatch.resume()
        elif event == "probe":
            self.link.probe()
        elif event == "close":
            self.link.close()
        elif event == "FIN":
            self.lose(self.connection._peerSentFin())
        self.turn()

    def _write(self) -> None:
        if self._isFramed:
            self.own.sendMessage(b"a word")
        else:
            self.own.transport.write(b"a word")

    @property
    def isParked(self) -> bool:
        """
        Whether its link is in a ping round.
        """
        return self.connection.batch is not None

    @property
    def isScanned(self) -> bool:
        """
        Whether its link is in a talker scan.
        """
        return checksSuspended(self.link.peerWatch.detector)


class Fleet:
    """
    Two peers whose pings are due at the same time: one to which events happen, and one that
    answers.

    @ivar hooks: what the factory's hooks were told, and when.
    """

    def __init__(self, conditions: Conditions) -> None:
        self.clock = Clock()
        self.hooks = Timed(self.clock)
        self.conditions = conditions
        with pytest.MonkeyPatch.context() as patch:
            if not conditions.batching:
                patch.setenv(SWITCH, "off")
            factory = self._factory(conditions)
            self.peers = [FleetPeer(factory, self.clock, conditions) for _ in range(2)]
        self.wait(SETTLED)
        assert self.hooks.names == ["connected"] * 2
        self.hooks.events.clear()
        self.hooks.moments.clear()
        for peer in self.peers:
            peer.forget()
            peer.pingedAt.clear()
            peer.own.heard.clear()

    def _factory(self, conditions: Conditions) -> Any:
        settings: dict[str, Any] = {
            "heartbeat": Heartbeat(interval=2.0, timeout=conditions.timeout),
            "keepAlive": None,
            "clock": self.clock,
            "hooks": self.hooks,
        }
        wrapped = Factory.forProtocol(PROTOCOLS[conditions.pinger])
        if conditions.pinger == "built in" and conditions.accepted:
            made: Any = HeartbeatServerFactory(wrapped, **settings)
        elif conditions.pinger == "wrapped":
            made = HeartbeatFactory(
                wrapped, ping=lambda protocol: protocol.transport.write(b"?"), **settings
            )
        else:
            made = HeartbeatFactory(wrapped, **settings)
        phase = conditions.phase
        made._settings["phase"] = None if phase is None else lambda: phase
        return made

    @property
    def first(self) -> FleetPeer:
        """
        The peer to which events happen.
        """
        return self.peers[0]

    def wait(self, seconds: float) -> None:
        """
        Let time pass, from one delayed call to the next.
        """
        until = self.clock.seconds() + seconds
        while True:
            calls = [call.getTime() for call in self.clock.getDelayedCalls()]
            when = max(self.clock.seconds(), min([*calls, until]))
            self.clock.advance(when - self.clock.seconds())
            for peer in self.peers:
                peer.turn()
            if when >= until and not any(
                call.getTime() <= until for call in self.clock.getDelayedCalls()
            ):
                return

    def isDecisive(self) -> bool:
        """
        Whether something was or will be due for the first peer within three slots of now.  What
        happens then would happen before or after it by chance.
        """
        now, link = self.clock.seconds(), self.first.link
        detector, heartbeat = link.peerWatch.detector, link.heartbeat
        if heartbeat is None or link.state == "gone":
            return False
        deadline, pingedAt = detector.deadline, detector.pingedAt
        dues = [
            detector.due,
            deadline,
            deadline - heartbeat.timeout + heartbeat.suspectAfter,
            pingedAt,
            pingedAt + heartbeat.interval,
            detector.heardAt + heartbeat.interval,
        ]
        return any(abs(now - due) <= 3 * SLOT for due in dues)
