# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Trial}: one row on a lane of its own, from the first connection to the last; and L{Outcome}, what
came of one cell of it.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from .cells import (
    CONNECT_TIMEOUT,
    KEEPALIVE_COUNT,
    KEEPALIVE_IDLE,
    KEEPALIVE_INTERVAL,
    LOADS,
    PACE,
    QUICK_BOUND,
    SEND_STALL,
    SHORTEST_DELAY,
    USUAL_BOUND,
    Cell,
)
from .faults import Peer
from .network import HERE, THERE, Lane
from .processes import Event, Journal, Process
from .rows import BOUND, GRADUALLY, KEEPALIVE, NEVER, STALL, WITHIN, Expected, Row

KEEPALIVE_BOUND = KEEPALIVE_IDLE + KEEPALIVE_COUNT * KEEPALIVE_INTERVAL
KEEPALIVE_LATE = 0.7
"""
Seconds that the kernel takes longer: its timer wheel rounds each of the three timers up
(C{kernel/time/timer.c}), and a probe that could not leave, with the cable out, is not counted but
sent again after 0.5 s (C{TCP_RESOURCE_PROBE_INTERVAL}).
"""

SLACK = 0.05
"""Seconds that a verdict may come late, as promised."""

NOISE = float(os.environ.get("KERNEL_SUITE_NOISE", "0.25" if os.environ.get("CI") else "0"))
"""Seconds that are added to that on a noisy machine, and to the upper side only."""

BUSY = 0.1
"""Seconds that the watcher waits for a processor on a machine with too much other work."""

TRANSIT = 0.05
"""Seconds that a byte may take from the peer's C{send} until a busy watcher has read it."""

PROMPT = 0.3
"""Seconds within which what the kernel tells at once is told."""

SPEAKS_WITHIN = 8.0
BACK_WITHIN = 4.0
WATCHED_AFTER = 0.4


@dataclass
class Outcome:
    """
    What came of one cell.

    @ivar cause: the verdict's; L{None} if there was none.
    @ivar seconds: from what the expectation counts from.
    @ivar back: seconds from the end of the fault to the new link's first word.
    @ivar complaints: what is wrong, one sentence each.
    @ivar runDelay: the worst delay of the watcher's for want of a processor, in seconds.
    @ivar isCertain: whether something is wrong that no delay explains.
    """

    cell: Cell
    expected: Expected
    cause: str | None = None
    seconds: float | None = None
    back: float | None = None
    complaints: list[str] = field(default_factory=list)
    runDelay: float = 0.0
    isCertain: bool = False

    @property
    def isDoubtful(self) -> bool:
        """
        Whether something is wrong, and the machine may have to answer for it.
        """
        return bool(self.complaints) and self.runDelay > BUSY

    def require(self, holds: bool, complaint: str, *, always: bool = False) -> None:
        """
        Complain unless it holds.

        @param always: whether it has to hold on the busiest machine, too.
        """
        if not holds:
            self.complaints.append(f"{self.cell.name}: {complaint}")
            self.isCertain = self.isCertain or always


def cellsOf(
    row: Row,
    lane: Lane,
    loads: tuple[str, ...] = LOADS,
    *,
    prefix: str = "",
    mended: bool = True,
    ipv6: bool = False,
) -> list[Cell]:
    """
    All cells of a row.

    @param loads: only these.
    @param prefix: tells them from those of another trial of the row.
    @param mended: whether the fault is mended, and the peer has to come back.
    @param ipv6: whether to use link-local addresses.
    """
    here, there = lane.here, (lane.there,)
    if row.moves:
        there = (lane.there, lane.elsewhere)
    if ipv6:
        # As whoever uses them sees them, each end has its own interface's name.
        here, there = lane.linkLocal(HERE), (lane.linkLocal(THERE),)
    return [
        Cell(
            row=prefix + row.name,
            secure=secure,
            side=side,
            load=load,
            here=here,
            there=there,
            speaks=row.speaks,
            patient=not mended or row.expected[load].when == NEVER,
        )
        for secure in row.secure
        for side in row.sides
        for load in row.expected
        if load in loads
    ]


TRIES, PAUSE = 3, 5.0
"""Trials of a row, and seconds between two, in which the other work may come to its end."""


def runUntilSure(makeTrial: Callable[[str], Trial]) -> list[Outcome]:
    """
    Run a trial, and again if something was wrong on a machine with too much other work.

    @param makeTrial: makes it, with names that begin with this.
    """
    outcomes = makeTrial("").run()
    for number in range(1, TRIES):
        isCertain = any(outcome.isCertain for outcome in outcomes)
        if isCertain or not any(outcome.isDoubtful for outcome in outcomes):
            break
        time.sleep(PAUSE)
        outcomes = makeTrial(f"again{number}-").run()
    return outcomes


class Trial:
    """
    One row on a lane of its own.
    """

    def __init__(
        self,
        row: Row,
        lane: Lane,
        journal: Journal,
        watcher: Process,
        sharedPeer: Process,
        newPeer: Callable[[], Process],
        *,
        loads: tuple[str, ...] = LOADS,
        prefix: str = "",
        ipv6: bool = False,
    ) -> None:
        """
        @param loads: only these, see L{cellsOf}.
        @param prefix: see L{cellsOf}.
        @param ipv6: whether to use link-local addresses.
        """
        self.row = row
        self._lane = lane
        self._journal = journal
        self._watcher = watcher
        self._newPeer = newPeer
        self._sharedPeer = sharedPeer
        self._cells = cellsOf(row, lane, loads, prefix=prefix, ipv6=ipv6)
        self._struckFrom = self._struckBy = self._mending = self._mended = 0.0

    def run(self) -> list[Outcome]:
        """
        Connect, strike, mend, disconnect.

        @return: what came of each cell.
        """
        process = self._newPeer() if self.row.ownPeer else self._sharedPeer
        peer = Peer(process, self._cells, self._newPeer)
        self._connect(peer)
        time.sleep(0.8 + random.random() * 0.6)
        self._strike(peer)
        time.sleep(self.row.lasts)
        self._mending = time.monotonic()
        self.row.fault.mend(self._lane, peer)
        self._mended = time.monotonic()
        self._journal.wait(self._isBack, BACK_WITHIN)
        time.sleep(WATCHED_AFTER)
        outcomes = [self._outcome(cell) for cell in self._cells]
        self._watcher.tell("leave", self._cells)
        peer.tell("leave")
        if self.row.ownPeer:
            peer.process.end()
        return outcomes

    def _connect(self, peer: Peer) -> None:
        servers = [cell for cell in self._cells if cell.side == "server"]
        clients = [cell for cell in self._cells if cell.side == "client"]
        self._watcher.tell("meet", servers)
        peer.tell("meet")
        self._watcher.tell("meet", clients)

        def allSpeak() -> bool:
            return all(self._journal.of(cell, "spoke") for cell in self._cells)

        if not self._journal.wait(allSpeak, SPEAKS_WITHIN):
            mute = [cell.name for cell in self._cells if not self._journal.of(cell, "spoke")]
            raise TimeoutError(f"No connection before the fault: {', '.join(mute)}")

    def _strike(self, peer: Peer) -> None:
        self._struckFrom = time.monotonic()
        self.row.fault.strike(self._lane, peer)
        self._struckBy = time.monotonic()
        self.row.fault.follow(self._lane, peer)

    def _isBack(self) -> bool:
        return all(
            self.row.expected[cell.load].when == NEVER or self._spokeAgain(cell) is not None
            for cell in self._cells
        )

    def _spokeAgain(self, cell: Cell) -> float | None:
        """
        When the first link after the fault heard its first word.
        """
        since = self._mended if self.row.strikesAttempts else self._struckBy
        spoken = [event["at"] for event in self._journal.of(cell, "spoke") if event["at"] > since]
        return spoken[0] if spoken else None

    # Judging.

    def _outcome(self, cell: Cell) -> Outcome:
        outcome = Outcome(cell, self.row.expected[cell.load])
        ended = self._journal.of(cell, "disconnected")
        outcome.runDelay = max((event["runDelay"] for event in ended), default=0.0)
        early = [event for event in ended if event["at"] < self._struckFrom]
        outcome.require(not early, f"a false verdict before the fault: {early}", always=True)
        after = [event for event in ended if event["at"] >= self._struckFrom]
        if self.row.strikesAttempts:
            self._judgeAttempts(outcome)
        elif outcome.expected.when == NEVER:
            outcome.require(not after, f"a verdict on a peer that lives: {after}", always=True)
        elif not after:
            outcome.require(False, "no verdict")
        else:
            self._judgeVerdict(outcome, after[0])
            self._judgeLater(outcome, after[1:])
        self._judgeEndings(outcome, ended)
        return outcome

    def _judgeVerdict(self, outcome: Outcome, verdict: Event) -> None:
        cell, expected = outcome.cell, outcome.expected
        outcome.cause = verdict["cause"]
        outcome.require(
            verdict["cause"] in expected.causes,
            f"{verdict['cause']} ({verdict['words']}), and not {' or '.join(expected.causes)}; "
            f"evidence {verdict['evidence']}",
        )
        outcome.require(verdict["evidence"] is not None, "no evidence")
        # The machine can delay the ping, and then the verdict.
        late = SLACK + NOISE + 2 * verdict["runDelay"]
        bound = QUICK_BOUND if cell.load == "quick" else USUAL_BOUND
        silence = verdict["at"] - self._lastSent(outcome, verdict)
        if expected.when == BOUND:
            self._judgeTime(outcome, "silence as the library says", verdict["silence"], bound, late)
            self._judgeTime(outcome, "silence as the peer says", silence, bound, late + TRANSIT)
        elif expected.when == GRADUALLY:
            self._judgeTime(outcome, "silence as the library says", verdict["silence"], bound, late)
        elif expected.when == KEEPALIVE:
            self._judgeKeepAlive(outcome, verdict["at"], late)
        elif expected.when == STALL:
            self._judgeStall(outcome, verdict["at"] - self._struckBy, late)
        elif expected.when == WITHIN:
            outcome.seconds = silence
            most = KEEPALIVE_BOUND if cell.load == "keepalive" else bound
            outcome.require(silence <= most + late, f"{silence:.3f} s of silence")
        else:
            outcome.seconds = max(0.0, verdict["at"] - self._struckBy)
            fresh = outcome.seconds <= PROMPT + late
            outcome.require(fresh, f"{outcome.seconds:.3f} s after the fault, and not at once")
        self._judgeBack(outcome, verdict)

    def _judgeLater(self, outcome: Outcome, ended: list[Event]) -> None:
        """
        A link that is made while the fault lasts, by the kernel of a stopped peer for example, ends
        by it, too, if only just before the peer has got round to it; but none that was made later.

        A peer that connects may give up an attempt in the instant in which the attempt succeeds.
        """
        allowed, until = {*outcome.expected.causes, "HandshakeFailed"}, self._mended + PROMPT
        if outcome.cell.side == "server":
            allowed.add("PeerClosed")
        wrong = [e for e in ended if e["at"] > until or e["cause"] not in allowed]
        outcome.require(not wrong, f"one fault, and more verdicts: {wrong}")

    def _judgeTime(
        self, outcome: Outcome, what: str, seconds: float, bound: float, late: float
    ) -> None:
        outcome.seconds = seconds
        outcome.require(
            0.95 * bound <= seconds <= bound + late,
            f"{what} was {seconds:.3f} s: {0.95 * bound:.3f} to {bound + late:.3f} s are allowed",
        )

    def _judgeStall(self, outcome: Outcome, seconds: float, late: float) -> None:
        """
        The last progress may be that of the peer's last read before the fault, or what its kernel
        still took in after it.
        """
        outcome.seconds = seconds
        outcome.require(
            0.95 * SEND_STALL - 2 * PACE <= seconds <= SEND_STALL + late + 2 * PACE,
            f"stalled {seconds:.3f} s after the fault",
        )

    def _judgeKeepAlive(self, outcome: Outcome, fell: float, late: float) -> None:
        """
        Keepalive counts from the last segment, which may be the answer to a probe.
        """
        outcome.seconds = fell - self._struckBy
        inTime = (
            fell - self._struckFrom >= KEEPALIVE_BOUND - KEEPALIVE_IDLE - SLACK
            and outcome.seconds <= KEEPALIVE_BOUND + KEEPALIVE_LATE + late
        )
        outcome.require(inTime, f"{outcome.seconds:.3f} s after the fault")

    def _judgeBack(self, outcome: Outcome, verdict: Event) -> None:
        spoke = self._spokeAgain(outcome.cell)
        outcome.require(spoke is not None, f"not back within {BACK_WITHIN} s of the mending")
        if spoke is not None:
            # What comes back while the fault still lasts had only the verdict to wait for.
            since = self._mended if spoke > self._mending else verdict["at"]
            outcome.back = max(0.0, spoke - since)

    def _judgeAttempts(self, outcome: Outcome) -> None:
        """
        Each attempt fails in time, with the right cause; over TLS, where none of them gets through
        the handshake, none counts as connected; and they keep their distance.
        """
        cell = outcome.cell
        failed = self._journal.of(cell, "retrying" if cell.side == "client" else "disconnected")
        failed = [event for event in failed if self._duringFault(event)]
        if failed and failed[0]["cause"] == "PeerReset":
            # The end of the link that there was.
            failed = failed[1:]
        causes = {event["cause"] for event in failed}
        outcome.cause = " or ".join(sorted(causes)) or None
        outcome.require(bool(causes), "no attempt has failed")
        allowed = set(outcome.expected.causes)
        outcome.require(causes <= allowed, f"{causes - allowed}, and not {allowed}: {failed}")
        taken = [e for e in self._journal.of(cell, "connected") if self._duringFault(e)]
        outcome.require(not (cell.secure and taken), f"taken for connected: {taken}")
        begun = [e["at"] for e in self._journal.of(cell, "connecting") if self._duringFault(e)]
        if cell.side == "client" and begun:
            outcome.seconds = self._judgePace(outcome, begun, [e["at"] for e in failed])
        self._judgeBack(outcome, {"at": self._mended})

    def _duringFault(self, event: Event) -> bool:
        return self._struckBy < event["at"] < self._mending

    def _judgePace(self, outcome: Outcome, begun: list[float], failed: list[float]) -> float:
        """
        @return: seconds that the longest attempt took.
        """
        longest = 0.0
        bound = max(CONNECT_TIMEOUT, USUAL_BOUND)
        for start in begun:
            ends = [at for at in failed if at > start]
            if ends:
                longest = max(longest, ends[0] - start)
        outcome.require(
            longest <= bound + SLACK + NOISE + PROMPT, f"an attempt took {longest:.3f} s"
        )
        gaps = [
            min((start - end for end in failed if end <= start), default=SHORTEST_DELAY)
            for start in begun
        ]
        shortest = min(gaps, default=SHORTEST_DELAY)
        outcome.require(
            shortest >= SHORTEST_DELAY * 0.9, f"a retry came {shortest:.3f} s after a failure"
        )
        return longest

    def _judgeEndings(self, outcome: Outcome, ended: list[Event]) -> None:
        """
        Each link that was connected ends once, in the hooks and in the log alike, and is cleaned up
        once, before the next attempt.  A server's log sums up those that never were connected.
        """
        cell = outcome.cell
        generations = [event["generation"] for event in ended]
        isOnce = len(generations) == len(set(generations))
        outcome.require(isOnce, f"ended twice: {generations}", always=True)
        logged = [
            (event["generation"], event["cause"])
            for event in self._journal.of(cell, "logged")
            if event["name"] == "disconnected"
        ]
        told = [(event["generation"], event["cause"]) for event in ended]
        connected = [event["generation"] for event in self._journal.of(cell, "connected")]
        expected = [one for one in told if cell.side == "client" or one[0] in connected]
        complete = set(expected) <= set(logged) <= set(told) and len(logged) == len(set(logged))
        outcome.require(complete, f"the log says {logged}, the hooks {told}", always=True)
        cleaned = [event["generation"] for event in self._journal.of(cell, "cleanup")]
        due = sorted(set(connected) & set(generations))
        isClean = sorted(cleaned) == due
        outcome.require(isClean, f"cleaned up {sorted(cleaned)}, and not {due}", always=True)
        before = "an attempt began before the cleanups were done"
        outcome.require(self._cleanedInTime(cell), before, always=True)

    def _cleanedInTime(self, cell: Cell) -> bool:
        pending = False
        for event in self._journal.of(cell, "connected", "cleanup", "connecting"):
            if event["event"] == "connecting" and pending:
                return False
            pending = event["event"] == "connected"
        return True

    def _lastSent(self, outcome: Outcome, verdict: Event) -> float:
        """
        When the peer said the last that the library says it heard.  What was said after that and
        well before the fault was not missed.
        """
        heard = verdict["at"] - verdict["silence"]
        sent = [event["at"] for event in self._journal.of(outcome.cell, "sent")]
        missed = [at for at in sent if heard < at < self._struckFrom - TRANSIT - NOISE]
        outcome.require(not missed, f"heard nothing of what was said at {missed}, only at {heard}")
        return max(at for at in sent if at <= heard)
