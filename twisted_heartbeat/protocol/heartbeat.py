# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{HeartbeatProtocol}: messages of bytes and the heartbeat, over the built-in protocol.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol

from ..core import wire
from ..core.causes import ClosedHere, PeerClosed, ProtocolViolation
from ..core.wire.negotiation import Negotiated
from ..logs import SafeLogger
from .mixin import HeartbeatMixin
from .overrides import _forget
from .session import LocalHello, _resting

if TYPE_CHECKING:
    from ..link.link import Link
    from .mixedlink import MixedInLink

_log = SafeLogger()


_HELLO_BEGINS = wire.encode(wire.Hello())[:2]

_OF_ONE_CONNECTION = (
    "hello",
    "_HeartbeatProtocol__hold",
    "_HeartbeatProtocol__parted",
    "_HeartbeatProtocol__unanswered",
)
"""Attributes of a protocol's instance that must not outlive its connection."""


class _Greeting(Protocol):
    """
    A protocol that says hello in its C{connectionMade}, so that no subclass may leave that out.
    """

    link: MixedInLink | None

    def makeConnection(self, transport: Any) -> None:
        super().makeConnection(transport)  # type: ignore[no-untyped-call]
        link = self.link
        # To say hello is to set the manner.
        if link is not None and link.heartbeatSender is None and not link.state.isEnding:
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
        self.__reader: wire.FrameReader | None = self._newReader()
        link = self.__link()
        said = self.__said = self.__saying(self.name, link.bound or 0.0, self.__offered(link), 0.0)
        self.__beat(said.frame)
        link.setHeartbeatSender(said)

    @staticmethod
    @lru_cache(maxsize=256)
    def __saying(name: str, needs: float, offers: float, needed: float) -> LocalHello:
        hello = wire.Hello(name, needs, offers).rounded
        return LocalHello(hello, needed, HeartbeatProtocol.__speak, HeartbeatProtocol.__sayClosing)

    def _newReader(self) -> wire.FrameReader:
        return wire.StreamReader(self.maxMessage)

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
        link.expectedPong = beats.pong

    def sayGoodbye(self, goodbye: wire.Goodbye) -> None:
        """
        Say goodbye, once, and nothing after it.  The other side is to close the connection; whoever
        does not want to wait for that calls C{link.close()}.
        """
        if not self.__parted:
            self.__write(wire.encode(goodbye))
            self.__parted = True
            link = self.__link()
            link.recordCause(ClosedHere(f"this side said goodbye: {goodbye.reason}"))
            if link.cause is not None:
                # It may have had a cause before: a refusal, or a violation.
                link.cause.goodbyeCode = goodbye.code
                link.cause.retryAfter = goodbye.retryAfter

    def dataReceived(self, data: bytes) -> None:
        """
        See C{IProtocol}.
        """
        link = self.__link()
        if link.state.isEnding:
            # It may be the rest of a frame whose beginning was thrown away.
            return
        reader = self.__reader
        try:
            frame = (reader or _resting(self.maxMessage)).readSingleFrame(data)
            if frame is not None:
                self.frameReceived(frame)
                return
            reader = self.__reader = reader or wire.StreamReader.afterHello(self.maxMessage)
            for one in reader.receive(data):
                if link.state.isEnding:
                    break
                self.frameReceived(one)
            self.__restReader(link, reader)
        except ProtocolViolation as violation:
            # Its traceback would keep what came for as long as the cause is known.
            link.abort(violation.with_traceback(None))

    def __restReader(self, link: Link, reader: wire.FrameReader) -> None:
        """
        Between two frames a reader has nothing of its own, and most of many are there.
        """
        plain = reader.atFrameBoundary and self.__hidesPongs()
        link.setSharedPing(self.__said.beats if plain else None, HeartbeatProtocol.sendPing)
        if type(reader) is wire.StreamReader and reader.isIdle:
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
            if wire.packPong(frame.token) == link.expectedPong:
                link.pongReceived()
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
        self.__link().changeHeartbeatSender(self.__said)

    def __answer(self, ping: wire.Ping) -> None:
        link = self.__link()
        link.pingReceived()
        if link.state == "closing":
            return
        if self.__unanswered is not None or link.isBufferFull:
            self.__answerLater(link, ping.token)
        else:
            if not self.__parted:
                link.writeDirect(self.transport, wire.packPong(ping.token))
            link.lastSentAt = link.detector.heardAt
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
        if token is not None and link.isUp:
            self.__beat(wire.packPong(token))
            link.lastSentAt = link.seconds()

    def __agree(self, hello: wire.Hello) -> None:
        link = self.__link()
        agreement = Negotiated.of(self.__said.hello, hello)
        link.helloReceived(agreement)
        if not self.__said.hello.needs:
            self.__watchBack(link)
        elif link.watch == "passive" and agreement.incoming.pinged:
            link.watchActively()
        elif link.watch == "passive":
            link.watchPassively(link.bound)

    def __watchBack(self, link: Link) -> None:
        """
        Whoever has no bound of its own goes by the other's word: that of its last ping, or else
        that of its hello, for to one who talks no ping ever comes.
        """
        if not self.__said.hello.needs:
            offers = self.hello.offers if self.hello is not None else 0.0
            link.watchPassively(self.__hold or offers or None)

    def __partedFrom(self, goodbye: wire.Goodbye) -> None:
        words = "the peer said goodbye"
        cause = PeerClosed(
            f"{words}: {goodbye.reason}" if goodbye.reason else words,
            goodbyeCode=goodbye.code,
            retryAfter=goodbye.retryAfter,
            spread=goodbye.spread,
        )
        # It reads no more: there is nobody to say goodbye to.
        self.__parted = True
        self.__link().close(cause)

    def __offered(self, link: Link) -> float:
        bound = link.bound if link.watch == "ping" else None
        return min(wire.MAX_HOLD, (bound or 0.0) if self.offers is None else self.offers)

    def __speak(self) -> None:
        self.__beat(wire.packPong(0))

    def __sayClosing(self) -> None:
        self.sayGoodbye(wire.Goodbye("closing"))

    def __link(self) -> Link:
        link = self.link
        assert link is not None, "there is no link before makeConnection"
        return link

    def __beat(self, data: bytes) -> None:
        if not self.__parted:
            self.__link().writeDirect(self.transport, data)

    def __write(self, data: bytes) -> None:
        if not self.__parted:
            self.transport.write(data)  # type: ignore[union-attr]
