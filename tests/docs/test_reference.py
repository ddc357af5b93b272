# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The pages of the reference, and of the README, say what the code does.
"""

from __future__ import annotations

import ast
import re
from dataclasses import MISSING, fields
from inspect import Parameter, signature
from math import ceil
from pathlib import Path

import pytest

import twisted_heartbeat
from twisted_heartbeat import (
    Backoff,
    Cause,
    CheckIn,
    CheckInLimits,
    CheckInResource,
    DatagramLimits,
    Heartbeat,
    KeepAlive,
    Limits,
    LinkHooks,
    PresenceLimits,
    PresenceTable,
    ServerLimits,
    StatusResource,
    UDPHeartbeatMonitor,
    UDPHeartbeatSender,
)
from twisted_heartbeat.checkin.checkedname import CheckedName
from twisted_heartbeat.core.evidence import Evidence
from twisted_heartbeat.core.wire.frames import Ping, Pong, encode
from twisted_heartbeat.datagram.peer import DatagramPeer

from ..support.pages import mistakesIn

CHECKOUT = Path(__file__).parents[2]
REFERENCE = CHECKOUT / "docs" / "reference"


def sectionOf(page: Path, heading: str) -> str:
    """
    The text below a heading, up to the next one of any level.
    """
    text = page.read_text(encoding="utf-8")
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", text, re.DOTALL | re.MULTILINE)
    assert found is not None, f"{page.name} has no heading {heading!r}"
    return found[1]


def rowsOf(section: str) -> dict[str, list[str]]:
    """
    The rows of the tables of a section, by the names in code quotes in the first column.
    """
    rows: dict[str, list[str]] = {}
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| `"):
            for name in re.findall(r"`(\w+)[^`]*`", cells[0]):
                rows[name] = cells[1:]
    return rows


SETTINGS = [Heartbeat, KeepAlive, Backoff, Limits, ServerLimits]
SETTINGS += [DatagramLimits, CheckInLimits, PresenceLimits]

WITH_ARGUMENTS: list[type] = [UDPHeartbeatMonitor, UDPHeartbeatSender, CheckIn, CheckInResource]
WITH_ARGUMENTS += [PresenceTable, StatusResource]

REPLACED_IN_TESTS = {"clock", "random", "reactor", "wallClock"}
"""Arguments that the page leaves out."""


@pytest.mark.parametrize("settings", SETTINGS)
def test_pageHasTheDefaults(settings: type) -> None:
    """
    The page of the settings has each field of each of them, with its default.
    """
    rows = rowsOf(sectionOf(REFERENCE / "settings.md", settings.__name__))
    expected = {}
    for field in fields(settings):
        if not field.init:
            # Derived from the others.
            continue
        assert field.default is not MISSING
        expected[field.name] = f"`{field.default!r}`".replace("'", '"')
    assert mistakesIn(f"settings.md, {settings.__name__},", rows, expected) == []
    assert {name: cells[0] for name, cells in rows.items()} == expected


def test_pageHasAllPublicNames() -> None:
    """
    The page of the public names has each of them once, and no other.
    """
    page = (REFERENCE / "public-names.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| \{py:class\}`~twisted_heartbeat\.(\w+)` \| \S", page, re.MULTILINE)
    assert mistakesIn("public-names.md", named, twisted_heartbeat.__all__) == []


def test_eachPublicNameIsTyped() -> None:
    """
    The file that mypy checks as a user's program uses each public name, besides importing it.
    """
    program = ast.parse((CHECKOUT / "tests" / "typing" / "api.py").read_text(encoding="utf-8"))
    used = {node.id for node in ast.walk(program) if isinstance(node, ast.Name)}
    public = set(twisted_heartbeat.__all__)
    assert mistakesIn("tests/typing/api.py", used & public, public) == []


@pytest.mark.parametrize("documented", WITH_ARGUMENTS)
def test_pageHasTheArguments(documented: type) -> None:
    """
    The page of the public names has the arguments of what has no settings class, with the defaults.
    """
    rows = rowsOf(sectionOf(REFERENCE / "public-names.md", documented.__name__))
    names = {name: getattr(twisted_heartbeat, name) for name in twisted_heartbeat.__all__}
    told = {}
    for name, (default, *_) in rows.items():
        told[name] = Parameter.empty if default == "needed" else eval(default.strip("`"), names)
    parameters = signature(documented).parameters
    assert told == {
        name: parameter.default
        for name, parameter in parameters.items()
        if name not in REPLACED_IN_TESTS
    }


def test_pageHasAllHooksAndEvents() -> None:
    """
    The page of the events has each hook, and an event of the same name.
    """
    hooks = {name for name in vars(LinkHooks) if not name.startswith("_")}
    assert set(rowsOf(sectionOf(REFERENCE / "events.md", "Hooks"))) == hooks
    assert set(rowsOf(sectionOf(REFERENCE / "events.md", "Events"))) == hooks | {"event"}


def test_pageHasAllEvidence() -> None:
    """
    The page of the events explains each field that the evidence has in the log.
    """
    rows = rowsOf(sectionOf(REFERENCE / "events.md", "Evidence"))
    logged = {field.name for field in fields(Evidence)} - {"unanswered", "bytesReceived", "_batch"}
    assert set(rows) == logged | {"simultaneousVerdicts"}


def test_pageHasAllCarriersAndWaysOfWatching() -> None:
    """
    The page of the events names each carrier, and each way in which a peer is watched.
    """
    rows = rowsOf(sectionOf(REFERENCE / "events.md", "Fields"))
    others = (DatagramPeer, CheckedName)
    carriers = {"tcp", "tls", "unix", "stream", *(other.carrier for other in others)}
    watches = {"ping", "passive", "keepalive", "none", *(other.watch for other in others)}
    assert set(re.findall("`([a-z-]+)`", rows["carrier"][-1])) == carriers
    assert set(re.findall("`([a-z-]+)`", rows["watch"][-1])) == watches


def allCauses() -> set[type[Cause]]:
    """
    The public causes.
    """
    public = [getattr(twisted_heartbeat, name) for name in twisted_heartbeat.__all__]
    return {it for it in public if isinstance(it, type) and issubclass(it, Cause)} - {Cause}


def test_pageHasAllCauses() -> None:
    """
    The list of causes has each public one, with the Twisted error that it is, too.
    """
    rows = rowsOf(sectionOf(REFERENCE / "causes.md", "The causes"))
    causes = allCauses()
    names = {cause.__name__ for cause in causes}
    assert mistakesIn("causes.md", names & set(rows), names) == []
    for cause in causes:
        named = rows[cause.__name__][1].strip("`")
        assert named in {base.__name__ for base in cause.__mro__}, cause


def shownIn(text: str) -> list[str]:
    """
    The blocks of Python in a page.
    """
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_pageAboutFlappingHasAllCausesAndEvidence() -> None:
    """
    What to do is said for each cause, and for each number of the evidence.
    """
    page = CHECKOUT / "docs" / "howto" / "when-a-link-flaps.md"
    names = {cause.__name__ for cause in allCauses()}
    causes = names & set(rowsOf(sectionOf(page, "By cause")))
    assert mistakesIn(f"{page.name}, By cause,", causes, names) == []
    numbers = set(rowsOf(sectionOf(REFERENCE / "events.md", "Evidence")))
    looked = numbers & set(re.findall(r"`(\w+)`", sectionOf(page, "By evidence")))
    assert mistakesIn(f"{page.name}, By evidence,", looked, numbers) == []


def test_pageAboutServersHasTheirLimits() -> None:
    """
    What happens when a limit of servers is passed is said for each.
    """
    names = {field.name for field in fields(ServerLimits) if field.init}
    rows = set(rowsOf(sectionOf(CHECKOUT / "docs" / "server.md", "Limits")))
    assert mistakesIn("docs/server.md, Limits,", names & rows, names) == []


@pytest.mark.parametrize("name", ["classic", "service"])
def test_readmeShowsTheFilesThatRun(name: str) -> None:
    """
    The programs in the README are the files that are run as tests.
    """
    source = (CHECKOUT / "docs" / "examples" / "readme" / f"{name}.py").read_text(encoding="utf-8")
    _, _, program = source.split('"""', 2)
    readme = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    assert program.strip() in [block.strip() for block in shownIn(readme)]


def test_costOfABound() -> None:
    """
    The page on choosing a bound computes pings, bytes and wakeups as it says: a ping and a pong,
    and a third segment that acknowledges the pong; 22 bytes of TLS for each of the first two. The
    default keepalive adds an empty segment and its answer for each 5 s of idleness in between.
    """
    ping, pong = len(encode(Ping(1, hold=8.0))), len(encode(Pong(1)))
    assert (ping, pong) == (12, 12)
    plain = ping + pong + 3 * 52
    rows = []
    for bound in (8.0, 35.0, 120.0, 600.0):
        interval = Heartbeat.within(bound).interval
        assert interval is not None
        daily = 86400 / interval
        cells = [f"{bound:g} s", f"{interval:.1f} s", f"{daily:,.0f}"]
        probes = ceil(interval / KeepAlive().idle) - 1
        assert KeepAlive().interval == KeepAlive().idle
        sizes = (plain, plain + 2 * 22, probes * 2 * 52)
        kilobytes = [f"{daily * size / 1000:,.0f}" for size in sizes]
        cells += [*kilobytes[:2], f"{3 * daily:,.0f}", f"{daily * probes:,.0f}", kilobytes[2]]
        rows.append(f"| {' | '.join(cells)} |")
    page = (CHECKOUT / "docs" / "howto" / "choose-a-bound.md").read_text(encoding="utf-8")
    assert "\n".join(rows) in page, "\n".join(rows)
