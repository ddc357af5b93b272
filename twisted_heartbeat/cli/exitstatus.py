# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The exit status of C{twist heartbeat}: a process that gives up exits with an error.
"""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress

# Exit statuses, sysexits(3).  The os module does not have them on Windows.
EX_USAGE = 64
EX_UNAVAILABLE = 69
EX_OSERR = 71


def exitWith(status: int) -> None:
    """
    Exit with this status once the runner has finished.

    Both runners return after the reactor has stopped, which is status 0.  The reactor logs a
    C{SystemExit} that is raised inside of it, and twistd swallows one that leaves the reactor.
    After the runner (log closed, pid file removed) only the interpreter's exit functions run.
    """
    atexit.register(_leave, status)


def _leave(status: int) -> None:
    # Only os._exit can set the status from here.  It skips the other exit functions and the
    # flushing of the streams, so both are done first.
    atexit.unregister(_leave)
    atexit._run_exitfuncs()
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None:
            with suppress(OSError, ValueError):
                stream.flush()
    os._exit(status)
