# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The pictures that scripts draw.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from twisted_heartbeat.core.reconnector import State

from ..support.modules import imported

DOCS = Path(__file__).parents[2] / "docs"


def script(name: str) -> Any:
    """
    A script of the documentation, as a module.
    """
    return imported(DOCS / f"{name}.py")


@pytest.mark.parametrize("name", ["running", "stopping"])
def test_machineIsThatOfTheCode(name: str) -> None:
    """
    The page shows the machine as it is.  C{python docs/draw_machine.py} draws it anew.
    """
    drawn = (DOCS / "_static" / f"machine-{name}.svg").read_text(encoding="utf-8")
    assert drawn == script("draw_machine").picture(name)


def test_machineIsWhole() -> None:
    """
    Every state and every transition is in one of the two pictures.
    """
    draw = script("draw_machine")
    assert {state for places in draw.PLACES.values() for state in places} == {*map(str, State)}
    for name in draw.PLACES:
        labels = re.findall(r'class="label"[^>]*>([^<]*)<', draw.picture(name))
        shown = sorted(word for label in labels for word in label.split(", "))
        expected = [word for a, word, _ in draw.transitions() if draw.inPicture(name, a, word)]
        assert shown == sorted(expected)


def test_excerptOfTheDemo() -> None:
    """
    The picture of the demo has the events of its first two faults, the table and the last line.
    """
    lines = ["1 s connected", "2 s FAULT a", "3 s lost a", "4 s FAULT b", "5 s FAULT c", "6 s end"]
    lines += ["", "fault  cause", "-----", "a  kept", "", "In seconds", "", "Each row kept it."]
    pytest.importorskip("rich")
    demo = script("record_demo")
    expected = [*lines[:4], "   ...", "", "fault  cause", "-----", "a  kept", "", lines[-1]]
    assert demo.excerpt(lines) == expected
    assert "lost&#160;a" in demo.draw(expected)
