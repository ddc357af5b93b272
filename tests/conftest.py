# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What holds for every test: it leaves nothing behind, or it fails (promise 12).

Left behind is: a delayed call, a reader or a writer on the reactor, an open socket, and an error
that nobody took (a Deferred's, or any that was logged). A test that provokes errors takes them with
C{loggedErrors.flush(SomeError)}.
"""

from __future__ import annotations

import gc
import importlib.metadata
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
import pytest_twisted
from twisted.internet.task import deferLater
from twisted.logger import LogEvent, LogLevel, eventAsText, globalLogBeginner, globalLogPublisher
from twisted.python.failure import Failure

if TYPE_CHECKING:
    from .support.loopback import Loopback

# How long, in seconds, the reactor may take to finish what a test has already ended: the other half
# of a close, say.
SETTLE = 1.0

# Hypothesis measures wall time by default; a busy machine is no failure.
hypothesis.settings.register_profile("unhurried", parent=hypothesis.settings.default, deadline=None)
hypothesis.settings.load_profile("unhurried")

# Before each test pytest asks for the version of Twisted, for which the standard library parses the
# whole description of the package: 1 ms, and a quick test takes 4.
importlib.metadata.version = cache(importlib.metadata.version)

TOGETHER = (
    "tests/status/test_page.py",
    "tests/costs/test_benchmarks.py::test_contestants",
    "tests/costs/test_footprint.py",
    "tests/integration/test_optimized.py",
    "tests/conformance/test_wrapped_suites.py",
    "tests/conformance/tester/test_mutations.py",
    "tests/conformance/tester/test_own_peers.py",
    "tests/system/test_device_conformance.py",
    "tests/project/test_architecture.py::test_privateName",
)
"""How the names of tests begin that share a long run.  Each worker that has one runs the whole."""

SLOW = (
    "tests/status/test_page.py",
    "tests/system/kernel",
    "tests/docs/recipes",
    "tests/docs/test_checkin_examples.py",
    "tests/docs/test_programs.py",
    "tests/docs/test_tutorial.py",
    "tests/costs/test_benchmarks.py",
    "tests/costs/test_costs.py",
    "tests/demo/test_demo.py",
    "tests/system/test_devices.py",
    "tests/system/test_device_conformance.py",
    "tests/conformance/tester/test_mutations.py",
    "tests/conformance/tester/test_own_peers.py",
    "tests/system/test_udp_devices.py",
    "tests/costs/test_footprint.py",
    "tests/integration/test_hostile.py",
    "tests/integration/test_leaks.py",
    "tests/integration/test_optimized.py",
    "tests/protocol/test_heartbeat.py::test_pingFlood",
    "tests/integration/test_scale.py",
    "tests/client/test_service_states.py",
    "tests/integration/test_soak.py",
    "tests/testing/test_faultproxies.py::test_pytestExamples",
    "tests/testing/test_faultproxies.py::test_scriptExamples",
    "tests/transport/test_connection.py::test_errnoOnEachReactor",
    "tests/integration/test_trial.py",
    "tests/system/test_config_file.py",
    "tests/system/test_systemd.py",
    "tests/system/test_twist.py",
    "tests/conformance/test_wrapped_suites.py",
    "tests/system/test_presence.py",
    "tests/docs/test_page_programs.py",
    "tests/docs/test_presence_watcher.py",
    "tests/conformance/tester/test_command.py",
    "tests/costs/test_verdict_path.py",
    "tests/integration/test_platforms.py",
    "tests/endpoints/test_prefixed.py",
    "tests/protocol/test_delivery.py::test_methodsSetOnTheInstanceOverSockets",
    "tests/presence/test_model.py",
    "tests/core/test_reconnector_states.py",
    "tests/batching/test_equivalence.py",
)
"""How the names of slow tests begin: most start processes, and the others compute for seconds."""


def pytest_configure(config: pytest.Config) -> None:
    """
    Declare the marker, and heed the signals that the tests send.
    """
    config.addinivalue_line("markers", "slow: left out by the command for the inner loop")
    # nohup ignores SIGHUP, and a shell's background job SIGINT.  All processes of the tests would
    # inherit that, and then install no handler.
    for name in ("SIGHUP", "SIGINT"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """
    Mark the slow tests and put them first: a worker with a slow test at the end keeps the others
    idle.
    """
    for item in items:
        if item.nodeid.startswith(SLOW):
            item.add_marker("slow")
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """
    Give each test of C{pytest --numprocesses} to the next free worker, and those of one entry of
    L{TOGETHER} to one.  (The marker C{xdist_group} does nothing with pytest 9.2.)
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return next((one for one in TOGETHER if nodeid.startswith(one)), nodeid)

        def mark_test_complete(self, node: Any, item_index: int, duration: float = 0) -> None:
            super().mark_test_complete(node, item_index, duration)
            # Otherwise all that the node was ever given would be counted after each test.
            given = self.assigned_work[node]
            for done in [scope for scope, tests in given.items() if all(tests.values())]:
                del given[done]

    return Scheduling(config, log)


@pytest.fixture(scope="session", autouse=True)
def _logToStderr() -> Iterator[None]:
    """
    Twisted's log goes to where pytest captures it. Until it begins, the log keeps its events, and
    with them whatever their failures hold: a Deferred kept there would never be found unhandled.
    """

    def write(event: LogEvent) -> None:
        sys.stderr.write(eventAsText(event) + "\n")

    globalLogBeginner.beginLoggingTo([write], redirectStandardIO=False, discardBuffer=True)
    yield
    globalLogPublisher.removeObserver(write)


@dataclass
class LoggedErrors:
    """
    The failures logged, as errors or worse, since the test began, less those it has taken.
    """

    _failures: list[Failure] = field(default_factory=list)

    def __call__(self, event: LogEvent) -> None:
        """
        Note the failure an event carries: this object is a log observer.
        """
        # twisted.python.log.err has its own name for it.
        failure = event.get("log_failure") or event.get("failure")
        if failure is not None and event["log_level"] >= LogLevel.error:
            self._failures.append(failure)

    def flush(self, *errorTypes: type[BaseException]) -> list[Failure]:
        """
        Take the failures of these types, all if none is named, so that they do not fail the test.
        """
        gc.collect()
        taken = [f for f in self._failures if not errorTypes or f.check(*errorTypes)]
        self._failures = [f for f in self._failures if f not in taken]
        return taken


@pytest.fixture
def loggedErrors() -> Iterator[LoggedErrors]:
    """
    The errors logged during this test: C{loggedErrors.flush(SomeError)} returns the expected ones.
    """
    errors = LoggedErrors()
    globalLogPublisher.addObserver(errors)
    yield errors
    globalLogPublisher.removeObserver(errors)


@pytest.fixture
def events() -> Iterator[list[LogEvent]]:
    """
    What is logged during the test.
    """
    logged: list[LogEvent] = []
    globalLogPublisher.addObserver(logged.append)
    yield logged
    globalLogPublisher.removeObserver(logged.append)


def _placeToListen(*, secured: bool) -> Iterator[Loopback]:
    # Not at the top, because tests/integration/test_leaks.py copies this file to another place.
    from .support.loopback import opened

    with opened(secured) as place:
        yield place


@pytest.fixture(params=["plain", "TLS"])
def loopback(request: pytest.FixtureRequest) -> Iterator[Loopback]:
    """
    Real sockets, plain and with TLS.
    """
    yield from _placeToListen(secured=request.param == "TLS")


@pytest.fixture
def plain() -> Iterator[Loopback]:
    """
    Real sockets without TLS.
    """
    yield from _placeToListen(secured=False)


@pytest.fixture
def secured() -> Iterator[Loopback]:
    """
    Real sockets with TLS.
    """
    yield from _placeToListen(secured=True)


@pytest.fixture(autouse=True)
def _nothingLeftBehind(loggedErrors: LoggedErrors) -> Iterator[None]:
    """
    Fail a test that leaves something behind.
    """
    # The reactor opens descriptors of its own in its first turn.
    _turn(0)
    # Without the freeze each collection below also visits what all the tests before have kept in
    # memory, which takes 60 ms after a thousand tests.
    gc.collect()
    gc.freeze()
    before = _openThings()
    yield

    def left() -> dict[object, object]:
        gc.collect()
        return {key: thing for key, thing in _openThings().items() if key not in before}

    remaining = _settle(left)
    complaints = [f"left open: {thing}" for thing in remaining.values()]
    _silence(remaining)
    complaints += [f"nobody took: {f.getTraceback()}" for f in loggedErrors.flush()]
    if complaints:
        pytest.fail("\n".join(complaints), pytrace=False)


def _turn(seconds: float) -> None:
    from twisted.internet import reactor

    pytest_twisted.blockon(deferLater(reactor, seconds))


def _settle(left: Callable[[], dict[object, object]]) -> dict[object, object]:
    """
    What is still left once nothing is, or C{SETTLE} seconds are over.
    """
    deadline = time.monotonic() + SETTLE
    while (remaining := left()) and time.monotonic() < deadline:
        _turn(0.01)
    return remaining


def _openThings() -> dict[object, object]:
    """
    All that is open now: under a key that tells it from any other, the thing itself.
    """
    from twisted.internet import reactor

    onReactor = [*reactor.getDelayedCalls(), *reactor.getReaders(), *reactor.getWriters()]
    return {id(thing): thing for thing in onReactor} | _openSockets()


def _openSockets() -> dict[object, object]:
    """
    This process's sockets by inode, where the system tells (Linux, see proc_pid_fd(5)).
    """
    sockets: dict[object, object] = {}
    for fd in os.listdir("/proc/self/fd") if sys.platform == "linux" else ():
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
            if target.startswith("socket:"):
                sockets[target] = _describeSocket(int(fd))
        except OSError:
            # Closed since the folder was listed, as the descriptor that listed it is.
            continue
    return sockets


def _describeSocket(fd: int) -> str:
    with socket.socket(fileno=os.dup(fd)) as copy:
        return f"descriptor {fd}, {copy!r}"


def _silence(remaining: dict[object, object]) -> None:
    """
    Take what one test left off the reactor, so that only this test fails for it.
    """
    from twisted.internet import reactor

    # A clock whose reader is taken away would never ring again; one without calls lets go itself.
    clock = getattr(reactor, "_twistedHeartbeatClock", None)
    for call in clock.getDelayedCalls() if clock is not None else ():
        call.cancel()
    for call in reactor.getDelayedCalls():
        if id(call) in remaining:
            call.cancel()
    for selectable in {*reactor.getReaders(), *reactor.getWriters()}:
        if id(selectable) in remaining:
            reactor.removeReader(selectable)
            reactor.removeWriter(selectable)
