# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
One datagram: L{Packet}, L{encode} and L{decode}; and L{Key}, which authenticates it.

All types share one layout, in network byte order::

    version   u8    1
    type      u8    of HEARTBEAT, ANSWER, GOODBYE (senders), CHALLENGE, ACKNOWLEDGEMENT (monitors)
    flags     u8    of a heartbeat, whether it asks for an acknowledgement; of a goodbye, its code
    key id    u8    which of the sender's keys; 0 without a key
    session   u64   drawn anew when the sender starts
    sequence  u32   grows with each heartbeat of a session
    sent      u32   the sender's own clock, in milliseconds, from any beginning
    interval  u32   milliseconds until the next heartbeat, at the latest
    bound     u32   milliseconds: the sender's bound; of an acknowledgement, the one that holds
    cookie    u64   of a challenge and of its answer; otherwise 0
    length    u8    bytes of the name
    name            1 to 128 bytes of UTF-8
    payload         0 to 512 bytes, of a heartbeat or an answer only
    MAC             16 bytes: HMAC-SHA-256 over all that precedes, truncated (RFC 4868)

The codes of a goodbye are those of L{GoodbyeCode<twisted_heartbeat.core.causes.GoodbyeCode>}.

A monitor's datagram repeats the header and the name of the datagram that provoked it, and has no
payload.  So it is never larger.  The types of the two directions differ, and the type is under the
MAC: a reflected datagram is of the wrong type.
"""

from __future__ import annotations

from enum import IntEnum
from hashlib import sha256
from hmac import compare_digest
from struct import Struct
from typing import NamedTuple

VERSION = 1

HEADER = Struct("!BBBBQIIIIQB")
"""All fields before the name."""

MAC_SIZE = 16
MAX_NAME = 128
MAX_PAYLOAD = 512
MIN_SIZE = HEADER.size + 1 + MAC_SIZE
MAX_SIZE = HEADER.size + MAX_NAME + MAX_PAYLOAD + MAC_SIZE

MAX_MILLISECONDS = 2**32 - 1

_INNER_PAD = bytes(byte ^ 0x36 for byte in range(256))
_OUTER_PAD = bytes(byte ^ 0x5C for byte in range(256))

MIN_KEY = 16
"""Bytes.  A shorter key is weaker than the truncated MAC."""

ACKNOWLEDGE = 1
"""The flag of a heartbeat that asks for an acknowledgement."""


class Type(IntEnum):
    """
    The types of datagrams.  The highest bit says that a monitor has sent it.
    """

    HEARTBEAT = 1
    ANSWER = 2
    GOODBYE = 3
    CHALLENGE = 129
    ACKNOWLEDGEMENT = 130


_TYPES = frozenset(map(int, Type))


class Malformed(ValueError):
    """
    The bytes are no datagram of this protocol.
    """


class Packet(NamedTuple):
    """
    The fields of one datagram, as the module describes them.  Times are whole milliseconds.
    """

    type: int
    flags: int
    keyId: int
    session: int
    sequence: int
    sent: int
    interval: int
    bound: int
    cookie: int
    name: bytes
    payload: bytes = b""

    def reply(self, kind: Type, *, bound: int | None = None, cookie: int = 0) -> Packet:
        """
        Return the datagram with which a monitor replies to this one.

        @param bound: the bound that holds; L{None} to repeat the sender's.
        """
        keyId, session, sequence, sent, interval, asked = self[2:8]
        applied = asked if bound is None else bound
        return Packet(kind, 0, keyId, session, sequence, sent, interval, applied, cookie, self.name)


class Key:
    """
    Computes and checks the MACs of one key.

    HMAC hashes the key's two pads first (RFC 2104).  Both are hashed once here, because together
    they take longer than a whole heartbeat: 1.7 us for a MAC, 4.6 us with C{hmac.digest}.
    """

    __slots__ = ("_inner", "_outer", "secret")

    def __init__(self, secret: bytes) -> None:
        """
        @param secret: L{MIN_KEY} bytes or more; none for datagrams without a key, whose MAC is a
            mere checksum.
        @raise ValueError: if the secret is too short.
        """
        if 0 < len(secret) < MIN_KEY:
            raise ValueError(f"a key has {len(secret)} bytes: it must have {MIN_KEY} or more")
        self.secret = secret
        block = sha256().block_size
        padded = (secret if len(secret) <= block else sha256(secret).digest()).ljust(block, b"\0")
        self._inner = sha256(padded.translate(_INNER_PAD))
        self._outer = sha256(padded.translate(_OUTER_PAD))

    def mac(self, data: bytes) -> bytes:
        """
        Return the MAC of these bytes.
        """
        inner = self._inner.copy()
        inner.update(data)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.digest()[:MAC_SIZE]

    def accepts(self, datagram: bytes) -> bool:
        """
        Whether a datagram ends with the MAC of the bytes before it.
        """
        return compare_digest(self.mac(datagram[:-MAC_SIZE]), datagram[-MAC_SIZE:])


def isName(name: str) -> bool:
    """
    Whether a packet has room for a name.
    """
    return 1 <= len(name.encode()) <= MAX_NAME


def encode(packet: Packet, key: Key) -> bytes:
    """
    Return the bytes of a packet.

    @raise ValueError: if a field does not fit.
    """
    if not 1 <= len(packet.name) <= MAX_NAME:
        raise ValueError(f"the name has {len(packet.name)} bytes: it must have 1 to {MAX_NAME}")
    if len(packet.payload) > MAX_PAYLOAD:
        raise ValueError(f"the payload has {len(packet.payload)} bytes: at most {MAX_PAYLOAD}")
    header = HEADER.pack(VERSION, *packet[:9], len(packet.name))
    data = header + packet.name + packet.payload
    return data + key.mac(data)


def decode(datagram: bytes) -> Packet:
    """
    Return the fields of a datagram.  Its MAC is not checked: L{Key.accepts} does that.

    @raise Malformed: if the bytes are no datagram of this protocol.
    """
    size = len(datagram)
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise Malformed(f"{size} bytes: it must have {MIN_SIZE} to {MAX_SIZE}")
    fields = HEADER.unpack_from(datagram)
    kind, length = fields[1], fields[10]
    if fields[0] != VERSION or kind not in _TYPES:
        raise Malformed(f"version {fields[0]}, type {kind}")
    end = HEADER.size + length
    payload = size - MAC_SIZE - end
    allowed = MAX_PAYLOAD if kind in (Type.HEARTBEAT, Type.ANSWER) else 0
    if not 1 <= length <= MAX_NAME or not 0 <= payload <= allowed:
        raise Malformed(f"a name of {length} bytes, a payload of {payload}")
    name = datagram[HEADER.size : end]
    # Quicker than a call with eleven arguments (benchmarks/datagrams.py).
    return tuple.__new__(Packet, (*fields[1:10], name, datagram[end : size - MAC_SIZE]))
