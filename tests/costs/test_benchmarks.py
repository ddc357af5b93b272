# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The pure parts of the benchmarks compute what they say, the default settings reach the goals that
are computed with them, the contestants do the same work, and what reads the kernel's own figures
reads the right ones.
"""

from __future__ import annotations

import importlib
import os
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from importlib.util import find_spec
from math import e, inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_twisted

from twisted_heartbeat import Backoff, Heartbeat
from twisted_heartbeat.core import wire

# They are scripts, which find each other in their own folder.
sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

fleet: Any = importlib.import_module("fleet")
detectors: Any = importlib.import_module("detectors")
traces: Any = importlib.import_module("traces")
virtual: Any = importlib.import_module("virtual")
peerload: Any = importlib.import_module("peerload")
heartbeatservers: Any = importlib.import_module("heartbeatservers")
footprint: Any = importlib.import_module("footprint")
heartbeat: Any = importlib.import_module("heartbeat")
report: Any = importlib.import_module("report")
presence: Any = importlib.import_module("presence")
scale: Any = importlib.import_module("scale")

OUTAGE = fleet.Outage(clients=2000, down=120.0, accepts=100)
SEEDS = range(5)
"""Five fleets of 2,000 are as one of 10,000, but sooner simulated."""

FLEET = OUTAGE.clients * len(SEEDS)


# The storm.


def together(
    backoff: Backoff, outage: Any = OUTAGE
) -> tuple[Counter[int], Counter[int], list[float]]:
    """
    Attempts since the loss, attempts since the return, and recoveries, of all five fleets.
    """
    attempts: Counter[int] = Counter()
    returns: Counter[int] = Counter()
    recovered: list[float] = []
    for seed in SEEDS:
        storm = fleet.run(outage, lambda draw: fleet.Ours(draw, backoff), seed)
        attempts += storm.attempts
        returns += storm.returns
        recovered += storm.recovered
    return attempts, returns, recovered


def test_defaultBackoffDoesNotStampede() -> None:
    """
    Of ten thousand clients at most 10 % try in any one second, at most 3.5 % in any second after
    the return, and 99 % are back within 55 s.
    """
    attempts, returns, recovered = together(Backoff())
    assert len(recovered) == FLEET
    assert max(attempts.values()) / FLEET <= 0.1
    assert max(returns.values()) / FLEET <= 0.035
    assert fleet.percentile(recovered, 0.99) <= 55.0


@pytest.mark.parametrize(("spread", "least"), [(10.0, 0.1), (1.0, 0.8), (0.0, 1.0)])
def test_aStampedeIsSeen(spread: float, least: float) -> None:
    """
    The check above can fail: ten seconds hold ten percent each on average, and chance adds to that;
    without a spread more than the whole fleet tries in one second.  The busiest second comes before
    the spread is over, so no more is simulated.
    """
    firstSeconds = replace(OUTAGE, down=spread + 1.0, patience=0.0)
    attempts, _, _ = together(Backoff(spread=spread), firstSeconds)
    assert max(attempts.values()) / FLEET > least


@pytest.mark.parametrize("name", fleet.POLICIES)
def test_simulationKeepsItsRules(name: str) -> None:
    """
    Under each policy: the same seed gives the same storm, no client comes back while the broker is
    down or twice, and no more are accepted in a second than it accepts.
    """
    outage = fleet.Outage(clients=300, down=20.0, accepts=40)
    storm = fleet.run(outage, fleet.POLICIES[name], 7)
    again = fleet.run(outage, fleet.POLICIES[name], 7)
    assert storm == again
    assert len(storm.recovered) == outage.clients
    assert min(storm.recovered) >= outage.latency
    accepted = Counter(int(after - outage.latency) for after in storm.recovered)
    assert max(accepted.values()) <= outage.accepts
    assert storm.attempts.total() >= outage.clients
    assert storm.returns.total() >= outage.clients


LONGEST = {
    "twisted_heartbeat": 60.0,
    "full jitter": 60.0,
    "decorrelated jitter": 60.0,
    "gRPC": 144.0,
    "ClientService": 61.0,
}


@pytest.mark.parametrize("name", LONGEST)
def test_policiesKeepTheirCaps(name: str) -> None:
    """
    No wait of a policy is negative, or longer than its document allows, and in the end it waits
    long.
    """
    policy = fleet.POLICIES[name](random.Random(3))
    delays = [policy.lost(0.0), *(policy.refused(float(now)) for now in range(40))]
    assert min(delays) >= 0.0
    assert LONGEST[name] / 2 < max(delays) <= LONGEST[name]


def test_policiesBeginAsTheirDocumentsSay() -> None:
    """
    gRPC comes at once, and then after a second exactly; Twisted's service after 1.5 s and up to one
    more; Twisted's factory after about a second, older ones after e seconds, and then about e times
    that.
    """
    draw = random.Random(5)
    grpc = fleet.Grpc(draw)
    assert [grpc.lost(0.0), grpc.refused(0.0)] == [0.0, 1.0]
    assert 1.6 * 0.8 <= grpc.refused(0.0) <= 1.6 * 1.2
    assert 1.5 <= fleet.TwistedService(draw).lost(0.0) <= 2.5
    random.seed(5)
    factory = fleet.TwistedFactory(draw)
    first, second = factory.lost(0.0), factory.refused(0.0)
    assert 0.4 < first < 1.6 or 0.4 < first / e < 1.6
    assert second / first == pytest.approx(e, rel=0.6)


def test_percentileIsTheNearestRank() -> None:
    """
    The smallest value that so many are not above; those that are missing count as never.
    """
    values = [4.0, 1.0, 3.0, 2.0]
    assert [fleet.percentile(values, part) for part in (0.25, 0.5, 0.51, 1.0)] == [1, 2, 3, 4]
    assert fleet.percentile(values, 0.5, of=8) == 4.0
    assert fleet.percentile(values, 0.99, of=8) == inf


# False verdicts.

STEADY = [float(second) for second in range(200)]


@pytest.mark.parametrize("name", detectors.DETECTORS)
def test_steadyPeerIsNeverFoundDead(name: str) -> None:
    """
    A peer that is heard each second is no mistake of any detector, and each finds it when it dies.
    """
    record = detectors.replay(detectors.Trace(STEADY), detectors.DETECTORS[name], 3.0)
    assert record.mistakes == []
    expected = 1.0 + 0.1 * 5.612 if name.startswith("phi") else 3.0
    assert record.detections[-1] == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("name", detectors.DETECTORS)
def test_silencePastTheBoundIsAMistake(name: str) -> None:
    """
    A living peer that says nothing for longer than the bound is found dead by every detector, and
    the mistake lasts until it is heard.
    """
    trace = detectors.Trace([*STEADY, *(205.0 + second for second in range(10))])
    record = detectors.replay(trace, detectors.DETECTORS[name], 3.0)
    [lasted] = record.mistakes
    assert lasted == pytest.approx(6.0 - record.detections[-1], abs=0.01)


@pytest.mark.parametrize("name", detectors.DETECTORS)
def test_ownStallIsNoSilence(name: str) -> None:
    """
    While a process does not run its peer's bytes wait.  Timers run first after that: all others
    find the peer dead in the very turn that reads them; the package does not.
    """
    trace = detectors.Trace(STEADY, [(100.5, 130.25)])
    record = detectors.replay(trace, detectors.DETECTORS[name], 3.0)
    assert record.mistakes == ([] if name == "twisted_heartbeat" else [0.0])


def test_stallDelaysWhatFallsIntoIt() -> None:
    """
    What happens in a stall is noticed at its end, and nothing else is moved.
    """
    trace = detectors.Trace([], [(1.0, 2.0), (5.0, 9.0)])
    moments = [0.5, 1.0, 1.5, 2.0, 3.0, 6.0, 9.5]
    assert [trace.runs(when) for when in moments] == [0.5, 2.0, 2.0, 2.0, 3.0, 9.0, 9.5]


@pytest.mark.parametrize("name", traces.TRACES)
def test_tracesAreInOrder(name: str) -> None:
    """
    A trace is the same each time, nothing overtakes, and stalls follow each other.
    """
    trace = traces.TRACES[name](random.Random(2), 3000)
    assert trace == traces.TRACES[name](random.Random(2), 3000)
    assert len(trace.arrivals) >= 3000
    assert list(trace.arrivals) == sorted(trace.arrivals)
    edges = [edge for stall in trace.stalls for edge in stall]
    assert edges == sorted(edges)
    assert bool(edges) == (name in ("own stalls", "recorded"))


# Verdicts.


def test_peersAnswerPings() -> None:
    """
    The benchmarks' own peers answer each ping of the built-in protocol with its token, whatever
    hold it tells, and nothing else.
    """
    assert peerload.pongOf(wire.encodePing(7, hold=2.5)) == wire.encodePong(7)
    assert peerload.pongOf(wire.encodePing(2**32 - 1)) == wire.encodePong(2**32 - 1)
    assert peerload.pongOf(wire.encodePong(7)) == b""
    assert peerload.pongOf(wire.encode(wire.Hello("hub"))) == b""


def test_verdictsInVirtualTime() -> None:
    """
    Of some hundred links a tenth is cut at once: each verdict comes within the bound and 50 ms,
    none before the bound, and nobody else is disturbed.
    """
    heartbeat = Heartbeat(interval=1.0, timeout=1.5)
    silences, disturbed = virtual.watch(heartbeat, 300, 30, seed=4)
    assert len(silences) == 30
    assert min(silences) >= heartbeat.bound - 1e-6
    assert max(silences) <= heartbeat.bound + 0.05
    assert disturbed == 0


# Presence.


@pytest.mark.parametrize("name", presence.STORES)
@pytest_twisted.ensureDeferred
async def test_fallIsToldAndStored(name: str, tmp_path: Path) -> None:
    """
    Peers that fall at once are decided first, and then all of them are told and stored.
    """
    from twisted.internet import reactor

    store = presence.Stores(tmp_path).make(name)
    decided, told, stored = await presence.fall(reactor, store, 200)
    assert 0 < decided < told < 30 and decided < stored < 30


@pytest_twisted.ensureDeferred
async def test_readsAreTimed(tmp_path: Path) -> None:
    """
    While peers come and go, each millisecond's read is timed, and each turn of the reactor.
    """
    from twisted.internet import reactor

    store = presence.Stores(tmp_path).make("SQLite")
    late, turns = await presence.blocked(reactor, store, 0.5)
    assert len(late) > 20 and min(late) >= 0
    assert len(turns) > 20 and min(turns) >= 0


# The cost of a heartbeat.

NEEDS = {"autobahn": "autobahn", "uvloop": "uvloop", "websockets": "websockets"}
"""Packages that not everybody has, by contestant."""

PINGED = [name for name in heartbeatservers.SERVERS if name != "silent"]


def missing(name: str) -> str | None:
    """
    Why a contestant can not start here.
    """
    if name == "C":
        return None if shutil.which("cc") else "there is no C compiler"
    package = NEEDS.get(name)
    return f"{package} is not installed" if package and not find_spec(package) else None


@pytest.fixture(scope="module")
def turns() -> Any:
    """
    One short turn of all contestants that can start here, all at once, by name.
    """
    core = min(os.sched_getaffinity(0))
    names = [name for name in (*heartbeatservers.SERVERS, "C") if not missing(name)]
    with pytest.MonkeyPatch.context() as patch, heartbeat.commands(names) as found:
        patch.setattr(heartbeat, "FEW", 3)
        patch.setattr(heartbeat, "SETTLE", 0.2)
        with ThreadPoolExecutor(len(names)) as threads:
            return {
                name: threads.submit(heartbeat.measure, command, name, 5, 2, core)
                for name, command in found.items()
            }


@pytest.mark.parametrize("name", [*PINGED, "C"])
def test_contestantsPing(name: str, turns: Any) -> None:
    """
    Each contestant starts, and pings each of its links about once a second: what is compared is
    the same work.
    """
    reason = missing(name)
    if reason is not None:
        pytest.skip(reason)
    turn = turns[name].result()
    assert 0.4 <= turn.rate <= 2.1
    assert turn.cost > 0


def test_contestantsMayBeSilent(turns: Any) -> None:
    """
    That which memory is compared with accepts its links and sends nothing.
    """
    turn = turns["silent"].result()
    assert (turn.cost, turn.rate) == (0, 0)


def test_contestantThatDoesNotStartFailsTheRun(capfd: pytest.CaptureFixture[str]) -> None:
    """
    No figures are made up for one that can not run here.
    """
    command = [sys.executable, "-c", "import nowhere"]
    with pytest.raises(SystemExit, match="did not start"):
        heartbeat.measure(command, "bare", 1, 1, min(os.sched_getaffinity(0)))
    assert "nowhere" in capfd.readouterr().err


def test_busyLoadFailsTheRun(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A load that is the bottleneck measures nothing.
    """
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("the server and the load need a core each")
    turn = heartbeat.Turn(cost=1.0, size=1.0, rate=1.0, load=95.0)
    monkeypatch.setattr(heartbeat, "measure", lambda *arguments: turn)
    with pytest.raises(SystemExit, match="95 % busy"):
        heartbeat.compare(10, 1, 1, ["epoll"])


def test_answersOfWebSockets() -> None:
    """
    The load answers a ping of a WebSocket with its bytes, also one that comes together with the
    handshake's end, and nothing else.
    """
    pong = b"\x8a\x82\0\0\0\0ab"
    assert heartbeat.pongFrameOf(b"\x89\x02ab") == pong
    assert heartbeat.pongFrameOf(b"HTTP/1.1 101 Yes\r\n\r\n\x89\x02ab") == pong
    assert heartbeat.pongFrameOf(b"HTTP/1.1 101 Yes\r\n\r\n") == b""
    assert heartbeat.pongFrameOf(b"\x81\x02ab") == b""


# What is told.


def compared() -> Any:
    """
    Two contestants, of which one misses its goal and one its rate.
    """
    cost = report.Comparison(
        "10 links: a ping and its pong", "us", "epoll", {"ours": report.Goal(1.5, "ratio")}
    )
    memory = report.Comparison(
        "10 links: memory of one", "bytes", "epoll", {"ours": report.Goal(1024, "over")}
    )
    kept = dict.fromkeys(["epoll", "ours"], report.Goal(0.9, least=True))
    rate = report.Comparison("10 links: pings for each in a second", "Hz", goals=kept)
    for comparison, floor, ours in ((cost, 10.0, 20.0), (memory, 100.0, 200.0), (rate, 1.0, 0.5)):
        for _ in range(2):
            comparison.add("epoll", floor)
            comparison.add("ours", ours)
    return [cost, memory, rate]


def test_goalsAreTold() -> None:
    """
    Goals are an upper limit or, where that is said, a lower one; what is missed is told.
    """
    cost, memory, rate = (comparison.rows()["ours"]["met"] for comparison in compared())
    assert (cost, memory, rate) == (False, True, False)
    assert "ratio <= 1.5  MISSED" in compared()[0].table()
    assert "median >= 0.9  MISSED" in compared()[2].table()


def test_quartilesAreAmongTheValues() -> None:
    """
    However few turns there were, none came to less than the lower quartile tells, or to more than
    the upper.
    """
    comparison = report.Comparison("two turns", "us")
    comparison.add("ours", 8.0)
    comparison.add("ours", 12.0)
    row = comparison.rows()["ours"]
    assert (row["low"], row["median"], row["high"]) == (8.0, 10.0, 12.0)


def test_quickOptionsGiveWay() -> None:
    """
    C{--quick} sets what makes a benchmark short; what is given after it holds.
    """
    parser = report.parserFor("A benchmark.", turns=1, window=1)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--window", type=int, default=2)
    quick = parser.parse_args(["--quick", "--window", "5"])
    assert (quick.turns, quick.window) == (1, 5)
    assert parser.parse_args([]).turns == 3


def test_chartsAreDrawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The charts of the heartbeat and of the data path come from the JSON alone, the same each time;
    and a folder without any fails.
    """
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    charts: Any = importlib.import_module("charts")
    monkeypatch.setattr(sys, "argv", ["charts.py", str(tmp_path), "--into", str(tmp_path)])
    with pytest.raises(SystemExit, match="nothing to draw"):
        charts.main()
    for benchmark in ("heartbeat", "datapath"):
        report.report(benchmark, compared(), tmp_path / f"{benchmark}.json")
    charts.main()
    drawn = {path.name: path.read_bytes() for path in tmp_path.glob("*.svg")}
    assert sorted(drawn) == ["datapath.svg", "heartbeat.svg", "memory.svg"]
    charts.main()
    assert drawn == {path.name: path.read_bytes() for path in tmp_path.glob("*.svg")}


def test_slowContestantIsMarked() -> None:
    """
    Who did not keep the rate is marked in the chart, and nobody else.
    """
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    charts: Any = importlib.import_module("charts")
    found = {
        "comparisons": {each.title: {"base": each.base, "rows": each.rows()} for each in compared()}
    }
    cost = charts.drawHeartbeat(found)["heartbeat"]
    labels = [label.get_text() for label in cost.axes[0].get_yticklabels()]
    charts.pyplot.close("all")
    assert labels == ["raw epoll loop, Python", "twisted_heartbeat, at 0.50 Hz"]


# The time to notice.


class NoticedEnd:
    """
    A client of C{benchmarks/noticing.py} that has printed some facts.
    """

    def __init__(self, *facts: dict[str, Any]) -> None:
        self._facts = facts

    def finish(self) -> list[dict[str, Any]]:
        return list(self._facts)


def test_whatIsNotNoticedCountsAsTheWholeRun(tmp_path: Path) -> None:
    """
    The time runs from the fault. An end before it is none, and what no client noticed has taken the
    whole run. The chart says so.
    """
    noticing: Any = importlib.import_module("noticing")
    lost = [{"at": 93.0, "lost": "before"}, {"at": 107.5, "lost": "found"}]
    clients = {name: NoticedEnd({"at": 90.0, "up": 8}) for name in noticing.CLIENTS}
    clients["ours"] = NoticedEnd(*lost, *([{"at": 105.0, "lost": "found"}] * 7))
    scene = noticing.Scene("cable cut, idle", None, None, clients)
    found = noticing.figures(scene, began=100.0, seconds=60.0)
    assert sorted(found.samples["ours"]) == [5.0] * 7 + [7.5]
    assert found.samples["bare"] == [60.0] * 8
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    charts: Any = importlib.import_module("charts")
    longest = {found.title: {name: max(values) for name, values in found.samples.items()}}
    drawn = charts.drawNoticing({"longest": longest, "seconds": 60.0, "bound": 8.0})["noticing"]
    told = [text.get_text() for text in drawn.axes[0].texts]
    charts.pyplot.close("all")
    assert told[:2] == ["7.5 s", "not noticed in 60 s"]


# The footprint.

onLinux = pytest.mark.skipif(sys.platform != "linux", reason="it reads proc(5), which is Linux's")

PATIENT = 20.0
"""Seconds for the answer to a ping, so that no process is found dead on a machine that is busy."""


@onLinux
def test_importIsMeasured(tmp_path: Path) -> None:
    """
    What a fresh interpreter imports is counted, and takes memory; the byte code goes where it is
    told to go.
    """
    _, bare, few = footprint.imported("", str(tmp_path))
    spent, memory, modules = footprint.imported("import json, asyncio", str(tmp_path))
    assert spent > 0
    assert memory > bare + 1_000_000
    assert modules > few + 50
    assert list(tmp_path.rglob("*.pyc"))


def test_importThatFailsIsNotMeasured(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """
    No figure is made of what could not be imported.
    """
    with pytest.raises(SystemExit, match="nowhere"):
        footprint.imported("import nowhere", str(tmp_path))
    assert "ModuleNotFoundError" in capfd.readouterr().err


DOZING = """
import threading, time

def doze():
    for _ in range(20):
        time.sleep(0.001)

def other():
    doze()
    dozed.set()
    threading.Event().wait()

dozed = threading.Event()
input()
threading.Thread(target=other, daemon=True).start()
doze()
dozed.wait()
print(flush=True)
input()
"""


@onLinux
def test_wakeupsAreThoseOfAllThreads() -> None:
    """
    Each sleep of a process ends in one wakeup, in whichever of its threads, and there are few more.
    """
    pipe = subprocess.PIPE
    child = subprocess.Popen([sys.executable, "-c", DOZING], stdin=pipe, stdout=pipe)
    with child:
        assert child.stdin is not None
        assert child.stdout is not None
        before = footprint.wakeupsOf(child.pid)
        child.stdin.write(b"now\n")
        child.stdin.flush()
        child.stdout.readline()
        assert 40 <= footprint.wakeupsOf(child.pid) - before < 80


def test_webSocketIsAnswered() -> None:
    """
    The other end of a WebSocket's client says what RFC 6455 asks for: section 1.3 has the upgrade,
    section 5.7 the ping that is masked and the pong that is not.
    """
    upgrade = b"GET / HTTP/1.1\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nHost: a\r\n\r\n"
    accepted = footprint.serverAnswer(upgrade)
    assert accepted.startswith(b"HTTP/1.1 101 ")
    assert b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in accepted
    ping = bytes.fromhex("89 85 37fa213d 7f9f4d5158")
    assert footprint.serverAnswer(ping) == b"\x8a\x05Hello"
    assert footprint.serverAnswer(b"\x81\x80\0\0\0\0") == b""


def test_scaleMeasuresWithOneLoad(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The peers that have connected are the ones that fall silent, and the ones that come again.
    """

    class Load:
        answered = 0

        def connect(self, links: int, count: Any) -> float:
            return 2.0

        def serve(self, seconds: float) -> None:
            self.answered += 10

    class Server:
        def ask(self, question: str) -> float:
            return {"memory": 0.0, "spent": 1.0}[question]

    load, seen = Load(), []

    def cut(server: Any, load: Any, links: int) -> Any:
        seen.append(load)
        return SimpleNamespace(verdicts=[7.0], paused=0.0, missed=0, disturbed=0, repeated=0)

    def comeAgain(server: Any, load: Any, links: int) -> float:
        seen.append(load)
        return 3.0

    monkeypatch.setattr(scale, "loadedServer", lambda few: nullcontext((Server(), load, 0.0)))
    monkeypatch.setattr(scale, "cutTenth", cut)
    monkeypatch.setattr(scale, "comeAgain", comeAgain)
    figures = scale.measure(500)
    assert seen == [load, load]
    assert (figures["accepted at first"], figures["all accepted again"]) == (250.0, 3.0)
    assert figures["the last verdict"] == 7.0


@onLinux
def test_idleProcessesAreCompared() -> None:
    """
    In a run that is short, those that ping are woken at least for each ping, and it is answered;
    one that has nothing to say sleeps.
    """
    found = footprint.compareWakeups(3, 1, 5, 0.4, PATIENT, ["silent", "ours", "TimeoutMixin"])
    figures = {each.title: each.rows() for each in found}
    for role in (footprint.ONE_LINK, "a server with 3 links"):
        woken, pings = (figures[f"{role}: {figure}"] for figure in footprint.FIGURES)
        assert set(pings) == {"ours", "TimeoutMixin"}
        for name, row in pings.items():
            assert 30 < row["median"] < 300
            assert woken[name]["median"] > row["median"] / 2
            assert woken["silent"]["median"] < woken[name]["median"] / 2
    assert figures[f"{footprint.ONE_LINK}: wakeups"][footprint.TO_OURS]["median"] > 30


@onLinux
def test_lostLinkIsSeen() -> None:
    """
    A process that has lost its link is not taken for an idle one, whoever is at the other end.
    """
    with footprint.Scene(0.4, PATIENT) as scene:
        scene.addClient("TimeoutMixin")
        scene.wait()
        os.kill(scene.idle[0].pid, signal.SIGKILL)
        with pytest.raises(SystemExit, match="closed its connection"):
            scene.wait()
    with footprint.Scene(0.4, PATIENT) as scene:
        scene.addClientOfOurs()
        scene.wait()
        os.kill(scene.idle[0].pid, signal.SIGKILL)
        with pytest.raises(SystemExit, match="lost its connection"):
            scene.wait()
