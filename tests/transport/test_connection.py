# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What L{twisted_heartbeat.transport} gets back from Twisted's transports: errno, send progress,
evidence, and an end that always comes.
"""

from __future__ import annotations

import ast
import errno
import inspect
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import abstract, tcp
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Factory
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOProtocol

from twisted_heartbeat import (
    Cause,
    HeartbeatFactory,
    HeartbeatProtocol,
    HostUnreachable,
    KeepAliveExpired,
    NetworkUnreachable,
    PeerClosed,
    PeerReset,
    SendFailed,
)
from twisted_heartbeat.core.detector import FailureDetector
from twisted_heartbeat.transport.connection import ObservedConnection
from twisted_heartbeat.transport.instrument import instrument
from twisted_heartbeat.transport.layers import abort, findConnection
from twisted_heartbeat.transport.tcpinfo import readEvidence
from twisted_heartbeat.transport.tls import isHandshakingTLS, usesTLS

from ..support.loopback import Loopback, connectedPair, wait, within
from ..support.virtualnetwork import KeptFactory, Recorder

onLinux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux tells what its kernel knows"
)

ROOT = Path(__file__).parents[2]


class Silent:
    """
    Is told of sending, and does nothing.
    """

    def writeStarted(self) -> None:
        """
        Nothing.
        """

    def writeProgressed(self) -> None:
        """
        Nothing.
        """

    def peerClosedWrite(self) -> None:
        """
        Nothing.
        """


class BrokenSocket:
    """
    A socket of which some calls fail.
    """

    def __init__(self, real: socket.socket, number: int, *calls: str) -> None:
        self._real = real
        self._number = number
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        return self._fail if name in self._calls else getattr(self._real, name)

    def _fail(self, *_: object) -> None:
        raise OSError(self._number, os.strerror(self._number))


# errno.

NUMBERS = [
    (errno.ECONNRESET, PeerReset),
    (errno.ETIMEDOUT, KeepAliveExpired),
    (errno.EHOSTUNREACH, HostUnreachable),
    (errno.ENETUNREACH, NetworkUnreachable),
    (errno.EPIPE, SendFailed),
]


@pytest.mark.parametrize(("number", "kind"), NUMBERS, ids=[n.__name__ for _, n in NUMBERS])
@pytest_twisted.ensureDeferred
async def test_errnoOfRecv(loopback: Loopback, number: int, kind: type[Cause]) -> None:
    """
    The errno with which C{recv} fails names the cause, over TLS too (promise 11).
    """
    hooks, factory = Recorder(), KeptFactory()
    _, peer = await connectedPair(loopback, hooks, factory)
    connection = findConnection(factory.built[0].transport)
    assert connection is not None
    ended = hooks.next("disconnected")
    connection.socket = BrokenSocket(connection.socket, number, "recv")  # type: ignore[assignment]
    peer.transport.write(b"hello")
    cause = await within(ended)
    assert type(cause) is kind
    assert f"[errno {number}]" in str(cause)


@pytest_twisted.ensureDeferred
async def test_finBeforeTheFirstSend(plain: Loopback) -> None:
    """
    A server that accepts and closes, for example because it has no descriptor left, has closed:
    also if that happens before this side sees its connection, and a send meets EPIPE first.
    """
    from twisted.internet import reactor

    hooks = Recorder()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        place = TCP4ClientEndpoint(reactor, *listening.getsockname())
        ended = hooks.next("disconnected")
        service = plain.service(place, Factory.forProtocol(HeartbeatProtocol), hooks=hooks)
        # After the call of connect(), which Twisted has delayed as well, and before the next poll.
        reactor.callLater(0, lambda: listening.accept()[0].close())  # type: ignore[attr-defined]
        cause = await within(ended)
        await within(service.stopService())
    assert type(cause) is PeerClosed


@pytest.mark.parametrize(("number", "kind"), NUMBERS, ids=[n.__name__ for _, n in NUMBERS])
@pytest_twisted.ensureDeferred
async def test_errnoOfSend(loopback: Loopback, number: int, kind: type[Cause]) -> None:
    """
    The errno with which C{send} fails names the cause, over TLS too (promise 11).
    """
    hooks, factory = Recorder(), KeptFactory()
    await connectedPair(loopback, hooks, factory)
    connection = findConnection(factory.built[0].transport)
    assert connection is not None
    ended = hooks.next("disconnected")
    connection.socket = BrokenSocket(connection.socket, number, "send")  # type: ignore[assignment]
    factory.built[0].transport.write(b"hello")
    cause = await within(ended)
    assert type(cause) is kind
    assert f"[errno {number}]" in str(cause)


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOBUFS])
@pytest_twisted.ensureDeferred
async def test_busySocket(loopback: Loopback, number: int) -> None:
    """
    A socket that takes nothing now is no error.
    """
    hooks, factory = Recorder(), KeptFactory()
    _, peer = await connectedPair(loopback, hooks, factory)
    connection = findConnection(factory.built[0].transport)
    assert isinstance(connection, ObservedConnection)
    real = connection.socket
    connection.socket = BrokenSocket(real, number, "send")  # type: ignore[assignment]
    factory.built[0].transport.write(b"hello")
    await wait(0.02)
    connection.socket = real
    assert await within(peer.heard.get()) == b"hello"
    assert connection.lastErrno == 0
    assert "disconnected" not in hooks.names


REACTOR_SCRIPT = """
import sys
from importlib import import_module
import_module("twisted.internet." + sys.argv[1] + "reactor").install()
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted_heartbeat import HeartbeatClientService, LinkHooks

class Peer(Protocol):
    def connectionMade(self):
        reactor.callLater(0.05, self.transport.abortConnection)

class Client(Protocol):
    def connectionMade(self):
        if sys.argv[2] == "send":
            self.transport.pauseProducing()
            reactor.callLater(0.15, self.transport.write, b"too late")

class Hooks(LinkHooks):
    def disconnected(self, link, cause):
        print(type(cause).__name__, cause)
        reactor.callLater(0, reactor.stop)

port = reactor.listenTCP(0, Factory.forProtocol(Peer), interface="127.0.0.1")
endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
service = HeartbeatClientService(endpoint, Factory.forProtocol(Client), hooks=Hooks())
reactor.callWhenRunning(service.startService)
reactor.callLater(5, reactor.stop)
reactor.run()
"""


@pytest.mark.parametrize("during", ["recv", "send"])
@pytest.mark.parametrize("name", ["epoll", "poll", "select", "asyncio"])
def test_errnoOnEachReactor(name: str, during: str) -> None:
    """
    A reset is C{PeerReset} on every reactor, whether reading or writing meets it, or the reactor
    itself sees the error first (promise 11).
    """
    if name == "epoll" and not sys.platform.startswith("linux"):
        pytest.skip("there is no epoll here")
    if name == "poll" and sys.platform == "win32":
        pytest.skip("there is no poll here")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", REACTOR_SCRIPT, name, during],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines()[0].startswith("PeerReset"), done.stdout
    assert f"[errno {errno.ECONNRESET}]" in done.stdout


# The observed connection.


@pytest_twisted.ensureDeferred
async def test_observedConnectionLooksLikeTheOriginal(loopback: Loopback) -> None:
    """
    An observed connection is an instance of what it was, provides the same, and has the
    same C{repr} and name.
    """
    hooks, factory = Recorder(), KeptFactory()
    _, peer = await connectedPair(loopback, hooks, factory)
    client = findConnection(factory.built[0].transport)
    plain = findConnection(peer.transport)
    assert type(plain) is tcp.Server
    before = repr(plain)
    assert instrument(peer.transport, FailureDetector(None, 0.0), lambda: 0.0, Silent()) is plain
    assert repr(plain) == before
    for connection, kind in ((client, tcp.Client), (plain, tcp.Server)):
        assert isinstance(connection, ObservedConnection)
        assert isinstance(connection, kind)
        assert ITCPTransport.providedBy(connection)
        assert type(connection).__name__ == kind.__name__
        assert type(connection).__module__ == kind.__module__
    plain.observer = None  # type: ignore[attr-defined]


@pytest_twisted.ensureDeferred
async def test_instrumentTwice(loopback: Loopback) -> None:
    """
    To instrument a connection twice makes no second subclass, and one class serves all connections
    of a kind.
    """
    factory = KeptFactory()
    _, _ = await connectedPair(loopback, Recorder(), factory)
    connection = findConnection(factory.built[0].transport)
    assert isinstance(connection, ObservedConnection)
    kind = type(connection)
    sender = connection.observer
    assert sender is not None
    instrument(connection, connection.detector, connection.seconds, sender)
    assert type(connection) is kind
    assert kind.__mro__.count(ObservedConnection) == 1


@pytest_twisted.ensureDeferred
async def test_portMakesObservedConnections() -> None:
    """
    From its second connection on a port makes observed ones from the start; one that nobody
    watches is as any other connection.
    """
    from twisted.internet import reactor

    kept = KeptFactory()
    watched = HeartbeatFactory(kept)
    turns = iter([watched, kept, watched])
    both = Factory()
    both.buildProtocol = lambda addr: next(turns).buildProtocol(addr)  # type: ignore[method-assign]
    listening: Any = reactor
    port = listening.listenTCP(0, both, interface="127.0.0.1")
    peers = []
    try:
        for number in (1, 2, 3):
            peers.append(socket.create_connection(("127.0.0.1", port.getHost().port)))
            peers[-1].sendall(b"a word")
            while len(kept.built) < number or not kept.built[-1].received:
                await wait(0.01)
        connections = [findConnection(one.transport) for one in kept.built]
        assert all(isinstance(one, ObservedConnection) for one in connections)
        unobserved = [getattr(one, "observer", None) is None for one in connections]
        assert unobserved == [False, True, False]
        assert [one.received for one in kept.built] == [b"a word"] * 3
        kept.built[1].transport.write(b"and back")
        peers[1].settimeout(0.01)
        await wait(0.02)
        assert peers[1].recv(100) == b"and back"
    finally:
        for peer in peers:
            peer.close()
        await port.stopListening()
        while any(not one.losses for one in kept.built):
            await wait(0.01)


@pytest_twisted.ensureDeferred
async def test_observedConnectionCounts(loopback: Loopback) -> None:
    """
    The observed connection knows what was handed to the kernel, what waits, what the peer's kernel
    has acknowledged, and when bytes last came.
    """
    factory = KeptFactory()
    service, peer = await connectedPair(loopback, Recorder(), factory)
    connection = findConnection(factory.built[0].transport)
    assert isinstance(connection, ObservedConnection)
    sent = connection.bytesSent
    factory.built[0].transport.write(b"x" * 1000)
    await within(peer.heard.get())
    assert connection.bytesSent >= sent + 1000
    assert connection.bytesBuffered() == 0
    deadline = 100
    while connection.bytesAcked() < connection.bytesSent and deadline:
        deadline -= 1
        await wait(0.01)
    assert connection.bytesAcked() == connection.bytesSent
    heardAt = connection.detector.heardAt
    await wait(0.02)
    peer.transport.write(b"hello")
    while factory.built[0].received != b"hello":
        await wait(0.005)
    assert connection.detector.heardAt > heardAt
    assert service.link is not None
    assert service.link.peerWatch.detector is connection.detector


@onLinux
@pytest_twisted.ensureDeferred
async def test_evidence(loopback: Loopback) -> None:
    """
    On Linux the kernel's knowledge is read from the socket: of a healthy connection, and of one
    whose peer does not read.
    """
    factory = KeptFactory()
    _, peer = await connectedPair(loopback, Recorder(), factory)
    connection = findConnection(factory.built[0].transport)
    assert connection is not None
    factory.built[0].transport.write(b"hello")
    await within(peer.heard.get())
    # The peer's kernel may delay its acknowledgement by 40 ms, and TLS writes more after it.
    await wait(0.3)
    healthy = readEvidence(connection.socket)
    assert healthy is not None
    assert healthy.kernelAnswers
    assert healthy.unacknowledged == 0
    assert 0.05 < healthy.sinceAck < 5  # type: ignore[operator]
    assert 0 < healthy.rtt < 1  # type: ignore[operator]
    peer.transport.pauseProducing()
    factory.built[0].transport.write(bytes(20_000_000))
    await wait(0.1)
    full = readEvidence(connection.socket)
    assert full is not None
    assert full.unacknowledged is not None
    assert full.unacknowledged > 0
    factory.built[0].transport.abortConnection()
    peer.transport.abortConnection()
    await within(peer.lost)


def test_noEvidenceElsewhere() -> None:
    """
    A socket that is no TCP socket gives no evidence, and no error.
    """
    one, other = socket.socketpair()
    with one, other:
        assert readEvidence(one) is None


def test_nothingToObserve() -> None:
    """
    What is no connection of Twisted's is left alone.
    """
    transport = StringTransport()
    assert findConnection(transport) is None
    assert instrument(transport, FailureDetector(None, 0.0), lambda: 0.0, Silent()) is None
    assert type(transport) is StringTransport
    assert not isHandshakingTLS(transport)
    assert not usesTLS(transport)


def test_wrappersWithoutEnd() -> None:
    """
    A stack of wrappers that goes round in circles is given up.
    """

    class Round:
        @property
        def transport(self) -> Round:
            return self

        def loseConnection(self) -> None:
            lost.append(self)

    lost: list[object] = []
    circle = Round()
    assert findConnection(circle) is None
    abort(circle)
    assert lost == [circle]


# Ending.


class Closable:
    """
    Has only what C{ITransport} has.
    """

    def __init__(self, transport: Any = None) -> None:
        self.transport = transport
        self.calls: list[str] = []

    def loseConnection(self) -> None:
        """
        Note it.
        """
        self.calls.append("loseConnection")


class Abortable(Closable):
    """
    Can abort, too.
    """

    def abortConnection(self) -> None:
        """
        Note it.
        """
        self.calls.append("abortConnection")


def test_abort() -> None:
    """
    The nearest layer that can abort is asked to; where none can, the polite close has to do.
    """
    inner = Abortable()
    outer = Closable(Closable(inner))
    abort(outer)
    assert inner.calls == ["abortConnection"]
    assert outer.calls == []
    both = Abortable(inner)
    abort(both)
    assert both.calls == ["abortConnection"]
    neither = Closable(Closable())
    abort(neither)
    assert neither.calls == ["loseConnection"]


@pytest_twisted.ensureDeferred
async def test_isHandshakingTLS() -> None:
    """
    A TLS transport tells whether its handshake is complete, and a plain one has none to wait for.
    """
    seen: list[tuple[bool, bool]] = []

    class Looking(KeptFactory):
        def buildProtocol(self, addr: Any) -> Any:
            protocol = super().buildProtocol(addr)

            def connectionMade() -> None:
                transport = protocol.transport
                seen.append((usesTLS(transport), isHandshakingTLS(transport)))

            protocol.connectionMade = connectionMade
            return protocol

    for secured in (False, True):
        place = Loopback(secured)
        factory = Looking()
        await connectedPair(place, Recorder(), factory)
        assert not isHandshakingTLS(factory.built[0].transport)
        await within(place.close())
    assert seen == [(False, False), (True, True)]


# What this module copies from Twisted, or relies on.


def source(function: Callable[..., object]) -> str:
    """
    A function without its docstring, its annotations and its comments.
    """
    return plainSource(textwrap.dedent(inspect.getsource(function)))


def plainSource(text: str) -> str:
    """
    The same of a text.
    """
    [function] = ast.parse(text).body
    assert isinstance(function, ast.FunctionDef)
    function.returns = None
    for argument in function.args.args:
        argument.annotation = None
    if ast.get_docstring(function) is not None:
        del function.body[0]
    for node in ast.walk(function):
        # "return" and "return None" are one.
        if isinstance(node, ast.Return) and node.value is None:
            node.value = ast.Constant(None)
    return ast.unparse(function)


DO_READ = """
def doRead(self):
    try:
        data = self.socket.recv(self.bufferSize)
    except OSError as se:
        if se.args[0] == EWOULDBLOCK:
            return None
        else:
            return main.CONNECTION_LOST
    return self._dataReceived(data)
"""

DATA_RECEIVED = """
def _dataReceived(self, data):
    if not data:
        return main.CONNECTION_DONE
    self.protocol.dataReceived(data)
    return None
"""

# Until 24.7 a protocol could, with a warning, return something.
OLD_DATA_RECEIVED = """
def _dataReceived(self, data):
    if not data:
        return main.CONNECTION_DONE
    rval = self.protocol.dataReceived(data)
    if rval is not None:
        offender = self.protocol.dataReceived
        warningFormat = (
            "Returning a value other than None from %(fqpn)s is "
            "deprecated since %(version)s."
        )
        warningString = deprecate.getDeprecationWarningString(
            offender, versions.Version("Twisted", 11, 0, 0), format=warningFormat
        )
        deprecate.warnAboutFunction(offender, warningString)
    return rval
"""

WRITE_SOME_DATA = """
def writeSomeData(self, data):
    limitedData = memoryview(data)[: self.SEND_LIMIT]
    try:
        return untilConcludes(self.socket.send, limitedData)
    except OSError as se:
        if se.args[0] in (EWOULDBLOCK, ENOBUFS):
            return 0
        else:
            return main.CONNECTION_LOST
"""

START_WRITING = """
def startWriting(self):
    self.reactor.addWriter(self)
"""


@pytest.mark.parametrize(
    ("function", "known"),
    [
        (tcp.Connection.doRead, [DO_READ]),
        (tcp.Connection._dataReceived, [DATA_RECEIVED, OLD_DATA_RECEIVED]),
        (
            tcp.Connection.writeSomeData,
            [
                WRITE_SOME_DATA,
                WRITE_SOME_DATA.replace(
                    "memoryview(data)[: self.SEND_LIMIT]",
                    "lazyByteSlice(data, 0, self.SEND_LIMIT)",
                ),
            ],
        ),
        (abstract.FileDescriptor.startWriting, [START_WRITING]),
    ],
    ids=["doRead", "_dataReceived", "writeSomeData", "startWriting"],
)
def test_twistedIsAsItWas(function: Callable[..., object], known: list[str]) -> None:
    """
    What C{ObservedConnection} does in place of Twisted's own is what Twisted still does.
    """
    found = source(function)
    assert found in [plainSource(text) for text in known], (
        f"{function.__qualname__} of the installed Twisted has changed: compare it with the method "
        f"of the same name in twisted_heartbeat/net/transport.py, and add it here.\n{found}"
    )


def test_overridesNothingUnknown() -> None:
    """
    Between C{ObservedConnection} and the classes whose methods it takes the place of stands no
    other that has a word in it.
    """
    ofDescriptors = ("doWrite", "startWriting", "pauseProducing", "resumeProducing")
    for name in (*ofDescriptors, "startReading", "stopReading"):
        for kind in (tcp.Client, tcp.Server):
            assert getattr(kind, name) is getattr(abstract.FileDescriptor, name), (kind, name)
    for name in ("doRead", "writeSomeData", "startTLS"):
        for kind in (tcp.Client, tcp.Server):
            assert getattr(kind, name) is getattr(tcp.Connection, name), (kind, name)


@pytest_twisted.ensureDeferred
async def test_twistedHasWhatIsReliedOn() -> None:
    """
    The private names that are read are there: of the send buffers, plain and TLS, and of the
    handshake.
    """
    place = Loopback(secured=True)
    factory = KeptFactory()
    await connectedPair(place, Recorder(), factory)
    layer = factory.built[0].transport
    assert isinstance(layer, TLSMemoryBIOProtocol)
    connection: Any = findConnection(layer)
    for name in ("dataBuffer", "offset", "_tempDataLen"):
        assert hasattr(connection, name), name
    for name in ("_appSendBuffer", "_handshakeDone"):
        assert hasattr(layer, name), name
    await within(place.close())
