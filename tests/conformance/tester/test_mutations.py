# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The conformance tester finds each fault: a peer that keeps all rules passes, and for each rule there
is a peer that breaks it, of which the tester names this rule.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint

from twisted_heartbeat.conformance.play import CLIENT, SERVER, Findings, Settings
from twisted_heartbeat.conformance.rules import RULES
from twisted_heartbeat.conformance.runner import ClientRun, examineServer
from twisted_heartbeat.conformance.scenarios import SCENARIOS

from ...support.findings import examineAll, faultsOf
from .plainpeer import LIMIT, PlainClient, PlainServer

BOUND, TOLERANCE, LONGEST = 0.8, 0.5, 30.0
"""Seconds."""

SCALE = 0.03
"""Seconds that a client takes for one in its waits."""


@dataclass(frozen=True)
class Broken:
    """
    A peer with faults, what is played against it, and the rules that it breaks.
    """

    role: str
    faults: frozenset[str]
    scenarios: tuple[str, ...]
    rules: tuple[str, ...]
    bound: float = BOUND
    scale: float = SCALE

    def __str__(self) -> str:
        return f"{self.role}: {', '.join(sorted(self.faults))}"


def broken(role: str, faults: str, scenarios: str, rules: str, **more: float) -> Broken:
    return Broken(
        role,
        frozenset(faults.split(", ")),
        tuple(scenarios.split()),
        tuple(rules.split()),
        **more,
    )


TABLE = [
    broken(SERVER, "ping before hello", "hello", "hello-first"),
    broken(SERVER, "hello waits", "hello", "hello-at-once", bound=8.0),
    broken(CLIENT, "hello waits", "hello", "hello-at-once", bound=8.0),
    broken(SERVER, "two hellos", "pings", "hello-once"),
    broken(SERVER, "pong with a body", "end", "frame-known pong-token"),
    broken(SERVER, "pong with a hold", "pings", "unused-zero"),
    broken(SERVER, "name in latin-1", "hello", "text-utf8"),
    broken(SERVER, "data after end", "joined", "data-order"),
    broken(SERVER, "writes after its goodbye", "name-taken", "goodbye-last"),
    broken(SERVER, "token forgotten", "pings", "pong-token"),
    broken(SERVER, "answers twice", "pings", "pong-once"),
    broken(SERVER, "answers late", "pings", "pong-soon"),
    broken(SERVER, "pings need a hello", "early-ping", "early-ping"),
    broken(SERVER, "dead after an end", "end", "ping-after-end"),
    broken(SERVER, "no half frames", "cut", "any-cut"),
    broken(SERVER, "one frame a segment", "joined", "joined"),
    broken(SERVER, "short messages only", "data-lengths", "data-lengths"),
    broken(SERVER, "minds the hold", "fields", "fields-ignored"),
    broken(SERVER, "no optional types", "optional", "optional-skipped"),
    broken(SERVER, "minds foreign pongs", "foreign-pong", "foreign-pong"),
    broken(SERVER, "short names only", "hello-range", "hello-range"),
    broken(SERVER, "ten pings are enough", "twenty-pings", "pings-allowed"),
    broken(SERVER, "no words of its own", "talking", "offers-kept needs-served", bound=1.0),
    broken(SERVER, "no words of its own, no offers", "hold", "hold-kept", bound=1.0),
    broken(SERVER, "serves no needs", "talking", "needs-served", bound=3.2),
    broken(SERVER, "never pings", "hold", "pings-needed"),
    broken(SERVER, "token 0", "hold", "ping-token"),
    broken(SERVER, "pings all the time", "talking", "ping-into-silence"),
    broken(SERVER, "no verdict", "silence", "verdict-in-time"),
    broken(SERVER, "verdict too early", "silence", "verdict-not-early", bound=2.0),
    broken(SERVER, "goodbye at the verdict", "silence", "verdict-silent"),
    broken(CLIENT, "goodbye at the verdict", "silence", "verdict-silent"),
    broken(CLIENT, "ignores hold", "longer-hold", "hold-read", bound=0.0),
    broken(CLIENT, "keeps an old hold", "hold-ends", "hold-read", bound=0.0),
    broken(CLIENT, "ignores offers", "hold-ends", "offers-read", bound=0.0),
    broken(SERVER, "any haste", "short-times", "short-times", bound=8.0),
    broken(CLIENT, "any haste", "short-times", "short-times", bound=0.0),
    broken(SERVER, "only frames are life", "slow-frame", "slow-frame"),
    broken(CLIENT, "only frames are life", "slow-frame", "slow-frame", bound=0.0),
    broken(SERVER, "only answers are life", "paused-reader", "paused-reader"),
    broken(CLIENT, "waits for ever", "no-hello", "gives-up", bound=0.0),
    broken(
        SERVER, "writes on after a goodbye", "goodbye", "goodbye-stops-writing goodbye-fin"
    ),
    broken(SERVER, "answers a goodbye", "goodbye", "goodbye-stops-writing"),
    broken(SERVER, "hello before goodbye", "refused", "early-goodbye"),
    broken(CLIENT, "hello before goodbye", "refused", "early-goodbye"),
    broken(SERVER, "short reasons only", "unknown-code", "goodbye-range"),
    broken(SERVER, "reads on after a goodbye", "goodbye", "goodbye-stops-reading goodbye-fin"),
    broken(SERVER, "closes at once after a goodbye", "goodbye", "goodbye-reads-on goodbye-fin"),
    broken(SERVER, "no fin after a goodbye", "goodbye", "goodbye-fin"),
    broken(SERVER, "never closes", "goodbye", "goodbye-fin goodbye-closes"),
    broken(SERVER, "waits for the other fin for ever", "goodbye-held", "goodbye-closes"),
    broken(CLIENT, "waits for the other fin for ever", "goodbye-held", "goodbye-closes"),
    broken(CLIENT, "forgets what came", "goodbye-reset", "goodbye-heard wait-hint"),
    broken(SERVER, "resets after its goodbye", "name-taken", "own-goodbye-reads-on"),
    broken(SERVER, "no fin after its goodbye", "name-taken", "own-goodbye-fin"),
    broken(SERVER, "never closes by itself", "name-taken", "own-goodbye-ends"),
    broken(SERVER, "ignores fin", "fin", "fin-closes"),
    broken(
        SERVER,
        "waits for the whole header",
        "violation-version",
        "violation-version",
    ),
    broken(SERVER, "takes unknown types", "violation-type-7", "violation-type violation-silent"),
    broken(SERVER, "any length", "violation-short-goodbye", "violation-length"),
    broken(SERVER, "any length", "violation-ping-body", "violation-length"),
    broken(SERVER, "no limit", "violation-data-longest", "violation-limit"),
    broken(
        SERVER,
        "no limit",
        "violation-optional-limit",
        "violation-limit",
    ),
    broken(SERVER, "any order", "violation-second-hello", "violation-order violation-silent"),
    broken(SERVER, "any order", "violation-early-data", "violation-order violation-silent"),
    broken(
        SERVER,
        "goodbye for a violation",
        "violation-second-end",
        "violation-silent violation-aborts",
    ),
    broken(SERVER, "no abort", "violation-type-0", "violation-aborts"),
    broken(SERVER, "ends all others", "violation-beside", "others-go-on"),
    broken(SERVER, "newcomer wins", "name-taken", "name-taken"),
    broken(SERVER, "forgets the holder", "name-taken", "name-taken"),
    broken(SERVER, "asks no holder", "name-taken", "name-taken", bound=2.0),
    broken(SERVER, "holder wins", "name-ghost", "name-ghost"),
    broken(SERVER, "asks for a whole bound", "name-ghost", "name-soon", bound=4.0),
    broken(SERVER, "newcomers wait in silence", "name-ghost", "name-waits", bound=8.0),
    broken(SERVER, "remembers names", "name-left", "name-left"),
    broken(SERVER, "names in capitals", "name-bytes", "name-bytes"),
    broken(CLIENT, "stays away", "reset", "comes-back"),
    broken(CLIENT, "lazy after usual", "silence", "wait-usual"),
    broken(CLIENT, "hasty after spread", "fin small-hint", "wait-spread", scale=0.1),
    broken(CLIENT, "hasty after slow", "violation-second-end", "wait-slow", scale=0.1),
    broken(CLIENT, "hasty after slow", "refused", "wait-slow", scale=0.1),
    broken(CLIENT, "refusals prove", "reset name-in-use", "wait-slow", scale=0.2),
    broken(CLIENT, "no hints", "hint", "wait-hint"),
    broken(CLIENT, "ignores too many pings", "too-many-pings", "pings-halved"),
]  # fmt: skip


async def examined(
    reactor: Any,
    peer: Broken,
    *,
    limit: float = LONGEST,
    parallel: int = 64,
    sameName: bool = False,
) -> Findings:
    """
    Play a peer's scenarios against it.

    @param limit: seconds for all of them.
    @param parallel: how many of a server's are played side by side.
    @param sameName: whether the clients that share the work have one name.
    """
    settings = Settings(
        role=peer.role,
        bound=BOUND,
        tolerance=TOLERANCE,
        closing=0.5,
        scale=peer.scale,
        limit=limit,
        maxMessage=LIMIT,
        parallel=parallel,
    )
    scenarios = [SCENARIOS[name] for name in peer.scenarios]
    if peer.role == SERVER:
        server = PlainServer(reactor, peer.faults, bound=peer.bound, tolerance=TOLERANCE)
        port = reactor.listenTCP(0, server, interface="127.0.0.1")
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        found = await examineServer(reactor, endpoint, settings, scenarios)
        await maybeDeferred(port.stopListening)
        server.stop()
        return found
    # Many of the sound ones, which share the work.
    clients = [
        PlainClient(reactor, peer.faults, bound=peer.bound, tolerance=TOLERANCE, scale=peer.scale)
        for _ in range(1 if peer.faults else 12)
    ]

    def listening(port: Any) -> None:
        for number, client in enumerate(clients):
            client.name = "client" if sameName else f"client {number}"
            client.start(port.getHost().port)

    run = ClientRun(reactor, settings, scenarios)
    found = await run.run(TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"), listening)
    for client in clients:
        client.stop()
    return found


ALL = tuple(SCENARIOS)
SOUND = [
    Broken(SERVER, frozenset(), ALL, ()),
    Broken(CLIENT, frozenset(), ALL, ()),
    Broken(CLIENT, frozenset(), ALL, (), bound=0.0),
]


@pytest.fixture(scope="module")
def results() -> Iterator[dict[Broken, Findings]]:
    """
    What was found of all peers, which are examined side by side.
    """
    from twisted.internet import reactor

    def isEnough(peer: Broken, found: Findings) -> bool:
        return set(peer.rules) <= brokenOf(found)

    yield examineAll([*SOUND, *TABLE], partial(examined, reactor), isEnough)


def brokenOf(findings: Findings) -> set[str]:
    return set(findings.broken("must", "should"))


@pytest.mark.parametrize("peer", SOUND, ids=str)
def test_soundPeerPasses(results: dict[Broken, Findings], peer: Broken) -> None:
    """
    A peer that was written from the page keeps all rules, and every scenario is played.
    """
    assert faultsOf(results[peer]) == []
    assert results[peer].unplayed == []


@pytest.mark.parametrize("peer", TABLE, ids=str)
def test_brokenRuleIsNamed(results: dict[Broken, Findings], peer: Broken) -> None:
    """
    Of a peer that breaks a rule the tester names this rule, and no other.
    """
    found = results[peer]
    assert brokenOf(found) == set(peer.rules), faultsOf(found)


@pytest_twisted.ensureDeferred
async def test_timeOverIsSaidOfEachScenario() -> None:
    """
    When the total time is over, each scenario that has not ended is said not to be played, those
    that have not begun as well.
    """
    from twisted.internet import reactor

    peer = Broken(SERVER, frozenset(), ("silence", "talking", "hold"), ())
    found = await examined(reactor, peer, limit=0.1, parallel=1)
    assert found.unplayed == [f"{name}: the time was over" for name in peer.scenarios]


def test_waitNamesWhatWasBefore(results: dict[Broken, Findings]) -> None:
    """
    Of a client that comes back too soon, the report says after which scenario, and which client.
    """
    [peer] = [
        each for each in TABLE if each.scenarios == ("refused",) and "wait-slow" in each.rules
    ]
    scenarios = {check.scenario for check in results[peer].checks if not check.holds}
    assert scenarios == {"coming back after refused, as 'client 0'"}


@pytest_twisted.ensureDeferred
async def test_twoClientsOfOneNameAreNotJudged() -> None:
    """
    The waits of two clients with the same name can not be told apart: the run says so, and finds no
    rule of these broken.
    """
    from twisted.internet import reactor

    peer = Broken(CLIENT, frozenset(), ("silence", "reset", "fin"), ())
    found = await examined(reactor, peer, sameName=True)
    assert brokenOf(found) == set()
    words = "the waits of 'client': two clients have this name; give each its own"
    assert found.unplayed == [words]


def test_everyRuleHasABrokenPeer() -> None:
    """
    No rule is only ever kept: for each there is a peer that breaks it.
    """
    assert {rule for peer in TABLE for rule in peer.rules} == set(RULES)


def test_everyRuleIsCheckedOfASoundPeer(results: dict[Broken, Findings]) -> None:
    """
    The scenarios check each rule of at least one kind of peer.
    """
    checked = {check.rule.id for peer in SOUND for check in results[peer].checks}
    assert checked == set(RULES)
