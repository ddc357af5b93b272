# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What a peer's goodbye does to the client that hears it: when it comes back, and how it pings then.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.logger import LogEvent
from twisted.python.failure import Failure

from twisted_heartbeat import (
    Backoff,
    ClosedHere,
    GoodbyeCode,
    Heartbeat,
    HeartbeatClientFactory,
    HeartbeatClientService,
    HeartbeatProtocol,
    PeerClosed,
    PeerSilent,
)
from twisted_heartbeat.core import wire
from twisted_heartbeat.core.backoff import MAX_REQUESTED_DELAY, requestedDelay
from twisted_heartbeat.core.causes import RetryPace

from ..client.test_factory import FakeConnector
from ..support.virtualnetwork import FakeNetwork, FakeTransport, Recorder

EVEN = Heartbeat(interval=4, timeout=4)
STEADY = Backoff(initial=1, maximum=60, factor=2, jitter=None, spread=0)


class Client:
    """
    A client in virtual time, whose peer says what the test says.
    """

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock()
        self.hooks = Recorder()
        self.settings = {"hooks": self.hooks, "heartbeat": EVEN, "name": "client", **settings}

    def connect(self) -> FakeTransport:
        """
        The attempt under way leads to a link.
        """
        raise NotImplementedError

    def stop(self) -> None:
        """
        No more of it.
        """
        raise NotImplementedError

    def partWith(self, goodbye: wire.Goodbye) -> Any:
        """
        Connect, be told goodbye, and see what is to be tried when.
        """
        transport = self.connect()
        transport.deliver(wire.encode(wire.Hello("server")) + wire.encode(goodbye))
        for _ in range(4):
            self.clock.advance(0)
        assert not transport.open
        return self.hooks.told("retrying")[-1]

    def wait(self) -> None:
        """
        The wait is over.
        """
        retry = self.hooks.told("retrying")[-1]
        self.clock.advance(retry.delay)


class ServiceClient(Client):
    """
    A service.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.endpoint = FakeNetwork(self.clock).endpoint()
        factory = Factory.forProtocol(HeartbeatProtocol)
        self.service = HeartbeatClientService(
            self.endpoint, factory, clock=self.clock, **self.settings
        )
        self.service.startService()

    def connect(self) -> FakeTransport:
        transport = self.endpoint.attempts[-1].succeed()
        assert transport is not None
        return transport

    def stop(self) -> None:
        self.service.stopService()
        self.clock.advance(0)


class FactoryClient(Client):
    """
    A factory and its connector.
    """

    def __init__(self, **settings: Any) -> None:
        policy = settings.pop("retryPolicy", Backoff())
        super().__init__(**settings)
        kind = type("Clients", (HeartbeatClientFactory,), {"protocol": HeartbeatProtocol})
        self.factory: Any = kind(**self.settings)
        self.factory.clock = self.clock
        self.factory.noisy = False
        self.factory.jitter, self.factory.spread = policy.jitter, policy.spread
        self.connector = FakeConnector(self.factory, self.clock)
        self.connector.connect()

    def connect(self) -> FakeTransport:
        transport = self.connector.succeed()
        assert transport is not None
        return transport

    def stop(self) -> None:
        self.factory.stopTrying()


KINDS: list[type[Client]] = [ServiceClient, FactoryClient]


@pytest.fixture(params=KINDS, ids=["service", "factory"])
def kind(request: pytest.FixtureRequest) -> type[Client]:
    """
    Both kinds of client.
    """
    found: type[Client] = request.param
    return found


# When to come back.


@pytest.mark.parametrize(("after", "spread"), [(5.0, 10.0), (0.0, 30.0), (90.0, 0.0), (600, 300)])
def test_comesBackWhenAsked(kind: type[Client], after: float, spread: float) -> None:
    """
    After a goodbye with a hint the next attempt comes C{retryAfter} seconds later, plus a draw
    from C{spread}: neither sooner nor later, and two clients do not draw the same.
    """
    delays = set()
    for _ in range(20):
        client = kind()
        delays.add(client.partWith(wire.Goodbye("restart", after, spread)).delay)
        client.stop()
    assert after <= min(delays) <= max(delays) <= after + spread
    assert len(delays) == (20 if spread else 1)


def test_comesBackAsUsual(kind: type[Client]) -> None:
    """
    After a goodbye without a hint it is as after any close.
    """
    client = kind(retryPolicy=STEADY)
    assert client.partWith(wire.Goodbye("closing")).delay == 1
    client.stop()


def test_hintOfNextToNothing(kind: type[Client]) -> None:
    """
    A hint shorter than C{initial} is none: a peer that gives it each time has nobody in a hot loop,
    and no such link is proven.
    """
    client = kind(retryPolicy=STEADY)
    for expected in (1, 2, 4, 8, 16):
        assert client.partWith(wire.Goodbye("", 0.001, 0.9)).delay == expected
        client.wait()
    client.stop()


def test_nobodyIsSentAwayForEver(kind: type[Client]) -> None:
    """
    A hostile peer can send a client away for an hour, and spread it over another one, and no more.
    """
    client = kind()
    longest = client.partWith(wire.Goodbye("", 4294967.295, 4294967.295)).delay
    assert MAX_REQUESTED_DELAY <= longest <= 2 * MAX_REQUESTED_DELAY == 7200
    client.stop()


def test_hintCanBeCutShort() -> None:
    """
    C{reconnectNow} cuts that wait short like any other.
    """
    client = ServiceClient()
    client.partWith(wire.Goodbye("", 3000, 0))
    client.service.reconnectNow()
    assert client.service.state == "connecting"
    client.stop()


@pytest.mark.parametrize(("policy", "delay"), [(0.5, 30.0), (45.0, 45.0)])
def test_policyOfTheUsers(policy: float, delay: float) -> None:
    """
    A retry policy of the user's own knows no causes: its delay holds, but for one shorter than the
    peer has asked for.
    """
    client = ServiceClient(retryPolicy=lambda attempt: policy)
    assert client.partWith(wire.Goodbye("", 30, 0)).delay == delay
    client.stop()


@given(
    st.floats(0, 1e7),
    st.floats(0, 1e7),
    st.floats(0, 1, exclude_max=True),
    st.sampled_from(GoodbyeCode),
    st.integers(1, 50),
)
def test_delayIsBounded(
    after: float, spread: float, draw: float, code: GoodbyeCode, attempt: int
) -> None:
    """
    Whatever a goodbye says, the delay is what it asks for, in its limits, or the usual one; after a
    refusal it is neither shorter than the one nor than the other.
    """
    cause = PeerClosed(goodbyeCode=code, retryAfter=after, spread=spread)
    plain = PeerClosed(goodbyeCode=code)
    backoff = Backoff()
    delay = backoff.delay(attempt, cause, lambda: draw)
    usual = backoff.delay(attempt, plain, lambda: draw)
    wish = requestedDelay(cause, lambda: draw, backoff.initial)
    assert 0 <= wish <= 2 * MAX_REQUESTED_DELAY
    assert delay == (max(usual, wish) if cause.rejectedByPeer else wish or usual)


def test_onlyAGoodbyeWishes() -> None:
    """
    No other cause has the peer's wish in it.
    """
    assert [
        requestedDelay(cause) for cause in (None, PeerSilent(), ClosedHere(), PeerClosed())
    ] == [0] * 4


# Who is turned away.


@pytest.mark.parametrize("code", [GoodbyeCode.REFUSED, GoodbyeCode.NAME_IN_USE])
def test_turnedAwayComesBackSlowly(kind: type[Client], code: GoodbyeCode) -> None:
    """
    Who is not welcome, or whose name is taken, comes back slowly, and knows why.
    """
    client = kind(retryPolicy=Backoff(jitter=None, spread=10))
    retry = client.partWith(wire.Goodbye("no", code=code))
    assert type(retry.cause) is PeerClosed
    assert (retry.cause.goodbyeCode, retry.cause.pace) == (code, RetryPace.SLOW)
    assert retry.cause.rejectedByPeer
    assert retry.delay == 10
    client.stop()


def test_turnedAwayAgainAndAgain(kind: type[Client]) -> None:
    """
    To be turned away proves no link, so each wait is longer than the last; a refusal revokes the
    proof of a link that has been up for C{stableAfter} seconds, too.
    """
    client = kind(retryPolicy=Backoff(jitter=None, spread=10))
    delays = []
    for _ in range(5):
        delays.append(client.partWith(wire.Goodbye("no", code=GoodbyeCode.REFUSED)).delay)
        client.wait()
    assert delays == [10, 20, 40, 60, 60]
    transport = client.connect()
    transport.deliver(wire.encode(wire.Hello()))
    for _ in range(11):
        client.clock.advance(1)
        transport.deliver(wire.encodePong(0))
    transport.deliver(wire.encode(wire.Goodbye("now", code=GoodbyeCode.REFUSED)))
    for _ in range(4):
        client.clock.advance(0)
    assert client.hooks.told("retrying")[-1].delay == 60
    client.stop()


# Too many pings.


def bounds(client: Client) -> list[float]:
    """
    The bounds that the hellos of some links in a row announce, each ended by a complaint.
    """
    found = []
    for _ in range(5):
        transport = client.connect()
        [hello] = wire.FrameReader().receive(transport.value())
        assert isinstance(hello, wire.Hello)
        found.append(hello.needs)
        transport.deliver(wire.encode(wire.Goodbye(code=GoodbyeCode.TOO_MANY_PINGS)))
        for _ in range(4):
            client.clock.advance(0)
        client.wait()
    return found


def test_tooManyPings(kind: type[Client], events: list[LogEvent]) -> None:
    """
    Who pings too often pings half as often on the links that follow: its interval doubles, its
    timeout does not, and the log says what the bound is now.  It does so three times at most: no
    peer can do away with the bound.
    """
    client = kind(retryPolicy=STEADY)
    assert bounds(client) == [8, 12, 20, 36, 36]
    said = [event for event in events if "interval" in event]
    assert [(event["interval"], event["bound"]) for event in said] == [
        (8, 12),
        (16, 20),
        (32, 36),
        (32, 36),
        (32, 36),
    ]
    assert {event["link"] for event in said} == {"client"}
    connected = [event for event in events if event.get("event") == "connected"]
    assert [event["bound"] for event in connected] == [8, 12, 20, 36, 36]
    client.stop()


@pytest.mark.parametrize("heartbeat", [None, Heartbeat(interval=None, timeout=8)])
def test_tooManyPingsFromOneWhoSendsNone(
    kind: type[Client], heartbeat: Heartbeat | None, events: list[LogEvent]
) -> None:
    """
    Who does not ping has nothing to do about it, and says nothing.
    """
    client = kind(retryPolicy=STEADY, heartbeat=heartbeat)
    assert len(set(bounds(client))) == 1
    assert not [event for event in events if "interval" in event]
    client.stop()


# Saying it.


def alone() -> tuple[Any, FakeTransport, Clock, Recorder]:
    """
    A protocol, and what it writes.
    """
    clock, hooks = Clock(), Recorder()
    body = {"clock": clock, "hooks": hooks, "heartbeat": EVEN}
    protocol: Any = type("Speaker", (HeartbeatProtocol,), body)()
    transport = FakeTransport(clock, protocol)
    protocol.makeConnection(transport)
    transport.deliver(wire.encode(wire.Hello("client")))
    transport.clear()
    return protocol, transport, clock, hooks


def test_sayGoodbye() -> None:
    """
    C{sayGoodbye} says it once, and nothing after it, until the other side closes, or this one does:
    no pong, no ping, no second goodbye; what is to be sent fails with the cause.
    """
    protocol, transport, clock, hooks = alone()
    goodbye = wire.Goodbye("restart", 5, 10)
    protocol.sayGoodbye(goodbye)
    protocol.sayGoodbye(wire.Goodbye("again"))
    failed: list[Failure] = []
    sent: Deferred[None] = protocol.sendMessage(b"late")
    sent.addErrback(failed.append)
    transport.deliver(wire.encodePing(1))
    for _ in range(50):
        clock.advance(0.1)
        transport.deliver(wire.encode(wire.Data(b"still heard")))
    assert transport.open
    protocol.link.close()
    assert list(wire.FrameReader().receive(transport.value())) == [goodbye]
    clock.advance(0)
    [cause] = hooks.told("disconnected")
    assert type(cause) is ClosedHere
    assert str(cause) == "this side said goodbye: restart"
    assert [failure.value for failure in failed] == [cause]


def test_goodbyeThatNobodyHeeds() -> None:
    """
    Who has said goodbye to a peer that is silent from then on finds it within the bound.
    """
    protocol, transport, clock, hooks = alone()
    protocol.sayGoodbye(wire.Goodbye("restart"))
    for _ in range(82):
        clock.advance(0.1)
    assert not transport.open
    assert type(hooks.told("disconnected")[0]) is ClosedHere
    assert len(list(wire.FrameReader().receive(transport.value()))) == 1
