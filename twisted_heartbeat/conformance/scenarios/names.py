# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Two connections with one name, and what the peer does after a GOODBYE of its own.
"""

from __future__ import annotations

import time

from ..connection import Connection
from ..play import SERVER, Play
from ..rules import (
    NAME_BYTES,
    NAME_GHOST,
    NAME_LEFT,
    NAME_SOON,
    NAME_TAKEN,
    NAME_WAITS,
    OWN_GOODBYE_ENDS,
    OWN_GOODBYE_FIN,
    OWN_GOODBYE_READS_ON,
)
from .closing import closesByItself
from .scenario import add

_NAME_IN_USE = 2

_APART = ("Pump", "pump", "\u00e9", "e\u0301", "pump ", "", "")
"""Names of seven peers, of which only the last two are equal, and are none."""


@add(
    "name-taken",
    "Two connections say the same name, and both answer.",
    NAME_TAKEN,
    OWN_GOODBYE_READS_ON,
    OWN_GOODBYE_FIN,
    OWN_GOODBYE_ENDS,
    role=SERVER,
)
async def _nameTaken(play: Play) -> None:
    name = f"conformance {time.monotonic()}"
    holder = await play.open(name=name)
    # So it seems dead to a server that does not ask.
    holder.onlyAnswer()
    newcomer = await _newcomer(play, name)
    await _decided(play, holder, newcomer)
    told = newcomer.stream.goodbye
    if told is None and not newcomer.isOver and not holder.isOver:
        reason = "the peer takes two connections of one name"
        own = OWN_GOODBYE_READS_ON, OWN_GOODBYE_FIN, OWN_GOODBYE_ENDS
        play.skip(reason, NAME_TAKEN, NAME_GHOST, *own)
        return
    came = f"newcomer: {play.stateOf(newcomer)}; holder: {play.stateOf(holder)}"
    right = told is not None and told.token == _NAME_IN_USE and not holder.isOver
    expected = "GOODBYE with code 2 for the newcomer, and the holder stays"
    if play.check(NAME_TAKEN, right, expected, came, time.monotonic()):
        await play.stillAnswers(NAME_TAKEN, holder, "a newcomer with its name")
        await _endsAfterGoodbye(play, newcomer)
        (await _newcomer(play, name)).reset()
        third = await _newcomer(play, name)
        await _decided(play, holder, third)
        told = third.stream.goodbye
        right = told is not None and told.token == _NAME_IN_USE and not holder.isOver
        came = f"third: {play.stateOf(third)}; holder: {play.stateOf(holder)}"
        play.check(NAME_TAKEN, right, "the same for a third, after a second one is gone", came)


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
    if not connection.hasTLS:
        finished = await play.awaits(connection, lambda: connection.finAt is not None)
        came = play.stateOf(connection)
        play.check(OWN_GOODBYE_FIN, finished, "FIN after its GOODBYE", came, time.monotonic())
    await closesByItself(play, connection, since, OWN_GOODBYE_ENDS)


@add(
    "name-ghost",
    "A connection falls silent, and another one claims its name.",
    NAME_GHOST,
    NAME_SOON,
    NAME_TAKEN,
    NAME_WAITS,
    role=SERVER,
)
async def _nameOfGhost(play: Play) -> None:
    name = f"conformance {time.monotonic()}"
    holder = await play.open(name=name)
    if not holder.needs:
        play.skip("the peer needs nothing, so it can not tell", NAME_GHOST, NAME_SOON)
        return
    holder.fallSilent()
    # Then the server has read all that the holder has sent, and nothing of it answers the probe.
    await play.answered(holder)
    claimed = time.monotonic()
    newcomer = await _newcomer(play, name)
    answers = await play.ponged(newcomer)
    if newcomer.stream.goodbye is None and not newcomer.isOver:
        expected = "a PING of the newcomer is answered while it waits"
        play.check(NAME_WAITS, answers, expected, play.stateOf(newcomer), time.monotonic())
    await _decided(play, holder, newcomer)
    came = f"newcomer: {play.stateOf(newcomer)}; holder: {play.stateOf(holder)}"
    if newcomer.isOver or newcomer.stream.goodbye is not None:
        play.check(NAME_GHOST, False, "the newcomer stays", came, time.monotonic())
    elif play.check(NAME_GHOST, holder.isOver, "the end of the silent holder", came):
        await play.stillAnswers(NAME_GHOST, newcomer, "the end of the silent holder")
        assert holder.overAt is not None
        waited, longest = holder.overAt - claimed, holder.needs * 3 / 7
        holds = waited <= longest + play.slack(claimed)
        third = await _newcomer(play, name)
        await _decided(play, newcomer, third)
        if newcomer.isOver:
            came = f"third: {play.stateOf(third)}; newcomer: {play.stateOf(newcomer)}"
            play.check(NAME_TAKEN, False, "the newcomer, which answers, stays", came)
            return
        if third.stream.goodbye is None:
            # It has found out by itself that the holder was silent.
            play.skip("the peer takes two connections of one name", NAME_SOON)
            return
        expected = f"the end of the silent holder within {longest:.2f} s"
        play.check(NAME_SOON, holds, expected, f"{waited:.2f} s", holder.overAt)


@add("name-left", "The holder of a name says goodbye, and stays.", NAME_LEFT, role=SERVER)
async def _nameLeft(play: Play) -> None:
    name = f"conformance {time.monotonic()}"
    holder = await play.open(name=name)
    holder.sayGoodbye()
    # Its FIN says that the peer has read the GOODBYE.  The newcomer's HELLO must not come before,
    # because the GOODBYE would then answer the probe.
    await play.ends(holder)
    newcomer = await _newcomer(play, name)
    # What comes after a GOODBYE is no life.
    await holder.flood(play.flooding)
    await newcomer.sleep(max(newcomer.needs * 3 / 7, play.settings.tolerance))
    await play.stillAnswers(NAME_LEFT, newcomer, "the GOODBYE of the holder")


@add(
    "name-bytes",
    "Peers with names that differ a little, and without names.",
    NAME_BYTES,
    role=SERVER,
)
async def _nameBytes(play: Play) -> None:
    peers = [await play.open(name=name) for name in _APART]
    await peers[0].sleep(max(peers[0].needs * 3 / 7, play.settings.tolerance))
    for name, peer in zip(_APART, peers, strict=True):
        await play.stillAnswers(NAME_BYTES, peer, f"the name {name!r} beside similar ones")


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
