# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Evidence}: what the kernel knew of a connection when its link ended.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

SIMULTANEOUS = 0.1
"""Seconds: verdicts that follow each other closer than this belong to one batch."""


class VerdictBatch:
    """
    The links that were found dead in one instant.

    @ivar links: how many.
    """

    # No dataclass, because each makes the import slower.
    links = 0


class VerdictCounter:
    """
    Counts the verdicts of one clock in batches.
    """

    def __init__(self) -> None:
        self._batch = VerdictBatch()
        self._lastAt = -inf

    def count(self, now: float) -> VerdictBatch:
        """
        Return the batch that a verdict of this instant belongs to, with that verdict counted.
        """
        if now - self._lastAt > SIMULTANEOUS:
            self._batch = VerdictBatch()
        self._lastAt = now
        self._batch.links += 1
        return self._batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """
    What the kernel knew when the link ended.  A field is L{None} where the platform does not say.

    Source: C{struct tcp_info}, C{linux/tcp.h}.

    @ivar sinceAck: seconds since the peer's kernel last acknowledged anything.
    @ivar sinceData: seconds since the peer's kernel last delivered data.
    @ivar unacknowledged: bytes in our kernel's queue that the peer's has not acknowledged.
    @ivar unanswered: segments that were sent and not acknowledged.
    @ivar retransmits: times in a row that the oldest of these segments was sent again.
    @ivar window: bytes that the peer's kernel is ready to receive; 0 while its process reads
        nothing.
    @ivar probes: keepalive or zero window probes in a row without an answer.
    @ivar rtt: the kernel's smoothed round-trip time, in seconds.
    @ivar bytesReceived: bytes that the peer's kernel has sent and this one has taken.
    """

    sinceAck: float | None = None
    sinceData: float | None = None
    unacknowledged: int | None = None
    unanswered: int | None = None
    retransmits: int | None = None
    window: int | None = None
    probes: int | None = None
    rtt: float | None = None
    bytesReceived: int | None = None
    _batch: VerdictBatch | None = field(default=None, repr=False, compare=False)

    @property
    def kernelAnswers(self) -> bool:
        """
        Whether the peer's kernel has acknowledged everything that it had room for.  Bytes that wait
        in the send queue then wait because the peer's window is closed.
        """
        answered = self.unanswered == 0 and self.retransmits == 0 and self.probes == 0
        return answered and (not self.unacknowledged or self.window == 0)

    @property
    def simultaneousVerdicts(self) -> int:
        """
        The number of links that the same tick found dead, this link included.  Many mean one fault
        of the network, not many dead peers.
        """
        return 1 if self._batch is None else self._batch.links
