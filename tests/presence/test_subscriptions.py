# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Subscribers of a presence table: each change at least once, in order, and nobody holds up another
(promise 24).
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from twisted_heartbeat import (
    Gap,
    MemoryStore,
    PeerClosed,
    PeerState,
    PresenceHooks,
    PresenceLimits,
    PresenceTable,
)

from ..support.presence import FailingStore, FakeWatched, Subscriber, Watcher


class Trouble(Exception):
    """
    What a subscriber raises.
    """


@pytest.fixture
def watcher() -> Watcher:
    """
    A running table.
    """
    return Watcher()


def flap(watcher: Watcher, times: int = 1, name: str = "a") -> None:
    """
    A peer comes and goes, which makes two changes each time.
    """
    for _ in range(times):
        link = FakeWatched(name)
        watcher.table.connected(link)
        watcher.table.disconnected(link, PeerClosed())  # type: ignore[arg-type]


def raising(times: int) -> Any:
    """
    What a subscriber does that fails so many times, and then works.
    """
    left = [times]

    def then(change: object) -> None:
        if left[0]:
            left[0] -= 1
            raise Trouble

    return then


def test_toldInALaterTurn(watcher: Watcher) -> None:
    """
    A subscriber is never called from inside of what happens to a link.
    """
    flap(watcher)
    assert watcher.hooks.told == []
    watcher.advance()
    assert watcher.hooks.numbers == [1, 2]


def test_severalHooks() -> None:
    """
    C{hooks=} takes several subscribers, and each is told all.
    """
    hooks = [Subscriber(), Subscriber()]
    clock = Clock()
    table = PresenceTable(hooks=hooks, clock=clock)
    table.startService()
    table.connected(FakeWatched("a"))
    clock.advance(1)
    assert [each.numbers for each in hooks] == [[1], [1]]


def test_failingSubscriberIsToldAgain(watcher: Watcher, loggedErrors: Any) -> None:
    """
    A subscriber that raises is told the same change again, after a delay that doubles, and the next
    one only then.
    """
    watcher.hooks.then = raising(3)
    flap(watcher)
    watcher.advance()
    assert watcher.hooks.numbers == [1]
    for delay in (1, 2, 4):
        watcher.advance(delay - 0.1)
        told = len(watcher.hooks.told)
        watcher.advance(0.1)
        assert len(watcher.hooks.told) > told
    assert watcher.hooks.numbers == [1, 1, 1, 1, 2]
    assert len(loggedErrors.flush(Trouble)) == 3


def test_delayOfFailuresIsBounded(watcher: Watcher, loggedErrors: Any) -> None:
    """
    A subscriber that always fails is tried once a minute in the end, and nothing is lost.
    """
    watcher.hooks.then = raising(20)
    flap(watcher)
    for _ in range(25):
        watcher.advance(60)
    assert watcher.hooks.numbers == [1] * 21 + [2]
    assert len(loggedErrors.flush(Trouble)) == 20


@pytest.mark.parametrize("error", [Trouble, SystemExit, KeyboardInterrupt])
def test_failingSubscriberHoldsUpNobody(
    watcher: Watcher, loggedErrors: Any, error: type[BaseException]
) -> None:
    """
    Whatever a subscriber raises, all others are told at once.
    """

    class Failing(PresenceHooks):
        def changed(self, change: object) -> None:
            raise error

    watcher.table.subscribe("failing", Failing())
    flap(watcher, 3)
    watcher.advance()
    assert watcher.hooks.numbers == [1, 2, 3, 4, 5, 6]
    assert len(loggedErrors.flush(error)) == 1


def test_slowSubscriberIsToldOneAtATime(watcher: Watcher) -> None:
    """
    A subscriber that returns a Deferred is told the next change when that has fired; others do not
    wait for it.
    """
    slow, answers = Subscriber(), []

    def then(change: object) -> Deferred[None]:
        answers.append(Deferred())
        return answers[-1]

    slow.then = then
    watcher.table.subscribe("slow", slow)
    flap(watcher)
    watcher.advance()
    assert (slow.numbers, watcher.hooks.numbers) == ([1], [1, 2])
    answers[0].callback(None)
    watcher.advance()
    assert slow.numbers == [1, 2]
    answers[1].callback(None)


def test_coroutineSubscriber(watcher: Watcher) -> None:
    """
    A method of a subscriber may be an C{async def}.
    """
    told = []

    class Async(PresenceHooks):
        async def changed(self, change: Any) -> None:
            await succeed(None)
            told.append(change.number)

    watcher.table.subscribe("async", Async())
    flap(watcher, 2)
    watcher.advance()
    assert told == [1, 2, 3, 4]


def test_hungSubscriberIsToldAgain(loggedErrors: Any) -> None:
    """
    A subscriber that does not finish in time is cancelled, logged, and told again.
    """
    watcher = Watcher(limits=PresenceLimits(hookTimeout=5.0))
    cancelled = []

    def hang(change: object) -> Any:
        if len(watcher.hooks.told) > 1:
            return None
        return Deferred(cancelled.append)

    watcher.hooks.then = hang
    flap(watcher)
    watcher.advance()
    watcher.advance(4.9)
    assert (cancelled, watcher.hooks.numbers) == ([], [1])
    watcher.advance(0.2)
    assert len(cancelled) == 1
    watcher.advance(1)
    assert watcher.hooks.numbers == [1, 1, 2]
    assert len(loggedErrors.flush(TimeoutError)) == 1


def test_lateAnswerCountsOnce(loggedErrors: Any) -> None:
    """
    An answer that comes after the time is over changes nothing.
    """
    watcher = Watcher(limits=PresenceLimits(hookTimeout=5.0))
    late: Deferred[None] = Deferred()
    watcher.hooks.then = lambda change: late if len(watcher.hooks.told) == 1 else None
    flap(watcher)
    watcher.advance()
    watcher.advance(5)
    late.callback(None)
    watcher.advance(10)
    assert watcher.hooks.numbers == [1, 1, 2]
    assert len(loggedErrors.flush(TimeoutError)) == 1


def test_manyChangesInManyTurns(watcher: Watcher) -> None:
    """
    A thousand changes at once are not told in one turn of the reactor.
    """
    first: list[int] = []
    flap(watcher, 1000)
    later = watcher.clock.callLater
    later(0, lambda: later(0, lambda: first.append(len(watcher.hooks.told))))
    watcher.advance()
    assert 0 < first[0] < 1000
    assert watcher.hooks.numbers == list(range(1, 2001))


# Named subscribers.


def test_namedSubscriberGoesOn(watcher: Watcher) -> None:
    """
    A named subscriber that leaves, and comes back, is told what it has missed, once and in order.
    """
    first, second = Subscriber(), Subscriber()
    watcher.table.subscribe("mail", first)
    flap(watcher, 2)
    watcher.advance(2)
    watcher.table.unsubscribe("mail")
    flap(watcher, 2)
    watcher.advance(2)
    watcher.table.subscribe("mail", second)
    flap(watcher)
    watcher.advance()
    assert (first.numbers, second.numbers) == ([1, 2, 3, 4], [5, 6, 7, 8, 9, 10])


def test_namedSubscriberGoesOnAfterRestart(watcher: Watcher) -> None:
    """
    After a clean restart a named subscriber goes on where it was, and hears nothing twice.
    """
    mail = Subscriber()
    watcher.table.subscribe("mail", mail)
    flap(watcher, 2)
    watcher.advance()
    later = watcher.restart()
    flap(later)
    later.advance()
    later.table.subscribe("mail", mail)
    later.advance()
    assert mail.numbers == [1, 2, 3, 4, 1_000_001, 1_000_002]


def test_changesTheSubscriberDidNotHear(watcher: Watcher, loggedErrors: Any) -> None:
    """
    Changes that a named subscriber had not finished with when the service stopped are told after
    the restart, from the store.
    """
    mail = Subscriber()
    mail.then = raising(100)
    watcher.table.subscribe("mail", mail)
    flap(watcher, 600)
    watcher.advance()
    later = watcher.restart()
    again = Subscriber()
    later.table.subscribe("mail", again)
    later.advance()
    assert again.numbers == list(range(1, 1201))
    assert len(loggedErrors.flush(Trouble)) == 1


def test_subscribeSince(watcher: Watcher) -> None:
    """
    C{since} is where a subscriber begins, whatever its cursor says; without either it begins now.
    """
    flap(watcher, 2)
    watcher.advance()
    everything, some, none = Subscriber(), Subscriber(), Subscriber()
    watcher.table.subscribe("everything", everything, since=0)
    watcher.table.subscribe("some", some, since=3)
    watcher.table.subscribe("none", none)
    flap(watcher)
    watcher.advance()
    assert everything.numbers == [1, 2, 3, 4, 5, 6]
    assert (some.numbers, none.numbers) == ([4, 5, 6], [5, 6])
    watcher.advance(2)
    watcher.table.unsubscribe("everything")
    watcher.table.subscribe("everything", everything, since=4)
    watcher.advance()
    assert everything.numbers == [1, 2, 3, 4, 5, 6, 5, 6]


def test_subscribeBeforeTheStart() -> None:
    """
    A subscriber may come before the table runs, and is then told all from the start on.
    """
    watcher = Watcher(start=False)
    mail = Subscriber()
    watcher.table.subscribe("mail", mail)
    watcher.table.connected(FakeWatched("a"))
    watcher.start()
    watcher.advance()
    assert mail.numbers == [1]


def test_oneSubscriberOfAName(watcher: Watcher) -> None:
    """
    Two subscribers cannot have one cursor, and one that is not there cannot leave.
    """
    watcher.table.subscribe("mail", Subscriber())
    with pytest.raises(ValueError, match="'mail': it must be a name that no other subscriber has"):
        watcher.table.subscribe("mail", Subscriber())
    watcher.table.unsubscribe("mail")
    with pytest.raises(KeyError):
        watcher.table.unsubscribe("mail")


def test_leavingWhileBeingTold(watcher: Watcher) -> None:
    """
    A subscriber may leave from inside of its own method, and hears nothing more.
    """
    mail = Subscriber()
    mail.then = lambda change: watcher.table.unsubscribe("mail")
    watcher.table.subscribe("mail", mail)
    flap(watcher, 2)
    watcher.advance()
    assert mail.numbers == [1]
    watcher.stop()


def test_leavingWhileWaiting(watcher: Watcher) -> None:
    """
    The unfinished Deferred of a subscriber that leaves is cancelled, and nothing is left behind.
    """
    cancelled: list[Any] = []
    mail = Subscriber()
    mail.then = lambda change: Deferred(cancelled.append)
    watcher.table.subscribe("mail", mail)
    flap(watcher)
    watcher.advance()
    watcher.table.unsubscribe("mail")
    assert len(cancelled) == 1
    watcher.stop()


def test_stoppingFromInside(watcher: Watcher) -> None:
    """
    A subscriber may stop the service.
    """
    stopped: list[Any] = []
    watcher.hooks.then = lambda change: stopped.append(watcher.table.stopService())
    flap(watcher, 2)
    watcher.advance(1)
    assert watcher.hooks.numbers == [1]
    assert stopped[0].called and watcher.clock.getDelayedCalls() == []


def test_leavingWhileTheCursorIsRead() -> None:
    """
    A subscriber that leaves while its cursor is still being read is told nothing.
    """
    store = FailingStore()
    watcher = Watcher(store)
    store.hold.add("cursor")
    left, stays = Subscriber(), Subscriber()
    watcher.table.subscribe("mail", left)
    watcher.table.unsubscribe("mail")
    watcher.table.subscribe("mail", stays)
    flap(watcher)
    watcher.advance()
    store.release()
    watcher.advance()
    assert (left.numbers, stays.numbers) == ([], [1, 2])


# Gaps.


def test_gapAndPresentTable() -> None:
    """
    A subscriber that comes back after more changes than are kept is told so, with all peers as they
    are now, and goes on with the next change.
    """
    watcher = Watcher(MemoryStore(keep=10), limits=PresenceLimits(backlog=10))
    mail = Subscriber()
    flap(watcher, 20)
    link = FakeWatched("b")
    watcher.table.connected(link)
    watcher.advance(1)
    watcher.table.subscribe("mail", mail, since=5)
    watcher.advance()
    [(gap, peers)] = mail.gaps
    assert gap == Gap(6, 41) and mail.told == []
    assert {peer.name: peer.state for peer in peers} == {
        "tcp/a": PeerState.DOWN,
        "tcp/b": PeerState.UP,
    }
    watcher.table.disconnected(link, PeerClosed())
    watcher.advance()
    assert mail.numbers == [42]


def test_slowSubscriberPassesTheBacklog() -> None:
    """
    A subscriber that is further behind than the memory reaches reads on from the store.
    """
    watcher = Watcher(limits=PresenceLimits(backlog=10))
    slow = Subscriber()
    first: Deferred[None] = Deferred()
    slow.then = lambda change: first if slow.numbers == [1] else None
    watcher.table.subscribe("slow", slow)
    for _ in range(200):
        flap(watcher, 4)
        watcher.advance(0.06)
    assert slow.numbers == [1]
    first.callback(None)
    watcher.advance()
    assert slow.numbers == list(range(1, 1601)) and slow.gaps == []


def test_failingGapIsToldAgain(loggedErrors: Any) -> None:
    """
    A gap is told again as a change is, up to the last change by then.
    """
    watcher = Watcher(MemoryStore(keep=10), limits=PresenceLimits(backlog=10))
    flap(watcher, 20)
    watcher.advance(1)
    mail = Subscriber()
    mail.then = raising(1)
    watcher.table.subscribe("mail", mail, since=0)
    watcher.advance()
    flap(watcher)
    watcher.advance(1)
    assert [gap for gap, _ in mail.gaps] == [Gap(1, 40), Gap(1, 42)]
    flap(watcher)
    watcher.advance()
    assert mail.numbers == [43, 44]
    assert len(loggedErrors.flush(Trouble)) == 1


def test_unreadableStoreDoesNotHoldUpNews(loggedErrors: Any, events: list[Any]) -> None:
    """
    A subscriber that would have to read on from a store that fails is told the present instead.
    """
    store = FailingStore()
    watcher = Watcher(store, limits=PresenceLimits(backlog=10))
    flap(watcher, 20)
    watcher.advance(1)
    store.error = Trouble("no disk")
    mail = Subscriber()
    watcher.table.subscribe("mail", mail, since=0)
    watcher.advance()
    assert [gap for gap, _ in mail.gaps] == [Gap(1, 40)]
    flap(watcher)
    watcher.advance()
    assert mail.numbers == [41, 42]
    store.error = None
    watcher.advance(60)


def test_cursorIsReadWhenTheStoreWorks(events: list[Any]) -> None:
    """
    While a subscriber's cursor cannot be read, that is tried again; then it is told all that
    followed.
    """
    store = FailingStore()
    watcher = Watcher(store)
    mail = Subscriber()
    watcher.table.subscribe("mail", mail)
    flap(watcher)
    watcher.advance(2)
    watcher.table.unsubscribe("mail")
    store.error = Trouble("no disk")
    watcher.table.subscribe("mail", mail)
    flap(watcher)
    watcher.advance(5)
    assert mail.numbers == [1, 2]
    store.error = None
    for _ in range(4):
        watcher.advance(30)
    assert mail.numbers == [1, 2, 3, 4]
