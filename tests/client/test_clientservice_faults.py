# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What wedges Twisted's C{ClientService}, leaves its socket open, or has it reconnect after stop: each
alone, first with Twisted's own, so that what C{docs/deviations.md} says of it is true, then with
L{HeartbeatClientService}, which must do none of it (promises 8 to 10 and 16).
"""

from __future__ import annotations

from typing import Any

import pytest
from automat import NoTransition
from twisted import version
from twisted.application.internet import ClientService
from twisted.internet.defer import AlreadyCalledError, CancelledError, Deferred
from twisted.internet.error import NotConnectingError
from twisted.internet.protocol import connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from twisted_heartbeat import Backoff, HeartbeatClientService

from ..support.virtualnetwork import FakeAttempt, FakeNetwork, FakeTransport, Kept, KeptFactory

onTwisted2610 = pytest.mark.skipif(
    (version.major, version.minor) != (26, 10),
    reason="what is said of Twisted's ClientService is said of that of 26.10",
)

A_LONG_TIME = 1000.0


class Scene:
    """
    One service, one endpoint, in virtual time.
    """

    def __init__(self, kind: Any, *, protocol: Any = Kept, **keywords: Any) -> None:
        self.clock = Clock()
        self.network = FakeNetwork(self.clock)
        self.endpoint = self.network.endpoint()
        self.factory = KeptFactory()
        self.factory.protocol = protocol
        keywords.setdefault("retryPolicy", lambda attempt: 1.0)
        self.service = kind(self.endpoint, self.factory, clock=self.clock, **keywords)

    @property
    def attempts(self) -> list[FakeAttempt]:
        """
        All that were made.
        """
        return self.endpoint.attempts

    def connect(self) -> FakeTransport:
        """
        The attempt under way leads to a connection.
        """
        transport = self.attempts[-1].succeed()
        assert transport is not None
        return transport

    def startConnected(self) -> FakeTransport:
        """
        Start, and be connected.
        """
        self.service.startService()
        return self.connect()

    def wait(self, seconds: float = A_LONG_TIME) -> None:
        """
        Time passes, and what is due in it happens at its time.
        """
        for _ in range(100):
            self.clock.advance(seconds / 100)

    def assertUp(self) -> None:
        """
        One new attempt has been made, it connects, and is in use: nothing is wedged.
        """
        self.wait(Backoff().spread)
        transport = self.connect()
        assert self.network.openTransports == [transport]
        connected = self.service.whenConnected()
        assert connected.result is self.factory.built[-1]
        self.stop()

    def stop(self) -> None:
        """
        It stops, and leaves nothing.
        """
        stopped = self.service.stopService()
        self.assertStopped(stopped)

    def assertStopped(self, stopped: Deferred[None]) -> None:
        """
        It stops in the next turns, leaves nothing, and makes no further attempt.
        """
        attempts = len(self.attempts)
        self.clock.advance(0)
        self.clock.advance(0)
        assert stopped.called
        assert self.network.openTransports == []
        assert self.clock.getDelayedCalls() == []
        self.wait()
        assert len(self.attempts) == attempts


# The connection is lost during prepareConnection.


@onTwisted2610
def test_twistedLostDuringPrepare() -> None:
    """
    Twisted's C{ClientService} never tries again, gives a dead protocol to whoever asks, and its
    C{stopService} never fires.
    """
    prepared: Deferred[None] = Deferred()
    scene = Scene(ClientService, prepareConnection=lambda protocol: prepared)
    transport = scene.startConnected()
    with pytest.raises(NoTransition):
        transport.lose()
    prepared.callback(None)
    scene.wait()
    assert len(scene.attempts) == 1
    assert scene.service.whenConnected().result is scene.factory.built[0]
    stopped = scene.service.stopService()
    scene.wait()
    assert not stopped.called


@pytest.mark.parametrize("finish", ["fires", "fails", "is cancelled"])
def test_lostDuringPrepare(finish: str) -> None:
    """
    A link lost during C{prepareConnection} is cleaned up and replaced, whatever becomes of the
    preparation (promise 16).
    """
    preparations: list[Deferred[None]] = []

    def prepare(protocol: object) -> Deferred[None] | None:
        if preparations:
            return None
        preparations.append(Deferred(lambda _: None if finish == "is cancelled" else late()))
        return preparations[0]

    def late() -> None:
        if finish == "fires":
            preparations[0].callback(None)
        else:
            preparations[0].errback(ValueError("too late"))

    scene = Scene(HeartbeatClientService, prepareConnection=prepare)
    waiting = scene.service.whenConnected()
    transport = scene.startConnected()
    transport.lose()
    assert not waiting.called
    scene.assertUp()
    assert len(scene.attempts) == 2
    assert waiting.result is scene.factory.built[1]


# prepareConnection rejects the connection.


@onTwisted2610
def test_twistedRejectedByPrepare() -> None:
    """
    Twisted's C{ClientService} leaves the socket of a rejected connection open beside the next one,
    and after C{stopService}, too.
    """

    def reject(protocol: object) -> None:
        raise ValueError("not this one")

    scene = Scene(ClientService, prepareConnection=reject)
    scene.startConnected()
    scene.clock.advance(1)
    scene.connect()
    assert len(scene.network.openTransports) == 2
    stopped = scene.service.stopService()
    scene.wait()
    assert stopped.called
    assert len(scene.network.openTransports) == 2


@pytest.mark.parametrize("later", [False, True])
def test_rejectedByPrepare(later: bool) -> None:
    """
    A connection that C{prepareConnection} rejects, at once or later, is closed before the next
    attempt (promise 16).
    """
    rejection: Deferred[None] = Deferred()
    answers: list[Any] = [rejection, None]
    scene = Scene(HeartbeatClientService, prepareConnection=lambda protocol: answers.pop(0))
    if not later:
        rejection.errback(ValueError("not this one"))
    transport = scene.startConnected()
    if later:
        assert transport.open
        rejection.errback(ValueError("not this one"))
    scene.clock.advance(0)
    assert not transport.open
    assert len(scene.attempts) == 1
    scene.assertUp()


# stopService during prepareConnection.


@onTwisted2610
def test_twistedStopDuringPrepare() -> None:
    """
    Twisted's C{ClientService} says that it has stopped, and leaves the socket open.
    """
    scene = Scene(ClientService, prepareConnection=lambda protocol: Deferred())
    transport = scene.startConnected()
    stopped = scene.service.stopService()
    scene.wait()
    assert stopped.called
    assert transport.open


@pytest.mark.parametrize("onCancel", ["nothing", "fires", "raises"])
def test_stopDuringPrepare(onCancel: str, loggedErrors: Any) -> None:
    """
    C{stopService} during C{prepareConnection} closes the link and fires, whatever the preparation
    makes of being cancelled (promise 9).
    """

    def canceller(deferred: Deferred[None]) -> None:
        if onCancel == "fires":
            deferred.callback(None)
        elif onCancel == "raises":
            deferred.errback(ValueError("I was not done"))

    scene = Scene(HeartbeatClientService, prepareConnection=lambda protocol: Deferred(canceller))
    waiting = scene.service.whenConnected()
    scene.startConnected()
    scene.stop()
    assert isinstance(waiting.result, Failure)
    assert waiting.result.check(CancelledError)
    waiting.addErrback(lambda _: None)
    loggedErrors.flush(ValueError)


# stopService from inside of a whenConnected callback.


@onTwisted2610
def test_twistedStopInsideWhenConnected() -> None:
    """
    Twisted's C{ClientService} raises, leaves the socket open, and reconnects although it no longer
    runs.
    """
    scene = Scene(ClientService)
    connected = scene.service.whenConnected()
    connected.addCallback(lambda _: scene.service.stopService())
    transport = scene.startConnected()
    assert isinstance(connected.result, Failure)
    assert connected.result.check(RuntimeError)
    connected.addErrback(lambda _: None)
    scene.wait()
    assert transport.open
    transport.lose()
    scene.wait()
    assert not scene.service.running
    assert len(scene.attempts) == 2


def test_stopInsideWhenConnected() -> None:
    """
    C{stopService} from inside of a C{whenConnected} callback closes the link, fires, and nothing
    is tried again (promise 9).
    """
    scene = Scene(HeartbeatClientService)
    stops: list[Deferred[None]] = []
    connected = scene.service.whenConnected()
    connected.addCallback(lambda _: stops.append(scene.service.stopService()))
    scene.startConnected()
    assert connected.result is None
    scene.assertStopped(stops[0])


@onTwisted2610
def test_twistedStopInsideFailedWhenConnected() -> None:
    """
    Twisted's C{ClientService} raises, and tries again although it no longer runs.
    """
    scene = Scene(ClientService)
    failed = scene.service.whenConnected(failAfterFailures=1)
    failed.addErrback(lambda _: scene.service.stopService())
    scene.service.startService()
    scene.attempts[0].fail(ValueError("no"))
    scene.wait()
    assert isinstance(failed.result, Failure)
    failed.addErrback(lambda _: None)
    assert not scene.service.running
    assert len(scene.attempts) == 2


def test_stopInsideFailedWhenConnected() -> None:
    """
    The same from inside of its errback: nothing is tried again (promise 9).
    """
    scene = Scene(HeartbeatClientService)
    stops: list[Deferred[None]] = []
    failed = scene.service.whenConnected(failAfterFailures=1)
    failed.addErrback(lambda _: stops.append(scene.service.stopService()))
    scene.service.startService()
    scene.attempts[0].fail(ValueError("no"))
    scene.assertStopped(stops[0])
    assert len(scene.attempts) == 1


# whenConnected inside of connectionLost.


class Asking(Kept):
    """
    Asks for the next connection as soon as this one is lost.
    """

    service: Any = None
    answer: Any = None

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Ask.
        """
        super().connectionLost(reason)
        if self.answer is None:
            type(self).answer = self.service.whenConnected()


def askingScene(kind: Any) -> Scene:
    """
    A service whose protocols ask it for the next connection.
    """
    asking: Any = type("Asking", (Asking,), {})
    scene = Scene(kind, protocol=asking)
    asking.service = scene.service
    return scene


@onTwisted2610
def test_twistedWhenConnectedInsideConnectionLost() -> None:
    """
    Twisted's C{ClientService} answers with the connection that has just been lost.
    """
    scene = askingScene(ClientService)
    scene.startConnected().lose()
    assert scene.factory.built[0].answer.result is scene.factory.built[0]


def test_whenConnectedInsideConnectionLost() -> None:
    """
    C{whenConnected} inside of C{connectionLost} fires with the next link, never with the dead one.
    """
    scene = askingScene(HeartbeatClientService)
    scene.startConnected().lose()
    answer = scene.factory.built[0].answer
    assert not answer.called
    scene.assertUp()
    assert answer.result is scene.factory.built[1]


# An exception in retryPolicy.


def noPolicy(attempt: int) -> float:
    """
    A policy with a fault.
    """
    raise ZeroDivisionError(f"attempt {attempt}")


@onTwisted2610
def test_twistedPolicyRaises(loggedErrors: Any) -> None:
    """
    Twisted's C{ClientService} never tries again, and can not be stopped.
    """
    scene = Scene(ClientService, retryPolicy=noPolicy)
    scene.service.startService()
    scene.attempts[0].fail(ValueError("no"))
    scene.wait()
    assert len(scene.attempts) == 1
    with pytest.raises(AssertionError):
        scene.service.stopService()
    scene.attempts[0].result.addErrback(lambda _: None)
    loggedErrors.flush(ZeroDivisionError)


@pytest.mark.parametrize("connected", [False, True])
@pytest.mark.parametrize(
    "policy",
    [
        noPolicy,
        lambda attempt: None,
        lambda attempt: "soon",
        lambda attempt: -1.0,
        lambda attempt: float("nan"),
        lambda attempt: float("inf"),
    ],
    ids=["raises", "None", "a word", "negative", "nan", "inf"],
)
def test_policyRaises(policy: Any, connected: bool, loggedErrors: Any) -> None:
    """
    A C{retryPolicy} that raises, or returns what is no time, is logged, and the default's delay
    is taken: there is a next attempt (promise 16).
    """
    scene = Scene(HeartbeatClientService, retryPolicy=policy)
    scene.service.startService()
    if connected:
        scene.connect().lose()
    else:
        scene.attempts[0].fail(ValueError("no"))
    assert scene.service.state == "waiting"
    assert len(loggedErrors.flush(ZeroDivisionError, TypeError, ValueError)) == 1
    scene.assertUp()


@onTwisted2610
def test_twistedStopInsidePolicy(loggedErrors: Any) -> None:
    """
    Twisted's C{ClientService} raises inside of the policy, and is stopped for good halfway.
    """
    raised: list[Exception] = []

    def policy(attempt: int) -> float:
        try:
            scene.service.stopService()
        except Exception as error:
            raised.append(error)
        return 1.0

    scene = Scene(ClientService, retryPolicy=policy)
    scene.service.startService()
    scene.attempts[0].fail(ValueError("no"))
    assert [type(error) for error in raised] == [RuntimeError]
    scene.wait()
    assert not scene.service.running
    assert len(scene.attempts) == 2
    loggedErrors.flush()


def test_stopInsidePolicy() -> None:
    """
    C{stopService} from inside of C{retryPolicy}: it fires, and nothing is tried again.
    """
    stops: list[Deferred[None]] = []

    def policy(attempt: int) -> float:
        stops.append(scene.service.stopService())
        return 1.0

    scene = Scene(HeartbeatClientService, retryPolicy=policy)
    scene.service.startService()
    scene.attempts[0].fail(ValueError("no"))
    scene.assertStopped(stops[0])
    assert len(scene.attempts) == 1


# stopService from inside of connectionMade.


@onTwisted2610
def test_twistedStopInsideConnectionMade(loggedErrors: Any) -> None:
    """
    Twisted's C{ClientService} raises, leaves the socket open, and can not be stopped any more.
    """
    scene = stoppingScene(ClientService)
    scene.service.startService()
    with pytest.raises(AlreadyCalledError):
        scene.attempts[0].succeed()
    assert isinstance(scene.factory.built[0].stopping, NotConnectingError)
    scene.wait()
    assert len(scene.network.openTransports) == 1
    loggedErrors.flush()


def test_stopInsideConnectionMade() -> None:
    """
    C{stopService} from inside of C{connectionMade} closes the connection and fires (promise 9).
    """
    scene = stoppingScene(HeartbeatClientService)
    scene.service.startService()
    scene.attempts[0].succeed()
    scene.assertStopped(scene.factory.built[0].stopping)


def stoppingScene(kind: Any) -> Scene:
    """
    A service whose protocol stops it as soon as it is connected.
    """

    class Stopping(Kept):
        def connectionMade(self) -> None:
            try:
                self.stopping = scene.service.stopService()
            except Exception as error:
                self.stopping = error

    scene = Scene(kind, protocol=Stopping)
    return scene


# connectionMade raises.


class Failing(Kept):
    """
    Raises as soon as it is connected, until it is told otherwise.
    """

    fails = True

    def connectionMade(self) -> None:
        if self.fails:
            raise ValueError("not now")


@onTwisted2610
def test_twistedConnectionMadeRaises() -> None:
    """
    Twisted's C{ClientService} never tries again, and can not be stopped.
    """
    scene = Scene(ClientService, protocol=Failing)
    scene.service.startService()
    with pytest.raises(NoTransition):
        scene.attempts[0].succeed()
    scene.wait()
    assert len(scene.attempts) == 1
    with pytest.raises(NotConnectingError):
        scene.service.stopService()


def test_connectionMadeRaises() -> None:
    """
    A protocol whose C{connectionMade} raises loses its connection, and there is a retry
    (promise 16).
    """
    scene = Scene(HeartbeatClientService, protocol=type("FailingOnce", (Failing,), {}))
    scene.service.startService()
    scene.attempts[0].succeed()
    scene.factory.protocol.fails = False
    scene.assertUp()
