# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The result of a run as text, as TAP (Test Anything Protocol, version 13) and as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .play import Finding, Findings
from .rules import RULES, Rule

PAGE = "docs/wire-protocol.md"

PASSED, FAILED, ADVISED, SKIPPED, UNCHECKED = "pass", "FAIL", "advice", "skip", "unchecked"
"""The verdicts on a rule.  C{ADVISED} is a I{should} that is not kept."""

_MOST_FAULTS = 5
"""Faults that are printed for one rule."""


@dataclass(frozen=True)
class Verdict:
    """
    What a run says of one rule.

    @ivar verdict: one of the five words.
    @ivar faults: the checks that failed.
    @ivar reason: why the rule was skipped.
    """

    rule: Rule
    verdict: str
    checks: int
    faults: tuple[Finding, ...]
    reason: str


def verdictsOf(findings: Findings) -> list[Verdict]:
    """
    Return a verdict for each rule.
    """
    return [_verdictOf(rule, findings) for rule in RULES.values()]


def _verdictOf(rule: Rule, findings: Findings) -> Verdict:
    checks = [check for check in findings.checks if check.rule is rule]
    faults = tuple(check for check in checks if not check.holds)
    reason = findings.skipped.get(rule.id, "")
    if faults:
        verdict = FAILED if rule.level == "must" else ADVISED
    elif checks:
        verdict = PASSED
    else:
        verdict = SKIPPED if reason else UNCHECKED
    return Verdict(rule, verdict, len(checks), faults, reason)


def _place(rule: Rule) -> str:
    return f'{PAGE}, "{rule.section}"'


def _faultLines(fault: Finding) -> Iterator[str]:
    when = "" if fault.at is None else f", {fault.at:.3f} s after the connection was established"
    yield f"scenario: {fault.scenario}{when}"
    yield f"expected: {fault.expected}"
    yield f"came:     {fault.came}"


def _summary(findings: Findings, verdicts: list[Verdict]) -> str:
    counts = {
        word: sum(each.verdict == word for each in verdicts)
        for word in (PASSED, FAILED, ADVISED, SKIPPED, UNCHECKED)
    }
    words = f"{counts[PASSED]} rules kept, {counts[FAILED]} broken"
    words += f", {counts[ADVISED]} not kept that should be, {counts[SKIPPED]} skipped"
    words += f", {counts[UNCHECKED]} not checked"
    unplayed = len(findings.unplayed)
    return words + (f"; {unplayed} scenarios not played" if unplayed else "")


def asText(findings: Findings) -> str:
    """
    Return one line for each rule that was checked or skipped, the faults with what is needed to
    find them, and the names of the other rules.
    """
    verdicts = verdictsOf(findings)
    lines = []
    for each in verdicts:
        if each.verdict == UNCHECKED:
            continue
        note = f" ({each.reason})" if each.verdict == SKIPPED else ""
        lines.append(f"{each.verdict:6}  {each.rule.id:22}  {each.rule.sentence}{note}")
        if each.faults:
            lines.append(f"        {_place(each.rule)}")
        for fault in each.faults[:_MOST_FAULTS]:
            lines += [f"        {line}" for line in _faultLines(fault)]
        if len(each.faults) > _MOST_FAULTS:
            lines.append(f"        and {len(each.faults) - _MOST_FAULTS} times more")
    lines += [f"doubtful: {each}" for each in findings.doubtful]
    lines += [f"not played: {each}" for each in findings.unplayed]
    unchecked = ", ".join(each.rule.id for each in verdicts if each.verdict == UNCHECKED)
    if unchecked:
        lines.append(f"not checked, because nothing that was played shows it: {unchecked}")
    return "\n".join([*lines, _summary(findings, verdicts)]) + "\n"


def asTap(findings: Findings) -> str:
    """
    Return the same for programs that read TAP.  A I{should} that is not kept is C{not ok} with the
    directive C{TODO}, which no harness takes for a failure.
    """
    verdicts = verdictsOf(findings)
    checked = [each for each in verdicts if each.verdict != UNCHECKED]
    lines = ["TAP version 13", f"1..{len(checked)}"]
    for number, each in enumerate(checked, 1):
        result = "not ok" if each.verdict in (FAILED, ADVISED) else "ok"
        directive = {SKIPPED: f" # SKIP {each.reason}", ADVISED: " # TODO a should"}
        words = f"{each.rule.id}: {each.rule.sentence}"
        lines.append(f"{result} {number} - {words}{directive.get(each.verdict, '')}")
        for fault in each.faults[:_MOST_FAULTS]:
            lines += ["# " + line for line in (_place(each.rule), *_faultLines(fault))]
    lines += [f"# doubtful: {each}" for each in findings.doubtful]
    lines += [f"# not played: {each}" for each in findings.unplayed]
    return "\n".join([*lines, f"# {_summary(findings, verdicts)}"]) + "\n"


def asJson(findings: Findings) -> str:
    """
    Return the same as one object.
    """
    rules = [
        {
            "rule": each.rule.id,
            "verdict": each.verdict,
            "level": each.rule.level,
            "sentence": each.rule.sentence,
            "section": each.rule.section,
            "checks": each.checks,
            "reason": each.reason,
            "faults": [
                {
                    "scenario": fault.scenario,
                    "expected": fault.expected,
                    "came": fault.came,
                    "at": fault.at,
                }
                for fault in each.faults
            ],
        }
        for each in verdictsOf(findings)
    ]
    report = {"rules": rules, "doubtful": findings.doubtful, "unplayed": findings.unplayed}
    return json.dumps(report, indent=1) + "\n"


FORMATS: dict[str, Callable[[Findings], str]] = {"text": asText, "tap": asTap, "json": asJson}
