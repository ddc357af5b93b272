# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The exit status of C{twist heartbeat}: giving up is no success.
"""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from ..link.hooks import LinkHooks

if TYPE_CHECKING:
    from ..core.causes import Cause
    from .service import Watch


# Exit statuses, sysexits(3); the os module does not have them on Windows.
EX_UNAVAILABLE = 69
EX_OSERR = 71


class _GiveUp(LinkHooks):
    """
    Tells the watch.
    """

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def gaveUp(self, cause: Cause) -> None:
        self._watch.oneGaveUp()


def exitWith(status: int) -> None:
    """
    Have the process exit with this status once the runner is done.

    Both runners return after the reactor has stopped, which is status 0; a C{SystemExit} that is
    raised inside of the reactor ends in the log, and one that leaves the reactor is swallowed by
    twistd.  After the runner (log closed, pid file removed) there is only the interpreter's exit.
    """
    atexit.register(_leave, status)


def _leave(status: int) -> None:
    # os._exit is the only way to a status from here, so what it would skip is done before.
    atexit.unregister(_leave)
    atexit._run_exitfuncs()
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None:
            with suppress(OSError, ValueError):
                stream.flush()
    os._exit(status)
