# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What it costs a stream to be watched: processor time beside the bare endpoint, over real loopback.

C{keepalive:} and C{heartbeat:} before the endpoint's string, and a factory that is wrapped, each at
both ends:

  - bulk: a mebibyte on its way from a producer to a peer that throws it away, both ends included;
  - echo: a round trip of 64 bytes, both ends included.

Run it with C{python benchmarks/tunnel.py [--seconds S] [--json FILE]}.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time_ns
from typing import Any

import trustme
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import react
from zope.interface import implementer

# What is measured is the checkout that this lies in, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from report import Comparison, inTurns, parserFor, report  # noqa: E402

from twisted_heartbeat import HeartbeatFactory  # noqa: E402
from twisted_heartbeat.endpoints.build import clientFor, serverFor

MEBIBYTE = 1024 * 1024
BULK = 32 * MEBIBYTE
CHUNK = bytes(64 * 1024)
"""What the producer writes at a time: what a reader of files or sockets has in hand."""

SMALL = bytes(64)
TRIPS = 300
FEWEST_TURNS = 5

WAYS = ("bare", "keepalive:", "wrapped", "heartbeat:")
QUIET = {"within": "3600"}
"""No peer is pinged while the others have their turn."""


class Sink(Protocol):
    """
    Throws away what it receives, and tells when it has had enough.

    @ivar left: bytes until then.
    """

    left = 0
    done: Deferred[None]

    def expect(self, size: int) -> Deferred[None]:
        """
        Begin.
        """
        self.left = size
        self.done = Deferred()
        return self.done

    def dataReceived(self, data: bytes) -> None:
        """
        See C{IProtocol}.
        """
        self.left -= len(data)
        if self.left == 0:
            self.done.callback(None)


@implementer(IPushProducer)
class Source:
    """
    Writes as much as it is told, as fast as it may.
    """

    def __init__(self, transport: Any, size: int) -> None:
        self._transport = transport
        self._left = size
        self._paused = False

    def resumeProducing(self) -> None:
        """
        See C{IPushProducer}.
        """
        self._paused = False
        while self._left and not self._paused:
            self._left -= len(CHUNK)
            self._transport.write(CHUNK)
        if not self._left:
            self._transport.unregisterProducer()

    def pauseProducing(self) -> None:
        """
        See C{IPushProducer}.
        """
        self._paused = True

    def stopProducing(self) -> None:
        """
        See C{IProducer}.
        """
        self._left = 0


class Echo(Protocol):
    """
    Sends back what it receives.
    """

    def dataReceived(self, data: bytes) -> None:
        """
        See C{IProtocol}.
        """
        self.transport.write(data)


class Accepting(Factory):
    """
    @ivar accepted: fires with the next connection.
    """

    noisy = False

    def __init__(self, protocol: type[Protocol]) -> None:
        self.protocol = protocol
        self.accepted: Deferred[Any] = Deferred()

    def buildProtocol(self, addr: Any) -> Any:
        """
        See C{IProtocolFactory}.
        """
        protocol: Any = super().buildProtocol(addr)
        # Not before it has a transport.
        protocol.connectionMade = lambda: self.accepted.callback(protocol)
        return protocol


class Pitcher(Sink):
    """
    Sends a number of small messages, one at a time.
    """

    trips = 0

    def pitch(self) -> Deferred[None]:
        """
        Begin.
        """
        self.trips = TRIPS
        self.done = Deferred()
        self.transport.write(SMALL)
        return self.done

    def dataReceived(self, data: bytes) -> None:
        """
        See C{IProtocol}.
        """
        self.trips -= 1
        if self.trips:
            self.transport.write(SMALL)
        else:
            self.done.callback(None)


class Place:
    """
    Descriptions of endpoints on loopback, plain or with TLS.
    """

    def __init__(self, folder: str, secured: bool) -> None:
        self._folder = folder
        self._secured = secured

    def server(self) -> tuple[list[str], dict[str, str]]:
        """
        As Twisted's parser would have it.
        """
        if self._secured:
            pem = f"{self._folder}/server.pem"
            return ["ssl", "0"], {"privateKey": pem, "interface": "127.0.0.1"}
        return ["tcp", "0"], {"interface": "127.0.0.1"}

    def client(self, port: int) -> tuple[list[str], dict[str, str]]:
        """
        The same.
        """
        if self._secured:
            endpoint = f"tcp:127.0.0.1:{port}"
            options = {"trustRoots": f"{self._folder}/roots", "endpoint": endpoint}
            return ["tls", "peer.example", str(port)], options
        return ["tcp", "127.0.0.1", str(port)], {}


def described(arguments: list[str], keywords: dict[str, str]) -> str:
    """
    The string itself.
    """
    pairs = [f"{name}={value.replace(':', chr(92) + ':')}" for name, value in keywords.items()]
    return ":".join([*arguments, *pairs])


def ends(way: str, place: Place, reactor: Any) -> tuple[Any, Any]:
    """
    @return: the endpoint to listen at, and what makes that to connect to, of a port.
    """
    arguments, keywords = place.server()
    if way in ("bare", "wrapped"):
        listening = serverFromString(reactor, described(arguments, keywords))
        return listening, lambda port: clientFromString(reactor, described(*place.client(port)))
    word = way.rstrip(":")
    extra = QUIET if word == "heartbeat" else {}

    def connecting(port: int) -> Any:
        arguments, keywords = place.client(port)
        return clientFor(word, reactor, arguments, {**keywords, **extra})

    return serverFor(word, reactor, arguments, {**keywords, **extra}), connecting


def through(way: str, factory: Any) -> Any:
    """
    The factory, wrapped if that is the way.
    """
    if way != "wrapped":
        return factory
    return HeartbeatFactory(factory, keepAlive=None, ping=lambda protocol: None, heartbeat=None)


async def connected(
    way: str, place: Place, reactor: Any, client: type[Protocol], server: type[Protocol]
) -> tuple[Any, Any, Any]:
    """
    @return: the port, and both protocols.
    """
    listening, connecting = ends(way, place, reactor)
    accepting = Accepting(server)
    port = await listening.listen(through(way, accepting))
    here = await connecting(port.getHost().port).connect(through(way, Factory.forProtocol(client)))
    there = await accepting.accepted
    for protocol in (here, there):
        protocol.transport.setTcpNoDelay(True)
    return port, here, there


async def pour(here: Any, there: Any) -> float:
    """
    @return: milliseconds for a mebibyte.
    """
    began = process_time_ns()
    done = there.expect(BULK)
    source = Source(here.transport, BULK)
    here.transport.registerProducer(source, True)
    source.resumeProducing()
    await done
    return (process_time_ns() - began) / 1e6 * MEBIBYTE / BULK


async def pitch(here: Any) -> float:
    """
    @return: microseconds for a round trip.
    """
    began = process_time_ns()
    await here.pitch()
    return (process_time_ns() - began) / 1e3 / TRIPS


async def compare(reactor: Any, place: Place, kind: str, seconds: float) -> list[Comparison]:
    """
    Measure both, over one kind of connection.
    """
    bulk = Comparison(f"bulk over {kind}, each MiB", "ms", "bare")
    echo = Comparison(f"echo over {kind}, each round trip", "us", "bare")
    pours = {way: await connected(way, place, reactor, Protocol, Sink) for way in WAYS}
    trips = {way: await connected(way, place, reactor, Pitcher, Echo) for way in WAYS}
    for way in WAYS:
        await pour(*pours[way][1:])
        await pitch(trips[way][1])
    for way in inTurns(WAYS, turns=FEWEST_TURNS, seconds=seconds):
        bulk.add(way, await pour(*pours[way][1:]))
        echo.add(way, await pitch(trips[way][1]))
    for port, here, _ in [*pours.values(), *trips.values()]:
        here.transport.loseConnection()
        await port.stopListening()
    return [bulk, echo]


def writeCertificates(folder: str) -> None:
    """
    An authority's in a folder of its own, and one for C{peer.example}.
    """
    authority = trustme.CA()
    issued = authority.issue_cert("peer.example")
    issued.private_key_and_cert_chain_pem.write_to_path(f"{folder}/server.pem")
    (Path(folder) / "roots").mkdir()
    authority.cert_pem.write_to_path(f"{folder}/roots/authority.pem")


async def measure(reactor: Any, seconds: float, path: Path | None) -> None:
    """
    Measure, print, write.
    """
    with TemporaryDirectory() as folder:
        writeCertificates(folder)
        found = await compare(reactor, Place(folder, False), "TCP", seconds / 2)
        found += await compare(reactor, Place(folder, True), "TLS", seconds / 2)
    report("tunnel", found, path, reactor=type(reactor).__name__)


def main(arguments: list[str]) -> None:
    """
    The command.
    """
    parser = parserFor(__doc__, seconds=1.0)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to measure in all")
    options = parser.parse_args(arguments)
    if not 0 < options.seconds <= 600:
        parser.error(f"--seconds is {options.seconds:g}: it must be above 0 and at most 600")
    react(lambda reactor: ensureDeferred(measure(reactor, options.seconds, options.json)))


if __name__ == "__main__":
    main(sys.argv[1:])
