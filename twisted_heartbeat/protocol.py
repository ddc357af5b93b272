# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Door 1: mix L{HeartbeatMixin} into a protocol of your own, or build on L{HeartbeatProtocol}.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import suppress
from functools import lru_cache, partial, wraps
from inspect import signature
from math import inf
from time import monotonic
from typing import Any, cast

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
from .net.deadline import cancelCalls
from .net.hooks import LinkHooks
from .net.link import Link, Unowned
from .net.reports import SafeLogger
from .net.terms import Ping, Terms
from .net.transport import abort

_log = SafeLogger()

_UNOWNED = Unowned()
_NO_HOOKS = LinkHooks()
_NO_LIMITS = Limits.off()


def _put(one: object, name: str, value: object) -> None:
    """
    Set an attribute of an object itself, whatever its class does with attributes that are set.
    """
    object.__setattr__(one, name, value)


def _forget(one: object, name: str) -> None:
    """
    Uncover what its class has.  Not by way of C{__dict__}, which would have Python make one.
    """
    with suppress(AttributeError):
        object.__delattr__(one, name)


def coverMethod(one: object, name: str, cover: object) -> bool:
    """
    Put something in the place of a method of an object that is not this package's.

    @return: whether it is there now.  Not if the object has no place for it (C{__slots__}), or its
        class prefers another, or it is a proxy that Python itself cannot look into.
    """
    try:
        _put(one, name, cover)
    except (AttributeError, TypeError):
        return False
    if getattr(one, name, None) is cover:
        return True
    _forget(one, name)
    return False


def liftCover(one: object, name: str, cover: object, covered: object) -> None:
    """
    Leave the object as it was, unless something else has been put there meanwhile.
    """
    found = getattr(one, name, None)
    if found is cover:
        _forget(one, name)
        if getattr(one, name, None) != covered:
            _put(one, name, covered)
    elif isinstance(found, _Cover) and found.covered is cover:
        found.covered = covered


# How a link hears of what its transport tells the protocol.
#
# Problem: the transport calls C{dataReceived}, C{connectionLost} and C{handshakeCompleted} of the
# protocol.  The link must hear of these calls.  The class may override each method without a call
# of super, and the instance may be given others at any time: before makeConnection, later, again.
#
# Idea: cover the method, whatever that is at the time, right before it is called.
#
# - A socket of Twisted's, also under TLS, tells the link before each call (C{Link.endsByItself}).
#   Then C{dataReceived} is covered until the first bytes have been delivered, and
#   C{connectionLost} at the end.  In between the instance is as without the mix-in.
# - Any other transport tells nothing.  There the covers are laid at the beginning, and again where
#   they are found missing: after C{connectionMade}, after each delivery, at each look at the peer.
#   What came before such a look was not heard, and is no silence.


class MethodCover:
    """
    Stands in the place of a method of an object that is not this package's, until it is lifted.

    @ivar covered: what is there otherwise, of the object or of its class.
    @ivar laid: whether it is in place.
    """

    __slots__ = ("_cover", "_name", "_one", "covered", "laid")

    def __init__(self, one: object, name: str, cover: object) -> None:
        """
        @param name: the method's.
        @param cover: what is called in its place.
        """
        self._one, self._name, self._cover = one, name, cover
        self.covered = getattr(one, name)
        self.laid = coverMethod(one, name, cover)

    def lift(self) -> None:
        """
        Leave the object as it was.
        """
        liftCover(self._one, self._name, self._cover, self.covered)


def noteHello(link: Link, data: bytes) -> None:
    """
    Log the likeliest mistake with C{heartbeat:}: the peer begins with a hello, and no protocol here
    understands that.
    """
    if wire.beginsWithHello(data) and not isinstance(link.protocol, HeartbeatProtocol):
        _log.warn(
            "{link}: the peer speaks the protocol of heartbeat: endpoints, and this end does not: "
            "does this end lack the heartbeat: prefix?",
            link=link,
        )


def hearData(link: Link, deliver: Callable[[bytes], object], data: bytes) -> object:
    """
    Tell a link that bytes came, and deliver them.

    @param data: text, in a unit test of a protocol that takes text as well.
    @return: what the protocol returns.  C{LineReceiver} returns the error of a line, for example.
    """
    if not link.spoken and isinstance(data, bytes):
        noteHello(link, data)
    link.heard()
    try:
        result = deliver(data)
        if not link.spoken:
            link.spokeFirst()
        if not link.hearsByItself:
            link.suspectSpoke()
        return result
    finally:
        link.chunkDelivered()


def hearHandshake(link: Link, completed: Callable[[], object]) -> None:
    """
    Tell a link that its TLS handshake is complete, and then the protocol.
    """
    link.handshaken()
    completed()


def hearEnd(link: Link, lost: Callable[[Any], object], reason: object = connectionDone) -> None:
    """
    Tell a link that its connection is lost, and then the protocol.  Both hear of it once: a
    transport that was told to abort and did not let go may still do so after the link has ended.
    """
    if link.state != "gone":
        if isinstance(reason, Failure):
            reason = link.lost(reason)
        else:
            # autobahn's protocols that carry others say None, and tests often an exception. The
            # protocol gets what was said, as from Twisted.
            link.lost(Failure(reason) if isinstance(reason, Exception) else connectionDone)
        try:
            lost(reason)
        finally:
            link.ended()
    elif link.ending:
        # From inside of the call above: the protocol passes on what it was told.
        lost(reason)


HEARD: dict[str, Callable[..., object]] = {
    "dataReceived": hearData,
    "handshakeCompleted": hearHandshake,
    "connectionLost": hearEnd,
}
"""How a link hears of each of the methods that a transport calls."""


def _hearMade(link: Link, made: Callable[[], object]) -> None:
    """
    Establish a link over a transport that calls C{connectionMade} and not C{makeConnection}.
    """
    protocol = link.protocol
    protocol._HeartbeatMixin__connect(protocol.transport, lambda transport: made())


_HEARD_BY_MIXIN = {**HEARD, "connectionMade": _hearMade}


def giveLink(protocol: HeartbeatMixin, link: MixedInLink) -> None:
    """
    Have a protocol's next connection watched by this link.
    """
    _put(protocol, "link", link)
    coverMethod(protocol, "connectionMade", _Cover(link, "connectionMade"))


class _Cover:
    """
    Stands before one method of a protocol.

    @ivar covered: what is there otherwise, of the instance or of its class.
    """

    __slots__ = ("_link", "_name", "covered")

    def __init__(self, link: Link, name: str) -> None:
        self._link = link
        self._name = name
        self.covered = getattr(link.protocol, name)

    def __call__(self, *arguments: Any) -> object:
        if self._name != "connectionLost":
            self.lift(self._link.protocol)
        return _HEARD_BY_MIXIN[self._name](self._link, self.covered, *arguments)

    def __getattr__(self, name: str) -> Any:
        # It passes for the method: trial's addCleanup asks for its __name__, for example.
        return getattr(object.__getattribute__(self, "covered"), name)

    def lift(self, protocol: object) -> None:
        """
        Leave the protocol as it was.
        """
        liftCover(protocol, self._name, self, self.covered)


@lru_cache(maxsize=256)
def _pingBehind(kind: Any) -> Ping | None:
    """
    The C{sendPing} of the protocol behind the mix-in, if it can be called without arguments.
    """
    sendPing: Ping | None = getattr(super(HeartbeatMixin, kind), "sendPing", None)
    if sendPing is None:
        return None
    try:
        signature(sendPing).bind(None)
    except (TypeError, ValueError):
        return None
    return sendPing


def pingOf(kind: type[HeartbeatMixin]) -> Ping | None:
    """
    How to ping over a protocol of this class; L{None} if it does not say.
    """
    sendPing, cached = kind.sendPing, cast(Hashable, kind)
    return _pingBehind(cached) if sendPing is HeartbeatMixin.sendPing else sendPing


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

    link: MixedInLink | None = None

    __last: tuple[object, Terms] | None = None
    __connects: bool

    dataReceived: Callable[[bytes], None]
    connectionLost: Callable[..., None]

    __timeoutCall: IDelayedCall | None = None
    __timeoutFrom = 0.0
    __lookedAgainFor: float | None = None
    __timeoutSeconds: Callable[[], float] = staticmethod(monotonic)
    __closeCall: IDelayedCall | None = None

    def __init_subclass__(cls, **keywords: Any) -> None:
        """
        Take the mix-in's place in a class in which it stands behind the protocol's own, as
        Twisted's own protocols have their C{TimeoutMixin}.
        """
        super().__init_subclass__(**keywords)
        for name in ("setTimeout", "resetTimeout"):
            behind = getattr(super(), name)
            hidden = getattr(cls, name) is getattr(HeartbeatMixin, name)
            if hidden and behind is not getattr(TimeoutMixin, name):
                setattr(cls, name, behind)
        if cls.__isBehind():
            connect = cls.makeConnection

            @wraps(connect)
            def makeConnection(self: HeartbeatMixin, transport: Any) -> None:
                self.__connect(transport, partial(connect, self))

            cls.makeConnection = makeConnection  # type: ignore[method-assign]
            cls.__connects = True

    @classmethod
    def __isBehind(cls) -> bool:
        """
        Whether C{makeConnection} is found in the protocol's own class, before the mix-in's.
        """
        for kind in cls.__mro__:
            if kind is HeartbeatMixin or "_HeartbeatMixin__connects" in vars(kind):
                return False
            if "makeConnection" in vars(kind) and not issubclass(kind, HeartbeatMixin):
                return True
        return False

    def sendPing(self, *arguments: Any, **keywords: Any) -> object:
        """
        Make the peer speak.  What a subclass supplies, if the protocol behind the mix-in has none.

        @return: may be a Deferred or a coroutine that gives the answer; it is used for the
            round-trip time only, and its failure is no error.  What is raised before anything is
            waited for ends the link.
        """
        behind = self.__behind("sendPing")
        if behind is None:
            raise NotImplementedError(f"{type(self).__name__} has no sendPing")
        return behind(*arguments, **keywords)

    def makeConnection(self, transport: Any) -> None:
        """
        See C{IProtocol}.
        """
        self.__connect(transport, super().makeConnection)  # type: ignore[misc]

    def handshakeCompleted(self) -> None:
        """
        See C{IHandshakeListener}.  Override it as you like.
        """
        behind = self.__behind("handshakeCompleted")
        # A protocol that does not declare the interface may mean a handshake of its own.
        kinds = type(self).__mro__
        kinds = kinds[kinds.index(HeartbeatMixin) + 1 :]
        if behind is not None and any(map(IHandshakeListener.implementedBy, kinds)):
            behind()

    def __behind(self, name: str) -> Callable[..., Any] | None:
        """
        The method of this name of the protocol behind the mix-in; L{None} if it has none but
        C{TimeoutMixin}'s.
        """
        method = getattr(super(), name, None)
        replaced = getattr(TimeoutMixin, name, None)
        return None if getattr(method, "__func__", method) is replaced else method

    def __connect(self, transport: Any, connect: Callable[[Any], object]) -> None:
        link = self.link
        if link is None or link.state == "gone":
            link = MixedInLink(self.__terms(), _UNOWNED, self, self, pingOf(type(self)))
            _put(self, "link", link)
        elif link.isOver(transport):
            # The mix-in is there twice, once behind the protocol's class.
            connect(transport)
            return
        for name in _HEARD_BY_MIXIN:
            # What an earlier connection of the same instance has left.
            cover = getattr(self, name)
            if isinstance(cover, _Cover):
                cover.lift(self)
        link.established(transport)
        connect(transport)
        link.protocolConnected()

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

    # The TimeoutMixin's part.

    def callLater(
        self, period: float, func: Callable[..., object], *arguments: object
    ) -> IDelayedCall:
        """
        See C{TimeoutMixin.callLater}.
        """
        behind = self.__behind("callLater")
        if behind is not None:
            return behind(period, func, *arguments)  # type: ignore[no-any-return]
        return clockFor(self.clock).callLater(period, func, *arguments)

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
        before: float | None = self.timeOut
        self.timeOut = period  # type: ignore[assignment]
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
        Called when C{timeOut} seconds have passed without C{resetTimeout}: abort.  If the protocol
        behind the mix-in has such a method, that is called instead, and the link is aborted after
        C{Limits.closeTimeout} unless it has ended, or C{setTimeout} was called again.
        """
        behind = self.__behind("timeoutConnection")
        if behind is not None:
            behind()
        elif self.link is not None:
            self.link.abort(self.__timeoutCause())
        else:
            abort(self.transport)  # type: ignore[attr-defined]

    def __timeoutCause(self) -> PeerSilent:
        return PeerSilent(f"resetTimeout was not called for {self.timeOut or 0.0:g} s")

    def __abortAfterClose(self, link: Link, cause: PeerSilent) -> None:
        """
        The protocol has been told to close the connection in its own way, which a dead peer may
        never answer.
        """
        if link.state in _OVER or self.__timeoutCall is not None:
            return
        limit = link.closeTimeout
        if limit is not None:
            link.blame(cause)
            # Without arguments, because a callLater in the manner of TimeoutMixin's takes none.
            self.__closeCall = self.callLater(limit, partial(link.abort, cause))

    def __startTimeout(self, delay: float) -> None:
        call = self.__timeoutCall = self.callLater(delay, self.__timeoutPassed)
        # Who brings a callLater of its own brings its clock with it.
        self.__timeoutSeconds = getattr(call, "seconds", self.__timeoutSeconds)

    def __cancelTimeout(self) -> None:
        cancelCalls(self.__timeoutCall)
        self.__timeoutCall = None

    def __connectionEnded(self) -> None:
        self.__cancelTimeout()
        cancelCalls(self.__closeCall)
        self.__closeCall = None

    def __timeoutPassed(self) -> None:
        call, self.__timeoutCall = self.__timeoutCall, None
        if self.timeOut is None:
            return
        # The application's callLater may return nothing, as with TimeoutMixin. Then its clock is
        # not known, and the call is on time.
        left = 0.0
        if call is not None:
            left = self.__timeoutFrom + self.timeOut - self.__timeoutSeconds()
        # Sums of floats: a nanosecond is no time.
        if left > 1e-9:
            self.__startTimeout(left)
            return
        if self.__lookedAgainFor != self.__timeoutFrom:
            # The reactor reads once more first: what came in time may call resetTimeout.
            self.__lookedAgainFor = self.__timeoutFrom
            self.__startTimeout(0.0)
            return
        link, cause = self.link, self.__timeoutCause()
        self.timeoutConnection()
        if link is not None:
            self.__abortAfterClose(link, cause)


_uncovered: set[tuple[type, str]] = set()
"""Methods that cannot be covered and were logged, each with the class of the protocol."""


class MixedInLink(Link):
    """
    The link of a protocol that has a place for it.
    """

    __slots__ = ()

    def isOver(self, transport: object) -> bool:
        """
        Whether it has been established over this transport.
        """
        return self.state != "new" and self._transport is transport

    def established(self, transport: Any) -> None:
        super().established(transport)
        if self.endsByItself:
            self._tellOfNext()
        else:
            self.__listen()

    def protocolConnected(self) -> None:
        if not self.endsByItself:
            self.__listen()
        super().protocolConnected()

    def chunkComes(self) -> None:
        super().chunkComes()
        if self.state == "handshaking" or not self.spoken:
            self.__listen()
            self._tellOfNext()

    def chunkDelivered(self) -> None:
        if not self.endsByItself:
            self.__listen()

    def unheard(self) -> bool:
        return not self.endsByItself and self.__listen()

    def connectionEnds(self) -> None:
        self.__cover("connectionLost")

    def opened(self) -> None:
        """
        A protocol that L{waits for the peer's hello<HeartbeatProtocol._readyAtHello>} has it.
        """
        if self.usable:
            super()._ready()

    def _ready(self) -> None:
        # Of the class: an instance may answer to any name.
        if getattr(type(self.protocol), "_readyAtHello", False):
            self.protocol.awaitHello()
        else:
            super()._ready()

    def lost(self, reason: Failure) -> Failure:
        self.protocol._HeartbeatMixin__connectionEnded()
        return super().lost(reason)

    def __listen(self) -> bool:
        """
        Cover what is called next, where that is not covered.

        @return: whether bytes may have come that were not heard.
        """
        if self.state == "gone":
            return False
        if self.state == "handshaking":
            self.__cover("handshakeCompleted")
        if not self.endsByItself:
            self.__cover("connectionLost")
        return not (self.spoken and self.hearsByItself) and self.__cover("dataReceived")

    def __cover(self, name: str) -> bool:
        """
        @return: whether it was not covered.
        """
        protocol = self.protocol
        if isinstance(getattr(protocol, name), _Cover):
            return False
        if not coverMethod(protocol, name, _Cover(self, name)):
            self.__leaveUncovered(name)
        return True

    def __leaveUncovered(self, name: str) -> None:
        """
        Do with what a socket tells, which is all but that the protocol took its first bytes; over
        any other transport the peer's silence proves nothing then.
        """
        notSpoken = name == "dataReceived" and not self.spoken
        if notSpoken and (self.hearsByItself or self.endsByItself):
            self.spokeFirst()
        uncovered = (type(self.protocol), name)
        if uncovered not in _uncovered:
            _uncovered.add(uncovered)
            _log.warn(
                "{kind}.{method} can not be covered, so links hear of it from sockets only",
                kind=type(self.protocol).__name__,
                method=name,
            )


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


_HELLO_BEGINS = wire.encode(wire.Hello())[:2]

_OF_ONE_CONNECTION = (
    "hello",
    "_HeartbeatProtocol__hold",
    "_HeartbeatProtocol__parted",
    "_HeartbeatProtocol__unanswered",
)
"""Attributes of a protocol's instance that must not outlive its connection."""


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

    link: MixedInLink | None

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

    _readyAtHello = False
    """Whether the link is not in use before the peer has said hello."""

    __hold = 0.0
    __parted = False
    __unanswered: int | None = None

    def connectionMade(self) -> None:
        """
        Say hello.  An override has to call its super.
        """
        # What an earlier connection may have left; most have none, and keep none for it.
        for name in _OF_ONE_CONNECTION:
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
            # It may be the rest of a frame whose beginning was thrown away.
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
            if frame.message[:2] == _HELLO_BEGINS and wire.beginsWithHello(frame.message):
                _log.warn(
                    "{link}: the peer sends a hello inside of a message: does this end lack the "
                    "heartbeat: prefix?",
                    link=self.link,
                )
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
        if self.__unanswered is not None or link.overfull:
            self.__answerLater(link, ping.token)
        else:
            if not self.__parted:
                link.sendNow(self.transport, wire.barePong(ping.token))
            link.spokeAt = link.liveness.heardAt
        if ping.hold != self.__hold:
            self.__hold = ping.hold
            self.__watchBack(link)

    def __answerLater(self, link: Link, token: int) -> None:
        """
        Answer the last ping once all that waits now has been sent.  A peer that reads slowly must
        not be ended because its pong is what overfills the buffer; but no peer may fill it with
        pongs that it does not read.
        """
        waits, self.__unanswered = self.__unanswered is not None, token
        if not waits:
            link.whenSent().addCallbacks(self.__answerNow, lambda _: None)

    def __answerNow(self, _: object) -> None:
        link, token = self.__link(), self.__unanswered
        self.__unanswered = None
        if token is not None and link.usable:
            self.__beat(wire.barePong(token))
            link.spokeAt = link.seconds()

    def __agree(self, hello: wire.Hello) -> None:
        link = self.__link()
        agreement = Agreement.of(self.__said.hello, hello)
        link.greeted(agreement)
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
