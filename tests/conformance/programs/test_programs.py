# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Other projects' programs pass their own tests with this package in place of parts of Twisted.

C{table.py} lists the programs, C{replaced.py} makes the replacements, and C{tox -e programs} runs
all. A test that fails with stock Twisted, too, counts as no failure of this package.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from ...docs.recipes.recipe import freePort
from ..trialrun import runScript
from .table import PROGRAMS

SCRIPT = Path(__file__).parent.parent / "replaced.py"

TIMEOUT = 900.0
"""Seconds after which a run is a failure. The longest, foolscap's, takes four minutes."""

Run = Callable[..., Any]
"""A program's name, a way, and the names of tests (default: all) -> what C{replaced.py} prints."""


@pytest.fixture(scope="session")
def redisPort(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """
    The port of an empty Redis server.
    """
    command = shutil.which("redis-server")
    if command is None:
        pytest.skip("not installed: redis-server")
    port = freePort()
    folder = tmp_path_factory.mktemp("redis")
    options = {"port": str(port), "bind": "127.0.0.1 -::1", "save": "", "dir": str(folder)}
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
    A function that runs a program's tests. It keeps each outcome, because several tests need it.
    """

    @cache
    def sourceOf(name: str) -> str:
        program = PROGRAMS[name]
        if program.source is None:
            requireInstalled(program.tests)
            return ""
        redisPort = request.getfixturevalue("redisPort") if program.needsRedis else None
        folder = unpacked(program.source, tmp_path_factory.mktemp("source"))
        if redisPort is not None:
            usePorts(folder / "tests", redisPort)
        return str(folder)

    @cache
    def run(name: str, way: str, *tests: str) -> Any:
        program = PROGRAMS[name]
        return runScript(
            SCRIPT,
            way,
            *(tests or program.tests),
            timeout=TIMEOUT,
            environment={
                # Hides the installed program, which has no tests.
                "PYTHONPATH": sourceOf(name),
                # Tests that need the program's commands are skipped unless they find them.
                "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            },
        )

    return run


def requireInstalled(tests: tuple[str, ...]) -> None:
    """
    Skip the test unless the packages that hold a program's tests are installed.
    """
    for package in {test.partition(".")[0] for test in tests}:
        if find_spec(package) is None:
            pytest.skip(f"not installed: {package}")


def unpacked(requirement: str, folder: Path) -> Path:
    """
    Download and unpack a source archive, or skip the test if pip cannot download it.

    @return: the folder of its contents.
    """
    options = ["--quiet", "--no-deps", "--no-binary", ":all:", "--dest", str(folder)]
    answer = subprocess.run(
        [sys.executable, "-m", "pip", "download", *options, requirement],
        stderr=subprocess.PIPE,
        text=True,
    )
    if answer.returncode != 0:
        pytest.skip(f"not downloaded: {requirement}: {answer.stderr.strip()}")
    [path] = folder.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        archive.extractall(folder, filter="data")
    return folder / path.name.removesuffix(".tar.gz")


def usePorts(tests: Path, redisPort: int) -> None:
    """
    Rewrite the ports in txredisapi's tests.

    The tests then use the Redis server at C{redisPort}. Their fake servers listen at 36379, 46379
    and neighbours, which the kernel also gives to clients, so they move to lower ports.
    """
    for module in tests.glob("*.py"):
        text = module.read_text()
        text = text.replace("REDIS_PORT = 6379", f"REDIS_PORT = {redisPort}")
        module.write_text(re.sub(r"\b([34])(63[78]\d)\b", lowered, text))


def lowered(port: re.Match[str]) -> str:
    """
    A port below the range from which the kernel takes the ports of clients.
    """
    return str(int(port[0]) - 20000)


def newFailures(run: Run, name: str, way: str) -> dict[str, str]:
    """
    The tests that fail, pass with stock Twisted, and fail again when only they are run.

    A test that depends on real time may fail on a busy machine; that it passed later is a warning.
    """
    complaints: dict[str, str] = run(name, way)["failed"]
    failed = complaints.keys() - run(name, "stock")["failed"].keys()
    again: dict[str, str] = run(name, way, *sorted(failed))["failed"] if failed else {}
    if passed := {test: complaints[test] for test in sorted(failed - again.keys())}:
        warnings.warn(f"{name}, {way}: failed once, then passed: {passed}", stacklevel=2)
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
    Enough of a program's tests pass with nothing replaced; otherwise the comparison proves nothing.
    """
    outcome = run(name, "stock")
    assert outcome["replaced"] == {}
    assert outcome["run"] - len(outcome["failed"]) >= PROGRAMS[name].passing, outcome


@pytest.mark.parametrize(("name", "way"), CASES)
def test_programPassesWithReplacement(run: Run, name: str, way: str) -> None:
    """
    With this package in place of a part of Twisted, no test fails that passes with stock Twisted,
    except those in C{deviations}, each with the complaint listed there.
    """
    expected = PROGRAMS[name].ways[way]
    failed = newFailures(run, name, way)
    unexpected = {
        test: complaint
        for test, complaint in failed.items()
        if expected.deviations.get(test, "\0") not in complaint
    }
    assert unexpected == {}
    # A test that no longer fails must be removed from the list.
    assert failed.keys() == expected.deviations.keys()


@pytest.mark.parametrize(("name", "way"), CASES)
def test_replacementIsUsed(run: Run, name: str, way: str) -> None:
    """
    The program used the replacement at least as often as listed, and ran as many tests as before.
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
    A class or a prefix with a fault fails a program's test, so these runs can find a fault.
    """
    assert run(name, "stock", test)["failed"] == {}
    assert run(name, way, test)["failed"] != {}
