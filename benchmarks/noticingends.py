# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The two ends that C{noticing.py} connects.

A client opens some connections one after the other over an interval of pings, so that a fault meets
them in different phases.  It prints one line of JSON when all are up, and one for each end that it
notices.  The peer serves all kinds of clients and prints its three ports.

C{noticing.py} runs it as C{python benchmarks/noticingends.py peer} and
C{python benchmarks/noticingends.py NAME HOST PORTS LOAD}.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import Callable
from time import monotonic
from typing import Any

# It finds the checkout, too.
from heartbeatservers import runTwisted

BOUND, INTERVAL, TIMEOUT = 8.0, 5.0, 3.0
"""Seconds.  All that ping do so after five seconds, and wait for three."""

KEEPALIVE = {"TCP_KEEPIDLE": 2, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 3}
"""Keepalive that finds an idle peer after the same eight seconds, and not after two hours."""

CONNECTIONS = 8
EVERY = 0.5
"""Seconds between the messages of a client that has something to say."""

MESSAGE = b"a measurement of some hundred bytes".ljust(100, b".")


def tell(**fact: Any) -> None:
    """
    Print a fact for the waiting benchmark.
    """
    print(json.dumps({"at": monotonic(), **fact}), flush=True)


def serve(reactor: Any) -> None:
    """
    Listen for bare clients, for those of this package and for WebSockets.  Nothing is sent unasked.
    """
    from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
    from twisted.internet.protocol import Factory, Protocol

    from twisted_heartbeat import HeartbeatProtocol, HeartbeatServerFactory

    webSockets = WebSocketServerFactory()
    webSockets.protocol = WebSocketServerProtocol
    watched = HeartbeatServerFactory(Factory.forProtocol(HeartbeatProtocol))
    factories = [Factory.forProtocol(Protocol), watched, webSockets]
    tell(ports=[reactor.listenTCP(0, factory).getHost().port for factory in factories])


class Ends:
    """
    What becomes of the connections of one client.
    """

    def __init__(self) -> None:
        self._up = 0

    def up(self) -> None:
        """
        One more is connected.
        """
        self._up += 1
        if self._up == CONNECTIONS:
            tell(up=self._up)

    def lost(self, why: object) -> None:
        """
        The end of one was noticed.
        """
        tell(lost=str(why))


def twistedClient(name: str) -> Callable[..., None]:
    """
    A client on Twisted's reactor.

    @param name: C{bare}, C{keepalive}, C{ours} or C{autobahn}.
    """

    def run(host: str, ports: list[int], load: str) -> None:
        from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
        from twisted.internet.endpoints import TCP4ClientEndpoint
        from twisted.internet.protocol import Factory, Protocol
        from twisted.internet.task import LoopingCall

        from twisted_heartbeat import (
            Heartbeat,
            HeartbeatClientService,
            HeartbeatProtocol,
            LinkHooks,
        )

        ends = Ends()

        def speak(send: Callable[[bytes], object]) -> None:
            if load == "data":
                LoopingCall(send, MESSAGE).start(EVERY)

        class Bare(Protocol):
            """No more than Twisted does."""

            def connectionMade(self) -> None:
                if name == "keepalive":
                    self.transport.setTcpKeepAlive(1)
                    handle = self.transport.getHandle()
                    for option, seconds in KEEPALIVE.items():
                        handle.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), seconds)
                ends.up()
                speak(self.transport.write)

            def connectionLost(self, reason: Any) -> None:
                ends.lost(reason.getErrorMessage())

        class Pinging(WebSocketClientProtocol):
            """autobahn with its automatic ping."""

            def onOpen(self) -> None:
                ends.up()
                speak(lambda message: self.sendMessage(message, isBinary=True))

            def onClose(self, wasClean: bool, code: int, reason: str) -> None:
                ends.lost(reason)

        class Hooks(LinkHooks):
            """What this package tells."""

            def connected(self, link: Any) -> None:
                ends.up()
                speak(link.protocol.sendMessage)

            def disconnected(self, link: Any, cause: Any) -> None:
                ends.lost(type(cause).__name__)

        def connect(reactor: Any) -> None:
            if name == "ours":
                HeartbeatClientService(
                    TCP4ClientEndpoint(reactor, host, ports[1]),
                    Factory.forProtocol(HeartbeatProtocol),
                    heartbeat=Heartbeat(interval=INTERVAL, timeout=TIMEOUT),
                    hooks=Hooks(),
                ).startService()
            elif name == "autobahn":
                factory = WebSocketClientFactory(f"ws://{host}:{ports[2]}")
                factory.protocol = Pinging
                factory.setProtocolOptions(
                    autoPingInterval=INTERVAL, autoPingTimeout=TIMEOUT, autoPingSize=12
                )
                reactor.connectTCP(host, ports[2], factory)
            else:
                TCP4ClientEndpoint(reactor, host, ports[0]).connect(Factory.forProtocol(Bare))

        def start(reactor: Any) -> None:
            for number in range(CONNECTIONS):
                reactor.callLater(number * INTERVAL / CONNECTIONS, connect, reactor)

        runTwisted(start)

    return run


def websocketsClient(host: str, ports: list[int], load: str) -> None:
    """
    websockets, with its keepalive; all else is as its makers have set it.
    """
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed

    ends = Ends()

    async def speak(connection: Any) -> None:
        while True:
            await connection.send(MESSAGE)
            await asyncio.sleep(EVERY)

    async def keep(number: int) -> None:
        await asyncio.sleep(number * INTERVAL / CONNECTIONS)
        connection = await connect(
            f"ws://{host}:{ports[2]}",
            ping_interval=INTERVAL,
            ping_timeout=TIMEOUT,
            compression=None,
            proxy=None,
        )
        ends.up()
        speaking = asyncio.ensure_future(speak(connection)) if load == "data" else None
        try:
            await connection.recv()
        except ConnectionClosed as error:
            ends.lost(error)
        if speaking is not None:
            speaking.cancel()

    async def run() -> None:
        await asyncio.gather(*map(keep, range(CONNECTIONS)))

    asyncio.run(run())


CLIENTS: dict[str, Callable[..., None]] = {
    "bare": twistedClient("bare"),
    "keepalive": twistedClient("keepalive"),
    "autobahn": twistedClient("autobahn"),
    "websockets": websocketsClient,
    "ours": twistedClient("ours"),
}

if __name__ == "__main__":
    if sys.argv[1] == "peer":
        runTwisted(serve)
    else:
        CLIENTS[sys.argv[1]](sys.argv[2], json.loads(sys.argv[3]), sys.argv[4])
