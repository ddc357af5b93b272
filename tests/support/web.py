# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
A server of check-ins on loopback, and what asks it: treq, or raw bytes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from treq.client import HTTPClient
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool

from twisted_heartbeat import Check, CheckInResource
from twisted_heartbeat.checkin.site import CheckInSite

from .checkins import Told
from .loopback import serverOptions, within


@dataclass
class Answer:
    """
    What a server has answered.
    """

    code: int
    body: str
    headers: Any

    def header(self, name: str) -> str | None:
        """
        The value of a header.
        """
        values = self.headers.getRawHeaders(name.encode())
        return None if values is None else values[0].decode()


class Served:
    """
    A C{CheckInResource} that is being served.

    @ivar url: of C{/ping}, without a slash at the end.
    """

    def __init__(self, resource: CheckInResource, site: CheckInSite, port: Any, told: Told) -> None:
        self.resource = resource
        self.site = site
        self.port = port
        self.told = told
        self.number: int = port.getHost().port
        self.url = f"http://127.0.0.1:{self.number}/ping"

    async def ask(self, path: str, method: str = "GET", **options: Any) -> Answer:
        """
        Ask for what is at this path below C{/ping}.
        """
        return await ask(f"{self.url}/{path}", method, **options)


async def ask(url: str, method: str = "GET", **options: Any) -> Answer:
    """
    Ask a server, over a connection of its own.
    """
    from twisted.internet import reactor

    pool = HTTPConnectionPool(reactor, persistent=False)
    client = HTTPClient(Agent(reactor, pool=pool))
    response = await within(client.request(method, url, allow_redirects=False, **options))
    return Answer(response.code, await within(response.text()), response.headers)


@asynccontextmanager
async def serving(
    *, secured: bool = False, hooks: Any = None, start: bool = True, **settings: Any
) -> AsyncIterator[Served]:
    """
    Serve check-ins on a free port, and leave nothing behind.
    """
    from twisted.internet import reactor

    told = Told(reactor)
    settings.setdefault("checks", {"job": Check(period=60.0, grace=60.0)})
    settings.setdefault("tokens", None)
    resource = CheckInResource(hooks=[told, *(hooks or [])], **settings)
    site = resource.site()
    if start:
        resource.startService()
    if secured:
        port = reactor.listenSSL(0, site, serverOptions(), interface="127.0.0.1")
    else:
        port = reactor.listenTCP(0, site, interface="127.0.0.1")
    try:
        yield Served(resource, site, port, told)
    finally:
        await within(resource.stopService(), 15.0)
        await maybeDeferred(port.stopListening)
        await within(site.drain())


class Raw(Protocol):
    """
    A connection for bytes that no client would send.

    @ivar data: what has come.
    @ivar lost: fires when the connection is.
    """

    transport: Any

    def __init__(self) -> None:
        self.data = b""
        self.lost: Deferred[None] = Deferred()
        self._waiting: list[tuple[bytes, Deferred[None]]] = []

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        for awaited, waiting in list(self._waiting):
            if awaited in self.data:
                self._waiting.remove((awaited, waiting))
                waiting.callback(None)

    def until(self, awaited: bytes) -> Deferred[None]:
        """
        Wait until this has come.
        """
        waiting: Deferred[None] = Deferred()
        self._waiting.append((awaited, waiting))
        self.dataReceived(b"")
        return within(waiting)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)

    async def close(self) -> None:
        """
        Close it.
        """
        self.transport.abortConnection()
        await within(self.lost)


async def connect(port: int) -> Raw:
    """
    Connect to a port of loopback.
    """
    from twisted.internet import reactor

    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
    return await within(connectProtocol(endpoint, Raw()))  # type: ignore[no-any-return]
