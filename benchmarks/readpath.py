# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What watching a link costs each received chunk, in nanoseconds over bare Twisted.

Two measurements, each of a bare protocol, one with L{HeartbeatMixin} and a wrapped one:

  - C{doRead}: the reactor's call alone, on a socket that only pretends;
  - C{echo}: a whole round trip of 64 bytes over real loopback, of which the measured end reads one
    chunk and writes one.  The goal is for the reading alone, so there is none for this.

The machine's speed drifts, so the three take turns, and each is compared with the bare one of its
own turn; the median of these differences is what counts, and the quartiles say how sure it is. The
time is this process's processor time: what else the machine does is not counted.

Run it with C{python benchmarks/readpath.py [--json FILE]}.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from time import monotonic, process_time_ns
from typing import Any

import twisted
from twisted.internet import tcp
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import react

# What is measured is the checkout that this lies in, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from twisted_heartbeat import Heartbeat, HeartbeatFactory, HeartbeatMixin  # noqa: E402

CHUNK = bytes(64)

GOALS = {("doRead", "mixin"): 150, ("doRead", "wrapped"): 400}
"""Nanoseconds over bare, at most."""

UNDISTURBED = Heartbeat(interval=3600, timeout=3600)
"""Nobody is pinged while the others have their turn."""

CALLS_A_SAMPLE = 2000
TRIPS_A_SAMPLE = 150
FEWEST_TURNS = 5

Samples = dict[str, list[float]]


class Sink(Protocol):
    """
    Does nothing with what it receives.
    """

    def dataReceived(self, data: bytes) -> None:
        """
        See C{IProtocol}.
        """


class Echo(Protocol):
    """
    Sends back what it receives.
    """

    def dataReceived(self, data: bytes) -> None:
        """
        See C{IProtocol}.
        """
        self.transport.write(data)


def ping(protocol: Any) -> None:
    """
    Make the peer speak; the links are watched as they would be in use.
    """
    protocol.transport.write(CHUNK)


def factories(kind: type[Protocol]) -> dict[str, Any]:
    """
    The three ways to use one protocol.
    """

    class Mixed(HeartbeatMixin, kind):  # type: ignore[valid-type, misc]
        sendPing = ping

    settings: dict[str, Any] = {"heartbeat": UNDISTURBED, "keepAlive": None, "ping": ping}
    made = {
        "bare": Factory.forProtocol(kind),
        "mixin": HeartbeatFactory(Factory.forProtocol(Mixed), **settings),
        "wrapped": HeartbeatFactory(Factory.forProtocol(kind), **settings),
    }
    return made


# The call alone.


class PretendedSocket:
    """
    A socket on which there is always one more chunk.
    """

    def recv(self, size: int) -> bytes:
        """
        See C{socket.recv}.
        """
        return CHUNK

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


def connectionOf(factory: Any, reactor: Any) -> tcp.Connection:
    """
    A connection to nowhere, past its first chunk, which is the only one that is told and not seen.
    """
    protocol = factory.buildProtocol(None)
    connection = PretendedConnection(PretendedSocket(), protocol, reactor)
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


async def measureCalls(reactor: Any, seconds: float) -> Samples:
    """
    Measure C{doRead}.
    """
    connections = {
        name: connectionOf(factory, reactor) for name, factory in factories(Sink).items()
    }

    async def sample(name: str) -> float:
        return sampleCalls(connections[name])

    samples = await inTurns(list(connections), sample, seconds)
    for name, connection in connections.items():
        if name != "bare":
            leave(connection.protocol)
    return samples


def leave(protocol: Any) -> None:
    """
    Have the pulse forget a link that no reactor will ever report as lost.
    """
    protocol.link._pulse.leave(protocol.link)


# The round trip.


class Pitcher(Protocol):
    """
    Sends one chunk at a time, so many times.
    """

    left = 0
    done: Deferred[None]

    def pitch(self, times: int) -> Deferred[None]:
        """
        Begin.
        """
        self.left = times
        self.done = Deferred()
        self.transport.write(CHUNK)
        return self.done

    def dataReceived(self, data: bytes) -> None:
        """
        See C{IProtocol}.
        """
        self.left -= 1
        if self.left:
            self.transport.write(CHUNK)
        else:
            self.done.callback(None)


async def measureEcho(reactor: Any, seconds: float) -> Samples:
    """
    Measure a round trip over loopback.
    """
    pitchers: dict[str, Pitcher] = {}
    ports = []
    for name, factory in factories(Echo).items():
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        ports.append(port)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        pitchers[name] = pitcher = await endpoint.connect(Factory.forProtocol(Pitcher))
        pitcher.transport.setTcpNoDelay(True)
        await pitcher.pitch(TRIPS_A_SAMPLE)

    async def sample(name: str) -> float:
        began = process_time_ns()
        await pitchers[name].pitch(TRIPS_A_SAMPLE)
        return (process_time_ns() - began) / TRIPS_A_SAMPLE

    samples = await inTurns(list(pitchers), sample, seconds)
    for pitcher in pitchers.values():
        pitcher.transport.loseConnection()
    for port in ports:
        await port.stopListening()
    return samples


# Turns, and what they come to.


async def inTurns(names: list[str], sample: Callable[[str], Any], seconds: float) -> Samples:
    """
    Sample all, turn by turn, each turn beginning with another.
    """
    samples: Samples = {name: [] for name in names}
    deadline = monotonic() + seconds
    turn = 0
    while turn < FEWEST_TURNS or monotonic() < deadline:
        for place in range(len(names)):
            name = names[(turn + place) % len(names)]
            samples[name].append(await sample(name))
        turn += 1
    return samples


def summary(what: str, samples: Samples) -> dict[str, dict[str, float | int | None]]:
    """
    Medians, differences from bare, and their quartiles; nanoseconds.
    """
    bare = samples["bare"]
    rows: dict[str, dict[str, float | int | None]] = {}
    for name, values in samples.items():
        over = [value - base for value, base in zip(values, bare, strict=True)]
        ratios = [value / base for value, base in zip(values, bare, strict=True)]
        low, _, high = quantiles(over, n=4)
        rows[name] = {
            "median": round(median(values), 1),
            "ratio": round(median(ratios), 3),
            "over": round(median(over), 1),
            "overLow": round(low, 1),
            "overHigh": round(high, 1),
            "goal": GOALS.get((what, name)),
            "turns": len(values),
        }
    return rows


def table(measured: dict[str, dict[str, dict[str, float | int | None]]]) -> str:
    """
    The same, for people.
    """
    head = ("what", "protocol", "ns/chunk", "ratio", "over bare (quartiles)", "goal", "met")
    lines = ["{:<8}{:<10}{:>10}{:>8}{:>28}{:>6}{:>6}".format(*head)]
    for what, rows in measured.items():
        for name, row in rows.items():
            over = f"{row['over']:+.0f} ({row['overLow']:+.0f} .. {row['overHigh']:+.0f})"
            goal = row["goal"]
            met = "" if goal is None else "yes" if (row["over"] or 0.0) <= goal else "no"
            cells = (
                what,
                name,
                f"{row['median']:.0f}",
                f"{row['ratio']:.3f}",
                "" if name == "bare" else over,
                "" if goal is None else goal,
                met,
            )
            lines.append("{:<8}{:<10}{:>10}{:>8}{:>28}{:>6}{:>6}".format(*cells))
    return "\n".join(lines)


async def measure(reactor: Any, seconds: float, path: Path | None) -> None:
    """
    Measure, print, write.
    """
    measured = {
        "doRead": summary("doRead", await measureCalls(reactor, seconds / 2)),
        "echo": summary("echo", await measureEcho(reactor, seconds / 2)),
    }
    print(table(measured))
    if path is not None:
        about = {
            "python": platform.python_version(),
            "twisted": twisted.__version__,
            "reactor": type(reactor).__name__,
            "system": platform.platform(),
            "chunk": len(CHUNK),
            "unit": "ns",
        }
        path.write_text(json.dumps({**about, "measured": measured}, indent=2) + "\n")


def main(arguments: list[str]) -> None:
    """
    The command.
    """
    parser = argparse.ArgumentParser(description="What watching a link costs each received chunk.")
    parser.add_argument("--seconds", type=float, default=16.0, help="how long to measure in all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there, too")
    options = parser.parse_args(arguments)
    if not 0 < options.seconds <= 600:
        parser.error(f"--seconds is {options.seconds:g}: it must be above 0 and at most 600")
    react(lambda reactor: ensureDeferred(measure(reactor, options.seconds, options.json)))


if __name__ == "__main__":
    main(sys.argv[1:])
