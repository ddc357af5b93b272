# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{WorkerProcess}: a second process of a benchmark, which answers commands in lines of JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Timer
from typing import Any

LONGEST = 300.0
"""Seconds after which a worker is killed in any case."""

Command = Callable[..., Any]


class WorkerProcess:
    """
    A running script of this folder.

    @ivar pid: its process id.
    """

    def __init__(self, script: str, *arguments: str, core: int | None = None) -> None:
        """
        @param core: the only processor core that it may use; any if L{None}.
        """
        command = [sys.executable, str(Path(__file__).with_name(script)), *arguments]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid
        if core is not None:
            os.sched_setaffinity(self.pid, {core})
        self._limit = Timer(LONGEST, self._process.kill)
        self._limit.daemon = True
        self._limit.start()

    def tell(self, command: str, **arguments: Any) -> None:
        """
        Send a command, without waiting for its answer.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([command, arguments]) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        """
        Wait for the answer to the oldest command.

        @raise SystemExit: if the worker has ended.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._process.args!r} has ended")
        return json.loads(line)

    def ask(self, command: str, **arguments: Any) -> Any:
        """
        Send a command, and wait for its answer.
        """
        self.tell(command, **arguments)
        return self.answer()

    def kill(self) -> None:
        """
        Kill the worker, which closes its connections.
        """
        self._limit.cancel()
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:
                # The worker had not read everything, which does not matter any more.
                pass


def serveCommands(commands: Mapping[str, Command]) -> None:
    """
    Run the reactor, and answer commands until the standard input is closed.

    @param commands: the functions by name; the answer is what a function returns.
    """
    # Imported here, because a benchmark may install another reactor first.
    from twisted.internet import reactor, stdio
    from twisted.logger import globalLogBeginner
    from twisted.protocols.basic import LineOnlyReceiver

    class Asked(LineOnlyReceiver):
        delimiter = b"\n"
        MAX_LENGTH = 1 << 24

        def lineReceived(self, line: bytes) -> None:
            name, arguments = json.loads(line)
            self.sendLine(json.dumps(commands[name](**arguments)).encode())

        def connectionLost(self, reason: Any = None) -> None:
            running.stop()

    running: Any = reactor
    # As in a quiet service.  Until there is a log observer, Twisted keeps 65,536 events.
    globalLogBeginner.beginLoggingTo([lambda event: None], redirectStandardIO=False)
    stdio.StandardIO(Asked())
    running.run()
