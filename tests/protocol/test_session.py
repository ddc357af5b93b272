# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{HeartbeatSession}, over a link that notes what it is told, in virtual time.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from twisted_heartbeat.core import wire
from twisted_heartbeat.core.causes import Cause, GoodbyeCode, PeerClosed
from twisted_heartbeat.core.detector import FailureDetector
from twisted_heartbeat.core.settings import Heartbeat, Limits
from twisted_heartbeat.link.state import LinkState
from twisted_heartbeat.protocol.session import PROMISE_FRACTION, HeartbeatSession


class RecordingLink:
    """
    A link that notes the calls of its session.
    """

    cause: Cause | None = None
    isUp = True
    bytesBuffered = 0
    connection = None
    pinger: Any = None
    state = LinkState.ALIVE
    watch = "ping"

    def __init__(self, bound: float | None = 35.0) -> None:
        self.bound = bound
        self.calls: list[Any] = []
        self.now = 100.0
        self.config = SimpleNamespace(
            seconds=lambda: self.now, limits=Limits(maxBuffered=10), pingLimit=None
        )
        self.peerWatch = self.owner = self
        self.detector = FailureDetector(None, self.now)
        self.protocol = self
        self.transport = self
        self.written = b""

    def write(self, data: bytes) -> None:
        """
        Keep what is written.
        """
        self.written += data

    def reconfigure(self, heartbeat: Heartbeat | None, *, trusted: bool) -> None:
        self.calls.append(("reconfigure", heartbeat, trusted))

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self.calls.append((name, *arguments))

    def frames(self) -> list[wire.Frame]:
        """
        Take what was written.
        """
        written, self.written = self.written, b""
        return list(wire.StreamReader().receive(written))


def sessionOver(link: Any, offers: float | None = None) -> HeartbeatSession:
    """
    A session that has said hello, and whose link has forgotten it.
    """
    session = HeartbeatSession(link, "here", offers)
    session.start()
    link.calls.clear()
    link.frames()
    return session


@pytest.mark.parametrize(
    ("bound", "offers", "hello"),
    [
        (35.0, None, wire.Hello("here", 35.0, 35.0)),
        (None, None, wire.Hello("here", 0.0, 0.0)),
        (35.0, 5.0, wire.Hello("here", 35.0, 5.0)),
    ],
)
def test_helloNamesBoundAndOffer(
    bound: float | None, offers: float | None, hello: wire.Hello
) -> None:
    """
    The hello names this side's bound, and offers it unless another offer is set.
    """
    link: Any = RecordingLink(bound)
    link.watch = "keepalive" if bound is None else "ping"
    session = HeartbeatSession(link, "here", offers)
    session.start()
    assert link.frames() == [hello]
    assert link.session is session
    assert link.calls == [("withdraw",), ("reschedule",)]


def test_promiseBeginsWithThePeersHello() -> None:
    """
    From the peer's hello on this side speaks within 3/4 of the peer's bound, before the hello is
    negotiated (promise 19).
    """
    link = RecordingLink()
    session = sessionOver(link, offers=0.0)
    assert session.localHello.promisedWithin == float("inf")
    session.introduce(wire.Hello("there", needs=8.0))
    assert session.localHello.promisedWithin == 8.0 * PROMISE_FRACTION
    assert (session.peerName, session.negotiated) == ("there", None)
    assert link.calls == [("withdraw",), ("reschedule",)]


def test_laterHelloKeepsTheName() -> None:
    """
    A peer that says hello again under another name keeps the name by which it was admitted.
    """
    session = sessionOver(RecordingLink())
    session.introduce(wire.Hello("there"))
    session.keepPromiseTo(wire.Hello("elsewhere"))
    assert session.peerName == "there"
    assert session.peerHello == wire.Hello("elsewhere")


def test_passiveLinkPingsPeerThatOffersNothing() -> None:
    """
    A link that is watched passively is watched by pings, if the peer has not offered to speak.
    """
    link = RecordingLink()
    link.watch = "passive"
    session = sessionOver(link)
    session.negotiate(wire.Hello("there"))
    assert session.negotiated is not None and session.negotiated.incoming.pinged
    assert link.calls == [("linkProven", link), ("reconfigure", Heartbeat.within(35.0), False)]


def test_sideWithoutBoundWatchesByPeersWord() -> None:
    """
    A side without a bound goes by the hold of the peer's last ping, and before that by the offer of
    its hello.
    """
    link = RecordingLink(None)
    session = sessionOver(link, offers=0.0)
    hello = wire.Hello("there", offers=9.0)
    session.keepPromiseTo(hello)
    session.negotiate(hello)
    assert link.calls[-1] == ("reconfigure", Heartbeat.forPassivePeer(9.0), True)
    session.pingReceived(wire.Ping(1, hold=4.0))
    assert link.calls[-1] == ("reconfigure", Heartbeat.forPassivePeer(4.0), True)


def test_pongIsOnlyTheLastPings() -> None:
    """
    Only the pong of the last ping is told to the link, and only once.
    """
    link = RecordingLink()
    session = sessionOver(link)
    session.sendPing()
    [first] = link.frames()
    session.sendPing()
    [last] = link.frames()
    assert isinstance(first, wire.Ping) and isinstance(last, wire.Ping)
    session.pongReceived(wire.Pong(first.token))
    assert link.calls == []
    session.pongReceived(wire.Pong(last.token))
    session.pongReceived(wire.Pong(last.token))
    assert link.calls == [("pongReceived",)]
    assert session.expectedPong is None


def test_onePongWaitsForTheBuffer(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    While the buffer is full one pong waits, the last ping's, so that a peer can not fill the buffer
    with pongs that it does not read.
    """
    link = RecordingLink()
    session = sessionOver(link)
    drained: list[Deferred[None]] = []

    def whenSent(waiting: object) -> Deferred[None]:
        assert waiting is link
        drained.append(Deferred())
        return drained[-1]

    monkeypatch.setattr("twisted_heartbeat.protocol.session.whenSent", whenSent)
    link.bytesBuffered = 11
    for token in (1, 2, 3):
        session.pingReceived(wire.Ping(token))
    link.bytesBuffered = 0
    [waiting] = drained
    waiting.callback(None)
    assert link.frames() == [wire.Pong(3)]


def test_nothingFollowsAGoodbye() -> None:
    """
    A goodbye is said once, its code is kept in the cause, and no ping, pong or heartbeat follows.
    """
    link: Any = RecordingLink()
    link.cause = PeerClosed("as it happens")
    session = sessionOver(link)
    goodbye = wire.Goodbye("full", retryAfter=3.0, code=GoodbyeCode.NAME_IN_USE)
    session.sayGoodbye(goodbye)
    assert link.frames() == [goodbye]
    session.sayGoodbye(goodbye)
    session.sendPing()
    session.keepPromise(200.0)
    session.pingReceived(wire.Ping(1))
    assert link.frames() == []
    assert (link.cause.goodbyeCode, link.cause.retryAfter) == (GoodbyeCode.NAME_IN_USE, 3.0)


def test_peersGoodbyeIsNotAnswered() -> None:
    """
    A peer that has said goodbye reads no more, so the link closes without another goodbye.
    """
    link = RecordingLink()
    session = sessionOver(link)
    session.goodbyeReceived(wire.Goodbye("moved", retryAfter=2.0))
    [(name, cause)] = link.calls
    assert name == "close"
    assert type(cause) is PeerClosed and cause.retryAfter == 2.0
    session.sayGoodbye(wire.Goodbye("closing"))
    assert link.frames() == []


def test_pingsAreCountedByTheLimit() -> None:
    """
    The session hands the limit what it returned last, and answers no ping of a link that it ended.
    """

    class Limit:
        """
        Allows one ping.
        """

        told: list[float | None] = []

        def spend(self, link: Any, emptyAt: float | None) -> float:
            self.told.append(emptyAt)
            if emptyAt is not None:
                link.state = LinkState.CLOSING
            return 7.0

    link: Any = RecordingLink()
    link.config.pingLimit = Limit()
    session = sessionOver(link)
    session.pingReceived(wire.Ping(1))
    session.pingReceived(wire.Ping(2))
    assert Limit.told == [None, 7.0]
    assert link.frames() == [wire.Pong(1)]
