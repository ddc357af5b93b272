# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Subscribers}: the subscribers of a table, whether it runs or not.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Iterator
from functools import partial
from typing import Any

from ..core.validation import isCount, require
from .hooks import PresenceHooks
from .store import PresenceStore
from .storeretries import untilDone
from .subscriptions import Subscription, Subscriptions
from .writer import StoreWriter


class Subscriber:
    """
    A subscriber.

    @ivar name: names its cursor in the store; L{None} if the cursor is not stored.
    @ivar since: the number of the change after which it begins; L{None} for its stored cursor.
    @ivar of: the subscriptions that tell it, or will as soon as its cursor is read.
    @ivar subscription: the one that tells it; L{None} before.
    """

    def __init__(
        self, hook: PresenceHooks, name: str | None = None, since: int | None = None
    ) -> None:
        self.hook = hook
        self.name = name
        self.since = since
        self.of: Subscriptions | None = None
        self.subscription: Subscription | None = None


class Subscribers:
    """
    The subscribers of a table, with and without names.
    """

    def __init__(self, hooks: Iterable[PresenceHooks]) -> None:
        """
        @param hooks: those without a name.
        """
        self._all = [Subscriber(hook) for hook in hooks]

    def add(self, hook: PresenceHooks) -> None:
        """
        Add a subscriber without a name.
        """
        self._all.append(Subscriber(hook))

    def remove(self, hook: PresenceHooks) -> None:
        """
        Remove a subscriber without a name.  One that was added twice goes once.

        @raise ValueError: if there is none.
        """
        for each in self._all:
            if each.name is None and each.hook is hook:
                self._remove(each)
                return
        raise ValueError(f"{hook!r} is no subscriber")

    def subscribe(self, name: str, hook: PresenceHooks, since: int | None) -> None:
        """
        Add a subscriber with a name.

        @raise ValueError: if there is one of that name, or C{since} is below 0.
        """
        isFree = bool(name) and self._named(name) is None
        require(isFree, self, "subscribe(name)", name, "a name that no other subscriber has")
        allowed = since is None or since == 0 or isCount(since)
        require(allowed, self, "subscribe(since)", since, "the number of a change, 0 or None")
        self._all.append(Subscriber(hook, name, since))

    def unsubscribe(self, name: str) -> None:
        """
        Remove a subscriber with a name.

        @raise KeyError: if there is none of that name.
        """
        named = self._named(name)
        if named is None:
            raise KeyError(name)
        self._remove(named)

    def _named(self, name: str) -> Subscriber | None:
        return next((each for each in self._all if each.name == name), None)

    def _remove(self, subscriber: Subscriber) -> None:
        self._all.remove(subscriber)
        if subscriber.subscription is not None and subscriber.of is not None:
            subscriber.of.remove(subscriber.subscription)

    def attach(
        self, subscriptions: Subscriptions, store: PresenceStore, writer: StoreWriter
    ) -> Iterator[Coroutine[Any, Any, None]]:
        """
        Begin to tell the subscribers that are not told yet.

        @return: what reads their cursors, where they are stored.
        """
        for each in self._all:
            if each.of is subscriptions:
                continue
            each.of, each.subscription = subscriptions, None
            if each.name is None:
                each.subscription = subscriptions.add(each.hook, None, subscriptions.backlog.latest)
            else:
                yield self._attach(each, each.name, subscriptions, store, writer)

    async def _attach(
        self,
        named: Subscriber,
        name: str,
        subscriptions: Subscriptions,
        store: PresenceStore,
        writer: StoreWriter,
    ) -> None:
        latest, cursor = subscriptions.backlog.latest, named.since
        if cursor is None:
            read = partial(store.cursor, name)
            cursor = await untilDone(subscriptions.clock, read, f"read the cursor of {name}")
        if named not in self._all:
            return
        named.since = None
        named.subscription = subscriptions.add(
            named.hook, name, latest if cursor is None else cursor
        )
        writer.setCursor(name, named.subscription.cursor)
