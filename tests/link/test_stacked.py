# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Two links of one connection, one above the other, as where a service uses an endpoint that watches
by itself: each is told of everything.
"""

from __future__ import annotations

from itertools import permutations
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import gatherResults
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from twisted_heartbeat import ClosedHere, HeartbeatFactory, Limits, Link, SendStalled
from twisted_heartbeat.transport.fanout import ObserverFanout
from twisted_heartbeat.transport.instrument import removeObserver

from ..support.loopback import QUICK, Loopback, Peer, Peers, wait, within
from ..support.virtualnetwork import KeptFactory, Recorder


def ping(protocol: Any) -> None:
    """
    Make the peer speak.
    """
    protocol.transport.write(b"?")


async def stacked(
    loopback: Loopback, server: Factory, below: Any = None, above: Any = None
) -> tuple[Link, Link, Recorder]:
    """
    @return: the link below, the link above, and what both are told of.
    """
    hooks = Recorder()
    inner: Any = HeartbeatFactory(KeptFactory(), hooks=hooks, **(above or {}))
    outer: Any = HeartbeatFactory(inner, hooks=hooks, **(below or {}))
    endpoint = loopback.endpoint(loopback.listen(server))
    protocol: Any = await within(endpoint.connect(outer))
    loopback.atEnd(protocol.link.close)
    return protocol.link, protocol._heartbeatProtocol.link, hooks


class Echo(Peer):
    """
    Sends back what it receives.
    """

    def dataReceived(self, data: bytes) -> None:
        """
        See C{IProtocol}.
        """
        self.transport.write(data)  # type: ignore[union-attr]


@pytest_twisted.ensureDeferred
async def test_bothHear(plain: Loopback) -> None:
    """
    Each chunk is life to both, so neither dies while the peer speaks to one of them only.
    """
    server = Peers()
    server.protocol = Echo
    watched = {"heartbeat": QUICK}
    below, above, hooks = await stacked(plain, server, watched | {"ping": ping}, watched)
    await wait(4 * QUICK.bound)
    assert below.peerWatch.detector.heardAt == above.peerWatch.detector.heardAt
    assert hooks.told("disconnected") == []


@pytest_twisted.ensureDeferred
async def test_bothSend(plain: Loopback) -> None:
    """
    What either has sent is told when it has gone, whether or not the other one waits.
    """
    below, above, _ = await stacked(plain, Peers())
    for _ in range(3):
        await within(below.send(bytes(300_000)))
        await within(gatherResults([below.send(bytes(300_000)), above.send(bytes(300_000))]))
        await within(above.send(bytes(300_000)))


@pytest.mark.parametrize("which", ["below", "above"])
@pytest_twisted.ensureDeferred
async def test_eitherFindsTheStall(plain: Loopback, which: str) -> None:
    """
    A buffer that makes no progress ends the connection whichever of the two has a limit for that.
    What the lower one found the upper one is told; to the lower one what the upper one did is this
    side's doing.
    """

    class Deaf(Peer):
        def connectionMade(self) -> None:
            self.transport.pauseProducing()  # type: ignore[union-attr]
            plain.atEnd(self.transport.abortConnection)  # type: ignore[union-attr]

    server = Peers()
    server.protocol = Deaf
    limits = {"limits": Limits(sendStall=0.3)}
    below, above, hooks = await stacked(plain, server, **{which: limits})
    below.protocol.transport.write(bytes(20_000_000))
    await within(below.whenGone())
    assert len(hooks.told("disconnected")) == 2
    assert isinstance(above.cause, SendStalled)
    assert isinstance(below.cause, SendStalled if which == "below" else ClosedHere)


@pytest.mark.parametrize("order", [*permutations(range(3))])
def test_eachLeavesTheOthers(order: tuple[int, ...]) -> None:
    """
    Of three links of one connection any may end first: the others are still told of its end.
    """

    class Told:
        lost: Failure | None = None

        def connectionLostUnnoticed(self, reason: Failure) -> None:
            self.lost = reason

    links: list[Any] = [Told(), Told(), Told()]
    connection: Any = SimpleNamespace()
    below = ObserverFanout(connection, *links[:2])
    connection.observer = ObserverFanout(connection, below, links[2])
    for index, gone in enumerate(order):
        removeObserver(connection, links[gone])
        reason = Failure(ConnectionDone())
        if connection.observer is not None:
            connection.observer.connectionLostUnnoticed(reason)
        told = {number for number, link in enumerate(links) if link.lost is reason}
        assert told == set(order[index + 1 :])
    assert connection.observer is None
