# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Demo}: five faults, one after the other, on one link.
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
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from .. import (
    Cause,
    HeartbeatClientService,
    HeartbeatProtocol,
    Link,
    PeerClosed,
    PeerReset,
    PeerSilent,
)
from ..testing import BlackHole, FaultProxy
from .results import Facts, Row
from .settings import AWAY, BACKOFF, HUNG, SETTLE, WAIT_LIMIT

if TYPE_CHECKING:
    from .. import Heartbeat
    from .views import Plain


T = TypeVar("T")
Fault = Callable[[Link], AbstractAsyncContextManager[type[Cause]]]


class Client(HeartbeatProtocol):
    """
    The client's side of a link.
    """

    def ask(self) -> Deferred[bytes]:
        """
        Fires when the peer answers.
        """
        self.asked: Deferred[bytes] = Deferred()
        self.sendMessage(b"are you there?")
        return self.asked

    def messageReceived(self, message: bytes) -> None:
        self.asked.callback(message)


class Demo:
    """
    A client, a proxy, a peer, and what is done to them.

    @ivar rows: one for each fault, filled in as far as it has come.
    @ivar service: the client; L{None} until it starts.
    """

    def __init__(self, reactor: Any, heartbeat: Heartbeat, view: type[Plain]) -> None:
        bound = heartbeat.bound
        self.rows = [
            Row("silent cut", bound, silent=True),
            Row("frozen peer", bound, silent=True),
            Row("reset", bound),
            Row("clean close", bound),
            Row(f"peer gone {AWAY:g} s", bound, refuses=True),
        ]
        self.service: HeartbeatClientService | None = None
        self._reactor = reactor
        self._heartbeat = heartbeat
        self._view = view(self)
        self._facts = Facts(self._view.say)
        self._peer: subprocess.Popen[bytes] | None = None
        self._port = 0

    async def perform(self) -> None:
        """
        Do it all, and leave nothing running, not even when cancelled.

        @raise TimeoutError: if something was waited for in vain; the last row lacks it.
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
            await self._sufferAll()

    def _makeService(self) -> HeartbeatClientService:
        return HeartbeatClientService(
            self._proxy.endpoint(),
            Factory.forProtocol(Client),
            BACKOFF,
            self._reactor,
            heartbeat=self._heartbeat,
            hooks=self._facts,
        )

    async def _sufferAll(self) -> None:
        faults = [self._cut, self._frozen, self._reset, self._closed, self._gone]
        for row, fault in zip(self.rows, faults, strict=True):
            await self._suffer(row, fault)

    async def _suffer(self, row: Row, fault: Fault) -> None:
        assert self.service is not None
        await deferLater(self._reactor, SETTLE)
        link = await self._talk()
        heardAt, refusedBefore = monotonic() - link.silence, self._facts.rejections
        self._view.say("FAULT", row.fault)
        async with fault(link) as row.expected:
            await self._patiently(self.service.whenDisconnected())
            row.cause, endedAt = self._facts.ended[link.generation]
            row.detectedAfter = endedAt - heardAt
            row.cleanups = self._facts.cleanups[link.generation]
        row.refused = self._facts.rejections - refusedBefore
        backFrom = monotonic()
        await self._talk()
        row.cleanups = self._facts.cleanups[link.generation]
        row.backAfter = monotonic() - backFrom

    async def _talk(self) -> Link:
        """
        @return: a link on which the peer has just answered, so that nothing is on its way.
        """
        assert self.service is not None
        client: Client = await self._patiently(self.service.whenConnected())
        await self._patiently(client.ask())
        assert client.link is not None
        return client.link

    def _patiently(self, waiting: Deferred[T]) -> Deferred[T]:
        return waiting.addTimeout(WAIT_LIMIT, self._reactor)

    # The faults: each yields the true cause, and is over when its link is gone.

    @asynccontextmanager
    async def _cut(self, link: Link) -> AsyncIterator[type[Cause]]:
        self._proxy.inject(BlackHole())
        # The proxy's kernel still acknowledges what the proxy throws away, unless that is cut too.
        yield PeerSilent if dropPackets(link.protocol.transport.getHandle()) else HUNG
        await self._proxy.heal()

    @asynccontextmanager
    async def _frozen(self, link: Link) -> AsyncIterator[type[Cause]]:
        self._signalPeer(signal.SIGSTOP)
        yield HUNG
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
        # It left nothing unread, so its kernel closes for it, and does not reset.
        yield PeerClosed
        await deferLater(self._reactor, AWAY)
        await self._startPeer()
        await self._proxy.accept()

    # The peer's process.

    async def _startPeer(self) -> None:
        command = [sys.executable, "-m", "twisted_heartbeat", "--peer", str(self._port)]
        command += ["--within", str(self._heartbeat.bound)]
        # In a group of its own: control-C is for the demo alone; and should that be killed, most
        # systems wake and end even a frozen peer, as an orphaned group: setpgid(2).
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
    Have the kernel drop each packet that comes for a connection, acknowledgements too, as a cut
    cable does and no proxy can: by a packet filter that accepts none.

    Source: C{SO_ATTACH_FILTER}, socket(7); C{linux/filter.h}.

    @return: whether this kernel can.
    """
    attachFilter, returnConstant = 26, 0x06
    acceptNone = ctypes.create_string_buffer(struct.pack("HBBI", returnConstant, 0, 0, 0))
    program = struct.pack("HP", 1, ctypes.addressof(acceptNone))
    try:
        connection.setsockopt(socket.SOL_SOCKET, attachFilter, program)
    except OSError:
        return False
    return True
