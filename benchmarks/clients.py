# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The clients that C{footprint.py} compares.  Each connects to one port, pings who is there at its
interval, and does nothing else; each runs in a process of its own.

Run by C{footprint.py}, as C{python benchmarks/clients.py NAME PORT [INTERVAL TIMEOUT]}.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

# It finds the checkout, too.
from heartbeatservers import HOST, runTwisted, timed


def underClientService(protocol: Any, port: int) -> None:
    """
    Twisted's own service, and one connection of its.
    """
    from twisted.application.internet import ClientService
    from twisted.internet.endpoints import TCP4ClientEndpoint
    from twisted.internet.protocol import Factory

    def start(reactor: Any) -> None:
        endpoint = TCP4ClientEndpoint(reactor, HOST, port)
        ClientService(endpoint, Factory.forProtocol(protocol)).startService()

    runTwisted(start)


def silent(port: int) -> None:
    """
    No pings at all: the floor.
    """
    from twisted.internet.protocol import Protocol

    underClientService(Protocol, port)


def timeoutMixin(port: int, interval: float, timeout: float) -> None:
    """
    TimeoutMixin, and a LoopingCall.
    """
    underClientService(timed(interval, timeout), port)


def ours(port: int, interval: float, timeout: float) -> None:
    """
    L{HeartbeatProtocol} under L{HeartbeatClientService}.
    """
    from twisted.internet.endpoints import TCP4ClientEndpoint
    from twisted.internet.protocol import Factory

    from twisted_heartbeat import Heartbeat, HeartbeatClientService, HeartbeatProtocol

    def start(reactor: Any) -> None:
        HeartbeatClientService(
            TCP4ClientEndpoint(reactor, HOST, port),
            Factory.forProtocol(HeartbeatProtocol),
            heartbeat=Heartbeat(interval=interval, timeout=timeout),
        ).startService()

    runTwisted(start)


def autobahnPing(port: int, interval: float, timeout: float) -> None:
    """
    autobahn, with its automatic ping.
    """
    from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol

    def start(reactor: Any) -> None:
        factory = WebSocketClientFactory(f"ws://{HOST}:{port}")
        factory.protocol = WebSocketClientProtocol
        factory.setProtocolOptions(
            autoPingInterval=interval, autoPingTimeout=timeout, autoPingSize=12
        )
        reactor.connectTCP(HOST, port, factory)

    runTwisted(start)


def websocketsPing(port: int, interval: float, timeout: float) -> None:
    """
    websockets, with its keepalive.
    """
    from websockets.asyncio.client import connect

    async def run() -> None:
        connecting = connect(
            f"ws://{HOST}:{port}",
            ping_interval=interval,
            ping_timeout=timeout,
            compression=None,
            proxy=None,
        )
        async with connecting as connection:
            async for _ in connection:
                pass

    asyncio.run(run())


CLIENTS: dict[str, Callable[..., None]] = {
    "silent": silent,
    "ours": ours,
    "TimeoutMixin": timeoutMixin,
    "autobahn": autobahnPing,
    "websockets": websocketsPing,
}

if __name__ == "__main__":
    CLIENTS[sys.argv[1]](int(sys.argv[2]), *map(float, sys.argv[3:]))
