# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
A network in virtual time: endpoints whose attempts a test answers, transports that end as real ones
do, and hooks that keep a record.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import (
    ConnectingCancelledError,
    ConnectionAborted,
    ConnectionDone,
    NoProtocol,
    NotConnectingError,
)
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_heartbeat import Cause, Link, LinkHooks, Retry

PEER = IPv4Address("TCP", "192.0.2.1", 1234)


class FakeTransport(StringTransport):
    """
    Reports its end as Twisted's TCP transports do: not from inside of the call that asks for it.

    @ivar stuck: whether the peer takes no bytes, so that a polite close never comes to its end.
    @ivar open: whether its socket would still be there.
    """

    stuck = False
    open = True
    aborting = False

    def __init__(self, clock: IReactorTime, protocol: Any) -> None:
        super().__init__(peerAddress=PEER)
        self._clock = clock
        self.protocol = protocol

    def loseConnection(self) -> None:
        """
        Close politely.
        """
        self.disconnecting = True
        if not self.stuck:
            self._clock.callLater(0, self.lose, ConnectionDone())

    def abortConnection(self) -> None:
        """
        Close at once.
        """
        self.aborting = True
        self.disconnecting = True
        self._clock.callLater(0, self.lose, ConnectionAborted())

    def lose(self, error: BaseException | None = None) -> None:
        """
        The connection ends, as by the peer's FIN unless an error says otherwise.
        """
        if self.open:
            self.open = False
            self.protocol.connectionLost(Failure(error or ConnectionDone()))

    def deliver(self, data: bytes) -> None:
        """
        The peer has sent something.
        """
        if self.open:
            self.protocol.dataReceived(data)


class FakeAttempt:
    """
    What an endpoint was asked for.

    @ivar answered: whether it has come to something, or was cancelled.
    """

    def __init__(self, clock: IReactorTime, factory: Any, network: FakeNetwork) -> None:
        self._clock = clock
        self._network = network
        self.factory = factory
        self.answered = False
        self.cancelled = False
        self.result: Deferred[Any] = Deferred(self._cancel)
        self._connecting = True

    def _cancel(self, result: Deferred[Any]) -> None:
        # As twisted.internet.endpoints: it has to ask a connector that may be past connecting.
        self.cancelled = self.answered = True
        result.errback(ConnectingCancelledError(PEER))
        if not self._connecting:
            raise NotConnectingError("we're not trying to connect")

    def succeed(self) -> FakeTransport | None:
        """
        The connection is made.

        @return: L{None} if the factory did not want it, or the protocol failed.
        """
        self.answered = True
        self._connecting = False
        try:
            protocol = self.factory.buildProtocol(PEER)
            if protocol is None:
                raise NoProtocol()
        except BaseException:
            self.result.errback()
            return None
        transport = FakeTransport(self._clock, protocol)
        self._network.transports.append(transport)
        try:
            protocol.makeConnection(transport)
        except BaseException as error:
            # As the reactor: and the endpoint's Deferred never fires.
            transport.lose(error)
            return None
        self.result.callback(protocol)
        return transport

    def fail(self, error: Exception) -> None:
        """
        No connection is made.
        """
        self.answered = True
        self.result.errback(error)


@implementer(IStreamClientEndpoint)
class FakeEndpoint:
    """
    Answers nothing by itself.

    @ivar attempts: all that were made here.
    """

    def __init__(self, network: FakeNetwork) -> None:
        self._network = network
        self.attempts: list[FakeAttempt] = []

    def connect(self, factory: Any) -> Deferred[Any]:
        """
        See C{IStreamClientEndpoint}.
        """
        attempt = FakeAttempt(self._network.clock, factory, self._network)
        self.attempts.append(attempt)
        return attempt.result


class FakeNetwork:
    """
    The endpoints and the connections of one test.

    @ivar transports: all that were ever made.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self.clock = clock
        self.transports: list[FakeTransport] = []

    def endpoint(self) -> FakeEndpoint:
        """
        One more peer.
        """
        return FakeEndpoint(self)

    @property
    def openTransports(self) -> list[FakeTransport]:
        """
        Those whose sockets would still be there.
        """
        return [transport for transport in self.transports if transport.open]


class Recorder(LinkHooks):
    """
    Keeps what it hears.

    @ivar events: the hook's name, and what it was told.
    @ivar then: what to do, and to return, after a hook of that name.
    """

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []
        self.then: dict[str, Callable[[], object]] = {}
        self._waiting: list[tuple[str, Deferred[Any]]] = []

    def next(self, name: str) -> Deferred[Any]:
        """
        Fires with what the next hook of that name is told.
        """
        told: Deferred[Any] = Deferred()
        self._waiting.append((name, told))
        return told

    @property
    def names(self) -> list[str]:
        """
        The hooks in the order in which they were called.
        """
        return [name for name, _ in self.events]

    def told(self, name: str) -> list[Any]:
        """
        What the hooks of one name were told.
        """
        return [value for heard, value in self.events if heard == name]

    def _heard(self, name: str, value: Any) -> object:
        self.events.append((name, value))
        told = [waiting for awaited, waiting in self._waiting if awaited == name]
        self._waiting = [pair for pair in self._waiting if pair[0] != name]
        for waiting in told:
            waiting.callback(value)
        act = self.then.get(name)
        return None if act is None else act()

    def connecting(self, attempt: int) -> object:
        return self._heard("connecting", attempt)

    def connected(self, link: Link) -> object:
        return self._heard("connected", link)

    def suspected(self, link: Link) -> object:
        return self._heard("suspected", link)

    def recovered(self, link: Link) -> object:
        return self._heard("recovered", link)

    def disconnected(self, link: Link, cause: Cause) -> object:
        return self._heard("disconnected", cause)

    def refused(self, link: Link, cause: Cause) -> object:
        return self._heard("refused", cause)

    def retrying(self, retry: Retry) -> object:
        return self._heard("retrying", retry)

    def gaveUp(self, cause: Cause) -> object:
        return self._heard("gaveUp", cause)


class Timed(Recorder):
    """
    Notes when each hook was called, too.
    """

    def __init__(self, clock: IReactorTime) -> None:
        super().__init__()
        self.moments: list[tuple[str, float]] = []
        self._clock = clock

    def _heard(self, name: str, value: Any) -> object:
        self.moments.append((name, self._clock.seconds()))
        return super()._heard(name, value)


class Kept(Protocol):
    """
    An ordinary protocol that knows nothing of this package, and keeps what it hears.

    @ivar reason: what its C{connectionLost} was told.
    """

    reason: Failure | None = None

    def __init__(self) -> None:
        self.received = b""
        self.losses = 0

    def dataReceived(self, data: bytes) -> None:
        """
        Keep it.
        """
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Count it.
        """
        self.losses += 1
        self.reason = reason


class KeptFactory(Factory):
    """
    Makes them, and keeps them.
    """

    protocol = Kept

    def __init__(self) -> None:
        self.built: list[Any] = []

    def buildProtocol(self, addr: Any) -> Any:
        """
        See C{IProtocolFactory}.
        """
        protocol = super().buildProtocol(addr)
        self.built.append(protocol)
        return protocol
