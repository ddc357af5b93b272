# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What the public names of check-ins load, and when.
"""

from __future__ import annotations

import pytest

from ..support.interpreter import loadedBy


@pytest.mark.parametrize(
    ("statement", "web", "treq"),
    [
        ("import twisted_heartbeat", False, False),
        ("from twisted_heartbeat import Check, CheckInFailed, CheckInLimits", False, False),
        ("from twisted_heartbeat import CheckInResource", True, False),
        ("from twisted_heartbeat import CheckIn", True, True),
        ("import twisted_heartbeat.tap", False, False),
    ],
)
def test_whatIsLoaded(statement: str, web: bool, treq: bool) -> None:
    """
    Neither C{twisted.web} nor treq is loaded before a name is used that needs it; a server of
    check-ins needs no treq.
    """
    loaded = loadedBy(statement)
    assert ("twisted.web.server" in loaded or "twisted.web.client" in loaded) == web
    assert ("treq" in loaded) == treq
