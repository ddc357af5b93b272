# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Tests for L{twisted_heartbeat.core.reconnector}: every state, every input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from twisted_heartbeat.core.backoff import Backoff
from twisted_heartbeat.core.causes import Cause, ConnectFailed, PeerClosed, PermanentFailure
from twisted_heartbeat.core.commands import (
    Abort,
    Announce,
    Attempt,
    CancelAttempt,
    CancelPrepare,
    CancelWait,
    ChooseDelay,
    CleanUp,
    Close,
    Command,
    GiveUp,
    Prepare,
    ReportFailure,
    Retry,
    Stopped,
    Wait,
)
from twisted_heartbeat.core.reconnector import Reconnector, State

WHY = PeerClosed("why")
FOR_GOOD = PermanentFailure("for good")
NOW = 100.0


class _Any:
    """
    Equals everything.
    """

    def __eq__(self, other: object) -> bool:
        return True


RENEWED: Any = _Any()
"""The cause of a link that was given up for another attempt."""

Input = Callable[[Reconnector], list[Command]]

INPUTS: dict[str, Input] = {
    "start": lambda one: one.start(),
    "stop": lambda one: one.stop(),
    "connected": lambda one: one.connected(),
    "failed": lambda one: one.failed(WHY, NOW),
    "retry": lambda one: one.retry(WHY, NOW),
    "prepared": lambda one: one.prepared(),
    "rejected": lambda one: one.rejected(WHY),
    "lost": lambda one: one.lost(WHY, NOW, proven=False),
    "cleaned": lambda one: one.cleaned(NOW),
    "delayChosen": lambda one: one.delayChosen(5.0, NOW),
    "waited": lambda one: one.waited(),
    "renew": lambda one: one.renew(),
}

PATHS: dict[State, list[str]] = {
    State.STOPPED: [],
    State.CONNECTING: ["start"],
    State.PREPARING: ["start", "connected"],
    State.CONNECTED: ["start", "connected", "prepared"],
    State.REJECTING: ["start", "connected", "rejected"],
    State.CLEANING: ["start", "connected", "prepared", "lost"],
    State.DECIDING: ["start", "failed"],
    State.WAITING: ["start", "failed", "delayChosen"],
    State.GAVE_UP: ["start", "failed for good"],
    State.CANCELLING: ["start", "stop"],
    State.CLOSING: ["start", "connected", "prepared", "stop"],
    State.ENDING: ["start", "connected", "prepared", "stop", "lost"],
}

# Where each input leads from each state, and what is ordered then.  What is not here is late: it
# changes nothing.
TABLE: dict[State, dict[str, tuple[State, list[Command]]]] = {
    State.STOPPED: {
        "start": (State.CONNECTING, [Attempt(1)]),
        "retry": (State.DECIDING, [ReportFailure(WHY), ChooseDelay(1, WHY)]),
        "stop": (State.STOPPED, [Stopped()]),
    },
    State.CONNECTING: {
        "stop": (State.CANCELLING, [CancelAttempt()]),
        "connected": (State.PREPARING, [Prepare()]),
        "failed": (State.DECIDING, [ReportFailure(WHY), ChooseDelay(1, WHY)]),
        "renew": (State.CONNECTING, [CancelAttempt()]),
    },
    State.PREPARING: {
        "stop": (State.CLOSING, [CancelPrepare(), Close()]),
        "prepared": (State.CONNECTED, [Announce()]),
        "rejected": (State.REJECTING, [Abort(WHY)]),
        "lost": (State.CLEANING, [CancelPrepare(), CleanUp()]),
        "renew": (State.REJECTING, [CancelPrepare(), Abort(RENEWED)]),
    },
    State.CONNECTED: {
        "stop": (State.CLOSING, [Close()]),
        "rejected": (State.REJECTING, [Abort(WHY)]),
        "lost": (State.CLEANING, [CleanUp()]),
    },
    State.REJECTING: {
        "stop": (State.CLOSING, []),
        "lost": (State.CLEANING, [CleanUp()]),
    },
    State.CLEANING: {
        "stop": (State.ENDING, []),
        "cleaned": (State.DECIDING, [ChooseDelay(1, WHY)]),
    },
    State.DECIDING: {
        "stop": (State.STOPPED, [Stopped()]),
        "delayChosen": (State.WAITING, [Wait(Retry(1, 5.0, WHY, 0.0))]),
    },
    State.WAITING: {
        "stop": (State.STOPPED, [CancelWait(), Stopped()]),
        "waited": (State.CONNECTING, [Attempt(2)]),
    },
    State.GAVE_UP: {
        "start": (State.CONNECTING, [Attempt(1)]),
        "retry": (State.DECIDING, [ReportFailure(WHY), ChooseDelay(2, WHY)]),
        "stop": (State.STOPPED, [Stopped()]),
    },
    State.CANCELLING: {
        "connected": (State.CLOSING, [Close()]),
        "failed": (State.STOPPED, [Stopped()]),
    },
    State.CLOSING: {
        "lost": (State.ENDING, [CleanUp()]),
    },
    State.ENDING: {
        "cleaned": (State.STOPPED, [Stopped()]),
    },
}


def never(*_: object) -> bool:
    return False


def supervisionIn(state: State, exhausted: Callable[..., bool] = never) -> Reconnector:
    reconnector = Reconnector(exhausted)
    for name in PATHS[state]:
        if name == "failed for good":
            reconnector.failed(FOR_GOOD, NOW)
        else:
            INPUTS[name](reconnector)
    assert reconnector.state is state
    return reconnector


def test_everyStateIsHere() -> None:
    """
    No state escapes the table.
    """
    assert list(TABLE) == list(PATHS) == list(State)


@pytest.mark.parametrize("state", State)
def test_everyInputInEveryState(state: State) -> None:
    """
    Each input in each state leads where the table says, with those commands; a late one changes
    nothing, is no failure of what goes on now, and nothing is ever raised.
    """
    found, late = {}, []
    for name, give in INPUTS.items():
        reconnector = supervisionIn(state)
        failures = reconnector.failures
        commands = give(reconnector)
        if name in TABLE[state]:
            found[name] = (reconnector.state, commands)
        elif commands or (reconnector.state, reconnector.failures) != (state, failures):
            late.append((name, reconnector.state, commands))
    assert found == TABLE[state]
    assert late == []


# Another attempt in place of the present one.


def test_renewedAttempt() -> None:
    """
    Another attempt in place of one without an answer begins when that is over: without a wait, and
    the one that was given up counts as no failure.
    """
    reconnector = supervisionIn(State.CONNECTING)
    assert reconnector.renew() == [CancelAttempt()]
    assert reconnector.failed(WHY, NOW) == [Attempt(1)]
    assert (reconnector.state, reconnector.failures) == (State.CONNECTING, 0)
    assert reconnector.failed(WHY, NOW) == [ReportFailure(WHY), ChooseDelay(1, WHY)]


def test_renewedPreparation() -> None:
    """
    The same where the link is being prepared: its cleanups come before the next attempt.
    """
    reconnector = supervisionIn(State.PREPARING)
    assert reconnector.renew() == [CancelPrepare(), Abort(RENEWED)]
    assert reconnector.lost(WHY, NOW, proven=False) == [CleanUp()]
    assert reconnector.cleaned(NOW) == [Attempt(1)]
    assert reconnector.failures == 0


def test_renewedTooLate() -> None:
    """
    An attempt that leads to a link although another was asked for is used, and its loss counts.
    """
    reconnector = supervisionIn(State.CONNECTING)
    reconnector.renew()
    assert reconnector.connected() == [Prepare()]
    reconnector.prepared()
    reconnector.lost(WHY, NOW, proven=False)
    assert reconnector.cleaned(NOW) == [ChooseDelay(1, WHY)]


def test_attemptThatGoesOn() -> None:
    """
    A link that one endpoint of several led to is lost, and another endpoint is tried: without a
    wait, and nothing has failed yet.
    """
    reconnector = supervisionIn(State.CONNECTED)
    assert reconnector.lost(WHY, NOW, proven=False, goesOn=True) == [CleanUp()]
    assert reconnector.cleaned(NOW) == [Attempt(1)]
    assert reconnector.failures == 0
    assert reconnector.failed(WHY, NOW) == [ReportFailure(WHY), ChooseDelay(1, WHY)]


def test_stopWhileRenewing() -> None:
    """
    Who stops meanwhile gets no attempt, nor does the next start have its failures forgotten.
    """
    reconnector = supervisionIn(State.CONNECTING)
    reconnector.renew()
    assert reconnector.stop() == [CancelAttempt()]
    assert reconnector.failed(WHY, NOW) == [Stopped()]
    reconnector.start()
    assert reconnector.failed(WHY, NOW) == [ReportFailure(WHY), ChooseDelay(1, WHY)]


# Stopping, and starting again while it stops.

STOPPING = {
    State.CANCELLING: ["failed"],
    State.CLOSING: ["lost", "cleaned"],
    State.ENDING: ["cleaned"],
}


@pytest.mark.parametrize("state", STOPPING)
def test_startWhileStopping(state: State) -> None:
    """
    Who starts again while it stops gets a new attempt, but not before the old link is gone.
    """
    reconnector = supervisionIn(state)
    assert reconnector.start() == []
    *before, last = [INPUTS[name](reconnector) for name in STOPPING[state]]
    assert Attempt(1) not in sum(before, [])
    assert last == [Stopped(), Attempt(1)]
    assert reconnector.state is State.CONNECTING


@pytest.mark.parametrize("state", STOPPING)
def test_startAndStopWhileStopping(state: State) -> None:
    """
    The last word counts.
    """
    reconnector = supervisionIn(state)
    assert reconnector.start() == reconnector.stop() == []
    assert [INPUTS[name](reconnector) for name in STOPPING[state]][-1] == [Stopped()]
    assert reconnector.state is State.STOPPED


def test_restartIsForgotten() -> None:
    """
    A start during one stop starts nothing after the next.
    """
    reconnector = supervisionIn(State.CANCELLING)
    reconnector.start()
    reconnector.failed(WHY, NOW)
    assert reconnector.stop() == [CancelAttempt()]
    assert reconnector.failed(WHY, NOW) == [Stopped()]


def test_connectionThatComesAfterTheCancel() -> None:
    """
    A connection that could not be cancelled any more is closed and cleaned up like any.
    """
    reconnector = supervisionIn(State.CANCELLING)
    assert reconnector.connected() == [Close()]
    assert reconnector.lost(WHY, NOW, proven=False) == [CleanUp()]
    assert reconnector.cleaned(NOW) == [Stopped()]


# Failures.


def once(reconnector: Reconnector, cause: Cause = WHY, now: float = NOW) -> list[Command]:
    """
    One more attempt that fails.
    """
    reconnector.delayChosen(1.0, now)
    reconnector.waited()
    return reconnector.failed(cause, now)


def test_failuresAreCounted() -> None:
    """
    Each failed attempt is counted until a link is proven, and each retry says the count, the delay,
    the cause and the time since the first.
    """
    reconnector = supervisionIn(State.CONNECTING)
    assert reconnector.failed(WHY, 10.0)[-1] == ChooseDelay(1, WHY)
    other = ConnectFailed()
    assert once(reconnector, other, 12.5)[-1] == ChooseDelay(2, other)
    assert reconnector.delayChosen(3.0, 12.5) == [Wait(Retry(2, 3.0, other, 2.5))]
    assert reconnector.waited() == [Attempt(3)]


@pytest.mark.parametrize("ending", ["lost", "rejected"])
def test_linkThatIsNotPrepared(ending: str) -> None:
    """
    A link that is lost or rejected before it is used is a failed attempt, and reported as one.
    """
    reconnector = supervisionIn(State.PREPARING)
    if ending == "rejected":
        assert reconnector.rejected(WHY) == [Abort(WHY)]
    reconnector.lost(WHY, NOW, proven=False)
    assert reconnector.cleaned(NOW) == [ReportFailure(WHY), ChooseDelay(1, WHY)]


def test_acceptThenCloseBacksOff() -> None:
    """
    A link that was used and never proven does not reset the backoff.
    """
    reconnector = supervisionIn(State.CONNECTING)
    for failures in (1, 2, 3):
        reconnector.connected()
        reconnector.prepared()
        reconnector.lost(WHY, NOW, proven=False)
        assert reconnector.cleaned(NOW) == [ChooseDelay(failures, WHY)]
        reconnector.delayChosen(1.0, NOW)
        assert reconnector.waited() == [Attempt(failures + 1)]


def test_provenLinkResets() -> None:
    """
    A proven link resets the backoff; the attempt that follows its loss is the first.
    """
    reconnector = supervisionIn(State.CONNECTING)
    reconnector.failed(WHY, NOW)
    once(reconnector)
    reconnector.delayChosen(1.0, NOW)
    reconnector.waited()
    reconnector.connected()
    reconnector.prepared()
    reconnector.lost(WHY, 500.0, proven=True)
    assert reconnector.cleaned(500.0) == [ChooseDelay(1, WHY)]
    assert reconnector.delayChosen(1.0, 500.0) == [Wait(Retry(1, 1.0, WHY, 0.0))]
    assert reconnector.waited() == [Attempt(1)]


def test_resetForgetsFailures() -> None:
    """
    Forgiven failures count no more.
    """
    reconnector = supervisionIn(State.CONNECTING)
    reconnector.failed(WHY, NOW)
    once(reconnector)
    reconnector.delayChosen(1.0, NOW)
    reconnector.resetFailures()
    assert reconnector.failures == 0
    assert reconnector.waited() == [Attempt(1)]
    assert reconnector.failed(WHY, NOW)[-1] == ChooseDelay(1, WHY)


def test_forgiveWhileCleaning() -> None:
    """
    Forgiven or not, the retry that follows a loss is the first, and never number 0.
    """
    reconnector = supervisionIn(State.CLEANING)
    reconnector.resetFailures()
    assert reconnector.cleaned(NOW) == [ChooseDelay(1, WHY)]
    assert reconnector.delayChosen(1.0, NOW) == [Wait(Retry(1, 1.0, WHY, 0.0))]


def test_startForgives() -> None:
    """
    Who stops and starts begins anew.
    """
    reconnector = supervisionIn(State.WAITING)
    reconnector.stop()
    assert reconnector.start() == [Attempt(1)]
    assert reconnector.failed(WHY, NOW)[-1] == ChooseDelay(1, WHY)


def test_failureAfterARestartIsReported() -> None:
    """
    That an earlier link was used is no reason to keep a later failure from who waits.
    """
    reconnector = supervisionIn(State.ENDING)
    reconnector.cleaned(NOW)
    reconnector.start()
    assert reconnector.failed(WHY, NOW) == [ReportFailure(WHY), ChooseDelay(1, WHY)]


# Giving up.


def test_permanentFailureOfAnAttempt() -> None:
    """
    A permanent failure is reported, and nothing is tried again.
    """
    reconnector = supervisionIn(State.CONNECTING)
    assert reconnector.failed(FOR_GOOD, NOW) == [ReportFailure(FOR_GOOD), GiveUp(FOR_GOOD)]
    assert reconnector.state is State.GAVE_UP


def test_permanentFailureOfTheMaking() -> None:
    """
    So it is when preparing fails for good, once the link is cleaned up.
    """
    reconnector = supervisionIn(State.PREPARING)
    reconnector.rejected(FOR_GOOD)
    assert reconnector.lost(FOR_GOOD, NOW, proven=False) == [CleanUp()]
    assert reconnector.cleaned(NOW) == [ReportFailure(FOR_GOOD), GiveUp(FOR_GOOD)]


def test_permanentFailureOfAUsedLink() -> None:
    """
    A link in use that is ended for good has nobody waiting for it.
    """
    reconnector = supervisionIn(State.CONNECTED)
    reconnector.rejected(FOR_GOOD)
    reconnector.lost(FOR_GOOD, NOW, proven=True)
    assert reconnector.cleaned(NOW) == [GiveUp(FOR_GOOD)]


def exhaustedBy(backoff: Backoff) -> Callable[..., bool]:
    """
    As the drivers ask it.
    """

    def exhausted(failures: int, attempts: int, elapsed: float) -> bool:
        return backoff.exhausted(attempts, elapsed)

    return exhausted


@pytest.mark.parametrize("most", [1, 2, 5])
def test_maxAttempts(most: int) -> None:
    """
    It gives up when so many attempts in a row have failed.
    """
    reconnector = supervisionIn(State.CONNECTING, exhaustedBy(Backoff(maxAttempts=most)))
    commands = reconnector.failed(WHY, NOW)
    for _ in range(most - 1):
        assert isinstance(commands[-1], ChooseDelay)
        commands = once(reconnector)
    assert commands == [ReportFailure(WHY), GiveUp(WHY)]


@pytest.mark.parametrize("most", [1, 3])
def test_maxAttemptsAfterAProvenLink(most: int) -> None:
    """
    The loss of a proven link is no failed attempt: as many as allowed follow it.
    """
    reconnector = supervisionIn(State.CONNECTED, exhaustedBy(Backoff(maxAttempts=most)))
    reconnector.lost(WHY, NOW, proven=True)
    commands: list[Any] = reconnector.cleaned(NOW)
    for _ in range(most):
        assert isinstance(commands[-1], ChooseDelay)
        commands = once(reconnector)
    assert commands[-1] == GiveUp(WHY)


def test_maxElapsed() -> None:
    """
    It gives up once the first failure is so long ago.
    """
    reconnector = supervisionIn(State.CONNECTING, exhaustedBy(Backoff(maxElapsed=60.0)))
    assert isinstance(reconnector.failed(WHY, NOW)[-1], ChooseDelay)
    assert isinstance(once(reconnector, now=NOW + 59.0)[-1], ChooseDelay)
    assert once(reconnector, now=NOW + 61.0)[-1] == GiveUp(WHY)


def test_startAfterGivingUp() -> None:
    """
    A person may well start it again.
    """
    reconnector = supervisionIn(State.GAVE_UP)
    assert reconnector.start() == [Attempt(1)]
    assert reconnector.connected() == [Prepare()]
