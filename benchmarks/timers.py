# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What the timers alone cost: ten thousand links on one reactor, each looked at once a second, whose
peers speak so often that no ping is due.

The links are real, the reactor and its clock are too; the transports only pretend, and so do the
peers, whose words are stamped as a chunk would be.  The rival is a delayed call for each link that
is put off at each word, as C{TimeoutMixin} does.

Run it with C{python benchmarks/timers.py [--json FILE]}.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from time import monotonic, process_time
from typing import Any

from datapath import PretendedConnection, PretendedSocket, leave
from report import Comparison, Goal, inTurns, parserFor, report
from twisted.internet.defer import ensureDeferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater, react
from twisted.protocols.policies import TimeoutMixin

# What is measured is the checkout that this lies in, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from twisted_heartbeat import Heartbeat, HeartbeatFactory  # noqa: E402
from twisted_heartbeat.link.link import Link

LINKS = 10_000
GOALS = {"ours": Goal(1.0, "over")}


class Timed(Protocol, TimeoutMixin):
    """
    One delayed call each.
    """

    def connectionMade(self) -> None:
        """
        See C{IProtocol}.
        """
        self.setTimeout(2.5)

    def speak(self) -> None:
        """
        The peer has said something.
        """
        self.resetTimeout()


class RealDescriptor(PretendedSocket):
    """
    One that may be asked what waits in it.
    """

    real = socket.socket()

    def fileno(self) -> int:
        """
        One for all.
        """
        return self.real.fileno()


def connected(factory: Any, reactor: Any) -> Any:
    """
    A protocol that is connected to nowhere.
    """
    protocol = factory.buildProtocol(None)
    connection = PretendedConnection(RealDescriptor(), protocol, reactor)
    connection.connected = True
    protocol.makeConnection(connection)
    return protocol


async def speaking(reactor: Any, spoken: list[Any], seconds: float) -> float:
    """
    Let all peers speak four times a second, spread over the second, for a number of seconds.

    @return: processor seconds, without the seconds that the speaking itself takes.
    """
    began, used, at = monotonic(), 0.0, 0
    start = process_time()
    while monotonic() < began + seconds:
        due = int((monotonic() - began) * 4 * len(spoken))
        spent = process_time()
        for index in range(at, due):
            spoken[index % len(spoken)]()
        used += process_time() - spent
        at = due
        await deferLater(reactor, 1 / 64)
    return process_time() - start - used


def stamping(link: Link) -> Any:
    """
    What a chunk does.
    """

    def speak() -> None:
        link.peerWatch.detector.heardAt = link.seconds()

    return speak


async def measure(reactor: Any, options: Any) -> None:
    """
    Measure, print, write.
    """
    title = f"{LINKS} links, each with a word four times a second"
    found = Comparison(title, "% of a core", "nothing", GOALS)
    watched = HeartbeatFactory(
        Factory.forProtocol(Protocol),
        heartbeat=Heartbeat(interval=1, timeout=1.5),
        keepAlive=None,
        ping=lambda protocol: None,
    )
    for name in inTurns(["nothing", "ours", "TimeoutMixin"], turns=options.turns):
        protocols: list[Any] = []
        spoken: list[Any] = [lambda: None]
        factory = watched if name == "ours" else Factory.forProtocol(Timed)
        while name != "nothing" and len(protocols) < LINKS:
            for _ in range(min(LINKS // 64, LINKS - len(protocols))):
                protocol = connected(factory, reactor)
                protocols.append(protocol)
                spoken.append(stamping(protocol.link) if name == "ours" else protocol.speak)
            for speak in spoken:
                speak()
            await deferLater(reactor, 1 / 64)
        await speaking(reactor, spoken, 1.0)
        used = await speaking(reactor, spoken, options.window)
        found.add(name, 100 * used / options.window)
        for protocol in protocols:
            leave(protocol)
    report("timers", [found], options.json, links=LINKS, reactor=type(reactor).__name__)


def main() -> None:
    """
    The command.
    """
    parser = parserFor(__doc__, turns=1, window=0.5)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument(
        "--window", type=float, default=2.0, help="seconds of each turn's measuring"
    )
    options = parser.parse_args()
    react(lambda reactor: ensureDeferred(measure(reactor, options)))


if __name__ == "__main__":
    main()
