# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{diagnosisOf}: what the kernel knows of a silence that has lasted for the whole bound.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from ..core.causes import PeerSilent
from ..core.diagnosis import causeOfSilence
from ..transport.routes import routeErrno
from ..transport.tcpinfo import readEvidence

if TYPE_CHECKING:
    from ..core.causes import Cause
    from .config import LinkConfig
    from .watch import PeerWatch


def diagnosisOf(watch: PeerWatch, config: LinkConfig, now: float) -> Callable[[], Cause]:
    """
    Read the evidence of a silence that has lasted for the whole bound.

    Only the kernel's state of the connection changes after the verdict, and is read at once.  The
    route is asked for when the cause is wanted: a thousand peers may be found dead in one tick, and
    each answer takes longer than the verdict.

    @return: a function that returns the cause of the silence.
    """
    heartbeat, connection, probes = watch.heartbeat, watch.connection, watch.probes
    assert heartbeat is not None
    lasted = now - watch.detector.heardAt
    words = f"nothing received for {lasted:.3f} s, the bound is {heartbeat.bound:g} s"
    if probes is not None and probes.waiting:
        words = f"nothing received for {lasted:.3f} s, though a newcomer with its name came"
    evidence = None
    if connection is not None and connection.connected:
        batch = config.verdicts.count(now)
        evidence = connection.evidence = readEvidence(connection.socket, batch)
    if connection is None or evidence is None:
        return partial(PeerSilent, words)
    acked = connection.bytesSent - (evidence.unacknowledged or 0)
    return partial(
        causeOfSilence,
        evidence,
        lasted,
        words,
        pingArrived=watch.kind == "ping" and acked >= watch.lastPingEnd,
        askRoute=partial(routeErrno, connection.socket),
    )
