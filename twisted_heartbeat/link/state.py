# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{LinkState}: the states of a link, in the order in which it passes through them.

A link that was not C{handshaking} goes from C{new} to C{alive}.  It alternates between C{alive} and
C{suspected}, and never returns from C{closing} or C{gone}.
"""

from __future__ import annotations

from enum import StrEnum


class LinkState(StrEnum):
    """
    The state of a link.  Each member is equal to its value, so that C{link.state == "alive"} works.

    @ivar isUp: whether the link is in use: C{alive} or C{suspected}.
    @ivar isEnding: whether the link is C{closing} or C{gone}, so that nothing is heard on it.
    """

    NEW = "new"
    HANDSHAKING = "handshaking"
    ALIVE = "alive"
    SUSPECTED = "suspected"
    CLOSING = "closing"
    GONE = "gone"

    isUp: bool
    isEnding: bool

    def __init__(self, value: str) -> None:
        # Attributes and not properties: each ping asks for one of them.
        self.isUp = value in ("alive", "suspected")
        self.isEnding = value in ("closing", "gone")
