# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{WallClock}: the wall time that an application tells.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, time

from ..core.diagnosis import describeError
from ..logs import SafeLogger, Shortage

_log = SafeLogger()


class WallClock:
    """
    The application's wall time.  While that fails, as a GPS receiver without a fix may, it is the
    system's; otherwise what happens meanwhile would be lost.
    """

    def __init__(self, read: Callable[[], float]) -> None:
        """
        @param read: returns the seconds since 1970.
        """
        self._read = read
        words = "The wall clock failed ({error}): the system's is used"
        self._failed = Shortage(_log, words, monotonic)

    def __call__(self) -> float:
        try:
            return float(self._read())
        except BaseException as error:
            self._failed.met(describeError(error))
            return time()
