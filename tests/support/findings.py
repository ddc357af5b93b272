# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What the conformance tester has found, in words for a test that fails.
"""

from __future__ import annotations

from twisted_heartbeat.conformance.play import Findings


def faultsOf(findings: Findings) -> list[str]:
    """
    The checks that failed: the rule, the scenario and what came.
    """
    return [f"{c.rule.id}: {c.scenario}: {c.came}" for c in findings.checks if not c.holds]
