# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Bytes <-> frames of the built-in protocol.

A frame is a header of twelve bytes in network byte order, and a body::

    version  u8    1
    type     u8    see L{FrameType}; the highest bit marks a type that a reader may skip
    hold     u16   tenths of a second for which the sender may stay silent after this frame
    token    u32   what a ping asks to have back; of a goodbye, its L{Parting}
    length   u32   bytes of the body

A heartbeat is a bare header: C{length} is 0, and the pong repeats the ping's token.

No reactor here: L{Reader} takes any slicing of the input to the same frames.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from math import ceil, inf

from .causes import ProtocolViolation

VERSION = 1

_HEADER = struct.Struct("!BBHII")
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


class Parting(IntEnum):
    """
    What a goodbye means to whoever hears it.  An unknown number is read as L{CLOSING}.
    """

    CLOSING = 0
    """Nothing is wrong; come back as usual."""

    REFUSED = 1
    """You may not be here: come back slowly, if at all."""

    NAME_IN_USE = 2
    """Another link has your name, and its peer is alive: come back slowly."""

    TOO_MANY_PINGS = 3
    """Ping half as often from now on."""


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
    @ivar comeBackAfter: seconds after which a new link is welcome.
    @ivar spread: seconds, counted from then, over which all who are told should spread.
    @ivar parting: why, for a program.
    """

    reason: str = ""
    comeBackAfter: float = 0.0
    spread: float = 0.0
    parting: Parting = Parting.CLOSING


@dataclass(frozen=True, slots=True)
class End:
    """
    No more data will come from the sender, who still listens, and whose heart still beats.
    """


Frame = Hello | Ping | Pong | Data | Goodbye | End


def encode(frame: Frame) -> bytes:
    """
    The bytes of a frame.

    @raise ValueError: if a field does not fit its place on the wire.
    """
    if isinstance(frame, Data):
        return _HEADER.pack(VERSION, FrameType.DATA, 0, 0, len(frame.message)) + frame.message
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
        _milliseconds("comeBackAfter", frame.comeBackAfter), _milliseconds("spread", frame.spread)
    )
    text = _text("reason", frame.reason, MAX_REASON)
    return _withBody(FrameType.GOODBYE, body + text, token=frame.parting)


def encodePing(token: int, hold: float = 0.0) -> bytes:
    """
    The bytes of a ping.

    @param hold: seconds; more than 6553.5 is sent as that.
    @raise ValueError: if a value does not fit its place on the wire.
    """
    tenths = min(_U16, ceil(_seconds("hold", hold) * 10))
    return _HEADER.pack(VERSION, FrameType.PING, tenths, _token(token), 0)


def encodePong(token: int) -> bytes:
    """
    The bytes of a pong.

    @raise ValueError: if the token does not fit its place on the wire.
    """
    return _HEADER.pack(VERSION, FrameType.PONG, 0, _token(token), 0)


def _token(token: int) -> int:
    if not 0 <= token <= _U32:
        raise ValueError(f"token is {token!r}: it must be from 0 to {_U32}")
    return token


def _seconds(field: str, seconds: float) -> float:
    if not 0 <= seconds < inf:
        raise ValueError(f"{field} is {seconds!r}: it must be 0 seconds or more, and finite")
    return seconds


def _withBody(kind: FrameType, body: bytes, token: int = 0) -> bytes:
    return _HEADER.pack(VERSION, kind, 0, token, len(body)) + body


def _milliseconds(field: str, seconds: float) -> int:
    return min(_U32, round(_seconds(field, seconds) * 1000))


def _text(field: str, text: str, most: int) -> bytes:
    encoded = text.encode("utf-8")
    if len(encoded) > most:
        raise ValueError(f"{field} is {len(encoded)} bytes of UTF-8: at most {most} are allowed")
    return encoded


class Reader:
    """
    Takes bytes as they come, gives frames.
    """

    __slots__ = ("_buffer", "_maxMessage", "_violation", "_wanted")

    def __init__(self, maxMessage: int = MAX_MESSAGE) -> None:
        """
        @param maxMessage: bytes that the body of a data frame, or of an unknown one, may have.
        """
        self._buffer = bytearray()
        self._wanted = HEADER_SIZE
        self._maxMessage = maxMessage
        self._violation: ProtocolViolation | None = None

    def receive(self, data: bytes) -> Iterator[Frame]:
        """
        The frames that C{data} completes.

        @raise ProtocolViolation: if what came can not be a frame; nothing can follow it.
        """
        if self._violation is not None:
            raise self._violation
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._wanted:
                # A large frame in small slices is not looked at, or copied, at each of them.
                return
            data = bytes(self._buffer)
            self._buffer.clear()
        start = 0
        try:
            while len(data) - start >= HEADER_SIZE:
                version, kind, hold, token, length = _HEADER.unpack_from(data, start)
                self._check(version, kind, length)
                end = start + HEADER_SIZE + length
                if len(data) < end:
                    break
                body = data[start + HEADER_SIZE : end]
                start = end
                frame = _frame(kind, hold, token, body)
                if frame is not None:
                    yield frame
            self._keep(data[start:])
        except ProtocolViolation as violation:
            self._violation = violation
            raise

    def _keep(self, rest: bytes) -> None:
        if rest:
            self._checkVersion(rest[0])
            self._buffer += rest
        self._wanted = HEADER_SIZE
        if len(rest) >= HEADER_SIZE:
            self._wanted += _HEADER.unpack_from(rest)[4]

    def _check(self, version: int, kind: int, length: int) -> None:
        self._checkVersion(version)
        if kind not in _KNOWN and not kind & _OPTIONAL:
            raise ProtocolViolation(f"frame type {kind} is unknown and not marked optional")
        most = _MOST.get(kind, self._maxMessage)
        if length > most:
            name = FrameType(kind).name if kind in _KNOWN else f"frame of type {kind}"
            raise ProtocolViolation(
                f"a {name} has a body of {length} bytes: at most {most} are allowed"
            )

    def _checkVersion(self, version: int) -> None:
        if version != VERSION:
            raise ProtocolViolation(f"a frame begins with version {version}: {VERSION} is known")


_KNOWN = frozenset(FrameType)
_MOST: dict[int, int] = {
    FrameType.HELLO: _HELLO.size + MAX_NAME,
    FrameType.PING: 0,
    FrameType.PONG: 0,
    FrameType.GOODBYE: _GOODBYE.size + MAX_REASON,
    FrameType.END: 0,
}


def _frame(kind: int, hold: int, token: int, body: bytes) -> Frame | None:
    if kind == FrameType.DATA:
        return Data(body)
    if kind == FrameType.PING:
        return Ping(token, hold / 10)
    if kind == FrameType.PONG:
        return Pong(token)
    if kind == FrameType.HELLO:
        needs, offers, name = _splitBody(_HELLO, body, "HELLO")
        return Hello(name, needs, offers)
    if kind == FrameType.GOODBYE:
        comeBackAfter, spread, reason = _splitBody(_GOODBYE, body, "GOODBYE")
        return Goodbye(reason, comeBackAfter, spread, _parting(token))
    if kind == FrameType.END:
        return End()
    return None


def _parting(token: int) -> Parting:
    try:
        return Parting(token)
    except ValueError:
        return Parting.CLOSING


def _splitBody(fixed: struct.Struct, body: bytes, kind: str) -> tuple[float, float, str]:
    if len(body) < fixed.size:
        raise ProtocolViolation(f"a {kind} has {len(body)} bytes: {fixed.size} are needed")
    first, second = fixed.unpack_from(body)
    try:
        text = body[fixed.size :].decode("utf-8")
    except UnicodeDecodeError as error:
        raise ProtocolViolation(f"the text of a {kind} is not UTF-8") from error
    return first / 1000, second / 1000, text
