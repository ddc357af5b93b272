# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The presence table: which state each peer has, and which changes follow (promise 23).
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.application.service import IService, MultiService, Service
from twisted.internet.address import UNIXAddress
from twisted.internet.task import Clock

from twisted_heartbeat import (
    Change,
    ClosedHere,
    Gap,
    MemoryStore,
    PeerClosed,
    PeerReset,
    PeerSilent,
    PeerState,
    PresenceHooks,
    PresenceLimits,
    PresenceTable,
)
from twisted_heartbeat.core.presence import PeerRecord

from ..support.presence import FailingStore, FakeWatched, Subscriber, Watcher

UP, SUSPECT, DOWN, UNKNOWN = PeerState.UP, PeerState.SUSPECT, PeerState.DOWN, PeerState.UNKNOWN


@pytest.fixture
def watcher() -> Watcher:
    """
    A running table.
    """
    return Watcher()


def resultOf(deferred: Any) -> Any:
    """
    The result of a Deferred that has fired.
    """
    results: list[Any] = []
    deferred.addCallback(results.append)
    [result] = results
    return result


# One peer.


def test_peerComesAndGoes(watcher: Watcher) -> None:
    """
    A peer is up, suspect, up again and down, each with a change that says so and by what it was
    heard.
    """
    link = FakeWatched("pump-3", source="sensors", generation=7)
    watcher.table.connected(link)
    watcher.advance(5)
    watcher.table.suspected(link)
    watcher.advance(1)
    watcher.table.recovered(link)
    watcher.advance(4)
    watcher.table.disconnected(link, PeerSilent("no answer"))
    watcher.advance()
    assert watcher.hooks.states == [UP, SUSPECT, UP, DOWN]
    assert watcher.hooks.told[-1] == Change(
        number=4,
        at=1_000_010.0,
        name="tcp/pump-3",
        state=DOWN,
        previous=UP,
        carrier="tcp",
        source="sensors",
        generation=7,
        address="192.0.2.1:7007",
        cause="PeerSilent",
        reason="no answer",
        bound=10.0,
    )
    assert watcher.table.latest == 4


def test_peerShowsWhatIsKnown(watcher: Watcher) -> None:
    """
    A peer's entry has all that the table knows, and reads silence and round-trip time from the
    watched object at that moment.
    """
    link = FakeWatched("pump-3", bound=8.0)
    watcher.table.connected(link)
    watcher.advance(3)
    link.silence, link.rtt = 1.5, 0.02
    peer = watcher.table.peers["tcp/pump-3"]
    assert (peer.name, peer.state, peer.since) == ("tcp/pump-3", UP, 1_000_000.0)
    assert (peer.carriers, peer.bound, peer.rtt) == (("tcp",), 8.0, 0.02)
    assert (peer.lastHeard, peer.losses, peer.falls) == (1_000_001.5, None, 0)
    link.silence = 8.0
    watcher.table.disconnected(link, PeerSilent("no answer"))
    watcher.advance(100)
    gone = watcher.table.peers["tcp/pump-3"]
    assert (gone.state, gone.since, gone.lastHeard) == (DOWN, 1_000_003.0, 999_995.0)
    assert (gone.cause, gone.reason, gone.falls) == ("PeerSilent", "no answer", 1)
    assert (gone.carriers, gone.bound, gone.rtt) == (("tcp",), 8.0, None)
    assert dict(watcher.table.peers) == {"tcp/pump-3": gone}
    assert watcher.table.peer("pump-3") is None


def test_lossesAreRead(watcher: Watcher) -> None:
    """
    The losses of those carriers that count them are summed.
    """
    first, second = (FakeWatched("a", carrier="udp", isAuthenticated=True) for _ in range(2))
    first.lost, second.lost = 3, 4  # type: ignore[attr-defined]
    for each in (first, second, FakeWatched("a", isAuthenticated=True)):
        watcher.table.connected(each)
    assert watcher.table.peers["a"].losses == 7
    assert watcher.table.peers["a"].carriers == ("tcp", "udp")


def test_fallsAreCountedForAWhile() -> None:
    """
    A peer shows how often it went down lately, and not how often it ever did.
    """
    watcher = Watcher(limits=PresenceLimits(lately=60.0))
    for _ in range(3):
        link = FakeWatched("a")
        watcher.table.connected(link)
        watcher.table.disconnected(link, PeerReset())
        watcher.advance(25)
    assert watcher.table.peers["tcp/a"].falls == 2
    watcher.advance(60)
    assert watcher.table.peers["tcp/a"].falls == 0


# Old and new, and several carriers.


def test_oldEndDoesNotOverrideNewBeginning(watcher: Watcher) -> None:
    """
    The end of an old link, which comes after the new link's beginning, changes nothing.
    """
    old, new = FakeWatched("a"), FakeWatched("a")
    watcher.table.connected(old)
    watcher.table.connected(new)
    watcher.table.suspected(old)
    watcher.table.disconnected(old, PeerSilent())
    watcher.advance()
    assert watcher.hooks.states == [UP]
    assert watcher.stateOf("tcp/a") is UP
    watcher.table.disconnected(new, PeerSilent())
    assert watcher.stateOf("tcp/a") is DOWN


def test_generationsOfTwoSourcesAreNotCompared(watcher: Watcher) -> None:
    """
    Two sources may use the same name and the same generations.
    """
    one, other = (FakeWatched("a", source="", generation=1) for _ in range(2))
    watcher.table.connected(one)
    watcher.table.connected(other)
    watcher.table.disconnected(one, PeerClosed())
    assert watcher.stateOf("tcp/a") is UP
    watcher.table.disconnected(other, PeerClosed())
    assert watcher.stateOf("tcp/a") is DOWN


def test_bestWitnessDecides(watcher: Watcher) -> None:
    """
    A peer that two carriers hear is up while either is, suspect if the best is, and a change says
    which carrier it is about.
    """
    tcp = FakeWatched("a", isAuthenticated=True, bound=8.0)
    udp = FakeWatched("a", carrier="udp", isAuthenticated=True, bound=30.0)
    watcher.table.connected(tcp)
    watcher.table.connected(udp)
    assert watcher.table.peers["a"].bound == 30.0
    watcher.table.suspected(tcp)
    assert watcher.stateOf("a") is UP
    watcher.table.suspected(udp)
    assert watcher.stateOf("a") is SUSPECT
    watcher.table.recovered(tcp)
    watcher.table.disconnected(tcp, PeerReset())
    watcher.table.disconnected(udp, PeerSilent())
    watcher.advance()
    assert [(change.state, change.carrier) for change in watcher.hooks.told] == [
        (UP, "tcp"),
        (SUSPECT, "udp"),
        (UP, "tcp"),
        (SUSPECT, "tcp"),
        (DOWN, "udp"),
    ]
    assert watcher.hooks.told[3].cause == "PeerReset"


def test_strangersAreNoPeers(watcher: Watcher) -> None:
    """
    A link that ends without having been connected, or is refused, is none of the table's.
    """
    link = FakeWatched("a")
    for tell in (watcher.table.disconnected, watcher.table.refused):
        tell(link, ClosedHere())  # type: ignore[arg-type]
    watcher.table.suspected(link)
    watcher.table.recovered(link)
    watcher.advance()
    assert len(watcher.table.peers) == 0 and watcher.hooks.told == []


def test_connectedTwice(watcher: Watcher) -> None:
    """
    An object that is announced again is one witness, also under another name.
    """
    peer = FakeWatched("a", carrier="udp")
    watcher.table.connected(peer)
    watcher.table.suspected(peer)
    watcher.table.connected(peer)
    assert watcher.stateOf("udp/a") is UP
    peer.name = "b"
    watcher.table.connected(peer)
    assert (watcher.stateOf("udp/a"), watcher.stateOf("udp/b")) == (DOWN, UP)
    watcher.table.disconnected(peer, PeerSilent())
    assert watcher.stateOf("udp/b") is DOWN


# Grace.


def test_graceDelaysDown() -> None:
    """
    During the grace time a peer is suspect, which the history shows with the cause; it is down only
    after that, with a change that says so.
    """
    watcher = Watcher(grace=5.0)
    link = FakeWatched("a")
    watcher.table.connected(link)
    watcher.table.disconnected(link, PeerReset("gone"))
    watcher.advance(4.9)
    assert watcher.hooks.states == [UP, SUSPECT]
    assert watcher.hooks.told[1].cause == "PeerReset"
    watcher.advance(0.2)
    assert watcher.hooks.states == [UP, SUSPECT, DOWN]
    down = watcher.hooks.told[2]
    assert (down.cause, down.reason) == ("PeerReset", "gone (5 s ago: the grace time)")
    assert watcher.table.peers["tcp/a"].falls == 1


@pytest.mark.parametrize(("grace", "downAt"), [(8.0, 8.0), (3.0, 3.0), (0.0, 2.0)])
def test_otherGrace(grace: float, downAt: float) -> None:
    """
    Another grace time holds at once, also for a peer whose grace time has begun.
    """
    watcher = Watcher(grace=5.0)
    link = FakeWatched("a")
    watcher.table.connected(link)
    watcher.table.disconnected(link, PeerReset("gone"))
    watcher.advance(2)
    watcher.table.changeSettings(grace=grace, merge=False)
    with pytest.raises(ValueError, match="PresenceTable.grace is -1: it must be a number, 0 or"):
        watcher.table.changeSettings(grace=-1, merge=False)
    watcher.advance(downAt - 2 - 0.1 if downAt > 2 else 0)
    if downAt > 2:
        assert watcher.stateOf("tcp/a") is SUSPECT
    watcher.advance(0.2)
    assert watcher.stateOf("tcp/a") is DOWN
    assert watcher.hooks.told[-1].reason == f"gone ({grace:g} s ago: the grace time)"


def test_returnWithinGraceIsNoFall() -> None:
    """
    A peer that is back within the grace time was never down, and its history shows what happened.
    """
    watcher = Watcher(grace=5.0)
    link, new = FakeWatched("a"), FakeWatched("a")
    watcher.table.connected(link)
    watcher.table.disconnected(link, PeerReset())
    watcher.advance(4)
    watcher.table.connected(new)
    watcher.advance(60)
    history = resultOf(watcher.table.history("tcp/a"))
    assert [change.state for change in history] == [UP, SUSPECT, UP]
    assert watcher.table.peers["tcp/a"].falls == 0


def test_stallIsNoGrace() -> None:
    """
    After a time in which this process could hear nobody, a peer has its grace time again.
    """
    watcher = Watcher(grace=5.0)
    link = FakeWatched("a")
    watcher.table.connected(link)
    watcher.table.disconnected(link, PeerReset())
    watcher.stall(3600)
    watcher.advance(4.9)
    assert watcher.stateOf("tcp/a") is SUSPECT
    watcher.advance(0.2)
    assert watcher.stateOf("tcp/a") is DOWN


def test_stallBeforeADeadline() -> None:
    """
    A stall that ends before a peer's time is over does not use that time up.
    """
    watcher = Watcher(grace=12.0)
    link = FakeWatched("a")
    watcher.table.connected(link)
    watcher.advance(1)
    watcher.table.disconnected(link, PeerReset())
    watcher.advance(1.5)
    watcher.stall(10)
    watcher.advance(9)
    assert watcher.stateOf("tcp/a") is SUSPECT
    watcher.advance(3)
    assert watcher.stateOf("tcp/a") is DOWN


def test_processThatIsAlwaysLate() -> None:
    """
    A process that never runs in time still finds that a peer is down.
    """
    watcher = Watcher(grace=5.0)
    link = FakeWatched("a")
    watcher.table.connected(link)
    watcher.table.disconnected(link, PeerReset())
    for _ in range(20):
        watcher.stall(1.8)
    assert watcher.stateOf("tcp/a") is DOWN


# Names.


def test_namesMergeIfProven(watcher: Watcher) -> None:
    """
    A proven name is one peer over all carriers; a name that is not proven is the carrier's own, and
    does not touch it.
    """
    for link in (
        FakeWatched("a", carrier="tls", isAuthenticated=True),
        FakeWatched("a", carrier="udp", isAuthenticated=True),
        FakeWatched("a", carrier="tcp"),
        FakeWatched("a", carrier="tls"),
    ):
        watcher.table.connected(link)
    assert {name: peer.carriers for name, peer in watcher.table.peers.items()} == {
        "a": ("tls", "udp"),
        "tcp/a": ("tcp",),
        "tls/a": ("tls",),
    }


def test_mergeTakesNamesForProven() -> None:
    """
    With C{merge=True} a name is one peer over all carriers.
    """
    watcher = Watcher(merge=True)
    watcher.table.connected(FakeWatched("a", carrier="tcp"))
    watcher.table.connected(FakeWatched("a", carrier="http"))
    assert list(watcher.table.peers) == ["a"]


LIKE_A_CARRIER = {
    "udp/x": "udp%2Fx",
    "udp%2Fx": "udp%252Fx",
    "udp%252Fx": "udp%25252Fx",
    "site/x": "site/x",
    "udpx": "udpx",
    "x/udp/x": "x/udp/x",
}


@pytest.mark.parametrize(("name", "shown"), LIKE_A_CARRIER.items())
def test_provenNameIsNoName(name: str, shown: str) -> None:
    """
    A proven name that looks like one with a carrier is not taken for that; and no two names become
    one.
    """
    watcher = Watcher()
    watcher.table.connected(FakeWatched(name, isAuthenticated=True))
    assert list(watcher.table.peers) == [shown]
    assert len(set(LIKE_A_CARRIER.values())) == len(LIKE_A_CARRIER)


def test_mergeChangesForLaterLinks(watcher: Watcher) -> None:
    """
    A link keeps the peer that it stands for; one that begins later has the new setting.
    """
    before, after = FakeWatched("a"), FakeWatched("a")
    watcher.table.connected(before)
    watcher.table.changeSettings(grace=0, merge=True)
    watcher.table.connected(after)
    assert set(watcher.table.peers) == {"tcp/a", "a"}
    watcher.table.disconnected(before, PeerSilent())
    assert (watcher.stateOf("tcp/a"), watcher.stateOf("a")) == (DOWN, UP)


def test_unnamedPeerGoesByAddress(watcher: Watcher) -> None:
    """
    A server's peer without a name goes by its address, and is forgotten when it is gone, with a
    change that says both.
    """
    link = FakeWatched(generation=9)
    watcher.table.connected(link)
    assert watcher.table.peers["tcp/192.0.2.1:7009"].isNamed is False
    watcher.table.disconnected(link, PeerClosed())
    watcher.advance(1)
    assert len(watcher.table.peers) == 0
    assert [(c.state, c.isNamed) for c in watcher.hooks.told] == [(UP, False), (DOWN, False)]
    assert watcher.restart().table.peers == {}


def test_unnamedPeersWithoutAddressAreApart(watcher: Watcher) -> None:
    """
    Peers with neither name nor address are told apart.
    """
    links = [FakeWatched(carrier="unix", host=None, source="local") for _ in range(2)]
    links[1].peer = UNIXAddress(b"")
    for link in links:
        watcher.table.connected(link)
    assert list(watcher.table.peers) == ["unix/local#1", "unix/local#2"]


def test_clientsPeerGoesByService(watcher: Watcher) -> None:
    """
    The peer of a client service goes by the service's name, and stays in the table when it is gone.
    """
    link = FakeWatched(source="hub", isServerSide=False)
    watcher.table.connected(link)
    watcher.table.disconnected(link, PeerSilent())
    assert watcher.stateOf("tcp/hub") is DOWN


def test_textThatNoStoreCanKeep(watcher: Watcher) -> None:
    """
    Text that is no valid Unicode, and words that are not printable, are escaped.
    """
    link = FakeWatched("a\udc80")
    watcher.table.connected(link)
    watcher.table.disconnected(link, ValueError("\x1b[2J"))  # type: ignore[arg-type]
    watcher.advance()
    assert [change.name for change in watcher.hooks.told] == ["tcp/a\\udc80"] * 2
    assert watcher.hooks.told[1].reason == "\\x1b[2J"


# Limits, and what is removed.


def test_onlySoManyGonePeersAreKept() -> None:
    """
    Of the peers that are down the first to fall is forgotten first; those that are up stay.
    """
    watcher = Watcher(limits=PresenceLimits(gone=2))
    links = {name: FakeWatched(name, isAuthenticated=True) for name in "abcd"}
    for link in links.values():
        watcher.table.connected(link)
    for name in "cab":
        watcher.table.disconnected(links[name], PeerClosed())  # type: ignore[arg-type]
    assert sorted(watcher.table.peers) == ["a", "b", "d"]
    watcher.advance(1)
    assert sorted(watcher.restart().table.peers) == ["a", "b", "d"]


def test_forget(watcher: Watcher) -> None:
    """
    The application can remove a peer that nothing hears, also from the store; and no other.
    """
    link = FakeWatched("a")
    watcher.table.connected(link)
    assert watcher.table.forget("tcp/a") is False
    watcher.table.disconnected(link, PeerClosed())
    assert watcher.table.forget("tcp/a") is True
    assert watcher.table.forget("tcp/a") is False
    assert watcher.restart().table.peers == {}


def test_forgetUnknownPeer(watcher: Watcher) -> None:
    """
    A peer that is removed without having been down is down first, so that all subscribers know.
    """
    watcher.table.connected(FakeWatched("a"))
    later = watcher.restart()
    later.table.forget("tcp/a")
    later.advance()
    assert later.hooks.states == [UNKNOWN, DOWN]
    assert later.hooks.told[1].reason == "forgotten"
    assert later.table.peers == {}


# Restarts.


def test_restartMakesUnknown(watcher: Watcher) -> None:
    """
    After a restart a peer that was up is unknown, with a change, until it is heard.
    """
    watcher.table.connected(FakeWatched("a"))
    watcher.advance(1)
    later = watcher.restart()
    later.advance(5)
    assert later.stateOf("tcp/a") is UNKNOWN
    later.table.connected(FakeWatched("a"))
    later.advance(60)
    assert [(c.previous, c.state) for c in later.hooks.told] == [(UP, UNKNOWN), (UNKNOWN, UP)]
    assert later.hooks.told[0].reason == "the watcher was restarted"


def test_unknownIsDownAfterItsBound(watcher: Watcher) -> None:
    """
    Who was up before the restart, and is not heard within its bound and the grace time, is down.
    """
    watcher.table.connected(FakeWatched("a", bound=10.0))
    later = watcher.restart(grace=2.0)
    later.advance(11.9)
    assert later.stateOf("tcp/a") is UNKNOWN
    later.advance(0.2)
    assert later.hooks.states == [UNKNOWN, DOWN]
    assert later.hooks.told[1].reason == "not heard since the watcher was restarted"
    assert later.table.peers["tcp/a"].falls == 1


def test_longestBoundCountsAfterRestart(watcher: Watcher) -> None:
    """
    The bound that counts is the longest of all carriers, also of one whose coming was no change.
    """
    watcher.table.connected(FakeWatched("a", isAuthenticated=True, bound=5.0))
    watcher.advance(1)
    watcher.table.connected(FakeWatched("a", carrier="udp", isAuthenticated=True, bound=60.0))
    later = watcher.restart()
    later.advance(59.9)
    assert later.stateOf("a") is UNKNOWN
    later.advance(0.2)
    assert later.stateOf("a") is DOWN


def test_withoutBoundUnknownStays(watcher: Watcher) -> None:
    """
    A peer whose silence proves nothing stays unknown until it is heard.
    """
    watcher.table.connected(FakeWatched("a", bound=None))
    later = watcher.restart()
    later.advance(100_000)
    assert later.stateOf("tcp/a") is UNKNOWN


def test_downStaysDownOverRestart(watcher: Watcher) -> None:
    """
    Who was down stays down, with its cause, its falls and when it was last heard, and without a
    change.
    """
    link = FakeWatched("a")
    watcher.table.connected(link)
    watcher.advance(10)
    link.silence = 4.0
    watcher.table.disconnected(link, PeerReset("gone"))
    before = watcher.table.peers["tcp/a"]
    later = watcher.restart()
    later.advance(60)
    assert later.hooks.told == []
    assert later.table.peers["tcp/a"] == before


def test_unnamedPeerIsDownAfterRestart(watcher: Watcher) -> None:
    """
    A peer that goes by its address has ended with the process that held its link.
    """
    watcher.table.connected(FakeWatched(generation=5))
    later = watcher.restart()
    later.advance()
    assert [(c.name, c.state) for c in later.hooks.told] == [("tcp/192.0.2.1:7005", DOWN)]
    assert later.table.peers == {}
    assert later.restart().table.peers == {}


def test_heardBeforeTheStoreIsRead() -> None:
    """
    A peer that is heard while the store is still being read has not been unknown.
    """
    store = FailingStore()
    first = Watcher(store)
    for name in ("a", "b"):
        first.table.connected(FakeWatched(name))
    first.stop()
    store.hold.add("load")
    later = Watcher(store, clock=first.clock)
    link = FakeWatched("c")
    for each in (FakeWatched("a"), link):
        later.table.connected(each)
    later.table.disconnected(link, PeerClosed())
    later.advance(5)
    assert (later.stateOf("tcp/a"), later.hooks.told) == (UP, [])
    store.release()
    later.advance()
    assert [(c.name, c.previous, c.state) for c in later.hooks.told] == [
        ("tcp/c", UNKNOWN, DOWN),
        ("tcp/b", UP, UNKNOWN),
    ]


def test_stopIsNoFall(watcher: Watcher) -> None:
    """
    Links that end because this process ends are not recorded, so that a clean restart tells no hook
    of a fall, and tells it nothing twice.
    """
    named = Subscriber()
    watcher.table.subscribe("mail", named)
    link = FakeWatched("a")
    watcher.table.connected(link)
    watcher.advance()
    stopped = watcher.table.stopService()
    watcher.table.disconnected(link, ClosedHere())
    watcher.advance()
    assert stopped.called
    later = Watcher(watcher.store, clock=watcher.clock)
    later.table.subscribe("mail", named)
    later.table.connected(FakeWatched("a"))
    later.advance()
    assert named.states == [UP, UNKNOWN, UP]
    assert len(set(named.numbers)) == 3


class Monitor(Service):
    """
    Ends its peers when it is stopped.
    """

    def __init__(self, table: PresenceTable, peer: FakeWatched) -> None:
        self._table = table
        self._peer = peer

    def stopService(self) -> None:
        self._table.disconnected(self._peer, ClosedHere("the monitor has stopped"))


@pytest.mark.parametrize("order", ["table first", "table last"])
def test_orderOfServicesIsNoMatter(watcher: Watcher, order: str) -> None:
    """
    When an application stops, its services end what they watch before or after the table is
    stopped; neither is a fall.
    """
    link = FakeWatched("a")
    watcher.table.connected(link)
    watcher.advance()
    application = MultiService()
    services = [watcher.table, Monitor(watcher.table, link)]
    for service in services if order == "table first" else reversed(services):
        service.setServiceParent(application)
    stopped = application.stopService()
    watcher.advance()
    assert stopped.called and watcher.hooks.states == [UP]
    later = Watcher(watcher.store, clock=watcher.clock)
    later.advance()
    assert later.hooks.states == [UNKNOWN]


def test_closedHereEndsATurnLater(watcher: Watcher) -> None:
    """
    What this process has closed ends in the next turn, also if the same object is connected again
    before.
    """
    link = FakeWatched("a")
    watcher.table.connected(link)
    watcher.table.disconnected(link, ClosedHere("kicked"))
    watcher.table.connected(link)
    watcher.advance()
    assert watcher.hooks.states == [UP, DOWN, UP]
    watcher.table.disconnected(link, ClosedHere("kicked"))
    watcher.advance()
    assert watcher.hooks.states == [UP, DOWN, UP, DOWN]
    assert watcher.hooks.told[-1].reason == "kicked"


def test_sameTableStartsAgain(watcher: Watcher) -> None:
    """
    A table that was stopped and is started again goes on from what its links are now.
    """
    link, other = FakeWatched("a"), FakeWatched("b")
    watcher.table.connected(link)
    watcher.table.connected(other)
    watcher.stop()
    watcher.table.disconnected(link, PeerClosed())
    watcher.start()
    watcher.advance()
    assert watcher.hooks.states[-1] is DOWN
    assert (watcher.stateOf("tcp/a"), watcher.stateOf("tcp/b")) == (DOWN, UP)
    assert watcher.table.peers["tcp/a"].falls == 1
    numbers = [change.number for change in resultOf(watcher.table.changes(0))]
    assert numbers == sorted(set(numbers)) and len(numbers) == 3


def test_clockBehindTheStore(watcher: Watcher, events: list[Any]) -> None:
    """
    A wall clock that is behind the store's times is said, and decides nothing: bounds and numbers
    are as ever.
    """
    link = FakeWatched("b")
    for each in (FakeWatched("a"), link):
        watcher.table.connected(each)
    watcher.table.disconnected(link, PeerClosed())
    watcher.stop()
    later = Watcher(watcher.store, clock=watcher.clock, start=False)
    later.wall = 1000.0
    later.start()
    assert any(event.get("behind") == 999_000.0 for event in events)
    assert later.table.peers["tcp/b"].falls == 1
    later.advance(10.1)
    later.clock.advance(3600)
    assert later.table.peers["tcp/b"].falls == 0
    assert later.hooks.states == [UNKNOWN, DOWN]
    assert later.hooks.numbers == sorted(later.hooks.numbers)
    assert all(number > watcher.table.latest for number in later.hooks.numbers)


# The service.


def test_isAService() -> None:
    """
    The table is a service; the settings are checked when it is made.
    """
    assert IService.providedBy(PresenceTable())
    for grace in (-1, "5", None):
        with pytest.raises(ValueError, match=r"PresenceTable\.grace is .*: it must be"):
            PresenceTable(grace=grace)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"PresenceLimits\.backlog is 0: it must be"):
        PresenceLimits(backlog=0)
    with pytest.raises(ValueError, match=r"MemoryStore\.keep is 0.5: it must be"):
        MemoryStore(keep=0.5)  # type: ignore[arg-type]


def test_factWithoutServiceIsSaid(events: list[Any]) -> None:
    """
    A table that was never started says so once; its mapping works.
    """
    watcher = Watcher(start=False)
    watcher.table.connected(FakeWatched("a"))
    watcher.table.connected(FakeWatched("b"))
    assert watcher.stateOf("tcp/a") is UP
    assert len([e for e in events if "is not running" in (e.get("log_format") or "")]) == 1
    watcher.start()
    watcher.advance()
    assert watcher.hooks.states == [UP, UP]


def test_brokenWatchedObjectEndsNoLink(watcher: Watcher, loggedErrors: Any) -> None:
    """
    An object that the table cannot read is logged, and the table raises nothing into its carrier.
    """
    watcher.table.connected(object())
    watcher.table.disconnected(object(), PeerClosed())
    assert len(loggedErrors.flush(AttributeError)) == 1


def test_questionsAreChecked(watcher: Watcher) -> None:
    """
    Numbers and limits that make no sense are refused in one sentence.
    """
    table = watcher.table
    for ask in (
        lambda: table.changes(-1),
        lambda: table.changes(0, 0),
        lambda: table.history("a", 0),
        lambda: table.subscribe("", PresenceHooks()),
        lambda: table.subscribe("a", PresenceHooks(), since=-1),
    ):
        with pytest.raises(ValueError, match="it must be"):
            ask()


def test_questionsToAStoppedTable(watcher: Watcher) -> None:
    """
    A table that is not running says so, and whoever waited for the store is told.
    """
    store = FailingStore()
    store.hold.add("load")
    waiting = Watcher(store)
    asked = [waiting.table.whenLoaded(), waiting.table.changes(0)]
    stopped = waiting.table.stopService()
    waiting.advance()
    assert stopped.called
    for deferred in [*asked, waiting.table.history("a"), waiting.table.whenLoaded()]:
        failures: list[Any] = []
        deferred.addErrback(failures.append)
        assert failures[0].check(RuntimeError)


def test_numbersAreReservedAhead() -> None:
    """
    Numbers come in blocks from the store, so that those after a restart lie above all that were
    used, stored or not.
    """
    watcher = Watcher()
    watcher.table.connected(FakeWatched("a"))
    again = Watcher(watcher.store, clock=Clock())
    again.table.connected(FakeWatched("b"))
    again.advance()
    watcher.table.connected(FakeWatched("c"))
    watcher.advance()
    assert watcher.hooks.numbers == [1, 2]
    assert again.hooks.numbers == [1_000_001]


def test_changesAndHistory(watcher: Watcher) -> None:
    """
    Changes can be read from any number on, and a peer's last ones, whether they are stored yet or
    not.
    """
    links = [FakeWatched(name) for name in "abab"]
    for link in links:
        watcher.table.connected(link)
        watcher.table.disconnected(link, PeerClosed())  # type: ignore[arg-type]
        if link is links[1]:
            watcher.advance(1)
    assert [c.number for c in resultOf(watcher.table.changes(0))] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [c.number for c in resultOf(watcher.table.changes(3, limit=2))] == [4, 5]
    assert [c.number for c in resultOf(watcher.table.changes(6))] == [7, 8]
    assert resultOf(watcher.table.changes(8)) == []
    assert [c.number for c in resultOf(watcher.table.history("tcp/b"))] == [3, 4, 7, 8]
    assert [c.number for c in resultOf(watcher.table.history("tcp/b", limit=1))] == [8]


def test_changesBehindTheRetention() -> None:
    """
    Of changes that are not kept any more a gap is returned.
    """
    watcher = Watcher(MemoryStore(keep=4))
    for _ in range(4):
        link = FakeWatched("a")
        watcher.table.connected(link)
        watcher.table.disconnected(link, PeerClosed())
        watcher.advance(1)
    found = resultOf(watcher.table.changes(2))
    assert found[0] == Gap(3, 4)
    assert [change.number for change in found[1:]] == [5, 6, 7, 8]


def test_recordsAreWhatTheNextStartNeeds(watcher: Watcher) -> None:
    """
    A store is given the record of each peer that has changed, with its last change.
    """
    link = FakeWatched("a")
    watcher.table.connected(link)
    watcher.advance(1)
    link.silence = 0.25
    watcher.table.disconnected(link, PeerClosed())
    watcher.advance(1)
    stored = resultOf(watcher.store.load())
    last = watcher.hooks.told[-1]
    assert stored.peers == [PeerRecord(change=last, bound=10.0, lastHeard=1_000_000.75)]
    assert stored.latest == last.number
    assert stored.falls == {"tcp/a": [last.at]}
