# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
TCP keepalive, set by the operating system's own options on a real socket.

Each system names these options differently and lacks some of them.  L{applyKeepAlive} sets the
existing ones, reads them back, and names the missing ones.  The C{keepalive} page of the manual
lists the faults that keepalive alone cannot detect.

Sources:
  - Linux: C{tcp(7)} and C{socket(7)}; C{TCP_USER_TIMEOUT} is in milliseconds, all else in seconds.
    It refuses an idle or interval over 32767 s and a count over 127 (C{MAX_TCP_KEEPIDLE} and others
    in the kernel's C{include/net/tcp.h}).
  - macOS: C{bsd/netinet/tcp.h} of Apple's xnu for the numbers, C{tcp_ctloutput} in
    C{bsd/netinet/tcp_usrreq.c} for the unit, which is seconds for all of them.
  - Windows: Microsoft's U{IPPROTO_TCP socket options
    <https://learn.microsoft.com/windows/win32/winsock/ipproto-tcp-socket-options>}, in seconds:
    C{TCP_KEEPIDLE} and C{TCP_KEEPINTVL} from Windows 10 1709, C{TCP_KEEPCNT} from 1703; and
    U{SIO_KEEPALIVE_VALS
    <https://learn.microsoft.com/windows/win32/winsock/sio-keepalive-vals>}, in milliseconds, with
    always 10 probes.  Python removes the names that the running Windows does not know
    (C{win_runtime_flags} in its C{Modules/socketmodule.c}).
"""

from __future__ import annotations

import math
import socket
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from ..logs import SafeLogger
from .layers import MAX_WRAPPERS

if TYPE_CHECKING:
    from ..core.settings import KeepAlive

_log = SafeLogger()


_MAX_INT: Final = 0x7FFFFFFF
"""C{setsockopt} takes a C int.  A larger number is reduced to this, and L{Applied} shows it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Applied:
    """
    The keepalive of one link as its kernel holds it, read back after it was set.

    @ivar enabled: whether C{SO_KEEPALIVE} is on.
    @ivar idle: seconds without a segment from the peer before the first probe; L{None} if unknown.
    @ivar interval: seconds between probes; L{None} if unknown.
    @ivar count: unanswered probes before the connection is given up; L{None} if unknown.
    @ivar userTimeout: seconds that sent data may stay unacknowledged; L{None} where the
        system's own rule holds.
    @ivar missing: one sentence for each setting that could not be applied.
    """

    enabled: bool = False
    idle: int | None = None
    interval: int | None = None
    count: int | None = None
    userTimeout: float | None = None
    missing: tuple[str, ...] = ()


class Option(NamedTuple):
    """
    The name and unit of one field of L{KeepAlive} on one system.

    @ivar field: the field's name.
    @ivar name: the option's name in the C{socket} module.
    @ivar number: its number, where Python lacks the name; L{None} if there is no such option.
    @ivar scale: how many of the kernel's units make one of the field's.
    @ivar otherwise: what holds where there is no such option.
    """

    field: str
    name: str
    number: int | None = None
    scale: int = 1
    otherwise: str = "the system's own value holds"

    def toKernel(self, value: float) -> int:
        """
        Round up to the kernel's unit: no time becomes shorter than asked, nor 0, the "default".
        """
        # The inner rounding takes away what floats add: 16.1 * 1000 is a little over 16100.
        return math.ceil(min(round(value * self.scale, 6), _MAX_INT)) or 1

    def fromKernel(self, value: int) -> float | None:
        """
        Turn what the kernel holds into the field's unit; 0 is the kernel's word for "default".
        """
        return (value if self.scale == 1 else value / self.scale) or None


_BY_NAME: Final = (
    Option("idle", "TCP_KEEPIDLE"),
    Option("interval", "TCP_KEEPINTVL"),
    Option("count", "TCP_KEEPCNT"),
    Option("userTimeout", "TCP_USER_TIMEOUT", scale=1000),
)

_SPELLINGS: Final = {
    "darwin": (
        Option("idle", "TCP_KEEPALIVE", 0x10),
        Option("interval", "TCP_KEEPINTVL", 0x101),
        Option("count", "TCP_KEEPCNT", 0x102),
        Option("userTimeout", "TCP_RXT_CONNDROPTIME", 0x80),
    ),
    "win32": (
        Option("idle", "TCP_KEEPIDLE"),
        Option("interval", "TCP_KEEPINTVL"),
        Option("count", "TCP_KEEPCNT", otherwise="this Windows always sends 10 probes"),
        Option("userTimeout", "TCP_USER_TIMEOUT", scale=1000),
    ),
}


@dataclass(frozen=True, slots=True)
class Platform:
    """
    The keepalive options of one operating system.

    @ivar name: the system, as C{sys.platform} names it.
    @ivar options: the options to set, one by one.
    @ivar ioctl: C{SIO_KEEPALIVE_VALS}, on a Windows version without options for idle and interval.
    """

    name: str
    options: tuple[Option, ...]
    ioctl: int | None = None

    @classmethod
    def of(cls, names: object, name: str) -> Platform:
        """
        Look up the options.

        @param names: the C{socket} module, or a stand-in for it.
        @param name: the system, as C{sys.platform} names it.
        """
        # Each list starts with idle and interval, the two fields that the ioctl sets.
        options = tuple(
            option._replace(number=getattr(names, option.name, option.number))
            for option in _SPELLINGS.get(name, _BY_NAME)
        )
        ioctl = getattr(names, "SIO_KEEPALIVE_VALS", None)
        separate = all(option.number is not None for option in options[:2])
        if ioctl is None or separate:
            return cls(name, options)
        return cls(name, options[2:], ioctl)


HERE: Final = Platform.of(socket, sys.platform)


def realSocket(transport: object) -> socket.socket | None:
    """
    Find the open socket under a transport: a TCP or UNIX transport of Twisted's, before or after
    C{startTLS}, TLS over one, or any wrapper that has the layer below as C{transport}.

    @return: the socket; L{None} if there is none, it is closed, or it is under more than 16
        wrappers.
    """
    layer: object = transport
    for _ in range(MAX_WRAPPERS + 1):
        # Not getHandle(): over TLS, and on a TCP transport after startTLS, it is an OpenSSL object.
        found = getattr(layer, "socket", None)
        if isinstance(found, socket.socket):
            return found if found.fileno() != -1 else None
        layer = getattr(layer, "transport", None)
    return None


def applyKeepAlive(transport: object, keepAlive: KeepAlive, platform: Platform = HERE) -> Applied:
    """
    Switch keepalive on for a transport's connection, and report the result.

    On a UNIX socket, or without a socket, this does nothing, and the result says so.  If the system
    lacks or refuses one setting, the others are still set.  The missing one is named in
    L{Applied.missing}, and logged once in a process.

    @param transport: any transport; see L{realSocket}.
    @param keepAlive: the settings to apply.
    @param platform: the system's options, for tests.
    @return: the settings that the kernel holds afterwards.
    """
    sock = realSocket(transport)
    if sock is None:
        return Applied(missing=("Keepalive is not set: this transport has no open socket.",))
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_STREAM:
        return Applied(missing=("Keepalive is not set: only a TCP socket has it.",))
    applied = _apply(sock, keepAlive, platform)
    _warnOnce(applied.missing)
    return applied


def _apply(sock: socket.socket, keepAlive: KeepAlive, platform: Platform) -> Applied:
    missing: list[str] = []
    held: dict[str, Any] = {}
    enabled = _enable(sock, missing)
    if platform.ioctl is not None:
        held.update(_setTimesTogether(sock, keepAlive, platform.ioctl, missing))
    for option in platform.options:
        asked = getattr(keepAlive, option.field)
        if option.number is not None:
            held[option.field] = _setOption(sock, option, option.number, asked, missing)
        elif asked is not None:
            missing.append(
                f"There is no {option.name} on {platform.name}, so {option.field}={asked} "
                f"is not set: {option.otherwise}."
            )
    return _shared(Applied(enabled=enabled, missing=tuple(missing), **held))


@lru_cache(maxsize=64)
def _shared(applied: Applied) -> Applied:
    """
    Return one object for all links with equal results, to save memory.
    """
    return applied


def _enable(sock: socket.socket, missing: list[str]) -> bool:
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
    except OSError as error:
        missing.append(f"The kernel refused SO_KEEPALIVE, so keepalive is off: {error}.")
        return False


def _setOption(
    sock: socket.socket, option: Option, number: int, asked: float | None, missing: list[str]
) -> float | None:
    try:
        if asked is not None:
            sock.setsockopt(socket.IPPROTO_TCP, number, option.toKernel(asked))
    except OSError as error:
        missing.append(f"The kernel refused {option.name} for {option.field}={asked}: {error}.")
        asked = None
    try:
        held = sock.getsockopt(socket.IPPROTO_TCP, number)
    except OSError as error:
        missing.append(f"The kernel does not tell its {option.name} for {option.field}: {error}.")
        return None
    if asked is not None and held != option.toKernel(asked):
        missing.append(f"The kernel took {option.fromKernel(held)} for {option.field}={asked}.")
    return option.fromKernel(held)


def _setTimesTogether(
    sock: socket.socket, keepAlive: KeepAlive, ioctl: int, missing: list[str]
) -> dict[str, int]:
    most = _MAX_INT // 1000
    idle, interval = int(min(keepAlive.idle, most)), int(min(keepAlive.interval, most))
    try:
        # Only Windows has socket.ioctl(), so type checkers elsewhere do not know it.
        cast(Any, sock).ioctl(ioctl, (1, idle * 1000, interval * 1000))
    except OSError as error:
        missing.append(
            f"The kernel refused SIO_KEEPALIVE_VALS for idle={idle}, interval={interval}: {error}."
        )
        return {}
    missing.append("This Windows can not read idle and interval back: they are what it accepted.")
    return {"idle": idle, "interval": interval}


_warned: set[str] = set()


def _warnOnce(reasons: Iterable[str]) -> None:
    for reason in reasons:
        # A reason holds only settings and errno, no data of a peer, so this set stays small.
        if reason not in _warned:
            _warned.add(reason)
            _log.warn("Keepalive is not all that was asked for. {reason}", reason=reason)
