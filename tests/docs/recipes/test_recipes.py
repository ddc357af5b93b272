# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The recipes of the manual against the real thing: each example is run as a user runs it, its server
is stopped with SIGSTOP or the path to it is cut, and the example finds that within its bound, comes
back, and is where it was: logged in, and subscribed.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from twisted_heartbeat.testing import BlackHole, FaultProxy

from ..conftest import Start
from .program import AMPLE, Program
from .recipe import BOUND, RECIPES, Recipe, freePort

IDLE = 1.5 * BOUND
"""Seconds of silence that no link survives whose ping is not answered."""

STRETCHES = 3
"""How often a busy machine may fail to give an example one such stretch."""

LATE = 2.0
"""Seconds that a busy machine may be late by; in virtual time other tests are exact."""

VERDICT = r"disconnected, Peer(?:Hung|Silent): nothing received for ([\d.]+) s"


def wait(seconds: float) -> Deferred[None]:
    """
    Let real time pass.
    """
    from twisted.internet import reactor

    return deferLater(reactor, seconds)


async def whenListening(port: int) -> None:
    """
    Until somebody listens there.
    """
    deadline = time.monotonic() + AMPLE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert time.monotonic() < deadline, f"nobody listens on port {port}"
            await wait(0.05)


async def whenHeard(example: Program, publish: Callable[[str], None]) -> float:
    """
    Have the server say something new, again and again, until the example has heard it.

    @return: an instant shortly before that was said.
    """
    since = len(example.lines)
    saidAt: list[float] = []
    heard = example.says(rf"heard news{since}no(\d+)", since)
    while not heard.called:
        saidAt.append(time.monotonic())
        publish(f"news{since}no{len(saidAt) - 1}")
        await wait(0.1)
    _, match = await heard
    return saidAt[int(match[1])]


async def whenIdleAndAlive(example: Program) -> None:
    """
    Until the link has been idle for more than its bound and lives: the server answers the ping.
    """
    for _ in range(STRETCHES):
        since = len(example.lines)
        await wait(IDLE)
        if not any("disconnected" in line for _, line in example.lines[since:]):
            return
    raise AssertionError("an idle link was given up: " + example.said)


@pytest.mark.parametrize("fault", ["frozen", "cut"])
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.file)
@pytest_twisted.ensureDeferred
async def test_isFoundAndRestored(
    recipe: Recipe,
    fault: str,
    start: Start,
    faultProxy: Callable[..., Deferred[FaultProxy]],
    tmp_path: Path,
) -> None:
    """
    A server that hangs, and a path that swallows all, are found no earlier than 0.95 of the bound
    after the last word and within the bound; after that the example hears what is new.  A server
    that lives is kept, though nobody says anything.
    """
    if missing := recipe.missing():
        pytest.skip(f"not installed: {', '.join(missing)}")
    port = freePort()
    server = start(*recipe.serve(port, tmp_path))
    await whenListening(port)
    proxy = await faultProxy(("127.0.0.1", port))
    command = recipe.command(port if fault == "frozen" else proxy.port)
    example = start(*command, environment=recipe.environment)
    publish = partial(recipe.publish, port)
    await whenHeard(example, publish)
    if fault == "cut":
        await whenIdleAndAlive(example)
    saidAt = await whenHeard(example, publish)

    since, serversSince = len(example.lines), len(server.lines)
    brokenAt = time.monotonic()
    if fault == "frozen":
        server.freeze()
    else:
        proxy.inject(BlackHole(), connections="existing")
    foundAt, verdict = await example.says(VERDICT, since)
    server.thaw()
    await example.says(recipe.lament, since)

    assert float(verdict[1]) >= 0.95 * BOUND
    assert foundAt - saidAt >= 0.95 * BOUND
    assert foundAt - brokenAt <= BOUND + LATE
    await whenHeard(example, publish)
    if recipe.watches and fault == "cut":
        await server.says(VERDICT, serversSince)
