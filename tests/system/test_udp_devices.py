# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The devices of C{docs/examples} that speak the datagram protocol, in C and for MicroPython, as real
processes: against the monitor of this package, and against bad networks.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import deferLater

from twisted_heartbeat import (
    DatagramHooks,
    DatagramPeer,
    PeerClosed,
    PeerReset,
    PeerSilent,
    UDPHeartbeatMonitor,
)
from twisted_heartbeat.core.datagram.packet import Key, Type, decode, encode
from twisted_heartbeat.testing import Drop, Duplicate, Reorder

from ..support.devices import Device, compileDevice, interpreter

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the devices are POSIX programs")

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
SOURCE = EXAMPLES / "device_udp.c"
SECOND = 50
"""Milliseconds that a device takes for a second: a heartbeat each 0.15 s, a bound of 0.9 s."""

BOUND = 18 * SECOND / 1000
KEY = bytes(range(100, 132))
WAIT_LIMIT = 20.0

MAIN = """
import sys
sys.path.insert(0, {folder!r})
import device_udp
device_udp.SECOND = {second}
device_udp.run(sys.argv[1], int(sys.argv[2]), sys.argv[3], bytes.fromhex(sys.argv[4]))
"""

Start = Callable[..., Device]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    The device in C, compiled.
    """
    made = tmp_path_factory.mktemp("devices") / "device_udp"
    compileDevice(SOURCE, made, SECOND=SECOND)
    return made


@pytest.fixture(params=["C", "Python", "MicroPython"])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Start]:
    """
    Starts a device that sends to this port; what still runs after the test is killed.
    """
    devices: list[Device] = []
    if request.param == "C":
        command = [str(request.getfixturevalue("program"))]
    else:
        main = tmp_path / "main.py"
        main.write_text(MAIN.format(folder=str(EXAMPLES), second=SECOND))
        command = [*interpreter(request.param), str(main)]

    def run(port: int, name: str = "pump", key: bytes = KEY) -> Device:
        arguments = ["127.0.0.1", str(port), name, key.hex()]
        devices.append(Device([*command, *arguments], tmp_path / f"{len(devices)}.log"))
        return devices[-1]

    yield run
    for device in devices:
        device.end()


class Recorder(DatagramHooks):
    """
    What a monitor tells.
    """

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.readings: list[float] = []

    def readingReceived(self, peer: DatagramPeer, reading: bytes) -> None:
        self.readings.append(float(reading))

    def connected(self, peer: DatagramPeer) -> None:  # type: ignore[override]
        self.told.append(peer)

    def disconnected(self, peer: DatagramPeer, cause: Exception) -> None:  # type: ignore[override]
        self.told.append(type(cause))


@pytest.fixture
def monitor() -> Iterator[Callable[..., tuple[UDPHeartbeatMonitor, Recorder]]]:
    """
    Starts a monitor.
    """
    from twisted.internet import reactor

    monitors: list[UDPHeartbeatMonitor] = []

    def run(port: int = 0, **keys: bytes) -> tuple[UDPHeartbeatMonitor, Recorder]:
        hooks = Recorder()
        made = UDPHeartbeatMonitor(
            keys or {"pump": KEY}, hooks=hooks, port=port, interface="127.0.0.1", reactor=reactor
        )
        made.startService()
        monitors.append(made)
        return made, hooks

    yield run
    for one in monitors:
        pytest_twisted.blockon(one.stopService())


async def until(holds: Callable[[], object], what: Callable[[], object]) -> None:
    """
    Wait until it holds.

    @param what: what to show if it does not.
    """
    from twisted.internet import reactor

    deadline = time.monotonic() + WAIT_LIMIT
    while not holds():
        assert time.monotonic() < deadline, what()
        await deferLater(reactor, 0.02)


def test_compilesWithoutWarning(program: Path) -> None:
    """
    The device in C is C99 and POSIX without a warning, has less than 250 lines, and takes nothing
    from the heap.
    """
    source = SOURCE.read_text()
    assert len(source.splitlines()) < 250
    assert not re.search(r"\b(malloc|calloc|realloc|strdup|alloca) *\(", source)


@pytest_twisted.ensureDeferred
async def test_isHeard(start: Start, monitor: Any) -> None:
    """
    The device answers the challenge, its readings come, it hears the acknowledgements, and it says
    goodbye.
    """
    watching, hooks = monitor(**{"Pumpe süd": KEY})
    device = start(watching.getHost().port, "Pumpe süd")
    await until(lambda: len(hooks.readings) >= 4, lambda: device.lines)
    [peer] = hooks.told
    assert (peer.name, peer.bound, peer.isAuthenticated) == ("Pumpe süd", BOUND, True)
    assert all(20 <= reading <= 23.2 for reading in hooks.readings)
    assert "challenged" in device.lines
    assert any(line.startswith("acknowledged") for line in device.lines)
    assert peer.lost == 0
    device.process.send_signal(signal.SIGINT)
    await until(lambda: PeerClosed in hooks.told, lambda: device.lines)
    device.process.wait(WAIT_LIMIT)
    assert device.lines[-1] == "goodbye"


@pytest_twisted.ensureDeferred
async def test_restartedMonitorIsAnswered(start: Start, monitor: Any) -> None:
    """
    After a restart of the monitor the device is challenged and heard again, by itself.
    """
    watching, _ = monitor()
    port = watching.getHost().port
    device = start(port)
    await until(lambda: watching.peers, lambda: device.lines)
    await watching.stopService()
    watching, hooks = monitor(port)
    await until(lambda: len(hooks.readings) >= 2, lambda: device.lines)
    assert device.lines.count("challenged") >= 2


@pytest_twisted.ensureDeferred
async def test_badNetwork(start: Start, monitor: Any, datagramFaultProxy: Any) -> None:
    """
    Through loss, duplication and reordering the device stays alive; when it is stopped it is found
    dead at the bound, and comes back when it goes on.
    """
    watching, hooks = monitor()
    proxy = await datagramFaultProxy(("127.0.0.1", watching.getHost().port))
    proxy.inject(Drop(every=4))
    proxy.inject(Duplicate())
    device = start(proxy.port)
    await until(lambda: len(hooks.readings) >= 6, lambda: device.lines)
    proxy.inject(Reorder())
    await until(lambda: len(hooks.readings) >= 9, lambda: device.lines)
    assert all(isinstance(one, DatagramPeer) for one in hooks.told)
    proxy.heal()
    device.process.send_signal(signal.SIGSTOP)
    await until(lambda: PeerSilent in hooks.told, lambda: device.lines)
    device.process.send_signal(signal.SIGCONT)
    await until(lambda: watching.peers, lambda: device.lines)


@pytest_twisted.ensureDeferred
async def test_restartedDevice(start: Start, monitor: Any) -> None:
    """
    A device that was killed and started again is another session.
    """
    watching, hooks = monitor()
    device = start(watching.getHost().port)
    await until(lambda: watching.peers, lambda: device.lines)
    device.end()
    device = start(watching.getHost().port)
    await until(lambda: PeerReset in hooks.told, lambda: device.lines)
    assert watching.peers


def test_goodbye(start: Start) -> None:
    """
    The device's goodbye, which it sends twice, has the next number, the code 0 and no interval.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        one.settimeout(WAIT_LIMIT)
        device = start(one.getsockname()[1])
        last = decode(one.recv(1000))
        device.process.send_signal(signal.SIGINT)
        found = []
        while len(found) < 2:
            packet = decode(one.recv(1000))
            if packet.type == Type.GOODBYE:
                found.append((packet.sequence, packet.flags, packet.interval))
            else:
                last = packet
    assert found == [(last.sequence + 1, 0, 0)] * 2


@pytest.mark.parametrize("start", ["C", "Python"], indirect=True)
def test_answersItsMonitorOnly(start: Start) -> None:
    """
    The device answers a challenge of its own session, name, key and latest heartbeats, and nothing
    else; and no more than twenty in a second.
    """
    key = Key(KEY)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        one.settimeout(WAIT_LIMIT)
        start(one.getsockname()[1])
        for _ in range(3):
            data, address = one.recvfrom(1000)
        heartbeat = decode(data)
        assert (heartbeat.type, heartbeat.sequence, heartbeat.bound) == (1, 3, 900)
        assert key.accepts(data)
        challenge = heartbeat.reply(Type.CHALLENGE, cookie=2**64 - 2)
        other = heartbeat.reply(Type.CHALLENGE, cookie=13)
        wrong = [
            encode(other, Key(bytes(16))),
            encode(other, key)[:-1],
            encode(other, key) + b"x",
            encode(heartbeat.reply(Type.ACKNOWLEDGEMENT, cookie=13), key),
            data,
        ]
        for place, value in ((0, 2), (2, 2), (3, other.session ^ 1), (4, 99), (9, b"lamp")):
            fields = list(other)
            fields[place] = value
            wrong.append(encode(tuple.__new__(type(challenge), fields), key))
        for each in wrong:
            one.sendto(each, address)
        for _ in range(60):
            one.sendto(encode(challenge, key), address)
        answers = []
        while len(answers) < 20:
            found = decode(one.recv(1000))
            if found.type == Type.ANSWER:
                answers.append(found)
        assert {found.cookie for found in answers} == {2**64 - 2}
        assert answers[0].payload == heartbeat.payload
        assert answers[0].sequence in (3, 4)
