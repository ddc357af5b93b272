# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The fixture in conftest.py that watches all tests is watched here: in runs of their own, over tests
that leak on purpose.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

IMPORTS = """
import os, socket
import pytest
from hypothesis import given, strategies
from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred, fail
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import LoopingCall
from twisted.logger import Logger, LogLevel
from twisted.python import log

class Pipe(FileDescriptor):
    def __init__(self):
        from twisted.internet import reactor
        super().__init__(reactor)
        self.ends = os.pipe()
    def fileno(self):
        return self.ends[0]

kept = []
"""

LEAKING = """
def test_delayedCall():
    from twisted.internet import reactor
    reactor.callLater(60, int)

def test_loop():
    LoopingCall(int).start(0.001)

def test_reader():
    pipe = Pipe()
    pipe.startReading()

def test_writer():
    pipe = Pipe()
    pipe.fileno = lambda: pipe.ends[1]
    pipe.doWrite = lambda: None
    pipe.startWriting()

def test_listening():
    from twisted.internet import reactor
    reactor.listenTCP(0, Factory.forProtocol(Protocol), interface="127.0.0.1")

def test_socket():
    kept.append(socket.socket())

def test_deferred():
    fail(ZeroDivisionError("unhandled"))

def test_deferredInCycle():
    d = Deferred()
    d.cycle = d
    d.errback(ZeroDivisionError("unhandled"))

def test_logged():
    try:
        1 / 0
    except ZeroDivisionError:
        Logger().failure("unflushed")

def test_loggedTheOldWay():
    log.err(ZeroDivisionError("unflushed"))

def test_takesOnlyItsOwn(loggedErrors):
    log.err(ZeroDivisionError("unflushed"))
    assert loggedErrors.flush(KeyError) == []

@pytest.fixture
def untidy():
    yield
    kept.append(socket.socket())

def test_fixture(untidy):
    pass
"""

# What each says of itself.
COMPLAINTS = {
    "test_delayedCall": "left open: <DelayedCall",
    "test_loop": "left open: <DelayedCall",
    "test_reader": "left open: <*Pipe",
    "test_writer": "left open: <*Pipe",
    "test_listening": "left open: <*Port",
    "test_socket": "left open: descriptor",
    "test_deferred": "nobody took:*",
    "test_deferredInCycle": "nobody took:*",
    "test_logged": "nobody took:*",
    "test_loggedTheOldWay": "nobody took:*",
    "test_takesOnlyItsOwn": "nobody took:*",
    "test_fixture": "left open: descriptor",
}

TIDY = """
def test_settlesSoon():
    from twisted.internet import reactor
    reactor.callLater(0.02, int)

def test_closes():
    socket.socket().close()

def test_flushesByType(loggedErrors):
    log.err(ZeroDivisionError("expected"))
    log.err(KeyError("expected"))
    assert len(loggedErrors.flush(ZeroDivisionError)) == 1
    assert len(loggedErrors.flush(KeyError)) == 1

def test_flushesUnhandled(loggedErrors):
    fail(ZeroDivisionError("expected"))
    [failure] = loggedErrors.flush()
    assert failure.check(ZeroDivisionError)

def test_warningIsNoError():
    try:
        1 / 0
    except ZeroDivisionError:
        Logger().failure("so be it", level=LogLevel.warn)

@pytest.fixture(scope="module")
def shared():
    with socket.socket() as one:
        yield one

def test_moduleFixture(shared):
    assert shared.fileno() > 0

@given(strategies.integers())
def test_hypothesis(number):
    assert number == number
"""


@pytest.fixture
def watched(pytester: pytest.Pytester) -> pytest.Pytester:
    """
    A folder of tests with this project's conftest, less patient. They run in a process of their
    own, for a process has one reactor.
    """
    conftest = (Path(__file__).parents[1] / "conftest.py").read_text(encoding="utf-8")
    assert "SETTLE = 1.0" in conftest
    pytester.makeconftest(conftest.replace("SETTLE = 1.0", "SETTLE = 0.1"))
    return pytester


@pytest.mark.parametrize("reactor", ["default", "asyncio"])
def test_leaksFail(watched: pytest.Pytester, reactor: str) -> None:
    """
    Promise 12: a test that leaves a delayed call, a reader, a writer, a socket or an unhandled
    error fails, says so, and is the only one that fails for it.
    """
    watched.makepyfile(IMPORTS + LEAKING + "def test_after(): pass\n")
    result = watched.runpytest_subprocess(f"--reactor={reactor}", timeout=60)
    result.assert_outcomes(passed=len(COMPLAINTS) + 1, errors=len(COMPLAINTS))
    for name, complaint in COMPLAINTS.items():
        result.stdout.fnmatch_lines([f"*ERROR at teardown of {name} *", f"{complaint}*"])


def test_tidyPasses(watched: pytest.Pytester) -> None:
    """
    What ends by itself within a moment, and errors that the test takes, are no leak.
    """
    watched.makepyfile(IMPORTS + TIDY)
    result = watched.runpytest_subprocess(timeout=60)
    result.assert_outcomes(passed=TIDY.count("def test_"))
