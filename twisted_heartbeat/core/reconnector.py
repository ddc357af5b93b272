# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Reconnector}: connect, prepare, clean up, wait, stop; one state machine for all drivers.

Problem: a reconnecting client calls user code at each step, and user code may raise, or stop and
start the client in the same call.

Idea: the machine executes nothing.  It takes facts (an attempt failed, the link was lost, the user
wants to stop) and returns L{commands<twisted_heartbeat.core.commands>} (make an attempt, wait,
report that everything has stopped).  The driver executes them after the transition is complete.  So
neither an exception nor an input from inside of a command can leave the machine between two states.

States::

    stopped -> connecting -> preparing -> connected -> cleaning -> deciding -> waiting -> connecting
                    |            +-> rejecting -----------^           +-> gaveUp
                    +----------------- failed ------------------------^

    on stop:   connecting -> cancelling -> stopped
               preparing, connected, rejecting -> closing -> ending -> stopped
               cleaning -> ending -> stopped;   deciding, waiting, gaveUp -> stopped

Invariants: at most one attempt, link or wait at a time; one C{CleanUp} for each link, before the
next attempt; no attempt after C{stop} unless C{start} follows; each C{stop} leads to C{Stopped}.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
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
    The state of a L{Reconnector}.
    """

    STOPPED = "stopped"
    CONNECTING = "connecting"
    PREPARING = "preparing"
    CONNECTED = "connected"
    REJECTING = "rejecting"
    """The link could not be prepared, and is being aborted."""
    CLEANING = "cleaning"
    DECIDING = "deciding"
    """The driver chooses the delay before the next attempt."""
    WAITING = "waiting"
    GAVE_UP = "gaveUp"
    CANCELLING = "cancelling"
    """Stopping: the attempt is being cancelled."""
    CLOSING = "closing"
    """Stopping: the link is being closed."""
    ENDING = "ending"
    """Stopping: the cleanups run."""


class _Machine(Protocol):
    """
    The inputs of the machine.  L{Reconnector} has a method for each, which says what it means.
    """

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def connected(self) -> None: ...
    def failed(self) -> None: ...
    def retry(self) -> None: ...
    def prepared(self) -> None: ...
    def rejected(self, cause: Cause) -> None: ...
    def lost(self, cause: Cause) -> None: ...
    def cleaned(self) -> None: ...
    def waited(self) -> None: ...
    def renew(self) -> None: ...
    def renewed(self) -> None: ...
    def delayChosen(self, retry: Retry) -> None: ...
    def giveUp(self, cause: Cause) -> None: ...
    def state(self) -> State: ...


@dataclass
class _History:
    """
    What the machine remembers from one transition to the next.

    @ivar commands: the commands of the transitions of this call.
    @ivar failures: failures in a row, the loss of a proven link being the first of them.
    @ivar attempts: how many of these failures were attempts.
    @ivar firstFailure: when the first failure happened, in seconds.
    @ivar cause: why the last failure happened.
    @ivar beforeReset: failures and attempts, as they were before the last reset.
    @ivar used: whether the last link was announced as connected.
    @ivar deciding: whether this call has led to the state C{deciding}.
    @ivar restart: whether to start again once stopped.
    @ivar renewing: whether the next attempt follows the present attempt without a wait.
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


@cache
def _makeMachine() -> Callable[[_History], _Machine]:
    """
    Define the machine.  The first reconnector does it, and not the import, because it is more than
    a fifth of what the import of the package would cost, and a server needs no reconnector.
    """
    builder = TypeMachineBuilder(_Machine, _History)

    # States:
    states = {state: builder.state(state.value) for state in State}
    stopped = states[State.STOPPED]
    connecting = states[State.CONNECTING]
    preparing = states[State.PREPARING]
    connected = states[State.CONNECTED]
    rejecting = states[State.REJECTING]
    cleaning = states[State.CLEANING]
    deciding = states[State.DECIDING]
    waiting = states[State.WAITING]
    gaveUp = states[State.GAVE_UP]
    cancelling = states[State.CANCELLING]
    closing = states[State.CLOSING]
    ending = states[State.ENDING]

    # Transitions without a command:
    rejecting.upon(_Machine.stop).to(closing).returns(None)
    cleaning.upon(_Machine.stop).to(ending).returns(None)

    # Transitions with commands:
    @pep614(stopped.upon(_Machine.start).to(connecting))
    @pep614(gaveUp.upon(_Machine.start).to(connecting))
    def startAnew(machine: _Machine, history: _History) -> None:
        history.failures = history.attempts = 0
        history.restart = history.used = history.renewing = False
        history.commands += [Attempt(1)]

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
        history.commands += [Attempt(history.attempts + 1)]

    @pep614(connecting.upon(_Machine.connected).to(preparing))
    def prepare(machine: _Machine, history: _History) -> None:
        history.used = history.renewing = False
        history.commands += [Prepare()]

    @pep614(preparing.upon(_Machine.prepared).to(connected))
    def announce(machine: _Machine, history: _History) -> None:
        history.used = True
        history.commands += [Announce()]

    @pep614(preparing.upon(_Machine.rejected).to(rejecting))
    @pep614(connected.upon(_Machine.rejected).to(rejecting))
    def abort(machine: _Machine, history: _History, cause: Cause) -> None:
        history.commands += [Abort(cause)]

    @pep614(preparing.upon(_Machine.lost).to(cleaning))
    def abandonPreparation(machine: _Machine, history: _History, cause: Cause) -> None:
        history.commands += [CancelPrepare(), CleanUp()]

    @pep614(connected.upon(_Machine.lost).to(cleaning))
    @pep614(rejecting.upon(_Machine.lost).to(cleaning))
    @pep614(closing.upon(_Machine.lost).to(ending))
    def cleanUp(machine: _Machine, history: _History, cause: Cause) -> None:
        history.commands += [CleanUp()]

    @pep614(connecting.upon(_Machine.renew).loop())
    def renewAttempt(machine: _Machine, history: _History) -> None:
        history.renewing = True
        history.commands += [CancelAttempt()]

    @pep614(preparing.upon(_Machine.renew).to(rejecting))
    def renewPrepared(machine: _Machine, history: _History) -> None:
        history.renewing = True
        cause = ClosedHere("another attempt was asked for while the link was being prepared")
        history.commands += [CancelPrepare(), Abort(cause)]

    @pep614(deciding.upon(_Machine.delayChosen).to(waiting))
    def wait(machine: _Machine, history: _History, retry: Retry) -> None:
        history.commands += [Wait(retry)]

    @pep614(deciding.upon(_Machine.giveUp).to(gaveUp))
    def giveUp(machine: _Machine, history: _History, cause: Cause) -> None:
        history.commands += [GiveUp(cause)]

    # Stopping:
    @pep614(connecting.upon(_Machine.stop).to(cancelling))
    def cancelAttempt(machine: _Machine, history: _History) -> None:
        history.commands += [CancelAttempt()]

    @pep614(preparing.upon(_Machine.stop).to(closing))
    def closeUnprepared(machine: _Machine, history: _History) -> None:
        history.commands += [CancelPrepare(), Close()]

    @pep614(connected.upon(_Machine.stop).to(closing))
    @pep614(cancelling.upon(_Machine.connected).to(closing))
    def close(machine: _Machine, history: _History) -> None:
        history.commands += [Close()]

    @pep614(waiting.upon(_Machine.stop).to(stopped))
    def cancelWait(machine: _Machine, history: _History) -> None:
        history.commands += [CancelWait(), Stopped()]

    @pep614(stopped.upon(_Machine.stop).loop())
    @pep614(gaveUp.upon(_Machine.stop).to(stopped))
    @pep614(deciding.upon(_Machine.stop).to(stopped))
    @pep614(cancelling.upon(_Machine.failed).to(stopped))
    @pep614(ending.upon(_Machine.cleaned).to(stopped))
    def finish(machine: _Machine, history: _History) -> None:
        history.commands += [Stopped()]

    def startLater(machine: _Machine, history: _History) -> None:
        history.restart = True

    def stopAfterAll(machine: _Machine, history: _History) -> None:
        history.restart = False

    for stopping in (cancelling, closing, ending):
        stopping.upon(_Machine.start).loop()(startLater)
        stopping.upon(_Machine.stop).loop()(stopAfterAll)

    for name, state in states.items():
        state.upon(_Machine.state).loop().returns(name)

    return builder.build()


GiveUpTest = Callable[[int, int, float], bool]
"""
Takes the failures in a row, the number of attempts among them, and the seconds since the first.
Returns whether to give up.
"""


class Reconnector:
    """
    Keeps one link up for as long as it is wanted.

    Each method takes a fact and returns the commands that follow from it, to be executed in this
    order.  An input that does not fit the state comes late, from an attempt or a link that is over.
    It changes nothing, and no command follows.

    @ivar state: the present state.
    """

    def __init__(self, exhausted: GiveUpTest) -> None:
        self._exhausted = exhausted
        self._history = _History()
        self._machine = _makeMachine()(self._history)
        # Kept, because asking the machine is slow, and drivers ask more often than it changes.
        self.state: State = self._machine.state()

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
        Undo the last L{resetFailures}.
        """
        self._history.failures, self._history.attempts = self._history.beforeReset

    def start(self) -> list[Command]:
        """
        Handle that the user wants a link.
        """
        return self._after(self._machine.start)

    def stop(self) -> list[Command]:
        """
        Handle that the user wants no link.
        """
        return self._after(self._machine.stop)

    def connected(self) -> list[Command]:
        """
        Handle that the attempt has led to a link, its TLS handshake included.
        """
        return self._after(self._machine.connected)

    def failed(self, cause: Cause, now: float) -> list[Command]:
        """
        Handle that the attempt has failed, and nothing is left of it.
        """
        if self.state is State.CONNECTING and not self._history.renewing:
            self._recordFailure(cause, now)
        return self._after(self._machine.failed, now=now)

    def retry(self, cause: Cause, now: float) -> list[Command]:
        """
        Handle that the user wants an attempt after a wait, although none is under way.  A driver
        calls this if the attempt before was made without it.

        @param cause: why that attempt failed.
        """
        if self.state in (State.STOPPED, State.GAVE_UP):
            self._recordFailure(cause, now)
        return self._after(self._machine.retry, now=now)

    def prepared(self) -> list[Command]:
        """
        Handle that the link is prepared.
        """
        return self._after(self._machine.prepared)

    def rejected(self, cause: Cause) -> list[Command]:
        """
        Handle that the link can not be used.
        """
        return self._after(self._machine.rejected, cause)

    def lost(
        self, cause: Cause, now: float, *, proven: bool, goesOn: bool = False
    ) -> list[Command]:
        """
        Handle that the link has ended.

        @param proven: whether the link had been proven by then.
        @param goesOn: whether the attempt that led to the link goes on with another endpoint.  Then
            it has not failed yet.
        """
        history = self._history
        isUp = self.state in (State.PREPARING, State.CONNECTED, State.REJECTING)
        if isUp and goesOn:
            history.renewing = True
        elif isUp and not history.renewing:
            if proven:
                history.failures = history.attempts = 0
            self._recordFailure(cause, now, attempt=not proven)
        return self._after(self._machine.lost, cause)

    def cleaned(self, now: float) -> list[Command]:
        """
        Handle that the cleanups of the link have run.
        """
        return self._after(self._machine.cleaned, now=now)

    def delayChosen(self, delay: float, now: float) -> list[Command]:
        """
        Handle that the driver has chosen how long to wait.

        @param delay: seconds.
        """
        history = self._history
        retry = Retry(history.failures, delay, history.cause, now - history.firstFailure)
        return self._after(self._machine.delayChosen, retry)

    def waited(self) -> list[Command]:
        """
        Handle that the wait is over, or was cut short.
        """
        return self._after(self._machine.waited)

    def renew(self) -> list[Command]:
        """
        Handle that the user wants another attempt in place of the present one, which has not led to
        a prepared link yet.  The attempt that is cancelled counts as no failure.
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
        if history.deciding:
            history.deciding = False
            self._decide(now)
        self.state = self._machine.state()
        if history.restart and self.state is State.STOPPED:
            self._machine.start()
            self.state = self._machine.state()
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
            # A cleanup, for example, has reset the failures; this failure is retried all the same.
            self._recordFailure(history.cause, now, attempt=False)
        if not history.used:
            history.commands += [ReportFailure(history.cause)]
        elapsed = now - history.firstFailure
        if history.cause.pace is RetryPace.NEVER or self._exhausted(
            history.failures, history.attempts, elapsed
        ):
            self._machine.giveUp(history.cause)
        else:
            history.commands += [ChooseDelay(history.failures, history.cause)]
