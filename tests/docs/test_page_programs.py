# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The programs of the pages about a server, UDP sensors, the status page, check-ins and TLS, each run
as a reader runs it; and that each program on a page is a file.
"""

from __future__ import annotations

import json
import re
import sys
import time
from functools import partial
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread

from ..support.loopback import wait, within
from ..support.pingserver import UUID, pingServer
from .conftest import Start
from .recipes.recipe import freePort

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = DOCS / "examples"

DEVICE = """
import sys
from twisted.internet import endpoints, protocol, reactor
from twisted_heartbeat import HeartbeatClientService, HeartbeatProtocol

class Device(HeartbeatProtocol):
    name = sys.argv[2]

    def helloReceived(self, hello):
        self.sendMessage(b"21.5")

hub = endpoints.clientFromString(reactor, f"tcp:127.0.0.1:{sys.argv[1]}")
HeartbeatClientService(hub, protocol.Factory.forProtocol(Device)).startService()
reactor.run()
"""


@pytest.fixture
def start(start: Start) -> Start:
    """
    Start a Python program; it ends with the test.
    """
    return partial(start, sys.executable)


@pytest_twisted.ensureDeferred
async def test_monitorHearsTheSensor(start: Start) -> None:
    """
    The monitor of the page about UDP hears the sensor of that page, its readings and its goodbye.
    """
    port = freePort()
    monitor = start(EXAMPLES / "udp" / "monitor.py", port)
    await monitor.says("^ready")
    sensor = start(EXAMPLES / "udp" / "sender.py", "127.0.0.1", port)
    await monitor.says(r"^pump lives, at IPv4Address\(type='UDP', host='127.0.0.1'")
    await monitor.says("^pump b'21.5'")
    await sensor.end()
    await monitor.says("^pump is gone: ")


@pytest_twisted.ensureDeferred
async def test_serverAdmitsWhomItKnows(start: Start) -> None:
    """
    The server of its page admits a device that it knows, hears it, and refuses another.
    """
    port = freePort()
    server = start(EXAMPLES / "server.py", port)
    await server.says("^ready")
    device = start("-c", DEVICE, port, "pump-3")
    await server.says("^pump-3 is here")
    await server.says("^pump-3 says b'21.5'")
    start("-c", DEVICE, port, "kettle")
    await server.says("^127.0.0.1 was refused: unknown device")
    await device.end()
    await server.says("^pump-3 is gone")


@pytest_twisted.ensureDeferred
async def test_webSocketServerAnswersTheRecipes(start: Start) -> None:
    """
    The server of the recipes for WebSocket greets both clients.
    """
    pytest.importorskip("websockets")
    port = freePort()
    recipes = EXAMPLES / "recipes"
    start(recipes / "websocket_server.py", port)
    clients = {"autobahn": "autobahn_client.py", "twisted.web.websocket": "websocket_client.py"}
    for module, client in clients.items():
        pytest.importorskip(module)
        program = start(recipes / client, f"ws://127.0.0.1:{port}/")
        await program.says("^heard you said subscribe")


def answerOf(url: str) -> bytes | None:
    """
    What a server answers; L{None} as long as it does not listen.
    """
    try:
        with urlopen(url, timeout=10) as answer:
            body: bytes = answer.read()
    except URLError:
        return None
    return body


@pytest_twisted.ensureDeferred
async def test_statusPageShowsThePeer(start: Start) -> None:
    """
    The hub of the page about the status page logs where its page is.  That shows a device that has
    connected, and its metrics.
    """
    hub, page = freePort(), freePort()
    program = start(EXAMPLES / "status_page.py", f"tcp:{hub}", f"tcp:{page}:interface=127.0.0.1")
    url = f"http://127.0.0.1:{page}"
    await program.says(f"The status page is at {url}/$")
    start("-c", DEVICE, hub, "pump-3")
    peers: list[dict[str, str]] = []
    for _ in range(400):
        answer = await within(deferToThread(answerOf, f"{url}/presence.json"), 30.0)
        peers = json.loads(answer or b"")["peers"]
        if peers:
            break
        await wait(0.05)
    assert peers
    [peer] = peers
    assert (peer["name"], peer["state"]) == ("tcp/pump-3", "up")
    assert json.loads(answer or b"")["title"] == "North plant"
    assert b"twisted_heartbeat_" in (await deferToThread(answerOf, f"{url}/metrics") or b"")


@pytest_twisted.ensureDeferred
async def test_checkInWithAPrivateAuthority(start: Start, tmp_path: Path) -> None:
    """
    The program with an authority of its own checks in where that authority has signed, and nowhere
    else.
    """
    trustme = pytest.importorskip("trustme")
    authority, stranger = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    source = EXAMPLES / "checkins" / "private.py"
    taken = []
    patience = 20.0
    for name, issuer in (("right", authority), ("wrong", stranger)):
        certificate = tmp_path / f"{name}.pem"
        signed = issuer.issue_cert("127.0.0.1").private_key_and_cert_chain_pem
        signed.write_to_path(str(certificate))
        with pingServer(certificate=str(certificate)) as server:
            began = time.monotonic()
            program = start(source, f"{server.url}/{UUID}", tmp_path / "authority.pem")
            while not server.pings and time.monotonic() < began + patience:
                await wait(0.05)
            taken.append(bool(server.pings))
            patience = 2.0 * (time.monotonic() - began)
            await program.end()
    assert taken == [True, False]


@pytest_twisted.ensureDeferred
async def test_serverOverTLSKnowsItsClients(start: Start, tmp_path: Path) -> None:
    """
    The server of the page about TLS says whose certificate a client has, and lets in nobody without
    one.
    """
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    root, own, client = (tmp_path / f"{name}.pem" for name in ("ca", "server", "client"))
    authority.cert_pem.write_to_path(root)
    for path, name in ((own, "localhost"), (client, "pump-3")):
        issued = authority.issue_cert(name, common_name=name)
        issued.private_key_and_cert_chain_pem.write_to_path(path)
    port = freePort()
    server = start(EXAMPLES / "tls_server.py", port, own, root)
    known = start(EXAMPLES / "tls_client.py", "localhost", port, root, client)
    await known.says("^connected to 127.0.0.1")
    await server.says("^pump-3 is connected")
    unknown = start(EXAMPLES / "tls_client.py", "localhost", port, root)
    await unknown.says("^the TLS handshake failed: .*certificate required")


def test_programsOnPagesAreFiles() -> None:
    """
    A block of Python on a page that imports this package and runs something, from the import to the
    service or the reactor, is a file that is included.
    """
    found = []
    for page in DOCS.rglob("*.md"):
        text = page.read_text(encoding="utf-8")
        for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
            isProgram = "import" in block and re.search(
                r"react\(|reactor\.run|asyncio\.run|startService|setServiceParent", block
            )
            if isProgram:
                found.append(f"{page.relative_to(DOCS)}: {block.splitlines()[0]}")
    assert found == []
