# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The row about check-ins: a job that checks in over HTTP dies, and comes back.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import maybeDeferred

from .. import Check, CheckIn, CheckInResource
from .peerrecorder import PeerRecorder

if TYPE_CHECKING:
    from .. import Heartbeat
    from .results import FaultResult


async def missCheckIn(
    reactor: Any, heartbeat: Heartbeat, say: Callable[[str, str], None], result: FaultResult
) -> None:
    """
    Let a job check in at a server, die, and come back; and fill in the result.

    @raise TimeoutError: if a wait took longer than C{WAIT_LIMIT}.
    """
    assert heartbeat.interval is not None
    recorder = PeerRecorder(reactor, say, result)
    check = Check(period=heartbeat.interval, grace=heartbeat.timeout)
    resource = CheckInResource(checks={"job": check}, tokens=None, hooks=recorder)
    site = resource.site()
    async with AsyncExitStack() as left:
        left.push_async_callback(site.drain)
        port = reactor.listenTCP(0, site, interface="127.0.0.1")
        left.push_async_callback(maybeDeferred, port.stopListening)
        left.push_async_callback(resource.stopService)
        resource.startService()
        url = f"http://127.0.0.1:{port.getHost().port}/ping/job"
        job = CheckIn(url, interval=check.period / 4, reactor=reactor)
        left.push_async_callback(job.stopService)
        job.startService()
        await recorder.record(job.stopService, job.startService)
