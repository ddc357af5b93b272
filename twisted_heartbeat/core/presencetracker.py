# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{PresenceTracker}: decides from facts and C{now} which state each peer has.

I{Problem.}  One peer may be heard in several ways at once: by an old link that is not known to be
dead, by its new link, by datagrams, by check-ins.  The news of them come in any order.

I{Idea.}  A peer has one I{witness} for each link or session that stands for it.  A witness has a
state of its own, and only its own end removes it.  So the end of an old link says nothing about a
new one.  The peer's state is that of its best witness:

  - up, if a witness is not suspected;
  - suspect, if all of them are;
  - without a witness: suspect while the grace time runs, and then down.

A peer that was up before the watcher was restarted has no witness yet.  It is unknown until it is
heard, or until its bound and the grace time have passed since the restart.  Then it is down.

I{Numbers.}  Each change has a number from a block that the store has reserved, so that none is used
twice after a crash.  While there is no number, the states go on.  What has changed by the time that
numbers come is then recorded, one change for each peer.

I{Invariants.}

  - The state in a change differs from the state before, and that is the state of the change before.
  - A peer that is down has no witness.
  - A peer without a name of its own is forgotten when it is down.

I{Cost.}  O(1) for each fact, and O(log n) for each deadline.  Nothing happens at a ping.
"""

from __future__ import annotations

from collections.abc import Hashable
from heapq import heappop, heappush
from math import inf

from .presence import Change, PeerRecord, PeerState, PresenceLimits, StoredPresence
from .witnesses import Moment, TrackedPeer, Witness

RESTARTED = "the watcher was restarted"
"""Why a peer is unknown, and why a peer that goes by its address is down."""

NOT_HEARD = "not heard since the watcher was restarted"
"""Why a peer that was unknown is down."""

FORGOTTEN = "forgotten"
"""Why a peer is down that the application has removed."""

_MAX_FALLS = 1000
"""Falls of one peer that are counted."""


class Numbers:
    """
    The numbers that are reserved for changes.
    """

    def __init__(self) -> None:
        self._blocks: list[range] = []

    @property
    def left(self) -> int:
        """
        How many numbers are left.
        """
        return sum(len(block) for block in self._blocks)

    def add(self, first: int, count: int) -> None:
        """
        Add a block.  It must lie behind all that were added before.
        """
        self._blocks.append(range(first, first + count))

    def take(self) -> int | None:
        """
        Return the next number; L{None} if none is left.
        """
        if not self._blocks:
            return None
        block = self._blocks[0]
        number, rest = block[0], block[1:]
        if rest:
            self._blocks[0] = rest
        else:
            del self._blocks[0]
        return number


class PresenceTracker:
    """
    The states of all peers.

    @ivar peers: by name.
    @ivar latest: the highest number that was used; 0 before the first.
    @ivar changes: what was recorded and not yet taken; the caller empties it.
    @ivar unsaved: the names whose record a store has to write anew, or to delete if they are not in
        C{peers}; the caller empties it.
    """

    def __init__(self, grace: float = 0.0, limits: PresenceLimits | None = None) -> None:
        """
        @param grace: seconds for which a peer without a witness is suspect before it is down.
        """
        self._grace = grace
        self._limits = limits or PresenceLimits()
        self.peers: dict[str, TrackedPeer] = {}
        self.latest = 0
        self.changes: list[Change] = []
        self.unsaved: dict[str, None] = {}
        self._numbers = Numbers()
        self._names: dict[Hashable, str] = {}
        self._behind: dict[str, None] = {}
        self._gone: dict[str, None] = {}
        self._deadlines: list[tuple[float, str]] = []
        self._isRestored = False

    def setGrace(self, grace: float) -> None:
        """
        Apply another grace time, also to the peers whose grace time has begun.
        """
        moved, self._grace = grace - self._grace, grace
        for peer in self.peers.values():
            peer.due += moved
        self._sortDeadlines()

    # Facts.

    def connected(self, key: Hashable, witness: Witness, moment: Moment) -> None:
        """
        Add a witness: the peer is heard.  A witness of the same key is replaced.
        """
        if self._names.get(key, witness.name) != witness.name:
            self.disconnected(key, None, "", None, moment)
        peer = self.peers.get(witness.name)
        if peer is None:
            peer = self.peers[witness.name] = TrackedPeer(witness, moment.at)
        bound = peer.bound if peer.witnesses else None
        self._names[key] = witness.name
        peer.witnesses.pop(key, None)
        peer.witnesses[key] = peer.last = witness
        peer.due = inf
        self._gone.pop(witness.name, None)
        self._decide(peer, moment)
        if peer.bound != bound:
            self._saveLater(witness.name)

    def suspected(self, key: Hashable, moment: Moment) -> None:
        """
        The peer has not answered a witness in time.
        """
        self._setSuspected(key, True, moment)

    def recovered(self, key: Hashable, moment: Moment) -> None:
        """
        The peer has spoken to a witness that was suspected.
        """
        self._setSuspected(key, False, moment)

    def disconnected(
        self,
        key: Hashable,
        cause: str | None,
        reason: str,
        lastHeard: float | None,
        moment: Moment,
    ) -> None:
        """
        Remove a witness.

        @param cause: the name of the cause's class.
        @param reason: the cause in words.
        @param lastHeard: when the witness has heard the peer last, in seconds since 1970.
        """
        name = self._names.pop(key, None)
        if name is None:
            return
        peer = self.peers[name]
        if len(peer.witnesses) > 1:
            bound = peer.bound
            peer.last = peer.witnesses.pop(key)
            self._decide(peer, moment, cause, reason)
            if peer.bound != bound:
                self._saveLater(name)
            return
        peer.last = peer.witnesses.pop(key)
        peer.lastHeard, peer.cause, peer.reason = lastHeard, cause, reason
        if peer.last.isNamed and self._grace:
            self._setDeadline(peer, moment.now + self._grace)
            self._setState(peer, PeerState.SUSPECT, moment, cause, reason)
        else:
            self._fall(peer, moment)

    def missed(self, witness: Witness, cause: str, reason: str, moment: Moment) -> None:
        """
        Record that an expected peer, which no witness hears, is down.

        @param witness: the one that has expected it.
        @param cause: the name of the cause's class.
        @param reason: the cause in words.
        """
        peer = self.peers.get(witness.name)
        if peer is None:
            peer = self.peers[witness.name] = TrackedPeer(witness, moment.at)
        if not peer.witnesses and peer.state is not PeerState.DOWN:
            peer.last, peer.cause, peer.reason = witness, cause, reason
            self._fall(peer, moment)

    def advance(self, moment: Moment) -> None:
        """
        Record the peers whose deadline has passed as down.
        """
        while self._deadlines and self._deadlines[0][0] <= moment.now:
            due, name = heappop(self._deadlines)
            peer = self.peers.get(name)
            if peer is None or peer.due != due:
                continue
            peer.due = inf
            if peer.state is PeerState.UNKNOWN:
                peer.cause, peer.reason = None, NOT_HEARD
            else:
                peer.reason += f" ({self._grace:g} s ago: the grace time)"
            self._fall(peer, moment)

    def excuse(self, now: float, stalled: float) -> None:
        """
        Move the deadlines by the seconds for which nothing could be heard.  Each peer has as long
        from now on, but no longer than it had in the first place.
        """
        for peer in self.peers.values():
            if peer.due < inf:
                term = self._grace
                if peer.state is PeerState.UNKNOWN:
                    term += peer.bound or 0.0
                peer.due = max(peer.due + stalled, now + min(stalled, term))
        self._sortDeadlines()

    def _sortDeadlines(self) -> None:
        # A sorted list is a heap.
        due = ((peer.due, name) for name, peer in self.peers.items() if peer.due < inf)
        self._deadlines = sorted(due)

    @property
    def due(self) -> float:
        """
        When L{advance} has something to do; C{inf} for never.
        """
        while self._deadlines:
            due, name = self._deadlines[0]
            peer = self.peers.get(name)
            if peer is not None and peer.due == due:
                return due
            heappop(self._deadlines)
        return inf

    def forget(self, name: str, moment: Moment) -> bool:
        """
        Remove a peer that no witness hears.  If it is not down, it falls first.

        @return: whether there was one.
        """
        peer = self.peers.get(name)
        if peer is None or peer.witnesses:
            return False
        if peer.state is not PeerState.DOWN:
            peer.cause, peer.reason = None, FORGOTTEN
            self._fall(peer, moment)
        self._remove(name)
        return True

    def fallsOf(self, peer: TrackedPeer, now: float) -> int:
        """
        Return how often a peer went down lately.
        """
        since = now - self._limits.lately
        return sum(1 for fall in peer.falls if fall >= since)

    # The store.

    @property
    def numbersLeft(self) -> int:
        """
        How many changes can be recorded before L{numbersReserved} has to come again.
        """
        return self._numbers.left

    def numbersReserved(self, first: int, count: int) -> None:
        """
        Take over a block of numbers, and record what has changed while there was none.
        """
        self._numbers.add(first, count)
        behind, self._behind = self._behind, {}
        for name in behind:
            peer = self.peers[name]
            if peer.witnesses:
                self._record(peer, None, "")
            elif peer.state is PeerState.UNKNOWN:
                self._record(peer, None, RESTARTED)
            else:
                self._record(peer, peer.cause, peer.reason)
                self._settleGone(peer)

    def suspend(self) -> None:
        """
        Record nothing until L{restore} and L{numbersReserved}, because the store is closed.
        """
        self._numbers = Numbers()
        self._isRestored = False
        for peer in self.peers.values():
            # The store will tell them again.
            peer.falls = []

    def restore(self, stored: StoredPresence, moment: Moment) -> None:
        """
        Take over what a store holds.  It may come after the first facts.  Until L{numbersReserved}
        nothing is recorded.
        """
        self.latest = max(self.latest, stored.latest)
        self._isRestored = True
        # A store that failed does not have all of them.
        self.unsaved = dict.fromkeys(self.peers)
        for record in stored.peers:
            self._restore(record, moment)
        for name, falls in stored.falls.items():
            peer = self.peers.get(name)
            if peer is not None:
                # The wall clock may have been set back since.
                before = [moment.now - max(0.0, moment.at - fall) for fall in falls]
                peer.falls = (before + peer.falls)[-_MAX_FALLS:]

    def _restore(self, record: PeerRecord, moment: Moment) -> None:
        change = record.change
        peer = self.peers.get(change.name)
        if peer is not None:
            # It was heard while the store was read.
            peer.change = change
        else:
            peer = self.peers[change.name] = TrackedPeer(_witnessOf(record), change.at)
            peer.state, peer.change = change.state, change
            peer.lastHeard = record.lastHeard
            if change.state is PeerState.DOWN:
                peer.cause, peer.reason = change.cause, change.reason
                self._keepGone(change.name)
            elif not change.isNamed:
                # Its link has ended with the process that held it.
                peer.cause, peer.reason = None, RESTARTED
                self._fall(peer, moment)
            else:
                if change.state is not PeerState.UNKNOWN:
                    peer.state, peer.since = PeerState.UNKNOWN, moment.at
                if record.bound is not None:
                    self._setDeadline(peer, moment.now + record.bound + self._grace)
        if peer.state is not peer.recorded:
            self._behind[change.name] = None

    # Decisions.

    def _setSuspected(self, key: Hashable, suspected: bool, moment: Moment) -> None:
        name = self._names.get(key)
        if name is None:
            return
        peer = self.peers[name]
        peer.last = peer.witnesses[key]
        peer.last.suspected = suspected
        self._decide(peer, moment)

    def _decide(
        self, peer: TrackedPeer, moment: Moment, cause: str | None = None, reason: str = ""
    ) -> None:
        """
        Give a peer the state of its best witness.
        """
        suspected = all(witness.suspected for witness in peer.witnesses.values())
        state = PeerState.SUSPECT if suspected else PeerState.UP
        self._setState(peer, state, moment, cause, reason)

    def _fall(self, peer: TrackedPeer, moment: Moment) -> None:
        since = moment.now - self._limits.lately
        if peer.falls and peer.falls[0] < since:
            peer.falls = [fall for fall in peer.falls if fall >= since]
        peer.falls.append(moment.now)
        del peer.falls[:-_MAX_FALLS]
        peer.due = inf
        self._setState(peer, PeerState.DOWN, moment, peer.cause, peer.reason)
        self._settleGone(peer)

    def _settleGone(self, peer: TrackedPeer) -> None:
        """
        Keep a peer that is down, or forget it.
        """
        name = peer.last.name
        if peer.state is not PeerState.DOWN:
            return
        if peer.last.isNamed or name in self._behind:
            self._keepGone(name)
        else:
            self._remove(name)

    def _setState(
        self,
        peer: TrackedPeer,
        state: PeerState,
        moment: Moment,
        cause: str | None,
        reason: str,
    ) -> None:
        if state is peer.state:
            return
        peer.state, peer.since = state, moment.at
        self._record(peer, cause, reason)

    def _record(self, peer: TrackedPeer, cause: str | None, reason: str) -> None:
        """
        Record the present state, unless it is recorded already or there is no number.
        """
        witness, previous = peer.last, peer.recorded
        if peer.state is previous:
            return
        number = self._numbers.take()
        if number is None:
            self._behind[witness.name] = None
            return
        self.latest = number
        peer.change = Change(
            number=number,
            at=peer.since,
            name=witness.name,
            state=peer.state,
            previous=previous,
            carrier=witness.carrier,
            source=witness.source,
            generation=witness.generation,
            address=witness.address,
            cause=cause,
            reason=reason,
            bound=witness.bound,
            isNamed=witness.isNamed,
        )
        self.changes.append(peer.change)
        self._saveLater(witness.name)

    def _saveLater(self, name: str) -> None:
        """
        Have a peer's record written anew, or deleted.  While the store is not read, L{restore} will
        see to that: otherwise the names of strangers would gather for as long as it fails.
        """
        if self._isRestored:
            self.unsaved[name] = None

    def _setDeadline(self, peer: TrackedPeer, due: float) -> None:
        peer.due = due
        heappush(self._deadlines, (due, peer.last.name))
        if len(self._deadlines) > 2 * len(self.peers) + 64:
            # Deadlines that do not hold any more stay until they are the majority.
            self._sortDeadlines()

    def _keepGone(self, name: str) -> None:
        self._gone[name] = None
        while len(self._gone) > self._limits.gone:
            self._remove(next(iter(self._gone)))

    def _remove(self, name: str) -> None:
        self._gone.pop(name, None)
        self._behind.pop(name, None)
        del self.peers[name]
        self._saveLater(name)


def _witnessOf(record: PeerRecord) -> Witness:
    change = record.change
    return Witness(
        name=change.name,
        carrier=change.carrier,
        source=change.source,
        generation=change.generation,
        address=change.address,
        bound=record.bound,
        isNamed=change.isNamed,
    )
