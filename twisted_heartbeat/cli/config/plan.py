# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{diff}: what has to be done so that one configuration becomes another.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from ...core.checkins import Check
from .faults import keyName
from .values import HTTP, Config, Part, Presence


@dataclass(frozen=True)
class Change:
    """
    A part that stays, with other settings.

    @ivar old: the part as it runs.
    @ivar new: the part as it is to be.
    @ivar fields: the names of the settings that differ.
    """

    old: Part
    new: Part
    fields: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """
    What has to be done.  The parts of the old configuration are C{keep}, C{change} and C{stop};
    those of the new one are C{keep}, C{change} and C{start}.

    @ivar keep: nothing differs.  The part is the new one, which knows its place in the new file.
    @ivar presence: how presence is to be combined from now on; L{None} if that stays.
    @ivar presenceFields: the names of its settings that differ.
    @ivar checks: what has to check in from now on; L{None} if that stays, or if no endpoint
        receives check-ins before and after.
    @ivar restart: the keys of the settings that differ, and need a restart.
    """

    keep: tuple[Part, ...] = ()
    change: tuple[Change, ...] = ()
    start: tuple[Part, ...] = ()
    stop: tuple[Part, ...] = ()
    presence: Presence | None = None
    presenceFields: tuple[str, ...] = ()
    checks: tuple[tuple[str, Check], ...] | None = None
    restart: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """
        The plan in a few words, for the log.
        """
        others = (self.presence, self.checks)
        counts = {
            "kept": len(self.keep),
            "changed": len(self.change) + sum(one is not None for one in others),
            "started": len(self.start),
            "stopped": len(self.stop),
        }
        return ", ".join(f"{number} {word}" for word, number in counts.items() if number)


def diff(old: Config, new: Config) -> Plan:
    """
    Compare two configurations, part by part.
    """
    before = {part.key: part for part in old.parts}
    after = {part.key: part for part in new.parts}
    both = [(before[key], part) for key, part in after.items() if key in before]
    differing = [(old, new, _differing(old, new)) for old, new in both]
    changes = [_change(old, new, fields) for old, new, fields in differing]
    fixed = [
        f"{new.key[0]}.{keyName(name)}"
        for _, new, fields in differing
        for name in fields
        if name in new.NEEDS_RESTART
    ]
    receives = any(isinstance(part, HTTP) for part in new.parts)
    checks = new.checks if old.checks is not None and new.checks is not None and receives else None
    ofChecks = () if checks is None else _differing(old.checks, checks)
    ofPresence = _differing(old.presence, new.presence)
    return Plan(
        keep=tuple(change.new for change in changes if not change.fields),
        change=tuple(change for change in changes if change.fields),
        start=tuple(part for key, part in after.items() if key not in before),
        stop=tuple(part for key, part in before.items() if key not in after),
        presence=new.presence if ofPresence else None,
        presenceFields=ofPresence,
        checks=checks.checks if checks is not None and "checks" in ofChecks else None,
        restart=(
            # Several addresses of a monitor have the same settings.
            *dict.fromkeys(fixed),
            *(f"store.{keyName(name)}" for name in _differing(old.store, new.store)),
            *(f"http.{keyName(name)}" for name in ofChecks if name != "checks"),
        ),
    )


def _change(old: Part, new: Part, differing: tuple[str, ...]) -> Change:
    """
    Return the change of a part, in which what needs a restart stays as it is.
    """
    fixed = {name: getattr(old, name) for name in differing if name in new.NEEDS_RESTART}
    fields = tuple(name for name in differing if name not in fixed)
    return Change(old, replace(new, **fixed), fields)


def _differing(old: Any, new: Any) -> tuple[str, ...]:
    """
    Return the names of the fields in which two objects of one class differ.
    """
    return tuple(
        each.name
        for each in fields(new)
        if each.compare and getattr(old, each.name) != getattr(new, each.name)
    )
