# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Driver}: executes the commands of a reconnector.

The driver executes them one after the other, after the transition that gave them.  What user code
calls while a command is executed only adds to the queue.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from math import isfinite
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IDelayedCall

from ..core import commands
from ..core.backoff import Backoff, requestedDelay
from ..core.causes import GoodbyeCode, PeerClosed
from ..core.diagnosis import causeOfFailure
from ..core.reconnector import Reconnector, State
from ..logs import SafeLogger, guarded
from ..timing.deadline import cancelCalls
from ..timing.wheel import reactorStopped
from .preparation import Preparation

if TYPE_CHECKING:
    from ..core.causes import Cause
    from ..core.commands import Command, Retry
    from ..core.reconnector import GiveUpTest
    from ..link.config import LinkConfig
    from ..link.link import Link
    from .preparation import PrepareConnection

_log = SafeLogger()


_MAX_DOUBLINGS = 3
"""How many times a peer can make this side double the interval.  The bound grows with it."""

_OVERSLEPT = 0.25
"""Seconds by which a wait may end late without a new draw."""


class Driver:
    """
    Executes the commands of a reconnector, for one link at a time.

    @ivar config: what the links have in common.  Its heartbeat changes when a peer is pinged too
        often.
    @ivar reconnector: decides, and gives the commands.
    @ivar link: the link that is up, or being prepared or closed.
    @ivar prepareConnection: is called with each new link's protocol; L{None} if there is nothing to
        prepare.
    """

    prepareConnection: PrepareConnection | None = None
    _preparation: Preparation | None = None

    def __init__(self, config: LinkConfig, exhausted: GiveUpTest) -> None:
        self.config = config
        self.reconnector = Reconnector(exhausted)
        self.link: Link | None = None
        self._timesDoubled = 0
        self._queue: deque[Command] = deque()
        self._busy = False
        self._wait: IDelayedCall | None = None
        self._handlers: dict[type, Callable[[Any], None]] = {
            commands.Attempt: self._attempt,
            commands.CancelAttempt: lambda command: self.cancelAttempt(),
            commands.Prepare: lambda command: self.prepare(),
            commands.CancelPrepare: lambda command: self.cancelPrepare(),
            commands.Announce: lambda command: self.announce(),
            commands.Abort: lambda command: self._abort(command.cause),
            commands.Close: lambda command: self._close(),
            commands.CleanUp: self._cleanUp,
            commands.ReportFailure: lambda command: self.reportFailure(command.cause),
            commands.ChooseDelay: self._chooseDelay,
            commands.Wait: self._startWait,
            commands.CancelWait: lambda command: self._cancelWait(),
            commands.GiveUp: lambda command: self._giveUp(command.cause),
            commands.Stopped: lambda command: self.stopped(),
        }

    def execute(self, issued: Iterable[Command]) -> None:
        """
        Execute commands, after the commands that are under way.
        """
        self._queue.extend(issued)
        if self._busy:
            return
        self._busy = True
        try:
            while self._queue:
                command = self._queue.popleft()
                handle, kind = self._handlers[type(command)], type(command).__name__
                guarded(_log, "The command {command} failed", handle, command, command=kind)
        finally:
            self._busy = False

    def retryNow(self) -> None:
        """
        Cut the wait for the next attempt short.
        """
        if self.reconnector.state is State.WAITING:
            self._cancelWait()
            self._waited()

    # What the drivers differ in.

    def attempt(self, number: int) -> None:
        """
        Begin an attempt.  What this raises is the attempt's failure.

        @param number: 1 for the first since the last link was proven.
        """
        raise NotImplementedError

    def cancelAttempt(self) -> None:
        """
        Cancel the attempt, and report its failure to the reconnector when nothing is left of it.
        """
        raise NotImplementedError

    def delay(self, attempt: int, cause: Cause) -> float:
        """
        Return the seconds to wait before the next attempt.

        @param attempt: failures in a row.
        @param cause: why the last of them happened.
        """
        raise NotImplementedError

    def prepare(self) -> None:
        """
        Prepare the new link, and report the result to the reconnector.
        """
        if self.prepareConnection is None or self.link is None:
            self.execute(self.reconnector.prepared())
            return
        self._preparation = Preparation(
            self.config,
            lambda: self.execute(self.reconnector.prepared()),
            lambda cause: self.execute(self.reconnector.rejected(cause)),
        )
        self._preparation.begin(self.prepareConnection, self.link.outermost)

    def cancelPrepare(self) -> None:
        """
        Cancel the preparation of the link.
        """
        if self._preparation is not None:
            self._preparation.cancel()

    def announce(self) -> None:
        """
        Announce the link as connected.
        """
        if self.link is not None:
            self.link.announceConnected()

    def reportFailure(self, cause: Cause) -> None:
        """
        Report a failed attempt to the callers that wait for a connection.
        """

    def gaveUp(self, cause: Cause) -> None:
        """
        Release what waited for a connection, because no further attempt follows.
        """

    def stopped(self) -> None:
        """
        Report that no attempt, link or wait is left.
        """

    # What they share.

    def _pingLess(self) -> None:
        """
        Double the interval for the links that follow.
        """
        heartbeat = self.config.heartbeat
        if heartbeat is None or heartbeat.interval is None:
            return
        if self._timesDoubled < _MAX_DOUBLINGS:
            self._timesDoubled += 1
            heartbeat = heartbeat.withDoubledInterval
            self.config = replace(self.config, heartbeat=heartbeat)
            words = "{link}: the peer is pinged too often: from here on the interval is"
        else:
            words = "{link}: the peer is pinged too often, but the interval stays at"
        _log.warn(
            words + " {interval:g} s, and the bound {bound:g} s",
            link=self.config.name,
            interval=heartbeat.interval,
            bound=heartbeat.bound,
        )

    def _attempt(self, command: commands.Attempt) -> None:
        words = "Attempt {attempt} could not begin"
        error = guarded(_log, words, self.attempt, command.number, attempt=command.number)
        if error is not None:
            # A connector calls the user's factory before it connects.
            self.execute(self.reconnector.failed(causeOfFailure(error), self.config.seconds()))
        self.config.events.emit("connecting", command.number)

    def _abort(self, cause: Cause) -> None:
        if self.link is not None:
            self.link.abort(cause)

    def _close(self) -> None:
        if self.link is not None:
            self.link.close()

    def _cleanUp(self, command: commands.CleanUp) -> None:
        link, self.link = self.link, None
        if link is None:
            self._cleaned()
        else:
            teardown = link.teardown
            cause = teardown.cause
            if isinstance(cause, PeerClosed) and cause.goodbyeCode is GoodbyeCode.TOO_MANY_PINGS:
                self._pingLess()
            teardown.cleanUp()
            link.whenGone().addCallback(lambda _: self._cleaned())

    def _cleaned(self) -> None:
        self.execute(self.reconnector.cleaned(self.config.seconds()))

    def _chooseDelay(self, command: commands.ChooseDelay) -> None:
        delay = self._draw(command.attempt, command.cause)
        self.execute(self.reconnector.delayChosen(delay, self.config.seconds()))

    def _draw(self, attempt: int, cause: Cause) -> float:
        try:
            delay = float(self.delay(attempt, cause))
            if not (isfinite(delay) and delay >= 0):
                raise ValueError(f"the retry policy returned {delay!r} seconds")
        except BaseException:
            words = "The retry policy failed; the default is used for attempt {attempt}"
            _log.failure(words, attempt=attempt)
            delay = Backoff().delay(attempt, cause)
        return delay

    def _startWait(self, command: commands.Wait) -> None:
        if reactorStopped(self.config.clock):
            # No attempt follows, so none is announced.
            return
        retry = command.retry
        self._wait = self.config.clock.callLater(retry.delay, self._wakened, retry)
        self.config.events.emit("retrying", retry)

    def _wakened(self, retry: Retry) -> None:
        """
        End the wait, unless this process overslept it.  Its other clients then overslept theirs,
        and all would try in one instant, so the delay is drawn anew, once.
        """
        late = getattr(self.config.clock, "lateness", 0.0) > _OVERSLEPT
        if late and retry.cause.fleetWide and not requestedDelay(retry.cause):
            again = self._draw(retry.attempt, retry.cause)
            self._wait = self.config.clock.callLater(again, self._waited)
        else:
            self._waited()

    def _waited(self) -> None:
        self._wait = None
        self.execute(self.reconnector.waited())

    def _cancelWait(self) -> None:
        cancelCalls(self._wait)
        self._wait = None

    def _giveUp(self, cause: Cause) -> None:
        self.gaveUp(cause)
        self.config.events.emit("gaveUp", cause)
