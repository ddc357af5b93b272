# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Two connections with one name, and what the peer does after a GOODBYE of its own.
"""

from __future__ import annotations

import time

from ..connection import Connection
from ..play import SERVER, Play
from ..rules import NAME_GHOST, NAME_TAKEN, OWN_GOODBYE_ENDS, OWN_GOODBYE_READS_ON
from .scenario import add

_NAME_IN_USE = 2


@add(
    "name-taken",
    "Two connections say the same name, and both answer.",
    NAME_TAKEN,
    OWN_GOODBYE_READS_ON,
    OWN_GOODBYE_ENDS,
    role=SERVER,
)
async def _nameTaken(play: Play) -> None:
    name = f"conformance {time.monotonic()}"
    holder = await play.open(name=name)
    newcomer = await _newcomer(play, name)
    await _decided(play, holder, newcomer)
    told = newcomer.stream.goodbye
    if told is None and not newcomer.isOver and not holder.isOver:
        reason = "the peer takes two connections of one name"
        play.skip(reason, NAME_TAKEN, NAME_GHOST, OWN_GOODBYE_READS_ON, OWN_GOODBYE_ENDS)
        return
    came = f"newcomer: {play.stateOf(newcomer)}; holder: {play.stateOf(holder)}"
    right = told is not None and told.token == _NAME_IN_USE and not holder.isOver
    expected = "GOODBYE with code 2 for the newcomer, and the holder stays"
    if play.check(NAME_TAKEN, right, expected, came, time.monotonic()):
        await play.stillAnswers(NAME_TAKEN, holder, "a newcomer with its name")
        await _endsAfterGoodbye(play, newcomer)


async def _endsAfterGoodbye(play: Play, connection: Connection) -> None:
    since = time.monotonic()
    connection.fallSilent()
    await connection.flood(play.flooding)
    came = "a reset" if connection.wasReset else "none"
    expected = f"no reset for {play.flooding:g} s after its GOODBYE"
    if not play.check(
        OWN_GOODBYE_READS_ON, not connection.wasReset, expected, came, connection.endedAt
    ):
        return
    closing = play.closing
    # A closed socket answers what still comes with a reset.
    while connection.endedAt is None and time.monotonic() < since + closing + play.slack(since):
        connection.write(b"?")
        await connection.sleep(closing / 50)
    over = connection.endedAt
    state = "the end" if over is not None else "it still reads"
    play.check(OWN_GOODBYE_ENDS, over is not None, f"the end within {closing:g} s", state, over)


@add(
    "name-ghost",
    "The first of two connections with one name is silent.",
    NAME_GHOST,
    role=SERVER,
)
async def _nameOfGhost(play: Play) -> None:
    name = f"conformance {time.monotonic()}"
    holder = await play.open(name=name)
    if not holder.needs:
        play.skip("the peer needs nothing, so it can not tell", NAME_GHOST)
        return
    holder.fallSilent()
    newcomer = await _newcomer(play, name)
    await _decided(play, holder, newcomer)
    if newcomer.isOver or newcomer.stream.goodbye is not None:
        came = f"newcomer: {play.stateOf(newcomer)}; holder: {play.stateOf(holder)}"
        play.check(NAME_GHOST, False, "the newcomer stays", came, time.monotonic())
    else:
        await play.stillAnswers(NAME_GHOST, newcomer, "the end of the silent holder")


async def _newcomer(play: Play, name: str) -> Connection:
    """
    Return a connection that says a name which may be taken.
    """
    connection = await play.open(greeted=False)
    connection.greet(name=name)
    await play.expectHello(connection)
    return connection


async def _decided(play: Play, holder: Connection, newcomer: Connection) -> None:
    """
    Wait until one of both is told goodbye or closed, or the time for that is over.
    """
    end = time.monotonic() + max(holder.needs, play.settings.bound)
    while time.monotonic() < end + play.slack(newcomer.began) and not holder.isOver:
        if newcomer.stream.goodbye is not None or newcomer.isOver:
            return
        await newcomer.sleep(0.02)
