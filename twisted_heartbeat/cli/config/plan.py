# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{diff}: what has to be done so that one configuration becomes another.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from .values import Config, Part


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
    @ivar restart: the keys of the settings that differ, and need a restart.
    """

    keep: tuple[Part, ...] = ()
    change: tuple[Change, ...] = ()
    start: tuple[Part, ...] = ()
    stop: tuple[Part, ...] = ()
    restart: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """
        The plan in a few words, for the log.
        """
        counts = {
            "kept": len(self.keep),
            "changed": len(self.change),
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
        f"{new.key[0]}.{name}"
        for _, new, fields in differing
        for name in fields
        if name in new.NEEDS_RESTART
    ]
    return Plan(
        keep=tuple(change.new for change in changes if not change.fields),
        change=tuple(change for change in changes if change.fields),
        start=tuple(part for key, part in after.items() if key not in before),
        stop=tuple(part for key, part in before.items() if key not in after),
        restart=(
            *fixed,
            *(f"presence.{name}" for name in _differing(old.presence, new.presence)),
            *(f"store.{name}" for name in _differing(old.store, new.store)),
            *(f"http.{name}" for name in _differing(old.checks or new.checks, new.checks)),
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
