# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The devices of C{docs/examples} before the conformance tester: in C, in Python, in MicroPython and
in Node.js.  Several processes of each share the scenarios.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.endpoints import TCP4ServerEndpoint

from twisted_heartbeat.conformance.play import CLIENT, Findings, Settings
from twisted_heartbeat.conformance.runner import ClientRun
from twisted_heartbeat.conformance.scenarios import SCENARIOS

from ..support.findings import examineAll, faultsOf

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the devices are POSIX programs")

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"

SCALE = 0.05
"""Seconds that a device takes for one."""

BOUND = 1.0

DEVICES = 8
"""Processes of each kind."""

PYTHON = """
import sys
sys.path.insert(0, {folder!r})
import device
device.SECOND = {second}
device.run(sys.argv[1], int(sys.argv[2]), sys.argv[3])
"""

NEEDED = {"C": os.environ.get("CC", "cc"), "MicroPython": "micropython", "Node.js": "node"}
KINDS = ("C", "Python", "MicroPython", "Node.js")

OF_NEEDS = {
    "offers-kept",
    "needs-served",
    "hold-kept",
    "pings-needed",
    "ping-token",
    "ping-into-silence",
    "pings-halved",
}
"""Rules that do not concern a device without a bound of its own, which offers nothing."""

OF_WORD = {"hold-read", "offers-read"}
"""Rules that do not concern a device with a bound of its own."""


def commandOf(kind: str, folder: Path) -> list[str] | None:
    """
    How to start a device; L{None} if this system has not what it needs.
    """
    needed = NEEDED.get(kind)
    if needed is not None and shutil.which(needed) is None:
        return None
    second = round(1000 * SCALE)
    if kind == "C":
        program = folder / "device"
        flags = ["-std=c99", "-O2", f"-DSECOND={second}", *os.environ.get("CFLAGS", "").split()]
        source = str(EXAMPLES / "device.c")
        subprocess.run([NEEDED["C"], *flags, "-o", str(program), source], check=True, timeout=60)
        return [str(program)]
    if kind == "Node.js":
        return ["node", str(EXAMPLES / "device.js")]
    main = folder / "main.py"
    main.write_text(PYTHON.format(folder=str(EXAMPLES), second=second))
    return [sys.executable if kind == "Python" else "micropython", str(main)]


async def examined(kind: str, folder: Path) -> Findings | None:
    """
    Play all scenarios against devices of one kind.
    """
    from twisted.internet import reactor

    command = commandOf(kind, folder)
    if command is None:
        return None
    ownBound = [str(BOUND)] if kind == "Node.js" else []
    environment = {**os.environ, "SECOND": str(round(1000 * SCALE))}
    processes: list[subprocess.Popen[bytes]] = []

    def listening(port: Any) -> None:
        number = str(port.getHost().port)
        for name in (f"{kind} {each}" for each in range(DEVICES)):
            processes.append(
                subprocess.Popen(
                    [*command, "127.0.0.1", number, name, *ownBound],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                )
            )

    settings = Settings(
        role=CLIENT, bound=BOUND, tolerance=0.6, scale=SCALE, closing=5 * SCALE, limit=90.0
    )
    run = ClientRun(reactor, settings, SCENARIOS.values())
    try:
        return await run.run(TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"), listening)
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Findings | None]]:
    """
    What was found of all devices, side by side.
    """
    folder = tmp_path_factory.mktemp("devices")
    yield examineAll(KINDS, partial(examined, folder=folder))


@pytest.mark.parametrize("kind", KINDS)
def test_deviceConforms(results: dict[str, Findings | None], kind: str) -> None:
    """
    A device keeps every rule, also those that only should be kept, and every scenario is played.
    MicroPython has neither C{shutdown} nor C{SO_LINGER} on most systems, so there only what must be
    kept counts.
    """
    findings = results[kind]
    if findings is None:
        pytest.skip(f"this system has no {NEEDED[kind]}")
    levels = ("must",) if kind == "MicroPython" else ("must", "should")
    assert findings.broken(*levels) == [], faultsOf(findings)
    assert findings.unplayed == []
    assert set(findings.skipped) == (OF_WORD if kind == "Node.js" else OF_NEEDS)
