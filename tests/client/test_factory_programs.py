# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{HeartbeatClientFactory} in the place of L{ReconnectingClientFactory} in programs of the shapes
that real ones have, on real sockets: the server is restarted, and hangs.
"""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, ReconnectingClientFactory

from twisted_heartbeat import Heartbeat, HeartbeatClientFactory, PeerSilent

from ..support.loopback import QUICK, Loopback, wait, within
from ..support.virtualnetwork import Recorder
from .test_factory import connect


class Answering(Protocol):
    """
    A server's protocol that answers each chunk, unless the server hangs.
    """

    factory: Answers

    def connectionMade(self) -> None:
        self.factory.connections.append(self)
        self.factory.told()

    def dataReceived(self, data: bytes) -> None:
        if not self.factory.hangs:
            assert self.transport is not None
            self.transport.write(data)

    def connectionLost(self, reason: object = None) -> None:
        self.factory.connections.remove(self)


class Answers(Factory):
    """
    A server.

    @ivar hangs: whether it answers nothing.
    """

    protocol = Answering
    noisy = False
    hangs = False

    def __init__(self) -> None:
        self.connections: list[Any] = []
        self.made = 0

    def told(self) -> None:
        """
        One more has connected.
        """
        self.made += 1

    def restart(self) -> None:
        """
        Every connection is reset.
        """
        for connection in list(self.connections):
            connection.transport.abortConnection()


class Quick(HeartbeatClientFactory):
    """
    In the place of C{ReconnectingClientFactory}: the programs below know no setting of it.
    """

    heartbeat = QUICK
    initialDelay = 0.02
    maxDelay = 0.05
    jitter = None
    spread = 0.0
    noisy = False

    def ping(self, protocol: Any) -> None:  # type: ignore[override]
        """
        Make the peer speak.
        """
        protocol.transport.write(b"ping")


class Queue(Quick):
    """
    As the factory of an MQTT client: C{__init__} calls no base, C{protocol} is the latest protocol
    and no class, the base's methods are called by its name.
    """

    def __init__(self, profile: str) -> None:
        self.profile = profile
        self.factor = 2
        self.id = 0

    def buildProtocol(self, addr: IAddress | None) -> Any:
        self.protocol = Speaker(self)  # type: ignore[assignment]
        return self.protocol

    def clientConnectionLost(self, connector: Any, reason: Any) -> None:
        ReconnectingClientFactory.clientConnectionLost(  # type: ignore[no-untyped-call]
            self, connector, reason
        )

    def clientConnectionFailed(self, connector: Any, reason: Any) -> None:
        ReconnectingClientFactory.clientConnectionFailed(  # type: ignore[no-untyped-call]
            self, connector, reason
        )


class Speaker(Protocol):
    """
    A client's protocol that says something when it is connected.
    """

    def __init__(self, factory: Any) -> None:
        self.factory = factory

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"hello")


class Registrar(type):
    """
    The metaclass of a factory with plugins.
    """

    plugins: list[str] = []

    def __init__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> None:
        super().__init__(name, bases, body)
        Registrar.plugins.append(name)


class Relay(Quick, metaclass=Registrar):
    """
    As the factory of a metrics relay: a metaclass, C{__init__} and C{startedConnecting} call no
    base, it connects itself, it calls C{resetDelay} when connected, and reads C{retries} when a
    connection is lost.
    """

    maxDelay = 5

    def __init__(self, destination: str) -> None:
        self.destination = destination
        self.connectedProtocol: Any = None
        self.connectionLost: Deferred[Any] = Deferred()
        self.seen: list[int] = []

    def buildProtocol(self, addr: IAddress | None) -> Any:
        self.connectedProtocol = RelayProtocol(self)
        return self.connectedProtocol

    def startedConnecting(self, connector: Any) -> None:
        self.host = connector.getDestination().host

    def clientConnectionMade(self) -> None:
        """
        Called by the protocol.
        """
        self.resetDelay()

    def clientConnectionLost(self, connector: Any, reason: Any) -> None:
        ReconnectingClientFactory.clientConnectionLost(  # type: ignore[no-untyped-call]
            self, connector, reason
        )
        self.connectedProtocol = None
        self.seen.append(self.retries)

    def __repr__(self) -> str:
        return f"Relay({self.destination})"


class RelayProtocol(Speaker):
    """
    Tells its factory.
    """

    def connectionMade(self) -> None:
        self.factory.clientConnectionMade()
        super().connectionMade()


class Pool(Quick):
    """
    As the factory of a Redis pool: one for all connectors, C{continueTrying} is set from outside,
    the pool is of protocols that have connected.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.pool: list[Any] = []

    def buildProtocol(self, addr: IAddress | None) -> Any:
        protocol = PoolProtocol(self)
        protocol.factory = self
        return protocol


class PoolProtocol(Speaker):
    """
    Puts itself into the pool, and takes itself out.
    """

    def connectionMade(self) -> None:
        super().connectionMade()
        self.factory.pool.append(self)

    def connectionLost(self, reason: object = None) -> None:
        self.factory.pool.remove(self)


class Library(Factory):
    """
    As the client factory of a WebSocket library: takes a URL, builds its own protocols, and calls
    no base.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return Speaker(self)


class Socket(Library, Quick):
    """
    The library's factory, and beside it the one that reconnects.
    """


class SocketToo(Quick, Library):
    """
    The same, in the other order.
    """


MAKERS = {
    "queue": lambda: Queue("publisher"),
    "relay": lambda: Relay("hub:2003"),
    "pool": lambda: Pool(4),
    "socket": lambda: Socket("ws://hub"),
    "socket, other order": lambda: SocketToo("ws://hub"),
}


async def until(condition: Any) -> None:
    """
    Wait for something to become true.
    """
    for _ in range(500):
        if condition():
            return
        await wait(0.01)
    raise AssertionError("it did not come true within 5 s")


@pytest.mark.parametrize("shape", list(MAKERS))
@pytest_twisted.ensureDeferred
async def test_programsReconnectAllTheirConnections(loopback: Loopback, shape: str) -> None:
    """
    Each of the programs has all of its connections again after the server was restarted, and after
    it has hung; each link has its events; nothing is left when the program stops.
    """
    factory: Any = MAKERS[shape]()
    hooks = factory.hooks = Recorder()
    server = Answers()
    port = loopback.listen(server)
    size = factory.size if shape == "pool" else 1
    connectors = [connect(loopback, port, factory) for _ in range(size)]

    def complete(times: int) -> bool:
        return len(hooks.told("connected")) >= times * size == server.made

    await until(lambda: complete(1))
    server.restart()
    await until(lambda: complete(2))
    server.hangs = True
    await until(lambda: sum(isinstance(c, PeerSilent) for c in hooks.told("disconnected")) >= size)
    server.hangs = False
    await until(lambda: len(server.connections) == size)
    if shape == "pool":
        # The server may have been counting those that the clients had aborted.
        await until(lambda: len(factory.pool) == size)
    if shape == "relay":
        assert factory.seen[0] == 1
        assert Registrar.plugins.count("Relay") == 1
    factory.stopTrying()
    for connector in connectors:
        connector.disconnect()
    await until(lambda: not server.connections)
    await until(lambda: all(link.cleaned for link in hooks.told("connected")))
    generations = [link.generation for link in hooks.told("connected")]
    assert len(set(generations)) == len(generations)


@pytest.mark.parametrize("first", ["library", "ours"])
@pytest_twisted.ensureDeferred
async def test_autobahnsFactoryReconnects(first: str) -> None:
    """
    Autobahn's own WebSocket factory with ours beside it: it reconnects, and its pings are answered.
    """
    websocket = pytest.importorskip("autobahn.twisted.websocket")
    opened: Deferred[None] = Deferred()

    class Client(websocket.WebSocketClientProtocol):  # type: ignore[misc, name-defined]
        def onOpen(self) -> None:
            if self.factory.link.generation == 2:
                opened.callback(None)

    settings = {"protocol": Client, "ping": lambda self, protocol: protocol.sendPing()}
    bases = (websocket.WebSocketClientFactory, Quick)
    kind: Any = type("Both", bases if first == "library" else bases[::-1], settings)
    place = Loopback()
    server = websocket.WebSocketServerFactory()
    server.protocol = websocket.WebSocketServerProtocol
    factory = kind(f"ws://127.0.0.1:{place.listen(server)}")
    hooks = factory.hooks = Recorder()
    factory.heartbeat = Heartbeat.within(1)
    connected = hooks.next("connected")
    connect(place, int(factory.port), factory)
    link = await within(connected)
    await until(lambda: link.rtt is not None or link.hasReceivedData)
    await within(link.close())
    await within(opened)
    assert factory.link.watch == "ping"
    await within(place.close())
