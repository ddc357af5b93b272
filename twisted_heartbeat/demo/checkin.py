# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The row about check-ins: a job that checks in over HTTP dies, and comes back.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, maybeDeferred

from .. import Check, CheckIn, CheckInMissed, CheckInResource, LinkHooks
from .settings import WAIT_LIMIT

if TYPE_CHECKING:
    from .. import Cause, Heartbeat
    from .results import FaultResult


class JobRecorder(LinkHooks):
    """
    Records what the server of the check-ins tells.

    @ivar ended: fires with the cause of the job's end.
    @ivar back: fires when the job has checked in after that.
    """

    def __init__(self, say: Callable[[str, str], None]) -> None:
        self._say = say
        self.connectedFirst: Deferred[None] = Deferred()
        self.ended: Deferred[Cause] = Deferred()
        self.back: Deferred[None] = Deferred()

    def connected(self, link: Any) -> None:
        self._say("connected", f"{link.name} has checked in, bound {link.bound:g} s")
        waiting = self.back if self.connectedFirst.called else self.connectedFirst
        waiting.callback(None)

    def suspected(self, link: Any) -> None:
        self._say("suspected", f"{link.name} has not checked in for {link.silence:.2f} s")

    def disconnected(self, link: Any, cause: Cause) -> None:
        if not self.ended.called:
            self._say("disconnected", f"{type(cause).__name__}: {cause}")
            self.ended.callback(cause)


async def missCheckIn(
    reactor: Any, heartbeat: Heartbeat, say: Callable[[str, str], None], result: FaultResult
) -> None:
    """
    Let a job check in at a server, die, and come back; and fill in the result.

    @raise TimeoutError: if a wait took longer than C{WAIT_LIMIT}.
    """
    assert heartbeat.interval is not None
    recorder = JobRecorder(say)
    check = Check(period=heartbeat.interval, grace=heartbeat.timeout)
    resource = CheckInResource(checks={"job": check}, tokens=None, hooks=recorder)
    site = resource.site()
    port = reactor.listenTCP(0, site, interface="127.0.0.1")
    url = f"http://127.0.0.1:{port.getHost().port}/ping/job"
    job = CheckIn(url, interval=check.period / 4, reactor=reactor)
    resource.startService()
    try:
        job.startService()
        await recorder.connectedFirst.addTimeout(WAIT_LIMIT, reactor)
        say("FAULT", result.fault)
        await job.stopService()
        heardAt = monotonic() - resource.names["job"].silence
        result.expected = CheckInMissed
        cause = await recorder.ended.addTimeout(WAIT_LIMIT, reactor)
        result.detectedAfter = monotonic() - heardAt
        result.cause = type(cause)
        backFrom = monotonic()
        job.startService()
        await recorder.back.addTimeout(WAIT_LIMIT, reactor)
        result.backAfter = monotonic() - backFrom
    finally:
        await job.stopService()
        await resource.stopService()
        await maybeDeferred(port.stopListening)
        await site.drain()
