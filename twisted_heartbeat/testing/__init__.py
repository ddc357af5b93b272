# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Faults for tests: a TCP and a UDP proxy that misbehave on request.

Put L{FaultProxy} between the two ends of any Twisted program, connect through it, and break the
connection while the program runs::

    proxy = FaultProxy(reactor, target=("127.0.0.1", serverPort))
    yield proxy.listen()
    service = ClientService(proxy.endpoint(), factory)
    ...
    proxy.inject(BlackHole(), toward="client")
    ...
    proxy.heal()
    yield proxy.close()

Faults are frozen values. Each direction of each connection holds at most one fault of each kind:
injecting a kind again replaces it, and different kinds act together (L{Delay}, L{Bandwidth} and
L{Slice} make a bad mobile line). A connection made while a fault is set gets it too.

Bytes, FIN and RST of one end travel through the proxy in one queue, so none overtakes another. A
fault that holds back bytes also holds back what follows them. Data for an end that is gone is
answered with RST, as the kernel of a restarted host would. If that end had sent FIN, the first data
is lost and only the next is answered, because the proxy's kernel learns of the loss no earlier.

A TCP proxy has limits: it accepts in its own kernel, so a SYN is never lost or slow, and every
byte it reads has been acknowledged to its sender. Faults below TCP need a network namespace.

Pytest finds the fixtures C{faultProxy} and C{datagramFaultProxy}: see
L{twisted_heartbeat.testing.fixtures}.
"""

from .datagramproxy import DatagramFaultProxy
from .faults import (
    AcceptThenClose,
    Bandwidth,
    BlackHole,
    CutAfter,
    DatagramFault,
    Delay,
    Drop,
    Duplicate,
    HangHandshake,
    Hold,
    Reorder,
    Slice,
    StopReading,
    StreamFault,
    Toward,
    Which,
)
from .streamproxy import FaultProxy, ProxiedConnection

__all__ = [
    "AcceptThenClose",
    "Bandwidth",
    "BlackHole",
    "CutAfter",
    "DatagramFault",
    "DatagramFaultProxy",
    "Delay",
    "Drop",
    "Duplicate",
    "FaultProxy",
    "HangHandshake",
    "Hold",
    "ProxiedConnection",
    "Reorder",
    "Slice",
    "StopReading",
    "StreamFault",
    "Toward",
    "Which",
]

# For "pytest -p twisted_heartbeat.testing". By name, so that only pytest imports pytest.
pytest_plugins = ["twisted_heartbeat.testing.fixtures"]
