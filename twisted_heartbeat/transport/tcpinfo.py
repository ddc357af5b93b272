# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The kernel's state of a connection: C{TCP_INFO} and the send queue.
"""

from __future__ import annotations

import socket
import struct
import sys
from typing import Any

from ..core.evidence import Evidence, VerdictBatch


def hasUnreadBytes(connection: Any) -> bool:
    """
    Find out whether received bytes wait to be read.  The peer's FIN does not count.
    """
    try:
        return bool(connection.socket.recv(1, socket.MSG_PEEK))
    except OSError:
        return False


def hasEnded(connection: Any) -> bool:
    """
    Find out whether nothing more can be received, because the peer's FIN has come.
    """
    try:
        return not connection.socket.recv(1, socket.MSG_PEEK)
    except OSError:
        return False


_TCP_INFO = getattr(socket, "TCP_INFO", None) if sys.platform.startswith("linux") else None

# struct tcp_info of Linux 2.6; later kernels only append to it.  Eight bytes, of which the third
# counts retransmits and the fourth probes, then 32-bit numbers.
_INFO = struct.Struct("=8B24I")
# Linux 5.4 added the peer's window at this offset.
_WINDOW = struct.Struct("=I")
_WINDOW_AT = 228
# Linux 4.1 added the count of received bytes, 64 bits, at this one.
_RECEIVED = struct.Struct("=Q")
_RECEIVED_AT = 128
_RECEIVED_END = _RECEIVED_AT + _RECEIVED.size
_RETRANSMITS, _PROBES = 2, 3
_UNACKED = 8 + 4
_SINCE_DATA = 8 + 11
_SINCE_ACK = 8 + 12
_RTT = 8 + 15

try:
    from fcntl import ioctl
    from termios import TIOCOUTQ
except ImportError:  # Windows has neither.

    def sendQueueSize(connection: socket.socket) -> int | None:
        """
        Return L{None}, because this system does not report its send queue.
        """
        return None

else:

    def sendQueueSize(connection: socket.socket) -> int | None:
        """
        Return the number of bytes in the kernel's send queue, tcp(7): SIOCOUTQ.
        """
        try:
            # A bytearray, because ioctl with an immutable buffer takes twice as long.
            number = bytearray(4)
            ioctl(connection, TIOCOUTQ, number)
            return int.from_bytes(number, sys.byteorder)
        except OSError:
            return None


def pendingErrno(connection: socket.socket) -> int:
    """
    Return the C{errno} that the next call on a socket would raise; 0 if there is none, or the
    socket is closed.
    """
    try:
        return connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    except OSError:
        return 0


def bytesReceived(connection: socket.socket) -> int | None:
    """
    Return the number of bytes that this end has received; L{None} on systems that do not count.
    """
    if _TCP_INFO is None:
        return None
    try:
        raw = connection.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _RECEIVED_END)
    except OSError:
        return None
    return _RECEIVED.unpack_from(raw, _RECEIVED_AT)[0] if len(raw) >= _RECEIVED_END else None


def readEvidence(connection: socket.socket, batch: VerdictBatch | None = None) -> Evidence | None:
    """
    Read the kernel's current state of a connection.

    @param batch: the verdicts that this is evidence for; L{None} if it is for none, or for one.
    @return: L{None} on systems that do not report it.
    """
    if _TCP_INFO is None:
        return None
    try:
        # As much of struct tcp_info as this kernel fills.
        raw = connection.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _WINDOW_AT + _WINDOW.size)
    except OSError:
        return None
    if len(raw) < _INFO.size:
        return None
    info = _INFO.unpack_from(raw)
    received = _RECEIVED.unpack_from(raw, _RECEIVED_AT)[0] if len(raw) >= _RECEIVED_END else None
    hasWindow = len(raw) >= _WINDOW_AT + _WINDOW.size
    return Evidence(
        sinceAck=info[_SINCE_ACK] / 1e3,
        sinceData=info[_SINCE_DATA] / 1e3,
        unacknowledged=sendQueueSize(connection),
        unanswered=info[_UNACKED],
        retransmits=info[_RETRANSMITS],
        window=_WINDOW.unpack_from(raw, _WINDOW_AT)[0] if hasWindow else None,
        probes=info[_PROBES],
        rtt=info[_RTT] / 1e6,
        bytesReceived=received,
        _batch=batch,
    )
