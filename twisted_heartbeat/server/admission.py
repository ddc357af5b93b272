# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Admission}: a peer's way into a server, from its connection to admitted or refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.python.failure import Failure

from ..core import wire
from ..core.causes import ClosedHere, GoodbyeCode, ProtocolViolation
from ..core.diagnosis import describeError
from ..link.usercode import cancel
from ..logs import SafeLogger
from ..protocol.heartbeat import HeartbeatProtocol
from ..protocol.overrides import MethodCover
from ..timing.wheel import timerWheelFor
from ..transport.tls import publicKeyOf
from .heldinput import Held

if TYPE_CHECKING:
    from ..core.causes import Cause
    from ..core.settings import ServerLimits
    from ..link.config import LinkConfig
    from ..link.link import Link
    from ..timing.wheel import Slot
    from .registry import PeerRegistry

_log = SafeLogger()


Admit = Callable[[Any, Any, wire.Hello | None], object]
"""Takes a peer's address, TLS certificate and hello.  See L{HeartbeatServerFactory}."""

_NOT_ADMITTED = "not admitted"

_STRANGERS = ("arriving", "greeting", "visiting")
"""States of a link whose peer has not said hello yet, or is a health check."""


class AdmissionPolicy(Protocol):
    """
    Where a peer is admitted.

    @ivar serverLimits: what a peer may take.
    @ivar admit: who decides; L{None} if all are welcome.
    """

    serverLimits: ServerLimits
    admit: Admit | None

    @property
    def terms(self) -> LinkConfig:
        """What its links have in common."""


class Admission:
    """
    One peer's way in.  It owns the peer's link until that is admitted, and is then forgotten.

    First the hello, if the protocol has one; then whoever decides; then the name, which each of
    those who want it settles with the one ahead.

    @ivar state: C{"arriving"}, C{"greeting"}, C{"deciding"}, C{"claiming"}, C{"admitted"},
        C{"visiting"}, as a load balancer's health check does, C{"refused"}, C{"cut off"} or
        C{"over"}.
    """

    __slots__ = (
        "_cover",
        "_deciding",
        "_held",
        "_lastLook",
        "_limit",
        "_roll",
        "_server",
        "link",
        "slot",
        "state",
    )

    link: Link
    """Assigned by whoever makes it, for a link is made with its owner."""

    def __init__(self, server: AdmissionPolicy, roll: PeerRegistry) -> None:
        """
        @param roll: where it is, and who owns its link once it is admitted.
        """
        self._server = server
        self._roll = roll
        self._deciding: Deferred[Any] | None = None
        self._held: Held | None = None
        self._cover: MethodCover | None = None
        self._limit = 0.0
        self._lastLook = False
        self.slot: Slot | None = None
        self.state = "arriving"

    # What the link tells its owner.

    def linkReady(self, link: Link) -> None:
        """
        See L{Owner<twisted_heartbeat.link.interfaces.Owner>}.
        """
        self._held = Held(link, self._server.serverLimits.maxHeld)
        if self._roll.proxied:
            self._roll.headerReceived(link)
            full = self._full
            if full and self._roll.crowded(link):
                self._cutOff(full)
                return
        if isinstance(link.protocol, HeartbeatProtocol):
            # For as long as it takes: later it costs nothing.
            if self._hold(link.protocol, "frameReceived", self._heldFrameReceived):
                self._wait("greeting", self._server.serverLimits.helloTimeout)
        elif full := self._full:
            self._refuse(full)
        else:
            self._decide(None)

    def linkProven(self, link: Link) -> None:
        """
        See L{Owner<twisted_heartbeat.link.interfaces.Owner>}.
        """

    def linkLost(self, link: Link, cause: Cause) -> None:
        """
        See L{Owner<twisted_heartbeat.link.interfaces.Owner>}.
        """
        isStranger = self.state in _STRANGERS
        isCutOff = self.state == "cut off"
        self._enter("over")
        self._roll.forget(link)
        self._roll.leaveRow(link)
        if isStranger:
            self._roll.strangerLeft(link)
        elif isCutOff:
            link.cleanUp(self._roll.cutOffs)
        else:
            link.cleanUp()

    def linkClosing(self, link: Link) -> None:
        """
        See L{Owner<twisted_heartbeat.link.interfaces.Owner>}.
        """
        self._roll.linkClosing(link)

    def pingLimitReached(self, link: Link) -> None:
        """
        See L{Owner<twisted_heartbeat.link.interfaces.Owner>}.
        """
        self._roll.pingLimitReached(link)

    # What comes before it is admitted.

    def _heldFrameReceived(self, frame: wire.Frame) -> None:
        """
        In place of the protocol's C{frameReceived}.
        """
        if self._held is None:
            return
        if isinstance(frame, wire.Hello):
            if self.state != "greeting":
                raise ProtocolViolation("the peer says hello again, and is not yet admitted")
            self._held.keep(frame, len(frame.name))
            self._helloHeard(frame)
        elif isinstance(frame, wire.Data | wire.End):
            self._held.keep(frame, len(getattr(frame, "message", b"")))
        else:
            type(self.link.protocol).frameReceived(self.link.protocol, frame)

    def _heldDataReceived(self, data: bytes) -> None:
        """
        In place of C{dataReceived}, where there are no frames.
        """
        self.link.dataReceived()
        if self._held is not None:
            self._held.keep(data, len(data))
        if not self.link.observesReads:
            self.link.dataDelivered()

    def _holdInput(self) -> bool:
        """
        @return: whether what the peer says is held back.
        """
        return self._cover is not None or self._hold(
            self.link.outerProtocol, "dataReceived", self._heldDataReceived
        )

    def _hold(self, one: object, name: str, hear: Callable[[Any], None]) -> bool:
        cover = self._cover = MethodCover(one, name, hear)
        if not cover.laid:
            words = f"what it says can not be held back: {name} of {one!r} can not be replaced"
            _log.error("{link} can not be admitted: {words}", link=self.link, words=words)
            self.link.abort(ClosedHere(words))
        return cover.laid

    def _release(self) -> None:
        cover, self._cover = self._cover, None
        if cover is not None:
            cover.lift()

    def _helloHeard(self, hello: wire.Hello) -> None:
        self.link.name = hello.name
        # It may wait here for longer than it waits for a word.
        self.link.protocol._speakFor(hello)
        full = self._full
        if full and not self._roll.mayReplace(self.link):
            self._refuse(full)
        else:
            self._decide(hello)

    # Whether it may come in.

    def _decide(self, hello: wire.Hello | None) -> None:
        self._wait("deciding", self._server.serverLimits.admissionTimeout)
        admit = self._server.admit
        if admit is None:
            self._claim()
            return
        link = self.link
        if hello is None and not self._holdInput():
            return
        deciding = self._deciding = maybeDeferred(admit, link.peer, link.certificate, hello)
        deciding.addCallback(self._decided).addErrback(self._undecided)

    def _decided(self, answer: object) -> None:
        if not self._waits("deciding"):
            return
        self._deciding = None
        if answer is None or answer is True:
            self._claim()
        elif answer is False or isinstance(answer, str):
            self._refuse(answer or _NOT_ADMITTED)
        else:
            raise TypeError(f"admit returned {answer!r}: it must be None, a bool or a str")

    def _undecided(self, failure: Failure) -> None:
        if self.state != "deciding":
            if not failure.check(CancelledError):
                _log.failure("admit failed, and too late to matter", failure)
            return
        self._deciding = None
        _log.failure("admit failed, so {link} is refused", failure, link=self.link)
        self._refuse(_NOT_ADMITTED)

    # Whether its name is free.

    def _claim(self) -> None:
        if self.link.isHealthCheck:
            self._admit()
            return
        self.state = "claiming"
        self._roll.claim(self)
        self.settle()

    def settle(self) -> None:
        """
        Settle it with the one ahead, who may be the same peer's ghost.
        """
        if not self._waits("claiming"):
            return
        ahead = self._roll.ahead.get(self.link.generation)
        if ahead is None:
            self._admit()
        elif ahead.isUp:
            if _sameCertificateKey(ahead, self.link):
                words = f"replaced by generation {self.link.generation}, with the same certificate"
                ahead.abort(ClosedHere(words))
            else:
                ahead.probe().addCallback(self._settled, ahead)
        else:
            ahead.release()

    def _settled(self, lives: bool, ahead: Link) -> None:
        isAhead = self._roll.ahead.get(self.link.generation) is ahead
        if lives and self._waits("claiming") and isAhead:
            words = f"the name {ahead.name!r} is in use by generation {ahead.generation}"
            self._refuse(f"{words}, which answers", GoodbyeCode.NAME_IN_USE)

    # In, or not.

    def _admit(self) -> None:
        if full := self._full:
            self._refuse(full)
            return
        if self.link.isHealthCheck:
            # Its bytes reach the protocol, but it counts as no peer.
            self._enter("visiting")
        else:
            self._enter("admitted")
            self._roll.admit(self.link)
        held, self._held = self._held, None
        self._release()
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
            # As the reactor does with what a protocol raises.
            _log.failure("The protocol of {link} failed", link=self.link)
            cause = ClosedHere(f"the protocol raised {describeError(error)}")
            cause.__cause__ = error
            self.link.abort(cause)

    def _refuse(self, why: str, code: GoodbyeCode = GoodbyeCode.REFUSED) -> None:
        link = self.link
        self._enter("refused")
        self._roll.leaveRow(link)
        self._held = None
        if not isinstance(link.protocol, HeartbeatProtocol):
            # Over TLS what it has said already would still be delivered.
            self._holdInput()
        if link.isUp:
            link.markRefused(ClosedHere(f"refused: {why}"))
            sayGoodbye(link, wire.Goodbye(_truncateUtf8(why), code=code))
            link.close(lingers=self._roll.refuse(link))

    def _cutOff(self, why: str) -> None:
        cause = ClosedHere(f"refused: {why}")
        self._enter("cut off")
        self.link.markRefused(cause)
        self.link.abort(cause)

    @property
    def _full(self) -> str:
        """
        Why there is no room for it; a health check needs none.
        """
        return "" if self.link.isHealthCheck else self._roll.seat(self.link)

    # How long it may take.

    def onTimer(self, now: float, lateness: float) -> float | None:
        """
        See L{Timer<twisted_heartbeat.timing.wheel.Timer>}.
        """
        if not self._lastLook:
            # What has come meanwhile is read first; time in which nobody read is not the peer's.
            self._lastLook = True
            return now + min(lateness, self._limit)
        if self.state == "greeting":
            self.link.abort(ProtocolViolation(f"no hello within {self._limit:g} s"))
        elif self.state == "deciding":
            self._refuse(f"no decision within {self._limit:g} s")
        elif self.state == "claiming":
            words = f"the name {self.link.name!r} did not become free within {self._limit:g} s"
            self._refuse(words, GoodbyeCode.NAME_IN_USE)
        return None

    def _wait(self, state: str, limit: float | None) -> None:
        self._enter(state)
        if limit is not None:
            self._limit = limit
            self._lastLook = False
            timerWheelFor(self.link.clock).schedule(self, self.link.seconds() + limit)

    def _waits(self, state: str) -> bool:
        """
        Whether it is in this state, and its link has not begun to close, by a drain for example.
        """
        return self.state == state and self.link.isUp

    def _enter(self, state: str) -> None:
        self.state = state
        deciding, self._deciding = self._deciding, None
        if self.slot is not None:
            timerWheelFor(self.link.clock).discard(self)
        if deciding is not None:
            cancel(deciding)


def sayGoodbye(link: Link, goodbye: wire.Goodbye) -> bool:
    """
    @return: whether the peer's protocol has such a thing.
    """
    if not isinstance(link.protocol, HeartbeatProtocol):
        return False
    link.protocol.sayGoodbye(goodbye)
    return True


def _sameCertificateKey(one: Link, other: Link) -> bool:
    """
    Whether both peers have proven to have the same private key.
    """
    ours, theirs = one.certificate, other.certificate
    if ours is None or theirs is None:
        return False
    return publicKeyOf(ours) == publicKeyOf(theirs)


def _truncateUtf8(words: str) -> str:
    """
    As much of it as a goodbye can hold.
    """
    return words.encode("utf-8", "replace")[: wire.MAX_REASON].decode("utf-8", "ignore")
