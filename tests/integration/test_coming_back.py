# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The rules of coming back are one table: in the code, in the manual, on the page of the wire
protocol, in the devices, and in the list of causes.
"""

from __future__ import annotations

import errno
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.error import (
    ConnectError,
    ConnectionRefusedError,
    DNSLookupError,
    NoRouteError,
)

import twisted_heartbeat
from twisted_heartbeat import Backoff, Cause, GoodbyeCode, PeerClosed
from twisted_heartbeat.core import causes
from twisted_heartbeat.core.causes import RetryPace
from twisted_heartbeat.core.diagnosis import causeOfErrno, causeOfFailure
from twisted_heartbeat.core.proof import LinkFacts, isProven

from ..support.modules import imported

CHECKOUT = Path(__file__).parents[2]
DOCS = CHECKOUT / "docs"
MANUAL, WIRE = DOCS / "reference" / "causes.md", DOCS / "wire-protocol.md"
BACKOFF = Backoff()
AFTER, SPREAD = 1000.0, 2000.0
"""A hint that is longer than any other wait."""


def goodbyeWith(code: GoodbyeCode, hint: bool) -> PeerClosed:
    if not hint:
        return PeerClosed(goodbyeCode=code)
    return PeerClosed(goodbyeCode=code, retryAfter=AFTER, spread=SPREAD)


def goodbyes(refused: bool, hint: bool) -> list[Cause]:
    rejectedByPeer = (GoodbyeCode.REFUSED, GoodbyeCode.NAME_IN_USE)
    return [goodbyeWith(p, hint) for p in GoodbyeCode if (p in rejectedByPeer) is refused]


@dataclass(frozen=True)
class Row:
    """
    One row of the table.

    @ivar what: what ended the attempt or the link, in words.
    @ivar causes: the causes that are dealt with so.
    @ivar linked: whether there was a link.
    @ivar onTheWire: whether a peer in another language can have it, too.
    """

    what: str
    causes: list[Cause]
    linked: bool = True
    onTheWire: bool = True


TABLE = [
    Row("no answer to the attempt", [causes.ConnectFailed()], linked=False),
    Row("the attempt was refused", [causeOfFailure(ConnectionRefusedError())], linked=False),
    Row("no such name", [causeOfFailure(DNSLookupError())], linked=False),
    Row(
        "no way to the host or its network", [causes.HostUnreachable(), causes.NetworkUnreachable()]
    ),
    Row("the TLS handshake failed", [causes.HandshakeFailed()], linked=False),
    Row(
        "`prepareConnection` rejected the link",
        [causes.ConnectFailed()],
        linked=False,
        onTheWire=False,
    ),
    Row(
        "the peer was silent, or took no data",
        [
            causes.PeerSilent(),
            causes.PeerHung(),
            causes.KeepAliveExpired(),
            causes.SendStalled(),
            causes.SendFailed(),
        ],
    ),
    Row(
        "a close without a GOODBYE, or a reset",
        [PeerClosed(), causes.PeerReset(), causes.LinkLost()],
    ),
    Row("this side closed the link", [causes.ClosedHere()]),
    Row("a violation", [causes.ProtocolViolation()]),
    Row("GOODBYE with 0, 3, 4 or an unknown code", goodbyes(refused=False, hint=False)),
    Row("the same, with a hint", goodbyes(refused=False, hint=True)),
    Row("GOODBYE with 1 or 2", goodbyes(refused=True, hint=False)),
    Row("the same, with a hint", goodbyes(refused=True, hint=True)),
    Row("`PermanentFailure`, which you raise", [causes.PermanentFailure()], onTheWire=False),
]


def bounds(cause: Cause, attempt: int) -> tuple[float, float]:
    """
    The shortest and the longest wait after so many failures in a row.
    """
    low, high = (BACKOFF.delay(attempt, cause, lambda draw=draw: draw) for draw in (0.0, 1.0))
    return low, high


def describeError(low: float, high: float) -> str:
    return f"{low:g} to {high:g} s"


def paceOf(cause: Cause) -> str:
    """
    The pace of a cause, in a word.
    """
    if cause.pace is RetryPace.NEVER:
        return "never"
    asked = isinstance(cause, PeerClosed) and cause.retryAfter > 0
    slow = cause.pace is RetryPace.SLOW
    if asked:
        return "slow, at least the hint" if slow else "the hint"
    return "slow" if slow else "spread" if cause.fleetWide else "usual"


def waitsOf(cause: Cause) -> list[str]:
    """
    The first wait, the second and the longest.
    """
    if cause.pace is RetryPace.NEVER:
        return ["none"] * 3
    waits = [bounds(cause, attempt) for attempt in (1, 2, 100)]
    if (AFTER, AFTER + SPREAD) in waits:
        assert len(set(waits)) == 1
        return ["the hint"] * 3
    return [describeError(*wait) for wait in waits]


def resetOf(cause: Cause, linked: bool) -> str:
    """
    After which links the count of failures starts again.
    """
    if not linked or cause.pace is RetryPace.NEVER:
        return "no"

    def proven(upFor: float, heard: bool) -> bool:
        facts = LinkFacts(cause=cause, upFor=upFor, prepared=True, builtIn=True, heard=heard)
        return isProven(facts, BACKOFF.stableAfter)

    assert not proven(1e9, False)
    found = proven(BACKOFF.stableAfter - 1, True), proven(BACKOFF.stableAfter, True)
    return {
        (True, True): "after a HELLO",
        (False, True): f"after a HELLO and {BACKOFF.stableAfter:g} s",
        (False, False): "no",
    }[found]


def cells(row: Row) -> list[str]:
    """
    What the code makes of a row.
    """
    found = {(paceOf(cause), *waitsOf(cause), resetOf(cause, row.linked)) for cause in row.causes}
    assert len(found) == 1, found
    return list(found.pop())


HEAD = ["wait", "first", "second", "longest", "starts the count again"]


def lines(columns: list[str], rows: list[list[str]]) -> str:
    """
    A table as the pages have it.
    """
    texts = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in texts).replace(" --- ", "---")


def manualTable() -> str:
    rows = []
    for row in TABLE:
        names = dict.fromkeys(f"`{type(cause).__name__}`" for cause in row.causes)
        rows.append([row.what, ", ".join(names), *cells(row)])
    return lines(["what ended the attempt or the link", "cause", *HEAD], rows)


def wireTable() -> str:
    rows = [[row.what, *cells(row)] for row in TABLE if row.onTheWire]
    return lines(["what ended the attempt or the link", *HEAD], rows)


@pytest.mark.parametrize(("page", "table"), [(MANUAL, manualTable), (WIRE, wireTable)])
def test_pagesHaveTheTable(page: Path, table: Callable[[], str]) -> None:
    """
    The manual and the page of the wire protocol have the table that the code follows.
    """
    expected = table()
    text = page.read_text(encoding="utf-8")
    assert expected in text, f"{page.name} lacks this table:\n{expected}"


def programOfThePage() -> str:
    """
    The table as a program, as the page of the wire protocol has it, in Python.  It takes C{proven},
    C{pace}, C{goodbye}, C{retryAfter}, C{spread} and C{draw}, counts C{n}, and leaves C{wait}.
    """
    text = WIRE.read_text(encoding="utf-8")
    [program] = re.findall(r"```text\n(n = 0\nafter the end.*?)```", text, re.DOTALL)
    _, _, body = program.partition(":\n")
    # The second line of a pace belongs to the first.
    body = re.sub(r"\n {9,}(?=wait = least)", "; ", body)
    body = re.sub(r"(?m)^    (usual|spread|slow): +", r'    if pace == "\1": ', body)
    body = body.replace("it ended with a GOODBYE", "goodbye").replace(" if slow ", " if isSlow ")
    return "if True:\n" + body.replace("the connection was proven", "proven")


@pytest.mark.parametrize("draw", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("row", [row for row in TABLE if row.onTheWire], ids=lambda row: row.what)
def test_programOfThePageWaitsAsTheTableSays(row: Row, draw: float) -> None:
    """
    The program on the page of the wire protocol draws the waits that the code does, and counts the
    failures from 1 on, after a proven connection too.
    """
    program = compile(programOfThePage(), str(WIRE), "exec")
    cause = row.causes[0]
    code = getattr(cause, "goodbyeCode", None)
    pace = "slow" if cause.pace is RetryPace.SLOW else "spread" if cause.fleetWide else "usual"
    hints = [(0.0, 0.0), (AFTER, SPREAD), (5000.0, 5000.0), (0.5, 0.49), (0.5, 0.5)]
    for retryAfter, spread in hints[: len(hints) if code is not None else 1]:
        if code is not None:
            cause = PeerClosed(goodbyeCode=code, retryAfter=retryAfter, spread=spread)
        known: dict[str, Any] = {
            "n": 7,
            "proven": True,
            "pace": pace,
            "isSlow": pace == "slow",
            "goodbye": code is not None,
            "retryAfter": retryAfter,
            "spread": spread,
            "draw": lambda: draw,
        }
        for attempt in range(1, 10):
            exec(program, known)
            known["proven"] = False
            assert known["n"] == attempt
            assert known["wait"] == pytest.approx(BACKOFF.delay(attempt, cause, lambda: draw))


WITHOUT_CONNECTION = {causes.CheckInMissed, causes.CheckInFailed}
"""What check-ins end with: there is nothing to connect again."""


def test_everyCauseIsInTheTable() -> None:
    """
    No cause of the public ones is missing, except those of peers without a connection.
    """
    public = {
        getattr(twisted_heartbeat, name)
        for name in twisted_heartbeat.__all__
        if isinstance(getattr(twisted_heartbeat, name), type)
        and issubclass(getattr(twisted_heartbeat, name), Cause)
    }
    assert {type(cause) for row in TABLE for cause in row.causes} == (
        public - {Cause} - WITHOUT_CONNECTION
    )


def test_listOfCausesSaysHowEachIsRetried() -> None:
    """
    The list of causes says of each whether it is retried as the table does.
    """
    words = {"usual": "with backoff", "spread": "with backoff, spread", "slow": "slowly"}
    words["never"] = "never"
    found: dict[str, str] = {}
    for line in MANUAL.read_text(encoding="utf-8").splitlines():
        columns = [column.strip() for column in line.strip("|").split("|")]
        if len(columns) == 4 and columns[0].startswith("`"):
            for name in re.findall(r"`(\w+)`", columns[0]):
                found[name] = columns[3]
    for row in TABLE:
        for cause in row.causes:
            name = type(cause).__name__
            pace = paceOf(cause)
            if pace in words:
                parts = [part.partition(", if ")[0] for part in found[name].split("; ")]
                assert words[pace] in parts, (name, pace)


# The devices.


@pytest.fixture(scope="module")
def device() -> Any:
    """
    The device for MicroPython, as a module.
    """
    return imported(DOCS / "examples" / "device.py")


@pytest.mark.parametrize("failures", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("end", [0.0, 1.0])
@pytest.mark.parametrize("row", [row for row in TABLE if row.onTheWire], ids=lambda row: row.what)
def test_deviceWaitsAsTheTableSays(
    row: Row, end: float, failures: int, device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The device draws its waits from where the table says.
    """
    monkeypatch.setattr(device, "part", lambda most: int(most * end))
    cause = row.causes[0]
    pace = device.SLOW if cause.pace is RetryPace.SLOW else device.USUAL
    if cause.fleetWide and pace == device.USUAL:
        pace = device.TOGETHER
    hint = None
    if isinstance(cause, PeerClosed) and cause.retryAfter:
        hint = 1000 * (cause.retryAfter + end * cause.spread)
    ended = device.Ended("so", pace, hint)
    width = min(2 ** (failures - 1), device.WIDEST) * device.SECOND
    assert device.waitAfter(ended, width) == 1000 * bounds(cause, failures)[int(end)]


def test_errorsOfNoWay() -> None:
    """
    The errors that mean that there is no way to the peer are the same ones in the code, for an
    attempt and for a link, on the page, and in all three devices.
    """
    [row] = re.findall(
        r"\| no way to the host or its network \| (E.*?) \| the same", WIRE.read_text()
    )
    names = set(row.split(", "))
    assert len(names) == 4
    for number, name in errno.errorcode.items():
        of = [causeOfFailure(ConnectError(number)), causeOfErrno(number)]
        isNoWay = [isinstance(cause, NoRouteError) for cause in of]
        assert isNoWay == [name in names] * 2, name
    for language in ("c", "js", "py"):
        text = (DOCS / "examples" / f"device.{language}").read_text()
        assert names == set(re.findall(r"\bE(?:HOST|NET)[A-Z]+", text))


@pytest.mark.parametrize(("upFor", "proven"), [(9.9, False), (10.0, True)])
def test_deviceCountsTheLinkUntilTheGoodbye(
    upFor: float, proven: bool, device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The time in which the device waits for the server to close is no part of the link.
    """
    now = [0]
    monkeypatch.setattr(device, "ticks", lambda: now[0])

    def live(link: Any, name: bytes) -> None:
        now[0] += round(upFor * 1000)
        link.greeted = True
        link.heard = device.ticks()
        raise device.Ended("goodbye", device.TOGETHER, None, None, True)

    def readOut(link: Any) -> None:
        now[0] += 5000

    monkeypatch.setattr(device.Link, "live", live)
    monkeypatch.setattr(device.Link, "readOut", readOut)
    here, there = socket.socketpair()
    monkeypatch.setattr(device, "dial", lambda host, port: here)
    with there:
        assert device.attempt("hub", 8470, b"pump")[0] is proven
