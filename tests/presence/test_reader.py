# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Reads from a store that does not answer.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError

from twisted_heartbeat import Gap, PresenceLimits

from ..support.presence import FailingStore, Subscriber, Watcher
from .test_store_trouble import saidOf
from .test_subscriptions import flap


@pytest.fixture
def watcher() -> Watcher:
    """
    A running table whose store has four changes of an earlier run, and does not answer.
    """
    store = FailingStore()
    first = Watcher(store)
    flap(first, 2)
    later = first.restart(limits=PresenceLimits(hookTimeout=5.0))
    later.advance()
    store.hold |= {"changes", "history"}
    return later


def test_subscriberOfAHungStoreIsToldOfTheGap(watcher: Watcher, events: list[Any]) -> None:
    """
    A subscriber that is behind waits for the store for so long, and is told of the gap then, even
    if nothing changes.
    """
    mail = Subscriber()
    watcher.table.subscribe("mail", mail, since=0)
    watcher.advance(4.9)
    assert mail.gaps == []
    watcher.advance(0.2)
    assert [gap for gap, _ in mail.gaps] == [Gap(1, 4)]
    assert len(saidOf(events, "could not be read")) == 1


def test_cancelledReadIsNoFailure(watcher: Watcher, events: list[Any]) -> None:
    """
    A reader that goes away, a subscriber that leaves, and a stop of the service end their reads,
    and the log does not take that for a failure of the store.
    """
    failures: list[Any] = []
    for reading in (watcher.table.changes(0), watcher.table.history("tcp/a")):
        reading.addErrback(failures.append)
        reading.cancel()
    assert [failure.type for failure in failures] == [CancelledError, CancelledError]
    for name in ("mail", "pager"):
        watcher.table.subscribe(name, Subscriber(), since=0)
    watcher.advance()
    watcher.table.unsubscribe("mail")
    watcher.stop()
    assert saidOf(events, "could not be read") == []
