# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Demo}: five faults, one after the other, on one link; then a sender over UDP whose datagrams are
lost, and a job that misses its check-in.
"""

from __future__ import annotations

import ctypes
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from importlib.util import find_spec
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from .. import (
    Cause,
    CheckInMissed,
    ClosedHere,
    HeartbeatClientService,
    HeartbeatProtocol,
    Link,
    PeerClosed,
    PeerReset,
    PeerSilent,
)
from ..testing import BlackHole, FaultProxy
from ..timing.monotonic import clockFor
from .datagram import loseDatagrams
from .punctuality import Punctuality
from .results import FaultResult, Recorder
from .settings import BACKOFF, HUNG, OUTAGE, SETTLE, WAIT_LIMIT

if TYPE_CHECKING:
    from .. import Heartbeat
    from .views import Plain


T = TypeVar("T")
Fault = Callable[[Link], AbstractAsyncContextManager[type[Cause]]]


class Client(HeartbeatProtocol):
    """
    The client's protocol.
    """

    def ask(self) -> Deferred[bytes]:
        """
        Send a question.

        @return: fires with the peer's answer.
        """
        self.asked: Deferred[bytes] = Deferred()
        self.sendMessage(b"are you there?")
        return self.asked

    def messageReceived(self, message: bytes) -> None:
        self.asked.callback(message)


class Demo:
    """
    A client, a proxy and a peer, and the faults that are done to them.

    @ivar results: one for each fault, filled in during the run.
    @ivar job: that of the job, if there is one.
    @ivar service: the client; L{None} until it starts.
    """

    def __init__(self, reactor: Any, heartbeat: Heartbeat, view: Callable[[Demo], Plain]) -> None:
        bound = heartbeat.bound
        self._onTheLink = [
            FaultResult("silent cut", bound, silent=True),
            FaultResult("frozen peer", bound, silent=True),
            FaultResult("reset", bound),
            FaultResult("clean close", bound),
            FaultResult(f"peer gone {OUTAGE:g} s", bound, refuses=True),
        ]
        self._datagrams = FaultResult(
            "UDP cut", bound, silent=True, hasLink=False, expected=PeerSilent
        )
        self.results = [*self._onTheLink, self._datagrams]
        self.job: FaultResult | None = None
        if find_spec("treq") is not None:
            # What the extra "http" installs.
            self.job = FaultResult(
                "job dies", bound, silent=True, hasLink=False, expected=CheckInMissed
            )
            self.results.append(self.job)
        self.service: HeartbeatClientService | None = None
        self._reactor = reactor
        self._heartbeat = heartbeat
        self._view = view(self)
        self._recorder = Recorder(self._view.say)
        self._punctuality = Punctuality(clockFor(reactor))
        self._peer: subprocess.Popen[bytes] | None = None
        self._port = 0

    async def perform(self) -> None:
        """
        Run all faults, and leave nothing running, even if cancelled.

        @raise TimeoutError: if a wait took longer than C{WAIT_LIMIT}; the last result is then
            incomplete.
        """
        async with AsyncExitStack() as left:
            left.callback(self._view.end)
            left.callback(self._endPeer)
            await self._startPeer()
            self._proxy = FaultProxy(self._reactor, ("127.0.0.1", self._port))
            left.push_async_callback(self._proxy.close)
            await self._proxy.listen()
            self.service = self._makeService()
            left.push_async_callback(self.service.stopService)
            self.service.startService()
            self._punctuality.start()
            left.callback(self._punctuality.stop)
            await self._runFaults()

    def _makeService(self) -> HeartbeatClientService:
        return HeartbeatClientService(
            self._proxy.endpoint(),
            Factory.forProtocol(Client),
            BACKOFF,
            self._reactor,
            heartbeat=self._heartbeat,
            hooks=self._recorder,
        )

    async def _runFaults(self) -> None:
        faults = [self._cut, self._frozen, self._reset, self._closed, self._gone]
        for result, fault in zip(self._onTheLink, faults, strict=True):
            await self._runFault(result, fault)
        self._punctuality.late = self._datagrams.late
        await loseDatagrams(self._reactor, self._heartbeat, self._view.say, self._datagrams)
        if self.job is not None:
            from .checkin import missCheckIn

            self._punctuality.late = self.job.late
            await missCheckIn(self._reactor, self._heartbeat, self._view.say, self.job)

    async def _runFault(self, result: FaultResult, fault: Fault) -> None:
        assert self.service is not None
        await deferLater(self._reactor, SETTLE)
        self._punctuality.late = result.late
        link = await self._talk()
        heardAt, refusedBefore = monotonic() - link.silence, self._recorder.rejections
        self._view.say("FAULT", result.fault)
        async with fault(link) as result.expected:
            await self._patiently(self.service.whenDisconnected())
            result.cause, endedAt = self._recorder.ended[link.generation]
            result.detectedAfter = endedAt - heardAt
            result.cleanups = self._recorder.cleanups[link.generation]
        result.refused = self._recorder.rejections - refusedBefore
        if result.refused:
            self._view.say("refused", f"{result.refused} attempts, while the peer was gone")
        backFrom = monotonic()
        await self._talk()
        result.cleanups = self._recorder.cleanups[link.generation]
        result.backAfter = monotonic() - backFrom

    async def _talk(self) -> Link:
        """
        Wait for a link, and for an answer on it, so that no data is on its way.

        @return: the link.
        """
        assert self.service is not None
        client: Client = await self._patiently(self.service.whenConnected())
        await self._patiently(client.ask())
        assert client.link is not None
        return client.link

    def _patiently(self, waiting: Deferred[T]) -> Deferred[T]:
        return waiting.addTimeout(WAIT_LIMIT, self._reactor)

    # The faults: each yields the true cause, and ends once its link is gone.

    @asynccontextmanager
    async def _cut(self, link: Link) -> AsyncIterator[type[Cause]]:
        self._proxy.inject(BlackHole())
        # The proxy's kernel still acknowledges what the proxy discards, unless its packets are
        # dropped as well.
        try:
            yield PeerSilent if dropPackets(link.protocol.transport.getHandle()) else HUNG
        finally:
            # A link that is still up, because the demo is being ended, can not be closed politely:
            # its packets are dropped for good.
            link.abort(ClosedHere("the demo is being ended"))
            await self._proxy.heal()

    @asynccontextmanager
    async def _frozen(self, link: Link) -> AsyncIterator[type[Cause]]:
        self._signalPeer(signal.SIGSTOP)
        try:
            yield HUNG
        finally:
            # Also if the demo is being ended: the link's polite close waits for the peer.
            self._signalPeer(signal.SIGCONT)

    @asynccontextmanager
    async def _reset(self, link: Link) -> AsyncIterator[type[Cause]]:
        self._proxy.reset()
        yield PeerReset

    @asynccontextmanager
    async def _closed(self, link: Link) -> AsyncIterator[type[Cause]]:
        link.protocol.sendMessage(b"close")
        yield PeerClosed

    @asynccontextmanager
    async def _gone(self, link: Link) -> AsyncIterator[type[Cause]]:
        await self._proxy.refuse()
        self._endPeer()
        # The peer left nothing unread, so its kernel sends FIN and not RST.
        yield PeerClosed
        await deferLater(self._reactor, OUTAGE)
        await self._startPeer()
        await self._proxy.accept()

    # The peer's process.

    async def _startPeer(self) -> None:
        command = [sys.executable, "-m", "twisted_heartbeat", "--peer", str(self._port)]
        command += ["--within", str(self._heartbeat.bound)]
        # In a process group of its own, because control-C must reach only the demo.  If the demo is
        # killed, most systems wake and end even a frozen peer, as an orphaned group: setpgid(2).
        self._peer = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0
        )
        assert self._peer.stdout is not None
        self._port = int(await self._patiently(deferToThread(self._peer.stdout.readline)))

    def _signalPeer(self, number: int) -> None:
        assert self._peer is not None
        self._peer.send_signal(number)

    def _endPeer(self) -> None:
        if self._peer is not None:
            with self._peer as peer:
                peer.kill()


def dropPackets(connection: socket.socket) -> bool:
    """
    Attach a packet filter that accepts nothing, so that the kernel drops every packet of a
    connection, acknowledgements too.  A cut cable does so, and a proxy cannot.

    Source: C{SO_ATTACH_FILTER}, socket(7); C{linux/filter.h}.

    @return: whether this kernel supports it.
    """
    attachFilter, returnConstant = 26, 0x06
    acceptNone = ctypes.create_string_buffer(struct.pack("HBBI", returnConstant, 0, 0, 0))
    program = struct.pack("HP", 1, ctypes.addressof(acceptNone))
    try:
        connection.setsockopt(socket.SOL_SOCKET, attachFilter, program)
    except OSError:
        return False
    return True
