# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The states of a link, and what its owner need not override.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from twisted_heartbeat.link.owner import LinkOwner
from twisted_heartbeat.link.state import LinkState


@pytest.mark.parametrize(
    ("name", "isUp", "isEnding"),
    [
        ("new", False, False),
        ("handshaking", False, False),
        ("alive", True, False),
        ("suspected", True, False),
        ("closing", False, True),
        ("gone", False, True),
    ],
)
def test_stateIsItsName(name: str, isUp: bool, isEnding: bool) -> None:
    """
    A state can be compared, formatted, used as a key and written as JSON like its name.
    """
    state = LinkState(name)
    assert state == name
    assert f"{state}" == str(state) == name
    assert {name: 1}[state] == 1
    assert json.dumps(state) == f'"{name}"'
    assert (state.isUp, state.isEnding) == (isUp, isEnding)


def test_ownerDoesNothing() -> None:
    """
    An owner hears of everything without having to do anything, but for the end of its link.
    """

    owner = LinkOwner()
    given: Any = object()
    owner.linkReady(given)
    owner.linkProven(given)
    owner.linkClosing(given)
    with pytest.raises(NotImplementedError):
        owner.linkLost(given, None)  # type: ignore[arg-type]
