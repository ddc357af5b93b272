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

USAGE, UNAVAILABLE, INTERRUPTED = 64, 69, 130
"""Exit statuses: two of sysexits.h, and a shell's status for a process ended by SIGINT."""

HUNG = PeerHung if sys.platform.startswith("linux") else PeerSilent
"""The true cause while only a kernel answers.  Other systems do not tell that it does."""
