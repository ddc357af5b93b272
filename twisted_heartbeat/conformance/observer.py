# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{StreamObserver}: reads what the peer sends, and reports the rules that its bytes break.

It is written from C{docs/wire-protocol.md}, and not from this package's reader, because a fault
that both have would not be found.  It goes on after a broken rule where the frames can still be
told apart.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .rules import (
    DATA_ORDER,
    FRAME_KNOWN,
    GOODBYE_LAST,
    HELLO_FIRST,
    HELLO_ONCE,
    TEXT_UTF8,
    UNUSED_ZERO,
    Rule,
)

HELLO, PING, PONG, DATA, GOODBYE, END = range(1, 7)

NAMES = {1: "HELLO", 2: "PING", 3: "PONG", 4: "DATA", 5: "GOODBYE", 6: "END"}

_LARGEST = 2**20
"""Bytes of a DATA, or of an optional frame, that the tester takes: the usual limit."""

_MOST = 100_000
"""Frames of one connection that the tester takes."""

_LENGTHS = {
    HELLO: (8, 263),
    PING: (0, 0),
    PONG: (0, 0),
    DATA: (0, _LARGEST),
    GOODBYE: (8, 1032),
    END: (0, 0),
}

Fault = Callable[[Rule, str, str, float], object]
"""Takes a broken rule, what was expected, what came, and when."""


@dataclass(frozen=True, slots=True)
class Observed:
    """
    A frame that the peer has sent.

    @ivar at: when its last byte came, in seconds.
    """

    kind: int
    hold: int
    token: int
    body: bytes
    at: float

    def __str__(self) -> str:
        name = NAMES.get(self.kind, f"type {self.kind}")
        if self.kind == PING:
            return f"PING (token {self.token}, hold {self.hold / 10:g} s)"
        if self.kind == PONG:
            return f"PONG (token {self.token})"
        if self.kind == HELLO:
            return f"HELLO (needs {self.first:g} s, offers {self.second:g} s, {self.text!r})"
        if self.kind == GOODBYE:
            times = f"retryAfter {self.first:g} s, spread {self.second:g} s"
            return f"GOODBYE (code {self.token}, {times}, {self.text!r})"
        return f"{name} ({len(self.body)} bytes)"

    @property
    def first(self) -> float:
        """
        The first number of the body in seconds: the needs, or the retryAfter.
        """
        return float(struct.unpack_from("!I", self.body)[0]) / 1000

    @property
    def second(self) -> float:
        """
        The second number of the body in seconds: the offers, or the spread.
        """
        return float(struct.unpack_from("!I", self.body, 4)[0]) / 1000

    @property
    def text(self) -> str:
        """
        The rest of the body: the name, or the reason.
        """
        return self.body[8:].decode("utf-8", "replace")


class StreamObserver:
    """
    One direction, from its first byte on.

    @ivar frames: all frames so far.
    @ivar hello: the first HELLO; L{None} until it has come.
    @ivar goodbye: the first GOODBYE.
    @ivar isLost: whether no more is read: the frames can not be told apart, or there are too many.
    """

    def __init__(self, fault: Fault) -> None:
        self._fault = fault
        self._buffer = b""
        self._ended = False
        self.frames: list[Observed] = []
        self.hello: Observed | None = None
        self.goodbye: Observed | None = None
        self.isLost = False

    @property
    def isBetweenFrames(self) -> bool:
        """
        Whether the next byte begins a frame.
        """
        return not self._buffer

    def receive(self, data: bytes, at: float) -> Iterator[Observed]:
        """
        Yield the frames that C{data} completes.

        @param at: now, in seconds.
        """
        self._buffer += data
        while self._buffer and not self.isLost:
            if self._buffer[0] != 1:
                came = f"version {self._buffer[0]}, in {self._buffer[:12].hex(' ')}"
                self._fault(FRAME_KNOWN, "version 1", came, at)
                self.isLost = True
                return
            if len(self._buffer) < 12:
                return
            _, kind, hold, token, length = struct.unpack_from("!BBHII", self._buffer)
            if not self._isKnown(kind, length, at):
                self.isLost = True
                return
            if len(self._buffer) < 12 + length:
                return
            body, self._buffer = self._buffer[12 : 12 + length], self._buffer[12 + length :]
            frame = Observed(kind, hold, token, body, at)
            self._judge(frame)
            self.frames.append(frame)
            self.isLost = len(self.frames) >= _MOST
            yield frame

    def _isKnown(self, kind: int, length: int, at: float) -> bool:
        least, most = _LENGTHS.get(kind, (0, _LARGEST if kind >= 128 else -1))
        if not least <= length <= most:
            expected = f"{least} to {most} bytes" if most >= 0 else "a type of 1 to 6"
            came = f"a frame of type {kind} with a body of {length} bytes"
            self._fault(FRAME_KNOWN, expected, came, at)
            return False
        return True

    def _judge(self, frame: Observed) -> None:
        kind, at = frame.kind, frame.at
        if self.goodbye is not None:
            self._fault(GOODBYE_LAST, "nothing after the GOODBYE", str(frame), at)
        if not self.frames and kind not in (HELLO, GOODBYE):
            self._fault(HELLO_FIRST, "a HELLO", str(frame), at)
        self._judgeUnused(frame)
        if kind in (HELLO, GOODBYE):
            self._judgeText(frame)
        if kind == HELLO:
            if self.hello is not None:
                self._fault(HELLO_ONCE, "one HELLO", f"another: {frame}", at)
            self.hello = self.hello or frame
        elif kind in (DATA, END):
            if self.hello is None or self._ended:
                place = "after END" if self._ended else "before HELLO"
                self._fault(DATA_ORDER, "neither DATA nor END here", f"{frame} {place}", at)
            self._ended = self._ended or kind == END
        elif kind == GOODBYE:
            self.goodbye = self.goodbye or frame

    def _judgeUnused(self, frame: Observed) -> None:
        if frame.kind > END:
            return
        hasHold, hasToken = frame.kind == PING, frame.kind in (PING, PONG, GOODBYE)
        if (frame.hold and not hasHold) or (frame.token and not hasToken):
            came = f"{frame} with hold {frame.hold} and token {frame.token}"
            self._fault(UNUSED_ZERO, "0 in a field without a meaning", came, frame.at)

    def _judgeText(self, frame: Observed) -> None:
        try:
            frame.body[8:].decode("utf-8")
        except UnicodeDecodeError:
            came = f"{NAMES[frame.kind]} with {frame.body[8:].hex(' ')}"
            self._fault(TEXT_UTF8, "UTF-8", came, frame.at)
