# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The calls of a transport to a protocol, of which its link is told first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from ..core import wire
from ..link.state import LinkState
from ..logs import SafeLogger

if TYPE_CHECKING:
    from ..link.link import Link
    from .mixedlink import MixedInLink

_log = SafeLogger()


def warnOfHello(link: Link, data: bytes) -> None:
    """
    Log the likeliest mistake with C{heartbeat:}: the peer begins with a hello, and the protocol
    here does not understand it.
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

    @param data: bytes; or text, in a unit test of a protocol that takes text as well.
    @return: the protocol's result.  C{LineReceiver} returns the error of a line, for example.
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
    Tell a link that its connection is lost, and then the protocol.  Both are told once.  A
    transport that did not end when it was told to abort may still do so after the link has ended.
    """
    teardown = link.teardown
    if link.state is not LinkState.GONE:
        if isinstance(reason, Failure):
            reason = teardown.connectionLost(reason)
        else:
            # autobahn's protocols that carry others pass None, and tests often an exception. The
            # protocol gets the same object, as from Twisted.
            teardown.connectionLost(
                Failure(reason) if isinstance(reason, Exception) else connectionDone
            )
        try:
            lost(reason)
        finally:
            teardown.protocolNotified()
    elif teardown.isNotifyingProtocol:
        # From inside the call above: the protocol passes the call on.
        lost(reason)


DELIVERIES: dict[str, Callable[..., object]] = {
    "dataReceived": deliverData,
    "handshakeCompleted": deliverHandshake,
    "connectionLost": deliverEnd,
}
"""For each method that a transport calls: what tells the link, and calls the method."""


def _deliverMade(link: Link, made: Callable[[], object]) -> None:
    """
    Establish a link over a transport that calls C{connectionMade} and not C{makeConnection}.
    """
    protocol = link.protocol
    protocol._heartbeatConnect(protocol.transport, lambda transport: made())


def _deliverMixedEnd(
    link: MixedInLink, lost: Callable[[Any], object], reason: object = connectionDone
) -> None:
    link.connectionLost(reason, lost)


MIXIN_DELIVERIES = {
    **DELIVERIES,
    "connectionMade": _deliverMade,
    "connectionLost": _deliverMixedEnd,
}
"""The same for a mixed-in protocol, which may be given no C{makeConnection}."""
