# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{HeartbeatClientService} in virtual time: who is told what, in which order, and that it always
comes up again or stops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.error import (
    ConnectError,
    ConnectionClosed,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    NoProtocol,
)
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from twisted_heartbeat import (
    Backoff,
    ClosedHere,
    ConnectFailed,
    Heartbeat,
    HeartbeatClientService,
    Limits,
    PeerClosed,
    PeerSilent,
    PermanentFailure,
)

from ..support.virtualnetwork import (
    FakeAttempt,
    FakeEndpoint,
    FakeNetwork,
    FakeTransport,
    Kept,
    KeptFactory,
    Recorder,
)

# Without jitter and spread, so that instants are exact.
STEADY = Backoff(initial=1, maximum=60, factor=2, jitter=None, spread=0, stableAfter=10)


class Scene:
    """
    One service in virtual time, and all around it.
    """

    def __init__(
        self,
        *,
        protocol: Any = Kept,
        endpoints: int | None = None,
        endpoint: Any = None,
        **settings: Any,
    ) -> None:
        self.clock = Clock()
        self.network = FakeNetwork(self.clock)
        self.endpoints = [self.network.endpoint() for _ in range(endpoints or 1)]
        self.factory = KeptFactory()
        self.factory.protocol = protocol
        self.hooks = Recorder()
        settings = {"retryPolicy": STEADY, "hooks": self.hooks, **settings}
        chosen: Any = self.endpoints if endpoints else self.endpoints[0]
        self.service = HeartbeatClientService(
            endpoint or chosen, self.factory, clock=self.clock, **settings
        )

    @property
    def attempts(self) -> list[FakeAttempt]:
        """
        All that were made at the first endpoint.
        """
        return self.endpoints[0].attempts

    def connect(self, endpoint: FakeEndpoint | None = None) -> FakeTransport:
        """
        The attempt under way leads to a connection.
        """
        transport = (endpoint or self.endpoints[0]).attempts[-1].succeed()
        assert transport is not None
        return transport

    def startConnected(self) -> FakeTransport:
        """
        Start, and be connected.
        """
        self.service.startService()
        return self.connect()

    def turn(self) -> None:
        """
        Whatever is due now happens, and what follows from it now.
        """
        for _ in range(4):
            self.clock.advance(0)

    def wait(self, seconds: float, step: float = 0.125) -> None:
        """
        Time passes in steps, so that what is due happens at its time.
        """
        for _ in range(round(seconds / step)):
            self.clock.advance(step)

    def failAttempts(self, times: int, wait: float) -> None:
        """
        So many times the attempt under way fails, if there is one, and time passes.
        """
        for _ in range(times):
            if not self.attempts[-1].answered:
                self.attempts[-1].fail(ConnectionRefusedError())
            self.wait(wait)

    def assertNothingLeft(self) -> None:
        """
        It is stopped, without any remains, and stays so.
        """
        assert self.service.state == "stopped"
        assert self.service.link is None
        assert self.network.openTransports == []
        assert self.clock.getDelayedCalls() == []

    def stop(self) -> None:
        """
        It stops.
        """
        stopped = self.service.stopService()
        self.turn()
        assert stopped.called
        self.assertNothingLeft()


def failureOf(deferred: Deferred[Any]) -> BaseException:
    """
    What a Deferred has failed with.
    """
    taken: list[Failure] = []
    deferred.addErrback(taken.append)
    assert len(taken) == 1, deferred
    return taken[0].value


# whenConnected.


def test_whenConnectedWaits() -> None:
    """
    C{whenConnected} fires with the factory's own protocol once connected, and at once from then on.
    """
    scene = Scene()
    before = scene.service.whenConnected()
    scene.service.startService()
    during = scene.service.whenConnected()
    assert not before.called
    assert not during.called
    scene.connect()
    after = scene.service.whenConnected()
    assert before.result is during.result is after.result is scene.factory.built[0]
    scene.stop()


def test_whenConnectedWaitsForPreparation() -> None:
    """
    Nobody gets a protocol before it is prepared; C{prepareConnection} gets what speaks to the
    transport.
    """
    prepared: Deferred[str] = Deferred()
    given: list[Any] = []

    def prepare(protocol: Any) -> Deferred[str]:
        given.append(protocol)
        return prepared

    scene = Scene(prepareConnection=prepare)
    connected = scene.service.whenConnected()
    scene.startConnected()
    assert scene.service.state == "preparing"
    assert not connected.called
    assert scene.hooks.names == ["connecting"]
    assert given[0].transport is scene.network.transports[0]
    prepared.callback("its result means nothing")
    assert scene.service.state == "connected"
    assert scene.hooks.names == ["connecting", "connected"]
    assert connected.result is scene.factory.built[0]
    scene.stop()


@pytest.mark.parametrize("kind", ["refused", "rejected", "lost in preparation"])
def test_failAfterFailures(kind: str) -> None:
    """
    C{whenConnected(failAfterFailures=2)} fails with the second failed attempt's error, however the
    attempts fail; one without a number goes on to wait.
    """

    def prepare(protocol: object) -> Deferred[None] | None:
        if kind == "rejected":
            raise ValueError("rejected")
        return Deferred() if kind == "lost in preparation" else None

    def failOnce() -> None:
        if kind == "refused":
            scene.attempts[-1].fail(ConnectionRefusedError())
        else:
            transport = scene.connect()
            if kind == "lost in preparation":
                transport.lose()
            scene.turn()

    scene = Scene(prepareConnection=prepare)
    second = scene.service.whenConnected(failAfterFailures=2)
    first = scene.service.whenConnected(failAfterFailures=1)
    patient = scene.service.whenConnected()
    scene.service.startService()
    failOnce()
    expected = {
        "refused": ConnectionRefusedError,
        "rejected": ValueError,
        "lost in preparation": PeerClosed,
    }[kind]
    assert isinstance(failureOf(first), expected)
    assert not second.called
    scene.clock.advance(1)
    failOnce()
    assert isinstance(failureOf(second), expected)
    assert not patient.called
    scene.stop()
    assert isinstance(failureOf(patient), CancelledError)


def test_lossDoesNotCountAsFailure() -> None:
    """
    The loss of a link that had been in use is no failed attempt: who waits for the next link with
    C{failAfterFailures=1} gets it.
    """
    scene = Scene()
    transport = scene.startConnected()
    transport.lose()
    waiting = scene.service.whenConnected(failAfterFailures=1)
    scene.wait(2)
    scene.connect()
    assert waiting.result is scene.factory.built[1]
    scene.stop()


def test_whenConnectedAfterStop() -> None:
    """
    Before the first start it waits; after a stop it fails with C{CancelledError}; after another
    start it waits again.
    """
    scene = Scene()
    waiting = scene.service.whenConnected()
    scene.service.startService()
    scene.stop()
    assert isinstance(failureOf(waiting), CancelledError)
    assert isinstance(failureOf(scene.service.whenConnected()), CancelledError)
    scene.service.startService()
    again = scene.service.whenConnected()
    scene.connect()
    assert again.result is scene.factory.built[0]
    scene.stop()


def test_whenConnectedWhileDying() -> None:
    """
    A link that has been aborted, and has not reported its loss yet, is nobody's connection any
    more: C{whenConnected} waits for the next.
    """
    scene = Scene()
    scene.startConnected()
    link = scene.service.link
    assert link is not None
    link.abort(ClosedHere())
    waiting = scene.service.whenConnected()
    assert not waiting.called
    scene.wait(2)
    scene.connect()
    assert waiting.result is scene.factory.built[1]
    scene.stop()


# whenDisconnected, state, link.


def test_whenDisconnected() -> None:
    """
    C{whenDisconnected} fires with the cause once the link is cleaned up, and before the next
    attempt; without a link, at once with C{None}.
    """
    scene = Scene()
    assert scene.service.whenDisconnected().result is None
    transport = scene.startConnected()
    cleaning: Deferred[None] = Deferred()
    assert scene.service.link is not None
    scene.service.link.addCleanup(lambda: cleaning)
    gone = scene.service.whenDisconnected()
    transport.lose(ConnectionDone())
    assert not gone.called
    cleaning.callback(None)
    assert isinstance(gone.result, PeerClosed)
    assert len(scene.attempts) == 1
    scene.stop()


def test_stateAndLink() -> None:
    """
    C{state} names each step of the way, and C{link} is the link from prepared to closed.
    """
    prepared: Deferred[None] = Deferred()
    scene = Scene(prepareConnection=lambda protocol: prepared)
    service = scene.service
    seen: list[Any] = []

    def look() -> None:
        seen.append((service.state, None if service.link is None else service.link.generation))

    look()
    service.startService()
    look()
    transport = scene.connect()
    look()
    prepared.callback(None)
    look()
    cleaning: Deferred[None] = Deferred()
    assert service.link is not None
    service.link.addCleanup(lambda: cleaning)
    transport.lose()
    seen.append(service.state)
    cleaning.callback(None)
    look()
    scene.clock.advance(1)
    look()
    scene.connect()
    look()
    stopped = service.stopService()
    look()
    scene.turn()
    look()
    assert stopped.called
    assert seen == [
        ("stopped", None),
        ("connecting", None),
        ("preparing", 1),
        ("connected", 1),
        "cleaning",
        ("waiting", None),
        ("connecting", None),
        ("connected", 2),
        ("closing", 2),
        ("stopped", None),
    ]


def test_startTwice() -> None:
    """
    A second C{startService} makes no second attempt.
    """
    scene = Scene()
    scene.service.startService()
    scene.service.startService()
    assert len(scene.attempts) == 1
    scene.stop()


# Several endpoints; see test_rounds, too.


def test_noEndpoints() -> None:
    """
    An empty list of endpoints is refused at once, in one sentence.
    """
    with pytest.raises(ValueError, match="endpoint is an empty list"):
        HeartbeatClientService([], KeptFactory(), clock=Clock())


@pytest.mark.parametrize(("proven", "next_"), [(True, 0), (False, 2)])
def test_whereARoundBegins(proven: bool, next_: int) -> None:
    """
    After a proven link the next round begins with the first endpoint, after a wait; after one that
    was not, the round goes on at once with the endpoint that has not failed.
    """
    scene = Scene(endpoints=3)
    scene.service.startService()
    scene.endpoints[0].attempts[0].fail(ConnectionRefusedError())
    transport = scene.connect(scene.endpoints[1])
    if proven:
        transport.deliver(b"hello")
    before = [len(endpoint.attempts) for endpoint in scene.endpoints]
    transport.lose()
    delays = [retry.delay for retry in scene.hooks.told("retrying")]
    assert len(delays) == proven
    scene.clock.advance(sum(delays))
    after = [len(endpoint.attempts) for endpoint in scene.endpoints]
    assert [index for index in range(3) if after[index] > before[index]] == [next_]
    scene.stop()


# Giving up.


def test_permanentFailure() -> None:
    """
    C{PermanentFailure} from C{prepareConnection} ends it: the socket is closed, the hook called,
    whoever waits is told, and nothing is tried again (promise 15).
    """
    verdict = PermanentFailure("the key has been revoked")

    def prepare(protocol: object) -> None:
        raise verdict

    scene = Scene(prepareConnection=prepare)
    waiting = scene.service.whenConnected()
    scene.startConnected()
    scene.turn()
    assert failureOf(waiting) is verdict
    assert scene.service.state == "gaveUp"
    assert scene.hooks.told("gaveUp") == [verdict]
    assert scene.hooks.told("disconnected") == [verdict]
    assert scene.network.openTransports == []
    assert scene.clock.getDelayedCalls() == []
    assert failureOf(scene.service.whenConnected()) is verdict
    scene.service.reconnectNow()
    scene.wait(100)
    assert len(scene.attempts) == 1
    scene.stop()


@pytest.mark.parametrize("where", ["endpoint", "connected hook", "abort"])
def test_permanentFailureFromElsewhere(where: str, loggedErrors: Any) -> None:
    """
    C{PermanentFailure} stops the retrying wherever the user raises it.
    """
    scene = Scene()
    verdict = PermanentFailure("enough")

    def refuse() -> None:
        raise verdict

    if where == "connected hook":
        scene.hooks.then["connected"] = refuse
    scene.service.startService()
    if where == "endpoint":
        scene.attempts[0].fail(verdict)
    else:
        scene.connect()
    if where == "abort":
        assert scene.service.link is not None
        scene.service.link.abort(verdict)
    scene.turn()
    assert scene.service.state == "gaveUp"
    assert scene.hooks.told("gaveUp") == [verdict]
    loggedErrors.flush(PermanentFailure)
    scene.stop()


def test_maxAttempts() -> None:
    """
    C{maxAttempts=3} means three failed attempts in a row, and no fourth.
    """
    scene = Scene(retryPolicy=Backoff(initial=1, factor=1, jitter=None, spread=0, maxAttempts=3))
    waiting = scene.service.whenConnected()
    scene.service.startService()
    scene.failAttempts(5, wait=2)
    assert len(scene.attempts) == 3
    assert scene.service.state == "gaveUp"
    assert [type(cause) for cause in scene.hooks.told("gaveUp")] == [ConnectFailed]
    assert isinstance(failureOf(waiting), ConnectionRefusedError)
    scene.stop()


def test_maxAttemptsCountsInARow() -> None:
    """
    A proven link ends the row: C{maxAttempts} is counted from there.
    """
    scene = Scene(retryPolicy=Backoff(initial=1, factor=1, jitter=None, spread=0, maxAttempts=2))
    scene.service.startService()
    for _ in range(4):
        scene.attempts[-1].fail(ConnectionRefusedError())
        scene.wait(1)
        transport = scene.connect()
        transport.deliver(b"hello")
        transport.lose()
        assert scene.service.state == "waiting"
        scene.wait(1)
    scene.stop()


def test_maxElapsed() -> None:
    """
    C{maxElapsed=10} gives up once ten seconds have passed since the first failure, and not before.
    """
    scene = Scene(retryPolicy=Backoff(initial=1, factor=1, jitter=None, spread=0, maxElapsed=10))
    scene.service.startService()
    gaveUpAt = None
    for second in range(30):
        if not scene.attempts[-1].answered:
            scene.attempts[-1].fail(ConnectionRefusedError())
        if scene.service.state == "gaveUp":
            gaveUpAt = second
            break
        scene.clock.advance(1)
    assert gaveUpAt in (10, 11)
    assert scene.hooks.names[-1] == "gaveUp"
    scene.stop()


def test_changedSettings() -> None:
    """
    Changed settings hold for the next links; the present one keeps its own.  What is not named
    stays.
    """
    scene = Scene(heartbeat=Heartbeat.within(8))
    first = scene.startConnected()
    link = scene.service.link
    assert link is not None
    later = Recorder()
    policy = Backoff(initial=2, maximum=2, jitter=None, spread=0)
    scene.service.changeSettings(policy, limits=None, hooks=later)
    assert (link.config.heartbeat, first.open) == (Heartbeat.within(8), True)
    first.lose()
    scene.wait(2)
    scene.connect()
    scene.service.changeSettings(policy, heartbeat=Heartbeat.within(4))
    [second] = later.told("connected")
    assert second.config.heartbeat == Heartbeat.within(8)
    scene.stop()
    assert scene.hooks.names == ["connecting", "connected", "disconnected"]
    assert later.names == ["retrying", "connecting", "connected", "disconnected"]


def test_changedSettingsBeforeTheStart() -> None:
    """
    Before the first start all settings are simply the new ones.
    """
    scene = Scene(retryPolicy=Backoff(maxAttempts=1))
    scene.service.changeSettings(
        Backoff(initial=1, factor=1, jitter=None, spread=0, maxAttempts=3), limits=None
    )
    scene.service.startService()
    scene.failAttempts(5, wait=2)
    assert len(scene.attempts) == 3
    scene.stop()


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("wrong", ["heartbat", "clock", "generations"])
def test_wrongSettingChangesNothing(begun: bool, wrong: str) -> None:
    """
    A name that is no setting, or one that can not be changed, is refused at once, with nothing
    changed.
    """
    scene, later = Scene(), Recorder()
    if begun:
        scene.startConnected().lose()
        scene.service.stopService()
    with pytest.raises(TypeError, match=f"{wrong} cannot be changed"):
        scene.service.changeSettings(Backoff(), hooks=later, **{wrong: None})
    scene.service.startService()
    scene.wait(2)
    scene.connect()
    scene.stop()
    assert (scene.hooks.names[-2:], later.names) == (["connected", "disconnected"], [])


def test_changedPolicyWhileItTries() -> None:
    """
    A new limit of attempts holds for a row of failures that has begun.
    """
    scene = Scene(retryPolicy=Backoff(initial=1, factor=1, jitter=None, spread=0))
    scene.service.startService()
    for _ in range(5):
        scene.attempts[-1].fail(ConnectionRefusedError())
        scene.wait(1)
    scene.service.changeSettings(Backoff(initial=1, jitter=None, spread=0, maxAttempts=6))
    scene.attempts[-1].fail(ConnectionRefusedError())
    assert scene.service.state == "gaveUp"
    scene.stop()


def test_startAfterGivingUp() -> None:
    """
    After giving up, a stop and a start begin anew.
    """
    scene = Scene(retryPolicy=Backoff(initial=1, jitter=None, spread=0, maxAttempts=1))
    scene.service.startService()
    scene.failAttempts(2, wait=4)
    assert scene.service.state == "gaveUp"
    scene.stop()
    scene.service.startService()
    assert scene.hooks.told("connecting")[-1] == 1
    scene.connect()
    assert scene.service.state == "connected"
    scene.stop()


# Attempts.


def test_connectTimeout() -> None:
    """
    An endpoint that never answers is cancelled after C{connectTimeout}, and tried again.
    """
    scene = Scene(limits=Limits(connectTimeout=3))
    failed = scene.service.whenConnected(failAfterFailures=1)
    scene.service.startService()
    scene.clock.advance(2.9)
    assert not scene.attempts[0].cancelled
    scene.clock.advance(0.1)
    assert scene.attempts[0].cancelled
    [retry] = scene.hooks.told("retrying")
    assert type(retry.cause) is ConnectFailed
    assert "3 s" in str(retry.cause)
    assert isinstance(failureOf(failed), ConnectError)
    scene.wait(1)
    scene.connect()
    assert scene.service.state == "connected"
    scene.wait(10)
    assert scene.service.state == "connected"
    scene.stop()


class StubbornEndpoint(FakeEndpoint):
    """
    Ignores being cancelled, as a coroutine that catches C{CancelledError} does.
    """

    def connect(self, factory: Any) -> Deferred[Any]:
        connected = super().connect(factory)
        answers: list[Deferred[Any]] = []

        async def answer() -> Any:
            while True:
                answers.append(Deferred())
                try:
                    return await answers[-1]
                except CancelledError:
                    continue

        connected.addBoth(lambda result: answers[-1].callback(result))
        return Deferred.fromCoroutine(answer())


def stubbornScene(**settings: Any) -> tuple[Scene, StubbornEndpoint]:
    """
    A service whose endpoint can not be cancelled.
    """
    network = FakeNetwork(Clock())
    endpoint = StubbornEndpoint(network)
    scene = Scene(endpoint=endpoint, **settings)
    network.clock = scene.clock
    scene.network = network
    return scene, endpoint


def test_timeoutOfStubbornEndpoint() -> None:
    """
    An endpoint that ignores being cancelled does not keep the next attempt from being made, and
    what it connects to after that is refused: there are never two links (promise 16).
    """
    scene, endpoint = stubbornScene(limits=Limits(connectTimeout=3))
    scene.service.startService()
    scene.wait(5)
    assert len(endpoint.attempts) == 2
    transport = endpoint.attempts[1].succeed()
    assert scene.service.state == "connected"
    assert endpoint.attempts[0].succeed() is None
    assert scene.network.openTransports == [transport]
    assert scene.service.whenConnected().result is scene.factory.built[0]
    scene.stop()


def test_stopWithStubbornEndpoint() -> None:
    """
    C{stopService} fires within C{closeTimeout} even if the endpoint ignores being cancelled; what
    it connects to after that is refused (promise 9).
    """
    scene, endpoint = stubbornScene(limits=Limits(closeTimeout=2, connectTimeout=30))
    scene.service.startService()
    stopped = scene.service.stopService()
    scene.wait(2)
    assert stopped.called
    scene.assertNothingLeft()
    assert endpoint.attempts[0].succeed() is None
    assert scene.network.transports == []
    assert len(scene.hooks.told("connecting")) == 1


@pytest.mark.parametrize("limits", [Limits(), None], ids=["limits", "no limits"])
@pytest.mark.parametrize("fault", ["raises", "returns None", "connectionMade raises"])
def test_factoryFails(fault: str, limits: Limits | None) -> None:
    """
    C{buildProtocol} that raises or returns C{None}, and C{connectionMade} that raises, make a
    failed attempt: it is reported and retried, and no socket stays open (promise 16).
    """

    class Faulty(Kept):
        def connectionMade(self) -> None:
            if faults:
                raise faults.pop()

    class FaultyFactory(KeptFactory):
        def buildProtocol(self, addr: Any) -> Any:
            if faults and fault == "raises":
                raise faults.pop()
            if faults and fault == "returns None":
                faults.pop()
                return None
            return super().buildProtocol(addr)

    faults: list[Exception] = [ZeroDivisionError("in user code")]
    scene = Scene(limits=limits)
    scene.factory.__class__ = FaultyFactory
    scene.factory.protocol = Faulty
    failed = scene.service.whenConnected(failAfterFailures=1)
    scene.service.startService()
    assert scene.attempts[0].succeed() is None
    scene.turn()
    expected = NoProtocol if fault == "returns None" else ZeroDivisionError
    assert failed.called
    assert isinstance(failureOf(failed), (expected, ConnectError, ConnectionClosed))
    scene.wait(2)
    scene.connect()
    assert scene.service.state == "connected"
    assert len(scene.network.openTransports) == 1
    scene.stop()


def test_endpointRaises() -> None:
    """
    An endpoint whose C{connect} raises makes a failed attempt.
    """

    class Raising:
        attempts = 0

        def connect(self, factory: object) -> None:
            self.attempts += 1
            raise ZeroDivisionError("in an endpoint")

    endpoint = Raising()
    scene = Scene(endpoint=endpoint)
    failed = scene.service.whenConnected(failAfterFailures=1)
    scene.service.startService()
    assert isinstance(failureOf(failed), ZeroDivisionError)
    scene.wait(1)
    assert endpoint.attempts == 2
    scene.stop()


# Waiting.


def test_reconnectNow() -> None:
    """
    C{reconnectNow} cuts a wait short, and does nothing in any other state (promise 14).
    """
    scene = Scene()
    scene.service.reconnectNow()
    assert scene.attempts == []
    scene.service.startService()
    scene.service.reconnectNow()
    assert len(scene.attempts) == 1
    scene.attempts[0].fail(ConnectionRefusedError())
    assert scene.service.state == "waiting"
    scene.service.reconnectNow()
    assert len(scene.attempts) == 2
    assert scene.clock.seconds() == 0
    transport = scene.connect()
    scene.service.reconnectNow()
    assert transport.open
    scene.wait(5)
    assert len(scene.attempts) == 2
    scene.stop()
    scene.service.reconnectNow()
    assert len(scene.attempts) == 2


def test_acceptThenClose() -> None:
    """
    A server that accepts and then closes is asked less and less often: a link that was not proven
    resets nothing (promise 13).
    """
    scene = Scene()
    transport = scene.startConnected()
    for _ in range(5):
        scene.wait(0.5)
        transport.lose()
        delay = scene.hooks.told("retrying")[-1].delay
        scene.clock.advance(delay)
        transport = scene.connect()
    assert [retry.delay for retry in scene.hooks.told("retrying")] == [1, 2, 4, 8, 16]
    assert scene.hooks.told("connecting") == [1, 2, 3, 4, 5, 6]
    scene.stop()


@pytest.mark.parametrize("proof", ["the peer spoke", "it lasted"])
def test_provenLinkResetsBackoff(proof: str) -> None:
    """
    The backoff starts anew after a link over which the peer spoke, or which lasted C{stableAfter}
    seconds (promise 13).
    """
    scene = Scene()
    scene.service.startService()
    for _ in range(3):
        scene.attempts[-1].fail(ConnectionRefusedError())
        scene.clock.advance(scene.hooks.told("retrying")[-1].delay)
    transport = scene.connect()
    if proof == "it lasted":
        scene.clock.advance(10)
    else:
        transport.deliver(b"hello")
    transport.lose()
    retry = scene.hooks.told("retrying")[-1]
    assert (retry.attempt, retry.delay, retry.elapsed) == (1, 1, 0)
    scene.stop()


@pytest.mark.parametrize("spoken", [False, True])
def test_rejectedLinkProvesNothing(spoken: bool) -> None:
    """
    A link that C{prepareConnection} rejects is not proven, whatever the peer said: the waits grow.
    """
    preparations: list[Deferred[None]] = []

    def prepare(protocol: object) -> Deferred[None]:
        preparations.append(Deferred())
        return preparations[-1]

    scene = Scene(prepareConnection=prepare)
    scene.service.startService()
    for _ in range(3):
        transport = scene.connect()
        if spoken:
            transport.deliver(b"who are you?")
        preparations[-1].errback(ValueError("a stranger"))
        scene.turn()
        scene.clock.advance(scene.hooks.told("retrying")[-1].delay)
    assert [retry.delay for retry in scene.hooks.told("retrying")] == [1, 2, 4]
    scene.stop()


def test_prepareIsBounded() -> None:
    """
    A preparation that takes longer than C{Limits.connectTimeout} is cancelled: the connection is
    closed, and another attempt follows.
    """
    cancelled: list[object] = []
    scene = Scene(
        prepareConnection=lambda protocol: Deferred(cancelled.append),
        limits=Limits(connectTimeout=2),
    )
    scene.service.startService()
    transport = scene.connect()
    scene.clock.advance(1.9)
    assert transport.open and not cancelled
    scene.clock.advance(0.1)
    scene.turn()
    assert len(cancelled) == 1
    assert not transport.open
    assert scene.hooks.names == ["connecting", "disconnected", "retrying"]
    words = "prepareConnection did not finish within 2 s"
    assert str(scene.hooks.told("disconnected")[0]) == words
    scene.stop()


def test_retryIsTold() -> None:
    """
    The C{retrying} hook is told the attempt, the delay, the cause and the time since the first
    failure, and C{retryPolicy} is called with the number of failures.
    """
    asked: list[int] = []

    def policy(attempt: int) -> float:
        asked.append(attempt)
        return 2.0

    scene = Scene(retryPolicy=policy)
    scene.service.startService()
    scene.attempts[0].fail(ConnectionRefusedError())
    scene.clock.advance(2)
    scene.attempts[1].fail(ConnectionRefusedError())
    assert asked == [1, 2]
    told = scene.hooks.told("retrying")
    assert [(r.attempt, r.delay, type(r.cause), r.elapsed) for r in told] == [
        (1, 2.0, ConnectFailed, 0),
        (2, 2.0, ConnectFailed, 2.0),
    ]
    scene.stop()


# FailureDetector, through the service.


def test_silentPeerIsReplaced() -> None:
    """
    A peer that does not answer its ping within the bound is aborted, named and replaced; no sooner.
    """
    pings: list[float] = []
    scene = Scene(
        heartbeat=Heartbeat(interval=4, timeout=3),
        ping=lambda protocol: pings.append(scene.clock.seconds()),
    )
    transport = scene.startConnected()
    scene.wait(6.875)
    assert not transport.aborting
    scene.wait(0.25)
    assert transport.aborting
    [cause] = scene.hooks.told("disconnected")
    assert type(cause) is PeerSilent
    assert isinstance(scene.factory.built[0].reason.value, ConnectionLost)
    assert scene.factory.built[0].losses == 1
    assert pings == [4, 5.5]
    assert scene.hooks.names == [
        "connecting",
        "connected",
        "suspected",
        "disconnected",
        "retrying",
    ]
    scene.wait(2)
    scene.connect()
    assert scene.service.state == "connected"
    scene.stop()


def test_answeringPeerIsKept() -> None:
    """
    A peer that answers its pings is kept for ever, and one that answers late is recovered.
    """
    scene = Scene(
        heartbeat=Heartbeat(interval=4, timeout=3),
        ping=lambda protocol: protocol.transport.write(b"?"),
    )
    transport = scene.startConnected()
    for _ in range(20):
        scene.wait(4.5)
        transport.deliver(b"!")
    assert scene.hooks.names == ["connecting", "connected"]
    scene.wait(6.5)
    assert scene.hooks.names[-1] == "suspected"
    transport.deliver(b"!")
    scene.wait(1)
    assert scene.hooks.names[-1] == "recovered"
    assert transport.open
    scene.stop()


def test_withoutPingSilenceProvesNothing() -> None:
    """
    With an ordinary protocol and no way to ping, a silent link is never declared dead, and the link
    says so.
    """
    scene = Scene()
    transport = scene.startConnected()
    assert scene.service.link is not None
    assert scene.service.link.watch == "keepalive"
    assert scene.service.link.bound is None
    scene.wait(300, step=5)
    assert transport.open
    assert scene.hooks.names == ["connecting", "connected"]
    scene.stop()


# Cleanups.


def test_cleanupsRunOnceAndLastAddedFirst() -> None:
    """
    The C{disconnected} hook and the cleanups run exactly once per link, the last added first, each
    after the other has finished, even if another raises (promise 10).
    """
    scene = Scene()
    transport = scene.startConnected()
    link = scene.service.link
    assert link is not None
    ran: list[str] = []
    slow: Deferred[None] = Deferred()
    hook: Deferred[None] = Deferred()

    def cleanup(name: str, result: object = None) -> object:
        ran.append(name)
        return result

    async def coroutine() -> None:
        await slow
        ran.append("coroutine")

    scene.hooks.then["disconnected"] = lambda: cleanup("hook", hook)
    link.addCleanup(cleanup, "first")
    link.addCleanup(cleanup, "second", result=None)
    link.addCleanup(coroutine)
    transport.lose()
    assert ran == ["hook"]
    hook.callback(None)
    assert ran == ["hook"]
    scene.clock.advance(1)
    assert len(scene.attempts) == 1
    slow.callback(None)
    assert ran == ["hook", "coroutine", "second", "first"]
    scene.wait(2)
    scene.connect()
    assert ran == ["hook", "coroutine", "second", "first"]
    scene.hooks.then.clear()
    scene.stop()
    assert len(scene.hooks.told("disconnected")) == 2


def test_cleanupsThatFail(loggedErrors: Any) -> None:
    """
    A cleanup that raises, or whose Deferred fails, is logged, and keeps no other from running.
    """
    scene = Scene()
    transport = scene.startConnected()
    link = scene.service.link
    assert link is not None
    ran: list[str] = []

    def failing() -> Deferred[None]:
        failed: Deferred[None] = Deferred()
        failed.errback(ValueError("later"))
        return failed

    def raising() -> None:
        raise KeyError("now")

    link.addCleanup(ran.append, "first")
    link.addCleanup(failing)
    link.addCleanup(ran.append, "second")
    link.addCleanup(raising)
    link.addCleanup(ran.append, "third")
    transport.lose()
    assert ran == ["third", "second", "first"]
    assert len(loggedErrors.flush(KeyError, ValueError)) == 2
    assert scene.service.state == "waiting"
    scene.stop()


def test_cleanupsAreBounded(loggedErrors: Any) -> None:
    """
    Cleanups that never end are given C{cleanupTimeout} together; then the next attempt is made, and
    each of them has at least been started (promise 10).
    """
    scene = Scene(limits=Limits(cleanupTimeout=2))
    transport = scene.startConnected()
    link = scene.service.link
    assert link is not None
    began: list[str] = []

    def never(name: str) -> Deferred[None]:
        began.append(name)
        return Deferred()

    link.addCleanup(never, "first")
    link.addCleanup(never, "second")
    transport.lose()
    gone = link.whenGone()
    scene.wait(1.875)
    assert scene.service.state == "cleaning"
    scene.wait(0.25)
    assert gone.called
    assert began == ["second", "first"]
    assert scene.service.state == "waiting"
    scene.stop()


def test_cleanupsOfRejectedLink() -> None:
    """
    A link that was never announced has its cleanups, too, before whoever waits is told of it.
    """
    order: list[str] = []

    def prepare(protocol: Any) -> None:
        assert scene.service.link is not None
        scene.service.link.addCleanup(order.append, "cleanup")
        raise ValueError("rejected")

    scene = Scene(prepareConnection=prepare)
    failed = scene.service.whenConnected(failAfterFailures=1)
    failed.addErrback(lambda _: order.append("whenConnected failed"))
    scene.startConnected()
    scene.turn()
    assert order == ["cleanup", "whenConnected failed"]
    scene.stop()


def test_stopWaitsForCleanups() -> None:
    """
    C{stopService} fires after the cleanups.
    """
    scene = Scene()
    scene.startConnected()
    cleaning: Deferred[None] = Deferred()
    assert scene.service.link is not None
    scene.service.link.addCleanup(lambda: cleaning)
    stopped = scene.service.stopService()
    scene.turn()
    assert not stopped.called
    cleaning.callback(None)
    assert stopped.called
    scene.assertNothingLeft()


# Hooks that fail.

_PING: dict[str, Any] = {
    "heartbeat": Heartbeat(interval=4, timeout=4),
    "ping": lambda protocol: protocol.transport.write(b"?"),
}


class Life:
    """
    A whole life: the first attempt fails, the second leads to a link whose peer speaks, falls
    silent, speaks again and closes, and each attempt after that is refused.

    @ivar last: the error that the third attempt and those after it fail with.
    """

    def __init__(self, scene: Scene, last: Exception | None = None) -> None:
        self._scene = scene
        self._last = last or ConnectionRefusedError()
        self._deeds = [(1.0, "hello"), (8.0, "hello"), (10.0, "")]
        self._madeAt = 0.0

    def live(self, seconds: float) -> None:
        """
        So much of it passes.
        """
        for _ in range(round(seconds / 0.25)):
            self._answer()
            self._speak()
            self._scene.clock.advance(0.25)

    def _answer(self) -> None:
        attempts = self._scene.attempts
        if not attempts or attempts[-1].answered:
            return
        if len(attempts) == 2:
            self._madeAt = self._scene.clock.seconds()
            attempts[-1].succeed()
        else:
            attempts[-1].fail(ConnectionRefusedError() if len(attempts) == 1 else self._last)

    def _speak(self) -> None:
        for transport in self._scene.network.transports[:1]:
            while self._deeds and self._scene.clock.seconds() >= self._madeAt + self._deeds[0][0]:
                _, words = self._deeds.pop(0)
                transport.deliver(words.encode()) if words else transport.lose()


@pytest.mark.parametrize(
    ("error", "late", "attempts"),
    [
        (ConnectionRefusedError(), 0.3, [1, 2]),
        (ConnectionRefusedError(), 0.2, [2, 2]),
        (ConnectError(), 0.3, [2, 2]),
    ],
)
def test_oversleptWaitIsDrawnAnewOnce(error: Exception, late: float, attempts: list[int]) -> None:
    """
    If the process was held up when a fleet's waits ended, they would all end in one instant: they
    are drawn anew, but only once, and only after what a fleet sees together.
    """
    scene = Scene()
    scene.service.startService()
    scene.attempts[-1].fail(error)
    # As a MonotonicClock says it; virtual time is never late.
    scene.clock.lateness = late  # type: ignore[attr-defined]
    made = []
    for _ in range(2):
        scene.clock.advance(1)
        made.append(len(scene.attempts))
    assert made == attempts


GIVING_UP = Backoff(initial=1, factor=1, jitter=None, spread=0, maxAttempts=4)

HOOKS = [
    "connecting",
    "connected",
    "suspected",
    "recovered",
    "disconnected",
    "retrying",
    "gaveUp",
]


def test_hooksAreCalledAfterTheTransition() -> None:
    """
    Each hook finds the service and the link in the state that it tells of (promise 10).
    """
    found: list[tuple[str, str, str]] = []
    scene = Scene(
        retryPolicy=Backoff(initial=1, factor=1, jitter=None, spread=0, maxAttempts=1),
        **_PING,
    )

    def note(name: str) -> None:
        built = scene.hooks.told("connected")
        link = built[0].state if built else ""
        found.append((name, scene.service.state, link))

    for name in HOOKS:
        scene.hooks.then[name] = partial(note, name)
    transport = scene.startConnected()
    scene.wait(6.5)
    transport.deliver(b"late")
    scene.wait(9)
    scene.attempts[-1].fail(ConnectionRefusedError())
    scene.turn()
    assert found == [
        ("connecting", "connecting", ""),
        ("connected", "connected", "alive"),
        ("suspected", "connected", "suspected"),
        ("recovered", "connected", "alive"),
        ("suspected", "connected", "suspected"),
        ("disconnected", "cleaning", "gone"),
        ("retrying", "waiting", "gone"),
        ("connecting", "connecting", "gone"),
        ("gaveUp", "gaveUp", "gone"),
    ]
    scene.stop()


def test_lifeIsWhole() -> None:
    """
    The life that the tests below interrupt comes past every hook.
    """
    scene = Scene(retryPolicy=GIVING_UP, **_PING)
    scene.service.startService()
    Life(scene).live(60)
    assert set(scene.hooks.names) == set(HOOKS)
    scene.stop()


@pytest.mark.parametrize("fault", ["raises", "fails later", "never ends"])
@pytest.mark.parametrize("hook", HOOKS)
def test_faultyHook(hook: str, fault: str, loggedErrors: Any) -> None:
    """
    A hook that raises, fails or never ends wedges nothing: what was to follow follows, and the stop
    fires (promises 9, 10 and 16).
    """
    pending: list[Deferred[None]] = []

    def act() -> object:
        if fault == "raises":
            raise ZeroDivisionError("in a hook")
        pending.append(Deferred())
        return pending[-1]

    scene = Scene(retryPolicy=GIVING_UP, **_PING)
    scene.hooks.then[hook] = act
    scene.service.startService()
    life = Life(scene)
    for _ in range(6):
        life.live(20)
        if fault == "fails later":
            for deferred in pending:
                if not deferred.called:
                    deferred.errback(ZeroDivisionError("in a hook"))
    assert scene.service.state == "gaveUp"
    assert hook in scene.hooks.names
    scene.stop()
    errors = loggedErrors.flush(ZeroDivisionError)
    assert bool(errors) == (fault != "never ends")


@pytest.mark.parametrize("later", [False, True])
def test_connectedHookFails(later: bool, loggedErrors: Any) -> None:
    """
    What the C{connected} hook was to set up is not there if it fails: the link ends, is cleaned up,
    and is tried again.
    """
    scene = Scene()
    answer: Deferred[None] = Deferred()

    def act() -> Deferred[None]:
        if not later:
            raise ZeroDivisionError("in a hook")
        return answer

    scene.hooks.then["connected"] = act
    transport = scene.startConnected()
    if later:
        assert transport.open
        answer.errback(ZeroDivisionError("in a hook"))
    scene.turn()
    assert not transport.open
    [cause] = scene.hooks.told("disconnected")
    assert isinstance(cause, ClosedHere)
    assert "ZeroDivisionError" in str(cause)
    assert scene.service.state == "waiting"
    assert len(loggedErrors.flush(ZeroDivisionError)) == 1
    del scene.hooks.then["connected"]
    scene.clock.advance(1)
    scene.connect()
    assert scene.service.state == "connected"
    scene.stop()


# Stopping, in every state and from every place.


def stuckTransport(scene: Scene) -> None:
    """
    The peer does not read: a polite close does not end.
    """
    transport = scene.startConnected()
    transport.stuck = True


def cleaningUp(scene: Scene) -> None:
    """
    The cleanups never end.
    """
    transport = scene.startConnected()
    assert scene.service.link is not None
    scene.service.link.addCleanup(Deferred)
    transport.lose()


def waiting(scene: Scene) -> None:
    """
    The first attempt has failed.
    """
    scene.service.startService()
    scene.attempts[0].fail(ConnectionRefusedError())


def aborted(scene: Scene) -> None:
    """
    The verdict has fallen, and the loss is not reported yet.
    """
    scene.startConnected()
    assert scene.service.link is not None
    scene.service.link.abort(PeerSilent())


STATES: dict[str, Callable[[Scene], object]] = {
    "stopped": lambda scene: None,
    "connecting": lambda scene: scene.service.startService(),
    "connected": Scene.startConnected,
    "full send buffer": stuckTransport,
    "aborted": aborted,
    "cleaning": cleaningUp,
    "waiting": waiting,
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("times", [1, 2])
def test_stopInEveryState(state: str, times: int, loggedErrors: Any) -> None:
    """
    C{stopService} fires within C{closeTimeout} and C{cleanupTimeout}, in every state, for everybody
    who called it, and leaves nothing (promises 9 and 12).
    """
    scene = Scene(limits=Limits(closeTimeout=3, cleanupTimeout=2))
    STATES[state](scene)
    stops = [scene.service.stopService() for _ in range(times)]
    scene.wait(5.25)
    assert [stop.called for stop in stops] == [True] * times
    scene.assertNothingLeft()
    attempts = len(scene.attempts)
    scene.wait(100, step=1)
    assert len(scene.attempts) == attempts


def test_stopOfStuckPeer() -> None:
    """
    A peer that takes no bytes is closed politely, and aborted after C{closeTimeout}; the cause is
    that this side closed.
    """
    scene = Scene(limits=Limits(closeTimeout=3))
    transport = scene.startConnected()
    transport.stuck = True
    stopped = scene.service.stopService()
    scene.wait(2.875)
    assert transport.disconnecting
    assert not transport.aborting
    scene.wait(0.25)
    assert transport.aborting
    assert stopped.called
    assert [type(cause) for cause in scene.hooks.told("disconnected")] == [ClosedHere]
    scene.assertNothingLeft()


@pytest.mark.parametrize("state", [state for state in STATES if state != "stopped"])
def test_restartInEveryState(state: str, loggedErrors: Any) -> None:
    """
    C{startService} right after C{stopService}: the stop fires first, then there is one new attempt,
    and one link.
    """
    scene = Scene(limits=Limits(closeTimeout=3, cleanupTimeout=2))
    STATES[state](scene)
    attempts = len(scene.attempts)
    stopped = scene.service.stopService()
    scene.service.startService()
    connected = scene.service.whenConnected()
    scene.wait(5.25)
    assert stopped.called
    assert len(scene.attempts) == attempts + 1
    transport = scene.connect()
    assert scene.network.openTransports == [transport]
    assert connected.result is scene.factory.built[-1]
    scene.stop()


class Calling(Kept):
    """
    Calls out of each of its methods.
    """

    def __init__(self, called: Callable[[str], object]) -> None:
        super().__init__()
        self._called = called

    def connectionMade(self) -> None:
        """
        Call.
        """
        self._called("connectionMade")

    def dataReceived(self, data: bytes) -> None:
        """
        Call.
        """
        self._called("dataReceived")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Call.
        """
        self._called("connectionLost")


PLACES: Sequence[str] = [
    *HOOKS,
    "buildProtocol",
    "connectionMade",
    "dataReceived",
    "connectionLost",
    "prepareConnection",
    "ping",
    "cleanup",
    "retryPolicy",
    "whenConnected",
    "whenConnected fails",
    "whenDisconnected",
]


def callingScene(called: Callable[[str], object]) -> Scene:
    """
    A service that calls from wherever user code is called.
    """

    class CallingFactory(KeptFactory):
        def buildProtocol(self, addr: Any) -> Any:
            called("buildProtocol")
            return Calling(called)

    def prepare(protocol: object) -> None:
        called("prepareConnection")
        link = scene.service.link
        assert link is not None
        link.addCleanup(called, "cleanup")
        scene.service.whenDisconnected().addCallback(lambda _: called("whenDisconnected"))

    class Policy:
        def __call__(self, attempt: int) -> float:
            called("retryPolicy")
            if attempt > 3:
                raise AssertionError("the life below has no more attempts")
            return 1.0

    def ping(protocol: Any) -> None:
        called("ping")
        protocol.transport.write(b"?")

    scene = Scene(
        retryPolicy=Policy(),
        prepareConnection=prepare,
        heartbeat=Heartbeat(interval=4, timeout=4),
        ping=ping,
    )
    scene.factory.__class__ = CallingFactory
    for hook in HOOKS:
        scene.hooks.then[hook] = lambda hook=hook: called(hook)
    scene.service.whenConnected().addCallbacks(lambda _: called("whenConnected"), lambda _: None)
    scene.service.whenConnected(1).addErrback(lambda _: called("whenConnected fails"))
    return scene


def lifeOf(scene: Scene) -> Life:
    """
    A whole life; its third attempt fails for good.
    """
    return Life(scene, PermanentFailure("the end"))


def test_lifeComesPastEveryPlace() -> None:
    """
    The life that the next test interrupts calls user code from every place.
    """
    places: list[str] = []
    scene = callingScene(places.append)
    scene.service.startService()
    lifeOf(scene).live(20)
    assert set(places) == set(PLACES)
    scene.stop()


@pytest.mark.parametrize("place", PLACES)
def test_stopFromEverywhere(place: str) -> None:
    """
    C{stopService} from inside of any hook or callback fires, makes no further attempt, and leaves
    nothing (promise 9).
    """
    stops: list[Deferred[None]] = []

    def called(where: str) -> None:
        if where == place and not stops:
            stops.append(scene.service.stopService())
            attempts.append(len(scene.attempts))

    attempts: list[int] = []
    scene = callingScene(called)
    scene.service.startService()
    lifeOf(scene).live(20)
    assert len(stops) == 1
    assert stops[0].called
    scene.wait(100, step=1)
    # Inside of the hook the attempt is already known, or not yet made.
    assert len(scene.attempts) == attempts[0]
    scene.assertNothingLeft()


@pytest.mark.parametrize("place", PLACES)
def test_restartFromEverywhere(place: str) -> None:
    """
    C{stopService} and C{startService} from inside of any hook or callback: the stop fires, and one
    link comes up again, never a second beside it (promises 9 and 16).
    """
    stops: list[Deferred[None]] = []

    def called(where: str) -> None:
        if where == place and not stops:
            stops.append(scene.service.stopService())
            scene.service.startService()

    scene = callingScene(called)
    scene.service.startService()
    life = lifeOf(scene)
    for _ in range(80):
        assert len(scene.network.openTransports) <= 1
        if not stops:
            life.live(0.25)
    scene.wait(8)
    assert stops and stops[0].called
    assert not scene.attempts[-1].answered
    scene.connect()
    assert scene.service.state == "connected"
    assert len(scene.network.openTransports) == 1
    scene.stop()


@pytest.mark.parametrize("place", [place for place in PLACES if place != "gaveUp"])
def test_reconnectNowFromEverywhere(place: str) -> None:
    """
    C{reconnectNow} from inside of any hook or callback at most cuts a wait short.
    """

    def called(where: str) -> None:
        if where == place:
            scene.service.reconnectNow()

    scene = callingScene(called)
    scene.service.startService()
    lifeOf(scene).live(20)
    assert len(scene.attempts) == 3
    assert len(scene.network.openTransports) == 0
    scene.stop()


def test_linksAreNamedByTheirAddress() -> None:
    """
    Two services of one protocol have names that differ, by the address that each connects to.
    """
    reactor: Any = MemoryReactorClock()
    factory: Any = Factory.forProtocol(Kept)
    names = {
        "tcp:hub:7000": "Kept to hub:7000",
        "tcp:192.0.2.1:7": "Kept to 192.0.2.1:7",
        "keepalive:heartbeat:tcp:hub:7000:within=8": "Kept to hub:7000",
        "unix:/run/socket": "Kept to /run/socket",
    }
    for words, name in names.items():
        service = HeartbeatClientService(clientFromString(reactor, words), factory, clock=reactor)
        assert service._settings["name"] == name
    several = [clientFromString(reactor, f"tcp:hub{number}:1") for number in (1, 2)]
    service = HeartbeatClientService(several, factory, clock=reactor)
    assert service._settings["name"] == "Kept to hub1:1, hub2:1"
    service = HeartbeatClientService(FakeNetwork(reactor).endpoint(), factory)
    assert service._settings["name"] == "Kept"
