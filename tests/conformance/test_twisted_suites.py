# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Twisted's own tests of C{ClientService}, C{ReconnectingClientFactory} and C{TimeoutMixin}, run with
this package's classes in their place.

With the heartbeat, the keepalive and the limits off, all of them pass.  With the defaults, those
listed in C{DEVIATIONS} fail, each for the reason that C{docs/deviations.md} gives, and no other.
"""

from __future__ import annotations

import importlib
import re
import unittest
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.protocol import Protocol
from twisted.test.test_policies import TimeoutTester
from twisted.trial.unittest import SynchronousTestCase

from twisted_heartbeat import HeartbeatClientFactory, HeartbeatClientService, HeartbeatMixin, Limits

from . import test_wrapped_suites

DOCUMENT = Path(__file__).parents[2] / "docs" / "deviations.md"

_SERVICE_TESTS = "twisted.application.test.test_internet.ClientServiceTests"
_FACTORY_TESTS = "twisted.test.test_factories.ReconnectingFactoryTests"
_TIMEOUT_TESTS = "twisted.test.test_policies.TimeoutMixinTests"

# The line of Twisted's teardown that fails: stopService has called loseConnection on a transport
# that never reports the loss, and the timer that bounds the close is still there.
TIMER_LEFT = "self.assertEqual(clock.getDelayedCalls(), [])"

# Test id -> the line that fails with the defaults.
DEVIATIONS = {
    f"{_SERVICE_TESTS}.{name}": TIMER_LEFT
    for name in (
        "test_clientConnected",
        "test_clientConnectionLost",
        "test_interfacesForTransport",
        "test_prepareConnectionCalledAfterConnectionMade",
        "test_prepareConnectionCalledOnReconnect",
        "test_prepareConnectionCalledWhenServiceStarts",
        "test_prepareConnectionCalledWithProtocol",
        "test_prepareConnectionReturnValueIgnored",
        "test_prepareConnectionReturningADeferred",
        "test_startServiceWaitsForDisconnect",
        "test_startServiceWhileStopped",
        "test_startServiceWhileStopping",
        "test_startStopFactory",
        "test_whenConnectedFails",
        "test_whenConnectedLater",
    )
}

_OFF: dict[str, Any] = {"heartbeat": None, "keepAlive": None, "limits": None}


class PlainService(HeartbeatClientService):
    """
    All is off that Twisted's has not.
    """

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **_OFF, **keywords)


class UnboundedCloseService(HeartbeatClientService):
    """
    All is on but the one limit that the deviations are for.
    """

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, limits=replace(Limits(), closeTimeout=None), **keywords)


class PlainFactory(HeartbeatClientFactory):
    """
    All is off that Twisted's has not.  Here and not in a function, because it is pickled.
    """

    def __init__(self) -> None:
        super().__init__(**_OFF)


def timeoutTester(*bases: type, **attributes: Any) -> type:
    """
    Twisted's own tester of the C{TimeoutMixin}, on other bases.
    """
    body = dict(vars(TimeoutTester))
    for automatic in ("__dict__", "__weakref__"):
        body.pop(automatic, None)
    return type(TimeoutTester.__name__, bases, {**body, **attributes})


@dataclass(frozen=True)
class Run:
    """
    A test case class of Twisted's, and what is to take its subject's place.

    @ivar path: where the class is.
    @ivar subject: the name under which its module finds what it tests.
    """

    path: str
    subject: str
    stand: type

    @property
    def module(self) -> Any:
        """
        Where the class and the subject are.
        """
        return importlib.import_module(self.path.rpartition(".")[0])

    @property
    def case(self) -> type:
        """
        The class, so that it can be run on no reactor: none of its tests waits.
        """
        found = getattr(self.module, self.path.rpartition(".")[2])
        return type(found.__name__, (SynchronousTestCase,), dict(vars(found)))

    @property
    def names(self) -> list[str]:
        """
        Its tests.
        """
        return [name for name in vars(self.case) if name.startswith("test")]

    def failuresOf(self, name: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """
        Run one test.

        @return: the tracebacks of its failures and errors.
        """
        monkeypatch.setattr(self.module, self.subject, self.stand)
        result = unittest.TestResult()
        self.case(name).run(result)
        assert result.testsRun == 1
        assert not result.skipped
        return [traceback for _, traceback in result.failures + result.errors]


PLAIN = [
    Run(_SERVICE_TESTS, "ClientService", PlainService),
    Run(_FACTORY_TESTS, "ReconnectingClientFactory", PlainFactory),
    Run(_TIMEOUT_TESTS, "TimeoutTester", timeoutTester(HeartbeatMixin, Protocol, **_OFF)),
    Run(_SERVICE_TESTS, "ClientService", UnboundedCloseService),
]

DEFAULT = [
    Run(_SERVICE_TESTS, "ClientService", HeartbeatClientService),
    Run(_FACTORY_TESTS, "ReconnectingClientFactory", HeartbeatClientFactory),
    Run(_TIMEOUT_TESTS, "TimeoutTester", timeoutTester(HeartbeatMixin, Protocol)),
    # In the order of bases that Twisted's own documentation shows.
    Run(_TIMEOUT_TESTS, "TimeoutTester", timeoutTester(Protocol, HeartbeatMixin)),
]


def cases(runs: list[Run]) -> list[Any]:
    """
    Each test of each run, as a parameter.
    """
    return [
        pytest.param(run, name, id=f"{run.stand.__name__}-{run.path}.{name}")
        for run in runs
        for name in run.names
    ]


@pytest.mark.parametrize(("run", "name"), cases(PLAIN))
def test_withAllOff(run: Run, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    With all off that Twisted's classes have not, and even with all on but the bound on the close,
    these classes pass Twisted's own tests, without exception.
    """
    assert run.failuresOf(name, monkeypatch) == []


@pytest.mark.parametrize(("run", "name"), cases(DEFAULT))
def test_withDefaults(run: Run, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    With the defaults, only what is listed fails, on the one line that it is listed with; what is
    listed and fails no longer has to be struck off.
    """
    expected = DEVIATIONS.get(f"{run.path}.{name}")
    failures = run.failuresOf(name, monkeypatch)
    if expected is None:
        assert failures == []
    else:
        assert len(failures) == 1, failures
        assert expected in failures[0]


@pytest.mark.parametrize("run", DEFAULT[:3], ids=lambda run: run.path)
def test_suitesAreWhole(run: Run) -> None:
    """
    Twisted's suites are found whole: the oldest supported Twisted has as many tests as this.
    """
    least = {_SERVICE_TESTS: 29, _FACTORY_TESTS: 6, _TIMEOUT_TESTS: 7}
    assert len(run.names) >= least[run.path]


def test_deviationsAreDocumented() -> None:
    """
    C{docs/deviations.md} names the deviations that are listed here and of wrapped protocols, all of
    them and no other.
    """
    ids = re.findall(r"`(twisted\.[\w.]+\.test_\w+)`", DOCUMENT.read_text())
    assert sorted(ids) == sorted([*DEVIATIONS, *test_wrapped_suites.DEVIATIONS])


def test_deviationsExist() -> None:
    """
    Each listed deviation is a test of the installed Twisted.
    """
    known = {f"{run.path}.{name}" for run in DEFAULT for name in run.names}
    assert set(DEVIATIONS) <= known
