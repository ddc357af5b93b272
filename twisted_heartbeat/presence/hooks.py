# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{PresenceHooks}: what the application is told of its peers' presence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..core.presence import Change, Gap, PeerPresence


class PresenceHooks:
    """
    A subscriber of a L{PresenceTable<twisted_heartbeat.presence.table.PresenceTable>}.  Subclass it
    and override the methods that you need.

    A method may return a plain value, a Deferred or a coroutine.  It is called for one change at a
    time, in the order of their numbers.  If it fails, or takes longer than
    L{PresenceLimits.hookTimeout<twisted_heartbeat.core.presence.PresenceLimits>}, that is logged,
    and it is called again with the same change, after a delay that grows.  So a change is told at
    least once; its number tells repetitions.
    """

    def changed(self, change: Change) -> object:
        """
        The state of a peer has changed.
        """

    def missed(self, gap: Gap, peers: Sequence[PeerPresence]) -> object:
        """
        Changes were missed that are not kept any more.

        @param gap: the numbers of the changes that will not be told.
        @param peers: all peers as they are now, after the last change of the gap.
        """


SubscribedHooks = PresenceHooks | Sequence[PresenceHooks]
"""What the table's setting C{hooks} takes: one object, or a list or tuple of several."""
