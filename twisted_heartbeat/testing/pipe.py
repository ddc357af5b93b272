# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Pipe}: one direction of a proxied connection, and the faults that act on it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IDelayedCall, IPullProducer, IReactorTime
from zope.interface import implementer

from .faults import Bandwidth, BlackHole, CutAfter, Delay, Hold, Slice, StopReading, StreamFault

if TYPE_CHECKING:
    from .side import ProxySide

# A limited bandwidth is spread over this many pieces per second, or over single bytes below that.
_PIECES_PER_SECOND = 50


class StreamEnd(Enum):
    """The end of a direction, queued behind its bytes."""

    FIN = "the sender has closed its side"
    RST = "the sender has reset, or was lost"
    CUT = "a CutAfter that resets has let its last byte through"


@implementer(IPullProducer)
class Pipe:
    """
    One direction of one connection.

    A pull producer is asked for more only when its consumer's buffer is empty. So C{_drained} means
    that the kernel has taken all previous bytes. This makes slices exact and lets FIN and RST
    follow the last byte. Waiting bytes stay in this queue, where they are counted.
    """

    def __init__(
        self,
        clock: IReactorTime,
        random: Callable[[], float],
        maxBuffered: int,
        source: ProxySide,
        destination: ProxySide,
    ) -> None:
        self._clock = clock
        self._random = random
        self._maxBuffered = maxBuffered
        self._source = source
        self._destination = destination
        self._faults: dict[type, Any] = {}
        self._queue: deque[tuple[float, memoryview | StreamEnd]] = deque()
        self._size = 0
        self._untilCut = 0
        self._notBefore = 0.0
        self._ended = False
        self._drained = False
        self._timer: IDelayedCall | None = None

    def inject(self, fault: StreamFault) -> None:
        self._faults[type(fault)] = fault
        if isinstance(fault, BlackHole):
            self.empty()
        elif isinstance(fault, CutAfter):
            self._untilCut = fault.bytes
        elif isinstance(fault, Bandwidth | Slice):
            self._notBefore = 0.0
        self._settle()

    def heal(self) -> None:
        self._faults.clear()
        self._notBefore = 0.0
        self._settle()

    def receive(self, item: bytes | StreamEnd) -> None:
        """Queue what the source has sent."""
        # After the proxy's own FIN only a reset may follow.
        if BlackHole in self._faults or (self._ended and item is not StreamEnd.RST):
            return
        if isinstance(item, bytes) and CutAfter in self._faults:
            item = item[: self._untilCut]
            self._untilCut -= len(item)
        delay = self._faults.get(Delay)
        wait = 0.0 if delay is None else delay.draw(self._random)
        self._append(self._clock.seconds() + wait, item)
        self._settle()

    def end(self) -> None:
        """Queue a FIN behind what waits, independently of the source."""
        if not self._ended:
            self._ended = True
            self._append(0.0, StreamEnd.FIN)
            self._settle()

    def empty(self) -> None:
        """Discard what is queued, and stop the timer."""
        self._queue.clear()
        self._size = 0
        self._stopTimer()

    def resumeProducing(self) -> None:
        self._drained = True
        self._settle()

    def stopProducing(self) -> None:
        """Do nothing: the lost consumer reports its own loss."""

    def _append(self, due: float, item: bytes | StreamEnd) -> None:
        if isinstance(item, bytes):
            self._size += len(item)
            self._queue.append((due, memoryview(item)))
        else:
            self._queue.append((due, item))

    def _settle(self) -> None:
        """Act on a change: cut, deliver, resume or pause reading."""
        if CutAfter in self._faults and self._untilCut == 0:
            self._cut(self._faults.pop(CutAfter))
        self._pump()
        full = self._size >= self._maxBuffered
        self._source.setReading(not full and StopReading not in self._faults)

    def _cut(self, cut: CutAfter) -> None:
        if cut.reset:
            self._ended = True
            self._append(0.0, StreamEnd.CUT)
        else:
            self._faults[BlackHole] = BlackHole()

    def _pump(self) -> None:
        self._stopTimer()
        if not self._queue or not self._drained or Hold in self._faults:
            return
        due, item = self._queue[0]
        earliest = max(self._notBefore, due if Delay in self._faults else 0.0)
        wait = earliest - self._clock.seconds()
        if wait > 0:
            self._timer = self._clock.callLater(wait, self._timeUp)
        elif isinstance(item, StreamEnd):
            self._queue.popleft()
            self._deliverStreamEnd(item)
            self._pump()
        elif self._destination.gone:
            self.empty()
            self._source.abort()
        else:
            self._deliverPiece(due, item)

    def _timeUp(self) -> None:
        self._timer = None
        self._settle()

    def _stopTimer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _deliverStreamEnd(self, streamEnd: StreamEnd) -> None:
        if streamEnd is StreamEnd.CUT:
            self._source.abort()
            self._destination.abort()
        elif streamEnd is StreamEnd.RST:
            self._destination.abort()
        elif self._destination.gone:
            self._source.abort()
        else:
            self._destination.finish()

    def _deliverPiece(self, due: float, chunk: memoryview) -> None:
        piece = chunk[: self._pieceSize(len(chunk))]
        self._queue.popleft()
        if len(piece) < len(chunk):
            self._queue.appendleft((due, chunk[len(piece) :]))
        self._size -= len(piece)
        self._notBefore = self._clock.seconds() + self._pauseBehind(len(piece))
        self._drained = False
        self._destination.write(bytes(piece))

    def _pieceSize(self, size: int) -> int:
        if Slice in self._faults:
            size = min(size, self._faults[Slice].size)
        if Bandwidth in self._faults:
            rate = self._faults[Bandwidth].bytesPerSecond
            size = min(size, max(1, int(rate / _PIECES_PER_SECOND)))
        return size

    def _pauseBehind(self, size: int) -> float:
        pause: float = self._faults[Slice].pause if Slice in self._faults else 0.0
        if Bandwidth in self._faults:
            pause = max(pause, size / self._faults[Bandwidth].bytesPerSecond)
        return pause
