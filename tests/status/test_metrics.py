# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The metrics: true counts, names as Prometheus asks for, no label that a peer controls, and no cost
for each ping.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from typing import Any

import pytest
import pytest_twisted
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock

from twisted_heartbeat import (
    Backoff,
    Heartbeat,
    HeartbeatMetrics,
    HeartbeatProtocol,
    HeartbeatServerFactory,
    PeerClosed,
    PeerHung,
    ProtocolViolation,
    Retry,
    ServerLimits,
    StatusResource,
)
from twisted_heartbeat.checkin.resource import REFUSALS
from twisted_heartbeat.core.checkins import Signal
from twisted_heartbeat.core.counters import Counters, SourceCounters
from twisted_heartbeat.core.presence import PeerState
from twisted_heartbeat.datagram.ignored import _WORDS
from twisted_heartbeat.timing.wheel import timerWheelFor

from ..support.countingsockets import Accepted, Scene
from ..support.loopback import QUICK, Loopback, wait, within
from .fleet import Fleet, Watched
from .web import Connection

PREFIX = "twisted_heartbeat_"


def samplesOf(metrics: HeartbeatMetrics) -> dict[tuple[str, ...], float]:
    """
    The values of all samples, by the name without its prefix and the labels' values, in the
    order of the labels' names.
    """
    text = metrics.render().decode()
    return {
        (sample.name.removeprefix(PREFIX), *_valuesOf(sample.labels)): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def _valuesOf(labels: dict[str, str]) -> list[str]:
    return [value for _, value in sorted(labels.items())]


@pytest.fixture
def fleet() -> Fleet:
    """
    A fleet that the metrics observe.
    """
    metrics = HeartbeatMetrics()
    made = Fleet(Clock(), hooks=[metrics])
    made.metrics = metrics  # type: ignore[attr-defined]
    metrics.watchPresence(made.table)
    return made


def test_peersByStateAndCarrier(fleet: Any) -> None:
    """
    Peers are counted by state and carrier; a state that no peer of a carrier has is 0.
    """
    fleet.up("a", "b", "c")
    fleet.up("d", carrier="udp")
    fleet.suspect("b")
    fleet.down("c")
    samples = samplesOf(fleet.metrics)
    assert {key[1:]: value for key, value in samples.items() if key[0] == "peers"} == {
        ("tcp", "up"): 1,
        ("tcp", "suspect"): 1,
        ("tcp", "down"): 1,
        ("tcp", "unknown"): 0,
        ("udp", "up"): 1,
        ("udp", "suspect"): 0,
        ("udp", "down"): 0,
        ("udp", "unknown"): 0,
    }


def test_peersWithoutATable() -> None:
    """
    Without a presence table the links are counted.
    """
    metrics = HeartbeatMetrics()
    clock = Clock()
    one, other = (Watched(name, 1, clock, "tls", 0.1) for name in "ab")
    for watched in (one, other):
        metrics.connected(watched)
    other.state = "suspected"
    samples = samplesOf(metrics)
    assert samples["peers", "tls", "up"] == samples["peers", "tls", "suspect"] == 1


def test_whatHappened(fleet: Any) -> None:
    """
    Each kind of event has its counter; an end is a verdict only if the peer was found dead.
    """
    metrics = fleet.metrics
    fleet.up("a", "b", "c")
    fleet.suspect("a")
    metrics.recovered(fleet.watched["a"])
    fleet.down("a")
    fleet.down("b", cause=PeerHung())
    fleet.down("c", cause=PeerClosed())
    metrics.connecting(1)
    metrics.retrying(Retry(attempt=1, delay=1.0, elapsed=0.0, cause=PeerHung()))
    metrics.gaveUp(PeerHung())
    stranger = Watched("x", 9, Clock(), "tcp", 0.1)
    metrics.refused(stranger, ProtocolViolation().withLimit("helloTimeout"))
    samples = samplesOf(metrics)
    assert samples["connections_total", "tcp"] == 3
    assert samples["suspicions_total", "tcp"] == samples["recoveries_total", "tcp"] == 1
    assert samples["disconnections_total", "tcp", "PeerClosed"] == 1
    assert samples["verdicts_total", "tcp", "PeerSilent"] == 1
    assert samples["verdicts_total", "tcp", "PeerHung"] == 1
    assert ("verdicts_total", "tcp", "PeerClosed") not in samples
    assert samples["attempts_total",] == 1
    assert samples["retries_total", "PeerHung"] == samples["given_up_total", "PeerHung"] == 1
    assert samples["refusals_total", "tcp"] == 1
    assert samples["limits_hit_total", "helloTimeout"] == 1


def test_roundTripsAreObservedOnce(fleet: Any) -> None:
    """
    However many servers scrape, each round trip is observed once.
    """
    fleet.up("a", rtt=0.02)
    fleet.up("b", rtt=3.0)
    for _ in range(3):
        samples = samplesOf(fleet.metrics)
    assert samples["round_trip_seconds_count", "tcp"] == 2
    assert samples["round_trip_seconds_sum", "tcp"] == pytest.approx(3.02)
    assert samples["round_trip_seconds_bucket", "tcp", "0.01"] == 0
    assert samples["round_trip_seconds_bucket", "tcp", "0.025"] == 1
    assert samples["round_trip_seconds_bucket", "tcp", "+Inf"] == 2
    fleet.watched["a"].rtt = 0.03
    assert samplesOf(fleet.metrics)["round_trip_seconds_count", "tcp"] == 3


def test_latenessOfTheTimers() -> None:
    """
    Each tick of the timer wheel is measured, once for each clock.
    """
    clock = Clock()
    wheel = timerWheelFor(clock)
    metrics = HeartbeatMetrics()
    metrics.watchWheel(wheel)
    metrics.watchWheel(wheel)
    for late in (0.0, 0.3):
        wheel.callSoon(lambda: None)
        clock.rightNow += late
        clock.advance(0)
    samples = samplesOf(metrics)
    assert samples["timer_lateness_seconds_count",] == 2
    assert samples["timer_lateness_seconds_bucket", "0.25"] == 1
    assert samples["timer_lateness_seconds_sum",] == pytest.approx(0.3)


@pytest_twisted.ensureDeferred
async def test_realLinks(loopback: Loopback) -> None:
    """
    Real links, plain and TLS: connections of both sides, pings, round trips, bytes both ways, and
    all of it kept when the links have ended.
    """
    server, client = HeartbeatMetrics(), HeartbeatMetrics()
    factory = HeartbeatServerFactory(heartbeat=QUICK, hooks=server)
    service = loopback.service(
        loopback.endpoint(loopback.listen(factory)),
        Factory.forProtocol(HeartbeatProtocol),
        heartbeat=QUICK,
        hooks=client,
    )
    await within(service.whenConnected())
    carrier = "tls" if loopback.secured else "tcp"
    for _ in range(100):
        await wait(0.05)
        if ("round_trip_seconds_count", carrier) in samplesOf(client):
            break
    await wait(0.3)
    for metrics in (server, client):
        samples = samplesOf(metrics)
        assert samples["connections_total", carrier] == 1
        assert samples["pings_total",] >= 1
        assert samples["sent_bytes_total", carrier] > 30
        assert samples["received_bytes_total", carrier] > 30
        assert samples["timer_lateness_seconds_count",] > 0
    assert samples["attempts_total",] == 1
    assert samples["round_trip_seconds_count", carrier] >= 1
    before = {
        name: samplesOf(server)[name, carrier]
        for name in ("received_bytes_total", "sent_bytes_total")
    }
    await within(service.stopService())
    await within(factory.drain())
    after = samplesOf(server)
    for name, value in before.items():
        assert after[name, carrier] >= value
    assert after["disconnections_total", carrier, "PeerClosed"] == 1
    assert not [key for key in after if key[0] == "verdicts_total"]


@pytest_twisted.ensureDeferred
async def test_limitsOfAServer(plain: Loopback) -> None:
    """
    A peer that passes a limit is counted under the name of the setting, and as refused where it
    was.
    """
    metrics = HeartbeatMetrics()
    limits = ServerLimits(peers=1, helloTimeout=0.2)
    factory = HeartbeatServerFactory(heartbeat=QUICK, hooks=metrics, serverLimits=limits)
    port = plain.listen(factory)
    endpoint = plain.endpoint(port)
    once = Backoff(initial=30.0, maximum=30.0, jitter=None)
    protocols = Factory.forProtocol(HeartbeatProtocol)
    for _ in range(2):
        plain.service(endpoint, protocols, retryPolicy=once, heartbeat=QUICK)
        await wait(0.2)
    await within(plain.endpoint(port).connect(Factory.forProtocol(Protocol)))
    await wait(0.5)
    samples = samplesOf(metrics)
    assert samples["limits_hit_total", "peers"] == 1
    assert samples["limits_hit_total", "helloTimeout"] == 1
    assert samples["refusals_total", "tcp"] == 1


@pytest_twisted.ensureDeferred
async def test_limitOfThoseTurnedAway(plain: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A connection that a full server closes at once has hit the limit, too.
    """
    monkeypatch.setattr("twisted_heartbeat.server.factory.MAX_POLITE_REFUSALS", 0)
    metrics = HeartbeatMetrics()
    factory = HeartbeatServerFactory(
        heartbeat=QUICK, hooks=metrics, serverLimits=ServerLimits(peers=1)
    )
    endpoint = plain.endpoint(plain.listen(factory))
    service = plain.service(endpoint, Factory.forProtocol(HeartbeatProtocol), heartbeat=QUICK)
    await within(service.whenConnected())
    for _ in range(100):
        if factory.peers:
            break
        await wait(0.02)
    before = samplesOf(metrics)["turned_away_total",]
    await within(endpoint.connect(Factory.forProtocol(Protocol)))
    await wait(0.1)
    samples = samplesOf(metrics)
    assert samples["turned_away_total",] == before + 1
    assert samples["limits_hit_total", "peers"] == 1
    assert not [key for key in samples if key[0] == "refusals_total"]


# How it reads.


def fullOfAll() -> HeartbeatMetrics:
    """
    Metrics with at least one sample of each.
    """
    metrics = HeartbeatMetrics()
    clock = Clock()
    fleet = Fleet(clock, hooks=[metrics])
    metrics.watchPresence(fleet.table)
    timerWheelFor(clock).shared(Counters).sentCheckIns["taken"] = 1
    counters = SourceCounters()
    metrics.watchCounters(counters)
    counters.datagrams.ignored = dict.fromkeys((*_WORDS, "late", "challenged", "foreign"), 1)
    counters.checkIns.refused.update(dict.fromkeys(REFUSALS, 1))
    counters.checkIns.received.update(map(str, Signal))
    fleet.up("a", "b", 'evil"\n{}="1')
    fleet.suspect("a")
    metrics.recovered(fleet.watched["a"])
    fleet.watched["b"].isServerSide = False
    metrics.connected(fleet.watched["b"])
    fleet.down("a")
    metrics.refused(fleet.watched["b"], ProtocolViolation().withLimit("peers"))
    metrics.connecting(1)
    metrics.retrying(Retry(attempt=1, delay=1.0, elapsed=0.0, cause=PeerHung()))
    metrics.gaveUp(PeerHung())
    return metrics


def test_namesAreAsPrometheusAsks() -> None:
    """
    Names have the prefix, snake case and base units; counters end in _total, and only they do; all
    have a help text that is a sentence.
    """
    families = list(text_string_to_metric_families(fullOfAll().render().decode()))
    assert len(families) == len({family.name for family in families}) >= 16
    for family in families:
        assert re.fullmatch(f"{PREFIX}[a-z]+(_[a-z]+)*", family.name)
        assert family.documentation.endswith(".")
        assert family.samples, family.name
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter")
        if family.type == "histogram":
            assert family.name.endswith("_seconds")
        for forbidden in ("milliseconds", "_ms", "_count", "_sum", "_bucket"):
            assert not family.name.endswith(forbidden)


def test_promtool() -> None:
    """
    Prometheus's own lint finds nothing.
    """
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    done = subprocess.run(
        [promtool, "check", "metrics"],
        input=fullOfAll().render(),
        capture_output=True,
        timeout=30,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_noLabelOfAPeers() -> None:
    """
    What a peer says is no label: the labels are few, and their values those of the program.
    """
    text = fullOfAll().render().decode()
    assert "evil" not in text
    carriers = {"tcp", "tls", "unix", "stream", "udp", "http"}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            for label, value in sample.labels.items():
                known = ("state", "carrier", "cause", "limit", "reason", "signal", "result", "le")
                assert label in known
                assert label != "carrier" or value in carriers
                assert label != "state" or value in list(PeerState)


def test_ownRegistry() -> None:
    """
    Two of them in one process do not meet, and the default registry knows neither.
    """
    one, other = HeartbeatMetrics(), HeartbeatMetrics()
    one.connecting(1)
    assert samplesOf(one)["attempts_total",] == 1
    assert samplesOf(other)["attempts_total",] == 0
    assert PREFIX not in str([family.name for family in REGISTRY.collect()])


def test_scraped() -> None:
    """
    Over HTTP, with the type that tells a server how to read it; the page's clock and table are
    measured without being named.
    """
    clock = Clock()
    metrics = HeartbeatMetrics()
    fleet = Fleet(clock, hooks=[metrics])
    resource = StatusResource(fleet.table, metrics=metrics, clock=clock)
    fleet.up("a")
    connection = Connection(resource, clock)
    answer = connection.ask("/metrics")
    assert answer.header("Content-Type").startswith("text/plain; version=")
    text = answer.body.decode()
    assert f'{PREFIX}peers{{carrier="tcp",state="up"}} 1.0' in text
    assert list(text_string_to_metric_families(text))
    connection.close()
    resource.close()


def test_pingCostsTheMetricsNothing() -> None:
    """
    With metrics, a ping and its answer call no function more than without: what is frequent is
    read at the scrape.  Only each tick of the timer wheel, which all links share, is measured.
    """
    without, metrics = callsOf(None), HeartbeatMetrics()
    extra = callsOf(metrics) - without
    samples = samplesOf(metrics)
    assert samples["pings_total",] > 100
    assert extra <= 3 * samples["timer_lateness_seconds_count",]


def callsOf(hooks: HeartbeatMetrics | None) -> int:
    """
    How many functions a link calls for a hundred pings and answers.
    """
    settings: dict[str, Any] = {"heartbeat": Heartbeat(interval=20, timeout=15), "keepAlive": None}
    clock = Clock()
    scene = Scene(
        HeartbeatServerFactory(clock=clock, hooks=hooks, **settings), clock, kind=Accepted
    )
    scene.begin(needs=0.0)
    scene.beat()
    called = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal called
        called += event == "call"

    sys.setprofile(count)
    try:
        for _ in range(100):
            scene.beat()
    finally:
        sys.setprofile(None)
    return called
