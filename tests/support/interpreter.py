# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
A fresh interpreter, which has loaded nothing that other tests have, and in which nothing else runs.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]


def loadedBy(statements: str) -> set[str]:
    """
    The modules that it has loaded after these statements, those of its own start included.
    """
    return set(printedBy(f"import sys\n{statements}\nprint(*sys.modules, sep='\\n')").split())


def callsOf(*statements: str) -> list[int]:
    """
    How many calls, of functions in Python and in C, it has made after each of these statements.
    """
    program = """
import sys
calls = 0
def count(frame, event, argument):
    global calls
    calls += event.endswith("call")
for statement in sys.argv[1:]:
    sys.setprofile(count)
    exec(statement)
    sys.setprofile(None)
    print(calls)
"""
    return [int(line) for line in printedBy(program, *statements).split()]


def numberOf(module: str, expression: str) -> float:
    """
    What an expression is, made of the public names of a module.
    """
    return float(printedBy(f"from {module} import *\nprint({expression})"))


def printedBy(program: str, *arguments: str, options: Sequence[str] = ()) -> str:
    """
    What a program prints.

    @param arguments: the program's.
    @param options: the interpreter's.
    """
    answer = subprocess.run(
        [sys.executable, *options, "-c", program, *arguments],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout
