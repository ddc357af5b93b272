# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Tests for L{twisted_heartbeat.core.commands}: every state, every input.
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
    "chosen": lambda one: one.chosen(5.0, NOW),
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
    State.WAITING: ["start", "failed", "chosen"],
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
        "lost": (State.CLEANING, [CancelPrepare(), CleanUp(WHY)]),
        "renew": (State.REJECTING, [CancelPrepare(), Abort(RENEWED)]),
    },
    State.CONNECTED: {
        "stop": (State.CLOSING, [Close()]),
        "rejected": (State.REJECTING, [Abort(WHY)]),
        "lost": (State.CLEANING, [CleanUp(WHY)]),
    },
    State.REJECTING: {
        "stop": (State.CLOSING, []),
        "lost": (State.CLEANING, [CleanUp(WHY)]),
    },
    State.CLEANING: {
        "stop": (State.ENDING, []),
        "cleaned": (State.DECIDING, [ChooseDelay(1, WHY)]),
    },
    State.DECIDING: {
        "stop": (State.STOPPED, [Stopped()]),
        "chosen": (State.WAITING, [Wait(Retry(1, 5.0, WHY, 0.0))]),
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
        "lost": (State.ENDING, [CleanUp(WHY)]),
    },
    State.ENDING: {
        "cleaned": (State.STOPPED, [Stopped()]),
    },
}


def never(*_: object) -> bool:
    return False


def supervisionIn(state: State, exhausted: Callable[..., bool] = never) -> Reconnector:
    supervision = Reconnector(exhausted)
    for name in PATHS[state]:
        if name == "failed for good":
            supervision.failed(FOR_GOOD, NOW)
        else:
            INPUTS[name](supervision)
    assert supervision.state is state
    return supervision


def test_everyStateIsHere() -> None:
    """
    No state escapes the table.
    """
    assert list(TABLE) == list(PATHS) == list(State)


@pytest.mark.parametrize("state", State)
def test_everyInputInEveryState(state: State) -> None:
    """
    Each input in each state leads where the table says, with those orders; a late one changes
    nothing, is no failure of what goes on now, and nothing is ever raised.
    """
    found, late = {}, []
    for name, give in INPUTS.items():
        supervision = supervisionIn(state)
        failures = supervision.failures
        orders = give(supervision)
        if name in TABLE[state]:
            found[name] = (supervision.state, orders)
        elif orders or (supervision.state, supervision.failures) != (state, failures):
            late.append((name, supervision.state, orders))
    assert found == TABLE[state]
    assert late == []


# Another attempt in place of the present one.


def test_renewedAttempt() -> None:
    """
    Another attempt in place of one without an answer begins when that is over: without a wait, and
    the one that was given up counts as no failure.
    """
    supervision = supervisionIn(State.CONNECTING)
    assert supervision.renew() == [CancelAttempt()]
    assert supervision.failed(WHY, NOW) == [Attempt(1)]
    assert (supervision.state, supervision.failures) == (State.CONNECTING, 0)
    assert supervision.failed(WHY, NOW) == [ReportFailure(WHY), ChooseDelay(1, WHY)]


def test_renewedPreparation() -> None:
    """
    The same where the link is being prepared: its cleanups come before the next attempt.
    """
    supervision = supervisionIn(State.PREPARING)
    assert supervision.renew() == [CancelPrepare(), Abort(RENEWED)]
    assert supervision.lost(WHY, NOW, proven=False) == [CleanUp(WHY)]
    assert supervision.cleaned(NOW) == [Attempt(1)]
    assert supervision.failures == 0


def test_renewedTooLate() -> None:
    """
    An attempt that leads to a link although another was asked for is used, and its loss counts.
    """
    supervision = supervisionIn(State.CONNECTING)
    supervision.renew()
    assert supervision.connected() == [Prepare()]
    supervision.prepared()
    supervision.lost(WHY, NOW, proven=False)
    assert supervision.cleaned(NOW) == [ChooseDelay(1, WHY)]


def test_stopWhileRenewing() -> None:
    """
    Who stops meanwhile gets no attempt, nor does the next start have its failures forgotten.
    """
    supervision = supervisionIn(State.CONNECTING)
    supervision.renew()
    assert supervision.stop() == [CancelAttempt()]
    assert supervision.failed(WHY, NOW) == [Stopped()]
    supervision.start()
    assert supervision.failed(WHY, NOW) == [ReportFailure(WHY), ChooseDelay(1, WHY)]


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
    supervision = supervisionIn(state)
    assert supervision.start() == []
    *before, last = [INPUTS[name](supervision) for name in STOPPING[state]]
    assert Attempt(1) not in sum(before, [])
    assert last == [Stopped(), Attempt(1)]
    assert supervision.state is State.CONNECTING


@pytest.mark.parametrize("state", STOPPING)
def test_startAndStopWhileStopping(state: State) -> None:
    """
    The last word counts.
    """
    supervision = supervisionIn(state)
    assert supervision.start() == supervision.stop() == []
    assert [INPUTS[name](supervision) for name in STOPPING[state]][-1] == [Stopped()]
    assert supervision.state is State.STOPPED


def test_restartIsForgotten() -> None:
    """
    A start during one stop starts nothing after the next.
    """
    supervision = supervisionIn(State.CANCELLING)
    supervision.start()
    supervision.failed(WHY, NOW)
    assert supervision.stop() == [CancelAttempt()]
    assert supervision.failed(WHY, NOW) == [Stopped()]


def test_connectionThatComesAfterTheCancel() -> None:
    """
    A connection that could not be cancelled any more is closed and cleaned up like any.
    """
    supervision = supervisionIn(State.CANCELLING)
    assert supervision.connected() == [Close()]
    assert supervision.lost(WHY, NOW, proven=False) == [CleanUp(WHY)]
    assert supervision.cleaned(NOW) == [Stopped()]


# Failures.


def once(supervision: Reconnector, cause: Cause = WHY, now: float = NOW) -> list[Command]:
    """
    One more attempt that fails.
    """
    supervision.chosen(1.0, now)
    supervision.waited()
    return supervision.failed(cause, now)


def test_failuresAreCounted() -> None:
    """
    Each failed attempt is counted until a link is proven, and each retry says the count, the delay,
    the cause and the time since the first.
    """
    supervision = supervisionIn(State.CONNECTING)
    assert supervision.failed(WHY, 10.0)[-1] == ChooseDelay(1, WHY)
    other = ConnectFailed()
    assert once(supervision, other, 12.5)[-1] == ChooseDelay(2, other)
    assert supervision.chosen(3.0, 12.5) == [Wait(Retry(2, 3.0, other, 2.5))]
    assert supervision.waited() == [Attempt(3)]


@pytest.mark.parametrize("ending", ["lost", "rejected"])
def test_linkThatIsNotPrepared(ending: str) -> None:
    """
    A link that is lost or rejected before it is used is a failed attempt, and reported as one.
    """
    supervision = supervisionIn(State.PREPARING)
    if ending == "rejected":
        assert supervision.rejected(WHY) == [Abort(WHY)]
    supervision.lost(WHY, NOW, proven=False)
    assert supervision.cleaned(NOW) == [ReportFailure(WHY), ChooseDelay(1, WHY)]


def test_acceptThenCloseBacksOff() -> None:
    """
    A link that was used and never proven does not reset the backoff.
    """
    supervision = supervisionIn(State.CONNECTING)
    for failures in (1, 2, 3):
        supervision.connected()
        supervision.prepared()
        supervision.lost(WHY, NOW, proven=False)
        assert supervision.cleaned(NOW) == [ChooseDelay(failures, WHY)]
        supervision.chosen(1.0, NOW)
        assert supervision.waited() == [Attempt(failures + 1)]


def test_provenLinkResets() -> None:
    """
    A proven link resets the backoff; the attempt that follows its loss is the first.
    """
    supervision = supervisionIn(State.CONNECTING)
    supervision.failed(WHY, NOW)
    once(supervision)
    supervision.chosen(1.0, NOW)
    supervision.waited()
    supervision.connected()
    supervision.prepared()
    supervision.lost(WHY, 500.0, proven=True)
    assert supervision.cleaned(500.0) == [ChooseDelay(1, WHY)]
    assert supervision.chosen(1.0, 500.0) == [Wait(Retry(1, 1.0, WHY, 0.0))]
    assert supervision.waited() == [Attempt(1)]


def test_forgive() -> None:
    """
    Forgiven failures count no more.
    """
    supervision = supervisionIn(State.CONNECTING)
    supervision.failed(WHY, NOW)
    once(supervision)
    supervision.chosen(1.0, NOW)
    supervision.forgive()
    assert supervision.failures == 0
    assert supervision.waited() == [Attempt(1)]
    assert supervision.failed(WHY, NOW)[-1] == ChooseDelay(1, WHY)


def test_forgiveWhileCleaning() -> None:
    """
    Forgiven or not, the retry that follows a loss is the first, and never number 0.
    """
    supervision = supervisionIn(State.CLEANING)
    supervision.forgive()
    assert supervision.cleaned(NOW) == [ChooseDelay(1, WHY)]
    assert supervision.chosen(1.0, NOW) == [Wait(Retry(1, 1.0, WHY, 0.0))]


def test_startForgives() -> None:
    """
    Who stops and starts begins anew.
    """
    supervision = supervisionIn(State.WAITING)
    supervision.stop()
    assert supervision.start() == [Attempt(1)]
    assert supervision.failed(WHY, NOW)[-1] == ChooseDelay(1, WHY)


def test_failureAfterARestartIsReported() -> None:
    """
    That an earlier link was used is no reason to keep a later failure from who waits.
    """
    supervision = supervisionIn(State.ENDING)
    supervision.cleaned(NOW)
    supervision.start()
    assert supervision.failed(WHY, NOW) == [ReportFailure(WHY), ChooseDelay(1, WHY)]


# Giving up.


def test_permanentFailureOfAnAttempt() -> None:
    """
    A permanent failure is reported, and nothing is tried again.
    """
    supervision = supervisionIn(State.CONNECTING)
    assert supervision.failed(FOR_GOOD, NOW) == [ReportFailure(FOR_GOOD), GiveUp(FOR_GOOD)]
    assert supervision.state is State.GAVE_UP


def test_permanentFailureOfTheMaking() -> None:
    """
    So it is when preparing fails for good, once the link is cleaned up.
    """
    supervision = supervisionIn(State.PREPARING)
    supervision.rejected(FOR_GOOD)
    assert supervision.lost(FOR_GOOD, NOW, proven=False) == [CleanUp(FOR_GOOD)]
    assert supervision.cleaned(NOW) == [ReportFailure(FOR_GOOD), GiveUp(FOR_GOOD)]


def test_permanentFailureOfAUsedLink() -> None:
    """
    A link in use that is ended for good has nobody waiting for it.
    """
    supervision = supervisionIn(State.CONNECTED)
    supervision.rejected(FOR_GOOD)
    supervision.lost(FOR_GOOD, NOW, proven=True)
    assert supervision.cleaned(NOW) == [GiveUp(FOR_GOOD)]


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
    supervision = supervisionIn(State.CONNECTING, exhaustedBy(Backoff(maxAttempts=most)))
    orders = supervision.failed(WHY, NOW)
    for _ in range(most - 1):
        assert isinstance(orders[-1], ChooseDelay)
        orders = once(supervision)
    assert orders == [ReportFailure(WHY), GiveUp(WHY)]


@pytest.mark.parametrize("most", [1, 3])
def test_maxAttemptsAfterAProvenLink(most: int) -> None:
    """
    The loss of a proven link is no failed attempt: as many as allowed follow it.
    """
    supervision = supervisionIn(State.CONNECTED, exhaustedBy(Backoff(maxAttempts=most)))
    supervision.lost(WHY, NOW, proven=True)
    orders: list[Any] = supervision.cleaned(NOW)
    for _ in range(most):
        assert isinstance(orders[-1], ChooseDelay)
        orders = once(supervision)
    assert orders[-1] == GiveUp(WHY)


def test_maxElapsed() -> None:
    """
    It gives up once the first failure is so long ago.
    """
    supervision = supervisionIn(State.CONNECTING, exhaustedBy(Backoff(maxElapsed=60.0)))
    assert isinstance(supervision.failed(WHY, NOW)[-1], ChooseDelay)
    assert isinstance(once(supervision, now=NOW + 59.0)[-1], ChooseDelay)
    assert once(supervision, now=NOW + 61.0)[-1] == GiveUp(WHY)


def test_startAfterGivingUp() -> None:
    """
    A person may well start it again.
    """
    supervision = supervisionIn(State.GAVE_UP)
    assert supervision.start() == [Attempt(1)]
    assert supervision.connected() == [Prepare()]
