# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Who speaks when, and who is declared dead when.
"""

from __future__ import annotations

import socket
import time
from itertools import pairwise
from math import inf

from ...core import wire
from ..connection import Connection
from ..observer import PING
from ..play import CLIENT, Play
from ..rules import (
    GIVES_UP,
    HOLD_KEPT,
    HOLD_READ,
    NEEDS_SERVED,
    OFFERS_KEPT,
    OFFERS_READ,
    PAUSED_READER,
    PING_INTO_SILENCE,
    PING_TOKEN,
    PINGS_NEEDED,
    SHORT_TIMES,
    SLOW_FRAME,
    VERDICT_IN_TIME,
    VERDICT_NOT_EARLY,
    VERDICT_SILENT,
    WAIT_USUAL,
)
from ..waits import USUAL, Ending
from .scenario import add

EARLIEST = 0.95
"""Of a bound: no verdict comes sooner."""

PATIENCE = 30.0
"""Seconds, by the peer's own pace: what an end without a bound waits for a HELLO."""

_SMALL_WINDOW = 2048
"""Bytes that the tester's kernel takes in while the tester does not read."""

_PINGS = 100

_OFTEN = 0.02
"""Seconds from word to word to a peer that may take 0.2 s for its bound."""


def longestGap(connection: Connection, since: float, until: float) -> float:
    """
    Return the longest time without a frame of the peer's.
    """
    heard = [frame.at for frame in connection.frames if since < frame.at < until]
    times = [since, *heard, until]
    return max(after - before for before, after in pairwise(times))


@add(
    "talking",
    "The tester speaks all the time, and states what it needs.",
    OFFERS_KEPT,
    NEEDS_SERVED,
    PING_INTO_SILENCE,
)
async def _talking(play: Play) -> None:
    connection = await play.open(greeted=False)
    await play.expectHello(connection)
    offers = connection.offers
    # So short that a word in time for the offers alone comes too late.
    needs = min(play.settings.bound, offers / 3 or inf)
    connection.greet(needs=needs)
    await play.answered(connection)
    began = time.monotonic()
    until = began + max(2.5 * needs, 2.5 * offers, 2.5 * connection.needs)
    while time.monotonic() < until and not connection.isOver:
        connection.write(wire.encodePong(0))
        await connection.sleep(min(needs, connection.needs or needs) / 8)
    late = play.slack(began)
    gap = longestGap(connection, began, time.monotonic())
    if offers:
        play.check(
            OFFERS_KEPT, gap <= offers + late, f"no silence above {offers:g} s", f"{gap:.2f} s"
        )
        expected = f"a word each {needs:g} s"
        play.check(NEEDS_SERVED, gap <= needs + late, expected, f"{gap:.2f} s of silence")
    else:
        play.skip("the peer offers nothing", OFFERS_KEPT, NEEDS_SERVED)
    # The first ping of a server may come at any time within its first interval.
    pings = [frame for frame in connection.frames if frame.kind == PING and frame.at > began]
    came = f"{len(pings)} PINGs in {time.monotonic() - began:.1f} s, into constant PONGs"
    if connection.needs:
        play.check(PING_INTO_SILENCE, len(pings) <= 1, "no PING, or one at the beginning", came)
    else:
        play.skip("the peer needs nothing, and does not ping", PING_INTO_SILENCE)


@add(
    "hold",
    "The tester is silent but for its PONGs, and then speaks all the time.",
    PINGS_NEEDED,
    PING_TOKEN,
    OFFERS_KEPT,
    HOLD_KEPT,
)
async def _hold(play: Play) -> None:
    connection = await play.open()
    if connection.needs:
        connection.fallSilent()
        seen: list[int] = []
        for _ in range(2):
            ping = await _nextPing(play, connection)
            came = play.stateOf(connection)
            if not play.check(PINGS_NEEDED, ping is not None, "a PING", came, time.monotonic()):
                return
            assert ping is not None
            seen.append(ping)
            connection.write(wire.encodePong(ping))
        play.check(PING_TOKEN, 0 not in seen and seen[0] != seen[1], "two tokens, not 0", f"{seen}")
        connection.attend()
    else:
        play.skip("the peer needs nothing, and need not ping", PINGS_NEEDED, PING_TOKEN, HOLD_KEPT)
    # The tester needs nothing here, so that only the peer's own word makes it speak.
    began = connection.frames[-1].at
    holds = [frame.hold / 10 for frame in connection.frames if frame.kind == PING]
    hold, offers = holds[-1] if holds else 0.0, connection.offers
    await connection.until(
        lambda: connection.isOver, 2 * max(hold, offers) + play.settings.tolerance
    )
    gap = longestGap(connection, began, time.monotonic())
    for rule, word, what in (
        (HOLD_KEPT, hold, "the peer's PINGs have no hold"),
        (OFFERS_KEPT, offers, "the peer offers nothing"),
    ):
        if word:
            holding = gap <= word + play.slack(began)
            play.check(rule, holding, f"no silence above {word:g} s", f"{gap:.2f} s")
        elif connection.needs or rule is OFFERS_KEPT:
            play.skip(what, rule)


async def _nextPing(play: Play, connection: Connection) -> int | None:
    """
    Wait for a PING, and return its token; L{None} if the connection is over or none comes.
    """
    before = len(connection.frames)

    def came() -> list[int]:
        return [f.token for f in connection.frames[before:] if f.kind == PING]

    await play.awaits(connection, lambda: came() or connection.isOver, connection.needs)
    return came()[0] if came() else None


def _judgeVerdict(play: Play, connection: Connection, bound: float, since: float) -> None:
    """
    Check the end of a connection on which the tester has said nothing since then.
    """
    over, late = connection.overAt, play.slack(since)
    silence = (time.monotonic() if over is None else over) - since
    came = f"{play.stateOf(connection)} after {silence:.2f} s of silence"
    play.check(
        VERDICT_IN_TIME,
        over is not None,
        f"the end within {bound + late:.2f} s (bound {bound:g} s)",
        came,
        over,
    )
    if over is None:
        return
    least = EARLIEST * bound
    play.check(VERDICT_NOT_EARLY, silence >= least, f"no end before {least:.2f} s", came, over)
    goodbye = connection.stream.goodbye
    play.check(VERDICT_SILENT, goodbye is None, "no GOODBYE", str(goodbye or "none"), over)
    connection.ending = Ending(pace=USUAL, earliest=over, latest=over, proven=connection.greeted)


@add(
    "silence",
    "The tester answers no more.",
    VERDICT_IN_TIME,
    VERDICT_NOT_EARLY,
    VERDICT_SILENT,
    WAIT_USUAL,
)
async def _silence(play: Play) -> None:
    connection = await play.open(offers=play.settings.bound)
    bound = connection.needs or play.settings.bound
    connection.fallSilent()
    since = connection.sentAt
    await play.ends(connection, bound)
    if connection.needs or connection.isOver:
        _judgeVerdict(play, connection, bound, since)
    else:
        reason = "the peer needs nothing, and takes no bound from the tester's word"
        play.skip(reason, VERDICT_IN_TIME, VERDICT_NOT_EARLY, VERDICT_SILENT)


@add("longer-hold", "A PING has a hold that is longer than the offers were.", HOLD_READ)
async def _longerHold(play: Play) -> None:
    connection = await play.open(offers=play.settings.bound)
    if connection.needs:
        play.skip("the peer has a bound of its own", HOLD_READ)
        return
    word = 2 * play.settings.bound
    connection.fallSilent()
    connection.write(wire.encodePing(0x601D, word))
    since = connection.sentAt
    await play.ends(connection, word)
    over = connection.overAt
    if over is None:
        play.skip("the peer takes no bound from the tester's word", HOLD_READ)
        return
    came = f"{play.stateOf(connection)} after {over - since:.2f} s of silence"
    least = EARLIEST * word
    play.check(HOLD_READ, over - since >= least, f"no end before {least:.2f} s", came, over)
    connection.ending = Ending(pace=USUAL, earliest=over, latest=over, proven=True)


@add(
    "hold-ends",
    "After a PING with a long hold comes one without, and then silence.",
    HOLD_READ,
    OFFERS_READ,
)
async def _holdEnds(play: Play) -> None:
    bound = play.settings.bound
    connection = await play.open(offers=bound)
    if connection.needs:
        play.skip("the peer has a bound of its own", HOLD_READ, OFFERS_READ)
        return
    connection.fallSilent()
    connection.write(wire.encodePing(0x601D, 3 * bound) + wire.encodePing(0x601E))
    since = connection.sentAt
    if await play.ends(connection, bound):
        rule, expected = HOLD_READ, f"no end before {EARLIEST * bound:.2f} s"
    elif await play.ends(connection, 2 * bound):
        rule, expected = HOLD_READ, f"the end within {bound:g} s, or none"
    else:
        connection.write(wire.encodePing(0x601F, bound))
        if not await play.ends(connection, bound):
            play.skip("the peer takes no bound from the tester's word", HOLD_READ, OFFERS_READ)
            return
        rule, expected = OFFERS_READ, f"the end within {bound:g} s, by the offers"
    over = connection.overAt
    assert over is not None
    silence = over - since
    holds = EARLIEST * bound <= silence <= bound + play.slack(since)
    came = f"{play.stateOf(connection)} after {silence:.2f} s of silence"
    play.check(rule, holds, expected, came, over)
    if holds:
        play.check(OFFERS_READ, True, expected, came, over)
    connection.ending = Ending(pace=USUAL, earliest=over, latest=over, proven=True)


@add("short-times", "A HELLO with needs and offers of a millisecond.", SHORT_TIMES)
async def _shortTimes(play: Play) -> None:
    connection = await play.open(greeted=False)
    await play.expectHello(connection)
    connection.greet(needs=0.001, offers=0.001)
    before, began = len(connection.frames), time.monotonic()
    while time.monotonic() < began + 1.0 and not connection.isOver:
        connection.write(wire.encodePong(0))
        await connection.sleep(_OFTEN)
    passed = time.monotonic() - began
    words = len(connection.frames) - before
    came = f"{words} frames in {passed:.1f} s"
    # One in 0.15 s is right.
    play.check(SHORT_TIMES, words <= 20 * passed, "20 frames in a second at most", came)
    await play.stillAnswers(SHORT_TIMES, connection, f"a word each {_OFTEN:g} s")


@add("slow-frame", "One DATA comes in pieces, for more than twice the bound.", SLOW_FRAME)
async def _slowFrame(play: Play) -> None:
    connection = await play.open(offers=play.settings.bound)
    bound = connection.needs or play.settings.bound
    connection.fallSilent()
    frame = wire.encode(wire.Data(play.settings.message))
    pieces = [frame[at : at + 3] for at in range(0, len(frame), 3)][:6]
    pieces.append(frame[18:])
    for piece in pieces:
        if piece:
            connection.write(piece)
            await connection.until(lambda: connection.isOver, bound * 0.4)
    connection.attend()
    await play.stillAnswers(SLOW_FRAME, connection, f"a DATA in pieces, {bound * 0.4:.2f} s apart")


@add("paused-reader", "The tester speaks, and does not read.", PAUSED_READER)
async def _pausedReader(play: Play) -> None:
    connection = await play.open(offers=play.settings.bound)
    if not connection.isTCP:
        play.skip("only over plain TCP", PAUSED_READER)
        return
    connection.transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_WINDOW)
    connection.transport.pauseProducing()
    span = 2 * max(connection.needs, play.settings.bound)
    began, sent = time.monotonic(), 0
    while (passed := time.monotonic() - began) < span and connection.endedAt is None:
        while sent < _PINGS * min(1.0, passed / span):
            sent += 1
            connection.write(wire.encodePing(0x900000 + sent))
        await connection.sleep(0.05)
    if connection.endedAt is None:
        connection.transport.resumeProducing()
    await play.stillAnswers(PAUSED_READER, connection, f"a pause of {span:.1f} s in reading")


@add("no-hello", "The tester accepts, and says nothing.", GIVES_UP, role=CLIENT)
async def _noHello(play: Play) -> None:
    connection = await play.open(greeted=False)
    await play.expectHello(connection)
    longest = connection.needs or PATIENCE * play.settings.scale
    await play.ends(connection, longest)
    over = connection.overAt
    came = play.stateOf(connection)
    play.check(GIVES_UP, over is not None, f"the end within {longest:.1f} s", came, over)
    if over is not None:
        connection.ending = Ending(pace=USUAL, earliest=over, latest=over, proven=False)
