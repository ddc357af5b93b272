# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Liveness detection and reconnection for Twisted: you state one bound in seconds; within it a
connection is either proven alive, or gone, cleaned up and being replaced; and no live peer is
declared dead.

Start with L{HeartbeatClientService}, or see the three ways to use it: L{HeartbeatMixin},
L{HeartbeatFactory}, and the endpoint prefixes.
"""

from .client.factory import HeartbeatClientFactory
from .client.service import HeartbeatClientService
from .core.backoff import Backoff
from .core.causes import (
    Cause,
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
    "GoodbyeCode",
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
