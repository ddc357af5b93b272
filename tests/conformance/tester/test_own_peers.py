# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The conformance tester against this package's own peers: servers over TCP, TLS and a UNIX socket,
the service, and the factory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    UNIXClientEndpoint,
    wrapClientTLS,
)
from twisted.internet.protocol import Factory

from twisted_heartbeat import (
    Backoff,
    Heartbeat,
    HeartbeatClientFactory,
    HeartbeatClientService,
    HeartbeatProtocol,
    HeartbeatServerFactory,
    Limits,
)
from twisted_heartbeat.conformance.play import CLIENT, SERVER, Findings, Settings
from twisted_heartbeat.conformance.runner import ClientRun, examineServer
from twisted_heartbeat.conformance.scenarios import SCENARIOS

from ...support.findings import examineAll, faultsOf
from ...support.loopback import clientOptions, serverOptions

BOUND, TOLERANCE, CLOSING, SCALE = 1.0, 0.6, 0.6, 0.05
"""Seconds."""

HEARTBEAT = Heartbeat.within(BOUND)
LIMITS = Limits(closeTimeout=CLOSING)
BACKOFF = Backoff(initial=SCALE, maximum=60 * SCALE, spread=12 * SCALE, stableAfter=10 * SCALE)
CLIENTS = 12


def settings(role: str) -> Settings:
    return Settings(
        role=role,
        bound=BOUND,
        tolerance=TOLERANCE,
        closing=CLOSING,
        scale=SCALE,
        limit=60.0,
        # Twisted's listening queue has room for 50, and a UNIX socket refuses what does not fit.
        parallel=48,
    )


def silently(factory: Any) -> Any:
    factory.noisy = False
    return factory


async def server(reactor: Any, kind: str, folder: Path) -> Findings:
    """
    Examine a server of this package.
    """
    factory = HeartbeatServerFactory(
        silently(Factory.forProtocol(HeartbeatProtocol)), heartbeat=HEARTBEAT, limits=LIMITS
    )
    if kind == "UNIX":
        path = str(folder / "socket")
        port = reactor.listenUNIX(path, factory)
        endpoint: Any = UNIXClientEndpoint(reactor, path)
    elif kind == "TLS":
        port = reactor.listenSSL(0, factory, serverOptions(), interface="127.0.0.1")
        plain = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        endpoint = wrapClientTLS(clientOptions(), plain)
    else:
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
    found = await examineServer(reactor, endpoint, settings(SERVER), SCENARIOS.values())
    await maybeDeferred(port.stopListening)
    await factory.close()
    return found


class Named(HeartbeatProtocol):
    """
    Says its number.
    """

    numbers = iter(range(10**6))


def protocolFactory(number: int) -> Any:
    return silently(Factory.forProtocol(type("Named", (Named,), {"name": f"client {number}"})))


def startService(reactor: Any, port: int, number: int) -> Callable[[], object]:
    service = HeartbeatClientService(
        TCP4ClientEndpoint(reactor, "127.0.0.1", port),
        protocolFactory(number),
        retryPolicy=BACKOFF,
        heartbeat=HEARTBEAT,
        limits=LIMITS,
    )
    service.startService()
    return service.stopService


def startFactory(reactor: Any, port: int, number: int) -> Callable[[], object]:
    class Connecting(HeartbeatClientFactory):
        noisy = False
        protocol = type("Named", (Named,), {"name": f"client {number}"})
        heartbeat = HEARTBEAT
        limits = LIMITS
        initialDelay = BACKOFF.initial
        maxDelay = BACKOFF.maximum
        spread = BACKOFF.spread
        stableAfter = BACKOFF.stableAfter

    factory = Connecting()
    connector = reactor.connectTCP("127.0.0.1", port, factory)

    def stop() -> None:
        factory.stopTrying()
        connector.disconnect()

    return stop


async def client(reactor: Any, start: Callable[..., Callable[[], object]]) -> Findings:
    """
    Examine clients of this package, which share the scenarios.
    """
    stops: list[Callable[[], object]] = []

    def listening(port: Any) -> None:
        stops.extend(start(reactor, port.getHost().port, number) for number in range(CLIENTS))

    run = ClientRun(reactor, settings(CLIENT), SCENARIOS.values())
    found = await run.run(TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"), listening)
    for stop in stops:
        await maybeDeferred(stop)
    return found


CLIENTS_BY = {"service": startService, "factory": startFactory}
KINDS = ("TCP", "TLS", "UNIX", *CLIENTS_BY)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Findings]]:
    """
    What was found of all of them, side by side.
    """
    from twisted.internet import reactor

    folder = tmp_path_factory.mktemp("sockets")
    # They are made once, which takes long, and nothing else would run meanwhile.
    serverOptions()

    async def examined(kind: str) -> Findings:
        if kind in CLIENTS_BY:
            return await client(reactor, CLIENTS_BY[kind])
        return await server(reactor, kind, folder)

    yield examineAll(KINDS, examined)


@pytest.mark.parametrize("kind", KINDS)
def test_ownPeerPasses(results: dict[str, Findings], kind: str) -> None:
    """
    A peer of this package keeps every rule, also those that only should be kept, and every scenario
    is played.
    """
    assert faultsOf(results[kind]) == []
    assert results[kind].unplayed == []
