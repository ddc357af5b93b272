# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The pictures that scripts draw.
"""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.task import Clock

from twisted_heartbeat import Heartbeat, PeerClosed
from twisted_heartbeat.core.reconnector import State
from twisted_heartbeat.demo.main import STARTING
from twisted_heartbeat.demo.results import HEADINGS, KEPT, FaultResult
from twisted_heartbeat.demo.scenario import Demo
from twisted_heartbeat.demo.views import Plain

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


def test_pictureOfTheDemo() -> None:
    """
    The picture of the demo has the events of its first two faults, the table and the last line, as
    they stand in a terminal.
    """
    pytest.importorskip("rich")
    demo = SimpleNamespace(
        results=[FaultResult("fault a", 2.0, cause=PeerClosed, detectedAfter=0.5)]
    )
    picture = script("record_demo").Picture(demo)
    events = [("connected", "link 1"), ("FAULT", "fault a"), ("disconnected", "lost a")]
    for event, words in [*events, ("FAULT", "b"), ("FAULT", "c"), ("disconnected", "lost c")]:
        picture.say(event, words)
    picture.end()
    lines = picture.console.export_text(clear=False).splitlines()
    assert lines[:2] == ["$ python -m twisted_heartbeat", STARTING]
    said = [line.split(" s ", 1)[1].split(maxsplit=1) for line in lines[2:6]]
    assert [(event, words.rstrip()) for event, words in said] == [*events, ("FAULT", "b")]
    assert [line.rstrip() for line in lines[6:8]] == ["   ...", ""]
    assert lines[8].split() == " ".join(HEADINGS).split()
    assert lines[10].split() == ["fault", "a", "PeerClosed", "0.50", "(2.05)", "0", "(1)", "-", "-"]
    assert [line.rstrip() for line in lines[11:]] == ["", KEPT]
    assert "lost&#160;a" in picture.svg()


def test_pictureShowsTheDemo() -> None:
    """
    The picture in the README has each row of the demo.  C{python docs/record_demo.py} draws it.
    """
    pytest.importorskip("treq", reason="without it the demo has a row less")
    drawn = (DOCS / "_static" / "demo.svg").read_text(encoding="utf-8")
    words = unescape(drawn).replace("\xa0", " ")
    rows = [result.fault for result in Demo(Clock(), Heartbeat.within(2), Plain).results]
    shown = [STARTING, KEPT, *HEADINGS, *rows]
    assert [each for each in shown if each not in words] == []
