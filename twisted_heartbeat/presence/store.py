# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{PresenceStore}: the contract of a store, and the errors that a store may raise.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from twisted.internet.defer import Deferred

from ..core.presence import Change, Gap, PeerRecord, StoredPresence


class StoreError(Exception):
    """
    A store cannot be used, and only a person can mend that: it is no store, a newer version has
    written it, it is damaged, or another watcher has taken it over.
    """


class PresenceStore(Protocol):
    """
    Where the table keeps its changes, the records of its peers, the reserved numbers and the
    cursors of named subscribers.

    All methods return Deferreds.  A Deferred that fires with a result says that the work is done
    and survives a crash.  The table calls L{load} first and waits for it, and has at most one call
    of L{append} under way.  A failure with L{StoreError} is final; after any other the table tries
    again, so that C{append} may get the same changes twice.
    """

    def load(self) -> Deferred[StoredPresence]:
        """
        Open the store, and return what it holds.
        """

    def reserve(self, count: int) -> Deferred[int]:
        """
        Reserve numbers, so that no later call returns them again, also after a crash.

        @return: fires with the first of C{count} numbers, all above those reserved before.
        """

    def append(
        self,
        changes: Sequence[Change | Gap],
        peers: Collection[PeerRecord] = (),
        forgotten: Collection[str] = (),
    ) -> Deferred[None]:
        """
        Keep all of this, or nothing.

        @param changes: in the order of their numbers.  A gap stands for changes that are lost,
            because the store has failed for too long.
        @param peers: replace the records of these peers.
        @param forgotten: the names of peers whose records are deleted.
        """

    def changes(self, since: int, limit: int) -> Deferred[list[Change | Gap]]:
        """
        Return the changes with a number above C{since} in order, at most C{limit}.  If some of them
        are not kept any more, a L{Gap} comes first.
        """

    def history(self, name: str, limit: int) -> Deferred[list[Change | Gap]]:
        """
        Return the last changes of one peer, at most C{limit}, in order, with the gaps between them.
        """

    def cursor(self, name: str) -> Deferred[int | None]:
        """
        Return the number of the last change that a subscriber was told; L{None} if it is not known.
        """

    def setCursor(self, name: str, number: int) -> Deferred[None]:
        """
        Keep the number of the last change that a subscriber was told.
        """

    def close(self) -> Deferred[None]:
        """
        Close the store.  It may be opened again with L{load}.
        """
