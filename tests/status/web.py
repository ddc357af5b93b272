# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Requests to a resource over a connection in memory: Twisted's own HTTP on both sides of the wire.
"""

from __future__ import annotations

import json
from email.message import Message
from email.parser import BytesParser
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.web.resource import Resource
from twisted.web.server import Site

LOOPBACK = IPv4Address("TCP", "127.0.0.1", 8080)


class Answer:
    """
    What the server has sent so far.

    @ivar body: without the framing.
    """

    def __init__(self, raw: bytes) -> None:
        head, _, body = raw.partition(b"\r\n\r\n")
        first, _, fields = head.partition(b"\r\n")
        self.status = int(first.split()[1])
        self.headers: Message = BytesParser().parsebytes(fields + b"\r\n\r\n")
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = _unchunk(body)
        self.body = body

    def json(self) -> Any:
        """
        The body, decoded.
        """
        return json.loads(self.body)

    def header(self, name: str) -> str:
        """
        A header; an empty string without one.
        """
        return str(self.headers.get(name, ""))


def _unchunk(body: bytes) -> bytes:
    found = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        found, body = found + body[:length], body[length + 2 :]
    return found


class Connection:
    """
    One connection to a site.
    """

    def __init__(self, resource: Resource, clock: Clock, host: Any = LOOPBACK) -> None:
        site = Site(resource, reactor=clock)
        site.startFactory()
        self.transport = StringTransport(hostAddress=host)
        self.protocol: Any = site.buildProtocol(IPv4Address("TCP", "192.0.2.1", 50000))
        self.protocol.makeConnection(self.transport)
        self._site = site

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """
        Send a request.

        @param headers: underscores stand for hyphens.
        """
        fields = {"Host": "127.0.0.1:8080", **{k.replace("_", "-"): v for k, v in headers.items()}}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.transport.clear()
        self.protocol.dataReceived(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode())
        return self.answer()

    def answer(self) -> Answer:
        """
        What has come of the answer by now.
        """
        return Answer(self.transport.value())

    def close(self) -> None:
        """
        Lose the connection.
        """
        from twisted.internet.error import ConnectionDone
        from twisted.python.failure import Failure

        self.protocol.connectionLost(Failure(ConnectionDone()))
        self._site.stopFactory()
