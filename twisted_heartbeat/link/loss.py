# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The loss of a link's connection: what its transport and its connection say of the cause.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.error import ConnectionClosed, ConnectionDone
from twisted.python.failure import Failure

from ..core.diagnosis import causeOfLoss, isTlsError
from ..timing.wheel import reactorStopped
from ..transport.layers import isClosingLocally
from ..transport.tls import certificateRefused, usesTLS
from .state import LinkState

if TYPE_CHECKING:
    from ..core.causes import Cause
    from .link import Link


def causeOfLostLink(link: Link, error: BaseException | None) -> Cause:
    """
    Return the cause of a link whose connection is lost.

    @param error: the reason that the transport gives.
    """
    connection, transport = link.peerWatch.connection, link.transport
    rejected = "" if connection is None else connection.certificateError
    return causeOfLoss(
        error,
        number=None if connection is None else connection.lastErrno,
        finished=connection is not None and connection.finReceived,
        closedHere=isClosingLocally(transport),
        handshaking=link.state is LinkState.HANDSHAKING and usesTLS(transport),
        reactorStopped=reactorStopped(link.config.clock),
        refused=certificateRefused(transport) or rejected,
    )


def failureToTell(cause: Cause, reason: Failure, *, decided: bool) -> Failure:
    """
    Return the failure that the protocol's C{connectionLost} gets.

    @param reason: the transport's.
    @param decided: whether this side had found the cause before the transport lost the connection.
    """
    told = reason.value
    if isinstance(cause, ConnectionDone) and not isinstance(told, ConnectionDone):
        # A stream that may have been cut off must not look complete to the protocol.
        return reason
    if not isinstance(told, ConnectionClosed):
        if decided and told is not None and isTlsError(told):
            # What waited to be sent at a verdict is written after TLS was shut down.
            return Failure(cause)
        # TLS's own error, or the protocol's exception: no cause subclasses these.
        return reason
    if not (decided or isinstance(cause, type(told))):
        # The protocol has closed or aborted, and would not know its own end by a reset that the
        # kernel had received before.
        return reason
    return Failure(cause)
