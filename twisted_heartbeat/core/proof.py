# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{isProven}: whether a link that has ended had proven its peer.

The count of failures starts again only after a proven link.  A completed connection proves nothing,
because a balancer or a port forwarder may have accepted it in place of the server.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .causes import PeerClosed, ProtocolViolation

if TYPE_CHECKING:
    from .causes import Cause


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkFacts:
    """
    What is known of a link that has ended.

    @ivar cause: why the link ended.
    @ivar upFor: seconds from the establishment of the link until its cause was known.
    @ivar prepared: whether the link was prepared, so that it was in use.
    @ivar builtIn: whether the link spoke the built-in protocol, itself or through a tunnel.
    @ivar heard: whether the peer's hello was read; in other protocols, whether the first call of
        C{dataReceived} returned without raising.
    @ivar hookFailed: whether a C{connected} hook failed.
    @ivar raised: whether the protocol raised, and that ended the link.
    """

    cause: Cause
    upFor: float
    prepared: bool
    builtIn: bool
    heard: bool
    hookFailed: bool = False
    raised: bool = False


def isProven(facts: LinkFacts, stableAfter: float) -> bool:
    """
    Whether a link was proven, so that the count of failures starts again.

    In the built-in protocol the peer's hello must have been read.  A goodbye, a violation or an
    exception within C{stableAfter} revokes that; a refusal revokes it at any time.

    In other protocols the first C{dataReceived} must have returned, or the link must have stayed up
    for C{stableAfter}.

    @param stableAfter: seconds.
    """
    cause = facts.cause
    if not facts.prepared or facts.hookFailed or cause.rejectedByPeer:
        return False
    isStable = facts.upFor >= stableAfter
    if not facts.builtIn:
        return facts.heard or isStable
    saidGoodbye = isinstance(cause, PeerClosed) and cause.goodbyeCode is not None
    revokes = saidGoodbye or facts.raised or isinstance(cause, ProtocolViolation)
    return facts.heard and (isStable or not revokes)
