# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Link} on real loopback sockets, plain and TLS: which cause, when, with which evidence; and that
what is no silence of the peer's is not held against it.
"""

from __future__ import annotations

import errno
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_heartbeat import (
    ClosedHere,
    HandshakeFailed,
    Heartbeat,
    HeartbeatProtocol,
    Limits,
    Link,
    PeerClosed,
    PeerHung,
    PeerReset,
    PeerSilent,
    SendFailed,
    SendStalled,
)
from twisted_heartbeat.core import wire
from twisted_heartbeat.transport.compat import disconnectSelectable
from twisted_heartbeat.transport.connection import ObservedConnection
from twisted_heartbeat.transport.tcpinfo import readEvidence

from ..support.loopback import QUICK, Loopback, Peers, connectedPair, wait, within
from ..support.virtualnetwork import Kept, KeptFactory, Recorder

onLinux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux tells what its kernel knows"
)

BOUND = QUICK.bound
MB = 1024 * 1024


@pytest.fixture
def hooks() -> Recorder:
    """
    What is told.
    """
    return Recorder()


def quiet(protocol: Any) -> None:
    """
    A ping that the peer does not answer.
    """
    protocol.transport.write(b"?")


# Causes.


@pytest_twisted.ensureDeferred
async def test_peerReset(loopback: Loopback, hooks: Recorder) -> None:
    """
    A reset by the peer is C{PeerReset}, with its errno, over TLS too, for the hook and for the
    protocol, whose C{check(ConnectionLost)} holds (promise 11).
    """
    factory = KeptFactory()
    _, peer = await connectedPair(loopback, hooks, factory)
    ended = hooks.next("disconnected")
    peer.transport.abortConnection()
    cause = await within(ended)
    assert type(cause) is PeerReset
    assert f"[errno {errno.ECONNRESET}]" in str(cause)
    reason = factory.built[0].reason
    assert reason.value is cause
    assert reason.check(ConnectionLost)
    assert factory.built[0].losses == 1


@pytest_twisted.ensureDeferred
async def test_peerClosed(loopback: Loopback, hooks: Recorder) -> None:
    """
    A close by the peer is C{PeerClosed}, for the hook and for the protocol, whose
    C{check(ConnectionDone)} holds.
    """
    factory = KeptFactory()
    _, peer = await connectedPair(loopback, hooks, factory)
    ended = hooks.next("disconnected")
    peer.transport.loseConnection()
    cause = await within(ended)
    assert type(cause) is PeerClosed
    assert factory.built[0].reason.value is cause
    assert factory.built[0].reason.check(ConnectionDone)


@pytest.mark.parametrize("how", ["stopService", "link.close", "loseConnection", "abortConnection"])
@pytest_twisted.ensureDeferred
async def test_closedHere(loopback: Loopback, hooks: Recorder, how: str) -> None:
    """
    Whatever way this side closes, the cause is C{ClosedHere}.
    """
    factory = KeptFactory()
    service, _ = await connectedPair(loopback, hooks, factory)
    ended = hooks.next("disconnected")
    if how == "stopService":
        await within(service.stopService())
    elif how == "link.close":
        assert service.link is not None
        gone = service.link.close()
        assert service.link.state == "closing"
        assert isinstance(await within(gone), ClosedHere)
    else:
        getattr(factory.built[0].transport, how)()
    assert type(await within(ended)) is ClosedHere
    assert factory.built[0].losses == 1


@pytest_twisted.ensureDeferred
async def test_bothAbort(plain: Loopback, hooks: Recorder) -> None:
    """
    Where the protocol aborts after the peer's reset has come, its reason is Twisted's own
    C{ConnectionAborted}, and the hook is told of the reset.
    """
    factory = KeptFactory()
    _, peer = await connectedPair(plain, hooks, factory)
    ended = hooks.next("disconnected")
    # Both are carried out in the next turn, in this order.
    peer.transport.abortConnection()
    factory.built[0].transport.abortConnection()
    assert type(await within(ended)) is PeerReset
    assert factory.built[0].reason.type is ConnectionAborted


@pytest_twisted.ensureDeferred
async def test_protocolRaises(loopback: Loopback, hooks: Recorder, loggedErrors: Any) -> None:
    """
    A protocol that raises in C{dataReceived} ends its link, with what it raised as the cause's
    cause, and is replaced.
    """

    class Raising(Kept):
        def dataReceived(self, data: bytes) -> None:
            raise ZeroDivisionError("in user code")

    factory = KeptFactory()
    factory.protocol = Raising
    _, peer = await connectedPair(loopback, hooks, factory)
    ended, again = hooks.next("disconnected"), hooks.next("connected")
    peer.transport.write(b"hello")
    cause = await within(ended)
    assert type(cause) is ClosedHere
    assert "ZeroDivisionError" in str(cause)
    assert isinstance(cause.__cause__, ZeroDivisionError)
    await within(again)
    loggedErrors.flush(ZeroDivisionError)


@pytest_twisted.ensureDeferred
async def test_firstCauseWins(plain: Loopback, hooks: Recorder) -> None:
    """
    The first cause is kept, and a later one is chained to it (promise 8).
    """
    service, _ = await connectedPair(plain, hooks, KeptFactory())
    ended = hooks.next("disconnected")
    link = service.link
    assert link is not None
    first, second = SendFailed("first"), PeerSilent("second")
    link.abort(first)
    link.abort(second)
    assert await within(ended) is first
    assert first.__cause__ is second
    assert link.cause is first


@onLinux
@pytest.mark.parametrize("end", ["abortConnection", "loseConnection"])
@pytest_twisted.ensureDeferred
async def test_evidenceAtLoss(loopback: Loopback, hooks: Recorder, end: str) -> None:
    """
    On Linux each cause carries what the kernel knew when the link was lost.
    """
    _, peer = await connectedPair(loopback, hooks, KeptFactory())
    peer.transport.write(b"hello")
    ended = hooks.next("disconnected")
    getattr(peer.transport, end)()
    evidence = (await within(ended)).evidence
    assert evidence is not None
    assert 0 <= evidence.sinceData < 5
    assert 0 <= evidence.sinceAck < 5
    assert evidence.retransmits == 0
    assert evidence.simultaneousVerdicts == 1


# Silence.


@pytest_twisted.ensureDeferred
async def test_silentPeer(loopback: Loopback, hooks: Recorder) -> None:
    """
    A peer whose kernel answers and whose process does not is C{PeerHung} (C{PeerSilent} where the
    kernel tells nothing), within the bound and not before it, and is replaced (promise 3).
    """
    factory = Factory.forProtocol(HeartbeatProtocol)
    service, _ = await connectedPair(loopback, hooks, factory, heartbeat=QUICK)
    link = service.link
    assert link is not None
    heardAt = link.peerWatch.detector.heardAt
    ended, again = hooks.next("disconnected"), hooks.next("connected")
    cause = await within(ended)
    took = time.monotonic() - heardAt
    assert type(cause) is (PeerHung if sys.platform.startswith("linux") else PeerSilent)
    assert 0.95 * BOUND <= took <= BOUND + 1
    assert hooks.names[1:4] == ["connected", "suspected", "disconnected"]
    if cause.evidence is not None:
        assert cause.evidence.kernelAnswers
    assert (await within(again)).generation == 2


@pytest_twisted.ensureDeferred
async def test_lateAcknowledgementIsNoRecovery(
    plain: Loopback, hooks: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Where the peer's kernel takes its time to acknowledge, as over a long way, a ping that is on its
    way is no ping that waits: a hung peer is pinged twice, suspected once, never recovered, and
    found within the bound (promises 2 and 3).
    """
    acknowledgeLate(monkeypatch, 0.06)
    factory = Factory.forProtocol(HeartbeatProtocol)
    service, peer = await connectedPair(plain, hooks, factory, heartbeat=QUICK)
    assert service.link is not None
    heardAt = service.link.peerWatch.detector.heardAt
    await within(hooks.next("disconnected"))
    assert time.monotonic() - heardAt <= BOUND + 1
    assert hooks.names[:4] == ["connecting", "connected", "suspected", "disconnected"]
    frames = list(wire.FrameReader().receive(peer.received))
    assert [type(frame) for frame in frames] == [wire.Hello, wire.Ping, wire.Ping]


def acknowledgeLate(monkeypatch: pytest.MonkeyPatch, delay: float) -> None:
    """
    As if the peer's kernel were so many seconds away.
    """
    history: list[tuple[float, int]] = []
    send = ObservedConnection.writeSomeData
    writeDirect = ObservedConnection.writeDirectUnchecked

    def writeSomeData(self: ObservedConnection, data: bytes) -> Any:
        size = send(self, data)
        history.append((time.monotonic(), self.bytesSent))
        return size

    def sentNow(self: ObservedConnection, data: bytes) -> None:
        writeDirect(self, data)
        history.append((time.monotonic(), self.bytesSent))

    def delivered(self: ObservedConnection) -> int:
        arrived = time.monotonic() - delay
        return max((sent for sentAt, sent in history if sentAt <= arrived), default=0)

    def lateEvidence(*arguments: Any) -> Any:
        evidence = readEvidence(*arguments)
        if evidence is None or evidence.sinceAck is None:
            return evidence
        return replace(evidence, sinceAck=max(0.0, evidence.sinceAck - delay))

    monkeypatch.setattr("twisted_heartbeat.link.silence.readEvidence", lateEvidence)
    monkeypatch.setattr(ObservedConnection, "writeSomeData", writeSomeData)
    monkeypatch.setattr(ObservedConnection, "writeDirectUnchecked", sentNow)
    monkeypatch.setattr(ObservedConnection, "bytesAcked", delivered)


@pytest_twisted.ensureDeferred
async def test_answeringPeer(loopback: Loopback, hooks: Recorder) -> None:
    """
    Two ends of the built-in protocol keep each other alive, measure the round trip, and say nothing
    of it to the hooks.
    """
    server = Factory.forProtocol(HeartbeatProtocol)
    endpoint = loopback.endpoint(loopback.listen(server))
    connected = hooks.next("connected")
    client = Factory.forProtocol(HeartbeatProtocol)
    service = loopback.service(endpoint, client, hooks=hooks, heartbeat=QUICK)
    link = await within(connected)
    await wait(3 * BOUND)
    assert hooks.names == ["connecting", "connected"]
    assert link.hasReceivedData
    assert 0 < link.rtt < BOUND
    assert link.silence < BOUND
    assert service.link is link


@pytest_twisted.ensureDeferred
async def test_pingOfAnyKind(loopback: Loopback, hooks: Recorder) -> None:
    """
    A peer that answers whatever it is asked by C{ping} is alive, whatever it answers.
    """
    service, peer = await connectedPair(loopback, hooks, KeptFactory(), heartbeat=QUICK, ping=quiet)
    for _ in range(3):
        assert await within(peer.heard.get()) == b"?"
        peer.transport.write(b"what?")
    assert hooks.names == ["connecting", "connected"]
    assert service.link is not None


@pytest_twisted.ensureDeferred
async def test_noPingWhileTrafficIsFresh(loopback: Loopback, hooks: Recorder) -> None:
    """
    A peer that speaks by itself is never pinged (promise 2).
    """
    # A busy machine may keep the peer's words from us for longer than the interval of others.
    patient = Heartbeat(interval=0.6, timeout=0.2)
    _, peer = await connectedPair(loopback, hooks, KeptFactory(), heartbeat=patient, ping=quiet)
    for _ in range(16):
        peer.transport.write(b"x")
        await wait(0.05)
    assert peer.received == b""


@pytest.mark.parametrize("sends", ["by the transport", "by the link"])
@pytest_twisted.ensureDeferred
async def test_ownWritesAreNoLife(plain: Loopback, hooks: Recorder, sends: str) -> None:
    """
    What is sent, and acknowledged by the peer's kernel, proves nothing (promise 1).
    """
    factory = KeptFactory()
    service, _ = await connectedPair(plain, hooks, factory, heartbeat=QUICK, ping=quiet)
    link = service.link
    assert link is not None
    heardAt = link.peerWatch.detector.heardAt
    ended = hooks.next("disconnected")
    for _ in range(40):
        if ended.called:
            break
        if sends == "by the link":
            link.send(b"data").addErrback(lambda _: None)
        else:
            factory.built[0].transport.write(b"data")
        await wait(0.025)
    # Otherwise the verdict would come a bound after the last write.
    assert ended.called
    assert isinstance(await within(ended), PeerSilent)
    assert time.monotonic() - heardAt <= BOUND + 1


@pytest.mark.parametrize("speaks", [True, False])
@pytest_twisted.ensureDeferred
async def test_passive(loopback: Loopback, hooks: Recorder, speaks: bool) -> None:
    """
    With C{interval=None} nothing is sent: a peer that is known to speak by itself is dead once it
    has not for C{timeout} seconds.
    """
    heartbeat = Heartbeat(interval=None, timeout=0.4)
    service, peer = await connectedPair(loopback, hooks, KeptFactory(), heartbeat=heartbeat)
    link = service.link
    assert link is not None
    assert link.watch == "passive"
    ended = hooks.next("disconnected")
    if speaks:
        for _ in range(12):
            peer.transport.write(b"x")
            await wait(0.1)
        assert not ended.called
    heardAt = link.peerWatch.detector.heardAt
    assert isinstance(await within(ended), PeerSilent)
    assert 0.95 * 0.4 <= time.monotonic() - heardAt <= 0.4 + 1
    assert peer.received == b""


@pytest_twisted.ensureDeferred
async def test_phantomConnection(plain: Loopback, hooks: Recorder) -> None:
    """
    A connection that the peer's kernel has completed and its process never accepts is found within
    the bound (promise 13).
    """
    endpoint = plain.endpoint(plain.deafPort(backlog=8))
    connected = hooks.next("connected")
    service = plain.service(
        endpoint, Factory.forProtocol(HeartbeatProtocol), hooks=hooks, heartbeat=QUICK
    )
    link = await within(connected)
    began = link.peerWatch.detector.heardAt
    cause = await within(hooks.next("disconnected"))
    assert isinstance(cause, PeerSilent)
    assert 0.95 * BOUND <= time.monotonic() - began <= BOUND + 1
    assert not link.hasReceivedData
    await within(service.stopService())


@pytest_twisted.ensureDeferred
async def test_pausedReadingIsNoSilence(loopback: Loopback, hooks: Recorder) -> None:
    """
    While this side has paused reading the peer can not be heard, and is not declared dead; after
    that it has its time anew (promise 6).
    """
    factory = KeptFactory()
    _, peer = await connectedPair(loopback, hooks, factory, heartbeat=QUICK, ping=quiet)
    transport = factory.built[0].transport
    transport.pauseProducing()
    peer.transport.write(b"are you there?")
    await wait(3 * BOUND)
    assert "disconnected" not in hooks.names
    transport.resumeProducing()
    resumedAt = time.monotonic()
    while factory.built[0].received != b"are you there?":
        await wait(0.01)
        assert time.monotonic() < resumedAt + 1
    cause = await within(hooks.next("disconnected"))
    assert isinstance(cause, PeerSilent)
    assert time.monotonic() - resumedAt >= 0.95 * BOUND


@pytest_twisted.ensureDeferred
async def test_pausedReadingIsNoSuspicion(loopback: Loopback, hooks: Recorder) -> None:
    """
    A peer that is watched passively is not suspected while this side has paused reading.
    """
    factory, passive = KeptFactory(), Heartbeat(interval=None, timeout=BOUND)
    await connectedPair(loopback, hooks, factory, heartbeat=passive)
    transport = factory.built[0].transport
    transport.pauseProducing()
    await wait(1.5 * BOUND)
    assert "suspected" not in hooks.names
    transport.resumeProducing()
    await within(hooks.next("disconnected"))
    assert "suspected" in hooks.names


@implementer(IHalfCloseableProtocol)
class HalfCloseable(Kept):
    """
    Goes on after the peer has closed its half.
    """

    halfClosed: Deferred[None]

    def __init__(self) -> None:
        super().__init__()
        self.halfClosed = Deferred()

    def readConnectionLost(self) -> None:
        """
        The peer will say no more.
        """
        self.halfClosed.callback(None)

    def writeConnectionLost(self) -> None:
        """
        Not used.
        """


@pytest.mark.parametrize("kind", [Kept, HalfCloseable])
@pytest_twisted.ensureDeferred
async def test_resetTakenForAFin(plain: Loopback, hooks: Recorder, kind: type[Kept]) -> None:
    """
    A reset that the reactor takes for a FIN, because Linux shows the error before the end, is
    C{PeerReset} for the hook and for the protocol.
    """
    from twisted.internet import reactor

    factory = KeptFactory()
    factory.protocol = kind
    service, peer = await connectedPair(plain, hooks, factory)
    ended = hooks.next("disconnected")
    assert service.link is not None
    peer.transport.abortConnection()
    # Right after that is carried out, and before the reactor polls.
    lost = (reactor, service.link.transport, CONNECTION_DONE)
    reactor.callLater(0, disconnectSelectable, *lost)  # type: ignore[attr-defined]
    cause = await within(ended)
    assert type(cause) is PeerReset
    assert factory.built[0].reason.value is cause
    assert kind is Kept or not factory.built[0].halfClosed.called


@pytest_twisted.ensureDeferred
async def test_halfClosedPeer(plain: Loopback, hooks: Recorder) -> None:
    """
    A peer that has closed its half will never speak again, and is not declared dead for that.
    """
    factory = KeptFactory()
    factory.protocol = HalfCloseable
    service, peer = await connectedPair(plain, hooks, factory, heartbeat=QUICK, ping=quiet)
    peer.transport.loseWriteConnection()
    await within(factory.built[0].halfClosed)
    await wait(3 * BOUND)
    assert "disconnected" not in hooks.names
    assert service.link is not None
    assert service.link.state == "alive"
    factory.built[0].transport.write(b"still here")
    while b"still here" not in peer.received:
        await within(peer.heard.get())


# TLS.


@pytest_twisted.ensureDeferred
async def test_hangingHandshake(secured: Loopback, hooks: Recorder) -> None:
    """
    A TLS handshake that hangs ends within C{connectTimeout} as C{HandshakeFailed}; it was never
    connected.
    """
    peers = Peers()
    endpoint = secured.endpoint(secured.listen(peers, secured=False))
    began = time.monotonic()
    service = secured.service(
        endpoint, KeptFactory(), hooks=hooks, limits=Limits(connectTimeout=0.3)
    )
    failed = service.whenConnected(failAfterFailures=1)
    retry = await within(hooks.next("retrying"))
    assert type(retry.cause) is HandshakeFailed
    assert 0.95 * 0.3 <= time.monotonic() - began <= 0.3 + 1
    assert "connected" not in hooks.names
    with pytest.raises(HandshakeFailed):
        await failed
    peer = await within(peers.accepted.get())
    await within(peer.lost)


@pytest.mark.parametrize("fault", ["name", "authority"])
@pytest_twisted.ensureDeferred
async def test_wrongCertificate(
    secured: Loopback, hooks: Recorder, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A certificate for another name, or of an unknown authority, is C{HandshakeFailed}, is never
    connected, and backs off (promises 13 and 18).
    """
    port = secured.listen(Peers())
    if fault == "name":
        endpoint = secured.endpoint(port, name="other.example")
    else:
        endpoint = strangersEndpoint(secured, port, monkeypatch)
    factory = KeptFactory()
    service = secured.service(endpoint, factory, hooks=hooks)
    first = await within(hooks.next("retrying"))
    second = await within(hooks.next("retrying"))
    assert type(first.cause) is type(second.cause) is HandshakeFailed
    assert (first.attempt, second.attempt) == (1, 2)
    assert "connected" not in hooks.names
    assert service.state != "connected"
    assert factory.built[0].losses == 1


def strangersEndpoint(place: Loopback, port: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    """
    An endpoint that trusts another authority than the server's.
    """
    import trustme

    from ..support import loopback as module

    stranger = trustme.CA()
    monkeypatch.setattr(module, "authority", lambda: stranger)
    return place.endpoint(port)


@pytest_twisted.ensureDeferred
async def test_connectedMeansHandshaken(secured: Loopback, hooks: Recorder) -> None:
    """
    Over TLS, C{connected} and C{prepareConnection} come after the handshake, not after TCP's.
    """
    states: list[str] = []

    def prepare(protocol: Any) -> None:
        states.append(protocol.link.state)
        assert protocol.transport.getPeerCertificate() is not None

    await connectedPair(secured, hooks, KeptFactory(), prepareConnection=prepare)
    assert states == ["alive"]


# Sending.


@pytest_twisted.ensureDeferred
async def test_stopWithFullBuffer(loopback: Loopback, hooks: Recorder) -> None:
    """
    C{stopService} fires within C{closeTimeout} even if 20 MB wait for a peer that does not read
    (promise 9).
    """
    factory = KeptFactory()
    service, peer = await connectedPair(
        loopback, hooks, factory, limits=Limits(closeTimeout=0.5, maxBuffered=None)
    )
    peer.transport.pauseProducing()
    factory.built[0].transport.write(bytes(20 * MB))
    await wait(0.05)
    began = time.monotonic()
    await within(service.stopService())
    assert 0.95 * 0.5 <= time.monotonic() - began <= 0.5 + 1
    assert type(hooks.told("disconnected")[0]) is ClosedHere
    peer.transport.abortConnection()
    await within(peer.lost)


@pytest_twisted.ensureDeferred
async def test_sendStalled(loopback: Loopback, hooks: Recorder) -> None:
    """
    A send buffer that makes no progress for C{sendStall} seconds is C{SendStalled}; the socket is
    closed and the link replaced, without any ping (promise 6).
    """
    factory = KeptFactory()
    _, peer = await connectedPair(loopback, hooks, factory, limits=Limits(sendStall=0.5))
    peer.transport.pauseProducing()
    ended, again = hooks.next("disconnected"), hooks.next("connected")
    began = time.monotonic()
    factory.built[0].transport.write(bytes(20 * MB))
    cause = await within(ended)
    assert type(cause) is SendStalled
    assert 0.95 * 0.5 <= time.monotonic() - began <= 0.5 + 2
    await within(again)
    peer.transport.abortConnection()
    await within(peer.lost)


@pytest_twisted.ensureDeferred
async def test_slowReaderIsNoStall(loopback: Loopback, hooks: Recorder) -> None:
    """
    A peer that reads slowly, but reads, is neither stalled nor silent: the ping waits behind bulk
    data that drains (promise 6).
    """
    factory = KeptFactory()
    _, peer = await connectedPair(
        loopback,
        hooks,
        factory,
        heartbeat=QUICK,
        ping=quiet,
        limits=Limits(sendStall=0.5, maxBuffered=None),
        window=32 * 1024,
    )
    peer.transport.pauseProducing()
    factory.built[0].transport.write(bytes(24 * MB))
    for _ in range(40):
        await wait(0.03)
        peer.transport.resumeProducing()
        await within(peer.heard.get())
        peer.transport.pauseProducing()
        assert "disconnected" not in hooks.names
    assert len(peer.received) < 24 * MB
    peer.transport.abortConnection()
    await within(peer.lost)


@pytest_twisted.ensureDeferred
async def test_sendIsHandedOver(loopback: Loopback, hooks: Recorder) -> None:
    """
    C{link.send} fires once the bytes have been handed to the kernel, in order.
    """
    service, peer = await connectedPair(loopback, hooks, KeptFactory())
    link = service.link
    assert link is not None
    order: list[int] = []
    sends = [link.send(bytes(size)) for size in (10, 3 * MB, 10)]
    for number, sent in enumerate(sends):
        sent.addCallback(lambda _, number=number: order.append(number))
        assert not sent.called or number == 0
    await within(sends[-1])
    assert order == [0, 1, 2]
    assert link.bytesBuffered == 0
    while len(peer.received) < 3 * MB + 20:
        await within(peer.heard.get())


@pytest_twisted.ensureDeferred
async def test_sendFailsWithTheCause(loopback: Loopback, hooks: Recorder) -> None:
    """
    What was not handed over when the link ended fails with the link's cause, and so does what is
    sent after that.
    """
    service, peer = await connectedPair(
        loopback, hooks, KeptFactory(), limits=Limits(maxBuffered=None)
    )
    link = service.link
    assert link is not None
    peer.transport.pauseProducing()
    first = link.send(bytes(20 * MB))
    second = link.send(b"more")
    # Nobody listens to this one, and that is no unhandled error.
    link.send(b"and more")
    ended = hooks.next("disconnected")
    peer.transport.abortConnection()
    cause = await within(ended)
    for sent in (first, second, link.send(b"too late")):
        with pytest.raises(type(cause)) as failed:
            await within(sent)
        assert failed.value is cause


@pytest_twisted.ensureDeferred
async def test_maxBuffered(loopback: Loopback, hooks: Recorder) -> None:
    """
    C{send} beyond C{maxBuffered} fails with C{SendFailed}, writes nothing and leaves the link up
    (promise 17).
    """
    service, peer = await connectedPair(
        loopback, hooks, KeptFactory(), limits=Limits(maxBuffered=1 * MB)
    )
    link = service.link
    assert link is not None
    peer.transport.pauseProducing()
    refused = None
    written = 0
    for _ in range(100):
        sent = link.send(bytes(MB // 2))
        if sent.called and isinstance(sent.result, Failure):
            refused = sent
            break
        written += MB // 2
        sent.addErrback(lambda _: None)
        await wait(0)
    assert refused is not None
    with pytest.raises(SendFailed, match="maxBuffered is 1048576"):
        await refused
    assert link.bytesBuffered <= MB + MB // 8
    assert link.state == "alive"
    assert "disconnected" not in hooks.names
    peer.transport.resumeProducing()
    while len(peer.received) < written:
        await within(peer.heard.get())
    await within(link.send(b"again"))
    await within(peer.heard.get())
    assert len(peer.received) == written + 5


# Other transports.


@pytest_twisted.ensureDeferred
async def test_unixSocket(plain: Loopback, hooks: Recorder, tmp_path: Path) -> None:
    """
    Over a UNIX socket all works but what TCP alone can tell: the silent peer is found, within the
    bound; the close is named.
    """
    from twisted.internet import reactor

    peers = Peers()
    path = str(tmp_path / "socket")
    port = reactor.listenUNIX(path, peers)
    plain.atEnd(port.stopListening)
    service = plain.service(
        UNIXClientEndpoint(reactor, path),
        Factory.forProtocol(HeartbeatProtocol),
        hooks=hooks,
        heartbeat=QUICK,
    )
    connected = hooks.next("connected")
    link = await within(connected)
    began = link.peerWatch.detector.heardAt
    cause = await within(hooks.next("disconnected"))
    assert type(cause) is PeerSilent
    assert cause.evidence is None
    assert 0.95 * BOUND <= time.monotonic() - began <= BOUND + 1
    await within(hooks.next("connected"))
    await within(peers.accepted.get())
    second = await within(peers.accepted.get())
    # A UNIX socket that is closed before it has read all is reset.
    await within(second.heard.get())
    ended = hooks.next("disconnected")
    second.transport.loseConnection()
    assert type(await within(ended)) is PeerClosed
    await within(service.stopService())


@pytest_twisted.ensureDeferred
async def test_unixSocketOfAProcessThatDiedUnread(
    plain: Loopback, hooks: Recorder, tmp_path: Path
) -> None:
    """
    A UNIX socket whose other end has closed with bytes unread, as the kernel does for a process
    that was killed, is reset, and the cause has the errno that Twisted drops.
    """
    from twisted.internet import reactor

    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        plain.service(
            UNIXClientEndpoint(reactor, path),
            Factory.forProtocol(HeartbeatProtocol),
            hooks=hooks,
        )
        await within(hooks.next("connected"))
        ended = hooks.next("disconnected")
    cause = await within(ended)
    assert type(cause) is PeerReset
    assert cause.osError == errno.ECONNRESET
    assert type(cause.__cause__) is ConnectionLost


@pytest_twisted.ensureDeferred
async def test_unixSocketSend(plain: Loopback, hooks: Recorder, tmp_path: Path) -> None:
    """
    C{link.send} over a UNIX socket fires, and arrives.
    """
    from twisted.internet import reactor

    peers = Peers()
    path = str(tmp_path / "socket")
    plain.atEnd(reactor.listenUNIX(path, peers).stopListening)
    connected = hooks.next("connected")
    plain.service(UNIXClientEndpoint(reactor, path), KeptFactory(), hooks=hooks)
    link = await within(connected)
    peer = await within(peers.accepted.get())
    await within(link.send(b"hello"))
    assert await within(peer.heard.get()) == b"hello"


# What a link says of itself.


@pytest_twisted.ensureDeferred
async def test_linkFacts(loopback: Loopback, hooks: Recorder) -> None:
    """
    A link tells its peer, its protocol, its number, its state and its watch; the number is never
    used again.
    """
    factory = KeptFactory()
    service, peer = await connectedPair(loopback, hooks, factory)
    link = service.link
    assert link is not None
    assert isinstance(link, Link)
    assert (link.peer.host, link.peer.port) == ("127.0.0.1", peer.transport.getHost().port)
    assert link.protocol is factory.built[0]
    assert (link.generation, link.state, link.watch) == (1, "alive", "keepalive")
    assert link.cause is None
    assert link.rtt is None
    assert link.keepAlive is not None
    assert link.keepAlive.enabled
    again = hooks.next("connected")
    peer.transport.loseConnection()
    assert (await within(again)).generation == 2
    assert link.state == "gone"
    assert isinstance(link.cause, PeerClosed)


@pytest_twisted.ensureDeferred
async def test_lateCleanup(plain: Loopback, hooks: Recorder) -> None:
    """
    A cleanup that is added to a link that has ended is called at once.
    """
    service, peer = await connectedPair(plain, hooks, KeptFactory())
    link = service.link
    assert link is not None
    gone = link.whenGone()
    peer.transport.loseConnection()
    await within(gone)
    ran: list[str] = []
    link.addCleanup(ran.append, "late")
    assert ran == ["late"]
    assert (await within(link.whenGone())) is link.cause


@pytest_twisted.ensureDeferred
async def test_abortFromConnectionMade(loopback: Loopback, hooks: Recorder) -> None:
    """
    A protocol that closes its connection as soon as it has it makes a failed attempt, and no mess.
    """

    class Shy(Kept):
        def connectionMade(self) -> None:
            self.transport.abortConnection()

    class ShyOnce(KeptFactory):
        def buildProtocol(self, addr: Any) -> Any:
            self.protocol = Kept if self.built else Shy
            return super().buildProtocol(addr)

    connected = hooks.next("connected")
    service = loopback.service(loopback.endpoint(loopback.listen(Peers())), ShyOnce(), hooks=hooks)
    await within(connected)
    assert service.link is not None
    assert service.link.state == "alive"


class StopsItself(Kept):
    """
    Stops its service as soon as it is connected.
    """

    def connectionMade(self) -> None:
        """
        Stop.
        """
        self.factory.service.stopService().chainDeferred(self.factory.stopping)


@pytest_twisted.ensureDeferred
async def test_stopFromConnectionMade(loopback: Loopback, hooks: Recorder) -> None:
    """
    C{stopService} from inside of C{connectionMade}, on real endpoints, fires, and nothing is tried
    again (promise 9).
    """
    factory: Any = KeptFactory()
    factory.protocol = StopsItself
    factory.stopping = Deferred()
    endpoint = loopback.endpoint(loopback.listen(Peers()))
    factory.service = loopback.service(endpoint, factory, hooks=hooks)
    await within(factory.stopping)
    assert factory.service.state == "stopped"
    assert factory.built[0].losses == 1
    await wait(0.2)
    assert hooks.told("connecting") == [1]
