# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
A short run of the coverage-guided fuzzer of C{tests/conformance/fuzz}; C{tox -e fuzz} makes a
longer one.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

FUZZER = Path(__file__).parent / "fuzz" / "fuzz_wire.py"


def fuzz(target: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(FUZZER), target, f"--found={folder}/", *options],
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("target", ["wire", "protocol"])
def test_nothingIsFound(target: str, tmp_path: Path) -> None:
    """
    Some thousand inputs that a fuzzer comes upon, by what they make the code do, raise nothing but
    C{ProtocolViolation}, give the same frames however they are cut, and keep no more memory than
    the limits allow (promise 17).
    """
    pytest.importorskip("atheris", reason="atheris, the fuzzer, is not installed (extra: fuzz)")
    done = fuzz(target, tmp_path, "--runs=3000", "--seconds=20", "--seed=1")
    assert done.returncode == 0, done.stderr[-5000:]
    executed = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    assert executed is not None and int(executed[1]) > 100
    assert list(tmp_path.iterdir()) == []
