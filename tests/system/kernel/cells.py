# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Cell}: one connection of the kernel suite, as the test, the watcher and the peer all see it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

PEER_NAME = "peer.test"
"""Whom the certificates are for."""

CROWD = "crowd"
"""The row whose one cell has many connections."""

LOADS = ("idle", "data", "full", "stall", "quick", "keepalive")
"""
What a connection does when the fault strikes: nothing; small messages, each answered; a send
buffer that is always full, before a peer that reads slowly; the same with a C{sendStall} below the
bound; nothing, with a short bound; nothing, watched by keepalive alone.
"""

BARE_LOADS = LOADS[:3]

FIRST_PORT = 4000

# What all links are watched with, in seconds.

USUAL_BOUND = 2.0
QUICK_BOUND = 0.7
HEARTBEAT_EVERY = 0.25
"""Between two heartbeats over UDP."""

SEND_STALL = 1.0
"""Of the load C{stall}; of all others it is out of reach."""

KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_COUNT = 1, 1, 2
CONNECT_TIMEOUT = 1.5
SHORTEST_DELAY, LONGEST_DELAY = 0.2, 0.5

PACE = 0.1
"""Between two reads of a peer that reads slowly."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """
    One connection, named after all that makes it differ from the others.

    @ivar row: the fault that it is there for.
    @ivar secure: whether it speaks TLS.
    @ivar side: who watches, C{"client"} or C{"server"}: the other side is the peer.
    @ivar load: one of L{LOADS}.
    @ivar here: the watcher's address.
    @ivar there: the peer's addresses, tried in turn.
    @ivar speaks: seconds after which the peer speaks by itself, again and again; 0 for never.
    @ivar patient: whether a peer that is the client never reconnects by itself.
    """

    row: str
    secure: bool
    side: str
    load: str
    here: str
    there: tuple[str, ...]
    speaks: float = 0.0
    patient: bool = False

    @property
    def name(self) -> str:
        """
        What the events call it.
        """
        return "/".join((self.row, "tls" if self.secure else "plain", self.side, self.load))

    @property
    def port(self) -> int:
        """
        The port that whoever is the server listens on.
        """
        return FIRST_PORT + 2 * LOADS.index(self.load) + self.secure

    def asJson(self) -> dict[str, Any]:
        """
        For the way to another process.
        """
        return asdict(self)

    @classmethod
    def fromJson(cls, fields: dict[str, Any]) -> Cell:
        """
        From another process.
        """
        return cls(**{**fields, "there": tuple(fields["there"])})
