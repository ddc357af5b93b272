# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Bytes <-> frames of the built-in protocol, as C{docs/wire-protocol.md} describes it.

L{frames} has the frame types and their encoding, L{reader} takes any slicing of the input to the
same frames, L{pings} has the heartbeats that many links share, and L{negotiation} is what two
hellos come to.
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
    barePing,
    barePong,
    beginsWithHello,
    encode,
    encodeDataHeader,
    encodePing,
    encodePong,
    tenthsOf,
)
from .pings import Beats
from .reader import Pieces, Reader, Stream

__all__ = [
    "HEADER_SIZE",
    "MAX_HOLD",
    "MAX_MESSAGE",
    "MAX_NAME",
    "MAX_REASON",
    "VERSION",
    "Beats",
    "Data",
    "End",
    "Frame",
    "FrameType",
    "Goodbye",
    "Hello",
    "Pieces",
    "Ping",
    "Pong",
    "Reader",
    "Stream",
    "barePing",
    "barePong",
    "beginsWithHello",
    "encode",
    "encodeDataHeader",
    "encodePing",
    "encodePong",
    "tenthsOf",
]
