# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{UDPHeartbeatSender}: tells one or several monitors that this process is alive.

Each heartbeat is one datagram, and all monitors that get it get the same bytes.  The first monitor
of the list that is well gets it; while that is not the first, the first gets it as well, and is
returned to when it has acknowledged three in a row.

Nothing that the network does ends a sender: an unreachable network, a full buffer and a name that
is not found cost the heartbeats of that time, and the log tells of it once a minute.
"""

from __future__ import annotations

import random as systemRandom
from collections.abc import Callable, Sequence
from functools import cached_property
from os import urandom
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from ..core.causes import ClosedHere, GoodbyeCode, PeerSilent
from ..core.datagram.failover import Failover
from ..core.datagram.packet import MAX_NAME, MAX_PAYLOAD, Key, Packet, Type, isName
from ..core.datagram.registry import NO_KEY, UNKEYED
from ..core.datagram.runningtime import RunningTime
from ..core.datagram.schedule import Schedule, periodFor
from ..core.datagram.sendersession import MAX_SEQUENCE, SenderSession
from ..core.datagram.session import Look
from ..core.datagram.uplink import Answer
from ..core.evidence import Evidence
from ..core.settings import Heartbeat
from ..link.events import LinkEvents
from ..logs import RepeatedFailures, SafeLogger, Shortage
from ..timing.monotonic import clockFor
from ..timing.wheel import TimerWheel, timerWheelFor
from .peer import addressOf
from .sockets import Address, Sockets
from .uplink import Monitor

if TYPE_CHECKING:
    from ..link.hooks import Hooks
    from ..timing.wheel import Slot

_log = SafeLogger()

GOODBYES = 2
"""How often a goodbye is sent, because a lost one would look like a death."""


class UDPHeartbeatSender(Service):
    """
    Tells one or several monitors over UDP that this process is alive.

    @ivar source: what the log calls this sender.
    @ivar heartbeat: its bound is what the monitors are asked to apply.
    @ivar monitors: the monitors, in the order of the list.
    @ivar period: seconds between two heartbeats.
    @ivar watches: whether the monitors are watched.
    @ivar runningTime: the time in which this process could read.
    """

    def __init__(
        self,
        monitors: Address | Sequence[Address],
        *,
        name: str,
        key: bytes | None,
        heartbeat: Heartbeat = Heartbeat(),
        every: float | None = None,
        allowLoss: float | None = None,
        all: bool = False,
        watch: bool = True,
        reading: Callable[[], bytes | None] | None = None,
        hooks: Hooks | None = None,
        keyId: int = 1,
        unauthenticated: bool = False,
        interface: str = "",
        reactor: Any = None,
        random: Callable[[], float] = systemRandom.random,
    ) -> None:
        """
        @param monitors: the host, which is a name, an IP address or a multicast group, and the port
            of a monitor; or a list of several, for failover in this order.
        @param name: this sender's; 1 to 128 bytes of UTF-8.
        @param key: this sender's; 16 bytes or more.  L{None} only with C{unauthenticated}.
        @param heartbeat: its bound holds in both directions.
        @param every: seconds between two heartbeats.  By default 3, or a sixth of the bound if that
            is longer.
        @param allowLoss: the rate of loss, from 0 to below 1, at which at most one heartbeat in a
            million leads to a false verdict.  It makes the heartbeats more frequent, up to one in
            three seconds; beyond that C{every} has to ask for them.
        @param all: whether each heartbeat goes to all monitors, in place of failover.
        @param watch: L{False} to ask for no acknowledgements.  Multicast needs that.
        @param reading: returns the payload of the next heartbeat, at most 512 bytes; L{None} for
            none.
        @param hooks: called besides the log, with each L{Monitor} that answers or falls silent.
        @param keyId: the number of the key, 1 to 255.
        @param unauthenticated: L{True} to send without a key.
        @param interface: the IP address to send from; C{""} leaves that to the system.
        @param reactor: sends and tells the time; the global reactor if L{None}.
        @param random: draws a number from 0 up to 1.
        @raise ValueError: for a wrong value, or if C{allowLoss} or the bound needs more heartbeats
            than there are.
        """
        places = _placesOf(monitors)
        if not places:
            raise ValueError("monitors is empty: there must be at least one")
        if not isName(name):
            raise ValueError(f"name is {name!r}: it must have 1 to {MAX_NAME} bytes of UTF-8")
        if (key is None) != unauthenticated:
            raise ValueError("key is needed, unless unauthenticated=True: then it must be None")
        if not 1 <= keyId <= 255:
            raise ValueError(f"keyId is {keyId!r}: it must be a number from 1 to 255")
        if len(places) > 1 and not (watch or all):
            raise ValueError("watch is False: several monitors need it, or all=True")
        self.source = name
        self.heartbeat = heartbeat
        self.period = periodFor(heartbeat.bound, every, allowLoss)
        self.watches = watch
        self.runningTime = RunningTime()
        self.slot: Slot | None = None
        self._asked = every, allowLoss
        own = (UNKEYED, NO_KEY) if key is None else (Key(key), keyId)
        self._identity = name.encode(), *own
        self._reading = reading
        self._reactor = reactor
        self._random = random
        self._events = LinkEvents(name, heartbeat, hooks)
        self._failover = Failover(len(places), all)
        self.monitors = [
            Monitor(self, index, host, port, self.period)
            for index, (host, port) in enumerate(places)
        ]
        hosts = [host for host, _ in places]
        self._counters = self._events.counters.datagrams
        self._sockets = Sockets(
            interface, hosts, self.datagramReceived, self._notSent, self._counters
        )
        self._session = self._newSession()
        self._generation = 0
        self._bound = heartbeat.bound
        # The monitor to say goodbye to, and the number of the last heartbeat that it was sent.
        self._leaving: tuple[Monitor, int] | None = None

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
    def _unsent(self) -> Shortage:
        return Shortage(_log, "{error}: a heartbeat was not sent", self.wheel.seconds)

    @cached_property
    def _unread(self) -> RepeatedFailures:
        return RepeatedFailures(_log, "{link}: no reading", self.wheel.seconds)

    @cached_property
    def _unanswered(self) -> Shortage:
        return Shortage(_log, "A monitor does not answer: {error}", self.wheel.seconds)

    @cached_property
    def _unfound(self) -> Shortage:
        words = "No address was found for a monitor, so nothing is sent to it: {error}"
        return Shortage(_log, words, self.wheel.seconds)

    @property
    def session(self) -> int:
        """
        The number of this session, drawn at each start.
        """
        return self._session.number

    @property
    def current(self) -> Monitor:
        """
        The monitor that this sender reports to; with C{all=True}, the first.
        """
        return self.monitors[self._failover.current]

    # The service.

    def startService(self) -> None:
        """
        Begin a session: the first heartbeat leaves within a quarter of the period.
        """
        super().startService()  # type: ignore[no-untyped-call]
        if self._reactor is None:
            from twisted.internet import reactor

            self._reactor = reactor
        self._sockets.open(self._reactor)
        now = self.wheel.seconds()
        self._beginSession()
        self._beginGrid(now)
        for monitor in self._targets():
            monitor.resolve(self._reactor, now)

    def stopService(self) -> Deferred[Any]:
        """
        Say goodbye, and close the sockets.

        @return: fires when they are closed.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        self.wheel.discard(self)
        alive = [monitor for monitor in self.monitors if monitor.alive]
        for monitor in self.monitors:
            self.wheel.discard(monitor)
            if monitor in self._targets() or (self._leaving and monitor is self._leaving[0]):
                self._sayGoodbye(monitor, GoodbyeCode.CLOSING)
            monitor.endWatch()
        closed = self._sockets.close()
        for monitor in alive:
            self._events.emit("disconnected", monitor, ClosedHere("the sender has stopped"))
        return closed

    def _newSession(self) -> SenderSession:
        number = int.from_bytes(urandom(8), "big")
        return SenderSession(number, *self._identity, self.heartbeat.bound, self.watches)

    def _beginSession(self) -> None:
        self._session = self._newSession()
        self._leaving = None
        for monitor in self.monitors:
            monitor.beginSession()

    def _beginGrid(self, now: float) -> None:
        self._schedule = Schedule(self.period, now, self._random)
        self.runningTime.due = self._schedule.following(now)
        self.wheel.schedule(self, self.runningTime.due)

    # What is sent.

    def _targets(self) -> list[Monitor]:
        return [self.monitors[index] for index in self._failover.targets]

    def onTimer(self, now: float, lateness: float) -> float | None:
        running = self.runningTime.timerFired(now, lateness)
        following = self._schedule.following(now)
        if self._session.sequence >= MAX_SEQUENCE:
            self._beginSession()
        reading = self._nextReading()
        if not self.running:
            return None
        data = self._session.heartbeat(now, self._schedule.latest, reading)
        for monitor in self._targets():
            monitor.resolve(self._reactor, now)
            if self.watches:
                monitor.beginWatch(running)
                self._scheduleMonitor(monitor)
            self._send(data, monitor, running)
        self.runningTime.due = following
        return following

    def _send(self, heartbeat: bytes, monitor: Monitor, running: float) -> None:
        if monitor.address is not None:
            if self.watches:
                monitor.sending(self._session.sequence, running)
            self._sockets.send(heartbeat, monitor.address)

    def _nextReading(self) -> bytes:
        if self._reading is None:
            return b""
        try:
            reading = self._reading() or b""
            if len(reading) > MAX_PAYLOAD:
                raise ValueError(f"the reading has {len(reading)} bytes: at most {MAX_PAYLOAD}")
        except BaseException as error:
            # The heartbeat is more important than what it carries.
            self._unread.failed(error, link=self.source)
            return b""
        return bytes(reading)

    def _notSent(self, error: Exception) -> None:
        self._unsent.met(error)

    def _sayGoodbye(self, monitor: Monitor, code: GoodbyeCode, after: int | None = None) -> None:
        data = self._session.goodbye(self.wheel.seconds(), code, after)
        if data is not None and monitor.address is not None:
            for _ in range(GOODBYES):
                self._sockets.send(data, monitor.address)

    def nameFound(self, monitor: Monitor) -> None:
        """
        Send the latest heartbeat to a monitor whose name was found only now.
        """
        latest = self._session.repeated()
        if self.running and latest is not None and monitor in self._targets():
            self._send(latest, monitor, self.runningTime.read(self.wheel.seconds()))

    def nameNotFound(self, monitor: Monitor) -> None:
        """
        Warn that there is nowhere to send the heartbeats for a monitor.
        """
        self._unfound.met(monitor.name)

    # What is received.

    def datagramReceived(self, data: bytes, address: Any) -> None:
        """
        Take a datagram of a monitor.
        """
        if not self.running:
            # A hook has stopped the service, and the port still hands over what it reads.
            return
        counters = self._counters
        counters.received += 1
        counters.receivedBytes += len(data)
        packet = self._session.received(data)
        if packet is None:
            counters.ignored["foreign"] = counters.ignored.get("foreign", 0) + 1
            return
        now = self.wheel.seconds()
        if packet.type == Type.CHALLENGE:
            answer = self._session.answer(packet, now, self._schedule.latest)
            if answer is not None:
                # To where the challenge came from: to one monitor of a group.
                self._sockets.send(answer, address)
        elif packet.type == Type.ACKNOWLEDGEMENT:
            self._acknowledged(packet, address, self.runningTime.read(now))

    def _acknowledged(self, packet: Packet, address: Any, running: float) -> None:
        monitor = self._monitorAt(address)
        if monitor is None:
            return
        answer = monitor.heard(packet, running)
        if answer is Answer.BEGAN:
            self._generation += 1
            monitor.generation = self._generation
            self._scheduleMonitor(monitor)
            self._events.emit("connected", monitor)
        elif answer is Answer.RECOVERED:
            self._events.emit("recovered", monitor)
        # A hook may have stopped this sender.
        if answer is not Answer.NOTHING and self.running:
            self._heed(monitor)
            self._sayMoved(monitor, packet.sequence)

    def _monitorAt(self, address: Any) -> Monitor | None:
        """
        Return the monitor that answers from this address.  A host with several addresses may answer
        from another one than it was sent to, which is plain if there is only one monitor.
        """
        targets = self._targets()
        if len(targets) == 1:
            return targets[0]
        source = addressOf(address)
        return next((each for each in targets if each.isAt(source)), None)

    def _heed(self, monitor: Monitor) -> None:
        """
        Do what an acknowledgement asks for: return to the first monitor, or send more often,
        because the monitor applies a shorter bound.
        """
        left = self.current
        if self._failover.answered(monitor.index, monitor.inRow):
            _log.info(
                "{link}: back to the monitor {monitor}", link=self.source, monitor=monitor.name
            )
            self._leave(left)
        applied = monitor.applied
        if applied is not None and applied < self._bound and self.running:
            self._bound = applied
            self._shorten(monitor, applied)

    def _shorten(self, monitor: Monitor, applied: float) -> None:
        every, allowLoss = self._asked
        try:
            period = periodFor(applied, every, allowLoss)
        except ValueError as error:
            words = "{link}: the monitor {monitor} applies a bound of {bound} s: {reason}"
            _log.warn(
                words, link=self.source, monitor=monitor.name, bound=applied, reason=str(error)
            )
            return
        if period < self.period:
            self.period = period
            self._beginGrid(self.wheel.seconds())
            for each in self.monitors:
                each.setPeriod(period)
                if each.watched:
                    self._scheduleMonitor(each)

    # Time.

    def _scheduleMonitor(self, monitor: Monitor) -> None:
        self.wheel.schedule(monitor, monitor.due + self.runningTime.lost)

    def monitorDue(self, monitor: Monitor, clock: float, lateness: float) -> float | None:
        """
        Decide about a monitor whose timer has fired.

        @return: when to visit it next; L{None} if it is not watched any more.
        """
        running = self.runningTime.timerFired(clock, lateness)
        if running >= monitor.heardAt + monitor.bound:
            self._sockets.readOut()
        look = monitor.decide(running)
        if look is Look.SUSPECT:
            self._events.emit("suspected", monitor)
        elif look is Look.VERDICT:
            self._silent(monitor)
        return monitor.due + self.runningTime.lost if monitor.watched else None

    def _silent(self, monitor: Monitor) -> None:
        words = (
            f"nothing acknowledged for {monitor.silence:.3f} s, the bound is {monitor.bound:g} s; "
            f"{monitor.acknowledged} of {monitor.sent} heartbeats were acknowledged"
        )
        cause = PeerSilent(words, evidence=Evidence(sinceData=monitor.silence))
        wasAlive = monitor.alive
        monitor.endWatch()
        if wasAlive:
            self._events.emit("disconnected", monitor, cause)
        else:
            why = cause if monitor.addresses else "no address was found for its name"
            self._unanswered.met(f"{monitor.name}: {why}")
        if self.running and self._failover.silent(monitor.index):
            current = self.current.name
            _log.warn("{link}: on to the monitor {monitor}", link=self.source, monitor=current)
            if monitor.index == 0:
                # It still gets the heartbeats, and would find a later goodbye out of date.
                self._sayGoodbye(monitor, GoodbyeCode.MOVED)
            else:
                self._leaving = monitor, self._session.sequence

    def _sayMoved(self, monitor: Monitor, acknowledged: int) -> None:
        """
        Say goodbye to the monitor that was left, when the current one has a later heartbeat than
        that.  Before that, an attacker who copies the goodbye could end the session at the current
        monitor.
        """
        if self._leaving and monitor is self.current and acknowledged > self._leaving[1]:
            (left, latest), self._leaving = self._leaving, None
            if left not in self._targets():
                self._sayGoodbye(left, GoodbyeCode.MOVED, latest)

    def _leave(self, monitor: Monitor) -> None:
        """
        Leave a monitor that is well.
        """
        self._leaving = monitor, self._session.sequence
        self.wheel.cancel(monitor)
        if monitor.alive:
            monitor.endWatch()
            self._events.emit("disconnected", monitor, ClosedHere("back to the first monitor"))


def _placesOf(monitors: Any) -> list[Address]:
    """
    Return the list of monitors that was given, which may be a single one.
    """
    return [monitors] if monitors and isinstance(monitors[0], str) else list(monitors)
