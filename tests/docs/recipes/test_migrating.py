# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The page about existing code: each client there, before and after, is run through the fault that the
page speaks of.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, DeferredQueue, maybeDeferred
from twisted.internet.interfaces import IConnector
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineReceiver

from twisted_heartbeat import Heartbeat, HeartbeatClientService
from twisted_heartbeat.testing import BlackHole, FaultProxy, StopReading

from ...support.loopback import wait, within
from ...support.modules import imported
from .recipe import EXAMPLES

BOUND = 0.6
"""Seconds that the clients are given."""

SOON = BOUND + 1.0 + 2.0
"""Seconds for the verdict, the longest first wait of a retry, and a busy machine."""

AMPLE = 20.0
"""Seconds after which a wait for what must come is a failure."""

INTRODUCTION = b"sensor-17"

Proxies = Callable[..., Deferred[FaultProxy]]


class Hub(LineReceiver):
    """
    Tells its factory who has come, and answers every line.
    """

    def lineReceived(self, line: bytes) -> None:
        """
        See C{LineReceiver}.
        """
        if line == INTRODUCTION:
            self.factory.introduced.put(line)
        self.sendLine(b"what?")


class Hubs(Factory):
    """
    @ivar introduced: gets an item for each client that has said who it is.
    """

    protocol: Any = Hub
    noisy = False

    def __init__(self) -> None:
        self.introduced: DeferredQueue[bytes] = DeferredQueue()


def webSocketHubs() -> Any:
    """
    The same over WebSocket, which answers pings by itself.
    """
    from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol

    class WebSocketHub(WebSocketServerProtocol):  # type: ignore[misc]
        def onMessage(self, payload: bytes, isBinary: bool) -> None:
            self.factory.introduced.put(payload)

    factory = WebSocketServerFactory()
    factory.protocol = WebSocketHub
    factory.noisy = False
    factory.introduced = DeferredQueue()
    return factory


class Case:
    """
    One client that is connected to a hub through a proxy.

    @ivar client: what the example's C{start} has returned.
    """

    def __init__(self, module: Any, hubs: Any, proxy: FaultProxy) -> None:
        self.module = module
        self.hubs = hubs
        self.proxy = proxy
        self.client: Any = None

    async def start(self, *settings: float) -> None:
        """
        Connect the client, and wait until the hub knows it.
        """
        from twisted.internet import reactor

        where = ["127.0.0.1", self.proxy.port]
        if self.module.__name__.startswith(("client_service", "looping_ping")):
            where = [self.proxy.description]
        self.client = self.module.start(reactor, *where, *settings)
        await self.introduced()

    def introduced(self) -> Deferred[Any]:
        """
        Fires when the hub has been told once more who is there.
        """
        return within(self.hubs.introduced.get(), AMPLE)

    async def end(self) -> None:
        """
        End the client, whatever state it is in.
        """
        if IConnector.providedBy(self.client):
            self.client.factory.stopTrying()
            self.client.disconnect()
        ending = None if IConnector.providedBy(self.client) else self.client.stopService()
        # Twisted's own would wait for ever for one that can not hang up.
        self.proxy.reset()
        await within(maybeDeferred(lambda: ending), AMPLE)


@pytest.fixture
def case(faultProxy: Proxies) -> Iterator[Callable[[str], Deferred[Case]]]:
    """
    Make the case of one example, which ends with the test.
    """
    from twisted.internet import reactor

    made: list[tuple[Any, Case]] = []

    async def make(name: str) -> Case:
        if name.startswith("auto_ping") and find_spec("autobahn") is None:
            pytest.skip("not installed: autobahn")
        hubs = webSocketHubs() if name.startswith("auto_ping") else Hubs()
        port = reactor.listenTCP(0, hubs, interface="127.0.0.1")
        proxy = await faultProxy(("127.0.0.1", port.getHost().port))
        made.append((port, Case(imported(EXAMPLES / "migrating" / f"{name}.py"), hubs, proxy)))
        return made[-1][1]

    yield lambda name: Deferred.fromCoroutine(make(name))
    for port, one in made:
        pytest_twisted.blockon(Deferred.fromCoroutine(one.end()))
        pytest_twisted.blockon(maybeDeferred(port.stopListening))


@pytest.mark.parametrize("name", ["client_service_before", "reconnecting_before"])
@pytest_twisted.ensureDeferred
async def test_beforeSeesNothing(name: str, case: Any) -> None:
    """
    Twisted's own classes do not notice that the path is cut.
    """
    one = await case(name)
    await one.start()
    one.proxy.inject(BlackHole(), connections="existing")
    await wait(3 * BOUND)
    assert one.proxy.connectionsMade == 1


@pytest_twisted.ensureDeferred
async def test_beforeAutoPing(case: Any) -> None:
    """
    autobahn's auto-ping does notice.
    """
    one = await case("auto_ping_before")
    await one.start(BOUND / 2, BOUND / 2)
    one.proxy.inject(BlackHole(), connections="existing")
    await one.introduced()
    assert one.proxy.connectionsMade == 2


@pytest_twisted.ensureDeferred
async def test_beforeLoopingPing(case: Any) -> None:
    """
    A ping of one's own notices, too, as long as nothing waits to be sent.
    """
    one = await case("looping_ping_before")
    one.module.Sensor.interval = BOUND / 2
    await one.start()
    one.proxy.inject(BlackHole(), connections="existing")
    await one.introduced()
    assert one.proxy.connectionsMade == 2


async def fillBuffer(one: Case) -> Any:
    """
    Have the client send more than anybody takes.

    @return: its protocol.
    """
    sensor = await one.client.whenConnected()
    one.proxy.inject(StopReading(), connections="existing")
    sensor.transport.write(bytes(20_000_000))
    return sensor


@pytest_twisted.ensureDeferred
async def test_beforeLoopingPingCanNotHangUp(case: Any) -> None:
    """
    But C{loseConnection} waits for ever for a buffer that nobody takes.
    """
    one = await case("looping_ping_before")
    one.module.Sensor.interval = BOUND / 2
    await one.start()
    sensor = await fillBuffer(one)
    await wait(3 * BOUND)
    assert sensor.transport.disconnecting
    assert one.proxy.connectionsMade == 1


@pytest_twisted.ensureDeferred
async def test_afterLoopingPingHangsUp(case: Any) -> None:
    """
    A verdict does not.
    """
    one = await case("looping_ping_after")
    await one.start(BOUND)
    await fillBuffer(one)
    await one.introduced()
    assert one.proxy.connectionsMade == 2


@pytest.mark.parametrize(
    "name", ["client_service_after", "reconnecting_after", "looping_ping_after", "auto_ping_after"]
)
@pytest_twisted.ensureDeferred
async def test_afterFindsIt(name: str, case: Any) -> None:
    """
    Afterwards each finds it within the bound, and introduces itself again; and none gives up a hub
    that is idle and alive.
    """
    one = await case(name)
    await one.start(BOUND)
    for _ in range(3):
        made = one.proxy.connectionsMade
        await wait(1.5 * BOUND)
        if one.proxy.connectionsMade == made:
            break
    else:
        raise AssertionError("an idle link was given up")
    cutAt = time.monotonic()
    one.proxy.inject(BlackHole(), connections="existing")
    await one.introduced()
    assert time.monotonic() - cutAt <= SOON
    assert one.proxy.connectionsMade == made + 1


@pytest.mark.parametrize("pings", [True, False])
@pytest_twisted.ensureDeferred
async def test_classIsSwappedInTheModuleThatUsesIt(pings: bool, case: Any) -> None:
    """
    A C{partial} of the service in the place of C{ClientService} finds it as well, in a module that
    is left as it is. A bare swap, without a ping, does not.
    """
    one = await case("client_service_before")
    settings: dict[str, Any] = {"heartbeat": Heartbeat.within(BOUND)}
    if pings:
        settings["ping"] = lambda sensor: sensor.sendLine(b"ping")
    one.module.ClientService = partial(HeartbeatClientService, **settings)
    await one.start()
    one.proxy.inject(BlackHole(), connections="existing")
    if pings:
        await one.introduced()
    else:
        await wait(3 * BOUND)
    assert one.proxy.connectionsMade == 1 + pings
