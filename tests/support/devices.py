# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The devices of C{docs/examples} as real processes: in C, which is compiled, and in Python,
MicroPython and Node.js.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_COMPILED_WITHIN = 30.0
"""Seconds."""


class Device:
    """
    A device that runs.
    """

    def __init__(
        self, command: list[str], log: Path, environment: dict[str, str] | None = None
    ) -> None:
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def lines(self) -> list[str]:
        """
        What it has printed so far, in whole lines.
        """
        return self._log.read_text().split("\n")[:-1]

    def end(self) -> None:
        """
        Leave nothing of it.
        """
        self.process.kill()
        self.process.wait()


def compileDevice(source: Path, program: Path, **macros: int) -> None:
    """
    Compile a device in C, without a warning.  The test is skipped where there is no compiler.

    @param macros: set on the command line.
    """
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("this system has no C compiler")
    flags = ["-std=c99", "-Wall", "-Wextra", "-pedantic", "-O2"]
    flags += [f"-D{name}={value}" for name, value in macros.items()]
    flags += os.environ.get("CFLAGS", "").split()
    command = [compiler, *flags, "-o", str(program), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_COMPILED_WITHIN)
    assert (done.returncode, done.stderr) == (0, "")


def interpreter(kind: str) -> list[str]:
    """
    The command that runs a script of a device.  The test is skipped where there is none.

    @param kind: C{"Python"}, C{"MicroPython"} or C{"Node.js"}.
    """
    if kind == "Python":
        return [sys.executable, "-uB"]
    # MicroPython and Node.js write what they print at once, by themselves.
    found = shutil.which({"MicroPython": "micropython", "Node.js": "node"}[kind])
    if found is None:
        pytest.skip(f"this system has no {kind}")
    return [found]
