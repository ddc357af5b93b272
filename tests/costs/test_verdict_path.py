# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
How many functions of this package one verdict passes: a reader has to know each of them.

The link is a real one: L{HeartbeatClientService} on loopback, whose peer answers some pings and
then says nothing more.  C{python -m tests.costs.test_verdict_path} prints the functions.
"""

from __future__ import annotations

import socket
import sys
import threading
from pathlib import Path
from types import CodeType
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall, react

import twisted_heartbeat
from twisted_heartbeat import Heartbeat, HeartbeatClientService, HeartbeatProtocol
from twisted_heartbeat.core import wire

from ..support.interpreter import printedBy

PACKAGE = Path(twisted_heartbeat.__file__).parent

MOST_FUNCTIONS = 100
"""A fifth of these belongs to the timers of the clock, a tenth to the client."""


class SilentPeer(threading.Thread):
    """
    A peer that answers one ping, in a thread of its own, and then says nothing more.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]

    def run(self) -> None:
        """
        Say hello, answer, fall silent; until the other end has closed.
        """
        connection, _ = self._listening.accept()
        self._listening.close()
        reader, answered = wire.FrameReader(), False
        with connection:
            connection.sendall(wire.encode(wire.Hello("peer", 0.0, 0.0)))
            try:
                while data := connection.recv(4096):
                    for frame in reader.receive(data):
                        if isinstance(frame, wire.Ping) and not answered:
                            answered = True
                            connection.sendall(wire.encodePong(frame.token))
            except ConnectionError:
                # The verdict has come.
                pass


async def _watchOne(reactor: Any, found: set[CodeType]) -> None:
    """
    @param found: takes what runs from the last pong to the end of the cleanups.
    """

    def note(frame: Any, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(str(PACKAGE)):
            found.add(frame.f_code)

    peer = SilentPeer()
    peer.start()
    service = HeartbeatClientService(
        TCP4ClientEndpoint(reactor, "127.0.0.1", peer.port),
        Factory.forProtocol(HeartbeatProtocol),
        heartbeat=Heartbeat(interval=0.3, timeout=0.3),
        retryPolicy=lambda attempt: 60.0,
    )
    service.startService()
    protocol = await service.whenConnected()
    answered: Deferred[None] = Deferred()

    def look() -> None:
        if protocol.link.rtt is not None and not answered.called:
            answered.callback(None)

    looking = LoopingCall(look)
    looking.start(0.01)
    await answered
    looking.stop()
    gone = protocol.link.whenGone()
    sys.setprofile(note)
    cause = await gone
    sys.setprofile(None)
    assert type(cause).__name__ == "PeerHung", cause
    await service.stopService()


def functionsOfAVerdict() -> list[str]:
    """
    Each function of the package that runs from a client link's last pong to the end of its
    cleanups, as its file and its qualified name.
    """
    found: set[CodeType] = set()
    try:
        react(lambda reactor: Deferred.fromCoroutine(_watchOne(reactor, found)))
    except SystemExit as exit:
        assert not exit.code, exit
    names = set()
    for code in found:
        # A comprehension is a function of its own up to Python 3.11 only.
        if not code.co_name.endswith(("comp>", "genexpr>")):
            name = getattr(code, "co_qualname", code.co_name)
            names.add(f"{Path(code.co_filename).relative_to(PACKAGE)} {name}")
    return sorted(names)


def test_functionsOfAVerdict() -> None:
    """
    From the last pong to the end of the cleanups, a client link passes no more functions of this
    package than the ceiling, and none of them is in C{batching/}.
    """
    program = (
        "from tests.costs.test_verdict_path import *\nprint(*functionsOfAVerdict(), sep='\\n')"
    )
    found = printedBy(program).splitlines()
    assert "link/teardown.py Teardown.protocolNotified" in found
    assert [name for name in found if name.startswith("batching/")] == []
    assert len(found) <= MOST_FUNCTIONS


if __name__ == "__main__":
    print(*functionsOfAVerdict(), sep="\n")
