# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{HeartbeatProtocol}: messages of bytes and the heartbeat, in the built-in protocol.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol

from ..core import wire
from ..core.causes import ClosedHere, ProtocolViolation
from ..link.writes import sendFailed
from ..logs import SafeLogger
from .mixin import HeartbeatMixin
from .session import HeartbeatSession

if TYPE_CHECKING:
    from ..link.link import Link
    from .mixedlink import MixedInLink

_log = SafeLogger()


_HELLO_PREFIX = wire.encode(wire.Hello())[:2]


@lru_cache(maxsize=256)
def _sharedReader(maxMessage: int) -> wire.StreamReader:
    """
    Return the reader of all links that are between two frames.  To ask it for a
    L{single frame<wire.FrameReader.readSingleFrame>} changes nothing in it.
    """
    return wire.StreamReader.afterHello(maxMessage)


class _Greeting(Protocol):
    """
    Aborts the link of a protocol whose C{connectionMade} has not said hello, because a subclass
    does not call its super.  Otherwise both ends would wait for the hello as long as the bound.
    """

    link: MixedInLink | None

    def makeConnection(self, transport: Any) -> None:
        super().makeConnection(transport)  # type: ignore[no-untyped-call]
        link = self.link
        if link is not None and link.session is None and not link.state.isEnding:
            kind: Any = type(self)
            link.abort(ClosedHere(_complaint(kind)))


@lru_cache(maxsize=256)
def _complaint(kind: type) -> str:
    """
    Log, once for each class, that it says no hello.

    @return: the words, for the cause.
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
    @ivar offers: seconds within which this side says something by itself; 0 for never; L{None} for
        its bound, within which its pings come.
    @ivar maxMessage: bytes that a received message may have.
    """

    name = ""
    offers: float | None = None
    maxMessage = wire.MAX_MESSAGE

    _readyAtHello = False
    """Whether the link is in use only once the peer has said hello."""

    def connectionMade(self) -> None:
        """
        Say hello.  An override has to call its super.
        """
        self.__reader: wire.FrameReader | None = self._newReader()
        HeartbeatSession(self.__link(), self.name, self.offers).start()

    @property
    def hello(self) -> wire.Hello | None:
        """
        What the other side has said of itself; L{None} until it has.
        """
        session: Any = None if self.link is None else self.link.session
        return None if session is None else session.peerHello

    def _newReader(self) -> wire.FrameReader:
        return wire.StreamReader(self.maxMessage)

    def sendMessage(self, message: bytes) -> Deferred[None]:
        """
        Send a message.

        @return: as of L{Link.send}.  If the message can not be encoded, it fails with
            L{SendFailed}, and the link ends.
        """
        link = self.__link()
        try:
            frame = wire.encode(wire.Data(self.encodeMessage(message)))
        except BaseException as error:
            return sendFailed(link, error)
        return link.send(frame)

    def encodeMessage(self, message: Any) -> bytes:
        """
        Return the bytes of a message.  Override it to send something else.
        """
        if not isinstance(message, (bytes, bytearray, memoryview)):
            raise TypeError(f"a message must be bytes, and not {type(message).__name__}")
        return bytes(message)

    def messageReceived(self, message: bytes) -> None:
        """
        Handle a message.  Override it.
        """

    def helloReceived(self, hello: wire.Hello) -> None:
        """
        Handle the other side's hello.  Override it.
        """

    def sendPing(self) -> None:
        session: Any = self.link and self.link.session
        session.sendPing()

    def sayGoodbye(self, goodbye: wire.Goodbye) -> None:
        """
        Say goodbye, once, and nothing after it.  The other side is to close the connection; an
        application that does not want to wait for that calls C{link.close()}.
        """
        self.__session().sayGoodbye(goodbye)

    def dataReceived(self, data: bytes) -> None:
        link = self.__link()
        if link.state.isEnding:
            # The data may be the rest of a frame whose beginning was thrown away.
            return
        reader = self.__reader
        try:
            frame = (reader or _sharedReader(self.maxMessage)).readSingleFrame(data)
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
            # Otherwise its traceback would keep the received bytes as long as the cause.
            link.abort(violation.with_traceback(None))

    def __restReader(self, link: Link, reader: wire.FrameReader) -> None:
        """
        Drop the reader between two frames, where it holds nothing: that saves memory on every link.
        """
        plain = reader.atFrameBoundary and self.__hidesPongs()
        ping = self.__session().localHello.sharedPing if plain else None
        watch = link.peerWatch
        if watch.ping is HeartbeatProtocol.sendPing:
            # Nothing else pings with the same bytes.
            watch.pinger = ping
        if type(reader) is wire.StreamReader and reader.isIdle:
            self.__reader = None

    @classmethod
    def __hidesPongs(cls) -> bool:
        """
        Whether no subclass wants to see the pongs.
        """
        seen = cls.frameReceived, cls.dataReceived
        return seen == (HeartbeatProtocol.frameReceived, HeartbeatProtocol.dataReceived)

    def frameReceived(self, frame: wire.Frame) -> None:
        """
        Handle a frame.  An override passes on what it does not handle.  The pong of this side's own
        last ping comes here only where a class overrides this method.

        @raise ProtocolViolation: if the frame has no place here; the link ends.
        """
        if isinstance(frame, wire.Pong):
            self.__session().pongReceived(frame)
        elif isinstance(frame, wire.Data):
            if frame.message[:2] == _HELLO_PREFIX and wire.beginsWithHello(frame.message):
                _log.warn(
                    "{link}: the peer sends a hello inside of a message: does this end lack the "
                    "heartbeat: prefix?",
                    link=self.link,
                )
            self.messageReceived(frame.message)
        elif isinstance(frame, wire.Ping):
            self.__session().pingReceived(frame)
        elif isinstance(frame, wire.Hello):
            session = self.__session()
            session.keepPromiseTo(frame)
            session.negotiate(frame)
            # A connected hook that fails has ended the link by now.
            if not self.__link().state.isEnding:
                self.helloReceived(frame)
        elif isinstance(frame, wire.Goodbye):
            self.__session().goodbyeReceived(frame)

    def __link(self) -> Link:
        link = self.link
        assert link is not None, "there is no link before makeConnection"
        return link

    def __session(self) -> HeartbeatSession:
        session: Any = None if self.link is None else self.link.session
        assert session is not None, "there is no session before connectionMade"
        return session  # type: ignore[no-any-return]
