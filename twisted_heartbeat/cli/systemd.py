# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Tells systemd how the process is: sd_notify(3), by datagrams to C{NOTIFY_SOCKET}.

Problem: a process whose reactor is blocked holds its port open and does nothing.  systemd restarts
it if it is not told C{WATCHDOG=1} in time.  A thread or a child process that says so would vouch
for a reactor that it does not know.

Idea: the reactor says so itself, from a timer of the timer wheel, twice in the time that systemd
waits (sd_watchdog_enabled(3)).  A blocked reactor says nothing.  A visit that comes late says
nothing either: it comes again soon, and only a visit on time counts.  Therefore a reactor that is
always late is found as well.

What is told:

  - C{READY=1} when all ports are open and the reactor runs; again after each reload;
  - C{STATUS=}: one line of text, at most once in a second;
  - C{WATCHDOG=1} if C{WATCHDOG_USEC} asks for it;
  - C{RELOADING=1} with C{MONOTONIC_USEC}, as C{Type=notify-reload} needs it;
  - C{STOPPING=1} when the process begins to stop; if it ends because of an error, the status says
    so, with C{ERRNO=} where there is one.

Without C{NOTIFY_SOCKET} there is no notifier.  A datagram that systemd does not take is lost; the
log tells so once in a minute.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from time import monotonic, monotonic_ns
from typing import TYPE_CHECKING

from ..core.text import printable
from ..logs import SafeLogger, Shortage

if TYPE_CHECKING:
    from ..timing.wheel import Slot, TimerWheel

_log = SafeLogger()

_STATUS_INTERVAL = 1.0
"""Seconds between two status texts."""

_MAX_STATUS = 500
"""Characters of a status text: one line of C{systemctl status}."""

_LATE_FRACTION = 0.5
"""Of the watchdog's period: a visit that is later than this does not count."""

_AGAIN_FRACTION = 0.125
"""Of the watchdog's period: when a visit that did not count is repeated."""

_SHORTEST_WAIT = 0.001
"""Seconds from one visit to the next: a shorter C{WATCHDOG_USEC} would take a whole processor."""


class NotifySocket:
    """
    Sends datagrams to systemd.
    """

    def __init__(self, address: str) -> None:
        """
        @param address: a path; or C{@name} for an abstract socket, see unix(7).
        """
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._refused = Shortage(_log, "systemd takes no notifications: {error}", monotonic)

    def send(self, *lines: str) -> None:
        """
        Send lines such as C{READY=1}, in one datagram.
        """
        data = "\n".join(lines).encode("utf-8", "replace")
        try:
            # A socket for each datagram, because systemd may have made a new one meanwhile.
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                # Otherwise a supervisor that does not read would block the reactor.
                sender.setblocking(False)
                sender.sendto(data, self._address)
        except OSError as error:
            self._refused.met(error)


class Watchdog:
    """
    Tells systemd that the reactor turns in time, see the module.

    @ivar slot: belongs to the timer wheel.
    """

    def __init__(self, notifySocket: NotifySocket, wheel: TimerWheel, limit: float) -> None:
        """
        @param limit: seconds after which systemd gives the process up.
        """
        self.slot: Slot | None = None
        self._socket = notifySocket
        self._wheel = wheel
        self._period = max(limit / 2, _SHORTEST_WAIT)

    def start(self) -> None:
        """
        Tell it now, and from now on.
        """
        self._socket.send("WATCHDOG=1")
        self._wheel.schedule(self, self._wheel.seconds() + self._period)

    def stop(self) -> None:
        """
        Say nothing more.
        """
        self._wheel.cancel(self)

    def onTimer(self, now: float, lateness: float) -> float:
        if lateness > self._period * _LATE_FRACTION:
            return now + max(self._period * _AGAIN_FRACTION, _SHORTEST_WAIT)
        self._socket.send("WATCHDOG=1")
        return now + self._period


class Notifier:
    """
    Tells systemd what the process does.

    @ivar slot: belongs to the timer wheel.
    """

    def __init__(
        self,
        notifySocket: NotifySocket,
        wheel: TimerWheel,
        status: Callable[[], str],
        watchdogLimit: float | None = None,
    ) -> None:
        """
        @param status: returns the status text.
        @param watchdogLimit: seconds after which systemd gives the process up; L{None} if it does
            not watch.
        """
        self.slot: Slot | None = None
        self._socket = notifySocket
        self._wheel = wheel
        self._status = status
        self._watchdog = (
            None if watchdogLimit is None else Watchdog(notifySocket, wheel, watchdogLimit)
        )
        self._ready = False
        self._fault = ""
        self._ending = "closing"

    @classmethod
    def fromEnvironment(
        cls, wheel: TimerWheel, status: Callable[[], str], environment: Mapping[str, str]
    ) -> Notifier | None:
        """
        Return the notifier that systemd asks for by its environment variables; L{None} if it does
        not ask, or if the address is of another kind than a UNIX socket's.
        """
        address = _addressIn(environment)
        if address is None:
            return None
        return cls(NotifySocket(address), wheel, status, _watchdogLimit(environment))

    def ready(self) -> None:
        """
        Tell that the process has started.
        """
        self._ready = True
        self._socket.send("READY=1", self._statusLine())
        if self._watchdog is not None:
            self._watchdog.start()

    def changed(self) -> None:
        """
        Tell the status text soon, because it may have changed.
        """
        if self._ready and self.slot is None:
            self._wheel.schedule(self, self._wheel.seconds() + _STATUS_INTERVAL)

    def onTimer(self, now: float, lateness: float) -> None:
        self._socket.send(self._statusLine())

    def reloading(self) -> None:
        """
        Tell that the configuration is being read again.
        """
        self._socket.send("RELOADING=1", f"MONOTONIC_USEC={monotonic_ns() // 1000}")

    def reloaded(self, fault: str = "") -> None:
        """
        Tell that this is done.

        @param fault: why the old configuration stays; C{""} if it does not.
        """
        self._fault = fault
        self._socket.send("READY=1", self._statusLine())

    def failed(self, words: str, error: BaseException | None = None) -> None:
        """
        Tell why the process is about to end.

        @param error: its errno is told, if it has one.
        """
        self._ending = words
        number = getattr(getattr(error, "socketError", error), "errno", None)
        errno = [f"ERRNO={number}"] if isinstance(number, int) else []
        self._socket.send(_statusLine(words), *errno)

    def stopping(self) -> None:
        """
        Tell that the process stops.
        """
        self._ready = False
        self._wheel.discard(self)
        self._socket.send("STOPPING=1", _statusLine(self._ending))

    def stopped(self) -> None:
        """
        Say nothing more.
        """
        if self._watchdog is not None:
            self._watchdog.stop()

    def _statusLine(self) -> str:
        status = self._status()
        if self._fault:
            status = f"not reloaded: {self._fault} ({status})"
        return _statusLine(status)


def tellFault(sentence: str, environment: Mapping[str, str]) -> None:
    """
    Tell why a process ends before it has begun.

    @param sentence: the fault of its file.
    """
    address = _addressIn(environment)
    if address is not None:
        NotifySocket(address).send(_statusLine(f"not started: {sentence}"))


def _statusLine(text: str) -> str:
    return f"STATUS={printable(text)[:_MAX_STATUS]}"


def _addressIn(environment: Mapping[str, str]) -> str | None:
    """
    Return the address of C{NOTIFY_SOCKET}; L{None} if it is no UNIX socket's.
    """
    address = environment.get("NOTIFY_SOCKET", "")
    if len(address) < 2 or address[0] not in "/@" or not hasattr(socket, "AF_UNIX"):
        return None
    return address


def _watchdogLimit(environment: Mapping[str, str]) -> float | None:
    """
    Return the seconds of C{WATCHDOG_USEC}; L{None} if it is unset, no number, or is meant for
    another process (sd_watchdog_enabled(3)).
    """
    limit, process = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if process and process != str(os.getpid()):
        return None
    # Its infinity is 2 ** 64 - 1.
    isLimit = limit.isdecimal() and limit.isascii() and len(limit) <= 15 and int(limit) > 0
    return int(limit) / 1e6 if isLimit else None
