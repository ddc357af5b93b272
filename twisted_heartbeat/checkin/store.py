# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{DeadlineStore}: where deadlines outlive the process.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from twisted.internet.defer import Deferred


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedDeadline:
    """
    What is kept of one name.  Times are wall time, in seconds since 1970.

    @ivar period: what it was created with.
    @ivar grace: the same.
    @ivar deadline: when its verdict was due; in the past after a verdict.
    @ivar savedAt: when this was written.
    @ivar created: whether a check-in has created the name.
    """

    name: str
    period: float
    grace: float
    deadline: float
    savedAt: float
    created: bool


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
