# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{HeartbeatServerFactory}: many peers, each watched for itself.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.protocol import Factory

from twisted_heartbeat import (
    ClosedHere,
    HeartbeatProtocol,
    HeartbeatServerFactory,
    Limits,
    PeerClosed,
    PeerReset,
    PeerSilent,
    ProtocolViolation,
)

from .fakes import KeptFactory, Recorder
from .loopback import QUICK, Loopback, Peers, opened, wait, within


@pytest.fixture(params=["plain", "TLS"])
def loopback(request: pytest.FixtureRequest) -> Iterator[Loopback]:
    """
    Real sockets, plain and TLS.
    """
    with opened(request.param == "TLS") as place:
        yield place


@pytest.fixture
def plain() -> Iterator[Loopback]:
    """
    Real sockets without TLS.
    """
    with opened(False) as place:
        yield place


@pytest.fixture
def secured() -> Iterator[Loopback]:
    """
    Real sockets with TLS.
    """
    with opened(True) as place:
        yield place


def talker() -> Factory:
    """
    Makes clients that speak the built-in protocol.
    """
    return Factory.forProtocol(HeartbeatProtocol)


@pytest_twisted.ensureDeferred
async def test_peers(loopback: Loopback) -> None:
    """
    C{peers} holds the links that are up, by generation, from C{connected} to C{disconnected}.
    """
    hooks = Recorder()
    server = HeartbeatServerFactory(hooks=hooks)
    loopback.atEnd(server.close)
    endpoint = loopback.endpoint(loopback.listen(server))
    assert server.peers == {}
    links = []
    services = []
    for _ in range(3):
        connected = hooks.next("connected")
        services.append(loopback.service(endpoint, talker()))
        links.append(await within(connected))
    assert server.peers == {link.generation: link for link in links}
    assert [link.generation for link in links] == [1, 2, 3]
    ended = hooks.next("disconnected")
    await within(services[1].stopService())
    assert type(await within(ended)) is PeerClosed
    assert sorted(server.peers) == [1, 3]


@pytest_twisted.ensureDeferred
async def test_garbageEndsOneLinkAlone(loopback: Loopback) -> None:
    """
    Garbage from a peer ends that link with C{ProtocolViolation}; another on the same server stays
    up, and is still watched (promise 17).
    """
    hooks = Recorder()
    server = HeartbeatServerFactory(hooks=hooks, heartbeat=QUICK)
    loopback.atEnd(server.close)
    endpoint = loopback.endpoint(loopback.listen(server))
    connected = hooks.next("connected")
    loopback.service(endpoint, talker(), heartbeat=QUICK)
    good = await within(connected)
    ended = hooks.next("disconnected")
    bad: Any = KeptFactory()
    service = loopback.service(endpoint, bad, retryPolicy=lambda attempt: 60.0)
    await within(service.whenConnected())
    bad.built[0].transport.write(b"GET / HTTP/1.1\r\n\r\n")
    cause = await within(ended)
    assert type(cause) is ProtocolViolation
    assert isinstance(await within(service.whenDisconnected()), (PeerReset, type(None)))
    await wait(2 * QUICK.bound)
    assert list(server.peers.values()) == [good]
    assert good.state == "alive"
    assert len(hooks.told("disconnected")) == 1


@pytest_twisted.ensureDeferred
async def test_silentClientIsFound(loopback: Loopback) -> None:
    """
    A client that says nothing is found within the bound, and its resources are cleaned up.
    """
    hooks = Recorder()
    server = HeartbeatServerFactory(hooks=hooks, heartbeat=QUICK)
    loopback.atEnd(server.close)
    connected, ended = hooks.next("connected"), hooks.next("disconnected")
    loopback.service(
        loopback.endpoint(loopback.listen(server)),
        Peers(),
        heartbeat=None,
        retryPolicy=lambda attempt: 60.0,
    )
    link = await within(connected)
    ran: list[str] = []
    link.addCleanup(ran.append, "cleaned up")
    began = link.liveness.heardAt
    assert isinstance(await within(ended), PeerSilent)
    assert 0.95 * QUICK.bound <= time.monotonic() - began <= QUICK.bound + 1
    await within(link.whenGone())
    assert ran == ["cleaned up"]
    assert server.peers == {}


@pytest_twisted.ensureDeferred
async def test_close(loopback: Loopback) -> None:
    """
    C{close} says goodbye to all, and fires when all are gone and cleaned up.
    """
    hooks, clientHooks = Recorder(), Recorder()
    server = HeartbeatServerFactory(hooks=hooks)
    endpoint = loopback.endpoint(loopback.listen(server))
    ended = clientHooks.next("disconnected")
    for _ in range(2):
        connected = hooks.next("connected")
        loopback.service(endpoint, talker(), hooks=clientHooks, retryPolicy=lambda attempt: 60.0)
        await within(connected)
    await within(server.close())
    assert server.peers == {}
    assert [type(cause) for cause in hooks.told("disconnected")] == [ClosedHere] * 2
    cause = await within(ended)
    assert type(cause) is PeerClosed
    assert "goodbye" in str(cause)


@pytest_twisted.ensureDeferred
async def test_closeIsBounded(loopback: Loopback) -> None:
    """
    C{close} fires within C{closeTimeout} even if a peer does not read (promise 9).
    """
    hooks = Recorder()
    server = HeartbeatServerFactory(
        KeptFactory(), hooks=hooks, limits=Limits(closeTimeout=0.4, maxBuffered=None)
    )
    connected = hooks.next("connected")
    client: Any = KeptFactory()
    service = loopback.service(
        loopback.endpoint(loopback.listen(server)), client, retryPolicy=lambda attempt: 60.0
    )
    link = await within(connected)
    await within(service.whenConnected())
    client.built[0].transport.pauseProducing()
    link.protocol.transport.write(bytes(20_000_000))
    await wait(0.05)
    began = time.monotonic()
    await within(server.close())
    assert 0.95 * 0.4 <= time.monotonic() - began <= 0.4 + 1
    assert type(hooks.told("disconnected")[0]) is ClosedHere


@pytest_twisted.ensureDeferred
async def test_hangingHandshakeOfClient(secured: Loopback) -> None:
    """
    A client that connects and never begins its TLS handshake is ended within C{connectTimeout}; it
    was never among the peers, and C{connected} was not called.
    """
    hooks = Recorder()
    server = HeartbeatServerFactory(hooks=hooks, limits=Limits(connectTimeout=0.3))
    ended = hooks.next("disconnected")
    port = secured.listen(server)
    client = socket.create_connection(("127.0.0.1", port))
    secured.atEnd(client.close)
    await within(ended)
    assert hooks.names == ["disconnected"]
    assert type(hooks.told("disconnected")[0]).__name__ == "HandshakeFailed"
    assert server.peers == {}


@pytest_twisted.ensureDeferred
async def test_closeDuringHandshake(secured: Loopback) -> None:
    """
    C{close} also ends a connection whose TLS handshake has not been completed.
    """
    server = HeartbeatServerFactory(hooks=Recorder(), limits=Limits(closeTimeout=0.3))
    port = secured.listen(server)
    client = socket.create_connection(("127.0.0.1", port))
    secured.atEnd(client.close)
    await wait(0.1)
    await within(server.close())


@pytest_twisted.ensureDeferred
async def test_wrappedFactoryUnchanged(plain: Loopback) -> None:
    """
    Any factory can be watched; its protocols are built as ever, and told of their end.
    """
    hooks = Recorder()
    factory: Any = KeptFactory()
    server = HeartbeatServerFactory(factory, hooks=hooks)
    plain.atEnd(server.close)
    connected, ended = hooks.next("connected"), hooks.next("disconnected")
    service = plain.service(plain.endpoint(plain.listen(server)), Peers())
    link = await within(connected)
    assert link.protocol is factory.built[0]
    await within(service.stopService())
    await within(ended)
    assert factory.built[0].losses == 1
