# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Twisted's own tests of its protocols and transports, with each connection wrapped; see
C{wrappedsuites.py}.

What the wrapper changes, a test of Twisted's would see.  Those listed in C{DEVIATIONS} do, each for
the reason that C{docs/deviations.md} gives, and no other.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from .trialrun import runScript

SCRIPT = Path(__file__).parent / "wrappedsuites.py"

AMPLE = 300.0
"""Seconds after which a run of Twisted's tests is a failure."""

SUITES = {
    "twisted.protocols.test.test_basic": 80,
    "twisted.test.test_amp": 80,
    "twisted.spread.test.test_pb": 4,
    "twisted.test.test_protocols": 4,
    "twisted.test.test_policies": 7,
    "twisted.protocols.test.test_tls": 40,
    "twisted.test.test_tcp": 40,
    "twisted.test.test_ssl": 16,
    "twisted.internet.test.test_tcp": 400,
    "twisted.internet.test.test_tls": 140,
    "twisted.internet.test.test_unix": 130,
    "twisted.mail.test.test_smtp": 14,
    "twisted.mail.test.test_pop3": 40,
    "twisted.mail.test.test_imap": 200,
    "twisted.test.test_ftp": 250,
    "twisted.web.test.test_xmlrpc": 150,
    "twisted.web.test.test_websocket": 14,
}
"""Twisted's tests, and how many connections of theirs are wrapped at least."""

# Test id, without the name of the reactor -> a part of what it complains of.
DEVIATIONS = {
    "twisted.test.test_tcp.LoopbackTests.test_tcpKeepAlive": "True != 0",
    "twisted.web.test.test_websocket.WebSocketTests.test_connectionRefusedSlow": "ClosedHere",
}


def run(how: str, *names: str) -> Any:
    """
    Run Twisted's tests in a process of their own: they need a reactor of their own.
    """
    return runScript(SCRIPT, how, *names, timeout=AMPLE)


@pytest.fixture(scope="module")
def outcomes() -> Any:
    """
    One run of them all, by suite.
    """
    return run("wrapped", *SUITES)


def withoutReactor(identity: str) -> str:
    """
    The id of a test that is run once for each reactor.
    """
    return re.sub(r"_\w+ReactorTests\.", ".", identity)


def unexpected(failed: dict[str, str]) -> dict[str, str]:
    """
    Failures that are not listed, or not for the reason with which they are listed.
    """
    return {
        identity: complaint
        for identity, complaint in failed.items()
        if DEVIATIONS.get(withoutReactor(identity), "\0") not in complaint
    }


@pytest.mark.parametrize("suite", SUITES)
def test_wrapped(suite: str, outcomes: Any) -> None:
    """
    With each connection wrapped, Twisted's tests pass as they do without, but for those listed.
    """
    outcome = outcomes[suite]
    failed = unexpected(outcome["failed"])
    if suite in failed:
        pytest.skip(f"not to be run here: {failed[suite]}")
    if failed:
        # What fails without the wrapper, too, is this machine's or another package's fault.
        alone = run("bare", *failed)
        # A port that another process took meanwhile, or a busy instant, is not there again.
        again = run("wrapped", *failed)
        failed = {
            name: words
            for name, words in failed.items()
            if again[name]["failed"] and not alone[name]["failed"]
        }
    assert failed == {}
    assert outcome["wrapped"] >= SUITES[suite]


def test_deviationsHappen(outcomes: Any) -> None:
    """
    What is listed and does not fail any more has to be struck off.
    """
    failed = {withoutReactor(name) for one in outcomes.values() for name in one["failed"]}
    # A suite that the installed Twisted has not, or can not run here, fails as a whole.
    absent = tuple(f"{name}." for name in failed & set(SUITES))
    assert {name for name in DEVIATIONS if not name.startswith(absent)} <= failed


def test_aFaultIsFound() -> None:
    """
    These tests can fail: a wrapper that loses a byte of each chunk does not pass.
    """
    [outcome] = run("faulty", "twisted.protocols.test.test_basic").values()
    assert len(outcome["failed"]) >= 10
