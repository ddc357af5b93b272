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
    What a server of check-ins needs of a store.
    """

    def loadDeadlines(self) -> Deferred[Sequence[SavedDeadline]]:
        """
        Return what was saved last of each name.
        """

    def saveDeadlines(
        self, saved: Sequence[SavedDeadline], forgotten: Collection[str]
    ) -> Deferred[None]:
        """
        Replace what is known of these names, and forget others.

        @param forgotten: their names.
        """
