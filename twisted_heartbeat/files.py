# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{readFile}: reads a file that an operator has named, in the reactor's thread.
"""

from __future__ import annotations

import os
from stat import S_ISREG


def readFile(path: str | os.PathLike[str], limit: int) -> bytes:
    """
    Return what a regular file holds.

    A pipe would block the reactor until another process writes to it, and a device may never end.

    @param limit: bytes.
    @raise OSError: if the file cannot be read.
    @raise ValueError: if it is no regular file, or larger than the limit.
    """
    with open(path, "rb", opener=_openAtOnce) as file:
        if not S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError(f"{os.fspath(path)} is no regular file")
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"{os.fspath(path)} is larger than {limit} bytes")
    return data


def _openAtOnce(path: str, flags: int) -> int:
    # Otherwise the opening of a pipe waits for a process that writes to it.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
