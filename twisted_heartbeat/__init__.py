# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Liveness and reconnection for Twisted: you state one bound in seconds; within it a connection is
either proven alive, or gone, cleaned up and being replaced; and no live peer is declared dead.

Start with L{HeartbeatClientService}, or see the three doors: L{HeartbeatMixin},
L{HeartbeatFactory}, and the endpoint prefixes.
"""

from .client import HeartbeatClientFactory, HeartbeatClientService
from .core.causes import (
    Cause,
    ClosedHere,
    ConnectFailed,
    Evidence,
    HandshakeFailed,
    HostUnreachable,
    KeepAliveExpired,
    LinkLost,
    NetworkUnreachable,
    Parting,
    PeerClosed,
    PeerHung,
    PeerReset,
    PeerSilent,
    PermanentFailure,
    ProtocolViolation,
    SendFailed,
    SendStalled,
)
from .core.settings import Backoff, Heartbeat, KeepAlive, Limits, ServerLimits
from .core.supervision import Retry
from .net.hooks import LinkHooks
from .net.link import Link
from .protocol import HeartbeatMixin, HeartbeatProtocol
from .server import HeartbeatServerFactory
from .wrapping import HeartbeatFactory

__all__ = [
    "Backoff",
    "Cause",
    "ClosedHere",
    "ConnectFailed",
    "Evidence",
    "HandshakeFailed",
    "Heartbeat",
    "HeartbeatClientFactory",
    "HeartbeatClientService",
    "HeartbeatFactory",
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
    "Parting",
    "PeerClosed",
    "PeerHung",
    "PeerReset",
    "PeerSilent",
    "PermanentFailure",
    "ProtocolViolation",
    "Retry",
    "SendFailed",
    "SendStalled",
    "ServerLimits",
]
