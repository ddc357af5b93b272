# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Scenario}, and L{add}, which makes one of a function.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ..play import Play
from ..rules import Rule

Body = Callable[[Play], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """
    What is played.

    @ivar name: for the command line and the report.
    @ivar title: what happens, in one sentence.
    @ivar rules: what it checks, beside the rules for every byte that the peer sends.
    @ivar role: the kind of peer it is for; L{None} for both.
    """

    name: str
    title: str
    rules: tuple[Rule, ...]
    role: str | None
    play: Body


ADDED: list[Scenario] = []
"""All scenarios."""


def add(name: str, title: str, *rules: Rule, role: str | None = None) -> Callable[[Body], Body]:
    """
    Add the decorated function to the scenarios.
    """

    def decorate(body: Body) -> Body:
        ADDED.append(Scenario(name, title, rules, role, body))
        return body

    return decorate
