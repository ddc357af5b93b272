# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What the peer has to read, however it comes, and how it answers.
"""

from __future__ import annotations

import struct
import time

from ...core import wire
from ..observer import PONG
from ..play import Play
from ..rules import (
    ANY_CUT,
    DATA_LENGTHS,
    EARLY_PING,
    FIELDS_IGNORED,
    FOREIGN_PONG,
    HELLO_AT_ONCE,
    HELLO_FIRST,
    HELLO_RANGE,
    JOINED,
    OPTIONAL_SKIPPED,
    PING_AFTER_END,
    PINGS_ALLOWED,
    PONG_ONCE,
    PONG_SOON,
    PONG_TOKEN,
)
from .scenario import add

_TOKENS = (1, 0, 0xFFFFFFFF, 0x80000000, 0x01020304)

_PINGS_PER_SECOND = 20

_HOLD = 100.0
"""Seconds: the hold of a PING.  No scenario takes so long, so that the peer can not miss it."""

_LINE = 100_000.0
"""Bytes in a second: how slow a line may be that the longest DATA goes over."""

_BYTE_PAUSE = 0.005
"""Seconds: more than a segment takes on loopback, so that most bytes come alone."""


@add("hello", "The tester waits with its HELLO.", HELLO_AT_ONCE, HELLO_FIRST)
async def _hello(play: Play) -> None:
    connection = await play.open(greeted=False)
    await play.awaits(connection, lambda: connection.stream.hello or connection.isOver)
    first = connection.frames[0] if connection.frames else None
    came = play.stateOf(connection) if first is None else str(first)
    found = connection.stream.hello is not None
    play.check(HELLO_AT_ONCE, found, "a HELLO", came, time.monotonic())
    if found:
        play.check(HELLO_FIRST, first is connection.stream.hello, "a HELLO first", came)


@add("pings", "PINGs with tokens of all kinds.", PONG_TOKEN, PONG_ONCE, PONG_SOON)
async def _pings(play: Play) -> None:
    connection = await play.open()
    for token in _TOKENS:
        sent = time.monotonic()
        before = len(connection.pongs(token))
        connection.write(wire.encodePing(token, _HOLD))
        await play.awaits(
            connection,
            lambda token=token, before=before: len(connection.pongs(token)) > before,  # type: ignore[misc]
            3 * play.settings.tolerance,
        )
        came = connection.pongs(token)[before:]
        state = play.stateOf(connection)
        if not play.check(PONG_TOKEN, came, f"a PONG with token {token}", state, time.monotonic()):
            return
        took, most = came[0].at - sent, play.slack(sent)
        play.check(
            PONG_SOON, took <= most, f"a PONG within {most:.2f} s", f"{took:.2f} s", came[0].at
        )
    await connection.sleep(play.settings.tolerance / 2)
    extra = [str(frame) for frame in connection.pongs(1)[1:]]
    play.check(PONG_ONCE, not extra, "one PONG for each PING", f"again {', '.join(extra)}")


@add("joined", "Three PINGs, a PONG and a DATA in one segment.", JOINED)
async def _joined(play: Play) -> None:
    connection = await play.open()
    wanted = [0x11, 0x22, 0x33]
    first, *others = [wire.encodePing(token) for token in wanted]
    message = wire.encode(wire.Data(play.settings.message))
    connection.write(first + wire.encodePong(0) + message + b"".join(others))
    await play.awaits(connection, lambda: connection.pongs(0x33))
    came = [f.token for f in connection.frames if f.kind == PONG and f.token in wanted]
    tokens = ", ".join(map(str, came)) or "none"
    play.check(
        JOINED, came == wanted, "PONGs with tokens 17, 34, 51", f"PONGs: {tokens}", time.monotonic()
    )


@add("cut", "HELLO, DATA and PING come byte by byte.", ANY_CUT)
async def _cut(play: Play) -> None:
    connection = await play.open(greeted=False)
    await play.expectHello(connection)
    stream = wire.encode(wire.Hello("conformance", 0, 0))
    stream += wire.encode(wire.Data(play.settings.message)) + wire.encodePing(0x0C07)
    for byte in stream:
        connection.write(bytes([byte]))
        await connection.sleep(_BYTE_PAUSE)
    connection.greeted = True
    await play.awaits(connection, lambda: connection.pongs(0x0C07))
    play.check(
        ANY_CUT,
        connection.pongs(0x0C07),
        "the PING is answered",
        play.stateOf(connection),
        time.monotonic(),
    )


@add("early-ping", "A PING comes before the HELLO.", EARLY_PING)
async def _earlyPing(play: Play) -> None:
    connection = await play.open(greeted=False)
    await play.expectHello(connection)
    await play.stillAnswers(EARLY_PING, connection, "nothing else")


@add("fields", "Fields without a meaning are not 0.", FIELDS_IGNORED)
async def _fields(play: Play) -> None:
    connection = await play.open(greeted=False)
    await play.expectHello(connection)
    message = play.settings.message
    connection.write(struct.pack("!BBHIIII", 1, 1, 6, 5, 8, 0, 0))
    connection.greeted = True
    connection.attend()
    connection.write(struct.pack("!BBHII", 1, 3, 6, 9, 0))
    connection.write(struct.pack("!BBHII", 1, 4, 6, 5, len(message)) + message)
    await play.stillAnswers(FIELDS_IGNORED, connection, "HELLO, PONG and DATA with such fields")


@add("optional", "Frames of optional types, before the HELLO and after.", OPTIONAL_SKIPPED)
async def _optional(play: Play) -> None:
    connection = await play.open(greeted=False)
    await play.expectHello(connection)
    frames = [(128, b""), (255, b"12345"), (200, bytes(300))]
    stream = b"".join(struct.pack("!BBHII", 1, kind, 0, 0, len(b)) + b for kind, b in frames)
    connection.write(stream)
    connection.greet(name="conformance")
    connection.write(stream)
    await play.stillAnswers(OPTIONAL_SKIPPED, connection, "frames of types 128, 200 and 255")


@add("data-lengths", "An empty DATA, and the longest.", DATA_LENGTHS)
async def _dataLengths(play: Play) -> None:
    connection = await play.open()
    connection.write(wire.encode(wire.Data(b"")))
    if await play.stillAnswers(DATA_LENGTHS, connection, "an empty DATA"):
        message, most = play.settings.message or b"1", play.settings.maxMessage
        longest = (message * (most // len(message) + 1))[:most]
        connection.write(wire.encode(wire.Data(longest)))
        what = f"a DATA of {most:,} bytes"
        await play.stillAnswers(DATA_LENGTHS, connection, what, most / _LINE)


@add("foreign-pong", "PONGs that answer nothing.", FOREIGN_PONG)
async def _foreignPong(play: Play) -> None:
    connection = await play.open()
    connection.write(wire.encodePong(0) + wire.encodePong(0x7FFFFFFF) + wire.encodePong(0xFFFFFFFF))
    await play.stillAnswers(FOREIGN_PONG, connection, "PONGs that answer nothing")


@add("hello-range", "A HELLO with the largest numbers and the longest name.", HELLO_RANGE)
async def _helloRange(play: Play) -> None:
    connection = await play.open(greeted=False)
    await play.expectHello(connection)
    name = "ü" * 127 + "x"
    connection.greet(name=name, needs=4294967.295, offers=4294967.295)
    await play.stillAnswers(HELLO_RANGE, connection, "a HELLO with a name of 255 bytes")


@add("end", "END, and then a PING.", PING_AFTER_END)
async def _end(play: Play) -> None:
    connection = await play.open()
    connection.write(wire.encode(wire.End()))
    await play.stillAnswers(PING_AFTER_END, connection, "an END")


@add("twenty-pings", "Twenty PINGs in a second.", PINGS_ALLOWED)
async def _twentyPings(play: Play) -> None:
    connection = await play.open()
    for token in range(1, _PINGS_PER_SECOND + 1):
        connection.write(wire.encodePing(0x7000 + token))
        await connection.sleep(1 / _PINGS_PER_SECOND)
    await play.stillAnswers(PINGS_ALLOWED, connection, "twenty others in a second")
