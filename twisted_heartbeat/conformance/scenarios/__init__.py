# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The scenarios, each a coroutine that plays one connection or a few.
"""

from . import closing, liveness, names, reading, violations
from .scenario import ADDED, Scenario

__all__ = ["SCENARIOS", "Scenario"]

SCENARIOS: dict[str, Scenario] = {
    each.name: each
    for module in (reading, liveness, closing, names, violations)
    for each in ADDED
    if each.play.__module__ == module.__name__
}
"""All scenarios by name, in the order in which they are played."""
