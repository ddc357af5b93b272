# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
A fresh interpreter, which has loaded nothing that other tests have, and in which nothing else runs.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parent.parent


def loadedBy(statements: str) -> set[str]:
    """
    The modules that it has loaded after these statements, those of its own start included.
    """
    return set(_printedBy(f"import sys\n{statements}\nprint(*sys.modules, sep='\\n')").split())


def numberOf(module: str, expression: str) -> float:
    """
    What an expression is, made of the public names of a module.
    """
    return float(_printedBy(f"from {module} import *\nprint({expression})"))


def _printedBy(program: str) -> str:
    answer = subprocess.run(
        [sys.executable, "-c", program],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout
