# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The time that a peer has for something, and that time for which this process was away is not the
peer's: each limit of a peer, in virtual time and on real sockets.
"""

from __future__ import annotations

import time
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock

from twisted_heartbeat import (
    ClosedHere,
    ConnectFailed,
    Heartbeat,
    HeartbeatFactory,
    HeartbeatProtocol,
    HeartbeatServerFactory,
    Limits,
    ProtocolViolation,
    ServerLimits,
)
from twisted_heartbeat.core import wire
from twisted_heartbeat.endpoints.tunnel import TunnelFactory
from twisted_heartbeat.timing.deadline import PeerDeadline

from ..client.test_service import Scene
from ..support.loopback import Loopback, within
from ..support.virtualnetwork import PEER, FakeTransport, KeptFactory, Recorder


def deadline(clock: Clock) -> tuple[PeerDeadline, list[float]]:
    """
    One of 4 s, and when it has passed.
    """
    passed: list[float] = []
    return PeerDeadline(clock, 4, lambda word: passed.append(clock.seconds()), "word"), passed


def test_punctual() -> None:
    """
    It passes at its time, when the reactor has polled once more.
    """
    clock = Clock()
    one, passed = deadline(clock)
    clock.advance(3.75)
    assert passed == []
    assert one.active()
    clock.advance(0.25)
    assert passed == [4]
    assert not one.active()


@pytest.mark.parametrize(("away", "more"), [(1, 1), (3, 3), (60, 4)])
def test_timeAwayIsNotThePeers(away: float, more: float) -> None:
    """
    It is put off by as long as this process was away, once, and by no more than the limit.
    """
    clock = Clock()
    one, passed = deadline(clock)
    clock.advance(4 + away)
    clock.advance(more - 0.125)
    assert passed == []
    clock.advance(60)
    assert len(passed) == 1
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize("after", [1.0, 6.0])
def test_cancelled(after: float) -> None:
    """
    One that is cancelled never passes, also where it was put off.
    """
    clock = Clock()
    one, passed = deadline(clock)
    clock.advance(after)
    one.cancel()
    assert not one.active()
    clock.advance(60)
    assert passed == []
    assert clock.getDelayedCalls() == []


def test_attemptOutlivesAStall() -> None:
    """
    An attempt whose C{connectTimeout} was used up by a stall of this process is not given up: what
    the peer has answered meanwhile is read first.
    """
    scene = Scene(limits=Limits(connectTimeout=3))
    scene.service.startService()
    scene.clock.advance(5)
    assert not scene.attempts[0].cancelled
    scene.connect()
    scene.wait(10)
    assert scene.hooks.names == ["connecting", "connected"]
    scene.stop()


def test_attemptIsBoundedAfterAStall() -> None:
    """
    A peer that has not answered by the end of that, either, is given up.
    """
    scene = Scene(limits=Limits(connectTimeout=3))
    scene.service.startService()
    scene.clock.advance(60)
    scene.clock.advance(2.9)
    assert not scene.attempts[0].cancelled
    scene.clock.advance(0.1)
    assert scene.attempts[0].cancelled
    [retry] = scene.hooks.told("retrying")
    assert type(retry.cause) is ConnectFailed
    scene.stop()


@pytest.mark.parametrize("blocks", ["connecting", "accepting", "handshaking"])
@pytest_twisted.ensureDeferred
async def test_blockedReactor(blocks: str, loopback: Loopback) -> None:
    """
    A reactor that is blocked for longer than C{connectTimeout}, after the SYN or before the TLS
    handshake, at the client and the server alike: the first attempt is the one that succeeds.
    """
    limits = Limits(connectTimeout=0.2)

    class Server(HeartbeatServerFactory):
        def buildProtocol(self, addr: Any) -> Any:
            if blocks == "accepting":
                time.sleep(0.5)
            return super().buildProtocol(addr)

    class Slow(HeartbeatProtocol):
        def connectionMade(self) -> None:
            super().connectionMade()
            if blocks == "handshaking":
                time.sleep(0.5)

    theirs, hooks = Recorder(), Recorder()
    server = Server(Factory.forProtocol(Slow), limits=limits, hooks=theirs)
    loopback.atEnd(server.close)
    endpoint = loopback.endpoint(loopback.listen(server))
    connected, accepted = hooks.next("connected"), theirs.next("connected")
    loopback.service(endpoint, Factory.forProtocol(Slow), hooks=hooks, limits=limits)
    if blocks == "connecting":
        time.sleep(0.5)
    await within(connected)
    await within(accepted)
    assert hooks.names == ["connecting", "connected"]
    assert theirs.names == ["connected"]


@pytest.mark.parametrize("answers", [True, False])
def test_closeOutlivesAStall(answers: bool) -> None:
    """
    A polite close whose C{closeTimeout} was used up by a stall of this process is no abort if the
    peer has closed meanwhile; else it is one within as much time again.
    """
    clock, hooks = Clock(), Recorder()
    factory = HeartbeatFactory(
        KeptFactory(), clock=clock, hooks=hooks, heartbeat=None, limits=Limits(closeTimeout=5)
    )
    protocol: Any = factory.buildProtocol(PEER)
    transport = FakeTransport(clock, protocol)
    transport.stuck = True
    protocol.makeConnection(transport)
    protocol.link.close()
    clock.advance(8)
    assert not transport.aborting
    if answers:
        transport.lose()
    clock.advance(3.125)
    assert transport.aborting is not answers
    assert [type(cause) for cause in hooks.told("disconnected")] == [ClosedHere]


@pytest.mark.parametrize("comes", [True, False])
def test_tunnelOutlivesAStall(comes: bool) -> None:
    """
    A hello that came in time, while this process was away, opens the tunnel.
    """
    clock, factory = Clock(), KeptFactory()
    watching = HeartbeatFactory(
        TunnelFactory(factory, clock), heartbeat=Heartbeat.within(8), clock=clock
    )
    tunnel: Any = watching.buildProtocol(PEER)
    transport = FakeTransport(clock, tunnel)
    tunnel.makeConnection(transport)
    hello = wire.encode(wire.Hello("far"))
    transport.deliver(hello[:5])
    for _ in range(15):
        clock.advance(0.5)
        transport.deliver(hello[5:6])
        hello = hello[:5] + hello[6:]
    clock.advance(3)
    assert transport.open
    if comes:
        transport.deliver(hello[5:])
    clock.advance(4)
    assert transport.open is comes
    assert len(factory.built) == comes
    if not comes:
        assert isinstance(tunnel.link.cause, ProtocolViolation)
    transport.lose()


@pytest.mark.parametrize("limit", ["helloTimeout", "admissionTimeout"])
def test_admissionOutlivesAStall(limit: str) -> None:
    """
    A hello that came in time, or a decision that was due, while this process was away, lets the
    peer in.
    """
    clock, hooks, decision = Clock(), Recorder(), Deferred[None]()
    server = HeartbeatServerFactory(
        clock=clock,
        hooks=hooks,
        heartbeat=None,
        admit=lambda *facts: decision,
        serverLimits=ServerLimits(helloTimeout=4, admissionTimeout=4),
    )
    protocol: Any = server.buildProtocol(PEER)
    transport = FakeTransport(clock, protocol)
    protocol.makeConnection(transport)
    if limit == "admissionTimeout":
        transport.deliver(wire.encode(wire.Hello("far")))
    clock.advance(6)
    if limit == "helloTimeout":
        transport.deliver(wire.encode(wire.Hello("far")))
    decision.callback(None)
    clock.advance(6)
    assert hooks.names == ["connected"]
    transport.lose()
