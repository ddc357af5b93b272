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


def warnOfHello(link: Link, data: bytes) -> None:
    """
    Log the likeliest mistake with C{heartbeat:}: the peer begins with a hello, and no protocol here
    understands that.
    """
    if wire.beginsWithHello(data) and link.session is None:
        _log.warn(
            "{link}: the peer speaks the protocol of heartbeat: endpoints, and this end does not: "
            "does this end lack the heartbeat: prefix?",
            link=link,
        )


def deliverData(link: Link, deliver: Callable[[bytes], object], data: bytes) -> object:
    """
    Tell a link that bytes came, and deliver them.

    @param data: text, in a unit test of a protocol that takes text as well.
    @return: what the protocol returns.  C{LineReceiver} returns the error of a line, for example.
    """
    if not link.hasReceivedData and isinstance(data, bytes):
        warnOfHello(link, data)
    link.dataReceived()
    try:
        result = deliver(data)
        if not link.hasReceivedData:
            link.firstDataReceived()
        if not link.observesReads:
            link.dataDelivered()
        return result
    finally:
        link.dataHandled()


def deliverHandshake(link: Link, completed: Callable[[], object]) -> None:
    """
    Tell a link that its TLS handshake is complete, and then the protocol.
    """
    link.handshakeCompleted()
    completed()


def deliverEnd(link: Link, lost: Callable[[Any], object], reason: object = connectionDone) -> None:
    """
    Tell a link that its connection is lost, and then the protocol.  Both hear of it once: a
    transport that was told to abort and did not let go may still do so after the link has ended.
    """
    if link.state != "gone":
        if isinstance(reason, Failure):
            reason = link.connectionLost(reason)
        else:
            # autobahn's protocols that carry others say None, and tests often an exception. The
            # protocol gets what was said, as from Twisted.
            link.connectionLost(
                Failure(reason) if isinstance(reason, Exception) else connectionDone
            )
        try:
            lost(reason)
        finally:
            link.protocolNotified()
    elif link.isNotifyingProtocol:
        # From inside of the call above: the protocol passes on what it was told.
        lost(reason)


DELIVERIES: dict[str, Callable[..., object]] = {
    "dataReceived": deliverData,
    "handshakeCompleted": deliverHandshake,
    "connectionLost": deliverEnd,
}
"""How a link hears of each of the methods that a transport calls."""


def _hearMade(link: Link, made: Callable[[], object]) -> None:
    """
    Establish a link over a transport that calls C{connectionMade} and not C{makeConnection}.
    """
    protocol = link.protocol
    protocol._heartbeatConnect(protocol.transport, lambda transport: made())


MIXIN_DELIVERIES = {**DELIVERIES, "connectionMade": _hearMade}
