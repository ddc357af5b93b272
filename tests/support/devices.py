# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The devices of C{docs/examples} as real processes: in C, which is compiled, in Python, and in
MicroPython.
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

    def __init__(self, command: list[str], log: Path) -> None:
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
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

    @param kind: C{"Python"} or C{"MicroPython"}.
    """
    if kind == "Python":
        return [sys.executable, "-uB"]
    # MicroPython writes what it prints at once, by itself.
    found = shutil.which("micropython")
    if found is None:
        pytest.skip("this system has no MicroPython")
    return [found]
