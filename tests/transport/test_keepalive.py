# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Tests for L{twisted_heartbeat.transport.keepalive}: real sockets here, recording ones for
other systems.
"""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_twisted
import trustme
from twisted.internet import ssl
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    SSL4ServerEndpoint,
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    UNIXClientEndpoint,
    UNIXServerEndpoint,
    wrapClientTLS,
)
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, ProcessProtocol, Protocol
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_heartbeat.core.settings import KeepAlive
from twisted_heartbeat.transport import keepalive
from twisted_heartbeat.transport.keepalive import Applied, Platform, applyKeepAlive, realSocket

linuxOnly = pytest.mark.skipif(
    sys.platform != "linux", reason="reads options back that only Linux spells like this"
)

WAIT_LIMIT = 10
"""Seconds after which a wait for the loopback interface has failed."""


@pytest.fixture(autouse=True)
def nothingWarnedYet(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Each test is a process of its own as far as warnings are concerned.
    """
    monkeypatch.setattr(keepalive, "_warned", set())


# Real sockets


@implementer(IHandshakeListener)
class Peer(Protocol):
    """
    One end of a connection, whose events can be waited for.
    """

    def __init__(self) -> None:
        self.made: Deferred[None] = Deferred()
        self.secured: Deferred[None] = Deferred()
        self.lost: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self.made.callback(None)

    def handshakeCompleted(self) -> None:
        self.secured.callback(None)

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.lost.callback(None)


async def soon(event: Deferred[None]) -> None:
    from twisted.internet import reactor

    await event.addTimeout(WAIT_LIMIT, reactor)


class Pair:
    """
    Two ends of one connection.
    """

    def __init__(self) -> None:
        self.client, self.server = Peer(), Peer()

    async def connect(
        self, listenOn: Any, connectTo: Callable[[Any], Any], wrap: Any = lambda factory: factory
    ) -> None:
        self.port = await listenOn.listen(wrap(Factory.forProtocol(lambda: self.server)))
        await connectTo(self.port.getHost()).connect(Factory.forProtocol(lambda: self.client))
        await soon(self.server.made)

    async def close(self) -> None:
        self.client.transport.abortConnection()  # type: ignore[union-attr]
        await soon(self.client.lost)
        await soon(self.server.lost)
        await self.port.stopListening()


async def tcpPair(wrap: Any = lambda factory: factory) -> Pair:
    from twisted.internet import reactor

    pair = Pair()
    await pair.connect(
        TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"),
        lambda host: TCP4ClientEndpoint(reactor, host.host, host.port),
        wrap,
    )
    return pair


class Credentials:
    """
    A server's certificate, and a client that trusts it.
    """

    def __init__(self) -> None:
        ca = trustme.CA()
        issued = ca.issue_cert("localhost")
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        self.forServer = ssl.PrivateCertificate.loadPEM(
            issued.private_key_pem.bytes() + chain
        ).options()
        authority = ssl.Certificate.loadPEM(ca.cert_pem.bytes())
        self.forClient = ssl.optionsForClientTLS("localhost", authority)


def held(sock: socket.socket) -> tuple[bool, int, int, int]:
    """
    What a Linux kernel says of a socket: on, idle, interval, count.
    """
    tcp = socket.IPPROTO_TCP
    return (
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0,
        sock.getsockopt(tcp, socket.TCP_KEEPIDLE),
        sock.getsockopt(tcp, socket.TCP_KEEPINTVL),
        sock.getsockopt(tcp, socket.TCP_KEEPCNT),
    )


@linuxOnly
@pytest_twisted.ensureDeferred
async def test_plainTcp() -> None:
    """
    On either end of a TCP connection the kernel holds the defaults, and the result says the same.
    """
    pair = await tcpPair()
    try:
        for end in (pair.client, pair.server):
            applied = applyKeepAlive(end.transport, KeepAlive())
            assert held(end.transport.socket) == (True, 5, 5, 3)  # type: ignore[union-attr]
            assert applied == Applied(enabled=True, idle=5, interval=5, count=3)
    finally:
        await pair.close()


@linuxOnly
@pytest_twisted.ensureDeferred
async def test_tls() -> None:
    """
    Over TLS, whose handle is an OpenSSL object, the TCP socket below is found on either end.
    """
    from twisted.internet import reactor

    credentials, pair = Credentials(), Pair()
    await pair.connect(
        SSL4ServerEndpoint(reactor, 0, credentials.forServer, interface="127.0.0.1"),
        lambda host: wrapClientTLS(
            credentials.forClient, TCP4ClientEndpoint(reactor, host.host, host.port)
        ),
    )
    try:
        await soon(pair.client.secured)
        for end in (pair.client, pair.server):
            transport: Any = end.transport
            assert not isinstance(transport.getHandle(), socket.socket)
            applied = applyKeepAlive(transport, KeepAlive(idle=7, interval=2, count=4))
            assert held(transport.transport.socket) == (True, 7, 2, 4)
            assert (applied.idle, applied.interval, applied.count) == (7, 2, 4)
    finally:
        await pair.close()


@linuxOnly
@pytest_twisted.ensureDeferred
async def test_startTls() -> None:
    """
    After C{startTLS}, which replaces C{getHandle} on the TCP transport itself, its socket is found.
    """
    credentials, pair = Credentials(), await tcpPair()
    try:
        client: Any = pair.client.transport
        server: Any = pair.server.transport
        server.startTLS(credentials.forServer)
        client.startTLS(credentials.forClient)
        await soon(pair.client.secured)
        for transport in (client, server):
            assert not isinstance(transport.getHandle(), socket.socket)
            applied = applyKeepAlive(transport, KeepAlive())
            assert held(transport.socket) == (True, 5, 5, 3)
            assert applied.missing == ()
    finally:
        await pair.close()


@linuxOnly
@pytest_twisted.ensureDeferred
async def test_userTimeout() -> None:
    """
    The user timeout is given in seconds and set in milliseconds; L{None} leaves the one that is
    there alone, and the result still tells it.
    """
    pair = await tcpPair()
    try:
        transport: Any = pair.client.transport
        assert applyKeepAlive(transport, KeepAlive(userTimeout=7.25)).userTimeout == 7.25
        assert transport.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 7250
        assert applyKeepAlive(transport, KeepAlive(userTimeout=None)).userTimeout == 7.25
        assert transport.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 7250
    finally:
        await pair.close()


@linuxOnly
@pytest_twisted.ensureDeferred
async def test_refusedByThisKernel() -> None:
    """
    A value that Linux refuses is a reason, not an exception; what holds instead is told, and the
    other options are set.
    """
    pair = await tcpPair()
    try:
        transport: Any = pair.client.transport
        before = held(transport.socket)
        applied = applyKeepAlive(transport, KeepAlive(idle=40000, interval=2, count=128))
        assert held(transport.socket) == (True, before[1], 2, before[3])
        assert (applied.idle, applied.interval, applied.count) == (before[1], 2, before[3])
        assert applied.missing == (
            "The kernel refused TCP_KEEPIDLE for idle=40000: [Errno 22] Invalid argument.",
            "The kernel refused TCP_KEEPCNT for count=128: [Errno 22] Invalid argument.",
        )
    finally:
        await pair.close()


@linuxOnly
@pytest_twisted.ensureDeferred
async def test_numberTooLargeForTheKernel() -> None:
    """
    A number that does not fit into the kernel's int is cut to it, and the result tells what holds.
    """
    pair = await tcpPair()
    try:
        applied = applyKeepAlive(pair.client.transport, KeepAlive(userTimeout=1e300))
        assert applied == Applied(
            enabled=True, idle=5, interval=5, count=3, userTimeout=2147483.647
        )
    finally:
        await pair.close()


@pytest_twisted.ensureDeferred
async def test_wrappedServer() -> None:
    """
    Through Twisted's own protocol wrappers the socket is found.
    """
    pair = await tcpPair(lambda factory: WrappingFactory(WrappingFactory(factory)))
    try:
        assert isinstance(pair.server.transport, ProtocolWrapper)
        found = realSocket(pair.server.transport)
        assert found is not None
        assert found.getpeername() == pair.client.transport.socket.getsockname()
    finally:
        await pair.close()


@pytest_twisted.ensureDeferred
async def test_afterTheEnd() -> None:
    """
    A connection that is gone has no socket to set: nothing is done and nothing is raised.
    """
    pair = await tcpPair()
    transport = pair.client.transport
    await pair.close()
    assert realSocket(transport) is None
    assert applyKeepAlive(transport, KeepAlive()).missing == (
        "Keepalive is not set: this transport has no open socket.",
    )


@pytest.mark.skipif(sys.platform == "win32", reason="Twisted has no UNIX sockets on Windows")
@pytest_twisted.ensureDeferred
async def test_unixSocket(tmp_path: Path) -> None:
    """
    On a UNIX socket nothing is set, the result says why, and nobody is warned: none was expected.
    """
    from twisted.internet import reactor

    path, pair = str(tmp_path / "s"), Pair()
    await pair.connect(
        UNIXServerEndpoint(reactor, path), lambda host: UNIXClientEndpoint(reactor, path)
    )
    try:
        transport: Any = pair.client.transport
        with capturedLogs() as logged:
            applied = applyKeepAlive(transport, KeepAlive(userTimeout=3))
        assert transport.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
        assert applied == Applied(missing=("Keepalive is not set: only a TCP socket has it.",))
        assert logged == []
    finally:
        await pair.close()


@pytest_twisted.ensureDeferred
async def test_processPipes() -> None:
    """
    A child process's pipes have no socket: nothing is done, and the result says so.
    """
    from twisted.internet import reactor

    ended: Deferred[None] = Deferred()

    class Child(ProcessProtocol):
        def processEnded(self, reason: Failure) -> None:
            ended.callback(None)

    transport = reactor.spawnProcess(Child(), sys.executable, [sys.executable, "-S", "-c", ""])
    applied = applyKeepAlive(transport, KeepAlive())
    await soon(ended)
    assert applied == Applied(missing=("Keepalive is not set: this transport has no open socket.",))


# Finding the socket


@pytest.fixture
def tcpSocket() -> Iterator[socket.socket]:
    """
    A TCP socket that is not connected.
    """
    with socket.socket() as sock:
        yield sock


def wrapped(transport: object, times: int) -> object:
    for _ in range(times):
        transport = SimpleNamespace(transport=transport)
    return transport


def test_walkIsBounded(tcpSocket: socket.socket) -> None:
    """
    Sixteen wrappers are crossed and no more, so that a ring of wrappers comes to an end.
    """
    transport = SimpleNamespace(socket=tcpSocket)
    assert realSocket(wrapped(transport, 16)) is tcpSocket
    assert realSocket(wrapped(transport, 17)) is None
    ring = SimpleNamespace()
    ring.transport = ring
    assert realSocket(ring) is None


@pytest.mark.parametrize("transport", [StringTransport(), None, SimpleNamespace(socket="a name")])
def test_noSocket(transport: object) -> None:
    """
    Whatever has no socket is left alone; an attribute that happens to be called so is none.
    """
    assert realSocket(transport) is None
    assert applyKeepAlive(transport, KeepAlive()) == Applied(
        missing=("Keepalive is not set: this transport has no open socket.",)
    )


def test_closedSocket(tcpSocket: socket.socket) -> None:
    """
    A closed socket is no socket: its number may be another connection's by now.
    """
    tcpSocket.close()
    assert realSocket(SimpleNamespace(socket=tcpSocket)) is None


def test_datagramSocket() -> None:
    """
    A UDP socket has no keepalive: nothing is set, and the result says why.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        applied = applyKeepAlive(SimpleNamespace(socket=sock), KeepAlive())
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
    assert applied == Applied(missing=("Keepalive is not set: only a TCP socket has it.",))


# Other systems

ON = (socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def tcp(number: int) -> tuple[int, int]:
    return (socket.IPPROTO_TCP, number)


class RecordingSocket(socket.socket):
    """
    A TCP socket that keeps options to itself instead of handing them to this system's kernel.
    """

    def __init__(self) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_STREAM)
        self.held: dict[tuple[int, int], int] = {}
        self.ioctls: list[tuple[int, tuple[int, int, int]]] = []
        self.refused: set[int] = set()
        self.untold: set[int] = set()

    def setsockopt(self, level: int, number: int, value: Any, *rest: Any) -> None:
        if number in self.refused:
            raise OSError(errno.EINVAL, "Invalid argument")
        self.held[level, number] = value

    def getsockopt(self, level: int, number: int, *rest: Any) -> Any:
        if number in self.untold:
            raise OSError(errno.ENOPROTOOPT, "Protocol not available")
        return self.held.get((level, number), 0)

    def ioctl(self, code: int, values: tuple[int, int, int]) -> None:
        if code in self.refused:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        self.ioctls.append((code, values))


@pytest.fixture
def recorder() -> Iterator[RecordingSocket]:
    """
    A L{RecordingSocket}.
    """
    with RecordingSocket() as sock:
        yield sock


def applyTo(sock: socket.socket, asked: KeepAlive, platform: Platform) -> Applied:
    return applyKeepAlive(SimpleNamespace(socket=sock), asked, platform)


# The numbers are those of each system's headers; only the right ones must reach the socket.
LINUX = Platform.of(
    SimpleNamespace(TCP_KEEPIDLE=4, TCP_KEEPINTVL=5, TCP_KEEPCNT=6, TCP_USER_TIMEOUT=18), "linux"
)
FREEBSD = Platform.of(
    SimpleNamespace(TCP_KEEPIDLE=256, TCP_KEEPINTVL=512, TCP_KEEPCNT=1024), "freebsd14"
)
OPENBSD = Platform.of(SimpleNamespace(), "openbsd7")
MACOS = Platform.of(
    SimpleNamespace(TCP_KEEPALIVE=0x10, TCP_KEEPINTVL=0x101, TCP_KEEPCNT=0x102), "darwin"
)
MACOS_NAMELESS = Platform.of(SimpleNamespace(), "darwin")
SIO_KEEPALIVE_VALS = 0x98000004
WINDOWS = Platform.of(
    SimpleNamespace(
        TCP_KEEPIDLE=3,
        TCP_KEEPINTVL=17,
        TCP_KEEPCNT=16,
        SIO_KEEPALIVE_VALS=SIO_KEEPALIVE_VALS,
    ),
    "win32",
)
WINDOWS_1703 = Platform.of(
    SimpleNamespace(TCP_KEEPCNT=16, SIO_KEEPALIVE_VALS=SIO_KEEPALIVE_VALS), "win32"
)
WINDOWS_7 = Platform.of(SimpleNamespace(SIO_KEEPALIVE_VALS=SIO_KEEPALIVE_VALS), "win32")

ASKED = KeepAlive(idle=7, interval=2, count=4, userTimeout=1.5)


@pytest.mark.parametrize(
    ("platform", "options", "userTimeout"),
    [
        (LINUX, {tcp(4): 7, tcp(5): 2, tcp(6): 4, tcp(18): 1500}, 1.5),
        (MACOS, {tcp(0x10): 7, tcp(0x101): 2, tcp(0x102): 4, tcp(0x80): 2}, 2),
        (MACOS_NAMELESS, {tcp(0x10): 7, tcp(0x101): 2, tcp(0x102): 4, tcp(0x80): 2}, 2),
    ],
)
def test_systemsWithEverything(
    recorder: RecordingSocket,
    platform: Platform,
    options: dict[tuple[int, int], int],
    userTimeout: float,
) -> None:
    """
    Linux and macOS set all four, each by its own numbers and units; macOS counts whole seconds, so
    there the user timeout is rounded up and the result tells it.
    """
    applied = applyTo(recorder, ASKED, platform)
    assert recorder.held == {ON: 1, **options}
    assert applied == Applied(enabled=True, idle=7, interval=2, count=4, userTimeout=userTimeout)


@pytest.mark.parametrize(
    ("platform", "options"),
    [
        (FREEBSD, {tcp(256): 7, tcp(512): 2, tcp(1024): 4}),
        (WINDOWS, {tcp(3): 7, tcp(17): 2, tcp(16): 4}),
    ],
)
def test_systemsWithoutUserTimeout(
    recorder: RecordingSocket, platform: Platform, options: dict[tuple[int, int], int]
) -> None:
    """
    FreeBSD and Windows from 10 1709 set the three keepalive options by name; that they have no user
    timeout is said if one was asked for, and only then.
    """
    applied = applyTo(recorder, ASKED, platform)
    assert recorder.held == {ON: 1, **options}
    assert recorder.ioctls == []
    assert (applied.idle, applied.interval, applied.count, applied.userTimeout) == (7, 2, 4, None)
    assert applied.missing == (
        f"There is no TCP_USER_TIMEOUT on {platform.name}, so userTimeout=1.5 is not set: "
        "the system's own value holds.",
    )
    assert applyTo(recorder, KeepAlive(), platform).missing == ()


def test_systemWithNothing(recorder: RecordingSocket) -> None:
    """
    A system that can only switch keepalive on does that, with a reason for each of the rest.
    """
    applied = applyTo(recorder, KeepAlive(), OPENBSD)
    assert recorder.held == {ON: 1}
    assert applied.enabled
    assert (applied.idle, applied.interval, applied.count) == (None, None, None)
    assert [reason.split(",")[0] for reason in applied.missing] == [
        "There is no TCP_KEEPIDLE on openbsd7",
        "There is no TCP_KEEPINTVL on openbsd7",
        "There is no TCP_KEEPCNT on openbsd7",
    ]


UNREADABLE = "This Windows can not read idle and interval back: they are what it accepted."


def test_windowsBefore1703(recorder: RecordingSocket) -> None:
    """
    An older Windows gets idle and interval by one ioctl in milliseconds; that it always sends
    10 probes, and can not read the times back, is said.
    """
    applied = applyTo(recorder, KeepAlive(idle=7, interval=2), WINDOWS_7)
    assert recorder.held == {ON: 1}
    assert recorder.ioctls == [(SIO_KEEPALIVE_VALS, (1, 7000, 2000))]
    assert applied == Applied(
        enabled=True,
        idle=7,
        interval=2,
        missing=(
            UNREADABLE,
            "There is no TCP_KEEPCNT on win32, so count=3 is not set: "
            "this Windows always sends 10 probes.",
        ),
    )


def test_windows1703(recorder: RecordingSocket) -> None:
    """
    The one Windows that has an option for the count, but none for the times, is served by both.
    """
    applied = applyTo(recorder, KeepAlive(idle=7, interval=2), WINDOWS_1703)
    assert recorder.held == {ON: 1, tcp(16): 3}
    assert recorder.ioctls == [(SIO_KEEPALIVE_VALS, (1, 7000, 2000))]
    assert applied == Applied(enabled=True, idle=7, interval=2, count=3, missing=(UNREADABLE,))


def test_windowsIoctlRefused(recorder: RecordingSocket) -> None:
    """
    A refused ioctl is a reason; the result claims neither time, and the count is still set.
    """
    recorder.refused = {SIO_KEEPALIVE_VALS}
    applied = applyTo(recorder, KeepAlive(idle=7, interval=2), WINDOWS_1703)
    assert (applied.idle, applied.interval, applied.count) == (None, None, 3)
    [reason] = applied.missing
    assert reason.startswith("The kernel refused SIO_KEEPALIVE_VALS for idle=7, interval=2: ")


# What goes wrong


@pytest.mark.parametrize("option", ["idle", "interval", "count", "userTimeout"])
def test_refusedOptionKeepsTheRest(recorder: RecordingSocket, option: str) -> None:
    """
    Whichever option the kernel refuses, the other three are set and one reason names it.
    """
    numbers = {each.field: each.number for each in LINUX.options}
    refused = numbers.pop(option)
    assert refused is not None
    recorder.refused = {refused}
    applied = applyTo(recorder, ASKED, LINUX)
    assert set(recorder.held) == {ON, *(tcp(number) for number in numbers.values() if number)}
    assert getattr(applied, option) is None
    [reason] = applied.missing
    assert f"for {option}={getattr(ASKED, option)}: [Errno {errno.EINVAL}]" in reason


def test_refusedSwitch(recorder: RecordingSocket) -> None:
    """
    If keepalive itself can not be switched on, the result says that it is off, and why.
    """
    recorder.refused = {socket.SO_KEEPALIVE}
    applied = applyTo(recorder, KeepAlive(), LINUX)
    assert not applied.enabled
    [reason] = applied.missing
    assert reason.startswith("The kernel refused SO_KEEPALIVE, so keepalive is off: ")


def test_untoldOption(recorder: RecordingSocket) -> None:
    """
    An option that the kernel takes and does not tell is not claimed to be set.
    """
    recorder.untold = {4}
    applied = applyTo(recorder, KeepAlive(), LINUX)
    assert (applied.idle, applied.interval, applied.count) == (None, 5, 3)
    [reason] = applied.missing
    assert reason.startswith("The kernel does not tell its TCP_KEEPIDLE for idle: ")


def test_kernelTakesSomethingElse(
    recorder: RecordingSocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The result holds what the kernel holds, not what was asked; that they differ is a reason.
    """
    monkeypatch.setattr(recorder, "getsockopt", lambda level, number: 9 if number == 6 else 5)
    applied = applyTo(recorder, KeepAlive(), LINUX)
    assert applied.count == 9
    assert applied.missing == ("The kernel took 9 for count=3.",)


@pytest.mark.parametrize(
    ("seconds", "milliseconds"),
    [(1e-9, 1), (0.0001, 1), (0.0101, 11), (16.1, 16100), (1.005, 1005), (3, 3000)],
)
def test_userTimeoutRoundsUp(recorder: RecordingSocket, seconds: float, milliseconds: int) -> None:
    """
    The user timeout is never set shorter than asked, never to 0, which would mean the default, and
    never longer by the error of a float.
    """
    applyTo(recorder, KeepAlive(userTimeout=seconds), LINUX)
    assert recorder.held[tcp(18)] == milliseconds


def test_warnedOnce(recorder: RecordingSocket) -> None:
    """
    What the system can not do is logged as a warning, once in a process for each reason, while
    every result keeps naming it.
    """
    with capturedLogs() as logged:
        first = applyTo(recorder, ASKED, FREEBSD)
        second = applyTo(recorder, ASKED, FREEBSD)
        assert first.missing == second.missing
        assert [event["reason"] for event in logged] == [*first.missing]
        other = applyTo(recorder, KeepAlive(userTimeout=9), FREEBSD)
    assert [event["reason"] for event in logged] == [*first.missing, *other.missing]
    assert {event["log_level"].name for event in logged} == {"warn"}
    assert {event["log_namespace"] for event in logged} == {"twisted_heartbeat.transport.keepalive"}


def test_frozen() -> None:
    """
    A result is a fact, and facts do not change.
    """
    with pytest.raises(FrozenInstanceError):
        Applied().idle = 1  # type: ignore[misc]
