# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The calling of hooks and the running of cleanups: user code's exceptions, and its never ending, get
no further than the log.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher
from twisted.python.failure import Failure

from twisted_heartbeat import LinkHooks, PeerClosed, Retry
from twisted_heartbeat.link.cleanups import Cleanup, runCleanups
from twisted_heartbeat.link.events import runHook

from ..conftest import LoggedErrors

NAMES = ["connecting", "connected", "suspected", "recovered", "disconnected", "retrying", "gaveUp"]


def test_hooksDoNothing() -> None:
    """
    Each hook may be left as it is: it does nothing.
    """
    hooks = LinkHooks()
    link: Any = object()
    cause = PeerClosed()
    retry = Retry(1, 1.0, cause, 0.0)
    assert [
        hooks.connecting(1),
        hooks.connected(link),
        hooks.suspected(link),
        hooks.recovered(link),
        hooks.disconnected(link, cause),
        hooks.retrying(retry),
        hooks.gaveUp(cause),
    ] == [None] * len(NAMES)


async def coroutine(deferred: Deferred[None]) -> str:
    """
    A hook as a coroutine.
    """
    await deferred
    return "its result means nothing"


@pytest.mark.parametrize("kind", ["plain", "Deferred", "coroutine"])
def test_runHook(kind: str) -> None:
    """
    A hook may return a plain value, a Deferred or a coroutine; what runs it fires when the hook
    has finished.
    """
    pending: Deferred[None] = Deferred()
    given: list[object] = []

    def hook(*arguments: object) -> object:
        given.extend(arguments)
        if kind == "coroutine":
            return coroutine(pending)
        return pending if kind == "Deferred" else "value"

    finished = runHook("connected", hook, 1, "two")
    assert given == [1, "two"]
    assert finished.called == (kind == "plain")
    pending.callback(None)
    assert finished.called


@pytest.mark.parametrize("how", ["raises", "fails", "fails later", "coroutine raises"])
def test_hookFails(how: str, loggedErrors: Any) -> None:
    """
    What a hook raises is logged once, with the hook's name, told to whoever asked, and goes no
    further.
    """
    pending: Deferred[None] = Deferred()
    error = ZeroDivisionError("in a hook")
    told: list[Failure] = []
    names: list[object] = []

    async def raising() -> None:
        raise error

    def hook() -> object:
        if how == "raises":
            raise error
        if how == "coroutine raises":
            return raising()
        return fail(error) if how == "fails" else pending

    def observe(event: LogEvent) -> None:
        if "hook" in event:
            names.append(event["hook"])

    globalLogPublisher.addObserver(observe)
    try:
        finished = runHook("suspected", hook, failed=told.append)
        if how == "fails later":
            assert not finished.called
            pending.errback(error)
    finally:
        globalLogPublisher.removeObserver(observe)
    assert finished.result is None
    assert [failure.value for failure in told] == [error]
    assert [failure.value for failure in loggedErrors.flush(ZeroDivisionError)] == [error]
    assert names == ["suspected"]


def test_cancelledHook(loggedErrors: LoggedErrors) -> None:
    """
    A C{CancelledError} in a hook is an error like any other: nobody but the user cancels a hook.
    """
    pending: Deferred[None] = Deferred()
    told: list[Failure] = []
    finished = runHook("connected", lambda: pending, failed=told.append)
    pending.cancel()
    assert finished.result is None
    assert [failure.type for failure in told] == [CancelledError]
    assert len(loggedErrors.flush(CancelledError)) == 1


class Steps:
    """
    Cleanups that note that they have begun, and finish when told.
    """

    def __init__(self) -> None:
        self.began: list[str] = []
        self.pending: dict[str, Deferred[None]] = {}

    def pendingStep(self, name: str, canceller: Callable[[Any], object] | None = None) -> Cleanup:
        """
        One that waits.
        """
        self.pending[name] = Deferred(canceller)

        def step() -> Deferred[None]:
            self.began.append(name)
            return self.pending[name]

        return Cleanup(name, step)

    def plainStep(self, name: str, error: Exception | None = None) -> Any:
        """
        One that is over at once.
        """

        def step() -> None:
            self.began.append(name)
            if error is not None:
                raise error

        return Cleanup(name, step)


@pytest.mark.parametrize("timeout", [None, 10.0])
def test_oneAfterTheOther(timeout: float | None) -> None:
    """
    Each step begins when the one before it has finished, and what runs them fires after the last.
    """
    steps, clock = Steps(), Clock()
    order = [steps.pendingStep("a"), steps.plainStep("b"), steps.pendingStep("c")]
    done = runCleanups(order, clock, timeout)
    assert steps.began == ["a"]
    steps.pending["a"].callback(None)
    assert steps.began == ["a", "b", "c"]
    assert not done.called
    steps.pending["c"].callback(None)
    assert done.result is None
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize("timeout", [None, 10.0])
def test_eachEvenIfAnotherRaises(timeout: float | None, loggedErrors: Any) -> None:
    """
    A step that raises or fails is logged, and the others run (promise 10).
    """
    steps, clock = Steps(), Clock()
    order = [
        steps.plainStep("a", KeyError("a")),
        steps.pendingStep("b"),
        steps.plainStep("c", ValueError("c")),
        steps.plainStep("d"),
    ]
    done = runCleanups(order, clock, timeout)
    steps.pending["b"].errback(ZeroDivisionError("b"))
    assert steps.began == ["a", "b", "c", "d"]
    assert done.result is None
    logged = loggedErrors.flush(KeyError, ValueError, ZeroDivisionError)
    assert [str(failure.value) for failure in logged] == ["'a'", "b", "c"]


def test_boundedTogether() -> None:
    """
    The steps have their time together, not each; when it is over the one under way is cancelled,
    and the others are begun and not waited for.
    """
    steps, clock = Steps(), Clock()
    cancelled: list[str] = []
    order = [
        steps.pendingStep("a"),
        steps.pendingStep("b", lambda _: cancelled.append("b")),
        steps.pendingStep("c"),
        steps.plainStep("d"),
    ]
    done = runCleanups(order, clock, 10.0)
    clock.advance(6)
    steps.pending["a"].callback(None)
    clock.advance(3.9)
    assert steps.began == ["a", "b"]
    clock.advance(0.1)
    clock.advance(0)
    assert cancelled == ["b"]
    assert steps.began == ["a", "b", "c", "d"]
    assert done.called
    clock.advance(100)
    assert clock.getDelayedCalls() == []


def test_stepThatIgnoresCancel(loggedErrors: Any) -> None:
    """
    A step that ignores being cancelled, or fails at it, is not waited for either.
    """
    clock = Clock()
    never: Deferred[None] = Deferred()

    async def stubborn() -> None:
        try:
            await never
        except CancelledError:
            await Deferred()

    def raising(_: object) -> None:
        raise ZeroDivisionError("in a canceller")

    steps = [Cleanup("stubborn", stubborn), Cleanup("raising", lambda: Deferred(raising))]
    done = runCleanups(steps, clock, 1.0)
    clock.advance(1)
    clock.advance(0)
    assert done.called
    assert clock.getDelayedCalls() == []
    loggedErrors.flush(ZeroDivisionError)


def test_noSteps() -> None:
    """
    Nothing to clean up takes no time.
    """
    assert runCleanups([], Clock(), 1.0).called
    assert runCleanups([Cleanup("a", lambda: succeed(None))], Clock(), None).called


def test_cleanupThatIsCancelledByItself(loggedErrors: LoggedErrors) -> None:
    """
    A C{CancelledError} of a step that nobody has cancelled is logged, and the next one runs.
    """

    def failing() -> None:
        raise CancelledError

    ran: list[str] = []
    steps = [Cleanup("failing", failing), Cleanup("next", lambda: ran.append("next"))]
    assert runCleanups(steps, Clock(), 1.0).called
    assert ran == ["next"]
    assert len(loggedErrors.flush(CancelledError)) == 1
