# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{RunDelay}: what of a lateness the machine, and not the code, has to answer for.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque

MOMENT = 0.2
"""Seconds: the machine's delays that are closer together than this add up."""


class RunDelay:
    """
    How long this process was ready to run and no processor was free for it: what the machine, and
    not the code, has to answer for.  Source: C{/proc/[pid]/schedstat},
    C{Documentation/scheduler/sched-stats.rst}.
    """

    EVERY = 0.02

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque(maxlen=500)
        self._path = f"/proc/{os.getpid()}/task/{threading.get_native_id()}/schedstat"
        threading.Thread(target=self._watch, daemon=True).start()

    def _read(self) -> float:
        try:
            with open(self._path, encoding="ascii") as file:
                return int(file.read().split()[1]) / 1e9
        except (OSError, IndexError):
            return 0.0

    def _watch(self) -> None:
        never = threading.Event()
        while True:
            self._samples.append((time.monotonic(), self._read()))
            # Not sleep: libfaketime makes an invalid time of what that passes to the kernel.
            never.wait(self.EVERY)

    def worst(self, since: float, until: float) -> float:
        """
        Seconds of such delay in the worst moment of a time that is no more than ten seconds ago.
        """
        # A copy, for the thread goes on.
        samples = [sample for sample in list(self._samples) if since - MOMENT <= sample[0] <= until]
        samples.append((time.monotonic(), self._read()))
        return max(
            (
                later - earlier
                for number, (_, earlier) in enumerate(samples)
                for _, later in samples[number : number + round(MOMENT / self.EVERY) + 1]
            ),
            default=0.0,
        )
