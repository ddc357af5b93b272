# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{instrument}: turn the connection under a transport into an L{ObservedConnection}.

Problem: a link has to see each C{recv}, C{send} and close of a connection that Twisted made, and
that other protocols, wrappers and ports already hold references to.  A wrapper would come too late,
and cost a call for each chunk.

Four mechanisms change such an object in place.  They are explained here, for the whole package.

Class swap.  The connection's C{__class__} becomes a subclass made of L{ObservedConnection} and its
own class, one for each class of connections.  So all references stay valid, and C{isinstance} and
interfaces hold.  Chunks cost only the lines added in the subclass.  A class with C{__slots__} of
another layout refuses; its connection is watched as a transport without a socket.

Ports.  CPython gives an object whose class was assigned a dictionary in place of plain fields, so
that each look at a field is slower, and the object larger.  Therefore the port that accepted the
connection is told to make the next ones of the subclass.  For the same reason L{_PRESET_FIELDS} are
set at once: CPython lays out the fields of a class by its first instances.

Stacked links.  A tunnel has a link of its own below the link of the protocol that it carries.  Both
watch one connection.  An L{ObserverFanout} and a L{DetectorFanout} then take the place of the
observer and the detector, and pass every report on, also to three links or more.

Overrides on an instance.  Where one method of one object is to change for a time, an attribute of
the instance covers the method of the class, and its removal restores it.  This needs no class, and
leaves what an application has put there itself:

  - C{write} during a custom ping (L{ObservedConnection.withDirectWrites});
  - C{handshakeCompleted} of a wrapper (L{twisted_heartbeat.transport.tls.forwardHandshake});
  - the close of a socket (L{twisted_heartbeat.transport.compat.holdSocketOpen});
  - the C{protocol} of a socket that is being lost
    (L{twisted_heartbeat.transport.compat.replaceProtocol});
  - C{dataReceived} and others of protocols (L{twisted_heartbeat.protocol.overrides}).

Invariants:

  1. A method that the application has put on the instance is neither called in another's place nor
     removed.
  2. An override removes itself at the latest with the connection; otherwise the object and the
     function refer to each other, and only the garbage collector frees them.
  3. A connection is instrumented once; a second link is added to its observers.

Cost: no call for each chunk or write (C{tests/costs/test_costs.py}), and no memory but the fields.
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
"""The fields that every connection has once it has written."""

_instrumentedClasses: dict[type[tcp.Connection], type[tcp.Connection]] = {}


def _instrumentedClass(kind: type[tcp.Connection]) -> type[tcp.Connection]:
    if kind not in _instrumentedClasses:
        # A UNIX socket has a doRead of its own, because it also receives descriptors.
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

    @return: whether it is one now; L{False} if C{__slots__} give its class another layout.
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
    Make the port that accepted a connection create the next ones as instances of the subclass.
    """
    port = getattr(connection, "server", None)
    if isinstance(port, tcp.Port) and port.transport is before:
        port.transport = cast(Any, kind)


def instrument(
    transport: object,
    detector: FailureDetector,
    seconds: Callable[[], float],
    observer: ConnectionObserver,
) -> ObservedConnection | None:
    """
    Make the connection under a transport report to a detector and an observer.

    @param detector: its C{heardAt} is assigned for each chunk.
    @param seconds: the clock for C{heardAt}, in seconds.
    @param observer: is added to the connection's observers, such as the link of a tunnel below.
    @return: L{None} if there is no TCP connection of Twisted's under the transport.  A UNIX socket
        reports as L{ObservedUnixConnection} says, and to its first observer only.
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
        connection.observer = connection.observer or observer
        return None
    assert isinstance(connection, ObservedConnection)
    below = connection.observer
    if below is not None:
        below.activity()
    connection.detector = cast(
        FailureDetector,
        detector if below is None else DetectorFanout(connection.detector, detector),
    )
    connection.observer = observer if below is None else ObserverFanout(connection, below, observer)
    connection.seconds = seconds
    # A field that is set first later on would cost each connection a dictionary of its own, more
    # than twice as large.
    for name in _PRESET_FIELDS:
        setattr(connection, name, getattr(connection, name))
    if connection.writeIsUnpatched:
        # withDirectWrites sets and deletes this one, so it belongs to the layout as well.
        connection.write = connection.write  # type: ignore[method-assign]
        del connection.write
    return connection


def removeObserver(
    connection: ObservedConnection | ObservedUnixConnection, observer: ConnectionObserver
) -> None:
    """
    Remove an observer from a connection, and keep the others.
    """
    current = connection.observer
    if isinstance(current, ObserverFanout):
        connection.observer = current.without(observer)
    elif current is observer:
        connection.observer = None


def findObserved(transport: object) -> ObservedConnection | ObservedUnixConnection | None:
    """
    Return the connection that reports each call to a link before it makes the call: the transport
    itself, or the one right below its TLS.  Other layers may call a protocol at other times.
    """
    if isinstance(transport, TLSMemoryBIOProtocol):
        transport = getattr(transport, "transport", None)
    return transport if isinstance(transport, ObservedConnection | ObservedUnixConnection) else None
