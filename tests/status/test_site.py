# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The web server of the status page: what a client can not make it keep.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from twisted_heartbeat import StatusResource
from twisted_heartbeat.status import site as module
from twisted_heartbeat.status.site import StatusSite

from .fleet import Fleet
from .web import LOOPBACK, Answer

HEAD = b"POST /presence.json HTTP/1.1\r\nHost: localhost\r\n"


def serving() -> tuple[StatusSite, Clock]:
    """
    A site in virtual time.
    """
    clock = Clock()
    site = StatusSite(StatusResource(Fleet(clock).table, clock=clock), clock)
    site.startFactory()
    clock.advance(0)
    return site, clock


def connect(site: StatusSite) -> tuple[Any, StringTransport]:
    """
    A connection to it.
    """
    protocol = site.buildProtocol(LOOPBACK)
    transport = StringTransport(hostAddress=LOOPBACK)
    protocol.makeConnection(transport)
    return protocol, transport


@pytest.mark.parametrize("chunked", [False, True])
def test_bodiesAreThrownAway(chunked: bool) -> None:
    """
    A body of any size is read and not kept; the answer is as without it.
    """
    site, _ = serving()
    kept: list[int] = []
    protocol, transport = connect(site)
    render = site.resource.render
    site.resource.render = lambda request: (
        kept.append(  # type: ignore[method-assign]
            len(request.content.read())
        )
        or render(request)
    )
    part = b"x" * 100_000
    if chunked:
        protocol.dataReceived(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(20):
            protocol.dataReceived(b"%x\r\n%b\r\n" % (len(part), part))
        protocol.dataReceived(b"0\r\n\r\n")
    else:
        protocol.dataReceived(HEAD + b"Content-Length: 2000000\r\n\r\n")
        for _ in range(20):
            protocol.dataReceived(part)
    assert Answer(transport.value()).status == 405
    assert kept == [0]
    protocol.connectionLost(Failure(ConnectionDone()))


def test_connectionsAreLimited(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    For one connection too many the oldest that is no stream is aborted, so that those who only hold
    connections shut nobody out; and a connection that has ended takes no room.
    """
    monkeypatch.setattr(module, "_MAX_CONNECTIONS", 3)
    site, _ = serving()
    stream, streaming = connect(site)
    stream.dataReceived(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    others = [connect(site) for _ in range(4)]
    aborted = [transport.disconnecting for _, transport in others]
    assert aborted == [True, True, False, False]
    assert not streaming.disconnecting
    protocols = [stream, *(protocol for protocol, _ in others)]
    protocols.pop().connectionLost(Failure(ConnectionDone()))
    protocols.append(connect(site)[0])
    assert not others[2][1].disconnecting
    for protocol in protocols:
        protocol.connectionLost(Failure(ConnectionDone()))


def test_nothingIsLogged(events: list[Any]) -> None:
    """
    A request makes no line of the log.
    """
    site, _ = serving()
    protocol, transport = connect(site)
    protocol.dataReceived(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert Answer(transport.value()).status == 200
    protocol.connectionLost(Failure(ConnectionDone()))
    assert not [event for event in events if "healthz" in repr(event)]


def test_drainEndsTheStreams() -> None:
    """
    The end of the service ends the streams, so that no client waits for more.
    """
    site, _ = serving()
    protocol, transport = connect(site)
    protocol.dataReceived(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert not transport.value().endswith(b"0\r\n\r\n")
    assert site.drain().called
    assert transport.value().endswith(b"0\r\n\r\n")
    protocol.connectionLost(Failure(ConnectionDone()))
