# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The programs of the how-to pages: the gateway with its own tests, and the other C{strports.listen}.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest_twisted

from .conftest import Start
from .recipes.recipe import freePort

CHECKOUT = Path(__file__).parents[2]
EXAMPLES = CHECKOUT / "docs" / "examples"
AMPLE = 120.0
"""Seconds after which a program has failed."""


def run(*command: str, folder: Path, **environment: str) -> str:
    """
    Run a program in a folder to its end.

    @return: what it printed.
    """
    paths = [str(CHECKOUT), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **environment}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=AMPLE,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_gatewayPassesItsTests(tmp_path: Path) -> None:
    """
    The gateway's tests pass where a reader has copied the folder to.
    """
    folder = shutil.copytree(EXAMPLES / "gateway", tmp_path / "gateway")
    # Not with the settings of this checkout.
    (folder / "pytest.ini").write_text("[pytest]\n")
    output = run("-m", "pytest", "-p", "no:cacheprovider", folder=folder)
    assert "5 passed" in output


TWISTD = (sys.executable, "-c", "from twisted.scripts.twistd import run; run()")


@pytest_twisted.ensureDeferred
async def test_gatewayBetweenItsHubAndItsPump(start: Start) -> None:
    """
    The C{.tac} file makes the gateway of its page, from any folder: a reading of the pump goes up,
    and a command that is typed at the hub goes down.
    """
    folder = EXAMPLES / "gateway"
    above, below = freePort(), freePort()
    hub = start(sys.executable, folder / "toy_hub.py", above)
    await hub.says("^the hub is process")
    ends = {"HUB": f"tcp:127.0.0.1:{above}", "LISTEN": f"tcp:{below}:interface=127.0.0.1"}
    gateway = start(*TWISTD, "-noy", folder / "gateway.tac", "--pidfile=", environment=ends)
    await hub.says("^gateway is here")
    pump = start(sys.executable, folder / "toy_pump.py", below)
    await pump.says("^the gateway says go")
    await hub.says("^reading pump-3 21.5")
    hub.enter("set pump-3 40")
    await pump.says("^the gateway says set 40")
    await gateway.end()
    await pump.says("^PeerClosed: the peer said goodbye: closing")
    await hub.says("^gateway is gone")


STRPORTS = """
import strports_listen
from twisted.application import strports
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory

port = strports.listen("keepalive:tcp:0:interface=127.0.0.1:idle=30", Factory())
number = port.getHost().port
try:
    strports.listen(f"keepalive:tcp:{number}:interface=127.0.0.1", Factory())
except CannotListenError:
    print("in use")
try:
    strports.listen("keepalive:tcp:0:idel=30", Factory())
except ValueError:
    print("wrong")
"""


def test_strportsListenTakesPrefixes() -> None:
    """
    With the file of the page C{strports.listen} takes a prefix, and still fails at once.
    """
    assert run("-c", STRPORTS, folder=EXAMPLES).split("\n")[:2] == ["in use", "wrong"]


def test_strportsListenOfTwistedTakesNone() -> None:
    """
    The file is needed: Twisted's own C{strports.listen} fails with a prefix, as the page says.
    """
    program = (
        "from twisted.application import strports\n"
        "from twisted.internet.protocol import Factory\n"
        "try:\n"
        "    strports.listen('keepalive:tcp:0:idle=30', Factory())\n"
        "except TypeError:\n"
        "    print('no')\n"
    )
    assert run("-c", program, folder=EXAMPLES).strip() == "no"
