# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
A watcher that is killed at any moment loses no change that was reported as stored, uses no number
twice, and tells each subscriber everything in order (promises 23 and 24).
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from .presence_kills import Scene

CHECKOUT = Path(__file__).parents[2]

PROGRAM = Path(__file__).with_name("presence_kills.py")

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the watchers are forked")


def killed(folder: Path, kills: int, seed: int) -> dict[str, int]:
    """
    Kill so many watchers.

    @return: how many changes were kept, and told.
    """
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(folder), str(kills), str(seed)],
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    counts: dict[str, int] = json.loads(done.stdout)
    return counts


def test_killedWatcherLosesNothing(tmp_path: Path) -> None:
    """
    The watcher is killed while peers come and go, and each time the store has what was reported, in
    one chain of changes for each peer; a clean restart tells nothing twice.
    """
    counts = killed(tmp_path, 30, 1)
    assert counts["told"] > counts["kept"] > 50


@pytest.mark.slow
def test_watcherKilledHundredsOfTimes(tmp_path: Path) -> None:
    """
    The same, many more times.
    """
    counts = killed(tmp_path, 200, 2)
    assert counts["told"] > counts["kept"] > 500


FIRST = "number = (SELECT min(number) FROM changes)"
"""The first numbers may have gone with a watcher that was killed before it stored anything."""

FAULTS = {
    "a kept change is lost": "DELETE FROM changes WHERE number = (SELECT max(number) FROM changes)",
    "a number is another change's": f"UPDATE changes SET name = 'x' WHERE {FIRST}",
    "a chain is broken": f"UPDATE changes SET previous = 'suspect', state = 'up' WHERE {FIRST}",
    "a record is old": "UPDATE peers SET number = number - 1",
    "numbers are not reserved": "UPDATE meta SET value = 0 WHERE key = 'reserved'",
    "changes were given up": "INSERT INTO gaps VALUES (2, 1)",
}


def test_faultsAreSeen(tmp_path: Path) -> None:
    """
    The checks above can fail: each kind of fault in the database is found.
    """
    counts = killed(tmp_path, 3, 3)
    assert counts["told"] >= counts["kept"] > 0
    scene = Scene(tmp_path)
    scene.check()
    scene.checkTold()
    whole = scene.database.read_bytes()
    for statement in FAULTS.values():
        with sqlite3.connect(scene.database) as connection:
            connection.execute(statement)
        connection.close()
        with pytest.raises(AssertionError):
            scene.check()
        scene.database.write_bytes(whole)
    with sqlite3.connect(scene.database) as connection:
        connection.execute(f"UPDATE changes SET number = 10000000 WHERE {FIRST}")
    connection.close()
    with pytest.raises(AssertionError, match="never told"):
        scene.checkTold()
    scene.close()
