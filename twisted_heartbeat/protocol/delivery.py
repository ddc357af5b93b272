# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What a transport tells a protocol, told to its link first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from ..core import wire
from ..logs import SafeLogger

if TYPE_CHECKING:
    from ..link.link import Link

_log = SafeLogger()


def noteHello(link: Link, data: bytes) -> None:
    """
    Log the likeliest mistake with C{heartbeat:}: the peer begins with a hello, and no protocol here
    understands that.
    """
    if wire.beginsWithHello(data) and link.manner is None:
        _log.warn(
            "{link}: the peer speaks the protocol of heartbeat: endpoints, and this end does not: "
            "does this end lack the heartbeat: prefix?",
            link=link,
        )


def hearData(link: Link, deliver: Callable[[bytes], object], data: bytes) -> object:
    """
    Tell a link that bytes came, and deliver them.

    @param data: text, in a unit test of a protocol that takes text as well.
    @return: what the protocol returns.  C{LineReceiver} returns the error of a line, for example.
    """
    if not link.spoken and isinstance(data, bytes):
        noteHello(link, data)
    link.heard()
    try:
        result = deliver(data)
        if not link.spoken:
            link.spokeFirst()
        if not link.hearsByItself:
            link.suspectSpoke()
        return result
    finally:
        link.chunkDelivered()


def hearHandshake(link: Link, completed: Callable[[], object]) -> None:
    """
    Tell a link that its TLS handshake is complete, and then the protocol.
    """
    link.handshaken()
    completed()


def hearEnd(link: Link, lost: Callable[[Any], object], reason: object = connectionDone) -> None:
    """
    Tell a link that its connection is lost, and then the protocol.  Both hear of it once: a
    transport that was told to abort and did not let go may still do so after the link has ended.
    """
    if link.state != "gone":
        if isinstance(reason, Failure):
            reason = link.lost(reason)
        else:
            # autobahn's protocols that carry others say None, and tests often an exception. The
            # protocol gets what was said, as from Twisted.
            link.lost(Failure(reason) if isinstance(reason, Exception) else connectionDone)
        try:
            lost(reason)
        finally:
            link.ended()
    elif link.ending:
        # From inside of the call above: the protocol passes on what it was told.
        lost(reason)


HEARD: dict[str, Callable[..., object]] = {
    "dataReceived": hearData,
    "handshakeCompleted": hearHandshake,
    "connectionLost": hearEnd,
}
"""How a link hears of each of the methods that a transport calls."""


def _hearMade(link: Link, made: Callable[[], object]) -> None:
    """
    Establish a link over a transport that calls C{connectionMade} and not C{makeConnection}.
    """
    protocol = link.protocol
    protocol._HeartbeatMixin__connect(protocol.transport, lambda transport: made())


_HEARD_BY_MIXIN = {**HEARD, "connectionMade": _hearMade}
