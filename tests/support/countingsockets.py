# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Twisted's own connection on a socket that leads nowhere, in virtual time: what it asks the kernel
and the reactor for is counted, and the kernel says what a test wants.
"""

from __future__ import annotations

from collections.abc import Callable
from socket import SHUT_WR
from typing import Any

import pytest
from twisted.internet import tcp
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from twisted_heartbeat.batching.poller import readParked
from twisted_heartbeat.core import wire
from twisted_heartbeat.core.evidence import Evidence, VerdictBatch
from twisted_heartbeat.timing.wheel import TimerWheel

from .virtualnetwork import Timed

PEER = IPv4Address("TCP", "192.0.2.1", 1)


class CountedSocket:
    """
    A socket to nowhere.

    @ivar calls: what it was asked for.
    @ivar arrived: what the next C{recv} gives.
    @ivar sent: what it has taken.
    @ivar finished: whether this side has sent its FIN.
    @ivar answers: how many bytes the next C{send}s take, or what they raise; all of them, once
        there are no more answers.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.arrived = b""
        self.sent = b""
        self.finished = False
        self.answers: list[int | OSError] = []

    def recv(self, size: int, flags: int = 0) -> bytes:
        """
        See C{socket.socket}, and so the others.
        """
        if flags:
            # To peek is no read. No bytes would be the peer's FIN.
            if not self.arrived:
                raise BlockingIOError
            return self.arrived
        self.calls.append("recv")
        data, self.arrived = self.arrived, b""
        return data

    def send(self, data: bytes) -> int:
        self.calls.append("send")
        answer = self.answers.pop(0) if self.answers else len(data)
        if isinstance(answer, OSError):
            raise answer
        self.sent += bytes(data[:answer])
        return answer

    def setblocking(self, blocking: bool) -> None:
        pass

    def shutdown(self, how: int) -> None:
        self.calls.append("shutdown")
        self.finished = self.finished or how == SHUT_WR

    def setsockopt(self, *arguments: object) -> None:
        pass

    def getsockopt(self, *arguments: object) -> int:
        raise OSError

    def getsockname(self) -> object:
        raise OSError

    def close(self) -> None:
        self.calls.append("close")

    def fileno(self) -> int:
        return 0


class CountedPoll:
    """
    What reads the connections that are in a round.

    @ivar quiet: these.
    """

    def __init__(self, calls: list[str]) -> None:
        self.calls = calls
        self.quiet: list[Any] = []

    def add(self, one: Any) -> None:
        """
        See L{IdlePoller<twisted_heartbeat.batching.poller.IdlePoller>}, and so the other.
        """
        self.calls.append("nest")
        self.quiet.append(one)

    def remove(self, one: Any) -> None:
        self.calls.append("leaveNest")
        self.quiet.remove(one)


class CountedReactor:
    """
    One that is asked what to poll for, each of which is a system call.
    """

    def __init__(self, clock: Clock) -> None:
        self.calls: list[str] = []
        self.callLater = clock.callLater
        # What a reactor that uses epoll has, see idlePollerFor.
        self._twistedHeartbeatIdlePoller = CountedPoll(self.calls)

    def addReader(self, reader: Any) -> None:
        """
        See C{IReactorFDSet}, and so the others.
        """
        self.calls.append("addReader")

    def removeReader(self, reader: Any) -> None:
        self.calls.append("removeReader")

    def addWriter(self, writer: Any) -> None:
        self.calls.append("addWriter")

    def removeWriter(self, writer: Any) -> None:
        self.calls.append("removeWriter")


class Connection(tcp.Connection):
    """
    What a port of Twisted's makes.
    """

    def getPeer(self) -> IPv4Address:
        """
        See C{ITransport}.
        """
        return PEER


class Accepted(Connection, tcp.Server):
    """
    One that a port has accepted.
    """

    def __init__(self, skt: Any, protocol: Any, reactor: Any) -> None:
        tcp.Connection.__init__(self, skt, protocol, reactor)
        self.logstr = "Accepted,0,192.0.2.1"
        self.server = None


class Scene:
    """
    A protocol and its connection.

    @ivar socket: its socket.
    @ivar reactor: its reactor.
    """

    def __init__(
        self,
        factory: Any,
        clock: Clock,
        above: Callable[[Scene], Any] | None = None,
        kind: type[Connection] = Connection,
    ) -> None:
        """
        @param above: makes what stands between the protocol and the connection.
        @param kind: the connection's class.
        """
        self.clock = clock
        self.reactor = CountedReactor(clock)
        self.socket = CountedSocket()
        self.protocol: Any = factory.buildProtocol(PEER)
        self.connection: Any = kind(self.socket, self.protocol, self.reactor)
        self.connection.connected = True
        self.protocol.makeConnection(self.connection if above is None else above(self))

    def flush(self) -> None:
        """
        The reactor's turn to write.
        """
        connection = self.connection
        while connection.connected and (connection.dataBuffer or connection._tempDataLen):
            self.lose(connection.doWrite())

    def closeBack(self) -> None:
        """
        Let the connection close if it was told to: this side sends FIN, and the peer closes.
        """
        connection = self.connection
        if connection.connected and connection.disconnecting and not self.socket.finished:
            self.lose(connection.doWrite())
        if connection.connected and self.socket.finished:
            connection.readConnectionLost(Failure(ConnectionDone()))

    def receive(self, data: bytes) -> None:
        """
        The reactor's turn to read.
        """
        self.socket.arrived = data
        self.read()

    def read(self) -> None:
        """
        The same, by whoever reads it now.
        """
        quiet = self.connection in self.reactor._twistedHeartbeatIdlePoller.quiet
        self.lose(readParked(self.connection, {}) if quiet else self.connection.doRead())

    def lose(self, why: Any) -> None:
        """
        As the reactor, where reading or writing has come to an end; a FIN may be the end of one
        half only.
        """
        if why is CONNECTION_DONE and not self.connection.disconnecting:
            self.connection.readConnectionLost(Failure(why))
        elif why is not None:
            self.connection.connectionLost(Failure(why))

    def begin(self, name: str = "", needs: float = 0.0) -> None:
        """
        Past what happens only once: hellos, and the first chunk.

        @param needs: seconds, the peer's bound.
        """
        self.flush()
        self.receive(wire.encode(wire.Hello(name, needs)))
        self.forget()

    def forget(self) -> None:
        """
        Count anew.
        """
        self.socket.calls.clear()
        self.reactor.calls.clear()
        self.socket.sent = b""

    def answer(self) -> None:
        """
        The peer answers the last ping.
        """
        pings = [
            f for f in wire.FrameReader().receive(self.socket.sent) if isinstance(f, wire.Ping)
        ]
        self.socket.sent = b""
        self.receive(wire.encodePong(pings[-1].token))

    def untilSent(self) -> None:
        """
        Let time pass until something has been sent, or is to be.
        """
        for _ in range(600):
            if self.socket.sent or "addWriter" in self.reactor.calls:
                return
            self.clock.advance(0.1)
        raise AssertionError("nothing is ever sent")

    def beat(self) -> None:
        """
        The peer is silent for an interval, is pinged, and answers.
        """
        self.untilSent()
        self.flush()
        self.answer()


class RestingScene(Scene):
    """
    A peer that may rest in a round, and whose connection closes when it is told to.
    """

    def __init__(
        self, factory: Any, clock: Clock, rounds: bool, kind: type[Connection] = Connection
    ) -> None:
        """
        @param rounds: whether there can be any.
        """
        self._rounds = rounds
        super().__init__(factory, clock, kind=kind)
        if not rounds:
            reactor: Any = self.reactor
            reactor._twistedHeartbeatIdlePoller = None

    @property
    def link(self) -> Any:
        """
        The link to it.
        """
        return self.protocol.link

    def read(self) -> None:
        """
        See L{Scene}.
        """
        if self._rounds:
            super().read()
        else:
            self.lose(self.connection.doRead())

    def flush(self) -> None:
        """
        See L{Scene}.
        """
        super().flush()
        self.closeBack()


class Crew:
    """
    Peers of one server, in one time.

    @ivar hooks: what the server's hooks were told.
    """

    STEP = 0.5 / TimerWheel.PER_SECOND
    """Seconds; all times are multiples of it, so that sums of them are exact."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.hooks = Timed(self.clock)
        self.peers: list[Any] = []

    def turn(self) -> None:
        """
        Everybody's.
        """
        for peer in self.peers:
            peer.turn()

    def wait(self, seconds: float) -> None:
        """
        Let time pass, in steps.
        """
        for _ in range(round(seconds / self.STEP)):
            self.clock.advance(self.STEP)
            self.turn()

    def forget(self) -> None:
        """
        Count anew.
        """
        self.hooks.events.clear()
        self.hooks.moments.clear()
        for peer in self.peers:
            peer.forget()


class Kernel:
    """
    What the kernel says of all connections.

    @ivar queued: bytes that no peer has acknowledged.
    @ivar sinceAck: seconds since the peer's kernel last did.
    @ivar asked: how often it was asked for the first.
    """

    queued = 0
    sinceAck = 100.0

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked = 0
        for module in ("transport.connection", "transport.closing"):
            monkeypatch.setattr(f"twisted_heartbeat.{module}.sendQueueSize", self.sendQueueSize)
        for module in ("link.silence", "link.writes", "transport.connection"):
            monkeypatch.setattr(f"twisted_heartbeat.{module}.readEvidence", self._evidence)

    def sendQueueSize(self, _: Any) -> int:
        self.asked += 1
        return self.queued

    def _evidence(self, connection: Any, batch: VerdictBatch | None = None) -> Evidence:
        return Evidence(
            sinceAck=self.sinceAck,
            sinceData=self.sinceAck,
            unacknowledged=self.queued,
            unanswered=int(self.queued > 0),
            retransmits=0,
            window=1000,
            probes=0,
            rtt=0.1,
            _batch=batch,
        )
