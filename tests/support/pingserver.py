# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
A server of the ping API, written from the public page "Pinging API" of healthchecks.io alone, with
Python's own C{http.server}.  It shares no code with the package, so that the client is tested
against what the page says and not against what the package's own server understands.
"""

from __future__ import annotations

import re
import ssl
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

UUID = "5bf66975-d4c7-4bf5-bcc8-b8d8a82ea278"
PING_KEY = "fqOOd6-F4MMNuCEnzTU01w"
BODY_LIMIT = 100_000


@dataclass
class Ping:
    """
    One ping that was received.
    """

    at: float
    kind: str
    check: str
    method: str
    rid: str | None
    status: int | None
    body: bytes
    headers: dict[str, str]


@dataclass
class PingServer:
    """
    What the server has, and how it is to behave.

    @ivar checks: the names it knows: UUIDs, and slugs of its one project.
    @ivar pings: what it has recorded.
    @ivar requests: how many requests came.
    @ivar connections: how many connections came.
    @ivar misbehave: called with each request first; returns whether it has answered.
    """

    checks: set[str] = field(default_factory=lambda: {UUID, "job"})
    pings: list[Ping] = field(default_factory=list)
    requests: int = 0
    connections: int = 0
    misbehave: Any = None
    bodyLimit: int | None = BODY_LIMIT
    url: str = ""

    @property
    def kinds(self) -> list[str]:
        """
        The kinds of all pings.
        """
        return [ping.kind for ping in self.pings]


class Handler(BaseHTTPRequestHandler):
    """
    Answers one request as the page says.
    """

    protocol_version = "HTTP/1.1"
    state: PingServer

    def setup(self) -> None:
        super().setup()
        self.state.connections += 1

    def log_message(self, format: str, *args: Any) -> None:
        """
        Log nothing.
        """

    def answer(self, code: int, text: str = "", **headers: str) -> None:
        """
        Answer.
        """
        body = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Access-Control-Allow-Origin", "*")
        if self.state.bodyLimit is not None:
            self.send_header("Ping-Body-Limit", str(self.state.bodyLimit))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        """
        Receive a ping.
        """
        self.state.requests += 1
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.state.misbehave is not None and self.state.misbehave(self):
            return
        url = urlsplit(self.path)
        parts = url.path.strip("/").split("/")
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if parts[:1] != ["ping"]:
            return self.answer(404, "not found")
        parts = parts[1:]
        created = False
        try:
            check = str(uuid.UUID(parts[0]))
            rest = parts[1:]
        except (ValueError, IndexError):
            if len(parts) < 2 or parts[0] != PING_KEY:
                return self.answer(404, "not found")
            check, rest = parts[1], parts[2:]
            if not re.fullmatch("[a-z0-9_-]+", check):
                return self.answer(400, "invalid url format")
            created = check not in self.state.checks and query.get("create") == "1"
        if check not in self.state.checks and not created:
            return self.answer(404, "not found")
        kind, status = "success", None
        if rest and rest[0] in ("start", "fail", "log"):
            kind = rest[0]
        elif rest and rest[0].isdigit():
            status = int(rest[0])
            if status > 255:
                return self.answer(400, "invalid url format")
            kind = "fail" if status else "success"
        elif rest:
            return self.answer(404, "not found")
        rid = query.get("rid")
        if rid is not None and (len(rid) != 36 or str(uuid.UUID(rid)) != rid.lower()):
            return self.answer(400, "invalid uuid format")
        self.state.checks.add(check)
        kept = body[: self.state.bodyLimit] if self.state.bodyLimit is not None else body
        ping = Ping(
            time.monotonic(), kind, check, self.command, rid, status, kept, dict(self.headers)
        )
        self.state.pings.append(ping)
        return self.answer(201, "Created") if created else self.answer(200, "OK")

    do_POST = do_HEAD = do_GET


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Otherwise a fifth connection in one moment would wait for a retransmission.
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """
        Say nothing: a client that leaves is what some tests are about.
        """


@contextmanager
def pingServer(*, certificate: str | None = None, port: int = 0) -> Iterator[PingServer]:
    """
    Serve on loopback, in threads.

    @param certificate: the path of a file with a key and its certificate, for TLS.
    """
    state = PingServer()
    handler = type("Handler", (Handler,), {"state": state})
    server = _Server(("127.0.0.1", port), handler)
    scheme = "http"
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        scheme = "https"
    state.url = f"{scheme}://127.0.0.1:{server.server_address[1]}/ping"
    serving = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    serving.start()
    try:
        yield state
    finally:
        server.shutdown()
        serving.join()
        server.server_close()
