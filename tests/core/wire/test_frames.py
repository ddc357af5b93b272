# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Tests for L{twisted_heartbeat.core.wire}.
"""

from __future__ import annotations

import re
import struct
import time
import tracemalloc
from collections.abc import Callable
from math import inf, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twisted_heartbeat.core import wire
from twisted_heartbeat.core.causes import GoodbyeCode, ProtocolViolation
from twisted_heartbeat.core.wire.frames import (
    HEADER_SIZE,
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
    encode,
    encodePing,
    encodePong,
    packPong,
)
from twisted_heartbeat.core.wire.reader import FrameReader, StreamReader

HEADER = struct.Struct("!BBHII")

# Whole milliseconds and tenths: what the wire can tell apart.
SECONDS = st.integers(0, 0xFFFFFFFF).map(lambda n: n / 1000)
TOKENS = st.integers(0, 0xFFFFFFFF)


def texts(most: int) -> st.SearchStrategy[str]:
    return st.text(max_size=most).filter(lambda text: len(text.encode("utf-8")) <= most)


FRAMES: st.SearchStrategy[Frame] = st.one_of(
    st.builds(Data, st.binary(max_size=100)),
    st.builds(Ping, TOKENS, st.integers(0, 0xFFFF).map(lambda n: n / 10)),
    st.builds(Pong, TOKENS),
    st.builds(Hello, texts(60), SECONDS, SECONDS),
    st.builds(Goodbye, texts(60), SECONDS, SECONDS, st.sampled_from(GoodbyeCode)),
    st.just(End()),
)

KINDS: st.SearchStrategy[type[FrameReader]] = st.sampled_from([FrameReader, StreamReader])


def header(kind: int, length: int, version: int = VERSION) -> bytes:
    return HEADER.pack(version, kind, 0, 0, length)


def read(data: bytes, reader: FrameReader | None = None, size: int | None = None) -> list[Frame]:
    """
    All frames in C{data}, given in slices of this size.
    """
    reader = reader or FrameReader()
    size = size or max(1, len(data))
    slices = [data[start : start + size] for start in range(0, len(data), size)]
    return [frame for one in slices for frame in reader.receive(one)]


# What goes in comes out.


@given(st.lists(FRAMES, max_size=8), st.data())
def test_anySlicingGivesTheSameFrames(frames: list[Frame], data: st.DataObject) -> None:
    """
    Frames come out as they went in, however the network has cut them.
    """
    stream = b"".join(map(encode, frames))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    reader = FrameReader()
    found: list[Frame] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += reader.receive(stream[start:end])
    assert found == frames


@pytest.mark.parametrize(
    "frame",
    [
        Data(b""),
        Data(b"\0" * 70_000),
        Data(b"x" * MAX_MESSAGE),
        Ping(0),
        Ping(0xFFFFFFFF, 6553.5),
        Pong(0xFFFFFFFF),
        Hello(),
        Hello("é" * 127, 0.001, 4294967.295),
        Goodbye("x" * MAX_REASON, 3600.0, 60.0),
    ],
    ids=lambda frame: repr(frame)[:30],
)
def test_largestAndSmallest(frame: Frame) -> None:
    """
    What just fits its place on the wire arrives whole, in one piece or in small ones.
    """
    stream = encode(frame)
    assert read(stream) == [frame]
    assert read(stream, size=max(1, len(stream) // 50)) == [frame]


def test_frameIsGivenWithItsLastByte() -> None:
    """
    A frame comes out with its last byte, not before it and not with the next frame.
    """
    reader = FrameReader()
    *most, last = encode(Data(b"abc"))
    assert [list(reader.receive(bytes([byte]))) for byte in most] == [[]] * len(most)
    assert list(reader.receive(bytes([last]))) == [Data(b"abc")]


def test_heartbeatIsABareHeader() -> None:
    """
    A ping and its pong are twelve bytes each, and the pong repeats the token.
    """
    assert encodePing(7) == b"\x01\x02\0\0\0\0\0\7\0\0\0\0"
    assert encodePong(7) == b"\x01\x03\0\0\0\0\0\7\0\0\0\0"
    assert len(encodePing(7)) == HEADER_SIZE == 12


@given(TOKENS, st.floats(0.0, 6553.5))
def test_packedHeartbeatsEqualTheEncodedOnes(token: int, hold: float) -> None:
    """
    The functions without checks return the same bytes as the functions with checks.
    """
    beats = wire.SharedPing(hold)
    beats._token = token - 1 if token else 2**32 - 1
    beats.advance()
    assert beats.ping == encodePing(token or 1, hold)
    assert beats.pong == packPong(token or 1) == encodePong(token or 1)


@given(st.floats(0.0, 6553.5))
def test_holdIsNeverShortened(hold: float) -> None:
    """
    What a sender says of its silence is rounded up, so that nobody expects it too soon.
    """
    [ping] = read(encodePing(1, hold))
    assert isinstance(ping, Ping)
    assert hold <= ping.hold + 1e-9 and ping.hold <= hold + 0.1 + 1e-9


def test_longHoldIsTheLongestThatFits() -> None:
    """
    A hold beyond what fits is told as the longest that does.
    """
    assert read(encodePing(1, 1e6)) == [Ping(1, 6553.5)]


@pytest.mark.parametrize(
    "frame",
    [
        Ping(1, -1.0),
        Ping(1, nan),
        Ping(1, inf),
        Ping(2**32),
        Ping(-1),
        Pong(2**32),
        Pong(-1),
        Hello("x" * (MAX_NAME + 1)),
        Hello("é" * 128),
        Hello("\ud800"),
        Hello(needs=nan),
        Hello(needs=inf),
        Hello(offers=-1.0),
        Goodbye(retryAfter=inf),
        Goodbye(spread=-1.0),
        Goodbye("x" * (MAX_REASON + 1)),
    ],
    ids=lambda frame: repr(frame)[:30],
)
def test_whatDoesNotFit(frame: Frame) -> None:
    """
    A field that does not fit its place on the wire is a ValueError, and no broken frame.
    """
    with pytest.raises(ValueError):
        encode(frame)


# Single frames.


@given(st.one_of(FRAMES.map(encode), st.binary(max_size=30)), KINDS)
def test_singleFrameIsReadAsByReceive(data: bytes, kind: type[FrameReader]) -> None:
    """
    C{readSingleFrame} returns what C{receive} would, and only for exactly one heartbeat or message.
    Of anything else it reads nothing.
    """
    short, long = kind(), kind()
    frame = short.readSingleFrame(data)
    if frame is None:
        assert outcomeOf(data, len(data) or 1, short) == outcomeOf(data, len(data) or 1, long)
    else:
        assert list(long.receive(data)) == [frame]


@pytest.mark.parametrize("kind", [FrameReader, StreamReader])
def test_everyHeartbeatIsReadAsASingleFrame(kind: type[FrameReader]) -> None:
    """
    A chunk that is one heartbeat or message is read as a single frame, also between other frames.
    Inside of another frame, what looks like a frame is none.  A frame that is too long is left to
    C{receive}, which raises.
    """
    reader = kind(1000)
    assert reader.readSingleFrame(encodePing(7, 3.5)) == Ping(7, 3.5)
    assert list(reader.receive(encode(Hello()))) == [Hello()]
    assert reader.readSingleFrame(encodePong(9)) == Pong(9)
    assert reader.readSingleFrame(encode(Data(b"abc"))) == Data(b"abc")
    data = encode(Data(encodePong(1) * 2))
    assert list(reader.receive(data[:12])) == []
    assert reader.readSingleFrame(data[12:24]) is None
    assert list(reader.receive(data[12:24])) == []
    assert list(reader.receive(data[24:])) == [Data(encodePong(1) * 2)]
    assert reader.readSingleFrame(encodePong(10)) == Pong(10)
    assert reader.readSingleFrame(encode(Data(bytes(1001)))) is None


def test_singleFrameKeepsToTheOrder() -> None:
    """
    Data before the hello is not read as a single frame, nor is anything after a violation or a
    goodbye.
    """
    early, parted, broken = StreamReader(), StreamReader(), StreamReader()
    assert early.readSingleFrame(encode(Data(b"early"))) is None
    assert list(parted.receive(encode(Goodbye()))) == [Goodbye()]
    with pytest.raises(ProtocolViolation):
        list(broken.receive(b"\0"))
    for reader in (parted, broken):
        assert reader.readSingleFrame(encodePong(1)) is None
    with pytest.raises(ProtocolViolation):
        list(broken.receive(encodePong(1)))
    assert list(parted.receive(encodePong(1))) == []


# The order.  The vectors of tests/conformance/test_wire_vectors.py show each place; here it is any
# order.


@given(st.lists(FRAMES, max_size=12), st.integers(1, 40))
@settings(max_examples=300)
def test_orderOfFramesIsEnforced(frames: list[Frame], size: int) -> None:
    """
    A hello comes once and before any data or its end, and no data after an end: what breaks that is
    a violation, and what came before it has been given.  After a goodbye nothing is read.
    """
    found, words = outcomeOf(b"".join(map(encode, frames)), size, StreamReader(1000))
    allowed, broken = inOrder(frames)
    assert found == allowed
    assert (words is not None) == broken


def inOrder(frames: list[Frame]) -> tuple[list[Frame], bool]:
    """
    The frames that are to be read, and whether what follows them has no place.
    """
    for number, frame in enumerate(frames):
        before = {type(one) for one in frames[:number]}
        if isinstance(frame, Hello) and Hello in before:
            return frames[:number], True
        if isinstance(frame, Data | End) and (Hello not in before or End in before):
            return frames[:number], True
        if isinstance(frame, Goodbye):
            return frames[: number + 1], False
    return frames, False


# What a peer may send, and we do not know.


@pytest.mark.parametrize("size", [None, 1, 5, 13])
def test_unknownOptionalTypeIsSkipped(size: int | None) -> None:
    """
    A frame type that is marked optional is skipped with its body: later versions may add some.
    """
    stream = encode(Data(b"a")) + header(0x80 | 42, 5) + b"12345" + encode(Data(b"b"))
    assert read(stream, size=size) == [Data(b"a"), Data(b"b")]


# What ends the link.

VIOLATIONS: dict[str, bytes] = {
    "version 0": b"\0",
    "version 2": b"\2",
    "another protocol": b"GET / HTTP/1.1\r\n",
    "an unknown mandatory type": header(42, 0),
    "type 0": header(0, 0),
    "an oversize message": header(FrameType.DATA, 101),
    "the largest length": header(FrameType.DATA, 0xFFFFFFFF),
    "an oversize optional frame": header(0xFF, 101),
    "a ping with a body": header(FrameType.PING, 1),
    "a pong with a body": header(FrameType.PONG, 1),
    "an end with a body": header(FrameType.END, 1),
    "a hello that is too short": header(FrameType.HELLO, 7),
    "a hello that is too long": header(FrameType.HELLO, 8 + 256) + b"\0" * 264,
    "a hello of no end": header(FrameType.HELLO, 0xFFFFFFFF),
    "a goodbye that is too short": header(FrameType.GOODBYE, 0),
    "a goodbye that is too long": header(FrameType.GOODBYE, 8 + 1025) + b"\0" * 1033,
    "a goodbye of no end": header(FrameType.GOODBYE, 0xFFFFFFFF),
    "a name that is not UTF-8": header(FrameType.HELLO, 10) + b"\0" * 8 + b"\xc3\x28",
    "a reason that is not UTF-8": header(FrameType.GOODBYE, 9) + b"\0" * 8 + b"\xff",
}


@pytest.mark.parametrize("what", VIOLATIONS)
def test_malformedFrameIsAViolation(what: str) -> None:
    """
    What can not be a frame is a violation, told in a sentence, however it was cut; and the frames
    before it have been given.
    """
    for size in (None, 1, 11, 13):
        reader = FrameReader(100)
        assert read(encode(Pong(1)), reader) == [Pong(1)]
        with pytest.raises(ProtocolViolation) as caught:
            read(VIOLATIONS[what], reader, size)
        words = str(caught.value)
        assert len(words.split()) > 4
        assert not re.match("a [AEIOU]|an [^AEIOUaeiou]", words)


def test_framesBeforeAViolationAreGiven() -> None:
    """
    What came whole before a violation, in the same chunk, is not lost.
    """
    found = []
    with pytest.raises(ProtocolViolation):
        for frame in FrameReader().receive(encode(Data(b"a")) + encode(Pong(3)) + b"\2"):
            found.append(frame)
    assert found == [Data(b"a"), Pong(3)]


def test_wrongVersionAtTheFirstByte() -> None:
    """
    A peer that speaks something else is known by its first byte.
    """
    with pytest.raises(ProtocolViolation, match="version 71: 1 is known"):
        list(FrameReader().receive(b"G"))
    reader = FrameReader()
    with pytest.raises(ProtocolViolation, match="version 2"):
        list(reader.receive(encode(Pong(1)) + b"\2"))


def test_nothingFollowsAViolation() -> None:
    """
    After a violation nothing is a frame any more, and nothing is kept.
    """
    reader = FrameReader(100)
    with pytest.raises(ProtocolViolation):
        list(reader.receive(header(FrameType.DATA, 101)))
    for _ in range(3):
        with pytest.raises(ProtocolViolation):
            assert list(reader.receive(encode(Pong(1)))) == []


def test_limitIsTheUsers() -> None:
    """
    A message as large as allowed comes through, a larger one does not; and the limit of messages
    is none of the protocol's own frames.
    """
    assert read(encode(Data(b"1234")), FrameReader(4)) == [Data(b"1234")]
    with pytest.raises(ProtocolViolation, match="5 bytes: .*4 are allowed"):
        read(encode(Data(b"12345")), FrameReader(4))
    mine: list[Frame] = [Hello("someone", 35.0), Ping(1), Goodbye("good night")]
    assert read(b"".join(map(encode, mine)), FrameReader(4)) == mine


BYTES = st.one_of(
    st.binary(max_size=60),
    # Bytes that look like frames get further.
    st.builds(
        lambda kind, length, body: header(kind, length) + body,
        st.integers(0, 255),
        st.one_of(st.integers(0, 40), TOKENS),
        st.binary(max_size=60),
    ),
    FRAMES.map(encode),
)


@given(st.lists(BYTES, max_size=8), st.integers(1, 40), KINDS)
@settings(max_examples=300)
def test_garbageIsAViolationAndNothingElse(
    pieces: list[bytes], size: int, kind: type[FrameReader]
) -> None:
    """
    Whatever a peer sends, frames come out, or a violation, and nothing else.
    """
    stream = b"".join(pieces)
    outcome: list[object] = []
    try:
        outcome += read(stream, kind(50), size)
    except ProtocolViolation as violation:
        outcome.append(violation)
    assert all(isinstance(one, Frame | ProtocolViolation) for one in outcome)


@given(st.lists(BYTES, max_size=8), st.integers(1, 40), KINDS)
@settings(max_examples=300)
def test_slicingMakesNoDifferenceToGarbage(
    pieces: list[bytes], size: int, kind: type[FrameReader]
) -> None:
    """
    The same bytes end in the same frames and the same violation, in one piece or in slices.
    """
    stream = b"".join(pieces)
    assert outcomeOf(stream, len(stream) + 1, kind(50)) == outcomeOf(stream, size, kind(50))


@given(st.lists(BYTES, max_size=30), st.integers(1, 200), KINDS)
def test_keptBytesAreBounded(pieces: list[bytes], size: int, kind: type[FrameReader]) -> None:
    """
    Whatever comes, in whatever slices, less than one frame of the largest size is kept.
    """
    stream, reader = b"".join(pieces), kind(50)
    most = HEADER_SIZE + max(50, 8 + MAX_REASON)
    for start in range(0, len(stream), size):
        try:
            list(reader.receive(stream[start : start + size]))
        except ProtocolViolation:
            assert reader._buffer is None
        assert len(reader._buffer or b"") < most


def outcomeOf(
    stream: bytes, size: int, reader: FrameReader | None = None
) -> tuple[list[Frame], str | None]:
    """
    The frames that a reader finds, and its words of a violation if there is one.
    """
    reader = reader or FrameReader(50)
    found: list[Frame] = []
    try:
        for start in range(0, len(stream), size):
            for frame in reader.receive(stream[start : start + size]):
                found.append(frame)
    except ProtocolViolation as violation:
        return found, str(violation)
    return found, None


def peakOf(act: Callable[[], None]) -> int:
    """
    The bytes of memory that it takes, at most.
    """
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", [FrameType.DATA, 0x80])
def test_memoryIsBounded(kind: int) -> None:
    """
    A peer can make the reader keep one frame of the allowed size, and no more.
    """
    reader = FrameReader(100_000)

    def feed() -> None:
        frame = header(kind, 100_000) + b"x" * 100_000
        for _ in range(30):
            for start in range(0, len(frame), 4096):
                for _ in reader.receive(frame[start : start + 4096]):
                    pass

    assert peakOf(feed) < 6 * 100_000


def test_memoryIsBoundedAfterAViolation() -> None:
    """
    A peer that goes on sending after a violation fills nothing.
    """
    reader = FrameReader(1000)

    def feed() -> None:
        for chunk in (header(FrameType.DATA, 0xFFFFFFFF) + bytes([n]) * 10_000 for n in range(100)):
            with pytest.raises(ProtocolViolation):
                list(reader.receive(chunk))

    assert peakOf(feed) < 300_000


def test_memoryIsBoundedAfterAGoodbye() -> None:
    """
    Nor does one that goes on sending after its goodbye.
    """
    reader = StreamReader()

    def feed() -> None:
        for n in range(100):
            found = list(reader.receive(encode(Goodbye()) + bytes([n]) * 10_000))
            assert found == ([] if n else [Goodbye()])

    assert peakOf(feed) < 300_000


def secondsOf(act: Callable[[], None]) -> float:
    """
    The processor time that it takes.
    """
    began = time.process_time()
    act()
    return time.process_time() - began


def test_aLargeFrameInSmallSlices() -> None:
    """
    A large frame that comes byte by byte is not copied at each byte: half a mebibyte so takes a
    fraction of a second, and would else take minutes.
    """
    frame = encode(Data(b"x" * 512 * 1024))
    reader = FrameReader()

    def feed() -> None:
        found = [len(one.message) for n in range(len(frame)) for one in datas(frame[n : n + 1])]
        assert found == [512 * 1024]

    def datas(data: bytes) -> list[Data]:
        return [one for one in reader.receive(data) if isinstance(one, Data)]

    assert secondsOf(feed) < 10


def test_manySmallFramesInOneChunk() -> None:
    """
    Many frames in one chunk do not have what is left of it copied for each: 170,000 of them so take
    a fraction of a second, and would else take minutes.
    """
    chunk = encodePong(1) * (2 * 1024 * 1024 // HEADER_SIZE)

    def feed() -> None:
        assert sum(1 for _ in FrameReader().receive(chunk[:-1])) == len(chunk) // HEADER_SIZE - 1

    assert secondsOf(feed) < 10


# SharedPing.


def test_eachInstantHasItsOwnSharedPing() -> None:
    """
    Each instant has a ping of its own, which tells the hold, and the pong that repeats its token.
    """
    beats = wire.SharedPing(7.35)
    tokens = []
    for _ in range(2):
        beats.advance()
        [ping] = wire.FrameReader().receive(beats.ping)
        assert isinstance(ping, wire.Ping) and ping.hold == 7.4
        assert list(wire.FrameReader().receive(beats.pong)) == [wire.Pong(ping.token)]
        tokens.append(ping.token)
    assert tokens == [1, 2]


def test_tokensGoRound() -> None:
    """
    After the last token comes the first, and never 0, which is that of a pong nobody asked for.
    """
    beats = wire.SharedPing(0.0)
    beats._token = 2**32 - 2
    pongs = []
    for _ in range(3):
        beats.advance()
        pongs.append(beats.pong)
    assert pongs == [wire.encodePong(token) for token in (2**32 - 1, 1, 2)]


def test_sameHelloIsOne() -> None:
    """
    Thousands of peers that say the same are kept one hello.
    """
    data = wire.encode(wire.Hello("peer", 1.5, 2.5))
    first, second = (next(wire.FrameReader().receive(data)) for _ in range(2))
    assert first is second


@pytest.mark.parametrize(
    ("kind", "limit"), [(FrameType.DATA, "maxMessage"), (FrameType.GOODBYE, None)]
)
def test_tooLongAMessagePassesALimit(kind: FrameType, limit: str | None) -> None:
    """
    The violation of a message that is too long names the setting; no setting allows more of any
    other frame.
    """
    header = HEADER.pack(VERSION, kind, 0, 0, MAX_MESSAGE + 1)
    with pytest.raises(ProtocolViolation, match="at most") as violation:
        list(FrameReader().receive(header))
    assert violation.value.limit == limit
