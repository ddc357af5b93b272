# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The times and the exit status of the demonstration.
"""

from __future__ import annotations

import sys

from .. import Backoff, PeerHung, PeerSilent

BACKOFF = Backoff(initial=0.5, maximum=0.5, spread=0.5)
BACK_WITHIN = BACKOFF.maximum + 0.5
"""Seconds: the longest wait, and half a second to connect and be answered."""

SETTLE, OUTAGE, WAIT_LIMIT, PEER_LIFETIME, LONGEST_BOUND = 0.8, 3.0, 20.0, 120, 15.0
"""Seconds: before each fault; without a peer; for each wait; the other names are plain."""

BROKEN, USAGE, UNAVAILABLE, BUSY, INTERRUPTED = 1, 64, 69, 75, 130
"""
Exit statuses: of a broken promise; three of sysexits.h, the last of them (EX_TEMPFAIL) to try it
again; and a shell's status for a process ended by SIGINT.
"""

HUNG = PeerHung if sys.platform.startswith("linux") else PeerSilent
"""The true cause while only a kernel answers.  Other systems do not tell that it does."""
