# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
When a link is proven: the rule by itself, and both drivers that ask it.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory

from twisted_heartbeat import (
    Backoff,
    Cause,
    ClosedHere,
    GoodbyeCode,
    HandshakeFailed,
    Heartbeat,
    HeartbeatClientService,
    HeartbeatProtocol,
    Limits,
    PeerClosed,
    PeerReset,
    PeerSilent,
    ProtocolViolation,
)
from twisted_heartbeat.core import wire
from twisted_heartbeat.core.proof import LinkFacts, isProven
from twisted_heartbeat.endpoints.build import PrefixedClient
from twisted_heartbeat.endpoints.heartbeat import _TunnelMaker

from ..conftest import LoggedErrors
from ..protocol.test_goodbye import KINDS, Client, FactoryClient, ServiceClient
from ..support.virtualnetwork import FakeNetwork, FakeTransport

STEADY = Backoff(initial=1, maximum=60, factor=2, jitter=None, spread=0)
HELLO = wire.encode(wire.Hello("server"))
SOON, LATE = 9.0, 10.0
"""Seconds, before and after C{stableAfter} has passed."""


@pytest.fixture(params=KINDS, ids=["service", "factory"])
def kind(request: pytest.FixtureRequest) -> type[Client]:
    """
    Both kinds of client.
    """
    found: type[Client] = request.param
    return found


# The rule.


def goodbye(code: GoodbyeCode) -> PeerClosed:
    return PeerClosed(goodbyeCode=code)


@pytest.mark.parametrize("upFor", [SOON, LATE], ids=["soon", "late"])
@pytest.mark.parametrize(
    ("cause", "soon", "late"),
    [
        (PeerClosed(), True, True),
        (PeerReset(), True, True),
        (PeerSilent(), True, True),
        (ClosedHere(), True, True),
        (HandshakeFailed(), True, True),
        (goodbye(GoodbyeCode.CLOSING), False, True),
        (goodbye(GoodbyeCode.TOO_MANY_PINGS), False, True),
        (ProtocolViolation(), False, True),
        (goodbye(GoodbyeCode.REFUSED), False, False),
        (goodbye(GoodbyeCode.NAME_IN_USE), False, False),
    ],
    ids=lambda value: f"{type(value).__name__} {getattr(value, 'goodbyeCode', '')}",
)
def test_builtInProtocol(cause: Cause, soon: bool, late: bool, upFor: float) -> None:
    """
    The peer's hello proves the link, unless a goodbye or a violation comes within C{stableAfter};
    a refusal revokes the proof at any time.  Without a hello nothing proves the link.
    """
    expected = late if upFor == LATE else soon
    for heard in (True, False):
        facts = LinkFacts(cause=cause, upFor=upFor, prepared=True, builtIn=True, heard=heard)
        assert isProven(facts, 10.0) is (heard and expected)


@pytest.mark.parametrize("heard", [True, False])
@pytest.mark.parametrize("upFor", [SOON, LATE])
def test_otherProtocols(heard: bool, upFor: float) -> None:
    """
    The first bytes that the protocol took prove the link, and so does C{stableAfter}.
    """
    facts = LinkFacts(cause=PeerClosed(), upFor=upFor, prepared=True, builtIn=False, heard=heard)
    assert isProven(facts, 10.0) is (heard or upFor == LATE)


@pytest.mark.parametrize("builtIn", [True, False])
@pytest.mark.parametrize("missing", ["preparation", "hook"])
def test_neverProven(builtIn: bool, missing: str) -> None:
    """
    A link that was not prepared, or whose C{connected} hook failed, is not proven, however long it
    stayed up.
    """
    facts = LinkFacts(
        cause=PeerClosed(),
        upFor=1e9,
        prepared=missing != "preparation",
        builtIn=builtIn,
        heard=True,
        hookFailed=missing == "hook",
    )
    assert not isProven(facts, 10.0)


# The drivers.


def settle(client: Client) -> None:
    """
    What is due now happens, and what follows from it.
    """
    for _ in range(4):
        client.clock.advance(0)


def delaysOf(client: Client) -> list[float]:
    """
    The waits so far.
    """
    return [retry.delay for retry in client.hooks.told("retrying")]


@pytest.mark.parametrize(
    "banner",
    [b"HTTP/1.1 503 Service Unavailable\r\n\r\n", b"SSH-2.0-OpenSSH_9.6\r\n", b"\x01", b""],
    ids=["HTTP", "SSH", "part of a header", "nothing"],
)
def test_bannerProvesNothing(kind: type[Client], banner: bytes) -> None:
    """
    A stranger that says a line and closes backs off like one that refuses.
    """
    client = kind(retryPolicy=STEADY)
    for _ in range(4):
        transport = client.connect()
        if banner:
            transport.deliver(banner)
        transport.lose()
        settle(client)
        client.wait()
    assert delaysOf(client) == [1, 2, 4, 8]
    client.stop()


class Wrapped(ServiceClient):
    """
    A service whose protocol is inside of a wrapper of Twisted's.
    """

    def __init__(self, wrapper: type[ProtocolWrapper], **settings: Any) -> None:
        super().__init__(**settings)
        self.service.stopService()
        self.endpoint = FakeNetwork(self.clock).endpoint()
        factory = WrappingFactory(Factory.forProtocol(HeartbeatProtocol))
        factory.protocol = wrapper
        self.service = HeartbeatClientService(
            self.endpoint, factory, clock=self.clock, **self.settings
        )
        self.service.startService()


class LateWrapper(ProtocolWrapper):
    """
    A wrapper with a C{makeConnection} of its own: the link of the service stays around it.
    """

    def makeConnection(self, transport: Any) -> None:
        super().makeConnection(transport)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("wrapper", [ProtocolWrapper, LateWrapper])
@pytest.mark.parametrize(
    ("said", "delays", "code"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", [1, 2, 4], None),
        (b"\x01", [1, 2, 4], None),
        (HELLO, [1, 1, 1], None),
        (HELLO + wire.encode(wire.Goodbye("no", code=GoodbyeCode.REFUSED)), [1, 2, 4], 1),
    ],
    ids=["HTTP", "part of a header", "hello", "refused"],
)
def test_insideOfAWrapper(
    wrapper: type[ProtocolWrapper], said: bytes, delays: list[float], code: int | None
) -> None:
    """
    Inside of a wrapper that is not this package's the built-in protocol is proven by its hello,
    too, and the cause is the one that its own link knows.
    """
    client = Wrapped(wrapper, retryPolicy=STEADY)
    for _ in range(3):
        transport = client.connect()
        transport.deliver(said)
        transport.lose()
        settle(client)
        client.wait()
    assert [retry.attempt for retry in client.hooks.told("retrying")] == [
        1 if delay == 1 else number + 1 for number, delay in enumerate(delays)
    ]
    cause = client.hooks.told("retrying")[-1].cause
    assert isinstance(cause, ProtocolViolation) == said.startswith(b"HTTP")
    assert getattr(cause, "goodbyeCode", None) == code
    client.stop()


def test_bannerIsGivenUp() -> None:
    """
    C{maxAttempts} is reached by a stranger that says a line each time.
    """
    client = ServiceClient(retryPolicy=Backoff(jitter=None, spread=0, maxAttempts=3))
    for _ in range(3):
        client.connect().deliver(b"-ERR max number of clients reached\r\n")
        settle(client)
        if client.service.state == "waiting":
            client.wait()
    assert client.service.state == "gaveUp"
    client.stop()


def test_noHelloForEver(kind: type[Client]) -> None:
    """
    Over the built-in protocol a link without a hello is not proven, however long it stays up.
    """
    client = kind(retryPolicy=STEADY, heartbeat=None, limits=None)
    for _ in range(3):
        transport = client.connect()
        for _ in range(20):
            client.clock.advance(5)
            transport.deliver(wire.encodePong(0))
        transport.lose()
        settle(client)
        client.wait()
    assert delaysOf(client) == [1, 2, 4]
    client.stop()


@pytest.mark.parametrize("upFor", [SOON, LATE], ids=["soon", "late"])
@pytest.mark.parametrize(
    "end",
    [
        wire.encode(wire.Goodbye("closing")),
        wire.encode(wire.Goodbye("", code=GoodbyeCode.TOO_MANY_PINGS)),
        b"\xff",
        wire.encode(wire.Goodbye("no", code=GoodbyeCode.REFUSED)),
        b"",
    ],
    ids=["closing", "too many pings", "violation", "refused", "FIN"],
)
def test_whatRevokesTheHello(kind: type[Client], end: bytes, upFor: float) -> None:
    """
    After a hello, an early goodbye or violation revokes the proof, a refusal does at any time, and
    the loss of the connection does not.
    """
    client = kind(retryPolicy=STEADY, heartbeat=Heartbeat(interval=400, timeout=4))
    for _ in range(3):
        transport = client.connect()
        transport.deliver(HELLO)
        client.clock.advance(upFor)
        if end:
            transport.deliver(end)
            settle(client)
        transport.lose()
        settle(client)
        client.wait()
    revoked = bool(end) and (upFor == SOON or b"no" in end)
    assert delaysOf(client) == ([1, 2, 4] if revoked else [1, 1, 1])
    client.stop()


class Other(Protocol):
    """
    Not the built-in protocol.

    @cvar raises: whether its C{dataReceived} does.
    """

    raises = True

    def dataReceived(self, data: bytes) -> None:
        """
        Raise.
        """
        if self.raises:
            raise ZeroDivisionError("in dataReceived")


class Fine(Other):
    """
    Takes what comes.
    """

    raises = False


def clientOf(kind: type[Client], protocol: Any, **settings: Any) -> Client:
    """
    A client whose protocol is not the usual one.
    """
    client = kind(retryPolicy=STEADY, **settings)
    target: Any = client.factory if isinstance(client, FactoryClient) else client.service._factory
    target.protocol = protocol
    return client


def deliver(transport: FakeTransport, data: bytes) -> None:
    """
    The peer has sent something; as the reactor does, end the connection if the protocol raises.
    """
    try:
        transport.deliver(data)
    except ZeroDivisionError as error:
        transport.lose(error)


class Greeting(HeartbeatProtocol):
    """
    Speaks the built-in protocol, and raises at the hello.
    """

    def helloReceived(self, hello: wire.Hello) -> None:
        raise ZeroDivisionError("in helloReceived")


@pytest.mark.parametrize(
    ("protocol", "data", "delays"),
    [(Other, b"login?", [1, 2, 4]), (Fine, b"login?", [1, 1, 1]), (Greeting, HELLO, [1, 2, 4])],
    ids=["raises", "does not", "raises at the hello"],
)
def test_dataReceivedThatRaises(
    kind: type[Client], protocol: Any, data: bytes, delays: list[float]
) -> None:
    """
    A protocol that raises at the peer's first bytes each time backs off.
    """
    client = clientOf(kind, protocol)
    for _ in range(3):
        transport = client.connect()
        deliver(transport, data)
        transport.lose()
        settle(client)
        client.wait()
    assert delaysOf(client) == delays
    client.stop()


@pytest.mark.parametrize("error", [ValueError("no room"), CancelledError(), PeerClosed("enough")])
@pytest.mark.parametrize("when", ["at once", "later"])
@pytest.mark.parametrize("protocol", [HeartbeatProtocol, Fine])
def test_connectedHookThatFails(
    kind: type[Client],
    protocol: Any,
    when: str,
    error: Exception,
    loggedErrors: LoggedErrors,
) -> None:
    """
    A C{connected} hook that fails each time ends its link and backs off, whatever it raises, and
    however long the link was up before.
    """
    client = clientOf(kind, protocol, heartbeat=Heartbeat(interval=400, timeout=4))
    failing: list[Deferred[None]] = []

    def hook() -> Deferred[None]:
        failing.append(Deferred())
        if when == "at once":
            raise error
        return failing[-1]

    client.hooks.then["connected"] = hook
    for _ in range(3):
        transport = client.connect()
        if when == "later":
            transport.deliver(HELLO)
            client.clock.advance(30)
            failing[-1].errback(error)
        settle(client)
        assert not transport.open
        client.wait()
    assert delaysOf(client) == [1, 2, 4]
    assert len(loggedErrors.flush(type(error))) == 3
    client.stop()


class TunnelClient(ServiceClient):
    """
    A service whose endpoint is behind C{heartbeat:}, and whose protocol knows nothing of that.
    """

    def __init__(self, protocol: type[Protocol] = Fine) -> None:
        super().__init__(retryPolicy=STEADY)
        self.service.stopService()
        maker = _TunnelMaker(
            Heartbeat(interval=400, timeout=4), Limits(sendStall=None), self.clock, "tunnel"
        )
        self.service = HeartbeatClientService(
            PrefixedClient(self.endpoint, maker.wrap),
            Factory.forProtocol(protocol),
            STEADY,
            self.clock,
            hooks=self.hooks,
        )
        self.service.startService()


@pytest.mark.parametrize("upFor", [SOON, LATE], ids=["soon", "late"])
@pytest.mark.parametrize("code", [*GoodbyeCode, None])
def test_tunnelsHelloProvesAndItsGoodbyeRevokes(code: GoodbyeCode | None, upFor: float) -> None:
    """
    A tunnel speaks the built-in protocol: its hello proves the link of the carried protocol, and
    its goodbye, whose code the cause keeps, revokes that.
    """
    client = TunnelClient()
    for _ in range(3):
        transport = client.connect()
        transport.deliver(HELLO + wire.encode(wire.Data(b"hello from within")))
        client.clock.advance(upFor)
        if code is not None:
            transport.deliver(wire.encode(wire.Goodbye("so", code=code)))
            settle(client)
        transport.lose()
        settle(client)
        cause = client.hooks.told("disconnected")[-1]
        assert isinstance(cause, PeerClosed)
        assert cause.goodbyeCode is code
        client.wait()
    refused = code in (GoodbyeCode.REFUSED, GoodbyeCode.NAME_IN_USE)
    revoked = refused or (code is not None and upFor == SOON)
    assert delaysOf(client) == ([1, 2, 4] if revoked else [1, 1, 1])
    client.stop()


def test_carriedProtocolThatRaises() -> None:
    """
    A carried protocol that raises at the peer's first bytes each time backs off, too.
    """
    client = TunnelClient(Other)
    for _ in range(3):
        transport = client.connect()
        deliver(transport, HELLO + wire.encode(wire.Data(b"hello from within")))
        settle(client)
        words = "the protocol raised ZeroDivisionError: in dataReceived"
        assert str(client.hooks.told("disconnected")[-1]) == words
        client.wait()
    assert delaysOf(client) == [1, 2, 4]
    client.stop()


def test_tunnelToAStranger() -> None:
    """
    A stranger behind a C{heartbeat:} endpoint, who never says hello, backs off.
    """
    client = TunnelClient()
    for _ in range(3):
        client.connect().deliver(b"HTTP/1.1 503\r\n\r\n")
        settle(client)
        client.wait()
    assert delaysOf(client) == [1, 2, 4]
    client.stop()
