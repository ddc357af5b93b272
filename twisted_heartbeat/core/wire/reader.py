# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
From bytes to frames: L{FrameReader}, L{StreamReader} and L{StreamingReader}.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING

from ..causes import GoodbyeCode as GoodbyeCode
from ..causes import ProtocolViolation
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
    """It is not known, and anything may come."""

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
"""What has no place in which stage, and what to say of it."""

_MAX_BODY_SIZE: dict[int, int] = {
    FrameType.HELLO: _HELLO.size + MAX_NAME,
    FrameType.PING: 0,
    FrameType.PONG: 0,
    FrameType.GOODBYE: _GOODBYE.size + MAX_REASON,
    FrameType.END: 0,
}

_MIN_BODY_SIZE: dict[int, int] = {FrameType.HELLO: _HELLO.size, FrameType.GOODBYE: _GOODBYE.size}
"""Bytes that a body must have."""


@lru_cache(maxsize=64)
def _maxBodySizes(stage: _Stage, maxMessage: int) -> dict[int, int]:
    """
    The types that may come in a stage, and the bytes that their bodies may have.
    """
    users = dict.fromkeys([FrameType.DATA, *range(_OPTIONAL, 0x100)], maxMessage)
    misplaced = _MISPLACED[stage]
    return {int(k): most for k, most in {**users, **_MAX_BODY_SIZE}.items() if k not in misplaced}


class FrameReader:
    """
    Takes bytes as they come, gives frames, in whatever order they stand: for a piece of what an
    end has said.  See L{StreamReader} for all of it.
    """

    __slots__ = (
        "_buffer",
        "_maxMessage",
        "_maxBodySize",
        "_open",
        "_stage",
        "_violation",
        "_wanted",
    )

    _first = _Stage.ANYWHERE

    def __init__(self, maxMessage: int = MAX_MESSAGE) -> None:
        """
        @param maxMessage: bytes that the body of a data frame, or of an unknown one, may have.
        """
        # Only what comes in parts needs one, and on most links nothing does.
        self._buffer: bytearray | None = None
        self._wanted = HEADER_SIZE
        self._maxMessage = maxMessage
        self._open = True
        self._violation = ""
        self._enter(self._first)

    @property
    def atFrameBoundary(self) -> bool:
        """
        Whether what comes next begins a frame.  A reader that keeps a part of one elsewhere than
        in its buffer has to say so here.
        """
        return self._open and not self._buffer

    def readSingleFrame(self, data: bytes) -> Ping | Pong | Data | None:
        """
        The frame that C{data} is, if that is one heartbeat or message and nothing else has been
        begun: what most chunks are on a link that is not busy, at the least cost.

        @return: L{None} if it is anything else, and then L{receive} has to be asked.
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
        The frames that C{data} completes.

        @raise ProtocolViolation: if what came can not be a frame; nothing can follow it.
        """
        if not self._open:
            if self._violation:
                # A new one each time: a traceback that grows would keep all that still comes.
                raise ProtocolViolation(self._violation)
            return
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._wanted:
                # A large frame in small slices is not looked at, or copied, at each of them.
                return
            data = bytes(self._buffer)
            self._buffer = None
        start, size = 0, len(data)
        try:
            while size - start >= HEADER_SIZE:
                version, kind, hold, token, length = _unpackFrom(data, start)
                if version != VERSION or length > self._maxBodySize.get(kind, -1):
                    raise self._violationOf(version, kind, length)
                end = start + HEADER_SIZE + length
                if size < end:
                    if length < _MIN_BODY_SIZE.get(kind, 0):
                        raise _bodyTooShort(kind, length)
                    break
                body = data[start + HEADER_SIZE : end]
                start = end
                if kind == _DATA:
                    yield Data(body)
                    continue
                frame = _frame(kind, hold, token, body)
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
        A frame of this type has come.
        """

    def _keep(self, rest: bytes) -> None:
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
            most = self._maxBodySize[kind]
            words = f"{_named(kind)} has a body of {length} bytes: at most {most} are allowed"
        return ProtocolViolation(words)


class StreamReader(FrameReader):
    """
    Reads all that one end says, from its first byte on, and holds it to the order: a hello comes
    once and before the first data, no data follows an end, and nothing is read after a goodbye.
    """

    __slots__ = ()

    _first = _Stage.NEW

    @classmethod
    def afterHello(cls, maxMessage: int = MAX_MESSAGE) -> StreamReader:
        """
        One that goes on where another was L{isIdle}.
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
    Gives the body of a data frame in pieces, each in a L{Data} of its own, as they come: for those
    to whom the data is itself a stream.  An empty body is no piece.
    """

    __slots__ = ("_due",)

    def __init__(self) -> None:
        super().__init__()
        self._due = 0

    @property
    def atFrameBoundary(self) -> bool:
        """
        See L{FrameReader.atFrameBoundary}.
        """
        return not self._due and super().atFrameBoundary

    def receive(self, data: bytes) -> Iterator[Frame]:
        """
        See L{FrameReader.receive}.
        """
        if not self._open:
            yield from super().receive(data)
            return
        if self._buffer:
            # Less than a frame that is not data: a split header, as a rule.
            data = bytes(self._buffer) + data
            self._buffer.clear()
        start, size = 0, len(data)
        try:
            while start < size:
                if self._due:
                    piece = data[start : start + self._due]
                    start += len(piece)
                    self._due -= len(piece)
                    yield Data(piece)
                    continue
                if size - start < HEADER_SIZE:
                    break
                version, kind, hold, token, length = _unpackFrom(data, start)
                if version != VERSION or length > self._maxBodySize.get(kind, -1):
                    raise self._violationOf(version, kind, length)
                if kind == _DATA:
                    start += HEADER_SIZE
                    self._due = length
                    continue
                end = start + HEADER_SIZE + length
                if size < end:
                    if length < _MIN_BODY_SIZE.get(kind, 0):
                        raise _bodyTooShort(kind, length)
                    break
                frame = _frame(kind, hold, token, data[start + HEADER_SIZE : end])
                start = end
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


def _frame(kind: int, hold: int, token: int, body: bytes) -> Frame | None:
    """
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
    One for all the peers that say the same.
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
