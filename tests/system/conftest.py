# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The fixtures of the tests that start C{twist}.
"""

from ..support.programs import place, run, site

__all__ = ["place", "run", "site"]
