# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{examineServer} and L{ClientRun}: give the scenarios to connections, within a total time.

A server gets all scenarios side by side, each on connections of its own.  Those in which the tester
was late are played again when the others are over, because it has less to do then.

A client comes by itself.  Its first connection gets the first scenario, and so on: a scenario ends
its connection, and the client's next one shows how long it has waited, which is checked against the
table (L{waits}).  Several clients may connect at a time; they are told apart by their names, and
share the work.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredList,
    DeferredSemaphore,
    ensureDeferred,
    maybeDeferred,
)
from twisted.internet.error import ConnectError
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from .connection import Connection
from .play import LATE, RECENT, Findings, Lateness, Over, Play, Settings
from .rules import (
    COMES_BACK,
    DATA_ORDER,
    FRAME_KNOWN,
    GOODBYE_LAST,
    HELLO_ONCE,
    TEXT_UTF8,
    UNUSED_ZERO,
    WAIT_HINT,
    WAIT_SLOW,
    WAIT_SPREAD,
    WAIT_USUAL,
)
from .scenarios import Scenario
from .waits import LONGEST, SLOW, SPREAD, USUAL, Ending

_log = Logger()

_EARLY = 0.03
"""Seconds by which a wait may seem shorter than it was."""

_CLOSE_BY_HINT = 0.2
"""
The scale from which on a scenario that is through ends its connection by a GOODBYE with the
shortest hint.  At a smaller scale the wait after a reset is shorter.
"""

_FIRST_PATIENCE = 60.0
"""Seconds, at least, for the first client to come."""

_ENDING = 1.0
"""Seconds for a connection that the tester has reset to be gone."""

_MOST_DOUBTS = 4
"""Times that a scenario is played again, because the tester was late."""

_TIME_OVER = "the time was over"

_STREAM_RULES = (HELLO_ONCE, FRAME_KNOWN, UNUSED_ZERO, TEXT_UTF8, DATA_ORDER, GOODBYE_LAST)
"""The rules for every byte that the peer sends."""

_WAIT_RULES = {USUAL: WAIT_USUAL, SPREAD: WAIT_SPREAD, SLOW: WAIT_SLOW}

Played = Callable[[Scenario], object]


class _Run:
    """
    What the two kinds of run have in common.

    @ivar findings: what has been found so far.
    """

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        scenarios: Iterable[Scenario],
        played: Played = lambda _: None,
    ) -> None:
        """
        @param scenarios: those for the other kind of peer are left out.
        @param played: called with each scenario that is over.
        """
        self.reactor = reactor
        self.settings = settings
        self.scenarios = [each for each in scenarios if each.role in (None, settings.role)]
        self.findings = Findings()
        self.lateness = Lateness(reactor)
        self._played = played
        self._doubts: Counter[str] = Counter()

    async def play(self, scenario: Scenario, play: Play) -> bool:
        """
        Play a scenario to its end, and judge the bytes of its connections.

        @return: whether what was found counts.  If not, the scenario has to be played again.
        """
        try:
            await _untilOver(scenario, play)
        except CancelledError:
            self.leave(scenario, _TIME_OVER)
        except ConnectError as error:
            self.leave(scenario, str(error))
        except Exception as error:
            _log.failure("The tester has failed in {scenario}", scenario=scenario.name)
            self.leave(scenario, f"the tester has failed: {error!r}")
        else:
            late = play.doubt
            if late:
                self._doubts[scenario.name] += 1
                if self._doubts[scenario.name] <= _MOST_DOUBTS:
                    return False
                self.doubt(scenario.name, late)
        self._played(scenario)
        for connection in play.connections:
            for rule in _STREAM_RULES:
                if connection.frames:
                    play.check(rule, True, rule.sentence, f"{len(connection.frames)} frames")
        self.findings.checks += play.checks
        return True

    def leave(self, scenario: Scenario, reason: str) -> None:
        """
        Note why a scenario was not played.
        """
        self.findings.unplayed.append(f"{scenario.name}: {reason}")

    def doubt(self, what: str, late: float) -> None:
        """
        Note that a fault may be the tester's own.

        @param late: seconds by which the tester was late.
        """
        self.findings.doubtful.append(f"{what}: the tester itself was late by {late:.1f} s")

    async def end(self, connections: Iterable[Connection]) -> None:
        """
        Leave no connection.
        """
        for connection in connections:
            connection.reset()
            await connection.until(lambda each=connection: each.endedAt is not None, _ENDING)  # type: ignore[misc]


def _comingBack(client: str, scenario: str) -> str:
    return f"coming back after {scenario}, as {client!r}"


async def _untilOver(scenario: Scenario, play: Play) -> None:
    try:
        await scenario.play(play)
    except Over:
        pass


def _cancel(waits: Iterable[Deferred[Any]]) -> None:
    for each in waits:
        each.cancel()


async def examineServer(
    reactor: Any,
    endpoint: Any,
    settings: Settings,
    scenarios: Iterable[Scenario],
    played: Played = lambda _: None,
) -> Findings:
    """
    Play scenarios against a server.

    @param endpoint: leads to the server.
    @param played: called with each scenario that is over.
    @return: what was found.
    @raise Exception: what the endpoint fails with at the first attempt.
    """
    run = _Run(reactor, settings, scenarios, played)

    async def open() -> Connection:
        connection = Connection(reactor)
        factory = Factory.forProtocol(lambda: connection)
        factory.noisy = False
        await endpoint.connect(factory)
        return connection

    async def connect(play: Play) -> Connection:
        connection = await open()
        connection.reportTo(play.fault)
        play.connections.append(connection)
        return connection

    async def noNext(connection: Connection) -> Connection:
        raise Over

    async def one(scenario: Scenario) -> None:
        play = Play(scenario.name, settings, run.findings, run.lateness, connect, noNext)
        if not await run.play(scenario, play):
            again.append(scenario)
        await run.end(play.connections)

    async def inTurn(scenario: Scenario) -> None:
        try:
            await places.acquire()
        except CancelledError:
            return run.leave(scenario, _TIME_OVER)
        try:
            await one(scenario)
        finally:
            places.release()

    await run.end([await open()])
    places = DeferredSemaphore(settings.parallel)
    plays: list[Deferred[None]] = []
    waiting = run.scenarios
    run.lateness.start()
    timer = reactor.callLater(settings.limit, lambda: _cancel(plays))
    while waiting and timer.active():
        again: list[Scenario] = []
        plays = [ensureDeferred(inTurn(scenario)) for scenario in waiting]
        await DeferredList(plays, consumeErrors=True)
        waiting = again
    for scenario in waiting:
        run.leave(scenario, _TIME_OVER)
    if timer.active():
        timer.cancel()
    run.lateness.stop()
    return run.findings


class ClientRun(_Run, Factory):
    """
    The factory of the port at which clients arrive.
    """

    noisy = False

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        scenarios: Iterable[Scenario],
        played: Played = lambda _: None,
    ) -> None:
        super().__init__(reactor, settings, scenarios, played)
        self._queue = deque(self.scenarios)
        self._done: Deferred[None] = Deferred()
        self._idle: Any = None
        self._active: set[Deferred[None]] = set()
        self._connections: set[Connection] = set()
        self._awaited: dict[str, Deferred[Connection]] = {}
        self._endings: dict[str, tuple[Ending, str]] = {}
        self._twins: set[str] = set()
        self._failures: dict[str, int | None] = {}

    async def run(self, endpoint: Any, listening: Callable[[Any], object]) -> Findings:
        """
        Listen, and play all scenarios.

        @param endpoint: where to listen.
        @param listening: called with the port once it listens.
        @return: what was found.
        """
        port = await endpoint.listen(self)
        listening(port)
        self.lateness.start()
        self._awaitClients(max(_FIRST_PATIENCE, self._patience))
        timer = self.reactor.callLater(self.settings.limit, self._finishRun)
        await self._done
        for call in (timer, self._idle):
            if call is not None and call.active():
                call.cancel()
        self.lateness.stop()
        await maybeDeferred(port.stopListening)
        _cancel([*self._active, *self._awaited.values()])
        await self.end(tuple(self._connections))
        for scenario in self._queue:
            self.leave(scenario, "no client came for it")
        for name in sorted(self._twins):
            words = f"the waits of {name!r}: two clients have this name; give each its own"
            self.findings.unplayed.append(words)
        return self.findings

    def buildProtocol(self, addr: Any) -> Connection:
        connection = Connection(self.reactor, made=self._arrived)
        self._connections.add(connection)
        return connection

    # Its end.

    @property
    def _patience(self) -> float:
        """
        Seconds after which a client that is awaited does not come any more.
        """
        return LONGEST * self.settings.scale + 4 * self.settings.tolerance + 2.0

    def _awaitClients(self, seconds: float) -> None:
        if self._idle is not None and self._idle.active():
            self._idle.cancel()
        self._idle = self.reactor.callLater(seconds, self._stop)

    def _stop(self) -> None:
        """
        Stop, because no client has come for long, unless a scenario is still being played.
        """
        if self._active:
            self._awaitClients(self._patience)
            return
        for client, (_, scenario) in self._endings.items():
            waited = f"none within {self._patience:.0f} s"
            play = self._newPlay(_comingBack(client, scenario), None)
            play.check(COMES_BACK, False, "another connection", waited)
            self.findings.checks += play.checks
        self._finishRun()

    def _stopIfDone(self) -> None:
        if not (self._queue or self._active or self._endings):
            self._finishRun()

    def _finishRun(self) -> None:
        if not self._done.called:
            self._done.callback(None)

    # Connections.

    def _arrived(self, connection: Connection) -> None:
        self._awaitClients(self._patience)
        arrival = ensureDeferred(self._receive(connection))
        self._active.add(arrival)

        def over(result: Any) -> Any:
            self._active.discard(arrival)
            self._stopIfDone()
            return result

        arrival.addBoth(over).addErrback(lambda failure: failure.trap(CancelledError))

    async def _receive(self, connection: Connection) -> None:
        patience = 4 * self.settings.tolerance + 0.5
        await connection.until(lambda: connection.stream.hello or connection.isOver, patience)
        client = connection.name
        self._lookForTwin(connection)
        self._judgeWait(client, connection)
        awaited = self._awaited.pop(client, None)
        if awaited is not None:
            awaited.callback(connection)
        elif self._queue:
            scenario = self._queue.popleft()
            play = self._newPlay(scenario.name, connection)
            if not await self.play(scenario, play):
                self._queue.append(scenario)
            await self._finish(play.connections[-1] if play.connections else connection)
        else:
            # The client counts this end, too.
            self._failures[client] = None
            await self._discard(connection)

    def _newPlay(self, name: str, connection: Connection | None) -> Play:
        async def connect(play: Play) -> Connection:
            if connection is None or connection in play.connections:
                raise Over
            return self._join(play, connection)

        async def again(before: Connection) -> Connection:
            self._note(before)
            awaited: Deferred[Connection] = Deferred()
            self._awaited[before.name] = awaited
            return self._join(play, await awaited)

        play = Play(name, self.settings, self.findings, self.lateness, connect, again)
        return play

    def _join(self, play: Play, connection: Connection) -> Connection:
        play.connections.append(connection)
        connection.scenario = play.scenario
        connection.reportTo(play.fault)
        return connection

    async def _finish(self, connection: Connection) -> None:
        """
        End the connection of a scenario, if the scenario has not.
        """
        if connection.ending is None and not connection.isOver:
            since = time.monotonic()
            hint = 1.0 if self.settings.scale >= _CLOSE_BY_HINT else 0.0
            if hint:
                connection.sayGoodbye(0, hint)
                await connection.until(lambda: connection.isOver, 4 * self.settings.tolerance)
                connection.close()
            else:
                connection.reset()
            await connection.until(lambda: connection.isOver, self.settings.closing)
            connection.ending = Ending(
                pace=SPREAD,
                earliest=since,
                latest=time.monotonic(),
                # With the hint its wait does not depend on the count.
                proven=None if hint else connection.greeted,
                retryAfter=hint,
            )
        self._note(connection)
        await self._discard(connection)

    async def _discard(self, connection: Connection) -> None:
        await self.end([connection])
        self._connections.discard(connection)

    # Waits.

    def _note(self, connection: Connection) -> None:
        """
        Note how a connection has ended, for the wait that follows.
        """
        client, ending = connection.name, connection.ending
        failures = self._failures.get(client)
        if ending is None:
            self._failures[client] = None
        else:
            more = None if failures is None or ending.proven is None else failures + 1
            self._failures[client] = 1 if ending.proven else more
            self._endings[client] = ending, connection.scenario

    def _lookForTwin(self, connection: Connection) -> None:
        """
        Find out whether two clients have the same name.  Then it can not be told which of them has
        waited.
        """
        for other in self._connections - {connection}:
            isUp = other.stream.hello is not None and not other.isOver
            if connection.stream.hello and isUp and other.name == connection.name:
                self._twins.add(connection.name)

    def _judgeWait(self, client: str, connection: Connection) -> None:
        ending, scenario = self._endings.pop(client, (None, ""))
        if ending is None or client in self._twins:
            return
        play = self._newPlay(_comingBack(client, scenario), None)
        failures = self._failures.get(client)
        least, most = ending.wait(failures, self.settings.scale)
        shortest, longest = connection.began - ending.latest, connection.began - ending.earliest
        late = play.slack(ending.earliest)
        # A tester that was late may have seen the end only after the new connection.
        ownDelay = self.lateness.since(ending.earliest - RECENT)
        early = _EARLY + ownDelay
        holds = longest >= least - early and shortest <= most + late
        if not holds and ownDelay > LATE:
            # A client on the same machine may have been late as well, and has waited twice then.
            self.doubt(play.scenario, ownDelay)
        byHint = ending.hasHint and ending.pace != SLOW
        count = "some failures" if failures is None else f"{failures} in a row"
        play.check(COMES_BACK, True, "another connection", "it came")
        play.check(
            WAIT_HINT if byHint else _WAIT_RULES[ending.pace],
            holds,
            f"{least:.2f} to {most:.2f} s ({ending.pace}, {count}), {late:.2f} s later at most",
            f"{max(0.0, shortest):.2f} s",
        )
        self.findings.checks += play.checks
