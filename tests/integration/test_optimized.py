# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The package under C{python -OO}, as images for small boxes have it: no docstrings, no
asserts, and everything says and does the same.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ..support.interpreter import printedBy

WORDS = """
import errno, twisted_heartbeat
from twisted_heartbeat.core.causes import Cause
from twisted_heartbeat.core.diagnosis import causeOfErrno, causeOfSilence
from twisted_heartbeat.core.evidence import Evidence
def kinds(kind):
    yield kind
    for one in kind.__subclasses__():
        yield from kinds(one)
for kind in kinds(Cause):
    print(kind.__name__, kind())
for number in (errno.ECONNRESET, errno.ETIMEDOUT, errno.EPIPE, errno.ENETUNREACH):
    print(causeOfErrno(number))
    print(causeOfSilence(Evidence(), 1.0, "nothing", pingArrived=False, askRoute=lambda: number))
"""

MODULES = """
import pkgutil, twisted_heartbeat
for found in pkgutil.walk_packages(twisted_heartbeat.__path__, "twisted_heartbeat."):
    if not found.name.endswith("fixtures"):
        __import__(found.name)
        print(found.name)
"""

LIVES = """
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory
from twisted_heartbeat import (
    Heartbeat, HeartbeatClientService, HeartbeatProtocol, HeartbeatServerFactory, LinkHooks,
)

class Peer(HeartbeatProtocol):
    def messageReceived(self, message):
        print("heard", message)

class Hooks(LinkHooks):
    def connected(self, link):
        link.protocol.sendMessage(b"hello")
        reactor.callLater(0.6, self.end, link)

    def end(self, link):
        if link.rtt is None:
            # A busy machine has not answered the first ping yet.
            reactor.callLater(0.1, self.end, link)
            return
        print("alive", link.state)
        server.drain(grace=0.1)

    def disconnected(self, link, cause):
        print(type(cause).__name__, cause, cause.retryAfter)
        service.stopService().addCallback(lambda _: reactor.callLater(0.2, reactor.stop))

brisk = Heartbeat(interval=0.2, timeout=0.5)
factory = Factory.forProtocol(Peer)
server = HeartbeatServerFactory(factory, heartbeat=brisk)
port = reactor.listenTCP(0, server, interface="127.0.0.1")
endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
service = HeartbeatClientService(endpoint, factory, heartbeat=brisk, hooks=Hooks())
service.startService()
reactor.run()
"""

HELPS = [["twisted", "heartbeat", "--help"], ["twisted_heartbeat", "--help"]]


@pytest.mark.parametrize("program", [WORDS, MODULES, LIVES], ids=["words", "modules", "lives"])
def test_sameWithoutDocstrings(program: str) -> None:
    """
    Causes have the same words, all modules load, and a link lives and ends alike.
    """
    usual = printedBy(program)
    assert len(usual.splitlines()) >= 3
    assert printedBy(program, options=["-OO"]) == usual


@pytest.mark.parametrize("command", HELPS, ids=["twist", "demo"])
def test_helpIsTheSame(command: list[str]) -> None:
    """
    A command line's help says all that it says elsewhere.
    """
    helps = set()
    for level in ("", "2"):
        done = subprocess.run(
            [sys.executable, "-m", *command],
            env={**os.environ, "PYTHONOPTIMIZE": level},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        helps.add(done.stdout)
    assert len(helps) == 1 and "SECONDS" in helps.pop().upper()
