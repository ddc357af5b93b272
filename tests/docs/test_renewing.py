# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The example of the page on renewing certificates.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import trustme
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates
from twisted.logger import globalLogPublisher

from ..conftest import LoggedErrors
from ..support.modules import imported

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "renewing.py"


def write(path: Path, ca: trustme.CA) -> None:
    """
    Replace a file by a new key with a new certificate, as the page says.
    """
    new = path.with_suffix(".new")
    ca.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(new)
    os.utime(new, ns=(0, path.stat().st_mtime_ns + 1 if path.exists() else 1))
    new.replace(path)


class Told(Protocol):
    """
    Tells which certificate the server has.
    """

    def __init__(self) -> None:
        self.serial: Deferred[int] = Deferred()
        self.ended: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.serial.callback(self.transport.getPeerCertificate().get_serial_number())
        self.transport.loseConnection()

    def connectionLost(self, reason: Any = None) -> None:
        self.ended.callback(None)


class Greeter(Protocol):
    """
    The server's end.
    """

    def connectionMade(self) -> None:
        self.transport.write(b"hello")

    def dataReceived(self, data: bytes) -> None:
        raise AssertionError("nothing is sent")


@pytest_twisted.ensureDeferred
async def test_newCertificateServesTheNextHandshake(
    tmp_path: Path, loggedErrors: LoggedErrors
) -> None:
    """
    A file that was replaced serves the next handshake. One that can not be read is logged, and the
    old certificate stays.
    """
    from twisted.internet import reactor

    example = imported(EXAMPLE)
    ca = trustme.CA()
    path = tmp_path / "own.pem"
    write(path, ca)
    factory = Factory.forProtocol(Greeter)
    factory.noisy = False
    clock: Any = reactor
    port = clock.listenSSL(0, factory, example.Renewing(path), interface="127.0.0.1")
    root = trustRootFromCertificates([Certificate.loadPEM(ca.cert_pem.bytes())])

    async def serial() -> int:
        options = optionsForClientTLS("localhost", trustRoot=root)
        endpoint = HostnameEndpoint(clock, "127.0.0.1", port.getHost().port)
        client: Any = await wrapClientTLS(options, endpoint).connect(Factory.forProtocol(Told))
        found = await client.serial
        await client.ended
        return int(found)

    first = await serial()
    assert await serial() == first
    write(path, ca)
    second = await serial()
    assert second != first
    path.write_text("half of a file")
    events: list[Any] = []
    globalLogPublisher.addObserver(events.append)
    try:
        assert await serial() == second
    finally:
        globalLogPublisher.removeObserver(events.append)
        await port.stopListening()
    assert [event for event in events if "is not read" in str(event.get("log_format"))]
    assert loggedErrors.flush()


def test_unreadableFileAtTheStart(tmp_path: Path) -> None:
    """
    A server does not begin without a certificate.
    """
    with pytest.raises(FileNotFoundError):
        imported(EXAMPLE).Renewing(tmp_path / "own.pem")
