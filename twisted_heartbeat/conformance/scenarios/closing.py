# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
How a connection ends: goodbyes, FIN, resets, and how the end that connects comes back.
"""

from __future__ import annotations

import time
from math import inf

from ...core import wire
from ..connection import Connection, goodbyeFrame
from ..observer import GOODBYE, PING, Observed
from ..play import CLIENT, SERVER, Play
from ..rules import (
    COMES_BACK,
    EARLY_GOODBYE,
    FIN_CLOSES,
    GOODBYE_CLOSES,
    GOODBYE_FIN,
    GOODBYE_HEARD,
    GOODBYE_RANGE,
    GOODBYE_READS_ON,
    GOODBYE_STOPS_READING,
    GOODBYE_STOPS_WRITING,
    OTHERS_GO_ON,
    PINGS_HALVED,
    WAIT_HINT,
    WAIT_SLOW,
    WAIT_SPREAD,
    Rule,
)
from ..waits import FIRST, SLOW, SPREAD, SPREAD_FACTOR, Ending
from .scenario import add

_PROBE = 0xDEAD

_GRACE = 0.3
"""Seconds, beside the tolerance, in which what was on its way may still come after a GOODBYE."""


_LONGEST_REASON = "ü" * 512


async def _part(
    play: Play,
    connection: Connection,
    code: int = 0,
    retryAfter: float = 0.0,
    spread: float = 0.0,
    reason: str = "conformance",
) -> None:
    """
    Say goodbye, and close as soon as the peer has.
    """
    since = time.monotonic()
    connection.sayGoodbye(code, retryAfter, spread, reason)
    await play.ends(connection)
    connection.close()
    await play.ends(connection, play.closing)
    if not connection.wasReset:
        # Otherwise a verdict of the peer's may have come first, and its wait is another one.
        recordGoodbye(play, connection, since, code, retryAfter, spread)


def recordGoodbye(
    play: Play,
    connection: Connection,
    since: float,
    code: int = 0,
    retryAfter: float = 0.0,
    spread: float = 0.0,
) -> None:
    """
    Note what a GOODBYE of the tester's says about the client's wait.
    """
    now = time.monotonic()
    slow = code in (1, 2)
    connection.ending = Ending(
        pace=SLOW if slow else SPREAD,
        earliest=since,
        latest=now,
        proven=False if slow or not connection.greeted else play.isStable(connection, since),
        retryAfter=retryAfter,
        spread=spread,
    )


@add(
    "goodbye",
    "The tester says goodbye, and then sends what is no frame.",
    GOODBYE_STOPS_WRITING,
    GOODBYE_STOPS_READING,
    GOODBYE_READS_ON,
    GOODBYE_FIN,
    GOODBYE_CLOSES,
)
async def _goodbye(play: Play) -> None:
    connection = await play.open(needs=play.settings.bound)
    since = time.monotonic()
    connection.sayGoodbye(then=wire.encodePing(_PROBE))
    await connection.flood(play.flooding)
    await connection.sleep(play.slack(since) - play.settings.tolerance)
    answered = connection.pongs(_PROBE)
    play.checkNone(GOODBYE_STOPS_READING, "no answer to a PING behind it", answered)
    flawless = not connection.wasReset
    came = "a reset" if connection.wasReset else "none"
    play.check(GOODBYE_READS_ON, flawless, "no reset", came, connection.endedAt)
    await play.ends(connection)
    finFirst = connection.finAt is not None
    play.check(GOODBYE_FIN, finFirst, "FIN, while the tester still sends", play.stateOf(connection))
    if flawless:
        # Long enough for a word that it has promised.
        await connection.sleep(0.0 if finFirst else play.settings.bound)
        graced = since + _GRACE + play.slack(since)
        late = [
            f
            for f in connection.frames
            if (f.at > graced or f.kind == GOODBYE) and f not in answered
        ]
        play.checkNone(GOODBYE_STOPS_WRITING, "no frame after it, and no GOODBYE in return", late)
        connection.close()
        closing = play.closing
        closed = await play.ends(connection, closing)
        came = play.stateOf(connection)
        play.check(GOODBYE_CLOSES, closed, f"the end within {closing:g} s", came)
    if play.isClient:
        recordGoodbye(play, connection, since)


@add("goodbye-held", "The tester says goodbye, and sends no FIN.", GOODBYE_CLOSES)
async def _goodbyeHeld(play: Play) -> None:
    connection = await play.open()
    since = time.monotonic()
    connection.sayGoodbye()
    if connection.hasTLS:
        # TLS of the tester's answers a close_notify by itself, and that ends both directions.
        await play.ends(connection, play.closing)
    else:
        await closesByItself(play, connection, since, GOODBYE_CLOSES)
    if connection.finAt is not None:
        # Otherwise a verdict of the peer's may have come first, as above.
        recordGoodbye(play, connection, since)


async def closesByItself(play: Play, connection: Connection, since: float, rule: Rule) -> None:
    """
    Check that the peer closes although the tester sends on, and no FIN.

    @param since: when the GOODBYE of either end was sent.
    """
    closing = play.closing
    # A closed socket answers what still comes with a reset.
    while connection.endedAt is None and time.monotonic() < since + closing + play.slack(since):
        connection.write(b"?")
        await connection.sleep(closing / 50)
    over = connection.endedAt
    state = "the end" if over is not None else "it still reads"
    play.check(rule, over is not None, f"the end within {closing:g} s", state, over)


@add("fin", "The tester sends FIN without a GOODBYE.", FIN_CLOSES, WAIT_SPREAD)
async def _fin(play: Play) -> None:
    connection = await play.open()
    since = time.monotonic()
    connection.close()
    closing = play.closing
    # Sooner than the peer's own verdict, which would be taken for this end.
    closed = await play.ends(connection, closing, longest=0.9 * (connection.needs or inf))
    came = play.stateOf(connection)
    play.check(FIN_CLOSES, closed, f"the end within {closing:g} s", came, time.monotonic())
    play.closedHere(connection, since)


@add("reset-beside", "One connection is reset; another one is up.", OTHERS_GO_ON, role=SERVER)
async def _resetServer(play: Play) -> None:
    one, other = await play.open(name="conformance a"), await play.open(name="conformance b")
    one.reset()
    await other.sleep(play.settings.tolerance / 2)
    await play.stillAnswers(OTHERS_GO_ON, other, "the reset of another connection")
    await play.stillAnswers(OTHERS_GO_ON, await play.open(), "the reset of an earlier connection")


@add("reset", "The tester resets the connection.", COMES_BACK, WAIT_SPREAD, role=CLIENT)
async def _resetClient(play: Play) -> None:
    connection = await play.open()
    since = time.monotonic()
    connection.reset()
    await connection.until(lambda: connection.endedAt, 1.0)
    play.closedHere(connection, since)


@add("hint", "GOODBYE with a hint.", WAIT_HINT, role=CLIENT)
async def _hint(play: Play) -> None:
    connection = await play.open()
    await play.settle(connection)
    # After a first failure no wait without a hint is as long.
    longest = SPREAD_FACTOR * FIRST * play.settings.scale
    await _part(play, connection, 0, max(1.2, 1.1 * longest), 0.6)


@add(
    "goodbye-reset",
    "PINGs and a GOODBYE with a hint, and at once a reset.",
    GOODBYE_HEARD,
    role=CLIENT,
)
async def _goodbyeReset(play: Play) -> None:
    connection = await play.open()
    if not connection.isTCP:
        play.skip("only over plain TCP", GOODBYE_HEARD)
        return
    since = time.monotonic()
    retryAfter, pings = 1.2, b"".join(map(wire.encodePing, range(1, 11)))
    connection.resetAfter(pings + goodbyeFrame(0, retryAfter, 0))
    await connection.until(lambda: connection.endedAt, 1.0)
    recordGoodbye(play, connection, since, retryAfter=retryAfter)
    back = await play.again(connection)
    waited = back.began - since
    came = f"another connection after {waited:.2f} s"
    play.check(GOODBYE_HEARD, waited >= retryAfter, f"none for {retryAfter:g} s", came, back.began)


@add("small-hint", "GOODBYE with a hint of less than a second.", WAIT_SPREAD, role=CLIENT)
async def _smallHint(play: Play) -> None:
    await _part(play, await play.open(), 0, 0.0, 0.001)


@add("unknown-code", "GOODBYE with code 77, and the longest reason.", GOODBYE_RANGE, WAIT_SPREAD)
async def _unknownCode(play: Play) -> None:
    connection = await play.open()
    await _part(play, connection, 77, reason=_LONGEST_REASON)
    came = play.stateOf(connection)
    play.check(GOODBYE_RANGE, not connection.wasReset, "no reset", came, connection.endedAt)


@add("refused", "GOODBYE with REFUSED in place of a HELLO.", EARLY_GOODBYE, WAIT_SLOW)
async def _refused(play: Play) -> None:
    connection = await play.open(greeted=False)
    await play.expectHello(connection)
    await _part(play, connection, 1)
    came = play.stateOf(connection)
    play.check(EARLY_GOODBYE, not connection.wasReset, "no reset", came, connection.endedAt)


@add("name-in-use", "GOODBYE with NAME_IN_USE and a hint.", WAIT_SLOW, role=CLIENT)
async def _nameInUse(play: Play) -> None:
    connection = await play.open()
    # A refusal proves no connection, however long it lasts.
    await play.settle(connection)
    await _part(play, connection, 2, 1.2, 0.6)


@add("too-many-pings", "GOODBYE with TOO_MANY_PINGS.", PINGS_HALVED, role=CLIENT)
async def _tooManyPings(play: Play) -> None:
    first = await _pingAfter(play, await play.open())
    if first is None:
        play.skip("the peer does not ping", PINGS_HALVED)
        return
    await _part(play, play.connections[-1], 3, 1.0)
    connection = await play.again(play.connections[-1])
    connection.greet()
    await play.expectHello(connection)
    second = await _pingAfter(play, connection)
    wanted, came = 1.6 * first, f"{second:.2f} s" if second is not None else "none"
    play.check(
        PINGS_HALVED,
        second is not None and second >= wanted,
        f"a PING after {2 * first:.2f} s",
        came,
    )


async def _pingAfter(play: Play, connection: Connection) -> float | None:
    """
    Return after how many seconds of silence the peer pings; L{None} if it does not.
    """
    if not connection.needs:
        return None
    connection.fallSilent()
    since = connection.sentAt

    def pings() -> list[Observed]:
        return [f for f in connection.frames if f.kind == PING and f.at > since]

    await play.awaits(connection, lambda: pings() or connection.isOver, connection.needs)
    connection.attend()
    return pings()[0].at - since if pings() else None
