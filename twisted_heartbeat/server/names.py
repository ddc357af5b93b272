# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{NameQueue}: who holds a name, and who waits for it.

Problem: a name has one holder.  A peer whose connection broke may be back before its old link is
known dead.  The old link is then a ghost, or the newcomer an impostor.

Idea: all links that claim one name form a queue, in the order in which they came.  The first link
may be admitted; it is the I{holder}.  Every other link waits, and its conflict is only with the
link directly ahead:

 - If the link ahead has left the queue, the newcomer moves up.  At the front it has the name.
 - If the link ahead is closing, it is released: its cleanups run now, and its connection goes on
   closing by itself.
 - If both peers have proven the same private key (TLS), the newcomer replaces the link ahead.
 - Otherwise the link ahead is probed.  If its peer answers, the newcomer is refused.  If not, the
   link ahead ends by a verdict.

A link leaves the queue when it is refused, when it ends before it is admitted, or, as the holder,
when its cleanups have finished.

Invariants:

 - At most one admitted link of a name is up.
 - The cleanups of a holder finish before the next link has the name.
 - Leaving a queue never runs another link's code, because a queue may be long, and each link in it
   may end as soon as the one ahead has.  The next link goes on in a later call, see
   L{callSoon<twisted_heartbeat.timing.wheel.TimerWheel.callSoon>}.

Cost: a link with a name is one entry of a dictionary.  Two more dictionaries, by generation, hold
only the links that wait.  They are a doubly linked list, so that a link in the middle of a queue
leaves it in O(1).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol

from ..core.causes import ClosedHere
from ..transport.tls import publicKeyOf

if TYPE_CHECKING:
    from ..link.link import Link


class NameClaimant(Protocol):
    """
    A newcomer that claims its link's name.
    """

    link: Link

    @property
    def awaitsName(self) -> bool:
        """Whether the newcomer still waits: it was not refused, and its link is up."""

    def nameGranted(self) -> None:
        """The newcomer is the first of its queue."""

    def nameInUse(self, holder: Link) -> None:
        """The peer of the link ahead is alive, so that the newcomer cannot have the name."""


class NameQueue:
    """
    The names of a server's peers: for each name, the links that claim it, in order.

    A link without a name is in no queue.
    """

    def __init__(self) -> None:
        self._last: dict[str, Link] = {}
        self._ahead: dict[int, Link] = {}
        self._behind: dict[int, NameClaimant] = {}

    def holder(self, name: str) -> Link | None:
        """
        Return the first link that claims a name, admitted or not.
        """
        link = self._last.get(name)
        while link is not None and link.generation in self._ahead:
            link = self._ahead[link.generation]
        return link

    def next(self, link: Link) -> Link | None:
        """
        Return the link that waits directly behind another.
        """
        behind = self._behind.get(link.generation)
        return None if behind is None else behind.link

    def claim(self, claimant: NameClaimant) -> None:
        """
        Put a newcomer at the end of the queue for its name, and resolve its conflict.
        """
        link = claimant.link
        if link.name:
            last = self._last.get(link.name)
            if last is not None:
                self._join(claimant, last)
            self._last[link.name] = link
        self._resolveNameConflict(claimant)

    def leave(self, link: Link) -> None:
        """
        Take a link out of its queue.  It may be in none.
        """
        generation = link.generation
        ahead = self._ahead.pop(generation, None)
        behind = self._behind.pop(generation, None)
        if ahead is not None:
            del self._behind[ahead.generation]
        if behind is not None:
            del self._ahead[behind.link.generation]
            if ahead is not None:
                self._join(behind, ahead)
            self._resolveSoon(behind)
        elif ahead is not None:
            self._last[link.name] = ahead
        elif self._last.get(link.name) is link:
            del self._last[link.name]

    def linkClosing(self, link: Link) -> None:
        """
        Resolve the conflict of the link behind one that has begun to close.
        """
        behind = self._behind.get(link.generation)
        if behind is not None:
            self._resolveSoon(behind)

    def _join(self, claimant: NameClaimant, ahead: Link) -> None:
        self._ahead[claimant.link.generation] = ahead
        self._behind[ahead.generation] = claimant

    def _resolveSoon(self, claimant: NameClaimant) -> None:
        resolve = partial(self._resolveNameConflict, claimant)
        claimant.link.wheel.callSoon(resolve)

    def _resolveNameConflict(self, claimant: NameClaimant) -> None:
        if not claimant.awaitsName:
            return
        link = claimant.link
        ahead = self._ahead.get(link.generation)
        if ahead is None:
            claimant.nameGranted()
        elif not ahead.isUp:
            ahead.release()
        elif _sameCertificateKey(ahead, link):
            words = f"replaced by generation {link.generation}, with the same certificate"
            ahead.abort(ClosedHere(words))
        else:
            ahead.probe().addCallback(self._probed, claimant, ahead)

    def _probed(self, isAlive: bool, claimant: NameClaimant, ahead: Link) -> None:
        # The queue may have moved during the probe: the link that answered may be gone since, or
        # the newcomer refused.
        isAhead = self._ahead.get(claimant.link.generation) is ahead
        if isAlive and isAhead and claimant.awaitsName:
            claimant.nameInUse(ahead)


def _sameCertificateKey(one: Link, other: Link) -> bool:
    """
    Whether both peers have proven, in their TLS handshakes, to have the same private key.
    """
    ours, theirs = one.certificate, other.certificate
    if ours is None or theirs is None:
        return False
    return publicKeyOf(ours) == publicKeyOf(theirs)
