# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{twisted_heartbeat.transport.compat}: this release of Twisted and pyOpenSSL has each private name,
and an object without them is no error.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from OpenSSL.SSL import TLS_METHOD, Connection, Context
from twisted.internet import tcp
from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    ProcessEndpoint,
    SSL4ClientEndpoint,
    SSL4ServerEndpoint,
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    UNIXClientEndpoint,
    wrapClientTLS,
)
from twisted.internet.posixbase import PosixReactorBase
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions, optionsForClientTLS
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.protocols.haproxy._wrapper import HAProxyProtocolWrapper, HAProxyWrappingFactory
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol

from twisted_heartbeat.transport import compat

HEADER = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"


def tlsLayer() -> TLSMemoryBIOProtocol:
    """
    A TLS layer in the middle of its handshake.
    """
    factory = TLSMemoryBIOFactory(
        CertificateOptions(), True, Factory.forProtocol(Protocol), MemoryReactorClock()
    )
    layer = factory.buildProtocol(None)
    layer.makeConnection(StringTransport())
    return layer


def connection() -> Any:
    """
    A TCP connection without a socket.
    """
    made = object.__new__(tcp.Connection)
    FileDescriptor.__init__(made, MemoryReactorClock())
    return made


def test_connectionHasNames() -> None:
    """
    A connection's private names are those of Twisted, with the values of a connection that is open.
    """
    fresh = connection()
    for name in ("_tempDataLen", "_aborting", "_writeDisconnected", "_writeDisconnecting"):
        assert not getattr(fresh, name)
    assert compat.bytesBufferedIn(fresh) == 0
    assert not compat.isAborting(fresh)
    assert not compat.isWriteClosed(fresh)
    assert callable(tcp.Connection._dataReceived)


def test_buffered() -> None:
    """
    Written bytes count until the kernel has them.
    """
    fresh = connection()
    fresh.connected = True
    fresh.startWriting = lambda: None
    fresh.write(b"twelve bytes")
    assert compat.bytesBufferedIn(fresh) == 12


def test_heldOpen() -> None:
    """
    Twisted calls the function in place of closing, until the socket is released.
    """
    assert compat.canHoldSocketOpen()
    fresh = connection()
    called: list[bool] = []
    compat.holdSocketOpen(fresh, lambda: called.append(True))
    fresh.writeSomeData = lambda data: len(data)
    fresh.stopWriting = lambda: None
    fresh.disconnecting = True
    assert fresh.doWrite() is None
    assert called == [True]
    compat.releaseSocket(fresh)
    compat.releaseSocket(fresh)
    assert fresh.doWrite() is not None


def test_writeClosed() -> None:
    """
    A connection whose half is marked as closed takes no more.
    """
    fresh = connection()
    fresh.connected = True
    compat.markWriteClosed(fresh)
    fresh.write(b"late")
    assert compat.isWriteClosed(fresh)
    assert compat.bytesBufferedIn(fresh) == 0


def test_tlsHasNames() -> None:
    """
    A TLS layer's private names are those of Twisted, and bytes before its handshake count.
    """
    layer = tlsLayer()
    assert not compat.isHandshakeDone(layer)
    assert not compat.isTLSAborted(layer)
    assert not compat.isTLSLost(layer)
    assert isinstance(compat.tlsConnectionOf(layer), Connection)
    layer.write(b"before")
    assert compat.bytesBufferedInTLS(layer) == 6
    compat.flushTLS(layer)
    assert compat.bytesBufferedInTLS(layer) == 6
    assert callable(layer._unbufferPendingWrites)


def test_verifyResult() -> None:
    """
    Without a certificate OpenSSL has rejected none.
    """
    code, words = compat.verifyResultOf(Connection(Context(TLS_METHOD)))
    assert (code, words) == (0, "ok")


def test_endpoints() -> None:
    """
    Twisted's endpoints have their host, port, path or program where it is looked for.
    """
    reactor: Any = MemoryReactorClock()
    reactor.spawnProcess = None
    tcpEndpoint = TCP4ClientEndpoint(reactor, "192.0.2.1", 80)
    assert compat.hostOfEndpoint(tcpEndpoint) == "192.0.2.1"
    assert compat.portOfEndpoint(tcpEndpoint) == 80
    assert compat.portOfEndpoint(TCP4ServerEndpoint(reactor, 81)) == 81
    assert compat.targetOfEndpoint(HostnameEndpoint(reactor, "there.example", 1)) == "there.example"
    assert compat.targetOfEndpoint(UNIXClientEndpoint(reactor, "/there")) == "/there"
    assert compat.targetOfEndpoint(ProcessEndpoint(reactor, "/bin/there")) == "/bin/there"
    secured = wrapClientTLS(CertificateOptions(), tcpEndpoint)
    assert compat.wrappedEndpoint(secured) is tcpEndpoint
    assert compat.wrappedEndpoint(tcpEndpoint) is None
    assert compat.argumentsOf("tcp:host=there:port=1") == {"host": "there", "port": "1"}


def test_protocolBehindEndpoint() -> None:
    """
    The wrapper of a client endpoint carries the protocol where it is looked for.
    """
    reactor: Any = MemoryReactorClock()
    inner = Protocol()
    TCP4ClientEndpoint(reactor, "192.0.2.1", 80).connect(Factory.forProtocol(lambda: inner))
    wrapper = reactor.tcpClients[0][2].buildProtocol(None)
    assert compat.protocolBehindEndpoint(wrapper) is inner


def test_proxyHeader() -> None:
    """
    The function is called once the header has been read, and the layer is Twisted's own again.
    """
    layer = HAProxyWrappingFactory(Factory.forProtocol(Protocol)).buildProtocol(None)
    assert compat.isProxyLayer(layer)
    assert compat.proxyHeaderOf(layer) is None
    called: list[bool] = []
    compat.callOnProxyHeader(layer, lambda: called.append(True))
    compat.callOnProxyHeader(layer, lambda: called.append(False))
    layer.makeConnection(StringTransport())
    layer.dataReceived(HEADER[:10])
    assert (called, compat.isProxyLayer(layer)) == ([], True)
    layer.dataReceived(HEADER[10:])
    assert called == [True, False]
    assert type(layer) is HAProxyProtocolWrapper
    assert compat.proxyHeaderOf(layer).header == HEADER[:-2]


def test_pullProducer() -> None:
    """
    A wrapped pull producer is found again, and another producer is not taken for one.
    """

    class Pulled:
        _producer = "its own"

    pulled = Pulled()
    assert compat.pullProducerOf(compat.pushProducerFor(pulled, StringTransport())) is pulled
    assert compat.pullProducerOf(pulled) is None


def test_bypassed() -> None:
    """
    The stand-in that startTLS gives its layer leads to the connection.
    """
    from twisted.internet._newtls import _BypassTLS, startTLS

    fresh = connection()
    assert compat.bypassedConnection(_BypassTLS(tcp.Connection, fresh)) is fresh
    parameters = list(inspect.signature(startTLS).parameters)
    assert parameters[1:] == [
        "contextFactory",
        "normal",
        "bypass",
    ]


def test_reactorEndsConnections() -> None:
    """
    The reactor has the method by which it ends a connection.
    """
    method = PosixReactorBase._disconnectSelectable
    assert list(inspect.signature(method).parameters)[1:4] == ["selectable", "why", "isRead"]


def test_errorIsHandled() -> None:
    """
    A failed Deferred whose error is marked as handled logs nothing, and keeps its result.
    """
    failed: Deferred[None] = Deferred()
    failed.errback(RuntimeError("of no interest"))
    compat.markErrorHandled(failed)
    assert failed.result.value.args == ("of no interest",)  # type: ignore[union-attr]
    # What is left unhandled is logged here, and the suite's own check would find it.
    del failed


def test_contextFactoryOfEndpoint() -> None:
    """
    An endpoint tells its context factory.  What only makes connections is none, on either side.
    """
    reactor, factory = MemoryReactorClock(), CertificateOptions()
    for made, expected in ((factory, factory), (optionsForClientTLS("peer.example"), None)):
        for endpoint in (
            SSL4ClientEndpoint(reactor, "192.0.2.7", 1, made),
            SSL4ServerEndpoint(reactor, 1, made),
        ):
            assert compat.contextFactoryOfEndpoint(endpoint) is expected


NEUTRAL: list[tuple[Callable[..., Any], Any]] = [
    (compat.isAborting, False),
    (compat.isWriteClosed, False),
    (compat.bypassedConnection, None),
    (compat.pullProducerOf, None),
    (compat.isHandshakeDone, True),
    (compat.isTLSAborted, False),
    (compat.isTLSLost, False),
    (compat.tlsConnectionOf, None),
    (compat.bytesBufferedInTLS, 0),
    (compat.flushTLS, None),
    (compat.verifyResultOf, (0, "")),
    (compat.protocolBehindEndpoint, None),
    (compat.wrappedEndpoint, None),
    (compat.hostOfEndpoint, None),
    (compat.portOfEndpoint, None),
    (compat.targetOfEndpoint, None),
    (compat.contextFactoryOfEndpoint, None),
    (compat.isProxyLayer, False),
    (compat.proxyHeaderOf, None),
    (compat.markErrorHandled, None),
]


@pytest.mark.parametrize(("accessor", "expected"), NEUTRAL)
def test_foreignObject(accessor: Callable[..., Any], expected: object) -> None:
    """
    An object without the private name gets the answer for a plain connection, and no error.
    """
    assert accessor(object()) == expected
