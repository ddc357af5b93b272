# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The devices of C{docs/examples}, in C and for MicroPython, as real processes: against the server of
this package, in the faults that a device meets, and against the test vectors.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory

from twisted_heartbeat import (
    Cause,
    ClosedHere,
    Heartbeat,
    HeartbeatProtocol,
    HeartbeatServerFactory,
    Link,
    PeerHung,
    PeerReset,
    PeerSilent,
)
from twisted_heartbeat.core import wire
from twisted_heartbeat.core.causes import GoodbyeCode
from twisted_heartbeat.testing import BlackHole

from ..support.devices import Device, compileDevice, interpreter
from ..support.loopback import Loopback, Peers, opened, wait, within
from ..support.virtualnetwork import Recorder

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the devices are POSIX programs")

DOCS = Path(__file__).parents[2] / "docs"
SOURCE = DOCS / "examples" / "device.c"
VECTORS: dict[str, list[dict[str, Any]]] = json.loads(
    (DOCS / "wire-vectors.json").read_text(encoding="utf-8")
)

WAIT_LIMIT = 30.0
"""Seconds that a test waits for anything before it fails."""

BOUND = 1.0

SETTLE, HASTY = 100, 20
"""
Milliseconds that a device takes for a second. It sends a reading each ten of them: a calm one is
pinged between two, a hasty one never.
"""

PROBE = 0xABCDEF

MAIN = """
import sys
sys.path.insert(0, {folder!r})
import device
device.SECOND, device.LIMIT = {second}, {limit}
device.run(sys.argv[1], int(sys.argv[2]), sys.argv[3])
"""

Command = Callable[[int, int], list[str]]


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    A folder for all that is built here, each thing once.
    """
    return tmp_path_factory.mktemp("devices")


def built(folder: Path, second: int, limit: int) -> Path:
    """
    The device in C.
    """
    program = folder / f"device-{second}-{limit}"
    if not program.exists():
        compileDevice(SOURCE, program, SECOND=second, LIMIT=limit)
    return program


def script(folder: Path, second: int, limit: int) -> Path:
    """
    What a board would have for its main.py.
    """
    main = folder / f"main-{second}-{limit}.py"
    main.write_text(MAIN.format(folder=str(SOURCE.parent), second=second, limit=limit))
    return main


class TCPDevice(Device):
    """
    A device that runs, and tells how long it waits for its next attempt.
    """

    def waits(self, words: str) -> list[float]:
        """
        How long it has said that it would wait after what these words say.
        """
        pattern = re.compile(rf"{words}, next attempt in ([0-9.]+) s")
        return [float(found[1]) for found in map(pattern.fullmatch, self.lines) if found]


Start = Callable[..., TCPDevice]


@pytest.fixture(params=["C", "Python", "MicroPython"])
def start(request: pytest.FixtureRequest, builds: Path, tmp_path: Path) -> Iterator[Start]:
    """
    Starts a device that connects to this port; whatever still runs after the test is killed.
    """
    devices: list[TCPDevice] = []
    runner = [] if request.param == "C" else interpreter(request.param)

    def run(port: int, name: str = "pump", second: int = SETTLE, limit: int = 2**20) -> TCPDevice:
        if request.param == "C":
            command = [str(built(builds, second, limit))]
        else:
            node = SOURCE.with_suffix(".js")
            program = node if request.param == "Node.js" else script(builds, second, limit)
            command = [*runner, str(program)]
        log = tmp_path / f"{len(devices)}.log"
        # The device for Node.js takes its second from there.
        environment = {**os.environ, "SECOND": str(second)}
        devices.append(TCPDevice([*command, "127.0.0.1", str(port), name], log, environment))
        return devices[-1]

    yield run
    for device in devices:
        device.end()


@pytest.fixture
def loopback() -> Iterator[Loopback]:
    """
    Real sockets.
    """
    with opened(False) as place:
        yield place


async def until(holds: Callable[[], object], what: Callable[[], object] = str) -> None:
    """
    Wait until it holds.

    @param what: what to show if it does not.
    """
    deadline = time.monotonic() + WAIT_LIMIT
    while not holds():
        assert time.monotonic() < deadline, what()
        await wait(0.02)


class Station(HeartbeatProtocol):
    """
    The server's end of a device's link.

    @ivar readings: all that have come.
    """

    def __init__(self) -> None:
        self.readings: list[float] = []

    def messageReceived(self, message: bytes) -> None:
        """
        Keep the reading.
        """
        self.readings.append(float(message))


class Server:
    """
    A server of this package.
    """

    def __init__(self, loopback: Loopback) -> None:
        self.hooks = Recorder()
        factory = HeartbeatServerFactory(
            Factory.forProtocol(Station), heartbeat=Heartbeat.within(BOUND), hooks=self.hooks
        )
        loopback.atEnd(factory.close)
        self.port = loopback.listen(factory)

    @property
    def links(self) -> list[Link]:
        """
        All there ever were.
        """
        links: list[Link] = self.hooks.told("connected")
        return links

    @property
    def causes(self) -> list[Cause]:
        """
        Of their ends.
        """
        causes: list[Cause] = self.hooks.told("disconnected")
        return causes

    async def hears(self, device: Device, links: int = 1) -> Station:
        """
        Wait until a device has had so many links, and a reading has come over the last of them.
        """

        def readings() -> list[float]:
            stations = [link.protocol for link in self.links[links - 1 :]]
            return stations[-1].readings if stations else []

        await until(readings, lambda: device.lines)
        station: Station = self.links[-1].protocol
        return station


def test_compilesWithoutWarning(builds: Path) -> None:
    """
    The device in C is C99 and POSIX, and a compiler that is asked for its opinion has none. It has
    less than 200 lines, and nothing of it comes from the heap.
    """
    built(builds, SETTLE, 2**20)
    source = SOURCE.read_text()
    assert len(source.splitlines()) < 200
    assert not re.search(r"\b(malloc|calloc|realloc|strdup|alloca) *\(", source)


KNOWN_ERRORS = {
    "EACCES", "EADDRINUSE", "EAGAIN", "EALREADY", "EBADF", "ECONNABORTED", "ECONNREFUSED",
    "ECONNRESET", "EEXIST", "EHOSTUNREACH", "EINPROGRESS", "EINVAL", "EIO", "EISDIR", "ENOBUFS",
    "ENODEV", "ENOENT", "ENOMEM", "ENOTCONN", "EOPNOTSUPP", "EPERM", "ETIMEDOUT",
}  # fmt: skip
"""The error numbers that MicroPython's C{errno} has by name."""


def test_namesOfMicroPython() -> None:
    """
    The device in Python names no error number that MicroPython does not know.
    """
    named = re.findall(r"errno\.([A-Z]+)", (SOURCE.parent / "device.py").read_text())
    assert "EAGAIN" in named
    assert {*named} <= KNOWN_ERRORS


@pytest_twisted.ensureDeferred
async def test_hello(loopback: Loopback, start: Start) -> None:
    """
    The server hears the device's name, its readings, and its answers to pings.
    """
    server = Server(loopback)
    device = start(server.port, name="Pumpe süd")
    station = await server.hears(device)
    await until(lambda: len(station.readings) >= 2, lambda: device.lines)
    await until(lambda: any(link.rtt is not None for link in server.links), lambda: device.lines)
    assert station.hello is not None
    assert station.hello.name == "Pumpe süd"
    assert all(20 <= reading <= 23 for reading in station.readings)
    assert device.lines[:2] == ["connected", "the server said hello"]


@pytest_twisted.ensureDeferred
async def test_frozen(loopback: Loopback, start: Start) -> None:
    """
    A device that is stopped is found dead by the server within the bound. When it goes on it sees
    that the link is gone, and comes back.
    """
    server = Server(loopback)
    device = start(server.port)
    await server.hears(device)
    ended = server.hooks.next("disconnected")
    began, links = time.monotonic(), len(server.links)
    device.process.send_signal(signal.SIGSTOP)
    cause = await within(ended, WAIT_LIMIT)
    assert isinstance(cause, (PeerSilent, PeerHung))
    assert time.monotonic() - began <= BOUND + 5
    device.process.send_signal(signal.SIGCONT)
    await server.hears(device, links + 1)
    assert device.waits("the link was lost")


@pytest.mark.parametrize("pace", [SETTLE, HASTY])
@pytest_twisted.ensureDeferred
async def test_cut(loopback: Loopback, faultProxy: Any, start: Start, pace: int) -> None:
    """
    When the line is cut, the server finds it by its bound, and the device by the word that the
    server gave, be it ever pinged or not. It comes back when the line does.
    """
    server = Server(loopback)
    proxy = await faultProxy(("127.0.0.1", server.port))
    device = start(proxy.port, second=pace)
    await server.hears(device)
    if pace == SETTLE:
        await until(lambda: any(link.rtt for link in server.links), lambda: device.lines)
    await proxy.refuse()
    ended, links = server.hooks.next("disconnected"), len(server.links)
    began = time.monotonic()
    proxy.inject(BlackHole(), connections="existing")
    await until(lambda: device.waits("the server was silent"), lambda: device.lines)
    assert time.monotonic() - began <= BOUND + 5
    assert isinstance(await within(ended, WAIT_LIMIT), (PeerSilent, PeerHung))
    await until(lambda: device.waits("not connected"), lambda: device.lines)
    await proxy.accept()
    await server.hears(device, links + 1)


@pytest_twisted.ensureDeferred
async def test_reset(loopback: Loopback, faultProxy: Any, start: Start) -> None:
    """
    After a reset the device comes back, after a wait out of what a whole fleet is spread over.
    """
    server = Server(loopback)
    proxy = await faultProxy(("127.0.0.1", server.port))
    device = start(proxy.port)
    await server.hears(device)
    ended, links = server.hooks.next("disconnected"), len(server.links)
    proxy.reset()
    assert type(await within(ended, WAIT_LIMIT)) is PeerReset
    await server.hears(device, links + 1)
    assert all(0 <= wait <= 12 * SETTLE / 1000 for wait in device.waits("the link was lost"))
    assert device.waits("the link was lost")


@pytest_twisted.ensureDeferred
async def test_goodbye(loopback: Loopback, start: Start) -> None:
    """
    A device that is told when to come back does so, neither before nor after the spread.
    """
    server = Server(loopback)
    device = start(server.port)
    station = await server.hears(device)
    ended, links = server.hooks.next("disconnected"), len(server.links)
    began = time.monotonic()
    station.sayGoodbye(wire.Goodbye("restart", 0.8, 0.4))
    assert type(await within(ended, WAIT_LIMIT)) is ClosedHere
    await until(lambda: len(server.links) > links, lambda: device.lines)
    assert time.monotonic() - began >= 0.8
    [told] = device.waits("the server said goodbye")
    assert 0.8 <= told <= 1.2
    await server.hears(device, links + 1)


@pytest_twisted.ensureDeferred
async def test_readsToTheEnd(loopback: Loopback, start: Start) -> None:
    """
    A device that reads a goodbye sends FIN, throws away what follows, whatever that is, and closes
    at the end of it; the server sees no reset.
    """
    peers = Peers()
    device = start(loopback.listen(peers))
    peer = await within(peers.accepted.get(), WAIT_LIMIT)
    peer.transport.write(wire.encode(wire.Goodbye("restart", 60.0)) + bytes(500_000))
    await within(peer.lost, WAIT_LIMIT)
    await until(lambda: device.waits("the server said goodbye"), lambda: device.lines)
    assert peer.reason.check(ConnectionDone)


@pytest_twisted.ensureDeferred
async def test_failedWriteReadsFirst(loopback: Loopback, start: Start) -> None:
    """
    A device whose write fails still reads the goodbye that has come.
    """
    peers = Peers()
    device = start(loopback.listen(peers))
    peer = await within(peers.accepted.get(), WAIT_LIMIT)
    await until(lambda: peer.received, lambda: device.lines)
    device.process.send_signal(signal.SIGSTOP)
    hello = wire.encode(wire.Hello("hub"))
    ping = wire.encode(wire.Ping(1))
    peer.transport.write(hello + ping * 100 + wire.encode(wire.Goodbye("restart", 60.0)))
    await wait(0.05)
    peer.transport.abortConnection()
    await within(peer.lost, WAIT_LIMIT)
    device.process.send_signal(signal.SIGCONT)
    await until(lambda: device.waits("the server said goodbye"), lambda: device.lines)


@pytest.mark.parametrize("code", [GoodbyeCode.REFUSED, GoodbyeCode.NAME_IN_USE])
@pytest_twisted.ensureDeferred
async def test_notWelcome(loopback: Loopback, start: Start, code: GoodbyeCode) -> None:
    """
    A device that is not welcome comes back slowly, also if it has not been greeted.
    """
    peers = Peers()
    device = start(loopback.listen(peers))
    peer = await within(peers.accepted.get(), WAIT_LIMIT)
    peer.transport.write(wire.encode(wire.Goodbye("no", code=code)))
    await within(peer.lost, WAIT_LIMIT)
    await until(lambda: device.waits("the server said goodbye"), lambda: device.lines)
    # They are printed in tenths.
    assert 0.6 <= device.waits("the server said goodbye")[0] <= 12 * SETTLE / 1000


def assertSpread(waits: list[float], second: int) -> None:
    """
    The waits are those of a cause that a whole fleet sees at once, as printed: in tenths.
    """
    for number, printed in enumerate(waits):
        most = min(12 * 2**number, 60)
        least = min(12, most / 2) if number else 0.1
        assert least * second / 1000 - 0.06 <= printed <= most * second / 1000 + 0.06


@pytest_twisted.ensureDeferred
async def test_hastyGoodbye(loopback: Loopback, start: Start) -> None:
    """
    A hint of less than a second is none: the device comes back as after any goodbye, and not at
    once; as each comes soon after the hello, the waits grow.
    """
    peers = Peers()
    device = start(loopback.listen(peers))
    hello = wire.encode(wire.Hello(""))
    for _ in range(4):
        peer = await within(peers.accepted.get(), WAIT_LIMIT)
        peer.transport.write(hello + wire.encode(wire.Goodbye("go", 0.0, 0.001)))
        await within(peer.lost, WAIT_LIMIT)
    await until(lambda: len(device.waits("the server said goodbye")) >= 4, lambda: device.lines)
    waits = device.waits("the server said goodbye")
    assertSpread(waits[:4], SETTLE)


@pytest_twisted.ensureDeferred
async def test_silentFromTheBeginning(loopback: Loopback, start: Start) -> None:
    """
    Established is not connected: a server that never says hello is given up, and tried again.
    """
    peers = Peers()
    device = start(loopback.listen(peers), second=HASTY)
    first = await within(peers.accepted.get(), WAIT_LIMIT)
    await within(first.lost, WAIT_LIMIT)
    await until(lambda: device.waits("the server was silent"), lambda: device.lines)
    await within(peers.accepted.get(), WAIT_LIMIT)


@pytest.mark.skipif(sys.platform != "linux", reason="a full accept queue drops SYNs on Linux")
@pytest.mark.parametrize("start", ["C", "Python", "MicroPython", "Node.js"], indirect=True)
@pytest_twisted.ensureDeferred
async def test_unanswered(loopback: Loopback, start: Start) -> None:
    """
    An attempt that nobody answers is given up after a while.
    """
    port = loopback.deafPort(0)
    for _ in range(3):
        filler = socket.socket()
        loopback.atEnd(filler.close)
        filler.setblocking(False)
        filler.connect_ex(("127.0.0.1", port))
    began = time.monotonic()
    device = start(port, second=HASTY)
    await until(lambda: device.waits("not connected"), lambda: device.lines)
    assert time.monotonic() - began >= 30 * HASTY / 1000
    assert "connected" not in device.lines


@pytest_twisted.ensureDeferred
async def test_backoff(faultProxy: Any, start: Start) -> None:
    """
    Where the server refuses, the waits are drawn from what a whole fleet is spread over, and grow.
    """
    proxy = await faultProxy(("127.0.0.1", 9))
    await proxy.refuse()
    device = start(proxy.port, second=HASTY)
    await until(lambda: len(device.waits("not connected")) >= 6, lambda: device.lines)
    assertSpread(device.waits("not connected"), HASTY)


def missing(stream: bytes) -> int:
    """
    Bytes that the last frame of a stream lacks.
    """
    while len(stream) >= 12:
        whole = 12 + int.from_bytes(stream[8:12], "big")
        if len(stream) < whole:
            return whole - len(stream)
        stream = stream[whole:]
    return 12 - len(stream) if stream else 0


def tokens(frames: list[wire.Frame], kind: type) -> list[int]:
    return [frame.token for frame in frames if isinstance(frame, kind)]


@pytest.mark.parametrize("vector", VECTORS["streams"], ids=lambda vector: vector["why"])
@pytest.mark.parametrize("start", ["C", "Python"], indirect=True)
@pytest_twisted.ensureDeferred
async def test_stream(loopback: Loopback, start: Start, vector: dict[str, Any]) -> None:
    """
    The device takes each stream of the test vectors, byte by byte, for what the vector says.  It
    goes on and answers the pings, heeds the goodbye, closes for the violation, or waits for the
    rest of the first frame.
    """
    stream = bytes.fromhex(vector["bytes"])
    frames = vector["frames"]
    peers = Peers()
    device = start(loopback.listen(peers), limit=vector.get("limit", 2**20))
    peer = await within(peers.accepted.get(), WAIT_LIMIT)
    peer.transport.setTcpNoDelay(True)
    for byte in stream:
        peer.transport.write(bytes([byte]))
        await wait(0)
    if vector["violation"]:
        await within(peer.lost, WAIT_LIMIT)
        await until(lambda: device.waits("the server broke the protocol"), lambda: device.lines)
    elif not frames:
        # It waits for the rest.
        await wait(0.05)
        assert not peer.lost.called
    elif frames[-1]["type"] == "GOODBYE":
        await within(peer.lost, WAIT_LIMIT)
        await until(lambda: device.waits("the server said goodbye"), lambda: device.lines)
    else:
        peer.transport.write(bytes(missing(stream)) + wire.encode(wire.Ping(PROBE)))
        await until(
            lambda: PROBE in tokens(list(wire.FrameReader().receive(peer.received)), wire.Pong),
            lambda: device.lines,
        )
    if not vector["violation"]:
        answered = tokens(list(wire.FrameReader().receive(peer.received)), wire.Pong)
        asked = [frame["token"] for frame in frames if frame["type"] == "PING"]
        assert answered[: len(asked)] == asked


@pytest.mark.parametrize("start", ["C", "Python"], indirect=True)
@pytest_twisted.ensureDeferred
async def test_frames(loopback: Loopback, start: Start) -> None:
    """
    The device takes each frame of the test vectors that may follow a hello, all in one piece, and
    what it sends itself is a hello first, and nothing that breaks the protocol.
    """
    kept = [v for v in VECTORS["frames"] if v["frame"]["type"] not in ("HELLO", "GOODBYE", "END")]
    peers = Peers()
    device = start(loopback.listen(peers))
    peer = await within(peers.accepted.get(), WAIT_LIMIT)
    stream = b"".join(bytes.fromhex(vector["bytes"]) for vector in kept)
    peer.transport.write(wire.encode(wire.Hello("")) + stream + wire.encode(wire.Ping(PROBE)))

    def received() -> list[wire.Frame]:
        return list(wire.FrameReader().receive(peer.received))

    await until(lambda: PROBE in tokens(received(), wire.Pong), lambda: device.lines)
    asked = [v["frame"]["token"] for v in kept if v["frame"]["type"] == "PING"]
    assert len(asked) == 3
    assert tokens(received(), wire.Pong) == [*asked, PROBE]
    assert received()[0] == wire.Hello("pump")
