# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What a peer says is escaped before it becomes a cause's words or a field of the log (promise 17),
and the fields that a goodbye brings.
"""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.logger import LogEvent, eventAsJSON, textFileLogObserver

from twisted_heartbeat import (
    ClosedHere,
    GoodbyeCode,
    HandshakeFailed,
    Heartbeat,
    HeartbeatClientService,
    HeartbeatProtocol,
    HeartbeatServerFactory,
    PeerClosed,
    PermanentFailure,
)
from twisted_heartbeat.cli.running import NamedFactory
from twisted_heartbeat.core import wire
from twisted_heartbeat.core.diagnosis import causeOfFailure, causeOfLoss, describeError
from twisted_heartbeat.core.text import MAX_PRINTED, printable
from twisted_heartbeat.link.addresses import peerName
from twisted_heartbeat.logs import SafeLogger

from ..conftest import LoggedErrors
from ..support.virtualnetwork import PEER, FakeNetwork, FakeTransport, Recorder

EVIL = "\r\n\x1b[2Kforged\x07 \u202egnp\u2028\u200f\ufeff\x9b1m\x00"
"""Control, format and bidirectional characters, a line separator, and a C1 escape sequence."""


def unprintable(text: str) -> list[str]:
    """
    What of it must not reach a terminal.
    """
    return [c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")]


def textsOf(event: LogEvent) -> Iterator[str]:
    """
    What an event shows: its line, and its own fields.
    """
    out = io.StringIO()
    textFileLogObserver(out)(event)
    yield out.getvalue().rstrip("\n")
    yield eventAsJSON(event)
    for key, value in event.items():
        if isinstance(value, str) and not key.startswith("log_"):
            yield value


@given(st.text())
def test_nothingUnprintableIsLeft(text: str) -> None:
    """
    Whatever a text holds, what is printed of it holds nothing unprintable, and is bounded.
    """
    shown = printable(text)
    assert shown.isprintable() and unprintable(shown) == []
    assert len(shown) <= MAX_PRINTED * len("\\U0010ffff")


@given(st.text().filter(lambda text: text.isprintable() and len(text) <= MAX_PRINTED))
def test_printableTextIsKept(text: str) -> None:
    """
    A text that is fit to print stays as it is, in any script.
    """
    assert printable(text) is text


def test_otherCharactersAreEscaped() -> None:
    """
    Each other character is written as in a Python string.
    """
    assert printable("a\r\x1bb\u202e\udc80") == "a\\r\\x1bb\\u202e\\udc80"


def test_longTextIsCut() -> None:
    """
    More than so many characters are not printed, and one can see that; the longest reason that a
    goodbye can have is.
    """
    assert printable("x" * wire.MAX_REASON) == "x" * wire.MAX_REASON
    cut = printable("x" * 10_000_000)
    assert len(cut) == MAX_PRINTED and cut.endswith("x...")


@pytest.mark.parametrize(
    "cause",
    [
        PermanentFailure(EVIL),
        PeerClosed(f"the peer said goodbye: {EVIL}"),
        causeOfFailure(ValueError(EVIL)),
        causeOfLoss(ValueError(EVIL)),
        causeOfLoss(OSError(EVIL), handshaking=True, refused=EVIL),
        HandshakeFailed(EVIL),
    ],
    ids=lambda cause: type(cause).__name__,
)
def test_wordsOfACause(cause: Any) -> None:
    """
    A cause's words, and so C{str}, its arguments and the attribute, are printable, wherever the
    text comes from: a goodbye, an exception of the user's, a certificate.
    """
    assert str(cause).isprintable() and "forged" in str(cause)
    assert all(argument.isprintable() for argument in cause.args)


def test_otherWords() -> None:
    """
    So are an error in words, and an address, which behind a proxy is what a header said.
    """
    assert describeError(ValueError(EVIL)).isprintable()
    assert peerName(IPv4Address("TCP", EVIL, 1)).isprintable()
    assert peerName(UNIXAddress(EVIL.replace("\0", "").encode())).isprintable()
    assert peerName(EVIL).isprintable()


# In the log.


def clientTold(goodbye: wire.Goodbye, clock: Clock, hooks: Recorder) -> HeartbeatClientService:
    """
    A client whose peer says goodbye.
    """
    endpoint = FakeNetwork(clock).endpoint()
    factory = Factory.forProtocol(HeartbeatProtocol)
    service = HeartbeatClientService(endpoint, factory, clock=clock, hooks=hooks, name="client")
    service.startService()
    transport = endpoint.attempts[-1].succeed()
    assert transport is not None
    transport.deliver(wire.encode(wire.Hello(EVIL)) + wire.encode(goodbye))
    for _ in range(4):
        clock.advance(0)
    return service


def test_goodbyeAtAClient(events: list[LogEvent]) -> None:
    """
    A server's goodbye is in the events that it leads to: its reason escaped, its code and its hint
    as numbers.
    """
    hooks = Recorder()
    goodbye = wire.Goodbye(EVIL, 7.5, 3.0, GoodbyeCode.NAME_IN_USE)
    service = clientTold(goodbye, Clock(), hooks)
    service.stopService()
    told = {event["event"]: event for event in events if "event" in event}
    for name in ("disconnected", "retrying"):
        assert (told[name]["code"], told[name]["retryAfter"]) == (2, 7.5)
        assert "\\x1b[2Kforged" in told[name]["reason"]
    assert "code" not in told["connecting"] and "retryAfter" not in told["connected"]
    for event in events:
        for text in textsOf(event):
            assert unprintable(text) == []
    cause = hooks.told("disconnected")[-1]
    assert cause.goodbyeCode is GoodbyeCode.NAME_IN_USE


class Server:
    """
    A server in virtual time.
    """

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock()
        factory = Factory.forProtocol(HeartbeatProtocol)
        self.factory = HeartbeatServerFactory(factory, clock=self.clock, name="hub", **settings)

    def connect(self, name: str) -> Any:
        """
        A peer connects and says hello.
        """
        protocol: Any = self.factory.buildProtocol(PEER)
        transport = FakeTransport(self.clock, protocol)
        protocol.makeConnection(transport)
        transport.deliver(wire.encode(wire.Hello(name)))
        self.settle()
        return protocol

    def settle(self) -> None:
        """
        The reactor has some turns.
        """
        for _ in range(4):
            self.clock.advance(0)


def test_refusedByAServer(events: list[LogEvent]) -> None:
    """
    A server that refuses says in the event with which code, and shows the peer's name and the
    reason escaped; a program has the name as it came.
    """
    server = Server(admit=lambda *_: f"no {EVIL}")
    protocol = server.connect(EVIL)
    [refused] = [event for event in events if event.get("event") == "refused"]
    assert (refused["code"], refused["retryAfter"]) == (GoodbyeCode.REFUSED, 0.0)
    assert refused["name"].isprintable() and refused["reason"].isprintable()
    assert protocol.hello.name == protocol.link.name == EVIL
    for event in events:
        for text in textsOf(event):
            assert unprintable(text) == []


def test_drainedByAServer(events: list[LogEvent]) -> None:
    """
    What a server that drains says to its peers is in the event of each.
    """
    server = Server()
    server.connect("a")
    server.factory.drain(retryAfter=30.0, grace=0.0)
    server.settle()
    [ended] = [event for event in events if event.get("event") == "disconnected"]
    assert (ended["code"], ended["retryAfter"]) == (GoodbyeCode.CLOSING, 30.0)


def test_closedWithoutAGoodbye(events: list[LogEvent]) -> None:
    """
    An end without a goodbye has neither field.
    """
    server = Server(heartbeat=Heartbeat.within(7.0))
    protocol = server.connect("a")
    protocol.transport.lose()
    server.settle()
    [ended] = [event for event in events if event.get("event") == "disconnected"]
    assert ended["cause"] == "PeerClosed"
    assert "code" not in ended and "retryAfter" not in ended


def test_whatAnExceptionSays(events: list[LogEvent], loggedErrors: LoggedErrors) -> None:
    """
    An exception of the user's that repeats what a peer has said is escaped in the log's traceback,
    and can still be asked what it is.
    """

    def admit(address: object, certificate: object, hello: Any) -> None:
        raise LookupError(hello.name)

    clock = Clock()
    protocol: Any = HeartbeatServerFactory(admit=admit, clock=clock).buildProtocol(PEER)
    transport = FakeTransport(clock, protocol)
    protocol.makeConnection(transport)
    transport.deliver(wire.encode(wire.Hello(EVIL)))
    [failed] = [event for event in events if "log_failure" in event]
    for text in textsOf(failed):
        assert unprintable(text.replace("\n", "").replace("\t", "")) == []
    traceback = failed["log_failure"].getTraceback()
    assert "LookupError: " in traceback
    # No line of it can pass for an event.
    assert [line for line in traceback.splitlines() if "forged" in line] == [
        f"builtins.LookupError: {printable(EVIL)}"
    ]
    [failure] = loggedErrors.flush(LookupError)
    assert failure.value.args == (EVIL,)
    transport.lose()


def test_endpointString(events: list[LogEvent]) -> None:
    """
    What the string of an endpoint says is escaped when the endpoint warns, as is what an object
    says that a warning is about, of whatever class.
    """

    class Says:
        def __repr__(self) -> str:
            return EVIL

    log = SafeLogger()
    fails = Says()
    log.warn("{endpoint}: {one}", endpoint=EVIL, one=fails, other=log, number=3)
    [warned] = events
    for text in textsOf(warned):
        assert unprintable(text) == []
    assert (warned["endpoint"], warned["one"]) == (printable(EVIL), printable(EVIL))
    # What is printable remains what it is.
    assert (warned["other"], warned["number"]) == (log, 3)


def test_nameOnTheCommandLine(events: list[LogEvent]) -> None:
    """
    What a peer calls itself is logged by C{twist heartbeat} escaped, in the text and in the field.
    """
    clock = Clock()
    factory = HeartbeatServerFactory(NamedFactory("", "tcp:1"), clock=clock, name="tcp:1")
    protocol: Any = factory.buildProtocol(PEER)
    transport = FakeTransport(clock, protocol)
    protocol.makeConnection(transport)
    transport.deliver(wire.encode(wire.Hello(EVIL)))
    [named] = [event for event in events if "name" in event and "event" not in event]
    assert named["name"] == printable(EVIL)
    for text in textsOf(named):
        assert unprintable(text) == []
    protocol.link.abort(ClosedHere())
    for _ in range(4):
        clock.advance(0)
