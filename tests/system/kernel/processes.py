# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Process}: a script of the suite that runs in a namespace, takes orders and reports events.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from .cells import Cell

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent.parent

PIPE = 1024 * 1024
"""Bytes; the most that a system allows by default, pipe(7)."""

Event = dict[str, Any]


class Journal:
    """
    All that the processes of one run have reported, in the order of its coming.
    """

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._byCell: dict[str, list[Event]] = {}
        self._byProcess: dict[tuple[int, str, int | None], Event] = {}
        self._came = threading.Condition()

    def add(self, event: Event) -> None:
        """
        Enter an event.
        """
        with self._came:
            self._events.append(event)
            cell = event.get("cell") or event.get("link")
            if cell is not None:
                self._byCell.setdefault(cell, []).append(event)
            if event["event"] != "sent":
                # What comes thousandfold, nobody waits for.
                self._byProcess[event["pid"], event["event"], event.get("number")] = event
                self._came.notify_all()

    def last(self, pid: int, name: str, number: int | None = None) -> Event | None:
        """
        The last event of that name that a process has reported.

        @param number: of the order that it belongs to.
        """
        with self._came:
            return self._byProcess.get((pid, name, number))

    def of(self, cell: Cell, *names: str) -> list[Event]:
        """
        What was reported of a cell.

        @param names: of the events; all of them if none is given.
        """
        with self._came:
            events = self._byCell.get(cell.name, ())
            return [event for event in events if not names or event["event"] in names]

    def all(self, *names: str) -> list[Event]:
        """
        What was reported at all.
        """
        with self._came:
            return [event for event in self._events if event["event"] in names]

    def wait(self, holds: Callable[[], bool], seconds: float) -> bool:
        """
        Wait until something holds, which only what is reported can change.

        @return: whether it does.
        """
        with self._came:
            return self._came.wait_for(holds, seconds)


class Process:
    """
    One process.

    @ivar name: what its complaints are called.
    """

    STARTS_WITHIN = 30.0
    OBEYS_WITHIN = 15.0

    def __init__(
        self,
        script: str,
        namespace: str,
        journal: Journal,
        certificates: Path,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = script
        self._journal = journal
        self._orders = 0
        self._writing = threading.Lock()
        command = ["ip", "netns", "exec", namespace, sys.executable, str(FOLDER / script)]
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [*command, str(certificates), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path, **(environment or {})},
        )
        assert self._process.stdout is not None
        # So that nobody waits for the test to read what he says.
        fcntl.fcntl(self._process.stdout, fcntl.F_SETPIPE_SZ, PIPE)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._journal.add({"pid": self.pid, "script": self.name, **json.loads(line)})
        self._journal.add({"pid": self.pid, "event": "ended", "at": time.monotonic()})

    @property
    def pid(self) -> int:
        """
        Its id: C{ip netns exec} becomes what it executes.
        """
        return self._process.pid

    def _has(self, name: str, number: int | None = None) -> bool:
        return self._journal.last(self.pid, name, number) is not None

    def started(self) -> Process:
        """
        Wait until it has started.

        @raise TimeoutError: if it does not.
        """
        if not self._journal.wait(lambda: self._has("started"), self.STARTS_WITHIN):
            raise TimeoutError(f"{self.name} did not start within {self.STARTS_WITHIN} s")
        return self

    def tell(
        self, do: str, cells: Iterable[Cell] = (), *, wait: bool = True, **fields: Any
    ) -> None:
        """
        Give it an order, and wait until it has obeyed.

        @raise TimeoutError: if it does not obey.
        """
        with self._writing:
            self._orders += 1
            number = self._orders
            order = {"do": do, "number": number, "cells": [cell.asJson() for cell in cells]}
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps({**order, **fields}) + "\n")
            self._process.stdin.flush()
        if wait and not self._journal.wait(lambda: self._has("obeyed", number), self.OBEYS_WITHIN):
            raise TimeoutError(f"{self.name} did not {do} within {self.OBEYS_WITHIN} s")

    def stop(self) -> None:
        """
        SIGSTOP.
        """
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """
        SIGCONT.
        """
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """
        SIGKILL, whatever its state.
        """
        self._process.kill()
        self._process.wait()
        self._reader.join(5)

    def end(self) -> None:
        """
        Have it end by itself, or kill it.
        """
        if self._process.poll() is None:
            self.resume()
            assert self._process.stdin is not None
            try:
                self._process.stdin.close()
                self._process.wait(5)
            except (OSError, subprocess.TimeoutExpired):
                pass
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except OSError:
                pass
