# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{NamedSubscribers}: the subscribers whose cursors are kept in the store.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from functools import partial
from typing import Any

from ..core.validation import isCount, require
from .hooks import PresenceHooks
from .store import PresenceStore
from .subscriptions import Subscription, Subscriptions
from .tasks import untilDone
from .writer import StoreWriter


class NamedSubscriber:
    """
    A named subscriber.

    @ivar since: the number of the change after which it begins; L{None} for its stored cursor.
    @ivar of: the subscriptions that tell it, or will as soon as its cursor is read.
    @ivar subscription: the one that tells it; L{None} before.
    """

    def __init__(self, hook: PresenceHooks, since: int | None) -> None:
        self.hook = hook
        self.since = since
        self.of: Subscriptions | None = None
        self.subscription: Subscription | None = None


class NamedSubscribers:
    """
    The named subscribers of a table, whether it runs or not.
    """

    def __init__(self) -> None:
        self._named: dict[str, NamedSubscriber] = {}

    def subscribe(self, name: str, hook: PresenceHooks, since: int | None) -> None:
        """
        Add a subscriber.

        @raise ValueError: if there is one of that name, or C{since} is below 0.
        """
        isFree = bool(name) and name not in self._named
        require(isFree, self, "subscribe(name)", name, "a name that no other subscriber has")
        allowed = since is None or since == 0 or isCount(since)
        require(allowed, self, "subscribe(since)", since, "the number of a change, 0 or None")
        self._named[name] = NamedSubscriber(hook, since)

    def unsubscribe(self, name: str) -> None:
        """
        Remove a subscriber.

        @raise KeyError: if there is none of that name.
        """
        named = self._named.pop(name)
        if named.subscription is not None and named.of is not None:
            named.of.remove(named.subscription)

    def attach(
        self, subscriptions: Subscriptions, store: PresenceStore, writer: StoreWriter
    ) -> Iterator[Coroutine[Any, Any, None]]:
        """
        Return the coroutines that begin to tell the subscribers that are not told yet.
        """
        for name, named in self._named.items():
            if named.of is not subscriptions:
                named.of, named.subscription = subscriptions, None
                yield self._attach(name, named, subscriptions, store, writer)

    async def _attach(
        self,
        name: str,
        named: NamedSubscriber,
        subscriptions: Subscriptions,
        store: PresenceStore,
        writer: StoreWriter,
    ) -> None:
        latest, cursor = subscriptions.backlog.latest, named.since
        if cursor is None:
            read = partial(store.cursor, name)
            cursor = await untilDone(subscriptions.clock, read, f"read the cursor of {name}")
        if self._named.get(name) is not named:
            return
        named.since = None
        named.subscription = subscriptions.add(
            named.hook, name, latest if cursor is None else cursor
        )
        writer.setCursor(name, named.subscription.cursor)
