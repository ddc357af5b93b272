# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Bytes <-> frames of the built-in protocol.

A frame is a header of twelve bytes in network byte order, and a body::

    version  u8    1
    type     u8    see L{FrameType}; the highest bit marks a type that a reader may skip
    hold     u16   of a ping, tenths of a second for which its sender may stay silent from here
    token    u32   what a ping asks to have back; of a goodbye, its L{GoodbyeCode}
    length   u32   bytes of the body

A heartbeat is a bare header: C{length} is 0, and the pong repeats the ping's token.  The whole of
it is in C{docs/wire-protocol.md}.

No reactor here: L{StreamReader} takes any slicing of the input to the same frames.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from math import ceil, inf

from ..causes import GoodbyeCode as GoodbyeCode

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
"""Bytes of a message, unless the user says otherwise."""


class FrameType(IntEnum):
    """
    What a frame is.
    """

    HELLO = 1
    PING = 2
    PONG = 3
    DATA = 4
    GOODBYE = 5
    END = 6


_KNOWN = frozenset(FrameType)
# As plain numbers, for what is read most: to look a member up takes longer than all the rest.
_PING, _PONG, _DATA = int(FrameType.PING), int(FrameType.PONG), int(FrameType.DATA)


@dataclass(frozen=True, slots=True)
class Hello:
    """
    Who speaks, and what is wanted.

    @ivar name: the peer's name.
    @ivar needs: seconds within which it has to hear something; 0 for never.
    @ivar offers: seconds within which it will say something by itself; 0 for never.
    """

    name: str = ""
    needs: float = 0.0
    offers: float = 0.0

    @property
    def rounded(self) -> Hello:
        """
        As whoever hears it has it, to the millisecond.

        @raise ValueError: as L{encode}.
        """
        needs = _milliseconds("needs", self.needs) / 1000
        return Hello(self.name, needs, _milliseconds("offers", self.offers) / 1000)


@dataclass(frozen=True, slots=True)
class Ping:
    """
    Speak!

    @ivar token: what the pong has to repeat.
    @ivar hold: seconds for which the sender may stay silent from here; 0 if it does not say.
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
    A message of the user's.
    """

    message: bytes


@dataclass(frozen=True, slots=True)
class Goodbye:
    """
    The last frame before a close.

    @ivar reason: why, in words.
    @ivar retryAfter: seconds after which a new link is welcome.
    @ivar spread: seconds, counted from then, over which all who are told should spread.
    @ivar code: why, for a program.
    """

    reason: str = ""
    retryAfter: float = 0.0
    spread: float = 0.0
    code: GoodbyeCode = GoodbyeCode.CLOSING


@dataclass(frozen=True, slots=True)
class End:
    """
    No more data will come from the sender, who still listens, and whose heart still beats.
    """


Frame = Hello | Ping | Pong | Data | Goodbye | End


def beginsWithHello(data: bytes) -> bool:
    """
    Whether bytes of which nothing is known begin as this protocol does, with a HELLO.
    """
    if len(data) < HEADER_SIZE + _HELLO.size:
        return False
    version, kind, hold, token, length = _unpackFrom(data)
    isHello = version == VERSION and kind == FrameType.HELLO and not hold and not token
    return bool(isHello and _HELLO.size <= length <= _HELLO.size + MAX_NAME)


def encode(frame: Frame) -> bytes:
    """
    The bytes of a frame.

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
    The bytes of a ping.

    @param hold: seconds; more than L{MAX_HOLD} is sent as that.
    @raise ValueError: if a value does not fit its place on the wire.
    """
    return packPing(_token(token), toTenths(_seconds("hold", hold)))


def encodePong(token: int) -> bytes:
    """
    The bytes of a pong.

    @raise ValueError: if the token does not fit its place on the wire.
    """
    return packPong(_token(token))


def toTenths(hold: float) -> int:
    """
    A hold in seconds as a ping has it: never shorter, but for what does not fit.
    """
    return min(_U16, ceil(hold * 10))


def packPing(token: int, tenths: int) -> bytes:
    """
    The bytes of a ping, unchecked: for whoever sends many.

    @param token: from 0 to 2**32 - 1.
    @param tenths: see L{toTenths}.
    """
    return _pack(VERSION, _PING, tenths, token, 0)


def packPong(token: int) -> bytes:
    """
    The bytes of a pong, unchecked: for a token that was itself read.
    """
    return _pack(VERSION, _PONG, 0, token, 0)


def encodeDataHeader(length: int) -> bytes:
    """
    What goes before the body of a data frame, for those who would not copy the body.

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
