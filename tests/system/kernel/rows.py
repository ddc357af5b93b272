# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{ROWS}: every fault, what it is expected to be named, and when.

A cause is what is true for the watcher's kernel, which is all that the watcher can know:

  - Packets that vanish on the way are silence, whoever drops them: L{PeerSilent}.  So is a peer
    whose address or interface is gone, until ARP has given up, which takes longer than the bound.
  - A process that does not answer while its kernel does is L{PeerHung}, stopped or not reading.
  - A way that this kernel's own routing table denies, or a router by ICMP, is L{HostUnreachable} or
    L{NetworkUnreachable}.  The kernel does not tell an established connection of it: it has to be
    asked at the verdict, so these come at the bound, too.
  - A full send buffer with a C{sendStall} below the bound is L{SendStalled}, whatever stopped it.
  - Keepalive alone ends in ETIMEDOUT, L{KeepAliveExpired}, and never for a process that hangs.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import faults
from .cells import LOADS
from .faults import Fault
from .network import HERE, THERE

BOUND, GRADUALLY, STALL, KEEPALIVE, AT_ONCE, WITHIN, NEVER = (
    "bound", "gradually", "stall", "keepalive", "at once", "within", "never",
)  # fmt: skip
"""
When: at the bound after the last byte, which comes before the fault; or some time after it; at
C{sendStall} after the last progress; at keepalive's own time after the last segment; as soon as the
fault strikes; then or later, but within the bound; never.
"""


@dataclass(frozen=True)
class Expected:
    """
    What a cell is to come to.

    @ivar causes: any of them is true; none for no verdict.
    """

    when: str
    causes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """
    One fault.

    @ivar title: for the table.
    @ivar expected: by load.
    @ivar lasts: seconds until it is mended.
    @ivar sides: who can watch when it strikes.
    @ivar secure: whether it strikes TLS, and plain TCP.
    @ivar ownPeer: whether it needs a peer's process of its own.
    @ivar moves: whether the peer has a second address.
    @ivar speaks: see L{Cell<tests.system.kernel.cells.Cell>}.
    @ivar left: the combinations that are left out, and why, in one sentence.
    """

    name: str
    title: str
    fault: Fault
    expected: dict[str, Expected]
    lasts: float = 4.2
    sides: tuple[str, ...] = ("client", "server")
    secure: tuple[bool, ...] = (False, True)
    ownPeer: bool = False
    moves: bool = False
    speaks: float = 0.0
    left: str = ""

    @property
    def strikesAttempts(self) -> bool:
        """
        Whether the fault strikes attempts, and not a link.
        """
        return set(self.expected) == {"idle"}


def _silence(*causes: str, keepalive: str = "KeepAliveExpired") -> dict[str, Expected]:
    """
    What only silence tells.
    """
    byLoad = {load: Expected(BOUND, causes) for load in ("idle", "data", "full", "quick")}
    byLoad["stall"] = Expected(STALL, ("SendStalled",))
    byLoad["keepalive"] = Expected(KEEPALIVE, (keepalive,))
    return byLoad


def _byRouter(cause: str) -> dict[str, Expected]:
    """
    What ICMP tells.  Linux hears it of data alone, and not of the probes of a closed window
    (C{tcp_v4_err}: their sequence number is none that is on its way).
    """
    return {**_silence(cause), "full": Expected(BOUND, (cause, "PeerSilent"))}


def _hung() -> dict[str, Expected]:
    return {**_silence("PeerHung"), "keepalive": Expected(NEVER)}


def _atOnce(*causes: str) -> dict[str, Expected]:
    """
    What the kernel tells.
    """
    return {load: Expected(AT_ONCE, causes) for load in LOADS}


def _finished() -> dict[str, Expected]:
    """
    The peer says goodbye, but reads on: what waits to be sent is sent first.
    """
    flushed = Expected(WITHIN, ("PeerClosed",))
    return {**_atOnce("PeerClosed"), "full": flushed, "stall": flushed}


def _attempts(*causes: str) -> dict[str, Expected]:
    return {"idle": Expected(AT_ONCE, causes)}


_NO_LINK = "any load but idle: there is no link yet; "

ROWS: tuple[Row, ...] = (
    Row("cut", "cable cut: packets dropped both ways", faults.dropped(HERE, THERE),
        _silence("PeerSilent")),
    Row("cutThere", "packets dropped toward the peer alone", faults.dropped(THERE),
        _silence("PeerSilent")),
    Row("cutHere", "packets dropped toward the watcher alone", faults.dropped(HERE),
        _silence("PeerSilent")),
    Row("cutSpeaking", "packets dropped toward a peer that speaks by itself",
        faults.dropped(THERE),
        {**{load: Expected(GRADUALLY, ("PeerSilent",)) for load in ("idle", "data", "full")},
         "stall": Expected(STALL, ("SendStalled",))},
        speaks=0.1, lasts=6.0,
        left="short bound, keepalive alone: the peer speaks, so nothing is idle"),
    Row("downHere", "own interface down", faults.linkDown(HERE), _silence("NetworkUnreachable")),
    Row("downThere", "peer's interface down", faults.linkDown(THERE), _silence("PeerSilent")),
    Row("addressHere", "own address removed", faults.addressGone(HERE),
        _silence("NetworkUnreachable")),
    Row("addressThere", "peer's address removed", faults.addressGone(THERE),
        _silence("PeerSilent")),
    Row("moved", "peer's address changed", faults.MOVED, _silence("PeerSilent"), moves=True),
    Row("noRoute", "no route to the peer's network", faults.NO_ROUTE,
        _silence("NetworkUnreachable")),
    Row("unreachable", "route replaced: unreachable", faults.noWay("unreachable"),
        _silence("HostUnreachable")),
    Row("prohibit", "route replaced: prohibit", faults.noWay("prohibit"),
        _silence("HostUnreachable")),
    Row("blackhole", "route replaced: blackhole", faults.noWay("blackhole"),
        _silence("NetworkUnreachable")),
    Row("icmpHost", "a router says: host unreachable", faults.rejected("host-unreachable"),
        _byRouter("HostUnreachable")),
    Row("icmpNet", "a router says: network unreachable", faults.rejected("net-unreachable"),
        _byRouter("NetworkUnreachable")),
    Row("stopped", "peer's process stopped (SIGSTOP)", faults.STOPPED, _hung(), ownPeer=True),
    Row("hushed", "zero window: peer alive, but not reading",
        faults.told("hush", mend=("listenAgain",)), _hung()),
    Row("hushedSpeaking", "zero window: peer not reading, but speaking",
        faults.told("hush", mend=("listenAgain",)),
        {"idle": Expected(NEVER), "data": Expected(NEVER), "full": Expected(NEVER),
         "stall": Expected(STALL, ("SendStalled",))},
        speaks=0.3,
        left="short bound, keepalive alone: the peer speaks, so nothing is idle"),
    Row("killed", "peer's process killed (SIGKILL)", faults.KILLED,
        # A close with unread data, if only a ping that is on its way, is a reset.
        _atOnce("PeerClosed", "PeerReset"), lasts=1.0, ownPeer=True),
    Row("rebooted", "peer's host gone, then back", faults.REBOOTED,
        {load: Expected(WITHIN, ("PeerReset",)) for load in LOADS if load != "quick"},
        lasts=3.2,
        left="short bound: its verdict may come before the host is back"),
    Row("fin", "FIN", faults.told("finish"), _finished(), lasts=2.5),
    Row("halfClose", "half-close: the peer still reads", faults.told("halfClose"),
        _finished(), lasts=2.5),
    Row("rst", "RST", faults.told("reset"), _atOnce("PeerReset"), lasts=1.0),
    Row("synDropped", "SYN dropped", faults.SYN_DROPPED, _attempts("ConnectFailed"),
        sides=("client",), left=_NO_LINK + "a server does not send the first SYN"),
    Row("refused", "connection refused", faults.REFUSED, _attempts("ConnectFailed"),
        sides=("client",), left=_NO_LINK + "a server can not be refused"),
    Row("acceptClose", "accept, then close", faults.mannered("closeAtOnce"),
        # The kernel resets if the handshake's first bytes have come, which then nobody reads.
        _attempts("PeerClosed", "HandshakeFailed", "PeerReset"),
        left=_NO_LINK.removesuffix("; ")),
    Row("mute", "accepted by the peer's kernel, never by its process", faults.mannered("mute"),
        _attempts("PeerHung"), secure=(False,),
        left=_NO_LINK + "with TLS it is a handshake that hangs"),
    Row("phantom", "established for the client alone: its last ACK is lost", faults.PHANTOM,
        _attempts("PeerSilent", "HandshakeFailed"), sides=("client",),
        left=_NO_LINK + "a server does not send the last ACK"),
    Row("tlsHangs", "TLS handshake that hangs", faults.mannered("hang"),
        _attempts("HandshakeFailed"), secure=(True,), left=_NO_LINK + "plain has no handshake"),
    Row("badCertificate", "wrong certificate", faults.mannered("badCertificate"),
        _attempts("HandshakeFailed"), secure=(True,), left=_NO_LINK + "plain has no certificate"),
)  # fmt: skip
