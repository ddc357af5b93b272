# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{ChangeReader}: reads changes from the store, and those that are not stored yet from memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from twisted.internet.defer import CancelledError, Deferred

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
        found = await self._read(partial(self._store.changes, since, limit), since)
        return found[:limit]

    async def history(self, name: str, limit: int) -> list[Change | Gap]:
        """
        Return the last changes of one peer, at most C{limit}.
        """
        found = await self._read(partial(self._store.history, name, limit), 0)
        return [each for each in found if isinstance(each, Gap) or each.name == name][-limit:]

    async def _read(
        self, read: Callable[[], Deferred[list[Change | Gap]]], since: int
    ) -> list[Change | Gap]:
        """
        Return what the store has, and what is not stored yet.
        """
        # Those that are stored meanwhile are in both lists.
        waiting: Sequence[Change | Gap] = list(self._writer.waiting)
        try:
            found = list(await read())
        except (CancelledError, GeneratorExit):
            raise
        except BaseException as error:
            _log.warn("The presence store could not be read: {error}", error=error)
            base = self._backlog.base
            found = [Gap(since + 1, base)] if since < base else []
            waiting = self._backlog.after(since)
        last = numberOf(found[-1]) if found else since
        return [*found, *(each for each in waiting if numberOf(each) > last)]
