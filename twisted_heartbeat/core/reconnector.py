# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Connect, prepare, clean up, wait, stop: one machine that decides, for every driver.

L{Reconnector} takes facts (an attempt failed, the link was lost, the user wants to stop) and
returns orders (make an attempt, wait so long, say that all has stopped).  It carries nothing out
and calls nobody: the driver carries the orders out, after the transition is complete.  So no
exception, and no input that comes from inside of an order, can leave it between two states.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from automat import NoTransition, TypeMachineBuilder, pep614

from .causes import Cause, ClosedHere, RetryPace
from .commands import (
    Abort,
    Announce,
    Attempt,
    CancelAttempt,
    CancelPrepare,
    CancelWait,
    ChooseDelay,
    CleanUp,
    Close,
    GiveUp,
    Prepare,
    ReportFailure,
    Retry,
    Stopped,
    Wait,
)

if TYPE_CHECKING:
    from .commands import Command


class State(StrEnum):
    """
    Where a supervision stands.
    """

    STOPPED = "stopped"
    CONNECTING = "connecting"
    PREPARING = "preparing"
    CONNECTED = "connected"
    REJECTING = "rejecting"
    """The link could not be prepared, and is being aborted."""
    CLEANING = "cleaning"
    DECIDING = "deciding"
    """Again, and when?"""
    WAITING = "waiting"
    GAVE_UP = "gaveUp"
    CANCELLING = "cancelling"
    """Stopping: the attempt is being given up."""
    CLOSING = "closing"
    """Stopping: the link is being closed."""
    ENDING = "ending"
    """Stopping: the cleanups run."""


class _Machine(Protocol):
    """
    The inputs of the machine.  What they come to is in L{_History.commands}.
    """

    def start(self) -> None:
        """The user wants a link."""

    def stop(self) -> None:
        """The user wants none."""

    def connected(self) -> None:
        """The attempt has led to a link."""

    def failed(self) -> None:
        """The attempt has come to nothing."""

    def retry(self) -> None:
        """The user wants a link, after a wait."""

    def prepared(self) -> None:
        """The link is ready for use."""

    def rejected(self, cause: Cause) -> None:
        """The link can not be used."""

    def lost(self, cause: Cause) -> None:
        """The link has ended."""

    def cleaned(self) -> None:
        """The cleanups of the link have run."""

    def waited(self) -> None:
        """The wait is over, or was cut short."""

    def renew(self) -> None:
        """The user wants another attempt in place of the present one."""

    def renewed(self) -> None:
        """The present one is over."""

    def delayChosen(self, retry: Retry) -> None:
        """How long to wait is known."""

    def giveUp(self, cause: Cause) -> None:
        """No further attempt is worth while."""

    def state(self) -> State:
        """Where the machine stands."""


@dataclass
class _History:
    """
    What outlives a transition.

    @ivar commands: what the transitions of this call have come to.
    @ivar failures: failures in a row, the loss of a proven link being the first of them.
    @ivar attempts: those of them that were attempts.
    @ivar firstFailure: when the first of them failed, in seconds.
    @ivar cause: why the last one failed.
    @ivar beforeReset: failures and attempts, as they were before they were last forgotten.
    @ivar used: whether the last link got as far as being used.
    @ivar deciding: whether it has just begun to decide.
    @ivar restart: whether to start again once stopped.
    @ivar renewing: whether the next attempt is to follow the present one without a wait.
    """

    commands: list[Command] = field(default_factory=list)
    failures: int = 0
    attempts: int = 0
    firstFailure: float = 0.0
    cause: Cause = field(default_factory=Cause)
    beforeReset: tuple[int, int] = (0, 0)
    used: bool = False
    deciding: bool = False
    restart: bool = False
    renewing: bool = False

    def issue(self, *commands: Command) -> None:
        self.commands.extend(commands)


def _makeMachine() -> Callable[[_History], _Machine]:
    builder = TypeMachineBuilder(_Machine, _History)

    # States:
    stopped = builder.state(State.STOPPED.value)
    connecting = builder.state(State.CONNECTING.value)
    preparing = builder.state(State.PREPARING.value)
    connected = builder.state(State.CONNECTED.value)
    rejecting = builder.state(State.REJECTING.value)
    cleaning = builder.state(State.CLEANING.value)
    deciding = builder.state(State.DECIDING.value)
    waiting = builder.state(State.WAITING.value)
    gaveUp = builder.state(State.GAVE_UP.value)
    cancelling = builder.state(State.CANCELLING.value)
    closing = builder.state(State.CLOSING.value)
    ending = builder.state(State.ENDING.value)

    # Transitions without an order:
    rejecting.upon(_Machine.stop).to(closing).returns(None)
    cleaning.upon(_Machine.stop).to(ending).returns(None)

    # Transitions with orders:
    @pep614(stopped.upon(_Machine.start).to(connecting))
    @pep614(gaveUp.upon(_Machine.start).to(connecting))
    def startAnew(machine: _Machine, history: _History) -> None:
        history.failures = history.attempts = 0
        history.restart = history.used = history.renewing = False
        history.issue(Attempt(1))

    @pep614(connecting.upon(_Machine.failed).to(deciding))
    @pep614(cleaning.upon(_Machine.cleaned).to(deciding))
    @pep614(stopped.upon(_Machine.retry).to(deciding))
    @pep614(gaveUp.upon(_Machine.retry).to(deciding))
    def decide(machine: _Machine, history: _History) -> None:
        history.deciding = True

    @pep614(waiting.upon(_Machine.waited).to(connecting))
    @pep614(deciding.upon(_Machine.renewed).to(connecting))
    def tryAgain(machine: _Machine, history: _History) -> None:
        history.used = False
        history.issue(Attempt(history.attempts + 1))

    @pep614(connecting.upon(_Machine.connected).to(preparing))
    def prepare(machine: _Machine, history: _History) -> None:
        history.used = history.renewing = False
        history.issue(Prepare())

    @pep614(preparing.upon(_Machine.prepared).to(connected))
    def announce(machine: _Machine, history: _History) -> None:
        history.used = True
        history.issue(Announce())

    @pep614(preparing.upon(_Machine.rejected).to(rejecting))
    @pep614(connected.upon(_Machine.rejected).to(rejecting))
    def abort(machine: _Machine, history: _History, cause: Cause) -> None:
        history.issue(Abort(cause))

    @pep614(preparing.upon(_Machine.lost).to(cleaning))
    def abandonPreparation(machine: _Machine, history: _History, cause: Cause) -> None:
        history.issue(CancelPrepare(), CleanUp(cause))

    @pep614(connected.upon(_Machine.lost).to(cleaning))
    @pep614(rejecting.upon(_Machine.lost).to(cleaning))
    @pep614(closing.upon(_Machine.lost).to(ending))
    def cleanUp(machine: _Machine, history: _History, cause: Cause) -> None:
        history.issue(CleanUp(cause))

    @pep614(connecting.upon(_Machine.renew).loop())
    def renewAttempt(machine: _Machine, history: _History) -> None:
        history.renewing = True
        history.issue(CancelAttempt())

    @pep614(preparing.upon(_Machine.renew).to(rejecting))
    def renewPrepared(machine: _Machine, history: _History) -> None:
        history.renewing = True
        cause = ClosedHere("another attempt was asked for while the link was being prepared")
        history.issue(CancelPrepare(), Abort(cause))

    @pep614(deciding.upon(_Machine.delayChosen).to(waiting))
    def wait(machine: _Machine, history: _History, retry: Retry) -> None:
        history.issue(Wait(retry))

    @pep614(deciding.upon(_Machine.giveUp).to(gaveUp))
    def giveUp(machine: _Machine, history: _History, cause: Cause) -> None:
        history.issue(GiveUp(cause))

    # Stopping:
    @pep614(connecting.upon(_Machine.stop).to(cancelling))
    def cancelAttempt(machine: _Machine, history: _History) -> None:
        history.issue(CancelAttempt())

    @pep614(preparing.upon(_Machine.stop).to(closing))
    def closeUnprepared(machine: _Machine, history: _History) -> None:
        history.issue(CancelPrepare(), Close())

    @pep614(connected.upon(_Machine.stop).to(closing))
    @pep614(cancelling.upon(_Machine.connected).to(closing))
    def close(machine: _Machine, history: _History) -> None:
        history.issue(Close())

    @pep614(waiting.upon(_Machine.stop).to(stopped))
    def cancelWait(machine: _Machine, history: _History) -> None:
        history.issue(CancelWait(), Stopped())

    @pep614(stopped.upon(_Machine.stop).loop())
    @pep614(gaveUp.upon(_Machine.stop).to(stopped))
    @pep614(deciding.upon(_Machine.stop).to(stopped))
    @pep614(cancelling.upon(_Machine.failed).to(stopped))
    @pep614(ending.upon(_Machine.cleaned).to(stopped))
    def finish(machine: _Machine, history: _History) -> None:
        history.issue(Stopped())

    def startLater(machine: _Machine, history: _History) -> None:
        history.restart = True

    def stopAfterAll(machine: _Machine, history: _History) -> None:
        history.restart = False

    for stopping in (cancelling, closing, ending):
        stopping.upon(_Machine.start).loop()(startLater)
        stopping.upon(_Machine.stop).loop()(stopAfterAll)

    for name, state in {
        State.STOPPED: stopped,
        State.CONNECTING: connecting,
        State.PREPARING: preparing,
        State.CONNECTED: connected,
        State.REJECTING: rejecting,
        State.CLEANING: cleaning,
        State.DECIDING: deciding,
        State.WAITING: waiting,
        State.GAVE_UP: gaveUp,
        State.CANCELLING: cancelling,
        State.CLOSING: closing,
        State.ENDING: ending,
    }.items():
        state.upon(_Machine.state).loop().returns(name)

    return builder.build()


_buildMachine = _makeMachine()


GiveUpTest = Callable[[int, int, float], bool]
"""
Failures in a row, those of them that were attempts, seconds since the first -> whether to give up.
"""


class Reconnector:
    """
    One link at a time, kept up for as long as it is wanted.

    Each method takes a fact and returns the orders that follow from it, to be carried out in that
    order.  An input that does not fit the state is a late one, of an attempt or a link that is
    over: it changes nothing and no order follows.
    """

    def __init__(self, exhausted: GiveUpTest) -> None:
        """
        @param exhausted: whether to give up.
        """
        self._exhausted = exhausted
        self._history = _History()
        self._machine = _buildMachine(self._history)
        # Kept, for it is asked for more often than it changes, and a machine takes its time.
        self._state: State | None = None

    @property
    def state(self) -> State:
        """
        Where it stands.
        """
        if self._state is None:
            self._state = self._machine.state()
        return self._state

    @property
    def failures(self) -> int:
        """
        Failures in a row, the loss of a proven link being the first of them.
        """
        return self._history.failures

    def resetFailures(self) -> None:
        """
        Forget the failures so far.
        """
        history = self._history
        history.beforeReset = history.failures, history.attempts
        history.failures = history.attempts = 0

    def restoreFailures(self) -> None:
        """
        What was last forgotten counts after all.
        """
        self._history.failures, self._history.attempts = self._history.beforeReset

    def start(self) -> list[Command]:
        """
        The user wants a link.
        """
        return self._after(self._machine.start)

    def stop(self) -> list[Command]:
        """
        The user wants none.
        """
        return self._after(self._machine.stop)

    def connected(self) -> list[Command]:
        """
        The attempt has led to a link, its TLS handshake included.
        """
        return self._after(self._machine.connected)

    def failed(self, cause: Cause, now: float) -> list[Command]:
        """
        The attempt has come to nothing.
        """
        if self.state is State.CONNECTING and not self._history.renewing:
            self._recordFailure(cause, now)
        return self._after(self._machine.failed, now=now)

    def retry(self, cause: Cause, now: float) -> list[Command]:
        """
        Wait, and then make an attempt, although none is under way.  This input is for a driver
        whose first attempt, or the one before this, was made without it.

        @param cause: why that attempt failed.
        """
        if self.state in (State.STOPPED, State.GAVE_UP):
            self._recordFailure(cause, now)
        return self._after(self._machine.retry, now=now)

    def prepared(self) -> list[Command]:
        """
        The link is ready for use.
        """
        return self._after(self._machine.prepared)

    def rejected(self, cause: Cause) -> list[Command]:
        """
        The link can not be used.
        """
        return self._after(self._machine.rejected, cause)

    def lost(self, cause: Cause, now: float, *, proven: bool) -> list[Command]:
        """
        The link has ended.

        @param proven: whether it had been proven by then.
        """
        isUp = self.state in (State.PREPARING, State.CONNECTED, State.REJECTING)
        if isUp and not self._history.renewing:
            if proven:
                self.resetFailures()
            self._recordFailure(cause, now, attempt=not proven)
        return self._after(self._machine.lost, cause)

    def cleaned(self, now: float) -> list[Command]:
        """
        The cleanups of the link have run.
        """
        return self._after(self._machine.cleaned, now=now)

    def delayChosen(self, delay: float, now: float) -> list[Command]:
        """
        It is known how long to wait.

        @param delay: seconds.
        """
        history = self._history
        retry = Retry(history.failures, delay, history.cause, now - history.firstFailure)
        return self._after(self._machine.delayChosen, retry)

    def waited(self) -> list[Command]:
        """
        The wait is over, or was cut short.
        """
        return self._after(self._machine.waited)

    def renew(self) -> list[Command]:
        """
        The user wants another attempt in place of the present one, which has not led to a link yet.
        The attempt that is given up counts as no failure.
        """
        return self._after(self._machine.renew)

    def _after(
        self, feed: Callable[..., None], *arguments: Cause | Retry, now: float = 0.0
    ) -> list[Command]:
        history = self._history
        try:
            feed(*arguments)
        except NoTransition:
            return []
        self._state = None
        if history.deciding:
            history.deciding = False
            self._decide(now)
        elif history.restart and self.state is State.STOPPED:
            self._state = None
            self._machine.start()
        commands, history.commands = history.commands, []
        return commands

    def _recordFailure(self, cause: Cause, now: float, *, attempt: bool = True) -> None:
        history = self._history
        if history.failures == 0:
            history.firstFailure = now
        history.failures += 1
        history.attempts += attempt
        history.cause = cause

    def _decide(self, now: float) -> None:
        history = self._history
        if history.renewing:
            history.renewing = False
            self._machine.renewed()
            return
        if history.failures == 0:
            # Forgiven meanwhile, by a cleanup perhaps; but this one has to be retried, too.
            self._recordFailure(history.cause, now, attempt=False)
        if not history.used:
            history.issue(ReportFailure(history.cause))
        elapsed = now - history.firstFailure
        if history.cause.pace is RetryPace.NEVER or self._exhausted(
            history.failures, history.attempts, elapsed
        ):
            self._machine.giveUp(history.cause)
        else:
            history.issue(ChooseDelay(history.failures, history.cause))
