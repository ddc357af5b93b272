# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What a close loses that does not wait: plain sockets, and plain Twisted.  The page of the manual on
closing says so, and L{twisted_heartbeat.link.politeclose} is there because of it.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from ..support.loopback import wait, within
from ..support.virtualnetwork import Kept

UPLOAD = bytes(6000)

REASON = b"no room"


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """
    A socket that listens on loopback.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(5)
        yield listening


def acceptUpload(server: socket.socket) -> socket.socket:
    """
    @return: a connection on which the client's data waits unread.
    """
    connection, _ = server.accept()
    connection.settimeout(5)
    assert connection.recv(1, socket.MSG_PEEK)
    return connection


def connectAndUpload(server: socket.socket) -> tuple[socket.socket, socket.socket]:
    """
    @return: both ends of a connection; what the client has sent waits unread.
    """
    client = socket.create_connection(server.getsockname(), timeout=5)
    client.sendall(UPLOAD)
    return client, acceptUpload(server)


def readToTheEnd(client: socket.socket) -> tuple[bytes, type[BaseException] | None]:
    """
    @return: what came, and the error that ended it, if it was one.
    """
    received = b""
    try:
        while chunk := client.recv(1 << 16):
            received += chunk
    except OSError as error:
        return received, type(error)
    return received, None


@pytest.mark.skipif(sys.platform != "linux", reason="Other kernels may discard what was received.")
def test_receivedDataOutlivesResetOnLinux(server: socket.socket) -> None:
    """
    A reset does not take from the peer what its kernel has received, if it reads first.
    """
    client, accepted = connectAndUpload(server)
    with client, accepted:
        accepted.sendall(REASON)
        accepted.close()
        assert readToTheEnd(client) == (REASON, ConnectionResetError)


def test_closeWithUnreadDataDropsSendBuffer(server: socket.socket) -> None:
    """
    A socket closed with unread data takes back what its kernel has not sent yet.
    """
    client, accepted = connectAndUpload(server)
    with client, accepted:
        accepted.setblocking(False)
        written = 0
        try:
            while True:
                written += accepted.send(bytes(1 << 16))
        except BlockingIOError:
            accepted.close()
        received, error = readToTheEnd(client)
        assert error is ConnectionResetError
        assert len(received) < written


@pytest_twisted.ensureDeferred
async def test_failedWriteHidesReceivedDataInTwisted(server: socket.socket) -> None:
    """
    A Twisted client that writes while reading is paused does not get the reason that had come.
    """
    from twisted.internet import reactor

    gone: Deferred[None] = Deferred()

    class Client(Kept):
        def connectionLost(self, reason: Failure = connectionDone) -> None:
            super().connectionLost(reason)
            gone.callback(None)

    client: Any = Client()
    endpoint = TCP4ClientEndpoint(reactor, *server.getsockname())
    await within(connectProtocol(endpoint, client))
    client.transport.pauseProducing()
    client.transport.write(UPLOAD)
    await wait(0.05)
    with acceptUpload(server) as accepted:
        accepted.sendall(REASON)
    client.transport.write(UPLOAD)
    await within(gone)
    assert client.received == b""
    assert client.reason.check(ConnectionLost)
