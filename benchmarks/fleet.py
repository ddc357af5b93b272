# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
A fleet whose broker dies and comes back, in virtual time, under one policy of waiting or another.

All clients see the loss in the same instant.  While the broker is down each attempt is refused;
when it is back it accepts a limited number in each second, and refuses the others.

The policies of this package and of Twisted are the real ones: what decides here is
L{Reconnector} with L{Backoff}, C{ReconnectingClientFactory.retry} and C{backoffPolicy}.  gRPC's and
Amazon's are written from their documents.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from math import ceil
from typing import Any, Protocol

from twisted.application.internet import backoffPolicy
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.protocol import ReconnectingClientFactory

from twisted_heartbeat.core.backoff import Backoff
from twisted_heartbeat.core.causes import Cause, PeerReset
from twisted_heartbeat.core.commands import ChooseDelay, Command, Wait
from twisted_heartbeat.core.diagnosis import causeOfFailure
from twisted_heartbeat.core.reconnector import Reconnector


class Policy(Protocol):
    """
    How one client waits.
    """

    def lost(self, now: float) -> float:
        """The connection is lost: seconds until the first attempt."""

    def refused(self, now: float) -> float:
        """An attempt has failed: seconds until the next."""


class Ours:
    """
    What L{HeartbeatClientService<twisted_heartbeat.HeartbeatClientService>} does: its supervision,
    and its backoff.
    """

    def __init__(self, draw: random.Random, backoff: Backoff = Backoff()) -> None:
        self._draw = draw.random
        self._backoff = backoff
        self._reconnector = Reconnector(lambda failures, attempts, elapsed: False)
        self._reconnector.start()
        self._reconnector.connected()
        self._reconnector.prepared()

    def lost(self, now: float) -> float:
        """
        As the driver: the loss, and then that the cleanups have run.
        """
        self._reconnector.lost(PeerReset(), now, proven=True)
        return self._wait(self._reconnector.cleaned(now), now)

    def refused(self, now: float) -> float:
        """
        As the driver: the end of the wait, and then what the attempt came to.
        """
        self._reconnector.waited()
        return self._wait(self._reconnector.failed(refusal(), now), now)

    def _wait(self, commands: list[Command], now: float) -> float:
        [choose] = [command for command in commands if isinstance(command, ChooseDelay)]
        delay = self._backoff.delay(choose.attempt, choose.cause, self._draw)
        [wait] = self._reconnector.delayChosen(delay, now)
        assert isinstance(wait, Wait)
        return wait.retry.delay


def refusal() -> Cause:
    """
    The cause of an attempt that was refused.
    """
    return causeOfFailure(ConnectionRefusedError())


class TwistedFactory:
    """
    Twisted's C{ReconnectingClientFactory}, of which its user calls C{resetDelay} when connected.
    """

    def __init__(self, draw: random.Random) -> None:
        self._factory: Any = ReconnectingClientFactory()
        self._factory.noisy = False
        self._factory.clock = self
        self._delay = 0.0

    def callLater(self, delay: float, call: Callable[[], None]) -> None:
        """
        Keep what it asks its clock for.
        """
        self._delay = delay

    def lost(self, now: float) -> float:
        """
        Nothing but C{retry}.
        """
        self._factory.retry(object())
        # A normal variate may be negative; a real reactor would raise, at one in 10**17.
        return max(0.0, self._delay)

    refused = lost


class TwistedService:
    """
    Twisted's C{ClientService}: its default policy, and the count that it hands to it.
    """

    _policy = staticmethod(backoffPolicy(jitter=random.random))

    def __init__(self, draw: random.Random) -> None:
        self._failedAttempts = 0

    def lost(self, now: float) -> float:
        """
        The loss counts as the first failure.
        """
        self._failedAttempts += 1
        return self._policy(self._failedAttempts)

    refused = lost


class Grpc:
    """
    gRPC: at once after a loss, and then by the start of the attempt before.

    Source: C{doc/connection-backoff.md} of github.com/grpc/grpc.
    """

    initial, multiplier, jitter, maximum = 1.0, 1.6, 0.2, 120.0

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw
        self._backoff = self.initial

    def lost(self, now: float) -> float:
        """
        No wait before the first attempt.
        """
        return 0.0

    def refused(self, now: float) -> float:
        """
        The first wait is the initial one, exactly.
        """
        if self._backoff == self.initial:
            delay = self.initial
        else:
            delay = self._backoff * (1 + self._draw.uniform(-self.jitter, self.jitter))
        self._backoff = min(self._backoff * self.multiplier, self.maximum)
        return delay


class FullJitter:
    """
    M{uniform(0, min(cap, base * 2 ** attempt))}.

    Source: Marc Brooker, I{Exponential Backoff And Jitter}, AWS Architecture Blog, 2015.
    """

    base, cap = 1.0, 60.0

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw
        self._attempt = 0

    def lost(self, now: float) -> float:
        """
        The next draw.
        """
        ceiling = min(self.cap, self.base * 2**self._attempt)
        self._attempt += 1
        return self._draw.uniform(0.0, ceiling)

    refused = lost


class Decorrelated:
    """
    M{min(cap, uniform(base, 3 * the one before))}.  Source: as of L{FullJitter}.
    """

    base, cap = 1.0, 60.0

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw
        self._before = self.base

    def lost(self, now: float) -> float:
        """
        The next draw.
        """
        self._before = min(self.cap, self._draw.uniform(self.base, 3 * self._before))
        return self._before

    refused = lost


POLICIES: dict[str, Callable[[random.Random], Policy]] = {
    "twisted_heartbeat": Ours,
    "full jitter": FullJitter,
    "decorrelated jitter": Decorrelated,
    "gRPC": Grpc,
    "ClientService": TwistedService,
    "ReconnectingClientFactory": TwistedFactory,
}


@dataclass(frozen=True, kw_only=True)
class Outage:
    """
    What befalls the fleet.

    @ivar down: seconds for which every attempt is refused.
    @ivar accepts: attempts that the broker then takes in each second.
    @ivar latency: seconds until an attempt has its answer.
    @ivar patience: seconds after the return; clients that are not back by then are given up.
    """

    clients: int = 10_000
    down: float = 120.0
    accepts: int = 500
    latency: float = 0.02
    patience: float = 7200.0


@dataclass
class Storm:
    """
    What came of it.

    @ivar attempts: how many fell into each second since the loss.
    @ivar returns: how many fell into each second since the broker's return.
    @ivar recovered: seconds from the broker's return until each client was connected again.
    """

    outage: Outage
    attempts: Counter[int] = field(default_factory=Counter)
    returns: Counter[int] = field(default_factory=Counter)
    recovered: list[float] = field(default_factory=list)

    @property
    def busiest(self) -> float:
        """
        The most attempts in one second, of all clients.
        """
        return max(self.attempts.values()) / self.outage.clients

    @property
    def first(self) -> float:
        """
        The attempts in the first second after the loss, of all clients.
        """
        return self.attempts[0] / self.outage.clients

    @property
    def busiestAfterReturn(self) -> float:
        """
        The most attempts in one second since the broker is back, of all clients.
        """
        return max(self.returns.values(), default=0) / self.outage.clients

    @property
    def each(self) -> float:
        """
        Attempts for each client.
        """
        return self.attempts.total() / self.outage.clients

    def recovery(self, fraction: float) -> float:
        """
        Seconds from the broker's return until so much of the fleet was back; infinity if never.
        """
        return percentile(self.recovered, fraction, of=self.outage.clients)


def percentile(values: list[float], fraction: float, *, of: int | None = None) -> float:
    """
    The smallest value that this share of the values does not exceed: the nearest rank.

    @param fraction: above 0 and at most 1.
    @param of: how many values there should be; missing ones count as infinite.
    """
    rank = ceil(fraction * (len(values) if of is None else of))
    return sorted(values)[rank - 1] if rank <= len(values) else float("inf")


def run(outage: Outage, policy: Callable[[random.Random], Policy], seed: int) -> Storm:
    """
    One outage.

    @param seed: the same gives the same storm.  Twisted's policies draw from the C{random} module.
    """
    random.seed(seed)
    draw = random.Random(seed)
    fleet = [policy(draw) for _ in range(outage.clients)]
    pending = [(client.lost(0.0), number) for number, client in enumerate(fleet)]
    heapify(pending)
    storm = Storm(outage)
    taken: Counter[int] = Counter()
    while pending and pending[0][0] < outage.down + outage.patience:
        began, number = heappop(pending)
        storm.attempts[int(began)] += 1
        second = int(began - outage.down)
        if began >= outage.down:
            storm.returns[second] += 1
        now = began + outage.latency
        if began >= outage.down and taken[second] < outage.accepts:
            taken[second] += 1
            storm.recovered.append(now - outage.down)
        else:
            heappush(pending, (now + fleet[number].refused(now), number))
    return storm
