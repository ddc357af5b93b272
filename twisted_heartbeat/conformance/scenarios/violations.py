# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What breaks the rules, and what the peer then does.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from math import inf

from ...core import wire
from ..connection import Connection
from ..play import SERVER, Play
from ..rules import (
    OTHERS_GO_ON,
    VIOLATION_ABORTS,
    VIOLATION_LENGTH,
    VIOLATION_LIMIT,
    VIOLATION_ORDER,
    VIOLATION_SILENT,
    VIOLATION_TYPE,
    VIOLATION_VERSION,
    WAIT_SLOW,
    Rule,
)
from ..waits import SLOW, Ending
from .scenario import add

_PROBE = 0xBAD
_HELLO = wire.encode(wire.Hello("again"))
_END = wire.encode(wire.End())
_DATA = wire.encode(wire.Data(b"1"))


def _header(kind: int, length: int, version: int = 1) -> bytes:
    return struct.pack("!BBHII", version, kind, 0, 0, length)


def _violation(
    name: str,
    what: str,
    rule: Rule,
    data: bytes | Callable[[Play], bytes],
    *,
    greeted: bool = True,
    probe: bool = False,
) -> None:
    """
    Add the scenario of one violation.

    @param data: the bytes, or what makes them.
    @param greeted: whether the tester has said hello before.
    @param probe: whether a PING follows, which no peer may answer.  After a header alone none
        does, because a peer that waits for the body would take it for that.
    """

    async def play(play: Play) -> None:
        connection = await play.open(greeted=greeted)
        await play.expectHello(connection)
        if greeted:
            await play.settle(connection)
        await _break(play, connection, rule, data(play) if callable(data) else data, probe)

    title = f"The tester sends {what}{'' if greeted else ', without a HELLO before'}."
    add(name, title, rule, VIOLATION_SILENT, VIOLATION_ABORTS, WAIT_SLOW)(play)


async def _break(play: Play, connection: Connection, rule: Rule, data: bytes, probe: bool) -> None:
    connection.fallSilent()
    since = time.monotonic()
    connection.write(data + (wire.encodePing(_PROBE) if probe else b""))
    # Sooner than the peer's own verdict, which would be taken for this end.
    await play.ends(connection, longest=0.9 * (connection.needs or inf))
    came = play.stateOf(connection)
    over = connection.overAt
    closed = play.check(rule, over is not None, "the end at once", came, over)
    answers = connection.pongs(_PROBE)
    said = [f for f in (*answers, connection.stream.goodbye) if f is not None]
    play.checkNone(VIOLATION_SILENT, "no answer and no GOODBYE", said)
    if not closed or over is None:
        return
    if connection.isTCP:
        play.check(VIOLATION_ABORTS, connection.wasReset, "a reset", came, over)
    proven = play.isStable(connection, since) if connection.greeted else False
    connection.ending = Ending(pace=SLOW, earliest=since, latest=over, proven=proven)


_violation("violation-version", "the version 2, as a single byte", VIOLATION_VERSION, b"\x02")
_violation("violation-http", "HTTP", VIOLATION_VERSION, b"GET / HTTP/1.1\r\n\r\n", greeted=False)
_violation("violation-type-0", "a frame of type 0", VIOLATION_TYPE, _header(0, 0), probe=True)
_violation("violation-type-7", "a frame of type 7", VIOLATION_TYPE, _header(7, 0), probe=True)
_violation("violation-type-127", "a frame of type 127", VIOLATION_TYPE, _header(127, 0), probe=True)
_violation(
    "violation-ping-body", "the header of a PING with a body", VIOLATION_LENGTH, _header(2, 1)
)
_violation(
    "violation-pong-body", "the header of a PONG with a body", VIOLATION_LENGTH, _header(3, 1)
)
_violation(
    "violation-end-body", "the header of an END with a body", VIOLATION_LENGTH, _header(6, 1)
)
_violation(
    "violation-short-hello",
    "the header of a short HELLO",
    VIOLATION_LENGTH,
    _header(1, 7),
    greeted=False,
)
_violation(
    "violation-long-hello",
    "the header of a long HELLO",
    VIOLATION_LENGTH,
    _header(1, 264),
    greeted=False,
)
_violation(
    "violation-short-goodbye", "the header of a short GOODBYE", VIOLATION_LENGTH, _header(5, 7)
)
_violation(
    "violation-long-goodbye", "the header of a long GOODBYE", VIOLATION_LENGTH, _header(5, 1033)
)
_violation(
    "violation-data-limit",
    "the header of a DATA above the limit",
    VIOLATION_LIMIT,
    lambda play: _header(4, play.settings.maxMessage + 1),
)
_violation(
    "violation-data-longest",
    "the header of the longest DATA",
    VIOLATION_LIMIT,
    _header(4, 0xFFFFFFFF),
)
_violation(
    "violation-optional-limit",
    "the header of an optional frame above the limit",
    VIOLATION_LIMIT,
    lambda play: _header(128, play.settings.maxMessage + 1),
)
_violation("violation-early-data", "DATA", VIOLATION_ORDER, _DATA, greeted=False, probe=True)
_violation("violation-early-end", "END", VIOLATION_ORDER, _END, greeted=False, probe=True)
_violation("violation-second-hello", "a second HELLO", VIOLATION_ORDER, _HELLO, probe=True)
_violation("violation-late-data", "DATA after END", VIOLATION_ORDER, _END + _DATA, probe=True)
_violation("violation-second-end", "a second END", VIOLATION_ORDER, _END + _END, probe=True)
_violation("violation-late-hello", "a HELLO after END", VIOLATION_ORDER, _END + _HELLO, probe=True)


@add(
    "violation-beside",
    "One connection breaks a rule; another one is up.",
    OTHERS_GO_ON,
    role=SERVER,
)
async def _beside(play: Play) -> None:
    other, one = await play.open(name="conformance c"), await play.open(name="conformance d")
    one.write(_header(7, 0))
    await other.sleep(play.settings.tolerance / 2)
    await play.stillAnswers(OTHERS_GO_ON, other, "the violation of another connection")
