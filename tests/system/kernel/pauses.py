# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What the watcher's own process goes through while it watches: it is stopped, its reactor is blocked,
its wall clock is stepped, a thousand of its links fall silent at once.

Each of these runs on two lanes: on one the peer lives throughout, and there must be no verdict; on
the other it is cut off, and there must be one in time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .cells import CROWD, USUAL_BOUND, Cell
from .faults import Peer, dropped
from .kernel import Kernel
from .network import HERE, THERE, Lane
from .processes import Event, Journal, Process
from .trials import NOISE, SLACK, SPEAKS_WITHIN, TRANSIT

STOPPED_FOR = 60.0
CUT_FOR = 10.0
"""Seconds before the end of it; the usual C{sendStall}, and keepalive, take longer."""

BLOCKED_FOR = 3.0
HOUR = 3600
CROWD_SIZE = 1000

CLOSING = 0.2
"""Seconds that the ends of a crowd may take after their verdicts."""

CUT = dropped(HERE, THERE)


def cellsOn(name: str, lane: Lane, loads: Sequence[str]) -> list[Cell]:
    """
    A cell for each load, plain and TLS, client and server.
    """
    return [
        Cell(
            row=name, secure=secure, side=side, load=load, here=lane.here, there=(lane.there,),
            patient=True,
        )
        for secure in (False, True)
        for side in ("client", "server")
        for load in loads
    ]  # fmt: skip


@dataclass
class Found:
    """
    What came of it.

    @ivar complaints: what is wrong, one sentence each.
    @ivar figures: what was measured, for the summary.
    """

    complaints: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)

    def require(self, holds: bool, complaint: str) -> None:
        """
        Complain unless it holds.
        """
        if not holds:
            self.complaints.append(complaint)

    def note(self, what: str, seconds: float) -> None:
        """
        Keep the longest of its kind.
        """
        self.figures[what] = max(seconds, self.figures.get(what, 0.0))


class Watching:
    """
    A watcher's process with a lane whose peer lives and one whose peer is cut off.
    """

    def __init__(
        self, kernel: Kernel, name: str, loads: Sequence[str], watcher: Process, *, lanes: int = 2
    ) -> None:
        self.journal: Journal = kernel.journal
        self.watcher = watcher
        self.found = Found()
        self._process = kernel.peer()
        self.lanes = kernel.lanes(lanes)
        names = ("Lives", "Cut", "CutLater")[:lanes]
        self.cells = [
            cellsOn(name + kind, lane, loads) for kind, lane in zip(names, self.lanes, strict=True)
        ]
        self._connect()

    @property
    def alive(self) -> list[Cell]:
        """
        Those whose peer lives.
        """
        return self.cells[0]

    def peer(self, number: int) -> Peer:
        """
        The peer of a lane.
        """
        return Peer(self._process, self.cells[number], lambda: self._process)

    def _connect(self) -> None:
        everyone = [cell for cells in self.cells for cell in cells]
        servers = [cell for cell in everyone if cell.side == "server"]
        clients = [cell for cell in everyone if cell.side == "client"]
        self.watcher.tell("meet", servers)
        self._process.tell("meet", everyone)
        self.watcher.tell("meet", clients)
        self.found.require(
            self.journal.wait(
                lambda: all(self.journal.of(cell, "spoke") for cell in everyone), SPEAKS_WITHIN
            ),
            "no connection to begin with",
        )
        time.sleep(1.0)

    def cut(self, number: int) -> float:
        """
        Cut a lane.

        @return: when it was.
        """
        CUT.strike(self.lanes[number], self.peer(number))
        return time.monotonic()

    def requireAlive(self, cells: Sequence[Cell] | None = None) -> None:
        """
        Nobody who lives was declared dead.
        """
        for cell in self.alive if cells is None else cells:
            ended = self.journal.of(cell, "disconnected")
            self.found.require(not ended, f"{cell.name}: a verdict on a living peer: {ended}")

    def requireDead(self, number: int, since: float, within: float = USUAL_BOUND) -> None:
        """
        Wait for the verdicts on a lane that is cut, and have each come in time.

        @param since: when the time begins.
        """
        cells = self.cells[number]
        self.journal.wait(
            lambda: all(self.journal.of(cell, "disconnected") for cell in cells), within + 2.0
        )
        for cell in cells:
            ended = self.journal.of(cell, "disconnected")
            if not ended:
                self.found.require(False, f"{cell.name}: no verdict")
                continue
            self._requireVerdict(cell, ended[0], since, within)

    def _requireVerdict(self, cell: Cell, verdict: Event, since: float, within: float) -> None:
        seconds = verdict["at"] - since
        late = SLACK + TRANSIT + NOISE + verdict["runDelay"]
        self.found.note("verdict on the dead after", seconds)
        self.found.require(
            0 <= seconds <= within + late,
            f"{cell.name}: a verdict after {seconds:.3f} s, {within + late:.3f} s are allowed",
        )
        true = {"PeerSilent", "SendStalled"} if cell.load == "stall" else {"PeerSilent"}
        self.found.require(
            verdict["cause"] in true, f"{cell.name}: {verdict['cause']}, {verdict['words']}"
        )

    def end(self) -> Found:
        """
        Leave everything.
        """
        everyone = [cell for cells in self.cells for cell in cells]
        self.watcher.tell("leave", everyone)
        self.watcher.end()
        self._process.end()
        return self.found


def stopProcess(kernel: Kernel) -> Found:
    """
    The watcher's process is stopped for a minute.  Toward its end, one lane is cut.
    """
    watching = Watching(kernel, "stopped", ("idle", "data", "full", "stall"), kernel.watcher())
    watching.watcher.stop()
    time.sleep(STOPPED_FOR - CUT_FOR)
    watching.cut(1)
    time.sleep(CUT_FOR)
    resumed = time.monotonic()
    watching.watcher.resume()
    watching.requireDead(1, resumed)
    time.sleep(max(0.0, resumed + 2 * USUAL_BOUND - time.monotonic()))
    watching.requireAlive()
    return watching.end()


def blockReactor(kernel: Kernel, place: str) -> Found:
    """
    The watcher's reactor is blocked for longer than the bound.  Meanwhile, one lane is cut.
    """
    watching = Watching(kernel, f"blocked{place}", ("data", "idle", "stall"), kernel.watcher())
    watching.watcher.tell("block", watching.alive[:1], wait=False, where=place, seconds=BLOCKED_FOR)

    def has(event: str) -> bool:
        return watching.journal.last(watching.watcher.pid, event) is not None

    watching.found.require(watching.journal.wait(lambda: has("blocks"), 3.0), "it did not block")
    watching.cut(1)
    watching.found.require(watching.journal.wait(lambda: has("runs"), 10.0), "it did not run again")
    runs = watching.journal.last(watching.watcher.pid, "runs")
    assert runs is not None
    watching.requireDead(1, runs["at"])
    time.sleep(max(0.0, runs["at"] + 2 * USUAL_BOUND - time.monotonic()))
    watching.requireAlive()
    return watching.end()


def findFaketime() -> Path | None:
    """
    Debian's libfaketime, which its C{faketime} package brings.
    """
    return next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


class WallClock:
    """
    The wall clock of one process, which alone is stepped; its monotonic clock is the machine's.
    """

    def __init__(self, folder: Path, library: Path) -> None:
        self._file = folder / "walltime"
        self.step(0)
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            # The older name and the newer one.
            "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def step(self, seconds: int) -> None:
        """
        Set it so many seconds before or after the machine's.
        """
        self._file.write_text(f"{seconds:+d}\n", encoding="ascii")


def _wallTime(watching: Watching) -> float:
    watching.watcher.tell("wallTime")
    said = watching.journal.last(watching.watcher.pid, "wallTime")
    assert said is not None
    return float(said["wall"])


def stepClock(kernel: Kernel) -> Found:
    """
    The watcher's wall clock is stepped by an hour, forth and back.  After each step there is no
    verdict, the pings go on, the retries go on, and a lane that is cut is found in time.
    """
    library = findFaketime()
    assert library is not None
    clock = WallClock(kernel.folder, library)
    watcher = kernel.watcher(environment=clock.environment)
    watching = Watching(kernel, "clock", ("idle",), watcher, lanes=3)
    [refused] = kernel.lanes(1)
    retrying = Cell(
        row="clockRefused", secure=False, side="client", load="idle",
        here=refused.here, there=(refused.there,),
    )  # fmt: skip
    watcher.tell("meet", [retrying])
    for number, offset in ((1, HOUR), (2, -HOUR)):
        _stepAndCut(watching, clock, number, offset, retrying)
    watching.requireAlive()
    watcher.tell("leave", [retrying])
    return watching.end()


def _stepAndCut(
    watching: Watching, clock: WallClock, number: int, offset: int, retrying: Cell
) -> None:
    found, journal = watching.found, watching.journal
    stepped = time.monotonic()
    clock.step(offset)
    off = _wallTime(watching) - time.time()
    found.require(abs(off - offset) < 60, f"the clock was to be {offset} s off, and is {off:.0f} s")
    time.sleep(1.5 * USUAL_BOUND)
    watching.requireAlive([*watching.alive, *watching.cells[number]])
    for cell in watching.alive:
        pinged = [sent for sent in journal.of(cell, "sent") if sent["at"] > stepped]
        found.require(len(pinged) >= 2, f"{cell.name}: no pings after a step of {offset} s")
    tried = [e["at"] for e in journal.of(retrying, "connecting") if e["at"] > stepped]
    longest = max((b - a for a, b in zip([stepped, *tried], tried, strict=False)), default=99.0)
    found.note("between two retries", longest)
    found.require(longest < 2.0, f"a wait of 0.5 s was one of {longest:.1f} s")
    watching.requireDead(number, watching.cut(number))


def dropCrowd(kernel: Kernel) -> Found:
    """
    A thousand peers say something in one instant, and are cut off in the next.
    """
    watcher, process = kernel.watcher(), kernel.peer()
    [lane] = kernel.lanes(1)
    journal, found = kernel.journal, Found()
    cell = Cell(
        row=CROWD, secure=False, side="server", load="idle", here=lane.here, there=(lane.there,),
        patient=True,
    )  # fmt: skip
    watcher.tell("quiet")
    watcher.tell("meet", [cell])
    process.tell("meet", [cell], times=CROWD_SIZE)
    here = journal.wait(lambda: len(journal.of(cell, "spoke")) >= CROWD_SIZE, 30.0)
    found.require(here, f"only {len(journal.of(cell, 'spoke'))} of {CROWD_SIZE} are here")
    time.sleep(1.0)
    process.tell("shout", [cell])
    CUT.strike(lane, Peer(process, [cell], lambda: process))
    time.sleep(2 * USUAL_BOUND)
    watcher.tell("tellCrowd")
    told = journal.last(watcher.pid, "crowd")
    assert told is not None
    _judgeCrowd(found, told["ended"], told["runDelay"])
    watcher.tell("leave", [cell])
    watcher.end()
    process.end()
    return found


def _judgeCrowd(found: Found, ended: list[Event], runDelay: float) -> None:
    found.require(len(ended) == CROWD_SIZE, f"{len(ended)} of {CROWD_SIZE} have ended")
    found.note("of which for want of a processor", runDelay)
    for one in ended:
        # The verdict's own words say when it fell; to close a thousand sockets takes its time.
        fell = float(one["words"].removeprefix("nothing received for ").split()[0])
        found.note("verdict after", fell)
        found.note("gone after", one["silence"])
        latest = USUAL_BOUND + SLACK + NOISE + runDelay
        found.require(
            0.95 * USUAL_BOUND <= fell <= latest,
            f"a verdict after {fell:.3f} s, {latest:.3f} s are allowed",
        )
        found.require(
            one["silence"] <= latest + CLOSING,
            f"gone after {one['silence']:.3f} s, {latest + CLOSING:.3f} s are allowed",
        )
        found.require(one["cause"] == "PeerSilent", f"{one['cause']}: {one['words']}")
    together = {one["together"] for one in ended}
    found.figures["simultaneousVerdicts"] = max(together, default=0)
    found.require(together == {CROWD_SIZE}, f"simultaneousVerdicts: {sorted(together)[:10]}")
