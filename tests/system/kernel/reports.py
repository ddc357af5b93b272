# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What a process of the kernel suite says to the test: one JSON object in a line, each with its time.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any


def report(event: str, **fields: Any) -> None:
    """
    Say that something has happened now.  Nothing is kept back, so that a process that is killed
    has said all that it did.

    @param fields: what there is to say; C{at} in place of now.
    """
    line = json.dumps({"event": event, "at": time.monotonic(), **fields})
    os.write(sys.stdout.fileno(), line.encode() + b"\n")


def obey(obeyed: Callable[[dict[str, Any]], None], ended: Callable[[], None]) -> None:
    """
    Read the test's orders in a thread of their own, one JSON object in a line.

    @param obeyed: called in that thread for each order.
    @param ended: called in that thread when the test has gone.
    """

    def read() -> None:
        for line in sys.stdin:
            obeyed(json.loads(line))
        ended()

    threading.Thread(target=read, daemon=True).start()
