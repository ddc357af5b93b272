# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Play}: what one scenario can do and check; L{Findings}: what all of them have found.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from math import inf
from typing import Any

from ..core import wire
from .connection import Connection
from .observer import PONG, Observed
from .rules import PONG_TOKEN, RULES, Rule
from .waits import SPREAD, STABLE, Ending

CLIENT, SERVER = "client", "server"
"""What the peer is: the end that connects, or the end that listens."""

_FLOODING = 0.4
"""Seconds for which the tester sends on after a GOODBYE, at most."""

LATE = 0.1
"""Seconds by which the tester itself may be late without doubt about a broken rule."""

RECENT = 0.5
"""Seconds before something that the tester notices: lateness within them may have delayed that."""

_CLOSING_MARGIN = 1.25
"""A peer may look at the progress of its close a few times only, and notice it that much later."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """
    What a run may take for granted.

    @ivar role: what the peer is, C{"client"} or C{"server"}.
    @ivar bound: seconds, the bound that the tester states of itself.
    @ivar tolerance: seconds by which anything may come late.
    @ivar scale: seconds that the peer takes for one in its own waits.  A device that is built for
        tests may be quicker than it is in use.
    @ivar closing: seconds that the peer waits at most after its own GOODBYE.
    @ivar maxMessage: bytes, the peer's limit for DATA.
    @ivar message: the DATA that the tester sends.
    @ivar limit: seconds for the whole run.
    @ivar parallel: scenarios at a time, against a server.
    """

    role: str
    bound: float = 2.0
    tolerance: float = 0.5
    scale: float = 1.0
    closing: float = 5.0
    maxMessage: int = wire.MAX_MESSAGE
    message: bytes = b"21.5"
    limit: float = 1800.0
    parallel: int = 8


@dataclass(frozen=True, slots=True)
class Finding:
    """
    One check of one rule.

    @ivar holds: whether the rule was kept.
    @ivar scenario: what was played.
    @ivar expected: what the rule asks for.
    @ivar came: what the peer did instead, or what it did.
    @ivar at: when, in seconds since the connection was established; L{None} if no time matters.
    """

    rule: Rule
    holds: bool
    scenario: str
    expected: str
    came: str
    at: float | None


@dataclass
class Findings:
    """
    @ivar checks: all checks, in their order.
    @ivar skipped: rules that could not be checked, and why.
    @ivar unplayed: scenarios for which there was no time or no connection.
    @ivar doubtful: scenarios that found a broken rule while the tester itself was late, each time
        that they were played.
    """

    checks: list[Finding] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    unplayed: list[str] = field(default_factory=list)
    doubtful: list[str] = field(default_factory=list)

    def broken(self, *levels: str) -> list[str]:
        """
        Return the ids of the rules of these levels that were broken, in the rules' order.
        """
        found = {check.rule.id for check in self.checks if not check.holds}
        return [id for id, rule in RULES.items() if id in found and rule.level in levels]


class Over(Exception):
    """
    The rest of a scenario has no meaning, because the peer has done something else.
    """


class Lateness:
    """
    By how much the tester itself is late: what it measures is that much less certain.
    """

    _EVERY = 0.05

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._due = 0.0
        self._call: Any = None
        self._late: list[tuple[float, float]] = []

    def start(self) -> None:
        """
        Measure from now on.
        """
        self._due = time.monotonic() + self._EVERY
        self._call = self._reactor.callLater(self._EVERY, self._look)

    def stop(self) -> None:
        """
        Measure no longer.
        """
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def since(self, when: float) -> float:
        """
        Return the seconds by which the tester was late since then, in all.  A look that is due and
        late counts: after a stall, whoever asks may be called before it.
        """
        return sum(late for at, late in self._late if at >= when) + self._lateBy(time.monotonic())

    def _lateBy(self, now: float) -> float:
        late = now - self._due
        return late if self._call is not None and late > self._EVERY / 5 else 0.0

    def _look(self) -> None:
        now = time.monotonic()
        late = self._lateBy(now)
        if late:
            self._late.append((now, late))
        self.start()


class Play:
    """
    One scenario that is being played.

    @ivar began: when, in seconds.
    @ivar checks: what was checked.
    @ivar connections: those of this scenario, in their order.
    @ivar scenario: its name.
    @ivar settings: of the run.
    """

    _tokens = count(0x5EED0001, 7)

    def __init__(
        self,
        scenario: str,
        settings: Settings,
        findings: Findings,
        lateness: Lateness,
        connect: Callable[[Play], Awaitable[Connection]],
        again: Callable[[Connection], Awaitable[Connection]],
    ) -> None:
        """
        @param connect: opens or awaits a connection for this scenario.
        @param again: awaits the next connection of the same client.
        """
        self._findings = findings
        self._lateness = lateness
        self._connect = connect
        self._again = again
        self.began = time.monotonic()
        self.checks: list[Finding] = []
        self.connections: list[Connection] = []
        self.scenario = scenario
        self.settings = settings

    # Checks.

    def check(
        self, rule: Rule, holds: object, expected: str, came: str, at: float | None = None
    ) -> bool:
        """
        Note whether a rule was kept.

        @param at: when, in seconds of C{time.monotonic}.
        """
        began = self.connections[-1].began if self.connections else 0.0
        when = None if at is None else at - began
        finding = Finding(rule, bool(holds), self.scenario, expected, came, when)
        self.checks.append(finding)
        return finding.holds

    def checkNone(self, rule: Rule, expected: str, frames: Sequence[Observed]) -> None:
        """
        Check that no such frames came.
        """
        words = ", ".join(map(str, frames)) or "nothing"
        self.check(rule, not frames, expected, words, frames[0].at if frames else None)

    def fault(self, rule: Rule, expected: str, came: str, at: float) -> None:
        """
        Note a rule that the peer's bytes break.
        """
        self.check(rule, False, expected, came, at)

    def skip(self, reason: str, *rules: Rule) -> None:
        """
        Note that rules do not concern this peer.
        """
        for rule in rules:
            self._findings.skipped[rule.id] = reason

    @property
    def doubt(self) -> float:
        """
        Seconds by which the tester itself was late, if a rule seems broken and that may have been
        the cause; otherwise 0.
        """
        isBroken = any(not check.holds for check in self.checks)
        # A client has connected before that is noticed, and the scenario begins after its hello.
        began = min([self.began, *(each.began for each in self.connections)])
        late = self._lateness.since(began - RECENT) if isBroken else 0.0
        return late if late > LATE else 0.0

    def slack(self, since: float) -> float:
        """
        Return the seconds by which something that began then may be late.
        """
        return self.settings.tolerance + self._lateness.since(since)

    async def awaits(
        self,
        connection: Connection,
        holds: Callable[[], object],
        seconds: float = 0.0,
        longest: float = inf,
    ) -> bool:
        """
        Wait for what has to come within C{seconds}, and for the tolerance beside; longer by as much
        as the tester is late meanwhile.

        @param longest: seconds after which the wait is over in any case.
        @return: whether it holds.
        """
        began = time.monotonic()
        while True:
            limit = min(seconds + self.slack(began), longest)
            left = began + limit - time.monotonic()
            if left <= 0:
                break
            if await connection.until(holds, left):
                return True
        return bool(holds())

    async def ends(
        self, connection: Connection, seconds: float = 0.0, longest: float = inf
    ) -> bool:
        """
        Wait for the end of a connection, as L{awaits}.
        """
        return await self.awaits(connection, lambda: connection.isOver, seconds, longest)

    # Connections.

    @property
    def isClient(self) -> bool:
        """
        Whether the peer is the end that connects.
        """
        return self.settings.role == CLIENT

    async def open(self, *, greeted: bool = True, name: str = "", **hello: float) -> Connection:
        """
        Return a new connection, on which the peer has said hello.

        @param greeted: whether the tester says hello, too, and has seen a PING answered.
        """
        connection = await self._connect(self)
        if greeted:
            connection.greet(name=name, **hello)
            await self.expectHello(connection)
            await self.answered(connection)
        return connection

    async def again(self, connection: Connection) -> Connection:
        """
        Return the next connection of the same client.
        """
        return await self._again(connection)

    async def expectHello(self, connection: Connection) -> None:
        """
        Wait for the peer's HELLO.

        @raise Over: if it does not come.
        """
        if not await self.awaits(
            connection, lambda: connection.stream.hello or connection.isOver, self._patience
        ):
            raise Over

    @property
    def closing(self) -> float:
        """
        Seconds after which the peer has closed, by a GOODBYE of either end.
        """
        return self.settings.closing * _CLOSING_MARGIN

    @property
    def flooding(self) -> float:
        """
        Seconds for which the tester sends on after a GOODBYE.
        """
        return min(_FLOODING, self.settings.closing / 2)

    @property
    def _patience(self) -> float:
        return 3 * self.settings.tolerance + 0.5

    async def ponged(self, connection: Connection, more: float = 0.0) -> bool:
        """
        Send a PING, and return whether its PONG comes.

        @param more: seconds that its way takes beside.
        """
        token = next(self._tokens)
        connection.write(wire.encodePing(token))
        await self.awaits(
            connection, lambda: connection.pongs(token) or connection.isOver, self._patience + more
        )
        return bool(connection.pongs(token))

    async def answered(self, connection: Connection) -> None:
        """
        See that the peer answers pings, before something else is tried.

        @raise Over: if it does not.
        """
        before = len(connection.frames)
        if await self.ponged(connection):
            self.check(PONG_TOKEN, True, "a PONG with the token of the PING", "it came")
            return
        since = connection.frames[before:]
        others = [str(frame) for frame in since if frame.kind == PONG]
        came = ", ".join(others) or self.stateOf(connection)
        self.check(PONG_TOKEN, False, "a PONG with the token of the PING", came, time.monotonic())
        raise Over

    async def stillAnswers(
        self, rule: Rule, connection: Connection, what: str, more: float = 0.0
    ) -> bool:
        """
        Check by a PING that the peer has taken something as the rule asks.

        @param more: seconds that the way of the PING takes beside.
        """
        holds = await self.ponged(connection, more)
        came = "it is" if holds else self.stateOf(connection)
        return self.check(rule, holds, f"the PING after {what} is answered", came, time.monotonic())

    async def settle(self, connection: Connection) -> None:
        """
        Keep a client's connection up until it is proven.
        """
        if self.isClient:
            proven = connection.began + STABLE * self.settings.scale + self.settings.tolerance
            await connection.until(lambda: connection.isOver, proven - time.monotonic())

    def isStable(self, connection: Connection, until: float) -> bool | None:
        """
        Whether a client's connection has lasted longer than C{STABLE}, so that no goodbye revokes
        its proof; L{None} if it is too close to tell.

        @param until: when the goodbye or the violation was sent.
        """
        beyond = until - connection.began - STABLE * self.settings.scale
        return None if abs(beyond) < self.settings.tolerance * 0.9 else beyond > 0

    def stateOf(self, connection: Connection) -> str:
        """
        Describe what the peer has done of late, for a report.
        """
        if connection.wasReset:
            return "a reset"
        if connection.stream.goodbye is not None:
            return str(connection.stream.goodbye)
        if connection.isOver:
            return "FIN"
        return f"nothing; last came {connection.frames[-1]}" if connection.frames else "nothing"

    def closedHere(self, connection: Connection, since: float) -> None:
        """
        Note that a client has lost its connection by FIN or a reset of the tester's.
        """
        connection.ending = Ending(
            pace=SPREAD,
            earliest=since,
            latest=connection.overAt or time.monotonic(),
            proven=connection.greeted,
        )
