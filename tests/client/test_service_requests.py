# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What the user asks of L{HeartbeatClientService} at an unusual moment, and on unusual transports: it
does what the caller means.
"""

from __future__ import annotations

import gc
import os
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks
from twisted.internet.endpoints import (
    HostnameEndpoint,
    ProcessEndpoint,
    TCP4ClientEndpoint,
    UNIXClientEndpoint,
    UNIXServerEndpoint,
    clientFromString,
    serverFromString,
    wrapClientTLS,
)
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.logger import LogEvent, formatEvent

from twisted_heartbeat import (
    Backoff,
    ClosedHere,
    ConnectFailed,
    Heartbeat,
    HeartbeatClientService,
    HeartbeatProtocol,
    Limits,
    PeerClosed,
)

from ..support.loopback import Loopback, Peers, clientOptions, opened, serverOptions, wait, within
from ..support.virtualnetwork import FakeTransport, Kept, KeptFactory, Recorder
from .test_service import Scene, failureOf

# whenConnected.


def test_whenConnectedBeforeTheFirstStart() -> None:
    """
    One that waits before the first start is left alone by a stop, as by Twisted's service, and gets
    the first connection.
    """
    scene = Scene()
    waiting = scene.service.whenConnected(failAfterFailures=1)
    assert scene.service.stopService().called
    assert not waiting.called
    assert isinstance(failureOf(scene.service.whenConnected()), CancelledError)
    scene.startConnected()
    assert waiting.result is scene.factory.built[0]
    scene.stop()


def keptWhenCancelled(wait: Callable[[], Deferred[Any]]) -> object:
    """
    Wait, and cancel that.

    @return: what is waited for, if anything keeps it; else L{None}.
    """
    waiting = wait()
    waiting.addErrback(lambda failure: failure.trap(CancelledError) and None)
    waiting.cancel()
    kept = weakref.ref(waiting)
    del waiting
    gc.collect()
    return kept()


def test_cancelledWaiterIsLetGo() -> None:
    """
    A waiter that was cancelled is not kept, and nothing more is told to it.
    """
    scene = Scene()
    scene.service.startService()
    assert keptWhenCancelled(scene.service.whenConnected) is None
    scene.connect()
    scene.stop()


@pytest.mark.parametrize("end", ["connected", "failed", "stopped", "gave up"])
def test_waiterThatCancelsAnother(end: str) -> None:
    """
    A waiter whose callback cancels another one is no reason to raise.
    """
    scene = Scene(retryPolicy=Backoff(jitter=None, maxAttempts=1 if end == "gave up" else None))
    told: list[object] = []
    most = 1 if end == "failed" else None
    first, second = scene.service.whenConnected(most), scene.service.whenConnected(most)
    first.addBoth(lambda result: second.cancel())
    second.addBoth(told.append)
    scene.service.startService()
    if end == "connected":
        scene.connect()
    elif end == "stopped":
        scene.service.stopService()
        scene.turn()
    else:
        scene.attempts[0].fail(ConnectionRefusedError())
    assert len(told) == 1
    scene.stop()


def test_cancelledWhenDisconnectedIsLetGo() -> None:
    """
    The same for one who waits for the end of a link.
    """
    scene = Scene()
    transport = scene.startConnected()
    assert keptWhenCancelled(scene.service.whenDisconnected) is None
    transport.lose()
    scene.stop()


# prepareConnection.


@pytest.mark.parametrize("ignoresCancel", [False, True])
def test_preparationIsBounded(ignoresCancel: bool) -> None:
    """
    C{prepareConnection} has C{connectTimeout}; then the link is closed and tried again, even if the
    preparation ignores being cancelled.
    """
    cancelled: list[object] = []

    async def prepare() -> None:
        try:
            await Deferred(cancelled.append)
        except CancelledError:
            if ignoresCancel:
                await Deferred()
            raise

    scene = Scene(prepareConnection=lambda protocol: prepare(), limits=Limits(connectTimeout=4))
    failed = scene.service.whenConnected(failAfterFailures=1)
    scene.startConnected()
    scene.wait(3.875)
    assert scene.service.state == "preparing"
    scene.wait(0.25)
    error = failureOf(failed)
    assert type(error) is ConnectFailed
    assert str(error) == "prepareConnection did not finish within 4 s"
    assert len(cancelled) == 1
    assert scene.network.openTransports == []
    scene.wait(1)
    assert len(scene.attempts) == 2
    scene.stop()


def test_preparationInTime() -> None:
    """
    One that ends in time leaves no timer, and without a limit there is none.
    """
    for limits in (Limits(connectTimeout=4), None):
        prepared: Deferred[None] = Deferred()
        scene = Scene(prepareConnection=lambda protocol, d=prepared: d, limits=limits)
        scene.startConnected()
        scene.wait(3.5)
        prepared.callback(None)
        assert scene.service.state == "connected"
        assert scene.clock.getDelayedCalls() == []
        scene.stop()


# startService, reconnectNow.


def test_startAfterGivingUp() -> None:
    """
    C{startService} after giving up begins anew, and again with all its attempts.
    """
    scene = Scene(retryPolicy=Backoff(initial=1, jitter=None, spread=0, maxAttempts=2))
    scene.service.startService()
    for number in range(1, 5):
        scene.attempts[-1].fail(ConnectionRefusedError())
        if number == 2:
            assert scene.service.state == "gaveUp"
            scene.service.startService()
            assert scene.service.running
        scene.wait(2)
    assert scene.service.state == "gaveUp"
    assert scene.hooks.told("connecting") == [1, 2, 1, 2]
    scene.service.startService()
    waiting = scene.service.whenConnected()
    scene.connect()
    assert waiting.result is scene.factory.built[0]
    scene.stop()


@pytest.mark.parametrize("answered", [False, True], ids=["connecting", "preparing"])
def test_reconnectNowDuringAHungAttempt(answered: bool) -> None:
    """
    C{reconnectNow} replaces an attempt that has had no answer for a second, or a preparation that
    takes longer than that: without a wait, and without its being a failure.
    """
    scene = Scene(prepareConnection=lambda protocol: Deferred())
    patient = scene.service.whenConnected(failAfterFailures=1)
    scene.service.startService()
    if answered:
        scene.connect()
    scene.wait(0.5)
    scene.service.reconnectNow()
    assert len(scene.attempts) == 1
    scene.wait(0.5)
    scene.service.reconnectNow()
    scene.turn()
    assert scene.service.state == "connecting"
    assert len(scene.attempts) == 2
    assert scene.attempts[0].cancelled is not answered
    assert scene.network.openTransports == []
    assert not patient.called
    assert scene.hooks.told("retrying") == []
    assert scene.hooks.told("connecting") == [1, 1]
    scene.service.reconnectNow()
    assert len(scene.attempts) == 2
    scene.stop()
    failureOf(patient)


def test_reconnectNowWithALink() -> None:
    """
    While there is a link, C{reconnectNow} leaves it alone, however old it is.
    """
    scene = Scene()
    transport = scene.startConnected()
    scene.wait(20)
    scene.service.reconnectNow()
    scene.turn()
    assert transport.open
    assert scene.service.state == "connected"
    scene.stop()


# stopService in the disconnected hook.


def stopsAtOnce(scene: Scene) -> object:
    return scene.service.stopService()


def stopsInACoroutine(scene: Scene) -> object:
    async def stop() -> None:
        await scene.service.stopService()

    return stop()


def stopsAfterAWait(scene: Scene) -> object:
    async def stop() -> None:
        await deferLater(scene.clock, 1, lambda: None)
        await scene.service.stopService()

    return stop()


def stopsInAGenerator(scene: Scene) -> object:
    @inlineCallbacks
    def stop() -> Any:
        yield deferLater(scene.clock, 1, lambda: None)
        yield scene.service.stopService()

    return stop()


WAYS: list[Callable[[Scene], object]] = [
    stopsAtOnce,
    stopsInACoroutine,
    stopsAfterAWait,
    stopsInAGenerator,
]


@pytest.mark.parametrize("limits", [Limits(), None], ids=["limits", "no limits"])
@pytest.mark.parametrize("place", ["hook", "cleanup"])
@pytest.mark.parametrize("way", WAYS)
def test_stopFromItsOwnCleanup(
    way: Callable[[Scene], object], place: str, limits: Limits | None
) -> None:
    """
    A C{disconnected} hook or a cleanup that awaits C{stopService} goes on, and the service stops; a
    stop from elsewhere still waits for the hook.
    """
    scene = Scene(limits=limits)
    transport = scene.startConnected()
    ended: list[object] = []

    async def stop() -> None:
        await Deferred.fromCoroutine(wait())
        ended.append("asked")

    async def wait() -> None:
        result: Any = way(scene)
        await (result if isinstance(result, Deferred) else Deferred.fromCoroutine(result))

    if place == "hook":
        scene.hooks.then["disconnected"] = stop
    else:
        assert scene.service.link is not None
        scene.service.link.addCleanup(stop)
    transport.lose()
    scene.service.stopService().addCallback(lambda _: ended.append("elsewhere"))
    scene.wait(1.25)
    assert ended == ["asked", "elsewhere"]
    scene.assertNothingLeft()


def test_stopInTheCleanupOfAnotherService() -> None:
    """
    A hook that stops another service waits for it.
    """
    scene, other = Scene(), Scene()
    transport = scene.startConnected()
    busy = other.startConnected()
    busy.stuck = True
    stopped: list[object] = []

    async def stopOther() -> None:
        await other.service.stopService()
        stopped.append("other")

    scene.hooks.then["disconnected"] = stopOther
    transport.lose()
    scene.turn()
    assert stopped == []
    busy.lose()
    other.turn()
    assert stopped == ["other"]
    scene.hooks.then.clear()
    scene.stop()


# Transports without an address.


class Nameless(FakeTransport):
    """
    The transport of a child process.
    """

    def getPeer(self) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize("prepared", [True, False])
def test_transportWithoutAPeer(
    prepared: bool, monkeypatch: pytest.MonkeyPatch, events: list[LogEvent]
) -> None:
    """
    A transport that has no peer's address is used like any: the service connects, logs without it,
    and retries when the connection has ended.
    """
    monkeypatch.setattr("tests.support.virtualnetwork.FakeTransport", Nameless)
    scene = Scene(name="child", prepareConnection=(lambda protocol: None) if prepared else None)
    transport = scene.startConnected()
    link = scene.service.link
    assert link is not None
    assert link.peer is None
    assert repr(link) == "<Link 1 to a peer alive>"
    transport.lose()
    scene.wait(1)
    scene.connect()
    lines = [formatEvent(event) for event in events if event.get("event")]
    assert lines[1] == "child: connected, without pings [generation 1]"
    assert not any("None" in line for line in lines)
    scene.stop()


# What the log says.


def test_retryingSaysWhen(events: list[LogEvent]) -> None:
    """
    The line of C{retrying} says in how many seconds.
    """
    scene = Scene(name="sensor", retryPolicy=lambda attempt: 2.5)
    scene.service.startService()
    scene.attempts[0].fail(ConnectionRefusedError())
    [line] = [formatEvent(event) for event in events if event.get("event") == "retrying"]
    assert line.startswith("sensor: retrying in 2.5 s, ConnectFailed: ")
    scene.stop()


def test_namesTellServicesApart() -> None:
    """
    A service without a name of its own is called by its protocol and where its endpoints lead to,
    as far as these say.
    """
    from twisted.internet import reactor

    host = HostnameEndpoint(reactor, "hub.example", 7000)
    address = TCP4ClientEndpoint(reactor, "192.0.2.1", 7001)
    named = [
        (host, "Kept to hub.example:7000"),
        (address, "Kept to 192.0.2.1:7001"),
        (wrapClientTLS(clientOptions(), host), "Kept to hub.example:7000"),
        (UNIXClientEndpoint(reactor, "/run/hub"), "Kept to /run/hub"),
        ([host, address], "Kept to hub.example:7000, 192.0.2.1:7001"),
        (Scene().endpoints[0], "Kept"),
    ]
    for endpoint, name in named:
        service = HeartbeatClientService(endpoint, KeptFactory())
        assert service._settings["name"] == name
    assert HeartbeatClientService(host, KeptFactory(), name="mine")._settings["name"] == "mine"


CHILD = "import time; print('hello', flush=True); time.sleep(0.1)"


@pytest_twisted.ensureDeferred
async def test_childProcesses(plain: Loopback) -> None:
    """
    A service whose endpoint runs a child process runs it anew when it has ended.
    """
    from twisted.internet import reactor

    hooks, factory = Recorder(), KeptFactory()
    command = [sys.executable, "-S", "-u", "-c", CHILD]
    endpoint = ProcessEndpoint(reactor, sys.executable, command, env=None)
    service = plain.service(endpoint, factory, hooks=hooks)
    assert await within(service.whenConnected()) is factory.built[0]
    for _ in range(2):
        await within(hooks.next("disconnected"))
        await within(hooks.next("connected"))
    assert service._settings["name"] == f"Kept to {sys.executable}"
    await within(service.stopService())
    assert factory.built[0].received == b"hello\n"


HUNG = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"


@pytest_twisted.ensureDeferred
async def test_hungChildIsKilled(plain: Loopback) -> None:
    """
    A child process that says nothing, and does not see that its pipes are closed, is gone after the
    verdict: otherwise each retry would leave another one.
    """
    from twisted.internet import reactor

    hooks, factory = Recorder(), KeptFactory()
    command = [sys.executable, "-S", "-u", "-c", HUNG]
    endpoint = ProcessEndpoint(reactor, sys.executable, command, env=None)
    passive = Heartbeat(interval=None, timeout=2.0)
    service = plain.service(endpoint, factory, hooks=hooks, heartbeat=passive)
    await within(service.whenConnected())
    await within(hooks.next("disconnected"))
    pid = int(factory.built[0].received)
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            break
        await wait(0.02)
    else:
        pytest.fail("the child process is still there")
    await within(service.stopService())


# Who has closed a connection.


@pytest.fixture
def plain() -> Iterator[Loopback]:
    """
    Plain TCP.
    """
    with opened(secured=False) as loopback:
        yield loopback


WAYS_TO_CONNECT = [
    "plain",
    "TLS",
    "STARTTLS",
    "UNIX",
    "STARTTLS over UNIX",
    "tunnel",
    "STARTTLS in a tunnel",
]


@pytest.mark.parametrize("protocol", [Kept, HeartbeatProtocol])
@pytest.mark.parametrize("closer", ["peer", "here"])
@pytest.mark.parametrize("way", WAYS_TO_CONNECT)
@pytest_twisted.ensureDeferred
async def test_whoHasClosed(
    way: str, closer: str, protocol: Any, plain: Loopback, tmp_path: Path
) -> None:
    """
    A connection that the peer closes ends with C{PeerClosed}, and one that this side's protocol
    closes with C{ClosedHere}: over TCP, TLS, and where TLS was started under way, too.
    """
    from twisted.internet import reactor

    hooks, peers = Recorder(), Peers()
    client = type("Client", (protocol,), {"dataReceived": lambda self, data: None})
    path = str(tmp_path / "socket")
    if "UNIX" in way:
        port = await UNIXServerEndpoint(reactor, path).listen(peers)
        plain.atEnd(port.stopListening)
        endpoint: Any = UNIXClientEndpoint(reactor, path)
    elif "tunnel" in way:
        string = "heartbeat:tcp:0:interface=127.0.0.1"
        port = await serverFromString(reactor, string).listen(peers)
        plain.atEnd(port.stopListening)
        there = f"heartbeat:tcp:127.0.0.1:{port.getHost().port}"
        endpoint = clientFromString(reactor, there)
    else:
        plain.secured = way == "TLS"
        endpoint = plain.endpoint(plain.listen(peers))
    connected, accepted = hooks.next("connected"), peers.accepted.get()
    service = plain.service(endpoint, Factory.forProtocol(client), hooks=hooks)
    link = await within(connected)
    peer = await within(accepted)
    if protocol is HeartbeatProtocol:
        # Its hello, which must not be taken for TLS.
        await within(peer.heard.get())
    if way.startswith("STARTTLS"):
        secured = peers.accepted.get()
        peer.transport.startTLS(serverOptions())
        link.protocol.transport.startTLS(clientOptions(), normal=True)
        link.protocol.transport.write(b"secret")
        await within(secured)
        while b"secret" not in await within(peer.heard.get()):
            pass
        assert ISSLTransport.providedBy(link.protocol.transport)
    ended = hooks.next("disconnected")
    transport = peer.transport if closer == "peer" else link.protocol.transport
    transport.loseConnection()
    cause = await within(ended)
    assert type(cause) is (PeerClosed if closer == "peer" else ClosedHere)
    await within(service.stopService())
