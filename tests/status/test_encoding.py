# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Peers and changes as JSON: the template that encodes a storm says what the fields say.
"""

from __future__ import annotations

import json
from math import inf, nan

from hypothesis import given
from hypothesis import strategies as st

from twisted_heartbeat import Change, PeerState
from twisted_heartbeat.status.encoding import changeFields, encodeChanges

hostile = ['"', "\\", "\u2028", "\ud800", "</script>", "é\x00"]
texts = st.text(max_size=20) | st.sampled_from(hostile)
numbers = st.floats() | st.sampled_from([0.0, -1.5, 1e300, nan, inf, -inf])
changes = st.builds(
    Change,
    number=st.integers(1, 2**53),
    at=numbers,
    name=texts,
    state=st.sampled_from(PeerState),
    previous=st.sampled_from(PeerState),
    carrier=texts,
    source=texts,
    generation=st.integers(0, 2**53),
    address=texts,
    cause=st.none() | texts,
    reason=texts,
    bound=st.none() | numbers,
)


@given(st.lists(changes, max_size=60))
def test_changesAreTheirFields(told: list[Change]) -> None:
    """
    Few or many changes: each is encoded as its fields, in order, in plain ASCII on one line.
    """
    data = encodeChanges(told, {})
    assert data.isascii() and b"\n" not in data
    assert json.loads(data)["changes"] == [changeFields(each) for each in told]
