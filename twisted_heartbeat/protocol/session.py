# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{HeartbeatSession}: the built-in protocol's state on one connection, apart from its messages.

Problem: each end must prove to the other that it lives, within a bound that each end chooses for
itself.  The state for that belongs neither to the link, which knows no protocol, nor to the
protocol, whose instance may outlive the connection.

Idea: a session per connection, from C{connectionMade} on.  The link holds it and asks it to speak;
the protocol hands it every frame that is no message.

States, in the order in which a session passes them:

 1. I{Greeting}.  This side's hello has been written (L{HeartbeatSession.start}).  If it has a
    bound, the link is watched by pings already.
 2. I{Promised}.  The peer's hello was read (L{HeartbeatSession.keepPromiseTo}).  From here on this
    side speaks within 3/4 of what the peer needs, and of what it has offered itself.  A server
    keeps this promise before it has admitted the peer.
 3. I{Negotiated}.  Both hellos were compared (L{HeartbeatSession.negotiate}).  The link is watched
    by pings or passively, as L{Negotiated} says.
 4. I{Parted}.  One side has said goodbye.  Nothing is written any more.

Invariants:

 - A pong, a heartbeat and data are a word; a ping of this side is one, too.  L{promisedWithin} runs
   from the last of them (promise 19).
 - At most one pong waits for the buffer to drain: the last ping's.  Otherwise a peer that does not
   read could fill the buffer with its own pings.
 - The bytes of hello, ping and pong are shared by all sessions that say the same.

Cost: one object of 11 fields for each link, see C{tests/costs/test_costs.py}.
"""

from __future__ import annotations

from functools import lru_cache
from math import inf
from typing import TYPE_CHECKING

from ..core import wire
from ..core.causes import ClosedHere, PeerClosed
from ..core.settings import MIN_BOUND, Heartbeat
from ..core.wire.negotiation import Negotiated
from ..link.mode import Mode
from ..link.state import LinkState
from ..link.writes import sendFailed, whenSent
from ..logs import SafeLogger
from ..transport.compat import discardBuffer

if TYPE_CHECKING:
    from ..link.link import Link

_log = SafeLogger()

PROMISE_FRACTION = 0.75
"""Of the time within which this side has to speak.  The network takes the rest."""


@lru_cache(maxsize=256)
def _sharedPingFor(offers: float) -> wire.SharedPing:
    """
    Return the ping of all links that offer the same, whatever their peers need.  They are pinged
    together.
    """
    return wire.SharedPing(offers)


class LocalHello:
    """
    This side's hello, and the promise that it makes to a peer.  All links of a factory whose peers
    need the same share one.

    @ivar hello: as the peer decodes it, because both sides must negotiate from equal values.
    @ivar frame: its bytes.
    @ivar sharedPing: the bytes of the pings, and of their pongs.
    @ivar promisedWithin: seconds after its last word within which this side has to speak again;
        C{inf} if the peer relies on nothing.
    """

    __slots__ = ("frame", "hello", "promisedWithin", "sharedPing")

    def __init__(self, hello: wire.Hello, needed: float) -> None:
        """
        @param needed: seconds within which the peer needs to hear this side; 0 if it has not said
            so, or does not watch.
        """
        self.hello = hello
        self.frame = wire.encode(hello)
        self.sharedPing = _sharedPingFor(hello.offers)
        # No bound is shorter, so a peer that asks for less can not have it.
        needed = needed and max(MIN_BOUND, needed)
        self.promisedWithin = min(hello.offers or inf, needed or inf) * PROMISE_FRACTION


@lru_cache(maxsize=256)
def _localHello(name: str, needs: float, offers: float, needed: float) -> LocalHello:
    return LocalHello(wire.Hello(name, needs, offers).rounded, needed)


class HeartbeatSession:
    """
    The built-in protocol's state on one connection, see the module's docstring.

    @ivar localHello: what this side has said of itself, and what it has promised.
    @ivar peerHello: what the peer has said of itself; L{None} until it has.
    @ivar peerName: the name that the peer was admitted by; C{""} where no server admits it.
    @ivar negotiated: what both hellos come to; L{None} until the peer's was delivered.
    @ivar expectedPong: the bytes that answer the last ping; L{None} once they have come.
    @ivar lastSentAt: when this side last said something other than a ping, in seconds.
    @ivar goodbyeSaid: whether either side has said goodbye.
    """

    __slots__ = (
        "_link",
        "_peerHold",
        "_pingsEmptyAt",
        "_unansweredPing",
        "expectedPong",
        "goodbyeSaid",
        "lastSentAt",
        "localHello",
        "negotiated",
        "peerHello",
        "peerName",
    )

    def __init__(self, link: Link, name: str, offers: float | None) -> None:
        """
        @param name: what this side calls itself.
        @param offers: seconds within which this side says something by itself; 0 for never; L{None}
            for its bound, within which its pings come.
        @raise ValueError: if the hello can not be encoded.
        """
        bound = link.bound or 0.0
        if offers is None:
            offers = bound if link.watch == "ping" else 0.0
        self._link = link
        self._peerHold = 0.0
        self._pingsEmptyAt: float | None = None
        self._unansweredPing: int | None = None
        self.expectedPong: bytes | None = None
        self.goodbyeSaid = False
        self.lastSentAt = link.config.seconds()
        self.localHello = _localHello(name, bound, min(wire.MAX_HOLD, offers), 0.0)
        self.negotiated: Negotiated | None = None
        self.peerHello: wire.Hello | None = None
        self.peerName = ""

    # Hellos.

    def start(self) -> None:
        """
        Say hello.
        """
        self.writeDirect(self.localHello.frame)
        link = self._link
        # The protocol says how to ping once its reader is between two frames.
        link.peerWatch.pinger = None
        link.session = self
        self._promiseChanged()

    def introduce(self, hello: wire.Hello) -> None:
        """
        Take over the peer's name, and keep the promise to it, before the hello is delivered.  A
        server does so while it decides whether to admit the peer, because that may take longer than
        the peer waits for a word.
        """
        self.peerName = hello.name
        self.keepPromiseTo(hello)

    def keepPromiseTo(self, hello: wire.Hello) -> None:
        """
        Keep the peer's hello, and from here on speak within what the peer needs.
        """
        self.peerHello = hello
        said = self.localHello.hello
        self.localHello = _localHello(said.name, said.needs, said.offers, hello.needs)
        self._promiseChanged()

    def _promiseChanged(self) -> None:
        watch = self._link.peerWatch
        # A batch visits once in an interval, which may be too late for the new promise.
        watch.withdraw()
        watch.reschedule()

    def negotiate(self, hello: wire.Hello) -> None:
        """
        Compare the two hellos, and watch the peer as they say.
        """
        link = self._link
        negotiated = self.negotiated = Negotiated.of(self.localHello.hello, hello)
        link.owner.linkProven(link)
        if not self.localHello.hello.needs:
            self._watchByPeersWord()
        elif link.watch == "passive" and negotiated.incoming.pinged:
            # It has not promised to speak in time.
            heartbeat = Heartbeat.within(max(MIN_BOUND, link.bound or 0.0))
            link.peerWatch.reconfigure(heartbeat, trusted=False)
        elif link.watch == "passive":
            self._watchPassively(link.bound)

    def _watchByPeersWord(self) -> None:
        """
        Watch the peer within the time that it has named, if this side has no bound of its own.  The
        last ping's hold comes first.  A peer that speaks by itself sends no ping, so its hello's
        offer comes next.
        """
        if not self.localHello.hello.needs:
            offers = 0.0 if self.peerHello is None else self.peerHello.offers
            self._watchPassively(self._peerHold or offers or None)

    def _watchPassively(self, within: float | None) -> None:
        """
        Watch the peer passively, because it has promised to speak by itself.

        @param within: seconds, the bound; L{None} if the peer has taken its promise back, so that
            its silence proves nothing.
        """
        heartbeat = None
        if within is not None:
            heartbeat = Heartbeat.forPassivePeer(max(MIN_BOUND, within))
        self._link.peerWatch.reconfigure(heartbeat, trusted=within is not None)

    # Pings.

    def sendPing(self) -> None:
        """
        Ping the peer.
        """
        ping = self.localHello.sharedPing
        ping.advance()
        self.writeDirect(ping.ping)
        self.expectedPong = ping.pong

    def pongReceived(self, pong: wire.Pong) -> None:
        """
        Tell the link, if the pong answers the last ping.
        """
        if wire.packPong(pong.token) == self.expectedPong:
            self.expectedPong = None
            self._link.peerWatch.pongReceived()

    def pingReceived(self, ping: wire.Ping) -> None:
        """
        Answer a ping, now or once the buffer has drained, unless it passes the limit.
        """
        link = self._link
        limit = link.config.pingLimit
        if limit is not None:
            self._pingsEmptyAt = limit.spend(link, self._pingsEmptyAt)
        if link.state is LinkState.CLOSING:
            return
        if self._unansweredPing is not None or self._isBufferFull:
            self._answerLater(ping.token)
        else:
            self.writeDirect(wire.packPong(ping.token))
            self.lastSentAt = link.peerWatch.detector.heardAt
        if ping.hold != self._peerHold:
            self._peerHold = ping.hold
            self._watchByPeersWord()

    @property
    def _isBufferFull(self) -> bool:
        limit = self._link.config.limits.maxBuffered
        return limit is not None and self._link.bytesBuffered > limit

    def _answerLater(self, token: int) -> None:
        """
        Answer the last ping once all that waits now has been sent.  A peer that reads slowly must
        not be ended because its pong overfills the buffer.
        """
        waits, self._unansweredPing = self._unansweredPing is not None, token
        if not waits:
            whenSent(self._link).addCallbacks(self._answerNow, lambda _: None)

    def _answerNow(self, _: object) -> None:
        link, token = self._link, self._unansweredPing
        self._unansweredPing = None
        if token is not None and link.isUp:
            self.writeDirect(wire.packPong(token))
            self.lastSentAt = link.config.seconds()

    # The promise.

    def markSent(self) -> None:
        """
        Note that this side has just said something.
        """
        self.lastSentAt = self._link.config.seconds()

    def promiseDue(self, pingedAt: float) -> float:
        lastSentAt = self.lastSentAt
        spokeAt = pingedAt if pingedAt > lastSentAt else lastSentAt
        return spokeAt + self.localHello.promisedWithin

    def keepPromise(self, now: float) -> None:
        """
        Say something: a pong that answers no ping.  Say nothing if the peer does not take what was
        said before.  What waits for it is a word once it moves, and heartbeats behind it would only
        pile up.
        """
        self.lastSentAt = now
        link = self._link
        if link.isUp and not link.bytesBuffered:
            try:
                self.writeDirect(wire.packPong(0))
            except BaseException as error:
                _log.failure("{link} could not speak", link=link)
                sendFailed(link, error, "the heartbeat failed")

    # Goodbyes.

    def sendGoodbye(self) -> None:
        """
        Say that this side closes the connection.
        """
        self._link.protocol.sayGoodbye(wire.Goodbye("closing"))

    def sayGoodbye(self, goodbye: wire.Goodbye) -> None:
        """
        Say goodbye, once, and nothing after it.
        """
        if self.goodbyeSaid:
            return
        link = self._link
        link.protocol.transport.write(wire.encode(goodbye))
        self.goodbyeSaid = True
        link.recordCause(ClosedHere(f"this side said goodbye: {goodbye.reason}"))
        if link.cause is not None:
            # The link may have had a cause before: a refusal, or a violation.
            link.cause.goodbyeCode = goodbye.code
            link.cause.retryAfter = goodbye.retryAfter

    def goodbyeReceived(self, goodbye: wire.Goodbye) -> None:
        """
        Close the link, because the peer has said goodbye.
        """
        words = "the peer said goodbye"
        cause = PeerClosed(
            f"{words}: {goodbye.reason}" if goodbye.reason else words,
            goodbyeCode=goodbye.code,
            retryAfter=goodbye.retryAfter,
            spread=goodbye.spread,
        )
        # The peer reads no more, so it would not read a goodbye of this side.
        self.goodbyeSaid = True
        link = self._link
        connection = link.peerWatch.connection
        if connection is not None and connection is link.transport and not connection.TLS:
            # It would only keep the peer waiting for the FIN, and count as sent.
            discardBuffer(connection)
        link.close(cause)

    def writeDirect(self, data: bytes) -> None:
        """
        Write a hello, a ping or a pong, unless a goodbye was said.  If no bytes wait before it, and
        the protocol's transport is the connection itself, it is handed to the kernel at once.  That
        saves the reactor two changes of its poll set and a turn (C{benchmarks/heartbeat.py}).
        """
        if self.goodbyeSaid:
            return
        watch, transport = self._link.peerWatch, self._link.protocol.transport
        connection = watch.connection
        if connection is not None and connection.batch is not None:
            watch.interrupt()
        direct = connection is not None and transport is connection and watch.mode >= Mode.DIRECT
        if direct and watch.allArrived() and transport.canWriteDirect:
            transport.writeDirectUnchecked(data)
        else:
            transport.write(data)
