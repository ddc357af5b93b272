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
    from ..core.evidence import Evidence, VerdictCounter
    from ..transport.connection import ObservedConnection


class Silence:
    """
    The evidence of a silence, read at the verdict.

    Only the kernel's state of the connection changes after the verdict, and is read at once.  The
    route is asked for when the cause is wanted: a thousand peers may be found dead in one tick, and
    each answer takes longer than the verdict.
    """

    __slots__ = ("_connection", "_evidence", "_hung", "_words")

    def __init__(
        self,
        connection: ObservedConnection | None,
        verdicts: VerdictCounter,
        now: float,
        heardAt: float,
        pingEnd: int | None,
        words: str,
    ) -> None:
        """
        @param pingEnd: the number of bytes sent up to the end of the last ping; L{None} where the
            peer is not pinged.
        @param words: what the silence has passed.
        """
        self._connection = connection
        self._words = f"nothing received for {now - heardAt:.3f} s, {words}"
        self._evidence: Evidence | None = None
        self._hung = False
        if connection is not None and connection.connected:
            batch = verdicts.count(now)
            evidence = self._evidence = connection.evidence = readEvidence(connection.socket, batch)
            if evidence is not None:
                acked = connection.bytesSent - (evidence.unacknowledged or 0)
                arrived = pingEnd is not None and acked >= pingEnd
                self._hung = isHung(evidence, now - heardAt, pingArrived=arrived)

    def cause(self) -> Cause:
        """
        Return the cause that this silence is.
        """
        connection, number = self._connection, 0
        if connection is not None and connection.connected and self._evidence and not self._hung:
            number = routeErrno(connection.socket)
        return causeOfSilence(number, self._evidence, hung=self._hung, words=self._words)
