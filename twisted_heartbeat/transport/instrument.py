# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{instrument}: make the connection under a transport remember what it sees.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from twisted.internet import tcp
from twisted.protocols.tls import TLSMemoryBIOProtocol

from ..core.detector import FailureDetector
from ..logs import SafeLogger
from .connection import ObservedConnection, ObservedUnixConnection
from .fanout import DetectorFanout, ObserverFanout
from .layers import findConnection

if TYPE_CHECKING:
    from .connection import ConnectionObserver

_log = SafeLogger()


_PRESET_FIELDS = ("bytesSent", "batch", "writeTracked", "dataBuffer", "offset")
"""What every connection comes to have once it has written."""

_instrumentedClasses: dict[type[tcp.Connection], type[tcp.Connection]] = {}


def _instrumentedClass(kind: type[tcp.Connection]) -> type[tcp.Connection]:
    if kind not in _instrumentedClasses:
        # A UNIX socket receives in another way, and has no error that this could save.
        base = (
            ObservedConnection if kind.doRead is tcp.Connection.doRead else ObservedUnixConnection
        )
        _instrumentedClasses[kind] = type(
            kind.__name__, (base, kind), {"__module__": kind.__module__}
        )
    return _instrumentedClasses[kind]


def _assignClass(connection: tcp.Connection, kind: type[tcp.Connection]) -> bool:
    """
    Make a connection an instance of a subclass of its class.

    @return: whether it is one now.  Not if its class has another layout, of C{__slots__}; then it
        is watched as a transport that is no socket.
    """
    try:
        object.__setattr__(connection, "__class__", kind)
    except TypeError as error:
        _log.warn("{one} does not tell of its bytes: {error}", one=connection, error=error)
        return False
    return True


def _instrumentPort(
    connection: tcp.Connection, before: type[tcp.Connection], kind: type[tcp.Connection]
) -> None:
    """
    Have the port that accepted a connection make the next ones such from the start.  A class that
    is assigned has Python give each a dictionary in place of plain fields, which makes every look
    at a field slower, and each connection larger.
    """
    port = getattr(connection, "server", None)
    if isinstance(port, tcp.Port) and port.transport is before:
        port.transport = cast(Any, kind)


def instrument(
    transport: object,
    liveness: FailureDetector,
    seconds: Callable[[], float],
    sender: ConnectionObserver,
) -> ObservedConnection | None:
    """
    Have the connection under a transport remember what it sees.

    @param liveness: whose C{heardAt} is assigned for each chunk.
    @param sender: is told beside whoever is already, as the link of a tunnel below this one.
    @return: L{None} if there is no TCP connection of Twisted's under it.  A UNIX socket tells the
        sender what L{ObservedUnixConnection} says, if it tells no other.
    """
    connection = findConnection(transport)
    if connection is None:
        return None
    if not isinstance(connection, ObservedConnection | ObservedUnixConnection):
        before = type(connection)
        kind = _instrumentedClass(before)
        if not _assignClass(connection, kind):
            return None
        _instrumentPort(connection, before, kind)
    if isinstance(connection, ObservedUnixConnection):
        connection.observer = connection.observer or sender
        return None
    assert isinstance(connection, ObservedConnection)
    below = connection.observer
    if below is not None:
        below.activity()
    connection.detector = cast(
        FailureDetector,
        liveness if below is None else DetectorFanout(connection.detector, liveness),
    )
    connection.observer = sender if below is None else ObserverFanout(connection, below, sender)
    connection.seconds = seconds
    # Python lays the fields of a class out by its first instances: a name that comes later costs
    # each of them a dictionary of its own, more than twice as large.
    for name in _PRESET_FIELDS:
        setattr(connection, name, getattr(connection, name))
    if connection.writeIsUnpatched:
        # This one comes and goes, see withDirectWrites.
        connection.write = connection.write  # type: ignore[method-assign]
        del connection.write
    return connection


def removeObserver(
    connection: ObservedConnection | ObservedUnixConnection, sender: ConnectionObserver
) -> None:
    """
    Remove a sender from those that a connection tells, and keep the others.
    """
    told = connection.observer
    if isinstance(told, ObserverFanout):
        connection.observer = told.without(sender)
    elif told is sender:
        connection.observer = None


def findObserved(transport: object) -> ObservedConnection | ObservedUnixConnection | None:
    """
    The connection that tells a link of each call before it makes it: the transport itself, or what
    is right below its TLS.  What other layers tell a protocol, and when, is not known.
    """
    if isinstance(transport, TLSMemoryBIOProtocol):
        transport = getattr(transport, "transport", None)
    return transport if isinstance(transport, ObservedConnection | ObservedUnixConnection) else None
