# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The rules of the conformance tester, and what it reads, against the page and its vectors.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from twisted_heartbeat.conformance.observer import Observed, StreamObserver
from twisted_heartbeat.conformance.rules import RULES, Rule
from twisted_heartbeat.conformance.scenarios import SCENARIOS
from twisted_heartbeat.conformance.waits import SLOW, SPREAD, USUAL, Ending, waitRange

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "wire-protocol.md").read_text(encoding="utf-8")
VECTORS: dict[str, list[dict[str, Any]]] = json.loads(
    (DOCS / "wire-vectors.json").read_text(encoding="utf-8")
)
WAITS: list[dict[str, Any]] = json.loads((DOCS / "wire-timing.json").read_text(encoding="utf-8"))[
    "waits"
]


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.id)
def test_ruleStandsOnThePage(rule: Rule) -> None:
    """
    The section of a rule is a heading of the page, and the rule is one sentence.
    """
    assert re.search(rf"^##+ {re.escape(rule.section)}$", PAGE, re.MULTILINE)
    assert rule.sentence.endswith(".")
    assert rule.level in ("must", "should")


def test_everyRuleHasAScenario() -> None:
    """
    Each rule is checked by a scenario, or for every byte that a peer sends.
    """
    named = {rule.id for scenario in SCENARIOS.values() for rule in scenario.rules}
    ofBytes = {"hello-once", "frame-known", "unused-zero", "text-utf8", "data-order"}
    assert named | ofBytes | {"goodbye-last"} == set(RULES)


def observed(stream: bytes) -> tuple[list[Observed], list[str]]:
    """
    The frames that the observer finds in a stream, byte by byte, and the rules that it breaks.
    """
    faults: list[str] = []
    observer = StreamObserver(lambda rule, *_: faults.append(rule.id))
    frames = [
        frame
        for at in range(len(stream))
        for frame in observer.receive(stream[at : at + 1], float(at))
    ]
    return frames, faults


SOUND = [
    vector
    for vector in VECTORS["streams"]
    if not vector["violation"] and vector["frames"] and vector["frames"][0]["type"] == "HELLO"
]


@pytest.mark.parametrize("vector", SOUND, ids=lambda vector: vector["why"])
def test_observerReadsWhatTheVectorSays(vector: dict[str, Any]) -> None:
    """
    The observer finds the frames of a vector.
    """
    frames, _ = observed(bytes.fromhex(vector["bytes"]))
    known = {1: "HELLO", 2: "PING", 3: "PONG", 4: "DATA", 5: "GOODBYE", 6: "END"}
    kinds = [known[frame.kind] for frame in frames if frame.kind in known]
    wanted = [frame["type"] for frame in vector["frames"]]
    # It reads on after a goodbye, to report what follows.
    assert kinds[: len(wanted)] == wanted
    for frame, fields in zip(
        [f for f in frames if f.kind in known], vector["frames"], strict=False
    ):
        if "needs" in fields:
            told = frame.first, frame.second, frame.text
            assert told == (fields["needs"], fields["offers"], fields["name"])
        if fields["type"] in ("PING", "PONG"):
            assert frame.token == fields["token"]


FAULTS = {
    "another version": "frame-known",
    "another protocol": "frame-known",
    "type 0": "frame-known",
    "the last of them": "frame-known",
    "a ping with a body": "frame-known",
    "a hello with too long a name": "frame-known",
    "a goodbye that is too short, by the header alone": "frame-known",
    "a name that is not UTF-8": "text-utf8",
    "a reason that is not UTF-8": "text-utf8",
    "data before the hello": "data-order",
    "data after the end": "data-order",
    "a second end": "data-order",
    "a second hello": "hello-once",
    "fields without a meaning are ignored": "unused-zero",
    "nothing after a goodbye is read, not even garbage": "goodbye-last",
    "heartbeats need no introduction": "hello-first",
}


@pytest.mark.parametrize(("why", "rule"), FAULTS.items(), ids=FAULTS)
def test_observerNamesTheBrokenRule(why: str, rule: str) -> None:
    """
    What a vector has that a sender must not send is reported under its rule.
    """
    [stream] = [vector["bytes"] for vector in VECTORS["streams"] if vector["why"] == why]
    assert rule in observed(bytes.fromhex(stream))[1]


PACES = {
    "no answer to the attempt": USUAL,
    "the attempt was refused": SPREAD,
    "no such name": SLOW,
    "no way to the host or its network": SLOW,
    "the TLS handshake failed": SLOW,
    "the peer was silent, or took no data": USUAL,
    "a close without a GOODBYE, or a reset": SPREAD,
    "a violation": SLOW,
    "this side closed the link": USUAL,
}


def test_vectorsAreWithinTheTestersTable() -> None:
    """
    The tester's table allows each wait of the vectors, and those of the extreme draws are its ends.
    """
    for vector in WAITS:
        pace = PACES.get(vector["cause"], SLOW if vector.get("code") in (1, 2) else SPREAD)
        ending = Ending(
            pace=pace,
            earliest=0.0,
            latest=0.0,
            proven=True,
            retryAfter=min(3600, vector.get("retryAfter", 0.0)),
            spread=min(3600, vector.get("spread", 0.0)),
        )
        least, most = ending.wait(vector["n"], 1.0)
        assert least - 0.001 <= vector["wait"] <= most + 0.001, vector
        if vector["draw"] in (0, 1) and not ending.hasHint:
            end = waitRange(pace, vector["n"])[vector["draw"]]
            assert vector["wait"] == pytest.approx(end), vector


def test_unknownCountAllowsEachCount() -> None:
    """
    Where it is not known how often a client has failed before, any of its waits is allowed.
    """
    ending = Ending(pace=SPREAD, earliest=0.0, latest=0.0, proven=False)
    assert ending.wait(None, 0.5) == (0.05, 30.0)
