# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Bytes <-> frames of the built-in protocol, as C{docs/wire-protocol.md} describes it.

L{frames} has the frame types and their encoding, L{reader} makes frames of any slicing of the
input, L{pings} has the heartbeats that many links share, and L{negotiation} computes from two
hellos which end pings.
"""

from .frames import (
    HEADER_SIZE,
    MAX_HOLD,
    MAX_MESSAGE,
    MAX_NAME,
    MAX_REASON,
    VERSION,
    Data,
    End,
    Frame,
    FrameType,
    Goodbye,
    Hello,
    Ping,
    Pong,
    beginsWithHello,
    encode,
    encodeDataHeader,
    encodePing,
    encodePong,
    packPong,
    toTenths,
)
from .pings import SharedPing
from .reader import FrameReader, StreamingReader, StreamReader

__all__ = [
    "HEADER_SIZE",
    "MAX_HOLD",
    "MAX_MESSAGE",
    "MAX_NAME",
    "MAX_REASON",
    "VERSION",
    "Data",
    "End",
    "Frame",
    "FrameReader",
    "FrameType",
    "Goodbye",
    "Hello",
    "Ping",
    "Pong",
    "SharedPing",
    "StreamReader",
    "StreamingReader",
    "beginsWithHello",
    "encode",
    "encodeDataHeader",
    "encodePing",
    "encodePong",
    "packPong",
    "toTenths",
]
