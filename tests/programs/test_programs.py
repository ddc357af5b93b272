# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Programs that others have written, with this package in place of parts of Twisted, pass their own
tests; see C{table.py}, and C{replaced.py} for how it gets there.

"tox -e programs" runs this. What fails with stock Twisted, too, is no failure here.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ..trialrun import runScript
from .table import PROGRAMS

SCRIPT = Path(__file__).parent.parent / "replaced.py"

Run = Callable[..., Any]
"""A program's name, a way, and tests unless all -> what C{replaced.py} prints."""


def freePort() -> int:
    """
    A port at which nothing listens.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def redisPort(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """
    The port of a Redis server that is empty.
    """
    command = shutil.which("redis-server")
    if command is None:
        pytest.skip("there is no redis-server on this machine")
    port = freePort()
    folder = tmp_path_factory.mktemp("redis")
    options = {"port": str(port), "bind": "127.0.0.1 ::1", "save": "", "dir": str(folder)}
    arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
    with subprocess.Popen([command, *arguments], stdout=subprocess.DEVNULL) as server:
        try:
            waitForPort(port)
            yield port
        finally:
            server.terminate()


def waitForPort(port: int) -> None:
    """
    Wait until a server listens.
    """
    deadline = time.monotonic() + 10.0
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "the server does not listen"
            time.sleep(0.05)
        else:
            return


@pytest.fixture(scope="session")
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """
    Run a program's tests.  All of them in one way are run once.
    """

    @cache
    def sourceOf(name: str) -> str:
        program = PROGRAMS[name]
        if program.source is None:
            return ""
        folder = unpacked(program.source, tmp_path_factory.mktemp("source"))
        if program.needsRedis:
            usePorts(folder / "tests", request.getfixturevalue("redisPort"))
        return str(folder)

    @cache
    def run(name: str, way: str, *tests: str) -> Any:
        program = PROGRAMS[name]
        return runScript(
            SCRIPT,
            way,
            *(tests or program.tests),
            timeout=program.timeout,
            # The first on the path, so that it hides the installed program, which has no tests.
            environment={"PYTHONPATH": sourceOf(name)},
        )

    return run


def unpacked(requirement: str, folder: Path) -> Path:
    """
    Get a source archive.

    @return: the folder of its contents.
    """
    options = ["--quiet", "--no-deps", "--no-binary", ":all:", "--dest", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "download", *options, requirement], check=True)
    [path] = folder.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        archive.extractall(folder, filter="data")
    return folder / path.name.removesuffix(".tar.gz")


def usePorts(tests: Path, redisPort: int) -> None:
    """
    Have txredisapi's tests use a server of their own, and for the servers that they pretend, in
    place of 36379, 46379 and their neighbours, ports that the system gives to no client.
    """
    for module in tests.glob("*.py"):
        text = module.read_text()
        text = text.replace("REDIS_PORT = 6379", f"REDIS_PORT = {redisPort}")
        module.write_text(re.sub(r"\b([34])(63[78]\d)\b", lowered, text))


def lowered(port: re.Match[str]) -> str:
    """
    A port below the range that the system takes those of clients from.
    """
    return str(int(port[0]) - 20000)


def newFailures(run: Run, name: str, way: str) -> dict[str, str]:
    """
    The tests that fail, pass with stock Twisted, and fail again when they are run alone.

    A test that depends on time may fail for want of a processor, and not twice.
    """
    failed = run(name, way)["failed"].keys() - run(name, "stock")["failed"].keys()
    again: dict[str, str] = run(name, way, *sorted(failed))["failed"] if failed else {}
    return again


WORKER_TESTS = "buildbot_worker.test.unit.test_bot_Worker.TestWorker"

SENTINEL_TESTS = "tests.test_sentinel.TestConnectViaSentinel"

LISTENER_TESTS = "foolscap.test.test_listener.Listeners"

CASES = [
    pytest.param(name, way, id=f"{name}-{way}")
    for name, program in PROGRAMS.items()
    for way in program.ways
]


@pytest.mark.parametrize("name", PROGRAMS)
def test_programPassesWithStockTwisted(run: Run, name: str) -> None:
    """
    Enough of a program's tests are found, and pass with nothing replaced: otherwise the comparison
    says nothing.
    """
    outcome = run(name, "stock")
    assert outcome["replaced"] == {}
    assert outcome["run"] - len(outcome["failed"]) >= PROGRAMS[name].passing, outcome


@pytest.mark.parametrize(("name", "way"), CASES)
def test_programPassesWithReplacement(run: Run, name: str, way: str) -> None:
    """
    With this package in place of a part of Twisted, no other tests fail than with stock Twisted but
    for those listed, each for the reason with which it is listed.
    """
    expected = PROGRAMS[name].ways[way]
    failed = newFailures(run, name, way)
    unexpected = {
        test: complaint
        for test, complaint in failed.items()
        if expected.deviations.get(test, "\0") not in complaint
    }
    assert unexpected == {}
    # What is listed and does not fail any more has to be struck off.
    assert failed.keys() == expected.deviations.keys()


@pytest.mark.parametrize(("name", "way"), CASES)
def test_replacementIsUsed(run: Run, name: str, way: str) -> None:
    """
    The program has used what was put in the place of Twisted's, as often as is known of it, and has
    run no fewer tests.
    """
    outcome = run(name, way)
    for what, least in PROGRAMS[name].ways[way].least.items():
        assert outcome["replaced"].get(what, 0) >= least, outcome["replaced"]
    assert outcome["run"] == run(name, "stock")["run"]


@pytest.mark.parametrize(
    ("name", "way", "test"),
    [
        ("twisted", "broken-classes", "twisted.mail.test.test_smtp.TimeoutTests.test_ESMTPClient"),
        ("buildbot-worker", "broken-classes", f"{WORKER_TESTS}.test_worker_print"),
        ("txredisapi 1.4", "broken-classes", f"{SENTINEL_TESTS}.test_retry_on_error"),
        ("foolscap", "broken-heartbeat", f"{LISTENER_TESTS}.test_endpoint"),
    ],
)
def test_faultIsFound(run: Run, name: str, way: str, test: str) -> None:
    """
    These tests can fail: a class or a prefix with a fault does not pass.
    """
    assert run(name, "stock", test)["failed"] == {}
    assert run(name, way, test)["failed"] != {}
