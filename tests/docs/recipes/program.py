# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Program}: a process of a test's own, and the lines that it has printed.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol

AMPLE = 30.0
"""Seconds after which a wait for what must come is a failure."""

GRACE = 5.0
"""Seconds that a program has to end by itself."""


class Program(ProcessProtocol):
    """
    One process.

    @ivar lines: what it has printed, on either stream, and when it was read (monotonic seconds).
    """

    def __init__(self, *command: object, environment: Mapping[str, str] | None = None) -> None:
        from twisted.internet import reactor

        self.lines: list[tuple[float, str]] = []
        self._clock: Any = reactor
        self._rest = b""
        self._waiting: list[tuple[int, re.Pattern[str], Deferred[Any]]] = []
        self._ended: Deferred[None] = Deferred()
        words = [str(word) for word in command]
        env = {**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})}
        self._process: Any = reactor.spawnProcess(self, words[0], words, env=env)

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """
        See C{ProcessProtocol}.
        """
        *whole, self._rest = (self._rest + data).split(b"\n")
        now = time.monotonic()
        self.lines += [(now, line.decode(errors="replace")) for line in whole]
        self._tellWaiting()

    def processEnded(self, reason: Any) -> None:
        """
        See C{ProcessProtocol}.
        """
        self._ended.callback(None)

    def enter(self, line: str) -> None:
        """
        Type a line at its standard input.
        """
        self._process.write(line.encode() + b"\n")

    def says(self, pattern: str, since: int = 0) -> Deferred[tuple[float, re.Match[str]]]:
        """
        Fires with the first line in which the pattern is found, and when it was read.

        @param since: so many lines are passed over.
        """
        said: Deferred[Any] = Deferred()
        self._waiting.append((since, re.compile(pattern), said))
        self._tellWaiting()
        said.addTimeout(AMPLE, self._clock, lambda result, seconds: self._fail(pattern))
        return said

    @property
    def said(self) -> str:
        """
        All that it has printed.
        """
        return "\n".join(line for _, line in self.lines)

    def _fail(self, pattern: str) -> None:
        raise AssertionError(f"no {pattern!r} within {AMPLE} s in:\n{self.said}")

    def _tellWaiting(self) -> None:
        for entry in tuple(self._waiting):
            since, pattern, said = entry
            found = ((at, pattern.search(line)) for at, line in self.lines[since:])
            first = next(((at, match) for at, match in found if match), None)
            if first is not None or said.called:
                self._waiting.remove(entry)
            if first is not None and not said.called:
                said.callback(first)

    def freeze(self) -> None:
        """
        SIGSTOP.
        """
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """
        SIGCONT.
        """
        self._signal(signal.SIGCONT)

    def end(self) -> Deferred[None]:
        """
        Have it end, whatever its state.

        @return: fires when it has.
        """
        self.thaw()
        self._signal(signal.SIGTERM)
        killing = self._clock.callLater(GRACE, self._signal, signal.SIGKILL)

        def ended(result: None) -> None:
            if killing.active():
                killing.cancel()

        return self._ended.addCallback(ended)

    def _signal(self, number: int) -> None:
        try:
            self._process.signalProcess(number)
        except ProcessExitedAlready:
            pass
