# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{diff}: what has to be done so that one configuration becomes another.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .values import Config, Part


@dataclass(frozen=True)
class Change:
    """
    A part that stays, with other settings.

    @ivar old: the part as it runs.
    @ivar new: the part as it is to be.
    @ivar fields: the settings that differ, and can be changed while the part runs.
    @ivar restart: the settings that differ, and can not.
    """

    old: Part
    new: Part
    fields: tuple[str, ...]
    restart: tuple[str, ...] = ()

    @property
    def effective(self) -> Part:
        """
        The part as it runs after the change: what needs a restart is as before.
        """
        return replace(self.new, **{name: getattr(self.old, name) for name in self.restart})


@dataclass(frozen=True)
class Plan:
    """
    What has to be done.  The parts of the old configuration are C{keep}, C{change} and C{stop};
    those of the new one are C{keep}, C{change} and C{start}.

    @ivar keep: nothing differs.  The part is the new one, which knows its place in the new file.
    """

    keep: tuple[Part, ...] = ()
    change: tuple[Change, ...] = ()
    start: tuple[Part, ...] = ()
    stop: tuple[Part, ...] = ()

    @property
    def isEmpty(self) -> bool:
        """
        Whether there is nothing to do.
        """
        return not (self.change or self.start or self.stop)

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
    return Plan(
        keep=tuple(new for old, new in both if not old.changes(new)),
        change=tuple(_change(old, new) for old, new in both if old.changes(new)),
        start=tuple(part for key, part in after.items() if key not in before),
        stop=tuple(part for key, part in before.items() if key not in after),
    )


def _change(old: Part, new: Part) -> Change:
    differing = new.changes(old)
    return Change(
        old,
        new,
        tuple(name for name in differing if name not in new.NEEDS_RESTART),
        tuple(name for name in differing if name in new.NEEDS_RESTART),
    )
