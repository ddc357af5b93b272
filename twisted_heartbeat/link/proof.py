# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What is known of a link from which L{isProven<twisted_heartbeat.core.proof.isProven>} decides.

A link proves its peer by the built-in protocol, if any protocol of its connection speaks that.  The
speaker may be the link itself, the link of a tunnel below it, or the link of a protocol inside of
another package's wrapper.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from ..core.proof import LinkFacts
from ..transport.layers import MAX_WRAPPERS
from .state import LinkState

if TYPE_CHECKING:
    from .link import Link


def _asLink(found: object) -> Link | None:
    # Not by isinstance(found, Link), because that class's module imports this one.
    return cast("Link", found) if isinstance(getattr(found, "state", None), LinkState) else None


def speakerOf(link: Link) -> Link | None:
    """
    Return the link of a link's connection that speaks the built-in protocol; L{None} if no protocol
    of the connection speaks it.
    """
    carrier = getattr(link.transport, "carrierLink", None)
    if carrier is not None and _asLink(carrier) is not None:
        # A tunnel's, whose peer's hello came before the carried protocol was built.
        return _asLink(carrier)
    if link.session is not None:
        return link
    kept = link.teardown.speaker if link.state is LinkState.GONE else None
    if kept is not None:
        return kept
    layer: object = link.protocol
    for _ in range(MAX_WRAPPERS):
        # The attribute's name in twisted.protocols.policies.ProtocolWrapper and in TLS.
        layer = getattr(layer, "__dict__", {}).get("wrappedProtocol")
        found = _asLink(getattr(layer, "__dict__", {}).get("link"))
        if found is not None and found.session is not None:
            return found
    return None


def isProofHeard(link: Link) -> bool:
    """
    Whether the peer has sent what proves a link: its hello in the built-in protocol, and in other
    protocols any bytes that the protocol took without raising.
    """
    speaker = speakerOf(link)
    if speaker is None or speaker.session is None:
        return link.hasReceivedData
    return speaker.session.negotiated is not None


def factsOf(link: Link, *, prepared: bool) -> LinkFacts:
    """
    Return the facts about a link that has ended.

    @param prepared: whether C{prepareConnection} has succeeded.
    """
    ending, speaker = link.teardown, speakerOf(link)
    assert ending.cause is not None and ending.decidedAt is not None
    return LinkFacts(
        cause=ending.cause,
        upFor=ending.decidedAt - link.establishedAt,
        prepared=prepared,
        builtIn=speaker is not None,
        heard=isProofHeard(link),
        hookFailed=ending.hookFailed,
        # A tunnel passes the exception of the protocol that it carries on as its own cause.
        raised=ending.raised or (speaker is not None and speaker.teardown.raised),
    )
