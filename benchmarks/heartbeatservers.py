# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The servers that C{heartbeat.py} and C{footprint.py} compare.

Each server pings its peers, by default once a second, and reads the answers.  Each runs in a
process of its own and prints the port that it listens on.

A server with one timer for all links keeps the links in slots, as a timer wheel does.  So the pings
of every contestant are spread over the second as the connections were.

Both benchmarks run it as C{python benchmarks/heartbeatservers.py NAME}.  Servers with an interval
and a timeout take them after the name, in seconds.
"""

from __future__ import annotations

import asyncio
import select
import socket
import struct
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

# What is measured is the checkout that this lies in, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

HOST = "127.0.0.1"
BACKLOG = 4096
PER_SECOND = 64
PING = struct.Struct("!BBHII").pack(1, 2, 0, 1, 0)
"""The bytes of a ping of the built-in protocol, which all but the WebSockets send."""


class Wheel:
    """
    The links by the instant of their ping, once a second.
    """

    def __init__(self) -> None:
        self._slots: list[list[Any]] = [[] for _ in range(PER_SECOND)]
        self._at = int(monotonic() * PER_SECOND)

    def add(self, one: Any) -> None:
        """
        A new link.
        """
        self._slots[self._at % PER_SECOND].append(one)

    def due(self) -> list[Any]:
        """
        The links that have become due since the last call.
        """
        now = int(monotonic() * PER_SECOND)
        passed = range(self._at, now)
        self._at = now
        return [one for slot in passed for one in self._slots[slot % PER_SECOND]]


def listening() -> socket.socket:
    """
    Listen on a free port, and print its number.
    """
    port = socket.create_server((HOST, 0), backlog=BACKLOG)
    tell(port.getsockname()[1])
    return port


def tell(number: int) -> None:
    """
    Print a number for the waiting benchmark.
    """
    print(number, flush=True)


def epollFloor() -> None:
    """
    The floor: a raw epoll loop, as little as Python can do.
    """
    port = listening()
    port.setblocking(False)
    poller = select.epoll()
    poller.register(port, select.EPOLLIN)
    links: dict[int, socket.socket] = {}
    wheel = Wheel()
    while True:
        for number, _ in poller.poll(1 / PER_SECOND, 4096):
            link = links.get(number)
            if link is not None:
                if not link.recv(65536):
                    poller.unregister(link)
                    del links[number]
                continue
            link, _ = port.accept()
            link.setblocking(False)
            links[link.fileno()] = link
            poller.register(link, select.EPOLLIN)
            wheel.add(link)
        for link in wheel.due():
            link.send(PING)


# On Twisted's reactor.


def runTwisted(start: Callable[[Any], object]) -> None:
    """
    Run the reactor without logging, as a quiet service does.

    @param start: called with the reactor before it runs.
    """
    from twisted.internet import reactor
    from twisted.logger import globalLogBeginner

    running: Any = reactor
    # Until there is a log observer, Twisted keeps 65,536 events.
    globalLogBeginner.beginLoggingTo([lambda event: None], redirectStandardIO=False)
    start(running)
    running.run()


def serveTwisted(factory: Any) -> None:
    """
    Listen, and run the reactor.
    """

    def start(reactor: Any) -> None:
        port = reactor.listenTCP(0, factory, backlog=BACKLOG, interface=HOST)
        tell(port.getHost().port)

    runTwisted(start)


def bareTwisted(direct: bool = False) -> None:
    """
    One loop for all links, writing through the transports, without any timeout.

    @param direct: write straight to the sockets.
    """
    from twisted.internet.protocol import Factory, Protocol
    from twisted.internet.task import LoopingCall

    wheel = Wheel()

    class Bare(Protocol):
        def connectionMade(self) -> None:
            wheel.add(self)

        def dataReceived(self, data: bytes) -> None:
            pass

    def tick() -> None:
        for one in wheel.due():
            if direct:
                one.transport.socket.send(PING)
            else:
                one.transport.write(PING)

    LoopingCall(tick).start(1 / PER_SECOND)
    serveTwisted(Factory.forProtocol(Bare))


def silentTwisted() -> None:
    """
    No pings at all: the base that the memory of a link is compared with.
    """
    from twisted.internet.protocol import Factory, Protocol

    serveTwisted(Factory.forProtocol(Protocol))


def callLaterEach() -> None:
    """
    A delayed call for each connection's ping, and one for its timeout.
    """
    from twisted.internet import reactor
    from twisted.internet.protocol import Factory, Protocol

    clock: Any = reactor

    class Timed(Protocol):
        def connectionMade(self) -> None:
            self.next = clock.callLater(1, self.ping)
            self.timeout = clock.callLater(10, self.transport.abortConnection)

        def ping(self) -> None:
            self.transport.write(PING)
            self.next = clock.callLater(1, self.ping)

        def dataReceived(self, data: bytes) -> None:
            self.timeout.reset(10)

    serveTwisted(Factory.forProtocol(Timed))


def timed(interval: float, timeout: float) -> Any:
    """
    The idiom: TimeoutMixin, and a LoopingCall for each connection.
    """
    from twisted.internet.protocol import Protocol
    from twisted.internet.task import LoopingCall
    from twisted.protocols.policies import TimeoutMixin

    class Timed(Protocol, TimeoutMixin):
        def connectionMade(self) -> None:
            self.setTimeout(interval + timeout)
            LoopingCall(self.ping).start(interval, now=False)

        def ping(self) -> None:
            self.transport.write(PING)

        def dataReceived(self, data: bytes) -> None:
            self.resetTimeout()

    return Timed


def timeoutMixin(interval: float = 1, timeout: float = 9) -> None:
    """
    The idiom of L{timed}, for each connection.
    """
    from twisted.internet.protocol import Factory

    serveTwisted(Factory.forProtocol(timed(interval, timeout)))


def ours(interval: float = 1, timeout: float = 1.5) -> None:
    """
    L{HeartbeatProtocol} under L{HeartbeatServerFactory}.
    """
    from twisted_heartbeat import Heartbeat, HeartbeatServerFactory

    serveTwisted(HeartbeatServerFactory(heartbeat=Heartbeat(interval=interval, timeout=timeout)))


def oursMixedIn() -> None:
    """
    L{HeartbeatMixin} in a bare protocol, with a C{sendPing} of its own.
    """
    from twisted.internet.protocol import Factory, Protocol

    from twisted_heartbeat import Heartbeat, HeartbeatMixin

    class Mixed(HeartbeatMixin, Protocol):
        heartbeat = Heartbeat(interval=1, timeout=1.5)

        def sendPing(self) -> None:
            self.transport.write(PING)

        def dataReceived(self, data: bytes) -> None:
            pass

    serveTwisted(Factory.forProtocol(Mixed))


def oursWrapped() -> None:
    """
    A bare protocol under L{HeartbeatServerFactory}, with a C{ping} of its own.
    """
    from twisted.internet.protocol import Factory, Protocol

    from twisted_heartbeat import Heartbeat, HeartbeatServerFactory

    class Bare(Protocol):
        def dataReceived(self, data: bytes) -> None:
            pass

    serveTwisted(
        HeartbeatServerFactory(
            Factory.forProtocol(Bare),
            heartbeat=Heartbeat(interval=1, timeout=1.5),
            ping=lambda protocol: protocol.transport.write(PING),
        )
    )


def autobahnPing(interval: float = 1, timeout: float = 9) -> None:
    """
    autobahn, with its automatic ping.
    """
    from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol

    factory = WebSocketServerFactory()
    factory.protocol = WebSocketServerProtocol
    factory.setProtocolOptions(autoPingInterval=interval, autoPingTimeout=timeout, autoPingSize=12)
    serveTwisted(factory)


# On asyncio.


async def serveAsyncio() -> None:
    """
    One loop for all links, writing through the transports.
    """
    loop = asyncio.get_running_loop()
    wheel = Wheel()

    class Bare(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            wheel.add(transport)

        def data_received(self, data: bytes) -> None:
            pass

    server = await loop.create_server(Bare, HOST, 0, backlog=BACKLOG)
    tell(server.sockets[0].getsockname()[1])
    while True:
        await asyncio.sleep(1 / PER_SECOND)
        for transport in wheel.due():
            transport.write(PING)


def onAsyncio() -> None:
    """
    asyncio's own loop.
    """
    asyncio.run(serveAsyncio())


def onUvloop() -> None:
    """
    The same server on uvloop.
    """
    import uvloop

    uvloop.run(serveAsyncio())


def websocketsPing(interval: float = 1, timeout: float = 9) -> None:
    """
    websockets, with its keepalive.
    """
    from websockets.asyncio.server import ServerConnection, serve

    async def listen(connection: ServerConnection) -> None:
        async for _ in connection:
            pass

    async def run() -> None:
        serving = serve(
            listen,
            HOST,
            0,
            ping_interval=interval,
            ping_timeout=timeout,
            compression=None,
            backlog=BACKLOG,
        )
        async with serving as server:
            tell(next(iter(server.sockets)).getsockname()[1])
            await server.serve_forever()

    asyncio.run(run())


SERVERS: dict[str, Callable[..., None]] = {
    "epoll": epollFloor,
    "silent": silentTwisted,
    "bare": bareTwisted,
    "direct": partial(bareTwisted, direct=True),
    "ours": ours,
    "mixin": oursMixedIn,
    "wrapped": oursWrapped,
    "callLater": callLaterEach,
    "TimeoutMixin": timeoutMixin,
    "autobahn": autobahnPing,
    "asyncio": onAsyncio,
    "uvloop": onUvloop,
    "websockets": websocketsPing,
}

if __name__ == "__main__":
    SERVERS[sys.argv[1]](*map(float, sys.argv[2:]))
