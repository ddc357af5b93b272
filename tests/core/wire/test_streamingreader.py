# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Tests for L{StreamingReader}, which gives data in parts: the same frames, and nothing kept.
"""

from __future__ import annotations

from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_heartbeat.core.causes import ProtocolViolation
from twisted_heartbeat.core.wire.frames import (
    Data,
    End,
    Frame,
    Goodbye,
    Hello,
    Ping,
    Pong,
    encode,
    encodeDataHeader,
)
from twisted_heartbeat.core.wire.reader import StreamingReader, StreamReader

from .test_frames import BYTES, outcomeOf

FRAMES: st.SearchStrategy[Frame] = st.one_of(
    st.builds(Data, st.binary(max_size=60)),
    st.builds(Ping, st.integers(0, 9)),
    st.builds(Pong, st.integers(0, 9)),
)


def joined(frames: list[Frame]) -> list[Frame | bytes]:
    """
    The same, with data that stands together as one.
    """
    found: list[Frame | bytes] = []
    for isData, group in groupby(frames, lambda frame: isinstance(frame, Data)):
        if isData:
            found.append(b"".join(frame.message for frame in group if isinstance(frame, Data)))
        else:
            found += group
    return [each for each in found if each != b""]


@given(st.lists(FRAMES, max_size=8), st.booleans(), st.data())
def test_anySlicingGivesTheSame(frames: list[Frame], ends: bool, data: st.DataObject) -> None:
    """
    However the network has cut them, the same bytes come out between the same other frames.
    """
    whole = [Hello("x"), *frames, *([End(), Goodbye("y")] if ends else [])]
    stream = b"".join(map(encode, whole))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    reader = StreamingReader()
    found: list[Frame] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += reader.receive(stream[start:end])
    assert joined(found) == joined(whole)


def test_nothingIsKept() -> None:
    """
    Each byte of a body comes out when it has come in, and a whole chunk as the object that it was.
    """
    reader = StreamingReader()
    list(reader.receive(encode(Hello())))
    assert list(reader.receive(encodeDataHeader(1000))) == []
    chunk = bytes(100)
    for _ in range(10):
        [piece] = reader.receive(chunk)
        assert isinstance(piece, Data)
        assert piece.message is chunk
    assert list(reader.receive(encode(Ping(7)))) == [Ping(7)]


@pytest.mark.parametrize("stream", [b"\2", b"\1\x2a" + bytes(10), encodeDataHeader(2**32 - 1)])
def test_nothingFollowsAViolation(stream: bytes) -> None:
    """
    A malformed frame is a violation, and nothing is read after it.
    """
    reader = StreamingReader()
    good = encode(Hello()) + encode(Data(b"good"))
    found: list[Frame] = []
    with pytest.raises(ProtocolViolation):
        for frame in reader.receive(good + stream):
            found.append(frame)
    assert found == [Hello(), Data(b"good")]
    with pytest.raises(ProtocolViolation):
        list(reader.receive(good))


@given(st.lists(BYTES, max_size=8), st.integers(1, 40))
def test_streamingFindsTheSameViolations(parts: list[bytes], size: int) -> None:
    """
    A reader that gives bodies in parts finds the same other frames and the same violation as a
    reader that waits for whole bodies, and has given at least the same data.
    """
    stream = encode(Hello()) + b"".join(parts)
    whole, words = outcomeOf(stream, size, StreamReader(50))
    streamed, streamedWords = outcomeOf(stream, size, StreamingReader(50))
    assert streamedWords == words
    assert others(streamed) == others(whole)
    assert bodies(streamed).startswith(bodies(whole))


def others(frames: list[Frame]) -> list[Frame]:
    return [frame for frame in frames if not isinstance(frame, Data)]


def bodies(frames: list[Frame]) -> bytes:
    return b"".join(frame.message for frame in frames if isinstance(frame, Data))


def test_insideOfABodyIsNoFrameBoundary() -> None:
    """
    While a part of a body is still to come, a chunk that looks like a frame is a part of the body.
    """
    reader = StreamingReader()
    list(reader.receive(encode(Hello())))
    assert reader.atFrameBoundary and reader.isIdle
    assert list(reader.receive(encodeDataHeader(24) + bytes(12))) == [Data(bytes(12))]
    assert not reader.atFrameBoundary and not reader.isIdle
    assert reader.readSingleFrame(encode(Ping(7))) is None
    assert list(reader.receive(b"")) == []
    assert list(reader.receive(encode(Ping(7)))) == [Data(encode(Ping(7)))]
    assert reader.atFrameBoundary
    assert list(reader.receive(encodeDataHeader(0))) == []
    assert reader.readSingleFrame(encode(Ping(8))) == Ping(8)
