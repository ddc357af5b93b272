# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The row about UDP: the datagrams of a sender are lost, and come through again.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from .. import DatagramHooks, PeerSilent, UDPHeartbeatMonitor, UDPHeartbeatSender
from ..testing import DatagramFaultProxy, Drop
from .settings import WAIT_LIMIT

if TYPE_CHECKING:
    from .. import Cause, DatagramPeer, Heartbeat
    from .results import FaultResult

NAME, KEY = "sensor", bytes(range(32))


class SenderRecorder(DatagramHooks):
    """
    Records what the monitor tells.

    @ivar met: fires when the sender is heard for the first time.
    @ivar ended: fires with the cause of its end.
    @ivar back: fires when it is heard again.
    """

    def __init__(self, say: Callable[[str, str], None]) -> None:
        self._say = say
        self.met: Deferred[None] = Deferred()
        self.ended: Deferred[Cause] = Deferred()
        self.back: Deferred[None] = Deferred()

    def connected(self, peer: DatagramPeer) -> None:  # type: ignore[override]
        self._say("connected", f"{peer.name} over UDP, bound {peer.bound:g} s")
        waiting = self.back if self.met.called else self.met
        if not waiting.called:
            waiting.callback(None)

    def suspected(self, peer: DatagramPeer) -> None:  # type: ignore[override]
        self._say("suspected", f"{peer.name}: no datagram for {peer.silence:.2f} s")

    def disconnected(self, peer: DatagramPeer, cause: Cause) -> None:  # type: ignore[override]
        if not self.ended.called:
            self._say("disconnected", f"{type(cause).__name__}: {cause}")
            self.ended.callback(cause)


async def loseDatagrams(
    reactor: Any, heartbeat: Heartbeat, say: Callable[[str, str], None], result: FaultResult
) -> None:
    """
    Let a sender be heard, lose all its datagrams, and let them pass again; and fill in the result.

    @raise TimeoutError: if a wait took longer than C{WAIT_LIMIT}.
    """
    recorder = SenderRecorder(say)
    monitor = UDPHeartbeatMonitor(
        {NAME: KEY}, hooks=recorder, port=0, interface="127.0.0.1", reactor=reactor
    )
    monitor.startService()
    proxy = DatagramFaultProxy(reactor, ("127.0.0.1", monitor.getHost().port))
    await proxy.listen()
    every = heartbeat.bound / 8
    sender = UDPHeartbeatSender(
        proxy.address, name=NAME, key=KEY, heartbeat=heartbeat, every=every, reactor=reactor
    )
    try:
        sender.startService()
        await recorder.met.addTimeout(WAIT_LIMIT, reactor)
        peer = monitor.peers[NAME]
        say("FAULT", result.fault)
        proxy.inject(Drop())
        result.expected = PeerSilent
        cause = await recorder.ended.addTimeout(WAIT_LIMIT, reactor)
        result.detectedAfter = peer.silence
        result.cause = type(cause)
        backFrom = monotonic()
        proxy.heal()
        await recorder.back.addTimeout(WAIT_LIMIT, reactor)
        result.backAfter = monotonic() - backFrom
    finally:
        await sender.stopService()
        await proxy.close()
        await monitor.stopService()
