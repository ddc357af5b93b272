# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Mode}: what may be assumed of the connection whose peer is watched.
"""

from __future__ import annotations


class Mode:
    """
    What may be assumed of a watched connection.  Each mode includes those before it.

    The modes are plain numbers, because an C{IntEnum} makes the import slower.
    """

    OFF = 0
    """Nothing is watched: not yet, or no longer."""

    OBSERVED = 1
    """Nothing may be assumed; there may even be no connection that tells of its bytes."""

    DIRECT = 2
    """
    The transport is the connection itself, and silence is watched.  Bytes in the kernel's send
    queue alone are then no matter: an unacknowledged ping is what is being timed.
    """

    STEADY = 3
    """Nothing but heartbeats goes on."""

    BATCHABLE = 4
    """The link is most likely one of many: a port accepted it, or it has a phase among many."""
