# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{HeartbeatMetrics}: the fleet in numbers, for Prometheus.

I{Problem.}  Ten thousand links make a thousand pings and pongs in a second.  A counter that is told
of each would double their cost.

I{Idea.}  What is rare is counted when it happens: the metrics are an observer beside the log.  What
is frequent is read when Prometheus asks: each link knows its last round-trip time, the kernel
counts the bytes of each connection, the package counts its pings in one place for each clock, and
each factory and monitor counts what it refuses.

I{Round-trip times} are so a sample: of each peer the last one, if it is another than at the scrape
before.  Each is observed once, however many servers scrape.

I{Labels} have values that this program determines: states, carriers, classes of causes, settings.
The name of a peer is no label: a peer could otherwise make a time series for each name that it
claims.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import Metric

from ..core.causes import Cause
from ..core.counters import Counters, SourceCounters
from ..core.presence import PeerState
from ..link.hooks import LinkHooks

if TYPE_CHECKING:
    from ..core.commands import Retry
    from ..timing.wheel import TimerWheel

PREFIX = "twisted_heartbeat_"

ROUND_TRIP_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LATENESS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

_DATAGRAM_LIMITS = {
    "unknown": "unknownPerSecond",
    "unchallenged": "challengesPerSecond",
    "tooMany": "peerPerSecond",
    "noRoom": "peers",
}
"""The limit by which a datagram was ignored, by the reason."""

_STATES = {"alive": PeerState.UP, "suspected": PeerState.SUSPECT}
"""The state of a peer that is known by the state of its link alone."""


class _Watched:
    """
    A link, session or check that is watched at present.

    @ivar rtt: its round-trip time at the last scrape.
    @ivar received: the bytes that were received from it.
    @ivar sent: the bytes that were sent to it.
    """

    __slots__ = ("carrier", "received", "rtt", "sent", "watched")

    def __init__(self, watched: Any) -> None:
        self.watched = watched
        self.carrier: str = watched.carrier
        self.rtt: float | None = None
        self.received = self.sent = 0

    def readTraffic(self) -> None:
        """
        Ask for the bytes, where they are counted.
        """
        received, sent = getattr(self.watched, "traffic", (None, None))
        self.received = max(self.received, received or 0)
        self.sent = max(self.sent, sent or 0)


class _Histogram:
    """
    Counts of values in buckets.
    """

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.sum = 0.0
        self._counts = [0] * (len(bounds) + 1)

    def observe(self, value: float) -> None:
        """
        Count a value.
        """
        self._counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def buckets(self) -> list[tuple[str, float]]:
        """
        The cumulative counts by their upper bounds.
        """
        names = [*map(str, self.bounds), "+Inf"]
        return list(zip(names, map(float, accumulate(self._counts)), strict=True))


class HeartbeatMetrics(LinkHooks):
    """
    Counts what happens to the peers.  Give it as C{hooks=} to each service, factory and monitor,
    and as C{metrics=} to L{StatusResource<twisted_heartbeat.status.resource.StatusResource>}; or
    serve L{registry} in any way that C{prometheus_client} knows.

    @ivar registry: the registry of these metrics alone.
    @ivar contentType: the media type of L{render}.
    """

    contentType = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._presence: Any = None
        self._watched: dict[int, _Watched] = {}
        self._wheels: dict[int, TimerWheel] = {}
        self._counters: list[SourceCounters] = []
        self._lateness = _Histogram(LATENESS_BUCKETS)
        self._roundTrips: dict[str, _Histogram] = {}
        self._received: Counter[str] = Counter()
        self._sent: Counter[str] = Counter()
        self._attempts = 0
        self._connections: Counter[str] = Counter()
        self._reconnects: Counter[str] = Counter()
        self._suspicions: Counter[str] = Counter()
        self._recoveries: Counter[str] = Counter()
        self._disconnections: Counter[tuple[str, str]] = Counter()
        self._verdicts: Counter[tuple[str, str]] = Counter()
        self._refusals: Counter[str] = Counter()
        self._limits: Counter[str] = Counter()
        self._retries: Counter[str] = Counter()
        self._givenUp: Counter[str] = Counter()
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)

    def watchPresence(self, presence: Any) -> None:
        """
        Count the peers of a presence table, in place of the links.
        """
        self._presence = presence

    def watchWheel(self, wheel: TimerWheel) -> None:
        """
        Measure how late a timer wheel is, and read what is counted there.
        """
        if id(wheel) not in self._wheels:
            self._wheels[id(wheel)] = wheel
            wheel.tickObservers += (self._lateness.observe,)

    def watchCounters(self, counters: SourceCounters) -> None:
        """
        Read what a factory, service or monitor counts.  Each that has these metrics as a hook calls
        it once.
        """
        self._counters.append(counters)

    def render(self) -> bytes:
        """
        Return the metrics as text.
        """
        return generate_latest(self.registry)

    # What happens, see LinkHooks.

    def connecting(self, attempt: int) -> None:
        self._attempts += 1

    def connected(self, link: Any) -> None:
        watched = self._watched[id(link)] = _Watched(link)
        self._connections[watched.carrier] += 1
        if link.generation > 1 and not link.isServerSide:
            self._reconnects[watched.carrier] += 1
        self.watchWheel(link.wheel)

    def suspected(self, link: Any) -> None:
        self._suspicions[link.carrier] += 1

    def recovered(self, link: Any) -> None:
        self._recoveries[link.carrier] += 1

    def disconnected(self, link: Any, cause: Cause) -> None:
        watched = self._watched.pop(id(link), None)
        if watched is None:
            # It ended before it was connected: a stranger's, for example.
            watched = _Watched(link)
        self._end(watched, cause)
        self._disconnections[watched.carrier, _className(cause)] += 1
        if cause.isVerdict:
            self._verdicts[watched.carrier, _className(cause)] += 1

    def refused(self, link: Any, cause: Cause) -> None:
        watched = _Watched(link)
        self._end(watched, cause)
        self._refusals[watched.carrier] += 1

    def retrying(self, retry: Retry) -> None:
        self._retries[_className(retry.cause)] += 1

    def gaveUp(self, cause: Cause) -> None:
        self._givenUp[_className(cause)] += 1

    def _end(self, watched: _Watched, cause: Cause) -> None:
        if cause.limit is not None:
            self._limits[cause.limit] += 1
        watched.readTraffic()
        evidence = cause.evidence
        if evidence is not None:
            watched.received = max(watched.received, evidence.bytesReceived or 0)
        self._received[watched.carrier] += watched.received
        self._sent[watched.carrier] += watched.sent

    # What Prometheus asks, see prometheus_client.registry.Collector.

    def collect(self) -> Iterator[Metric]:
        """
        Read what is frequent, and yield all metrics.
        """
        shared = [wheel.shared(Counters) for wheel in self._wheels.values()]
        yield self._peers()
        yield from self._whatHappened()
        yield from self._refused(shared)
        yield from self._traffic(shared)
        yield self._roundTripFamily()
        words = "Seconds by which the timers of all links were late."
        family = HistogramMetricFamily(f"{PREFIX}timer_lateness_seconds", words)
        family.add_metric([], self._lateness.buckets, self._lateness.sum)
        yield family

    def _whatHappened(self) -> Iterator[Metric]:
        yield _counter("attempts", "Attempts to connect.", self._attempts)
        yield _counted("connections", "Peers that were connected.", ["carrier"], self._connections)
        words = "Times that a client was connected again, after the first."
        yield _counted("reconnects", words, ["carrier"], self._reconnects)
        words = "Retries that were announced after this cause."
        yield _counted("retries", words, ["cause"], self._retries)
        words = "Links that will not be tried again."
        yield _counted("given_up", words, ["cause"], self._givenUp)
        words = "Peers that left a ping unanswered for half of the timeout."
        yield _counted("suspicions", words, ["carrier"], self._suspicions)
        words = "Suspected peers that spoke after all."
        yield _counted("recoveries", words, ["carrier"], self._recoveries)
        labels = ["carrier", "cause"]
        words = "Peers that were found dead."
        yield _counted("verdicts", words, labels, self._verdicts)
        words = "Peers that were disconnected, found dead or not."
        yield _counted("disconnections", words, labels, self._disconnections)

    def _refused(self, shared: Sequence[Counters]) -> Iterator[Metric]:
        words = "Peers that a server did not admit."
        yield _counted("refusals", words, ["carrier"], self._refusals)
        words = "Connections that a full or closing server closed at once."
        yield _counter("turned_away", words, sum(each.turnedAway for each in shared))
        words = "Datagrams that changed nothing, or were challenged, by the reason."
        ignored = _total(each.datagrams.ignored for each in self._counters)
        yield _counted("datagrams_ignored", words, ["reason"], ignored)
        words = "Requests to check in that were refused, by the reason."
        refused = _total(each.checkIns.refused for each in self._counters)
        yield _counted("check_ins_refused", words, ["reason"], refused)
        words = "How often this limit was passed."
        limits = self._limits + _total(each.limits for each in self._counters)
        limits += Counter({_DATAGRAM_LIMITS[key]: ignored[key] for key in _DATAGRAM_LIMITS})
        yield _counted("limits_hit", words, ["limit"], limits)

    def _traffic(self, shared: Sequence[Counters]) -> Iterator[Metric]:
        words = "Pings that were sent."
        yield _counter("pings", words, sum(each.pings for each in shared))
        datagrams = [each.datagrams for each in self._counters]
        words = "Datagrams that were received, ignored or not."
        yield _counter("datagrams_received", words, sum(each.received for each in datagrams))
        words = "Datagrams that were sent."
        yield _counter("datagrams_sent", words, sum(each.sent for each in datagrams))
        checkIns = [each.checkIns for each in self._counters]
        words = "Check-ins that were taken, by what they say."
        taken = _total(each.received for each in checkIns)
        yield _counted("check_ins_received", words, ["signal"], taken)
        words = "Requests to check in that this process has sent, by what became of them."
        results = _total(each.sentCheckIns for each in shared)
        yield _counted("check_ins_sent", words, ["result"], results)
        received, sent = self._received.copy(), self._sent.copy()
        for watched in self._watched.values():
            self._observeRoundTrip(watched)
            watched.readTraffic()
            received[watched.carrier] += watched.received
            sent[watched.carrier] += watched.sent
        for counts, carrier, number in (
            (received, "udp", sum(each.receivedBytes for each in datagrams)),
            (received, "http", sum(each.receivedBytes for each in checkIns)),
            (sent, "udp", sum(each.sentBytes for each in datagrams)),
        ):
            # A process without that carrier shows nothing of it.
            if number:
                counts[carrier] += number
        words = "Bytes received, on connections with those of TLS."
        yield _counted("received_bytes", words, ["carrier"], received)
        words = "Bytes sent, on connections with those of TLS."
        yield _counted("sent_bytes", words, ["carrier"], sent)

    def _peers(self) -> Metric:
        counts: Counter[tuple[str, str]] = Counter()
        if self._presence is None:
            for each in self._watched.values():
                state = _STATES.get(str(each.watched.state), PeerState.UP)
                counts[state.value, each.carrier] += 1
        else:
            counts = self._presence.counts()
        # A state that no peer has is 0, not absent: an alert could otherwise not see it go.
        for carrier in sorted({carrier for _, carrier in counts}):
            for state in PeerState:
                counts.setdefault((state.value, carrier), 0)
        words = "Peers by state, under each carrier that hears them."
        family = GaugeMetricFamily(f"{PREFIX}peers", words, labels=["state", "carrier"])
        for labels, number in sorted(counts.items()):
            family.add_metric(labels, number)
        return family

    def _observeRoundTrip(self, watched: _Watched) -> None:
        rtt = watched.watched.rtt
        if rtt is not None and rtt != watched.rtt:
            watched.rtt = rtt
            histogram = self._roundTrips.get(watched.carrier)
            if histogram is None:
                histogram = self._roundTrips[watched.carrier] = _Histogram(ROUND_TRIP_BUCKETS)
            histogram.observe(rtt)

    def _roundTripFamily(self) -> Metric:
        words = "Round-trip times: of each peer the last one before a scrape."
        name = f"{PREFIX}round_trip_seconds"
        family = HistogramMetricFamily(name, words, labels=["carrier"])
        for carrier, histogram in sorted(self._roundTrips.items()):
            family.add_metric([carrier], histogram.buckets, histogram.sum)
        return family


def _className(cause: BaseException) -> str:
    return type(cause).__name__


def _total(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return total


def _counter(name: str, words: str, number: int) -> Metric:
    return CounterMetricFamily(PREFIX + name, words, value=number)


def _counted(name: str, words: str, labels: list[str], counts: Counter[Any]) -> Metric:
    family = CounterMetricFamily(PREFIX + name, words, labels=labels)
    for key, number in sorted(counts.items()):
        family.add_metric([key] if isinstance(key, str) else key, number)
    return family
