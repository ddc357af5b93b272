# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Tests for L{twisted_heartbeat.core.settings}.
"""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError, fields
from itertools import pairwise
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.application.internet import ClientService
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectError, ConnectionRefusedError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock

from twisted_heartbeat.core.backoff import Backoff
from twisted_heartbeat.core.causes import (
    Cause,
    ConnectFailed,
    HostUnreachable,
    PeerClosed,
    PeerReset,
    PeerSilent,
)
from twisted_heartbeat.core.diagnosis import causeOfFailure
from twisted_heartbeat.core.settings import Heartbeat, KeepAlive, Limits, ServerLimits

SETTINGS = (Heartbeat, KeepAlive, Backoff, Limits, ServerLimits)

NO_NUMBERS: list[object] = [nan, inf, -inf, True, False, "5", b"5", [], object, 10**400]
NOT_POSITIVE = [0, -1, -0.5, *NO_NUMBERS]
NEGATIVE = [-1, -0.5, *NO_NUMBERS]
NOT_WHOLE = [0, -1, 1.5, *NO_NUMBERS]

# What is wrong for each field, and a word of what is allowed instead.
WRONG: dict[tuple[type, str], tuple[list[Any], str]] = {
    (Heartbeat, "interval"): (NOT_POSITIVE, "a number above 0, or None"),
    (Heartbeat, "timeout"): ([None, *NOT_POSITIVE], "a number above 0"),
    (KeepAlive, "idle"): ([None, *NOT_WHOLE], "a whole number, 1 or more"),
    (KeepAlive, "interval"): ([None, *NOT_WHOLE], "a whole number, 1 or more"),
    (KeepAlive, "count"): ([None, *NOT_WHOLE], "a whole number, 1 or more"),
    (KeepAlive, "userTimeout"): (NOT_POSITIVE, "a number above 0, or None"),
    (Backoff, "initial"): ([None, *NOT_POSITIVE], "a number above 0"),
    (Backoff, "maximum"): ([None, *NOT_POSITIVE], "a number above 0"),
    (Backoff, "factor"): ([None, 0, 0.99, *NEGATIVE], "a number, 1 or more"),
    (Backoff, "jitter"): (["half", 1.01, -0.1, nan, inf, True, b"full", []], "a fraction from 0"),
    (Backoff, "spread"): ([None, *NEGATIVE], "a number, 0 or more"),
    (Backoff, "stableAfter"): ([None, *NEGATIVE], "a number, 0 or more"),
    (Backoff, "maxAttempts"): (NOT_WHOLE, "a whole number, 1 or more, or None"),
    (Backoff, "maxElapsed"): (NOT_POSITIVE, "a number above 0, or None"),
    (Limits, "connectTimeout"): (NOT_POSITIVE, "a number above 0, or None"),
    (Limits, "closeTimeout"): (NOT_POSITIVE, "a number above 0, or None"),
    (Limits, "cleanupTimeout"): (NOT_POSITIVE, "a number above 0, or None"),
    (Limits, "sendStall"): (NOT_POSITIVE, "a number above 0, or None"),
    (Limits, "maxBuffered"): (NOT_POSITIVE, "above 0, or None"),
    (ServerLimits, "peers"): (NOT_WHOLE, "a whole number, 1 or more, or None"),
    (ServerLimits, "peersPerAddress"): (NOT_WHOLE, "a whole number, 1 or more, or None"),
    (ServerLimits, "helloTimeout"): (NOT_POSITIVE, "a number above 0, or None"),
    (ServerLimits, "admissionTimeout"): (NOT_POSITIVE, "a number above 0, or None"),
    (ServerLimits, "maxMessage"): (NOT_WHOLE, "a whole number, 1 or more, or None"),
    (ServerLimits, "maxHeld"): (NOT_WHOLE, "a whole number, 1 or more, or None"),
    (ServerLimits, "pingsPerSecond"): (NOT_WHOLE, "a whole number, 1 or more, or None"),
}


def test_everyFieldHasItsWrongValues() -> None:
    """
    No field of any settings class escapes the checks below.
    """
    known = {(kind, field.name) for kind in SETTINGS for field in fields(kind) if field.init}
    assert known == set(WRONG)


@pytest.mark.parametrize(
    ("kind", "field"), WRONG, ids=[f"{kind.__name__}.{field}" for kind, field in WRONG]
)
def test_wrongValues(kind: type, field: str) -> None:
    """
    A wrong value is one ValueError: one line with the field, the value and what is allowed.
    """
    values, allowed = WRONG[kind, field]
    for value in values:
        with pytest.raises(ValueError) as caught:
            kind(**{field: value})
        words = str(caught.value)
        assert words.startswith(f"{kind.__name__}.{field} is {value!r}: ")
        assert allowed in words
        assert "\n" not in words


@pytest.mark.parametrize("kind", SETTINGS)
def test_defaultsAreTheManuals(kind: type) -> None:
    """
    The defaults are the ones that the manual states.
    """
    stated = {
        Heartbeat: {"interval": 20.0, "timeout": 15.0},
        KeepAlive: {"idle": 5, "interval": 5, "count": 3, "userTimeout": None},
        Backoff: {
            "initial": 1.0,
            "maximum": 60.0,
            "factor": 2.0,
            "jitter": "full",
            "spread": 12.0,
            "stableAfter": 10.0,
            "maxAttempts": None,
            "maxElapsed": None,
        },
        Limits: {
            "connectTimeout": 30.0,
            "closeTimeout": 5.0,
            "cleanupTimeout": 10.0,
            "sendStall": 15.0,
            "maxBuffered": 8 * 2**20,
        },
        ServerLimits: {
            "peers": 100_000,
            "peersPerAddress": None,
            "helloTimeout": 30.0,
            "admissionTimeout": 30.0,
            "maxMessage": None,
            "maxHeld": 64 * 1024,
            "pingsPerSecond": 50,
        },
    }[kind]
    assert {
        field.name: getattr(kind(), field.name) for field in fields(kind) if field.init
    } == stated


@pytest.mark.parametrize("kind", SETTINGS)
def test_settingsAreFrozen(kind: type) -> None:
    """
    A setting that was checked can not become a wrong one later, and one may be shared.
    """
    built = kind()
    for field in fields(kind):
        with pytest.raises(FrozenInstanceError):
            setattr(built, field.name, 1)
    assert built == kind() and hash(built) == hash(kind())


@pytest.mark.parametrize("kind", SETTINGS)
def test_keywordsOnly(kind: type) -> None:
    """
    No number can be taken for another by its position.
    """
    with pytest.raises(TypeError):
        kind(30.0)


@pytest.mark.parametrize(
    "built",
    [
        Heartbeat(interval=None, timeout=30),
        KeepAlive(idle=60, userTimeout=20.5),
        Backoff(jitter=0.25, maxAttempts=3, maxElapsed=600),
        Limits(sendStall=None),
        Limits.off(),
    ],
)
def test_settingsCanBePickled(built: object) -> None:
    """
    Settings survive the way to another process.
    """
    assert pickle.loads(pickle.dumps(built)) == built


# Heartbeat


@pytest.mark.parametrize(("interval", "timeout"), [(0.05, 0.1), (None, 0.199)])
def test_boundTooShort(interval: float | None, timeout: float) -> None:
    """
    A bound that no loaded process could keep is refused by name.
    """
    with pytest.raises(ValueError, match=r"Heartbeat\.bound is 0\.1\S+: .*at least 0\.2 seconds"):
        Heartbeat(interval=interval, timeout=timeout)


def test_boundIsIntervalAndTimeout() -> None:
    """
    The bound is the interval and the timeout; the timeout alone for a peer that speaks by itself.
    """
    assert Heartbeat(interval=4.0, timeout=2.5).bound == 6.5
    assert Heartbeat(interval=None, timeout=30.0).bound == 30.0


@given(st.floats(min_value=0.2, max_value=1e6))
def test_boundIsDividedInProportion(bound: float) -> None:
    """
    Any bound from 0.2 s up is honoured as stated, in the proportion of the defaults.
    """
    heartbeat = Heartbeat.within(bound)
    assert heartbeat.bound == pytest.approx(bound, rel=1e-12)
    assert heartbeat.interval == pytest.approx(bound * 20 / 35)
    assert heartbeat.timeout == pytest.approx(bound * 15 / 35)


@pytest.mark.parametrize("bound", [None, 0.19, *NOT_POSITIVE], ids=lambda v: str(v)[:12])
def test_withinWrongBound(bound: Any) -> None:
    """
    A wrong bound is one sentence with the value and what is allowed.
    """
    with pytest.raises(ValueError) as caught:
        Heartbeat.within(bound)
    assert str(caught.value).startswith(f"Heartbeat.within({bound!r}): ")
    assert "at least 0.2" in str(caught.value)


# Limits


def test_limitsOffSwitchesAllOff() -> None:
    """
    None in place of each number switches all of it off.
    """
    for kind in (Limits, ServerLimits):
        assert {getattr(kind.off(), field.name) for field in fields(kind)} == {None}


# Backoff

DRAWS = st.floats(min_value=0.0, max_value=1.0, exclude_max=True)
ATTEMPTS = st.integers(min_value=1, max_value=10**6)
LENGTHS = st.floats(min_value=0.01, max_value=1e5)


@given(ATTEMPTS, LENGTHS, LENGTHS, st.floats(min_value=1.0, max_value=100.0), DRAWS)
def test_fullJitterInsideTheCap(
    attempt: int, initial: float, more: float, factor: float, draw: float
) -> None:
    """
    A draw is uniform between 0 and the ceiling: the initial delay, grown, inside the cap.
    """
    backoff = Backoff(initial=initial, maximum=initial + more, factor=factor)
    try:
        grown = initial * factor ** (attempt - 1)
    except OverflowError:
        grown = inf
    ceiling = min(grown, backoff.maximum)
    assert backoff.delay(attempt, draw=lambda: draw) == pytest.approx(ceiling * draw)
    assert 0 <= backoff(attempt) <= ceiling


@given(ATTEMPTS, st.floats(min_value=0.0, max_value=1.0), DRAWS)
def test_fractionOfJitterInsideTheCap(attempt: int, jitter: float, draw: float) -> None:
    """
    A fraction varies the ceiling either way by that much, and never beyond the cap.
    """
    plain = Backoff(jitter=None).delay(attempt)
    delay = Backoff(jitter=jitter).delay(attempt, draw=lambda: draw)
    assert plain * (1 - jitter) - 1e-9 <= delay <= min(60.0, plain * (1 + jitter) + 1e-9)


def test_withoutJitterTheCeilingIsWaited() -> None:
    """
    Without jitter each wait is the ceiling itself, doubled until it reaches the cap.
    """
    backoff = Backoff(jitter=None, maximum=20.0)
    assert [backoff(attempt) for attempt in range(1, 8)] == [1, 2, 4, 8, 16, 20, 20]


@pytest.mark.parametrize("attempt", [10**3, 10**9, 10**400])
def test_hugeAttemptsDoNotOverflow(attempt: int) -> None:
    """
    A box that has been without a net for years still waits no longer than the cap.
    """
    assert Backoff(jitter=None).delay(attempt) == 60.0
    assert 0 <= Backoff(factor=1e6)(attempt) <= 60.0


def refused() -> Cause:
    return causeOfFailure(ConnectionRefusedError())


@given(st.sampled_from([PeerClosed(), PeerReset(), refused()]), DRAWS)
def test_firstDrawOfAFleetIsSpread(cause: Cause, draw: float) -> None:
    """
    After a cause that a whole fleet sees in the same instant the first draw covers C{spread}, but
    for the tenth of C{initial} in which no peer is back.
    """
    assert Backoff().delay(1, cause, lambda: draw) == pytest.approx(0.1 + 11.9 * draw)
    assert Backoff(spread=25.0).delay(1, cause, lambda: draw) == pytest.approx(0.1 + 24.9 * draw)
    assert Backoff(spread=0.0).delay(1, cause, lambda: draw) == pytest.approx(1.0 * draw)


def test_laterDrawsOfAFleetAreNoCloser() -> None:
    """
    The spread is where the growth begins, so that the second draws do not meet either.
    """
    ceilings = [Backoff().delay(n, PeerReset(), lambda: 1.0) for n in range(1, 6)]
    assert ceilings == [12, 24, 48, 60, 60]


@given(st.integers(min_value=2, max_value=50), DRAWS)
def test_laterDrawsLeaveTheSpreadToTheFirst(attempt: int, draw: float) -> None:
    """
    Who has tried in vain does not come again while the rest of the fleet makes its first attempt.
    """
    assert 12.0 <= Backoff().delay(attempt, refused(), lambda: draw) <= 60.0
    assert Backoff(spread=0.0).delay(attempt, refused(), lambda: 0.0) == 0.0
    assert Backoff(maximum=4.0).delay(attempt, refused(), lambda: 0.0) == 2.0


def test_spreadKeepsTheCap() -> None:
    """
    No draw is longer than C{maximum}, whatever C{spread} says.
    """
    assert Backoff(maximum=4.0).delay(1, PeerClosed(), lambda: 1.0) == 4.0


@given(DRAWS)
def test_firstDrawAfterAVerdictIsSoon(draw: float) -> None:
    """
    A silence verdict is spread by its own phase already: the first draw comes within C{initial}.
    """
    assert Backoff().delay(1, PeerSilent(), lambda: draw) == pytest.approx(1.0 * draw)


@given(ATTEMPTS, DRAWS)
def test_slowlyIsNeverSoon(attempt: int, draw: float) -> None:
    """
    What will not be gone in a second (a route, a name, a certificate) is never tried again soon.
    """
    delay = Backoff().delay(attempt, HostUnreachable(), lambda: draw)
    assert 6.0 <= delay <= 60.0


@given(st.sampled_from([None, 0.0, 0.5, 1.0]), ATTEMPTS, DRAWS)
def test_slowlyIsNeverSoonWithOtherJitter(jitter: float | None, attempt: int, draw: float) -> None:
    """
    So it is with every kind of jitter.
    """
    delay = Backoff(jitter=jitter).delay(attempt, HostUnreachable(), lambda: draw)
    assert 6.0 <= delay <= 60.0


def test_causeThatSaysNothingChangesNothing() -> None:
    """
    After an ordinary failure of an attempt the cause makes no difference.
    """
    assert Backoff().delay(3, ConnectFailed(), lambda: 0.5) == Backoff().delay(3, draw=lambda: 0.5)


def test_exhaustedByAttempts() -> None:
    """
    It gives up after so many failed attempts in a row, not before, and not one later.
    """
    backoff = Backoff(maxAttempts=3)
    assert [backoff.exhausted(attempt, 1e9) for attempt in (1, 2, 3, 4)] == [
        False,
        False,
        True,
        True,
    ]


def test_exhaustedByTime() -> None:
    """
    It gives up once so many seconds have passed since the first failure.
    """
    backoff = Backoff(maxElapsed=60.0)
    assert not backoff.exhausted(10**6, 59.9)
    assert backoff.exhausted(1, 60.1)


def test_neverExhausted() -> None:
    """
    By default it never gives up.
    """
    assert not Backoff().exhausted(10**9, 1e12)


class Refusing:
    """
    An endpoint to which no attempt succeeds.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.attempts: list[float] = []

    def connect(self, factory: object) -> Deferred[Any]:
        self.attempts.append(self._clock.seconds())
        return fail(ConnectError())


def test_servesAsRetryPolicyOfTwistedsOwnService() -> None:
    """
    An instance is what Twisted's ClientService takes as its C{retryPolicy}.
    """
    clock = Clock()
    endpoint = Refusing(clock)
    policy = Backoff(jitter=None, maximum=5.0)
    service = ClientService(endpoint, Factory.forProtocol(Protocol), policy, clock)
    service.startService()
    clock.pump([1.0] * 20)
    stopped: list[object] = []
    service.stopService().addCallback(stopped.append)
    waits = [later - sooner for sooner, later in pairwise(endpoint.attempts)]
    assert waits == [1.0, 2.0, 4.0, 5.0, 5.0]
    assert stopped == [None]
    assert clock.getDelayedCalls() == []
