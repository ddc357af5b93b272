# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Fault}: how to break a lane, or the peer at its other end, and how to mend it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .cells import Cell
from .network import HERE, THERE, Lane
from .processes import Process


class Peer:
    """
    The peer's process, as one row has it.

    @ivar cells: those of the row.
    """

    def __init__(self, process: Process, cells: list[Cell], again: Callable[[], Process]) -> None:
        """
        @param again: starts the process anew, where the row has one to itself.
        """
        self.process = process
        self.cells = cells
        self._again = again

    def tell(self, *orders: str, **fields: Any) -> None:
        """
        Have it do something with all connections of the row.
        """
        for order in orders:
            self.process.tell(order, self.cells, **fields)

    def restart(self) -> None:
        """
        Start it again after it was killed.
        """
        self.process = self._again()
        self.tell("meet")


def _nothing(lane: Lane, peer: Peer) -> None:
    pass


@dataclass(frozen=True)
class Fault:
    """
    One way to break things.

    @ivar strike: breaks them.
    @ivar mend: makes them whole again.
    @ivar follow: what belongs to the fault, but comes after it has struck.
    """

    strike: Callable[[Lane, Peer], None]
    mend: Callable[[Lane, Peer], None]
    follow: Callable[[Lane, Peer], None] = _nothing


def dropped(*ends: str, rule: str = "") -> Fault:
    """
    Packets that come in at these ends vanish: what is sent has left the sender, as on a cut cable.

    @param rule: which packets; all of them by default.
    """

    def strike(lane: Lane, peer: Peer) -> None:
        for end in ends:
            lane.filter(end, "prerouting", f"{rule} drop")

    def mend(lane: Lane, peer: Peer) -> None:
        for end in ends:
            lane.unfilter(end)

    return Fault(strike, mend)


def rejected(kind: str) -> Fault:
    """
    A router on the way answers packets for the peer with ICMP.

    @param kind: as nft(8) has it, C{host-unreachable} for example.
    """

    def strike(lane: Lane, peer: Peer) -> None:
        rule = f"meta l4proto tcp reject with icmp type {kind}"
        lane.filter(THERE, "input", rule)
        # What the peer sends does not arrive either.
        lane.filter(HERE, "prerouting", "meta l4proto tcp drop")

    def mend(lane: Lane, peer: Peer) -> None:
        lane.unfilter(THERE)
        lane.unfilter(HERE)

    return Fault(strike, mend)


def linkDown(end: str) -> Fault:
    """
    The interface at an end is taken down.
    """

    def strike(lane: Lane, peer: Peer) -> None:
        lane.ip(end, "link", "set", lane.device, "down")

    def mend(lane: Lane, peer: Peer) -> None:
        lane.ip(end, "link", "set", lane.device, "up")

    return Fault(strike, mend)


def addressGone(end: str) -> Fault:
    """
    The address at an end is removed.
    """

    def words(lane: Lane) -> list[str]:
        address = lane.here if end == HERE else lane.there
        return [f"{address}/24", "dev", lane.device]

    def strike(lane: Lane, peer: Peer) -> None:
        lane.ip(end, "addr", "del", *words(lane))

    def mend(lane: Lane, peer: Peer) -> None:
        lane.ip(end, "addr", "add", *words(lane))

    return Fault(strike, mend)


def noWay(kind: str) -> Fault:
    """
    The watcher's route to the peer is replaced by one of a kind that leads nowhere: C{unreachable},
    C{prohibit}, C{blackhole}, see ip-route(8).
    """

    def strike(lane: Lane, peer: Peer) -> None:
        lane.ip(HERE, "route", "add", kind, f"{lane.there}/32")

    def mend(lane: Lane, peer: Peer) -> None:
        lane.ip(HERE, "route", "del", kind, f"{lane.there}/32")

    return Fault(strike, mend)


def _network(lane: Lane) -> list[str]:
    return [f"10.77.{lane.number}.0/24", "dev", lane.device]


NO_ROUTE = Fault(
    lambda lane, peer: lane.ip(HERE, "route", "del", *_network(lane)),
    lambda lane, peer: lane.ip(HERE, "route", "add", *_network(lane), "src", lane.here),
)
"""The watcher has no route to the peer at all."""


def told(*orders: str, mend: tuple[str, ...] = ()) -> Fault:
    """
    The peer misbehaves, and behaves again.
    """
    return Fault(
        lambda lane, peer: peer.tell(*orders),
        lambda lane, peer: peer.tell(*mend),
    )


def mannered(manner: str) -> Fault:
    """
    The peer resets what there is, and treats each new connection in this manner.
    """

    def strike(lane: Lane, peer: Peer) -> None:
        peer.tell("manner", manner=manner)
        peer.tell("reset")

    def mend(lane: Lane, peer: Peer) -> None:
        peer.tell("manner", manner="")
        peer.tell("reset")

    return Fault(strike, mend)


STOPPED = Fault(lambda lane, peer: peer.process.stop(), lambda lane, peer: peer.process.resume())
"""The peer's process is stopped."""

KILLED = Fault(lambda lane, peer: peer.process.kill(), lambda lane, peer: peer.restart())
"""The peer's process is killed; its kernel says goodbye for it."""

_CUT = dropped(HERE, THERE)


def _loseHost(lane: Lane, peer: Peer) -> None:
    _CUT.strike(lane, peer)
    # Not killed: its kernel would remember the connections, and repeat the FIN.
    peer.tell("reset")


def _findHost(lane: Lane, peer: Peer) -> None:
    time.sleep(GONE_FOR)
    _CUT.mend(lane, peer)


GONE_FOR = 0.1
"""Seconds for which the peer's host is away: so short that what was lost is repeated in time."""

REBOOTED = Fault(_loseHost, _nothing, _findHost)
"""The peer's host goes without a word, and comes back without its connections."""


def _dropSyn(lane: Lane, peer: Peer) -> None:
    lane.filter(THERE, "prerouting", "tcp flags & (syn | ack) == syn drop")
    peer.tell("reset")


SYN_DROPPED = Fault(_dropSyn, lambda lane, peer: lane.unfilter(THERE))
"""The peer resets what there is, and no new connection gets through."""


def _dropAck(lane: Lane, peer: Peer) -> None:
    lane.filter(THERE, "prerouting", "tcp flags & (syn | ack) == ack drop")
    peer.tell("reset")


PHANTOM = Fault(_dropAck, lambda lane, peer: lane.unfilter(THERE))
"""
The peer resets what there is; then it hears the SYN of a new connection, but not the ACK that ends
the handshake: the connection is there for its client alone, as when an accept queue overflows.
"""


def _refuse(lane: Lane, peer: Peer) -> None:
    peer.tell("refuse", "reset")


REFUSED = Fault(_refuse, lambda lane, peer: peer.tell("accept"))
"""The peer resets what there is, and no longer listens."""


def _move(lane: Lane, peer: Peer) -> None:
    lane.ip(THERE, "addr", "del", f"{lane.there}/24", "dev", lane.device)
    lane.ip(THERE, "addr", "add", f"{lane.elsewhere}/24", "dev", lane.device)


MOVED = Fault(_move, _nothing)
"""The peer's address is changed, and stays so: it is at the second of its addresses now."""
