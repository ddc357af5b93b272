# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What watching a link costs each received chunk, and each message, over bare Twisted.

Three measurements of one protocol, C{Int16StringReceiver}: bare, with Twisted's C{TimeoutMixin},
with L{HeartbeatMixin}, wrapped, and (where there is such a thing) behind C{heartbeat:}:

  - the reactor's call alone, on a socket that only pretends that there is one more chunk;
  - a message of 64 bytes sent and echoed over real loopback, one at a time: a chunk each;
  - the same, 500 in flight: many to a chunk.

Both ends of the loopback are in this process, and the other end is the same for all, so it is the
difference that counts. The time is this process's processor time.

Run it with C{python benchmarks/datapath.py [--json FILE]}.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from time import process_time_ns
from typing import Any

from report import Comparison, Goal, inTurns, parserFor, report
from twisted.internet import tcp
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, clientFromString, serverFromString
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import react
from twisted.protocols.basic import Int16StringReceiver
from twisted.protocols.policies import TimeoutMixin

# What is measured is the checkout that this lies in, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from twisted_heartbeat import Heartbeat, HeartbeatFactory, HeartbeatMixin  # noqa: E402

try:
    import twisted_heartbeat.endpoints.build  # noqa: F401

    TUNNEL = True
except ImportError:
    TUNNEL = False

MESSAGE = struct.pack("!H", 64) + bytes(64)

GOALS = {"mixin": Goal(150, "over"), "wrapped": Goal(400, "over")}
"""Nanoseconds for each chunk."""

UNDISTURBED = Heartbeat(interval=3600, timeout=3600)
"""No peer is pinged while the others have their turn."""

CALLS_A_SAMPLE = 2000
TRIPS_A_SAMPLE = 150
IN_FLIGHT = 500
PIPELINED_A_SAMPLE = 5000
FEWEST_TURNS = 5


class Sink(Protocol):
    """
    Does nothing with what it receives.
    """

    def dataReceived(self, data: bytes) -> None:
        """
        See C{IProtocol}.
        """


class Echo(Int16StringReceiver):
    """
    Sends back what it receives.
    """

    def stringReceived(self, string: bytes) -> None:
        """
        See C{IntNStringReceiver}.
        """
        self.sendString(string)


def ping(protocol: Any) -> None:
    """
    Make the peer speak; the links are watched as they would be in use.
    """
    protocol.transport.write(MESSAGE)


def factories(kind: type[Protocol]) -> dict[str, Any]:
    """
    The ways to use one protocol.
    """

    class Timed(TimeoutMixin, kind):  # type: ignore[valid-type, misc]
        def connectionMade(self) -> None:
            super().connectionMade()
            self.setTimeout(3600)

        def dataReceived(self, data: bytes) -> None:
            self.resetTimeout()
            super().dataReceived(data)

    class Mixed(HeartbeatMixin, kind):  # type: ignore[valid-type, misc]
        sendPing = ping

    settings: dict[str, Any] = {"heartbeat": UNDISTURBED, "keepAlive": None, "ping": ping}
    return {
        "bare": Factory.forProtocol(kind),
        "TimeoutMixin": Factory.forProtocol(Timed),
        "mixin": HeartbeatFactory(Factory.forProtocol(Mixed), **settings),
        "wrapped": HeartbeatFactory(Factory.forProtocol(kind), **settings),
    }


# The call alone.


class PretendedSocket:
    """
    A socket on which there is always one more chunk.
    """

    def recv(self, size: int) -> bytes:
        """
        See C{socket.recv}.
        """
        return MESSAGE

    def setblocking(self, blocking: bool) -> None:
        """
        It never blocks.
        """

    def fileno(self) -> int:
        """
        None that the reactor could use.
        """
        return -1


class PretendedConnection(tcp.Connection):
    """
    A connection of Twisted's, but for the names that its subclasses give.
    """

    def getPeer(self) -> IPv4Address:
        """
        See C{ITransport}.
        """
        return IPv4Address("TCP", "192.0.2.1", 1)


def connectionOf(
    factory: Any, reactor: Any, kind: type[tcp.Connection] = PretendedConnection
) -> tcp.Connection:
    """
    A connection to nowhere, past its first chunk, which is the only one that is told and not seen.

    @param kind: what a port would make.
    """
    protocol = factory.buildProtocol(None)
    connection = kind(PretendedSocket(), protocol, reactor)
    connection.connected = True
    protocol.makeConnection(connection)
    connection.doRead()
    return connection


def sampleCalls(connection: tcp.Connection) -> float:
    """
    @return: nanoseconds for each call.
    """
    calls = range(CALLS_A_SAMPLE)
    began = process_time_ns()
    for _ in calls:
        # Looked up each time, as reactors do.
        connection.doRead()
    return (process_time_ns() - began) / CALLS_A_SAMPLE


async def measureCalls(reactor: Any, seconds: float) -> Comparison:
    """
    Measure C{doRead}: of a port's first connection, which is also as a client's, and of those that
    it accepts after that, which it makes as that one has become.
    """
    found = Comparison("The reactor's call for a chunk", "ns", "bare", GOALS)
    connections = {}
    for name, factory in factories(Sink).items():
        first = connectionOf(factory, reactor)
        connections[name] = connectionOf(factory, reactor, type(first))
        if type(first) is not PretendedConnection:
            connections[f"{name}, client"] = first
    for name in inTurns(list(connections), turns=FEWEST_TURNS, seconds=seconds):
        found.add(name, sampleCalls(connections[name]))
    for connection in connections.values():
        leave(connection.protocol)
    return found


def leave(protocol: Any) -> None:
    """
    Forget a connection that no reactor will ever report as lost.
    """
    link = getattr(protocol, "link", None)
    if link is not None:
        link.peerWatch.stop()
    elif isinstance(protocol, TimeoutMixin):
        protocol.setTimeout(None)


# Over loopback.


class Pitcher(Protocol):
    """
    Sends a number of messages, with a limited number in flight, and waits for their echoes.
    """

    left = 0
    unsent = 0
    done: Deferred[None]

    def pitch(self, times: int, inFlight: int) -> Deferred[None]:
        """
        Begin.
        """
        self.left = times * len(MESSAGE)
        self.unsent = times - inFlight
        self.done = Deferred()
        self.transport.write(MESSAGE * inFlight)
        return self.done

    def dataReceived(self, data: bytes) -> None:
        """
        See C{IProtocol}.
        """
        self.left -= len(data)
        if not self.left:
            self.done.callback(None)
        elif self.unsent > 0:
            more = min(self.unsent, -(-len(data) // len(MESSAGE)))
            self.unsent -= more
            self.transport.write(MESSAGE * more)


async def measureEcho(reactor: Any, seconds: float) -> list[Comparison]:
    """
    Measure both ways over loopback.
    """
    pitchers: dict[str, Pitcher] = {}
    ports = []
    for name, factory in factories(Echo).items():
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        ports.append(port)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        pitchers[name] = await endpoint.connect(Factory.forProtocol(Pitcher))
    if TUNNEL:
        listening = serverFromString(reactor, "heartbeat:tcp:0:interface=127.0.0.1")
        port = await listening.listen(Factory.forProtocol(Echo))
        ports.append(port)
        endpoint = clientFromString(reactor, f"heartbeat:tcp:127.0.0.1:{port.getHost().port}")
        pitchers["heartbeat:"] = await endpoint.connect(Factory.forProtocol(Pitcher))
    found = []
    for title, times, inFlight in (
        ("A message and its echo, one at a time", TRIPS_A_SAMPLE, 1),
        (f"A message and its echo, {IN_FLIGHT} in flight", PIPELINED_A_SAMPLE, IN_FLIGHT),
    ):
        comparison = Comparison(title, "ns", "bare")
        for pitcher in pitchers.values():
            await pitcher.pitch(times, inFlight)
        for name in inTurns(list(pitchers), turns=FEWEST_TURNS, seconds=seconds / 2):
            began = process_time_ns()
            await pitchers[name].pitch(times, inFlight)
            comparison.add(name, (process_time_ns() - began) / times)
        found.append(comparison)
    for pitcher in pitchers.values():
        pitcher.transport.loseConnection()
    for port in ports:
        await port.stopListening()
    return found


async def measure(reactor: Any, options: Any) -> None:
    """
    Measure, print, write.
    """
    third = options.seconds / 3
    found = [await measureCalls(reactor, third), *await measureEcho(reactor, 2 * third)]
    report("datapath", found, options.json, reactor=type(reactor).__name__, message=len(MESSAGE))


def main() -> None:
    """
    The command.
    """
    parser = parserFor(__doc__, seconds=1.0)
    parser.add_argument("--seconds", type=float, default=18.0, help="how long to measure in all")
    options = parser.parse_args()
    if not 0 < options.seconds <= 600:
        parser.error(f"--seconds is {options.seconds:g}: it must be above 0 and at most 600")
    react(lambda reactor: ensureDeferred(measure(reactor, options)))


if __name__ == "__main__":
    main()
