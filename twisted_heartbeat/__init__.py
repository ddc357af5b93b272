# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Liveness detection and reconnection for Twisted.  You state one bound in seconds.  Within it each
peer is proven alive, or found dead.  A dead peer's connection is closed, its cause named and its
data cleaned up, and then the next attempt begins.

A pause of this process, or data that has arrived but was not read yet, never kills a peer.  A
network that is silent for longer than the bound does.

Start with L{HeartbeatClientService}, or see the three ways to use it: L{HeartbeatMixin},
L{HeartbeatFactory}, and the endpoint prefixes.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from .client.factory import HeartbeatClientFactory
from .client.service import HeartbeatClientService
from .core.backoff import Backoff
from .core.causes import (
    Cause,
    CheckInFailed,
    CheckInMissed,
    ClosedHere,
    ConnectFailed,
    GoodbyeCode,
    HandshakeFailed,
    HostUnreachable,
    KeepAliveExpired,
    LinkLost,
    NetworkUnreachable,
    PeerClosed,
    PeerHung,
    PeerReset,
    PeerSilent,
    PermanentFailure,
    ProtocolViolation,
    SendFailed,
    SendStalled,
)
from .core.commands import Retry
from .core.evidence import Evidence
from .core.settings import Heartbeat, KeepAlive, Limits, ServerLimits
from .link.hooks import LinkHooks
from .link.link import Link
from .protocol.heartbeat import HeartbeatProtocol
from .protocol.mixin import HeartbeatMixin
from .protocol.wrapper import HeartbeatFactory
from .server.factory import HeartbeatServerFactory

if TYPE_CHECKING:
    from .checkin.client import CheckIn
    from .checkin.resource import CheckInResource
    from .core.checkins import Check, CheckInLimits
    from .core.datagram.settings import DatagramLimits
    from .core.presence import (
        Change,
        Gap,
        PeerPresence,
        PeerRecord,
        PeerState,
        PresenceLimits,
        StoredPresence,
    )
    from .datagram.hooks import DatagramHooks
    from .datagram.monitor import UDPHeartbeatMonitor
    from .datagram.peer import DatagramPeer
    from .datagram.sender import UDPHeartbeatSender
    from .presence.hooks import PresenceHooks
    from .presence.memory import MemoryStore
    from .presence.sqlite import SQLiteStore
    from .presence.store import PresenceStore, StoreError
    from .presence.table import PresenceTable
    from .status.metrics import HeartbeatMetrics
    from .status.resource import StatusResource

__all__ = [
    "Backoff",
    "Cause",
    "Change",
    "Check",
    "CheckIn",
    "CheckInFailed",
    "CheckInLimits",
    "CheckInMissed",
    "CheckInResource",
    "ClosedHere",
    "ConnectFailed",
    "DatagramHooks",
    "DatagramLimits",
    "DatagramPeer",
    "Evidence",
    "Gap",
    "HandshakeFailed",
    "Heartbeat",
    "HeartbeatClientFactory",
    "HeartbeatClientService",
    "HeartbeatFactory",
    "HeartbeatMetrics",
    "HeartbeatMixin",
    "HeartbeatProtocol",
    "HeartbeatServerFactory",
    "HostUnreachable",
    "KeepAlive",
    "KeepAliveExpired",
    "Limits",
    "Link",
    "LinkHooks",
    "LinkLost",
    "NetworkUnreachable",
    "GoodbyeCode",
    "MemoryStore",
    "PeerClosed",
    "PeerHung",
    "PeerPresence",
    "PeerRecord",
    "PeerReset",
    "PeerSilent",
    "PeerState",
    "PermanentFailure",
    "PresenceHooks",
    "PresenceLimits",
    "PresenceStore",
    "PresenceTable",
    "ProtocolViolation",
    "Retry",
    "SQLiteStore",
    "SendFailed",
    "SendStalled",
    "ServerLimits",
    "StatusResource",
    "StoreError",
    "StoredPresence",
    "UDPHeartbeatMonitor",
    "UDPHeartbeatSender",
]

_LAZY: dict[str, str] = {
    "DatagramHooks": ".datagram.hooks",
    "DatagramLimits": ".core.datagram.settings",
    "DatagramPeer": ".datagram.peer",
    "UDPHeartbeatMonitor": ".datagram.monitor",
    "UDPHeartbeatSender": ".datagram.sender",
    "Change": ".core.presence",
    "Check": ".core.checkins",
    "CheckIn": ".checkin.client",
    "CheckInLimits": ".core.checkins",
    "CheckInResource": ".checkin.resource",
    "Gap": ".core.presence",
    "HeartbeatMetrics": ".status.metrics",
    "MemoryStore": ".presence.memory",
    "PeerPresence": ".core.presence",
    "PeerRecord": ".core.presence",
    "PeerState": ".core.presence",
    "PresenceHooks": ".presence.hooks",
    "PresenceLimits": ".core.presence",
    "StatusResource": ".status.resource",
    "PresenceStore": ".presence.store",
    "PresenceTable": ".presence.table",
    "SQLiteStore": ".presence.sqlite",
    "StoreError": ".presence.store",
    "StoredPresence": ".core.presence",
}
"""
The names that are loaded on first use, and the module of each.  Otherwise every program would pay
for the import of the rooms that it does not use, and need their extras.
"""

_EXTRAS: dict[str, str] = {"prometheus_client": "metrics", "treq": "http"}
"""The packages that only an extra installs, and the name of that extra."""


def __getattr__(name: str) -> object:
    """
    Load a public name on first use, see PEP 562.

    @raise ImportError: if the package of an extra is missing.
    """
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        found: object = getattr(import_module(module, __name__), name)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        words = f"{name} needs {error.name}: install twisted_heartbeat[{extra}]"
        raise ImportError(words, name=error.name) from error
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
