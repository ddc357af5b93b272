# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Users' own tests, run by trial in a process of its own: a unit test over a transport in memory is
not dirty, and a test that leaves something behind harms no other.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

IMPORTS = """
from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, clientFromString, serverFromString
from twisted.internet.protocol import Factory, FileWrapper, Protocol
from twisted.internet.testing import MemoryReactor, StringIOWithoutClosing
from twisted.internet.testing import StringTransport, StringTransportWithDisconnection
from twisted.protocols.policies import WrappingFactory
from twisted.test.iosim import FakeTransport
from twisted.trial.unittest import TestCase
from twisted_heartbeat import (
    HeartbeatClientFactory,
    HeartbeatClientService,
    HeartbeatFactory,
    HeartbeatMixin,
    HeartbeatProtocol,
    HeartbeatServerFactory,
)
from twisted_heartbeat.timing.monotonic import clockFor
from twisted_heartbeat.endpoints.tunnel import TunnelFactory

PEER = IPv4Address("TCP", "192.0.2.1", 1)

def ping(protocol):
    protocol.transport.write(b"?")

class Mixed(HeartbeatMixin, Protocol):
    sendPing = ping
"""

UNITS = """
class Client(HeartbeatClientFactory):
    protocol = Mixed

def undecided(*arguments):
    return Deferred()

plain = Factory.forProtocol(Protocol)
FACTORIES = {
    "mixed in": Factory.forProtocol(Mixed),
    "built in": Factory.forProtocol(HeartbeatProtocol),
    "wrapped": HeartbeatFactory(plain, ping=ping),
    "under a wrapper": WrappingFactory(Factory.forProtocol(Mixed)),
    "server": HeartbeatServerFactory(),
    "server that has not decided": HeartbeatServerFactory(plain, admit=undecided),
    "client": Client(),
    "tunnel": TunnelFactory(plain, None),
}

def disconnecting(protocol):
    transport = StringTransportWithDisconnection()
    transport.protocol = protocol
    return transport

TRANSPORTS = [
    lambda protocol: StringTransport(),
    disconnecting,
    lambda protocol: FakeTransport(protocol, False),
    lambda protocol: FileWrapper(StringIOWithoutClosing()),
]

class Tests(TestCase):
    pass

for number, makeTransport in enumerate(TRANSPORTS):
    for name, factory in FACTORIES.items():
        def test(self, factory=factory, makeTransport=makeTransport):
            protocol = factory.buildProtocol(PEER)
            protocol.makeConnection(makeTransport(protocol))
            protocol.dataReceived(b"")
        setattr(Tests, f"test_{name}_{number}", test)

for prefix in ["heartbeat", "keepalive", "keepalive:heartbeat"]:
    def test(self, prefix=prefix):
        reactor = MemoryReactor()
        serverFromString(reactor, f"{prefix}:tcp:80").listen(plain)
        connecting = clientFromString(reactor, f"{prefix}:tcp:127.0.0.1:80").connect(plain)
        # No hello comes, which a collection of garbage would log in another test.
        connecting.addErrback(lambda failure: None)
        for factory in (reactor.tcpServers[0][1], reactor.tcpClients[0][2]):
            protocol = factory.buildProtocol(PEER)
            protocol.makeConnection(disconnecting(protocol))
            protocol.dataReceived(b"")
            protocol.transport.loseConnection()
    setattr(Tests, f"test_{prefix}", test)
"""

CASCADE = """
def leaveCall():
    clockFor(reactor).callLater(WHEN, int)

def leaveService():
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", 1)
    HeartbeatClientService(endpoint, plain, lambda attempt: WHEN).startService()

def leaveServer():
    reactor.listenTCP(0, HeartbeatServerFactory(), interface="127.0.0.1")
    leaveCall()

plain = Factory.forProtocol(Protocol)

class A(TestCase):
    def test_dirty(self):
        LEAVE()
        waited = Deferred()
        reactor.callLater(0.05, waited.callback, None)
        return waited

class B(TestCase):
    timeout = 5

    def test_innocent(self):
        waited = Deferred()
        clockFor(reactor).callLater(0.1, waited.callback, None)
        return waited

    def test_another(self):
        return self.test_innocent()
"""


def trial(folder: Path, program: str, reactor: str = "default") -> dict[str, str]:
    """
    Run tests.

    @return: what has become of each.
    """
    (folder / "test_theirs.py").write_text(IMPORTS + program, encoding="utf-8")
    command = [sys.executable, "-m", "twisted.trial", f"--reactor={reactor}", "test_theirs"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    lines = [line.rpartition(" ... ") for line in done.stdout.splitlines() if " ... " in line]
    assert lines, done.stdout + done.stderr
    return {name.strip(): outcome.strip() for name, _, outcome in lines}


def test_unitTestsAreNotDirty(tmp_path: Path) -> None:
    """
    A protocol that is connected to one of Twisted's transports in memory leaves no timer on the
    global reactor, whatever it is built on and whatever it has not finished.
    """
    outcomes = trial(tmp_path, UNITS)
    assert len(outcomes) == 35
    assert set(outcomes.values()) == {"[OK]"}


@pytest.mark.parametrize(
    ("leave", "when", "reactor"),
    [
        ("leaveCall", 0.06, "default"),
        ("leaveCall", 100.0, "default"),
        ("leaveService", 0.06, "default"),
        ("leaveServer", 100.0, "default"),
        ("leaveCall", 100.0, "poll"),
        ("leaveCall", 100.0, "select"),
        ("leaveCall", 100.0, "asyncio"),
    ],
)
def test_dirtyTestHarmsNoOther(tmp_path: Path, leave: str, when: float, reactor: str) -> None:
    """
    After a test class that has left something behind trial empties the reactor.  The timers of the
    tests that follow fire, whether they are set for before or after what was left.
    """
    program = CASCADE.replace("LEAVE", leave).replace("WHEN", str(when))
    outcomes = trial(tmp_path, program, reactor)
    assert outcomes["test_innocent"] == outcomes["test_another"] == "[OK]"
