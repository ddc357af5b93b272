# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{HeartbeatClientService} with several endpoints, in virtual time: a round tries each once, and the
first to be prepared wins.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.error import (
    ConnectionLost,
    ConnectionRefusedError,
    DNSLookupError,
    NoRouteError,
)

from twisted_heartbeat import (
    Backoff,
    ClosedHere,
    ConnectFailed,
    Limits,
    PeerClosed,
    PermanentFailure,
)

from ..support.virtualnetwork import FakeEndpoint, FakeTransport
from .test_service import STEADY, Scene, failureOf


class Rounds(Scene):
    """
    A service with several endpoints.
    """

    def __init__(self, endpoints: int = 3, **settings: Any) -> None:
        super().__init__(endpoints=endpoints, **settings)

    @property
    def tried(self) -> list[int]:
        """
        How often each endpoint was tried.
        """
        return [len(endpoint.attempts) for endpoint in self.endpoints]

    def fail(self, index: int, error: Exception | None = None) -> None:
        """
        The attempt at an endpoint fails.
        """
        self.endpoints[index].attempts[-1].fail(error or ConnectionRefusedError())

    def connectTo(self, index: int) -> FakeTransport:
        """
        The attempt at an endpoint leads to a connection.
        """
        return self.connect(self.endpoints[index])


class Preparing:
    """
    A C{prepareConnection} that ends when the test says so.

    @ivar pending: what it has returned, by the number of the call.
    """

    def __init__(self) -> None:
        self.pending: list[Deferred[None]] = []

    def __call__(self, protocol: object) -> Deferred[None]:
        self.pending.append(Deferred())
        return self.pending[-1]


# The order of a round.


def test_nextAfterAFailure() -> None:
    """
    When one endpoint has failed, the next is tried in the same instant: a healthy third one is
    reached without a wait.
    """
    scene = Rounds()
    connected = scene.service.whenConnected(failAfterFailures=1)
    scene.service.startService()
    assert scene.tried == [1, 0, 0]
    scene.fail(0)
    assert scene.tried == [1, 1, 0]
    scene.fail(1)
    assert scene.tried == [1, 1, 1]
    scene.connectTo(2)
    assert connected.result is scene.factory.built[0]
    assert scene.clock.seconds() == 0
    assert scene.hooks.names == ["connecting", "connected"]
    scene.stop()


def test_nextAfterASecond() -> None:
    """
    An endpoint without an answer has the next tried beside it after a second, and the round goes on
    to a healthy third one within seconds.
    """
    scene = Rounds()
    scene.service.startService()
    scene.wait(0.875)
    assert scene.tried == [1, 0, 0]
    scene.wait(0.125)
    assert scene.tried == [1, 1, 0]
    scene.wait(1)
    assert scene.tried == [1, 1, 1]
    scene.connectTo(2)
    assert scene.service.state == "connected"
    assert [endpoint.attempts[0].cancelled for endpoint in scene.endpoints] == [True, True, False]
    scene.wait(100, step=5)
    assert scene.tried == [1, 1, 1]
    scene.stop()


def test_failureAndSecond() -> None:
    """
    The second is counted from the last attempt that began.
    """
    scene = Rounds()
    scene.service.startService()
    scene.wait(0.5)
    scene.fail(0)
    scene.wait(0.875)
    assert scene.tried == [1, 1, 0]
    scene.wait(0.125)
    assert scene.tried == [1, 1, 1]
    scene.stop()


def test_slowFirstWins() -> None:
    """
    An endpoint that was slow to answer wins, if it is still the first to be prepared.
    """
    scene = Rounds()
    scene.service.startService()
    scene.wait(2.5)
    transport = scene.connectTo(0)
    assert scene.service.state == "connected"
    assert scene.network.openTransports == [transport]
    scene.stop()


def test_lateAnswers() -> None:
    """
    What connects after the round has been decided is refused: there is never a second link.
    """
    scene = Rounds()
    scene.service.startService()
    scene.wait(2)
    transport = scene.connectTo(1)
    for index in (0, 2):
        attempt = scene.endpoints[index].attempts[0]
        with pytest.raises(Exception, match="^$"):
            attempt.factory.buildProtocol(None)
    assert scene.network.openTransports == [transport]
    scene.stop()


# Preparation.


def test_firstPreparedWins() -> None:
    """
    Of two that are connected the one that is prepared first is used; the other is closed, and it is
    never announced.
    """
    prepare = Preparing()
    scene = Rounds(prepareConnection=prepare)
    scene.service.startService()
    slow = scene.connectTo(0)
    scene.wait(1)
    quick = scene.connectTo(1)
    assert scene.service.state == "connecting"
    prepare.pending[1].callback(None)
    assert scene.service.state == "connected"
    scene.turn()
    assert scene.network.openTransports == [quick]
    assert not slow.open
    assert not slow.aborting
    assert len(scene.hooks.told("connected")) == 1
    assert [type(cause) for cause in scene.hooks.told("disconnected")] == [ClosedHere]
    assert prepare.pending[0].called
    scene.stop()


def test_rejectedWinner() -> None:
    """
    One that C{prepareConnection} rejects is closed, and the next is tried at once.
    """
    prepare = Preparing()
    scene = Rounds(prepareConnection=prepare)
    connected = scene.service.whenConnected(failAfterFailures=1)
    scene.service.startService()
    scene.connectTo(0)
    prepare.pending[0].errback(ValueError("a stranger"))
    scene.turn()
    assert scene.network.openTransports == []
    assert scene.tried == [1, 1, 0]
    scene.connectTo(1)
    prepare.pending[1].callback(None)
    assert connected.result is scene.factory.built[1]
    scene.stop()


def test_lossDuringPreparation() -> None:
    """
    One that is lost while it is prepared has the next tried, after its cleanups.
    """
    prepare = Preparing()
    scene = Rounds(prepareConnection=prepare)
    scene.service.startService()
    transport = scene.connectTo(0)
    cleaning: Deferred[None] = Deferred()
    scene.hooks.then["disconnected"] = lambda: cleaning
    transport.lose()
    assert scene.tried == [1, 0, 0]
    cleaning.callback(None)
    assert scene.tried == [1, 1, 0]
    scene.hooks.then.clear()
    scene.stop()


def test_preparationThatHangs() -> None:
    """
    One whose preparation hangs holds nobody up: the next is tried after a second, and wins.
    """
    prepare = Preparing()
    scene = Rounds(prepareConnection=prepare)
    scene.service.startService()
    scene.connectTo(0)
    scene.wait(1)
    scene.connectTo(1)
    prepare.pending[1].callback(None)
    assert scene.service.state == "connected"
    scene.stop()


# Rounds that fail.


def test_roundsAreCounted() -> None:
    """
    C{attempt}, C{retryPolicy}, C{maxAttempts} and C{failAfterFailures} count rounds, and backoff
    begins when a round has failed.
    """
    scene = Rounds(retryPolicy=Backoff(initial=1, jitter=None, spread=0, maxAttempts=3))
    waiting = scene.service.whenConnected(failAfterFailures=2)
    scene.service.startService()
    for number in (1, 2, 3):
        assert scene.tried == [number] * (1) + [number - 1] * 2
        for index in range(3):
            assert scene.service.state == "connecting"
            scene.fail(index)
        assert waiting.called is (number >= 2)
        if number < 3:
            assert scene.hooks.told("retrying")[-1].attempt == number
            scene.wait(2 ** (number - 1))
    assert scene.hooks.told("connecting") == [1, 2, 3]
    assert [retry.delay for retry in scene.hooks.told("retrying")] == [1, 2]
    assert scene.service.state == "gaveUp"
    assert isinstance(failureOf(waiting), ConnectionRefusedError)
    scene.stop()


@pytest.mark.parametrize(
    ("errors", "reported"),
    [
        ([ConnectionRefusedError("a"), ConnectionRefusedError("b"), ConnectionLost("c")], 0),
        ([DNSLookupError("a"), ConnectionRefusedError("b"), ConnectionLost("c")], 1),
        ([DNSLookupError("a"), NoRouteError("b"), DNSLookupError("c")], 0),
    ],
)
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_causeOfARound(errors: list[Exception], reported: int, order: tuple[int, ...]) -> None:
    """
    A round that failed has the cause that is retried soonest, and of several such ones that of the
    endpoint that was tried first, in whatever order they failed.
    """
    scene = Rounds()
    waiting = scene.service.whenConnected(failAfterFailures=1)
    scene.service.startService()
    scene.wait(2)
    for index in order:
        scene.fail(index, errors[index])
    assert failureOf(waiting) is errors[reported]
    [retry] = scene.hooks.told("retrying")
    assert type(retry.cause) is ConnectFailed
    assert retry.cause.__cause__ is errors[reported]
    scene.stop()


def test_everyAttemptIsBounded() -> None:
    """
    A round in which nobody answers fails when the last attempt has had C{connectTimeout}.
    """
    scene = Rounds(limits=Limits(connectTimeout=5))
    scene.service.startService()
    scene.wait(6.875)
    assert scene.service.state == "connecting"
    scene.wait(0.25)
    assert scene.service.state == "waiting"
    assert scene.tried == [1, 1, 1]
    scene.stop()


def test_permanentFailureEndsARound() -> None:
    """
    C{PermanentFailure} at one endpoint ends the round and the retrying: others are cancelled.
    """
    scene = Rounds()
    scene.service.startService()
    scene.wait(1)
    scene.fail(0, PermanentFailure("the key has been revoked"))
    assert scene.service.state == "gaveUp"
    assert scene.endpoints[1].attempts[0].cancelled
    assert scene.tried == [1, 1, 0]
    scene.stop()


def test_strangerIsLeft() -> None:
    """
    A round goes on at once when the link to one endpoint has ended and was never proven.  It has
    failed, as one, when no endpoint is left, and its cause is that of the first.
    """
    scene = Rounds()
    scene.service.startService()
    scene.connectTo(0).lose()
    assert scene.tried == [1, 1, 0]
    scene.fail(1)
    assert scene.tried == [1, 1, 1]
    assert scene.hooks.told("retrying") == []
    scene.connectTo(2).lose(ConnectionLost())
    [retry] = scene.hooks.told("retrying")
    assert (retry.attempt, retry.delay, type(retry.cause)) == (1, 1, PeerClosed)
    scene.wait(1)
    assert scene.tried == [2, 1, 1]
    scene.connectTo(0).lose()
    scene.connectTo(1).deliver(b"hello")
    assert scene.tried == [2, 2, 1]
    scene.stop()


def test_slowOneBesideAStranger() -> None:
    """
    An endpoint that was given up for another's link is tried again if that proves nothing.
    """
    scene = Rounds(2)
    scene.service.startService()
    scene.wait(1)
    assert scene.tried == [1, 1]
    scene.connectTo(1).lose()
    assert scene.tried == [2, 1]
    scene.connectTo(0).deliver(b"hello")
    assert scene.hooks.told("retrying") == []
    scene.stop()


def test_permanentFailureOfALink(loggedErrors: Any) -> None:
    """
    C{PermanentFailure} from a C{connected} hook ends the round.
    """
    scene = Rounds(2)
    scene.hooks.then["connected"] = lambda: fail(PermanentFailure("not this one"))
    scene.service.startService()
    scene.connectTo(0)
    scene.turn()
    assert scene.tried == [1, 0]
    assert [type(cause) for cause in scene.hooks.told("gaveUp")] == [PermanentFailure]
    loggedErrors.flush(PermanentFailure)
    scene.stop()


@pytest.mark.parametrize("stage", ["cleaning", "goingOn"])
def test_stopWhileARoundGoesOn(stage: str) -> None:
    """
    A service that is stopped tries no further endpoint, and begins with the first when it is
    started again.
    """
    scene = Rounds(2)
    scene.service.startService()
    transport = scene.connectTo(0)
    cleaning: Deferred[None] = Deferred()
    if stage == "cleaning":
        link = scene.service.link
        assert link is not None
        link.addCleanup(lambda: cleaning)
    transport.lose()
    assert scene.tried == [1, 0 if stage == "cleaning" else 1]
    stopped = scene.service.stopService()
    cleaning.callback(None)
    scene.turn()
    assert stopped.called
    scene.service.startService()
    assert scene.tried == [2, 0 if stage == "cleaning" else 1]
    scene.stop()


def test_whileTheFirstIsBack() -> None:
    """
    After a link to another endpoint that was proven, the first one is tried first again.
    """
    scene = Rounds(2)
    scene.service.startService()
    scene.fail(0)
    transport = scene.connectTo(1)
    transport.deliver(b"hello")
    transport.lose()
    scene.wait(1)
    assert scene.tried == [2, 1]
    scene.connectTo(0)
    scene.stop()


# Stopping, and trying anew.


@pytest.mark.parametrize("stage", ["connecting", "one connected", "one preparing"])
def test_stopDuringARound(stage: str) -> None:
    """
    C{stopService} during a round fires when all of its attempts and links are gone.
    """
    prepare = Preparing()
    scene = Rounds(prepareConnection=prepare if stage == "one preparing" else None)
    waiting = scene.service.whenConnected()
    scene.service.startService()
    scene.wait(1)
    if stage != "connecting":
        scene.connectTo(0)
    stopped = scene.service.stopService()
    scene.turn()
    assert stopped.called
    if stage != "one connected":
        assert isinstance(failureOf(waiting), CancelledError)
    scene.assertNothingLeft()
    scene.wait(100, step=5)
    assert scene.tried == [1, 1, 0]


def test_stopWaitsForLosers() -> None:
    """
    C{stopService} fires no sooner than the cleanups of those who have not won are over.
    """
    prepare = Preparing()
    scene = Rounds(prepareConnection=prepare)
    scene.service.startService()
    scene.connectTo(0)
    scene.wait(1)
    scene.connectTo(1)
    cleaning: Deferred[None] = Deferred()
    scene.hooks.then["disconnected"] = lambda: cleaning
    prepare.pending[1].callback(None)
    scene.turn()
    assert scene.service.state == "connected"
    scene.hooks.then.clear()
    stopped = scene.service.stopService()
    scene.turn()
    assert scene.service.state == "stopped"
    assert not stopped.called
    cleaning.callback(None)
    assert stopped.called
    scene.assertNothingLeft()


def test_stopWithoutOpenLosers() -> None:
    """
    A loser whose connection does not close is aborted after C{closeTimeout}.
    """
    prepare = Preparing()
    scene = Rounds(prepareConnection=prepare, limits=Limits(closeTimeout=2))
    scene.service.startService()
    stuck = scene.connectTo(0)
    stuck.stuck = True
    scene.wait(1)
    quick = scene.connectTo(1)
    prepare.pending[1].callback(None)
    scene.wait(2.25)
    assert scene.network.openTransports == [quick]
    scene.stop()


def test_reconnectNowDuringARound() -> None:
    """
    C{reconnectNow} replaces a round without an answer by another.
    """
    scene = Rounds()
    scene.service.startService()
    scene.wait(3)
    scene.service.reconnectNow()
    assert scene.tried == [2, 1, 1]
    assert scene.hooks.told("connecting") == [1, 1]
    scene.connectTo(0)
    scene.stop()


def test_oneEndpointInAList() -> None:
    """
    A list of one is as that one endpoint: its preparation has a state of its own.
    """
    scene = Rounds(1, prepareConnection=Preparing(), retryPolicy=STEADY)
    scene.startConnected()
    assert scene.service.state == "preparing"
    scene.wait(5)
    assert scene.tried == [1]
    scene.stop()


def test_endpointTwiceInAList() -> None:
    """
    An endpoint that is in the list twice is tried twice.
    """
    scene = Rounds(2)
    endpoint: FakeEndpoint = scene.endpoints[0]
    scene.service._endpoints[:] = [endpoint, endpoint]
    scene.service.startService()
    endpoint.attempts[0].fail(ConnectionRefusedError())
    assert len(endpoint.attempts) == 2
    transport = scene.connect(endpoint)
    transport.lose()
    assert isinstance(scene.hooks.told("disconnected")[-1], PeerClosed)
    scene.stop()


# Any order of events.

ACTS = st.lists(
    st.tuples(
        st.sampled_from(
            ["connect", "fail", "prepare", "reject", "lose", "speak", "wait", "now", "clean"]
        ),
        st.integers(0, 9),
    ),
    max_size=40,
)


class Cleaning:
    """
    C{disconnected} hooks that end when the test says so.
    """

    def __init__(self) -> None:
        self.pending: list[Deferred[None]] = []

    def __call__(self) -> Deferred[None]:
        self.pending.append(Deferred())
        return self.pending[-1]


@given(ACTS, st.booleans())
@settings(deadline=None, max_examples=300)
def test_anyOrderOfEventsLeavesAtMostOneLink(
    acts: list[tuple[str, int]], slowCleanups: bool
) -> None:
    """
    Whatever happens in whatever order: there is at most one link in use, nothing raises, and a
    stop always fires with nothing left.
    """
    prepare, cleaning = Preparing(), Cleaning()
    scene = Rounds(prepareConnection=prepare)
    if slowCleanups:
        scene.hooks.then["disconnected"] = cleaning
    scene.service.startService()
    for act, number in acts:
        tries = [a for e in scene.endpoints for a in e.attempts if not a.answered]
        pending = [d for d in prepare.pending if not d.called]
        if act in ("connect", "fail") and tries:
            attempt = tries[number % len(tries)]
            if act == "connect":
                attempt.succeed()
            else:
                attempt.fail(ConnectionRefusedError())
        elif act in ("prepare", "reject") and pending:
            preparing = pending[number % len(pending)]
            if act == "prepare":
                preparing.callback(None)
            else:
                preparing.errback(ValueError("a stranger"))
        elif act in ("lose", "speak") and scene.network.openTransports:
            opened = scene.network.openTransports
            transport = opened[number % len(opened)]
            if act == "lose":
                transport.lose()
            else:
                transport.deliver(b"hello")
        elif act == "wait":
            scene.wait(0.25 * number, step=0.25)
        elif act == "now":
            scene.service.reconnectNow()
        elif act == "clean" and cleaning.pending:
            cleaning.pending.pop().callback(None)
        used = len(scene.hooks.told("connected"))
        assert used <= len(scene.hooks.told("disconnected")) + 1
        link = scene.service.link
        assert (scene.service.state == "connected") <= (link is not None)
    stopped = scene.service.stopService()
    scene.wait(11, step=0.5)
    assert stopped.called
    scene.assertNothingLeft()
