# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What a page or a table says of names, beside the names that there are.
"""

from __future__ import annotations

from collections.abc import Iterable


def mistakesIn(place: str, named: Iterable[str], names: Iterable[str]) -> list[str]:
    """
    The names that a place lacks and those that it must not have, as sentences for the contributor
    who has added or removed one.

    @param place: the file or the heading, as a contributor looks for it.
    @param named: what it names.
    @param names: what it has to name, each once.
    """
    found, wanted = list(named), set(names)
    lacking = [f"{place} lacks {name}" for name in sorted(wanted - set(found))]
    wrong = [f"{place} has {name}, which is none" for name in sorted(set(found) - wanted)]
    twice = [f"{place} has {name} twice" for name in sorted(set(found)) if found.count(name) > 1]
    return lacking + wrong + twice
