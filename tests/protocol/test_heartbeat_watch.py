# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Who watches whom over the built-in protocol, and by what, in virtual time: what two hellos agree on,
the word that a ping gives, and that nobody is declared dead who lives.
"""

from __future__ import annotations

from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.main import CONNECTION_LOST
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.logger import LogEvent

from twisted_heartbeat import Heartbeat, HeartbeatProtocol, Limits, PeerClosed, PeerSilent
from twisted_heartbeat.core import wire
from twisted_heartbeat.core.causes import GoodbyeCode
from twisted_heartbeat.core.wire.negotiation import Direction, Negotiated
from twisted_heartbeat.link.state import LinkState
from twisted_heartbeat.timing.wheel import timerWheelFor

from ..support.countingsockets import Scene
from ..support.virtualnetwork import FakeTransport, Recorder

SLOT = 1 / 64
"""How late the wheel may be."""


class Cable(FakeTransport):
    """
    A transport that leads to another one.

    @ivar cut: whether nothing arrives there any more.
    """

    cut = False
    latency = 0.01
    other: Cable

    def write(self, data: bytes) -> None:
        """
        See C{ITransport}.
        """
        super().write(data)
        if not self.cut:
            self._clock.callLater(self.latency, self._arrive, data)

    def _arrive(self, data: bytes) -> None:
        if not self.cut:
            self.other.deliver(data)


class End:
    """
    One end of a link, and what was written there.
    """

    def __init__(self, clock: Clock, heartbeat: Heartbeat | None, **attributes: Any) -> None:
        self.clock = clock
        self.hooks = Recorder()
        body = {"clock": clock, "hooks": self.hooks, "heartbeat": heartbeat, **attributes}
        self.protocol: Any = type("Speaker", (HeartbeatProtocol,), body)()
        self.transport = Cable(clock, self.protocol)

    @property
    def link(self) -> Any:
        return self.protocol.link

    def connect(self) -> End:
        """
        Alone: what it says arrives nowhere.
        """
        self.transport.cut = True
        self.protocol.makeConnection(self.transport)
        return self

    def hear(self, *frames: wire.Frame) -> None:
        """
        The other end has said this.
        """
        self.transport.deliver(b"".join(map(wire.encode, frames)))

    def written(self) -> list[wire.Frame]:
        """
        The frames written since the last look.
        """
        found = list(wire.FrameReader().receive(self.transport.value()))
        self.transport.clear()
        return found


def joined(
    one: Heartbeat | None, other: Heartbeat | None, **attributes: Any
) -> tuple[Clock, End, End]:
    """
    Two ends in virtual time.
    """
    clock = Clock()
    ends = End(clock, one, **attributes), End(clock, other)
    for end, far in (ends, ends[::-1]):
        end.transport.other = far.transport
        end.protocol.makeConnection(end.transport)
    return clock, *ends


def run(clock: Clock, seconds: float) -> None:
    """
    Time passes, and all that is due happens on its own instant.
    """
    end = clock.seconds() + seconds
    while True:
        soonest = min((call.getTime() for call in clock.getDelayedCalls()), default=inf)
        if soonest > end:
            break
        clock.advance(max(0.0, soonest - clock.seconds()))
    clock.advance(end - clock.seconds())


def part(*ends: End) -> None:
    for end in ends:
        end.transport.lose()


EVEN = Heartbeat(interval=4, timeout=4)


# What a hello says.


@pytest.mark.parametrize(
    ("heartbeat", "offers", "hello"),
    [
        (EVEN, None, wire.Hello("", 8, 8)),
        (Heartbeat(interval=None, timeout=5), None, wire.Hello("", 5, 0)),
        (None, None, wire.Hello("", 0, 0)),
        (None, 3, wire.Hello("", 0, 3)),
        (EVEN, 0, wire.Hello("", 8, 0)),
        (EVEN, 2.5, wire.Hello("", 8, 2.5)),
        (Heartbeat(interval=9000, timeout=1000), None, wire.Hello("", 10_000, 6553.5)),
    ],
)
def test_hello(heartbeat: Heartbeat | None, offers: float | None, hello: wire.Hello) -> None:
    """
    A hello says what is true: the bound if there is one, and within what this side speaks by
    itself, which is its bound if it pings, what C{offers} says if that does, and at most what a
    ping's hold can say.
    """
    end = End(Clock(), heartbeat, offers=offers).connect()
    assert end.written() == [hello]
    part(end)


def test_offersThatAreNone() -> None:
    """
    An offer that is no time is a C{ValueError} that says so.
    """
    end = End(Clock(), None, offers=-1)
    with pytest.raises(ValueError, match="offers is -1"):
        end.connect()
    part(end)


# What two hellos come to.


def test_agreement() -> None:
    """
    C{link.agreement} is C{None} until the peer has said hello, and then the same on both ends.
    """
    clock, one, other = joined(EVEN, Heartbeat(interval=None, timeout=30), name="one")
    assert one.link.agreement is None and other.link.agreement is None
    run(clock, 0.1)
    assert one.link.agreement == Negotiated(
        outgoing=Direction(within=30, unsolicitedInterval=8),
        incoming=Direction(within=8, unsolicitedInterval=0),
    )
    assert other.link.agreement == Negotiated(
        outgoing=one.link.agreement.incoming, incoming=one.link.agreement.outgoing
    )
    part(one, other)


def test_passiveWithATimelyOffer() -> None:
    """
    A peer that offers to speak within the bound of a passive watch is not pinged, is not suspected
    as long as it has three quarters of that, and is found at the bound.
    """
    clock = Clock()
    end = End(clock, Heartbeat(interval=None, timeout=8)).connect()
    end.hear(wire.Hello("", 0, 8))
    end.written()
    assert end.link.watch == "passive"
    run(clock, 6.9)
    assert end.hooks.names == ["connected"]
    run(clock, 0.2)
    assert end.hooks.names == ["connected", "suspected"]
    run(clock, 0.8)
    assert end.transport.open
    run(clock, 0.1 + SLOT)
    assert not end.transport.open
    assert end.written() == []
    assert type(end.hooks.told("disconnected")[0]) is PeerSilent


@pytest.mark.parametrize("offers", [0, 8.001])
def test_passiveWithoutATimelyOffer(offers: float) -> None:
    """
    A peer that has not offered to speak within the bound of a passive watch is pinged after all,
    within the same bound: it would otherwise be found dead while it lives.
    """
    clock = Clock()
    end = End(clock, Heartbeat(interval=None, timeout=8)).connect()
    end.hear(wire.Hello("", 0, offers))
    end.written()
    assert (end.link.watch, end.link.bound) == ("ping", 8)
    run(clock, 5)
    [ping] = end.written()
    assert isinstance(ping, wire.Ping)
    assert ping.hold == 0
    end.hear(wire.Pong(ping.token))
    run(clock, 7.9)
    assert end.transport.open
    run(clock, 0.1 + SLOT)
    assert not end.transport.open


def test_offersDoNotPutAPingOff() -> None:
    """
    Who pings goes on pinging a peer that has offered to speak: into silence only, for the answer
    shall have its whole timeout.
    """
    clock = Clock()
    end = End(clock, EVEN).connect()
    end.hear(wire.Hello("", 0, 3))
    end.written()
    for _ in range(5):
        run(clock, 3)
        end.hear(wire.Pong(0))
    assert not [frame for frame in end.written() if isinstance(frame, wire.Ping)]
    run(clock, 4 + SLOT)
    assert [frame.hold for frame in end.written() if isinstance(frame, wire.Ping)] == [8]
    part(end)


# hold.


def test_pingCarriesHold() -> None:
    """
    A ping says within what this side will speak again, rounded up to what the wire can tell: the
    bound, within which it always does.
    """
    clock = Clock()
    end = End(clock, Heartbeat(interval=4, timeout=3.33)).connect()
    end.written()
    run(clock, 4.1)
    [first] = end.written()
    run(clock, 1.9)
    [second] = end.written()
    assert isinstance(first, wire.Ping) and isinstance(second, wire.Ping)
    assert first.hold == second.hold == 7.4
    assert first.token != second.token
    part(end)


def test_watchingBack() -> None:
    """
    Who has no heartbeat of its own, and is told a hold, watches by that: passively, from the last
    byte on, and not sooner suspicious than a sender needs who keeps it.
    """
    clock = Clock()
    end = End(clock, None).connect()
    end.hear(wire.Hello())
    run(clock, 100)
    assert (end.link.watch, end.link.bound) == ("keepalive", None)
    end.hear(wire.Ping(1, 4))
    assert (end.link.watch, end.link.bound) == ("passive", 4)
    end.written()
    run(clock, 3)
    end.transport.deliver(b"\x01")
    run(clock, 3.4)
    assert end.hooks.names == ["connected"]
    run(clock, 0.2)
    assert end.hooks.names == ["connected", "suspected"]
    run(clock, 0.3)
    assert end.transport.open
    run(clock, 0.1 + SLOT)
    [cause] = end.hooks.told("disconnected")
    assert type(cause) is PeerSilent
    assert "the bound is 4 s" in str(cause)
    assert end.written() == []


def test_watchingBackByTheHello() -> None:
    """
    The offer of the hello is a word, too, from the first moment on: to one who talks, no ping ever
    comes.  A ping's hold takes its place, until there is none.
    """
    clock = Clock()
    end = End(clock, None).connect()
    end.hear(wire.Hello("", 8, 6))
    assert (end.link.watch, end.link.bound) == ("passive", 6)
    end.hear(wire.Ping(1, 0))
    assert end.link.bound == 6
    end.hear(wire.Ping(2, 4))
    assert end.link.bound == 4
    end.hear(wire.Ping(3, 0))
    assert end.link.bound == 6
    run(clock, 5.9)
    assert end.transport.open
    run(clock, 0.1 + SLOT)
    assert type(end.hooks.told("disconnected")[0]) is PeerSilent


@pytest.mark.parametrize("hold", [0, 4.5, 30])
def test_newHoldIsARecovery(hold: float) -> None:
    """
    A suspected peer that speaks, and changes its hold with that, has recovered, once.
    """
    clock = Clock()
    end = End(clock, None).connect()
    end.hear(wire.Hello(), wire.Ping(1, 4))
    run(clock, 3.7)
    assert end.hooks.names == ["connected", "suspected"]
    end.hear(wire.Ping(2, hold))
    assert end.hooks.names == ["connected", "suspected", "recovered"]
    assert end.link.state == "alive"
    part(end)


def test_holdThatChanges() -> None:
    """
    The last ping's hold counts: a longer one gives more time, and 0 ends the watch.
    """
    clock = Clock()
    end = End(clock, None).connect()
    end.hear(wire.Ping(1, 4), wire.Ping(2, 4))
    run(clock, 3)
    end.hear(wire.Ping(3, 30))
    assert end.link.bound == 30
    run(clock, 22)
    assert end.hooks.names == ["connected"]
    end.hear(wire.Ping(4, 0))
    assert (end.link.watch, end.link.bound) == ("keepalive", None)
    run(clock, 1000)
    assert end.transport.open
    part(end)


def test_holdBeforeTheHello() -> None:
    """
    Who watches back by a ping that came before the hello goes on with that, and pings nobody,
    whatever the hello offers.
    """
    clock = Clock()
    end = End(clock, None).connect()
    end.written()
    end.hear(wire.Ping(1, 4), wire.Hello("", 8, 100))
    assert (end.link.watch, end.link.bound) == ("passive", 4)
    run(clock, 3.9)
    assert end.written() == [wire.Pong(1)]
    part(end)


def test_holdThatKeepsChanging() -> None:
    """
    A peer whose pings have ever another hold does not fill the wheel with visits (promise 17), and
    the last of its holds counts all the same.
    """
    clock = Clock()
    end = End(clock, None).connect()
    for number in range(2000):
        end.hear(wire.Ping(number, 1000 + number % 7))
        clock.advance(0.05)
    assert sum(len(slot.timers) for slot in timerWheelFor(clock)._slots.values()) < 50
    end.hear(wire.Ping(1, 3), wire.Ping(2, 4))
    run(clock, 3.9)
    assert end.transport.open
    run(clock, 0.1 + SLOT)
    assert not end.transport.open


def test_shortestHold() -> None:
    """
    No hold makes a bound shorter than the shortest there is.
    """
    end = End(Clock(), None).connect()
    end.hear(wire.Ping(1, 0.1))
    assert end.link.bound == 0.2
    part(end)


@pytest.mark.parametrize("heartbeat", [EVEN, Heartbeat(interval=None, timeout=8)])
def test_ownBoundCounts(heartbeat: Heartbeat) -> None:
    """
    Who has a bound of its own does not go by the peer's hold.
    """
    end = End(Clock(), heartbeat).connect()
    end.hear(wire.Hello("", 0, 5), wire.Ping(1, 0.5))
    assert end.link.bound == 8
    part(end)


def test_watchingBackIsLogged(events: list[LogEvent]) -> None:
    """
    The log's C{bound} is the one that holds for the link, and not what the settings say.
    """
    clock = Clock()
    end = End(clock, None).connect()
    end.hear(wire.Ping(1, 4))
    run(clock, 4 + SLOT)
    bounds = {event["event"]: event["bound"] for event in events if event.get("event")}
    assert bounds == {"connected": None, "suspected": 4.0, "disconnected": 4.0}


# The word is kept.


def test_wordIsKeptWhileTheOtherTalks() -> None:
    """
    Who hears so much that it need never ping speaks all the same within what it has offered, with
    a pong that nobody asked for, and not more often than needed (promise 2 holds: it is no ping).
    """
    clock = Clock()
    end = End(clock, EVEN).connect()
    end.hear(wire.Hello())
    end.written()
    spoke = []
    for _ in range(80 * 2):
        run(clock, 0.5)
        end.hear(wire.Data(b"talk"))
        spoke += [(clock.seconds(), frame) for frame in end.written()]
    assert {frame for _, frame in spoke} == {wire.Pong(0)}
    assert 80 / 8 <= len(spoke) <= 80 / 6 + 1
    times = [0.0, *(when for when, _ in spoke)]
    assert max(b - a for a, b in zip(times, times[1:], strict=False)) <= 6.5
    part(end)


def test_offersWithoutAHeartbeat() -> None:
    """
    Who does not watch but has offered to speak does so, in three quarters of the time.
    """
    clock = Clock()
    end = End(clock, None, offers=4).connect()
    end.written()
    spoke = []
    for _ in range(40):
        run(clock, 1)
        spoke += end.written()
    assert spoke == [wire.Pong(0)] * 13
    part(end)


def test_answersKeepTheWordToo() -> None:
    """
    A pong that was asked for is a word as good as any: none is added to it.
    """
    clock = Clock()
    end = End(clock, None, offers=4).connect()
    end.written()
    for _ in range(20):
        run(clock, 2)
        end.hear(wire.Ping(5))
    assert end.written() == [wire.Pong(5)] * 20
    part(end)


def test_idleLinksSayNothingMore() -> None:
    """
    On an idle link there is one ping and one pong to an interval, whoever offers what, and the word
    needs nothing beside them.
    """
    clock, one, other = joined(EVEN, None)
    run(clock, 40)
    said = [frame for end in (one, other) for frame in end.written()]
    assert {type(frame) for frame in said} == {wire.Hello, wire.Ping, wire.Pong}
    assert wire.Pong(0) not in said
    assert 2 * 9 <= len(said) - 2 <= 2 * 10
    part(one, other)


LONG = Heartbeat.within(35)


@pytest.mark.parametrize("heartbeat", [None, LONG, Heartbeat(interval=None, timeout=35)])
def test_speaksWithinWhatThePeerNeeds(heartbeat: Heartbeat | None) -> None:
    """
    An end that reads nothing, and so sees no ping, speaks all the same within three quarters of
    what the peer has said that it needs, whatever its own bound (promise 19).
    """
    clock = Clock()
    end = End(clock, heartbeat).connect()
    end.hear(wire.Hello("", needs=8))
    end.written()
    spoke = []
    for _ in range(34 * 64):
        run(clock, 1 / 64)
        spoke += [clock.seconds() for _ in end.written()]
    assert len(spoke) >= 5
    assert max(b - a for a, b in zip([0.0, *spoke], spoke, strict=False)) <= 6 + SLOT
    part(end)


def test_needsOfNothing() -> None:
    """
    For a peer that does not watch, nothing is said that nobody asked for.
    """
    clock = Clock()
    end = End(clock, None).connect()
    end.hear(wire.Hello("", needs=0, offers=5))
    end.written()
    for _ in range(10):
        run(clock, 4)
        end.hear(wire.Data(b"talk"))
    assert end.written() == []
    part(end)


def test_needsHaveAFloor() -> None:
    """
    A peer that says that it needs a word each millisecond gets one as often as the shortest bound
    of this package needs it, and no more often (promise 17).
    """
    clock = Clock()
    end = End(clock, LONG).connect()
    end.hear(wire.Hello("", needs=0.001))
    end.written()
    run(clock, 3)
    assert 3 / (0.15 + SLOT) - 1 <= len(end.written()) <= 3 / 0.15
    part(end)


def test_messagesKeepTheWordToo() -> None:
    """
    A message is a word as good as any: none is added to it, and the next is due as long after it.
    """
    clock = Clock()
    end = End(clock, LONG).connect()
    end.hear(wire.Hello("", needs=8))
    end.written()
    for _ in range(10):
        run(clock, 3)
        end.hear(wire.Data(b"question"))
        end.protocol.sendMessage(b"answer")
    assert end.written() == [wire.Data(b"answer")] * 10
    run(clock, 6 - SLOT)
    end.hear(wire.Data(b"question"))
    assert end.written() == []
    run(clock, 3 * SLOT)
    assert end.written() == [wire.Pong(0)]
    part(end)


def test_unequalBoundsSayNothingMore() -> None:
    """
    Where both read, the pings of the end with the shorter bound, and their pongs, are all that is
    said: the other end need not speak by itself.
    """
    clock, one, other = joined(LONG, Heartbeat.within(8))
    run(clock, 100)
    said = [frame for end in (one, other) for frame in end.written()]
    assert {type(frame) for frame in said} == {wire.Hello, wire.Ping, wire.Pong}
    assert wire.Pong(0) not in said
    part(one, other)


def test_heartbeatsDoNotPileUp() -> None:
    """
    Where the peer takes nothing, no heartbeat is added to what waits for it; when that has drained
    this side speaks again in time.
    """
    clock = Clock()

    class Watched(HeartbeatProtocol):
        heartbeat = LONG
        keepAlive = None
        limits = Limits(sendStall=None)

    Watched.clock = clock
    scene = Scene(Factory.forProtocol(Watched), clock)
    scene.flush()
    scene.receive(wire.encode(wire.Hello("", needs=8)))
    scene.forget()
    scene.protocol.sendMessage(b"it waits")
    waits = scene.connection.bytesBuffered()
    for _ in range(20):
        clock.advance(1)
        scene.receive(wire.encode(wire.Data(b"talk")))
    assert scene.connection.bytesBuffered() == waits > 0
    scene.flush()
    scene.forget()
    for _ in range(7 * 64):
        clock.advance(1 / 64)
    scene.flush()
    assert scene.socket.sent == wire.encodePong(0)
    scene.lose(CONNECTION_LOST)


def test_noWordBeforeTheHandshake() -> None:
    """
    A word is not kept by what nobody can hear: during a TLS handshake nothing is said.
    """
    clock = Clock()
    end = End(clock, None, offers=4).connect()
    end.written()
    end.link.state = LinkState.HANDSHAKING
    run(clock, 10)
    assert end.written() == []
    end.link.state = LinkState.ALIVE
    run(clock, 3)
    assert end.written() == [wire.Pong(0)]
    part(end)


# All of it together.

PASSIVE = Heartbeat(interval=None, timeout=6)
WATCHES: list[Heartbeat | None] = [
    None,
    EVEN,
    PASSIVE,
    Heartbeat(interval=7, timeout=1),
    Heartbeat(interval=1, timeout=7),
    Heartbeat(interval=None, timeout=3),
    Heartbeat.within(0.5),
]


@given(
    one=st.sampled_from(WATCHES),
    other=st.sampled_from(WATCHES),
    talk=st.sampled_from([None, 0.3, 2.0, 5.0]),
    answer=st.booleans(),
    latency=st.sampled_from([0.0, 0.02, 0.05]),
    phase=st.floats(0, 10),
)
@settings(max_examples=150)
def test_aliveIsNeverDeadAndDeadIsFound(
    one: Heartbeat | None,
    other: Heartbeat | None,
    talk: float | None,
    answer: bool,
    latency: float,
    phase: float,
) -> None:
    """
    Whoever pings, client, server, both or neither, and whoever talks how much: no end that lives is
    declared dead, or even suspected; and once the cable is cut, each end that has a bound, its own
    or by the other's word, finds it in time, and not before (promise 3).
    """
    clock, near, far = joined(one, other)
    near.transport.latency = far.transport.latency = latency

    def say() -> None:
        near.protocol.sendMessage(b"talk")
        if answer:
            far.protocol.sendMessage(b"answer")
        if talk is not None:
            clock.callLater(talk, say)

    if talk is not None:
        clock.callLater(talk, say)
    run(clock, 60 + phase)
    for end in (near, far):
        assert end.hooks.names == ["connected"]
    near.transport.cut = far.transport.cut = True
    bounds = [end.link.bound for end in (near, far)]
    found: dict[End, float] = {}
    for end in (near, far):
        end.link.whenGone().addCallback(lambda _, end=end: found.setdefault(end, clock.seconds()))
    run(clock, max(bound or 0 for bound in bounds) + SLOT)
    for end, bound in zip((near, far), bounds, strict=True):
        assert (end in found) == (bound is not None)
        if bound is not None:
            assert type(end.hooks.told("disconnected")[0]) is PeerSilent
            assert (
                0.95 * bound
                <= found[end] - end.link.peerWatch.detector.heardAt
                <= bound + SLOT + 1e-6
            )
    part(near, far)


# Goodbye.


def test_goodbyeClosesBothEnds() -> None:
    """
    Who hears a goodbye says nothing more, reads nothing more, and closes at once; its cause is
    C{PeerClosed}, with all that the goodbye says.  Who has said it has closed by itself.
    """
    clock = Clock()
    end = End(clock, EVEN).connect()
    end.written()
    goodbye = wire.Goodbye("restart", 5, 10, GoodbyeCode.TOO_MANY_PINGS)
    end.hear(wire.Hello("", 1, 1), goodbye, wire.Ping(1), wire.Data(b"late"))
    assert end.transport.disconnecting and not end.transport.aborting
    end.hear(wire.Ping(2))
    end.protocol.sendPing()
    assert end.written() == []
    run(clock, 0)
    [cause] = end.hooks.told("disconnected")
    assert type(cause) is PeerClosed
    assert str(cause) == "the peer said goodbye: restart"
    assert cause.goodbyeCode is GoodbyeCode.TOO_MANY_PINGS
    assert (cause.retryAfter, cause.spread) == (5, 10)


def test_goodbyeToOneWhoDoesNotReadOn() -> None:
    """
    The close that a goodbye asks for is bounded like any other (promise 9).
    """
    clock = Clock()
    end = End(clock, EVEN).connect()
    end.transport.stuck = True
    end.hear(wire.Goodbye())
    run(clock, 4.9)
    assert end.transport.open
    run(clock, 0.2)
    assert not end.transport.open
    assert type(end.hooks.told("disconnected")[0]) is PeerClosed
    assert str(end.hooks.told("disconnected")[0]) == "the peer said goodbye"
