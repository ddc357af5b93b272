# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{WorkerProcess}: a process of a benchmark's own, which is asked, and answers, in lines of JSON.
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
"""Seconds after which a child is killed, whatever it does."""

Command = Callable[..., Any]


class WorkerProcess:
    """
    One of the scripts that lie beside this one, run.

    @ivar pid: its process.
    """

    def __init__(self, script: str, *arguments: str, core: int | None = None) -> None:
        """
        @param core: the only one that it may use; any if L{None}.
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
        Ask, and do not wait for the answer yet.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([command, arguments]) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        """
        The answer to the oldest question.

        @raise SystemExit: if it has ended.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._process.args!r} has ended")
        return json.loads(line)

    def ask(self, command: str, **arguments: Any) -> Any:
        """
        Ask, and wait for the answer.
        """
        self.tell(command, **arguments)
        return self.answer()

    def kill(self) -> None:
        """
        End it at once, its connections with it.
        """
        self._limit.cancel()
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:
                # What it had not read is of no interest any more.
                pass


def serveCommands(commands: Mapping[str, Command]) -> None:
    """
    Run the reactor, and do what is asked for, until nobody asks any more.

    @param commands: by name; what one returns is the answer.
    """
    # Here, for a benchmark must be free to choose another.
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
    # To nobody, as in a quiet service; until somebody listens, Twisted keeps 65,536 events.
    globalLogBeginner.beginLoggingTo([lambda event: None], redirectStandardIO=False)
    stdio.StandardIO(Asked())
    running.run()
