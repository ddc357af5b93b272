# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The page about programs that take endpoint strings: the rows that Twisted itself can be asked.
"""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
import pytest_twisted
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.protocol import Factory, Protocol

from ..support.loopback import wait
from .conftest import Start
from .recipes.recipe import freePort

TWIST = [sys.executable, "-m", "twisted"]


@pytest.fixture
def web(start: Start) -> int:
    """
    C{twist web} with the prefix.

    @return: its port.
    """
    port = freePort()
    start(*TWIST, "web", f"--listen=keepalive:tcp:{port}:interface=127.0.0.1:idle=30")
    return port


@pytest.mark.skipif(shutil.which("ss") is None, reason="ss is not installed (Debian: iproute2)")
@pytest_twisted.ensureDeferred
async def test_twistWebTakesThePrefix(web: int) -> None:
    """
    The connections of C{twist web} have a keepalive timer, which C{ss} shows as the page says.
    """
    from twisted.internet import reactor

    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", web)
    for _ in range(200):
        try:
            client = await endpoint.connect(Factory.forProtocol(Protocol))
            break
        except ConnectionRefusedError:
            await wait(0.05)
    words = ["ss", "-tno", "state", "established", f"( sport = :{web} )"]
    shown = ""
    for _ in range(40):
        shown = subprocess.run(words, capture_output=True, text=True, timeout=10).stdout
        if "timer:" in shown:
            break
        await wait(0.05)
    client.transport.abortConnection()
    await wait(0.05)
    assert "timer:(keepalive,2" in shown or "timer:(keepalive,30" in shown


def test_twistFTPTakesPortNumbersOnly() -> None:
    """
    C{twist ftp} takes no endpoint, with the words that the page has.
    """
    command = [*TWIST, "ftp", "-p", "keepalive:tcp:0:idle=30"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "ValueError: invalid literal for int()" in done.stderr + done.stdout
