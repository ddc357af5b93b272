# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The row about UDP: the datagrams of a sender are lost, and come through again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from .. import UDPHeartbeatMonitor, UDPHeartbeatSender
from ..testing import DatagramFaultProxy, Drop
from .peerrecorder import PeerRecorder
from .settings import BACKOFF

if TYPE_CHECKING:
    from .. import Heartbeat
    from .results import FaultResult

NAME, KEY = "sensor", bytes(range(32))


async def loseDatagrams(
    reactor: Any, heartbeat: Heartbeat, say: Callable[[str, str], None], result: FaultResult
) -> None:
    """
    Let a sender be heard, lose all its datagrams, and let them pass again; and fill in the result.

    @raise TimeoutError: if a wait took longer than C{WAIT_LIMIT}.
    """
    recorder = PeerRecorder(reactor, say, result)
    monitor = UDPHeartbeatMonitor(
        {NAME: KEY}, hooks=recorder, port=0, interface="127.0.0.1", reactor=reactor
    )
    async with AsyncExitStack() as left:
        left.push_async_callback(monitor.stopService)
        monitor.startService()
        proxy = DatagramFaultProxy(reactor, ("127.0.0.1", monitor.getHost().port))
        left.push_async_callback(proxy.close)
        await proxy.listen()
        sender = UDPHeartbeatSender(
            proxy.address,
            name=NAME,
            key=KEY,
            heartbeat=heartbeat,
            # The sender is back with its next heartbeat, a link after its next attempt.
            every=min(heartbeat.bound / 8, BACKOFF.maximum),
            reactor=reactor,
        )
        left.push_async_callback(sender.stopService)
        sender.startService()
        await recorder.record(lambda: proxy.inject(Drop()), proxy.heal)
