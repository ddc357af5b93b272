# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The peer of the demonstration, in a process of its own.
"""

from __future__ import annotations

import ctypes
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThread

from .. import HeartbeatProtocol, HeartbeatServerFactory
from .settings import PEER_LIFETIME

if TYPE_CHECKING:
    from .. import Heartbeat


class Echo(HeartbeatProtocol):
    """
    The peer's protocol.
    """

    def messageReceived(self, message: bytes) -> None:
        if message == b"close" and self.link is not None:
            self.link.close()
        else:
            self.sendMessage(message)


def dieWithParent() -> None:
    """
    Ask the kernel to kill this process when its parent has ended, even if this process is frozen.
    An orphaned process group is not enough: if its stop is still pending when it is orphaned, it
    stays frozen for ever.

    Source: C{PR_SET_PDEATHSIG}, prctl(2).  Only Linux has it.
    """
    setParentDeathSignal = 1
    with suppress(AttributeError):
        ctypes.CDLL(None).prctl(setParentDeathSignal, signal.SIGKILL)


def runPeer(reactor: Any, port: int, heartbeat: Heartbeat) -> None:
    """
    Run the peer until the standard input is closed, and no longer than L{PEER_LIFETIME}.
    """
    dieWithParent()
    signal.alarm(PEER_LIFETIME)
    factory = HeartbeatServerFactory(Factory.forProtocol(Echo), heartbeat=heartbeat)
    listening = reactor.listenTCP(port, factory, interface="127.0.0.1")
    print(listening.getHost().port, flush=True)
    deferToThread(sys.stdin.read).addBoth(lambda _: reactor.stop())
    reactor.run()
