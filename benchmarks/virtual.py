# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Thousands of watched links in virtual time: no socket, no scheduler, and so nothing but what the
package itself adds to the bound.
"""

from __future__ import annotations

import random
from typing import Any

from twisted.internet.error import ConnectionAborted
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from twisted_heartbeat import Heartbeat, HeartbeatFactory, LinkHooks

ANSWER_TAKES = 0.004
"""Seconds, at most."""


class Peer(StringTransport):
    """
    The other end: answers, until it does not.

    @ivar heardAt: when it was last heard.
    """

    silent = False
    heardAt = 0.0
    protocol: Any

    def __init__(self, clock: Clock, draw: random.Random) -> None:
        super().__init__()
        self._clock = clock
        self._draw = draw

    def write(self, data: bytes) -> None:
        """
        A ping.
        """
        if not self.silent:
            self._clock.callLater(self._draw.uniform(0.0, ANSWER_TAKES), self._speak)

    def abortConnection(self) -> None:
        """
        As Twisted's own: it is heard of later.
        """
        self._clock.callLater(0, self.protocol.connectionLost, Failure(ConnectionAborted()))

    def _speak(self) -> None:
        if not self.silent:
            self.heardAt = self._clock.seconds()
            self.protocol.dataReceived(b"!")


class Verdicts(LinkHooks):
    """
    @ivar silences: how long each peer had been silent when it was found dead, by generation.
    """

    def __init__(self) -> None:
        self.silences: dict[int, float] = {}
        self.repeated = 0

    def disconnected(self, link: Any, cause: Any) -> None:
        """
        See L{LinkHooks}.
        """
        self.repeated += link.generation in self.silences
        self.silences[link.generation] = link.silence


def watch(heartbeat: Heartbeat, links: int, cut: int, seed: int) -> tuple[list[float], int]:
    """
    Watch a number of links, and cut some of them at once.

    @return: for each that was cut, the seconds from its last byte to the verdict; and how many
        others were disturbed, or told of twice.
    """
    clock, draw = Clock(), random.Random(seed)
    hooks = Verdicts()
    factory = HeartbeatFactory(
        Factory.forProtocol(Protocol), heartbeat=heartbeat, hooks=hooks, clock=clock, ping=ask
    )
    peers = []
    for _ in range(links):
        peer = Peer(clock, draw)
        peer.protocol = factory.buildProtocol(None)
        # They come within one interval, and have their phases from that.
        clock.callLater(draw.uniform(0.0, heartbeat.interval or 1.0), connect, peer)
        peers.append(peer)
    advance(clock, 3 * heartbeat.bound)
    fallen = draw.sample(range(links), cut)
    for number in fallen:
        peers[number].silent = True
    advance(clock, clock.seconds() + heartbeat.bound + 1.0)
    generations = [peers[number].protocol.link.generation for number in fallen]
    silences = [hooks.silences.pop(generation, float("inf")) for generation in generations]
    return silences, len(hooks.silences) + hooks.repeated


def connect(peer: Peer) -> None:
    """
    The connection is there.
    """
    peer.protocol.makeConnection(peer)


def ask(protocol: Any) -> None:
    """
    Make the peer speak.
    """
    protocol.transport.write(b"?")


def advance(clock: Clock, until: float) -> None:
    """
    Go from call to call, so that each is made on its instant.
    """
    while (calls := clock.getDelayedCalls()) and calls[0].getTime() <= until:
        clock.advance(max(0.0, calls[0].getTime() - clock.seconds()))
    clock.advance(max(0.0, until - clock.seconds()))
