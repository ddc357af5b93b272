# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{RejectedConnection}: the protocol of a connection that is aborted at once.
"""

from __future__ import annotations

from twisted.internet.protocol import Protocol

from ..transport.layers import abort


class RejectedConnection(Protocol):
    """
    Aborts its connection.  A factory could build no protocol instead, but over TLS that is no way
    out: C{TLSMemoryBIOFactory} does not check for L{None}, and raises.
    """

    def connectionMade(self) -> None:
        abort(self.transport)
