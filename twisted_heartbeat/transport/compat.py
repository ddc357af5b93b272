# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Accessors for the private names of Twisted and pyOpenSSL that this package uses.

Problem: Twisted keeps some facts of a connection behind private names, which it may change in any
release.  Spread over the package, a change of one name would break links in places that no reader
would look for.

Idea: each private name has one accessor here, with the reason why no public name will do.

Invariants:

  1. No other module of the package uses a private name of Twisted's or pyOpenSSL's.
     C{tests/project/test_architecture.py} checks this, and lists the exceptions with their reasons.
  2. An accessor whose name is missing returns what a plain connection would: nothing waits, no TLS,
     no header.  Objects that are not Twisted's, such as mocks, get the same answer.
  3. Where nothing sensible can stand in, the accessor raises C{AttributeError} or C{ImportError}.
     A polite close asks L{canHoldSocketOpen} first.

Cost: the paths of each chunk and ping make no call more than with the names themselves.  What they
need is a property of L{PlainConnection}, which L{ObservedConnection} inherits.

Checked with Twisted 24.3.0 and 26.10.0, and pyOpenSSL 26.4.0.  C{tests/transport/test_compat.py}
fails when a release lacks one of the names.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from typing import Any

from twisted.internet import tcp
from twisted.internet.abstract import FileDescriptor

# twisted.internet.tcp and twisted.internet.abstract: no public name tells how many bytes wait in a
# transport, or how far its close has come.


def bytesBufferedIn(connection: Any) -> int:
    """
    Count the bytes that wait in a TCP or UNIX connection for the kernel.

    C{_tempDataLen} counts what has been written since the last C{send}.
    """
    waiting: int = len(connection.dataBuffer) - connection.offset
    return waiting + getattr(connection, "_tempDataLen", 0)


def discardBuffer(connection: Any) -> None:
    """
    Throw away the bytes that wait in a TCP or UNIX connection for the kernel.
    """
    connection.dataBuffer, connection.offset = b"", 0
    connection._tempDataBuffer, connection._tempDataLen = [], 0


def isAborting(connection: Any) -> bool:
    """
    Find out whether C{abortConnection} was called: the connection reads and writes nothing more.
    """
    return bool(getattr(connection, "_aborting", False))


def isWriteClosed(connection: Any) -> bool:
    """
    Find out whether the connection's own half is closed.
    """
    return bool(getattr(connection, "_writeDisconnected", False))


def markWriteClosed(connection: Any) -> None:
    """
    Mark the connection's own half as closed, as C{FileDescriptor.doWrite} does after it has shut
    the socket down.  Otherwise a later C{write} would be sent, and fail.
    """
    connection._writeDisconnected = True


def canHoldSocketOpen() -> bool:
    """
    Find out whether L{holdSocketOpen} works with this Twisted.
    """
    return hasattr(FileDescriptor, "_postLoseConnection")


def holdSocketOpen(connection: Any, flushed: Callable[[], object]) -> None:
    """
    Call a function in place of closing the socket, once all is written after C{loseConnection}.

    Twisted closes the socket at that point, and the kernel answers unread data with RST, which
    destroys what the peer has not read yet.  C{loseWriteConnection} is no way around it: over TLS
    it reaches the raw socket, and the peer sees truncation.

    @param flushed: returns L{None} to keep the socket open, or the reason why it closes.
    """
    connection._postLoseConnection = flushed


def releaseSocket(connection: Any) -> None:
    """
    Undo L{holdSocketOpen}; otherwise the connection and the function refer to each other.
    """
    connection.__dict__.pop("_postLoseConnection", None)


class PlainConnection(tcp.Connection):
    """
    A TCP connection that knows whether a write may bypass its transport's buffer.

    These are properties of the connection itself, because each ping that is written directly reads
    one of them: a function in between would cost a call for each (C{tests/costs/test_costs.py}).
    """

    @property
    def isPlainAndOpen(self) -> bool:
        """
        Whether written bytes go to the kernel as they are.
        """
        closing = self.disconnecting or self._writeDisconnecting or self._writeDisconnected
        return bool(self.connected and not closing and not self._aborting and not self.TLS)

    @property
    def canWriteDirect(self) -> bool:
        """
        Whether bytes may go to the kernel now: none wait before them, and the connection
        L{isPlainAndOpen}.
        """
        # Not by isPlainAndOpen: that would be a call more for each ping.
        if self._tempDataLen or self.dataBuffer:
            return False
        closing = self.disconnecting or self._writeDisconnecting or self._writeDisconnected
        return bool(self.connected and not closing and not self._aborting and not self.TLS)

    def bytesBuffered(self) -> int:
        """
        Bytes that wait in this process, without those in TLS.
        """
        return len(self.dataBuffer) - self.offset + self._tempDataLen


# twisted.internet._newtls: startTLS on a transport that is not Twisted's own has no public name,
# and its stand-in for the connection forwards every name but its own.


def bypassedConnection(layer: object) -> Any:
    """
    Return the connection behind the stand-in that C{startTLS} gives its TLS layer as a transport;
    L{None} if the layer is something else.
    """
    return getattr(layer, "_connection", None)


def startTLSOn(transport: Any, contextFactory: Any, normal: bool, base: type) -> None:
    """
    Start TLS on a transport as Twisted's own connections do.

    @param base: the class whose methods the TLS layer calls.
    @raise ImportError: if this Twisted has no such function.
    """
    from twisted.internet._newtls import startTLS

    startTLS(transport, contextFactory, normal, base)


# twisted.internet._producer_helpers: the only implementation of pull producers for a transport
# that can only pause and resume; TLS has the same.


def pushProducerFor(producer: Any, consumer: Any) -> Any:
    """
    Wrap a pull producer for a consumer that only pauses and resumes.

    @raise ImportError: if this Twisted has no such class.
    """
    from twisted.internet._producer_helpers import _PullToPush

    return _PullToPush(producer, consumer)


def pullProducerOf(producer: Any) -> Any:
    """
    Return the pull producer that L{pushProducerFor} has wrapped; L{None} for any other producer.
    """
    helpers = sys.modules.get("twisted.internet._producer_helpers")
    kind = getattr(helpers, "_PullToPush", ())
    return getattr(producer, "_producer", None) if isinstance(producer, kind) else None


# twisted.protocols.tls: the layer tells its protocol, and nothing else, how far the handshake is.


def isHandshakeDone(layer: object) -> bool:
    """
    Find out whether a layer has no TLS handshake to wait for.
    """
    return bool(getattr(layer, "_handshakeDone", True))


def isTLSAborted(layer: object) -> bool:
    """
    Find out whether a TLS layer was aborted, for example because of the peer's certificate.
    """
    return bool(getattr(layer, "_aborted", False))


def isTLSLost(layer: object) -> bool:
    """
    Find out whether a TLS layer has ended: close_notify of both sides, or an error.
    """
    return bool(getattr(layer, "_lostTLSConnection", False))


def tlsConnectionOf(layer: object, default: Any = None) -> Any:
    """
    Return the C{OpenSSL.SSL.Connection} of a TLS layer; L{None} once it is lost.

    C{getHandle} is public, but wrappers without TLS forward it to the socket.

    @param default: what to return for a layer without TLS.
    """
    return getattr(layer, "_tlsConnection", default)


def bytesBufferedInTLS(layer: Any) -> int:
    """
    Count the bytes that wait in a TLS layer.

    C{_appSendBuffer} holds what OpenSSL has not taken.  The aggregator keeps small writes until the
    end of the reactor's turn, and counts them: adding up thousands of pongs for each further ping
    would make a flood of pings quadratic.
    """
    waiting = sum(map(len, getattr(layer, "_appSendBuffer", ())))
    aggregator: Any = getattr(layer, "_aggregator", None)
    left: int | None = getattr(aggregator, "_bufferLeft", None)
    return waiting if left is None else waiting + aggregator.MAX_BUFFER_SIZE - left


def flushTLS(layer: Any) -> None:
    """
    Encrypt and send what was written before the handshake was complete.

    Twisted does so only after it has told the protocol, so that large writes of the protocol would
    overtake the earlier ones (L{twisted.protocols.tls}).
    """
    if getattr(layer, "_appSendBuffer", None):
        layer._unbufferPendingWrites()


def verifyResultOf(connection: Any) -> tuple[int, str]:
    """
    Return the code and text of OpenSSL's verdict on the peer's certificate; C{0} and C{""} if there
    is none.

    Source: SSL_get_verify_result(3ssl), for which pyOpenSSL has no public name.
    """
    try:
        from OpenSSL._util import ffi, lib

        code = lib.SSL_get_verify_result(connection._ssl)
        return code, ffi.string(lib.X509_verify_cert_error_string(code)).decode()
    except (ImportError, AttributeError, TypeError):
        # The transport may be a mock, or the connection may be lost.
        return 0, ""


# twisted.internet.endpoints: endpoints do not tell what they connect to, or wrap.


def protocolBehindEndpoint(wrapper: object) -> Any:
    """
    Return the protocol that the wrapper of Twisted's client endpoints carries; L{None} for others.
    """
    # Another wrapper may have an attribute of this name, or forward it to Twisted's.
    isEndpoints = type(wrapper).__module__ == "twisted.internet.endpoints"
    return getattr(wrapper, "_wrappedProtocol", None) if isEndpoints else None


def replaceProtocol(connection: Any, protocol: object, other: object) -> bool:
    """
    Replace the protocol of a connection, which then calls the other object.

    @return: L{False}, with nothing changed, if anything but the wrapper of Twisted's client
        endpoints is between the connection and the protocol.
    """
    called = connection.protocol
    if called is protocol:
        connection.protocol = other
    elif getattr(called, "__dict__", {}).get("_wrappedProtocol") is protocol:
        # Not by getattr alone: another layer may forward the name to Twisted's wrapper.
        called._wrappedProtocol = other
    else:
        return False
    return True


def wrappedEndpoint(endpoint: object) -> Any:
    """
    Return the endpoint inside of a wrapping one, such as that of C{tls:}; L{None} if there is none.
    """
    return _fieldOf(endpoint, "_wrappedEndpoint")


def hostOfEndpoint(endpoint: object) -> Any:
    """
    Return the host of an endpoint; L{None} if it has none.
    """
    return _fieldOf(endpoint, "_host")


def portOfEndpoint(endpoint: object) -> Any:
    """
    Return the port of an endpoint; L{None} if it has none.
    """
    return _fieldOf(endpoint, "_port")


def interfaceOfEndpoint(endpoint: object) -> Any:
    """
    Return the address that an endpoint listens on; L{None} if it has none.
    """
    return _fieldOf(endpoint, "_interface")


def pathOfEndpoint(endpoint: object) -> Any:
    """
    Return the path of an endpoint of a UNIX socket; L{None} if it has none.
    """
    path = _fieldOf(endpoint, "_address")
    return _fieldOf(endpoint, "_path") if path is None else path


def targetOfEndpoint(endpoint: object) -> Any:
    """
    Return the host, path or program of an endpoint; L{None} if it has none of them.
    """
    names = ("_hostText", "_host", "_path", "_executable")
    return next((found for name in names if (found := _fieldOf(endpoint, name))), None)


def contextFactoryOfEndpoint(endpoint: object) -> Any:
    """
    Return the context factory of an endpoint with TLS; L{None} if it has none.

    In its place may be what makes connections, and tells no context: the options that
    C{ssl:HOST:PORT:hostname=...} has, for example.
    """
    found = _fieldOf(endpoint, "_sslContextFactory")
    return found if hasattr(found, "getContext") else None


def setContextFactoryOfEndpoint(endpoint: Any, contextFactory: object) -> None:
    """
    Let an endpoint listen with this context factory.  It must be one that has a context factory.
    """
    endpoint._sslContextFactory = contextFactory


def _fieldOf(endpoint: object, name: str) -> Any:
    # Not by getattr: an endpoint may forward all names to another.
    return getattr(endpoint, "__dict__", {}).get(name)


def argumentsOf(description: str) -> dict[str, Any]:
    """
    Return the keyword arguments in an endpoint's description; none if this Twisted does not tell.
    """
    from twisted.internet import endpoints

    parse = getattr(endpoints, "_parse", None)
    return {} if parse is None else parse(description)[1]


# twisted.protocols.haproxy: the layer tells neither that it has read the header, nor what was in
# it.


def isProxyLayer(layer: object) -> bool:
    """
    Find out whether a layer is that of C{haproxy:}.  It is not imported, only found if loaded.
    """
    module = sys.modules.get("twisted.protocols.haproxy._wrapper")
    return isinstance(layer, getattr(module, "HAProxyProtocolWrapper", ()))


def proxyHeaderOf(layer: Any) -> Any:
    """
    Return the header that a layer of C{haproxy:} has read; L{None} before that.
    """
    return getattr(layer, "_proxyInfo", None)


def callOnProxyHeader(layer: Any, received: Callable[[], None]) -> None:
    """
    Call a function once a layer of C{haproxy:} has read its header, and before the layer delivers
    what follows it, which happens in the same call.
    """
    if not hasattr(layer, "_twistedHeartbeatWaiting"):
        layer._twistedHeartbeatWaiting = []
        kind: Any = type(layer)
        layer.__class__ = _headerAwaitingClass(kind)
    layer._twistedHeartbeatWaiting.append(received)


@cache
def _headerAwaitingClass(kind: Any) -> Any:
    class HeaderAwaiting(kind):  # type: ignore[misc]
        @property
        def _proxyInfo(self) -> None:
            return None

        @_proxyInfo.setter
        def _proxyInfo(self, info: object) -> None:
            if info is not None:
                waiting = self.__dict__.pop("_twistedHeartbeatWaiting")
                # From here on the layer is of Twisted's class again, and costs nothing.
                self.__class__ = kind
                self._proxyInfo = info
                for received in waiting:
                    received()

    HeaderAwaiting.__name__ = kind.__name__
    return HeaderAwaiting


# twisted.internet.posixbase: a reader beside the reactor's own has no public way to end.


def disconnectSelectable(reactor: Any, connection: Any, reason: BaseException) -> None:
    """
    End a connection as the reactor does when C{doRead} has returned or raised a reason.

    @raise AttributeError: if the reactor cannot.  Only an epoll reactor is asked, and each has it.
    """
    reactor._disconnectSelectable(connection, reason, True)


# twisted.internet.defer: only C{addErrback} marks an error as handled, and it changes the result.


def markErrorHandled(deferred: Any) -> None:
    """
    Log no unhandled error for a failed C{Deferred}, and leave its result as it is.
    """
    debug = getattr(deferred, "_debugInfo", None)
    if debug is not None:
        debug.failResult = None
