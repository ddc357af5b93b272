# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The frames of the built-in protocol, and their encoding.

A frame is a header of twelve bytes in network byte order, and a body::

    version  u8    1
    type     u8    see L{FrameType}; the highest bit marks a type that a reader may skip
    hold     u16   of a ping, tenths of a second for which its sender may stay silent from here
    token    u32   of a ping, what the pong has to repeat; of a goodbye, its L{GoodbyeCode}
    length   u32   bytes of the body

A heartbeat is a bare header: C{length} is 0, and the pong repeats the ping's token.  The full
description is in C{docs/wire-protocol.md}.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from math import ceil, inf

from ..causes import GoodbyeCode

VERSION = 1

_HEADER = struct.Struct("!BBHII")
_pack, _unpackFrom = _HEADER.pack, _HEADER.unpack_from
HEADER_SIZE = _HEADER.size

_OPTIONAL = 0x80
_HELLO = struct.Struct("!II")
_GOODBYE = struct.Struct("!II")
_U16 = 0xFFFF
_U32 = 0xFFFFFFFF

MAX_NAME = 255
"""Bytes of a name in UTF-8."""

MAX_REASON = 1024
"""Bytes of a reason in UTF-8."""

MAX_HOLD = _U16 / 10
"""Seconds."""

MAX_MESSAGE = 1024 * 1024
"""Bytes that the body of a message may have by default."""


class FrameType(IntEnum):
    """
    The type of a frame, as in its header.
    """

    HELLO = 1
    PING = 2
    PONG = 3
    DATA = 4
    GOODBYE = 5
    END = 6


_KNOWN = frozenset(FrameType)
# Plain numbers for the types that are read most: a look-up in the enum takes longer than the rest
# of the decoding.
_PING, _PONG, _DATA = int(FrameType.PING), int(FrameType.PONG), int(FrameType.DATA)


@dataclass(frozen=True, slots=True)
class Hello:
    """
    The first frame of each end: its name, and how often it needs to receive and offers to send.

    @ivar name: the sender's name.
    @ivar needs: seconds within which the sender has to receive something; 0 for never.
    @ivar offers: seconds within which the sender will send something unsolicited; 0 for never.
    """

    name: str = ""
    needs: float = 0.0
    offers: float = 0.0

    @property
    def rounded(self) -> Hello:
        """
        This hello with its times rounded to milliseconds, as the receiver decodes it.  Both ends
        must negotiate from identical values.

        @raise ValueError: if a time does not fit its place on the wire.
        """
        needs = _milliseconds("needs", self.needs) / 1000
        return Hello(self.name, needs, _milliseconds("offers", self.offers) / 1000)


@dataclass(frozen=True, slots=True)
class Ping:
    """
    A request that the receiver answers with a L{Pong}.

    @ivar token: what the pong has to repeat.
    @ivar hold: seconds for which the sender may stay silent from here; 0 if the ping does not say.
    """

    token: int
    hold: float = 0.0


@dataclass(frozen=True, slots=True)
class Pong:
    """
    The answer to a ping.

    @ivar token: the ping's.
    """

    token: int


@dataclass(frozen=True, slots=True)
class Data:
    """
    A message of the application.
    """

    message: bytes


@dataclass(frozen=True, slots=True)
class Goodbye:
    """
    The last frame before a close.

    @ivar reason: why the sender closes, in words.
    @ivar retryAfter: seconds after which a new link is welcome.
    @ivar spread: seconds, counted from then, over which all peers with this goodbye should spread.
    @ivar code: why the sender closes, for a program.
    """

    reason: str = ""
    retryAfter: float = 0.0
    spread: float = 0.0
    code: GoodbyeCode = GoodbyeCode.CLOSING


@dataclass(frozen=True, slots=True)
class End:
    """
    The sender's last data: it sends heartbeats after this, and still receives.
    """


Frame = Hello | Ping | Pong | Data | Goodbye | End


def beginsWithHello(data: bytes) -> bool:
    """
    Whether bytes of an unknown protocol begin with a HELLO of this one.
    """
    if len(data) < HEADER_SIZE + _HELLO.size:
        return False
    version, kind, hold, token, length = _unpackFrom(data)
    isHello = version == VERSION and kind == FrameType.HELLO and not hold and not token
    return bool(isHello and _HELLO.size <= length <= _HELLO.size + MAX_NAME)


def encode(frame: Frame) -> bytes:
    """
    Return the bytes of a frame.

    @raise ValueError: if a field does not fit its place on the wire.
    """
    if isinstance(frame, Data):
        return _pack(VERSION, FrameType.DATA, 0, 0, len(frame.message)) + frame.message
    if isinstance(frame, Ping):
        return encodePing(frame.token, frame.hold)
    if isinstance(frame, Pong):
        return encodePong(frame.token)
    if isinstance(frame, Hello):
        body = _HELLO.pack(
            _milliseconds("needs", frame.needs), _milliseconds("offers", frame.offers)
        )
        return _withBody(FrameType.HELLO, body + _text("name", frame.name, MAX_NAME))
    if isinstance(frame, End):
        return _withBody(FrameType.END, b"")
    body = _GOODBYE.pack(
        _milliseconds("retryAfter", frame.retryAfter), _milliseconds("spread", frame.spread)
    )
    text = _text("reason", frame.reason, MAX_REASON)
    return _withBody(FrameType.GOODBYE, body + text, token=frame.code)


def encodePing(token: int, hold: float = 0.0) -> bytes:
    """
    Return the bytes of a ping.

    @param hold: seconds; more than L{MAX_HOLD} is sent as L{MAX_HOLD}.
    @raise ValueError: if a value does not fit its place on the wire.
    """
    return _pack(VERSION, _PING, toTenths(_seconds("hold", hold)), _token(token), 0)


def encodePong(token: int) -> bytes:
    """
    Return the bytes of a pong.

    @raise ValueError: if the token does not fit its place on the wire.
    """
    return packPong(_token(token))


def toTenths(hold: float) -> int:
    """
    Convert a hold from seconds to a ping's tenths.  It is rounded up, so that the peer never
    expects the sender too soon; only what does not fit is cut.
    """
    return min(_U16, ceil(hold * 10))


def packPong(token: int) -> bytes:
    """
    Return the bytes of a pong, without checks, because its token was read from a ping.
    """
    return _pack(VERSION, _PONG, 0, token, 0)


def encodeDataHeader(length: int) -> bytes:
    """
    Return the header of a data frame, for a caller that writes the body without a copy.

    @param length: the body's bytes.
    """
    return _pack(VERSION, _DATA, 0, 0, length)


def _token(token: int) -> int:
    if not 0 <= token <= _U32:
        raise ValueError(f"token is {token!r}: it must be from 0 to {_U32}")
    return token


def _seconds(field: str, seconds: float) -> float:
    if not 0 <= seconds < inf:
        raise ValueError(f"{field} is {seconds!r}: it must be 0 seconds or more, and finite")
    return seconds


def _withBody(kind: FrameType, body: bytes, token: int = 0) -> bytes:
    return _pack(VERSION, kind, 0, token, len(body)) + body


def _milliseconds(field: str, seconds: float) -> int:
    return min(_U32, round(_seconds(field, seconds) * 1000))


def _text(field: str, text: str, most: int) -> bytes:
    encoded = text.encode("utf-8")
    if len(encoded) > most:
        raise ValueError(f"{field} is {len(encoded)} bytes of UTF-8: at most {most} are allowed")
    return encoded
