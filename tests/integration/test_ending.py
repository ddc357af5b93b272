# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
C{stopService} always fires, on real sockets: within C{closeTimeout}, and C{cleanupTimeout} where
cleanups run, leaving no socket (promises 9, 10 and 12).

What all states and places do in virtual time is in F{test_client_service.py}; 20 MB queued for a
peer that does not read, without cleanups, in F{test_link.py}.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from twisted_heartbeat import (
    ClosedHere,
    Heartbeat,
    HeartbeatClientService,
    Limits,
    PeerReset,
    PeerSilent,
)

from ..support.loopback import Loopback, Peers, connectedPair, wait, within
from ..support.virtualnetwork import Kept, KeptFactory, Recorder

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux lists a process's sockets this way"
)

CLOSE = 0.4
CLEANUP = 0.4
SLACK = 1.0
"""Seconds that a busy machine may add."""

BOUNDED = Limits(closeTimeout=CLOSE, cleanupTimeout=CLEANUP, maxBuffered=None)
MB = 1024 * 1024


@pytest.fixture
def hooks() -> Recorder:
    """
    What is told.
    """
    return Recorder()


def socketsOf(port: int) -> list[str]:
    """
    The descriptors of this process that are connected, or are connecting, to a port; proc_pid_fd(5)
    and proc_net_tcp(5).
    """
    inodes = set()
    with open("/proc/net/tcp") as known:
        for fields in map(str.split, known.readlines()[1:]):
            if int(fields[2].split(":")[1], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    return [fd for fd in os.listdir("/proc/self/fd") if _pointsTo(fd, inodes)]


def _pointsTo(fd: str, targets: set[str]) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}") in targets
    except OSError:
        # The one that has listed the folder.
        return False


async def stop(service: HeartbeatClientService, port: int, low: float, high: float) -> None:
    """
    Stop it, and check how long that took, in seconds, and that nothing is left when it fires.
    """
    began = time.monotonic()
    await within(service.stopService(), high + SLACK + 1)
    took = time.monotonic() - began
    assert low * 0.95 <= took <= high + SLACK
    assert service.state == "stopped"
    assert service.link is None
    assert socketsOf(port) == []


class Arriving(KeptFactory):
    """
    @ivar arrived: fires when a connection is made.
    """

    def __init__(self) -> None:
        super().__init__()
        self.arrived: Deferred[None] = Deferred()

    def buildProtocol(self, addr: Any) -> Any:
        """
        Tell.
        """
        protocol = super().buildProtocol(addr)
        if not self.arrived.called:
            self.arrived.callback(None)
        return protocol


def portOf(protocol: Any) -> int:
    """
    The port that it is connected to.
    """
    port: int = protocol.transport.getPeer().port
    return port


def cancellable() -> Deferred[None]:
    """
    Never fires by itself.
    """
    return Deferred()


def stubborn() -> Deferred[None]:
    """
    Never fires, not even when it is cancelled.
    """
    return Deferred().addErrback(lambda _: Deferred())


ENDLESS = pytest.mark.parametrize("endless", [cancellable, stubborn], ids=lambda f: f.__name__)


# Before there is a link.


def fill(port: int, place: Loopback) -> None:
    """
    Connect until the kernel's accept queue is full, so that it drops the next SYN, listen(2).
    """
    for _ in range(8):
        connecting = socket.socket()
        place.atEnd(connecting.close)
        connecting.setblocking(False)
        connecting.connect_ex(("127.0.0.1", port))
        if not select.select([], [connecting], [], 0.1)[1]:
            return
    raise AssertionError("the kernel takes whatever comes")


@pytest_twisted.ensureDeferred
async def test_stopWhileConnecting(loopback: Loopback, hooks: Recorder) -> None:
    """
    While the kernel drops every SYN, C{stopService} fires at once, and the socket is closed.
    """
    port = loopback.deafPort(0)
    fill(port, loopback)
    inQueue = len(socketsOf(port))
    service = loopback.service(loopback.endpoint(port), KeptFactory(), hooks=hooks, limits=BOUNDED)
    await wait(0.1)
    assert service.state == "connecting"
    assert len(socketsOf(port)) == inQueue + 1
    began = time.monotonic()
    await within(service.stopService())
    assert time.monotonic() - began <= CLOSE + SLACK
    assert len(socketsOf(port)) == inQueue
    assert hooks.names == ["connecting"]


@pytest_twisted.ensureDeferred
async def test_stopDuringHandshake(secured: Loopback, hooks: Recorder) -> None:
    """
    While a TLS handshake hangs, C{stopService} fires within C{closeTimeout}; the link was never
    connected, and is cleaned up.
    """
    factory = Arriving()
    port = secured.deafPort(8)
    service = secured.service(secured.endpoint(port), factory, hooks=hooks, limits=BOUNDED)
    await within(factory.arrived)
    await wait(0.1)
    assert len(socketsOf(port)) == 1
    await stop(service, port, 0, CLOSE)
    assert hooks.names == ["connecting", "disconnected"]
    assert type(hooks.told("disconnected")[0]) is ClosedHere
    assert factory.built[0].losses == 1


@ENDLESS
@pytest_twisted.ensureDeferred
async def test_stopDuringPrepare(
    loopback: Loopback, hooks: Recorder, endless: Callable[[], Any]
) -> None:
    """
    While C{prepareConnection} does not end, even if it ignores being cancelled, and the peer does
    not read, C{stopService} fires within C{closeTimeout}; it was never connected.
    """
    factory, peers = KeptFactory(), Peers()
    preparing: Deferred[None] = Deferred()

    def prepare(protocol: Any) -> Deferred[None]:
        preparing.callback(None)
        return endless()

    port = loopback.listen(peers)
    service = loopback.service(
        loopback.endpoint(port), factory, hooks=hooks, limits=BOUNDED, prepareConnection=prepare
    )
    peer = await within(peers.accepted.get())
    await within(preparing)
    peer.transport.pauseProducing()
    factory.built[0].transport.write(bytes(20 * MB))
    await stop(service, port, 0, CLOSE)
    assert hooks.names == ["connecting", "disconnected"]
    assert factory.built[0].losses == 1
    peer.transport.abortConnection()
    await within(peer.lost)


# While there is one.


@pytest_twisted.ensureDeferred
async def test_stopOfSilentTLSPeer(secured: Loopback, hooks: Recorder) -> None:
    """
    A TLS peer that never answers C{close_notify} is waited for C{closeTimeout} seconds, and no
    longer.
    """
    factory = KeptFactory()
    service, peer = await connectedPair(secured, hooks, factory, limits=BOUNDED)
    peer.transport.pauseProducing()
    await stop(service, portOf(factory.built[0]), CLOSE, CLOSE)
    assert type(hooks.told("disconnected")[0]) is ClosedHere
    peer.transport.abortConnection()
    await within(peer.lost)


# Cleanups.


@ENDLESS
@pytest_twisted.ensureDeferred
async def test_stopWithEndlessCleanup(
    loopback: Loopback, hooks: Recorder, endless: Callable[[], Any]
) -> None:
    """
    20 MB queued for a peer that does not read, and a cleanup that never ends: C{closeTimeout} and
    C{cleanupTimeout} later C{stopService} fires, and the other cleanups have run.
    """
    factory = KeptFactory()
    service, peer = await connectedPair(loopback, hooks, factory, limits=BOUNDED)
    assert service.link is not None
    ran: list[str] = []
    service.link.addCleanup(ran.append, "added first")
    service.link.addCleanup(endless)
    service.link.addCleanup(ran.append, "added last")
    peer.transport.pauseProducing()
    factory.built[0].transport.write(bytes(20 * MB))
    await stop(service, portOf(factory.built[0]), CLOSE + CLEANUP, CLOSE + CLEANUP)
    assert ran == ["added last", "added first"]
    assert hooks.names == ["connecting", "connected", "disconnected"]
    peer.transport.abortConnection()
    await within(peer.lost)


@ENDLESS
@pytest_twisted.ensureDeferred
async def test_stopDuringCleanup(
    loopback: Loopback, hooks: Recorder, endless: Callable[[], Any]
) -> None:
    """
    While a cleanup of a link that was reset does not end, C{stopService} fires within
    C{cleanupTimeout}, and nothing is tried again.
    """
    factory = KeptFactory()
    service, peer = await connectedPair(loopback, hooks, factory, limits=BOUNDED)
    assert service.link is not None
    cleaning: Deferred[None] = Deferred()

    def cleanup() -> Any:
        cleaning.callback(None)
        return endless()

    service.link.addCleanup(cleanup)
    peer.transport.abortConnection()
    await within(cleaning)
    await stop(service, portOf(factory.built[0]), 0, CLEANUP)
    assert [type(cause) for cause in hooks.told("disconnected")] == [PeerReset]
    assert hooks.told("connecting") == [1]


# Between two links.


@pytest_twisted.ensureDeferred
async def test_stopWhileWaiting(plain: Loopback, hooks: Recorder) -> None:
    """
    While it waits a minute for the next attempt, C{stopService} fires at once.
    """
    with socket.socket() as reserved:
        # Bound and not listening: refused.
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        service = plain.service(
            plain.endpoint(port),
            KeptFactory(),
            hooks=hooks,
            limits=BOUNDED,
            retryPolicy=lambda attempt: 60.0,
        )
        await within(hooks.next("retrying"))
        assert service.state == "waiting"
        await stop(service, port, 0, 0)
    assert hooks.names == ["connecting", "retrying"]


# From inside of user code.


PLACES = [
    "connecting",
    "buildProtocol",
    "connectionMade",
    "prepareConnection",
    "connected",
    "ping",
    "suspected",
    "connectionLost",
    "disconnected",
    "cleanup",
    "retryPolicy",
    "retrying",
]
"""In the order in which a link to a silent peer comes past them."""


class Calling(Kept):
    """
    Calls out of each of its methods.
    """

    def connectionMade(self) -> None:
        """
        Call, and have something to clean up.
        """
        self.factory.called("connectionMade")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Call.
        """
        super().connectionLost(reason)
        self.factory.called("connectionLost")


class CallingFactory(KeptFactory):
    """
    Calls, too.
    """

    protocol = Calling

    def __init__(self, called: Callable[[str], object]) -> None:
        super().__init__()
        self.called = called

    def buildProtocol(self, addr: Any) -> Any:
        """
        Call.
        """
        self.called("buildProtocol")
        return super().buildProtocol(addr)


@pytest.mark.parametrize("place", PLACES)
@pytest_twisted.ensureDeferred
async def test_stopFromInside(loopback: Loopback, hooks: Recorder, place: str) -> None:
    """
    C{stopService} from inside of any hook, callback, ping or cleanup, of a link to a peer that
    never reads, fires in time; no socket is left and nothing is tried again.
    """
    stopping: Deferred[HeartbeatClientService] = Deferred()
    ended: list[float] = []
    attempts: list[int] = []

    def called(where: str) -> None:
        if where == place and not stopping.called:
            attempts.append(len(hooks.told("connecting")))
            stopping.callback(None)
            began = time.monotonic()
            stopped = service.stopService()
            stopped.addCallback(lambda _: ended.append(time.monotonic() - began))
            stopped.chainDeferred(done)

    def prepare(protocol: Any) -> None:
        protocol.link.addCleanup(called, "cleanup")
        called("prepareConnection")

    def ping(protocol: Any) -> None:
        called("ping")

    def policy(attempt: int) -> float:
        called("retryPolicy")
        return 0.0

    for hook in ("connecting", "connected", "suspected", "disconnected", "retrying"):
        hooks.then[hook] = lambda hook=hook: called(hook)
    done: Deferred[None] = Deferred()
    factory, peers = CallingFactory(called), Peers()
    port = loopback.listen(peers)
    service = HeartbeatClientService(
        loopback.endpoint(port),
        factory,
        policy,
        prepareConnection=prepare,
        heartbeat=Heartbeat(interval=0.1, timeout=0.1),
        limits=BOUNDED,
        hooks=hooks,
        ping=ping,
    )
    service.startService()
    await within(done)
    assert ended[0] <= CLOSE + CLEANUP + SLACK
    assert service.state == "stopped"
    if place == "buildProtocol":
        # Nothing was built, so it is Twisted that closes this one, in the reactor's next turns.
        for _ in range(3):
            await wait(0)
    assert socketsOf(port) == []
    assert len(hooks.told("connecting")) == max(1, attempts[0])
    links = [protocol for protocol in factory.built if protocol.transport is not None]
    assert [protocol.losses for protocol in links] == [1] * len(links)
    assert len(hooks.told("disconnected")) == len(links)
    if PLACES.index(place) > PLACES.index("suspected"):
        assert isinstance(hooks.told("disconnected")[0], PeerSilent)
