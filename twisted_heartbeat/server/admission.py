# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Admission}: the way of one newcomer into a server, from its connection to admitted or refused.

States:

 1. C{arriving}: the connection is made, and its TLS handshake or its load balancer's header is to
    come.
 2. C{greeting}: the peer has to say hello, within C{helloTimeout}.  Protocols without a hello skip
    this state.
 3. C{deciding}: C{admit} decides, within C{admissionTimeout}.
 4. C{claiming}: the name has to become free, within what is left of that time.  See L{NameQueue}.
 5. C{admitted}; or C{visiting} for the health check of a load balancer, which is no peer.

Other ends are C{refused}: the peer is told why, and its link closes politely; C{rejected}: there is
no room even for that; and C{over}: the link has ended.

Until the end, the admission owns the link, and holds back what the peer says
(L{HeldInput}).  For that it covers one method of the protocol: C{frameReceived} of the built-in
protocol, so that pings are still answered, or C{dataReceived} of any other.  An admitted link is
owned by the L{PeerRegistry}, and its admission is garbage.

A full server lets a newcomer say hello all the same, because its name may be that of a ghost whose
end makes room.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.python.failure import Failure

from ..core import wire
from ..core.causes import ClosedHere, GoodbyeCode, ProtocolViolation
from ..core.diagnosis import describeError
from ..link.owner import LinkOwner
from ..link.usercode import cancel
from ..logs import SafeLogger
from ..protocol.heartbeat import HeartbeatProtocol
from ..protocol.overrides import MethodCover
from ..protocol.session import HeartbeatSession
from ..transport.proxyheader import isHealthCheck
from .heldinput import HeldInput
from .registry import LimitReached

if TYPE_CHECKING:
    from ..core.causes import Cause
    from ..core.settings import ServerLimits
    from ..link.link import Link
    from ..timing.wheel import Slot
    from .names import NameQueue
    from .registry import PeerRegistry

_log = SafeLogger()


Admit = Callable[[Any, Any, wire.Hello | None], object]
"""Takes a peer's address, TLS certificate and hello.  See L{HeartbeatServerFactory}."""

_NOT_ADMITTED = "not admitted"

_STRANGER_STATES = ("arriving", "greeting", "visiting")
"""States of a link whose peer has not said hello yet, or is a health check."""


class AdmissionPolicy(Protocol):
    """
    The server that a newcomer wants to enter.

    @ivar admit: decides on a newcomer; L{None} to admit all.
    """

    serverLimits: ServerLimits
    admit: Admit | None


class Admission(LinkOwner):
    """
    The way of one newcomer into a server.  It owns the newcomer's link until that is admitted.

    @ivar link: assigned right after the admission is made, because a link is made with its owner.
    @ivar state: see the module.
    """

    __slots__ = (
        "_cover",
        "_deciding",
        "_input",
        "_lastLook",
        "_limit",
        "_names",
        "_registry",
        "_server",
        "link",
        "slot",
        "state",
    )

    link: Link

    def __init__(self, server: AdmissionPolicy, registry: PeerRegistry, names: NameQueue) -> None:
        """
        @param registry: counts the link, and owns it once it is admitted.
        """
        self._server = server
        self._registry = registry
        self._names = names
        self._deciding: Deferred[Any] | None = None
        self._input: HeldInput | None = None
        self._cover: MethodCover | None = None
        self._limit = 0.0
        self._lastLook = False
        self.slot: Slot | None = None
        self.state = "arriving"

    # What the link tells its owner.

    def linkReady(self, link: Link) -> None:
        self._input = HeldInput(link, self._server.serverLimits.maxHeld)
        if self._registry.proxied:
            self._registry.headerReceived(link)
            reason = self._reserve()
            if reason and self._registry.isOverfull:
                self._reject(reason)
                return
        if isinstance(link.protocol, HeartbeatProtocol):
            if self._coverMethod(link.protocol, "frameReceived", self._holdFrame):
                self._wait("greeting", self._server.serverLimits.helloTimeout)
        elif reason := self._reserve():
            self._refuse(reason)
        else:
            self._decide(None)

    def linkLost(self, link: Link, cause: Cause) -> None:
        isStranger = self.state in _STRANGER_STATES
        isRejected = self.state == "rejected"
        self._enter("over")
        self._registry.forget(link)
        self._names.leave(link)
        if isStranger:
            self._registry.strangerLeft(link)
        elif isRejected:
            link.teardown.cleanUp(self._registry.refusalLog)
        else:
            link.teardown.cleanUp()

    def linkClosing(self, link: Link) -> None:
        self._registry.linkClosing(link)

    # What the peer says before it is admitted.

    def _holdFrame(self, frame: wire.Frame) -> None:
        """
        Hold back a frame for the user's code; pings, pongs and goodbyes reach the protocol.
        """
        if self._input is None:
            return
        if isinstance(frame, wire.Hello):
            if self.state != "greeting":
                raise ProtocolViolation("the peer says hello again, and is not yet admitted")
            self._input.keep(frame, len(frame.name))
            self._helloReceived(frame)
        elif isinstance(frame, wire.Data | wire.End):
            self._input.keep(frame, len(getattr(frame, "message", b"")))
        else:
            type(self.link.protocol).frameReceived(self.link.protocol, frame)

    def _holdBytes(self, data: bytes) -> None:
        """
        Hold back bytes for a protocol without a hello.  They prove that the peer lives.
        """
        self.link.dataReceived()
        if self._input is not None:
            self._input.keep(data, len(data))
        if not self.link.observesReads:
            self.link.dataDelivered()

    def _holdInput(self) -> bool:
        """
        Hold back the bytes from now on, unless frames are held back already.

        @return: L{False} if that is impossible, so that the link has been aborted.
        """
        return self._cover is not None or self._coverMethod(
            self.link.outerProtocol, "dataReceived", self._holdBytes
        )

    def _coverMethod(self, one: object, name: str, hold: Callable[[Any], None]) -> bool:
        # Covered for the time of the admission only: a link that is admitted pays nothing for it.
        cover = self._cover = MethodCover(one, name, hold)
        laid = cover.lay()
        if not laid:
            words = f"what it says can not be held back: {name} of {one!r} can not be replaced"
            _log.error("{link} can not be admitted: {words}", link=self.link, words=words)
            self.link.abort(ClosedHere(words))
        return laid

    def _releaseInput(self) -> None:
        held, self._input = self._input, None
        cover, self._cover = self._cover, None
        if cover is not None:
            cover.lift()
        if held is not None:
            held.release(self._deliver)

    def _deliver(self, piece: Any) -> None:
        try:
            if isinstance(piece, bytes):
                self.link.outerProtocol.dataReceived(piece)  # type: ignore[attr-defined]
            else:
                self.link.protocol.frameReceived(piece)
        except ProtocolViolation as violation:
            self.link.abort(violation)
        except BaseException as error:
            # The reactor would close the connection, too.
            _log.failure("The protocol of {link} failed", link=self.link)
            cause = ClosedHere(f"the protocol raised {describeError(error)}")
            cause.__cause__ = error
            self.link.abort(cause)

    def _helloReceived(self, hello: wire.Hello) -> None:
        session = self.link.session
        assert isinstance(session, HeartbeatSession)
        session.introduce(hello)
        reason = self._reserve()
        if reason and not self._registry.mayReplaceHolder(self.link):
            self._refuse(reason)
        else:
            self._decide(hello)

    # The decision.

    def _decide(self, hello: wire.Hello | None) -> None:
        self._wait("deciding", self._server.serverLimits.admissionTimeout)
        admit = self._server.admit
        if admit is None:
            self._claimName()
            return
        link = self.link
        if hello is None and not self._holdInput():
            return
        deciding = self._deciding = maybeDeferred(admit, link.peer, link.certificate, hello)
        deciding.addCallback(self._decided).addErrback(self._decisionFailed)

    def _decided(self, answer: object) -> None:
        if not self._isIn("deciding"):
            return
        self._deciding = None
        if answer is None or answer is True:
            self._claimName()
        elif answer is False or isinstance(answer, str):
            self._refuse(answer or _NOT_ADMITTED)
        else:
            raise TypeError(f"admit returned {answer!r}: it must be None, a bool or a str")

    def _decisionFailed(self, failure: Failure) -> None:
        if self.state != "deciding":
            if not failure.check(CancelledError):
                _log.failure("admit failed, and too late to matter", failure)
            return
        self._deciding = None
        _log.failure("admit failed, so {link} is refused", failure, link=self.link)
        self._refuse(_NOT_ADMITTED)

    # The name.  L{NameQueue} grants it, or says that it is in use, see L{NameClaimant}.

    def _claimName(self) -> None:
        if isHealthCheck(self.link.transport):
            self._admit()
            return
        self.state = "claiming"
        self._names.claim(self)

    @property
    def awaitsName(self) -> bool:
        return self._isIn("claiming")

    def nameGranted(self) -> None:
        self._admit()

    def nameInUse(self, holder: Link) -> None:
        words = f"the name {holder.name!r} is in use by generation {holder.generation}"
        self._refuse(f"{words}, which answers", GoodbyeCode.NAME_IN_USE)

    # The end.

    def _admit(self) -> None:
        if reason := self._reserve():
            self._refuse(reason)
            return
        if isHealthCheck(self.link.transport):
            # Its bytes reach the protocol, but it counts as no peer.
            self._enter("visiting")
        else:
            self._enter("admitted")
            self._registry.admit(self.link)
        self._releaseInput()

    def _refuse(self, reason: str, code: GoodbyeCode = GoodbyeCode.REFUSED) -> None:
        link = self.link
        self._enter("refused")
        self._names.leave(link)
        self._input = None
        if not isinstance(link.protocol, HeartbeatProtocol):
            # TLS still delivers the bytes that it has decrypted already.
            self._holdInput()
        if link.isUp:
            link.teardown.markRefused(_causeOfRefusal(reason))
            words = _truncateUtf8(reason, wire.MAX_REASON)
            self._registry.refuse(link, wire.Goodbye(words, code=code))

    def _reject(self, reason: str) -> None:
        cause = _causeOfRefusal(reason)
        self._enter("rejected")
        self.link.teardown.markRefused(cause)
        self.link.abort(cause)

    def _reserve(self) -> str:
        """
        Reserve a place for the link, unless it has one.  A health check needs none.

        @return: why there is none; an empty string if there is.
        """
        return "" if isHealthCheck(self.link.transport) else self._registry.reserve(self.link)

    # The time limits.

    def onTimer(self, now: float, lateness: float) -> float | None:
        if not self._lastLook:
            # What the peer has sent before the deadline may still be unread, because this process
            # was late.  The reactor reads it before the second visit.
            self._lastLook = True
            return now + min(lateness, self._limit)
        if self.state == "greeting":
            cause = ProtocolViolation(f"no hello within {self._limit:g} s")
            self.link.abort(cause.withLimit("helloTimeout"))
        elif self.state == "deciding":
            reason = LimitReached(f"no decision within {self._limit:g} s", "admissionTimeout")
            self._refuse(reason)
        elif self.state == "claiming":
            words = f"the name {self.link.name!r} did not become free within {self._limit:g} s"
            self._refuse(words, GoodbyeCode.NAME_IN_USE)
        return None

    def _wait(self, state: str, limit: float | None) -> None:
        self._enter(state)
        if limit is not None:
            self._limit = limit
            self._lastLook = False
            self.link.wheel.schedule(self, self.link.seconds() + limit)

    def _isIn(self, state: str) -> bool:
        """
        Whether this is the state, and the link has not begun to close, by a drain for example.
        """
        return self.state == state and self.link.isUp

    def _enter(self, state: str) -> None:
        self.state = state
        deciding, self._deciding = self._deciding, None
        if self.slot is not None:
            self.link.wheel.discard(self)
        if deciding is not None:
            cancel(deciding)


def _causeOfRefusal(reason: str) -> Cause:
    limit = reason.limit if isinstance(reason, LimitReached) else None
    return ClosedHere(f"refused: {reason}").withLimit(limit)


def _truncateUtf8(words: str, maxSize: int) -> str:
    """
    Return the longest beginning of a text that fits into C{maxSize} bytes.
    """
    return words.encode("utf-8", "replace")[:maxSize].decode("utf-8", "ignore")
