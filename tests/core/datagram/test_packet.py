# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The layout of a datagram, and its authentication.
"""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_heartbeat.core.datagram.packet import (
    MAC_SIZE,
    MAX_NAME,
    MAX_PAYLOAD,
    MAX_SIZE,
    MIN_SIZE,
    Key,
    Malformed,
    Packet,
    Type,
    decode,
    encode,
)

from ...support.datagrams import SECRET, Sensor


def number(bits: int) -> st.SearchStrategy[int]:
    """
    Numbers that fit.
    """
    return st.integers(0, 2**bits - 1)


heartbeats = st.builds(
    Packet,
    type=st.sampled_from([Type.HEARTBEAT, Type.ANSWER]),
    flags=number(8),
    keyId=number(8),
    session=number(64),
    sequence=number(32),
    sent=number(32),
    interval=number(32),
    bound=number(32),
    cookie=number(64),
    name=st.binary(min_size=1, max_size=MAX_NAME),
    payload=st.binary(max_size=MAX_PAYLOAD),
)


@given(heartbeats)
def test_decodesWhatWasEncoded(packet: Packet) -> None:
    """
    Every packet comes back as it was, and its MAC is accepted by its key alone.
    """
    data = encode(packet, Key(SECRET))
    assert decode(data) == packet
    assert Key(SECRET).accepts(data)
    assert not Key(b"another key of a forger").accepts(data)


@given(st.binary(max_size=200), st.binary(min_size=16, max_size=200))
def test_macIsHmac(data: bytes, secret: bytes) -> None:
    """
    The MAC is HMAC-SHA-256 (RFC 2104), truncated to 128 bits (RFC 4868), for keys of any length.
    """
    expected = hmac.new(secret, data, hashlib.sha256).digest()[:MAC_SIZE]
    assert Key(secret).mac(data) == expected


def test_sizes() -> None:
    """
    A heartbeat without payload is well under 200 bytes, and nothing is longer than the limit.
    """
    assert len(Sensor("p").heartbeat(0.0)) == MIN_SIZE == 54
    assert len(Sensor("x" * MAX_NAME).heartbeat(0.0)) == 181
    longest = Sensor("x" * MAX_NAME).heartbeat(0.0, payload=bytes(MAX_PAYLOAD))
    assert len(longest) == MAX_SIZE == 693


@pytest.mark.parametrize(
    ("name", "payload"), [(b"", b""), (b"x" * 129, b""), (b"x", bytes(MAX_PAYLOAD + 1))]
)
def test_tooLongIsNotEncoded(name: bytes, payload: bytes) -> None:
    """
    What no monitor would accept is not made.
    """
    packet = Sensor().packet(0.0, name=name, payload=payload)
    with pytest.raises(ValueError, match="bytes"):
        encode(packet, Key(SECRET))


@pytest.mark.parametrize("kind", [Type.GOODBYE, Type.CHALLENGE, Type.ACKNOWLEDGEMENT])
def test_payloadIsForHeartbeatsOnly(kind: Type) -> None:
    """
    No other type carries a payload.
    """
    data = encode(Sensor().packet(0.0, kind, payload=b"1"), Key(SECRET))
    with pytest.raises(Malformed):
        decode(data)


@given(st.binary(max_size=MAX_SIZE + 10))
def test_anyBytes(data: bytes) -> None:
    """
    Any bytes are a packet or malformed; what is a packet encodes to the same bytes, but for the
    MAC.
    """
    try:
        packet = decode(data)
    except Malformed:
        return
    assert encode(packet, Key(SECRET))[:-MAC_SIZE] == data[:-MAC_SIZE]


def test_shortKey() -> None:
    """
    A key that is weaker than the MAC is refused.
    """
    with pytest.raises(ValueError, match="15 bytes"):
        Key(bytes(15))
