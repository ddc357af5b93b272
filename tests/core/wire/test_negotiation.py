# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Tests for L{twisted_heartbeat.core.wire.negotiation}; see
C{tests/conformance/test_wire_vectors.py} for examples.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from twisted_heartbeat.core.wire.frames import Hello, encode
from twisted_heartbeat.core.wire.negotiation import Negotiated
from twisted_heartbeat.core.wire.reader import FrameReader

SECONDS = st.floats(0, 1e6)
HELLOS = st.builds(Hello, st.just("one"), SECONDS, SECONDS)


def carried(hello: Hello) -> Hello:
    """
    As it comes out at the other end.
    """
    [arrived] = FrameReader().receive(encode(hello))
    assert isinstance(arrived, Hello)
    return arrived


@given(HELLOS, HELLOS)
def test_sameOnBothEnds(one: Hello, other: Hello) -> None:
    """
    Each end, from what it has said and what it has heard, comes to the same, however its numbers
    had to be rounded for the way.
    """
    here = Negotiated.of(one.rounded, carried(other))
    there = Negotiated.of(other.rounded, carried(one))
    assert (here.outgoing, here.incoming) == (there.incoming, there.outgoing)


@given(HELLOS, HELLOS)
def test_nobodyIsWatchedInVain(one: Hello, other: Hello) -> None:
    """
    Whoever watches hears in time, because the other one speaks or because it is pinged; whoever
    does not watch has nothing to do.
    """
    direction = Negotiated.of(one, other).incoming
    assert direction.within == one.needs
    assert direction.pinged == (one.needs > 0 and not 0 < other.offers <= one.needs)
    assert (
        not direction.unsolicitedInterval
        or direction.unsolicitedInterval == other.offers <= one.needs
    )
