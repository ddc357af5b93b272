# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The promises on a system that lacks what Linux has: an interpreter that says it is macOS or Windows,
without epoll, timerfd, C{TCP_INFO} and the options of Linux, keeps a link up over the select
reactor.  (The fake options of keepalive are tested in C{tests/transport/test_keepalive.py}.)  And
on a transport without a socket that can be observed, as that of Windows' IOCP reactor.
"""

from __future__ import annotations

import json

import pytest
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock

from twisted_heartbeat import Heartbeat, HeartbeatFactory, LinkHooks, LinkLost, PeerSilent

from ..support.interpreter import printedBy
from ..support.virtualnetwork import PEER, FakeTransport

BOUND = 0.6

PRETEND = """
import os, select, signal, socket, sys

platform = {platform!r}
# Twisted picks its modules for processes and files by this, so they are loaded as on this system.
import twisted.internet.selectreactor, twisted.internet.process, twisted.internet.endpoints
import twisted.application.internet, twisted.python.lockfile
sys.modules.pop("twisted.internet.epollreactor", None)
for module, names in {{
    os: ["timerfd_create", "register_at_fork"],
    select: ["epoll", "EPOLLIN"],
    socket: ["TCP_INFO", "TCP_USER_TIMEOUT", "TCP_KEEPIDLE"],
}}.items():
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
if platform == "darwin":
    # The number that Linux has for TCP_KEEPIDLE, so that its kernel takes it.
    socket.TCP_KEEPALIVE = 4
sys.platform = platform
twisted.internet.selectreactor.install()
"""

PROGRAM = """
import json
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory
from twisted_heartbeat import (
    Heartbeat, HeartbeatClientService, HeartbeatProtocol, HeartbeatServerFactory, LinkHooks
)
from twisted_heartbeat.testing import BlackHole, FaultProxy
from twisted_heartbeat.timing.monotonic import clockFor

found = {{}}

class Hooks(LinkHooks):
    def connected(self, link):
        found["connected"] = link.generation
        found["watch"] = link.watch
        found["alarm"] = type(clockFor(reactor)._alarm).__name__
        if link.generation == 1:
            reactor.callLater(0.1, proxy.inject, BlackHole(), connections="existing")
        else:
            service.stopService().addBoth(lambda result: reactor.stop())

    def disconnected(self, link, cause):
        found.setdefault("cause", type(cause).__name__)
        found.setdefault("silence", link.silence)
        found.setdefault("evidence", getattr(cause.evidence, "sinceAck", None) is not None)

async def start():
    global proxy, service
    server = HeartbeatServerFactory(Factory.forProtocol(HeartbeatProtocol))
    port = reactor.listenTCP(0, server, interface="127.0.0.1")
    proxy = FaultProxy(reactor, ("127.0.0.1", port.getHost().port))
    await proxy.listen()
    service = HeartbeatClientService(
        proxy.endpoint(), Factory.forProtocol(HeartbeatProtocol), lambda attempt: 0.1,
        heartbeat=Heartbeat.within({bound}), hooks=Hooks(),
    )
    service.startService()

reactor.callWhenRunning(lambda: Deferred.fromCoroutine(start()).addErrback(print))
reactor.callLater(15, reactor.stop)
reactor.run()
print(json.dumps(found))
"""


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_linkIsKeptUp(platform: str) -> None:
    """
    A peer that falls silent is found on the bound, and the link is back.  What only Linux knows is
    left out, and nothing else.
    """
    program = PRETEND.format(platform=platform) + PROGRAM.format(bound=BOUND)
    found = json.loads(printedBy(program).splitlines()[-1])
    silence = found.pop("silence")
    assert 0.95 * BOUND <= silence < BOUND + 1.0
    expected = {"connected": 2, "watch": "ping", "cause": "PeerSilent", "evidence": False}
    assert found == {**expected, "alarm": "_ThreadAlarm"}


class IOCPConnection(FakeTransport):
    """
    Has the public methods of a TCP transport, and is none of Twisted's own.
    """

    def getHandle(self) -> object:
        """
        The handle of a socket that cannot be asked anything.
        """
        return object()


class Ends(LinkHooks):
    """
    Keeps the causes.
    """

    def __init__(self) -> None:
        self.causes: list[type] = []

    def disconnected(self, link: object, cause: object) -> None:
        """
        Keep one.
        """
        self.causes.append(type(cause))


@pytest.mark.parametrize("fault, cause", [("silence", PeerSilent), ("loss", LinkLost)])
def test_transportWithoutASocket(fault: str, cause: type) -> None:
    """
    A link over such a transport is pinged and given up on the bound.  A loss for which the
    transport has no reason is C{LinkLost}.
    """
    clock, ends, pings = Clock(), Ends(), []
    factory = HeartbeatFactory(
        Factory.forProtocol(Protocol),
        heartbeat=Heartbeat.within(7),
        ping=pings.append,
        hooks=ends,
        clock=clock,
    )
    factory.doStart()
    protocol = factory.buildProtocol(PEER)
    assert protocol is not None
    transport = IOCPConnection(clock, protocol)
    protocol.makeConnection(transport)
    clock.pump([0.1] * 65)
    assert (len(pings) > 0, ends.causes) == (True, [])
    if fault == "loss":
        transport.lose(ConnectionLost())
    clock.pump([0.1] * 20)
    factory.doStop()
    assert ends.causes == [cause]
