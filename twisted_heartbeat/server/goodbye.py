# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{sayGoodbye}: tell a peer why its link ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..protocol.heartbeat import HeartbeatProtocol

if TYPE_CHECKING:
    from ..core import wire
    from ..link.link import Link


def sayGoodbye(link: Link, goodbye: wire.Goodbye) -> bool:
    """
    Send a goodbye, if the peer's protocol has one.

    @return: whether it has.
    """
    if not isinstance(link.protocol, HeartbeatProtocol):
        return False
    link.protocol.sayGoodbye(goodbye)
    return True
