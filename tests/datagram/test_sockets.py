# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Senders and monitors over real sockets on loopback: IPv4, IPv6, multicast, bad networks.
"""

from __future__ import annotations

import random
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import deferLater

from twisted_heartbeat import (
    DatagramHooks,
    Heartbeat,
    PeerSilent,
    UDPHeartbeatMonitor,
    UDPHeartbeatSender,
)
from twisted_heartbeat.core.counters import DatagramCounters
from twisted_heartbeat.datagram.sockets import Sockets
from twisted_heartbeat.testing import Delay, Drop, Duplicate, Reorder

from ..support.datagrams import SECRET
from .test_monitor import Recorder

BOUND = 1.0
WAIT_LIMIT = 15.0
GROUP = "239.255.84.71"


def hasIPv6() -> bool:
    """
    Whether there is IPv6 on loopback.
    """
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as one:
        try:
            one.bind(("::1", 0))
        except OSError:
            return False
    return True


needsIPv6 = pytest.mark.skipif(not hasIPv6(), reason="this system has no IPv6")


async def until(holds: Callable[[], object]) -> None:
    """
    Wait until it holds.
    """
    from twisted.internet import reactor

    deadline = time.monotonic() + WAIT_LIMIT
    while not holds():
        assert time.monotonic() < deadline
        await deferLater(reactor, 0.01)


class Place:
    """
    Starts senders and monitors, and stops them.
    """

    def __init__(self) -> None:
        self.services: list[Any] = []

    def monitor(self, **settings: Any) -> tuple[UDPHeartbeatMonitor, Recorder]:
        """
        Start a monitor.
        """
        hooks = Recorder()
        settings = {"port": 0, "interface": "127.0.0.1", "hooks": hooks, **settings}
        made = UDPHeartbeatMonitor({"pump": SECRET}, **settings)
        made.startService()
        self.services.append(made)
        return made, hooks

    def sender(self, monitors: Any, **settings: Any) -> tuple[UDPHeartbeatSender, Recorder]:
        """
        Start a sender.
        """
        hooks = Recorder()
        usual: dict[str, Any] = {"heartbeat": Heartbeat.within(BOUND), "every": BOUND / 8}
        usual |= {"name": "pump", "key": SECRET, "hooks": hooks}
        made = UDPHeartbeatSender(monitors, **usual | settings)
        made.startService()
        self.services.append(made)
        return made, hooks

    async def close(self) -> None:
        """
        Stop them all.
        """
        for service in reversed(self.services):
            await service.stopService()


@pytest_twisted.async_yield_fixture
async def place() -> AsyncIterator[Place]:
    """
    A place for services.
    """
    made = Place()
    yield made
    await made.close()


@pytest_twisted.ensureDeferred
async def test_ipv4(place: Place) -> None:
    """
    Over IPv4: both sides see each other, readings come, and a goodbye is heard.
    """
    watcher, heard = place.monitor()
    port = watcher.getHost().port
    sender, told = place.sender(("127.0.0.1", port), reading=lambda: b"21.5")
    await until(lambda: len(heard.readings) >= 3)
    assert heard.names == told.names == ["connected"]
    assert watcher.peers["pump"].peer.host == "127.0.0.1"
    assert sender.current.rtt is not None and sender.current.rtt < 1.0
    await sender.stopService()
    await until(lambda: heard.names[-1] == "disconnected")


@needsIPv6
@pytest_twisted.ensureDeferred
async def test_ipv6(place: Place) -> None:
    """
    Over IPv6, the same.
    """
    watcher, heard = place.monitor(interface="::1")
    _, told = place.sender(("::1", watcher.getHost().port))
    await until(lambda: told.names and heard.names)
    assert watcher.peers["pump"].peer.host == "::1"


@needsIPv6
@pytest.mark.skipif(sys.platform != "linux", reason="the name of loopback is that of Linux")
@pytest.mark.parametrize("host", ["0:0:0:0:0:0:0:1", "::1%lo"])
@pytest_twisted.ensureDeferred
async def test_spellingOfAnAddress(place: Place, host: str) -> None:
    """
    Acknowledgements of several monitors count however the user has spelled their IPv6 addresses.
    """
    ports = [place.monitor(interface="::1")[0].getHost().port for _ in range(2)]
    sender, told = place.sender([(host, port) for port in ports], all=True)
    await until(lambda: told.names == ["connected"] * 2)
    assert {monitor.state for monitor in sender.monitors} == {"alive"}


@needsIPv6
@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not map IPv4 by default")
@pytest_twisted.ensureDeferred
async def test_bothFamilies(place: Place) -> None:
    """
    A monitor on C{::} hears IPv4 as well, and tells its address as IPv4; the acknowledgement
    arrives.
    """
    watcher, heard = place.monitor(interface="::")
    _, told = place.sender(("127.0.0.1", watcher.getHost().port))
    await until(lambda: told.names and heard.names)
    assert watcher.peers["pump"].peer.host == "127.0.0.1"


@pytest_twisted.ensureDeferred
async def test_hostName(place: Place) -> None:
    """
    A host's name is looked up.
    """
    watcher, _ = place.monitor()
    _, told = place.sender(("localhost", watcher.getHost().port))
    await until(lambda: told.names)


def freePort(family: int) -> int:
    """
    A port that is free.
    """
    with socket.socket(family, socket.SOCK_DGRAM) as one:
        one.bind(("", 0))
        found: int = one.getsockname()[1]
        return found


@pytest.mark.skipif(sys.platform != "linux", reason="multicast over loopback is set up for Linux")
@pytest_twisted.ensureDeferred
async def test_multicast(place: Place) -> None:
    """
    A monitor of a multicast group challenges the sender by unicast, and hears it from then on.
    """
    port = freePort(socket.AF_INET)
    watcher, heard = place.monitor(port=port, interface="", groups=[f"{GROUP}%lo"])
    place.sender((GROUP, port), watch=False, interface="127.0.0.1")
    await until(lambda: heard.names == ["connected"])
    await until(lambda: watcher.peers["pump"].received >= 4)


@pytest_twisted.ensureDeferred
async def test_badNetwork(place: Place, datagramFaultProxy: Any) -> None:
    """
    Loss, bursts, duplication, reordering, jitter and a rebinding NAT: no verdict, and all of it can
    be read for the peer.
    """
    watcher, heard = place.monitor()
    draw = random.Random(2).random
    proxy = await datagramFaultProxy(("127.0.0.1", watcher.getHost().port), random=draw)
    place.sender(proxy.address, every=0.03)
    await until(lambda: heard.names)
    proxy.inject(Drop(probability=0.1, burst=3))
    proxy.inject(Duplicate())
    proxy.inject(Delay(seconds=0.05, jitter=0.05))
    peer = watcher.peers["pump"]
    for _ in range(4):
        received, address = peer.received, peer.address
        await until(lambda: peer.received >= received + 8)  # noqa: B023
        await proxy.rebind()
        await until(lambda: peer.address != address)  # noqa: B023
    assert set(heard.names) <= {"connected", "suspected", "recovered"}
    assert heard.names.count("connected") == 1
    assert peer.lost > 0 and peer.duplicates > 0 and peer.reordered > 0 and peer.jitter > 0
    assert 0 < peer.slack < BOUND


@pytest_twisted.ensureDeferred
async def test_reordered(place: Place, datagramFaultProxy: Any) -> None:
    """
    A network that swaps each two datagrams costs no verdict.
    """
    watcher, heard = place.monitor()
    proxy = await datagramFaultProxy(("127.0.0.1", watcher.getHost().port))
    place.sender(proxy.address)
    await until(lambda: heard.names)
    proxy.inject(Reorder())
    peer = watcher.peers["pump"]
    await until(lambda: peer.reordered >= 4)
    assert peer.alive


@pytest_twisted.ensureDeferred
async def test_blockedReactor(place: Place) -> None:
    """
    Promise 7: a reactor that is blocked for longer than the bound takes no living peer for dead, in
    either direction.
    """
    watcher, heard = place.monitor()
    _, told = place.sender(("127.0.0.1", watcher.getHost().port))
    await until(lambda: heard.names and told.names)
    time.sleep(1.5 * BOUND)
    peer = watcher.peers["pump"]
    received = peer.received
    await until(lambda: peer.received >= received + 3)
    assert "disconnected" not in heard.names + told.names


@pytest_twisted.ensureDeferred
async def test_verdictInRealTime(place: Place, datagramFaultProxy: Any) -> None:
    """
    Promise 22: a network that is cut leads to the verdict at the bound, on both sides.
    """
    watcher, heard = place.monitor()
    proxy = await datagramFaultProxy(("127.0.0.1", watcher.getHost().port))
    _, told = place.sender(proxy.address)
    await until(lambda: heard.names and told.names)
    peer = watcher.peers["pump"]
    proxy.inject(Drop())
    await until(lambda: "disconnected" in heard.names and "disconnected" in told.names)
    assert type(heard.told[-1][1]) is PeerSilent
    assert BOUND <= peer.endedAt - peer.heardAt <= BOUND + 0.25
    proxy.heal()
    await until(lambda: heard.names[-1] == told.names[-1] == "connected")


@pytest_twisted.ensureDeferred
async def test_floodDoesNotDisturb(place: Place) -> None:
    """
    Promise 17: a flood of forged and malformed datagrams leaves a known peer undisturbed.
    """
    from twisted.internet import reactor

    watcher, heard = place.monitor()
    port = watcher.getHost().port
    place.sender(("127.0.0.1", port))
    await until(lambda: heard.names)
    peer, draw = watcher.peers["pump"], random.Random(1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flooder:
        began = peer.received
        while peer.received < began + 8:
            for _ in range(100):
                flooder.sendto(draw.randbytes(draw.randrange(900)), ("127.0.0.1", port))
            await deferLater(reactor, 0.01)
    assert heard.names == ["connected"]
    assert watcher.ignored["malformed"] > 500
    assert list(watcher.peers) == ["pump"]


def test_hooksNeedNotTakeReadings() -> None:
    """
    The hooks for datagrams do nothing unless they are overridden.
    """
    assert DatagramHooks().readingReceived(None, b"") is None  # type: ignore[arg-type]


def test_socketThatCannotSendToGroupsIsClosed(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A socket that the system does not let send from the interface is closed, so that the datagrams
    that follow do not pile up sockets.
    """
    errors: list[Exception] = []
    ports: list[FakePort] = []

    class FakePort:
        isOpen = True

        def getHandle(self) -> None:
            return None

        def stopListening(self) -> None:
            self.isOpen = False

    class FakeReactor:
        def listenUDP(self, *args: Any, **options: Any) -> FakePort:
            ports.append(FakePort())
            return ports[-1]

    def refuse(handle: Any, interface: str) -> None:
        raise OSError(99, "Cannot assign requested address")

    monkeypatch.setattr("twisted_heartbeat.datagram.sockets.sendFrom", refuse)
    sockets = Sockets("192.0.2.1", [], lambda data, source: None, errors.append, DatagramCounters())
    sockets.open(FakeReactor())
    for _ in range(3):
        sockets.send(b"heartbeat", ("239.255.84.71", 8471))
    assert [port.isOpen for port in ports] == [False] * 3
    assert len(errors) == 3
