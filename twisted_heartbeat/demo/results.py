# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The result of each fault, and its row in the table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from time import monotonic
from typing import TYPE_CHECKING

from .. import Cause, ConnectFailed, LinkHooks
from .settings import BACK_WITHIN, BROKEN, BUSY

if TYPE_CHECKING:
    from .. import Link, Retry


HEADINGS = ("fault", "cause named", "detected after", "cleanups", "back after", "promise")
WIDTHS = (13, 13, 19, 8, 10, 7)
"""Of the longest cells, with the longest bound, too: a row that is filled in moves no column."""

LEGEND = """
In seconds; in brackets, what is allowed.  Detected after: since the last byte
received.  Back after: from the link's end, or the peer's return if that was
later, to the peer's first answer.  PeerSilent: nothing answered.  PeerHung: a
kernel still did, but not the peer's process.  A "-" stands where there is no
link, and so no cleanup: a sender of datagrams, and a job that checks in over
HTTP.
"""
NO_JOB = 'A row about a job that checks in is left out: it needs the extra "http".\n'

KEPT = "Each row kept the promise."


class Recorder(LinkHooks):
    """
    Records what the hooks report.

    @ivar ended: why and when each link ended, by generation.
    @ivar cleanups: the number of cleanups that ran for each link, by generation.
    @ivar rejections: the number of failed attempts to connect.
    """

    def __init__(self, say: Callable[[str, str], None]) -> None:
        self._say = say
        self.ended: dict[int, tuple[type[Cause], float]] = {}
        self.cleanups: Counter[int] = Counter()
        self.rejections = 0

    def connected(self, link: Link) -> None:
        self._say("connected", f"link {link.generation}, bound {link.bound:g} s")
        link.addCleanup(self._cleanUp, link.generation)

    def suspected(self, link: Link) -> None:
        self._say("suspected", f"nothing received for {link.silence:.2f} s")

    def disconnected(self, link: Link, cause: Cause) -> None:
        self.ended[link.generation] = (type(cause), monotonic())
        self._say("disconnected", f"{type(cause).__name__}: {cause}")

    def retrying(self, retry: Retry) -> None:
        self.rejections += isinstance(retry.cause, ConnectFailed)
        self._say("retrying", f"in {retry.delay:.2f} s, after {type(retry.cause).__name__}")

    def _cleanUp(self, generation: int) -> None:
        self.cleanups[generation] += 1
        self._say("cleanup", f"of link {generation}")


@dataclass
class FaultResult:
    """
    The result of one fault.

    @ivar bound: see L{Heartbeat.bound}.
    @ivar silent: whether only silence reveals the fault, so that a verdict may come too early.
    @ivar refuses: whether attempts to connect must fail during the fault.
    @ivar expected: the true cause.
    @ivar hasLink: whether it is a link that ends, which has a cleanup.
    @ivar late: seconds by which timers of this process came late meanwhile.
    """

    fault: str
    bound: float
    silent: bool = False
    refuses: bool = False
    hasLink: bool = True
    expected: type[Cause] = Cause
    cause: type[Cause] | None = None
    detectedAfter: float = inf
    cleanups: int = 0
    refused: int = 0
    backAfter: float = inf
    late: list[float] = field(default_factory=list)

    def broken(self) -> list[str]:
        """
        The promises that were not kept: what was expected, and what came.  What came later than
        promised is excused by timers that were late enough.
        """
        earliest, latest = self._span()
        # The ping, the deadline, the deadline of a second ping and the last look may each be late;
        # and if the first deadline is, the peer gets as much time again.
        late = sorted(self.late)[-4:]
        excused = sum(late) + max(late, default=0.0)
        inTime = earliest <= self.detectedAfter <= latest + excused
        promises = [
            (self.cause is self.expected, self.expected.__name__, _nameOf(self.cause)),
            (inTime, f"the end after {self._allowed()} s", f"{self.detectedAfter:.3f} s"),
            (self.cleanups == 1 or not self.hasLink, "1 cleanup", str(self.cleanups)),
            (self.refused > 0 or not self.refuses, "refused attempts", "none"),
            (
                self.backAfter <= BACK_WITHIN + excused,
                f"the link back within {BACK_WITHIN:.2f} s",
                f"{self.backAfter:.2f} s",
            ),
        ]
        return [f"expected {words}, and not {came}" for kept, words, came in promises if not kept]

    def unclear(self) -> bool:
        """
        Whether nothing but late timers of this process explains why a promise was not kept.
        """
        return not self.broken() and bool(replace(self, late=[]).broken())

    def cells(self) -> tuple[str, ...]:
        """
        The cells of the row under L{HEADINGS}.
        """
        promise = "broken" if self.broken() else "unclear" if self.unclear() else "kept"
        return (
            self.fault,
            _nameOf(self.cause),
            _seconds(self.detectedAfter, self._allowed()),
            f"{self.cleanups} (1)" if self.cause and self.hasLink else "-",
            _seconds(self.backAfter, f"{BACK_WITHIN:.1f}"),
            promise if self.backAfter < inf else "-",
        )

    def _span(self) -> tuple[float, float]:
        return (0.95 * self.bound if self.silent else 0.0, self.bound + 0.05)

    def _allowed(self) -> str:
        earliest, latest = self._span()
        return f"{earliest:.2f}-{latest:.2f}" if self.silent else f"{latest:.2f}"


def judge(results: Sequence[FaultResult]) -> tuple[list[str], int]:
    """
    Return the last words about the results, and the exit status for them.
    """
    words = [f"{result.fault}: {broken}." for result in results for broken in result.broken()]
    status = BROKEN if words else 0
    late = [seconds for result in results if result.unclear() for seconds in result.late]
    if late:
        words.append(
            f"This machine was too busy: a timer came {max(late):.2f} s late.\n"
            "Run the demo again with nothing else running."
        )
    return words or [KEPT], status or (BUSY if late else 0)


def _nameOf(cause: type[Cause] | None) -> str:
    return "-" if cause is None else cause.__name__


def _seconds(measured: float, allowed: str) -> str:
    return f"{measured:.2f} ({allowed})" if measured < inf else "-"
