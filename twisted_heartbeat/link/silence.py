# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Silence}: a silence that has lasted for the whole bound, and what the kernel knew of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.diagnosis import causeOfSilence, isHung
from ..transport.routes import routeErrno
from ..transport.tcpinfo import readEvidence

if TYPE_CHECKING:
    from ..core.causes import Cause
    from ..core.evidence import Evidence
    from .config import LinkConfig
    from .watch import PeerWatch


class Silence:
    """
    The evidence of a silence, read at the verdict.

    Only the kernel's state of the connection changes after the verdict, and is read at once.  The
    route is asked for when the cause is wanted: a thousand peers may be found dead in one tick, and
    each answer takes longer than the verdict.
    """

    __slots__ = ("_connection", "_evidence", "_hung", "_words")

    def __init__(self, watch: PeerWatch, config: LinkConfig, now: float) -> None:
        heartbeat, connection, probes = watch.heartbeat, watch.connection, watch.probes
        assert heartbeat is not None
        lasted = now - watch.detector.heardAt
        self._words = f"nothing received for {lasted:.3f} s, the bound is {heartbeat.bound:g} s"
        if probes is not None and probes.waiting:
            self._words = (
                f"nothing received for {lasted:.3f} s, though a newcomer with its name came"
            )
        self._connection = connection
        self._evidence: Evidence | None = None
        self._hung = False
        if connection is not None and connection.connected:
            batch = config.verdicts.count(now)
            evidence = self._evidence = connection.evidence = readEvidence(connection.socket, batch)
            if evidence is not None:
                acked = connection.bytesSent - (evidence.unacknowledged or 0)
                pingArrived = watch.kind == "ping" and acked >= watch.lastPingEnd
                self._hung = isHung(evidence, lasted, pingArrived=pingArrived)

    def cause(self) -> Cause:
        """
        Return the cause that this silence is.
        """
        connection, number = self._connection, 0
        if connection is not None and connection.connected and self._evidence and not self._hung:
            number = routeErrno(connection.socket)
        return causeOfSilence(number, self._evidence, hung=self._hung, words=self._words)
