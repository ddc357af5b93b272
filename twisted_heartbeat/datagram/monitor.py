# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{UDPHeartbeatMonitor}: watches the senders of heartbeats over UDP.

The monitor hands each datagram to its
L{Registry<twisted_heartbeat.core.datagram.registry.Registry>}, sends the reply that this returns,
and tells the hooks what has changed.  Each peer is a timer of the wheel, and decides there whether
it is suspected or dead.

B{The last look.}  When a bound is over, the peer is visited once more, after a poll of the reactor.
Before that visit decides, the monitor reads the socket until it has read as much as the kernel's
buffer holds.  Twisted's port reads 256 KiB in one poll, and the kernel may hold more.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property
from itertools import count
from os import urandom
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import DatagramProtocol

from ..core.causes import Cause, ClosedHere, GoodbyeCode, PeerClosed, PeerReset, PeerSilent
from ..core.datagram.packet import MAX_SIZE, Packet
from ..core.datagram.registry import Effect, Keys, Meaning, Registry, keyring
from ..core.datagram.runningtime import METER_PERIOD, RunningTime
from ..core.datagram.session import Look
from ..core.datagram.settings import DatagramLimits
from ..core.evidence import Evidence, VerdictCounter
from ..core.settings import Heartbeat
from ..link.addresses import peerName
from ..link.events import LinkEvents, observersOf, runHook
from ..logs import RepeatedFailures, SafeLogger, Shortage
from ..timing.monotonic import clockFor
from ..timing.wheel import TimerWheel, timerWheelFor
from .groups import Zone, joinGroups
from .hooks import readingHooks
from .ignored import IgnoredLog
from .peer import DatagramPeer
from .reading import enlargeBuffer, readOut
from .sockets import SEND_ERRORS

if TYPE_CHECKING:
    from ..link.hooks import Hooks
    from ..timing.wheel import Slot

_log = SafeLogger()

RECEIVE_SIZE = MAX_SIZE + 1
"""Bytes that are read of a datagram: enough to see that it is too large."""

_REOPEN_AFTER = 1.0
"""Seconds until a port that was lost is opened again."""


class UDPHeartbeatMonitor(Service, DatagramProtocol):
    """
    Watches the senders of heartbeats over UDP.  With a C{port} it is a service that listens there;
    without one it is a protocol to be given to C{reactor.listenUDP}.

    @ivar source: what the log calls this monitor.
    @ivar runningTime: the time in which this process could read.
    """

    noisy = False

    def __init__(
        self,
        keys: Keys,
        *,
        heartbeat: Heartbeat = Heartbeat(),
        hooks: Hooks | None = None,
        limits: DatagramLimits = DatagramLimits(),
        port: int | None = None,
        interface: str = "",
        groups: Collection[str] = (),
        challenge: bool = True,
        unauthenticated: Collection[str] = (),
        name: str | None = None,
        reactor: Any = None,
    ) -> None:
        """
        @param keys: the key of each peer by its name: bytes, which have the key id 1; or a mapping
            from key ids, 1 to 255, to bytes.  A key has 16 bytes or more.
        @param heartbeat: its bound holds for senders that state none.
        @param hooks: called besides the log: L{DatagramHooks}, L{LinkHooks}, or a list of several.
        @param port: the port to listen on; 0 lets the kernel choose.
        @param interface: the IP address to listen on; C{""} for all of IPv4, C{"::"} for IPv6 and,
            unless the system separates them, IPv4.
        @param groups: the IP addresses of multicast groups to join, each with the name of an
            interface if it matters: C{"239.255.84.71%eth0"}.
        @param challenge: L{False} for senders that cannot receive.  After a restart of this
            monitor, a recorded datagram is then taken for the sender.
        @param unauthenticated: the names of peers without a key.  Any host can send in their names.
        @param name: what the log calls this monitor.
        @param reactor: listens and tells the time; the global reactor if L{None}.
        @raise ValueError: for a wrong key or name.
        """
        self.source = name or ("udp" if port is None else f"udp:{port}")
        self.runningTime = RunningTime()
        self._reactor = reactor
        self._port = port
        self._interface = interface
        self._groups = groups
        self._zone = Zone(groups)
        self._challenge = challenge
        self._unauthenticated = tuple(unauthenticated)
        self._listening: Any = None
        self._pausedAt: float | None = None
        self._reopening: IDelayedCall | None = None
        self._generations = count(1)
        self._readOutAt: float | None = None
        self._events = LinkEvents(self.source, heartbeat, hooks)
        self._readings = readingHooks(observersOf(hooks))
        self._registry = Registry(
            keyring(keys, self._unauthenticated),
            urandom(32),
            self._make,
            bound=heartbeat.bound,
            limits=limits,
            challenge=challenge,
        )
        self._meter = _Meter(self)
        self._counters = self._events.counters.datagrams
        self._counters.ignored = self._registry.ignored

    @cached_property
    def _clock(self) -> IReactorTime:
        # Not before it is used, because the import of the global reactor installs it.
        return clockFor(self._reactor)

    @cached_property
    def wheel(self) -> TimerWheel:
        """
        The timer wheel of the clock.
        """
        return timerWheelFor(self._clock)

    @cached_property
    def _ignoredLog(self) -> IgnoredLog:
        return IgnoredLog(self.source, self._registry.ignored, self.wheel)

    @cached_property
    def _unsent(self) -> Shortage:
        words = "{error}: a reply to a datagram was not sent"
        return Shortage(_log, words, self.wheel.seconds)

    @cached_property
    def _notReopened(self) -> RepeatedFailures:
        return RepeatedFailures(_log, "{link}: could not listen again", self.wheel.seconds)

    @property
    def peers(self) -> Mapping[str, DatagramPeer]:
        """
        The peers that are alive, by name.
        """
        return {peer.name: peer for peer in self._registry.peers.values() if peer.alive}

    @property
    def ignored(self) -> Mapping[str, int]:
        """
        How many datagrams were ignored or challenged so far, by reason.
        """
        return dict(self._registry.ignored)

    def setKeys(self, keys: Keys) -> None:
        """
        Replace all keys.  A session goes on if its next datagram has one of the new keys.

        @raise ValueError: as for a new monitor.
        """
        self._registry.keys = keyring(keys, self._unauthenticated)

    def changeSettings(self, *, heartbeat: Heartbeat, limits: DatagramLimits) -> None:
        """
        Use other settings.  No peer is dropped: the bounds hold from its next heartbeat on, and
        fewer C{peers} than there are keep new ones out.
        """
        self._registry.changeSettings(heartbeat.bound, limits)

    # The service.

    def startService(self) -> None:
        """
        Listen, if there is a port to listen on.

        @raise CannotListenError: if the port is taken.
        """
        if self._port is not None and self._listening is None:
            self._listen()
        super().startService()  # type: ignore[no-untyped-call]

    def privilegedStartService(self) -> None:
        """
        Listen, with the privileges that twistd drops after this call.
        """
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        if self._port is not None and self._listening is None:
            self._listen()

    def stopService(self) -> Deferred[Any]:
        """
        Close the port.

        @return: fires when it is closed.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        if self._reopening is not None:
            self._reopening.cancel()
            self._reopening = None
        since, self._pausedAt = self._pausedAt, None
        if since is not None:
            self.runningTime.paused(since, self.wheel.seconds())
            self._endPeers()
        listening, self._listening = self._listening, None
        if listening is None:
            return succeed(None)
        return maybeDeferred(listening.stopListening)

    def getHost(self) -> Any:
        """
        Return the address that the monitor listens on.
        """
        assert self.transport is not None
        return self.transport.getHost()

    def _listen(self) -> None:
        reactor = self._reactor
        if reactor is None:
            from twisted.internet import reactor
        listen = reactor.listenUDP
        keywords: dict[str, Any] = {"interface": self._interface, "maxPacketSize": RECEIVE_SIZE}
        if self._groups:
            # So that several monitors on one machine hear the group.
            listen, keywords["listenMultiple"] = reactor.listenMulticast, True
        port = listen(self._port, self, **keywords)
        try:
            if self._groups:
                joinGroups(port.getHandle(), self._groups)
        except BaseException:
            # While the service runs, stopProtocol then sees one more loss of the port.
            port.stopListening()
            raise
        self._listening = port

    def _reopenLater(self) -> None:
        if self._reopening is None:
            self._reopening = self._clock.callLater(_REOPEN_AFTER, self._reopen)

    def _reopen(self) -> None:
        self._reopening = None
        try:
            self._listen()
        except (OSError, CannotListenError) as error:
            self._notReopened.failed(error, link=self.source)
            self._reopenLater()

    # The protocol.

    def startProtocol(self) -> None:
        """
        Begin to watch, or go on after the port was lost.
        """
        getHandle = getattr(self.transport, "getHandle", None)
        if getHandle is not None:
            enlargeBuffer(getHandle())
        self._seconds = self.wheel.seconds
        now = self._seconds()
        since, self._pausedAt = self._pausedAt, None
        if since is not None:
            self.runningTime.paused(since, now)
        elif not self._challenge:
            _log.warn(
                "{link}: senders are not challenged: after a restart, a recorded datagram is taken "
                "for its sender",
                link=self.source,
            )
        for peer in self._registry.peers.values():
            self._schedule(peer)
        self._meter.start(now)

    def stopProtocol(self) -> None:
        """
        Stop watching.  The peers end, unless the port was lost and is opened again.
        """
        self._meter.stop()
        self._ignoredLog.stop()
        for peer in self._registry.peers.values():
            self.wheel.cancel(peer)
        if not self.running or self._port is None:
            self._endPeers()
            return
        if self._listening is not None:
            _log.error("{link}: the port was lost, and is opened again", link=self.source)
        self._pausedAt = self.wheel.seconds()
        self._listening = None
        self._reopenLater()

    def _endPeers(self) -> None:
        running = self.runningTime.read(self.wheel.seconds())
        for peer in list(self._registry.peers.values()):
            if peer.alive:
                peer.end(running)
                self._events.emit("disconnected", peer, ClosedHere("the monitor has stopped"))

    def datagramReceived(self, data: bytes, address: Any) -> None:
        """
        Take a datagram.
        """
        self._counters.received += 1
        self._counters.receivedBytes += len(data)
        running = self.runningTime.read(self._seconds())
        meaning = self._registry.receive(data, address, running)
        effect, peer, reply, payload, _, _, isSooner = meaning
        if reply:
            self._send(reply, address)
        if peer is None:
            if effect is not Effect.HEARD:
                # A datagram with a reply was challenged, and is none that was ignored.
                self._ignoredLog.changed(None if reply else address)
            return
        if effect is not Effect.HEARD:
            self._changed(meaning, peer)
        if isSooner:
            self._schedule(peer)
        if payload:
            for hook in self._readings:
                runHook("readingReceived", hook, peer, payload)

    def _send(self, reply: bytes, address: Any) -> None:
        assert self.transport is not None
        try:
            self.transport.write(reply, self._zone.complete(address))
        except SEND_ERRORS as error:
            # The sender will ask again.
            self._unsent.met(error)
            return
        self._counters.sent += 1
        self._counters.sentBytes += len(reply)

    def _make(self, packet: Packet, address: object, bound: float, now: float) -> DatagramPeer:
        return DatagramPeer(self, next(self._generations), packet, address, bound, now)

    def _changed(self, meaning: Meaning[DatagramPeer], peer: DatagramPeer) -> None:
        if meaning.effect is Effect.RECOVERED:
            self._events.emit("recovered", peer)
        elif meaning.effect is Effect.LEFT:
            self.wheel.cancel(peer)
            self._events.emit("disconnected", peer, _goodbye(meaning.code, peer))
        else:
            former = meaning.former
            if former is not None:
                self.wheel.cancel(former)
                words = f"it has restarted: a new session began at {peerName(peer.peer)}"
                self._events.emit("disconnected", former, PeerReset(words))
            self._schedule(peer)
            self._events.emit("connected", peer)

    # Time.

    def _schedule(self, peer: DatagramPeer) -> None:
        if peer.alive:
            self.wheel.schedule(peer, peer.due + self.runningTime.lost)

    def peerDue(self, peer: DatagramPeer, clock: float, lateness: float) -> float | None:
        """
        Decide about a peer whose timer has fired.

        @return: when to visit it next; L{None} if it is dead.
        """
        running = self.runningTime.timerFired(clock, lateness)
        if running >= peer.deadline and self._readOutAt != clock:
            # Once a tick is enough for all peers.
            self._readOutAt = clock
            readOut(self.transport)
        look = peer.decide(running)
        if look is Look.SUSPECT:
            self._events.emit("suspected", peer)
        elif look is Look.VERDICT:
            self._events.emit("disconnected", peer, self._silent(peer, clock))
        # The verdict has ended it, or what the last look has read: a goodbye, a new session.
        return peer.due + self.runningTime.lost if peer.alive else None

    def _silent(self, peer: DatagramPeer, clock: float) -> Cause:
        words = (
            f"nothing received for {peer.silence:.3f} s, the bound is {peer.bound:g} s; last from "
            f"{peerName(peer.peer)}, {peer.lost} of {peer.lost + peer.received} datagrams lost"
        )
        batch = self.wheel.shared(VerdictCounter).count(clock)
        return PeerSilent(words, evidence=Evidence(sinceData=peer.silence, _batch=batch))

    def meterDue(self, clock: float, lateness: float) -> None:
        """
        Note how punctual this process is, and forget old peers.
        """
        self._registry.forget(self.runningTime.timerFired(clock, lateness))


class _Meter:
    """
    The timer that notices stalls, see L{RunningTime}.
    """

    __slots__ = ("_monitor", "slot")

    def __init__(self, monitor: UDPHeartbeatMonitor) -> None:
        self._monitor = monitor
        self.slot: Slot | None = None

    def start(self, now: float) -> None:
        self._monitor.runningTime.due = now + METER_PERIOD
        self._monitor.wheel.schedule(self, now + METER_PERIOD)

    def stop(self) -> None:
        self._monitor.runningTime.due = float("inf")
        self._monitor.wheel.discard(self)

    def onTimer(self, now: float, lateness: float) -> float | None:
        self._monitor.meterDue(now, lateness)
        self._monitor.runningTime.due = now + METER_PERIOD
        return now + METER_PERIOD


def _goodbye(code: int, peer: DatagramPeer) -> Cause:
    moved = code == GoodbyeCode.MOVED
    words = "it reports to another monitor" if moved else "it has left"
    return PeerClosed(
        f"{words}; last from {peerName(peer.peer)}",
        goodbyeCode=GoodbyeCode.MOVED if moved else GoodbyeCode.CLOSING,
    )
