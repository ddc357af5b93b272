# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Door 1: mix L{HeartbeatMixin} into a protocol of your own, or build on L{HeartbeatProtocol}.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache, partial
from math import inf
from time import monotonic
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IHandshakeListener, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure
from zope.interface import implementer

from .core import wire
from .core.agreement import Agreement
from .core.causes import ClosedHere, PeerClosed, PeerSilent, ProtocolViolation
from .core.settings import SHORTEST_BOUND, Heartbeat, KeepAlive, Limits
from .net.clock import clockFor
from .net.hooks import LinkHooks
from .net.link import Link, Unowned
from .net.reports import SafeLogger
from .net.terms import Ping, Terms
from .net.transport import abort

_log = SafeLogger()

_UNOWNED = Unowned()
_NO_HOOKS = LinkHooks()
_NO_LIMITS = Limits.off()


def _forget(one: object, name: str) -> None:
    """
    Uncover what its class has.  Not by way of C{__dict__}, which would have Python make one.
    """
    with suppress(AttributeError):
        delattr(one, name)


@implementer(IHandshakeListener)
class HeartbeatMixin(TimeoutMixin):
    """
    Watches the link of any protocol that it is mixed into, before the protocol's own class::

        class Sensor(HeartbeatMixin, LineReceiver):
            def sendPing(self):
                self.sendLine(b"ping")

    Every received byte is life; C{sendPing} only has to make a silent peer send some.  Without it
    silence proves nothing, and the link is watched by keepalive and send progress only.

    The class attributes below hold where no factory of this package says otherwise.

    C{timeOut}, C{setTimeout}, C{resetTimeout} and C{timeoutConnection} mean what they mean in
    Twisted's C{TimeoutMixin}, but that C{resetTimeout} costs one assignment and
    C{timeoutConnection} aborts.  They are beside the heartbeat, not part of it.

    @ivar link: the link, from C{makeConnection} on.
    """

    heartbeat: Heartbeat | None = Heartbeat()
    keepAlive: KeepAlive | None = KeepAlive()
    limits: Limits | None = Limits()
    hooks: LinkHooks | None = None
    clock: IReactorTime | None = None

    link: Link | None = None

    __last: tuple[object, Terms] | None = None

    dataReceived: Callable[[bytes], None]
    connectionLost: Callable[..., None]

    timeOut: float | None = None  # type: ignore[assignment]
    __timeoutCall: IDelayedCall | None = None
    __timeoutFrom = 0.0
    __timeoutSeconds: Callable[[], float] = staticmethod(monotonic)

    def sendPing(self) -> object:
        """
        Make the peer speak.  What a subclass supplies.

        @return: may be a Deferred or a coroutine that gives the answer; it is used for the
            round-trip time only, and its failure is no error.  What is raised before anything is
            waited for ends the link.
        """
        raise NotImplementedError(f"{type(self).__name__} has no sendPing")

    @classmethod
    def ping(cls) -> Ping | None:
        """
        How to ping over this protocol; L{None} if it does not say.
        """
        return None if cls.sendPing is HeartbeatMixin.sendPing else cls.sendPing

    def makeConnection(self, transport: Any) -> None:
        """
        See C{IProtocol}.
        """
        if self.link is None or self.link.state == "gone":
            self.link = MixedInLink(self.__terms(), _UNOWNED, self, self, self.ping())
        link = self.link
        link.established(transport)
        self.__listen(link)
        super().makeConnection(transport)  # type: ignore[misc]
        link.protocolConnected()

    def handshakeCompleted(self) -> None:
        """
        See C{IHandshakeListener}.  Override it as you like.
        """

    def __terms(self) -> Terms:
        """
        Those of the class's last link, where nothing else is said here: most often all are alike.
        """
        last, kind = self.__last, type(self)
        clock, limits, hooks = (
            clockFor(self.clock),
            self.limits or _NO_LIMITS,
            self.hooks or _NO_HOOKS,
        )
        said = (kind.__name__, self.heartbeat, self.keepAlive, limits, id(clock), id(hooks))
        if last is None or said != last[0]:
            terms = Terms(
                clock=clock,
                heartbeat=self.heartbeat,
                keepAlive=self.keepAlive,
                limits=limits,
                hooks=hooks,
                name=kind.__name__,
            )
            # Held by the terms, the clock and the hooks are no others as long as this is here.
            last = kind.__last = (said, terms)
        return last[1]

    def __listen(self, link: Link) -> None:
        """
        Tell the link of what the transport tells the protocol.

        By attributes of the instance and not by methods: whoever overrides C{connectionLost} or
        C{handshakeCompleted} need not call its super, as nobody does in Twisted; and to call the
        super's C{dataReceived} costs each chunk more than all the rest of the watching.
        """
        # What an earlier connection of the same instance may have left.
        for name in ("dataReceived", "handshakeCompleted", "connectionLost"):
            _forget(self, name)
        # A method, for a partial would cost each link a third of a kilobyte, until the first word.
        self.dataReceived = self.__firstHeard
        if not link.endsByItself:
            self.__coverEnd()
        if link.state == "handshaking":
            completed = partial(self.__handshaken, link, self.handshakeCompleted)
            self.handshakeCompleted = completed  # type: ignore[method-assign]

    def __coverEnd(self) -> None:
        """
        Hear of the end, before the protocol does.
        """
        self.connectionLost = self.__lost

    def __firstHeard(self, data: bytes) -> None:
        link = self.link
        assert link is not None
        link.heard()
        covering = self.dataReceived
        _forget(self, "dataReceived")
        deliver = self.dataReceived
        if not link.hearsByItself:
            # Else it sees the chunks on the socket from here on.
            self.dataReceived = covering
        deliver(data)

    @staticmethod
    def __handshaken(link: Link, completed: Callable[[], None]) -> None:
        link.handshaken()
        completed()

    def __lost(self, reason: Failure = connectionDone) -> None:
        link = self.link
        if link is None or link.state == "gone":
            # A transport that was done without lets go after all.
            return
        self.__cancelTimeout()
        reason = link.lost(reason)
        covering = self.connectionLost
        _forget(self, "connectionLost")
        try:
            lost, self.connectionLost = self.connectionLost, covering
            lost(reason)
        finally:
            link.ended()

    # The TimeoutMixin's part.

    def callLater(self, period: float, func: Callable[[], None]) -> IDelayedCall:
        """
        See C{TimeoutMixin.callLater}.
        """
        return clockFor(self.clock).callLater(period, func)

    def resetTimeout(self) -> None:
        """
        See C{TimeoutMixin.resetTimeout}.
        """
        self.__timeoutFrom = self.__timeoutSeconds()

    def setTimeout(self, period: float | None) -> float | None:
        """
        See C{TimeoutMixin.setTimeout}.

        @param period: seconds, or L{None} for no timeout.
        @return: the period before.
        """
        before, self.timeOut = self.timeOut, period
        if period is None:
            self.__cancelTimeout()
        elif self.__timeoutCall is None:
            self.__startTimeout(period)
            self.resetTimeout()
        else:
            self.resetTimeout()
            self.__timeoutCall.reset(period)
        return before

    def timeoutConnection(self) -> None:
        """
        Called when C{timeOut} seconds have passed without C{resetTimeout}: abort.
        """
        if self.link is not None:
            self.link.abort(PeerSilent(f"resetTimeout was not called for {self.timeOut:g} s"))
        else:
            abort(self.transport)  # type: ignore[attr-defined]

    def __startTimeout(self, delay: float) -> None:
        call = self.__timeoutCall = self.callLater(delay, self.__timeoutPassed)
        # Who brings a callLater of its own brings its clock with it.
        self.__timeoutSeconds = getattr(call, "seconds", self.__timeoutSeconds)

    def __cancelTimeout(self) -> None:
        call, self.__timeoutCall = self.__timeoutCall, None
        if call is not None and call.active():
            call.cancel()

    def __timeoutPassed(self) -> None:
        self.__timeoutCall = None
        if self.timeOut is None:
            return
        left = self.__timeoutFrom + self.timeOut - self.__timeoutSeconds()
        # Sums of floats: a nanosecond is no time.
        if left > 1e-9:
            self.__startTimeout(left)
        else:
            self.timeoutConnection()


class MixedInLink(Link):
    """
    The link of a protocol that has a place for it.
    """

    __slots__ = ()

    def connectionEnds(self) -> None:
        """
        See L{Sender<twisted_heartbeat.net.transport.Sender>}.  Until then the protocol need not
        keep for it what each of many would keep.
        """
        protocol = self.protocol
        # Whoever has put something there himself keeps it, and the connection tells us.
        if "connectionLost" not in vars(protocol):
            protocol._HeartbeatMixin__coverEnd()


_OVER = ("closing", "gone")
"""States of a link of which nothing is heard any more."""

_SOON_ENOUGH = 0.75
"""Of the time within which this side has to say something, for the network takes some as well."""


@lru_cache(maxsize=256)
def _beatsFor(offers: float) -> wire.Beats:
    """
    One for all links that promise the same, whatever their peers need: they are pinged together.
    """
    return wire.Beats(offers)


_Act = Callable[[Any], object]
"""Takes the protocol."""


class _Said:
    """
    What this side says, alike on all the links of a factory whose peers need the same.

    @ivar hello: as the other side has it, for both have to come to the same agreement.
    @ivar frame: its bytes.
    @ivar beats: what to ping with.
    @ivar within: see L{Manner<twisted_heartbeat.net.link.Manner>}.
    @ivar speak: see there, too.
    @ivar sayClosing: and this.
    """

    __slots__ = ("beats", "frame", "hello", "sayClosing", "speak", "within")

    def __init__(self, hello: wire.Hello, needed: float, speak: _Act, sayClosing: _Act) -> None:
        """
        @param needed: seconds within which the peer has said that it has to hear this side; 0 if it
            has not said so, or does not watch.
        """
        self.hello = hello
        self.frame = wire.encode(hello)
        self.beats = _beatsFor(hello.offers)
        # No bound is shorter, so a peer that asks for more than that can not have it.
        needed = needed and max(SHORTEST_BOUND, needed)
        self.within = min(hello.offers or inf, needed or inf) * _SOON_ENOUGH
        self.speak = speak
        self.sayClosing = sayClosing


@lru_cache(maxsize=256)
def _resting(maxMessage: int) -> wire.Stream:
    """
    One for all, to be asked for a L{whole<wire.Reader.whole>} frame, which changes nothing in it.
    """
    return wire.Stream.opened(maxMessage)


class _Greeting(Protocol):
    """
    A protocol that says hello in its C{connectionMade}, so that no subclass may leave that out.
    """

    link: Link | None

    def makeConnection(self, transport: Any) -> None:
        super().makeConnection(transport)  # type: ignore[no-untyped-call]
        link = self.link
        # To say hello is to set the manner.
        if link is not None and link.manner is None and link.state not in _OVER:
            kind: Any = type(self)
            link.abort(ClosedHere(_complaint(kind)))


@lru_cache(maxsize=256)
def _complaint(kind: type) -> str:
    """
    Log, once for each class, that it says no hello.

    @return: the same, for the cause.
    """
    name = kind.__qualname__
    words = f"{name}.connectionMade must call super().connectionMade(), which says hello"
    _log.error("{words}: the connection is aborted", words=words)
    return words


class HeartbeatProtocol(HeartbeatMixin, _Greeting):
    """
    Speaks the built-in protocol, see L{twisted_heartbeat.core.wire}: messages of bytes, and the
    heartbeat.  Override L{messageReceived}; call L{sendMessage}.

    @ivar name: what this side calls itself.
    @ivar offers: seconds within which this side says something by itself, asked or not; 0 for
        never; L{None} for what its own pings come to, which is its bound.
    @ivar hello: what the other side has said of itself; L{None} until it has.
    @ivar maxMessage: bytes that a received message may have.
    """

    name = ""
    offers: float | None = None
    hello: wire.Hello | None = None
    maxMessage = wire.MAX_MESSAGE

    __hold = 0.0
    __parted = False

    def connectionMade(self) -> None:
        """
        Say hello.  An override has to call its super.
        """
        # What an earlier connection may have left; most have none, and keep none for it.
        for name in ("hello", "_HeartbeatProtocol__hold", "_HeartbeatProtocol__parted"):
            _forget(self, name)
        self.__reader: wire.Reader | None = self._newReader()
        link = self.__link()
        said = self.__said = self.__saying(self.name, link.bound or 0.0, self.__offered(link), 0.0)
        self.__beat(said.frame)
        link.behave(said)

    @staticmethod
    @lru_cache(maxsize=256)
    def __saying(name: str, needs: float, offers: float, needed: float) -> _Said:
        hello = wire.Hello(name, needs, offers).rounded
        return _Said(hello, needed, HeartbeatProtocol.__speak, HeartbeatProtocol.__sayClosing)

    def _newReader(self) -> wire.Reader:
        return wire.Stream(self.maxMessage)

    def sendMessage(self, message: bytes) -> Deferred[None]:
        """
        Send a message.

        @return: see L{Link.send}; fails with L{SendFailed}, and ends the link, if the message can
            not be encoded.
        """
        link = self.__link()
        try:
            frame = wire.encode(wire.Data(self.encodeMessage(message)))
        except BaseException as error:
            return link.sendFailed(error)
        return link.send(frame)

    def encodeMessage(self, message: Any) -> bytes:
        """
        The bytes of a message.  Override it to send something else.
        """
        if not isinstance(message, (bytes, bytearray, memoryview)):
            raise TypeError(f"a message must be bytes, and not {type(message).__name__}")
        return bytes(message)

    def messageReceived(self, message: bytes) -> None:
        """
        A message has come.  Override it.
        """

    def helloReceived(self, hello: wire.Hello) -> None:
        """
        The other side has said who it is.  Override it.
        """

    def sendPing(self) -> None:
        """
        See L{HeartbeatMixin.sendPing}.
        """
        link, beats = self.__link(), self.__said.beats
        beats.advance()
        self.__beat(beats.ping)
        link.pong = beats.pong

    def sayGoodbye(self, goodbye: wire.Goodbye) -> None:
        """
        Say goodbye, once, and nothing after it.  The other side is to close the connection; whoever
        does not want to wait for that calls C{link.close()}.
        """
        if not self.__parted:
            self.__write(wire.encode(goodbye))
            self.__parted = True
            link = self.__link()
            link.blame(ClosedHere(f"this side said goodbye: {goodbye.reason}"))
            if link.cause is not None:
                # It may have had a cause before: a refusal, or a violation.
                link.cause.parting = goodbye.parting
                link.cause.comeBackAfter = goodbye.comeBackAfter

    def dataReceived(self, data: bytes) -> None:
        """
        See C{IProtocol}.
        """
        link = self.__link()
        if link.state in _OVER:
            # Whatever it is, also the rest of a frame whose beginning was thrown away.
            return
        reader = self.__reader
        try:
            frame = (reader or _resting(self.maxMessage)).whole(data)
            if frame is not None:
                self.frameReceived(frame)
                return
            reader = self.__reader = reader or wire.Stream.opened(self.maxMessage)
            for one in reader.receive(data):
                if link.state in _OVER:
                    break
                self.frameReceived(one)
            self.__restReader(link, reader)
        except ProtocolViolation as violation:
            # Its traceback would keep what came for as long as the cause is known.
            link.abort(violation.with_traceback(None))

    def __restReader(self, link: Link, reader: wire.Reader) -> None:
        """
        Between two frames a reader has nothing of its own, and most of many are there.
        """
        plain = reader.between and self.__hidesPongs()
        link.beatsWith(self.__said.beats if plain else None, HeartbeatProtocol.sendPing)
        if type(reader) is wire.Stream and reader.resting:
            self.__reader = None

    @classmethod
    def __hidesPongs(cls) -> bool:
        """
        Whether nobody else wants to see them.
        """
        seen = cls.frameReceived, cls.dataReceived
        return seen == (HeartbeatProtocol.frameReceived, HeartbeatProtocol.dataReceived)

    def frameReceived(self, frame: wire.Frame) -> None:
        """
        A frame has come.  Whoever overrides it passes on what it does not handle.  The pong of our
        own last ping comes here only where a class overrides it.

        @raise ProtocolViolation: if it has no place here; the link ends.
        """
        if isinstance(frame, wire.Pong):
            link = self.__link()
            if wire.barePong(frame.token) == link.pong:
                link.ponged()
        elif isinstance(frame, wire.Data):
            self.messageReceived(frame.message)
        elif isinstance(frame, wire.Ping):
            self.__answer(frame)
        elif isinstance(frame, wire.Hello):
            self._speakFor(frame)
            self.__agree(frame)
            self.helloReceived(frame)
        elif isinstance(frame, wire.Goodbye):
            self.__partedFrom(frame)

    def _speakFor(self, hello: wire.Hello) -> None:
        """
        Keep the other side's hello, and from here on speak within what it needs.
        """
        self.hello = hello
        said = self.__said.hello
        self.__said = self.__saying(said.name, said.needs, said.offers, hello.needs)
        self.__link().speakAs(self.__said)

    def __answer(self, ping: wire.Ping) -> None:
        link = self.__link()
        link.spendPing()
        if link.state == "closing":
            return
        if link.overfull:
            raise ProtocolViolation(f"the peer pings, and leaves {link.unsent} bytes unread")
        self.__beat(wire.barePong(ping.token))
        link.spokeAt = link.liveness.heardAt
        if ping.hold != self.__hold:
            self.__hold = ping.hold
            self.__watchBack(link)

    def __agree(self, hello: wire.Hello) -> None:
        link = self.__link()
        link.agreement = agreement = Agreement.of(self.__said.hello, hello)
        if not self.__said.hello.needs:
            self.__watchBack(link)
        elif link.watch == "passive" and agreement.incoming.pinged:
            link.distrust()
        elif link.watch == "passive":
            link.trust(link.bound)

    def __watchBack(self, link: Link) -> None:
        """
        Whoever has no bound of its own goes by the other's word: that of its last ping, or else
        that of its hello, for to one who talks no ping ever comes.
        """
        if not self.__said.hello.needs:
            offers = self.hello.offers if self.hello is not None else 0.0
            link.trust(self.__hold or offers or None)

    def __partedFrom(self, goodbye: wire.Goodbye) -> None:
        words = "the peer said goodbye"
        cause = PeerClosed(
            f"{words}: {goodbye.reason}" if goodbye.reason else words,
            parting=goodbye.parting,
            comeBackAfter=goodbye.comeBackAfter,
            spread=goodbye.spread,
        )
        # It reads no more: there is nobody to say goodbye to.
        self.__parted = True
        self.__link().close(cause)

    def __offered(self, link: Link) -> float:
        bound = link.bound if link.watch == "ping" else None
        return min(wire.MAX_HOLD, (bound or 0.0) if self.offers is None else self.offers)

    def __speak(self) -> None:
        self.__beat(wire.barePong(0))

    def __sayClosing(self) -> None:
        self.sayGoodbye(wire.Goodbye("closing"))

    def __link(self) -> Link:
        link = self.link
        assert link is not None, "there is no link before makeConnection"
        return link

    def __beat(self, data: bytes) -> None:
        if not self.__parted:
            self.__link().sendNow(self.transport, data)

    def __write(self, data: bytes) -> None:
        if not self.__parted:
            self.transport.write(data)  # type: ignore[union-attr]
