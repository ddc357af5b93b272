# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{DeadlineStore}: where deadlines outlive the process.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Protocol

from twisted.internet.defer import Deferred

if TYPE_CHECKING:
    from ..core.checkins import SavedDeadline


class DeadlineStore(Protocol):
    """
    What a server of check-ins needs of a store.  The presence stores of this package have both
    methods.
    """

    def loadDeadlines(self, source: str) -> Deferred[Sequence[SavedDeadline]]:
        """
        Return what was saved last of each name of a server.

        @param source: the server's name.
        """

    def saveDeadlines(
        self, source: str, saved: Sequence[SavedDeadline], forgotten: Collection[str]
    ) -> Deferred[None]:
        """
        Replace what is known of these names of a server, and forget others.

        @param source: the server's name.
        @param forgotten: the names of the others.
        """
