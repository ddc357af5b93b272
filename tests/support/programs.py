# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Real processes of C{twist} and C{twistd}, and what they print.

They run in a folder of their own, and find this package and its plugin by C{PYTHONPATH}.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Condition, Thread
from typing import Any

import pytest
from twisted.plugins import twisted_heartbeat_plugin

import twisted_heartbeat

WAIT_LIMIT = 20.0
"""Seconds that a test waits for anything before it fails."""

TWIST = ["-m", "twisted"]
JSON = [*TWIST, "--log-format=json"]
DAEMON = ["-c", "from twisted.scripts.twistd import run; run()"]
TWISTD = [*DAEMON, "-n"]

Event = dict[str, Any]


class Program:
    """
    A process of this interpreter, and the lines that it has printed so far.
    """

    def __init__(self, folder: Path, environment: dict[str, str], arguments: Sequence[str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self.errors = ""
        self._silent = False
        self._changed = Condition()
        self._readers = [Thread(target=self._readLines), Thread(target=self._readErrors)]
        for reader in self._readers:
            reader.start()

    def _readLines(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self.lines.append(line.strip("\x1e\n"))
                self._changed.notify()
        with self._changed:
            self._silent = True
            self._changed.notify()

    def _readErrors(self) -> None:
        assert self.process.stderr is not None
        self.errors = self.process.stderr.read()

    @property
    def events(self) -> list[Event]:
        """
        The log so far, of a C{twist} that logs JSON.
        """
        with self._changed:
            return [json.loads(line) for line in self.lines]

    def named(self, name: str, **fields: object) -> list[Event]:
        """
        The events of a name, and with these fields.
        """
        wanted = {"event": name, **fields}
        return [e for e in self.events if all(e.get(key) == wanted[key] for key in wanted)]

    def awaitEvent(self, name: str, number: int = 1, **fields: object) -> Event:
        """
        The event of this name, once it has been logged so many times.
        """
        self.awaitLog(lambda: len(self.named(name, **fields)) >= number)
        return self.named(name, **fields)[number - 1]

    def awaitLine(self, words: str) -> None:
        """
        Wait for a line with these words.
        """
        self.awaitLog(lambda: any(words in line for line in self.lines))

    def awaitLog(self, holds: Callable[[], bool]) -> None:
        """
        Wait for lines that make it hold.
        """
        with self._changed:
            self._changed.wait_for(lambda: holds() or self._silent, WAIT_LIMIT)
            assert holds(), "\n".join([*self.lines, self.errors])

    def tell(self, number: signal.Signals) -> None:
        """
        Send it a signal.
        """
        self.process.send_signal(number)

    def awaitExit(self, within: float = WAIT_LIMIT) -> int:
        """
        Its exit status.  Everything it has printed is there by then.
        """
        try:
            status = self.process.wait(within)
        except subprocess.TimeoutExpired:
            pytest.fail("\n".join(["it does not exit:", *self.lines]))
        self._finishReading()
        return status

    def end(self) -> None:
        """
        Leave nothing of it.
        """
        self.process.kill()
        self.process.wait()
        self._finishReading()

    def _finishReading(self) -> None:
        for reader in self._readers:
            reader.join()
        assert self.process.stdout is not None and self.process.stderr is not None
        self.process.stdout.close()
        self.process.stderr.close()


Run = Callable[..., Program]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    A folder with this package and its plugin, so that Twisted's cache of plugins is written here.
    """
    folder = tmp_path_factory.mktemp("site")
    package = Path(twisted_heartbeat.__file__).parent
    (folder / package.name).symlink_to(package, target_is_directory=True)
    plugins = folder / "twisted" / "plugins"
    plugins.mkdir(parents=True)
    shutil.copy(twisted_heartbeat_plugin.__file__, plugins)
    return folder


@pytest.fixture
def run(tmp_path: Path, site: Path) -> Iterator[Run]:
    """
    Starts a Python with these arguments; whatever still runs after the test is killed.
    """
    programs: list[Program] = []

    def start(*arguments: str, **environment: str) -> Program:
        whole = {**os.environ, "PYTHONPATH": str(site), "PYTHONUNBUFFERED": "1", **environment}
        programs.append(Program(tmp_path, whole, arguments))
        return programs[-1]

    yield start
    for program in programs:
        program.end()


def freePlaces(number: int) -> list[str]:
    """
    Endpoints on this host where nobody listens.
    """
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    places = [f"tcp:{probe.getsockname()[1]}:interface=127.0.0.1" for probe in probes]
    for probe in probes:
        probe.close()
    return places


@pytest.fixture
def place() -> str:
    """
    An endpoint on this host where nobody listens.
    """
    [free] = freePlaces(1)
    return free


def portOf(place: str) -> str:
    return place.split(":")[1]


def listen(run: Run, place: str, *options: str) -> Program:
    """
    A listener that listens.
    """
    listener = run(*JSON, "heartbeat", "--listen", place, *options)
    listener.awaitLine("starting on")
    return listener


def connectTo(run: Run, place: str, *options: str) -> Program:
    client = f"tcp:127.0.0.1:{portOf(place)}"
    return run(*JSON, "heartbeat", "--connect", client, "--max-delay=0.2", *options)
