# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The command of the conformance tester: its options, its reports and its exit status.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread

from twisted_heartbeat.conformance.__main__ import exitStatus, main
from twisted_heartbeat.conformance.options import USAGE, Options
from twisted_heartbeat.conformance.play import CLIENT, SERVER, Finding, Findings
from twisted_heartbeat.conformance.report import FORMATS, asJson, asTap, asText
from twisted_heartbeat.conformance.rules import PONG_SOON, PONG_TOKEN, VERDICT_IN_TIME

from .plainpeer import PlainServer

CHECKOUT = Path(__file__).parents[3]


def findings() -> Findings:
    """
    A rule that is kept, one that is broken, one that should be kept, one that was skipped, a
    scenario that was doubtful, and one that was not played.
    """
    found = Findings()
    found.checks += [
        Finding(PONG_TOKEN, True, "pings", "a PONG", "it came", 0.5),
        Finding(VERDICT_IN_TIME, False, "silence", "the end within 2.5 s", "nothing", 2.5),
        Finding(PONG_SOON, False, "pings", "a PONG within 0.50 s", "0.75 s", None),
    ]
    found.skipped["hold-read"] = "the peer has a bound of its own"
    found.doubtful.append("silence: the tester itself was late by 0.3 s")
    found.unplayed.append("end: the time was over")
    return found


def test_textSaysWhatIsNeededToFindTheFault() -> None:
    """
    For a broken rule the text has the sentence, the section, the scenario, what was expected, what
    came and when; other rules have one line.
    """
    text = asText(findings())
    assert "FAIL    verdict-in-time" in text
    assert VERDICT_IN_TIME.sentence in text
    assert 'docs/wire-protocol.md, "Life and silence"' in text
    assert "scenario: silence, 2.500 s after the connection was established" in text
    assert "expected: the end within 2.5 s" in text
    assert "came:     nothing" in text
    assert "advice  pong-soon" in text
    assert "pass    pong-token" in text
    assert "skip    hold-read" in text
    assert "(the peer has a bound of its own)" in text
    assert "doubtful: silence: the tester itself was late by 0.3 s" in text
    assert "not played: end: the time was over" in text
    assert "not checked, because nothing that was played shows it: hello-first, " in text
    assert "1 rules kept, 1 broken, 1 not kept that should be, 1 skipped" in text


def test_tapCountsItsLines() -> None:
    """
    The TAP has as many results as its plan says; a I{should} is a C{TODO}, which fails no run.
    """
    lines = asTap(findings()).splitlines()
    results = [line for line in lines if line.startswith(("ok", "not ok"))]
    assert lines[:2] == ["TAP version 13", "1..4"]
    assert [line.split(" - ")[1].split(":")[0] for line in results] == [
        "pong-token",
        "pong-soon",
        "verdict-in-time",
        "hold-read",
    ]
    assert [line.startswith("not ok") for line in results] == [False, True, True, False]
    assert results[1].endswith("# TODO a should")
    assert "# SKIP" in results[3]
    assert all(line.startswith("#") for line in lines[2:] if line not in results)


def test_jsonHasTheSame() -> None:
    """
    The JSON has each rule with its verdict and its faults.
    """
    report = json.loads(asJson(findings()))
    verdicts = {rule["rule"]: rule["verdict"] for rule in report["rules"]}
    assert verdicts["verdict-in-time"] == "FAIL"
    assert verdicts["pong-soon"] == "advice"
    assert verdicts["hello-once"] == "unchecked"
    [broken] = [rule for rule in report["rules"] if rule["verdict"] == "FAIL"]
    assert broken["faults"] == [
        {"scenario": "silence", "expected": "the end within 2.5 s", "came": "nothing", "at": 2.5}
    ]
    assert report["doubtful"] == ["silence: the tester itself was late by 0.3 s"]
    assert report["unplayed"] == ["end: the time was over"]


def test_exitStatus() -> None:
    """
    0 if no rule is broken, 1 if one is, with C{--strict} also for a I{should}, and 2 if a scenario
    was not played, or nothing was checked.
    """
    found = findings()
    assert exitStatus(found, False) == 1
    del found.checks[1]
    assert exitStatus(found, True) == 1
    assert exitStatus(found, False) == 2
    found.unplayed.clear()
    assert exitStatus(found, False) == 0
    assert exitStatus(Findings(), False) == 2


def test_optionsDefault() -> None:
    """
    Without an argument the tester listens, on loopback only, and plays all scenarios.
    """
    options = Options([])
    assert options.role == CLIENT
    assert options.settings.closing == 5.0
    assert len(options.scenarios) > 40
    assert options.format is FORMATS["text"]


def test_optionsForAServer() -> None:
    """
    With C{HOST:PORT} it connects; scenarios are chosen by pattern, and keep their order.
    """
    options = Options(["hub:8470", "--only", "violation-*", "--only", "cut", "--scale", "0.1"])
    assert options.role == SERVER
    assert options.scenarios[0].name == "cut"
    assert all(each.name.startswith("violation-") for each in options.scenarios[1:])
    assert options.settings.closing == 0.5


@pytest.mark.parametrize(
    "arguments",
    [
        ["--only", "nothing"],
        ["--bound", "0"],
        ["--bound", "soon"],
        ["--scale", "inf"],
        ["--parallel", "0"],
        ["--parallel", "1.5"],
        ["--format", "xml"],
        ["a", "b"],
    ],
)
def test_wrongOptionsAreUsageErrors(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """
    A wrong option is one sentence, and the exit status for that.
    """
    with pytest.raises(SystemExit) as caught:
        Options(arguments)
    assert caught.value.code == USAGE
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("peer", ["nonsense:1:2", "tcp:hub", "hub:", ""])
def test_wrongEndpointIsAUsageError(peer: str, capsys: pytest.CaptureFixture[str]) -> None:
    """
    So is a string that is no endpoint.
    """
    with pytest.raises(SystemExit) as caught:
        Options([peer]).endpoint(None)
    assert caught.value.code == USAGE
    assert "is no endpoint" in capsys.readouterr().err


def test_listNamesTheScenarios(capsys: pytest.CaptureFixture[str]) -> None:
    """
    C{--list} prints the scenarios that are chosen, and does nothing.
    """
    main(["--list", "--only", "hint"])
    assert capsys.readouterr().out.split() == [
        "hint",
        *"GOODBYE with a hint.".split(),
        *"(a client only)".split(),
    ]


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """
    Run the command.
    """
    return subprocess.run(
        [sys.executable, "-m", "twisted_heartbeat.conformance", *arguments],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest_twisted.ensureDeferred
async def test_commandTestsAServer() -> None:
    """
    The command prints its report and exits with 1 for a server that breaks a rule, and with 2 where
    nothing listens.
    """
    from twisted.internet import reactor

    net: Any = reactor
    server = PlainServer(net, frozenset({"answers twice"}), bound=2.0, tolerance=0.5)
    port = net.listenTCP(0, server, interface="127.0.0.1")
    where = f"127.0.0.1:{port.getHost().port}"
    done = await deferToThread(command, where, "--only", "pings", "--format", "json")
    await port.stopListening()
    server.stop()
    assert done.returncode == 1, done.stderr
    faults = [r["rule"] for r in json.loads(done.stdout)["rules"] if r["verdict"] == "FAIL"]
    assert faults == ["pong-once"]
    with socket.socket() as unused:
        # It keeps the port from other tests, which could listen there.
        unused.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{unused.getsockname()[1]}"
        done = await deferToThread(command, where, "--only", "pings")
    assert (done.returncode, done.stdout) == (2, "")
    assert "refused" in done.stderr
