# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
From bytes to frames: L{FrameReader}, L{StreamReader} and L{StreamingReader}.

The input comes in slices of any size, because TCP keeps no boundaries.  All readers share one loop,
L{FrameReader.receive}:

  1. It looks at a header as soon as all twelve bytes are there, and rejects a wrong version, an
     unknown or misplaced type, and a length beyond that type's limit, before the body has come.
  2. It keeps an incomplete frame in a buffer and waits until the frame is complete.  Then it looks
     again; otherwise a large frame in small slices would be copied at each of them.
  3. L{StreamingReader} keeps no incomplete data frame.  It gives each part of the body as it comes.

The readers differ in the order of frames that they accept, which is a L{_Stage}.  Each stage has a
table from the type to the largest body, so that one look-up checks both place and length.

A reader keeps less than one frame of the largest allowed size.  After a violation or a goodbye it
keeps nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

from ..causes import GoodbyeCode, ProtocolViolation
from .frames import (
    _DATA,
    _GOODBYE,
    _HELLO,
    _KNOWN,
    _OPTIONAL,
    _PING,
    _PONG,
    HEADER_SIZE,
    MAX_MESSAGE,
    MAX_NAME,
    MAX_REASON,
    VERSION,
    Data,
    End,
    FrameType,
    Goodbye,
    Hello,
    Ping,
    Pong,
    _unpackFrom,
)

if TYPE_CHECKING:
    from .frames import Frame


class _Stage(Enum):
    """
    How far one direction of a link has come.
    """

    ANYWHERE = "anywhere"
    """Unknown, because reading began in the middle: any frame may come."""

    NEW = "new"
    OPEN = "open"
    ENDED = "ended"


_SECOND_HELLO = {FrameType.HELLO: "a HELLO came a second time"}
_MISPLACED: dict[_Stage, dict[FrameType, str]] = {
    _Stage.ANYWHERE: {},
    _Stage.NEW: {
        FrameType.DATA: "a DATA came before the HELLO",
        FrameType.END: "an END came before the HELLO",
    },
    _Stage.OPEN: _SECOND_HELLO,
    _Stage.ENDED: {
        FrameType.DATA: "a DATA came after the END",
        FrameType.END: "an END came a second time",
        **_SECOND_HELLO,
    },
}
"""The types that have no place in a stage, each with the words of the violation."""

_MAX_BODY_SIZE: dict[int, int] = {
    FrameType.HELLO: _HELLO.size + MAX_NAME,
    FrameType.PING: 0,
    FrameType.PONG: 0,
    FrameType.GOODBYE: _GOODBYE.size + MAX_REASON,
    FrameType.END: 0,
}

_MIN_BODY_SIZE: dict[int, int] = {FrameType.HELLO: _HELLO.size, FrameType.GOODBYE: _GOODBYE.size}


@lru_cache(maxsize=64)
def _maxBodySizes(stage: _Stage, maxMessage: int) -> dict[int, int]:
    """
    Return the types that may come in a stage, each with the bytes that its body may have.
    """
    variable = dict.fromkeys([FrameType.DATA, *range(_OPTIONAL, 0x100)], maxMessage)
    misplaced = _MISPLACED[stage]
    return {
        int(kind): size
        for kind, size in {**variable, **_MAX_BODY_SIZE}.items()
        if kind not in misplaced
    }


class FrameReader:
    """
    A reader of frames in any order, for a part of one direction.  L{StreamReader} reads a direction
    from its beginning.
    """

    __slots__ = (
        "_bodyLeft",
        "_buffer",
        "_maxBodySize",
        "_maxMessage",
        "_open",
        "_stage",
        "_violation",
        "_wanted",
    )

    _first = _Stage.ANYWHERE
    _streamsData: ClassVar[bool] = False

    def __init__(self, maxMessage: int = MAX_MESSAGE) -> None:
        """
        @param maxMessage: bytes that the body of a data frame, or of an unknown one, may have.
        """
        # Made when a frame comes in parts; on most links none does.
        self._buffer: bytearray | None = None
        self._wanted = HEADER_SIZE
        # Bytes of a data frame's body that are still to come, where they are given in parts.
        self._bodyLeft = 0
        self._maxMessage = maxMessage
        self._open = True
        self._violation = ""
        self._enter(self._first)

    @property
    def atFrameBoundary(self) -> bool:
        """
        Whether the next byte begins a frame.
        """
        return self._open and not self._buffer and not self._bodyLeft

    def readSingleFrame(self, data: bytes) -> Ping | Pong | Data | None:
        """
        Return the frame that C{data} is, if it is exactly one heartbeat or message.  On a link that
        is not busy most chunks are, and this is the cheapest way to read them.

        @return: L{None} if C{data} is anything else, or does not begin at a frame boundary.  Then
            nothing was read, and L{receive} has to be called.
        """
        if len(data) < HEADER_SIZE or not self.atFrameBoundary:
            return None
        version, kind, hold, token, length = _unpackFrom(data)
        if length != len(data) - HEADER_SIZE or version != VERSION:
            return None
        if length > self._maxBodySize.get(kind, -1):
            return None
        if kind == _PONG:
            return Pong(token)
        if kind == _PING:
            return Ping(token, hold / 10)
        return Data(data[HEADER_SIZE:]) if kind == _DATA else None

    def receive(self, data: bytes) -> Iterator[Frame]:
        """
        Yield the frames that C{data} completes.

        @raise ProtocolViolation: if the input can not be a frame.  Nothing is read after it.
        """
        if not self._open:
            if self._violation:
                # A new one each time: a traceback that grows would keep all that still comes.
                raise ProtocolViolation(self._violation)
            return
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._wanted:
                return
            data = bytes(self._buffer)
            self._buffer = None
        start, size = 0, len(data)
        if self._bodyLeft and data:
            part = data[: self._bodyLeft]
            start = len(part)
            self._bodyLeft -= start
            yield Data(part)
        try:
            while size - start >= HEADER_SIZE:
                version, kind, hold, token, length = _unpackFrom(data, start)
                if version != VERSION or length > self._maxBodySize.get(kind, -1):
                    raise self._violationOf(version, kind, length)
                body = start + HEADER_SIZE
                end = body + length
                if size < end:
                    if kind == _DATA and self._streamsData:
                        self._bodyLeft = end - size
                        start = size
                        if body < size:
                            yield Data(data[body:])
                    elif length < _MIN_BODY_SIZE.get(kind, 0):
                        raise _bodyTooShort(kind, length)
                    break
                start = end
                if kind == _DATA:
                    if length or not self._streamsData:
                        yield Data(data[body:end])
                    continue
                frame = _decode(kind, hold, token, data[body:end])
                if frame is not None:
                    self._frameAccepted(kind)
                    yield frame
                    if not self._open:
                        return
            self._keep(data[start:])
        except ProtocolViolation as violation:
            self._open = False
            self._violation = str(violation)
            raise

    def _enter(self, stage: _Stage) -> None:
        self._stage = stage
        self._maxBodySize = _maxBodySizes(stage, self._maxMessage)

    def _frameAccepted(self, kind: int) -> None:
        """
        Go on to the stage that follows a frame of this type.
        """

    def _keep(self, rest: bytes) -> None:
        """
        Keep an incomplete frame.  A wrong version is a violation from its first byte on; otherwise
        a peer with another protocol would be waited for.
        """
        if rest and rest[0] != VERSION:
            raise self._violationOf(rest[0])
        self._buffer = bytearray(rest) if rest else None
        self._wanted = HEADER_SIZE
        if len(rest) >= HEADER_SIZE:
            self._wanted += _unpackFrom(rest)[4]

    def _violationOf(self, version: int, kind: int = 0, length: int = 0) -> ProtocolViolation:
        if version != VERSION:
            words = f"a frame begins with version {version}: {VERSION} is known"
        elif kind not in _KNOWN and not kind & _OPTIONAL:
            words = f"frame type {kind} is unknown and not marked optional"
        elif kind not in self._maxBodySize:
            words = _MISPLACED[self._stage][FrameType(kind)]
        else:
            maximum = self._maxBodySize[kind]
            words = f"{_named(kind)} has a body of {length} bytes: at most {maximum} are allowed"
            limit = "maxMessage" if kind == FrameType.DATA else None
            return ProtocolViolation(words).withLimit(limit)
        return ProtocolViolation(words)


class StreamReader(FrameReader):
    """
    A reader of one direction, from its first byte on.  It enforces the order: one hello, before the
    first data; no data after an end; nothing is read after a goodbye.
    """

    __slots__ = ()

    _first = _Stage.NEW

    @classmethod
    def afterHello(cls, maxMessage: int = MAX_MESSAGE) -> StreamReader:
        """
        Return a reader that goes on where another was L{isIdle}.
        """
        stream = cls(maxMessage)
        stream._enter(_Stage.OPEN)
        return stream

    @property
    def isIdle(self) -> bool:
        """
        Whether this reader is between two frames, after the hello and before an END.  All readers
        with the same limit are interchangeable there.
        """
        return self.atFrameBoundary and self._stage is _Stage.OPEN

    def _frameAccepted(self, kind: int) -> None:
        if kind == FrameType.HELLO:
            self._enter(_Stage.OPEN)
        elif kind == FrameType.END:
            self._enter(_Stage.ENDED)
        elif kind == FrameType.GOODBYE:
            self._open = False


class StreamingReader(StreamReader):
    """
    A reader that gives the body of a data frame in parts, as they come, each in a L{Data} of its
    own.  It is for data that is itself a stream.  An empty body gives no L{Data}.
    """

    __slots__ = ()

    _streamsData = True


def _decode(kind: int, hold: int, token: int, body: bytes) -> Frame | None:
    """
    Make a frame of its fields.

    @return: L{None} for a type that is skipped.
    """
    if kind == _PONG:
        return Pong(token)
    if kind == _PING:
        return Ping(token, hold / 10)
    if kind == FrameType.HELLO:
        return _hello(body)
    if kind == FrameType.GOODBYE:
        retryAfter, spread, reason = _splitBody(_GOODBYE, body, FrameType.GOODBYE)
        return Goodbye(reason, retryAfter, spread, _goodbyeCode(token))
    if kind == FrameType.END:
        return End()
    return None


@lru_cache(maxsize=256)
def _hello(body: bytes) -> Hello:
    """
    Decode a hello.  It is cached, because thousands of peers may send the same.
    """
    needs, offers, name = _splitBody(_HELLO, body, FrameType.HELLO)
    return Hello(name, needs, offers)


def _named(kind: int) -> str:
    if kind not in _KNOWN:
        return f"a frame of type {kind}"
    name = FrameType(kind).name
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


def _goodbyeCode(token: int) -> GoodbyeCode:
    try:
        return GoodbyeCode(token)
    except ValueError:
        return GoodbyeCode.CLOSING


def _bodyTooShort(kind: int, length: int) -> ProtocolViolation:
    least = _MIN_BODY_SIZE[kind]
    words = f"{_named(kind)} has a body of {length} bytes: at least {least} are needed"
    return ProtocolViolation(words)


def _splitBody(fixed: struct.Struct, body: bytes, kind: FrameType) -> tuple[float, float, str]:
    if len(body) < fixed.size:
        raise _bodyTooShort(kind, len(body))
    first, second = fixed.unpack_from(body)
    try:
        text = body[fixed.size :].decode("utf-8")
    except UnicodeDecodeError as error:
        raise ProtocolViolation(f"the text of a {kind.name} is not UTF-8") from error
    return first / 1000, second / 1000, text
