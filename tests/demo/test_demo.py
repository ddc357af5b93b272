# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The demo: it shows the truth, judges it by the promises, and leaves nothing running.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from math import inf
from time import monotonic
from typing import Any, NoReturn

import pytest
import pytest_twisted
from twisted.internet.task import Clock

from twisted_heartbeat import Heartbeat, Limits, PeerClosed, PeerHung, PeerReset, PeerSilent
from twisted_heartbeat.demo import datagram
from twisted_heartbeat.demo.main import STARTING, main
from twisted_heartbeat.demo.punctuality import Punctuality
from twisted_heartbeat.demo.results import FaultResult, judge
from twisted_heartbeat.demo.settings import BACK_WITHIN, HUNG, LONGEST_BOUND

pty = pytest.importorskip("pty", reason="the demo freezes a process, which is for POSIX only")

WAIT_LIMIT = 60
"""Seconds for a whole demo, on a busy machine."""

TRIES = 8
"""Demos in a row on a machine that is too busy."""

FAULTS = ["silent cut", "frozen peer", "reset", "clean close", "peer gone 3 s"]
FAULTS += ["UDP cut", "job dies"]

KEPT = FaultResult(
    "silent cut",
    2.0,
    silent=True,
    refuses=True,
    expected=PeerSilent,
    cause=PeerSilent,
    detectedAfter=2.01,
    cleanups=1,
    refused=3,
    backAfter=0.3,
)

QUICK = """
import sys
from twisted_heartbeat.demo import main, scenario
scenario.SETTLE = 0.1
scenario.OUTAGE = 0.5
{}
main.main(["--within", "0.5"])
"""


def start(*command: str, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
    """
    Start a demo.  Its peer inherits the standard error, so that this ends when both have ended.
    """
    return subprocess.Popen(
        [sys.executable, *command],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    )


def promises(output: str) -> dict[str, str]:
    """
    The last column of the table, by its first.
    """
    last = output[output.index("\nfault ") :].splitlines()
    return {name: line.split()[-1] for name in FAULTS for line in last if line.startswith(name)}


Run = tuple[int, str, str]
"""The exit status of a demo, what it has printed or drawn, and its errors."""


def untilPunctual(run: Callable[[], Run]) -> Run:
    """
    Run a demo as it says itself: again, while this machine is too busy.  Then the peer's process
    may be late as well, which no timer here sees.
    """
    for _ in range(TRIES - 1):
        done = run()
        if "too busy" not in done[1]:
            return done
    return run()


def shown() -> Run:
    """
    Run the demo as a new user does, with its output in a pipe.
    """
    process = start("-m", "twisted_heartbeat")
    output, errors = process.communicate(timeout=WAIT_LIMIT)
    return process.returncode, output, errors


def drawn() -> Run:
    """
    Run a quick demo in a terminal.
    """
    ours, theirs = pty.openpty()
    process = start("-c", QUICK.format(""), stdout=theirs)
    os.close(theirs)
    output = b""
    while piece := _read(ours):
        output += piece
    os.close(ours)
    _, errors = process.communicate(timeout=WAIT_LIMIT)
    return process.returncode, output.decode(), errors


def test_keepsThePromise() -> None:
    """
    As a new user starts it, each row keeps the promise, names the true cause, and the exit is 0.
    """
    status, output, errors = untilPunctual(shown)
    assert promises(output) == dict.fromkeys(FAULTS, "kept"), output
    causes = [HUNG.__name__, "PeerSilent", "PeerReset", "PeerClosed", "CheckInMissed"]
    assert [cause for cause in causes if cause not in output] == []
    assert "Each row kept the promise." in output
    assert output.startswith(f"{STARTING}\n")
    assert " attempts, while the peer was gone\n" in output
    assert 'the extra "http"' not in output
    assert (status, errors) == (0, "")


def test_inATerminal() -> None:
    """
    In a terminal it is drawn by rich, and comes to the same.  Each event is shown once, and stays.
    """
    status, output, errors = untilPunctual(drawn)
    assert (status, errors) == (0, ""), output
    assert "─" in output
    assert [output.count("FAULT"), output.count("ClosedHere")] == [len(FAULTS), 1]
    assert "Each row kept the promise." in output


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:
        # EIO: nobody has the other side open any more, pty(7).
        return b""


WRONG = """
from time import sleep
from twisted_heartbeat.demo import views
sys.modules["rich"] = sys.modules["treq"] = None
scenario.HUNG = scenario.PeerReset
class HeldUp(views.Plain):
    naps = [0.6]
    def say(self, event, words):
        super().say(event, words)
        if event == "suspected" and self.naps:
            sleep(self.naps.pop())
views.Plain = HeldUp
"""


def test_brokenPromise() -> None:
    """
    A row that comes out otherwise says what was expected, and the exit is 1; without rich, too.
    The row in which this process was held up is not called broken.  The row that needs an extra
    is missing, and the words say so.
    """
    process = start("-c", QUICK.format(WRONG))
    output, errors = process.communicate(timeout=WAIT_LIMIT)
    assert f"frozen peer: expected PeerReset, and not {HUNG.__name__}." in output
    assert "silent cut: expected" not in output
    assert "This machine was too busy: a timer came 0." in output
    assert promises(output)["silent cut"] == "unclear"
    assert "job dies" not in output
    assert 'it needs the extra "http".' in output
    assert "Each row" not in output
    assert (process.returncode, errors) == (1, "")


@pytest.mark.parametrize(
    "number, status, fault",
    [
        (signal.SIGINT, 130, "silent cut"),
        (signal.SIGINT, 130, "frozen peer"),
        (signal.SIGTERM, 130, "frozen peer"),
        (signal.SIGKILL, -9, "frozen peer"),
    ],
)
def test_nothingRunsOn(number: signal.Signals, status: int, fault: str) -> None:
    """
    However the demo is ended, its peer ends with it, even a frozen one; and no link waits for an
    answer that the fault holds back.
    """
    # Where tests are run in the background they may ignore it, and so would their children.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = start("-u", "-m", "twisted_heartbeat", "--within", "1")
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            if "FAULT" in line and fault in line:
                break
        began = monotonic()
        process.send_signal(number)
        # Ends only when nobody holds the standard error open: see start.
        _, errors = process.communicate(timeout=WAIT_LIMIT)
        took = monotonic() - began
    assert (process.returncode, errors) == (status, "")
    assert Limits().closeTimeout is not None
    assert took < Limits().closeTimeout


def test_kept() -> None:
    """
    A row that is as promised is not complained of, at either end of what is allowed.
    """
    assert KEPT.broken() == []
    assert replace(KEPT, detectedAfter=1.9).broken() == []
    assert replace(KEPT, detectedAfter=2.05, backAfter=BACK_WITHIN).broken() == []
    assert KEPT.cells()[-1] == "kept"


@pytest.mark.parametrize(
    "change, complaint",
    [
        ({"cause": PeerHung}, "expected PeerSilent, and not PeerHung"),
        ({"cause": PeerClosed}, "expected PeerSilent, and not PeerClosed"),
        ({"cause": None}, "expected PeerSilent, and not -"),
        ({"detectedAfter": 2.051}, "expected the end after 1.90-2.05 s, and not 2.051 s"),
        ({"detectedAfter": 1.899}, "expected the end after 1.90-2.05 s, and not 1.899 s"),
        ({"detectedAfter": inf}, "expected the end after 1.90-2.05 s, and not inf s"),
        ({"cleanups": 0}, "expected 1 cleanup, and not 0"),
        ({"cleanups": 2}, "expected 1 cleanup, and not 2"),
        ({"refused": 0}, "expected refused attempts, and not none"),
        ({"backAfter": 1.01}, "expected the link back within 1.00 s, and not 1.01 s"),
    ],
)
def test_broken(change: dict[str, Any], complaint: str) -> None:
    """
    Each promise that is broken, alone, is complained of, alone.
    """
    row = replace(KEPT, **change)
    assert row.broken() == [complaint]
    assert row.cells()[-1] == "broken"


SENTENCE = (
    "This machine was too busy: a timer came 0.19 s late.\n"
    "Run the demo again with nothing else running."
)


@pytest.mark.parametrize(
    "change",
    [
        {"detectedAfter": 2.235, "late": [0.19]},
        {"detectedAfter": 2.235, "late": [0.19, *[0.03] * 40]},
        {"detectedAfter": 2.42, "late": [0.04, 0.19]},
        {"backAfter": 1.3, "late": [0.19]},
    ],
)
def test_late(change: dict[str, Any]) -> None:
    """
    What came too late because this process was late is no broken promise, and not a kept one: the
    words say how late, and the exit status to try it again.
    """
    row = replace(KEPT, **change)
    assert row.cells()[-1] == "unclear"
    assert judge([KEPT, row]) == ([SENTENCE], 75)


@pytest.mark.parametrize(
    "change",
    [
        {"detectedAfter": 2.235, "late": [0.05]},
        {"detectedAfter": 2.5, "late": [0.03] * 100},
        {"detectedAfter": 1.5, "late": [0.19]},
        {"detectedAfter": inf, "late": [0.19]},
        {"cause": PeerHung, "late": [0.19]},
        {"cleanups": 2, "late": [0.19]},
        {"refused": 0, "late": [0.19]},
        {"backAfter": 1.5, "late": [0.19]},
    ],
)
def test_lateExcusesNothingElse(change: dict[str, Any]) -> None:
    """
    What late timers do not explain is a broken promise, however late they were.
    """
    row = replace(KEPT, **change)
    assert row.cells()[-1] == "broken"
    assert judge([KEPT, row]) == ([f"silent cut: {row.broken()[0]}."], 1)


def test_lateAndBroken() -> None:
    """
    A promise that was broken on a busy machine is told first, and gives the exit status.
    """
    busy, broken = replace(KEPT, detectedAfter=2.235, late=[0.19]), replace(KEPT, cleanups=2)
    words = ["silent cut: expected 1 cleanup, and not 2.", SENTENCE]
    assert judge([busy, broken]) == (words, 1)


def test_lateButKept() -> None:
    """
    A late timer is not spoken of where all promises were kept.
    """
    row = replace(KEPT, late=[0.19])
    assert row.cells()[-1] == "kept"
    assert judge([row]) == (["Each row kept the promise."], 0)


def test_latenessIsMeasured() -> None:
    """
    A process that does not run for a time finds by how much its timers were late, once.
    """
    clock = Clock()
    punctuality = Punctuality(clock)
    punctuality.start()
    clock.pump([0.01] * 50)
    assert punctuality.late == []
    clock.advance(0.2)
    clock.pump([0.01] * 50)
    assert punctuality.late == [pytest.approx(0.19)]
    punctuality.stop()
    assert clock.getDelayedCalls() == []


def test_jobHasNoCleanup() -> None:
    """
    A row that is no link's has no cleanup to keep.
    """
    job = replace(KEPT, hasLink=False, cleanups=0)
    assert job.broken() == []
    assert job.cells()[3] == "-"


@pytest_twisted.ensureDeferred
async def test_senderIsBackInTime(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    With the longest bound, too, the sender of the row about UDP speaks often enough to be back
    within what the row allows; and a row that fails at its start leaves nothing running.
    """
    from twisted.internet import reactor

    periods: list[float] = []

    def sender(*arguments: object, every: float, **settings: object) -> NoReturn:
        periods.append(every)
        raise NotImplementedError

    monkeypatch.setattr(datagram, "UDPHeartbeatSender", sender)
    heartbeat = Heartbeat.within(LONGEST_BOUND)
    with pytest.raises(NotImplementedError):
        await datagram.loseDatagrams(reactor, heartbeat, lambda *said: None, replace(KEPT))
    # Its jitter makes a period longer by a quarter.
    assert 1.25 * periods[0] < BACK_WITHIN


def test_tooEarlyIsNoFaultWithoutSilence() -> None:
    """
    What the kernel tells may be found at once; only by the bound it must be.
    """
    reset = replace(KEPT, silent=False, expected=PeerReset, cause=PeerReset)
    assert replace(reset, detectedAfter=0.0).broken() == []
    late = replace(reset, detectedAfter=2.06).broken()
    assert late == ["expected the end after 2.05 s, and not 2.060 s"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--within", "0.1"],
        ["--within", "16"],
        ["--within", "nan"],
        ["--within", "soon"],
        ["--within"],
        ["--wihtin", "2"],
        ["now"],
    ],
)
def test_badOptions(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """
    Wrong usage is one sentence that names what is wrong, and exit 64.
    """
    with pytest.raises(SystemExit) as exited:
        main(arguments)
    out, err = capsys.readouterr()
    assert exited.value.code == 64
    assert out == ""
    assert err.startswith("python -m twisted_heartbeat: ") and err.count("\n") == 1
    assert arguments[0] in err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    """
    C{--help} says what it does, what it may be given, and nothing of what is not for users.
    """
    with pytest.raises(SystemExit) as exited:
        main(["--help"])
    out, _ = capsys.readouterr()
    assert exited.value.code == 0
    assert "frozen" in out and "--within SECONDS" in out
    assert "--peer" not in out
