# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{ChangeReader}: reads changes from the store, and those that are not stored yet from memory.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError

from ..core.presence import Change, Gap, numberOf
from ..logs import SafeLogger
from .backlog import Backlog
from .store import PresenceStore
from .writer import StoreWriter

_log = SafeLogger()


class ChangeReader:
    """
    Reads the changes of a table, in the order of their numbers.

    While the store cannot be read, the backlog is what there is, after a L{Gap}.
    """

    def __init__(self, store: PresenceStore, writer: StoreWriter, backlog: Backlog) -> None:
        self._store = store
        self._writer = writer
        self._backlog = backlog

    async def changes(self, since: int, limit: int) -> list[Change | Gap]:
        """
        Return the changes above a number, at most C{limit}.
        """
        # Those that are stored meanwhile are in both lists.
        waiting = list(self._writer.waiting)
        try:
            found = list(await self._store.changes(since, limit))
        except (CancelledError, GeneratorExit):
            raise
        except BaseException as error:
            found = [*self._gapAfter(since, error), *self._backlog.after(since, limit)]
            return found[:limit]
        last = numberOf(found[-1]) if found else since
        return [*found, *(change for change in waiting if numberOf(change) > last)][:limit]

    async def history(self, name: str, limit: int) -> list[Change | Gap]:
        """
        Return the last changes of one peer, at most C{limit}.
        """
        waiting: list[Change | Gap] = list(self._writer.waiting)
        try:
            found = list(await self._store.history(name, limit))
        except (CancelledError, GeneratorExit):
            raise
        except BaseException as error:
            found = self._gapAfter(0, error)
            waiting = [*self._backlog.after(0)]
        last = numberOf(found[-1]) if found else 0
        found += [
            change
            for change in waiting
            if numberOf(change) > last and (isinstance(change, Gap) or change.name == name)
        ]
        return found[-limit:]

    def _gapAfter(self, since: int, error: BaseException) -> list[Change | Gap]:
        _log.warn("The presence store could not be read: {error}", error=error)
        base = self._backlog.base
        return [Gap(since + 1, base)] if since < base else []
